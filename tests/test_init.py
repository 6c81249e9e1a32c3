"""``import gtc_pyg`` costs nothing, and its parts need no more than they say."""

import importlib.metadata
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import gtc_pyg

OPTIONAL = [
    *["faiss", "fastapi", "lightning", "matplotlib", "pandas", "pyarrow", "pytorch_lightning"],
    *["safetensors", "scipy", "tensorboard", "torch_scatter", "torch_sparse", "torchmetrics"],
]


def run(code: str) -> str:
    """Runs code in a fresh interpreter and returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_version_is_the_installed_one():
    assert gtc_pyg.__version__ == importlib.metadata.version("gtc-pyg")


def test_import_loads_nothing_else():
    code = """
        import sys
        before = set(sys.modules)
        import gtc_pyg
        names = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(*sorted(names - set(sys.stdlib_module_names)))
    """
    assert run(code) == "gtc_pyg"


def test_parts_load_on_first_use():
    code = """
        import sys
        import gtc_pyg
        assert "gtc_pyg.functional" not in sys.modules
        print(gtc_pyg.functional.__name__, "nn" in dir(gtc_pyg))
    """
    assert run(code) == "gtc_pyg.functional True"


def test_core_packages_suffice():
    parts = ["functional", "nn", "models", "datasets", "transforms", "loader", "evaluation"]
    parts.append("explain")
    code = f"""
        import sys
        sys.modules.update(dict.fromkeys({OPTIONAL!r}))  # None: as if not installed
        import gtc_pyg
        print(*[getattr(gtc_pyg, part).__name__ for part in {parts!r}])
    """
    assert run(code).split() == [f"gtc_pyg.{part}" for part in parts]


def test_missing_extra_is_one_sentence():
    code = """
        import sys
        sys.modules["lightning"] = None
        import gtc_pyg
        try:
            gtc_pyg.lightning
        except ImportError as error:
            print(error)
    """
    message = run(code)
    assert "\n" not in message
    assert 'pip install "gtc-pyg[train]"' in message


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'colour'"):
        gtc_pyg.colour  # noqa: B018


def public_names() -> dict[str, list[str]]:
    return {part: list(getattr(gtc_pyg, part).__all__) for part in gtc_pyg.__all__[1:]}


def test_the_reference_lists_every_public_name():
    page = (Path(__file__).parents[1] / "docs/api.md").read_text()
    section = r"^## gtc_pyg\.(\w+)\n\n(.*?)\n\n```\{eval-rst\}\n\.\. automodule:: gtc_pyg\.\1\n```$"
    found = re.findall(section, page, re.MULTILINE | re.DOTALL)
    assert len(found) == page.count("\n## ")
    assert {part: re.findall(r"`(\w+)`", names) for part, names in found} == public_names()


@pytest.mark.parametrize("part", gtc_pyg.__all__[1:])
def test_every_public_name_exists_once_and_says_what_it_is(part):
    names = public_names()[part]
    assert len(set(names)) == len(names)
    for name in names:
        value = getattr(getattr(gtc_pyg, part), name)
        assert not (inspect.isclass(value) or callable(value)) or inspect.getdoc(value), name
