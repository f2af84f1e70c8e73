"""Formats through bioio: what to install where it is missing; and read, where it is there."""

from __future__ import annotations

import pickle
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cellseg.models import CellsegError
from cellseg.pipeline.image import READERS, open_image
from cellseg.pipeline.other_formats import PLUGINS
from cellseg.pipeline.plate import discover
from cellseg.pipeline.tiles import Box


def test_every_suffix_has_its_reader() -> None:
    assert set(PLUGINS) <= set(READERS)
    assert len({READERS[suffix] for suffix in PLUGINS}) == 1


MISSING = [suffix for suffix, plugin in PLUGINS.items() if find_spec(plugin) is None]
"""Formats whose reader the tests do not install."""


@pytest.mark.parametrize("suffix", [*MISSING, MISSING[0].upper()])
def test_the_line_that_installs_what_is_missing_is_in_the_error(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"image{suffix}"
    path.write_bytes(b"whatever")
    line = r'pip install ("cellseg\[bioio\]"|bioio bioio-bioformats \(it runs Java\))$'
    with pytest.raises(CellsegError, match=rf"image\{suffix}: \{suffix} files .* {line}"):
        open_image(path)


def test_such_a_file_in_a_folder_is_an_image_like_others(tmp_path: Path) -> None:
    (tmp_path / "image.nd2").write_bytes(b"whatever")
    assert [found.name for found in discover([tmp_path], None)] == ["image"]


@pytest.mark.filterwarnings("default")
def test_a_czi_is_read(tmp_path: Path) -> None:
    from pylibCZIrw import czi

    data = np.random.default_rng(0).integers(0, 4000, (2, 200, 300)).astype(np.uint16)
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for channel, plane in enumerate(data):
            file.write(plane[..., None], plane={"C": channel, "Z": 0, "T": 0})
        names = {0: "DAPI", 1: "GFP"}
        file.write_metadata("a", channel_names=names, scale_x=5e-7, scale_y=5e-7)
    image = pickle.loads(pickle.dumps(open_image(tmp_path / "a.czi")))  # noqa: S301
    assert image.channels == ("DAPI", "GFP")
    assert image.voxel == pytest.approx((1.0, 0.5, 0.5))
    box = Box(10, 20, 150, 290)
    np.testing.assert_array_equal(image.read(0, 0, box, [1, 0]), data[::-1][:, *box.slices])
    (tmp_path / "a.czi").write_bytes((tmp_path / "a.czi").read_bytes()[:2000])
    with pytest.raises(CellsegError, match=r"a\.czi: (changed|cannot be read)"):
        image.read(0, 0, box, [0])
