from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csc_matrix, csr_matrix, load_npz, save_npz

from gtc_pyg.datasets import MMRecFolder

RATES = ("user", "rates", "item")


def load(root: Path, **kwargs: int) -> MMRecFolder:
    return MMRecFolder(root, "toy", **{"spectral_dim": 3, **kwargs})


def test_published_counts(real_root: Callable[[str], Path]) -> None:
    dataset = MMRecFolder(real_root("baby"), "baby")
    labels = [dataset.view(s)[RATES].edge_label_index for s in ("train", "val", "test")]
    assert (dataset.num_users, dataset.num_items) == (19445, 7050)
    assert [label.size(1) for label in labels] == [118551, 20559, 21682]
    assert dataset.modalities == dataset.graph_derived == ("image", "text")
    assert len(set(labels[2][1].tolist()) - set(labels[0][1].tolist())) == 3


def test_modalities_are_found_and_sorted(mmrec_root: Path) -> None:
    dataset = load(mmrec_root)
    assert dataset.modalities == ("image", "sound", "text")
    assert dataset.graph_derived == ("sound",)
    assert [x.size(1) for x in dataset.features.values()] == [6, 3, 5]
    graphs = {edge_type[1] for edge_type in dataset[0].edge_types if edge_type[0] == "item"}
    assert graphs == {"rev_rates", "similar_image", "similar_sound"}


def test_graph_goes_from_neighbor_to_item(mmrec_root: Path) -> None:
    store = load(mmrec_root)[0]["item", "similar_image", "item"]
    dense = torch.zeros(12, 12)
    dense[store.edge_index[1], store.edge_index[0]] = store.edge_weight
    published = load_npz(mmrec_root / "raw" / "image_knn10_cos.npz").toarray()
    assert torch.equal(dense, torch.from_numpy(published))


def test_a_new_raw_file_or_width_is_not_answered_from_the_cache(mmrec_root: Path) -> None:
    load(mmrec_root)
    assert load(mmrec_root, spectral_dim=4).features["sound"].size(1) == 4
    np.save(mmrec_root / "raw" / "sound_feat.npy", np.ones((12, 9)))
    assert load(mmrec_root).features["sound"].size(1) == 9
    np.save(mmrec_root / "raw" / "sound_feat.npy", np.ones((12, 8)))
    assert load(mmrec_root).features["sound"].size(1) == 8


def test_other_columns_blank_lines_and_order_are_ignored(mmrec_root: Path) -> None:
    expected = load(mmrec_root).view("test")[RATES].edge_label_index
    path = mmrec_root / "raw" / "toy.inter"
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    lines = ["x_label\trating\titemID\tuserID", *(f"{x}\t5.0\t{i}\t{u}" for u, i, x in rows), ""]
    path.write_text("\n".join(lines) + "\n")
    assert torch.equal(load(mmrec_root).view("test")[RATES].edge_label_index, expected)


def _line(number: int, text: str) -> Callable[[Path], None]:
    def edit(raw: Path) -> None:
        lines = (raw / "toy.inter").read_text().splitlines()
        lines[number - 1] = text
        (raw / "toy.inter").write_text("\n".join(lines) + "\n")

    return edit


def _without_label(label: str) -> Callable[[Path], None]:
    def edit(raw: Path) -> None:
        lines = (raw / "toy.inter").read_text().splitlines()
        kept = [line for line in lines if not line.endswith(f"\t{label}")]
        (raw / "toy.inter").write_text("\n".join(kept) + "\n")

    return edit


def _npy(name: str, array: np.ndarray) -> Callable[[Path], None]:
    return lambda raw: np.save(raw / name, array)


def _npz(**changes: object) -> Callable[[Path], None]:
    def edit(raw: Path) -> None:
        parts = dict(np.load(raw / "sound_knn10_cos.npz"))
        parts = {key: value for key, value in {**parts, **changes}.items() if value is not None}
        np.savez(raw / "sound_knn10_cos.npz", **parts)

    return edit


def _unlink(*names: str) -> Callable[[Path], None]:
    return lambda raw: [(raw / name).unlink() for name in names] and None


