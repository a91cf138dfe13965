"""Makes the report of a run: what ran, how it learned, and what its model does, as far as there is a model."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from ctm_rl.agents.evaluation.answers import EvaluationTask, evaluation_task_of
from ctm_rl.agents.evaluation.load import Trained, load_trained
from ctm_rl.agents.evaluation.play import one_thread
from ctm_rl.agents.evaluation.run_environment import changed_env, held_out_task
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.experiments.storage_url import mask_secrets
from ctm_rl.agents.report.answering import AnsweringOptions, answering_sections
from ctm_rl.agents.report.browser_model import live_section
from ctm_rl.agents.report.curves import learning_curves
from ctm_rl.agents.report.decay_rates import decay_figures, decay_history
from ctm_rl.agents.report.document import Document, Section
from ctm_rl.agents.report.neurons import wiring_of
from ctm_rl.agents.report.run_facts import facts_section
from ctm_rl.agents.report.scored import SECONDS, AnsweringModel
from ctm_rl.agents.run_directory.directory import METRICS_FILE, check_is_run, read_config
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.run_directory.trust import check_trusted, env_claims
from ctm_rl.checkpoints import store
from ctm_rl.checkpoints.best import find, run_of
from ctm_rl.checkpoints.published import OfficialModel
from ctm_rl.errors import UserError
from ctm_rl.inference.policy import Policy
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel
from ctm_rl.zoo.entries import is_zoo

NUM_SAMPLES = 6
"""Samples or episodes that are shown, unless another number is given."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportOptions:
    """What is shown of a run."""

    checkpoint: str | int | None = None
    """Best, last, or the number of an iteration; ``None``: the last one."""
    samples: int = NUM_SAMPLES
    """Samples or episodes that are shown, at most."""
    episodes: int | None = None
    """Samples that are answered for the numbers; ``None``: as ``evaluate`` has it, fewer where that takes long."""
    seed: int = 0
    """Of samples and episodes."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the environment that replace those of training."""
    human: np.ndarray | None = None
    """Models that answer: the share of people who chose each class, [N, C]."""
    seconds: float = SECONDS
    """Models that answer: time for the numbers where ``episodes`` is not given, and for those of halting."""
    trust: bool = False
    """Whether the run may import a module of the current folder, see ``run_directory.trust``."""


def make_report(path: str | Path, options: ReportOptions) -> Document:
    """Makes the report of a run, with what there is of it.

    What cannot be read or made is left out, and a note says why.

    Args:
        path: a run's directory, or one checkpoint in it.
        options: what is shown.

    Returns:
        The report.

    Raises:
        UserError: there is no such run or checkpoint, a value is not allowed, or what ``env_kwargs`` or ``human`` ask
            for cannot be made.
    """
    place = Path(path)
    run = run_of(place)
    check_is_run(run)
    notes: list[str] = []
    with warnings_in(notes):
        return _make_report(place, run, options, notes)


class _Collector(logging.Handler):
    """Adds warnings to notes, in place of writing them.

    Args:
        notes: the notes.
    """

    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        """Adds a warning, once."""
        text = " ".join(record.getMessage().split())
        if text not in self._notes:
            self._notes.append(text)


@contextlib.contextmanager
def warnings_in(notes: list[str]) -> Iterator[None]:
    """Adds what our own log reports inside the body to the notes, such as damaged checkpoints that are passed over."""
    logger, collector = logging.getLogger("ctm_rl"), _Collector(notes)
    before, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield
    finally:
        logger.removeHandler(collector)
        logger.propagate = before


def _make_report(place: Path, run: Path, options: ReportOptions, notes: list[str]) -> Document:
    """See ``make_report``."""
    if options.checkpoint is not None:
        find(place, options.checkpoint)  # a checkpoint that was named and is not there is an error
    found = find_trained(run, place, options, notes)
    _check_options(found.trained, options)
    # what was asked for and cannot be made is an error, not a note
    is_asked = bool(options.env_kwargs) or options.human is not None
    refused = () if is_asked else (UserError,)
    sections = tried(notes, lambda: model_sections(found, run, options, notes), refused) or []
    return document_of(run, found, notes, [*sections, *run_sections(run, found, notes)])


