"""A test's name can be read at a glance."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent


def names(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [node.name for node in functions if node.name.startswith("test_")]


def test_names_have_at_most_60_characters():
    found = {path: names(path) for path in TESTS.rglob("test_*.py")}
    assert names(Path(__file__)) == ["test_names_have_at_most_60_characters"]
    assert not {name for own in found.values() for name in own if len(name) > 60}
