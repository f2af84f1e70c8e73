"""A segmenter that is exact inside its window: the grey levels of its images are the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellseg.models import Instances


class Exact:
    """Returns each grey level above 0 as one instance; run it with `normalise.method = "none"`."""

    key = "exact"

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        return [Instances.from_labels(plane[0].astype(np.int32)) for plane in planes]
