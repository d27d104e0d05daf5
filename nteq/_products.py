"""Products in full precision: on an accelerator the default rounds the entries of float32 to 10 bits.

What is exact by symmetry would hold to a thousandth then. What networks compute is left to JAX's setting.
"""

from functools import partial

import jax.numpy as jnp

matmul = partial(jnp.matmul, precision="highest")
einsum = partial(jnp.einsum, precision="highest")
