"""Finds the trained runs that are shipped with this package: ``zoo:NAME`` is the path of one of them."""

import difflib
from pathlib import Path
from typing import Any

from ctm_rl.errors import UserError
from ctm_rl.read_json import read_json

PREFIX = "zoo:"
"""How the name of an entry begins where a path can stand. It always means the zoo: a folder that has such a name is
given by its absolute path."""
RESULTS_FILE = "results.json"
"""How an entry was trained and evaluated, and with which versions, in the entry's folder."""
FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Returns the names of all entries, without ``zoo:``."""
    return sorted(file.parent.name for file in FOLDER.glob(f"*/{RESULTS_FILE}"))


def is_zoo(place: str | Path) -> bool:
    """Whether a text or path is the name of an entry, known or not: whether it begins with ``zoo:``."""
    return str(place).startswith(PREFIX)


def locate(place: str | Path) -> Path:
    """Finds the directory of a run.

    Args:
        place: ``zoo:NAME``, or any other path, which is returned as it is.

    Raises:
        UserError: the zoo has no such entry; the message has the most similar name, and all of them.
    """
    if not is_zoo(place):
        return Path(place)
    name, known = str(place).removeprefix(PREFIX), names()
    if name not in known:
        similar = difflib.get_close_matches(name, known, n=1)
        guess = f"; did you mean {PREFIX}{similar[0]}?" if similar else "."
        raise UserError(f"{place} is not in the zoo, which has {', '.join(known) or 'none'}{guess}")
    return FOLDER / name


def check_resumable(place: str | Path) -> None:
    """Refuses to continue an entry of the zoo, which has no training state and is read-only.

    Raises:
        UserError: it is one.
    """
    if is_zoo(place):
        locate(place)
        name = str(place).removeprefix(PREFIX)
        raise UserError(
            f"{place} is read-only; begin a run of your own with its weights: ctm-rl train {name} --init-from {place}."
        )


def read_results(name: str) -> dict[str, Any]:
    """Reads how an entry was trained and evaluated.

    Args:
        name: of the entry, with or without ``zoo:``.

    Returns:
        The content of its ``results.json``: ``name``, ``num_parameters``, ``weights`` (their number format),
        ``training`` (``command``, ``env_steps``, ``seconds``, ``iteration``), ``measure`` (the name of the result that
        counts), ``evaluation`` (``command`` and the results of ``evaluate``), and ``circumstances``.

    Raises:
        UserError: the zoo has no such entry.
    """
    return read_json(locate(f"{PREFIX}{name.removeprefix(PREFIX)}") / RESULTS_FILE)
