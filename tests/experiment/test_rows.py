import pytest

from gtc_pyg.experiment import (
    HEADER,
    append_rows,
)


def test_rows_never_join_a_file_with_another_header(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has the header 'a,b', expected 'dataset,model"):
        append_rows(path, [])
    assert path.read_text() == "a,b\n1,2\n"


def test_appending_keeps_what_is_there_and_leaves_no_partial_file(tmp_path):
    path = tmp_path / "new" / "rows.csv"
    for seed in range(2):
        append_rows(path, [dict.fromkeys(HEADER, seed)])
    assert path.read_text().splitlines() == [",".join(HEADER)] + [
        ",".join([str(seed)] * len(HEADER)) for seed in range(2)
    ]
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.csv"]
