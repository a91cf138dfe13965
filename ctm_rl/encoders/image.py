"""Encoders of images: ResNets with a small stem, cut after a stage, and a shallow, wide pair of convolutions."""

from jaxtyping import Float
from torch import Tensor, nn

BASIC_LAYOUTS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK_LAYOUTS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 140: (3, 4, 36, 3), 152: (3, 8, 36, 3)}
STEM_WIDTH = 64
WIDE = 4096


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. Source: arXiv:1512.03385."""

    expansion = 1

    def __init__(self, input_dim: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(input_dim, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(input_dim, width, stride)

    def forward(self, inputs: Float[Tensor, "B I H W"]) -> Float[Tensor, "B C h w"]:
        """Maps a feature map to one of ``width`` channels."""
        outputs = self.bn1(self.conv1(inputs)).relu()
        return (self.bn2(self.conv2(outputs)) + self.downsample(inputs)).relu()


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions and a shortcut. Source: arXiv:1512.03385."""

    expansion = 4

    def __init__(self, input_dim: int, width: int, stride: int) -> None:
        super().__init__()
        output_dim = self.expansion * width
        self.conv1 = nn.Conv2d(input_dim, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, output_dim, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(output_dim)
        self.downsample = _shortcut(input_dim, output_dim, stride)

    def forward(self, inputs: Float[Tensor, "B I H W"]) -> Float[Tensor, "B C h w"]:
        """Maps a feature map to one of 4 x ``width`` channels."""
        outputs = self.bn1(self.conv1(inputs)).relu()
        outputs = self.bn2(self.conv2(outputs)).relu()
        return (self.bn3(self.conv3(outputs)) + self.downsample(inputs)).relu()


class ResNet(nn.Module):
    """A residual network with a 3x3 stem of stride 1, cut after a stage; parameters named as torchvision's.

    Args:
        depth: 18, 34, 50, 101 or 152; or 140, which is what the ImageNet experiment of arXiv:2505.05522 really ran (its
            185,989,886 parameters): a 152 with 4 instead of 8 blocks in the second stage.
        num_stages: how many stages are kept, 1 to 4.
    """

    def __init__(self, depth: int, num_stages: int) -> None:
        super().__init__()
        block = BasicBlock if depth in BASIC_LAYOUTS else Bottleneck
        layout = {**BASIC_LAYOUTS, **BOTTLENECK_LAYOUTS}[depth]
        self.conv1 = nn.Conv2d(3, STEM_WIDTH, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_WIDTH)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.num_stages = num_stages
        channels = STEM_WIDTH
        for stage in range(num_stages):
            width = STEM_WIDTH * 2**stage
            blocks = []
            for index in range(layout[stage]):
                blocks.append(block(channels, width, stride=2 if stage > 0 and index == 0 else 1))
                channels = block.expansion * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.out_dim = channels

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Maps images to the feature map of the last stage kept."""
        outputs = self.maxpool(self.bn1(self.conv1(images)).relu())
        for stage in range(self.num_stages):
            outputs = self.get_submodule(f"layer{stage + 1}")(outputs)
        return outputs


class ImageEncoder(nn.Module):
    """A 1x1 convolution to three channels, then a ResNet. Source: arXiv:2505.05522, image experiments and mazes.

    Args:
        name: as ``resnet34-2``: depth, and how many stages are kept.
        input_dim: channels of an image.
    """

    def __init__(self, name: str, input_dim: int) -> None:
        super().__init__()
        depth, num_stages = name.removeprefix("resnet").split("-")
        self.to_rgb = nn.Conv2d(input_dim, 3, 1)
        self.resnet = ResNet(int(depth), int(num_stages))
        self.out_dim = self.resnet.out_dim

    def forward(self, images: Float[Tensor, "B I H W"]) -> Float[Tensor, "B C h w"]:
        """Maps images [B, I, H, W] to a feature map [B, C, h, w]."""
        return self.resnet(self.to_rgb(images))


class ShallowWide(nn.Module):
    """Two wide convolutions with GLU over the channels, the second in 32 groups. Source: arXiv:2505.05522.

    Args:
        input_dim: channels of an image.
    """

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.out_dim = WIDE // 2
        self.layers = nn.Sequential(
            nn.Conv2d(input_dim, WIDE, 3, stride=2, padding=1),
            nn.GLU(dim=1),
            nn.BatchNorm2d(self.out_dim),
            nn.Conv2d(self.out_dim, WIDE, 3, padding=1, groups=32),
            nn.GLU(dim=1),
            nn.BatchNorm2d(self.out_dim),
        )

    def forward(self, images: Float[Tensor, "B I H W"]) -> Float[Tensor, "B C h w"]:
        """Maps images [B, I, H, W] to a feature map [B, 2048, H / 2, W / 2]."""
        return self.layers(images)


def _shortcut(input_dim: int, output_dim: int, stride: int) -> nn.Module:
    """The identity where shapes allow it, else a strided 1x1 convolution."""
    if stride == 1 and input_dim == output_dim:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(input_dim, output_dim, 1, stride, bias=False), nn.BatchNorm2d(output_dim))
