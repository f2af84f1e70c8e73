"""Cores: tiles side by side on one thread each start no others, and find what one alone finds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.plan import plan
from cellseg.pipeline.stages import Run
from engines import demo, digest
from synthetic import cells

COUNT = """
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
import numpy as np
from cellseg.models.settings import MaskRCNNSettings
from cellseg.pipeline import Config, worker
from cellseg.pipeline.named_model import NamedModel

config = Config(device="cpu", **{keys})
model = NamedModel(MaskRCNNSettings(name="mask_rcnn"), config)
model.loaded()
image = np.random.default_rng(0).random((1, 256, 256), np.float32)
meet = Barrier({tiles})

def look(_):
    meet.wait()
    model.segment([image])

worker.has_in_hand({tiles})
with ThreadPoolExecutor({tiles}) as pool:
    list(pool.map(look, range({tiles})))
    before = len(os.listdir("/proc/self/task"))
    list(pool.map(look, range({tiles})))
    print(before, len(os.listdir("/proc/self/task")))
"""


def threads(tiles: int, **keys: int) -> int:
    """Return how many threads a process has once so many tiles were computed in as many."""
    # A thread that computes by itself would take all that OpenMP is told that there is.
    script = COUNT.format(tiles=tiles, keys=keys)
    env = os.environ | {"OMP_NUM_THREADS": "5", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    first, last = map(int, done.stdout.split())
    assert first == last
    return last


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads as Linux lists them")
def test_a_tile_on_one_thread_starts_no_other() -> None:
    one, two = threads(1, threads=1), threads(2, threads=1)
    assert two == one + 1
    assert threads(2, threads=2) >= two + 2


@pytest.mark.parametrize("keys", [{}, {"tiles_at_once": 3, "threads": 1}, {"threads": 2}])
def test_a_network_in_threads_writes_the_same_bytes(tmp_path: Path, keys: dict[str, int]) -> None:
    image, _ = cells(3, shape=(300, 420), count=60)
    tifffile.imwrite(tmp_path / "one.tif", image)
    tifffile.imwrite(tmp_path / "two.tif", np.ascontiguousarray(image[::-1]))
    (tmp_path / "w.toml").write_text(
        'images = ["one.tif", "two.tif"]\n[model]\nname = "mask_rcnn"\n'
        "[tiling]\nsize = 128\nhalo = 48\n"
    )
    found = []
    for name, config in (
        ("plain", Config(device="cpu", tiles_at_once=1, threads=1)),
        ("threads", Config(device="cpu", **keys)),  # type: ignore[arg-type]
    ):
        result = run(read_workflow(tmp_path / "w.toml", output=tmp_path / name), config)
        assert not result.failed
        assert result.cells > 50
        found.append(digest(result.folder))
    assert found[0] == found[1]


def test_time_of_cores_is_counted_once_for_tiles_side_by_side(tmp_path: Path) -> None:
    config = Config(device="cpu", tiles_at_once=3, threads=1)
    going = Run(plan(demo(tmp_path, "out"), config), config)
    before = time.process_time()
    for _ in going.steps():
        pass
    assert 0 < going.left.core_seconds < 1.05 * (time.process_time() - before)
