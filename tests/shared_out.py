"""What runs of shards are compared by."""

from __future__ import annotations

import hashlib
from pathlib import Path

MAY_DIFFER = {"run.json", "workflow.toml", "report.html"}
"""Files that say when and where a run was."""
BESIDE = {"logs", "jobs"}
"""Folders of what processes have printed and noted."""


def digest(folder: Path) -> dict[str, str]:
    """Hash every file of a results folder that must not depend on how the run went."""
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*"))}
    return {
        str(name): hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in paths.items()
        if path.is_file() and path.name not in MAY_DIFFER and name.parts[0] not in BESIDE
    }
