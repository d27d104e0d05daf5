"""Runs a command that is not trusted: without the network, in one folder, with limits on time, memory and files.

bubblewrap (https://github.com/containers/bubblewrap) gives the process a file system in which there is only
what Python needs, to read, and the folder of this submission, to write; a network without any way out; and
process numbers of its own, so that all it has started ends with it. The operating system's limits hold for each
process; a watch over all of them together ends what they miss. `missing` says what this machine cannot enforce.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import psutil

import nteq


@dataclass(frozen=True)
class Limits:
    """What one submission may use."""

    cell_seconds: float = 60
    seconds: float = 300
    memory: int = 3 * 2**30  # bytes, of all its processes together
    files: int = 256 * 2**20  # bytes in its folder
    processes: int = 64
    output: int = 2**20  # bytes of output that a cell may have


_INTERPRETER = [sys.base_prefix, sys.prefix, str(Path(nteq.__file__).parent)]
_SYSTEM = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime"]
_SYSTEM += ["/etc/alternatives", "/etc/fonts"]
_SMALL = 64 * 2**20  # bytes in /tmp and in shared memory


def command(argv: list[str], folder: Path, limits: Limits, hide: bool = True) -> list[str]:
    """argv in the sandbox; with hide=False, the limits of the operating system alone."""
    limited = [sys.executable, "-I", str(Path(__file__).with_name("limited.py"))]
    limited += [str(limits.memory), str(limits.files), *argv]
    if not hide:
        return limited
    box = ["bwrap", "--die-with-parent", "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534"]
    box += ["--cap-drop", "ALL", "--new-session", "--clearenv"]
    for path in dict.fromkeys([*_SYSTEM, *_INTERPRETER, limited[2]]):
        if os.path.islink(path):
            box += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            box += ["--ro-bind", path, path]
    box += ["--proc", "/proc", "--dev", "/dev"]
    for path in ("/dev/shm", "/tmp"):
        box += ["--perms", "1777", "--size", str(_SMALL), "--tmpfs", path]
    box += ["--bind", str(folder), str(folder), "--chdir", str(folder)]
    box += ["--remount-ro", "/dev", "--remount-ro", "/"]
    for name, value in environment(folder).items():
        box += ["--setenv", name, value]
    return [*box, "--", *limited]


def environment(folder: Path) -> dict[str, str]:
    """The variables that a submission sees."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(folder),
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "JAX_PLATFORMS": "cpu",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }


class Watch(threading.Thread):
    """Ends a process and all it has started when they exceed the limits together; `reason` says which."""

    def __init__(self, pid: int, folder: Path, limits: Limits):
        super().__init__(daemon=True)
        self.reason: str | None = None
        self._pid, self._folder, self._limits = pid, folder, limits
        self._stop_asked = threading.Event()
        self.start()

    def run(self):
        while self.reason is None and not self._stop_asked.wait(0.1):
            self.reason = self._exceeded()
        if self.reason is not None:
            kill(self._pid)

    def stop(self) -> None:
        """Ends the watch, not the process."""
        self._stop_asked.set()
        self.join()

    def _exceeded(self) -> str | None:
        try:
            processes = [psutil.Process(self._pid), *psutil.Process(self._pid).children(recursive=True)]
        except psutil.Error:
            return None
        memory = 0
        for process in processes:
            try:
                memory += process.memory_info().rss
            except psutil.Error:
                continue
        limits = self._limits
        if memory > limits.memory:
            return f"it used more than {limits.memory / 2**30:g} GiB of memory"
        if len(processes) > limits.processes:
            return f"it started more than {limits.processes} processes"
        size = sum(path.lstat().st_size for path in _files(self._folder))
        if size > limits.files:
            return f"it wrote more than {limits.files / 2**20:g} MiB of files"
        return None


def _files(folder: Path):
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if os.path.lexists(path):
                yield path


def kill(pid: int) -> None:
    """Ends a process and its descendants."""
    try:
        process = psutil.Process(pid)
        for victim in [*process.children(recursive=True), process]:
            victim.kill()
    except psutil.Error:
        pass


_PROBES = {
    "the network is cut off": """
import socket
s = socket.socket(); s.settimeout(2)
try: s.connect(("198.51.100.1", 9))  # an address for documentation: nobody is there
except OSError as error: ok = error.errno in (101, 100)  # unreachable at once: no way out
else: ok = False
""",
    "files outside its folder cannot be written": """
import os
for place in PLACES:
    try: open(os.path.join(place, PROBE), "w").close()
    except OSError: pass
ok = True  # whether a file is there is seen from outside: /tmp may be one of the sandbox's own
""",
    "files of others cannot be read": "import os\nok = not os.path.exists(SECRET)\n",
    "memory is limited": """
try: x = bytearray(MEMORY + 2**20); ok = False
except MemoryError: ok = True
""",
    "the size of files is limited": """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    f = open("large", "wb"); f.truncate(FILES + 2**20); ok = False
except OSError: ok = True
""",
    "its processes end with it": "import os\nok = os.getpid() < 100\n",
}


def missing(limits: Limits) -> list[str]:
    """What this machine cannot enforce, each found out by trying it; empty if all is well."""
    hide = shutil.which("bwrap") is not None
    lacking = []
    with tempfile.TemporaryDirectory() as name, tempfile.NamedTemporaryFile(dir=Path.home()) as secret:
        folder = Path(name, "inside").resolve()
        folder.mkdir()
        folder.chmod(0o777)
        probe = f"{Path(secret.name).name}.probe"
        places = [name, str(Path.home()), "/", "/usr", _INTERPRETER[-1]]
        names = {
            "PLACES": places,
            "PROBE": probe,
            "SECRET": secret.name,
            "MEMORY": limits.memory,
            "FILES": limits.files,
        }
        given = "".join(f"{key} = {value!r}\n" for key, value in names.items())
        for what, code in _PROBES.items():
            program = f"{given}{code}\nprint('held' if ok else 'not held')"
            try:
                done = subprocess.run(
                    command([sys.executable, "-I", "-c", program], folder, limits, hide),
                    capture_output=True,
                    text=True,
                    timeout=60,
                    cwd=folder,
                )
                held = done.stdout.strip() == "held"
            except (OSError, subprocess.TimeoutExpired):
                held = False
            for left in [Path(place, probe) for place in places]:
                if left.exists():
                    left.unlink()
                    held = False
            if not held:
                lacking.append(what)
    return lacking
