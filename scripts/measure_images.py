"""Measures training on images of 84 x 84 x 3 beside sb3-contrib's CnnLstmPolicy, at equal parameters.

``python scripts/measure_images.py [--rounds 8]`` trains our LSTM, our machine and RecurrentPPO in turn, one iteration
each, in one process with one thread: the same environments, steps, epochs and minibatches. It prints parameters and
the median of each one's environment steps a second. Needs ``pip install "ctm-rl[bench]"``; nothing else should run.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch

from ctm_rl.agents.bench.contender_rllib import of_experiment
from ctm_rl.agents.bench.contender_sb3 import SB3Contender
from ctm_rl.agents.bench.settings import RivalSettings
from ctm_rl.agents.bench.timing import Contender
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.config import PolicyConfig

NUM_ENVS, NUM_STEPS, NUM_EPOCHS, NUM_MINIBATCHES = 64, 32, 4, 4
LSTM_DIM = 256
"""Width of sb3-contrib's LSTMs, as by default: one for the policy, one for the value."""


class Frames(gym.Env[Any, Any]):
    """Shows a white square that actions move; costs little beside drawing."""

    observation_space = gym.spaces.Box(0, 255, (84, 84, 3), np.uint8)
    action_space = gym.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Puts the square anywhere."""
        super().reset(seed=seed)
        self._place, self._num_steps = self.np_random.integers(0, 77, 2), 0
        return self._draw(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Moves it by four pixels; the reward is how far it is to the right."""
        move = np.array(((4, 0), (-4, 0), (0, 4), (0, -4))[int(action)])
        self._place, self._num_steps = np.clip(self._place + move, 0, 76), self._num_steps + 1
        return self._draw(), float(self._place[1]) / 76, False, self._num_steps >= 200, {}

    def _draw(self) -> np.ndarray:
        frame = np.zeros((84, 84, 3), np.uint8)
        frame[self._place[0] : self._place[0] + 8, self._place[1] : self._place[1] + 8] = 255
        return frame


def contenders() -> dict[str, Contender]:
    """What is measured, with about as many parameters each."""
    gym.register("Frames-v0", entry_point=lambda **_: Frames())
    models = {
        "our LSTM": PolicyConfig(kind="lstm", feature_dim=896, num_ticks=1, baseline_dim=256),
        "our machine": PolicyConfig(feature_dim=1216, num_neurons=128, history_length=10, num_ticks=2),
    }
    ppo = PPOSettings(num_epochs=NUM_EPOCHS, num_minibatches=NUM_MINIBATCHES, num_rollout_steps=NUM_STEPS)
    experiments = {
        name: ActingExperiment(
            name="images", env=EnvConfig(id="Frames-v0"), model=model, ppo=ppo, num_envs_per_env_runner=NUM_ENVS
        )
        for name, model in models.items()
    }
    rival = RivalSettings(
        num_envs=NUM_ENVS,
        num_steps=NUM_STEPS,
        lstm_dim=LSTM_DIM,
        num_epochs=NUM_EPOCHS,
        num_minibatches=NUM_MINIBATCHES,
    )
    sb3 = SB3Contender(experiments["our LSTM"], rival)
    return {"sb3-contrib": sb3, **{name: of_experiment(experiment) for name, experiment in experiments.items()}}


def measure(rounds: int, report: Callable[[str], None] = print) -> dict[str, float]:
    """Trains all in turn and returns environment steps a second by name, the median of the rounds after the first."""
    measured = contenders()
    for name, contender in measured.items():
        report(f"{name}: {contender.prepare().parameters:,} parameters")
    speeds: dict[str, list[float]] = {name: [] for name in measured}
    for number in range(rounds + 1):
        for name, contender in measured.items():
            timing = contender.run_iteration()
            if number > 0:
                speeds[name].append(timing.env_steps / timing.seconds)
    for contender in measured.values():
        contender.close()
    return {name: statistics.median(values) for name, values in speeds.items()}


def main() -> None:
    """Prints the speeds, and how many times sb3-contrib's each of ours is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        speeds = measure(rounds)
    finally:
        ray.shutdown()
    for name, speed in speeds.items():
        print(f"{name}: {speed:,.0f} steps/s, {speed / speeds['sb3-contrib']:.2f} times sb3-contrib's")


if __name__ == "__main__":
    main()
