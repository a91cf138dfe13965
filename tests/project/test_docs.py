"""The documents: what is generated is up to date, code and commands in them work, links and paths lead somewhere."""

import os
import re
import shlex
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import make_docs
import numpy as np
import pytest
import yaml
from image_files import random_images, write_folder
from learning_runs import learned, played_randomly
from own_modules import forget_modules
from paths import GOLDEN, ROOT
from shell_commands import COMMANDS, commands_in, understand
from tiny_runs import TINY_ACTING

from ctm_rl.agents.bench.learning.results import add_run
from ctm_rl.checkpoints import store
from ctm_rl.checkpoints.best import save_best
from ctm_rl.cli.main import main
from ctm_rl.errors import UserError

DOCS = ROOT / "docs"
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGES = [*TOP, *sorted(DOCS.rglob("*.md"))]
WRITTEN = [page for page in PAGES if page.parent.name != "api"]
"""Those that people write; the pages of the API hold nothing but names for mkdocstrings."""
CHEAP = ("list", "--help", "--version")
"""Commands that are run wherever they stand."""
RUN_FOR_REAL = (
    "first-ten-minutes.md",
    "data.md",
    "environment.md",
    "encoder.md",
    "task.md",
    "callbacks.md",
    "fine-tuning.md",
    "logs.md",
    "video.md",
    "action-masks.md",
)
"""Pages whose commands are run one after the other, with models and budgets made tiny."""
NOT_TABLES = ("curves", make_docs.LEARNING)
"""Data of results whose tables are computed, or that are drawn."""
SHORT_ACTING = (*TINY_ACTING, "--model.max-seq-len", "4", "--ppo.num-rollout-steps", "10", "--budget.env-steps", "30")
SHORT_ANSWERING = (
    *("--model.num-neurons", "16", "--model.history-length", "3", "--model.num-ticks", "2"),
    *("--model.num-output-sync-neurons", "4"),
    *("--learning.batch-size", "8", "--learning.num-steps-per-iteration", "2", "--budget.env-steps", "16"),
    *("--held-out.num-samples", "8"),
)


