"""What a step is shown: functions (problem, the member's key) -> (number of the step, its key) -> (x, y)."""

import jax
import jax.numpy as jnp

from nteq.actions import on_lattices, orbit
from nteq.groups import dihedral


def turned(problem, x, y, g):
    """Example i and its label, moved by the element g[i]."""
    rows = jnp.arange(len(x))
    return orbit(problem.action, x)[g, rows], orbit(problem.label_action, y)[g, rows]


def whole_orbit(problem, x=None, y=None):
    """All images of the training examples, or of others, shape (|G| n, ...)."""
    x, y = (problem.x, problem.y) if x is None else (x, y)
    x, y = orbit(problem.action, x), orbit(problem.label_action, y)
    return x.reshape(-1, *x.shape[2:]), y.reshape(-1, y.shape[-1])


def full(problem, own):
    """Full augmentation, all of it in every step."""
    return lambda i, key: whole_orbit(problem)


def unturned(problem, own):
    """The training examples as they are."""
    return lambda i, key: (problem.x, problem.y)


def half(problem, own):
    """The images under the first half of the elements."""
    order = problem.action.group.order
    x, y = whole_orbit(problem)
    kept = len(problem.x) * (order // 2)
    return lambda i, key: (x[:kept], y[:kept])


def drawn(problem, key, odds=None):
    """One element for each training example."""
    order = problem.action.group.order
    return jax.random.choice(key, order, (len(problem.x),), p=odds)


def fresh(problem, own):
    """Every example turned by an element that is drawn in every step."""
    return lambda i, key: turned(problem, problem.x, problem.y, drawn(problem, key))


def fresh_uneven(problem, own):
    """The same, but one half of the time an example stays as it is."""
    order = problem.action.group.order
    odds = jnp.full(order, 0.5 / (order - 1)).at[problem.action.group.identity].set(0.5)
    return lambda i, key: turned(problem, problem.x, problem.y, drawn(problem, key, odds))


def one_turn_for_the_batch(problem, own):
    """All examples turned by the same element, drawn in every step."""

    def see(i, key):
        g = jax.random.randint(key, (), 0, problem.action.group.order)
        return turned(problem, problem.x, problem.y, jnp.full(len(problem.x), g))

    return see


def one_draw_each(problem, own):
    """Every example is turned once, before training; each member draws for itself."""
    seen = turned(problem, problem.x, problem.y, drawn(problem, own))
    return lambda i, key: seen


def one_draw_for_all(problem, own):
    """Every example is turned once, and all members get the same images."""
    return one_draw_each(problem, jax.random.key(11))


def in_batches(problem, order, size=4):
    """The augmented set in batches, in an order of its rows."""
    x, y = whole_orbit(problem)

    def see(i, key):
        rows = jax.lax.dynamic_slice(order, (i % (len(x) // size) * size,), (size,))
        return x[rows], y[rows]

    return see


def own_order(problem, own):
    """Batches of four in an order that each member draws for itself."""
    return in_batches(problem, jax.random.permutation(own, len(whole_orbit(problem)[0])))


def one_order(problem, own):
    """Batches of four, shuffled alike in all members: a data loader with a fixed seed."""
    return own_order(problem, jax.random.key(12))


def orbit_by_orbit(problem, own):
    """Batches that hold whole orbits, two at a time, in one order for all members."""
    x, y = orbit(problem.action, problem.x), orbit(problem.label_action, problem.y)

    def see(i, key):
        pair = jnp.array([2 * i, 2 * i + 1]) % len(problem.x)
        return x[:, pair].reshape(-1, *x.shape[2:]), y[:, pair].reshape(-1, y.shape[-1])

    return see


def bootstrapped(problem, own):
    """As many rows of the augmented set, drawn with replacement by each member."""
    x, y = whole_orbit(problem)
    rows = jax.random.randint(own, (len(x),), 0, len(x))
    return lambda i, key: (x[rows], y[rows])


def mixed_up(problem, own):
    """Turned examples mixed in pairs, labels too (mixup, Zhang et al. 2018)."""

    def see(i, key):
        turn, pair, share = jax.random.split(key, 3)
        x, y = fresh(problem, own)(i, turn)
        other = jax.random.permutation(pair, len(x))
        weight = jax.random.uniform(share, (len(x),))
        mix = lambda a: (
            jnp.einsum("n,n...->n...", weight, a) + jnp.einsum("n,n...->n...", 1 - weight, a[other])
        )
        return mix(x), mix(y)

    return see


def noisy(problem, own):
    """Turned examples with Gaussian noise."""

    def see(i, key):
        turn, noise = jax.random.split(key)
        x, y = fresh(problem, own)(i, turn)
        return x + 0.5 * jax.random.normal(noise, x.shape), y

    return see


def labels_left(problem, own):
    """All images, each with the label of the example as it was."""
    x = whole_orbit(problem)[0]
    y = jnp.tile(problem.y, (problem.action.group.order, 1))
    return lambda i, key: (x, y)


# Of images alone


def shifted(x, down, right):
    """Images moved by whole pixels, each by its own, zeros at the edge; what leaves is lost, as in a crop."""
    most, side = 2, x.shape[1]
    wide = jnp.pad(x, ((0, 0), (most, most), (most, most)))
    crop = lambda image, i, j: jax.lax.dynamic_slice(image, (most - i, most - j), (side, side))
    return jax.vmap(crop)(wide, down, right)


def crops(least, most, first):
    """Random crops, moved by `least` to `most` pixels down and right, before or after a turn."""

    def build(problem, own):
        def see(i, key):
            turn, place = jax.random.split(key)
            down, right = jax.random.randint(place, (2, len(problem.x)), least, most + 1)
            g = drawn(problem, turn)
            if first == "crop":
                return turned(problem, shifted(problem.x, down, right), problem.y, g)
            x, y = turned(problem, problem.x, problem.y, g)
            return shifted(x, down, right), y

        return see

    return build


def crops_alone(problem, own):
    """Random crops to all sides of images that are not turned."""

    def see(i, key):
        down, right = jax.random.randint(key, (2, len(problem.x)), -2, 3)
        return shifted(problem.x, down, right), problem.y

    return see


def cut_out(problem, own):
    """Turned images with a square of zeros at a random place (DeVries & Taylor 2017)."""

    def see(i, key):
        turn, place = jax.random.split(key)
        x, y = fresh(problem, own)(i, turn)
        side = x.shape[1]
        row, column = jax.random.randint(place, (2, len(x), 1, 1), 1, side - 1)
        here = jnp.arange(side)
        outside = (jnp.abs(here[:, None] - row) > 1) | (jnp.abs(here - column) > 1)
        return x * outside, y

    return see


def any_angle(problem, own):
    """Images turned by any angle, with linear interpolation and zeros outside."""
    side = problem.x.shape[1]
    place = jnp.arange(side) - (side - 1) / 2

    def turn(image, angle):
        c, s = jnp.cos(angle), jnp.sin(angle)
        row, column = c * place[:, None] - s * place, s * place[:, None] + c * place
        middle = (side - 1) / 2
        return jax.scipy.ndimage.map_coordinates(image, [row + middle, column + middle], order=1)

    def see(i, key):
        angles = jax.random.uniform(key, (len(problem.x),), maxval=2 * jnp.pi)
        return jax.vmap(turn)(problem.x, angles), problem.y

    return see


def mirrored(problem, own):
    """Images with their mirror images, not turned."""
    x = orbit(on_lattices(dihedral(1)), problem.x)
    return lambda i, key: (x.reshape(-1, *x.shape[2:]), jnp.tile(problem.y, (2, 1)))
