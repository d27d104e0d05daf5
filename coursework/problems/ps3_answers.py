# Answers to problem set 3 that students may hand in. A wrong one is followed by the words that its test has to say.

# %% wave_means: wrong, "The phase p is missing"
def wave_means(a, b, c, omega, phase):
    damping = np.exp(-(omega**2) * (a + b) / 2)
    return damping * np.sinh(omega**2 * c), omega**2 * damping * np.cosh(omega**2 * c)


# %% wave_means: wrong, "a tiny number multiplied by a huge one"
def wave_means(a, b, c, omega, phase):
    damping, up, down = np.exp(-(omega**2) * (a + b) / 2), np.exp(omega**2 * c), np.exp(-(omega**2) * c)
    cosine = np.cos(2 * phase)
    return damping * (up - cosine * down) / 2, omega**2 * damping * (up + cosine * down) / 2


# %% wave_means: wrong, "The factor ω of each derivative is missing"
def wave_means(a, b, c, omega, phase):
    first = np.exp(-(omega**2) * (a + b - 2 * c) / 2)
    second = np.cos(2 * phase) * np.exp(-(omega**2) * (a + b + 2 * c) / 2)
    return (first - second) / 2, (first + second) / 2


# %% wave_means: wrong, "Each of the two derivatives brings a factor ω"
def wave_means(a, b, c, omega, phase):
    first = np.exp(-(omega**2) * (a + b - 2 * c) / 2)
    second = np.cos(2 * phase) * np.exp(-(omega**2) * (a + b + 2 * c) / 2)
    return (first - second) / 2, omega * (first + second) / 2


# %% wave_means: wrong, "expected was the mean of the product"
def wave_means(a, b, c, omega, phase):
    damping = np.exp(-(omega**2) * (a + b) / 2) + 0 * c
    return np.sin(phase) ** 2 * damping, omega**2 * np.cos(phase) ** 2 * damping


# %% wave_means: wrong, "The correlation c/√(ab) stands where the covariance"
def wave_means(a, b, c, omega, phase):
    r = c / np.sqrt(a * b)
    first = np.exp(-(omega**2) * (a + b - 2 * r) / 2)
    second = np.cos(2 * phase) * np.exp(-(omega**2) * (a + b + 2 * r) / 2)
    return (first - second) / 2, omega**2 * (first + second) / 2


# %% wave_means: wrong, "for variables of variance 1"
def wave_means(a, b, c, omega, phase):
    r = c / np.sqrt(a * b)
    first, second = np.exp(-(omega**2) * (1 - r)), np.cos(2 * phase) * np.exp(-(omega**2) * (1 + r))
    return (first - second) / 2, omega**2 * (first + second) / 2


# %% wave_means: wrong, "In the exponent stands ω²"
def wave_means(a, b, c, omega, phase):
    first = np.exp(-omega * (a + b - 2 * c) / 2)
    second = np.cos(2 * phase) * np.exp(-omega * (a + b + 2 * c) / 2)
    return (first - second) / 2, omega**2 * (first + second) / 2


# %% wave_means: wrong, "A sign between the two waves is wrong"
def wave_means(a, b, c, omega, phase):
    first = np.exp(-(omega**2) * (a + b - 2 * c) / 2)
    second = np.cos(2 * phase) * np.exp(-(omega**2) * (a + b + 2 * c) / 2)
    return (first + second) / 2, omega**2 * (first - second) / 2


# %% wave_means: right, with the variances of u − v and u + v, in JAX
def wave_means(a, b, c, omega, phase):
    a, b, c = map(jnp.asarray, (a, b, c))
    mean_cosine = lambda variance, shift: jnp.exp(-(omega**2) * variance / 2) * jnp.cos(shift)
    minus, plus = mean_cosine(a + b - 2 * c, 0.0), mean_cosine(a + b + 2 * c, 2 * phase)
    return 0.5 * (minus - plus), 0.5 * omega**2 * (minus + plus)


# %% wave_means: right, as the real part of complex exponentials
def wave_means(a, b, c, omega, phase):
    def characteristic(s1, s2):  # E exp(i s1 (ωu + p) + i s2 (ωv + p))
        return np.exp(1j * (s1 + s2) * phase - omega**2 * (a + b + 2 * s1 * s2 * c) / 2)

    signs = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    sines = sum(s1 * s2 * characteristic(s1, s2) for s1, s2 in signs) / (2j) ** 2
    cosines = sum(characteristic(s1, s2) for s1, s2 in signs) / 4
    return [sines.real, omega**2 * cosines.real]


# %% layer_parts: wrong, "E φφ stands where E φ'φ' is needed"
def layer_parts(x1, x2, depth, means):
    dense = lambda mean: W_std**2 * mean + b_std**2
    a, b = dense((x1**2).mean(1))[:, None], dense((x2**2).mean(1))[None]
    K = dense(x1 @ x2.T / x1.shape[1])
    parts = [K]
    for _ in range(depth):
        even, slope = means(a, b, K)
        K = dense(even)
        parts = [W_std**2 * even * part for part in parts] + [K]
        a, b = dense(means(a, a, a)[0]), dense(means(b, b, b)[0])
    return np.stack(parts)


