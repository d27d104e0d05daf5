# Answers to problem set 4 that students may hand in. A wrong one is followed by the words that its test has to say.

# %% write_out_orbit: wrong, "The inputs have moved, the labels have not"
def write_out_orbit(x, y, rho, rho_y):
    X = np.einsum("gab,ib->gia", rho, x).reshape(-1, x.shape[1])
    return X, np.tile(y, (len(rho), 1))


# %% write_out_orbit: wrong, "by the transposed matrices, or moved by the inverse elements"
def write_out_orbit(x, y, rho, rho_y):
    return np.concatenate([x @ g.T for g in rho]), np.concatenate([y @ g for g in rho_y])


# %% write_out_orbit: wrong, "or moved by the inverse elements"
def write_out_orbit(x, y, rho, rho_y):
    back = np.linalg.inv(rho_y)
    return np.concatenate([x @ g.T for g in rho]), np.concatenate([y @ g.T for g in back])


# %% write_out_orbit: wrong, "an image has the label of another one"
def write_out_orbit(x, y, rho, rho_y):
    X = np.concatenate([x @ g.T for g in rho])
    return X, np.concatenate([[g @ label for g in rho_y] for label in y])


# %% write_out_orbit: wrong, "All images of the first example come first"
def write_out_orbit(x, y, rho, rho_y):
    X = np.einsum("gab,ib->iga", rho, x).reshape(-1, x.shape[1])
    return X, np.einsum("gab,ib->iga", rho_y, y).reshape(-1, y.shape[1])


# %% write_out_orbit: wrong, "has shape (10, 2); expected was (8, 2)"
def write_out_orbit(x, y, rho, rho_y):
    X, Y = np.concatenate([x @ g.T for g in rho]), np.concatenate([y @ g.T for g in rho_y])
    return np.concatenate([x, X]), np.concatenate([y, Y])


# %% write_out_orbit: right, with a Kronecker product
def write_out_orbit(x, y, rho, rho_y):
    move = lambda m, v: (np.kron(np.eye(len(v)), m.reshape(-1, m.shape[2])) @ v.ravel()).reshape(len(v), len(m), -1)
    return tuple(move(m, v).swapaxes(0, 1).reshape(-1, v.shape[1]) for m, v in ((rho, x), (rho_y, y)))


# %% write_out_orbit: right, with vmap in JAX
def write_out_orbit(x, y, rho, rho_y):
    move = jax.vmap(jax.vmap(jnp.dot, (None, 0)), (0, None))
    return [jnp.concatenate(move(jnp.asarray(m), jnp.asarray(v))) for m, v in ((rho, x), (rho_y, y))]


# %% granted: wrong, "Are both arguments of the kernel moved?"
def granted(theta, x, y, rho, rho_y):
    draws = np.random.default_rng(0).normal(size=(20, x.shape[1]))
    before = np.asarray(theta(draws, draws))
    all_of = lambda a: sorted(map(tuple, np.round(a, 6)))
    same = lambda a, b: np.allclose(all_of(a), all_of(b))
    examples = np.concatenate([x, y], axis=1)
    return [bool(np.abs(theta(draws @ g.T, draws) - before).max() < 1e-8 * np.abs(before).max()
                 and same(examples, np.concatenate([x @ g.T, y @ h.T], axis=1))) for g, h in zip(rho, rho_y)]


# %% granted: wrong, "The images fit, the labels do not"
def granted(theta, x, y, rho, rho_y):
    draws = np.random.default_rng(0).normal(size=(20, x.shape[1]))
    before = np.asarray(theta(draws, draws))
    count = lambda a, b: (np.abs(a[:, None] - b).max(axis=2) < 1e-8).sum(axis=1)
    return [np.abs(theta(draws @ g.T, draws @ g.T) - before).max() < 1e-8 * np.abs(before).max()
            and (count(x, x) == count(x, x @ g.T)).all() for g in rho]


