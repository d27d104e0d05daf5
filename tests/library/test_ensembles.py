import json
import os
import socket
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nteq import _training, ensembles
from nteq.actions import on_images, on_lattices, on_vectors
from nteq.ensembles import augment_by, init, largest_step, predict, run, train
from nteq.gradient_flow import GradientFlow
from nteq.groups import cyclic
from nteq.networks import Network, cnn, mlp

key = jax.random.key(5)
x = jax.random.normal(jax.random.key(0), (12, 3, 3))
y = x[:, 0, 0] * x[:, 1, 1]
far = jax.random.normal(jax.random.key(1), (7, 3, 3))
network = mlp(16, 2, W_std=2**0.5, b_std=0.3)
quiet = dict(progress=False)


def trained_one_by_one(network, members, x, y, steps, loss, optimizer):
    """Every member in a Python loop."""

    @jax.jit
    def step(params, state):
        gradient = jax.grad(lambda p: loss(network.apply(p, x), y))(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    answers = []
    for i in members:
        params = network.init(jax.random.split(jax.random.fold_in(key, i))[0], x.shape[1:])
        state = optimizer.init(params)
        for _ in range(steps):
            params, state = step(params, state)
        answers.append(network.apply(params, far))
    return jnp.stack(answers)


squared = lambda f, y: ((f - y) ** 2).sum() / (2 * len(y))
log_loss = lambda f, y: -jnp.take_along_axis(jax.nn.log_softmax(f), y[:, None], 1).mean()


@pytest.fixture
def single(monkeypatch):
    """Blocks of a single member, so that there are many chunks."""
    monkeypatch.setattr(_training, "CACHE", (1, 1))


@pytest.mark.parametrize(
    ("network", "y", "loss", "reference", "optimizer"),
    [
        (network, y, "squared", squared, optax.sgd(0.05)),
        pytest.param(
            mlp(16, 1, outputs=2), jnp.stack([y, -y], 1), "squared", squared, optax.adam(1e-2),
            marks=pytest.mark.slow,
        ),
        (mlp(16, 1, outputs=3), jnp.arange(12) % 3, "cross-entropy", log_loss, optax.sgd(0.1, momentum=0.9)),
    ],
    ids=["squared", "two outputs, adam", "cross-entropy, momentum"],
)  # fmt: skip
def test_members_are_networks_trained_one_by_one(network, y, loss, reference, optimizer):
    expected = trained_one_by_one(network, range(5), x, y, 20, reference, optimizer)
    params = init(network, key, 5, x.shape[1:])
    trained = train(network, params, x, y, 20, loss=loss, optimizer=optimizer)
    np.testing.assert_allclose(predict(network, trained, far, batch_size=3), expected, rtol=1e-9, atol=1e-11)
    # and run is init, train and predict, with what was predicted on the way
    f = run(network, key, 5, x, y, far, 20, loss=loss, optimizer=optimizer, snapshots=[0, 7, 20], **quiet)
    np.testing.assert_allclose(f[:, 2], expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(f[:, 0], predict(network, params, far), rtol=1e-9, atol=1e-11)
    early = train(network, params, x, y, 7, loss=loss, optimizer=optimizer)
    np.testing.assert_allclose(f[:, 1], predict(network, early, far), rtol=1e-9, atol=1e-11)


def test_a_member_depends_on_its_number_alone():
    np.testing.assert_array_equal(
        init(network, key, [3], (3, 3))[0][0][0], init(network, key, 5, (3, 3))[0][0][3]
    )
    assert (init(network, key, 2, (3, 3))[0][0][0] != init(network, key, 2, (3, 3))[0][0][1]).any()
    options = dict(optimizer=optax.adam(1e-2), batch_size=5, augment=augment_by(on_lattices(cyclic(4))))
    many = run(network, key, 37, x, y, far, 15, **options, **quiet)
    for members in (1, 3):
        few = run(network, key, members, x, y, far, 15, **options, **quiet)
        np.testing.assert_array_equal(few, many[:members])


def test_every_epoch_shows_each_example_once_in_another_order_for_each_member(single):
    seen = []

    def record(key, x, y):
        jax.debug.callback(lambda batch: seen.append(np.asarray(batch)), y)
        return x, y

    labels = jnp.arange(10.0)
    params = init(mlp(2), key, 2, (1,))
    options = dict(learning_rate=1e-4, batch_size=3, augment=record, key=key)
    train(mlp(2), params, labels[:, None], labels, 9, **options)
    jax.effects_barrier()
    epochs = np.array(seen, dtype=int).reshape(6, 9)  # three of each member, nine of the ten labels
    assert all(len(set(epoch)) == 9 for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 6


def test_augmentation_moves_inputs_and_labels_by_the_same_uniform_element():
    vectors = on_vectors(cyclic(5))
    augment = augment_by(vectors, vectors)
    batch = jnp.tile(jnp.array([[[3.0, 4.0]]]), (4000, 1, 1))
    moved, labels = augment(key, batch, 2 * batch[:, 0])
    np.testing.assert_allclose(labels, 2 * moved[:, 0], atol=1e-12)
    angles = jnp.round(
        (jnp.arctan2(moved[:, 0, 1], moved[:, 0, 0]) - jnp.arctan2(4.0, 3.0)) * 5 / (2 * jnp.pi)
    )
    counts = np.bincount(np.asarray(angles).astype(int) % 5, minlength=5)
    assert (np.abs(counts - 800) < 4 * (4000 * 0.2 * 0.8) ** 0.5).all()
    still = augment_by(on_lattices(cyclic(4)))(key, x, y)[1]
    np.testing.assert_array_equal(still, y)


def test_training_with_augmentation_on_the_fly_learns_the_symmetry():
    images = jax.random.normal(jax.random.key(2), (30, 6, 6, 1))
    small = cnn([8], 3, 1)
    turned = jnp.rot90(images, axes=(1, 2))
    apart = {}
    for name, augment in {"plain": None, "augmented": augment_by(on_images(cyclic(4)))}.items():
        options = dict(optimizer=optax.adam(1e-2), batch_size=15, augment=augment)
        f = run(
            small,
            key,
            8,
            images,
            images[:, 0, 0, 0],
            jnp.concatenate([images, turned]),
            300,
            **options,
            **quiet,
        )
        apart[name] = np.abs(f[:, 0, :30] - f[:, 0, 30:]).mean()
    assert apart["augmented"] < apart["plain"] / 2, apart


@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
def test_largest_step_is_where_the_fastest_mode_arrives_at_once(loss):
    wide = mlp(2048, 1, outputs=2 if loss == "cross-entropy" else None)
    infinite = len(x) / float(jnp.linalg.eigvalsh(wide.kernel(x, x).ntk)[-1])
    step = largest_step(wide, key, x, loss)
    assert abs(step / infinite / (2 if loss == "cross-entropy" else 1) - 1) < 0.1


def test_too_large_a_step_warns_and_then_names_the_member_that_diverged():
    step = largest_step(network, jax.random.key(0), x)  # what train and run ask, whatever their key
    with pytest.warns(UserWarning, match=r"does not follow gradient flow.*largest_step"):
        run(network, key, 2, x, y, far, 3, learning_rate=1.5 * step, **quiet)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(network, key, 2, x, y, far, 3, learning_rate=0.9 * step, **quiet)
    with (
        pytest.warns(UserWarning),
        pytest.raises(
            FloatingPointError, match=r"member \d+ is not finite at step \d+\. Reduce learning_rate"
        ),
    ):
        run(network, key, 3, x, y, far, 4000, learning_rate=1000 * step, **quiet)
    with pytest.raises(FloatingPointError, match="Reduce the optimizer's learning rate"):
        train(network, init(network, key, 2, (3, 3)), x, y, 4000, optimizer=optax.sgd(1000 * step))


def test_the_first_step_that_is_not_finite_is_named():
    # a label whose square overflows: for every member at step 0
    with pytest.raises(FloatingPointError, match=r"loss of member 0 is not finite at step 0\."):
        run(network, key, 2, x, y.at[0].set(1e200), far, 5, learning_rate=1e-3, **quiet)


def test_trained_ensembles_have_the_mean_and_covariance_of_gradient_flow():
    wide = mlp(512, 1, W_std=2**0.5, b_std=0.3)
    f, mean, covariance = wide_ensemble(wide, 500)
    z = (f.mean(0) - mean) / np.sqrt(np.diag(covariance) / len(f))
    assert np.abs(z).max() < 4, z
    error = np.sqrt((np.outer(*[np.diag(covariance)] * 2) + covariance**2) / (len(f) - 1))
    z = (np.cov(f.T) - covariance) / error
    assert np.abs(z).max() < 4, z


def wide_ensemble(network, members):
    """Predictions after training, and what the closed form says of them."""
    eta, steps = 0.06, 150  # a tenth of the largest step at infinite width, rounded
    inputs, points = (jax.random.normal(jax.random.key(i), (n, 4)) for i, n in ((0, 8), (1, 6)))
    labels = inputs[:, 0] * inputs[:, 1]
    f = run(
        network, key, members, inputs, labels, points, steps, learning_rate=eta, dtype=jnp.float32, **quiet
    )
    flow = GradientFlow(network.kernel, inputs, labels)
    return f[:, 0].astype(float), flow.mean(points, eta * steps), flow.covariance(points, eta * steps)


@pytest.mark.slow
def test_the_bias_of_finite_width_falls_as_one_over_the_width():
    widths, bias, error = [16, 32, 64, 128], [], []
    for width in widths:
        f, _, covariance = wide_ensemble(mlp(width, 1, W_std=2**0.5, b_std=0.3), 8000)
        relative = ((f - f.mean(0)) ** 2 / np.diag(covariance)).mean(1) - 1  # one number for each member
        bias.append(relative.mean())
        error.append(relative.std() / len(f) ** 0.5)
    bias, error = -np.array(bias), np.array(error)
    assert (bias[:3] > 5 * error[:3]).all(), (bias, error)  # variances come out too small
    (slope, _), covariance = np.polyfit(np.log(widths), np.log(bias), 1, w=bias / error, cov="unscaled")
    uncertain = covariance[0, 0] ** 0.5
    print(f"variance {-bias.round(3)} ± {error.round(3)} of the limit's: slope {slope:.2f} ± {uncertain:.2f}")
    assert abs(slope + 1) < 4 * uncertain and uncertain < 0.2


# What the folder of a long run does


def stored(folder, members=11, resume=False, **options):
    settings = dict(learning_rate=0.05, save_every=0.0, folder=folder, resume=resume, **quiet)
    return run(mlp(64), key, members, x, y, far, 5, **settings | options)


def test_a_run_is_stored_resumed_and_extended_without_changing_a_bit(tmp_path, single):
    whole = run(mlp(64), key, 11, x, y, far, 5, learning_rate=0.05, **quiet)
    np.testing.assert_array_equal(stored(tmp_path / "run", members=4), whole[:4])
    assert len(list((tmp_path / "run").glob("members-*.npz"))) == 4
    np.testing.assert_array_equal(stored(tmp_path / "run", resume=True), whole)
    (chunk, *_) = sorted((tmp_path / "run").glob("members-*.npz"))
    chunk.unlink()
    np.testing.assert_array_equal(stored(tmp_path / "run", resume=True), whole)
    np.testing.assert_array_equal(stored(tmp_path / "run", members=3, resume=True), whole[:3])
    np.testing.assert_array_equal(stored(tmp_path / "new", resume=True), whole)  # nothing there to go on with


def test_resuming_trains_nothing_twice(tmp_path, single, monkeypatch):
    stored(tmp_path, members=5)
    computed = []
    original = ensembles.on_devices
    counted = lambda *args: (lambda f: lambda indices: computed.extend(indices) or f(indices))(
        original(*args)
    )
    monkeypatch.setattr(ensembles, "on_devices", counted)
    stored(tmp_path, members=7, resume=True)
    assert computed == [5, 6]


@pytest.mark.parametrize("reason", [KeyboardInterrupt, FloatingPointError])
def test_what_is_finished_is_stored_when_the_run_ends_early(tmp_path, single, monkeypatch, reason):
    original = ensembles.on_devices

    def ends_early(*arguments):
        compute = original(*arguments)

        def some(indices):
            if 3 in indices:
                raise reason
            return compute(indices)

        return some

    with monkeypatch.context() as patch:
        patch.setattr(ensembles, "on_devices", ends_early)
        with pytest.raises(reason):
            stored(tmp_path, save_every=1e6)
    (chunk,) = tmp_path.glob("members-*.npz")
    assert np.load(chunk)["members"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(stored(tmp_path, resume=True), stored(None))


def test_a_folder_in_use_or_of_another_configuration_is_refused(tmp_path):
    stored(tmp_path)
    with pytest.raises(FileExistsError, match=r"holds a run already.*resume=True"):
        stored(tmp_path)
    with pytest.raises(
        ValueError, match=r"another configuration.*\n  learning_rate: 0\.05 there, 0\.04 now$"
    ):
        stored(tmp_path, resume=True, learning_rate=0.04)
    with pytest.raises(
        ValueError, match=r"  program \(network, loss, optimizer, augmentation\): \w+ there, \w+ now$"
    ):
        stored(tmp_path, resume=True, augment=augment_by(on_lattices(cyclic(4))))
    with pytest.raises(ValueError, match=r"  snapshots: \[5\] there, \[2, 5\] now$"):
        stored(tmp_path, resume=True, snapshots=[2, 5])
    for change in ("network", "key", "x", "y", "x_test"):
        settings = dict(network=mlp(64), key=key, members=11, x=x, y=y, x_test=far, steps=5)
        other = {"network": mlp(65), "key": jax.random.key(6), "x": 2 * x, "y": 2 * y, "x_test": 2 * far}
        settings[change] = other[change]
        with pytest.raises(ValueError, match=rf"another configuration.*\n  {change}: "):
            run(**settings, learning_rate=0.05, folder=tmp_path, resume=True, **quiet)
    np.testing.assert_array_equal(stored(tmp_path, resume=True), stored(None))  # nothing was lost by all that


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_chunks_without_their_configuration_are_not_taken_for_ours(tmp_path, damage):
    stored(tmp_path)
    configuration = tmp_path / "configuration.json"
    content = configuration.read_bytes()
    configuration.unlink()
    if damage == "truncated":
        configuration.write_bytes(content[:-20])
    with pytest.raises(ValueError, match=r"configuration\.json is damaged or missing.*another folder"):
        stored(tmp_path, resume=True)


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_chunk_is_found_and_named(tmp_path, damage):
    stored(tmp_path, save_every=30.0)
    (chunk,) = tmp_path.glob("members-*.npz")
    content = bytearray(chunk.read_bytes())
    if damage == "altered":
        content[len(content) // 2] ^= 1
    chunk.write_bytes(content[:-100] if damage == "truncated" else content)
    with pytest.raises(ValueError, match=rf"{chunk.name} is truncated or was altered.*Delete that file"):
        stored(tmp_path, resume=True)
    chunk.unlink()
    np.testing.assert_array_equal(stored(tmp_path, resume=True), stored(None))


def test_a_chunk_that_cannot_be_written_is_an_error_and_finished_ones_stay(tmp_path, single, monkeypatch):
    real, calls = os.fsync, []

    def full_disk(descriptor):
        calls.append(descriptor)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match=r"cannot write members-\d+.*No space left.*resume=True"):
            stored(tmp_path)
    assert len(list(tmp_path.glob("members-*.npz"))) == 2 and not list(tmp_path.glob(".*part"))
    np.testing.assert_array_equal(stored(tmp_path, resume=True), stored(None))


PROGRAM = """
import json, sys
import jax
settings = json.loads(sys.argv[1])
jax.config.update("jax_num_cpu_devices", settings["devices"])
if "process" in settings:
    jax.distributed.initialize(settings["address"], settings["processes"], settings["process"])
import jax.numpy as jnp
import numpy as np
import optax
from nteq import _training, ensembles
from nteq.actions import on_images
from nteq.groups import cyclic
from nteq.networks import cnn
assert jax.device_count() == settings["devices"] * settings.get("processes", 1)
x = jnp.asarray(np.random.default_rng(0).normal(size=(24, 8, 8, 1)))
f = ensembles.run(
    cnn([4, 4], 3, [2, 1], outputs=3), jax.random.key(5), 11, x, np.arange(24) % 3, x[:5], 12,
    loss="cross-entropy", optimizer=optax.adam(1e-2), batch_size=8, snapshots=[3, 12],
    augment=ensembles.augment_by(on_images(cyclic(8))), folder=settings["folder"], save_every=0.0,
    progress=False,
)
np.save(settings["out"], f)
"""


def start(**settings):
    command = [sys.executable, "-c", PROGRAM, json.dumps(settings)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


@pytest.mark.slow
def test_four_devices_and_two_processes_give_the_members_of_one_device(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    finish(start(devices=1, folder=str(tmp_path / "one"), out=str(tmp_path / "one.npy")))
    finish(start(devices=4, folder=str(tmp_path / "four"), out=str(tmp_path / "four.npy")))
    both = dict(devices=1, folder=str(tmp_path / "two"), processes=2, address=address)
    running = [start(**both, process=i, out=str(tmp_path / f"process{i}.npy")) for i in range(2)]
    for process in running:
        finish(process)
    expected = np.load(tmp_path / "one.npy")
    assert expected.shape == (11, 2, 5, 3) and len(np.unique(expected[:, 1, 0, 0])) == 11
    for other in ("four", "process0", "process1"):
        np.testing.assert_array_equal(np.load(tmp_path / f"{other}.npy"), expected)


# What a member depends on: its number and the key, and nothing else

IMPLEMENTATIONS = ["threefry2x32", "rbg", "unsafe_rbg"]
shuffling = dict(learning_rate=0.05, batch_size=5, augment=augment_by(on_lattices(cyclic(4))))


@pytest.mark.parametrize("given", ["as a key", "as the default"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_with_any_generator_a_member_depends_on_its_number_alone(implementation, given):
    before = jax.config.jax_default_prng_impl
    try:
        if given == "as the default":
            jax.config.update("jax_default_prng_impl", implementation)
            own = jax.random.PRNGKey(7)  # the old kind of key, too
        else:
            own = jax.random.key(7, impl=implementation)
        small = mlp(4)
        many, alone = (init(small, own, members, (3, 3)) for members in (10, [5]))
        np.testing.assert_array_equal(many[0][0][5], alone[0][0][0])
        assert len(np.unique(np.asarray(many[0][0]))) == many[0][0].size  # and no two draw the same
        whole, few = (run(small, own, count, x, y, far, 6, **shuffling, **quiet) for count in (20, 10))
        np.testing.assert_array_equal(whole[:10], few)
    finally:
        jax.config.update("jax_default_prng_impl", before)


def test_the_streams_of_the_default_generator_stay_what_they_were():
    for i in (0, 3):
        expected = network.init(jax.random.split(jax.random.fold_in(key, i))[0], (3, 3))
        found = init(network, key, [i], (3, 3))
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b), found, expected)
    old_kind = init(network, jax.random.PRNGKey(5), [3], (3, 3))
    np.testing.assert_array_equal(old_kind[0][0], found[0][0])


def test_batches_and_augmentation_draw_from_the_keys_that_are_documented_and_not_from_the_same(single):
    seen = []

    def record(key, x, y):
        batch = jax.random.key_data(key), y
        jax.debug.callback(lambda *batch: seen.append(tuple(map(np.asarray, batch))), *batch)
        return x, y

    labels = jnp.arange(10.0)
    params = init(mlp(2), key, 2, (1,))
    options = dict(learning_rate=1e-4, batch_size=3, augment=record, key=key)
    train(mlp(2), params, labels[:, None], labels, 7, **options)
    jax.effects_barrier()
    expected = []
    for member in (0, 1):
        own = jax.random.split(jax.random.fold_in(key, member))[1]
        for number in range(7):
            epoch, place = divmod(number, 3)
            order = jax.random.permutation(jax.random.fold_in(own, 3 * epoch), 10)
            drawn = jax.random.fold_in(jax.random.fold_in(own, number), 1)
            expected.append((jax.random.key_data(drawn), labels[order[3 * place : 3 * place + 3]]))
    assert len(seen) == len(expected)
    for (key_found, y_found), (key_expected, y_expected) in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(y_found, y_expected)
        np.testing.assert_array_equal(key_found, key_expected)


def test_two_keys_give_two_ensembles_and_decide_nothing_where_nothing_is_drawn(tmp_path):
    one, two = (run(network, k, 3, x, y, far, 6, **shuffling, **quiet) for k in (key, jax.random.key(6)))
    assert np.abs(one - two).max() > 1e-2
    params = init(network, key, 2, (3, 3))
    draws = {k: train(network, params, x, y, 6, key=jax.random.key(k), **shuffling)[0][0] for k in (5, 6)}
    assert jnp.abs(draws[5] - draws[6]).max() > 1e-4
    # the default learning rate was that of a network drawn with the key: 0.16 to 0.24 over four of them
    full = [train(network, params, x, y, 3, key=k)[0][0] for k in (None, *jax.random.split(key, 4))]
    for other in full[1:]:
        np.testing.assert_array_equal(other, full[0])
    expected = float(f"{largest_step(network, jax.random.key(0), x) / 10:.2g}")
    np.testing.assert_array_equal(train(network, params, x, y, 3, learning_rate=expected)[0][0], full[0])
    for k in (5, 6):
        run(network, jax.random.key(k), 1, x, y, far, 3, folder=tmp_path / str(k), **quiet)
        stored_as = json.loads((tmp_path / str(k) / "configuration.json").read_text())
        assert stored_as["learning_rate"] == repr(expected)


# Networks of one's own, compiled once


def of_ones_own(shift):
    """A network whose functions differ from those of the next in the shift alone."""
    inner = mlp(4)
    return Network(inner.init, lambda params, x: inner.apply(params, x) + shift)


def test_an_edited_network_is_not_taken_for_the_one_before(tmp_path):
    params = init(of_ones_own(0.0), key, 2, (3, 3))
    zero, far_off = (predict(of_ones_own(shift), params, far) for shift in (0.0, 100.0))
    np.testing.assert_allclose(far_off - zero, 100, rtol=1e-9)
    ends = [train(of_ones_own(shift), params, x, y, 3, learning_rate=0.05)[0][0] for shift in (0.0, 100.0)]
    assert jnp.abs(ends[0] - ends[1]).max() > 0.1
    starts = [
        run(of_ones_own(shift), key, 2, x, y, far, 3, learning_rate=0.05, snapshots=[0], **quiet)
        for shift in (0.0, 100.0)
    ]
    np.testing.assert_allclose(starts[1] - starts[0], 100, rtol=1e-9)
    scaled = Network(mlp(4).init, lambda params, x: 10 * mlp(4).apply(params, x))
    ratio = largest_step(mlp(4), key, x) / largest_step(scaled, key, x)
    assert abs(ratio - 100) < 1e-6


@pytest.mark.parametrize("part", ["apply", "init", "loss"])
def test_a_run_is_not_resumed_with_another_function_of_the_same_name(tmp_path, part):
    def settings(shift):
        inner = mlp(4)
        network = Network(
            lambda key, shape, dtype=None: (
                inner.init(key, shape, dtype)
                if shift == 0 or part != "init"
                else jax.tree.map(lambda leaf: 2 * leaf, inner.init(key, shape, dtype))
            ),
            lambda params, x: inner.apply(params, x) + (shift if part == "apply" else 0),
        )
        loss = lambda f, y: ((f - y) ** 2).mean() * (1 + (shift if part == "loss" else 0))
        return dict(network=network, loss=loss)

    def stored(shift, resume=False):
        options = dict(learning_rate=0.05, folder=tmp_path, resume=resume, **quiet)
        given = settings(shift)
        return run(given.pop("network"), key, 2, x, y, far, 3, **given, **options)

    f = stored(0.0)
    with pytest.raises(ValueError, match=r"another configuration.*\n  program \(network, loss"):
        stored(1.0, resume=True)
    np.testing.assert_array_equal(stored(0.0, resume=True), f)  # made anew, and the same


def test_a_second_training_of_the_same_kind_compiles_nothing(compilations, tmp_path):
    adam = optax.adam(1e-2)

    def everything(number):
        own, data = jax.random.key(number), (x + number, y * 2)
        net = mlp(5, b_std=0.1)  # made anew, and equal
        params = init(net, own, 3, (3, 3))
        plain = train(net, params, *data, 4, learning_rate=0.01 * (1 + number))
        train(net, params, *data, 4, optimizer=adam, batch_size=5, key=own)
        predict(net, plain, far, batch_size=4)
        largest_step(net, own, x)
        options = dict(folder=tmp_path / str(number), snapshots=[0, 4], **quiet)
        run(net, own, 3, *data, far, 4, learning_rate=0.01 * (1 + number), **options)

    assert compilations(lambda: everything(0)) > 5  # the count counts
    assert compilations(lambda: everything(1)) == 0


# Losses, optimisers and labels


def test_a_loss_may_be_a_function():
    mean_square = lambda f, y: jnp.sum((f - y) ** 2) / (2 * len(f))
    params = init(network, key, 3, (3, 3))
    ours, own = (
        train(network, params, x, y, 9, learning_rate=0.05, loss=l) for l in ("squared", mean_square)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), ours, own)
    # labels of any kind: pairs of a class and a weight, and classes
    three = mlp(4, outputs=3)
    pairs = jnp.stack([jnp.arange(12) % 3, jnp.linspace(0.1, 2, 12)], 1)
    weighted = lambda f, y: -(jax.nn.log_softmax(f) * jax.nn.one_hot(y[:, 0], 3)).sum(1) @ y[:, 1] / len(f)
    params = init(three, key, 2, (3, 3))
    trained = train(three, params, x, pairs, 40, loss=weighted, optimizer=optax.adam(1e-1))
    of = lambda params: jax.vmap(lambda p: weighted(three.apply(p, x), pairs))(params)
    assert (of(trained) < of(params) / 3).all()
    classes = lambda f, y: -jnp.take_along_axis(jax.nn.log_softmax(f), y[:, None], 1).mean()
    one, other = (
        train(three, params, x, np.arange(12) % 3, 5, loss=loss, learning_rate=0.1)
        for loss in (classes, "cross-entropy")
    )
    np.testing.assert_allclose(one[0][0], other[0][0], rtol=1e-10)


OPTIMISERS = {
    "lbfgs": optax.lbfgs,
    "reduce_on_plateau": lambda: optax.chain(
        optax.sgd(0.05), optax.contrib.reduce_on_plateau(patience=2, rtol=0.5)
    ),
}


@pytest.mark.parametrize("name", ["reduce_on_plateau", pytest.param("lbfgs", marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [pytest.param(jnp.float32, marks=pytest.mark.slow), jnp.float64])
def test_optimisers_that_look_at_the_loss_train_each_member_as_they_would_alone(name, dtype):
    optimizer = OPTIMISERS[name]()
    f = run(network, key, 3, x, y, far, 6, optimizer=optimizer, dtype=dtype, **quiet)
    if dtype == jnp.float32:
        assert np.isfinite(f).all()
        return
    for i in range(3):
        params = network.init(jax.random.split(jax.random.fold_in(key, i))[0], (3, 3))
        loss = lambda p: squared(network.apply(p, x), y)
        state = optimizer.init(params)
        step = jax.jit(optimizer.update, static_argnames="value_fn")
        for _ in range(6):
            value, gradient = jax.value_and_grad(loss)(params)
            extra = dict(value=value, grad=gradient, value_fn=loss)
            updates, state = step(gradient, state, params, **extra)
            params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(f[i, 0], network.apply(params, far), rtol=1e-6, atol=1e-8)


def test_labels_beyond_32_bits_keep_their_value_or_are_refused():
    large = np.array([1, 2, 3_000_000_000])
    with jax.enable_x64(False):
        inputs = jnp.eye(3)
        line = Network(lambda key, shape, dtype=None: jnp.zeros(shape, dtype), lambda w, x: x @ w)
        params = init(line, key, 1, (3,))
        trained = train(line, params, inputs, large, 1, learning_rate=3.0)
        np.testing.assert_allclose(trained[0], large, rtol=1e-6)
        with pytest.raises(ValueError, match=r"classes from 0 to 2, got values from 1 to 3000000000"):
            train(classifier, init(classifier, key, 1, (3,)), inputs, large, 1, loss="cross-entropy")
        with pytest.raises(ValueError, match=r"y has integers beyond int32\. Use jax\.config"):
            own = lambda f, y: ((f - y) ** 2).mean()
            train(line, params, inputs, large, 1, loss=own, learning_rate=1.0)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_stored_and_read_as_such(tmp_path, dtype):
    f = stored(tmp_path, members=2, dtype=dtype)
    assert f.dtype == dtype
    again = stored(tmp_path, members=3, dtype=dtype, resume=True)
    assert again.dtype == dtype
    np.testing.assert_array_equal(again[:2], f)
    np.testing.assert_array_equal(again, stored(None, members=3, dtype=dtype))


def test_a_folder_may_be_given_from_home_on(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    stored("~/of a run", members=1)
    assert (tmp_path / "of a run" / "configuration.json").exists() and not (tmp_path / "~").exists()


@pytest.mark.slow
def test_blocks_and_batches_that_do_not_divide_change_nothing(monkeypatch):
    def everything():
        params = init(network, key, 7, (3, 3))
        trained = train(network, params, x, y, 6, **shuffling, key=key)
        f = run(
            network, key, 7, x, y, far, 6, snapshots=[0, 2, 6], predict_batch_size=4, **shuffling, **quiet
        )
        return np.asarray(predict(network, trained, far)), f

    expected, f_expected = everything()
    np.testing.assert_allclose(f_expected[:, 2], expected, rtol=1e-9, atol=1e-11)
    for block in (2, 4):  # of 7 members: the last ones are 1 and 3
        monkeypatch.setattr(_training, "CACHE", (2**30, block))
        found, f = everything()
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(f, f_expected, rtol=1e-9, atol=1e-11)
    trained = train(network, init(network, key, 7, (3, 3)), x, y, 6, **shuffling, key=key)
    for size in (1, 3, 7, 20):  # of 7 inputs
        np.testing.assert_allclose(predict(network, trained, far, size), expected, rtol=1e-9, atol=1e-11)


def test_the_block_is_that_of_the_device_that_computes(monkeypatch):
    ask = lambda platform: _training.prepare(
        "run", network, x, y, 5, 0.05, "squared", None, None, None, jnp.float32, platform
    )
    assert ask("cpu").block == 8 and ask("gpu").block > 64
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # a GPU beside the processor that computes
    given = []
    original = _training.prepare
    monkeypatch.setattr(_training, "prepare", lambda *a: given.append(original(*a)) or given[-1])
    run(network, key, 1, x, y, far, 1, learning_rate=0.05, devices=jax.devices("cpu"), **quiet)
    train(network, init(network, key, 1, (3, 3)), x, y, 1, learning_rate=0.05)
    assert [training.platform for training in given] == ["cpu", "cpu"]


def test_augmentations_of_equal_actions_are_equal():
    turn = on_lattices(cyclic(4))
    assert augment_by(turn) == augment_by(turn) and hash(augment_by(turn)) == hash(augment_by(turn))
    assert augment_by(turn) != augment_by(on_lattices(cyclic(2)))


def test_known_data_may_be_used_inside_of_a_trace_and_learning_rates_may_be_mapped_over():
    params = init(network, key, 2, (3, 3))
    expected = predict(network, train(network, params, x, y, 3, learning_rate=0.05), far)
    traced = jax.jit(lambda p: predict(network, train(network, p, x, y, 3, learning_rate=0.05), far))(params)
    np.testing.assert_allclose(traced, expected, rtol=1e-10)
    single = x.astype(jnp.float32)
    default = jax.jit(lambda p: train(network, p, single, y, 3))(params)[0][0]
    np.testing.assert_allclose(default, train(network, params, single, y, 3)[0][0], rtol=1e-10)
    assert jax.jit(lambda w: w * largest_step(network, key, x))(1.0) == largest_step(network, key, x)
    of_rate = lambda rate: predict(network, train(network, params, x, y, 3, learning_rate=rate), far)
    np.testing.assert_allclose(jax.vmap(of_rate)(jnp.array([0.01, 0.05]))[1], expected, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("x64", [False, True])
def test_training_works_where_jax_promotes_neither_types_nor_ranks_and_looks_for_nan(x64):
    with (
        jax.enable_x64(x64),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_nans(True),
    ):
        options = dict(batch_size=5, optimizer=optax.adam(1e-2), **quiet)
        pixels = np.arange(12 * 9).reshape(12, 3, 3).astype(np.uint8)
        f = run(network, key, 2, pixels, np.arange(12) % 2 == 0, pixels, 3, **options)
        g = run(classifier, key, 2, pixels, np.arange(12) % 3, pixels, 3, loss="cross-entropy", **options)
        assert f.shape == (2, 1, 12) and g.shape == (2, 1, 12, 3)
        single = jnp.asarray(pixels, jnp.float32)
        params = init(network, key, 2, (3, 3))
        train(network, params, single, single[:, 0, 0], 2)
        half = init(network, key, 2, (3, 3), jnp.bfloat16)
        assert (
            predict(network, train(network, half, single, single[:, 0, 0], 2), pixels).dtype == jnp.bfloat16
        )


params = init(network, key, 2, (3, 3))
classifier = mlp(4, outputs=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: init(network, key, 0, (3, 3)), r"members must be an integer of at least 1, got 0"),
        (lambda: init(network, key, [], (3, 3)), r"members must be indices"),
        (lambda: init(network, key, [-1], (3, 3)), r"members must be indices"),
        (lambda: run(network, key, 0, x, y, far, 5), r"members must be an integer of at least 1, got 0"),
        (lambda: run(network.apply, key, 1, x, y, far, 5), r"network must be an nteq\.networks\.Network"),
        (lambda: run(network, key, 1, x, y, far, 0), r"steps must be an integer of at least 1, got 0"),
        (lambda: run(network, key, 1, x, y[:5], far, 5), r"y must have shape \(12,\).*got shape \(5,\)"),
        (lambda: run(network, key, 1, x, y.at[0].set(jnp.nan), far, 5), r"y has entries that are not finite"),
        (lambda: run(network, key, 1, x.at[0].set(jnp.nan), y, far, 5), r"x has entries that are not finite"),
        (lambda: run(network, key, 1, x, y, far[:, :2], 5), r"x_test must have features \(3, 3\)"),
        (lambda: run(network, key, 1, x, y, far[:0], 5), r"x_test must be a batch of shape"),
        (lambda: run(network, key, 1, x, y, far, 5, snapshots=[3, 3]), r"snapshots must increase"),
        (lambda: run(network, key, 1, x, y, far, 5, snapshots=[6]), r"snapshots must increase.*at most 5"),
        (lambda: run(network, key, 1, x, y, far, 5, snapshots=[]), r"snapshots must increase"),
        (lambda: run(network, key, 1, x, y, far, 5, learning_rate=-1.0), r"learning_rate must be positive"),
        (
            lambda: run(network, key, 1, x, y, far, 5, batch_size=13),
            r"batch_size must be at most 12, got 13\. That is the number of ex",
        ),
        (lambda: run(network, key, 1, x, y, far, 5, batch_size=0), r"batch_size must be an integer"),
        (
            lambda: run(network, key, 1, x, y, far, 5, loss="mse"),
            r"loss must be 'squared' or 'cross-entropy'",
        ),
        (lambda: run(network, key, 1, x, y, far, 5, optimizer="adam"), r"optimizer must be an optax"),
        (
            lambda: run(network, key, 1, x, y, far, 5, optimizer=optax.sgd(1.0), learning_rate=1.0),
            r"a learning_rate or an optimizer, not both",
        ),
        (
            lambda: run(network, key, 1, x, jnp.arange(12), far, 5, loss="cross-entropy"),
            r"needs a network with an output for each class",
        ),
        (lambda: run(classifier, key, 1, x, y, far, 5, loss="cross-entropy"), r"y must be 12 integers"),
        (
            lambda: run(classifier, key, 1, x, jnp.arange(12), far, 5, loss="cross-entropy"),
            r"classes from 0 to 2, got values from 0 to 11\. Give the network outputs=12",
        ),
        (
            lambda: run(cnn([4, 4]), key, 1, jnp.ones((2, 4, 4, 1)), jnp.ones(2), jnp.ones((2, 4, 4, 1)), 5),
            r"filters of 3 × 3 got 2 × 2 pixels",
        ),
        (lambda: train(network, params, x, y, 5, batch_size=4), r"need a random key"),
        (lambda: predict(network, params, x[:0]), r"x must be a batch of shape"),
        (lambda: predict(network, params, x, batch_size=0), r"batch_size must be an integer"),
        (lambda: largest_step(network, key, x, "hinge"), r"loss must be"),
        (lambda: largest_step(network, key, x, squared), r"loss must be .* choose a learning_rate or an opt"),
        (lambda: jax.jit(lambda x: largest_step(mlp(4), key, x))(x), r"must be known, not traced"),
        (lambda: largest_step(mlp(4), key, 0 * x), r"the gradient of every output is zero"),
        (lambda: largest_step(mlp(4), key, 1e200 * x), r"tangent kernel is not finite\. Scale it down"),
        (lambda: train(mlp(4), init(mlp(4), key, 1, (3, 3)), 0 * x, y, 2), r"zero\. Give a learning_rate"),
        (lambda: run(network, key, 1, x, y, far, 5, loss=squared), r"nothing is known of the curvature"),
        (lambda: run(network, key, 1, x, y[:5], far, 5, loss=squared), r"leading axis of 12 examples"),
        (
            lambda: run(network, key, 1, x, y, far, 5, loss=lambda f, y: (f - y) ** 2, learning_rate=1.0),
            r"loss must make one real number of predictions \(12,\).*Average",
        ),
        (lambda: run(network, key, 1, x, y, far, 5, resume=True), r"resume=True needs a folder"),
        (lambda: run(network, key, 1, x, y, far, 5, devices=[]), r"devices must name at least one"),
        (lambda: run(network, key, 1, x, y, far, 5, predict_batch_size=0), r"predict_batch_size must be an"),
        (lambda: run(network, key, 1, x, y, far, 5, augment=3), r"augment must be a function"),
        (lambda: run(network, key, 1, x, y, far, 5, augment=lambda k, x, y: x), r"augment must keep the sh"),
        (lambda: run(network, key, 1, x, y, far, 5, learning_rate=[0.1]), r"learning_rate must be positive"),
        (lambda: run(network, 5, 1, x, y, far, 5), r"key must be a random key such as jax\.random\.key"),
        (lambda: init(network, jax.random.split(key), 1, (3, 3)), r"key must be one random key, got 2"),
        (lambda: init(network, key, [2**31], (3, 3)), r"members must be indices from 0 to 2147483647"),
        (lambda: init(network, key, 1, 9), r"shape must be that of one input, such as"),
        (lambda: run(network, key, 1, x, y, far, 5.0), r"steps must be an integer of at least 1, got 5\.0"),
        (
            lambda: run(network, key, 1, x, 1e6 * y, far, 5, dtype=jnp.float16),
            r"y has .* float16 cannot hold",
        ),
        (lambda: train(network, [params[0][0][0], params[0][1]], x, y, 5), r"leading axis over members"),
        (
            lambda: run(Network(mlp(4).init, lambda p, x: x.sum()), key, 1, x, y, far, 5),
            r"network\.apply must answer with shape \(n,\)",
        ),
        (lambda: augment_by(on_lattices(cyclic(4)), on_vectors(cyclic(3))), r"must be of one group"),
        (lambda: augment_by(cyclic(4)), r"action must be an nteq\.actions\.Action"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
