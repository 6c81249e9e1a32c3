r"""A full disk, a place that must not be written to: one error that says what to do, no torn file.

The file-size limit of the process stands for a full disk (the same calls fail, by EFBIG), and where
tmpfs can be mounted a full one is tried too. What root may do in spite of its modes is made
to fail by an injected error. What ``download_files`` does when it is cut off or gets other bytes is
in ``tests/datasets/test_download.py``.
"""

from __future__ import annotations

import errno
import hashlib
import http.server
import logging
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from gtc_pyg.datasets import LFM2k, PlantedPreferences, TikTok, interaction_dataset
from gtc_pyg.datasets.download import RemoteFile, download_files
from gtc_pyg.datasets.raw_files import read_npy
from gtc_pyg.experiment import HEADER, append_rows
from gtc_pyg.lightning import FitResult, fit
from gtc_pyg.models import LightGCN
from gtc_pyg.recommend import Recommender
from tests.bad_data.case import listing
from tests.bad_data.folders import write_tiktok

CONTENT = bytes(range(256)) * 1000
SAID = r"^cannot write .*{}.*: (File too large|No space left on device); make room there and run"


@contextmanager
def file_size(most: int) -> Iterator[None]:
    r"""No file may grow longer: what is beyond is refused as on a full disk."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    r"""A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def recommender(planted_dataset: Callable[..., PlantedPreferences]) -> Recommender:
    dataset = planted_dataset(200, 100, k=None)
    torch.manual_seed(0)
    return Recommender(LightGCN(200, 100, hidden_channels=32), dataset)


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            self.send_response(206 if start else 200)
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(CONTENT[start:])

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/a.npy"
        server.shutdown()


def rows(count: int) -> list[dict[str, object]]:
    return [dict.fromkeys(HEADER, f"value {row}") for row in range(count)]


WRITERS: dict[str, tuple[str, Callable[[Recommender, Path], object]]] = {
    "save": ("mine", lambda recommender, path: recommender.save(path)),
    "lists.csv": ("l.csv", lambda r, path: r.write(path, k=50, progress=False)),
    "lists.parquet": ("l.parquet", lambda r, path: r.write(path, k=50, progress=False)),
    "rows": ("rows.csv", lambda r, path: append_rows(path, rows(300))),
}


def whole(recommender: Recommender, kind: str, path: Path) -> bool:
    r"""Whether what was written at last is all there and nothing lies beside it."""
    beside = [entry.name for entry in path.parent.iterdir() if entry.name != path.name]
    if kind == "save":
        return Recommender.load(path).num_users == recommender.num_users and not beside
    count = path.read_bytes().count(b"\n") if path.suffix == ".csv" else None
    return beside == [] and count in (None, 301, 200 * 50 + 1)


@pytest.mark.parametrize("kind", WRITERS)
def test_file_beyond_the_size_limit_is_absent_until_the_next_run(
    recommender: Recommender, tmp_path: Path, kind: str
) -> None:
    name, write = WRITERS[kind]
    with file_size(4000), pytest.raises(OSError, match=SAID.format(name)) as caught:
        write(recommender, tmp_path / name)
    assert caught.value.errno == errno.EFBIG
    assert not (tmp_path / name).exists()
    assert all(path.is_dir() for path in tmp_path.iterdir())  # parts of lists may stay
    write(recommender, tmp_path / name)
    assert whole(recommender, kind, tmp_path / name)


@pytest.mark.parametrize("kind", WRITERS)
def test_file_on_a_full_disk_is_absent_until_the_next_run(
    recommender: Recommender, small_disk: Path, kind: str
) -> None:
    name, write = WRITERS[kind]
    filler = small_disk / "filler"
    filler.write_bytes(bytes(56 * 1024))
    with pytest.raises(OSError, match=SAID.format(name)) as caught:
        write(recommender, small_disk / name)
    assert caught.value.errno == errno.ENOSPC
    assert not (small_disk / name).exists()
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=9m", str(small_disk)], check=True)
    write(recommender, small_disk / name)
    assert whole(recommender, kind, small_disk / name)


