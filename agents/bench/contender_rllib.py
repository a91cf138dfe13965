"""Contenders that are RLlib algorithms: ours, and stock ones with our module or with RLlib's own LSTM."""

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

from ctm_rl.agents.bench.memory import PeakMeter, resident_mb
from ctm_rl.agents.bench.settings import RivalSettings
from ctm_rl.agents.bench.task import task_of
from ctm_rl.agents.bench.timing import Description, Timing
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.rllib.private import without_known_noise
from ctm_rl.agents.runs.build_algorithm import build_algorithm_config

_MODULE = "default_policy"
_PARTS = (ENV_RUNNER_SAMPLING_TIMER, LEARNER_UPDATE_TIMER, SYNCH_WORKER_WEIGHTS_TIMER)
_PLAIN: dict[str, Any] = {
    "value_clip": None,
    "target_kl": None,
    "normalize_rewards": False,
    "entropy_coefficient_final": None,
}
"""What RLlib's own algorithm does not know, switched off."""


class RLlibContender:
    """An RLlib algorithm that is asked for one iteration after the other.

    Args:
        make_config: makes the algorithm's configuration.
        num_threads: CPU threads of this process.
        note: what a reader should know of it.
    """

    def __init__(self, make_config: Callable[[], AlgorithmConfig], num_threads: int, note: str) -> None:
        self._make_config = make_config
        self._num_threads = num_threads
        self._note = note
        self._update_peak: float | None = None
        self._stack = contextlib.ExitStack()

    def prepare(self) -> Description:
        """Builds the algorithm."""
        torch.set_num_threads(self._num_threads)
        with without_known_noise():
            self.algorithm: Algorithm = self._make_config().build_algo()
        self._stack.callback(self.algorithm.stop)
        for part in _PARTS:
            # RLlib smooths its timers over a hundred iterations, unless it finds them there already.
            self.algorithm.metrics.log_value((TIMERS, part), 0.0, reduce="sum")
        self._meter = PeakMeter()
        self._watch_update()
        module = self.algorithm.get_module(_MODULE)
        assert isinstance(module, torch.nn.Module)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        return Description(
            parameters=parameters,
            built_mb=_rounded(resident_mb()),
            num_threads=torch.get_num_threads(),
            note=self._note,
        )

    def run_iteration(self) -> Timing:
        """Lets the algorithm train once."""
        self._update_peak = None
        self._meter.start()
        started = time.perf_counter()
        result = self.algorithm.train()
        seconds = time.perf_counter() - started
        peaks = [peak for peak in (self._meter.above_floor_mb(), self._update_peak, self._rollout_peak) if peak]
        timers = result[TIMERS]
        return Timing(
            seconds,
            *(float(timers[part]) if part in timers else None for part in _PARTS),
            env_steps=int(result["env_runners"]["num_env_steps_sampled"]),
            peak_mb=max(peaks, default=None),
            update_peak_mb=self._update_peak,
        )

    def close(self) -> None:
        """Stops the algorithm."""
        self._stack.close()

    def _watch_update(self) -> None:
        """Counts memory anew when a learner in this process begins, and notes what it came to when it ends."""
        self._rollout_peak: float | None = None
        group: Any = self.algorithm.learner_group
        if group is None or not group.is_local:
            return
        update = group.update

        def watched(*args: Any, **kwargs: Any) -> Any:
            self._rollout_peak = self._meter.above_floor_mb()
            self._meter.start()
            try:
                return update(*args, **kwargs)
            finally:
                self._update_peak = self._meter.above_floor_mb()

        group.update = watched


def ours(experiment: ActingExperiment, num_threads: int) -> RLlibContender:
    """What ``ctm-rl train`` does with an experiment."""
    return RLlibContender(lambda: build_algorithm_config(experiment), num_threads, _sizes(experiment))


def with_lstm(experiment: ActingExperiment) -> ActingExperiment:
    """The experiment with an LSTM in the machine's place, of as many parameters."""
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


def stock(experiment: ActingExperiment, num_threads: int, max_seq_len: int) -> RLlibContender:
    """RLlib's own proximal policy optimisation, with our module."""
    experiment = _stock(experiment, max_seq_len)
    return RLlibContender(lambda: build_algorithm_config(experiment), num_threads, _sizes(experiment))


def stock_lstm(experiment: ActingExperiment, num_threads: int, rival: RivalSettings) -> RLlibContender:
    """RLlib's own proximal policy optimisation with its own LSTM: nothing of ours but the environment."""
    experiment = _stock(at_size_of(rival, experiment), max_seq_len=20)

    def make_config() -> AlgorithmConfig:
        model = DefaultModelConfig(use_lstm=True, lstm_cell_size=rival.lstm_dim, max_seq_len=20)
        config = build_algorithm_config(experiment)
        config.rl_module(rl_module_spec=RLModuleSpec(module_class=DefaultPPOTorchRLModule, model_config=asdict(model)))
        config.learners(learner_class=PPOTorchLearner, learner_config_dict={})
        config.env_runners(env_runner_cls=SingleAgentEnvRunner)
        return config

    return RLlibContender(make_config, num_threads, f"LSTM {rival.lstm_dim}, {_sizes(experiment)}")


def _stock(experiment: ActingExperiment, max_seq_len: int) -> ActingExperiment:
    """The experiment as RLlib's own algorithm takes it."""
    model = replace(experiment.model, max_seq_len=max_seq_len)
    return replace(experiment, model=model, ppo=replace(experiment.ppo, **_PLAIN), algorithm="stock-ppo")


def _sizes(experiment: ActingExperiment) -> str:
    """Size of an iteration, for the table."""
    ppo = experiment.ppo
    kind = experiment.model.kind
    model = "" if kind == "ctm" else f"{kind.upper()} {task_of(experiment).config.baseline_dim}, "
    return (
        f"{model}{experiment.num_envs} x {ppo.num_rollout_steps} steps, {ppo.num_epochs} epochs, "
        f"{ppo.num_minibatches} minibatches"
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
