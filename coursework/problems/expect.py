import numpy as np


def expect(answer, right, what, mistakes=None, rtol=1e-6, atol=1e-9):
    """Compares an answer with the right one; mistakes maps hints to the values that mistakes lead to."""
    right = np.asarray(right)
    assert answer is not None, f"{what} is None: does the function end with return?"
    answer = np.asarray(answer)
    assert answer.shape == right.shape, f"{what} has shape {answer.shape}; expected was {right.shape}."
    assert answer.dtype.kind in "biufc", f"{what} is not numeric: it has dtype {answer.dtype}."
    assert np.isfinite(answer).all(), f"{what} contains nan or inf: was something divided by zero?"

    def close(value):
        size = np.abs(value).max(initial=0)
        return value.shape == answer.shape and np.abs(answer - value).max(initial=0) <= rtol * size + atol

    if close(right):
        return
    for hint, wrong in (mistakes or {}).items():
        assert not close(np.asarray(wrong)), f"{what} is not right yet. {hint}"
    where = np.unravel_index(np.abs(answer - right).argmax(), right.shape) if right.shape else ()
    at = f" at index {tuple(map(int, where))}" if right.shape else ""
    raise AssertionError(f"{what} is {answer[where]:.6g}{at}; expected was {right[where]:.6g}.")
