"""The pairing check must catch what would otherwise be published stale."""

from pathlib import Path

import nbformat
import pytest

from tools import places
from tools.book import notebooks

SOURCE = """\
---
jupytext:
  formats: ipynb,md:myst
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A chapter

```{code-cell} ipython3
:tags: [hide-input]

x = 1
```

```{code-cell} ipython3
print(x)
```
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with one pair in order."""
    source = tmp_path / "chapter.md"
    source.write_text(SOURCE, encoding="utf-8")
    notebook = notebooks.read_source(source)
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
        cell.execution_count = count
    nbformat.write(notebook, tmp_path / "chapter.ipynb")
    return tmp_path


def edit(folder: Path, change) -> None:
    """Applies a change to the code cells of the stored notebook."""
    path = folder / "chapter.ipynb"
    notebook = nbformat.read(path, as_version=4)
    change([cell for cell in notebook.cells if cell.cell_type == "code"])
    nbformat.write(notebook, path)


def report(folder, capsys) -> str:
    """What the check prints about a folder that is not in order."""
    assert notebooks.check(folder) == 1
    return capsys.readouterr().out


def test_a_pair_in_order_passes(folder, capsys):
    assert notebooks.check(folder) == 0
    assert "chapter: ok" in capsys.readouterr().out


def test_a_disagreeing_source_is_named_with_its_cell_and_the_way_out(folder, capsys):
    edit(folder, lambda cells: cells[2].update(source="print(x + 1)"))
    out = report(folder, capsys)
    assert "'print(x)'" in out and "different source in chapter.ipynb" in out
    assert "make execute NOTEBOOK=chapter" in out


def test_disagreeing_tags_are_caught(folder, capsys):
    edit(folder, lambda cells: cells[1].metadata.update(tags=["remove-cell"]))
    assert "different tags" in report(folder, capsys)


def test_a_missing_cell_is_caught(folder, capsys):
    (folder / "chapter.md").write_text(SOURCE + "\nOne more paragraph.\n", encoding="utf-8")
    assert "has 5 cells, chapter.ipynb has 4" in report(folder, capsys)


def test_a_source_without_notebook_is_caught(folder, capsys):
    (folder / "chapter.ipynb").unlink()
    assert "chapter.md has no chapter.ipynb" in report(folder, capsys)


def test_a_notebook_without_source_is_caught(folder, capsys):
    (folder / "chapter.md").unlink()
    assert "chapter.ipynb has no chapter.md" in report(folder, capsys)


def test_an_unexecuted_cell_is_caught(folder, capsys):
    edit(folder, lambda cells: cells[2].update(execution_count=None))
    assert "'print(x)') was not executed" in report(folder, capsys)


def test_cells_out_of_order_are_caught(folder, capsys):
    edit(folder, lambda cells: cells[0].update(execution_count=3))
    assert "executed as number 3, not 1" in report(folder, capsys)


def test_an_error_output_is_caught(folder, capsys):
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no such group", traceback=[])
    edit(folder, lambda cells: cells[2].update(outputs=[error]))
    assert "ended in ValueError: no such group" in report(folder, capsys)


def test_chapters_are_chosen_by_name_and_one_that_is_not_there_is_an_error_that_lists_them(monkeypatch):
    monkeypatch.setattr(places, "chapters", lambda: ["two", "one"])
    names = lambda *chosen: [path.name for path in notebooks.select(list(chosen))]
    assert names("one") == ["one.md"] and names() == ["two.md", "one.md"]
    with pytest.raises(notebooks.NotebookError, match=r"No chapter has the name 9\. There are: two, one\."):
        notebooks.select(["9"])


@pytest.mark.slow
def test_two_runs_store_the_same_bytes_and_stderr_is_refused(folder):
    source, stored = folder / "chapter.md", folder / "chapter.ipynb"
    notebooks.execute(source)
    first = stored.read_bytes()
    notebooks.execute(source)
    assert stored.read_bytes() == first and b"1\\n" in first
    assert notebooks.check(folder) == 0

    source.write_text(SOURCE.replace("print(x)", "import sys; print(x, file=sys.stderr)"), encoding="utf-8")
    with pytest.raises(notebooks.NotebookError, match="wrote to stderr"):
        notebooks.execute(source)
    assert stored.read_bytes() == first


def test_prose_is_stored_without_running_and_changed_code_is_not(folder):
    source, stored = folder / "chapter.md", folder / "chapter.ipynb"
    source.write_text(SOURCE.replace("# A chapter", "# A better title"), encoding="utf-8")
    assert notebooks.check(folder) == 1
    assert notebooks.sync(source) and notebooks.check(folder) == 0
    before = stored.read_bytes()
    source.write_text(SOURCE.replace("x = 1", "x = 2"), encoding="utf-8")
    assert not notebooks.sync(source) and stored.read_bytes() == before


def test_a_disagreeing_slide_is_caught(folder, capsys):
    edit(folder, lambda cells: cells[1].metadata.update(slide="Title"))
    assert "different slide" in report(folder, capsys)
