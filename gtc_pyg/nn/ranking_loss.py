from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from gtc_pyg.functional import check_least, sampled_softmax, takes_numbers


class RankingLoss(Module):
    r"""What ranks a user's items above others; :class:`BPR` or :class:`SampledSoftmax`.

    Args:
        scale: Factor on the scores of the model that ranks with it, an inverse temperature, 1e-6 to
            1e6.

    Raises:
        ValueError: For a scale out of its range.
    """

    num_negatives: int = 1
    """How many negatives all users of a batch share; 1 where each pair has its own."""

    @takes_numbers
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if not 1e-6 <= scale <= 1e6:
            raise ValueError(f"'scale' must be from 1e-6 to 1e6 (got {scale})")
        self.scale = float(scale)


class BPR(RankingLoss):
    r"""Bayesian personalised ranking: a user's item above one that is not theirs.

    .. math:: -\frac{1}{B} \sum_{(u, i, j)} \log \sigma(s_{ui} - s_{uj})

    From `"BPR: Bayesian Personalized Ranking from Implicit Feedback"
    <https://arxiv.org/abs/1205.2618>`_.

    Args:
        scale: As in :class:`RankingLoss`.

    Shapes:
        - **input:** users :math:`(N, K)`, items :math:`(I, K)`, and for each of :math:`B` pairs a
          row of the users, an item of theirs and one that is not
        - **output:** a scalar

    Example:
        >>> import torch
        >>> from gtc_pyg.nn import BPR
        >>> one = torch.tensor([0])
        >>> BPR()(torch.tensor([[1.0]]), torch.tensor([[1.0], [0.0]]), one, one, one + 1)
        tensor(0.3133)
    """

    def forward(
        self,
        user_emb: Tensor,
        item_emb: Tensor,
        user: Tensor,
        pos_item: Tensor,
        neg_item: Tensor,
        known: Tensor | None = None,
    ) -> Tensor:
        r"""The mean over the pairs.

        Args:
            user_emb: ``[N, K]``.
            item_emb: ``[I, K]``.
            user: A row of ``user_emb`` for each pair ``[B]``.
            pos_item: An item of that user ``[B]``.
            neg_item: An item that is none of theirs ``[B]``.
            known: Ignored: each pair has a negative of its own.
        """
        u = user_emb.index_select(0, user)
        pos, neg = item_emb.index_select(0, torch.cat([pos_item, neg_item])).chunk(2)
        return -F.logsigmoid((u * pos).sum(-1) - (u * neg).sum(-1)).mean()

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(scale={self.scale})"


class SampledSoftmax(RankingLoss):
    r"""Cross-entropy of a user's item among negatives that all users of a batch share.

    See :func:`gtc_pyg.functional.sampled_softmax`. Items that the step's graph holds for a user are
    left out of the negatives; pruned and unsampled interactions are not known to it.

    Args:
        num_negatives: How many negatives, at most the batch's.
        scale: As in :class:`RankingLoss`.

    Shapes:
        - **input:** as :class:`BPR`, and the users' items as CSR :math:`(N, I)`
        - **output:** a scalar

    Example:
        >>> import torch
        >>> from gtc_pyg.nn import SampledSoftmax
        >>> one, known = torch.tensor([0]), torch.tensor([[1.0, 0.0, 0.0]]).to_sparse_csr()
        >>> emb = torch.tensor([[1.0]]), torch.tensor([[1.0], [0.0], [0.0]])
        >>> SampledSoftmax(2)(*emb, one, one, torch.tensor([1, 2]), known)
        tensor(0.5514)
    """

    @takes_numbers
    def __init__(self, num_negatives: int = 1024, scale: float = 1.0) -> None:
        super().__init__(scale)
        check_least(2, num_negatives=num_negatives)
        self.num_negatives = int(num_negatives)

    def forward(
        self,
        user_emb: Tensor,
        item_emb: Tensor,
        user: Tensor,
        pos_item: Tensor,
        neg_item: Tensor,
        known: Tensor | None = None,
    ) -> Tensor:
        r"""The mean over the pairs.

        Args:
            user_emb: ``[N, K]``.
            item_emb: ``[I, K]``.
            user: A row of ``user_emb`` for each pair ``[B]``.
            pos_item: An item of that user ``[B]``.
            neg_item: Items of which the first ``num_negatives`` are drawn for all users ``[B]``.
            known: The users' items, CSR ``[N, I]``; its values do not matter.
        """
        if known is None:
            raise ValueError("'known' must be the users' items, CSR [N, I] (got None)")
        sample = neg_item[: self.num_negatives].unique()
        return sampled_softmax(user_emb, item_emb, user, pos_item, sample, known)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(num_negatives={self.num_negatives}, scale={self.scale})"
