"""The most memory that this process held since it was asked to look: its resident set, in MB.

Linux keeps a high-water mark for each process, and forgets it when told to: "5" written to
/proc/self/clear_refs (proc(5)). Elsewhere there is only the mark of all of the process's life.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
MARK = "VmHWM:"


def reset_peak() -> None:
    """Forget how much this process has held; does nothing where the system cannot."""
    # "r+", as "w" would make a file where there is no /proc.
    with suppress(OSError), CLEAR.open("r+") as file:
        file.write("5")


def peak_mb() -> float | None:
    """Return the most that this process held since `reset_peak`, in 10**6 bytes.

    Returns
    -------
    float or None
        Where the mark cannot be reset, the most since the process began; None where the
        system does not say.
    """
    with suppress(OSError):
        for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(MARK):
                return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6
