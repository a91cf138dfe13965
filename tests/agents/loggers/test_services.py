"""W&B offline and MLflow's SQLite hold what ``metrics.jsonl`` holds, also after a kill; needs their extras."""

import contextlib
import logging
import os
from pathlib import Path

import pytest
from logged import Points, history_of, points_of_metrics, points_of_mlflow, points_of_wandb

from ctm_rl.agents.loggers.by_name import build_loggers
from ctm_rl.agents.loggers.metrics_log import MetricsLog
from ctm_rl.agents.loggers.protocol import VIDEO_TAG, LoggedVideo
from ctm_rl.agents.loggers.run_ids import read_run_id, write_run_id
from ctm_rl.agents.run_directory.progress import Row
from ctm_rl.configs import load

METRICS = ("iteration", "env_steps", "total_loss")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def nobody_is_logged_in(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_")) or name == "NETRC"]:
        monkeypatch.delenv(name)


def open_log(run_dir: Path, name: str, iteration: int | None) -> "contextlib.closing[MetricsLog]":
    """The log of a run with one logger."""
    is_resumed, experiment = iteration is not None, load("cartpole")
    log = MetricsLog(experiment, run_dir, iteration or 0, build_loggers((name,)), METRICS, is_resumed=is_resumed)
    return contextlib.closing(log)


def row(iteration: int, steps: int) -> Row:
    """A row of metrics."""
    return {"iteration": iteration, "env_steps": steps, "total_loss": steps / 7 if iteration > 1 else None}


def logged_in(run_dir: Path, name: str) -> Points:
    """What a logger has written."""
    return points_of_wandb(run_dir) if name == "wandb" else points_of_mlflow(run_dir / "mlflow.db")


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_service_holds_the_metrics_once_after_cuts_and_resuming(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    pytest.importorskip(name)
    with open_log(tmp_path, name, None) as log:
        for iteration in (1, 2, 3, 4):
            log.write(row(iteration, 40 * iteration))
        log.truncate(2)
        log.write(row(3, 119))
    first = read_run_id(tmp_path, name)
    assert logged_in(tmp_path, name) == points_of_metrics(tmp_path)
    with open_log(tmp_path, name, 1) as log:
        for iteration in (2, 3):
            log.write(row(iteration, 40 * iteration - 2))
    with open_log(tmp_path, name, 3) as log:
        log.write(row(4, 158))
    assert logged_in(tmp_path, name) == points_of_metrics(tmp_path)
    assert points_of_metrics(tmp_path)["time/iteration"] == [(40, 1), (78, 2), (118, 3), (158, 4)]
    assert read_run_id(tmp_path, name) == first is not None
    assert [item.message for item in caplog.records if item.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_what_a_service_lacks_is_logged_again_from_the_metrics(tmp_path: Path, name: str) -> None:
    pytest.importorskip(name)
    with open_log(tmp_path, "csv", None) as log:
        for iteration in (1, 2, 3):
            log.write(row(iteration, 40 * iteration))
    with open_log(tmp_path, name, 2) as log:
        log.write(row(3, 119))
    assert logged_in(tmp_path, name) == points_of_metrics(tmp_path)


@pytest.mark.parametrize("suffix", [".mp4", ".webp"])
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_service_gets_videos_beside_the_metrics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, suffix: str
) -> None:
    pytest.importorskip(name)
    file = tmp_path / "videos" / f"iteration-000001{suffix}"
    file.parent.mkdir()
    file.write_bytes(b"a film")
    with open_log(tmp_path, name, None) as log:
        log.write_video(LoggedVideo(file, lambda: b"GIF89a", (160, 106)), 40)
        for iteration in (1, 2):
            log.write(row(iteration, 40 * iteration))
    assert [item.message for item in caplog.records if item.levelno >= logging.WARNING] == []
    logged = logged_in(tmp_path, name)
    assert {tag: logged[tag] for tag in logged if not tag.startswith(VIDEO_TAG)} == points_of_metrics(tmp_path)
    pattern = "wandb/offline-run-*/files/media/videos/**/*" if name == "wandb" else "mlflow-artifacts/**/video/*"
    (kept,) = (item for item in tmp_path.glob(pattern) if item.is_file())
    is_gif = name == "wandb" and suffix == ".webp"
    assert kept.suffix == (".gif" if is_gif else suffix)
    assert kept.read_bytes() == (b"GIF89a" if is_gif else b"a film")


def test_a_file_of_wandb_is_cut_within_blocks_and_across_them(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from ctm_rl.agents.loggers.wandb_records import cut_file, is_finished, records_of

    with open_log(tmp_path, "wandb", None) as log:
        for iteration in range(1, 400):
            log.write(row(iteration, 40 * iteration))
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert file.stat().st_size > 4 * 32768
    assert is_finished(file)
    data = file.read_bytes()
    for last in (399, 250, 101, 1, 0):
        assert cut_file(file, 40 * last + 39) == (40 * last or None)
        assert [values["time/iteration"] for values in history_of(file)] == list(range(1, last + 1))
        assert is_finished(file) == (last == 399)
    file.write_bytes(data[:-5])
    (*_, end) = records_of(file)
    assert end.end < len(data) - 5
    assert cut_file(file, 10**9) == 40 * 399
    assert file.stat().st_size == end.end


def test_wandb_asks_nothing_and_follows_its_own_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from ctm_rl.agents.loggers.wandb_run import _has_key

    assert not _has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password x")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert _has_key()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with open_log(tmp_path, "wandb", None) as log:
        log.write(row(1, 40))
    assert points_of_wandb(tmp_path) == {}


def test_mlflow_follows_its_variables_and_has_the_fields_as_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

    uri = f"sqlite:///{tmp_path}/elsewhere.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    with open_log(tmp_path, "mlflow", None) as log:
        for iteration in (1, 2, 3):
            log.write(row(iteration, 40 * iteration))
    with open_log(tmp_path, "mlflow", 1) as log:
        for iteration in (2, 3, 4):
            log.write(row(iteration, 40 * iteration))
    assert not (tmp_path / "mlflow.db").exists()
    # Points cannot be removed there: those before the stop remain, and none is there twice.
    assert points_of_mlflow(tmp_path / "elsewhere.db") == points_of_metrics(tmp_path)
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])  # pyright: ignore
    assert (run.info.status, run.info.run_name, run.data.params["ppo.lr"]) == ("FINISHED", tmp_path.name, "0.001")


def test_trials_of_a_sweep_share_a_file_and_an_experiment(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    (tmp_path / "sweep.json").write_text("{}")
    for number in (0, 1):
        run_dir = tmp_path / f"trial-{number}"
        run_dir.mkdir()
        with open_log(run_dir, "mlflow", None) as log:
            log.write(row(1, 40 + number))
    assert points_of_mlflow(tmp_path / "mlflow.db")["time/env_steps"] == [(40, 40), (41, 41)]


def test_the_ids_of_services_stand_side_by_side(tmp_path: Path) -> None:
    assert read_run_id(tmp_path, "wandb") is None
    write_run_id(tmp_path, "wandb", "a")
    write_run_id(tmp_path, "mlflow", "b")
    assert (read_run_id(tmp_path, "wandb"), read_run_id(tmp_path, "mlflow")) == ("a", "b")
    (tmp_path / ".loggers.json").write_text("[1]")
    assert read_run_id(tmp_path, "wandb") is None
