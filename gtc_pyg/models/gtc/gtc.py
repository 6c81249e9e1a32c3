from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import Module

from gtc_pyg.functional import check_least, normalize_rows, takes_numbers
from gtc_pyg.graph import Batch, CSRGraph, EdgeIndexDict, EdgeWeightDict, Features
from gtc_pyg.models.graph_recommender import GraphRecommender
from gtc_pyg.models.gtc.components import FilteredComponents
from gtc_pyg.models.gtc.content_filter import ContentFilter
from gtc_pyg.models.gtc.filtered_content import FilteredContent
from gtc_pyg.models.gtc.ids import IDs
from gtc_pyg.models.gtc.inductive import FilteredUsers, FusedItems
from gtc_pyg.models.heads import Head, ItemBias, SpectralHead
from gtc_pyg.nn import BPR, RankingLoss, SampledSoftmax, SimilarityGate, TotalCorrelationLoss


class Embedded(NamedTuple):
    r"""What :meth:`GTC.steps` makes of the graph."""

    user: Tensor
    """The users asked for ``[N, D]``."""
    item: Tensor
    """All items ``[I, D]``."""
    filtered: dict[str, FilteredContent]
    """Content filtered for these users, by modality."""
    content: dict[str, Tensor]
    """The mean of it over the items of each user ``[N, D]``."""
    ids: IDs
    """ID embeddings."""


