from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.nn import ConditionalDenoiser, ModalityEncoder, NoiseSchedule

MASK = torch.tensor([True, False, True, True, False])


def content(seed: int = 0) -> Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("in_channels", [3, 50])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_rows_have_mean_zero_and_variance_one(in_channels: int, scale: float) -> None:
    torch.manual_seed(0)
    out = ModalityEncoder(in_channels, 8)(scale * torch.randn(6, in_channels))
    torch.testing.assert_close(out.mean(dim=1), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.var(dim=1, correction=0), torch.ones(6), rtol=0, atol=0.05)


def test_output_equals_the_normalised_linear_map_row_by_row() -> None:
    torch.manual_seed(0)
    encoder, x = ModalityEncoder(3, 4), content()
    for row, out in zip(x, encoder(x), strict=True):
        y = encoder.lin.weight @ row + encoder.lin.bias
        torch.testing.assert_close(out, (y - y.mean()) / (y.var(correction=0) + 1e-5).sqrt())


def test_absent_rows_share_one_learned_vector_whatever_they_hold() -> None:
    encoder = ModalityEncoder(3, 8, missing=True)
    out, other = encoder(content(0), MASK), encoder(content(1), MASK)
    torch.testing.assert_close(out[~MASK], out[1].expand(2, 8))
    assert torch.equal(out[~MASK], other[~MASK])


def test_a_mask_leaves_present_rows_as_they_are() -> None:
    encoder = ModalityEncoder(3, 8, missing=True)
    assert torch.equal(encoder(content(), MASK)[MASK], encoder(content())[MASK])


def test_every_parameter_receives_a_gradient() -> None:
    encoder = ModalityEncoder(3, 8, missing=True)
    encoder(content(), MASK).pow(3).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_gradients() -> None:
    encoder = ModalityEncoder(3, 4, missing=True).double()
    x = content().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: encoder(x, MASK), x)


def test_forward_changes_nothing(unchanged: Callable) -> None:
    encoder, x, mask = ModalityEncoder(3, 8, missing=True), content(), MASK.clone()
    with unchanged(encoder, x, mask):
        encoder(x, mask)


def test_absent_rows_need_a_learned_vector() -> None:
    encoder = ModalityEncoder(3, 8)
    encoder(content(), torch.ones(5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"'mask' marks absent rows.*missing=True"):
        encoder(content(), MASK)


@pytest.mark.parametrize("shape", [(5, 4), (3,), (2, 5, 3)])
def test_the_wrong_width_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"'x' must be \[N, 3\] \(got \["):
        ModalityEncoder(3, 8)(torch.zeros(shape))


def test_reset_draws_all_weights_from_the_seed() -> None:
    encoder = ModalityEncoder(3, 8, missing=True)
    draws = []
    for start in (0.0, 1.0):
        for parameter in encoder.parameters():
            torch.nn.init.constant_(parameter, start)
        torch.manual_seed(0)
        encoder.reset_parameters()
        draws.append(torch.cat([p.detach().flatten() for p in encoder.parameters()]))
    assert torch.equal(*draws)


# fill


CHANNELS = 6
EDGE_INDEX = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 3, 4]])


class Oracle(ConditionalDenoiser):
    """Knows the content, which is its condition, and so predicts without error."""

    def __init__(self, channels: int, schedule: NoiseSchedule, prediction: str) -> None:
        super().__init__(channels, channels, condition="item")
        self.levels, self.prediction = schedule.levels, prediction

    def hidden(self, x_t: Tensor, t: Tensor | int, cond: Tensor) -> Tensor:
        signal, sigma = self.levels(t, x_t)
        noise = (x_t - signal * cond) / sigma
        return noise if self.prediction == "noise" else signal * noise - sigma * cond

    def noise(self, h: Tensor, gate: Tensor | None = None) -> Tensor:
        return h


