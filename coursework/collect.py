"""Finds submissions, whatever became of their names, and puts the answers into a clean problem set.

A student is the first folder below the one that is graded (`submissions/ada/ps1.ipynb`), or, for files that
lie directly in it, what stands before the first underscore (`submissions/ada_ps1.ipynb`), as learning
platforms export them. Nothing of what a student handed in is run or trusted here: of a submission, grading
takes the answers and the cells that the student added, and everything else from its own copy.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from coursework import source

LARGEST = 512 * 2**20  # bytes of a file that is read
_PICTURES = 5 * 2**20  # bytes of pictures pasted into an answer


@dataclass
class Submission:
    """What one student handed in for one problem set."""

    student: str
    name: str
    path: Path
    notebook: nbformat.NotebookNode | None
    notes: list[str] = field(default_factory=list)
    modified: float = 0.0


def find(folder: Path, known: list[str]) -> tuple[list[Submission], list[str]]:
    """All submissions in a folder, and what was left out, in words.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: expected was one with a folder for each student.")
    found: dict[tuple[str, str], Submission] = {}
    left_out = []
    signs = {name: _signs(source.read(name)) for name in known}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.is_symlink():
            left_out.append(f"{place} is a link: links are not followed.")
            continue
        if not path.is_file() or any(part.startswith((".", "__MACOSX")) for part in place.parts):
            continue
        submission = _read(path, place, signs)
        if isinstance(submission, str):
            left_out.append(f"{place}: {submission}")
            continue
        key = (submission.student, submission.name)
        earlier = found.get(key)
        if earlier is None:
            found[key] = submission
            continue
        new, old = sorted(
            [submission, earlier], key=lambda s: (s.notebook is not None, s.modified), reverse=True
        )
        new.notes.append(
            f"two files for {new.name}: {new.path.name} counts, the newer one; {old.path.name} does not"
        )
        found[key] = new
    return [found[key] for key in sorted(found)], left_out


def _read(path: Path, place: Path, signs: dict[str, set[str]]) -> Submission | str:
    size = path.stat().st_size
    in_name = [name for name in signs if re.search(rf"(?<![a-z0-9]){name}(?![0-9])", path.name.lower())]
    looks_like_one = ".ipynb" in path.name.lower() or in_name
    notes, notebook, problem = [], None, ""
    if size > LARGEST:
        problem = f"the file has {size / 2**20:.0f} MiB, more than the {LARGEST >> 20} that are read"
    else:
        try:
            notebook = _parse(path)
        except Exception as error:
            problem = f"the file cannot be read as a notebook ({type(error).__name__}: {str(error)[:100]})"
    if notebook is None and not looks_like_one:
        return "not a notebook, left out."
    stated = notebook.metadata.get(source.KEY) if notebook is not None else None
    stated = stated.get("assignment") if isinstance(stated, dict) else None
    name = stated if stated in signs else (in_name[0] if in_name else None)
    if name is None and notebook is not None:
        shared = {n: len(_signs(notebook) & s) for n, s in signs.items()}
        name = max(shared, key=shared.get, default=None)
        if not name or not shared[name]:
            return "a notebook, but of none of the problem sets."
    if name is None:
        return f"{problem}, and its name is none of {', '.join(signs)}: whose answer to what is it?"
    if len(place.parts) > 1:
        student = place.parts[0]
    elif "_" in path.stem:
        student = path.stem.split("_")[0]
    else:
        return f"whose is it? Put it into a folder with the student's name, or call it STUDENT_{name}.ipynb."
    clean = re.sub(r"[^\w.@-]+", "-", student).strip(".-") or "student"
    if clean != student:
        clean += "-" + hashlib.sha256(student.encode()).hexdigest()[:4]  # so that two such names stay two
        notes.append(f"the student's name {student!r} is written {clean}")
    if path.name != f"{name}.ipynb":
        notes.append(f"the file is called {path.name}, expected was {name}.ipynb")
    if problem:
        notes.append(problem)
    return Submission(clean, name, path, notebook, notes, path.stat().st_mtime)


def _parse(path: Path) -> nbformat.NotebookNode:
    content = json.loads(path.read_bytes().decode("utf-8-sig"))
    # outputs are made anew; what a notebook's validity depends on is kept
    cells = content.get("cells")
    if cells is None:
        cells = [cell for sheet in content.get("worksheets", []) for cell in sheet["cells"]]
    notebook = nbformat.v4.new_notebook(metadata=content.get("metadata") or {})
    for cell in cells:
        text = cell.get("source", cell.get("input", ""))
        text = (
            ("".join(text) if isinstance(text, list) else str(text)).replace("\r\n", "\n").replace("\r", "\n")
        )
        make = nbformat.v4.new_code_cell if cell.get("cell_type") == "code" else nbformat.v4.new_markdown_cell
        made = make(text)
        metadata = cell.get("metadata")
        mark = metadata.get("nbgrader") if isinstance(metadata, dict) else None
        if isinstance(mark, dict):
            made.metadata["nbgrader"] = nbformat.from_dict(mark)
        pictures = cell.get("attachments")
        if pictures and made.cell_type == "markdown" and len(json.dumps(pictures)) <= _PICTURES:
            made["attachments"] = nbformat.from_dict(pictures)
        notebook.cells.append(made)
    return notebook


