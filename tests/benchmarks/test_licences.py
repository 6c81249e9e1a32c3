"""Licences and versions of what is needed: all listed, compatible with MIT, one bound each."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import licences

ROOT = Path(__file__).parents[2]
PERMISSIVE = re.compile(
    r"MIT(-CMU)?|0BSD|BSD(-[23]-Clause)?|3-Clause BSD|PSF-2\.0|Python Software Foundation|ISC|Zlib"
    r"|Apache(-2\.0| Software|-2\.0 WITH LLVM-exception)|CC0-1\.0|BSL-1\.0|HPND|Public Domain"
    r"|MPL-2\.0|Mozilla Public License 2\.0 \(MPL 2\.0\)"
)
# Tools of development, which are not shipped: docutils holds an Emacs mode under the GPL.
BESIDE = {"docutils": "GNU General Public License (GPL)"}


def parts(text):
    return [part.strip().removesuffix(" License") for part in re.split(r" AND | OR ", text)]


def listed():
    lines = licences.PAGE.read_text().splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][2:]
    return {name: (licence, part) for name, licence, part in cells}


def pinned(name):
    lines = (ROOT / name).read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): version for package, version in pairs}


def bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    used = [x for extra in ("data", "train", "recommend", "plot", "serve") for x in extras[extra]]
    for line in [*project["dependencies"], *used]:
        requirement = Requirement(line)
        if requirement.name != "gtc-pyg":
            (bound,) = (s.version for s in requirement.specifier if s.operator == ">=")
            yield canonicalize_name(requirement.name), bound


@pytest.mark.parametrize("name", listed())
def test_every_licence_is_compatible(name):
    licence, part = listed()[name]
    wrong = [x for x in parts(licence) if not PERMISSIVE.fullmatch(x)]
    assert not wrong or (part == "dev" and wrong == [BESIDE.get(name)])


def test_a_copyleft_licence_would_be_found():
    assert not PERMISSIVE.fullmatch("GPL-3.0-only") and not PERMISSIVE.fullmatch("AGPL-3.0")
    assert not PERMISSIVE.fullmatch("not stated") and not PERMISSIVE.fullmatch("Other/Proprietary")
    assert parts("MIT OR GPL-3.0-only") == ["MIT", "GPL-3.0-only"]


def test_all_that_is_needed_here_is_listed():
    missing = {name: row for name, row in licences.rows().items() if name not in listed()}
    assert not missing, "python benchmarks/licences.py --report"


def test_oldest_versions_are_the_bounds_and_all_are_tested():
    oldest, tested = pinned("constraints-oldest.txt"), pinned("constraints.txt")
    lowest = dict(bounds())
    assert oldest.keys() == lowest.keys() <= tested.keys()
    for name, bound in lowest.items():
        assert re.fullmatch(re.escape(bound) + r"(\.0)*", oldest[name]), name
    assert oldest["torch"] == tested["torch"]