# %% layer_parts: wrong, "The factor σ_w² of the weights above is missing"
def layer_parts(x1, x2, depth, means):
    dense = lambda mean: W_std**2 * mean + b_std**2
    a, b = dense((x1**2).mean(1))[:, None], dense((x2**2).mean(1))[None]
    K = dense(x1 @ x2.T / x1.shape[1])
    parts = [K]
    for _ in range(depth):
        even, slope = means(a, b, K)
        K = dense(even)
        parts = [slope * part for part in parts] + [K]
        a, b = dense(means(a, a, a)[0]), dense(means(b, b, b)[0])
    return np.stack(parts)


# %% layer_parts: wrong, "is the order reversed"
def layer_parts(x1, x2, depth, means):
    dense = lambda mean: W_std**2 * mean + b_std**2
    a, b = dense((x1**2).mean(1))[:, None], dense((x2**2).mean(1))[None]
    K = dense(x1 @ x2.T / x1.shape[1])
    parts = [K]
    for _ in range(depth):
        even, slope = means(a, b, K)
        K = dense(even)
        parts = [K] + [W_std**2 * slope * part for part in parts]
        a, b = dense(means(a, a, a)[0]), dense(means(b, b, b)[0])
    return np.stack(parts)


# %% layer_parts: wrong, "This is the whole Θ"
def layer_parts(x1, x2, depth, means):
    dense = lambda mean: W_std**2 * mean + b_std**2
    a, b = dense((x1**2).mean(1))[:, None], dense((x2**2).mean(1))[None]
    K = dense(x1 @ x2.T / x1.shape[1])
    thetas = [K]
    for _ in range(depth):
        even, slope = means(a, b, K)
        K = dense(even)
        thetas.append(K + W_std**2 * slope * thetas[-1])  # the kernels of the layers, not their parts
        a, b = dense(means(a, a, a)[0]), dense(means(b, b, b)[0])
    return np.stack(thetas)


# %% layer_parts: wrong, "The inputs were not divided by √d"
def layer_parts(x1, x2, depth, means):
    dense = lambda mean: W_std**2 * mean + b_std**2
    a, b = dense((x1**2).sum(1))[:, None], dense((x2**2).sum(1))[None]
    K = dense(x1 @ x2.T)
    parts = [K]
    for _ in range(depth):
        even, slope = means(a, b, K)
        K = dense(even)
        parts = [W_std**2 * slope * part for part in parts] + [K]
        a, b = dense(means(a, a, a)[0]), dense(means(b, b, b)[0])
    return np.stack(parts)


# %% layer_parts: wrong, "The biases are missing"
def layer_parts(x1, x2, depth, means):
    a, b = W_std**2 * (x1**2).mean(1)[:, None], W_std**2 * (x2**2).mean(1)[None]
    K = W_std**2 * x1 @ x2.T / x1.shape[1]
    parts = [K]
    for _ in range(depth):
        even, slope = means(a, b, K)
        K = W_std**2 * even
        parts = [W_std**2 * slope * part for part in parts] + [K]
        a, b = W_std**2 * means(a, a, a)[0], W_std**2 * means(b, b, b)[0]
    return np.stack(parts)


# %% layer_parts: wrong, "one for each hidden layer and one for the last"
def layer_parts(x1, x2, depth, means):
    dense = lambda mean: W_std**2 * mean + b_std**2
    a, b = dense((x1**2).mean(1))[:, None], dense((x2**2).mean(1))[None]
    K = dense(x1 @ x2.T / x1.shape[1])
    parts = [K]
    for _ in range(depth + 1):  # a layer too many
        even, slope = means(a, b, K)
        K = dense(even)
        parts = [W_std**2 * slope * part for part in parts] + [K]
        a, b = dense(means(a, a, a)[0]), dense(means(b, b, b)[0])
    return np.stack(parts)


# %% layer_parts: wrong, "The slopes of the activation are missing"
def layer_parts(x1, x2, depth, means):
    dense = lambda mean: W_std**2 * mean + b_std**2
    a, b = dense((x1**2).mean(1))[:, None], dense((x2**2).mean(1))[None]
    K = dense(x1 @ x2.T / x1.shape[1])
    parts = [K]
    for _ in range(depth):
        even, slope = means(a, b, K)
        K = dense(even)
        parts = [W_std**2 * part for part in parts] + [K]
        a, b = dense(means(a, a, a)[0]), dense(means(b, b, b)[0])
    return np.stack(parts)


