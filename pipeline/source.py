"""PixelSource: what a reader hands over, and the indexing that makes it a lazy array."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError

if TYPE_CHECKING:
    import dask.array as da

Shape = tuple[int, int, int, int, int]
Window = tuple[range, range, range, range, range]

CHUNK_PX = 1024
"""Side of the chunks that readers aim at, in px."""


class PixelSource(Protocol):
    """What a reader hands over: where the pixels are, and how to get some of them.

    It goes to worker processes, so it pickles: paths and numbers, never an open
    file.
    """

    @property
    def path(self) -> Path:
        """The input, as given."""
        ...

    @property
    def shape(self) -> Shape:
        """(T, C, Z, Y, X)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels in native byte order."""
        ...

    def read(self, window: Window) -> NDArray[Any]:
        """Return the pixels in five ranges of step 1, decoding only what lies under them."""
        ...


@dataclass(frozen=True, eq=False)
class Stored:
    """Pixels that stay where they are until some of them are asked for.

    Parameters
    ----------
    source : PixelSource
    block : (T, C, Z, Y, X)
        In which they are best read.
    """

    source: PixelSource
    block: Shape
    ndim: ClassVar[int] = 5

    @property
    def chunks(self) -> Shape:
        """The block in which they are best read, no larger than all of them."""
        t, c, z, y, x = map(min, self.block, self.shape)
        return t, c, z, y, x

    @property
    def shape(self) -> Shape:
        """(T, C, Z, Y, X)."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels in native byte order."""
        return self.source.dtype

    def read(self, window: Window) -> NDArray[Any]:
        """Return the pixels in five ranges of step 1, decoding only what lies under them.

        Raises
        ------
        CellsegError
            If the file is damaged, truncated, or has changed since it was opened.
        """
        with naming(self.source.path):
            return self.source.read(window)

    def lazy(self) -> da.Array:
        """Return them as a dask array of these chunks."""
        # Late: their import takes half a second, and a run needs none.
        import dask.array as da

        meta = np.empty((0,) * 5, self.dtype)
        pixels: da.Array = da.from_array(self, self.chunks, name=False, meta=meta)
        return pixels

    def __getitem__(self, key: tuple[slice | int | list[int], ...]) -> NDArray[Any]:
        """Index as numpy does, reading no more than the smallest window around what is asked."""
        asked = [
            np.atleast_1d(np.arange(size)[each]) for each, size in zip(key, self.shape, strict=True)
        ]
        if not all(map(len, asked)):
            return np.broadcast_to(np.zeros((), self.dtype), self.shape)[tuple(key)]
        t, c, z, y, x = (range(int(axis.min()), int(axis.max()) + 1) for axis in asked)
        found = self.read((t, c, z, y, x))
        within: list[Any] = [
            slice(None, None, each.step)
            if isinstance(each, slice)
            else np.asarray(each) - axis.min()
            for each, axis in zip(key, asked, strict=True)
        ]
        part: NDArray[Any] = found[tuple(within)]
        return part


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file raises in here into one line that names `path`."""
    try:
        yield
    except CellsegError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CellsegError(
            f"{path}: cannot be read: {reason[:200]} (damaged, or not what its name says?)"
        ) from error


def stamp(path: Path) -> tuple[int, int]:
    """Return size in bytes and time of change in ns."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
