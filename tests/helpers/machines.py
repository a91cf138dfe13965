"""Untrained machines for mazes, parity and CartPole, with numbers in them that differ from those at the start."""

import dataclasses
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.rllib.environment import make_env
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.configs.cartpole import cartpole
from ctm_rl.configs.mazes import mazes
from ctm_rl.configs.parity import parity
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.answering import ContinuousThoughtMachine, build_model

SMALL = {"num_neurons": 20, "history_length": 4, "num_ticks": 5, "nlm_hidden_dim": 3, "num_output_sync_neurons": 7}
ANSWERING = {**SMALL, "feature_dim": 6, "num_heads": 2, "num_action_sync_neurons": 5}
Experiment = ActingExperiment | AnsweringExperiment


class MachineCase(NamedTuple):
    """A model with its experiment, and how many inputs it is tried on."""

    experiment: Experiment
    model: ContinuousThoughtMachine | ActorCritic
    num_inputs: int


def shaken(model: nn.Module) -> Any:
    """The model with random numbers wherever training would have left others than those at the start."""
    generator = torch.Generator().manual_seed(1)

    def noise(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            size = 0.6 if "decay_rate" in name else 0.15
            parameter += size * noise(parameter)  # some decay rates lie outside of their limits
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None and part.running_var is not None
                part.running_mean += 0.3 * noise(part.running_mean)
                part.running_var *= noise(part.running_var).exp()
        if isinstance(model, ActorCritic) and model.config.normalize_observations:
            normaliser = cast(Any, model.encoder).normaliser
            normaliser.mean += 0.05 * noise(normaliser.mean)
            normaliser.variance *= 0.02 * noise(normaliser.variance).exp()
    return model.eval()


def answering(base: AnsweringExperiment, size: int, num_inputs: int, **changes: Any) -> MachineCase:
    """A model for small mazes or short sequences."""
    is_maze = base.name == "mazes"
    kwargs = {"size": size, "route_length": 6} if is_maze else {"length": size}
    groups = {"num_groups": 6, "num_classes": 5} if is_maze else {"num_groups": size, "num_classes": 2}
    config = dataclasses.replace(base.model, **{**ANSWERING, **changes}, **groups)
    if not is_maze:
        config = dataclasses.replace(config, input_dim=size)
    env = dataclasses.replace(base.env, kwargs=kwargs)
    torch.manual_seed(0)
    model = shaken(build_model(config))
    return MachineCase(dataclasses.replace(base, env=env, model=config), model, num_inputs)


def acting(num_inputs: int, **changes: Any) -> MachineCase:
    """A policy for CartPole."""
    base = cartpole()
    config = dataclasses.replace(base.model, **{**SMALL, "feature_dim": 6, "nlm_gain": 3.0, **changes})
    experiment = dataclasses.replace(base, model=config)
    return MachineCase(experiment, shaken(policy_of(experiment)), num_inputs)


def policy_of(experiment: ActingExperiment) -> ActorCritic:
    """An untrained policy."""
    torch.manual_seed(0)
    with make_env(experiment.env) as env:
        fitted = fit(experiment.model, env.observation_space, env.action_space)
    return ActorCritic(fitted.config, fitted.layout, fitted.actions)


def shipped(name: str) -> MachineCase:
    """An untrained model of the size of an experiment."""
    if name == "cartpole":
        experiment = cartpole()
        return MachineCase(experiment, shaken(policy_of(experiment)), 200)
    base = {"mazes": mazes, "parity": parity}[name]()
    size = base.env.kwargs["size" if name == "mazes" else "length"]
    groups = (base.env.kwargs["route_length"], 5) if name == "mazes" else (size, 2)
    config = dataclasses.replace(base.model, num_groups=groups[0], num_classes=groups[1])
    config = dataclasses.replace(config, input_dim=size if name == "parity" else config.input_dim)
    torch.manual_seed(0)
    return MachineCase(base, shaken(build_model(config)), 100)
