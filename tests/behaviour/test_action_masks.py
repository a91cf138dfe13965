"""Action masks from the environment to the learner, the evaluation and the checkpoint: no illegal action is ever taken.

The environments raise an error at every illegal action; see ``masked_envs``.
"""

import dataclasses
import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import masked_envs
import numpy as np
import pytest
import small_policy
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from masked_envs import Gates
from paths import ROOT, TESTS
from ray.rllib.core.columns import Columns
from tiny_runs import CTM_RL, TINY, budget, comparable

from ctm_rl.agents import CTMModule, RecurrentPPOConfig
from ctm_rl.agents.evaluation.evaluate import evaluate
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.agents.ppo.vector_player import VectorPlayer
from ctm_rl.agents.rllib.columns import to_device
from ctm_rl.agents.rllib.environment import make_env, make_vector_env
from ctm_rl.agents.rllib.module import NUM_STEPS, fields_of
from ctm_rl.agents.rllib.private import local_learner
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.agents.run_directory.directory import config_of, write_config
from ctm_rl.agents.runs.check_environment import try_out
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.main import main
from ctm_rl.config import PolicyConfig
from ctm_rl.envs.wrappers.action_masks import show_action_masks
from ctm_rl.errors import EnvFault, UserError
from ctm_rl.inference.batched_actor import Actor
from ctm_rl.inference.policy import POLICY_ENTRY, Policy, describe
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.action_masks import MASK
from ctm_rl.spaces.actions import Choices

GUIDE = ROOT / "docs" / "guides" / "action-masks.md"
SMALL = small_policy.SMALL
NUM_ENVS, NUM_STEPS_PLAYED = 6, 23
SHOWN = [(form, actions) for form in ("Dict", "Tuple", "Method") for actions in masked_envs.MASKED_SPACES]
SHOWN.remove(("Tuple", "One"))
EVERY = pytest.mark.parametrize(("form", "actions"), SHOWN, ids=["-".join(pair) for pair in SHOWN])
KINDS = pytest.mark.parametrize("kind", ["ctm", "lstm", "gru", "mlp"])


def env_of(form: str, actions: str, **changes: Any) -> EnvConfig:
    return EnvConfig(id=f"masked_envs:masked/{actions}{form}-v0", **changes)


def agent_of(env: Any, config: PolicyConfig = SMALL) -> ActorCritic:
    """An untrained policy for an environment."""
    torch.manual_seed(3)
    return ActorCritic(*fit(config, env.observation_space, env.action_space)).eval()


def sizes_of(agent: ActorCritic) -> tuple[int, ...]:
    assert isinstance(agent.actions, Choices)
    return agent.actions.sizes


# --- playing and learning ---


