"""Runs a student's notebook and its tests.

The student's cells run in a kernel in the sandbox. The tests run here, in a process that the student's code
never enters: where a test calls a function of the student's, the arguments are sent to the kernel and what
comes back is data. So code that changes `assert`, `nteq` or the tests changes nothing here, and the hidden
tests are nowhere where it could read them.
"""

from __future__ import annotations

import ast
import base64
import builtins
import contextlib
import io
import json
import logging
import math
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import cloudpickle
import nbformat
import numpy as np
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from coursework import inside, sandbox, source

_ANSWER = "application/x-nteq-answer"
_INSIDE = Path(__file__).with_name("inside.py")
_START = f"""
import sys, types
_module = types.ModuleType("nteq_inside")
exec(compile({_INSIDE.read_text()!r}, "nteq_inside", "exec"), _module.__dict__)
_module.get_ipython = get_ipython
sys.modules["nteq_inside"] = _module
del _module, sys, types
"""
RESTARTS = 3  # cells that may end the kernel before the rest of the notebook is given up


class Ended(Exception):
    """The student's kernel is gone; the message says why."""


class AnswerError(Exception):
    """The student's code raised an exception, or answered with something that is not data."""


class Remote:
    """A function in the student's kernel."""

    def __init__(self, kernel: Kernel, name: str | int):
        self._kernel, self._name = kernel, name

    def __call__(self, *args, **kwargs):
        """Sends the arguments there and brings the answer back."""
        return self._kernel.call(self, args, kwargs)


class _Pickler(cloudpickle.Pickler):
    def persistent_id(self, value):
        return value._name if isinstance(value, Remote) else None


class _Client(NotebookClient):
    """Keeps the first part of a cell's output, up to a number of bytes."""

    left = 0

    def process_message(self, msg, cell, cell_index):
        """Counts what a message adds."""
        if msg["msg_type"] in ("stream", "display_data", "execute_result", "update_display_data"):
            self.left -= len(json.dumps(msg["content"], default=str))
            if self.left < 0:
                return None
        return super().process_message(msg, cell, cell_index)


class _Only(KernelSpecManager):
    """Knows one kernel, the one in the sandbox."""

    def __init__(self, spec: KernelSpec):
        super().__init__()
        self._spec = spec

    def get_kernel_spec(self, kernel_name):
        return self._spec


