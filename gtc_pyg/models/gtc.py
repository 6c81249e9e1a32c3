from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Embedding, ModuleDict, Parameter

from gtc_pyg.functional import spmm, to_csr
from gtc_pyg.models.graph_recommender import (
    ITEM_TO_USER,
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
    r"""Content of one modality after the filter."""

    x: Tensor
    """Encoded content :math:`x`, ``[I, D]``."""
    x_t: Tensor
    """Where the last denoising step starts, ``[I, D]``."""
    h: Tensor
    """Features of that step's trunk, ``[I, H]``."""
    x_hat: Tensor
    """Filtered by the mean gate of the item's users, ``[I, D]``."""
    cond: Tensor
    """The item's condition, ``[I, D]``."""


class GTC(GraphRecommender):
    r"""Conditional generative total-correlation learning on a user-item graph."""

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
        diffusion_weight: float = 0.1,
        total_correlation_weight: float = 0.01,
        alignment_size: int = 512,
        regularization: float = 1e-4,
        edge_dropout: float = 0.0,
        user_messages: bool = True,
        layer_aggr: str = "mean",
        score_scale: float = 1.0,
        init_std: float = 0.025,
        mode: str = "unit",
        message_init: float = 0.05,

        streams: bool = True,
        **tc_kwargs,
    ) -> None:
        super().__init__(num_users, num_items, edge_dropout)
        self.hidden_channels = hidden_channels
        self.num_layers = num_layers
        self.num_item_layers = num_item_layers
        self.start_step = start_step
        self.num_sampling_steps = num_sampling_steps
        self.diffusion_weight = diffusion_weight
        self.total_correlation_weight = total_correlation_weight
        self.alignment_size = alignment_size
        self.regularization = regularization
        self.user_messages = user_messages
        self.layer_aggr = layer_aggr
        self.score_scale = score_scale
        self.init_std = init_std
        self.mode=mode; self.streams=streams

        self.item_emb = Embedding(num_items, hidden_channels)
        self.user_emb = Embedding(num_users, hidden_channels)
        self.preference = Parameter(torch.empty(num_users, len(in_channels), hidden_channels))
        self.modality_logit = Parameter(torch.empty(num_users, 1 + len(in_channels)))
        self.encoders = ModuleDict(
            {name: ModalityEncoder(width, hidden_channels) for name, width in in_channels.items()}
        )
        self.schedule = NoiseSchedule(num_steps, schedule)
        self.denoisers = ModuleDict(
            {
                name: ConditionalDenoiser(hidden_channels, hidden_channels, condition=condition)
                for name in in_channels
            }
        )
        self.message_weight = torch.nn.ParameterDict({n: Parameter(torch.tensor(message_init)) for n in in_channels})
        self.gate = SimilarityGate()
        self.total_correlation = TotalCorrelationLoss(**tc_kwargs)
        self.reset_parameters()

    def reset_parameters(self):
        torch.nn.init.normal_(self.item_emb.weight, std=self.init_std)
        torch.nn.init.normal_(self.user_emb.weight, std=self.init_std)
        torch.nn.init.normal_(self.preference, std=self.init_std)
        torch.nn.init.zeros_(self.modality_logit)
        for m in (*self.encoders.values(), *self.denoisers.values(), self.total_correlation):
            m.reset_parameters()

    def cond_emb(self):
        root = self.hidden_channels**0.5
        return root * F.normalize(self.user_emb.weight, dim=-1), root * F.normalize(self.item_emb.weight, dim=-1)

    def filter(self, features, edge_index_dict) -> dict[str, Filtered]:
        emb = self.cond_emb()
        times = torch.linspace(self.start_step, 0, self.num_sampling_steps + 1).round().long().tolist()
        out = {}
        for name, encoder in self.encoders.items():
            d = self.denoisers[name]
            x = encoder(features[name], features.get(f"has_{name}"))
            cond, gate = d.encode_condition(emb, edge_index_dict[USER_TO_ITEM])
            x_t = self.schedule.levels(times[0], x)[0] * x
            for t, t_next in zip(times[:-1], times[1:]):
                h = d.hidden(x_t, t, cond)
                noise = d.noise(h, gate)
                if t_next == 0:
                    x_hat = self.schedule.predict_start(x_t, t, noise)
                else:
                    x_t = self.schedule.step(x_t, t, t_next, noise)
            out[name] = Filtered(x, x_t, h, x_hat, cond)
        return out

    def _embed(self, features, edge_index_dict, edge_weight_dict=None):
        filtered = self.filter(features, edge_index_dict)
        adj = self._stacked(edge_index_dict, edge_weight_dict)
        e_i = self.item_emb.weight
        content = [F.normalize(f.x_hat, dim=-1) for f in filtered.values()]
        if self.mode == "length":
            length = e_i.detach().norm(dim=-1, keepdim=True)
            content = [length * c for c in content]
        else:
            e_i = F.normalize(e_i, dim=-1)
        fused, _ = self.gate(e_i, content)
        user = self.user_emb.weight.unsqueeze(1)
        item = fused
        if self.streams:
            item = torch.cat([fused, *content], dim=-1)
            user = torch.cat([user, self.preference], dim=1)
        if self.mode != "length":
            user = F.normalize(user, dim=-1)
        outs = propagate(adj, torch.cat([user.flatten(1), item]), self.num_layers)
        out = torch.stack(outs).sum(0) if self.layer_aggr == 'sum' else torch.stack(outs).mean(0)
        user, graph_item = out.split([self.num_users, self.num_items])
        user = user.view(self.num_users, -1, self.hidden_channels)
        if self.user_messages:
            msgs = [torch.zeros_like(user[:, 0])]
            to_user, to_item = edge_index_dict[ITEM_TO_USER], edge_index_dict[USER_TO_ITEM]
            deg = to_user.crow_indices().diff().clamp(min=1).view(-1, 1)
            e_u = self.cond_emb()[0]
            t = round(self.start_step / self.num_sampling_steps)
            for name, f in filtered.items():
                d = self.denoisers[name]
                mean = spmm(to_user, to_item, torch.cat([f.x_t, f.h], -1)) / deg
                x_t, h = mean.split([self.hidden_channels, d.hidden_channels], -1)
                g = d.gate(e_u) if d.condition == 'user' else None
                m = F.normalize(self.schedule.predict_start(x_t, t, d.noise(h, g)), dim=-1)
                if self.mode == "length":
                    m = m * user[:, 0].detach().norm(dim=-1, keepdim=True)
                msgs.append(self.message_weight[name] * m)
            if self.streams:
                user = user + torch.stack(msgs, 1)
            else:
                user = user + torch.stack(msgs[1:]).mean(0).unsqueeze(1)
        if self.streams:
            weight = self.modality_logit.softmax(-1) * self.score_scale
            user = user * weight.unsqueeze(-1)
        user = user.flatten(1) * (1 if self.streams else self.score_scale)
        similar = self._similar(edge_index_dict, edge_weight_dict)
        h = item if self.mode == "length" else graph_item
        for _ in range(self.num_item_layers):
            h = torch.sparse.mm(similar, h)
        return user, graph_item + h, filtered

    def forward(self, features, edge_index_dict, edge_weight_dict=None):
        return self._embed(features, edge_index_dict, edge_weight_dict)[:2]

    def loss(self, user, pos_item, neg_item, features, edge_index_dict, edge_weight_dict=None, generator=None):
        user_emb, item_emb, filtered = self._embed(features, edge_index_dict, edge_weight_dict)
        parts = {"ranking": self._rank_loss(user_emb, item_emb, user, pos_item, neg_item)}
        # diffusion
        diffusion = []
        e_u = self.cond_emb()[0].index_select(0, user)
        if self.diffusion_weight > 0:
            for name, f in filtered.items():
                d = self.denoisers[name]
                x = f.x.detach().index_select(0, pos_item)
                t = self.schedule.sample_times(x.size(0), generator)
                noise = self.schedule.sample_noise(x, generator)
                x_t = self.schedule.add_noise(x, t, noise)
                h = d.hidden(x_t, t, f.cond.index_select(0, pos_item))
                g = d.gate(e_u) if d.condition == 'user' else None
                diffusion.append(F.mse_loss(d.noise(h, g), noise))
            parts["diffusion"] = self.diffusion_weight * torch.stack(diffusion).mean()
        if self.total_correlation_weight > 0:
            rows = pos_item[: self.alignment_size].unique()
            views = [self.item_emb.weight.index_select(0, rows)]
            views += [f.x_hat.index_select(0, rows) for f in filtered.values()]
            parts["total_correlation"] = self.total_correlation_weight * self.total_correlation(views, generator=generator)
        ego = self.user_emb(user).pow(2).sum() + self.item_emb(pos_item).pow(2).sum() + self.item_emb(neg_item).pow(2).sum()
        parts["regularization"] = self.regularization * 0.5 * ego / user.numel()
        return parts
