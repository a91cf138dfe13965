"""Damages files in random ways, by a seed: trees of plain values, tensors, bytes, and what a path leads to."""

import copy
import hashlib
import json
import math
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ctm_rl.checkpoints import store

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 2.5, -0.0, 2**31, -(2**31), 2**63, 2**70, 10**400, 1e38, 1e308, -1e308, 1e-320),
    *(float("nan"), float("inf"), "", "x", "1", "ctm", "\x1b[2J\x1b]0;owned\x07", "\ud800", "../../etc/passwd"),
    *("evil:Evil-v0", "a" * 1_000_000, "\x1b[31m" * 50_000, [], {}, [0], [[[]]], {"": 0}, {"$tensor": "nothing"}),
    *({"$float": "nan"}, {"$tuple": [1, "x"]}, {"$dict": [[0, 1], [0, 2]]}, [0] * 100_000),
)
"""Values that a file of somebody else may hold in place of the right ones."""
MB = 2**20


def walk(tree: Any, rng: random.Random) -> tuple[Any, Any]:
    """A random container of a tree and one of its keys, each depth about as likely as the others."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        key = rng.choice(keys)
        inner = tree[key]
        if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.12:
            return tree, key
        tree = inner


def damage_tree(tree: Any, rng: random.Random) -> str:
    """Changes one or two entries of a tree of JSON values in place; tells what was done."""
    container, key = walk(tree, rng)
    kind = rng.choice(
        ("replace", "replace", "replace", "nudge", "remove", "rename", "add", "swap", "copy", "wrap", "deep")
    )
    where = f"{kind} {str(key)[:60]!r}"
    if kind == "nudge" and isinstance(container[key], (int, float)):
        container[key] = container[key] + rng.choice((-1, 1, 0.5, 1000, -1000))
    elif kind in ("replace", "nudge"):
        container[key] = copy.deepcopy(rng.choice(ODD_VALUES))
        where += f" by {str(container[key])[:40]!r}"
    elif kind == "remove":
        del container[key]
    elif kind == "rename" and isinstance(container, dict):
        container[rng.choice(("x", "$tensor", "\x1b[2J", "lr", "a" * 100_000))] = container.pop(key)
    elif kind in ("rename", "add") and isinstance(container, dict):
        container[rng.choice(("x", "$array", "__class__", "\x1b[2J"))] = copy.deepcopy(rng.choice(ODD_VALUES))
    elif kind in ("rename", "add"):
        container.append(copy.deepcopy(rng.choice(ODD_VALUES)))
    elif kind in ("swap", "copy"):
        where += f" with {_exchange(container, key, *walk(tree, rng), is_copy=kind == 'copy')!r}"
    elif kind == "wrap":
        container[key] = [container[key]] if rng.random() < 0.5 else {"$tuple": [container[key]]}
    else:
        for _ in range(rng.choice((3, 120, 900))):
            container[key] = [container[key]] if rng.random() < 0.5 else {"a": container[key]}
    return where


def _exchange(container: Any, key: Any, other: Any, name: Any, *, is_copy: bool) -> str:
    """Puts one entry in the place of another, and the other way round; returns the other's name."""
    one, two = copy.deepcopy(container[key]), copy.deepcopy(other[name])
    container[key] = two
    if not is_copy:
        other[name] = one
    return str(name)[:60]


def damage_tensors(tensors: dict[str, torch.Tensor], rng: random.Random) -> str:
    """Changes one or two tensors in place of the mapping; tells what was done."""
    name = rng.choice(list(tensors))
    value = tensors[name].clone()
    kind = rng.choice(list(TENSOR_DAMAGES))
    if kind == "swap":
        other = rng.choice(list(tensors))
        tensors[name], tensors[other] = tensors[other].clone(), value
        return f"tensor {name} swapped with {other}"
    if kind == "remove":
        del tensors[name]
    elif kind == "rename":
        tensors[f"{name}x"] = tensors.pop(name)
    elif kind == "extra":
        tensors["extra"] = torch.zeros(7)
    else:
        tensors[name] = TENSOR_DAMAGES[kind](value, rng).contiguous()
    return f"tensor {name}: {kind}"


