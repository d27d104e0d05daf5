# Answers to problem set 2 that students may hand in. A wrong one is followed by the words that its test has to say.

# %% jacobian: wrong, "the standard parameterisation"
def jacobian(params, x, phi, dphi, W_std, b_std):
    # derivatives by w = W_std W / √fan-in and β = b_std b
    below, h = [], [x]
    for w, b in params:
        below.append(phi(h[-1]) if below else x)
        h.append(W_std / len(w) ** 0.5 * below[-1] @ w + b_std * b)
    n, outputs = h[-1].shape
    delta, parts = np.broadcast_to(np.eye(outputs), (n, outputs, outputs)), []
    for layer in reversed(range(len(params))):
        w = params[layer][0]
        by_w = below[layer][:, None, :, None] * delta[:, :, None, :]
        parts += [b_std * delta, by_w.reshape(n, outputs, -1)]
        if layer > 0:
            delta = W_std / len(w) ** 0.5 * delta @ w.T * dphi(h[layer])[:, None]
    return np.concatenate(parts[::-1], axis=2)


# %% jacobian: wrong, "The factor σ_b is missing"
def jacobian(params, x, phi, dphi, W_std, b_std):
    below, h = [], [x]
    for w, b in params:
        below.append(phi(h[-1]) if below else x)
        h.append(W_std / len(w) ** 0.5 * below[-1] @ w + b_std * b)
    n, outputs = h[-1].shape
    delta, parts = np.broadcast_to(np.eye(outputs), (n, outputs, outputs)), []
    for layer in reversed(range(len(params))):
        w = params[layer][0]
        scale = W_std / len(w) ** 0.5
        parts += [delta, (scale * below[layer][:, None, :, None] * delta[:, :, None, :]).reshape(n, outputs, -1)]
        if layer > 0:
            delta = scale * delta @ w.T * dphi(h[layer])[:, None]
    return np.concatenate(parts[::-1], axis=2)


# %% jacobian: wrong, "these parameters were left out"
def jacobian(params, x, phi, dphi, W_std, b_std):
    below, h = [], [x]
    for w, b in params:
        below.append(phi(h[-1]) if below else x)
        h.append(W_std / len(w) ** 0.5 * below[-1] @ w + b_std * b)
    n, outputs = h[-1].shape
    delta, parts = np.broadcast_to(np.eye(outputs), (n, outputs, outputs)), []
    for layer in reversed(range(len(params))):
        w = params[layer][0]
        scale = W_std / len(w) ** 0.5
        by_w = scale * below[layer][:, None, :, None] * delta[:, :, None, :]
        parts += [0 * delta, by_w.reshape(n, outputs, -1)]
        if layer > 0:
            delta = scale * delta @ w.T * dphi(h[layer])[:, None]
    return np.concatenate(parts[::-1], axis=2)


# %% jacobian: wrong, "column by column"
def jacobian(params, x, phi, dphi, W_std, b_std):
    below, h = [], [x]
    for w, b in params:
        below.append(phi(h[-1]) if below else x)
        h.append(W_std / len(w) ** 0.5 * below[-1] @ w + b_std * b)
    n, outputs = h[-1].shape
    delta, parts = np.broadcast_to(np.eye(outputs), (n, outputs, outputs)), []
    for layer in reversed(range(len(params))):
        w = params[layer][0]
        scale = W_std / len(w) ** 0.5
        by_w = scale * delta[:, :, :, None] * below[layer][:, None, None, :]
        parts += [b_std * delta, by_w.reshape(n, outputs, -1)]
        if layer > 0:
            delta = scale * delta @ w.T * dphi(h[layer])[:, None]
    return np.concatenate(parts[::-1], axis=2)


# %% jacobian: wrong, "The derivative of φ was taken at φ(h)"
def jacobian(params, x, phi, dphi, W_std, b_std):
    below, h = [], [x]
    for w, b in params:
        below.append(phi(h[-1]) if below else x)
        h.append(W_std / len(w) ** 0.5 * below[-1] @ w + b_std * b)
    n, outputs = h[-1].shape
    delta, parts = np.broadcast_to(np.eye(outputs), (n, outputs, outputs)), []
    for layer in reversed(range(len(params))):
        w = params[layer][0]
        scale = W_std / len(w) ** 0.5
        by_w = scale * below[layer][:, None, :, None] * delta[:, :, None, :]
        parts += [b_std * delta, by_w.reshape(n, outputs, -1)]
        if layer > 0:
            delta = scale * delta @ w.T * dphi(below[layer])[:, None]
    return np.concatenate(parts[::-1], axis=2)


# %% jacobian: wrong, "On the way back through the layer above, its factor σ_w/√(fan-in) is missing"
def jacobian(params, x, phi, dphi, W_std, b_std):
    below, h = [], [x]
    for w, b in params:
        below.append(phi(h[-1]) if below else x)
        h.append(W_std / len(w) ** 0.5 * below[-1] @ w + b_std * b)
    n, outputs = h[-1].shape
    delta, parts = np.broadcast_to(np.eye(outputs), (n, outputs, outputs)), []
    for layer in reversed(range(len(params))):
        w = params[layer][0]
        by_w = W_std / len(w) ** 0.5 * below[layer][:, None, :, None] * delta[:, :, None, :]
        parts += [b_std * delta, by_w.reshape(n, outputs, -1)]
        if layer > 0:
            delta = delta @ w.T * dphi(h[layer])[:, None]
    return np.concatenate(parts[::-1], axis=2)


# %% jacobian: wrong, "The factor 1/√(fan-in) is missing on the way forwards as well"
def jacobian(params, x, phi, dphi, W_std, b_std):
    below, h = [], [x]
    for w, b in params:
        below.append(phi(h[-1]) if below else x)
        h.append(W_std * below[-1] @ w + b_std * b)
    n, outputs = h[-1].shape
    delta, parts = np.broadcast_to(np.eye(outputs), (n, outputs, outputs)), []
    for layer in reversed(range(len(params))):
        w = params[layer][0]
        by_w = W_std * below[layer][:, None, :, None] * delta[:, :, None, :]
        parts += [b_std * delta, by_w.reshape(n, outputs, -1)]
        if layer > 0:
            delta = W_std * delta @ w.T * dphi(h[layer])[:, None]
    return np.concatenate(parts[::-1], axis=2)