@EVERY
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_fragment_holds_the_masks_that_were_shown_and_the_scores_of_legal_actions(
    mode: AutoresetMode, form: str, actions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = SyncVectorEnv([lambda: show_action_masks(Gates(form, actions))] * NUM_ENVS, autoreset_mode=mode)
    agent = agent_of(env.envs[0])
    shown: list[np.ndarray] = []
    player = VectorPlayer(env, Actor(agent), torch.Generator().manual_seed(1))
    player.reset(seed=7, position=0)
    play = env.step

    def record(chosen: np.ndarray) -> Any:
        shown.append(np.stack([one.unwrapped.mask for one in env.envs]))  # pyright: ignore
        return play(chosen)

    monkeypatch.setattr(env, "step", record)
    fragment = player.play(NUM_STEPS_PLAYED)
    assert isinstance(agent.actions, Choices)
    assert fragment.masks is not None
    assert fragment.masks.nbytes == fragment.is_valid.size * (2 if actions == "Several" else 1)
    masks = agent.actions.unpack_masks(torch.from_numpy(fragment.masks))
    wanted = np.stack(shown, 1)
    assert fragment.is_valid.all() == (mode == AutoresetMode.SAME_STEP)
    np.testing.assert_array_equal(masks.numpy()[fragment.is_valid], wanted[fragment.is_valid])
    assert masks.numpy()[~fragment.is_valid].all()
    # the learner's view: the same columns, unrolled at once
    state = type(agent.initial_state(1))(**{name: torch.from_numpy(part) for name, part in fragment.state.items()})
    observations = torch.from_numpy(fragment.observations).transpose(0, 1)
    with torch.no_grad():
        unrolled = agent.unroll(observations, torch.from_numpy(fragment.is_first).T, state, masks=masks.transpose(0, 1))
    scored = agent.actions.score(unrolled.logits.transpose(0, 1), torch.from_numpy(fragment.actions))
    np.testing.assert_allclose(scored.logp.numpy(), fragment.logp, atol=1e-5)
    assert (fragment.logp <= 1e-6).all()
    assert (fragment.logp > -20).all()


def experiment_of(env: EnvConfig, **changes: Any) -> ActingExperiment:
    return ActingExperiment(
        name="gates",
        env=env,
        model=dataclasses.replace(SMALL, max_seq_len=5),
        ppo=PPOSettings(num_rollout_steps=10, num_epochs=2, num_minibatches=2),
        budget=BudgetConfig(env_steps=200),
        num_envs_per_env_runner=4,
        seed=7,
    )


def config_for(env: str, **ppo: Any) -> RecurrentPPOConfig:
    """RLlib's way, without an experiment."""
    config = (
        RecurrentPPOConfig()
        .environment(env)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=12)
        .training(num_epochs=2, num_minibatches=2, **ppo)
        .evaluation(evaluation_duration=4)
        .debugging(seed=3, log_level="ERROR")
    )
    spec = config.get_default_rl_module_spec()
    spec.model_config = dataclasses.asdict(SMALL)
    config.rl_module(rl_module_spec=spec)
    return config


@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning:gymnasium")
@pytest.mark.parametrize("env_id", ["masked/SeveralTuple-v0", "masked/OneMethod-v0"])
def test_recurrent_ppo_in_python_plays_learns_and_evaluates_legally(env_id: str) -> None:
    algorithm = config_for(env_id).build_algo()
    try:
        results = [algorithm.train() for _ in range(2)]
        fragment = algorithm.env_runner.sample()  # pyright: ignore
        assert algorithm.learner_group is not None
        module = local_learner(algorithm.learner_group).module["default_policy"].unwrapped()
        assert isinstance(module, CTMModule)
        batch = to_device(fragment.columns(), "cpu")
        with torch.no_grad():
            outputs = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
            scored = module.agent.actions.score(outputs, batch[Columns.ACTIONS])
        np.testing.assert_allclose(scored.logp.numpy(), fragment.logp, atol=1e-5)
        learned = results[-1]["learners"]["default_policy"]
        assert 0 < learned["entropy"] < np.log(30)
        assert abs(learned["kl"]) < 0.5
        assert algorithm.evaluate()["env_runners"]["num_episodes"] >= 4
    finally:
        algorithm.stop()


@KINDS
def test_stock_batches_give_the_outputs_of_our_own(kind: Any) -> None:
    env = show_action_masks(Gates("Tuple", "Several"))
    config = dataclasses.asdict(dataclasses.replace(SMALL, kind=kind))
    torch.manual_seed(3)
    module = CTMModule(observation_space=env.observation_space, action_space=env.action_space, model_config=config)
    env.reset(seed=1)
    seen = [env.unwrapped.look() for _ in range(6)]  # pyright: ignore
    noise = torch.from_numpy(np.stack([one["observations"] for one in seen])).unflatten(0, (2, 3))
    parts = zip(*(one[MASK] for one in seen), strict=True)
    masks = tuple(torch.from_numpy(np.stack(part)).unflatten(0, (2, 3)) for part in parts)
    state = {**fields_of(module.agent.initial_state(2)), NUM_STEPS: torch.zeros(2)}
    batch = {Columns.OBS: {"observations": noise, MASK: masks}, Columns.STATE_IN: state}
    legal = torch.cat(masks, -1).bool()
    with torch.no_grad():
        is_first = torch.zeros(3, 2, dtype=torch.bool)
        plain = module.agent.unroll(noise.transpose(0, 1), is_first, module.agent.initial_state(2))
        for forward in (module.forward_train, module.forward_inference):
            outputs = forward(batch)[Columns.ACTION_DIST_INPUTS]
            torch.testing.assert_close(outputs[legal], plain.logits.transpose(0, 1)[legal])
            assert (outputs[~legal] < -1e7).all()
            drawn = module.action_dist_cls.from_logits(outputs).sample()
            chosen = torch.stack([mask.gather(-1, drawn[..., i, None]) for i, mask in enumerate(masks)])
            assert chosen.all()


