"""Which training keeps the symmetry: `python -m experiments.pipelines`.

For every row of the table in `rows`, thousands of small networks are trained in exactly that way, and asked
about inputs far from their data, turned by each element of the group. Whether their mean is equivariant is
tested by `nteq.metrics.symmetry_test`.
"""

import jax
import numpy as np
from scipy.special import ndtr

from experiments import command
from experiments.pipelines.rows import PROBLEMS, TABLE
from nteq.metrics import symmetry_test

BLOCK = 2000  # members that are trained at once
KEEPS, BREAKS = 2 * ndtr(-4), 2 * ndtr(-8)  # p of a normal variable beyond 4 and 8 standard deviations


def predictions(row, problem, seed, members):
    """Of all members, shape (members, |G|, m, outputs)."""
    train = jax.jit(jax.vmap(row.build(problem)))
    keys = jax.random.split(jax.random.key(seed), members)
    blocks = [np.asarray(train(keys[start : start + BLOCK])) for start in range(0, members, BLOCK)]
    return np.concatenate(blocks)


def experiment(options, folder):
    """Every row on every problem that it has a verdict for, one file each on the way."""
    folder.mkdir(parents=True, exist_ok=True)
    problems = {letter: make() for letter, make in PROBLEMS.items()}
    most = max(len(p.label_matrices) * len(p.asked) * p.y.shape[1] for p in problems.values())
    chosen = [(part, row) for part, rows in TABLE.items() for row in rows if row.name in options.rows]
    z = np.full((len(chosen), len(problems), most), np.nan, np.float32)
    p = np.full((len(chosen), len(problems)), np.nan)
    for i, (_, row) in enumerate(chosen):
        for j, (letter, problem) in enumerate(problems.items()):
            if letter not in row.keeps + row.breaks:
                continue
            done = folder / f"{row.name}-{letter}.npz"
            if not done.exists():
                answers = predictions(row, problem, options.seed + 3, row.members * options.members)
                found = symmetry_test(answers, problem.label_matrices)
                np.savez(done, z=found.z.ravel(), p=found.p)
            with np.load(done) as found:
                z[i, j, : found["z"].size], p[i, j] = found["z"], found["p"]
            largest = np.nanmax(np.abs(z[i, j]))
            expected = p[i, j] > KEEPS if letter in row.keeps else p[i, j] < BREAKS
            print(
                f"{row.name:20s} {letter} {'keeps ' if letter in row.keeps else 'breaks'} largest |z| "
                f"{largest:6.1f}, p = {p[i, j]:.1g}{'' if expected else '  NOT AS EXPECTED'}",
                flush=True,
            )
    rows = [row for _, row in chosen]
    text = {name: [getattr(row, name) for row in rows] for name in ("name", "what", "why", "keeps", "breaks")}
    return {
        "part": [part for part, _ in chosen],
        **text,
        "verdict": [row.verdict for row in rows],
        "problems": list(problems),
        "z": z,  # (rows, problems, group elements and inputs and outputs, NaN where there are none)
        "p": p,  # (rows, problems), NaN where a row does not apply
    }


if __name__ == "__main__":
    names = [row.name for rows in TABLE.values() for row in rows]
    arguments = command.parser(
        "pipelines", "Tests of what each way of training does to the symmetry of the mean.", members=10000,
        rows=names,
    )  # fmt: skip
    arguments.add_argument(
        "--rows", choices=names, nargs="+", metavar="ROW", help="of the table; all of them"
    )
    quick = dict(members=200, rows=["gaussian", "either-sign"])
    command.main(arguments, quick, experiment)
