"""The zoo that is shipped: every entry reads and does what its results say; and the script that packs it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import make_zoo
import pytest
import torch
from make_zoo import RECIPES, Recipe
from paths import GOLDEN

from ctm_rl.agents import evaluate
from ctm_rl.agents.run_directory.directory import read_config
from ctm_rl.agents.run_directory.made_with import describe_made_with
from ctm_rl.checkpoints import store
from ctm_rl.configs import load
from ctm_rl.errors import UserError
from ctm_rl.zoo import entries
from ctm_rl.zoo.entries import FOLDER, names, read_results

NUM_EPISODES, NUM_SAMPLES = 3, 100


def files_of(folder: Path) -> dict[Path, tuple[int, int]]:
    """All files in a folder with their times and sizes."""
    found = [path for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in found}


@pytest.mark.parametrize("name", names())
def test_an_entry_does_what_its_results_say_and_nothing_is_written(name: str) -> None:
    before = files_of(FOLDER)
    results = read_results(name)
    recorded, measure = results["evaluation"], results["measure"]
    if measure == "episode_return_mean":
        value = evaluate(f"zoo:{name}", episodes=NUM_EPISODES, deterministic=True)[measure]
        low, high = (recorded[f"episode_return_{end}"] for end in ("min", "max"))
        assert low <= value <= high  # the first episodes of those that were recorded
    else:
        value = evaluate(f"zoo:{name}", episodes=NUM_SAMPLES)[measure]
        assert abs(value - recorded[measure]) < 0.1
    assert files_of(FOLDER) == before


@pytest.mark.parametrize("name", names())
def test_an_entry_is_made_by_its_recipe_and_holds_no_place_of_a_machine(name: str) -> None:
    recipe, results = RECIPES[name], read_results(name)
    make_zoo.check_recipe(name, recipe, FOLDER / name)
    assert results["evaluation"][recipe.measure] >= recipe.floor
    assert results["training"]["command"].startswith(f"ctm-rl train {name} --seed ")
    assert describe_made_with(FOLDER / name) is not None
    lines = [json.loads(line) for line in (FOLDER / name / "metrics.jsonl").read_text().splitlines()]
    assert 20 < len(lines) <= make_zoo.MAX_LINES
    assert lines[-1]["env_steps"] >= load(name).budget.env_steps
    state = store.load(store.latest(FOLDER / name))
    assert set(state) in ({"experiment", "policy"}, {"experiment", "model"})
    texts = [path.read_text() for path in (FOLDER / name).rglob("*.json*")]
    assert not any(re.search(r"\"/(?!/)|/(tmp|home|root|work|mnt)/", text) for text in texts)


@pytest.mark.parametrize("name", names())
def test_an_entry_holds_one_checkpoint_and_no_leftovers(name: str) -> None:
    checkpoint, *others = (FOLDER / name / store.FOLDER).iterdir()
    assert others == []
    assert sorted(file.name for file in checkpoint.iterdir()) == [store.STATE_FILE, store.TENSORS_FILE]


def test_the_zoo_is_small() -> None:
    assert sum(make_zoo.size_of(FOLDER / name) for name in names()) <= make_zoo.MAX_BYTES == 8_000_000
    assert set(names()) <= set(RECIPES)
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} - {"__pycache__"} == set(names())


# --- the script ---


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty zoo of its own, for entries that are packed with few samples."""
    for name, number in {"NUM_EPISODES": 10, "NUM_SAMPLES": 100, "NUM_COMPARED": 100}.items():
        monkeypatch.setattr(make_zoo, name, number)
    monkeypatch.setattr(entries, "FOLDER", tmp_path / "zoo")
    monkeypatch.setattr(make_zoo, "check_recipe", lambda *_: None)
    (tmp_path / "zoo").mkdir()
    for name in ("acting", "answering"):
        shutil.copytree(GOLDEN / "runs" / name, tmp_path / name)
    return tmp_path / "zoo"


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """The weights in a run's newest checkpoint."""
    return store.load(store.latest(run))["model"]["weights"]


