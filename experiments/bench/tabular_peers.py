"""Other libraries' synthetic tables of the same rows, each in its own environment.

    python -m experiments.bench.tabular_peers PEER --python BIN/python --repo CHECKOUT

PEER is mst or aim (the scripts in mbi's repository), or swift (dpsynth). The peer reads
codes from a file and writes codes to another; it is scored here by the same functions
as ours. CPU seconds and peak memory are those of its process, imports and compilation
included.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from experiments.tabular_data import adult14, scored

_HEAD = """
import itertools, resource, sys
import numpy as np
given = np.load(sys.argv[1]); codes, sizes = given["codes"], given["sizes"]
epsilon, delta, rho = (float(x) for x in sys.argv[3:6])
np.random.seed(int(sys.argv[6])); repo = sys.argv[7]
names = ["c%d" % n for n in range(len(sizes))]
import mbi
domain = mbi.Domain(names, [int(s) for s in sizes])
data = mbi.Dataset(dict(zip(names, codes.T)), domain)
pairs = list(itertools.combinations(names, 2))
"""
_TAIL = """
table = synthetic.to_dict() if hasattr(synthetic, "to_dict") else synthetic
np.save(sys.argv[2], np.stack([np.asarray(table[n]) for n in names], 1).astype(int))
used = resource.getrusage(resource.RUSAGE_SELF)
print("USED", used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""
_PEERS = {
    "mst": """
sys.path.insert(0, repo + "/mechanisms")
import mst
synthetic = mst.MST(data, epsilon, delta)
""",
    "aim": """
sys.path.insert(0, repo + "/mechanisms")
import aim
maker = aim.AIM(epsilon, delta, max_model_size=80)
_, synthetic = maker.run(data, [(pair, 1.0) for pair in pairs])
""",
    "swift": """
from dpsynth.discrete_mechanisms import discrete, swift
inner = swift.SWIFTConfig(workload=pairs)
maker = discrete.DiscreteConfig(mechanism=inner).configure(zcdp_rho=rho)
synthetic = maker(np.random.default_rng(int(sys.argv[6])), data).synthetic_data
""",
}


def main(
    peer: Annotated[str, typer.Argument(help="mst, aim or swift")],
    python: Annotated[Path, typer.Option(help="interpreter that has the peer")],
    repo: Annotated[Path, typer.Option(help="checkout of its repository")],
    epsilon: float = 1.0,
    delta: float = 1e-6,
    seeds: int = 1,
) -> None:
    """Runs one peer on Adult-14 and prints its scores as JSON, a line a seed."""
    train, test, codebook = adult14()
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder) / "given.npz", Path(folder) / "made.npy"
            np.savez(given, codes=train, sizes=codebook.sizes)
            numbers = [epsilon, delta, zcdp(epsilon, delta), seed, repo]
            done = subprocess.run(
                [python, "-c", _HEAD + _PEERS[peer] + _TAIL, given, made]
                + [str(number) for number in numbers],
                check=True,
                capture_output=True,
                text=True,
            )
            line = next(x for x in done.stdout.splitlines() if x.startswith("USED"))
            cpu, memory = (float(word) for word in line.split()[1:])
            scores = scored(codebook, train, test, np.load(made))
        told = {"peer": peer, "seed": seed, "cpu_seconds": cpu, "memory_mb": memory}
        print(json.dumps(told | scores), flush=True)


def zcdp(epsilon: float, delta: float) -> float:
    """The largest rho whose tight conversion stays within a budget."""
    from dp_accounting import GaussianDpEvent

    from dpkit.accountants.readings.calibration import calibrate

    found = calibrate(
        GaussianDpEvent,
        epsilon=epsilon,
        delta=delta,
        relation="add_remove",
        accountant="zcdp",
    )
    return 0.5 / found.value**2


if __name__ == "__main__":
    typer.run(main)
