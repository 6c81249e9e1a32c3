"""What the ablations change of GTC's settings: arguments of the model, or of training."""

from inspect import signature
from typing import Any

from gtc_pyg.models import GTC

DEFAULTS = {name: p.default for name, p in signature(GTC).parameters.items()}
PLAIN_ITEMS = {"num_sampling_steps": 0, "diffusion_weight": 0.0, "filter_weight": 0.0}
WHOLE, LEFT_OUT = "GTC", "without "
VARIANTS: dict[str, dict[str, Any]] = {
    WHOLE: {},
    "no diffusion": PLAIN_ITEMS,
    "diffusion, its loss left out": {"diffusion_weight": 0.0},
    "condition 'item'": {"condition": "item"},
    "condition 'neighbors'": {"condition": "neighbors"},
    "no ranking loss of the filter": {"filter_weight": 0.0},
    "no total correlation": {"total_correlation_weight": 0.0},
    "pairwise InfoNCE in its place": {"alignment": "pairwise"},
    "neither": {**PLAIN_ITEMS, "total_correlation_weight": 0.0},
    "no similarity gate": {"similarity_gate": False},
    "users are told no content": {"content_strength": 0.0},
    "no item graph": {"num_item_layers": 0},
    "no low-pass filter": {"low_pass_strength": 0.0},
    "start at random": {"spectral_start": False},
    "weights not averaged": {"weight_averaging": 0.0},
    "BPR": {"num_negatives": 1},
}
# Nothing of the example's setting but its modalities.
PUBLISHED: dict[str, Any] = {"lr": 1e-4, "epochs": 1000, "patience": 20, "model": GTC.PUBLISHED}
VARIANTS["as published"] = PUBLISHED
SWEEP: dict[str, list[float]] = {
    "num_steps": [200, 1000],
    "start_step": [20, 50, 200, 400],
    "diffusion_weight": [0.01, 0.03, 0.3, 1.0],
    "total_correlation_weight": [0.001, 0.003, 0.03, 0.1, 0.3],
    "lr": [0.0005, 0.001, 0.002, 0.004, 0.008],
}
