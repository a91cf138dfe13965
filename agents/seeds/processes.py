"""Trains several seeds: each in a process of its own, the command that a person would type, with a Ray of its own.

Processes rather than runs in turn in this one: a run that fails, diverges, or is killed for its memory takes no other
with it, every run has the same metrics as one that is started alone with that seed, and they can train side by side.
The price is the start of each, a few seconds.
"""

import contextlib
import dataclasses
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ctm_rl.agents.cluster.capacity import needed_cpus
from ctm_rl.agents.cluster.signals import RunInterrupted, StopRequest
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.experiments.settings import RunSettings
from ctm_rl.agents.run_directory.directory import (
    RunDirectory,
    config_of,
    created_directory,
    opened_directory,
    write_config,
)
from ctm_rl.agents.run_directory.working_directory import with_absolute_paths
from ctm_rl.agents.seeds.display import SeedsDisplay
from ctm_rl.agents.seeds.plan import EXPERIMENT_FILE, SEEDS_FILE, Seeds, finished_before
from ctm_rl.errors import UserError

_CHILD = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG: SIGTERM as soon as the parent has ended, however it does
    if os.getppid() == 1:
        sys.exit("ctm-rl: the process that started this one has ended.")
from {module} import main
sys.exit(main())
"""


def process_of(module: str) -> tuple[str, ...]:
    """Returns the command that runs a module's ``main`` as a process which ends with the one that starts it.

    Nothing of the current folder is imported in its place.
    """
    return (sys.executable, "-P", "-c", _CHILD.format(module=module))


COMMAND = process_of("ctm_rl.cli.main")
"""The command line as a process."""
_POLL_SECONDS = 0.2
_PREFIX = "ctm-rl: "
_USER_ERROR = 2
_SIGNALLED = 128
_LOG_BYTES = 2**14


class Outcome(NamedTuple):
    """How a seed's run has ended."""

    status: str
    """finished, stopped, failed, or waiting."""
    reason: str = ""
    """Why it failed, in one line."""

    def in_words(self) -> str:
        """How it has ended, in words."""
        return f"{self.status}: {self.reason}" if self.reason else self.status


def cores_of(experiment: RunSettings) -> float:
    """Returns how many CPU cores a run uses."""
    return experiment.num_threads + needed_cpus(experiment)


def count_parallel(seeds: Seeds, num_cores: int) -> int:
    """Returns how many seeds train at the same time.

    Args:
        seeds: the runs. Those on GPUs or in a cluster train in turn, unless a number is given: no Ray knows what
            another one has reserved.
        num_cores: CPU cores of this machine.
    """
    if seeds.options.parallel is not None:
        return seeds.options.parallel
    experiment = seeds.experiment
    if experiment.address is not None or experiment.num_gpus_per_learner:
        return 1
    return max(1, min(len(seeds.options.seeds), math.floor(num_cores / cores_of(experiment))))


def train_seeds(
    seeds: Seeds, display: SeedsDisplay, *, num_parallel: int, is_new: bool, options: Sequence[str] = ()
) -> tuple[Seeds, dict[int, Outcome]]:
    """Trains all seeds that are not finished.

    Args:
        seeds: the runs; a new one's directory has a number if another process has taken it meanwhile.
        display: shows how they go.
        num_parallel: how many train at the same time.
        is_new: whether to create the directory; otherwise it has been read from there.
        options: of ``ctm-rl resume`` for runs that are continued, of ``ctm-rl train`` for the others.

    Returns:
        The runs, and how each has ended.

    Raises:
        UserError: no seed can be trained at all; nothing has been written then.
        RunInterrupted: a signal has stopped them.
    """
    content = {"seeds": list(seeds.options.seeds), "parallel": seeds.options.parallel}
    is_numbered = seeds.experiment.run_dir is None
    if is_new:
        opened = created_directory(seeds.directory, content, SEEDS_FILE, is_numbered=is_numbered)
    else:
        opened = opened_directory(seeds.directory, content, SEEDS_FILE)
    with opened as held:
        experiment = _settled(seeds.experiment, held.path.name) if is_new else seeds.experiment
        seeds = Seeds(held.path, experiment, seeds.options)
        held.files += [EXPERIMENT_FILE, *(seeds.log(seed).name for seed in seeds.options.seeds)]
        write_config(held.path, config_of(experiment), EXPERIMENT_FILE)
        display.write(f"seeds {held.path}, {num_parallel} at a time")
        with contextlib.closing(display), StopRequest(display.show_stopping, seconds=math.inf) as request:
            pool = _Pool(seeds, display, request, held, options)
            outcomes = pool.run(num_parallel)
        if request.is_stopping and any(outcome.status != "finished" for outcome in outcomes.values()):
            place = str(held.path) if held.is_kept else None
            raise RunInterrupted(place, request.signum, is_saved=pool.is_saved)
    return seeds, outcomes


