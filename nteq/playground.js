// `nteq.interactive.Playground`, the same in a static page, in Jupyter and in Colab: networks are trained right
// here, and the infinite ensemble is computed beside them.
//
// First the mathematics, on plain typed arrays: points are (x, y, x, y, …), a matrix is its rows one after the
// other. Formulas, names and conventions are those of nteq, which tests/browser compares it with. What takes
// long is a generator that yields every millisecond or so, so that the page stays responsive. Then the widget.

// The end of a computation that yields on its way.
export function finish(steps) {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

// Numbers of a seed and a stream, such as that of one network: sfc32 (Doty-Humphrey).
export function generator(seed, stream = 0) {
  let a = seed | 0, b = stream | 0, c = 0x9e3779b9 | 0, counter = 1;
  function bits() {
    const t = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t | 0;
    return t >>> 0;
  }
  for (let i = 0; i < 16; i++) bits(); // neighbouring seeds look alike before
  const uniform = () => ((bits() >>> 5) * 0x4000000 + (bits() >>> 6) + 0.5) / 2 ** 53; // never 0
  function normal() { // Marsaglia's polar method
    for (;;) {
      const u = 2 * uniform() - 1, v = 2 * uniform() - 1, s = u * u + v * v;
      if (s > 0 && s < 1) return u * Math.sqrt(-2 * Math.log(s) / s);
    }
  }
  return { uniform, normal };
}

// erf from a table: at the next node x₀ its value and slope are known, and a few terms of Taylor's series do
// the rest, to rounding. One look-up gives both erf and its derivative, which a training step needs together.
const NODES = 128, FARTHEST = 6;
const ERF = new Float64Array(NODES * FARTHEST + 2), BELL = new Float64Array(NODES * FARTHEST + 2);
for (let i = 0; i < ERF.length; i++) {
  const x = i / NODES;
  let term = x, sum = 0;
  for (let k = 1; term > 1e-17 * sum; k++) { // all terms are positive
    sum += term;
    term *= 2 * x * x / (2 * k + 1);
  }
  BELL[i] = 2 / Math.sqrt(Math.PI) * Math.exp(-x * x);
  ERF[i] = BELL[i] * sum;
}
const both = new Float64Array(2);

// (erf x, erf′ x), in an array that the next call overwrites.
export function erf(x) {
  const size = Math.abs(x);
  if (size >= FARTHEST) {
    both[0] = Math.sign(x);
    both[1] = 0;
    return both;
  }
  const i = (size * NODES + 0.5) | 0, x0 = i / NODES, d = size - x0, q = x0 * x0, z = -d * (2 * x0 + d);
  const fourth = x0 * (3 - 2 * q) * (1 / 6), fifth = (4 * q * q - 12 * q + 3) * (1 / 30);
  const value = ERF[i] + BELL[i] * d * (1 + d * (-x0 + d * ((2 * q - 1) * (1 / 3) + d * (fourth + d * fifth))));
  both[0] = x < 0 ? -value : value;
  both[1] = BELL[i] * (1 + z * (1 + z * (1 / 2 + z * (1 / 6 + z * (1 / 24 + z * (1 / 120 + z * (1 / 720)))))));
  return both;
}

// ---- groups

// C_k or D_k as matrices of the plane, element by element as in nteq.groups: rotations r^g, then mirrors r^g s,
// where s turns (x, y) into (−x, y).
export function group(kind, k) {
  const order = kind === "D" ? 2 * k : k, matrices = new Float64Array(4 * order);
  const exact = (v) => Math.abs(v - Math.round(v)) < 1e-12 ? Math.round(v) + 0 : v; // of quarter turns
  for (let g = 0; g < order; g++) {
    const angle = 2 * Math.PI * (g % k) / k, c = exact(Math.cos(angle)), s = exact(Math.sin(angle));
    matrices.set(g < k ? [c, -s, s, c] : [-c, -s, -s, c], 4 * g);
  }
  return { name: kind + k, kind, k, order, matrices };
}

// Which elements the training set is moved by: none but the identity, the first half of them, every other
// one (a subgroup if k is even), or all.
export function elements({ k, order }, augmentation) {
  const all = Array.from({ length: order }, (_, g) => g);
  if (augmentation === "none") return [0];
  if (augmentation === "half") return all.slice(0, Math.ceil(order / 2));
  if (augmentation === "other") return all.filter((g) => g % k % 2 === 0);
  return all;
}

// The points moved by these elements, (|S|, n) points: all of the first element, then all of the next.
export function images({ matrices }, chosen, points) {
  const n = points.length / 2, moved = new Float64Array(2 * n * chosen.length);
  chosen.forEach((g, s) => {
    const [a, b, c, d] = matrices.subarray(4 * g, 4 * g + 4);
    for (let i = 0; i < n; i++) {
      const x = points[2 * i], y = points[2 * i + 1];
      moved[2 * (s * n + i)] = a * x + b * y;
      moved[2 * (s * n + i) + 1] = c * x + d * y;
    }
  });
  return moved;
}

// ---- the kernel
// A model is { activation: "relu" or "erf", depth: 1 or 2, W: σ_w, b: σ_b, axes: (s₁, s₂) }: axes multiply the
// two coordinates, as uneven variances of the first layer's weights do; (1, 1) is symmetric.

// Of each point: h with K¹(x, x′) = h · h′, for ReLU as a unit vector, and for each layer its norm a, or for erf
// its variance.
function sides(model, points) {
  const n = points.length / 2, { depth, W, b, axes } = model, relu = model.activation === "relu";
  const h = new Float64Array(3 * n), layers = Array.from({ length: depth + 1 }, () => new Float64Array(n));
  for (let i = 0; i < n; i++) {
    const v = [W / Math.SQRT2 * axes[0] * points[2 * i], W / Math.SQRT2 * axes[1] * points[2 * i + 1], b];
    const square = v[0] * v[0] + v[1] * v[1] + v[2] * v[2], norm = Math.sqrt(square);
    for (let j = 0; j < 3; j++) h[3 * i + j] = relu ? v[j] / (norm || 1) : v[j];
    layers[0][i] = relu ? norm : square;
    for (let l = 1; l <= depth; l++) {
      const before = layers[l - 1][i];
      layers[l][i] = relu
        ? Math.sqrt(W * W * before * before / 2 + b * b)
        : W * W * 2 / Math.PI * Math.atan2(2 * before, Math.sqrt(1 + 4 * before)) + b * b;
    }
  }
  return { n, h, layers };
}

// One row of the NNGP K and the NTK Θ of ReLU networks. The angle is carried along as 1 − cos θ, of which
// nothing cancels: an arccos of cos θ would lose half of the digits where inputs are nearly parallel.
function reluRow({ depth, W, b }, one, i, two, nngp, ntk, at) {
  const half = W / Math.SQRT2, { h } = two, [x, y, z] = one.h.subarray(3 * i, 3 * i + 3);
  for (let j = 0; j < two.n; j++) {
    const u = h[3 * j], v = h[3 * j + 1], w = h[3 * j + 2];
    let less = ((x - u) * (x - u) + (y - v) * (y - v) + (z - w) * (z - w)) / 2; // 1 − cos θ
    let more = ((x + u) * (x + u) + (y + v) * (y + v) + (z + w) * (z + w)) / 2; // 1 + cos θ
    let theta = x * u + y * v + z * w; // Θ over the product of the norms, as K is 1 − less
    for (let l = 1; l <= depth; l++) {
      const angle = 2 * Math.atan2(Math.sqrt(less), Math.sqrt(more)), slope = 1 - angle / Math.PI;
      const defect = less - (Math.sqrt(less * more) - angle * (1 - less)) / Math.PI; // 1 − κ₁(θ)
      const a = one.layers[l][i] || 1, a2 = two.layers[l][j] || 1;
      const r = half * one.layers[l - 1][i] / a, s = half * two.layers[l - 1][j] / a2, c = b / a, d = b / a2;
      // 1 − (r s (1 − defect) + c d), since (r, c) and (s, d) are unit vectors
      less = r * s * defect + ((r - s) * (r - s) + (c - d) * (c - d)) / 2;
      more = 2 - less;
      theta = 1 - less + r * s * slope * theta;
    }
    const norms = one.layers[depth][i] * two.layers[depth][j];
    nngp[at + j] = norms * (1 - less);
    ntk[at + j] = norms * theta;
  }
}

// The same of erf networks (Williams 1997): arcsin τ = arctan(2K/√((1 + 2a)(1 + 2a′) − 4K²)).
function erfRow({ depth, W, b }, one, i, two, nngp, ntk, at) {
  const { h } = two, [x, y, z] = one.h.subarray(3 * i, 3 * i + 3);
  for (let j = 0; j < two.n; j++) {
    let K = x * h[3 * j] + y * h[3 * j + 1] + z * h[3 * j + 2], theta = K;
    for (let l = 1; l <= depth; l++) {
      const a = one.layers[l - 1][i], a2 = two.layers[l - 1][j];
      const root = Math.sqrt(1 + 2 * a + 2 * a2 + 4 * (a * a2 - K * K));
      K = W * W * 2 / Math.PI * Math.atan2(2 * K, root) + b * b;
      theta = K + W * W * 4 / Math.PI / root * theta;
    }
    nngp[at + j] = K;
    ntk[at + j] = theta;
  }
}

// K and Θ of all pairs, (n1, n2) each.
export function* kernelSteps(model, points1, points2) {
  const one = sides(model, points1), two = sides(model, points2), size = one.n * two.n;
  const nngp = new Float64Array(size), ntk = new Float64Array(size);
  const row = model.activation === "relu" ? reluRow : erfRow;
  for (let i = 0; i < one.n; i++) {
    row(model, one, i, two, nngp, ntk, i * two.n);
    yield;
  }
  return { nngp, ntk };
}
export const kernel = (...given) => finish(kernelSteps(...given));

// Σ_g Θ(x, ρ(g)X) of a row (x, (|G|, n)) of kernel values: the Gram matrix averaged over the group, times |G|.
export function summedOverGroup(rows, order, n) {
  const count = rows.length / (order * n), sums = new Float64Array(count * n);
  for (let x = 0; x < count; x++) {
    for (let g = 0; g < order; g++) {
      for (let i = 0; i < n; i++) sums[x * n + i] += rows[(x * order + g) * n + i];
    }
  }
  return sums;
}

// ---- the infinite ensemble

// Eigenvalues λ, ascending, and eigenvectors (columns of V) of a symmetric matrix, by Jacobi's rotations: each
// makes one pair of entries zero, and after a few sweeps all of them are.
export function* eigenSteps(matrix, n) {
  const A = Float64Array.from(matrix), V = new Float64Array(n * n); // eigenvectors as rows
  for (let i = 0; i < n; i++) V[i * n + i] = 1;
  const small = 1e-18 * Math.sqrt(A.reduce((sum, a) => sum + a * a, 0));
  for (let rotated = true; rotated;) {
    rotated = false;
    for (let p = 0; p < n - 1; p++) {
      for (let q = p + 1; q < n; q++) {
        const a = A[p * n + q];
        if (Math.abs(a) <= small) continue;
        const d = (A[q * n + q] - A[p * n + p]) / (2 * a);
        const t = (d < 0 ? -1 : 1) / (Math.abs(d) + Math.sqrt(d * d + 1)), c = 1 / Math.sqrt(t * t + 1), s = t * c;
        const app = A[p * n + p] - t * a, aqq = A[q * n + q] + t * a;
        for (let k = 0; k < n; k++) {
          const x = A[p * n + k], y = A[q * n + k], v = V[p * n + k], w = V[q * n + k];
          A[k * n + p] = A[p * n + k] = c * x - s * y;
          A[k * n + q] = A[q * n + k] = s * x + c * y;
          V[p * n + k] = c * v - s * w;
          V[q * n + k] = s * v + c * w;
        }
        A[p * n + p] = app;
        A[q * n + q] = aqq;
        A[p * n + q] = A[q * n + p] = 0;
        rotated = true;
      }
      yield;
    }
  }
  const values = A.filter((_, i) => i % (n + 1) === 0), vectors = new Float64Array(n * n);
  const order = Array.from(values.keys()).sort((i, j) => values[i] - values[j]);
  order.forEach((from, to) => { for (let k = 0; k < n; k++) vectors[k * n + to] = V[from * n + k]; });
  return { values: Float64Array.from(order, (i) => values[i]), vectors };
}
export const eigen = (...given) => finish(eigenSteps(...given));

// φ(λ, τ) = (1 − e^(−λτ))/λ, how much of each mode is learned. An eigenvalue that is zero to rounding counts
// as 0, where φ = τ; once that would only amplify what rounding leaves of its mode, the mode is left out.
export function phi(values, tau, points) {
  const largest = values[values.length - 1], eps = Number.EPSILON;
  return values.map((value) => {
    if (value > points * eps * largest) return -Math.expm1(-value * tau) / value;
    return tau * largest * Math.sqrt(eps) >= 1 ? 0 : tau;
  });
}

// rows (r, n) times V, or with back = true times Vᵀ.
export function* productSteps(rows, V, n, back = false) {
  const out = new Float64Array(rows.length);
  for (let r = 0; r < rows.length / n; r++) {
    for (let i = 0; i < n; i++) {
      if (back) {
        let sum = 0;
        for (let j = 0; j < n; j++) sum += rows[r * n + j] * V[i * n + j];
        out[r * n + i] = sum;
      } else {
        const value = rows[r * n + i];
        for (let j = 0; j < n; j++) out[r * n + j] += value * V[i * n + j];
      }
    }
    yield;
  }
  return out;
}

// The weights α of μ_t(x) = Θ(x, X) α at τ = ηt/N, with N = points: α = V φ Vᵀ y.
export function weights({ values, vectors }, y, tau, points) {
  const n = values.length, learned = phi(values, tau, points), inFrame = finish(productSteps(y, vectors, n));
  return finish(productSteps(inFrame.map((c, k) => c * learned[k]), vectors, n, true));
}

// On all images of X and with an invariant kernel the mean takes the Gram matrix averaged over the group alone.
export function* invariantSteps(model, chosen, X) {
  const n = X.length / 2, all = Array.from({ length: chosen.order }, (_, g) => g);
  const { ntk } = yield* kernelSteps(model, X, images(chosen, all, X));
  return yield* eigenSteps(summedOverGroup(ntk, chosen.order, n), n);
}

// All that mean and covariance on P take after training on (X, y): the eigenvectors of Θ(X, X), and in their frame
// the labels, K(X, X), Θ(P, X) and K(P, X).
export function* flowSteps(model, X, y, P) {
  const n = X.length / 2, gram = yield* kernelSteps(model, X, X);
  const modes = yield* eigenSteps(gram.ntk, n), V = modes.vectors;
  const turned = yield* productSteps(gram.nngp, V, n), inner = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < n; k++) {
      const v = V[k * n + i];
      for (let j = 0; j < n; j++) inner[i * n + j] += v * turned[k * n + j];
    }
    yield;
  }
  const rows = yield* kernelSteps(model, P, X), prior = yield* kernelSteps(model, P, P);
  const ntk = yield* productSteps(rows.ntk, V, n), nngp = yield* productSteps(rows.nngp, V, n);
  const labels = yield* productSteps(y, V, n);
  return { n, asked: P.length / 2, modes, labels, inner, prior: prior.nngp, ntk, nngp };
}

