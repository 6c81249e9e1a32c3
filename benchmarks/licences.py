"""Licences of all that gtc-pyg needs, from the metadata of what is installed.

    python benchmarks/licences.py            # prints the table
    python benchmarks/licences.py --report   # writes it into docs/dependencies.md

A package belongs to the core, or to the first extra that needs it, itself or through others. Its
licence is what it states: its expression, or else its classifiers, or its licence field.
"""

import argparse
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.rows import between, write_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "dependencies.md"
EXTRAS = ("data", "train", "recommend", "plot", "serve", "dev")


def needed(requirements: Iterable[str]) -> Iterator[str]:
    """The packages that are installed for some requirements, with what they need themselves."""
    done: set[tuple[str, str]] = set()
    asked = [(line, "") for line in requirements]
    while asked:
        requirement, extra = Requirement(asked[-1][0]), asked.pop()[1]
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in {"", *requirement.extras} - {e for n, e in done if n == name}:
            done.add((name, wanted))
            try:
                asked += [(line, wanted) for line in importlib.metadata.requires(name) or []]
            except importlib.metadata.PackageNotFoundError:
                break
            yield name


def licence(name: str) -> str:
    """In a line."""
    meta = importlib.metadata.metadata(name)
    classified = [
        entry.rpartition(" :: ")[2].removesuffix(" License")
        for entry in meta.get_all("Classifier", [])
        if entry.startswith("License :: ") and not entry.endswith("OSI Approved")
    ]
    text = meta.get("License-Expression") or " AND ".join(classified) or meta.get("License") or ""
    return re.sub(r"\s+", " ", text.strip().partition("\n")[0]) or "not stated"


def rows() -> dict[str, tuple[str, str]]:
    """Package to its licence and the first part that needs it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    parts = {"core": project["dependencies"]}
    parts |= {extra: project["optional-dependencies"][extra] for extra in EXTRAS}
    found: dict[str, tuple[str, str]] = {}
    for part, requirements in parts.items():
        own = [line for line in requirements if not line.startswith("gtc-pyg")]
        for name in sorted(set(needed(own))):
            found.setdefault(name, (licence(name), part))
    return found


def table() -> str:
    lines = ["| package | licence | needed by |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {name} | {a} | {b} |" for name, (a, b) in rows().items())])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="store_true", help="fill docs/dependencies.md")
    if parser.parse_args().report:
        write_text(PAGE, between(PAGE.read_text(), "licences", table()))
    else:
        print(table())


if __name__ == "__main__":
    main()
