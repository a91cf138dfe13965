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


def make_contender(name: str, experiment: ActingExperiment, num_threads: int, rival: RivalSettings) -> Contender:
    """Makes a contender by its name, not built yet."""
    if name == "sb3-lstm":
        from ctm_rl.agents.bench.contender_sb3 import SB3Contender

        return SB3Contender(experiment, num_threads, rival)
    from ctm_rl.agents.bench import contender_rllib as rllib

    if name == "rllib-lstm":
        return rllib.stock_lstm(experiment, num_threads, rival)
    if name == "ctm-rl-lstm":
        return rllib.ours(rllib.with_lstm(experiment), num_threads)
    if name == "ctm-rl-small":
        return rllib.ours(rllib.at_size_of(rival, experiment), num_threads)
    if name.startswith("rllib-ctm-"):
        return rllib.stock(experiment, num_threads, int(name.rpartition("-")[2]))
    return rllib.ours(experiment, num_threads)


def _serve(task: dict[str, Any], answers: TextIO) -> None:
    """Builds the contender and answers."""
    from ctm_rl.agents.cluster.session import ray_for
    from ctm_rl.agents.cluster.signals import StopRequest
    from ctm_rl.agents.rllib.private import no_results_at_home

    experiment, rival = from_json(task["experiment"]), RivalSettings(**task["rival"])
    assert isinstance(experiment, ActingExperiment)
    num_threads = int(task["num_threads"])
    with contextlib.ExitStack() as stack:
        if task["name"] != "sb3-lstm":
            stack.enter_context(no_results_at_home())
            stack.enter_context(ray_for(experiment, StopRequest(lambda: None)))
        contender = make_contender(task["name"], experiment, num_threads, rival)
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
