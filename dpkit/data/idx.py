"""The IDX format of the original MNIST files: numbers behind a short header.

The header is two zero bytes, a type code (8: unsigned bytes, 12: 32-bit integers), the
number of dimensions, then each dimension as a big-endian 32-bit count; the values
follow, big-endian, last axis fastest. Only files of unsigned bytes are read. The format
is described on the authors' page of MNIST (LeCun, Cortes and Burges).
"""

import hashlib
import math

import numpy as np

from dpkit.data.errors import DataCorrupt

_UNSIGNED_BYTE = 8
_INTEGER = 12


def read_idx(data: bytes, ndim: int) -> np.ndarray:
    """The array that an IDX file of unsigned bytes holds.

    Args:
      data: the whole file.
      ndim: the number of dimensions that it must have.

    Returns:
      A read-only uint8 array that shares memory with `data`.

    Raises:
      DataCorrupt: another type or number of dimensions, or a length that differs from
        what the header says, by even one byte.

    Example:
      >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), ndim=1)
      array([7, 9], dtype=uint8)
    """
    start = 4 + 4 * ndim
    magic = bytes([0, 0, _UNSIGNED_BYTE, ndim])
    if data[:4] != magic or len(data) < start:
        raise DataCorrupt(
            f"IDX header {data[:4].hex()!r}: {magic.hex()!r} expected "
            f"({ndim} dimensions of unsigned bytes), then the sizes"
        )
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", ndim, offset=4))
    if len(data) != start + math.prod(shape):
        raise DataCorrupt(
            f"IDX data of {len(data)} bytes: {start + math.prod(shape)} expected for "
            f"shape={shape}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def idx_header(shape: tuple[int, ...], code: int = _UNSIGNED_BYTE) -> bytes:
    """The IDX header of values of this shape; by default they are unsigned bytes.

    Example:
      >>> idx_header((2,)).hex()
      '0000080100000002'
    """
    sizes = b"".join(n.to_bytes(4, "big") for n in shape)
    return bytes([0, 0, code, len(shape)]) + sizes


def idx_sha256(values: np.ndarray) -> str:
    """The hash of an array's IDX encoding; a last axis of one channel is left out.

    Args:
      values: uint8 or int32, at least one-dimensional.

    Example:
      >>> pixels = np.zeros((1, 2, 2, 1), np.uint8)
      >>> idx_sha256(pixels) == idx_sha256(pixels[..., 0])
      True
    """
    if values.ndim == 4 and values.shape[-1] == 1:
        values = values[..., 0]
    code = _UNSIGNED_BYTE
    if values.dtype == np.int32:
        code, values = _INTEGER, values.astype(">i4")
    digest = hashlib.sha256(idx_header(values.shape, code))
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
