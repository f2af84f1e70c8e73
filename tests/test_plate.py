"""Plate: which files an input means, and well, site, channel and name of each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.models.errors import CellsegError
from cellseg.pipeline.plate import disagreements, discover, each_file, find

DEMO = Path(__file__).parents[1] / "workflows" / "demo_plate"
GUID = "521471E0-9BD7-492A-8739-9C782C2585B0"


def files(folder: Path, *names: str) -> Path:
    """Make empty files; nothing here reads them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(*images: Path | str, pattern: str | None = None) -> list[str]:
    return [field.path.name for field in discover(images, pattern)]


def test_the_demo_plate() -> None:
    fields = discover([DEMO], None)
    assert len(fields) == 12
    first = fields[0]
    assert (first.name, first.well, first.site) == ("IXMtest_A18_s1_w1", "A18", "1")
    assert first.channel == "w1"
    assert [field.well for field in fields] == sorted(str(field.well) for field in fields)
    assert discover([DEMO], "imagexpress") == fields


@pytest.mark.parametrize(
    ("preset", "name", "parts"),
    [
        ("imagexpress", f"IXMtest_B21_s4_w1{GUID}.tif", ("B21", "4", "w1")),
        ("imagexpress", "IXMtest_B21_s4_w1.tif", ("B21", "4", "w1")),
        ("imagexpress", f"my_plate_P03_s12_w2{GUID.lower()}.TIF", ("P03", "12", "w2")),
        ("imagexpress", f"plate_AF48_w3{GUID}.tiff", ("AF48", None, "w3")),
        ("imagexpress", f"plate_C01_s2{GUID}.tif", ("C01", "2", None)),
        ("cellprofiler", "AS_09047_050428030001_O01f00d2.TIF", ("O01", "00", "d2")),
        ("cellprofiler", "B03f12d0.tif", ("B03", "12", "d0")),
    ],
)
def test_presets(preset: str, name: str, parts: tuple[str | None, ...], tmp_path: Path) -> None:
    files(tmp_path, name)
    for pattern in (preset, None):
        (field,) = discover([tmp_path], pattern)
        assert (field.well, field.site, field.channel) == parts


@pytest.mark.parametrize("name", ["embryo_T05.tif", "scan_z01.tif", "IMG_2041.tif", "A01_2.tif"])
def test_other_names_are_not_taken_for_wells(name: str, tmp_path: Path) -> None:
    (field,) = discover([files(tmp_path, name)], None)
    assert (field.well, field.site, field.channel) == (None, None, None)


def test_a_preset_is_assumed_if_most_files_have_it_and_the_others_are_left_over(
    tmp_path: Path,
) -> None:
    files(tmp_path, "plate_A01_s1_w1.tif", "plate_A02_s1_w1.tif", "overview.tif")
    seen = find([tmp_path], None)
    assert [field.well for field in seen.fields] == ["A01", "A02"]
    assert [left.path.name for left in seen.left_over] == ["overview.tif"]
    assert seen.notes == ("1 file left over (overview.tif); `cellseg inspect` says why",)
    # What was given by name is never left over.
    each = [tmp_path / name for name in ("overview.tif", "plate_A01_s1_w1.tif")]
    assert [field.well for field in discover([*each, tmp_path / "plate_A02_s1_w1.tif"], None)] == [
        None,
        "A01",
        "A02",
    ]
    files(tmp_path, "a.tif", "b.tif")
    assert all(field.well is None for field in discover([tmp_path], None))


@pytest.mark.parametrize(
    ("text", "well"),
    [("a1", "A01"), ("B003", "B03"), ("p-24", "P24"), ("aa07", "AA07"), ("control", "control")],
)
def test_wells_are_written_one_way(text: str, well: str, tmp_path: Path) -> None:
    files(tmp_path, f"x+{text}+y.tif")
    (field,) = discover([tmp_path], r"\+(?P<well>.*)\+")
    assert field.well == well


