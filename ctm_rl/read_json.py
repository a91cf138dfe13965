"""Reads JSON files that somebody else may have written: regular files of a limited size, depth and number of values."""

import json
import os
import stat
from pathlib import Path
from typing import Any

MAX_BYTES = 64 * 2**20
"""Largest file that is read."""
MAX_VALUES = 1_000_000
"""Largest number of values and containers in one file; each takes up to 200 bytes of memory."""
MAX_DEPTH = 100
"""Deepest nesting of lists and objects."""


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Args:
        path: a regular file, or a link to one.

    Returns:
        Its content, as of ``json.loads``.

    Raises:
        OSError: it cannot be opened or read.
        ValueError: it is no regular file, no JSON, or larger or deeper than allowed; the message is a clause.
    """
    text = read_regular_file(path, MAX_BYTES)
    num_containers = text.count(b"[") + text.count(b"{")
    if num_containers + text.count(b",") > MAX_VALUES:
        raise ValueError(f"it holds more than {MAX_VALUES:,} values")
    try:
        content = json.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError("it is no text in UTF-8") from error
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from error
    if num_containers > MAX_DEPTH and _is_deep(content):
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    return content


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Reads a regular file; a pipe or a device, which may never end, is refused without reading.

    Raises:
        OSError: it cannot be opened or read.
        ValueError: it is no regular file, or larger than allowed.
    """
    # without O_NONBLOCK, opening a named pipe waits for somebody who writes to it
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is not a regular file")
        if found.st_size > max_bytes:
            raise ValueError(f"it is larger than {max_bytes:,} bytes")
        return file.read(max_bytes)


def _is_deep(content: Any) -> bool:
    """Whether lists and objects are nested deeper than ``MAX_DEPTH``."""
    level = [content] if isinstance(content, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        level = [
            item
            for outer in level
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return False
    return True