// μ and Σ on P at τ: Σ = K(P, P) + A K(X, X) Aᵀ − A K(X, P) − (A K(X, P))ᵀ with A = Θ(P, X) V φ Vᵀ.
export function predictions({ n, asked, modes, labels, inner, prior, ntk, nngp }, tau) {
  const learned = phi(modes.values, tau, n), A = ntk.map((value, i) => value * learned[i % n]);
  const mean = new Float64Array(asked), covariance = Float64Array.from(prior);
  const half = finish(productSteps(A, inner, n));
  for (let i = 0; i < asked; i++) {
    for (let k = 0; k < n; k++) mean[i] += A[i * n + k] * labels[k];
    for (let j = 0; j < asked; j++) {
      for (let k = 0; k < n; k++) {
        const a = A[i * n + k], b = A[j * n + k];
        covariance[i * asked + j] += half[i * n + k] * b - a * nngp[j * n + k] - b * nngp[i * n + k];
      }
    }
  }
  return { mean, covariance };
}

// The mean loss of infinitely wide networks at τ: every mode of f₀ − y decays by e^(−λτ).
export function meanLoss({ n, modes, labels, inner }, tau) {
  let sum = 0;
  for (let k = 0; k < n; k++) {
    sum += Math.exp(-2 * Math.max(modes.values[k], 0) * tau) * (labels[k] ** 2 + inner[k * n + k]);
  }
  return sum / (2 * n);
}

