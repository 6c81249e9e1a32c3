r"""The steps back to clean content, against loops straight from the equation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gtc_pyg.nn import ConditionalDenoiser, DDIMSampler, NoiseSchedule

N, D, C, H, T = 5, 6, 3, 7, 50


class Oracle(torch.nn.Module):
    r"""Predicts what belongs to one known content, exactly."""

    def __init__(self, x: Tensor, schedule: NoiseSchedule, prediction: str) -> None:
        super().__init__()
        self.x, self.schedule, self.prediction = x, schedule, prediction

    def hidden(self, x_t: Tensor, t: int, cond: Tensor) -> Tensor:
        signal, sigma = self.schedule.levels(t, x_t)
        noise = (x_t - signal * self.x) / sigma
        return noise if self.prediction == "noise" else signal * noise - sigma * self.x

    def noise(self, h: Tensor, gate: Tensor | None = None) -> Tensor:
        return h


def made(seed: int = 0, **kwargs: Any) -> tuple[Any, ...]:
    """Sampler, denoiser, noisy content, conditions and gates, in double precision."""
    torch.manual_seed(seed)
    kwargs = {"start_step": 40, "num_sampling_steps": 4, **kwargs}
    sampler = DDIMSampler(NoiseSchedule(T, "cosine"), **kwargs)
    denoiser = ConditionalDenoiser(D, C, H).double()
    gate = 2 * torch.rand(N, H, dtype=torch.double)
    return sampler, denoiser, *(torch.randn(N, w, dtype=torch.double) for w in (D, C)), gate


def loop(
    sampler: DDIMSampler,
    denoiser: ConditionalDenoiser,
    x_t: Tensor,
    cond: Tensor,
    gate: Tensor | None,
) -> Tensor:
    """Row by row and step by step."""
    out, alpha_bar = [], sampler.schedule.alpha_bar
    weight, bias = denoiser.lin_out.weight, denoiser.lin_out.bias
    for n in range(N):
        x = x_t[n]
        for k in range(sampler.num_sampling_steps):
            t, t_next = sampler.times[k], sampler.times[k + 1]
            h = denoiser.hidden(x.view(1, -1), t, cond[n : n + 1])[0]
            predicted = weight @ (h if gate is None else gate[n] * h) + bias
            signal, sigma = alpha_bar[t].sqrt(), (1 - alpha_bar[t]).sqrt()
            if sampler.prediction == "noise":
                clean = (x - sigma * predicted) / signal
            else:
                clean = signal * x - sigma * predicted
            if sampler.clip and clean.norm() > D**0.5:
                clean = clean * D**0.5 / clean.norm()
            noise = (x - signal * clean) / sigma
            x = alpha_bar[t_next].sqrt() * clean + (1 - alpha_bar[t_next]).sqrt() * noise
        out.append(x)
    return torch.stack(out)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("prediction", ["noise", "velocity"])
@pytest.mark.parametrize("gated", [False, True])
def test_all_steps_equal_a_loop(prediction: str, clip: bool, gated: bool) -> None:
    sampler, denoiser, x_t, cond, gate = made(prediction=prediction, clip=clip)
    given_gate = gate if gated else None
    out = sampler(denoiser, 3 * x_t, cond, given_gate)
    expected = loop(sampler, denoiser, 3 * x_t, cond, given_gate)
    torch.testing.assert_close(out, expected)
    if clip:  # it was needed
        plain = made(prediction=prediction)[0]
        assert not torch.allclose(plain(denoiser, 3 * x_t, cond, given_gate), out)


@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(1, T),
    data=st.data(),
    seed=st.integers(0, 100),
    scale=st.sampled_from([0.0, -3.0, 1e3]),
)
def test_the_affine_last_step_is_the_plain_one_for_any_gate(start, data, seed, scale) -> None:
    steps = data.draw(st.integers(1, start))
    sampler, denoiser, x_t, cond, gate = made(seed, start_step=start, num_sampling_steps=steps)
    before = sampler.before_last(denoiser, x_t, cond, gate)
    step = sampler.last(denoiser, before, cond)
    for other in (gate, torch.ones_like(gate), scale * gate):
        out = step.base + (other * step.h) @ step.to_content.t()
        noise = denoiser.noise(denoiser.hidden(before, sampler.times[-2], cond), other)
        expected = sampler.schedule.step(before, sampler.times[-2], 0, noise)
        torch.testing.assert_close(out, expected, rtol=1e-8, atol=1e-8)
    whole = step.base + (gate * step.h) @ step.to_content.t()
    torch.testing.assert_close(whole, sampler(denoiser, x_t, cond, gate))


@settings(max_examples=40, deadline=None)
@given(start=st.integers(1, T), data=st.data(), prediction=st.sampled_from(["noise", "velocity"]))
def test_an_exact_prediction_comes_back_to_the_content(start, data, prediction) -> None:
    steps = data.draw(st.integers(1, start))
    schedule = NoiseSchedule(T)
    sampler = DDIMSampler(schedule, start, steps, prediction)
    x = torch.randn(N, D, dtype=torch.double)
    x_t = schedule.add_noise(x, start, torch.randn_like(x))
    out = sampler(Oracle(x, schedule, prediction), x_t, torch.zeros(N, 1))
    torch.testing.assert_close(out, x)


def test_times_are_evenly_spaced_down_to_zero() -> None:
    schedule = NoiseSchedule(100)
    assert DDIMSampler(schedule, 90, 4).times == [90, 68, 45, 22, 0]
    assert DDIMSampler(schedule, 100).times == [100, 0]
    assert DDIMSampler(schedule, 3, 3).times == [3, 2, 1, 0]


def test_without_steps_nothing_happens() -> None:
    sampler, denoiser, x_t, cond, _ = made(num_sampling_steps=0)
    assert sampler.times == [40]
    assert torch.equal(sampler(denoiser, x_t, cond), x_t)


def test_it_starts_at_the_signal_without_a_draw() -> None:
    sampler, _, x, _, _ = made()
    state = torch.get_rng_state()
    start = sampler.start(x)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(start, sampler.schedule.alpha_bar[40].sqrt() * x)


def test_it_has_no_weights_and_passes_gradients() -> None:
    sampler, denoiser, x_t, cond, gate = made()
    assert not list(sampler.parameters())
    inputs = [x.requires_grad_() for x in (x_t, cond, gate)]
    assert torch.autograd.gradcheck(lambda *x: sampler(denoiser, *x), inputs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_sampling_steps": -1}, r"0 <= 'num_sampling_steps' .* \(got -1, 40, 50\)"),
        ({"num_sampling_steps": 41}, r"\(got 41, 40, 50\)"),
        ({"start_step": 51}, r"\(got 4, 51, 50\)"),
        ({"start_step": 0, "num_sampling_steps": 0}, r"at least 1 \(got 0, 0, 50\)"),
        ({"prediction": "content"}, r"'prediction' must be one of .* \(got 'content'\)"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(**kwargs)


@pytest.mark.parametrize("kwargs", [{"prediction": "velocity"}, {"clip": True}])
def test_a_last_step_that_is_not_affine_is_refused(kwargs: dict) -> None:
    sampler, denoiser, x_t, cond, _ = made(**kwargs)
    with pytest.raises(ValueError, match="an affine step needs prediction='noise' and clip=False"):
        sampler.last(denoiser, x_t, cond)


def test_an_affine_step_without_steps_is_refused() -> None:
    sampler, denoiser, x_t, cond, _ = made(num_sampling_steps=0)
    with pytest.raises(ValueError, match="num_sampling_steps"):
        sampler.last(denoiser, x_t, cond)
