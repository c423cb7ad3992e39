"""The benchmark's networks of pictures in PyTorch, layer for layer those of kd_jax/models/, laid out
for oneDNN (channels_last). Torch is imported inside the functions, as in experiments/benchmarks/rivals.py.

Only what the benchmark needs: cnn-...-bn and the CIFAR resnet-N, for images of 32x32x3 and 10 classes.
"""

from typing import Any

SIDE, CHANNELS, NUM_CLASSES = 32, 3, 10


def build(spec: str):
    """A module from f32[B,32,32,3] to logits f32[B,10]. Images come with their channels last, so that turning
    the axes to PyTorch's order copies nothing."""
    import torch
    from torch import nn

    class FirstChannels(nn.Module):
        def forward(self, x):
            return x.permute(0, 3, 1, 2)

    family, *words = spec.split("-")
    layers = _cnn(words) if family == "cnn" else _resnet(int(words[0]))
    return nn.Sequential(FirstChannels(), *layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> list[Any]:
    """A convolution without bias, and batch normalisation."""
    from torch import nn

    return [nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)]


def _cnn(words: list[str]) -> list[Any]:
    """cnn-AxB-C-dD-bn: blocks of 3x3 convolutions, each block ended by pooling, then dense layers."""
    from torch import nn

    layers: list[Any] = []
    width, side = CHANNELS, SIDE
    dense = [word for word in words if word[0] == "d"]
    for word in words[: len(words) - len(dense) - 1]:
        for outputs in map(int, word.split("x")):
            layers += [*_conv(width, outputs), nn.ReLU(inplace=True)]
            width = outputs
        layers.append(nn.MaxPool2d(2))
        side //= 2
    layers.append(nn.Flatten())
    width *= side * side
    for word in dense:
        layers += [nn.Linear(width, int(word[1:])), nn.ReLU(inplace=True)]
        width = int(word[1:])
    return [*layers, nn.Linear(width, NUM_CLASSES)]


def _resnet(depth: int) -> list[Any]:
    """resnet-N: three stages of (N - 2) / 6 blocks of 16, 32 and 64 channels."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int):
            super().__init__()
            first, second = _conv(inputs, outputs, stride=stride), _conv(outputs, outputs)
            self.inner = nn.Sequential(*first, nn.ReLU(inplace=True), *second)
            self.shortcut = nn.Sequential(*(_conv(inputs, outputs, 1, stride) if inputs != outputs else []))
            self.end = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.end(self.inner(x) + self.shortcut(x))

    layers, width = [*_conv(CHANNELS, 16), nn.ReLU(inplace=True)], 16
    for outputs in (16, 32, 64):
        for i in range((depth - 2) // 6):
            layers.append(Block(width, outputs, 2 if i == 0 and outputs > 16 else 1))
            width = outputs
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, NUM_CLASSES)]
