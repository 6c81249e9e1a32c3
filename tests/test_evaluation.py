from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gtc_pyg.evaluation import Ranker, evaluate, ranking_metrics

KS = [1, 3, 5]
NUM_USERS, NUM_ITEMS = 30, 25


def random_split(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Disjoint training, validation and test interactions.

    Users 0 to 4 have no test item, user 5 more than five, user 6 three unseen items in all, one of
    which is a test item; items 20 and up are in no training.
    """
    generator = torch.Generator().manual_seed(seed)
    split = torch.randint(8, (NUM_USERS, NUM_ITEMS), generator=generator)
    split[:, 20:][split[:, 20:] == 0] = 7
    split[:5][split[:5] == 2] = 7
    split[5, :] = 7
    split[5, 2:11] = 2
    split[6] = 0
    split[6, 3:6] = torch.tensor([7, 2, 7])
    train, val, test = ((split == part).nonzero().t() for part in range(3))
    order = torch.randperm(test.size(1), generator=generator)
    return train, val, test[:, order]


def embeddings(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randn(NUM_USERS, 4, generator=generator), torch.randn(
        NUM_ITEMS, 4, generator=generator
    )


def evaluate_loop(
    user_emb: Tensor, item_emb: Tensor, test: Tensor, exclude: list[Tensor], ks: list[int]
) -> dict[str, float]:
    r"""Every metric from its definition, one user and one item at a time."""
    seen = {(u, i) for edges in exclude for u, i in edges.t().tolist()}
    positives: dict[int, set[int]] = {}
    for u, i in test.t().tolist():
        positives.setdefault(u, set()).add(i)
    totals: dict[str, list[float]] = {}
    for u, wanted in positives.items():
        candidates = [i for i in range(item_emb.size(0)) if (u, i) not in seen]
        candidates.sort(key=lambda i: -float(user_emb[u] @ item_emb[i]))
        for k in ks:
            hits = [rank for rank, i in enumerate(candidates[:k], start=1) if i in wanted]
            most = min(k, len(wanted))
            gain = sum(1 / math.log2(rank + 1) for rank in hits)
            best = sum(1 / math.log2(rank + 1) for rank in range(1, most + 1))
            found = [(n + 1) / rank for n, rank in enumerate(hits)]
            values = {
                "Recall": len(hits) / len(wanted),
                "Precision": len(hits) / k,
                "NDCG": gain / best,
                "MAP": sum(found) / most,
            }
            for name, value in values.items():
                totals.setdefault(f"{name}@{k}", []).append(value)
    return {name: sum(values) / len(values) for name, values in totals.items()}


@pytest.mark.parametrize("with_validation", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_equals_an_independent_loop(seed: int, with_validation: bool) -> None:
    train, val, test = random_split(seed)
    exclude = [train, val] if with_validation else [train]
    out = evaluate(*embeddings(seed), test, exclude, KS)
    assert out == pytest.approx(evaluate_loop(*embeddings(seed), test, exclude, KS), abs=1e-6)


def test_excluding_validation_items_changes_the_result() -> None:
    train, val, test = random_split(0)
    one, other = (evaluate(*embeddings(0), test, e, KS) for e in ([train], [train, val]))
    assert one != pytest.approx(other)


@pytest.mark.parametrize("batch_size", [1, 7, 1024])
def test_batch_size_does_not_matter(batch_size: int) -> None:
    train, _, test = random_split(0)
    out = evaluate(*embeddings(0), test, [train], KS, batch_size)
    assert out == pytest.approx(evaluate(*embeddings(0), test, [train], KS, 11), abs=1e-6)


def test_one_user_by_hand() -> None:
    # Ranked 0 to 4 by score, 1 is seen: the list is 0, 2, 3, 4, and the user wants 2, 4 and 3.
    item_emb = torch.tensor([[5.0], [4.0], [3.0], [2.0], [1.0]])
    test, train = torch.tensor([[0, 0, 0], [2, 4, 3]]), torch.tensor([[0], [1]])
    out = evaluate(torch.ones(1, 1), item_emb, test, [train], [1, 2])
    gain, best = 1 / math.log2(3), 1 + 1 / math.log2(3)
    assert out == pytest.approx(
        {
            "Recall@1": 0,
            "Recall@2": 1 / 3,
            "NDCG@1": 0,
            "NDCG@2": gain / best,
            "Precision@1": 0,
            "Precision@2": 1 / 2,
            "MAP@1": 0,
            "MAP@2": (1 / 2) / 2,
        }
    )


def test_a_perfect_list_has_perfect_scores() -> None:
    test = torch.tensor([[0, 0, 0], [3, 1, 2]])
    item_emb = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    out = evaluate(torch.ones(1, 1), item_emb, test, [], [1, 3])
    assert out == pytest.approx({**dict.fromkeys(out, 1.0), "Recall@1": 1 / 3})


def test_users_without_test_items_are_left_out() -> None:
    train, _, test = random_split(0)
    ranker = Ranker(test, [train], NUM_USERS)
    assert set(ranker.users.tolist()) == set(test[0].tolist())
    assert 0 not in ranker.users
    user_emb, item_emb = embeddings(0)
    expected = evaluate(user_emb, item_emb, test, [train], KS)
    user_emb[:5] = 1e6
    assert evaluate(user_emb, item_emb, test, [train], KS) == expected


def test_lists_hold_the_best_unseen_items_in_order() -> None:
    train, _, test = random_split(0)
    user_emb, item_emb = embeddings(0)
    ranker = Ranker(test, [train], NUM_USERS)
    seen = set(zip(*train.tolist(), strict=True))
    for u, row in zip(ranker.users, ranker.rank(user_emb, item_emb, ranker.users, 5), strict=True):
        candidates = [i for i in range(NUM_ITEMS) if (int(u), i) not in seen]
        candidates.sort(key=lambda i: -float(user_emb[u] @ item_emb[i]))
        assert [i for i in row.tolist() if i >= 0] == candidates[:5]


@pytest.mark.parametrize("item", range(NUM_ITEMS))
def test_padding_is_never_a_hit(item: int) -> None:
    # One unseen item beside the wanted one: three of five places are padding.
    test = torch.tensor([[0], [item]])
    other = (item + 7) % NUM_ITEMS
    seen = [[0, i] for i in range(NUM_ITEMS) if i not in (item, other)]
    item_emb = torch.zeros(NUM_ITEMS, 1)
    item_emb[other] = 1
    exclude = [torch.tensor(seen).t()]
    out = evaluate(torch.ones(1, 1), item_emb, test, exclude, [1, 5])
    assert Ranker(test, exclude, 1).rank(
        torch.ones(1, 1), item_emb, torch.tensor([0]), 5
    ).tolist() == [[other, item, -1, -1, -1]]
    assert out["Recall@1"] == 0
    assert out["Recall@5"] == 1
    assert out["Precision@5"] == pytest.approx(1 / 5)
    assert out["MAP@5"] == pytest.approx(1 / 2)


def test_padding_is_no_hit_of_the_user_before() -> None:
    # PyG counts ids through all users: -1 of the second would be the last item of the first.
    test, seen = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0, 1], [0, 1]])
    out = evaluate(torch.ones(2, 1), torch.ones(2, 1), test, [seen], [2])
    assert out["Precision@2"] == 1 / 2


def test_a_held_out_item_that_is_excluded_is_no_hit() -> None:
    test = torch.tensor([[0, 0], [0, 1]])
    out = evaluate(torch.ones(1, 1), torch.ones(2, 1), test, [test], [2])
    assert set(out.values()) == {0.0}


def test_list_longer_than_the_catalogue_keeps_k_in_precision() -> None:
    test = torch.tensor([[0, 0], [0, 1]])
    out = evaluate(torch.ones(1, 1), torch.ones(3, 1), test, [], [10])
    assert out["Recall@10"] == 1
    assert out["Precision@10"] == pytest.approx(2 / 10)


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_repeated_interactions_count_once(data: st.DataObject) -> None:
    train, _, test = random_split(0)
    repeated = []
    for edges in (test, train):
        rows = data.draw(st.lists(st.integers(0, edges.size(1) - 1), max_size=40))
        order = data.draw(st.permutations([*range(edges.size(1)), *rows]))
        dtype = data.draw(st.sampled_from([torch.int64, torch.int32]))
        repeated.append(edges[:, torch.tensor(order)].to(dtype))
    expected = evaluate(*embeddings(0), test, [train], KS)
    assert evaluate(*embeddings(0), repeated[0], [repeated[1].long()], KS) == expected


def test_a_perfect_list_is_perfect_for_a_repeated_pair() -> None:
    test = torch.tensor([[0, 0, 1, 1], [2, 2, 0, 1]])
    out = evaluate(torch.eye(2), torch.tensor([[0.0, 1], [0, 1], [1, 0]]), test, [], [2])
    assert out["Recall@2"] == out["NDCG@2"] == out["MAP@2"] == 1
    assert out["Precision@2"] == pytest.approx((1 / 2 + 1) / 2)


def test_order_of_interactions_does_not_matter() -> None:
    train, _, test = random_split(0)
    expected = evaluate(*embeddings(0), test, [train], KS)
    shuffled = [x[:, torch.randperm(x.size(1))] for x in (test, train)]
    assert evaluate(*embeddings(0), shuffled[0], [shuffled[1]], KS) == expected


def test_ranking_changes_nothing_and_needs_no_gradient() -> None:
    train, _, test = random_split(0)
    tensors = [*embeddings(0), test, train]
    tensors[0].requires_grad_()
    before = [tensor.clone() for tensor in tensors]
    evaluate(*tensors[:3], [tensors[3]], KS)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_names_of_metrics() -> None:
    names = ["Recall", "NDCG", "Precision", "MAP"]
    assert list(ranking_metrics([5, 10]).keys()) == [f"{n}@{k}" for n in names for k in (5, 10)]


def test_an_empty_split_is_named() -> None:
    with pytest.raises(ValueError, match="'label_edge_index' holds no interactions"):
        evaluate(*embeddings(0), torch.empty(2, 0, dtype=torch.long), [], KS)


@pytest.mark.parametrize("score_bytes", [4 * 3, 4 * 60, 2**24])
@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_pyg_on_the_whole_matrix(seed: int, score_bytes: int) -> None:
    # Users 0 to 4 have no label, user 5 more than the longest list.
    train, _, test = random_split(seed)
    user_emb, item_emb = embeddings(seed)
    score = user_emb @ item_emb.t()
    score[train[0], train[1]] = -math.inf
    metrics = ranking_metrics(KS)
    value, lists = score.topk(metrics.max_k)
    metrics.update(lists.masked_fill(value == -math.inf, NUM_ITEMS), test)
    expected = {name: float(number) for name, number in metrics.compute().items()}
    out = evaluate(*embeddings(seed), test, [train], KS, 8, score_bytes)
    assert out == pytest.approx(expected, abs=1e-6)
