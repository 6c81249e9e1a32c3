from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import Embedding
from torch_geometric.data import HeteroData

from gtc_pyg.distributed import own_rows, rank
from gtc_pyg.evaluation import ranking_metrics
from gtc_pyg.functional import takes_numbers
from gtc_pyg.lightning.data_module import InteractionDataModule
from gtc_pyg.loader import GraphInputs, InteractionBatch
from gtc_pyg.models import GraphRecommender


class RecommenderModule(LightningModule):
    r"""Trains a :class:`~gtc_pyg.models.GraphRecommender` and ranks for validation and test.

    Users and items are embedded once per evaluation, without noise; nothing is left over from
    training. All that is random in an epoch depends on ``seed`` and its number alone.

    Where batches bring a sampled graph, the embeddings of users and items get sparse gradients and
    :class:`torch.optim.SparseAdam`: a step costs what the batch touches, however many there are.

    Of several processes (``torchrun``) all take the same steps, each batch being one of them
    together, and each ranks for its share of the users:

    - With the whole graph, a step is that of one process. Where the loss is a mean over the rows of
      the batch (``loss_is_mean``, BPR), each process takes its share of them. GTC's and any
      other recommender's may compare rows with one another or draw noise for each, so every process
      computes the whole batch from the same random numbers.
    - With sampled graphs, each process takes its share of the batch and draws its own neighbours
      and noise; losses and gradients are the means over the shares.

    Args:
        model: The recommender.
        lr: Learning rate of Adam.
        seed: Seeds noise, times, permutations and pruning.
    """

    @takes_numbers
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
        # In the order of the modules: a resumed state is matched by position.
        tables = dict.fromkeys(m.weight for m in self.modules() if isinstance(m, Embedding))
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

    def on_validation_start(self) -> None:
        if not hasattr(self, "inputs"):  # without a training before
            self._move_data()

    def on_train_start(self) -> None:
        self.model.heads.check()  # now, and not after an epoch

    def on_train_epoch_start(self) -> None:
        self.generator = torch.Generator(device=self.device)
        other = 0 if self.automatic_optimization else rank() * 7_368_787
        self.generator.manual_seed(self.seed * 1_000_003 + self.current_epoch + other)
        if self.automatic_optimization:
            self.graph = self.model.training_graph(
                self.inputs.edge_index_dict, self.inputs.edge_weight_dict, self.generator
            )

    def training_step(self, batch: InteractionBatch | HeteroData, batch_idx: int) -> Tensor:
        if isinstance(batch, HeteroData):
            features = GraphInputs.from_data(batch, self.data.modalities).features
            triple = cast(InteractionBatch, batch.triple)
            graph, size = self.model.subgraph(batch), batch.num_triples
            weight = own_rows(size)[1]
        else:
            triple, features, graph = batch, self.inputs.features, self.graph
            size, weight = triple.user.numel(), 1.0
            if self.model.loss_is_mean and self.model.ranking.num_negatives == 1:
                share, weight = own_rows(size)
                triple = InteractionBatch(*(rows[share] for rows in batch))
        try:
            parts = self.model.loss(*triple, features, graph, generator=self.generator)
        except ValueError:  # a layer may see first what the step before did to the weights
            self._check_finite(self.model.state_dict(), of_a_step=True)
            raise
        loss = weight * torch.stack(list(parts.values())).sum()
        if not bool(loss.isfinite()):
            wrong = [f"{name} {part.item():g}" for name, part in parts.items()]
            self._stop(f"the loss is {loss.item():g} ({', '.join(wrong)})")
        if not self.automatic_optimization:
            optimizers: Any = self.optimizers()
            optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
            for optimizer in optimizers:
                optimizer.zero_grad()
            self.manual_backward(loss)
            self.on_before_optimizer_step(optimizers[0])
            for optimizer in optimizers:
                optimizer.step()
        logged = {f"train/{name}": weight * part.detach() for name, part in parts.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=size)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        r"""Stops before a gradient that is not finite reaches the weights."""
        named = [(n, p.grad) for n, p in self.model.named_parameters() if p.grad is not None]
        grads = [g._values() if g.is_sparse else g for _, g in named]
        total = torch.stack(torch._foreach_norm(grads, 1)).sum()
        if not bool(total.isfinite()):
            wrong = [n for (n, _), g in zip(named, grads, strict=True) if not g.isfinite().all()]
            self._stop(
                f"the gradient of {', '.join(wrong) or 'all weights together'} is not finite"
            )

    def _stop(self, what: str, of_a_step: bool = True) -> None:
        checkpoints = self.trainer.checkpoint_callbacks
        paths = [str(getattr(c, "best_model_path", "")) for c in checkpoints]
        kept = next((path for path in paths if path), None)
        where = f"epoch {self.current_epoch + 1}"
        if of_a_step:
            where += f", step {self.trainer.fit_loop.epoch_loop.batch_idx + 1} of it"
        raise FloatingPointError(
            f"{where}: {what}. "
            + (f"The last good weights are in {kept}" if kept else "No weights were kept yet")
            + "; a lower learning rate, or content that is scaled down, may help"
        )

    def _embed(self) -> None:
        r"""Embeds everybody, by weights that must be finite: no others are ranked by or kept."""
        self._check_finite(self.model.state_dict())
        self.embeddings = self.model(
            self.inputs.features, self.inputs.edge_index_dict, self.inputs.edge_weight_dict
        )
        self._check_finite(dict(zip(("users", "items"), self.embeddings, strict=True)))
        self.metrics.reset()

    def _check_finite(self, named: Mapping[str, Tensor], of_a_step: bool = False) -> None:
        wrong = [name for name, x in named.items() if not bool(x.isfinite().all())]
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            self._stop(f"{', '.join(wrong[:3])}{more} hold numbers that are not finite", of_a_step)

    def _rank(self, split: str, users: Tensor) -> None:
        if users.numel() == 0:
            return  # more processes than users
        user_emb, item_emb = self.embeddings
        self.data.rankers[split].update(self.metrics, user_emb, item_emb, users)

    def _report(self, split: str) -> None:
        values = self.metrics.compute()
        bar = ("Recall@20",)
        for name, value in values.items():  # the same on all processes
            self.log(f"{split}/{name}", value, prog_bar=name in bar, sync_dist=True)
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
