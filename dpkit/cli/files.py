"""Files that a command writes: whole, or not at all."""

import os
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Write a file whole, in the place of an older one.

    Args:
      path: where; its folder must exist.
      text: what, in UTF-8.

    Raises:
      OSError: nothing was written, and what was there is as it was.

    Example:
      >>> write(Path("/nonexistent/a.txt"), "a")
      Traceback (most recent call last):
      FileNotFoundError: [Errno 2] No such file or directory: '/nonexistent/a.txt'
    """
    temporary = _written(path, text)
    try:
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_new(text: str, **option: Path) -> None:
    """Write a file that doesn't exist yet, for people to edit.

    Args:
      text: what.
      **option: the path, by the name of the option that gave it.

    Raises:
      ValueError: it exists.

    Example:
      >>> write_new("a", out=Path("/nonexistent/a.txt"))
      Traceback (most recent call last):
      FileNotFoundError: [Errno 2] No such file or directory: '/nonexistent/a.txt'
    """
    ((name, path),) = option.items()
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(
            f"{name}={str(path)!r} exists already: name a new file"
        ) from None


def place(temporary: Path, path: Path) -> None:
    """Give a finished file its name, unless that is taken; one process can win.

    Raises:
      FileExistsError: the name is taken.

    Example:
      >>> place(Path("/nonexistent/a"), Path("/nonexistent/b"))
      Traceback (most recent call last):
      FileNotFoundError: [Errno 2] No such file or directory: ...
    """
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def beside(path: Path) -> Path:
    """A name in the same folder for a file that isn't finished.

    Example:
      >>> beside(Path("a/b.json")).parent
      PosixPath('a')
    """
    return path.with_name(f".{path.name}.{os.getpid()}")


def _written(path: Path, text: str) -> Path:
    """The text in a new file beside its place, on disk."""
    temporary = beside(path)
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        # A write that fails, on a full disk, doesn't say which file.
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    return temporary
