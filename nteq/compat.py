"""neural-tangents 0.6.5 on today's JAX, without TensorFlow.

    from nteq.compat import neural_tangents as nt, stax

The last release of neural-tangents (2023) imports names that JAX has since removed and TensorFlow for an
experimental corner. This module leaves that corner out, gives JAX's public modules back the missing names
(none is replaced, and `jax._src` stays as it is), imports neural-tangents, and mends the few of its internals
whose contracts with JAX and SciPy changed.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.extend.source_info_util
import jax.interpreters.ad
import scipy.linalg
from jax._src import core as _core
from jax._src import util as _util

__all__ = ["neural_tangents", "stax"]

_KNOWN = ((0, 10), (0, 13))  # first version that works, first that was not tried


def _check_jax() -> None:
    found = tuple(int(part) for part in jax.__version__.split(".")[:2])
    if not _KNOWN[0] <= found < _KNOWN[1]:
        raise ImportError(
            f"nteq.compat knows JAX 0.10 to 0.12 and found {jax.__version__}: neural-tangents 0.6.5 needs "
            "names that JAX moves between versions. Install one that works: pip install 'jax>=0.10,<0.13'."
        )
    broken = sys.modules.get("neural_tangents")
    if broken is not None and not hasattr(broken, "_mended_by_nteq"):
        raise ImportError(
            "neural_tangents was imported before nteq.compat, which has to prepare JAX for it. "
            "Restart and write `from nteq.compat import neural_tangents as nt` instead."
        )


def _check_installed() -> None:
    missing = [name for name in ("neural_tangents", "frozendict") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"nteq.compat needs neural-tangents, and {' and '.join(missing)} is not installed. It computes "
            "the kernels of cnn and gcnn, and those of the standard parameterisation. Install it by\n"
            "    pip install --no-deps neural-tangents==0.6.5 frozendict\n"
            "which leaves out the 2 GB of TensorFlow that pip install 'nteq[stax]' brings along and nothing "
            "here uses."
        )


def _restore(module: types.ModuleType, **names: Any) -> None:
    """Adds the names that the module lacks (or only has behind a deprecation)."""
    for name, value in names.items():
        vars(module).setdefault(name, value)


def _restore_names() -> None:
    _restore(
        jax.core,
        Jaxpr=_core.Jaxpr,
        JaxprEqn=_core.JaxprEqn,
        Literal=_core.Literal,
        Primitive=_core.Primitive,
        ShapedArray=_core.ShapedArray,
        Value=object,  # stands in annotations only
        Var=_core.Var,
        # compared with type(aval); JAX has no dynamic shapes any more
        DShapedArray=type("DShapedArray", (), {}),
        # neural-tangents factorises the training set outside of any trace
        eval_context=jax.ensure_compile_time_eval,
    )
    _restore(
        jax.interpreters.ad,
        # a key of neural-tangents' rule tables; JAX emits no such primitive any more
        zeros_like_p=_core.Primitive("zeros_like"),
        source_info_util=jax.extend.source_info_util,
        # guards a debug check against a function that JAX no longer has
        config=types.SimpleNamespace(jax_enable_checks=False),
    )
    try:
        jax_util = importlib.import_module("jax.util")
    except ImportError:
        jax_util = sys.modules["jax.util"] = vars(jax)["util"] = types.ModuleType("jax.util")
    _restore(jax_util, safe_map=_util.safe_map, safe_zip=_util.safe_zip)


def _leave_out_tensorflow() -> None:
    name = "neural_tangents.experimental"
    if name not in sys.modules:
        stub = types.ModuleType(name, "Left out by nteq.compat: it needs tensorflow and tf2jax.")
        stub.__path__ = []  # a package, so that importing a submodule says "No module named"
        sys.modules[name] = stub


_check_jax()
_check_installed()  # before anything is changed
_leave_out_tensorflow()
_restore_names()

import neural_tangents  # noqa: E402
from neural_tangents import stax  # noqa: E402
from neural_tangents._src import empirical as _empirical  # noqa: E402
from neural_tangents._src import predict as _predict  # noqa: E402


def _get_flops(f: Callable[..., Any], optimize: bool, *args: Any, **kwargs: Any) -> Any:
    """As theirs; cost_analysis() was a list of dicts and is a dict now."""
    lowered = jax.jit(f).lower(*args, **kwargs)
    cost: Any = (lowered.compile() if optimize else lowered).cost_analysis()
    return cost["flops"]


def _get_primals_out_and_pullback(
    fn: Callable[..., Any], mode: Any, _j_rules: Any, _s_rules: Any, _fwd: Any, *primals_in: Any
) -> tuple[Any, Callable[..., Any]]:
    """As theirs, with the linear jaxpr from the public API instead of ad.linearize."""
    flat_in, in_tree = jax.tree.flatten(primals_in)
    with jax.disable_jit():  # no call primitives in the jaxpr
        primals_out, fn_jvp = jax.linearize(lambda *flat: fn(*jax.tree.unflatten(in_tree, flat)), *flat_in)
        closed = jax.make_jaxpr(fn_jvp)(*flat_in)

    def pullback_fn(*cotangents: Any) -> Any:
        out = _empirical._backward_pass(
            closed.jaxpr,
            mode=mode,
            consts=closed.consts,
            primals_in=[jax.interpreters.ad.UndefinedPrimal(v.aval) for v in closed.jaxpr.invars],
            cotangents_in=jax.tree.leaves(cotangents),
            _j_rules=_j_rules,
            _s_rules=_s_rules,
            _fwd=_fwd,
        )
        return jax.tree.unflatten(in_tree, out)

    return primals_out, pullback_fn


def _eqn_vjp_fn(eqn: Any, cotangents: Any, *invals: Any) -> Any:
    """As theirs, less the call primitives, which disable_jit above rules out."""
    if eqn is None:  # identity function
        return (cotangents,)
    return jax.interpreters.ad.get_primitive_transpose(eqn.primitive)(cotangents, *invals, **eqn.params)


def _in_trace_of_arguments(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Lets fn take tracers although it runs in eval_context(), which has refused them since JAX 0.4.36.

    Where the arguments belong to several traces the innermost one holds them all.
    """

    def depth(trace: Any) -> int:
        parent = getattr(trace, "parent_trace", None)
        return 0 if parent is None else 1 + depth(parent)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        leaves = jax.tree.leaves((args, kwargs))
        traces = [leaf._trace for leaf in leaves if isinstance(leaf, jax.core.Tracer)]
        if not traces:
            return fn(*args, **kwargs)
        with _core.set_current_trace(max(traces, key=depth)):
            return fn(*args, **kwargs)

    return wrapped


def _mend() -> None:
    _empirical._get_flops = _get_flops
    _empirical._get_primals_out_and_pullback = _get_primals_out_and_pullback
    _empirical._eqn_vjp_fn = _eqn_vjp_fn
    for name in ("_get_cho_solve", "_get_fns_in_eigenbasis"):
        setattr(_predict, name, _in_trace_of_arguments(getattr(_predict, name)))
    # their one use of SciPy in `predict`; SciPy 1.14 renamed `eigvals` to `subset_by_index`
    eigvalsh = lambda a, eigvals: scipy.linalg.eigvalsh(a, subset_by_index=eigvals)
    _predict.sp = types.SimpleNamespace(linalg=types.SimpleNamespace(eigvalsh=eigvalsh))
    neural_tangents._mended_by_nteq = True


if not hasattr(neural_tangents, "_mended_by_nteq"):  # a reload must not wrap twice
    _mend()
