from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from gtc_pyg.functional import full_precision, inner_product_topk, normalize_rows, to_csr
from gtc_pyg.graph.content import Features, present_rows
from gtc_pyg.graph.csr_graph import SIMILAR_ITEMS, USER_TO_ITEM, CSRGraph
from gtc_pyg.graph.make_graph import interactions_graph

MOST = 6000  # items that the map is learned from
SAMPLE = 1024  # of these, for its settings
PENALTIES = [10 ** (p / 4) for p in range(-8, 7)]
GRAPH_SHARE = 0.2  # of the row that the item graph gives an item without interactions


class ItemAdapter:
    r"""What a model makes of its items.

    Args:
        target: What interactions make of the known items ``[I, D]``, before similar items are
            added.
        item_id: The known items' ID embeddings ``[I, D]``, where :meth:`own` needs them.
    """

    def __init__(self, target: Tensor, item_id: Tensor | None = None) -> None:
        self.target, self.item_id = target, item_id

    def own(self, features: Features, item_id: Tensor) -> Tensor | None:
        r"""What the model makes of new items by themselves, nothing here.

        Args:
            features: Content of new items, the mean where there is none, and its masks.
            item_id: Their predicted ID embeddings ``[n, D]``.

        Returns:
            ``[n, D]``, or ``None``.
        """
        return None


class Columns(Protocol):
    r"""Further columns of items: a head of the model."""

    in_loss: ClassVar[bool]
    """Whether they were trained, and are the mean for an item without interactions; else they are
    predicted from content."""

    def items(self, graph: CSRGraph, num_item_layers: int) -> Tensor:
        r"""``[I, C]``."""


