"""The file that W&B writes a run's records to, in LevelDB's log format; W&B itself no longer reads it in Python.

After a header of 7 bytes the file is divided into blocks of 32 KiB. A record is one chunk, or several where it crosses
blocks: checksum (4 bytes), length (2), type (1: whole, 2: first, 3: middle, 4: last), content.
"""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HEADER_SIZE, BLOCK_SIZE = 7, 32768
_CHUNK = struct.Struct("<IHB")
_WHOLE, _FIRST, _LAST = 1, 2, 4


class Record(NamedTuple):
    """One record of a file."""

    begin: int
    """Where it begins in the file."""
    end: int
    """Where it ends."""
    content: bytes
    """W&B's ``Record``, serialised."""


def records_of(file: Path) -> Iterator[Record]:
    """Yields the whole records of a file; one that a crash cut short, and what follows it, is left out."""
    return _records_in(file.read_bytes(), HEADER_SIZE)


def is_finished(file: Path) -> bool:
    """Whether a file's last record says that the run has ended; reads its end only."""
    with file.open("rb") as stream:
        # Every block begins with a chunk, and the last record is smaller than a block.
        first = max(0, stream.seek(0, os.SEEK_END) // BLOCK_SIZE - 1) * BLOCK_SIZE
        stream.seek(first)
        records = [*_records_in(stream.read(), 0 if first else HEADER_SIZE)]
    return bool(records) and _parse(records[-1]).WhichOneof("record_type") == "exit"


def _parse(record: Record) -> Any:
    """A record as W&B's message."""
    from wandb.proto.wandb_internal_pb2 import Record as Message  # pyright: ignore[reportMissingImports]

    return Message.FromString(record.content)


def _records_in(data: bytes, position: int) -> Iterator[Record]:
    """Yields the records of whole blocks that begin after a position; positions are those in the data."""
    begin, parts, is_begun = 0, b"", False
    while True:
        room = BLOCK_SIZE - position % BLOCK_SIZE
        if room < _CHUNK.size:
            position += room
        if position + _CHUNK.size > len(data):
            return
        _, length, kind = _CHUNK.unpack_from(data, position)
        content = data[position + _CHUNK.size : position + _CHUNK.size + length]
        if len(content) < length or not _WHOLE <= kind <= _LAST:
            return
        if kind in (_WHOLE, _FIRST):
            begin, parts, is_begun = position, b"", True
        position += _CHUNK.size + length
        parts += content
        if is_begun and kind in (_WHOLE, _LAST):
            yield Record(begin, position, parts)


def cut_file(file: Path, last_step: int) -> int | None:
    """Cuts a file off before the first point after a step; returns the last step that stays, None: there is none."""
    end, found = HEADER_SIZE, None
    for record in records_of(file):
        parsed = _parse(record)
        if parsed.WhichOneof("record_type") == "history":
            values = {item.key or "/".join(item.nested_key): item.value_json for item in parsed.history.item}
            step = int(json.loads(values.get("_step", "0")))
            if step > last_step:
                break
            found = step
        end = record.end
    if end < file.stat().st_size:
        os.truncate(file, end)
    return found
