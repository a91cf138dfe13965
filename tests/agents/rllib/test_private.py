"""What is private of RLlib is used in one file, and is still there."""

import ast
import importlib
import inspect
import os
import subprocess
import sys
from typing import Any

import pytest
from paths import ROOT

from ctm_rl.agents.rllib import private

ALLOWED = {"_asdict", "_fields", "_make", "_replace", "_outputs", "_setup_learn"}
"""Public ones of named tuples, one of our own classes, and one of Stable-Baselines3."""


def private_names(source: str) -> set[str]:
    """Private attributes of other objects than ``self`` that a file reads or writes."""
    attributes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    return {
        node.attr
        for node in attributes
        if node.attr.startswith("_") and not node.attr.startswith("__")
        if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    } - ALLOWED


def test_only_one_file_reads_private_attributes_of_ray() -> None:
    overridden = {name.rpartition(".")[2] for _, name in private.OVERRIDDEN}
    found = {
        str(path.relative_to(ROOT)): names - overridden
        for path in (ROOT / "agents").rglob("*.py")
        if path.name != "private.py" and (names := private_names(path.read_text()))
    }
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(("module", "name"), private.OVERRIDDEN)
def test_what_is_overridden_exists(module: str, name: str) -> None:
    owner: Any = importlib.import_module(module)
    kind, _, attribute = name.partition(".")
    owner = getattr(owner, kind)
    assert hasattr(owner, attribute) or f"self.{attribute} " in inspect.getsource(owner)


def test_known_noise_alone_is_dropped_from_standard_error() -> None:
    code = (
        "import os\nfrom ctm_rl.agents.rllib.private import without_known_noise\n"
        "with without_known_noise():\n"
        "    os.write(2, b'warning: constructor arguments in the object store\\nsomething else\\n')\n"
        "import sys\nassert not {'ray', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stderr == "something else\n"


def test_a_replaced_global_comes_back_after_an_error() -> None:
    trainable: Any = importlib.import_module("ray.tune.trainable.trainable")
    before = trainable.DEFAULT_STORAGE_PATH
    with pytest.raises(KeyError), private.without_ray_results():
        assert before != trainable.DEFAULT_STORAGE_PATH
        raise KeyError
    assert before == trainable.DEFAULT_STORAGE_PATH
