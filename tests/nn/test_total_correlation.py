from __future__ import annotations

import copy
import io
import itertools
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module, ModuleList
from torch.nn.parallel import DistributedDataParallel

from gtc_pyg.functional import draw_permutations, total_correlation
from gtc_pyg.nn import PairwiseInfoNCE, TotalCorrelationLoss
from tests.two_processes import in_two_processes


def views(num_tensors: int, num_rows: int = 8, channels: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (num_tensors, num_rows, channels)
    return list(2 * torch.randn(shape, generator=generator, dtype=torch.double))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize("negatives", ["n", "n_squared"])
@pytest.mark.parametrize(("product_scale", "power"), [("none", 0.0), ("sqrt_dim", 0.5)])
@pytest.mark.parametrize("num_tensors", [2, 3, 4, 5])
def test_is_the_function_on_unit_rows_at_the_stated_scale(
    num_tensors: int, product_scale: str, power: float, negatives: str
) -> None:
    loss = TotalCorrelationLoss(negatives, product_scale=product_scale).double()
    scale = torch.tensor(4.0 ** (power * (num_tensors - 2)) / 0.07, dtype=torch.double)
    tensors = views(num_tensors)
    unit = [x / x.norm(dim=1, keepdim=True) for x in tensors]
    expected = total_correlation(unit, scale, negatives, generator=seeded())
    out = loss(tensors, generator=seeded())
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("negatives", ["n", "n_squared"])
@pytest.mark.parametrize(("num_tensors", "num_rows"), [(2, 7), (3, 7), (4, 5), (5, 4)])
def test_equals_a_loop_over_the_rows_that_have_all_tensors(
    num_tensors: int, num_rows: int, negatives: str
) -> None:
    loss, tensors = TotalCorrelationLoss(negatives).double(), views(num_tensors, num_rows)
    masks = [torch.arange(num_rows) != 1, *[None] * (num_tensors - 2), torch.arange(num_rows) > 0]
    present = [i for i in range(num_rows) if i > 1]
    rows = [[x[i] / x[i].norm() for i in present] for x in tensors]
    n = len(present)
    scale = 4 ** ((num_tensors - 2) / 2) * math.exp(loss.logit_scale.item())
    generator, costs = seeded(), []
    for a in range(num_tensors):
        others = [rows[b] for b in range(num_tensors) if b != a]
        perms = [torch.randperm(n, generator=generator).tolist() for _ in others]
        members = [[p[k] for p in perms] for k in range(n)]
        for i in range(n):
            if negatives == "n_squared":
                combinations = [list(c) for c in itertools.product(range(n), repeat=len(others))]
            else:
                combinations = members[:i] + members[i + 1 :]
            positive = [i] * len(others)
            logits = []
            for combination in [positive, *(c for c in combinations if c != positive)]:
                product = rows[a][i]
                for other, member in zip(others, combination, strict=True):
                    product = product * other[member]
                logits.append(scale * product.sum())
            costs.append(torch.stack(logits).logsumexp(0) - logits[0])
    expected = torch.stack(costs).mean()
    torch.testing.assert_close(loss(tensors, masks, seeded()), expected)


def test_two_tensors_and_all_candidates_are_symmetric_infonce() -> None:
    loss, (a, b) = TotalCorrelationLoss("n_squared").double(), views(2)
    logits = loss.logit_scale.exp() * F.normalize(a, dim=1) @ F.normalize(b, dim=1).t()
    rows = torch.arange(8)
    expected = (F.cross_entropy(logits, rows) + F.cross_entropy(logits.t(), rows)) / 2
    torch.testing.assert_close(loss([a, b]), expected)


def test_only_the_published_scale_is_nearly_flat() -> None:
    # Of independent rows; a constant logit costs log(64) exactly.
    tensors, excess = views(3, 64, 64), {}
    for product_scale in ("none", "sqrt_dim"):
        loss = TotalCorrelationLoss(product_scale=product_scale).double()
        excess[product_scale] = loss(tensors, generator=seeded()).item() - math.log(64)
    assert abs(excess["none"]) < 0.1
    assert excess["sqrt_dim"] > 0.5


def test_lengths_of_rows_do_not_matter() -> None:
    loss, tensors = TotalCorrelationLoss().double(), views(3)
    longer = [x * torch.rand(8, 1, generator=seeded()).add(0.1) for x in tensors]
    out, expected = (loss(x, generator=seeded()) for x in (longer, tensors))
    torch.testing.assert_close(out, expected)


def test_masks_give_the_loss_of_the_complete_rows() -> None:
    loss, tensors = TotalCorrelationLoss().double(), views(3)
    masks = [None, torch.arange(8) != 2, torch.arange(8) < 6]
    rows = torch.tensor([0, 1, 3, 4, 5])
    expected = loss([x[rows] for x in tensors], generator=seeded())
    torch.testing.assert_close(loss(tensors, masks, seeded()), expected)


def test_incomplete_rows_receive_no_gradient() -> None:
    tensors = [x.requires_grad_() for x in views(3)]
    mask = torch.arange(8) != 2
    TotalCorrelationLoss().double()(tensors, [None, mask, None]).backward()
    for x in tensors:
        assert (x.grad[2] == 0).all()
        assert x.grad[mask].abs().sum() > 0


def test_without_a_complete_row_the_loss_is_zero() -> None:
    masks = [torch.arange(8) < 4, torch.arange(8) >= 4]
    assert TotalCorrelationLoss().double()(views(2), masks).item() == 0


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_chunks_change_neither_loss_nor_gradients(chunk_size: int) -> None:
    out = []
    for size in (chunk_size, 8):
        loss = TotalCorrelationLoss(chunk_size=size).double()
        tensors = [x.requires_grad_() for x in views(3)]
        value = loss(tensors, generator=seeded())
        out.append([value, *torch.autograd.grad(value, [*tensors, loss.logit_scale])])
    torch.testing.assert_close(*out, rtol=1e-10, atol=1e-10)


def test_the_scale_starts_as_published_and_receives_a_gradient() -> None:
    loss = TotalCorrelationLoss().double()
    assert loss.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    loss(views(3)).backward()
    assert loss.logit_scale.grad.abs() > 0


def test_the_scale_has_an_upper_limit() -> None:
    loss = TotalCorrelationLoss(max_logit_scale=3.0).double()
    values = []
    for start in (2.9, 3.0, 50.0):
        torch.nn.init.constant_(loss.logit_scale, start)
        values.append(loss(views(3), generator=seeded()).item())
    assert values[1] == values[2] != values[0]


def test_beyond_its_limit_the_scale_can_only_come_back() -> None:
    (x, *_), found = views(1, 8, 32), {}
    for name, other in (("aligned", x), ("opposed", -x)):
        for start in (2.5, 3.0, 5.0):
            loss = TotalCorrelationLoss("n_squared", max_logit_scale=3.0).double()
            torch.nn.init.constant_(loss.logit_scale, start)
            loss([x, other]).backward()
            found[name, start] = loss.logit_scale.grad.item()
    # A larger scale pays where rows are aligned, and a smaller one where they are opposed.
    assert found["aligned", 2.5] < 0 and found["aligned", 3.0] < 0
    assert found["aligned", 5.0] == 0
    assert found["opposed", 5.0] == found["opposed", 3.0] > 0


@pytest.mark.parametrize("negatives", ["n", "n_squared"])
@pytest.mark.parametrize("num_tensors", [2, 3, 4])
def test_gradients(num_tensors: int, negatives: str) -> None:
    loss = TotalCorrelationLoss(negatives, chunk_size=2).double()
    tensors = [x.requires_grad_() for x in views(num_tensors, 4, 2)]
    masks = [torch.arange(4) != 1, *[None] * (num_tensors - 1)]

    def value(logit_scale: Tensor, *x: Tensor) -> Tensor:
        kwargs = {"masks": masks, "generator": seeded()}
        return torch.func.functional_call(loss, {"logit_scale": logit_scale}, (x,), kwargs)

    scale = torch.tensor(1.0, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(value, (scale, *tensors))


def test_aligned_rows_cost_less_than_shuffled_ones() -> None:
    loss, (x, *_) = TotalCorrelationLoss("n_squared").double(), views(1, 8, 32)
    aligned, shuffled = loss([x, x, x.abs()]), loss([x, x.roll(1, 0), x.abs()])
    assert aligned < shuffled


def test_the_bound_of_two_tensors_is_log_n_less_infonce() -> None:
    loss, tensors = TotalCorrelationLoss("n_squared").double(), views(2)
    bound = loss.lower_bound(tensors)
    torch.testing.assert_close(bound, math.log(8) - loss(tensors))
    assert not bound.requires_grad


@pytest.mark.parametrize(("num_tensors", "num_rows", "k"), [(3, 8, 4), (3, 9, 4), (4, 8, 2)])
def test_the_bound_is_from_zero_to_log_k(num_tensors: int, num_rows: int, k: int) -> None:
    loss = TotalCorrelationLoss().double()
    same = [torch.ones(num_rows, 4).double()] * num_tensors
    assert loss.lower_bound(same).item() == pytest.approx(0, abs=1e-12)
    unlike = [torch.eye(num_rows).double()] * num_tensors
    assert loss.lower_bound(unlike).item() == pytest.approx(math.log(k), abs=1e-5)


@pytest.mark.parametrize(("num_tensors", "num_rows"), [(2, 0), (2, 1), (3, 1), (3, 3), (5, 7)])
def test_the_bound_without_candidates_is_zero(num_tensors: int, num_rows: int) -> None:
    tensors = [torch.eye(8).double()[:num_rows]] * num_tensors
    assert TotalCorrelationLoss().double().lower_bound(tensors).item() == 0


def test_the_bound_is_that_of_complete_rows() -> None:
    tensors, rows = views(3), torch.tensor([0, 1, 3, 4, 5])
    masks = [None, torch.arange(8) != 2, torch.arange(8) < 6]
    expected = (
        TotalCorrelationLoss().double().lower_bound([x[rows] for x in tensors], None, seeded())
    )
    for negatives in ("n", "n_squared"):
        out = TotalCorrelationLoss(negatives).double().lower_bound(tensors, masks, seeded())
        torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("num_tensors", [2, 3, 4])
def test_the_bound_of_independent_tensors_is_not_positive(num_tensors: int) -> None:
    loss, generator = TotalCorrelationLoss(), seeded()
    shape = (num_tensors, 512, 16)
    draws = [
        loss.lower_bound(list(torch.randn(shape, generator=generator)), None, generator)
        for _ in range(20)
    ]
    bounds = torch.stack(draws)
    assert bounds.mean() < 3 * bounds.std() / math.sqrt(20)


def test_the_bound_of_a_known_total_correlation() -> None:
    # Three copies of one of eight values: TC = 2 log 8. One-hot rows are the best critic.
    loss, values = TotalCorrelationLoss(), torch.randint(8, (2048,), generator=seeded())
    tensors = [F.one_hot(values, 8).float()] * 3
    torch.nn.init.constant_(loss.logit_scale, math.log(100))
    assert loss.lower_bound(tensors, None, seeded()).item() == pytest.approx(2 * math.log(8), 0.03)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_autocast_and_half_precision_change_only_the_input(dtype: torch.dtype) -> None:
    loss = TotalCorrelationLoss()
    tensors = [x.to(dtype).requires_grad_() for x in views(3, 8, 16)]
    expected = loss([x.float() for x in tensors], generator=seeded())
    expected_grads = torch.autograd.grad(expected, [*tensors, loss.logit_scale])
    with torch.autocast("cpu", torch.bfloat16):
        out = loss(tensors, generator=seeded())
        bound = loss.lower_bound(tensors, generator=seeded())
    grads = torch.autograd.grad(out, [*tensors, loss.logit_scale])
    assert out.dtype == bound.dtype == torch.float32
    torch.testing.assert_close((out, grads), (expected, expected_grads))
    assert bound == loss.lower_bound(tensors, generator=seeded())
    torch.testing.assert_close(
        loss.to(dtype)(tensors, generator=seeded()), expected, rtol=1e-2, atol=0
    )


def test_compiled_it_gives_the_same_numbers() -> None:
    class Encode(Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.loss = Linear(4, 6), TotalCorrelationLoss()

        def forward(self, x: list[Tensor], generator: torch.Generator | None) -> Tensor:
            return 2 * self.loss([self.encoder(v).tanh() for v in x], generator=generator)

    model, tensors = Encode(), [x.float() for x in views(3)]
    compiled = torch.compile(model, backend="aot_eager")
    for generator in (seeded, lambda: None):
        found = []
        for module in (model, compiled):
            torch.manual_seed(0)
            value = module(tensors, generator())
            found.append([value, *torch.autograd.grad(value, list(model.parameters()))])
        torch.testing.assert_close(*found)


@pytest.mark.parametrize("negatives", ["n", "n_squared"])
@pytest.mark.parametrize("product_scale", ["none", "sqrt_dim"])
@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e4, 1e30, 3e38])
def test_extreme_values_give_no_nan(size: float, product_scale: str, negatives: str) -> None:
    loss = TotalCorrelationLoss(negatives, product_scale=product_scale)
    tensors = [(size * F.normalize(x, dim=1).float()).requires_grad_() for x in views(3)]
    value = loss(tensors, generator=seeded())
    grads = torch.autograd.grad(value, [*tensors, loss.logit_scale])
    assert all(x.isfinite().all() for x in (value, *grads))
    if size > 1:
        usual = loss([x / size for x in tensors], generator=seeded())
        torch.testing.assert_close(value, usual)


def test_a_row_of_zeros_stays_zero_and_receives_no_gradient() -> None:
    tensors = [x.clone() for x in views(3)]
    tensors[1][2] = 0
    loss, tensors = TotalCorrelationLoss().double(), [x.requires_grad_() for x in tensors]
    loss(tensors, generator=seeded()).backward()
    assert (tensors[1].grad[2] == 0).all()
    assert all(x.grad.isfinite().all() and x.grad.abs().max() < 100 for x in tensors)


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (3, 0)])
@pytest.mark.parametrize("negatives", ["n", "n_squared"])
def test_empty_and_single_rows(shape: tuple[int, int], negatives: str) -> None:
    loss = TotalCorrelationLoss(negatives)
    tensors = [torch.ones(shape).requires_grad_() for _ in range(3)]
    value = loss(tensors)
    value.backward()
    assert all(x.grad.isfinite().all() for x in (*tensors, loss.logit_scale))
    assert value.isfinite() and loss.lower_bound(tensors).isfinite()
    assert value.item() == 0 or shape == (3, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused_unless_masked(value: float) -> None:
    tensors = views(3)
    tensors[2][5, 1] = value
    with pytest.raises(ValueError, match=r"'tensors' must be finite \(number 2 is not\)"):
        TotalCorrelationLoss().double()(tensors)
    masks = [None, None, torch.arange(8) != 5]
    tensors[2].requires_grad_()
    loss = TotalCorrelationLoss().double()(tensors, masks)
    loss.backward()
    assert loss.isfinite() and tensors[2].grad.isfinite().all()


def test_forward_changes_nothing(unchanged: Callable) -> None:
    loss, tensors = TotalCorrelationLoss().double(), views(3)
    masks = [torch.arange(8) != 1, torch.arange(8) != 2, torch.arange(8) != 3]
    with unchanged(loss, tensors, masks):
        loss(tensors, masks)


@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "pickle", "torch.save"])
def test_a_copy_gives_the_same_loss(way: str) -> None:
    loss = TotalCorrelationLoss("n_squared", chunk_size=3).double()
    torch.nn.init.constant_(loss.logit_scale, 1.5)
    if way == "state_dict":
        copied = TotalCorrelationLoss("n_squared", chunk_size=3).double()
        copied.load_state_dict(loss.state_dict())
    elif way == "deepcopy":
        copied = copy.deepcopy(loss)
    elif way == "pickle":
        copied = pickle.loads(pickle.dumps(loss))
    else:
        buffer = io.BytesIO()
        torch.save(loss, buffer)
        copied = torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert copied(views(3)) == loss(views(3))


