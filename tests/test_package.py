"""The package as a whole: which room may import which, what an import costs, what gets installed."""

import ast
import importlib.metadata
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import ctm_rl

ROOT = Path(__file__).parents[1]
ROOMS = {"core": "ctm_rl", "agents": "agents", "envs": "envs", "configs": "configs"}
MAY_IMPORT = {
    "core": {"core"},
    "agents": {"agents", "core"},
    "envs": {"envs"},
    "configs": {"configs", "agents", "envs", "core"},
}
FORBIDDEN = {"core": {"ray", "gymnasium", "minigrid"}, "envs": {"torch", "ray"}}
COMMAND_LINE = ("ctm_rl.cli", "ctm_rl.commands", "ctm_rl.choosing")
"""The command line puts the rooms together, and so may import all of them."""
SHARED = ("ctm_rl._lazy", "ctm_rl.errors")
"""Exports and errors of every room; standard library only."""


def module_files() -> dict[str, Path]:
    """Every module of the package by its full name."""
    files: dict[str, Path] = {}
    for room, folder in ROOMS.items():
        prefix = () if room == "core" else ("ctm_rl",)
        for path in (ROOT / folder).rglob("*.py"):
            parts = (*prefix, *path.relative_to(ROOT).with_suffix("").parts)
            files[".".join(part for part in parts if part != "__init__")] = path
    return files


MODULES = module_files()
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    """The room that a module of the package lies in."""
    room = module.split(".")[1] if "." in module else "core"
    return room if room in ROOMS else "core"


