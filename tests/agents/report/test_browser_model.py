"""The machine in the page's JavaScript equals the one in PyTorch; run by node, where there is one."""

import base64
import copy
import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from machines import MachineCase, acting, answering, shipped
from paths import ROOT, TESTS

from ctm_rl.agents.evaluation.load import load_trained
from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.report import browser_model
from ctm_rl.agents.report.browser_model import export_machine, find_obstacle, live_section
from ctm_rl.agents.report.document import to_plain
from ctm_rl.agents.rllib.environment import make_env
from ctm_rl.config import AnswerConfig
from ctm_rl.configs.cartpole import cartpole
from ctm_rl.configs.mazes import mazes
from ctm_rl.configs.parity import parity
from ctm_rl.configs.sorting import sorting
from ctm_rl.envs.tasks.maze_images import GOAL, PALETTE, START, as_codes, locate
from ctm_rl.envs.tasks.maze_moves import WAIT, follow, reapply
from ctm_rl.envs.tasks.maze_solver import solve
from ctm_rl.envs.tasks.mazes import MazeTask
from ctm_rl.envs.tasks.parity import ParityTask
from ctm_rl.inference.policy import Policy
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.answering import ContinuousThoughtMachine, build_model

RUNS = "CTM_RL_LIVE_RUNS"
"""Environment variable with directories of trained runs, separated by colons, that the slow test compares too."""
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="there is no node to run the page's JavaScript with")


def run_javascript(cases: list[dict[str, Any]]) -> list[Any]:
    """The results of cases for tests/helpers/run_machine.js."""
    assert NODE is not None
    command = [NODE, str(TESTS / "helpers" / "run_machine.js"), str(ROOT / "agents" / "report" / "assets")]
    done = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


CASES = {
    "maze": lambda: answering(mazes(), 7, 3),
    "maze, strides, U-Net, window": lambda: answering(
        mazes(), 7, 2, encoder="resnet18-2", synapse_depth=3, sync_window=True, use_nlm_norm=True, positions="fourier"
    ),
    "maze, bottlenecks, shallow": lambda: answering(mazes(), 5, 2, encoder="resnet50-1", is_nlm_deep=False),
    "parity": lambda: answering(parity(), 9, 4, num_synapse_blocks=2),
    "parity, all pairs, first order, U-Net": lambda: answering(
        parity(), 9, 4, pairing="first-last", use_first_order=True, synapse_depth=2
    ),
    "parity, first order, window": lambda: answering(parity(), 5, 3, use_first_order=True, sync_window=True),
    "cartpole": lambda: acting(20),
    "cartpole, as published": lambda: acting(
        20, normalize_observations=False, use_first_order=False, sync_window=True, critic="own"
    ),
    "cartpole, first order, window": lambda: acting(10, sync_window=True, is_state_carried=False),
}


def inputs_of(compared: MachineCase, seed: int = 0) -> np.ndarray:
    """Mazes, sequences, or the observations of CartPole steps."""
    experiment, _, num_inputs = compared
    if isinstance(experiment, AnsweringExperiment):
        task = (MazeTask if "Maze" in experiment.env.id else ParityTask)(**experiment.env.kwargs)
        inputs = task.sample(np.random.default_rng(seed), num_inputs).inputs
        assert isinstance(inputs, np.ndarray)
        return inputs
    shown = []
    with make_env(experiment.env) as env:
        env.action_space.seed(seed)
        observation, _ = env.reset(seed=seed)
        for _ in range(num_inputs):  # episodes one after the other: the state need not know of their ends
            shown.append(observation)
            observation, _, is_terminated, is_truncated, _ = env.step(env.action_space.sample())
            if is_terminated or is_truncated:
                observation, _ = env.reset()
    return np.stack(shown)