# %% jacobian: wrong, "The last layer stands first"
def jacobian(params, x, phi, dphi, W_std, b_std):
    below, h = [], [x]
    for w, b in params:
        below.append(phi(h[-1]) if below else x)
        h.append(W_std / len(w) ** 0.5 * below[-1] @ w + b_std * b)
    n, outputs = h[-1].shape
    delta, parts = np.broadcast_to(np.eye(outputs), (n, outputs, outputs)), []
    for layer in reversed(range(len(params))):
        w = params[layer][0]
        scale = W_std / len(w) ** 0.5
        by_w = scale * below[layer][:, None, :, None] * delta[:, :, None, :]
        parts += [by_w.reshape(n, outputs, -1), b_std * delta]
        if layer > 0:
            delta = scale * delta @ w.T * dphi(h[layer])[:, None]
    return np.concatenate(parts, axis=2)


# %% jacobian: wrong, "In each layer b stands before W"
def jacobian(params, x, phi, dphi, W_std, b_std):
    below, h = [], [x]
    for w, b in params:
        below.append(phi(h[-1]) if below else x)
        h.append(W_std / len(w) ** 0.5 * below[-1] @ w + b_std * b)
    n, outputs = h[-1].shape
    delta, parts = np.broadcast_to(np.eye(outputs), (n, outputs, outputs)), []
    for layer in reversed(range(len(params))):
        w = params[layer][0]
        scale = W_std / len(w) ** 0.5
        by_w = scale * below[layer][:, None, :, None] * delta[:, :, None, :]
        parts += [by_w.reshape(n, outputs, -1), b_std * delta]
        if layer > 0:
            delta = scale * delta @ w.T * dphi(h[layer])[:, None]
    return np.concatenate(parts[::-1], axis=2)


# %% jacobian: wrong, "a difference quotient is not"
def jacobian(params, x, phi, dphi, W_std, b_std):
    return by_differences(lambda p: network(p, x, phi, W_std, b_std), params)


# %% jacobian: right, forwards only, with the derivatives of every layer by all parameters
def jacobian(params, x, phi, dphi, W_std, b_std):
    n, total = len(x), sum(w.size + b.size for w, b in params)
    a, da, done = x, np.zeros((n, x.shape[1], total)), 0
    for layer, (w, b) in enumerate(params):
        scale = W_std / w.shape[0] ** 0.5
        h = scale * a @ w + b_std * b
        dh = scale * np.einsum("njp,jk->nkp", da, w)
        for j in range(w.shape[0]):
            for k in range(w.shape[1]):
                dh[:, k, done + j * w.shape[1] + k] += scale * a[:, j]
        done += w.size
        for k in range(b.size):
            dh[:, k, done + k] += b_std
        done += b.size
        a, da = phi(h), dphi(h)[:, :, None] * dh
    return dh


# %% jacobian: right, one example and one output after the other
def jacobian(params, x, phi, dphi, W_std, b_std):
    rows = []
    for point in np.asarray(x):
        below, h = [point], []
        for w, b in params:
            h.append(W_std / np.sqrt(w.shape[0]) * below[-1] @ w + b_std * b)
            below.append(phi(h[-1]))
        for a in range(len(h[-1])):
            delta, row = np.eye(len(h[-1]))[a], []
            for layer in range(len(params) - 1, -1, -1):
                w = params[layer][0]
                row = [W_std / np.sqrt(w.shape[0]) * np.outer(below[layer], delta).ravel(), b_std * delta, *row]
                if layer:
                    delta = W_std / np.sqrt(w.shape[0]) * (w @ delta) * dphi(h[layer - 1])
            rows.append(np.concatenate(row))
    return jnp.asarray(rows).reshape(len(x), -1, len(rows[0]))


# %% ntk_parts: wrong, "the groups were added up"
def ntk_parts(jacobian1, jacobian2, sizes):
    return np.einsum("iap,jbp->ijab", jacobian1, jacobian2)


# %% ntk_parts: wrong, "the outputs were summed over"
def ntk_parts(jacobian1, jacobian2, sizes):
    ends = np.cumsum(sizes)
    return np.stack([np.einsum("iap,jap->ij", jacobian1[:, :, e - s : e], jacobian2[:, :, e - s : e])
                     for s, e in zip(sizes, ends)])


# %% ntk_parts: wrong, "a belongs to the first input, b to the second"
def ntk_parts(jacobian1, jacobian2, sizes):
    ends = np.cumsum(sizes)
    return np.stack([np.einsum("iap,jbp->ijba", jacobian1[:, :, e - s : e], jacobian2[:, :, e - s : e])
                     for s, e in zip(sizes, ends)])


# %% ntk_parts: wrong, "i belongs to the first Jacobian"
def ntk_parts(jacobian1, jacobian2, sizes):
    ends = np.cumsum(sizes)
    return np.stack([np.einsum("iap,jbp->jiab", jacobian1[:, :, e - s : e], jacobian2[:, :, e - s : e])
                     for s, e in zip(sizes, ends)])


# %% ntk_parts: wrong, "divided by the number of parameters"
def ntk_parts(jacobian1, jacobian2, sizes):
    ends = np.cumsum(sizes)
    return np.stack([np.einsum("iap,jbp->ijab", jacobian1[:, :, e - s : e], jacobian2[:, :, e - s : e])
                     for s, e in zip(sizes, ends)]) / sum(sizes)


