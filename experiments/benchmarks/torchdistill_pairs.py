"""The methods of torchdistill: pairs of networks with its losses and its modules between their layers, for
the loop of torchdistill_loops.py. It is imported inside the functions, as PyTorch is.

torchdistill has no DKD. Networks: the CIFAR resnet-N of experiments/benchmarks/torch_networks.py.
"""

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from experiments.benchmarks import torch_networks
from kd_jax.types import Table

EMBEDDING = 128  # numbers of an embedding of CRD, as kd_jax/models/connectors.py has them


class Work(NamedTuple):
    """student, teacher: specs of networks. table: with the logits of one teacher. student_layers,
    teacher_layers: equally many names of features, or none. updates: of one timed pass. alpha: weight of the
    teacher's part. weight: of the feature loss. num_negatives: of CRD."""

    student: str
    teacher: str
    table: Table
    student_layers: tuple[str, ...]
    teacher_layers: tuple[str, ...]
    batch_size: int
    updates: int
    temperature: float
    alpha: float
    weight: float
    num_negatives: int


class Layer(NamedTuple):
    """path: of the module whose output it is, within the network. side: of its map."""

    path: str
    width: int
    side: int


@dataclasses.dataclass
class Pair:
    """student, teacher: modules, wrapped where a method has modules of its own. hooked, hooked_teacher: paths
    in them whose inputs and outputs are kept. losses: (criterion, weight), added. trained: parameters beside
    those of `student`. needs_index: whether the modules are also given the examples and their negatives."""

    student: Any
    teacher: Any
    hooked: list[str]
    hooked_teacher: list[str]
    losses: list[tuple[Any, float]]
    trained: list[Any] = dataclasses.field(default_factory=list)
    needs_index: bool = False


def is_installed() -> bool:
    return all(map(importlib.util.find_spec, ("torch", "torchvision", "torchdistill")))


_KEPT: list[Any] = []  # torch forgets a library's definitions with the object


def import_torchvision() -> None:
    """Made for another build of torch, torchvision cannot load its compiled operators, but asks for the
    schemas of two of them; no classifier and no loss calls any."""
    import torch

    try:
        import torchvision
    except RuntimeError:  # operator torchvision::nms does not exist
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401

        _KEPT.append(library)


@cache
def load() -> SimpleNamespace:
    """Its modules by short names."""
    import_torchvision()
    paths = {"losses": "losses.mid_level", "sums": "losses.high_level", "hooks": "core.forward_hook"}
    paths |= {"wrappers": "models.wrapper", "adaptation": "models.adaptation"}
    found = {name: importlib.import_module(f"torchdistill.{path}") for name, path in paths.items()}
    return SimpleNamespace(**found)


def layers_of(spec: str, names: Sequence[str]) -> list[Layer]:
    """Of a resnet-N with features stage_0, stage_1, stage_2, each the end of its last block, and pooled."""
    num = (int(spec.split("-")[1]) - 2) // 6
    known = {
        f"stage_{i}": Layer(str(3 + (i + 1) * num), width, torch_networks.SIDE >> i)
        for i, width in enumerate((16, 32, 64))
    }
    known["pooled"] = Layer(str(3 * num + 5), 64, 1)
    return [known[name] for name in names]


def _of_logits(work: Work, student: Any, teacher: Any) -> Pair:
    loss = load().losses.KDLoss(*(".", "output") * 2, work.temperature, alpha=1 - work.alpha, beta=work.alpha)
    return Pair(student, teacher, [], [], [(loss, 1.0)])


def _dist(work: Work, student: Any, teacher: Any) -> Pair:
    import torch

    found = load().losses
    labels = found.SimpleLossWrapper(
        torch.nn.CrossEntropyLoss(),
        input={"is_from_teacher": False, "module_path": ".", "io": "output"},
        target={"uses_label": True},
    )
    loss = found.DISTLoss(*(".", "output") * 2, tau=work.temperature)
    return Pair(student, teacher, [], [], [(loss, work.alpha), (labels, 1 - work.alpha)])


def _with_features(work: Work, pair: Pair, *losses: Any) -> Pair:
    """The pair whose losses come after that of the logits."""
    of_logits = _of_logits(work, None, None).losses
    return dataclasses.replace(pair, losses=of_logits + [(loss, work.weight) for loss in losses])


def _fitnet(work: Work, student: Any, teacher: Any) -> Pair:
    import torch

    td, (s,), (t,) = load(), *_layers(work)
    path = f"student_model.{s.path}"

    class Regressed(td.wrappers.AuxiliaryModelWrapper):  # type: ignore[name-defined]
        def __init__(self):
            super().__init__()
            self.student_model = student
            self.regressor = td.adaptation.ConvReg(s.width, t.width, 1, 1, 0)

        def forward(self, x):
            return self.student_model(x)

        def secondary_forward(self, outputs):
            self.regressor(outputs[path]["output"])

    loss = td.losses.SimpleLossWrapper(
        torch.nn.MSELoss(),
        input={"is_from_teacher": False, "module_path": "regressor", "io": "output"},
        target={"is_from_teacher": True, "module_path": t.path, "io": "output"},
    )
    return _with_features(work, Pair(Regressed(), teacher, [path, "regressor"], [t.path], []), loss)


