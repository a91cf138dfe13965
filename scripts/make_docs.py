"""Writes the generated parts of the documentation: tables of results, the command line and the experiments.

``python scripts/make_docs.py`` writes them, ``--check`` only reports what is out of date. Tables stand in Markdown
files between ``<!-- table: FILE NAME -->`` and ``<!-- end of table -->`` and come from ``docs/results/data/FILE.json``;
the README's summary picks from the same data. The pages on the command line, the experiments, the API and the notebooks
are generated whole.
"""

import ast
import dataclasses
import html
import inspect
import json
import math
import re
import sys
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = Path("docs", "results", "data")
TABLE = re.compile(r"(<!-- table: ([\w-]+)(?: ([\w-]+))? -->\n).*?(<!-- end of table -->)", re.DOTALL)
SUMMARY = "summary"
"""The README's table; see ``SUMMARY_ROWS``."""
SUMMARY_ROWS = (
    ("acting", "cartpole", 0, 3, "evaluated", "mean return, at most 500; velocities hidden"),
    ("acting", "acrobot", 0, 3, "evaluated", "mean return; velocities hidden"),
    ("acting", "minigrid", 4, 5, "evaluated", "mean return, at most 1"),
    ("answering", "parity", 0, 1, "sequences", "sequences of 16 right"),
    ("answering", "mazes", 0, 1, "routes", "whole routes right"),
    ("answering", "sorting", 0, 1, "sequences", "8 numbers exactly sorted"),
    ("answering", "qa-mnist", 0, 1, "answers", "answers about unseen digits right"),
    ("answering", "mnist", 0, 1, "digits", "digits right"),
)
"""For each row: file and table of its data, the machine's row and the LSTM's, the column, its meaning."""
ZOO = "zoo"
"""The table of the trained runs that are shipped."""
LEARNING = "learning"
"""The file of ``ctm-rl bench learning``, which holds runs in place of tables."""
LEARNING_TABLES = ("tasks", "differences", "counts", "aggregate")
"""What is written from it: a section for each task, and three tables."""
GENERATED = "<!-- Written by scripts/make_docs.py from the code; do not edit. -->\n\n"


def read_tables(root: Path, file: str) -> dict[str, Any]:
    """The tables in a file of results, by name."""
    return json.loads((root / DATA / f"{file}.json").read_text())["tables"]


