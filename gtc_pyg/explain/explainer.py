from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from gtc_pyg.explain.directions import Response, response
from gtc_pyg.explain.explained_user import ExplainedUser, check_row
from gtc_pyg.graph import EdgeIndexDict, EdgeWeightDict, Features
from gtc_pyg.graph.csr_graph import ITEM_TO_USER
from gtc_pyg.inductive import UserEmbedder
from gtc_pyg.inductive.user_embedder import new_users
from gtc_pyg.models import GTC, GraphRecommender


class Explainer:
    r"""Takes the scores of a trained model apart, exactly.

    GTC's score is bilinear in what is propagated. That is a sum of sources :math:`k`, the ID
    embeddings and each modality's filtered content, and stays one: with all gates and norms as they
    are, :math:`h_u = \sum_k h_u^k`, :math:`h_i = \sum_k h_i^k` and

    .. math::
        y_{ui} = \alpha \sum_{k, l} \langle h_u^k, h_i^l \rangle + b_i .

    What two sources do together, one on the user's side and one on the item's, belongs half to each
    (the Shapley value of the sources):

    .. math::
        \text{by\_source}_k = \frac{\alpha}{2} \Big( \langle h_u^k, h_i \rangle
        + \langle h_u, h_i^k \rangle \Big) .

    Everything a user gets comes from their own ID embedding or over one of their items :math:`j`,

    .. math::
        h_u = \frac{1}{L + 1} \bar e_u + \sum_{j \in N(u)} \Big( \frac{1}{L + 1}
        \sum_{l < L} \frac{h_j^{(l)}}{\sqrt{|N(u)| |N(j)|}}
        + \sum_m \frac{\lambda a_u^m}{|c_u^m|} \frac{\hat x_{uj}^m}{|N(u)|} \Big),
        \qquad c_u^m = \frac{1}{|N(u)|} \sum_j \hat x_{uj}^m,

    so each of them has its part of the score, and what is left is the user's own. Everything an
    item gets is its own or comes from the item graph. What a past item knows it may have from its
    other users, the user included: the part says over which item it came.

    The columns of a :class:`~gtc_pyg.models.SpectralHead` belong to ``'interactions'``, and on the
    user's side to the items that they come from.

    LightGCN, FREEDOM and SpectralFilter have one source, ``'interactions'``, and the same formulas
    without content; FREEDOM's content is in its item graph alone, that is, in ``similar``. An MGCN
    has the modalities as sources, too: its attention and gates are taken as they are, so that its
    content is a weighted sum.

    All that is the same for all pairs is computed here, ``3 S`` tables ``[I, D]``; a pair takes
    milliseconds.

    Args:
        model: A trained recommender. Its weights must not change afterwards.
        features: Content of each modality ``[I, F_m]``.
        edge_index_dict: As in :meth:`~gtc_pyg.models.GTC.forward`.
        edge_weight_dict: As in :meth:`~gtc_pyg.models.GTC.forward`.
        user_embedder: What embeds new users, if there is one already; made on first use else.

    Example:
        >>> from gtc_pyg.datasets import PlantedPreferences
        >>> from gtc_pyg.models import GTC
        >>> data = PlantedPreferences(30, 20, ["image"], mean_degree=6.0)[0]
        >>> model = GTC(30, 20, {"image": 32}, num_item_layers=0, heads=[])
        >>> explainer = Explainer(model, {"image": data["item"].x_image}, data.edge_index_dict)
        >>> parts = explainer.user(3).score_parts(7)
        >>> parts.sources
        ('interactions', 'image')
        >>> bool(torch.isclose(parts.by_source.sum() + parts.bias, parts.score))
        True
    """

    @torch.no_grad()
    def __init__(
        self,
        model: GraphRecommender,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
        user_embedder: UserEmbedder | None = None,
    ) -> None:
        self.model, self.features = model, features
        self.graph = model.csr_graph(edge_index_dict, edge_weight_dict)
        self.components = model.components(features, self.graph)
        self.user_embedder = user_embedder
        """What embeds new users, where one was given or asked for."""
        self._responses: dict[str, Response] = {}

    @torch.no_grad()
    def user(self, user: int | Tensor, user_emb: Tensor | None = None) -> ExplainedUser:
        r"""Prepares what belongs to a user.

        Args:
            user: Row of a user of the model; or, for one who came after training, rows of their
                items, each counted once.
            user_emb: Of such a user, their row of the model's ``user_emb`` ``[D]`` where it is
                known; predicted as :class:`~gtc_pyg.inductive.UserEmbedder` does where ``None``.

        Raises:
            ValueError: For a user or an item that does not exist.
        """
        table = self.model.user_emb.weight.detach()
        if isinstance(user, Tensor):
            items = user
        else:
            check_row("user", user, self.graph.num_users)
            to_user = self.graph[ITEM_TO_USER]
            first, last = to_user.crow_indices()[user : user + 2].tolist()
            items, user_emb = to_user.col_indices()[first:last], table[user]
        graph = new_users(torch.stack([torch.zeros_like(items), items]), 1, self.graph.num_items)
        if user_emb is None:
            if self.user_embedder is None:
                self.user_embedder = self.model.user_embedder(self.features, self.graph)
            ego = self.user_embedder.predict_user_emb(graph)[0]
        elif user_emb.shape != table.shape[1:]:
            raise ValueError(f"'user_emb' must be [{table.size(1)}] (got {list(user_emb.shape)})")
        else:
            ego = self.model.transform_user(user_emb)
        return ExplainedUser(
            self.components,
            self.model.heads,
            self.model.num_item_layers,
            graph,
            ego,
            self.response,
        )

    def response(self, name: str) -> Response:
        r"""How the filter of a modality responds to content; computed once, for all users.

        Args:
            name: The modality.
        """
        if name not in self.components.filtered:
            raise ValueError(
                f"'name' must be one of {list(self.components.filtered)}, the modalities that the "
                f"model filters (got {name!r})"
            )
        if name not in self._responses:
            model = cast(GTC, self.model)  # it filters content
            self._responses[name] = response(model, self.features, self.graph, name)
        return self._responses[name]
