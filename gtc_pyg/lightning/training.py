from __future__ import annotations

import logging
import math
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    TQDMProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.optim.swa_utils import get_ema_multi_avg_fn

from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.distributed import rank
from gtc_pyg.functional import takes_numbers, whole_number
from gtc_pyg.lightning.checkpoints import CheckpointFiles, MovableCheckpoint, read_checkpoint
from gtc_pyg.lightning.data_module import InteractionDataModule
from gtc_pyg.lightning.processes import process_options
from gtc_pyg.lightning.recommender_module import RecommenderModule
from gtc_pyg.lightning.resuming import KEY, RunState, check_same, settings_of
from gtc_pyg.lightning.writing import named_errors
from gtc_pyg.models import GraphRecommender

MONITOR = "val/Recall@20"
_OUTCOME = (
    "lr",
    "epochs",
    "batch_size",
    "patience",
    "weight_averaging",
    "spectral_start",
    "modalities",
    "num_neighbors",
    "exclude_validation",
    "seed",
    "trainer_kwargs",
)
_PRECISIONS = ("32-true", "64-true", "bf16-mixed")
_HALF = "precision='bf16-mixed' computes in half precision and keeps weights in float32"
_OWN = {
    *("max_epochs", "max_steps", "callbacks", "enable_checkpointing", "fast_dev_run", "barebones"),
    *("check_val_every_n_epoch", "val_check_interval", "num_sanity_val_steps"),
    *("limit_val_batches", "limit_test_batches", "overfit_batches"),
}
"""Lightning's arguments with which an epoch would not end in a whole validation and a checkpoint,
or that :func:`fit` has itself."""


class _ProgressBar(TQDMProgressBar):
    """Lightning's, without the number of the logger's folder."""

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}


@dataclass(repr=False)
class FitResult:
    r"""What a training run came to."""

    model: GraphRecommender
    """The recommender with the weights of its best epoch."""
    best_epoch: int
    """The epoch of the best validation Recall@20, counted from 1; 0 where nothing is trained."""
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

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({type(self.model).__name__}, best epoch {self.best_epoch} "
            f"of {len(self.history)}, validation Recall@20 {self.val['Recall@20']:.4f}, test "
            f"Recall@20 {self.test['Recall@20']:.4f}, {self.seconds_per_epoch:.1f} s an epoch)"
        )


