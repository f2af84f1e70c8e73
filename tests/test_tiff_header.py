"""TIFF header: the same shape and type as tifffile finds, or none at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellseg.models.errors import CellsegError
from cellseg.pipeline.tiff_header import read_header


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"compression": "zlib", "rowsperstrip": 5},
        {"tile": (16, 16)},
        {"metadata": None, "description": "<MetaData><prop/></MetaData>"},
    ],
)
def test_a_file_of_one_plane(dtype: str, how: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((40, 23), dtype), **how)
    header = read_header(path)
    assert header is not None
    assert (header.height, header.width, header.dtype) == (40, 23, np.dtype(dtype))


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ((3, 40, 23), {}),
        ((3, 40, 23), {"imagej": True}),
        ((3, 40, 23), {"truncate": True}),
        ((40, 23, 3), {"photometric": "rgb"}),
        ((40, 23), {"ome": True}),
    ],
)
def test_what_may_hold_more_is_left_to_tifffile(
    shape: tuple[int, ...], how: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones(shape, "uint16"), **({"photometric": "minisblack"} | how))
    assert read_header(path) is None


def test_no_tiff_is_left_to_tifffile_and_a_cut_one_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"no TIFF at all, but long enough")
    assert read_header(path) is None
    tifffile.imwrite(path, np.ones((400, 230), "uint16"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CellsegError, match="truncated: its pixels end at byte"):
        read_header(path)
