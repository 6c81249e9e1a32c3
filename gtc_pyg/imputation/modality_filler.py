from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module
from tqdm import tqdm

from gtc_pyg.functional import check_least, principal_axes, takes_numbers
from gtc_pyg.imputation.fill_conditions import FillConditions, content_to_fill
from gtc_pyg.nn import ConditionalDenoiser, ModalityEncoder, NoiseSchedule


class FillHistory(NamedTuple):
    r"""How well held-out present rows were generated while a filler was trained."""

    epochs: list[int]
    """Epochs at which it was measured."""
    cosine: list[float]
    """Mean cosine of generated and true encoded content of the held-out rows."""
    best_epoch: int
    """The epoch of the largest cosine; the final training on all present rows ends there."""


class ModalityFiller(Module):
    r"""Generates the content of a modality that some items lack (ours).

    To be used before any recommender is trained: it turns content with gaps into complete content
    of the same width, from which any model learns and any item graph is built. Only the
    interactions that are given are looked at: give it those of training.

    **Encoding.** With :math:`\mu` the mean, :math:`V` the first :math:`D - 1` principal axes
    (or all, if fewer) of the present rows and :math:`Q` a basis of the vectors of sum zero,
    :math:`x_i = \mathrm{norm}(Q V^\top (f_i - \mu))`: a
    :class:`~gtc_pyg.nn.ModalityEncoder` with fixed weights. It loses only a row's distance from
    the mean and the smaller axes, and is undone by :math:`f = \mu + s\, V Q^\top x / |x|` with
    :math:`s` the present rows' mean distance.

    **Condition.** A :class:`~gtc_pyg.nn.ConditionalDenoiser` (``'item'``) sees of an item two ridge
    regressions of :math:`x`, each with the penalty of the lowest leave-one-out error: from
    the interactions (the item's row of a spectral embedding of them) and from the item's *other*
    modalities. Raw inputs in their place, and the users' mean content, overfitted.

    No row ever sees itself: the present rows are split in folds, and the condition of a fold is
    made of the other folds, as that of an absent row is made of all present ones.

    **Training.** Mean squared error of the velocity (:meth:`~gtc_pyg.nn.ModalityEncoder.fill`),
    with a cosine schedule. The noise as a target has next to no gradient where
    noise is largest, which is where generation begins. Some present rows are held out to
    choose the number of epochs; a second training of that length uses all of them.

    Args:
        modality: Name of the modality that is generated.
        in_channels: Its width :math:`F`.
        channels: Width :math:`D` of the encoding.
        hidden_channels: Width of the denoiser.
        spectral_channels: Width of the spectral embedding.
        num_steps: Steps of the schedule.

    Example:
        >>> import torch
        >>> from gtc_pyg.imputation import ModalityFiller
        >>> has = torch.tensor([True, True, True, True, False, True])
        >>> features = {"text": torch.randn(6, 5), "has_text": has, "audio": torch.randn(6, 3)}
        >>> edge_index = torch.tensor([[0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 3, 4, 5, 0]])
        >>> filler = ModalityFiller("text", 5, channels=4, spectral_channels=2)
        >>> filled = filler.fit(features, edge_index, 3, epochs=5)(features, edge_index, 3)
        >>> list(filled), bool((filled["text"][has] == features["text"][has]).all())
        (['text', 'audio'], True)
    """

    mean: Tensor
    distance: Tensor

    @takes_numbers
    def __init__(
        self,
        modality: str,
        in_channels: int,
        channels: int = 64,
        hidden_channels: int = 256,
        spectral_channels: int = 64,
        num_steps: int = 1000,
    ) -> None:
        super().__init__()
        check_least(1, in_channels=in_channels, spectral_channels=spectral_channels)
        check_least(2, channels=channels)
        self.modality = modality
        self.channels = channels
        self.spectral_channels = spectral_channels
        self.encoder = ModalityEncoder(in_channels, channels).requires_grad_(False)
        self.schedule = NoiseSchedule(num_steps, "cosine")
        self.denoiser = ConditionalDenoiser(
            channels, 2 * channels, hidden_channels, condition="item"
        )
        self.register_buffer("mean", torch.zeros(in_channels))
        self.register_buffer("distance", torch.zeros(()))  # zero until fitted
        self.history: FillHistory | None = None

    def reset_parameters(self) -> None:
        r"""Draws the denoiser's weights anew; the encoding is set by :meth:`fit`."""
        self.denoiser.reset_parameters()

    @takes_numbers
    def fit(
        self,
        features: Mapping[str, Tensor],
        edge_index: Tensor,
        num_users: int,
        *,
        epochs: int = 200,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 256,
        num_folds: int = 10,
        holdout: float = 0.15,
        eval_every: int = 10,
        seed: int = 0,
        progress: bool = False,
    ) -> ModalityFiller:
        r"""Sets the encoding and trains the denoiser on the items that have the modality.

        Args:
            features: Content ``[I, F_m]`` of each modality, and ``has_<modality>`` ``[I]`` (bool)
                of those that some items lack, among them :attr:`modality`.
            edge_index: Training interactions ``[2, E]``, users in row 0.
            num_users: Number of users.
            epochs: Largest number of epochs.
            lr: Learning rate of AdamW.
            weight_decay: Weight decay of AdamW.
            batch_size: Rows per step.
            num_folds: Folds of the present rows.
            holdout: Share of the present rows that chooses the number of epochs.
            eval_every: Epochs between measurements on them.
            seed: Seeds all that is random.
            progress: Whether to show a progress bar.

        Raises:
            ValueError: Where the content does not fit, or fewer than four items have the modality.
            FloatingPointError: Where a weight is not finite after an epoch.
        """
        x, mask = content_to_fill(features, self.modality, self.mean)
        check_least(1, epochs=epochs)
        check_least(2, num_folds=num_folds)
        if not 0 < holdout < 1:
            raise ValueError(f"'holdout' must lie in (0, 1) (got {holdout})")
        if int(mask.sum()) < 4:
            raise ValueError(
                f"'features' must have {self.modality!r} for at least 4 items "
                f"(got {int(mask.sum())})"
            )
        self._set_encoding(x[mask])
        generator = torch.Generator().manual_seed(seed)
        present = mask.nonzero().view(-1)
        present = present[torch.randperm(present.numel(), generator=generator)]
        held = present[: max(1, round(holdout * present.numel()))]
        known = mask.clone()
        known[held] = False
        fold = torch.randint(num_folds, (x.size(0),), generator=generator).to(x.device)
        given = self._conditions(features, edge_index, num_users)
        cond_held = given.outside(known)[held]
        measured: dict[int, float] = {}
        for rows in (known, mask):  # first to choose the number of epochs, then with all rows
            cond = given.by_folds(rows, fold)
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                self.reset_parameters()
            optimizer = torch.optim.AdamW(
                self.denoiser.parameters(), lr=lr, weight_decay=weight_decay
            )
            last = max(measured, key=lambda epoch: measured[epoch], default=epochs)
            for epoch in tqdm(range(1, last + 1), f"filling {self.modality}", disable=not progress):
                self._train_epoch(given.x, rows, cond, optimizer, batch_size, generator)
                if not all(bool(p.isfinite().all()) for p in self.denoiser.parameters()):
                    raise FloatingPointError(
                        f"epoch {epoch}: the denoiser's weights are not finite; a lower 'lr' (got "
                        f"{lr}), or content that is scaled down, may help"
                    )
                if rows is known and (epoch % eval_every == 0 or epoch == last):
                    out = self._sample(cond_held, 8, 20, torch.Generator().manual_seed(seed))
                    measured[epoch] = float(F.cosine_similarity(out, given.x[held]).mean())
        self.history = FillHistory(list(measured), list(measured.values()), last)
        return self

    def loss(self, x: Tensor, cond: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r"""Mean squared error of the velocity, at one time and one noise for each row.

        Args:
            x: Encoded content ``[N, D]``.
            cond: Its conditions ``[N, C]``.
            generator: Draws times and noise.
        """
        t = self.schedule.sample_times(x.size(0), generator)
        noise = self.schedule.sample_noise(x, generator)
        x_t = self.schedule.add_noise(x, t, noise)
        velocity = self.denoiser.noise(self.denoiser.hidden(x_t, t, cond))
        return F.mse_loss(velocity, self.schedule.velocity(x, t, noise))

    @torch.no_grad()
    def forward(
        self,
        features: Mapping[str, Tensor],
        edge_index: Tensor,
        num_users: int,
        num_samples: int = 32,
        num_sampling_steps: int = 20,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        r"""Content without gaps in :attr:`modality`; present rows stay as they are.

        Args:
            features: As in :meth:`fit`.
            edge_index: The same interactions as in :meth:`fit`.
            num_users: As in :meth:`fit`.
            num_samples: Draws that are averaged; 1 gives a draw from the conditional
                distribution.
            num_sampling_steps: Steps from pure noise to the content.
            generator: Draws the noise.

        Returns:
            ``features`` with generated rows in :attr:`modality` and without its ``has_``.
        """
        if not bool(self.distance > 0):
            raise ValueError("call fit(...) first: this filler has not been trained")
        _, mask = content_to_fill(features, self.modality, self.mean)
        cond = self._conditions(features, edge_index, num_users).outside(mask)[~mask]
        encoded = self._sample(cond, num_samples, num_sampling_steps, generator)
        out = features[self.modality].clone()
        out[~mask] = self.decode(encoded).to(out.dtype)
        rest = {key: x for key, x in features.items() if key != f"has_{self.modality}"}
        return rest | {self.modality: out}

    def decode(self, x: Tensor) -> Tensor:
        r"""Raw content ``[N, F]`` of encoded content ``[N, D]``, at the mean distance."""
        return self.mean + self.distance * F.normalize(x @ self.encoder.lin.weight, dim=1)

    def _set_encoding(self, x: Tensor) -> None:
        axes = principal_axes(x, self.channels - 1)
        ones = torch.ones(self.channels, 1)
        basis = torch.linalg.qr(torch.cat([ones, torch.eye(self.channels)], dim=1)).Q[:, 1:]
        distance = (x - x.mean(0)).norm(dim=1).mean()
        if not bool(distance > 0):
            raise ValueError(
                f"'features' holds the same {self.modality!r} for all items that have it: there "
                f"is nothing to generate"
            )
        # Rows of about unit variance: the normalisation that follows has an epsilon.
        weight = self.channels**0.5 / distance * basis[:, : axes.size(0)].to(axes) @ axes
        self.encoder.lin.weight.copy_(weight)
        self.encoder.lin.bias.copy_(-weight @ x.mean(0))
        self.mean.copy_(x.mean(0))
        self.distance.copy_(distance)

    def _conditions(
        self, features: Mapping[str, Tensor], edge_index: Tensor, num_users: int
    ) -> FillConditions:
        sizes = num_users, self.channels, self.spectral_channels
        given = features, self.modality, self.encoder, self.mean
        return FillConditions.of(*given, edge_index, *sizes)

    def _train_epoch(
        self,
        encoded: Tensor,
        rows: Tensor,
        cond: Tensor,
        optimizer: torch.optim.Optimizer,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        ids = rows.nonzero().view(-1)
        for batch in ids[torch.randperm(ids.numel(), generator=generator)].split(batch_size):
            loss = self.loss(encoded[batch], cond[batch], generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _sample(
        self, cond: Tensor, num_samples: int, num_steps: int, generator: torch.Generator | None
    ) -> Tensor:
        """Encoded content for conditions."""
        absent = cond.new_zeros(cond.size(0), dtype=torch.bool)
        return self.encoder.fill(
            cond.new_zeros(cond.size(0), self.mean.numel()),
            absent,
            self.denoiser,
            self.schedule,
            (cond[:0], cond),
            cond.new_empty(2, 0, dtype=torch.long),
            num_steps=num_steps,
            num_samples=num_samples,
            prediction="velocity",
            generator=generator,
        )
