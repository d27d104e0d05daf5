"""Grades a folder of submissions: `make grade DIR=submissions`.

Beside the folder another one, submissions-graded, gets grades.csv (a line for each student), tasks.csv (a
line for each task), feedback/STUDENT/, summary.png, log.txt, and rubric.csv, in which you enter the points of
the answers in words; grade again to count them. What has been graded once is not run again unless the
submission or the problem set has changed, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import nbformat
import numpy as np
from tqdm import tqdm

from coursework import collect, release, sandbox, source
from tools import places

AT_ONCE = 2
_SLACK = 120  # seconds that the tests themselves may take on top of the student's code
_MEMORY = 6 * 2**30  # bytes for the tests
_HERE = Path(__file__).parent


def check_machine(limits: sandbox.Limits, unsafe: bool) -> None:
    """Says what this machine cannot enforce, and stops unless that is accepted."""
    lacking = sandbox.missing(limits)
    if not lacking:
        return
    print("On this machine these limits cannot be enforced: it does not hold that", file=sys.stderr)
    for what in lacking:
        print(f"  - {what}", file=sys.stderr)
    if shutil.which("bwrap") is None:
        print("bubblewrap is not installed: apt install bubblewrap (Debian, Ubuntu).", file=sys.stderr)
    else:
        tried = subprocess.run(
            ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True, text=True
        )
        print(f"bubblewrap itself says: {tried.stderr.strip() or 'nothing'}", file=sys.stderr)
    if not unsafe:
        raise SystemExit("Nothing was graded. If you trust all submissions, run it again with UNSAFE=yes.")


def grade(
    folder: Path,
    variant: int | None = None,
    unsafe: bool = False,
    limits: sandbox.Limits | None = None,
    only: list[str] | None = None,
) -> Path:
    """Grades all submissions in a folder and returns the folder with the results.

    Args:
        folder: with a folder for each student.
        variant: the variant that was handed out.
        unsafe: grade although this machine cannot enforce all limits.
        limits: of each submission.
        only: the problem sets that are graded; None for all.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder, limits = folder.resolve(), limits or sandbox.Limits()
    names = only or source.names()
    submissions, left_out = collect.find(folder, names)
    check_machine(limits, unsafe)
    target = folder.with_name(f"{folder.name}-graded")
    target.mkdir(exist_ok=True)
    made = release.build(variant, names)
    log = [f"{time.strftime('%Y-%m-%d %H:%M')}: {len(submissions)} submissions in {folder.name}"]
    log += [f"left out: {line}" for line in left_out]
    for line in log[1:]:
        print(line)
    sets = {
        name: (nbformat.read(made / "tests" / f"{name}.ipynb", as_version=4), source.read(name, variant))
        for name in {submission.name for submission in submissions}
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [pool.submit(_one, s, *sets[s.name], target, limits, unsafe) for s in submissions]
        try:
            for job in tqdm(as_completed(jobs), total=len(jobs), unit="submission", desc="running"):
                job.result()
        except KeyboardInterrupt:
            print("\nInterrupted: what is running now is finished.", file=sys.stderr)
            pool.shutdown(cancel_futures=True)
            raise SystemExit(f"What is graded is kept in {target}; the same command goes on.") from None
    for submission in submissions:
        report = json.loads((_place(target, submission) / "report.json").read_text())
        log.append(f"{submission.student} {submission.name}: " + ("; ".join(report["notes"]) or "ok"))
    course = target / "nbgrader"
    for name in sets:
        (course / "source" / name).mkdir(parents=True, exist_ok=True)
        nbformat.write(sets[name][1], course / "source" / name / f"{name}.ipynb")
    rubric = target / "rubric.csv"
    if rubric.exists():
        shutil.copy(rubric, course / "rubric.csv")
    process = release.nbgrader("grade", course)
    with tqdm(total=2 * len(submissions), unit="step", desc="gradebook and feedback") as bar:
        for _ in process.stdout:
            bar.update()
    errors = process.stderr.read()
    if process.wait():
        raise SystemExit(errors)
    for name in ("rubric.csv", "tasks.csv"):
        shutil.copy(course / name, target / name)
    for submission in submissions:
        page = course / "feedback" / submission.student / submission.name / f"{submission.name}.html"
        (target / "feedback" / submission.student).mkdir(parents=True, exist_ok=True)
        shutil.copy(page, target / "feedback" / submission.student / page.name)
    _summarise(target)
    (target / "log.txt").write_text("\n".join(log) + "\n")
    return target


def _place(target: Path, submission: collect.Submission) -> Path:
    return target / "nbgrader" / "submitted" / submission.student / submission.name


def _one(submission, tests, complete, target: Path, limits: sandbox.Limits, unsafe: bool) -> None:
    """Runs a submission, unless that has been done, and stores the executed notebook and a report."""
    place = _place(target, submission)
    content = hashlib.sha256(submission.path.read_bytes() if submission.notebook is not None else b"")
    content.update(nbformat.writes(tests).encode() + str(limits).encode())
    content.update("".join(submission.notes).encode())
    key = content.hexdigest()
    if (place / "key.txt").exists() and (place / "key.txt").read_text() == key:
        return
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    merged, notes = collect.merge(tests, complete, submission.notebook)
    notes = submission.notes + notes
    path = place / "merged.ipynb"
    nbformat.write(merged, path)
    start = time.perf_counter()
    command = [
        sys.executable,
        _HERE / "limited.py",
        str(_MEMORY),
        str(2**30),
        "4096",
        "0",
        sys.executable,
        "-m",
    ]
    command += ["coursework.execute", path, place / "executed.ipynb", json.dumps(asdict(limits))]
    broken = False
    try:
        done = subprocess.run(
            [*command, *(["--unsafe"] if unsafe else [])],
            capture_output=True,
            text=True,
            timeout=limits.seconds + _SLACK,
            cwd=places.ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            start_new_session=True,  # Ctrl-C is for the command, not for what it is just grading
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message")
        notes += [f"a cell was ended: {reason}" for reason in json.loads(done.stdout.splitlines()[-1])]
        executed = nbformat.read(place / "executed.ipynb", as_version=4)
    except (subprocess.TimeoutExpired, RuntimeError, ValueError, IndexError, OSError) as error:
        # it must not take the others with it; all its tests count as failed
        notes.append(f"the run broke off: {error}")
        executed, broken = merged, True
        for cell in executed.cells:
            if source.is_test(cell):
                text = f"not tested: {error}"
                cell.outputs = [
                    nbformat.v4.new_output("error", ename="NotTested", evalue=text, traceback=[text])
                ]
    if notes:
        lines = "\n".join(f"- {note}" for note in notes)
        executed.cells.insert(
            0, nbformat.v4.new_markdown_cell(f"**Noticed when this was graded**\n\n{lines}")
        )
    nbformat.write(executed, place / f"{submission.name}.ipynb")
    for name in ("merged.ipynb", "executed.ipynb"):
        (place / name).unlink(missing_ok=True)
    report = {"notes": notes, "seconds": round(time.perf_counter() - start, 1), "file": submission.path.name}
    (place / "report.json").write_text(json.dumps(report, indent=1))
    # the last: what is half done, or broke off, is done again the next time
    (place / "key.txt").write_text("broke off" if broken else key)


def _summarise(target: Path) -> None:
    """grades.csv, a line for each student and problem set, and summary.png."""
    with (target / "tasks.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    totals: dict[tuple[str, str], list] = {}
    shares: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        total = totals.setdefault((row["student"], row["problem set"]), [0.0, 0.0, 0.0])
        total[0] += float(row["points"])
        total[1] += float(row["of"])
        if row["graded"] != "yes":
            total[2] += float(row["of"])
        else:
            share = float(row["points"]) / float(row["of"])
            shares.setdefault((row["problem set"], row["task"]), []).append(share)
    with (target / "grades.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["student", "problem set", "points", "of", "still to grade by hand", "noticed"])
        for (student, name), (points, of, open_) in sorted(totals.items()):
            report = target / "nbgrader" / "submitted" / student / name / "report.json"
            notes = "; ".join(json.loads(report.read_text())["notes"]) if report.exists() else ""
            writer.writerow([student, name, f"{points:g}", f"{of:g}", f"{open_:g}", notes])
    names = sorted({name for _, name in totals})
    figure, axes = plt.subplots(
        len(names), 2, figsize=(9, 3.2 * len(names)), squeeze=False, layout="constrained"
    )
    for name, (left, right) in zip(names, axes, strict=True):
        got = [points for (_, n), (points, _, _) in totals.items() if n == name]
        of = max(of for (_, n), (_, of, _) in totals.items() if n == name)
        left.hist(got, bins=np.linspace(0, of, 21))
        left.set(xlabel=f"points of {of:g}", ylabel="students", title=f"{name}: {len(got)} submissions")
        tasks = [task for n, task in shares if n == name]
        right.barh(tasks[::-1], [100 * np.mean(shares[name, task]) for task in tasks[::-1]])
        right.set(
            xlabel="mean share of the points (%)", xlim=(0, 100), title="task by task, as far as graded"
        )
    figure.savefig(target / "summary.png", dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make grade", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="with a folder for each student")
    parser.add_argument("--variant", type=int, help="the variant that was handed out")
    parser.add_argument("--unsafe", action="store_true", help="grade although not all limits can be enforced")
    options = parser.parse_args(arguments)
    if options.folder is None:
        raise SystemExit("Which submissions? make grade DIR=submissions")
    try:
        target = grade(options.folder, options.variant, options.unsafe)
    except (FileNotFoundError, source.SourceError) as error:
        raise SystemExit(str(error)) from error
    print(f"Grades, feedback and summary are in {target}; for the answers in words fill in rubric.csv there.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
