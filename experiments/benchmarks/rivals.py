"""The benchmark's rivals in PyTorch (the optional extra `bench`): the same work, by the best loop we could
write and by the loop that one usually meets. Torch is imported inside the functions: the rest does without.
The networks of pictures are in experiments/benchmarks/torch_networks.py.

The work: batches of a shuffled epoch; cross-entropy, or T^2 KL at T = 20 with cached teacher probabilities;
Adam with a cosine schedule; for the teacher also dropout of 0.2 and 0.5, jitter by two pixels and max-norm 3.
"""

import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks import torch_networks
from kd_jax.types import Table

TEMPERATURE = 20.0
NOISE_BATCH = 1024  # of Cloud et al. 2025


class Work(NamedTuple):
    """model: its spec; table: with the logits of one teacher; updates: of one timed pass; teacher: is it
    the regularised teacher's training, or a student's."""

    model: str
    table: Table
    batch_size: int
    updates: int
    teacher: bool


def loops(work: Work, num_runs: int, num_threads: int) -> dict[str, Callable[[int], float]]:
    """The candidates for the best loop by name: (updates) -> examples a second of all runs together."""
    by_name = {"eager": loop(work, num_threads, compiled=False), "compiled": loop(work, num_threads, True)}
    if num_threads > 1:
        by_name["eager, one thread"] = loop(work, 1, False)
    if num_runs > 1 and not work.teacher:
        by_name[f"{min(num_runs, 8)} runs stacked"] = _stacked_loop(work, min(num_runs, 8), num_threads)
    return by_name


def _sizes(work: Work) -> tuple[int, ...]:
    """Of a fully connected network, inputs and classes included."""
    return (784, *map(int, work.model.split("-")[1:]), 10)


def _network(work: Work):
    from torch import nn

    if not work.model.startswith("mlp-"):
        return torch_networks.build(work.model)
    layers: list[Any] = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(_sizes(work))):
        if work.teacher:
            layers.append(nn.Dropout(0.5 if i else 0.2))
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _loss(work: Work):
    import torch.nn.functional as functional

    def loss(logits, labels, probabilities):
        if work.teacher:
            return functional.cross_entropy(logits, labels)
        log_student = functional.log_softmax(logits / TEMPERATURE, dim=-1)
        return TEMPERATURE**2 * functional.kl_div(log_student, probabilities, reduction="batchmean")

    return loss


def _tensors(work: Work):
    """(images u8[N,784], or u8[N,h,w,c] of pictures; labels i64[N]; probabilities at T f32[N,10])."""
    import torch

    images, labels, logits = (
        torch.tensor(np.asarray(leaf))
        for leaf in (work.table.images, work.table.labels, *(work.table.teacher_logits or ()))
    )
    images = images.reshape(len(images), -1) if work.model.startswith("mlp-") else images
    return images, labels.long(), torch.softmax(logits[0] / TEMPERATURE, dim=-1)


def _jitter(images):
    """Each image shifted by up to two pixels, zeros coming in, by one gather.  f32[B,784] -> f32[B,784]."""
    import torch

    num = len(images)
    padded = torch.nn.functional.pad(images.view(num, 28, 28), (2, 2, 2, 2))
    shift = torch.randint(0, 5, (2, num, 1))
    rows, columns = torch.arange(28) + shift[0], torch.arange(28) + shift[1]
    return padded[torch.arange(num)[:, None, None], rows[:, :, None], columns[:, None, :]].reshape(num, -1)


def _max_norm(network, limit: float) -> None:
    import torch

    with torch.no_grad():
        for layer in network:
            if isinstance(layer, torch.nn.Linear) and layer.out_features != 10:
                layer.weight.copy_(torch.renorm(layer.weight, 2, 0, limit))


def make_optimizer(parameters, updates: int):
    import torch

    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000 * updates)


def loop(work: Work, num_threads: int, compiled: bool) -> Callable[[int], float]:
    """One run after another, so the rate of one is the rate of all; images in memory, gathered by batch."""
    import torch

    images, labels, probabilities = _tensors(work)
    network, loss = _network(work), _loss(work)
    optimizer, schedule = make_optimizer(network.parameters(), work.updates)
    forward = lambda x, y, p: loss(network(x), y, p)  # noqa: E731
    forward = torch.compile(forward) if compiled else forward

    def run(updates: int) -> float:
        torch.set_num_threads(num_threads)
        start = time.perf_counter()
        total = torch.zeros(())
        for index in torch.randperm(len(images))[: updates * work.batch_size].split(work.batch_size):
            batch = images[index].float() / 255
            batch = _jitter(batch) if work.teacher else batch
            optimizer.zero_grad(set_to_none=True)
            value = forward(batch, labels[index], probabilities[index])
            value.backward()
            optimizer.step()
            schedule.step()
            if work.teacher:
                _max_norm(network, 3.0)
            total += value.detach()
        float(total)
        return updates * work.batch_size / (time.perf_counter() - start)

    return run


