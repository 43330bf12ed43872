"""The public names, each written once, and where `__init__` finds them."""

from .errors import DataCorrupt as DataCorrupt, DataUnavailable as DataUnavailable
from .loading import (
    Dataset as Dataset,
    Schema as Schema,
    load as load,
    load_arrays as load_arrays,
)
from .random_access import (
    ArrayRows as ArrayRows,
    Rows as Rows,
    SourceRows as SourceRows,
    as_rows as as_rows,
)
from .records import Source as Source
from .sources import SOURCES as SOURCES
from .units import UserRows as UserRows, check_one_row_each as check_one_row_each

__all__: list[str]
