from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gtc_pyg.datasets import content_values, from_frames
from gtc_pyg.datasets.content_values import numbers_of
from gtc_pyg.datasets.interaction_tables import InteractionTables

# Eighths between -2 and 2 are exact in every precision, bfloat16 too.
MATRICES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(1, 4)),
    elements=st.integers(-16, 16).map(lambda n: n / 8),
)


def tensor(x: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(x, dtype=dtype)


def of_column(entries: list[Any], dtype: Any = object) -> pd.DataFrame:
    return pd.DataFrame({"emb": pd.Series(entries, dtype=dtype)})


def objects(entries: list[Any]) -> np.ndarray:
    out = np.empty(len(entries), dtype=object)
    out[:] = entries
    return out


ARROW = pd.ArrowDtype(pa.list_(pa.float64()))
FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "float16": lambda x: x.astype(np.float16),
    "column order": np.asfortranarray,
    "object table": lambda x: x.astype(object),
    "unmasked": np.ma.masked_invalid,
    "bfloat16": lambda x: tensor(x, torch.bfloat16),
    "half": lambda x: tensor(x, torch.float16),
    "a gradient": lambda x: tensor(x, torch.float64).requires_grad_(),
    "bfloat16 with a gradient": lambda x: tensor(x, torch.bfloat16).requires_grad_(),
    "torch coo": lambda x: tensor(x, torch.float32).to_sparse(),
    "torch csr": lambda x: tensor(x, torch.float32).to_sparse_csr(),
    "lists": lambda x: x.tolist(),
    "list of arrays": list,
    "list of tensors": lambda x: list(tensor(x, torch.bfloat16).requires_grad_()),
    "list of sparse rows": lambda x: [sp.csr_matrix(row) for row in x],
    "array of arrays": lambda x: objects(list(x)),
    "Series of tensors": lambda x: pd.Series(list(tensor(x, torch.bfloat16).requires_grad_())),
    "column of lists": lambda x: of_column(x.tolist()),
    "column of tuples": lambda x: of_column([tuple(row) for row in x]),
    "column of arrays": lambda x: of_column(list(x)),
    "column of tensors": lambda x: of_column(list(tensor(x, torch.bfloat16))),
    "column of Arrow lists": lambda x: of_column(x.tolist(), ARROW),
    "text of JSON": lambda x: of_column([json.dumps(row.tolist()) for row in x]),
    "text of NumPy": lambda x: of_column([str(row) for row in x]),
    "text of an array": lambda x: of_column([repr(row) for row in x]),
    "text of a tensor": lambda x: of_column([repr(row) for row in tensor(x, torch.float32)]),
    "text of NumPy scalars": lambda x: of_column([str(list(row)) for row in x]),
    "text of a tuple": lambda x: of_column([f" ( {', '.join(map(str, row))} )\n" for row in x]),
    "text of a database": lambda x: of_column(["{" + ",".join(map(str, r)) + "}" for r in x]),
    "text of Arrow": lambda x: of_column([str(row.tolist()) for row in x], "string[pyarrow]"),
    "categories of text": lambda x: of_column([str(row.tolist()) for row in x], "category"),
    "sparse columns": lambda x: pd.DataFrame.sparse.from_spmatrix(sp.csr_matrix(x)),
    "nullable columns": lambda x: pd.DataFrame(x).convert_dtypes(),
    "Arrow columns": lambda x: pd.DataFrame(x).convert_dtypes(dtype_backend="pyarrow"),
    "object columns": lambda x: pd.DataFrame(x).astype(object),
    "columns of text": lambda x: pd.DataFrame(x).astype(str),
} | {
    f"SciPy {kind}": getattr(sp, kind)
    for layout in ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
    for kind in (f"{layout}_matrix", f"{layout}_array")
}


@pytest.mark.parametrize("form", FORMS)
@given(x=MATRICES)
@settings(max_examples=15, deadline=None)
def test_numbers_are_the_same_in_every_form(form: str, x: np.ndarray) -> None:
    found = numbers_of(FORMS[form](x), "content")
    assert found.dtype.kind in "biuf"
    np.testing.assert_array_equal(found.astype(np.float64), x)


@given(x=hnp.arrays(np.float64, (2, 3), elements=st.floats(allow_nan=False, allow_infinity=False)))
@settings(max_examples=50, deadline=None)
def test_text_of_any_float_is_read_exactly(x: np.ndarray) -> None:
    for entries in ([str(row.tolist()) for row in x], [json.dumps(row.tolist()) for row in x]):
        np.testing.assert_array_equal(numbers_of(entries, "content"), x)


