# Answers to problem set 5 that students may hand in. A wrong one is followed by the words that its test has to say.

# %% group_convolution: wrong, "w(h⁻¹) stands where w(h) should be"
def group_convolution(f, w, table):
    inverse = np.argmin(table, axis=1)
    return np.array([sum(f[h] @ w[table[inverse[h], g]] for h in range(len(f))) for g in range(len(f))])


# %% group_convolution: wrong, "The filter at g is w(gh)"
def group_convolution(f, w, table):
    return np.einsum("hc,ghcd->gd", f, w[table])


# %% group_convolution: wrong, "commutes with shifts from the right"
def group_convolution(f, w, table):
    inverse = np.argmin(table, axis=1)
    return np.array([sum(f[h] @ w[table[h, inverse[g]]] for h in range(len(f))) for g in range(len(f))])


# %% group_convolution: wrong, "a mean over the group where a sum should be"
def group_convolution(f, w, table):
    return np.einsum("ghc,hcd->gd", f[table], w) / len(table)


# %% group_convolution: wrong, "each element is mapped by itself"
def group_convolution(f, w, table):
    return np.einsum("gc,gcd->gd", f, w)


# %% group_convolution: right, with the filter moved by loops
def group_convolution(f, w, table):
    inverse = [list(row).index(0) for row in table]
    out = np.zeros((len(f), w.shape[2]))
    for g in range(len(f)):
        for h in range(len(f)):
            out[g] += f[h] @ w[table[inverse[g], h]]
    return out


# %% group_convolution: right, one large matrix in JAX
def group_convolution(f, w, table):
    inverse = jnp.argmin(jnp.asarray(table), axis=1)
    matrix = jnp.asarray(w)[jnp.asarray(table)[inverse]]  # (g, h, c, d)
    n, c = f.shape
    return (jnp.asarray(f).reshape(-1) @ matrix.transpose(1, 2, 0, 3).reshape(n * c, -1)).reshape(n, -1)


# %% broken: wrong, "test each on a picture of its own"
def broken(layers, shape):
    x = np.random.default_rng(0).normal(size=shape)
    a, b, found = x, np.rot90(x), []
    for number, layer in enumerate(layers):
        a, b = layer(a), layer(b)
        if np.abs(np.rot90(a) - b).max() > 1e-8 * np.abs(a).max():
            found.append(number)
    return found


# %% broken: wrong, "They commute with half turns"
def broken(layers, shape):
    found, draws = [], np.random.default_rng(0)
    for number, layer in enumerate(layers):
        x = draws.normal(size=shape)
        a, b = np.rot90(layer(x), 2), layer(np.rot90(x, 2))
        if np.abs(a - b).max() > 1e-8 * np.abs(a).max():
            found.append(number)
        shape = a.shape
    return found


# %% broken: wrong, "What the layers before let through is too special"
def broken(layers, shape):
    x, found = np.random.default_rng(0).normal(size=shape), []
    for number, layer in enumerate(layers):
        a, b = np.rot90(layer(x)), layer(np.rot90(x))
        if np.abs(a - b).max() > 1e-8 * max(np.abs(a).max(), 1e-300):
            found.append(number)
        x = layer(x)
    return found


# %% broken: wrong, "Compare the difference with the size of the outputs"
def broken(layers, shape):
    found, draws = [], np.random.default_rng(0)
    for number, layer in enumerate(layers):
        x = draws.normal(size=shape)
        if not np.allclose(np.rot90(layer(x)), layer(np.rot90(x)), rtol=1e-7, atol=1e-8):
            found.append(number)
        shape = layer(x).shape
    return found


# %% broken: wrong, "Rounding breaks nothing"
def broken(layers, shape):
    found, draws = [], np.random.default_rng(0)
    for number, layer in enumerate(layers):
        x = draws.normal(size=shape)
        if np.abs(np.rot90(layer(x)) - layer(np.rot90(x))).max() > 1e-20:
            found.append(number)
        shape = layer(x).shape
    return found


# %% broken: wrong, "a bias for each place: broken says []"
def broken(layers, shape):
    found, draws = [], np.random.default_rng(0)
    for number, layer in enumerate(layers):
        x = draws.normal(size=shape)
        a, b = layer(x), layer(np.rot90(x))
        if np.abs(a.sum((0, 1)) - b.sum((0, 1))).max() > 1e-8 * np.abs(a).max() and a.shape == x.shape:
            found.append(number)
        shape = a.shape
    return found


