"""The demo plate in small tiles for any engine, and what of its results must not depend on one."""

from __future__ import annotations

import hashlib
import shutil
from importlib import resources
from pathlib import Path

from cellseg.pipeline import Workflow, read_workflow

SETTINGS = 'images = "plate"\n[model]\nname = "threshold"\n[tiling]\nsize = 128\nhalo = 48\n'
MAY_DIFFER = ("run.json", "workflow.toml", "report.html")
"""Files that say when and where a run was."""


def demo(folder: Path, name: str, fields: int = 6) -> Workflow:
    """Some fields of the demo plate in tiles small enough that there are seams."""
    if not (folder / "plate").is_dir():
        (folder / "plate").mkdir()
        with resources.as_file(resources.files("cellseg.workflows") / "demo_plate") as images:
            for path in sorted(images.glob("*.tif"))[:fields]:
                shutil.copy2(path, folder / "plate")
        (folder / "w.toml").write_text(SETTINGS, encoding="utf-8")
    return read_workflow(folder / "w.toml", output=folder / name)


def digest(folder: Path) -> dict[str, str]:
    """Hash every file of a results folder that must not depend on how the run went."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in MAY_DIFFER and path.parent.name != "logs"
    }
