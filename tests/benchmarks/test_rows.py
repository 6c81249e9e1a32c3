import os

import pytest

from harness import append_rows, between, read_rows, write_rows, write_text

HEADER = ["model", "value"]
ROWS = [{"model": "gtc, ours", "value": "0.1"}, {"model": 'a "b"\r\nc', "value": ""}]


def test_appended_rows_come_after_the_old_ones_and_nothing_is_left_beside(tmp_path):
    path = tmp_path / "new" / "rows.csv"
    assert read_rows(path) == []
    append_rows(path, HEADER, ROWS)
    append_rows(path, HEADER, [{"model": "freedom"}])
    assert read_rows(path) == [*ROWS, {"model": "freedom", "value": ""}]
    assert path.read_bytes().startswith(b'model,value\n"gtc, ours",0.1\n')
    assert list(path.parent.iterdir()) == [path]


def test_a_file_without_rows_or_without_an_end_of_line_is_appended_to(tmp_path):
    path = tmp_path / "rows.csv"
    for text, old in (("", 0), ("model,value\n", 0), ("model,value\na,1", 1)):
        path.write_text(text)
        append_rows(path, HEADER, ROWS)
        assert read_rows(path)[old:] == ROWS and len(read_rows(path)) == old + 2


@pytest.mark.parametrize("text", ["value,model\n1,a\n", "model\n", "model,value,seed\n"])
def test_a_foreign_header_is_refused(tmp_path, text):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"rows.csv must have the header .* \(got "):
        append_rows(path, HEADER, ROWS)
    assert path.read_text() == text


def test_rows_are_written_anew(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("other\n1\n")
    write_rows(path, HEADER, ROWS)
    assert read_rows(path) == ROWS


def test_a_row_of_other_columns_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "rows.csv"
    append_rows(path, HEADER, ROWS)
    with pytest.raises(ValueError, match="seed"):
        append_rows(path, HEADER, [ROWS[0], {"seed": 1}])
    assert read_rows(path) == ROWS


def test_an_error_while_writing_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "page.md"
    write_text(path, "old\n")

    def fails(handle):
        os.ftruncate(handle, 2)
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="no space left"):
            write_text(path, "new text\n")
    assert path.read_text() == "old\n"
    write_text(path, "new text\n")
    assert path.read_text() == "new text\n"
    assert list(tmp_path.iterdir()) == [path]


def test_text_between_the_marks_is_replaced_and_a_page_without_them_refused():
    page = "a\n<!-- x -->\n\n1\n\n<!-- end of x -->\nb\n<!-- y --><!-- end of y -->\n"
    once = between(page, "x", "| 2 |")
    assert once == page.replace("1", "| 2 |") and between(once, "x", "| 2 |") == once
    for start in ("", "<!-- gain -->"):
        with pytest.raises(ValueError, match="lacks '<!-- gain -->' or '<!-- end of gain -->'"):
            between(start, "gain", "1")
