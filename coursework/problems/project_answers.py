# Answers to the project's milestones that students may hand in. A wrong one is followed by the words that its test has
# to say.

# %% heat_bath: wrong, "a sign is wrong"
def heat_bath(seed, start, beta, sweeps):
    rng = np.random.default_rng(seed)
    s = np.array(start, dtype=float)
    size = s.shape[1]
    for _ in range(sweeps):
        for i, j in np.ndindex(size, size):
            field = s[:, i - 1, j] + s[:, (i + 1) % size, j] + s[:, i, j - 1] + s[:, i, (j + 1) % size]
            s[:, i, j] = np.where(rng.random(len(s)) < 1 / (1 + np.exp(2 * beta * field)), 1, -1)
    return s


# %% heat_bath: wrong, "half of β"
def heat_bath(seed, start, beta, sweeps):
    rng = np.random.default_rng(seed)
    s = np.array(start, dtype=float)
    size = s.shape[1]
    for _ in range(sweeps):
        for i, j in np.ndindex(size, size):
            field = s[:, i - 1, j] + s[:, (i + 1) % size, j] + s[:, i, j - 1] + s[:, i, (j + 1) % size]
            s[:, i, j] = np.where(rng.random(len(s)) < 1 / (1 + np.exp(-beta * field)), 1, -1)
    return s


# %% heat_bath: wrong, "twice β"
def heat_bath(seed, start, beta, sweeps):
    rng = np.random.default_rng(seed)
    s = np.array(start, dtype=float)
    size = s.shape[1]
    for _ in range(sweeps):
        for i, j in np.ndindex(size, size):
            field = s[:, i - 1, j] + s[:, (i + 1) % size, j] + s[:, i, j - 1] + s[:, i, (j + 1) % size]
            s[:, i, j] = np.where(rng.random(len(s)) < 1 / (1 + np.exp(-4 * beta * field)), 1, -1)
    return s


# %% heat_bath: wrong, "All sites were drawn at the same moment"
def heat_bath(seed, start, beta, sweeps):
    rng = np.random.default_rng(seed)
    s = np.array(start, dtype=float)
    for _ in range(sweeps):
        field = sum(np.roll(s, k, axis) for k in (1, -1) for axis in (1, 2))
        s = np.where(rng.random(s.shape) < 1 / (1 + np.exp(-2 * beta * field)), 1.0, -1.0)
    return s


# %% heat_bath: wrong, "an open boundary"
def heat_bath(seed, start, beta, sweeps):
    rng = np.random.default_rng(seed)
    s = np.array(start, dtype=float)
    size = s.shape[1]
    for _ in range(sweeps):
        for i, j in np.ndindex(size, size):
            field = np.zeros(len(s))
            for a, b in [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]:
                if 0 <= a < size and 0 <= b < size:
                    field += s[:, a, b]
            s[:, i, j] = np.where(rng.random(len(s)) < 1 / (1 + np.exp(-2 * beta * field)), 1, -1)
    return s


# %% heat_bath: wrong, "the chessboard does not close"
def heat_bath(seed, start, beta, sweeps):
    rng = np.random.default_rng(seed)
    s = np.array(start, dtype=float)
    colour = np.indices(s.shape[1:]).sum(0) % 2
    for _ in range(sweeps):
        for c in (0, 1):
            field = sum(np.roll(s, k, axis) for k in (1, -1) for axis in (1, 2))
            new = np.where(rng.random(s.shape) < 1 / (1 + np.exp(-2 * beta * field)), 1.0, -1.0)
            s = np.where(colour == c, new, s)
    return s


# %% heat_bath: wrong, "This is Metropolis"
def heat_bath(seed, start, beta, sweeps):
    rng = np.random.default_rng(seed)
    s = np.array(start, dtype=float)
    size = s.shape[1]
    for _ in range(sweeps):
        for i, j in np.ndindex(size, size):
            field = s[:, i - 1, j] + s[:, (i + 1) % size, j] + s[:, i, j - 1] + s[:, i, (j + 1) % size]
            s[:, i, j] *= np.where(rng.random(len(s)) < np.exp(-2 * beta * s[:, i, j] * field), -1, 1)
    return s


# %% heat_bath: wrong, "does a sweep draw every site anew"
def heat_bath(seed, start, beta, sweeps):
    rng = np.random.default_rng(seed)
    s = np.array(start, dtype=float)
    size = s.shape[1]
    for _ in range(sweeps):
        i, j = rng.integers(0, size, 2)  # one site, not all
        field = s[:, i - 1, j] + s[:, (i + 1) % size, j] + s[:, i, j - 1] + s[:, i, (j + 1) % size]
        s[:, i, j] = np.where(rng.random(len(s)) < 1 / (1 + np.exp(-2 * beta * field)), 1, -1)
    return s


# %% heat_bath: wrong, "are all of them carried out"
def heat_bath(seed, start, beta, sweeps):
    rng = np.random.default_rng(seed)
    s = np.array(start, dtype=float)
    size = s.shape[1]
    for _ in range(sweeps):
        for i, j in np.ndindex(size, size):
            field = s[:, i - 1, j] + s[:, (i + 1) % size, j] + s[:, i, j - 1] + s[:, i, (j + 1) % size]
            s[:, i, j] = np.where(rng.random(len(s)) < 1 / (1 + np.exp(-2 * beta * field)), 1, -1)
        return s  # after the first


# %% heat_bath: wrong, "random numbers of its own"
def heat_bath(seed, start, beta, sweeps):
    rng = np.random.default_rng(seed)
    s = np.array(start, dtype=float)
    size = s.shape[1]
    for _ in range(sweeps):
        for i, j in np.ndindex(size, size):
            field = s[:, i - 1, j] + s[:, (i + 1) % size, j] + s[:, i, j - 1] + s[:, i, (j + 1) % size]
            s[:, i, j] = np.where(rng.random() < 1 / (1 + np.exp(-2 * beta * field)), 1, -1)
    return s


