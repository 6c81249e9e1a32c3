r"""What a release states in several places is the same in all of them."""

import tomllib
from pathlib import Path

import yaml

from gtc_pyg import __version__

ROOT = Path(__file__).parents[1]


def test_the_version_is_stated_once_and_cited():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"] and "version" not in project


def test_the_workflow_releases_tags_after_all_checks():
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads "on" as true
    commands = [step.get("run", "") for step in workflow["jobs"]["release"]["steps"]]
    first = {
        word: next(i for i, run in enumerate(commands) if word in run)
        for word in ("_version.py", ".ci/run", "python -m build", "twine check", "gh release")
    }
    assert list(first.values()) == sorted(first.values())
