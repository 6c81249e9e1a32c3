from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from gtc_pyg.loader import InteractionBatch, InteractionLoader, NegativeSampler
from gtc_pyg.loader.interaction_loader import without_full_users

NUM_USERS, NUM_ITEMS = 12, 9


def interactions() -> Tensor:
    r"""Random, with user 0 lacking nothing but item 4, and user 11 without any."""
    matrix = torch.rand(NUM_USERS, NUM_ITEMS, generator=torch.Generator().manual_seed(0)) < 0.4
    matrix[0] = torch.arange(NUM_ITEMS) != 4
    matrix[11] = False
    edges = matrix.nonzero().t()
    return edges[:, torch.randperm(edges.size(1), generator=torch.Generator().manual_seed(1))]


def pairs(edges: Tensor) -> set[tuple[int, int]]:
    return set(zip(*edges.tolist(), strict=True))


def loader(batch_size: int = 7, seed: int = 0) -> InteractionLoader:
    return InteractionLoader(interactions(), NUM_USERS, NUM_ITEMS, batch_size, seed)


def epoch(batches: InteractionLoader) -> Tensor:
    return torch.cat([torch.stack(batch) for batch in batches], dim=1)


def test_negatives_are_every_other_item_and_never_a_positive() -> None:
    edges = interactions()
    users = torch.arange(NUM_USERS).repeat_interleave(2000)
    items = NegativeSampler(edges, NUM_USERS, NUM_ITEMS)(users, torch.Generator().manual_seed(0))
    drawn = pairs(torch.stack([users, items]))
    everything = {(u, i) for u in range(NUM_USERS) for i in range(NUM_ITEMS)}
    assert drawn == everything - pairs(edges)


@pytest.mark.parametrize("user", [0, 1, 5, 11])
def test_negatives_are_even_over_the_other_items(user: int) -> None:
    edges = interactions()
    sampler = NegativeSampler(edges, NUM_USERS, NUM_ITEMS)
    items = sampler(torch.full((9000,), user), torch.Generator().manual_seed(0))
    others = sorted(set(range(NUM_ITEMS)) - {i for u, i in pairs(edges) if u == user})
    count = torch.bincount(items, minlength=NUM_ITEMS)[others]
    assert count.sum() == 9000
    assert len(others) == 1 or stats.chisquare(count.numpy()).pvalue > 1e-3


def test_a_user_who_lacks_one_item_always_gets_it() -> None:
    items = NegativeSampler(interactions(), NUM_USERS, NUM_ITEMS)(
        torch.zeros(500, dtype=torch.long)
    )
    assert (items == 4).all()


def test_repeated_interactions_count_once() -> None:
    edges = interactions()
    once = NegativeSampler(edges, NUM_USERS, NUM_ITEMS)
    twice = NegativeSampler(torch.cat([edges, edges], dim=1), NUM_USERS, NUM_ITEMS)
    users = torch.arange(NUM_USERS).repeat(50)
    draws = [s(users, torch.Generator().manual_seed(3)) for s in (once, twice)]
    assert torch.equal(*draws)


def test_ids_beyond_32_bits_do_not_collide() -> None:
    edges = torch.tensor([[0, 2_000_000, 2_000_000], [5, 0, 3_999_999]])
    sampler = NegativeSampler(edges, 2_000_001, 4_000_000)
    items = sampler(torch.full((1000,), 2_000_000), torch.Generator().manual_seed(0))
    assert 1 <= items.min() <= items.max() <= 3_999_998
    assert items.max() > 3_900_000


def test_an_epoch_sees_every_interaction_once() -> None:
    edges, (user, item, _) = interactions(), epoch(loader())
    assert user.numel() == edges.size(1)
    assert pairs(torch.stack([user, item])) == pairs(edges)


def test_an_epoch_keeps_repeated_interactions() -> None:
    edges = torch.tensor([[0, 0, 1], [2, 2, 0]])
    out = epoch(InteractionLoader(edges, 2, 3, batch_size=2))
    assert sorted(zip(*out[:2].tolist(), strict=True)) == [(0, 2), (0, 2), (1, 0)]


def test_negatives_of_an_epoch_are_no_positives() -> None:
    batches, positives = loader(), pairs(interactions())
    for _ in range(20):
        user, _, negative = epoch(batches)
        assert not pairs(torch.stack([user, negative])) & positives


def test_seed_and_epoch_decide_everything() -> None:
    one, other = loader(seed=3), loader(seed=3)
    for _ in range(3):
        out = epoch(one)
        torch.rand(7)
        assert torch.equal(out, epoch(other))


def test_an_epoch_can_be_repeated_by_its_number() -> None:
    batches = loader()
    epochs = [epoch(batches) for _ in range(3)]
    batches.epoch = 1
    assert torch.equal(epoch(batches), epochs[1])


def test_the_global_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    epoch(loader())
    assert torch.equal(torch.get_rng_state(), state)


