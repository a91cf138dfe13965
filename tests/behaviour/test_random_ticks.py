"""A different number of ticks at every environment step: unrolled, acted, halted, recorded and learned from."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from reference import parts
from torch import Tensor

from ctm_rl import PolicyConfig
from ctm_rl.agents.evaluation import evaluate as evaluation
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.agents.rllib.columns import to_device
from ctm_rl.agents.run_directory.directory import config_of, write_config
from ctm_rl.agents.runs.build_algorithm import build_algorithm_config
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.config import CoreConfig
from ctm_rl.engine.episode import step_through, unroll
from ctm_rl.errors import UserError
from ctm_rl.inference.batched_actor import Actor
from ctm_rl.inference.policy import POLICY_ENTRY, Policy, describe
from ctm_rl.machine.certainty import certainty
from ctm_rl.machine.core import CTMCore
from ctm_rl.machine.state import CoreState
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.actions import Choices
from ctm_rl.spaces.observations import vector_layout

cloudpickle.register_pickle_by_value(sys.modules[__name__])

T, B, F, K = 13, 4, 6, 5
TICKS = [3, 1, 5, 5, 2, 1, 1, 4, 2, 2, 5, 3, 1]
CORE = CoreConfig(
    num_neurons=19, nlm_hidden_dim=3, num_output_sync_neurons=4, num_synapse_blocks=2, pairing="last-first",
    history_length=3, num_ticks=K,
)  # fmt: skip
CONFIG = PolicyConfig(
    num_neurons=17, history_length=5, num_ticks=K, nlm_hidden_dim=3, num_output_sync_neurons=4, feature_dim=6,
    head_dims=(5,), baseline_dim=7, encoder="control", train_random_ticks=True,
)  # fmt: skip


def gradients(outputs: list[Tensor], leaves: list[Tensor]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(32)
    loss = torch.stack([
        (output * torch.randn(output.shape, generator=generator, dtype=output.dtype)).sum() for output in outputs
    ]).sum()  # fmt: skip
    return torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("ticks", [TICKS, [4] * 12 + [8], [20, 1, 17, *[2] * 10]], ids=["any", "by four", "many"])
@pytest.mark.parametrize(
    "case",
    [{}, {"sync_window": True}, {"history_length": 16, "sync_window": True}, {"history_length": 16},
     {"is_nlm_deep": False, "num_synapse_blocks": 1}],
    ids=str,
)  # fmt: skip
def test_steps_of_any_number_of_ticks_equal_ticking_one_by_one(case: dict[str, Any], ticks: list[int]) -> None:
    torch.manual_seed(31)
    core = CTMCore(dataclasses.replace(CORE, **case), F).double()
    with torch.no_grad():
        for name, parameter in core.named_parameters():
            parameter.uniform_(0.0, 1.0) if name.endswith("rate") else parameter.add_(torch.randn_like(parameter) * 0.1)
    features = torch.randn(T, B, F, dtype=torch.float64, requires_grad=True)
    state = CoreState._make(
        None if part is None else (part.detach() + 0.5 * torch.rand_like(part)).requires_grad_()
        for part in core.initial_state(B)
    )
    is_first = torch.rand(T, B) < 0.25
    leaves = [features, *parts(state), *core.parameters()]
    results = []
    for path in (step_through, unroll):
        sync, last = path(core, features, is_first, state, ticks)
        outputs = [sync, *parts(last)]
        results.append((outputs, gradients(outputs, leaves)))
    (slow, slow_grads), (fast, fast_grads) = results
    for one, two in zip(slow, fast, strict=True):
        assert (one - two).abs().max() <= 1e-12
    for one, two in zip(slow_grads, fast_grads, strict=True):
        assert (one - two).norm() <= 1e-10 * one.norm() + 1e-12


def test_ticks_that_do_not_fit_the_steps_are_refused() -> None:
    core = CTMCore(CORE, F)
    features, is_first = torch.zeros(T, B, F), torch.zeros(T, B, dtype=torch.bool)
    for ticks in (TICKS[:-1], [0, *TICKS[1:]]):
        with pytest.raises(ValueError, match="ticks must be 13 numbers of at least 1"):
            unroll(core, features, is_first, core.initial_state(B), ticks)


def make_agent(**changes: Any) -> ActorCritic:
    torch.manual_seed(61)
    agent = ActorCritic(dataclasses.replace(CONFIG, **changes), vector_layout(4), Choices(sizes=(3,))).eval()
    with torch.no_grad():
        for name, parameter in agent.named_parameters():
            parameter.uniform_(0.0, 1.0) if name.endswith("rate") else parameter.add_(torch.randn_like(parameter) * 0.3)
    return agent


VARIANTS = pytest.mark.parametrize(
    "changes", [{}, {"sync_window": True}, {"kind": "lstm"}, {"is_state_carried": False}], ids=str
)


@VARIANTS
def test_acting_with_recorded_ticks_equals_the_unroll(changes: dict[str, Any]) -> None:
    agent = make_agent(**changes)
    observations, is_first = torch.randn(T, B, 4), torch.rand(T, B) < 0.1
    actor = Actor(agent)
    actor.reset(B)
    logits = [actor.step(*step) for step in zip(observations, is_first, TICKS, strict=True)]
    with torch.no_grad():
        expected = agent.unroll(observations, is_first, agent.initial_state(B), TICKS)
        other = agent.unroll(observations, is_first, agent.initial_state(B))
    torch.testing.assert_close(torch.stack([step[0] for step in logits]), expected.logits)
    torch.testing.assert_close(parts(actor.state), parts(expected.state))
    assert not torch.allclose(expected.logits, other.logits, atol=1e-3)
    with pytest.raises(ValueError, match="ticks must be from 1 to num_ticks = 5"):
        actor.step(observations[0], is_first[0], K + 1)


@VARIANTS
def test_halting_while_acting_equals_each_row_with_its_own_number_of_ticks(changes: dict[str, Any]) -> None:
    agent = make_agent(**changes)
    observations, is_first = torch.randn(T, B, 4), torch.rand(T, B) < 0.1
    state, counted = agent.initial_state(B), []
    for step in range(T):
        with torch.no_grad():
            every = [agent.unroll(observations[step : step + 1], is_first[step : step + 1], state, [k + 1])
                     for k in range(K)]  # fmt: skip
        certainties = torch.stack([certainty(one.logits[0][:, None]) for one in every], 1)  # [B, K]
        threshold = float(certainties.median()) + 1e-6
        expected = [next((k for k in range(K) if row[k] >= threshold), K - 1) for row in certainties]
        halted = Actor(agent).act(observations[step], is_first[step], state, threshold)
        assert (halted.ticks - 1).tolist() == expected
        counted += expected
        for row, tick in enumerate(expected):
            torch.testing.assert_close(halted.logits[row], every[tick].logits[0, row])
            for one, two in zip(parts(halted.state), parts(every[tick].state), strict=True):
                torch.testing.assert_close(one[row], two[row])
        state = halted.state
    assert len(set(counted)) > 1


def test_halting_needs_random_ticks_in_training_and_a_certainty() -> None:
    agent = make_agent(train_random_ticks=False)
    policy = Policy(agent)
    with pytest.raises(ValueError, match="needs a policy trained with train_random_ticks"):
        policy.act(np.zeros(4, np.float32), policy.initial_state(), halt_certainty=0.5)
    policy = Policy(make_agent())
    with pytest.raises(ValueError, match="halt_certainty must be from 0 to 1"):
        policy.act(np.zeros(4, np.float32), policy.initial_state(), halt_certainty=2.0)
    with pytest.raises(ValueError, match="use_graph must be off"):
        dataclasses.replace(CONFIG, use_graph=True)


def test_a_policy_tells_how_many_ticks_it_took() -> None:
    policy = Policy(make_agent())
    seen, state = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32), policy.initial_state(6)
    slow, same = policy.act(seen, state, deterministic=True)
    assert policy.ticks.tolist() == [K] * 6
    late, state_late = policy.act(seen, state, deterministic=True, halt_certainty=1.0)
    assert (slow == late).all()
    for one, two in zip(parts(same), parts(state_late), strict=True):
        torch.testing.assert_close(one, two)
    policy.act(seen, state, halt_certainty=0.0)
    assert policy.ticks.tolist() == [1] * 6


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_policy_notices_that_its_agent_has_learned(mode: Callable[[], AbstractContextManager[None]]) -> None:
    with mode():
        policy, seen = Policy(make_agent()), torch.randn(6, 4)
        state, never = policy.initial_state(6), torch.zeros(1, 6, dtype=torch.bool)
        before = policy.act(seen.numpy(), state)[1]
        for parameter in policy.agent.parameters():
            parameter.mul_(1.5)
        expected = policy.agent.unroll(seen[None], never, state).state
    after = policy.act(seen.numpy(), state)[1]
    for one, two in zip(parts(after), parts(expected), strict=True):
        torch.testing.assert_close(one, two)
    assert not torch.allclose(parts(before)[0], parts(after)[0])


def test_a_policy_takes_as_many_ticks_as_it_is_given() -> None:
    policy = Policy(make_agent())
    seen, state = torch.randn(6, 4), policy.initial_state(6)
    never = torch.zeros(1, 6, dtype=torch.bool)
    with torch.no_grad():
        expected = policy.agent.unroll(seen[None], never, state, [2]).state
    for halt_certainty in (None, 1.0):
        _, got = policy.act(seen.numpy(), state, halt_certainty=halt_certainty, num_ticks=2)
        assert policy.ticks.tolist() == [2] * 6
        for one, two in zip(parts(got), parts(expected), strict=True):
            torch.testing.assert_close(one, two)
    with pytest.raises(ValueError, match="num_ticks must be from 1 to 5, as trained, got 6"):
        policy.act(seen.numpy(), state, num_ticks=6)
    with pytest.raises(ValueError, match="num_ticks needs a policy trained with train_random_ticks"):
        Policy(make_agent(train_random_ticks=False)).act(seen.numpy(), state, num_ticks=2)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """A run with an untrained policy for CartPole."""
    model = dataclasses.replace(CONFIG, num_neurons=16)
    experiment = ActingExperiment(name="cartpole", env=EnvConfig(id="CartPole-v1"), model=model)
    write_config(tmp_path, config_of(experiment))
    torch.manual_seed(5)
    checkpoint.save(tmp_path, 4, {POLICY_ENTRY: describe(ActorCritic(model, vector_layout(4), Choices(sizes=(2,))))})
    yield tmp_path


def test_evaluation_reports_ticks_and_a_curve(run: Path) -> None:
    quick = evaluation.evaluate(run, episodes=3, halt_certainty=0.0)
    assert (quick["ticks_mean"], quick["halt_certainty"]) == (1.0, 0.0)
    fixed = evaluation.evaluate(run, episodes=3, num_ticks=2)
    assert (fixed["ticks_mean"], fixed["num_ticks"]) == (2.0, 2)
    curve = evaluation.evaluate(run, episodes=3, halt_curve=True)["halting"]
    assert curve[0]["threshold"] is None
    assert curve[0]["ticks_mean"] == K
    assert all(1 <= point["ticks_mean"] <= K and point["seconds_per_step"] > 0 for point in curve)
    with pytest.raises(UserError, match="halt_certainty must be from 0 to 1"):
        evaluation.evaluate(run, episodes=3, halt_certainty=-1.0)
    with pytest.raises(UserError, match="num_ticks must be from 1 to 5"):
        evaluation.evaluate(run, episodes=3, num_ticks=0)
    with pytest.raises(UserError, match="leave halt_certainty out"):
        evaluation.evaluate(run, episodes=3, halt_certainty=0.5, halt_curve=True)


EXPERIMENT = ActingExperiment(
    name="small",
    env=EnvConfig(id="CartPole-v1", wrappers=("hide-velocities",)),
    model=dataclasses.replace(CONFIG, num_neurons=9, encoder="auto", min_num_ticks=2),
    ppo=PPOSettings(num_rollout_steps=16, num_epochs=1, num_minibatches=2),
    num_envs_per_env_runner=2,
    num_env_runners=2,
    seed=7,
)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_learners_take_the_ticks_that_all_runners_drew_together() -> None:
    config: Any = build_algorithm_config(EXPERIMENT)
    algorithm = config.build_algo()
    try:
        fragments = [algorithm._collector.collect(algorithm._tick_seed()) for _ in range(2)]
        algorithm.train()
        learners = algorithm.learner_group
        for fragment in fragments:
            assert fragment.ticks.shape == (4, 16)
            assert (fragment.ticks == fragment.ticks[0]).all()
            assert set(fragment.ticks.flatten()) == set(range(2, K + 1))
        fresh = algorithm._collector.collect(algorithm._tick_seed())
        assert (fresh.ticks != fragments[0].ticks).any()
        columns = fresh.columns()
        with torch.no_grad():
            module = learners._learner.module["default_policy"]
            outputs = module.forward_train(to_device(columns, "cpu"))
        logp = outputs["action_dist_inputs"].log_softmax(-1).numpy()
        np.testing.assert_allclose(
            np.take_along_axis(logp, fresh.actions[..., None], -1)[..., 0], fresh.logp, atol=1e-5
        )
        np.testing.assert_allclose(outputs["embeddings"].numpy(), fresh.values, atol=1e-5)
        columns.pop("ticks")
        with pytest.raises(ValueError, match="train_random_ticks needs RecurrentPPO"):
            module.forward_train(to_device(columns, "cpu"))
        columns["ticks"] = np.arange(4 * 16).reshape(4, 16)
        with pytest.raises(ValueError, match="must take the same number of ticks"):
            module.forward_train(to_device(columns, "cpu"))
    finally:
        algorithm.stop()