# %% granted: wrong, "compare multisets, not sets"
def granted(theta, x, y, rho, rho_y):
    draws = np.random.default_rng(0).normal(size=(20, x.shape[1]))
    before = np.asarray(theta(draws, draws))
    examples = np.concatenate([x, y], axis=1)
    result = []
    for g, h in zip(rho, rho_y):
        moved = np.concatenate([x @ g.T, y @ h.T], axis=1)
        found = (np.abs(moved[:, None] - examples).max(axis=2) < 1e-8).any(axis=1).all()
        change = np.abs(theta(draws @ g.T, draws @ g.T) - before).max()
        result.append(found and change < 1e-8 * np.abs(before).max())
    return np.array(result)


# %% granted: wrong, "Compare the change with the size of the kernel"
def granted(theta, x, y, rho, rho_y):
    draws = np.random.default_rng(0).normal(size=(20, x.shape[1]))
    before = np.asarray(theta(draws, draws))
    examples = np.concatenate([x, y], axis=1)
    count = lambda a, b: (np.abs(a[:, None] - b).max(axis=2) < 1e-8).sum(axis=1)
    return [np.allclose(theta(draws @ g.T, draws @ g.T), before)
            and (count(examples, examples) == count(examples, np.concatenate([x @ g.T, y @ h.T], axis=1))).all()
            for g, h in zip(rho, rho_y)]


# %% granted: wrong, "Its diagonal says nothing"
def granted(theta, x, y, rho, rho_y):
    draws = np.random.default_rng(0).normal(size=(20, x.shape[1]))
    diagonal = lambda z: np.diag(np.asarray(theta(z, z)))
    examples = np.concatenate([x, y], axis=1)
    count = lambda a, b: (np.abs(a[:, None] - b).max(axis=2) < 1e-8).sum(axis=1)
    return [np.abs(diagonal(draws @ g.T) - diagonal(draws)).max() < 1e-8 * diagonal(draws).max()
            and (count(examples, examples) == count(examples, np.concatenate([x @ g.T, y @ h.T], axis=1))).all()
            for g, h in zip(rho, rho_y)]


# %% granted: wrong, "also about those that look unlike the training set"
def granted(theta, x, y, rho, rho_y):
    before = np.asarray(theta(x, x))
    examples = np.concatenate([x, y], axis=1)
    count = lambda a, b: (np.abs(a[:, None] - b).max(axis=2) < 1e-8).sum(axis=1)
    return [np.abs(theta(x @ g.T, x @ g.T) - before).max() < 1e-8 * np.abs(before).max()
            and (count(examples, examples) == count(examples, np.concatenate([x @ g.T, y @ h.T], axis=1))).all()
            for g, h in zip(rho, rho_y)]


# %% granted: wrong, "May the order of the examples change?"
def granted(theta, x, y, rho, rho_y):
    draws = np.random.default_rng(0).normal(size=(20, x.shape[1]))
    before = np.asarray(theta(draws, draws))
    return [np.abs(theta(draws @ g.T, draws @ g.T) - before).max() < 1e-8 * np.abs(before).max()
            and np.allclose(x @ g.T, x) and np.allclose(y @ h.T, y) for g, h in zip(rho, rho_y)]


# %% granted: right, by an assignment of the moved examples to the old ones
def granted(theta, x, y, rho, rho_y):
    from scipy.optimize import linear_sum_assignment
    a, b = np.random.default_rng(1).normal(size=(2, 12, x.shape[1]))
    before = np.asarray(theta(a, b))
    old, result = np.hstack([x, y]), []
    for g, h in zip(rho, rho_y):
        apart = np.abs(np.hstack([x @ g.T, y @ h.T])[:, None] - old).max(axis=2)
        fits = apart[linear_sum_assignment(apart > 1e-8)].max() <= 1e-8
        change = np.abs(np.asarray(theta(a @ g.T, b @ g.T)) - before).max() / np.abs(before).max()
        result.append(bool(fits and change < 1e-8))
    return result


