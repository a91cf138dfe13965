"""Experiments: complete, checked, and the same after a journey through JSON."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.agents.experiments.serialise import from_json, to_json
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.agents.ppo.config import RecurrentPPOConfig
from ctm_rl.agents.rllib.environment import make_env
from ctm_rl.config import PolicyConfig
from ctm_rl.configs import describe, for_env, load, names
from ctm_rl.configs.cartpole import cartpole, cartpole_window

ALL = [*(load(name) for name in names()), for_env("Acrobot-v1")]
ACTING = [experiment for experiment in ALL if isinstance(experiment, ActingExperiment)]


@pytest.mark.parametrize("experiment", ACTING, ids=lambda experiment: experiment.name)
def test_every_experiment_that_acts_builds_and_its_environment_makes_one_step(experiment: ActingExperiment) -> None:
    env = make_env(experiment.env)
    env.reset(seed=3)
    observation = env.step(env.action_space.sample())[0]
    assert env.observation_space.contains(observation)
    env.close()


@pytest.mark.parametrize("experiment", ALL, ids=lambda experiment: experiment.name)
def test_an_experiment_is_read_back_from_json(experiment: ActingExperiment) -> None:
    assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment


def test_every_experiment_is_described_in_one_line() -> None:
    for name in names():
        assert 20 < len(describe(name)) < 100
        assert load(name).name == name


def test_the_windowed_experiment_differs_in_the_window_alone() -> None:
    plain, windowed = cartpole(), cartpole_window()
    assert windowed.model.sync_window
    assert dataclasses.replace(plain.model, sync_window=True) == windowed.model
    assert dataclasses.replace(windowed, name=plain.name, model=plain.model) == plain


@pytest.mark.parametrize("experiment", ACTING, ids=lambda experiment: experiment.name)
def test_all_but_the_published_experiments_have_what_was_found_to_learn_fastest(experiment: ActingExperiment) -> None:
    is_published = experiment.name.endswith("-paper")
    model = experiment.model
    parts = model.normalize_observations, model.use_first_order, model.start_decay_rate
    assert parts == ((False, False, 0.0) if is_published else (True, True, 1.0))
    assert model.use_long_memory == (experiment.name == "popgym-repeat-first-easy")
    assert experiment.ppo.is_lr_annealed
    is_small_grid = experiment.name.startswith("minigrid-")
    assert model.critic == ("shared" if is_published or is_small_grid else "own")
    if not is_published:
        recommended = RecurrentPPOConfig().get_default_rl_module_spec().model_config
        assert recommended == dataclasses.asdict(PolicyConfig.recommended())


def test_an_unknown_environment_has_all_that_is_recommended() -> None:
    assert for_env("CartPole-v1").ppo == dataclasses.replace(PPOSettings.recommended(), is_lr_annealed=True)
    assert RecurrentPPOConfig().ppo == PPOSettings.recommended()
    assert PPOSettings.recommended().normalize_rewards
    assert for_env("CartPole-v1").model == PolicyConfig.recommended()


def test_any_environment_has_a_name_for_its_directory() -> None:
    assert for_env("CartPole-v1").name == "cartpole-v1"
    assert for_env("some.module:ALE/Pong-v5").name == "ale-pong-v5"
    assert for_env("::").name == "env"


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("cartpole-windw", "did you mean cartpole-window?"),
        ("CartPole-v1", "an environment is given as --env CartPole-v1"),
        ("zzz", "any environment can be given as --env ID"),
    ],
)
def test_an_unknown_experiment_is_answered_with_what_was_probably_meant(name: str, guess: str) -> None:
    with pytest.raises(ValueError) as caught:
        load(name)
    assert str(caught.value) == f"unknown experiment {name!r}: {guess} (all are listed by ctm-rl list)."


def _set(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    """Changes one field of a configuration."""

    def change(values: dict[str, Any]) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("sead", to=1), r"sead is not a field of the experiment; did you mean seed\?"),
        (_set("model", "num_tick", to=1), r"model.num_tick is not a field of the model; did you mean num_ticks\?"),
        (_set("seed", to="1"), "seed must be a whole number, got '1'"),
        (_set("seed", to=True), "seed must be a whole number, got True"),
        (_set("seed", to=1.5), "seed must be a whole number, got 1.5"),
        (_set("seed", to=1e400), "seed must be a whole number, got inf"),
        (_set("seed", to=-1), "seed must be at least 0"),
        (_set("seed", to=2**31), "seed must be at least 0 and at most 2147483647"),
        (_set("model", to=3), "model must be a JSON object of fields, got 3"),
        (_set("model", "kind", to="rnn"), "model.kind must be one of ctm, lstm, gru, mlp; got 'rnn'"),
        (_set("model", "critic", to="mine"), "model.critic must be one of shared, detached.*; got 'mine'"),
        (_set("model", "sync_window", to=1), "model.sync_window must be true or false, got 1"),
        (_set("model", "num_ticks", to=0), "model.num_ticks must be at least 1, got 0"),
        (_set("model", "head_dims", to=64), "model.head_dims must be a list, got 64"),
        (_set("model", "head_dims", to=[64, "x"]), r"model.head_dims\[1\] must be a whole number"),
        (_set("ppo", "lr", to=0), "ppo.lr must be above 0"),
        (_set("ppo", "lr_warmup_steps", to=-1), "ppo.lr_warmup_steps must be at least 0"),
        (_set("ppo", "lr", to=float("nan")), "ppo.lr must be above 0, got nan"),
        (_set("ppo", "gamma", to=1.5), "ppo.gamma must be at least 0 and at most 1"),
        (_set("ppo", "num_minibatches", to=3), r"ppo.num_minibatches 3 x 1 learners must divide .* work: 30 or 33\."),
        (_set("ppo", "value_clip", to=0), "ppo.value_clip must be above 0"),
        (_set("ppo", "target_kl", to=-1.0), "ppo.target_kl must be above 0"),
        (_set("ppo", "noise_correlation", to=1), "ppo.noise_correlation must be at least 0 and below 1, got 1"),
        (_set("ppo", "lr_kl_target", to=0), "ppo.lr_kl_target must be above 0"),
        (_set("ppo", "adam_epsilon", to=0), "ppo.adam_epsilon must be above 0"),
        (_set("ppo", "entropy_coefficient_final", to=-1), "ppo.entropy_coefficient_final must be at least 0"),
        (_set("algorithm", to="dqn"), "algorithm must be one of ppo, stock-ppo, appo, impala; got 'dqn'"),
        (_set("env", "vectorization", to="many"), "env.vectorization must be one of auto, sync, async"),
        (_set("budget", "env_steps", to=0), "budget.env_steps must be at least 1"),
        (_set("budget", "minutes", to=-1), "budget.minutes must be above 0"),
        (_set("env", "id", to=" "), "env.id must name an environment"),
        (_set("eval", "every", to=0), "eval.every must be at least 1, got 0"),
        (_set("eval", "episodes", to=5), r"eval.episodes has no effect without eval.every, .*; set it, such as to 10"),
        (_set("eval", "kwargs", to={"a": 1}), "eval.kwargs has no effect without eval.every"),
        (_set("keep_checkpoints", to=0), "keep_checkpoints must be at least 1, got 0"),
        (_set("env", "max_episode_steps", to=0), "env.max_episode_steps must be at least 1"),
        (_set("name", to="../up"), "name must be letters, digits"),
        (_set("run_dir", to=""), "run_dir must name a directory"),
        (_set("address", to="ray://somewhere:1"), "address must be auto or host:port"),
        (_set("num_learners", to=5), r"4 x 5 learners must divide the 32 environments .* work: 20 or 40\."),
        (_set("num_gpus_per_learner", to=2), "num_gpus_per_learner must be at least 0 and at most 1"),
        (_set("num_threads", to=0), "num_threads must be at least 1"),
        (_set("num_threads", to=50_000), "num_threads must be at least 1 and at most 1024, got 50000"),
        (_set("num_env_runners", to=10**9), "num_env_runners must be at least 0 and at most 10000"),
        (_set("num_learners", to=10**7), "num_learners must be at least 0 and at most 10000"),
        (_set("checkpoint_minutes", to=0), "checkpoint_minutes must be above 0"),
        (lambda values: values.pop("env"), "env is missing"),
        (lambda values: values["env"].pop("id"), "env.id is missing"),
    ],
)
def test_a_wrong_configuration_is_refused_by_the_name_of_its_field(
    change: Callable[[dict[str, Any]], None], message: str
) -> None:
    values = to_json(
        ActingExperiment(
            name="example",
            env=EnvConfig(id="CartPole-v1"),
            model=PolicyConfig(),
            ppo=PPOSettings(num_rollout_steps=64),
            budget=BudgetConfig(),
            num_envs_per_env_runner=32,
        )
    )
    change(values)
    with pytest.raises(ValueError, match=message) as caught:
        from_json(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"is_clip_annealed": True}, "ppo.is_clip_annealed has no effect with algorithm stock-ppo"),
        ({"value_clip": 0.2}, "ppo.value_clip has no effect with algorithm stock-ppo"),
        ({"noise_correlation": 0.5}, "ppo.noise_correlation has no effect with algorithm stock-ppo"),
        ({"lr_kl_target": 0.01}, "ppo.lr_kl_target has no effect with algorithm stock-ppo"),
        ({"target_kl": 0.02}, "ppo.target_kl has no effect"),
        ({"normalize_rewards": True}, "ppo.normalize_rewards has no effect"),
        ({"adam_epsilon": 1e-8}, "ppo.adam_epsilon has no effect"),
        ({"num_minibatches": 3}, "ppo.num_minibatches must divide the 2048 steps"),
        ({}, "num_learners must divide the 32 environments"),
    ],
)
def test_the_stock_algorithm_refuses_what_it_cannot_do(settings: dict[str, Any], message: str) -> None:
    ppo = PPOSettings(num_rollout_steps=64, **settings)
    env = EnvConfig(id="CartPole-v1")
    with pytest.raises(ValueError, match=message):
        ActingExperiment(name="a", env=env, ppo=ppo, algorithm="stock-ppo", num_learners=5)


@pytest.mark.parametrize(
    ("algorithm", "settings", "run", "message"),
    [
        ("appo", {"target_kl": 0.02}, {}, "ppo.target_kl has no effect with algorithm appo; leave it out"),
        ("appo", {"gae_lambda": 0.9}, {}, "ppo.gae_lambda has no effect with algorithm appo"),
        ("impala", {"gae_lambda": 1.0}, {}, "ppo.gae_lambda has no effect with algorithm impala"),
        ("impala", {"clip": 0.1}, {}, "ppo.clip has no effect with algorithm impala"),
        ("appo", {"num_minibatches": 3}, {}, r"ppo.num_minibatches 3 x 1 learners must divide .* work: 30 or 33\."),
        ("impala", {}, {"num_learners": 2}, "num_learners must divide the 1 environment runners .* impala, got 2"),
        ("appo", {}, {"num_learners": 2, "num_env_runners": 3}, "num_learners must divide the 3 environment runners"),
    ],
)
def test_an_asynchronous_algorithm_refuses_what_it_cannot_do(
    algorithm: Any, settings: dict[str, Any], run: dict[str, Any], message: str
) -> None:
    env = EnvConfig(id="CartPole-v1")
    with pytest.raises(ValueError, match=message) as caught:
        ActingExperiment(name="a", env=env, ppo=PPOSettings(**settings), algorithm=algorithm, **run)
    assert "\n" not in str(caught.value)
    ActingExperiment(
        name="a", env=env, ppo=PPOSettings(clip=0.2), algorithm=algorithm, num_learners=2, num_env_runners=4
    )


@pytest.mark.parametrize("algorithm", ["stock-ppo", "appo", "impala"])
def test_other_algorithms_refuse_random_ticks(algorithm: Any) -> None:
    model = PolicyConfig(train_random_ticks=True)
    with pytest.raises(ValueError, match=f"model.train_random_ticks is not for algorithm {algorithm}") as caught:
        ActingExperiment(name="a", env=EnvConfig(id="CartPole-v1"), model=model, algorithm=algorithm)
    assert "\n" not in str(caught.value)


def test_fields_left_out_keep_their_defaults() -> None:
    assert from_json({"name": "a", "env": {"id": "b"}}) == ActingExperiment(name="a", env=EnvConfig(id="b"))


def test_a_number_larger_than_any_float_does_not_crash() -> None:
    experiment = from_json({"name": "a", "env": {"id": "b"}, "ppo": {"lr": 10**400}})
    assert isinstance(experiment, ActingExperiment)
    assert experiment.ppo.lr == 1e300


def test_numbers_without_a_fraction_are_accepted_as_whole_numbers() -> None:
    experiment = from_json({"name": "a", "env": {"id": "b"}, "seed": 1e6})
    assert (experiment.seed, type(experiment.seed)) == (1_000_000, int)


def test_whole_numbers_are_accepted_as_numbers() -> None:
    experiment = from_json({"name": "a", "env": {"id": "b"}, "ppo": {"lr": 1}})
    assert isinstance(experiment, ActingExperiment)
    assert experiment.ppo.lr == 1.0
    assert isinstance(experiment.ppo.lr, float)