def test_an_own_pattern_may_have_any_of_the_groups(tmp_path: Path) -> None:
    files(tmp_path, "dapi-3.tif", "gfp.tif")
    fields = discover([tmp_path], r"^(?P<channel>[a-z]+)(-(?P<field>\d))?\.tif$")
    assert [(f.well, f.site, f.channel) for f in fields] == [
        (None, "3", "dapi"),
        (None, None, "gfp"),
    ]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(?P<well>", "is not a regular expression: .* presets are imagexpress, cellprofiler"),
        ("(?P<wel>A)", "has the unknown group 'wel'. Did you mean well?"),
        ("imagexpres", "has no named group .* Did you mean imagexpress?"),
        (r"A(\d+)", "has no named group"),
        (r"(?P<site>1)(?P<field>2)", "has both site and field"),
        ("{well}_{wave}.tif", "has the unknown group 'wave'"),
        ("{z}_{z}.tif", "has a group twice"),
        (r"(?P<row>A)", "needs row and column"),
        (r"(?P<well>Q\d+)", "does not match 4 of 5 files: A1.tif, A2.tif, A3.tif, ..."),
    ],
)
def test_a_wrong_pattern_is_refused(pattern: str, reason: str, tmp_path: Path) -> None:
    files(tmp_path, "A1.tif", "A2.tif", "A3.tif", "A4.tif", "Q5.tif")
    with pytest.raises(CellsegError) as caught:
        discover([tmp_path], pattern)
    message = str(caught.value)
    assert message.startswith(f"pattern = {pattern!r} ")
    assert re.search(re.sub(r"([?.()])(?!\*)", r"\\\1", reason), message)
    assert "\n" not in message


def test_a_folder_gives_its_own_images_in_natural_order(tmp_path: Path) -> None:
    files(
        tmp_path,
        *("s10.tif", "s2.TIF", "S1.tiff", "notes.txt", ".hidden.tif", "._s2.tif"),
        *(f"a_A01_s1_w1_thumb{GUID}.tif", "a_A01_s1_w1_thumb.tif", "deeper/s3.tif"),
    )
    zarr.create_group(str(tmp_path / "s3.ome.zarr"))
    zarr.create_group(str(tmp_path / "s4"))
    assert found(tmp_path) == ["S1.tiff", "s2.TIF", "s3.ome.zarr", "s4", "s10.tif"]


def test_inputs_stay_in_order_and_each_file_counts_once(tmp_path: Path) -> None:
    files(tmp_path, "a/1.tif", "a/2.tif", "b/1.tif")
    (tmp_path / "link.tif").symlink_to(tmp_path / "a" / "2.tif")
    names = [
        field.path.relative_to(tmp_path).as_posix()
        for field in discover(
            [tmp_path / "b", tmp_path / "a" / "2.tif", tmp_path / "a", tmp_path / "link.tif"], None
        )
    ]
    assert names == ["b/1.tif", "a/2.tif", "a/1.tif"]


def test_globs(tmp_path: Path) -> None:
    files(
        tmp_path,
        *("p1/w/s10.tif", "p1/w/s9.tif", "p1/w/.s1.tif", "p1/w/s1.txt", "p2/s1.tif"),
        f"p2/a_thumb{GUID}.tif",
    )
    zarr.create_group(str(tmp_path / "p2" / "x.zarr" / "labels" / "cells.zarr"))
    zarr.create_group(str(tmp_path / "p2" / "x.zarr"))
    assert found(str(tmp_path / "p?" / "*.tif")) == ["s1.tif"]
    assert found(tmp_path / "**" / "*.tif") == ["s9.tif", "s10.tif", "s1.tif"]
    assert found(tmp_path / "**" / "*") == ["s9.tif", "s10.tif", "s1.tif", "x.zarr"]
    assert found(tmp_path / "p2" / "x.zarr" / "labels" / "*") == ["cells.zarr"]


def test_the_fields_of_an_ome_zarr_plate_are_found_by_a_glob(tmp_path: Path) -> None:
    for field in ("A/1/0", "A/1/1", "B/12/0"):
        zarr.create_group(str(tmp_path / "p.ome.zarr" / field))
    fields = discover([tmp_path / "p.ome.zarr" / "*" / "*" / "*"], None)
    assert [field.name for field in fields] == ["p_A_1_0", "p_A_1_1", "p_B_12_0"]


def test_a_path_that_exists_is_no_glob(tmp_path: Path) -> None:
    files(tmp_path, "plate [1]/s1.tif", "plate 1/s2.tif")
    assert found(tmp_path / "plate [1]") == ["s1.tif"]


