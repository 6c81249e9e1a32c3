from __future__ import annotations

import copy
import inspect
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Embedding, Module
from torch_geometric.data import HeteroData
from torch_geometric.nn.models.lightgcn import BPRLoss

from gtc_pyg.functional import (
    check_least,
    normalize_rows,
    plain_numbers,
    spectral_factors,
    takes_numbers,
)
from gtc_pyg.models.content import Features
from gtc_pyg.models.csr_graph import CSRGraph, EdgeIndexDict, EdgeWeightDict, SampledNodes
from gtc_pyg.models.item_embedder import ItemEmbedder, ItemSide
from gtc_pyg.models.low_pass import LowPass
from gtc_pyg.models.make_graph import make_graph, pruned
from gtc_pyg.models.user_embedder import UserEmbedder, UserSide


class GraphRecommender(Module):
    r"""What every recommender here has in common.

    :meth:`forward` turns content and graph into one embedding per user and item, ranked by inner
    product; :meth:`loss` gives the named parts that training adds up; :meth:`training_graph` the
    graph of one epoch. No attribute of the model is written; what :meth:`loss` keeps from step to
    step within an epoch is in that graph's ``history``.

    Args:
        num_users: Number of users :math:`U`.
        num_items: Number of items :math:`I`.
        edge_dropout: Share of the training interactions that :meth:`training_graph` prunes, popular
            ones first (:func:`gtc_pyg.functional.degree_sensitive_sample`).
    """

    num_item_layers = 0
    user_emb: Embedding
    item_emb: Embedding
    item_bias: Embedding | None
    """Where there is one, it is the last column of the item embeddings."""
    start: str = "random"
    """What the ID embeddings start from; a run that goes on must have had the same."""
    arguments: dict[str, Any]
    """What the model was made with, by name: ``type(model)(**model.arguments)`` is another one."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(self, *args, **kwargs).arguments
        arguments = {name: value for name, value in bound.items() if value is not self}
        object.__setattr__(self, "arguments", plain_numbers(arguments))
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = takes_numbers(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, num_users: int, num_items: int, edge_dropout: float = 0.0) -> None:
        super().__init__()
        check_least(1, num_users=num_users, num_items=num_items)
        if not 0 <= edge_dropout < 1:
            raise ValueError(f"'edge_dropout' must lie in [0, 1) (got {edge_dropout})")
        self.num_users = num_users
        self.num_items = num_items
        self.edge_dropout = edge_dropout
        self.item_bias = None
        self.low_pass: LowPass | None = None
        self.bpr = BPRLoss()

    def current_arguments(self) -> dict[str, Any]:
        r"""What makes the model as it is: ``arguments``, and plain ones as the attributes are now.

        Of classes that keep their arguments as attributes of the same names, as all here do.
        """
        out, plain = dict(self.arguments), (bool, int, float, str)
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value, now = out.get(name, parameter.default), getattr(self, name, None)
            if isinstance(value, plain) and isinstance(now, plain) and now != value:
                out[name] = now
        return out

    def forward(
        self,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""Embeds every user and item; the score of a pair is the inner product.

        Args:
            features: Content of each modality, ``[num_items, F_m]``.
            edge_index_dict: ``('user', 'rates', 'item')``, ``('item', 'rev_rates', 'user')`` and,
                where the model uses it, ``('item', 'similar', 'item')``: as ``edge_index``,
                ``EdgeIndex``, transposed CSR or transposed ``SparseTensor``.
            edge_weight_dict: Weights of the edge types given as ``edge_index``, ones where there
                are none: those of :class:`~gtc_pyg.transforms.ItemKNNGraph` belong here.

        Returns:
            User embeddings ``[num_users, K]`` and item embeddings ``[num_items, K]``.
        """
        raise NotImplementedError

    def loss(
        self,
        user: Tensor,
        pos_item: Tensor,
        neg_item: Tensor,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        r"""The parts of the loss by name, weighted: training minimises their sum.

        Args:
            user: ``[B]``.
            pos_item: ``[B]``, an item of each user.
            neg_item: ``[B]``, an item that is none of the user's.
            features: As in :meth:`forward`.
            edge_index_dict: As in :meth:`forward`; see :meth:`training_graph`.
            edge_weight_dict: As in :meth:`forward`.
            generator: Draws all that is random.
        """
        raise NotImplementedError

    @torch.no_grad()
    def user_embedder(
        self,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
    ) -> UserEmbedder:
        r"""What embeds users who came after training, see
        :class:`~gtc_pyg.models.UserEmbedder`.

        Args:
            features: As in :meth:`forward`.
            edge_index_dict: As in :meth:`forward`: what the model was trained on.
            edge_weight_dict: As in :meth:`forward`.

        Raises:
            NotImplementedError: Of a model that does not say how it makes a user of items
                (``_user_side``).
        """
        graph = self._whole_graph(edge_index_dict, edge_weight_dict)
        return UserEmbedder(self._user_side(features, graph), graph)

    def _user_side(self, features: Features, graph: CSRGraph) -> UserSide:
        """How users are made of the items that ``graph`` gives them."""
        raise NotImplementedError(f"{type(self).__name__} cannot embed users who were not trained")

    @property
    def modalities(self) -> tuple[str, ...]:
        r"""The content that it reads."""
        return ()

    @torch.no_grad()
    def item_embedder(
        self,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
    ) -> ItemEmbedder:
        r"""What embeds items that nobody has touched, see
        :class:`~gtc_pyg.models.ItemEmbedder`.

        Args:
            features: As in :meth:`forward`.
            edge_index_dict: As in :meth:`forward`: what the model was trained on.
            edge_weight_dict: As in :meth:`forward`.

        Raises:
            ValueError: Of a model that reads no content, or a sampled graph.
        """
        if not self.modalities:
            raise ValueError(
                f"{type(self).__name__} reads no content, so it cannot embed items without "
                f"interactions: train a GTC or a FREEDOM"
            )
        graph = self._whole_graph(edge_index_dict, edge_weight_dict)
        return ItemEmbedder(features, self.modalities, self._item_side(features, graph), graph)

    def _item_side(self, features: Features, graph: CSRGraph) -> ItemSide:
        return ItemSide(self(features, graph)[1])

    def _whole_graph(
        self, edge_index_dict: EdgeIndexDict, edge_weight_dict: EdgeWeightDict | None
    ) -> CSRGraph:
        graph = self.csr_graph(edge_index_dict, edge_weight_dict)
        if graph.nodes is not None:
            raise ValueError("'edge_index_dict' must be the whole graph (got a sampled one)")
        return graph

    @takes_numbers
    @torch.no_grad()
    def start_from(self, edge_index: Tensor, length: float = 0.8) -> None:
        r"""Lets ID embeddings start from the interactions, instead of at random.

        They take the directions of :func:`~gtc_pyg.functional.spectral_factors`. Rows without
        interactions, and columns beyond the number of factors, stay as they are.

        Args:
            edge_index: Training interactions ``[2, E]``, users and items.
            length: Of the embeddings. In GTC their directions alone count, so the longer they are
                the slower they turn.
        """
        if not 0 < length < float("inf"):
            raise ValueError(f"'length' must be positive and finite (got {length})")
        self.start = f"spectral, length {length:g}"
        channels = self.user_emb.embedding_dim
        tables = spectral_factors(edge_index, self.num_users, self.num_items, channels)
        for embedding, factors in zip((self.user_emb, self.item_emb), tables, strict=True):
            start = length * normalize_rows(factors)
            known = start.norm(dim=1, keepdim=True) > 0
            weight = embedding.weight[:, : factors.size(1)]
            weight.copy_(torch.where(known, start.to(weight), weight))

    def fit_low_pass(
        self,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
    ) -> None:
        r"""Finds what a :class:`~gtc_pyg.models.LowPass` adds, in a model that has one.

        Args:
            edge_index_dict: As in :meth:`forward`: the whole graph of training.
            edge_weight_dict: As in :meth:`forward`.

        Raises:
            ValueError: For a sampled graph.
        """
        if self.low_pass is not None:
            graph = self._whole_graph(edge_index_dict, edge_weight_dict)
            self.low_pass.fit(graph, self.num_item_layers)

    def csr_graph(
        self,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
        nodes: SampledNodes | None = None,
    ) -> CSRGraph:
        r"""The edge types that a recommender reads, as transposed CSR; CSR passes through.

        Args:
            edge_index_dict: As in :meth:`forward`.
            edge_weight_dict: As in :meth:`forward`.
            nodes: Of a sub-graph, whose edges and content are by position in these.

        Raises:
            ValueError: As :func:`~gtc_pyg.models.make_graph.make_graph` says.
        """
        if isinstance(edge_index_dict, CSRGraph):
            return edge_index_dict
        sizes = self.num_users, self.num_items
        if nodes is not None:
            sizes = nodes.user_id.numel(), nodes.item_id.numel()
        return make_graph(edge_index_dict, edge_weight_dict, *sizes, self.num_item_layers, nodes)

    def subgraph(self, batch: HeteroData) -> CSRGraph:
        r"""The sampled graph of a batch of :class:`~gtc_pyg.loader.SubgraphLoader`."""
        user, item = batch["user"], batch["item"]
        nodes = SampledNodes(user.n_id, item.n_id, user.degree, item.degree)
        edges = {key: batch[key].edge_index for key in batch.edge_types}
        weights = {
            key: batch[key].edge_weight for key in batch.edge_types if "edge_weight" in batch[key]
        }
        return self.csr_graph(edges, weights, nodes)

    def training_graph(
        self,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
        generator: torch.Generator | None = None,
    ) -> CSRGraph:
        r"""The graph of one epoch: CSR once, so that steps need not sort, and pruned.

        It has a ``history``, see :class:`~gtc_pyg.models.csr_graph.CSRGraph`: make another one each
        epoch, and after weights were drawn or loaded anew.
        """
        if self.low_pass is not None:
            self.low_pass.check()  # now, and not after an epoch
        graph = self.csr_graph(edge_index_dict, edge_weight_dict)
        if self.edge_dropout > 0:
            graph = pruned(graph, self.edge_dropout, generator)
        graph = copy.copy(graph)  # with what derives from it
        graph.history = WeakKeyDictionary()
        return graph

    def _rank_loss(
        self, user_emb: Tensor, item_emb: Tensor, user: Tensor, pos: Tensor, neg: Tensor
    ) -> Tensor:
        u = user_emb.index_select(0, user)
        pos_emb, neg_emb = item_emb.index_select(0, torch.cat([pos, neg])).chunk(2)
        return self.bpr((u * pos_emb).sum(-1), (u * neg_emb).sum(-1))
