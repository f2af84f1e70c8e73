"""A small training: what shows that a network can learn at all."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellseg.models.dataset import Sample


def samples() -> list[Sample]:
    """Two images of bright discs."""
    made = []
    for seed in range(2):
        random = np.random.default_rng(seed)
        labels = np.zeros((90, 70), np.int32)
        y, x = np.indices(labels.shape)
        for label in range(1, 9):
            centre = random.uniform(8, 62, 2)
            mask = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= 36
            labels[mask & (labels == 0)] = label
        image = (labels > 0) + 0.1 * random.standard_normal(labels.shape)
        made.append(Sample(f"image{seed}", image[None].astype(np.float32), labels[None]))
    return made


def overfit(
    network: nn.Module,
    image: NDArray[np.float32],
    truth: dict[str, Tensor],
    *,
    steps: int,
    rate: float,
) -> None:
    """Train a network on one image (H, W), twice a batch, the rate falling in the second half."""
    optimiser = torch.optim.AdamW(network.parameters(), rate)
    batch = torch.from_numpy(image)[None, None].repeat(2, 1, 1, 1)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1, 2 * (steps - step) / steps)
        losses = network(batch, [truth, truth])
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
