from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.functional import (
    contrast,
    draw_permutations,
    multilinear_inner_product,
    total_correlation,
)

NEGATIVES = ["n", "n_squared", "disjoint"]


def views(num_tensors: int, num_rows: int, channels: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_tensors, num_rows, channels, generator=generator, dtype=torch.double)
    return [row.requires_grad_() for row in F.normalize(x, dim=-1)]


def scale_of(value: float = 3.0) -> Tensor:
    return torch.tensor(value, dtype=torch.double, requires_grad=True)


def logit(scale: Tensor, anchor: Tensor, others: list[Tensor], members: tuple[int, ...]) -> Tensor:
    out = torch.zeros((), dtype=anchor.dtype)
    for d in range(anchor.numel()):
        product = anchor[d]
        for other, member in zip(others, members, strict=True):
            product = product * other[member, d]
        out = out + product
    return scale * out


def total_correlation_loop(
    tensors: list[Tensor], scale: Tensor, negatives: str, generator: torch.Generator
) -> Tensor:
    r"""The equation row by row: the positive against every other candidate."""
    num_rows, losses = tensors[0].size(0), []
    for a, anchor in enumerate(tensors):
        others = [tensor for b, tensor in enumerate(tensors) if b != a]
        perms = [torch.randperm(num_rows, generator=generator).tolist() for _ in others]
        num = num_rows // len(others)
        for i in range(num_rows):
            if negatives == "n":
                combinations = [tuple(p[k] for p in perms) for k in range(num_rows) if k != i]
            elif negatives == "disjoint":
                groups = [tuple(perms[0][k : num * len(others) : num]) for k in range(num)]
                # A row in no group leaves one out too, in turn.
                own = perms[0].index(i) % num if num > 0 else None
                combinations = [group for k, group in enumerate(groups) if k != own]
            else:
                combinations = list(itertools.product(range(num_rows), repeat=len(others)))
            true_row = (i,) * len(others)
            candidates = [true_row, *(c for c in combinations if c != true_row)]
            logits = torch.stack([logit(scale, anchor[i], others, c) for c in candidates])
            losses.append(logits.logsumexp(0) - logits[0])
    return torch.stack(losses).mean()


def loss_and_gradients(tensors: list[Tensor], **kwargs: Any) -> list[Tensor]:
    scale = scale_of()
    generator = torch.Generator().manual_seed(5)
    loss = total_correlation(tensors, scale, generator=generator, **kwargs)
    return [loss, *torch.autograd.grad(loss, [*tensors, scale])]


def test_multilinear_inner_product_equals_a_loop() -> None:
    tensors = views(4, 5)
    for i, value in enumerate(multilinear_inner_product(tensors)):
        row = [tensor[i].tolist() for tensor in tensors]
        assert value.item() == pytest.approx(
            sum(math.prod(column) for column in zip(*row, strict=True))
        )


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize(("num_tensors", "num_rows"), [(2, 1), (2, 6), (3, 5), (4, 3), (5, 3)])
def test_total_correlation_equals_a_loop_from_the_equation(
    num_tensors: int, num_rows: int, negatives: str
) -> None:
    tensors, scale = views(num_tensors, num_rows), scale_of()
    generator = torch.Generator().manual_seed(5)
    expected = total_correlation_loop(tensors, scale, negatives, generator)
    grads = torch.autograd.grad(expected, [*tensors, scale])
    out = loss_and_gradients(tensors, negatives=negatives)
    torch.testing.assert_close(out, [expected, *grads], rtol=1e-10, atol=1e-10)


def test_one_row_of_the_contrast_by_hand() -> None:
    anchor = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[0.0, 1.0], [2.0, 5.0], [9.0, 9.0]])
    positive = torch.tensor([[1.0, 7.0]])
    loss = contrast(anchor, candidates, positive, torch.tensor(2.0), torch.tensor([[2]]))
    assert loss.item() == pytest.approx(math.log(math.exp(2) + math.exp(0) + math.exp(4)) - 2)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
