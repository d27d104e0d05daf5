"""Times the grading of 200 submissions of a problem set: `python -m coursework.tests.two_hundred ps2`.

Half of the students have solved everything; the others have, task by task, the solution, another right
answer, a wrong one, or nothing. Every fiftieth hands in a cell that loops for ever, and as many one that
fills the memory.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from coursework import answers, grade, source

SEED = 7


def hand_in(folder: Path, name: str, count: int) -> None:
    """Writes the submissions."""
    draw, known = random.Random(SEED), answers.known(name)
    for student in range(count):
        notebook = source.read(name)
        for cell in notebook.cells:
            task = cell.metadata.nbgrader.grade_id
            others = [answer.code for answer in known if answer.task == task]
            if others and student % 2:
                cell.source = draw.choice([cell.source, student.stub(cell.source), *others])
        tasks = [c for c in notebook.cells if source.is_answer(c) and c.cell_type == "code"]
        if student % 50 == 10:
            draw.choice(tasks).source = "while True: pass"
        if student % 50 == 20:
            draw.choice(tasks).source = "x = []\nwhile True: x.append(bytearray(2**24))"
        (folder / f"student{student:03d}").mkdir(parents=True)
        nbformat.write(notebook, folder / f"student{student:03d}" / f"{name}.ipynb")


if __name__ == "__main__":
    name, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "submissions"
        hand_in(folder, name, count)
        start = time.perf_counter()
        target = grade.grade(folder, only=[name])
        seconds = time.perf_counter() - start
        rows = (target / "grades.csv").read_text().splitlines()[1:]
        ended = sum("was ended" in row for row in rows)
        print(f"{len(rows)} submissions of {name}: {seconds / 60:.1f} minutes, in {ended} a cell was ended")
