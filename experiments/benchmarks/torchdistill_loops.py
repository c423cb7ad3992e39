"""Distillation as torchdistill does it: its losses, modules and hooks in an eager loop that queries the
teacher at each update, as its DistillationBox does.

More favourable than its own scripts: images are in memory and gathered by batch, networks have their channels
last, Adam is fused, and the negatives of CRD are drawn from all examples at once, not by class for each one.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from experiments.benchmarks import rivals, torch_networks
from experiments.benchmarks.torchdistill_pairs import METHODS, Work, load


def step_of(method: str, work: Work, cached: bool) -> tuple[Callable[[Any], Any], list[Any]]:
    """((i64[B], examples) -> the loss of an update, the parameters that are trained).

    cached: the logits of the teacher are those of the table, and no teacher is asked; of losses of logits.
    """
    import torch

    td = load()
    teacher = torch_networks.build(work.teacher).eval().requires_grad_(False)
    pair = METHODS[method](work, torch_networks.build(work.student), teacher)
    pair.student.to(memory_format=torch.channels_last)
    terms = {str(i): {"criterion": loss, "weight": weight} for i, (loss, weight) in enumerate(pair.losses)}
    criterion = td.sums.WeightedSumLoss(sub_terms=terms)
    hooks = [_hooked(pair.student, pair.hooked), _hooked(pair.teacher, pair.hooked_teacher)]
    images, labels, logits = (
        torch.tensor(np.asarray(leaf))
        for leaf in (work.table.images, work.table.labels, *(work.table.teacher_logits or ()))
    )
    labels = labels.long()

    def step(index):
        batch = images[index].float() / 255
        more: tuple[Any, ...] = ()
        if pair.needs_index:
            others = torch.randint(len(labels), (len(index), work.num_negatives))
            more = ({"pos_idx": index, "contrast_idx": torch.cat([index[:, None], others], dim=1)},)
        if cached:
            of_teacher = {".": {"output": logits[0, index]}}
        else:
            with torch.no_grad():
                answers = pair.teacher(batch, *more)
            of_teacher = _outputs(pair.teacher, hooks[1], answers)
        of_student = _outputs(pair.student, hooks[0], pair.student(batch, *more))
        value = criterion({"student": of_student, "teacher": of_teacher}, {}, labels[index])
        return value.sum()  # of one number; CRD's has an axis

    return step, [*pair.student.parameters(), *pair.trained]


def _hooked(module: Any, paths: Sequence[str]) -> Any:
    manager = load().hooks.ForwardHookManager("cpu")
    for path in dict.fromkeys(paths):
        manager.add_hook(module, path)
    return manager


def _outputs(module: Any, manager: Any, logits: Any) -> dict[str, dict[str, Any]]:
    """What the hooks kept of a forward pass, and of the method's own modules, which come after it."""
    kept = manager.pop_io_dict()
    if hasattr(module, "secondary_forward"):
        module.secondary_forward(kept)
        for path, found in manager.pop_io_dict().items():
            kept[path] |= found
    return kept | {".": {"output": logits}}


def loop(method: str, work: Work, num_threads: int, cached: bool = False) -> Callable[[int], float]:
    """(updates) -> examples a second. One run after another, so the rate of one is the rate of all."""
    import torch

    step, parameters = step_of(method, work, cached)
    optimizer, schedule = rivals.make_optimizer(parameters, work.updates)
    draw = partial(torch.randperm, len(work.table.labels))

    def run(updates: int) -> float:
        torch.set_num_threads(num_threads)
        start = time.perf_counter()
        total = torch.zeros(())
        for index in draw()[: updates * work.batch_size].split(work.batch_size):
            optimizer.zero_grad(set_to_none=True)
            value = step(index)
            value.backward()
            optimizer.step()
            schedule.step()
            total += value.detach()
        float(total)
        return updates * work.batch_size / (time.perf_counter() - start)

    return run
