"""What users of RLlib expect of our configurations and algorithms, as of RLlib's own."""

from typing import Any

import pytest

from ctm_rl.agents import RecurrentPPOConfig, SupervisedConfig
from ctm_rl.agents.bandit.config import BanditConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def small() -> RecurrentPPOConfig:
    """A configuration that learns from 6 x 16 steps."""
    return (
        RecurrentPPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=6, rollout_fragment_length=16)
        .training(num_minibatches=2, num_epochs=1)
        .rl_module(model_config={"num_neurons": 9, "feature_dim": 6, "num_output_sync_neurons": 5})
    )


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("unit", "duration"), [("episodes", 3), ("timesteps", 150)])
def test_evaluate_needs_no_interval_and_leaves_the_environments_of_training(unit: str, duration: int) -> None:
    config = small().evaluation(evaluation_duration=duration, evaluation_duration_unit=unit).debugging(seed=1)
    algorithm: Any = config.build_algo()
    try:
        algorithm.train()
        before = algorithm.env_runner.longest_episode
        found = algorithm.evaluate()["env_runners"]
        assert found["episode_return_mean"] > 0
        assert found["num_episodes"] >= (duration if unit == "episodes" else 1)
        assert algorithm.env_runner.longest_episode == before > 0
        assert "env_runners" in algorithm.evaluate()
        algorithm.train()
    finally:
        algorithm.stop()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"train_batch_size_per_learner": 2000}, "train_batch_size_per_learner 2000 has no effect .* make 96;"),
        ({"train_batch_size_per_learner": 192}, "train_batch_size_per_learner 192 has no effect .* make 96;"),
        ({"train_batch_size": 500}, "train_batch_size 500 has no effect .* make 96;"),
    ],
)
def test_a_batch_size_beside_the_length_of_fragments_is_refused(batch: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        small().training(**batch).validate()
    assert "\n" not in str(caught.value)


def test_a_batch_size_determines_the_length_of_fragments_if_these_are_auto() -> None:
    config = small().env_runners(rollout_fragment_length="auto").training(train_batch_size_per_learner=60)
    config.validate()
    assert config.get_rollout_fragment_length() == 10
    with pytest.raises(ValueError, match="must be a multiple of the 6 environments"):
        config.training(train_batch_size_per_learner=61).validate()
    small().training(train_batch_size_per_learner=96).validate()


@pytest.mark.parametrize("kind", [RecurrentPPOConfig, SupervisedConfig, BanditConfig])
def test_the_old_api_stack_is_refused_in_one_line(kind: Any) -> None:
    config = kind().environment("CartPole-v1")
    config.api_stack(enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False)
    with pytest.raises(ValueError, match=rf"^{kind.__name__} needs RLlib's new API stack; leave api_stack") as caught:
        config.validate()
    assert "\n" not in str(caught.value)
