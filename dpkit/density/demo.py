"""The demo of density: the classes of a real data set, from one release.

Images of a data set of ours are summed up class by class, with noise; the mean of each
class is public then, and a new image belongs to the nearest one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dpkit.accountants.answers.relations import as_relation
from dpkit.data import Dataset, load
from dpkit.density.choice import Choice
from dpkit.density.classifier import Classifier
from dpkit.density.config import ClassesConfig
from dpkit.density.job import Build, shown_of
from dpkit.density.released import Release
from dpkit.density.shards import Shard
from dpkit.jobs.config import naming
from dpkit.jobs.progress import Tell
from dpkit.report import Axes, Map, Section, Table, Text

_SCORED = (
    "The images of the test split: they are taken as public, and the accuracy on them "
    "is published without protection."
)
_HOW = (
    "Each class is one row of what was released: the sum of its images, or of random "
    "waves of them, each brought to length 1, and their number, both with noise. A new "
    "image belongs to the class that it is nearest to, on the average."
)


class _Job:
    """`dpkit demo --example density`."""

    name = "classes"
    config = ClassesConfig

    def prepare(
        self,
        config: ClassesConfig,
        *,
        offline: bool,
        tell: Tell | None,
        data: bool = True,
    ) -> Build:
        """Reads and adds up the images."""
        del data  # the sum is made in a moment
        with naming(ClassesConfig, "data"):
            allowed = config.data.allow_download and not offline
            found = load(config.data.name, allow_download=allowed, on_progress=tell)
        privacy, count = config.privacy, found.schema.num_classes
        model = Classifier(
            classes=range(count),
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            kernel=config.classes.kernel,
        )
        size = int(np.prod(found.schema.shape))
        structure = model.structure_for(size, count, as_relation(privacy.relation))
        shard = Shard(structure)
        images, labels = _rows(found, "train")
        shard.add(images, labels=labels)
        error, floor = structure.expected_error(1), structure.floor
        choice = Choice(structure, "it was asked for", error, floor, {})
        return Build(
            choice,
            shard,
            privacy,
            f"{found.name} {found.version}",
            {
                **shown_of(choice),
                "kernel": config.classes.kernel,
                "classes": list(range(count)),
            },
            lambda release, title: _told(release, title, found),
        )


CLASSES = _Job()


def _rows(found: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images as rows, and their labels."""
    arrays = found.arrays(split)
    images = np.asarray(arrays["image"], np.float32)
    return images.reshape(len(images), -1), np.asarray(arrays["label"])


def _told(release: Release, title: str, found: Dataset) -> dict[str, Any]:
    """The means as a picture, the counts, and the accuracy on public images."""
    images, labels = _rows(found, "test")
    predicted = Classifier.of(release).predict(images)
    accuracy = float((predicted == labels).mean())
    table: Any = release.structure
    counts = table.counts(release.values)
    rows = [
        (
            str(label),
            f"{counts.values[label]:,.0f} ± {2 * counts.stddev[label]:,.0f}",
            f"{100 * (predicted[labels == label] == label).mean():.1f} %",
        )
        for label in range(table.classes)
    ]
    heads = ["class", "records, counted with noise", "public images of it recognised"]
    return {
        "title": f"The classes of {title}, from one release",
        "facts": {"test_accuracy": accuracy},
        "shown": [("test accuracy", f"{100 * accuracy:.2f} %", "on public images")],
        "sections": [
            Section("What was released", Text(_HOW), *_means(release, found)),
            Section("By class", Table(rows, heads)),
        ],
        "released": "It holds for all means, counts and predictions together.",
        "not_covered": [_SCORED],
    }


def _means(release: Release, found: Dataset) -> list[Map]:
    """The mean images of the classes in rows, where those were released."""
    table: Any = release.structure
    if table.sketch is not None:
        return []
    sums, counts = table.table(release.values)
    across = math.ceil(math.sqrt(len(counts)))
    down = math.ceil(len(counts) / across)
    means = (sums / np.maximum(counts, 1)[:, None]).reshape(-1, *found.schema.shape[:2])
    means = np.pad(means, ((0, down * across - len(means)), (1, 1), (1, 1)))
    height, width = means.shape[1:]
    rows = means.reshape(down, across, height, width).transpose(0, 2, 1, 3)
    picture = rows.reshape(down * height, across * width)[::-1].T
    x, y = (
        np.arange(count) / size
        for count, size in zip(picture.shape, (width, height), strict=True)
    )
    caption = "The mean image of every class in turn, with its noise, as released."
    axes = Axes("images across", "images up")
    return [Map(x, y, picture, axes, caption, "Shades of mean images.")]
