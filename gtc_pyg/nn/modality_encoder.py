from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module, Parameter


class ModalityEncoder(Module):
    r"""Maps the content of one modality to the common width.

    .. math:: x_i = \mathrm{norm}(W f_i + b)

    from `"User-Aware Conditional Generative Total Correlation Learning for Multi-Modal
    Recommendation" <https://arxiv.org/abs/2604.03014>`_, where the map is linear alone. Ours ends
    in a layer normalisation **without learned scale**, so every row leaves with mean 0 and variance
    1, the scale that the noise schedule expects, and no row can shrink. Rows can still collapse
    onto one another, which a diffusion loss rewards: give it the output detached, as
    :class:`~gtc_pyg.models.GTC` does.

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
            ValueError: Where the width is not ``in_channels``, or entries are absent and the
                encoder was made without ``missing``.
        """
        if x.dim() != 2 or x.size(1) != self.in_channels:
            raise ValueError(f"'x' must be [N, {self.in_channels}] (got {list(x.shape)})")
        if mask is not None and self.missing is None and not bool(mask.all()):
            raise ValueError("'mask' marks absent rows, which needs ModalityEncoder(missing=True)")
        if mask is not None:
            x = torch.where(
                mask.view(-1, 1), x, 0.0
            )  # whatever stands there: NaN has NaN gradients
        out = self.lin(x)
        if mask is not None and self.missing is not None:
            out = torch.where(mask.view(-1, 1), out, self.missing)
        return F.layer_norm(out, (self.out_channels,))

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.in_channels}, {self.out_channels})"
