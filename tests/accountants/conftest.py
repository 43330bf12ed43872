"""Databases for the tests of ledgers: SQLite always, PostgreSQL in the slow run."""

from collections.abc import Callable

import pytest

from tests.accountants import toy_ledgers

POSTGRES = pytest.param("postgresql", marks=pytest.mark.slow)


@pytest.fixture(params=["sqlite", POSTGRES])
def new_url(request: pytest.FixtureRequest, tmp_path) -> Callable[[], str]:
    """Names a place for a new ledger at each call, in each database."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres").url
    numbers = iter(range(1000))
    return lambda: f"sqlite:///{tmp_path}/ledger-{next(numbers)}.db"


@pytest.fixture
def ledger_url(new_url) -> str:
    """A place for one new ledger, in each database."""
    return new_url()


@pytest.fixture(params=["memory", POSTGRES])
def every_database(request: pytest.FixtureRequest, monkeypatch) -> None:
    """Makes `toy_ledgers.new_ledger` use memory, then PostgreSQL."""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").url
        monkeypatch.setattr(toy_ledgers, "place", url)
