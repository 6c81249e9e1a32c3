from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Embedding, Linear, ModuleDict
from torch_geometric.typing import EdgeType

from gtc_pyg.functional import spmm, stack_interactions
from gtc_pyg.models.graph_recommender import (
    ITEM_TO_USER,
    SIMILAR_ITEMS,
    USER_TO_ITEM,
    EdgeIndexDict,
    EdgeWeightDict,
    Features,
    GraphRecommender,
    propagate,
)
from gtc_pyg.nn import (
    ConditionalDenoiser,
    ModalityEncoder,
    NoiseSchedule,
    SimilarityGate,
    TotalCorrelationLoss,
)


class Filtered(NamedTuple):
    r"""Content of one modality on its way through the filter, a row per item."""

    x: Tensor
    """Encoded content ``[I, D]``."""
    x_t: Tensor
    """Where the last denoising step starts ``[I, D]``."""
    h: Tensor
    """The trunk's features at that step ``[I, H]``, free of any one user."""
    x_hat: Tensor
    """Filtered by the mean gate of the item's users ``[I, D]``."""
    cond: Tensor
    """The items' conditions ``[I, D]``."""
    user: Tensor
    """The users as the denoiser sees them ``[U, D]``."""
    gate: Tensor | None
    """The users' gates ``[U, H]``, where the condition is ``'user'``."""


