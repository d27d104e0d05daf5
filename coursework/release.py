"""Makes the problem sets: `python -m coursework.release [--variant 2027] [--solutions]`.

In coursework/build/VARIANT/ come student/ (what to hand out), tests/ (the same with the hidden tests, which
the grading uses) and solutions/ (complete and executed, for the instructor).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from coursework import source
from tools import places
from tools.book import notebooks

NBGRADER = places.ROOT / ".venvs" / "nbgrader" / "bin" / "python"
BUDGET = 60  # seconds that a solved problem set may take


def nbgrader(command: str, course: Path) -> subprocess.Popen:
    """Starts a step of nbgrader's on a course folder; its standard output says what is done."""
    if not NBGRADER.exists():
        raise SystemExit(
            "nbgrader's environment is not there yet: make assignments and make grade set it up."
        )
    variables = {key: value for key, value in os.environ.items() if not key.startswith("JUPYTER")}
    # nbgrader calls its database tool alembic by name
    variables["PATH"] = f"{NBGRADER.parent}{os.pathsep}{variables['PATH']}"
    return subprocess.Popen(
        [NBGRADER, "-I", Path(__file__).with_name("book.py"), command, course],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
    )


def build(variant: int | None, names: list[str]) -> Path:
    """Makes student/ and tests/ of these problem sets and returns their folder."""
    target = source.release_folder(variant)
    with tempfile.TemporaryDirectory() as scratch:
        course = Path(scratch)
        for name in names:
            folder = course / "source" / name
            folder.mkdir(parents=True)
            nbformat.write(source.read(name, variant), folder / f"{name}.ipynb")
        process = nbgrader("release", course)
        _, errors = process.communicate()
        if process.returncode:
            raise SystemExit(errors)
        for part, made in [("student", "release"), ("tests", "tests")]:
            fresh = target / f"{part}.new"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            for name in names:
                notebook = nbformat.read(course / made / name / f"{name}.ipynb", as_version=4)
                notebooks.name_cells(notebook)
                nbformat.write(notebook, fresh / f"{name}.ipynb")
            shutil.rmtree(target / part, ignore_errors=True)
            fresh.rename(target / part)
    return target


def solve(name: str, variant: int | None) -> float:
    """Runs the complete problem set as it stands, stores it in solutions/, and returns the seconds it took.

    Raises:
        nbclient.exceptions.CellExecutionError: a solution or its test failed.
    """
    from nbclient import NotebookClient

    notebook = source.read(name, variant)
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    with tempfile.TemporaryDirectory() as empty:
        client = NotebookClient(
            notebook,
            timeout=BUDGET * 5,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": empty}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
        start = time.perf_counter()
        client.execute(env=environment)
        seconds = time.perf_counter() - start
    notebooks.clean(notebook)
    folder = source.release_folder(variant) / "solutions"
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return seconds


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make assignments", description=__doc__)
    parser.add_argument("--variant", type=int, help="draws other numbers, the same for the same variant")
    variant = parser.parse_args(arguments).variant
    if variant is not None and variant < 1:
        raise SystemExit(f"VARIANT={variant}: expected was a whole number from 1 on, such as the year.")
    try:
        target = build(variant, source.names())
    except source.SourceError as error:
        print(error, file=sys.stderr)
        return 1
    where = target.relative_to(places.ROOT)
    for name in source.names():
        points = sum(c.metadata.nbgrader.get("points", 0) for c in source.read(name, variant).cells)
        seconds = solve(name, variant)
        late = "" if seconds <= BUDGET else f", over its budget of {BUDGET} s"
        print(f"{name}: {points} points, solved in {seconds:.0f} s{late}", flush=True)
    print(f"For students: {where}/student. For you alone: {where}/solutions and {where}/tests.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
