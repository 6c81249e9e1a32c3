from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gtc_pyg.datasets.checked_file import load_checked, save_checked

CONTENT = {"x": torch.arange(6).view(2, 3), "names": ["a", "b"]}


def test_content_comes_back_and_any_reader_reads_it(tmp_path: Path) -> None:
    save_checked(CONTENT, tmp_path / "a.pt")
    for found in (load_checked(tmp_path / "a.pt"), torch.load(tmp_path / "a.pt")):
        assert torch.equal(found["x"], CONTENT["x"]) and found["names"] == ["a", "b"]


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_every_flipped_bit_is_found(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.pt"
    save_checked(CONTENT, path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        load_checked(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 200])
def test_a_file_without_checksum_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        load_checked(tmp_path / "a.pt")
