"""File names: what each preset and form reads from them, and what they leave alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellseg.pipeline.file_names import PRESETS, fitting, given, off_plate

GUID = "521471E0-9BD7-492A-8739-9C782C2585B0"
# Preset, path, and plate, well, site, channel, z, t.
NAMES = [
    ("imagexpress", f"my_plate_P03_s12_w2{GUID}.TIF", "my_plate P03 12 w2 - -"),
    ("imagexpress", "d/TimePoint_3/ZStep_2/x_A01_s1_w1.tif", "x A01 1 w1 2 3"),
    ("imagexpress", "d/TimePoint_3/x_A01.TIF", "x A01 - - - 3"),
    ("imagexpress", "d/ZStep_0/A01_w1.tif", "- A01 - w1 - -"),
    ("imagexpress", "A01_s1_w1_z3_t2.tif", "- A01 1 w1 3 2"),
    ("cellprofiler", "AS_09047_O01f00d2.TIF", "AS_09047 O01 00 d2 - -"),
    ("harmony", "Images/r02c03f01p02-ch1sk4fk1fl1.tiff", "- B03 01 ch1 02 4"),
    ("harmony", "r27c48f123p01-ch12t05.tiff", "- AA48 123 ch12 01 05"),
    ("cellvoyager", "a_b_#6_H12_T0001F002L01A03Z04C05.tif", "a_b_#6 H12 002 C05 04 0001"),
    ("incucyte", "VID123_A1_1_2023y01m01d_00h00m.tif", "VID123 A01 1 - - 2023y01m01d_00h00m"),
    ("incucyte", "my_exp_phase_H12_9_00d04h00m.tif", "my_exp H12 9 phase - 00d04h00m"),
    ("generic", "A01_1_DAPI.tif", "- A01 1 DAPI - -"),
    ("generic", "B02_f3_ch2.tif", "- B02 3 ch2 - -"),
    ("generic", "my_plate_C3_site4_GFP_z2_t1.tif", "my_plate C03 4 GFP 2 1"),
    ("generic", "C03_s4_t1_z2_GFP.tiff", "- C03 4 GFP 2 1"),
    ("generic", "B02_f3.tif", "- B02 3 - - -"),
]


@pytest.mark.parametrize(("preset", "path", "said"), NAMES)
def test_each_preset_reads_its_names_and_is_the_one_that_fits(
    preset: str, path: str, said: str
) -> None:
    whole = Path("/data", path)
    found = given(preset).read(whole, None)
    assert found is not None
    parts = (found.plate, found.well, found.site, found.channel, found.z, found.t)
    assert " ".join(part or "-" for part in parts) == said
    fits = fitting([whole])
    assert fits is not None
    assert fits[0].name == preset
    assert fits[1] == [found]


@pytest.mark.parametrize(
    "name",
    [
        *("embryo_T05.tif", "scan_z01.tif", "IMG_2041.tif", "A01_2.tif", "A01_1_2.tif"),
        *("A01_1_z3.tif", "A01_1_t3.tif", "T05_1_DAPI.tif", "A01_DAPI.tif", "x_A01.tif"),
    ],
)
def test_other_names_fit_no_preset(name: str) -> None:
    assert fitting([Path("/data", name)]) is None


def test_folders_between_plate_and_files_are_no_part_of_the_plate() -> None:
    for path in ("p/TimePoint_1/ZStep_2/A01_s1_w1.tif", "p/A01_s1_w1.tif"):
        found = given("imagexpress").read(Path("/data", path), None)
        assert found is not None
        assert found.folder == Path("/data/p")


def test_a_preset_must_fit_more_than_half() -> None:
    plate = [Path(f"/d/A0{n}_s1_w1.tif") for n in range(3)]
    others = [Path(f"/d/{n}.tif") for n in range(3)]
    assert fitting([*plate, *others]) is None
    assert fitting([]) is None
    fits = fitting([*plate, *others[:2]])
    assert fits is not None
    assert [name is None for name in fits[1]] == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("form", "path", "said"),
    [
        ("{well}_{site}_{channel}.tif", "B2_03_my_dye.TIF", "- B02 03 my_dye - -"),
        ("{plate}/{well}/*_{channel}", "p 1/C04/x y_DAPI.ome.tif", "p 1 C04 - DAPI - -"),
        ("{row}-{column}-f{field}.t{t}.z{z}.tif", "3-5-f1.t2.z4.tif", "- C05 1 - 4 2"),
    ],
)
def test_forms_in_braces(form: str, path: str, said: str) -> None:
    found = given(form).read(Path("/data", path), Path("/data"))
    assert found is not None
    parts = (found.plate, found.well, found.site, found.channel, found.z, found.t)
    assert " ".join(part or "-" for part in parts) == said
    assert given(form).read(Path("/data", path + "x"), Path("/data")) is None or "." not in form


@pytest.mark.parametrize(
    ("well", "off"),
    [
        *(("A01", False), ("AF48", False), ("Z48", False), ("control", False), (None, False)),
        *(("A00", True), ("A49", True), ("AG01", True), ("row 33 column 05", True)),
    ],
)
def test_wells_of_1536(well: str | None, off: bool) -> None:
    assert off_plate(well) is off


def test_rows_and_columns_beyond_a_plate_are_told() -> None:
    found = given("harmony").read(Path("/d/r33c05f01p01-ch1sk1fk1fl1.tiff"), None)
    assert found is not None
    assert off_plate(found.well)
    assert set(PRESETS) == {name for name, _, _ in NAMES}