# %% ntk_parts: wrong, "Only the entries with a = b are there"
def ntk_parts(jacobian1, jacobian2, sizes):
    ends = np.cumsum(sizes)
    same = np.stack([np.einsum("iap,jap->ija", jacobian1[:, :, e - s : e], jacobian2[:, :, e - s : e])
                     for s, e in zip(sizes, ends)])
    return same[..., None] * np.eye(same.shape[-1])


# %% ntk_parts: right, by matrix products
def ntk_parts(jacobian1, jacobian2, sizes):
    n1, outputs, _ = jacobian1.shape
    n2, parts, start = len(jacobian2), [], 0
    for size in sizes:
        a = jacobian1[:, :, start : start + size].reshape(n1 * outputs, size)
        b = jacobian2[:, :, start : start + size].reshape(n2 * outputs, size)
        parts.append((a @ b.T).reshape(n1, outputs, n2, outputs).transpose(0, 2, 1, 3))
        start += size
    return np.array(parts)


# %% ntk_parts: right, with a mask for each group, in JAX
def ntk_parts(jacobian1, jacobian2, sizes):
    group = jnp.repeat(jnp.arange(len(sizes)), jnp.array(sizes))
    mask = (group == jnp.arange(len(sizes))[:, None]).astype(float)
    return jnp.einsum("gp,iap,jbp->gijab", mask, jacobian1, jacobian2)


# %% standard_ntk: wrong, "Every factor is the inverse"
def standard_ntk(parts, fan_ins, W_std, b_std, W_rates, b_rates):
    total = 0
    for l, fan_in in enumerate(fan_ins):
        total = total + W_rates[l] * W_std**2 / fan_in * parts[2 * l] + b_rates[l] * b_std**2 * parts[2 * l + 1]
    return total

def matching_rates(fan_ins, W_std, b_std):
    return np.array(fan_ins) / W_std**2, np.full(len(fan_ins), b_std**-2.0)


# %% standard_ntk: wrong, "the kernel has two"
def standard_ntk(parts, fan_ins, W_std, b_std, W_rates, b_rates):
    total = 0
    for l, fan_in in enumerate(fan_ins):
        total = total + W_rates[l] * fan_in**0.5 / W_std * parts[2 * l] + b_rates[l] / b_std * parts[2 * l + 1]
    return total

def matching_rates(fan_ins, W_std, b_std):
    return W_std / np.sqrt(fan_ins), np.full(len(fan_ins), b_std)


# %% standard_ntk: wrong, "A bias has no fan-in"
def standard_ntk(parts, fan_ins, W_std, b_std, W_rates, b_rates):
    total = 0
    for l, n in enumerate(fan_ins):
        total = total + W_rates[l] * n / W_std**2 * parts[2 * l] + b_rates[l] * n / b_std**2 * parts[2 * l + 1]
    return total

def matching_rates(fan_ins, W_std, b_std):
    return W_std**2 / np.array(fan_ins), b_std**2 / np.array(fan_ins)


# %% standard_ntk: wrong, "σ_w and σ_b are missing"
def standard_ntk(parts, fan_ins, W_std, b_std, W_rates, b_rates):
    return sum(W_rates[l] * n * parts[2 * l] + b_rates[l] * parts[2 * l + 1] for l, n in enumerate(fan_ins))

def matching_rates(fan_ins, W_std, b_std):
    return 1 / np.array(fan_ins), np.ones(len(fan_ins))


# %% standard_ntk: wrong, "nothing was converted"
def standard_ntk(parts, fan_ins, W_std, b_std, W_rates, b_rates):
    return sum(W_rates[l] * parts[2 * l] + b_rates[l] * parts[2 * l + 1] for l in range(len(fan_ins)))

def matching_rates(fan_ins, W_std, b_std):
    return np.ones(len(fan_ins)), np.ones(len(fan_ins))


# %% standard_ntk: wrong, "A wide layer needs the smaller rate"
def standard_ntk(parts, fan_ins, W_std, b_std, W_rates, b_rates):
    total = 0
    for l, fan_in in enumerate(fan_ins):
        total = total + W_rates[l] * fan_in / W_std**2 * parts[2 * l] + b_rates[l] / b_std**2 * parts[2 * l + 1]
    return total

def matching_rates(fan_ins, W_std, b_std):
    return np.array(fan_ins) / W_std**2, np.full(len(fan_ins), b_std**-2.0)


# %% standard_ntk: right, with a loop and lists
def standard_ntk(parts, fan_ins, W_std, b_std, W_rates, b_rates):
    total = jnp.zeros(parts.shape[1:])
    for l, fan_in in enumerate(fan_ins):
        total += W_rates[l] * fan_in / W_std**2 * parts[2 * l] + b_rates[l] / b_std**2 * parts[2 * l + 1]
    return total

def matching_rates(fan_ins, W_std, b_std):
    return [W_std**2 / n for n in fan_ins], [b_std**2 for _ in fan_ins]


# %% standard_ntk: right, as a quotient of rates
def standard_ntk(parts, fan_ins, W_std, b_std, W_rates, b_rates):
    w, b = matching_rates(fan_ins, W_std, b_std)
    ratios = jnp.stack([jnp.asarray(W_rates) / w, jnp.asarray(b_rates) / b], axis=1).ravel()
    return jnp.einsum("g,gijab->ijab", ratios, parts)

def matching_rates(fan_ins, W_std, b_std):
    return W_std**2 / jnp.array(fan_ins), b_std**2 * jnp.ones(len(fan_ins))


# %% ntk_times_vector: wrong, "v lives at x2, the result at x1"
def ntk_times_vector(apply, params, x1, x2, v):
    backward = jax.vjp(lambda p: apply(p, x1), params)[1]
    return jax.jvp(lambda p: apply(p, x2), (params,), backward(jnp.asarray(v)))[1]


# %% ntk_times_vector: wrong, "Both halves of the kernel were taken at x1"
def ntk_times_vector(apply, params, x1, x2, v):
    f = lambda p: apply(p, x1)
    return jax.jvp(f, (params,), jax.vjp(f, params)[1](jnp.asarray(v)))[1]


