"""Runs every chapter and every solved problem set as Colab does: `make test-colab`.

For each of Python 3.12 and 3.13 and for each notebook: a fresh environment that holds what Colab has of our
dependencies, in its current versions; an empty folder without the repository; the notebook as it is
published, except that the address of the site is that of a local server. JAX is told to use a GPU, as on such
a runtime, and there is none: a notebook that asked for it would end. `python -m tools.site.colab ising ps1`
runs two.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from coursework import source
from tools import places
from tools.book import notebooks, setup_cell
from tools.site.server import serve

PYTHONS = ["3.12", "3.13"]
IMAGE = ["ipykernel", *sorted(setup_cell.ON_COLAB)]
SETUP_BUDGET = 60  # seconds


def interpreter(minor: str) -> str | None:
    """A Python of this minor version: from the PATH, or one of pyenv's."""
    found = [
        f"python{minor}",
        *map(str, Path("~/.pyenv/versions").expanduser().glob(f"{minor}.*/bin/python")),
    ]
    for candidate in found:
        asked = subprocess.run(
            ["sh", "-c", f'"{candidate}" -c "import sys; print(sys.version_info[:2])"'],
            capture_output=True,
            text=True,
        )
        if asked.stdout.strip() == str(tuple(map(int, minor.split(".")))):
            return candidate
    return None


def image(python: str, folder: Path) -> Path:
    """An environment with what Colab has."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *IMAGE], check=True)
    return folder


def versions(environment: Path) -> dict[str, str]:
    """Name → version of what is installed."""
    listed = subprocess.run(
        [
            environment / "bin" / "python",
            "-m",
            "pip",
            "list",
            "--format",
            "json",
            "--disable-pip-version-check",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return {item["name"].lower(): item["version"] for item in json.loads(listed.stdout)}


def published(name: str) -> nbformat.NotebookNode:
    """A chapter as its button opens it, or a problem set with its solutions."""
    if name in source.names():
        return source.read(name)
    return nbformat.read(places.BUILT / "notebooks" / f"{name}.ipynb", as_version=4)


def run(name: str, environment: Path, address: str, scratch: Path) -> tuple[float, float]:
    """Runs a published notebook in an empty folder with this environment.

    Returns:
        The seconds that its set-up cell took, and those of all its cells.

    Raises:
        RuntimeError: a cell failed, or the set-up is not what it promises.
    """
    before = versions(environment)
    spec = scratch / "jupyter" / "kernels" / "colab"
    spec.mkdir(parents=True)
    command = [str(environment / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": command, "display_name": "colab", "language": "python"})
    )
    (scratch / "empty").mkdir()
    notebook = published(name)
    setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
    if setup.source != setup_cell.text():
        raise RuntimeError(f"{name}: the first cell is not the set-up cell for {places.site()}")
    for cell in notebook.cells:
        cell.source = cell.source.replace(places.site(), address)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.cells.append(again := nbformat.v4.new_code_cell(setup.source))
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "JUPYTER", "JAX"))
    }
    os.environ["JUPYTER_PATH"] = str(scratch / "jupyter")
    client = NotebookClient(
        notebook,
        timeout=notebooks.TIMEOUT,
        kernel_name="colab",
        resources={"metadata": {"path": str(scratch / "empty")}},
    )
    # Colab's kernels write their pictures into the notebook, as ours do
    client.execute(
        env={
            **kept,
            "HOME": str(scratch),
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "JAX_PLATFORMS": "cuda",
        }
    )
    after = versions(environment)
    changed = sorted(n for n in before if before[n] != after.get(n))
    if changed or "tensorflow" in after or again.outputs:
        raise RuntimeError(
            f"{name}: the set-up changed {changed or 'nothing'}, TensorFlow is "
            f"{'there' if 'tensorflow' in after else 'not there'}, and done again it printed {again.outputs}."
        )
    seconds = [_seconds(cell) for cell in notebook.cells if "execution" in cell.metadata]
    return _seconds(setup), sum(seconds)


def _seconds(cell) -> float:
    when = cell.metadata["execution"]
    end, start = when["shell.execute_reply"], when["iopub.execute_input"]
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def main(asked: list[str]) -> int:
    """Runs the chapters and problem sets with these names, or all, on every Python."""
    if not (places.BUILT / setup_cell.wheel()).exists():
        raise SystemExit(f"There is no {setup_cell.wheel()} in _build/html: run make book first.")
    sets = [name for name in source.names() if not asked or name in asked]
    rest = [name for name in asked if name not in sets]
    names = [path.stem for path in notebooks.select(rest)] if rest or not asked else []
    failures = 0
    with serve(places.BUILT) as address:
        for minor in PYTHONS:
            python = interpreter(minor)
            if python is None:
                print(
                    f"Python {minor} is not found here: install it, or put it on the PATH.", file=sys.stderr
                )
                failures += 1
                continue
            with tempfile.TemporaryDirectory() as folder:
                base = image(python, Path(folder) / "image")
                print(f"Python {minor}, JAX {versions(base)['jax']}", flush=True)
                for name in [*names, *sets]:
                    scratch = Path(folder) / name
                    environment = Path(shutil.copytree(base, scratch / "environment", symlinks=True))
                    try:
                        setup, whole = run(name, environment, address, scratch)
                    except (CellExecutionError, CellTimeoutError, DeadKernelError, RuntimeError) as error:
                        failures += 1
                        print(f"  {name}: FAILED\n{error}", flush=True)
                    else:
                        slow = setup > SETUP_BUDGET
                        failures += slow
                        note = f", over its budget of {SETUP_BUDGET} s" if slow else ""
                        print(f"  {name}: {whole:.0f} s, of which set-up {setup:.0f} s{note}", flush=True)
                    shutil.rmtree(scratch)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
