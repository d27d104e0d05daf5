// A plane, a group, some points and some networks: `nteq.interactive.Playground`, the same in a static page,
// in Jupyter and in Colab. Networks are trained right here, and the infinite ensemble is computed beside them.
//
// The first half is the mathematics, on plain typed arrays: points are (x, y, x, y, …), a matrix is its rows
// one after the other. Formulas, names and conventions are those of nteq, which tests/browser compares it
// with. What takes long is a generator that yields often, so that the page stays responsive: `finish` runs
// one to its end, the widget a slice of a few milliseconds at a time. The second half is the widget.

// The end of a computation that yields on its way.
export function finish(steps) {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

// ---------------------------------------------------------------------------------------------- numbers

// Uniform and normal numbers of a seed and a stream, such as that of one network: sfc32 (Doty-Humphrey).
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
  const uniform = () => ((bits() >>> 5) * 0x4000000 + (bits() >>> 6) + 0.5) / 2 ** 53; // never 0 or 1
  let spare = null;
  function normal() { // Marsaglia's polar method
    if (spare !== null) {
      const kept = spare;
      spare = null;
      return kept;
    }
    for (;;) {
      const u = 2 * uniform() - 1, v = 2 * uniform() - 1, s = u * u + v * v;
      if (s > 0 && s < 1) {
        const factor = Math.sqrt(-2 * Math.log(s) / s);
        spare = v * factor;
        return u * factor;
      }
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

// (erf x, erf′ x), in an array that the next call writes to.
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

// ----------------------------------------------------------------------------------------------- groups

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

// --------------------------------------------------------------------------------------------- the kernel
// A model is { activation: "relu" or "erf", depth: 1 or 2, W: σ_w, b: σ_b, axes: (s₁, s₂) }: axes multiply the
// two coordinates, as uneven variances of the first layer's weights do; (1, 1) is symmetric.

// What the kernel has to know of each point: h with K¹(x, x′) = h · h′, as a unit vector for ReLU, and for each
// layer the norm a, or for erf the variance.
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

// ------------------------------------------------------------------------------------- the infinite ensemble

// Eigenvalues λ, ascending, and eigenvectors (columns of V) of a symmetric matrix: Householder's tridiagonal
// form and the QL algorithm with implicit shifts (Bowdler, Martin, Reinsch & Wilkinson 1968).
export function* eigenSteps(matrix, n) {
  const V = Float64Array.from(matrix), d = new Float64Array(n), e = new Float64Array(n);
  for (let j = 0; j < n; j++) d[j] = V[(n - 1) * n + j];
  for (let i = n - 1; i > 0; i--) {
    let scale = 0, h = 0;
    for (let k = 0; k < i; k++) scale += Math.abs(d[k]);
    if (scale === 0) {
      e[i] = d[i - 1];
      for (let j = 0; j < i; j++) {
        d[j] = V[(i - 1) * n + j];
        V[i * n + j] = V[j * n + i] = 0;
      }
    } else {
      for (let k = 0; k < i; k++) h += (d[k] /= scale) * d[k];
      const f = d[i - 1], g = f > 0 ? -Math.sqrt(h) : Math.sqrt(h);
      e[i] = scale * g;
      h -= f * g;
      d[i - 1] = f - g;
      e.fill(0, 0, i);
      for (let j = 0; j < i; j++) { // the matrix times the mirror's vector
        const f = V[j * n + i] = d[j];
        let g = e[j] + V[j * n + j] * f;
        for (let k = j + 1; k < i; k++) {
          g += V[k * n + j] * d[k];
          e[k] += V[k * n + j] * f;
        }
        e[j] = g;
      }
      let sum = 0;
      for (let j = 0; j < i; j++) sum += (e[j] /= h) * d[j];
      for (let j = 0; j < i; j++) e[j] -= sum / (2 * h) * d[j];
      for (let j = 0; j < i; j++) {
        const f = d[j], g = e[j];
        for (let k = j; k < i; k++) V[k * n + j] -= f * e[k] + g * d[k];
        d[j] = V[(i - 1) * n + j];
        V[i * n + j] = 0;
      }
    }
    d[i] = h;
    yield;
  }
  for (let i = 0; i < n - 1; i++) { // the product of all mirrors
    V[(n - 1) * n + i] = V[i * n + i];
    V[i * n + i] = 1;
    const h = d[i + 1];
    if (h !== 0) {
      for (let k = 0; k <= i; k++) d[k] = V[k * n + i + 1] / h;
      for (let j = 0; j <= i; j++) {
        let g = 0;
        for (let k = 0; k <= i; k++) g += V[k * n + i + 1] * V[k * n + j];
        for (let k = 0; k <= i; k++) V[k * n + j] -= g * d[k];
      }
    }
    for (let k = 0; k <= i; k++) V[k * n + i + 1] = 0;
    yield;
  }
  for (let j = 0; j < n; j++) {
    d[j] = V[(n - 1) * n + j];
    V[(n - 1) * n + j] = 0;
  }
  V[n * n - 1] = 1;
  e.copyWithin(0, 1);
  e[n - 1] = 0;
  let shifted = 0, largest = 0;
  for (let l = 0; l < n; l++) {
    largest = Math.max(largest, Math.abs(d[l]) + Math.abs(e[l]));
    let m = l;
    while (Math.abs(e[m]) > Number.EPSILON * largest) m++; // e[n − 1] = 0 ends it
    while (m > l && Math.abs(e[l]) > Number.EPSILON * largest) {
      let g = d[l], p = (d[l + 1] - g) / (2 * e[l]), r = Math.hypot(p, 1) * (p < 0 ? -1 : 1);
      d[l] = e[l] / (p + r);
      d[l + 1] = e[l] * (p + r);
      const after = d[l + 1], below = e[l + 1];
      let h = g - d[l], c = 1, c2 = 1, c3 = 1, s = 0, s2 = 0;
      for (let i = l + 2; i < n; i++) d[i] -= h;
      shifted += h;
      p = d[m];
      for (let i = m - 1; i >= l; i--) {
        [c3, c2, s2] = [c2, c, s];
        g = c * e[i];
        h = c * p;
        r = Math.hypot(p, e[i]);
        e[i + 1] = s * r;
        s = e[i] / r;
        c = p / r;
        p = c * d[i] - s * g;
        d[i + 1] = h + s * (c * g + s * d[i]);
        for (let k = 0; k < n; k++) {
          const next = V[k * n + i + 1], here = V[k * n + i];
          V[k * n + i + 1] = s * here + c * next;
          V[k * n + i] = c * here - s * next;
        }
      }
      p = -s * s2 * c3 * below * e[l] / after;
      e[l] = s * p;
      d[l] = c * p;
      yield;
    }
    d[l] += shifted;
    e[l] = 0;
  }
  const order = Array.from(d.keys()).sort((i, j) => d[i] - d[j]), vectors = new Float64Array(n * n);
  order.forEach((from, to) => { for (let k = 0; k < n; k++) vectors[k * n + to] = V[k * n + from]; });
  return { values: Float64Array.from(order, (i) => d[i]), vectors };
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

// The mean of an infinite ensemble that was trained on all images of X by an invariant kernel takes the Gram
// matrix averaged over the group alone, (n, n): what the widget draws while a point is still being dragged.
export function* invariantSteps(model, chosen, X) {
  const n = X.length / 2, all = Array.from({ length: chosen.order }, (_, g) => g);
  const { ntk } = yield* kernelSteps(model, X, images(chosen, all, X));
  return yield* eigenSteps(summedOverGroup(ntk, chosen.order, n), n);
}

// All that mean and covariance on the points P take, after training on (X, y) written out: the eigenvectors
// of Θ(X, X), and in their frame the labels, K(X, X), Θ(P, X) and K(P, X).
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

// Of answers with this mean and covariance on an orbit: the variance over the orbit of one network, that of the
// mean, and of one network's d = Σ_g (f_g − f̄)²/|G| the spread that a chi-squared band needs.
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

// Mean and 95 % band of the standard deviation over the orbit of a mean over m networks, if the variances of
// `repeats` such means are averaged: the variance is nearly a multiple of chi-squared (Satterthwaite), whose
// quantiles are those of Wilson and Hilferty.
export function band({ own, floor, square, mixed }, m, repeats = 1) {
  const mean = own / m + floor, variance = (2 * square / (m * m) + 4 * mixed / m) / repeats;
  if (!(variance > 0)) return [Math.sqrt(mean), Math.sqrt(mean), Math.sqrt(mean)];
  const q = variance / (mean * mean) / 9; // 2/(9ν) with ν = 2 mean²/variance
  const quantile = (z) => Math.sqrt(mean * Math.max(1 - q + z * Math.sqrt(q), 0) ** 3);
  return [quantile(-1.96), Math.sqrt(mean), quantile(1.96)];
}

// ------------------------------------------------------------------------------------------ finite networks

// A network of given parameters [W¹, b¹, …] as `nteq.networks.mlp` orders them, W with a row for each input. What
// is kept is what multiplies the inputs, σ_w W/√fan-in and σ_b b; rates holds the factors by which η is then
// larger.
export function network(model, width, parameters) {
  const sizes = [2, ...Array(model.depth).fill(width), 1], layers = [], rates = [];
  for (let l = 0; l <= model.depth; l++) {
    const W = model.W / Math.sqrt(sizes[l]);
    layers.push(Float64Array.from(parameters[2 * l], (v) => v * W), Float64Array.from(parameters[2 * l + 1], (v) => v * model.b));
    rates.push(W * W, model.b * model.b);
  }
  return { model, width, layers, rates };
}

// One drawn from the normal distribution: the stream of a seed, so that it is the same in every ensemble.
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
    // Along a row a network is a line with a kink for each unit: add up where kinks are, then walk along once.
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

// The root mean square, over disjoint groups of m networks, of the standard deviation over the orbit of their
// means, for m = 1, 2, 4 … M, from the answers of each network on the orbit.
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
