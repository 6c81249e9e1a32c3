import math
from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F

from benchmarks import missing_modality as bench
from benchmarks import missing_modality_report as report
from benchmarks.missing_modality_fills import fill_content, present_rows, quality


def rows_of(seeds, **values):
    """A row for each condition and seed; a list gives the seeds their values."""
    return [
        dict.fromkeys(bench.HEADER, "")
        | {
            "dataset": "lfm2k",
            "modality": "text",
            "given": "all",
            "rate": "0.0" if condition == "complete" else "0.4",
            "condition": condition,
            "seed": str(seed),
            "test_recall@20": str(value),
        }
        for condition, column in values.items()
        for seed, value in zip(seeds, column, strict=True)
    ]


ROWS = rows_of(
    [0, 1, 2],
    complete=[0.40, 0.42, 0.41],
    zero=[0.36, 0.38, 0.37],
    mean=[0.39, 0.40, 0.39],
    fill=[0.39, 0.41, 0.40],
)
GROUP = {"dataset": "lfm2k", "given": "all", "rate": "0.4"}


def test_the_page_shows_the_committed_rows():
    page = report.PAGE.read_text()
    assert report.with_tables(page, bench.read_rows(bench.ROWS)) == page
    assert report.PLOT.exists()


def test_every_row_says_what_it_came_from():
    rows = bench.read_rows(bench.ROWS)
    keys = [tuple(row[key] for key in bench.KEY) for row in rows]
    assert len(set(keys)) == len(keys)
    for row in rows:
        assert all(row[key] for key in [*bench.KEY, "seconds", "commit", "versions"]), row
        assert row["given"] == "content only" or row["test_recall@20"], row


def test_the_page_says_what_fill_loses():
    shares = []
    for rate in ("0.4", "0.6"):
        table = report.losses(bench.read_rows(bench.ROWS), dataset="lfm2k", given="all", rate=rate)
        shares += [report.half_test(table, baseline)[0] for baseline in ("zero", "mean")]
    shown = [f"{share:.2f}".removeprefix("0") for share in shares]
    said = (
        "at 40 % it loses {} of what zeros lose and {} of what the mean loses, at 60 % {} and {}."
    )
    assert said.format(*shown) in " ".join(report.PAGE.read_text().split())


def test_the_page_says_what_fill_loses_on_validation_and_with_five_seeds_alone():
    rows = [row for row in bench.read_rows(bench.ROWS) if row["given"] == "all"]
    first = [row for row in rows if int(row["seed"]) < 5]
    shown = []
    for chosen, metric in ((first, "test_recall@20"), (rows, "val_recall@20")):
        for rate in ("0.4", "0.6"):
            table = report.losses(chosen, metric, dataset="lfm2k", given="all", rate=rate)
            shares = [report.half_test(table, baseline)[0] for baseline in ("zero", "mean")]
            shown += [f"{share:.2f}".removeprefix("0") for share in shares]
    page = " ".join(report.PAGE.read_text().split())
    assert "the shares were {} and {} at 40 %, {} and {} at 60 %".format(*shown[:4]) in page
    said = "loses {} of what zeros lose and {} of what the mean loses at 40 %, {} and {} at 60 %"
    assert said.format(*shown[4:]) in page


def test_half_of_a_loss_by_hand():
    table = report.losses(ROWS, **GROUP)
    share, p = report.half_test(table, "zero")
    assert share == pytest.approx(0.01 / 0.04)
    assert p < 0.001  # the excess over half is -.01 for each seed
    share, p = report.half_test(table, "mean")
    assert share == pytest.approx(0.03 / 0.05)
    # Losses .01, .02, .02 and .01, .01, .01: excess .005, 0, 0, so t = 1.
    assert p == pytest.approx(1 - 0.5 * (1 - math.sqrt(1 / 3)), abs=1e-6)


