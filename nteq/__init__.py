"""Symmetries and neural tangent kernels: the library behind the book.

`nteq.groups` and `nteq.actions` hold symmetry, `nteq.kernels` and `nteq.gradient_flow` infinite ensembles,
`nteq.networks` and `nteq.ensembles` finite ones, `nteq.ising` data. Every array has its leading axis over
examples, `(n, *features)`; an orbit adds one in front, `(|G|, n, *features)`. A module is imported when it is
first asked for.
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

__all__ = [
    "actions",
    "averages",
    "compat",
    "datasets",
    "ensembles",
    "fourier",
    "gaussian_process",
    "gradient_flow",
    "groups",
    "harmonics",
    "interactive",
    "ising",
    "kernels",
    "metrics",
    "molecules",
    "networks",
    "plotting",
    "radial",
]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"nteq has no attribute {name!r}; its modules are {', '.join(__all__)}.")
    return import_module(f"nteq.{name}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
