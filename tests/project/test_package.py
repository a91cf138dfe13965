"""The package as a whole: which folder may import which, what an import costs, what gets installed."""

import ast
import collections
import graphlib
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT

import ctm_rl

PACKAGE = ROOT / "ctm_rl"
CORE = {"machine", "spaces", "metrics", "encoders", "engine", "models", "checkpoints", "inference", "zoo"}
AGENTS = {"agents.experiments", "agents.rllib"}
MAY_IMPORT: dict[str, set[str]] = {
    "": CORE,
    "machine": set(),
    "spaces": set(),
    "metrics": set(),
    "encoders": {"spaces"},
    "engine": {"machine"},
    "models": {"encoders", "engine", "machine", "metrics", "spaces"},
    "zoo": set(),
    "checkpoints": {"machine", "models", "spaces", "zoo"},
    "inference": {"checkpoints", "encoders", "engine", "machine", "metrics", "models", "spaces"},
    "agents": {"agents.*"},
    "agents.experiments": set(),
    "agents.rllib": {*CORE, "agents.experiments", "envs.wrappers"},
    "agents.ppo": {*CORE, *AGENTS},
    "agents.stock": {*CORE, *AGENTS},
    "agents.supervised": {*CORE, *AGENTS},
    "agents.bandit": {*CORE, *AGENTS, "agents.ppo", "agents.supervised"},
    "agents.run_directory": {"checkpoints", "zoo", "agents.experiments"},
    "agents.loggers": {"agents.experiments", "agents.run_directory"},
    "agents.callbacks": {"agents.experiments", "agents.rllib", "agents.run_directory"},
    "agents.evaluation": {*CORE, *AGENTS, "agents.run_directory", "agents.supervised"},
    "agents.cluster": AGENTS,
    "agents.video": {*CORE, *AGENTS, "agents.run_directory", "agents.evaluation", "agents.loggers"},
    "agents.runs": {*CORE, *AGENTS, "agents.ppo", "agents.stock", "agents.supervised", "agents.bandit"}
    | {"agents.run_directory", "agents.cluster", "agents.callbacks", "agents.loggers"}
    | {"agents.evaluation", "agents.video", "envs.wrappers"},
    "agents.seeds": {"agents.experiments", "agents.run_directory", "agents.cluster"},
    "agents.report": {
        *CORE,
        "agents.experiments",
        "agents.rllib",
        "agents.run_directory",
        "agents.evaluation",
        "agents.supervised",
        "envs.*",
    },
    "agents.report.compare": {
        *CORE,
        "agents.experiments",
        "agents.run_directory",
        "agents.seeds",
        "agents.evaluation",
        "agents.report",
    },
    "agents.report.watch": {"checkpoints", "agents.experiments", "agents.run_directory", "agents.report"},
    "agents.tuning": {*CORE, "agents.experiments", "agents.run_directory", "agents.cluster", "agents.runs"}
    | {"agents.callbacks", "agents.loggers"},
    "agents.bench": {*CORE, *AGENTS, "agents.run_directory", "agents.cluster", "agents.runs", "agents.supervised"},
    "agents.bench.cluster": {"agents.bench", *AGENTS, "agents.cluster", "agents.ppo"},
    "agents.bench.learning": {*CORE, *AGENTS, "agents.bench", "agents.seeds", "agents.run_directory", "agents.cluster"}
    | {"agents.evaluation"},
    "envs": {"envs.*"},
    "envs.data": set(),
    "envs.guard": {"spaces"},
    "envs.wrappers": {"envs.guard", "spaces"},
    "envs.tasks": {"envs.data"},
    "configs": {"agents.experiments"},
    "cli": {*CORE, "agents.*", "envs.*", "configs"},
}
"""Which folders each folder imports, beside itself and the modules that lie in ctm_rl/ directly; no cycles."""
MAX_FILES = 20
FORBIDDEN = {"core": {"ray", "gymnasium", "minigrid"}, "envs": {"torch", "ray"}}
"""Modules that a part of the package must not load; the command line loads them only when needed."""


