"""Data sets by name: real, pinned by hash, fetched only when asked.

    from dpkit.data import load
    mnist = load("mnist", allow_download=True)
    train = mnist.arrays("train")   # {"image": uint8 (60000, 28, 28, 1), "label": int}

Arrays are read-only and memory-mapped. The same data is prepared for TensorFlow
Datasets under `mnist.tfds_dir`. What is known about a data set without looking at its
rows stands in `mnist.schema`; a model may depend on that freely.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
