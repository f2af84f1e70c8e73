"""A training is read from its file or folder with every path absolute; errors are one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellseg.models import CellsegError
from cellseg.models.weights import read_card, shipped
from cellseg.pipeline.training import FINE_TUNING, read_fine_tuning, read_training


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a folder beside it for the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows").mkdir()
    return tmp_path


def write(here: Path, text: str) -> Path:
    path = here / "flows" / "t.toml"
    path.write_text(text, encoding="utf-8")
    return path


TRAINING = 'images = "images"\nlabels = ["labels"]\n'


def test_a_training_is_read_with_its_paths_beside_the_file(here: Path) -> None:
    path = write(here, TRAINING + 'validation = "val.txt"\n[network]\nbackbone = "resnet34"')
    got = read_training(path, ["steps=7", "labels=mine"])
    assert got.images == (str(here / "flows" / "images"),)
    assert got.labels == (str(here / "mine"),)
    assert got.validation == str(here / "flows" / "val.txt")
    assert (got.steps, got.network.backbone) == (7, "resnet34")
    assert got.output == "training/model"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('images = "x"', ["labels is missing"]),
        ('images = ["a", "b"]\nlabels = "c"', ["images has 2 folders and labels 1"]),
        (TRAINING + "step = 3", ["step is not a key here. Did you mean steps?"]),
        (TRAINING + "crop_px = 70", ["crop_px = 70", "a multiple of 32"]),
        (TRAINING + "validation = 1.5", ["validation = 1.5", "fraction"]),
        (TRAINING + "zoom = [2.0, 1.0]", ["zoom = [2.0, 1.0]"]),
        (TRAINING + "zoom = [1.2, 2.0]", ["zoom = [1.2, 2.0]", "around 1"]),
        (TRAINING + "[network]\nclasses = 2", ["network.classes = 2", "class_images"]),
        (TRAINING + 'class_names = ["a", "b"]', ["class_names has 2 names"]),
        (TRAINING + 'class_images = ["a", "b"]', ["class_images 2"]),
        (TRAINING + 'start = "nuclej"', ["nuclej", "Did you mean nuclei?"]),
        (TRAINING + "zoom = [1]", ["zoom = [1] is not a list in [ ] of 2, each a number"]),
        (TRAINING + '[network]\nbackbone = "resnet9"', ['"resnet18" or "resnet34"']),
        (TRAINING + '[normalise]\nmethod = "x"', ["[normalise] method", "percentile"]),
        (TRAINING + "[normalise]\nlow = 60\nhigh = 50", ["[normalise] low = 60"]),
        (TRAINING + '[model]\nname = "threshold"', ["table [model] is not a key here"]),
    ],
)
def test_what_is_wrong_in_a_training_is_named_in_one_line(
    here: Path, text: str, words: list[str]
) -> None:
    with pytest.raises(CellsegError) as caught:
        read_training(write(here, text))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_weights_to_start_from_bring_their_network_and_normalisation(here: Path) -> None:
    card = read_card(shipped()["nuclei"])
    for got in (
        read_training(write(here, TRAINING), start="nuclei"),
        read_training(write(here, TRAINING + 'start = "nuclei"')),
    ):
        assert got.start == "nuclei"
        assert got.network == card.network
        assert got.normalise == card.normalise
    own = 'start = "nuclei"\n[network]\nbackbone = "resnet34"'
    assert read_training(write(here, TRAINING + own)).network.backbone == "resnet34"


def test_a_folder_of_images_is_a_short_careful_training(here: Path) -> None:
    for name in ("images", "labels"):
        (here / "mine" / name).mkdir(parents=True)
    got = read_fine_tuning(here / "mine", "nuclei", ["steps=20", "network.classes=1"])
    assert (got.steps, got.rate) == (20, FINE_TUNING["rate"])
    assert got.images == (str(here / "mine" / "images"),)
    assert (got.name, got.output) == ("mine", "training/mine")
    assert got.network == read_card(shipped()["nuclei"]).network


def test_a_folder_that_is_none_of_that_is_refused_with_the_remedy(here: Path) -> None:
    (here / "mine" / "images").mkdir(parents=True)
    with pytest.raises(CellsegError, match="has no folder labels"):
        read_fine_tuning(here / "mine", "nuclei")
    with pytest.raises(CellsegError, match="cellseg train --from nuclei mine"):
        read_fine_tuning(here / "mine", None)
