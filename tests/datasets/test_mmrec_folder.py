from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import load_npz

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


def test_published_users_without_training_are_not_evaluated(real_root, caplog) -> None:
    dataset = MMRecFolder(real_root("scientific"), "scientific")
    assert dataset.num_users == 2928 and dataset.num_left_out == 2
    assert "2 user(s) with nothing in training are left out of the evaluation" in caplog.text
    trained = dataset[0][RATES].edge_index[0]
    for split in ("val", "test"):
        users = dataset.view(split)[RATES].edge_label_index[0]
        assert not {261, 2757} & {*users.tolist()} and torch.isin(users, trained).all()


def test_users_left_out_are_counted_from_the_cache_too(mmrec_root: Path, caplog) -> None:
    path = mmrec_root / "raw" / "toy.inter"
    path.write_bytes(path.read_bytes().rstrip() + b"\n4\t8\t1\n4\t9\t2\n")
    assert [load(mmrec_root).num_left_out for _ in range(2)] == [1, 1]
    assert caplog.text.count("1 user(s) with nothing in training are left out") == 2


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