def to_table(titles: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def formatted(table: dict[str, Any], row: dict[str, Any], key: str) -> str:
    """One cell, in the format of its column; empty where there is no value."""
    (form,) = (form for name, _, form in table["columns"] if name == key)
    value = row.get(key)
    return "" if value is None else form.format(value)


def result_table(root: Path, file: str, name: str) -> str:
    """A table of results, as its file describes it."""
    table = read_tables(root, file)[name]
    keys = [key for key, _, _ in table["columns"]]
    rows = [[formatted(table, row, key) for key in keys] for row in table["rows"]]
    return to_table([title for _, title, _ in table["columns"]], rows)


def summary_table(root: Path) -> str:
    """The README's table: for each task what the machine and an LSTM of as many parameters reach."""
    rows = []
    for file, name, machine, lstm, key, meaning in SUMMARY_ROWS:
        table = read_tables(root, file)[name]
        row = table["rows"][machine]
        seconds = row["seconds"] or row["bar_seconds"]
        values = [formatted(table, table["rows"][index], key) for index in (machine, lstm)]
        rows.append([f"`{row['command']}`", meaning, *values, f"{seconds / 60:.0f} min"])
    return to_table(["command", "measure", "machine", "LSTM", "time"], rows)


def zoo_table() -> str:
    """The table of the zoo, as ``ctm-rl zoo`` prints it."""
    from ctm_rl.cli.zoo import table_rows

    titles, *rows = table_rows()
    return to_table([*titles], [[f"`{name}`", *others] for name, *others in rows])


def fill(root: Path, text: str) -> str:
    """Writes the tables of a text again."""

    def table(match: re.Match[str]) -> str:
        begin, file, name, end = match.groups()
        if file == LEARNING:
            content = learning_content(root, name)
        elif file == ZOO:
            content = zoo_table()
        else:
            content = summary_table(root) if file == SUMMARY else result_table(root, file, name)
        return f"{begin}\n{content}\n{end}"

    return TABLE.sub(table, text)


# --- what is learned in equal steps ---


def learning_runs(root: Path) -> list[dict[str, Any]]:
    """The runs of ``ctm-rl bench learning``; none, where there is no file."""
    from ctm_rl.agents.bench.learning.results import read_results

    return read_results(root / DATA / f"{LEARNING}.json")


def learning_content(root: Path, name: str) -> str:
    """One of ``LEARNING_TABLES`` in Markdown."""
    from ctm_rl.agents.bench.learning import report
    from ctm_rl.agents.bench.learning.scores import summarise

    summary = summarise(learning_runs(root))
    if not summary["tasks"]:
        return "No runs yet.\n"
    if name == "tasks":
        return "\n".join(learning_section(task) for task in summary["tasks"])
    tables = {
        "differences": report.difference_table(summary["tasks"]),
        "counts": report.count_table(summary),
        "aggregate": report.aggregate_table(summary),
    }
    table = tables[name]
    return to_table(*table) if table.rows else "No two contenders on the same task yet.\n"


def learning_section(task: dict[str, Any]) -> str:
    """The section on one task."""
    from ctm_rl.agents.bench.learning import report

    seeds = max(len(one["seeds"]) for one in task["contenders"])
    what = "Mean return of the last 100 training episodes" + (f", mean and range of {seeds} seeds" if seeds > 1 else "")
    return (
        f"### {report.name_of(task)}\n\n{report.scale_line(task).capitalize()}.\n\n"
        f"{to_table(*report.task_table(task))}\n"
        f"![{what}: {task['task']}](images/{learning_image(task['task'], task['env_steps'])})\n"
    )


def learning_image(task: str, env_steps: int) -> str:
    """The file of a task's learning curves."""
    return f"learning-{task}-{env_steps}.svg"


def learning_curves(root: Path) -> dict[Path, str]:
    """The learning curves of all tasks, by their files."""
    from ctm_rl.agents.bench.learning.report import curve_with_range
    from ctm_rl.agents.bench.learning.scores import groups_of

    images = {}
    for group in groups_of(learning_runs(root))[0]:
        lines = []
        for name in group.runs:
            steps, lows, means, highs = curve_with_range(group, name)
            band = list(zip(steps, lows, highs, strict=True))
            lines.append({"name": name, "points": list(zip(steps, means, strict=True)), "band": band})
        ends = [end for line in lines for _, *both in line["band"] for end in both]
        if ends:
            data = {"x": "env steps", "range": nice_range(min(ends), max(ends)), "lines": lines}
            images[DATA.parent / "images" / learning_image(group.task, group.env_steps)] = curve(data)
    return images


def nice_range(low: float, high: float) -> tuple[float, float]:
    """A range that holds two numbers and has four equal parts whose ends are short numbers."""
    sizes = (base * 10.0**power for power in range(-6, 9) for base in (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8))
    for size in sizes:
        start = math.floor(low / size) * size
        if start + 4 * size >= high and size >= 1e-3 * max(abs(low), abs(high)):
            return start, start + 4 * size
    raise ValueError(f"no range for {low} to {high}.")


# --- curves ---

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 300, 56, 36, 16, 44


def curve(data: dict[str, Any]) -> str:
    """Lines over training as an SVG that can be read on light and dark pages.

    A line may have a ``band``: x, the lowest and the highest value there.
    """
    from ctm_rl.agents.bench.learning.report import COLOURS

    right = max(x for line in data["lines"] for x, _ in line["points"])
    low, high = data["range"]

    def place(x: float, y: float) -> str:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / right
        down = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low)
        return f"{across:.1f},{down:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="13" fill="#7d8590">'
    ]
    for y in (low + (high - low) * step / 4 for step in range(5)):
        _, down = place(0, y).split(",")
        parts.append(f'<path d="M{place(0, y)} L{place(right, y)}" stroke="#7d8590" stroke-opacity="0.3"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{down}" text-anchor="end" dominant-baseline="middle">{y:g}</text>')
    step = next(size for power in range(12) for size in (10**power, 2 * 10**power, 5 * 10**power) if 5.5 * size > right)
    for x in range(0, int(right) + 1, step):
        across, _ = place(x, low).split(",")
        parts.append(f'<text x="{across}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:,}</text>')
    for index, line in enumerate(data["lines"]):
        colour = COLOURS[index % len(COLOURS)]
        if band := line.get("band"):
            edge = [(x, low) for x, low, _ in band] + [(x, high) for x, _, high in reversed(band)]
            points = " ".join(place(x, y) for x, y in edge)
            parts.append(f'<polygon points="{points}" fill="{colour}" fill-opacity="0.15"/>')
        points = " ".join(place(x, y) for x, y in line["points"])
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        down = HEIGHT - BOTTOM - 14 - 18 * index
        parts.append(
            f'<text x="{WIDTH - RIGHT - 8}" y="{down}" text-anchor="end" fill="{colour}">{line["name"]}</text>'
        )
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{data["x"]}</text>')
    return "\n".join([*parts, "</svg>", ""])


