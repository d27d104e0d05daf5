import nbformat
import pytest

from coursework import source


@pytest.fixture
def solved():
    """A fresh copy of problem set 1 as a student who has solved it hands it in."""

    def make(**answers):
        notebook = source.read("ps1")
        for cell in notebook.cells:
            name = cell.metadata.nbgrader.grade_id
            if source.is_answer(cell):
                cell.source = answers.get(name, cell.source.replace("### BEGIN SOLUTION", "# mine"))
            cell.source = cell.source.split("### BEGIN HIDDEN TESTS")[0]
        return notebook

    return make


@pytest.fixture
def added():
    """A code cell that a student adds."""
    return nbformat.v4.new_code_cell
