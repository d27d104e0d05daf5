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


def measured(row, letter, problem, options, folder):
    """The test of one row on one problem, from the run that was interrupted if it got that far."""
    done = folder / f"{row.name}-{letter}.npz"
    members = row.members * options.members
    if not done.exists():
        answers = predictions(row, problem, options.seed + 3, members)
        lost = (~np.isfinite(answers)).any(axis=(1, 2, 3)).sum()
        if lost:
            raise ValueError(f"{lost} of {members} networks of the row {row.name} diverged: lower its rate")
        found = symmetry_test(answers, problem.label_matrices)
        np.savez(done, z=found.z.ravel(), p=found.p, members=members, seed=options.seed)
    with np.load(done) as stored:
        if (stored["members"], stored["seed"]) != (members, options.seed):
            raise ValueError(
                f"{folder} holds a run with other --members or another --seed: remove it, or give another "
                "--out"
            )
        return stored["z"], stored["p"]


def experiment(options, folder):
    """Every row on every problem that it has a verdict for."""
    folder.mkdir(parents=True, exist_ok=True)
    problems = {letter: make() for letter, make in PROBLEMS.items()}
    chosen = [(part, row) for part, rows in TABLE.items() for row in rows if row.name in options.rows]
    most = max(len(p.label_matrices) * len(p.asked) * p.y.shape[1] for p in problems.values())
    z = np.full((len(chosen), len(problems), most), np.nan, np.float32)
    p = np.full((len(chosen), len(problems)), np.nan)
    for i, (_, row) in enumerate(chosen):
        for j, (letter, problem) in enumerate(problems.items()):
            if letter in row.keeps + row.breaks:
                scores, p[i, j] = measured(row, letter, problem, options, folder)
                z[i, j, : scores.size] = scores
                proved = "keeps " if letter in row.keeps else "breaks"
                expected = p[i, j] > KEEPS if letter in row.keeps else p[i, j] < BREAKS
                print(
                    f"{row.name:20s} {letter} {proved} largest |z| {np.abs(scores).max():6.1f}, "
                    f"p = {p[i, j]:.1g}{'' if expected else '  NOT AS EXPECTED'}",
                    flush=True,
                )
    rows = [row for _, row in chosen]
    text = ("name", "what", "why", "keeps", "breaks", "verdict")
    return {
        "part": [part for part, _ in chosen],
        **{key: [getattr(row, key) for row in rows] for key in text},
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
