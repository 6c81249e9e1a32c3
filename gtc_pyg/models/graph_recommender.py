from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Embedding, Module
from torch_geometric.data import HeteroData

from gtc_pyg.functional import (
    check_least,
    normalize_rows,
    select_columns,
    spectral_factors,
    takes_numbers,
)
from gtc_pyg.graph import (
    CSRGraph,
    EdgeIndexDict,
    EdgeWeightDict,
    Features,
    SampledNodes,
    make_graph,
    pruned,
)
from gtc_pyg.graph.row_history import RowHistory
from gtc_pyg.inductive import ItemEmbedder, UserEmbedder
from gtc_pyg.inductive.item_embedder import ItemAdapter
from gtc_pyg.inductive.user_embedder import UserAdapter
from gtc_pyg.models.components import Components
from gtc_pyg.models.heads import Head, Heads, ItemBias
from gtc_pyg.nn import BPR, RankingLoss


class GraphRecommender(Module):
    r"""What every recommender here has in common.

    :meth:`forward` turns content and graph into one embedding per user and item, ranked by inner
    product; :meth:`loss` gives the named parts that training adds up. A model of its own kind
    writes :meth:`embed` and :meth:`loss`; heads, the start of the embeddings and what is asked
    after training are here. Neither of the two writes an attribute of the model; what a loss keeps
    from step to step within an epoch is in the history of :meth:`training_graph`.

    Args:
        num_users: Number of users :math:`U`.
        num_items: Number of items :math:`I`.
        hidden_channels: Width :math:`D` of the ID embeddings.
        ranking: The ranking loss: :class:`~gtc_pyg.nn.BPR` (where ``None``) or
            :class:`~gtc_pyg.nn.SampledSoftmax`.
        heads: Columns beside the embeddings: :class:`~gtc_pyg.models.SpectralHead`,
            :class:`~gtc_pyg.models.ItemBias`.
        edge_dropout: Share of the training interactions that :meth:`training_graph` prunes, edges
            between popular nodes first (:func:`gtc_pyg.functional.degree_sensitive_sample`).
    """

    num_item_layers = 0
    """Layers of the model on the item graph."""
    loss_is_mean = False
    """Whether the loss is a mean over the rows of a batch, so that shares of it may be added."""
    trainable = True
    """Whether there are weights to train."""
    init_method = "random"
    """What the ID embeddings start from; a run that goes on must have had the same."""
    prepared: Tensor

    @takes_numbers
    def __init__(
        self,
        num_users: int,
        num_items: int,
        hidden_channels: int = 64,
        ranking: RankingLoss | None = None,
        heads: Sequence[Head] = (),
        edge_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_least(1, num_users=num_users, num_items=num_items)
        if not 0 <= edge_dropout < 1:
            raise ValueError(f"'edge_dropout' must lie in [0, 1) (got {edge_dropout})")
        if not isinstance(ranking, RankingLoss | None):
            name = getattr(ranking, "__name__", type(ranking).__name__)
            raise ValueError(f"'ranking' must be a RankingLoss, such as BPR() (got {name})")
        self.num_users = num_users
        self.num_items = num_items
        self.hidden_channels = hidden_channels
        self.edge_dropout = edge_dropout
        self.user_emb = Embedding(num_users, hidden_channels)
        self.item_emb = Embedding(num_items, hidden_channels)
        self.heads = Heads(heads, num_users, num_items)
        self.ranking = BPR() if ranking is None else ranking
        self.register_buffer("prepared", torch.tensor(False))

    def reset_parameters(self) -> None:
        r"""Draws all weights anew; :meth:`prepare` is due again."""
        self.init_method = GraphRecommender.init_method
        self.prepared.fill_(False)
        for head in self.heads:
            head.reset_parameters()

    @property
    def in_channels(self) -> Mapping[str, int]:
        r"""Width of each modality's content that it reads."""
        return {}

    @property
    def modalities(self) -> tuple[str, ...]:
        r"""The content that it reads."""
        return tuple(self.in_channels)

    @property
    def item_bias(self) -> Embedding | None:
        r"""The bias of :class:`~gtc_pyg.models.ItemBias`, the last column of the items' embeddings;
        ``None`` without that head."""
        biases = [head.bias for head in self.heads if isinstance(head, ItemBias)]
        return biases[0] if biases else None

    def tables(self) -> Iterator[tuple[str, str, Embedding]]:
        r"""Embeddings with a row for each user or item: name, ``'user'`` or ``'item'``, table."""
        yield "user_emb", "user", self.user_emb
        yield "item_emb", "item", self.item_emb
        if self.item_bias is not None:
            yield "item_bias", "item", self.item_bias

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
        graph = self.csr_graph(edge_index_dict, edge_weight_dict)
        return self.with_heads(*self.embed(features, graph), graph)

    def embed(self, features: Features, graph: CSRGraph) -> tuple[Tensor, Tensor]:
        r"""The model's own embeddings ``[U, D]`` and ``[I, D]``, without heads.

        Args:
            features: As in :meth:`forward`.
            graph: What :meth:`csr_graph` gives.
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

    def with_heads(
        self,
        user_emb: Tensor,
        item_emb: Tensor,
        graph: CSRGraph,
        in_loss: bool = False,
        user: Tensor | None = None,
        item: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""Embeddings scaled as the ranking loss says, with the columns of the heads.

        Args:
            user_emb: Users by the model itself ``[N, D]``.
            item_emb: Items by the model itself ``[I, D]``.
            graph: The graph that they are of.
            in_loss: Whether for the loss, which sees some of the heads.
            user: Who the users are, ascending ``[N]``; all users of the graph where ``None``.
            item: Which items they are, ascending; all items of the graph where ``None``.
        """
        scale, heads = self.ranking.scale, self.heads.in_loss if in_loss else self.heads
        users = [user_emb if scale == 1 else scale * user_emb]
        users += [head.users(graph, user) for head in heads]
        beside = [head.items(graph, self.num_item_layers) for head in heads]
        if not beside:
            return users[0], item_emb
        items = [item_emb, *(x if item is None else x.index_select(0, item) for x in beside)]
        return torch.cat(users, dim=-1), torch.cat(items, dim=-1)

    def rank_loss(
        self,
        user_emb: Tensor,
        item_emb: Tensor,
        row: Tensor,
        pos_item: Tensor,
        neg_item: Tensor,
        graph: CSRGraph,
        user: Tensor | None = None,
        item: Tensor | None = None,
    ) -> Tensor:
        r"""The ranking loss of the model's own embeddings and the heads that losses see.

        Args:
            user_emb: Users by the model itself ``[N, D]``.
            item_emb: Items by the model itself ``[I, D]``.
            row: A row of ``user_emb`` for each pair ``[B]``.
            pos_item: A row of ``item_emb`` for each pair ``[B]``.
            neg_item: Likewise ``[B]``.
            graph: The graph that they are of.
            user: Who the users are, ascending ``[N]``; all users of the graph where ``None``.
            item: Which items they are, ascending ``[M]``; all items of the graph where ``None``.
        """
        shared = self.ranking.num_negatives > 1
        if shared and user is None:  # scores of the batch's users alone
            user, row = row.unique(return_inverse=True)
            user_emb = user_emb.index_select(0, user)
        user_emb, item_emb = self.with_heads(user_emb, item_emb, graph, True, user, item)
        known = graph.items_of(user)[0] if shared else None
        if known is not None and item is not None:
            known = select_columns(known, item)
        return self.ranking(user_emb, item_emb, row, pos_item, neg_item, known)

    @torch.no_grad()
    def prepare(
        self,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
        spectral_start: bool = True,
    ) -> None:
        r"""Finds in closed form what training starts from; the second call does nothing.

        ID embeddings start from the interactions (:meth:`start_from`) and heads are fitted.
        :func:`gtc_pyg.lightning.fit` calls it; a loop of your own does so before its first step.

        Args:
            edge_index_dict: As in :meth:`forward`: the whole graph of training.
            edge_weight_dict: As in :meth:`forward`.
            spectral_start: Whether ID embeddings start from the interactions, unless
                :meth:`start_from` was called before. For rows that you set yourself ``False``.

        Raises:
            ValueError: For a sampled graph.
        """
        if bool(self.prepared):
            return
        graph = self._whole_graph(edge_index_dict, edge_weight_dict)
        if spectral_start and self.init_method == GraphRecommender.init_method:
            self.start_from(graph.interactions)
        self.heads.fit(graph, self.num_item_layers)
        self.prepared.fill_(True)

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
        self.init_method = f"spectral, length {length:g}"
        tables = spectral_factors(edge_index, self.num_users, self.num_items, self.hidden_channels)
        for embedding, factors in zip((self.user_emb, self.item_emb), tables, strict=True):
            start = length * normalize_rows(factors)
            known = start.norm(dim=1, keepdim=True) > 0
            weight = embedding.weight[:, : factors.size(1)]
            weight.copy_(torch.where(known, start.to(weight), weight))

    def components(self, features: Features, graph: CSRGraph) -> Components:
        r"""What scores are sums of, for explanations; the heads aside.

        Args:
            features: As in :meth:`forward`.
            graph: The whole graph of training.

        Raises:
            TypeError: Of a model that does not say.
        """
        raise TypeError(
            f"{type(self).__name__} does not say what its scores are sums of, so they cannot be "
            f"explained"
        )

    @torch.no_grad()
    def user_embedder(
        self,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
    ) -> UserEmbedder:
        r"""What embeds users who came after training, see
        :class:`~gtc_pyg.inductive.UserEmbedder`.

        Args:
            features: As in :meth:`forward`.
            edge_index_dict: As in :meth:`forward`: what the model was trained on.
            edge_weight_dict: As in :meth:`forward`.

        Raises:
            NotImplementedError: Of a model that has no :meth:`user_adapter`.
        """
        graph = self._whole_graph(edge_index_dict, edge_weight_dict)
        adapter = self.user_adapter(features, graph)
        return UserEmbedder(adapter, graph, self.heads, self.transform_user)

    def transform_user(self, user_emb: Tensor) -> Tensor:
        r"""Rows of :attr:`user_emb` to what is propagated, both ``[N, D]``; the same here."""
        return user_emb

    def user_adapter(self, features: Features, graph: CSRGraph) -> UserAdapter:
        r"""How users are made of the items that a graph gives them."""
        raise NotImplementedError(f"{type(self).__name__} cannot embed users who were not trained")

    @torch.no_grad()
    def item_embedder(
        self,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
    ) -> ItemEmbedder:
        r"""What embeds items that nobody has touched, see
        :class:`~gtc_pyg.inductive.ItemEmbedder`.

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
                f"interactions: train a model with 'in_channels'"
            )
        graph = self._whole_graph(edge_index_dict, edge_weight_dict)
        adapter = self.item_adapter(features, graph)
        return ItemEmbedder(
            features, self.modalities, adapter, graph, self.heads, self.num_item_layers
        )

    def item_adapter(self, features: Features, graph: CSRGraph) -> ItemAdapter:
        r"""What items are, as far as new ones can be predicted from content."""
        return ItemAdapter(self.embed(features, graph)[1])

    def _whole_graph(
        self, edge_index_dict: EdgeIndexDict, edge_weight_dict: EdgeWeightDict | None
    ) -> CSRGraph:
        graph = self.csr_graph(edge_index_dict, edge_weight_dict)
        if graph.nodes is not None:
            raise ValueError("'edge_index_dict' must be the whole graph (got a sampled one)")
        for parameter in self.parameters():
            if parameter.dtype in (torch.half, torch.bfloat16):
                raise ValueError(
                    f"what is solved in closed form needs weights of torch.float32 or "
                    f"torch.float64 (got {parameter.dtype}): call model.float() first"
                )
        return graph

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
            ValueError: As :func:`~gtc_pyg.graph.make_graph` says.
        """
        if isinstance(edge_index_dict, CSRGraph):
            return edge_index_dict
        sizes = self.num_users, self.num_items
        if nodes is not None:
            sizes = nodes.user_id.numel(), nodes.item_id.numel()
        hops = max(self.num_item_layers, self.heads.num_hops(self.num_item_layers))
        return make_graph(edge_index_dict, edge_weight_dict, *sizes, hops, nodes)

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

        It has a history, see :class:`~gtc_pyg.graph.row_history.RowHistory`: make another one each
        epoch, and after weights were drawn or loaded anew.
        """
        self.heads.check()  # now, and not after an epoch
        graph = self.csr_graph(edge_index_dict, edge_weight_dict)
        if self.edge_dropout > 0:
            graph = pruned(graph, self.edge_dropout, generator)
        graph = copy.copy(graph)  # with what derives from it
        graph.history = RowHistory()
        return graph
