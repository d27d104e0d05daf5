"""Tries the tests on answers whose worth is known: `python -m coursework.answers [ps1 ...]`.

For each task: the solution, the untouched stub, and what problems/NAME_answers.py holds, wrong answers and
other right ones. A wrong answer names the words that the failing test has to say to the student.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import nbformat

from coursework import execute, sandbox, source, student

_HEADING = re.compile(r"^# %% (\w+): (wrong|right), (.+)$", re.MULTILINE)


class Answer(NamedTuple):
    """An answer to a task: kind is solution, stub, wrong or right; says is what a wrong one must be told."""

    task: str
    kind: str
    title: str
    code: str
    says: str = ""


class Verdict(NamedTuple):
    """What the tests made of an answer; message is empty if it passed."""

    answer: Answer
    points: float
    of: float
    message: str

    @property
    def as_expected(self) -> bool:
        """Whether a right answer has all points and a wrong one none and the words that help."""
        if self.answer.kind in ("solution", "right"):
            return self.points == self.of
        return self.points == 0 and self.answer.says in self.message


def known(name: str) -> list[Answer]:
    """The wrong and the other right answers to a problem set."""
    parts = _HEADING.split((source.FOLDER / f"{name}_answers.py").read_text())[1:]
    answers = []
    for task, kind, title, code in zip(*[iter(parts)] * 4, strict=True):
        says = re.fullmatch(r'"(.+)"', title)
        if kind == "wrong" and not says:
            raise source.SourceError(
                f"{name}_answers.py, {task}: a wrong answer needs the test's words in quotes, not {title!r}."
            )
        answers.append(Answer(task, kind, title, code.strip(), says[1] if says else ""))
    return answers


def verdicts(name: str, variant: int | None = None, limits: sandbox.Limits | None = None) -> list[Verdict]:
    """Tries them all, in one kernel, each task after the solutions of those before it."""
    limits = limits or sandbox.Limits(cell_seconds=60, seconds=3600)
    notebook = source.read(name, variant)
    answers = known(name)
    tests = {
        cell.metadata.nbgrader.grade_id.removeprefix("test-"): cell
        for cell in notebook.cells
        if source.is_test(cell)
    }
    if unknown := {answer.task for answer in answers} - tests.keys():
        raise source.SourceError(f"{name}_answers.py has answers to {sorted(unknown)}, which are no tasks.")
    found, given = [], {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o777)
        with execute.Kernel(Path(scratch), limits) as kernel:
            for cell in notebook.cells:
                if cell.cell_type != "code" or source.is_test(cell):
                    continue
                if not source.is_answer(cell):
                    execute.prepare(cell.source, given)
                    kernel.run(cell.source)
                    continue
                task = cell.metadata.nbgrader.grade_id
                tried = [Answer(task, "stub", "", student.stub(cell.source))]
                tried += [answer for answer in answers if answer.task == task]
                tried += [Answer(task, "solution", "", cell.source)]  # the last, so that it stays
                for answer in tried:
                    found.append(_try(answer, tests[task], given, kernel))
    return found


def _try(answer: Answer, test: nbformat.NotebookNode, given: dict, kernel: execute.Kernel) -> Verdict:
    of = test.metadata.nbgrader.points
    # what an earlier answer has left must not stand in for what this one fails to define
    names = ", ".join(sorted(source.defines(answer.code)) or ["None"])
    try:
        kernel.run("\n".join(f"globals().pop({name!r}, None)" for name in names.split(", ")))
        kernel.run(answer.code)
        outputs = execute.test(test.source, given, kernel)
    except execute.Ended as end:
        return Verdict(answer, 0, of, str(end))
    errors = [output.evalue or output.ename for output in outputs if output.output_type == "error"]
    return Verdict(answer, 0 if errors else of, of, errors[0] if errors else "")


def main(names: list[str]) -> int:
    """Prints a line for each task, and what is not as expected."""
    wrong = 0
    for name in names or source.names():
        print(f"{name:24} solution  stub  wrong answers  other right answers")
        tried = verdicts(name)
        for task in dict.fromkeys(verdict.answer.task for verdict in tried):
            row = {"solution": [], "stub": [], "wrong": [], "right": []}
            for verdict in tried:
                if verdict.answer.task == task:
                    row[verdict.answer.kind].append(f"{verdict.points:g}")
            of = next(verdict.of for verdict in tried if verdict.answer.task == task)
            cells = [" ".join(row[kind]) for kind in row]
            print(f"{task + f' ({of:g})':24} {cells[0]:8}  {cells[1]:4}  {cells[2]:13}  {cells[3]}")
        for verdict in tried:
            if not verdict.as_expected:
                wrong += 1
                said = f"the test says {verdict.message!r}" if verdict.message else "the test passes"
                print(
                    f"NOT AS EXPECTED: {verdict.answer.task}, {verdict.answer.kind} "
                    f"{verdict.answer.title}: {said}"
                )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