# --- certainty and ticks ---


@pytest.mark.parametrize("kind", ["ctm", "lstm", "gru"])
def test_rows_halt_at_the_certainty_of_legal_actions(kind: Any) -> None:
    config = dataclasses.replace(SMALL, kind=kind, num_ticks=5, train_random_ticks=True, policy_gain=30.0)
    agent = agent_of(show_action_masks(Gates("Dict", "One")), config)
    generator = torch.Generator().manual_seed(2)
    observations = torch.randn(40, 3, generator=generator)
    masks = torch.rand(40, 5, generator=generator) < 0.5
    masks[:, 2] = True
    masks[:4] = torch.eye(5, dtype=torch.bool)[1]  # nothing to choose: certain at once
    never = torch.zeros(40, dtype=torch.bool)
    start = agent.initial_state(40)
    with torch.no_grad():
        steps = [agent.unroll(observations[None], never[None], start, [k], masks[None]) for k in range(1, 6)]
    logits = torch.stack([step.logits[0] for step in steps])  # [K, B, A]
    sure = torch.zeros(5, 40, dtype=torch.float64)
    for tick in range(5):
        for row in range(40):
            p = logits[tick, row][masks[row]].double().softmax(-1)
            sure[tick, row] = 1 + (p * p.log()).sum() / np.log(max(len(p), 2))
    middle = float(sure[0, 4:].sort().values[17:19].mean())
    for threshold in (0.0, middle, None):
        acted = Actor(agent).act(observations, never, start, threshold, masks=masks)
        limit = 2.0 if threshold is None else threshold
        wanted = [1 + next((k for k in range(4) if sure[k, row] >= limit), 4) for row in range(40)]
        assert acted.ticks.tolist() == wanted
        of_rows = logits[torch.tensor(wanted) - 1, torch.arange(40)]
        torch.testing.assert_close(acted.logits, of_rows, rtol=1e-4, atol=1e-4)
        if threshold == middle:
            assert acted.ticks[:4].tolist() == [1] * 4
            assert len(set(wanted)) > 1


# --- a trained policy ---


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A run with an untrained policy for an environment with masks."""
    env = env_of(*request.param)
    with_masks = make_env(env)
    agent = agent_of(with_masks)
    with_masks.close()
    write_config(tmp_path, config_of(experiment_of(env)))
    checkpoint.save(tmp_path, 4, {POLICY_ENTRY: describe(agent)})
    return tmp_path


def changed_env(run: Path, env_id: str) -> None:
    """The run's environment becomes another one."""
    file = run / "config.json"
    old = env_of("Dict", "One").id if "OneDict" in file.read_text() else env_of("Method", "Several").id
    file.write_text(file.read_text().replace(old, env_id))


@pytest.mark.parametrize("run", [("Dict", "One"), ("Method", "Several")], indirect=True)
def test_evaluation_acts_legally(run: Path) -> None:
    for deterministic in (False, True):
        result = evaluate(run, episodes=9, deterministic=deterministic, trust=True)
        assert result["episodes"] == 9


