"""dp-accounting's own accountants, as readings to compare with; never as proofs.

They share no code with ours, and have known defects (tests/accountants/
test_peer_defects.py), so that whatever they answer is an estimate.

Reference: https://github.com/google/differential-privacy, dp-accounting.
"""

import math
from typing import Any

import dp_accounting as dp
from dp_accounting import DpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.accountants.answers.errors import UnsupportedEvent
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.events import validate

_RELATIONS = {
    Relation.ADD_REMOVE: dp.NeighboringRelation.ADD_OR_REMOVE_ONE,
    Relation.REPLACE_ONE: dp.NeighboringRelation.REPLACE_ONE,
    Relation.ZERO_OUT: dp.NeighboringRelation.REPLACE_SPECIAL,
}
_WARNING = "an independent library's number, with known defects: an estimate"
PEERS: dict[str, Any] = {
    "dp-accounting pld": PLDAccountant,
    "dp-accounting rdp": RdpAccountant,
}


def epsilon(
    event: DpEvent, delta: float, *, relation: Relation | str, peer: str
) -> PrivacyBound:
    """What a peer says of epsilon at delta.

    Args:
      event: what was released.
      delta: in (0, 1).
      relation: the neighbouring relation.
      peer: one of `PEERS`.

    Returns:
      A bound with an `estimate` alone, never certified.

    Raises:
      ValueError: a bad event, delta or peer.
      UnsupportedEvent: an event that the peer doesn't know.

    Example:
      >>> step = dp.GaussianDpEvent(1.0)
      >>> epsilon(step, 1e-5, relation="add_remove", peer="dp-accounting rdp").certified
      False
    """
    relation = as_relation(relation)
    delta = checks.open_probability(delta=delta)
    checks.one_of(tuple(PEERS), peer=peer)
    validate(event)
    accountant = PEERS[peer](neighboring_relation=_RELATIONS[relation])
    try:
        if not accountant.supports(event):
            raise UnsupportedEvent(peer, event, "it doesn't know the event")
        value = float(accountant.compose(event).get_epsilon(delta))
    except (ValueError, TypeError, NotImplementedError, OverflowError) as error:
        if isinstance(error, UnsupportedEvent):
            raise
        raise UnsupportedEvent(peer, event, f"it fails: {error}") from error
    return PrivacyBound(
        delta=delta,
        estimate=math.inf if math.isnan(value) else max(0.0, value),
        method_estimate=peer,
        relation=relation,
        warnings=(_WARNING,),
    )
