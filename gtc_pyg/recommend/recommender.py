from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.datasets.frame_columns import as_pandas
from gtc_pyg.evaluation import GroupedEdges
from gtc_pyg.loader import GraphInputs
from gtc_pyg.models import GraphRecommender
from gtc_pyg.recommend import explanation, folder
from gtc_pyg.recommend.content import joined, read_content
from gtc_pyg.recommend.continuing import continued
from gtc_pyg.recommend.ids import Ids
from gtc_pyg.recommend.interactions import as_frame
from gtc_pyg.recommend.item_table import below
from gtc_pyg.recommend.state import changer, reader
from gtc_pyg.recommend.trained import Trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Recommender(Trained):
    r"""Answers after training: lists for users, old and new, similar items, and reasons.

    Everybody is embedded once, without noise; a list is then one product (:class:`Lists` has what
    embeddings alone can answer). Ids are the user's own. Items without a training interaction rank
    by their content (:meth:`~gtc_pyg.models.GraphRecommender.item_embedder`), where the model
    reads content.

    Args:
        model: A trained recommender; it is copied. Heads that were not fitted are.
        dataset: What it was trained on.
        modalities: Content that it was trained with; all of it where ``None``.
        seen: Splits whose interactions count as seen, which ``exclude_seen`` leaves out. Messages
            pass over those of training alone. For figures that compare with a benchmark's,
            ``('train',)``.

    Raises:
        ValueError: For a model of other numbers of users or items.

    Example:
        >>> from gtc_pyg.datasets import PlantedPreferences
        >>> from gtc_pyg.models import LightGCN
        >>> dataset = PlantedPreferences(30, 20, ["image"], mean_degree=6.0)
        >>> recommender = Recommender(LightGCN(30, 20), dataset)
        >>> list(recommender.recommend([3, 7], k=2).columns)
        ['user', 'rank', 'item', 'score']
    """

    def __init__(
        self,
        model: GraphRecommender,
        dataset: InteractionDataset,
        modalities: Sequence[str] | None = None,
        seen: Sequence[str] = ("train", "val", "test"),
    ) -> None:
        for kind in ("user", "item"):
            has, needed = getattr(model, f"num_{kind}s"), getattr(dataset, f"num_{kind}s")
            if has != needed:
                raise ValueError(f"'model' was made for {has} {kind}s, 'dataset' has {needed}")
        inputs = GraphInputs.from_data(dataset[0], modalities).to(torch.device("cpu"))
        model = copy.deepcopy(model)
        model.prepare(inputs.edge_index_dict, inputs.edge_weight_dict, spectral_start=False)
        columns = {k: v for k, v in dataset.feature_columns.items() if k in inputs.features}
        self.set_model(model, inputs, columns)
        with torch.no_grad():
            user_emb, item_emb = self.model(*self.arguments)
        if self.cold_rows:
            item_emb = self.item_embedder.replace(item_emb)
        views = [dataset.view(split)["user", "rates", "item"].edge_label_index for split in seen]
        known = torch.cat([torch.empty(2, 0, dtype=torch.long), *(edge.cpu() for edge in views)], 1)
        users, items = Ids(dataset.user_ids, "user"), Ids(dataset.item_ids, "item")
        bias = model.item_bias is not None
        super().__init__(user_emb, item_emb, users, items, dataset.items, known, bias)

    @reader
    def fold_in(
        self,
        interactions: Any,
        k: int = 10,
        exclude_seen: bool = True,
        candidates: Any = None,
        exclude: Any = None,
    ) -> pd.DataFrame:
        r"""The best items of users who came after training, from their interactions alone.

        Nothing is trained and nothing remembered (:meth:`add_users` remembers): their embeddings
        are what the model makes of their items, in milliseconds after the first call. Items that
        were added after training are left out of the lists but say nothing of a user yet.

        Args:
            interactions: The items of one user, or of several: a mapping of their ids to items, or
                a table with the columns ``user`` and ``item``.
            k: As in :meth:`recommend`.
            exclude_seen: Whether these items are left out.
            candidates: As in :meth:`recommend`.
            exclude: Items to leave out for everybody.

        Returns:
            A table as of :meth:`recommend`, without ``user`` where the items of one were given.

        Raises:
            ValueError: For an unknown item.
        """
        interactions = as_pandas(interactions)
        one = not isinstance(interactions, Mapping | pd.DataFrame)
        given = {0: interactions} if one else interactions
        users, edge_index = self._newcomers(given)
        never = None if exclude is None else self.items[self.items.rows(exclude)]
        chosen = self._candidates(candidates, never)
        seen = GroupedEdges(edge_index, len(users)) if exclude_seen else None
        rows = torch.arange(len(users))
        lists = self._rank(rows, k, chosen, seen, self._embed_users(edge_index, len(users)))
        return self._as_table(None if one else users[rows], *lists)

    @changer
    def add_users(self, interactions: Any) -> None:
        r"""Remembers users who came after training, as :meth:`fold_in` embeds them.

        Args:
            interactions: As in :meth:`fold_in`, of several users.

        Raises:
            ValueError: For a user who is known already, or an unknown item.
        """
        new, edge_index = self._newcomers(interactions)
        users = self.users.extended(new.index)
        user_emb = torch.cat([self.user_emb, self._embed_users(edge_index, len(new))])
        added = torch.stack([edge_index[0] + len(self.users), edge_index[1]])
        seen = torch.cat([self.seen, added], dim=1)
        grouped = GroupedEdges(seen, len(users))
        self._change(users=users, user_emb=user_emb, seen=seen, _seen=grouped)

    @changer
    def add_items(
        self,
        ids: Any,
        features: Mapping[str, Any],
        items: pd.DataFrame | None = None,
    ) -> None:
        r"""Adds items that nobody has touched, ranked by their content; nothing is trained.

        Args:
            ids: Their ids ``[n]``.
            features: Modality to content ``[n, F_m]`` in the order of ``ids``, or by item id a
                DataFrame, Series or dict of vectors; one that they all lack may be left out, and
                ``has_<modality>`` ``[n]`` (bool) says which of them have it. Columns of a DataFrame
                are brought into the order of training, by their names.
            items: What there is to show of them: columns of the items' table, in the same order or
                with ids as index.

        Raises:
            ValueError: For an item that is known already, content of other rows, widths or columns
                or that is not finite, a column that the items' table lacks, or a model that reads
                no content.
        """
        new = self.items.extended(ids)
        added = new.index[len(self.items) :]
        embed = self.item_embedder
        content = read_content(features, self.features, added, self.columns)
        emb = embed(content)
        if items is not None and len(items) != len(added):
            raise ValueError(
                f"'items' must have a row for each of the {len(added)} items (got {len(items)})"
            )
        self._change(
            items=new,
            item_emb=torch.cat([self.item_emb, emb]),
            features=joined(self.features, content),
            table=None if self.table is None else below(self.table, items, added),
        )

    @reader
    def update(
        self,
        interactions: Any,
        *,
        pre_transform: Any = None,
        ratios: Sequence[float] = (0.9, 0.05, 0.05),
        epochs: int = 10,
        patience: int = 3,
        **options: Any,
    ) -> Recommender:
        r"""Goes on training with new interactions, users and items; this one stays as it is.

        Everything known is put together with what is new, and the model begins where it ended
        (:func:`~gtc_pyg.recommend.continuing.warm_started`), so that a few epochs do. New items
        come first, by :meth:`add_items`.

        Args:
            interactions: New ones, a table with the columns ``user`` and ``item`` or a mapping of
                users to items; or a dataset with everything, the ids of which say who is who, to
                split it otherwise.
            pre_transform: Makes the item graph; ``ItemKNNGraph(k=10)`` where ``None``. Give the one
                that was trained with. Of a dataset it is its own.
            ratios: Shares of training, validation (to stop early) and test. What was trained on is
                trained on again: held out is what is new, or was held out before.
            epochs: As in :func:`gtc_pyg.lightning.fit`.
            patience: As in :func:`gtc_pyg.lightning.fit`.
            **options: Further arguments of :func:`gtc_pyg.lightning.fit`: ``lr`` and
                ``weight_averaging`` as in the first training, which no saved folder knows, ``out``,
                ``name`` (``'update'``, beside what was trained before), ``seed``, ``progress``. The
                best epoch's validation Recall@20 is told on stderr.

        Raises:
            ValueError: For an unknown item, or content of other modalities or widths.
        """
        options |= {"epochs": epochs, "patience": patience}
        model, dataset = continued(self, interactions, pre_transform, ratios, options)
        names = [name for name in self.features if not name.startswith("has_")]
        return Recommender(model, dataset, names)

    @reader
    def explain(
        self, user: Any = None, item: Any = None, interactions: Any = None, k: int = 2
    ) -> explanation.Explanation:
        r"""Why an item is where it is in a user's list.

        Args:
            user: Their id.
            item: The item's id.
            interactions: The items of a user who is not known, instead of ``user``.
            k: How many directions of content, of each kind, are looked for in each modality.

        Raises:
            ValueError: For an unknown user or item.
            TypeError: For a model that does not say what its scores are sums of.
        """
        return explanation.explain(self, user, item, interactions, k)

    @reader
    def plot_user(
        self, user: Any = None, interactions: Any = None, k: int = 10, label: str | None = None
    ) -> Figure:
        r"""Draws a user's history, the parts of their best items' scores and the sources' shares.

        Args:
            user: Their id.
            interactions: The items of a user who is not known, instead of ``user``.
            k: How many items.
            label: Column of the items' table to name items by; their ids where ``None``.

        Returns:
            A figure of matplotlib's; ``savefig`` writes it.

        Raises:
            ValueError: As :meth:`explain`, and for an unknown column.
        """
        lists = self.recommend(user, k) if interactions is None else self.fold_in(interactions, k)
        return explanation.plot(self, lists, user, interactions, label)

    @reader
    def save(self, path: str | os.PathLike[str]) -> Path:
        r"""Writes a folder that :meth:`load` reads, in another process or on another machine.

        ``model.safetensors`` (weights, content, graph, embeddings), ``config.yaml`` (settings and
        format), ``users.arrow`` and ``items.arrow`` (ids, and the columns of the items' table;
        :func:`pandas.read_feather` reads them) and ``SHA256SUMS`` of all these. No pickle. The
        folder appears under its name when it is whole. A saved recommender that is there already is
        replaced in one step: whatever happens, the old one or the new one is there.

        Args:
            path: The folder.

        Raises:
            FileExistsError: Where something else is there.
            ValueError: For a model that is not of :mod:`gtc_pyg.models`, numbers that are not
                finite, or a column of the items' table of several types.
            OSError: Where it cannot be written; nothing is left under its name.
        """
        return folder.save(self, Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recommender:
        r"""Reads what :meth:`save` wrote, by at most a few times the memory that its files take.

        Args:
            path: The folder.

        Raises:
            FileNotFoundError: Where there is no such folder, or a file of it is missing.
            ValueError: For a foreign, damaged or newer folder; says which file and why.
        """
        return folder.load(cls, Path(path))

    def _newcomers(self, interactions: Any) -> tuple[Ids, Tensor]:
        frame = as_frame(interactions)
        mapping = isinstance(interactions, Mapping)  # whose users may have no items
        users = Ids(list(interactions) if mapping else frame["user"].unique(), "user")
        return users, torch.stack([users.rows(frame["user"]), self.items.rows(frame["item"])])

    def _embed_users(self, edge_index: Tensor, num_users: int) -> Tensor:
        trained = edge_index[1] < self.model.num_items
        return self.user_embedder(edge_index[:, trained], num_users)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({type(self.model).__name__}, {self.num_users:,} users, "
            f"{self.num_items:,} items)"
        )
