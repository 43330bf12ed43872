"""A user's own model, named in a configuration as `package.module:function`.

The function stands in an installed package, or in a file beside the configuration. To
name it is to run it, so it is never taken from the folder of a run, which others may
have written.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from dpkit.data.layout import Layout
from dpkit.models.networks import Network, class_weights


def build_own(
    factory: str | Callable[..., Any],
    layout: Layout,
    *,
    folder: Path | None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    weights: Mapping[str, float] | None = None,
) -> Network:
    """The network of a user's own function.

    Args:
      factory: (layout, key, **settings) -> a module of Flax Linen, NNX or Equinox, or
        an object with init and apply. The module is called on ONE example: on its only
        input, or on a dict of inputs by name.
      layout: of the rows.
      folder: beside what a file is looked for, or None for the working directory.
      seed: of the key; public.
      settings: further arguments of the function.
      weights: by which the loss of a class is multiplied.

    Raises:
      ValueError: no such function, or a module that can't predict the label.
      TypeError: the function returned something else.

    Example:
      >>> from flax import linen
      >>> layout = Layout.images((8, 8, 1), 10, 16.0)
      >>> class Plain(linen.Module):
      ...     @linen.compact
      ...     def __call__(self, image):
      ...         return linen.Dense(10)(image.reshape(-1))
      >>> build_own(lambda layout, key: Plain(), layout, folder=None).score
      'accuracy'
    """
    make = find(factory, folder) if isinstance(factory, str) else factory
    key = jax.random.key(seed)
    with _named(factory):
        module = make(layout, key, **(settings or {}))
        return Network(module, layout, class_weights(layout, weights))


@contextlib.contextmanager
def _named(factory: Any) -> Iterator[None]:
    """One line about what fails in the user's own code; ours says so itself."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if str(error).startswith(("the model ", "the factory ", "class_weights")):
            raise
        raise _failed(factory, error) from error
    except Exception as error:
        raise _failed(factory, error) from error


def _failed(factory: Any, error: Exception) -> ValueError:
    """What to say of a user's function that raised."""
    text = (str(error).strip().splitlines() or [""])[0]
    return ValueError(
        f"factory={factory!r} failed with {type(error).__name__}: {text} "
        "(--debug shows where)"
    )


def find(name: str, folder: Path | None) -> Callable[..., Any]:
    """The function that a configuration names.

    Args:
      name: `package.module:function`; or `module:function` of a file `module.py` in
        the folder, which goes before a package of that name.
      folder: of the configuration.

    Raises:
      ValueError: another form, no such module or function, or a file of a run's folder.

    Example:
      >>> find("flax.linen:Dense", None).__name__
      'Dense'
    """
    module, _, function = name.partition(":")
    if not module or not function or not function.isidentifier():
        raise ValueError(
            f"factory={name!r} must be 'package.module:function', or 'module:function' "
            "of a file module.py beside the configuration"
        )
    found = getattr(_module(module.removesuffix(".py"), folder), function, None)
    if not callable(found):
        raise ValueError(f"factory={name!r}: {module} has no function {function!r}")
    return found


def source_sha256(factory: Callable[..., Any]) -> str | None:
    """A digest of the file in which a function stands; None where there is none.

    Example:
      >>> len(source_sha256(find))
      64
    """
    try:
        path = inspect.getsourcefile(factory)
    except TypeError:
        return None
    if path is None or not Path(path).is_file():
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _module(name: str, folder: Path | None) -> ModuleType:
    """The module of that name."""
    beside = (Path.cwd() if folder is None else folder) / f"{name}.py"
    if beside.is_file():
        _refuse_run(beside)
        spec = importlib.util.spec_from_file_location(f"_dpkit_own_{name}", beside)
    else:
        # Looking for a package's module imports the package.
        _refuse_run_of(importlib.util.find_spec(name.partition(".")[0]))
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        _refuse_run_of(spec)
    if spec is None or spec.loader is None:
        raise ValueError(
            f"factory: there is no module {name!r}, neither installed nor as "
            f"{str(beside)!r}"
        )
    if spec.name in sys.modules and not beside.is_file():
        return sys.modules[spec.name]
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with _named(name):
        spec.loader.exec_module(module)
    return module


def _refuse_run_of(spec: ModuleSpec | None) -> None:
    """Refuses a module that was found in the folder of a run."""
    if spec is None:
        return
    for place in (spec.origin, *(spec.submodule_search_locations or ())):
        if place is not None and Path(place).exists():
            _refuse_run(Path(place))


def _refuse_run(path: Path) -> None:
    """Refuses code that lies in a run's folder, however deep."""
    for folder in path.resolve().parents:
        finished = (folder / "result.json").exists() and (
            folder / "config.toml"
        ).exists()
        if finished or (folder / "private" / "run.json").exists():
            raise ValueError(
                f"factory: {str(path)!r} lies in the folder of a run, and code of "
                "such a folder is never run: keep it beside your configuration"
            )
