"""What `[model] channels` may say: channels of the image, and planes made of several of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError

from cellseg.models.errors import nearest
from cellseg.models.frozen import Frozen

__all__ = [
    "COMBINATIONS",
    "Channel",
    "Combination",
    "Grey",
    "Input",
    "MaxOf",
    "Stain",
    "SumOf",
]

Channel = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]
"""A channel of an image, by index or by name."""

Colours = tuple[Channel, Channel, Channel]


def _pairs(value: Any) -> Any:
    """Return a table as pairs in order of name: a sum is added up in one order, always."""
    return tuple(sorted(value.items())) if isinstance(value, Mapping) else value


Weights = Annotated[
    tuple[tuple[str, Annotated[float, Field(allow_inf_nan=False)]], ...],
    Field(min_length=1),
    BeforeValidator(_pairs),
    PlainSerializer(dict),
]


class MaxOf(Frozen):
    """`{ max = ["A", "B"] }`: the larger of two or more channels, pixel by pixel."""

    max: tuple[Channel, ...] = Field(min_length=1, description="Channels, by index or by name.")


class SumOf(Frozen):
    """`{ sum = { A = 0.5, B = 1.0 } }`: a weighted sum of channels."""

    sum: Weights = Field(
        description="Weight of each channel; a name of digits alone that no channel has is an"
        " index."
    )


class Stain(Frozen):
    """`{ stain = "hematoxylin" }`: how much of a stain a stained section holds, 0 on white.

    Colour deconvolution of Ruifrok and Johnston (*Quantification of histochemical staining by
    color deconvolution*, 2001), as `skimage.color.rgb2hed`. Stained nuclei are bright in it.
    """

    stain: Literal["hematoxylin", "eosin", "dab"] = Field(
        description="The stain; hematoxylin is the one of nuclei."
    )
    of: Colours | None = Field(
        default=None,
        description="Channels that are red, green and blue; default: those of these names.",
    )


class Grey(Frozen):
    """`{ grey = "darkness" }`: one grey plane of a colour image.

    ``"luminance"`` is 0.2125 R + 0.7154 G + 0.0721 B, as `skimage.color.rgb2gray`, in grey
    levels of the image; ``"darkness"`` is what it lacks to white, bright where there is stain.
    """

    grey: Literal["luminance", "darkness"] = Field(
        description='"luminance", or "darkness" for cells that are dark on bright.'
    )
    of: Colours | None = Field(
        default=None,
        description="Channels that are red, green and blue; default: those of these names.",
    )


COMBINATIONS: dict[str, type[MaxOf | SumOf | Stain | Grey]] = {
    "max": MaxOf,
    "sum": SumOf,
    "stain": Stain,
    "grey": Grey,
}
"""The kinds of planes that are made of channels, by the key that says which it is."""

Combination = MaxOf | SumOf | Stain | Grey


def _choose(value: Any) -> Any:
    """Return an entry of `channels`, checked, so that an error names just what is wrong in it."""
    if isinstance(value, Combination | str) or (
        isinstance(value, int) and not isinstance(value, bool)
    ):
        return value
    written = json.dumps(value, default=str, ensure_ascii=False)
    if not isinstance(value, Mapping):
        raise ValueError(  # noqa: TRY004 pydantic collects no TypeError
            f"channels has {written}; each entry is an index, a name, or a table with"
            f" {' or '.join(COMBINATIONS)}."
        )
    kinds = [key for key in value if key in COMBINATIONS]
    if len(kinds) != 1:
        unknown = [key for key in value if key not in COMBINATIONS]
        hint = nearest(str(unknown[0]), COMBINATIONS) if unknown and not kinds else ""
        raise ValueError(
            f"channels has {written}; it must have one of the keys {', '.join(COMBINATIONS)}.{hint}"
        )
    settings = COMBINATIONS[kinds[0]]
    try:
        return settings.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        key = next((part for part in wrong["loc"] if part in value), kinds[0])
        if wrong["type"] == "extra_forbidden":
            known = ", ".join(settings.model_fields)
            raise ValueError(
                f"channels has {written}: {key} is not a key here."
                f"{nearest(str(key), settings.model_fields)} Known: {known}."
            ) from None
        said = settings.model_fields[str(key)].description
        raise ValueError(
            f"channels has {written}: {key} is not right ({wrong['msg']}). Expected: {said}"
        ) from None


Input = Annotated[Channel | Combination, BeforeValidator(_choose)]
"""One plane that a model sees."""
