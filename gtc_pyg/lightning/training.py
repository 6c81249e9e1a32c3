from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.lightning.data_module import InteractionDataModule
from gtc_pyg.lightning.processes import process_options
from gtc_pyg.lightning.recommender_module import RecommenderModule
from gtc_pyg.models import GraphRecommender

MONITOR = "val/Recall@20"


class _History(Callback):
    """Validation metrics of each epoch, and the seconds of its training and its evaluation."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.seconds: list[float] = []
        self.evaluation_seconds: list[float] = []

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


class _ProgressBar(TQDMProgressBar):
    """Lightning's, without the number of the logger's folder."""

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}


@dataclass
class FitResult:
    r"""What a training run came to."""

    model: GraphRecommender
    """The recommender with the weights of its best epoch."""
    best_epoch: int
    """The epoch of the best validation Recall@20, counted from 1."""
    history: list[dict[str, float]]
    """Validation metrics of each epoch, ``{'val/Recall@20': ...}``."""
    val: dict[str, float]
    """Metrics of the best epoch on validation, ``{'Recall@20': ...}``."""
    test: dict[str, float]
    """Metrics of the best epoch on test, reported once."""
    seconds_per_epoch: float
    """Mean wall-clock time of a training epoch, evaluation left out."""
    seconds: list[float]
    """Wall-clock time of each training epoch, evaluation left out."""
    evaluation_seconds: list[float]
    """Wall-clock time of the validation after each epoch, without writing checkpoints."""


def fit(
    model: GraphRecommender,
    dataset: InteractionDataset,
    *,
    lr: float = 1e-3,
    epochs: int = 100,
    batch_size: int = 2048,
    patience: int = 20,
    weight_averaging: float = 0.0,
    modalities: Sequence[str] | None = None,
    num_neighbors: Sequence[int] | None = None,
    exclude_validation: bool = False,
    seed: int = 0,
    out: str | Path = "outputs",
    name: str = "model",
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> FitResult:
    r"""Trains until validation Recall@20 stops rising, then reports the best epoch on test.

    Writes below ``out``: the best and the last checkpoint (``checkpoints/<name>/``), a CSV log
    (``logs/<name>/``) and a TensorBoard log (``tensorboard/<name>/``).

    Started by ``torchrun``, all processes train the model together and return the same; the first
    one alone writes. :class:`RecommenderModule` says what is split.

    Args:
        model: The recommender; its weights should be drawn after seeding.
        dataset: Interactions with content.
        lr: Learning rate of Adam.
        epochs: Largest number of epochs.
        batch_size: Interactions per batch.
        patience: Epochs without a better validation Recall@20 before training stops.
        weight_averaging: Decay of the exponential moving average of the weights over steps, which
            is what is evaluated and kept (Lightning's ``EMAWeightAveraging``); off where 0. Needs
            a second copy of the weights.
        modalities: Content to use; all of it where ``None``.
        num_neighbors: Neighbours sampled in each hop around a batch (mini-batches, for graphs too
            large for one step); the whole graph is in every step where ``None``.
        exclude_validation: Whether validation items are no candidates on test.
        seed: Seeds all that is random in training.
        out: Folder of checkpoints and logs.
        name: Name of the run inside it.
        progress: Whether to show a progress bar.
        callbacks: Further callbacks of Lightning.
        trainer_kwargs: Further arguments of Lightning's ``Trainer``. Without ``torchrun`` there is
            one device, and ``devices`` may choose it (``[1]``); started by it, leave ``devices``,
            ``num_nodes`` and ``strategy`` out. ``use_distributed_sampler`` is then always off.

    Raises:
        ValueError: For an argument out of range, mini-batches of a model that prunes interactions,
            devices or a strategy that do not match the processes.
    """
    if epochs < 1:
        raise ValueError(f"'epochs' must be at least 1 (got {epochs})")
    if not 0 <= weight_averaging < 1:
        raise ValueError(f"'weight_averaging' must lie in [0, 1) (got {weight_averaging})")
    if num_neighbors is not None and model.edge_dropout > 0:
        raise ValueError(
            f"'num_neighbors' samples the graph, so that no interactions are pruned besides: make "
            f"the model with edge_dropout=0 (got {model.edge_dropout})"
        )
    seed_everything(seed, verbose=False)
    data = InteractionDataModule(
        dataset,
        modalities,
        batch_size,
        num_neighbors=num_neighbors,
        exclude_validation=exclude_validation,
        seed=seed,
    )
    module = RecommenderModule(model, lr, seed)
    history = _History()
    folder = Path(out)
    checkpoint = ModelCheckpoint(
        folder / "checkpoints" / name,
        filename="best",
        monitor=MONITOR,
        mode="max",
        save_last=True,
        enable_version_counter=False,
    )
    used: list[Callback] = [
        history,
        checkpoint,
        EarlyStopping(MONITOR, mode="max", patience=patience, check_finite=True),
    ]
    if weight_averaging > 0:
        used.append(EMAWeightAveraging(decay=weight_averaging))
    if progress:
        # Into a file or a log goes a line now and then, not one for each batch.
        used.append(_ProgressBar(refresh_rate=10 if sys.stdout.isatty() else 1000))
    options: dict[str, Any] = {
        "max_epochs": epochs,
        "accelerator": "auto",
        "callbacks": [*used, *callbacks],
        "logger": [
            CSVLogger(folder, name="logs", version=name),
            TensorBoardLogger(folder, name="tensorboard", version=name),
        ],
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "enable_progress_bar": progress,
        "enable_model_summary": False,
    }
    wanted = dict(trainer_kwargs or {})
    options |= wanted | process_options(wanted)
    for logger in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Our loaders are no DataLoaders and have no workers to advise on.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", module="lightning")
        trainer = Trainer(**options)
        trainer.fit(module, datamodule=data)
        state = torch.load(checkpoint.best_model_path, map_location="cpu", weights_only=True)
        module.load_state_dict(state["state_dict"])
        test = trainer.test(module, datamodule=data, verbose=False)[0]
    best = state["epoch"]
    return FitResult(
        model=module.model,
        best_epoch=best + 1,
        history=history.rows,
        val={key.removeprefix("val/"): value for key, value in history.rows[best].items()},
        test={key.removeprefix("test/"): value for key, value in test.items()},
        seconds_per_epoch=sum(history.seconds) / len(history.seconds),
        seconds=history.seconds,
        evaluation_seconds=history.evaluation_seconds,
    )