// Of answers with this mean and covariance on an orbit: the variance over the orbit of one network's own part and
// of the mean, and what their fluctuations take.
export function overOrbit(mean, covariance) {
  const n = mean.length, average = mean.reduce((a, b) => a + b, 0) / n;
  const centred = Float64Array.from(covariance), away = mean.map((m) => m - average);
  for (const [row, column] of [[n, 1], [1, n]]) { // (1 − 1/n) Σ (1 − 1/n): first the rows, then the columns
    for (let i = 0; i < n; i++) {
      let sum = 0;
      for (let j = 0; j < n; j++) sum += centred[i * row + j * column];
      for (let j = 0; j < n; j++) centred[i * row + j * column] -= sum / n;
    }
  }
  let own = 0, square = 0, mixed = 0, floor = 0;
  for (let i = 0; i < n; i++) {
    own += centred[i * n + i] / n;
    floor += away[i] * away[i] / n;
    for (let j = 0; j < n; j++) {
      square += centred[i * n + j] ** 2 / (n * n);
      mixed += away[i] * centred[i * n + j] * away[j] / (n * n);
    }
  }
  return { own: Math.max(own, 0), floor, square, mixed };
}

// Standard deviation over the orbit of a mean over m networks and its 95 % band [low, middle, high], where the
// variances of `repeats` such means are averaged: nearly a multiple of chi-squared (Satterthwaite), with the
// quantiles of Wilson and Hilferty.
export function band({ own, floor, square, mixed }, m, repeats = 1) {
  const mean = own / m + floor, variance = (2 * square / (m * m) + 4 * mixed / m) / repeats;
  if (!(variance > 0)) return [Math.sqrt(mean), Math.sqrt(mean), Math.sqrt(mean)];
  const q = variance / (mean * mean) / 9; // 2/(9ν) with ν = 2 mean²/variance
  const quantile = (z) => Math.sqrt(mean * Math.max(1 - q + z * Math.sqrt(q), 0) ** 3);
  return [quantile(-1.96), Math.sqrt(mean), quantile(1.96)];
}

// ---- finite networks

// A network of parameters [W¹, b¹, …] as `nteq.networks.mlp` orders them. What is kept is what multiplies the
// inputs, σ_w W/√fan-in and σ_b b, and in rates the factors by which η is then larger.
export function network(model, width, parameters) {
  const sizes = [2, ...Array(model.depth).fill(width), 1], layers = [], rates = [];
  for (let l = 0; l <= model.depth; l++) {
    const W = model.W / Math.sqrt(sizes[l]);
    layers.push(Float64Array.from(parameters[2 * l], (v) => v * W), Float64Array.from(parameters[2 * l + 1], (v) => v * model.b));
    rates.push(W * W, model.b * model.b);
  }
  return { model, width, layers, rates };
}

// One drawn at random: the stream of a seed, the same in every ensemble.
export function draw(model, width, seed, stream) {
  const { normal } = generator(seed, stream), sizes = [2, ...Array(model.depth).fill(width), 1], parameters = [];
  for (let l = 0; l <= model.depth; l++) {
    for (const count of [sizes[l] * sizes[l + 1], sizes[l + 1]]) parameters.push(Float64Array.from({ length: count }, normal));
  }
  return network(model, width, parameters);
}

// The parameters of a network as they were given, [W¹, b¹, …].
export const parameters = ({ layers, rates }) => layers.map((layer, l) => layer.map((v) => (rates[l] ? v / Math.sqrt(rates[l]) : 0)));

// What the networks see: the points times the axes.
export function seen({ axes }, points) {
  return points.map((v, i) => v * axes[i % 2]);
}

let room = new Float64Array(0);
function space(size) { // for hidden layers; nothing is allocated from step to step
  if (room.length < size) room = new Float64Array(size);
  return room;
}

// Answers f of one network on points as it sees them.
export function answer({ model, width, layers }, points, f = new Float64Array(points.length / 2)) {
  const n = points.length / 2, relu = model.activation === "relu", [A, b] = layers, work = space(2 * width);
  const [B, c] = layers.slice(2, 4), [v, last] = layers.slice(-2);
  for (let i = 0; i < n; i++) {
    const x = points[2 * i], y = points[2 * i + 1];
    let sum = last[0];
    for (let j = 0; j < width; j++) {
      const u = x * A[j] + y * A[width + j] + b[j];
      work[j] = relu ? (u > 0 ? u : 0) : erf(u)[0];
      if (model.depth === 1) sum += v[j] * work[j];
    }
    if (model.depth === 2) {
      for (let k = 0; k < width; k++) work[width + k] = c[k];
      for (let j = 0; j < width; j++) {
        const h = work[j];
        if (h !== 0) for (let k = 0; k < width; k++) work[width + k] += h * B[j * width + k];
      }
      for (let k = 0; k < width; k++) {
        const u = work[width + k];
        sum += v[k] * (relu ? (u > 0 ? u : 0) : erf(u)[0]);
      }
    }
    f[i] = sum;
  }
  return f;
}

// One step of gradient descent on L = Σ (f − y)²/2N, and the L before it. Points are as the network sees them.
export function train(one, points, y, eta) {
  return one.model.depth === 1 ? trainShallow(one, points, y, eta) : trainDeep(one, points, y, eta);
}

// How far f is from y, over N, in place of f; returns the loss.
function residuals(f, y, n) {
  let loss = 0;
  for (let i = 0; i < n; i++) {
    const r = f[i] - y[i];
    loss += r * r;
    f[i] = r / n;
  }
  return loss / (2 * n);
}

function trainShallow({ model, width, layers, rates }, points, y, eta) {
  const n = y.length, [A, b, v, last] = layers, work = space((2 * width + 5) * n);
  const part = (start, count = n) => work.subarray(start, start + count);
  const f = part(0).fill(last[0]), x1 = part(n), x2 = part(2 * n), r1 = part(3 * n), r2 = part(4 * n);
  for (let i = 0; i < n; i++) {
    x1[i] = points[2 * i];
    x2[i] = points[2 * i + 1];
  }
  const relu = model.activation === "relu", hidden = part(5 * n, n * width), slope = part((5 + width) * n, n * width);
  if (relu) reluSums(f, x1, x2, A, b, v, width, n);
  else {
    for (let j = 0, at = 0; j < width; j++) {
      for (let i = 0; i < n; i++, at++) {
        erf(A[j] * x1[i] + A[width + j] * x2[i] + b[j]);
        hidden[at] = both[0];
        slope[at] = both[1];
        f[i] += v[j] * both[0];
      }
    }
  }
  const loss = residuals(f, y, n);
  let sum = 0;
  for (let i = 0; i < n; i++) {
    r1[i] = f[i] * x1[i];
    r2[i] = f[i] * x2[i];
    sum += f[i];
  }
  for (let j = 0; j < width; j++) {
    const p = A[j], q = A[width + j], s = b[j];
    let ofA = 0, ofB = 0, ofC = 0, ofV = 0; // Σ_i r_i φ′ (x, y, 1), and Σ_i r_i φ
    if (relu) {
      for (let i = 0; i < n; i++) {
        const on = +(p * x1[i] + q * x2[i] + s > 0); // a number: a branch would be guessed wrong half of the time
        ofA += on * r1[i];
        ofB += on * r2[i];
        ofC += on * f[i];
      }
      ofV = p * ofA + q * ofB + s * ofC;
    } else {
      for (let i = 0, at = j * n; i < n; i++, at++) {
        ofV += f[i] * hidden[at];
        ofA += slope[at] * r1[i];
        ofB += slope[at] * r2[i];
        ofC += slope[at] * f[i];
      }
    }
    const back = eta * v[j];
    A[j] -= rates[0] * back * ofA;
    A[width + j] -= rates[0] * back * ofB;
    b[j] -= rates[1] * back * ofC;
    v[j] -= rates[2] * eta * ofV;
  }
  last[0] -= rates[3] * eta * sum;
  return loss;
}