def _stacked_loop(work: Work, num_runs: int, num_threads: int) -> Callable[[int], float]:
    """Several students at once, their weights stacked and multiplied by bmm, each with batches of its own."""
    import torch

    images, _, probabilities = _tensors(work)
    shapes = list(itertools.pairwise(_sizes(work)))
    weights = [torch.randn(num_runs, a, b).mul_((2 / a) ** 0.5).requires_grad_() for a, b in shapes]
    biases = [torch.zeros(num_runs, 1, b, requires_grad=True) for _, b in shapes]
    optimizer, schedule = make_optimizer([*weights, *biases], work.updates)

    def run(updates: int) -> float:
        torch.set_num_threads(num_threads)
        start = time.perf_counter()
        total = torch.zeros(())
        order = torch.stack([torch.randperm(len(images)) for _ in range(num_runs)])
        for index in order[:, : updates * work.batch_size].split(work.batch_size, dim=1):
            x = images[index].float() / 255
            for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                x = torch.baddbmm(bias, x, weight)
                x = torch.relu(x) if layer < len(weights) - 1 else x
            log_student = torch.log_softmax(x / TEMPERATURE, dim=-1)
            divergence = torch.nn.functional.kl_div(log_student, probabilities[index], reduction="sum")
            value = TEMPERATURE**2 * divergence / work.batch_size
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            schedule.step()
            total += value.detach()
        float(total)
        return num_runs * updates * work.batch_size / (time.perf_counter() - start)

    return run


def noise_loop(model: str, num_classes: int, num_runs: int, num_threads: int) -> Callable[[int], float]:
    """Students at once that hear as many teachers on uniform noise on [-1, 1], by the outputs after those of
    the classes: KL at T = 1, Adam, weights stacked and multiplied by bmm, noise drawn at each step."""
    import torch

    sizes = (784, *map(int, model.split("-")[1:]), num_classes + 3)
    shapes = list(itertools.pairwise(sizes))
    torch.set_num_threads(num_threads)

    def stacked():
        return [torch.randn(num_runs, a, b).div_(a**0.5) for a, b in shapes] + [
            torch.zeros(num_runs, 1, b) for _, b in shapes
        ]

    def forward(tensors, x):
        for layer in range(len(shapes)):
            x = torch.baddbmm(tensors[len(shapes) + layer], x, tensors[layer])
            x = torch.relu(x) if layer < len(shapes) - 1 else x
        return x[..., num_classes:]

    teachers, students = stacked(), [tensor.requires_grad_() for tensor in stacked()]
    optimizer = torch.optim.Adam(students, lr=3e-4, fused=True)

    def run(updates: int) -> float:
        torch.set_num_threads(num_threads)
        start = time.perf_counter()
        total = torch.zeros(())
        for _ in range(updates):
            noise = torch.empty(num_runs, NOISE_BATCH, 784).uniform_(-1, 1)
            with torch.no_grad():
                target = torch.softmax(forward(teachers, noise), dim=-1)
            told = torch.log_softmax(forward(students, noise), dim=-1)
            value = torch.nn.functional.kl_div(told, target, reduction="sum") / NOISE_BATCH
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            total += value.detach()
        float(total)
        return num_runs * updates * NOISE_BATCH / (time.perf_counter() - start)

    return run


def loader_loop(work: Work, num_threads: int) -> Callable[[int], float]:
    """The usual loop: a Dataset that makes a picture and then a tensor of one image at a time, as MNIST of
    torchvision with ToTensor does, a shuffling DataLoader, plain Adam, the loss read every step."""
    import torch
    from PIL import Image

    _, labels, probabilities = _tensors(work)
    images = torch.tensor(np.asarray(work.table.images)[..., 0])

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, i):
            picture = Image.fromarray(images[i].numpy(), mode="L")
            tensor = torch.from_numpy(np.array(picture)).unsqueeze(0)
            return tensor.float().div(255), int(labels[i]), probabilities[i]

    loader = torch.utils.data.DataLoader(Images(), work.batch_size, shuffle=True)
    network, loss = _network(work), _loss(work)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def run(updates: int) -> float:
        torch.set_num_threads(num_threads)
        start = time.perf_counter()
        total = 0.0
        for batch, label, probability in itertools.islice(loader, updates):
            batch = batch.flatten(1)
            batch = _jitter(batch) if work.teacher else batch
            optimizer.zero_grad()
            value = loss(network(batch), label, probability)
            value.backward()
            optimizer.step()
            if work.teacher:
                _max_norm(network, 3.0)
            total += value.item()
        return updates * work.batch_size / (time.perf_counter() - start)

    return run


def matrix_peak(num_threads: int, size: int = 2048) -> float:
    """FLOP/s of a float32 matrix product."""
    import torch

    torch.set_num_threads(num_threads)
    a, b = torch.randn(size, size), torch.randn(size, size)
    torch.mm(a, b)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)