# %% ntk_times_vector: wrong, "did not manage 4000 inputs"
def ntk_times_vector(apply, params, x1, x2, v):
    j1, j2 = (jax.tree.leaves(jax.jacobian(apply)(params, x)) for x in (x1, x2))
    v = jnp.asarray(v)
    flat = lambda j: j.reshape(*j.shape[: v.ndim], -1)
    return sum(flat(a) @ jnp.tensordot(v, flat(b), v.ndim) for a, b in zip(j1, j2))


# %% ntk_times_vector: wrong, "did not manage 4000 inputs"
def ntk_times_vector(apply, params, x1, x2, v):
    def column(e):  # column by column, all at once
        return jax.jvp(lambda p: apply(p, x1), (params,), jax.vjp(lambda p: apply(p, x2), params)[1](e))[1]
    columns = jax.vmap(column)(jnp.eye(v.size).reshape(v.size, *v.shape))
    return jnp.tensordot(jnp.asarray(v).ravel(), columns, 1)


# %% ntk_times_vector: wrong, "half of the way"
def ntk_times_vector(apply, params, x1, x2, v):
    return jax.vjp(lambda p: apply(p, x2), params)[1](jnp.asarray(v))[0]


# %% ntk_times_vector: wrong, "Only the entries with a = b were used"
def ntk_times_vector(apply, params, x1, x2, v):
    v, total = jnp.asarray(v), []
    if v.ndim == 1:
        backward = jax.vjp(lambda p: apply(p, x2), params)[1]
        return jax.jvp(lambda p: apply(p, x1), (params,), backward(v))[1]
    for a in range(v.shape[1]):
        backward = jax.vjp(lambda p: apply(p, x2)[:, a], params)[1]
        total.append(jax.jvp(lambda p: apply(p, x1)[:, a], (params,), backward(v[:, a]))[1])
    return jnp.stack(total, axis=1)


# %% ntk_times_vector: wrong, "finite differences, or float32?"
def ntk_times_vector(apply, params, x1, x2, v):
    direction = jax.grad(lambda p: jnp.vdot(apply(p, x2), v))(params)
    moved = jax.tree.map(lambda p, d: p + 1e-5 * d, params, direction)
    return (apply(moved, x1) - apply(params, x1)) / 1e-5


# %% ntk_times_vector: wrong, "divided by the number of inputs"
def ntk_times_vector(apply, params, x1, x2, v):
    direction = jax.grad(lambda p: jnp.vdot(apply(p, x2), v) / len(x2))(params)
    return jax.jvp(lambda p: apply(p, x1), (params,), (direction,))[1]


# %% ntk_times_vector: right, with a gradient and a linearisation
def ntk_times_vector(apply, params, x1, x2, v):
    direction = jax.grad(lambda p: (apply(p, x2) * v).sum())(params)
    return jax.linearize(lambda p: apply(p, x1), params)[1](direction)


# %% ntk_times_vector: right, with the transpose of a derivative
def ntk_times_vector(apply, params, x1, x2, v):
    push = lambda x: lambda d: jax.jvp(lambda p: apply(p, x), (params,), (d,))[1]
    (direction,) = jax.linear_transpose(push(x2), params)(jnp.asarray(v))
    return push(x1)(direction)


# %% ntk_times_vector: right, block by block
def ntk_times_vector(apply, params, x1, x2, v):
    gradient = jax.jit(jax.grad(lambda p, x, u: (apply(p, x) * u).sum()))
    total = None
    for start in range(0, len(x2), 1000):
        part = gradient(params, x2[start : start + 1000], jnp.asarray(v)[start : start + 1000])
        total = part if total is None else jax.tree.map(jnp.add, total, part)
    return np.concatenate([jax.jvp(lambda p: apply(p, x1[start : start + 1000]), (params,), (total,))[1]
                           for start in range(0, len(x1), 1000)])


# %% largest_step: wrong, "Is the factor N of the loss missing?"
def largest_step(product, shape, momentum):
    v = np.random.default_rng(0).normal(size=shape)
    for _ in range(200):
        v = v / np.linalg.norm(v)
        before, v = v, np.asarray(product(v))
    return 2 * (1 + momentum) / np.vdot(before, v)


# %% largest_step: wrong, "N counts the inputs, not the outputs"
def largest_step(product, shape, momentum):
    v = np.random.default_rng(0).normal(size=shape)
    for _ in range(200):
        v = v / np.linalg.norm(v)
        before, v = v, np.asarray(product(v))
    return 2 * (1 + momentum) * shape[0] * shape[1] / np.vdot(before, v)


# %% largest_step: wrong, "only changes its sign"
def largest_step(product, shape, momentum):
    v = np.random.default_rng(0).normal(size=shape)
    for _ in range(200):
        v = v / np.linalg.norm(v)
        before, v = v, np.asarray(product(v))
    return (1 + momentum) * shape[0] / np.vdot(before, v)


# %% largest_step: wrong, "the step without momentum"
def largest_step(product, shape, momentum):
    v = np.random.default_rng(0).normal(size=shape)
    for _ in range(200):
        v = v / np.linalg.norm(v)
        before, v = v, np.asarray(product(v))
    return 2 * shape[0] / np.vdot(before, v)


# %% largest_step: wrong, "Momentum makes the stable range larger"
def largest_step(product, shape, momentum):
    v = np.random.default_rng(0).normal(size=shape)
    for _ in range(200):
        v = v / np.linalg.norm(v)
        before, v = v, np.asarray(product(v))
    return 2 * (1 - momentum) * shape[0] / np.vdot(before, v)


# %% largest_step: wrong, "This belongs to the trace"
def largest_step(product, shape, momentum):
    trace = 0.0
    for k in range(shape[0] * shape[1]):
        e = np.zeros(shape)
        e.flat[k] = 1
        trace += np.vdot(e, product(e))
    return 2 * (1 + momentum) * shape[0] / trace


