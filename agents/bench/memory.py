"""Peak memory of this process, as Linux counts it; unknown on other systems."""

import contextlib
import ctypes
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def resident_mb() -> float | None:
    """The process's memory now, in MiB; ``None`` where the system does not report it."""
    return _read("VmRSS")


def reset_peak() -> bool:
    """Resets the peak to the present memory.

    Returns:
        Whether the system permits it; if not, the peak is that since the process's start.
    """
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def release_free() -> None:
    """Returns unused memory to the system, where the C library can; it would hide a rise."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class PeakMeter:
    """Measures how far memory rises above its level when the meter was created."""

    def __init__(self) -> None:
        self.floor_mb = resident_mb()
        self._is_counting = False

    def start(self) -> None:
        """Starts a new measurement."""
        self._is_counting = reset_peak()

    def above_floor_mb(self) -> float | None:
        """The highest rise since ``start``, in MiB; ``None`` where the system does not permit to measure it."""
        peak = _read("VmHWM")
        if not self._is_counting or peak is None or self.floor_mb is None:
            return None
        return round(max(0.0, peak - self.floor_mb), 1)


def highest(*peaks: float | None) -> float | None:
    """The highest of some peaks; ``None`` if none of them is known."""
    return max((peak for peak in peaks if peak is not None), default=None)


def _read(name: str) -> float | None:
    """One value of the process's status file, from kB to MiB."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), None)
