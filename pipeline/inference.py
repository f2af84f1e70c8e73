"""What computes the network, and in which arithmetic: decided once, where a run is planned."""

from __future__ import annotations

from cellseg.models import MODELS, CellsegError
from cellseg.models.hardware import has_bfloat16, has_openvino
from cellseg.models.openvino_package import missing
from cellseg.models.settings import ModelSettings
from cellseg.pipeline.config import BATCH, Config


def settled(config: Config, model: ModelSettings) -> Config:
    """Return a configuration in which neither `inference` nor `precision` is ``auto``.

    All in bfloat16 is for those who ask. Of the validation images it finds the cells of float32
    to F1 = 0.9996, but of a slide unlike them, where more cells are near the least score, to
    0.995 to 0.998 only. No layer alone is to blame, and the mask head is not: ``mixed``
    finds the same cells.

    All workers get what this says, so that which cells there are does not depend on
    which of them looks at a tile.

    Raises
    ------
    CellsegError
        If what is asked for does not go together, or is not installed.
    """
    if not MODELS[model.name].neural:
        return config
    device = _device(config)
    precision = config.precision
    if precision == "auto":
        fast = device == "cpu" and MODELS[model.name].masks_apart and has_bfloat16(device)
        precision = "mixed" if fast else "float32"
    inference = config.inference
    if inference == "auto":
        fits = device == "cpu" and MODELS[model.name].openvino
        # In float32 it is no faster, and who installs it should not find other cells.
        better = fits and precision == "bfloat16" and has_openvino()
        inference = "openvino" if better else "torch"
    chosen = config.model_copy(update={"inference": inference, "precision": precision})
    _check(chosen, model, device)
    return chosen


def _device(config: Config) -> str | None:
    """Return the device that all workers have, None where that is not to be seen from here."""
    if config.engine == "local" or config.device == "cpu":
        return config.torch_device()
    if config.engine in BATCH and config.device == "auto" and not config.cluster.gpus:
        return "cpu"
    return None


def _check(config: Config, model: ModelSettings, device: str | None) -> None:
    """Refuse OpenVINO for what it does not compute, and where it is not."""
    if config.inference != "openvino":
        return
    able = [name for name, each in MODELS.items() if each.openvino]
    if model.name not in able:
        raise CellsegError(
            f'inference = "openvino" is for {" or ".join(able)}, not for {model.name}.'
            ' Set inference = "torch" or "auto".'
        )
    if device != "cpu":
        raise CellsegError(
            f'inference = "openvino" computes on CPUs, and device is {device or config.device}.'
            ' Set device = "cpu", or inference = "torch" or "auto".'
        )
    if not has_openvino():
        raise CellsegError(missing())
