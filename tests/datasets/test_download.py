from __future__ import annotations

import hashlib
import http.server
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gtc_pyg.datasets import LFM2k, MMRecFolder, TikTok, lfm2k, tiktok
from gtc_pyg.datasets.download import RemoteFile, download_files

CONTENT = bytes(range(256)) * 1000


class Handler(http.server.BaseHTTPRequestHandler):
    r"""Serves CONTENT: ``/ranges`` resumes, ``/whole`` ignores ranges, ``/cut`` stops half-way,
    ``/endless`` does not say how long it is."""

    ranges: list[str | None]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.ranges.append(wanted)
        start = 0
        if wanted and self.path != "/whole":
            start = int(re.match(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
            if start >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        else:
            self.send_response(200)
        body = CONTENT[start:]
        if self.path != "/endless":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/cut" and not start else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Handler.ranges = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def remote(url: str, digest: str | None = None) -> RemoteFile:
    return RemoteFile("a.npy", url, digest or hashlib.sha256(CONTENT).hexdigest())


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_full(address: str, tmp_path: Path) -> None:
    download_files([remote(f"{address}/ranges")], str(tmp_path / "raw"))
    assert content(tmp_path / "raw") == {"a.npy": CONTENT}
    assert Handler.ranges == [None]


def test_existing_file_is_left_alone(address: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"mine")
    download_files([remote(f"{address}/ranges")], str(tmp_path))
    assert content(tmp_path) == {"a.npy": b"mine"}
    assert Handler.ranges == []


@pytest.mark.parametrize("path", ["ranges", "whole"])
def test_partial_file_is_completed(address: str, tmp_path: Path, path: str) -> None:
    (tmp_path / "a.npy.part").write_bytes(CONTENT[:1000])
    download_files([remote(f"{address}/{path}")], str(tmp_path))
    assert content(tmp_path) == {"a.npy": CONTENT}
    assert Handler.ranges == ["bytes=1000-"]


def test_connection_cut_off_then_resumed(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="cut off after 128000 of 256000 bytes"):
        download_files([remote(f"{address}/cut")], str(tmp_path))
    assert content(tmp_path) == {"a.npy.part": CONTENT[:128000]}
    download_files([remote(f"{address}/cut")], str(tmp_path))
    assert content(tmp_path) == {"a.npy": CONTENT}
    assert Handler.ranges == [None, "bytes=128000-"]


def test_leftover_as_long_as_the_file_is_fetched_again(address: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy.part").write_bytes(b"x" * len(CONTENT))
    download_files([remote(f"{address}/ranges")], str(tmp_path))
    assert content(tmp_path) == {"a.npy": CONTENT}


@pytest.mark.parametrize("path", ["ranges", "endless"])
def test_a_file_that_several_want_is_fetched_once(address: str, tmp_path: Path, path: str) -> None:
    file = remote(f"{address}/{path}", hashlib.sha256(CONTENT).hexdigest())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: download_files([file], str(tmp_path)), range(4)))
    assert content(tmp_path) == {"a.npy": CONTENT}
    assert Handler.ranges == [None]


def test_wrong_checksum_leaves_nothing(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"/ranges: SHA-256 is [0-9a-f]+, expected {'0' * 64}"):
        download_files([remote(f"{address}/ranges", "0" * 64)], str(tmp_path))
    assert content(tmp_path) == {}


@pytest.mark.parametrize(("cls", "module"), [(TikTok, tiktok), (LFM2k, lfm2k)])
def test_offline_error_lists_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cls: type, module: object
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setattr(module, "_URL", url)
    with pytest.raises(ConnectionError) as caught:
        cls(tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "raw") in message
    for name in module._SHA256:  # type: ignore[attr-defined]
        assert f"  {name} from {url}/{name}" in message
    assert not (tmp_path / "processed").exists()


def test_mmrec_folder_never_downloads(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing file 'toy\.inter': .*raw"):
        MMRecFolder(tmp_path, "toy")


def unchecked(address: str, path: str) -> RemoteFile:
    return RemoteFile("a.npy", f"{address}/{path}")


def test_missing_checksum_is_noted_once_and_must_match_later(address: str, tmp_path: Path) -> None:
    download_files([unchecked(address, "ranges")], str(tmp_path))
    digest = hashlib.sha256(CONTENT).hexdigest()
    note = f"{digest}  a.npy\n".encode()
    assert content(tmp_path) == {"a.npy": CONTENT, "a.npy.sha256": note}

    (tmp_path / "a.npy").unlink()
    download_files([unchecked(address, "whole")], str(tmp_path))
    assert content(tmp_path) == {"a.npy": CONTENT, "a.npy.sha256": note}

    (tmp_path / "a.npy").unlink()
    (tmp_path / "a.npy.sha256").write_text(f"{'0' * 64}  a.npy\n")
    with pytest.raises(ValueError, match=rf"SHA-256 is {digest}, expected {'0' * 64}"):
        download_files([unchecked(address, "ranges")], str(tmp_path))
    assert list(content(tmp_path)) == ["a.npy.sha256"]


def test_without_a_checksum_a_cut_connection_is_told_and_resumed(
    address: str, tmp_path: Path
) -> None:
    with pytest.raises(ConnectionError, match="cut off after 128000 of 256000 bytes"):
        download_files([unchecked(address, "cut")], str(tmp_path))
    assert content(tmp_path) == {"a.npy.part": CONTENT[:128000]}
    download_files([unchecked(address, "cut")], str(tmp_path))
    assert (tmp_path / "a.npy").read_bytes() == CONTENT
    assert Handler.ranges == [None, "bytes=128000-"]


def test_without_a_checksum_a_length_is_needed(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="does not say how long"):
        download_files([unchecked(address, "endless")], str(tmp_path))
    assert content(tmp_path) == {}
    download_files([remote(f"{address}/endless")], str(tmp_path))
    assert content(tmp_path) == {"a.npy": CONTENT}