# %% largest_step: wrong, "product was called more than 250 times"
def largest_step(product, shape, momentum):
    basis = np.eye(shape[0] * shape[1]).reshape(-1, *shape)
    matrix = np.stack([np.asarray(product(e)).ravel() for e in basis])
    return 2 * (1 + momentum) * shape[0] / np.linalg.eigvalsh(matrix)[-1]


# %% largest_step: wrong, "Has the iteration converged?"
def largest_step(product, shape, momentum):
    v = np.random.default_rng(0).normal(size=shape)
    for _ in range(30):
        v = v / np.linalg.norm(v)
        before, v = v, np.asarray(product(v))
    return 2 * (1 + momentum) * shape[0] / np.vdot(before, v)


# %% largest_step: wrong, "a vector of ones"
def largest_step(product, shape, momentum):
    v = np.ones(shape)
    for _ in range(200):
        v = v / np.linalg.norm(v)
        before, v = v, np.asarray(product(v))
    return 2 * (1 + momentum) * shape[0] / np.vdot(before, v)


# %% largest_step: right, with Lanczos from SciPy
def largest_step(product, shape, momentum):
    from scipy.sparse.linalg import LinearOperator, eigsh

    size = shape[0] * shape[1]
    operator = LinearOperator((size, size), lambda v: np.asarray(product(v.reshape(shape))).ravel(), dtype=float)
    value = eigsh(operator, k=1, which="LA", return_eigenvectors=False, v0=np.random.default_rng(1).normal(size=size))
    return 2 * (1 + momentum) * shape[0] / value[0]


# %% largest_step: right, in JAX until nothing changes
def largest_step(product, shape, momentum):
    v, old, new = jax.random.normal(jax.random.key(0), shape), 0.0, 1.0
    calls = 0
    while abs(new - old) > 1e-13 * new and calls < 250:
        v = product(v / jnp.linalg.norm(v))
        old, new, calls = new, jnp.linalg.norm(v), calls + 1
    return 2 * (1 + momentum) * shape[0] / new


# %% largest_step: right, the step at which -1 is a root
def largest_step(product, shape, momentum):
    product = jax.jit(product)
    v = jnp.asarray(np.random.default_rng(2).normal(size=shape))
    v = jax.lax.fori_loop(0, 300, lambda _, v: product(v) / jnp.linalg.norm(product(v)), v)
    rate = jnp.vdot(v, product(v)) / shape[0]
    return float((1 + (1 + momentum) + momentum) / rate)  # z² − (1 + β − ε rate) z + β at z = −1


# %% flow: wrong, "The sign is wrong"
def flow(theta, f, labels, eta):
    residual = np.asarray(jax.nn.softmax(f)) - np.eye(f.shape[1])[labels]
    return eta / len(f) * np.einsum("ijab,jb->ia", theta, residual)


# %% flow: wrong, "Softmax is missing"
def flow(theta, f, labels, eta):
    return -eta / len(f) * np.einsum("ijab,jb->ia", theta, f - np.eye(f.shape[1])[labels])


# %% flow: wrong, "The label is missing"
def flow(theta, f, labels, eta):
    return -eta / len(f) * np.einsum("ijab,jb->ia", theta, np.asarray(jax.nn.softmax(f)))


# %% flow: wrong, "The factor 1/N of the loss is missing"
def flow(theta, f, labels, eta):
    residual = np.asarray(jax.nn.softmax(f)) - np.eye(f.shape[1])[labels]
    return -eta * np.einsum("ijab,jb->ia", theta, residual)


# %% flow: wrong, "the second belongs to the training input"
def flow(theta, f, labels, eta):
    residual = np.asarray(jax.nn.softmax(f)) - np.eye(f.shape[1])[labels]
    return -eta / len(f) * np.einsum("ijba,jb->ia", theta, residual)


# %% flow: wrong, "contains nan or inf"
def flow(theta, f, labels, eta):
    p = np.exp(f) / np.exp(f).sum(1, keepdims=True)
    return -eta / len(f) * np.einsum("ijab,jb->ia", theta, p - np.eye(f.shape[1])[labels])


# %% flow: wrong, "where is the part of p that has no label?"
def flow(theta, f, labels, eta):
    onehot = np.eye(f.shape[1])[labels]
    residual = (np.asarray(jax.nn.softmax(f)) - 1) * onehot
    return -eta / len(f) * np.einsum("ijab,jb->ia", theta, residual)


# %% flow: wrong, "Softmax was taken over the inputs"
def flow(theta, f, labels, eta):
    residual = np.asarray(jax.nn.softmax(f, axis=0)) - np.eye(f.shape[1])[labels]
    return -eta / len(f) * np.einsum("ijab,jb->ia", theta, residual)


# %% flow: right, with the gradient of the loss by the logits
def flow(theta, f, labels, eta):
    loss = lambda f: -jax.nn.log_softmax(f)[jnp.arange(len(f)), labels].mean()
    return -eta * jnp.tensordot(theta, jax.grad(loss)(jnp.asarray(f)), ((1, 3), (0, 1)))


# %% flow: right, with loops
def flow(theta, f, labels, eta):
    from scipy.special import softmax

    rate = np.zeros((theta.shape[0], f.shape[1]))
    for i, (row, label) in enumerate(zip(f, labels)):
        missing = -softmax(row)
        missing[label] += 1
        rate += eta / len(f) * theta[:, i] @ missing
    return rate


# %% random_step: wrong, "The sign is wrong"
def random_step(theta, residual, size, together):
    change = size / residual.shape[1] * theta * residual
    mean = change.mean(1).sum(1)
    if together:
        change = change.sum(2, keepdims=True)
    deviation = change - change.mean(1, keepdims=True)
    return mean, np.einsum("xgi,ygi->xy", deviation, deviation) / residual.shape[0]


