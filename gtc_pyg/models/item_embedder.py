from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gtc_pyg.functional import normalize_rows
from gtc_pyg.models.csr_graph import Features


class ItemEmbedder:
    r"""Embeds items that nobody has touched, from their content (ours).

    Args:
        features: Content of the known items, ``[I, F_m]`` of each modality, and ``has_<modality>``.
        names: The modalities to use.
        target: Embeddings of the known items ``[I, K]``.
        known: The items whose embeddings are learned from ``[I]`` (bool): those with interactions.
    """

    def __init__(
        self, features: Features, names: Sequence[str], target: Tensor, known: Tensor
    ) -> None:
        if int(known.sum()) < 2:
            raise ValueError("'edge_index_dict' must hold interactions with at least two items")
        self.means = {}
        for name in names:
            present = known & _present(features, name, known.numel())
            x = features[name][present]
            self.means[name] = x.mean(0) if len(x) else features[name].new_zeros(x.size(1))
        self.widths = {name: features[name].size(1) for name in names}
        z, y = self._predictors(features)[known].double(), target[known].double()
        self.z_mean, self.y_mean = z.mean(0), y.mean(0)
        u, s, vh = torch.linalg.svd(z - self.z_mean, full_matrices=False)
        coefficients = u.t() @ (y - self.y_mean)
        best, lowest = torch.zeros_like(s), float("inf")
        for power in torch.arange(-2, 3, 0.25).tolist():
            kept = s.pow(2) / (s.pow(2) + 10.0**power)
            leverage = (u.pow(2) @ kept + 1 / len(u)).clamp(max=1 - 1e-4).view(-1, 1)
            error = y - self.y_mean - u @ (kept.view(-1, 1) * coefficients)
            loss = float((error / (1 - leverage)).norm())
            if loss < lowest:
                best, lowest = kept / s.clamp(min=1e-12), loss
        self.weight = vh.t() @ (best.view(-1, 1) * coefficients)
        self.dtype = target.dtype

    def _predictors(self, features: Features) -> Tensor:
        parts = []
        for name, mean in self.means.items():
            if name not in features:
                raise ValueError(f"'features' lacks {name!r} (it has {list(features)})")
            x = features[name]
            if x.dim() != 2 or x.size(1) != self.widths[name]:
                raise ValueError(
                    f"'features' at {name!r} must be [n, {self.widths[name]}] (got {list(x.shape)})"
                )
            present = _present(features, name, x.size(0)).view(-1, 1)
            parts.append(normalize_rows(torch.where(present, x - mean, 0.0)))
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def __call__(self, features: Features) -> Tensor:
        r"""Embeddings of new items.

        Args:
            features: Content of the new items, ``[n, F_m]`` of each modality, and
                ``has_<modality>`` where some lack it.

        Returns:
            ``[n, K]``, comparable with the items of the model's ``forward``.
        """
        z = self._predictors(features).double()
        return (self.y_mean + (z - self.z_mean) @ self.weight).to(self.dtype)


def _present(features: Features, name: str, num: int) -> Tensor:
    mask = features.get(f"has_{name}")
    if mask is None:
        return torch.ones(num, dtype=torch.bool, device=features[name].device)
    return mask
