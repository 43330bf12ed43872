"""A purse that notes what is paid, and checks it against what was granted."""

import jax

from dpkit.accountants.answers.relations import Relation


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
