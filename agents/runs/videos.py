"""The videos of a run that learns to act: an episode of its policy every few iterations."""

import logging
from collections.abc import Callable
from pathlib import Path

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.loggers.protocol import LoggedVideo
from ctm_rl.agents.rllib.generators import read_generators, write_generators
from ctm_rl.agents.rllib.iteration import IterationStopped, report
from ctm_rl.inference.policy import Policy

MAX_STEPS = 200
"""Steps of a video, at most."""
_LOG = logging.getLogger(__name__)


class Videos:
    """Plays an episode every few iterations, as evaluations play their first one, and writes it.

    Training is the same with videos and without. A video that fails is reported, once for each reason, and ends
    nothing.

    Args:
        experiment: with ``video_every``.
        run_dir: the run's directory.
    """

    def __init__(self, experiment: ActingExperiment, run_dir: Path) -> None:
        self._experiment, self._run_dir = experiment, run_dir
        self._reported: set[str] = set()

    def update(self, iteration: int, policy: Callable[[], Policy]) -> LoggedVideo | None:
        """Writes the video of an iteration; one of that name, from before a stop, is replaced.

        Args:
            iteration: number of finished iterations.
            policy: returns a copy of the policy.

        Returns:
            The video; ``None``: none is due, it failed, or the run is to stop.
        """
        if iteration % self._experiment.video_every:
            return None
        before = read_generators()
        try:
            return self._write(iteration, policy())
        except IterationStopped:
            return None  # the iteration itself is whole
        except Exception as error:  # whatever an environment or a writer of files may raise
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            if reason not in self._reported:
                self._reported.add(reason)
                _LOG.warning("there is no video of iteration %d (%s); training continues.", iteration, reason)
            return None
        finally:
            write_generators(before)

    def _write(self, iteration: int, policy: Policy) -> LoggedVideo:
        """Plays and writes."""
        from ctm_rl.agents.video.player import PlayerOptions, make_player
        from ctm_rl.agents.video.record import VIDEOS_FOLDER
        from ctm_rl.agents.video.short_video import write_short

        experiment, given = self._experiment, self._experiment.eval
        options = PlayerOptions(steps=MAX_STEPS, seed=given.seed, deterministic=given.deterministic)
        player = make_player(policy, experiment.evaluated_env, experiment.name, options)
        file = self._run_dir / VIDEOS_FOLDER / f"iteration-{iteration:06d}"
        return write_short(player, file, lambda num_steps: report("steps of a video", num_steps, MAX_STEPS))
