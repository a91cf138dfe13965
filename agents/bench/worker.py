"""A process that measures one contender: builds it, then runs one iteration for each line of its input.

It has its own memory and threads, and is idle while it waits. Answers are lines of JSON.
"""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from ctm_rl.agents.bench.settings import RivalSettings
from ctm_rl.agents.bench.timing import Contender, Unavailable
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.serialise import from_json
from ctm_rl.errors import UserError, user_errors

ITERATION, PARTS = "iteration", "parts"
"""The measurements that a worker makes; any other line stops it."""


def main() -> int:
    """Reads its task from the first line of its input, and answers the lines after it."""
    with quiet_output() as answers:
        task = json.loads(sys.stdin.readline())
        try:
            _serve(task, answers)
        except Unavailable as reason:
            _answer(answers, unavailable=" ".join(str(reason).split()))
        except UserError as error:
            _answer(answers, error=" ".join(str(error).split()))
    return 0


def make_contender(name: str, experiment: ActingExperiment, rival: RivalSettings) -> Contender:
    """Makes a contender by its name, not built yet."""
    if name == "sb3-lstm":
        from ctm_rl.agents.bench.contender_sb3 import SB3Contender

        return SB3Contender(experiment, rival)
    from ctm_rl.agents.bench import contender_rllib as rllib

    if name == "rllib-lstm":
        return rllib.stock_lstm(experiment, rival)
    if name == "ctm-rl-lstm":
        experiment = rllib.with_lstm(experiment)
    elif name == "ctm-rl-small":
        experiment = rllib.at_size_of(rival, experiment)
    elif name.startswith("rllib-ctm-"):
        experiment = rllib.as_stock(experiment, max_seq_len=int(name.rpartition("-")[2]))
    return rllib.of_experiment(experiment)


def _serve(task: dict[str, Any], answers: TextIO) -> None:
    """Builds the contender and measures it for each line of input."""
    import torch

    from ctm_rl.agents.cluster.session import ray_for
    from ctm_rl.agents.cluster.signals import StopRequest
    from ctm_rl.agents.cluster.users_folder import entered
    from ctm_rl.agents.rllib.private import without_ray_results

    experiment, rival = from_json(task["experiment"]), RivalSettings(**task["rival"])
    assert isinstance(experiment, ActingExperiment)
    with contextlib.ExitStack() as stack:
        if task["name"] != "sb3-lstm":
            stack.enter_context(without_ray_results())
            stack.enter_context(ray_for(experiment, StopRequest(lambda: None)))
        stack.enter_context(entered())
        torch.set_num_threads(task["num_threads"])
        contender = make_contender(task["name"], experiment, rival)
        with user_errors():  # settings that do not fit the environment
            description = contender.prepare()
        stack.callback(contender.close)
        _answer(answers, ready=dataclasses.asdict(description))
        probe = None
        for line in sys.stdin:
            kind = line.strip()
            if kind == ITERATION:
                _answer(answers, timing=contender.run_iteration()._asdict())
            elif kind == PARTS:
                from ctm_rl.agents.bench.parts import MinibatchProbe

                if probe is None:
                    probe = MinibatchProbe(experiment)
                    probe.measure()
                _answer(answers, parts=probe.measure()._asdict())
            else:
                break


@contextlib.contextmanager
def quiet_output() -> Iterator[TextIO]:
    """Sends what libraries print to standard error, so that standard output has answers alone."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        yield answers


def _answer(answers: TextIO, **message: Any) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
