from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Module


class NoiseSchedule(Module):
    r"""Times and noise levels of a diffusion process; buffers and no network.

    Time runs from 0 (clean, :math:`\bar\alpha_0 = 1`) to ``num_steps``.

    - ``'linear'``: :math:`\beta` rises evenly from ``beta_start`` to ``beta_end``. The published
      setting of GTC (600 steps, 1e-4 to 1e-2) ends at :math:`\bar\alpha = 0.05`, so pure noise is
      not its end point.
    - ``'cosine'``: :math:`\bar\alpha_t \propto \cos^2(\frac{t / T + s}{1 + s} \frac{\pi}{2})`,
      `s = 0.008 <https://arxiv.org/abs/2102.09672>`_.

    Args:
        num_steps: :math:`T`.
        kind: ``'linear'`` or ``'cosine'``.
        beta_start: First :math:`\beta` (linear).
        beta_end: Last :math:`\beta` (linear).
    """

    alpha_bar: Tensor

    def __init__(
        self,
        num_steps: int = 600,
        kind: str = "linear",
        beta_start: float = 1e-4,
        beta_end: float = 1e-2,
    ) -> None:
        super().__init__()
        if num_steps < 1:
            raise ValueError(f"'num_steps' must be at least 1 (got {num_steps})")
        if kind == "linear":
            if not 0 < beta_start <= beta_end < 1:
                raise ValueError(
                    f"'beta_start' and 'beta_end' must rise within (0, 1) "
                    f"(got {beta_start}, {beta_end})"
                )
            beta = torch.linspace(beta_start, beta_end, num_steps, dtype=torch.double)
        elif kind == "cosine":
            t = torch.linspace(0, 1, num_steps + 1, dtype=torch.double)
            level = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
            beta = (1 - level[1:] / level[:-1]).clamp(max=0.999)
        else:
            raise ValueError(f"'kind' must be 'linear' or 'cosine' (got {kind!r})")
        self.num_steps = num_steps
        self.kind = kind
        alpha_bar = torch.cat([torch.ones(1, dtype=torch.double), (1 - beta).cumprod(0)])
        self.register_buffer("alpha_bar", alpha_bar.to(torch.get_default_dtype()))

    def sample_times(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        r"""Draws ``size`` times evenly from 1 to ``num_steps``, ``[size]``."""
        device = self.alpha_bar.device if generator is None else generator.device
        t = torch.randint(1, self.num_steps + 1, (size,), generator=generator, device=device)
        return t.to(self.alpha_bar.device)

    def sample_noise(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r"""Draws standard normal noise in the shape of ``x``."""
        device = x.device if generator is None else generator.device
        noise = torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype)
        return noise.to(x.device)

    def levels(self, t: Tensor | int, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Signal :math:`\sqrt{\bar\alpha_t}` and noise :math:`\sqrt{1 - \bar\alpha_t}`.

        Args:
            t: One time, or a time per row ``[N]``.
            x: The tensor that they will multiply, ``[N, ...]``.
        """
        if not isinstance(t, Tensor):
            if not 0 <= t <= self.num_steps:
                raise ValueError(f"'t' must lie in [0, {self.num_steps}] (got {t})")
            level = self.alpha_bar[t]
        else:
            level = self.alpha_bar[t]
            if t.dim() > 0:
                level = level.view(-1, *[1] * (x.dim() - 1))
        return level.sqrt().to(x.dtype), (1 - level).sqrt().to(x.dtype)

    def add_noise(self, x: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        r""":math:`x_t = \sqrt{\bar\alpha_t} x + \sqrt{1 - \bar\alpha_t} \epsilon`."""
        signal, sigma = self.levels(t, x)
        return signal * x + sigma * noise

    def predict_start(self, x_t: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        r""":math:`(x_t - \sqrt{1 - \bar\alpha_t} \hat\epsilon) / \sqrt{\bar\alpha_t}`."""
        signal, sigma = self.levels(t, x_t)
        return (x_t - sigma * noise) / signal

    def step(self, x_t: Tensor, t: Tensor | int, t_next: Tensor | int, noise: Tensor) -> Tensor:
        r"""A deterministic step (`DDIM <https://arxiv.org/abs/2010.02502>`_) between two times."""
        return self.add_noise(self.predict_start(x_t, t, noise), t_next, noise)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(num_steps={self.num_steps}, kind={self.kind!r})"
