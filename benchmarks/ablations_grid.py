"""What the ablations change of GTC's settings: arguments of the model, its parts, or training."""

from collections.abc import Callable, Mapping
from typing import Any

from gtc_pyg.experiment.config import merged
from gtc_pyg.models import GTC
from harness.settings import PLACES, nested

Changes = Mapping[str, Any]
PLAIN_ITEMS = {
    "content_filter": {"num_sampling_steps": 0},
    "loss_weights": {"diffusion": 0.0, "filter": 0.0},
}
NO_TOTAL_CORRELATION = {"loss_weights": {"total_correlation": 0.0}}
# Nothing of the example's setting but its modalities.
PUBLISHED: dict[str, Any] = {"lr": 1e-4, "epochs": 1000, "batch_size": 2048, "model": GTC.PUBLISHED}
PUBLISHED |= {"spectral_start": False, "weight_averaging": 0.0}
WHOLE, LEFT_OUT = "GTC", "without "


def bpr(model: Changes) -> Changes:
    """BPR of the same scale."""
    return {"ranking": {"class": "BPR", "scale": model["ranking"]["scale"]}}


def no_low_pass_filter(model: Changes) -> Changes:
    """The other heads."""
    return {"heads": [head for head in model["heads"] if head["class"] != "SpectralHead"]}


VARIANTS: dict[str, Changes | Callable[[Changes], Changes]] = {
    WHOLE: {},
    "no diffusion": PLAIN_ITEMS,
    "diffusion, its loss left out": {"loss_weights": {"diffusion": 0.0}},
    "condition 'item'": {"content_filter": {"condition": "item"}},
    "condition 'neighbors'": {"content_filter": {"condition": "neighbors"}},
    "no ranking loss of the filter": {"loss_weights": {"filter": 0.0}},
    "no total correlation": NO_TOTAL_CORRELATION,
    "pairwise InfoNCE in its place": {"alignment": {"class": "PairwiseInfoNCE"}},
    "neither": merged(PLAIN_ITEMS, NO_TOTAL_CORRELATION),
    "no similarity gate": {"fusion": {"class": "UniformGate"}},
    "users are told no content": {"content_filter": {"strength": 0.0}},
    "no item graph": {"num_item_layers": 0},
    "no low-pass filter": no_low_pass_filter,
    "start at random": {"spectral_start": False},
    "weights not averaged": {"weight_averaging": 0.0},
    "BPR": bpr,
    "as published": PUBLISHED,
}
SWEEP: dict[str, list[float]] = {
    "num_steps": [200, 1000],
    "start_step": [20, 50, 200, 400],
    "diffusion_weight": [0.01, 0.03, 0.3, 1.0],
    "total_correlation_weight": [0.001, 0.003, 0.03, 0.1, 0.3],
    "lr": [0.0005, 0.001, 0.002, 0.004, 0.008],
}
SWEPT = {
    f"{name}={x:g}": nested(PLACES.get(name, name), x) for name, xs in SWEEP.items() for x in xs
}