@pytest.mark.parametrize("run", [("Dict", "One"), ("Method", "Several")], indirect=True)
def test_a_policy_acts_on_observations_with_their_masks_or_with_a_mask_beside_them(run: Path) -> None:
    policy = Policy.from_checkpoint(run)
    assert isinstance(policy.actions, Choices)
    assert policy.actions.is_masked
    form, actions = ("Dict", "One") if policy.actions.shape == () else ("Method", "Several")
    env = Gates(form, actions)
    observation, _ = env.reset(seed=1)
    state = policy.initial_state()
    for _ in range(60):
        if form == "Dict":
            both = [policy.act(observation, state), policy.act(observation, state, action_mask=env.mask)]
        else:
            mask = gym.Wrapper(env).get_wrapper_attr("action_masks")()
            shown = {"observation": observation, MASK: mask.astype(np.int8)}
            both = [policy.act(observation, state, action_mask=mask), policy.act(shown, state)]
        action, state = both[0]
        observation, _, is_terminated, is_truncated, _ = env.step(action)
        if is_terminated or is_truncated:
            observation, _ = env.reset()
            state = policy.initial_state()
    bare = observation["observations"] if isinstance(observation, dict) else observation
    shown = {"observations": bare} if form == "Dict" else bare
    with pytest.raises(ValueError, match="trained with action masks and needs one with every observation: action_mask"):
        policy.act(shown, state)
    with pytest.raises(ValueError, match="action_mask forbids every"):
        policy.act(shown, state, action_mask=np.zeros(len(env.mask)))
    with pytest.raises(ValueError, match=r"action_mask must have \d entries"):
        policy.act(shown, state, action_mask=np.ones(3))


def test_a_batch_of_masks_is_taken_and_rows_that_have_ended_get_any_action() -> None:
    env = make_vector_env(env_of("Tuple", "Several"), NUM_ENVS)
    agent = agent_of(make_env(env_of("Tuple", "Several")))
    policy, num_ended = Policy(agent), 0
    observations, _ = env.reset(seed=1)
    state, is_first = policy.initial_state(NUM_ENVS), np.ones(NUM_ENVS, bool)
    for _ in range(30):
        actions, state = policy.act(observations, state, is_first=is_first)
        observations, _, terminated, truncated, _ = env.step(actions)
        is_first = terminated | truncated
        num_ended += is_first.sum()
    env.close()
    assert num_ended > NUM_ENVS


def test_a_policy_that_was_trained_without_masks_takes_one_and_numbers_have_none() -> None:
    plain = Gates("None", "One")
    policy = Policy(agent_of(plain))
    mask = np.array([0, 0, 0, 1, 0])
    assert policy.act(np.zeros(3), policy.initial_state(), action_mask=mask)[0] == 2  # the space starts at -1
    assert policy.act(np.zeros(3), policy.initial_state())[0] in plain.action_space
    numbers = gym.make("Pendulum-v1")
    with pytest.raises(ValueError, match="an action mask needs actions that are chosen; this policy's are numbers"):
        acting = Policy(agent_of(numbers))
        acting.act(np.zeros(3), acting.initial_state(), action_mask=mask)


@pytest.mark.parametrize("run", [("Dict", "One"), ("Method", "Several")], indirect=True)
def test_an_environment_without_masks_is_refused_in_one_line(run: Path) -> None:
    without = env_of("None", "One").id
    changed_env(run, without)
    with pytest.raises(UserError, match="it was trained with action masks, and the environment shows none") as caught:
        evaluate(run, episodes=1, trust=True)
    assert "\n" not in str(caught.value)
    assert without in str(caught.value)


@pytest.mark.parametrize("run", [("None", "One")], indirect=True)
def test_a_policy_without_masks_does_not_act_where_they_are_shown(run: Path) -> None:
    file = run / "config.json"
    file.write_text(file.read_text().replace("OneNone", "OneMethod"))
    with pytest.raises(UserError, match=r"1 choice, one of 5, and the environment takes .* with action masks"):
        evaluate(run, episodes=1, trust=True)


# --- environments that do it wrong ---