# %% heat_bath: wrong, "other than +1 and -1"
def heat_bath(seed, start, beta, sweeps):
    rng = np.random.default_rng(seed)
    s = np.array(start, dtype=float)
    size = s.shape[1]
    for _ in range(sweeps):
        for i, j in np.ndindex(size, size):
            field = s[:, i - 1, j] + s[:, (i + 1) % size, j] + s[:, i, j - 1] + s[:, i, (j + 1) % size]
            s[:, i, j] = rng.random(len(s)) < 1 / (1 + np.exp(-2 * beta * field))
    return s


# %% heat_bath: right, in JAX with as many colours as the lattice needs
def heat_bath(seed, start, beta, sweeps):
    s = jnp.asarray(start, jnp.float32)
    size = s.shape[1]
    ring = np.arange(size) % 2
    ring[-1] = 2 if size % 2 else 1
    number = 3 if size % 2 else 2
    colours = jnp.asarray((ring[:, None] + ring) % number == np.arange(number)[:, None, None])

    def update(s, key_and_colour):
        key, colour = key_and_colour
        field = sum(jnp.roll(s, k, axis) for k in (1, -1) for axis in (1, 2))
        up = jax.random.uniform(key, s.shape) < jax.nn.sigmoid(2 * beta * field)
        return jnp.where(colour, jnp.where(up, 1.0, -1.0), s), None

    def sweep(s, key):
        return jax.lax.scan(update, s, (jax.random.split(key, number), colours))[0], None

    return jax.lax.scan(sweep, s, jax.random.split(jax.random.key(seed), sweeps))[0]


# %% heat_bath: right, by a table of probabilities and integers, in another order of the sites
def heat_bath(seed, start, beta, sweeps):
    rng = np.random.default_rng(seed)
    s = np.array(start).astype(np.int8)
    size = s.shape[1]
    up = [np.exp(beta * h) / (np.exp(beta * h) + np.exp(-beta * h)) for h in range(-4, 5)]
    for _ in range(sweeps):
        for site in rng.permutation(size * size):
            i, j = divmod(int(site), size)
            field = s[:, (i + 1) % size, j] + s[:, i - 1, j] + s[:, i, (j + 1) % size] + s[:, i, j - 1]
            s[:, i, j] = 2 * (rng.random(len(s)) < np.take(up, field + 4)) - 1
    return s


# %% pool: wrong, "not in equilibrium yet"
pool = heat_bath(1, np.random.default_rng(2).choice([-1.0, 1.0], size=(400, size, size)), beta, 1)


# %% pool: wrong, "remember that they started"
pool = heat_bath(1, np.ones((400, size, size)), beta, 4)


# %% pool: wrong, "lattices of one chain"
chain = [np.ones((1, size, size))]
for k in range(500):
    chain.append(heat_bath(k, chain[-1], beta, 1))
pool = np.concatenate(chain[-400:])


# %% pool: wrong, "expected was (400"
pool = heat_bath(1, np.ones((n_train, size, size)), beta, 300)


# %% pool: wrong, "or have another β"
pool = heat_bath(1, np.random.default_rng(2).choice([-1.0, 1.0], size=(400, size, size)), beta - 0.1, 300)


# %% pool: right, from ordered lattices, with patience
pool = heat_bath(1, np.ones((400, size, size)), beta, 1500)


# %% pool: right, half from ordered and half from random lattices
hot = heat_bath(1, np.random.default_rng(2).choice([-1.0, 1.0], size=(200, size, size)), beta, 1000)
cold = heat_bath(2, np.ones((200, size, size)), beta, 1000)
pool = jnp.concatenate([jnp.asarray(hot), jnp.asarray(cold)])


# %% training_set: wrong, "energies of whole lattices"
def training_set(lattices, turns):
    X = np.concatenate([np.rot90(lattices, k, axes=(1, 2)) for k in turns])
    return X, -(X * (np.roll(X, 1, 1) + np.roll(X, 1, 2))).sum((1, 2))


# %% training_set: wrong, "counted twice"
def training_set(lattices, turns):
    X = np.concatenate([np.rot90(lattices, k, axes=(1, 2)) for k in turns])
    return X, -(X * sum(np.roll(X, k, a) for k in (1, -1) for a in (1, 2))).mean((1, 2))


# %% training_set: wrong, "in another order than the images"
def training_set(lattices, turns):
    X = np.concatenate([np.rot90(lattices, k, axes=(1, 2)) for k in turns])
    return X, np.repeat(energy(lattices), len(turns))


# %% training_set: wrong, "The images of one lattice stand together"
def training_set(lattices, turns):
    X = np.stack([np.rot90(lattices, k, axes=(1, 2)) for k in turns], axis=1).reshape(-1, *lattices.shape[1:])
    return X, np.asarray(energy(X))


# %% training_set: wrong, "turned clockwise"
def training_set(lattices, turns):
    X = np.concatenate([np.rot90(lattices, k, axes=(2, 1)) for k in turns])
    return X, np.asarray(energy(X))


# %% training_set: wrong, "bonds across the boundary"
def training_set(lattices, turns):
    X = np.concatenate([np.rot90(lattices, k, axes=(1, 2)) for k in turns])
    bonds = (X[:, 1:] * X[:, :-1]).sum((1, 2)) + (X[:, :, 1:] * X[:, :, :-1]).sum((1, 2))
    return X, -bonds / X[0].size


# %% training_set: wrong, "equal neighbours have a low energy"
def training_set(lattices, turns):
    X = np.concatenate([np.rot90(lattices, k, axes=(1, 2)) for k in turns])
    return X, (X * (np.roll(X, 1, 1) + np.roll(X, 1, 2))).mean((1, 2))


# %% training_set: right, with nteq
def training_set(lattices, turns):
    images = orbit(rotations, lattices)[jnp.array(turns)]
    return images.reshape(-1, *lattices.shape[1:]), jnp.tile(energy(lattices), len(turns))


