"""What computes the network is decided once, said, and part of what identifies its cells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cellseg.models import CellsegError, hardware
from cellseg.models.settings import CenterMaskSettings, MaskRCNNSettings, ThresholdSettings
from cellseg.pipeline import inference, read_workflow, run
from cellseg.pipeline.config import Cluster, Config
from cellseg.pipeline.inference import settled
from cellseg.pipeline.plan import plan

DEMO = Path(__file__).parent.parent / "workflows" / "plate.toml"
MASK_RCNN, CENTER_MASK = MaskRCNNSettings(), CenterMaskSettings()
INTEL = "processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 avx_vnni\n"
OLD = "processor\t: 0\nflags\t\t: fpu avx2 avx512f\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd i8mm bf16\n"


def machine(monkeypatch: pytest.MonkeyPatch, *, bfloat16: bool, openvino: bool) -> None:
    monkeypatch.setattr(inference, "has_bfloat16", lambda _: bfloat16)
    monkeypatch.setattr(inference, "has_openvino", lambda: openvino)


@pytest.mark.parametrize(
    ("text", "has"), [(INTEL, True), (ARM, True), (OLD, False), ("", False), (None, False)]
)
def test_what_linux_says_of_the_cpu_tells_whether_it_has_bfloat16(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, *, has: bool
) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(hardware, "CPU_FACTS", tmp_path / "cpuinfo")
    assert hardware.has_bfloat16("cpu") is has


@pytest.mark.parametrize(
    ("model", "bfloat16", "openvino", "expected"),
    [
        (MASK_RCNN, True, True, ("torch", "mixed")),
        (MASK_RCNN, False, True, ("torch", "float32")),
        (CENTER_MASK, True, True, ("torch", "float32")),
        (ThresholdSettings(), True, True, ("auto", "auto")),
    ],
)
def test_auto_is_what_the_machine_has_for_the_model(
    monkeypatch: pytest.MonkeyPatch,
    model: MaskRCNNSettings | CenterMaskSettings | ThresholdSettings,
    expected: tuple[str, str],
    *,
    bfloat16: bool,
    openvino: bool,
) -> None:
    machine(monkeypatch, bfloat16=bfloat16, openvino=openvino)
    chosen = settled(Config(device="cpu"), model)
    assert (chosen.inference, chosen.precision) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Config(engine="slurm"), ("torch", "mixed")),
        (Config(engine="slurm", cluster=Cluster(gpus=1)), ("torch", "float32")),
        (Config(engine="tcp://head:8786"), ("torch", "float32")),
        (Config(engine="tcp://head:8786", device="cpu"), ("torch", "mixed")),
        (Config(device="cpu", inference="torch", precision="float32"), ("torch", "float32")),
    ],
)
def test_of_workers_elsewhere_only_what_all_can_is_taken(
    monkeypatch: pytest.MonkeyPatch, config: Config, expected: tuple[str, str]
) -> None:
    machine(monkeypatch, bfloat16=True, openvino=True)
    chosen = settled(config, MASK_RCNN)
    assert (chosen.inference, chosen.precision) == expected


def test_bfloat16_is_taken_where_it_is_asked_for_and_then_by_openvino(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, bfloat16=True, openvino=True)
    asked = Config(device="cpu", precision="bfloat16")
    chosen = settled(asked, MASK_RCNN)
    assert (chosen.inference, chosen.precision) == ("openvino", "bfloat16")
    machine(monkeypatch, bfloat16=True, openvino=False)
    assert settled(asked, MASK_RCNN).inference == "torch"


def test_what_is_asked_for_and_cannot_be_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = Config(device="cpu", inference="openvino")
    machine(monkeypatch, bfloat16=True, openvino=False)
    with pytest.raises(CellsegError, match=r'pip install "cellseg\[cpu\]", or set inference'):
        settled(asked, MASK_RCNN)
    machine(monkeypatch, bfloat16=True, openvino=True)
    with pytest.raises(CellsegError, match=r"is for mask_rcnn, not for center_mask\. Set"):
        settled(asked, CENTER_MASK)
    on_gpus = Config(device="auto", engine="slurm", cluster=Cluster(gpus=1), inference="openvino")
    with pytest.raises(CellsegError, match=r"computes on CPUs, and device is auto\. Set device"):
        settled(on_gpus, MASK_RCNN)


def test_tiles_of_one_kind_of_arithmetic_are_never_completed_by_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(monkeypatch, bfloat16=True, openvino=True)
    workflow = read_workflow(DEMO, output=tmp_path)
    keys = [
        plan(workflow, Config.model_validate({"device": "cpu"} | each)).scenes[0].key
        for each in (
            {},
            {"inference": "torch", "precision": "mixed"},
            {"inference": "openvino"},
            {"precision": "float32"},
        )
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_what_was_chosen_stands_in_run_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(monkeypatch, bfloat16=False, openvino=False)
    image = sorted((DEMO.parent / "demo_plate").glob("*.tif"))[0]
    result = run(read_workflow(DEMO, (), [str(image)], tmp_path / "out"), Config(device="cpu"))
    assert not result.failed
    document = json.loads((result.folder / "run.json").read_text(encoding="utf-8"))
    assert document["config"]["inference"] == "auto"
    assert (document["model"]["inference"], document["model"]["precision"]) == (
        "torch",
        "float32",
    )