@pytest.mark.parametrize("kind", WRITERS)
def test_what_was_there_before_stays(recommender: Recommender, tmp_path: Path, kind: str) -> None:
    name, write = WRITERS[kind]
    write(recommender, tmp_path / name)
    before = listing(tmp_path)
    with file_size(4000), pytest.raises(OSError, match=SAID.format(name)):
        write(recommender, tmp_path / name)
    after = listing(tmp_path)
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_place_that_must_not_be_written_to_is_named(
    recommender: Recommender,
    tmp_path: Path,
    kind: str,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, write = WRITERS[kind]

    def refuse(path: Any, *args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number), os.fspath(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    reason = os.strerror(number)
    with pytest.raises(OSError, match=rf"^cannot write .*{name}.*: {reason}; choose another pl"):
        write(recommender, tmp_path / "folder" / name)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    write(recommender, tmp_path / "folder" / name)
    assert whole(recommender, kind, tmp_path / "folder" / name)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("call", ["replace", "fsync", "rename"])
def test_where_the_last_step_fails_nothing_is_torn(
    recommender: Recommender,
    tmp_path: Path,
    kind: str,
    call: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, write = WRITERS[kind]
    failed = []

    def fail(*args: object) -> None:
        failed.append(call)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        try:
            write(recommender, tmp_path / name)
        except OSError as error:
            assert failed
            assert "make room there" in str(error)
            assert not (tmp_path / name).exists()
        else:
            assert not failed  # it is done without that call
            return
    write(recommender, tmp_path / name)
    assert whole(recommender, kind, tmp_path / name)


def test_download_keeps_what_came_and_resumes_with_room(address: str, tmp_path: Path) -> None:
    files = [RemoteFile("a.npy", address, hashlib.sha256(CONTENT).hexdigest())]
    with file_size(100_000), pytest.raises(OSError, match=SAID.format("a.npy")):
        download_files(files, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy.part"]
    assert CONTENT.startswith((tmp_path / "a.npy.part").read_bytes())
    download_files(files, str(tmp_path))
    assert listing(tmp_path) == {"a.npy": CONTENT}


def test_a_download_into_a_place_that_must_not_be_written_to(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, *args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "makedirs", refuse)
        with pytest.raises(PermissionError, match=r"^cannot write .*a\.npy: Permission denied; ch"):
            download_files([RemoteFile("a.npy", address)], str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_in_a_read_only_folder_says_both(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    raw.chmod(0o555)
    try:
        with pytest.raises(
            FileNotFoundError, match=r"'lfm2k\.inter'.* which is read-only: nothing"
        ):
            LFM2k(tmp_path)
    finally:
        raw.chmod(0o755)


def test_a_file_that_must_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.npy").write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"^cannot read .*a\.npy: permission denied; allow"):
        read_npy(str(tmp_path / "a.npy"))


@pytest.mark.parametrize("most", [0, 100, 3000])
def test_set_that_cannot_be_cached_is_used_and_cached_next_time(
    tmp_path: Path, most: int, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiktok(tmp_path)
    before = listing(tmp_path)
    with file_size(most), caplog.at_level(logging.WARNING):
        assert TikTok(tmp_path).num_items == 12
    assert "cannot be written (File too large): nothing is cached" in caplog.text
    assert listing(tmp_path) == before
    TikTok(tmp_path)
    kept = tmp_path / "processed" / "tiktok_image_audio.pt"
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    assert torch.load(kept, weights_only=True)["modalities"] == ["image", "audio"]


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_set_is_used_where_the_last_step_fails(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_tiktok(tmp_path)
    before = listing(tmp_path)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(interaction_dataset.os, call, fail)
        assert TikTok(tmp_path).num_items == 12
    assert "No space left on device): nothing is cached" in caplog.text
    assert listing(tmp_path) == before


def trained(dataset: PlantedPreferences, out: Path, **options: Any) -> FitResult:
    torch.manual_seed(0)
    model = LightGCN(60, 40, hidden_channels=16)
    options = {"epochs": 3, "batch_size": 128, "progress": False, "out": out, **options}
    return fit(model, dataset, **options)


def test_checkpoint_without_room_stops_training_and_is_absent(
    dataset: PlantedPreferences, tmp_path: Path
) -> None:
    with file_size(12_000), pytest.raises(OSError, match=r"^cannot write .*ckpt: .*make room"):
        trained(dataset, tmp_path)
    assert list(tmp_path.rglob("*.ckpt*")) == []
    trained(dataset, tmp_path)
    assert {path.name for path in tmp_path.rglob("*.ckpt*")} >= {"best.ckpt", "last.ckpt"}


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("after", [2, 3, 5])
def test_failed_later_checkpoint_leaves_whole_ones_to_resume(
    dataset: PlantedPreferences,
    tmp_path: Path,
    call: str,
    after: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = trained(dataset, tmp_path / "expected").model.state_dict()
    done, real = [], getattr(os, call)

    def fail(*args: Any, **kwargs: Any) -> Any:
        if len(done) == after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done.append(args)
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match=r"^cannot write .*ckpt: .*make room"):
            trained(dataset, tmp_path / "out")
    checkpoints = list((tmp_path / "out").rglob("*.ckpt*"))
    for path in checkpoints:
        assert path.suffix == ".ckpt"
        assert "state_dict" in torch.load(path, weights_only=True)
    found = trained(dataset, tmp_path / "out", resume=bool(checkpoints)).model.state_dict()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight)
