"""The commands of ctm-rl that a document shows, read by the command line's own parser without being run."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

from ctm_rl.agents.bench.learning.options import LearningOptions
from ctm_rl.agents.bench.learning.study import check_fields
from ctm_rl.agents.bench.learning.tasks import arguments_of
from ctm_rl.agents.bench.settings import CLUSTER, LEARNING, SCALING, BenchOptions
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.seeds.options import SeedOptions
from ctm_rl.agents.tuning.options import TuneOptions
from ctm_rl.cli.check_arguments import divide, parse
from ctm_rl.cli.choose import choose, read_experiment
from ctm_rl.cli.command_options import ClusterCheckOptions, EvaluateOptions, ImportOptions, ResumeOptions, ZooOptions
from ctm_rl.cli.compare import CompareOptions
from ctm_rl.cli.main import split_form
from ctm_rl.cli.report import ReportOptions
from ctm_rl.cli.video import EnjoyOptions, RecordOptions
from ctm_rl.cli.watch import WatchOptions
from ctm_rl.configs import load


def commands_in(text: str) -> Iterator[list[str]]:
    """The commands of ctm-rl in a text, and those given to slurm.sh, which adds an address."""
    text = re.sub(r"\\?\n\s*(?=--)|\\\n", " ", re.sub(r"(?m)^# ", "", text))
    for start, rest in re.findall(r"(\bctm-rl|sbatch deploy/slurm\.sh) ([a-z-]+(?: [^\n`'\";|]*)?)", text):
        words = shlex.split(rest.partition("#")[0])
        if words[0] in COMMANDS:
            yield [*words, *(("--address", "auto") if start.startswith("sbatch") else ())]


def understand(words: list[str]) -> AnyExperiment | None:
    """Reads a command, without running it; returns the experiment of one that trains.

    Raises:
        UserError: it would be refused.
    """
    name, *arguments = words
    return COMMANDS[name](arguments)


def _train(arguments: list[str]) -> AnyExperiment:
    """As ``ctm-rl train`` does."""
    _, arguments = split_form(arguments)
    own, others = divide(SeedOptions, arguments)
    parse(SeedOptions, own, "ctm-rl train")
    return read_experiment("train", others, also=SeedOptions)


def _tune(arguments: list[str]) -> AnyExperiment:
    """As ``ctm-rl tune`` does."""
    own, others = divide(TuneOptions, arguments)
    parse(TuneOptions, own, "ctm-rl tune")
    return read_experiment("tune", others, also=TuneOptions)


def _bench(arguments: list[str]) -> None:
    """As ``ctm-rl bench`` does."""
    if arguments[:1] == [LEARNING]:
        own, fields = divide(LearningOptions, arguments[1:])
        options = parse(LearningOptions, own, "ctm-rl bench learning")
        check_fields(options, fields)
        for name in options.tasks if fields else ():
            read_experiment("bench learning", [*arguments_of(name), *fields], also=LearningOptions)
        return
    if arguments[:1] in ([SCALING], [CLUSTER], ["envs"]):
        arguments = arguments[1:]
    own, others = divide(BenchOptions, arguments)
    parse(BenchOptions, own, "ctm-rl bench")
    experiment, rest, prog = choose("bench", others, load("cartpole-paper"))
    parse(type(experiment), rest, prog, default=experiment, also=BenchOptions)


def _options(kind: type[Any], name: str) -> Any:
    """A command that has nothing but options."""

    def read(arguments: list[str]) -> None:
        parse(kind, arguments, f"ctm-rl {name}")

    return read


COMMANDS: dict[str, Any] = {
    "train": _train,
    "tune": _tune,
    "bench": _bench,
    "resume": _options(ResumeOptions, "resume"),
    "evaluate": _options(EvaluateOptions, "evaluate"),
    "zoo": _options(ZooOptions, "zoo"),
    "report": _options(ReportOptions, "report"),
    "record": _options(RecordOptions, "record"),
    "enjoy": _options(EnjoyOptions, "enjoy"),
    "compare": _options(CompareOptions, "compare"),
    "watch": _options(WatchOptions, "watch"),
    "import": _options(ImportOptions, "import"),
    "cluster-check": _options(ClusterCheckOptions, "cluster-check"),
}
"""Every command that takes arguments."""