def _one(value: torch.Tensor, rng: random.Random, number: float) -> torch.Tensor:
    """The tensor with another number at a random place; of whole numbers as well, if they can hold it."""
    if not value.numel():
        return value
    if not value.is_floating_point():
        number = {math.inf: 2.0**31, -math.inf: -(2.0**31)}.get(number, 255.0 if math.isnan(number) else number)
        limits = torch.iinfo(value.dtype if value.dtype != torch.bool else torch.uint8)
        number = min(max(number, limits.min), limits.max)
    value.view(-1)[rng.randrange(value.numel())] = number if value.is_floating_point() else int(number)
    return value


TENSOR_DAMAGES: dict[str, Any] = {
    "swap": None,
    "remove": None,
    "rename": None,
    "extra": None,
    "nan": lambda value, rng: _one(value, rng, math.nan),
    "inf": lambda value, rng: _one(value, rng, rng.choice((math.inf, -math.inf))),
    "large": lambda value, rng: _one(value, rng, rng.choice((1e38, -1e38))),
    "out of range": lambda value, rng: _one(value, rng, rng.choice((1e9, -1.0))),
    "half": lambda value, _: value.to(torch.float16),
    "double": lambda value, _: value.to(torch.float64),
    "float8": lambda value, _: value.float().to(torch.float8_e5m2),
    "bool": lambda value, _: value.bool(),
    "whole": lambda value, _: value.nan_to_num().long(),
    "complex": lambda value, _: value.to(torch.complex64),
    "flat": lambda value, _: value.reshape(-1),
    "transposed": lambda value, _: value.T if value.ndim == 2 else value[None],
    "one more": lambda value, _: torch.cat((value.reshape(-1), value.reshape(-1)[:1])),
    "cut": lambda value, _: value.reshape(-1)[: value.numel() // 2],
    "empty": lambda value, _: value.reshape(-1)[:0],
    "noise": lambda value, rng: value + rng.randrange(2) if value.dtype != torch.bool else ~value,
}
"""Ways to change one tensor."""


def damage_bytes(path: Path, rng: random.Random) -> str:
    """Changes the bytes of a file."""
    data = bytearray(path.read_bytes())
    kind = rng.choice(("flip", "flip", "flip", "cut", "drop", "insert", "zero", "double", "empty", "append"))
    place = rng.randrange(len(data))
    length = min(rng.choice((1, 7, 500)), len(data) - place)
    if kind == "flip":
        data[place] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[place:]
    elif kind == "drop":
        del data[place : place + length]
    elif kind == "insert":
        data[place:place] = rng.randbytes(length)
    elif kind == "zero":
        data[place : place + length] = bytes(length)
    elif kind == "double":
        data += bytes(data)
    elif kind == "empty":
        data.clear()
    else:
        data += rng.randbytes(length)
    path.write_bytes(data)
    return f"bytes of {path.name}: {kind} at {place}"


def damage_path(path: Path, rng: random.Random) -> str:
    """Puts something else in the place of a file: a pipe, a device, a directory, a link, nothing, or too much."""
    kind = rng.choice(
        ("fifo", "directory", "zero", "null", "tty", "loop", "dangling", "elsewhere", "missing", "sparse")
    )
    kept = path.with_name(f"{path.name}.kept")
    path.rename(kept)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind in ("zero", "null", "tty"):
        path.symlink_to(f"/dev/{kind}")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "elsewhere":
        path.symlink_to(kept)
    elif kind == "sparse":
        shutil.copyfile(kept, path)
        os.truncate(path, 700 * MB)
    return f"path of {path.name}: {kind}"


class Checkpoint:
    """A checkpoint whose content can be changed and sealed again with right digests.

    Args:
        place: the directory of one.
    """

    def __init__(self, place: Path) -> None:
        self.head = json.loads((place / store.STATE_FILE).read_bytes())
        self.tensors = load_file(place / store.TENSORS_FILE)

    def copy(self) -> "Checkpoint":
        """One that can be changed."""
        other = copy.copy(self)
        other.head, other.tensors = copy.deepcopy(self.head), dict(self.tensors)
        return other

    def write(self, place: Path, *, is_sealed: bool = True) -> None:
        """Writes it, with digests that are right."""
        place.mkdir(parents=True, exist_ok=True)
        save_file(self.tensors, place / store.TENSORS_FILE)
        data = (place / store.TENSORS_FILE).read_bytes()
        if is_sealed:
            text = json.dumps(self.head["state"], separators=(",", ":"), allow_nan=True).encode()
            self.head["state_sha256"] = hashlib.sha256(text).hexdigest()
            self.head["tensors"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (place / store.STATE_FILE).write_text(json.dumps(self.head, indent=1))

    def damage(self, rng: random.Random) -> str:
        """Changes what it holds."""
        kind = rng.choice(("tree", "tree", "tree", "tensors", "tensors", "alias", "both"))
        done = []
        if kind in ("tree", "both"):
            done.append(damage_tree(self.head["state"], rng))
        if kind in ("tensors", "both"):
            done.append(damage_tensors(self.tensors, rng))
        if kind == "alias":
            done.append("two entries name one tensor")
            found = [leaf for leaf in _references(self.head["state"])]
            one, two = rng.sample(found, 2)
            one.update({tag: next(iter(two.values())) for tag in one})
        return ", ".join(done)


def _references(tree: Any) -> list[dict[str, str]]:
    """The entries of a tree that name a tensor."""
    if isinstance(tree, dict):
        own = [tree] if set(tree) & {"$tensor", "$array"} else []
        return own + [item for inner in tree.values() for item in _references(inner)]
    return [item for inner in tree for item in _references(inner)] if isinstance(tree, list) else []


class Bomb:
    """Runs a command when it is unpickled.

    Args:
        command: what is run.
    """

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


class Memory:
    """Takes a lot of memory when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return bytearray, (8 * 2**30,)


def damage_archive(path: Path, content: dict[str, Any], rng: random.Random, canary: Path) -> str:
    """Writes a published checkpoint again with another content or in another archive.

    Args:
        path: where it lies.
        content: what it holds; is changed.
        rng: chooses.
        canary: a file that must never exist.
    """
    kind = rng.choice(("args", "args", "weights", "weights", "bomb", "memory", "twice", "deflated", "legacy", "shared"))
    if kind == "args":
        settings = vars(content["args"])
        name = rng.choice(list(settings))
        settings[name] = copy.deepcopy(rng.choice(ODD_VALUES))
        kind += f" {name} {str(settings[name])[:40]!r}"
    elif kind == "weights":
        kind += f" {damage_tensors(content['model_state_dict'], rng)}"
    elif kind == "bomb":
        content[rng.choice(("args", "model_state_dict", "more"))] = Bomb(f"touch {canary}")
    elif kind == "memory":
        content["more"] = Memory()
    elif kind == "shared":
        nested: Any = []
        for _ in range(60):
            nested = [nested, nested]
        vars(content["args"])["more"] = nested
        name = rng.choice(list(content["model_state_dict"]))
        content["model_state_dict"][name] = torch.zeros(1).expand(10**9)
    torch.save(content, path, _use_new_zipfile_serialization=kind != "legacy")
    if kind in ("twice", "deflated"):
        with zipfile.ZipFile(path) as old:
            members = [(item.filename, old.read(item)) for item in old.infolist()]
        compression = zipfile.ZIP_DEFLATED if kind == "deflated" else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", compression) as new:
            for name, data in members * (2 if kind == "twice" else 1):
                new.writestr(name, bytes(30 * MB) if kind == "deflated" and name.endswith("data/0") else data)
    return f"archive: {kind}"


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Where two trees differ by more than finite numbers, flags and texts of the same types and shapes.

    Args:
        before: what was read of the whole file.
        after: what was read of the damaged one.
        path: of both, for the result.
    """
    if isinstance(before, (torch.Tensor, np.ndarray)) and type(before) is type(after):
        is_alike = before.shape == after.shape and before.dtype == after.dtype
        return [] if is_alike and _all_finite(after) >= _all_finite(before) else [path]
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [f"{path}/{key}" for key in before.keys() ^ after.keys()]
        return keys + [
            found
            for key in before.keys() & after.keys()
            for found in differences(before[key], after[key], f"{path}/{key}")
        ]
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        if len(before) != len(after):
            return [path]
        pairs = enumerate(zip(before, after, strict=True))
        return [found for index, (one, two) in pairs for found in differences(one, two, f"{path}/{index}")]
    if isinstance(before, (int, float)) and isinstance(after, (int, float)):
        is_alike = isinstance(before, bool) == isinstance(after, bool)
        is_finite = isinstance(after, int) or math.isfinite(after)
        return [] if is_alike and is_finite >= (isinstance(before, int) or math.isfinite(before)) else [path]
    return [] if type(before) is type(after) else [path]


def _all_finite(value: Any) -> bool:
    """Whether all numbers of an array are finite."""
    return bool(torch.as_tensor(value).isfinite().all())


Load = Callable[[Path], Any]
