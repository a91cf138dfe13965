"""Names of the zoo: ``zoo:NAME`` leads to an entry wherever a run is read, and nowhere where one is written."""

from pathlib import Path

import pytest

from ctm_rl import Policy
from ctm_rl.agents import environment_of, resume
from ctm_rl.agents.run_directory.directory import check_free, load_config, read_config
from ctm_rl.agents.run_directory.storage import find_run
from ctm_rl.agents.run_directory.working_directory import with_absolute_paths
from ctm_rl.agents.runs.init_from import read_source
from ctm_rl.checkpoints.best import find, run_of
from ctm_rl.configs import load
from ctm_rl.errors import UserError
from ctm_rl.zoo.entries import FOLDER, is_zoo, locate, names, read_results

ZOO = Path("zoo:cartpole")


def test_a_name_is_located_and_any_other_path_is_left_alone() -> None:
    assert locate("zoo:cartpole") == locate(ZOO) == FOLDER / "cartpole"
    for path in ("runs/a", "~/zoo:cartpole", "/somewhere/zoo:cartpole", "cartpole", "zoo"):
        assert not is_zoo(path)
        assert locate(path) == Path(path)


@pytest.mark.parametrize("place", ["zoo:cartpol", "zoo:", "zoo:..", "zoo:cartpole/..", "zoo:entries.py", "zoo:/etc"])
def test_an_unknown_name_is_refused_with_all_that_there_are(place: str) -> None:
    with pytest.raises(UserError, match="is not in the zoo, which has acrobot, cartpole, ") as error:
        locate(place)
    assert ("did you mean zoo:cartpole?" in str(error.value)) == (place in ("zoo:cartpol", "zoo:cartpole/.."))
    assert str(error.value).startswith(place)


def test_a_folder_of_such_a_name_is_given_by_its_absolute_path(place: Path) -> None:
    folder = place / "zoo:cartpole"
    folder.mkdir()
    assert run_of(Path("zoo:cartpole")) == FOLDER / "cartpole"
    assert run_of(folder) == folder


def test_a_name_is_read_wherever_a_run_is() -> None:
    assert run_of(ZOO) == find(ZOO) == find(ZOO, "last") == find(ZOO, "best") == FOLDER / "cartpole"
    iteration = read_results("zoo:cartpole")["training"]["iteration"]
    assert find(ZOO, iteration).parents[1] == FOLDER / "cartpole"
    assert read_config(ZOO) == load_config(ZOO)
    assert read_config(ZOO).name == "cartpole"
    assert read_source("zoo:cartpole").place == find(ZOO, iteration)
    policy = Policy.from_checkpoint("zoo:cartpole", checkpoint="best")
    environment = environment_of("zoo:cartpole")
    observation, _ = environment.reset(seed=0)
    action, _ = policy.act(observation, policy.initial_state(), deterministic=True)
    assert action in environment.action_space
    environment.close()


def test_a_run_that_begins_with_an_entry_keeps_its_name(place: Path) -> None:
    from dataclasses import replace

    assert with_absolute_paths(replace(load("cartpole"), init_from="zoo:cartpole")).init_from == "zoo:cartpole"
    assert with_absolute_paths(replace(load("cartpole"), init_from="a")).init_from == str(place / "a")


def test_an_entry_is_not_resumed_or_written() -> None:
    for refused in (lambda: resume("zoo:cartpole"), lambda: find_run("zoo:cartpole", None, None)):
        with pytest.raises(UserError, match=r"zoo:cartpole is read-only; .* train cartpole --init-from zoo:cartpole\."):
            refused()
    with pytest.raises(UserError, match="zoo:cartpol is not in the zoo"):
        resume("zoo:cartpol")
    with pytest.raises(UserError, match=r"zoo:new cannot be used: zoo:NAME is a run of the zoo; name another"):
        check_free(Path("zoo:new").absolute())


def test_results_are_read_by_either_name() -> None:
    assert [read_results(name)["name"] for name in names()] == names()
    assert read_results("zoo:cartpole") == read_results("cartpole")