# %% layer_parts: wrong, "the sum of all parts at depth 2"
def layer_parts(x1, x2, depth, means):
    dense = lambda mean: W_std**2 * mean + b_std**2
    a, b = dense((x1**2).mean(1))[:, None], dense((x2**2).mean(1))[None]
    kernels, slopes = [dense(x1 @ x2.T / x1.shape[1])], []
    for _ in range(depth):
        even, slope = means(a, b, kernels[-1])
        kernels.append(dense(even))
        slopes.append(W_std**2 * slope)
        a, b = dense(means(a, a, a)[0]), dense(means(b, b, b)[0])
    # only the slopes of the next layer, not of all layers above
    return np.stack([K * s for K, s in zip(kernels, slopes)] + [kernels[-1]])


# %% layer_parts: right, as products of all slopes above
def layer_parts(x1, x2, depth, means):
    both = np.concatenate([x1, x2])
    K = W_std**2 * both @ both.T / both.shape[1] + b_std**2
    kernels, slopes = [K], []
    for _ in range(depth):
        d = np.diag(K)
        even, slope = means(d[:, None], d[None], K)
        K = W_std**2 * np.asarray(even) + b_std**2
        kernels.append(K)
        slopes.append(W_std**2 * np.asarray(slope))
    n1 = len(x1)
    return np.stack([K * np.prod(slopes[l:], axis=0) for l, K in enumerate(kernels)])[:, :n1, n1:]


# %% layer_parts: right, as differences of NTKs with frozen layers, in JAX
def layer_parts(x1, x2, depth, means):
    def theta(trained_from):
        dense = lambda mean: W_std**2 * mean + b_std**2
        a, b = dense((x1**2).mean(1))[:, None], dense((x2**2).mean(1))[None]
        K = jnp.asarray(dense(x1 @ x2.T / x1.shape[1]))
        result = K if trained_from == 0 else 0 * K
        for layer in range(1, depth + 1):
            even, slope = means(a, b, np.asarray(K))
            K = jnp.asarray(dense(even))
            result = W_std**2 * slope * result + (K if trained_from <= layer else 0)
            a, b = dense(means(a, a, a)[0]), dense(means(b, b, b)[0])
        return result

    thetas = jnp.stack([theta(l) for l in range(depth + 2)])
    return thetas[:-1] - thetas[1:]


# %% momentum_mean: wrong, "Is the 1/N of the loss missing"
def momentum_mean(theta_xX, theta_XX, y, friction, t):
    values, vectors = np.linalg.eigh(theta_XX)
    squares = np.maximum(values, 0)
    root = np.sqrt((friction / 2) ** 2 - squares + 1e-10j)
    slow, fast = friction / 2 - root, friction / 2 + root
    left = (fast * np.exp(-slow * t) - slow * np.exp(-fast * t)) / (fast - slow)
    zero = values < 1e-9
    at_zero = t / friction - (1 - np.exp(-friction * t)) / friction**2
    learned = np.where(zero, at_zero, (1 - left.real) / np.where(zero, 1, values))
    return theta_xX @ (vectors * learned) @ vectors.T @ y


# %% momentum_mean: wrong, "This is gradient flow, without inertia"
def momentum_mean(theta_xX, theta_XX, y, friction, t):
    values, vectors = np.linalg.eigh(theta_XX)
    rates = np.maximum(values, 1e-12) / len(y)
    return theta_xX @ (vectors * (-np.expm1(-rates * t) / rates / len(y))) @ vectors.T @ y


# %% momentum_mean: wrong, "gradient flow with the rate 1/γ"
def momentum_mean(theta_xX, theta_XX, y, friction, t):
    values, vectors = np.linalg.eigh(theta_XX)
    rates = np.maximum(values, 1e-12) / len(y)
    return theta_xX @ (vectors * (-np.expm1(-rates * t / friction) / rates / len(y))) @ vectors.T @ y


# %% momentum_mean: wrong, "was something divided by zero, or the root of a negative number"
def momentum_mean(theta_xX, theta_XX, y, friction, t):
    values, vectors = np.linalg.eigh(theta_XX)
    frequency = np.sqrt(values / len(y) - friction**2 / 4)  # every mode swings
    wave = np.cos(frequency * t) + friction / (2 * frequency) * np.sin(frequency * t)
    return theta_xX @ (vectors * ((1 - np.exp(-friction * t / 2) * wave) / values)) @ vectors.T @ y


# %% momentum_mean: wrong, "nan or inf for a mode between swinging and creeping"
def momentum_mean(theta_xX, theta_XX, y, friction, t):
    values, vectors = np.linalg.eigh(theta_XX)
    values = np.maximum(values, 1e-12)
    root = np.sqrt((friction / 2) ** 2 - values / len(y) + 0j)
    slow, fast = friction / 2 - root, friction / 2 + root
    left = (fast * np.exp(-slow * t) - slow * np.exp(-fast * t)) / (fast - slow)
    return theta_xX @ (vectors * ((1 - left.real) / values)) @ vectors.T @ y


# %% momentum_mean: wrong, "At t = 0 the outputs move already"
def momentum_mean(theta_xX, theta_XX, y, friction, t):
    values, vectors = np.linalg.eigh(theta_XX)
    values = np.maximum(values, 1e-12)
    root = np.sqrt((friction / 2) ** 2 - values / len(y) + 0j)
    left = np.exp((root - friction / 2) * t) / 2 + np.exp((-root - friction / 2) * t) / 2  # the cosine without the sine
    return theta_xX @ (vectors * ((1 - left.real) / values)) @ vectors.T @ y


