"""Runs the notebooks and checks the stored ones.

`python -m tools.book.notebooks execute [NAME ...]` turns notebooks/NAME.md into executed .ipynb files;
`python -m tools.book.notebooks sync [NAME ...]` does it without running them, where the code is as it was;
`python -m tools.book.notebooks check` says whether the two belong together and every output is there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import threading
import time
from pathlib import Path

import jupytext
import nbformat
import psutil

from tools import places
from tools.book import setup_cell

RUNS = places.NOTEBOOKS / "runs.json"
TIMEOUT = 300  # seconds a cell
BUDGET = 90  # seconds a notebook, on two cores
MEMORY_BUDGET = 4.0  # GB
FOLDED = "hide-input"  # the tag of cells that only draw: a page shows their code on request
_WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class NotebookError(Exception):
    """What is wrong with a notebook, in words for whoever ran the command."""


def read_source(path: Path) -> nbformat.NotebookNode:
    """The notebook written in a MyST file, with its set-up cell and without outputs."""
    try:
        notebook = jupytext.read(path, fmt="md:myst")
    except Exception as error:
        raise NotebookError(f"{path.name} cannot be read as MyST: {error}") from error
    notebook.metadata["jupytext"] = {"formats": "ipynb,md:myst"}  # so that Jupyter keeps the pair in step
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    setup_cell.insert(notebook)
    name_cells(notebook)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def name_cells(notebook: nbformat.NotebookNode) -> None:
    """Gives every cell an id that depends on its contents alone."""
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        text = f"{cell.cell_type}\n{cell.source}"
        seen[text] = seen.get(text, 0) + 1
        cell["id"] = hashlib.sha256(f"{text}\n{seen[text]}".encode()).hexdigest()[:8]


def clean(notebook: nbformat.NotebookNode) -> None:
    """Removes what differs from run to run without meaning anything."""
    notebook.metadata["language_info"] = {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _merge_streams(cell.outputs)
            for output in cell.outputs:
                output.get("metadata", {}).pop("needs_background", None)
    _rename_widgets(notebook)


def _merge_streams(outputs: list) -> list:
    """One output per run of prints: how the kernel cuts them up is a matter of timing."""
    merged: list = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _rename_widgets(notebook: nbformat.NotebookNode) -> None:
    """Gives widget models, whose ids are random, ids by their order; only those that are shown are kept."""
    state = notebook.metadata.get("widgets", {}).get(_WIDGET_STATE, {}).get("state")
    if not state:
        notebook.metadata.pop("widgets", None)
        return
    order: list[str] = []

    def visit(model: str) -> None:
        if model in state and model not in order:
            order.append(model)
            for found in re.findall(r"IPY_MODEL_(\w+)", json.dumps(state[model])):
                visit(found)

    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get(_WIDGET_VIEW)
            if view:
                visit(view["model_id"])
    names = {
        model: hashlib.sha256(f"widget {index}".encode()).hexdigest()[:32]
        for index, model in enumerate(order)
    }
    text = json.dumps({model: state[model] for model in order})
    for model, name in names.items():
        text = text.replace(model, name)
    notebook.metadata["widgets"][_WIDGET_STATE]["state"] = nbformat.from_dict(json.loads(text))
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get(_WIDGET_VIEW)
            if view:
                old = view["model_id"]
                view["model_id"] = names.get(old, old)


class _PeakMemory(threading.Thread):
    """Watches the resident memory of this process's descendants, in GB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self._done = 0.0, threading.Event()

    def run(self):
        while not self._done.wait(0.2):
            total = 0
            for child in psutil.Process().children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total / 1e9)

    def stop(self) -> float:
        self._done.set()
        self.join()
        return self.peak


def execute(path: Path) -> tuple[float, float]:
    """Executes a MyST source in a fresh kernel and stores the .ipynb beside it.

    Returns:
        Seconds from start to end, and the kernel's peak memory in GB.

    Raises:
        NotebookError: a cell failed, timed out or wrote to stderr. The stored notebook is left as it was.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = read_source(path)
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONHASHSEED": "0",
    }
    environment.pop("JAX_ENABLE_X64", None)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=True,
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    watch, start = _PeakMemory(), time.perf_counter()
    watch.start()
    try:
        client.execute(env=environment)
    except CellTimeoutError as error:
        raise NotebookError(f"{path.name}: a cell ran for more than {TIMEOUT} s.\n{error}") from error
    except (CellExecutionError, DeadKernelError) as error:
        raise NotebookError(f"{path.name} failed.\n{error}") from error
    finally:
        peak, seconds = watch.stop(), time.perf_counter() - start
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                raise NotebookError(
                    f"{path.name}: {describe(index, cell)} wrote to stderr; mend what it warns of.\n"
                    f"{output.text}"
                )
    clean(notebook)
    nbformat.validate(notebook)
    target, fresh = path.with_suffix(".ipynb"), path.with_suffix(".ipynb.new")
    nbformat.write(notebook, fresh)
    fresh.replace(target)
    return seconds, peak


def record(name: str, seconds: float, gigabytes: float) -> None:
    """Keeps a chapter's run time and memory for the page that lists them (tools/book/chapters.py)."""
    runs = json.loads(RUNS.read_text()) if RUNS.exists() else {}
    runs[name] = {"seconds": round(seconds), "gigabytes": round(gigabytes, 1)}
    RUNS.write_text(json.dumps(dict(sorted(runs.items())), indent=1) + "\n")


