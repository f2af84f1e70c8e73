"""Workflow: what is computed, as read from a TOML file; nothing in it depends on the machine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SerializeAsAny,
    model_validator,
)

from cellseg.models import MODELS
from cellseg.models.errors import CellsegError, nearest
from cellseg.models.network_settings import NETWORKS
from cellseg.models.scale import STEPS
from cellseg.models.settings import (
    Frozen,
    MaskRCNNSettings,
    ModelSettings,
    Percentile,
    Range,
    Unchanged,
)
from cellseg.pipeline.export import check_known
from cellseg.pipeline.gate_settings import Controls, Gates
from cellseg.pipeline.link_settings import Link, Track
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.region_settings import Region
from cellseg.pipeline.settings import Table, absolute, check, read_with

__all__ = [
    "Controls",
    "Output",
    "Region",
    "Stitch",
    "Tiling",
    "Workflow",
    "read_workflow",
]

SIZE_STEP = 32
"""Px that the side of a tile is rounded to where the model sees an image larger or smaller."""


def _choose_model(value: Any) -> Any:
    """Build the settings class that the table's name asks for."""
    if not isinstance(value, Mapping):
        return value
    entry = MODELS.get(value.get("name", MaskRCNNSettings().name))
    if entry is None:
        raise ValueError(f"name = {json.dumps(value['name'])} is not one of {', '.join(MODELS)}.")
    return entry.settings.model_validate_json(json.dumps(value), strict=True)


def low_below_high(value: Percentile | Range | Unchanged) -> Percentile | Range | Unchanged:
    """Return a normalisation whose `low` is below its `high`.

    Raises
    ------
    ValueError
        If it is not.
    """
    if not isinstance(value, Unchanged) and not 0 < value.high - value.low < math.inf:
        raise ValueError(
            f"low = {value.low:g} is not below high = {value.high:g}: no grey level would be left."
        )
    return value


class Output(Frozen):
    """`[output]`: where the results go and what is written beside labels and table."""

    path: str = Field(
        min_length=1,
        description="Folder of the results; relative to where the command runs.",
    )
    csv: bool = Field(
        default=False, description="Also write the tables as CSV: cells.csv, images.csv, ..."
    )
    export: tuple[str, ...] = Field(
        default=(),
        description="Formats that the cells are written in as well at the end of a run, as"
        " `cellseg export --to` names them.",
    )
    overview: bool = Field(
        default=True, description="Also write a PNG with the cells outlined for each image."
    )
    report: bool = Field(
        default=True, description="Also write report.html: what came out, on one page."
    )
    images: Literal["link", "copy"] = Field(
        default="link",
        description='Images in plate.zarr, the results of a plate: "link" (those of an OME-Zarr'
        ' plate by reference) or "copy" (of any plate, so that it is complete by itself).',
    )
    labels: Literal["results", "inside"] = Field(
        default="results",
        description='Where labels go: "results", or "inside", the labels group of each OME-Zarr'
        " image.",
    )


