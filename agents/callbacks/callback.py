"""The base class of callbacks, and what they see of a run; loads neither torch nor ray."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctm_rl.agents.experiments.serialise import AnyExperiment

if TYPE_CHECKING:
    from ctm_rl.agents.rllib.finished_episodes import FinishedEpisode


class RunView:
    """What a callback sees of a run, and how it stops it.

    Args:
        directory: the run's directory, absolute.
        experiment: what is trained; read only.
        position: returns how far the run is: ``iteration``, ``env_steps`` and ``seconds``.
        algorithm: returns RLlib's algorithm.
        policy: returns a copy of what is trained, ready to act or to answer.

    Attributes:
        directory: the run's directory, absolute.
        experiment: what is trained; read only.
        stop_reason: why the run stops before its budget is used up; ``None``: it does not.
    """

    def __init__(
        self,
        directory: Path,
        experiment: AnyExperiment,
        *,
        position: Callable[[], Any],
        algorithm: Callable[[], Any],
        policy: Callable[[], Any],
    ) -> None:
        self.directory = directory
        self.experiment = experiment
        self.stop_reason: str | None = None
        self._position, self._algorithm, self._policy = position, algorithm, policy

    @property
    def iteration(self) -> int:
        """Finished iterations, those before the run was resumed included."""
        return self._position().iteration

    @property
    def env_steps(self) -> int:
        """Environment steps so far; of a task samples."""
        return self._position().env_steps

    @property
    def seconds(self) -> float:
        """Time trained so far, as of the end of the last iteration."""
        return self._position().seconds

    @property
    def algorithm(self) -> Any:
        """RLlib's algorithm; it is another object once a lost learner has been replaced."""
        return self._algorithm()

    def policy(self) -> Any:
        """Returns a copy of what is trained, with the current weights, on the CPU.

        Returns:
            A ``ctm_rl.Policy``; of a run that answers the model, as ``ctm_rl.load_model`` returns it. Training leaves
            it as it is, and drawing from it changes nothing of the training.
        """
        return self._policy()

    def stop(self, reason: str = "a callback asked for it") -> None:
        """Ends the run after this iteration as if its budget were used up: with a checkpoint, ready to be resumed.

        Args:
            reason: printed at the end; the first one counts.
        """
        if self.stop_reason is None:
            self.stop_reason = str(reason)


class Callback:
    """Base class of callbacks: override the methods that you need.

    ``ctm-rl train --callbacks module:Class`` makes an object without arguments, in the training process; in Python,
    ``train(experiment, callbacks=[...])`` takes objects. Methods are called between two iterations, in the folder that
    the run was started in. An exception ends the run, after a checkpoint of the iteration.

    Example:
        >>> from ctm_rl.agents import Callback
        >>> class StopAtReturn(Callback):
        ...     def on_iteration(self, run, metrics):
        ...         if (metrics["episode_return_mean"] or 0) >= 100:
        ...             run.stop("mean return of 100 reached")
    """

    def on_start(self, run: RunView) -> None:
        """Called before the first iteration of a process: of a new run, and again when it is resumed."""

    def on_iteration(self, run: RunView, metrics: Mapping[str, float | None]) -> bool | None:
        """Called after every iteration, once its metrics are written.

        An iteration that was lost with a learner is trained, and reported, again.

        Args:
            run: the run.
            metrics: the iteration's line of ``metrics.jsonl``; a value is None where there is none, as a mean return
                before the first episode has ended.

        Returns:
            False to stop the run; None or True to go on.
        """

    def on_episode(self, run: RunView, episode: "FinishedEpisode") -> None:
        """Called for every whole episode that ended in an iteration, before its ``on_iteration``.

        Not called in runs that answer: a sample is no episode.

        Args:
            run: the run.
            episode: with ``episode_return``, the sum of the environment's own rewards, and ``length`` in environment
                steps.
        """

    def on_checkpoint(self, run: RunView, path: Path) -> None:
        """Called after a checkpoint is written; not for that of a new run, which has learned nothing yet.

        Args:
            run: the run.
            path: the checkpoint's directory. Older ones are removed with time: copy what you want to keep.
        """

    def on_end(self, run: RunView) -> None:
        """Called after the last checkpoint: the budget is used up, a callback or a signal has stopped the run.

        Not called after an error. After a signal the process has a few seconds.
        """


METHODS: dict[str, tuple[str, ...]] = {
    "on_start": ("run",),
    "on_iteration": ("run", "metrics"),
    "on_episode": ("run", "episode"),
    "on_checkpoint": ("run", "path"),
    "on_end": ("run",),
}
"""The methods of a callback, and their arguments."""
