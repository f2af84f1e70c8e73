"""One direction of data: who may import what (design, section 1)."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [
    path for folder in ("models", "pipeline", "workflows") for path in (ROOT / folder).rglob("*.py")
]
COMMANDS = {"cli", "cli_learn", "cli_options", "cli_results", "cli_run", "cli_said"}
READERS = {"image", "ome_zarr", "source", "tiff", "tiff_layout", "tiff_metadata", "voxel"}
WIDGETS = {f"review/{path.stem}" for path in FILES if path.stem.endswith("widget")}
WRITERS = {"labels", "pyramid", "nodes", "copied"}


def imports(path: Path) -> Iterator[str]:
    """Yield every module a file imports, wherever in it; those for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(module: str) -> set[str]:
    """Return ``folder/name`` of the files that import `module` or a part of it."""
    return {
        f"{path.parent.name}/{path.stem}"
        for path in FILES
        if any(name == module or name.startswith(f"{module}.") for name in imports(path))
    }


def test_models_know_nothing_of_the_pipeline() -> None:
    assert not {name for name in importers("cellseg.pipeline") if name.startswith("models/")}


def test_only_models_import_torch_at_the_top() -> None:
    # The pipeline may only set the machine up: which device there is, how many threads.
    allowed = {"pipeline/config", "pipeline/named_model"}
    assert {n for n in importers("torch") if n.startswith("pipeline/")} <= allowed


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        # Exports write formats of their own, which no other part does.
        (
            "tifffile",
            {f"pipeline/{name}" for name in READERS | {"to_masks", "to_ome_tiff", "training_set"}},
        ),
        ("zarr", {f"pipeline/{name}" for name in READERS | WRITERS | {"to_spatialdata"}}),
        ("h5py", {"pipeline/to_anndata"}),
        ("roifile", {"pipeline/imagej", "pipeline/to_roi"}),
        ("bioio", {"pipeline/other_formats"}),
        (
            "pyarrow.parquet",
            {
                f"pipeline/{n}"
                for n in ("image_results", "table_files", "cell_rows", "to_spatialdata")
            },
        ),
        ("PIL", {"pipeline/pictures"}),
        ("click", {"pipeline/progress"} | {f"pipeline/{name}" for name in COMMANDS}),
        ("rich", {"pipeline/progress"}),
        ("concurrent.futures", {"pipeline/execute"}),
        (
            "cellseg.pipeline.stages",
            {
                f"pipeline/{name}"
                for name in ("__init__", "cli_run", "cli_said", "remeasure", "shard")
            },
        ),
        ("cellseg.pipeline.tasks", {"pipeline/stages", "pipeline/shard"}),
        ("distributed", {"pipeline/dask_cluster", "pipeline/flight"}),
        ("dask_jobqueue", {"pipeline/dask_cluster"}),
        ("cellseg.pipeline.flight", {"pipeline/execute"}),
        ("cellseg.pipeline.dask_cluster", {"pipeline/execute"}),
        ("qtpy", WIDGETS),
        ("PyQt6", set()),
        ("napari", WIDGETS),
    ],
)
def test_each_outside_thing_is_touched_in_one_place(module: str, allowed: set[str]) -> None:
    assert importers(module) <= allowed


def test_only_the_command_line_prints_or_exits() -> None:
    for path in FILES:
        if path.stem in COMMANDS:
            continue
        calls = [
            node.func.id
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        assert not {"print", "exit", "quit", "input"} & set(calls), path


def test_every_package_is_declared_and_every_declared_one_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = project["tool"]["setuptools"]["packages"]
    found = {
        ".".join(("cellseg", *path.parent.relative_to(ROOT).parts))
        for path in FILES
        if path.name == "__init__.py"
    }
    assert set(declared) == found
    directories = project["tool"]["setuptools"]["package-dir"]
    for name in declared:
        home = ROOT / directories.get(name, Path(*name.split(".")[1:]))
        assert (home / "__init__.py").is_file()


def test_type_checkers_see_the_folders_themselves() -> None:
    for name in ("models", "pipeline", "workflows"):
        assert (ROOT / "typings" / "cellseg" / name).resolve() == ROOT / name


def test_no_file_has_a_name_that_says_nothing() -> None:
    for path in FILES:
        assert not {"utils", "helpers", "manager", "process", "common", "misc"} & {path.stem}
