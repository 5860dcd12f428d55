"""The residual networks for small images in PyTorch, which torchvision lacks.

He et al., arXiv 1512.03385, section 4.2. Where a shortcut changes its shape, option A takes every second pixel and adds
channels of zeros before and after, as the public weights of these networks have it; option B is a convolution.
"""

import torch
from torchvision.models.resnet import BasicBlock, Bottleneck

# Block, blocks of each stage, channels of the first stage, shortcut.
NETWORKS = {
    "small": (BasicBlock, [1, 1, 1, 1], 32, "B"),
    "resnet20": (BasicBlock, [3, 3, 3], 16, "A"),
    "resnet32": (BasicBlock, [5, 5, 5], 16, "A"),
    "resnet56": (BasicBlock, [9, 9, 9], 16, "A"),
    "resnet20_b": (BasicBlock, [3, 3, 3], 16, "B"),
    "resnet32_b": (BasicBlock, [5, 5, 5], 16, "B"),
    "resnet56_b": (BasicBlock, [9, 9, 9], 16, "B"),
    "cifar_resnet18": (BasicBlock, [2, 2, 2, 2], 64, "B"),
    "cifar_resnet34": (BasicBlock, [3, 4, 6, 3], 64, "B"),
    "cifar_resnet50": (Bottleneck, [3, 4, 6, 3], 64, "B"),
}


class ZeroPadded(torch.nn.Module):
    def __init__(self, added, stride):
        super().__init__()
        self.added, self.stride = added, stride

    def forward(self, x):
        x = x[:, :, :: self.stride, :: self.stride]
        return torch.nn.functional.pad(x, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))


class Cifar(torch.nn.Module):
    """A residual network whose stem is a 3 x 3 convolution at full size."""

    def __init__(self, block, blocks, width, shortcut, classes):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        channels, self.stages = width, len(blocks)
        for stage, count in enumerate(blocks):
            layers = []
            for index in range(count):
                stride, planes = (2 if stage > 0 and index == 0 else 1), width << stage
                downsample = None
                if stride != 1 or channels != planes * block.expansion:
                    downsample = ZeroPadded(planes - channels, stride) if shortcut == "A" else torch.nn.Sequential(
                        torch.nn.Conv2d(channels, planes * block.expansion, 1, stride, bias=False),
                        torch.nn.BatchNorm2d(planes * block.expansion),
                    )
                layers.append(block(channels, planes, stride, downsample))
                channels = planes * block.expansion
            setattr(self, f"layer{stage + 1}", torch.nn.Sequential(*layers))
        self.fc = torch.nn.Linear(channels, classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3)))


def create(arch, classes):
    return Cifar(*NETWORKS[arch], classes)


def as_published(state, accuracy):
    """A state dict as the public weights of these networks are: of DataParallel, with a head called `linear`."""
    names = {f"module.{name}".replace("module.fc.", "module.linear."): tensor for name, tensor in state.items()}
    return {"state_dict": names, "best_prec1": accuracy}
