"""What tests of windows need."""

import os
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import pytest

CONTRIBUTING = Path(__file__).parent.parent / "CONTRIBUTING.md"
PROBE = "from qtpy.QtWidgets import QApplication; QApplication([])"


def need_napari() -> None:
    """Skip a module, saying what to install, where no window can be opened; a gate must do so."""
    missing = what_is_missing()
    if missing and os.environ.get("CI") != "true":
        pytest.skip(missing, allow_module_level=True)


@lru_cache
def what_is_missing() -> str:
    """Return what to install for windows; nothing where they can be opened."""
    if find_spec("napari") is None:
        return 'napari is missing: pip install "cellseg[review]"'
    tried = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    if tried.returncode == 0:
        return ""
    reasons = [line for line in tried.stderr.splitlines() if "could not" in line or "Error" in line]
    return f"no window can be opened ({reasons[-1] if reasons else 'no reason given'}): " + (
        system_packages()
    )


def system_packages() -> str:
    """Return the command of CONTRIBUTING that installs what windows need of the system."""
    section = CONTRIBUTING.read_text(encoding="utf-8").split("## Test windows without a screen")[1]
    return " ".join(section.split("```")[1].removeprefix("sh").replace("\\\n", " ").split())
