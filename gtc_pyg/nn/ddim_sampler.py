from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Module

from gtc_pyg.functional import takes_numbers
from gtc_pyg.nn.conditional_denoiser import ConditionalDenoiser
from gtc_pyg.nn.noise_schedule import NoiseSchedule

PREDICTIONS = ("noise", "velocity")


class AffineStep(NamedTuple):
    r"""A last step as :math:`\hat x = \text{base} + V (g \odot h)`, for any gate :math:`g`."""

    base: Tensor
    """``[N, D]``."""
    h: Tensor
    """The denoiser's features ``[N, H]``."""
    to_content: Tensor
    """:math:`V`, ``[D, H]``."""


class DDIMSampler(Module):
    r"""Deterministic steps of a diffusion back to clean content, with one denoiser.

    From `"Denoising Diffusion Implicit Models" <https://arxiv.org/abs/2010.02502>`_:

    .. math::
        \hat x = \frac{x_t - \sqrt{1 - \bar\alpha_t}\, \hat\epsilon}{\sqrt{\bar\alpha_t}},
        \qquad
        x_{t'} = \sqrt{\bar\alpha_{t'}}\, \hat x + \sqrt{1 - \bar\alpha_{t'}} \, \hat\epsilon

    The content filter of :class:`~gtc_pyg.models.GTC` and
    :meth:`~gtc_pyg.nn.ModalityEncoder.fill` both take their steps here.

    Args:
        schedule: The noise levels.
        start_step: Time :math:`t_0` of the first step.
        num_sampling_steps: Number of steps from :math:`t_0` to 0, evenly spaced; 0 for none.
        prediction: What the denoiser predicts: the ``'noise'`` :math:`\epsilon` or the
            ``'velocity'`` :math:`v = \sqrt{\bar\alpha_t}\, \epsilon - \sqrt{1 - \bar\alpha_t}\,
            x` (`Salimans and Ho <https://arxiv.org/abs/2202.00512>`_), which tells the content at
            pure noise, too: :math:`\hat x = \sqrt{\bar\alpha_t}\, x_t -
            \sqrt{1 - \bar\alpha_t}\, v`.
        clip: Whether :math:`\hat x` is shortened to the length :math:`\sqrt D` of encoded rows
            where it is longer.

    Shapes:
        - **input:** noisy content :math:`(N, D)`, conditions :math:`(N, C)`, gates :math:`(N, H)`
        - **output:** content :math:`(N, D)`

    Example:
        >>> import torch
        >>> from gtc_pyg.nn import ConditionalDenoiser, NoiseSchedule
        >>> sampler = DDIMSampler(NoiseSchedule(100), start_step=40, num_sampling_steps=2)
        >>> sampler.times
        [40, 20, 0]
        >>> denoiser = ConditionalDenoiser(channels=8, cond_channels=4)
        >>> sampler(denoiser, sampler.start(torch.randn(3, 8)), torch.randn(3, 4)).shape
        torch.Size([3, 8])

    Raises:
        ValueError: Where the steps do not fit the schedule.
    """

    @takes_numbers
    def __init__(
        self,
        schedule: NoiseSchedule,
        start_step: int,
        num_sampling_steps: int = 1,
        prediction: str = "noise",
        clip: bool = False,
    ) -> None:
        super().__init__()
        if not (0 <= num_sampling_steps <= start_step <= schedule.num_steps and start_step >= 1):
            raise ValueError(
                f"expected 0 <= 'num_sampling_steps' <= 'start_step' <= 'num_steps', the last two "
                f"at least 1 (got {num_sampling_steps}, {start_step}, {schedule.num_steps})"
            )
        if prediction not in PREDICTIONS:
            raise ValueError(f"'prediction' must be one of {PREDICTIONS} (got {prediction!r})")
        self.schedule = schedule
        self.start_step = start_step
        self.num_sampling_steps = num_sampling_steps
        self.prediction = prediction
        self.clip = clip
        times = torch.linspace(start_step, 0, num_sampling_steps + 1, device="cpu").round()
        self.times = [int(t) for t in times]

    def start(self, x: Tensor) -> Tensor:
        r"""Where the steps begin without a draw of noise, :math:`\sqrt{\bar\alpha_{t_0}} x`."""
        return self.schedule.levels(self.start_step, x)[0] * x

    def forward(
        self,
        denoiser: ConditionalDenoiser,
        x_t: Tensor,
        cond: Tensor,
        gate: Tensor | None = None,
    ) -> Tensor:
        r"""All steps, from :math:`t_0` to 0."""
        return self._steps(denoiser, x_t, cond, gate, self.times)

    def before_last(
        self,
        denoiser: ConditionalDenoiser,
        x_t: Tensor,
        cond: Tensor,
        gate: Tensor | None = None,
    ) -> Tensor:
        r"""All steps but the last, where :meth:`last` begins."""
        return self._steps(denoiser, x_t, cond, gate, self.times[:-1])

    def last(self, denoiser: ConditionalDenoiser, x_t: Tensor, cond: Tensor) -> AffineStep:
        r"""The last step, before a gate is applied.

        Raises:
            ValueError: Without steps, for another prediction than of the noise, or with ``clip``.
        """
        if self.num_sampling_steps == 0:
            raise ValueError("an affine step needs 'num_sampling_steps' of 1 or more (got 0)")
        if self.prediction != "noise" or self.clip:
            raise ValueError("an affine step needs prediction='noise' and clip=False")
        t = self.times[-2]
        signal, sigma = self.schedule.levels(t, x_t)
        weight, bias = denoiser.noise_map()
        return AffineStep(
            base=torch.addcdiv(-sigma / signal * bias, x_t, signal),
            h=denoiser.hidden(x_t, t, cond),
            to_content=-sigma / signal * weight,
        )

    def _steps(
        self,
        denoiser: ConditionalDenoiser,
        x_t: Tensor,
        cond: Tensor,
        gate: Tensor | None,
        times: Sequence[int],
    ) -> Tensor:
        for t, t_next in pairwise(times):
            out = denoiser.noise(denoiser.hidden(x_t, t, cond), gate)
            if self.prediction == "noise" and not self.clip:
                x_t = self.schedule.step(x_t, t, t_next, out)
                continue
            signal, sigma = self.schedule.levels(t, x_t)
            if self.prediction == "noise":
                x = self.schedule.predict_start(x_t, t, out)
            else:
                x = signal * x_t - sigma * out
            if self.clip:
                length = x.norm(dim=1, keepdim=True).clamp(min=1e-12)
                x = x * (x.size(1) ** 0.5 / length).clamp(max=1)
            x_t = self.schedule.add_noise(x, t_next, (x_t - signal * x) / sigma)
        return x_t

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.times}, prediction={self.prediction!r})"
