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
from cellseg.pipeline.plate import PATTERNS, discover

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


def test_a_preset_is_assumed_only_if_every_file_has_it(tmp_path: Path) -> None:
    files(tmp_path, "plate_A01_s1_w1.tif", "plate_A02_s1_w1.tif", "overview.tif")
    assert all(field.well is None for field in discover([tmp_path], None))
    assert {field.well for field in discover([tmp_path / "plate*"], None)} == {"A01", "A02"}


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
        ("empty", "empty: empty; readable are .tif, .tiff, .btf, .zarr."),
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
    from cellseg.pipeline.plate import _names

    names = _names([Path("/data", folder, f"{stem}.tif") for folder, stem in sorted(parts)])
    assert len({name.lower() for name in names}) == len(parts)
    assert all(re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*", name) for name in names)


def test_every_preset_has_the_three_groups() -> None:
    for pattern in PATTERNS.values():
        assert set(re.compile(pattern).groupindex) == {"well", "site", "channel"}


def test_discovery_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(tifffile, "TiffFile", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    assert found(files(tmp_path, "a.tif")) == ["a.tif"]
