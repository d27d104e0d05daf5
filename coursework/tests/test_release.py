"""What students get: everything they need, and nothing that gives a solution away."""

import re

import nbformat
import pytest

from coursework import leaks, release, source, student
from tools.book import setup_cell


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The release of all problem sets, made anew."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("release")
        patch.setattr(source, "release_folder", lambda variant: folder / str(variant or 0))
        return release.build(None, source.names())


@pytest.mark.parametrize("name", source.names())
def test_students_get_no_solution_and_no_hidden_test(made, name):
    text = (made / "student" / f"{name}.ipynb").read_text()
    notebook = nbformat.reads(text, as_version=4)
    assert leaks.found_in("\n".join(cell.source for cell in notebook.cells)) == []
    assert "YOUR CODE HERE" in text and "BEGIN HIDDEN" not in text and "BEGIN SOLUTION" not in text


@pytest.mark.parametrize("name", source.names())
def test_what_the_pages_publish_is_what_nbgrader_releases(made, name):
    published = nbformat.writes(student.notebook(name)) + "\n"
    assert published == (made / "student" / f"{name}.ipynb").read_text()


@pytest.mark.parametrize("name", source.names())
def test_the_first_code_cell_sets_up_as_the_chapters_do(made, name):
    notebook = nbformat.read(made / "student" / f"{name}.ipynb", as_version=4)
    assert next(cell for cell in notebook.cells if cell.cell_type == "code").source == setup_cell.text()


@pytest.mark.parametrize("name", source.names())
def test_text_says_the_points_that_the_tests_give(name):
    notebook = source.read(name)
    points = sum(cell.metadata.nbgrader.get("points", 0) for cell in notebook.cells)
    assert f"{points} points" in notebook.cells[0].source


@pytest.mark.parametrize("name", source.names())
def test_formulas_use_what_jupyter_and_colab_know(name):
    """The book's pages would typeset a macro of their own; a notebook's front end would not."""
    for cell in source.read(name).cells:
        if cell.cell_type == "markdown":
            assert not re.findall(r"\\(?:E|R|Var|one|ntk|nngp)\b|\{doc\}|\{eq\}|\{prf", cell.source)


def test_what_tests_hold_is_what_students_hold_and_more(made):
    for name in source.names():
        pair = [nbformat.read(made / part / f"{name}.ipynb", as_version=4) for part in ("student", "tests")]
        for theirs, ours in zip(*(notebook.cells for notebook in pair), strict=True):
            assert theirs.metadata.nbgrader.grade_id == ours.metadata.nbgrader.grade_id
            assert ours.source.startswith(theirs.source.rstrip())


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda text: text.replace("<<beads>>", "<<pearls>>"), "<<pearls>> has no values"),
        (lambda text: text.replace("test: move", "test: mover"), "no test|a test and no task"),
        (lambda text: text.replace("task: turn_field", "task: move"), "two cells have the name move"),
    ],
)
def test_a_mistake_in_a_source_is_named(tmp_path, monkeypatch, change, says):
    for file in ("ps1.md", "instructions.md", "expect.py"):
        (tmp_path / file).write_text((source.FOLDER / file).read_text())
    (tmp_path / "ps1.md").write_text(change((tmp_path / "ps1.md").read_text()))
    monkeypatch.setattr(source, "FOLDER", tmp_path)
    with pytest.raises(source.SourceError, match=says):
        source.read("ps1")
