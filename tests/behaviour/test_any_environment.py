"""Any environment: two iterations and an evaluation on each of many ids, and the table of them that the docs show."""

import json
import os
from pathlib import Path

import pytest
import toy_spaces
from paths import ROOT

from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.cli.main import main
from ctm_rl.inference.load_model import load_model
from ctm_rl.inference.policy import Policy

DOCUMENT = ROOT / "docs" / "environments.md"
WRITE = "CTM_RL_WRITE_DOCS"
"""If this variable is set, the document is rewritten instead of compared."""

CLASSIC = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1")
TOY_TEXT = ("FrozenLake-v1", "Taxi-v3", "CliffWalking-v1", "Blackjack-v1")
MINIGRID = (
    "MiniGrid-Empty-5x5-v0",
    "MiniGrid-DoorKey-5x5-v0",
    "MiniGrid-FourRooms-v0",
    "MiniGrid-MemoryS7-v0",
    "MiniGrid-KeyCorridorS3R1-v0",
    "BabyAI-GoToRedBallGrey-v0",
    "BabyAI-PutNextLocal-v0",
)
TOYS = tuple(f"toy_spaces:toy/{name}-v0" for name in (*toy_spaces.OBSERVED, *toy_spaces.DONE))
ACTING = (*CLASSIC, *TOY_TEXT, *MINIGRID, *TOYS)
ANSWERING = ("parity", "sorting", "mazes", "qa-mnist", "mnist")

TINY = (
    *("--model.num-neurons", "12", "--model.num-output-sync-neurons", "5", "--model.history-length", "3"),
    *("--model.nlm-hidden-dim", "2", "--model.feature-dim", "8"),
)
TINY_ACTING = (
    *TINY,
    *("--model.head-dims", "7", "--model.max-seq-len", "4", "--env.max-episode-steps", "12"),
    *("--num-envs-per-env-runner", "4", "--ppo.num-rollout-steps", "10", "--budget.env-steps", "50"),
    *("--ppo.num-minibatches", "2", "--ppo.num-epochs", "1"),
)
TINY_ANSWERING = (
    *TINY,
    *("--learning.batch-size", "4", "--learning.num-steps-per-iteration", "2", "--budget.env-steps", "16"),
    *("--held-out.num-samples", "4", "--held-out.num-iterations", "2"),
)


@pytest.fixture(scope="module")
def rows() -> dict[str, tuple[str, ...]]:
    """What was found out about each environment, for the table."""
    return {}


def two_iterations_and_an_evaluation(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    """Runs the command line as a user does; returns the result of the evaluation."""
    assert main(["train", *arguments, "--run-dir", "a"]) == 0
    # Where an episode is a step or two, many slots are resets, and the steps come in more iterations.
    assert [row["iteration"] for row in read_metrics(Path("a"))][:2] == [1, 2]
    capsys.readouterr()
    assert main(["evaluate", "a", "--episodes", "3", "--json"]) == 0
    # BabyAI prints of its own.
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("ray_session", "place")
@pytest.mark.parametrize("env_id", ACTING)
def test_a_policy_learns_on_any_environment(
    env_id: str, rows: dict[str, tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    report = two_iterations_and_an_evaluation(("--env", env_id, *TINY_ACTING), capsys)
    assert report["episodes"] == 3
    policy = Policy.from_checkpoint("a")
    seen = "; ".join(str(part).removeprefix("an observation of ") for part in policy.layout.parts)
    rows[env_id] = (seen, str(policy.actions))


@pytest.mark.usefixtures("ray_session", "place")
@pytest.mark.parametrize("name", ANSWERING)
def test_a_model_learns_on_every_single_step_task(
    name: str, rows: dict[str, tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    heads = () if name == "sorting" else ("--model.num-heads", "2")  # a vector has no places to attend to
    two_iterations_and_an_evaluation((name, *TINY_ANSWERING, *heads), capsys)
    experiment = json.loads(Path("a/config.json").read_text())
    config = load_model("a").config
    rows[f"{experiment['env']['id']} ({name})"] = (
        f"for encoder {config.encoder}",
        f"{config.num_groups} answers, one of {config.num_classes}",
    )


def test_the_document_lists_them_all(rows: dict[str, tuple[str, ...]]) -> None:
    if len(rows) < len(ACTING) + len(ANSWERING):
        pytest.skip("needs what every test of this file has found out")
    lines = ["| environment | seen as | done |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {' | '.join(columns)} |" for name, columns in rows.items()]
    table = "\n".join(lines)
    if os.environ.get(WRITE):
        before, _, rest = DOCUMENT.read_text().partition("| environment |")
        DOCUMENT.write_text(before + table + "\n" + rest.partition("\n\n")[2])
    assert table in DOCUMENT.read_text()
