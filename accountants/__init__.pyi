"""The public names, each written once, and where `__init__` finds them on first use."""

from .answers.bounds import (
    Budget as Budget,
    DeltaBound as DeltaBound,
    PrivacyBound as PrivacyBound,
)
from .answers.errors import (
    BudgetExceeded as BudgetExceeded,
    Incompatible as Incompatible,
    LedgerCorrupt as LedgerCorrupt,
    NotCertified as NotCertified,
    UnsupportedEvent as UnsupportedEvent,
    UnsupportedRelation as UnsupportedRelation,
)
from .answers.relations import Relation as Relation, as_relation as as_relation
from .events.allocation import (
    RandomAllocationDpEvent as RandomAllocationDpEvent,
    TruncatedAllocationDpEvent as TruncatedAllocationDpEvent,
)
from .events.composing import (
    repeat as repeat,
    sequential as sequential,
    validate as validate,
)
from .events.notation import from_json as from_json, to_json as to_json
from .events.own import (
    ApproxDpEvent as ApproxDpEvent,
    BoundedRangeDpEvent as BoundedRangeDpEvent,
    DiscreteGaussianDpEvent as DiscreteGaussianDpEvent,
    MetricLocalPureDpEvent as MetricLocalPureDpEvent,
    ParallelDpEvent as ParallelDpEvent,
    PmfPairDpEvent as PmfPairDpEvent,
    PureDpEvent as PureDpEvent,
    RdpCurveDpEvent as RdpCurveDpEvent,
)
from .ledger.ledger import Grant as Grant, Ledger as Ledger
from .ledger.merging import merge as merge
from .readings import (
    edgeworth as edgeworth,
    gdp as gdp,
    pld as pld,
    pure as pure,
    rdp as rdp,
    zcdp as zcdp,
)
from .readings.attack import AttackRisk as AttackRisk, attack_risk as attack_risk
from .readings.best import (
    delta_of as delta_of,
    epsilon as epsilon,
    epsilon_curve as epsilon_curve,
)
from .readings.calibration import (
    Calibration as Calibration,
    calibrate as calibrate,
    solve as solve,
)
from .storage.entry import Entry as Entry

__all__: list[str]
