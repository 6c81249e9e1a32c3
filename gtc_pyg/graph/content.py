r"""Content of items as models are given it, with the masks of modalities that some items lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gtc_pyg.functional import check_least

Features = Mapping[str, Tensor]


def content_of(
    features: Features, name: str, num_items: int, dtype: torch.dtype | None = None
) -> Tensor:
    r"""The content of a modality, one row per item.

    Args:
        features: Content of each modality, and ``has_<modality>`` of those that some items lack.
        name: The modality.
        num_items: Number of items.
        dtype: That of the model's weights, in which the content is given; its own where ``None``.

    Raises:
        ValueError: Where it is missing, or it or its mask does not fit the items.
    """
    if name not in features:
        raise ValueError(f"'features' lacks {name!r} (it has {list(features)})")
    if features[name].size(0) != num_items:
        raise ValueError(
            f"'features' has {features[name].size(0)} rows of {name!r}, "
            f"expected one for each of the {num_items} items"
        )
    mask = features.get(f"has_{name}")
    if mask is not None and (mask.shape != (num_items,) or mask.dtype != torch.bool):
        raise ValueError(
            f"'features' must have 'has_{name}' as bool [{num_items}] "
            f"(got {mask.dtype} {list(mask.shape)})"
        )
    return features[name] if dtype is None else features[name].to(dtype)


def content_with_masks(
    features: Features,
    names: Sequence[str],
    incomplete: Sequence[str],
    num_items: int,
    dtype: torch.dtype | None = None,
) -> Features:
    r"""The content of some modalities with the masks there are, of which none tells of a gap that
    a model was not made for.

    Args:
        features: As in :func:`content_of`.
        names: The modalities.
        incomplete: Those that may have gaps, and must say where.
        num_items: Number of items.
        dtype: As in :func:`content_of`.

    Raises:
        ValueError: Besides, where a mask of ``incomplete`` is missing or another modality has gaps.
    """
    content = {name: content_of(features, name, num_items, dtype) for name in names}
    for name in incomplete:
        if f"has_{name}" not in features:
            raise ValueError(
                f"'features' lacks 'has_{name}' [{num_items}] (bool): {name!r} is one of "
                f"'incomplete'"
            )
    masks = {key: mask for key, mask in features.items() if key.startswith("has_")}
    for name in content:
        mask = masks.get(f"has_{name}")
        if name not in incomplete and mask is not None and not mask.all():
            raise ValueError(
                f"'features' lacks {name!r} of {int((~mask).sum())} items: make the model with "
                f"incomplete=[{name!r}], a dataset's 'incomplete'"
            )
    return content | masks


def present_rows(features: Features, name: str) -> Tensor:
    r"""The items that have a modality ``[I]`` (bool): its mask, or all.

    Args:
        features: As in :func:`content_of`.
        name: The modality.
    """
    x, mask = features[name], features.get(f"has_{name}")
    return torch.ones(len(x), dtype=torch.bool, device=x.device) if mask is None else mask


def check_widths(in_channels: Mapping[str, int], least: int = 1) -> None:
    r"""Refuses what does not map modalities to the widths of their content.

    Args:
        in_channels: As of a model.
        least: How many modalities there must be.

    Raises:
        ValueError: With what was given.
    """
    if not isinstance(in_channels, Mapping):
        raise ValueError(
            f"'in_channels' must map modalities to widths, such as {{'image': 512}} (got "
            f"{in_channels!r:.80})"
        )
    if len(in_channels) < least:
        raise ValueError("'in_channels' must name at least one modality (got none)")
    check_least(1, **in_channels)