def test_epochs_and_seeds_differ() -> None:
    one, other = loader(seed=0), loader(seed=1)
    epochs = [epoch(one), epoch(one), epoch(other)]
    for i in range(3):
        for j in range(i):
            assert not torch.equal(epochs[i][:2], epochs[j][:2])
            assert not torch.equal(epochs[i][2].sort().values, epochs[j][2].sort().values)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batches_are_full_but_the_last(batch_size: int) -> None:
    batches = loader(batch_size)
    num = interactions().size(1)
    sizes = [batch.user.numel() for batch in batches]
    assert len(sizes) == len(batches)
    assert sum(sizes) == num
    assert all(size == batch_size for size in sizes[:-1])
    assert 1 <= sizes[-1] <= batch_size


def test_the_interactions_are_left_as_they_were() -> None:
    edges = interactions()
    before = edges.clone()
    epoch(InteractionLoader(edges, NUM_USERS, NUM_ITEMS))
    assert torch.equal(edges, before)


def test_a_batch_moves_as_a_whole() -> None:
    batch = next(iter(loader())).to("meta")
    assert isinstance(batch, InteractionBatch)
    assert all(tensor.device.type == "meta" for tensor in batch)


def with_full_user() -> Tensor:
    return torch.cat([interactions(), torch.tensor([[0], [4]])], dim=1)


def test_a_user_with_every_item_is_named_and_left_out() -> None:
    with pytest.warns(UserWarning, match=r"^user 0 has all 9 items .* none is drawn$") as found:
        batches = InteractionLoader(with_full_user(), NUM_USERS, NUM_ITEMS, 7)
        users, items, _ = epoch(batches)
    assert len(found) == 1
    assert pairs(torch.stack([users, items])) == {p for p in pairs(interactions()) if p[0] > 0}
    assert len(batches) == math.ceil(users.numel() / 7)


def test_users_with_every_item_are_named_by_their_ids() -> None:
    edges = torch.cat([with_full_user(), torch.tensor([[11] * NUM_ITEMS, range(NUM_ITEMS)])], 1)
    names = [f"u{user}" for user in range(NUM_USERS)]
    with pytest.warns(UserWarning, match=r"^user 'u0' and 1 more have all 9 items"):
        kept = without_full_users(edges, NUM_USERS, NUM_ITEMS, names)
    assert set(kept[0].tolist()) == set(range(1, 11))


def test_nothing_is_left_where_everybody_has_every_item() -> None:
    edges = torch.cartesian_prod(torch.arange(2), torch.arange(3)).t()
    with pytest.raises(ValueError, match=r"user 0 and 1 more have all 3 items .* no negative exis"):
        InteractionLoader(edges, 2, 3)


def test_drawing_for_a_user_with_every_item_is_refused() -> None:
    sampler = NegativeSampler(with_full_user(), NUM_USERS, NUM_ITEMS)
    assert sampler(torch.tensor([1, 2])).shape == (2,)
    with pytest.raises(ValueError, match=r"user 0 has all 9 items .* leave them out"):
        sampler(torch.tensor([1, 0]))


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=30),
    st.sampled_from([torch.int8, torch.int16, torch.int32, torch.int64]),
)
@settings(max_examples=50, deadline=None)
def test_an_epoch_is_of_all_users_who_lack_an_item(edges: list, dtype: torch.dtype) -> None:
    having: dict[int, set[int]] = {}
    for user, item in edges:
        having.setdefault(user, set()).add(item)
    full = {user for user, items in having.items() if len(items) == 3}
    tensor = torch.tensor(edges, dtype=dtype).t()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        if full == having.keys():
            with pytest.raises(ValueError, match="no negative exists"):
                InteractionLoader(tensor, 5, 3)
            return
        batches = InteractionLoader(tensor, 5, 3, batch_size=4)
        user, item, negative = epoch(batches)
    assert len(found) == bool(full)
    expected = sorted(edge for edge in edges if edge[0] not in full)
    assert sorted(zip(user.tolist(), item.tolist(), strict=True)) == expected
    assert all(n not in having[u] for u, n in zip(user.tolist(), negative.tolist(), strict=True))


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        ((-1, 0), "holds user -1, expected 0 to 11"),
        ((12, 0), "holds user 12, expected 0 to 11"),
        ((0, -2), "holds item -2, expected 0 to 8"),
        ((0, 9), "holds item 9, expected 0 to 8"),
    ],
)
def test_ids_out_of_range_are_named(edge: tuple[int, int], message: str) -> None:
    edges = torch.cat([interactions(), torch.tensor(edge).view(2, 1)], dim=1)
    with pytest.raises(ValueError, match=message):
        InteractionLoader(edges, NUM_USERS, NUM_ITEMS)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"'batch_size' must be at least 1 \(got 0\)"):
        loader(0)
    with pytest.raises(ValueError, match="'edge_index' holds no interactions"):
        InteractionLoader(interactions()[:, :0], NUM_USERS, NUM_ITEMS)
