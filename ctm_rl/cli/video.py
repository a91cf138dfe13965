"""The commands that show a run's policy at play: ``ctm-rl record`` and ``ctm-rl enjoy``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ctm_rl.cli.check_arguments import parse
from ctm_rl.cli.command_options import EvaluatedEnv
from ctm_rl.cli.report import check_single_run
from ctm_rl.errors import UserError, expand

if TYPE_CHECKING:
    from ctm_rl.agents.video.player import Player


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayOptions:
    """What is played."""

    dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's directory, or one checkpoint in it."""
    checkpoint: str | None = None
    """Which checkpoint of the run: best, last, or the number of an iteration; None: the last one."""
    episodes: int = 1
    """How many episodes, one after the other."""
    steps: int | None = 1000
    """Stop after so many steps of all episodes together; None: when the last episode ends."""
    seed: int = 0
    """The same seed plays the same episodes, the first one as ctm-rl evaluate --episodes 1; training uses none of
    them."""
    deterministic: bool = False
    """Take the most probable action instead of drawing one."""
    env: EvaluatedEnv = field(default_factory=EvaluatedEnv)
    """What differs from training."""
    halt_certainty: float | None = None
    """Stop the ticks of a step once the policy is this certain, from 0 to 1; it must have been trained with
    train_random_ticks."""
    num_ticks: int | None = None
    """Policies trained with train_random_ticks: the ticks of every step, or the most ticks with halt_certainty."""
    fps: float | None = None
    """Steps per second; None: as the environment says, or 30."""
    with_thinking: bool = False
    """Show neurons, probabilities of the actions, value and certainty as well."""
    trust: bool = False
    """The run may import its environment's module from this folder, although no run that you have trained on this
    machine does so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordOptions(PlayOptions):
    """Writes a video of a run's policy: MP4 (pip install "ctm-rl[video]"), GIF or animated WebP."""

    out: str | None = None
    """The video; its ending says what is written: .mp4, .gif or .webp. None: a new file in the run's folder videos/, an
    MP4 if PyAV is installed, otherwise a WebP."""
    overwrite: bool = False
    """Replace the file of --out if it exists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnjoyOptions(PlayOptions):
    """Shows a run's policy at play, until Ctrl-C, or the window's Escape or Q."""

    episodes: int = 3
    """How many episodes, one after the other."""
    steps: int | None = None
    """Stop after so many steps of all episodes together; None: when the last episode ends."""
    screen: Literal["auto", "window", "terminal", "lines"] = "auto"
    """Where: in a window (pygame), in colours on the terminal, as one line for each step, which needs no frames, or
    whichever of these is there first (auto)."""


def record(arguments: Sequence[str]) -> str:
    """Records a run.

    Args:
        arguments: the command line after ``record``.

    Returns:
        What was recorded, in a line.

    Raises:
        UserError: it cannot be.
    """
    options = parse(RecordOptions, arguments, "ctm-rl record")
    from ctm_rl.agents.run_directory.progress import status_line
    from ctm_rl.agents.video import record as recording
    from ctm_rl.agents.video.files import check_file
    from ctm_rl.checkpoints.best import run_of
    from ctm_rl.zoo.entries import is_zoo

    file, note = None if options.out is None else expand(options.out), None
    if file is None and options.overwrite:
        raise UserError("--overwrite is for the file of --out; without it every video gets a new name.")
    if file is not None:
        check_file(file, overwrite=options.overwrite)
    player = _load(options)
    if file is None:
        # A run of the zoo lies in the installed package.
        folder = Path() if is_zoo(options.dir) else run_of(expand(options.dir))
        file, note = recording.default_file(folder, player)
    if note is not None:
        print(f"ctm-rl: {note}", file=sys.stderr)
    with status_line() as show:
        found = recording.record(
            player,
            file,
            with_thinking=options.with_thinking,
            notify=lambda shown: show(f"recording: episode {shown.episode}, step {shown.step}"),
        )
    cut = f", cut after --steps {found.num_steps}" if found.is_cut else f", {found.num_steps} steps"
    return f"{_describe(found.returns)}{cut}: {file}\n"


def enjoy(arguments: Sequence[str]) -> str:
    """Shows a run.

    Args:
        arguments: the command line after ``enjoy``.

    Returns:
        What was seen, in a line.

    Raises:
        UserError: it cannot be shown.
    """
    options = parse(EnjoyOptions, arguments, "ctm-rl enjoy")
    from rich.console import Console

    from ctm_rl.agents.video.enjoy import choose_screen
    from ctm_rl.agents.video.enjoy import enjoy as show

    player = _load(options)
    console = Console(highlight=False)
    screen, note = choose_screen(options.screen, console)
    if note is not None:
        print(f"ctm-rl: {note}", file=sys.stderr)
    return f"{_describe(show(player, screen, console, with_thinking=options.with_thinking))}\n"


def _load(options: PlayOptions) -> "Player":
    """Reads who is to play.

    Raises:
        UserError: there is no such run, or as ``load_player``.
    """
    from ctm_rl.agents.video.player import PlayerOptions, load_player

    directory = expand(options.dir)
    check_single_run(directory)
    how = PlayerOptions(
        episodes=options.episodes,
        steps=options.steps,
        seed=options.seed,
        deterministic=options.deterministic,
        halt_certainty=options.halt_certainty,
        num_ticks=options.num_ticks,
        fps=options.fps,
    )
    kwargs = options.env.kwargs
    return load_player(directory, how, checkpoint=options.checkpoint, env_kwargs=kwargs, trust=options.trust)


def _describe(returns: Sequence[float]) -> str:
    """How many episodes there were, and their returns."""
    from ctm_rl.agents.run_directory.progress import describe_return

    if not returns:
        return "no episode"
    shown = ", ".join(map(describe_return, returns[:10])) + (", ..." if len(returns) > 10 else "")
    return f"{len(returns)} episode{'s' if len(returns) > 1 else ''}: return {shown}"
