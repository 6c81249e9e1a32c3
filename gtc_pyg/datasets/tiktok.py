r"""TikTok, as published with DiffMM."""

from __future__ import annotations

import os
from typing import Any

from gtc_pyg.datasets.download import RemoteFile, download_files
from gtc_pyg.datasets.interaction_dataset import InteractionDataset
from gtc_pyg.datasets.interaction_tables import InteractionTables
from gtc_pyg.datasets.raw_files import read_npy, read_sparse_pickle

_URL = "https://raw.githubusercontent.com/HKUDS/DiffMM/main/Datasets/tiktok"
_SHA256 = {
    "trnMat.pkl": "1efbc49d1a7ce5268f01e3e0c558df1f8f8644628c76aa6536be4ec61d256916",
    "valMat.pkl": "b6971ed696613d565613dd74b101c45b2aa002b66e8ba99cad03abf04db2397b",
    "tstMat.pkl": "e83a93787d88728572dbdd5b131bae01a90e17c340820e7b8f0a7c27e69d6f9e",
    "image_feat.npy": "f6c1ec1726ed2aa80315411199ab2143bee6333821bf58c5f00bd3f5b462efc2",
    "audio_feat.npy": "d45a44a9d462f578802de914c2feea5cfd45742b2922775a085b9bdc1beba26f",
}
_MATRICES = {"train": "trnMat.pkl", "val": "valMat.pkl", "test": "tstMat.pkl"}


class TikTok(InteractionDataset):
    r"""Short videos with image and audio content, and text where its file is present.

    From `"DiffMM: Multi-Modal Diffusion Model for Recommendation"
    <https://arxiv.org/abs/2406.11781>`_, whose repository holds the files (``HKUDS/DiffMM``,
    ``Datasets/tiktok``). 9,308 users, 6,710 items; 59,541 training, 3,051 validation and 6,130
    test interactions (one per test user). Of the items 193 in validation and 340 in test, and of
    the users 10, never occur in training.

    The raw files are ``trnMat.pkl``, ``valMat.pkl``, ``tstMat.pkl``, ``image_feat.npy`` and
    ``audio_feat.npy`` (128-d, half precision, read as float32). ``text_feat.npy`` (768-d) is
    published too and taken as modality ``text`` when it lies beside them. Another repository
    ships the set with validation and test swapped: the checksums are of this one's files.

    Args:
        root (str): The folder that has, or will have, ``raw/`` and ``processed/``.
        untrained_users (bool): Whether the 10 users with nothing in training are evaluated, as the
            publisher does; else they are left out, with a count. (default: :obj:`False`)
        **options: As :class:`InteractionDataset`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        untrained_users: bool = False,
        **options: Any,
    ) -> None:
        self.untrained_users = bool(untrained_users)
        super().__init__(root, **options)

    @property
    def raw_file_names(self) -> list[str]:
        return [*_SHA256, *(["text_feat.npy"] if self._has_text else [])]

    def processed_name(self) -> str:
        users = ["all_users"] if self.untrained_users else []
        return "_".join(["tiktok", *self._published_modalities, *users])

    @property
    def _has_text(self) -> bool:
        return os.path.isfile(os.path.join(self.raw_dir, "text_feat.npy"))

    @property
    def _published_modalities(self) -> list[str]:
        return ["image", "audio", *(["text"] if self._has_text else [])]

    def download(self) -> None:
        r"""Downloads the missing files from DiffMM's repository and checks them."""
        files = [RemoteFile(name, f"{_URL}/{name}", digest) for name, digest in _SHA256.items()]
        download_files(files, self.raw_dir)

    def build(self) -> InteractionTables:
        path = {name: os.path.join(self.raw_dir, name) for name in self.raw_file_names}
        splits, shapes = {}, {}
        for split, name in _MATRICES.items():
            splits[split], shapes[name] = read_sparse_pickle(path[name])
        features = {m: read_npy(path[f"{m}_feat.npy"]) for m in self._published_modalities}
        shape = shapes["trnMat.pkl"]
        for name, other in shapes.items():
            if other != shape:
                raise ValueError(
                    f"{path[name]}: shape is {other}, expected {shape} as in trnMat.pkl"
                )
        for modality, x in features.items():
            if x.dim() == 2 and x.size(0) != shape[1]:
                raise ValueError(
                    f"{path[f'{modality}_feat.npy']} has {x.size(0)} rows but the matrix of "
                    f"{path['trnMat.pkl']} has {shape[1]} columns; expected one per item in both"
                )
        sources = {split: path[name] for split, name in _MATRICES.items()}
        sources |= {f"x_{m}": path[f"{m}_feat.npy"] for m in features}
        all_users = self.untrained_users
        return InteractionTables(
            splits, shape[0], features, sources=sources, untrained_users=all_users
        )
