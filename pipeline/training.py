"""A training as its user describes it: a TOML file, or a folder of images and weights to adapt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellseg.models.errors import CellsegError
from cellseg.models.settings import TrainSettings
from cellseg.models.weights import find_weights, read_card
from cellseg.pipeline.settings import Table, absolute, assign, check, read_with
from cellseg.pipeline.workflow import chosen_classes, low_below_high

FOLDERS = ("images", "labels", "class_images")
FINE_TUNING: dict[str, Any] = {
    "steps": 300,
    "rate": 2e-4,
    "average": 0.99,
    "validation": 0.2,
    "validate_every": 50,
    "checkpoint_every": 50,
    "data_licence": "unstated",
}
"""What differs from a training from scratch: few steps that must not undo what was learned."""


def read_training(
    path: str | Path, overrides: Sequence[str] = (), start: str | None = None
) -> TrainSettings:
    """Read and check a training.

    Parameters
    ----------
    path : path
        The TOML file; its `images`, `labels`, `class_images` and `validation` are
        relative to its folder.
    overrides : sequence of str
        ``table.key=value`` each, as for `read_workflow`.
    start : str, optional
        Weights to start from, in place of the file's `start`.

    Returns
    -------
    TrainSettings
        With every input path absolute. With weights to start from, `network` and
        `normalise` are theirs where the file does not give them.

    Raises
    ------
    CellsegError
        One line: where, what was got, what is allowed.
    """
    path = Path(path)
    raw, sources = read_with(path, overrides, _expand)
    if start is not None:
        raw["start"] = start
        sources["start",] = "--from"
    return _checked(raw, str(path), sources, path.absolute().parent)


def read_fine_tuning(
    folder: str | Path, start: str | None, overrides: Sequence[str] = ()
) -> TrainSettings:
    """Return the training that adapts weights to a folder of images.

    Parameters
    ----------
    folder : path
        With `images` and, of the same names, label images in `labels`; `classes`
        may hold class images, which count where the weights know several classes.
    start : str
        Weights to start from.
    overrides : sequence of str
        ``table.key=value`` each, as for `read_workflow`.

    Returns
    -------
    TrainSettings
        Short and careful (`FINE_TUNING`), to be written to ``training/<folder>``.

    Raises
    ------
    CellsegError
        One line: where, what was got, what is allowed.
    """
    folder = Path(folder).absolute()
    if start is None:
        raise CellsegError(
            f"{folder}: a folder, not a TOML file. To adapt weights to its images, name them:"
            f" cellseg train --from nuclei {folder.name}."
        )
    missing = [name for name in ("images", "labels") if not (folder / name).is_dir()]
    if missing:
        raise CellsegError(
            f"{folder}: has no folder {' and no folder '.join(missing)}. Put the images in"
            " `images` and their label images, of the same names, in `labels`."
        )
    raw: Table = FINE_TUNING | {
        "images": ["images"],
        "labels": ["labels"],
        "output": f"training/{folder.name}",
        "name": folder.name,
        "data_source": f"{folder.name}, from {start}",
        "start": start,
    }
    sources = {assign(raw, text): f"--set {text}" for text in overrides}
    network = raw.get("network", {})
    known = network.get("classes") if isinstance(network, dict) else None
    if known is None:
        known = read_card(find_weights(start)).network.classes
    # Weights of one class learn from cells of several kinds as they do from any.
    if (folder / "classes").is_dir() and known != 1:
        raw.setdefault("class_images", ["classes"])
    _expand(raw)
    return _checked(raw, str(folder), sources, folder)


def _checked(
    raw: Table, where: str, sources: dict[tuple[str, ...], str], folder: Path
) -> TrainSettings:
    """Return the settings of a raw training whose paths are relative to `folder`."""
    if isinstance(raw.get("start"), str):
        card = read_card(find_weights(raw["start"]))
        for table in ("network", "normalise"):
            theirs = json.loads(getattr(card, table).model_dump_json())
            own = raw.get(table, {})
            raw[table] = theirs | own if isinstance(own, dict) else own
        raw.setdefault("class_names", list(card.classes))
    classes = chosen_classes(TrainSettings, raw, where, sources)
    training = check(TrainSettings, raw, where, sources, classes)
    if problem := _problem(training):
        raise CellsegError(f"{where}: {problem}")
    inputs: Table = {}
    for key in (*FOLDERS, "validation"):
        home = Path.cwd() if (key,) in sources else folder
        value = getattr(training, key)
        if isinstance(value, tuple):
            inputs[key] = tuple(absolute(entry, home) for entry in value)
        elif isinstance(value, str):
            inputs[key] = absolute(value, home)
    return training.model_copy(update=inputs)


def _problem(training: TrainSettings) -> str | None:
    """Return what does not fit together in a training, if anything."""
    if (images := len(training.images)) != (labels := len(training.labels)):
        return f"images has {images} folders and labels {labels}. Give one of each, in order."
    if (classes := len(training.class_images)) not in (0, images):
        return f"images has {images} folders and class_images {classes}. Give one of each, or none."
    if training.network.classes > 1 and not training.class_images:
        return (
            f"network.classes = {training.network.classes}, and nothing says which cell is of which"
            " class. Give class_images."
        )
    if len(training.class_names) not in (0, training.network.classes):
        return (
            f"class_names has {len(training.class_names)} names, the network knows"
            f" {training.network.classes} classes. Give a name to each, from 1 on, or none."
        )
    if isinstance(training.validation, float) and not 0 <= training.validation < 1:
        return f"validation = {training.validation:g} is not a fraction from 0 to below 1."
    if not 0 < training.zoom[0] <= 1 <= training.zoom[1]:
        return f"zoom = {list(training.zoom)} is not a range around 1, the smaller number first."
    try:
        low_below_high(training.normalise)
    except ValueError as error:
        return f"[normalise] {error}"
    return None


def _expand(raw: Table) -> None:
    """Write the shorthand out: text for a list of one."""
    for key in FOLDERS:
        if isinstance(raw.get(key), str):
            raw[key] = [raw[key]]
