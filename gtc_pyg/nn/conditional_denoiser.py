from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Linear
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, SparseTensor
from torch_geometric.utils import is_sparse, spmm

import gtc_pyg.functional as fn
from gtc_pyg.functional import check_adjacency, check_least, check_weights

CONDITIONS = ("item", "neighbors", "user")


class Condition(NamedTuple):
    r"""What :meth:`ConditionalDenoiser.encode_condition` makes of interactions."""

    emb: Tensor
    """The items' conditions :math:`c`, ``[I, C]``."""
    gate: Tensor | None
    r"""The mean gate of each item's users :math:`\bar g`, ``[I, H]`` (``'user'`` only)."""
    user_gate: Tensor | None
    """The gate of each user that was given :math:`g`, ``[N, H]`` (``'user'`` only)."""


class ConditionalDenoiser(MessagePassing):
    r"""Predicts the noise in item content from a condition made of interactions.

    Bipartite, user to item, from `"User-Aware Conditional Generative Total Correlation Learning
    for Multi-Modal Recommendation" <https://arxiv.org/abs/2604.03014>`_:

    .. math::
        h_i &= \mathrm{trunk}(x_{t,i}, t, c_i) \\
        \hat\epsilon_i &= W_o (\bar g_i \odot h_i) + b_o

    - ``'item'``: :math:`c_i = e_i`, :math:`\bar g_i = 1`. What the published code does:
      nothing in it depends on a user.
    - ``'neighbors'``: :math:`c_i = e_i + \sum_{u \in N(i)} w_{ui} e_u`, :math:`\bar g_i = 1`.
      What the paper describes.
    - ``'user'`` (ours): besides, a gate per user :math:`g_u = 2 \sigma(W_g e_u + b_g)`. The content
      of item :math:`i` filtered **for user** :math:`u` has the noise
      :math:`W_o (g_u \odot h_i) + b_o` (:meth:`noise` with ``gate=gate(e_u)``); for the item itself
      the gates of its users are averaged,
      :math:`\bar g_i = 1 + \sum_{u \in N(i)} w_{ui} (g_u - 1)`, which is 1 where there are none.

    With edge weights :math:`a_{ui}`, or ones where there are none,
    :math:`w_{ui} = a_{ui} / \sum_v a_{vi}` (``aggr='mean'``) or :math:`w_{ui} = a_{ui}`
    (``aggr='sum'``).
    The first takes weights of 0 or more, and an item whose weights are all 0 has no users.

    Gates need more than a loss on the noise to tell users apart: one that compares items for a user
    (:meth:`~gtc_pyg.models.ContentFilter.ranking_loss`).

    Ids are read, and so checked, on the CPU only: elsewhere, and within :func:`torch.compile`,
    that would wait for the device.

    Args:
        channels: Width :math:`D` of the content.
        cond_channels: Width :math:`C` of the user and item embeddings.
        hidden_channels: Width :math:`H` of the trunk; ``channels`` where ``None``.
        condition: ``'item'``, ``'neighbors'`` or ``'user'``.
        aggr: ``'mean'`` or ``'sum'``, of what an item's users say.
        **kwargs: Further arguments of :class:`~torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** embeddings :math:`((|U|, C), (|I|, C))`; adjacency: ``edge_index`` with users
          in row 0 and items in row 1, or a **transposed** sparse tensor :math:`(|I|, |U|)`, whose
          values are the edge weights; noisy content :math:`(|I|, D)`; times :math:`(|I|)` or one,
          as :class:`~gtc_pyg.nn.NoiseSchedule` has them; edge weights :math:`(|E|)`, for
          ``edge_index`` only
        - **output:** predicted noise :math:`(|I|, D)`

    Example:
        >>> import torch
        >>> from gtc_pyg.nn import NoiseSchedule
        >>> schedule, denoiser = NoiseSchedule(), ConditionalDenoiser(channels=16, cond_channels=8)
        >>> content, users, items = torch.randn(3, 16), torch.randn(2, 8), torch.randn(3, 8)
        >>> edge_index = torch.tensor([[0, 0, 1], [0, 1, 2]])
        >>> t, noise = schedule.sample_times(3), schedule.sample_noise(content)
        >>> x_t = schedule.add_noise(content, t, noise)
        >>> loss = (denoiser((users, items), edge_index, x_t, t) - noise).pow(2).mean()

    Raises:
        ValueError: Where embeddings, adjacency, weights, content or times do not fit one another.
    """

    def __init__(
        self,
        channels: int,
        cond_channels: int,
        hidden_channels: int | None = None,
        condition: str = "user",
        aggr: str = "mean",
        **kwargs: Any,
    ) -> None:
        if condition not in CONDITIONS:
            raise ValueError(f"'condition' must be one of {CONDITIONS} (got {condition!r})")
        if aggr not in ("mean", "sum"):
            raise ValueError(f"'aggr' must be 'mean' or 'sum' (got {aggr!r})")
        check_least(1, channels=channels, cond_channels=cond_channels)
        if hidden_channels is not None:
            check_least(1, hidden_channels=hidden_channels)
        super().__init__(aggr=aggr, **kwargs)
        # A product with a sparse matrix skips 'message', which a subclass may have of its own.
        own, base = type(self), ConditionalDenoiser
        self.fuse = (
            own.message is base.message
            or own.message_and_aggregate is not base.message_and_aggregate
        )
        self.channels = channels
        self.cond_channels = cond_channels
        self.hidden_channels = channels if hidden_channels is None else hidden_channels
        self.condition = condition
        self.lin_x = Linear(channels, self.hidden_channels)
        self.lin_t = Linear(self.hidden_channels, self.hidden_channels, bias=False)
        self.lin_c = Linear(cond_channels, self.hidden_channels, bias=False)
        self.lin_h = Linear(self.hidden_channels, self.hidden_channels)
        self.lin_out = Linear(self.hidden_channels, channels)
        self.lin_gate = Linear(cond_channels, self.hidden_channels) if condition == "user" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all weights anew."""
        super().reset_parameters()
        for lin in (self.lin_x, self.lin_t, self.lin_c, self.lin_h, self.lin_out, self.lin_gate):
            if lin is not None:
                lin.reset_parameters()

    def forward(
        self,
        x: tuple[Tensor, Tensor],
        edge_index: Adj,
        x_t: Tensor,
        t: Tensor | int,
        edge_weight: OptTensor = None,
    ) -> Tensor:
        r"""Predicts the noise in ``x_t``, filtered by the mean gate of each item's users."""
        self._check_embeddings(x)
        num_items = x[1].size(0)
        if x_t.shape != (num_items, self.channels):
            raise ValueError(
                f"'x_t' must be [{num_items}, {self.channels}], a row for each item (got "
                f"{list(x_t.shape)})"
            )
        self._check_times(t, num_items)
        cond = self.encode_condition(x, edge_index, edge_weight)
        return self.noise(self.hidden(x_t, t, cond.emb), cond.gate)

    def encode_condition(
        self,
        x: tuple[Tensor, Tensor],
        edge_index: Adj,
        edge_weight: OptTensor = None,
        transposed: OptTensor = None,
        complete: Callable[[Tensor], Tensor] | None = None,
    ) -> Condition:
        r"""Passes messages from users to items: conditions and gates.

        Args:
            x: User and item embeddings, as in :meth:`forward`.
            edge_index: As in :meth:`forward`.
            edge_weight: As in :meth:`forward`.
            transposed: ``edge_index``, a CSR tensor, transposed: saves autograd from doing so.
            complete: For training with few of many users: ``x[0]`` then holds the embeddings of
                ``N`` users alone, ``transposed`` their rows ``[N, |I|]``, and ``complete`` turns
                their messages (:meth:`user_messages`) into those of all users. Gradients reach the
                ``N`` users. Needs ``aggr='sum'`` and a CSR ``edge_index``.
        """
        self._check_embeddings(x)
        x_user, x_item = x
        if self.condition == "item":
            return Condition(x_item, None, None)
        message = rows = self.user_messages(x_user)
        if complete is not None:
            if self.aggr != "sum" or transposed is None:
                raise ValueError("'complete' needs aggr='sum' and 'transposed'")
            message = complete(rows)
        size = (message.size(0), x_item.size(0))
        edge_index = self._check_adjacency(edge_index, size, edge_weight)
        if self.aggr == "mean":
            self._check_weights(edge_index, edge_weight)
            message = torch.cat([message, message.new_ones(size[0], 1)], dim=-1)
        # Sums are never half precision: in bfloat16 the 257th user would not count.
        message = message.to(torch.promote_types(message.dtype, torch.float))
        # propagate_type: (x: OptPairTensor, edge_weight: OptTensor, transposed: OptTensor, rows: OptTensor) # noqa
        out = self.propagate(
            edge_index,
            x=(message, None),
            edge_weight=edge_weight,
            transposed=transposed,
            rows=None if complete is None else rows,
            size=size,
        )
        if complete is not None and not self.fuse:  # no gradient has passed 'complete'
            own = self.propagate(
                transposed.t().to_sparse_csr(),
                x=(rows, None),
                edge_weight=None,
                transposed=None,
                rows=None,
                size=(rows.size(0), size[1]),
            )
            out = out + own - own.detach()
        if self.aggr == "mean":
            out, total = out[:, :-1], out[:, -1:]
            out = out / torch.where(total == 0, 1, total)
        out = out.to(x_item.dtype)
        emb = x_item + out[:, : self.cond_channels]
        if self.condition != "user":
            return Condition(emb, None, None)
        user_gate = 1 + rows[:, self.cond_channels :]
        return Condition(emb, 1 + out[:, self.cond_channels :], user_gate)

    def user_messages(self, x_user: Tensor) -> Tensor:
        r"""What users send to their items ``[N, C]``, with ``'user'`` ``[N, C + H]``.

        Args:
            x_user: User embeddings ``[N, C]``.
        """
        if self.condition != "user":
            return x_user
        # The gate's offset from 1 is averaged, so that items without users get exactly 1.
        return torch.cat([x_user, self.gate(x_user) - 1], dim=-1)

    def _check_embeddings(self, x: tuple[Tensor, Tensor]) -> None:
        if not isinstance(x, tuple) or len(x) != 2:
            raise ValueError(
                f"'x' must be a tuple of user and item embeddings (got {type(x).__name__})"
            )
        for name, emb in zip(("user", "item"), x, strict=True):
            if emb.dim() != 2 or emb.size(1) != self.cond_channels:
                raise ValueError(
                    f"'x' must hold {name} embeddings [N, {self.cond_channels}] (got "
                    f"{list(emb.shape)})"
                )

    @staticmethod
    def _check_times(t: Tensor | int, num_items: int) -> None:
        t = torch.as_tensor(t)
        if t.is_floating_point() or t.dtype == torch.bool:
            raise ValueError(f"'t' must hold whole numbers, steps of a schedule (got {t.dtype})")
        if t.numel() not in (1, num_items):
            raise ValueError(f"'t' must be one time or {num_items} (got {t.numel()})")
        if t.device.type == "cpu" and not torch.compiler.is_compiling() and bool((t < 0).any()):
            raise ValueError(f"'t' must be at least 0 (got {int(t.min())})")

    @staticmethod
    def _check_adjacency(adj: Adj, size: tuple[int, int], edge_weight: OptTensor) -> Adj:
        """Refuses what does not fit the embeddings; gives an ``EdgeIndex`` as a plain tensor."""
        if is_sparse(adj) and edge_weight is not None:
            raise ValueError(
                "'edge_weight' goes with an edge_index; a sparse matrix has values of its own"
            )
        adj = check_adjacency(adj, *size, "edge_index", ("user", "item"), wait=False)
        if edge_weight is not None:
            check_weights(edge_weight, adj.size(1), wait=False)
        return adj

    @staticmethod
    def _check_weights(adj: Adj, edge_weight: OptTensor) -> None:
        if isinstance(adj, Tensor) and adj.layout == torch.sparse_csr:
            edge_weight = adj.values()
        elif isinstance(adj, SparseTensor):
            edge_weight = adj.storage.value()
        if edge_weight is None or edge_weight.device.type != "cpu" or edge_weight.numel() == 0:
            return
        if not torch.compiler.is_compiling() and bool((edge_weight < 0).any()):
            raise ValueError(
                f"'edge_weight' must be 0 or more where aggr='mean' divides by its sum (got "
                f"{float(edge_weight.detach().min()):.4g}); aggr='sum' takes any"
            )

    def gate(self, x_user: Tensor) -> Tensor:
        r"""Each user's filter :math:`g_u = 2 \sigma(W_g e_u)`, ``[U, H]`` (``'user'`` only)."""
        if self.lin_gate is None:
            raise ValueError(f"condition {self.condition!r} has no gate; only 'user' has")
        return 2 * torch.sigmoid(self.lin_gate(x_user))

    def hidden(self, x_t: Tensor, t: Tensor | int, cond: Tensor) -> Tensor:
        r"""The trunk's features :math:`h` ``[N, H]``, free of any one user.

        .. math:: a = W_x x_t + W_t \tau(t) + W_c c + b, \qquad h = a + W_h \, \mathrm{silu}(a)

        Linear but for one residual step: what a gate lets through or cancels is then the content
        itself, and planted preferences were found better than with a nonlinear trunk (ours).
        """
        time = self.lin_t(self.time_features(t, x_t))
        if time.size(0) == 1:  # one time for all: a bias
            a = torch.nn.functional.linear(x_t, self.lin_x.weight, self.lin_x.bias + time[0])
        else:
            a = self.lin_x(x_t) + time
        a = a + self.lin_c(cond)
        return a + self.lin_h(torch.nn.functional.silu(a))

    def noise(self, h: Tensor, gate: Tensor | None = None) -> Tensor:
        r"""The noise :math:`W_o (g \odot h) + b_o`, ``[N, D]``; :math:`g = 1` where ``None``."""
        return torch.nn.functional.linear(h if gate is None else gate * h, *self.noise_map())

    def noise_map(self) -> tuple[Tensor, Tensor]:
        r"""The map from gated features to noise: :math:`W_o` ``[D, H]`` and :math:`b_o` ``[D]``."""
        return self.lin_out.weight, self.lin_out.bias

    def time_features(self, t: Tensor | int, x: Tensor) -> Tensor:
        r"""Sinusoidal features of time, ``[1 or N, H]``, in the type of ``x``."""
        # In half precision 599 steps are 600: computed in floats or better.
        dtype = torch.promote_types(x.dtype, torch.float)
        t = torch.as_tensor(t, device=x.device).view(-1, 1)
        half = (self.hidden_channels + 1) // 2
        steps = torch.arange(half, device=x.device, dtype=dtype)
        angle = t.to(dtype) * torch.exp(-math.log(10_000.0) / half * steps)
        out = torch.cat([angle.sin(), angle.cos()], dim=-1)[:, : self.hidden_channels]
        return out.to(x.dtype)

    def message(self, x_j: Tensor, edge_weight: OptTensor) -> Tensor:
        return x_j if edge_weight is None else edge_weight.view(-1, 1) * x_j

    def message_and_aggregate(
        self, adj_t: Adj, x: OptPairTensor, transposed: OptTensor, rows: OptTensor
    ) -> Tensor:
        if rows is not None:
            return fn.spmm_learning(adj_t, x[0], rows, transposed)
        if transposed is not None:
            return fn.spmm(adj_t, transposed, x[0])
        # A sum whatever 'aggr' is: a mean is divided by the sum of the weights.
        if isinstance(adj_t, Tensor) and adj_t.dtype != x[0].dtype:
            adj_t = adj_t.to(x[0].dtype)
        with torch.autocast(x[0].device.type, enabled=False):
            return spmm(adj_t, x[0], reduce="sum")

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.channels}, {self.cond_channels}, "
            f"hidden_channels={self.hidden_channels}, condition={self.condition!r}, "
            f"aggr={self.aggr!r})"
        )
