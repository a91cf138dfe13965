"""Learning to act, as a run sees it: episodes, returns, and the losses of proximal policy optimisation."""

from typing import Any

from ctm_rl.agents.experiments.acting import ASYNCHRONOUS, ActingExperiment
from ctm_rl.agents.run_directory.progress import Row
from ctm_rl.agents.runs.task import COMMON_METRICS, MODULE, mean_of, number_of, peak_memory_mb

WINDOW = 100
"""Episodes over which returns and lengths are averaged."""

ACTING_METRICS = (
    *COMMON_METRICS,
    "episode_return_mean",
    "episode_length_mean",
    "num_episodes",
    "env_faults",
    "total_loss",
    "policy_loss",
    "value_loss",
    "entropy",
    "kl",
    "clip_fraction",
    "explained_variance",
    "gradient_norm",
    "lr",
    "memory_mb",
)
"""Keys of a line of metrics, in their order. Returns and lengths are means over the last 100 episodes; ``null`` stands
where there is nothing to tell, as before the first episode has ended; ``env_faults`` are all that were survived so far;
``kl`` and ``clip_fraction`` are told by our own learner only, ``explained_variance`` by PPO only."""


class ActingTask:
    """Learning from rewards, with our algorithm or one of RLlib's.

    Args:
        experiment: what is learned.
    """

    metrics = ACTING_METRICS

    def __init__(self, experiment: ActingExperiment) -> None:
        self._experiment = experiment
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self._num_faults = 0

    def build_config(self) -> Any:
        """RLlib's configuration."""
        from ctm_rl.agents.runs.build_algorithm import build_algorithm_config

        return build_algorithm_config(self._experiment)

    def describe(self, algorithm: Any) -> dict[str, Any]:
        """The policy with its weights."""
        from ctm_rl.agents.runs.algorithm_state import refresh_local_policy
        from ctm_rl.inference.policy import POLICY_ENTRY, describe

        if self._experiment.algorithm in ASYNCHRONOUS:
            refresh_local_policy(algorithm)
        module = algorithm.get_module(MODULE)
        return {POLICY_ENTRY: describe(module.agent)}

    def read(self, algorithm: Any, result: dict[str, Any], *, is_last: bool) -> Row:
        """Returns of the last episodes, and the losses."""
        from ctm_rl.agents.rllib.episodes import finished_episodes
        from ctm_rl.agents.rllib.faults import faults_of

        episodes = finished_episodes(result)
        self._returns = [*self._returns, *(item.episode_return for item in episodes)][-WINDOW:]
        self._lengths = [*self._lengths, *(item.length for item in episodes)][-WINDOW:]
        self._num_faults += faults_of(result)
        return {
            "episode_return_mean": mean_of(self._returns),
            "episode_length_mean": mean_of(self._lengths),
            "num_episodes": len(episodes),
            "env_faults": self._num_faults,
            **ppo_losses(result["learners"][MODULE]),
            "memory_mb": peak_memory_mb(),
        }

    def get_memory(self) -> dict[str, Any]:
        """Returns and lengths of the last episodes, and the faults so far."""
        return {"returns": self._returns, "lengths": self._lengths, "num_faults": self._num_faults}

    def set_memory(self, memory: dict[str, Any]) -> None:
        """Puts them back."""
        self._returns, self._lengths = list(memory["returns"]), list(memory["lengths"])
        self._num_faults = int(memory.get("num_faults", 0))


def ppo_losses(learner: dict[str, Any]) -> Row:
    """What a learner tells, by our names."""
    # Of IMPALA's two of each, these are the means over steps, as the others'.
    is_impala = "mean_pi_loss" in learner
    names = {
        "total_loss": "total_loss",
        "policy_loss": "mean_pi_loss" if is_impala else "policy_loss",
        "value_loss": "mean_vf_loss" if is_impala else "vf_loss",
        "entropy": "entropy",
        "kl": "kl",
        "clip_fraction": "clip_fraction",
        "explained_variance": "vf_explained_var",
        "gradient_norm": "gradients_default_optimizer_global_norm",
        "lr": "default_optimizer_learning_rate",
    }
    return {name: number_of(learner, theirs) for name, theirs in names.items()}
