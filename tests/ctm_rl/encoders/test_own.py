"""Encoders of the user's: what they are given, what they must return, and that models with them are like any other."""

import dataclasses
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Space
from own_modules import own_modules
from small_policy import SMALL

from ctm_rl import config as configuration
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.experiments.answering import AnsweringExperiment, TaskConfig
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.agents.runs.build_algorithm import build_algorithm_config
from ctm_rl.agents.supervised.module import fit_answer_config
from ctm_rl.config import AnswerConfig
from ctm_rl.encoders import normalised_vectors, own
from ctm_rl.encoders.own import OwnEncoder
from ctm_rl.errors import CodeError, UserError
from ctm_rl.inference import load_model as loading
from ctm_rl.inference import policy as policies
from ctm_rl.inference.batched_actor import Actor
from ctm_rl.inference.policy import Policy
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.answering import build_model
from ctm_rl.spaces.observations import Part

VECTOR = Box(-1, 1, (3,))
BOTH = Dict(image=Box(0, 255, (12, 12, 3), np.uint8), kind=Discrete(4, start=2), vector=VECTOR)
PLACE = Path("run/checkpoints/iteration-000002")
ANSWERING = AnswerConfig(
    encoder="own_nets:Map",
    num_neurons=16,
    history_length=3,
    num_output_sync_neurons=4,
    num_action_sync_neurons=4,
    feature_dim=6,
    num_heads=2,
    num_classes=5,
)


@pytest.fixture(autouse=True)
def folder(place: Path) -> Iterator[Path]:
    with own_modules(place):
        yield place


def agent_of(encoder: str, space: Space, **changes: Any) -> ActorCritic:
    """A policy fitted to a space."""
    torch.manual_seed(3)
    config = dataclasses.replace(SMALL, encoder=encoder, **changes)
    return ActorCritic(*fit(config, space, MultiDiscrete([3, 2])))


@pytest.mark.parametrize(
    ("encoder", "space", "fitted", "num_features"),
    [
        ("own_nets:Wide", VECTOR, "own_nets:Wide", 12),
        ("image=own_nets:Wide", BOTH, "image=own_nets:Wide,kind=categories,vector=control", 24),
        ("image=own_nets:Wide,kind=skip", BOTH, "image=own_nets:Wide,vector=control,kind=skip", 18),
        ("own_nets:All", BOTH, "own_nets:All", 6),
    ],
)
@pytest.mark.parametrize("kind", ["ctm", "lstm", "mlp"])
def test_a_policy_with_it_is_learned_acted_with_and_loaded_like_any_other(
    encoder: str, space: Space, fitted: str, num_features: int, kind: str
) -> None:
    agent = agent_of(encoder, space, kind=kind)
    assert (agent.config.encoder, agent.encoder.out_dim) == (fitted, num_features)
    assert fit(agent.config, space, MultiDiscrete([3, 2])).config.encoder == fitted
    space.seed(5)
    observations = [space.sample() for _ in range(4)]
    packed = torch.from_numpy(np.stack([agent.layout.pack_one(one) for one in observations])).unsqueeze(1)
    is_first = torch.tensor([[1], [0], [0], [0]])
    unrolled = agent.unroll(packed, is_first, agent.initial_state(1))
    (unrolled.logits.square().sum() + unrolled.values.sum()).backward()
    assert all(parameter.grad is not None for parameter in agent.encoder.parameters())
    actor, state = Actor(agent.eval()), agent.initial_state(1)
    with torch.no_grad():
        for step, row in enumerate(packed):
            acted = actor.act(row, is_first[step].bool(), state, None, None)
            state = acted.state
            torch.testing.assert_close(acted.logits, unrolled.logits[step], atol=1e-5, rtol=1e-4)
    loaded = Policy.from_state(PLACE, {"policy": policies.describe(agent)}, trust=True)
    assert loaded.agent.state_dict().keys() == agent.state_dict().keys()
    one = Policy(agent)
    for policy in (one, loaded):
        torch.manual_seed(1)
        policy.last = policy.act(observations[0], policy.initial_state())[0]  # pyright: ignore[reportAttributeAccessIssue]
    assert one.last.tolist() == loaded.last.tolist()  # pyright: ignore[reportAttributeAccessIssue]


