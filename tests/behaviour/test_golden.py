"""Every recorded case of the published code: outputs, recordings, losses, gradients, and the way back."""

import argparse
import copy

import pytest
import torch
from paths import GOLDEN
from safetensors.torch import load_file
from torch import Tensor, nn

from ctm_rl.checkpoints.published import OfficialModel, load_official
from ctm_rl.machine.state import CoreState, LSTMState
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.answering import Thought

CASES = sorted(path.stem for path in GOLDEN.glob("*.pt"))
RL_CASES = [name for name in CASES if name.endswith(("cartpole", "unet", "fourrooms")) and "image" not in name]
DATA_CASES = [name for name in CASES if name not in RL_CASES]
RENEW = "golden files come from running the published code; see tests/golden/README.md"
RECORDINGS = {
    "out/synch_out": "output_sync",
    "out/synch_action": "action_sync",
    "out/pre_activations": "pre_activations",
    "out/post_activations": "post_activations",
    "out/attention": "attention",
}


def load(name: str) -> tuple[OfficialModel, dict[str, Tensor]]:
    """A case: our model with its weights, and what was recorded."""
    return load_official(GOLDEN / f"{name}.pt"), load_file(GOLDEN / f"{name}.io.safetensors")


def worst(ours: Tensor, recorded: Tensor) -> float:
    """Largest absolute difference; shapes must agree."""
    assert ours.shape == recorded.shape, (ours.shape, recorded.shape)
    return float((ours - recorded).detach().abs().max())


def gradients(official: OfficialModel) -> dict[str, Tensor]:
    """The gradients under their published names: weights are only renamed, so their gradients are too."""
    carrier = copy.deepcopy(official)
    for ours, theirs in zip(official.model.parameters(), carrier.model.parameters(), strict=True):
        assert ours.grad is not None
        theirs.data = ours.grad
    return carrier.to_official_state_dict()


def check_gradients(official: OfficialModel, recorded: dict[str, Tensor]) -> None:
    """Every recorded gradient, as the norm of the difference over the norm."""
    ours = gradients(official)
    names = [name.removeprefix("grad/") for name in recorded if name.startswith("grad/")]
    assert names
    for name in names:
        expected = recorded[f"grad/{name}"]
        error = (ours[name] - expected).norm() / expected.norm().clamp(min=1e-12)
        assert error < 1e-4, f"{name}: {error:.1e}; {RENEW}"


def check_loss(official: OfficialModel, thought: Thought, recorded: dict[str, Tensor]) -> None:
    """The recorded loss, and its gradients."""
    loss = official.loss(thought, recorded["in/y"])
    assert torch.isclose(loss, recorded["out/loss"], rtol=1e-6, atol=0.0), RENEW
    loss.backward()
    check_gradients(official, recorded)


def test_all_seventeen_cases_are_here() -> None:
    assert len(CASES) == 17
    assert len(RL_CASES) == 5


@pytest.mark.parametrize("name", DATA_CASES)
def test_supervised_case_gives_recorded_outputs_loss_and_gradients(name: str) -> None:
    official, recorded = load(name)
    inputs = [recorded["in/x"]] + ([recorded["in/z"]] if official.task == "qamnist" else [])
    thought = official.model(*inputs, record=True) if official.kind != "ff" else official.model(*inputs)
    predictions = recorded["out/predictions"]
    expected = predictions if predictions.dim() == 3 else predictions[..., None]
    assert worst(thought.predictions, expected) < 1e-5, RENEW
    if "out/certainties" in recorded:
        assert worst(thought.certainties, recorded["out/certainties"][:, 1]) < 1e-5, RENEW
    for key, field in RECORDINGS.items():
        if key in recorded:
            assert worst(getattr(thought.recording, field), recorded[key]) < 1e-5, f"{key}; {RENEW}"
    check_loss(official, thought, recorded)
    if official.kind == "ctm":  # without recording, the engine runs all ticks at once
        official.model.zero_grad()
        thought = official.model(*inputs)
        assert worst(thought.predictions, expected) < 1e-5, RENEW
        check_loss(official, thought, recorded)


@pytest.mark.parametrize("name", RL_CASES)
def test_rl_case_gives_recorded_outputs_loss_and_gradients(name: str) -> None:
    official, recorded = load(name)
    agent = official.model
    assert isinstance(agent, ActorCritic)
    is_first, actions, weights = recorded["in/done"], recorded["in/actions"], recorded["in/weights"]
    unrolled = agent.unroll(recorded["in/obs"], is_first, agent.initial_state(is_first.shape[1]))
    distribution = torch.distributions.Categorical(logits=unrolled.logits)
    log_probabilities, entropy = distribution.log_prob(actions), distribution.entropy()
    for ours, key in (
        (unrolled.sync, "hidden"), (unrolled.logits, "logits"), (unrolled.values, "values"),
        (log_probabilities, "logp"), (entropy, "entropy"),
    ):  # fmt: skip
        assert worst(ours, recorded[f"out/{key}"]) < 1e-5, f"{key}; {RENEW}"
    first, second = recorded["out/final_state_0"], recorded["out/final_state_1"]
    if isinstance(unrolled.state, LSTMState):
        assert worst(unrolled.state.hidden[:, 0], first) < 1e-5
        assert worst(unrolled.state.cell[:, 0], second) < 1e-5
    else:
        assert isinstance(unrolled.state, CoreState)
        assert unrolled.state.post_history is not None
        num_synced = unrolled.state.post_history.shape[1]
        assert worst(unrolled.state.pre_history, first) < 1e-5
        assert worst(unrolled.state.post_activation, second[..., -1]) < 1e-5
        assert worst(unrolled.state.post_history, second[:, -num_synced:]) < 1e-5
    loss = (log_probabilities.flatten() * weights).mean() + (unrolled.values.flatten() * weights.flip(0)).mean()
    loss = loss - 0.1 * entropy.mean()
    assert torch.isclose(loss, recorded["out/loss"], rtol=1e-6, atol=0.0), RENEW
    loss.backward()
    check_gradients(official, recorded)


@pytest.mark.parametrize("name", CASES)
def test_import_then_export_is_the_identity(name: str) -> None:
    with torch.serialization.safe_globals([argparse.Namespace]):
        published = torch.load(GOLDEN / f"{name}.pt", weights_only=True)["model_state_dict"]
    exported = load_official(GOLDEN / f"{name}.pt").to_official_state_dict()
    assert list(exported) == list(published)
    for key, value in published.items():
        assert exported[key].dtype == value.dtype
        assert torch.equal(exported[key], value), key


@pytest.mark.parametrize("name", CASES)
def test_task_kind_and_mode_are_told_from_the_file(name: str) -> None:
    official, _ = load(name)
    tasks = {"cartpole": "rl", "acrobot": "rl", "fourrooms": "rl", "image": "image", "maze": "mazes",
             "parity": "parity", "qamnist": "qamnist", "sort": "sort"}  # fmt: skip
    assert official.task == next(task for word, task in tasks.items() if word in name)
    assert official.kind == name.split("_")[0]
    assert isinstance(official.model, nn.Module)
    assert not official.model.training
