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
    "graph": {"functional"},
    "inductive": {"functional", "graph"},
    "imputation": {"functional", "graph", "nn"},
    "models": {"functional", "nn", "graph", "inductive"},
    "transforms": {"functional"},
    "loader": {"functional", "transforms", "distributed"},
    "datasets": {"functional", "transforms"},
    "evaluation": {"functional"},
    "row_wise_embedding": {"distributed", "functional"},
    "utils": {"_version", "distributed"},
}
# nobody imports these but each other
ON_TOP = {"explain", "recommend", "lightning", "experiment", "serve", "testing"}
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


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    found = {}
    for path in files():
        names = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


def arrows(sources: dict[str, str]) -> dict[str, set[str]]:
    """Which modules a module imports; names that a package hands on count as the package."""
    out = {}
    for name, source in sources.items():
        package = name.rpartition(".")[0]
        wanted = set(imported(source, package))
        parents = {module.rpartition(".")[0] for module in wanted if module not in sources}
        out[name] = {module for module in wanted | parents if module in sources} - {name}
    return out


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of modules that reach one another."""
    reach = {name: set(after) for name, after in graph.items()}
    for middle in graph:
        for name in graph:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    inside = {name: frozenset(x for x in reach[name] if name in reach[x]) for name in graph}
    return sorted(sorted(group) for group in set(inside.values()) if len(group) > 1)


def test_no_modules_import_each_other_in_a_circle():
    # The package's own __init__ hands on its parts by name, when they are first used.
    sources = {name: path.read_text() for name, path in modules().items() if name != "gtc_pyg"}
    assert circles(arrows(sources)) == []


def test_circles_are_found():
    sources = {"p.a": "from p.b import x", "p.b": "def f():\n    import p.c", "p.c": ""}
    assert circles(arrows(sources)) == []
    sources["p.c"] = "from typing import T\nif T:\n    from p import a"
    assert circles(arrows(sources)) == [["p.a", "p.b", "p.c"]]


MODEL_NAMES = {"GTC", "FREEDOM", "MGCN", "LightGCN", "SpectralFilter"}


def asked_for(source: str) -> list[str]:
    """Models whose class is asked for, by ``isinstance``, ``type(...)`` or name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        tested: list[ast.expr] = []
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "isinstance",
            "issubclass",
        ):
            tested = node.args[1:]
        elif isinstance(node, ast.Compare):
            tested = [node.left, *node.comparators]
        for part in tested:
            for leaf in ast.walk(part):
                name = getattr(leaf, "id", getattr(leaf, "attr", getattr(leaf, "value", None)))
                if isinstance(name, str) and name.upper() in {m.upper() for m in MODEL_NAMES}:
                    found.append(name)
    return found


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_module_asks_which_model_it_has(name):
    assert asked_for(modules()[name].read_text()) == []


def test_questions_for_a_model_are_found():
    assert asked_for("isinstance(m, GTC | models.MGCN)") == ["GTC", "MGCN"]
    assert asked_for("if name == 'lightgcn':\n    pass") == ["lightgcn"]
    assert asked_for("type(m) in (FREEDOM,)") == ["FREEDOM"]
    assert asked_for("model = GTC(3, 4, {})\nassert model.num_users == 3") == []
