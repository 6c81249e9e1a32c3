from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gtc_pyg.functional import inner_product_topk


def integers(*size: int, seed: int, most: int = 3) -> Tensor:
    r"""Their products and sums are exact in any order, and many are equal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-most, most + 1, size, generator=generator).float()


def masked_scores(user_emb: Tensor, item_emb: Tensor, links: Tensor) -> Tensor:
    score = user_emb @ item_emb.t()
    score[links[0], links[1]] = -math.inf
    return score


def check_lists(value: Tensor, index: Tensor, score: Tensor, k: int) -> None:
    r"""The values are those of the whole matrix; items are theirs, and none stands twice."""
    best = score.sort(dim=1, descending=True).values[:, :k]
    assert torch.equal(value, best)
    assert torch.equal(index == -1, best == -math.inf)
    for items, values, row in zip(index, value, score, strict=True):
        items, values = items[items >= 0], values[items >= 0]
        assert items.unique().numel() == items.numel()
        assert torch.equal(row[items], values)


# Users, items, k, bytes of scores: one chunk, chunks of items, of users, of both, of one score
# each; with and without a smaller last one; lists longer than a chunk and than the catalogue.
SHAPES = [
    (9, 700, 2, 2**24),
    (3, 3000, 2, 4 * 1024),
    (9, 700, 2, 4 * 600),
    (9, 64, 2, 4 * 128),
    (9, 65, 20, 4 * 130),
    (3, 700, 5, 4 * 64),
    (3, 30, 5, 1),
    (7, 30, 40, 4 * 11),
    (1, 20_000, 3, 4 * 17_000),
    (5, 20_000, 3, 4 * 2**14 * 2),
]


@pytest.mark.parametrize("kind", ["random", "rising", "falling", "one high block", "all equal"])
@pytest.mark.parametrize("num_users, num_items, k, score_bytes", SHAPES)
def test_chunks_give_what_the_whole_matrix_gives(
    num_users: int, num_items: int, k: int, score_bytes: int, kind: str
) -> None:
    user_emb = integers(num_users, 3, seed=0).abs() + 1
    item_emb = integers(num_items, 3, seed=1, most=50)
    if kind in ("rising", "falling"):
        item_emb = item_emb.sort(dim=0, descending=kind == "falling").values
    elif kind == "one high block":
        item_emb[num_items // 2 :][:30] += 1000
    elif kind == "all equal":
        item_emb[:] = 1
    generator = torch.Generator().manual_seed(4)
    links = torch.stack(
        [torch.randint(n, (2 * num_items,), generator=generator) for n in (num_users, num_items)]
    )
    value, index = inner_product_topk(user_emb, item_emb, k, links, score_bytes)
    assert value.shape == index.shape == (num_users, min(k, num_items))
    check_lists(value, index, masked_scores(user_emb, item_emb, links), k)


@pytest.mark.parametrize("score_bytes", [1, 4 * 100, 2**24])
def test_a_user_who_has_seen_all_or_nearly_all(score_bytes: int) -> None:
    links = torch.tensor(
        [[0, i] for i in range(500)] + [[1, i] for i in range(500) if i != 321]
    ).t()
    value, index = inner_product_topk(
        torch.ones(3, 1), torch.arange(500.0)[:, None], 2, links, score_bytes
    )
    assert index.tolist() == [[-1, -1], [321, -1], [499, 498]]
    assert value.tolist() == [[-math.inf] * 2, [321, -math.inf], [499, 498]]


@pytest.mark.parametrize("score_bytes", [4 * 256, 4 * 1024, 2**24])
def test_scores_that_are_not_finite(score_bytes: int) -> None:
    item_emb = torch.arange(5000.0)[:, None]
    item_emb[[5, 2000]] = torch.tensor([[math.inf], [math.nan]])
    item_emb[[7, 4999]] = -math.inf
    links = torch.tensor([[1, 1], [5, 2000]])
    value, index = inner_product_topk(torch.ones(2, 1), item_emb, 4, links, score_bytes)
    assert index.tolist() == [[2000, 5, 4998, 4997], [4998, 4997, 4996, 4995]]
    assert value[0].tolist()[1:] == [math.inf, 4998, 4997] and value[0, 0].isnan()
    # A chunk of which all but the item that is no number lies below the best so far.
    _, index = inner_product_topk(torch.ones(1, 1), -item_emb, 4, None, score_bytes)
    assert index[0, 0] == 2000 and set(index[0, 1:3].tolist()) == {7, 4999} and index[0, 3] == 0
    _, index = inner_product_topk(torch.ones(1, 1), item_emb[:10], 10, None, score_bytes)
    assert index.tolist() == [[5, 9, 8, 6, 4, 3, 2, 1, 0, -1]]


@pytest.mark.parametrize("num_users, num_items", [(0, 5), (2, 0), (0, 0)])
def test_nobody_and_nothing(num_users: int, num_items: int) -> None:
    value, index = inner_product_topk(torch.ones(num_users, 2), torch.ones(num_items, 2), 3)
    assert value.shape == index.shape == (num_users, min(3, num_items))


def test_a_list_of_no_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'k' must be a whole number, at least 1 \(got 0\)"):
        inner_product_topk(torch.ones(1, 1), torch.ones(1, 1), 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_precision_is_multiplied_in_single_precision(dtype: torch.dtype) -> None:
    # 256 + i and 257 + i are the same number in bfloat16, 2048 + i and 2049 + i in float16.
    user_emb = torch.tensor([[2048.0, 1.0]], dtype=dtype)
    item_emb = torch.stack([torch.ones(100), torch.arange(100.0)], dim=1).to(dtype)
    value, index = inner_product_topk(user_emb, item_emb, 3)
    assert index.tolist() == [[99, 98, 97]]
    assert value.tolist() == [[2147, 2146, 2145]]
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_autocast_does_not_change_the_lists() -> None:
    users, items = integers(4, 3, seed=0, most=1000), integers(500, 3, seed=1, most=1000)
    expected = inner_product_topk(users, items, 5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(inner_product_topk(users, items, 5), expected, rtol=0, atol=0)


def test_the_largest_buffer_is_what_was_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    products = []
    product = torch.mm

    def mm(x: Tensor, y: Tensor, *, out: Tensor) -> Tensor:
        products.append((out.numel(), out.untyped_storage().nbytes(), out.data_ptr()))
        return product(x, y, out=out)

    monkeypatch.setattr(torch, "mm", mm)
    inner_product_topk(torch.ones(300, 2), torch.rand(40_000, 2), 5, score_bytes=2**20)
    numel, nbytes, start = zip(*products, strict=True)
    assert sum(numel) == 300 * 40_000
    assert max(nbytes) <= 2**20 and len(set(start)) == 1
