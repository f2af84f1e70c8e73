"""Image: channels by name, exact boxes, samples that depend on the shape alone, fingerprints."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory import ArraySource
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.image import Image, fingerprint, open_image
from cellseg.pipeline.sampling import sample_windows
from cellseg.pipeline.tiles import Box


def counted(*shape: int) -> NDArray[np.uint16]:
    return np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)


def image_of(data: NDArray[Any], chunk: int = 1024, names: tuple[str, ...] = ()) -> Image:
    chunks = (1, 1, 1, chunk, chunk)
    return Image.from_source(ArraySource(data), chunks, names, None)


def flat(height: int, width: int, chunk: int = 1024) -> Image:
    """Return an image of any size that takes no memory; each pixel is its row's number."""
    rows = np.arange(height, dtype=np.float32)[:, None]
    return image_of(np.broadcast_to(rows, (1, 1, 1, height, width)), chunk)


def test_channels_are_found_by_name_and_by_index() -> None:
    image = image_of(counted(1, 3, 1, 4, 4), names=("DAPI", "GFP", "0"))
    assert [image.channel_index(c) for c in ("DAPI", "GFP", 0, 2)] == [0, 1, 0, 2]
    assert image.channel_index("0") == 2


@pytest.mark.parametrize("channel", ["GPF", "gfp", 3, -1])
def test_an_unknown_channel_lists_the_known_ones(channel: int | str) -> None:
    image = image_of(counted(1, 3, 1, 4, 4), names=("DAPI", "GFP", "Cy5"))
    with pytest.raises(CellsegError, match=rf"memory\.tif: no channel {channel!r}; there are 3: "):
        image.channel_index(channel)


def test_the_nearest_channel_is_listed_first() -> None:
    image = image_of(counted(1, 3, 1, 4, 4), names=("DAPI", "GFP", "Cy5"))
    with pytest.raises(CellsegError, match=r"there are 3: 'GFP', .*index 0 to 2"):
        image.channel_index("GFPs")


@pytest.mark.parametrize(
    ("given_names", "names"),
    [
        ((), ("0", "1", "2")),
        (("DAPI", "GFP"), ("0", "1", "2")),
        (("DAPI", None, " "), ("DAPI", "1", "2")),
        (("a", "a", "b"), ("a_0", "a_1", "b")),
        (("a", "a", "a_0"), ("0", "1", "2")),
        (("1", None, "b"), ("1_0", "1_1", "b")),
    ],
)
def test_every_channel_has_a_name_of_its_own(
    given_names: tuple[str, ...], names: tuple[str, ...]
) -> None:
    assert image_of(counted(1, 3, 1, 4, 4), names=given_names).channels == names


boxes = st.tuples(*[st.integers(0, 19)] * 4).map(
    lambda n: Box(min(n[0], n[2]), min(n[1], n[3]), max(n[0], n[2]) + 1, max(n[1], n[3]) + 1)
)


@settings(max_examples=40, deadline=None)
@given(
    box=boxes,
    chunk=st.sampled_from([6, 10, 20]),
    channels=st.lists(st.integers(0, 2), min_size=1),
    together=st.booleans(),
)
def test_read_gives_the_box_and_asks_for_no_pixel_around_it(
    box: Box, chunk: int, channels: list[int], together: bool
) -> None:
    data = counted(2, 3, 2, 20, 20)
    source = ArraySource(data)
    chunks = (1, 3 if together else 1, 1, chunk, chunk)
    image = Image.from_source(source, chunks, (), None)
    read = image.read(1, 0, box, channels)
    np.testing.assert_array_equal(read, data[1, channels, 0, *box.slices])
    assert read.flags.c_contiguous
    for t, _, z, y, x in source.asked:
        assert (t, z) == (range(1, 2), range(1))
        assert box.y0 <= y.start < y.stop <= box.y1
        assert box.x0 <= x.start < x.stop <= box.x1
    if not together:
        asked = sum(len(y) * len(x) for *_, y, x in source.asked)
        assert asked == len(channels) * box.shape[0] * box.shape[1]