# %% random_step: wrong, "they depend on the same g"
def random_step(theta, residual, size, together):
    change = -size / residual.shape[1] * theta * residual
    mean = -size / residual.shape[1] * (theta.mean(1) * residual.mean(0)).sum(1)
    if together:
        change = change.sum(2, keepdims=True)
    deviation = change - change.mean(1, keepdims=True)
    return mean, np.einsum("xgi,ygi->xy", deviation, deviation) / residual.shape[0]


# %% random_step: wrong, "This belongs to the other way of drawing"
def random_step(theta, residual, size, together):
    change = -size / residual.shape[1] * theta * residual
    mean = change.mean(1).sum(1)
    deviation = change - change.mean(1, keepdims=True)
    return mean, np.einsum("xgi,ygi->xy", deviation, deviation) / residual.shape[0]


# %% random_step: wrong, "nothing is estimated"
def random_step(theta, residual, size, together):
    change = -size / residual.shape[1] * theta * residual
    mean = change.mean(1).sum(1)
    if together:
        change = change.sum(2, keepdims=True)
    deviation = change - change.mean(1, keepdims=True)
    return mean, np.einsum("xgi,ygi->xy", deviation, deviation) / (residual.shape[0] - 1)


# %% random_step: wrong, "The factor 1/N has to be squared"
def random_step(theta, residual, size, together):
    n = residual.shape[1]
    change = -size * theta * residual
    mean = change.mean(1).sum(1) / n
    if together:
        change = change.sum(2, keepdims=True)
    deviation = change - change.mean(1, keepdims=True)
    return mean, np.einsum("xgi,ygi->xy", deviation, deviation) / residual.shape[0] / n


# %% random_step: wrong, "the product of the means has to be subtracted"
def random_step(theta, residual, size, together):
    change = -size / residual.shape[1] * theta * residual
    mean = change.mean(1).sum(1)
    if together:
        change = change.sum(2)
        return mean, change @ change.T / change.shape[1]
    deviation = change - change.mean(1, keepdims=True)
    return mean, np.einsum("xgi,ygi->xy", deviation, deviation) / residual.shape[0] + np.outer(mean, mean)


# %% random_step: wrong, "outputs at two inputs are moved by the same draws"
def random_step(theta, residual, size, together):
    change = -size / residual.shape[1] * theta * residual
    if together:
        change = change.sum(2, keepdims=True)
    return change.mean(1).sum(1), np.diag(change.var(1).sum(1))


# %% random_step: right, with np.cov for each example
def random_step(theta, residual, size, together):
    change = -size / residual.shape[1] * theta * residual
    if together:
        return change.sum(2).mean(1), np.cov(change.sum(2), ddof=0).reshape(len(theta), len(theta))
    covariance = sum(np.cov(change[:, :, i], ddof=0).reshape(len(theta), -1) for i in range(change.shape[2]))
    return change.mean(1).sum(1), covariance


# %% random_step: right, as mean square minus product of means, in JAX
def random_step(theta, residual, size, together):
    change = -size / residual.shape[1] * jnp.asarray(theta) * residual
    if together:
        change = change.sum(2, keepdims=True)
    means = change.mean(1)
    square = jnp.einsum("xgi,ygi->xy", change, change) / change.shape[1]
    return means.sum(1), square - means @ means.T


# %% lazy_run: wrong, "The factor 1/α² of the loss is missing in the gradient"
@partial(jax.jit, static_argnames=("f", "steps"))
def lazy_run(f, params, alpha, x, y, fraction, steps):
    start = f(params, x)
    loss = lambda p: jnp.mean((alpha * (f(p, x) - start) - y) ** 2) / 2

    def gram(p):
        j = [j.reshape(len(x), -1) for j in jax.tree.leaves(jax.jacobian(f)(p, x))]
        return sum(a @ a.T for a in j)

    length = lambda p: jnp.sqrt(sum((a**2).sum() for a in jax.tree.leaves(p)))
    before = gram(params)
    size = fraction * len(x) / jnp.linalg.eigvalsh(before)[-1]
    step = lambda _, p: jax.tree.map(lambda a, g: a - size * g, p, jax.grad(loss)(p))
    end = jax.lax.fori_loop(0, steps, step, params)
    moved = length(jax.tree.map(jnp.subtract, end, params)) / length(params)
    return jnp.stack([moved, jnp.linalg.norm(gram(end) - before) / jnp.linalg.norm(before), loss(end) / loss(params)])


# %% lazy_run: wrong, "Was f at the start subtracted?"
@partial(jax.jit, static_argnames=("f", "steps"))
def lazy_run(f, params, alpha, x, y, fraction, steps):
    loss = lambda p: jnp.mean((alpha * f(p, x) - y) ** 2) / (2 * alpha**2)

    def gram(p):
        j = [j.reshape(len(x), -1) for j in jax.tree.leaves(jax.jacobian(f)(p, x))]
        return sum(a @ a.T for a in j)

    length = lambda p: jnp.sqrt(sum((a**2).sum() for a in jax.tree.leaves(p)))
    before = gram(params)
    size = fraction * len(x) / jnp.linalg.eigvalsh(before)[-1]
    step = lambda _, p: jax.tree.map(lambda a, g: a - size * g, p, jax.grad(loss)(p))
    end = jax.lax.fori_loop(0, steps, step, params)
    moved = length(jax.tree.map(jnp.subtract, end, params)) / length(params)
    return jnp.stack([moved, jnp.linalg.norm(gram(end) - before) / jnp.linalg.norm(before), loss(end) / loss(params)])


