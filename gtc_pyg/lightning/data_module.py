from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.distributed import own_share, world_size
from gtc_pyg.evaluation import Ranker
from gtc_pyg.functional import takes_numbers
from gtc_pyg.loader import GraphInputs, InteractionLoader, SubgraphLoader
from gtc_pyg.loader.interaction_loader import without_full_users


class InteractionDataModule(LightningDataModule):
    r"""Batches of a dataset: triples for training, users for evaluation.

    Of several processes each ranks for its share of the users, so every user counts once.

    Args:
        dataset: Interactions with content.
        modalities: Content to use; all of it where ``None``.
        batch_size: Interactions per training batch.
        eval_batch_size: Users ranked at the same time.
        num_neighbors: Neighbours sampled in each hop around a batch; the whole graph is in every
            step where ``None``. See :class:`~gtc_pyg.loader.SubgraphLoader`.
        exclude_validation: Whether validation items are no candidates when ranking for the test.
        seed: Seeds order and negatives.

    Raises:
        ValueError: For an unknown modality, or batches of fewer interactions than processes.
    """

    @takes_numbers
    def __init__(
        self,
        dataset: InteractionDataset,
        modalities: Sequence[str] | None = None,
        batch_size: int = 2048,
        eval_batch_size: int = 8192,
        num_neighbors: Sequence[int] | None = None,
        exclude_validation: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if 1 <= batch_size < world_size():
            raise ValueError(
                f"'batch_size' must be at least the number of processes, {world_size()} (got "
                f"{batch_size}): a batch is split over them"
            )
        self.inputs = GraphInputs.from_data(dataset[0], modalities)
        self.modalities, self.num_neighbors = modalities, num_neighbors
        self.graph = dataset[0] if num_neighbors is not None else None
        self.num_users, self.num_items = dataset.num_users, dataset.num_items
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.edge_indices = labels = {
            split: dataset.view(split)["user", "rates", "item"].edge_label_index
            for split in ("train", "val", "test")
        }
        self.train_edge_index = without_full_users(
            labels["train"], self.num_users, self.num_items, dataset.user_ids
        )
        seen = [labels["train"]]
        self.rankers = {"val": Ranker(labels["val"], seen, self.num_users)}
        seen = [*seen, labels["val"]] if exclude_validation else seen
        self.rankers["test"] = Ranker(labels["test"], seen, self.num_users)

    def train_dataloader(self) -> InteractionLoader | SubgraphLoader:
        loader: InteractionLoader | SubgraphLoader
        if self.graph is not None and self.num_neighbors is not None:
            loader = SubgraphLoader(
                self.graph, self.num_neighbors, self.batch_size, self.seed, self.train_edge_index
            )
        else:
            loader = InteractionLoader(
                self.train_edge_index, self.num_users, self.num_items, self.batch_size, self.seed
            )
        if self.trainer is not None:
            done: Any = self.trainer.fit_loop.epoch_progress.current
            loader.epoch = done.processed  # not 0 where a run goes on
        return loader

    def val_dataloader(self) -> DataLoader[Tensor]:
        return self._users("val")

    def test_dataloader(self) -> DataLoader[Tensor]:
        return self._users("test")

    def _users(self, split: str) -> DataLoader[Tensor]:
        users = self.rankers[split].users
        users = users[own_share(users.numel())].split(self.eval_batch_size)
        return DataLoader(cast(Dataset[Tensor], users), batch_size=None)
