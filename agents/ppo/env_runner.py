"""An environment runner that returns columns instead of lists of episodes."""

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_AGENT_ID, DEFAULT_MODULE_ID
from ray.rllib.utils import force_list
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.framework import get_device
from ray.rllib.utils.metrics import (
    EPISODE_LEN_MAX,
    EPISODE_LEN_MEAN,
    EPISODE_LEN_MIN,
    EPISODE_RETURN_MAX,
    EPISODE_RETURN_MEAN,
    EPISODE_RETURN_MIN,
    NUM_AGENT_STEPS_SAMPLED,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    NUM_EPISODES_LIFETIME,
    NUM_MODULE_STEPS_SAMPLED,
    NUM_MODULE_STEPS_SAMPLED_LIFETIME,
    SAMPLE_TIMER,
    WEIGHTS_SEQ_NO,
)

from ctm_rl.agents.ppo.episode_callbacks import EpisodeCallbacks
from ctm_rl.agents.ppo.exploration_noise import CorrelatedNoise, check_correlation
from ctm_rl.agents.ppo.reward_normaliser import RewardNormaliser
from ctm_rl.agents.ppo.rollout import RolloutFragment
from ctm_rl.agents.ppo.vector_player import VectorPlayer
from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.callbacks import EPISODE_CALLBACKS, is_given
from ctm_rl.agents.rllib.finished_episodes import FinishedEpisode
from ctm_rl.agents.rllib.module import CTMModule
from ctm_rl.agents.rllib.runner_base import PlainEnvRunner, ResumableRunner, check_arguments, load_weights
from ctm_rl.agents.rllib.spans import COLLECT, span
from ctm_rl.errors import Diverged
from ctm_rl.inference.batched_actor import Actor

if TYPE_CHECKING:
    from ctm_rl.agents.ppo.config import RecurrentPPOConfig

COMPONENT_PLAYING = "playing"
"""Component of a runner's state: the generator of its actions, and the statistics of its rewards."""

_LOG = logging.getLogger(__name__)


