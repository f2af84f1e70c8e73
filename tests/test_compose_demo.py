"""The demo of overlapping cells: what ships is whole, and its script makes such again."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from synthetic import cells

# The benchmarks are no part of the package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.compose_demo import FOLDER, SEEDS, main


def test_each_shipped_image_has_its_truth_cell_by_cell() -> None:
    for name in SEEDS:
        image = tifffile.imread(FOLDER / f"{name}.tif")
        truth = tifffile.imread(FOLDER / "truth" / f"{name}.tif")
        assert image.dtype == np.uint16
        assert truth.shape[1:] == image.shape
        assert np.unique(truth).tolist() == [0, 255]
        assert (np.count_nonzero(truth, axis=(1, 2)) >= 4).all()
        depth = np.count_nonzero(truth, axis=0)
        levels = [np.median(image[depth == number]) for number in range(3)]
        assert levels == sorted(levels, reverse=name.startswith("bright_field"))
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in SEEDS:
        count = len(tifffile.imread(FOLDER / "truth" / f"{name}.tif"))
        assert f"`{name}.tif` | {count} |" in readme


def test_the_script_makes_all_images_from_a_folder(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    image, labels = cells(0)
    tifffile.imwrite(tmp_path / "images" / "a.tif", image)
    tifffile.imwrite(tmp_path / "labels" / "a.tif", labels.astype(np.uint16))
    (tmp_path / "val.txt").write_text("a.tif\n", encoding="utf-8")
    main(["--data", str(tmp_path), "--output", str(tmp_path / "demo")])
    assert {path.stem for path in (tmp_path / "demo").glob("*.tif")} == set(SEEDS)
    assert {path.stem for path in (tmp_path / "demo" / "truth").glob("*.tif")} == set(SEEDS)


def test_a_folder_without_a_list_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--data", str(tmp_path)])
    assert "val.txt: no such file" in capsys.readouterr().err
