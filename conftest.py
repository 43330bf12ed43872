"""Examples in docstrings show use, not speed: their programs are not optimised."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def quick_examples(request: pytest.FixtureRequest) -> Iterator[None]:
    """No optimisation where the test is a docstring's."""
    if not hasattr(request.node, "dtest"):
        yield
        return
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
