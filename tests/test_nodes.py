"""Metadata that was made once is what zarr writes itself, whatever is added to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from cellseg.pipeline.ngff import Version, node_attributes
from cellseg.pipeline.nodes import described, write_hierarchy


def fill(group: zarr.Group) -> None:
    group.create_array("0", shape=(30, 40), dtype="uint32", chunks=(16, 16), fill_value=0)
    group.attrs.put({"name": "cells", "levels": [1, 2]})


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_a_hierarchy_is_written_as_zarr_writes_it(tmp_path: Path, ngff: Version) -> None:
    files = described(fill, ngff)
    for name in ("a", "b"):
        write_hierarchy(tmp_path / name, files, {"key": name})
    fill(zarr.create_group(tmp_path / "zarr", zarr_format=2 if ngff == "0.4" else 3))
    for name in ("a", "b"):
        group = zarr.open_group(tmp_path / name, mode="r+")
        assert group.attrs.asdict() == {"name": "cells", "levels": [1, 2], "key": name}
        assert node_attributes(tmp_path / name) == group.attrs.asdict()
        array = group["0"]
        assert isinstance(array, zarr.Array)
        assert array.metadata == zarr.open_array(tmp_path / "zarr" / "0").metadata
        array[:] = 7
        assert np.array_equal(np.asarray(array), np.full((30, 40), 7))


def test_what_is_no_group_has_no_attributes(tmp_path: Path) -> None:
    assert node_attributes(tmp_path) == {}
    (tmp_path / "zarr.json").write_text("[1")
    with pytest.raises(ValueError, match="Expecting"):
        node_attributes(tmp_path)
