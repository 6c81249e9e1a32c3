import csv
from types import SimpleNamespace

import pytest
import torch

import fold_in as bench
from gtc_pyg.models import LightGCN
from harness import data, filled


@pytest.fixture(scope="module")
def dataset(planted_dataset):
    return planted_dataset(modalities=["image"], k=4)


def row_of(seed, folded, trained, dataset="tiktok", model="gtc"):
    return dict.fromkeys(bench.FOLD_IN.header, "1") | {
        "dataset": dataset,
        "model": model,
        "seed": str(seed),
        "share": "0.1",
        "users": "931",
        "test_recall@20_folded": str(folded),
        "test_recall@20_trained": str(trained),
    }


def test_the_page_shows_the_committed_rows():
    page = bench.PAGE.read_text()
    assert filled(page, {"table": bench.table(bench.FOLD_IN.rows())}) == page


def test_gtc_keeps_what_the_page_says():
    said = "GTC keeps at least 90 % on each of the three sets."
    assert said in " ".join(bench.PAGE.read_text().split())
    for (_, model, _), rows in bench.groups(bench.FOLD_IN.rows()).items():
        assert model != "gtc" or bench.kept(rows) >= 0.9, rows


def test_every_row_stands_once_and_says_what_it_came_from():
    rows = bench.FOLD_IN.rows()
    keys = [tuple(row[key] for key in bench.FOLD_IN.key) for row in rows]
    assert len(set(keys)) == len(keys)
    assert all(all(row.values()) for row in rows)


def test_the_table_by_hand():
    rows = [row_of(1, 0.08, 0.1), row_of(0, 0.1, 0.1), row_of(0, 0.3, 0.3, "lfm2k", "lightgcn")]
    lines = bench.table(rows).splitlines()
    assert lines[2].startswith("| TikTok, GTC | 2 | 1 of 931 | 1.0000 | 1.0000 | 0.0900 | 0.1000 |")
    assert lines[2].endswith("| 90% | 1.0000 | 1.0 | 1.0 |")
    assert lines[3].startswith("| LFM2k, LightGCN | 1 |")
    assert bench.kept(rows[:2]) == pytest.approx(0.9)


def test_users_are_drawn_by_seed_among_those_with_interactions(dataset):
    first, again, other = (bench.draw_users(dataset, 0.2, seed) for seed in (0, 0, 1))
    assert first.numel() == 12 and torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first.unique(), first)
    assert torch.isin(first, bench.interactions(dataset, "train")[0]).all()


def test_users_left_out_are_in_no_split_and_the_others_in_all(dataset):
    users = bench.draw_users(dataset, 0.2, 0)
    others = torch.tensor([u for u in range(60) if u not in users])
    rest = bench.Part(dataset, others)
    assert (rest.num_users, rest.num_items) == (48, 40)
    for split in ("train", "val", "test"):
        whole = {tuple(pair) for pair in bench.interactions(dataset, split).t().tolist()}
        back = bench.interactions(rest, split).clone()
        back[0] = others[back[0]]
        out = bench.of_users(bench.interactions(dataset, split), users, 60)
        out = torch.stack([users[out[0]], out[1]])
        both = [{tuple(pair) for pair in edges.t().tolist()} for edges in (back, out)]
        assert both[0] | both[1] == whole and not both[0] & both[1]
    similar = ("item", "similar", "item")
    assert torch.equal(rest[0][similar].edge_index, dataset[0][similar].edge_index)


def test_users_are_repeated_until_there_are_enough():
    edges = torch.tensor([[0, 1, 1, 2], [5, 6, 7, 8]])
    out = bench.repeated(edges, 3, 5)
    assert out.tolist() == [[0, 1, 1, 2, 3, 4, 4], [5, 6, 7, 8, 5, 6, 7]]


def test_a_row_has_what_a_model_gives(dataset, monkeypatch):
    asked = []

    def trained(model_name, data, settings, seed, path):
        asked.append((path, data.num_users))
        torch.manual_seed(0)
        return LightGCN(data.num_users, data.num_items, 8).eval(), 3

    monkeypatch.setattr(bench, "trained", trained)
    args = SimpleNamespace(dataset="tiktok", share=0.1, weights=None)
    row = bench.run_one(dataset, "lightgcn", 0, args)
    assert asked == [(None, 54), (None, 60)]
    assert set(bench.FOLD_IN.header) == {*row, *bench.FOLD_IN.key, "seconds", "commit", "versions"}
    users = bench.draw_users(dataset, 0.1, 0)
    train, test = (bench.interactions(dataset, split) for split in ("train", "test"))
    user_emb, item_emb = bench.embedded(trained("", dataset, None, 0, None)[0], dataset)
    recall = []
    for user in users.tolist():
        mine, held = (edges[1][edges[0] == user] for edges in (train, test))
        if held.numel():
            top = (item_emb @ user_emb[user]).index_fill(0, mine, -torch.inf).topk(20).indices
            recall.append(float(torch.isin(held, top).float().mean()))
    assert float(row["test_recall@20_trained"]) == pytest.approx(
        sum(recall) / len(recall), abs=1e-6
    )
    assert row["users"] == 6 and row["users_tested"] == len(recall)


def test_weights_that_are_kept_are_not_trained_again(dataset, tmp_path, monkeypatch):
    ran = []

    def train(model_name, given, settings, seed, **more):
        ran.append(seed)
        torch.manual_seed(seed)
        model = LightGCN(given.num_users, given.num_items, **settings.model)
        return SimpleNamespace(model=model, best_epoch=7)

    monkeypatch.setattr(data, "train", train)
    settings = bench.example_settings("tiktok")["lightgcn"]
    args = "lightgcn", dataset, settings, 5, tmp_path / "weights" / "everybody.pt"
    first, epoch = bench.trained(*args)
    second, again = bench.trained(*args)
    assert ran == [5] and epoch == again == 7
    assert torch.equal(first.user_emb.weight, second.user_emb.weight)


def test_runs_that_have_a_row_are_skipped(tmp_path, monkeypatch, capsys):
    ran = []

    def run_one(dataset, model_name, seed, args):
        ran.append((model_name, seed))
        return {f"val_recall@20_{way}": 0.5 for way in bench.WAYS}

    monkeypatch.setattr(bench, "load", lambda name, root: None)
    monkeypatch.setattr(bench, "run_one", run_one)
    command = ["--out", str(tmp_path / "rows.csv"), "--seed", "0", "1", "--models", "gtc", "mgcn"]
    for _ in range(2):
        bench.main(command)
    assert ran == [("gtc", 0), ("mgcn", 0), ("gtc", 1), ("mgcn", 1)]
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    assert "dataset tiktok, share 0.1, model mgcn, seed 1" in capsys.readouterr().err


def test_a_share_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"--share must lie between 0 and 1 \(got 1.0\)"):
        bench.main(["--share", "1"])
