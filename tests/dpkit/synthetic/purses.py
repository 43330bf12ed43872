"""A purse that notes what is paid, and releases that can be made to happen again."""

import contextlib
import importlib
from unittest import mock

import jax
import numpy as np

from dpkit.accountants.answers.relations import Relation
from dpkit.synthetic import recipe

MODULES = [
    importlib.import_module(f"dpkit.synthetic.{name}")
    for name in ("pairs", "mst", "aim", "gsd", "mwem", "merf")
]


class Noting:
    """Pays anything."""

    def __init__(self, relation=Relation.ADD_REMOVE, seed=0):
        self.relation, self.paid, self._seed = relation, {}, seed

    def affordable(self, rho):
        """All of it."""
        return rho

    def pay(self, event, name):
        """A key for each name."""
        assert name not in self.paid
        self.paid[name] = event
        return jax.random.fold_in(jax.random.key(self._seed), len(self.paid))


class Tape:
    """What recipes released, and what of: (mechanism, private input, output)."""

    def __init__(self):
        self.released, self.seen = {}, {}

    @contextlib.contextmanager
    def recording(self):
        """Everything that recipes release is noted."""
        with self._through(self._record):
            yield self

    @contextlib.contextmanager
    def playing(self):
        """Everything comes out as it did, whatever it is made of."""
        self.seen = {}
        with self._through(self._play):
            yield self

    @contextlib.contextmanager
    def _through(self, how):
        """Recipes measure and select through us."""
        with contextlib.ExitStack() as stack:
            for module in MODULES:
                for name in ("measure", "select"):
                    if hasattr(module, name):
                        stack.enter_context(
                            mock.patch.object(module, name, how(getattr(recipe, name)))
                        )
            yield

    def _record(self, release):
        """Releases, and notes it."""

        def noted(mechanism, private, purse, name):
            self.seen[name] = mechanism, np.array(private)
            self.released[name] = release(mechanism, private, purse, name)
            return self.released[name]

        return noted

    def _play(self, _):
        """Pays, and says what was said before."""

        def played(mechanism, private, purse, name):
            purse.pay(mechanism.event(purse.relation), name)
            self.seen[name] = mechanism, np.array(private)
            return self.released[name]

        return played