class Block(NamedTuple):
    """A fenced block of a document."""

    page: Path
    line: int
    language: str
    title: str | None
    """The file that it is to be saved as."""
    code: str
    reason: str | None
    """Why it is not run, where that is so."""

    def __str__(self) -> str:
        """For messages and the names of tests."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """The fenced blocks of a document, with the reason in the comment before each of them."""
    text = page.read_text()
    pattern = r'(?m)^( *)(?:<!-- not run: (.+) -->\n+ *)?```(\w+)(?: title="([^"]+)")?\n((?:.*\n)*?) *```$'
    for match in re.finditer(pattern, text):
        indent, reason, language, title, code = match.groups()
        code = re.sub(f"(?m)^{indent}", "", code)
        yield Block(page, text[: match.start()].count("\n") + 1, language, title, code, reason)


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SHELL = [block for block in BLOCKS if block.language == "bash"]
LINES = [
    (block, line) for block in SHELL if block.reason is None for line in block.code.replace("\\\n", "").splitlines()
]
RUNNABLE = ("python", "bash", "text", "bibtex", "yaml")
"""Languages of blocks; text is what a command prints."""
FILES = [block for block in BLOCKS if block.language == "yaml" and block.title is not None]
"""Files that commands read."""


def test_every_fence_is_read_as_a_block() -> None:
    assert sum(page.read_text().count("```") for page in PAGES) == 2 * len(BLOCKS)
    assert {block.language for block in BLOCKS} <= set(RUNNABLE)
    assert len(LINES) > 60
    assert {block.page.name for block in BLOCKS if block.title and block not in FILES} <= set(RUN_FOR_REAL)
    assert sum(block.language == "python" for block in BLOCKS) >= 12


# --- what is generated ---


def test_what_is_generated_is_what_is_committed() -> None:
    stale = [path for path, text in make_docs.generate().items() if (ROOT / path).read_text() != text]
    assert stale == [], "run python scripts/make_docs.py"


def test_every_table_of_results_is_shown() -> None:
    shown = {match.group(2, 3) for page in WRITTEN for match in make_docs.TABLE.finditer(page.read_text())}
    there = {(path.stem, name) for path in (DOCS / "results" / "data").glob("*.json") for name in tables(path)}
    assert shown == {*there, (make_docs.SUMMARY, None), (make_docs.ZOO, None)}


def tables(path: Path) -> list[str]:
    """The names of the tables in a file of results."""
    if path.stem == make_docs.LEARNING:
        return list(make_docs.LEARNING_TABLES)
    return [] if path.stem in NOT_TABLES else list(make_docs.read_tables(ROOT, path.stem))


def test_no_table_of_results_holds_a_row_twice() -> None:
    data = [path for path in (DOCS / "results" / "data").glob("*.json") if path.stem not in NOT_TABLES]
    for path in data:
        for name, table in make_docs.read_tables(ROOT, path.stem).items():
            assert all(table["rows"].count(row) == 1 for row in table["rows"]), f"{path.stem} {name}"


def test_a_table_is_written_from_its_data(tmp_path: Path) -> None:
    data = tmp_path / make_docs.DATA
    data.mkdir(parents=True)
    (data / "some.json").write_text(
        '{"tables": {"one": {"columns": [["a", "A", "{:,} s"], ["b", "B", "{}"]], "rows": [{"a": 1500, "b": null}]}}}'
    )
    text = "before\n<!-- table: some one -->\nold\n<!-- end of table -->\nafter\n"
    table = "| A | B |\n| --- | --- |\n| 1,500 s |  |\n"
    expected = f"before\n<!-- table: some one -->\n\n{table}\n<!-- end of table -->\nafter\n"
    assert make_docs.fill(tmp_path, text) == expected
    assert make_docs.fill(tmp_path, expected) == expected


@pytest.fixture
def learning_file(tmp_path: Path) -> Path:
    """A folder whose data has the runs of a single contender."""
    path = tmp_path / make_docs.DATA / "learning.json"
    path.parent.mkdir(parents=True)
    add_run(path, played_randomly("cartpole", 20.0))
    for seed, end in ((1, 500.0), (2, 260.0)):
        add_run(path, learned("cartpole", "ctm", seed, [20.0, end]))
    return tmp_path


def test_learning_curves_are_written_from_few_runs(learning_file: Path) -> None:
    section = make_docs.learning_content(learning_file, "tasks")
    assert section.startswith("### cartpole, 1,000 steps\n\nRandom policy 20, reference 500.\n\n| contender | seeds |")
    assert "| ctm | 2 | 37.5 (25.0 to 50.0) | 380 (260 to 500) | 380 (260 to 500) | 1.0 |" in section
    assert "](images/learning-cartpole-1000.svg)" in section
    assert make_docs.learning_content(learning_file, "differences") == "No two contenders on the same task yet.\n"
    assert "| ctm | 1 | 37.5 " in make_docs.learning_content(learning_file, "aggregate")
    ((path, image),) = make_docs.learning_curves(learning_file).items()
    assert path == Path("docs", "results", "images", "learning-cartpole-1000.svg")
    shapes = [element.tag.rpartition("}")[2] for element in ElementTree.fromstring(image)]
    assert (shapes.count("polygon"), shapes.count("polyline")) == (1, 1)


def test_learning_without_runs_says_so(tmp_path: Path) -> None:
    assert {make_docs.learning_content(tmp_path, name) for name in make_docs.LEARNING_TABLES} == {"No runs yet.\n"}
    assert make_docs.learning_curves(tmp_path) == {}


@pytest.mark.parametrize(
    ("ends", "expected"),
    [((20.0, 500.0), (0.0, 500.0)), ((-1180.0, -205.0), (-1200.0, 0.0)), ((0.1, 0.95), (0.0, 1.0)), ((0, 0), None)],
)
def test_an_axis_has_short_numbers(ends: tuple[float, float], expected: tuple[float, float] | None) -> None:
    low, high = make_docs.nice_range(*ends)
    assert low <= ends[0] and high >= ends[1] and high > low
    assert expected is None or (low, high) == pytest.approx(expected)


# --- the README ---


def test_the_readme_is_short_and_not_wrapped_by_hand() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1200
    prose = re.sub(r"(?ms)^```.*?^```$", "", text)
    paragraphs = re.findall(r"(?m)^(?![|#<>*!\s-]).+\n(?![|#<>*!\s-]).+$", prose)
    assert paragraphs == []


# --- code and commands ---


@pytest.fixture(scope="session")
def acting_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has a best checkpoint."""
    run = tmp_path_factory.mktemp("runs") / "acting"
    shutil.copytree(GOLDEN / "runs" / "acting", run)
    newest = store.latest(run)
    save_best(run, store.load(newest), iteration=store.iteration_of(newest), metric="eval_return_mean", value=1.0)
    return run