def parts(
    condition: str = "neighbors",
) -> tuple[ModalityEncoder, ConditionalDenoiser, NoiseSchedule, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    denoiser = ConditionalDenoiser(CHANNELS, 4, hidden_channels=5, condition=condition)
    emb = torch.randn(3, 4), torch.randn(5, 4)
    return ModalityEncoder(3, CHANNELS), denoiser, NoiseSchedule(50, "cosine"), emb


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
@pytest.mark.parametrize("condition", ["item", "neighbors", "user"])
def test_fill_equals_a_loop_from_the_equation(prediction: str, condition: str) -> None:
    encoder, denoiser, schedule, emb = parts(condition)
    out = encoder.fill(
        content(), MASK, denoiser, schedule, emb, EDGE_INDEX,
        num_steps=7, num_samples=2, prediction=prediction, generator=seeded(),
    )  # fmt: skip
    cond, gate, _ = denoiser.encode_condition(emb, EDGE_INDEX)
    draws = [torch.randn(2, CHANNELS, generator=g) for g in [seeded()] for _ in range(2)]
    times = [50, 43, 36, 29, 21, 14, 7, 0]
    for place, row in enumerate([1, 4]):
        total = torch.zeros(CHANNELS)
        for draw in draws:
            x_t = draw[place]
            for t, t_next in pairwise(times):
                a, b = schedule.alpha_bar[t], schedule.alpha_bar[t_next]
                h = denoiser.hidden(x_t[None], t, cond[row : row + 1])
                predicted = denoiser.noise(h, None if gate is None else gate[row : row + 1])[0]
                if prediction == "noise":
                    x = (x_t - (1 - a).sqrt() * predicted) / a.sqrt()
                else:
                    x = a.sqrt() * x_t - (1 - a).sqrt() * predicted
                if x.norm() > CHANNELS**0.5:
                    x = x * CHANNELS**0.5 / x.norm()
                noise = (x_t - a.sqrt() * x) / (1 - a).sqrt()
                x_t = b.sqrt() * x + (1 - b).sqrt() * noise
            total += x_t
        mean = total / 2
        expected = (mean - mean.mean()) / (mean.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(out[row], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_a_denoiser_that_knows_the_content_gives_it_back(prediction: str) -> None:
    encoder, _, schedule, _ = parts()
    truth = encoder(content()).detach()
    out = encoder.fill(
        torch.where(MASK.view(-1, 1), content(), 7.0), MASK, Oracle(CHANNELS, schedule, prediction),
        schedule, (torch.zeros(3, CHANNELS), truth), EDGE_INDEX,
        prediction=prediction, generator=seeded(),
    )  # fmt: skip
    torch.testing.assert_close(out, truth, rtol=1e-3, atol=1e-3)


def test_present_rows_are_encoded_and_absent_ones_not_looked_at() -> None:
    encoder, denoiser, schedule, emb = parts()
    x = torch.where(MASK.view(-1, 1), content(), float("nan"))
    out = encoder.fill(x, MASK, denoiser, schedule, emb, EDGE_INDEX, generator=seeded())
    other = encoder.fill(content(), MASK, denoiser, schedule, emb, EDGE_INDEX, generator=seeded())
    assert torch.equal(out, other)
    torch.testing.assert_close(out[MASK], encoder(content())[MASK])
    torch.testing.assert_close(out.mean(dim=1), torch.zeros(5), rtol=0, atol=1e-5)
    assert not out.requires_grad


def test_with_nothing_absent_fill_encodes() -> None:
    encoder, denoiser, schedule, emb = parts()
    everything = torch.ones(5, dtype=torch.bool)
    out = encoder.fill(content(), everything, denoiser, schedule, emb, EDGE_INDEX)
    assert torch.equal(out, encoder(content()))


def test_an_absent_row_depends_on_its_own_item_and_users() -> None:
    encoder, denoiser, schedule, emb = parts()

    def fill(users: Tensor, items: Tensor) -> Tensor:
        emb = users, items
        return encoder.fill(
            content(), MASK, denoiser, schedule, emb, EDGE_INDEX, generator=seeded()
        )

    base = fill(*emb)
    users, items = emb[0].clone(), emb[1].clone()
    users[2] += 1  # a user of item 4 and not of item 1
    moved = (fill(users, emb[1]) - base).abs().amax(dim=1) > 1e-6
    assert moved.tolist() == [False, False, False, False, True]
    items[1] += 1
    moved = (fill(emb[0], items) - base).abs().amax(dim=1) > 1e-6
    assert moved.tolist() == [False, True, False, False, False]


def test_the_generator_decides_the_draw() -> None:
    encoder, denoiser, schedule, emb = parts()
    args = content(), MASK, denoiser, schedule, emb, EDGE_INDEX
    state = torch.get_rng_state()
    one, same, other = (encoder.fill(*args, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one, same)
    assert not torch.allclose(one[~MASK], other[~MASK], atol=1e-3)


def test_many_samples_come_near_the_conditional_mean() -> None:
    """Content N(a c, (1 - a^2) I): the cosine with c is a for a draw, and near 1 for the mean."""

    class Exact(Oracle):
        def hidden(self, x_t: Tensor, t: Tensor | int, cond: Tensor) -> Tensor:
            signal, sigma = self.levels(t, x_t)
            spread = 1 - 0.6**2
            gain = signal * spread / (signal**2 * spread + sigma**2)
            start = 0.6 * cond + gain * (x_t - signal * 0.6 * cond)
            return super().hidden(x_t, t, start)

    schedule = NoiseSchedule(200, "cosine")
    c = F.layer_norm(torch.randn(300, 64, generator=seeded()), (64,))
    absent = torch.zeros(300, dtype=torch.bool)
    cosine = {}
    for num_samples in (1, 32):
        out = ModalityEncoder(2, 64).fill(
            torch.zeros(300, 2), absent, Exact(64, schedule, "velocity"), schedule,
            (torch.zeros(1, 64), c), torch.zeros(2, 0, dtype=torch.long), num_steps=50,
            num_samples=num_samples, prediction="velocity", generator=seeded(2),
        )  # fmt: skip
        cosine[num_samples] = float(F.cosine_similarity(out, c).mean())
    assert cosine[1] == pytest.approx(0.6, abs=0.03)
    assert cosine[32] > 0.95


def test_fill_changes_nothing(unchanged: Callable) -> None:
    encoder, denoiser, schedule, emb = parts()
    x, mask = content(), MASK.clone()
    with unchanged(encoder, denoiser, schedule, x, mask, *emb):
        encoder.fill(x, mask, denoiser, schedule, emb, EDGE_INDEX)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": torch.ones(5)}, r"'mask' must be bool \[5\] \(got torch.float32 \[5\]\)"),
        ({"mask": MASK[:4]}, r"'mask' must be bool \[5\] \(got torch.bool \[4\]\)"),
        ({"prediction": "x"}, r"'prediction' must be one of .* \(got 'x'\)"),
        ({"num_steps": 0}, r"'num_steps' must lie in \[1, 50\] \(got 0\)"),
        ({"num_steps": 51}, r"'num_steps' must lie in \[1, 50\] \(got 51\)"),
        ({"num_samples": 0}, r"'num_samples' must be at least 1 \(got 0\)"),
        ({"denoiser": ConditionalDenoiser(5, 4)}, r"'denoiser' must have 6 channels \(got 5\)"),
        ({"emb": (torch.ones(3, 4), torch.ones(4, 4))}, r"'emb' must have 5 items \(got 4\)"),
    ],
)
def test_what_does_not_fit_is_named(change: dict, message: str) -> None:
    encoder, denoiser, schedule, emb = parts()
    kwargs = {"mask": MASK, "denoiser": denoiser, "schedule": schedule, "emb": emb}
    with pytest.raises(ValueError, match=message):
        encoder.fill(content(), edge_index=EDGE_INDEX, **(kwargs | change))


@pytest.mark.parametrize("length", [1e19, 1e25, 1e36])
def test_content_whose_squares_are_out_of_range_is_refused(length: float) -> None:
    encoder = ModalityEncoder(8, 4)
    with pytest.raises(ValueError, match=r"'x' must hold values of ordinary size"):
        encoder(length * torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("mask", [torch.ones(3, dtype=torch.bool), torch.ones(5)])
def test_a_mask_that_does_not_fit_is_named(mask: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"'mask' must be bool \[5\] \(got "):
        ModalityEncoder(8, 4, missing=True)(torch.randn(5, 8), mask)


@pytest.mark.parametrize("sizes", [(0, 4), (4, 0)])
def test_widths_of_zero_are_named(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"'(in|out)_channels' must be at least [12] \(got 0\)"):
        ModalityEncoder(*sizes)


def test_the_range_is_checked_beside_rows_that_are_no_numbers() -> None:
    encoder, x = ModalityEncoder(8, 4), torch.randn(5, 8)
    x[1] = torch.nan
    assert encoder(x)[[0, 2, 3, 4]].isfinite().all()
    x[0] = 1e25
    with pytest.raises(ValueError, match=r"'x' must hold values of ordinary size"):
        encoder(x)
    assert encoder.double()(x.double())[0].isfinite().all()


def test_another_type_of_content_is_named() -> None:
    encoder = ModalityEncoder(8, 4)
    with pytest.raises(ValueError, match=r"weights' type, torch.float32 \(got torch.float64\)"):
        encoder(torch.ones(5, 8).double())
    with pytest.raises(ValueError, match=r"'x' must be a tensor \(got list\)"):
        encoder([[1.0] * 8])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'in_channels' must be a number \(got \[8\]\)"):
        ModalityEncoder([8], 4)  # type: ignore[arg-type]
