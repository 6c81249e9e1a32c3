from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Linear, ModuleDict, Sequential, Sigmoid, Tanh

from gtc_pyg.functional import check_least, contrast, normalize_rows, spmm, takes_numbers
from gtc_pyg.graph import CSRGraph, EdgeIndexDict, EdgeWeightDict, Features
from gtc_pyg.graph.content import check_widths, content_of
from gtc_pyg.graph.csr_graph import USER_TO_ITEM
from gtc_pyg.inductive.user_embedder import PropagatedUsers, item_degree
from gtc_pyg.models.components import Components
from gtc_pyg.models.graph_recommender import GraphRecommender
from gtc_pyg.models.heads import Head
from gtc_pyg.nn import RankingLoss


class MGCN(GraphRecommender):
    r"""MGCN: content purified by behaviour, spread apart from it, and fused by preference.

    From `"Multi-View Graph Convolutional Network for Multimedia Recommendation"
    <https://arxiv.org/abs/2308.03588>`_. IDs spread over the interactions as in LightGCN. In each
    modality :math:`m` an item's content gates its ID, and the result spreads over similar items and
    from there to users:

    .. math::
        [\bar e_u, \bar e_i] &= \frac{1}{L + 1} \sum_l \hat A^l [e_u, e_i], \qquad
        x_i^m = e_i \odot \sigma(W_2^m (W_1^m f_i^m + b_1^m) + b_2^m) \\
        \bar x_i^m &= (S^{L'} x^m)_i, \qquad
        \bar x_u^m = \sum_{i \in N(u)} \bar x_i^m / \sqrt{|N(u)| |N(i)|}

    What the modalities share is fused by attention, what is a modality's own by a gate of the
    behaviour; for users and items alike,

    .. math::
        \alpha^m &= \mathrm{softmax}_m \, q^\top \tanh(W_3 \bar x^m + b_3), \qquad
        s = \sum_m \alpha^m \bar x^m \\
        c &= s + \frac{1}{M} \sum_m \sigma(W_4^m \bar e + b_4^m) \odot (\bar x^m - s), \qquad
        y_{ui} = \langle \bar e_u + c_u, \; \bar e_i + c_i \rangle

    To the ranking loss training adds, over users and over items, the cross-entropy of a node's own
    :math:`\bar e` among those of others, by :math:`\cos(c, \bar e) / \tau`, and the squared length
    of the batch's embeddings, which are :math:`\bar e + c` as in the published code.

    Different from the paper: one graph of similar items, the weighted mean over the modalities
    (:class:`~gtc_pyg.transforms.ItemKNNGraph`), serves each of them, whose weights are not the
    cosines; the contrast compares the batch's users, and its positive items, each of them once;
    content is not trained. With a single modality :math:`c = \bar x`, and nothing is fused.

    Args:
        num_users: Number of users.
        num_items: Number of items.
        in_channels: Width of each modality's content.
        hidden_channels: Width of the embeddings.
        num_layers: Layers :math:`L` on the interactions.
        num_item_layers: Layers :math:`L'` on the item graph.
        contrast_weight: Weight of the contrast.
        temperature: :math:`\tau`.
        regularization: Weight of the squared length of the batch's embeddings.
        ranking: As in :class:`~gtc_pyg.models.GraphRecommender`.
        heads: As in :class:`~gtc_pyg.models.GraphRecommender`.
    """

    @takes_numbers
    def __init__(
        self,
        num_users: int,
        num_items: int,
        in_channels: Mapping[str, int],
        hidden_channels: int = 64,
        num_layers: int = 2,
        num_item_layers: int = 1,
        contrast_weight: float = 0.01,
        temperature: float = 0.2,
        regularization: float = 1e-4,
        ranking: RankingLoss | None = None,
        heads: Sequence[Head] = (),
    ) -> None:
        check_least(0, num_layers=num_layers, num_item_layers=num_item_layers)
        super().__init__(num_users, num_items, hidden_channels, ranking, heads)
        check_widths(in_channels)
        if not 0 < temperature < float("inf"):
            raise ValueError(f"'temperature' must be positive and finite (got {temperature})")
        self.num_layers = num_layers
        self.num_item_layers = num_item_layers
        self.contrast_weight = contrast_weight
        self.temperature = temperature
        self.regularization = regularization
        k, names = hidden_channels, list(in_channels)
        self.purifiers = ModuleDict(
            {m: Sequential(Linear(in_channels[m], k), Linear(k, k), Sigmoid()) for m in names}
        )
        self.query: Sequential | None = None
        self.preferences = ModuleDict()
        if len(names) > 1:
            self.query = Sequential(Linear(k, k), Tanh(), Linear(k, 1, bias=False))
            self.preferences.update({m: Linear(k, k) for m in names})
        self.reset_parameters()

    @property
    def in_channels(self) -> dict[str, int]:
        r"""Width of each modality's content."""
        first = {name: cast(Sequential, part)[0] for name, part in self.purifiers.items()}
        return {name: cast(Linear, lin).in_features for name, lin in first.items()}

    def reset_parameters(self) -> None:
        super().reset_parameters()
        torch.nn.init.xavier_uniform_(self.user_emb.weight)
        torch.nn.init.xavier_uniform_(self.item_emb.weight)
        for module in self.modules():
            if isinstance(module, Linear):
                module.reset_parameters()

    def embed(self, features: Features, graph: CSRGraph) -> tuple[Tensor, Tensor]:
        ids, content = self._views(features, graph)
        user_emb, item_emb = (ids + content).split([graph.num_users, graph.num_items])
        return user_emb, item_emb

    def loss(
        self,
        user: Tensor,
        pos_item: Tensor,
        neg_item: Tensor,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        graph = self.csr_graph(edge_index_dict, edge_weight_dict)
        user, pos_item, neg_item = graph.check_triple(user, pos_item, neg_item)
        users, row = user.unique(return_inverse=True)
        items, column = torch.cat([pos_item, neg_item]).unique(return_inverse=True)
        pos, neg = column.chunk(2)
        ids, content = self._views(features, graph, users, items)
        user_emb, item_emb = (ids + content).split([users.numel(), items.numel()])
        batch = torch.cat([user_emb[row], item_emb[column]])
        parts = {
            "ranking": self.rank_loss(user_emb, item_emb, row, pos, neg, graph, users, items),
            "regularization": self.regularization * 0.5 * batch.pow(2).sum() / user.numel(),
        }
        if self.contrast_weight > 0:
            liked = pos.unique() + users.numel()
            of_users = self._contrast(content[: users.numel()], ids[: users.numel()])
            of_items = self._contrast(content[liked], ids[liked])
            parts["contrast"] = self.contrast_weight * (of_users + of_items)
        return parts

    def user_adapter(self, features: Features, graph: CSRGraph) -> _FusedUsers:
        return _FusedUsers(self, graph, self.purified(features, graph))

    def components(self, features: Features, graph: CSRGraph) -> Components:
        return _FusedComponents(self, features, graph)

    def purify(self, features: Features, graph: CSRGraph) -> Tensor:
        r"""Items' content of all modalities, gated by their IDs, side by side, ``[I, M K]``."""
        e_item = graph.rows(self.item_emb, "item")
        purified = [
            e_item * purifier(content_of(features, name, graph.num_items, e_item.dtype))
            for name, purifier in self.purifiers.items()
        ]
        return torch.cat(purified, dim=1)  # for one product

    def purified(self, features: Features, graph: CSRGraph) -> Tensor:
        r"""The same, smoothed over the item graph."""
        out = self.purify(features, graph)
        for _ in range(self.num_item_layers):
            out = graph.smooth(out)
        return out

    def _views(
        self,
        features: Features,
        graph: CSRGraph,
        users: Tensor | None = None,
        items: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Behaviour and fused content, users above items; all, or those asked for, ascending."""
        e_user, e_item = graph.rows(self.user_emb, "user"), graph.rows(self.item_emb, "item")
        ids = graph.layer_mean(torch.cat([e_user, e_item]), self.num_layers)
        of_items = self.purified(features, graph)
        user_degree = graph.num_items_of_users
        item_degree = graph[USER_TO_ITEM].crow_indices().diff()
        if graph.nodes is not None:  # not all of their neighbours are sampled
            _, _, user_degree, item_degree = graph.nodes
        shares = of_items * item_degree.clamp(min=1).to(ids.dtype).rsqrt().view(-1, 1)
        of_users = spmm(*graph.items_of(users), shares)
        if users is not None and items is not None:
            ids = ids.index_select(0, torch.cat([users, items + graph.num_users]))
            of_items, user_degree = of_items.index_select(0, items), user_degree[users]
        of_users = of_users * user_degree.to(ids.dtype).sqrt().view(-1, 1)
        content = torch.cat([of_users, of_items]).unflatten(1, (len(self.purifiers), -1))
        return ids, self.fuse(ids, content)

    def fuse(self, ids: Tensor, content: Tensor) -> Tensor:
        r"""Fuses content ``[N, M, K]`` by the behaviour ``[N, K]``, ``[N, K]``."""
        if self.query is None:
            return content.squeeze(1)
        shared = (self.query(content).softmax(dim=1) * content).sum(dim=1)
        gates = [cast(Linear, lin)(ids).sigmoid() for lin in self.preferences.values()]
        own = torch.stack(gates, dim=1) * (content - shared.unsqueeze(1))
        return shared + own.mean(dim=1)

    def fusion_weights(self, ids: Tensor, content: Tensor) -> Tensor:
        r"""What :meth:`fuse` multiplies the content with, before it adds up, ``[N, M, K]``."""
        if self.query is None:
            return torch.ones_like(content)
        share = self.query(content).softmax(dim=1)
        gates = [cast(Linear, lin)(ids).sigmoid() for lin in self.preferences.values()]
        gate = torch.stack(gates, dim=1)
        return share * (1 - gate.mean(dim=1, keepdim=True)) + gate / gate.size(1)

    def _contrast(self, content: Tensor, ids: Tensor) -> Tensor:
        content, ids = normalize_rows(content), normalize_rows(ids)
        own = torch.arange(ids.size(0), device=ids.device).view(-1, 1)
        return contrast(content, ids, ids, ids.new_tensor(1 / self.temperature), own)


class _FusedUsers(PropagatedUsers):
    """Users of an MGCN: what is propagated to them, and the content of their items."""

    def __init__(self, model: MGCN, graph: CSRGraph, content: Tensor) -> None:
        user, item = model.user_emb.weight, model.item_emb.weight
        super().__init__(graph, user, item, model.num_layers, model.ranking.scale)
        self.model = model
        self.content_messages = content * item_degree(graph, item.dtype).rsqrt()

    def embed(self, new: CSRGraph, ego: Tensor) -> Tensor:
        ids, degree = self.propagate(new, ego), new.num_items_of_users.to(ego.dtype)
        content = degree.sqrt().view(-1, 1) * new.mean_of_items(self.content_messages)
        content = content.unflatten(1, (len(self.model.purifiers), -1))
        return self.scale * (ids + self.model.fuse(ids, content))


class _FusedComponents(Components):
    """Sources of an MGCN: gates and attention as they are, content is a weighted sum."""

    def __init__(self, model: MGCN, features: Features, graph: CSRGraph) -> None:
        user, item, scale = model.user_emb.weight, model.item_emb.weight, model.ranking.scale
        nothing = torch.zeros_like(item)
        of_items = [item, *(nothing for _ in model.modalities)]
        super().__init__(
            graph, user, of_items, model.num_layers, scale=scale, modalities=model.modalities
        )
        self.model, self.num_item_layers = model, model.num_item_layers
        self.content = model.purify(features, graph).unflatten(1, (len(model.modalities), -1))
        self.users = _FusedUsers(model, graph, model.purified(features, graph))
        self.item_ids = graph.layer_mean(torch.cat([user, item]), model.num_layers)
        self.item_ids = self.item_ids[graph.num_users :]

    def of_user(self, new: CSRGraph, ego: Tensor) -> tuple[Tensor, Tensor, Mapping[str, Any]]:
        own, past, filtered = super().of_user(new, ego)
        content = self.users.content_messages[new.user_items].unflatten(1, self.content.shape[1:])
        content = content / max(1, len(content)) ** 0.5
        ids = self.users.propagate(new, ego.view(1, -1))
        weight = self.model.fusion_weights(ids, content.sum(dim=0, keepdim=True))
        past[:, 1:] += self.scale * weight * content
        return own, past, filtered

    def of_item(self, item: int) -> tuple[Tensor, Tensor, Tensor]:
        itself, (rows, share) = self.itself[item].clone(), self._reached(item)
        near = self.itself.new_zeros(rows.numel(), *itself.shape)
        near[:, 1:] = self.content[rows] * share.view(-1, 1, 1)
        ids, whole = self.item_ids[item].view(1, -1), near[:, 1:].sum(dim=0, keepdim=True)
        near[:, 1:] *= self.model.fusion_weights(ids, whole)
        return itself, rows, near

    def _reached(self, item: int) -> tuple[Tensor, Tensor]:
        if self.num_item_layers > 0:
            return self.graph.neighbors(item, self.num_item_layers, self.content)
        rows = torch.tensor([item], device=self.content.device)
        return rows, self.content.new_ones(1)
