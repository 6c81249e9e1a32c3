r"""Predictions of a modality that some items lack, from interactions and other modalities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.functional import principal_axes, ridge_predictions, spectral_items


def content_to_fill(
    features: Mapping[str, Tensor], modality: str, like: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The content of a modality, zeros where it is absent, and which items have it.

    Args:
        features: Content ``[I, F_m]`` of each modality and masks ``[I]`` (bool).
        modality: Its name.
        like: A row of it ``[F]``, of the type that is wanted.

    Returns:
        ``[I, F]`` and ``[I]`` (bool).

    Raises:
        ValueError: Where the content does not fit.
    """
    has = f"has_{modality}"
    for key in (modality, has):
        if key not in features:
            raise ValueError(f"'features' lacks {key!r} (it has {list(features)})")
    x, mask = features[modality], features[has]
    if x.dim() != 2 or x.size(1) != like.numel():
        raise ValueError(
            f"'features' must have {modality!r} as [I, {like.numel()}] (got {list(x.shape)})"
        )
    for key, other in features.items():
        if other.size(0) != x.size(0):
            raise ValueError(
                f"'features' must have {x.size(0)} rows of {key!r} (got {other.size(0)})"
            )
        if key.startswith("has_") and other.dtype != torch.bool:
            raise ValueError(f"'features' must have {key!r} as bool (got {other.dtype})")
    x = torch.where(mask.view(-1, 1), x, 0.0).to(like.dtype)
    if not bool(x.isfinite().all()):
        raise ValueError(f"'features' holds values of {modality!r} that are not finite")
    return x, mask


class FillConditions(NamedTuple):
    r"""What the conditions of a :class:`~gtc_pyg.imputation.ModalityFiller` are made of.

    The condition of an item has two ridge regressions of encoded content :math:`x`: from the item's
    row of a spectral embedding of the interactions, and from its other modalities.
    """

    x: Tensor
    """Encoded content ``[I, D]``; absent rows mean nothing."""
    interactions: Tensor
    """Spectral embedding of the items ``[I, S]``."""
    others: Tensor
    """The other modalities, each at unit length ``[I, O]``."""

    @classmethod
    def of(
        cls,
        features: Mapping[str, Tensor],
        modality: str,
        encode: Callable[[Tensor], Tensor],
        like: Tensor,
        edge_index: Tensor,
        num_users: int,
        channels: int,
        spectral_channels: int,
    ) -> FillConditions:
        r"""Reads content and interactions.

        Args:
            features: As in :func:`content_to_fill`.
            modality: The one that has gaps.
            encode: Its content ``[I, F]`` to ``[I, D]``.
            like: As in :func:`content_to_fill`.
            edge_index: Interactions ``[2, E]``, users in row 0.
            num_users: Number of users.
            channels: How many principal axes at most are kept of each other modality.
            spectral_channels: :math:`S`.

        Raises:
            ValueError: Where content or interactions do not fit.
        """
        x, mask = content_to_fill(features, modality, like)
        others = [x[:, :0]]
        for name, other in features.items():
            if name != modality and not name.startswith("has_"):
                has = features.get(f"has_{name}", torch.ones_like(mask)).view(-1, 1)
                other = torch.where(has, other, 0.0).to(x.dtype)
                if not bool(other.isfinite().all()):
                    raise ValueError(
                        f"'features' holds values of {name!r} that are not finite; mark items "
                        f"without it in 'has_{name}'"
                    )
                # Absent rows come out as zeros, the mean of the present ones.
                other = torch.where(has, other - other.sum(0) / has.sum().clamp(min=1), 0.0)
                reduced = other @ principal_axes(other, channels).t()
                others.append(F.normalize(reduced, dim=1))
        interactions = spectral_items(edge_index, num_users, x.size(0), spectral_channels)
        return cls(encode(x), interactions.to(x.dtype), torch.cat(others, dim=1))

    def outside(self, known: Tensor) -> Tensor:
        r"""What rows outside ``known`` may see.

        Args:
            known: Rows that the regressions learn from ``[I]`` (bool).

        Returns:
            ``[I, 2D]``; rows of ``known`` saw themselves.
        """
        blocks = [
            ridge_predictions(z, self.x, known) if z.size(1) > 0 else torch.zeros_like(self.x)
            for z in (self.interactions, self.others)
        ]
        return torch.cat(blocks, dim=1)

    def by_folds(self, known: Tensor, fold: Tensor) -> Tensor:
        r"""What each of the known rows may see: that of a fold is made of the other folds.

        Args:
            known: As in :meth:`outside`.
            fold: Of each row ``[I]``.

        Returns:
            ``[I, 2D]``, zeros outside ``known``.
        """
        cond = self.x.new_zeros(known.numel(), 2 * self.x.size(1))
        for f in fold[known].unique():
            inside = known & (fold == f)
            cond[inside] = self.outside(known & ~inside)[inside]
        return cond
