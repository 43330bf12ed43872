"""The public names, so that a change of the interface shows in the diff."""

import importlib
import inspect

import pytest

PUBLIC = {
    "dpkit": [
        "Budget",
        "BudgetExceeded",
        "DPSGDPlan",
        "Evaluation",
        "FitResult",
        "Ledger",
        "PrivacyBound",
        "Relation",
        "RunFolder",
        "as_optax",
        "calibrate",
        "clipped_grad",
        "delta_of",
        "epsilon",
        "fit",
        "secret_key",
    ],
}
PACKAGES = [
    "dpkit",
    "dpkit.accountants",
    "dpkit.mechanisms",
    "dpkit.training",
    "dpkit.data",
    "dpkit.models",
    "dpkit.report",
]


def public(package):
    module = importlib.import_module(package)
    return [(package, name) for name in module.__all__]


EVERY = [pair for package in PACKAGES for pair in public(package)]


@pytest.mark.parametrize("package", PUBLIC)
def test_the_names_are_these(package):
    assert sorted(importlib.import_module(package).__all__) == PUBLIC[package]


@pytest.mark.parametrize(("package", "name"), EVERY)
def test_every_public_name_resolves_and_is_documented(package, name):
    thing = getattr(importlib.import_module(package), name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert inspect.getdoc(thing), name
        assert thing.__doc__, name
        assert "Example:" in thing.__doc__, name


@pytest.mark.parametrize("package", PACKAGES)
def test_unknown_names_are_attribute_errors(package):
    with pytest.raises(AttributeError):
        getattr(importlib.import_module(package), "no_such_name")  # noqa: B009
