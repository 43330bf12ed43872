"""The digits of scikit-learn as an ArrayRecord data source."""

from pathlib import Path
from typing import Any

import numpy as np

from dpkit.data import load_arrays


def write_digits(folder: Path) -> tuple[Any, Any]:
    """A data source with the rows of the training digits, and their arrays."""
    import tensorflow_datasets as tfds

    arrays = dict(load_arrays("digits", "train"))
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
            "label": tfds.features.Scalar(np.int64),
        }
    )

    class Digits(tfds.core.GeneratorBasedBuilder):
        """Written once, read by number."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return self.dataset_info_from_configs(
                features=features, disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            del dl_manager
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number in range(len(arrays["label"])):
                yield number, {name: leaf[number] for name, leaf in arrays.items()}

    builder = Digits(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return builder.as_data_source("train"), arrays
