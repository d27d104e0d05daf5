"""What the experiments share: arguments, errors without a traceback, results with provenance."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np

from nteq.datasets import RESULTS


def at_least(least: int) -> Callable[[str], int]:
    """The argparse type of a whole number that is not smaller."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
        return value

    return number


def sizes(members: int) -> list[int]:
    """The sizes of ensembles to look at: powers of two, and all members."""
    return sorted({2**i for i in range(members.bit_length())} | {members})


def parser(name: str, description: str, **defaults) -> argparse.ArgumentParser:
    """The arguments that all experiments have."""
    arguments = argparse.ArgumentParser(
        prog=f"python -m experiments.{name}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = arguments.add_argument
    if "members" in defaults:  # there are none at infinite width
        add("--members", type=at_least(1), help="networks in an ensemble")
    add("--seed", type=at_least(0), help="of data and networks")
    add("--out", type=Path, help="the result, a .npz file; what is finished on the way is kept beside it")
    add("--resume", action="store_true", help="go on with an interrupted run of the same arguments")
    add("--quick", action="store_true", help="the same at a size of seconds, in the place of the defaults")
    arguments.set_defaults(out=RESULTS / f"{name}.npz", seed=0, **defaults)
    return arguments


def learning(arguments: argparse.ArgumentParser, groups: list[str], several: list[str]) -> None:
    """Adds the arguments of experiments that train one kind of network; some can take several values."""
    many = lambda argument: "+" if argument in several else 1
    add = arguments.add_argument
    add("--width", type=at_least(1), nargs=many("width"), help="hidden units, or channels of the first layer")
    add("--group", choices=groups, nargs=many("group"), help="the symmetry")
    add("--train", type=at_least(1), help="training examples before augmentation")
    add("--steps", type=at_least(1), help="training steps")


def main(arguments: argparse.ArgumentParser, quick: dict, experiment: Callable) -> None:
    """Runs experiment(options, folder) -> arrays and stores them, or says in one line what is wrong."""
    if "--quick" in sys.argv:
        arguments.set_defaults(**quick)
    options = arguments.parse_args()
    # of a file the name: where it lies is of this machine
    name_of = lambda v: v.name if isinstance(v, Path) else str(v)
    settings = {k: name_of(v) for k, v in vars(options).items() if k not in ("out", "resume")}
    try:
        # one block of networks on each core
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
        if options.out.suffix != ".npz":
            raise ValueError(f"--out must end in .npz, got {options.out}")
        if options.out.exists():
            if not options.resume:
                raise FileExistsError(
                    f"{options.out} exists: give --resume to go on with it, or another --out"
                )
            stored = json.loads(str(np.load(options.out)["provenance"]))["settings"]
            apart = [
                f"  --{k}: {stored.get(k)} there, {v} now" for k, v in settings.items() if stored.get(k) != v
            ]
            if apart:
                raise ValueError(f"{options.out} is the result of another run:\n" + "\n".join(apart))
            print(f"{options.out} is complete already.")
            return
        folder = options.out.with_suffix(".run")
        if folder.exists() and not options.resume:
            raise FileExistsError(
                f"{folder} holds an interrupted run: give --resume to go on, or another --out"
            )
        start = time.time()
        arrays = experiment(options, folder)
        # where the result went is no part of how it was made, and would be a path of this machine; whether
        # it was made in one go is said beside
        where = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        where.add_argument("--out")
        where.add_argument("--resume", action="store_true")
        rest = where.parse_known_args(sys.argv[1:])[1]
        given = {str(v): v.name for v in vars(options).values() if isinstance(v, Path)}
        rest = [given.get(argument, argument) for argument in rest]
        name = arguments.prog.split(".")[-1]
        provenance = {
            "command": shlex.join(["python", "-m", f"experiments.{name}", *rest]),
            "settings": settings,
            "date": time.strftime("%Y-%m-%d"),
            "seconds": round(time.time() - start),
            "resumed": options.resume,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {jax.default_backend()}",
            "versions": {"python": platform.python_version()}
            | {p: version(p) for p in ("nteq", "jax", "optax")},
        }
        unfinished = options.out.with_suffix(".npz.part")
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as file:
            np.savez_compressed(file, provenance=json.dumps(provenance), **arrays)
        unfinished.replace(options.out)
        shutil.rmtree(folder)
        size = options.out.stat().st_size / 1000
        print(f"Stored {options.out}, {size:.0f} kB, after {provenance['seconds']} s.")
    except KeyboardInterrupt:
        arguments.exit(130, f"\n{arguments.prog}: interrupted. The same command with --resume goes on.\n")
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        arguments.exit(2, f"{arguments.prog}: error: {error}\n")
