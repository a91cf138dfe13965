"""Which run of a service continues a run: its id there, kept in the run's directory."""

import json
import os
from pathlib import Path

IDS_FILE = ".loggers.json"


def read_run_id(run_dir: Path, service: str) -> str | None:
    """Returns the id that a run has at a service; None: it has none yet."""
    return _read(run_dir).get(service)


def write_run_id(run_dir: Path, service: str, run_id: str) -> None:
    """Keeps the id that a run has at a service."""
    text = json.dumps({**_read(run_dir), service: run_id}) + "\n"
    temporary = run_dir / f"{IDS_FILE}.new"
    temporary.write_text(text)
    os.replace(temporary, run_dir / IDS_FILE)


def _read(run_dir: Path) -> dict[str, str]:
    """The ids by service; none if the file is not one of ours."""
    try:
        ids = json.loads((run_dir / IDS_FILE).read_bytes())
        return {str(name): str(value) for name, value in ids.items()}
    except (OSError, ValueError, AttributeError):
        return {}
