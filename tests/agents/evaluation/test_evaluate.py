"""Evaluation and its policy: the exact number of episodes in even shares, each from the start state."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from ctm_rl.agents.evaluation import evaluate as evaluation
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.run_directory.directory import config_of, write_config
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.best import folder_of, save_best
from ctm_rl.config import PolicyConfig
from ctm_rl.errors import UserError
from ctm_rl.inference.policy import POLICY_ENTRY, Policy, describe
from ctm_rl.machine.state import CoreState
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.actions import Choices
from ctm_rl.spaces.observations import vector_layout

CONFIG = PolicyConfig(
    num_neurons=16,
    num_output_sync_neurons=4,
    history_length=3,
    num_ticks=2,
    feature_dim=5,
    head_dims=(6,),
    encoder="control",
)


class SeedRecordingEnv(gym.Env[np.ndarray, int]):
    """Episodes whose length follows from their seed; records all seeds, and the episodes of each environment."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(3)
    seeds: list[int] = []  # noqa: RUF012 - shared by all instances on purpose
    episodes: dict[int, int] = {}  # noqa: RUF012
    is_short: bool

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        assert seed is not None
        self.seeds.append(seed)
        self.episodes[id(self)] = self.episodes.get(id(self), 0) + 1
        self._steps_left = 1 + seed % 7
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._steps_left -= 1
        return self._observe(), 2.0, self._steps_left == 0, False, {}

    def _observe(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """A run with an untrained policy for the environment."""
    gym.register("SeedRecording-v0", lambda **_: SeedRecordingEnv())
    SeedRecordingEnv.seeds.clear()
    SeedRecordingEnv.episodes.clear()
    torch.manual_seed(5)
    experiment = ActingExperiment(name="diary", env=EnvConfig(id="SeedRecording-v0"), model=CONFIG)
    write_config(tmp_path, config_of(experiment))
    checkpoint.save(tmp_path, 4, {POLICY_ENTRY: describe(ActorCritic(CONFIG, vector_layout(2), Choices(sizes=(3,))))})
    yield tmp_path
    gym.registry.pop("SeedRecording-v0")


def test_an_episode_that_never_ends_is_truncated_and_reported(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SeedRecordingEnv, "step", lambda self, action: (self._observe(), 2.0, False, False, {}))
    result = evaluation.evaluate(run, episodes=3, max_episode_steps=40)
    assert (result["episodes_truncated"], result["env_steps"], result["episode_return_max"]) == (3, 120, 80)
    assert ", 3 episodes truncated (--max-episode-steps)" in evaluation.to_text(result)
    with pytest.raises(UserError, match="max_episode_steps must be at least 1, got 0"):
        evaluation.evaluate(run, max_episode_steps=0)


def test_an_episode_that_ends_in_its_last_allowed_step_is_not_truncated(run: Path) -> None:
    result = evaluation.evaluate(run, episodes=20, max_episode_steps=7)
    assert "episodes_truncated" not in result


def test_json_has_null_where_a_number_is_not_finite(run: Path) -> None:
    result = evaluation.evaluate(run, episodes=2)
    result |= {"episode_return_std": float("inf"), "halting": [{"threshold": float("nan"), "ticks_mean": 1.5}]}
    read = json.loads(evaluation.to_json(result), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (read["episode_return_std"], read["halting"]) == (None, [{"threshold": None, "ticks_mean": 1.5}])
    assert read["episodes"] == 2


@pytest.mark.parametrize("episodes", [1, 31, 32, 33, 75])
def test_the_exact_number_of_episodes_is_played_in_even_shares(run: Path, episodes: int) -> None:
    result = evaluation.evaluate(run, episodes=episodes, seed=3)
    lengths = [1 + seed % 7 for seed in SeedRecordingEnv.seeds]
    assert len(lengths) == result["episodes"] == episodes
    assert result["env_steps"] == sum(lengths)
    assert result["episode_length_mean"] == pytest.approx(np.mean(lengths))
    assert result["episode_return_mean"] == pytest.approx(2 * np.mean(lengths))
    assert result["episode_return_std"] == pytest.approx(2 * np.std(lengths))
    assert (result["episode_return_min"], result["episode_return_max"]) == (2 * min(lengths), 2 * max(lengths))
    shares = SeedRecordingEnv.episodes.values()
    assert len(shares) == min(episodes, 32)
    assert max(shares) - min(shares) <= 1
    assert result["iteration"] == 4


def test_every_episode_has_its_own_seed_that_training_never_uses(run: Path) -> None:
    from ctm_rl.agents.rllib.finished_episodes import seeds_of_envs

    evaluation.evaluate(run, episodes=50, seed=3)
    assert len(set(SeedRecordingEnv.seeds)) == 50
    assert min(SeedRecordingEnv.seeds) >= 2**31
    assert max(seeds_of_envs(3, 0, 50)) < 2**31
    first = sorted(SeedRecordingEnv.seeds)
    SeedRecordingEnv.seeds.clear()
    evaluation.evaluate(run, episodes=50, seed=4)
    assert not set(first) & set(SeedRecordingEnv.seeds)


def test_every_episode_begins_with_the_start_state(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    original = Policy.act_packed

    def watch(self: Policy, observation: Any, state: Any, *, is_first: Any, **options: Any) -> Any:
        begun.append(is_first.copy())
        return original(self, observation, state, is_first=is_first, **options)

    monkeypatch.setattr(Policy, "act_packed", watch)
    evaluation.evaluate(run, episodes=5, seed=1)
    lengths = [1 + seed % 7 for seed in SeedRecordingEnv.seeds]
    assert begun[0].all()
    # Five environments, one episode each: after an episode's end, a row only begins what does not count.
    for step, flags in enumerate(begun[1:], start=1):
        assert [bool(flag) for flag in flags] == [length == step for length in lengths]


def test_a_policy_that_does_not_fit_the_environment_is_refused(run: Path) -> None:
    write_config(run, config_of(ActingExperiment(name="other", env=EnvConfig(id="CartPole-v1"), model=CONFIG)))
    with pytest.raises(UserError, match="acts by 1 choice, one of 3, and the environment takes 1 choice, one of 2"):
        evaluation.evaluate(run, episodes=2)


def test_one_checkpoint_of_a_run_can_be_named(run: Path) -> None:
    assert evaluation.evaluate(checkpoint.latest(run), episodes=2)["iteration"] == 4


def test_a_mean_return_has_an_interval_and_one_episode_has_none(run: Path) -> None:
    result = evaluation.evaluate(run, episodes=30, seed=3)
    low, high = result["episode_return_interval"]
    assert low < result["episode_return_mean"] < high
    half = 1.96 * result["episode_return_std"] / 30**0.5
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    assert f"(95 % interval {low:.3f} to " in evaluation.to_text(result)
    assert "success" not in evaluation.to_text(result)
    alone = evaluation.evaluate(run, episodes=1)
    assert alone["episode_return_interval"] is None
    assert "1 episodes: return" in evaluation.to_text(alone)


def test_successes_are_those_of_the_last_steps_of_episodes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = SeedRecordingEnv.step

    def judged(self: SeedRecordingEnv, action: int) -> tuple[Any, ...]:
        *taken, info = step(self, action)
        is_last = self._steps_left == 0
        return *taken, {**info, "is_success": np.bool_(self.is_short) if is_last else True}

    def begun(self: SeedRecordingEnv, *, seed: int | None = None, options: Any = None) -> Any:
        result = reset(self, seed=seed, options=options)
        self.is_short = self._steps_left <= 3
        return result

    reset = SeedRecordingEnv.reset
    monkeypatch.setattr(SeedRecordingEnv, "step", judged)
    monkeypatch.setattr(SeedRecordingEnv, "reset", begun)
    result = evaluation.evaluate(run, episodes=40, seed=3)
    short = [1 + seed % 7 <= 3 for seed in SeedRecordingEnv.seeds]
    assert len(short) == 40
    assert result["success_rate"] == sum(short) / 40
    low, high = result["success_rate_interval"]
    assert 0 < low < result["success_rate"] < high < 1
    assert (
        f"{100 * result['success_rate']:.1f} % ({100 * low:.1f} to {100 * high:.1f}) successes"
        in evaluation.to_text(result)
    )


def test_a_checkpoint_is_named_by_its_iteration_or_as_the_best(run: Path) -> None:
    state = checkpoint.load(checkpoint.latest(run))
    checkpoint.save(run, 6, state)
    save_best(run, state, iteration=5, metric="eval_return_mean", value=1.0)
    found = [evaluation.evaluate(run, checkpoint=which, episodes=2)["iteration"] for which in ("best", "last", 4, "5")]
    assert found == [5, 6, 4, 5]
    assert evaluation.evaluate(folder_of(run), episodes=2)["iteration"] == 5
    assert evaluation.evaluate(run, episodes=2)["iteration"] == 6
    assert Policy.from_checkpoint(run, checkpoint="best").iteration == 5
    with pytest.raises(UserError, match="has no checkpoint of iteration 9; kept are 4, 6"):
        evaluation.evaluate(run, checkpoint=9)


def test_a_policy_acts_as_its_network_says_alone_and_in_a_batch(run: Path) -> None:
    policy = Policy.from_checkpoint(run)
    generator = torch.Generator().manual_seed(1)
    observations = torch.randn(6, 4, 2, generator=generator)  # [T, B, ...]
    is_first = torch.rand(6, 4, generator=generator) < 0.3
    with torch.no_grad():
        expected = policy.agent.unroll(observations, is_first, policy.initial_state(4)).logits.argmax(-1)
    state = policy.initial_state(4)
    for step in range(6):
        actions, state = policy.act(observations[step].numpy(), state, is_first=is_first[step], deterministic=True)
        assert actions.tolist() == expected[step].tolist()
    state = policy.initial_state()
    with torch.no_grad():
        alone = policy.agent.unroll(observations[:, :1], torch.zeros(6, 1, dtype=torch.bool), state).logits.argmax(-1)
    for step in range(6):
        action, state = policy.act(observations[step, 0].numpy(), state, deterministic=True)
        assert isinstance(action, int)
        assert action == alone[step, 0]


def test_a_policy_acts_without_its_critic(run: Path) -> None:
    agent = ActorCritic(dataclasses.replace(CONFIG, critic="own"), vector_layout(2), Choices(sizes=(3,)))
    checkpoint.save(run, 5, {POLICY_ENTRY: describe(agent)})
    policy = Policy.from_checkpoint(run)
    observations, state = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(4)), policy.initial_state(3)
    with torch.no_grad():
        never = torch.zeros(4, 3, dtype=torch.bool)
        expected = agent.unroll(observations, never, state).logits.argmax(-1)
    for step in range(4):
        actions, state = policy.act(observations[step].numpy(), state, deterministic=True)
        assert actions.tolist() == expected[step].tolist()
    assert isinstance(state, CoreState)


def test_a_reset_row_forgets_even_nan_and_other_rows_do_not_change(run: Path) -> None:
    policy = Policy.from_checkpoint(run)
    observation = torch.randn(3, 2, generator=torch.Generator().manual_seed(2))
    start = policy.initial_state(3)
    assert isinstance(start, CoreState)
    broken = start._replace(pre_history=start.pre_history.clone())
    broken.pre_history[1] = float("nan")
    _, after = policy.act(observation, broken, is_first=np.array([False, True, False]), deterministic=True)
    _, expected = policy.act(observation, start, deterministic=True)
    for one, two in zip(after, expected, strict=True):
        if one is not None and two is not None:
            assert torch.equal(one, two)


def test_sampling_follows_its_generator_and_leaves_the_global_one(run: Path) -> None:
    policy = Policy.from_checkpoint(run)
    observation = np.zeros((200, 2), dtype=np.float32)
    before = torch.get_rng_state()
    draws = [
        policy.act(observation, policy.initial_state(200), generator=torch.Generator().manual_seed(seed))[0]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(before, torch.get_rng_state())
    assert draws[0].tolist() == draws[1].tolist() != draws[2].tolist()
    assert set(draws[0].tolist()) == {0, 1, 2}


def test_wrong_observations_are_refused(run: Path) -> None:
    policy = Policy.from_checkpoint(run)
    with pytest.raises(ValueError, match=r"observation must have shape \(2,\), or this after a batch axis; got \(3,\)"):
        policy.act(np.zeros(3), policy.initial_state())
    with pytest.raises(ValueError, match="as many rows as the state, 2, got 4"):
        policy.act(np.zeros((4, 2)), policy.initial_state(2))


def test_a_checkpoint_without_a_policy_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"something": 1})
    with pytest.raises(UserError, match="holds no policy that this ctm-rl can rebuild"):
        Policy.from_checkpoint(tmp_path)


def test_a_policy_needs_neither_ray_nor_gymnasium(run: Path) -> None:
    program = (
        "import sys; from ctm_rl import Policy; policy = Policy.from_checkpoint(sys.argv[1]);"
        "policy.act([0.0, 1.0], policy.initial_state());"
        "sys.exit(bool({'ray', 'gymnasium'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program, str(run)], check=True)


@pytest.mark.parametrize("name", ["ctm_cartpole", "lstm_cartpole", "ctm_acrobot_unet"])
def test_an_imported_policy_acts_as_the_published_model(golden_dir: Path, tmp_path: Path, name: str) -> None:
    from ctm_rl.agents.runs.import_published import import_official
    from ctm_rl.checkpoints.published import load_official

    assert "parameters" in import_official(golden_dir / f"{name}.pt", tmp_path / "a")
    policy = Policy.from_checkpoint(tmp_path / "a")
    model = load_official(golden_dir / f"{name}.pt").model
    assert isinstance(model, ActorCritic)
    observations = torch.randn(5, 3, *policy.layout.shape, generator=torch.Generator().manual_seed(4))
    is_first = torch.zeros(5, 3, dtype=torch.bool)
    with torch.no_grad():
        ours = policy.agent.unroll(observations, is_first, policy.initial_state(3))
        theirs = model.unroll(observations, is_first, model.initial_state(3))
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=0)
    torch.testing.assert_close(ours.values, theirs.values, rtol=0, atol=0)
