"""Symmetries and neural tangent kernels: the library behind the book.

Import what you need from the module that holds it: `nteq.groups` and `nteq.actions` for symmetry,
`nteq.kernels` and `nteq.gradient_flow` for infinite ensembles, `nteq.ising` for data. Every array has
its leading axis over examples, `(n, *features)`; an orbit adds one in front, `(|G|, n, *features)`.
"""

__version__ = "0.1.0"
