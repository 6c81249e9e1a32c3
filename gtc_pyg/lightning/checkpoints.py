r"""Checkpoints that are whole or not there, and what a run that goes on needs of them."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from gtc_pyg.datasets.writing import told

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
_BEGUN = "begun_anew"
_UNREADABLE = (OSError, EOFError, KeyError, RuntimeError, ValueError, NotImplementedError)


class DamagedCheckpointError(ValueError):
    r"""A checkpoint that is not whole."""


class CheckpointFiles(CheckpointIO):
    r"""Writes a run's checkpoints, and finds the one to go on from.

    A checkpoint is written beside its place, as ``<name>.part``, handed to the disk (``fsync``) and
    renamed; what ``last.ckpt`` held until then becomes ``previous.ckpt``. The files are zip
    archives, as ``torch.save`` makes them. Each record in them carries a CRC-32, which
    ``torch.load`` does not compare and :func:`read_checkpoint` does.

    Every one of the three files holds all of a run at the end of an epoch, so the newest whole one
    agrees with what it says of the best epoch: ``best.ckpt`` is written before ``last.ckpt``, and
    between the two it is the newest itself.

    Args:
        folder: Of one run. When a run that began anew (:meth:`begin`) writes the first time, it
            removes the checkpoints of the run before; until then they are nobody's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.anew = True
        self._last_is_whole = False
        self._readable = False

    @contextmanager
    def claimed(self) -> Iterator[None]:
        r"""Keeps the folder for this process while inside; a process that is killed frees it.

        Raises:
            RuntimeError: Where another process trains there.
            OSError: Where nothing can be written there, naming the reason and the remedy.
        """
        place = self.folder.with_name(self.folder.name + ".lock")
        with told(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(place, timeout=0)
            try:
                lock.acquire()
            except Timeout as error:
                raise RuntimeError(
                    f"{self.folder} is of a run that another process trains now: wait for its end, "
                    f"or give each an 'out' or a 'name' of its own"
                ) from error
        try:
            yield
        finally:
            lock.release()

    def begin(self) -> None:
        r"""Marks what lies here as of a run before, which is not to be gone on with."""
        if any((self.folder / name).exists() for name in (LAST, PREVIOUS, BEST)):
            with told(self.folder / _BEGUN):
                (self.folder / _BEGUN).touch()

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        r"""Writes a checkpoint; where that fails the one before stays.

        Raises:
            ValueError: Where the first one holds more than tensors and plain values.
            OSError: Naming the file, the reason and the remedy.
        """
        path = Path(path)
        beside = path.with_name(path.name + ".part")
        with told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._write(checkpoint, path, beside)
            finally:
                with suppress(OSError):
                    beside.unlink(missing_ok=True)
        with suppress(OSError):  # a system where folders cannot be synced
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _write(self, checkpoint: dict[str, Any], path: Path, beside: Path) -> None:
        with beside.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        if not self._readable:
            try:
                read_checkpoint(beside, mmap=True)  # a callback may keep what cannot be read again
            except ValueError as error:
                raise ValueError(str(error).replace(str(beside), str(path))) from error
            self._readable = True
        first, self.anew = self.anew, False
        if first:
            for name in (LAST, PREVIOUS):
                (self.folder / name).unlink(missing_ok=True)
        if path.name == LAST:
            if self._last_is_whole and path.exists():
                os.replace(path, path.with_name(PREVIOUS))
            self._last_is_whole = True
        os.replace(beside, path)
        if first:
            (self.folder / _BEGUN).unlink(missing_ok=True)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = "cpu",
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        r"""Reads a checkpoint, whatever the arguments with ``weights_only=True``."""
        return read_checkpoint(Path(path), map_location)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        r"""Removes a checkpoint."""
        Path(path).unlink(missing_ok=True)

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        r"""The newest whole checkpoint; ``None`` where there are none of this run.

        Warns of files that are damaged.

        Raises:
            ValueError: Where none is whole.
        """
        if (self.folder / _BEGUN).exists():
            return None
        found, damaged = [], []
        for name in (LAST, PREVIOUS, BEST):
            if (self.folder / name).exists():
                try:
                    path = self.folder / name
                    found.append((path, read_checkpoint(path, mmap=True)))
                except DamagedCheckpointError as error:
                    damaged.append(str(error))
        if not found and not damaged:
            return None
        if not found:
            raise DamagedCheckpointError(
                "; ".join(damaged) + ". No checkpoint is whole: train anew, with resume=False"
            )
        self._last_is_whole = found[0][0].name == LAST
        path, state = max(found, key=lambda pair: pair[1]["epoch"])
        if damaged:
            told = f"{path.name}, of epoch {state['epoch'] + 1}, is whole and used instead"
            warnings.warn(f"{'; '.join(damaged)}. {told}", stacklevel=3)
        return path, state

    def keep_best(self, epoch: int) -> None:
        r"""Sees to it that ``best.ckpt`` is that of the best epoch, which another file may hold.

        Args:
            epoch: Counted from 0.

        Raises:
            ValueError: Where no whole file is of that epoch.
        """
        best = self.folder / BEST
        for path in (best, self.folder / LAST, self.folder / PREVIOUS):
            with suppress(DamagedCheckpointError):
                if path.exists() and read_checkpoint(path, mmap=True)["epoch"] == epoch:
                    if path != best:
                        beside = best.with_name(BEST + ".part")
                        shutil.copyfile(path, beside)
                        os.replace(beside, best)
                    return
        raise DamagedCheckpointError(
            f"{best} must hold the best epoch, {epoch + 1}, and is missing or damaged: train anew, "
            f"with resume=False"
        )


class MovableCheckpoint(ModelCheckpoint):
    r"""Lightning's, which also goes on where its folder has been moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        r"""As Lightning's, with paths in the folder of this run."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        names = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {name: here(state_dict[name]) for name in names}
        kept = {here(path): score for path, score in state_dict["best_k_models"].items()}
        own = {"dirpath": self.dirpath, "best_k_models": kept}
        super().load_state_dict({**state_dict, **moved, **own})


def read_checkpoint(
    path: Path, map_location: Any | None = "cpu", mmap: bool = False
) -> dict[str, Any]:
    r"""Reads a whole checkpoint, by ``torch.load`` with ``weights_only=True``.

    Args:
        path: The file.
        map_location: As in :func:`torch.load`.
        mmap: As in :func:`torch.load`.

    Raises:
        FileNotFoundError: Where there is none.
        DamagedCheckpointError: For a file that is cut off, or whose sums do not match.
        ValueError: For one that holds more than tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except (PermissionError, FileNotFoundError):
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, *_UNREADABLE) as error:
        raise DamagedCheckpointError(f"{path} is damaged ({error})") from error
    if record is not None:
        raise DamagedCheckpointError(f"{path} is damaged (the sum of its {record} is wrong)")
    try:
        state: dict[str, Any] = torch.load(
            path, map_location=map_location, weights_only=True, mmap=mmap
        )
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} must hold tensors and plain values alone; a callback of yours may keep more "
            f"({str(error).partition('. ')[0]})"
        ) from error
    except _UNREADABLE as error:
        raise DamagedCheckpointError(f"{path} is damaged ({error})") from error
    if not isinstance(state, dict) or not isinstance(state.get("epoch"), int):
        raise ValueError(f"{path} is no checkpoint of a training run: move it away")
    return state
