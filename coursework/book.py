"""The steps that nbgrader does, run in its own environment: `book.py release FOLDER`, `book.py grade FOLDER`.

Both work on a course folder with nbgrader's layout (source/, submitted/, ...). What the tests say has been
found out before, in the sandbox, and stands in the submitted notebooks' outputs; nbgrader reads points from
it, keeps the gradebook and writes the feedback. So nothing of a student's is run here.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

from nbgrader.api import MissingEntry
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import ClearHiddenTests, Execute
from traitlets.config import Config


def _api(course: Path, **changes) -> NbGraderAPI:
    config = Config()
    config.CourseDirectory.root = str(course)
    config.CourseDirectory.db_url = f"sqlite:///{course / 'gradebook.db'}"
    config.NbGraderAPI.log_level = "ERROR"
    # a student's output may hold HTML, and a page is opened in the instructor's browser
    config.HTMLExporter.sanitize_html = True
    for name, value in changes.items():
        trait, attribute = name.split("__")
        config[trait][attribute] = value
    return NbGraderAPI(CourseDirectory(config=config), config=config)


def _done(result: dict, what: str) -> None:
    if not result["success"]:
        raise SystemExit(f"nbgrader could not {what}:\n{result.get('error')}\n{result.get('log')}")


def release(course: Path) -> None:
    """From source/, what students get in release/ and the same with the hidden tests in tests/."""
    from nbgrader.converters import GenerateAssignment

    complete = [step for step in GenerateAssignment().preprocessors if step is not ClearHiddenTests]
    for source in sorted((course / "source").iterdir()):
        _done(_api(course).generate_assignment(source.name), f"release {source.name}")
        api = _api(
            course,
            CourseDirectory__release_directory="tests",
            GenerateAssignment__preprocessors=complete,
            GenerateAssignment__no_database=True,
        )
        _done(api.generate_assignment(source.name), f"make the tests of {source.name}")


def grade(course: Path) -> None:
    """Reads the points from submitted/ into the gradebook; writes feedback/, grades.csv and rubric.csv."""
    from nbgrader.converters import Autograde

    begin = Autograde()
    api = _api(
        course,
        Autograde__sanitize_preprocessors=[
            step for step in begin.sanitize_preprocessors if step.__name__ != "ClearOutput"
        ],
        Autograde__autograde_preprocessors=[
            step for step in begin.autograde_preprocessors if step is not Execute
        ],
    )
    names = sorted(path.name for path in (course / "source").iterdir())
    for name in names:
        _done(api.generate_assignment(name), f"read {name}")
    done_file = course / "done.json"
    done = json.loads(done_file.read_text()) if done_file.exists() else {}
    submitted = sorted((path.parent.name, path.name) for path in (course / "submitted").glob("*/*"))
    for student, name in submitted:
        mark = (course / "submitted" / student / name / "key.txt").read_text()
        if done.get(f"{student} {name}") != mark:
            _done(api.autograde(name, student), f"read the grades of {student}, {name}")
            done[f"{student} {name}"] = mark
            done_file.write_text(json.dumps(done))
            print(f"graded {student} {name}", flush=True)
    changed = _by_hand(api, course, submitted)
    for student, name in submitted:
        page = course / "feedback" / student / name / f"{name}.html"
        if (
            (student, name) in changed
            or not page.exists()
            or done.get(f"page {student} {name}") != done[f"{student} {name}"]
        ):
            shutil.rmtree(page.parent, ignore_errors=True)
            _done(api.generate_feedback(name, student), f"write the feedback of {student}, {name}")
            done[f"page {student} {name}"] = done[f"{student} {name}"]
            done_file.write_text(json.dumps(done))
            print(f"feedback {student} {name}", flush=True)
    _table(api, course, names, submitted)


_HAND = ["student", "problem set", "task", "points", "of", "comment"]


def _by_hand(api: NbGraderAPI, course: Path, submitted: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """Carries the points in rubric.csv into the gradebook, and adds a line for each answer that has none."""
    file = course / "rubric.csv"
    lines = {}
    if file.exists():
        with file.open(newline="", encoding="utf-8-sig") as stream:
            lines = {(row["student"], row["problem set"], row["task"]): row for row in csv.DictReader(stream)}
    changed = set()
    with api.gradebook as book:
        for student, name in submitted:
            for grade in book.find_submission(name, student).notebooks[0].grades:
                if not grade.cell.name.startswith("rubric-"):
                    continue
                task = grade.name.removeprefix("rubric-")
                if not grade.needs_manual_grade and (student, name, task) not in lines:
                    continue  # not answered
                row = lines.setdefault(
                    (student, name, task),
                    dict(zip(_HAND, [student, name, task, "", f"{grade.max_score:g}", ""], strict=True)),
                )
                if not row["points"].strip():
                    continue
                try:
                    points = float(row["points"].replace(",", "."))
                except ValueError:
                    points = -1.0
                if not 0 <= points <= grade.max_score:
                    raise SystemExit(
                        f"rubric.csv: {student}, {name}, {task} has {row['points']!r} points; expected was a "
                        f"number from 0 to {grade.max_score:g}, or nothing. "
                        "Correct it and run make grade again; nothing was lost."
                    )
                comment = book.find_comment(grade.name, name, name, student)
                if grade.manual_score != points or (comment.manual_comment or "") != row["comment"]:
                    changed.add((student, name))
                grade.manual_score, grade.needs_manual_grade = points, False
                comment.manual_comment = row["comment"] or None
        book.db.commit()
    fresh = file.with_suffix(".new")
    with fresh.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, _HAND)
        writer.writeheader()
        writer.writerows(lines[key] for key in sorted(lines))
    fresh.replace(file)
    return changed


def _table(api: NbGraderAPI, course: Path, names: list[str], submitted: list[tuple[str, str]]) -> None:
    """grades.csv: a line for each submission and task."""
    fresh = course / "grades.new"
    with api.gradebook as book, fresh.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["student", "problem set", "task", "points", "of", "graded"])
        for student, name in submitted:
            try:
                submission = book.find_submission(name, student)
            except MissingEntry:
                continue
            for grade in submission.notebooks[0].grades:
                task = grade.name.removeprefix("test-").removeprefix("rubric-")
                how = "by hand, still to do" if grade.needs_manual_grade else "yes"
                writer.writerow([student, name, task, f"{grade.score:g}", f"{grade.max_score:g}", how])
    fresh.replace(course / "tasks.csv")


if __name__ == "__main__":
    {"release": release, "grade": grade}[sys.argv[1]](Path(sys.argv[2]).resolve())
