"""What must not lose a finished chunk: kills at random moments, a full disk, a read-only folder.

Run by `make test-faults`; it takes some minutes.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytestmark = pytest.mark.faults

PROGRAM = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
import jax.numpy as jnp
import numpy as np
import optax
from nteq.actions import on_images
from nteq.ensembles import augment_by, run
from nteq.groups import cyclic
from nteq.networks import cnn
folder, members, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 12, 12, 1)))
try:
    f = run(
        cnn([8, 8], [4, 3], [2, 1], outputs=3), jax.random.key(5), members, x, np.arange(64) % 3, x[:50],
        steps,
        loss="cross-entropy", optimizer=optax.adam(1e-2), batch_size=16, snapshots=[0, steps // 2, steps],
        augment=augment_by(on_images(cyclic(8))), folder=folder, resume=True, save_every=0.0, progress=False,
    )
except OSError as error:
    sys.exit(str(error))
np.save(sys.argv[4], f)
"""


def start(folder, out, members=128, steps=2000):
    command = [sys.executable, "-c", PROGRAM, str(folder), str(members), str(steps), str(out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, errors = process.communicate(timeout=1200)
    return process.returncode, errors


def chunks(folder):
    return {path.name: path.read_bytes() for path in folder.glob("members-*.npz")}


def test_killed_twenty_times_and_resumed_the_predictions_are_the_same_bits(tmp_path, monkeypatch):
    # Killed runs ask for more members than they can finish, so that every kill meets a run at work,
    # however fast the machine is at that moment. A kill may tear what they compile: it is for them alone.
    folder, before, moments = tmp_path / "killed", {}, random.Random(0)
    folder.mkdir()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "programs"))
    for _ in range(2):  # the first compiles; how long a start takes that need not, the second says
        begin = time.monotonic()
        process = start(folder, tmp_path / "never.npy", members=100_000)
        while chunks(folder).keys() <= before.keys():
            time.sleep(0.1)
            assert process.poll() is None, process.communicate()[1]
        first = time.monotonic() - begin
        print(f"first chunk after {first:.0f} s")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = chunks(folder)
    for kill in range(20):
        process = start(folder, tmp_path / "never.npy", members=100_000)
        time.sleep(first / 2 + moments.uniform(0, first))  # from the middle of its start on
        assert process.poll() is None, process.communicate()[1]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        now = chunks(folder)
        assert all(now[name] == content for name, content in before.items())  # nothing finished was lost
        print(f"kill {kill + 1}: {len(now)} chunks")
        before = now
    assert not (tmp_path / "never.npy").exists()
    finished = 1 + max(int(name.split("-")[2]) for name in before)
    for name in ["killed", "whole"]:
        run = start(tmp_path / name, tmp_path / f"{name}.npy", members=finished + 32)
        assert finish(run) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "killed.npy"), np.load(tmp_path / "whole.npy"))
    assert not [path for path in folder.iterdir() if path.name.endswith(".part")]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB, and a function that mounts it again with other options."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = lambda *options: subprocess.run(
        ["mount", *options, "tmpfs", str(disk)], capture_output=True, text=True
    )
    made = mount("-t", "tmpfs", "-o", "size=64k")
    if made.returncode:
        pytest.skip(f"mounting a small file system needs root here: {made.stderr.strip()}")
    yield disk, lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_an_error_and_with_more_room_the_run_goes_on(small_disk, tmp_path):
    disk, remount = small_disk
    code, message = finish(start(disk, tmp_path / "full.npy", steps=20))
    assert code == 1 and "No space left on device" in message and "resume=True" in message
    assert "Traceback" not in message
    kept = chunks(disk)
    assert len(kept) > 1
    remount("size=8m")
    assert finish(start(disk, tmp_path / "full.npy", steps=20)) == (0, "")
    assert all(chunks(disk)[name] == content for name, content in kept.items())
    assert finish(start(tmp_path / "whole", tmp_path / "whole.npy", steps=20)) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "full.npy"), np.load(tmp_path / "whole.npy"))


def test_a_read_only_folder_is_an_error_and_keeps_what_it_holds(small_disk, tmp_path):
    disk, remount = small_disk
    assert finish(start(disk, tmp_path / "few.npy", members=8, steps=20)) == (0, "")
    kept = chunks(disk)
    remount("ro")
    code, message = finish(start(disk, tmp_path / "more.npy", members=32, steps=20))
    assert code == 1 and "Read-only file system" in message and "resume=True" in message
    assert chunks(disk) == kept
    remount("rw,size=8m")
    assert finish(start(disk, tmp_path / "more.npy", members=32, steps=20)) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "more.npy")[:8], np.load(tmp_path / "few.npy"))


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_an_error(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    code, message = finish(start(folder, tmp_path / "never.npy", members=2, steps=20))
    assert code == 1 and "Permission denied" in message
    shutil.rmtree(folder)