def case_of(compared: MachineCase, inputs: np.ndarray) -> dict[str, Any]:
    """What node is given."""
    exported = export_machine(compared.model, compared.experiment)
    assert exported is not None, find_obstacle(compared.model, compared.experiment)
    model = to_plain(exported)["model"]
    if isinstance(compared.model, ActorCritic):
        return {"kind": "act", "model": model, "inputs": inputs.tolist()}
    if inputs.ndim == 4:
        palette = np.frombuffer(base64.b64decode(model["data"]["palette"]["data"]), np.float32).reshape(4, 3)
        images = palette[as_codes(inputs)].transpose(0, 3, 1, 2)  # [N, 3, H, W]
        height, width = inputs.shape[1:3]
        rows = images.reshape(len(images), -1).tolist()
        return {"kind": "answer", "model": model, "inputs": rows, "height": height, "width": width}
    return {"kind": "answer", "model": model, "inputs": inputs.tolist()}


@torch.no_grad()
def expected_of(compared: MachineCase, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """What PyTorch computes: arrays by name, rows first, then ticks."""
    model = compared.model
    if isinstance(model, ActorCritic):
        is_first = torch.zeros(len(inputs), 1)
        is_first[0] = 1
        if not model.config.is_state_carried:
            is_first[:] = 1
        critic_state = model.initial_critic_state(1)
        observed = torch.from_numpy(inputs)[:, None]
        unrolled = model.unroll(observed, is_first, model.initial_state(1), critic_state=critic_state)
        logits = unrolled.logits[:, 0]
        entropy = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)
        found = {"logits": logits, "certainties": 1 - entropy / np.log(2), "classes": logits.argmax(-1)}
        if model.critic_core is None:
            found["value"] = unrolled.values[:, 0]
        return {name: part.numpy() for name, part in found.items()}
    thought = model.thought(inputs, record=True)
    recording = thought.recording
    assert recording is not None and recording.attention is not None and recording.pre_activations is not None
    logits = thought.predictions.transpose(1, 2)  # [N, K, G x C]
    by_tick = {
        "pre_activations": recording.pre_activations,
        "sync": recording.output_sync,
        "attention": recording.attention.squeeze(3),
    }
    return {
        "logits": logits.numpy(),
        "classes": logits.unflatten(2, (model.config.num_groups, -1)).argmax(-1).numpy(),
        "certainties": thought.certainties.numpy(),
        **{name: part.transpose(0, 1).numpy() for name, part in by_tick.items()},
    }


