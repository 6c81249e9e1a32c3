import pytest
import torch

from gtc_pyg.evaluation import GroupedEdges
from gtc_pyg.recommend.best_items import Candidates, best_items

NOBODY = torch.empty(2, 0, dtype=torch.long)


@pytest.mark.parametrize("num_items", [1, 7, 300])
@pytest.mark.parametrize("k", [1, 5, 400])
def test_the_best_of_the_candidates_by_a_loop(num_items, k):
    generator = torch.Generator().manual_seed(num_items + k)
    user_emb = torch.randn(9, 6, generator=generator)
    item_emb = torch.randn(num_items, 6, generator=generator)
    excluded = torch.rand(9, num_items, generator=generator) < 0.3
    only = (torch.rand(num_items, generator=generator) < 0.8).nonzero().view(-1)
    only = only if only.numel() else torch.tensor([0])
    scores, items = best_items(user_emb, item_emb, k, Candidates(only), excluded.nonzero().t())
    assert scores.shape == items.shape == (9, min(k, only.numel()))
    dense = user_emb.double() @ item_emb.double().t()
    for user in range(9):
        free = [i for i in only.tolist() if not excluded[user, i]]
        best = sorted(free, key=lambda i: -float(dense[user, i]))[:k]
        found = items[user].tolist()
        assert found == best + [-1] * (len(found) - len(best))
        assert torch.allclose(scores[user, : len(best)], dense[user, best], atol=1e-12)
        assert (scores[user, len(best) :] == float("-inf")).all()


@pytest.mark.parametrize("k", [1, 5, 20])
def test_equal_scores_at_the_end_of_a_list_are_in_order_of_rows(k):
    user_emb, item_emb = torch.randn(3, 8), torch.randn(1, 8).repeat(100, 1)
    item_emb[70] = 2 * user_emb[1]
    seen = torch.tensor([[0, 0], [0, 2]])
    items = best_items(user_emb, item_emb, k, Candidates(), seen)[1].tolist()
    free = [i for i in range(100) if i not in (0, 2, 70)]
    order = {True: lambda rest: [70, *rest], False: lambda rest: [*rest, 70]}
    above = [float(u @ item_emb[70]) > float(u @ item_emb[1]) for u in user_emb]
    assert items[0] == order[above[0]](free)[:k]
    for row in (1, 2):
        assert items[row] == order[above[row]]([i for i in range(100) if i != 70])[:k]


def test_links_are_what_is_left_out_of_each_list():
    own = GroupedEdges(torch.tensor([[0, 2, 2], [5, 6, 7]]), 3)
    chosen = Candidates(never=torch.tensor([1, 3]), of_user=own)
    links = chosen.links(torch.tensor([2, 1])).t().tolist()
    assert sorted(links) == [[0, 1], [0, 3], [0, 6], [0, 7], [1, 1], [1, 3]]
    assert Candidates().links(torch.tensor([2, 1])).shape == (2, 0)


def test_nobody_has_no_list():
    scores, items = best_items(torch.zeros(0, 3), torch.zeros(4, 3), 2, Candidates(), NOBODY)
    assert scores.shape == items.shape == (0, 2)