def test_reset_puts_the_scale_back() -> None:
    loss = TotalCorrelationLoss(init_logit_scale=1.25)
    torch.nn.init.zeros_(loss.logit_scale)
    loss.reset_parameters()
    assert loss.logit_scale.item() == 1.25


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"'negatives' must be .* \(got 'all'\)"):
        TotalCorrelationLoss("all")
    with pytest.raises(ValueError, match=r"'product_scale' must be .* \(got 'dim'\)"):
        TotalCorrelationLoss(product_scale="dim")
    with pytest.raises(ValueError, match=r"'chunk_size' must be at least 1 \(got 0\)"):
        TotalCorrelationLoss(chunk_size=0)


def test_wrong_inputs_are_named() -> None:
    loss, (a, b) = TotalCorrelationLoss(), views(2)
    with pytest.raises(ValueError, match=r"'tensors' must hold two or more \(got 1\)"):
        loss([a])
    with pytest.raises(ValueError, match=r"one shape.*\[8, 4\], number 1 has \[7, 4\]"):
        loss([a, b[:7]])
    with pytest.raises(ValueError, match=r"floating point \(number 1 is torch.int64\)"):
        loss([a, b.long()])
    with pytest.raises(ValueError, match=r"'masks' must hold 2 \(got 1\)"):
        loss([a, b], [None])


