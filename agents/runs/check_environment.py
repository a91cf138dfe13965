"""Tries an environment out before a run starts: in a process of its own, which may end, hang or leave things behind."""

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from ctm_rl import notes
from ctm_rl.agents.cluster.signals import StopRequest
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.experiments.serialise import AnyExperiment, build
from ctm_rl.errors import UserError

_POLL_SECONDS = 0.1
_PROGRAM = """
import json, os, sys
sys.path[:] = json.loads(sys.argv[1])
from ctm_rl.agents.runs.check_environment import main
main()
os._exit(0)
"""
"""Ends at once, whatever threads and processes the environment has left."""


@contextlib.contextmanager
def environment_check(experiment: AnyExperiment, request: StopRequest) -> Iterator[Callable[[], None]]:
    """Starts the check of an experiment's environment in another process; has no effect for one that answers.

    The process works in the current folder, with this process's path, and loads neither PyTorch nor Ray, which this
    process may do meanwhile.

    Args:
        experiment: what is to be trained.
        request: checked while this process waits.

    Yields:
        A function that waits for the check, and raises a ``UserError`` if the environment fails it.
    """
    if not isinstance(experiment, ActingExperiment):
        yield lambda: None
        return
    env = experiment.env
    with tempfile.TemporaryFile("w+") as answer, tempfile.TemporaryFile("w+", errors="replace") as output:
        command = [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path), str(answer.fileno())]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, text=True, pass_fds=[answer.fileno()]
        ) as process:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                pipe.write(json.dumps(dataclasses.asdict(env)))

            def wait() -> None:
                while True:
                    request.check()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_POLL_SECONDS)
                        break
                request.check()
                answer.seek(0)
                output.seek(0)
                _read_answer(env, process.returncode, answer.read(), output.read())

            try:
                yield wait
            finally:
                process.kill()


def _read_answer(env: EnvConfig, code: int, answer: str, output: str) -> None:
    """Logs what the check has noted.

    Raises:
        UserError: the environment has failed it.
    """
    if not answer:
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended itself with code {code}"
        last = next((f": {line.strip()[:200]}" for line in reversed(output.splitlines()) if line.strip()), "")
        raise UserError(f"env.id {env.id!r} cannot be played: its process {how} in the first two steps{last}")
    _read_values(json.loads(answer))


def _read_values(values: dict[str, Any]) -> None:
    """Logs what a check has noted.

    Raises:
        UserError: the environment has failed it.
    """
    for entry in values["notes"]:
        notes.show(entry)
    if values["problem"] is not None:
        raise UserError(values["problem"])


def try_out_on_a_worker(experiment: AnyExperiment, request: StopRequest) -> None:
    """Tries the environment out in a worker process of Ray, if that is where it will be played.

    Args:
        experiment: what is to be trained; Ray has been started.
        request: checked while this process waits.

    Raises:
        UserError: the environment fails there, for example because a file is missing on that machine.
    """
    if not isinstance(experiment, ActingExperiment) or experiment.num_env_runners == 0:
        return
    import ray
    from ray.exceptions import WorkerCrashedError

    task: Any = ray.remote(num_cpus=experiment.num_cpus_per_env_runner, max_retries=0)(_answer_of)
    answer = task.remote(experiment.env)
    while not ray.wait([answer], timeout=_POLL_SECONDS)[0]:
        request.check()
    try:
        values: Any = ray.get(answer)
    except WorkerCrashedError as error:
        raise UserError(
            f"env.id {experiment.env.id!r} cannot be played: its worker process ended in the first two steps."
        ) from error
    _read_values({**values, "problem": values["problem"] and f"{values['problem']} This was in a worker process."})


def try_out(env: EnvConfig) -> str | None:
    """Makes an environment, resets it and takes one step; returns what is wrong with it, or what must be chosen."""
    from ctm_rl.agents.rllib.environment import make_env
    from ctm_rl.envs.wrappers.action_masks import sample_legal

    try:
        with contextlib.closing(make_env(env)) as one:
            observation, info = one.reset(seed=0)
            one.action_space.seed(0)
            _, _, is_terminated, is_truncated, _ = one.step(sample_legal(one.action_space, observation))
            is_task = "target" in info and one.action_space.contains(info["target"]) and is_terminated | is_truncated
    except UserError as error:
        return str(error)
    if env.target == "ask" and is_task:
        return (
            f'{env.id} ends after one step, and its info["target"] holds the right answer; choose: ctm-rl train '
            f"--task {env.id} learns from the answers, ctm-rl train --env {env.id} --env.target ignore from the "
            "reward alone."
        )
    return None


def _answer_of(env: EnvConfig) -> dict[str, Any]:
    """What is wrong with an environment, and what has been noted about it."""
    with notes.collected():
        return {"problem": try_out(env), "notes": notes.pop_notes()}


def main() -> None:
    """Checks the environment that standard input describes, and writes the answer to the file named by descriptor."""
    env = build(EnvConfig, json.load(sys.stdin))
    with open(int(sys.argv[2]), "w") as file:
        json.dump(_answer_of(env), file)