def imports_of(module: str) -> Iterator[str]:
    """Full names of all that a module imports, wherever in it, for type checking too."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            # ``from ctm_rl import agents`` imports a module, ``from ctm_rl.state import State`` a name in one.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def trespasses(module: str) -> Iterator[str]:
    """What a module imports although its room may not."""
    room = room_of(module)
    for name in imports_of(module):
        top = name.split(".")[0]
        if top in FORBIDDEN.get(room, ()):
            yield f"{module} imports {name}"
        elif top in ROOMS.values() and top != "ctm_rl":
            yield f"{module} imports {name}, which has no such name once installed"
        elif top == "ctm_rl" and not name.startswith(SHARED) and room_of(name) not in MAY_IMPORT[room]:
            yield f"{module} imports {name}"


def test_imports_go_one_way() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS)
    assert [line for module in MODULES if module not in COMMAND_LINE for line in trespasses(module)] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ctm_rl.state", "import ray"),
        ("ctm_rl.state", "from ctm_rl import agents"),
        ("ctm_rl.state", "from .agents import module"),
        ("ctm_rl.agents.experiment", "def f():\n    from ctm_rl.envs.control import HideVelocity"),
        ("ctm_rl.agents.experiment", "import agents.module"),
        ("ctm_rl.envs.control", "from ctm_rl.state import CoreState"),
        ("ctm_rl.envs.control", "import torch.nn as nn"),
    ],
)
def test_a_trespass_is_noticed(module: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TREES, module, ast.parse(source))
    assert len(list(trespasses(module))) == 1


def undocumented(module: str, tree: ast.Module | ast.ClassDef) -> Iterator[str]:
    """The module or class itself, its public classes and functions, their public methods: those without a docstring."""
    if not ast.get_docstring(tree):
        yield module
    for node in tree.body:
        name = f"{module}.{getattr(node, 'name', '_')}"
        if name.rpartition(".")[2].startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            yield from undocumented(name, node)
        elif isinstance(node, ast.FunctionDef) and not ast.get_docstring(node):
            yield name


def test_every_module_and_public_name_has_a_docstring() -> None:
    assert [name for module, tree in TREES.items() for name in undocumented(module, tree)] == []


@pytest.mark.parametrize("package", ["ctm_rl", "ctm_rl.agents", "ctm_rl.envs"])
def test_what_is_exported_is_declared_and_hides_no_module(package: str) -> None:
    tree = TREES[package]
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    (table,) = (node for node in ast.walk(tree) if isinstance(node, ast.Dict))
    declared = {a.asname: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert declared == ast.literal_eval(table)
    for name, module in declared.items():
        assert module in TREES, f"{package} exports {name} from {module}, which does not exist"
        assert name in {getattr(node, "name", None) for node in TREES[module].body}
        # The module, once imported, would take the place of the export.
        assert f"{package}.{name}" not in MODULES


def test_an_unknown_export_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ctm_rl' has no attribute 'nothing'"):
        _ = ctm_rl.nothing  # pyright: ignore[reportAttributeAccessIssue]
    assert {"ActorCritic", "__version__"} <= set(dir(ctm_rl))


HEAVY = ["gymnasium", "ray", "torch"]


def heavy_modules_after(code: str, cwd: Path) -> list[str]:
    """Which of the heavy modules a fresh Python has loaded after running ``code``."""
    report = f"lambda: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    code = f"import atexit, sys\natexit.register({report})\n{code}"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    ("package", "loaded"),
    [("ctm_rl", []), ("ctm_rl.agents", []), ("ctm_rl.configs", []), ("ctm_rl.envs", ["gymnasium"])],
)
def test_importing_a_package_loads_nothing_heavy(package: str, loaded: list[str], tmp_path: Path) -> None:
    assert heavy_modules_after(f"import {package}", tmp_path) == loaded


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "cartpole", "--help"], ["list"]])
def test_help_loads_nothing_heavy_and_answers_within_a_second(arguments: list[str], tmp_path: Path) -> None:
    code = f"import sys\nsys.argv = {['ctm-rl', *arguments]}\nfrom ctm_rl.cli import main\nsys.exit(main())"
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert heavy_modules_after(code, tmp_path) == []
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0


def test_every_folder_of_modules_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(settings["packages"]) == {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert {name: folder for folder, name in settings["package-dir"].items() if folder != "ctm_rl"} == {
        folder: f"ctm_rl.{folder}" for folder in ROOMS.values() if folder != "ctm_rl"
    }


def test_a_wheel_holds_every_module_and_nothing_else() -> None:
    distribution = importlib.metadata.distribution("ctm-rl")
    files = {str(file) for file in distribution.files or ()}
    if "ctm_rl/__init__.py" not in files:
        pytest.skip("the package is not installed from a wheel")
    expected = {"ctm_rl/" + str(p.relative_to(ROOT)).removeprefix("ctm_rl/") for p in MODULES.values()}
    assert {file for file in files if file.endswith(".py")} == expected
    assert {"ctm_rl/py.typed", "ctm_rl/envs/data/mnist.npz"} <= files
    assert distribution.version == ctm_rl.__version__


@pytest.mark.skipif(
    "CTM_RL_TEST_INSTALLED" not in os.environ, reason="only .ci/run promises to test the installed package"
)
def test_the_installed_package_is_tested() -> None:
    assert ROOT not in Path(ctm_rl.__file__).parents


def test_a_ray_actor_started_from_the_checkout_finds_every_room() -> None:
    code = """
import ray

@ray.remote(num_cpus=1)
class Importer:
    def rooms(self):
        import ctm_rl.agents.experiment, ctm_rl.configs, ctm_rl.envs, ctm_rl.encoders
        return [room.__name__ for room in (ctm_rl.agents, ctm_rl.configs, ctm_rl.envs, ctm_rl.encoders)]

ray.init(address="local", num_cpus=1, num_gpus=0, include_dashboard=False, object_store_memory=80 * 2**20)
print(ray.get(Importer.remote().rooms.remote()))
"""
    # The driver, as a console script does, leaves its working directory off the path; Ray puts it on its workers'.
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "['ctm_rl.agents', 'ctm_rl.configs', 'ctm_rl.envs', 'ctm_rl.encoders']" in done.stdout, done.stderr
