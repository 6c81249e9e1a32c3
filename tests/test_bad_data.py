r"""Bad data: the error names file or argument, value and remedy, and nothing is written.

The cases are in ``tests/bad_data``, a module for each kind of data.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_data import amazon, frames, lfm2k, mmrec, settings, tables, tiktok
from tests.bad_data.case import Case, listing
from tests.bad_data.unusual import UNUSUAL, Unusual

CASES = [
    case for part in (mmrec, tiktok, lfm2k, amazon, frames, tables, settings) for case in part.CASES
]


def test_there_are_enough_and_no_two_are_the_same() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 80


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_data_is_named_and_nothing_is_written(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case.write(tmp_path)
    case.spoil(tmp_path / "raw")
    before = listing(tmp_path)
    with pytest.raises(case.error) as caught:
        case.read(tmp_path)
    assert type(caught.value) is case.error
    message = str(caught.value)
    for part in (case.where, case.value, case.remedy):
        assert part in message
    assert "\n" not in message
    assert listing(tmp_path) == before


@pytest.mark.parametrize("case", UNUSUAL, ids=lambda case: case.name)
def test_what_is_odd_and_right_is_read(case: Unusual, tmp_path: Path) -> None:
    expected = case.expected(tmp_path) if callable(case.expected) else case.expected
    assert case.found(tmp_path) == expected
