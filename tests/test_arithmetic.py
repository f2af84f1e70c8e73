"""Neither the number of threads nor what else is in a batch changes a bit of what is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cellseg.models import Instances, load_model
from cellseg.models.arithmetic import FORMS, steady
from cellseg.models.detector import Detector
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.normalise import decide
from cellseg.models.settings import MaskRCNNSettings, NetworkSettings, Percentile

PLATE = sorted((Path(__file__).parent.parent / "workflows" / "demo_plate").glob("*.tif"))
THREADS = (1, 2, 3, 5)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def nuclei() -> Detector:
    detector = load_model(MaskRCNNSettings())
    assert isinstance(detector, Detector)
    return detector


def window(index: int, height: int, width: int) -> NDArray[np.float32]:
    pixels = tifffile.imread(PLATE[index])[None]
    return decide(Percentile(), [pixels]).apply(pixels)[:, 100 : 100 + height, :width]


def stored(found: Instances) -> list[bytes]:
    return [array.tobytes() for array in found.to_arrays().values()]


@pytest.mark.parametrize("precision", ["float32", "mixed", "bfloat16"])
@pytest.mark.parametrize("shape", [(60, 70), (130, 90), (233, 271)])
def test_the_shipped_network_finds_the_same_bytes_on_any_number_of_threads(
    shape: tuple[int, int], precision: str
) -> None:
    detector = load_model(MaskRCNNSettings(score=0.1), precision=precision)
    plane = window(4, *shape)
    results = []
    for count in THREADS:
        torch.set_num_threads(count)
        (found,) = detector.segment([plane])
        results.append(stored(found))
    assert len(found)
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize(
    "settings",
    [
        NetworkSettings(stages=2, pyramid_channels=24, classes=3, mask_loss="softmax"),
        NetworkSettings(form="c4", backbone="resnet18", mask_channels=16),
    ],
    ids=["softmax", "c4"],
)
def test_other_networks_return_the_same_bits_too(settings: NetworkSettings) -> None:
    torch.manual_seed(0)
    network = MaskRCNN(settings).eval().to(memory_format=torch.channels_last)
    network.set_least_score(0.0)
    image = torch.rand(1, 1, 32, 32)
    results = []
    for count in THREADS[:3]:
        torch.set_num_threads(count)
        with torch.inference_mode(), steady("cpu"):
            results.append(network(image)[0])
    assert len(results[0]["scores"])
    assert all(torch.equal(one[key], results[0][key]) for one in results for key in one)


def test_a_batch_gives_what_its_planes_give_alone(nuclei: Detector) -> None:
    planes = [window(4, 200, 220), window(7, 61, 90), window(4, 130, 90)]
    together = nuclei.segment(planes)
    assert sum(len(found) for found in together) > 0
    assert [stored(found) for found in together] == [
        stored(nuclei.segment([plane])[0]) for plane in planes
    ]


def test_a_region_does_not_depend_on_how_many_others_there_are(nuclei: Detector) -> None:
    torch.manual_seed(0)
    heads = nuclei.network.get_submodule("roi_heads")
    assert isinstance(heads, nn.Module)
    small, large = torch.randn(70, 4, 4, 48), torch.randn(70, 14, 14, 48)

    def results(count: int) -> list[Tensor]:
        with torch.inference_mode(), steady("cpu"):
            vectors = heads.box_head(small[:count].permute(0, 3, 1, 2))  # type: ignore[operator]
            logits, corrections = heads.box_predictor(vectors)  # type: ignore[operator]
            masks = heads.mask_predictor(large[:count].permute(0, 3, 1, 2))  # type: ignore[operator]
            return [functional.softmax(logits, -1), corrections, torch.sigmoid(masks)]

    for count in (1, 2, 3, 15, 17, 33):
        for got, expected in zip(results(count), results(70), strict=True):
            assert torch.equal(got, expected[:count]), count


def test_a_region_alone_is_upsampled_as_in_company() -> None:
    """Torch has another way for one small image, also on one thread."""
    made = torch.Generator().manual_seed(0)
    regions = torch.randn(3, 256, 7, 7, generator=made).to(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 2, 2, generator=made).to(memory_format=torch.channels_last)
    with torch.inference_mode(), steady("cpu"):
        together = functional.conv_transpose2d(regions, weight, stride=2)
        alone = functional.conv_transpose2d(regions[:1], weight, stride=2)
    assert torch.equal(alone, together[:1])


CASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "1 x 1": lambda x, w: functional.conv2d(x, w[:, :, :1, :1]),
    "strided": lambda x, w: functional.conv2d(x, w, w[:, 0, 0, 0], stride=2, padding=1),
    "dilated": lambda x, w: torch.conv2d(x, w, None, (1, 2), (2, 1), 2),
    "same": lambda x, w: functional.conv2d(x, w, padding="same"),
    "transposed": lambda x, w: functional.conv_transpose2d(x, w.mT.contiguous(), stride=2)[..., :9],
    "linear": lambda x, w: functional.linear(x.flatten(0, 2), w[:5, 0].flatten(1)[:, :1]),
    "sigmoid": lambda x, w: x.sigmoid() + torch.sigmoid(w.sum()),
    "softmax": lambda x, w: functional.softmax(x, 1) + x.softmax(-1) * w.sum(),
}


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_those_of_torch_but_for_rounding(case: str) -> None:
    made = torch.Generator().manual_seed(0)
    image = torch.randn(1, 6, 11, 1 if case == "linear" else 13, generator=made)
    weight = torch.randn(6, 6, 3, 3, generator=made)
    with torch.inference_mode():
        expected = CASES[case](image, weight)
        with steady("cpu"):
            got = CASES[case](image, weight)
    assert got.shape == expected.shape
    assert torch.allclose(got, expected, atol=1e-5)


@given(
    st.integers(1, 400),
    st.sampled_from([torch.sigmoid, lambda x: functional.softmax(torch.stack([x, -x]), 0)]),
)
def test_an_element_is_the_same_at_any_position(
    count: int, form: Callable[[Tensor], Tensor]
) -> None:
    values = torch.randn(401, generator=torch.Generator().manual_seed(count)) * 8
    with steady("cpu"):
        assert torch.equal(form(values[:count]), form(values)[..., :count])


def test_extreme_logits_stay_probabilities() -> None:
    far = torch.tensor([-1e30, -200.0, 0.0, 200.0, 1e30])
    with steady("cpu"):
        assert torch.sigmoid(far).tolist() == [0, 0, 0.5, 1, 1]
        assert functional.softmax(far, 0).tolist() == [0, 0, 0, 0, 1]


def test_no_rows_no_regions_and_no_trace_afterwards() -> None:
    with torch.inference_mode(), steady("cpu"):
        assert functional.linear(torch.zeros(0, 3), torch.zeros(2, 3)).shape == (0, 2)
        assert functional.conv2d(torch.zeros(0, 3, 4, 4), torch.zeros(2, 3, 1, 1)).shape[0] == 0
    values = torch.randn(1000)
    assert torch.equal(torch.sigmoid(values), values.sigmoid())
    assert torch.sigmoid in FORMS


def test_a_gpu_tries_no_algorithms_out_and_leaves_nothing_to_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "benchmark", True)
    with steady("cuda:0"):
        assert (cudnn.benchmark, cudnn.deterministic) == (False, True)
    assert (cudnn.benchmark, cudnn.deterministic) == (True, False)
