"""The copies of the chapters for Colab hold no MyST, and nothing is lost in them."""

import re

import nbformat
import pytest

from tools import places
from tools.book import notebooks
from tools.site import plain

CHAPTERS = [path.stem for path in notebooks.select([])]


@pytest.fixture(scope="module")
def known():
    return plain.labels(), plain.cited()


@pytest.mark.parametrize("name", CHAPTERS)
def test_no_myst_is_left_and_no_word_is_lost(known, name):
    notebook = nbformat.read(places.NOTEBOOKS / f"{name}.ipynb", as_version=4)
    copy = plain.convert(notebook, *known)
    text = "\n".join(cell.source for cell in copy.cells if cell.cell_type == "markdown")
    assert not re.search(r"\{[\w:-]+\}`|^(```|:::)\{|^:label:|\$\$ \(|^\([\w-]+\)=$", text, re.M)
    assert [c.source for c in copy.cells if c.cell_type == "code"] == [
        c.source for c in notebook.cells if c.cell_type == "code"
    ]
    words = lambda cells: [
        word
        for cell in cells
        if cell.cell_type == "markdown"
        for line in re.sub(r"\{[\w:-]+\}`[^`]*`", "", cell.source).splitlines()
        if not re.match(r"^(```|:\w+:)|^\([\w-]+\)=$|^\$\$ \(", line)
        for word in re.findall(r"[A-Za-z]{4,}", line)
    ]
    kept = iter(words(copy.cells))
    assert all(word in kept for word in words(notebook.cells))


@pytest.mark.parametrize(
    "myst, expected",
    [
        ("```{prf:theorem} Big\n:label: thm-1\n\nIt *is*.\n```", "> **Theorem (Big).**\n>\n> It *is*."),
        ("```{prf:proof}\nEasy.\n```", "*Proof.*\n\nEasy.\n\n∎"),
        (
            "```{solution} ex-1\n:class: dropdown\n\nYes.\n```",
            "<details>\n<summary><b>Solution</b></summary>\n\nYes.\n\n</details>",
        ),
        ("```{solution-end}\n```", ""),
        ("$$\na\n$$ (eq-1)", "$$\na\n\\tag{3}\n$$"),
        ("By {prf:ref}`thm-1`. {prf:ref}`thm-1`", "By [theorem (Big)](u#thm-1). [Theorem (Big)](u#thm-1)"),
        ("see {doc}`there <../notebooks/one>`", "see [there](u)"),
        (
            "see {chapter}`two`. {Chapter}`one to\ntwo`",
            "see [chapter 2](v). Chapters [1](u) to [2](v)",
        ),
    ],
)
def test_directives_and_roles(monkeypatch, myst, expected):
    monkeypatch.setattr(places, "chapters", lambda: ["one", "two"])
    known = {
        "thm-1": plain.Label("theorem (Big)", "u#thm-1"),
        "eq-1": plain.Label("(3)", "u"),
        "one": plain.Label("One", "u"),
        "two": plain.Label("Two", "v"),
    }
    cell = nbformat.v4.new_markdown_cell(myst)
    copy = plain.convert(nbformat.v4.new_notebook(cells=[cell]), known, {})
    assert "\n".join(c.source for c in copy.cells) == expected


def test_captions_stand_below_their_figures_and_widgets_are_left_out():
    figure = nbformat.v4.new_code_cell(
        "plot()", metadata={"mystnb": {"figure": {"caption": "A line.", "name": "fig-1"}}}
    )
    widget = nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}})
    still = nbformat.v4.new_output("display_data", {"image/png": "x"})
    figure.outputs = [widget, still]
    known = {"fig-1": plain.Label("figure 3.1", "u")}
    copy = plain.convert(nbformat.v4.new_notebook(cells=[figure]), known, {})
    assert copy.cells[0].outputs == [still]
    assert copy.cells[1].source == "*Figure 3.1. A line.*"


def test_code_that_is_folded_in_the_page_is_folded_in_colab_and_jupyterlab():
    folded = nbformat.v4.new_code_cell("plt.show()", metadata={"tags": ["hide-input"]})
    shown = nbformat.v4.new_code_cell("x = 1")
    copy = plain.convert(nbformat.v4.new_notebook(cells=[folded, shown]), {}, {})
    nbformat.validate(copy)
    first, second = (cell.metadata for cell in copy.cells)
    assert first == {"tags": ["hide-input"], "cellView": "form", "jupyter": {"source_hidden": True}}
    assert second == {}
