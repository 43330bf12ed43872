"""Settings of every test: two CPU devices, no reused keys, no silent broadcasting."""

import gc
import tempfile
from collections.abc import Iterator

import jax
import pytest

from tests.accountants.postgres_server import Server

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiling is most of the tests' time, and many compile the same program. Each
# process has its own store: a reader never meets another's half-written file.
COMPILED = tempfile.TemporaryDirectory(prefix="dpkit-tests-")
jax.config.update("jax_compilation_cache_dir", COMPILED.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def compiles_quickly(config: pytest.Config) -> bool:
    """Whether this is the fast suite. All others optimise, as users' programs do."""
    return config.option.markexpr == "not slow"


def pytest_configure(config: pytest.Config) -> None:
    jax.config.update("jax_disable_most_optimizations", compiles_quickly(config))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest examples of docstrings are guards."""
    for item in items:
        if item.name in ("dpkit.training.job.run", "dpkit.training.trainer.fit"):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.guard)


def pytest_collection_finish() -> None:
    """What was imported stays, and need not be looked through again and again."""
    gc.freeze()


@pytest.fixture(scope="module")
def quick_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Programs that are not optimised, where a test is not about their arithmetic."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    quick = compiles_quickly(request.config)
    jax.config.update("jax_disable_most_optimizations", quick)


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without their curves, a third of a short run; fixtures still draw."""
    empty = '<svg width="1" height="1"></svg>'
    monkeypatch.setattr("dpkit.report.plots._draw", lambda *given: empty)
    monkeypatch.setattr("dpkit.report.plots._shade", lambda *given: empty)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server for this session: one in each process, for some tests crash it."""
    server = Server()
    yield server
    server.remove()
