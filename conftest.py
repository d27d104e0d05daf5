"""What every test has: a program that one process has compiled, no other compiles again.

This stands at the top since all that pytest runs passes by it, library, doctests, notebooks and coursework,
and since it has to come before JAX. The environment carries it to what the tests start: workers, kernels,
commands and their restarts. A submission gets the cache to read only (coursework/sandbox.py).
"""

import hashlib
import os
import platform
import shutil
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

CACHES = Path(sys.prefix, "xla-cache")  # in the environment, so that it goes with it
LARGEST = 2**30  # bytes; all tests together leave less than a tenth of that
TORN = "ignore:Error reading persistent compilation cache entry"


def folder() -> Path:
    """Where the programs are that these versions have compiled for this processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    able = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    processor = "\n".join([platform.machine(), platform.processor(), *sorted(able)])
    versions = f"python{platform.python_version()}-jax{version('jax')}-jaxlib{version('jaxlib')}"
    return CACHES / f"{versions}-{hashlib.sha256(processor.encode()).hexdigest()[:8]}"


def share() -> None:
    """Tells JAX and all processes that are started from here about the cache; who has set one keeps it."""
    if find_spec("jax") is None or sys.prefix == sys.base_prefix:
        return  # the browser's environment; no environment of ours
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        if CACHES.exists() and sum(entry.stat().st_size for entry in CACHES.glob("*/*")) > LARGEST:
            shutil.rmtree(CACHES, ignore_errors=True)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder())
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    # JAX writes an entry in place: who reads it at that very moment, or after its writer was killed, warns,
    # compiles for itself, and has lost nothing
    filters = [given for given in os.environ.get("PYTHONWARNINGS", "").split(",") if given]
    if TORN not in filters:
        os.environ["PYTHONWARNINGS"] = ",".join([*filters, TORN])


share()
