"""The public names, each written once, and where `__init__` finds them."""

from .errors import DataCorrupt as DataCorrupt, DataUnavailable as DataUnavailable
from .layout import Layout as Layout
from .loading import (
    Dataset as Dataset,
    Facts as Facts,
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
from .reviews import load_reviews as load_reviews
from .schema import Schema as Schema
from .sources import SOURCES as SOURCES
from .table import Table as Table, read as read
from .units import UserRows as UserRows, check_one_row_each as check_one_row_each

__all__: list[str]
