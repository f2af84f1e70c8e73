"""What the machine can: bfloat16 in hardware, and whether OpenVINO is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

CPU_FACTS = Path("/proc/cpuinfo")
"""What Linux says of the processor; elsewhere nothing is known."""
CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Names of bfloat16 arithmetic there: x86's two ways, and ARM's."""
FIRST_GPU = (8, 0)
"""CUDA's compute capability from which on a GPU has it: Ampere."""


def has_bfloat16(device: str) -> bool:
    """Return whether a torch device is known to compute in bfloat16 faster than in float32."""
    if device != "cpu":
        import torch

        return bool(torch.cuda.get_device_capability(device) >= FIRST_GPU)
    try:
        lines = CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = (line.partition(":")[2].split() for line in lines if line[:5].lower() in _HEADS)
    return bool(CPU_FLAGS & set(next(flags, [])))


_HEADS = ("flags", "featu")
"""How the line of them begins: "flags" on x86, "Features" on ARM."""


def has_openvino() -> bool:
    """Return whether OpenVINO can be imported, without doing it."""
    return find_spec("openvino") is not None