class ColumnarEnvRunner(ResumableRunner, PlainEnvRunner):
    """Steps a vector of environments with a ``CTMModule`` and returns ``RolloutFragment``s.

    Each environment has its own, unrelated seed. There are no connectors, and episode objects only for the episode
    callbacks, see ``EpisodeCallbacks``. Autoreset steps do not count as environment steps.

    Args of the constructor are RLlib's. Of the configuration it reads ``ppo`` and RLlib's own fields.
    """

    config: "RecurrentPPOConfig"  # pyright: ignore[reportIncompatibleVariableOverride]
    module: CTMModule | None

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self.num_envs = 0
        self._callbacks = [make() for make in force_list(self.config.callbacks_class)]
        has_episode_callbacks = any(is_given(self.config, name) for name in EPISODE_CALLBACKS)
        self._episode_callbacks = EpisodeCallbacks(self, self._callbacks) if has_episode_callbacks else None
        num_gpus = self.config.num_gpus_per_env_runner if self.worker_index else 0
        self._device = get_device(self.config, cast(int, num_gpus))
        self._weights_seq_no = 0
        self._needs_initial_reset = True
        self._player: VectorPlayer | None = None
        self._generator: torch.Generator | None = None
        self._normaliser: RewardNormaliser | None = None
        # Runner 0 has environments only if there are no others, or if configured.
        if self.worker_index != 0 or self.config.num_env_runners == 0 or self.config.create_env_on_local_worker:
            self.make_env()
        self.make_module()

    def make_env(self) -> None:
        """Creates the environments again from the configuration; the next sample begins new episodes."""
        self._player = None
        self._make_vector()

    def make_module(self) -> None:
        """Creates the module again from the configuration."""
        module = self._build_module(CTMModule).to(self._device)
        check_correlation(self.config.ppo.noise_correlation, module.agent.actions)
        self.module = module
        self._player = None
        self._needs_initial_reset = True

    def sample(
        self,
        *,
        num_timesteps: int | None = None,
        explore: bool | None = None,
        tick_seed: int | None = None,
        **kwargs: Any,
    ) -> RolloutFragment:
        """Takes T steps in every environment; episodes continue in the next sample.

        Args:
            num_timesteps: T; ``None``: as configured.
            explore: draw the actions; ``False``: take the likeliest; ``None``: as configured.
            tick_seed: with ``train_random_ticks``, seed of the numbers of ticks: fragments of one update need the same;
                ``None``: they are drawn from the generator of the actions. Without exploration all ticks are taken.
            **kwargs: none is supported.

        Returns:
            T steps of every environment.

        Raises:
            ValueError: this runner has no environments.
        """
        check_arguments(kwargs, "num_timesteps, explore and tick_seed")
        if self.env is None:
            raise ValueError(f"{self} has no environments to sample from.")
        num_steps = num_timesteps or self.config.get_rollout_fragment_length(self.worker_index or 0)
        explore = self.config.explore if explore is None else explore
        self.metrics.log_value(WEIGHTS_SEQ_NO, self._weights_seq_no, window=1)
        with span(COLLECT), self.metrics.log_time(SAMPLE_TIMER):
            fragment = self._play(num_steps, bool(explore), tick_seed)
        self._log(fragment.num_steps)
        return fragment

    def get_metrics(self) -> Any:
        """Returns the metrics since the last call, with the return and length of each finished episode."""
        episodes = [] if self._player is None else self._player.pop_finished()
        self._log_finished(episodes)
        self._log_means(episodes)
        self.metrics.log_value(NUM_EPISODES, len(episodes), reduce="sum")
        self.metrics.log_value(NUM_EPISODES_LIFETIME, len(episodes), reduce="lifetime_sum")
        return self.metrics.reduce()

    @property
    def has_played(self) -> bool:
        """Whether this runner has environments that have been stepped."""
        return self._player is not None

    @property
    def longest_episode(self) -> int:
        """Environment steps of the longest episode under way; 0 before the first sample."""
        return 0 if self._player is None or self._needs_initial_reset else self._player.longest_episode

    def _drop_finished(self) -> None:
        """Drops finished episodes that have not been reported."""
        if self._player is not None:
            self._player.pop_finished()

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Returns weights, counters, generator and reward statistics; environments cannot be saved."""
        assert self.module is not None
        state: dict[str, Any] = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime}
        if private.is_component_wanted(self, COMPONENT_RL_MODULE, components, not_components):
            state[COMPONENT_RL_MODULE] = self.module.get_state(**kwargs)
            state[WEIGHTS_SEQ_NO] = self._weights_seq_no
        if private.is_component_wanted(self, COMPONENT_PLAYING, components, not_components):
            state[COMPONENT_PLAYING] = self.get_playing()
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores a state; weights that are not newer than the current ones are skipped, as in RLlib."""
        if COMPONENT_RL_MODULE in state:
            number = state.get(WEIGHTS_SEQ_NO, 0)
            if number == 0 or self._weights_seq_no < number:
                assert self.module is not None
                load_weights(self.module, state[COMPONENT_RL_MODULE])
            if number > 0:
                self._weights_seq_no = number
        if state.get(COMPONENT_PLAYING):
            self.set_playing(state[COMPONENT_PLAYING])
        if NUM_ENV_STEPS_SAMPLED_LIFETIME in state:
            self.num_env_steps_sampled_lifetime = state[NUM_ENV_STEPS_SAMPLED_LIFETIME]

    def get_playing(self) -> dict[str, Any]:
        """The generator of actions and the reward statistics; empty before the first sample."""
        if self._generator is None:
            return {}
        normaliser = self._normaliser
        return {
            "generator": self._generator.get_state(),
            "rewards": None if normaliser is None else normaliser.get_state(),
        }

    def set_playing(self, state: Mapping[str, Any]) -> None:
        """Restores the result of ``get_playing``; an empty one resets everything."""
        self._generator, self._normaliser, self._player = None, None, None
        self._needs_initial_reset = True
        if not state:
            return
        self._generator = torch.Generator()
        self._generator.set_state(torch.as_tensor(state["generator"]))
        if state["rewards"] is not None and self.num_envs:
            self._normaliser = RewardNormaliser(self.num_envs, self.config.ppo.gamma)
            self._normaliser.set_state(state["rewards"])

    def begin_rewards(self, statistics: Mapping[str, Any]) -> None:
        """Begins with another run's statistics of rewards, if rewards are normalised."""
        if self.config.ppo.normalize_rewards and self.num_envs:
            self._normaliser = RewardNormaliser(self.num_envs, self.config.ppo.gamma)
            self._normaliser.set_state(statistics)

    def get_checkpointable_components(self) -> list[tuple[str, Checkpointable]]:
        """Returns the components that save themselves."""
        assert self.module is not None
        return [(COMPONENT_RL_MODULE, self.module)]

    def assert_healthy(self) -> None:
        """Checks that the constructor has finished."""
        assert self.env is not None
        assert self.module is not None

    def stop(self) -> None:
        """Closes the environments."""
        if self.env is not None:
            self.env.close()

    def _play(self, num_steps: int, explore: bool, tick_seed: int | None) -> RolloutFragment:
        """Plays; with ``restart_failed_sub_environments``, environments are created again after an error."""
        while True:
            try:
                player = self._ready_player()
                ticks = self._draw_ticks(num_steps, tick_seed) if explore else None
                return player.play(num_steps, explore=explore, ticks=ticks)
            except Diverged:
                raise
            except Exception:  # an environment may raise anything
                is_callback = self._episode_callbacks is not None and self._episode_callbacks.has_failed
                if is_callback or not self.config.restart_failed_sub_environments:
                    raise
                _LOG.exception(
                    "an environment failed; all %d environments of this runner are created again.", self.num_envs
                )
                self.make_env()

    def _draw_ticks(self, num_steps: int, tick_seed: int | None) -> list[int] | None:
        """How many ticks each step takes, [T], with ``train_random_ticks``."""
        assert self.module is not None
        config = self.module.agent.config
        if not config.train_random_ticks:
            return None
        generator = self._generator if tick_seed is None else torch.Generator().manual_seed(tick_seed)
        return torch.randint(config.min_num_ticks, config.num_ticks + 1, (num_steps,), generator=generator).tolist()

    def _ready_player(self) -> VectorPlayer:
        """The player, with its environments reset if needed."""
        assert self.module is not None
        assert self.env is not None
        # A restarted runner knows the number of sampled steps: it must not play the same episodes again.
        started = self._start_iteration
        position = self.num_env_steps_sampled_lifetime if started is None else started
        if self._generator is None:
            self._generator = torch.Generator()
            seed = private.seed_of(self)
            if seed is not None:
                (word,) = np.random.SeedSequence([seed, position, 1]).generate_state(1)
                self._generator.manual_seed(int(word))
            else:
                self._generator.seed()
        if self._normaliser is None and self.config.ppo.normalize_rewards:
            self._normaliser = RewardNormaliser(self.num_envs, self.config.ppo.gamma)
        if self._player is None:
            correlation = self.config.ppo.noise_correlation
            self._player = VectorPlayer(
                self.env,
                Actor(self.module.agent),
                self._generator,
                self._normaliser,
                self._episode_callbacks,
                CorrelatedNoise(correlation, self._generator) if correlation else None,
            )
        if self._needs_initial_reset:
            self._player.reset(private.seed_of(self), position)
            self._needs_initial_reset = False
        return self._player

    def _log(self, num_steps: int) -> None:
        """Logs numbers of steps as RLlib's own runner does."""
        for key in (
            NUM_ENV_STEPS_SAMPLED,
            (NUM_AGENT_STEPS_SAMPLED, DEFAULT_AGENT_ID),
            (NUM_MODULE_STEPS_SAMPLED, DEFAULT_MODULE_ID),
        ):
            self.metrics.log_value(key, num_steps, reduce="sum")
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED_LIFETIME, num_steps, reduce="lifetime_sum", with_throughput=True)
        for key in (
            (NUM_AGENT_STEPS_SAMPLED_LIFETIME, DEFAULT_AGENT_ID),
            (NUM_MODULE_STEPS_SAMPLED_LIFETIME, DEFAULT_MODULE_ID),
        ):
            self.metrics.log_value(key, num_steps, reduce="lifetime_sum")

    def _log_means(self, episodes: list[FinishedEpisode]) -> None:
        """Logs RLlib's smoothed metrics of episodes; each runner has its share of the window."""
        smoothing = self.config.metrics_num_episodes_for_smoothing or 1
        window = max(1, math.ceil(smoothing / (self.config.num_env_runners or 1)))
        for episode in episodes[-window:]:
            for value, mean, smallest, largest in (
                (episode.episode_return, EPISODE_RETURN_MEAN, EPISODE_RETURN_MIN, EPISODE_RETURN_MAX),
                (episode.length, EPISODE_LEN_MEAN, EPISODE_LEN_MIN, EPISODE_LEN_MAX),
            ):
                self.metrics.log_value(mean, value, window=window)
                self.metrics.log_value(smallest, value, reduce="min", window=window)
                self.metrics.log_value(largest, value, reduce="max", window=window)
