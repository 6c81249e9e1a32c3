from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import Embedding

from gtc_pyg.functional import check_least, check_one_of, normalize_rows, sampled_softmax
from gtc_pyg.models.content import Features, content_with_masks
from gtc_pyg.models.content_filter import ContentFilter
from gtc_pyg.models.filtered import Filtered, hear
from gtc_pyg.models.graph_recommender import (
    CSRGraph,
    EdgeIndexDict,
    EdgeWeightDict,
    GraphRecommender,
)
from gtc_pyg.models.gtc_losses import content_losses
from gtc_pyg.models.gtc_newcomers import item_side, user_side
from gtc_pyg.models.item_embedder import ItemSide
from gtc_pyg.models.low_pass import LowPass
from gtc_pyg.models.user_embedder import UserSide
from gtc_pyg.nn import SimilarityGate, TotalCorrelationLoss


class _IDs(NamedTuple):
    """ID embeddings of a graph's users and items, and the same at unit length."""

    user: Tensor
    item: Tensor
    unit_user: Tensor
    unit_item: Tensor


class GTC(GraphRecommender):
    r"""Recommends by content filtered for each user, all modalities aligned at once.

    From `"User-Aware Conditional Generative Total Correlation Learning for Multi-Modal
    Recommendation" <https://arxiv.org/abs/2604.03014>`_:

    1. each modality is encoded, :math:`x_i^m` (:class:`~gtc_pyg.nn.ModalityEncoder`);
    2. a conditional diffusion filters it, :math:`\hat x_i^m`, and for each user
       :math:`\hat x_{ui}^m` (:class:`~gtc_pyg.models.content_filter.ContentFilter`);
    3. :math:`z_i` fuses it with the item's ID embedding (:class:`~gtc_pyg.nn.SimilarityGate`);
    4. :math:`[e_u, z_i]` passes over the interaction graph as in LightGCN;
    5. the content of a user's items, **filtered for that user**,
       :math:`p_u^m = \frac{1}{|N(u)|} \sum_{i \in N(u)} \hat x_{ui}^m`, at unit length and weighed
       by modality, :math:`\lambda a_u^m`, is added to the user (:math:`\lambda` is
       ``content_strength``);
    6. items are smoothed over the item graph; scores are inner products;
    7. where ``low_pass_strength`` is not 0, what a low-pass filter of the interactions says is
       added to them, in no loss but whenever items are ranked (:class:`~gtc_pyg.models.LowPass`).

    With ``filter_in='score'`` the filter acts in the score instead: :math:`\lambda \sum_m a_u^m
    \langle p_u^m, \hat x_{ui}^m \rangle` is added. Both are factorised: no
    network runs per edge or pair, and ranking stays an inner product.

    Ours, where the published code differs: the denoisers are trained and see all of an item's
    users, of whom the batch's learn in a step; inference draws no noise; embeddings are normalised,
    and ``score_scale`` sets the range of scores; content enters one stream of propagation instead
    of one per modality, which measured better on TikTok (``benchmarks/notes.md``). The presets let
    ID embeddings start from the interactions (:meth:`start_from`).

    Args:
        num_users: Number of users.
        num_items: Number of items.
        in_channels: Width of each modality's content, one modality or more.
        hidden_channels: Common width :math:`D`.
        condition: Of the denoisers: ``'item'``, ``'neighbors'`` or ``'user'``.
        filter_channels: Width of the denoisers; ``hidden_channels`` where ``None``.
        num_layers: Layers on the interactions.
        num_item_layers: Layers on the item graph; with 0 none is needed.
        schedule: ``'linear'`` or ``'cosine'``.
        num_steps: Steps :math:`T` of the schedule.
        start_step: :math:`t_0`, where the filter starts.
        num_sampling_steps: Denoising steps from :math:`t_0` to 0; with 0 content stays as it is.
        score_scale: Factor on the scores.
        content_strength: Length of the users' filtered content beside their embedding.
        diffusion_weight: Weight of the diffusion loss.
        total_correlation_weight: Weight of the total-correlation loss.
        filter_weight: Weight of the filter's own ranking loss
            (:meth:`~gtc_pyg.models.content_filter.ContentFilter.ranking_loss`).
        filter_in: Where a user's filter acts: ``'messages'``, ``'score'`` or ``'both'``.
        content_batch_size: How many of a batch's interactions, the first ones, the losses on
            content look at: diffusion, filter and total correlation. More cost time; on planted
            data gates told users apart better with all 2,048 (``benchmarks/notes.md``).
        negatives: As in :class:`~gtc_pyg.nn.TotalCorrelationLoss`.
        product_scale: As in :class:`~gtc_pyg.nn.TotalCorrelationLoss`.
        regularization: Weight of the squared length of the batch's embeddings.
        edge_dropout: As in :class:`~gtc_pyg.models.GraphRecommender`.
        incomplete: Modalities that some items lack; ``features['has_<modality>']`` says which.
        num_negatives: How many of a batch's negatives, the first ones, all of its users share in a
            sampled softmax (:func:`gtc_pyg.functional.sampled_softmax`), which leaves out a user's
            items among them as far as their edges were not pruned; 1 is BPR, with each
            interaction's own.
        item_bias: Whether a learned number is added to all scores of an item.
        alignment: What aligns content with IDs and with each other: ``'total_correlation'`` of all
            at once, or its mean over pairs, ``'pairwise'`` (then InfoNCE, for comparison).
        similarity_gate: Whether content counts by its similarity to the ID embedding, and not all
            of it alike.
        low_pass_strength: Weight of the low-pass filter beside the learned embeddings, in the
            scores of :meth:`forward`; the losses do not see it. Needs :meth:`fit_low_pass`.
        low_pass_channels: How many directions it keeps.
        low_pass_debiasing: Power of the length by which an item's columns of the filter are
            divided, 0 to 1, which takes from popular items their lead.
        low_pass_regularization: Share of the mean degree that is added to degrees in the filter.
        user_ids: Whether users reach the denoisers by ID embeddings as well as by the content of
            their items. Better on real data; without it the filter is a matter of content alone,
            and finds planted preferences better (``benchmarks/notes.md``).
    """

    PUBLISHED: ClassVar[Mapping[str, Any]] = {
        "condition": "neighbors",
        "diffusion_weight": 0.7,
        "total_correlation_weight": 0.4,
        "filter_weight": 0.0,
        "product_scale": "none",
    }
    r"""What :meth:`published` changes."""

    def __init__(
        self,
        num_users: int,
        num_items: int,
        in_channels: Mapping[str, int],
        hidden_channels: int = 64,
        condition: str = "user",
        filter_channels: int | None = None,
        num_layers: int = 2,
        num_item_layers: int = 1,
        schedule: str = "linear",
        num_steps: int = 600,
        start_step: int = 100,
        num_sampling_steps: int = 1,
        score_scale: float = 1.0,
        content_strength: float = 0.05,
        diffusion_weight: float = 0.1,
        total_correlation_weight: float = 0.01,
        filter_weight: float = 0.01,
        filter_in: str = "messages",
        content_batch_size: int = 512,
        num_negatives: int = 1,
        item_bias: bool = False,
        negatives: str = "n",
        product_scale: str = "sqrt_dim",
        regularization: float = 1e-4,
        edge_dropout: float = 0.0,
        incomplete: Sequence[str] = (),
        user_ids: bool = True,
        alignment: str = "total_correlation",
        similarity_gate: bool = True,
        low_pass_strength: float = 0.0,
        low_pass_channels: int = 128,
        low_pass_debiasing: float = 0.0,
        low_pass_regularization: float = 1.0,
    ) -> None:
        super().__init__(num_users, num_items, edge_dropout)
        check_one_of(("messages", "score", "both"), filter_in=filter_in)
        check_one_of(("total_correlation", "pairwise"), alignment=alignment)
        check_least(0, num_layers=num_layers, num_item_layers=num_item_layers)
        check_least(1, content_batch_size=content_batch_size, num_negatives=num_negatives)
        self.hidden_channels = hidden_channels
        self.num_layers = num_layers
        self.num_item_layers = num_item_layers
        self.score_scale = score_scale
        self.content_strength = content_strength
        self.diffusion_weight = diffusion_weight
        self.total_correlation_weight = total_correlation_weight
        self.filter_weight = filter_weight
        self.filter_in = filter_in
        self.content_batch_size = content_batch_size
        self.regularization = regularization
        self.num_negatives = num_negatives
        self.alignment = alignment
        self.user_emb = Embedding(num_users, hidden_channels)
        self.item_emb = Embedding(num_items, hidden_channels)
        self.item_bias = Embedding(num_items, 1) if item_bias else None
        if low_pass_strength != 0:
            self.low_pass = LowPass(
                num_items,
                low_pass_channels,
                low_pass_strength,
                low_pass_debiasing,
                low_pass_regularization,
            )
        self.filter = ContentFilter(
            in_channels,
            hidden_channels,
            condition,
            filter_channels,
            schedule,
            num_steps,
            start_step,
            num_sampling_steps,
            incomplete,
            user_ids,
        )
        self.gate = SimilarityGate(normalized=True, uniform=not similarity_gate)
        self.total_correlation = TotalCorrelationLoss(negatives, product_scale=product_scale)
        self.reset_parameters()

    @classmethod
    def published(
        cls, num_users: int, num_items: int, in_channels: Mapping[str, int], **changes: Any
    ) -> Self:
        r"""With the published settings, as far as they are ones here: the condition that the paper
        describes, weights, schedule, contrast and BPR; what the class calls ours stays, and a graph
        of users is missing. Trained with batches of 2,048, learning rate 1e-4, patience 20.

        Args:
            num_users: As in the class.
            num_items: As in the class.
            in_channels: As in the class.
            **changes: Arguments of the class that go before.
        """
        return cls(num_users, num_items, in_channels, **{**cls.PUBLISHED, **changes})

    @property
    def low_pass_strength(self) -> float:
        r"""Weight of the low-pass filter, 0 without one; it may be set where there is one."""
        return 0.0 if self.low_pass is None else self.low_pass.strength

    @low_pass_strength.setter
    def low_pass_strength(self, strength: float) -> None:
        if self.low_pass is None:
            raise AttributeError("made with 'low_pass_strength' 0: there is no filter to weigh")
        self.low_pass.set_strength(strength)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.filter.encoders)

    def reset_parameters(self) -> None:
        r"""Draws all weights anew."""
        for embedding in (self.user_emb, self.item_emb):
            torch.nn.init.normal_(embedding.weight, std=0.025)
        if self.item_bias is not None:
            torch.nn.init.zeros_(self.item_bias.weight)
        self.filter.reset_parameters()
        self.total_correlation.reset_parameters()

    def forward(
        self,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
    ) -> tuple[Tensor, Tensor]:
        graph = self.csr_graph(edge_index_dict, edge_weight_dict)
        return self._embed(self.filter_content(features, graph), graph)[:2]

    def filter_content(
        self,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
        user: Tensor | None = None,
    ) -> dict[str, Filtered]:
        r"""Filters the content of all items, see :attr:`filter`; arguments as :meth:`forward`.

        Args:
            features: As in :meth:`forward`.
            edge_index_dict: As in :meth:`forward`.
            edge_weight_dict: As in :meth:`forward`.
            user: Users that it is asked for, ascending and none twice; all where ``None``.
        """
        graph = self.csr_graph(edge_index_dict, edge_weight_dict)
        return self._filter(features, graph, self._ids(graph), user)

    def _ids(self, graph: CSRGraph) -> _IDs:
        user, item = graph.rows(self.user_emb, "user"), graph.rows(self.item_emb, "item")
        return _IDs(user, item, normalize_rows(user), normalize_rows(item))

    def _filter(
        self, features: Features, graph: CSRGraph, ids: _IDs, user: Tensor | None
    ) -> dict[str, Filtered]:
        names = list(self.filter.encoders), self.filter.incomplete
        content = content_with_masks(features, *names, graph.num_items, ids.item.dtype)
        return self.filter(content, ids.unit_item, graph, user, ids.unit_user)

    def _fused(self, filtered: Mapping[str, Filtered], ids: _IDs) -> Tensor:
        """What is propagated, users above items."""
        fused, _ = self.gate(ids.unit_item, [normalize_rows(f.x_hat) for f in filtered.values()])
        return torch.cat([ids.unit_user, fused])

    def _embed(
        self,
        filtered: Mapping[str, Filtered],
        graph: CSRGraph,
        user: Tensor | None = None,
        ids: _IDs | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Users (those that ``filtered`` was asked for), all items, and the users' content.

        Some users are asked for in training, which the low-pass filter has no part in.
        """
        ids = ids or self._ids(graph)
        out = graph.layer_mean(self._fused(filtered, ids), self.num_layers)
        users, items = out.split([graph.num_users, graph.num_items])
        if user is not None:
            users = users.index_select(0, user)
        content = self.filter.for_users(filtered, graph)
        parts, low_pass = [graph.with_similar(items, self.num_item_layers)], None
        if self.low_pass is not None and user is None:
            parts.append(self.low_pass.items(graph, self.num_item_layers))
            low_pass = self.low_pass.users(graph)
        parts += self._item_factors(filtered)
        if self.item_bias is not None:
            parts.append(graph.rows(self.item_bias, "item"))
        return self._users(users, filtered, content, low_pass), torch.cat(parts, dim=-1), content

    def _item_factors(self, filtered: Mapping[str, Filtered]) -> list[Tensor]:
        """What the items have in the score, modality by modality, where the filter acts there."""
        every = filtered.values()
        return [] if self.filter_in == "messages" else [f.item_factors() for f in every]

    def _users(
        self,
        users: Tensor,
        filtered: Mapping[str, Filtered],
        content: Mapping[str, Tensor],
        low_pass: Tensor | None = None,
    ) -> Tensor:
        """What was propagated to users and what their items tell them, ready to be ranked by."""
        users, *parts = hear(users, filtered, content, self.content_strength, self.filter_in)
        if low_pass is not None:
            parts.insert(0, low_pass)
        if self.item_bias is not None:
            parts.append(users.new_full((users.size(0), 1), 1 / self.score_scale))
        return self.score_scale * torch.cat([users, *parts], dim=-1)

    def _item_side(self, features: Features, graph: CSRGraph) -> ItemSide:
        return item_side(self, features, graph)

    def _user_side(self, features: Features, graph: CSRGraph) -> UserSide:
        return user_side(self, features, graph)

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
        users, rows = user.unique(return_inverse=True)
        ids = self._ids(graph)
        filtered = self._filter(features, graph, ids, users)
        user_emb, item_emb, content = self._embed(filtered, graph, users, ids)
        both = torch.cat([pos_item, neg_item])
        ego = torch.cat([ids.user.index_select(0, user), ids.item.index_select(0, both)])
        size = ego.pow(2).sum() / (2 * user.numel())
        if self.num_negatives == 1:
            ranking = self._rank_loss(user_emb, item_emb, rows, pos_item, neg_item)
        else:
            sample, known = neg_item[: self.num_negatives].unique(), graph.items_of(users)[0]
            ranking = sampled_softmax(user_emb, item_emb, rows, pos_item, sample, known)
        parts = {"ranking": ranking, "regularization": self.regularization * size}
        some = slice(self.content_batch_size)
        triple = (rows[some], pos_item[some], neg_item[some])
        return parts | content_losses(
            self, filtered, content, features, graph, ids.item, triple, generator
        )
