"""Steps and references of tasks, by name or by what a name begins with."""

import pytest

from ctm_rl.agents.bench.learning.sb3_settings import settings_of
from ctm_rl.agents.bench.learning.tasks import arguments_of, env_steps_of, reference_of


def test_a_task_has_its_own_numbers_or_those_of_its_family_or_none() -> None:
    assert (env_steps_of("minigrid-keycorridor", 7), reference_of("minigrid-keycorridor")) == (500_000, 0.949)
    assert (env_steps_of("cartpole", 7), reference_of("cartpole")) == (7, 500.0)
    assert reference_of("popgym-anything") == 1.0
    assert reference_of("minigrid-memory") == 1.0
    assert (env_steps_of("cartpole-window", 7), reference_of("cartpole-window")) == (7, None)
    assert reference_of("popgym:popgym-RepeatFirstEasy-v0") == 1.0


@pytest.mark.parametrize("task", ["MyEnv-v0", "popgym-RepeatFirstEasy-v0", "my_package.envs:MyEnv-v12", "ALE/Pong-v5"])
def test_an_environment_is_given_by_its_id(task: str) -> None:
    assert arguments_of(task) == ["--env", task]


@pytest.mark.parametrize("task", ["cartpole", "minigrid-doorkey", "my_package:my_experiment", "my-v2-experiment"])
def test_an_experiment_is_given_by_its_name(task: str) -> None:
    assert arguments_of(task) == [task]


@pytest.mark.parametrize("task", ["cartpole", "pendulum-no-velocity", "mountaincar-no-velocity", "acrobot", "other"])
def test_minibatches_of_sb3_divide_an_iteration(task: str) -> None:
    settings = settings_of(task)
    assert settings.n_envs * settings.n_steps % settings.batch_size == 0