class Tiling(Frozen):
    """`[tiling]`: the pieces in which a plane is segmented; they never show in the labels.

    Lengths are in px as the model sees them: those of the image, unless a diameter in
    `[model]` makes it see the image at another size.
    """

    size: int = Field(
        default=1024,
        ge=32,
        le=16384,
        description="Side of a tile's core, in px as the model sees them; larger needs more"
        " memory.",
    )
    halo: int = Field(
        default=64,
        ge=2,
        le=16384,
        description="Border read around a core, in px as the model sees them: at least the largest"
        " cell's diameter plus the margin, or the cell is predicted again in a larger window.",
    )
    margin: int = Field(
        default=4,
        ge=1,
        le=1024,
        description="A cell that keeps this distance from the edge of what was read counts as"
        " whole, in px as the model sees them.",
    )
    skip_background: bool = Field(
        default=True,
        description="Do not look for cells where an image shows nothing but its own noise; what"
        " that is follows from the image alone.",
    )

    def at_zoom(self, zoom: float) -> Tiling:
        """Return the same in px of an image that the model sees at a magnification.

        A tile then costs what it costs at 1, and its halo holds the same
        cells. What a tile reads begins at a multiple of 8 px: see `STEPS`.

        Parameters
        ----------
        zoom : float
            A multiple of 1 / 8.
        """
        if zoom == 1:
            return self
        margin = math.ceil(self.margin / zoom)
        halo = math.ceil(max(self.halo / zoom, margin + 1) / STEPS) * STEPS
        size = max(round(self.size / zoom / SIZE_STEP) * SIZE_STEP, 2 * SIZE_STEP)
        # Beyond the limits of what a user may set, where an image is seen much smaller.
        return self.model_copy(update={"size": size, "halo": halo, "margin": margin})

    @model_validator(mode="after")
    def _halo_fits(self) -> Tiling:
        if self.halo <= self.margin:
            raise ValueError(
                f"halo = {self.halo} is not more than the margin ({self.margin} px)."
                f" Set halo to {self.margin + 1} or more: the margin and the largest cell."
            )
        if self.halo > 4 * self.size:
            raise ValueError(
                f"halo = {self.halo} is more than four times the size ({self.size} px)."
                f" Set halo to {4 * self.size} or less, or size to {-(-self.halo // 4)} or more."
            )
        return self


class Stitch(Frozen):
    """`[stitch]`: which objects of neighbouring tiles are one cell."""

    overlap: float = Field(
        default=0.4,
        gt=0,
        le=1,
        description="Shared area over the smaller area, in the region both tiles read, from"
        " which two objects are one cell.",
    )
    window_px: int | None = Field(
        default=None,
        ge=64,
        le=16384,
        description="Largest side of the window in which a cell larger than the halo is"
        " predicted again, in px as the model sees them; beyond it its pieces are joined."
        " Default: what a tile reads, so that it costs no more memory.",
    )


