"""One ledger, many processes, and kill -9 at any moment.

Workers are fresh interpreters that never see JAX or a connection of ours.
"""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dpkit.accountants import Budget, BudgetExceeded, Ledger, PureDpEvent

TERMS: dict[str, Any] = {
    "relation": "add_remove",
    "unit": "example",
    "dataset": "toy 1.0",
}

RESERVES = """
import random, sys
from dpkit.accountants import Budget, BudgetExceeded, Ledger, PureDpEvent
path, worker, count, parts = *sys.argv[1:3], *map(int, sys.argv[3:])
assert "jax" not in sys.modules
terms = dict(relation="add_remove", unit="example", dataset="toy 1.0")
ledger = Ledger.open(path, budget=Budget(1.0, 0.0), filter="pure", **terms)
print("ready", flush=True)
for number in range(count):
    try:
        with ledger.reserve(
            PureDpEvent(1 / parts), label=worker, key=f"{worker}-{number}"
        ) as grant:
            print("reserved", number, flush=True)
            grant.commit(ran=1)
            print("committed", number, flush=True)
    except BudgetExceeded:
        print("refused", number, flush=True)
print("done", flush=True)
"""

WAITS = """
import sys, time
from dpkit.accountants import Ledger, PureDpEvent
ledger = Ledger.open(sys.argv[1])
with ledger.reserve(PureDpEvent(0.25), count=2, label="x", key="run-1") as grant:
    print("reserved", flush=True)
    time.sleep(600)
"""


def _start(script, *arguments, stdin=None) -> Any:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def _lines(worker):
    """What a worker said before it ended, or was ended."""
    output, _ = worker.communicate(timeout=400)
    return output.splitlines()


def _check(path, said, parts):
    """The ledger is whole, within budget, and holds everything that was promised."""
    with Ledger.open(path) as ledger:
        ledger.verify()
        entries = ledger.entries()
        reserved = {e.body["key"] for e in entries if e.kind == "reserve"}
        committed = {
            entries[e.body["ref"]].body["key"] for e in entries if e.kind == "commit"
        }
        assert len(reserved) == sum(e.kind == "reserve" for e in entries)
        assert len(reserved) <= parts
        assert ledger.spent().upper == len(reserved) / parts
    for worker, lines in said.items():
        for line in lines:
            word, *number = line.split()
            if word in ("reserved", "committed") and number:
                key = f"{worker}-{number[0]}"
                assert key in (reserved if word == "reserved" else committed)
    return len(reserved)


@pytest.mark.parametrize(
    ("processes", "count", "parts"),
    [
        pytest.param(2, 20, 32, marks=pytest.mark.slow),
        pytest.param(8, 20, 100, marks=[pytest.mark.slow, pytest.mark.guard]),
        pytest.param(8, 200, 1024, marks=pytest.mark.slow),
    ],
)
def test_processes_together_never_overspend(new_url, processes, count, parts):
    """They race for the creation of the ledger too."""
    path = new_url()
    names = [f"w{n}" for n in range(processes)]
    workers = {name: _start(RESERVES, path, name, count, parts) for name in names}
    said = {name: _lines(worker) for name, worker in workers.items()}
    assert all(lines[-1] == "done" for lines in said.values())
    assert _check(path, said, parts) == parts


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_kills_at_random_moments_lose_and_break_nothing(ledger_url, seed):
    """8 processes of 200 reserves, each process killed and started again."""
    random.seed(seed)
    path = ledger_url
    said = {f"w{n}": [] for n in range(8)}
    for _ in range(4):
        workers = {name: _start(RESERVES, path, name, 200, 1024) for name in said}
        for worker in workers.values():
            worker.stdout.readline()
        time.sleep(random.uniform(0.0, 1.0))
        for name, worker in workers.items():
            time.sleep(random.uniform(0.0, 0.1))
            worker.send_signal(signal.SIGKILL)
            said[name] += _lines(worker)
        _check(path, said, 1024)
    workers = {name: _start(RESERVES, path, name, 200, 1024) for name in said}
    for name, worker in workers.items():
        said[name] += _lines(worker)
        assert said[name][-1] == "done"
    assert _check(path, said, 1024) == 1024


NURSERY = """
import os, signal, sys
from dpkit.accountants import BudgetExceeded, Ledger, PureDpEvent
def hammer(url, path):
    said = open(path, "w", buffering=1)
    ledger = Ledger.open(url)
    for number in range(10**9):
        key = f"{os.getpid()}-{number}"
        try:
            with ledger.reserve(PureDpEvent(0.125), label="x", key=key) as grant:
                print("reserved", key, file=said)
                if number % 16 != 8:
                    grant.abort(nothing_released=True)
                    print("aborted", key, file=said)
                else:
                    grant.commit(ran=1)
                    print("committed", key, file=said)
        except BudgetExceeded:
            print("refused", key, file=said)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        hammer(*line.split())
    print(child, flush=True)
"""