def _at(work: Work, student: Any, teacher: Any) -> Pair:
    pairs = {
        f"pair{i}": {"student": _output(s.path), "teacher": _output(t.path)}
        for i, (s, t) in enumerate(zip(*_layers(work), strict=True))
    }
    return _plain(work, student, teacher, load().losses.ATLoss(pairs, mode="code"))


def _sp(work: Work, student: Any, teacher: Any) -> Pair:
    (s,), (t,) = _layers(work)
    return _plain(work, student, teacher, load().losses.SPKDLoss(s.path, t.path, "batchmean"))


def _rkd(work: Work, student: Any, teacher: Any) -> Pair:
    (s,), (t,) = _layers(work)
    return _plain(work, student, teacher, load().losses.RKDLoss(s.path, t.path, 25.0, 50.0, reduction="mean"))


def _pkt(work: Work, student: Any, teacher: Any) -> Pair:
    (s,), (t,) = _layers(work)
    return _plain(work, student, teacher, load().losses.PKTLoss(s.path, "output", t.path, "output"))


def _vid(work: Work, student: Any, teacher: Any) -> Pair:
    td, regressors, pairs, hooked = load(), {}, {}, []
    for i, (s, t) in enumerate(zip(*_layers(work), strict=True)):
        sizes = {"in_channels": s.width, "middle_channels": t.width, "out_channels": t.width}
        regressors[f"of_{i}"] = {
            "kwargs": sizes | {"eps": 1e-5, "init_pred_var": 5.0},
            **_output(f"student_model.{s.path}"),
        }
        pairs[f"pair{i}"] = {"student": _output(f"regressor_dict.of_{i}"), "teacher": _output(t.path)}
        hooked += [f"student_model.{s.path}", f"regressor_dict.of_{i}"]
    wrapped = td.wrappers.VariationalDistributor4VID(student, regressors, "cpu", None, False)
    pair = Pair(wrapped, teacher, hooked, [t.path for t in _layers(work)[1]], [])
    return _with_features(work, pair, td.losses.VIDLoss(pairs))


def _crd(work: Work, student: Any, teacher: Any) -> Pair:
    import torch

    td, (s,), (t,) = load(), *_layers(work)

    class Loss(td.losses.CRDLoss):  # type: ignore[name-defined]
        def init_prob_alias(self, probs):  # for its own draw, which reads a field that does not exist
            self.probs = torch.zeros(1)

    def wrapped(layer: Layer, **network):
        sizes = {"in_features": layer.width, "out_features": EMBEDDING}
        return td.wrappers.Linear4CRD(f"model.{layer.path}", sizes, "cpu", None, False, **network)

    num = len(work.table.labels)
    loss = Loss("normalizer", "empty", "normalizer", EMBEDDING, num, work.num_negatives, num)
    own, others = wrapped(s, student_model=student), wrapped(t, teacher_model=teacher)
    pair = Pair(
        own,
        others,
        [f"model.{s.path}", "normalizer", "empty"],
        [f"model.{t.path}", "normalizer"],
        [],
        trained=list(others.normalizer.parameters()),
        needs_index=True,
    )
    return _with_features(work, pair, loss)


def _review(work: Work, student: Any, teacher: Any) -> Pair:
    td, (students, teachers) = load(), _layers(work)
    inside = min(512, max(s.width for s in students))
    fusions = [
        {
            "kwargs": {"in_channels": s.width, "mid_channels": inside, "out_channels": t.width},
            **_output(f"student_model.{s.path}"),
        }
        for s, t in zip(students, teachers, strict=True)
    ]
    wrapped = td.wrappers.Student4KnowledgeReview(
        student, fusions, "cpu", None, False, sizes=[t.side for t in teachers[::-1]]
    )
    modules = [f"abf_modules.{i}" for i in range(len(fusions))]  # the deepest layer's first
    losses = [
        td.losses.HierarchicalContextLoss(module, "output", t.path, "output")
        for module, t in zip(modules, teachers[::-1], strict=True)
    ]
    hooked = [f"student_model.{s.path}" for s in students] + modules
    pair = Pair(wrapped, teacher, hooked, [t.path for t in teachers], [])
    return _with_features(work, pair, *losses)


def _layers(work: Work) -> tuple[list[Layer], list[Layer]]:
    return layers_of(work.student, work.student_layers), layers_of(work.teacher, work.teacher_layers)


def _output(path: str) -> dict[str, str]:
    return {"io": "output", "path": path}


def _plain(work: Work, student: Any, teacher: Any, loss: Any) -> Pair:
    """Of a method without modules of its own."""
    students, teachers = _layers(work)
    pair = Pair(student, teacher, [s.path for s in students], [t.path for t in teachers], [])
    return _with_features(work, pair, loss)


METHODS: dict[str, Callable[[Work, Any, Any], Pair]] = {
    "soft": _of_logits, "dist": _dist, "fitnet": _fitnet, "at": _at, "sp": _sp, "rkd": _rkd, "pkt": _pkt,
    "vid": _vid, "crd": _crd, "review": _review,
}  # fmt: skip
