"""From the members of an archive to the arrays of each split.

One function for each layout in which a registry holds a data set. What they return is
compared with the record afterwards, so they may trust the layout and need not check it
twice.
"""

import gzip
import io
from collections.abc import Callable, Mapping

import numpy as np

from dpkit.data.arrays import Arrays
from dpkit.data.idx import read_idx
from dpkit.data.pickles import read_arrays
from dpkit.data.plays import parse_plays

Parser = Callable[[Mapping[str, bytes]], dict[str, Arrays]]


def parse_mnist_idx(members: Mapping[str, bytes]) -> dict[str, Arrays]:
    """MNIST out of its four original files.

    Example:
      >>> from dpkit.data.idx import idx_header
      >>> images, labels = idx_header((1, 2, 2)) + bytes(4), idx_header((1,)) + bytes(1)
      >>> files = {"a/train-images-idx3-ubyte": images, "a/t10k-images-idx3-ubyte":
      ...     images, "a/train-labels-idx1-ubyte": labels,
      ...     "a/t10k-labels-idx1-ubyte": labels}
      >>> parse_mnist_idx(files)["test"]["image"].shape
      (1, 2, 2, 1)
    """
    files = {name.rpartition("/")[2]: data for name, data in members.items()}
    return {
        split: {
            "image": read_idx(files[f"{prefix}-images-idx3-ubyte"], 3)[..., None],
            "label": read_idx(files[f"{prefix}-labels-idx1-ubyte"], 1).astype(np.int64),
        }
        for split, prefix in (("train", "train"), ("test", "t10k"))
    }


def parse_mnist_pickle(members: Mapping[str, bytes]) -> dict[str, Arrays]:
    """MNIST out of one gzipped pickle of (pixels / 256, labels) pairs.

    The three pairs hold 50,000, 10,000 and 10,000 rows; the first two, in order, are
    the original training set.

    Example:
      >>> import pickle
      >>> pair = (np.full((1, 784), 0.5, np.float32), np.array([7]))
      >>> data = gzip.compress(pickle.dumps((pair, pair, pair), protocol=3))
      >>> parse_mnist_pickle({"mnist.pkl.gz": data})["train"]["label"]
      array([7, 7])
    """
    (data,) = members.values()
    with gzip.open(io.BytesIO(data)) as stream:
        train, validation, test = read_arrays(stream)
    return {
        "train": {
            "image": np.concatenate([_pixels(train[0]), _pixels(validation[0])]),
            "label": np.concatenate([train[1], validation[1]]),
        },
        "test": {"image": _pixels(test[0]), "label": test[1]},
    }


PARSERS: dict[str, Parser] = {
    "mnist_idx": parse_mnist_idx,
    "mnist_pickle": parse_mnist_pickle,
    "plays": parse_plays,
}


def _pixels(fractions: np.ndarray) -> np.ndarray:
    """Bytes out of multiples of 1/256, by pieces to need little memory."""
    pixels = np.empty(fractions.shape, np.uint8)
    for start in range(0, len(pixels), 4096):
        pixels[start : start + 4096] = np.rint(fractions[start : start + 4096] * 256)
    return pixels.reshape(-1, 28, 28, 1)
