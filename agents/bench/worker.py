"""One contender in a process of its own: built at once, then one iteration for every line that says go.

Its memory and threads are its own, and while it waits it costs nothing. Messages are lines of JSON.
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
from ctm_rl.errors import UserError

ITERATION, PARTS = "iteration", "parts"
"""What a worker can be asked for; anything else stops it."""


def main() -> int:
    """Reads who it is from the first line of its input, and serves until it is told to stop."""
    with _quiet_output() as answers:
        task = json.loads(sys.stdin.readline())
        try:
            _serve(task, answers)
        except Unavailable as reason:
            _say(answers, unavailable=" ".join(str(reason).split()))
        except UserError as error:
            _say(answers, error=" ".join(str(error).split()))
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
    """Builds the contender and answers."""
    import torch

    from ctm_rl.agents.cluster.session import ray_for
    from ctm_rl.agents.cluster.signals import StopRequest
    from ctm_rl.agents.run_directory.working_directory import no_results_at_home

    experiment, rival = from_json(task["experiment"]), RivalSettings(**task["rival"])
    assert isinstance(experiment, ActingExperiment)
    with contextlib.ExitStack() as stack:
        if task["name"] != "sb3-lstm":
            stack.enter_context(no_results_at_home())
            stack.enter_context(ray_for(experiment, StopRequest(lambda: None)))
        torch.set_num_threads(task["num_threads"])
        contender = make_contender(task["name"], experiment, rival)
        try:
            description = contender.prepare()
        except ValueError as error:
            # What does not fit the environment is the user's to mend.
            raise UserError(str(error)) from error
        stack.callback(contender.close)
        _say(answers, ready=dataclasses.asdict(description))
        probe = None
        for line in sys.stdin:
            wish = line.strip()
            if wish == ITERATION:
                _say(answers, timing=contender.run_iteration()._asdict())
            elif wish == PARTS:
                from ctm_rl.agents.bench.parts import MinibatchProbe

                if probe is None:
                    probe = MinibatchProbe(experiment)
                    probe.measure()
                _say(answers, parts=probe.measure()._asdict())
            else:
                break


@contextlib.contextmanager
def _quiet_output() -> Iterator[TextIO]:
    """Keeps what libraries print out of the answers: it goes where errors go."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        yield answers


def _say(answers: TextIO, **message: Any) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
