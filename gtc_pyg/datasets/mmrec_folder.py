r"""Any folder in the format of MMRec."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch import Tensor

from gtc_pyg.datasets.interaction_dataset import InteractionDataset
from gtc_pyg.datasets.interaction_tables import SPLITS, InteractionTables
from gtc_pyg.datasets.raw_files import read_csr_graph, read_inter, read_npy, require_files
from gtc_pyg.transforms.spectral_features import spectral_embedding

_DENSE, _GRAPH = "_feat.npy", "_knn10_cos.npz"


def read_inter_splits(path: str) -> dict[str, Any]:
    r"""Reads an ``.inter`` file into the arguments ``splits``, ``num_users`` and ``lines``.

    The users are numbered from 0 to the largest id of all splits.
    """
    table = read_inter(path)
    chosen = {split: table.label == label for label, split in enumerate(SPLITS)}
    num_users = int(table.edge_index[0].max()) + 1 if table.label.numel() else 0
    return {
        "splits": {split: table.edge_index[:, mask] for split, mask in chosen.items()},
        "num_users": num_users,
        "lines": {split: table.line[mask] for split, mask in chosen.items()},
    }


def check_spectral_dim(value: int) -> int:
    r"""A width of at least 1, or a :class:`ValueError`."""
    if value < 1:
        raise ValueError(f"'spectral_dim' must be at least 1 (got {value})")
    return value


def find_modalities(root: str | os.PathLike[str]) -> list[str]:
    r"""The modalities that ``root/raw`` has files of, as :class:`MMRecFolder` orders them."""
    raw = os.path.join(root, "raw")
    return sorted({*_found(raw, _DENSE), *_found(raw, _GRAPH)})


def _found(folder: str, suffix: str) -> list[str]:
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(n.removesuffix(suffix) for n in names if n.endswith(suffix) and n != suffix)


class MMRecFolder(InteractionDataset):
    r"""Interactions and content in the file formats of MMRec.

    ``root/raw`` holds ``<name>.inter`` and, for each modality, ``<modality>_feat.npy`` (dense
    content, one row per item) or ``<modality>_knn10_cos.npz`` (a SciPy CSR matrix of ten nearest
    neighbours with cosines) or both. The modalities are found by file name and sorted.
    Where only the graph exists, its spectral embedding serves as content, and
    :attr:`graph_derived` names the modality. See `MMRec <https://github.com/enoche/MMRec>`_.

    ``<name>.inter`` is tab-separated with a header: ``userID`` and ``itemID`` (from 0; an item's id
    is its row of the content) and ``x_label`` (0 training, 1 validation, 2 test). Other columns are
    not looked at. An interaction stands once.

    Never downloads: whoever uses MMRec has these files.

    Args:
        root (str): The folder with ``raw/``.
        name (str): The name of the set, as in ``<name>.inter``.
        spectral_dim (int): The width of features made from graphs; one less than there are items
            where they are too few for that. (default: :obj:`64`)
        transform, pre_transform, force_reload: as in :class:`InteractionDataset`.

    Raises:
        FileNotFoundError: If the interactions, or all content, is missing.
        ValueError: If :obj:`spectral_dim` is below 1, or a file is wrong; see
            :meth:`InteractionTables.validate`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        name: str,
        spectral_dim: int = 64,
        transform: Callable[..., Any] | None = None,
        pre_transform: Callable[..., Any] | None = None,
        force_reload: bool = False,
    ) -> None:
        self.name = name
        self.spectral_dim = check_spectral_dim(spectral_dim)
        super().__init__(root, transform, pre_transform, force_reload)

    @property
    def raw_file_names(self) -> list[str]:
        dense, graph = _found(self.raw_dir, _DENSE), _found(self.raw_dir, _GRAPH)
        return [f"{self.name}.inter", *(m + _DENSE for m in dense), *(m + _GRAPH for m in graph)]

    def processed_name(self) -> str:
        dense, graph = _found(self.raw_dir, _DENSE), _found(self.raw_dir, _GRAPH)
        parts = [f"{m}-x" for m in dense] + [f"{m}-g" for m in graph]
        return "_".join([self.name, *parts, f"dim{self.spectral_dim}"])

    def build(self) -> InteractionTables:
        path = os.path.join(self.raw_dir, f"{self.name}.inter")
        dense, graph = _found(self.raw_dir, _DENSE), _found(self.raw_dir, _GRAPH)
        require_files(path)
        if not dense and not graph:
            raise FileNotFoundError(
                f"missing content: expected <modality>{_DENSE} or <modality>{_GRAPH} in the "
                f"folder {self.raw_dir}"
            )
        features: dict[str, Tensor] = {}
        graphs = {}
        sources = dict.fromkeys(SPLITS, path)
        for modality in find_modalities(self.root):
            dense_path, graph_path = (
                os.path.join(self.raw_dir, modality + suffix) for suffix in (_DENSE, _GRAPH)
            )
            if modality in graph:
                graphs[modality] = read_csr_graph(graph_path)
                sources[f"similar_{modality}"] = graph_path
            if modality in dense:
                features[modality] = read_npy(dense_path)
                sources[f"x_{modality}"] = dense_path
            else:
                dim = max(1, min(self.spectral_dim, graphs[modality][2] - 1))
                features[modality] = spectral_embedding(*graphs[modality], dim)
                sources[f"x_{modality}"] = graph_path
        return InteractionTables(
            **read_inter_splits(path),
            features=features,
            graphs=graphs,
            graph_derived=tuple(m for m in features if m not in dense),
            sources=sources,
        )