@pytest.mark.parametrize("form", ["Dict", "Tuple", "Method"])
@pytest.mark.parametrize("is_vector", [False, True])
def test_a_mask_that_forbids_everything_is_a_fault_with_environment_and_step(form: str, is_vector: bool) -> None:
    env = env_of(form, "Several", kwargs={"fault": "nothing"})
    wanted = (
        r"environment masked_envs:masked/Several\w+-v0 returned an observation whose part 'action_mask' forbids every "
        r"option of choice 2, in step 2 of episode \d+ from seed \d+\."
    )
    made = make_vector_env(env, 3) if is_vector else make_env(env)
    agent = agent_of(make_env(env))
    policy = Policy(agent)
    observation, _ = made.reset(seed=4)
    state = policy.initial_state(3 if is_vector else None)
    with pytest.raises(EnvFault, match=wanted):
        for _ in range(40):
            action, state = policy.act(observation, state)
            observation, _, terminated, truncated, _ = made.step(action)
            if not is_vector and (terminated or truncated):
                observation, _ = made.reset()
    made.close()


def test_without_a_guard_the_player_reports_it() -> None:
    env = SyncVectorEnv([lambda: Gates("Dict", "One", "nothing")] * 3)
    player = VectorPlayer(env, Actor(agent_of(env.envs[0])), torch.Generator().manual_seed(1))
    player.reset(seed=7, position=0)
    with pytest.raises(EnvFault, match=r"shows an action_mask that forbids every action, before step 3 of an episode"):
        player.play(20)


def test_a_method_that_returns_another_shape_is_a_fault() -> None:
    env = env_of("Method", "One", kwargs={"fault": "shape"})
    wanted = (
        r"returned from action_masks no mask of its actions: action_mask must have 5 entries, one for each option of "
        r"the actions \(5\); got shape \(4,\), at the start of episode 1 from seed 0"
    )
    assert re.search(wanted, try_out(env) or "")


# --- the card game of the guide ---


class Counted(NamedTuple):
    """What was played in the card game."""

    module: Any
    """The game's module."""
    cards: list[bool]
    """Whether each card was legal."""


