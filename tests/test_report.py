"""The report: made of a results folder alone, whatever is missing there or written in its names."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from click.testing import CliRunner, Result
from reported import add_quality, name_controls, write_wells

from cellseg.models import CellsegError
from cellseg.pipeline import report as reporting
from cellseg.pipeline.chosen_cells import choose
from cellseg.pipeline.cli import main
from cellseg.pipeline.gate_settings import Controls
from cellseg.pipeline.histograms import BINS, Bins, histograms, spread_groups
from cellseg.pipeline.report import document, page, write_report
from cellseg.pipeline.report_wells import control_of, plates
from cellseg.pipeline.report_words import grouped
from cellseg.pipeline.results import Results
from synthetic import cells

EVIL = "</script><img src=x onerror=alert(1)>&\u2028"


def cellseg(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def write(path: Path, seed: int, count: int = 8) -> None:
    image, _ = cells(seed, shape=(96, 100), count=count)
    tifffile.imwrite(path, image.astype(np.uint16))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three wells and a workflow; the current directory."""
    (tmp_path / "plate").mkdir()
    for seed, well in enumerate(("A01", "A02", "B03")):
        write(tmp_path / "plate" / f"x_{well}_s1_w1.tif", seed)
    text = 'images = "plate"\noutput = "out"\n[model]\nname = "threshold"\nsmooth_px = 1.0\n'
    (tmp_path / "w.toml").write_text(text + "[tiling]\nsize = 64\nhalo = 24\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(folder: Path) -> dict[str, Any]:
    """Return what the written page shows."""
    text = (folder / "out" / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def test_a_run_writes_a_report_of_all_of_it(folder: Path) -> None:
    run = cellseg("run", "w.toml")
    assert run.exit_code == 0, run.output
    assert re.search(r"  report +out/report.html\n", run.output)
    found = shown(folder)
    assert found["cells"] == sum(row[5] for row in found["images"]["rows"]) > 10
    assert (found["done"], found["failed"], found["issues"]) == (3, 0, [])
    assert [row[3] for row in found["images"]["rows"]] == ["A01", "A02", "B03"]
    assert found["controls"] is None
    assert [well[3] for well in found["plates"]["wells"]] == ["A01", "A02", "B03"]
    assert len(found["quality"]["channels"]) == 1
    assert 'name = "threshold"' in found["workflow"]
    kinds = {kind["kind"]: kind["cells"] for kind in found["pictures"]["kinds"]}
    assert {"typical", "largest", "smallest"} <= set(kinds)
    assert found["pictures"]["missing"] == found["pictures"]["of_overviews"] == 0
    assert len(found["overviews"]["shown"]) == 3
    assert all((folder / "out" / o["href"]).is_file() for o in found["overviews"]["shown"])
    table = pq.read_table(folder / "out" / "cells.parquet").to_pandas()
    whole = table[~table["touches_edge"]]
    assert kinds["largest"][0]["value"] == f"{whole['area_px'].max():,} px"
    area = next(c for c in found["distributions"]["columns"] if c["name"] == "area_px")
    assert area["number"] == len(table)
    assert np.sum(area["counts"]) + area["below"] + area["above"] == len(table)
    assert area["mean"] == pytest.approx(table["area_px"].mean())
    for stage in found["stages"]:
        assert stage["seconds"] >= 0
        assert stage["memory_mb"] is None or stage["memory_mb"] > 50


def test_a_report_is_made_again_from_the_folder_alone(folder: Path) -> None:
    cellseg("run", "w.toml", "--set", "output.report=false")
    assert not (folder / "out" / "report.html").exists()
    for path in (folder / "plate").iterdir():
        path.unlink()
    (folder / "out").rename(folder / "moved")
    again = cellseg("report", "moved")
    assert (again.exit_code, again.output) == (0, "moved/report.html\n")
    (folder / "moved").rename(folder / "out")
    found = shown(folder)
    # Without the images, cells are cut from the overviews.
    assert found["pictures"]["missing"] == 0
    assert found["pictures"]["of_overviews"] > 10
    for labels in (folder / "out").rglob("labels.zarr"):
        labels.rename(labels.with_name("gone"))
    write_report(folder / "out")
    assert len(shown(folder)["overviews"]["shown"]) == 3
    assert shown(folder)["pictures"]["kinds"] == []
    for overview in (folder / "out").rglob("overview.png"):
        overview.unlink()
    write_report(folder / "out")
    found = shown(folder)
    assert found["pictures"]["kinds"] == found["overviews"]["shown"] == []
    assert found["pictures"]["missing"] > 10


def test_measuring_again_makes_the_report_anew(folder: Path) -> None:
    cellseg("run", "w.toml")
    again = cellseg("measure", "out", "--set", 'measure.groups=["shape"]')
    assert again.exit_code == 0, again.output
    assert "  report    out/report.html" in again.output
    names = {column["name"] for column in shown(folder)["distributions"]["columns"]}
    assert "solidity" in names
    assert "mean_w1" not in names
    assert any(stage["name"] == "segment" for stage in shown(folder)["stages"])


def test_failures_come_first_each_reason_once_and_with_what_to_do(folder: Path) -> None:
    for well in ("C01", "C02"):
        (folder / "plate" / f"x_{well}_s1_w1.tif").write_bytes(b"II*\0 no image")
    write(folder / "plate" / "x_D01_s1_w1.tif", 0, count=0)
    assert cellseg("run", "w.toml").exit_code == 1
    found = shown(folder)
    assert found["failed"] == 2
    failed, *others = found["issues"]
    assert (failed["level"], failed["count"]) == ("failed", 2)
    assert [found["names"][n] for n in failed["images"]] == ["x_C01_s1_w1", "x_C02_s1_w1"]
    assert "run the same command again" in failed["advice"]
    (empty,) = [issue for issue in others if issue["text"] == "no cells were found"]
    assert "[model] channels" in empty["advice"]
    rows = {row[1]: row for row in found["images"]["rows"]}
    assert rows["x_C01_s1_w1"][5] is None
    assert rows["x_D01_s1_w1"][5] == 0


def test_a_run_without_any_cell_has_a_report(folder: Path) -> None:
    for path in (folder / "plate").iterdir():
        write(path, 0, count=0)
    assert cellseg("run", "w.toml").exit_code == 0
    found = shown(folder)
    assert found["cells"] == 0
    assert found["pictures"] == {"kinds": [], "missing": 0, "of_overviews": 0}
    assert found["distributions"]["columns"] == []


def test_what_is_no_results_folder_is_told_in_one_line(folder: Path) -> None:
    (folder / "run.json").write_text("[]")
    told = cellseg("report", ".")
    assert told.exit_code == 2
    assert "no results folder of cellseg" in told.output
    with pytest.raises(CellsegError, match="no results folder"):
        write_report(folder / "nowhere")
    assert not (folder / "nowhere").exists()


def test_a_report_that_fails_costs_the_run_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cellseg("run", "w.toml")

    def broken(*_: object) -> None:
        raise RuntimeError("no room\nfor pictures")

    monkeypatch.setattr(reporting, "document", broken)
    run = cellseg("run", "w.toml")
    assert run.exit_code == 0
    told = "report.html was not written: no room for pictures; `cellseg report out` tries again"
    assert f"  note: {told}" in run.output
    assert "  report " not in run.output
    assert not (folder / "out" / "report.html").exists()
    assert json.loads((folder / "out" / "run.json").read_text())["warnings"] == [told]


class Tags(HTMLParser):
    """Which elements a page has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)


def test_no_name_becomes_markup(folder: Path) -> None:
    cellseg("run", "w.toml")
    results = Results(folder / "out")
    plain = Tags(page(document(results))).found
    run = json.loads(results.run_path.read_text())
    for image in run["images"]:
        image |= {"warnings": [EVIL], "channels": [EVIL], "plate": EVIL, "well": EVIL}
        image["quality"] = {EVIL: {"background": 1.0, "saturated": 0, "focus": None, "flags": []}}
    run["warnings"] = [EVIL]
    results.run_path.write_text(json.dumps(run))
    text = page(document(results) | {"title": EVIL})
    assert Tags(text).found == plain
    assert "<img src=x" not in text


def test_tables_of_wells_become_plates_with_controls_and_gates(folder: Path) -> None:
    cellseg("run", "w.toml")
    out = folder / "out"
    write_wells(out, 8, 12, plates=("p1", "p2"), empty=("C03",))
    add_quality(out, ["out of focus"])
    name_controls(out)
    write_report(out)
    found = shown(folder)
    assert [(p["name"], p["rows"], p["columns"]) for p in found["plates"]["plates"]] == [
        ("p1", 8, 12),
        ("p2", 8, 12),
    ]
    kinds = {(w[0], w[3]): w[5] for w in found["plates"]["wells"]}
    assert (kinds[0, "H01"], kinds[0, "H02"], kinds[0, "B03"]) == ("negative", "positive", "other")
    assert kinds[1, "B03"] == "positive"
    columns = {(c["base"], c["aggregate"], c["score"]): c for c in found["plates"]["columns"]}
    assert ("mean_DAPI", "mean", "_robust_z") in columns
    assert ("cells", "", "_z") in columns
    assert ("positive_fraction", "", "") in columns
    third = next(n for n, w in enumerate(found["plates"]["wells"]) if w[3] == "C03")
    assert columns["cells", "", ""]["values"][third] == 0
    assert columns["area_px", "mean", ""]["values"][third] is None
    assert set(columns["cells_per_mm2", "", ""]["values"]) == {None}
    assert found["controls"][0]["z_prime"] == 0.625
    assert found["gates"]["positive"]["threshold"] == 150.5
    (flag,) = [issue for issue in found["issues"] if "focus" in issue["text"]]
    assert flag["text"] == "channel DAPI: out of focus"
    (channel,) = found["quality"]["channels"]
    assert [row[-1] for row in channel["rows"]] == ["out of focus", "", ""]
    # Of the run's wells A01 is a negative control and A02 a positive one.
    area = next(c for c in found["distributions"]["columns"] if c["name"] == "area_px")
    rows = {row[3]: row[5] for row in found["images"]["rows"]}
    counted = [sum(row) for row in area["counts"]]
    beyond = area["below"] + area["above"]
    for own, well in zip(counted, ("A01", "A02", "B03"), strict=True):
        assert rows[well] - beyond <= own <= rows[well]


def test_a_plate_is_of_the_smallest_usual_format_and_the_page_of_bounded_size() -> None:
    wells = pa.table({"plate": [None, None], "well": ["A01", "AF48"], "cells": [1, 2]})
    found = plates(wells, Controls())
    assert found is not None
    assert (found["plates"][0]["rows"], found["plates"][0]["columns"]) == (32, 48)
    assert plates(pa.table({"plate": ["p"], "well": ["here"], "cells": [1]}), Controls()) is None
    many = {f"m{n}_{kind}": np.ones(1536) for n in range(100) for kind in ("mean", "q50", "q95")}
    names = [f"{chr(65 + n // 48)}{n % 48 + 1:02d}" for n in range(1536)]
    names = [name if name[0] <= "Z" else f"A{chr(ord(name[0]) - 26)}{name[1:]}" for name in names]
    large = pa.table({"plate": ["p"] * 1536, "well": names} | many)
    found = plates(pa.concat_tables([large] * 2), Controls())
    assert found is not None
    assert found["left_out"] == 300 - 500_000 // 3072
    assert {c["aggregate"] for c in found["columns"]} == {"mean", "q50"}


def test_wells_are_controls_by_name_glob_or_plate() -> None:
    controls = Controls(negative=("A01", "B*"), positive=("p2/C0?",))
    assert [control_of(controls, "p1", well) for well in ("A01", "B12", "C01", None)] == [
        0,
        0,
        2,
        2,
    ]
    assert control_of(controls, "p2", "C01") == 1
    assert control_of(Controls(positive=("A3",)), "p1", "A03") == 1
    assert control_of(Controls(), None, "A01") == 2


def test_warnings_that_differ_in_numbers_alone_are_one() -> None:
    reports = [
        {"name": f"i{n}", "state": "done", "source": f"/p/i{n}.tif", "warnings": [text]}
        for n, text in enumerate(
            ("seams: 0.8 (p 0.0001)", "seams: 0.75 (p 1e-05)", "/p/i2.tif: odd")
        )
    ]
    found = grouped(reports, ["left over (a.tif)"], "running")
    assert [(issue["level"], issue["count"]) for issue in found] == [
        ("failed", 0),
        ("warning", 2),
        ("warning", 1),
        ("note", 0),
    ]


def test_histograms_of_a_long_table_count_evenly_spread_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellseg.pipeline.histograms.MOST_ROWS", 3000)
    values = np.arange(10_000) % 100 * 1.5
    values[values == 3.0] = np.nan
    table = pa.table({"v": values, "same": np.full(10_000, 7.0), "none": np.full(10_000, np.nan)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=500)
    found = histograms(
        tmp_path / "t.parquet", table.column_names, [], lambda b: np.zeros(len(b), np.int64), 1
    )
    assert (found["rows"], found["read"]) == (10_000, 2500)
    by_name = {column["name"]: column for column in found["columns"]}
    assert set(by_name) == {"v", "same"}
    assert by_name["v"]["number"] == 2475
    assert (by_name["v"]["least"], by_name["v"]["most"]) == (0.0, 148.5)
    assert np.sum(by_name["same"]["counts"]) == 2500
    assert spread_groups([10] * 100, 250) == list(range(0, 100, 4))


def test_bins_hold_as_many_whole_numbers_each() -> None:
    bins = Bins.around(np.arange(1000.0), 1)
    assert bins is not None
    width = (bins.high - bins.low) / BINS
    assert width == round(width)
    assert (bins.low % 1, bins.high % 1) == (0.5, 0.5)
    bins.add(np.arange(1000.0), np.zeros(1000, np.int64))
    assert bins.number == 1000
    assert bins.counts.sum() + bins.below + bins.above == 1000


def test_cells_are_chosen_over_all_row_groups(folder: Path) -> None:
    cellseg("run", "w.toml")
    path = folder / "out" / "cells.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows, path, row_group_size=3)
    chosen = choose(path, "mean_w1")
    whole = rows.to_pandas().query("not touches_edge")
    areas = [row["area_px"] for row in chosen["largest"]]
    assert areas == sorted(whole["area_px"], reverse=True)[: len(areas)]
    assert [row["area_px"] for row in chosen["smallest"]] == sorted(whole["area_px"])[: len(areas)]
    assert {row["seam"] for row in chosen["on seams"]} <= {"joined", "resolved"}
    assert len({row["image"] for row in chosen["typical"]}) == 3
    scores = rows.to_pandas()["score"]
    certain = [row["score"] for row in chosen["least certain"]]
    assert certain == sorted(scores)[: len(certain)]