@takes_numbers
def fit(
    model: GraphRecommender,
    dataset: InteractionDataset,
    *,
    lr: float = 2e-3,
    epochs: int = 200,
    batch_size: int | None = None,
    patience: int = 20,
    weight_averaging: float = 0.99,
    spectral_start: bool = True,
    modalities: Sequence[str] | None = None,
    num_neighbors: Sequence[int] | None = None,
    exclude_validation: bool = False,
    seed: int = 0,
    out: str | Path = "outputs",
    name: str = "model",
    resume: bool = False,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> FitResult:
    r"""Trains until validation Recall@20 stops rising, then reports the best epoch on test.

    A model without weights to train (:class:`~gtc_pyg.models.SpectralFilter`) is fitted and ranked:
    nothing is written, and ``modalities``, ``exclude_validation``, ``seed`` and ``trainer_kwargs``
    alone matter.

    The defaults are for data of unknown size. They were found on planted shops of 500 to 20,000
    users (``benchmarks/results/defaults.csv``); presets for known data sets are
    :data:`gtc_pyg.experiment.DEFAULTS` and those of the examples.

    Writes below ``out``: the best, the last and the one checkpoint before it
    (``checkpoints/<name>/``), a CSV log (``logs/<name>/``) and a TensorBoard log
    (``tensorboard/<name>/``).

    A run that was killed goes on with ``resume=True`` from the end of its last epoch, and ends with
    the weights that it would have had, bit for bit on the same machine with as many threads. A
    checkpoint is renamed to its place once it is whole; one that is damaged all the same is found
    by its sums, and the one before is used, with a warning.

    Started by ``torchrun``, all processes train the model together and return the same; the first
    one alone writes. :class:`RecommenderModule` says what is split.

    Args:
        model: The recommender; its weights should be drawn after seeding.
        dataset: Interactions with content.
        lr: Learning rate of Adam.
        epochs: Largest number of epochs.
        batch_size: Interactions per batch; where ``None``, as many as make 32 steps an epoch, 256
            to 16,384.
        patience: Epochs without a better validation Recall@20 before training stops.
        weight_averaging: Decay of the exponential moving average of the weights over steps, which
            is what is evaluated and kept (Lightning's ``WeightAveraging``), with the buffers of the
            last step; off where 0. Needs a second copy of the weights.
        spectral_start: Whether ID embeddings start from the interactions, see
            :meth:`~gtc_pyg.models.GraphRecommender.prepare`, which is called unless it was before.
        modalities: Content to use; all of it where ``None``.
        num_neighbors: Neighbours sampled in each hop around a batch (mini-batches, for graphs too
            large for one step); the whole graph is in every step where ``None``.
        exclude_validation: Whether validation items are no candidates on test.
        seed: Seeds all that is random in training.
        out: Folder of checkpoints and logs.
        name: Name of the run inside it.
        resume: Whether to go on with the run of this name, which must have the same model, data and
            arguments and start; ``epochs`` may be more. Weights are
            then those of the checkpoint, whatever was drawn for ``model``. Without a checkpoint it
            begins; one that has ended is not trained again. Several processes must see the same
            folder. Where ``False``, a run of this name is written over.
        progress: Whether to show a progress bar.
        callbacks: Further callbacks of Lightning.
        trainer_kwargs: Further arguments of Lightning's ``Trainer``, but for those that would skip
            a part of the validation or the checkpoints. Without ``torchrun`` there is
            one device, and ``devices`` may choose it (``[1]``); started by it, leave ``devices``,
            ``num_nodes`` and ``strategy`` out. ``use_distributed_sampler`` is then always off.

    Raises:
        ValueError: For an argument out of range, half precision other than ``'bf16-mixed'``,
            mini-batches of a model that prunes interactions, devices or a strategy that do not
            match the processes; with ``resume`` for a checkpoint of another run, naming what
            differs, or where all are damaged.
        RuntimeError: Where another process trains a run of this name now, or has written over it.
        FloatingPointError: Where a loss, a gradient, a weight after an epoch or an embedding is not
            finite; the checkpoints are of epochs before.
    """
    if not isinstance(model, GraphRecommender) or not isinstance(dataset, InteractionDataset):
        compiled = "; model.compile() compiles it in place" if hasattr(model, "_orig_mod") else ""
        raise ValueError(
            f"'model' must be a recommender of gtc_pyg.models and 'dataset' one of "
            f"gtc_pyg.datasets (got {type(model).__name__} and {type(dataset).__name__}){compiled}"
        )
    if not isinstance(lr, Real) or isinstance(lr, bool) or not 0 <= lr < math.inf:
        raise ValueError(f"'lr' must be a number, 0 or more (got {lr!r})")
    whole_number(1, epochs=epochs)
    if batch_size is not None:
        whole_number(1, batch_size=batch_size)
    whole_number(0, patience=patience)
    whole_number(0, seed=seed)
    if not 0 <= weight_averaging < 1:
        raise ValueError(f"'weight_averaging' must lie in [0, 1) (got {weight_averaging})")
    if num_neighbors is not None and model.edge_dropout > 0:
        raise ValueError(
            f"'num_neighbors' samples the graph, so that no interactions are pruned besides: make "
            f"the model with edge_dropout=0 (got {model.edge_dropout})"
        )
    arguments = locals()
    wanted = dict(trainer_kwargs or {})
    own = [name for name in wanted if name in _OWN]
    if own:
        raise ValueError(
            f"'trainer_kwargs' must leave {', '.join(own)} to fit, which has 'epochs' and "
            f"'callbacks' and ends every epoch with a whole validation and a checkpoint"
        )
    wanted |= process_options(wanted)
    if batch_size is None:
        num_edges = dataset.view("train")["user", "rates", "item"].edge_label_index.size(1)
        batch_size = arguments["batch_size"] = max(256, min(16384, num_edges // 32))
    seed_everything(seed, verbose=False)
    data = InteractionDataModule(
        dataset,
        modalities,
        batch_size,
        num_neighbors=num_neighbors,
        exclude_validation=exclude_validation,
        seed=seed,
    )
    _check_weights(model)
    began = time.perf_counter()
    given = data.inputs.edge_index_dict, data.inputs.edge_weight_dict
    model.prepare(*given, spectral_start=spectral_start)
    silent = [name for name in data.inputs.silent() if name in model.modalities]
    if silent:
        warnings.warn(
            f"content {', '.join(map(repr, silent))} is the same for every item that has it: the "
            f"model cannot tell items apart by it, so leave it out of 'modalities' or mend it",
            stacklevel=3,
        )
    module = RecommenderModule(model, lr, seed)
    if not model.trainable:
        return _ranked(module, data, wanted, time.perf_counter() - began)
    folder = Path(out).expanduser()
    files = CheckpointFiles(folder / "checkpoints" / name)
    run = RunState(settings_of(model, data, {key: arguments[key] for key in _OUTCOME}))
    with named_errors(folder), files.claimed() if rank() == 0 else nullcontext():
        start = _resume(run, files, epochs) if resume else None
        if not resume and rank() == 0:
            files.begin()
        callbacks = [*_callbacks(run, files, patience, weight_averaging, progress), *callbacks]
        options = _options(wanted, folder, name, run, files)
        options |= {"max_epochs": epochs, "callbacks": callbacks}
        with warnings.catch_warnings():
            # Our loaders are no DataLoaders and have no workers to advise on.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", module="lightning")
            trainer = Trainer(**{"enable_progress_bar": progress, **options})
            _check_precision(trainer)
            if start is not None and "logger" not in wanted:
                run.repeat_logs(trainer.loggers)
            trainer.fit(module, datamodule=data, ckpt_path=start)
            epochs_done: Any = trainer.fit_loop.epoch_progress.current
            epochs_done.completed = epochs_done.processed  # of a run that had ended, for the logs
            best: Any = trainer.checkpoint_callback  # the first one; its place is rank 0's
            state = read_checkpoint(Path(best.best_model_path))
            of = state.get(KEY, {}).get("settings", run.settings)
            if {**of, "epochs": ""} != {**run.settings, "epochs": ""}:  # where locks do not hold
                raise RuntimeError(
                    f"{best.best_model_path} was written by another run of this name meanwhile: "
                    f"give each an 'out' or a 'name' of its own"
                )
            module.load_state_dict(state["state_dict"])
            test = trainer.test(module, datamodule=data, verbose=False)[0]
    epoch = state["epoch"]
    return FitResult(
        model=module.model,
        best_epoch=epoch + 1,
        history=run.rows,
        val={key.removeprefix("val/"): value for key, value in run.rows[epoch].items()},
        test={key.removeprefix("test/"): value for key, value in test.items()},
        seconds_per_epoch=sum(run.seconds) / len(run.seconds),
        seconds=run.seconds,
        evaluation_seconds=run.evaluation_seconds,
    )


def _ranked(
    module: RecommenderModule,
    data: InteractionDataModule,
    wanted: Mapping[str, Any],
    seconds: float,
) -> FitResult:
    """Of a model without weights to train: validation and test of what it is."""
    trainer = Trainer(
        **{
            "logger": False,
            "enable_progress_bar": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            **wanted,
        }
    )
    val = trainer.validate(module, datamodule=data, verbose=False)[0]
    test = trainer.test(module, datamodule=data, verbose=False)[0]
    return FitResult(
        model=module.model,
        best_epoch=0,
        history=[dict(val)],
        val={key.removeprefix("val/"): value for key, value in val.items()},
        test={key.removeprefix("test/"): value for key, value in test.items()},
        seconds_per_epoch=seconds,
        seconds=[seconds],
        evaluation_seconds=[],
    )


def _check_precision(trainer: Trainer) -> None:
    """Half precision is for products alone: a step of Adam is lost in weights of 8 or 11 bits."""
    if trainer.precision not in _PRECISIONS:
        raise ValueError(
            f"'trainer_kwargs' asks for precision={str(trainer.precision)!r}, expected one of "
            f"{', '.join(map(repr, _PRECISIONS))}; {_HALF}"
        )


def _check_weights(model: GraphRecommender) -> None:
    for name, x in model.state_dict().items():
        if x.dtype in (torch.half, torch.bfloat16):
            raise ValueError(
                f"'model' must have weights of torch.float32 or torch.float64 (got {x.dtype} for "
                f"{name!r}): call model.float() first; {_HALF}"
            )


def _callbacks(
    run: RunState, files: CheckpointFiles, patience: int, weight_averaging: float, progress: bool
) -> list[Callback]:
    places: dict[str, Any] = {"dirpath": files.folder, "enable_version_counter": False}
    best = MovableCheckpoint(filename="best", monitor=MONITOR, mode="max", **places)
    last = MovableCheckpoint(filename="last", **places)
    stopping = EarlyStopping(MONITOR, mode="max", patience=patience, check_finite=True)
    callbacks: list[Callback] = [run, best, last, stopping]
    if weight_averaging > 0:
        # Lightning's EMAWeightAveraging goes weight by weight and averages buffers, too, which our
        # models do not change: 5 to 15 times the seconds of a GTC's average (benchmarks/notes.md).
        average = get_ema_multi_avg_fn(weight_averaging)
        callbacks.append(WeightAveraging(use_buffers=False, multi_avg_fn=average))
    if progress:
        # Into a file or a log goes a line now and then, not one for each batch.
        callbacks.append(_ProgressBar(refresh_rate=10 if sys.stdout.isatty() else 1000))
    return callbacks


def _options(
    wanted: Mapping[str, Any], folder: Path, name: str, run: RunState, files: CheckpointFiles
) -> dict[str, Any]:
    """Lightning's, as wanted; checkpoints are ours, unless there is a plugin for them."""
    tensorboard = TensorBoardLogger(
        folder,
        name="tensorboard",
        version=name,
        purge_step=run.purge_step,
        flush_secs=2,  # its thread may hold up an interrupted run for so long
    )
    options: dict[str, Any] = {
        "accelerator": "auto",
        "logger": [CSVLogger(folder, name="logs", version=name), tensorboard],
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "enable_model_summary": False,
    }
    options |= wanted
    plugins = options.get("plugins") or []
    plugins = list(plugins) if isinstance(plugins, list | tuple) else [plugins]
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        options["plugins"] = [files, *plugins]
    for logger in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    return options


def _resume(run: RunState, files: CheckpointFiles, epochs: int) -> Path | None:
    """Takes the state of the newest whole checkpoint, and gives its path."""
    found = files.newest()
    if found is None:
        _note(f"no checkpoint in {files.folder} yet: training starts from the beginning")
        return None
    path, state = found
    if KEY not in state:
        raise ValueError(f"{path} was not written by this fit: train anew, with resume=False")
    check_same(state[KEY]["settings"], run.settings, path)
    done = state["epoch"] + 1
    if epochs < done:
        raise ValueError(f"'epochs' must be at least the {done} that {path} has (got {epochs})")
    run.load(state[KEY])
    if rank() == 0:
        files.keep_best(run.best_epoch)
    files.anew = False
    ended = run.stopped or done == epochs
    what = "the run has ended" if ended else "training goes on"
    _note(f"{path} is of epoch {done}: {what}")
    return path


def _note(text: str) -> None:
    if rank() == 0:
        print(text, file=sys.stderr)