@pytest.fixture
def place(tmp_path: Path, acting_run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory that leaves no trace in this process, with the runs and data that documents speak of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    for name in ("a", "first"):
        shutil.copytree(acting_run, tmp_path / "runs" / name)
    shutil.copytree(GOLDEN / "runs" / "answering", tmp_path / "runs" / "parity")
    shutil.copy(GOLDEN / "ctm_parity_random.pt", tmp_path / "checkpoint.pt")
    for block in FILES:
        (tmp_path / str(block.title)).write_text(block.code)
    for name in ("one", "two"):
        write_folder(tmp_path / "digits", name, random_images(5, 8, 8, 1), [0] * 5)
    np.savez(tmp_path / "points.npz", x=np.arange(40.0).reshape(20, 2), y=["a", "b"] * 10)
    yield tmp_path
    forget_modules(tmp_path)


def write_modules(page: Path, folder: Path) -> None:
    """Saves the modules that a page shows."""
    for block in blocks_of(page):
        if block.title is not None:
            (folder / block.title).write_text(block.code)


PYTHON = [page for page in WRITTEN if any(block.language == "python" and not block.title for block in blocks_of(page))]
"""Pages with code; a block with a title is a module, which the commands of its page import."""


@pytest.mark.usefixtures("ray_session", "place")
@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.name)
def test_python_in_a_document_runs(page: Path) -> None:
    names: dict[str, Any] = {"__name__": page.stem}
    for block in blocks_of(page):
        if block.language == "python" and block.reason is None and block.title is None:
            exec(compile(block.code, str(block), "exec"), names)
    if hasattr(names.get("algorithm"), "stop"):
        names["algorithm"].stop()


@pytest.mark.parametrize(("block", "line"), LINES, ids=[f"{block}-{line[:40]}" for block, line in LINES])
def test_a_line_of_shell_is_a_command_that_would_be_accepted(
    block: Block, line: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_modules(block.page, place)
    program, *words = shlex.split(line)
    assert program == "ctm-rl", f"{block}: say why {line!r} is not run: <!-- not run: REASON -->"
    if words[-1] in CHEAP or "--print-config" in words:
        assert main(words) == 0
        assert capsys.readouterr().out
    else:
        assert words[0] in COMMANDS
        understand(words)


def in_prose(page: Path) -> Iterator[list[str]]:
    """The commands in a document's text and tables, but for those that only show a form, as ``train NAME``."""
    text = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text())
    for words in commands_in("\n".join(re.findall(r"`(ctm-rl [^`]+)`", text))):
        is_of_a_file = "--config" in words  # which a run of the page has written
        if (
            len(words) > 1
            and not is_of_a_file
            and not any(re.fullmatch(r"[A-Z_]+|\.\.\.|.*=VALUES", word) for word in words[1:])
        ):
            yield words


def test_commands_in_the_text_of_documents_would_be_accepted(place: Path) -> None:
    for page in WRITTEN:
        write_modules(page, place)
    found = [(page.name, words) for page in WRITTEN if page.name != "CHANGELOG.md" for words in in_prose(page)]
    assert sum(name == "README.md" for name, _ in found) >= 8  # its table of results
    for name, words in found:
        try:
            understand([word for word in words if word not in ("--help", "--help-all")])
        except UserError as error:
            pytest.fail(f"{name}: ctm-rl {shlex.join(words)}: {error}")


