"""The small networks of the table: how each starts, and what it computes."""

import jax
import jax.numpy as jnp
import numpy as np

WIDTH = 16


def sizes(problem):
    """The number of entries of an input, and of outputs."""
    return int(np.prod(problem.x.shape[1:])), problem.y.shape[1]


# Fully connected, one hidden layer: params {"w", "b", "v", "c"}


def hidden(params, x):
    """What enters the hidden units, x w + b."""
    return x.reshape(len(x), -1) @ params["w"] + params["b"]


def dense(params, x, key=None):
    """ReLU(x w + b) v + c."""
    return jax.nn.relu(hidden(params, x)) @ params["v"] + params["c"]


def drawn(first, last, bias=lambda key, size, fan_in: jnp.zeros(size)):
    """For a problem, a start of `dense`: from laws of weights, shape (fan_in, fan_out), and of biases."""

    def begin(problem):
        inputs, outputs = sizes(problem)

        def start(key):
            w, v, b, c = jax.random.split(key, 4)
            return {
                "w": first(w, (inputs, WIDTH)),
                "v": last(v, (WIDTH, outputs)),
                "b": bias(b, WIDTH, inputs),
                "c": bias(c, outputs, WIDTH),
            }

        return start

    return begin


def gaussian(key, shape):
    """Weights of variance 2 / fan-in (He et al. 2015)."""
    return jax.random.normal(key, shape) * (2 / shape[0]) ** 0.5


def small(key, shape):
    """A tenth of it: a last layer that starts small leaves less of the start in the answers."""
    return gaussian(key, shape) / 10


def uniform(key, shape):
    """Between ±1/√fan-in, PyTorch's default for a linear layer."""
    return jax.random.uniform(key, shape, minval=-1, maxval=1) / shape[0] ** 0.5


def uniform_bias(key, size, fan_in):
    """Between ±1/√fan-in, PyTorch's default, too."""
    return jax.random.uniform(key, (size,), minval=-1, maxval=1) / fan_in**0.5


def truncated(key, shape):
    """A Gaussian cut off at one standard deviation."""
    return jax.random.truncated_normal(key, -1, 1, shape) * (2 / shape[0]) ** 0.5


def orthogonal(key, shape):
    """Random orthonormal columns, or rows (Saxe et al. 2014).

    By Newton's iteration for the orthogonal factor of a Gaussian matrix: many QR decompositions at once can
    stall on the CPU.
    """
    q = jax.random.normal(key, shape)
    q = q / jnp.linalg.norm(q)
    return 2**0.5 * jax.lax.fori_loop(0, 25, lambda _, q: 1.5 * q - 0.5 * q @ (q.T @ q), q)


def sparse(key, shape):
    """A random third of the weights, the others zero."""
    here, size = jax.random.split(key)
    return gaussian(size, shape) * jax.random.bernoulli(here, 1 / 3, shape) * 3**0.5


def off_zero(key, shape):
    """Gaussian weights whose mean is not zero."""
    return gaussian(key, shape) + (1 / shape[0]) ** 0.5


plain = drawn(gaussian, small)


# On images: convolutions written as products with patches, which many members at once do fast


def patches(x, size, stride=1, pad=(0, 0), mode="constant"):
    """What each filter sees, shape (n, rows, columns, size² · channels); pad is (before, after)."""
    x = jnp.pad(x, ((0, 0), pad, pad, (0, 0)), mode=mode)
    side = (x.shape[1] - size) // stride + 1
    end = stride * (side - 1) + 1
    seen = [x[:, i : i + end : stride, j : j + end : stride] for i in range(size) for j in range(size)]
    return jnp.concatenate(seen, axis=-1)


def pooled(h, size, reduce):
    """Blocks of size × size from the upper left corner; what is left over at the other edges is dropped."""
    side = h.shape[1] // size
    h = h[:, : side * size, : side * size].reshape(len(h), side, size, side, size, -1)
    return reduce(h, axis=(2, 4))


def convolutional(size, stride=1, pad=(0, 0), mode="constant", pool=None, coordinates=None, channels=4):
    """For a problem, (start, model): one convolution, ReLU, pooling, and a dense layer."""

    def features_of(params, x):
        x = x[..., None]
        if coordinates is not None:
            place = jnp.broadcast_to(coordinates(x.shape[1]), (*x.shape[:3], 2))
            x = jnp.concatenate([x, place], axis=-1)
        h = jax.nn.relu(patches(x, size, stride, pad, mode) @ params["w"] + params["b"])
        h = h if pool is None else pooled(h, 2, pool)
        return h.reshape(len(h), -1)

    def model(params, x, key=None):
        return features_of(params, x) @ params["v"] + params["c"]

    def build(problem):
        fan_in = size**2 * (1 if coordinates is None else 3)

        def start(key):
            w, v = jax.random.split(key)
            params = {"w": gaussian(w, (fan_in, channels)), "b": jnp.zeros(channels)}
            features = jax.eval_shape(features_of, params, problem.x).shape[1]
            return params | {"v": small(v, (features, 1)), "c": jnp.zeros(1)}

        return start, model

    return build


