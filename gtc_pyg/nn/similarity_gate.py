from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module


class SimilarityGate(Module):
    r"""Fuses the ID embedding with each modality by how much they agree.

    .. math::
        w_i = \mathrm{softmax}_k \cos(e_i, r_i^k), \qquad
        z_i = e_i + \sum_k w_{ik} r_i^k, \qquad r_i^0 = e_i, \; r_i^m = \hat x_i^m

    from `"User-Aware Conditional Generative Total Correlation Learning for Multi-Modal
    Recommendation" <https://arxiv.org/abs/2604.03014>`_.
    Ours takes the cosine, so that no modality wins by its length. It has no weights.

    Shapes:
        - **input:** ID embeddings :math:`(N, D)`, one or more modalities :math:`(N, D)`
        - **output:** fused :math:`(N, D)`, weights :math:`(N, M + 1)` that sum to one
    """

    def forward(self, x: Tensor, modalities: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        r"""Fuses.

        Args:
            x: ID embeddings ``[N, D]``.
            modalities: Filtered content, each ``[N, D]``.
        """
        candidates = torch.stack([x, *modalities], dim=1)
        weight = F.cosine_similarity(x.unsqueeze(1), candidates, dim=-1).softmax(dim=-1)
        return x + (weight.unsqueeze(-1) * candidates).sum(dim=1), weight