def curves(root: Path) -> dict[Path, str]:
    """All curves, by their files."""
    data = json.loads((root / DATA / "curves.json").read_text())
    return {DATA.parent / "images" / f"{name}.svg": curve(one) for name, one in data["curves"].items()}


# --- the command line, from the code ---


def descriptions(kind: type[Any]) -> dict[str, str]:
    """The sentence below each field of a dataclass, by field."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, str):
                found[field.target.id] = " ".join(text.split())
    return found


def value_of(hint: Any) -> str:
    """What kind of value an option takes."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return value_of(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"{value_of(arguments[0])}, several"
    if origin is dict:
        return "JSON"
    if arguments:
        return " or ".join(value_of(argument) for argument in arguments)
    return {int: "whole number", float: "number", bool: "`True`, `False`", str: "text", type(None): "`None`"}[hint]


def default_of(field: dataclasses.Field[Any]) -> str:
    """A field's default."""
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`".replace("'", "")
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()!r}`"
    return ""


def options_of(kind: type[Any], prefix: str = "") -> Iterator[list[str]]:
    """The options that a dataclass makes, those of the dataclasses inside it too: name, value, default, meaning."""
    hints, texts = typing.get_type_hints(kind, include_extras=True), descriptions(kind)
    for field in dataclasses.fields(kind):
        hint, text = hints[field.name], texts.get(field.name, "")
        if dataclasses.is_dataclass(hint):
            yield from options_of(typing.cast(type[Any], hint), f"{prefix}{field.name}.")
            continue
        is_positional = "Positional" in str(hint)
        name = field.name.upper() if is_positional else f"--{prefix}{field.name}".replace("_", "-")
        yield [f"`{name}`", value_of(hint), default_of(field), html.escape(text.replace("|", "\\|"), quote=False)]


def option_table(kind: type[Any]) -> str:
    """A dataclass's options as a table."""
    return to_table(["option", "value", "default", "meaning"], list(options_of(kind)))


