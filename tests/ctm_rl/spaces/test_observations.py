"""Layouts of observations: how every space is packed, in batches and alone, and which encoder reads it."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text, Tuple
from gymnasium.vector import SyncVectorEnv
from minigrid.core.mission import MissionSpace

from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.checkpoints.schema import check_layout
from ctm_rl.config import PolicyConfig
from ctm_rl.encoders import build_observation_encoder
from ctm_rl.encoders.control import ControlEncoder
from ctm_rl.errors import UserError
from ctm_rl.spaces.observations import NUM_WORDS, Layout, Part, vector_layout

ACTION = Discrete(2)
CELLS = Box(np.zeros((4, 5, 3), np.uint8), np.tile(np.array([10, 5, 3], np.uint8), (4, 5, 1)), dtype=np.uint8)
SPACES: dict[str, tuple[Space, str, tuple[int, ...], type]] = {
    "vector": (Box(-1.0, 1.0, (3,)), "control", (3,), np.float32),
    "number": (Box(-1.0, 1.0, ()), "control", (1,), np.float32),
    "matrix": (Box(-1.0, 1.0, (2, 3)), "control", (2, 3), np.float32),
    "bytes": (Box(0, 255, (5,), np.uint8), "control", (5,), np.uint8),
    "picture": (Box(0, 255, (24, 20, 3), np.uint8), "conv", (24, 20, 3), np.uint8),
    "frames": (Box(0, 255, (4, 16, 16), np.uint8), "conv", (4, 16, 16), np.uint8),
    "grey": (Box(0.0, 1.0, (12, 16)), "conv", (12, 16), np.float32),
    "large": (Box(0, 255, (84, 50, 3), np.uint8), "patches", (84, 50, 3), np.uint8),
    "large frames": (Box(0, 255, (4, 84, 84), np.uint8), "patches", (4, 84, 84), np.uint8),
    "minigrid": (Box(0, 255, (7, 7, 3), np.uint8), "grid", (7, 7, 3), np.uint8),
    "cells": (CELLS, "grid", (4, 5, 3), np.uint8),
    "category": (Discrete(5, start=-2), "categories", (1,), np.uint8),
    "many": (Discrete(500), "categories", (1,), np.float32),
    "categories": (MultiDiscrete(np.array([[3, 2], [4, 300]])), "categories", (4,), np.float32),
    "bits": (MultiBinary((2, 3)), "control", (2, 3), np.uint8),
    "text": (Text(12), "text", (2 * NUM_WORDS,), np.uint8),
}
PARTS = Dict(
    {
        "image": Box(0, 255, (7, 7, 3), np.uint8),
        "direction": Discrete(4),
        "mission": MissionSpace(lambda color: f"go to the {color} ball", [["red", "blue"]]),
        "inner": Tuple((Box(-1.0, 1.0, (2,)), MultiBinary(3))),
    }
)
PARTS_ENCODER = "direction=categories,image=grid,inner.0=control,inner.1=control,mission=text"  # in Dict's order


class Shows(gym.Env[Any, Any]):
    """Returns samples of a space as observations."""

    def __init__(self, space: Space) -> None:
        self.observation_space, self.action_space = space, ACTION

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}


@pytest.mark.parametrize("name", [*SPACES, "parts"])
def test_every_space_packs_equally_in_a_vector_and_alone_and_can_be_encoded(name: str) -> None:
    space = PARTS if name == "parts" else SPACES[name][0]
    config, layout, _ = fit(PolicyConfig(feature_dim=6), space, ACTION)
    if name == "parts":
        assert config.encoder == PARTS_ENCODER
        assert layout.shape == (147 + 1 + 2 * NUM_WORDS + 2 + 3,)
    else:
        assert (config.encoder, layout.shape, layout.dtype) == SPACES[name][1:]
    env = SyncVectorEnv([lambda: Shows(space)] * 3)
    shown, _ = env.reset(seed=[1, 2, 3])
    packed = layout.pack(shown, 3)
    assert (packed.shape, packed.dtype) == ((3, *layout.shape), layout.dtype)
    assert layout.is_batched(shown)
    for row, seed in zip(packed, (1, 2, 3), strict=True):
        single, _ = Shows(space).reset(seed=seed)
        assert not layout.is_batched(single)
        np.testing.assert_array_equal(layout.pack_one(single), row)
    encoder = build_observation_encoder(layout, 6)
    if name == "cells" or name not in ("minigrid", "parts"):  # samples of MiniGrid's space are not all cells there are
        features = encoder(torch.from_numpy(packed))
        assert features.shape == (3, encoder.out_dim)
        features.square().sum().backward()
        assert all(parameter.grad is not None for parameter in encoder.parameters())
        assert not torch.equal(features[0], features[1])
    assert check_layout([dict(part) for part in layout.to_plain()]) == layout


def test_bounds_determine_the_numbers_of_objects_colours_and_states() -> None:
    (part,) = fit(PolicyConfig(), CELLS, ACTION).layout.parts
    assert part.sizes == (11, 6, 4)
    full = Box(0, 255, (9, 9, 3), np.uint8)
    assert fit(PolicyConfig(encoder="grid"), full, ACTION).layout.parts[0].sizes == (11, 6, 4)
    assert fit(PolicyConfig(), full, ACTION).layout.parts[0].encoder == "conv"
    (part,) = fit(PolicyConfig(), Box(0, 255, (7, 7, 3), np.uint8), ACTION).layout.parts
    assert (part.encoder, part.sizes) == ("grid", (11, 6, 4))  # it may be a full view, where directions are states


def test_parts_can_be_left_out_or_read_by_another_encoder() -> None:
    config, layout, _ = fit(PolicyConfig(encoder="mission=skip,image=control,inner.1=skip"), PARTS, ACTION)
    assert [part.name for part in layout.parts] == ["direction", "image", "inner.0"]
    assert layout.parts[1].encoder == "control"
    assert fit(config, PARTS, ACTION) == (config, layout, fit(config, PARTS, ACTION).actions)


@pytest.mark.parametrize(
    ("encoder", "space", "message"),
    [
        (
            "picture=conv",
            PARTS,
            "names the part 'picture', which the observation does not have; it has direction",
        ),
        ("a=control", Box(0.0, 1.0, (2,)), "names the part 'a', which the observation does not have; it has no parts"),
        ("grid", PARTS, "is for an observation without parts; name the parts, such as .*=grid: there are .*image"),
        ("conv", Box(0.0, 1.0, (2,)), "is not supported by encoder conv; use one of control"),
        ("text", Discrete(3), "is not supported by encoder text; use one of categories"),
        ("x=skip", Dict({"x": ACTION}), "skips every part of the observation"),
        ("auto", Dict({"x": gym.spaces.Sequence(ACTION)}), "part 'x' of the observation, .*x=skip leaves a part"),
    ],
)
def test_unsupported_spaces_are_refused_with_the_way_out(encoder: str, space: Space, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(PolicyConfig(encoder=encoder), space, ACTION)


def test_texts_that_differ_in_one_word_or_in_the_order_have_different_codes() -> None:
    torch.manual_seed(0)
    layout = Layout((Part(encoder="text", shape=(), is_byte=True),))
    encoder = build_observation_encoder(layout, 8)
    texts = ["go to the red ball", "go to the blue ball", "the red ball go to", "go to the red ball", ""]
    features = encoder(torch.from_numpy(layout.pack(texts, len(texts))))
    assert torch.equal(features[0], features[3])
    distances = torch.cdist(features[[0, 1, 2, 4]], features[[0, 1, 2, 4]]) + torch.eye(4)
    assert distances.min() > 1e-2


def test_a_missing_part_and_a_wrong_shape_are_refused() -> None:
    layout = fit(PolicyConfig(), Dict({"a": Box(0.0, 1.0, (2,)), "b": ACTION}), ACTION).layout
    with pytest.raises(ValueError, match="has no part 'b'"):
        layout.pack_one({"a": np.zeros(2)})
    with pytest.raises(ValueError, match=r"part 'a' of the observation must have shape \(2,\)"):
        layout.pack_one({"a": np.zeros(3), "b": 0})


def test_normalised_vectors_have_mean_0_and_standard_deviation_1_for_any_batches() -> None:
    torch.manual_seed(0)
    encoder = build_observation_encoder(vector_layout(2), 4, is_normalised=True)
    assert isinstance(encoder, ControlEncoder)
    normaliser = encoder.normaliser
    assert normaliser is not None
    numbers = torch.randn(500, 2) * torch.tensor([3.0, 0.2]) + torch.tensor([100.0, -1.0])
    weights = (torch.arange(500) % 3 > 0).float()
    for piece, weight in zip(numbers.split(130), weights.split(130), strict=True):
        halves = zip(piece.split(70), weight.split(70), strict=True)
        normaliser.observe_(torch.stack([normaliser.moments(*half) for half in halves]).sum(0))
    seen = numbers[weights > 0]
    torch.testing.assert_close(normaliser.mean, seen.mean(0), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(normaliser.variance, seen.var(0, correction=0), rtol=1e-3, atol=1e-5)
    assert int(normaliser.count) == len(seen)
    normal = normaliser(numbers)
    assert normal.abs().max() < 5
