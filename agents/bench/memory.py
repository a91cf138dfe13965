"""Peak memory of this process, as Linux counts it; elsewhere nobody knows."""

import contextlib
import ctypes
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def resident_mb() -> float | None:
    """Memory that the process holds now, in MiB; ``None`` where the system does not say."""
    return _read("VmRSS")


def peak_mb() -> float | None:
    """The most memory held since ``reset_peak``, in MiB; ``None`` where the system does not say."""
    return _read("VmHWM")


def reset_peak() -> bool:
    """Lets the peak start anew from what is held now.

    Returns:
        Whether the system permits it; if not, ``peak_mb`` counts from the process's start.
    """
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def release_free() -> None:
    """Gives memory that is no longer used back to the system, where the C library can; it would hide a rise."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class PeakMeter:
    """Measures how far memory rises above what the process held when this was made."""

    def __init__(self) -> None:
        self.floor_mb = resident_mb()
        self._is_counting = False

    def start(self) -> None:
        """Starts counting anew."""
        self._is_counting = reset_peak()

    def above_floor_mb(self) -> float | None:
        """The highest rise since ``start``, in MiB; ``None`` where the system does not let it be counted."""
        peak = peak_mb()
        if not self._is_counting or peak is None or self.floor_mb is None:
            return None
        return round(max(0.0, peak - self.floor_mb), 1)


def _read(name: str) -> float | None:
    """One line of the process's status, kB there."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), None)
