from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gtc_pyg.nn import NoiseSchedule

KINDS = ["linear", "cosine"]


def data(num_rows: int = 6, dtype: torch.dtype = torch.double) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, num_rows, 4, generator=generator, dtype=dtype)
    return x, noise


@pytest.mark.parametrize("kind", KINDS)
def test_noise_levels_fall_from_one_and_stay_positive(kind: str) -> None:
    alpha_bar = NoiseSchedule(kind=kind).alpha_bar
    assert alpha_bar.shape == (601,)
    assert alpha_bar[0] == 1
    assert (alpha_bar.diff() < 0).all()
    assert (alpha_bar > 0).all()


def test_linear_levels_equal_a_loop() -> None:
    alpha_bar, expected = NoiseSchedule(10, "linear", 0.1, 0.5).alpha_bar, 1.0
    for t in range(10):
        expected *= 1 - (0.1 + 0.4 * t / 9)
        assert alpha_bar[t + 1].item() == pytest.approx(expected)


def test_the_published_schedule_does_not_end_in_pure_noise() -> None:
    assert NoiseSchedule().alpha_bar[-1].item() == pytest.approx(0.05, abs=0.005)


def test_the_cosine_schedule_ends_near_pure_noise() -> None:
    assert NoiseSchedule(kind="cosine").alpha_bar[-1] < 1e-4


