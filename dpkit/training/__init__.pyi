"""The public names, each written once, and where `__init__` finds them."""

from .config import Config as Config, load_config as load_config
from .examples import augmented as augmented, per_user as per_user
from .execution import Execution as Execution
from .gradients import (
    ClippedGrad as ClippedGrad,
    PrivateAux as PrivateAux,
    clipped_grad as clipped_grad,
)
from .job import Run as Run, run as run
from .matching import MaskedRows as MaskedRows, PlanGradient as PlanGradient
from .optimizer import as_optax as as_optax, secret_key as secret_key
from .plan import DPSGDPlan as DPSGDPlan
from .trainer import (
    Evaluation as Evaluation,
    FitResult as FitResult,
    Progress as Progress,
    RunFolder as RunFolder,
    fit as fit,
)
from .use import TrainedRun as TrainedRun, load_run as load_run

__all__: list[str]
