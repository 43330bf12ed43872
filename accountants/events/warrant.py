"""What stands behind an event: is its description proven, and what does it assume?"""

import dataclasses

from dp_accounting import DpEvent

from dpkit.accountants.events.kinds import nodes_of
from dpkit.accountants.events.own import PmfPairDpEvent, RdpCurveDpEvent


@dataclasses.dataclass(frozen=True)
class Warrant:
    """Whether every part of an event is proven, and what a reader must know."""

    certified: bool
    warnings: tuple[str, ...]


def warrant(event: DpEvent) -> Warrant:
    """The warrant of an event: only tables from mechanisms can lack a proof."""
    certified, warnings = True, dict[str, None]()
    for node in nodes_of(event):
        if not isinstance(node, PmfPairDpEvent | RdpCurveDpEvent):
            continue
        if not node.certified:
            certified = False
            warnings[f"{node.name} is not proven: an estimate"] = None
        if node.min_contributors > 1:
            need = f"{node.name} assumes at least {node.min_contributors} contributors"
            warnings[need] = None
    return Warrant(certified, tuple(warnings))