def sync(path: Path) -> bool:
    """Carries a MyST source's prose and cell metadata into the stored notebook, without running anything.

    Returns:
        Whether that was possible: it is if no code differs.
    """
    fresh, stored = read_source(path), nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    code, old = ([c for c in book.cells if c.cell_type == "code"] for book in (fresh, stored))
    if [cell.source for cell in code] != [cell.source for cell in old]:
        return False
    for cell, before in zip(code, old, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    fresh.metadata["widgets"] = stored.metadata.get("widgets", {})
    clean(fresh)
    nbformat.write(fresh, path.with_suffix(".ipynb"))
    return True


def describe(index: int, cell: nbformat.NotebookNode) -> str:
    """A cell by its place and its first line."""
    first = next((line for line in cell.source.splitlines() if line.strip()), "(empty)")
    return f"{cell.cell_type} cell {index + 1} ({first.strip()[:60]!r})"


def check_pair(source: Path) -> list[str]:
    """What is wrong with the .md file's executed twin; nothing if they belong together."""
    stored = source.with_suffix(".ipynb")
    if not stored.exists():
        return [f"{source.name} has no {stored.name}."]
    wanted, found = read_source(source), nbformat.read(stored, as_version=4)
    problems = []
    if len(wanted.cells) != len(found.cells):
        problems.append(f"{source.name} has {len(wanted.cells)} cells, {stored.name} has {len(found.cells)}.")
    for index, (ours, theirs) in enumerate(zip(wanted.cells, found.cells, strict=False)):
        for what, left, right in [
            ("type", ours.cell_type, theirs.cell_type),
            ("source", ours.source.rstrip(), theirs.source.rstrip()),
            ("slide", ours.metadata.get("slide"), theirs.metadata.get("slide")),
            ("tags", list(ours.metadata.get("tags", [])), list(theirs.metadata.get("tags", []))),
        ]:
            if left != right:
                problems.append(f"{describe(index, ours)} has different {what} in {stored.name}.")
                break
        if problems:
            return problems  # after the first difference the rest differs as a consequence
    count = 0
    for index, cell in enumerate(found.cells):
        if cell.cell_type != "code":
            continue
        if cell.source.strip():
            count += 1
            if cell.execution_count is None:
                problems.append(f"{describe(index, cell)} was not executed.")
            elif cell.execution_count != count:
                problems.append(
                    f"{describe(index, cell)} was executed as number {cell.execution_count}, not {count}."
                )
        for output in cell.outputs:
            if output.output_type == "error":
                problems.append(f"{describe(index, cell)} ended in {output.ename}: {output.evalue}")
            elif output.output_type == "stream" and output.name == "stderr":
                problems.append(f"{describe(index, cell)} wrote to stderr.")
    return problems


def check(folder: Path = places.NOTEBOOKS) -> int:
    """Checks every pair, prints a line for each, and returns how many are not in order."""
    sources = {path.stem: path for path in folder.glob("*.md")}
    stored = {path.stem for path in folder.glob("*.ipynb")}
    failures = 0
    for stem in sorted(sources.keys() | stored):
        if stem in sources:
            try:
                problems = check_pair(sources[stem])
            except (NotebookError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
                problems = [str(error)]
            way_out = f"Run make execute NOTEBOOK={stem} and commit both files."
        else:
            problems = [f"{stem}.ipynb has no {stem}.md."]
            way_out = "Notebooks are edited as .md files: write that one, or remove the .ipynb."
        failures += bool(problems)
        print(f"notebooks/{stem}: {'ok' if not problems else 'NOT IN ORDER'}")
        for problem in problems:
            print(f"  {problem}")
        if problems:
            print(f"  {way_out}")
    if not sources and not stored:
        print(f"no notebooks in {folder}")
    return failures


def select(names: list[str]) -> list[Path]:
    """The sources of the chapters with these names; all, in the order of the book, if none is given."""
    known = places.chapters()
    if unknown := [name for name in names if name not in known]:
        raise NotebookError(f"No chapter has the name {', '.join(unknown)}. There are: {', '.join(known)}.")
    return [places.NOTEBOOKS / f"{name}.md" for name in names or known]


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.book.notebooks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("execute", help="sync, run, store").add_argument("name", nargs="*")
    commands.add_parser("sync", help="store changes in the prose alone").add_argument("name", nargs="*")
    commands.add_parser("check", help="compare the pairs, look for missing outputs")
    options = parser.parse_args(arguments)
    if options.command == "check":
        return 1 if check() else 0
    failed = False
    try:
        for path in select(options.name):
            if options.command == "sync":
                done = sync(path)
                print(f"notebooks/{path.stem}: {'ok' if done else 'its code has changed: run make execute'}")
                failed = failed or not done
                continue
            try:
                seconds, peak = execute(path)
            except NotebookError as error:
                print(error, file=sys.stderr)
                failed = True
                continue
            over = seconds > BUDGET or peak > MEMORY_BUDGET
            note = f"  over the budget of {BUDGET} s and {MEMORY_BUDGET:.0f} GB" if over else ""
            record(path.stem, seconds, peak)
            print(f"notebooks/{path.stem}: {seconds:.0f} s, {peak:.1f} GB{note}", flush=True)
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
