"""The ledger: every release is charged here, durably, before it is made."""

from dpkit.accountants.ledger.grant import Grant
from dpkit.accountants.ledger.ledger import Ledger
from dpkit.accountants.storage.entry import Entry

__all__ = ["Entry", "Grant", "Ledger"]
