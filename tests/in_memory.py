"""A source of pixels in memory, which notes what it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.source import Shape, Window


@dataclass(frozen=True, eq=False)
class ArraySource:
    """A `PixelSource` of an array (T, C, Z, Y, X)."""

    data: NDArray[Any]
    path: Path = Path("memory.tif")
    asked: list[Window] = field(default_factory=list)

    @property
    def shape(self) -> Shape:
        t, c, z, y, x = self.data.shape
        return t, c, z, y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    def read(self, window: Window) -> NDArray[Any]:
        self.asked.append(window)
        return self.data[tuple(slice(axis.start, axis.stop) for axis in window)]
