"""What the search of settings draws from, by model: arguments of the model, or of training."""

from typing import Any

AVERAGING = [0.0, 0.98, 0.99, 0.995]
LONGER: dict[str, list[Any]] = {"epochs": [200], "patience": [10, 20, 40]}  # baselines are cheap
SHARED: dict[str, list[Any]] = {"weight_averaging": AVERAGING, "spectral_start": [True, False]}
SPACES: dict[str, dict[str, list[Any]]] = {
    "lightgcn": LONGER
    | {
        "lr": [0.0005, 0.001, 0.002, 0.005, 0.01],
        "num_layers": [1, 2, 3, 4],
        "regularization": [0.0, 1e-5, 1e-4, 1e-3],
    }
    | SHARED,
    "freedom": LONGER
    | {
        "lr": [0.0005, 0.001, 0.002, 0.005],
        "num_layers": [1, 2, 3],
        "num_item_layers": [1, 2],
        "edge_dropout": [0.0, 0.5, 0.8],
        "modality_weight": [0.0001, 0.001, 0.01, 0.1],
    }
    | SHARED,
    "mgcn": LONGER
    | {
        "lr": [0.0005, 0.001, 0.002, 0.005],
        "num_layers": [1, 2, 3],
        "contrast_weight": [0.001, 0.01, 0.1],
    }
    | SHARED,
    "gtc": {
        "lr": [0.0005, 0.001, 0.002, 0.005],
        "score_scale": [1.0, 1.5, 2.0, 3.0, 5.0, 8.0],
        "edge_dropout": [0.0, 0.5],
        "content_strength": [0.05, 0.1, 0.3],
        "num_item_layers": [1, 2],
        "num_layers": [2, 3],
        "total_correlation_weight": [0.003, 0.01, 0.03, 0.1],
        "diffusion_weight": [0.03, 0.1],
        "num_negatives": [1, 256, 1024],
        "item_bias": [True, False],
        "low_pass_strength": [0.25, 0.5, 1.0],
        "low_pass_channels": [64, 128, 256],
        "weight_averaging": AVERAGING[1:],
        "spectral_start": [True, False],
    },
}
