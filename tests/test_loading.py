"""A run starts soon: what it never uses is not imported, and is there when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tifffile

from synthetic import cells

RUN = """
import sys
from cellseg.pipeline.cli import main
try:
    main(["run", "w.toml", "--device", "{device}"])
except SystemExit as end:
    assert not end.code, end.code
heavy = ("dask", "skimage", "scipy.optimize", "torch._dynamo", "sympy")
print([name for name in heavy if name in sys.modules], "torch" in sys.modules)
"""
ASK = """
import sys
from cellseg.models.loading import quick
with quick():
    from torchvision.ops import roi_align
module = sys.modules["torchvision.ops.roi_align"]
assert "torch._dynamo.utils" not in sys.modules
assert module.is_compile_supported("meta") is False
assert sys.modules["torch._dynamo.utils"].is_compile_supported is not module.is_compile_supported
with quick():
    from torch._dynamo.utils import is_compile_supported as real
assert real is sys.modules["torch._dynamo.utils"].is_compile_supported
"""


def python(script: str, folder: Path) -> str:
    """Return what a script in a process of its own prints."""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    image, _ = cells(0, shape=(96, 96), count=8)
    tifffile.imwrite(tmp_path / "one.tif", image)
    (tmp_path / "w.toml").write_text(
        'images = "one.tif"\n[model]\nname = "mask_rcnn"\n[output]\noverview = false\n'
    )
    for device in ("cpu", "auto"):
        assert python(RUN.format(device=device), tmp_path).endswith("[] True\n")


def test_what_was_left_out_is_there_when_it_is_asked_for(tmp_path: Path) -> None:
    python(ASK, tmp_path)
