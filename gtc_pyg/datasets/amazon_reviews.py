r"""Amazon's products and ratings until 2014, from their publisher's files."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtc_pyg.datasets.amazon_files import read_images, read_metadata, read_ratings
from gtc_pyg.datasets.download import RemoteFile, download_files
from gtc_pyg.datasets.interaction_dataset import InteractionDataset
from gtc_pyg.datasets.interaction_tables import SPLITS, InteractionTables
from gtc_pyg.datasets.splits import random_split
from gtc_pyg.transforms.text_features import tfidf_embedding

_URL = "https://snap.stanford.edu/data/amazon/productGraph"
_COLUMNS = ("title", "brand", "categories", "description")


class AmazonReviews(InteractionDataset):
    r"""Products of one category that people rated, with an image and words.

    From `"Image-Based Recommendations on Styles and Substitutes"
    <https://arxiv.org/abs/1506.04757>`_; the files are those of
    `SNAP <https://snap.stanford.edu/data/amazon/productGraph/>`_, May 1996 to July 2014:

    - ``ratings_<category>.csv``: user, item, rating and time, without a header;
    - ``meta_<category>.json.gz``: a Python dictionary per line, read by :func:`ast.literal_eval`;
      only the lines of items that are kept are;
    - ``image_features_<category>.b``: records of a 10-byte id and 4,096 float32, little-endian,
      which are streamed, since there are gigabytes of them.

    Every rating is an interaction, whatever its value, and a user and an item that stand together
    twice count once. The :obj:`k_core` of them is split at random for each user, 8:1:1
    (:func:`~gtc_pyg.datasets.splits.random_split`). Users and items are numbered in the order of
    their ids, which :attr:`user_ids` and :attr:`item_ids` give, so the order of the lines does not
    matter. MMRec's folders of the same categories hold other draws of the split: do not compare
    figures across the two.

    Modalities: ``image``, the 4,096 numbers as they stand, and ``text``, made from title, brand,
    categories and description. Without :obj:`text_encoder` that is
    :func:`~gtc_pyg.transforms.text_features.tfidf_embedding` of width 256; :attr:`encoders` says
    what it was. ``has_image`` and ``has_text`` are there where some items have none.

    The publisher gives no checksums, see :func:`~gtc_pyg.datasets.download.download_files`.

    Args:
        root (str): The folder with ``raw/``.
        category (str): As in the publisher's file names, such as ``'Cell_Phones_and_Accessories'``.
        k_core (int): How many interactions every user and item has at least. (default: :obj:`5`)
        seed (int): Seed of the split. (default: :obj:`0`)
        text_encoder (callable, optional): From a list of ``N`` texts to ``[N, F]``, a tensor or an
            array: ``SentenceTransformer("all-MiniLM-L6-v2").encode``, say. (default: :obj:`None`)
        text_name (str, optional): What :obj:`text_encoder` is called: it names the file under
            ``processed/``, so that another encoder is not answered from there.
        images (bool): Whether to take the images. (default: :obj:`True`)
        transform, pre_transform, force_reload: as in :class:`InteractionDataset`.

    Raises:
        ConnectionError: If a file is missing and cannot be downloaded; says what to put where.
        ImportError: If pandas or SciPy is missing.
        ValueError: If an argument is wrong, or a file: the message names file, line or record, and
            value.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        category: str,
        k_core: int = 5,
        seed: int = 0,
        text_encoder: Callable[[list[str]], Tensor | np.ndarray] | None = None,
        text_name: str | None = None,
        images: bool = True,
        transform: Callable[..., Any] | None = None,
        pre_transform: Callable[..., Any] | None = None,
        force_reload: bool = False,
    ) -> None:
        if not re.fullmatch("[A-Za-z_]+", category):
            raise ValueError(
                f"'category' must be as in the publisher's file names, such as "
                f"'Cell_Phones_and_Accessories' (got {category!r})"
            )
        if k_core < 1:
            raise ValueError(f"'k_core' must be at least 1 (got {k_core})")
        if (text_encoder is None) != (text_name is None) or not re.fullmatch(
            r"[\w.-]+", text_name or "tfidf"
        ):
            raise ValueError(
                "'text_name' must go with 'text_encoder' and name it by letters, digits and '._-' "
                f"(got {text_name!r} and {text_encoder!r})"
            )
        self.category = category
        self.k_core = k_core
        self.seed = seed
        self.text_encoder = text_encoder
        self.text_name = text_name or "tfidf256"
        self.images = images
        self._shown: dict[str, list[str]] = {}
        super().__init__(root, transform, pre_transform, force_reload)

    @property
    def encoders(self) -> dict[str, str]:
        r"""What made the content of a modality, where it is not the publisher's own."""
        return {"text": self.text_name}

    @property
    def raw_file_names(self) -> list[str]:
        names = [f"ratings_{self.category}.csv", f"meta_{self.category}.json.gz"]
        return names + [f"image_features_{self.category}.b"] * self.images

    def processed_name(self) -> str:
        settings = f"{self.category}_core{self.k_core}_seed{self.seed}_text-{self.text_name}"
        return settings + "_image" * self.images

    def download(self) -> None:
        r"""Downloads the missing files; of the images there are gigabytes."""
        folders = ("categoryFiles", "categoryFiles", "image_features/categoryFiles")
        named = zip(folders, self.raw_file_names, strict=False)
        files = [RemoteFile(name, f"{_URL}/{folder}/{name}") for folder, name in named]
        download_files(files, self.raw_dir)

    def process(self) -> None:
        super().process()
        self._payload["shown"] = self._shown

    def _process(self) -> None:
        super()._process()
        import pandas as pd

        shown = dict(self._payload["shown"])
        self._user_ids = pd.Index(shown.pop("user"), name="user")
        self._item_ids = pd.Index(shown.pop("item"), name="item")
        self._items = pd.DataFrame(shown)

    def build(self) -> InteractionTables:
        path = dict(zip(("ratings", "meta", "image"), self.raw_paths, strict=False))
        edge_index, users, items = read_ratings(path["ratings"], self.k_core)
        features, masks = {}, {}
        if self.images:
            features["image"], masks["image"] = read_images(path["image"], items)
        records = read_metadata(path["meta"], items)
        shown = {name: [_flat(records.get(i, {}).get(name)) for i in items] for name in _COLUMNS}
        texts = [". ".join(filter(None, parts)) for parts in zip(*shown.values(), strict=True)]
        features["text"], masks["text"] = self._encode(texts, path["meta"])
        del shown["description"]
        self._shown = {"user": users, "item": items, **shown}

        label = torch.from_numpy(random_split(edge_index[0].numpy(), seed=self.seed))
        sources = {**dict.fromkeys(SPLITS, path["ratings"]), "x_text": self.text_name}
        return InteractionTables(
            {split: edge_index[:, label == index] for index, split in enumerate(SPLITS)},
            len(users),
            features,
            {name: mask for name, mask in masks.items() if not mask.all()},
            sources=sources,
        )

    def _encode(self, texts: Sequence[str], path: str) -> tuple[Tensor, Tensor]:
        mask = torch.tensor([text != "" for text in texts])
        given = [text for text in texts if text]
        if not given:
            raise ValueError(
                f"{path}: has no words for any of the {len(texts)} items, expected {_COLUMNS} of "
                "some"
            )
        x = torch.as_tensor((self.text_encoder or tfidf_embedding)(given)).detach().cpu().float()
        if x.dim() != 2 or x.size(0) != len(given):
            raise ValueError(
                f"'text_encoder' must return one row for each of {len(given)} texts "
                f"(got {list(x.shape)})"
            )
        out = x.new_zeros(len(texts), x.size(1))
        out[mask] = x
        return out, mask


def _flat(value: Any) -> str:
    r"""The texts of nested lists, each once; ``''`` for None."""
    return ", ".join(dict.fromkeys(filter(None, _leaves(value))))


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for entry in value:
            yield from _leaves(entry)
    elif value is not None:
        yield html.unescape(str(value)).strip()
