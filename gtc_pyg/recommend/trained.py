from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gtc_pyg.explain import Explainer
from gtc_pyg.graph.csr_graph import USER_TO_ITEM
from gtc_pyg.inductive import ItemEmbedder, UserEmbedder
from gtc_pyg.loader import GraphInputs
from gtc_pyg.models import GraphRecommender
from gtc_pyg.recommend.lists import Lists
from gtc_pyg.recommend.state import Field


class Trained(Lists):
    r"""A trained model, what it was trained on, and the lists of it: the state of a
    :class:`~gtc_pyg.recommend.Recommender`, which its folder, reasons and updates share.

    What is derived from the model is made when it is first asked for, and anew in a copy.
    """

    features = Field[dict[str, Tensor]]()
    """Content of all items, those added after training included."""
    model: GraphRecommender
    """The model, without gradients."""
    inputs: GraphInputs
    """Content and graph of training."""
    columns: dict[str, tuple[str, ...]]
    """Names of the content's columns, by modality, where they have names."""
    cold_rows: frozenset[int]
    """Rows of trained items without interactions, where they rank by content."""

    def set_model(
        self, model: GraphRecommender, inputs: GraphInputs, columns: Mapping[str, Sequence[str]]
    ) -> None:
        r"""Takes a model and what it was trained on."""
        self.columns = {name: tuple(names) for name, names in columns.items()}
        self.model, self.inputs = model.cpu().eval().requires_grad_(False), inputs
        self.features = dict(inputs.features)
        self._user_embedder: UserEmbedder | None = None
        self._item_embedder: ItemEmbedder | None = None
        self._explainer: Explainer | None = None
        touched = inputs.edge_index_dict[USER_TO_ITEM][1]
        degree = torch.bincount(touched, minlength=model.num_items)
        cold = (degree == 0).nonzero().view(-1).tolist() if model.modalities else []
        self.cold_rows = frozenset(cold)

    @property
    def arguments(self) -> tuple[Any, Any, Any]:
        r"""What the model's ``forward`` takes."""
        return self.inputs.features, self.inputs.edge_index_dict, self.inputs.edge_weight_dict

    @property
    def user_embedder(self) -> UserEmbedder:
        r"""Embeds users who came after training."""
        if self._user_embedder is None:
            self._user_embedder = self.model.user_embedder(*self.arguments)
        return self._user_embedder

    @property
    def item_embedder(self) -> ItemEmbedder:
        r"""Embeds items that nobody has touched."""
        if self._item_embedder is None:
            self._item_embedder = self.model.item_embedder(*self.arguments)
        return self._item_embedder

    @property
    def explainer(self) -> Explainer:
        r"""Takes scores apart."""
        if self._explainer is None:
            self._explainer = Explainer(self.model, *self.arguments)
        return self._explainer

    def seen_rows(self, row: int) -> Tensor:
        r"""Rows of the items that a user is known to have interacted with."""
        return self._seen(torch.tensor([row]))[1]

    def __getstate__(self) -> dict[str, Any]:
        r"""All but what is made anew when it is first asked for."""
        made = dict.fromkeys(("_user_embedder", "_item_embedder", "_explainer"))
        return {**vars(self), **made}