class Workflow(Frozen):
    """What is computed; `read_workflow` reads it from a file."""

    images: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        min_length=1,
        description="A file, a folder, a glob or a list of them; relative to the workflow file.",
    )
    output: Output
    pattern: str | None = Field(
        default=None,
        description="How files are named: a preset (imagexpress, harmony, ...), a form such as"
        ' "{well}_{site}_{channel}.tif", or a regular expression with named groups among plate,'
        " well, site, channel, z, t. Default: the preset that fits most files.",
    )
    pixel_size_um: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Side of a pixel at full resolution, in um; overrides what the images say.",
    )
    level: Literal["auto"] | Annotated[int, Field(ge=0, le=99)] = Field(
        default="auto",
        description='Level of the images\' pyramids that is read, 0 the full resolution; "auto":'
        " that one unless [model] gives a diameter at which the model sees images at half their"
        " size or less, then the coarsest that it sees enlarged by nothing. Labels and table are"
        " in px of that level.",
    )
    model: Annotated[SerializeAsAny[ModelSettings], BeforeValidator(_choose_model)] = (
        MaskRCNNSettings()
    )
    normalise: Annotated[
        Percentile | Range | Unchanged,
        Field(discriminator="method"),
        AfterValidator(low_below_high),
    ] = Percentile()
    tiling: Tiling = Tiling()
    stitch: Stitch = Stitch()
    region: Region = Region()
    link: Link = Link()
    track: Track = Track()
    measure: Measure = Measure()
    gates: Gates = Field(
        default={}, description='Which cells are positive: a name and a rule, "column > otsu".'
    )
    controls: Controls = Controls()

    def toml(self) -> str:
        """Return the workflow as TOML with every key; `read_workflow` reads it back as equal."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def read_workflow(
    path: str | Path,
    overrides: Sequence[str] = (),
    images: Sequence[str | Path] = (),
    output: str | Path | None = None,
) -> Workflow:
    """Read and check a workflow.

    Parameters
    ----------
    path : path
        The TOML file; its `images` are relative to its folder.
    overrides : sequence of str
        ``table.key=value`` each; the value as in TOML, bare words as text. Images and
        region files among them are relative to the current directory.
    images : sequence of path
        Used in place of the file's, relative to the current directory.
    output : path, optional
        Used in place of the file's `output.path`.

    Returns
    -------
    Workflow
        With every image path absolute.

    Raises
    ------
    CellsegError
        One line: where, what was got, what is allowed.
    """
    path = Path(path)
    raw, sources = read_with(path, overrides, _expand_workflow)
    if images:
        raw["images"] = [str(image) for image in images]
        sources["images",] = "command line"
    if isinstance(table := raw.setdefault("output", {}), dict):
        table.setdefault("path", f"results/{path.stem}")
        if output is not None:
            table["path"] = str(output)
            sources["output", "path"] = "command line"
    classes = chosen_classes(Workflow, raw, str(path), sources)
    workflow = check(Workflow, raw, str(path), sources, classes)
    check_known(
        workflow.output.export, f"{sources.get(('output', 'export'), path)}: [output] export"
    )
    _check_groups(workflow.measure.groups, sources.get(("measure", "groups"), str(path)))
    folder = Path.cwd() if ("images",) in sources else path.absolute().parent
    found = tuple(absolute(entry, folder) for entry in workflow.images)
    given = [path for path in sources if path[0] == "region"]
    region = workflow.region.beside(Path.cwd() if given else path.absolute().parent)
    return workflow.model_copy(update={"images": found, "region": region})


def _check_groups(groups: Sequence[str], where: str) -> None:
    # Late, so that to import a workflow stays cheap whatever a measurement needs.
    from cellseg.pipeline.measure import MEASUREMENTS

    for group in groups:
        if group not in MEASUREMENTS:
            raise CellsegError(
                f"{where}: [measure] groups has {json.dumps(group)}, which is not known."
                f"{nearest(group, MEASUREMENTS)} Known: {', '.join(MEASUREMENTS)}."
            )


def _expand_workflow(raw: Table) -> None:
    """Write the shorthands out: text for a list of one, text for the output's path."""
    if isinstance(raw.get("images"), str):
        raw["images"] = [raw["images"]]
    if isinstance(raw.get("output"), str):
        raw["output"] = {"path": raw["output"]}
    if isinstance(raw.get("output"), dict) and isinstance(raw["output"].get("export"), str):
        raw["output"]["export"] = [raw["output"]["export"]]


def chosen_classes(
    settings: type[Frozen], raw: Table, where: str, sources: Mapping[tuple[str, ...], str]
) -> dict[str, type[BaseModel]]:
    """Return the class that each table asks for by name, written into `raw` where it is left out.

    Raises
    ------
    CellsegError
        If there is no class of that name.
    """
    chosen = {}
    for table, (tag, classes) in _choices().items():
        node = raw.get(table, {})
        if table not in settings.model_fields or not isinstance(node, dict):
            continue
        word = node.setdefault(tag, settings.model_fields[table].default.model_dump()[tag])
        if word not in list(classes):
            got = json.dumps(word, default=str)
            raise CellsegError(
                f"{sources.get((table, tag), where)}: [{table}] {tag} = {got} is not known."
                f"{nearest(str(word), classes)} Known: {', '.join(sorted(classes))}."
            )
        chosen[table] = classes[word]
    return chosen


def _choices() -> dict[str, tuple[str, dict[str, type[BaseModel]]]]:
    """Return, for each table of several classes, the key that names the class, and them by name."""
    return {
        "model": ("name", {name: entry.settings for name, entry in MODELS.items()}),
        "network": ("architecture", {**NETWORKS}),
        "normalise": ("method", {"percentile": Percentile, "range": Range, "none": Unchanged}),
    }
