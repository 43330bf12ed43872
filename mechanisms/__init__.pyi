"""The public names, each written once, and where `__init__` finds them."""

from ._clip import Clip as Clip
from .adaptive import AdaptiveGaussianSum as AdaptiveGaussianSum
from .balls_in_bins import BallsInBinsSampler as BallsInBinsSampler
from .changing import ChangingSum as ChangingSum, PiecewiseSampler as PiecewiseSampler
from .clipped_sum import ClippedSum as ClippedSum
from .clipping import (
    GaussianSum as GaussianSum,
    clip_factor as clip_factor,
    clip_record as clip_record,
    global_norm as global_norm,
)
from .clips import (
    PSAC as PSAC,
    AutoS as AutoS,
    Custom as Custom,
    Flat as Flat,
    HardDrop as HardDrop,
    Unit as Unit,
)
from .correlated import (
    CorrelatedState as CorrelatedState,
    CorrelatedSum as CorrelatedSum,
    participation_of as participation_of,
)
from .cyclic import CyclicSampler as CyclicSampler
from .device_sampling import device_draw as device_draw
from .factorisation import (
    Cyclic as Cyclic,
    MinSeparation as MinSeparation,
    SinglePass as SinglePass,
    matrix_sensitivity as matrix_sensitivity,
    prefix_error as prefix_error,
    sensitivity as sensitivity,
    square_root_coefficients as square_root_coefficients,
)
from .fixed_size import FixedSizeSampler as FixedSizeSampler
from .full_batch import FullBatchSampler as FullBatchSampler
from .grouping import PerGroup as PerGroup
from .noise import (
    chacha_key as chacha_key,
    gaussian_noise as gaussian_noise,
    host_generator as host_generator,
)
from .protocol import BoundedSum as BoundedSum, Mechanism as Mechanism, run as run
from .sampler import Batch as Batch, Sampler as Sampler
from .sampling import (
    PoissonSampler as PoissonSampler,
    choose_max_batch_size as choose_max_batch_size,
)
from .strategies import (
    Banded as Banded,
    Buffered as Buffered,
    SquareRoot as SquareRoot,
    optimal_bands as optimal_bands,
    optimal_buffers as optimal_buffers,
)
from .stream import Stream as Stream

__all__: list[str]
