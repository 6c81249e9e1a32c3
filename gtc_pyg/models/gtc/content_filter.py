from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module, ModuleDict, Parameter

from gtc_pyg.functional import check_least, normalize_rows, takes_numbers
from gtc_pyg.graph import CSRGraph, Features
from gtc_pyg.graph.content import check_widths, content_with_masks
from gtc_pyg.models.gtc.filtered_content import FilteredContent, gated
from gtc_pyg.models.gtc.losses import noise_error, separation
from gtc_pyg.models.gtc.user_view import UserView, directions_of_ids
from gtc_pyg.nn import (
    AffineStep,
    Condition,
    ConditionalDenoiser,
    DDIMSampler,
    ModalityEncoder,
    NoiseSchedule,
)


class ContentFilter(Module):
    r"""Filters the content of items for each user, by one conditional diffusion per modality.

    A few deterministic denoising steps from :math:`\sqrt{\bar\alpha_{t_0}} x_i` take out of the
    encoded content what does not matter. The last step may be gated by a user:

    .. math::
        \hat x_{ui} = \underbrace{\frac{x_{t,i} - \sqrt{1 - \bar\alpha_t} \, b_o}
        {\sqrt{\bar\alpha_t}}}_{\text{base}_i}
        \underbrace{- \sqrt{\tfrac{1 - \bar\alpha_t}{\bar\alpha_t}} \, W_o}_{V}
        (g_u \odot h_i)

    is affine in :math:`g_u \odot h_i`: :class:`~gtc_pyg.models.FilteredContent` holds its parts.

    A user reaches the denoiser of a modality by the mean content of their items
    (:class:`~gtc_pyg.models.gtc.user_view.UserView`): users with the same items have the same
    filter, users who came after training too. ``user_ids`` adds what ID embeddings say of a user.
    With these alone the gates hardly found what is planted (``benchmarks/notes.md``). The weight of
    each modality for a user depends on the same network; with the conditions ``'item'`` and
    ``'neighbors'``, whose filter ignores users, it is one learned number for all.

    Args:
        in_channels: Width of each modality's content, one modality or more.
        channels: Common width :math:`D`.
        hidden_channels: Width :math:`H` of the denoisers, and of the gates; ``channels`` where
            ``None``.
        condition: Of the denoisers: ``'item'``, ``'neighbors'`` or ``'user'``.
        num_steps: Steps :math:`T` of the noise schedule.
        start_step: :math:`t_0`, where the filter starts.
        num_sampling_steps: Denoising steps from :math:`t_0` to 0. With 0 nothing is filtered:
            :math:`\hat x_{ui} = x_i`, for comparison.
        incomplete: Modalities that some items lack; ``features['has_<modality>']`` says which.
        user_ids: Whether users reach the denoisers by ID embeddings, too: their own and the mean of
            their items'. Better on real data; without it the filter is a matter of content alone,
            and finds planted preferences better (``benchmarks/notes.md``).
        strength: Length :math:`\lambda` of the filtered content that is added to a user.
        loss_batch_size: How many of a batch's interactions, the first ones, the losses on content
            read. More cost time; on planted data gates differed more between users with all 2,048
            (``benchmarks/notes.md``).

    Raises:
        ValueError: For a setting out of its range.
    """

    @takes_numbers
    def __init__(
        self,
        in_channels: Mapping[str, int],
        channels: int = 64,
        hidden_channels: int | None = None,
        condition: str = "user",
        num_steps: int = 600,
        start_step: int = 100,
        num_sampling_steps: int = 1,
        incomplete: Sequence[str] = (),
        user_ids: bool = True,
        strength: float = 0.3,
        loss_batch_size: int = 512,
    ) -> None:
        super().__init__()
        check_widths(in_channels)
        check_least(1, loss_batch_size=loss_batch_size)
        if not 0 <= strength < float("inf"):
            raise ValueError(f"'strength' must be finite and at least 0 (got {strength})")
        unknown = sorted(set(incomplete) - set(in_channels))
        if isinstance(incomplete, str) or unknown:
            raise ValueError(
                f"'incomplete' must name some of {list(in_channels)} (got {incomplete!r})"
            )
        self.in_channels = dict(in_channels)
        self.channels = channels
        self.hidden_channels = hidden_channels
        self.condition = condition
        self.num_steps = num_steps
        self.start_step = start_step
        self.num_sampling_steps = num_sampling_steps
        self.incomplete = tuple(incomplete)
        self.user_ids = user_ids
        self.strength = strength
        self.loss_batch_size = loss_batch_size
        self.sampler = DDIMSampler(NoiseSchedule(num_steps), start_step, num_sampling_steps)
        self.encoders = ModuleDict(
            {
                name: ModalityEncoder(width, channels, missing=name in incomplete)
                for name, width in in_channels.items()
            }
        )
        self.denoisers = ModuleDict(
            {
                name: ConditionalDenoiser(channels, channels, hidden_channels, condition, "sum")
                for name in in_channels
            }
        )
        # 'item' ignores users.
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
    ) -> dict[str, FilteredContent]:
        r"""Filters the content of all items, without drawing noise.

        All users of an item count; gradients flow only through ``user``. In training, where the
        graph has a history and gradients are asked for, the others are as they were when they were
        last asked for, or at its beginning.

        Args:
            features: Content of each modality ``[I, F_m]``.
            item_emb: Embeddings of the items ``[I, D]``; no gradient passes to them: a filter that
                shapes what it is guided by turns them into a memory of content.
            graph: The interactions.
            user: Users that the result is asked for, ascending and none twice ``[N]``; all where
                ``None``.
            user_emb: Embeddings of the users ``[U, D]`` where ``user_ids``; no gradient passes.

        Raises:
            ValueError: Where ``user`` is not ascending or holds an unknown user (on the CPU),
                ``user_emb`` is missing, or the content does not fit.
        """
        if user is not None:
            user = graph.check_users(user)
        uses_ids = self.user_ids and self.condition != "item"
        if uses_ids and user_emb is None:
            raise ValueError("'user_emb' must be given where 'user_ids' is on (got None)")
        features = content_with_masks(
            features, list(self.encoders), self.incomplete, graph.num_items, item_emb.dtype
        )
        encoded = {
            name: encoder(features[name], features.get(f"has_{name}"))
            for name, encoder in self.encoders.items()
        }
        ids = None
        if uses_ids and user_emb is not None:
            ids = user_emb.detach(), normalize_rows(item_emb.detach())
        directions = self._directions(graph, user, ids)
        item = F.layer_norm(item_emb.detach(), item_emb.shape[1:])
        views = {name: self._view(name, x, graph, user, directions) for name, x in encoded.items()}
        num_users = graph.num_users if user is None else user.numel()
        weights = self._modality_weights(list(views.values()), num_users)
        out = {}
        for (name, x), weight in zip(encoded.items(), weights, strict=True):
            cond = self._condition(name, x, views[name], item, graph, user, ids)
            x_t, step = self._denoise(name, x, cond)
            x_hat = x if step.base is x else gated(step.base, step.h, cond.gate, step.to_content)
            out[name] = FilteredContent(
                x=x,
                x_t=x_t,
                base=step.base,
                h=step.h,
                to_content=step.to_content,
                x_hat=x_hat,
                cond=cond.emb,
                user=views[name],
                gate=cond.user_gate,
                weight=weight,
                user_id=user,
            )
        return out

    def _condition(
        self,
        name: str,
        x: Tensor,
        view: Tensor | None,
        item: Tensor,
        graph: CSRGraph,
        user: Tensor | None,
        ids: tuple[Tensor, Tensor] | None,
    ) -> Condition:
        """What the denoiser of a modality makes of the interactions."""
        denoiser = self.denoiser(name)
        adj, transposed = graph.users_of_items(user)
        if view is None:
            return denoiser.encode_condition((item[:0], item), adj)
        if user is None:
            return denoiser.encode_condition((view, item), adj, transposed=transposed)
        some = user

        def of_all() -> Tensor:
            every = self._view(name, x, graph, None, self._directions(graph, None, ids))
            assert every is not None
            return denoiser.user_messages(every)

        def complete(rows: Tensor) -> Tensor:
            return graph.rows_of_all(self, name, some, rows, of_all)

        return denoiser.encode_condition(
            (view, item), adj, transposed=transposed, complete=complete
        )

    def _denoise(self, name: str, x: Tensor, cond: Condition) -> tuple[Tensor, AffineStep]:
        """Where the last step starts, and that step before a gate is applied."""
        denoiser = self.denoiser(name)
        if self.num_sampling_steps == 0:
            nothing = torch.zeros_like(denoiser.noise_map()[0])
            return x, AffineStep(x, x.new_zeros(x.size(0), nothing.size(1)), nothing)
        x_t = self.sampler.before_last(denoiser, self.sampler.start(x), cond.emb, cond.gate)
        return x_t, self.sampler.last(denoiser, x_t, cond.emb)

    def _view(
        self,
        name: str,
        x: Tensor,
        graph: CSRGraph,
        user: Tensor | None,
        directions: Tensor | None,
    ) -> Tensor | None:
        """Users as the denoiser sees them ``[N, D]``; ``None`` where it ignores them."""
        if self.condition == "item":
            return None
        return cast(UserView, self.views[name]).of(x, graph, user, directions)

    def _directions(
        self, graph: CSRGraph, user: Tensor | None, ids: tuple[Tensor, Tensor] | None
    ) -> Tensor | None:
        return None if ids is None else directions_of_ids(graph, user, *ids)

    def _modality_weights(self, views: Sequence[Tensor | None], num_users: int) -> Sequence[Tensor]:
        """Of each modality ``[N]``."""
        if self.lin_modality is None:
            return (2 * torch.sigmoid(self.modality_bias)).expand(num_users, -1).unbind(dim=1)
        seen = torch.cat([view for view in views if view is not None], dim=-1)
        return (2 * torch.sigmoid(self.lin_modality(seen))).unbind(dim=1)

    def denoiser(self, name: str) -> ConditionalDenoiser:
        r"""The denoiser of a modality."""
        return cast(ConditionalDenoiser, self.denoisers[name])

    def of_new_users(
        self,
        filtered: Mapping[str, FilteredContent],
        graph: CSRGraph,
        item_emb: Tensor,
        user_emb: Tensor,
    ) -> dict[str, FilteredContent]:
        r"""The same items, filtered for other users, whom the items do not know.

        Args:
            filtered: What :meth:`forward` gives.
            graph: The interactions of the other users.
            item_emb: As in :meth:`forward`.
            user_emb: Embeddings of the other users ``[N, D]``.
        """
        uses_ids = self.user_ids and self.condition != "item"
        ids = (user_emb, normalize_rows(item_emb)) if uses_ids else None
        directions = self._directions(graph, None, ids)
        views = {
            name: self._view(name, f.x, graph, None, directions) for name, f in filtered.items()
        }
        weights = self._modality_weights(list(views.values()), graph.num_users)
        out = {}
        for (name, f), weight in zip(filtered.items(), weights, strict=True):
            view, gate = views[name], None
            if view is not None and self.condition == "user":
                gate = self.denoiser(name).gate(view)
            out[name] = f._replace(user=view, gate=gate, weight=weight, user_id=None)
        return out

    def mean_content(
        self, filtered: Mapping[str, FilteredContent], graph: CSRGraph
    ) -> dict[str, Tensor]:
        r"""The mean content of each user's items, filtered for that user.

        Args:
            filtered: What :meth:`forward` gives.
            graph: The interactions.

        Returns:
            For each modality :math:`\frac{1}{|N(u)|} \sum_i \hat x_{ui}` ``[N, D]``, of the users
            that ``filtered`` was asked for; zeros without items.
        """
        return {name: f.for_users(graph) for name, f in filtered.items()}

    def add_content_messages(
        self,
        users: Tensor,
        filtered: Mapping[str, FilteredContent],
        content: Mapping[str, Tensor],
    ) -> Tensor:
        r"""Adds :math:`\lambda a_u^m p_u^m / |p_u^m|` of each modality to users ``[N, D]``.

        Args:
            users: ``[N, D]``.
            filtered: Content filtered for these users.
            content: What :meth:`mean_content` makes of it.
        """
        for name, f in filtered.items():
            message = self.strength * f.weight.view(-1, 1) * normalize_rows(content[name])
            users = users + message
        return users

    def diffusion_loss(
        self,
        filtered: Mapping[str, FilteredContent],
        features: Features,
        row: Tensor,
        item: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""Mean squared error of the noise, over modalities and present entries.

        Content is detached: an encoder drives this loss to zero by erasing it.

        Args:
            filtered: What :meth:`forward` gives.
            features: What ``filtered`` was made of; masks are looked up.
            row: One of the users of each item, whose gate is applied: the position among those that
                ``filtered`` was asked for ``[B]``.
            item: ``[B]``.
            generator: Draws times and noise.
        """
        schedule = self.sampler.schedule
        x = torch.stack([f.x.detach().index_select(0, item) for f in filtered.values()])
        t = schedule.sample_times(x.size(0) * x.size(1), generator)
        noise = schedule.sample_noise(x, generator)
        x_t = schedule.add_noise(x.flatten(0, 1), t, noise.flatten(0, 1)).view_as(x)
        predicted = []
        for (name, f), x_m, t_m in zip(filtered.items(), x_t, t.view(x.shape[:2]), strict=True):
            denoiser = self.denoiser(name)
            gate = None if f.gate is None else f.gate.index_select(0, row)
            h = denoiser.hidden(x_m, t_m, f.cond.index_select(0, item))
            predicted.append(denoiser.noise(h, gate))
        present = present_entries(features, list(filtered), item)
        return noise_error(torch.stack(predicted), noise, present)

    def ranking_loss(
        self,
        filtered: Mapping[str, FilteredContent],
        content: Mapping[str, Tensor],
        features: Features,
        graph: CSRGraph,
        row: Tensor,
        pos_item: Tensor,
        neg_item: Tensor,
    ) -> Tensor:
        r"""To a user, their items look alike and others do not (ours).

        See :func:`~gtc_pyg.models.gtc.losses.separation`; a user's mean content leaves out the item
        that it is compared with.

        Args:
            filtered: What :meth:`forward` gives.
            content: What :meth:`mean_content` gives.
            features: What ``filtered`` was made of; masks are looked up.
            graph: The interactions.
            row: The user's position among those that ``filtered`` was asked for ``[B]``.
            pos_item: An item of each user ``[B]``.
            neg_item: An item that is none of the user's ``[B]``.
        """
        every = list(filtered.values())
        user = row if every[0].user_id is None else every[0].user_id[row]
        own = graph.contains(user, pos_item).long()  # pruned ones are in no mean
        num_items = graph.num_items_of_users[user]
        pairs = row.repeat(2), torch.cat([pos_item, neg_item])
        pos, neg = torch.stack([f.for_pairs(*pairs) for f in every]).chunk(2, dim=1)
        total = torch.stack([content[name].index_select(0, row) for name in filtered])
        others = num_items.view(-1, 1) * total - own.view(-1, 1) * pos
        others = others / (num_items - own).clamp(min=1).view(-1, 1)
        usable = (num_items > own).expand(others.shape[:2])
        for item in (pos_item, neg_item):
            usable = usable & present_entries(features, list(filtered), item)
        weight = torch.stack([f.weight.index_select(0, row) for f in every])
        return separation(others, pos, neg, weight, usable)


def present_entries(features: Features, names: Sequence[str], item: Tensor) -> Tensor:
    r"""Which of the items have which modality ``[M, B]`` (bool)."""
    masks = [features.get(f"has_{name}") for name in names]
    whole = torch.ones_like(item, dtype=torch.bool)
    return torch.stack([whole if mask is None else mask[item] for mask in masks])
