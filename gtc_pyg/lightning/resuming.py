r"""What a run knows besides its weights, kept in its checkpoints."""

from __future__ import annotations

import hashlib
import inspect
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger
from torch import Tensor

from gtc_pyg.distributed import world_size
from gtc_pyg.lightning.data_module import InteractionDataModule
from gtc_pyg.models import GraphRecommender
from gtc_pyg.models.registry import plain_value

KEY = "gtc_pyg"
_NO_MATTER = ("logger", "default_root_dir", "profiler", "detect_anomaly")


class RunState(Callback):
    r"""History, settings, random streams and whether training has ended, in every checkpoint.

    Args:
        settings: As :func:`settings_of` gives them.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.settings = dict(settings)
        self.rows: list[dict[str, float]] = []
        """Validation metrics of each epoch."""
        self.seconds: list[float] = []
        """Of the training of each epoch."""
        self.evaluation_seconds: list[float] = []
        self.logged: list[dict[str, Any]] = []
        """What the loggers are told of each epoch, and the step."""
        self.stopped = False
        self._streams: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = self.stopped

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            epoch = trainer.current_epoch + 1
            print(f"stopped in epoch {epoch}; resume=True goes on with it", file=sys.stderr)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._streams is not None:
            _set_random_streams(self._streams)
            self._streams = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)  # its kernels may still run
        self.seconds.append(time.perf_counter() - self._start)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        self.rows.append({k: float(v) for k, v in metrics.items() if k.startswith("val/")})
        total = time.perf_counter() - self._start
        self.evaluation_seconds.append(total - self.seconds[-1])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.logged_metrics.items()}
        step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1
        self.logged.append({"step": step, "epoch": trainer.current_epoch, "metrics": metrics})

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        names = ("settings", "rows", "seconds", "evaluation_seconds", "logged")
        checkpoint[KEY] = {name: getattr(self, name) for name in names} | {
            "stopped": any(c.stopped_epoch > 0 for c in trainer.early_stopping_callbacks),
            "streams": _random_streams(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        r"""Takes what a checkpoint has under ``KEY``, but for the settings."""
        for name in ("rows", "seconds", "evaluation_seconds", "logged", "stopped"):
            setattr(self, name, state[name])
        self._streams = state["streams"]

    @property
    def best_epoch(self) -> int:
        r"""The first epoch of the best validation Recall@20, counted from 0."""
        recalls = [row["val/Recall@20"] for row in self.rows]
        return max(range(len(recalls)), key=lambda i: (recalls[i] == recalls[i], recalls[i], -i))

    @property
    def purge_step(self) -> int | None:
        r"""From which step on TensorBoard is to forget what it has, where a run goes on."""
        return self.logged[-1]["step"] if self.logged else None

    def repeat_logs(self, loggers: Sequence[Logger]) -> None:
        r"""Tells loggers again what they may have lost: a CSV file begins anew, others lack at most
        what came after the last checkpoint."""
        for logger in loggers:
            for row in self.logged if isinstance(logger, CSVLogger) else self.logged[-1:]:
                val = {k: v for k, v in row["metrics"].items() if k.startswith("val/")}
                rest = {k: v for k, v in row["metrics"].items() if k not in val}
                for part in (val, rest):
                    logger.log_metrics({"epoch": row["epoch"], **part}, row["step"])
            logger.save()


def settings_of(
    model: GraphRecommender, data: InteractionDataModule, options: Mapping[str, Any]
) -> dict[str, str]:
    r"""All that a run's outcome depends on, by name, each as a short text.

    Args:
        model: Its class and arguments, given, set since, or default.
        data: Digests of interactions, content and graphs.
        options: Arguments of :func:`~gtc_pyg.lightning.fit`. Of ``trainer_kwargs`` the plain ones.
    """
    settings: dict[str, Any] = {"model": type(model).__name__, "start": model.init_method}
    for name in inspect.signature(type(model)).parameters:
        settings[f"model's {name}"] = _described(getattr(model, name, None))
    settings |= {name: value for name, value in options.items() if name != "trainer_kwargs"}
    plain = (bool, int, float, str)
    for name, value in dict(options["trainer_kwargs"] or {}).items():
        if isinstance(value, plain) and not name.startswith(("enable_", "log_", *_NO_MATTER)):
            settings[f"trainer_kwargs[{name!r}]"] = value
    settings["number of processes"] = world_size()
    inputs = data.inputs
    tensors = {f"{split} interactions": edges for split, edges in data.edge_indices.items()}
    tensors |= {f"content {name!r}": x for name, x in inputs.features.items()}
    for what, found in (("edges", inputs.edge_index_dict), ("weights", inputs.edge_weight_dict)):
        tensors |= {f"{what} {' '.join(key)}": x for key, x in found.items()}
    settings["number of users"], settings["number of items"] = data.num_users, data.num_items
    texts = {name: json.dumps(value, default=repr) for name, value in settings.items()}
    return texts | {name: f"sha256 {_digest(x)}" for name, x in tensors.items()}


def _described(value: Any) -> Any:
    """Parts by their settings, those of one's own as they print."""
    try:
        return plain_value(value)
    except ValueError:
        return repr(value)


def check_same(found: Mapping[str, str], wanted: Mapping[str, str], where: object) -> None:
    r"""Refuses to go on with a run of other settings.

    Args:
        found: Those of the checkpoint.
        wanted: Those of this call. ``epochs`` may differ.
        where: The checkpoint, for the message.

    Raises:
        ValueError: Naming what differs.
    """
    names = [name for name in dict.fromkeys([*found, *wanted]) if name != "epochs"]
    differ = [
        f"{name} ({found.get(name, 'none')} there, {wanted.get(name, 'none')} now)"
        for name in names
        if found.get(name) != wanted.get(name)
    ]
    if differ:
        raise ValueError(
            f"{where} is of another run, which differs in {', '.join(differ)}: give the same "
            f"again, or another 'out' or 'name', or train anew with resume=False"
        )


def _digest(tensor: Tensor) -> str:
    tensor = tensor.detach().as_subclass(Tensor).cpu().contiguous()
    digest = hashlib.sha256(f"{tensor.dtype}{list(tensor.shape)}".encode())
    digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _random_streams() -> dict[str, Any]:
    """The global ones, as tensors and plain values."""
    state: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    kind, keys, *position = state
    version, words, spare = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *position],
        "python": [version, list(words), spare],
    }


def _set_random_streams(streams: Mapping[str, Any]) -> None:
    torch.set_rng_state(streams["torch"])
    if len(streams["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(streams["cuda"])
    kind, keys, *position = streams["numpy"]
    words = keys.numpy().astype(np.uint32)
    np.random.set_state((kind, words, *position))  # noqa: NPY002
    version, words, spare = streams["python"]
    random.setstate((version, tuple(words), spare))
