"""Encoders, recomputed from their parameters by name."""

import math
from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from reference import glu, layer_norm, linear
from torch import Tensor, nn

from ctm_rl.config import INPUT_ENCODERS, RESNETS, AnswerConfig
from ctm_rl.encoders import IdentityEncoder, build_input_encoder, build_observation_encoder
from ctm_rl.encoders.control import ControlEncoder, PlainEncoder
from ctm_rl.encoders.digits import DigitEncoder, QuestionEncoder
from ctm_rl.encoders.grid import GridEncoder
from ctm_rl.encoders.image import ImageEncoder, ResNet, ShallowWide
from ctm_rl.encoders.parity import ParityEncoder
from ctm_rl.spaces.observations import grid_layout, vector_layout

LAYOUTS = {
    18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 140: (3, 4, 36, 3), 152: (3, 8, 36, 3),
}  # fmt: skip
# of the ImageNet classifiers of these depths, without their classifier and with a stem of 3x3 instead of 7x7
NUM_PARAMETERS = {18: 11_168_832, 34: 21_276_992, 50: 23_500_352, 101: 42_492_480, 152: 58_136_128}


def settle(encoder: nn.Module) -> nn.Module:
    """Evaluation mode, with running statistics other than the initial ones of BatchNorm."""
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return encoder.eval()


