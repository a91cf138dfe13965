"""``--logger NAME``: built-in loggers, own ones, and what is refused before a run starts."""

import importlib.util
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ctm_rl.agents.loggers import by_name
from ctm_rl.agents.loggers.by_name import build_loggers
from ctm_rl.agents.loggers.csv_file import CsvFile
from ctm_rl.agents.loggers.protocol import Logger
from ctm_rl.cli.main import main
from ctm_rl.errors import UserError

OWN = """
class Own:
    def start(self, experiment, run_dir, resumed_from): ...
    def write(self, row, step): ...
    def truncate(self, iteration): ...
    def close(self): ...

class Half:
    def write(self, row, step): ...

class Broken(Own):
    def __init__(self): raise ValueError("no address.")

class Greedy(Own):
    def __init__(self, url): ...
"""


@pytest.fixture
def own_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (place / "own_loggers.py").write_text(OWN)
    monkeypatch.syspath_prepend(place)
    yield place
    sys.modules.pop("own_loggers", None)


@pytest.mark.usefixtures("own_folder")
def test_loggers_are_built_in_declared_or_of_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = {"mine": EntryPoint("mine", "own_loggers:Own", "ctm_rl.loggers")}
    monkeypatch.setattr(by_name, "declared_code", lambda group: declared if group == "ctm_rl.loggers" else {})
    made = build_loggers(("csv", "own_loggers:Own", "mine"))
    assert [type(logger).__name__ for logger in made.values()] == ["CsvFile", "Own", "Own"]
    assert all(isinstance(logger, Logger) for logger in made.values())
    assert isinstance(made["csv"], CsvFile)


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("aim", "--logger must be one of tensorboard, csv, wandb, mlflow, or module:Class of your own, got 'aim'"),
        ("nowhere:Own", "--logger nowhere:Own: there is no module nowhere in this folder, nor is it installed"),
        ("own_loggers:Owm", "--logger own_loggers:Owm: own_loggers has no Owm; it has Broken, Greedy, Half, Own"),
        ("own_loggers:Half", "must have the methods start, write, truncate, close; it has no start, truncate, close"),
        ("own_loggers:Broken", "--logger own_loggers:Broken cannot be made: ValueError: no address."),
        ("own_loggers:Greedy", "cannot be made: TypeError: "),
    ],
)
def test_what_is_no_logger_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        build_loggers((name,))
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "package"), [("wandb", "wandb"), ("mlflow", "mlflow"), ("mlflow", "sqlalchemy"), ("mlflow", "alembic")]
)
def test_a_missing_package_is_reported_before_the_start(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, package: str
) -> None:
    find = importlib.util.find_spec
    with monkeypatch.context() as patch:
        found = {"wandb", "mlflow", "sqlalchemy", "alembic"} - {package}
        is_there = dict.fromkeys(found, object()) | {package: None}
        patch.setattr(
            importlib.util, "find_spec", lambda name, *at: is_there.get(name) if name in is_there else find(name, *at)
        )
        assert main(["train", "cartpole", "--logger", "tensorboard", name, "--run-dir", "a"]) == 2
    expected = f'ctm-rl: --logger {name} needs {package}, which is not installed: pip install "ctm-rl[{name}]".\n'
    assert capsys.readouterr().err == expected
    assert list(place.iterdir()) == []