def results_of(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """What node has written, named as in ``expected_of``."""
    names = {"certainty": "certainties"}
    return {
        names.get(name, name): np.array([row[name] for row in rows]).squeeze()
        for name in rows[0]
        if name not in ("milliseconds", "probabilities")
    }


def check_equal(found: list[dict[str, Any]], expected: dict[str, np.ndarray], tolerance: float = 1e-4) -> None:
    """Compares logits, certainties and what is inside, to the tolerance; answers exactly."""
    results = results_of(found)
    for name, values in expected.items():
        np.testing.assert_allclose(results[name], values.squeeze(), rtol=0, atol=tolerance, err_msg=name)
    assert np.ptp(expected["logits"]) > 0.1  # numbers that hardly differ would prove little


@pytest.fixture(scope="module")
def computed() -> dict[str, tuple[list[dict[str, Any]], dict[str, np.ndarray]]]:
    """Results and what is expected of all cases, by one node."""
    models = {name: make() for name, make in CASES.items()}
    inputs = {name: inputs_of(model) for name, model in models.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(browser_model, "MAX_EXACT", 2_000_000)
        patch.setattr(browser_model, "MAX_WEIGHTS", 2_000_000)
        results = run_javascript([case_of(model, inputs[name]) for name, model in models.items()])
    expected = {name: expected_of(model, inputs[name]) for name, model in models.items()}
    return {name: (result, expected[name]) for name, result in zip(models, results, strict=True)}


@needs_node
@pytest.mark.parametrize("name", CASES)
def test_javascript_equals_pytorch(name: str, computed: dict[str, Any]) -> None:
    check_equal(*computed[name])


@needs_node
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mazes", "parity", "cartpole", *filter(None, os.environ.get(RUNS, "").split(":"))])
def test_javascript_equals_pytorch_on_many_inputs(name: str) -> None:
    """100 mazes, 100 sequences or 200 steps, of untrained models of the shipped sizes and of trained runs if given."""
    compared = shipped(name) if name in ("mazes", "parity", "cartpole") else trained(Path(name))
    inputs = inputs_of(compared, seed=1)
    (results,) = run_javascript([case_of(compared, inputs)])
    check_equal(results, expected_of(*in_double(compared, inputs)))
    if "milliseconds" in results[0]:
        ticks = sorted(row["milliseconds"]["tick"] for row in results)
        assert ticks[len(ticks) // 2] < 20


def in_double(compared: MachineCase, inputs: np.ndarray) -> tuple[MachineCase, np.ndarray]:
    """The same in double precision: with logits of 22, PyTorch's own rounding in single precision exceeds 1e-4.

    Models of images read them in single precision, whatever their own is.
    """
    if inputs.dtype == np.uint8:
        return compared, inputs
    return compared._replace(model=copy.deepcopy(compared.model).double()), inputs.astype(np.float64)


def trained(run: Path) -> MachineCase:
    """What a run has trained."""
    _, model, experiment = load_trained(run, run, torch.device("cpu"))
    assert experiment is not None
    if isinstance(model, Policy):
        return MachineCase(experiment, model.agent, 200)
    assert isinstance(model, ContinuousThoughtMachine)
    return MachineCase(experiment, model, 100)


@needs_node
def test_large_models_are_halved_and_answer_the_same() -> None:
    compared = answering(mazes(), 7, 10, encoder="resnet18-1")
    inputs = inputs_of(compared)
    exact = case_of(compared, inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(browser_model, "MAX_EXACT", 1_000)
        half = case_of(compared, inputs)
    assert half["model"]["encoder"]["stem"]["weight"]["type"] == "f16"
    assert half["model"]["head"]["bias"]["type"] == "f32"
    assert len(json.dumps(half["model"])) < 0.6 * len(json.dumps(exact["model"]))
    (results,) = run_javascript([half])
    check_equal(results, expected_of(compared, inputs), tolerance=0.05)


@needs_node
def test_generated_mazes_are_perfect_and_solved_as_in_python() -> None:
    size, seeds = 9, [0, 1, 2, 3, 4]
    (made,) = run_javascript([{"kind": "generate", "size": size, "seeds": seeds}])
    codes = np.array([maze["codes"] for maze in made], np.uint8).reshape(-1, size, size)
    assert len(np.unique(codes, axis=0)) == len(seeds)
    assert (codes[:, 1::2, 1::2] > 0).all()
    assert ((codes > 0).sum((1, 2)) == 2 * (size // 2) ** 2 - 1).all()  # cells, and passages without a loop
    routes = solve(codes > 0, locate(codes, START), locate(codes, GOAL), 60).moves
    for maze, route in zip(made, routes, strict=True):
        assert maze["moves"] == [move for move in route if move != WAIT]


@needs_node
def test_walks_and_images_are_those_of_the_task() -> None:
    size, rng = 9, np.random.default_rng(0)
    images, _ = MazeTask(size, 20).sample(rng, 40)
    codes = as_codes(np.asarray(images))
    moves = rng.integers(5, size=(40, 20))
    moves[:20] = MazeTask(size, 20).sample(np.random.default_rng(0), 40).targets[:20]
    walk = follow(codes, locate(codes, START), moves)
    palette = (PALETTE / 255).ravel().tolist()
    walks = {"kind": "follow", "size": size, "mazes": codes.reshape(40, -1).tolist(), "moves": moves.tolist()}
    painting = {"kind": "paint", "size": size, "codes": codes[0].ravel().tolist(), "palette": palette}
    walked, painted = run_javascript([walks, painting])
    assert [one["end"] for one in walked] == (walk.end_yx @ [size, 1]).tolist()
    assert [one["steps"] for one in walked] == walk.num_steps.tolist()
    at_goal = (walk.end_yx == locate(codes, GOAL)).all(1)
    assert [one["isSolved"] for one in walked] == at_goal.tolist()
    assert at_goal.any() and not at_goal.all()
    image = np.asarray(images)[0].transpose(2, 0, 1).ravel() / 255
    np.testing.assert_allclose(painted, image, atol=1e-6)


@needs_node
def test_going_on_from_where_it_got_to_equals_reapplication() -> None:
    case = answering(mazes(), 7, 12, num_neurons=30)
    model = case.model
    assert isinstance(model, ContinuousThoughtMachine)
    inputs = inputs_of(case)
    applied = reapply(inputs, lambda images: model.answer(images).classes, max_applications=5)
    mazes_given = as_codes(inputs).reshape(len(inputs), -1).tolist()
    plain = case_of(case, inputs)["model"]
    (found,) = run_javascript([{"kind": "reapply", "model": plain, "mazes": mazes_given, "size": 7, "most": 5}])
    for one, steps, solved in zip(found, applied.steps, applied.solved, strict=True):
        assert one["steps"] + [0] * (5 - len(one["steps"])) == steps.tolist()
        assert one["isSolved"] == solved
    assert (applied.steps[:, 1] > 0).any()  # some went on


@needs_node
def test_physics_equal_gymnasiums() -> None:
    env = cast(Any, gym.make("CartPole-v1").unwrapped)
    env.reset(seed=3)
    start, is_over, actions, steps = env.state.tolist(), False, [], []
    while not is_over:  # balanced for 200 steps, then pushed over
        angle, speed = env.state[2:]
        actions.append(int(angle + speed > 0) if len(steps) < 200 else 1)
        observation, _, is_over, _, _ = env.step(actions[-1])
        steps.append((env.state, observation, is_over))
    assert len(steps) > 200
    (found,) = run_javascript([{"kind": "physics", "state": start, "actions": actions, "hidden": [1, 3]}])
    for step, (state, observation, is_over) in zip(found, steps, strict=True):
        np.testing.assert_allclose(step["state"], state, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(step["observation"], observation * [1, 0, 1, 0], rtol=1e-6, atol=1e-9)
        assert step["isOver"] == is_over


def test_what_a_page_cannot_run_has_a_reason() -> None:
    base = mazes()
    lstm = build_model(dataclasses.replace(base.model, kind="lstm", baseline_dim=8, num_groups=6, num_classes=5))
    assert find_obstacle(lstm, base) == "the page can run machines (kind ctm), not kind lstm."
    assert export_machine(lstm, base) is None
    assert live_section(lstm, base) is None
    machine = answering(base, 5, 1).model
    assert "not ctm_rl.envs:ctm_rl/Sorting-v0" in find_obstacle(machine, sorting())
    small = dataclasses.replace(machine.config, encoder="conv")
    assert "not conv" in find_obstacle(build_model(cast(AnswerConfig, small)), base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(browser_model, "MAX_WEIGHTS", 1_000)
        assert "a page has room for 1,000" in find_obstacle(machine, base)


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        (EnvConfig(id="CartPole-v1", wrappers=("frame-skip=2",)), "with the wrapper hide-velocities alone"),
        (EnvConfig(id="CartPole-v1", kwargs={"sutton_barto_reward": True}), "as it is"),
        (EnvConfig(id="Acrobot-v1"), "not Acrobot-v1"),
    ],
)
def test_other_worlds_than_the_pages_are_refused(env: EnvConfig, reason: str) -> None:
    experiment = dataclasses.replace(cartpole(), env=env)
    agent = acting(1).model
    assert reason in find_obstacle(agent, experiment)
    assert export_machine(agent, experiment) is None


def test_hidden_numbers_and_steps_of_cartpole() -> None:
    base = cartpole()
    agent = cast(ActorCritic, acting(1).model)

    def data_of(env: EnvConfig) -> dict[str, Any]:
        exported = export_machine(agent, dataclasses.replace(base, env=env))
        assert exported is not None
        return exported.model["data"]

    assert data_of(base.env) == {"hidden": [1, 3], "max_steps": 500}
    assert data_of(EnvConfig(id="CartPole-v1")) == {"hidden": [], "max_steps": 500}
    other = EnvConfig(id="gymnasium:CartPole-v1", wrappers=("time-limit=90", "hide-velocities=3"))
    assert data_of(other) == {"hidden": [3], "max_steps": 90}
