"""sb3-contrib's RecurrentPPO as a contender: an optional extra, ``pip install "ctm-rl[bench]"``."""

import importlib
import time
from typing import Any

from gymnasium.spaces import Dict

from ctm_rl.agents.bench.memory import PeakMeter, highest
from ctm_rl.agents.bench.settings import RivalSettings
from ctm_rl.agents.bench.task import describe, sizes_of
from ctm_rl.agents.bench.timing import Description, Timing, Unavailable
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.rllib.environment import make_env
from ctm_rl.encoders.conv import is_image

_LIBRARY = "sb3_contrib"


class SB3Contender:
    """RecurrentPPO with its LSTM policy on the experiment's environment, in this process.

    Images get its convolutions, dictionaries an input for each of their parts.

    Args:
        experiment: its environment and seed are used.
        rival: sizes of the model and of an iteration.
    """

    def __init__(self, experiment: ActingExperiment, rival: RivalSettings) -> None:
        self._experiment = experiment
        self._rival = rival

    def prepare(self) -> Description:
        """Builds the learner and its environments.

        Raises:
            Unavailable: the library is not installed.
        """
        try:
            library: Any = importlib.import_module(_LIBRARY)
        except ImportError as error:
            raise Unavailable(f'{error}; install it with pip install "ctm-rl[bench]".') from error
        from stable_baselines3.common.vec_env import DummyVecEnv  # pyright: ignore[reportMissingImports]

        rival, env = self._rival, self._experiment.env
        envs = DummyVecEnv([lambda: make_env(env) for _ in range(rival.num_envs)])
        observed: Any = envs.observation_space
        kind = "Cnn" if is_image(observed.shape or ()) else "MultiInput" if isinstance(observed, Dict) else "Mlp"
        self._model: Any = library.RecurrentPPO(
            f"{kind}LstmPolicy",
            envs,
            n_steps=rival.num_steps,
            batch_size=rival.num_envs * rival.num_steps // rival.num_minibatches,
            n_epochs=rival.num_epochs,
            policy_kwargs={"lstm_hidden_size": rival.lstm_dim},
            seed=self._experiment.seed,
            device="cpu",
        )
        self._steps_per_iteration = rival.num_envs * rival.num_steps
        _, self._callback = self._model._setup_learn(total_timesteps=1_000 * self._steps_per_iteration)
        self._meter = PeakMeter()
        sizes = sizes_of(rival.num_envs, rival.num_steps, rival.num_epochs, rival.num_minibatches)
        return describe(self._model.policy, f"LSTM {rival.lstm_dim}, {sizes}")

    def run_iteration(self) -> Timing:
        """Does what one round of the library's ``learn`` does, without its logging."""
        model = self._model
        self._meter.start()
        started = time.perf_counter()
        model.collect_rollouts(model.env, self._callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
        played = time.perf_counter()
        rollout_peak = self._meter.above_floor_mb()
        self._meter.start()
        between = time.perf_counter()
        model.train()
        ended = time.perf_counter()
        update_peak = self._meter.above_floor_mb()
        return Timing(
            seconds=(played - started) + (ended - between),
            rollout=played - started,
            update=ended - between,
            weight_sync=0.0,  # the same policy plays and learns
            env_steps=self._steps_per_iteration,
            peak_mb=highest(rollout_peak, update_peak),
            update_peak_mb=update_peak,
        )

    def close(self) -> None:
        """Closes the environments."""
        self._model.env.close()