// f += Σ_j v_j max(u_j, 0), as (u + |u|)/2, since the absolute value needs no branch: the first part is linear in
// x. Two units at a time, which is faster; the width is even.
function reluSums(f, x1, x2, A, b, v, width, n) {
  let P = 0, Q = 0, S = 0;
  for (let j = 0; j < width; j++) {
    P += v[j] * A[j] / 2;
    Q += v[j] * A[width + j] / 2;
    S += v[j] * b[j] / 2;
  }
  for (let i = 0; i < n; i++) f[i] += P * x1[i] + Q * x2[i] + S;
  for (let j = 0; j < width; j += 2) {
    const p = A[j], q = A[width + j], s = b[j], c = v[j] / 2;
    const p2 = A[j + 1], q2 = A[width + j + 1], s2 = b[j + 1], c2 = v[j + 1] / 2;
    for (let i = 0; i < n; i++) {
      const x = x1[i], y = x2[i];
      f[i] += c * Math.abs(p * x + q * y + s) + c2 * Math.abs(p2 * x + q2 * y + s2);
    }
  }
}

function trainDeep({ model, width, layers, rates }, points, y, eta) {
  const n = y.length, [A, b, B, c, v, last] = layers, relu = model.activation === "relu", size = n * width;
  const work = space(4 * size + n + width + width * width);
  const part = (start, length) => work.subarray(start, start + length);
  const h1 = part(0, size), slope1 = part(size, size), h2 = part(2 * size, size), slope2 = part(3 * size, size);
  const f = part(4 * size, n), ofB = part(4 * size + n, width * width).fill(0), ofC = part(4 * size + n + width * width, width).fill(0);
  for (let i = 0; i < n; i++) {
    const at = i * width;
    for (let j = 0; j < width; j++) {
      const u = A[j] * points[2 * i] + A[width + j] * points[2 * i + 1] + b[j];
      if (relu) {
        slope1[at + j] = u > 0 ? 1 : 0;
        h1[at + j] = u > 0 ? u : 0;
      } else {
        erf(u);
        h1[at + j] = both[0];
        slope1[at + j] = both[1];
      }
    }
    for (let k = 0; k < width; k++) h2[at + k] = c[k];
    for (let j = 0; j < width; j++) {
      const h = h1[at + j];
      if (h !== 0) for (let k = 0; k < width; k++) h2[at + k] += h * B[j * width + k];
    }
    let sum = last[0];
    for (let k = 0; k < width; k++) {
      const u = h2[at + k];
      if (relu) {
        slope2[at + k] = u > 0 ? 1 : 0;
        h2[at + k] = u > 0 ? u : 0;
      } else {
        erf(u);
        h2[at + k] = both[0];
        slope2[at + k] = both[1];
      }
      sum += v[k] * h2[at + k];
    }
    f[i] = sum;
  }
  const loss = residuals(f, y, n);
  for (let i = 0; i < n; i++) { // slopes become what the loss changes by with each u
    const at = i * width;
    for (let k = 0; k < width; k++) ofC[k] += slope2[at + k] *= f[i] * v[k];
    for (let j = 0; j < width; j++) {
      const h = h1[at + j];
      let sum = 0;
      if (slope1[at + j] === 0 && h === 0) continue; // a ReLU that is off; a saturated erf still answers
      for (let k = 0; k < width; k++) {
        sum += B[j * width + k] * slope2[at + k];
        ofB[j * width + k] += h * slope2[at + k];
      }
      slope1[at + j] *= sum;
    }
  }
  for (let i = 0; i < n; i++) {
    const at = i * width;
    for (let k = 0; k < width; k++) {
      const d = eta * slope1[at + k];
      A[k] -= rates[0] * d * points[2 * i];
      A[width + k] -= rates[0] * d * points[2 * i + 1];
      b[k] -= rates[1] * d;
      v[k] -= rates[4] * eta * f[i] * h2[at + k];
    }
    last[0] -= rates[5] * eta * f[i];
  }
  for (let j = 0; j < B.length; j++) B[j] -= rates[2] * eta * ofB[j];
  for (let k = 0; k < width; k++) c[k] -= rates[3] * eta * ofC[k];
  return loss;
}

// The mean of networks on R × R points of the plane, row by row from the top left.
export function* fieldSteps(networks, points, R) {
  const sums = new Float64Array(R * R), { model, width } = networks[0];
  if (model.depth === 1 && model.activation === "relu") {
    // Along a row a network is a line with a kink for each unit: note the kinks, then walk along once.
    const jump = new Float64Array(R + 1), slope = new Float64Array(R + 1), first = points[0], step = points[2] - points[0];
    for (let row = 0; row < R; row++) {
      const y = points[2 * row * R + 1];
      jump.fill(0);
      slope.fill(0);
      for (const { layers: [A, b, v, last] } of networks) {
        jump[0] += last[0];
        for (let j = 0; j < width; j++) {
          const p = A[j] * step, e = A[j] * first + A[width + j] * y + b[j]; // u = e + p · column
          const kink = Math.min(Math.max(Math.ceil(-e / p), 0), R), from = p > 0 ? kink : 0;
          jump[from] += v[j] * e;
          slope[from] += v[j] * p;
          if (p < 0) {
            jump[kink] -= v[j] * e;
            slope[kink] -= v[j] * p;
          }
        }
      }
      for (let column = 0, a = 0, s = 0; column < R; column++) {
        a += jump[column];
        s += slope[column];
        sums[row * R + column] = (a + s * column) / networks.length;
      }
      yield;
    }
    return sums;
  }
  const rows = 4, f = new Float64Array(rows * R);
  for (const one of networks) {
    for (let row = 0; row < R; row += rows) {
      answer(one, points.subarray(2 * row * R, 2 * (row + rows) * R), f);
      for (let i = 0; i < f.length; i++) sums[row * R + i] += f[i] / networks.length;
      yield;
    }
  }
  return sums;
}

// The standard deviation over the orbit of means over m networks, for m = 1, 2, 4 … M: its root mean square over
// disjoint groups of m. Answers are those of each network on the orbit.
export function spreads(answers, order) {
  const count = answers.length / order, found = [];
  for (let m = 1; m <= count; m *= 2) {
    const repeats = Math.floor(count / m);
    let total = 0;
    for (let r = 0; r < repeats; r++) {
      let sum = 0, squares = 0;
      for (let g = 0; g < order; g++) {
        let f = 0;
        for (let i = r * m; i < (r + 1) * m; i++) f += answers[i * order + g] / m;
        sum += f / order;
        squares += f * f / order;
      }
      total += Math.max(squares - sum * sum, 0) / repeats;
    }
    found.push({ m, repeats, spread: Math.sqrt(total) });
  }
  return found;
}

// ---- the scene

const CONSTANTS = { relu: [2.5, 1], erf: [3, 1] }; // σ_w and σ_b
const UNEVEN = [Math.sqrt(1.8), Math.sqrt(0.2)]; // variances 1.8 and 0.2, as much as 1 and 1 together
const CHOICES = {
  augmentation: { none: "none", half: "half the orbit", other: "every other image", full: "full orbit" },
  start: { symmetric: "symmetric", uneven: "uneven variances" },
  activation: { relu: "ReLU", erf: "erf" },
  show: { one: "one network", mean: "mean so far", infinite: "infinite ensemble", difference: "mean − infinite" },
};
const MOST_POINTS = 12, MOST_IMAGES = 128, BATCH = 30, SLICE = 6, PAUSE = 10000;
const within = (v, low, high) => Math.min(Math.max(Number.isFinite(+v) ? +v : low, low), high);
const rounded = (v) => Math.round(v * 1000) / 1000;

