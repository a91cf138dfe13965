"""What every test shares: shape checks on the core, one thread per process, golden files, a small local Ray."""

import contextlib
import os
import pkgutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook
from own_modules import forget_modules
from small_disk import mounted

import ctm_rl

# Before anything loads torch, and inherited by every process a test starts: results repeat, workers share the cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# A new Ray starts no worker before one is needed: most of the runs here need none.
os.environ["RAY_prestart_worker_first_driver"] = "0"
# Under nohup, runs keep ignoring SIGHUP; here it stops them, wherever the tests are started from.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

UNCHECKED = ("agents", "envs", "configs", "config")
"""Left out of the shape checks: RLlib wraps and pickles what is in these folders, and config checks its own values."""

MAX_PROCESSES = 4
"""Each may start a Ray of its own."""

CORE = [
    f"ctm_rl.{module.name}"
    for module in pkgutil.iter_modules([str(Path(ctm_rl.__file__).parent)])
    if module.name not in UNCHECKED
]
# An int is a float in an annotation (PEP 484); beartype needs this option, and jaxtyping takes its checker by name.
_checker = ModuleType("ctm_rl_test_checker")
_checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # pyright: ignore[reportAttributeAccessIssue]
sys.modules[_checker.__name__] = _checker
install_import_hook(CORE, f"{_checker.__name__}.check")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The number of processes that run tests: several where all quick tests are run, up to one for each core.

    A few tests start sooner without them, and slow ones measure times.
    """
    runs_all = config.args_source == pytest.Config.ArgsSource.TESTPATHS and config.option.markexpr == "not slow"
    return min(len(os.sched_getaffinity(0)), MAX_PROCESSES) if runs_all else 0


def pytest_report_header() -> str:
    """Tells which package is tested: the installed one or the one in the checkout."""
    return f"ctm_rl: {Path(ctm_rl.__file__).parent}"


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where runs of the tests are remembered, see ``run_directory.trust``: not in the home of who runs them."""
    home = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(home))
        yield home


@pytest.fixture(autouse=True)
def environments_are_tried_out_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries environments out in this process: another one for each run would take a second; forgets what was noted."""
    from ctm_rl import notes
    from ctm_rl.agents.experiments.acting import ActingExperiment
    from ctm_rl.agents.runs import check_environment
    from ctm_rl.errors import UserError

    @contextlib.contextmanager
    def try_out(experiment: object, request: object) -> Iterator[Callable[[], None]]:
        def wait() -> None:
            problem = check_environment.try_out(experiment.env) if isinstance(experiment, ActingExperiment) else None
            if problem is not None:
                raise UserError(problem)

        yield wait

    notes.forget()
    monkeypatch.setattr(check_environment, "environment_check", try_out)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of the golden cases."""
    return Path(__file__).parent / "golden"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory that leaves no trace in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    forget_modules(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    with mounted(tmp_path) as place:
        yield place


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A local Ray with two CPUs and little memory, for as long as the tests run."""
    import ray

    # Ray puts the working directory on its workers' path: they too are to import the package that is tested.
    with contextlib.chdir(tmp_path_factory.mktemp("ray")):
        ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, object_store_memory=200 * 2**20)
    yield
    ray.shutdown()
