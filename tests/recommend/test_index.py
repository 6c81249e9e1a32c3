from __future__ import annotations

import math
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gtc_pyg.functional import inner_product_topk

pytest.importorskip("faiss", reason="faiss is not installed")
index_module = pytest.importorskip("gtc_pyg.recommend.index")
ItemIndex = index_module.ItemIndex


def integers(*size: int, seed: int) -> Tensor:
    r"""Their products and sums are exact in any order, and many are equal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, size, generator=generator).float()


def check_lists(value: Tensor, index: Tensor, score: Tensor, k: int) -> None:
    r"""The values are the best of each row of ``score``; items are theirs, none stands twice."""
    torch.testing.assert_close(value, score.sort(dim=1, descending=True).values[:, :k])
    assert torch.equal(index == -1, value == -math.inf)
    for items, values, row in zip(index, value, score, strict=True):
        items, values = items[items >= 0], values[items >= 0]
        assert items.unique().numel() == items.numel()
        torch.testing.assert_close(row[items], values)


def links_of(*items: list[int]) -> Tensor:
    return torch.tensor([[user, i] for user, row in enumerate(items) for i in row]).t()


@pytest.fixture(scope="module")
def planted() -> tuple[Tensor, Tensor]:
    r"""50 users near one each of 60 clusters of 200 items; norms differ, 18 channels."""
    generator = torch.Generator().manual_seed(0)
    center = torch.randn(60, 18, generator=generator)
    item = center.repeat(200, 1) + 0.5 * torch.randn(12_000, 18, generator=generator)
    item *= torch.rand(12_000, 1, generator=generator) + 0.5
    return center[:50] + 0.5 * torch.randn(50, 18, generator=generator), item


@pytest.fixture(scope="module")
def approximate(planted: tuple[Tensor, Tensor]) -> Callable[..., ItemIndex]:
    index = ItemIndex(planted[1], approximate=True)

    def make(num_probes: int = 16, num_candidates: int = 1000) -> ItemIndex:
        index.num_probes, index.num_candidates = num_probes, num_candidates
        return index

    return make


@pytest.mark.parametrize("k", [1, 7, 300, 500])
@pytest.mark.parametrize("num_users", [1, 9, 60])
def test_exact_lists_are_those_of_brute_force(num_users: int, k: int) -> None:
    user, item = integers(num_users, 5, seed=0), integers(300, 5, seed=1)
    value, index = ItemIndex(item).search(user, k)
    assert value.shape == index.shape == (num_users, min(k, 300))
    check_lists(value, index, user @ item.t(), k)
    assert torch.equal(value, inner_product_topk(user, item, k)[0])


@pytest.mark.parametrize("k", [1, 7, 300])
def test_excluded_items_are_in_no_list(k: int) -> None:
    generator = torch.Generator().manual_seed(2)
    user, item = integers(9, 5, seed=0), integers(300, 5, seed=1)
    # From nobody's item to all but one and to all; some pairs stand twice, in no order.
    rows = [
        torch.randperm(300, generator=generator)[:n].tolist()
        for n in (0, 1, 16, 17, 40, 150, 299, 300, 3)
    ]
    links = links_of(*rows)
    links = torch.cat([links, links[:, ::7]], dim=1)
    links = links[:, torch.randperm(links.size(1), generator=generator)]
    before = links.clone()
    value, index = ItemIndex(item).search(user, k, links)
    score = user @ item.t()
    score[links[0], links[1]] = -math.inf
    check_lists(value, index, score, k)
    assert torch.equal(value, inner_product_topk(user, item, k, links)[0])
    assert torch.equal(links, before)


def test_a_user_who_excludes_more_than_pyg_can_find() -> None:
    item = torch.arange(5000.0).view(-1, 1)
    links = links_of([], list(range(1000, 5000)), [4999])
    value, index = ItemIndex(item).search(torch.ones(3, 1), 2, links)
    assert index.tolist() == [[4999, 4998], [999, 998], [4998, 4997]]
    assert value.tolist() == index.tolist()
    value, index = ItemIndex(item).search(torch.ones(1, 1), 4000)
    assert index.tolist() == [list(range(4999, 999, -1))]


def test_approximate_scores_are_exact_and_few_items_are_missing(
    planted: tuple[Tensor, Tensor], approximate: Callable[..., ItemIndex]
) -> None:
    user, item = planted
    value, index = approximate().search(user, 100)
    torch.testing.assert_close(value, (user @ item.t()).gather(1, index))
    assert (value.diff(dim=1) <= 0).all()
    best = inner_product_topk(user, item, 100)[1]
    overlap = [torch.isin(a, b).float().mean() for a, b in zip(index, best, strict=True)]
    assert torch.stack(overlap).mean() > 0.95


def test_all_cells_and_all_candidates_are_exact(
    planted: tuple[Tensor, Tensor], approximate: Callable[..., ItemIndex]
) -> None:
    user, item = planted
    value, index = approximate(num_probes=110, num_candidates=12_000).search(user, 50)
    check_lists(value, index, user @ item.t(), 50)


def test_fewer_cells_and_candidates_miss_more(
    planted: tuple[Tensor, Tensor], approximate: Callable[..., ItemIndex]
) -> None:
    user, _ = planted
    most = approximate(32, 1000).search(user, 100)[0].mean()
    assert approximate(1, 1000).search(user, 100)[0].mean() < most
    assert approximate(32, 100).search(user, 100)[0].mean() < most


def test_approximate_lists_leave_out_what_is_excluded(
    planted: tuple[Tensor, Tensor], approximate: Callable[..., ItemIndex]
) -> None:
    user, item = planted
    best = inner_product_topk(user, item, 1000)[1]
    # User by user the best 0, 20, 40, ...: the lists begin behind them.
    links = links_of(*(best[i, : 20 * i].tolist() for i in range(50)))
    value, index = approximate(num_probes=110, num_candidates=200).search(user, 10, links)
    assert (index >= 0).all()
    score = user @ item.t()
    torch.testing.assert_close(value, score.gather(1, index))
    score[links[0], links[1]] = -math.inf
    assert score.gather(1, index).isfinite().all()
    # Besides the items that a user excludes there are as many candidates as without them.
    assert value[:, 0].isclose(score.amax(1)).float().mean() > 0.9


def test_cells_with_too_few_items_give_no_short_lists(
    planted: tuple[Tensor, Tensor], approximate: Callable[..., ItemIndex]
) -> None:
    user, item = planted
    found = approximate(num_probes=1).search(user, 1500)
    check_lists(*found, user @ item.t(), 1500)
    links = torch.cartesian_prod(torch.arange(2), torch.arange(3, 12_000)).t()
    value, index = approximate(num_probes=1).search(user[:2], 5, links)
    assert torch.equal(index.sort(dim=1).values, torch.tensor([[-1, -1, 0, 1, 2]] * 2))
    assert (value[:, 3:] == -math.inf).all()


@pytest.mark.parametrize("kind", ["exact", "approximate"])
def test_added_items_are_found_and_numbered_on(planted: tuple[Tensor, Tensor], kind: str) -> None:
    user, item = planted
    index = ItemIndex(item[:10_000], approximate=kind == "approximate")
    index.add(item[10_000:])
    index.add(item[:0])
    assert index.num_items == 12_000
    index.num_probes, index.num_candidates = 200, 12_000
    value, items = index.search(user, 30)
    check_lists(value, items, user @ item.t(), 30)
    assert (items >= 10_000).any()


def test_many_users_are_searched_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    user, item = integers(50, 5, seed=0), integers(300, 5, seed=1)
    links = links_of(*([i] for i in range(50)))
    expected = ItemIndex(item).search(user, 9, links)
    monkeypatch.setattr(index_module, "MOST_USERS", 7)
    index = ItemIndex(item)
    sizes = []
    search = index.knn.search
    monkeypatch.setattr(
        index.knn, "search", lambda x, *args: sizes.append(len(x)) or search(x, *args)
    )
    value, items = index.search(user, 9, links)
    assert torch.equal(value, expected[0])
    assert (items != torch.arange(50).view(-1, 1)).all()
    assert sum(sizes) == 50 and max(sizes) <= 7


def test_a_users_list_does_not_depend_on_the_others(
    planted: tuple[Tensor, Tensor], approximate: Callable[..., ItemIndex]
) -> None:
    user, item = planted
    for index in (ItemIndex(item), approximate()):
        alone = torch.cat([index.search(x, 20)[1] for x in user.split(1)])
        assert torch.equal(alone, index.search(user, 20)[1])


def test_nobody_and_other_precisions() -> None:
    item = integers(30, 5, seed=1)
    value, index = ItemIndex(item).search(torch.ones(0, 5), 3, torch.empty(2, 0, dtype=torch.long))
    assert value.shape == index.shape == (0, 3)
    user = integers(4, 5, seed=0)
    expected = ItemIndex(item).search(user, 3)[0]
    for dtype in (torch.bfloat16, torch.float64):
        value, index = ItemIndex(item.to(dtype)).search(user.to(dtype), 3)
        assert value.dtype == torch.float32 and index.dtype == torch.long
        assert torch.equal(value, expected)


def test_what_cannot_be_searched_is_refused() -> None:
    item = torch.ones(20, 4)
    with pytest.raises(ValueError, match=r"'k' must be a whole number, at least 1 \(got 0\)"):
        ItemIndex(item).search(torch.ones(1, 4), 0)
    with pytest.raises(ValueError, match=r"'user_emb' must have the shape \[N, 4\] \(got \[1, 5\]"):
        ItemIndex(item).search(torch.ones(1, 5), 1)
    with pytest.raises(ValueError, match=r"'item_emb' must have the shape \[N, 4\] \(got \[4\]"):
        ItemIndex(item).add(torch.ones(4))
    with pytest.raises(ValueError, match="'item_emb' must be finite"):
        ItemIndex(torch.tensor([[math.nan]]))
    with pytest.raises(ValueError, match="'user_emb' must be finite"):
        ItemIndex(item).search(torch.full((1, 4), math.inf), 1)
    with pytest.raises(ValueError, match=r"'item_emb' must hold items \(got the shape \[0, 4\]"):
        ItemIndex(item[:0])
    with pytest.raises(ValueError, match=r"at least 9984 items \(got 20\); use approximate=False"):
        ItemIndex(item, approximate=True)
    with pytest.raises(ValueError, match="with 300 cells must have at least 11700 items"):
        ItemIndex(torch.ones(10_000, 4), approximate=True, num_cells=300)
    for name in ("num_cells", "num_probes", "num_candidates"):
        with pytest.raises(ValueError, match=rf"'{name}' must be at least 1 \(got 0\)"):
            ItemIndex(torch.ones(10_000, 4), approximate=True, **{name: 0})


def test_without_faiss_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "gtc-pyg\[recommend\]"'):
        ItemIndex(torch.ones(3, 2))
