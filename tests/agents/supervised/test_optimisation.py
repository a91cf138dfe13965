"""Schedules, weight decay and clipping, against their plain formulas."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from ctm_rl.agents.experiments.answering import LearningSettings
from ctm_rl.agents.supervised.optimisation import NUM_STORED, QuantileClipper, learning_rate, parameter_groups
from ctm_rl.config import AnswerConfig
from ctm_rl.models.answering import build_model

SETTINGS = LearningSettings(lr=0.3, num_warmup_steps=4, schedule="constant")


@pytest.mark.parametrize("warmup", [0, 4])
def test_the_rate_rises_linearly_then_falls_by_half_a_cosine(warmup: int) -> None:
    settings = dataclasses.replace(SETTINGS, schedule="cosine", num_warmup_steps=warmup)
    rates = [learning_rate(settings, step, 24) for step in range(30)]
    for step in range(warmup):
        assert rates[step] == pytest.approx(0.3 * (step + 1) / (warmup + 1))
    assert rates[warmup] == 0.3
    for step in range(warmup, 24):
        assert rates[step] == pytest.approx(0.3 * math.cos(math.pi / 2 * (step - warmup) / (24 - warmup)) ** 2)
    assert rates[24:] == [0.0] * 6
    assert rates[:warmup] == sorted(set(rates[:warmup]))


def test_the_rate_is_constant_or_falls_at_milestones() -> None:
    assert [learning_rate(SETTINGS, step, 10) for step in range(4, 20)] == [0.3] * 16
    steps = dataclasses.replace(SETTINGS, schedule="multistep", milestones=(6, 9), lr_decay=0.5)
    assert [learning_rate(steps, step, 10) for step in (4, 5, 6, 8, 9, 99)] == [0.3, 0.3, 0.15, 0.15, 0.075, 0.075]


def test_a_budget_shorter_than_the_warmup_ends_in_it() -> None:
    settings = dataclasses.replace(SETTINGS, schedule="cosine", num_warmup_steps=50)
    assert learning_rate(settings, 9, 10) == pytest.approx(0.3 * 10 / 51)
    assert learning_rate(settings, 50, 10) == 0.3


def test_vectors_and_named_parameters_do_not_decay() -> None:
    model = build_model(
        AnswerConfig(
            encoder="parity",
            num_neurons=9,
            history_length=4,
            num_groups=3,
            num_classes=2,
            input_dim=3,
            feature_dim=6,
            num_heads=2,
            num_output_sync_neurons=4,
            num_action_sync_neurons=3,
        )
    )
    settings = LearningSettings(weight_decay=0.25)
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, undecayed = parameter_groups(model.named_parameters(), settings)
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.25, 0.0)
    assert len(decayed["params"]) + len(undecayed["params"]) == len(names)
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])
    of_decayed = {names[parameter] for parameter in decayed["params"]}
    of_undecayed = {names[parameter] for parameter in undecayed["params"]}
    assert "head.weight" in of_decayed
    assert {"head.bias", "core.start_pre_history", "core.start_post_activation"} <= of_undecayed
    assert any("decay_rate" in name for name in of_undecayed)
    assert not any(word in name for name in of_decayed for word in settings.undecayed)
    only = LearningSettings(weight_decay=0.25, undecayed=("head",))
    kept = parameter_groups(model.named_parameters(), only)[1]["params"]
    assert any(parameter is model.head.weight for parameter in kept)  # pyright: ignore[reportAttributeAccessIssue]


def test_an_empty_group_is_left_out() -> None:
    (group,) = parameter_groups(nn.LayerNorm(3).named_parameters(), LearningSettings(weight_decay=0.25))
    assert group["weight_decay"] == 0.0


def gradients(step: int, seed: int = 0) -> list[torch.Tensor]:
    """Gradients of three parameters, of very different sizes from step to step."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    scale = torch.rand(3, generator=generator).exp() * torch.tensor([1.0, 10.0, 0.1])
    shapes = ((2, 3), (4,), (1, 2, 2))
    return [scale[i] * torch.randn(shape, generator=generator) for i, shape in enumerate(shapes)]


