"""Installs the library alone into a fresh environment of the Python that runs this, and tries it there.

`make test-install` does so with every supported Python found here. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDED = 25  # MB on top of what JAX itself requires, of which results and images that ship are a third
SECONDS = 1.0  # of importing all of the library, beyond JAX's own import
UNWANTED = "tensorflow keras neural-tangents scikit-image scikit-learn matplotlib ipywidgets anywidget pooch"

SIZES = """
import importlib.metadata as metadata, json, re

def requires(name, seen):
    if name in seen:
        return seen
    try:
        wanted = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return seen
    seen.add(name)
    for line in wanted:
        if "extra ==" not in line:
            requires(re.match(r"[\\w.-]+", line)[0].lower().replace("_", "-"), seen)
    return seen

def megabytes(names):
    files = [f.locate() for name in names for f in metadata.files(name) or []]
    return sum(f.stat().st_size for f in files if f.exists()) / 1e6

jax, ours = requires("jax", set()), requires("nteq", set())
print(json.dumps([megabytes(jax), megabytes(ours - jax), sorted(ours)]))
"""

TIMES = """
import time
start = time.perf_counter()
import jax, jax.numpy
between = time.perf_counter()
import nteq
for name in nteq.__all__:
    if name not in ("plotting", "interactive", "compat"):
        getattr(nteq, name)
print(between - start, time.perf_counter() - between)
"""

UNTOUCHED = """
import sys
import jax, jax.core, jax.extend, jax.interpreters.ad
modules = jax, jax.core, jax.numpy, jax.interpreters.ad, jax.extend.core
before = [dict(vars(module)) for module in modules]
import nteq
for name in nteq.__all__:
    if name not in ("plotting", "interactive", "compat"):
        getattr(nteq, name)
nteq.networks.mlp(width=8).kernel(jax.numpy.eye(2), jax.numpy.eye(2))
for module, names in zip(modules, before):
    now = vars(module)
    assert all(now.get(name) is value for name, value in names.items()), f"importing nteq changed {module}"
    # what is imported becomes a name of its package
    imported = lambda name: sys.modules.get(f"{module.__name__}.{name}") is now[name]
    added = {name for name in set(now) - set(names) if not imported(name)}
    assert not added, f"importing nteq added {added} to {module}"
assert not any(name.startswith("neural_tangents") for name in sys.modules)
for missing in ("plotting", "interactive"):
    try:
        getattr(nteq, missing)
    except ImportError as error:
        assert "nteq[book]" in str(error), error
    else:
        raise AssertionError(f"nteq.{missing} imports without the packages it needs")
try:
    nteq.networks.cnn([4]).kernel(jax.numpy.ones((1, 4, 4, 1)), jax.numpy.ones((1, 4, 4, 1)))
except ImportError as error:
    assert "neural-tangents" in str(error), error
else:
    raise AssertionError("a kernel that needs neural-tangents is computed without it")
"""

STAX = """
import jax.numpy as jnp
from nteq.networks import cnn
from nteq.compat import stax
_, _, kernel = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
print(kernel(jnp.ones((2, 3)), None, "ntk").shape, cnn([4]).kernel(*[jnp.ones((2, 4, 4, 1))] * 2).ntk.shape)
"""


def main() -> None:
    """Raises at the first thing that is not as README says; prints a line."""
    readme = (ROOT / "README.md").read_text()
    example = re.search(r"```python\n(.*?)```", readme, re.S)[1]
    line = re.search(r"^ +pip install (--no-deps neural-tangents.*)$", readme, re.M)[1]
    with tempfile.TemporaryDirectory() as folder:
        source, where = Path(folder, "source"), Path(folder, "environment")
        source.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        shutil.copytree(ROOT / "nteq", source / "nteq", ignore=shutil.ignore_patterns("__pycache__"))
        venv.create(where, with_pip=True)
        python = next(p for p in (where / "bin/python", where / "Scripts/python.exe") if p.exists())
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "JAX_PLATFORMS")}

        def run(*arguments: str) -> str:
            command = [str(python), "-W", "ignore", *arguments]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")
            return done.stdout

        run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(source))
        jax_size, added, names = json.loads(run("-c", SIZES))
        assert not set(names) & set(UNWANTED.split()), names
        assert added <= ADDED, f"nteq adds {added:.0f} MB"
        run("-c", TIMES)  # writes the .pyc files
        times = [[float(t) for t in run("-c", TIMES).split()] for _ in range(5)]
        jax_time, ours = (statistics.median(column) for column in zip(*times, strict=True))
        assert ours <= SECONDS, f"importing nteq takes {ours:.2f} s"
        values = [float(value) for value in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", run("-c", example))]
        assert len(values) == 4 and max(values) - min(values) < 1e-9 * abs(values[0]), values
        run("-c", UNTOUCHED)
        run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *line.split())
        assert run("-c", STAX).strip() == "(2, 2) (2, 2)"
        installed = run("-m", "pip", "list", "--disable-pip-version-check").lower()
        assert "tensorflow" not in installed
    print(
        f"Python {sys.version_info[0]}.{sys.version_info[1]}: JAX with what it requires {jax_size:.0f} MB, "
        f"nteq {added:.0f} MB more; import jax {jax_time:.2f} s, all of nteq {ours:.2f} s more; "
        "README's example and its line for neural-tangents work"
    )


if __name__ == "__main__":
    main()
