"""Checkpoints of RLlib with our modules: opened by the files in our own format, and never by unpickling."""

import dataclasses
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from ctm_rl import AnswerConfig, Policy, PolicyConfig, load_model
from ctm_rl.agents import AnsweringModule, CTMModule, LearningSettings, RecurrentPPOConfig, SupervisedConfig
from ctm_rl.agents.bandit.config import BanditConfig
from ctm_rl.agents.bandit.module import BanditModule
from ctm_rl.checkpoints.store import CheckpointError

SIZES: dict[str, Any] = {"num_neurons": 12, "num_output_sync_neurons": 4, "history_length": 3, "num_ticks": 2}
POLICY = PolicyConfig(**SIZES, feature_dim=6, head_dims=(5,), max_seq_len=4)
MODEL = AnswerConfig(
    **SIZES, encoder="parity", num_groups=6, num_classes=2, input_dim=6, num_action_sync_neurons=4, feature_dim=8,
    num_heads=2,
)  # fmt: skip
SPACES = Box(-1.0, 1.0, (4,)), Discrete(2)
POLICY_SPEC = RLModuleSpec(
    module_class=CTMModule,
    model_config=dataclasses.asdict(POLICY),
    observation_space=SPACES[0],
    action_space=SPACES[1],
)
MODULE = Path("learner_group", "learner", "rl_module")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def nothing_is_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a pickle would be read."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a pickle was read")

    for place in (pickle, torch):
        monkeypatch.setattr(place, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)


def saved(place: Path, *names: str) -> Any:
    """Modules of ours, saved as an algorithm does; returns them."""
    modules = MultiRLModuleSpec(rl_module_specs=dict.fromkeys(names, POLICY_SPEC)).build()
    modules.save_to_path(str(place / MODULE))
    (place / "rllib_checkpoint.json").write_text("{}")
    return modules


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value.cpu(), rtol=0, atol=0)


def test_a_policy_is_read_without_pickles_and_rllib_reads_the_same_directory(tmp_path: Path, request: Any) -> None:
    modules = saved(tmp_path, "default_policy")
    again: Any = MultiRLModuleSpec(rl_module_specs={"default_policy": POLICY_SPEC}).build()
    again.restore_from_path(str(tmp_path / MODULE))
    assert_same_weights(modules["default_policy"], again["default_policy"])
    request.getfixturevalue("nothing_is_unpickled")
    for place in (tmp_path, tmp_path / MODULE, tmp_path / MODULE / "default_policy"):
        policy = Policy.from_checkpoint(place)
        assert policy.iteration == 0
        assert_same_weights(modules["default_policy"].agent, policy.agent)
    with pytest.raises(CheckpointError, match="load_model loads a model that answers"):
        Policy.from_checkpoint(save_model(tmp_path / "other"))


def save_model(place: Path) -> Path:
    """A model that answers, as a module alone."""
    spec = RLModuleSpec(
        module_class=AnsweringModule,
        model_config=dataclasses.asdict(MODEL),
        observation_space=SPACES[0],
        action_space=SPACES[1],
    )
    spec.build().save_to_path(str(place))
    return place


def test_a_state_that_is_given_is_what_is_saved(tmp_path: Path) -> None:
    module: Any = POLICY_SPEC.build()
    state = {name: value + 1 if value.dtype.kind == "f" else value for name, value in module.get_state().items()}
    module.save_to_path(str(tmp_path), state=state)
    agent = Policy.from_checkpoint(tmp_path).agent
    for name, value in module.agent.state_dict().items():
        torch.testing.assert_close(agent.state_dict()[name], value + 1 if value.is_floating_point() else value)


@pytest.mark.usefixtures("nothing_is_unpickled")
def test_checkpoints_that_hold_nothing_of_ours_are_refused_in_one_line(tmp_path: Path) -> None:
    both = tmp_path / "both"
    saved(both, "one", "two")
    with pytest.raises(CheckpointError, match=r"holds several modules; .*: .*rl_module/one, .*rl_module/two\.$"):
        Policy.from_checkpoint(both)
    assert Policy.from_checkpoint(both / MODULE / "two").agent.config.num_neurons == 12
    shutil.rmtree(both / MODULE / "one" / "ctm_rl")
    shutil.rmtree(both / MODULE / "two" / "ctm_rl")
    for load in (Policy.from_checkpoint, load_model):
        with pytest.raises(CheckpointError, match="its other files are pickles, which are never read") as refused:
            load(both)
        assert "\n" not in str(refused.value)
    # a file that was changed is no more used than in a run's own checkpoint
    damaged = save_model(tmp_path / "damaged")
    (damaged / "ctm_rl" / "tensors.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"tensors.safetensors has 0 bytes instead of"):
        load_model(damaged)


def algorithms() -> dict[str, Any]:
    """Configurations of all algorithms with modules of ours."""
    policy = RLModuleSpec(module_class=CTMModule, model_config=dataclasses.asdict(POLICY))
    acting = {
        "ppo": RecurrentPPOConfig().training(num_minibatches=1),
        "stock-ppo": PPOConfig().training(minibatch_size=8, num_epochs=1, train_batch_size_per_learner=16),
        "appo": APPOConfig().training(train_batch_size_per_learner=16),
        "two learners": RecurrentPPOConfig()
        .learners(num_learners=2, num_cpus_per_learner=0.5)
        .training(num_minibatches=1),
    }
    for config in acting.values():
        config.environment("CartPole-v1").rl_module(rl_module_spec=policy)
        config.env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=8)
    answering = {"supervised": (SupervisedConfig(), AnsweringModule), "bandit": (BanditConfig(), BanditModule)}
    for config, module in answering.values():
        config.environment("ctm_rl.envs:ctm_rl/Parity-v0", env_config={"length": 6})
        config.training(learning=LearningSettings(batch_size=4, num_steps_per_iteration=1))
        config.rl_module(rl_module_spec=RLModuleSpec(module_class=module, model_config=dataclasses.asdict(MODEL)))
    return {**acting, **{name: config for name, (config, _) in answering.items()}}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("name", ["ppo", *(pytest.param(name, marks=pytest.mark.slow) for name in [*algorithms()][1:])])
def test_what_an_algorithm_saves_is_opened(name: str, tmp_path: Path) -> None:
    algorithm = algorithms()[name].build_algo()
    try:
        algorithm.train()
        places = map(
            Path, (algorithm.save_to_path(str(tmp_path / "a")), algorithm.save(str(tmp_path / "b")).checkpoint.path)
        )
    finally:
        algorithm.stop()
    for place in places:
        # what RLlib has saved at the same time: the learners of APPO learn on meanwhile
        weights = pickle.loads((place / MODULE / "default_policy" / "module_state.pkl").read_bytes())
        is_policy = name not in ("supervised", "bandit")
        prefix, network = (
            ("agent.", Policy.from_checkpoint(place).agent) if is_policy else ("model.", load_model(place))
        )
        for key, value in network.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), weights[f"{prefix}{key}"])
