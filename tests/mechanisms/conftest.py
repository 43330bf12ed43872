"""Strict dtype promotion: the mechanisms never widen or narrow by accident."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_promotion():
    """Every implicit promotion of array dtypes is an error, within this folder."""
    with jax.numpy_dtype_promotion("strict"):
        yield
