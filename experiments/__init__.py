"""The experiments as commands: `python -m experiments.ising --help`. Results are in nteq/results."""
