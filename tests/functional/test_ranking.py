import math

import pytest
import torch
from torch import Tensor
from torch_geometric.nn.models.lightgcn import BPRLoss

from gtc_pyg.functional import sampled_softmax

Given = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def given(num_users: int = 5, num_items: int = 12) -> Given:
    """Embeddings, pairs of a row and one of its items, negatives, and what is known."""
    torch.manual_seed(0)
    known = torch.rand(num_users, num_items) < 0.3
    known[:, 0] = True  # nobody is without
    row, item = known.nonzero().t()
    order = torch.randperm(row.numel())[:9]
    negatives = torch.randperm(num_items)[:7]
    emb = torch.randn(num_users, 4), torch.randn(num_items, 4)
    return *emb, row[order], item[order], negatives, known.float().to_sparse_csr()


def test_equals_a_loop_from_the_equation() -> None:
    user_emb, item_emb, row, pos_item, negatives, known = given()
    total, dense = 0.0, known.to_dense()
    for u, i in zip(row.tolist(), pos_item.tolist(), strict=True):
        score = [float(user_emb[u] @ item_emb[j]) for j in range(item_emb.size(0))]
        others = sum(math.exp(score[j]) for j in negatives.tolist() if dense[u, j] == 0)
        total -= math.log(math.exp(score[i]) / (math.exp(score[i]) + others))
    loss = sampled_softmax(user_emb, item_emb, row, pos_item, negatives, known)
    assert float(loss) == pytest.approx(total / row.numel(), rel=1e-5)


def test_with_one_negative_it_is_the_loss_of_bpr() -> None:
    user_emb, item_emb, row, pos_item, negatives, known = given()
    nothing = torch.zeros(known.shape).to_sparse_csr()
    loss = sampled_softmax(user_emb, item_emb, row, pos_item, negatives[:1], nothing)
    pos = (user_emb[row] * item_emb[pos_item]).sum(1)
    neg = (user_emb[row] * item_emb[negatives[0]]).sum(1)
    torch.testing.assert_close(loss, BPRLoss()(pos, neg))


def test_an_own_item_among_the_negatives_changes_nothing() -> None:
    user_emb, item_emb, row, pos_item, negatives, known = given()
    loss = sampled_softmax(user_emb, item_emb, row, pos_item, negatives, known)
    own = known.to_dense().bool()[:, negatives]
    assert own.any()
    for u in range(user_emb.size(0)):
        alone = row == u
        fewer = negatives[~own[u]]
        if alone.any() and fewer.numel() < negatives.numel():
            pair = row[alone], pos_item[alone]
            full = sampled_softmax(user_emb, item_emb, *pair, negatives, known)
            torch.testing.assert_close(
                full, sampled_softmax(user_emb, item_emb, *pair, fewer, known)
            )
    nothing = torch.zeros(known.shape).to_sparse_csr()
    assert not torch.equal(loss, sampled_softmax(*given()[:5], nothing))


def test_users_with_all_sampled_items_add_nothing_to_the_loss() -> None:
    user_emb, item_emb, row, pos_item, negatives, known = given()
    everything = torch.ones(known.shape).to_sparse_csr()
    user_emb.requires_grad_(True)
    loss = sampled_softmax(user_emb, item_emb, row, pos_item, negatives, everything)
    loss.backward()
    assert float(loss.detach()) == 0
    assert user_emb.grad is not None and torch.equal(user_emb.grad, torch.zeros_like(user_emb))


def test_order_of_pairs_negatives_and_users_does_not_matter() -> None:
    user_emb, item_emb, row, pos_item, negatives, known = given()
    loss = sampled_softmax(user_emb, item_emb, row, pos_item, negatives, known)
    order, perm = torch.randperm(row.numel()), torch.randperm(user_emb.size(0))
    other = sampled_softmax(
        user_emb[perm],
        item_emb,
        perm.argsort()[row][order],
        pos_item[order],
        negatives.flip(0),
        known.to_dense()[perm].to_sparse_csr(),
    )
    torch.testing.assert_close(loss, other)


def test_gradients_by_differences() -> None:
    user_emb, item_emb, *rest = given()
    emb = [x.double().requires_grad_(True) for x in (user_emb, item_emb)]
    assert torch.autograd.gradcheck(lambda *e: sampled_softmax(*e, *rest), emb)


def test_half_precision_is_computed_in_floats() -> None:
    user_emb, item_emb, *rest = given()
    half = user_emb.bfloat16(), item_emb.bfloat16()
    loss = sampled_softmax(*half, *rest)
    assert loss.dtype == torch.float
    torch.testing.assert_close(loss, sampled_softmax(half[0].float(), half[1].float(), *rest))
