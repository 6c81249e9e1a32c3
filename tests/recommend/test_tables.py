import json

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from gtc_pyg.recommend.tables import read_table, write_table

MOST = 10_000
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
KINDS = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint8": st.integers(0, 255),
    "Int64": st.none() | st.integers(-(2**63), 2**63 - 1),
    "float32": st.floats(width=32),
    "bool": st.booleans(),
    "str": st.none() | TEXT,
    "category": st.none() | TEXT,
    "datetime64[us]": st.datetimes(pd.Timestamp(1700, 1, 1), pd.Timestamp(2200, 1, 1)),
    "object": st.lists(TEXT, max_size=3),
}


@st.composite
def tables(draw):
    size = draw(st.integers(0, 5))
    kinds = draw(st.dictionaries(TEXT, st.sampled_from(list(KINDS)), min_size=1, max_size=4))
    columns = {}
    for name, kind in kinds.items():
        values = draw(st.lists(KINDS[kind], min_size=size, max_size=size))
        columns[name] = pd.Series(values, dtype=object if size == 0 else kind).astype(kind)
    return pd.DataFrame(columns)


@given(table=tables())
@settings(max_examples=30)
def test_a_table_comes_back(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("t") / "items.arrow"
    write_table(table, path)
    assert_frame_equal(read_table(path, len(table), MOST), table, check_exact=True)
    assert list(pd.read_feather(path).columns) == list(table.columns)


@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
@settings(max_examples=150)
def test_no_byte_makes_it_read_outside_or_crash(tmp_path_factory, place, byte):
    path = tmp_path_factory.getbasetemp() / "spoilt.arrow"
    table = pd.DataFrame({"item": [1, 2], "kind": pd.Categorical(["a", "b"]), "tags": [["x"], []]})
    write_table(table, path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] = byte
    path.write_bytes(content)
    try:
        assert len(read_table(path, 2, MOST)) == 2
    except Exception as error:
        assert not isinstance(error, MemoryError)


def raw(path, table, **options):
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer,
    ):
        writer.write_table(table)


def category(text, size):
    return pa.DictionaryArray.from_arrays(pa.array([0] * size, pa.int32()), [text])


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ([["x" * 10**6] * 3], {"compression": "zstd"}, "a compressed table"),
        ([["x" * 10**6] * 3], {"compression": "lz4"}, "a compressed table"),
        ([category("x" * 10**6, 3)], {"compression": "zstd"}, "a compressed table"),
        ([["x"]], {"metadata_version": pa.ipc.MetadataVersion.V4}, "another version of Arrow"),
        ([["x"] * 4], {}, "t.arrow has 4 rows, but there are 3"),
        ([pa.nulls(2 * 10**8)], {}, "t.arrow has 200000000 rows, but there are 3"),
        ([pa.nulls(3)] * 4000, {}, "t.arrow has 4000 columns, too many for its rows"),
        ([category("x" * 5000, 3)], {}, "holds more than the folder is large"),
        ([category(b"x" * 5000, 3)], {}, "holds more than the folder is large"),
        ([category([1] * 5000, 3)], {}, r"'0' has the type dictionary<values=list"),
        ([category({"a": "x" * 5000}, 3)], {}, r"'0' has the type dictionary<values=struct"),
        ([[[True] * 10_000, [], []]], {}, "holds more than the folder is large"),
        ([pa.nulls(3, pa.list_(pa.null(), 10**6))], {}, r"'0' has the type fixed_size_list"),
        ([[[None] * 10_000, [], []]], {}, "holds more than the folder is large"),
        ([pa.nulls(3, pa.struct([]))], {}, r"'0' has the type struct<>"),
        ([pa.nulls(3, pa.string_view())], {}, r"'0' has the type string_view"),
        ([pa.nulls(3, pa.list_view(pa.bool_()))], {}, r"'0' has the type list_view"),
        (
            [pa.nulls(3, pa.run_end_encoded(pa.int32(), pa.string()))],
            {},
            r"has the type run_end_enc",
        ),
    ],
)
def test_what_grows_when_read_is_refused(tmp_path, columns, options, message):
    path = tmp_path / "t.arrow"
    raw(path, pa.table(columns, [str(i) for i in range(len(columns))]), **options)
    with pytest.raises(ValueError, match=message):
        read_table(path, 3, MOST)


@pytest.mark.parametrize("kind", ["V1000000000", "S400000000", "U400000000", "(10000000,)i8"])
def test_a_type_that_no_column_has_is_not_made(tmp_path, kind):
    columns = pa.table({"item": [1, 2]}).replace_schema_metadata(
        {b"gtc_pyg.columns": json.dumps([kind]).encode()}
    )
    path = tmp_path / "items.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, columns.schema) as writer:
        writer.write_table(columns)
    with pytest.raises(ValueError, match="a column of the type"):
        read_table(path, 2, MOST)


def test_no_table_is_named(tmp_path):
    path = tmp_path / "t.arrow"
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"t.arrow is no table of Arrow's"):
        read_table(path, 3, MOST)


@pytest.mark.parametrize("column", [[1, "a"], [{"a": 1}, {"b": 2}], [1.0, "n/a"]])
def test_a_column_that_cannot_be_saved_is_named(tmp_path, column):
    table = pd.DataFrame({"item": [1, 2], "price": column})
    with pytest.raises(ValueError, match=r"the items' column 'price' cannot be saved .*astype"):
        write_table(table, tmp_path / "items.arrow")
    assert list(tmp_path.iterdir()) == []
