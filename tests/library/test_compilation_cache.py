"""What one process has compiled serves the others, whole or not at all (conftest.py)."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
import jax, jax.numpy as jnp
from jax import monitoring
seen = []
monitoring.register_event_listener(lambda name, **_: seen.append(name))
x = jnp.asarray(jax.random.normal(jax.random.key(0), (9, 9)))
results = []
for power in range(int(sys.argv[1])):
    program = jax.jit(lambda x: jax.scipy.special.erf(x @ x.T / (power + 2)) + jnp.linalg.eigvalsh(x @ x.T))
    results.append(program(x).tobytes().hex())
read = seen.count("/jax/compilation_cache/cache_hits")
asked = seen.count("/jax/compilation_cache/compile_requests_use_cache")
print(json.dumps({"results": results, "read": read, "compiled": asked - read}))
"""


def start(count):
    command = [sys.executable, "-c", PROGRAM, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    said, complaints = process.communicate(timeout=300)
    assert (process.returncode, complaints) == (0, "")
    return json.loads(said)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache in the place of the common one."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_the_common_cache_is_in_use_and_reaches_other_processes():
    finish(start(1))
    again = finish(start(1))
    assert again["compiled"] == 0 and again["read"] > 0


def test_two_processes_that_fill_the_cache_at_once_leave_what_a_third_can_read(cache):
    both = [start(12) for _ in range(2)]
    first, second = map(finish, both)
    third = finish(start(12))
    assert third["compiled"] == 0
    assert third["results"] == first["results"] == second["results"]  # the same bits


def test_an_entry_whose_writer_was_killed_costs_a_compilation_and_no_word(cache):
    whole = finish(start(1))
    for keep in (0.5, 0):
        for file in cache.glob("*-cache"):
            entry = file.read_bytes()
            file.write_bytes(entry[: int(keep * len(entry))])
        torn = finish(start(1))
        assert torn["read"] == 0 and torn["results"] == whole["results"]
