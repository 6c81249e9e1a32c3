from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gtc_pyg.datasets.content_values import holds_vectors, is_sparse, numbers_of
from gtc_pyg.datasets.exact_ids import difference, exact_ids, rows_of
from gtc_pyg.datasets.frame_columns import as_pandas


def read_content(
    features: Mapping[str, Any],
    known: Mapping[str, Tensor],
    ids: pd.Index,
    columns: Mapping[str, Sequence[str]] = MappingProxyType({}),
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
        columns: Modality to the names of its columns in training, where they had names. A
            DataFrame's columns are brought into that order.

    Returns:
        Modality to ``[n, F_m]``, zeros where there is none, and ``has_<modality>`` for every
        modality that some lack.

    Raises:
        ValueError: For an unknown modality, other rows, widths or columns, or content that is not
            finite; where none is given.
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
            x = _as_tensor(name, features[name], ids, columns.get(name, ()))
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


def _as_tensor(name: str, x: Any, ids: pd.Index, columns: Sequence[str]) -> Tensor:
    x = as_pandas(x)
    if isinstance(x, Mapping) and not is_sparse(x):
        x = pd.Series(list(x.values()), exact_ids(list(x), _at(name)), dtype=object)
    if isinstance(x, pd.DataFrame) and "item" in x.columns:
        x = x.set_index("item")
    by_id = isinstance(x, pd.DataFrame | pd.Series)
    if by_id:
        x = _by_id(name, x, ids)
    if isinstance(x, pd.DataFrame) and not (x.shape[1] == 1 and holds_vectors(x.iloc[:, 0])):
        x = in_order(x, columns, _at(name))
    found = numbers_of(x, _at(name), ids if by_id else None)
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.array(found, dtype=np.float32))


def in_order(x: pd.DataFrame, columns: Sequence[str], what: str) -> pd.DataFrame:
    r"""Columns in the order of training, where both have names.

    Args:
        x: Content; names that are the numbers of its columns in their order are none.
        columns: The names in training; empty where they had none.
        what: Names the table in messages.

    Raises:
        ValueError: For other names.
    """
    found, numbers = list(map(str, x.columns)), list(map(str, range(x.shape[1])))
    columns = list(columns) or numbers
    if sorted(found) == sorted(columns) and len({*found}) == len(found):
        return x.iloc[:, [found.index(name) for name in columns]]
    if found == numbers or columns == list(map(str, range(len(columns)))):
        return x
    raise ValueError(
        f"{what} must have the columns of training, {columns[:5]} ... ({len(columns)}): it lacks "
        f"{[name for name in columns if name not in found][:5]} and has "
        f"{[name for name in found if name not in columns][:5]} besides"
    )


def _at(name: str) -> str:
    return f"'features' at {name!r}"


def _by_id(name: str, x: Any, ids: pd.Index) -> Any:
    r"""The rows of a table or Series that are the items', in their order.

    A Series whose index is the numbers of its rows has the items' order.
    """
    index = exact_ids(x.index, f"the index of {_at(name)}")
    rows = rows_of(ids, index.unique())
    if (rows < 0).any() or not index.is_unique:
        if isinstance(x, pd.Series) and index.equals(pd.RangeIndex(len(ids))):
            return x
        raise ValueError(
            f"{_at(name)} must have the items' ids as index, each once: ids such as "
            f"{ids[:1].tolist()} (lacking {ids[rows < 0][:3].tolist()}, it has "
            f"{index[:3].tolist()}{difference(ids[rows < 0], index)}); set_index makes an index of "
            "a column"
        )
    return x.iloc[rows]


def _as_mask(name: str, mask: Any, ids: pd.Index) -> Tensor:
    if isinstance(mask, Tensor):
        return mask.detach().cpu()
    if isinstance(mask, pd.Series):
        mask = _by_id(name, mask, ids)
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