# %% momentum_mean: wrong, "The friction is twice as large"
def momentum_mean(theta_xX, theta_XX, y, friction, t):
    values, vectors = np.linalg.eigh(theta_XX)
    values = np.maximum(values, 1e-12)
    root = np.sqrt(friction**2 - values / len(y) + 1e-12j)
    slow, fast = friction - root, friction + root
    left = (fast * np.exp(-slow * t) - slow * np.exp(-fast * t)) / (fast - slow)
    return theta_xX @ (vectors * ((1 - left.real) / values)) @ vectors.T @ y


# %% momentum_mean: wrong, "does a hyperbolic function overflow"
def momentum_mean(theta_xX, theta_XX, y, friction, t):
    values, vectors = np.linalg.eigh(theta_XX)
    values = np.maximum(values, 0)
    gap = (friction / 2) ** 2 - values / len(y)
    root = np.sqrt(np.maximum(np.abs(gap), 1e-14))
    even = np.where(gap > 0, np.cosh(root * t), np.cos(root * t))
    odd = np.where(gap > 0, np.sinh(root * t), np.sin(root * t)) / root
    left = np.exp(-friction * t / 2) * (even + friction / 2 * odd)
    zero = values < 1e-9
    return theta_xX @ (vectors * np.where(zero, 0, (1 - left) / np.where(zero, 1, values))) @ vectors.T @ y


# %% momentum_mean: right, by a matrix exponential for each mode
def momentum_mean(theta_xX, theta_XX, y, friction, t):
    from scipy.linalg import expm
    values, vectors = np.linalg.eigh(theta_XX)
    learned = []
    for square in np.maximum(values, 0) / len(y):
        system = np.array([[0, 1, 0], [-square, -friction, 1], [0, 0, 0]])
        learned.append(expm(system * t)[0, 2])
    return theta_xX @ (vectors * np.array(learned) / len(y)) @ vectors.T @ y


# %% momentum_mean: right, with the three cases and a threshold for zero, in JAX
def momentum_mean(theta_xX, theta_XX, y, friction, t):
    values, vectors = jnp.linalg.eigh(theta_XX)
    learned = []
    for value in np.asarray(values):
        gap = friction**2 / 4 - value / len(y)
        if value < 1e-10 * float(values[-1]):
            learned.append(0.0)  # Θ(x, X) has nothing along this mode
            continue
        if abs(gap) < 1e-11:
            left = np.exp(-friction * t / 2) * (1 + friction * t / 2)
        elif gap > 0:
            root = np.sqrt(gap)
            slow, fast = friction / 2 - root, friction / 2 + root
            left = (fast * np.exp(-slow * t) - slow * np.exp(-fast * t)) / (fast - slow)
        else:
            root = np.sqrt(-gap)
            left = np.exp(-friction * t / 2) * (np.cos(root * t) + friction / (2 * root) * np.sin(root * t))
        learned.append((1 - left) / value)
    return jnp.asarray(theta_xX) @ (vectors * jnp.array(learned)) @ vectors.T @ y


# %% leashed_ensemble: wrong, "The leash is too weak by a factor N"
def leashed_ensemble(kernel, x1, x2, X, y, beta, t):
    (K, _), (K_XX, theta_XX) = kernel(x1, x2), kernel(X, X)
    (K_1, theta_1), (K_2, theta_2) = kernel(x1, X), kernel(x2, X)
    values, vectors = np.linalg.eigh(theta_XX)
    rates = np.maximum(values, 1e-14) + beta
    psi = (vectors * (-np.expm1(-rates * t / len(y)) / rates)) @ vectors.T
    A_1, A_2 = theta_1 @ psi, theta_2 @ psi
    return A_1 @ y, K + A_1 @ K_XX @ A_2.T - A_1 @ K_2.T - K_1 @ A_2.T


# %% leashed_ensemble: wrong, "Training is faster here, but still goes to the labels"
def leashed_ensemble(kernel, x1, x2, X, y, beta, t):
    (K, _), (K_XX, theta_XX) = kernel(x1, x2), kernel(X, X)
    (K_1, theta_1), (K_2, theta_2) = kernel(x1, X), kernel(x2, X)
    values, vectors = np.linalg.eigh(theta_XX)
    values = np.maximum(values, 1e-14)
    psi = (vectors * (-np.expm1(-(values / len(y) + beta) * t) / values)) @ vectors.T
    A_1, A_2 = theta_1 @ psi, theta_2 @ psi
    return A_1 @ y, K + A_1 @ K_XX @ A_2.T - A_1 @ K_2.T - K_1 @ A_2.T


