# Answers to problem set 1 that students may hand in. A wrong one is followed by the words that its test has to say.

# %% cayley_table: wrong, "rows and columns are mixed up"
def cayley_table(permutations):
    p = np.asarray(permutations)
    products = p[:, p].swapaxes(0, 1)  # [g, h] is h(g(i))
    return np.array([[next(k for k in range(len(p)) if (p[k] == q).all()) for q in row] for row in products])


# %% cayley_table: wrong, "the numbers of rows"
def cayley_table(permutations):
    return np.asarray(permutations)[:, permutations].mean(axis=2)


# %% cayley_table: wrong, "has shape (6, 6, 3)"
def cayley_table(permutations):
    return np.asarray(permutations)[:, permutations]


# %% cayley_table: wrong, "some product is wrong"
def cayley_table(permutations):
    g = np.arange(len(permutations))
    return (g[:, None] + g) % len(g)


# %% cayley_table: wrong, "some product is wrong"
def cayley_table(permutations):
    p = np.asarray(permutations)
    number = {tuple(q): k for k, q in enumerate(p)}
    return np.array([[number[tuple(g[np.argsort(h)])] for h in p] for g in p])


# %% cayley_table: right, with broadcasting
def cayley_table(permutations):
    p = jnp.asarray(permutations)
    products = p[:, p]
    return jnp.argmax((products[:, :, None] == p).all(-1), axis=-1)


# %% cayley_table: right, with loops and lists
def cayley_table(permutations):
    rows = [list(map(int, p)) for p in permutations]
    return [[rows.index([g[i] for i in h]) for h in rows] for g in rows]


# %% move: wrong, "You used g where its inverse is needed"
def move(permutation, x):
    return x[..., permutation]


# %% move: wrong, "cut to integers"
def move(permutation, x):
    result = np.zeros(np.shape(x), dtype=int)
    result[..., permutation] = x
    return result


# %% move: wrong, "could not be broadcast"
def move(permutation, x):
    result = np.zeros_like(x)
    result[permutation] = x  # the first axis, not the last
    return result


# %% move: wrong, "not moved at all"
def move(permutation, x):
    return x[..., np.sort(permutation)]


# %% move: right, by writing into a new array
def move(permutation, x):
    result = np.empty_like(x)
    result[..., permutation] = x
    return result


# %% move: right, with a permutation matrix in float32
def move(permutation, x):
    n = len(permutation)
    matrix = np.zeros((n, n), dtype=np.float64)
    matrix[permutation, np.arange(n)] = 1
    return jnp.einsum("ij,...j->...i", matrix, x)


# %% turn_field: wrong, "the vectors did not turn"
def turn_field(field, k):
    return np.rot90(field, k)


# %% turn_field: wrong, "their places did not"
def turn_field(field, k):
    for _ in range(k % 4):
        field = np.stack([-field[..., 1], field[..., 0]], axis=-1)
    return field


# %% turn_field: wrong, "turned clockwise"
def turn_field(field, k):
    for _ in range(k % 4):
        field = np.rot90(field)
        field = np.stack([field[..., 1], -field[..., 0]], axis=-1)
    return field


# %% turn_field: wrong, "rows are counted downwards"
def turn_field(field, k):
    for _ in range(k % 4):
        field = np.rot90(field, -1)  # places clockwise, vectors counter-clockwise
        field = np.stack([-field[..., 1], field[..., 0]], axis=-1)
    return field


# %% turn_field: wrong, "turned by one quarter only"
def turn_field(field, k):
    field = np.rot90(field)
    return np.stack([-field[..., 1], field[..., 0]], axis=-1)


# %% turn_field: right, with complex numbers
def turn_field(field, k):
    v = np.rot90(field[..., 0] + 1j * field[..., 1], k) * 1j ** (k % 4)
    return np.stack([v.real, v.imag], axis=-1)