class Found(NamedTuple):
    """What a run has, beside its metrics."""

    trained: Trained | None
    """``None``: there is no usable checkpoint."""
    experiment: AnyExperiment | None
    """``None``: an imported checkpoint has none, or it cannot be read."""
    iteration: int | None
    """Of the checkpoint."""
    name: str | None = None
    """What stands for the run in commands, such as ``zoo:cartpole``; ``None``: its directory."""


def find_trained(run: Path, place: Path, options: ReportOptions, notes: list[str]) -> Found:
    """Reads what a run has trained, and its experiment.

    Args:
        run: the run's directory.
        place: the same, or one checkpoint in it.
        options: which checkpoint, and whether the run is trusted.
        notes: gets what is missing.
    """
    found = tried(notes, lambda: _load(run, place, options)) or Found(None, _experiment_of(run, notes), None)
    return found._replace(name=str(place)) if is_zoo(place) else found


def run_sections(run: Path, found: Found, notes: list[str]) -> list[Section]:
    """How it learned, its decay rates, and what ran: what takes no time.

    Args:
        run: the run's directory.
        found: its model and experiment.
        notes: gets what is missing.
    """
    rows = read_metrics(run)
    if not rows:
        notes.append(_describe_missing_metrics(run, found.experiment))
    facts = facts_section(run, found.experiment, rows, network_of(found.trained), found.iteration, found.name)
    text = "" if len(rows) > 1 else "The run has one line of metrics so far."
    learning = Section(name="learning", title="Learning", text=text, figures=learning_curves(rows))
    return [*([learning] if learning.figures else []), *_memory_section(found.trained, run), facts]


def document_of(run: Path, found: Found, notes: Sequence[str], sections: Sequence[Section]) -> Document:
    """The report of a run with these sections."""
    name = run.resolve().name if found.experiment is None else found.experiment.name
    return Document(title=name, subtitle=_describe(run, found), notes=[*map(mask_secrets, notes)], sections=sections)


def _describe(run: Path, found: Found) -> str:
    """What the page is about, in a line."""
    network = network_of(found.trained)
    if network is None:
        return f"The run {run.resolve().name}."
    kinds = {
        "ctm": "A Continuous Thought Machine",
        "lstm": "An LSTM",
        "gru": "A GRU",
        "mlp": "A network without memory",
    }
    count = sum(part.numel() for part in network.parameters())
    what = "acts" if isinstance(found.trained, Policy) else "answers"
    kind = kinds[getattr(network.config, "kind", "ctm")]
    return f"{kind} of {count:,} parameters that {what}; {found.name or f'run {run.resolve().name}'}."


def network_of(trained: Trained | None) -> nn.Module | None:
    """The network of what was trained."""
    if isinstance(trained, Policy):
        return trained.agent
    return trained.model if isinstance(trained, OfficialModel) else trained


def _load(run: Path, place: Path, options: ReportOptions) -> Found:
    """What the run has trained, its experiment, and the iteration of the checkpoint."""
    where = find(place, options.checkpoint)
    where, trained, experiment = load_trained(run, where, torch.device("cpu"), trust=options.trust)
    return Found(trained, experiment, store.iteration_of(where))


def _check_options(trained: Trained | None, options: ReportOptions) -> None:
    """Refuses options that have no effect on a policy."""
    for option, value in (("--human-labels", options.human), ("--episodes", options.episodes)):
        if isinstance(trained, Policy) and value is not None:
            raise UserError(f"{option} is for models that answer, and this is a policy; leave it out.")


def _experiment_of(run: Path, notes: list[str]) -> AnyExperiment | None:
    """The experiment of a run without a usable checkpoint."""
    try:
        return read_config(run)
    except UserError as error:
        if str(error) not in notes:
            notes.append(str(error))
        return None


