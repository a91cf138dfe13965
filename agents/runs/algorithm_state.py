"""Reads and restores the state of an RLlib algorithm, ours or stock, as plain values without pickles."""

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.impala.impala_learner import IMPALALearner
from ray.rllib.algorithms.ppo.ppo_learner import PPOLearner
from ray.rllib.core import (
    COMPONENT_ENV_TO_MODULE_CONNECTOR,
    COMPONENT_LEARNER,
    COMPONENT_MODULE_TO_ENV_CONNECTOR,
    COMPONENT_RL_MODULE,
)
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME, WEIGHTS_SEQ_NO

from ctm_rl.agents.ppo.algorithm import RecurrentPPO
from ctm_rl.agents.ppo.env_runner import ColumnarEnvRunner
from ctm_rl.agents.ppo.learner import RecurrentPPOLearner
from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.generators import read_generators, write_generators
from ctm_rl.agents.rllib.module import CTMModule
from ctm_rl.agents.rllib.seeded_env_runner import SeededEnvRunner
from ctm_rl.agents.runs.task import MODULE
from ctm_rl.agents.stock.learner import CTMAPPOTorchLearner
from ctm_rl.agents.supervised.algorithm import Supervised
from ctm_rl.agents.supervised.env_runner import SampleRunner
from ctm_rl.agents.supervised.learner import SupervisedLearner
from ctm_rl.checkpoints.schema import check_actions
from ctm_rl.checkpoints.store import CheckpointError

_OURS = (RecurrentPPOLearner, SupervisedLearner, CTMAPPOTorchLearner)
"""Learners with state of their own, see ``get_own_state``."""
_LIFETIME_SUM = "lifetime_sum"
_ENV_STEPS = f"{ENV_RUNNER_RESULTS}--{NUM_ENV_STEPS_SAMPLED_LIFETIME}"


def learner_state(algorithm: Algorithm) -> dict[str, Any]:
    """Returns everything that training continues from.

    That is the weights, the optimiser's moments, lifetime counters (which schedules are read at), the state of the
    connectors, the random generators of this process, of every learner and of every environment runner, and the
    statistics of rewards.

    Of our own algorithms, no environment runner is asked: those of PPO send their state along with their fragments, up
    to which a state holds, whatever they have played ahead since; the others have none.

    Args:
        algorithm: between two iterations; is not changed.

    Returns:
        Nested dicts and lists of arrays, tensors, numbers, text, booleans and None.
    """
    assert algorithm.learner_group is not None
    learners = private.call_learners(algorithm.learner_group, _read_learner)
    of_env_runners = _read_env_runners(algorithm)
    return {
        "iteration": algorithm.iteration,
        # Learners hold the same weights and moments; only their generators differ.
        **{name: learners[0][name] for name in ("modules", "optimizers", "num_updates", "connectors")},
        "counters": _read_counters(algorithm),
        "env_connectors": _read_env_connectors(algorithm),
        "generators": {
            "driver": read_generators(),
            "learners": [learner["generators"] for learner in learners],
            "env_runners": {index: state["generators"] for index, state in of_env_runners.items()},
        },
        "own": learners[0]["own"],
        "playing": _read_playing(algorithm, of_env_runners),
    }


def check_spaces(algorithm: Algorithm, policy: Mapping[str, Any]) -> None:
    """Refuses an environment whose spaces have changed since a policy was trained on it.

    Args:
        algorithm: freshly built.
        policy: a checkpoint's entry of the policy.

    Raises:
        CheckpointError: it takes other actions, or no longer shows action masks.
    """
    module = algorithm.get_module(MODULE)
    trained = check_actions(policy["actions"])
    if isinstance(module, CTMModule) and module.agent.actions != trained:
        raise CheckpointError(
            f"the run's policy acts by {trained}, and the environment now takes {module.agent.actions}; "
            "continue on the environment that it began with."
        )


