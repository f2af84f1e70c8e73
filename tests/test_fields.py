"""Fields: which files are one image, and what is wrong where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.pipeline.fields import Group, group
from cellseg.pipeline.file_names import FileName

ALL = {"plate", "well", "site", "channel", "z", "t"}


def names(*said: str, well: str = "A01") -> list[FileName]:
    """Return files by ``channel z t``, each of which may be ``-`` for nothing."""
    found = []
    for number, text in enumerate(said):
        channel, z, t = (None if word == "-" else word for word in text.split())
        path = Path("/p", f"{well} {text} {number}.tif")
        found.append(FileName(path, Path("/p"), "p", well, "1", channel, z, t, ""))
    return found


def one(files: list[FileName]) -> Group:
    (found,), _ = group(files, ALL, {})
    return found


def test_places_follow_the_natural_order_of_channels_planes_and_times() -> None:
    files = names(*(f"w{c} {z} {t}" for c in (2, 10) for z in (9, 10) for t in ("2h", "10h")))
    found = one(files)
    assert found.channels == ("w2", "w10")
    places = {part.path.name[4:-6]: (part.t, part.c, part.z) for part in found.parts}
    assert places["w2 9 2h"] == (0, 0, 0)
    assert places["w10 10 10h"] == (1, 1, 1)
    assert len(set(places.values())) == 8


@settings(max_examples=40, deadline=None)
@given(st.permutations(names(*(f"w{c} {z} -" for c in "123" for z in "123"))))
def test_the_order_in_which_files_are_found_does_not_matter(files: list[FileName]) -> None:
    first = one(names(*(f"w{c} {z} -" for c in "123" for z in "123")))
    assert {*one(files).parts} == {*first.parts}


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (["w1 1 -", "w1 1 -", "w2 1 -"], "are both well A01, site 1, channel w1, z 1. Take one"),
        (["w1 - -", "w1 - -"], "are both well A01, site 1, channel w1. Take one"),
        (["- 1 -", "- 2 -", "- 4 -"], "plane z 3 is missing among 1 to 4"),
        (["- 0 -", "- 5 -", "- 10 -", "- 20 -"], "plane z 15 is missing among 0 to 20"),
        (["w1 1 1", "w1 2 1", "w1 1 2"], "no file for t 2 z 2. Add the files"),
    ],
)
def test_files_that_make_no_image_say_why(said: list[str], problem: str) -> None:
    found = one(names(*said))
    assert found.problem is not None
    assert problem in found.problem
    assert "\n" not in found.problem


def test_two_files_of_one_place_are_both_named_and_cost_no_other_image() -> None:
    good = names("w1 - -", "w2 - -")
    twice = names("w1 - -", "w2 - -", "w2 - -", well="A02")
    found, _ = group([*good, *twice], ALL, {})
    assert found[0].problem is None
    assert str(twice[1].path) in str(found[1].problem)
    assert str(twice[2].path) in str(found[1].problem)
    # One file twice makes no plate of images of several files.
    found, _ = group([*names("w1 - -"), *names("w1 - -", "w1 - -", well="A02")], ALL, {})
    assert [bool(each.parts) for each in found] == [False, False]


def test_channels_that_some_images_lack_keep_their_numbers() -> None:
    whole, part = names("w1 - -", "w2 - -", "w3 - -"), names("w1 - -", "w3 - -", well="A02")
    found, _ = group([*whole, *part], ALL, {})
    assert [each.channels for each in found] == [("w1", "w2", "w3"), ("w1", "w3")]
    assert found[1].numbering == ("w1", "w2", "w3")
    assert found[1].notes == ("no file of channel w2",)
    assert [part.c for part in found[1].parts] == [0, 1]


def test_a_channel_without_all_planes_is_left_out_and_a_shorter_stack_is_told() -> None:
    flat = one(names("w1 1 -", "w1 2 -", "w2 1 -"))
    assert flat.channels == ("w1",)
    assert flat.notes == ("channel w2 is left out: no file for z 2",)
    long, short = names("- 1 -", "- 2 -", "- 3 -"), names("- 1 -", "- 2 -", well="A02")
    found, _ = group([*long, *short], ALL, {})
    assert [each.problem for each in found] == [None, None]
    assert found[1].notes == ("2 planes (z), where its plate has 3",)


def test_a_file_without_z_among_planes_is_left_over() -> None:
    found, left = group(names("w1 1 -", "w1 2 -", "w1 - -", "w2 1 -", "w2 2 -"), ALL, {})
    assert len(found) == 1
    assert len(found[0].parts) == 4
    assert [each.path.name for each in left] == ["A01 w1 - - 2.tif"]
    assert "a projection?" in left[0].reason


def test_wells_alone_do_not_join_files() -> None:
    files = names("- - -", "- - -")
    found, _ = group(files, {"well"}, {})
    assert len(found) == 2
    assert all(each.problem is None for each in found)