# %% broken: right, several pictures and all three turns
def broken(layers, shape):
    result = []
    for number, layer in enumerate(layers):
        whole = True
        for seed in range(3):
            x = np.random.default_rng(seed).normal(size=shape)
            out = np.asarray(layer(x))
            for k in (1, 2, 3):
                other = np.asarray(layer(np.rot90(x, k)))
                size = np.linalg.norm(out)
                whole = whole and np.linalg.norm(other - np.rot90(out, k)) <= 1e-9 * size
        if not whole:
            result.append(number)
        shape = out.shape
    return np.array(result, dtype=int)


# %% broken: right, turned by transposing and flipping
def broken(layers, shape):
    turn = lambda a: np.swapaxes(a, 0, 1)[::-1]
    verdicts = []
    for layer in layers:
        x = np.random.default_rng(7).uniform(-1, 1, size=shape)
        before, after = turn(layer(x)), layer(turn(x).copy())
        verdicts.append(np.max(np.abs(before - after)) / np.max(np.abs(before)) > 1e-8)
        shape = before.shape
    return tuple(np.flatnonzero(verdicts))


# %% twirl: wrong, "U† stands on the left"
def twirl(A, rotations):
    n, total = len(A).bit_length() - 1, 0
    for V in rotations:
        U = V
        for _ in range(n - 1):
            U = np.kron(U, V)
        total = total + U.conj().T @ A @ U
    return total / len(rotations)


# %% twirl: wrong, "its inverse is the conjugate transpose"
def twirl(A, rotations):
    n, total = len(A).bit_length() - 1, 0
    for V in rotations:
        U = V
        for _ in range(n - 1):
            U = np.kron(U, V)
        total = total + U @ A @ U.T
    return total / len(rotations)


# %% twirl: wrong, "Only the first qubit is turned"
def twirl(A, rotations):
    return np.mean([np.kron(V, np.eye(len(A) // 2)) @ A @ np.kron(V, np.eye(len(A) // 2)).conj().T
                    for V in rotations], axis=0)


# %% twirl: wrong, "It is a sum where a mean should be"
def twirl(A, rotations):
    n, total = len(A).bit_length() - 1, 0
    for V in rotations:
        U = V
        for _ in range(n - 1):
            U = np.kron(U, V)
        total = total + U @ A @ U.conj().T
    return total


# %% twirl: wrong, "Without its inverse on the right"
def twirl(A, rotations):
    from functools import reduce
    n = len(A).bit_length() - 1
    return np.mean([reduce(np.kron, [V] * n) @ A for V in rotations], axis=0)


# %% twirl: right, all rotations at once
def twirl(A, rotations):
    from functools import reduce
    n = int(np.log2(len(A)) + 0.5)
    U = np.array([reduce(np.kron, [V] * n) for V in rotations])
    return (U @ A @ np.conj(U.swapaxes(1, 2))).mean(0)


# %% twirl: right, axis by axis
def twirl(A, rotations):
    n = len(A).bit_length() - 1
    total = np.zeros(A.shape, complex)
    for V in rotations:
        T = np.asarray(A, complex).reshape((2,) * (2 * n))
        for axis in range(n):
            T = np.moveaxis(np.tensordot(V, T, (1, axis)), 0, axis)
            T = np.moveaxis(np.tensordot(V.conj(), T, (1, n + axis)), 0, n + axis)
        total += T.reshape(A.shape)
    return total / len(rotations)


# %% exact_twirl: wrong, "Only the trace is kept"
def exact_twirl(A):
    return np.trace(A) / 4 * np.eye(4)


# %% exact_twirl: wrong, "1 and F are not orthogonal"
def exact_twirl(A):
    F = np.eye(4)[[0, 2, 1, 3]]
    return np.trace(A) / 4 * np.eye(4) + np.trace(A @ F) / 4 * F


# %% exact_twirl: wrong, "The two coefficients have changed places"
def exact_twirl(A):
    F = np.eye(4)[[0, 2, 1, 3]]
    b, a = np.linalg.solve([[4, 2], [2, 4]], [np.trace(A), np.trace(A @ F)])
    return a * np.eye(4) + b * F


# %% exact_twirl: wrong, "The trace of F is 2 and not 0 or 4"
def exact_twirl(A):
    F = np.eye(4)[[0, 2, 1, 3]]
    a, b = np.linalg.solve([[4, 1], [1, 4]], [np.trace(A), np.trace(A @ F)])
    return a * np.eye(4) + b * F


# %% exact_twirl: right, by singlet and triplet
def exact_twirl(A):
    singlet = np.array([0, 1, -1, 0]) / 2**0.5
    P = np.outer(singlet, singlet)
    Q = np.eye(4) - P
    return np.trace(A @ P) * P + np.trace(A @ Q) / 3 * Q


# %% exact_twirl: right, with the Heisenberg coupling
def exact_twirl(A):
    X, Y, Z = np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])
    H = sum(np.kron(P, P) for P in (X, Y, Z))  # the Heisenberg coupling, orthogonal to 1
    return np.trace(A) / 4 * np.eye(4) + np.trace(A @ H) / 12 * H