// Whatever an address says, something that can be computed comes out.
export function checked(given, fallback) {
  const scene = { ...fallback, ...given }, kind = String(scene.group)[0] === "D" ? "D" : "C";
  scene.group = kind + Math.round(within(String(scene.group).slice(1), 1, 8));
  for (const name of Object.keys(CHOICES)) if (!Object.hasOwn(CHOICES[name], scene[name])) scene[name] = fallback[name];
  const order = elements(group(kind, +scene.group[1]), scene.augmentation).length;
  const place = (p) => [rounded(within(p[0], -1, 1)), rounded(within(p[1], -1, 1))];
  scene.points = scene.points.slice(0, Math.min(MOST_POINTS, Math.floor(MOST_IMAGES / order)))
    .map((p) => [...place(p), rounded(within(p[2], -1, 1))]);
  if (!scene.points.length) scene.points = fallback.points;
  scene.asked = place(scene.asked);
  scene.networks = 2 ** Math.round(Math.log2(within(scene.networks, 1, 256)));
  scene.width = 2 ** Math.round(Math.log2(within(scene.width, 4, 128)));
  scene.depth = Math.round(within(scene.depth, 1, 2));
  scene.seed = Math.round(within(scene.seed, 0, 1e9));
  return scene;
}

// The part of an address after the #, and back: null if it is none of a scene.
export function toAddress(scene) {
  const { points, asked, ...rest } = scene;
  return "playground?" + new URLSearchParams({ ...rest, points: points.join(";"), asked: asked.join() }).toString()
    .replaceAll("%2C", ",").replaceAll("%3B", ";");
}
export function fromAddress(hash, fallback) {
  if (!hash.startsWith("#playground?")) return null;
  const given = Object.fromEntries(new URLSearchParams(hash.slice(12)));
  const numbers = (text) => text.split(",").map(Number);
  if (given.points) given.points = given.points.split(";").map(numbers);
  if (given.asked) given.asked = numbers(given.asked);
  return checked(given, fallback);
}

const modelOf = ({ activation, depth, start }) => ({
  activation, depth, W: CONSTANTS[activation][0], b: CONSTANTS[activation][1], axes: start === "uneven" ? UNEVEN : [1, 1],
});

// The same scene in Python, with nteq.
export function toPython(scene, eta, steps) {
  const { W, b, axes } = modelOf(scene), chosen = group(scene.group[0], +scene.group[1]);
  const moved = elements(chosen, scene.augmentation), kind = chosen.kind === "C" ? "cyclic" : "dihedral";
  const list = (values) => `jnp.array(${JSON.stringify(values)})`, even = scene.start === "symmetric";
  const axis = (name) => (even ? name : `${name} * axes`);
  return `import jax
import jax.numpy as jnp
from nteq import ensembles
from nteq.actions import on_vectors, orbit
from nteq.gradient_flow import GradientFlow
from nteq.groups import ${kind}
from nteq.networks import mlp

jax.config.update("jax_enable_x64", True)
action = on_vectors(${kind}(${chosen.k}))
x = jnp.array(${JSON.stringify(scene.points.map((p) => p.slice(0, 2)))}, float)
y = jnp.array(${JSON.stringify(scene.points.map((p) => p[2]))}, float)
elements = ${list(moved)}
X, Y = orbit(action, x)[elements].reshape(-1, 2), jnp.tile(y, ${moved.length})
asked = orbit(action, jnp.array([${JSON.stringify(scene.asked)}], float))[:, 0]
network = mlp(${scene.width}, ${scene.depth}, activation="${scene.activation}", W_std=${W}, b_std=${b})
${even ? "kernel = network.kernel" : `axes = ${list(axes)}\nkernel = lambda a, b: network.kernel(a * axes, b * axes)`}
flow = GradientFlow(kernel, X, Y, learning_rate=${eta})
mean, covariance = (f(asked, t=${steps}) for f in (flow.mean, flow.covariance))
print("infinite ensemble:", mean, "spread", mean.std())
${steps ? `answers = ensembles.run(network, jax.random.key(${scene.seed}), ${scene.networks}, ${axis("X")}, Y, ${axis("asked")}, ${steps}, learning_rate=${eta})
print("trained networks:", answers.mean(0), "spread", answers.mean(0).std())
` : ""}`;
}

// ---- the simulation

// Networks and infinite ensemble of one scene; `work` is what has to be done until the next drawing.
class Simulation {
  constructor(scene) {
    this.restart(scene, 0);
  }

  restart(scene, goal = Math.max(this.goal, this.step)) {
    this.goal = goal;
    this.scene = scene;
    this.model = modelOf(scene);
    this.group = group(scene.group[0], +scene.group[1]);
    this.chosen = elements(this.group, scene.augmentation);
    this.all = elements(this.group, "full");
    this.asked = images(this.group, this.all, Float64Array.from(scene.asked));
    const points = Float64Array.from(scene.points.flatMap((p) => p.slice(0, 2)));
    this.X = images(this.group, this.chosen, points);
    this.y = Float64Array.from(this.chosen.flatMap(() => scene.points.map((p) => p[2])));
    this.points = points;
    this.step = 0;
    this.flow = this.modes = this.rows = this.eta = null;
    this.networks = [];
    this.losses = [];
    // kinks are quickly drawn, all else takes M R² evaluations
    const simple = scene.depth === 1 && scene.activation === "relu";
    this.R = simple ? 64 : scene.networks * scene.width ** scene.depth > 1e5 ? 24 : 32;
    if (this.grid?.length !== 2 * this.R * this.R) {
      this.field = null;
      this.grid = new Float64Array(2 * this.R * this.R);
      for (let i = 0; i < this.R * this.R; i++) {
        this.grid[2 * i] = (2 * (i % this.R) + 1) / this.R - 1;
        this.grid[2 * i + 1] = 1 - (2 * Math.floor(i / this.R) + 1) / this.R;
      }
    }
  }

  tau(steps = this.step) { return this.eta * steps / this.y.length; }
  get ready() { return this.networks.length === this.scene.networks && this.flow; }

  *work(batch) {
    const { model, scene } = this;
    if (!this.modes) yield* this.prepare();
    yield* this.drawMap();
    if (!this.flow) this.flow = yield* flowSteps(model, this.X, this.y, this.asked);
    while (this.networks.length < scene.networks) {
      this.networks.push(draw(model, scene.width, scene.seed, this.networks.length));
      yield;
    }
    const trained = seen(model, this.X), until = this.step + batch, start = performance.now();
    while (this.step < until && performance.now() - start < 200) { // deep ones make fewer steps a drawing
      let loss = 0;
      for (const one of this.networks) {
        loss += train(one, trained, this.y, this.eta) / scene.networks;
        yield;
      }
      const last = this.losses.at(-1);
      if (!last || this.step >= Math.max(last[0] + 1, last[0] * 1.04)) this.losses.push([this.step, loss]);
      this.step++;
    }
    this.goal = this.step >= this.goal ? 0 : this.goal;
    if (!this.answers || this.answers.length !== scene.networks * this.group.order) {
      this.answers = new Float64Array(scene.networks * this.group.order);
    }
    const asked = seen(model, this.asked), order = this.group.order;
    for (let i = 0; i < scene.networks; i++) answer(this.networks[i], asked, this.answers.subarray(i * order, (i + 1) * order));
    yield;
    this.measured = spreads(this.answers, order);
    this.theory = overOrbit(...Object.values(predictions(this.flow, this.tau())));
    yield* this.drawMap();
  }

  // The infinite ensemble's mean on the grid is Θ(grid, X) α(t), and only α depends on the time.
  *prepare() {
    const { model, scene } = this, invariant = scene.augmentation === "full" && scene.start === "symmetric";
    const n = scene.points.length;
    const modes = invariant
      ? yield* invariantSteps(model, this.group, this.points)
      : yield* eigenSteps((yield* kernelSteps(model, this.X, this.X)).ntk, this.y.length);
    this.labels = invariant ? this.y.subarray(0, n) : this.y;
    // a tenth of what the fastest mode needs, so that descent follows the flow
    this.eta = Number((0.1 * this.y.length / modes.values.at(-1)).toPrecision(2));
    const { ntk } = yield* kernelSteps(model, this.grid, this.X);
    this.rows = invariant ? summedOverGroup(ntk, this.group.order, n) : ntk;
    this.modes = modes;
  }