# %% lazy_run: wrong, "is its λ that of g instead of f?"
@partial(jax.jit, static_argnames=("f", "steps"))
def lazy_run(f, params, alpha, x, y, fraction, steps):
    start = f(params, x)
    loss = lambda p: jnp.mean((alpha * (f(p, x) - start) - y) ** 2) / (2 * alpha**2)

    def gram(p):
        j = [alpha * j.reshape(len(x), -1) for j in jax.tree.leaves(jax.jacobian(f)(p, x))]
        return sum(a @ a.T for a in j)

    length = lambda p: jnp.sqrt(sum((a**2).sum() for a in jax.tree.leaves(p)))
    before = gram(params)
    size = fraction * len(x) / jnp.linalg.eigvalsh(before)[-1]
    step = lambda _, p: jax.tree.map(lambda a, g: a - size * g, p, jax.grad(loss)(p))
    end = jax.lax.fori_loop(0, steps, step, params)
    moved = length(jax.tree.map(jnp.subtract, end, params)) / length(params)
    return jnp.stack([moved, jnp.linalg.norm(gram(end) - before) / jnp.linalg.norm(before), loss(end) / loss(params)])


# %% lazy_run: wrong, "The kernel was compared with the one at the end"
@partial(jax.jit, static_argnames=("f", "steps"))
def lazy_run(f, params, alpha, x, y, fraction, steps):
    start = f(params, x)
    loss = lambda p: jnp.mean((alpha * (f(p, x) - start) - y) ** 2) / (2 * alpha**2)

    def gram(p):
        j = [j.reshape(len(x), -1) for j in jax.tree.leaves(jax.jacobian(f)(p, x))]
        return sum(a @ a.T for a in j)

    length = lambda p: jnp.sqrt(sum((a**2).sum() for a in jax.tree.leaves(p)))
    before = gram(params)
    size = fraction * len(x) / jnp.linalg.eigvalsh(before)[-1]
    step = lambda _, p: jax.tree.map(lambda a, g: a - size * g, p, jax.grad(loss)(p))
    end = jax.lax.fori_loop(0, steps, step, params)
    moved = length(jax.tree.map(jnp.subtract, end, params)) / length(params)
    after = gram(end)
    return jnp.stack([moved, jnp.linalg.norm(after - before) / jnp.linalg.norm(after), loss(end) / loss(params)])


# %% lazy_run: wrong, "The change of the parameters was not divided by their length"
@partial(jax.jit, static_argnames=("f", "steps"))
def lazy_run(f, params, alpha, x, y, fraction, steps):
    start = f(params, x)
    loss = lambda p: jnp.mean((alpha * (f(p, x) - start) - y) ** 2) / (2 * alpha**2)

    def gram(p):
        j = [j.reshape(len(x), -1) for j in jax.tree.leaves(jax.jacobian(f)(p, x))]
        return sum(a @ a.T for a in j)

    before = gram(params)
    size = fraction * len(x) / jnp.linalg.eigvalsh(before)[-1]
    step = lambda _, p: jax.tree.map(lambda a, g: a - size * g, p, jax.grad(loss)(p))
    end = jax.lax.fori_loop(0, steps, step, params)
    moved = jnp.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(jax.tree.leaves(end), jax.tree.leaves(params))))
    return jnp.stack([moved, jnp.linalg.norm(gram(end) - before) / jnp.linalg.norm(before), loss(end) / loss(params)])


# %% lazy_run: wrong, "the relative change of the parameters of a network"
@partial(jax.jit, static_argnames=("f", "steps"))
def lazy_run(f, params, alpha, x, y, fraction, steps):
    start = f(params, x)
    loss = lambda p: jnp.mean((alpha * (f(p, x) - start) - y) ** 2) / (2 * alpha**2)

    def gram(p):
        j = [j.reshape(len(x), -1) for j in jax.tree.leaves(jax.jacobian(f)(p, x))]
        return sum(a @ a.T for a in j)

    before = gram(params)
    size = fraction * len(x) / jnp.linalg.eigvalsh(before)[-1]
    step = lambda _, p: jax.tree.map(lambda a, g: a - size * g, p, jax.grad(loss)(p))
    end = jax.lax.fori_loop(0, steps, step, params)
    ratios = [jnp.linalg.norm(a - b) / jnp.linalg.norm(b)  # array by array, then their mean
              for a, b in zip(jax.tree.leaves(end), jax.tree.leaves(params))]
    moved = sum(ratios) / len(ratios)
    return jnp.stack([moved, jnp.linalg.norm(gram(end) - before) / jnp.linalg.norm(before), loss(end) / loss(params)])


# %% lazy_run: right, with residuals and the Jacobian at each step
@partial(jax.jit, static_argnames=("f", "steps"))
def lazy_run(f, params, alpha, x, y, fraction, steps):
    from jax.flatten_util import ravel_pytree

    theta0, back = ravel_pytree(params)
    model = lambda theta: f(back(theta), x)
    derivative = jax.jacfwd(model)
    f0, j0 = model(theta0), derivative(theta0)
    size = fraction / jnp.linalg.norm(j0, 2) ** 2

    def step(theta, _):
        return theta - size / alpha * (alpha * (model(theta) - f0) - y) @ derivative(theta), None

    theta = jax.lax.scan(step, theta0, length=steps)[0]
    j, norm = derivative(theta), jnp.linalg.norm
    left = norm(alpha * (model(theta) - f0) - y) ** 2 / norm(y) ** 2
    return norm(theta - theta0) / norm(theta0), norm(j @ j.T - j0 @ j0.T) / norm(j0 @ j0.T), left


# %% lazy_run: right, with a Python loop of compiled steps
def lazy_run(f, params, alpha, x, y, fraction, steps):
    from nteq.kernels import empirical_ntk

    f0 = f(params, x)
    loss = lambda p: ((f(p, x) - f0 - y / alpha) ** 2).mean() / 2
    before = empirical_ntk(f, params, x, x)
    size = fraction * len(x) / np.linalg.eigvalsh(before).max()
    step = jax.jit(lambda p: jax.tree.map(lambda a, g: a - size * g, p, jax.grad(loss)(p)))
    end = params
    for _ in range(steps):
        end = step(end)
    flat = lambda p: np.concatenate([np.ravel(a) for a in jax.tree.leaves(p)])
    after = empirical_ntk(f, end, x, x)
    return [float(np.linalg.norm(flat(end) - flat(params)) / np.linalg.norm(flat(params))),
            float(np.linalg.norm(after - before) / np.linalg.norm(before)), float(loss(end) / loss(params))]


