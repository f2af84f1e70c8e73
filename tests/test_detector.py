"""A detector's box-sized masks land on the right pixels, and touching cells stay apart."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from cards import card_of

from cellseg.models import CellsegError, load_model
from cellseg.models.dataset import target
from cellseg.models.detector import Detector
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.proposals import Proposals, paste
from cellseg.models.settings import MaskRCNNSettings, NetworkSettings
from cellseg.models.weights import Card, find_weights, read_card, save_weights, shipped

SMALL = NetworkSettings(stages=2, pyramid_channels=16, box_features=16, mask_channels=8)


def card(**changes: object) -> Card:
    return card_of(SMALL).model_copy(update=changes)


def test_paste_keeps_a_mask_that_fills_its_box_to_the_pixel() -> None:
    y, x, probability = paste((3.0, 5.0, 9.0, 17.0), np.ones((28, 28), np.float32), (40, 40))
    assert (y, x) == (3, 5)
    assert probability.shape == (6, 12)
    assert np.allclose(probability, 1)


def test_paste_takes_pixels_whose_centre_lies_in_the_box_and_in_the_plane() -> None:
    ones = np.ones((28, 28), np.float32)
    assert paste((2.6, 2.4, 5.4, 5.6), ones, (40, 40))[2].shape == (2, 4)
    y, x, probability = paste((-3.0, 36.0, 4.0, 44.0), ones, (40, 40))
    assert (y, x, probability.shape) == (0, 36, (4, 4))
    assert paste((5.1, 5.1, 5.3, 5.3), ones, (40, 40))[2].size == 0


def test_paste_places_an_edge_at_sub_pixel_precision() -> None:
    half = np.zeros((28, 28), np.float32)
    half[:, 14:] = 1
    _, _, probability = paste((0.0, 0.0, 10.0, 10.0), half, (10, 10))
    assert (probability[:, :5] < 0.5).all()
    assert (probability[:, 5:] > 0.5).all()


def test_a_disc_survives_target_and_paste() -> None:
    y, x = np.indices((30, 30))
    labels = ((y - 14) ** 2 + (x - 15) ** 2 <= 49).astype(np.int32)
    goal = target(labels[None])
    box = goal["boxes"][0].numpy()[[1, 0, 3, 2]] + 0.5
    assert box.tolist() == [7, 8, 22, 23]
    from torchvision.models.detection.roi_heads import project_masks_on_boxes

    small = project_masks_on_boxes(
        goal["masks"], goal["boxes"], torch.zeros(1, dtype=torch.int64), 28
    )
    top, left, probability = paste(box.tolist(), small[0].numpy(), (30, 30))
    drawn = np.zeros((30, 30), bool)
    drawn[top : top + 15, left : left + 15] = probability >= 0.5
    iou = (drawn & (labels > 0)).sum() / (drawn | (labels > 0)).sum()
    assert iou > 0.97


def test_touching_cells_share_no_pixel_and_second_guesses_go() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 9, 10, 19], [0, 1, 10, 11]], np.float64)
    masks = np.ones((3, 28, 28), np.float32)
    masks[1] *= 0.9
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    proposed = Proposals.pasted(boxes, masks, scores, np.ones(3, np.uint8), (20, 20), "resolve")
    found = proposed.cut(0, 0.5, 4)
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])
    labels = found.to_labels((20, 20))
    assert found.areas().sum() == np.count_nonzero(labels) == 190
    assert labels[5, 9] == 1


def test_of_a_mask_in_pieces_the_largest_is_kept_and_debris_is_dropped() -> None:
    mask = np.zeros((28, 28), np.float32)
    mask[:, :10] = 1
    mask[:, 25:] = 1
    proposed = Proposals.pasted(
        np.array([[0, 0, 28, 28], [0, 40, 2, 42]], np.float64),
        np.stack([mask, np.ones_like(mask)]),
        np.array([0.9, 0.9], np.float32),
        np.ones(2, np.uint8),
        (50, 50),
        "resolve",
    )
    found = proposed.cut(0, 0.5, 10)
    assert found.boxes.tolist() == [[0, 0, 28, 10]]


def test_a_batch_without_objects_has_a_finite_loss_and_gradients() -> None:
    torch.manual_seed(0)
    network = MaskRCNN(SMALL).train()
    empty = target(np.zeros((1, 64, 64), np.int32))
    losses = network(torch.rand(2, 1, 64, 64), [empty, empty])
    assert isinstance(losses, dict)
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("shape", [(1, 1), (33, 70), (64, 64)])
def test_planes_of_any_size_are_segmented_inside_their_bounds(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = MaskRCNN(SMALL)
    detector = Detector(network, network.backbone.stride, score=0.0, min_area_px=1)
    (found,) = detector.segment([np.random.default_rng(0).random((1, *shape), np.float32)])
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2:] <= shape).all()


def test_more_objects_than_any_default_cap_are_found() -> None:
    """A network that calls every anchor a cell must return thousands, not torchvision's 100."""
    torch.manual_seed(0)
    network = MaskRCNN(SMALL).eval()
    network.set_least_score(0.0)
    with torch.no_grad():
        network.rpn.head.cls_logits.bias.fill_(5)
        network.roi_heads.box_predictor.cls_score.bias[1:] = 5
    with torch.inference_mode():
        (found,) = network(torch.rand(1, 1, 640, 640))
    assert len(found["boxes"]) > 2000