def _mark(cell: nbformat.NotebookNode) -> str | None:
    name = cell.metadata.get("nbgrader", {}).get("grade_id")
    return name if isinstance(name, str) else None


def _signs(notebook: nbformat.NotebookNode) -> set[str]:
    """By what a problem set is recognised: the names of its answers, and of what they define."""
    found = set()
    for cell in notebook.cells:
        if source.is_answer(cell) and _mark(cell):
            found.add(_mark(cell))
        if cell.cell_type == "code" and not cell.metadata.get("nbgrader", {}).get("locked"):
            found |= source.defines(cell.source)
    return found


def merge(
    tests: nbformat.NotebookNode, complete: nbformat.NotebookNode, handed: nbformat.NotebookNode | None
) -> tuple[nbformat.NotebookNode, list[str]]:
    """The problem set with a student's answers and added cells, and what had to be mended.

    Args:
        tests: the problem set with empty answers and all tests.
        complete: the same with solutions, which tell what an answer defines.
        handed: the submission; None leaves all answers empty.
    """
    notebook = nbformat.from_dict(tests)
    if handed is None:
        return notebook, ["no answers could be read: all tasks count as not answered"]
    ours = {_mark(cell): cell for cell in notebook.cells}
    labels, notes = _recognise(ours, complete, handed)
    answers: dict[str, nbformat.NotebookNode] = {}
    added: dict[str | None, list[nbformat.NotebookNode]] = {}
    changed, last = [], None  # last: the cell of ours after which an added one stands
    for cell, label in zip(handed.cells, labels, strict=True):
        if label is None:
            if not cell.metadata.get("nbgrader", {}).get("locked"):  # else a given cell of another release
                added.setdefault(last, []).append(_own(cell))
            continue
        last = label
        if not source.is_answer(ours[label]):
            if cell.source.strip() not in (visible(ours[label].source), ours[label].source.strip()):
                changed.append(label)
        elif label in answers and cell.source.strip() == ours[label].source.strip():
            continue  # a copy of the cell without an answer
        else:
            if label in answers:
                notes.append(f"{label}: two cells have this mark, and the later one counts")
                added.setdefault(label, []).append(_own(answers[label]))
            answers[label] = cell
    for name, cell in ours.items():
        if name not in labels and source.is_answer(cell):
            notes.append(f"{name}: its cell is missing, and the task counts as not answered")
    missing = [name for name, cell in ours.items() if name not in labels and source.is_test(cell)]
    for what, which in [("changed", changed), ("missing", missing)]:
        if which:
            notes.append(f"given cells that were {what} are put back: {', '.join(which)}")
    stated, current = notebook.metadata[source.KEY], handed.metadata.get(source.KEY)
    for what in ("variant", "release"):
        if isinstance(current, dict) and current.get(what) != stated[what]:
            notes.append(f"handed in was {what} {current.get(what)}, graded is {what} {stated[what]}")
    merged = added.get(None, [])
    for name, cell in ours.items():
        if name in answers:
            cell.source = answers[name].source
            if "attachments" in answers[name] and cell.cell_type == "markdown":
                cell["attachments"] = answers[name]["attachments"]
        merged += [cell, *added.get(name, [])]
    notebook.cells = merged
    return notebook, notes


def _recognise(ours: dict, complete, handed) -> tuple[list[str | None], list[str]]:
    """Which cell of ours each cell is: by its mark, by its text, or by what it defines."""
    by_text = {visible(cell.source): name for name, cell in ours.items() if not source.is_answer(cell)}
    defined = {
        _mark(cell): source.defines(cell.source)
        for cell in complete.cells
        if source.is_answer(cell) and cell.cell_type == "code"
    }
    marks = {_mark(cell) for cell in handed.cells}
    labels, notes = [], []
    for cell in handed.cells:
        label = _mark(cell) if _mark(cell) in ours else by_text.get(cell.source.strip())
        if label is None and cell.cell_type == "code":
            names = source.defines(cell.source)
            label = next((task for task in defined if task not in marks and names & defined[task]), None)
            if label is not None and label not in labels:
                notes.append(f"{label}: its cell had lost its mark and was found by what it defines")
        labels.append(label)
    return labels, notes


def visible(code: str) -> str:
    """What students see of a test."""
    return re.sub(
        r"\n*^### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS", "", code, flags=re.DOTALL | re.MULTILINE
    ).strip()


def _own(cell: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A student's own cell, without a mark that would make it count."""
    make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
    own = make(cell.source)
    if "attachments" in cell:
        own["attachments"] = cell["attachments"]
    return own
