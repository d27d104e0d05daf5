"""What students get of a problem set: no solutions, no hidden tests, cells that their front end protects.

This is what nbgrader would release, to the last byte, made without it: the pages are built from the book's
environment alone, and the tests of the grading compare the two.
"""

from __future__ import annotations

import hashlib
import re

import nbformat

from coursework import source
from tools.book import notebooks

_SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?^ *### END SOLUTION$", re.MULTILINE | re.DOTALL)
_HIDDEN = re.compile(r"^ *### BEGIN HIDDEN TESTS\n.*?^ *### END HIDDEN TESTS$\n?", re.MULTILINE | re.DOTALL)


def stub(code: str) -> str:
    """A solution cell as the student gets it."""
    return _SOLUTION.sub(r"\1# YOUR CODE HERE\n\1raise NotImplementedError()", code)


def notebook(name: str, variant: int | None = None) -> nbformat.NotebookNode:
    """The problem set as it is handed out."""
    made = source.read(name, variant)
    for cell in made.cells:
        if cell.cell_type == "markdown" and source.is_answer(cell):
            cell.source = "YOUR ANSWER HERE"
        elif cell.cell_type == "code":
            cell.source = _HIDDEN.sub("", stub(cell.source)).rstrip("\n")
        marks = cell.metadata.nbgrader
        marks.update(cell_type=cell.cell_type, checksum=_checksum(cell))
        cell.metadata["deletable"] = False
        if marks.locked:
            cell.metadata["editable"] = False
    notebooks.name_cells(made)
    return made


def _checksum(cell: nbformat.NotebookNode) -> str:
    """By which nbgrader notices that a cell was changed."""
    marks = cell.metadata.nbgrader
    parts = [cell.source, cell.cell_type, str(marks.grade), str(marks.solution), str(marks.locked)]
    parts.append(marks.grade_id)
    if marks.grade:
        parts.append(str(float(marks.points)))
    return hashlib.md5("".join(parts).encode(), usedforsecurity=False).hexdigest()