# %% training_set: right, with loops in float32
def training_set(lattices, turns):
    X, Y = [], []
    for k in turns:
        for s in np.asarray(lattices, np.float32):
            for _ in range(k):
                s = s.T[::-1]
            n = len(s)
            bonds = sum(s[i, j] * (s[(i + 1) % n, j] + s[i, (j + 1) % n]) for i in range(n) for j in range(n))
            X.append(s)
            Y.append(-bonds / n**2)
    return np.array(X), np.array(Y)


# %% train_ensemble: wrong, "each has to start from its own draw"
def train_ensemble(seed, members, x, y, x_test, width, steps, rate):
    network = architecture(width)
    params = network.init(jax.random.key(seed), x.shape[1:])
    gradient = jax.jit(jax.grad(lambda p: ((network.apply(p, jnp.asarray(x)) - y) ** 2).mean() / 2))
    for _ in range(steps):
        params = jax.tree.map(lambda p, g: p - rate * g, params, gradient(params))
    return jnp.stack([network.apply(params, jnp.asarray(x_test))] * members)

predictions = None


# %% train_ensemble: wrong, "is the 1/2 in the loss missing"
def descend(loss, network, key, steps, rate, x, x_test):
    step = lambda _, p: jax.tree.map(lambda a, g: a - rate * g, p, jax.grad(loss)(p))
    return network.apply(jax.lax.fori_loop(0, steps, step, network.init(key, x.shape[1:])), jnp.asarray(x_test))

def train_ensemble(seed, members, x, y, x_test, width, steps, rate):
    network = architecture(width)
    loss = lambda p: ((network.apply(p, jnp.asarray(x)) - y) ** 2).mean()
    one = lambda key: descend(loss, network, key, steps, rate, x, x_test)
    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), members))

predictions = None


# %% train_ensemble: wrong, "the loss is a mean over the training points"
def descend(loss, network, key, steps, rate, x, x_test):
    step = lambda _, p: jax.tree.map(lambda a, g: a - rate * g, p, jax.grad(loss)(p))
    return network.apply(jax.lax.fori_loop(0, steps, step, network.init(key, x.shape[1:])), jnp.asarray(x_test))

def train_ensemble(seed, members, x, y, x_test, width, steps, rate):
    network = architecture(width)
    loss = lambda p: ((network.apply(p, jnp.asarray(x)) - y) ** 2).sum() / 2
    one = lambda key: descend(loss, network, key, steps, rate, x, x_test)
    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), members))

predictions = None


# %% train_ensemble: wrong, "They took one step only"
def train_ensemble(seed, members, x, y, x_test, width, steps, rate):
    network, key = architecture(width), jax.random.key(seed)
    return ensembles.run(network, key, members, x, y, x_test, 1, learning_rate=rate, progress=False)[:, 0]

predictions = None


# %% train_ensemble: wrong, "those of σ_w = 1 without biases"
def train_ensemble(seed, members, x, y, x_test, width, steps, rate):
    network, key = mlp(width), jax.random.key(seed)
    return ensembles.run(network, key, members, x, y, x_test, steps, learning_rate=rate, progress=False)[:, 0]

predictions = None


# %% train_ensemble: wrong, "the start may depend on nothing but the seed"
calls = []

def train_ensemble(seed, members, x, y, x_test, width, steps, rate):
    calls.append(seed)  # new networks at every call
    network, key = architecture(width), jax.random.key(seed + 100 * len(calls))
    return ensembles.run(network, key, members, x, y, x_test, steps, learning_rate=rate, progress=False)[:, 0]

predictions = None


# %% train_ensemble: wrong, "gave shape"
def train_ensemble(seed, members, x, y, x_test, width, steps, rate):
    network, key = architecture(width), jax.random.key(seed)
    answers = ensembles.run(network, key, members, x, y, x_test, steps, learning_rate=rate, progress=False)
    return answers.mean(0)

predictions = None


# %% train_ensemble: wrong, "the predictions in the order of `asked`"
def train_ensemble(seed, members, x, y, x_test, width, steps, rate):
    network, key = architecture(width), jax.random.key(seed)
    return ensembles.run(network, key, members, x, y, x_test, steps, learning_rate=rate, dtype=jnp.float32,
                         progress=False)[:, 0]

inputs = np.moveaxis(asked, 2, 0).reshape(-1, size, size)  # lattices first
predictions = train_ensemble(seed, members, *training_set(lattices, [0, 1, 2, 3]), inputs, width, steps, rate)
predictions = predictions.reshape(members, 2, 4, n_test)


# %% train_ensemble: wrong, "was trained on the lattices without images"
def train_ensemble(seed, members, x, y, x_test, width, steps, rate):
    network, key = architecture(width), jax.random.key(seed)
    return ensembles.run(network, key, members, x, y, x_test, steps, learning_rate=rate, dtype=jnp.float32,
                         progress=False)[:, 0]

predictions = train_ensemble(seed, members, lattices, energy(lattices), asked.reshape(-1, size, size), width, steps, rate)
predictions = predictions.reshape(members, 2, 4, n_test)


# %% train_ensemble: right, with nteq
def train_ensemble(seed, members, x, y, x_test, width, steps, rate):
    network, key = architecture(width), jax.random.key(seed)
    return ensembles.run(network, key, members, x, y, x_test, steps, learning_rate=rate, dtype=jnp.float32,
                         progress=False)[:, 0]

predictions = train_ensemble(seed + 1, members, *training_set(lattices, [0, 1, 2, 3]), asked.reshape(-1, size, size),
                             width, steps, rate).reshape(members, 2, 4, n_test)