def test_it_gets_scaled_floats_of_images_and_whole_numbers_of_categories() -> None:
    agent, seen = agent_of("own_nets:All", BOTH), []
    assert isinstance(agent.encoder, OwnEncoder)
    agent.encoder.module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    observation = {"image": np.full((12, 12, 3), 51, np.uint8), "kind": 4, "vector": np.array([1, 2, 3], np.float32)}
    agent.encoder(torch.from_numpy(agent.layout.pack_one(observation))[None])
    assert {name: (part.shape, part.dtype) for name, part in seen[0].items()} == {
        "image": ((1, 12, 12, 3), torch.float32),
        "kind": ((1, 1), torch.int64),
        "vector": ((1, 3), torch.float32),
    }
    torch.testing.assert_close(seen[0]["image"].max().item(), 0.2)
    assert seen[0]["kind"].item() == 2


def test_it_is_made_with_our_description_of_the_space() -> None:
    agent = agent_of("own_nets:Wide", Box(0, 255, (12, 12), np.uint8))
    assert isinstance(agent.encoder, OwnEncoder)
    assert agent.encoder.module.space == Part(encoder="conv", shape=(12, 12), scale=255.0, is_byte=True)


def test_vectors_are_normalised_for_it() -> None:
    agent = agent_of("own_nets:Wide", VECTOR, normalize_observations=True)
    observations = 5 + 3 * torch.randn(500, 3)
    for normaliser, moments in agent.observed(observations, torch.ones(500)):
        normaliser.observe_(moments)
    ((normaliser, numbers),) = normalised_vectors(agent.encoder, observations)
    assert normaliser(numbers).mean().abs() < 1e-4
    seen = []
    assert isinstance(agent.encoder, OwnEncoder)
    agent.encoder.module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    agent.encoder(observations)
    torch.testing.assert_close(seen[0], normaliser(numbers))


def test_building_leaves_the_generator_as_without_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = agent_of("own_nets:Wide", VECTOR).state_dict()
    monkeypatch.setattr(OwnEncoder, "_check_output", lambda self, has_places: None)
    for name, values in agent_of("own_nets:Wide", VECTOR).state_dict().items():
        torch.testing.assert_close(values, checked[name], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("own_nets:Map", r"own_nets:Map cannot read observations of shape \(3,\): RuntimeError"),
        ("own_nets:NoSize", "must set self.out_dim, .* to an integer of at least 1; it is None"),
        ("own_nets:NoArguments", r"is made as NoArguments\(space, feature_dim\): TypeError"),
        ("own_nets:function", "must be a class of torch.nn.Module, and is <function"),
        ("os:system", "must be a class of torch.nn.Module, and is <built-in function system>"),
        ("own_nets:Widr", "own_nets has no Widr; it has All, "),
        ("nowhere:Wide", "there is no module nowhere in this folder, nor is it installed"),
    ],
)
def test_what_is_no_encoder_is_refused(encoder: str, message: str) -> None:
    with pytest.raises(CodeError, match=f"^model.encoder {message}" if "own_nets:Map" in message else message):
        agent_of(encoder, VECTOR)


def test_an_output_of_another_shape_is_refused() -> None:
    with pytest.raises(CodeError, match=r"has out_dim 6 and must return \[N, 6\], got \[N, 6, 2, 2\]"):
        OwnEncoder("own_nets:Map", Part(encoder="conv", shape=(3, 8, 8)), 6)
    with pytest.raises(CodeError, match=r"has out_dim 12 and must return \[N, 12, places...\], got \[N, 12\]"):
        OwnEncoder("own_nets:Wide", Part(encoder="control", shape=(3,)), 6, has_places=True)


