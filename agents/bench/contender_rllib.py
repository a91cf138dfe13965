"""Contenders that are RLlib algorithms: ours, and RLlib's own with our module or with its own LSTM."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import (
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_UPDATE_TIMER,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from ctm_rl.agents.bench.memory import PeakMeter, highest
from ctm_rl.agents.bench.settings import RivalSettings
from ctm_rl.agents.bench.task import describe, sizes_of, task_of
from ctm_rl.agents.bench.timing import Description, Timing
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.rllib.private import without_known_noise
from ctm_rl.agents.runs.build_algorithm import build_algorithm_config

_MODULE = "default_policy"
_PARTS = (ENV_RUNNER_SAMPLING_TIMER, LEARNER_UPDATE_TIMER, SYNCH_WORKER_WEIGHTS_TIMER)
_PLAIN: dict[str, Any] = {
    "lr_kl_target": None,
    "is_clip_annealed": False,
    "value_clip": None,
    "target_kl": None,
    "normalize_rewards": False,
    "entropy_coefficient_final": None,
    "noise_correlation": 0.0,
}
"""Settings that RLlib's own algorithm does not have, switched off."""


class RLlibContender:
    """An RLlib algorithm, trained one iteration at a time.

    Args:
        make_config: makes the algorithm's configuration.
        note: what a reader should know about it.
    """

    def __init__(self, make_config: Callable[[], AlgorithmConfig], note: str) -> None:
        self._make_config = make_config
        self._note = note
        self._update_peak: float | None = None
        self._stack = contextlib.ExitStack()

    def prepare(self) -> Description:
        """Builds the algorithm."""
        with without_known_noise():
            self.algorithm: Algorithm = self._make_config().build_algo()
        self._stack.callback(self.algorithm.stop)
        for part in _PARTS:
            # RLlib averages its timers over a hundred iterations, unless they exist already.
            self.algorithm.metrics.log_value((TIMERS, part), 0.0, reduce="sum")
        self._meter = PeakMeter()
        self._measure_update()
        module = self.algorithm.get_module(_MODULE)
        assert isinstance(module, torch.nn.Module)
        return describe(module, self._note)

    def run_iteration(self) -> Timing:
        """Trains for one iteration."""
        self._update_peak = None
        self._meter.start()
        started = time.perf_counter()
        result = self.algorithm.train()
        seconds, peak = time.perf_counter() - started, self._meter.above_floor_mb()
        timers = result[TIMERS]
        return Timing(
            seconds,
            *(float(timers[part]) if part in timers else None for part in _PARTS),
            env_steps=int(result["env_runners"]["num_env_steps_sampled"]),
            peak_mb=highest(peak, self._update_peak, self._rollout_peak),
            update_peak_mb=self._update_peak,
        )

    def close(self) -> None:
        """Stops the algorithm."""
        self._stack.close()

    def _measure_update(self) -> None:
        """Measures the peak memory of a learner in this process apart from that of the rollout."""
        self._rollout_peak: float | None = None
        group: Any = self.algorithm.learner_group
        if group is None or not group.is_local:
            return
        update = group.update

        def measured_update(*args: Any, **kwargs: Any) -> Any:
            self._rollout_peak = self._meter.above_floor_mb()
            self._meter.start()
            try:
                return update(*args, **kwargs)
            finally:
                self._update_peak = self._meter.above_floor_mb()

        group.update = measured_update


def of_experiment(experiment: ActingExperiment) -> RLlibContender:
    """The algorithm that ``ctm-rl train`` builds for an experiment."""
    return RLlibContender(lambda: build_algorithm_config(experiment), _sizes(experiment))


def with_lstm(experiment: ActingExperiment) -> ActingExperiment:
    """The experiment with an LSTM of as many parameters as its model."""
    return replace(experiment, model=replace(experiment.model, kind="lstm", baseline_dim=None))


def at_size_of(rival: RivalSettings, experiment: ActingExperiment) -> ActingExperiment:
    """The experiment with the environments, steps, epochs and minibatches of a rival, in this process."""
    ppo = replace(
        experiment.ppo,
        num_rollout_steps=rival.num_steps,
        num_epochs=rival.num_epochs,
        num_minibatches=rival.num_minibatches,
    )
    return replace(experiment, ppo=ppo, num_env_runners=0, num_learners=0, num_envs_per_env_runner=rival.num_envs)


def as_stock(experiment: ActingExperiment, max_seq_len: int) -> ActingExperiment:
    """The experiment with RLlib's own proximal policy optimisation, on sequences of ``max_seq_len`` steps."""
    model = replace(experiment.model, max_seq_len=max_seq_len)
    return replace(experiment, model=model, ppo=replace(experiment.ppo, **_PLAIN), algorithm="stock-ppo")


def stock_lstm(experiment: ActingExperiment, rival: RivalSettings) -> RLlibContender:
    """RLlib's own proximal policy optimisation with its own LSTM: only the environment is ours."""
    experiment = as_stock(at_size_of(rival, experiment), max_seq_len=20)

    def make_config() -> AlgorithmConfig:
        model = DefaultModelConfig(use_lstm=True, lstm_cell_size=rival.lstm_dim, max_seq_len=20)
        config = build_algorithm_config(experiment)
        config.rl_module(rl_module_spec=RLModuleSpec(module_class=DefaultPPOTorchRLModule, model_config=asdict(model)))
        config.learners(learner_class=PPOTorchLearner, learner_config_dict={})
        config.env_runners(env_runner_cls=SingleAgentEnvRunner)
        return config

    return RLlibContender(make_config, f"LSTM {rival.lstm_dim}, {_sizes(experiment)}")


def _sizes(experiment: ActingExperiment) -> str:
    """The model and the size of an iteration, for the table."""
    ppo = experiment.ppo
    kind = experiment.model.kind
    model = "" if kind == "ctm" else f"{kind.upper()} {task_of(experiment).config.baseline_dim}, "
    return model + sizes_of(experiment.num_envs, ppo.num_rollout_steps, ppo.num_epochs, ppo.num_minibatches)
