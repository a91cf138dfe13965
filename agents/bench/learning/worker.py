"""A process that runs a contender which is not ``ctm-rl train``: reads its task as JSON, answers with a line of it."""

import json
import sys
from typing import Any

from ctm_rl.agents.bench.learning.options import SB3
from ctm_rl.agents.bench.worker import quiet_output
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.experiments.serialise import from_json
from ctm_rl.errors import UserError
from ctm_rl.trust import import_from_current_folder


def main() -> int:
    """Reads the task from standard input and writes the result to standard output; mistakes go to standard error."""
    import_from_current_folder()  # the environment may be the user's, who has named the task
    with quiet_output() as answers:
        task = json.loads(sys.stdin.read())
        experiment = from_json(task["experiment"])
        assert isinstance(experiment, ActingExperiment)
        try:
            result = _run(experiment, task)
        except UserError as error:
            print(f"ctm-rl: {' '.join(str(error).split())}", file=sys.stderr)
            return error.exit_code
        answers.write(json.dumps(result) + "\n")
    return 0


def _run(experiment: ActingExperiment, task: dict[str, Any]) -> dict[str, Any]:
    """Runs the contender of a task."""
    if task["contender"] != SB3:
        return {"returns": play_randomly(experiment.env, task["episodes"], task["seed"])}
    import torch

    from ctm_rl.agents.bench.learning import contender_sb3
    from ctm_rl.agents.bench.learning.sb3_settings import settings_of

    torch.set_num_threads(1)
    values = {name: task[name] for name in ("seed", "env_steps", "episodes", "deterministic")}
    return contender_sb3.run(experiment.env, settings_of(task["task"]), **values)


def play_randomly(config: EnvConfig, num_episodes: int, seed: int) -> list[float]:
    """Plays episodes with actions drawn from the whole space; returns their raw returns."""
    from ctm_rl.agents.evaluation.play import MAX_EPISODE_STEPS, seeds_of_episodes
    from ctm_rl.agents.rllib.environment import make_env

    env = make_env(config)
    env.action_space.seed(seed)
    returns = []
    for episode_seed in seeds_of_episodes(seed, num_episodes):
        env.reset(seed=episode_seed)
        total = 0.0
        for _ in range(MAX_EPISODE_STEPS):
            _, reward, is_terminated, is_truncated, _ = env.step(env.action_space.sample())
            total += float(reward)
            if is_terminated or is_truncated:
                break
        returns.append(total)
    env.close()
    return returns
