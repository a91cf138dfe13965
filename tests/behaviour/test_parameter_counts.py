"""The published sizes give the published numbers of parameters, exactly."""

from typing import Any

import pytest
import torch

from ctm_rl.config import AnswerConfig, PolicyConfig
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.answering import build_model
from ctm_rl.spaces.actions import Choices
from ctm_rl.spaces.observations import Layout, grid_layout, vector_layout

RL: dict[str, dict[str, Any]] = {
    "cartpole": {"num_neurons": 128, "feature_dim": 128, "num_output_sync_neurons": 16, "nlm_hidden_dim": 4},
    "acrobot": {"num_neurons": 256, "feature_dim": 64, "num_output_sync_neurons": 16, "nlm_hidden_dim": 4},
    "fourrooms": {"num_neurons": 512, "feature_dim": 128, "num_output_sync_neurons": 32, "nlm_hidden_dim": 16},
}
SPACES: dict[str, tuple[Layout, int]] = {
    "cartpole": (vector_layout(4), 2),
    "acrobot": (vector_layout(6), 3),
    "fourrooms": (grid_layout(7, 7), 7),
}
PARITY: dict[str, Any] = {
    "num_neurons": 1024, "feature_dim": 512, "num_heads": 8, "num_output_sync_neurons": 32,
    "num_action_sync_neurons": 32, "pairing": "random", "nlm_hidden_dim": 16, "encoder": "parity",
    "positions": "rotational-1d", "num_groups": 64, "num_classes": 2,
}  # fmt: skip
CIFAR: dict[str, Any] = {
    "num_neurons": 256, "feature_dim": 64, "num_heads": 16, "num_output_sync_neurons": 256,
    "num_action_sync_neurons": 512, "pairing": "random-pairing", "synapse_depth": 5, "nlm_hidden_dim": 64,
    "history_length": 15, "encoder": "resnet18-1", "baseline_dim": 256, "num_baseline_layers": 2,
}  # fmt: skip
MAZE: dict[str, Any] = {
    "num_neurons": 2048, "feature_dim": 512, "num_heads": 16, "num_output_sync_neurons": 64,
    "num_action_sync_neurons": 32, "synapse_depth": 8, "nlm_hidden_dim": 32, "history_length": 25,
    "encoder": "resnet34-2", "num_groups": 100, "num_classes": 5,
}  # fmt: skip
SORTING: dict[str, Any] = {
    "num_neurons": 512, "input_dim": 30, "num_heads": 0, "num_output_sync_neurons": 32, "pairing": "random-pairing",
    "synapse_depth": 4, "nlm_hidden_dim": 4, "history_length": 25, "num_classes": 31,
}  # fmt: skip
IMAGENET: dict[str, Any] = {
    "num_neurons": 4096, "feature_dim": 1024, "num_heads": 16, "num_output_sync_neurons": 8196,
    "num_action_sync_neurons": 2048, "num_self_pairs": 32, "pairing": "random-pairing", "synapse_depth": 8,
    "nlm_hidden_dim": 64, "history_length": 25, "encoder": "resnet152-4", "num_classes": 1000,
}  # fmt: skip


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("task", "history_length", "expected"),
    [("cartpole", 10, 175_437), ("cartpole", 20, 188_237), ("cartpole", 50, 226_637),
     ("acrobot", 5, 350_094), ("acrobot", 10, 362_894), ("acrobot", 25, 401_294),
     ("fourrooms", 10, 7_802_690), ("fourrooms", 20, 7_976_770)],
)  # fmt: skip
def test_published_agents_have_their_number_of_parameters(task: str, history_length: int, expected: int) -> None:
    layout, num_actions = SPACES[task]
    config = PolicyConfig(**RL[task], history_length=history_length, sync_window=True)
    assert count(ActorCritic(config, layout, Choices(sizes=(num_actions,)))) == expected


@pytest.mark.parametrize(
    ("task", "width", "expected"),
    [("cartpole", 118, 175_855), ("cartpole", 126, 188_863), ("cartpole", 148, 227_275),
     ("acrobot", 243, 350_118), ("acrobot", 249, 364_290), ("acrobot", 265, 403_490),
     ("fourrooms", 294, 7_813_692), ("fourrooms", 300, 7_979_304)],
)  # fmt: skip
def test_published_lstm_agents_have_their_number_of_parameters(task: str, width: int, expected: int) -> None:
    layout, num_actions = SPACES[task]
    config = PolicyConfig(**RL[task], kind="lstm", baseline_dim=width)
    assert count(ActorCritic(config, layout, Choices(sizes=(num_actions,)))) == expected


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [({**PARITY, "history_length": 1}, 4_908_706), ({**PARITY, "history_length": 5}, 5_043_874),
     ({**PARITY, "history_length": 10}, 5_212_834), ({**PARITY, "history_length": 25}, 5_719_714),
     ({**PARITY, "history_length": 50}, 6_564_514), (MAZE, 31_998_330), (CIFAR, 1_032_648),
     ({**CIFAR, "kind": "lstm"}, 1_046_870), ({**CIFAR, "kind": "mlp"}, 169_046), (SORTING, 897_197),
     (IMAGENET, 187_110_142),
     ({**IMAGENET, "encoder": "resnet140-4"}, 185_989_886)],
)  # fmt: skip
def test_published_models_have_their_number_of_parameters(sizes: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        assert count(build_model(AnswerConfig(**sizes))) == expected
