r"""Last.fm 2K with text and audio content."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gtc_pyg.datasets.download import RemoteFile, download_files
from gtc_pyg.datasets.interaction_dataset import InteractionDataset
from gtc_pyg.datasets.interaction_tables import SPLITS, InteractionTables
from gtc_pyg.datasets.mmrec_folder import check_spectral_dim, read_inter_splits
from gtc_pyg.datasets.raw_files import read_csr_graph, read_npy, require_files
from gtc_pyg.transforms.spectral_features import spectral_embedding

if TYPE_CHECKING:
    import pandas as pd

_URL = (
    "https://raw.githubusercontent.com/swapUniba/multimodal_ml1m_dbbook_lfm2k/main/"
    "4_mmrec/data/lfm2k"
)
_SHA256 = {
    "lfm2k.inter": "a555d4b0bfabe0a11d1758c667eb9a29e574a60bd563848a73f5a6fccda1b0f9",
    "all-MiniLM-L6-v2.npy": "b21e98a91fc4ec11e879615f3c47b6f15bdb6e3b7c0d2a9cf0b8008ec83c46b0",
    "vggish.npy": "50dfedcc27f88929006bc4f425c94c55aa4bce177749b2f93e55fb3d8ac4018c",
    "whisper.npy": "2a2690ff74430711e5a9e22889b5b40cc1b931f6250f25501192d7d63cf98995",
    "knn10_image_B.npz": "e2e3d14f514f902e339b7e95ddb9c49be1160e34b9845fb637c5b8edab1765b2",
}
_DENSE = {"text": "all-MiniLM-L6-v2.npy", "vggish": "vggish.npy", "whisper": "whisper.npy"}
_GRAPH = "knn10_image_B.npz"
_TAGS = "items.tsv"


class LFM2k(InteractionDataset):
    r"""Artists on Last.fm with text, two kinds of audio and an image graph.

    HetRec 2011 Last.fm (non-commercial use) with the content of the repository
    ``swapUniba/multimodal_ml1m_dbbook_lfm2k`` (``4_mmrec/data/lfm2k``). 1,858 users, 1,425 items;
    44,327 training, 4,799 validation and 7,219 test interactions.

    Modalities, in order: ``text`` (all-MiniLM-L6-v2, 384-d), ``vggish`` (128-d), ``whisper``
    (512-d) and ``image``. Of the images only the graph of ten nearest neighbours is used; it is
    kept as ``('item', 'similar_image', 'item')``, and its spectral embedding serves as
    ``x_image`` (so :attr:`graph_derived` is ``('image',)``).

    Args:
        root (str): The folder with ``raw/``.
        spectral_dim (int): The width of the image features. (default: :obj:`64`)
        transform, pre_transform, force_reload: as in :class:`InteractionDataset`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        spectral_dim: int = 64,
        transform: Callable[..., Any] | None = None,
        pre_transform: Callable[..., Any] | None = None,
        force_reload: bool = False,
    ) -> None:
        self.spectral_dim = check_spectral_dim(spectral_dim)
        super().__init__(root, transform, pre_transform, force_reload)

    @property
    def raw_file_names(self) -> list[str]:
        return list(_SHA256)

    def processed_name(self) -> str:
        return f"lfm2k_dim{self.spectral_dim}"

    def download(self) -> None:
        r"""Downloads the missing files from the publisher's repository and checks them."""
        files = [RemoteFile(name, f"{_URL}/{name}", digest) for name, digest in _SHA256.items()]
        download_files(files, self.raw_dir)

    def build(self) -> InteractionTables:
        path = {name: os.path.join(self.raw_dir, name) for name in self.raw_file_names}
        features = {modality: read_npy(path[name]) for modality, name in _DENSE.items()}
        graph = read_csr_graph(path[_GRAPH])
        features["image"] = spectral_embedding(*graph, self.spectral_dim)
        sources = dict.fromkeys(SPLITS, path["lfm2k.inter"])
        sources |= {f"x_{modality}": path[name] for modality, name in _DENSE.items()}
        sources |= {"x_image": path[_GRAPH], "similar_image": path[_GRAPH]}
        return InteractionTables(
            **read_inter_splits(path["lfm2k.inter"]),
            features=features,
            graphs={"image": graph},
            graph_derived=("image",),
            sources=sources,
        )

    @property
    def items(self) -> pd.DataFrame | None:
        r"""The listeners' ``tags`` by row, see :meth:`item_tags`; :obj:`None` without that file.

        Read when first asked for. Needs pandas.
        """
        if self._items is None and os.path.isfile(os.path.join(self.raw_dir, _TAGS)):
            self._items = self.item_ids.to_frame(index=False, name="item").assign(
                tags=self.item_tags()
            )
        return self._items

    def item_tags(self) -> list[str]:
        r"""The listeners' tags of each item, separated by commas; ``''`` where it has none.

        Read from ``raw/items.tsv`` (columns ``itemID``, ``artistID`` and ``tags``), which is
        derived from the publisher's tag file and never needed for training.

        Raises:
            FileNotFoundError: If ``items.tsv`` is missing.
            ValueError: If a line has other columns or an id outside the items.
        """
        path = os.path.join(self.raw_dir, _TAGS)
        require_files(path)
        tags = [""] * self.num_items
        try:
            with open(path, encoding="utf-8-sig") as file:
                header, *lines = file.read().split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: expected text in UTF-8 ({error})") from error
        columns = header.split("\t")
        for column in ("itemID", "tags"):
            if column not in columns:
                raise ValueError(
                    f"{path}, line 1: missing column {column!r}, expected itemID and tags, "
                    f"separated by tabs (found {columns})"
                )
        for number, line in enumerate(lines, start=2):
            row = dict(zip(columns, line.split("\t"), strict=False))
            item = row.get("itemID", "")
            if re.fullmatch("[0-9]{1,18}", item) and int(item) < self.num_items:
                tags[int(item)] = row.get("tags", "")
            elif line:
                raise ValueError(
                    f"{path}, line {number}: itemID is {item!r}, expected 0 to {self.num_items - 1}"
                )
        return tags
