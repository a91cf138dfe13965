"""``ctm-rl zoo``: lists the trained runs that are shipped, or describes one of them."""

import json
import re
from collections.abc import Mapping
from typing import Any

from ctm_rl.agents.run_directory.progress import describe_return
from ctm_rl.configs import describe
from ctm_rl.zoo.entries import PREFIX, locate, names, read_results

_RETURN, _WHOLE = "episode_return_mean", "accuracy_whole"


def zoo_text(name: str | None, *, as_json: bool) -> str:
    """What the command writes.

    Args:
        name: of an entry, with or without ``zoo:``; ``None``: all are listed.
        as_json: whether to write one line of JSON, see ``read_results``.

    Raises:
        UserError: the zoo has no such entry.
    """
    if name is not None:
        name = name.removeprefix(PREFIX)
        results = read_results(name)
        return f"{json.dumps(results)}\n" if as_json else _details(name, results)
    return f"{json.dumps([read_results(name) for name in names()])}\n" if as_json else _listing()


def table_rows() -> list[tuple[str, ...]]:
    """Returns a line for each entry after one of titles: its name, task, number of parameters, result and time."""
    rows = [("run", "task", "parameters", "result (95 % interval)", "trained")]
    for entry in map(read_results, names()):
        task = re.split("[,:;.]", describe(entry["name"]))[0]
        facts = f"{entry['num_parameters']:,}", _result(entry), _minutes(entry)
        rows.append((f"{PREFIX}{entry['name']}", task, *facts))
    return rows


def _listing() -> str:
    """A table of all entries, and what to do with one."""
    rows = table_rows()
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", f"{'one of them:':<15}ctm-rl zoo NAME", _ways("zoo:NAME"), ""])


def _details(name: str, entry: Mapping[str, Any]) -> str:
    """All that a person wants to know of an entry."""
    training, machine = entry["training"], entry["circumstances"]["machine"]
    versions = ", ".join(f"{package} {version}" for package, version in entry["circumstances"]["versions"].items())
    facts = {
        "result": f"{_result(entry)}: {entry['evaluation']['command']}",
        "trained": f"{training['env_steps']:,} steps in {_minutes(entry)}: {training['command']}",
        "model": f"{entry['num_parameters']:,} parameters, stored as {entry['weights']}",
        "evaluated on": f"{machine['cpu']}, {machine['cores']} cores; {versions}",
        "folder": str(locate(f"{PREFIX}{name}")),
    }
    lines = [f"{title + ':':<15}{text}" for title, text in facts.items()]
    return "\n".join([f"{PREFIX}{name}: {describe(name)}", *lines, _ways(f"{PREFIX}{name}"), ""])


def _ways(run: str) -> str:
    """What to do with an entry."""
    name = run.removeprefix(PREFIX)
    return f"{'try it:':<15}ctm-rl evaluate {run}\n{'go on with it:':<15}ctm-rl train {name} --init-from {run}"


def _result(entry: Mapping[str, Any]) -> str:
    """The result that counts, with its interval."""
    evaluation, measure = entry["evaluation"], entry["measure"]
    value, interval = evaluation[measure], evaluation[f"{measure.removesuffix('_mean')}_interval"]
    if measure == _RETURN:
        low, high = map(describe_return, interval)
        return f"return {describe_return(value)} ({low} to {high})"
    low, high = (f"{100 * share:.1f}" for share in interval)
    return f"{100 * value:.1f} % of {evaluation['words'][-1 if measure == _WHOLE else 0]} ({low} to {high})"


def _minutes(entry: Mapping[str, Any]) -> str:
    """How long the entry was trained."""
    return f"{entry['training']['seconds'] / 60:.1f} min"