def from_the_centre(side):
    """Column and row, from −1 to 1: a quarter turn exchanges them and changes a sign."""
    place = jnp.linspace(-1, 1, side)
    return jnp.stack(jnp.meshgrid(place, place), axis=-1)


def from_a_corner(side):
    """Column and row, from 0 to 2."""
    return from_the_centre(side) + 1


def attention(positions, size=2, channels=8):
    """For a problem, (start, model): patches, positions added to them, one head of attention, their mean."""

    def model(params, x, key=None):
        tokens = patches(x[..., None], size, size) @ params["w"]
        tokens = tokens.reshape(len(x), -1, channels) + params.get("positions", positions)
        query, keys, values = (tokens @ params[name] for name in ("query", "keys", "values"))
        weight = jax.nn.softmax(query @ keys.swapaxes(1, 2) / channels**0.5)
        return jax.nn.relu(tokens + weight @ values).mean(1) @ params["v"] + params["c"]

    def build(problem):
        places = (problem.x.shape[1] // size) ** 2

        def start(key):
            w, query, keys, values, v, place = jax.random.split(key, 6)
            square = (channels, channels)
            params = {
                "w": gaussian(w, (size**2, channels)),
                "query": gaussian(query, square),
                "keys": gaussian(keys, square),
                "values": gaussian(values, square),
                "v": small(v, (channels, 1)),
                "c": jnp.zeros(1),
            }
            learned = {"positions": jax.random.normal(place, (places, channels))}
            return params | (learned if positions is None else {})

        return start, model

    return build


def sinusoids(places=16, channels=8):
    """The positions of Vaswani et al. (2017), which are not learned."""
    angle = np.arange(places)[:, None] / 100 ** (np.arange(channels // 2) / (channels // 2))
    return 2 * np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def recurrent(problem):
    """(start, model): a scan over the rows from the top, and a dense layer on its last state."""
    side = problem.x.shape[1]

    def model(params, x, key=None):
        def step(h, row):
            return jnp.tanh(row @ params["w"] + h @ params["u"] + params["b"]), None

        h = jax.lax.scan(step, jnp.zeros((len(x), WIDTH)), x.swapaxes(0, 1))[0]
        return h @ params["v"] + params["c"]

    def start(key):
        w, u, v = jax.random.split(key, 3)
        return {
            "w": gaussian(w, (side, WIDTH)) / 2**0.5,
            "u": orthogonal(u, (WIDTH, WIDTH)) / 2**0.5,
            "v": small(v, (WIDTH, 1)),
            "b": jnp.zeros(WIDTH),
            "c": jnp.zeros(1),
        }

    return start, model


def residual(problem):
    """(start, model): a dense layer, a block with a skip around it, a dense layer."""

    def model(params, x, key=None):
        h = hidden(params, x)
        h = h + jax.nn.relu(h) @ params["u"]
        return h @ params["v"] + params["c"]

    def start(key):
        # a key of its own: split(key)[1] would be the one that the last layer is drawn from
        u = jax.random.fold_in(key, 4)
        return plain(problem)(key) | {"u": gaussian(u, (WIDTH, WIDTH)) / 2}

    return start, model


# Normalisation of hidden units; `normalised(h)` has mean 0 and variance 1 along an axis


def normalised(h, axis, statistics=None):
    """(h − mean) / standard deviation, along an axis or by given ones."""
    mean, variance = statistics or (h.mean(axis, keepdims=True), h.var(axis, keepdims=True))
    return (h - mean) / jnp.sqrt(variance + 1e-5)


def layer_norm(params, x, key=None):
    """`dense` with its hidden units normalised over the layer."""
    h = hidden(params, x)
    return jax.nn.relu(normalised(h, 1)) @ params["v"] + params["c"]


def batch_norm(params, x, key=None, statistics=None):
    """`dense` with its hidden units normalised over the batch, or by given statistics."""
    h = hidden(params, x)
    return jax.nn.relu(normalised(h, 0, statistics)) @ params["v"] + params["c"]


def batch_statistics(params, x):
    """Mean and variance of the hidden units over a batch."""
    h = hidden(params, x)
    return h.mean(0, keepdims=True), h.var(0, keepdims=True)


def of_inputs(prepare):
    """`dense` on inputs that go through a fixed function first."""
    return lambda params, x, key=None: dense(params, prepare(x.reshape(len(x), -1)))


def dropout(key, h, rate=0.3):
    """Entries set to zero with probability `rate`, the others scaled up; nothing is done without a key."""
    return h if key is None else h * jax.random.bernoulli(key, 1 - rate, h.shape) / (1 - rate)
