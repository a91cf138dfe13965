"""Warnings that are given once in a process and reach the training process from others; standard library only."""

import contextlib
import logging
import multiprocessing
from collections.abc import Iterator

_LOG = logging.getLogger(__name__)
_noted: set[str] = set()
_shown: set[str] = set()
_new: list[str] = []
_SEPARATOR = "\x1f"
_is_collecting = False


def note(key: str, text: str) -> None:
    """Warns about something, the first time that it happens in this process.

    A process of ``multiprocessing`` logs nothing itself: whoever started it may have many of them.

    Args:
        key: what is warned about; a later text for the same key is dropped.
        text: the warning, one line.
    """
    if key in _noted:
        return
    _noted.add(key)
    _new.append(key + _SEPARATOR + text)
    if multiprocessing.parent_process() is None and not _is_collecting:
        show(_new[-1])


def pop_notes() -> list[str]:
    """Returns the notes made in this process since the last call, for ``show`` in another process."""
    notes = _new[:]
    _new.clear()
    return notes


def show(entry: str) -> None:
    """Logs a result of ``pop_notes``, unless this process has logged one with its key."""
    key, _, text = entry.partition(_SEPARATOR)
    if key not in _shown:
        _shown.add(key)
        _LOG.warning("%s", text)


@contextlib.contextmanager
def collected() -> Iterator[None]:
    """Leaves all notes made inside the body to ``pop_notes``; none is logged here."""
    global _is_collecting
    _is_collecting = True
    try:
        yield
    finally:
        _is_collecting = False


def forget() -> None:
    """Forgets which notes have been made."""
    for names in (_noted, _shown, _new):
        names.clear()