def test_a_declared_name_is_an_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"encoder must be one of auto, .* or module:Class of your own; got 'mine'"):
        agent_of("mine", VECTOR)
    points = {"mine": EntryPoint("mine", "own_nets:Wide", configuration.OWN_ENCODERS)}
    for module in (configuration, own):
        monkeypatch.setattr(module, "declared_code", lambda group: points)
    assert agent_of("mine", VECTOR).encoder.out_dim == 12


@pytest.mark.parametrize("kind", ["ctm", "gru", "mlp"])
def test_a_model_that_answers_attends_to_its_map(kind: Any) -> None:
    config = dataclasses.replace(ANSWERING, kind=kind)
    fitted = fit_answer_config(config, Box(0, 255, (12, 8, 3), np.uint8), Discrete(7), "classes")
    assert (fitted.input_dim, fitted.input_shape, fitted.num_classes) == (3, (3, 12, 8), 7)
    torch.manual_seed(2)
    model = build_model(fitted).eval()
    images = torch.randn(2, 3, 12, 8)
    loaded = loading.rebuild_model(PLACE, {"model": loading.describe(model)}, trust=True)
    answers = model(images).predictions
    assert answers.shape == (2, 7, 1 if kind == "mlp" else 2)
    torch.testing.assert_close(loaded(images).predictions, answers)
    with pytest.raises(ValueError, match=r"input_shape must be set with encoder own_nets:Map"):
        build_model(config)
    with pytest.raises(UserError, match="an encoder of your own reads a Box"):
        fit_answer_config(config, Discrete(3), Discrete(7), "classes")


def test_a_checkpoint_of_somebody_else_imports_nothing_from_this_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as in a notebook, where the folder comes first
    monkeypatch.setattr(sys, "path", [str(folder), *(entry for entry in sys.path if entry != str(folder))])
    agent = agent_of("own_nets:Wide", VECTOR)
    entry = policies.describe(agent)
    with pytest.raises(CodeError, match=f"{PLACE} asks to import own_nets from {folder}, which no run .* trust=True"):
        Policy.from_state(PLACE, {"policy": entry})
    with pytest.raises(ValueError, match=r"config\.encoder names own_nets:Wide, and the run's is 'auto'"):
        policies.outline_policy(entry, SMALL)
    assert policies.outline_policy(entry, dataclasses.replace(SMALL, encoder="own_nets:Wide")).encoder.out_dim == 12
    model = build_model(dataclasses.replace(ANSWERING, input_shape=(3, 8, 8)))
    with pytest.raises(CodeError, match=f"asks to import own_nets from {folder}"):
        loading.rebuild_model(PLACE, {"model": loading.describe(model)})
    with pytest.raises(ValueError, match=r"config\.encoder names own_nets:Map, and the run's is 'conv'"):
        loading.outline_model(loading.describe(model), dataclasses.replace(ANSWERING, encoder="conv"))


@pytest.mark.parametrize("is_answering", [False, True])
def test_it_is_checked_before_ray_starts(is_answering: bool) -> None:
    env = "ctm_rl.envs:ctm_rl/Images-v0"
    held_out = {"split": "test"}
    experiment = (
        AnsweringExperiment(
            name="a",
            env=TaskConfig(id=env, kwargs={"dataset": "mnist"}, held_out_kwargs=held_out),
            model=dataclasses.replace(ANSWERING, encoder="own_nets:Wide"),
        )
        if is_answering
        else ActingExperiment(
            name="a", env=EnvConfig(id="CartPole-v1"), model=dataclasses.replace(SMALL, encoder="own_nets:Map")
        )
    )
    with pytest.raises(UserError, match="must return .N, 12, places" if is_answering else "cannot read observations"):
        build_algorithm_config(experiment)
