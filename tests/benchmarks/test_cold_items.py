from itertools import permutations

import numpy as np
import pytest
import torch

import cold_items as bench
import cold_items_report as report
from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.experiment import Settings
from gtc_pyg.transforms import ItemKNNGraph
from harness import filled
from harness.data import DATASETS, Part
from significance import save


def test_the_page_shows_the_committed_rows():
    page, rows = bench.PAGE.read_text(), bench.COLD.rows()
    assert filled(page, report.texts(rows, bench.read_rows(bench.TABLE))) == page


def test_every_row_says_what_it_came_from():
    rows = bench.COLD.rows()
    keys = [tuple(row[key] for key in ("method", *bench.COLD.key)) for row in rows]
    assert len(set(keys)) == len(keys)
    assert all(row[key] for row in rows for key in bench.COLD.header)


def test_parts_hold_every_item_once():
    parts = torch.stack([bench.part(23, index) for index in range(bench.PARTS)])
    assert (parts.sum(dim=0) == 1).all()
    assert parts.sum(dim=1).max() - parts.sum(dim=1).min() <= 1
    assert torch.equal(parts[2], bench.part(23, 2))


def test_cold_items_lose_every_interaction_and_others_none(planted_dataset):
    whole = planted_dataset(k=None)
    cold = bench.part(40, 1)
    left = Part(whole, cold=cold, pre_transform=ItemKNNGraph(k=5))
    for split in ("train", "val", "test"):
        edge, kept = bench.interactions(whole, split), bench.interactions(left, split)
        assert torch.equal(edge[:, ~cold[edge[1]]], kept)
    assert torch.equal(
        left[0]["user", "rates", "item"].edge_index, bench.interactions(left, "train")
    )
    assert torch.equal(left.features["text"], whole.features["text"])
    assert ("item", "similar", "item") in left[0].edge_types


def test_metrics_by_hand_and_chance_over_all_orders(monkeypatch):
    monkeypatch.setattr(bench, "K", 2)
    score = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    label = torch.tensor([[True, False, True, True]])
    recall, ndcg = bench.values(score, label)
    assert recall.item() == pytest.approx(1 / 3)
    assert ndcg.item() == pytest.approx(1 / (1 + 1 / np.log2(3)))
    orders = torch.tensor(list(permutations(range(4)))).float()
    every = [x.mean().item() for x in bench.values(orders, label.expand(len(orders), -1))]
    assert [x.item() for x in bench.chance(label)] == pytest.approx(every)


