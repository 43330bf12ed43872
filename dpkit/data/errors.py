"""The two ways in which a data set can be refused: it isn't here, or it isn't itself.

Callers branch on them: the command line turns both into one line and exit code 2, and a
test that needs real data skips on the first.
"""


class DataUnavailable(RuntimeError):
    """The data set is not on this machine and was not, or could not be, fetched.

    The message names the command that fetches it.

    Example:
      >>> raise DataUnavailable("name='mnist': not in the cache")
      Traceback (most recent call last):
      dpkit.data.errors.DataUnavailable: name='mnist': not in the cache
    """


class DataCorrupt(RuntimeError):
    """Bytes that should be public and known are not the ones on record.

    The message shows what was found, what was expected, and what became of the file.

    Example:
      >>> raise DataCorrupt("train-image.npy: 12 bytes, 47040128 expected")
      Traceback (most recent call last):
      dpkit.data.errors.DataCorrupt: train-image.npy: 12 bytes, 47040128 expected
    """
