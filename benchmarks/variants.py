"""The variants of Mask R-CNN that benchmarks/ablation.py trains, and what its paper says of each.

The paper's figures are those of He et al., "Mask R-CNN", ICCV 2017: AP in
points, the mean over IoU 0.5 to 0.95 on COCO's photographs of 80 classes, by
networks that were pre-trained on ImageNet and trained for 160,000 steps. Here
the task, the measure and the length of the training are others: of a
difference only the direction compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cellseg.models.errors import CellsegError, nearest
from cellseg.models.settings import NetworkSettings

REFERENCE = "reference"
AGNOSTIC = "agnostic"


@dataclass(frozen=True)
class Published:
    """What the paper found for the same contrast.

    Parameters
    ----------
    where : str
        Table or section, and the network.
    figures : str
        The difference in points, and what changes to what.
    """

    where: str
    figures: str


@dataclass(frozen=True)
class Variant:
    """A network that differs from another one in one respect.

    Parameters
    ----------
    name : str
    what : str
        The respect, in words.
    changes : mapping
        Settings of the network that are not the default.
    against : str
        The variant that it differs from in one respect.
    published : Published, optional
    """

    name: str
    what: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    against: str = REFERENCE
    published: Published | None = None

    def network(self, classes: int) -> NetworkSettings:
        """Return the settings of its network."""
        return NetworkSettings(classes=classes, **self.changes)


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(REFERENCE, "ResNet-18-FPN from stride 2, RoIAlign, sigmoid masks per class"),
        Variant(
            "stride_4", "finest level at stride 4, the published pyramid", {"finest_stride": 4}
        ),
        Variant(
            "roi_pool",
            "RoIPool instead of RoIAlign",
            {"roi": "pool"},
            published=Published("section 4.2, FPN", "AP -1.5, box AP -0.5"),
        ),
        Variant(
            "softmax",
            "masks that share each pixel",
            {"mask_loss": "softmax"},
            published=Published(
                "table 2b, ResNet-50-C4", "AP -5.5 (30.3 to 24.8), AP75 -6.4 (31.5 to 25.1)"
            ),
        ),
        Variant(
            AGNOSTIC,
            "one mask for all classes",
            {"mask_classes": "agnostic"},
            published=Published("section 4.2, ResNet-50-C4", "AP -0.6 (30.3 to 29.7)"),
        ),
        Variant(
            "c4",
            "one level at stride 16, stage 5 as head",
            {"form": "c4"},
            published=Published(
                "table 2a, ResNet-50", "AP -3.3 (33.6 to 30.3), AP75 -3.8 (35.3 to 31.5)"
            ),
        ),
        Variant(
            "c4_roi_pool",
            "C4 with RoIPool instead of RoIAlign",
            {"form": "c4", "roi": "pool"},
            against="c4",
            published=Published(
                "tables 2c, ResNet-50-C4, and 2d, C5 at stride 32",
                "AP -3.4 (30.3 to 26.9), AP75 -5.1 (31.5 to 26.4);"
                " AP -7.3 (30.9 to 23.6), AP75 -10.5 (32.1 to 21.6)",
            ),
        ),
        Variant(
            "no_masks",
            "boxes only, a Faster R-CNN",
            {"masks": False},
            published=Published(
                "table 3, ResNet-101-FPN",
                "box AP -0.9 (38.2 to 37.3), box AP75 -1.4 (41.7 to 40.3)",
            ),
        ),
        Variant(
            "resnet34",
            "a deeper backbone",
            {"backbone": "resnet34"},
            published=Published(
                "table 2a, FPN, ResNet-50 to 101",
                "AP +1.8 (33.6 to 35.4), AP75 +2.2 (35.3 to 37.5)",
            ),
        ),
    )
}
"""By name; each is set against one that stands before it."""


def chosen(names: str | None, classes: int) -> list[Variant]:
    """Return the variants to train.

    Parameters
    ----------
    names : str, optional
        Names with commas between; by default all that differ with that many classes.
    classes : int

    Raises
    ------
    CellsegError
        If a name is unknown.
    """
    if not names:
        # With one class, one mask for all of them is the reference's one mask a class.
        return [each for each in VARIANTS.values() if classes > 1 or each.name != AGNOSTIC]
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in VARIANTS:
            known = ", ".join(VARIANTS)
            raise CellsegError(
                f'--variants: no "{name}".{nearest(name, VARIANTS)} There are: {known}.'
            )
    return [each for each in VARIANTS.values() if each.name in wanted]


def contrasts(names: Sequence[str]) -> list[Variant]:
    """Return the variants that stand beside the one they differ from in one respect."""
    return [
        VARIANTS[name] for name in names if name != REFERENCE and VARIANTS[name].against in names
    ]
