r"""Nearest-neighbour search over item embeddings with faiss."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.functional import inner_product_topk, takes_numbers, whole_number

MIN_APPROXIMATE = 39 * 256  # faiss wants 39 items for each of the 256 codewords of a part
PART = 4  # channels that share a codeword
MOST_FOUND = 2048  # PyG's longest search
MOST_USERS = 8192  # of one faiss call
VISITED = 16_000  # items in the cells that a search visits


class ItemIndex:
    r"""Item embeddings in a faiss index, searched for the items of highest inner product.

    The inner product is the whole score of :meth:`gtc_pyg.models.GraphRecommender.forward`'s
    embeddings: where a model has a bias per item, it is one of the columns.

    **Exact** (default): :class:`torch_geometric.nn.pool.MIPSKNNIndex`, every item is compared.

    **Approximate**: :class:`torch_geometric.nn.pool.ApproxMIPSKNNIndex` (``IndexIVFPQ``) proposes
    ``num_candidates`` items and their inner products are then computed exactly, from the exact
    index (``IndexRefine``). k-means puts items into ``num_cells`` cells by direction; a search
    visits the ``num_probes`` cells that are best for the user, and compares what 4 channels at a
    time have been rounded to, the nearest of 256 codewords, of the difference to the cell's centre
    (``bits_per_vector`` of the PyG class is the number of such parts, a byte each). Scores are
    right; items may be missing. Embeddings are lengthened with zeros to a multiple of 4 channels.

    Ours, around limits of the PyG classes:

    * They lengthen every list by what the busiest user excludes; here users are searched together
      who exclude about as many.
    * They find 2,048 items at most, so that a user who excludes more may miss items; here such a
      user is ranked by :func:`~gtc_pyg.functional.inner_product_topk`.
    * The cells visited may hold too few items; here a list that came out short is ranked in the
      same way. So a list is short only where the user has no more candidates.

    faiss multiplies in single precision, on the CPU; for a GPU there is
    :func:`~gtc_pyg.functional.inner_product_topk`. ``docs/item_index.md`` says which is quicker.

    Args:
        item_emb: ``[I, K]``. Copied, in single precision.
        approximate: Whether some items may be missing for the sake of speed; pays from about a
            million items on.
        num_cells: Cells of the approximate kind. (default: the root of ``I``)
        num_probes: Cells that a search visits; more find more and take longer. An attribute that
            may be changed later. (default: as many as hold 16,000 items, at least 16)
        num_candidates: Items whose inner product is computed exactly, besides those a user
            excludes. An attribute that may be changed later.

    Raises:
        ModuleNotFoundError: Where faiss is not installed.
        ValueError: If there are no items, too few of them for the approximate kind or for
            ``num_cells``, if a number is less than 1 or an embedding not finite.

    Example:
        >>> index = ItemIndex(torch.tensor([[3.0], [1.0], [2.0]]))
        >>> index.search(torch.ones(1, 1), k=2, exclude_links=torch.tensor([[0], [0]]))[1]
        tensor([[2, 1]])
    """

    @takes_numbers
    def __init__(
        self,
        item_emb: Tensor,
        approximate: bool = False,
        num_cells: int | None = None,
        num_probes: int | None = None,
        num_candidates: int = 1000,
    ) -> None:
        try:
            import faiss
        except ModuleNotFoundError as error:
            message = 'ItemIndex needs faiss: pip install "gtc-pyg[recommend]"'
            raise ModuleNotFoundError(message, name=error.name) from error
        from torch_geometric.nn.pool import ApproxMIPSKNNIndex, MIPSKNNIndex

        num_items, self.channels = item_emb.size() if item_emb.dim() == 2 else (0, 0)
        self.approximate = approximate
        self.num_candidates = num_candidates
        x = self._checked(item_emb, "item_emb")
        if num_items == 0:
            raise ValueError(f"'item_emb' must hold items (got the shape {list(item_emb.size())})")
        self._exact = MIPSKNNIndex(x)
        self.knn = self._exact  # PyG's index that is searched
        if not approximate:
            return
        num_cells = round(math.sqrt(num_items)) if num_cells is None else num_cells
        if num_probes is None:
            num_probes = min(num_cells, max(16, math.ceil(VISITED * num_cells / num_items)))
        given = {"num_cells": num_cells, "num_probes": num_probes, "num_candidates": num_candidates}
        for name, number in given.items():
            if number < 1:
                raise ValueError(f"'{name}' must be at least 1 (got {number})")
        least = max(MIN_APPROXIMATE, 39 * num_cells)
        if num_items < least:
            raise ValueError(
                f"an approximate index with {num_cells} cells must have at least {least} items "
                f"(got {num_items}); use approximate=False or fewer cells"
            )
        self.num_probes = num_probes
        self.knn = ApproxMIPSKNNIndex(num_cells, num_probes, x.size(1) // PART, x)
        self._cells = self.knn.index
        self.knn.index = faiss.IndexRefine(self._cells, self._exact.index)

    @property
    def num_items(self) -> int:
        r"""How many items there are."""
        return int(self.knn.numel)

    def add(self, item_emb: Tensor) -> None:
        r"""Appends items behind those that are there.

        The cells stay as they are: build the index anew once many items are unlike the first.

        Args:
            item_emb: ``[N, K]``.
        """
        x = self._checked(item_emb, "item_emb")
        if x.size(0) > 0:
            self.knn.add(x)  # to the exact index as well

    @torch.no_grad()
    def search(
        self, user_emb: Tensor, k: int, exclude_links: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""The ``k`` items of the highest inner product with each user.

        The same conventions as :func:`~gtc_pyg.functional.inner_product_topk`: equal scores come
        in any order.

        Args:
            user_emb: ``[U, K]``.
            k: Length of the lists.
            exclude_links: Pairs of a row of ``user_emb`` and an item that is no candidate,
                ``[2, E]``.

        Returns:
            Scores in single precision and items, each ``[U, min(k, I)]``, best first, on the
            device of ``user_emb``. Where a user has fewer candidates, the rest is ``-inf`` and
            ``-1``.

        Raises:
            ValueError: If ``k`` is less than 1, or embeddings are not finite or of another width
                than the items'.
        """
        k = min(whole_number(1, k=k), self.num_items)
        x = self._checked(user_emb, "user_emb")
        links = torch.empty(2, 0, dtype=torch.long) if exclude_links is None else exclude_links
        links = links.cpu()
        score, item = torch.full((x.size(0), k), -math.inf), torch.full((x.size(0), k), -1)
        excluded = links[0].bincount(minlength=x.size(0))
        # 16, 32, 64, ...: those who exclude about as many are searched together.
        group = 2 ** excluded.clamp(min=16).double().log2().ceil().long()
        rest = k + excluded > MOST_FOUND
        for size in group[~rest].unique().tolist():
            members = (group == size).logical_and(~rest).nonzero().view(-1)
            for users in members.chunk(-(-members.numel() // MOST_USERS)):
                score[users], item[users] = self._search(x[users], k, _of(users, links, x.size(0)))
        if self.approximate:
            rest |= item[:, -1] < 0
        users = rest.nonzero().view(-1)
        if users.numel() > 0:
            few = _of(users, links, x.size(0))
            found = inner_product_topk(x[users], self._exact.get_emb(), k, few)
            score[users], item[users] = found
        score.masked_fill_(item < 0, -math.inf)
        return score.to(user_emb.device), item.to(user_emb.device)

    def _search(self, x: Tensor, k: int, links: Tensor) -> tuple[Tensor, Tensor]:
        """What faiss finds, by way of PyG, which leaves out ``links``."""
        if self.approximate:
            most = int(links[0].bincount(minlength=1).max())
            # PyG asks for k + most items, the index then proposes k_factor times as many.
            self._cells.nprobe = self.num_probes
            self.knn.index.k_factor = max(1.0, (self.num_candidates + most) / (k + most))
        found = self.knn.search(x, k, links if links.size(1) > 0 else None)
        return found.score, found.index

    def _checked(self, emb: Tensor, name: str) -> Tensor:
        """In single precision on the CPU, lengthened to whole parts."""
        if emb.dim() != 2 or emb.size(1) != self.channels:
            raise ValueError(
                f"'{name}' must have the shape [N, {self.channels}] (got {list(emb.size())})"
            )
        x = emb.detach().to("cpu", torch.float32)
        if not x.isfinite().all():
            raise ValueError(f"'{name}' must be finite (got NaN or infinity)")
        return F.pad(x, (0, -x.size(1) % PART if self.approximate else 0)).contiguous()


def _of(users: Tensor, links: Tensor, num_users: int) -> Tensor:
    """The links of some users, numbered by their places among these."""
    place = torch.full((num_users,), -1)
    place[users] = torch.arange(users.numel())
    user = place[links[0]]
    return torch.stack([user, links[1]])[:, user >= 0]
