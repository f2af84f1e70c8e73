"""One self-describing .safetensors file a model: tensors, and all that is needed to use them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from cellseg.models.errors import CellsegError, nearest
from cellseg.models.frozen import Frozen
from cellseg.models.network_settings import Network
from cellseg.models.settings import DetectorSettings, Percentile, Range, Unchanged

ZOO = Path(__file__).parent
KEY = "cellseg"


class Card(Frozen):
    """What a weights file says of itself."""

    architecture: str = Field(description="Name of the model in `MODELS`.")
    name: str = Field(description="Name of these weights.")
    network: Network
    normalise: Annotated[Percentile | Range | Unchanged, Field(discriminator="method")]
    diameter_px: float = Field(description="Median diameter of the cells it was trained on, in px.")
    score: float = Field(description="Score from which on an object is reported, calibrated.")
    calibration: tuple[float, float] = Field(
        default=(1.0, 0.0),
        description="Slope and offset, on the scale of log odds, that turn the network's score into"
        " the share of such objects that are right.",
    )
    classes: tuple[str, ...] = Field(default=(), description="Names of the classes, from 1 on.")
    data: str = Field(description="Where the training data come from.")
    data_licence: str = Field(description="Licence of the training data.")
    training: dict[str, Any] = Field(description="Settings of the training.")
    accuracy: dict[str, float] = Field(description="Measured on the validation images.")


def shipped() -> dict[str, Path]:
    """Return the weights that come with cellseg, by name."""
    return {path.stem: path for path in sorted(ZOO.glob("*.safetensors"))}


def find_weights(weights: str) -> Path:
    """Return the file of a shipped name or a path.

    Raises
    ------
    CellsegError
        If it is neither.
    """
    known = shipped()
    path = known.get(weights, Path(weights))
    if not path.is_file():
        raise CellsegError(
            f'[model] weights = "{weights}" is neither a file nor shipped.{nearest(weights, known)}'
            f" Shipped: {', '.join(known) or 'none'}."
        )
    return path


def read_card(path: Path) -> Card:
    """Return the description in a weights file, without reading its tensors.

    Raises
    ------
    CellsegError
        If it is no .safetensors file, or not one that cellseg wrote.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        return Card.model_validate(json.loads(metadata[KEY]))
    except (SafetensorError, OSError) as error:
        raise CellsegError(
            f"{path}: not a readable .safetensors file ({error}). Give weights written by cellseg."
        ) from error
    except (KeyError, json.JSONDecodeError, ValidationError) as error:
        raise CellsegError(
            f"{path}: holds no description of a cellseg model. Give weights that `cellseg train`"
            " wrote."
        ) from error


def check_fit(settings: DetectorSettings, card: Card, path: Path) -> None:
    """Refuse weights of another architecture, or for another number of channels.

    Raises
    ------
    CellsegError
        If the workflow's `[model]` and the weights do not fit.
    """
    if card.architecture != settings.name:
        raise CellsegError(
            f"{path}: holds a {card.architecture}, the workflow asks for {settings.name}."
            f' Set [model] name = "{card.architecture}".'
        )
    if card.network.in_channels != len(settings.channels):
        raise CellsegError(
            f"{path}: sees {card.network.in_channels} channel(s), the workflow gives it"
            f" {len(settings.channels)}: [model] channels = {list(settings.channels)}."
        )


def save_weights(path: Path, tensors: dict[str, Any], card: Card) -> None:
    """Write torch tensors with their description.

    Matrices as float16; biases and statistics, few and of any size, as float32.

    Raises
    ------
    CellsegError
        If a weight is too large for float16.
    """
    import torch
    from safetensors.torch import save

    small = {}
    for key, value in tensors.items():
        halve = value.is_floating_point() and value.ndim > 1
        small[key] = value.detach().to("cpu", torch.float16 if halve else value.dtype).contiguous()
        if not torch.isfinite(small[key]).all():
            raise CellsegError(f"{path}: {key} holds weights beyond float16. Lower `rate`.")
    data = save(small, {KEY: card.model_dump_json()})
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)


def load_tensors(path: Path) -> dict[str, Any]:
    """Return the tensors of a weights file, floats as float32, on the CPU."""
    from safetensors.torch import load_file

    return {
        key: value.float() if value.is_floating_point() else value
        for key, value in load_file(path).items()
    }


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a weights file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