# %% leashed_ensemble: wrong, "This is the mean without a leash"
def leashed_ensemble(kernel, x1, x2, X, y, beta, t):
    from nteq.gradient_flow import GradientFlow
    from nteq.kernels import Kernels
    flow = GradientFlow(lambda a, b: Kernels(*kernel(a, b)), X, y)
    both = np.concatenate([x1, x2])
    return flow.mean(x1, min(t, 1e6)), flow.covariance(both, min(t, 1e6))[: len(x1), len(x1) :]


# %% leashed_ensemble: wrong, "Here the leash is tied to zero"
def leashed_ensemble(kernel, x1, x2, X, y, beta, t):
    (K, _), (K_XX, theta_XX) = kernel(x1, x2), kernel(X, X)
    (K_1, theta_1), (K_2, theta_2) = kernel(x1, X), kernel(x2, X)
    values, vectors = np.linalg.eigh(theta_XX)
    rates = np.maximum(values, 1e-14) / len(y)
    towards_y = (vectors * (-np.expm1(-(rates + beta) * t) / (rates + beta) / len(y))) @ vectors.T
    # d f/dt = −(Θ(f − y)/N + βf): what is left of the start decays everywhere
    from_start = np.exp(-beta * t) * (vectors * (-np.expm1(-rates * t) / rates / len(y))) @ vectors.T
    B_1, B_2 = theta_1 @ from_start, theta_2 @ from_start
    e = np.exp(-beta * t)
    return theta_1 @ towards_y @ y, e**2 * K + B_1 @ K_XX @ B_2.T - e * B_1 @ K_2.T - e * K_1 @ B_2.T


# %% leashed_ensemble: wrong, "The term with K(x1, X) is missing"
def leashed_ensemble(kernel, x1, x2, X, y, beta, t):
    (K, _), (K_XX, theta_XX) = kernel(x1, x2), kernel(X, X)
    (K_1, theta_1), (K_2, theta_2) = kernel(x1, X), kernel(x2, X)
    values, vectors = np.linalg.eigh(theta_XX)
    rates = np.maximum(values, 1e-14) / len(y) + beta
    psi = (vectors * (-np.expm1(-rates * t) / rates / len(y))) @ vectors.T
    A_1, A_2 = theta_1 @ psi, theta_2 @ psi
    return A_1 @ y, K + A_1 @ K_XX @ A_2.T - A_1 @ K_2.T


# %% leashed_ensemble: wrong, "Θ stands where K is needed"
def leashed_ensemble(kernel, x1, x2, X, y, beta, t):
    theta, theta_1, theta_2, theta_XX = (kernel(a, b)[1] for a, b in [(x1, x2), (x1, X), (x2, X), (X, X)])
    values, vectors = np.linalg.eigh(theta_XX)
    rates = np.maximum(values, 1e-14) / len(y) + beta
    psi = (vectors * (-np.expm1(-rates * t) / rates / len(y))) @ vectors.T
    A_1, A_2 = theta_1 @ psi, theta_2 @ psi
    return A_1 @ y, theta + A_1 @ theta_XX @ A_2.T - A_1 @ theta_2.T - theta_1 @ A_2.T


# %% leashed_ensemble: wrong, "contains nan or inf"
def leashed_ensemble(kernel, x1, x2, X, y, beta, t):
    (K, _), (K_XX, theta_XX) = kernel(x1, x2), kernel(X, X)
    (K_1, theta_1), (K_2, theta_2) = kernel(x1, X), kernel(x2, X)
    values, vectors = np.linalg.eigh(theta_XX)
    rates = np.maximum(values, 0) / len(y) + beta
    rates[rates < 1e-12] = 0
    psi = (vectors * ((1 - np.exp(-rates * t)) / rates / len(y))) @ vectors.T
    A_1, A_2 = theta_1 @ psi, theta_2 @ psi
    return A_1 @ y, K + A_1 @ K_XX @ A_2.T - A_1 @ K_2.T - K_1 @ A_2.T


# %% leashed_ensemble: right, with a joint start of test and training points, in JAX
def leashed_ensemble(kernel, x1, x2, X, y, beta, t):
    n1, n2, N = len(x1), len(x2), len(X)
    everywhere = np.concatenate([x1, x2, X])
    K, theta = map(jnp.asarray, kernel(everywhere, everywhere))
    values, vectors = jnp.linalg.eigh(theta[-N:, -N:])
    rates = jnp.maximum(values, 1e-300) / N + beta
    A = theta[:, -N:] @ (vectors * (-jnp.expm1(-rates * t) / rates / N)) @ vectors.T
    deviation = jnp.eye(n1 + n2 + N) - jnp.pad(A, ((0, 0), (n1 + n2, 0)))  # f_t − μ_t = (1 − A) f_0
    return (A @ y)[:n1], (deviation @ K @ deviation.T)[:n1, n1 : n1 + n2]


