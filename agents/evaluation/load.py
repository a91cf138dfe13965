"""Reads what a run has trained, of either kind, with its experiment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.run_directory.directory import read_config
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.published import OfficialModel
from ctm_rl.errors import UserError
from ctm_rl.inference.load_model import MODEL_ENTRY, rebuild_model
from ctm_rl.inference.policy import Policy, official_of
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel

Trained = Policy | ContinuousThoughtMachine | FeedForwardModel | OfficialModel


def check_device(device: str) -> torch.device:
    """Returns the device of that name.

    Raises:
        UserError: there is no such device.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise UserError(f"device must be cpu, cuda or cuda:N, got {device!r}.")
    count = torch.cuda.device_count()
    if found.type == "cuda" and (found.index or 0) >= count:
        raise UserError(f"device {device!r} does not exist: this machine has {count} CUDA devices; cpu always works.")
    return found


def load_trained(
    run: Path, place: Path, device: torch.device, *, trust: bool = False
) -> tuple[Path, Trained, AnyExperiment | None]:
    """Reads what a run has trained, from a checkpoint or from the newest usable one, and its experiment.

    Args:
        run: the run's directory.
        place: a run's directory or one checkpoint in it.
        device: where a policy computes.
        trust: whether the checkpoint may name any encoder, see ``Policy.from_checkpoint``.

    Returns:
        The checkpoint's path; the policy, the model that answers, or the imported one that answers; and the experiment,
        which the last one does not have.

    Raises:
        UserError: there is no usable checkpoint, or it is not of such an experiment.
    """

    def rebuild(place: Path, state: Mapping[str, Any]) -> tuple[Path, Trained]:
        official = official_of(place, state)
        if official is not None:
            agent = official.model
            if not isinstance(agent, ActorCritic):
                return place, official
            return place, Policy(agent.to(device), checkpoint.iteration_of(place))
        if MODEL_ENTRY in state:
            return place, rebuild_model(place, state, trust=trust)
        return place, Policy.from_state(place, state, device, trust=trust)

    place, trained = checkpoint.read_newest(place, rebuild)
    if isinstance(trained, OfficialModel):
        return place, trained, None
    experiment = read_config(run)
    if isinstance(experiment, ActingExperiment) != isinstance(trained, Policy):
        kinds = ("a model that answers", "a policy")
        described, held = kinds if isinstance(trained, Policy) else reversed(kinds)
        raise UserError(f"{run / 'config.json'} describes {described}, and the checkpoint holds {held}.")
    return place, trained, experiment
