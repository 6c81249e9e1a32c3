"""What the search of settings draws from, by model: arguments of the model, or of training.

``ranking``, heads, averaging and start are drawn from the same lists for every model. A name with a
point is one of a part; the spectral head's ``share`` is its strength as a share of the scale.
"""

from typing import Any

from gtc_pyg.experiment.config import merged
from harness.settings import nested

LONGER: dict[str, list[Any]] = {"epochs": [200], "patience": [10, 20, 40]}  # baselines are cheap
SHARED: dict[str, list[Any]] = {
    "lr": [0.0005, 0.001, 0.002, 0.005, 0.01],
    "ranking": [
        {"class": "BPR"},
        {"class": "SampledSoftmax", "num_negatives": 256},
        {"class": "SampledSoftmax", "num_negatives": 1024},
    ],
    "ranking.scale": [1.0, 1.5, 2.0, 3.0, 5.0, 8.0],
    "item_bias": [True, False],
    "spectral_head": [True, False],
    "spectral_head.channels": [64, 128, 256],
    "spectral_head.share": [0.25, 0.5, 1.0],
    "weight_averaging": [0.0, 0.98, 0.99, 0.995],
    "spectral_start": [True, False],
}
SPACES: dict[str, dict[str, list[Any]]] = {
    "lightgcn": LONGER
    | SHARED
    | {"num_layers": [1, 2, 3, 4], "regularization": [0.0, 1e-5, 1e-4, 1e-3]},
    "freedom": LONGER
    | SHARED
    | {
        "num_layers": [1, 2, 3],
        "num_item_layers": [1, 2],
        "edge_dropout": [0.0, 0.5, 0.8],
        "modality_weight": [0.0001, 0.001, 0.01, 0.1],
    },
    "mgcn": LONGER | SHARED | {"num_layers": [1, 2, 3], "contrast_weight": [0.001, 0.01, 0.1]},
    "gtc": SHARED
    | {
        "edge_dropout": [0.0, 0.5],
        "content_filter.strength": [0.05, 0.1, 0.3],
        "num_item_layers": [1, 2],
        "num_layers": [2, 3],
        "loss_weights.total_correlation": [0.003, 0.01, 0.03, 0.1],
        "loss_weights.diffusion": [0.03, 0.1],
    },
}


def in_parts(drawn: dict[str, Any]) -> dict[str, Any]:
    """What was drawn, as changes of settings."""
    drawn = dict(drawn)
    names = ("item_bias", "spectral_head", "spectral_head.channels", "spectral_head.share")
    bias, spectral, channels, share = (drawn.pop(name) for name in names)
    strength = round(share * drawn["ranking.scale"], 10)
    head = {"class": "SpectralHead", "channels": channels, "strength": strength}
    out: dict[str, Any] = {"heads": [head] * spectral + [{"class": "ItemBias"}] * bias}
    for name in sorted(drawn):  # a part before its arguments
        out = merged(out, nested(name, drawn[name]))
    return out
