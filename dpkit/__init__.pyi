"""The public names of dpkit, and the rooms that they come from."""

from .accountants import Budget as Budget
from .accountants import BudgetExceeded as BudgetExceeded
from .accountants import Ledger as Ledger
from .accountants import PrivacyBound as PrivacyBound
from .accountants import Relation as Relation
from .accountants import calibrate as calibrate
from .accountants import delta_of as delta_of
from .accountants import epsilon as epsilon
from .models import load_params as load_params
from .training import DPSGDPlan as DPSGDPlan
from .training import Evaluation as Evaluation
from .training import FitResult as FitResult
from .training import RunFolder as RunFolder
from .training import TrainedRun as TrainedRun
from .training import as_optax as as_optax
from .training import clipped_grad as clipped_grad
from .training import fit as fit
from .training import load_run as load_run
from .training import secret_key as secret_key

__version__: str