# %% train_ensemble: right, network and gradient written out
def train_ensemble(seed, members, x, y, x_test, width, steps, rate):
    x, y, x_test = (jnp.asarray(a, jnp.float32) for a in (x, y, x_test))
    flat, flat_test = x.reshape(len(x), -1), x_test.reshape(len(x_test), -1)
    d, N = flat.shape[1], len(x)

    def one(key):
        k = jax.random.split(key, 4)
        W, b = jax.random.normal(k[0], (d, width), jnp.float32), jax.random.normal(k[1], (width,), jnp.float32)
        v, c = jax.random.normal(k[2], (width,), jnp.float32), jax.random.normal(k[3], (), jnp.float32)
        s, r = (2 / d) ** 0.5, (2 / width) ** 0.5

        def step(_, p):
            W, b, v, c = p
            h = s * flat @ W + 0.3 * b
            a = jnp.maximum(h, 0)
            wrong = (r * a @ v + 0.3 * c - y) / N
            back = jnp.where(h > 0, wrong[:, None] * (r * v), 0)
            return (W - rate * s * flat.T @ back, b - rate * 0.3 * back.sum(0), v - rate * r * a.T @ wrong,
                    c - rate * 0.3 * wrong.sum())

        W, b, v, c = jax.lax.fori_loop(0, steps, step, (W, b, v, c))
        return r * jnp.maximum(s * flat_test @ W + 0.3 * b, 0) @ v + 0.3 * c

    keys = jax.random.split(jax.random.key(seed), members)
    return jax.jit(lambda k: jax.lax.map(one, k, batch_size=8))(keys)

predictions = train_ensemble(3, members, *training_set(lattices, [0, 1, 2, 3]), asked.reshape(-1, size, size),
                             width, steps, rate).reshape(members, 2, 4, n_test)


# %% relative_std_curve: wrong, "over sub-ensembles, and not over the orbit"
def relative_std_curve(predictions, sizes):
    f = np.asarray(predictions)
    scale = np.sqrt((f.mean((0, 1)) ** 2).mean())
    values = []
    for M in sizes:
        c = len(f) // M
        q = f[: c * M].reshape(c, M, *f.shape[1:]).mean(1).var(0).mean()
        values.append(np.sqrt(q) / scale)
    return np.array(values), np.array(values) / 10

measured = None


# %% relative_std_curve: wrong, "divides by |G|, not by |G| - 1"
def relative_std_curve(predictions, sizes):
    f = np.asarray(predictions)
    scale = np.sqrt((f.mean((0, 1)) ** 2).mean())
    values, errors = [], []
    for M in sizes:
        c = len(f) // M
        q = f[: c * M].reshape(c, M, *f.shape[1:]).mean(1).var(1, ddof=1).mean(1)
        values.append(np.sqrt(q.mean()) / scale)
        errors.append(q.std(ddof=1) / c**0.5 / (2 * np.sqrt(q.mean()) * scale))
    return np.array(values), np.array(errors)

measured = None


# %% relative_std_curve: wrong, "This is a mean of ratios"
def relative_std_curve(predictions, sizes):
    f = np.asarray(predictions)
    values = []
    for M in sizes:
        c = len(f) // M
        means = f[: c * M].reshape(c, M, *f.shape[1:]).mean(1)
        values.append((means.std(1) / np.abs(means.mean(1))).mean())
    return np.array(values), np.array(values) / 10

measured = None


# %% relative_std_curve: wrong, "Average the variances first"
def relative_std_curve(predictions, sizes):
    f = np.asarray(predictions)
    scale = np.sqrt((f.mean((0, 1)) ** 2).mean())
    values = []
    for M in sizes:
        c = len(f) // M
        values.append(f[: c * M].reshape(c, M, *f.shape[1:]).mean(1).std(1).mean() / scale)
    return np.array(values), np.array(values) / 10

measured = None


# %% relative_std_curve: wrong, "the first sub-ensemble only"
def relative_std_curve(predictions, sizes):
    f = np.asarray(predictions)
    scale = np.sqrt((f.mean((0, 1)) ** 2).mean())
    values = np.array([np.sqrt(f[:M].mean(0).var(0).mean()) / scale for M in sizes])
    return values, values / 10

measured = None


