"""Reports of runs of either kind, with what there is of them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from answering_runs import small_experiment, write_run

from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.experiments.answering import TaskConfig
from ctm_rl.agents.report import report as reports
from ctm_rl.agents.report.document import Code, Document, Section, Table
from ctm_rl.agents.report.report import Found, ReportOptions, document_of, make_report
from ctm_rl.agents.report.run_facts import facts_section
from ctm_rl.agents.run_directory.directory import CONFIG_FILE, config_of, write_config
from ctm_rl.checkpoints import store
from ctm_rl.cli.main import main
from ctm_rl.config import PolicyConfig
from ctm_rl.configs import load
from ctm_rl.errors import UserError
from ctm_rl.inference.policy import POLICY_ENTRY, describe
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.actions import Choices
from ctm_rl.spaces.observations import vector_layout

POLICY = PolicyConfig(
    num_neurons=16, num_output_sync_neurons=4, history_length=3, num_ticks=2, feature_dim=5, head_dims=(6,),
    encoder="control",
)  # fmt: skip


def section(document: Document, name: str) -> Section:
    """The section of that name."""
    (found,) = [one for one in document.sections if one.name == name]
    return found


def facts(document: Document) -> dict[str, str]:
    """What ran, by name."""
    table = section(document, "run").figures[0]
    assert isinstance(table, Table)
    return {row[0]: row[1] for row in table.rows}


def test_a_policy_has_its_facts_and_curves(tmp_path: Path) -> None:
    torch.manual_seed(5)
    experiment = ActingExperiment(name="diary", env=EnvConfig(id="CartPole-v1"), model=POLICY)
    write_config(tmp_path, config_of(experiment))
    agent = ActorCritic(POLICY, vector_layout(4), Choices(sizes=(2,)))
    store.save(tmp_path, 7, {POLICY_ENTRY: describe(agent)})
    rows = [{"iteration": 7, "env_steps": 700, "seconds": 7.0, "episode_return_mean": 21.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{row}\n".replace("'", '"') for row in rows))
    document = make_report(tmp_path, ReportOptions(samples=1))
    assert document.title == "diary"
    found = facts(document)
    assert found["experiment"] == "diary, learns to act"
    assert found["parameters"] == f"{sum(parameter.numel() for parameter in agent.parameters()):,}"
    assert found["speed"] == "100 environment steps per second"
    assert found["checkpoint shown"] == "iteration 7"
    (chart,) = section(document, "learning").figures
    assert chart.title == "Return in training"
    assert [one.name for one in document.sections] == ["live", "episodes", "decisions", "learning", "memory", "run"]
    with pytest.raises(UserError, match="--episodes is for models that answer"):
        make_report(tmp_path, ReportOptions(episodes=3))


def test_an_environment_that_is_gone_leaves_the_rest(tmp_path: Path) -> None:
    experiment = ActingExperiment(name="diary", env=EnvConfig(id="Gone-v3"), model=POLICY)
    write_config(tmp_path, config_of(experiment))
    store.save(tmp_path, 7, {POLICY_ENTRY: describe(ActorCritic(POLICY, vector_layout(4), Choices(sizes=(2,))))})
    document = make_report(tmp_path, ReportOptions())
    assert [one.name for one in document.sections] == ["memory", "run"]
    assert "Gone-v3" in document.notes[0]


def test_the_command_makes_the_same_run_again(place: Path) -> None:
    experiment = small_experiment("parity", kind="mlp")
    write_run(Path("run"), experiment)
    document = make_report("run", ReportOptions(samples=1, episodes=10))
    commands = next(one for one in section(document, "run").figures if one.title == "Commands")
    assert isinstance(commands, Code)
    assert commands.text.splitlines()[0] == "ctm-rl train --config run/config.json --run-dir runs/parity-again"
    configuration = section(document, "run").figures[-1]
    assert isinstance(configuration, Code)
    assert configuration.is_folded
    assert configuration.text + "\n" == Path("run", CONFIG_FILE).read_text()


def test_a_run_without_a_path_is_named_and_not_resumed() -> None:
    commands = facts_section(Path("installed"), small_experiment("mazes"), [], None, None, "zoo:mazes").figures[1]
    assert isinstance(commands, Code)
    assert commands.text.splitlines() == [
        "ctm-rl train --config zoo:mazes --run-dir runs/mazes-again",
        "ctm-rl evaluate zoo:mazes",
    ]


def test_a_page_has_no_secrets_of_addresses() -> None:
    experiment = small_experiment("parity")
    env = replace(experiment.env, kwargs={"source": "https://me:swordfish@host/data"})
    figures = facts_section(Path("run"), replace(experiment, env=env), [], None, None).figures
    document = document_of(Path("run"), Found(None, None, None), ["https://me:swordfish@host is gone."], [])
    for part in (figures, document.notes):
        assert "https://" in str(part)
        assert "swordfish" not in str(part)


@pytest.mark.parametrize("name", ["ctm_sort.pt", "ctm_parity_random.pt"])
def test_imported_checkpoints_have_a_page(name: str, place: Path, golden_dir: Path) -> None:
    assert main(["import", str(golden_dir / name), "--run-dir", "run"]) == 0
    document = make_report("run", ReportOptions(samples=2, episodes=10))
    assert {one.name for one in document.sections} >= {"run", "answers", "samples", "neurons"}


def test_own_tasks_have_a_page(place: Path) -> None:
    base = small_experiment("parity")
    model = replace(base.model, encoder="none", positions="none", num_heads=0, num_action_sync_neurons=0)
    experiment = replace(base, name="own", env=TaskConfig(id="own_tasks:Larger"), model=model)
    write_run(Path("run"), experiment)
    document = make_report("run", ReportOptions(samples=2, episodes=20, trust=True))
    titles = [figure.title for figure in section(document, "samples").samples[0].figures]
    assert {"Answer", "Input", "Probability of the right class of each element", "Neurons"} <= set(titles)


def test_experiments_of_the_package_have_sizes(tmp_path: Path) -> None:
    experiment = load("cartpole")
    write_config(tmp_path, config_of(experiment))
    document = make_report(tmp_path, ReportOptions())
    assert facts(document)["model"] == "ctm, 64 neurons, memory of 10 ticks, 2 ticks, encoder auto"
    assert len(document.notes) == 2


def test_figures_are_made_in_one_thread(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(Path("run"), small_experiment("parity", kind="mlp"))
    make, seen = reports.answering_sections, []
    monkeypatch.setattr(
        reports, "answering_sections", lambda *args: seen.append(torch.get_num_threads()) or make(*args)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        make_report("run", ReportOptions(samples=1, episodes=10))
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)