class GTC(GraphRecommender):
    r"""Recommends by content filtered for each user, all modalities aligned at once.

    From `"User-Aware Conditional Generative Total Correlation Learning for Multi-Modal
    Recommendation" <https://arxiv.org/abs/2604.03014>`_. :meth:`steps` takes the steps 1 to 5:

    1. each modality is encoded, :math:`x_i^m` (:class:`~gtc_pyg.nn.ModalityEncoder`), and filtered
       by a conditional diffusion, :math:`\hat x_i^m`, for each user :math:`\hat x_{ui}^m`
       (:class:`~gtc_pyg.models.ContentFilter`);
    2. :math:`z_i` fuses it with the item's ID embedding (:class:`~gtc_pyg.nn.SimilarityGate`);
    3. :math:`[e_u, z_i]` passes over the interaction graph as in LightGCN;
    4. the content of a user's items, **filtered for that user**,
       :math:`p_u^m = \frac{1}{|N(u)|} \sum_{i \in N(u)} \hat x_{ui}^m`, at unit length and weighed
       by modality, :math:`\lambda a_u^m`, is added to the user;
    5. items are smoothed over the item graph;
    6. heads add their columns; scores are inner products.

    The loss adds up ``ranking``, ``regularization`` (squared length of the batch's ID embeddings),
    ``diffusion`` (the error of the noise), ``filter`` (what tells a user's items from others) and
    ``total_correlation`` (the alignment of IDs and content).

    Ours, where the published code differs: the denoisers are trained and see all of an item's
    users, of whom the batch's learn in a step; inference draws no noise; embeddings are normalised,
    and the scale of the ranking loss sets the range of scores; content enters one stream of
    propagation instead of one per modality, which measured better on TikTok
    (``benchmarks/notes.md``).

    Args:
        num_users: Number of users.
        num_items: Number of items.
        in_channels: Width of each modality's content, one modality or more.
        content_filter: Filters content, and sets the width of the model; a
            :class:`~gtc_pyg.models.ContentFilter` with its defaults where ``None``.
        fusion: Fuses IDs and content: :class:`~gtc_pyg.nn.SimilarityGate` where ``None``.
        alignment: Aligns IDs and content; ``None`` for no alignment, unlike the other parts: a
            :class:`~gtc_pyg.nn.TotalCorrelationLoss` where ``'total_correlation'``.
        ranking: The ranking loss; ``SampledSoftmax(1024, scale=1.5)`` where ``None``.
        heads: ``[SpectralHead(256, strength=1.5), ItemBias()]`` where ``None``.
        num_layers: Layers on the interactions.
        num_item_layers: Layers on the item graph; with 0 none is needed.
        edge_dropout: As in :class:`~gtc_pyg.models.GraphRecommender`.
        loss_weights: Weights of the parts of the loss that differ from :attr:`LOSS_WEIGHTS`. A part
            on content that weighs 0 is not computed.

    Example:
        >>> from gtc_pyg.datasets import PlantedPreferences
        >>> data = PlantedPreferences(30, 20, ["image"], mean_degree=6.0)[0]
        >>> model = GTC(30, 20, {"image": 32}, num_item_layers=0, heads=[])
        >>> user_emb, item_emb = model({"image": data["item"].x_image}, data.edge_index_dict)
        >>> user_emb.shape
        torch.Size([30, 64])
    """

    LOSS_WEIGHTS: ClassVar[Mapping[str, float]] = {
        "regularization": 1e-4,
        "diffusion": 0.1,
        "filter": 0.01,
        "total_correlation": 0.01,
    }
    r"""Weights of the parts of the loss beside the ranking."""

    PUBLISHED: ClassVar[Mapping[str, Any]] = {
        "content_filter": {"condition": "neighbors", "strength": 0.05},
        "alignment": {"class": "TotalCorrelationLoss", "product_scale": "none"},
        "ranking": {"class": "BPR"},
        "heads": [],
        "edge_dropout": 0.0,
        "loss_weights": {"diffusion": 0.7, "total_correlation": 0.4, "filter": 0.0},
    }
    r"""The settings of :meth:`published`, as a file of settings has them."""

    @takes_numbers
    def __init__(
        self,
        num_users: int,
        num_items: int,
        in_channels: Mapping[str, int],
        content_filter: ContentFilter | None = None,
        fusion: Module | None = None,
        alignment: Module | str | None = "total_correlation",
        ranking: RankingLoss | None = None,
        heads: Sequence[Head] | None = None,
        num_layers: int = 2,
        num_item_layers: int = 1,
        edge_dropout: float = 0.5,
        loss_weights: Mapping[str, float] | None = None,
    ) -> None:
        check_least(0, num_layers=num_layers, num_item_layers=num_item_layers)
        if not isinstance(content_filter, ContentFilter | None):
            name = type(content_filter).__name__
            raise ValueError(f"'content_filter' must be a ContentFilter or None (got {name})")
        channels = 64 if content_filter is None else content_filter.channels
        if ranking is None:
            ranking = SampledSoftmax(1024, scale=1.5)
        if heads is None:
            heads = [SpectralHead(256, strength=1.5), ItemBias()]
        super().__init__(num_users, num_items, channels, ranking, heads, edge_dropout)
        if content_filter is None:
            content_filter = ContentFilter(in_channels, channels)
        elif content_filter.in_channels != dict(in_channels):
            raise ValueError(
                f"'content_filter' was made for {content_filter.in_channels}, 'in_channels' is "
                f"{dict(in_channels)}"
            )
        if not isinstance(fusion, Module | None):
            raise ValueError(f"'fusion' must be a module or None (got {type(fusion).__name__})")
        if isinstance(alignment, str) and alignment == "total_correlation":
            alignment = TotalCorrelationLoss()
        if not isinstance(alignment, Module | None):
            raise ValueError(
                f"'alignment' must be 'total_correlation', a module or None (got {alignment!r:.80})"
            )
        self.num_layers = num_layers
        self.num_item_layers = num_item_layers
        self.content_filter = content_filter
        self.fusion = SimilarityGate(normalized=True) if fusion is None else fusion
        self.alignment = alignment
        self.loss_weights = _loss_weights(self.LOSS_WEIGHTS, loss_weights or {})
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
        published: dict[str, Any] = {
            "content_filter": ContentFilter(in_channels, **cls.PUBLISHED["content_filter"]),
            "alignment": TotalCorrelationLoss(product_scale="none"),
            "ranking": BPR(),
            **{name: cls.PUBLISHED[name] for name in ("heads", "edge_dropout", "loss_weights")},
        }
        return cls(num_users, num_items, in_channels, **{**published, **changes})

    @property
    def in_channels(self) -> dict[str, int]:
        r"""Width of each modality's content."""
        return self.content_filter.in_channels

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for embedding in (self.user_emb, self.item_emb):
            torch.nn.init.normal_(embedding.weight, std=0.025)
        for part in (self.content_filter, self.fusion, self.alignment):
            if (reset := getattr(part, "reset_parameters", None)) is not None:
                reset()

    def ids(self, graph: CSRGraph) -> IDs:
        r"""ID embeddings of a graph's users and items."""
        return IDs.of(graph.rows(self.user_emb, "user"), graph.rows(self.item_emb, "item"))

    def filter_content(
        self,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
        user: Tensor | None = None,
    ) -> dict[str, FilteredContent]:
        r"""Filters the content of all items, see :class:`~gtc_pyg.models.ContentFilter`.

        Args:
            features: As in :meth:`forward`.
            edge_index_dict: As in :meth:`forward`.
            edge_weight_dict: As in :meth:`forward`.
            user: Users that it is asked for, ascending and none twice; all where ``None``.
        """
        graph = self.csr_graph(edge_index_dict, edge_weight_dict)
        return self._filter(features, graph, self.ids(graph), user)

    def embed(self, features: Features, graph: CSRGraph) -> tuple[Tensor, Tensor]:
        out = self.steps(features, graph)
        return out.user, out.item

    def steps(self, features: Features, graph: CSRGraph, user: Tensor | None = None) -> Embedded:
        r"""The steps 1 to 5.

        Args:
            features: As in :meth:`forward`.
            graph: What :meth:`csr_graph` gives.
            user: Users that are asked for, ascending and none twice; all where ``None``.
        """
        ids = self.ids(graph)
        filtered = self._filter(features, graph, ids, user)  # 1
        return self.after_filter(filtered, graph, ids)

    def after_filter(
        self, filtered: dict[str, FilteredContent], graph: CSRGraph, ids: IDs | None = None
    ) -> Embedded:
        r"""The steps 2 to 5.

        Args:
            filtered: What :meth:`filter_content` gives.
            graph: What :meth:`csr_graph` gives.
            ids: What :meth:`ids` gives, where it is known.
        """
        ids = self.ids(graph) if ids is None else ids
        fused = self.fuse(filtered, ids)  # 2
        out = graph.layer_mean(fused, self.num_layers)  # 3
        users, items = out.split([graph.num_users, graph.num_items])
        user = next(iter(filtered.values())).user_id
        users = users if user is None else users.index_select(0, user)
        content = self.content_filter.mean_content(filtered, graph)
        users = self.content_filter.add_content_messages(users, filtered, content)  # 4
        items = graph.with_similar(items, self.num_item_layers)  # 5
        return Embedded(users, items, filtered, content, ids)

    def fuse(self, filtered: Mapping[str, FilteredContent], ids: IDs) -> Tensor:
        r"""What is propagated, users above items ``[U + I, D]``.

        Args:
            filtered: Content of all items.
            ids: What :meth:`ids` gives.
        """
        content = [normalize_rows(f.x_hat) for f in filtered.values()]
        return torch.cat([ids.unit_user, self.fusion(ids.unit_item, content)[0]])

    def _filter(
        self, features: Features, graph: CSRGraph, ids: IDs, user: Tensor | None = None
    ) -> dict[str, FilteredContent]:
        return self.content_filter(features, ids.unit_item, graph, user, ids.unit_user)

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
        batch = Batch.of(features, graph, user, pos_item, neg_item)
        out = self.steps(features, graph, batch.user)
        parts = {
            "ranking": self.rank_loss(
                out.user, out.item, batch.row, pos_item, neg_item, graph, batch.user
            ),
            "regularization": out.ids.mean_square(user, torch.cat([pos_item, neg_item])),
        }
        if self.loss_weights["diffusion"] > 0:
            parts["diffusion"] = self._diffusion_loss(out, batch, generator)
        if self.loss_weights["filter"] > 0:
            parts["filter"] = self._filter_loss(out, batch)
        if self.alignment is not None and self.loss_weights["total_correlation"] > 0:
            parts["total_correlation"] = self._alignment_loss(out, batch, generator)
        return {name: self.loss_weights.get(name, 1.0) * part for name, part in parts.items()}

    def _diffusion_loss(
        self, out: Embedded, batch: Batch, generator: torch.Generator | None
    ) -> Tensor:
        row, item, _ = batch.first(self.content_filter.loss_batch_size)
        return self.content_filter.diffusion_loss(
            out.filtered, batch.features, row, item, generator
        )

    def _filter_loss(self, out: Embedded, batch: Batch) -> Tensor:
        triple = batch.first(self.content_filter.loss_batch_size)
        given = out.filtered, out.content, batch.features, batch.graph
        return self.content_filter.ranking_loss(*given, *triple)

    def _alignment_loss(
        self, out: Embedded, batch: Batch, generator: torch.Generator | None
    ) -> Tensor:
        assert self.alignment is not None
        items = batch.first(self.content_filter.loss_batch_size)[1].unique()
        # Content is drawn to what interactions say of an item, and not the other way round.
        views = [f.x_hat.index_select(0, items) for f in out.filtered.values()]
        views = [out.ids.item.detach().index_select(0, items), *views]
        has = [batch.features.get(f"has_{name}") for name in out.filtered]
        masks = [None, *(mask if mask is None else mask[items] for mask in has)]
        return self.alignment(views, masks, generator)

    def components(self, features: Features, graph: CSRGraph) -> FilteredComponents:
        ids = self.ids(graph)
        filtered = self._filter(features, graph, ids)
        content = [normalize_rows(f.x_hat) for f in filtered.values()]
        weight = self.fusion(ids.unit_item, content)[1].t().unsqueeze(-1)
        of_content = [w * x for w, x in zip(weight[1:], content, strict=True)]
        of_items = [ids.unit_item + weight[0] * ids.unit_item, *of_content]
        layers = self.num_layers, self.num_item_layers
        return FilteredComponents(
            self.content_filter, filtered, graph, ids, of_items, *layers, self.ranking.scale
        )

    def transform_user(self, user_emb: Tensor) -> Tensor:
        return normalize_rows(user_emb)

    def user_adapter(self, features: Features, graph: CSRGraph) -> FilteredUsers:
        ids = self.ids(graph)
        filtered = self._filter(features, graph, ids)
        item = self.fuse(filtered, ids)[graph.num_users :]
        return FilteredUsers(
            self.content_filter, filtered, graph, ids, item, self.num_layers, self.ranking.scale
        )

    def item_adapter(self, features: Features, graph: CSRGraph) -> FusedItems:
        ids = self.ids(graph)
        fused = self.fuse(self._filter(features, graph, ids), ids)
        target = graph.layer_mean(fused, self.num_layers)[graph.num_users :]
        return FusedItems(
            self.content_filter, self.fusion, target, ids.unit_item, 1 / (self.num_layers + 1)
        )


def _loss_weights(weights: Mapping[str, float], changes: Mapping[str, float]) -> dict[str, float]:
    unknown = sorted(set(changes) - set(weights))
    if unknown:
        raise ValueError(f"'loss_weights' must name some of {list(weights)} (got {unknown})")
    for name, weight in changes.items():
        if not 0 <= weight < float("inf"):
            raise ValueError(f"'loss_weights' must be 0 or more at {name!r} (got {weight})")
    return {**weights, **changes}
