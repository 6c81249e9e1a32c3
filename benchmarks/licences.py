"""Licences of all that gtc-pyg needs, from the metadata of what is installed."""

import importlib.metadata
import re
import tomllib
from collections.abc import Iterable, Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness import DOCS, ROOT, Options, fill, markdown

PAGE = DOCS / "dependencies.md"
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
    """A Markdown table of the rows."""
    return markdown(["package", "licence", "needed by"], [[k, *row] for k, row in rows().items()])


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__)
    parser.start(argv, lambda args: print(table()), lambda args: fill(PAGE, {"licences": table()}))


if __name__ == "__main__":
    main()
