"""The part of Fashion-MNIST that ships with nteq: `make subset` writes nteq/fashion_mnist_subset.npz.

It takes the first images of the whole data set, which nteq.datasets finds on this machine or downloads.
"""

import numpy as np

from nteq import datasets


def main():
    """Cuts and stores."""
    x, y, x_test, y_test = (datasets._fashion_mnist_file(name) for name in datasets.FILES)
    train, test = datasets.SHIPPED_SIZES
    np.savez_compressed(
        datasets.SHIPPED, x=x[:train], y=y[:train], x_test=x_test[:test], y_test=y_test[:test]
    )


if __name__ == "__main__":
    main()