def restore(algorithm: Algorithm, state: Mapping[str, Any]) -> None:
    """Restores a state in an algorithm built from the same experiment, including the environment runners' weights.

    Environments cannot be saved: they start new episodes, seeded by the run's seed and the iteration.

    Args:
        algorithm: freshly built, or trained further than the state.
        state: from ``learner_state``.
    """
    iteration, generators = int(state["iteration"]), state["generators"]
    env_connectors, of_env_runners = state["env_connectors"], generators["env_runners"]
    # A stock algorithm's state has none, nor has a checkpoint older than our own environment runner.
    playing = state.get("playing", {})
    num_env_steps = _count_env_steps(state)

    def write_env_runner(env_runner: EnvRunner) -> None:
        if isinstance(env_runner, SampleRunner):
            return  # its samples depend on the seed and the iteration alone
        assert isinstance(env_runner, (ColumnarEnvRunner, SeededEnvRunner))
        if env_runner.has_played:
            env_runner.make_env()  # the environments may carry state from one episode to the next
        env_runner.restart(iteration, num_env_steps)
        if isinstance(env_runner, ColumnarEnvRunner):
            env_runner.set_playing(playing.get(env_runner.worker_index, {}))
        else:
            env_runner.set_state(env_connectors)
        # Runner 0 is in the driver's process and uses the driver's generators.
        if env_runner.worker_index in of_env_runners:
            write_generators(of_env_runners[env_runner.worker_index])

    group, learner_group = algorithm.env_runner_group, algorithm.learner_group
    assert group is not None
    assert learner_group is not None
    if isinstance(algorithm, RecurrentPPO):
        algorithm.forget_orders()
        algorithm.runner_states.clear()
        algorithm.runner_states.update(
            {
                index: {"generators": of_env_runners[index], "playing": playing.get(index, {})}
                for index in of_env_runners
            }
        )
    private.call_learners(learner_group, _write_learner, state=state)
    group.foreach_env_runner(write_env_runner)
    group.sync_weights(from_worker_or_learner_group=learner_group, inference_only=True)
    algorithm.metrics.set_state({"stats": dict(state["counters"])})
    private.set_iteration(algorithm, iteration)
    write_generators(generators["driver"])


def longest_episode(algorithm: Algorithm) -> int:
    """Environment steps of the longest episode under way, over all environment runners."""
    assert algorithm.env_runner_group is not None
    return max(algorithm.env_runner_group.foreach_env_runner(_longest_episode))


def _longest_episode(env_runner: EnvRunner) -> int:
    """The same of one environment runner; runs in its process."""
    assert isinstance(env_runner, (ColumnarEnvRunner, SeededEnvRunner))
    return env_runner.longest_episode


def refresh_local_policy(algorithm: Algorithm) -> None:
    """Copies the learners' newest weights to this process's environment runner; asynchronous algorithms do not."""
    assert algorithm.learner_group is not None
    assert isinstance(algorithm.env_runner, SeededEnvRunner)
    path = f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"
    state = algorithm.learner_group.get_state(components=[path], inference_only=True)[COMPONENT_LEARNER]
    algorithm.env_runner.set_state({name: state[name] for name in (COMPONENT_RL_MODULE, WEIGHTS_SEQ_NO)})


def _read_learner(learner: TorchLearner) -> dict[str, Any]:
    """Returns a learner's state; runs in the learner's process."""
    connector = private.learner_connector(learner)
    return {
        "modules": {module_id: module.unwrapped().get_state() for module_id, module in learner.module.items()},
        "optimizers": {
            name: _to_cpu(optimizer.state_dict()) for name, optimizer in private.optimizers_of(learner).items()
        },
        "num_updates": private.num_updates_of(learner),
        "connectors": {} if connector is None else connector.get_state(),
        "generators": read_generators(),
        "own": learner.get_own_state() if isinstance(learner, _OURS) else None,
    }


