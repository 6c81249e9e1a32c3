r"""No public class takes more arguments than a reader keeps in mind."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import gtc_pyg

MOST = 12


def public_classes() -> dict[str, type]:
    r"""All classes in ``__all__`` of a package, or of a module beside them, by where they are."""
    found = {}
    for module in pkgutil.walk_packages(gtc_pyg.__path__, "gtc_pyg."):
        if not module.ispkg and module.name.count(".") > 1:
            continue
        try:
            loaded = importlib.import_module(module.name)
        except ModuleNotFoundError:  # an extra that is not installed
            continue
        for name in getattr(loaded, "__all__", []):
            if inspect.isclass(getattr(loaded, name)):
                found[f"{module.name}.{name}"] = getattr(loaded, name)
    return found


CLASSES = public_classes()


def test_classes_of_all_packages_are_found() -> None:
    found = {place.split(".")[1] for place in CLASSES}
    assert {"datasets", "explain", "graph", "imputation", "inductive", "loader", "models"} <= found
    assert {"nn", "recommend", "transforms"} <= found
    assert "gtc_pyg.models.gtc.ContentFilter" in CLASSES


@pytest.mark.parametrize("place", CLASSES)
def test_a_constructor_takes_at_most_twelve_arguments(place: str) -> None:
    names = list(inspect.signature(CLASSES[place]).parameters)
    assert len(names) <= MOST, f"{place} takes {len(names)}: {', '.join(names)}"
