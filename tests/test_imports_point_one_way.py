"""The package imports one way: ``functional <- nn <- models <- what trains and serves``."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# part -> the parts of gtc_pyg that it may import, besides itself
MAY_IMPORT = {
    "_version": set(),
    "distributed": set(),
    "functional": set(),
    "nn": {"functional"},
    "models": {"functional", "nn"},
    "transforms": {"functional"},
    "loader": {"transforms", "distributed"},
    "datasets": {"transforms"},
    "evaluation": {"functional"},
    "row_wise_embedding": {"distributed", "functional"},
    "utils": {"_version", "distributed"},
}
# nobody imports these but each other
ON_TOP = {"explain", "recommend", "lightning", "experiment", "testing"}
OUTSIDE = {"examples", "benchmarks", "tests"}


def part_of(module: str) -> str:
    """``gtc_pyg.nn.similarity_gate`` -> ``nn``; the package itself -> ``""``."""
    return [*module.split("."), ""][1]


def imported(source: str, package: str) -> Iterator[str]:
    """All modules that ``source``, a file of ``package``, imports, in functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = [*base, node.module] if node.level and node.module else base
            module = ".".join(start) if node.level else str(node.module)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def violations(part: str, modules: Iterator[str]) -> list[str]:
    parts_above = ON_TOP if part in ON_TOP else set()
    allowed = MAY_IMPORT.get(part, set(MAY_IMPORT) | parts_above) | {part}
    found = []
    for module in modules:
        top = module.partition(".")[0]
        inside = top == "gtc_pyg" and part_of(module) not in allowed
        if top in OUTSIDE or (inside and module != "gtc_pyg.__version__"):
            found.append(module)
    return found


def files() -> list[Path]:
    return sorted((ROOT / "gtc_pyg").rglob("*.py"))


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_import_rule(path):
    names = path.relative_to(ROOT).with_suffix("").parts
    package = ".".join(names[:-1])
    part = "" if names == ("gtc_pyg", "__init__") else names[1]
    if part == "":
        assert violations("_version", imported(path.read_text(), package)) == []
        return
    assert part in MAY_IMPORT.keys() | ON_TOP, f"'MAY_IMPORT' does not say what {part} may import"
    assert violations(part, imported(path.read_text(), package)) == []


@pytest.mark.parametrize(
    ("part", "source", "bad"),
    [
        ("nn", "from gtc_pyg.functional import x", []),
        ("nn", "from .similarity_gate import SimilarityGate", []),
        ("nn", "from gtc_pyg import models", ["gtc_pyg.models"]),
        ("nn", "from ..models.gtc import GTC", ["gtc_pyg.models.gtc.GTC"]),
        ("models", "import gtc_pyg.lightning", ["gtc_pyg.lightning"]),
        ("datasets", "def f():\n    from gtc_pyg.nn import Y", ["gtc_pyg.nn.Y"]),
        ("models", "from gtc_pyg.transforms import Y", ["gtc_pyg.transforms.Y"]),
        ("evaluation", "from gtc_pyg.models import Y", ["gtc_pyg.models.Y"]),
        ("models", "from gtc_pyg.explain import Y", ["gtc_pyg.explain.Y"]),
        ("explain", "from gtc_pyg.models import Y", []),
        ("lightning", "from gtc_pyg.models import Y\nfrom gtc_pyg.evaluation import Z", []),
        ("experiment", "from examples import tiktok", ["examples.tiktok"]),
    ],
)
def test_the_rule_itself(part, source, bad):
    assert violations(part, imported(source, f"gtc_pyg.{part}")) == bad