# %% relative_std_curve: wrong, "not a mean in which signs cancel"
def relative_std_curve(predictions, sizes):
    f = np.asarray(predictions)
    scale = np.abs(f.mean())
    values = [np.sqrt(f[: len(f) // M * M].reshape(-1, M, *f.shape[1:]).mean(1).var(1).mean()) / scale for M in sizes]
    return np.array(values), np.array(values) / 10

measured = None


# %% relative_std_curve: wrong, "not that of the mean of all"
def relative_std_curve(predictions, sizes):
    f = np.asarray(predictions)
    scale = np.sqrt((f.mean((0, 1)) ** 2).mean())
    values, errors = [], []
    for M in sizes:
        q = f[: len(f) // M * M].reshape(-1, M, *f.shape[1:]).mean(1).var(1).mean(1)
        values.append(np.sqrt(q.mean()) / scale)
        errors.append(q.std(ddof=1) / (2 * np.sqrt(q.mean()) * scale))
    return np.array(values), np.array(errors)

measured = None


# %% relative_std_curve: wrong, "what does it do to the root"
def relative_std_curve(predictions, sizes):
    f = np.asarray(predictions)
    scale = np.sqrt((f.mean((0, 1)) ** 2).mean())
    values, errors = [], []
    for M in sizes:
        q = f[: len(f) // M * M].reshape(-1, M, *f.shape[1:]).mean(1).var(1).mean(1)
        values.append(np.sqrt(q.mean()) / scale)
        errors.append(q.std(ddof=1) / len(q) ** 0.5 / scale**2)
    return np.array(values), np.array(errors)

measured = None


# %% relative_std_curve: wrong, "S belongs to all members together"
def relative_std_curve(predictions, sizes):
    f = np.asarray(predictions)
    values, errors = [], []
    for M in sizes:
        means = f[: len(f) // M * M].reshape(-1, M, *f.shape[1:]).mean(1)
        q, scale = means.var(1).mean(1), np.sqrt((means.mean(1) ** 2).mean())
        values.append(np.sqrt(q.mean()) / scale)
        errors.append(q.std(ddof=1) / len(q) ** 0.5 / (2 * np.sqrt(q.mean()) * scale))
    return np.array(values), np.array(errors)

measured = np.array([relative_std_curve(predictions[:, kind], sizes) for kind in (0, 1)])


# %% relative_std_curve: wrong, "measured has shape"
def relative_std_curve(predictions, sizes):
    f = np.asarray(predictions)
    scale = np.sqrt((f.mean((0, 1)) ** 2).mean())
    values, errors = [], []
    for M in sizes:
        q = f[: len(f) // M * M].reshape(-1, M, *f.shape[1:]).mean(1).var(1).mean(1)
        values.append(np.sqrt(q.mean()) / scale)
        errors.append(q.std(ddof=1) / len(q) ** 0.5 / (2 * np.sqrt(q.mean()) * scale))
    return np.array(values), np.array(errors)

measured = np.array(relative_std_curve(predictions[:, 0], sizes))


# %% relative_std_curve: right, with loops
def relative_std_curve(predictions, sizes):
    f = np.asarray(predictions, float)
    T, G, n = f.shape
    S = np.mean([f[:, :, i].mean() ** 2 for i in range(n)]) ** 0.5
    values, errors = [], []
    for M in sizes:
        q = []
        for j in range(T // M):
            answer = f[j * M : (j + 1) * M].mean(0)
            q.append(np.mean([np.mean((answer[:, i] - answer[:, i].mean()) ** 2) for i in range(n)]))
        Q = np.mean(q)
        error = (np.sum((np.array(q) - Q) ** 2) / (len(q) - 1) / len(q)) ** 0.5
        values.append(Q**0.5 / S)
        errors.append(Q**0.5 / S * error / (2 * Q))
    return values, errors

measured = [relative_std_curve(np.asarray(predictions)[:, kind], sizes) for kind in (0, 1)]


# %% relative_std_curve: right, in JAX and float32
def relative_std_curve(predictions, sizes):
    f = jnp.asarray(predictions, jnp.float32)
    S = jnp.sqrt(jnp.mean(jnp.mean(f, (0, 1)) ** 2))
    values, errors = [], []
    for M in map(int, sizes):
        c = len(f) // M
        means = jnp.mean(f[: c * M].reshape(c, M, *f.shape[1:]), axis=1)
        q = jnp.mean(jnp.mean(means**2, 1) - jnp.mean(means, 1) ** 2, axis=1) if M == 1 else means.var(1).mean(1)
        values.append(jnp.sqrt(q.mean()) / S)
        errors.append(jnp.std(q, ddof=1) / jnp.sqrt(c) / (2 * jnp.sqrt(q.mean()) * S))
    return jnp.stack(values), jnp.stack(errors)

measured = jnp.stack([jnp.stack(relative_std_curve(predictions[:, kind], sizes)) for kind in (0, 1)])


# %% slope_of_batches: wrong, "the slope of the mean square"
def slope_of_batches(predictions, sizes, batches):
    found = [np.polyfit(np.log(sizes), 2 * np.log(relative_std_curve(batch, sizes)[0]), 1)[0]
             for batch in np.split(np.asarray(predictions), batches)]
    return np.mean(found), np.std(found, ddof=1) / batches**0.5

slopes = None


# %% slope_of_batches: wrong, "not that of the mean slope"
def slope_of_batches(predictions, sizes, batches):
    found = [np.polyfit(np.log(sizes), np.log(relative_std_curve(batch, sizes)[0]), 1)[0]
             for batch in np.split(np.asarray(predictions), batches)]
    return np.mean(found), np.std(found, ddof=1)

slopes = None


# %% slope_of_batches: wrong, "divides by their number less one"
def slope_of_batches(predictions, sizes, batches):
    found = [np.polyfit(np.log(sizes), np.log(relative_std_curve(batch, sizes)[0]), 1)[0]
             for batch in np.split(np.asarray(predictions), batches)]
    return np.mean(found), np.std(found) / batches**0.5

slopes = None


# %% slope_of_batches: wrong, "fit one in each batch"
def slope_of_batches(predictions, sizes, batches):
    values, errors = relative_std_curve(predictions, sizes)
    (slope, _), covariance = np.polyfit(np.log(sizes), np.log(values), 1), [[0.01]]
    return slope, covariance[0][0] ** 0.5

slopes = None


# %% slope_of_batches: wrong, "The logarithms have different bases"
def slope_of_batches(predictions, sizes, batches):
    found = [np.polyfit(np.log10(sizes), np.log(relative_std_curve(batch, sizes)[0]), 1)[0]
             for batch in np.split(np.asarray(predictions), batches)]
    return np.mean(found), np.std(found, ddof=1) / batches**0.5

slopes = None


# %% slope_of_batches: wrong, "slopes has shape"
def slope_of_batches(predictions, sizes, batches):
    found = [np.polyfit(np.log(sizes), np.log(relative_std_curve(batch, sizes)[0]), 1)[0]
             for batch in np.split(np.asarray(predictions), batches)]
    return np.mean(found), np.std(found, ddof=1) / batches**0.5

slopes = slope_of_batches(predictions[:, 0], [1, 2, 4, 8], 16)


# %% slope_of_batches: right, by the formula of least squares
def slope_of_batches(predictions, sizes, batches):
    f = np.asarray(predictions, float)
    x = np.log(np.asarray(sizes, float)) - np.log(np.asarray(sizes, float)).mean()
    found = np.array([x @ np.log(relative_std_curve(b, sizes)[0]) / (x @ x) for b in f.reshape(batches, -1, *f.shape[1:])])
    return float(found.mean()), float((((found - found.mean()) ** 2).sum() / (batches - 1) / batches) ** 0.5)

slopes = [slope_of_batches(predictions[:, kind], [1, 2, 4, 8], 16) for kind in (0, 1)]


# %% slope_of_batches: right, with SciPy and another base of both logarithms
def slope_of_batches(predictions, sizes, batches):
    from scipy.stats import linregress, sem
    found = [linregress(np.log2(sizes), np.log2(relative_std_curve(batch, sizes)[0])).slope
             for batch in np.split(np.asarray(predictions), batches)]
    return jnp.asarray([np.mean(found), sem(found)])

slopes = jnp.stack([slope_of_batches(predictions[:, kind], [1, 2, 4, 8], 16) for kind in (0, 1)])


# %% theory_curve: wrong, "The square root is missing"
def theory_curve(lattices, x, sizes, t):
    flow = GradientFlow.augmented(kernel, jnp.asarray(lattices), energy(lattices), rotations)
    return flow.orbit_variance(x, t).mean() / jnp.asarray(sizes) / (flow.mean(x, t) ** 2).mean()

theory = None


# %% theory_curve: wrong, "and its root not as fast"
def theory_curve(lattices, x, sizes, t):
    flow = GradientFlow.augmented(kernel, jnp.asarray(lattices), energy(lattices), rotations)
    return jnp.sqrt(flow.orbit_variance(x, t).mean() / (flow.mean(x, t) ** 2).mean()) / jnp.asarray(sizes)

theory = None


# %% theory_curve: wrong, "This is the variance of a member, and not over the orbit"
def theory_curve(lattices, x, sizes, t):
    flow = GradientFlow.augmented(kernel, jnp.asarray(lattices), energy(lattices), rotations)
    variance = jnp.diagonal(flow.covariance(x, t)).mean()
    return jnp.sqrt(variance / jnp.asarray(sizes) / (flow.mean(x, t) ** 2).mean())

theory = None


# %% theory_curve: wrong, "divided by the energies"
def theory_curve(lattices, x, sizes, t):
    flow = GradientFlow.augmented(kernel, jnp.asarray(lattices), energy(lattices), rotations)
    return jnp.sqrt(flow.orbit_variance(x, t).mean() / jnp.asarray(sizes) / (energy(x) ** 2).mean())

theory = None


# %% theory_curve: wrong, "This is a mean of ratios"
def theory_curve(lattices, x, sizes, t):
    flow = GradientFlow.augmented(kernel, jnp.asarray(lattices), energy(lattices), rotations)
    return (jnp.sqrt(flow.orbit_variance(x, t)) / jnp.abs(flow.mean(x, t))).mean() / jnp.sqrt(jnp.asarray(sizes))

theory = None


# %% theory_curve: wrong, "an ensemble without augmentation"
def theory_curve(lattices, x, sizes, t):
    flow = GradientFlow.augmented(kernel, jnp.asarray(lattices), energy(lattices), rotations)
    plain = GradientFlow(kernel, jnp.asarray(lattices), energy(lattices))
    return jnp.sqrt(flow.orbit_variance(x, t).mean() / jnp.asarray(sizes) / (plain.mean(x, t) ** 2).mean())

theory = None


# %% theory_curve: wrong, "steps times learning rate"
def theory_curve(lattices, x, sizes, t):
    flow = GradientFlow.augmented(kernel, jnp.asarray(lattices), energy(lattices), rotations)
    return jnp.sqrt(flow.orbit_variance(x, t).mean() / jnp.asarray(sizes) / (flow.mean(x, t) ** 2).mean())

theory = np.array([theory_curve(lattices, x, sizes, steps) for x in kinds])


# %% theory_curve: right, from the covariance between an input and its images
def theory_curve(lattices, x, sizes, t):
    flow = GradientFlow.augmented(kernel, jnp.asarray(lattices), energy(lattices), rotations)
    x = jnp.asarray(x)
    over = sum(jnp.diagonal(flow.covariance(x, t, rotations(g, x))) for g in range(4)) / 4
    V = (jnp.diagonal(flow.covariance(x, t)) - over).mean()
    return [float(jnp.sqrt(V / M / (flow.mean(x, t) ** 2).mean())) for M in sizes]

theory = [theory_curve(lattices, x, sizes, t_train) for x in kinds]


# %% theory_curve: right, in NumPy, with all orbits written out
def theory_curve(lattices, x, sizes, t):
    turned = lambda a: np.concatenate([np.rot90(a, k, axes=(1, 2)) for k in range(4)])
    X, everything, n = turned(np.asarray(lattices)), turned(np.asarray(x)), len(x)
    K, ntk = (np.asarray(a) for a in kernel(X, X))
    K_all = np.asarray(kernel(everything, everything).nngp)
    K_x, ntk_x = (np.asarray(a) for a in kernel(everything, X))
    values, V = np.linalg.eigh(ntk)
    small = values < 1e-10 * values[-1]
    phi = np.where(small, t / len(X), -np.expm1(-values * t / len(X)) / np.where(small, 1, values))
    A = ntk_x @ (V * phi) @ V.T
    mu = (A @ np.asarray(energy(X))).reshape(4, n)
    sigma = (K_all + A @ K @ A.T - A @ K_x.T - K_x @ A.T).reshape(4, n, 4, n)
    spread = np.einsum("gigi->i", sigma) / 4 - np.einsum("gihi->i", sigma) / 16
    return (spread.mean() / np.asarray(sizes)) ** 0.5 / (mu[0] ** 2).mean() ** 0.5

theory = np.array([theory_curve(lattices, x, sizes, t_train) for x in kinds])


# %% control_curve: wrong, "the control's curve goes to zero"
def control_curve(lattices, turns, x, sizes, t):
    X, Y = training_set(np.asarray(lattices), turns)
    flow = GradientFlow(kernel, jnp.asarray(X), jnp.asarray(Y))
    images = np.concatenate([np.rot90(x, k, axes=(1, 2)) for k in range(4)])
    mu = np.asarray(flow.mean(images, t)).reshape(4, len(x))
    s = np.asarray(flow.covariance(images, t)).reshape(4, len(x), 4, len(x))
    V = (np.einsum("gigi->i", s) / 4 - np.einsum("gihi->i", s) / 16).mean()
    return np.sqrt(V / np.asarray(sizes, float)) / np.sqrt((mu.mean(0) ** 2).mean())

half = half_measured = half_theory = None


# %% control_curve: wrong, "does not become smaller when members are added"
def control_curve(lattices, turns, x, sizes, t):
    X, Y = training_set(np.asarray(lattices), turns)
    flow = GradientFlow(kernel, jnp.asarray(X), jnp.asarray(Y))
    images = np.concatenate([np.rot90(x, k, axes=(1, 2)) for k in range(4)])
    mu = np.asarray(flow.mean(images, t)).reshape(4, len(x))
    s = np.asarray(flow.covariance(images, t)).reshape(4, len(x), 4, len(x))
    V = (np.einsum("gigi->i", s) / 4 - np.einsum("gihi->i", s) / 16).mean()
    return np.sqrt((mu.var(0).mean() + V) / np.asarray(sizes, float)) / np.sqrt((mu.mean(0) ** 2).mean())

half = half_measured = half_theory = None


# %% control_curve: wrong, "Standard deviations do not add up"
def control_curve(lattices, turns, x, sizes, t):
    X, Y = training_set(np.asarray(lattices), turns)
    flow = GradientFlow(kernel, jnp.asarray(X), jnp.asarray(Y))
    images = np.concatenate([np.rot90(x, k, axes=(1, 2)) for k in range(4)])
    mu = np.asarray(flow.mean(images, t)).reshape(4, len(x))
    s = np.asarray(flow.covariance(images, t)).reshape(4, len(x), 4, len(x))
    V = (np.einsum("gigi->i", s) / 4 - np.einsum("gihi->i", s) / 16).mean()
    return (np.sqrt(mu.var(0).mean()) + np.sqrt(V / np.asarray(sizes, float))) / np.sqrt((mu.mean(0) ** 2).mean())

half = half_measured = half_theory = None


# %% control_curve: wrong, "not of the answers at one rotation"
def control_curve(lattices, turns, x, sizes, t):
    X, Y = training_set(np.asarray(lattices), turns)
    flow = GradientFlow(kernel, jnp.asarray(X), jnp.asarray(Y))
    images = np.concatenate([np.rot90(x, k, axes=(1, 2)) for k in range(4)])
    mu = np.asarray(flow.mean(images, t)).reshape(4, len(x))
    s = np.asarray(flow.covariance(images, t)).reshape(4, len(x), 4, len(x))
    V = (np.einsum("gigi->i", s) / 4 - np.einsum("gihi->i", s) / 16).mean()
    return np.sqrt((mu.var(0).mean() + V / np.asarray(sizes, float)) / (mu[0] ** 2).mean())

half = half_measured = half_theory = None


# %% control_curve: wrong, "The variance of a member is in it"
def control_curve(lattices, turns, x, sizes, t):
    X, Y = training_set(np.asarray(lattices), turns)
    flow = GradientFlow(kernel, jnp.asarray(X), jnp.asarray(Y))
    images = np.concatenate([np.rot90(x, k, axes=(1, 2)) for k in range(4)])
    mu = np.asarray(flow.mean(images, t)).reshape(4, len(x))
    V = np.diag(np.asarray(flow.covariance(images, t))).mean()
    return np.sqrt((mu.var(0).mean() + V / np.asarray(sizes, float)) / (mu.mean(0) ** 2).mean())

half = half_measured = half_theory = None


# %% control_curve: wrong, "The square root is missing"
def control_curve(lattices, turns, x, sizes, t):
    X, Y = training_set(np.asarray(lattices), turns)
    flow = GradientFlow(kernel, jnp.asarray(X), jnp.asarray(Y))
    images = np.concatenate([np.rot90(x, k, axes=(1, 2)) for k in range(4)])
    mu = np.asarray(flow.mean(images, t)).reshape(4, len(x))
    s = np.asarray(flow.covariance(images, t)).reshape(4, len(x), 4, len(x))
    V = (np.einsum("gigi->i", s) / 4 - np.einsum("gihi->i", s) / 16).mean()
    return (mu.var(0).mean() + V / np.asarray(sizes, float)) / (mu.mean(0) ** 2).mean()

half = half_measured = half_theory = None


# %% control_curve: wrong, "looks like an ensemble trained with full orbits"
def control_curve(lattices, turns, x, sizes, t):
    X, Y = training_set(np.asarray(lattices), turns)
    flow = GradientFlow(kernel, jnp.asarray(X), jnp.asarray(Y))
    images = np.concatenate([np.rot90(x, k, axes=(1, 2)) for k in range(4)])
    mu = np.asarray(flow.mean(images, t)).reshape(4, len(x))
    s = np.asarray(flow.covariance(images, t)).reshape(4, len(x), 4, len(x))
    V = (np.einsum("gigi->i", s) / 4 - np.einsum("gihi->i", s) / 16).mean()
    return np.sqrt((mu.var(0).mean() + V / np.asarray(sizes, float)) / (mu.mean(0) ** 2).mean())

half = predictions
half_measured = np.array([relative_std_curve(half[:, kind], sizes) for kind in (0, 1)])
half_theory = np.array([control_curve(lattices, [0, 1], x, sizes, t_train) for x in kinds])


# %% control_curve: wrong, "looks like an ensemble trained with no augmentation"
def control_curve(lattices, turns, x, sizes, t):
    X, Y = training_set(np.asarray(lattices), turns)
    flow = GradientFlow(kernel, jnp.asarray(X), jnp.asarray(Y))
    images = np.concatenate([np.rot90(x, k, axes=(1, 2)) for k in range(4)])
    mu = np.asarray(flow.mean(images, t)).reshape(4, len(x))
    s = np.asarray(flow.covariance(images, t)).reshape(4, len(x), 4, len(x))
    V = (np.einsum("gigi->i", s) / 4 - np.einsum("gihi->i", s) / 16).mean()
    return np.sqrt((mu.var(0).mean() + V / np.asarray(sizes, float)) / (mu.mean(0) ** 2).mean())

half = train_ensemble(seed, members, *training_set(lattices, [0]), asked.reshape(-1, size, size), width, steps, rate)
half = half.reshape(members, 2, 4, n_test)
half_measured = np.array([relative_std_curve(half[:, kind], sizes) for kind in (0, 1)])
half_theory = np.array([control_curve(lattices, [0], x, sizes, t_train) for x in kinds])


# %% control_curve: right, by projecting onto what differs over the orbit
def control_curve(lattices, turns, x, sizes, t):
    flow = GradientFlow(kernel, *map(jnp.asarray, training_set(np.asarray(lattices), turns)))
    images, n = orbit(rotations, jnp.asarray(x)).reshape(-1, *x.shape[1:]), len(x)
    mu, sigma = flow.mean(images, t), flow.covariance(images, t)
    P = jnp.kron(jnp.eye(4) - 0.25, jnp.eye(n))
    floor, V = (P @ mu) @ (P @ mu) / (4 * n), jnp.trace(P @ sigma) / (4 * n)
    S = jnp.sqrt(((mu - P @ mu) ** 2).mean())
    return [float(jnp.sqrt(floor + V / M) / S) for M in sizes]

half = ensembles.run(architecture(width), jax.random.key(5), members, *training_set(lattices, [0, 1]),
                     asked.reshape(-1, size, size), steps, learning_rate=rate, dtype=jnp.float32, progress=False)
half = half.reshape(members, 2, 4, n_test)
half_measured = [relative_std_curve(half[:, kind], sizes) for kind in (0, 1)]
half_theory = [control_curve(lattices, [0, 1], x, sizes, t_train) for x in kinds]


# %% control_curve: right, as mean squared difference of pairs on the orbit
def control_curve(lattices, turns, x, sizes, t):
    X, Y = training_set(np.asarray(lattices), turns)
    flow = GradientFlow(kernel, jnp.asarray(X), jnp.asarray(Y))
    n, images = len(x), [np.rot90(x, k, axes=(1, 2)) for k in range(4)]
    mu = np.asarray(flow.mean(np.concatenate(images), t)).reshape(4, n)
    s = np.asarray(flow.covariance(np.concatenate(images), t)).reshape(4, n, 4, n)
    s = np.array([[np.diag(s[g, :, h]) for h in range(4)] for g in range(4)])  # g, h, lattice
    one = np.array([s[g, g] for g in range(4)])
    pairs = one[:, None] + one[None] - 2 * s
    floor, V = ((mu[:, None] - mu) ** 2).mean((0, 1)) / 2, pairs.mean((0, 1)) / 2
    square = floor.mean() + V.mean() * np.array([1 / M for M in sizes])
    return jnp.sqrt(square / (mu.mean(0) ** 2).mean())

half = train_ensemble(seed, members, *training_set(lattices, [0, 1]), asked.reshape(-1, size, size), width, steps, rate)
half = jnp.asarray(half.reshape(members, 2, 4, n_test))
half_measured = np.array([relative_std_curve(half[:, kind], sizes) for kind in (0, 1)])
half_theory = jnp.stack([control_curve(lattices, [0, 1], x, sizes, t_train) for x in kinds])


# %% extension: wrong, "points without an error bar"
curves = {"full": (sizes, measured[0][0], 0 * measured[0][1]), "half": (sizes, half_measured[0][0], half_measured[0][1])}
extension = {"x_label": "M", "y_label": "RSD", "curves": curves, "predicted": {"full": (sizes, theory[0])},
             "control": "half", "settings": {"seed": seed, "members": members}}


# %% extension: wrong, "at least two curves"
extension = {"x_label": "M", "y_label": "RSD", "curves": {"full": (sizes, measured[0][0], measured[0][1])},
             "predicted": {"full": (sizes, theory[0])}, "control": "half", "settings": {"seed": 0, "members": 8}}


# %% extension: wrong, "was it there before"
curves = {"full": (sizes, *measured[0]), "half": (sizes, *half_measured[0])}
extension = {"x_label": "M", "y_label": "RSD", "curves": curves, "predicted": {"full": (sizes, measured[0][0])},
             "control": "half", "settings": {"seed": seed, "members": members}}


# %% extension: wrong, "contains nan or inf"
value, error = measured[0]
curves = {"full": (sizes, value, np.where(sizes > 100, np.nan, error)), "half": (sizes, *half_measured[0])}
extension = {"x_label": "M", "y_label": "RSD", "curves": curves, "predicted": {"full": (sizes, theory[0])},
             "control": "half", "settings": {"seed": seed, "members": members}}


# %% extension: wrong, "is none of the curves"
curves = {"full": (sizes, *measured[0]), "half": (sizes, *half_measured[0])}
extension = {"x_label": "M", "y_label": "RSD", "curves": curves, "predicted": {"full": (sizes, theory[0])},
             "control": "one member", "settings": {"seed": seed, "members": members}}


# %% extension: wrong, "nobody could repeat the run"
curves = {"full": (sizes, *measured[0]), "half": (sizes, *half_measured[0])}
extension = {"x_label": "M", "y_label": "RSD", "curves": curves, "predicted": {"full": (sizes, theory[0])},
             "control": "half", "settings": {"width": width}}


# %% extension: wrong, "extension lacks"
extension = {"curves": {"full": (sizes, *measured[0]), "half": (sizes, *half_measured[0])}}


# %% extension: right, as lists, with x-axes of their own and a prediction on a finer grid
fine = np.geomspace(1, 256, 50)
curves = {"half": [sizes[2:].tolist(), *[row[2:].tolist() for row in half_measured[1]]], "full": (sizes, *measured[1])}
extension = {"x_label": "M", "y_label": "RSD", "curves": curves, "control": "half",
             "predicted": {"half": (fine, control_curve(lattices, [0, 1], kinds[1], fine, t_train))},
             "settings": {"seed": seed, "members": members, "note": "long run, 12 s"}}


# %% extension: right, with JAX arrays, against the width of a toy
x = jnp.array([64.0, 128, 256, 512])
extension = {"x_label": "width", "y_label": "1 - R / R at infinite width", "control": "standard",
             "curves": {"ntk": (x, 8 / x + 0.001, x**0 * 0.01), "standard": (x, 0.4 + 0 * x, x**0 * 0.02)},
             "predicted": {"ntk": (x, 8 / x), "standard": (x, 8 / x)}, "settings": {"seed": 1, "members": 256, "L": 6}}
