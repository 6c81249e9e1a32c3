from __future__ import annotations

import builtins
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import coo_array, coo_matrix, csc_array, csc_matrix, csr_array, csr_matrix

from gtc_pyg.datasets.raw_files import read_inter, read_sparse_pickle

DENSE = np.array([[0, 1, 0], [2, 0, 3]])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "layout", [coo_matrix, csr_matrix, csc_matrix, coo_array, csr_array, csc_array]
)
def test_sparse_pickle_of_every_protocol(tmp_path: Path, layout: type, protocol: int) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(layout(DENSE), protocol=protocol))
    edge_index, shape = read_sparse_pickle(str(path))
    assert shape == (2, 3)
    assert set(zip(*edge_index.tolist(), strict=True)) == {(0, 1), (1, 0), (1, 2)}


def test_stored_zeros_are_no_interactions(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(coo_matrix(([1.0, 0.0], ([0, 1], [1, 1])), shape=(2, 3))))
    assert read_sparse_pickle(str(path))[0].tolist() == [[0], [1]]


def test_indices_outside_the_matrix_are_refused(tmp_path: Path) -> None:
    matrix = coo_matrix(DENSE)
    matrix.coords = (matrix.coords[0], matrix.coords[1] + 1)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(matrix))
    with pytest.raises(ValueError, match=r"m\.pkl: column 3 is outside .* 0 to 2"):
        read_sparse_pickle(str(tmp_path / "m.pkl"))


@pytest.mark.parametrize(
    "stream",
    [
        b"cos\nsystem\n(S'echo no'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.",
        b"cscipy.sparse\nload_npz\n(S'x'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
    ],
)
def test_only_array_types_may_be_named(tmp_path: Path, stream: bytes) -> None:
    (tmp_path / "m.pkl").write_bytes(stream)
    module, name = stream[1:].decode().splitlines()[:2]
    with pytest.raises(ValueError, match=rf"m\.pkl: names the forbidden global '{module}\.{name}'"):
        read_sparse_pickle(str(tmp_path / "m.pkl"))


def test_missing_pandas_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    (tmp_path / "a.inter").write_text("userID\titemID\tx_label\n0\t0\t0\n")
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r'pip install "gtc-pyg\[data\]"'):
        read_inter(str(tmp_path / "a.inter"))
