r"""Pure mathematics: contrasts, total correlation, sparse products. No state, no modules."""

from gtc_pyg.functional.adjacency import (
    check_adjacency,
    check_csr,
    check_edges,
    free_to_read,
)
from gtc_pyg.functional.checks import (
    check_ids,
    check_least,
    check_one_of,
    plain_numbers,
    takes_numbers,
    whole_number,
)
from gtc_pyg.functional.contrast import (
    contrast,
    draw_permutations,
    multilinear_inner_product,
    total_correlation,
)
from gtc_pyg.functional.linear import (
    LinearMap,
    LowPassFactors,
    low_pass_factors,
    principal_axes,
    ridge_map,
    ridge_predictions,
    spectral_factors,
    spectral_items,
)
from gtc_pyg.functional.ranking import sampled_softmax
from gtc_pyg.functional.rows import full_precision, normalize_rows, upcast
from gtc_pyg.functional.sparse import (
    check_weights,
    degree_sensitive_sample,
    layer_mean,
    select_columns,
    select_rows,
    spmm,
    spmm_learning,
    stack_interactions,
    to_csr,
)
from gtc_pyg.functional.topk import SCORE_BYTES, inner_product_topk

__all__ = [
    "multilinear_inner_product",
    "contrast",
    "total_correlation",
    "draw_permutations",
    "sampled_softmax",
    "full_precision",
    "normalize_rows",
    "upcast",
    "to_csr",
    "check_adjacency",
    "check_csr",
    "check_edges",
    "check_weights",
    "free_to_read",
    "check_ids",
    "check_least",
    "check_one_of",
    "plain_numbers",
    "takes_numbers",
    "whole_number",
    "stack_interactions",
    "spmm",
    "spmm_learning",
    "layer_mean",
    "select_rows",
    "select_columns",
    "degree_sensitive_sample",
    "principal_axes",
    "spectral_factors",
    "spectral_items",
    "low_pass_factors",
    "LowPassFactors",
    "ridge_map",
    "LinearMap",
    "ridge_predictions",
    "inner_product_topk",
    "SCORE_BYTES",
]
