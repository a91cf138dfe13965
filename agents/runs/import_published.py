"""Imports a checkpoint of the official code as a run directory, so that it can be evaluated like our own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.run_directory.directory import check_free, config_of, created_directory
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.published import OfficialModel, load_official
from ctm_rl.errors import user_errors
from ctm_rl.inference.policy import OFFICIAL_ENTRY
from ctm_rl.models.actor_critic import ActorCritic


def import_official(file: Path, run_dir: Path) -> str:
    """Reads a published checkpoint and writes a run directory with it; nothing in the file is executed.

    Args:
        file: the checkpoint.
        run_dir: the new run's directory, new or empty.

    Returns:
        A line that describes what was imported.

    Raises:
        UserError: the file is not such a checkpoint, or the directory cannot be used; nothing has been written then.
    """
    run_dir = run_dir.absolute()
    check_free(run_dir)
    with user_errors(TypeError):
        official = load_official(file)
        args = official.args
        config = _config(official, args)
    with created_directory(run_dir, config) as keep:
        entry = {"args": args, "weights": official.to_official_state_dict()}
        checkpoint.save(run_dir, 0, {"task": official.task, OFFICIAL_ENTRY: entry})
        keep()
    return _describe(official, args, run_dir)


def _config(official: OfficialModel, args: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``config.json``: of a policy, an experiment that trains one like it; otherwise its task."""
    if not isinstance(official.model, ActorCritic):
        return {"task": official.task, "kind": official.kind}
    env_id = str(args["env_id"])
    is_grid = official.model.config.encoder == "grid"
    env = EnvConfig(
        id=f"minigrid:{env_id}" if is_grid else env_id,
        wrappers=_wrappers(args, is_grid=is_grid),
        max_episode_steps=args.get("max_environment_steps"),
    )
    return config_of(ActingExperiment(name="imported", env=env, model=official.model.config))


def _wrappers(args: Mapping[str, Any], *, is_grid: bool) -> tuple[str, ...]:
    """The agent's wrappers: MiniGrid's image alone, or hidden velocities unless the settings say otherwise."""
    if is_grid:
        return ("grid-image",)
    return ("hide-velocities",) if args.get("mask_velocity", True) else ()


def _describe(official: OfficialModel, args: Mapping[str, Any], run_dir: Path) -> str:
    """Describes what was imported."""
    count = sum(parameter.numel() for parameter in official.model.parameters())
    inside = f"{official.kind} for {official.task}, {count:,} parameters"
    if isinstance(official.model, ActorCritic):
        inside += f", {args['env_id']}"
    return f"imported into {run_dir}: {inside}"