def _write_learner(learner: TorchLearner, state: Mapping[str, Any]) -> None:
    """Restores a learner's state; runs in the learner's process."""
    for module_id, weights in state["modules"].items():
        module = learner.module[module_id].unwrapped()
        assert isinstance(module, TorchRLModule)
        module.load_state_dict({name: torch.as_tensor(value) for name, value in weights.items()})
    for name, saved in state["optimizers"].items():
        private.optimizers_of(learner)[name].load_state_dict(saved)
    private.set_num_updates(learner, state["num_updates"])
    if (connector := private.learner_connector(learner)) is not None:
        connector.set_state(state["connectors"])
    if isinstance(learner, _OURS) and state["own"] is not None:
        learner.set_own_state(state["own"])
    _set_schedules(learner, _count_env_steps(state))
    of_learners = state["generators"]["learners"]
    if private.learner_index(learner) < len(of_learners):
        write_generators(of_learners[private.learner_index(learner)])


def _set_schedules(learner: TorchLearner, num_env_steps: int) -> None:
    """Sets scheduled values for the current env step, which RLlib does after an update only.

    The schedules are those of the current experiment: a changed learning rate applies from the first update on.
    """
    private.set_learning_rates(learner, num_env_steps)
    if isinstance(learner, (PPOLearner, IMPALALearner)):
        for module_id in learner.module.keys():
            learner.entropy_coeff_schedulers_per_module[module_id].update(timestep=num_env_steps)
    if isinstance(learner, RecurrentPPOLearner):
        learner.set_clip(num_env_steps)


def _count_env_steps(state: Mapping[str, Any]) -> int:
    """The environment steps of a run so far, at which schedules are read."""
    return int(state["counters"].get(_ENV_STEPS, {}).get(_LIFETIME_SUM, 0))


def _read_counters(algorithm: Algorithm) -> dict[str, Any]:
    """RLlib's counts over the whole run; its other metrics start again in every iteration."""
    return {
        path: {name: float(value) if name == _LIFETIME_SUM else value for name, value in stats.items()}
        for path, stats in algorithm.metrics.get_state()["stats"].items()
        if stats["stats_cls_identifier"] == _LIFETIME_SUM
    }


def _read_env_connectors(algorithm: Algorithm) -> dict[str, Any]:
    """The state of the connectors around the environments; RLlib merges it into the local environment runner."""
    if not isinstance(algorithm.env_runner, SeededEnvRunner):
        return {}
    state = algorithm.env_runner.get_state(not_components=["rl_module"])
    return {name: state[name] for name in (COMPONENT_ENV_TO_MODULE_CONNECTOR, COMPONENT_MODULE_TO_ENV_CONNECTOR)}


def _read_env_runners(algorithm: Algorithm) -> dict[int, dict[str, Any]]:
    """See ``Collector.runner_states``; stock runners, which are asked, have generators only."""
    if isinstance(algorithm, RecurrentPPO):
        return dict(algorithm.runner_states)
    if isinstance(algorithm, Supervised):
        return {}
    assert algorithm.env_runner_group is not None
    found = algorithm.env_runner_group.foreach_env_runner(
        lambda env_runner: (env_runner.worker_index, {"generators": read_generators()}), local_env_runner=False
    )
    return dict(found)


def _read_playing(algorithm: Algorithm, of_env_runners: Mapping[int, Mapping[str, Any]]) -> dict[int, Any]:
    """The action generator and reward statistics of every columnar environment runner, by its index."""
    playing = {index: state.get("playing", {}) for index, state in of_env_runners.items()}
    if isinstance(algorithm.env_runner, ColumnarEnvRunner):
        playing[algorithm.env_runner.worker_index] = algorithm.env_runner.get_playing()
    return playing


def _to_cpu(value: Any) -> Any:
    """Copies the tensors in nested dicts and lists to the CPU."""
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_cpu(item) for item in value]
    return value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value
