"""Where two segmentations differ is found cell by cell, whatever the windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline import differences
from cellseg.pipeline.cli import main
from cellseg.pipeline.differences import KINDS, SCHEMA, Comparison
from cellseg.pipeline.score import match
from synthetic import cells

SHAPE = (60, 90)


def sides(tmp_path: Path, a: NDArray[Any], b: NDArray[Any]) -> tuple[Path, Path]:
    for name, labels in (("a", a), ("b", b)):
        (tmp_path / name).mkdir(exist_ok=True)
        tifffile.imwrite(
            tmp_path / name / "f.tif", labels.astype(np.uint16), photometric="minisblack"
        )
    return tmp_path / "a", tmp_path / "b"


def drawn() -> tuple[NDArray[Any], NDArray[Any]]:
    """One of each kind, and a cell that is the same in both."""
    a, b = np.zeros(SHAPE, np.uint16), np.zeros(SHAPE, np.uint16)
    a[2:10, 2:10] = b[2:10, 2:10] = 7
    a[20:30, 2:22], b[20:30, 2:12], b[20:30, 12:22] = 1, 3, 4
    a[20:30, 40:50], a[20:30, 50:62], b[20:30, 40:62] = 2, 3, 5
    a[2:10, 40:50], b[2:10, 44:56] = 4, 9
    a[40:50, 2:12] = 5
    b[40:50, 60:70] = 6
    return a, b


def compared(one: Path, other: Path) -> Comparison:
    going = Comparison(one, other)
    assert list(going.steps()) == ["f"]
    return going


@pytest.mark.parametrize("window", [2048, 17])
def test_each_kind_is_told(tmp_path: Path, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "WINDOW_PX", window)
    found = compared(*sides(tmp_path, *drawn())).result()
    assert found.counts == {"same": 1} | dict.fromkeys(KINDS, 1)
    rows = {row["kind"]: row for row in found.table.to_pylist()}
    labels = {kind: (row["label_a"], row["label_b"], row["others"]) for kind, row in rows.items()}
    assert labels == {
        "split": (1, 3, "4"),
        "merged": (3, 5, "2"),
        "outline": (4, 9, None),
        "only_a": (5, None, None),
        "only_b": (None, 6, None),
    }
    outline = rows["outline"]
    assert outline["iou"] == pytest.approx(48 / (80 + 96 - 48))
    assert [outline[f"{name}_px"] for name in ("y0", "x0", "y1", "x1")] == [2, 40, 10, 56]
    assert (rows["only_a"]["y_px"], rows["only_a"]["x_px"]) == (44.5, 6.5)
    assert (rows["only_a"]["image"], rows["only_a"]["t"], rows["only_a"]["z"]) == ("f", 0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_cells_agree_and_no_cell_is_told_twice(tmp_path: Path, seed: int) -> None:
    _, a = cells(seed, (120, 130), 20)
    b = np.roll(a, (2, 3), (0, 1))
    b[b % 5 == 1] = 0
    assert compared(*sides(tmp_path, a, a)).result().table.num_rows == 0
    found = compared(*sides(tmp_path, a, b)).result()
    for name, labels in (("label_a", a), ("label_b", b)):
        told = [label for label in found.table[name].to_pylist() if label is not None]
        assert len(told) == len(set(told))
        assert set(told) <= set(np.unique(labels).tolist())
    (score,) = match(a.astype(np.int32), b.astype(np.int32), [differences.SAME_IOU])
    assert found.same == score.true_positive


def test_cells_of_volumes_and_layers_are_compared_whole(tmp_path: Path) -> None:
    a = np.zeros((3, *SHAPE), np.uint16)
    a[:, 5:15, 5:15], a[1:, 30:40, 30:40] = 1, 2
    b = a.copy()
    b[:2, 5:15, 5:15] = 0
    found = compared(*sides(tmp_path, a, b)).result()
    assert found.counts["same"] == 1
    (row,) = found.table.to_pylist()
    assert (row["kind"], row["z"], row["iou"]) == ("outline", 1, pytest.approx(1 / 3))


def test_the_command_writes_a_table_and_counts(tmp_path: Path) -> None:
    one, other = sides(tmp_path, *drawn())
    tifffile.imwrite(one / "more.tif", np.zeros(SHAPE, np.uint16))
    table = tmp_path / "sub" / "d.csv"
    arguments = ["compare", str(one), str(other), "-o"]
    result = CliRunner().invoke(main, [*arguments, str(table)])
    assert result.exit_code == 0, result.output
    assert "1 cells are only in A" in result.output
    assert "only in one: more" in result.output
    assert table.read_text().splitlines()[0].replace('"', "") == ",".join(SCHEMA.names)
    assert CliRunner().invoke(main, [*arguments, str(tmp_path / "d.parquet")]).exit_code == 0
    result = CliRunner().invoke(main, arguments[:3])
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1)


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    one, other = sides(tmp_path, *drawn())
    tifffile.imwrite(other / "f.tif", np.zeros((9, 9), np.uint16))
    with pytest.raises(CellsegError, match="differ"):
        list(Comparison(one, other).steps())
    (other / "f.tif").rename(other / "g.tif")
    with pytest.raises(CellsegError, match="no image is in both"):
        Comparison(one, other)