  *drawMap() {
    const { show } = this.scene, size = this.R * this.R, n = this.labels.length;
    let field = new Float64Array(size);
    if (show !== "infinite") {
      if (!this.ready) return;
      field = yield* fieldSteps(show === "one" ? this.networks.slice(0, 1) : this.networks, seen(this.model, this.grid), this.R);
    }
    if (show === "infinite" || show === "difference") {
      // alone it is shown at once at the time that the networks still have to catch up with
      const steps = show === "infinite" ? Math.max(this.step, this.goal) : this.step;
      const alpha = weights(this.modes, this.labels, this.tau(steps), this.y.length), sign = show === "difference" ? -1 : 1;
      for (let i = 0; i < size; i++) {
        let mu = 0;
        for (let k = 0; k < n; k++) mu += this.rows[i * n + k] * alpha[k];
        field[i] += sign * mu;
      }
    }
    this.field = field;
  }
}

// ---- the view

const STYLE = `
& { margin: 0; padding: 0; max-width: 52rem; color: var(--pst-color-text-base, inherit); font: inherit }
& svg, & canvas { display: block; width: 100% }
& .stage { display: grid; grid-template-columns: minmax(0, 1.25fr) minmax(0, 1fr); gap: .6rem 1rem; margin: .5rem 0 }
& .plane { position: relative; aspect-ratio: 1; border: 1px solid currentColor }
& .plane canvas { height: 100%; background: #f7f7f7 }
& .plane svg { position: absolute; inset: 0; height: 100%; touch-action: pan-y }
& .point { cursor: grab; outline: none }
& .point:focus .halo, & .chosen .halo { stroke: #000; stroke-width: .014; fill: #fff9 }
& .bar { display: flex; flex-wrap: wrap; gap: .35rem .8rem; align-items: center; font-size: .9em; margin: .35rem 0 }
& label { display: inline-flex; align-items: center; gap: .35em; margin: 0 }
& button, & select { font: inherit; color: inherit; background: var(--pst-color-background, Canvas);
  border: 1px solid currentColor; border-radius: 4px; padding: .2em .55em; min-height: 2.1em }
& button[aria-pressed=true] { background: #0072B2; color: #fff }
& input { width: 6.5em; min-height: 2em; accent-color: #0072B2 }
& output { font-variant-numeric: tabular-nums; min-width: 2.2em }
& .legend { display: flex; align-items: center; gap: .5em; font-size: .85em }
& .legend i { flex: 1; height: .7em; background: linear-gradient(90deg, #0072B2, #f7f7f7, #D55E00) }
& .silent { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
@media (max-width: 560px) { & .stage { grid-template-columns: minmax(0, 1fr) } }
@media print { & .bar { display: none !important } }`.replaceAll("&", ".playground");
const BLUE = [0, 114, 178], WHITE = [247, 247, 247], RED = [213, 94, 0];
const css = (v) => `rgb(${colour(v).slice(0, 3).map(Math.round)})`;

function colour(v, out = [], at = 0) {
  const part = Math.min(Math.abs(v), 1), end = v > 0 ? RED : BLUE;
  for (let c = 0; c < 3; c++) out[at + c] = WHITE[c] + part * (end[c] - WHITE[c]);
  out[at + 3] = 255;
  return out;
}