def _settled(experiment: AnyExperiment, name: str) -> AnyExperiment:
    """The experiment with absolute paths, and a folder of its own in its storage: all runs are called ``seed-N``."""
    experiment = with_absolute_paths(experiment)
    if experiment.storage is None:
        return experiment
    return dataclasses.replace(experiment, storage=f"{experiment.storage.rstrip('/')}/{name}")


class _Pool:
    """The processes of several seeds.

    Args:
        seeds: the runs.
        display: shows how they go.
        request: passed on to every process when a signal comes.
        held: the directory, which stays as soon as one run has begun.
        options: see ``train_seeds``.

    Attributes:
        is_saved: whether every process that was stopped has ended by itself, and so has saved.
    """

    def __init__(
        self,
        seeds: Seeds,
        display: SeedsDisplay,
        request: StopRequest,
        held: RunDirectory,
        options: Sequence[str],
    ) -> None:
        self._seeds, self._display, self._request, self._held = seeds, display, request, held
        self._options = options
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._outcomes = dict.fromkeys(seeds.options.seeds, Outcome("waiting"))
        self._is_passed_on = False
        self.is_saved = True

    def run(self, num_parallel: int) -> dict[int, Outcome]:
        """Trains all seeds that are not finished, so many at a time; returns how each has ended.

        Raises:
            UserError: what one run refuses before any has begun, it refuses with every seed.
        """
        for seed in finished_before(self._seeds, has_new_budget=any("--budget" in option for option in self._options)):
            self._outcomes[seed] = Outcome("finished")
        waiting = [seed for seed, outcome in self._outcomes.items() if outcome.status == "waiting"]
        self._keep_if_begun()
        refusal: str | None = None
        while self._running or waiting:
            with self._passing_on_a_second_signal():
                if self._request.is_stopping:
                    waiting.clear()
                    self._pass_on_once()
                while waiting and len(self._running) < num_parallel:
                    self._start(waiting.pop(0))
                time.sleep(_POLL_SECONDS)
                self._keep_if_begun()
                for seed, code in self._ended():
                    self._outcomes[seed] = self._outcome(seed, code)
                    if code == _USER_ERROR and not self._held.is_kept:
                        refusal = refusal or self._outcomes[seed].reason
                        waiting.clear()
                    else:
                        self._display.write_end(seed, self._outcomes[seed].in_words())
                self._display.update(self._running)
        if refusal is not None and not self._held.is_kept:
            raise UserError(refusal)
        return self._outcomes

    def _keep_if_begun(self) -> None:
        """Keeps the directory once there is a run in it."""
        if not self._held.is_kept and any(self._seeds.has_begun(seed) for seed in self._outcomes):
            self._held.keep()

    def _start(self, seed: int) -> None:
        """Starts the process of a seed."""
        run_dir = str(self._seeds.run_dir(seed))
        if self._seeds.has_begun(seed):
            arguments = ["resume", run_dir]
        else:
            file = str(self._seeds.directory / EXPERIMENT_FILE)
            arguments = ["train", "--config", file, "--seed", str(seed), "--run-dir", run_dir]
        # This process has checked that the configuration is trusted.
        command = [*COMMAND, *arguments, "--trust", *self._options]
        with open(self._seeds.log(seed), "ab") as log:
            # Signals of the terminal reach this process alone, which passes them on.
            self._running[seed] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _ended(self) -> Iterator[tuple[int, int]]:
        """The seeds whose processes have ended since the last call, with their exit codes."""
        for seed, process in list(self._running.items()):
            code = process.poll()
            if code is not None:
                del self._running[seed]
                yield seed, code

    def _outcome(self, seed: int, code: int) -> Outcome:
        """How a process has ended."""
        if code == 0:
            return Outcome("finished")
        if code > _SIGNALLED:
            return Outcome("stopped", "" if self._request.is_stopping else "by a signal to its process alone")
        if self._request.is_stopping:
            self.is_saved = False
        reason = f"its process was killed by signal {-code}" if code < 0 else last_line(self._seeds.log(seed))
        return Outcome("failed", reason)

    def _pass_on_once(self) -> None:
        """Passes the first signal on."""
        if not self._is_passed_on:
            self._is_passed_on = True
            self._pass_on()

    def _pass_on(self) -> None:
        """Sends the signal that this process got to the others."""
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(self._request.signum or 0)

    @contextlib.contextmanager
    def _passing_on_a_second_signal(self) -> Iterator[None]:
        """Passes further signals on, too; each process ends by itself within seconds."""
        try:
            yield
        except KeyboardInterrupt:
            self._pass_on()


def last_line(path: Path) -> str:
    """The last line of a log, without the name of the command that has written it."""
    with open(path, "rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_BYTES))
        lines = log.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it has written nothing")
    return last.removeprefix(_PREFIX)
