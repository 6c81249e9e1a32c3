from __future__ import annotations

from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import Embedding
from torch_geometric.data import HeteroData

from gtc_pyg.evaluation import ranking_metrics
from gtc_pyg.lightning.data_module import GraphInputs, InteractionDataModule
from gtc_pyg.loader import InteractionBatch
from gtc_pyg.models import GraphRecommender


class RecommenderModule(LightningModule):
    r"""Trains a :class:`~gtc_pyg.models.GraphRecommender` and ranks for validation and test.

    Users and items are embedded once per evaluation, without noise; nothing is left over from
    training. All that is random in an epoch depends on ``seed`` and its number alone.

    Where batches bring a sampled graph, the embeddings of users and items get sparse gradients and
    :class:`torch.optim.SparseAdam`: a step costs what the batch touches, however many there are.

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

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        if self.automatic_optimization:
            return [torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)]
        tables = {m.weight for m in self.modules() if isinstance(m, Embedding)}
        rest = [p for p in self.parameters() if p not in tables]
        sparse = torch.optim.SparseAdam(list(tables), lr=self.lr)
        return [sparse, *([torch.optim.Adam(rest, lr=self.lr, fused=True)] if rest else [])]

    def setup(self, stage: str) -> None:
        sampled = self.data.num_neighbors is not None
        self.automatic_optimization = not sampled
        for embedding in (m for m in self.modules() if isinstance(m, Embedding)):
            embedding.sparse = sampled

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
        if self.automatic_optimization:
            self.graph = self.model.training_graph(
                self.inputs.edge_index_dict, self.inputs.edge_weight_dict, self.generator
            )

    def training_step(self, batch: InteractionBatch | HeteroData, batch_idx: int) -> Tensor:
        if isinstance(batch, HeteroData):
            features = GraphInputs.from_data(batch, self.data.modalities).features
            triple = cast(InteractionBatch, batch.triple)
            graph = self.model.subgraph(batch)
        else:
            triple, features, graph = batch, self.inputs.features, self.graph
        parts = self.model.loss(*triple, features, graph, generator=self.generator)
        loss = torch.stack(list(parts.values())).sum()
        if not self.automatic_optimization:
            optimizers: Any = self.optimizers()
            optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
            for optimizer in optimizers:
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in optimizers:
                optimizer.step()
        size = triple.user.numel()
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
