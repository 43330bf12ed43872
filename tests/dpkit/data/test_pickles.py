"""The restricted pickle reader: arrays come through, nothing else does."""

import io
import pickle
import subprocess

import numpy as np
import pytest

from dpkit.data import DataCorrupt
from dpkit.data.pickles import read_arrays

# np.array([7, 249], np.uint8) as Python 2 wrote it: protocol 2, byte strings, the old
# name of the module. Assembled by hand from the list of
# opcodes in the standard library's pickletools.
_PYTHON_2 = (
    b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
    b"\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
    b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x07\xf9tb."
)


def _read(data: bytes):
    return read_arrays(io.BytesIO(data))


def test_reads_what_python_2_wrote():
    values = _read(_PYTHON_2)
    assert values.dtype == np.uint8
    assert values.tolist() == [7, 249]


@pytest.mark.parametrize("dtype", [np.float32, np.int64, ">i2", np.bool_])
def test_reads_nested_arrays(dtype):
    rows = np.arange(6).reshape(2, 3).astype(dtype)
    pairs = _read(pickle.dumps(((rows, rows[0]), (rows[1],)), protocol=3))
    np.testing.assert_array_equal(pairs[0][0], rows)
    np.testing.assert_array_equal(pairs[1][0], rows[1])
    assert pairs[0][0].dtype.newbyteorder("=") == rows.dtype.newbyteorder("=")


class _Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: list[str]):
        self.command = command

    def __reduce__(self):
        return (subprocess.call, (self.command,))


def test_refuses_a_command_without_running_it(tmp_path):
    proof = tmp_path / "ran"
    data = pickle.dumps(_Command(["touch", str(proof)]), protocol=2)
    # Protocol 2 spells the module as Python 2 did.
    with pytest.raises(DataCorrupt, match=r"commands\.call is not allowed"):
        _read(data)
    assert not proof.exists()


@pytest.mark.parametrize(
    "name", ["builtins\neval", "numpy\nload", "numpy.core.multiarray\nfromfile"]
)
def test_refuses_other_names(name):
    data = b"\x80\x02c" + name.encode() + b"\n."
    with pytest.raises(DataCorrupt, match=name.split("\n")[1]):
        _read(data)


def test_refuses_arrays_of_objects():
    data = pickle.dumps(np.array([{}, []], dtype=object), protocol=3)
    with pytest.raises(DataCorrupt, match="only numbers"):
        _read(data)


@pytest.mark.parametrize("keep", [0, 10, 60, len(_PYTHON_2) - 1])
def test_refuses_a_truncated_pickle(keep):
    with pytest.raises(DataCorrupt):
        _read(_PYTHON_2[:keep])