def test_chunks_change_neither_loss_nor_gradients(chunk_size: int, negatives: str) -> None:
    tensors = views(3, 7)
    whole = loss_and_gradients(tensors, negatives=negatives)
    chunked = loss_and_gradients(tensors, negatives=negatives, chunk_size=chunk_size)
    torch.testing.assert_close(chunked, whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("num_tensors", [2, 3, 4])
def test_gradients_of_total_correlation(num_tensors: int, negatives: str) -> None:
    def loss(scale: Tensor, *tensors: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return total_correlation(tensors, scale, negatives, 2, generator)

    assert torch.autograd.gradcheck(loss, (scale_of(), *views(num_tensors, 3, 2)))


def test_gradients_of_contrast() -> None:
    anchor, candidates, positive = views(3, 4)
    exclude = torch.tensor([[0, 1], [1, 1], [2, 3], [3, 3]])
    inputs = (anchor, candidates, positive, scale_of())
    assert torch.autograd.gradcheck(lambda *args: contrast(*args, exclude, 3), inputs)


def test_two_tensors_and_all_candidates_are_symmetric_infonce() -> None:
    a, b = views(2, 8)
    scale = scale_of()
    logits, target = scale * a @ b.t(), torch.arange(8)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2
    torch.testing.assert_close(total_correlation([a, b], scale, "n_squared"), expected)


@pytest.mark.parametrize("num_tensors", [2, 3])
def test_row_that_permutations_bring_back_is_no_negative(num_tensors: int) -> None:
    # With two rows and nothing but swaps, the only other candidate is the row itself.
    draws = num_tensors * (num_tensors - 1)
    for seed in range(10_000):
        generator = torch.Generator().manual_seed(seed)
        if all(torch.randperm(2, generator=generator)[0] == 1 for _ in range(draws)):
            break
    loss = total_correlation(
        views(num_tensors, 2), scale_of(), "n", generator=torch.Generator().manual_seed(seed)
    )
    assert loss.item() == 0


def test_a_candidate_with_one_returned_member_stays_a_negative() -> None:
    # Members (0, 1) at column 1 share tensor 1 with row 0 and are still another row.
    a, b, c = views(3, 2)
    loss = contrast(a, b * c.flip(0), b * c, scale_of(), torch.arange(2).view(-1, 1))
    assert loss.item() > 0.05


def test_order_of_tensors_does_not_matter_to_all_candidates() -> None:
    tensors, scale = views(4, 4), scale_of()
    expected = total_correlation(tensors, scale, "n_squared")
    for order in itertools.permutations(tensors):
        torch.testing.assert_close(total_correlation(order, scale, "n_squared"), expected)


def test_order_of_rows_does_not_matter_to_all_candidates() -> None:
    tensors, scale = views(3, 6), scale_of()
    perm = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = [tensor[perm] for tensor in tensors]
    expected = total_correlation(tensors, scale, "n_squared")
    torch.testing.assert_close(total_correlation(permuted, scale, "n_squared"), expected)


def test_order_of_tensors_and_permutations_does_not_matter() -> None:
    tensors, scale = views(4, 6), scale_of()
    perms = draw_permutations(4, tensors[0], torch.Generator().manual_seed(0))
    expected = total_correlation(tensors, scale, permutations=perms)
    for order in itertools.permutations(range(4)):
        # perms[a, j] moves the j-th of the tensors other than a.
        moved = [[perms[a, b - (b > a)] for b in order if b != a] for a in order]
        out = total_correlation(
            [tensors[a] for a in order],
            scale,
            permutations=torch.stack([torch.stack(row) for row in moved]),
        )
        torch.testing.assert_close(out, expected)


def test_order_of_rows_with_their_permutations_does_not_matter() -> None:
    tensors, scale = views(3, 6), scale_of()
    perms = draw_permutations(3, tensors[0], torch.Generator().manual_seed(0))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved = order.argsort()[perms[:, :, order]]
    out = total_correlation([x[order] for x in tensors], scale, permutations=moved)
    torch.testing.assert_close(out, total_correlation(tensors, scale, permutations=perms))


@pytest.mark.parametrize("change", ["rows", "tensors"])
def test_order_does_not_matter_in_expectation(change: str) -> None:
    tensors, scale = [x.detach() for x in views(3, 6)], scale_of(8.0).detach()
    perm = torch.tensor([3, 0, 5, 1, 4, 2])
    changed = [x[perm] for x in tensors] if change == "rows" else tensors[::-1]
    generator = torch.Generator().manual_seed(0)

    def draw(x: list[Tensor]) -> Tensor:
        return torch.stack([total_correlation(x, scale, generator=generator) for _ in range(600)])

    one, other = draw(tensors), draw(changed)
    error = math.sqrt((one.var() + other.var()).item() / 600)
    assert error < 0.02
    assert abs((one.mean() - other.mean()).item()) < 4 * error


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_the_loss_of_some_anchors_is_their_share_of_the_whole(negatives: str) -> None:
    tensors, scale = views(3, 7), scale_of()
    perms = draw_permutations(3, tensors[0], torch.Generator().manual_seed(0))
    whole, first, rest = (
        total_correlation(tensors, scale, negatives, permutations=perms, anchors=anchors)
        for anchors in (slice(None), slice(0, 2), slice(2, 7))
    )
    assert first != rest
    torch.testing.assert_close((2 * first + 5 * rest) / 7, whole)


@pytest.mark.parametrize("num_tensors", [2, 3])
def test_disjoint_candidates_bound_correlation_for_any_critic(num_tensors: int) -> None:
    # The expectation is exact: over all samples of four rows from three states.
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        states = torch.randint(2, (3, num_tensors), generator=generator)
        p = torch.rand(3, generator=generator, dtype=torch.double)
        p = p / p.sum()
        marginals = [torch.bincount(column, p, 2) for column in states.t()]
        ratio = torch.zeros(3, dtype=torch.double)
        for i, state in enumerate(states):
            same = p[(states == state).all(dim=1)].sum()
            ratio[i] = (same / math.prod(m[v] for m, v in zip(marginals, state, strict=True))).log()
        truth = (p * ratio).sum()
        tables = torch.randn(num_tensors, 2, 6, generator=generator, dtype=torch.double)
        expected = torch.zeros((), dtype=torch.double)
        for sample in itertools.product(range(3), repeat=4):
            rows = states[list(sample)]
            tensors = [table[rows[:, b]] for b, table in enumerate(tables)]
            loss = total_correlation(tensors, scale_of(), "disjoint", generator=generator)
            expected += p[list(sample)].prod() * (math.log(4 // (num_tensors - 1)) - loss)
        assert expected <= truth + 1e-9


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("num_rows", [0, 1])
def test_without_negatives_the_loss_is_zero(num_rows: int, negatives: str) -> None:
    out = loss_and_gradients(views(3, num_rows), negatives=negatives)
    assert all((x == 0).all() for x in out)


def test_rows_without_any_candidate_have_zero_loss_and_gradient() -> None:
    anchor, candidates, positive = views(3, 2)
    exclude = torch.tensor([[0, 1], [0, 1]])
    loss = contrast(anchor, candidates, positive, scale_of(), exclude)
    grads = torch.autograd.grad(loss, [anchor, candidates, positive])
    assert loss.item() == 0
    assert all((grad == 0).all() for grad in grads)


def test_logit_of_minus_infinity_is_a_candidate_that_never_wins() -> None:
    anchor = torch.ones(2, 1, dtype=torch.double, requires_grad=True)
    candidates = torch.tensor([[-1e308], [0.5], [0.2]], dtype=torch.double)
    exclude = torch.full((2, 1), 2)
    loss = contrast(anchor, candidates, anchor, scale_of(100.0), exclude)
    expected = contrast(anchor, candidates[1:], anchor, scale_of(100.0), exclude - 1)
    grad, expected_grad = (torch.autograd.grad(x, anchor)[0] for x in (loss, expected))
    torch.testing.assert_close((loss, grad), (expected, expected_grad))


def test_large_logits_do_not_overflow() -> None:
    tensors = [x.detach().float().requires_grad_() for x in views(2, 5)]
    loss = total_correlation(tensors, torch.tensor(1e4))
    loss.backward()
    assert loss.isfinite()
    assert all(x.grad.isfinite().all() for x in tensors)


def test_a_generator_makes_the_draws_its_own() -> None:
    tensors, scale = views(3, 8), scale_of()
    state = torch.get_rng_state()
    one = total_correlation(tensors, scale, generator=torch.Generator().manual_seed(3))
    torch.rand(5)
    two = total_correlation(tensors, scale, generator=torch.Generator().manual_seed(3))
    torch.set_rng_state(state)
    other = total_correlation(tensors, scale, generator=torch.Generator().manual_seed(4))
    assert torch.equal(torch.get_rng_state(), state)
    assert one == two != other


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_cast_up(dtype: torch.dtype) -> None:
    tensors = [x.detach().to(dtype).requires_grad_() for x in views(3, 6)]
    scale = torch.tensor(3.0)
    same = {"generator": torch.Generator().manual_seed(0)}
    out = total_correlation(tensors, scale, **same)
    same["generator"].manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        cast = total_correlation(tensors, scale, **same)
    same["generator"].manual_seed(0)
    expected = total_correlation([x.float() for x in tensors], scale, **same)
    assert out.dtype == torch.float32
    assert out == cast == expected
    assert all(grad.dtype == dtype for grad in torch.autograd.grad(out, tensors))


def test_wrong_arguments_of_the_contrast_are_named() -> None:
    with pytest.raises(ValueError, match="'chunk_size' must be at least 1"):
        total_correlation(views(2, 3), scale_of(), chunk_size=0)
    with pytest.raises(ValueError, match=r"'negatives' must be .* \(got 'all'\)"):
        total_correlation(views(2, 3), scale_of(), negatives="all")


def test_a_scale_may_be_a_number() -> None:
    tensors = [torch.randn(8, 4, dtype=torch.double) for _ in range(3)]
    found, expected = (
        total_correlation(tensors, scale, generator=torch.Generator().manual_seed(0))
        for scale in (7.5, torch.tensor(7.5, dtype=torch.double))
    )
    assert torch.equal(found, expected)