@pytest.mark.slow
def test_a_minute_of_hammering_with_kills(ledger_url, tmp_path):
    """8 processes on one budget, for a minute; every 0.15 s or so one is killed.

    Most reservations are aborted, so that a small budget lasts. What a process said
    before it died is in the ledger; what the ledger holds beyond that is at most the
    one entry that each dead process was about to speak of.
    """
    random.seed(1)
    parts = 24
    budget = Budget(parts / 8, 0.0)
    Ledger.open(ledger_url, budget=budget, filter="pure", **TERMS).close()
    # Children of an interpreter that has loaded everything start at once.
    nursery = _start(NURSERY, stdin=subprocess.PIPE)
    papers = (tmp_path / f"said-{number}" for number in range(10**9))
    said = []

    def start():
        said.append(next(papers))
        nursery.stdin.write(f"{ledger_url} {said[-1]}\n")
        nursery.stdin.flush()
        return int(nursery.stdout.readline())

    alive = [start() for _ in range(8)]
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(random.uniform(0.0, 0.3))
        os.kill(alive.pop(random.randrange(8)), signal.SIGKILL)
        alive.append(start())
    for child in alive:
        os.kill(child, signal.SIGKILL)
    nursery.communicate(timeout=60)
    with Ledger.open(ledger_url) as ledger:
        ledger.verify(recount=True)
        entries = ledger.entries()
        spent = ledger.spent().upper
        left = ledger.remaining(PureDpEvent(0.125))
    lines = [line.split() for path in said for line in _whole_lines(path)]
    found = {"reserved": [e.body["key"] for e in entries if e.kind == "reserve"]}
    for word, kind in {"committed": "commit", "aborted": "abort"}.items():
        about = [entries[e.body["ref"]] for e in entries if e.kind == kind]
        found[word] = [e.body["key"] for e in about]
    for word, keys in found.items():
        assert len(set(keys)) == len(keys)
        spoken = {key for first, key in lines if first == word}
        assert spoken <= set(keys)
        assert len(keys) - len(spoken) <= len(said)
    kept = len(found["reserved"]) - len(found["aborted"])
    assert spent == kept / 8
    assert left == parts - kept >= 0


def _whole_lines(path):
    """What a dead process said; it may have died before it opened the file."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]


@pytest.mark.slow
def test_nothing_is_left_beside_a_file_that_processes_raced_for(tmp_path):
    path = tmp_path / "ledger.db"
    workers = [_start(RESERVES, path, name, 2, 4) for name in ("a", "b")]
    for worker in workers:
        assert _lines(worker)[-1] == "done"
    assert [item.name for item in tmp_path.iterdir()] == ["ledger.db"]


@pytest.mark.slow
@pytest.mark.guard
def test_a_kill_between_reserve_and_commit_leaves_it_spent(ledger_url):
    path = ledger_url
    budget = Budget(1.0, 0.0)
    Ledger.open(path, budget=budget, filter="pure", **TERMS).close()
    worker = _start(WAITS, path)
    assert worker.stdout.readline() == "reserved\n"
    worker.send_signal(signal.SIGKILL)
    _lines(worker)
    with Ledger.open(path) as ledger:
        ledger.verify()
        assert ledger.spent().upper == 0.5
        grant = ledger.reserve(PureDpEvent(0.25), count=2, label="x", key="run-1")
        assert grant.resumed and not grant.committed
        assert ledger.spent().upper == 0.5


def test_threads_share_a_ledger(ledger_url):
    for path in (None, ledger_url):
        ledger = Ledger.open(path, budget=Budget(1.0, 0.0), filter="pure", **TERMS)

        def charge(number, ledger=ledger):
            try:
                ledger.charge(PureDpEvent(0.125), label=str(number))
            except BudgetExceeded:
                return "refused"
            return "charged"

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(charge, range(12)))
        assert found.count("charged") == 8
        assert found.count("refused") == 4
        ledger.verify()


@pytest.mark.slow
def test_a_forked_child_may_use_the_ledger(ledger_url):
    """Each transaction has its own connection, so none is carried across the fork."""
    script = (
        "import os, sys\n"
        "from dpkit.accountants import Ledger, PureDpEvent\n"
        "ledger = Ledger.open(sys.argv[1])\n"
        "ledger.charge(PureDpEvent(0.125), label='before')\n"
        "child = os.fork()\n"
        "ledger.charge(PureDpEvent(0.125), label='after')\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\n"
    )
    path = ledger_url
    Ledger.open(path, budget=Budget(1.0, 0.0), filter="pure", **TERMS).close()
    child = _start(script, path)
    _lines(child)
    assert child.returncode == 0
    with Ledger.open(path) as ledger:
        ledger.verify()
        assert ledger.spent().upper == 0.375
