"""Results in a real napari window."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from viewing import need_napari

need_napari()

from npe2 import PluginManifest  # noqa: E402 - not before it is known to be there
from npe2.manifest.utils import import_python_name  # noqa: E402


ROOT = Path(__file__).parent.parent


def test_the_plugin_is_declared_and_all_that_it_names_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, file = project["entry-points"]["napari.manifest"]["cellseg"].partition(":")
    manifest = PluginManifest.from_file(files(module) / file)
    assert manifest.name == "cellseg"
    for command in manifest.contributions.commands or []:
        assert callable(import_python_name(command.python_name))


def test_a_window_opens(make_napari_viewer: Callable[..., Any]) -> None:
    viewer = make_napari_viewer()
    assert not viewer.layers
