"""What a time depends on beside the code: the processor, the cores, the versions, the load."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

VERSIONS = ("cellseg", "numpy", "torch", "torchvision", "openvino")


def processor() -> str:
    """Return the name of the processor."""
    told = Path("/proc/cpuinfo")
    if told.is_file():
        for line in told.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return how many cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def described() -> dict[str, Any]:
    """Return the machine as it is now, for JSON; ``load`` are the averages of 1, 5 and 15 min."""
    import torch

    return {
        "processor": processor(),
        "cores": cores(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS},
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def version(name: str) -> str | None:
    """Return the version of a package, None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def text(machine: dict[str, Any]) -> str:
    """Return the machine in a line."""
    versions = ", ".join(f"{name} {found}" for name, found in machine["versions"].items() if found)
    load = " ".join(f"{load:.2f}" for load in machine["load"])
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    return (
        f"{machine['processor']} ({machine['instructions']}), {machine['cores']} cores{gpu};"
        f" {versions}; load average {load}"
    )
