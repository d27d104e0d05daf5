"""The sandbox holds what it promises, and says when it cannot."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from coursework import grade, sandbox

LIMITS = sandbox.Limits(memory=2**30, files=2**20)


def test_this_machine_enforces_every_limit():
    assert sandbox.missing(LIMITS) == []


def test_what_cannot_be_enforced_is_said_before_anything_is_graded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (tmp_path / "submissions").mkdir()
    with pytest.raises(SystemExit, match="Nothing was graded"):
        grade.grade(tmp_path / "submissions")
    said = capsys.readouterr().err
    assert "the network is cut off" in said and "apt install bubblewrap" in said
    assert "memory is limited" not in said  # the operating system does that anywhere
    assert not (tmp_path / "submissions-graded").exists()


def test_a_command_ends_with_all_it_started(tmp_path):
    tmp_path.chmod(0o777)
    mark = f"{time.time_ns()}"
    code = "import subprocess, time\n"
    code += f"subprocess.Popen(['sleep', '987.{mark}'], start_new_session=True)\ntime.sleep(0.2)"
    subprocess.run(sandbox.command([sys.executable, "-c", code], tmp_path, LIMITS), check=True)
    time.sleep(0.5)
    assert mark not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


TOUCH = """
import os
entry = os.path.join(CACHE, "entry")
print(os.path.exists(entry) and open(entry).read(), "JAX_COMPILATION_CACHE_DIR" in os.environ)
for attempt in (
    lambda: open(entry, "a").write("changed"), lambda: os.chmod(entry, 0o777), lambda: os.utime(entry),
    lambda: os.rename(entry, entry + "2"), lambda: os.remove(entry), lambda: os.rmdir(CACHE),
    lambda: open(os.path.join(CACHE, "new"), "w"), lambda: os.mkdir(os.path.join(CACHE, "folder")),
    lambda: os.symlink("/etc/passwd", os.path.join(CACHE, "link")),
):
    try: attempt(); print("WRITTEN")
    except OSError: pass
import jax
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
print(jax.jit(lambda x: x + 1)(1.0))
"""


@pytest.mark.parametrize("graded", [False, True])
def test_a_submission_cannot_write_what_is_compiled_and_when_it_is_graded_not_even_read_it(
    tmp_path, monkeypatch, graded
):
    tmp_path.chmod(0o777)
    sandbox.COMPILED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=sandbox.COMPILED) as name:
        cache, entry = Path(name), Path(name, "entry")
        cache.chmod(0o777)
        entry.write_text("compiled")
        entry.chmod(0o666)
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", name)
        if graded:
            monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        program = f"CACHE = {name!r}\n{TOUCH}"
        argv = sandbox.command([sys.executable, "-I", "-c", program], tmp_path, sandbox.Limits())
        done = subprocess.run(argv, capture_output=True, text=True)
        assert done.stdout.splitlines() == ["False False" if graded else "compiled True", "2.0"], done.stderr
        assert list(cache.iterdir()) == [entry] and entry.read_text() == "compiled"


@pytest.mark.parametrize(
    "code, says",
    [
        ("import os\nwhile True:\n    try: os.fork() or os.setsid()\n    except OSError: pass", "processes"),
        (
            "import time\nfor i in range(5):\n    open(f'f{i}', 'wb').write(bytes(900_000))\ntime.sleep(9)",
            "MiB of files",
        ),
        ("import time\nfor i in range(9999):\n    open(f'f{i}', 'w')\ntime.sleep(9)", "files"),
        ("import os, time\nfor i in range(2500):\n    os.mkdir('d'); os.chdir('d')\ntime.sleep(9)", "files"),
        (
            "import os, time\nos.mkdir('d'); os.chmod('d', 0)\ntime.sleep(9)",
            None if os.getuid() == 0 else "counted",
        ),
        (
            "import os, time\nfor i in range(8):\n"
            "    if os.fork() == 0:\n        x = bytearray(200 * 2**20); time.sleep(9)\ntime.sleep(9)",
            "GiB of memory",
        ),
    ],
)
def test_the_watch_ends_what_the_operating_system_does_not(tmp_path, code, says):
    folder = tmp_path / "inside"
    folder.mkdir()
    folder.chmod(0o777)
    process = subprocess.Popen(
        sandbox.command([sys.executable, "-c", code], folder, LIMITS), stderr=subprocess.DEVNULL
    )
    watch = sandbox.Watch(process.pid, folder, LIMITS)
    try:
        if says is None:
            time.sleep(1)
            assert watch.reason is None
        else:
            process.wait(timeout=8)
            assert says in watch.reason
    finally:
        watch.stop()
        sandbox.kill(process.pid)
        process.wait()
        subprocess.run(["rm", "-rf", folder], check=True)
