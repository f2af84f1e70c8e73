"""Labels inside an input image: in its own ``labels`` group, beside those of others.

Whatever others wrote stays. The group lists our label images from the moment they lie there
whole, and no longer lists them before they are touched again, so a kill at any moment leaves the
input valid; the next run then goes on where this one stopped.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg.models.errors import CellsegError
from cellseg.pipeline.files import write_json
from cellseg.pipeline.labels import LabelStore, layer_name
from cellseg.pipeline.ngff import read_json
from cellseg.pipeline.pyramid import Pyramid, Shape
from cellseg.pipeline.source import naming
from cellseg.pipeline.voxel import Voxel

__all__ = ["InsideLabels", "check_free"]

OURS = re.compile(r"cells(_[1-9]\d*)?")


@dataclass(frozen=True)
class InsideLabels(LabelStore):
    """The labels of one image in its own ``labels`` group; see `LabelStore`."""

    def key(self) -> str | None:
        """Return the key they were written with, or None if they are not all listed."""
        stated = _own(self.path / layer_name(0))
        names = [layer_name(layer) for layer in range(int(stated.get("layers", 0)))]
        listed = _listed(self.path)
        whole = all(
            name in listed and _own(self.path / name).get("key") == stated["key"] for name in names
        )
        return str(stated["key"]) if names and whole else None

    @property
    def layers(self) -> int:
        """Number of our label images; 0 where there are none."""
        return 0 if self.key() is None else int(_own(self.path / layer_name(0))["layers"])

    def _start_image(
        self,
        name: str,
        shape: Shape,
        voxel_um: Voxel | None,
        levels: int | None,
        own: dict[str, Any],
    ) -> None:
        Pyramid(self._unfinished / name).start(shape, voxel_um, levels, self.ngff, cellseg=own)

    def _publish(self) -> None:
        check_free(self.path)
        new = [layer_name(layer) for layer in range(LabelStore(self._unfinished).layers)]
        key = LabelStore(self._unfinished).key()
        old = {name for name in _ours(self.path) if _own(self.path / name).get("key") != key}
        listed = [name for name in _listed(self.path) if name not in {*new, *old}]
        self._list(listed)
        for name in old:
            shutil.rmtree(self.path / name)
        for name in new:
            _move(self._unfinished / name, self.path / name)
        self._list([*listed, *new])
        shutil.rmtree(self._unfinished)

    def _take_layer(self, partial: Path, layer: int) -> None:
        place = self.path / layer_name(layer)
        shutil.rmtree(place, ignore_errors=True)
        partial.replace(place)
        self._list([*(name for name in _listed(self.path) if name != place.name), place.name])
        # How many there are, the first one says: only when the new one is listed.
        for number in range(layer, -1, -1):
            own = {**_own(self.path / layer_name(number)), "layers": layer + 1}
            Pyramid(self.path / layer_name(number)).note(cellseg=own)

    def _remove(self) -> None:
        ours = _ours(self.path)
        if ours:
            self._list([name for name in _listed(self.path) if name not in ours])
        for name in ours:
            shutil.rmtree(self.path / name)

    def _list(self, names: Collection[str]) -> None:
        """Write which label images there are; everything else in the group's metadata stays."""
        if self.ngff == "0.4":
            _list_v2(self.path, list(names))
        else:
            _list_v3(self.path, list(names))


def check_free(labels: Path) -> None:
    """Refuse a group of labels in which others hold the names that we need.

    Raises
    ------
    CellsegError
        If it holds a label image by such a name that cellseg did not write, or is read-only.
    """
    home = labels if labels.is_dir() else labels.parent
    if not os.access(home, os.W_OK):
        raise CellsegError(
            f'{home}: read-only, so it takes no labels. Set [output] labels to "results".'
        )
    found = [entry.name for entry in labels.iterdir()] if labels.is_dir() else []
    names = {name for name in {*found, *_listed(labels)} if OURS.fullmatch(name)}
    foreign = sorted(names - _ours(labels))
    if foreign:
        raise CellsegError(
            f"{labels / foreign[0]}: labels that cellseg did not write are not overwritten."
            ' Rename or remove them, or set [output] labels to "results".'
        )


def _ours(labels: Path) -> set[str]:
    """Return the names of the label images that cellseg wrote, listed or not."""
    found = [entry.name for entry in labels.iterdir()] if labels.is_dir() else []
    return {name for name in found if OURS.fullmatch(name) and _own(labels / name)}


def _own(image: Path) -> dict[str, Any]:
    """Return what cellseg noted in the attributes of a label image; empty if others wrote it."""
    try:
        if (image / "zarr.json").is_file():
            return dict(read_json(image / "zarr.json")["attributes"]["cellseg"])
        return dict(read_json(image / ".zattrs")["cellseg"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _listed(labels: Path) -> list[str]:
    """Return the names that a group lists, wherever its writer put them."""
    with naming(labels):
        if (labels / "zarr.json").is_file():
            attributes = read_json(labels / "zarr.json").get("attributes", {})
            # Some writers leave `ome` out.
            return list(attributes.get("ome", attributes).get("labels") or [])
        if (labels / ".zattrs").is_file():
            return list(read_json(labels / ".zattrs").get("labels") or [])
        return []


def _list_v3(labels: Path, names: list[str]) -> None:
    path = labels / "zarr.json"
    new: dict[str, Any] = {"zarr_format": 3, "node_type": "group"}
    node = read_json(path) if path.is_file() else new
    attributes: dict[str, Any] = dict(node.get("attributes") or {})
    attributes.pop("labels", None)
    # ome-zarr-py 0.18 writes no version, which others then refuse.
    attributes["ome"] = {**attributes.get("ome", {}), "version": "0.5", "labels": names}
    write_json(path, {**node, "attributes": attributes})


def _list_v2(labels: Path, names: list[str]) -> None:
    if not (labels / ".zgroup").is_file():
        write_json(labels / ".zgroup", {"zarr_format": 2})
    path = labels / ".zattrs"
    attributes = read_json(path) if path.is_file() else {}
    write_json(path, {**attributes, "labels": names})


def _move(source: Path, place: Path) -> None:
    """Move a folder that is whole to where it is not yet, on whatever disk that is."""
    if source.is_dir() and not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.stat().st_dev == place.parent.stat().st_dev:
            source.replace(place)
            return
        partial = place.with_name(f".{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
        partial.replace(place)