# %% boost: wrong, "The particle flies backwards"
def boost(rapidity, direction):
    n = np.asarray(direction) / np.linalg.norm(direction)
    c, s = np.cosh(rapidity), np.sinh(rapidity)
    return np.block([[np.array([[c]]), -s * n[None]], [-s * n[:, None], np.eye(3) + (c - 1) * np.outer(n, n)]])

before = products(momenta, momenta)
boosted = [momenta @ boost(y, direction).T for y in rapidities]
drift = np.array([np.abs(products(p, p) - before).max() for p in boosted]) / np.abs(before).max()


# %% boost: wrong, "The direction has not been normalised"
def boost(rapidity, direction):
    n = np.asarray(direction, float)
    c, s = np.cosh(rapidity), np.sinh(rapidity)
    return np.block([[np.array([[c]]), s * n[None]], [s * n[:, None], np.eye(3) + (c - 1) * np.outer(n, n)]])

drift = np.exp(2.0 * rapidities) * 1e-16


# %% boost: wrong, "y was taken for the velocity"
def boost(rapidity, direction):
    n = np.asarray(direction) / np.linalg.norm(direction)
    c = 1 / np.sqrt(1 - min(abs(rapidity), 0.99) ** 2)
    s = c * rapidity
    return np.block([[np.array([[c]]), s * n[None]], [s * n[:, None], np.eye(3) + (c - 1) * np.outer(n, n)]])

drift = np.exp(2.0 * rapidities) * 1e-16


# %% boost: wrong, "is not multiplied by cosh y"
def boost(rapidity, direction):
    n = np.asarray(direction) / np.linalg.norm(direction)
    matrix = np.eye(4)
    matrix[0, 0] = np.cosh(rapidity)
    matrix[0, 1:] = matrix[1:, 0] = np.sinh(rapidity) * n
    return matrix

drift = np.exp(2.0 * rapidities) * 1e-16


# %% boost: wrong, "This is a rotation"
def boost(rapidity, direction):
    n = np.asarray(direction) / np.linalg.norm(direction)
    c, s = np.cos(rapidity), np.sin(rapidity)
    return np.block([[np.array([[c]]), s * n[None]], [s * n[:, None], np.eye(3) + (c - 1) * np.outer(n, n)]])

drift = np.exp(2.0 * rapidities) * 1e-16


# %% boost: wrong, "drift has not been measured"
def boost(rapidity, direction):
    n = np.asarray(direction) / np.linalg.norm(direction)
    c, s = np.cosh(rapidity), np.sinh(rapidity)
    return np.block([[np.array([[c]]), s * n[None]], [s * n[:, None], np.eye(3) + (c - 1) * np.outer(n, n)]])

drift = None


# %% boost: wrong, "is it relative to p·q at rest?"
def boost(rapidity, direction):
    n = np.asarray(direction) / np.linalg.norm(direction)
    c, s = np.cosh(rapidity), np.sinh(rapidity)
    return np.block([[np.array([[c]]), s * n[None]], [s * n[:, None], np.eye(3) + (c - 1) * np.outer(n, n)]])

drift = 1e-15 * np.exp(1.0 * rapidities) * 1e4 ** (rapidities > 19) * 1e6 ** (rapidities > 19)


# %% boost: right, as an exponential of a generator
def boost(rapidity, direction):
    from scipy.linalg import expm
    K = np.zeros((4, 4))
    K[0, 1:] = K[1:, 0] = np.asarray(direction, float) / np.sqrt(np.dot(direction, direction))
    return expm(rapidity * K)

drift = []
for y in rapidities:
    p = momenta @ boost(y, direction)  # the matrix is symmetric
    drift.append(np.abs(products(p, p) - products(momenta, momenta)).max() / products(momenta, momenta).max())


# %% boost: right, along z, turned there and back
def boost(rapidity, direction):
    n = np.asarray(direction) / np.linalg.norm(direction)
    basis = np.linalg.svd(n[None])[2]  # its first row is ±n
    signs = basis[0] @ n
    turn = np.eye(4)
    turn[1:, 1:] = basis
    c, s = np.cosh(rapidity), signs * np.sinh(rapidity)
    simple = np.eye(4)
    simple[:2, :2] = [[c, s], [s, c]]
    return turn.T @ simple @ turn

