r"""Small sets in the published formats, and roots that link to the real ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_data.folders import write_amazon, write_lfm2k, write_mmrec, write_tiktok


@pytest.fixture
def mmrec_root(tmp_path: Path) -> Path:
    r"""``toy.inter`` with dense ``text``, dense and graph ``image``, and graph-only ``sound``."""
    write_mmrec(tmp_path / "mmrec")
    return tmp_path / "mmrec"


@pytest.fixture
def tiktok_root(tmp_path: Path) -> Path:
    write_tiktok(tmp_path / "tiktok")
    return tmp_path / "tiktok"


@pytest.fixture
def lfm2k_root(tmp_path: Path) -> Path:
    write_lfm2k(tmp_path / "lfm2k")
    return tmp_path / "lfm2k"


@pytest.fixture
def amazon_root(tmp_path: Path) -> Path:
    write_amazon(tmp_path / "amazon")
    return tmp_path / "amazon"


@pytest.fixture
def real_root(tmp_path: Path) -> Callable[[str], Path]:
    r"""A function from the name of a real set to a writable root that links to its raw files."""

    def make(name: str) -> Path:
        folder = os.environ.get("GTC_PYG_DATA")
        if not folder:
            pytest.skip("GTC_PYG_DATA is not set: it names the folder of the real data sets")
        raw = Path(folder) / name / "raw"
        if not raw.is_dir():
            pytest.skip(f"GTC_PYG_DATA has no {name}/raw")
        root = tmp_path / f"real_{name}"
        root.mkdir()
        (root / "raw").symlink_to(raw.resolve())
        return root

    return make
