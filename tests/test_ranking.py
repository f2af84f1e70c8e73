"""The queue over all images of a results folder: ranked by plate, what logs say of each cell."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tifffile

from cellseg.models import CellsegError
from cellseg.pipeline.differences import SCHEMA, Differences
from cellseg.pipeline.results import Results
from cellseg.pipeline.review.contents import Contents
from cellseg.pipeline.review.edits import Editor
from cellseg.pipeline.review.norms import NEEDED
from cellseg.pipeline.review.queue import Queue
from cellseg.pipeline.review.ranking import cells_of_all, norms_of, queue_of
from cellseg.pipeline.review.session import Session
from corrected import ran
from exact import Exact
from synthetic import cells

FIELDS = ("P_A01_s1", "P_A01_s2", "P_B03_s1")


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of three fields; the second one has a cell that is large for the plate."""
    folder = tmp_path_factory.mktemp("plate")
    (folder / "in").mkdir()
    for seed, name in enumerate(FIELDS):
        labels = cells(seed, (160, 200), 20)[1].astype(np.uint16)
        if seed == 1:
            labels[90:150, 60:190] = labels.max() + 1
        tifffile.imwrite(folder / "in" / f"{name}_w1.tif", labels)
    return ran(folder, Exact())


@pytest.fixture
def results(plate: Path, tmp_path: Path) -> Path:
    """The same, to change."""
    shutil.copytree(plate.parent, tmp_path / "copy")
    return tmp_path / "copy" / "out"


def images(queue: Queue) -> list[str]:
    """Return the images as the queue comes to them."""
    return [name for name, _ in queue.keys]


def test_all_cells_are_ranked_image_by_image_or_worst_first(plate: Path) -> None:
    contents = Contents.read(plate)
    table = pd.read_parquet(plate / "cells.parquet")
    every = {(str(i), int(n)) for i, n in zip(table["image"], table["label"], strict=True)}
    for order in ("image by image", "worst first"):
        queue = queue_of(contents, order)
        assert set(queue.keys) == every
        assert len(queue) == len(every)
    doubt = {queue.doubts.keys[row]: float(queue.doubts.total[row]) for row in range(len(queue))}
    falling = [doubt[key] for key in queue.keys]
    assert falling == sorted(falling, reverse=True)
    large = max(every, key=lambda key: table.set_index(["image", "label"])["area_px"][key])
    assert queue.keys[0] == large
    assert "large for its plate" in queue.reason(large)
    by_image = queue_of(contents)
    came = list(dict.fromkeys(images(by_image)))
    assert images(by_image) == [name for name in came for _ in range(images(by_image).count(name))]
    weights = [sum(value for key, value in doubt.items() if key[0] == name) for name in came]
    assert weights == sorted(weights, reverse=True)
    for name in came:
        own = [doubt[key] for key in by_image.keys if key[0] == name]
        assert own == sorted(own, reverse=True)


def test_the_queue_of_an_image_and_of_all_judge_a_cell_alike(plate: Path) -> None:
    session = Session.of(plate, image=f"{FIELDS[1]}_w1")
    own = {key: session.queue.reason(key) for key in session.queue.keys}
    session.range_over("worst first")
    assert len(session.queue) > len(own)
    assert {key: session.queue.reason(key) for key in own} == own


def test_what_logs_say_counts_and_is_kept(results: Path) -> None:
    contents = Contents.read(results)
    first, second = contents.entries[0].name, contents.entries[1].name
    editor, other = Editor(results, first), Editor(results, second)
    editor.mark(1, "accept")
    editor.mark(2, "reject")
    editor.delete(3)
    editor.delete(4)
    editor.undo()
    editor.mark(5, "reject")
    editor.undo()
    other.merge([6, 7])
    queue = queue_of(contents)
    assert queue.verdicts == {
        (first, 1): "accept",
        (first, 2): "reject",
        (first, 3): "gone",
        (second, 7): "gone",
    }
    assert queue.done == 4
    steps = {queue.step() for _ in range(len(queue) - 4)}
    assert steps == set(queue.keys) - set(queue.verdicts)
    assert queue.step() is None


def test_a_log_of_other_labels_counts_for_nothing_and_a_damaged_one_is_said(
    results: Path,
) -> None:
    contents = Contents.read(results)
    editor = Editor(results, contents.entries[0].name)
    editor.mark(1, "accept")
    log = contents.entries[0].results.edits_path
    lines = log.read_text(encoding="utf-8")
    log.write_text(lines.replace(editor.header.labels, "of another run"), encoding="utf-8")
    assert queue_of(contents).verdicts == {}
    log.write_text(lines.replace("accept", "except"), encoding="utf-8")
    with pytest.raises(CellsegError, match="line 2 is damaged"):
        queue_of(contents)


def test_only_the_columns_asked_for_are_read(plate: Path) -> None:
    contents = Contents.read(plate)
    found = cells_of_all(contents, ("image", "label", "area_px", "no_such"))
    assert list(found) == ["image", "label", "area_px"]
    assert isinstance(found["image"].dtype, pd.CategoricalDtype)
    assert found["label"].tolist() == pd.read_parquet(plate / "cells.parquet")["label"].tolist()
    some = cells_of_all(contents, NEEDED, every=5)
    assert len(found) / 6 < len(some) < len(found) / 4
    with pytest.raises(CellsegError, match="cannot be read"):
        cells_of_all(Contents(plate / "in", contents.entries), NEEDED)


def test_what_is_usual_is_that_of_all_images(plate: Path) -> None:
    table = pd.read_parquet(plate / "cells.parquet")
    median = norms_of(Contents.read(plate)).table["median"]
    assert np.isclose(median["area_px"].iloc[0], np.log(table["area_px"]).median())


def test_the_place_in_the_queue_follows_the_image_that_is_opened(plate: Path) -> None:
    queue = queue_of(Contents.read(plate))
    first, second, third = dict.fromkeys(images(queue))
    queue.enter(second)
    queue.filter(least=0.0)
    assert queue.current is None
    assert queue.step(-1) == next(key for key in reversed(queue.keys) if key[0] == first)
    queue.enter(second)
    found = queue.step()
    assert found == next(key for key in queue.keys if key[0] == second)
    queue.enter(second)
    assert queue.current == found
    queue.leave_out(second)
    assert second not in images(queue)
    assert {image for image, _ in queue.keys} == {first, third}


def test_where_another_model_differs_reaches_both_queues(results: Path) -> None:
    name = f"{FIELDS[2]}_w1"
    row = {"image": name, "t": 0, "z": 0, "y_px": 9.0, "x_px": 9.0, "kind": "only_b", "label_b": 3}
    table = pa.Table.from_pylist([row], schema=SCHEMA)
    Differences(table, 1).write(Results(results).differences_path)
    for queue in (Session.of(results, name).queue, queue_of(Contents.read(results))):
        assert "was no cell before" in queue.reason((name, 3))
        queue.filter(["differs"])
        assert queue.keys == [(name, 3)]


def test_the_example_of_the_guide_names_the_cell_that_is_most_in_doubt(
    plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = (Path(__file__).parent.parent / "docs" / "review.md").read_text(encoding="utf-8")
    example = guide.split("```python\n")[1].split("```")[0]
    exec(example.replace("results/plate", str(plate)), {})  # noqa: S102 - it is ours
    image, label = queue_of(Contents.read(plate), "worst first").keys[0]
    assert capsys.readouterr().out.startswith(f"{image} {label} large for its plate")