class Kernel:
    """The student's kernel: starts when it is needed, and if it ended, again with all that has run well."""

    def __init__(self, folder: Path, limits: sandbox.Limits, hide: bool = True):
        self._folder, self._limits, self._hide = folder, limits, hide
        self._client: _Client | None = None
        self._ran: list[str] = []  # what a new kernel has to run again
        self._deadline = time.monotonic() + limits.seconds
        self.ends: list[str] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop()

    def _start(self) -> None:
        if len(self.ends) > RESTARTS:
            raise Ended(f"not run: the kernel had ended {len(self.ends)} times")
        folder = self._folder
        for left in folder.iterdir():  # what a kernel before this one has written counts no more
            subprocess.run(["rm", "-rf", left], check=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        argv += ["--HistoryManager.enabled=False", "--IPKernelApp.log_level=ERROR"]
        spec = KernelSpec(argv=sandbox.command(argv, folder, self._limits, self._hide), language="python")
        # sockets in the folder: the sandbox has no network in which a port could be reached
        manager = AsyncKernelManager(
            transport="ipc",
            ip=str(folder / "socket"),
            connection_file=str(folder / "connection.json"),
            kernel_spec_manager=_Only(spec),
        )
        notebook = nbformat.v4.new_notebook()
        self._client = _Client(notebook, km=manager, allow_errors=True, interrupt_on_timeout=False)
        self._client.owns_km = True
        self._client.log.setLevel(logging.CRITICAL)
        with self._explained():
            self._client.start_new_kernel(
                env=sandbox.environment(folder),
                cwd=str(folder),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self._watch = sandbox.Watch(manager.provisioner.process.pid, folder, self._limits)
            self._client.start_new_kernel_client()
        for code in [_START, *self._ran]:
            self._execute(code)

    def _stop(self) -> None:
        if self._client is None:
            return
        client, self._client = self._client, None
        self._watch.stop()
        process = client.km.provisioner.process if client.km else None
        if process is not None:
            sandbox.kill(process.pid)
            process.wait()
        with contextlib.suppress(Exception):
            client._cleanup_kernel()

    @contextlib.contextmanager
    def _explained(self):
        """Turns what nbclient raises when a kernel ends into Ended, with the reason."""
        try:
            yield
        except (DeadKernelError, CellTimeoutError, RuntimeError) as error:
            watch = getattr(self, "_watch", None)
            if isinstance(error, CellTimeoutError):
                seconds = min(self._limits.cell_seconds, self._limits.seconds)
                reason = f"it ran for more than {seconds:g} s"
                if time.monotonic() > self._deadline:
                    reason = f"the notebook ran for more than {self._limits.seconds:g} s"
            else:
                reason = (watch and watch.reason) or "the kernel ended (killed, or out of memory)"
            self.ends.append(reason)
            self._stop()
            raise Ended(reason) from error

    def _execute(self, code: str, output: int | None = None) -> nbformat.NotebookNode:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Ended(f"not run: the notebook had used its {self._limits.seconds:g} s")
        cell = nbformat.v4.new_code_cell(code)
        self._client.nb.cells = [cell]
        self._client.timeout = max(1, math.ceil(min(self._limits.cell_seconds, left)))
        self._client.left = self._limits.output if output is None else output
        with self._explained():
            self._client.execute_cell(cell, 0)
        return cell

    def run(self, code: str) -> list[nbformat.NotebookNode]:
        """Runs a cell of the student's and returns its outputs.

        Raises:
            Ended: the kernel did not survive this cell, or could not be started for it.
        """
        if self._client is None:
            self._start()
        outputs = self._execute(code).outputs
        if self._client.left < 0:
            text = f"(this cell's output beyond {self._limits.output >> 20} MiB was left out)\n"
            outputs.append(nbformat.v4.new_output("stream", name="stdout", text=text))
        if not any(output.output_type == "error" for output in outputs):
            self._ran.append(code)  # one that failed may have filled the memory, and would do it again
        return outputs

    def call(self, function, args: tuple, kwargs: dict):
        """Calls a function in the student's kernel.

        Raises:
            AnswerError: it raised an exception, or returned something that is not data.
            Ended: the kernel did not survive the call.
        """
        if self._client is None:
            self._start()
        packed = io.BytesIO()
        _Pickler(packed).dump((function, args, kwargs))
        text = base64.b64encode(packed.getvalue()).decode()
        code = f"import sys; sys.modules['nteq_inside'].answer({text!r})"
        cell = self._execute(code, output=2 * inside.LARGEST)
        for output in cell.outputs:
            if output.output_type == "error":
                raise AnswerError(_readable(output))
        answers = [o.data[_ANSWER] for o in cell.outputs if _ANSWER in o.get("data", {})]
        if len(answers) != 1:
            raise AnswerError("no answer came back from the kernel")
        return self._decode(json.loads(answers[0]))

    def value(self, name: str):
        """A variable of the student's, as data; a function as something that can be called."""
        return self.call(None, (Remote(self, name),), {})

    def _decode(self, answer):
        (kind, content), *rest = answer.items()
        if rest:
            raise AnswerError("the answer that came back is not readable")
        if kind == "plain" and (content is None or isinstance(content, bool | int | float | str)):
            return content
        if kind in ("list", "tuple"):
            return (list if kind == "list" else tuple)(map(self._decode, content))
        if kind == "dict":
            return {self._decode(key): self._decode(item) for key, item in content}
        if kind == "array":
            dtype, shape, data = content
            if np.dtype(dtype).kind not in "biufc":
                raise AnswerError("the answer that came back is not numeric")
            return np.frombuffer(base64.b64decode(data), np.dtype(dtype)).reshape(shape).copy()
        if kind == "complex":
            return complex(*content)
        if kind == "function":
            return Remote(self, int(content))
        raise AnswerError("the answer that came back is not readable")


def run(notebook: nbformat.NotebookNode, kernel: Kernel) -> None:
    """Runs a notebook in place. A test's output is its error, or nothing if it passed."""
    given = {"__name__": "__main__"}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if source.is_test(cell):
            cell.outputs = test(cell.source, given, kernel)
            continue
        if cell.metadata.get("nbgrader", {}).get("locked"):
            prepare(cell.source, given)
        try:
            cell.outputs = kernel.run(cell.source)
        except Ended as end:
            cell.outputs = [_error("Ended", f"This cell was ended: {end}.")]


def prepare(code: str, given: dict) -> None:
    """Runs a given cell here, so that the tests have its names whatever the student has made of them."""
    # a given cell that calls a student's function has nothing to call here: what it makes is the student's
    with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
        exec(compile(source.python(code), "<given>", "exec"), given)


def test(code: str, given: dict, kernel: Kernel) -> list[nbformat.NotebookNode]:
    """Runs a test here, with the student's names as data and as functions that run in the kernel.

    Returns:
        Its outputs: nothing, or an error, if it fails, in the words that the student reads.
    """
    names, printed = dict(given), io.StringIO()
    try:
        tree = ast.parse(code)
        for name in _unknown(tree, names):
            with contextlib.suppress(AnswerError):  # then it is not defined, and the test says so
                names[name] = kernel.value(name)
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nbgrader takes what is on stderr for a failure
            exec(compile(tree, "<test>", "exec"), names)
    except Ended as end:
        return [_error("Ended", f"The test was ended: {end}.")]
    except NameError as error:
        return [
            _error("NameError", f"{error.name} is not there: the cell that defines it failed or is missing.")
        ]
    except BaseException as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == "<test>"]
        line = code.splitlines()[frames[-1].lineno - 1].strip() if frames else ""
        return [_error(type(error).__name__, str(error), line)]
    text = printed.getvalue()
    return [nbformat.v4.new_output("stream", name="stdout", text=text)] if text else []


def _unknown(tree: ast.Module, known: dict) -> list[str]:
    """The names that a test uses and neither defines nor finds among the given ones."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    own = {node.id for node in found if not isinstance(node.ctx, ast.Load)}
    own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            own |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    used = dict.fromkeys(node.id for node in found if isinstance(node.ctx, ast.Load))
    return [name for name in used if name not in own | known.keys() and not hasattr(builtins, name)]


def _error(name: str, value: str, line: str = "") -> nbformat.NotebookNode:
    text = [f"in the line: {line}"] if line else []
    return nbformat.v4.new_output(
        "error", ename=name, evalue=value, traceback=[*text, f"{name}: {value}" if value else name]
    )


def _readable(output: nbformat.NotebookNode) -> str:
    """What an exception in the student's code says."""
    return f"your code raised {output.ename}: {output.evalue}"[:2000]


def main(merged: Path, executed: Path, limits: sandbox.Limits, hide: bool) -> int:
    """Runs the notebook `merged` in a new folder, writes it to `executed`, prints what ended the kernel."""
    notebook = nbformat.read(merged, as_version=4)
    with tempfile.TemporaryDirectory(prefix="submission-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        folder.chmod(0o777)
        with Kernel(folder, limits, hide) as kernel:
            run(notebook, kernel)
    nbformat.write(notebook, executed)
    print(json.dumps(kernel.ends))
    return 0


if __name__ == "__main__":
    _limits = sandbox.Limits(**json.loads(sys.argv[3]))
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), _limits, hide=sys.argv[4:] != ["--unsafe"]))
