"""OpenVINO finds what torch finds, the same bits whoever else computes, and writes no files."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray

from cellseg.models import CellsegError, Instances, load_model
from cellseg.models.arithmetic import steady
from cellseg.models.detector import Detector
from cellseg.models.hardware import has_bfloat16
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.normalise import decide
from cellseg.models.region_proposals import Dense
from cellseg.models.settings import (
    CenterMaskSettings,
    MaskRCNNSettings,
    NetworkSettings,
    Percentile,
)

pytest.importorskip("openvino", reason='needs pip install "cellseg[cpu]"')

from cellseg.models import openvino_network
from cellseg.models.openvino_network import PART, OpenVINONetwork
from cellseg.models.openvino_package import openvino

PLATE = sorted((Path(__file__).parent.parent / "workflows" / "demo_plate").glob("*.tif"))
SMALL = NetworkSettings(stages=2, pyramid_channels=16, box_features=16, mask_channels=8)
SHAPES = [(60, 70), (130, 90), (33, 250), (1, 1), (200, 180)]
PRECISIONS = [
    "float32",
    pytest.param(
        "bfloat16",
        marks=pytest.mark.skipif(not has_bfloat16("cpu"), reason="this CPU has no bfloat16"),
    ),
]


def window(height: int, width: int) -> NDArray[np.float32]:
    pixels = tifffile.imread(PLATE[4])[None]
    return decide(Percentile(), [pixels]).apply(pixels)[:, 100 : 100 + height, :width]


def stored(found: Instances) -> list[bytes]:
    return [array.tobytes() for array in found.to_arrays().values()]


def nuclei(precision: str = "float32", inference: str = "openvino") -> Detector:
    detector = load_model(MaskRCNNSettings(score=0.1), "cpu", precision, inference)
    assert isinstance(detector, Detector)
    return detector


def network(settings: NetworkSettings) -> MaskRCNN:
    """Return a network in which all does something: batch statistics are not 0 and 1."""
    torch.manual_seed(0)
    made = MaskRCNN(settings).eval()
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
                module.bias.normal_(0, 0.1)
    made.set_least_score(0.0)
    return made.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        SMALL.model_copy(update={"finest_stride": 4, "in_channels": 3}),
        SMALL.model_copy(update={"backbone": "resnet50", "width": 8, "stages": 3}),
        SMALL.model_copy(update={"classes": 3, "mask_loss": "softmax", "roi": "pool"}),
        SMALL.model_copy(update={"masks": False}),
        SMALL.model_copy(update={"form": "c4", "width": 16}),
    ],
    ids=["fpn", "stride 4", "bottlenecks", "softmax", "no masks", "c4"],
)
def test_every_form_of_the_network_gives_what_torch_gives(settings: NetworkSettings) -> None:
    made = network(settings)
    image = torch.rand(1, settings.in_channels, 96, 128).to(memory_format=torch.channels_last)
    ours = OpenVINONetwork(made, "float32")
    with torch.inference_mode(), steady("cpu"):
        expected, got = made.dense(image), ours._free[0].dense(image)
        assert list(got.levels) == list(expected.levels)
        for one, other in zip(parts(got), parts(expected), strict=True):
            assert one.shape == other.shape
            assert torch.allclose(one, other, atol=1e-4)
        boxes = torch.tensor([[8.0, 8, 20, 24], [30, 40, 60, 90], [0, 0, 5, 5]])
        about = dict(expected.levels), [boxes], [(96, 128)]
        if settings.masks:
            masks = ours._free[0].deciding.roi_heads._mask_logits(*about)
            assert torch.allclose(masks, made.roi_heads._mask_logits(*about), atol=1e-4)
        assert len(ours(image)[0]["boxes"]) == len(made(image)[0]["boxes"]) > PART


def parts(dense: Dense) -> list[torch.Tensor]:
    return [*dense.levels.values(), *dense.objectness, *dense.corrections]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shipped_network_finds_the_same_cells_in_windows_of_any_shape(
    shape: tuple[int, int],
) -> None:
    (expected,) = nuclei(inference="torch").segment([window(*shape)])
    (got,) = nuclei().segment([window(*shape)])
    assert np.array_equal(got.boxes, expected.boxes)
    assert np.allclose(got.scores, expected.scores, atol=1e-4)
    assert shape == (1, 1) or len(got)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_bit_depends_on_threads_on_who_else_computes_or_on_what_came_before(
    precision: str,
) -> None:
    planes = [window(*shape) for shape in SHAPES]
    expected = [stored(nuclei(precision).segment([plane])[0]) for plane in planes]
    detector, before = nuclei(precision), torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert [stored(each) for each in detector.segment(planes)] == expected
        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(lambda p: stored(detector.segment([p])[0]), planes * 3))
    finally:
        torch.set_num_threads(before)
    assert found == expected * 3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_region_has_the_same_mask_at_any_place_among_any_others(precision: str) -> None:
    masks = openvino_network._Masks(network(SMALL), precision)
    regions = torch.randn(2 * PART + 5, 16, 14, 14, generator=torch.Generator().manual_seed(0))
    whole = masks(regions)
    for start, stop in [(0, 1), (3, 40), (PART, PART + 2), (0, 0), (2 * PART + 4, 2 * PART + 5)]:
        assert torch.equal(masks(regions[start:stop]), whole[start:stop])


def test_where_nothing_is_nothing_is_found() -> None:
    (found,) = nuclei().segment([np.zeros((1, 64, 64), np.float32)])
    assert len(found) == 0


def test_replicas_hold_few_shapes_and_are_as_many_as_threads_compute() -> None:
    made = OpenVINONetwork(network(SMALL), "float32")
    with torch.inference_mode(), steady("cpu"):
        for side in (32, 64, 96, 64):
            made(torch.rand(1, 1, side, side))
    (replica,) = made._free
    assert len(replica._requests) == openvino_network.SHAPES_HELD


def test_importing_it_leaves_no_trace_in_the_users_home(tmp_path: Path) -> None:
    code = (
        "import sys; from cellseg.models.openvino_package import openvino; openvino().Core();"
        "print('openvino_telemetry' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HOME": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout.strip() == "False"
    assert not list(tmp_path.iterdir())


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    openvino.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(CellsegError, match=r'not installed\. pip install "cellseg\[cpu\]"'):
        nuclei()


def test_what_openvino_does_not_compute_is_refused() -> None:
    with pytest.raises(CellsegError, match=r"is for mask_rcnn on the CPU, not for center_mask on"):
        load_model(CenterMaskSettings(), "cpu", "float32", "openvino")
    with pytest.raises(CellsegError, match=r"not for mask_rcnn on cuda:0\."):
        load_model(MaskRCNNSettings(), "cuda:0", "float32", "openvino")