def _describe_missing_metrics(run: Path, experiment: AnyExperiment | None) -> str:
    """Why there are no curves."""
    if experiment is None:
        return f"{run} has no {METRICS_FILE}: there are no learning curves."
    return f"{run} has no line in {METRICS_FILE} yet: there are no learning curves."


@one_thread()
def model_sections(found: Found, run: Path, options: ReportOptions, notes: list[str]) -> list[Section]:
    """The sections of a model of either kind, what moves first; none where there is no model.

    Args:
        found: the model and its experiment.
        run: the run's directory.
        options: what is shown.
        notes: gets what is missing.

    Raises:
        UserError: its environment is not trusted, or cannot be made.
    """
    trained, experiment = found.trained, found.experiment
    if trained is None:
        return []
    if experiment is not None:
        check_trusted(env_claims(experiment.env, replaced=options.env_kwargs), run, is_trusted=options.trust)
    if isinstance(trained, Policy):
        if not isinstance(experiment, ActingExperiment):
            raise UserError(f"{run} does not name the environment that its policy acts in.")
        sections = _policy_sections(trained, experiment, options, notes)
    else:
        model, task = answering_of(trained, experiment)
        task = task._replace(env=changed_env(task.env, options.env_kwargs))
        wanted = AnsweringOptions(options.samples, options.episodes, options.seed, options.human, options.seconds)
        sections, more = answering_sections(model, task, wanted)
        notes += more
    moving = [section for section in sections if section.samples]
    others = [section for section in sections if not section.samples]
    return [*_live_sections(trained, experiment, notes), *moving, *others]


def _live_sections(trained: Trained, experiment: AnyExperiment | None, notes: list[str]) -> list[Section]:
    """The trained machine itself, where the page can run it."""
    if experiment is None or isinstance(trained, OfficialModel):
        return []
    section = tried(notes, lambda: live_section(trained, experiment))
    return [] if section is None else [section]


def _memory_section(trained: Trained | None, run: Path) -> list[Section]:
    """The decay rates of a machine."""
    network = network_of(trained)
    wiring = None if network is None else wiring_of(network)
    if network is None or wiring is None:
        return []
    config: Any = network.config
    figures = decay_figures(wiring, getattr(config, "start_decay_rates", ()), decay_history(run))
    text = (
        "Each pair of neurons has a decay rate, which is learned: how much less the synchronisation counts a tick with "
        "every tick that passes."
    )
    return [Section(name="memory", title="How fast it forgets", text=text, figures=figures)]


def answering_of(
    trained: ContinuousThoughtMachine | FeedForwardModel | OfficialModel, experiment: AnyExperiment | None
) -> tuple[AnsweringModel, EvaluationTask]:
    """A model that answers, and its task.

    Args:
        trained: of a run.
        experiment: of the run; an imported model needs none.
    """
    if isinstance(trained, OfficialModel):
        assert isinstance(trained.model, ContinuousThoughtMachine | FeedForwardModel)
        return trained.model, evaluation_task_of(trained)
    assert isinstance(experiment, AnsweringExperiment)
    return trained, EvaluationTask(held_out_task(experiment), experiment.learning.loss, experiment.name)


def _policy_sections(
    policy: Policy, experiment: ActingExperiment, options: ReportOptions, notes: list[str]
) -> list[Section]:
    """The sections of a policy."""
    # what plays and draws environments takes a second to load
    from ctm_rl.agents.report.acting import acting_sections

    changed = replace(experiment, env=changed_env(experiment.env, options.env_kwargs))
    sections, more = acting_sections(policy, changed, num_episodes=options.samples, seed=options.seed)
    notes += more
    return sections


def tried(
    notes: list[str], make: Callable[[], Result], refused: tuple[type[UserError], ...] = (UserError,)
) -> Result | None:
    """What a function makes; if it refuses to, ``None`` and a note that says why."""
    try:
        return make()
    except refused as error:
        notes.append(" ".join(str(error).split()))
        return None