def normalise(state: Mapping[str, Tensor], name: str, values: Tensor) -> Tensor:
    """Batch normalisation with the running statistics."""
    scale, shift, mean, variance = (
        state[f"{name}.{part}"][None, :, None, None] for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (values - mean) / torch.sqrt(variance + 1e-5) * scale + shift


def slow_resnet(state: Mapping[str, Tensor], depth: int, num_stages: int, images: Tensor) -> Tensor:
    """A residual network from its parameters' names alone; the 3x3 convolution has the stride."""
    values = normalise(state, "bn1", F.conv2d(images, state["conv1.weight"], padding=1)).relu()
    values = F.max_pool2d(values, 3, 2, padding=1)
    for stage in range(1, num_stages + 1):
        for block in range(LAYOUTS[depth][stage - 1]):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            is_bottleneck = depth >= 50
            strides, paddings = ((1, stride, 1), (0, 1, 0)) if is_bottleneck else ((stride, 1), (1, 1))
            inner = values
            for i, (step, padding) in enumerate(zip(strides, paddings, strict=True), start=1):
                inner = F.conv2d(inner, state[f"{name}.conv{i}.weight"], stride=step, padding=padding)
                inner = normalise(state, f"{name}.bn{i}", inner)
                inner = inner.relu() if i < len(strides) else inner
            if f"{name}.downsample.0.weight" in state:
                values = F.conv2d(values, state[f"{name}.downsample.0.weight"], stride=stride)
                values = normalise(state, f"{name}.downsample.1", values)
            values = (inner + values).relu()
    return values


@pytest.mark.parametrize(("depth", "num_stages"), [(18, 1), (18, 3), (34, 2), (50, 1), (50, 2)])
def test_resnet_equals_convolutions_by_parameter_name(depth: int, num_stages: int) -> None:
    torch.manual_seed(8)
    encoder = settle(ImageEncoder(f"resnet{depth}-{num_stages}", 2))
    assert isinstance(encoder, ImageEncoder)
    images = torch.randn(3, 2, 13, 18)
    state = encoder.resnet.state_dict()
    rgb = F.conv2d(images, encoder.to_rgb.weight, encoder.to_rgb.bias)
    expected = slow_resnet(state, depth, num_stages, rgb)
    torch.testing.assert_close(encoder(images), expected, rtol=1e-4, atol=1e-5)
    assert expected.shape[1] == encoder.out_dim


@pytest.mark.parametrize("name", RESNETS)
def test_every_resnet_has_the_documented_channels_and_the_configured_stages(name: str) -> None:
    depth, num_stages = map(int, name.removeprefix("resnet").split("-"))
    with torch.device("meta"):
        encoder = ImageEncoder(name, 3)
    assert encoder.out_dim == 64 * 2 ** (num_stages - 1) * (1 if depth < 50 else 4)
    blocks = {tuple(key.split(".")[:2]) for key in encoder.resnet.state_dict() if key.startswith("layer")}
    layout = LAYOUTS[depth][:num_stages]
    assert blocks == {(f"layer{stage}", str(block)) for stage, n in enumerate(layout, start=1) for block in range(n)}


@pytest.mark.parametrize("depth", NUM_PARAMETERS)
def test_full_resnets_have_the_published_number_of_parameters(depth: int) -> None:
    with torch.device("meta"):
        resnet = ResNet(depth, 4)
    assert sum(parameter.numel() for parameter in resnet.parameters()) == NUM_PARAMETERS[depth]


def test_resnet_parameters_are_named_as_in_torchvision() -> None:
    with torch.device("meta"):
        basic, deep = set(ResNet(18, 2).state_dict()), set(ResNet(50, 1).state_dict())
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    two = [f"{i}.conv{j}.weight" for i in (0, 1) for j in (1, 2)] + [
        f"{i}.bn{j}.{part}" for i in (0, 1) for j in (1, 2) for part in norm
    ]
    stem = {"conv1.weight", *(f"bn1.{part}" for part in norm)}
    shortcut = {"layer2.0.downsample.0.weight", *(f"layer2.0.downsample.1.{part}" for part in norm)}
    assert basic == stem | shortcut | {f"layer{stage}.{name}" for stage in (1, 2) for name in two}
    three = [f"{i}.conv{j}.weight" for i in range(3) for j in (1, 2, 3)] + [
        f"{i}.bn{j}.{part}" for i in range(3) for j in (1, 2, 3) for part in norm
    ]
    shortcut = {"layer1.0.downsample.0.weight", *(f"layer1.0.downsample.1.{part}" for part in norm)}
    assert deep == stem | shortcut | {f"layer1.{name}" for name in three}


def test_shallow_wide_is_two_gated_convolutions() -> None:
    torch.manual_seed(9)
    encoder = settle(ShallowWide(2))
    assert isinstance(encoder, ShallowWide)
    state, images = encoder.state_dict(), torch.randn(2, 2, 5, 8)
    values = F.conv2d(images, state["layers.0.weight"], state["layers.0.bias"], stride=2, padding=1)
    values = normalise(state, "layers.2", values[:, :2048] * values[:, 2048:].sigmoid())
    kernels, bias = state["layers.3.weight"].chunk(32), state["layers.3.bias"].chunk(32)
    groups = zip(values.chunk(32, 1), kernels, bias, strict=True)
    values = torch.cat([F.conv2d(part, kernel, shift, padding=1) for part, kernel, shift in groups], 1)
    values = normalise(state, "layers.5", values[:, :2048] * values[:, 2048:].sigmoid())
    outputs = encoder(images)
    assert outputs.shape == (2, encoder.out_dim, 3, 4) == (2, 2048, 3, 4)
    torch.testing.assert_close(outputs, values, rtol=1e-4, atol=1e-5)


def test_digits_are_convolved_and_pooled_twice() -> None:
    torch.manual_seed(10)
    encoder = settle(DigitEncoder(5))
    state, images = encoder.state_dict(), torch.randn(3, 1, 18, 9)
    values = images
    for first in (0, 4):
        weight, bias = state[f"layers.{first}.weight"], state[f"layers.{first}.bias"]
        values = normalise(state, f"layers.{first + 1}", F.conv2d(values, weight, bias, padding=1)).relu()
        values = F.max_pool2d(values, 2)
    assert values.shape == (3, 5, 4, 2)
    torch.testing.assert_close(encoder(images), values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("feature_dim", [6, 7])
def test_an_index_is_a_sinusoid_and_an_operator_is_learned(feature_dim: int) -> None:
    encoder = QuestionEncoder(feature_dim)
    question = torch.tensor([[0, -1, 3, -2, 49], [7, -2, 7, -1, 1]])
    parts = encoder(question)
    assert parts.shape == (2, 5, feature_dim)
    for row, column in ((0, 0), (0, 2), (0, 4), (1, 0), (1, 2), (1, 4)):
        for channel in range(feature_dim):
            angle = int(question[row, column]) / 10000 ** (channel // 2 * 2 / feature_dim)
            expected = math.cos(angle) if channel % 2 else math.sin(angle)
            assert abs(float(parts[row, column, channel].detach()) - expected) < 1e-5
    plus, minus = encoder.operator.weight
    assert torch.equal(parts[0, 1], plus)
    assert torch.equal(parts[1, 3], plus)
    assert torch.equal(parts[0, 3], minus)
    assert torch.equal(parts[1, 1], minus)
    assert list(encoder.state_dict()) == ["index", "operator.weight"]
    assert [name for name, _ in encoder.named_parameters()] == ["operator.weight"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_parity_looks_up_whether_a_value_is_plus_one(dtype: torch.dtype) -> None:
    encoder = ParityEncoder(5)
    sequence = torch.tensor([[1, -1, -1, 1], [-1, 1, 1, 1]])
    outputs = encoder(sequence.to(dtype))
    assert outputs.shape == (2, encoder.out_dim, 4) == (2, 5, 4)
    for row in range(2):
        for place in range(4):
            index = 1 if int(sequence[row, place]) == 1 else 0
            assert torch.equal(outputs[row, :, place], encoder.embedding.weight[index])


def slow_layers(layers: nn.Sequential, values: Tensor) -> Tensor:
    """Linear, GLU, LayerNorm, twice, of one vector."""
    dense = [layer for layer in layers if isinstance(layer, nn.Linear)]
    norms = [layer for layer in layers if isinstance(layer, nn.LayerNorm)]
    for one, norm in zip(dense, norms, strict=True):
        values = layer_norm(glu(linear(values, one)), norm)
    return values


def test_control_encodes_flattened_observations() -> None:
    torch.manual_seed(11)
    encoder = ControlEncoder((2, 3), 5)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    observations = torch.randn(4, 2, 3)
    outputs = encoder(observations)
    assert outputs.shape == (4, encoder.out_dim) == (4, 5)
    for row in range(4):
        torch.testing.assert_close(outputs[row], slow_layers(encoder.layers, observations[row].flatten()))
    assert [name for name in encoder.state_dict() if name.endswith("weight")] == [
        f"layers.{i}.weight" for i in (1, 3, 4, 6)
    ]


def test_plain_passes_scaled_and_normalised_numbers_on() -> None:
    observations = torch.tensor([[[0, 51], [102, 255]], [[255, 0], [51, 102]]], dtype=torch.uint8)
    encoder = PlainEncoder((2, 2), 255.0)
    assert encoder.out_dim == 4
    assert torch.allclose(encoder(observations), observations.flatten(1) / 255)
    assert not list(encoder.parameters())
    normalising = PlainEncoder((2, 2), 255.0, is_normalised=True)
    assert normalising.normaliser is not None
    normalising.normaliser.observe_(normalising.normaliser.moments(normalising.numbers(observations), torch.ones(2)))
    numbers = observations.flatten(1) / 255
    expected = (numbers - numbers.mean(0)) / numbers.std(0, correction=0)
    assert torch.allclose(normalising(observations), expected, atol=1e-4)


def test_control_takes_any_number_type() -> None:
    torch.manual_seed(12)
    encoder = ControlEncoder((3,), 4)
    observations = torch.tensor([[3, 0, 1], [2, 5, 4]])
    expected = encoder(observations.float())
    for dtype in (torch.uint8, torch.int64, torch.float64):
        assert torch.equal(encoder(observations.to(dtype)), expected)


def grids(num_rows: int = 3) -> Tensor:
    """Views of 2 x 4 cells, with every legal number somewhere."""
    generator = torch.Generator().manual_seed(13)
    parts = [torch.randint(0, n, (num_rows, 2, 4), generator=generator) for n in (11, 6, 3)]
    views = torch.stack(parts, -1)
    views[0, 0, 0] = torch.tensor([10, 5, 2])
    return views


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_grid_encodes_cell_after_cell(dtype: torch.dtype) -> None:
    torch.manual_seed(14)
    encoder = GridEncoder((2, 4, 3), 5)
    views = grids()
    outputs = encoder(views.to(dtype))
    assert outputs.shape == (3, encoder.out_dim) == (3, 2 * 4 * 5)
    for row in range(3):
        for y in range(2):
            for x in range(4):
                number, color, state = views[row, y, x]
                cell = y * 4 + x
                embedded = torch.cat((
                    encoder.object.weight[number], encoder.color.weight[color], encoder.state.weight[state],
                    encoder.position.weight[cell],
                ))  # fmt: skip
                expected = slow_layers(encoder.layers, embedded)
                torch.testing.assert_close(outputs[row, 5 * cell : 5 * cell + 5], expected)


@pytest.mark.parametrize("shape", [(7, 7), (7, 7, 4), (4,)])
def test_grid_refuses_views_without_three_layers(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"reads \[height, width, 3\] .* got \("):
        GridEncoder(shape, 5)


def make(name: str) -> tuple[nn.Module, Tensor]:
    """An encoder in evaluation mode, and a batch for it."""
    torch.manual_seed(15)
    makers: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
        "resnet18-2": lambda: (ImageEncoder("resnet18-2", 2), torch.randn(3, 2, 9, 12)),
        "resnet50-1": lambda: (ImageEncoder("resnet50-1", 2), torch.randn(3, 2, 7, 6)),
        "digits": lambda: (DigitEncoder(5), torch.randn(3, 1, 12, 8)),
        "parity": lambda: (ParityEncoder(5), torch.randint(0, 2, (3, 6)) * 2 - 1),
        "control": lambda: (ControlEncoder((4,), 5), torch.randn(3, 4)),
        "grid": lambda: (GridEncoder((2, 4, 3), 5), grids(12)),
    }
    encoder, inputs = makers[name]()
    return settle(encoder), inputs


MADE = ("resnet18-2", "resnet50-1", "digits", "parity", "control", "grid")


@pytest.mark.parametrize("name", MADE)
def test_rows_of_a_batch_are_encoded_independently_and_nothing_changes(name: str) -> None:
    encoder, inputs = make(name)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    given, generator = inputs.clone(), torch.get_rng_state()
    together = encoder(inputs)
    for row in range(len(inputs)):
        torch.testing.assert_close(encoder(inputs[row : row + 1])[0], together[row], rtol=1e-4, atol=1e-5)
    assert torch.equal(inputs, given)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("name", MADE)
def test_every_parameter_of_an_encoder_gets_a_gradient(name: str) -> None:
    encoder, inputs = make(name)
    encoder(inputs).square().sum().backward()
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


def test_every_kind_of_input_encoder_can_be_built_by_name() -> None:
    others = [name for name in INPUT_ENCODERS if name not in RESNETS]
    classes = (ShallowWide, DigitEncoder, ParityEncoder, DigitEncoder, IdentityEncoder, ImageEncoder)
    for name, kind in zip((*others, "resnet34-2"), classes, strict=True):
        config = AnswerConfig(
            encoder=name, num_action_sync_neurons=4, feature_dim=8, num_answer_ticks=int(name == "digits")
        )
        with torch.device("meta"):
            encoder = build_input_encoder(config)
        assert isinstance(encoder, kind)
        assert encoder.out_dim == {"shallow-wide": 2048, "none": 3, "resnet34-2": 128}.get(name, 8)
    assert torch.equal(IdentityEncoder(3)(torch.arange(6)), torch.arange(6))


def test_every_observation_encoder_can_be_built_from_a_layout() -> None:
    control, grid = build_observation_encoder(vector_layout(4), 5), build_observation_encoder(grid_layout(2, 4), 5)
    assert isinstance(control, ControlEncoder)
    assert isinstance(grid, GridEncoder)
    assert (control.out_dim, grid.out_dim) == (5, 40)