@pytest.mark.slow
@pytest.mark.timeout(6000)
def test_the_readme_runs_as_printed(tmp_path: Path) -> None:
    """In a clone and a new environment, which sees the installed packages so that pip need not fetch them again."""
    page = ROOT / "README.md"
    venv.create(tmp_path / "venv", with_pip=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (packages / "parent.pth").write_text("\n".join(site.getsitepackages()))
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PATH"] = f"{tmp_path / 'venv' / 'bin'}{os.pathsep}{environment['PATH']}"
    clone, install = (block for block in blocks_of(page) if block.language == "bash")
    lines = [clone.code.replace("<repository-url>", str(ROOT)), *install.code.splitlines()]
    assert lines[2].endswith("&& pytest")
    lines[2] += " --version"  # this is one of its tests
    place = tmp_path
    for line in lines:
        subprocess.run(["bash", "-ec", line], cwd=place, env=environment, check=True)
        place = tmp_path / "ctm_rl"
    assert len(list((place / "runs").glob("cartpole-*/checkpoints"))) == 1
    for block in blocks_of(page):
        if block.language == "python":
            subprocess.run(
                [tmp_path / "venv" / "bin" / "python", "-c", block.code], cwd=place, env=environment, check=True
            )


def test_a_command_that_would_be_refused_is_found() -> None:
    with pytest.raises(UserError, match="num-tick"):
        understand(["train", "cartpole", "--model.num-tick", "2"])


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("name", RUN_FOR_REAL)
def test_the_commands_of_a_page_run_one_after_the_other(name: str, place: Path) -> None:
    (page,) = (page for page in PAGES if page.name == name and page.parent in (DOCS, DOCS / "guides"))
    shutil.rmtree(place / "runs")
    write_modules(page, place)
    num_trained = 0
    for block in blocks_of(page):
        if block.language != "bash" or block.reason is not None:
            continue
        for line in block.code.splitlines():
            words = shlex.split(line)[1:]
            # What comes last counts; a run is named so that the lines after it find it.
            assert main([*words, *shortened(words, num_trained)]) == 0
            num_trained += words[0] == "train"
    assert num_trained >= 1


def shortened(words: list[str], number: int) -> tuple[str, ...]:
    """Options that make a command short."""
    if words[0] == "evaluate":
        return ("--episodes", "2")
    if words[0] in ("record", "enjoy"):
        return ("--steps", "2")
    if words[0] == "resume":
        return ("--budget.env-steps", "60")
    if words[0] != "train":
        return ()
    run_dir = () if "--run-dir" in words else ("--run-dir", f"runs/{number}")
    is_answering = words[1] in ("parity", "mnist", "--data", "--task")
    # this Ray was started elsewhere: a process for evaluations would not find the page's modules
    no_eval = ("--eval.every", "None") if "--eval.every" in words else ()
    return (*(SHORT_ANSWERING if is_answering else SHORT_ACTING), *no_eval, *run_dir)


# --- links and paths ---


def targets_of(page: Path) -> Iterator[str]:
    """Where a document's links and images lead, outside of code."""
    text = re.sub(r"(?ms)^ *```.*?^ *```$|`[^`\n]*`", "", page.read_text())
    yield from re.findall(r"\]\(([^)\s]+)\)", text)
    yield from re.findall(r'(?:src|srcset|href)="([^"]+)"', text)


def anchors_of(page: Path) -> set[str]:
    """The anchors of a document's headings."""
    titles = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_images_lead_somewhere(page: Path) -> None:
    for target in targets_of(page):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.removesuffix("#only-light").removesuffix("#only-dark").partition("#")
        found = (page.parent / path) if path else page
        assert found.is_file(), f"{page.name} links to {target}"
        # A page of the site cannot lead out of it.
        assert page.parent == ROOT or found.resolve().is_relative_to(DOCS)
        assert not anchor or anchor in anchors_of(found), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_document_names_are_there(page: Path) -> None:
    text = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text())
    roots = "ctm_rl|agents|envs|configs|tests|scripts|docs|deploy"
    names = re.findall(rf"`((?:{roots})/[\w./-]*)`", text)
    # A source archive has the folders where the links in ctm_rl/ lead.
    places = (ROOT, ROOT / "ctm_rl")
    assert [name for name in names if "NAME" not in name and not any((root / name).exists() for root in places)] == []


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    def pages(item: Any) -> Iterator[str]:
        if isinstance(item, str):
            yield item
        else:
            for inner in item.values() if isinstance(item, dict) else item:
                yield from pages(inner)

    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = list(pages(config["nav"]))
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES if page.is_relative_to(DOCS))


def test_images_are_small() -> None:
    assert {path.name for path in DOCS.rglob("*.png") if path.stat().st_size > 300_000} == set()
    assert (DOCS / "images").is_dir()


def test_the_citation_names_this_version() -> None:
    import ctm_rl

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["version"] == ctm_rl.__version__
    assert f"\n## {ctm_rl.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_hooks_download_nothing() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {repository["repo"] for repository in hooks["repos"]} == {"local"}
    assert ".ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
