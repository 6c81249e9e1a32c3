import pytest
import torch

from gtc_pyg.nn import NoiseSchedule
from noise_mixture import DOCS, MEASURES, MIXTURE, draw, errors, sample, table, train

PAGE = DOCS / "layers.md"


def rows() -> list[dict[str, str]]:
    return MIXTURE.rows()


def test_committed_samples_are_within_five_percent_of_truth():
    assert {row["seed"] for row in rows()} == set("01234")
    assert {row["measure"] for row in rows()} == MEASURES.keys()
    limited = ("mean", "covariance", "mode_share")
    assert all(float(row["error"]) <= 0.05 for row in rows() if row["measure"] in limited)
    assert all(all(row.values()) for row in rows())


def test_the_page_shows_the_committed_rows():
    assert table(rows()) in PAGE.read_text()


def test_points_of_the_mixture_itself_have_no_error():
    found = errors(draw(50_000, torch.Generator().manual_seed(0)))
    assert found.keys() == MEASURES.keys()
    assert max(found.values()) < 0.02


@pytest.mark.parametrize("measure", ["mean", "covariance", "mode_share"])
def test_points_of_another_mixture_have(measure):
    x = draw(50_000, torch.Generator().manual_seed(0))
    assert errors(torch.cat([x, x[x[:, 1] > 1]]))[measure] > 0.05


def test_a_short_training_already_finds_the_modes():
    schedule = NoiseSchedule(kind="cosine")
    network = train(schedule, steps=500, batch=256, width=64, seed=0)
    found = errors(sample(schedule, network, 5000, 50, torch.Generator().manual_seed(1)))
    assert found["mean"] < 0.1
    assert found["covariance"] < 0.15
    assert found["mode_share"] < 0.2
