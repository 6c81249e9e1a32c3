r"""Training by Lightning: progress bar, early stop on validation, best checkpoint, logs, seeds."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.evaluation import Ranker, ranking_metrics
from gtc_pyg.loader import InteractionBatch, InteractionLoader
from gtc_pyg.models import GraphRecommender

try:
    from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
    from lightning.pytorch.callbacks import (
        Callback,
        EarlyStopping,
        ModelCheckpoint,
        TQDMProgressBar,
    )
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
except ModuleNotFoundError as error:
    message = 'gtc_pyg.lightning needs lightning: pip install "gtc-pyg[train]"'
    raise ModuleNotFoundError(message, name=error.name) from error

__all__ = ["FitResult", "GraphInputs", "InteractionDataModule", "RecommenderModule", "fit"]

MONITOR = "val/Recall@20"


@dataclass
class GraphInputs:
    r"""What a :class:`~gtc_pyg.models.GraphRecommender` is called with."""

    features: dict[str, Tensor]
    edge_index_dict: dict[EdgeType, Tensor]
    edge_weight_dict: dict[EdgeType, Tensor]

    @classmethod
    def from_data(cls, data: HeteroData, modalities: Sequence[str] | None = None) -> GraphInputs:
        r"""Takes content and edges from a view of a dataset.

        Args:
            data: A view, see :class:`~gtc_pyg.datasets.InteractionDataset`.
            modalities: Content to keep; all of it where ``None``.

        Raises:
            ValueError: For a modality that the data lacks.
        """
        item = data["item"]
        available = [key[2:] for key in item if key.startswith("x_")]
        names = available if modalities is None else list(modalities)
        unknown = [name for name in names if name not in available]
        if unknown:
            raise ValueError(f"'modalities' holds {unknown}; the data has {available}")
        features = {name: item[f"x_{name}"] for name in names}
        features |= {f"has_{n}": item[f"has_{n}"] for n in names if f"has_{n}" in item}
        edges = {key: data[key].edge_index for key in data.edge_types}
        weights = {
            key: data[key].edge_weight for key in data.edge_types if "edge_weight" in data[key]
        }
        return cls(features, edges, weights)

    def to(self, device: torch.device) -> GraphInputs:
        r"""The same on another device."""
        return GraphInputs(
            {key: value.to(device) for key, value in self.features.items()},
            {key: value.to(device) for key, value in self.edge_index_dict.items()},
            {key: value.to(device) for key, value in self.edge_weight_dict.items()},
        )


class InteractionDataModule(LightningDataModule):
    r"""Batches of a dataset: triples for training, users for evaluation.

    Args:
        dataset: Interactions with content.
        modalities: Content to use; all of it where ``None``.
        batch_size: Interactions per training batch.
        eval_batch_size: Users ranked at the same time.
        exclude_validation: Whether validation items are no candidates when ranking for the test.
        seed: Seeds order and negatives.
    """

    def __init__(
        self,
        dataset: InteractionDataset,
        modalities: Sequence[str] | None = None,
        batch_size: int = 2048,
        eval_batch_size: int = 8192,
        exclude_validation: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.inputs = GraphInputs.from_data(dataset[0], modalities)
        self.num_users, self.num_items = dataset.num_users, dataset.num_items
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        labels = {
            split: dataset.view(split)["user", "rates", "item"].edge_label_index
            for split in ("train", "val", "test")
        }
        self.train_edge_index = labels["train"]
        seen = [labels["train"]]
        self.rankers = {"val": Ranker(labels["val"], seen, self.num_users)}
        seen = [*seen, labels["val"]] if exclude_validation else seen
        self.rankers["test"] = Ranker(labels["test"], seen, self.num_users)

    def train_dataloader(self) -> InteractionLoader:
        return InteractionLoader(
            self.train_edge_index, self.num_users, self.num_items, self.batch_size, self.seed
        )

    def val_dataloader(self) -> DataLoader[Tensor]:
        return self._users("val")

    def test_dataloader(self) -> DataLoader[Tensor]:
        return self._users("test")

    def _users(self, split: str) -> DataLoader[Tensor]:
        users = self.rankers[split].users.split(self.eval_batch_size)
        return DataLoader(cast(Dataset[Tensor], users), batch_size=None)


class RecommenderModule(LightningModule):
    r"""Trains a :class:`~gtc_pyg.models.GraphRecommender` and ranks for validation and test.

    Users and items are embedded once per evaluation, without noise; nothing is left over from
    training. All that is random in an epoch depends on ``seed`` and its number alone.

    Args:
        model: The recommender.
        lr: Learning rate of Adam.
        seed: Seeds noise, times, permutations and pruning.
    """

    def __init__(self, model: GraphRecommender, lr: float = 1e-3, seed: int = 0) -> None:
        super().__init__()
        self.model = model
        self.lr = lr
        self.seed = seed
        self.metrics = ranking_metrics()

    @property
    def data(self) -> InteractionDataModule:
        r"""The data of the running trainer."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)

    def on_fit_start(self) -> None:
        self._move_data()

    def on_test_start(self) -> None:
        self._move_data()

    def _move_data(self) -> None:
        self.inputs = self.data.inputs.to(self.device)
        for ranker in self.data.rankers.values():
            ranker.to(self.device)

    def on_train_epoch_start(self) -> None:
        self.generator = torch.Generator(device=self.device)
        self.generator.manual_seed(self.seed * 1_000_003 + self.current_epoch)
        self.graph = self.model.training_graph(
            self.inputs.edge_index_dict, self.inputs.edge_weight_dict, self.generator
        )

    def training_step(self, batch: InteractionBatch, batch_idx: int) -> Tensor:
        parts = self.model.loss(*batch, self.inputs.features, self.graph, generator=self.generator)
        loss = torch.stack(list(parts.values())).sum()
        size = batch.user.numel()
        logged = {f"train/{name}": part.detach() for name, part in parts.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=size)
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=size)
        return loss

    def _embed(self) -> None:
        self.embeddings = self.model(
            self.inputs.features, self.inputs.edge_index_dict, self.inputs.edge_weight_dict
        )
        self.metrics.reset()

    def _rank(self, split: str, users: Tensor) -> None:
        user_emb, item_emb = self.embeddings
        self.data.rankers[split].update(self.metrics, user_emb, item_emb, users)

    def _report(self, split: str) -> None:
        values = self.metrics.compute()
        bar = ("Recall@20",)
        for name, value in values.items():
            self.log(f"{split}/{name}", value, prog_bar=name in bar)
        del self.embeddings

    def on_validation_epoch_start(self) -> None:
        self._embed()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self._rank("val", batch)

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def on_test_epoch_start(self) -> None:
        self._embed()

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self._rank("test", batch)

    def on_test_epoch_end(self) -> None:
        self._report("test")