def test_cosine_levels_equal_a_loop() -> None:
    alpha_bar, expected = NoiseSchedule(10, "cosine").alpha_bar, 1.0

    def level(t: int) -> float:
        return math.cos((t / 10 + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in range(10):
        expected *= 1 - min(1 - level(t + 1) / level(t), 0.999)
        assert alpha_bar[t + 1].item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_steps", [1, 7, 600])
def test_predict_start_undoes_add_noise_at_every_time(kind: str, num_steps: int) -> None:
    schedule = NoiseSchedule(num_steps, kind)
    x, noise = data()
    for t in range(num_steps + 1):
        x_t = schedule.add_noise(x, t, noise)
        out = schedule.predict_start(x_t, t, noise)
        torch.testing.assert_close(out, x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_loses_no_more_than_the_signal_level_allows(kind: str) -> None:
    schedule = NoiseSchedule(kind=kind)
    x, noise = data(601, torch.float)
    t = torch.arange(601)
    error = schedule.predict_start(schedule.add_noise(x, t, noise), t, noise) - x
    signal = schedule.levels(t, x)[0]
    assert (error.abs() * signal).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("t", "t_next"), [(600, 599), (600, 0), (100, 37), (5, 5), (3, 400), (0, 9)]
)
def test_a_step_with_the_true_noise_walks_the_path(kind: str, t: int, t_next: int) -> None:
    schedule = NoiseSchedule(kind=kind)
    x, noise = data()
    out = schedule.step(schedule.add_noise(x, t, noise), t, t_next, noise)
    torch.testing.assert_close(out, schedule.add_noise(x, t_next, noise), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_steps", [1, 7, 600])
def test_all_steps_with_the_true_noise_walk_back_to_the_start(kind: str, num_steps: int) -> None:
    schedule = NoiseSchedule(num_steps, kind)
    x, noise = data()
    x_t = schedule.add_noise(x, num_steps, noise)
    for t in range(num_steps, 0, -1):
        x_t = schedule.step(x_t, t, t - 1, noise)
    torch.testing.assert_close(x_t, x, rtol=0, atol=1e-5)


def test_a_time_per_row_equals_one_row_at_a_time() -> None:
    schedule = NoiseSchedule()
    x, noise = data()
    t = torch.tensor([0, 1, 20, 300, 599, 600])
    out = schedule.add_noise(x, t, noise)
    for row in range(6):
        expected = schedule.add_noise(x[row], int(t[row]), noise[row])
        torch.testing.assert_close(out[row], expected)


def test_levels_keep_the_variance() -> None:
    signal, sigma = NoiseSchedule().levels(
        torch.arange(601), torch.zeros(601, 2, 2, dtype=torch.double)
    )
    assert signal.shape == (601, 1, 1)
    torch.testing.assert_close(signal**2 + sigma**2, torch.ones_like(signal))


def test_the_levels_are_a_buffer_that_moves_and_is_saved() -> None:
    schedule = NoiseSchedule(8)
    assert not list(schedule.parameters())
    assert list(schedule.state_dict()) == ["alpha_bar"]
    schedule = torch.nn.Sequential(schedule).to("meta")[0]
    assert schedule.alpha_bar.device.type == "meta"
    schedule.to_empty(device="cpu").reset_parameters()
    assert torch.equal(schedule.alpha_bar, NoiseSchedule(8).alpha_bar)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.float, torch.double])
def test_a_cast_leaves_the_levels_exact(kind: str, dtype: torch.dtype) -> None:
    model = torch.nn.Sequential(NoiseSchedule(kind=kind), torch.nn.Linear(1, 1)).to(dtype)
    assert model[1].weight.dtype == dtype
    assert model[0].alpha_bar.dtype == torch.double
    assert torch.equal(model[0].alpha_bar, NoiseSchedule(kind=kind).alpha_bar)
    signal, sigma = model[0].levels(1, torch.zeros(1, dtype=dtype))
    assert signal.dtype == sigma.dtype == dtype
    exact = (1 - model[0].alpha_bar[1]).sqrt()
    assert abs(sigma.double() / exact - 1) <= torch.finfo(dtype).eps


def test_levels_of_a_checkpoint_in_floats_can_be_loaded() -> None:
    schedule = NoiseSchedule(8)
    schedule.load_state_dict({"alpha_bar": NoiseSchedule(8).alpha_bar.float()})
    assert schedule.alpha_bar.dtype == torch.double
    torch.testing.assert_close(schedule.alpha_bar, NoiseSchedule(8).alpha_bar, rtol=0, atol=1e-7)


def test_times_are_drawn_evenly_from_one_to_the_end() -> None:
    t = NoiseSchedule(4).sample_times(8000, torch.Generator().manual_seed(0))
    share = torch.bincount(t, minlength=5) / 8000
    assert share[0] == 0
    torch.testing.assert_close(share[1:], torch.full((4,), 0.25), rtol=0, atol=0.02)


def test_noise_is_standard_normal_in_the_shape_and_type_of_x() -> None:
    x = torch.zeros(200, 50, dtype=torch.double)
    noise = NoiseSchedule(4).sample_noise(x, torch.Generator().manual_seed(0))
    assert (noise.shape, noise.dtype) == (x.shape, x.dtype)
    assert abs(noise.mean()) < 0.04
    assert abs(noise.var() - 1) < 0.06


@pytest.mark.parametrize("draw", ["times", "noise"])
def test_a_generator_makes_draws_its_own(draw: str) -> None:
    schedule, x = NoiseSchedule(), torch.zeros(20, 3)

    def sample(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        if draw == "times":
            return schedule.sample_times(20, generator)
        return schedule.sample_noise(x, generator)

    torch.manual_seed(0)
    first = sample(1)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(first, sample(1))
    assert not torch.equal(first, sample(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_calls_change_nothing(unchanged: Callable) -> None:
    schedule, (x, noise), t = NoiseSchedule(), data(), torch.arange(6)
    with unchanged(schedule, x, noise, t):
        schedule.step(schedule.add_noise(x, t, noise), t, t + 1, noise)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"'num_steps' must be at least 1 \(got 0\)"):
        NoiseSchedule(0)
    with pytest.raises(ValueError, match=r"'kind' must be 'linear' or 'cosine' \(got 'sigmoid'\)"):
        NoiseSchedule(kind="sigmoid")
    for beta in [(0.0, 0.1), (0.2, 0.1), (0.1, 1.0)]:
        with pytest.raises(ValueError, match="'beta_start' and 'beta_end' must rise"):
            NoiseSchedule(10, "linear", *beta)
    with pytest.raises(
        ValueError, match=r"'num_steps' and 'beta_end' leave no signal.*got 600, 0.9"
    ):
        NoiseSchedule(600, "linear", 0.1, 0.9)


@pytest.mark.parametrize("bad", [-1, 601])
@pytest.mark.parametrize("form", ["int", "scalar", "rows"])
def test_a_time_outside_the_schedule_is_named(bad: int, form: str) -> None:
    schedule, (x, noise) = NoiseSchedule(), data()
    t = {"int": bad, "scalar": torch.tensor(bad), "rows": torch.tensor([0, 1, bad, 2, 3, 600])}[
        form
    ]
    expected = rf"'t' must lie in \[0, 600\] \(got {bad}\)"
    calls = (schedule.add_noise, schedule.predict_start, lambda x, t, n: schedule.step(x, 1, t, n))
    for call in calls:
        with pytest.raises(ValueError, match=expected):
            call(x, t, noise)


def test_times_that_do_not_fit_are_named() -> None:
    schedule, (x, noise) = NoiseSchedule(), data()
    with pytest.raises(ValueError, match=r"'t' must be one time or 6 \(got 3\)"):
        schedule.add_noise(x, torch.tensor([1, 2, 3]), noise)
    for t in (torch.rand(6), torch.ones(6, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"'t' must hold whole numbers \(got torch\."):
            schedule.add_noise(x, t, noise)


def test_what_it_prints_is_what_it_was_given() -> None:
    assert repr(NoiseSchedule(8, "cosine")) == "NoiseSchedule(num_steps=8, kind='cosine')"
    assert (
        repr(NoiseSchedule(8, beta_end=0.1))
        == "NoiseSchedule(num_steps=8, kind='linear', beta_start=0.0001, beta_end=0.1)"
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.long])
def test_whole_numbers_are_no_content(dtype: torch.dtype) -> None:
    x = torch.full((3, 2), 200, dtype=dtype)
    with pytest.raises(ValueError, match=r"'x' must be floating point .*x.float\(\)"):
        NoiseSchedule().add_noise(x, 5, torch.zeros(3, 2))


@pytest.mark.parametrize("t", [1, 300, 600])
def test_content_and_noise_come_back_from_the_velocity(t: int) -> None:
    schedule = NoiseSchedule(kind="cosine")
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 4, 3, dtype=torch.double, generator=generator)
    x_t, velocity = schedule.add_noise(x, t, noise), schedule.velocity(x, t, noise)
    signal, sigma = schedule.levels(t, x)
    torch.testing.assert_close(signal * x_t - sigma * velocity, x)
    torch.testing.assert_close(sigma * x_t + signal * velocity, noise)


@pytest.mark.parametrize("noise", [torch.ones(1, 16), torch.ones(4, 1), 0.5, torch.ones(1, 4, 16)])
def test_noise_of_another_shape_is_named(noise: Any) -> None:
    schedule, x = NoiseSchedule(), torch.ones(4, 16)
    for method in (schedule.add_noise, schedule.predict_start, schedule.velocity):
        with pytest.raises(ValueError, match=r"'noise' must be \[4, 16\], as what it is in \(got "):
            method(x, 3, noise)
