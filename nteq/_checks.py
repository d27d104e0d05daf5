"""What the library asks of its arguments, and the words in which it refuses them: once, for all modules.

Each function takes the caller's and the argument's name for its message and returns the value in the form
in which the library computes. Values are looked at where they are known, inside of a trace too; traced ones
pass.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


def is_known(*values: Any) -> bool:
    """Whether none of the arrays in these pytrees is traced, so that one may look at their values."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def look(question: Callable[[], ArrayLike]) -> np.ndarray:
    """The answer to a question about known arrays, which `jit` around it does not trace."""
    with jax.ensure_compile_time_eval():
        return np.asarray(question())


def are_finite(values: Any) -> bool:
    """Whether a known array has neither NaN nor inf; by NumPy, which compiles nothing."""
    return bool(np.isfinite(np.asarray(values)).all())


def count(
    caller: str, name: str, value: Any, least: int = 1, most: int | None = None, advice: str = ""
) -> int:
    """An integer from least to most, as a Python int."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:  # traced ones, too: what they decide is the shape of a program
        raise ValueError(
            f"{caller}: {name} must be an integer of at least {least}, got {value!r}. {advice}".rstrip()
        ) from None
    if number < least:
        raise ValueError(
            f"{caller}: {name} must be an integer of at least {least}, got {value!r}. {advice}".rstrip()
        )
    if most is not None and number > most:
        raise ValueError(f"{caller}: {name} must be at most {most}, got {value!r}. {advice}".rstrip())
    return number


def per_layer(caller: str, name: str, value: Any, layers: int) -> tuple[int, ...]:
    """One integer of at least 1 for each layer, of one for all or a sequence."""
    values: list[Any] = [value] * layers if np.ndim(value) == 0 else list(np.asarray(value, object))
    if len(values) != layers:
        raise ValueError(
            f"{caller}: {name} must be one integer or one for each of the {layers} layers, got {value!r}."
        )
    return tuple(count(caller, name, one) for one in values)


def number(caller: str, name: str, value: Any, least: float = 0.0, exclusive: bool = False) -> Any:
    """A finite real number of at least (or, exclusive, above) `least`; a float, or the traced value."""
    bound = {True: "positive", False: "not negative"}[exclusive]
    if least != 0:
        bound = f"{'above' if exclusive else 'at least'} {least}"
    wanted = f"{caller}: {name} must be {bound} and finite"
    if np.ndim(value) or isinstance(value, bool | np.bool_ | str) or value is None:
        shape = f"shape {np.shape(value)}" if np.ndim(value) else repr(value)
        raise ValueError(f"{wanted}, a single number, got {shape}.")
    if not is_known(value):
        return value
    try:
        as_float = float(value)
    except TypeError:
        raise ValueError(f"{wanted}, got {value!r}.") from None
    if not np.isfinite(as_float) or as_float < least or (exclusive and as_float == least):
        raise ValueError(f"{wanted}, got {value!r}.")
    return as_float


def choice(caller: str, name: str, value: Any, known: Sequence[str], advice: str = "") -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in known:
        words = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}" if len(known) > 1 else repr(known[0])
        raise ValueError(f"{caller}: {name} must be {words}, got {value!r}. {advice}".rstrip())
    return value


def real(caller: str, name: str, values: Any) -> Array:
    """A finite array of float32 or float64.

    Integers, booleans and half precision are promoted. Complex numbers, text, objects and entries that are
    not finite are refused.
    """
    if not isinstance(values, Array):
        known = is_known(values)
        try:  # NumPy first: JAX would wrap integers of more than 32 bits
            values = np.asarray(values) if known else jnp.asarray(values)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{caller}: {name} must be an array of numbers ({error}).") from None
    if jnp.issubdtype(values.dtype, jnp.complexfloating) or not (
        jnp.issubdtype(values.dtype, jnp.number) or values.dtype == bool
    ):
        raise ValueError(f"{caller}: {name} must hold real numbers, got dtype {values.dtype}.")
    if not is_known(values):
        return values.astype(_computed_in(values.dtype))
    if not are_finite(values):
        raise ValueError(f"{caller}: {name} has entries that are not finite. Remove them first.")
    with np.errstate(over="ignore"), jax.ensure_compile_time_eval():  # known stays known inside of a trace
        converted = jnp.asarray(values.astype(_computed_in(values.dtype)))
    if converted.dtype != values.dtype and not are_finite(converted):
        raise ValueError(
            f"{caller}: {name} has entries that {converted.dtype} cannot hold. Scale them down, or compute "
            'in float64: jax.config.update("jax_enable_x64", True).'
        )
    return converted


def _computed_in(dtype: Any) -> np.dtype[Any]:
    floating = jnp.issubdtype(dtype, jnp.floating)
    wide = np.float32 if floating and dtype.itemsize < 4 else dtype if floating else jnp.result_type(float)
    return jax.dtypes.canonicalize_dtype(wide)


def batch(caller: str, name: str, values: Any) -> Array:
    """A finite batch of examples, shape (n, *features) with n ≥ 1, of float32 or float64."""
    values = real(caller, name, values)
    if values.ndim < 2 or values.size == 0:
        raise ValueError(
            f"{caller}: {name} must be a batch of shape (n, *features) with n ≥ 1, got shape {values.shape}. "
            "For one example add a leading axis: x[None]."
        )
    return values


def memory_of(device: jax.Device) -> float | None:
    """How many bytes may be used there, None where nobody knows."""
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    if hasattr(os, "sysconf"):
        return 0.9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None
