from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module, ModuleDict, Parameter

from gtc_pyg.functional import normalize_rows
from gtc_pyg.models.content import Features, check_widths
from gtc_pyg.models.csr_graph import CSRGraph
from gtc_pyg.models.filter_losses import diffusion_loss, ranking_loss
from gtc_pyg.models.filtered import Filtered, gated
from gtc_pyg.models.user_view import UserView, directions_of_ids
from gtc_pyg.nn import ConditionalDenoiser, ModalityEncoder, NoiseSchedule


class ContentFilter(Module):
    r"""Filters the content of items for each user, by one conditional diffusion per modality.

    A few deterministic denoising steps from :math:`\sqrt{\bar\alpha_{t_0}} x_i` take out of the
    encoded content what does not matter. The last step may be gated by a user:

    .. math::
        \hat x_{ui} = \underbrace{\frac{x_{t,i} - \sqrt{1 - \bar\alpha_t} \, b_o}
        {\sqrt{\bar\alpha_t}}}_{\text{base}_i}
        \underbrace{- \sqrt{\tfrac{1 - \bar\alpha_t}{\bar\alpha_t}} \, W_o}_{V}
        (g_u \odot h_i)

    is affine in :math:`g_u \odot h_i`: :class:`~gtc_pyg.models.Filtered` holds its parts.

    A user reaches the denoiser of a modality by the mean content of their items
    (:class:`~gtc_pyg.models.user_view.UserView`): whoever has the same items has the same filter,
    users who came after training too. ``user_ids`` adds what ID embeddings say of a user. With
    these alone the gates hardly found what is planted (``benchmarks/notes.md``). How much a user
    listens to each modality depends on the same network; with the conditions ``'item'`` and
    ``'neighbors'``, whose filter is alike for everybody, it is one learned number for all.

    Args:
        in_channels: Width of each modality's content, one modality or more.
        channels: Common width :math:`D`.
        condition: Of the denoisers: ``'item'``, ``'neighbors'`` or ``'user'``.
        filter_channels: Width :math:`H` of the denoisers, and of the gates; ``channels`` where
            ``None``.
        schedule: ``'linear'`` or ``'cosine'``.
        num_steps: Steps :math:`T` of the schedule.
        start_step: :math:`t_0`, where the filter starts.
        num_sampling_steps: Denoising steps from :math:`t_0` to 0. With 0 nothing is filtered:
            :math:`\hat x_{ui} = x_i`, for comparison.
        incomplete: Modalities that some items lack; ``features['has_<modality>']`` says which.
        user_ids: Whether users reach the denoisers by ID embeddings, too: their own and the mean of
            their items'.
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
        user_ids: bool = False,
    ) -> None:
        super().__init__()
        check_widths(in_channels)
        unknown = sorted(set(incomplete) - set(in_channels))
        if isinstance(incomplete, str) or unknown:
            raise ValueError(
                f"'incomplete' must name some of {list(in_channels)} (got {incomplete!r})"
            )
        if not (0 <= num_sampling_steps <= start_step <= num_steps and start_step >= 1):
            raise ValueError(
                f"expected 0 <= 'num_sampling_steps' <= 'start_step' <= 'num_steps', the last two "
                f"at least 1 "
                f"(got {num_sampling_steps}, {start_step}, {num_steps})"
            )
        self.incomplete = tuple(incomplete)
        self.user_ids = user_ids
        times = torch.linspace(start_step, 0, num_sampling_steps + 1, device="cpu").round()
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
        # Who is not looked at needs no network.
        self.views = ModuleDict(
            {name: UserView(channels, user_ids) for name in in_channels if condition != "item"}
        )
        num = len(in_channels)
        self.lin_modality = Linear(num * channels, num) if condition == "user" else None
        if self.lin_modality is None:
            self.modality_bias = Parameter(torch.zeros(num))

    def reset_parameters(self) -> None:
        r"""Draws all weights anew."""
        for modules in (self.encoders, self.denoisers, self.views):
            for module in modules.values():
                cast(ModalityEncoder | ConditionalDenoiser | UserView, module).reset_parameters()
        if self.lin_modality is None:
            torch.nn.init.zeros_(self.modality_bias)
        else:
            self.lin_modality.reset_parameters()

    def forward(
        self,
        features: Features,
        item_emb: Tensor,
        graph: CSRGraph,
        user: Tensor | None = None,
        user_emb: Tensor | None = None,
    ) -> dict[str, Filtered]:
        r"""Filters the content of all items, without drawing noise.

        All users of an item are looked at; of them those learn that the result is asked for. In
        training, where the graph has a history and gradients are asked for, the others are as they
        were when they were last asked for, or at its beginning.

        Args:
            features: Content of each modality ``[I, F_m]``.
            item_emb: Embeddings of the items ``[I, D]``; no gradient passes to them: a filter that
                shapes what it is guided by turns them into a memory of content.
            graph: The interactions.
            user: Users that the result is asked for, ascending and none twice ``[N]``; all where
                ``None``.
            user_emb: Embeddings of the users ``[U, D]`` where ``user_ids``; no gradient passes.

        Raises:
            ValueError: Where ``user`` is not ascending or holds an unknown user (on the CPU), or
                ``user_emb`` is missing.
        """
        if user is not None:
            graph.check_users(user)
        item = F.layer_norm(item_emb.detach(), item_emb.shape[1:])
        if self.user_ids and user_emb is None:
            raise ValueError("'user_emb' must be given where 'user_ids' is on (got None)")
        ids = None
        if self.user_ids and user_emb is not None:
            ids = user_emb.detach(), normalize_rows(item_emb.detach())
        asked = self._by_ids(graph, user, ids)
        encoded = {
            name: encoder(features[name], features.get(f"has_{name}"))
            for name, encoder in self.encoders.items()
        }
        users = {
            name: self._users(name, x, item, graph, user, ids, asked) for name, x in encoded.items()
        }
        out = {}
        num_users = graph.num_users if user is None else user.numel()
        weights = self._modality_weights([view for view, *_ in users.values()], num_users)
        steps = list(pairwise(self.times))
        signal, sigma = self.schedule.levels(steps[-1][0] if steps else 0, item)
        for (name, x), weight in zip(encoded.items(), weights, strict=True):
            denoiser, (view, user_gate, cond, gate) = self.denoiser(name), users[name]
            if not steps:
                nothing = torch.zeros_like(denoiser.lin_out.weight)
                h = x.new_zeros(x.size(0), nothing.size(1))
                out[name] = Filtered(x, x, x, h, nothing, x, cond, view, user_gate, weight, user)
                continue
            x_t = self.schedule.levels(self.times[0], x)[0] * x
            for t, t_next in steps[:-1]:
                noise = denoiser.noise(denoiser.hidden(x_t, t, cond), gate)
                x_t = self.schedule.step(x_t, t, t_next, noise)
            h = denoiser.hidden(x_t, steps[-1][0], cond)
            base = torch.addcdiv(-sigma / signal * denoiser.lin_out.bias, x_t, signal)
            to_content = -sigma / signal * denoiser.lin_out.weight
            out[name] = Filtered(
                x=x,
                x_t=x_t,
                base=base,
                h=h,
                to_content=to_content,
                x_hat=gated(base, h, gate, to_content),
                cond=cond,
                user=view,
                gate=user_gate,
                weight=weight,
                user_id=user,
            )
        return out

    def _users(
        self,
        name: str,
        x: Tensor,
        item: Tensor,
        graph: CSRGraph,
        user: Tensor | None,
        ids: tuple[Tensor, Tensor] | None,
        asked: Tensor | None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor | None]:
        """Users and their gates; items' conditions ``[I, D]`` and mean gates ``[I, H]``."""
        denoiser = self.denoiser(name)
        if denoiser.condition == "item":
            return None, None, item, None
        own = self._told(name, x, graph, user, asked)
        rows = torch.cat(own, dim=-1)
        if user is None:
            of_items = graph.mean_of_users(rows)
        else:

            def of_all() -> Tensor:
                by_ids = self._by_ids(graph, None, ids)
                return torch.cat(self._told(name, x, graph, None, by_ids), dim=-1)

            every = graph.rows_of_all(self, name, user, rows, of_all)
            of_items = graph.mean_of_users(every, (user, rows))
        cond, *offset = of_items.split([x.size(1) for x in own], dim=-1)
        if denoiser.condition != "user":
            return own[0], None, item + cond, None
        return own[0], 1 + own[1], item + cond, 1 + offset[0]

    def _told(
        self,
        name: str,
        x: Tensor,
        graph: CSRGraph,
        user: Tensor | None,
        by_ids: Tensor | None,
    ) -> list[Tensor]:
        """What users tell their items: how the denoiser sees them, and the gate's offset from 1."""
        denoiser = self.denoiser(name)
        view = cast(UserView, self.views[name]).of(x, graph, user, by_ids)
        # Items without users have the gate 1.
        return [view, denoiser.gate(view) - 1] if denoiser.condition == "user" else [view]

    def _by_ids(
        self, graph: CSRGraph, user: Tensor | None, ids: tuple[Tensor, Tensor] | None
    ) -> Tensor | None:
        return None if ids is None else directions_of_ids(graph, user, *ids)

    def _modality_weights(self, users: Sequence[Tensor | None], num_users: int) -> Sequence[Tensor]:
        """Of each modality ``[N]``."""
        if self.lin_modality is None:
            return (2 * torch.sigmoid(self.modality_bias)).expand(num_users, -1).unbind(dim=1)
        seen = torch.cat([user for user in users if user is not None], dim=-1)
        return (2 * torch.sigmoid(self.lin_modality(seen))).unbind(dim=1)

    def denoiser(self, name: str) -> ConditionalDenoiser:
        r"""The denoiser of a modality."""
        return cast(ConditionalDenoiser, self.denoisers[name])

    def for_users(self, filtered: Mapping[str, Filtered], graph: CSRGraph) -> dict[str, Tensor]:
        r"""What a user's items tell them, filtered for them: the mean of :math:`\hat x_{ui}`.

        Args:
            filtered: What :meth:`forward` gives.
            graph: The interactions.

        Returns:
            For each modality ``[N, D]``, of the users that ``filtered`` was asked for; zeros
            without items.
        """
        return {name: f.for_users(graph) for name, f in filtered.items()}

    def of_new_users(
        self,
        filtered: Mapping[str, Filtered],
        graph: CSRGraph,
        item_emb: Tensor,
        user_emb: Tensor,
    ) -> dict[str, Filtered]:
        r"""The same items, filtered for other users, whom the items do not know.

        Args:
            filtered: What :meth:`forward` gives.
            graph: The interactions of the other users.
            item_emb: As in :meth:`forward`.
            user_emb: Embeddings of the other users ``[N, D]``.
        """
        ids = (user_emb, normalize_rows(item_emb)) if self.user_ids else None
        by_ids = self._by_ids(graph, None, ids)
        views: dict[str, Tensor | None] = dict.fromkeys(filtered)
        gates = dict(views)
        for name, f in filtered.items():
            if self.denoiser(name).condition != "item":
                views[name], *offset = self._told(name, f.x, graph, None, by_ids)
                gates[name] = 1 + offset[0] if offset else None
        weights = self._modality_weights(list(views.values()), graph.num_users)
        return {
            name: f._replace(user=views[name], gate=gates[name], weight=weight, user_id=None)
            for (name, f), weight in zip(filtered.items(), weights, strict=True)
        }

    def diffusion_loss(
        self,
        filtered: Mapping[str, Filtered],
        features: Features,
        row: Tensor,
        item: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""See :func:`~gtc_pyg.models.filter_losses.diffusion_loss`."""
        return diffusion_loss(
            filtered, self.denoiser, self.schedule, features, row, item, generator
        )

    ranking_loss = staticmethod(ranking_loss)
