r"""Dense item content from a published item-item graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from gtc_pyg.functional import check_edges, check_least, check_weights, takes_numbers


@takes_numbers
def spectral_embedding(
    edge_index: Tensor,
    edge_weight: Tensor | None,
    num_nodes: int,
    dim: int,
    seed: int = 0,
) -> Tensor:
    r"""Embeds the nodes of a weighted graph by its leading eigenvectors.

    The weights are symmetrised, :math:`A = (W + W^\top) / 2`, and normalised,
    :math:`L = D^{-1/2} A D^{-1/2}`. With :math:`L v_k = \lambda_k v_k` and
    :math:`\lambda_1 \geq \lambda_2 \geq \dots`, column :math:`k` of the result is

    .. math::
        \sqrt{N \max(\lambda_k, 0)} \; v_k

    so that its mean square is the eigenvalue: the columns have the size of ordinary features,
    whatever the number of nodes. The sign of :math:`v_k` is the one that makes its largest entry
    (in absolute value) positive. The solver starts from a vector drawn from :obj:`seed`, so equal
    input gives equal output.

    Args:
        edge_index (Tensor): The edges ``[2, num_edges]``, of any integer type.
        edge_weight (Tensor, optional): Their weights ``[num_edges]``; :obj:`None` is all ones.
            Negative weights (cosines of unlike items) count as zero.
        num_nodes (int): The number of nodes :math:`N`.
        dim (int): The number of eigenvectors, at least 1 and less than :obj:`num_nodes`.
        seed (int): Seed of the start vector. (default: :obj:`0`)

    Returns:
        Tensor: ``[num_nodes, dim]``, float32. Rows of nodes without edges are zero.

    Raises:
        ImportError: If SciPy is missing.
        ValueError: If :obj:`dim` or an id is out of range, or a weight is missing or not finite.
    """
    if not 1 <= dim < num_nodes:
        raise ValueError(
            f"'dim' must lie in [1, {num_nodes - 1}], less than the number of nodes (got {dim})"
        )
    try:
        from scipy.sparse import coo_matrix, diags_array
        from scipy.sparse.linalg import eigsh
    except ImportError as error:
        raise ImportError('spectral_embedding needs SciPy: pip install "gtc-pyg[data]"') from error

    edge_index = check_edges(edge_index, num_nodes, num_nodes, kinds=("node", "node"))
    row, col = edge_index.cpu().numpy()
    if edge_weight is None:
        weight = np.ones(row.size)
    else:
        check_weights(edge_weight, row.size)
        weight = edge_weight.detach().view(-1).double().cpu().numpy().clip(min=0.0)
    matrix = coo_matrix((weight, (row, col)), shape=(num_nodes, num_nodes)).tocsr()
    matrix = (matrix + matrix.T) / 2.0
    degree = np.asarray(matrix.sum(axis=1)).ravel()
    inv_sqrt = np.divide(1.0, np.sqrt(degree), out=np.zeros(num_nodes), where=degree > 0)
    scale = diags_array(inv_sqrt)
    start = np.random.default_rng(seed).standard_normal(num_nodes)
    values, vectors = eigsh(scale @ matrix @ scale, k=dim, which="LA", v0=start)

    order = np.argsort(-values, kind="stable")
    values, vectors = values[order], vectors[:, order]
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.where(vectors[largest, np.arange(dim)] < 0, -1.0, 1.0)
    out = vectors * np.sqrt(num_nodes * values.clip(min=0.0))
    out[degree == 0] = 0.0
    return torch.from_numpy(out.astype(np.float32))


class SpectralFeatures(BaseTransform):
    r"""Turns ``('item', 'similar_<modality>', 'item')`` into ``data['item'].x_<modality>``.

    For sets that publish who resembles whom but not the content itself. Results obtained with such
    features are `graph-derived`: say so beside figures that used the dense ones.

    Args:
        modality (str): The modality whose graph is embedded.
        dim (int): The width of the features. (default: :obj:`64`)
        seed (int): Seed of the solver's start vector. (default: :obj:`0`)

    Raises:
        ValueError: If :obj:`dim` is less than 1, or not less than the number of items, or the data
            has no graph of :obj:`modality`.
    """

    @takes_numbers
    def __init__(self, modality: str, dim: int = 64, seed: int = 0) -> None:
        check_least(1, dim=dim)
        self.modality = modality
        self.dim = dim
        self.seed = seed

    def forward(self, data: HeteroData) -> HeteroData:
        edge_type = ("item", f"similar_{self.modality}", "item")
        if edge_type not in data.edge_types:
            raise ValueError(
                f"modality {self.modality!r} has no graph {edge_type} in the data, "
                f"which has {data.edge_types}"
            )
        store = data[edge_type]
        data["item"][f"x_{self.modality}"] = spectral_embedding(
            store.get("edge_index"),
            store.get("edge_weight"),
            data["item"].num_nodes,
            self.dim,
            self.seed,
        ).to(store.edge_index.device)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.modality!r}, dim={self.dim}, seed={self.seed})"