@pytest.mark.parametrize(
    ("given_path", "reason"),
    [
        ("plate/s1.tiff", "plate/s1.tiff: no such file or folder. Did you mean s1.tif?"),
        ("nowhere/deep/s1.tif", "nowhere/deep/s1.tif: no such file or folder."),
        ("plate/*.png", "plate/*.png: matches nothing."),
        ("*/*.txt", "*/*.txt: matches no image; readable are .tif, "),
        ("nes*", "nested: matches folders only (nested); end it in /*.tif."),
        ("plate/notes.txt", "plate/notes.txt: a file in .txt cannot be read as an image; readable"),
        ("plate/README", "plate/README: a file without suffix cannot be read as an image"),
        ("empty", "empty: empty; readable are .tif, .tiff, .btf, "),
        ("hidden", "hidden: empty; readable"),
        ("texts", "texts: no image in it; readable"),
        ("nested", "nested: holds only sub-folders (p1, p2, p3, ...), which are not searched."),
    ],
)
def test_an_input_without_images_is_refused(given_path: str, reason: str, tmp_path: Path) -> None:
    files(tmp_path, "plate/s1.tif", "plate/notes.txt", "plate/README", "texts/a.txt")
    files(tmp_path, "hidden/.s1.tif", *(f"nested/p{i}/s1.tif" for i in range(1, 5)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CellsegError) as caught:
        discover([tmp_path / given_path], None)
    message = str(caught.value)
    assert message.replace("nes*", "nested").startswith(f"{tmp_path}/{reason}")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.tif", "b.ome.tif", "c.OME.TIFF", "d.e.tif"], ["a", "b", "c", "d.e"]),
        (["well A1 (copy)#2.tif", "µ.tif"], ["well_A1__copy__2", "_"]),
        (["..tif", "-x.tif"], ["image", "-x"]),
        (["p1/s1.tif", "p2/s1.tif", "p2/s2.tif"], ["p1_s1", "p2_s1", "s2"]),
        (["p1/x/s1.tif", "p2/x/s1.tif", "p2/y/s1.tif"], ["p1_x_s1", "p2_x_s1", "y_s1"]),
        (["p1/s1.tif", "p2/S1.tif"], ["p1_s1", "p2_S1"]),
        (["s1.tif", "s1.tiff", "s1.ome.tif"], ["s1", "s1-2", "s1-3"]),
        (["s 1.tif", "s_1.tif"], ["s_1", "s_1-2"]),
        (["a/s.tif", "b/s.tif", "a_s.tif"], ["0_a_s", "b_s", "1_0_a_s"]),
    ],
)
def test_names_are_plain_and_unique(paths: list[str], names: list[str], tmp_path: Path) -> None:
    root = tmp_path / "1" / "0"
    files(root, *paths)
    assert [field.name for field in discover([root / path for path in paths], None)] == names