function element(name, attributes = {}, ...children) {
  const drawn = /^(svg|g|circle|path|line|text|rect|polyline)$/.test(name);
  const node = drawn ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

const superscript = (e) => String(e).replace(/./g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
const short = (v) => (v < 1e-9 ? "0" : String(Number(v.toPrecision(2)))).replace("-", "−");
const decades = (low, high) => [10 ** Math.floor(Math.log10(Math.max(low, 1e-4))), 10 ** Math.ceil(Math.log10(Math.max(1.5 * high, 1e-3)))];
const signed = (v) => (v < 0 ? "−" : "+") + Math.abs(v);

// A small chart on logarithmic axes from x[0] to x[1] and y[0] to y[1].
function chart(svg, { title, xlabel, x, y, band = [], lines, dots }) {
  const width = Math.max(svg.parentNode.clientWidth, 200), height = Math.round(width * 0.62);
  const left = 42, right = 8, top = 24, bottom = 38, log = Math.log10;
  const px = (v) => left + (width - left - right) * (log(v) - log(x[0])) / (log(x[1]) - log(x[0]));
  const py = (v) => height - bottom - (height - top - bottom) * (log(within(v, y[0], y[1])) - log(y[0])) / (log(y[1]) - log(y[0]));
  const text = { fill: "currentColor", "font-size": 12.5 }, rule = { stroke: "currentColor", opacity: 0.18 };
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const nodes = [element("text", { ...text, x: 2, y: 14 }, title),
    element("text", { ...text, x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, xlabel)];
  const name = (e) => (e === 0 ? "1" : "10" + (e === 1 ? "" : superscript(e)));
  for (let e = log(x[0]); e <= log(x[1]); e++) {
    nodes.push(element("line", { ...rule, x1: px(10 ** e), x2: px(10 ** e), y1: top, y2: height - bottom }),
      element("text", { ...text, x: px(10 ** e), y: height - bottom + 15, "text-anchor": "middle" }, name(e)));
  }
  for (let e = log(y[0]); e <= log(y[1]) + 0.1; e++) {
    nodes.push(element("line", { ...rule, x1: left, x2: width - right, y1: py(10 ** e), y2: py(10 ** e) }),
      element("text", { ...text, x: left - 4, y: py(10 ** e) + 4, "text-anchor": "end" }, name(Math.round(e))));
  }
  const path = (points) => "M" + points.map(([a, b]) => `${px(a).toFixed(1)},${py(b).toFixed(1)}`).join("L");
  if (band.length) nodes.push(element("path", { d: path(band) + "Z", fill: "#0072B2", stroke: "#0072B2", "stroke-width": 3, opacity: 0.25 }));
  for (const { points, stroke, dash = "" } of lines) {
    if (points.length) nodes.push(element("path", { d: path(points), fill: "none", stroke, "stroke-width": 2, "stroke-dasharray": dash }));
  }
  for (const [a, b] of dots) nodes.push(element("circle", { cx: px(a), cy: py(b), r: 3.5, fill: "#D55E00" }));
  svg.replaceChildren(...nodes);
}

let count = 0;

function render({ model, el }) {
  const data = model.get("data"), id = "playground-" + ++count;
  // the first playground of a static page has the address; slides have another use for it
  const addressed = el.matches(".interactive-figure") && !document.querySelector(".playground, .reveal");
  const original = checked(model.get("scene"), data.default);
  let scene = (addressed && fromAddress(location.hash, original)) || original;
  let playing = false, visible = false, chosen = null, job = null, pending = false, batch = 0, touched = 0, changed = true;
  const simulation = new Simulation(scene), profile = { frames: 0, longest: 0, drawing: 0, since: 0 };

  const say = element("div", { class: "silent", "aria-live": "polite", role: "status" });
  const canvas = element("canvas", { "aria-hidden": "true" });
  const overlay = element("svg", { viewBox: "-1 -1 2 2", role: "group" });
  const [spreadChart, lossChart] = ["spread", "loss"].map((name) => element("svg", { role: "img", "aria-label": name }));
  const legend = element("div", { class: "legend", "aria-hidden": "true" }), caption = element("figcaption", { id: id + "-caption" });
  overlay.setAttribute("aria-label", "The plane. Tab leads to points, arrow keys move them, Delete removes, + and - set the label.");

  // ---- controls
  const inputs = {};
  const button = (text, act) => element("button", { type: "button", onclick: act }, text);
  function select(name, words, options) {
    const input = element("select", { onchange: () => set({ [name]: input.value }) });
    for (const [value, label] of Object.entries(options)) input.append(element("option", { value }, label));
    inputs[name] = input;
    return element("label", {}, words, input);
  }
  function range(name, words, low, high, value = (e) => 2 ** e, change = (v) => set({ [name]: v })) {
    const shown = element("output");
    const input = element("input", { type: "range", min: low, max: high, step: name === "label" ? 0.5 : 1,
      oninput: () => change(value(+input.value)) });
    inputs[name] = input;
    input.shown = shown;
    return element("label", {}, words, input, shown);
  }
  const play = button("Play", () => { run(!playing); announce(playing ? "training" : "paused"); });
  const stepper = button("Step", () => { run(false); batch = 1; wake(); announce(`step ${simulation.step + 1}`); });
  const reset = button("Reset", () => { restart(0); announce("back at the start"); });
  const seeds = button("New seed", () => { set({ seed: scene.seed + 1 }); announce("other networks"); });
  const clock = element("output");
  const remove = button("Remove it", () => removePoint(chosen));
  const groups = Object.fromEntries(Array.from({ length: 16 }, (_, i) => Array(2).fill("CD"[i >> 3] + (i % 8 + 1))));
  const presets = data.presets.map((preset) => button(preset.name, () => {
    chosen = null;
    restart(0);
    set({ ...data.default, ...preset.scene });
    announce(preset.name + ". " + preset.sentence);
    run(true);
  }));
  const root = element("figure", { class: "playground", "aria-labelledby": caption.id }, element("style", {}, STYLE),
    element("div", { class: "bar", role: "group", "aria-label": "Scenes" }, ...presets),
    element("div", { class: "bar" }, play, stepper, reset, seeds, clock, select("show", "map", CHOICES.show)),
    element("div", { class: "stage" },
      element("div", {}, element("div", { class: "plane" }, canvas, overlay), legend),
      element("div", {}, spreadChart, lossChart)),
    caption,
    element("div", { class: "bar" }, select("group", "group", groups), select("augmentation", "trained with", CHOICES.augmentation),
      select("start", "start", CHOICES.start)),
    element("div", { class: "bar" }, range("networks", "networks", 0, 8), range("width", "width", 2, 7),
      select("depth", "hidden layers", { 1: "1", 2: "2" }), select("activation", "activation", CHOICES.activation)),
    element("div", { class: "bar" }, button("Add a point", () => addPoint(Math.random() - 0.5, Math.random() - 0.5)),
      range("label", "its label", -1, 1, (v) => v, (v) => setLabel(chosen, v)), remove,
      button("Copy as Python", copyPython)), say);
  el.append(root);

  const announce = (text) => say.replaceChildren(element("p", {}, text));
  async function copyPython() {
    root.copied = toPython(scene, simulation.eta, simulation.step);
    try {
      await navigator.clipboard.writeText(root.copied);
      announce("Python code copied");
    } catch { // without permission, as in some notebooks
      root.append(element("textarea", { rows: 9, cols: 80, "aria-label": "Python code" }, root.copied));
    }
  }

  // ---- the scene
  let own = false, saving = null;
  function set(changes) {
    scene = checked({ ...scene, ...changes }, original);
    if (Object.keys(changes).join() === "show") { // another map of the same training
      simulation.scene = scene;
      job = null;
      wake();
    } else restart();
    show();
    clearTimeout(saving);
    saving = setTimeout(save, 200);
  }
  function save() {
    own = true;
    model.set("scene", scene);
    model.save_changes();
    own = false;
    if (addressed) history.replaceState(null, "", "#" + toAddress(scene));
  }
  function restart(goal) { // up to the step that was reached, or another
    simulation.restart(scene, goal);
    job = null;
    Object.assign(profile, { frames: 0, longest: 0, drawing: 0, since: performance.now() });
    wake();
  }
  function run(on) {
    playing = on;
    play.textContent = on ? "Pause" : "Play";
    touched = simulation.step;
    if (!on) batch = 0;
    wake();
  }
  function choose(which) {
    chosen = which;
    showPoints();
  }
  function movePoint(which, x, y, tell = true) {
    if (which === "asked") set({ asked: [x, y] });
    else set({ points: scene.points.map((p, i) => (i === which ? [x, y, p[2]] : p)) });
    const [a, b] = which === "asked" ? scene.asked : scene.points[which];
    if (tell) announce(`at ${signed(a)}, ${signed(b)}`);
  }
  function addPoint(x, y) {
    const before = scene.points.length, label = scene.points[before - 1][2] > 0 ? -1 : 1;
    set({ points: [...scene.points, [x, y, label]] });
    if (scene.points.length === before) return announce("No more points fit.");
    choose(before);
    marks[before].focus();
    announce(`point ${before + 1} added, label ${signed(label)}`);
  }
  function removePoint(which) {
    if (typeof which !== "number") return;
    if (scene.points.length === 1) return announce("One point has to stay.");
    const inside = overlay.contains(document.activeElement);
    chosen = Math.min(which, scene.points.length - 2);
    set({ points: scene.points.filter((_, i) => i !== which) });
    if (inside) marks[chosen].focus();
    announce(`point ${which + 1} removed, ${scene.points.length} left`);
  }
  function setLabel(which, label) {
    if (typeof which !== "number") return;
    set({ points: scene.points.map((p, i) => (i === which ? [p[0], p[1], label] : p)) });
    announce(`label ${signed(scene.points[which][2])}`);
  }

  // ---- points, by mouse, touch and keyboard
  const pale = element("g", { "aria-hidden": "true" });
  const ground = element("rect", { x: -1, y: -1, width: 2, height: 2, fill: "transparent" });
  overlay.append(ground, pale);
  const marks = [];
  let askedMark = null;
  function place(event) {
    const box = overlay.getBoundingClientRect();
    return [2 * (event.clientX - box.left) / box.width - 1, 1 - 2 * (event.clientY - box.top) / box.height];
  }
  ground.addEventListener("click", (event) => addPoint(...place(event)));
  function mark(which) {
    let held = false;
    const node = element("g", { class: "point", tabindex: 0, role: "button",
      onfocus: () => choose(which),
      ontouchstart: (event) => event.preventDefault(), // or the page would scroll
      onpointerdown: (event) => { held = true; node.setPointerCapture(event.pointerId); node.focus(); },
      onpointermove: (event) => { if (held) movePoint(which, ...place(event), false); },
      onpointerup: () => { if (held) announce(node.getAttribute("aria-label")); held = false; },
      onpointercancel: () => { held = false; },
      ondblclick: () => removePoint(which),
      onkeydown: (event) => {
        const [x, y] = which === "asked" ? scene.asked : scene.points[which], far = event.shiftKey ? 0.01 : 0.05;
        const moves = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, far], ArrowDown: [0, -far] };
        if (moves[event.key]) movePoint(which, x + moves[event.key][0], y + moves[event.key][1]);
        else if (event.key === "Delete" || event.key === "Backspace") removePoint(which);
        else if (event.key === "+" || event.key === "-") setLabel(which, event.key === "+" ? 1 : -1);
        else return;
        event.preventDefault();
        event.stopPropagation(); // slides turn at arrow keys
      } });
    node.append(element("circle", { class: "halo", r: 0.085, fill: "transparent" }));
    if (which === "asked") node.append(element("path", { d: "M0,-.06L.06,0L0,.06L-.06,0Z", fill: "#fff", stroke: "#000", "stroke-width": 0.016 }));
    else node.append(element("circle", { r: 0.05, stroke: "#000", "stroke-width": 0.012 }),
      element("path", { stroke: "#fff", "stroke-width": 0.016, fill: "none" }));
    overlay.append(node);
    return node;
  }
  const sign = (v) => (v < 0 ? "M-.025,0H.025" : v > 0 ? "M-.025,0H.025M0,-.025V.025" : "");
  const at = (x, y) => `translate(${x},${-y})`;
  function showPoints() {
    while (marks.length > scene.points.length) marks.pop().remove();
    while (marks.length < scene.points.length) marks.push(mark(marks.length));
    askedMark ??= mark("asked");
    const others = [];
    scene.points.forEach(([x, y, label], i) => {
      const [, dot, cross] = marks[i].childNodes;
      marks[i].setAttribute("transform", at(x, y));
      marks[i].setAttribute("class", chosen === i ? "point chosen" : "point");
      marks[i].setAttribute("aria-label", `point ${i + 1} of ${scene.points.length}, label ${signed(label)}, at ${signed(x)}, ${signed(y)}`);
      dot.setAttribute("fill", css(label));
      cross.setAttribute("d", sign(label));
      const moved = images(simulation.group, simulation.all, Float64Array.from([x, y]));
      for (const g of simulation.all.slice(1)) { // images that are not trained on are empty and dashed
        const trained = simulation.chosen.includes(g), transform = at(moved[2 * g], moved[2 * g + 1]);
        others.push(element("circle", { r: trained ? 0.036 : 0.03, transform, fill: trained ? css(label) : "none", opacity: trained ? 0.75 : 0.6,
          stroke: "#000", "stroke-width": 0.008, "stroke-dasharray": trained ? "" : ".02" }));
      }
    });
    const [x, y] = scene.asked;
    askedMark.setAttribute("transform", at(x, y));
    askedMark.setAttribute("class", chosen === "asked" ? "point chosen" : "point");
    askedMark.setAttribute("aria-label", `the input that is asked about, at ${signed(x)}, ${signed(y)}`);
    for (const g of simulation.all.slice(1)) {
      others.push(element("path", { d: "M0,-.045L.045,0L0,.045L-.045,0Z", fill: "#fffa", stroke: "#000", "stroke-width": 0.008,
        transform: at(simulation.asked[2 * g], simulation.asked[2 * g + 1]) }));
    }
    pale.replaceChildren(...others);
    const point = typeof chosen === "number" ? scene.points[chosen] : null;
    inputs.label.disabled = remove.disabled = !point;
    inputs.label.value = point ? point[2] : 0;
    inputs.label.shown.textContent = point ? signed(point[2]) : "";
  }
  function show() {
    for (const name of ["group", "augmentation", "start", "show", "depth", "activation"]) inputs[name].value = scene[name];
    for (const name of ["networks", "width"]) {
      inputs[name].value = Math.log2(scene[name]);
      inputs[name].shown.textContent = scene[name];
      inputs[name].setAttribute("aria-valuetext", scene[name]);
    }
    const full = scene.show === "difference" ? 0.5 : 1.5;
    legend.replaceChildren(`−${full}`, element("i"), `+${full}`);
    presets.forEach((node, i) => node.setAttribute("aria-pressed", Object.entries({ ...data.default, ...data.presets[i].scene })
      .every(([key, value]) => JSON.stringify(scene[key]) === JSON.stringify(value))));
    showPoints();
  }

  // ---- drawing
  function paint() {
    const { field, R } = simulation, full = scene.show === "difference" ? 0.5 : 1.5;
    if (!field) return;
    if (canvas.width !== R) canvas.width = canvas.height = R;
    const context = canvas.getContext("2d"), picture = context.createImageData(R, R);
    for (let i = 0; i < R * R; i++) colour(field[i] / full, picture.data, 4 * i);
    context.putImageData(picture, 0, 0);
  }
  function paintCharts() {
    const { measured, theory, losses, flow } = simulation;
    if (!measured || !simulation.ready) return;
    const M = scene.networks, floor = Math.sqrt(theory.floor), sizes = Array.from({ length: 33 }, (_, i) => 2 ** (i / 4));
    const one = band(theory, 1)[1], low = Math.min(band(theory, 256)[1], measured.at(-1).spread);
    const sides = measured.map(({ m, repeats }) => [m, band(theory, m, repeats)]);
    const trivial = simulation.group.order === 1;
    chart(spreadChart, { title: "spread over the orbit", xlabel: "networks averaged", x: [1, 256], y: decades(low, one),
      band: [...sides.map(([m, b]) => [m, b[2]]), ...sides.reverse().map(([m, b]) => [m, b[0]])],
      lines: [{ points: sizes.map((m) => [m, band(theory, m)[1]]), stroke: "#0072B2" },
        { points: floor > 1e-6 ? [[1, floor], [256, floor]] : [], stroke: "#767676", dash: "5 4" }],
      dots: trivial ? [] : measured.map(({ m, spread }) => [m, spread]) });
    const most = Math.max(10, simulation.step), steps = Array.from({ length: 41 }, (_, i) => most ** (i / 40));
    const expected = steps.map((step) => [step, meanLoss(flow, simulation.tau(step - 1))]);
    chart(lossChart, { title: "loss", xlabel: "training step", x: [1, most], y: decades(expected.at(-1)[1], expected[0][1]),
      lines: [{ points: expected, stroke: "#0072B2" }],
      dots: losses.filter((_, i) => i % Math.ceil(losses.length / 24) === 0).map(([step, loss]) => [step + 1, loss]) });
    const last = measured.at(-1).spread, infinite = short(floor);
    caption.textContent = trivial ? "C1 has one element: there is nothing to compare."
      : `On the ${simulation.group.order} images of the diamond the answers differ by ${short(measured[0].spread)} for one network, ${M > 1 ? `${short(last)} for the mean of ${M}, ` : ""}` +
        `and ${infinite}${floor < 1e-9 ? ", to rounding," : ""} for the infinite ensemble. Dots are networks trained here, blue lines the closed form.`;
    spreadChart.setAttribute("aria-label", `Spread over the orbit: ${measured.map(({ m, spread }) => `${short(spread)} for ${m}`).join(", ")} networks; ` +
      `closed form: ${short(one)} for one, ${infinite} for infinitely many.`);
    lossChart.setAttribute("aria-label", `Loss after ${simulation.step} steps: ${short(losses.at(-1)?.[1] ?? 0)}.`);
    clock.textContent = `step ${simulation.step}, t = ${short(simulation.eta * simulation.step)}`;
    Object.assign(root.dataset, { step: simulation.step, one: measured[0].spread, mean: last, floor, theory: one, ready: "" });
  }

  // ---- the loop: a frame draws and starts the next batch, messages between frames work on it
  const channel = new MessageChannel();
  let stale = true, waiting = false, chartsAt = 0;
  channel.port1.onmessage = () => { pending = false; work(); };
  function work() {
    if (!job || !awake()) return;
    const start = performance.now();
    let done = false;
    while (!done && performance.now() - start < SLICE) done = job.next().done;
    profile.longest = Math.max(profile.longest, performance.now() - start);
    if (done) {
      job = null;
      changed = true;
      request();
    } else if (!pending) {
      pending = true;
      channel.port2.postMessage(0);
    }
  }
  const awake = () => visible && !document.hidden;
  function request() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(frame);
  }
  function wake() {
    stale = changed = true;
    request();
  }
  function frame(now) {
    waiting = false;
    if (!awake() || !root.isConnected) return;
    if (changed) {
      const start = performance.now();
      paint();
      if (now - chartsAt > 100 || !playing) { // letters may change less often
        paintCharts();
        chartsAt = now;
      }
      changed = false;
      profile.frames++;
      profile.drawing = Math.max(profile.drawing, performance.now() - start);
    }
    if (job) return work(); // one that was interrupted
    if (playing && simulation.step - touched >= PAUSE) run(false);
    const behind = simulation.goal - simulation.step;
    const steps = playing ? BATCH : behind > 0 ? Math.min(BATCH, behind) : batch;
    if (steps > 0 || stale) {
      stale = false;
      batch = 0;
      job = simulation.work(steps);
      work();
    }
  }

  model.on("change:scene", () => {
    if (own) return;
    scene = checked(model.get("scene"), original);
    restart();
    show();
  });
  addEventListener("hashchange", () => {
    const linked = addressed && fromAddress(location.hash, original);
    if (linked) set(linked);
  });
  document.addEventListener("visibilitychange", wake);
  new IntersectionObserver((entries) => {
    visible = entries.at(-1).isIntersecting;
    if (visible) wake();
  }).observe(root);
  new ResizeObserver(wake).observe(root);
  root.playground = { simulation, profile, get scene() { return scene; }, set, run };
  show();
  caption.textContent = data.captions[0];
  run(!matchMedia("(prefers-reduced-motion: reduce)").matches);
}

export default { render };