def module_files() -> dict[str, Path]:
    """Every module of the package by its full name."""
    files: dict[str, Path] = {}
    for folder, _, names in os.walk(PACKAGE, followlinks=True):
        for path in (Path(folder) / name for name in names if name.endswith(".py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            files[".".join(part for part in parts if part != "__init__")] = path
    return files


MODULES = module_files()
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def folder_of(module: str) -> str:
    """The folder that a module lies in, by its name inside the package: ``agents.ppo``; ctm_rl/ itself: empty.

    ``python -m ctm_rl`` is the command line.
    """
    if module == "ctm_rl.__main__":
        return "cli"
    folder = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    return folder.removeprefix("ctm_rl").removeprefix(".")


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
            # ``from ctm_rl import agents`` imports a module, ``from ctm_rl.machine.state import State`` a name in one.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def trespasses(module: str) -> Iterator[str]:
    """What a module imports although its folder may not."""
    folder = folder_of(module)
    part = folder.split(".")[0]
    allowed = {*MAY_IMPORT[folder], folder, ""}
    for name in imports_of(module):
        top = name.split(".")[0]
        if top in FORBIDDEN.get(part if part in ("agents", "envs", "configs", "cli") else "core", ()):
            yield f"{module} imports {name}"
        elif top in ("agents", "envs", "configs"):
            yield f"{module} imports {name}, which has no such name once installed"
        elif top == "ctm_rl":
            found = name if name in MODULES else name.rpartition(".")[0]
            target = folder_of(found)
            if target not in allowed and f"{target.split('.')[0]}.*" not in allowed:
                yield f"{module} imports {name}"


def test_imports_go_one_way() -> None:
    assert {folder_of(module) for module in MODULES} == set(MAY_IMPORT)
    assert [line for module in MODULES for line in trespasses(module)] == []


def test_no_folder_imports_itself_by_way_of_others() -> None:
    graph = {folder: targets - {"agents.*", "envs.*"} for folder, targets in MAY_IMPORT.items()}
    assert set(graphlib.TopologicalSorter(graph).static_order()) >= set(MAY_IMPORT)


def test_no_folder_holds_more_files_than_a_reader_takes_in() -> None:
    count = collections.Counter(map(folder_of, MODULES))
    assert {folder: number for folder, number in count.items() if number > MAX_FILES} == {}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ctm_rl.machine.state", "import ray"),
        ("ctm_rl.machine.state", "from ctm_rl import agents"),
        ("ctm_rl.machine.state", "from ..agents import runs"),
        ("ctm_rl.machine.state", "from ctm_rl.engine.episode import unroll"),
        ("ctm_rl.agents.experiments.acting", "def f():\n    from ctm_rl.envs.registry import register_all"),
        ("ctm_rl.agents.experiments.acting", "import agents.rllib"),
        ("ctm_rl.agents.run_directory.directory", "from ctm_rl.agents.runs.training_loop import Run"),
        ("ctm_rl.envs.wrappers.hide_velocity", "from ctm_rl.machine.state import CoreState"),
        ("ctm_rl.envs.wrappers.hide_velocity", "import torch.nn as nn"),
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


def messages(tree: ast.Module) -> Iterator[str]:
    """The texts of all errors that a module raises; a value in them is one character."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            parts = node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else node.args[:1]
            if re.search(r"Error$|Fault$|Diverged|Lost$|NotSaved|Failed$|NoResult", node.func.id):
                texts = [str(part.value) if isinstance(part, ast.Constant) else "x" for part in parts]
                yield "".join(texts).replace("...", "")


@pytest.mark.parametrize("glued", [r"\.\.", r"\?\.", r"\.[;,]", r"  ", r"\n", r"[;,:]$"])
def test_messages_are_whole_sentences_in_one_line(glued: str) -> None:
    found = [(name, text) for name, tree in TREES.items() for text in messages(tree) if re.search(glued, text)]
    assert found == []


EXPORTING = ["ctm_rl", "ctm_rl.agents", "ctm_rl.envs"]


@pytest.mark.parametrize("package", EXPORTING)
def test_what_a_stub_declares_is_exported_and_hides_no_module(package: str) -> None:
    room = importlib.import_module(package)
    assert room.__file__ is not None
    stub = ast.parse(Path(room.__file__).with_suffix(".pyi").read_text())
    declared = {a.asname: n.module for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert declared
    for name, module in declared.items():
        assert module in TREES, f"{package} exports {name} from {module}, which does not exist"
        assert name in {getattr(node, "name", None) for node in TREES[module].body}
        # The module, once imported, would take the place of the export.
        assert f"{package}.{name}" not in MODULES
        assert getattr(room, str(name)).__name__ == name


@pytest.mark.parametrize(
    ("package", "old", "new"),
    [
        ("ctm_rl", "ThinkerConfig", "AnswerConfig"),
        ("ctm_rl", "load_thinker", "load_model"),
        ("ctm_rl.agents", "Experiment", "ActingExperiment"),
        ("ctm_rl.agents", "SupervisedExperiment", "AnsweringExperiment"),
        ("ctm_rl.agents", "ThinkerModule", "AnsweringModule"),
    ],
)
def test_an_old_name_still_works_with_a_warning(package: str, old: str, new: str) -> None:
    room = importlib.import_module(package)
    with pytest.warns(DeprecationWarning, match=f"{package}.{old} is now called {new}"):
        found = getattr(room, old)
    assert found is getattr(room, new)


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
    [
        *(("ctm_rl", []), ("ctm_rl.agents", []), ("ctm_rl.configs", []), ("ctm_rl.envs", ["gymnasium"])),
        ("ctm_rl.agents.seeds.results", []),  # as long as the runs train, their parent takes no memory
        ("ctm_rl.agents.bench.learning.study", []),
    ],
)
def test_importing_a_package_loads_nothing_heavy(package: str, loaded: list[str], tmp_path: Path) -> None:
    assert heavy_modules_after(f"import {package}", tmp_path) == loaded


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "cartpole", "--help"], ["list"]])
def test_help_loads_nothing_heavy_and_answers_within_a_second(arguments: list[str], tmp_path: Path) -> None:
    code = f"import sys\nsys.argv = {['ctm-rl', *arguments]}\nfrom ctm_rl.cli.main import main\nsys.exit(main())"
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert heavy_modules_after(code, tmp_path) == []
        seconds.append(time.perf_counter() - start)
        if seconds[-1] < 1.0:
            break
    assert min(seconds) < 1.0


def test_a_wheel_holds_every_module_and_nothing_else() -> None:
    distribution = importlib.metadata.distribution("ctm-rl")
    files = {str(file) for file in distribution.files or ()}
    if "ctm_rl/__init__.py" not in files:
        pytest.skip("the package is not installed from a wheel")
    expected = {str(path.relative_to(ROOT)) for path in MODULES.values()}
    assert {file for file in files if file.endswith(".py")} == expected
    assert {"ctm_rl/py.typed", "ctm_rl/envs/data/mnist.npz"} <= files
    assets = [path for path in (PACKAGE / "agents" / "report" / "assets").glob("**/*") if path.is_file()]
    assets += (PACKAGE / "agents" / "report" / "assets" / "uplot").iterdir()
    assert {str(path.relative_to(ROOT)) for path in assets} <= files
    entries = {str(path.relative_to(ROOT)) for path in (PACKAGE / "zoo").glob("*/**/*") if path.suffix != ".pyc"}
    assert {name for name in entries if (ROOT / name).is_file()} <= files
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
        import ctm_rl.agents.experiments.acting, ctm_rl.configs, ctm_rl.envs, ctm_rl.encoders
        return [room.__name__ for room in (ctm_rl.agents, ctm_rl.configs, ctm_rl.envs, ctm_rl.encoders)]

ray.init(address="local", num_cpus=1, num_gpus=0, include_dashboard=False, object_store_memory=80 * 2**20)
print(ray.get(Importer.remote().rooms.remote()))
"""
    # The driver, as a console script does, leaves its working directory off the path; Ray puts it on its workers'.
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "['ctm_rl.agents', 'ctm_rl.configs', 'ctm_rl.envs', 'ctm_rl.encoders']" in done.stdout, done.stderr