@pytest.mark.parametrize("length", [1, 3, 9])
def test_a_mask_of_another_length_is_named(length: int) -> None:
    tensors, mask = [torch.randn(8, 4)] * 2, torch.ones(length, dtype=torch.bool)
    with pytest.raises(ValueError, match=rf"'masks' must be bool \[8\] \(got .* \[{length}\]\)"):
        TotalCorrelationLoss()(tensors, masks=[None, mask])


class Encoders(Module):
    """One linear map a view before the loss; what two processes train together."""

    def __init__(self, negatives: str, num_tensors: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.maps = ModuleList(Linear(4, 3) for _ in range(num_tensors)).double()
        self.loss = TotalCorrelationLoss(negatives, gather_distributed=True).double()

    def forward(self, x: list[Tensor], masks: list[Tensor | None], seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        out = [encode(v) for encode, v in zip(self.maps, x, strict=True)]
        bound = self.loss.lower_bound(out, masks, torch.Generator().manual_seed(seed))
        return torch.stack([self.loss(out, masks, generator), bound])


# (negatives, tensors, rows of each process, whether rows are missing)
SHARES = [
    ("n", 3, (5, 5), False),
    ("n", 2, (7, 2), True),
    ("n", 4, (6, 4), True),
    ("n", 3, (6, 0), False),
    ("n_squared", 3, (3, 4), True),
    ("n", 3, (0, 0), False),
]


def case(num_tensors: int, num_rows: int, missing: bool) -> tuple[list[Tensor], list[Any]]:
    masks = [torch.arange(num_rows) != 1, *[None] * (num_tensors - 1)]
    return views(num_tensors, num_rows), masks if missing else [None] * num_tensors


def train_a_share(rank: int) -> tuple[list[list[torch.Tensor]], str]:
    found = []
    for negatives, num_tensors, sizes, missing in SHARES:
        x, masks = case(num_tensors, sum(sizes), missing)
        own = slice(0, sizes[0]) if rank == 0 else slice(sizes[0], None)
        model = DistributedDataParallel(Encoders(negatives, num_tensors))
        # The second process's generator counts for nothing.
        share = [v[own] for v in x], [m if m is None else m[own] for m in masks]
        out = model(*share, 3 + rank)
        out[0].backward()
        found.append([out.detach(), *(p.grad for p in model.parameters())])
    message = ""
    try:
        TotalCorrelationLoss(gather_distributed=True)([torch.ones(3, 4 + rank)] * 2)
    except ValueError as error:
        message = str(error)
    return found, message


def test_two_processes_equal_one_on_the_joined_batch(tmp_path: Path) -> None:
    shares = in_two_processes(train_a_share, tmp_path)
    for (negatives, num_tensors, sizes, missing), *found in zip(
        SHARES, *(share[0] for share in shares), strict=True
    ):
        model = Encoders(negatives, num_tensors)
        out = model(*case(num_tensors, sum(sizes), missing), 3)
        out[0].backward()
        expected = [out.detach(), *(p.grad for p in model.parameters())]
        for share in found:
            torch.testing.assert_close(share, expected, rtol=1e-9, atol=1e-12)
        assert sum(sizes) == 0 or expected[1].abs().max() > 1e-3
    for _, message in shares:
        assert "'tensors' must have one number and width" in message
        assert "widths [4, 5]" in message


def test_gathering_without_processes_changes_nothing() -> None:
    one, two = (TotalCorrelationLoss(gather_distributed=x).double() for x in (False, True))
    assert one(views(3), generator=seeded()) == two(views(3), generator=seeded())


def test_a_tensor_in_place_of_a_list_is_named() -> None:
    x = torch.randn(8, 4)
    for given in (x, torch.stack([x, x], dim=1), {"a": x, "b": x}, [x, None]):
        with pytest.raises(ValueError, match=r"'tensors' must be a list .* loss\(\[a, b\]\)"):
            TotalCorrelationLoss()(given)


def test_a_mask_of_another_type_is_named() -> None:
    with pytest.raises(ValueError, match=r"'masks' must be bool \[8\] \(got torch.float32 \[8\]\)"):
        TotalCorrelationLoss()([torch.randn(8, 4)] * 2, masks=[None, torch.ones(8)])


def test_a_scale_in_place_of_its_logarithm_is_named() -> None:
    with pytest.raises(ValueError, match=r"'init_logit_scale' is the logarithm .*\(got 14.3\)"):
        TotalCorrelationLoss(init_logit_scale=14.3)
    with pytest.raises(ValueError, match=r"\(got nan\)"):
        TotalCorrelationLoss(init_logit_scale=float("nan"))


@pytest.mark.parametrize("num_tensors", [2, 3, 60])
def test_the_remedy_is_a_factor_on_the_logits_and_stays_in_range(num_tensors: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(8, 64, generator=generator).double() for _ in range(num_tensors)]
    loss = TotalCorrelationLoss().double()(tensors, generator=generator.manual_seed(1))
    assert TotalCorrelationLoss()([x.float() for x in tensors]).isfinite()
    plain = TotalCorrelationLoss(product_scale="none", max_logit_scale=1000.0).double()
    with torch.no_grad():
        plain.logit_scale += (num_tensors - 2) / 2 * math.log(64)
    expected = plain(tensors, generator=generator.manual_seed(1))
    torch.testing.assert_close(loss, expected)


def test_iterators_and_masks_that_are_lists_are_named() -> None:
    x = torch.randn(8, 4)
    for given in ({"a": x}.values(), (x for _ in range(2))):
        with pytest.raises(ValueError, match=r"'tensors' must be a list or tuple .* \(got [dg]"):
            TotalCorrelationLoss()(given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'masks' must be a tensor \(got list\)"):
        TotalCorrelationLoss()([x, x], masks=[[True] * 8, None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"must be \[N, D\] each \(number 0 is \[8, 4, 1\]\)"):
        TotalCorrelationLoss()([x[..., None]] * 2)


@pytest.mark.parametrize("negatives", ["n", "n_squared"])
@pytest.mark.parametrize("num", [2, 3, 4])
def test_pairwise_is_the_mean_of_infonce_by_loops(num: int, negatives: str) -> None:
    torch.manual_seed(0)
    rows, loss, generator = 7, PairwiseInfoNCE(negatives), torch.Generator().manual_seed(0)
    views = [torch.randn(rows, 5) for _ in range(num)]
    masks = [None, *(torch.rand(rows) > 0.3 for _ in range(num - 1))]
    scale, pairs = loss.logit_scale.exp(), []
    for a in range(num):
        for b in range(a + 1, num):
            there = [m for m in (masks[a], masks[b]) if m is not None]
            kept = [n for n in range(rows) if all(m[n] for m in there)]
            perms = draw_permutations(2, views[a][kept], generator)[:, 0].tolist()
            terms = []
            for anchor, (x, y) in enumerate(((views[a], views[b]), (views[b], views[a]))):
                for row, n in enumerate(kept):
                    others = set(kept) - {n}
                    if negatives == "n":  # a row's own column is the positive's
                        others -= {kept[perms[anchor][row]]}
                    own = scale * torch.cosine_similarity(x[n], y[n], 0)
                    logits = [scale * torch.cosine_similarity(x[n], y[k], 0) for k in others]
                    terms.append(torch.stack([own, *logits]).logsumexp(0) - own)
            pairs.append(torch.stack(terms).mean())
    assert len(pairs) == num * (num - 1) // 2
    generator.manual_seed(0)
    torch.testing.assert_close(loss(views, masks, generator), torch.stack(pairs).mean())


def test_pairwise_of_two_is_the_total_correlation_loss() -> None:
    views = [torch.randn(9, 4), torch.randn(9, 4)]
    generator = torch.Generator()
    losses = [
        cls()(views, generator=generator.manual_seed(0))
        for cls in (PairwiseInfoNCE, TotalCorrelationLoss)
    ]
    torch.testing.assert_close(*losses)


def test_pairwise_refuses_a_single_view() -> None:
    with pytest.raises(ValueError, match=r"'tensors' must hold two or more \(got 1\)"):
        PairwiseInfoNCE()([torch.randn(3, 2)])
