"""A ledger has one budget: no copy of it may be charged beside it."""

import copy
import pickle
import subprocess
import sys

import pytest

from dpkit.accountants import Ledger, PureDpEvent
from tests.accountants.toy_ledgers import TERMS, new_ledger


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda c: c.__name__
)
def test_what_is_open_is_not_copied(tmp_path, copied):
    ledger = new_ledger()
    grant = ledger.reserve(PureDpEvent(0.5), label="x")
    with Ledger.open(tmp_path / "a.db", budget=ledger.budget, **TERMS) as on_disk:
        for own in (ledger, grant, on_disk, on_disk._store):
            with pytest.raises(TypeError, match=r"Ledger\.open"):
                copied(own)
    grant.commit(1)


FORKED = """
import os, sys
from dpkit.accountants import Budget, Ledger, PureDpEvent
terms = dict(relation="add_remove", unit="example", dataset="toy")
half = PureDpEvent(0.5)

def works(ask):
    try:
        ask()
    except RuntimeError as error:
        assert "forked process" in str(error) and "\\n" not in str(error), error
        return False
    return True

for path in (None, sys.argv[1]):
    ledger = Ledger.open(path, budget=Budget(1.0, 0.0), **terms)
    grant = ledger.reserve(half, label="before")
    ledger._store._lock.acquire()  # as if another thread held it at the fork
    child = os.fork()
    if child:
        ledger._store._lock.release()
        assert os.waitpid(child, 0)[1] == 0
        print(ledger.spent().upper, len(ledger.entries()))
        continue
    asks = [
        lambda: ledger.charge(half, label="after"),
        lambda: ledger.remaining(half),
        lambda: grant.commit(1),
        ledger.spent, ledger.entries, ledger.verify,
    ]
    found = {works(ask) for ask in asks}
    os._exit(0 if found == {path is not None} else 1)
"""


@pytest.mark.slow
@pytest.mark.guard
def test_a_forked_child_shares_a_file_and_is_refused_memory(tmp_path):
    """In a process without JAX, whose threads a fork would lose."""
    run = [sys.executable, "-W", "error", "-c", FORKED, str(tmp_path / "a.db")]
    done = subprocess.run(run, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["0.5 2", "1.0 4"]