class ItemEmbedder:
    r"""Embeds items that nobody has touched, from their content (ours).

    Users, and items with interactions, stay as they were trained. Of an item without interactions
    the ID embedding says nothing, and what users send it is missing. Both are predicted: with the
    content :math:`f_i^m` of the modalities around the mean and at unit length,

    .. math::
        k(i, j) = \exp \Big( \sum_m w_m \cos(f_i^m, f_j^m) - 1 \Big), \qquad
        P_i = \mu + \sum_j k(i, j) \, \alpha_j, \qquad
        G_i = \sum_{j \in S(i)} s_{ij} \, z_j \Big/ \sum_{j \in S(i)} s_{ij},

    where :math:`P` is a kernel ridge regression of the items' propagated embeddings :math:`z_j`,
    learned from the items that have interactions, and :math:`G` the mean of :math:`z_j` over those
    of the similar items that have. Then

    .. math:: \hat z_i = \mu + a (P_i - \mu) + b (G_i - \mu) + \mathrm{own}_i

    with :math:`\mathrm{own}_i` what the model makes of an item by itself: in a
    :class:`~gtc_pyg.models.GTC` content filtered under the predicted ID embedding and fused with
    it, as of any item, so that a user's filter meets it in the score; nothing in the others.

    All is in closed form, and what it depends on is found on the known items by leave-one-out: the
    penalty of the regression, the weights :math:`w_m \propto (R_m^2 / (1 - R_m^2))^2` from what
    each modality explains alone, and :math:`a, b \geq 0` by least squares. The same predicts the
    columns of a :class:`~gtc_pyg.models.SpectralHead`. An item's bias cannot be predicted from
    content and is the mean of the known items.

    A known item without interactions is trained through its neighbours in the item graph:
    :meth:`replace` adds 0.2 times its row of ``forward``, brought to the length of
    :math:`\hat z`.

    Similar items are those of the item graph for a known item; for a new one the nine of largest
    :math:`\sum_m w_m \cos(f_i^m, f_j^m)`. A new item of the same content as a known one without
    interactions is embedded as that one, but for what the graph gave it. An absent modality
    (``has_<modality>`` false) has the cosine 0 with everything.

    Made by :meth:`GraphRecommender.item_embedder`, of a model as it is: after further training make
    another one. With more than 6,000 items that have interactions the regression is learned from
    6,000 of them, its settings are found on 1,024, both drawn from a fixed seed.

    Args:
        features: Content of the known items, ``[I, F_m]`` of each modality, and ``has_<modality>``.
        names: The modalities to use.
        adapter: What the model makes of its items.
        graph: The graph of training.
        columns: What stands beside, of each item.
        num_item_layers: Layers of the model on the item graph.

    Raises:
        ValueError: Where fewer than three items have interactions.
    """

    @full_precision()
    def __init__(
        self,
        features: Features,
        names: Sequence[str],
        adapter: ItemAdapter,
        graph: CSRGraph,
        columns: Iterable[Columns] = (),
        num_item_layers: int = 0,
    ) -> None:
        self.known = graph[USER_TO_ITEM].crow_indices().diff() > 0
        """The items that have interactions ``[I]`` (bool)."""
        rows = self.known.nonzero().view(-1)
        if rows.numel() < 3:
            raise ValueError(
                f"'edge_index_dict' must hold interactions with at least three items, to learn "
                f"from (got {rows.numel()})"
            )
        self._adapter, self._width = adapter, adapter.target.size(1)
        predicted: list[Tensor] = []
        averaged: list[Tensor] = []
        for head in columns:
            rows_of = averaged if head.in_loss else predicted
            rows_of.append(head.items(graph, num_item_layers))
        ids = [] if adapter.item_id is None else [adapter.item_id]
        self._target = torch.cat([adapter.target, *predicted, *ids], dim=1)
        self._num_beside = sum(x.size(1) for x in predicted)
        self._averaged = [x[self.known].mean(dim=0) for x in averaged]
        self._fitted = self._width or self._num_beside  # columns that settings are found on
        learned = self._target[:, : self._fitted]
        self._means = {name: self._mean(features, name) for name in names}
        unit = self._unit(features)
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(rows.numel(), generator=generator).to(rows.device)
        rows = rows[order[:MOST]] if rows.numel() > MOST else rows
        some = rows[torch.randperm(rows.numel(), generator=generator)[:SAMPLE].sort().values]
        z = learned[some].double()
        shares = {
            name: 1 - _best_penalty(_kernel(x[some], x[some]), z)[0] for name, x in unit.items()
        }
        odds = {name: (max(r, 1e-3) / (1 - min(r, 0.999))) ** 2 for name, r in shares.items()}
        self.weights = {name: odd / sum(odds.values()) for name, odd in odds.items()}
        r"""Of the modalities, :math:`w_m`."""
        self._content = self._mix(unit)
        x = self._content[some]
        self.penalty = _best_penalty(_kernel(x, x), z)[1]
        y = self._target[rows].double()
        self._learned, self._y_mean = self._content[rows], y.mean(dim=0)
        gram = _kernel(self._learned, self._learned).double()
        gram.diagonal().add_(self.penalty)
        factor = torch.linalg.cholesky(gram)
        self._alpha = torch.cholesky_solve(y - self._y_mean, factor)
        out = y - self._alpha / torch.cholesky_inverse(factor).diagonal().view(-1, 1)
        near, there = self._of_graph(graph)
        self.mix = self._stack(out, near, there, rows)
        r""":math:`a` and :math:`b`."""
        self._cold = (~self.known).nonzero().view(-1)
        own = {key: value[self._cold] for key, value in features.items()}
        self._cold_emb = self._embed(
            self._filled(own), self._content[self._cold], near[self._cold], there[self._cold]
        )

    def _mean(self, features: Features, name: str) -> Tensor:
        x = features[name][self.known & present_rows(features, name)]
        return x.mean(dim=0) if len(x) else features[name].new_zeros(features[name].size(1))

    def _unit(self, features: Features) -> dict[str, Tensor]:
        out = {}
        for name, mean in self._means.items():
            if name not in features:
                raise ValueError(f"'features' lacks {name!r} (it has {list(features)})")
            x = features[name]
            if x.dim() != 2 or x.size(1) != mean.numel():
                raise ValueError(
                    f"'features' at {name!r} must be [n, {mean.numel()}] (got {list(x.shape)})"
                )
            present = present_rows(features, name).view(-1, 1)
            out[name] = normalize_rows(torch.where(present, x - mean, 0.0))
        return out

    def _filled(self, features: Features) -> dict[str, Tensor]:
        """The content and its masks, with the mean where an item lacks a modality."""
        out = dict(features)
        for name, mean in self._means.items():
            out[f"has_{name}"] = present_rows(features, name)
            out[name] = torch.where(out[f"has_{name}"].view(-1, 1), features[name], mean)
        return out

    def _mix(self, unit: dict[str, Tensor]) -> Tensor:
        """Rows whose inner products are the weighted cosines."""
        return torch.cat([x * self.weights[name] ** 0.5 for name, x in unit.items()], dim=1)

    def _of_graph(self, graph: CSRGraph) -> tuple[Tensor, Tensor]:
        """Mean over similar items with interactions but oneself ``[I, D]``, and where there are."""
        if SIMILAR_ITEMS not in graph:
            return self._nearest(self._content, own=True)
        adj = graph[SIMILAR_ITEMS].to_sparse_coo().coalesce()
        (row, col), weight = adj.indices(), adj.values()
        kept = self.known[col] & (row != col)
        size = self.known.numel()
        matrix = to_csr(torch.stack([col, row])[:, kept], size, size, weight[kept])
        matrix = matrix.to(self._target.dtype)
        total = matrix @ torch.ones_like(self._target[:, :1])
        return (matrix @ self._target) / total.clamp(min=1e-12), total > 0

    def _nearest(self, content: Tensor, own: bool = False) -> tuple[Tensor, Tensor]:
        rows = self.known.nonzero().view(-1)
        itself = None
        if own:
            itself = torch.stack([rows, torch.arange(rows.numel(), device=rows.device)])
        near = inner_product_topk(content, self._content[rows], 9, itself)[1]
        return self._target[rows[near.clamp(min=0)]].mean(dim=1), (near >= 0).any(
            dim=1, keepdim=True
        )

    def _stack(self, out: Tensor, near: Tensor, there: Tensor, rows: Tensor) -> tuple[float, float]:
        usable = there[rows].view(-1)
        parts = (out, near[rows].double(), self._target[rows].double())
        p, g, z = ((x - self._y_mean)[usable, : self._fitted] for x in parts)
        if len(p) == 0:
            return 1.0, 0.0
        gram = torch.stack([(p * p).sum(), (p * g).sum(), (g * g).sum()])
        pz, gz = (p * z).sum(), (g * z).sum()
        det = gram[0] * gram[2] - gram[1] ** 2
        a = float((gram[2] * pz - gram[1] * gz) / det.clamp(min=1e-12))
        b = float((gram[0] * gz - gram[1] * pz) / det.clamp(min=1e-12))
        if a < 0 or b < 0 or det <= 0:  # one of them alone
            a, b = max(float(pz / gram[0].clamp(min=1e-12)), 0.0), 0.0
            if float(gz**2 / gram[2].clamp(min=1e-12)) > float(pz**2 / gram[0].clamp(min=1e-12)):
                a, b = 0.0, max(float(gz / gram[2].clamp(min=1e-12)), 0.0)
        return a, b

    def _embed(self, features: Features, content: Tensor, near: Tensor, there: Tensor) -> Tensor:
        p, (a, b) = _kernel(content, self._learned).double() @ self._alpha, self.mix
        g = torch.where(there, near - self._y_mean, p)
        both = (self._y_mean + a * p + b * g).to(self._target.dtype)
        widths = self._width, self._num_beside, both.size(1) - self._width - self._num_beside
        out, beside, item_id = both.split(widths, dim=1)
        own = self._adapter.own(features, normalize_rows(item_id))
        averaged = [x.expand(len(out), -1) for x in self._averaged]
        return torch.cat([out if own is None else out + own, beside, *averaged], dim=1)

    @torch.no_grad()
    @full_precision()
    def __call__(self, features: Features) -> Tensor:
        r"""Embeddings of new items.

        Args:
            features: Content of the new items, ``[n, F_m]`` of each modality, and
                ``has_<modality>`` where some lack it.

        Returns:
            ``[n, K]``, comparable with the users of the model's ``forward`` as its items are.

        Raises:
            ValueError: Where a modality is missing or has another width.
        """
        content = self._mix(self._unit(features))
        out = self._embed(self._filled(features), content, *self._nearest(content))
        if self._cold.numel() > 0 and len(out) > 0:
            twin = inner_product_topk(content, self._content[self._cold], 1)[1].view(-1)
            same = (content - self._content[self._cold[twin]]).abs().amax(dim=1) < 1e-5
            out = torch.where(same.view(-1, 1), self._cold_emb[twin], out)
        return out

    def replace(self, item_emb: Tensor) -> Tensor:
        r"""Items' embeddings with the rows of items without interactions replaced.

        Args:
            item_emb: As the model's ``forward`` gives them ``[I, K]``; it is not changed.
        """
        rows, trained = self._cold_emb.clone(), item_emb[self._cold, : self._fitted]
        lengths = [x.norm(dim=1).sum() for x in (rows[:, : self._fitted], trained)]
        rows[:, : self._fitted] += GRAPH_SHARE * lengths[0] / lengths[1].clamp(min=1e-12) * trained
        return item_emb.index_copy(0, self._cold, rows)


def without_interactions(like: Tensor) -> CSRGraph:
    r"""The graph of as many items as ``like`` has rows, and of one user, who has none."""
    none = torch.empty(2, 0, dtype=torch.long, device=like.device)
    graph = interactions_graph(none, 1, len(like))
    return CSRGraph({key: adj.to(like) for key, adj in graph.items()})


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.t() - 1).exp()


def _best_penalty(kernel: Tensor, y: Tensor) -> tuple[float, float]:
    """Share of the variance that is left, leaving one out, and the penalty that leaves least."""
    s, q = torch.linalg.eigh(kernel.double())
    s, y = s.clamp(min=0), y - y.mean(dim=0)
    along, found = q.t() @ y, []
    for penalty in PENALTIES:
        kept = s / (s + penalty)
        leverage = (q.pow(2) @ kept).clamp(max=1 - 1e-6).view(-1, 1)
        error = (y - q @ (kept.view(-1, 1) * along)) / (1 - leverage)
        found.append((float(error.pow(2).sum() / y.pow(2).sum().clamp(min=1e-12)), penalty))
    return min(found)