# %% slope: wrong, "expected was a fit for each start"
def slope(alphas, changes):
    slopes = np.polyfit(np.log(alphas), np.log(changes), 1)[0]
    of_mean = np.polyfit(np.log(alphas), np.log(changes.mean(1)), 1)[0]
    return of_mean, slopes.std(ddof=1) / len(slopes) ** 0.5

runs = np.array([[lazy_run(scalar, start, alpha, inputs, labels, 0.5, 400) for start in starts] for alpha in alphas])
parameter_change, kernel_change = runs[:, :, 0], runs[:, :, 1]
parameter_slope, kernel_slope = (slope(alphas[4:], change[4:]) for change in (parameter_change, kernel_change))


# %% slope: wrong, "not the error of the mean over the starts"
def slope(alphas, changes):
    slopes = np.polyfit(np.log(alphas), np.log(changes), 1)[0]
    return slopes.mean(), slopes.std(ddof=1)

runs = np.array([[lazy_run(scalar, start, alpha, inputs, labels, 0.5, 400) for start in starts] for alpha in alphas])
parameter_change, kernel_change = runs[:, :, 0], runs[:, :, 1]
parameter_slope, kernel_slope = (slope(alphas[4:], change[4:]) for change in (parameter_change, kernel_change))


# %% slope: wrong, "one less than the number of starts"
def slope(alphas, changes):
    slopes = np.polyfit(np.log(alphas), np.log(changes), 1)[0]
    return slopes.mean(), slopes.std() / len(slopes) ** 0.5

runs = np.array([[lazy_run(scalar, start, alpha, inputs, labels, 0.5, 400) for start in starts] for alpha in alphas])
parameter_change, kernel_change = runs[:, :, 0], runs[:, :, 1]
parameter_slope, kernel_slope = (slope(alphas[4:], change[4:]) for change in (parameter_change, kernel_change))


# %% slope: wrong, "use those from 8 on"
def slope(alphas, changes):
    slopes = np.polyfit(np.log(alphas), np.log(changes), 1)[0]
    return slopes.mean(), slopes.std(ddof=1) / len(slopes) ** 0.5

runs = np.array([[lazy_run(scalar, start, alpha, inputs, labels, 0.5, 400) for start in starts] for alpha in alphas])
parameter_change, kernel_change = runs[:, :, 0], runs[:, :, 1]
parameter_slope, kernel_slope = (slope(alphas, change) for change in (parameter_change, kernel_change))


# %% slope: wrong, "Fewer steps were made than 400"
def slope(alphas, changes):
    slopes = np.polyfit(np.log(alphas), np.log(changes), 1)[0]
    return slopes.mean(), slopes.std(ddof=1) / len(slopes) ** 0.5

runs = np.array([[lazy_run(scalar, start, alpha, inputs, labels, 0.5, 200) for start in starts] for alpha in alphas])
parameter_change, kernel_change = runs[:, :, 0], runs[:, :, 1]
parameter_slope, kernel_slope = (slope(alphas[4:], change[4:]) for change in (parameter_change, kernel_change))


# %% slope: wrong, "have not been measured"
def slope(alphas, changes):
    slopes = np.polyfit(np.log(alphas), np.log(changes), 1)[0]
    return slopes.mean(), slopes.std(ddof=1) / len(slopes) ** 0.5

parameter_change = kernel_change = None
parameter_slope = kernel_slope = None


# %% slope: wrong, "what does your derivation say?"
def slope(alphas, changes):
    slopes = np.polyfit(np.log(alphas), np.log(changes), 1)[0]
    return slopes.mean(), slopes.std(ddof=1) / len(slopes) ** 0.5

# the squares of the changes
runs = np.array([[lazy_run(scalar, start, alpha, inputs, labels, 0.5, 400) for start in starts] for alpha in alphas])
parameter_change, kernel_change = runs[:, :, 0] ** 2, runs[:, :, 1] ** 2
parameter_slope, kernel_slope = (slope(alphas[4:], change[4:]) for change in (parameter_change, kernel_change))


# %% slope: right, by the formula for a straight line, all runs at once
def slope(alphas, changes):
    u = np.log(alphas) - np.log(alphas).mean()
    slopes = u @ np.log(changes) / (u @ u)
    deviation = slopes - slopes.mean()
    return slopes.mean(), np.sqrt((deviation @ deviation) / (len(slopes) - 1) / len(slopes))

together = jax.tree.map(lambda *p: jnp.stack(p), *starts)
one_alpha = jax.vmap(lambda p, a: jnp.stack(lazy_run(scalar, p, a, inputs, labels, 0.5, 400)), (0, None))
runs = jax.vmap(one_alpha, (None, 0))(together, alphas)
parameter_change, kernel_change = runs[..., 0], runs[..., 1]
large = alphas >= 8
parameter_slope = slope(alphas[large], np.asarray(parameter_change)[large])
kernel_slope = slope(alphas[large], np.asarray(kernel_change)[large])


# %% slope: right, with SciPy and logarithms to base 10
def slope(alphas, changes):
    from scipy.stats import linregress, sem

    slopes = [linregress(np.log10(alphas), np.log10(c)).slope for c in np.asarray(changes).T]
    return [np.mean(slopes), sem(slopes)]

parameter_change, kernel_change = np.zeros((2, len(alphas), len(starts)))
for i, alpha in enumerate(alphas):
    for j, start in enumerate(starts):
        parameter_change[i, j], kernel_change[i, j], _ = lazy_run(scalar, start, alpha, inputs, labels, 0.5, 400)
parameter_slope = slope(alphas[4:], parameter_change[4:])
kernel_slope = slope(alphas[4:], kernel_change[4:])