@pytest.fixture
def game(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    """The card game of the guide as a file in the current folder; every card that is played is counted."""
    (code,) = re.findall(r'(?ms)^```python title="cards.py"\n(.*?)^```$', GUIDE.read_text())
    (place / "cards.py").write_text(code)
    monkeypatch.syspath_prepend(place)
    counted = Counted(importlib.import_module("cards"), [])
    step = counted.module.Tricks.step

    def count(self: Any, card: int) -> Any:
        result = step(self, card)
        counted.cards.append("illegal" not in result[4])
        return result

    monkeypatch.setattr(counted.module.Tricks, "step", count)
    yield counted
    gym.registry.pop("Tricks-v0")
    del sys.modules["cards"]


GAME = EnvConfig(id="cards:Tricks-v0")
FAST = dataclasses.replace(SMALL, kind="mlp")
UNMASKED = ("--model.encoder", "action_mask=skip")
"""Options of a run that plays the same game without masks."""


def play_cards(config: PolicyConfig, num_envs: int, num_steps: int) -> None:
    """Plays with an untrained policy."""
    env = make_vector_env(GAME, num_envs)
    one = make_env(GAME)
    player = VectorPlayer(env, Actor(agent_of(one, config)), torch.Generator().manual_seed(1))
    player.reset(seed=1, position=0)
    player.play(num_steps)
    env.close()
    one.close()


def test_no_card_is_illegal_and_without_masks_most_are(game: Counted) -> None:
    play_cards(FAST, 32, 80)
    assert len(game.cards) > 2_000
    assert all(game.cards)
    game.cards.clear()
    play_cards(dataclasses.replace(FAST, encoder=UNMASKED[1]), 32, 10)
    assert sum(game.cards) < len(game.cards) / 2


def random_return(module: Any, num_episodes: int) -> float:
    """Mean return of legal cards at random."""
    env, total = gym.make("Tricks-v0"), 0.0
    env.action_space.seed(1)
    for seed in range(num_episodes):
        env.reset(seed=seed)
        is_over = False
        while not is_over:
            mask = env.get_wrapper_attr("action_masks")()
            _, reward, is_over, _, _ = env.step(env.action_space.sample(mask))
            total += float(reward)
    return total / num_episodes


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("ray_session", "place")
@pytest.mark.parametrize(
    "options",
    [
        ("--algorithm", "ppo", "--env.vectorization", "async"),
        ("--algorithm", "ppo", "--env.max-episode-steps", "3", "--model.kind", "gru"),
        ("--algorithm", "ppo", "--model.train-random-ticks", "True"),
        ("--algorithm", "stock-ppo"),
        ("--algorithm", "appo"),
        ("--algorithm", "impala"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("env", ["SeveralTuple", "OneMethod"])
def test_runs_of_every_kind_act_legally_and_go_on(env: str, options: tuple[str, ...]) -> None:
    run = ("--env", f"masked_envs:masked/{env}-v0", *TINY, *options)
    assert main(["train", *run, "--budget.env-steps", "100", "--run-dir", "a"]) == 0
    assert main(["resume", "a", "--budget.env-steps", "200"]) == 0
    assert Policy.from_checkpoint("a").actions.is_masked  # pyright: ignore[reportAttributeAccessIssue]
    curve = ("--halt-curve",) if "--model.train-random-ticks" in options else ()
    assert main(["evaluate", "a", "--episodes", "5", *curve]) == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_runners_that_collect_ahead_act_legally_and_go_on(tmp_path: Path) -> None:
    # processes of its own, which import the environment from the current folder
    shutil.copy(TESTS / "helpers" / "masked_envs.py", tmp_path)
    run = ("--env", "masked_envs:masked/SeveralMethod-v0", *TINY, "--num-env-runners", "2", "--ppo.collect-ahead")
    for command in (
        ("train", *run, "--budget.env-steps", "100", "--run-dir", "a"),
        ("resume", "a", "--budget.env-steps", "200"),
        ("evaluate", "a", "--episodes", "5"),
    ):
        subprocess.run([*CTM_RL, *command], cwd=tmp_path, check=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("ray_session", "place")
def test_a_resumed_run_is_the_run_that_was_not_interrupted() -> None:
    run = ("--env", "masked_envs:masked/SeveralMethod-v0", *TINY, "--exact-resume")
    every = ("--checkpoint-iterations", "2")
    assert main(["train", *run, *every, "--budget.env-steps", budget(4), "--run-dir", "whole"]) == 0
    assert main(["train", *run, *every, "--budget.env-steps", budget(2), "--run-dir", "parts"]) == 0
    assert main(["resume", "parts", "--budget.env-steps", budget(4)]) == 0
    assert comparable("whole") == comparable("parts")


@pytest.mark.usefixtures("ray_session", "place")
def test_a_run_does_not_go_on_where_there_are_no_masks_any_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gym.register("Changing-v0", lambda **kwargs: Gates(**kwargs), kwargs={"form": "Dict", "actions": "One"})
    try:
        run = ("--env", "Changing-v0", *TINY, "--run-dir", "a")
        assert main(["train", *run, "--budget.env-steps", budget(1)]) == 0
        gym.registry["Changing-v0"].kwargs["form"] = "None"
        capsys.readouterr()
        assert main(["resume", "a", "--budget.env-steps", budget(2)]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert "acts by 1 choice, one of 5, with action masks, and the environment now takes 1 choice, one of 5" in line
    finally:
        gym.registry.pop("Changing-v0")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_the_card_game_is_learned_with_masks_and_not_without(game: Counted, seed: str) -> None:
    baseline = random_return(game.module, 3_000)
    assert 0.0 < baseline < 0.5
    for run, options in (("masked", ()), ("unmasked", UNMASKED)):
        budget = ("--budget.env-steps", "100000", "--seed", seed, "--run-dir", run)
        assert main(["train", "--env", GAME.id, "--model.kind", "lstm", *budget, *options]) == 0
    game.cards.clear()
    masked = evaluate("masked", episodes=3_400)
    assert len(game.cards) == 20_400
    assert all(game.cards)
    assert masked["episode_return_mean"] > baseline + 0.7
    game.cards.clear()
    unmasked = evaluate("unmasked", episodes=3_400)
    assert not all(game.cards)
    assert unmasked["episode_return_mean"] < baseline
