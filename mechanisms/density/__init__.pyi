"""The public names, each written once, and where `__init__` finds them."""

from .cdf import CdfDistances as CdfDistances
from .classes import ClassSums as ClassSums
from .curator import Curator as Curator, ExactKernel as ExactKernel
from .grid_noise import (
    Gaussian as Gaussian,
    Laplace as Laplace,
    Radial as Radial,
    Reach as Reach,
)
from .hats import HatDistances as HatDistances
from .kernels import KERNELS as KERNELS, Kernel as Kernel
from .landmarks import LandmarkSketch as LandmarkSketch
from .moments import SquaredDistances as SquaredDistances
from .projected import ProjectedDistances as ProjectedDistances
from .public_array import PublicArray as PublicArray
from .sketch import KernelSketch as KernelSketch
from .spline import SplineGrid as SplineGrid
from .structure import Answers as Answers, Structure as Structure

__all__: list[str]
