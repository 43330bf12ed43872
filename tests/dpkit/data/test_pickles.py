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


def _pickled(dtype_state=None, array_state=None, code="i4", name="numpy\nndarray"):
    """[1, 2] as int32, with other states for its dtype or for itself."""
    dtype_state = dtype_state or (3, "<", None, None, None, -1, -1, 0)
    parts = [_opcodes(part) for part in (code, dtype_state, array_state)]
    dtype = b"cnumpy\ndtype\n(" + parts[0] + b"I0\nI1\ntR" + parts[1] + b"b"
    whole = b"(I1\n(I2\nt" + dtype + b"I0\n" + _opcodes(b"\1\0\0\0\2\0\0\0") + b"t"
    if array_state is not None:
        whole = parts[2].replace(_opcodes("DTYPE"), dtype)
    start = b"\x80\x03cnumpy.core.multiarray\n_reconstruct\n(c" + name.encode()
    return start + b"\n(I0\ntC\x01btR" + whole + b"b."


def _opcodes(value) -> bytes:
    """What puts a value on the stack of a pickle."""
    return pickle.dumps(value, protocol=3)[2:-1].replace(b"q\x00", b"")


def test_the_pickle_that_is_changed_below_is_fine():
    array = _read(_pickled())
    assert array.dtype == "<i4"
    assert array.tolist() == [1, 2]
    array[0] = 5  # as that of any other reader


BAD_DTYPE_STATES = {
    "objects by flag": (3, "<", None, None, None, -1, -1, 1),
    "every flag": (3, "<", None, None, None, -1, -1, 255),
    "negative flags": (3, "<", None, None, None, -1, -1, -1),
    "a subarray": (3, "<", ("i4", (2,)), None, None, 8, 4, 0),
    "names": (3, "<", None, ("a",), None, -1, -1, 0),
    "fields": (3, "<", None, ("a",), {"a": ("O", 0)}, 8, 8, 0),
    "a size": (3, "<", None, None, None, 1000, -1, 0),
    "an alignment": (3, "<", None, None, None, -1, 3, 0),
    "a byte order": (3, "Z", None, None, None, -1, -1, 0),
    "a long byte order": (3, "<O<", None, None, None, -1, -1, 0),
    "metadata": (4, "<", None, None, None, -1, -1, 0, {"a": 1}),
    "an old version": (2, "<", None, None, None, -1, -1, 0),
    "nothing": (3,),
    "no tuple": 7,
    "too much": (3, "<", None, None, None, -1, -1, 0, 0),
}


@pytest.mark.parametrize("state", BAD_DTYPE_STATES.values(), ids=BAD_DTYPE_STATES)
def test_refuses_any_state_of_a_dtype_but_plain_numbers(state):
    with pytest.raises(DataCorrupt):
        _read(_pickled(dtype_state=state))


@pytest.mark.parametrize("code", ["O8", "V8", "S4", "U4", "M8", "c8", "f16", "i4,i4"])
def test_refuses_any_type_but_plain_numbers(code):
    with pytest.raises(DataCorrupt, match="only numbers"):
        _read(_pickled(code=code))


BYTES = b"\1\0\0\0\2\0\0\0"
BAD_ARRAY_STATES = {
    "few bytes": (1, (2,), "DTYPE", False, BYTES[:-1]),
    "many bytes": (1, (2,), "DTYPE", False, BYTES + b"\0"),
    "no bytes": (1, (2,), "DTYPE", False, [1, 2]),
    "other text": (1, (2,), "DTYPE", False, "\u1234" * 8),
    "a negative length": (1, (-2,), "DTYPE", False, BYTES),
    "two negative lengths": (1, (-2, -1), "DTYPE", False, BYTES),
    "a huge length": (1, (2**62, 4), "DTYPE", False, BYTES),
    "a fraction": (1, (2.0,), "DTYPE", False, BYTES),
    "no shape": (1, None, "DTYPE", False, BYTES),
    "a hundred axes": (1, (1,) * 99 + (2,), "DTYPE", False, BYTES),
    "another version": (2, (2,), "DTYPE", False, BYTES),
    "no dtype": (1, (2,), "i4", False, BYTES),
    "too short": (1, (2,)),
}


@pytest.mark.parametrize("state", BAD_ARRAY_STATES.values(), ids=BAD_ARRAY_STATES)
def test_refuses_states_of_an_array_that_do_not_fit(state):
    with pytest.raises(DataCorrupt):
        _read(_pickled(array_state=state))


@pytest.mark.parametrize("name", ["numpy\ndtype", "numpy\nmatrix", "builtins\nlist"])
def test_reconstructs_plain_arrays_only(name):
    with pytest.raises(DataCorrupt, match="not allowed"):
        _read(_pickled(name=name))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02cnumpy\ndtype\n.",  # a name by itself
        b"\x80\x02cnumpy\ndtype\n}X\x04\x00\x00\x00codeK\x01sb.",  # changes it
        b"\x80\x02cnumpy\nndarray\nK\x05\x85R.",  # calls the class itself
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # makes one without calling it
        b"\x80\x02cnumpy\ndtype\nU\x02i4\x85R.",  # a type by itself
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x85R.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x0f.",  # an exabyte
        b"\x80\x02]q\x00h\x00a.",  # a list that holds itself
        b"\x80\x02Nr\xff\xff\xff\xff.",  # keeps one value in a table of 2^32
        b"Np4000000000\n.",
        b"(" * 100_000 + b"t" * 100_000 + b".",
        b"\x80\x02N" + b"q\x000h\x00h\x00\x86" * 60 + b".",  # 2^60 values, shared
        b"\x80\x02cnumpy\ndtype\nN"
        + b"q\x000h\x00h\x00\x86" * 60
        + b"\x85R.",  # told as a type
        b"\x80\x02}.",
        b"I" + b"9" * 10_000 + b"\n.",
    ],
)
def test_refuses_anything_else(data):
    with pytest.raises(DataCorrupt):
        _read(data)


def test_no_changed_pickle_gives_objects_or_another_error():
    """6,000 pickles with up to four changes each: bytes, cuts, doublings, splices."""
    rng = np.random.default_rng(0)
    seeds = [_PYTHON_2, _pickled(), pickle.dumps(((_read(_pickled()), 1.5), "a"), 3)]
    read = 0
    for _ in range(6_000):
        data = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(1, 5)):
            at, end = sorted(rng.integers(0, len(data) + 1, 2))
            way = rng.integers(4)
            if way == 0 and at < len(data):
                data[at] = rng.integers(256)
            elif way == 1:
                del data[at : min(end, at + 4)]
            elif way == 2:
                data[at:at] = data[at:end]
            else:
                other = seeds[rng.integers(len(seeds))]
                data[at:end] = other[at:end]
        try:
            values = _read(bytes(data))
        except DataCorrupt:
            continue
        read += 1
        _check_plain(values)
    assert read > 30  # else the changes are all too crude to test anything


def _check_plain(values):
    """Nothing but numbers, strings, and arrays of numbers that own their bytes."""
    if isinstance(values, tuple):
        for value in values:
            _check_plain(value)
    elif isinstance(values, np.ndarray):
        dtype = values.dtype
        assert dtype.kind in "biuf"
        assert not dtype.hasobject and dtype.flags == np.dtype(dtype.str).flags
        assert dtype.fields is dtype.subdtype is dtype.metadata is None
        assert dtype == np.dtype(dtype.str)
        values.sum(dtype=None if dtype.kind != "f" else float)
    else:
        assert type(values) in (bool, int, float, str, bytes, type(None))
