"""Heads: linear layers with ReLU between them, started orthogonal."""

import torch
from reference import linear

from ctm_rl.machine.heads import MLPHead


def make(hidden_dims: tuple[int, ...] = (7, 5)) -> MLPHead:
    torch.manual_seed(4)
    return MLPHead(6, hidden_dims, 3).double()


def linears(head: MLPHead) -> list[torch.nn.Linear]:
    return [layer for layer in head.layers if isinstance(layer, torch.nn.Linear)]


def test_a_head_is_linear_relu_linear_relu_linear() -> None:
    head = make()
    with torch.no_grad():
        for layer in linears(head):
            layer.bias.normal_()
    inputs = torch.randn(2, 4, 6, dtype=torch.float64)
    outputs = head(inputs)
    assert outputs.shape == (2, 4, 3)
    for index in ((0, 0), (1, 3)):
        values = inputs[index]
        for layer in linears(head)[:-1]:
            values = linear(values, layer).clamp(min=0)
        torch.testing.assert_close(outputs[index], linear(values, linears(head)[-1]))


def test_names_are_those_of_a_plain_sequence() -> None:
    assert list(make().state_dict()) == [f"layers.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")]


def test_weights_start_orthogonal_with_gain_1_and_biases_at_0() -> None:
    for layer in linears(make()):
        weight = layer.weight
        product = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        torch.testing.assert_close(product, torch.eye(len(product), dtype=torch.float64), rtol=0, atol=1e-5)
        assert torch.equal(layer.bias, torch.zeros_like(layer.bias))


def test_without_hidden_layers_a_head_is_linear() -> None:
    head = make(())
    inputs = torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(head(inputs), inputs @ linears(head)[0].weight.T)
    assert len(head.layers) == 1