def test_weights_come_back_with_their_card(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    torch.manual_seed(0)
    network = MaskRCNN(SMALL)
    save_weights(path, network.state_dict(), card())
    assert read_card(path) == card()
    again = load_model(MaskRCNNSettings(weights=str(path)))
    assert isinstance(again, Detector)
    for name, value in network.state_dict().items():
        halved = value.is_floating_point() and value.ndim > 1
        kept = value.half().float() if halved else value
        assert torch.equal(again.network.state_dict()[name], kept)


def test_weights_beyond_float16_are_refused_and_statistics_keep_their_size(tmp_path: Path) -> None:
    network = MaskRCNN(SMALL)
    state = network.state_dict()
    state["backbone.stem.1.running_var"].fill_(1e6)
    save_weights(tmp_path / "large.safetensors", state, card())
    again = load_model(MaskRCNNSettings(weights=str(tmp_path / "large.safetensors")))
    assert isinstance(again, Detector)
    assert again.network.state_dict()["backbone.stem.1.running_var"].max() == 1e6
    state["backbone.stem.0.weight"].fill_(1e6)
    with pytest.raises(CellsegError, match=r"backbone\.stem\.0\.weight holds weights beyond"):
        save_weights(tmp_path / "huge.safetensors", state, card())


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    network = MaskRCNN(SMALL)
    path = tmp_path / "other.safetensors"
    save_weights(path, network.state_dict(), card(network=SMALL.model_copy(update={"stages": 3})))
    with pytest.raises(CellsegError, match="do not fit its own description"):
        load_model(MaskRCNNSettings(weights=str(path)))
    save_weights(path, network.state_dict(), card())
    with pytest.raises(CellsegError, match=r"sees 1 channel\(s\), the workflow gives it 2"):
        load_model(MaskRCNNSettings(weights=str(path), channels=(0, 1)))
    with pytest.raises(CellsegError, match=r"neither a file nor shipped\. Did you mean nuclei"):
        find_weights("nucleii")
    path.write_bytes(b"not tensors")
    with pytest.raises(CellsegError, match=r"not a readable \.safetensors"):
        read_card(path)


def test_shipped_weights_are_small_and_say_what_they_are() -> None:
    # Half of what `nuclei_overlap` is measured on are composed images, in which cells hide cells.
    least = {"nuclei": 0.86, "nuclei_large": 0.86, "nuclei_overlap": 0.65}
    assert set(least) == set(shipped())
    for name, path in shipped().items():
        assert path.stat().st_size <= 16e6
        described = read_card(path)
        # The large one was called `nuclei`, and its file is as it was.
        assert described.name == name.removesuffix("_large")
        assert described.accuracy["ap_0.5"] >= least[name]
        assert described.data_licence == "CC0"


@pytest.mark.parametrize("zoom", [1.0, 1.5])
def test_a_window_shows_the_cells_of_the_whole_image_wherever_it_begins(zoom: float) -> None:
    with resources.as_file(resources.files("cellseg.workflows") / "demo_plate") as plate:
        pixels = tifffile.imread(plate / "IXMtest_J02_s5_w1.tif")[:400, :400].astype(np.float32)
    plane = np.clip((pixels - pixels.min()) / (np.percentile(pixels, 99.8) - pixels.min()), 0, 1)[
        None
    ]
    model = load_model(MaskRCNNSettings(), "cpu", "float32")
    assert isinstance(model, Detector)
    detector, y, x = model.at_zoom(zoom), 56, 72
    (whole,) = detector.segment([plane])
    (placed,) = detector.segment_at([plane[:, y:, x:]], [(y, x)])
    placed = placed.shifted(y, x)
    inside = (whole.boxes[:, :2] >= (y + 64, x + 64)).all(axis=1)
    assert inside.sum() > 20
    found = {
        tuple(box): mask for box, mask in zip(placed.boxes.tolist(), placed.masks, strict=True)
    }
    same = [
        np.array_equal(found.get(tuple(whole.boxes[i].tolist()), False), whole.masks[i])
        for i in np.flatnonzero(inside)
    ]
    assert np.mean(same) >= 0.95
