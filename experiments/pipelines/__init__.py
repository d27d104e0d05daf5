"""Which training keeps the symmetry: `python -m experiments.pipelines`."""
