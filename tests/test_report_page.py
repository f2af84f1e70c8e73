"""The report in a real browser: what it shows and does, and that it asks nobody for anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from browser import Browser, started
from reported import add_quality, name_controls, write_wells

from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.report import write_report
from synthetic import cells

EVIL = "<img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of 30 images, two of them broken, with the tables of a plate."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "plate").mkdir()
    image, _ = cells(1, shape=(96, 100), count=8)
    for number in range(30):
        path = folder / "plate" / f"x_{'ABC'[number // 10]}{number % 10 + 1:02d}_s1_w1.tif"
        tifffile.imwrite(path, np.roll(image, number, axis=1).astype(np.uint16))
    for well in ("A02", "C05"):
        (folder / "plate" / f"x_{well}_s1_w1.tif").write_bytes(b"II*\0 no image")
    text = 'images = "plate"\n[model]\nname = "threshold"\nsmooth_px = 1.0\n'
    (folder / "w.toml").write_text(text)
    workflow = read_workflow(folder / "w.toml", ["output.report=false"], output=folder / "out")
    run(workflow, Config(device="cpu"))
    out = folder / "out"
    write_wells(out, 8, 12, plates=("x", EVIL), measurements=("area_px", f"mean_{EVIL}"))
    add_quality(out, ["out of focus", EVIL])
    document = json.loads((out / "run.json").read_text())
    document["images"][3]["warnings"] = [EVIL]
    (out / "run.json").write_text(json.dumps(document))
    name_controls(out)
    write_report(out)
    return out


@pytest.fixture
def page(browser: Browser, folder: Path) -> Browser:
    browser.open(folder / "report.html")
    return browser


def test_it_is_complete_in_itself(page: Browser, folder: Path) -> None:
    page.ask("for (const d of document.querySelectorAll('details')) d.open = true")
    for image in page.ask("return [...document.images].map(i => i.complete || i.loading)"):
        assert image in (True, "lazy")
    own = (folder / "report.html").as_uri()
    asked = page.requests()
    assert own in asked
    assert [url for url in asked if url != own and not url.startswith("data:")] == []
    assert page.logged("browser") == []


def test_every_section_is_there_and_every_link_leads_somewhere(page: Browser, folder: Path) -> None:
    titles = page.texts("main h2")
    assert titles == page.texts("nav a")
    for title in ("Plates", "Controls", "Gates", "Distributions", "Images", "Seams"):
        assert title in titles
    inside = "[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.hash.slice(1))"
    targets = page.ask(f"return {inside}.filter(id => !id.startsWith('image-'))")
    assert page.ask("return arguments[0].filter(id => !document.getElementById(id))", targets) == []
    files = page.ask(
        "return [...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href'))"
        ".filter(h => !h.startsWith('#'))"
    )
    assert files
    assert all((folder / name).is_file() for name in files)


def test_names_stay_text(page: Browser) -> None:
    assert EVIL in "".join(page.texts("#issues"))
    assert EVIL in page.texts("#plates figcaption")
    assert f"mean_{EVIL}" in page.texts("#plate-what option")
    assert page.ask("return document.querySelectorAll('img[src=x]').length") == 0
    assert page.ask("return document.title") == "out - cellseg report"


def well(page: Browser, name: str) -> str:
    found: str = page.ask(
        f"return document.querySelector('[data-well={name}]').getAttribute('data-value')"
    )
    return found


def test_the_selects_change_what_the_heat_map_shows(page: Browser) -> None:
    assert well(page, "B03") == "103"
    assert page.texts("#plate-low, #plate-high") == ["1", "712"]
    colour = "return document.querySelector('[data-well=B03]').getAttribute('fill')"
    before = page.ask(colour)
    page.choose("#plate-what", "area_px")
    assert {"mean", "mean, z-score", "median"} <= set(page.texts("#plate-how option"))
    assert 100 < float(well(page, "B03")) < 500
    assert page.ask(colour) != before
    page.choose("#plate-how", "area_px_mean_z")
    assert abs(float(well(page, "B03"))) < 5
    low, high = (float(text) for text in page.texts("#plate-low, #plate-high"))
    assert low == -high
    page.ask("document.querySelector('#plates details').open = true")
    page.ask("return new Promise(done => setTimeout(done, 50))")
    rows = page.texts("#plates tbody tr")
    assert len(rows) == 192
    assert rows[0].startswith("xA012negative")


def test_wells_are_read_with_the_keyboard_and_lead_to_their_images(page: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    page.press("#plates figure svg", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    (said,) = page.texts("#hint")
    assert said.startswith("B02, positive control\ncells: 102")
    page.press("#plates figure svg", Keys.ENTER)
    assert [text[:6] for text in page.texts("#image-table tbody tr")] == ["donex_"]
    assert "x_B02_s1_w1" in page.texts("#image-table tbody tr")[0]


def test_the_table_of_images_sorts_filters_and_grows(page: Browser) -> None:
    rows = page.texts("#image-table tbody tr")
    assert len(rows) == 25
    assert [row.startswith("failed") for row in rows[:3]] == [True, True, False]

    def counts() -> list[int]:
        texts = page.texts("#image-table tbody td.n:has(.meter)")
        return [int(text) for text in texts]

    for order in (False, True):
        page.click("#image-table th:has(button).n button")
        assert counts() == sorted(counts(), reverse=order)
    page.click("#images .more button")
    assert len(page.texts("#image-table tbody tr")) == 30
    page.ask("const f = document.querySelector('#image-filter'); f.value = 'B0';"
             " f.dispatchEvent(new Event('input'))")  # fmt: skip
    assert len(page.texts("#image-table tbody tr")) == 9
    page.click("#issues .where a")
    assert page.texts("tr.target")[0].startswith("failedx_A02")
    assert page.ask("return location.hash") == "#image-28"  # those that cannot be read come last
    page.chrome.refresh()
    assert page.texts("tr.target")[0].startswith("failedx_A02")


def test_the_histogram_follows_its_select_and_shows_gates(page: Browser) -> None:
    assert page.texts("#distributions svg .gate") == ["positive > 150.5"]
    assert len(page.texts("#distributions .legend span")) == 3
    page.choose("#distribution-what", "solidity")
    assert page.texts("#distributions svg .gate") == []
    assert "solidity" in page.texts("#distributions svg .strong")
    assert (
        page.ask("return document.querySelector('[aria-pressed=true]').dataset.name") == "solidity"
    )


@pytest.mark.parametrize("width", [360, 1300])
def test_nothing_sticks_out_of_a_narrow_window(page: Browser, width: int) -> None:
    page.chrome.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    try:
        assert page.ask("return document.documentElement.scrollWidth") <= width
    finally:
        page.chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