path_names = st.text(st.sampled_from("aAb _é.-2"), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.tuples(path_names, path_names), min_size=1, max_size=12))
def test_names_never_clash_whatever_the_file_system(parts: set[tuple[str, str]]) -> None:
    from cellseg.pipeline.image_names import image_names

    names = image_names([Path("/data", folder, f"{stem}.tif") for folder, stem in sorted(parts)])
    assert len({name.lower() for name in names}) == len(parts)
    assert all(re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*", name) for name in names)


@pytest.mark.parametrize(
    ("paths", "images"),
    [
        # Channels of a well and site are one image, named after both.
        (
            ["p_A01_s1_w1.tif", "p_A01_s1_w2.tif", "p_A01_s2_w1.tif", "p_A01_s2_w2.tif"],
            {"p_A01_s1": 2, "p_A01_s2": 2},
        ),
        # Where every image is one file, its name stays.
        (["p_A01_s1_w1.tif", "p_A01_s2_w1.tif"], {"p_A01_s1_w1": 1, "p_A01_s2_w1": 1}),
        # Planes and time points too; a projection beside them is left over.
        (
            [
                *(f"TimePoint_1/ZStep_{z}/p_A01_w{w}.tif" for z in (1, 2) for w in (1, 2)),
                "TimePoint_1/p_A01_w1.tif",
                "TimePoint_1/ZStep_1/p_A01_w1_thumb.tif",
            ],
            {"p_A01": 4},
        ),
        (["TimePoint_1/p_A01.TIF", "TimePoint_2/p_A01.TIF"], {"p_A01": 2}),
        # Two plates of the same wells: two folders.
        (
            [f"plate {n}/A01_s1_w{w}.tif" for n in (1, 2) for w in (1, 2)],
            {"plate_1_A01_s1": 2, "plate_2_A01_s1": 2},
        ),
        (
            [f"Images/r01c02f01p0{z}-ch{c}sk1fk1fl1.tiff" for z in (1, 2) for c in (1, 2)],
            {"plate_A02_s01": 4},
        ),
        (
            [f"x_B03_T000{t}F001L01A0{c}Z01C0{c}.tif" for t in (1, 2) for c in (1, 2)],
            {"x_B03_s001": 4},
        ),
        (
            [f"VID9_A1_1_2023y01m0{d}d_00h00m.tif" for d in (1, 2)],
            {"VID9_A01_s1": 2},
        ),
        (["A01_1_DAPI.tif", "A01_1_GFP.tif", "notes.txt"], {"plate_A01_s1": 2}),
        (["B02_f3_ch1.tif", "B02_f3_ch2.tif"], {"plate_B02_s3": 2}),
        # Labels beside the images are no images.
        (["images/p_A01_s1_w1.tif", "labels/p_A01_s1_w1.tif"], {"p_A01_s1_w1": 1}),
    ],
)
def test_files_that_are_one_image(paths: list[str], images: dict[str, int], tmp_path: Path) -> None:
    files(tmp_path / "plate", *paths)
    fields = discover([tmp_path / "plate"], None)
    assert {field.name: len(field.parts) or 1 for field in fields} == images
    assert all(field.problem is None and field.plate and field.well for field in fields)


def test_patterns_of_the_users_own_name_planes_and_search_below(tmp_path: Path) -> None:
    paths = [f"P{p}/B02/c{c}_z{z}.tif" for p in (1, 2) for c in "ab" for z in (1, 2, 3)]
    files(tmp_path, *paths)
    for pattern in (
        "{plate}/{well}/{channel}_z{z}.tif",
        "{plate}/{well}/{channel}_z{z}",
        r"^(?P<plate>[^/]+)/(?P<well>[^/]+)/(?P<channel>\w+)_z(?P<z>\d)",
        r"(?P<plate>P\d)/(?P<row>B)(?P<column>\d+)/(?P<channel>c\w)_z(?P<z>\d)",
    ):
        fields = discover([tmp_path], pattern)
        assert [(f.name, f.plate, f.well) for f in fields] == [
            ("P1_B02", "P1", "B02"),
            ("P2_B02", "P2", "B02"),
        ]
        assert len(fields[0].parts) == 6
        assert len(fields[0].channels) == 2


def test_without_well_and_site_the_rest_of_the_name_tells_images_apart(tmp_path: Path) -> None:
    files(tmp_path, *(f"embryo{n}_C{c}.tif" for n in (1, 2) for c in (1, 2)))
    fields = discover([tmp_path], r"_(?P<channel>C\d)")
    assert [(field.name, field.channels) for field in fields] == [
        ("embryo1", ("C1", "C2")),
        ("embryo2", ("C1", "C2")),
    ]
    assert fields[0].well is fields[0].plate is None


def test_links_to_one_file_are_as_many_files_of_a_plate(tmp_path: Path) -> None:
    source = files(tmp_path, "source.tif") / "source.tif"
    (tmp_path / "plate").mkdir()
    for well in ("A01", "A02", "A03"):
        (tmp_path / "plate" / f"p_{well}_s1_w1.tif").symlink_to(source)
    assert len(discover([tmp_path / "plate"], None)) == 3
    assert [field.path for field in discover([source, tmp_path / "plate"], None)] == [source]


def test_each_file_is_an_image_whatever_its_name(tmp_path: Path) -> None:
    files(tmp_path, "A01_s1_w1.tif", "A01_s1_w2.tif", "other.tif")
    fields = each_file([tmp_path])
    assert [field.name for field in fields] == ["A01_s1_w1", "A01_s1_w2", "other"]
    assert not any(field.well or field.parts for field in fields)


@pytest.mark.parametrize("well", ["A00", "A49", "AG01", "ZZ03"])
def test_a_well_that_is_on_no_plate_is_a_problem_of_that_image_alone(
    well: str, tmp_path: Path
) -> None:
    files(tmp_path, "A01_1_x.tif", f"{well}_1_x.tif")
    fields = discover([tmp_path], "{well}_{site}_{channel}.tif")
    good, bad = sorted(fields, key=lambda field: field.well != "A01")
    assert good.problem is None
    assert bad.problem is not None
    assert f"well {well} is on no plate; rows are A to AF, columns 1 to 48." in bad.problem


def test_pixel_sizes_that_disagree_in_a_plate_are_told() -> None:
    um = (1.0, 0.5, 0.5)
    assert disagreements([("p", um), ("p", um), ("q", None), (None, None)]) == []
    (note,) = disagreements([("p", um), ("p", um), ("p", None), ("q", um)])
    assert note.startswith("plate p: pixel sizes differ: 0.5 um in 2, unknown in 1. ")


def test_discovery_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(tifffile, "TiffFile", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    assert found(files(tmp_path, "a.tif")) == ["a.tif"]
