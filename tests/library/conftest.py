"""The tests run in float64, since their oracles are good to 1e-12; doctests, run apart, in the default."""

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_enable_x64", True)

# the same examples at every run; no deadline, since the first call of a shape compiles
settings.register_profile("nteq", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("nteq")


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """What one module compiled stays in memory for the next otherwise: some gigabytes in the end."""
    yield
    jax.clear_caches()


@pytest.fixture
def compilations():
    """A function that calls another and counts the programs that this compiles, cached on disk or not."""
    compiled = []
    listen = lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None

    def count(call):
        compiled.clear()
        jax.block_until_ready(call())
        return len(compiled)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield count
    jax.monitoring.unregister_event_duration_listener(listen)