# %% turn_field: right, with a rotation matrix
def turn_field(field, k):
    c, s = [(1, 0), (0, 1), (-1, 0), (0, -1)][k % 4]
    return jnp.rot90(field, k) @ jnp.array([[c, s], [-s, c]])


# %% bracelets: wrong, "the mirrors are missing"
def bracelets(n, q):
    from math import gcd
    return sum(q ** gcd(n, k) for k in range(n)) // n


# %% bracelets: wrong, "did you forget the factor 1/|G|"
def bracelets(n, q):
    from math import gcd
    turns = sum(q ** gcd(n, k) for k in range(n))
    mirrors = n * q ** ((n + 1) // 2) if n % 2 else n // 2 * (q ** (n // 2) + q ** (n // 2 + 1))
    return turns + mirrors


# %% bracelets: wrong, "how many moves does the group have"
def bracelets(n, q):
    from math import gcd
    turns = sum(q ** gcd(n, k) for k in range(n))
    mirrors = n * q ** ((n + 1) // 2) if n % 2 else n // 2 * (q ** (n // 2) + q ** (n // 2 + 1))
    return (turns + mirrors) // n


# %% bracelets: wrong, "counting them one by one gives"
def bracelets(n, q):
    from math import gcd
    turns = sum(q ** gcd(n, k) for k in range(n))
    return (turns + n * q ** ((n + 1) // 2)) // (2 * n)  # as if all mirrors of an even ring were alike


# %% bracelets: wrong, "expected was an exact Python integer"
def bracelets(n, q):
    from math import gcd
    turns = sum(q ** gcd(n, k) for k in range(n))
    mirrors = n * q ** ((n + 1) // 2) if n % 2 else n // 2 * (q ** (n // 2) + q ** (n // 2 + 1))
    return (turns + mirrors) / (2 * n)


# %% bracelets: wrong, "Floats lose digits here"
def bracelets(n, q):
    from math import gcd
    turns = np.sum([float(q) ** gcd(n, k) for k in range(n)])
    mirrors = n * float(q) ** ((n + 1) // 2) if n % 2 else n / 2 * (float(q) ** (n // 2) + float(q) ** (n // 2 + 1))
    return round((turns + mirrors) / (2 * n))


# %% bracelets: right, by divisors and Euler's function
def bracelets(n, q):
    from math import gcd
    phi = lambda d: sum(gcd(d, k) == 1 for k in range(1, d + 1))
    turns = sum(phi(d) * q ** (n // d) for d in range(1, n + 1) if n % d == 0)
    halves = sum(q ** ((n + 1 + k) // 2 if n % 2 == 0 else (n + 1) // 2) for k in (0, 1)) * n // 2
    mirrors = n * q ** ((n + 1) // 2) if n % 2 else n // 2 * (q ** (n // 2) + q ** (n // 2 + 1))
    return (turns + mirrors) // (2 * n)


# %% bracelets: right, by counting the cycles of every move
def bracelets(n, q):
    total = 0
    for g in polygon(n).tolist():
        seen, cycles = set(), 0
        for i in range(n):
            if i not in seen:
                cycles += 1
                while i not in seen:
                    seen.add(i)
                    i = g[i]
        total += q**cycles
    return total // (2 * n)


# %% equivariant_layers: wrong, "these layers are invariant"
def equivariant_layers(rho_in, rho_out):
    average = np.einsum("ab,gcd->adbc", np.eye(rho_out.shape[1]), np.linalg.inv(rho_in)) / len(rho_in)
    n = rho_in.shape[1] * rho_out.shape[1]
    u, s, _ = np.linalg.svd(average.reshape(n, n))
    return u[:, s > 0.5].T.reshape(-1, rho_out.shape[1], rho_in.shape[1])


# %% equivariant_layers: wrong, "the transpose where the inverse is needed"
def equivariant_layers(rho_in, rho_out):
    average = np.einsum("gab,gdc->adbc", rho_out, rho_in) / len(rho_in)
    n = rho_in.shape[1] * rho_out.shape[1]
    values, vectors = np.linalg.eig(average.reshape(n, n))
    vectors, _ = np.linalg.qr(vectors[:, abs(values - 1) < 1e-6].real)
    return vectors.T.reshape(-1, rho_out.shape[1], rho_in.shape[1])


# %% equivariant_layers: wrong, "misses Wρ₁(g) = ρ₂(g)W"
def equivariant_layers(rho_in, rho_out):
    a = np.kron(rho_out[1], np.linalg.inv(rho_in[1]).T) - np.eye(rho_out.shape[1] * rho_in.shape[1])
    _, s, vt = np.linalg.svd(a)  # one turn generates the turns, not the mirrors
    return vt[s < 1e-9].reshape(-1, rho_out.shape[1], rho_in.shape[1])


# %% equivariant_layers: wrong, "not orthonormal"
def equivariant_layers(rho_in, rho_out):
    average = np.einsum("gab,gcd->adbc", rho_out, np.linalg.inv(rho_in)) / len(rho_in)
    n = rho_in.shape[1] * rho_out.shape[1]
    average = average.reshape(n, n)
    found = np.zeros((n, 0))
    for column in average.T:
        if np.linalg.matrix_rank(np.c_[found, column], tol=1e-8) > found.shape[1]:
            found = np.c_[found, column]
    return found.T.reshape(-1, rho_out.shape[1], rho_in.shape[1])


# %% equivariant_layers: wrong, "layers were found; the space has"
def equivariant_layers(rho_in, rho_out):
    w = np.random.default_rng(0).normal(size=(rho_out.shape[1], rho_in.shape[1]))
    w = (rho_out @ w @ np.linalg.inv(rho_in)).mean(0)  # one random layer, averaged
    return (w / np.linalg.norm(w))[None]


# %% equivariant_layers: right, as the null space of all conditions
def equivariant_layers(rho_in, rho_out):
    d_in, d_out = rho_in.shape[1], rho_out.shape[1]
    rows = [np.kron(np.eye(d_out), a.T) - np.kron(b, np.eye(d_in)) for a, b in zip(rho_in, rho_out)]
    _, s, vt = np.linalg.svd(np.concatenate(rows))
    return vt[s < 1e-9].reshape(-1, d_out, d_in)


# %% equivariant_layers: right, by averaging random layers
def equivariant_layers(rho_in, rho_out):
    n = rho_in.shape[1] * rho_out.shape[1]
    w = np.random.default_rng(0).normal(size=(2 * n, rho_out.shape[1], rho_in.shape[1]))
    w = np.mean([b @ w @ np.linalg.inv(a) for a, b in zip(rho_in, rho_out)], axis=0).reshape(2 * n, n)
    _, s, vt = np.linalg.svd(w, full_matrices=False)
    return vt[s > 1e-9].reshape(-1, rho_out.shape[1], rho_in.shape[1])


# %% isotypic_projector: wrong, "a factor 1/|G| missing"
def isotypic_projector(rho, character, d):
    return d * np.einsum("g,gij->ij", np.conj(character), rho)


# %% isotypic_projector: wrong, "the factor d missing"
def isotypic_projector(rho, character, d):
    return np.einsum("g,gij->ij", np.conj(character), rho) / len(rho)


# %% isotypic_projector: wrong, "χ(g) was used, and χ(g⁻¹) is needed"
def isotypic_projector(rho, character, d):
    return d / len(rho) * np.einsum("g,gij->ij", character, rho)


# %% isotypic_projector: wrong, "times a projector"
def isotypic_projector(rho, character, d):
    return np.einsum("g,gij->ij", np.conj(character), rho)


# %% isotypic_projector: wrong, "P has trace"
def isotypic_projector(rho, character, d):
    return d / len(rho) * np.einsum("g,gij->ij", np.conj(character) ** 2, rho)


# %% isotypic_projector: right, with the trace of the inverse
def isotypic_projector(rho, character, d):
    inverse = jnp.asarray(character).conj()  # χ(g⁻¹) of a unitary representation
    return d * (inverse[:, None, None] * rho).mean(0)


# %% isotypic_projector: right, with a loop
def isotypic_projector(rho, character, d):
    p = np.zeros(rho.shape[1:], complex)
    for a, c in zip(rho, character):
        p += d / len(rho) * complex(c).conjugate() * a
    return p


# %% shift_errors: wrong, "shifted downwards"
def shift_errors(f, images):
    before = f(images)
    after = np.array([f(np.roll(images, a, axis=1)) for a in range(images.shape[1])])
    return np.sqrt(((after - before) ** 2).sum(1) / ((before - before.mean()) ** 2).sum())

errors_without_stride = shift_errors(lambda x: network(x, 1), images)
errors_with_stride = shift_errors(lambda x: network(x, stride), images)


# %% shift_errors: wrong, "The square root is missing"
def shift_errors(f, images):
    before = f(images)
    after = np.array([f(np.roll(images, a, axis=2)) for a in range(images.shape[2])])
    return ((after - before) ** 2).sum(1) / ((before - before.mean()) ** 2).sum()

errors_without_stride = shift_errors(lambda x: network(x, 1), images)
errors_with_stride = shift_errors(lambda x: network(x, stride), images)


# %% shift_errors: wrong, "not by how much f differs between images"
def shift_errors(f, images):
    before = f(images)
    after = np.array([f(np.roll(images, a, axis=2)) for a in range(images.shape[2])])
    return np.sqrt(((after - before) ** 2).sum(1) / (before**2).sum())

errors_without_stride = shift_errors(lambda x: network(x, 1), images)
errors_with_stride = shift_errors(lambda x: network(x, stride), images)


# %% shift_errors: wrong, "This is the network without a stride"
def shift_errors(f, images):
    before = f(images)
    after = np.array([f(np.roll(images, a, axis=2)) for a in range(images.shape[2])])
    return np.sqrt(((after - before) ** 2).sum(1) / ((before - before.mean()) ** 2).sum())

errors_without_stride = shift_errors(lambda x: network(x, 1), images)
errors_with_stride = shift_errors(lambda x: network(x, 1), images)


# %% shift_errors: wrong, "has not been measured"
def shift_errors(f, images):
    before = f(images)
    after = np.array([f(np.roll(images, a, axis=2)) for a in range(images.shape[2])])
    return np.sqrt(((after - before) ** 2).sum(1) / ((before - before.mean()) ** 2).sum())

errors_without_stride = shift_errors(lambda x: network(x, 1), images)
errors_with_stride = None


# %% shift_errors: right, with a norm and a standard deviation
def shift_errors(f, images):
    before = jnp.asarray(f(images))
    errors = []
    for a in range(images.shape[2]):
        after = jnp.asarray(f(np.concatenate([images[:, :, -a:], images[:, :, :-a]], axis=2) if a else images))
        errors.append(jnp.linalg.norm(after - before) / (before.std() * len(images) ** 0.5))
    return jnp.stack(errors)

errors_without_stride = shift_errors(lambda x: network(x, 1), images)
errors_with_stride = shift_errors(lambda x: network(x, stride), images)


# %% shift_errors: right, in float32
def shift_errors(f, images):
    before = np.asarray(f(images), np.float64)
    after = [np.asarray(f(np.roll(images, a, axis=-1)), np.float64) for a in range(images.shape[2])]
    return np.array([np.sqrt(np.mean((b - before) ** 2) / np.var(before)) for b in after])

errors_without_stride = shift_errors(lambda x: network(x, 1), images)
errors_with_stride = shift_errors(lambda x: network(x, stride), images)