# %% granted: right, by striking out examples one by one, in JAX
def granted(theta, x, y, rho, rho_y):
    z = jax.random.normal(jax.random.key(0), (16, x.shape[1]))
    before, result = jnp.asarray(theta(z, z)), []
    for g, h in zip(rho, rho_y):
        moved_z = z @ jnp.asarray(g).T
        ok = jnp.abs(jnp.asarray(theta(moved_z, moved_z)) - before).max() < 1e-8 * jnp.abs(before).max()
        left = list(np.hstack([x, y]))
        for example in np.hstack([x @ g.T, y @ h.T]):
            place = next((k for k, other in enumerate(left) if np.abs(other - example).max() < 1e-8), None)
            if place is None:
                ok = False
                break
            left.pop(place)
        result.append(bool(ok))
    return jnp.array(result)


# %% invariant_covariance: wrong, "weights that are moved like inputs"
def invariant_covariance(C, rho):
    return (rho @ C @ rho.swapaxes(1, 2)).mean(0)

half_only = invariant_covariance(np.diag(1 + np.arange(side**2) % 3.0), rho[[0, 2]])


# %% invariant_covariance: wrong, "|G| times the covariance"
def invariant_covariance(C, rho):
    return sum(g.T @ C @ g for g in rho)

half_only = invariant_covariance(np.diag(1 + np.arange(side**2) % 3.0), rho[[0, 2]])


# %% invariant_covariance: wrong, "is not symmetric"
def invariant_covariance(C, rho):
    return np.mean([np.linalg.inv(g) @ C @ g for g in rho], axis=0)

half_only = np.eye(side**2)


