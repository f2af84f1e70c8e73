"""Training: one optimiser step at a time, the same for every detector, resumable to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader

from cellseg.models import MODELS
from cellseg.models.dataset import Crops, Sample
from cellseg.models.detector import Detector
from cellseg.models.distil import load_teacher
from cellseg.models.errors import CellsegError
from cellseg.models.network_settings import Network
from cellseg.models.networks import build, stride_of
from cellseg.models.settings import TrainSettings
from cellseg.models.weights import find_weights, load_tensors, read_card

LARGEST_GRADIENT = 5.0


class Trainer:
    """A detector in training.

    The loop is the caller's: call `step` until `done`, and `segmenter`,
    `save` or `resume` between steps.

    Parameters
    ----------
    settings : TrainSettings
    samples : sequence of Sample
        The training images; their order must not change before a resume.
    device, precision : str
        See `cellseg.models.load_model`.
    loaders : int
        Processes that cut and augment crops ahead, so that a GPU need not wait; 0 for none.

    Attributes
    ----------
    count : int
        Steps done.
    calibration, score
        What the scores of the weights mean that it started from; see `Card`.
    """

    def __init__(
        self,
        settings: TrainSettings,
        samples: Sequence[Sample],
        device: str = "cpu",
        precision: str = "float32",
        loaders: int = 0,
    ) -> None:
        self.settings = settings
        self.samples = samples
        self.loaders = loaders
        self._batches: Iterator[tuple[Tensor, list[dict[str, Tensor]]]] | None = None
        self.device = device
        self.precision = precision
        self.count = 0
        torch.manual_seed(settings.seed)
        self.network = build(settings.network).to(device)
        self.network.to(memory_format=torch.channels_last)
        self.calibration, self.score = (1.0, 0.0), 0.5
        if settings.start is not None:
            self._start_from(find_weights(settings.start))
        self.teacher = None
        if settings.teacher is not None:
            self.teacher = load_teacher(settings.teacher, self.network, device)
        self.average = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.optimiser = AdamW(self._groups(), lr=settings.rate, weight_decay=settings.weight_decay)
        total = settings.steps + 1
        self.schedule = OneCycleLR(
            self.optimiser, settings.rate, total_steps=total, pct_start=max(0.1, 2 / total)
        )

    def _start_from(self, path: Path) -> None:
        """Take over the weights of a network of the same shape, and what their scores mean."""
        card = read_card(path)
        if card.network != self.settings.network:
            differ = [
                name
                for name, value in card.network
                if value != getattr(self.settings.network, name)
            ]
            raise CellsegError(
                f"{path}: its network differs from [network] in {', '.join(differ)}."
                " Give [network] as these weights have it, or leave `start` out."
            )
        self.network.load_state_dict(load_tensors(path))
        self.calibration, self.score = card.calibration, card.score

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.count >= self.settings.steps

    def _groups(self) -> list[dict[str, Any]]:
        """Return the parameters, biases and scales of normalisation without weight decay."""
        matrices = [p for p in self.network.parameters() if p.ndim > 1]
        vectors = [p for p in self.network.parameters() if p.ndim <= 1]
        return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]

    def step(self) -> dict[str, float]:
        """Take one optimiser step; return each loss by name.

        Raises
        ------
        CellsegError
            If the loss is no longer finite.
        """
        images, targets = self._next_batch()
        # Sampling of anchors and regions follows from the step too, so a resume repeats it.
        torch.manual_seed(self.settings.seed * 1_000_003 + self.count)
        images = images.to(self.device, memory_format=torch.channels_last)
        targets = [{k: v.to(self.device) for k, v in one.items()} for one in targets]
        self.network.train()
        low = self.precision == "bfloat16"
        with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=low):
            losses: dict[str, Tensor] = self.network(images, targets)
            if self.teacher is not None:
                taught = self.teacher.losses(images)
                losses |= {key: self.settings.teaching * loss for key, loss in taught.items()}
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
        if not torch.isfinite(total):
            raise CellsegError(f"step {self.count}: the loss is {total.item()}. Lower `rate`.")
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.optimiser.step()
        self.schedule.step()
        self.count += 1
        self._update_average()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _next_batch(self) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Return the batch of this step; further ones are made ahead, where there are loaders."""
        if self._batches is None:
            ahead = range(self.count, self.settings.steps)
            crops = Crops(self.samples, self.settings)
            self._batches = iter(
                DataLoader(crops, batch_size=None, sampler=ahead, num_workers=self.loaders)
            )
        images, targets = next(self._batches)
        return images, targets

    @torch.no_grad()
    def _update_average(self) -> None:
        """Follow the weights slowly, faster at the start; counters are copied."""
        decay = min(self.settings.average, (1 + self.count) / (10 + self.count))
        for key, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    def segmenter(
        self, score: float = 0.5, calibration: tuple[float, float] = (1.0, 0.0)
    ) -> Detector:
        """Return the averaged network as a segmenter; training goes on unaffected."""
        return segmenter_of(
            self.settings.network,
            self.average,
            score=score,
            calibration=calibration,
            device=self.device,
            precision=self.precision,
        )

    def save(self, path: Path) -> None:
        """Write all that `resume` needs, under a temporary name first."""
        state = {
            "settings": self.settings.model_dump_json(),
            "count": self.count,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        partial = path.with_name(path.name + ".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        CellsegError
            If it belongs to a training with other settings.
        """
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["settings"] != self.settings.model_dump_json():
            raise CellsegError(
                f"{path}: a checkpoint of a training with other settings."
                " Give another `output`, or start anew with --fresh."
            )
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.count = state["count"]
        self._batches = None


def segmenter_of(settings: Network, weights: Mapping[str, Tensor], **how: Any) -> Detector:
    """Return a network with some weights as a segmenter.

    Parameters
    ----------
    settings : Network
    weights : mapping
        Its tensors by name.
    **how
        Keywords of `Detector`; what becomes of overlap and where a mask ends are as the
        model has it by default.
    """
    network = build(settings)
    network.load_state_dict(weights)
    model = MODELS[settings.architecture]
    threshold = model.settings.model_fields["mask_threshold"].default
    default = {"overlap": model.overlap, "mask_threshold": threshold}
    return Detector(network, stride_of(network), **(default | how))