@pytest.mark.parametrize("box", [Box(0, 0, 21, 5), Box(-1, 0, 5, 5), Box(5, 5, 5, 9)])
def test_a_box_outside_the_plane_is_refused(box: Box) -> None:
    with pytest.raises(ValueError, match="is not inside the plane of 20 x 20 px"):
        image_of(counted(1, 1, 1, 20, 20)).read(0, 0, box, [0])


slices = st.slices(12)
indices = st.one_of(slices, st.integers(0, 11), st.lists(st.integers(0, 11), min_size=1))


@settings(max_examples=60, deadline=None)
@given(y=indices, x=slices, c=st.one_of(st.slices(3), st.integers(0, 2)))
def test_the_lazy_array_is_indexed_like_any_other(
    y: slice | int | list[int], x: slice, c: slice | int
) -> None:
    data = counted(1, 3, 2, 12, 12)
    pixels = image_of(data, chunk=5).pixels
    lazily = pixels[0, c, 1][..., y, x] if isinstance(y, list) else pixels[0, c, 1, ..., y, x]
    expected = data[0, c, 1][..., y, x]
    np.testing.assert_array_equal(lazily.compute(scheduler="synchronous"), expected)


def test_an_image_is_small_and_whole_when_pickled(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 9999, (2000, 2000)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "image.tif", data, tile=(16, 16))
    sent = pickle.dumps(open_image(tmp_path / "image.tif"))
    assert len(sent) < 10_000
    box = Box(500, 600, 700, 800)
    received: Image = pickle.loads(sent)  # noqa: S301
    np.testing.assert_array_equal(received.read(0, 0, box, [0])[0], data[box.slices])


@pytest.mark.parametrize("shape", [(1, 1), (520, 696), (2048, 2048), (100, 40_000)])
def test_a_small_plane_is_its_own_sample(shape: tuple[int, int]) -> None:
    image = flat(*shape)
    (window,) = sample_windows(image, [0], 0, 0)
    assert window.shape == (1, *shape)


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((2048, 2049), 64),
        ((20_000, 20_000), 64),
        ((6_144, 20_000), 64),
        ((300, 60_000), 64),
        ((60_000, 300), 64),
        ((100, 60_000), 64),
        ((257, 20_000), 64),
    ],
)
def test_a_large_plane_is_sampled_evenly(shape: tuple[int, int], count: int) -> None:
    windows = sample_windows(flat(*shape), [0], 0, 0)
    height = min(256, shape[0])
    assert 0.75 * count <= len(windows) <= 1.25 * count
    assert all(window.shape == (1, height, min(256, shape[1])) for window in windows)
    tops = {float(window[0, 0, 0]) for window in windows}
    assert all(top % 256 == 0 for top in tops)
    if shape[0] > 2000:
        assert min(tops) <= shape[0] / 8
        assert max(tops) >= shape[0] * 3 / 4


def test_the_sample_is_the_same_for_any_chunks() -> None:
    data = np.random.default_rng(0).integers(0, 99, (1, 2, 1, 2100, 2100)).astype(np.uint8)
    one, other = (sample_windows(image_of(data, chunk), [1, 0], 0, 0) for chunk in (512, 1000))
    assert len(one) == len(other) == 64
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first, second)
    assert len({window.tobytes() for window in one}) == 64


def test_a_missing_file_and_a_foreign_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CellsegError, match=r"none\.tif: no such file"):
        open_image(tmp_path / "none.tif")
    (tmp_path / "notes.tixt").write_text("cells")
    with pytest.raises(CellsegError, match=r"notes\.tixt: \.tixt is not an image format; readable"):
        open_image(tmp_path / "notes.tixt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CellsegError, match=r"folder: a folder is not an image format"):
        open_image(tmp_path / "folder")


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(CellsegError, match=r"memory\.tif: no pixels"):
        image_of(counted(1, 1, 1, 0, 5))


def test_a_fingerprint_follows_the_file_and_not_its_place(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, counted(20, 20))
    before = fingerprint(path)
    assert fingerprint(path) == before
    moved = tmp_path / "elsewhere" / "image.tif"
    moved.parent.mkdir()
    shutil.move(path, moved)
    assert fingerprint(moved) == before
    status = moved.stat()
    os.utime(moved, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert fingerprint(moved) != before
    with pytest.raises(CellsegError, match=r"image\.tif: no such file"):
        fingerprint(path)
