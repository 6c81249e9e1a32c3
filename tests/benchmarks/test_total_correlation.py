import math
import statistics
from pathlib import Path

import pytest
import torch

from harness import column, filled, pick
from harness.workers import in_fresh_process
from total_correlation import (
    TRUTHS,
    correlation_of,
    gaussians,
    rows_of,
    run_gaussians,
    run_xor,
)
from total_correlation_cost import _inputs as inputs
from total_correlation_cost import loss_and_gradients
from total_correlation_report import (
    PAGE,
    final_accuracy,
    texts,
)

NAMES = ["gaussians", "xor", "scale", "memory", "speed"]


def test_the_page_shows_the_committed_rows():
    page = PAGE.read_text()
    assert filled(page, texts(), "\n") == page


def test_a_page_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="lacks '<!-- gaussians -->'"):
        filled("# Total correlation", texts())


@pytest.mark.parametrize("plot", ["gaussians", "xor", "memory"])
def test_the_page_shows_every_plot(plot: str):
    image = f"images/total_correlation_{plot}.png"
    assert image in PAGE.read_text()
    assert (PAGE.parent / Path(image)).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", NAMES)
def test_every_row_says_what_it_came_from(name: str):
    rows = rows_of(name)
    assert rows
    for row in rows:
        assert all(row.values()), row
        assert {"seed", "threads", "commit", "versions"} <= row.keys()


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("num_tensors", [3, 4])
def test_committed_bounds_are_near_the_truth_and_not_above(truth: float, num_tensors: int):
    rows = pick(rows_of("gaussians"), truth=truth, num_tensors=num_tensors)
    assert sorted(column(rows, "seed")) == [0, 1, 2]
    for row in rows:
        bound, error = float(row["bound"]), float(row["standard_error"])
        assert 0.85 * truth < bound < truth + 3 * error
    pooled = math.hypot(*column(rows, "standard_error")) / len(rows)
    assert statistics.fmean(column(rows, "bound")) < truth + 3 * pooled


def test_committed_accuracies_on_xor():
    right, chance, _ = final_accuracy("total_correlation")
    assert chance == 1 / 32
    assert len(right) == 5 and min(right) > 0.95
    guessed, chance, error = final_accuracy("pairs")
    assert len(guessed) == 5
    assert abs(statistics.fmean(guessed) - chance) < 2 * error


def test_committed_memory_and_speed():
    row = pick(rows_of("memory"), form="chunked", num_rows=50_000)[0]
    assert 0 < float(row["added_mib"]) < 1024
    rows = rows_of("speed")
    assert {row["threads"] for row in rows} == {"1", "2"}
    for row in rows:
        assert float(row["ratio"]) <= 1.35
        assert float(row["largest_relative_difference"]) < 1e-5


@pytest.mark.parametrize("num_tensors", [2, 3, 5])
@pytest.mark.parametrize("truth", [0.5, 3.0])
def test_gaussians_have_the_total_correlation_asked_for(truth: float, num_tensors: int):
    c = correlation_of(truth, num_tensors, 2)
    x = gaussians(200_000, num_tensors, 2, c, torch.Generator().manual_seed(0))
    # The definition: entropies of the parts less that of the whole, from the sample's covariance.
    whole = torch.cov(x.transpose(0, 1).flatten(1).t().double())
    parts = sum(torch.logdet(torch.cov(v.t().double())) for v in x)
    assert ((parts - torch.logdet(whole)) / 2).item() == pytest.approx(truth, rel=0.02)


def test_a_short_training_comes_near_the_truth_and_not_above():
    row = run_gaussians(1.0, 3, seed=0, batch_size=256, steps=150, num_rows=2048, num_draws=8)
    bound, error = float(row["bound"]), float(row["standard_error"])
    assert 0.7 < bound < 1.0 + 3 * error


def test_three_bits_are_found_together_and_not_in_pairs():
    together, pairs = (
        run_xor(method, seed=0, bits=3, batch_size=128, steps=200, every=200)[-1]
        for method in ("total_correlation", "pairs")
    )
    assert float(together["accuracy"]) > 0.95
    chance = 1 / 8
    error = math.sqrt(chance * (1 - chance) / 64)
    assert abs(float(pairs["accuracy"]) - chance) < 3 * error


def test_chunks_equal_the_plain_form():
    x = inputs(700, seed=0)
    for ours, plain in zip(
        loss_and_gradients("chunked", *x), loss_and_gradients("plain", *x), strict=True
    ):
        assert (ours - plain).norm() < 1e-5 * plain.norm()


def test_memory_grows_with_the_chunk_and_not_with_the_square():
    # Logits of 12,000 rows are 549 MiB for each of three anchors; a chunk of them 23 MiB, and what
    # the allocator keeps of chunks differs from run to run: 104 to 240 MiB in all were seen.
    row = in_fresh_process(
        "total_correlation_cost", "run_memory", form="chunked", num_rows=12_000, seed=0
    )
    assert 20 < float(row["added_mib"]) < 500
