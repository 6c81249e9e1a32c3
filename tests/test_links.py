r"""What the pages link to or name is there: files, headings, pictures, scripts. Offline."""

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]
CODE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1`*$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SRC = re.compile(r'(?:src|srcset|href)="([^"]+)"')
NAMED = re.compile(r"`((?:docs|examples|benchmarks|tests|gtc_pyg|\.ci|\.github)/[\w./*-]*)`")
SCRIPT = re.compile(r"python ((?:examples|benchmarks|docs|tests)/[a-z0-9_/]+\.py)")


def slug(heading: str) -> str:
    """As GitHub and MyST make it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@cache
def anchors(path: Path) -> set[str]:
    text = CODE.sub("", path.read_text())
    headings = re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)
    return {slug(heading) for heading in headings} | set(
        re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE)
    )


def broken(path: Path) -> list[str]:
    text = path.read_text()
    prose = CODE.sub("", text)
    found = []
    for target in LINK.findall(SPAN.sub("", prose)) + SRC.findall(prose):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        place = (path.parent / file) if file else path
        if not place.exists():
            found.append(f"{target}: no such file")
        elif anchor and place.suffix == ".md" and anchor not in anchors(place):
            found.append(f"{target}: no such heading")
    named = NAMED.findall(prose) if path.name != "CHANGELOG.md" else []  # tells of what was
    for name in [*named, *SCRIPT.findall(text)]:
        if not Path(name).stem.isupper() and not any(ROOT.glob(name)):  # NAME.py stands for any
            found.append(f"{name}: no such file")
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_names_is_there(path):
    assert broken(path) == []


def test_every_page_is_in_the_contents():
    index = (ROOT / "docs" / "index.md").read_text()
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", index, re.DOTALL | re.MULTILINE)
    listed = [line for tree in trees for line in tree.splitlines() if re.match(r"[\w/]+$", line)]
    pages = sorted(path.stem for path in (ROOT / "docs").glob("*.md") if path.stem != "index")
    assert sorted(listed) == pages
    pictures = {path.name for path in (ROOT / "docs" / "images").iterdir()}
    shown = " ".join(path.read_text() for path in PAGES)
    assert [name for name in sorted(pictures) if f"images/{name}" not in shown] == []


def test_broken_links_are_found(tmp_path):
    (tmp_path / "other.md").write_text("# A heading, with `code`\n\n(label)=\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md) [b](other.md#a-heading-with-code) [c](other.md#label) [d](https://x.org)\n"
        "[e](missing.md) [f](other.md#nowhere) ![g](images/none.png) `[h](in_code.md)`\n"
        "`examples/baby.py` `examples/none.py` `docs/*.md` `examples/NAME.py`\n"
        "`benchmarks/results/<name>.csv`\n"
        "```\n[i](in_a_block.md)\npython examples/gone.py\n```\n"
    )
    assert broken(page) == [
        "missing.md: no such file",
        "other.md#nowhere: no such heading",
        "images/none.png: no such file",
        "examples/none.py: no such file",
        "examples/gone.py: no such file",
    ]
