"""A problem set as it is written: one MyST file with text, solutions and tests.

What a cell is for, its metadata say. A code cell with `task: NAME` is answered by the student; one with
`test: NAME` and `points` grades that answer; a Markdown cell with `rubric: NAME` and `points` is answered in
words and graded by hand; all others are given. Solutions and hidden tests are marked as nbgrader wants it
(`### BEGIN SOLUTION`, `### BEGIN HIDDEN TESTS`). `<<name>>` stands for one of the values that the file's
header lists under `numbers`: the first of them, or the one that a variant draws.
"""

from __future__ import annotations

import ast
import hashlib
import random
import re
from pathlib import Path

import jupytext
import nbformat
import yaml
from IPython.core.inputtransformer2 import TransformerManager

from tools import places
from tools.book import notebooks, setup_cell

FOLDER = places.ROOT / "coursework" / "problems"
KEY = "coursework"  # of the notebook's metadata: which problem set, variant and release it is
_SHARED = "instructions.md"  # stands in all of them


class SourceError(Exception):
    """What is wrong with a problem set's source, in words for its author."""


def names() -> list[str]:
    """The problem sets and the project, in the order in which they are set."""
    return sorted(path.stem for path in FOLDER.glob("*.md") if path.name != _SHARED)


def read(name: str, variant: int | None = None) -> nbformat.NotebookNode:
    """The complete problem set, solutions and hidden tests included, with nbgrader's metadata.

    Args:
        name: of a file problems/NAME.md.
        variant: draws the numbers; None takes the first of each list.

    Raises:
        SourceError: a number without values, a test without a task, a task without a test, a name used twice.
    """
    path = FOLDER / f"{name}.md"
    text = path.read_text()
    header = yaml.safe_load(text.split("---")[1])
    numbers = {"variant": variant or 0} | {
        key: values[0] if variant is None else random.Random(f"{variant} {name} {key}").choice(values)
        for key, values in header.pop("numbers", {}).items()
    }

    def value(match: re.Match) -> str:
        if match[1] not in numbers:
            raise SourceError(f"{path.name}: <<{match[1]}>> has no values; its header has {sorted(numbers)}.")
        return str(numbers[match[1]])

    body = re.sub(r"<<(\w+)>>", value, text.split("---", 2)[2])
    notebook = jupytext.reads(f"---\n{yaml.safe_dump(header)}---{body}", fmt="md:myst")
    instructions = (FOLDER / _SHARED).read_text().replace("<<name>>", name).strip()
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(instructions))
    setup_cell.insert(notebook)
    first = next(i for i, c in enumerate(notebook.cells) if setup_cell.TAG in c.metadata.get("tags", []))
    notebook.cells[first].metadata = {}
    expect = (FOLDER / "expect.py").read_text().strip()
    notebook.cells.insert(first + 1, nbformat.v4.new_code_cell(expect))
    for cell in notebook.cells:
        cell.metadata = {"nbgrader": _nbgrader(path.name, cell)}
    notebooks.name_cells(notebook)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            KEY: {"assignment": name, "variant": variant or 0, "release": _digest(notebook)},
        }
    )
    _check(path.name, notebook)
    return notebook


def _nbgrader(file: str, cell: nbformat.NotebookNode) -> dict:
    kinds = [kind for kind in ("task", "test", "rubric") if kind in cell.metadata]
    if len(kinds) > 1:
        raise SourceError(f"{file}: a cell cannot be {' and '.join(kinds)} at once: {cell.source[:60]!r}")
    kind = kinds[0] if kinds else None
    common = {"schema_version": 3, "task": False, "locked": kind in (None, "test")}
    if kind is None:
        mark = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:10]
        return common | {"grade_id": f"given-{mark}", "grade": False, "solution": False}
    name = cell.metadata[kind]
    if kind == "task":
        return common | {"grade_id": name, "grade": False, "solution": True}
    graded = {"grade": True, "points": cell.metadata["points"], "solution": kind == "rubric"}
    return common | {"grade_id": f"{kind}-{name}"} | graded


def _digest(notebook: nbformat.NotebookNode) -> str:
    return hashlib.sha256("\n".join(cell.source for cell in notebook.cells).encode()).hexdigest()[:8]


def _check(file: str, notebook: nbformat.NotebookNode) -> None:
    ids = [cell.metadata.nbgrader.grade_id for cell in notebook.cells]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    tasks = {name for name, c in zip(ids, notebook.cells, strict=True) if is_answer(c) and not is_graded(c)}
    tested = {name.removeprefix("test-") for name in ids if name.startswith("test-")}
    for name in twice:
        raise SourceError(f"{file}: two cells have the name {name}.")
    for name in tasks ^ tested:
        raise SourceError(f"{file}: {name} has {'no test' if name in tasks else 'a test and no task'}.")


def is_answer(cell: nbformat.NotebookNode) -> bool:
    """Whether the student writes this cell."""
    return cell.metadata.get("nbgrader", {}).get("solution", False)


def is_graded(cell: nbformat.NotebookNode) -> bool:
    """Whether this cell has points: a test, or an answer in words."""
    return cell.metadata.get("nbgrader", {}).get("grade", False)


def is_test(cell: nbformat.NotebookNode) -> bool:
    """Whether this cell tests an answer."""
    return is_graded(cell) and not is_answer(cell)


def python(code: str) -> str:
    """A cell's code as plain Python: without IPython's magics."""
    return TransformerManager().transform_cell(code)


def defines(code: str) -> set[str]:
    """The names that a cell's top level defines; none if it cannot be parsed."""
    try:
        tree = ast.parse(python(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    found = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in getattr(node, "targets", None) or [node.target]:
                found |= {inner.id for inner in ast.walk(target) if isinstance(inner, ast.Name)}
    return found


def release_folder(variant: int | None) -> Path:
    """Where `make assignments` puts what it makes."""
    return places.ROOT / "coursework" / "build" / str(variant or 0)
