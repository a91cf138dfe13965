"""The file of results: runs are added, none is lost, and other files are refused."""

import json
import threading
from pathlib import Path

import pytest
from learning_runs import learned, played_randomly

from ctm_rl.agents.bench.learning import results
from ctm_rl.agents.bench.learning.results import add_run, key_of, read_results
from ctm_rl.errors import UserError


def test_runs_are_added_to_a_file_in_the_order_of_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert read_results(path) == []
    runs = [learned("b", "ctm", 2, [1.0]), learned("b", "ctm", 1, [2.0]), played_randomly("a", 0.5)]
    for run in runs:
        add_run(path, run)
    assert read_results(path) == [runs[2], runs[1], runs[0]]
    assert len(path.read_text().splitlines()) == 5  # one run in each line
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_run_replaces_the_one_of_its_key_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for run in (learned("a", "ctm", 1, [1.0]), learned("a", "ctm", 1, [1.0], env_steps=2000)):
        add_run(path, run)
    add_run(path, learned("a", "ctm", 1, [9.0]))
    assert [(key_of(run).env_steps, run["evaluation"]) for run in read_results(path)] == [(1000, 9.0), (2000, 1.0)]


def test_two_writers_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"

    def write(contender: str) -> None:
        for seed in range(8):
            add_run(path, learned("a", contender, seed, [1.0]))

    threads = [threading.Thread(target=write, args=(name,)) for name in ("ctm", "lstm")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_results(path)) == 16


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    add_run(path, learned("a", "ctm", 1, [1.0]))
    before = path.read_text()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "write_atomically", fail)
    with pytest.raises(UserError, match=r"a\.json cannot be written: No space left on device\."):
        add_run(path, learned("a", "ctm", 2, [1.0]))
    assert path.read_text() == before


@pytest.mark.parametrize(
    "content",
    [
        "nothing",
        "[]",
        "{}",
        '{"runs": [1]}',
        '{"runs": [{"task": "a"}]}',
        json.dumps({"runs": [learned("a", "ctm", 1, [1.0]) | {"curve": [1.0]}]}),
        json.dumps({"runs": [learned("a", "ctm", 1, [1.0]) | {"env_steps": "1"}]}),
        json.dumps({"runs": [learned("a", "ctm", 1, [1.0]) | {"seconds": None}]}),
        json.dumps({"runs": [learned("a", "ppo", 1, [1.0])]}),
    ],
)
def test_another_file_is_refused_and_not_overwritten(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"a\.json is not a file of ctm-rl bench learning; name another one with --out"):
        add_run(path, learned("a", "ctm", 1, [1.0]))
    assert path.read_text() == content
