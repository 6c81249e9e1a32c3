from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LayerNorm, Linear, Module, ModuleDict, Sequential, SiLU

from gtc_pyg.models.graph_recommender import CSRGraph, Features
from gtc_pyg.nn import ConditionalDenoiser, ModalityEncoder, NoiseSchedule


class Filtered(NamedTuple):
    r"""Content of one modality on its way through the filter."""

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


class ContentFilter(Module):
    r"""Filters the content of items for each user, by one conditional diffusion per modality.

    A few deterministic denoising steps from :math:`\sqrt{\bar\alpha_{t_0}} x_i` take out of the
    encoded content what does not matter. The last step may be gated by a user:

    .. math::
        \hat x_{ui} = \frac{x_{t,i} - \sqrt{1 - \bar\alpha_t} \, W_o (g_u \odot h_i)}
        {\sqrt{\bar\alpha_t}}

    is affine in :math:`g_u \odot h_i`, so what all items of a user tell that user
    (:meth:`for_users`), and inner products with all items (:meth:`factors`), need no network per
    pair.

    A user reaches the denoiser of a modality as a small network of the mean content of their items
    (ours): whoever has the same items has the same filter, users who came after training too. With
    the users' ID embeddings instead the gates hardly found what is planted
    (``benchmarks/notes.md``).

    Args:
        in_channels: Width of each modality's content, one modality or more.
        channels: Common width :math:`D`.
        condition: Of the denoisers: ``'item'``, ``'neighbors'`` or ``'user'``.
        filter_channels: Width :math:`H` of the denoisers, and of the gates; ``channels`` where
            ``None``.
        schedule: ``'linear'`` or ``'cosine'``.
        num_steps: Steps :math:`T` of the schedule.
        start_step: :math:`t_0`, where the filter starts.
        num_sampling_steps: Denoising steps from :math:`t_0` to 0.
        incomplete: Modalities that some items lack; ``features['has_<modality>']`` says which.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        channels: int = 64,
        condition: str = "user",
        filter_channels: int | None = None,
        schedule: str = "linear",
        num_steps: int = 600,
        start_step: int = 100,
        num_sampling_steps: int = 1,
        incomplete: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if not in_channels:
            raise ValueError("'in_channels' must name at least one modality (got none)")
        unknown = sorted(set(incomplete) - set(in_channels))
        if isinstance(incomplete, str) or unknown:
            raise ValueError(
                f"'incomplete' must name some of {list(in_channels)} (got {incomplete!r})"
            )
        if not 1 <= num_sampling_steps <= start_step <= num_steps:
            raise ValueError(
                f"expected 1 <= 'num_sampling_steps' <= 'start_step' <= 'num_steps' "
                f"(got {num_sampling_steps}, {start_step}, {num_steps})"
            )
        times = torch.linspace(start_step, 0, num_sampling_steps + 1).round()
        self.times = [int(t) for t in times]
        self.schedule = NoiseSchedule(num_steps, schedule)
        self.encoders = ModuleDict(
            {
                name: ModalityEncoder(width, channels, missing=name in incomplete)
                for name, width in in_channels.items()
            }
        )
        self.denoisers = ModuleDict(
            {
                name: ConditionalDenoiser(channels, channels, filter_channels, condition)
                for name in in_channels
            }
        )
        self.views = ModuleDict(
            {
                name: Sequential(
                    Linear(channels, channels),
                    SiLU(),
                    Linear(channels, channels),
                    LayerNorm(channels, elementwise_affine=False),
                )
                for name in in_channels
            }
        )
        self.lin_modality = Linear(len(in_channels) * channels, len(in_channels))

    def reset_parameters(self) -> None:
        r"""Draws all weights anew."""
        for module in (*self.encoders.values(), *self.denoisers.values()):
            cast(ModalityEncoder | ConditionalDenoiser, module).reset_parameters()
        for lin in (m for m in self.views.modules() if isinstance(m, Linear)):
            lin.reset_parameters()
        self.lin_modality.reset_parameters()

    def forward(self, features: Features, item_emb: Tensor, graph: CSRGraph) -> dict[str, Filtered]:
        r"""Filters the content of all items, without drawing noise.

        Args:
            features: Content of each modality ``[I, F_m]``.
            item_emb: Embeddings of the items ``[I, D]``; no gradient passes to them: a filter that
                shapes what it is guided by turns them into a memory of content.
            graph: The interactions.
        """
        item = F.layer_norm(item_emb.detach(), item_emb.shape[1:])
        out = {}
        for name in self.encoders:
            encoder, denoiser = self.encoders[name], self.denoiser(name)
            x = encoder(features[name], features.get(f"has_{name}"))
            user = self._view(name, x, graph)
            cond, gate = self._condition(name, user, item, graph)
            x_t = self.schedule.levels(self.times[0], x)[0] * x
            for t, t_next in zip(self.times[:-2], self.times[1:-1], strict=True):
                noise = denoiser.noise(denoiser.hidden(x_t, t, cond), gate)
                x_t = self.schedule.step(x_t, t, t_next, noise)
            h = denoiser.hidden(x_t, self.times[-2], cond)
            x_hat = self._start(name, x_t, h, gate)
            user_gate = denoiser.gate(user) if denoiser.condition == "user" else None
            out[name] = Filtered(x, x_t, h, x_hat, cond, user, user_gate)
        return out

    def modality_weights(self, filtered: Mapping[str, Filtered]) -> Tensor:
        r"""How much each user listens to each modality, :math:`a` ``[U, M]``, on average 1."""
        user = torch.cat([f.user for f in filtered.values()], dim=-1)
        return len(filtered) * self.lin_modality(user).softmax(dim=-1)

    def _view(self, name: str, x: Tensor, graph: CSRGraph) -> Tensor:
        mean = graph.mean_of_items(x.detach())
        return self.views[name](F.layer_norm(mean, mean.shape[1:]))

    def _condition(
        self, name: str, user: Tensor, item: Tensor, graph: CSRGraph
    ) -> tuple[Tensor, Tensor | None]:
        denoiser = self.denoiser(name)
        if denoiser.condition == "item":
            return item, None
        if denoiser.condition == "neighbors":
            return item + graph.mean_of_users(user), None
        out = graph.mean_of_users(torch.cat([user, denoiser.gate(user) - 1], dim=-1))
        cond, gate = out.split([user.size(1), out.size(1) - user.size(1)], dim=-1)
        return item + cond, 1 + gate

    def denoiser(self, name: str) -> ConditionalDenoiser:
        r"""The denoiser of a modality."""
        return cast(ConditionalDenoiser, self.denoisers[name])

    def _start(self, name: str, x_t: Tensor, h: Tensor, gate: Tensor | None) -> Tensor:
        noise = self.denoiser(name).noise(h, gate)
        return self.schedule.predict_start(x_t, self.times[-2], noise)

    def for_pairs(self, name: str, filtered: Filtered, user: Tensor, item: Tensor) -> Tensor:
        r"""Content of a modality, filtered for pairs of users and items.

        Args:
            name: A modality.
            filtered: What :meth:`forward` gives for it.
            user: ``[...]``.
            item: ``[...]``.

        Returns:
            :math:`\hat x_{ui}`, ``[..., D]``.
        """
        gate = None if filtered.gate is None else filtered.gate[user]
        return self._start(name, filtered.x_t[item], filtered.h[item], gate)

    def for_users(
        self, filtered: Mapping[str, Filtered], graph: CSRGraph, user: Tensor | None = None
    ) -> dict[str, Tensor]:
        r"""What a user's items tell them, filtered for them: the mean of :math:`\hat x_{ui}`.

        Args:
            filtered: What :meth:`forward` gives.
            graph: The interactions.
            user: ``[N]``; all users where ``None``.

        Returns:
            For each modality ``[N, D]``; for a user without items, the filter of nothing.
        """
        out = {}
        for name, f in filtered.items():
            mean, gate = graph.mean_of_items(torch.cat([f.x_t, f.h], dim=-1)), f.gate
            if user is not None:
                mean = mean.index_select(0, user)
                gate = None if gate is None else gate.index_select(0, user)
            x_t, h = mean.split([f.x_t.size(1), f.h.size(1)], dim=-1)
            out[name] = self._start(name, x_t, h, gate)
        return out

    def factors(
        self, name: str, filtered: Filtered, p: Tensor, user: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Vectors whose inner products are :math:`\langle p_u, \hat x_{ui} \rangle` of all pairs.

        .. math::
            \langle p_u, \hat x_{ui} \rangle = \frac{1}{\sqrt{\bar\alpha_t}} \big(
            \langle p_u, x_{t,i} \rangle - \sqrt{1 - \bar\alpha_t} \,
            (\langle g_u \odot W_o^\top p_u, h_i \rangle + \langle p_u, b_o \rangle) \big)

        Args:
            name: A modality.
            filtered: What :meth:`forward` gives for it.
            p: What each user looks for ``[N, D]``.
            user: ``[N]``; all users where ``None``.

        Returns:
            ``[N, D + H + 1]`` and ``[I, D + H + 1]``.
        """
        lin = self.denoiser(name).lin_out
        signal, sigma = self.schedule.levels(self.times[-2], p)
        wanted = p @ lin.weight
        if filtered.gate is not None:
            wanted = wanted * (filtered.gate if user is None else filtered.gate[user])
        user = torch.cat([p, -sigma * wanted, -sigma * (p @ lin.bias).view(-1, 1)], dim=-1)
        one = filtered.h.new_ones(filtered.h.size(0), 1)
        return user / signal, torch.cat([filtered.x_t, filtered.h, one], dim=-1)

    def diffusion_loss(
        self,
        filtered: Mapping[str, Filtered],
        features: Features,
        user: Tensor,
        item: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""Mean squared error of the noise, over modalities and present entries.

        Content is detached: an encoder drives this loss to zero by erasing it.

        Args:
            filtered: What :meth:`forward` gives.
            features: As in :meth:`forward`; masks are looked up.
            user: ``[B]``, one of the users of each item: their gate is the one applied.
            item: ``[B]``.
            generator: Draws times and noise.
        """
        losses = []
        for name, f in filtered.items():
            denoiser = self.denoiser(name)
            x = f.x.detach()[item]
            t = self.schedule.sample_times(x.size(0), generator)
            noise = self.schedule.sample_noise(x, generator)
            h = denoiser.hidden(self.schedule.add_noise(x, t, noise), t, f.cond[item])
            gate = None if f.gate is None else f.gate[user]
            error = (denoiser.noise(h, gate) - noise).pow(2).mean(dim=-1)
            losses.append(_mean_where(error, _present(features, name, item)))
        return torch.stack(losses).mean()

    def ranking_loss(
        self,
        filtered: Mapping[str, Filtered],
        content: Mapping[str, Tensor],
        features: Features,
        graph: CSRGraph,
        user: Tensor,
        pos_item: Tensor,
        neg_item: Tensor,
    ) -> Tensor:
        r"""What the filter is for: to a user, their items look alike and others do not (ours).

        .. math::
            d_m = \cos(p^m_{u \setminus i}, \hat x^m_{ui}) - \cos(p^m_{u \setminus i},
            \hat x^m_{un}), \qquad
            p^m_{u \setminus i} = \frac{1}{|N(u) \setminus i|}
            \sum_{j \in N(u) \setminus i} \hat x^m_{uj}

        .. math::
            L_f = -\frac{1}{M} \sum_m \log \sigma(5 \, d_m)
            - \log \sigma \big(5 \textstyle\sum_m a_u^m d_m \big)

        The first term teaches each modality's filter, the second how much a user listens to each
        modality. Pairs count whose user has other items and whose items both have the content.

        Args:
            filtered: What :meth:`forward` gives.
            content: What :meth:`for_users` gives for ``user``, ``[B, D]`` each.
            features: As in :meth:`forward`; masks are looked up.
            graph: The interactions.
            user: ``[B]``.
            pos_item: :math:`i`, an item of each user ``[B]``.
            neg_item: :math:`n`, an item that is none of the user's ``[B]``.
        """
        own = graph.contains(user, pos_item).long()  # pruned ones are in no mean
        num_items = graph.num_items_of_users[user]
        num_others = (num_items - own).clamp(min=1).view(-1, 1)
        losses, differences, some = [], [], torch.zeros_like(user, dtype=torch.bool)
        for name, f in filtered.items():
            pos, neg = (self.for_pairs(name, f, user, item) for item in (pos_item, neg_item))
            others = (num_items.view(-1, 1) * content[name] - own.view(-1, 1) * pos) / num_others
            usable = num_items > own
            for item in (pos_item, neg_item):
                present = _present(features, name, item)
                usable = usable if present is None else usable & present
            near, far = (F.cosine_similarity(others, x) for x in (pos, neg))
            losses.append(_mean_where(F.softplus(5 * (far - near)), usable))
            differences.append((near - far) * usable)
            some = some | usable
        weights = self.modality_weights(filtered).index_select(0, user)
        joint = (weights * torch.stack(differences, dim=1)).sum(dim=1)
        return torch.stack(losses).mean() + _mean_where(F.softplus(-5 * joint), some)


def _present(features: Features, name: str, item: Tensor) -> Tensor | None:
    mask = features.get(f"has_{name}")
    return None if mask is None else mask[item]


def _mean_where(x: Tensor, mask: Tensor | None) -> Tensor:
    return x.mean() if mask is None else (x * mask).sum() / mask.sum().clamp(min=1)
