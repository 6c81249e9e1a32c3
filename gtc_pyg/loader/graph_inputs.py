from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from gtc_pyg.transforms.item_knn_graph import same_everywhere


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

    def silent(self) -> list[str]:
        r"""The modalities that tell no item from another: the same for every item that has them."""
        names = [name for name in self.features if not name.startswith("has_")]
        return [
            n for n in names if same_everywhere(self.features[n], self.features.get(f"has_{n}"))
        ]

    def to(self, device: torch.device) -> GraphInputs:
        r"""The same on another device."""
        return GraphInputs(
            {key: value.to(device) for key, value in self.features.items()},
            {key: value.to(device) for key, value in self.edge_index_dict.items()},
            {key: value.to(device) for key, value in self.edge_weight_dict.items()},
        )