def clip(clipper: QuantileClipper, grads: list[torch.Tensor | None]) -> tuple[list[torch.Tensor | None], float]:
    """What a clipper makes of gradients."""
    parameters = [nn.Parameter(torch.zeros_like(grad) if grad is not None else torch.zeros(1)) for grad in grads]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = None if grad is None else grad.clone()
    norm = clipper.clip_(parameters)
    return [parameter.grad for parameter in parameters], float(norm)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 1.0])
def test_each_gradient_is_clipped_at_the_quantile_of_its_own_norms(quantile: float) -> None:
    clipper = QuantileClipper(3, quantile)
    stored: list[list[float]] = [[], [], []]
    num_clipped = 0
    for step in range(NUM_STORED + 40):
        grads = gradients(step)
        clipped, norm = clip(clipper, list(grads))
        norms = [float(grad.double().square().sum().sqrt()) for grad in grads]
        assert norm == pytest.approx(math.hypot(*norms), rel=1e-5)
        for index, (grad, after) in enumerate(zip(grads, clipped, strict=True)):
            assert after is not None
            if step == 0:
                assert torch.equal(after, grad)
            elif step < 60 or step > NUM_STORED - 3:
                limit = float(np.quantile(stored[index][-NUM_STORED:], quantile))
                expected = grad * min(1.0, limit / norms[index])
                torch.testing.assert_close(after, expected, rtol=1e-5, atol=0.0)
                num_clipped += limit < norms[index]
            stored[index].append(norms[index])
    assert num_clipped > 0


def test_a_clipper_continues_from_its_state() -> None:
    one, two = QuantileClipper(3, 0.9), QuantileClipper(3, 0.9)
    for step in range(7):
        clip(one, list(gradients(step)))
    state = one.get_state()
    clip(one, list(gradients(99)))  # what follows leaves the state as it is
    two.set_state(state)
    three = QuantileClipper(3, 0.9)
    three.set_state(state)
    for step in range(7, 12):
        for after, expected in zip(
            clip(two, list(gradients(step)))[0], clip(three, list(gradients(step)))[0], strict=True
        ):
            assert torch.equal(after, expected)  # pyright: ignore[reportArgumentType]
    large: list[torch.Tensor | None] = [1e3 * grad for grad in gradients(12)]
    for after, free in zip(clip(two, large)[0], clip(QuantileClipper(3, 0.9), large)[0], strict=True):
        assert after is not None
        assert free is not None
        assert after.norm() < 0.1 * free.norm()


def test_steps_without_a_finite_gradient_are_not_stored() -> None:
    clipper, plain = QuantileClipper(3, 0.9), QuantileClipper(3, 0.9)
    broken = gradients(50)
    broken[1][2] = float("inf")
    for step in range(4):
        grads: list[torch.Tensor | None] = list(gradients(step))
        clip(plain, list(grads))
        clip(clipper, grads)
        clip(clipper, [broken[0] * 0 + grads[0] if grads[0] is not None else None, broken[1], None])
    # The second parameter saw infinities, the third saw nothing: both as if these steps had not been.
    after, expected = clip(clipper, list(gradients(5)))[0], clip(plain, list(gradients(5)))[0]
    for index in (1, 2):
        torch.testing.assert_close(after[index], expected[index], rtol=1e-6, atol=0.0)


def test_a_late_first_gradient_is_not_clipped_either() -> None:
    clipper = QuantileClipper(3, 0.5)
    for step in range(3):
        clip(clipper, [*gradients(step)[:2], None])
    grads = gradients(3)
    grads[2] *= 1e6
    assert torch.equal(clip(clipper, list(grads))[0][2], grads[2])  # pyright: ignore[reportArgumentType]


def test_nothing_to_clip_is_a_norm_of_zero() -> None:
    assert clip(QuantileClipper(2, 0.9), [None, None])[1] == 0.0