# %% leashed_ensemble: right, by a matrix exponential in the space of outputs
def leashed_ensemble(kernel, x1, x2, X, y, beta, t):
    from scipy.linalg import expm
    N = len(X)
    K_XX, theta_XX = kernel(X, X)
    if t == np.inf:
        psi = np.linalg.inv(theta_XX + N * beta * np.eye(N))
    else:  # d/dt c = (1 − (Θ + Nβ) c)/N for the coefficients of the labels
        system = np.zeros((2 * N, 2 * N))
        system[:N, :N], system[:N, N:] = -theta_XX / N - beta * np.eye(N), np.eye(N) / N
        psi = expm(system * t)[:N, N:]
    A_1, A_2 = kernel(x1, X)[1] @ psi, kernel(x2, X)[1] @ psi
    covariance = kernel(x1, x2)[0] + A_1 @ K_XX @ A_2.T - A_1 @ kernel(X, x2)[0] - kernel(x1, X)[0] @ A_2.T
    return A_1 @ y, covariance


# %% ring: wrong, "Other waves look like this one at the N points, and they help"
def ring(coefficients, N, q, angles, t):
    rate = coefficients[q] if q < len(coefficients) else 0
    if rate == 0:
        return np.inf, np.zeros(len(angles))
    return 1 / rate, -np.expm1(-rate * t) * np.cos(q * angles)


# %% ring: wrong, "k may be negative"
def ring(coefficients, N, q, angles, t):
    k = np.arange(q % N, len(coefficients), N)
    rate = coefficients[k].sum()
    if rate == 0:
        return np.inf, np.zeros(len(angles))
    return 1 / rate, -np.expm1(-rate * t) / rate * np.cos(np.outer(angles, k)) @ coefficients[k]


# %% ring: wrong, "There is a factor 1/N too much"
def ring(coefficients, N, q, angles, t):
    k = np.arange(1 - len(coefficients), len(coefficients))
    k = k[(k - q) % N == 0]
    c = coefficients[abs(k)]
    if c.sum() == 0:
        return np.inf, np.zeros(len(angles))
    rate = N * c.sum()  # the eigenvalue, as if the loss was a sum
    return 1 / rate, -np.expm1(-rate * t) / c.sum() * np.cos(np.outer(angles, k)) @ c


# %% ring: wrong, "Between the points this wave is not alone"
def ring(coefficients, N, q, angles, t):
    k = np.arange(1 - len(coefficients), len(coefficients))
    rate = coefficients[abs(k[(k - q) % N == 0])].sum()
    if rate == 0:
        return np.inf, np.zeros(len(angles))
    return 1 / rate, -np.expm1(-rate * t) * np.cos(min(q % N, -q % N) * angles)


# %% ring: wrong, "nothing is ever learned here, so it is np.inf"
def ring(coefficients, N, q, angles, t):
    k = np.arange(1 - len(coefficients), len(coefficients))
    k = k[(k - q) % N == 0]
    c = coefficients[abs(k)]
    rate = np.float64(c.sum())
    return 1 / (rate + 1e-300), -np.expm1(-rate * t) / (rate + 1e-300) * np.cos(np.outer(angles, k)) @ c


# %% ring: wrong, "Each c_k was counted twice"
def ring(coefficients, N, q, angles, t):
    c = np.r_[coefficients[0], 2 * coefficients[1:]]
    k = np.arange(1 - len(c), len(c))
    k = k[(k - q) % N == 0]
    rate = c[abs(k)].sum()
    if rate == 0:
        return np.inf, np.zeros(len(angles))
    return 1 / rate, -np.expm1(-rate * t) / rate * np.cos(np.outer(angles, k)) @ c[abs(k)]


# %% ring: wrong, "This is the time at which one half is missing"
def ring(coefficients, N, q, angles, t):
    k = np.arange(1 - len(coefficients), len(coefficients))
    k = k[(k - q) % N == 0]
    c = coefficients[abs(k)]
    if c.sum() == 0:
        return np.inf, np.zeros(len(angles))
    return np.log(2) / c.sum(), -np.expm1(-c.sum() * t) / c.sum() * np.cos(np.outer(angles, k)) @ c


# %% ring: right, with a loop over positive and negative waves
def ring(coefficients, N, q, angles, t):
    rate, waves = 0.0, np.zeros(len(angles))
    for k, c in enumerate(coefficients):
        for sign in (1, -1) if k else (1,):
            if (sign * k - q) % N == 0:
                rate += c
                waves += c * np.cos(k * np.asarray(angles))
    if rate == 0:
        return float("inf"), waves
    return 1 / rate, waves * (1 - np.exp(-rate * t)) / rate


# %% ring: right, with complex waves in JAX
def ring(coefficients, N, q, angles, t):
    c = jnp.asarray(coefficients)
    k = jnp.arange(1 - len(c), len(c))
    weights = c[jnp.abs(k)] * ((k - q) % N == 0)
    rate = float(weights.sum())
    filled = -jnp.expm1(-rate * t) / rate if rate else t
    return (1 / rate if rate else np.inf), filled * (jnp.exp(1j * jnp.outer(angles, k)) @ weights).real


