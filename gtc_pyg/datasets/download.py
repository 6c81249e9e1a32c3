r"""Downloads that resume, are checked, and appear under their name only when whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import NamedTuple

from tqdm import tqdm

from gtc_pyg.datasets.writing import locked, told

_CHUNK = 1 << 16
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


class RemoteFile(NamedTuple):
    r"""A file to download.

    Attributes:
        name: Its name in the folder.
        url: Its address.
        sha256: The checksum of its content, in hexadecimal digits; :obj:`None` where its publisher
            gives none. (default: :obj:`None`)
    """

    name: str
    url: str
    sha256: str | None = None


def download_files(files: Sequence[RemoteFile], folder: str, timeout: float = 30.0) -> None:
    r"""Downloads into :obj:`folder` those of :obj:`files` that are not there.

    A file grows as ``<name>.part``; a call that finds one asks the server for the rest. It is
    renamed once its checksum is right. Files that exist are not looked at. Of several processes
    that want the same file in the same place one downloads it, and the others wait.

    Where no checksum is known, a file has to be as long as the server says, and the checksum of
    what came is noted in ``<name>.sha256`` (as ``sha256sum --check`` reads it). A later download
    has to match the note: it tells whether the file is another since, not that the first was right.

    Args:
        files (sequence of RemoteFile): What to download.
        folder (str): Where to; made if it does not exist.
        timeout (float): Seconds to wait for the server. (default: :obj:`30.0`)

    Raises:
        ConnectionError: If a file cannot be had; the message says which files to put where.
        ValueError: If a checksum is wrong, or other than noted; nothing is left of that file.
        OSError: If the folder cannot be written to, or is full: what came so far is kept.
    """
    for file in files:
        path = os.path.join(folder, file.name)
        if os.path.isfile(path):
            continue
        try:
            with told(path):
                os.makedirs(folder, exist_ok=True)
                with locked(path):
                    if not os.path.isfile(path):
                        _download(file, folder, timeout)
        except _NETWORK_ERRORS as error:
            missing = [f for f in files if not os.path.isfile(os.path.join(folder, f.name))]
            listing = "\n".join(f"  {f.name} from {f.url}" for f in missing)
            raise ConnectionError(
                f"cannot download {file.url} ({error}); try again, or put into the folder "
                f"{folder} by hand:\n{listing}"
            ) from None


def _download(file: RemoteFile, folder: str, timeout: float) -> None:
    path = os.path.join(folder, file.name)
    part = f"{path}.part"
    if not _fetch(file, part, timeout):
        if os.path.exists(part):
            os.remove(part)
        if not _fetch(file, part, timeout):
            raise ConnectionError("the server answers with another part than asked for")
    digest = hashlib.sha256()
    with open(part, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    expected = file.sha256 or _note(f"{path}.sha256", f"{digest.hexdigest()}  {file.name}\n")
    if digest.hexdigest() != expected:
        os.remove(part)
        known = "" if file.sha256 else f" (if the publisher replaced it, remove {path}.sha256)"
        raise ValueError(
            f"{file.url}: SHA-256 is {digest.hexdigest()}, expected {expected}{known}; nothing was "
            f"kept"
        )
    os.replace(part, path)


def _note(path: str, line: str) -> str:
    r"""The checksum that ``path`` notes; where there is no such file, it is written."""
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        with open(f"{path}.part", "w", encoding="utf-8") as out:
            out.write(line)
        os.replace(f"{path}.part", path)
    with open(path, encoding="utf-8") as file:
        return file.readline().partition(" ")[0].strip()


def _fetch(file: RemoteFile, part: str, timeout: float) -> bool:
    r"""Completes ``part``; False where it is as long as the file, or longer, and so a leftover."""
    offset = os.path.getsize(part) if os.path.exists(part) else 0
    request = urllib.request.Request(file.url)
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and offset:
            return False
        raise
    with response:
        first = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        resumed = response.status == 206 and first is not None and int(first[1]) == offset
        if response.status == 206 and not resumed:
            return False
        offset = offset if resumed else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else offset + int(length)
        if total is None and file.sha256 is None:
            raise ConnectionError("no checksum is known and the server does not say how long it is")
        with (
            open(part, "ab" if resumed else "wb") as out,
            tqdm(desc=file.name, total=total, initial=offset, unit="B", unit_scale=True) as bar,
        ):
            while chunk := response.read(_CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
            size = out.tell()
    if total is not None and size < total:
        raise ConnectionError(f"cut off after {size} of {total} bytes, which are kept")
    return True