def test_a_run_is_packed_in_half_precision_and_evaluates_the_same(zoo: Path) -> None:
    run = zoo.parent / "answering"
    results = make_zoo.pack("parity", Recipe("accuracy", 0.0), [run], zoo / "parity")
    assert results == read_results("parity")
    assert results["weights"] == "float16"
    assert results["evaluation"]["accuracy"] == pytest.approx(evaluate(run, episodes=100)["accuracy"], abs=0.02)
    assert evaluate("zoo:parity", episodes=100)["accuracy"] == pytest.approx(
        results["evaluation"]["accuracy"], abs=1e-5
    )
    assert read_config(Path("zoo:parity")).model == read_config(run).model
    packed, before = weights_of(zoo / "parity"), weights_of(run)
    assert {name: value.dtype for name, value in packed.items()} == {name: before[name].dtype for name in before}
    assert all(
        torch.equal(packed[name], before[name].half().float()) for name in dict(weights_of(run)) if "bias" in name
    )
    assert make_zoo.size_of(zoo) < 0.4 * make_zoo.size_of(run / "checkpoints")


def test_a_policy_is_packed_and_replaces_the_entry_before(zoo: Path) -> None:
    recipe = Recipe("episode_return_mean", 0.0)
    (zoo / "cartpole").mkdir()
    (zoo / "cartpole" / "old").touch()
    results = make_zoo.pack("cartpole", recipe, [zoo.parent / "acting"], zoo / "cartpole")
    assert sorted(path.name for path in zoo.iterdir()) == ["cartpole"]
    files = ["checkpoints", "config.json", "metrics.jsonl", "results.json"]
    assert sorted(path.name for path in (zoo / "cartpole").iterdir()) == files
    assert results["half_precision"]["compared"] == 100


def test_weights_that_answer_otherwise_in_half_precision_stay_as_they_are(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_zoo, "compare", lambda *_: 3)
    results = make_zoo.pack("parity", Recipe("accuracy", 0.0), [zoo.parent / "answering"], zoo / "parity")
    assert (results["weights"], results["half_precision"]["differing"]) == ("float32", 3)
    assert len(list((zoo / "parity" / store.FOLDER).iterdir())) == 1
    packed, before = weights_of(zoo / "parity"), weights_of(zoo.parent / "answering")
    assert all(torch.equal(packed[name], before[name]) for name in before)


def test_an_entry_below_its_floor_or_too_large_changes_nothing(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = zoo.parent / "answering"
    with pytest.raises(UserError, match=r"has accuracy 0\.\d+, below the floor of parity, 0\.9\."):
        make_zoo.pack("parity", Recipe("accuracy", 0.9), [run], zoo / "parity")
    monkeypatch.setattr(make_zoo, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"with parity the zoo would have [\d,]+ bytes, and may have 1,000\."):
        make_zoo.pack("parity", Recipe("accuracy", 0.0), [run], zoo / "parity")
    assert list(zoo.iterdir()) == []


def test_a_run_of_another_recipe_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert make_zoo.main(["--from", str(GOLDEN / "runs" / "answering"), "parity"]) == 1
    assert "is not made by the recipe of parity: it has budget.env_steps 32 and not 768000, " in capsys.readouterr().err


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "cartpole", tmp_path / "run")
    make_zoo.check_recipe("cartpole", RECIPES["cartpole"], tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"env_steps": 99000}\n')
    with pytest.raises(UserError, match=r"run is not finished: 99,000 of 100,000 steps; resume it first\."):
        make_zoo.check_recipe("cartpole", RECIPES["cartpole"], tmp_path / "run")


def test_metrics_keep_the_lines_with_the_most_values() -> None:
    lines: list[dict[str, Any]] = [{"iteration": i, "accuracy": 0.5 if i % 7 == 0 else None} for i in range(693)]
    kept = make_zoo.thinned(lines)
    assert len(kept) == make_zoo.MAX_LINES
    assert kept[-1]["iteration"] == 692
    assert sum(line["accuracy"] is not None for line in kept) == 99
    assert make_zoo.thinned(lines[:5]) == lines[:5]
    assert make_zoo.rounded({"a": [1 / 3, float("nan"), 7, True, "text"]}) == {"a": [0.333333, None, 7, True, "text"]}
