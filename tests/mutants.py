"""Slips of one line that once no test noticed, and the test that notices each now.

A mutant is a text in one file, what it becomes, and a test of the fast suite that must
then fail. Whoever moves such a line points its row to the new place: a row whose text
isn't there exactly once is reported by the fast suite.
"""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("dpkit", "accountants", "mechanisms", "tests", "conftest.py")
COPIED += ("pyproject.toml",)


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One slip: in `file` the text `old` becomes `new`; then `test` has to fail."""

    name: str
    file: str
    old: str
    new: str
    test: str


PROMISES = "tests/test_promises.py::test_"
GUARANTEE = "dpkit/report/guarantee.py"
MUTANTS = (
    Mutant(
        "one stream for noise and batches",
        "dpkit/training/plan.py",
        "\nNOISE_BRANCH = 0x4E53",
        "\nNOISE_BRANCH = SAMPLING_BRANCH",
        f"{PROMISES}one_root_gives_noise_and_batches_streams_of_their_own",
    ),
    Mutant(
        "one key for grouping and sampling",
        "dpkit/jobs/roots.py",
        'return _key(self.sampling, b"grouping key")',
        "return self.sampling_key",
        "tests/dpkit/jobs/test_roots.py::test_roots_and_keys_all_differ",
    ),
    Mutant(
        "one key for all rows",
        "dpkit/training/step.py",
        "return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)",
        "return jax.vmap(jax.random.fold_in, (None, 0))(key, 0 * indices)",
        f"{PROMISES}every_row_has_randomness_of_its_own_in_every_step",
    ),
    Mutant(
        "the result before the files that it names",
        "dpkit/jobs/result.py",
        "    for name, content in done.files.items():\n",
        "    write(folder.result, text.encode())\n"
        "    for name, content in done.files.items():\n",
        f"{PROMISES}a_death_before_the_last_file_leaves_a_run_that_goes_on",
    ),
    Mutant(
        "epsilon one grid point low",
        "dpkit/training/spending.py",
        "self._uppers[bisect.bisect_left(self._counts, step)]",
        "self._uppers[max(0, bisect.bisect_left(self._counts, step) - 1)]",
        f"{PROMISES}the_cost_shown_on_the_way_is_never_below_the_steps_that_ran",
    ),
    Mutant(
        "a certified epsilon is rounded to the nearest",
        GUARANTEE,
        'return f"≤ {number(value, side=\'up\')}", f"certified',
        'return f"≤ {number(value, side=\'nearest\')}", f"certified',
        f"{PROMISES}a_report_rounds_no_bound_down",
    ),
    Mutant(
        "epsilon in a sentence is rounded to the nearest",
        GUARANTEE,
        'side="up" if self.certified else "nearest"',
        'side="nearest"',
        f"{PROMISES}the_report_of_a_ledger_rounds_no_bound_down",
    ),
    Mutant(
        "a printed delta is rounded to the nearest",
        "dpkit/cli/bounds.py",
        '("delta", number(bound.delta, side="up"))',
        '("delta", number(bound.delta))',
        f"{PROMISES}printed_bounds_are_never_rounded_down",
    ),
    Mutant(
        "the slowest microbatch is chosen",
        "dpkit/training/autotune.py",
        "return min(seconds, key=seconds.__getitem__)",
        "return max(seconds, key=seconds.__getitem__)",
        f"{PROMISES}the_fastest_microbatch_is_chosen",
    ),
    Mutant(
        "squares of leaves that are never raised",
        "mechanisms/norms.py",
        "return total * np.array(1 + steps * 2 * UNIT, total.dtype)",
        "return total",
        "tests/mechanisms/test_norms.py::test_a_sum_is_raised_by_what_it_may_have_lost",
    ),
)


def occurrences(mutant: Mutant) -> int:
    """How often the text stands in its file."""
    return (ROOT / mutant.file).read_text().count(mutant.old)


def killed(mutant: Mutant, folder: Path) -> tuple[bool, str]:
    """Whether the test fails, as a test and not as a program, on a changed copy.

    Args:
      mutant: the slip.
      folder: an empty one, for the copy.

    Returns:
      Whether it does, and what pytest said.
    """
    ignored = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    changed = folder / mutant.file
    changed.write_text(changed.read_text().replace(mutant.old, mutant.new))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, mutant.test], cwd=folder, capture_output=True, text=True, check=False
    )
    # 1: tests ran and some failed. Anything else says nothing about the mutant.
    return done.returncode == 1 and "1 failed" in done.stdout, done.stdout