# %% invariant_covariance: wrong, "Is it an average over all elements"
def invariant_covariance(C, rho):
    half = rho[: len(rho) // 2]
    return np.mean([g.T @ C @ g for g in half], axis=0)

half_only = invariant_covariance(np.diag(1 + np.arange(side**2) % 3.0), rho[[0, 2]])


# %% invariant_covariance: wrong, "C was returned as it is"
def invariant_covariance(C, rho):
    return np.array(C)

half_only = np.eye(side**2)


# %% invariant_covariance: wrong, "for a vector v with ρ(g)v = v has become"
def invariant_covariance(C, rho):
    average = np.mean([g.T @ C @ g for g in rho], axis=0)
    return average * np.linalg.det(C) ** (1 / len(C)) / np.linalg.det(average) ** (1 / len(C))

half_only = invariant_covariance(np.diag(1 + np.arange(side**2) % 3.0), rho[[0, 2]])


# %% invariant_covariance: wrong, "nothing has been broken"
def invariant_covariance(C, rho):
    return np.mean([g.T @ C @ g for g in rho], axis=0)

half_only = invariant_covariance(np.diag(1.0 + np.arange(side**2)), quarter_turns)


# %% invariant_covariance: wrong, "the kernel with half_only changes under half turns"
def invariant_covariance(C, rho):
    return np.mean([g.T @ C @ g for g in rho], axis=0)

half_only = np.diag(1.0 + np.arange(side**2))


# %% invariant_covariance: wrong, "half_only is no covariance"
def invariant_covariance(C, rho):
    return np.mean([g.T @ C @ g for g in rho], axis=0)

rows = np.arange(side**2) // side
half_only = np.diag(np.abs(2.0 * rows - (side - 1)) - 1)


# %% invariant_covariance: right, with the inverse elements, and a variance for each row
def invariant_covariance(C, rho):
    moved = [np.linalg.inv(g).T @ C @ np.linalg.inv(g) for g in rho]
    return sum(moved) / len(moved)

half_only = np.diag(1 + (np.arange(side**2) // side - (side - 1) / 2) ** 2)


# %% invariant_covariance: right, from a factor of C, in JAX
def invariant_covariance(C, rho):
    factors = jnp.linalg.cholesky(jnp.asarray(C)).T @ jnp.asarray(rho)  # Lᵀρ(g)
    stacked = factors.reshape(-1, len(C))
    return stacked.T @ stacked / len(rho)

rows, columns = np.divmod(np.arange(side**2), side)
half_only = jnp.eye(side**2) + 0.5 * jnp.outer(rows == 0, rows == 0) + 0.5 * jnp.outer(rows == side - 1, rows == side - 1)


# %% mean_from_few: wrong, "is the factor 1/|G| missing somewhere?"
def mean_from_few(theta, x_new, x, y, rho, rho_y, t):
    n, k = y.shape
    average = lambda a: np.einsum("gxi,gab->xaib", [theta(a, x @ g.T) for g in rho], rho_y).reshape(len(a) * k, n * k)
    values, V = np.linalg.eig(average(x))
    c = V @ (-np.expm1(-values.real * t / n) / values.real * np.linalg.solve(V, y.ravel()))
    return (average(x_new) @ c).real.reshape(-1, k)


# %% mean_from_few: wrong, "the time is divided by n"
def mean_from_few(theta, x_new, x, y, rho, rho_y, t):
    n, k = y.shape
    average = lambda a: np.einsum("gxi,gab->xaib", [theta(a, x @ g.T) for g in rho], rho_y).reshape(len(a) * k, n * k)
    values, V = np.linalg.eig(average(x) / len(rho))
    progress = -np.expm1(-values.real * t / (n * len(rho))) / values.real
    return (average(x_new) / len(rho) @ (V @ (progress * np.linalg.solve(V, y.ravel())))).real.reshape(-1, k)


# %% mean_from_few: wrong, "does not move by ρ_Y(g)"
def mean_from_few(theta, x_new, x, y, rho, rho_y, t):
    n, k = y.shape
    back = np.linalg.inv(rho_y)
    average = lambda a: np.einsum("gxi,gab->xaib", [theta(a, x @ g.T) for g in rho], back).reshape(len(a) * k, n * k)
    values, V = np.linalg.eig(average(x) / len(rho))
    progress = -np.expm1(-values * min(t, 1e6) / n) / values
    return (average(x_new) / len(rho) @ (V @ (progress * np.linalg.solve(V, y.ravel())))).real.reshape(-1, k)


# %% mean_from_few: wrong, "a row or a column of ρ_Y(g)"
def mean_from_few(theta, x_new, x, y, rho, rho_y, t):
    n, k = y.shape
    values = lambda a: [theta(a, x @ g.T) for g in rho]
    average = lambda a: np.einsum("gxi,gab->xbia", values(a), rho_y).reshape(len(a) * k, n * k) / len(rho)
    eigenvalues, V = np.linalg.eig(average(x))
    progress = -np.expm1(-eigenvalues.real * t / n) / eigenvalues.real
    return (average(x_new) @ (V @ (progress * np.linalg.solve(V, y.ravel())))).real.reshape(-1, k)


# %% mean_from_few: wrong, "The matrix on the n points is not symmetric"
def mean_from_few(theta, x_new, x, y, rho, rho_y, t):
    n, k = y.shape
    values = lambda a: [theta(a, x @ g.T) for g in rho]
    average = lambda a: np.einsum("gxi,gab->xaib", values(a), rho_y).reshape(len(a) * k, n * k) / len(rho)
    eigenvalues, V = np.linalg.eigh((average(x) + average(x).T) / 2)
    progress = -np.expm1(-eigenvalues * t / n) / eigenvalues
    return (average(x_new) @ (V @ (progress * (V.T @ y.ravel())))).reshape(-1, k)


# %% mean_from_few: wrong, "Are the orbits written out?"
def mean_from_few(theta, x_new, x, y, rho, rho_y, t):
    X, Y = np.concatenate([x @ g.T for g in rho]), np.concatenate([y @ g.T for g in rho_y])
    eigenvalues, V = np.linalg.eigh(theta(X, X))
    progress = -np.expm1(-eigenvalues * t / len(X)) / eigenvalues
    return theta(x_new, X) @ (V @ (progress[:, None] * (V.T @ Y)))


# %% mean_from_few: right, with eigenvectors of a matrix that is not symmetric
def mean_from_few(theta, x_new, x, y, rho, rho_y, t):
    n, k = y.shape
    values = lambda a: [theta(a, x @ g.T) for g in rho]
    average = lambda a: np.einsum("gxi,gab->xaib", values(a), rho_y).reshape(len(a) * k, n * k) / len(rho)
    eigenvalues, V = np.linalg.eig(average(x))
    progress = -np.expm1(-eigenvalues.real * t / n) / eigenvalues.real
    return (average(x_new) @ (V @ (progress * np.linalg.solve(V, y.ravel())))).real.reshape(-1, k)


# %% mean_from_few: right, with the exponential of a matrix, in JAX
def mean_from_few(theta, x_new, x, y, rho, rho_y, t):
    n, k = y.shape
    def average(a):
        total = sum(jnp.kron(jnp.asarray(theta(a, x @ g.T)), jnp.asarray(h)) for g, h in zip(rho, rho_y))
        return total / len(rho)
    gram = average(x)
    learned = y.ravel() if np.isinf(t) else y.ravel() - jax.scipy.linalg.expm(-gram * t / n, max_squarings=40) @ y.ravel()
    return (average(x_new) @ jnp.linalg.solve(gram, learned)).reshape(-1, k)


# %% mean_from_few: right, by moving the new inputs instead
def mean_from_few(theta, x_new, x, y, rho, rho_y, t):
    from scipy.linalg import expm
    n, k = y.shape
    def average(a):  # Θ(ρ(g)a, x) ρ_Y(g)⁻¹
        return sum(np.kron(theta(a @ g.T, x), np.linalg.inv(h)) for g, h in zip(rho, rho_y)) / len(rho)
    gram = average(x)
    left = np.zeros_like(gram) if np.isinf(t) else expm(-gram * t / n)
    return (average(x_new) @ np.linalg.solve(gram, (np.eye(n * k) - left) @ y.ravel())).reshape(-1, k)


# %% members_needed: wrong, "The mean over the orbit was not subtracted"
def members_needed(sigma, tolerance, delta):
    eigenvalues = np.linalg.eigvalsh(sigma)
    if np.linalg.matrix_rank(sigma) == 1:
        return 1
    u = np.linspace(0, 1, 20_001)[1:-1, None] / (2 * eigenvalues[-1])
    needed = (np.log(1 / delta) - np.log1p(-2 * u * eigenvalues).sum(1) / 2) / (u[:, 0] * len(sigma) * tolerance**2)
    return int(np.ceil(needed.min()))


# %% members_needed: wrong, "S is a mean over the orbit: is the factor 1/|G| missing?"
def members_needed(sigma, tolerance, delta):
    eigenvalues = np.linalg.eigvalsh(sigma - sigma.mean(0) - sigma.mean(1)[:, None] + sigma.mean())
    if eigenvalues[-1] < 1e-12:
        return 1
    u = np.linspace(0, 1, 20_001)[1:-1, None] / (2 * eigenvalues[-1])
    needed = (np.log(1 / delta) - np.log1p(-2 * u * eigenvalues).sum(1) / 2) / (u[:, 0] * tolerance**2)
    return int(np.ceil(needed.min()))


# %% members_needed: wrong, "so it has to be squared"
def members_needed(sigma, tolerance, delta):
    eigenvalues = np.linalg.eigvalsh(sigma - sigma.mean(0) - sigma.mean(1)[:, None] + sigma.mean())
    if eigenvalues[-1] < 1e-12:
        return 1
    u = np.linspace(0, 1, 20_001)[1:-1, None] / (2 * eigenvalues[-1])
    needed = (np.log(1 / delta) - np.log1p(-2 * u * eigenvalues).sum(1) / 2) / (u[:, 0] * len(sigma) * tolerance)
    return int(np.ceil(needed.min()))


# %% members_needed: wrong, "follows from Markov's inequality for S itself"
def members_needed(sigma, tolerance, delta):
    mean = np.diag(sigma).mean() - sigma.mean()
    return max(1, int(np.ceil(mean / tolerance**2 / delta)))


# %% members_needed: wrong, "makes the mean of S small"
def members_needed(sigma, tolerance, delta):
    return max(1, int(np.ceil((np.diag(sigma).mean() - sigma.mean()) / tolerance**2)))


# %% members_needed: wrong, "or the factor ½ in front of the logarithm, missing?"
def members_needed(sigma, tolerance, delta):
    eigenvalues = np.linalg.eigvalsh(sigma - sigma.mean(0) - sigma.mean(1)[:, None] + sigma.mean())
    if eigenvalues[-1] < 1e-12:
        return 1
    u = np.linspace(0, 1, 20_001)[1:-1, None] / (2 * eigenvalues[-1])
    needed = (np.log(1 / delta) - np.log1p(-2 * u * eigenvalues).sum(1)) / (u[:, 0] * len(sigma) * tolerance**2)
    return int(np.ceil(needed.min()))


# %% members_needed: wrong, "Was it rounded down?"
def members_needed(sigma, tolerance, delta):
    eigenvalues = np.linalg.eigvalsh(sigma - sigma.mean(0) - sigma.mean(1)[:, None] + sigma.mean())
    if eigenvalues[-1] < 1e-12:
        return 1
    u = np.linspace(0, 1, 20_001)[1:-1, None] / (2 * eigenvalues[-1])
    needed = (np.log(1 / delta) - np.log1p(-2 * u * eigenvalues).sum(1) / 2) / (u[:, 0] * len(sigma) * tolerance**2)
    return int(needed.min())


# %% members_needed: wrong, "v has to be the best one"
def members_needed(sigma, tolerance, delta):
    eigenvalues = np.linalg.eigvalsh(sigma - sigma.mean(0) - sigma.mean(1)[:, None] + sigma.mean())
    if eigenvalues[-1] < 1e-12:
        return 1
    u = 1 / (4 * eigenvalues[-1])
    needed = (np.log(1 / delta) - np.log1p(-2 * u * eigenvalues).sum() / 2) / (u * len(sigma) * tolerance**2)
    return int(np.ceil(needed))


# %% members_needed: right, by bisection in M with a grid for v
def members_needed(sigma, tolerance, delta):
    centre = np.eye(len(sigma)) - 1 / len(sigma)
    weights = np.maximum(np.linalg.eigvalsh(centre @ sigma @ centre), 0) / len(sigma)
    if weights.max() <= 1e-12 * np.abs(sigma).max():
        return 1
    v = np.linspace(0, 1, 4001)[1:-1] / (2 * weights.max())
    mgf = np.prod((1 - 2 * v[:, None] * weights) ** -0.5, axis=1)
    enough = lambda M: (mgf * np.exp(-v * M * tolerance**2)).min() <= delta
    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


# %% members_needed: right, where the derivative vanishes, in JAX
def members_needed(sigma, tolerance, delta):
    from scipy.optimize import brentq
    sigma = jnp.asarray(sigma)
    lam = jnp.linalg.eigvalsh(sigma - sigma.mean(0) - sigma.mean(1)[:, None] + sigma.mean())
    if lam[-1] <= 1e-12 * jnp.abs(sigma).max():
        return jnp.array(1)
    # M(u) = c(u)/u with c the cumulants, smallest where u c'(u) = c(u)
    c = lambda u: jnp.log(1 / delta) - jnp.log1p(-2 * u * lam).sum() / 2
    slope = lambda u: float(u * (lam / (1 - 2 * u * lam)).sum() - c(u))
    top = float(1 / (2 * lam[-1]))
    u = brentq(slope, 1e-9 * top, (1 - 1e-12) * top)
    return jnp.ceil(c(u) / (u * len(sigma) * tolerance**2)).astype(int)


# %% move_parameters: wrong, "the filters were turned the other way"
def move_parameters(params, k, shift):
    v, c = params[-1]
    v = np.roll(np.rot90(v, k), shift, axis=(0, 1))
    return [(np.rot90(w, -k), b) for w, b in params[:-1]] + [(turn_vector(v, k), turn_vector(c, k))]


# %% move_parameters: wrong, "the filters were not turned"
def move_parameters(params, k, shift):
    v, c = params[-1]
    v = np.roll(np.rot90(v, k), shift, axis=(0, 1))
    return [*params[:-1], (turn_vector(v, k), turn_vector(c, k))]


# %% move_parameters: wrong, "what convolution 2 makes of the moved image"
def move_parameters(params, k, shift):
    (w, b), *rest, (v, c) = params
    v = np.roll(np.rot90(v, k), shift, axis=(0, 1))
    return [(np.rot90(w, k), b), *rest, (turn_vector(v, k), turn_vector(c, k))]


# %% move_parameters: wrong, "Does a shift of the image shift a filter?"
def move_parameters(params, k, shift):
    v, c = params[-1]
    move = lambda w: np.roll(np.rot90(w, k), shift, axis=(0, 1))
    return [(move(w), b) for w, b in params[:-1]] + [(turn_vector(move(v), k), turn_vector(c, k))]


# %% move_parameters: wrong, "the output does not turn, but it should"
def move_parameters(params, k, shift):
    v, c = params[-1]
    return [(np.rot90(w, k), b) for w, b in params[:-1]] + [(np.roll(np.rot90(v, k), shift, axis=(0, 1)), c)]


# %% move_parameters: wrong, "the output turns the other way"
def move_parameters(params, k, shift):
    v, c = params[-1]
    v = np.roll(np.rot90(v, k), shift, axis=(0, 1))
    return [(np.rot90(w, k), b) for w, b in params[:-1]] + [(turn_vector(v, -k), turn_vector(c, -k))]


# %% move_parameters: wrong, "the bias of the last layer points in a wrong direction"
def move_parameters(params, k, shift):
    v, c = params[-1]
    v = np.roll(np.rot90(v, k), shift, axis=(0, 1))
    return [(np.rot90(w, k), b) for w, b in params[:-1]] + [(turn_vector(v, k), c)]


# %% move_parameters: wrong, "the image is turned first"
def move_parameters(params, k, shift):
    v, c = params[-1]
    v = np.rot90(np.roll(v, shift, axis=(0, 1)), k)
    return [(np.rot90(w, k), b) for w, b in params[:-1]] + [(turn_vector(v, k), turn_vector(c, k))]


# %% move_parameters: wrong, "does not find the features where they are now"
def move_parameters(params, k, shift):
    v, c = params[-1]
    return [(np.rot90(w, k), b) for w, b in params[:-1]] + [(turn_vector(v, k), turn_vector(c, k))]


# %% move_parameters: right, one quarter at a time
def move_parameters(params, k, shift):
    *filters, (v, c) = params
    for _ in range(k % 4):
        filters = [(np.rot90(w), b) for w, b in filters]
        v, c = np.rot90(v), np.array([-c[1], c[0]])
        v = np.stack([-v[..., 1], v[..., 0]], axis=-1)
    return [*filters, (np.roll(v, shift, (0, 1)), c)]


# %% move_parameters: right, by indices, in JAX
def move_parameters(params, k, shift):
    def turned(w):
        place = np.rot90(np.arange(w.shape[0] * w.shape[1]).reshape(w.shape[:2]), k)
        return jnp.asarray(w).reshape(-1, *w.shape[2:])[place]
    R = jnp.round(jnp.linalg.matrix_power(jnp.array([[0.0, -1.0], [1.0, 0.0]]), k % 4))
    v, c = params[-1]
    moved = jnp.roll(jnp.einsum("ab,rscb->rsca", R, turned(v)), shift, axis=(0, 1))
    return tuple((turned(w), jnp.asarray(b)) for w, b in params[:-1]) + ((moved, R @ c),)


# %% noise_parts: wrong, "A is divided by |G| - 1"
def noise_parts(w):
    return np.stack([w.var(axis=1, ddof=1).sum(1) * w.shape[1], w.shape[1] * (w.mean(1) ** 2).sum(1)])

noise_few = noise_many = None


# %% noise_parts: wrong, "are means over h where sums should be"
def noise_parts(w):
    return np.stack([w.var(axis=1).sum(1), (w.mean(1) ** 2).sum(1)])

noise_few = noise_many = None


# %% noise_parts: wrong, "not all wrong by the same amount"
def noise_parts(w):
    return np.stack([w.shape[1] * w.var(axis=1).sum(1), (w.sum(1) ** 2).sum(1)])

noise_few = noise_many = None


# %% noise_parts: wrong, "those of different training points are not exchanged by the group"
def noise_parts(w):
    flat_w = w.reshape(len(w), -1)
    return np.stack([flat_w.var(axis=1) * flat_w.shape[1], w.shape[1] * (w.mean(1) ** 2).sum(1)])

noise_few = noise_many = None


# %% noise_parts: wrong, "The sum A + B was returned"
def noise_parts(w):
    return np.stack([(w**2).sum((1, 2)), w.shape[1] * (w.mean(1) ** 2).sum(1)])

noise_few = noise_many = None


# %% noise_parts: wrong, "as if they shared their noise"
def noise_parts(w):
    total = w.sum(2)
    return np.stack([total.var(1) * w.shape[1], total.mean(1) ** 2 * w.shape[1]])

noise_few = noise_many = None


# %% noise_parts: wrong, "noise_few has not been measured"
def noise_parts(w):
    return np.stack([w.shape[1] * w.var(axis=1).sum(1), w.shape[1] * (w.mean(1) ** 2).sum(1)])

noise_few = noise_many = None


# %% noise_parts: wrong, "with the training points before the group elements"
def noise_parts(w):
    return np.stack([w.shape[1] * w.var(axis=1).sum(1), w.shape[1] * (w.mean(1) ** 2).sum(1)])

def measure(x):
    X, _ = write_out_orbit(x, np.zeros((len(x), 1)), rho, np.ones((8, 1, 1)))
    w = np.asarray(GradientFlow(kernel, X, np.eye(len(X))).mean(asked, times))
    return np.stack([noise_parts(v.reshape(12, -1, 8).swapaxes(1, 2)).mean(axis=1) for v in w], axis=1)

noise_few, noise_many = measure(few), measure(many)


# %% noise_parts: right, by the total, in JAX, with the formula for the weights
def noise_parts(w):
    w = jnp.asarray(w)
    b = (w.sum(1) ** 2).sum(1) / w.shape[1]
    return jnp.stack([(w**2).sum((1, 2)) - b, b])

def measure(x):
    X = write_out_orbit(x, x, rho, rho)[0]
    values, V = jnp.linalg.eigh(theta(X, X))
    left = theta(asked, X) @ V
    rows = [(left * -jnp.expm1(-values * t / len(X)) / values) @ V.T for t in times]
    return jnp.stack([noise_parts(w.reshape(12, 8, len(x))).mean(1) for w in rows]).T

noise_few, noise_many = measure(few), measure(many)


# %% noise_parts: right, with loops, by asking at all images
def noise_parts(w):
    result = np.zeros((2, len(w)))
    for j, of_input in enumerate(w):
        for column in of_input.T:
            result[0, j] += np.sum((column - np.mean(column)) ** 2)
            result[1, j] += np.sum(column) ** 2 / len(column)
    return result

def measure(x):
    X = np.concatenate([x @ g.T for g in rho])
    all_asked = np.concatenate([asked @ g.T for g in rho])
    w = np.asarray(GradientFlow(kernel, X, np.eye(len(X))).mean(all_asked, times)).reshape(len(times), 8, 12, len(X))
    return np.stack([w.var(1).sum(-1).mean(-1), (w.mean(1) ** 2).sum(-1).mean(-1)])

noise_few, noise_many = measure(few), measure(many)
