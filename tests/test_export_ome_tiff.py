"""Labels come back from OME-TIFF as they are, in every layer, plane and level."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellseg.pipeline import to_ome_tiff
from cellseg.pipeline.exported import find_images
from cellseg.pipeline.image import open_image
from cellseg.pipeline.tiles import Box
from exported_runs import UM, exports, pile, plate, stack


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {make.__name__: make(folder / make.__name__) for make in (plate, pile, stack)}


@pytest.mark.parametrize("name", ["plate", "pile", "stack"])
def test_labels_come_back_layer_by_layer_and_plane_by_plane(
    runs: dict[str, Path], name: str
) -> None:
    folder = exports(runs[name], "ome-tiff")
    for image in find_images(runs[name]):
        labels = image.results.labels
        times, depth, height, width = image.shape
        with tifffile.TiffFile(folder / f"{image.name}.ome.tif") as file:
            (series,) = file.series
            assert file.pages.first.is_tiled
            assert file.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
            assert not file.is_bigtiff
            found = series.asarray().reshape(times, labels.layers, depth, height, width)
            levels = [level.asarray() for level in series.levels]
        assert found.dtype == np.uint16
        for layer in range(labels.layers):
            for z in range(depth):
                expected = labels.read(0, z, Box(0, 0, height, width), layer=layer)
                assert np.array_equal(found[0, layer, z], expected)
        for finer, coarser in pairwise(levels):
            assert np.array_equal(finer[..., ::2, ::2], coarser)
        # As our own reader has it: channels are the layers, and the size of a pixel is there.
        back = open_image(folder / f"{image.name}.ome.tif")
        assert list(back.channels) == ["cells", "cells_2", "cells_3"][: labels.layers]
        assert back.voxel is not None
        assert back.voxel[1:] == (UM, UM)


def test_many_labels_are_32_bit_and_many_pixels_a_bigtiff(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_ome_tiff, "LARGEST_TIFF", 1000)
    monkeypatch.setattr(to_ome_tiff, "SMALL", 5)
    with tifffile.TiffFile(exports(runs["pile"], "ome-tiff", tmp_path) / "pile.ome.tif") as file:
        assert file.is_bigtiff
        assert file.series[0].dtype == np.uint32
        assert file.series[0].asarray().max() == 60
