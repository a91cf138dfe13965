"""The encoder of large images equals its layers written down one by one."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ctm_rl.encoders.patches import PatchEncoder, is_large_image


@pytest.mark.parametrize(
    ("shape", "sides"),
    [((84, 84, 3), (7, 7)), ((4, 84, 84), (7, 7)), ((96, 50, 3), (8, 5)), ((64, 64), (6, 6)), ((210, 160, 3), (8, 8))],
)
def test_patches_are_weighted_sums_in_value_and_gradient(shape: tuple[int, ...], sides: tuple[int, int]) -> None:
    encoder = PatchEncoder(shape, 5).double()
    bytes_ = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    features = encoder(bytes_)
    weights = torch.randn(features.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad((features * weights).sum(), list(encoder.parameters()))

    images = bytes_.double() / 255
    images = images[:, None] if len(shape) == 2 else images if shape[0] < shape[2] else images.permute(0, 3, 1, 2)
    images = F.pad(images, (0, -images.shape[3] % sides[1], 0, -images.shape[2] % sides[0]))
    assert encoder.patches.bias is not None
    cut = images.unfold(2, sides[0], sides[0]).unfold(3, sides[1], sides[1])  # [N, C, rows, columns, *sides]
    places = torch.einsum("ncrshw,kchw->nkrs", cut, encoder.patches.weight) + encoder.patches.bias[:, None, None]
    places = F.relu(places)
    places = F.relu(F.conv2d(places, encoder.convolution.weight, encoder.convolution.bias, stride=2, padding=1))
    places = F.adaptive_avg_pool2d(places, (min(places.shape[2], 8), min(places.shape[3], 8)))
    linear, norm = encoder.features
    assert isinstance(linear, nn.Linear) and isinstance(norm, nn.LayerNorm)
    expected = norm(linear(places.permute(0, 2, 3, 1).flatten(1)))
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(gradients, torch.autograd.grad((expected * weights).sum(), list(encoder.parameters())))


@pytest.mark.parametrize("shape", [(84, 84, 3), (3, 84, 84), (48, 50), (4, 48, 48)])
def test_images_with_two_long_sides_are_large(shape: tuple[int, ...]) -> None:
    assert is_large_image(shape)


@pytest.mark.parametrize("shape", [(47, 84, 3), (3, 84, 32), (16, 16)])
def test_other_images_are_not(shape: tuple[int, ...]) -> None:
    assert not is_large_image(shape)


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the patches encoder reads \[height, width\].*got \(1, 2, 3, 4\)"):
        PatchEncoder((1, 2, 3, 4), 5)
