from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gtc_pyg.datasets.content_values import is_sparse, numbers_of


def read_content(
    features: Mapping[str, Any], known: Mapping[str, Tensor], ids: pd.Index
) -> dict[str, Tensor]:
    r"""Content of new items, checked against that of the known ones.

    Args:
        features: Modality to content ``[n, F_m]`` as
            :func:`~gtc_pyg.datasets.content_values.numbers_of` takes it, rows in the order of
            ``ids`` or, of a DataFrame, Series or dict, by id; and ``has_<modality>`` ``[n]``
            (bool), or a Series with ids as index. A modality that is left out is one that all of
            them lack.
        known: The same of the known items.
        ids: Of the new items :math:`[n]`.

    Returns:
        Modality to ``[n, F_m]``, zeros where there is none, and ``has_<modality>`` for every
        modality that some lack.

    Raises:
        ValueError: For an unknown modality, other rows or widths, or content that is not finite;
            where none is given.
    """
    num_items = len(ids)
    names = [name for name in known if not name.startswith("has_")]
    unknown = [name for name in features if name.removeprefix("has_") not in names]
    if unknown:
        raise ValueError(f"'features' holds {unknown}, expected some of {names}")
    given = [name for name in features if name in names]
    if not given:
        raise ValueError(f"'features' must hold content, some of {names} (got none)")
    out: dict[str, Tensor] = {}
    for name in names:
        width, has = known[name].size(1), torch.full((num_items,), name in given)
        x = torch.zeros(num_items, width)
        if name in given:
            x = _as_tensor(name, features[name], ids)
            if x.shape != (num_items, width):
                raise ValueError(
                    f"'features' at {name!r} must be [{num_items}, {width}] (got {list(x.shape)})"
                )
            if f"has_{name}" in features:
                has = _as_mask(f"has_{name}", features[f"has_{name}"], ids)
                if has.shape != (num_items,) or has.dtype != torch.bool:
                    raise ValueError(
                        f"'features' at 'has_{name}' must be bool [{num_items}] "
                        f"(got {has.dtype} {list(has.shape)})"
                    )
            wrong = ~x.isfinite().all(dim=1) & has
            if wrong.any():
                row = int(wrong.nonzero()[0])
                value = x[row][~x[row].isfinite()][0].item()
                raise ValueError(
                    f"'features' at {name!r}: row {row} is not finite (got {value}, item "
                    f"{ids[[row]].tolist()}); 'has_{name}' [{num_items}] (bool) says which lack it"
                )
            x = x.masked_fill(~has.view(-1, 1), 0.0)
        out[name] = x
        if not has.all():
            out[f"has_{name}"] = has
    return out


def _as_tensor(name: str, x: Any, ids: pd.Index) -> Tensor:
    if isinstance(x, Mapping) and not is_sparse(x):
        x = pd.Series(list(x.values()), index=list(x), dtype=object)
    by_id = isinstance(x, pd.DataFrame | pd.Series)
    if by_id:
        lacking = ids.difference(x.index)
        if len(lacking) or not x.index.is_unique:
            raise ValueError(
                f"'features' at {name!r} must have the items' ids as index, each once: ids such as "
                f"{ids[:1].tolist()} (lacking {lacking[:3].tolist()}, it has "
                f"{x.index[:3].tolist()}); set_index makes an index of a column"
            )
        x = x.loc[ids]
    found = numbers_of(x, f"'features' at {name!r}", ids if by_id else None)
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.array(found, dtype=np.float32))


def _as_mask(name: str, mask: Any, ids: pd.Index) -> Tensor:
    if isinstance(mask, Tensor):
        return mask.detach().cpu()
    if isinstance(mask, pd.Series):
        lacking = ids.difference(mask.index)
        if not len(lacking) and mask.index.is_unique:
            mask = mask.loc[ids]
        elif not mask.index.equals(pd.RangeIndex(len(ids))):
            raise ValueError(
                f"'features' at {name!r} must have the items' ids as index, each once (lacking "
                f"{lacking[:3].tolist()})"
            )
    found = np.array(mask)
    if found.dtype != bool:
        raise ValueError(f"'features' at {name!r} must be bool [{len(ids)}] (got {found.dtype})")
    return torch.from_numpy(found)


def joined(features: Mapping[str, Tensor], more: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""Content of items, and of others below; masks where some of them lack a modality."""
    out = {}
    for name in dict.fromkeys([*features, *more]):
        parts = [
            every.get(name, torch.ones(every[name.removeprefix("has_")].size(0), dtype=torch.bool))
            for every in (features, more)
        ]
        out[name] = torch.cat(parts)
    return out