class _History(Callback):
    """Validation metrics and training seconds of each epoch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds.append(time.perf_counter() - self._start)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        self.rows.append({k: float(v) for k, v in metrics.items() if k.startswith("val/")})


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


def fit(
    model: GraphRecommender,
    dataset: InteractionDataset,
    *,
    lr: float = 1e-3,
    epochs: int = 100,
    batch_size: int = 2048,
    patience: int = 20,
    modalities: Sequence[str] | None = None,
    exclude_validation: bool = False,
    seed: int = 0,
    out: str | Path = "outputs",
    name: str = "model",
    progress: bool = True,
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> FitResult:
    r"""Trains until validation Recall@20 stops rising, then reports the best epoch on test.

    Writes below ``out``: the best and the last checkpoint (``checkpoints/<name>/``), a CSV log
    (``logs/<name>/``) and a TensorBoard log (``tensorboard/<name>/``).

    Args:
        model: The recommender; its weights should be drawn after seeding.
        dataset: Interactions with content.
        lr: Learning rate of Adam.
        epochs: Largest number of epochs.
        batch_size: Interactions per batch.
        patience: Epochs without a better validation Recall@20 before training stops.
        modalities: Content to use; all of it where ``None``.
        exclude_validation: Whether validation items are no candidates on test.
        seed: Seeds all that is random in training.
        out: Folder of checkpoints and logs.
        name: Name of the run inside it.
        progress: Whether to show a progress bar.
        trainer_kwargs: Further arguments of Lightning's ``Trainer``.
    """
    if epochs < 1:
        raise ValueError(f"'epochs' must be at least 1 (got {epochs})")
    seed_everything(seed, verbose=False)
    data = InteractionDataModule(
        dataset, modalities, batch_size, exclude_validation=exclude_validation, seed=seed
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
    callbacks: list[Callback] = [
        history,
        checkpoint,
        EarlyStopping(MONITOR, mode="max", patience=patience, check_finite=True),
    ]
    if progress:
        # Into a file or a log goes a line now and then, not one for each batch.
        callbacks.append(_ProgressBar(refresh_rate=10 if sys.stdout.isatty() else 1000))
    options: dict[str, Any] = {
        "max_epochs": epochs,
        "accelerator": "auto",
        "devices": 1,
        "callbacks": callbacks,
        "logger": [
            CSVLogger(folder, name="logs", version=name),
            TensorBoardLogger(folder, name="tensorboard", version=name),
        ],
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "enable_progress_bar": progress,
        "enable_model_summary": False,
    }
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Our loaders are no DataLoaders and have no workers to advise on.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", module="lightning")
        trainer = Trainer(**(options | dict(trainer_kwargs or {})))
        trainer.fit(module, datamodule=data)
        state = torch.load(checkpoint.best_model_path, weights_only=True)
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
    )
