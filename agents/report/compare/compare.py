"""Makes the page that compares runs: what they are, how they learned, what they do now, and how fast."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctm_rl.agents.evaluation.play import one_thread
from ctm_rl.agents.experiments.storage_url import mask_secrets
from ctm_rl.agents.report.compare.acting import acting_sections, with_interval
from ctm_rl.agents.report.compare.answering import NOTHING, answering_sections
from ctm_rl.agents.report.compare.contenders import ComparedRun, Contender, differences, read_contenders
from ctm_rl.agents.report.compare.curves import SPREAD, main_metric, overlaid_curves
from ctm_rl.agents.report.compare.measured import Measured, Played, measure
from ctm_rl.agents.report.document import Document, Figure, Section, Table
from ctm_rl.agents.report.report import ReportOptions, network_of, warnings_in
from ctm_rl.agents.report.run_facts import count_parameters, duration
from ctm_rl.agents.report.scored import Scored
from ctm_rl.agents.run_directory.made_with import describe_made_with, machine_line
from ctm_rl.agents.run_directory.progress import describe_return
from ctm_rl.checkpoints import store
from ctm_rl.checkpoints.best import read_best
from ctm_rl.this_machine import describe_machine

NUM_COLOURS = 8
"""Lines that have a colour of their own."""
_SHARES = ("accuracy", "accuracy_whole", "success_rate", "eval_success_rate")


def make_comparison(paths: Sequence[str | Path], options: ReportOptions, *, evaluate: bool = True) -> Document:
    """Compares runs, with what there is of them.

    What cannot be read or measured is left out, and a note says why.

    Args:
        paths: directories of runs or of several seeds, or checkpoints; each run counts once.
        options: ``checkpoint``, ``episodes``, ``seed`` and ``trust`` have an effect.
        evaluate: whether models are evaluated; otherwise there is what was recorded in training.

    Returns:
        The page.

    Raises:
        UserError: a path is no run, or there are fewer than two runs.
    """
    notes: list[str] = []
    contenders = read_contenders([Path(path) for path in paths], options, notes)
    runs = [run for contender in contenders for run in contender.runs]
    tasks = list(dict.fromkeys(run.task for run in runs if run.task))
    if len(tasks) > 1:
        notes.append(
            f"The runs are of different tasks ({', '.join(tasks)}): curves of different units cannot be laid over each "
            "other, and are left out."
        )
    if len(contenders) > NUM_COLOURS:
        notes.append(f"There are {len(contenders)} lines and {NUM_COLOURS} colours; legends show and hide lines.")
    found: dict[str, Measured] = {}
    if evaluate:
        with warnings_in(notes), one_thread():
            found = measure(runs, options, notes)
    answered = {name: result for name, result in found.items() if isinstance(result, Scored)}
    played = {name: result for name, result in found.items() if isinstance(result, Played)}
    is_one_task = len(tasks) == 1
    sections = [_runs_section(contenders, found)]
    curves = overlaid_curves(contenders) if is_one_task else []
    if curves:
        text = SPREAD if any(len(contender.runs) > 1 for contender in contenders) else ""
        sections.append(Section(name="learning", title="Learning", text=text, figures=curves))
    sections += acting_sections(contenders, played, is_one_task=is_one_task)
    sections += answering_sections(contenders, answered)
    sections.append(_speed_section(contenders, found))
    names = ", ".join(contender.name for contender in contenders)
    title = f"{_task_name(runs)}: {names}" if is_one_task else names
    subtitle = f"{len(runs)} runs of ctm_rl compared"
    return Document(title=title, subtitle=subtitle, notes=[*map(mask_secrets, notes)], sections=sections)


def _task_name(runs: Sequence[ComparedRun]) -> str:
    """The experiment of all runs, or the environment that all of them have."""
    experiments = [run.found.experiment for run in runs if run.found.experiment is not None]
    names = {experiment.name for experiment in experiments}
    return names.pop() if len(names) == 1 else experiments[0].env.id


def _runs_section(contenders: Sequence[Contender], found: Mapping[str, Measured]) -> Section:
    """What is compared: the runs, their results, and what differs between their configurations."""
    figures = [_facts(contenders), _results(contenders, found), *_configurations(contenders)]
    return Section(name="runs", title="What is compared", figures=figures)


def _facts(contenders: Sequence[Contender]) -> Table:
    """Sizes and training of each run."""
    return Table(
        title="Runs",
        caption="Each line of the charts, and the runs that it is made of: those that differ in their seeds alone are "
        "one line. Steps are those of the environment, or samples.",
        columns=(
            *("line", "run", "model", "parameters", "neurons", "ticks", "seed", "steps", "time"),
            "trained by",
        ),
        rows=[(contender.name, *_facts_of(run)) for contender in contenders for run in contender.runs],
    )


def _facts_of(run: ComparedRun) -> tuple[str, ...]:
    """The cells of one run."""
    config, experiment, network = run.model_config, run.found.experiment, network_of(run.found.trained)
    last = run.rows[-1] if run.rows else {}
    steps, seconds = last.get("env_steps"), last.get("seconds")
    return (
        run.name,
        run.kind or NOTHING,
        NOTHING if network is None else f"{count_parameters(network):,}",
        str(config.num_neurons) if run.kind == "ctm" else NOTHING,
        NOTHING if config is None or run.kind == "mlp" else str(config.num_ticks),
        NOTHING if experiment is None else str(experiment.seed),
        NOTHING if steps is None else f"{int(steps):,}",
        NOTHING if seconds is None else duration(seconds),
        NOTHING if experiment is None else _processes(experiment),
    )


def _processes(experiment: Any) -> str:
    """What a run was trained by, as far as its configuration says; the machine is not recorded."""
    gpus = experiment.num_gpus_per_learner * max(1, experiment.num_learners)
    parts = [f"{gpus:g} GPU" if gpus else "CPU"]
    for count, what in ((experiment.num_env_runners, "env runner"), (experiment.num_learners, "learner")):
        parts += [f"{count} {what}{'' if count == 1 else 's'}"] if count else []
    return ", ".join(parts)


def _results(contenders: Sequence[Contender], found: Mapping[str, Measured]) -> Table:
    """The best and last results of each run in training, and its evaluation now."""
    return Table(
        title="Results",
        caption="Best: of the best checkpoint that was saved. Last: the newest line of metrics; in training, returns "
        "are means over the last 100 episodes, and accuracies are of held-out samples. Evaluated: now, the shown "
        "checkpoint, with the interval that holds the true mean or share with 95 %.",
        columns=("line", "run", "best in training", "last in training", "checkpoint", "evaluated"),
        rows=[
            (
                contender.name,
                run.name,
                _best(run),
                _last(run),
                NOTHING if run.found.iteration is None else f"iteration {run.found.iteration}",
                _evaluated(found.get(run.name)),
            )
            for contender in contenders
            for run in contender.runs
        ],
    )


def _best(run: ComparedRun) -> str:
    """The best result in training."""
    try:
        best = read_best(run.run)
    except store.CheckpointError:
        best = None
    if best is None:
        return NOTHING
    return f"{_value(best.metric, best.value)} at iteration {best.iteration}"


def _last(run: ComparedRun) -> str:
    """The newest result in training."""
    metric = main_metric(run.rows)
    if metric is None:
        return NOTHING
    values = [value for row in run.rows if isinstance(value := row.get(metric), (int, float))]
    return _value(metric, values[-1])


def _value(metric: str, value: float) -> str:
    """A value of a metric, with its name."""
    return f"{metric} {100 * value:.1f} %" if metric in _SHARES else f"{metric} {describe_return(value)}"


def _evaluated(result: Measured | None) -> str:
    """The main result of an evaluation with its interval."""
    if result is None:
        return NOTHING
    values = result.result
    if isinstance(result, Played):
        return f"return {with_interval(values['episode_return_mean'], values['episode_return_interval'])}"
    low, high = values["accuracy_interval"]
    return f"accuracy {100 * values['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _configurations(contenders: Sequence[Contender]) -> list[Figure]:
    """The fields in which contenders differ; none where only one has a configuration."""
    known = [contender for contender in contenders if contender.first.found.experiment is not None]
    if len(known) < 2:
        return []
    experiments = [one for contender in known if (one := contender.first.found.experiment) is not None]
    found = differences(experiments)
    rows = [(name, *(_plain(value) for value in values)) for name, values in found.items()]
    return [
        Table(
            title="What differs",
            caption="Fields of the configurations that are not the same, beside seeds and where a run writes."
            if rows
            else "The configurations are the same.",
            columns=("field", *(contender.name for contender in known)),
            rows=rows,
        )
    ]


def _plain(value: str) -> str:
    """A value as people write it: names without quotation marks."""
    return value[1:-1] if len(value) > 2 and value[0] == value[-1] == '"' else value


def _speed_section(contenders: Sequence[Contender], found: Mapping[str, Measured]) -> Section:
    """How fast runs were trained, and how fast they are now."""
    rows = []
    for contender in contenders:
        for run in contender.runs:
            last = run.rows[-1] if run.rows else {}
            steps, seconds = last.get("env_steps"), last.get("seconds")
            trained = f"{steps / seconds:,.0f}" if steps and seconds else NOTHING
            made = describe_made_with(run.run)
            where = NOTHING if made is None else made[1]
            rows.append((contender.name, run.name, where, trained, *_milliseconds(found.get(run.name))))
    table = Table(
        title="Speed",
        caption="Training: environment steps or samples per second of the whole run, on the machine that it was "
        f"trained on. Evaluation: measured now, on this machine ({machine_line(describe_machine())}), "
        "whatever else it had to do; a step or sample with its environment, and the model alone at all ticks.",
        columns=("line", "run", "trained on", "training, per second", "evaluation, ms each", "model alone, ms each"),
        rows=rows,
    )
    return Section(name="speed", title="Speed", figures=[table])


def _milliseconds(result: Measured | None) -> tuple[str, str]:
    """Time of a step or sample, and of the model alone."""
    if result is None:
        return NOTHING, NOTHING
    whole = f"{1e3 * result.result['seconds'] / max(1, result.result['env_steps']):.3f}"
    points = result.halting if isinstance(result, Scored) else []
    alone = next((point["seconds_per_sample"] for point in points if point["threshold"] is None), None)
    return whole, NOTHING if alone is None else f"{1e3 * alone:.3f}"
