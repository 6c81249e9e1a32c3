r"""What a release states in several places is the same in all of them, and holds what it should."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gtc_pyg
from gtc_pyg import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    name: [Requirement(line) for line in lines]
    for name, lines in PROJECT["optional-dependencies"].items()
}
BESIDES = {"CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "constraints.txt"}


def test_the_version_is_stated_once_and_cited():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT


def test_all_is_every_extra_but_those_to_build_and_to_develop():
    (everything,) = EXTRAS["all"]
    assert everything.name == PROJECT["name"]
    assert everything.extras == EXTRAS.keys() - {"all", "dev", "fuzz", "sparse"}
    assert {extra for extra in gtc_pyg._PARTS.values() if extra} <= everything.extras


def test_the_tested_set_fixes_all_that_is_asked_for():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    fixed = {canonicalize_name(name): version for name, version in (x.split("==") for x in lines)}
    asked = [Requirement(line) for line in PROJECT["dependencies"]]
    asked += [requirement for extra in EXTRAS.values() for requirement in extra]
    for requirement in asked:
        name = canonicalize_name(requirement.name)
        if name != PROJECT["name"]:
            assert requirement.specifier.contains(fixed.get(name, "0")), requirement


WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())


def steps() -> list[dict]:
    return [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def test_the_workflow_releases_tags_after_all_checks():
    assert WORKFLOW[True] == {"push": {"tags": ["v*"]}}  # YAML reads "on" as true
    assert [job.get("needs") for job in WORKFLOW["jobs"].values()] == [None, "build", "publish"]
    commands = [step.get("run", step.get("uses")) for step in steps()]
    words = ["_version.py", ".ci/run", "python -m build", "twine check", "pypi-publish"]
    words.append("gh release")
    first = {word: next(i for i, run in enumerate(commands) if word in run) for word in words}
    assert list(first.values()) == sorted(first.values())


def test_code_of_the_tree_runs_without_rights():
    rights = {name: job.get("permissions") for name, job in WORKFLOW["jobs"].items()}
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert rights == {
        "build": None,
        "publish": {"id-token": "write"},
        "draft": {"contents": "write"},
    }
    for name in ("publish", "draft"):
        assert not any(
            "checkout" in step.get("uses", "") for step in WORKFLOW["jobs"][name]["steps"]
        )


@pytest.mark.parametrize(
    ("tag", "head", "passes"),
    [
        (f"v{__version__}", f"## [{__version__}] - 2030-01-31", True),
        (f"v{__version__}", f"## [{__version__}] - unreleased", False),
        ("v9.9.9", "## [9.9.9] - 2030-01-31", False),
        (f"v{__version__}", "## [9.9.9] - 2030-01-31", False),
    ],
)
def test_a_tag_must_be_the_version_and_have_its_date(tmp_path, tag, head, passes):
    changelog = (
        f"# Changelog\n\n{head}\n\n### Added\n\n- One.\n\n## [0.0.1] - 2029-01-01\n\n- Old.\n"
    )
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    (tmp_path / "gtc_pyg").mkdir()
    shutil.copy(ROOT / "gtc_pyg/_version.py", tmp_path / "gtc_pyg")
    done = [
        subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=tmp_path,
            env={**os.environ, "GITHUB_REF_NAME": tag},
        )
        for step in steps()
        if "CHANGELOG.md" in step.get("run", "")
    ]
    assert (done[0].returncode == 0) == passes
    if passes:
        assert (tmp_path / "notes.md").read_text() == "\n### Added\n\n- One.\n\n"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    r"""The folder of a wheel that was built from the source distribution, both from this tree."""
    pytest.importorskip("build", reason="build is not installed: it is one of the extra 'dev'")
    tree = tmp_path_factory.mktemp("release") / "tree"
    left_out = (".*", "outputs", "build", "dist", "*.egg-info", "__pycache__", "_build")
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*left_out))
    for stray in ("data/raw/image.npy", "gtc_pyg/datasets/raw/items.csv"):
        (tree / stray).parent.mkdir(parents=True)
        (tree / stray).touch()
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tree.parent)]
    done = subprocess.run([*command, str(tree)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return tree.parent


def package_files() -> set[str]:
    static = (ROOT / "gtc_pyg" / "serve" / "static").iterdir()
    found = [*(ROOT / "gtc_pyg").rglob("*.py"), *static]
    return {str(path.relative_to(ROOT)) for path in found}


def test_the_wheel_is_the_package_and_nothing_else(dist):
    (wheel,) = dist.glob("*.whl")
    assert wheel.name == f"gtc_pyg-{__version__}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    about = {name for name in names if name.startswith(f"gtc_pyg-{__version__}.dist-info/")}
    assert names - about == package_files() | {"gtc_pyg/py.typed"}
    assert f"gtc_pyg-{__version__}.dist-info/licenses/LICENSE" in about


def test_source_distribution_has_what_builds_and_describes_it(dist):
    (source,) = dist.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        files = [member.name for member in archive.getmembers() if member.isfile()]
    names = {name.removeprefix(f"gtc_pyg-{__version__}/") for name in files}
    about = {name for name in names if name.startswith("gtc_pyg.egg-info/")} | {"PKG-INFO"}
    building = {"MANIFEST.in", "pyproject.toml", "setup.cfg"}
    assert names - about == package_files() | {"gtc_pyg/py.typed"} | building | BESIDES