class GTC(GraphRecommender):
    r"""Recommends by content filtered for each user, all modalities aligned at once.

    From `"User-Aware Conditional Generative Total Correlation Learning for Multi-Modal
    Recommendation" <https://arxiv.org/abs/2604.03014>`_:

    1. each modality is encoded, :math:`x_i^m` (:class:`~gtc_pyg.nn.ModalityEncoder`);
    2. a few deterministic denoising steps from :math:`\sqrt{\bar\alpha_{t_0}} x_i^m`, conditioned
       on the interactions, filter it: :math:`\hat x_i^m`
       (:class:`~gtc_pyg.nn.ConditionalDenoiser`);
    3. :math:`z_i` fuses it with the item's ID embedding (:class:`~gtc_pyg.nn.SimilarityGate`);
    4. :math:`[e_u, z_i]` passes over the interaction graph as in LightGCN;
    5. each user receives the content of their items **filtered for that user**,
       :math:`\frac{1}{|N(u)|} \sum_{i \in N(u)} \hat x_{ui}^m`, weighed by modality;
    6. items are smoothed over the item graph; scores are inner products.

    :math:`\hat x_{ui}` is affine in the gated features, so step 5 needs the sums of :math:`x_t` and
    :math:`h` over a user's items and one gate per user: no network runs per edge.

    What the filter is for is trained by an option, ``filter_weight``: the content of an item of the
    user, filtered for that user, must lie nearer to the filtered content of their **other** items
    than a negative's does,

    .. math:: L_f = -\log \sigma\big(5 (\cos(p_{u \setminus i}, \hat x_{ui}) -
        \cos(p_{u \setminus i}, \hat x_{un}))\big), \qquad
        p_{u \setminus i} = \frac{1}{|N(u)| - 1} \sum_{j \in N(u), j \neq i} \hat x_{uj}.

    Ours, where the published code differs: the denoisers are trained and see all of an item's
    users; inference draws no noise; embeddings are normalised, and ``score_scale`` sets the range
    of scores; content enters one stream of propagation instead of one per modality, which measured
    better on TikTok (``benchmarks/notes.md``).

    Args:
        num_users: Number of users.
        num_items: Number of items.
        in_channels: Width of each modality's content, one modality or more.
        hidden_channels: Common width :math:`D`.
        condition: Of the denoisers: ``'item'``, ``'neighbors'`` or ``'user'``.
        num_layers: Layers on the interactions.
        num_item_layers: Layers on the item graph; with 0 none is needed.
        schedule: ``'linear'`` or ``'cosine'``.
        num_steps: Steps :math:`T` of the schedule.
        start_step: :math:`t_0`, where the filter starts.
        num_sampling_steps: Denoising steps from :math:`t_0` to 0.
        score_scale: Factor on the scores.
        content_strength: Length of the users' filtered content beside their embedding.
        diffusion_weight: Weight of the diffusion loss.
        total_correlation_weight: Weight of the total-correlation loss.
        filter_weight: Weight of :math:`L_f`; off (0) until it is measured on real data.
        alignment_size: Largest number of rows aligned in a step.
        negatives: As in :class:`~gtc_pyg.nn.TotalCorrelationLoss`.
        product_scale: As in :class:`~gtc_pyg.nn.TotalCorrelationLoss`.
        regularization: Weight of the squared length of the batch's embeddings.
        edge_dropout: As in :class:`~gtc_pyg.models.GraphRecommender`.
        incomplete: Modalities that some items lack; ``features['has_<modality>']`` says which.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        in_channels: Mapping[str, int],
        hidden_channels: int = 64,
        condition: str = "user",
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
        filter_weight: float = 0.0,
        alignment_size: int = 512,
        negatives: str = "n",
        product_scale: str = "sqrt_dim",
        regularization: float = 1e-4,
        edge_dropout: float = 0.0,
        incomplete: Sequence[str] = (),
    ) -> None:
        super().__init__(num_users, num_items, edge_dropout)
        if not in_channels:
            raise ValueError("'in_channels' must name at least one modality (got none)")
        if not 1 <= num_sampling_steps <= start_step <= num_steps:
            raise ValueError(
                f"expected 1 <= 'num_sampling_steps' <= 'start_step' <= 'num_steps' "
                f"(got {num_sampling_steps}, {start_step}, {num_steps})"
            )
        if filter_weight > 0 and edge_dropout > 0:
            raise ValueError(
                f"'filter_weight' leaves an item out of all of its user's, which 'edge_dropout' "
                f"prunes: set one of them to 0 (got {filter_weight}, {edge_dropout})"
            )
        self.hidden_channels = hidden_channels
        self.num_layers = num_layers
        self.num_item_layers = num_item_layers
        self.score_scale = score_scale
        self.content_strength = content_strength
        self.diffusion_weight = diffusion_weight
        self.total_correlation_weight = total_correlation_weight
        self.filter_weight = filter_weight
        self.alignment_size = alignment_size
        self.regularization = regularization
        times = torch.linspace(start_step, 0, num_sampling_steps + 1).round()
        self.times = [int(t) for t in times]

        self.user_emb = Embedding(num_users, hidden_channels)
        self.item_emb = Embedding(num_items, hidden_channels)
        self.encoders = ModuleDict(
            {
                name: ModalityEncoder(width, hidden_channels, missing=name in incomplete)
                for name, width in in_channels.items()
            }
        )
        self.schedule = NoiseSchedule(num_steps, schedule)
        self.denoisers = ModuleDict(
            {
                name: ConditionalDenoiser(hidden_channels, hidden_channels, condition=condition)
                for name in in_channels
            }
        )
        self.gate = SimilarityGate()
        self.total_correlation = TotalCorrelationLoss(negatives, product_scale=product_scale)
        self.lin_modality = Linear(hidden_channels, len(in_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all weights anew."""
        for embedding in (self.user_emb, self.item_emb):
            torch.nn.init.normal_(embedding.weight, std=0.025)
        for name in self.encoders:
            cast(ModalityEncoder, self.encoders[name]).reset_parameters()
            self._denoiser(name).reset_parameters()
        self.total_correlation.reset_parameters()
        self.lin_modality.reset_parameters()

    def forward(
        self,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
    ) -> tuple[Tensor, Tensor]:
        graph = self.csr_graph(edge_index_dict, edge_weight_dict)
        return self._embed(self.filter(features, graph), graph)

    def condition_emb(self, edge_index_dict: EdgeIndexDict) -> tuple[Tensor, Tensor]:
        r"""Users and items at unit variance, as the denoisers see them.

        A user is their own embedding plus the mean of their items', so the gates of users with the
        same taste agree. No gradient passes: a filter that shapes what it is guided by turns the
        embeddings into a memory of content, which measured worse (``benchmarks/notes.md``).

        Args:
            edge_index_dict: CSR, see :meth:`csr_graph`.
        """
        item = F.normalize(self.item_emb.weight, dim=-1)
        mean = F.normalize(self._mean_of_items(item, edge_index_dict), dim=-1)
        user = F.normalize(F.normalize(self.user_emb.weight, dim=-1) + mean, dim=-1)
        root = self.hidden_channels**0.5
        return root * user.detach(), root * item.detach()

    @staticmethod
    def _mean_of_items(x: Tensor, graph: EdgeIndexDict) -> Tensor:
        to_user = graph[ITEM_TO_USER]
        degree = to_user.crow_indices().diff().clamp(min=1).view(-1, 1)
        return spmm(to_user, graph[USER_TO_ITEM], x) / degree

    def filter(self, features: Features, edge_index_dict: EdgeIndexDict) -> dict[str, Filtered]:
        r"""Filters the content of all items, without drawing noise.

        Args:
            features: Content of each modality ``[I, F_m]``.
            edge_index_dict: CSR, see :meth:`csr_graph`.
        """
        emb = self.condition_emb(edge_index_dict)
        out = {}
        for name, encoder in self.encoders.items():
            denoiser = self._denoiser(name)
            x = encoder(self._content(features, name), features.get(f"has_{name}"))
            cond, gate = denoiser.encode_condition(emb, edge_index_dict[USER_TO_ITEM])
            x_t = self.schedule.levels(self.times[0], x)[0] * x
            for t, t_next in zip(self.times[:-2], self.times[1:-1], strict=True):
                noise = denoiser.noise(denoiser.hidden(x_t, t, cond), gate)
                x_t = self.schedule.step(x_t, t, t_next, noise)
            t = self.times[-2]
            h = denoiser.hidden(x_t, t, cond)
            x_hat = self.schedule.predict_start(x_t, t, denoiser.noise(h, gate))
            user_gate = denoiser.gate(emb[0]) if denoiser.condition == "user" else None
            out[name] = Filtered(x, x_t, h, x_hat, cond, emb[0], user_gate)
        return out

    def filter_for(self, name: str, filtered: Filtered, user: Tensor, item: Tensor) -> Tensor:
        r"""Content of modality ``name``, filtered for pairs of users and items.

        Args:
            name: A modality.
            filtered: What :meth:`filter` gives for it.
            user: ``[...]``.
            item: ``[...]``.

        Returns:
            :math:`\hat x_{ui}`, ``[..., D]``.
        """
        x_t, h = filtered.x_t[item], filtered.h[item]
        gate = None if filtered.gate is None else filtered.gate[user]
        noise = self._denoiser(name).noise(h, gate)
        return self.schedule.predict_start(x_t, self.times[-2], noise)

    def user_content(
        self, filtered: Mapping[str, Filtered], edge_index_dict: EdgeIndexDict
    ) -> dict[str, Tensor]:
        r"""What each user's items tell them, filtered for them: the mean of :math:`\hat x_{ui}`.

        Args:
            filtered: What :meth:`filter` gives.
            edge_index_dict: CSR, see :meth:`csr_graph`.

        Returns:
            For each modality ``[U, D]``; for a user without items, the filter of nothing.
        """
        out = {}
        for name, f in filtered.items():
            mean = self._mean_of_items(torch.cat([f.x_t, f.h], dim=-1), edge_index_dict)
            x_t, h = mean.split([f.x_t.size(1), f.h.size(1)], dim=-1)
            noise = self._denoiser(name).noise(h, f.gate)
            out[name] = self.schedule.predict_start(x_t, self.times[-2], noise)
        return out

    def modality_weights(self, filtered: Mapping[str, Filtered]) -> Tensor:
        r"""How much each user listens to each modality of ``filtered``, ``[U, M]``."""
        user = next(iter(filtered.values())).user
        return 2 * self.content_strength * torch.sigmoid(self.lin_modality(user))

    def _denoiser(self, name: str) -> ConditionalDenoiser:
        return cast(ConditionalDenoiser, self.denoisers[name])

    def _embed(
        self, filtered: Mapping[str, Filtered], graph: Mapping[EdgeType, Tensor]
    ) -> tuple[Tensor, Tensor]:
        e_user = F.normalize(self.user_emb.weight, dim=-1)
        e_item = F.normalize(self.item_emb.weight, dim=-1)
        fused, _ = self.gate(e_item, [F.normalize(f.x_hat, dim=-1) for f in filtered.values()])
        adj = stack_interactions(graph[USER_TO_ITEM], graph[ITEM_TO_USER])
        outs = propagate(adj, torch.cat([e_user, fused]), self.num_layers)
        out = torch.stack(outs).mean(dim=0)
        user, item = out.split([self.num_users, self.num_items])
        content = self.user_content(filtered, graph).values()
        for weight, x in zip(self.modality_weights(filtered).unbind(dim=1), content, strict=True):
            user = user + weight.view(-1, 1) * F.normalize(x, dim=-1)
        h = item
        for _ in range(self.num_item_layers):
            h = torch.sparse.mm(graph[SIMILAR_ITEMS], h)
        return self.score_scale * user, item + h if self.num_item_layers else item

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
        filtered = self.filter(features, graph)
        user_emb, item_emb = self._embed(filtered, graph)
        ego = (self.user_emb(user), self.item_emb(pos_item), self.item_emb(neg_item))
        size = torch.stack([emb.pow(2).sum() for emb in ego]).sum() / (2 * user.numel())
        parts = {
            "ranking": self._rank_loss(user_emb, item_emb, user, pos_item, neg_item),
            "regularization": self.regularization * size,
        }
        if self.diffusion_weight > 0:
            loss = self._diffusion_loss(filtered, features, user, pos_item, generator)
            parts["diffusion"] = self.diffusion_weight * loss
        if self.filter_weight > 0:
            loss = self._filter_loss(filtered, features, graph, user, pos_item, neg_item)
            parts["filter"] = self.filter_weight * loss
        if self.total_correlation_weight > 0:
            rows = pos_item[: self.alignment_size].unique()
            # Content is drawn to what interactions say of an item, and not the other way round.
            views = [self.item_emb(rows).detach(), *(f.x_hat[rows] for f in filtered.values())]
            masks = [None, *(self._present(features, name, rows) for name in filtered)]
            loss = self.total_correlation(views, masks, generator)
            parts["total_correlation"] = self.total_correlation_weight * loss
        return parts

    def _diffusion_loss(
        self,
        filtered: Mapping[str, Filtered],
        features: Features,
        user: Tensor,
        item: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Mean squared error of the noise; each pair's user is one of the item's own."""
        losses = []
        for name, f in filtered.items():
            denoiser = self._denoiser(name)
            x = f.x.detach()[item]
            t = self.schedule.sample_times(x.size(0), generator)
            noise = self.schedule.sample_noise(x, generator)
            h = denoiser.hidden(self.schedule.add_noise(x, t, noise), t, f.cond[item])
            gate = None if f.gate is None else f.gate[user]
            error = (denoiser.noise(h, gate) - noise).pow(2).mean(dim=-1)
            mask = self._present(features, name, item)
            losses.append(
                error.mean() if mask is None else (error * mask).sum() / mask.sum().clamp(min=1)
            )
        return torch.stack(losses).mean()

    def _filter_loss(
        self,
        filtered: Mapping[str, Filtered],
        features: Features,
        graph: Mapping[EdgeType, Tensor],
        user: Tensor,
        pos_item: Tensor,
        neg_item: Tensor,
    ) -> Tensor:
        """BPR on filtered content alone; the positive is taken out of the user's mean.

        Only of pairs whose user has other items, and whose items both have the content.
        """
        filtered = {name: f._replace(x_t=f.x_t.detach()) for name, f in filtered.items()}
        content = self.user_content(filtered, graph)
        degree = graph[ITEM_TO_USER].crow_indices().diff()[user].view(-1, 1)
        losses = []
        for name, f in filtered.items():
            pos = self.filter_for(name, f, user, pos_item)
            neg = self.filter_for(name, f, user, neg_item)
            others = (degree * content[name][user] - pos) / (degree - 1).clamp(min=1)
            near = F.cosine_similarity(others, pos), F.cosine_similarity(others, neg)
            usable = degree.view(-1) > 1
            if f"has_{name}" in features:
                has = features[f"has_{name}"]
                usable = usable & has[pos_item] & has[neg_item]
            ranking = F.softplus(5 * (near[1] - near[0])) * usable
            losses.append(ranking.sum() / usable.sum().clamp(min=1))
        return torch.stack(losses).mean()

    @staticmethod
    def _present(features: Features, name: str, item: Tensor) -> Tensor | None:
        mask = features.get(f"has_{name}")
        return None if mask is None else mask[item]
