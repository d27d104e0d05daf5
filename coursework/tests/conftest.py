import re

import nbformat
import pytest
from xdist.scheduler import LoadScopeScheduling

from coursework import source


class _Together(LoadScopeScheduling):
    """What needs the same answers tried, or the same submissions graded, runs in one process.

    That is a file, and of the answers a problem set. xdist_group would say so, too, but is without effect,
    and without a word, on pytest 9.2.
    """

    def _split_scope(self, nodeid):
        name = re.search(r"test_answers\.py::\w+\[([^-\]]+)", nodeid)
        return name[1] if name else nodeid.split("::")[0]


def pytest_xdist_make_scheduler(config, log):
    return _Together(config, log)


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