ITEMS = pd.DataFrame({"item": list("abcdef")})
PAIRS = pd.DataFrame([(u, i) for u in "xyz" for i in "abcdef"], columns=["user", "item"])
X = np.arange(12).reshape(6, 2) / 8


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_content_of_a_dataset(form: str) -> None:
    value = FORMS[form](X)
    if isinstance(value, pd.DataFrame | pd.Series):
        value = value.set_axis(ITEMS["item"], axis=0)
    dataset = from_frames(PAIRS, ITEMS, {"text": value})
    x = dataset.features["text"]
    assert x.dtype == torch.float32 and not x.requires_grad and x.is_contiguous()
    np.testing.assert_array_equal(x.numpy(), X)


def test_vectors_beside_row_numbers_are_content_of_these_rows() -> None:
    pairs = PAIRS.assign(item=PAIRS["item"].map("abcdef".index))
    for value in (of_column(X.tolist()), of_column([str(row.tolist()) for row in X])):
        x = from_frames(pairs, features={"text": value}).features["text"]
        np.testing.assert_array_equal(x.numpy(), X)


VECTORS = [[0.0, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ma.masked_equal(X, 0.5), r"^c is a masked array, .* by \.filled\(value\)"),
        (
            of_column(["[0.1 0.2 ... 0.3]"]),
            r"column 'emb', holds vectors that were cut short",
        ),
        (["[0.1 0.2 ... 0.3]"], r"^c holds vectors that were cut short.*by to_parquet"),
        (["[[0, 1], [2, 3]]"], r"^c holds text that is no vector of numbers, '\[\[0, 1\], \[2, 3"),
        (["[0.1, 0.2]", "tea"], r"^c holds text such as 'tea': encode it first, by gtc_pyg"),
        (of_column([VECTORS[0], None]), r"^c has nothing for row 1 \(None\): .* by dropna\(\)"),
        (["[1, 2]", float("nan")], r"^c has nothing for row 1 \(nan\): .* by dropna\(\)"),
        (["[1, 2]", "[1]"], r"^c, row 1: shape \[1\], expected a vector as long as .*\[2\]"),
        ([VECTORS, VECTORS], r"^c, row 0: shape \[2, 2\], expected a vector of numbers"),
        (of_column([b"abcd"]), r"^c, row 0 holds bytes: .*numpy\.frombuffer\(entry, dtype\)"),
        (of_column(VECTORS).assign(year=1), r"a column 'emb' of vectors beside others, \['year'\]"),
        (of_column(VECTORS).assign(b=VECTORS), r"a column 'emb' of vectors beside others, \['b'\]"),
        (torch.zeros(2, 2, dtype=torch.complex64), r"^c must hold numbers, \[n, F\] \(dtype compl"),
        ([[1, "a"]], r"^c must hold numbers, \[n, F\] \(dtype <U"),
        (sp.csr_matrix((3, 0)), r"^c must be \[n, F\], one row per item \(got \[3, 0\]\)"),
        ([], r"^c must be \[n, F\], one row per item \(got \[0, 0\]\)"),
    ],
)
def test_what_is_no_table_says_what_to_do(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        numbers_of(value, "c")


def test_missing_numbers_are_named_with_their_item() -> None:
    frame = pd.DataFrame({"a": [0.5, None], "b": [1, 2]}, index=["x", "y"]).convert_dtypes()
    assert np.isnan(numbers_of(frame, "c")[1, 0])
    pairs = pd.DataFrame({"user": list("aabb"), "item": list("xyxy")})
    with pytest.raises(ValueError, match=r"row 1 \(item 'y'\), column 0 is nan"):
        from_frames(pairs, features={"text": frame})


def test_sparse_content_too_large_says_how_to_reduce_it(monkeypatch: pytest.MonkeyPatch) -> None:
    x = sp.random_array((40, 30), density=0.2, rng=np.random.default_rng(0), format="csr")
    monkeypatch.setattr(content_values, "MOST_DENSE", 40 * 30 * 8 - 1)
    coo = x.tocoo()
    sparse = torch.sparse_coo_tensor(np.stack([coo.row, coo.col]), coo.data, coo.shape)
    for value in (x, sparse):
        with pytest.raises(ValueError, match=r"is sparse, \[40, 30\].*scipy\.sparse\.linalg\.svds"):
            numbers_of(value, "c")
    u, s, _ = sp.linalg.svds(x, 8)  # the remedy
    assert numbers_of(u * s, "c").shape == (40, 8)


@pytest.mark.parametrize("make", [torch.Tensor.bfloat16, torch.Tensor.long, torch.Tensor.to_sparse])
def test_tables_keep_content_as_dense_float32(make: Callable) -> None:
    splits = {s: torch.tensor([[0], [i]]) for i, s in enumerate(("train", "val", "test"))}
    x = torch.tensor([[1.0, 0], [0, 2], [3, 0]])
    given = make(x)
    if given.is_floating_point():
        given.requires_grad_()
    tables = InteractionTables(splits, 1, {"text": given})
    tables.validate()
    found = tables.features["text"]
    assert found.dtype == torch.float32 and not found.requires_grad
    assert torch.equal(found, x)
