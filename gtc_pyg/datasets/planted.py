r"""Seeded data with a known answer: which content each user cares about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from gtc_pyg.datasets.interaction_dataset import InteractionDataset
from gtc_pyg.datasets.interaction_tables import InteractionTables
from gtc_pyg.functional import takes_numbers

_USERS_PER_CHUNK = 1024
_MIN_DEGREE = 6
_SPREAD = 0.5  # of items around the centre of their cluster


class PlantedPreferences(InteractionDataset):
    r"""Random users who care about one modality most, and about one block inside each modality.

    Content of an item in a modality is :obj:`num_blocks` blocks of :obj:`block_dim` dimensions. In
    each block an item belongs to one of :obj:`num_clusters` clusters and lies around its centre
    (centres are standard normal, the standard deviation around them is 0.5). A user :math:`u` has,
    in each modality :math:`m`, a preferred block :math:`b_u^m` and there a taste :math:`t_u^m`: the
    unit vector towards one cluster's centre. With :math:`a_u^m = 1` for the preferred modality and
    :obj:`minor_weight` for the others,

    .. math::
        \mathrm{utility}(u, i) = \sum_m a_u^m \langle t_u^m, x_i^m[b_u^m] \rangle

    The user interacts with the items of largest :math:`\mathrm{sharpness} \cdot \mathrm{utility}`
    plus Gumbel noise, as many as a log-normal degree sequence says. A share :obj:`noise` of the
    interactions comes instead from a bipartite configuration model
    (:func:`networkx.bipartite.configuration_model`) with Zipf-like popularity, blind to content.
    Each user's interactions are split at random, about 80 / 10 / 10; a user of five or more has
    at least one in each split, another has all in training.

    The two truths are ``data['user'].preferred_modality`` ``[num_users]`` (an index into
    :attr:`modalities`) and ``data['user'].preferred_block`` ``[num_users, num_modalities]``; no
    model should be shown either. :meth:`utility` is what an oracle would rank by. Kept in memory;
    made from :obj:`seed` alone, without touching global random states.

    Args:
        num_users (int): The number of users. (default: :obj:`600`)
        num_items (int): The number of items, at least 20. (default: :obj:`300`)
        modalities (sequence of str): Their names. (default: :obj:`("image", "text")`)
        seed (int): The seed. (default: :obj:`0`)
        num_blocks (int): Blocks in each modality. (default: :obj:`4`)
        block_dim (int): Dimensions of a block. (default: :obj:`8`)
        num_clusters (int): Clusters of items in each block. (default: :obj:`4`)
        mean_degree (float): Mean number of interactions of a user, at least 6 and at most a
            quarter of the items. (default: :obj:`20.0`)
        noise (float): Share of interactions blind to content, in [0, 1). (default: :obj:`0.1`)
        sharpness (float): How closely users follow their utility. (default: :obj:`4.0`)
        minor_weight (float): Weight of the modalities not preferred, in [0, 1).
            (default: :obj:`0.2`)
        transform (callable, optional): As in :class:`InteractionDataset`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    @takes_numbers
    def __init__(
        self,
        num_users: int = 600,
        num_items: int = 300,
        modalities: Sequence[str] = ("image", "text"),
        seed: int = 0,
        num_blocks: int = 4,
        block_dim: int = 8,
        num_clusters: int = 4,
        mean_degree: float = 20.0,
        noise: float = 0.1,
        sharpness: float = 4.0,
        minor_weight: float = 0.2,
        transform: Callable[..., Any] | None = None,
    ) -> None:
        names = tuple(modalities)
        sizes = {
            "num_users": (num_users, 1),
            "num_items": (num_items, 20),
            "num_blocks": (num_blocks, 1),
            "block_dim": (block_dim, 1),
            "num_clusters": (num_clusters, 1),
            "seed": (seed, 0),
        }
        for argument, (size, least) in sizes.items():
            if size < least:
                raise ValueError(f"{argument} must be at least {least}, got {size}")
        if not names or len(set(names)) != len(names):
            raise ValueError(f"modalities must be one or more different names, got {names}")
        # Never less than the least degree, so that the smallest allowed sets have a valid mean.
        most = max(float(_MIN_DEGREE), num_items / 4)
        if not _MIN_DEGREE <= mean_degree <= most:
            raise ValueError(f"mean_degree must be {_MIN_DEGREE} to {most}, got {mean_degree}")
        for argument, share in (("noise", noise), ("minor_weight", minor_weight)):
            if not 0 <= share < 1:
                raise ValueError(f"{argument} must be in [0, 1), got {share}")
        if not 0 <= sharpness < float("inf"):
            raise ValueError(f"sharpness must be non-negative and finite, got {sharpness}")
        self.seed, self.noise, self.sharpness = seed, noise, sharpness
        self.minor_weight, self.mean_degree = minor_weight, mean_degree
        self._names, self._num_users, self._num_items = names, num_users, num_items
        self._shape = (len(names), num_blocks, num_clusters, block_dim)
        self.block_slices = [
            slice(block * block_dim, (block + 1) * block_dim) for block in range(num_blocks)
        ]
        super().__init__(None, transform)
        self._data["user"].preferred_modality = torch.from_numpy(self._modality)
        self._data["user"].preferred_block = torch.from_numpy(self._block)

    def utility(self, users: Tensor | None = None) -> Tensor:
        r"""The planted utility ``[len(users), num_items]``, float32; all users by default."""
        chosen = np.arange(self._num_users) if users is None else users.cpu().numpy()
        return torch.from_numpy(self._utility(chosen))

    def build(self) -> InteractionTables:
        rng = np.random.default_rng(self.seed)
        num_modalities, num_blocks, num_clusters, _ = self._shape
        num_users, num_items = self._num_users, self._num_items

        centre = rng.standard_normal(self._shape, dtype=np.float32)
        cluster = rng.integers(num_clusters, size=(num_modalities, num_blocks, num_items))
        content = np.take_along_axis(centre, cluster[..., None], axis=2)
        content += _SPREAD * rng.standard_normal(content.shape, dtype=np.float32)

        self._modality = rng.integers(num_modalities, size=num_users)
        self._block = rng.integers(num_blocks, size=(num_users, num_modalities))
        self._taste = rng.integers(num_clusters, size=(num_users, num_modalities))
        unit = centre / np.linalg.norm(centre, axis=-1, keepdims=True)
        # [M, B, C, I]: there are few different tastes, so users look theirs up.
        self._score = unit @ content.swapaxes(-1, -2)

        spare = rng.lognormal(sigma=0.8, size=num_users)
        spare *= (self.mean_degree - _MIN_DEGREE) / spare.mean()
        degree = (_MIN_DEGREE + np.floor(spare + rng.random(num_users))).astype(np.int64)
        degree = degree.clip(max=num_items // 2)
        num_noisy = rng.binomial(degree, self.noise)
        pairs = np.concatenate(
            [
                *self._follow_utility(degree - num_noisy, rng),
                _background(num_noisy, num_items, rng),
            ]
        )
        pairs = np.unique(pairs)
        edge_index = np.stack([pairs // num_items, pairs % num_items])
        label = _split(edge_index[0], num_users, rng)
        splits = {
            split: torch.from_numpy(edge_index[:, label == index])
            for index, split in enumerate(("train", "val", "test"))
        }
        features = {
            name: torch.from_numpy(np.concatenate(list(content[index]), axis=1))
            for index, name in enumerate(self._names)
        }
        return InteractionTables(splits, num_users, features)

    def _utility(self, users: np.ndarray) -> np.ndarray:
        out = np.zeros((users.size, self._num_items), dtype=np.float32)
        for m in range(len(self._names)):
            weight = np.where(self._modality[users] == m, 1.0, self.minor_weight)
            score = self._score[m, self._block[users, m], self._taste[users, m]]
            out += weight[:, None].astype(np.float32) * score
        return out

    def _follow_utility(self, degree: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
        r"""The chosen pairs ``user * num_items + item`` of each chunk of users."""
        for start in range(0, self._num_users, _USERS_PER_CHUNK):
            users = np.arange(start, min(start + _USERS_PER_CHUNK, self._num_users))
            count = degree[users]
            # Gumbel noise is minus the logarithm of an exponential draw.
            key = self.sharpness * self._utility(users)
            key -= np.log(rng.standard_exponential(key.shape, dtype=np.float32).clip(min=1e-30))
            most = max(1, int(count.max()))
            top = np.argpartition(-key, most - 1, axis=1)[:, :most]
            order = np.argsort(-np.take_along_axis(key, top, axis=1), axis=1, kind="stable")
            top = np.take_along_axis(top, order, axis=1)
            pairs = users[:, None] * self._num_items + top
            yield pairs[np.arange(most) < count[:, None]]


def _background(degree: np.ndarray, num_items: int, rng: np.random.Generator) -> np.ndarray:
    r"""Pairs ``user * num_items + item`` of a configuration model with popular items."""
    popularity = 1.0 / rng.permutation(np.arange(1, num_items + 1)) ** 0.8
    item_degree = rng.multinomial(degree.sum(), popularity / popularity.sum())
    graph = nx.bipartite.configuration_model(
        degree.tolist(), item_degree.tolist(), seed=int(rng.integers(2**31))
    )
    # NetworkX numbers the items after the users.
    edges = np.array(list(graph.edges()), dtype=np.int64).reshape(-1, 2)
    return edges.min(axis=1) * num_items + edges.max(axis=1) - degree.size


def _split(user: np.ndarray, num_users: int, rng: np.random.Generator) -> np.ndarray:
    r"""0 (train), 1 (validation) or 2 (test) for each interaction, at random for each user."""
    count = np.bincount(user, minlength=num_users)
    order = np.lexsort((rng.random(user.size), user))
    position = np.empty_like(order)
    position[order] = np.arange(user.size) - (count.cumsum() - count)[user[order]]
    held_out = np.where(count >= 5, np.maximum(1, np.round(count * 0.1)), 0).astype(np.int64)[user]
    return np.where(position < held_out, 1, np.where(position < 2 * held_out, 2, 0))
