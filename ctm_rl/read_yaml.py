"""Reads and writes configurations in YAML: plain values only, with the line of each; PyYAML is loaded when needed."""

import functools
import re
from pathlib import Path
from typing import Any

from ctm_rl.read_json import MAX_DEPTH, read_regular_file

SUFFIXES = (".yaml", ".yml")
MAX_BYTES = 2**20
"""Largest file that is read."""
FREE = ("kwargs", "held_out_kwargs")
"""Groups whose names are not ours: dots and dashes in them stay."""
_FLOAT = re.compile(r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)([eE][-+]?\d+)?")
"""Numbers as Python and JSON write them; YAML 1.1 takes 1e6 for text."""


_TAGS = [f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")]


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Reads a YAML file without executing anything in it.

    Args:
        path: a regular file, or a link to one. Names may be nested or joined by dots, ``ppo: {lr: 1}`` or
            ``ppo.lr: 1``, with dashes or underscores.

    Returns:
        Its content, nested, and the line of each full name, from 1.

    Raises:
        OSError: it cannot be opened or read.
        ValueError: it is no regular file, too large, or not such a file; the message is a clause with the line.
    """
    import yaml

    try:
        text = read_regular_file(path, MAX_BYTES).decode()
    except UnicodeDecodeError as error:
        raise ValueError("it is no text in UTF-8") from error
    loader_class, _ = _classes()
    lines: dict[str, int] = {}
    try:
        loader = loader_class(text)
        node = loader.get_single_node()
        content = None if node is None else _content(loader, node, "", lines, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise ValueError(f"{where}{_clause(error)}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from error
    if not isinstance(content, dict):
        raise ValueError("it must hold names with values, such as seed: 1")
    return content, lines


def to_yaml(values: Any) -> str:
    """Returns nested plain values as YAML, in their order; ``read_yaml`` is the inverse."""
    import yaml

    _, dumper_class = _classes()
    return yaml.dump(values, Dumper=dumper_class, sort_keys=False, allow_unicode=True, width=100)


def _clause(error: Any) -> str:
    """What is wrong with a file, without a full stop."""
    return ", ".join(filter(None, (error.problem, error.context))).rstrip(".")


@functools.cache
def _classes() -> tuple[Any, Any]:
    """PyYAML's safe loader and dumper, which know the same numbers and no dates."""
    import yaml
    from yaml.composer import ComposerError

    class Loader(yaml.SafeLoader):
        """Reads plain values; refuses aliases, which can make a small file very large."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            """Refuses an alias."""
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark
                raise ComposerError(None, None, "aliases (*name) are not read", mark)
            return super().compose_node(parent, index)

        def construct_yaml_float(self, node: Any) -> float:
            """Reads a number as Python does."""
            text = str(self.construct_scalar(node))
            return float(text) if _FLOAT.fullmatch(text) else super().construct_yaml_float(node)

    class Dumper(yaml.SafeDumper):
        """Writes them, a list that occurs twice as two lists."""

        def ignore_aliases(self, data: Any) -> bool:
            """Writes no alias."""
            return True

    Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_yaml_float)
    for kind in (Loader, Dumper):
        kept = {
            first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
            for first, resolvers in kind.yaml_implicit_resolvers.items()
        }
        kind.yaml_implicit_resolvers = kept
        # Behind the others, so that 1_000 stays a whole number.
        kind.add_implicit_resolver(
            "tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+.0123456789")
        )
    return Loader, Dumper


def _content(loader: Any, node: Any, path: str, lines: dict[str, int], depth: int) -> Any:
    """The plain value of a node.

    Raises:
        ValueError: it is none; the message names the line.
    """
    line = node.start_mark.line + 1
    if depth > MAX_DEPTH:
        raise ValueError(f"line {line}: it is nested more than {MAX_DEPTH} deep")
    if node.tag not in _TAGS:
        raise ValueError(f"line {line}: values of the kind {node.tag} are not read")
    if node.id == "sequence":
        return [_content(loader, item, path, lines, depth + 1) for item in node.value]
    if node.id == "scalar":
        return loader.construct_object(node)
    is_free = path.rpartition(".")[2] in FREE
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = loader.construct_object(key_node) if key_node.id == "scalar" else None
        if not isinstance(key, str):
            raise ValueError(f"line {line}: a name must be text, got {key_node.value}")
        names = [key] if is_free else key.replace("-", "_").split(".")
        full = ".".join(filter(None, (path, *names)))
        lines.setdefault(full, line)
        value = _content(loader, value_node, full, lines, depth + 1)
        for name in reversed(names[1:]):
            value = {name: value}
        _put(found, names[0], value, path, line)
    return found


def _put(found: dict[str, Any], name: str, value: Any, path: str, line: int) -> None:
    """Adds a value to those of its group, whose full name is ``path``; groups are joined.

    Raises:
        ValueError: there is one already.
    """
    full = f"{path}.{name}" if path else name
    if name not in found:
        found[name] = value
    elif isinstance(found[name], dict) and isinstance(value, dict):
        for inner, item in value.items():
            _put(found[name], inner, item, full, line)
    else:
        raise ValueError(f"line {line}: {full} is given twice")
