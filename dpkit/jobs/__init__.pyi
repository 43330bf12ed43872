"""The public names, each written once, and where `__init__` finds them."""

from .config import JobConfig as JobConfig, Settings as Settings, load as load
from .folder import RunFolder as RunFolder
from .lifecycle import (
    Cost as Cost,
    Job as Job,
    Prepared as Prepared,
    Run as Run,
    dry_run as dry_run,
    run as run,
)
from .progress import Outcome as Outcome, Progress as Progress
from .session import Session as Session

__all__: list[str]
