"""Whatever ends a session of corrections, each that was recorded is there, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cellseg.pipeline.review.edits import Editor, apply
from corrected import on_disk, results_of, table, view
from synthetic import cells

SESSION = """
import sys
from pathlib import Path
import numpy as np
from cellseg.pipeline.review.edits import Editor
editor = Editor(Path(sys.argv[1]), "one", "ann")
number = 0
while True:
    number += 1
    corner = number * 3 % 90, number * 7 % 60
    edit = editor.redraw(1 + number % 7, corner, np.ones((9, 8), bool), 0, 0)
    print(edit.id, flush=True)
"""
FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from cellseg.pipeline.review.edits import Editor
results, room = Path(sys.argv[1]), int(sys.argv[2])
editor = Editor(results, "one", "ann")
editor.delete(1)
log = editor.here.edits_path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + room, limits[1]))
before = log.read_bytes()
try:
    editor.delete(2)
except OSError as error:
    assert error.filename == str(log), error
else:
    raise AssertionError("the disk was not full")
assert log.read_bytes() == before
assert [edit.labels for edit in editor.surviving] == [[1]]
editor.there(2)
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
editor.delete(3)
editor.undo()
assert editor.pending == 3
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return results_of(tmp_path, cells(4, (120, 90), 14)[1], "output.report=false")


@pytest.mark.parametrize("after", [0, 3, 11])
def test_a_session_that_is_killed_loses_no_edit_that_was_recorded(
    results: Path, after: int
) -> None:
    command = [sys.executable, "-c", SESSION, str(results)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as session:
        assert session.stdout is not None
        seen = [session.stdout.readline().strip() for _ in range(after + 1)]
        time.sleep(after / 1000)  # so that it falls into another moment of a stroke
        session.kill()
        seen += session.stdout.read().split()
    editor = Editor(results, "one")
    recorded = [edit.id for edit in editor.log]
    assert recorded[: len(seen)] == seen
    assert len(recorded) - len(seen) <= 1
    assert editor.undo() is not None
    shown = view(editor)
    assert apply(results)[0].reason is None
    assert np.array_equal(on_disk(results), shown)
    assert table(results).index.tolist() == [n for n in np.unique(shown).tolist() if n]


@pytest.mark.skipif(sys.platform == "win32", reason="no limit to the size of files there")
@pytest.mark.parametrize("room", [0, 20])
def test_an_edit_that_a_full_disk_does_not_take_is_none(results: Path, room: int) -> None:
    command = [sys.executable, "-c", FULL, str(results), str(room)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    editor = Editor(results, "one")
    assert [edit.labels for edit in editor.surviving] == [[1]]
    apply(results)
    assert 1 not in table(results).index
    assert {2, 3} <= set(table(results).index)
