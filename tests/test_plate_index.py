"""Plate index: channel names, pixel size and planes of Harmony and CellVoyager."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellseg.pipeline.plate_index import read_index

IMAGE = """<Image Version="1"><id>0101K1F1P{z}R{c}</id><State>Ok</State>
<URL>r01c01f01p0{z}-ch{c}sk1fk1fl1.tiff</URL><Row>1</Row><Col>1</Col><FieldID>1</FieldID>
<PlaneID>{z}</PlaneID><TimepointID>1</TimepointID><ChannelID>{c}</ChannelID>{inside}
<PositionZ Unit="m">{height}</PositionZ></Image>"""
CHANNEL = """<ChannelName>{name}</ChannelName><ImageResolutionX Unit="m">2.96E-07</ImageResolutionX>
<ImageResolutionY Unit="m">2.97E-07</ImageResolutionY>"""
PLATE = """<?xml version="1.0" encoding="utf-8"?><EvaluationInputData
xmlns="http://www.perkinelmer.com/PEHH/HarmonyV6"><Plates><Plate><PlateID>screen 3</PlateID>
<Name>other</Name></Plate></Plates>{maps}<Images>{images}</Images></EvaluationInputData>"""
MRF = """<?xml version="1.0" encoding="utf-8"?><bts:MeasurementDetail
xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0"><bts:MeasurementChannel bts:Ch="1"
bts:HorizontalPixelDimension="0.65" bts:VerticalPixelDimension="0.65" /></bts:MeasurementDetail>"""
MLF = """<?xml version="1.0" encoding="utf-8"?><bts:MeasurementData
xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0">{records}</bts:MeasurementData>"""
RECORD = """<bts:MeasurementRecord bts:Type="IMG" bts:Column="1" bts:Row="1" bts:TimePoint="1"
bts:FieldIndex="{field}" bts:ZIndex="{z}" bts:Z="{height}" bts:Ch="1">x.tif</bts:MeasurementRecord>
"""


def harmony(*, maps: bool) -> str:
    channels = {c: CHANNEL.format(name=name) for c, name in ((1, "DAPI"), (2, "Alexa 488"))}
    entries = "".join(f'<Entry ChannelID="{c}">{text}</Entry>' for c, text in channels.items())
    images = "".join(
        IMAGE.format(z=z, c=c, height=-1e-6 + z * 5e-7, inside="" if maps else text)
        for z in (1, 2, 3)
        for c, text in channels.items()
    )
    return PLATE.format(maps=f"<Maps><Map>{entries}</Map></Maps>" if maps else "", images=images)


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("name", ["Index.idx.xml", "Images/Index.xml"])
def test_harmony(name: str, maps: bool, tmp_path: Path) -> None:
    (tmp_path / "Images").mkdir()
    (tmp_path / name).write_text(harmony(maps=maps), encoding="utf-8")
    found = read_index(tmp_path, "harmony")
    assert found is not None
    assert found.plate == "screen 3"
    assert (found.channels["ch1"], found.channels["ch02"]) == ("DAPI", "Alexa 488")
    assert found.spacing_um == pytest.approx((0.5, 0.297, 0.296))
    assert found.note is None


def test_cellvoyager(tmp_path: Path) -> None:
    (tmp_path / "MeasurementDetail.mrf").write_text(MRF, encoding="utf-8")
    found = read_index(tmp_path, "cellvoyager")
    assert found is not None
    assert found.spacing_um == (None, 0.65, 0.65)
    records = [
        RECORD.format(field=field, z=z, height=field + 2.5 * z) for field in (1, 2) for z in (1, 2)
    ]
    text = MLF.format(records="".join(records))
    (tmp_path / "MeasurementData.mlf").write_text(text, encoding="utf-8")
    found = read_index(tmp_path, "cellvoyager")
    assert found is not None
    assert found.spacing_um == (2.5, 0.65, 0.65)


def test_no_index_is_nothing_and_a_damaged_one_a_note(tmp_path: Path) -> None:
    assert read_index(tmp_path, "harmony") is None
    (tmp_path / "Index.xml").write_text(harmony(maps=False)[:600], encoding="utf-8")
    assert read_index(tmp_path, "imagexpress") is None
    found = read_index(tmp_path, "harmony")
    assert found is not None
    assert found.channels == {}
    assert "Index.xml: cannot be read (" in str(found.note)
