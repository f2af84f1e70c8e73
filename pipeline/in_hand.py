"""In hand: what a shard has claimed of a run's work and not done yet."""

from __future__ import annotations

from dataclasses import dataclass, field

from cellseg.pipeline.claims import Work
from cellseg.pipeline.set_aside import SetAside

__all__ = ["Chunk", "InHand"]


@dataclass(eq=False)
class Chunk:
    """Some tiles of a large image that this shard has claimed."""

    work: Work
    waiting: set[int]
    seconds: float = 0.0
    memory_mb: float | None = None
    tiles: int = 0
    failure: SetAside | None = None


@dataclass(eq=False)
class InHand:
    """What this shard has claimed and not done yet."""

    images: dict[str, Work] = field(default_factory=dict)
    chunks: dict[tuple[str, int], Chunk] = field(default_factory=dict)
    looking: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.images) + len(self.chunks) + len(self.looking)

    @property
    def works(self) -> list[Work]:
        """The claims."""
        return [*self.images.values(), *(chunk.work for chunk in self.chunks.values())]
