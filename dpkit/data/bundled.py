"""Real data that another installed package ships: scikit-learn's digits.

1,797 images of 8 by 8 pixels: the test part of the optical digits of Alpaydin and
Kaynak. It needs no download, so examples and tests that must run anywhere use it.
"""

import importlib.util

import numpy as np

from dpkit.data.arrays import Arrays, check_arrays
from dpkit.data.errors import DataUnavailable
from dpkit.data.records import Source


def check_bundled(source: Source) -> None:
    """Refuse early if the package that ships the data is missing.

    Raises:
      DataUnavailable: scikit-learn is not installed.

    Example:
      >>> from dpkit.data import SOURCES
      >>> check_bundled(SOURCES["digits"])
    """
    if importlib.util.find_spec("sklearn") is None:
        raise DataUnavailable(
            f"name={source.name!r}: it comes with scikit-learn, which is not "
            f"installed; run `{source.obtain}`"
        )


def read_bundled(source: Source, split: str) -> Arrays:
    """The arrays of one split of the digits.

    Raises:
      DataUnavailable: scikit-learn is not installed.
      DataCorrupt: it ships other images than those on record.

    Example:
      >>> from dpkit.data import SOURCES
      >>> read_bundled(SOURCES["digits"], "test")["image"].shape
      (360, 8, 8, 1)
    """
    check_bundled(source)
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    first = source.splits["train"].size
    rows = {"train": slice(None, first), "test": slice(first, None)}[split]
    arrays: Arrays = {
        "image": np.asarray(pixels, np.uint8)[rows].reshape(-1, *source.shape),
        "label": np.asarray(labels, np.int64)[rows],
    }
    check_arrays(source, split, arrays)
    for values in arrays.values():
        values.flags.writeable = False
    return arrays
