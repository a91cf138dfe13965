"""One run of a contender on a task: the processes that train and evaluate it, and what they leave."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ctm_rl.agents.bench.learning.curves import curve_of, rounded
from ctm_rl.agents.bench.learning.options import RANDOM, SB3, LearningOptions
from ctm_rl.agents.bench.learning.results import Key, Run
from ctm_rl.agents.bench.learning.sb3_settings import settings_of
from ctm_rl.agents.bench.learning.tasks import arguments_of
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.serialise import to_json
from ctm_rl.agents.run_directory.directory import CONFIG_FILE
from ctm_rl.agents.run_directory.metrics_file import last_row, read_metrics
from ctm_rl.agents.seeds.processes import COMMAND, last_line, process_of

_WORKER = process_of("ctm_rl.agents.bench.learning.worker")


class Job(NamedTuple):
    """A run that is to be done."""

    key: Key
    """What it will be known by."""
    kind: str
    """Who learns: one of ``options.LEARNERS``, or a random policy."""
    experiment: ActingExperiment
    """The task; other libraries learn on its environment."""
    fields: tuple[str, ...]
    """What the command line changes of our experiment."""

    @property
    def name(self) -> str:
        """What it is called in messages, and what the names of its directory and log begin with."""
        steps = "" if self.kind == RANDOM else f"-{self.key.env_steps}-seed-{self.key.seed}"
        return re.sub("[:/]", "-", f"{self.key.task}-{self.key.contender}{steps}")

    @property
    def settings(self) -> str:
        """A digest of everything that the run is made with, but for seed and steps: other defaults give another one."""
        env = to_json(self.experiment)["env"]
        sb3 = dataclasses.asdict(settings_of(self.key.task))
        made_with: Any = {RANDOM: env, SB3: [env, sb3]}.get(self.kind, to_json(self.experiment))
        return hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()[:8]


class RunFailed(Exception):
    """A process of a run has failed; the message is the last line that it wrote."""


class RunStopped(Exception):
    """A process of a run was stopped by a signal; ``ctm-rl train`` has saved."""


class Processes:
    """Runs processes that can be stopped together, from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._is_stopped = False

    def run(self, command: Sequence[str], log: Path, text: str = "", *, has_answer: bool = True) -> str:
        """Runs a process to its end.

        Args:
            command: its program and arguments.
            log: a file that its standard error is added to.
            text: its standard input.
            has_answer: whether its standard output is returned; otherwise the log has it as well.

        Returns:
            Its standard output, or nothing.

        Raises:
            RunFailed: it has failed.
            RunStopped: it was stopped.
        """
        with open(log, "ab") as errors:
            with self._lock:
                if self._is_stopped:
                    raise RunStopped
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE if has_answer else errors,
                    stderr=errors,
                    text=True,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    # Signals of the terminal reach this process alone, which passes them on.
                    start_new_session=True,
                )
                self._running.add(process)
            output, _ = process.communicate(text)
            with self._lock:
                self._running.remove(process)
        if process.returncode == 0:
            return output or ""
        if self._is_stopped:
            raise RunStopped
        raise RunFailed(
            f"its process was killed by signal {-process.returncode}" if process.returncode < 0 else last_line(log)
        )

    def stop(self, signum: int) -> None:
        """Sends a signal to all processes, once; none is started any more."""
        with self._lock:
            if self._is_stopped:
                return
            self._is_stopped = True
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signum)


def do(job: Job, folder: Path, options: LearningOptions, processes: Processes) -> Run:
    """Trains and evaluates; goes on with a run of ours that was stopped.

    Args:
        job: the run.
        folder: where its directory and log lie.
        options: episodes of the evaluation, and how they are played.
        processes: runs its processes.

    Returns:
        The run without where it was measured.

    Raises:
        RunFailed: a process has failed.
        RunStopped: a process was stopped.
    """
    # Other settings have another directory, so that no run goes on with those of before.
    run_dir = folder / f"{job.name}-{job.settings}"
    log = run_dir.with_name(f"{run_dir.name}.log")
    found = _do_ours(job, run_dir, log, options, processes)
    if found is None:
        task = {**job.key._asdict(), "contender": job.kind, "experiment": to_json(job.experiment)}
        task |= {"episodes": options.episodes, "deterministic": options.deterministic}
        answer = json.loads(processes.run(_WORKER, log, json.dumps(task)))
        found = {**answer, "evaluation": sum(answer["returns"]) / options.episodes}
    is_random = job.kind == RANDOM
    rows = found.get("rows", [])
    return {
        **job.key._asdict(),
        "curve": [] if is_random else curve_of(rows, job.key.env_steps),
        "evaluation": rounded(found["evaluation"]),
        "episodes": options.episodes,
        **({} if is_random else {"deterministic": options.deterministic}),
        **({} if is_random else {"reached_env_steps": int(rows[-1][0]), "seconds": round(found["seconds"], 1)}),
        "settings": job.settings,
        **({"fields": list(job.fields)} if job.fields else {}),
    }


def _do_ours(
    job: Job, run_dir: Path, log: Path, options: LearningOptions, processes: Processes
) -> dict[str, Any] | None:
    """Trains and evaluates as a person would, with ``ctm-rl``; ``None``: the contender is not ours."""
    if job.kind in (SB3, RANDOM):
        return None
    env_steps = job.key.env_steps
    row = last_row(run_dir)
    if (run_dir / CONFIG_FILE).is_file():
        words = ["resume", str(run_dir)]
    else:
        words = ["train", *arguments_of(job.key.task), *job.fields, "--model.kind", job.kind]
        words += ["--seed", str(job.key.seed)]
        words += ["--budget.env-steps", str(env_steps), "--num-threads", "1", "--run-dir", str(run_dir)]
    if row is None or (row["env_steps"] or 0) < env_steps:
        processes.run([*COMMAND, *words], log, has_answer=False)
    words = ["evaluate", str(run_dir), "--episodes", str(options.episodes), "--json"]
    words += ["--deterministic", str(options.deterministic)]
    result = json.loads(processes.run([*COMMAND, *words], log))
    rows = read_metrics(run_dir)
    return {
        "rows": [(row["env_steps"] or 0, row["episode_return_mean"]) for row in rows],
        "seconds": rows[-1]["seconds"] or 0.0,
        "evaluation": result["episode_return_mean"],
    }
