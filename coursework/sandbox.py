"""Runs a command that is not trusted: no network, one folder, limits on time, memory and files.

bubblewrap (https://github.com/containers/bubblewrap) gives the process a file system in which there is only
what Python needs, to read, and the folder of this submission, to write; a network without any way out; and
process numbers of its own, so that all it has started ends with it. The operating system's limits hold for
each process; a watch over all of them together ends what they miss. `missing` says what this machine cannot
enforce.
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
    count: int = 2000  # files and folders there
    processes: int = 64
    threads: int = 128 + 16 * (os.cpu_count() or 1)  # of all its processes; JAX starts some for each core
    output: int = 2**20  # bytes of output that a cell may have


_INTERPRETER = [sys.base_prefix, sys.prefix, str(Path(nteq.__file__).parent)]
_SYSTEM = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime"]
_SYSTEM += ["/etc/alternatives", "/etc/fonts"]
COMPILED = Path(sys.prefix, "xla-cache")  # what tests have compiled (conftest.py), hidden ones too
FIRST_NOBODY = 2**20  # above the numbers of real users
_SMALL = 64 * 2**20  # bytes in /tmp and in shared memory


def command(argv: list[str], folder: Path, limits: Limits, hide: bool = True) -> list[str]:
    """The command argv in the sandbox; with hide=False, the limits of the operating system alone."""
    limited = [sys.executable, "-I", str(Path(__file__).with_name("limited.py"))]
    # the operating system counts a user's threads, so each sandbox that root starts has a user of its own
    nobody = FIRST_NOBODY + os.getpid() % 2**20 if hide else 0
    limited += [str(limits.memory), str(limits.files), str(limits.threads), str(nobody), *argv]
    if not hide:
        return limited
    box = ["bwrap", "--die-with-parent", "--new-session", "--clearenv", "--unshare-ipc", "--unshare-pid"]
    box += ["--unshare-net", "--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL"]
    if os.getuid() == 0:  # limited.py becomes nobody, since root is not held to a number of processes
        box += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_CHOWN"]
    else:
        box += ["--unshare-user", "--uid", str(nobody), "--gid", str(nobody)]
    box += ["--proc", "/proc", "--dev", "/dev"]
    for path in ("/dev/shm", "/tmp"):  # before the others: one of them may lie in /tmp
        box += ["--perms", "1777", "--size", str(_SMALL), "--tmpfs", path]
    for path in dict.fromkeys([*_SYSTEM, *_INTERPRETER, limited[2]]):
        if os.path.islink(path):
            box += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            box += [*_parents(path), "--ro-bind", path, path]
    box += [*_parents(folder), "--bind", str(folder), str(folder), "--chdir", str(folder)]
    variables = environment(folder)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
    if Path(cache).is_relative_to(COMPILED) and os.path.exists(cache):  # this is one of the tests
        variables["JAX_COMPILATION_CACHE_DIR"] = cache
        variables["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "1e9"  # JAX does not try to write
        variables["PYTHONWARNINGS"] = os.environ.get("PYTHONWARNINGS", "")
    elif COMPILED.exists():
        box += ["--perms", "0755", "--tmpfs", str(COMPILED), "--remount-ro", str(COMPILED)]
    box += ["--remount-ro", "/dev", "--remount-ro", "/"]
    for name, value in variables.items():
        box += ["--setenv", name, value]
    return [*box, "--", *limited]


def _parents(path: str | Path) -> list[str]:
    """Makes the folders above a path such that nobody can pass through them."""
    made = []
    for parent in list(Path(path).parents)[-2::-1]:
        if str(parent) not in ("/dev", "/tmp", "/usr"):
            made += ["--perms", "0755", "--dir", str(parent)]
    return made


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
        """Looks ten times a second."""
        while self.reason is None and not self._stop_asked.wait(0.1):
            try:
                self.reason = self._exceeded()
            except (OSError, RecursionError) as error:
                self.reason = f"its files could not be counted ({type(error).__name__})"
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
        limits, memory = self._limits, 0
        if len(processes) > limits.processes:
            return f"it started more than {limits.processes} processes"
        for process in processes:
            try:
                memory += process.memory_info().rss
            except psutil.Error:
                continue
        if memory > limits.memory:
            return f"it used more than {limits.memory / 2**30:g} GiB of memory"
        size, count = _size(self._folder)
        if size > limits.files:
            return f"it wrote more than {limits.files / 2**20:g} MiB of files"
        if count > limits.count:
            return f"it wrote more than {limits.count} files"
        return None


def _size(folder: Path) -> tuple[int, int]:
    """Bytes and number of the files and folders in a folder, however deep their names are."""

    def refuse(error):
        if not isinstance(error, FileNotFoundError):  # gone in the meantime is all right, locked is not
            raise error

    size = count = 0
    for _, folders, files, at in os.fwalk(folder, onerror=refuse):
        count += len(folders) + len(files)
        for name in files:
            try:
                size += os.stat(name, dir_fd=at, follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
    return size, count


def kill(pid: int) -> None:
    """Ends a process and its descendants."""
    try:
        process = psutil.Process(pid)
        children = process.children(recursive=True)
        process.kill()  # in the sandbox, all others end with the first; it must not have the time to fork
        for victim in children:
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
