r"""Full ranking: every item is a candidate, seen ones excluded; metrics are PyG's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.metrics import (
    LinkPredMAP,
    LinkPredMetricCollection,
    LinkPredNDCG,
    LinkPredPrecision,
    LinkPredRecall,
)
from torch_geometric.utils import coalesce, cumsum

from gtc_pyg.functional import SCORE_BYTES, check_edges, inner_product_topk, takes_numbers

__all__ = ["KS", "METRICS", "GroupedEdges", "Ranker", "ranking_metrics", "evaluate"]

KS = (5, 10, 20)
METRICS = {
    "Recall": LinkPredRecall,
    "NDCG": LinkPredNDCG,
    "Precision": LinkPredPrecision,
    "MAP": LinkPredMAP,
}


@takes_numbers
def ranking_metrics(ks: Sequence[int] = KS) -> LinkPredMetricCollection:
    r"""PyG's metrics under the names ``Recall@5`` ... ``MAP@20``."""
    return LinkPredMetricCollection(
        {f"{name}@{k}": metric(k) for name, metric in METRICS.items() for k in ks}
    )


class GroupedEdges:
    r"""Edges grouped by user, so that those of a batch of users are one gather.

    Args:
        edge_index: Users and items ``[2, E]``.
        num_users: Number of users.
    """

    def __init__(self, edge_index: Tensor, num_users: int) -> None:
        edge_index = check_edges(edge_index, num_users, None)
        user, perm = edge_index[0].sort(stable=True)
        self.item = edge_index[1][perm]
        self.degree = torch.bincount(user, minlength=num_users)
        self.start = cumsum(self.degree)[:-1]

    def to(self, device: torch.device) -> None:
        self.item, self.degree = self.item.to(device), self.degree.to(device)
        self.start = self.start.to(device)

    def __call__(self, users: Tensor) -> tuple[Tensor, Tensor]:
        r"""Positions in ``users`` and items of their edges, each ``[E]``."""
        degree = self.degree[users]
        row = torch.arange(users.numel(), device=users.device).repeat_interleave(degree)
        offset = torch.arange(row.numel(), device=users.device) - cumsum(degree)[row]
        return row, self.item[self.start[users][row] + offset]


class Ranker:
    r"""Ranks all items for batches of users and knows which of them count.

    Args:
        label_edge_index: Held-out interactions ``[2, E]``, of which repeated ones count once; users
            without any are left out.
        exclude: Interactions that must not be recommended again (training, by option validation).
        num_users: Number of users.
        score_bytes: Memory for scores, see
            :func:`~gtc_pyg.functional.inner_product_topk`.
    """

    @takes_numbers
    def __init__(
        self,
        label_edge_index: Tensor,
        exclude: Sequence[Tensor],
        num_users: int,
        score_bytes: int = SCORE_BYTES,
    ) -> None:
        label_edge_index = check_edges(label_edge_index, num_users, None, "label_edge_index")
        exclude = [check_edges(edges, num_users, None, "exclude") for edges in exclude]
        if label_edge_index.size(1) == 0:
            raise ValueError("'label_edge_index' holds no interactions to evaluate")
        self.labels = GroupedEdges(coalesce(label_edge_index.long()), num_users)
        self.seen = GroupedEdges(torch.cat([label_edge_index[:, :0], *exclude], dim=1), num_users)
        self.users = self.labels.degree.nonzero().view(-1)
        self.score_bytes = score_bytes
        items = torch.cat([self.labels.item, self.seen.item])
        self.num_items = int(items.max()) + 1  # that there are at least

    def to(self, device: torch.device) -> Ranker:
        r"""Moves itself to the device of the embeddings."""
        self.labels.to(device)
        self.seen.to(device)
        self.users = self.users.to(device)
        return self

    def rank(self, user_emb: Tensor, item_emb: Tensor, users: Tensor, k: int) -> Tensor:
        r"""The best unseen items of each user, best first, ``[len(users), min(k, num_items)]``.

        Where a user has fewer than ``k`` unseen items, the rest is ``-1``.

        Raises:
            ValueError: For fewer items than there are interactions with.
        """
        if item_emb.size(0) < self.num_items:
            raise ValueError(
                f"'item_emb' must have {self.num_items} rows or more, for all items that the "
                f"interactions hold (got {item_emb.size(0)})"
            )
        seen = torch.stack(self.seen(users))
        return inner_product_topk(user_emb[users], item_emb, k, seen, self.score_bytes)[1]

    def update(
        self,
        metrics: LinkPredMetricCollection,
        user_emb: Tensor,
        item_emb: Tensor,
        users: Tensor,
    ) -> None:
        r"""Ranks for ``users`` and adds the outcome to ``metrics``."""
        pred = self.rank(user_emb, item_emb, users, metrics.max_k)
        # PyG's metrics match ids by offset: padding must be an id that no label has.
        pred = pred.masked_fill(pred < 0, item_emb.size(0))
        metrics.update(pred, torch.stack(self.labels(users)))


@takes_numbers
@torch.no_grad()
def evaluate(
    user_emb: Tensor,
    item_emb: Tensor,
    label_edge_index: Tensor,
    exclude: Sequence[Tensor],
    ks: Sequence[int] = KS,
    batch_size: int = 8192,
    score_bytes: int = SCORE_BYTES,
) -> dict[str, float]:
    r"""Recall, NDCG, Precision and MAP of a full ranking.

    Args:
        user_emb: ``[U, K]``.
        item_emb: ``[I, K]``.
        label_edge_index: Held-out interactions ``[2, E]``; repeated ones count once.
        exclude: Interactions that are no candidates, each ``[2, E]``: those of training, and by
            option those of validation.
        ks: Lengths of the list.
        batch_size: Users whose lists go to the metrics at the same time; a metric takes about as
            long for a hundred users as for a thousand.
        score_bytes: Memory for scores, see
            :func:`~gtc_pyg.functional.inner_product_topk`.

    Returns:
        ``{'Recall@5': ..., ...}``, means over the users who have held-out interactions.

    Example:
        >>> eye = torch.eye(3)
        >>> held_out, seen = torch.tensor([[0, 1], [0, 2]]), torch.tensor([[0], [1]])
        >>> round(evaluate(eye, eye, held_out, [seen], ks=[1])["Recall@1"], 2)
        0.5
    """
    for name, edges in (("label_edge_index", label_edge_index), *(("exclude", e) for e in exclude)):
        check_edges(edges, user_emb.size(0), item_emb.size(0), name)
    ranker = Ranker(label_edge_index, exclude, user_emb.size(0), score_bytes)
    metrics = ranking_metrics(ks)
    for users in ranker.users.split(batch_size):
        ranker.update(metrics, user_emb, item_emb, users)
    return {name: float(value) for name, value in metrics.compute().items()}