def command_line_page() -> str:
    """The page on the command line."""
    from ctm_rl.agents import ActingExperiment, AnsweringExperiment
    from ctm_rl.agents.bench.learning.options import LearningOptions
    from ctm_rl.agents.bench.settings import BenchOptions
    from ctm_rl.agents.seeds.options import SeedOptions
    from ctm_rl.agents.tuning.options import TuneOptions
    from ctm_rl.cli import command_options as commands
    from ctm_rl.cli.compare import CompareOptions
    from ctm_rl.cli.report import ReportOptions
    from ctm_rl.cli.video import EnjoyOptions, RecordOptions
    from ctm_rl.cli.watch import WatchOptions

    kinds: dict[str, type[Any]] = {
        "tune": TuneOptions,
        "resume": commands.ResumeOptions,
        "resume, of a search": commands.ResumeSweepOptions,
        "evaluate": commands.EvaluateOptions,
        "zoo": commands.ZooOptions,
        "report": ReportOptions,
        "record": RecordOptions,
        "enjoy": EnjoyOptions,
        "compare": CompareOptions,
        "watch": WatchOptions,
        "import": commands.ImportOptions,
        "cluster-check": commands.ClusterCheckOptions,
        "bench": BenchOptions,
        "bench learning": LearningOptions,
    }
    parts = [
        GENERATED,
        "# Command line\n\n",
        "Every field of an experiment is an option: `--model.num-ticks 4` sets `num_ticks` of the part `model`. "
        "`ctm-rl train EXPERIMENT --help` shows those that matter most with their values in that experiment, "
        "`--help-all` all of them. Whole numbers may be written `1000000`, `1_000_000` or `1e6`.\n\n",
        f"<!-- not run: this is the text of ctm-rl --help -->\n```text\n{commands.USAGE}```\n\n",
        "`python -m ctm_rl` is the same command.\n\n",
        "Exit codes: 0 done; 1 learning or an environment went wrong; 2 a mistake in the command; 128 + N stopped "
        "by signal N, such as 130 (Ctrl-C) or 143 (SIGTERM), after a checkpoint.\n\n",
        "## train\n\n"
        "`--print-config` prints the experiment as JSON, `--print-config yaml` as YAML, and trains nothing; `--config` "
        "reads both again.\n\n",
        option_table(SeedOptions),
        "\n## train: experiments that act\n\n",
        "Defaults are those of the class; an experiment has values of its own.\n\n",
        option_table(ActingExperiment),
        "\n## train: experiments that answer\n\n",
        option_table(AnsweringExperiment),
    ]
    parts += ["\n", names_page()]
    parts += [f"\n## {title}\n\n{inspect.getdoc(kind)}\n\n{option_table(kind)}" for title, kind in kinds.items()]
    return "".join(parts)


def names_page() -> str:
    """The section on the names that other libraries have for options."""
    from ctm_rl.cli.aliases import ALIASES, HINTS

    same = [[f"`{name}`", " or ".join(f"`{option}`" for option in options)] for name, options in ALIASES.items()]
    hints = [[f"`{name}`", hint] for name, hint in HINTS.items()]
    return (
        "## Names of other libraries\n\n"
        "These names of Stable-Baselines3, CleanRL, RLlib, rsl_rl and Lightning, and earlier ones of this command, are "
        f"accepted where a command has the option:\n\n{to_table(['name', 'option here'], same)}\n"
        f"Others mean something else here; the command answers in one line:\n\n{to_table(['name', 'here'], hints)}"
    )


# --- the experiments, from the registry ---


def environment_of(experiment: Any) -> str:
    """An experiment's environment, its arguments and wrappers."""
    env = experiment.env
    kwargs = f" `{json.dumps(env.kwargs)}`" if env.kwargs else ""
    wrappers = "".join(f", `{name}`" for name in getattr(env, "wrappers", ()))
    return f"`{env.id}`{kwargs}{wrappers}"


def experiments_page() -> str:
    """The page on the experiments."""
    from ctm_rl.agents import ActingExperiment
    from ctm_rl.configs import describe, load, names

    titles = ["name", "what it shows", "environment", "neurons D", "history M", "ticks K", "steps or samples"]
    acting: list[list[str]] = []
    answering: list[list[str]] = []
    for name in names():
        experiment = load(name)
        model = experiment.model
        sizes = [f"{size:,}" for size in (model.num_neurons, model.history_length, model.num_ticks)]
        row = [f"`{name}`", describe(name), environment_of(experiment), *sizes, f"{experiment.budget.env_steps:,}"]
        (acting if isinstance(experiment, ActingExperiment) else answering).append(row)
    return (
        f"{GENERATED}# Experiments\n\n"
        "`ctm-rl train NAME` runs one of these; `ctm-rl list` shows the list. Each is a function in the folder "
        "`configs/` that returns one complete, checked value, and any of its fields can be changed on the command "
        "line. Names that end in `-paper` or in a size (`-64`, `-39`, `-d256`), `cifar10`, `cifar100` and `imagenet` "
        "have the published sizes and take long to learn; the others are small enough for two CPU cores.\n\n"
        f"## Experiments that act\n\nReinforcement learning; the budget counts environment steps.\n\n"
        f"{to_table(titles, acting)}\n"
        f"## Experiments that answer\n\nSingle-step tasks; the budget counts samples.\n\n{to_table(titles, answering)}"
    )