def test_losses_are_over_the_seeds_that_all_conditions_share():
    fewer = [row for row in ROWS if (row["condition"], row["seed"]) != ("fill", "1")]
    table = report.losses(fewer, **GROUP)
    assert table["complete"] == [0.40, 0.41]
    assert report.losses([row for row in ROWS if row["condition"] != "fill"], **GROUP) == {}
    with pytest.raises(ValueError, match="seed 0 stands twice"):
        report.losses([*ROWS, ROWS[0]], **GROUP)


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="lacks '<!-- recall -->'"):
        report.with_tables("# page", ROWS)


def test_the_removed_share_is_exact_and_drawn_by_the_seed():
    masks = [present_rows(50, 0.4, seed) for seed in (0, 0, 1)]
    assert [int((~mask).sum()) for mask in masks] == [20, 20, 20]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_quality_by_hand():
    true = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [0.9, 1.0]])
    mask = torch.tensor([True, True, False, True, True])
    filled = true.clone()
    filled[2] = torch.tensor([1.0, 0.1])
    mean = true[mask].mean(0)
    cosine, overlap = quality(filled, true, mask, k=2)
    expected = F.cosine_similarity(filled[2] - mean, true[2] - mean, dim=0)
    assert cosine == pytest.approx(float(expected), abs=1e-6)
    assert overlap == 0.0  # nearest to item 2 is item 4 in truth, item 0 as filled
    assert quality(true, true, mask, k=2) == (pytest.approx(1.0), 1.0)


@pytest.fixture(scope="module")
def planted(planted_dataset):
    dataset = planted_dataset(100, 100, k=None, mean_degree=20.0)
    features = dict(dataset.features)
    return features, dataset[0]["user", "rates", "item"].edge_index, dataset.num_users


@pytest.mark.parametrize(
    "condition", ["zero", "mean", "learned", "neighbors", "others", "ridge", "fill"]
)
def test_a_fill_keeps_what_is_there_and_never_sees_what_is_not(planted, condition):
    features, edge_index, num_users = planted
    modality = next(iter(features))
    mask = present_rows(100, 0.4, 0)
    outs = []
    for absent in (0.0, float("nan")):
        given = dict(features)
        given[modality] = torch.where(mask.view(-1, 1), given[modality], absent)
        args = condition, given, modality, mask, edge_index, num_users, 0, 10
        outs.append(fill_content(*args))
    assert torch.equal(*outs)
    assert torch.equal(outs[0][mask], features[modality][mask])
    assert outs[0].isfinite().all()
    assert (outs[0][~mask].abs().sum() == 0) == (condition in ("zero", "learned"))


def test_the_graph_may_be_made_of_other_content_than_the_model_gets(planted_dataset):
    data = planted_dataset(30, k=None)[0]
    x, mask = data["item"].x_image.clone(), present_rows(40, 0.4, 0)
    zeros = torch.where(mask.view(-1, 1), x, 0.0)
    edges = {}
    for name, of_graph in (("all", x), ("present", zeros)):
        out = bench._Replace("image", x, of_graph, None, True)(data.clone())
        assert torch.equal(out["item"].x_image, x)
        index = out["item", "similar", "item"].edge_index
        edges[name] = index[:, index[0] != index[1]]  # who has no content is near itself
    assert mask[edges["present"]].all() and not mask[edges["all"]].all()


def test_runs_that_have_a_row_are_skipped(tmp_path, monkeypatch):
    ran = []

    def run_one(args, row):
        ran.append((row["seed"], row["rate"], row["condition"]))
        return row | {"commit": "c", "versions": "v", "seconds": 1}

    monkeypatch.setattr(bench, "run_one", run_one)
    args = bench.parse_args(["--out", str(tmp_path / "rows.csv"), "--seed", "0", "1"])
    assert isinstance(args, Namespace)
    bench.run(args)
    assert len(ran) == 2 * 7  # complete once a seed, the others at two rates
    bench.run(args)
    assert len(ran) == 14
    assert len(bench.read_rows(args.out)) == 14