metric = np.diag([1.0, -1, -1, -1])
gram = momenta @ metric @ momenta.T
drift = np.array([np.abs((momenta @ boost(y, direction).T) @ metric @ (momenta @ boost(y, direction).T).T - gram).max()
                  for y in rapidities]) / np.abs(gram).max()


# %% symmetrised: wrong, "Only the second argument is averaged"
def symmetrised(theta, x1, x2, rho):
    return np.mean([theta(x1, x2 @ g.T) for g in rho], axis=0)


# %% symmetrised: wrong, "Both arguments are moved by the same element"
def symmetrised(theta, x1, x2, rho):
    return np.mean([theta(x1 @ g.T, x2 @ g.T) for g in rho], axis=0)


# %% symmetrised: wrong, "Two sums stand where two means should be"
def symmetrised(theta, x1, x2, rho):
    return sum(theta(x1 @ g.T, x2 @ h.T) for g in rho for h in rho)


# %% symmetrised: wrong, "Each of the two averages has its 1/|G|"
def symmetrised(theta, x1, x2, rho):
    return sum(theta(x1 @ g.T, x2 @ h.T) for g in rho for h in rho) / len(rho)


# %% symmetrised: wrong, "Only the first argument is averaged"
def symmetrised(theta, x1, x2, rho):
    return np.mean([theta(x1 @ g.T, x2) for g in rho], axis=0)


# %% symmetrised: wrong, "It was moved by the transposed matrices"
def symmetrised(theta, x1, x2, rho):
    return np.mean([[theta(x1 @ g, x2 @ h) for h in rho] for g in rho], axis=(0, 1))


# %% symmetrised: right, all pairs of images at once
def symmetrised(theta, x1, x2, rho):
    images = lambda x: np.einsum("gab,ib->gia", rho, x).reshape(-1, x.shape[1])
    values = theta(images(x1), images(x2))
    return values.reshape(len(rho), len(x1), len(rho), len(x2)).mean(axis=(0, 2))


# %% symmetrised: right, pair by pair
def symmetrised(theta, x1, x2, rho):
    out = np.zeros((len(x1), len(x2)))
    for i, a in enumerate(x1):
        for j, b in enumerate(x2):
            out[i, j] = np.mean(theta(rho @ a, rho @ b))
    return out.tolist()


# %% predict: wrong, "trained on the n images as they are"
def predict(theta, x, y, rho, asked):
    return theta(asked, x) @ np.linalg.solve(theta(x, x), y)


# %% predict: wrong, "The inputs asked for see the images of the training points"
def predict(theta, x, y, rho, asked):
    K = np.mean([theta(x, x @ g.T) for g in rho], axis=0)
    return theta(asked, x) @ np.linalg.solve(K, y)


# %% predict: wrong, "The training points see each other's images"
def predict(theta, x, y, rho, asked):
    k = np.mean([theta(asked, x @ g.T) for g in rho], axis=0)
    return k @ np.linalg.solve(theta(x, x), y)


# %% predict: wrong, "one of two sums over the group is for nothing"
def predict(theta, x, y, rho, asked):
    X = np.concatenate([x @ g.T for g in rho])
    return theta(asked, X) @ np.linalg.lstsq(theta(X, X), np.tile(y, len(rho)), rcond=1e-11)[0]


# %% predict: wrong, "It is |G| times too large"
def predict(theta, x, y, rho, asked):
    averaged = lambda a: sum(theta(a, x @ g.T) for g in rho)
    return averaged(asked) @ np.linalg.solve(averaged(x) / len(rho), y)


# %% predict: wrong, "It is |G| times too small"
def predict(theta, x, y, rho, asked):
    averaged = lambda a: sum(theta(a, x @ g.T) for g in rho)
    return averaged(asked) / len(rho) @ np.linalg.solve(averaged(x), y)


# %% predict: right, with sums, whose factor cancels
def predict(theta, x, y, rho, asked):
    total = lambda a: sum(theta(a, x @ g.T) for g in rho)
    return total(asked) @ np.linalg.lstsq(total(x), y, rcond=None)[0]


# %% predict: right, all images in one call and a Cholesky factor
def predict(theta, x, y, rho, asked):
    from scipy.linalg import cho_factor, cho_solve
    X = np.einsum("gab,ib->gia", rho, x).reshape(-1, x.shape[1])
    rows = np.concatenate([x, asked])
    K = theta(rows, X).reshape(len(rows), len(rho), len(x)).mean(axis=1)
    return K[len(x):] @ cho_solve(cho_factor(K[:len(x)]), y)