# --- the API, for mkdocstrings ---


def exports_of(package: str) -> list[str]:
    """The names that a package exports, as its stub lists them."""
    stub = ast.parse((ROOT / Path(*package.split(".")) / "__init__.pyi").read_text())
    return [str(name.asname) for node in stub.body if isinstance(node, ast.ImportFrom) for name in node.names]


def folders(package: str) -> list[str]:
    """The packages directly inside a package."""
    place = ROOT / Path(*package.split("."))
    inside = (f"{package}.{path.parent.name}" for path in sorted(place.glob("*/__init__.py")))
    return [name for name in inside if name not in EXPORTING]


EXPORTING = ("ctm_rl", "ctm_rl.agents", "ctm_rl.envs")
"""Packages with a stub of their own."""


def exports_page() -> str:
    """The page of what can be imported from the three packages."""
    parts = [
        f"{GENERATED}# API\n\nWhat is meant to be imported by others. The pages beside this one have all modules.\n"
    ]
    for package in EXPORTING:
        parts.append(f"\n## {package}\n")
        parts += [f"\n::: {package}.{name}\n    options:\n      heading_level: 3\n" for name in exports_of(package)]
    return "".join(parts)


def api_pages() -> dict[Path, str]:
    """All pages of the API."""
    place = Path("docs", "api")
    pages = {place / "index.md": exports_page()}
    options = "    options:\n      show_root_heading: false\n      show_submodules: true\n"
    for package in (name for exporting in EXPORTING for name in folders(exporting)):
        page = place / f"{package.removeprefix('ctm_rl.')}.md"
        pages[page] = f"{GENERATED}# {package}\n\n::: {package}\n{options}"
    return pages


# --- the notebooks ---

NOTEBOOKS = Path("docs", "notebooks")
RUN_AS_NOTEBOOK = "<!-- not run: tests/project/test_notebooks.py runs the notebook -->"


def notebook_page(notebook: Path) -> str:
    """A notebook as a page, with the place of the file."""
    parts = [GENERATED.replace("from the code", f"from {notebook.name}")]
    for number, cell in enumerate(json.loads(notebook.read_text())["cells"]):
        # a semicolon keeps a notebook from showing the last value
        text = "".join(cell["source"]).removesuffix(";")
        parts.append(text if cell["cell_type"] == "markdown" else f"{RUN_AS_NOTEBOOK}\n```python\n{text}\n```")
        if number == 0:
            parts.append(f"[The notebook]({notebook.name}), to be run in Jupyter or an editor.")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def notebook_pages(root: Path) -> dict[Path, str]:
    """The pages of all notebooks."""
    notebooks = sorted((root / NOTEBOOKS).glob("*.ipynb"))
    return {NOTEBOOKS / f"{notebook.stem}.md": notebook_page(notebook) for notebook in notebooks}


PAGES = {
    Path("docs", "reference", "command-line.md"): command_line_page,
    Path("docs", "reference", "experiments.md"): experiments_page,
}
"""What is generated whole, beside the API."""


def generate(root: Path = ROOT) -> dict[Path, str]:
    """Every file that has generated parts, with the text that it should have."""
    texts = {path: make() for path, make in PAGES.items()} | api_pages() | notebook_pages(root)
    texts |= curves(root) | learning_curves(root)
    for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        text = path.read_text()
        if TABLE.search(text):
            texts[path.relative_to(root)] = fill(root, text)
    return texts


def main(arguments: list[str]) -> int:
    """Writes what is out of date, or with ``--check`` only names it; the exit code is then 1."""
    texts = generate()
    stale = [path for path, text in texts.items() if not (ROOT / path).exists() or (ROOT / path).read_text() != text]
    for path in stale:
        if "--check" not in arguments:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(texts[path])
        print(path)
    return int("--check" in arguments and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