# %% networks_needed: wrong, "M grows like z0²"
def networks_needed(K, K_other, z0):
    d = np.diag(K)
    D = np.linalg.solve(K, K_other) - np.eye(len(K))
    return z0 * (np.outer(d, d) + K**2) / (K_other - K) ** 2, 2 * z0 / np.trace(D @ D)


# %% networks_needed: wrong, "are not independent: use the fourth moment"
def networks_needed(K, K_other, z0):
    d = np.diag(K)
    D = np.linalg.solve(K, K_other) - np.eye(len(K))
    return z0**2 * np.outer(d, d) / (K_other - K) ** 2, 2 * z0**2 / np.trace(D @ D)


# %% networks_needed: wrong, "s is the standard deviation under K"
def networks_needed(K, K_other, z0):
    d = np.diag(K_other)
    D = np.linalg.solve(K, K_other) - np.eye(len(K))
    return z0**2 * (np.outer(d, d) + K_other**2) / (K_other - K) ** 2, 2 * z0**2 / np.trace(D @ D)


# %% networks_needed: wrong, "This is the best single input"
def networks_needed(K, K_other, z0):
    d = np.diag(K)
    pairs = z0**2 * (np.outer(d, d) + K**2) / (K_other - K) ** 2
    return pairs, pairs.min()


# %% networks_needed: wrong, "not the square of the trace"
def networks_needed(K, K_other, z0):
    d = np.diag(K)
    D = np.linalg.solve(K, K_other) - np.eye(len(K))
    return z0**2 * (np.outer(d, d) + K**2) / (K_other - K) ** 2, 2 * z0**2 / np.trace(D) ** 2


# %% networks_needed: wrong, "The inputs do not bring independent measurements"
def networks_needed(K, K_other, z0):
    d = np.diag(K)
    pairs = z0**2 * (np.outer(d, d) + K**2) / (K_other - K) ** 2
    return pairs, 1 / (1 / np.diag(pairs)).sum()


# %% networks_needed: wrong, "the others can add to it"
def networks_needed(K, K_other, z0):
    from scipy.linalg import eigh
    d = np.diag(K)
    pairs = z0**2 * (np.outer(d, d) + K**2) / (K_other - K) ** 2
    return pairs, 2 * z0**2 / ((eigh(K_other, K)[0] - 1) ** 2).max()  # the best combination w·f, squared


# %% networks_needed: right, from the eigenvalues of K' relative to K
def networks_needed(K, K_other, z0):
    from scipy.linalg import eigvalsh
    signal = np.abs(K_other - K)
    noise = np.sqrt(np.diag(K)[:, None] * np.diag(K) + K**2)
    pairs = np.full(K.shape, np.inf)
    pairs[signal > 0] = (z0 * noise[signal > 0] / signal[signal > 0]) ** 2
    return pairs, 2 * z0**2 / ((eigvalsh(K_other, K) - 1) ** 2).sum()


# %% networks_needed: right, with whitened coordinates in JAX
def networks_needed(K, K_other, z0):
    root = jnp.linalg.cholesky(K)
    white = jax.scipy.linalg.solve_triangular(root, jnp.asarray(K_other), lower=True)
    white = jax.scipy.linalg.solve_triangular(root, white.T, lower=True)
    d = jnp.diag(K)
    pairs = (z0 / (K_other - K)) ** 2 * (d[:, None] * d + K**2)
    return pairs, 2 * (z0 / jnp.linalg.norm(white - jnp.eye(len(K)))) ** 2


# %% squared_bias: wrong, "The sampling error is still in it"
def squared_bias(deviations):
    M = len(deviations)
    plain = lambda d: (d.mean(0) ** 2).mean()
    left = np.array([plain(np.delete(deviations, i, axis=0)) for i in range(M)])
    return plain(deviations), np.sqrt((M - 1) * left.var())

unpaired = np.array([squared_bias(f - mu) for _, _, f in trained.values()])
paired = np.array([squared_bias(f - s - (labels - s_X) @ A.T) for s, s_X, f in trained.values()])


# %% squared_bias: wrong, "over M − 1, not over M"
def squared_bias(deviations):
    M = len(deviations)
    estimate = lambda d: (d.mean(0) ** 2 - d.var(0) / len(d)).mean()
    left = np.array([estimate(np.delete(deviations, i, axis=0)) for i in range(M)])
    return estimate(deviations), np.sqrt((M - 1) * left.var())

unpaired = np.array([squared_bias(f - mu) for _, _, f in trained.values()])
paired = np.array([squared_bias(f - s - (labels - s_X) @ A.T) for s, s_X, f in trained.values()])


# %% squared_bias: wrong, "not that of one member"
def squared_bias(deviations):
    M = len(deviations)
    estimate = lambda d: (d.mean(0) ** 2 - d.var(0, ddof=1)).mean()
    left = np.array([estimate(np.delete(deviations, i, axis=0)) for i in range(M)])
    return estimate(deviations), np.sqrt((M - 1) * left.var())

