from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module, Parameter
from torch_geometric.typing import Adj, OptTensor

from gtc_pyg.functional import check_least
from gtc_pyg.nn.conditional_denoiser import ConditionalDenoiser
from gtc_pyg.nn.ddim_sampler import DDIMSampler
from gtc_pyg.nn.noise_schedule import NoiseSchedule


class ModalityEncoder(Module):
    r"""Maps the content of one modality to the common width.

    .. math:: x_i = \mathrm{norm}(W f_i + b)

    from `"User-Aware Conditional Generative Total Correlation Learning for Multi-Modal
    Recommendation" <https://arxiv.org/abs/2604.03014>`_, where the map is linear alone. Ours ends
    in a layer normalisation **without learned scale**, so every row leaves with mean 0 and variance
    1, the scale that the noise schedule expects, and no row can shrink. Rows can still collapse
    onto one another, which a diffusion loss rewards: give it the output detached, as
    :class:`~gtc_pyg.models.GTC` does.

    Content that is absent is either a learned vector (``missing=True``) or generated: see
    :meth:`fill`.

    Args:
        in_channels: Width :math:`F` of the raw content.
        out_channels: Common width :math:`D`.
        missing: Whether to learn a vector for entries that are absent.

    Shapes:
        - **input:** content :math:`(N, F)`, optional presence mask :math:`(N)` (bool)
        - **output:** :math:`(N, D)`; rows whose mask is false are the learned vector,
          normalised too
    """

    def __init__(self, in_channels: int, out_channels: int, missing: bool = False) -> None:
        super().__init__()
        check_least(1, in_channels=in_channels)
        check_least(2, out_channels=out_channels)  # one number, normalised, is always 0
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.lin = Linear(in_channels, out_channels)
        self.missing: Parameter | None = None
        if missing:
            self.missing = Parameter(torch.empty(out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all weights anew."""
        torch.nn.init.xavier_uniform_(self.lin.weight)
        torch.nn.init.zeros_(self.lin.bias)
        if self.missing is not None:
            torch.nn.init.normal_(self.missing)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        r"""Encodes the content.

        Args:
            x: Raw content ``[N, in_channels]``.
            mask: True where the content is present ``[N]``; all of it where ``None``.

        Raises:
            ValueError: Where the width is not ``in_channels`` or the type not that of the weights,
                or entries are absent and the encoder was made without ``missing``; on the CPU,
                where values are so large that their squares are out of range.
        """
        if not isinstance(x, Tensor):
            raise ValueError(f"'x' must be a tensor (got {type(x).__name__})")
        if x.dim() != 2 or x.size(1) != self.in_channels:
            raise ValueError(f"'x' must be [N, {self.in_channels}] (got {list(x.shape)})")
        if x.dtype != self.lin.weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(
                f"'x' must have the weights' type, {self.lin.weight.dtype} (got {x.dtype}): "
                f"x.to({self.lin.weight.dtype})"
            )
        if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape[:1]):
            raise ValueError(
                f"'mask' must be bool [{x.size(0)}] (got {mask.dtype} {list(mask.shape)})"
            )
        if mask is not None and self.missing is None and not bool(mask.all()):
            raise ValueError(
                "'mask' marks absent rows, which needs ModalityEncoder(missing=True), in a GTC "
                "incomplete=[...]"
            )
        if mask is not None:
            x = torch.where(
                mask.view(-1, 1), x, 0.0
            )  # whatever stands there: NaN has NaN gradients
        out = self.lin(x)
        if out.device.type == "cpu" and not torch.compiler.is_compiling() and out.numel() > 0:
            limit = torch.finfo(torch.promote_types(out.dtype, torch.float)).max ** 0.5 / 100
            low, high = (float(x) for x in out.detach().aminmax())
            largest = max(-low, high)
            if not largest <= limit:  # what is no number stays in its row
                largest = float(out.detach().nan_to_num(0, 0, 0).abs().amax())
            if largest > limit:
                raise ValueError(
                    f"'x' must hold values of ordinary size: encoded they reach {largest:.1e}, "
                    f"and squares are out of range beyond {limit:.0e}"
                )
        if mask is not None and self.missing is not None:
            out = torch.where(mask.view(-1, 1), out, self.missing)
        return F.layer_norm(out, (self.out_channels,))

    @torch.no_grad()
    def fill(
        self,
        x: Tensor,
        mask: Tensor,
        denoiser: ConditionalDenoiser,
        schedule: NoiseSchedule,
        emb: tuple[Tensor, Tensor],
        edge_index: Adj,
        edge_weight: OptTensor = None,
        *,
        num_steps: int = 20,
        num_samples: int = 1,
        prediction: str = "noise",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""Encodes the content and generates what is absent (ours).

        An absent row starts as pure noise, :math:`x_{t_0} \sim \mathcal N(0, I)` at the schedule's
        last time, and takes the clipped steps of a :class:`~gtc_pyg.nn.DDIMSampler` to
        :math:`t = 0`.

        The item's **other** modalities belong into its embedding, what the interactions say into
        its users'. The start fits a schedule that ends near pure noise (``'cosine'``) alone.

        One sample is a draw from the conditional distribution; the mean of many is nearest to the
        true content, and duller. The result is normalised in either case.

        Args:
            x: Raw content ``[N, in_channels]``; what absent rows hold is not looked at.
            mask: True where the content is present ``[N]``.
            denoiser: Predicts from noisy encoded content; trained on the rows that are present.
            schedule: The noise levels it was trained with.
            emb: User and item embeddings, the denoiser's condition.
            edge_index: Interactions, as the denoiser takes them.
            edge_weight: Their weights.
            num_steps: Steps from pure noise to the content.
            num_samples: Draws that are averaged.
            prediction: What the denoiser predicts, as in :class:`~gtc_pyg.nn.DDIMSampler`.
            generator: Draws the noise.

        Returns:
            ``[N, out_channels]``; present rows as :meth:`forward` gives them. No gradient passes.

        Raises:
            ValueError: Where an argument is out of its range or does not fit the others.
        """
        if mask.dtype != torch.bool or mask.shape != x.shape[:1]:
            raise ValueError(
                f"'mask' must be bool [{x.size(0)}] (got {mask.dtype} {list(mask.shape)})"
            )
        if not 1 <= num_steps <= schedule.num_steps:
            raise ValueError(f"'num_steps' must lie in [1, {schedule.num_steps}] (got {num_steps})")
        sampler = DDIMSampler(schedule, schedule.num_steps, num_steps, prediction, clip=True)
        check_least(1, num_samples=num_samples)
        if denoiser.channels != self.out_channels:
            raise ValueError(
                f"'denoiser' must have {self.out_channels} channels (got {denoiser.channels})"
            )
        if emb[1].size(0) != x.size(0):
            raise ValueError(f"'emb' must have {x.size(0)} items (got {emb[1].size(0)})")
        absent = ~mask
        out = self(torch.where(mask.view(-1, 1), x, 0.0))
        if not bool(absent.any()):
            return out
        cond, gate, _ = denoiser.encode_condition(emb, edge_index, edge_weight)
        cond, gate = cond[absent], None if gate is None else gate[absent]
        total = torch.zeros_like(out[absent])
        for _ in range(num_samples):
            noise = schedule.sample_noise(total, generator)
            total = total + sampler(denoiser, noise, cond, gate)
        out[absent] = F.layer_norm(total / num_samples, (self.out_channels,))
        return out

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.in_channels}, {self.out_channels})"
