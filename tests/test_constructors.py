r"""No public class takes more arguments than a reader keeps in mind."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import gtc_pyg

MOST = 12


def public_classes() -> dict[str, type]:
    r"""All classes that ``__all__`` of a package or module names, by where it does."""
    found = {}
    for module in pkgutil.walk_packages(gtc_pyg.__path__, "gtc_pyg."):
        if module.name.split(".")[-1].startswith("_"):
            continue
        loaded = importlib.import_module(module.name)
        for name in getattr(loaded, "__all__", []):
            if inspect.isclass(getattr(loaded, name)):
                found[f"{module.name}.{name}"] = getattr(loaded, name)
    return found


CLASSES = public_classes()


def test_every_sub_package_says_what_is_public() -> None:
    packages = {name for _, name, folder in pkgutil.iter_modules(gtc_pyg.__path__) if folder}
    with_classes = {place.split(".")[1] for place in CLASSES}
    assert packages - with_classes <= {"functional", "experiment"}, packages - with_classes
    for name in packages:
        assert importlib.import_module(f"gtc_pyg.{name}").__all__, name


@pytest.mark.parametrize("place", CLASSES)
def test_a_constructor_takes_at_most_twelve_arguments(place: str) -> None:
    names = list(inspect.signature(CLASSES[place]).parameters)
    assert len(names) <= MOST, f"{place} takes {len(names)}: {', '.join(names)}"