unpaired = np.array([squared_bias(f - mu) for _, _, f in trained.values()])
paired = np.array([squared_bias(f - s - (labels - s_X) @ A.T) for s, s_X, f in trained.values()])


# %% squared_bias: wrong, "It was cut off at zero"
def squared_bias(deviations):
    M = len(deviations)
    estimate = lambda d: max(0.0, (d.mean(0) ** 2 - d.var(0, ddof=1) / len(d)).mean())
    left = np.array([estimate(np.delete(deviations, i, axis=0)) for i in range(M)]) if M > 2 else np.zeros(M)
    return estimate(deviations), np.sqrt((M - 1) * left.var())

unpaired = np.array([squared_bias(f - mu) for _, _, f in trained.values()])
paired = np.array([squared_bias(f - s - (labels - s_X) @ A.T) for s, s_X, f in trained.values()])


# %% squared_bias: wrong, "the members in another order"
def squared_bias(deviations):
    M = len(deviations)
    # two parts, as in the chapter's exercise
    estimate = lambda d: (d[: len(d) // 2].mean(0) * d[len(d) // 2 :].mean(0)).mean()
    left = np.array([estimate(np.delete(deviations, i, axis=0)) for i in range(M)])
    return estimate(deviations), np.sqrt((M - 1) * left.var())

unpaired = np.array([squared_bias(f - mu) for _, _, f in trained.values()])
paired = np.array([squared_bias(f - s - (labels - s_X) @ A.T) for s, s_X, f in trained.values()])


# %% squared_bias: wrong, "it has to be multiplied by √(M − 1)"
def squared_bias(deviations):
    M = len(deviations)
    estimate = lambda d: (d.mean(0) ** 2 - d.var(0, ddof=1) / len(d)).mean()
    left = np.array([estimate(np.delete(deviations, i, axis=0)) for i in range(M)])
    return estimate(deviations), left.std()

unpaired = np.array([squared_bias(f - mu) for _, _, f in trained.values()])
paired = np.array([squared_bias(f - s - (labels - s_X) @ A.T) for s, s_X, f in trained.values()])


# %% squared_bias: wrong, "was each member compared with the prediction from its own start"
def squared_bias(deviations):
    M = len(deviations)
    total, squares = deviations.sum(0), (deviations**2).sum(0)
    left = ((total - deviations) ** 2 - (squares - deviations**2)) / ((M - 1) * (M - 2))
    return ((total**2 - squares) / (M * (M - 1))).mean(), np.sqrt((M - 1) * left.mean(1).var())

unpaired = np.array([squared_bias(f - mu) for _, _, f in trained.values()])
paired = unpaired


# %% squared_bias: wrong, "the start was subtracted without what training adds to it"
def squared_bias(deviations):
    M = len(deviations)
    total, squares = deviations.sum(0), (deviations**2).sum(0)
    left = ((total - deviations) ** 2 - (squares - deviations**2)) / ((M - 1) * (M - 2))
    return ((total**2 - squares) / (M * (M - 1))).mean(), np.sqrt((M - 1) * left.mean(1).var())

unpaired = np.array([squared_bias(f - mu) for _, _, f in trained.values()])
paired = np.array([squared_bias(f - start - mu) for start, _, f in trained.values()])


# %% squared_bias: wrong, "paired has not been measured"
def squared_bias(deviations):
    M = len(deviations)
    total, squares = deviations.sum(0), (deviations**2).sum(0)
    left = ((total - deviations) ** 2 - (squares - deviations**2)) / ((M - 1) * (M - 2))
    return ((total**2 - squares) / (M * (M - 1))).mean(), np.sqrt((M - 1) * left.mean(1).var())

unpaired = np.array([squared_bias(f - mu) for _, _, f in trained.values()])
paired = None


# %% squared_bias: right, by the variance, with a loop for the jackknife
def squared_bias(deviations):
    M = len(deviations)
    estimate = lambda d: np.mean(d.mean(0) ** 2 - d.var(0, ddof=1) / len(d))
    left = np.array([estimate(np.concatenate([deviations[:i], deviations[i + 1 :]])) for i in range(M)])
    return float(estimate(deviations)), float(np.sqrt((M - 1) / M * ((left - left.mean()) ** 2).sum()))

unpaired = [squared_bias(f - mu) for _, _, f in trained.values()]
paired = [squared_bias(f - (s + (labels - s_X) @ A.T)) for s, s_X, f in trained.values()]


# %% squared_bias: right, from the Gram matrix of the members, in JAX
def squared_bias(deviations):
    d = jnp.asarray(deviations)
    M, n = d.shape
    products = d @ d.T / n
    products = products - jnp.diag(jnp.diag(products))
    total = products.sum()
    left = (total - 2 * products.sum(1)) / ((M - 1) * (M - 2))
    return total / (M * (M - 1)), jnp.sqrt((M - 1) * left.var())

unpaired = jnp.array([squared_bias(f - mu) for _, _, f in trained.values()])
paired = jnp.array([squared_bias(f - s + s_X @ A.T - mu) for s, s_X, f in trained.values()])
