"""Pictures with a palette show what they were made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.pictures import MOST_COLOURS, few_colours

COLOURS = np.array([(255, 196, 0), (64, 224, 128), (0, 158, 255)], np.uint8)


def greys() -> NDArray[np.uint8]:
    """All of them, in rows of 32."""
    return np.repeat(np.arange(256, dtype=np.uint8).reshape(8, 32, 1), 3, axis=2)


def test_greys_and_a_few_colours_become_a_palette() -> None:
    picture = greys()
    picture[:, :16] = picture[:, 16:]
    picture[0, 1:4] = COLOURS
    image = few_colours(picture)
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image.convert("RGB")), picture)


def test_where_there_are_too_many_the_rarest_greys_look_as_the_next() -> None:
    picture = np.concatenate([greys(), greys()])
    picture[0, 1:4] = COLOURS  # in place of 1, 2 and 3, of which there is one each now
    shown = np.asarray(few_colours(picture).convert("RGB"))
    assert np.array_equal(shown[0], picture[0])
    assert shown[8, 1:4, 0].tolist() == [4, 4, 4]
    assert np.array_equal(shown[8, 4:], picture[8, 4:])


def test_greys_alone_stay_as_they_are() -> None:
    assert np.array_equal(np.asarray(few_colours(greys()).convert("RGB")), greys())


def test_a_picture_of_many_colours_keeps_them_all() -> None:
    picture = greys()
    picture[0, : MOST_COLOURS + 1, 0] = 255
    picture[1, :, 1] = np.arange(32)
    image = few_colours(picture)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), picture)
