from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from gtc_pyg.functional import check_least, takes_numbers


class NoiseSchedule(Module):
    r"""Times and noise levels of a diffusion process; buffers and no network.

    Time runs from 0 (clean, :math:`\bar\alpha_0 = 1`) to ``num_steps``.

    - ``'linear'``: :math:`\beta` rises evenly from ``beta_start`` to ``beta_end``. The published
      setting of GTC (600 steps, 1e-4 to 1e-2) ends at :math:`\bar\alpha = 0.05`, so pure noise is
      not its end point.
    - ``'cosine'``: :math:`\bar\alpha_t \propto \cos^2(\frac{t / T + s}{1 + s} \frac{\pi}{2})`,
      `s = 0.008 <https://arxiv.org/abs/2102.09672>`_. It ends at :math:`\bar\alpha < 10^{-8}`
      (600 steps), where a small error of the noise is a huge one of the content: start sampling a
      few steps before the end.

    The levels are kept in double precision: ``.to()`` moves them and casts nothing, since
    :math:`1 - \bar\alpha` of the first steps is lost in half precision. (MPS has no doubles: there
    they are floats.) What comes out has the type of the content.

    A time outside the schedule is an error. On a device other than the CPU, and within
    :func:`torch.compile`, reading the times would wait for the device, so there the look-up's own
    assertion stops the program instead.

    Args:
        num_steps: :math:`T`.
        kind: ``'linear'`` or ``'cosine'``.
        beta_start: First :math:`\beta` (linear).
        beta_end: Last :math:`\beta` (linear).

    Shapes:
        - **input:** content and noise :math:`(N, *)`; times :math:`(N)`, one time, or an ``int``
        - **output:** as the content

    Example:
        >>> import torch
        >>> schedule, x = NoiseSchedule(kind="cosine"), torch.randn(3, 16)
        >>> t, noise = schedule.sample_times(3), schedule.sample_noise(x)
        >>> x_t = schedule.add_noise(x, t, noise)
        >>> torch.allclose(schedule.predict_start(x_t, 0 * t, noise), x_t)
        True

    Raises:
        ValueError: For settings that leave no signal at the end, times that do not fit, and noise
            of another shape.
    """

    alpha_bar: Tensor

    @takes_numbers
    def __init__(
        self,
        num_steps: int = 600,
        kind: str = "linear",
        beta_start: float = 1e-4,
        beta_end: float = 1e-2,
    ) -> None:
        super().__init__()
        check_least(1, num_steps=num_steps)
        if kind not in ("linear", "cosine"):
            raise ValueError(f"'kind' must be 'linear' or 'cosine' (got {kind!r})")
        if kind == "linear" and not 0 < beta_start <= beta_end < 1:
            raise ValueError(
                f"'beta_start' and 'beta_end' must rise within (0, 1) "
                f"(got {beta_start}, {beta_end})"
            )
        self.num_steps = num_steps
        self.kind = kind
        self.beta_start = beta_start
        self.beta_end = beta_end
        self.register_buffer("alpha_bar", torch.empty(num_steps + 1, dtype=torch.double))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Computes the levels anew from the settings; there are no weights to draw."""
        if self.kind == "linear":
            beta = torch.linspace(
                self.beta_start, self.beta_end, self.num_steps, dtype=torch.double, device="cpu"
            )
        else:
            t = torch.linspace(0, 1, self.num_steps + 1, dtype=torch.double, device="cpu")
            level = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
            beta = (1 - level[1:] / level[:-1]).clamp(max=0.999)
        level = torch.cat([beta.new_ones(1), (1 - beta).cumprod(0)])
        if level[-1].sqrt() < torch.finfo(torch.float).tiny:
            raise ValueError(
                f"'num_steps' and 'beta_end' leave no signal at the end (got {self.num_steps}, "
                f"{self.beta_end}: alpha_bar = {level[-1].item():.1e})"
            )
        with torch.no_grad():
            self.alpha_bar.copy_(level)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        level = self._buffers.pop("alpha_bar")
        super()._apply(fn, recurse)
        assert level is not None
        device = fn(torch.empty(0, device=level.device)).device
        dtype = torch.float if device.type == "mps" else torch.double
        moved = torch.empty_like if level.is_meta else torch.Tensor.to
        self._buffers["alpha_bar"] = moved(level, device=device, dtype=dtype)
        return self

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

        Returns:
            Two scalars, or two tensors ``[N, 1, ...]``, in the type of ``x``.
        """
        if not x.is_floating_point():
            raise ValueError(f"'x' must be floating point (got {x.dtype}); use x.float()")
        if not isinstance(t, Tensor):
            self._check_range(t, t)
            level = self.alpha_bar[t]
        else:
            if t.is_floating_point() or t.dtype == torch.bool:
                raise ValueError(f"'t' must hold whole numbers (got {t.dtype})")
            if t.numel() not in (1, len(x) if x.dim() else 1):
                raise ValueError(f"'t' must be one time or {len(x)} (got {t.numel()})")
            if t.device.type == "cpu" and not torch.compiler.is_compiling() and t.numel() > 0:
                low, high = t.aminmax()
                self._check_range(int(low), int(high))
            # Unlike an index, gather takes no negative positions on any device.
            level = self.alpha_bar.gather(0, t.reshape(-1).to(self.alpha_bar.device, torch.long))
            level = level.view(-1, *[1] * (x.dim() - 1)) if t.dim() > 0 else level.view(())
        return level.sqrt().to(x.dtype), (1 - level).sqrt().to(x.dtype)

    def _check_range(self, low: int, high: int) -> None:
        if not 0 <= low <= high <= self.num_steps:
            bad = high if low >= 0 else low
            raise ValueError(f"'t' must lie in [0, {self.num_steps}] (got {bad})")

    def add_noise(self, x: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        r""":math:`x_t = \sqrt{\bar\alpha_t} x + \sqrt{1 - \bar\alpha_t} \epsilon`."""
        _check_shape(noise, x)
        signal, sigma = self.levels(t, x)
        return signal * x + sigma * noise

    def predict_start(self, x_t: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        r""":math:`(x_t - \sqrt{1 - \bar\alpha_t} \hat\epsilon) / \sqrt{\bar\alpha_t}`."""
        _check_shape(noise, x_t)
        signal, sigma = self.levels(t, x_t)
        return (x_t - sigma * noise) / signal

    def velocity(self, x: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        r"""What a network may predict in place of the noise (`Salimans and Ho
        <https://arxiv.org/abs/2202.00512>`_).

        .. math:: v = \sqrt{\bar\alpha_t} \epsilon - \sqrt{1 - \bar\alpha_t} x
        """
        _check_shape(noise, x)
        signal, sigma = self.levels(t, x)
        return signal * noise - sigma * x

    def step(self, x_t: Tensor, t: Tensor | int, t_next: Tensor | int, noise: Tensor) -> Tensor:
        r"""A deterministic step (`DDIM <https://arxiv.org/abs/2010.02502>`_) between two times."""
        return self.add_noise(self.predict_start(x_t, t, noise), t_next, noise)

    def __repr__(self) -> str:
        betas = f", beta_start={self.beta_start}, beta_end={self.beta_end}"
        return (
            f"{self.__class__.__name__}(num_steps={self.num_steps}, kind={self.kind!r}"
            f"{betas if self.kind == 'linear' else ''})"
        )


def _check_shape(noise: Tensor, x: Tensor) -> None:
    if not isinstance(noise, Tensor) or noise.shape != x.shape:
        got = list(noise.shape) if isinstance(noise, Tensor) else type(noise).__name__
        raise ValueError(f"'noise' must be {list(x.shape)}, as what it is in (got {got})")
