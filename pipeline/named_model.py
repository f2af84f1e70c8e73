"""A model of a workflow, by its settings, so that it can be sent to workers and loaded there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from cellseg.models import MODELS, Instances, Segmenter, load_model
from cellseg.models.loading import quick
from cellseg.models.scale import Zooms
from cellseg.models.settings import DetectorSettings, ModelSettings
from cellseg.models.timing import noted
from cellseg.pipeline import worker
from cellseg.pipeline.config import Config, keep_freed_memory


@dataclass(frozen=True)
class NamedModel:
    """A model of the workflow, loaded where and when it is first used, once in a process.

    Parameters
    ----------
    settings : ModelSettings
    config : Config
        As `cellseg.pipeline.inference.settled` returns it.
    """

    settings: ModelSettings
    config: Config

    def loaded(self) -> Segmenter:
        """Return the model itself, at magnification 1."""
        with _LOADING:  # by the first of several threads
            model = _loaded(self)
        if MODELS[self.settings.name].neural:
            self._share_cores()
        return model

    def _share_cores(self) -> None:
        """Have torch compute in this thread with its share of the cores."""
        import torch

        threads = self.config.torch_threads(worker.tiles())
        # Asked, it takes up in this thread what was set in another one.
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)

    def at_zoom(self, zoom: float) -> Segmenter:
        """Return the model itself at a magnification; one without a diameter knows only 1."""
        model = self.loaded()
        return model.at_zoom(zoom) if isinstance(model, Zooms) else model

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        """Return the objects of each plane; see `cellseg.models.Segmenter`."""
        return self.loaded().segment(planes)


_LOADING = Lock()


@lru_cache(maxsize=1)
@noted("load model")
def _loaded(model: NamedModel) -> Segmenter:
    settings = model.settings
    if isinstance(settings, DetectorSettings):
        # Each scene has its own magnification, and all share the network.
        settings = settings.model_copy(update={"diameter_px": None, "diameter_um": None})
    if not MODELS[settings.name].neural:
        return load_model(settings)
    with quick():
        import torch

    keep_freed_memory()
    device = model.config.on_worker().torch_device(worker.number())
    if device != "cpu":
        worker.of_device(f"{device} {torch.cuda.get_device_name(device)}")
    return load_model(settings, device, model.config.precision, model.config.inference)