ALL_CONTENT = ("text_feat.npy", "image_feat.npy", "image_knn10_cos.npz", "sound_knn10_cos.npz")
INTER = r"toy\.inter, line 3: "
BAD = {
    "missing inter": (_unlink("toy.inter"), r"'toy\.inter'.*folder .*raw"),
    "missing content": (_unlink(*ALL_CONTENT), r"<modality>_feat\.npy.*folder .*raw"),
    "missing column": (_line(1, "userID\titem\tx_label"), r"toy\.inter: missing column 'itemID'"),
    "empty file": (lambda raw: (raw / "toy.inter").write_text(""), r"toy\.inter: not a tab"),
    "too many fields": (_line(3, "0\t1\t0\t0\t0"), r"toy\.inter: not a tab.*line 3"),
    "too few fields": (_line(3, "0\t1"), INTER + r"x_label is '', expected 0, 1 or 2"),
    "text id": (_line(3, "u7\t1\t0"), INTER + r"userID is 'u7', expected a non-negative integer"),
    "fraction": (_line(3, "0\t1.5\t0"), INTER + r"itemID is '1\.5'"),
    "negative id": (_line(3, "0\t-1\t0"), INTER + r"itemID is '-1'"),
    "huge id": (_line(3, "0\t99999999999999999999\t0"), INTER + r"itemID is '9+'"),
    "past the rows": (_line(3, "0\t12\t0"), INTER + r"item id 12 .*0 to 11 \(12 rows"),
    "label": (_line(3, "0\t1\t3"), INTER + r"x_label is '3', expected 0, 1 or 2"),
    "twice": (_line(3, "0\t0\t0"), INTER + r"user 0, item 0 occurs twice in the train split"),
    "leak": (_line(10, "0\t0\t1"), r"line 10: user 0, item 0 .*train.*val split \(a leak\)"),
    "no train": (_without_label("0"), r"toy\.inter: the train split is empty"),
    "no val": (_without_label("1"), r"toy\.inter: the val split is empty"),
    "no test": (_without_label("2"), r"toy\.inter: the test split is empty"),
    "rows": (_npy("text_feat.npy", np.ones((13, 2))), r"text_feat\.npy has 13 .*image_feat.* 12"),
    "graph rows": (
        lambda raw: save_npz(raw / "image_knn10_cos.npz", csr_matrix(np.eye(13))),
        r"image_knn10_cos\.npz has 13 rows .*image_feat.* 12",
    ),
    "nan": (_npy("text_feat.npy", np.full((12, 2), np.nan)), r"text_feat\.npy: row 0.*nan"),
    "3-D": (_npy("text_feat.npy", np.ones((12, 2, 2))), r"text_feat\.npy.*\(12, 2, 2\)"),
    "no columns": (_npy("text_feat.npy", np.ones((12, 0))), r"text_feat\.npy.*\(12, 0\)"),
    "index": (_npz(indices=np.full(45, 12)), r"sound_knn10_cos\.npz: 'ind"),
    "indptr": (_npz(indptr=np.zeros(13, dtype=int)), r"sound_knn10_cos\.npz: 'indptr'"),
    "no indices": (_npz(indices=None), r"sound_knn10_cos\.npz: .*missing indices"),
    "weight": (_npz(data=np.ones(2)), r"sound_knn10_cos\.npz: 'data'"),
    "not square": (_npz(shape=np.array([12, 13])), r"sound_knn10_cos\.npz: shape"),
    "objects": (_npz(data=np.array([None])), r"sound_knn10_cos\.npz: .*[Oo]bject"),
    "no zip": (
        lambda raw: (raw / "sound_knn10_cos.npz").write_bytes(b"PK\x03\x04 hello"),
        r"sound_knn10_cos\.npz: not an \.npz",
    ),
    "csc": (
        lambda raw: save_npz(raw / "sound_knn10_cos.npz", csc_matrix(np.eye(12))),
        r"sound_knn10_cos\.npz: format is 'csc', expected 'csr'",
    ),
}


@pytest.mark.parametrize(("edit", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named_and_leaves_nothing(
    mmrec_root: Path, edit: Callable[[Path], None], message: str
) -> None:
    edit(mmrec_root / "raw")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(mmrec_root)
    assert not (mmrec_root / "processed").exists()


def test_index_out_of_range_is_named(mmrec_root: Path) -> None:
    path = mmrec_root / "raw" / "sound_knn10_cos.npz"
    parts = dict(np.load(path))
    parts["indices"][3] = 12
    np.savez(path, **parts)
    with pytest.raises(ValueError, match=r"'indices' holds 12, expected 0 to 11"):
        load(mmrec_root)
