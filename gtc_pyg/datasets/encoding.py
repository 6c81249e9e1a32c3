r"""Vectors of raw texts, images and other files, by any encoder, kept in a file."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


def encode(
    inputs: Mapping[Any, Any] | pd.Series,
    encoder: Callable[[list[Any]], Any],
    *,
    name: str | None = None,
    cache: str | PathLike[str] | None = None,
    batch_size: int = 64,
    read: Callable[[Path], Any] | None = None,
    skip_unreadable: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    r"""Encodes texts or files item by item, for ``from_frames(features={...})``.

    Equal inputs are encoded once. With :obj:`cache` every vector is kept, under the encoder's
    :obj:`name` and the checksum of the text or of the file's bytes: a second call encodes what is
    new or has changed, and a call that was interrupted loses the batch that it was at. The cache is
    one SQLite file, each batch a transaction; reading it runs no code. It never forgets: delete the
    file to begin anew.

    Args:
        inputs (dict or pandas.Series): The id of an item to its input. A :obj:`str` is a text, a
            :class:`pathlib.Path` a file (``items["file"].map(Path)`` makes paths of a column).
            :obj:`None`, NaN and blank texts are missing: the item is left out of the result.
        encoder (callable): From a list of inputs to their vectors ``[n, F]``, an array or a tensor.
            It gets texts as they are, and of a file what :obj:`read` gives.
        name (str, optional): What makes the vectors: the model, its weights, what is done before
            and after. Needed with :obj:`cache`, where another name is another set of vectors.
        cache (str or path, optional): The file to keep vectors in; made with its folders where it
            does not exist. Any number of encoders and modalities may share it.
        batch_size (int): The most inputs in a call of :obj:`encoder`. (default: :obj:`64`)
        read (callable, optional): From a path to what the encoder takes. By default Pillow opens
            an image, in RGB.
        skip_unreadable (bool): Leaves out items whose file is not there or cannot be read, and
            tells the log how many, in place of an error. (default: :obj:`False`)
        progress (bool): Shows a progress bar. (default: :obj:`True`)

    Returns:
        pandas.DataFrame: One row of float32 for each item that has an input, in their order, the
        ids as its index. Items without a row lack the modality, as :func:`from_frames` takes it.

    Raises:
        ModuleNotFoundError: If pandas is missing, or Pillow where it is to open an image.
        TypeError: If :obj:`inputs` is no dict or Series, or an input neither text nor path.
        ValueError: If an id stands twice; a file cannot be read (named, with its item); there is
            nothing to encode; the vectors are not ``[n, F]``, finite and as wide as those of the
            cache; :obj:`cache` comes without :obj:`name`; or the file is no cache.

    Example:
        >>> from gtc_pyg.datasets import encode
        >>> def letters(texts):  # a model's own call, such as SentenceTransformer(...).encode
        ...     return [[text.count(letter) for letter in "aeiou"] for text in texts]
        >>> encode({"t1": "green tea", "t2": "jam", "t3": None}, letters, progress=False)
              0    1    2    3    4
        t1  1.0  3.0  0.0  0.0  0.0
        t2  1.0  0.0  0.0  0.0  0.0
    """
    try:
        import pandas as pd

        from gtc_pyg.datasets.exact_ids import exact_ids
    except ModuleNotFoundError as error:
        message = 'encode needs pandas: pip install "gtc-pyg[data]"'
        raise ModuleNotFoundError(message, name=error.name) from error

    if batch_size < 1:
        raise ValueError(f"'batch_size' must be at least 1 (got {batch_size})")
    if not isinstance(inputs, Mapping | pd.Series):
        raise TypeError(f"'inputs' must be a dict or a Series by item id (got {type(inputs)})")
    if isinstance(inputs, pd.Series) and not inputs.index.is_unique:
        again = inputs.index[inputs.index.duplicated()][0]
        raise ValueError(f"'inputs' has item {again!r} twice, expected once")
    if cache is not None and not name:
        raise ValueError(f"'cache' needs the encoder's 'name' (got {name!r}), such as its weights'")
    where = "" if cache is None else f" and those of {name!r} in {cache}"

    keys: dict[Any, str] = {}  # of each item
    vectors: dict[str, np.ndarray] = {}
    waiting: dict[str, tuple[Any, Any]] = {}
    unreadable: list[str] = []
    with closing(_Cache(cache, str(name))) as kept:

        def flush() -> None:
            owners, batch = zip(*waiting.values(), strict=True)
            found = dict(zip(waiting, _rows(encoder(list(batch)), owners), strict=True))
            waiting.clear()
            kept.put(found)
            vectors.update(found)

        for owner, value in tqdm(inputs.items(), name, total=len(inputs), disable=not progress):
            if _missing(value, owner):
                continue
            try:
                key = _checksum(value)
                known = key in vectors or key in waiting
                if not known and (vector := kept.get(key)) is not None:
                    known, vectors[key] = True, vector
                if not known:
                    waiting[key] = owner, _content(value, read or _image)
            except _Unreadable as error:
                reason = f"item {owner!r}: {value} cannot be read ({error})"
                if not skip_unreadable:
                    remedy = "mend it, or leave such items out by skip_unreadable=True"
                    raise ValueError(f"'inputs', {reason}; {remedy}") from error
                unreadable.append(reason)
                continue
            keys[owner] = key
            if len(waiting) == batch_size:
                flush()
        if waiting:
            flush()
    if unreadable:
        logger.warning("left out %d unreadable file(s), such as %s", len(unreadable), unreadable[0])
    if not keys:
        raise ValueError(f"'inputs' has nothing to encode (got {len(inputs)} entries, none usable)")
    widths = {vector.size for vector in vectors.values()}
    if len(widths) > 1:
        raise ValueError(f"vectors of 'encoder'{where} have widths {sorted(widths)}, expected one")
    index = exact_ids(list(keys), "the ids of 'inputs'")
    index.name = getattr(getattr(inputs, "index", None), "name", None)
    return pd.DataFrame(np.stack([vectors[key] for key in keys.values()]), index)


def _missing(value: Any, owner: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, PathLike):
        return False
    if value is None or value != value or type(value).__name__ == "NAType":
        return True
    raise TypeError(f"'inputs', item {owner!r}: expected a text or a Path (got {type(value)})")


class _Unreadable(Exception):
    pass


def _checksum(value: str | PathLike[str]) -> str:
    if isinstance(value, str):
        return hashlib.sha256(b"text " + value.encode(errors="surrogatepass")).hexdigest()
    try:
        with open(value, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _Unreadable(error.strerror) from error


def _content(value: str | PathLike[str], read: Callable[[Path], Any]) -> Any:
    if isinstance(value, str):
        return value
    try:
        return read(Path(value))
    except ImportError:
        raise
    except Exception as error:  # whatever reads files has errors of its own
        raise _Unreadable(error) from error


def _image(path: Path) -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        message = "Pillow opens images: pip install pillow, or give 'read'"
        raise ModuleNotFoundError(message, name=error.name) from error
    with Image.open(path) as image:
        return image.convert("RGB")


def _rows(found: Any, owners: tuple[Any, ...]) -> np.ndarray:
    if isinstance(found, Tensor):
        found = found.detach().cpu().float()
    x = np.asarray(found, dtype=np.float32)
    if x.ndim != 2 or len(x) != len(owners) or x.shape[1] == 0:
        raise ValueError(
            f"'encoder' must give [n, F] for n inputs (got {list(x.shape)} for {len(owners)})"
        )
    finite = np.isfinite(x).all(axis=1)
    if not finite.all():
        raise ValueError(f"'encoder' gave NaN or infinity for item {owners[finite.argmin()]!r}")
    return x


@contextmanager
def _naming(path: str | PathLike[str]) -> Iterator[None]:
    import sqlite3

    try:
        yield
    except sqlite3.OperationalError as error:
        raise OSError(f"{path}, the cache of 'encode': {error}") from error
    except sqlite3.DatabaseError as error:
        raise ValueError(
            f"{path} is no cache of 'encode', or a damaged one ({error}); "
            "name another file, or delete it"
        ) from error


class _Cache:
    r"""Vectors of one encoder by checksum, in an SQLite file; without a path it keeps nothing."""

    def __init__(self, path: str | PathLike[str] | None, name: str) -> None:
        self.name, self.connection = name, None
        if path is None:
            return
        import sqlite3

        self.path = path
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with _naming(path):
            self.connection = sqlite3.connect(path, timeout=60)
            tables = self.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if (found := [table for (table,) in tables]) not in ([], ["vectors"]):
                raise sqlite3.DatabaseError(f"it has the tables {found}")
            with self.connection:
                self.connection.execute(
                    "CREATE TABLE IF NOT EXISTS vectors "
                    "(encoder TEXT, checksum TEXT, vector BLOB, PRIMARY KEY (encoder, checksum))"
                )

    def get(self, checksum: str) -> np.ndarray | None:
        if self.connection is None:
            return None
        question = "SELECT vector FROM vectors WHERE encoder = ? AND checksum = ?"
        with _naming(self.path):
            row = self.connection.execute(question, (self.name, checksum)).fetchone()
        return None if row is None else np.frombuffer(row[0], dtype="<f4")

    def put(self, vectors: dict[str, np.ndarray]) -> None:
        if self.connection is None:
            return
        rows = [(self.name, key, x.astype("<f4").tobytes()) for key, x in vectors.items()]
        with _naming(self.path), self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