def test_the_item_graph_leaves_items_without_interactions_out():
    edges = {("item", "similar", "item"): torch.tensor([[0, 1, 2, 0], [0, 0, 0, 2]])}
    weights = {("item", "similar", "item"): torch.tensor([1.0, 3.0, 5.0, 2.0])}
    graph = bench.similar(edges, weights, torch.tensor([True, True, False])).to_dense()
    assert graph.tolist() == [[0.25, 0.75, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]


def rows_of(**recalls):
    shared = {"dataset": "baby", "seed": "0", "ndcg@20": "0.1", "users": "9", "items": "5"}
    shared |= {"labels": "12", "commit": "abc", "versions": "1"}
    return [
        {**shared, "method": method.replace("_", " "), "split": split, "recall@20": str(value)}
        for method, pair in recalls.items()
        for split, value in zip(("val", "test"), pair, strict=True)
    ]


ROWS = rows_of(
    gtc=(0.3, 0.3),
    freedom=(0.1, 0.1),
    freedom_mean=(0.2, 0.1),
    freedom_embedder=(0.9, 0.9),
    content_text=(0.1, 0.5),
    graph_1=(0.2, 0.1),
    popularity_5=(0.1, 0.1),
    chance=(0.05, 0.05),
)


def test_baselines_are_chosen_on_validation():
    assert report.chosen(ROWS, "baby") == {
        "as it comes": "freedom",
        "content": "content text",
        "graph": "graph 1",
        "freedom": "freedom mean",
        "popularity": "popularity 5",
        "chance": "chance",
    }


def test_users_are_averaged_over_their_seeds_and_compared(tmp_path):
    generator = torch.Generator().manual_seed(0)
    methods = [
        "gtc",
        "freedom",
        "freedom mean",
        "content text",
        "graph 1",
        "popularity 5",
        "chance",
    ]
    users = [torch.arange(30), torch.arange(10, 40)]
    for seed in (0, 1):
        found = {m: torch.rand(2, 30, generator=generator).double().numpy() for m in methods}
        found["gtc"] = found["freedom"] + 1
        save(tmp_path / f"baby-test-{seed}.npz", {"users_of_row": users[seed], **found})
    with np.load(tmp_path / "baby-test-1.npz") as last:
        alone = last["gtc"][:, -1]
    mean = report.of_users(tmp_path, "baby", [0, 1], "gtc")
    assert mean.shape == (2, 40)
    assert np.allclose(mean[:, -1], alone)
    rows = [*ROWS, *({**row, "seed": "1"} for row in ROWS if row["split"] == "test")]
    table = report.tests(rows, tmp_path)
    assert [(row["baseline"], row["users"], row["seeds"]) for row in table[:1]] == [
        ("freedom", 40, "0 1")
    ]
    assert float(str(table[0]["difference"])) == pytest.approx(1.0)
    assert all(float(str(row["p_holm"])) >= float(str(row["p"])) * 0.999 for row in table)


def test_a_command_makes_rows_once_and_fills_the_page(tmp_path, monkeypatch, planted_dataset):
    settings = {name: Settings(epochs=1) for name in ("gtc", "freedom")}
    monkeypatch.setattr(bench, "example_settings", lambda dataset: settings)
    planted = PlantedPreferences(80, 60, mean_degree=8.0)
    monkeypatch.setitem(DATASETS, "lfm2k", lambda root, graph: planted)
    options = [
        f"--{k}={tmp_path / v}" for k, v in [("models", "m"), ("users", "u"), ("out", "r.csv")]
    ]
    for more in (["--choose"], ["--seed", "0"], ["--seed", "0"]):
        bench.main([*options, "--root", str(tmp_path), *more])
    rows = bench.COLD.rows(tmp_path / "r.csv")
    keys = [tuple(row[key] for key in ("method", *bench.COLD.key)) for row in rows]
    assert len(set(keys)) == len(keys)
    assert {row["split"] for row in rows} == {"val", "test"}
    assert {row["items"] for row in rows} == {"12"}
    compared = report.tests(rows, tmp_path / "u")
    page = "<!-- cases -->\n<!-- end of cases -->\n<!-- results -->\n<!-- end of results -->"
    shown = filled(page, report.texts(rows, [{k: str(v) for k, v in r.items()} for r in compared]))
    assert "| lfm2k | gtc |" in shown
    assert "| lfm2k | test | 0 | 12 |" in shown


def test_what_the_page_says_of_the_comparisons_is_so():
    rows = {(r["dataset"], r["metric"], r["baseline"]): r for r in bench.read_rows(bench.TABLE)}
    for (dataset, metric, baseline), row in rows.items():
        if metric == "recall@20" and dataset in ("lfm2k", "baby"):
            assert float(row["difference"]) > 0 and float(row["p_holm"]) < 0.01, baseline
    level = rows["baby", "ndcg@20", "graph 2"]
    assert float(level["difference"]) == pytest.approx(-0.0005, abs=5e-5)
    assert float(level["p_holm"]) == pytest.approx(0.21, abs=5e-3)
    for baseline, clear in (("content image", True), ("graph 2", False)):
        row = rows["tiktok", "recall@20", baseline]
        assert float(row["difference"]) < 0 and (float(row["p_holm"]) < 0.05) == clear
