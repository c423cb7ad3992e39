"""Feature losses against torchdistill's classes in float64; ReviewKD's fusion, FitNet and CRD's negatives
against NumPy written from the papers. f32 is compared to 1e-5 of the largest number of the reference."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.losses import FEATURE_LOSSES, contrastive, features
from kd_jax.models import connectors
from tests.torch_modules import import_or_skip

slow = pytest.mark.slow
BATCHES = [8, pytest.param(1, marks=slow), pytest.param(64, marks=slow)]
IO = ("m", "output", "m", "output")


@pytest.fixture(scope="module")
def torchdistill():
    return import_or_skip("torchdistill.losses.mid_level")


def maps(batch, seed=0, shape=(6, 6, 3), other=(6, 6, 3)):
    """A student's and a teacher's map after ReLU, f32[B,h,w,c]."""
    random = np.random.RandomState(seed + batch)
    return [np.maximum(random.standard_normal((batch, *one)), 0).astype(np.float32) for one in (shape, other)]


def vectors(batch, seed=0, sizes=(5, 5)):
    random = np.random.RandomState(seed + batch)
    return [random.standard_normal((batch, size)).astype(np.float32) for size in sizes]


@partial(jax.jit, static_argnums=0)
def ours(name, student, teacher):
    """(mean of the entries, its gradient by the student)."""
    function = FEATURE_LOSSES[name].function
    return jax.value_and_grad(lambda s: jnp.mean(function([s], [teacher])))(student)


def theirs(torch, loss, student, teacher, flat=False):
    """The same of a torchdistill loss in float64, on NCHW; the gradient in NHWC."""
    leaf = torch.tensor(np.float64(student), requires_grad=True)
    layout = lambda x: x.permute(0, 3, 1, 2) if x.ndim == 4 else x  # noqa: E731
    answer = lambda x: {"m": {"output": layout(x)}}  # noqa: E731
    value = loss(answer(leaf), answer(torch.tensor(np.float64(teacher))))
    value.backward()
    return value.item(), leaf.grad.numpy()


def same(found, expected, floor=1e-3):
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(np.abs(expected).max(), floor))


def compare(name, found, expected):
    for one, other in zip(found, expected, strict=True):
        same(one, other)


@pytest.mark.parametrize("batch", BATCHES)
def test_attention_transfer_is_torchdistills(torchdistill, batch):
    """`ATLoss`, mode "code"."""
    torch, module = torchdistill
    layer = {"io": "output", "path": "m"}
    loss = module.ATLoss({"one": {"student": layer, "teacher": layer}}, mode="code")
    pair = maps(batch, other=(6, 6, 4))
    compare("at", ours("at", *pair), theirs(torch, loss, *pair))


@pytest.mark.parametrize("batch", BATCHES)
def test_similarity_preserving_is_torchdistills(torchdistill, batch):
    """`SPKDLoss`, reduction "batchmean", but for its norm: `normalize(..., 1)` there is the L1 norm of the
    rows, where equation 3 of the paper has L2."""
    torch, module = torchdistill

    class Loss(module.SPKDLoss):
        def matmul_and_normalize(self, z):
            z = torch.flatten(z, 1)
            return torch.nn.functional.normalize(z @ z.t(), p=2, dim=1)

    pair = maps(batch, other=(3, 3, 4))
    if batch > 1:  # of one example every row is 1
        compare("sp", ours("sp", *pair), theirs(torch, Loss("m", "m", "batchmean"), *pair))
    else:
        assert ours("sp", *pair)[0] == 0 and not np.any(ours("sp", *pair)[1])


@pytest.mark.parametrize("batch", BATCHES)
def test_relational_distillation_is_torchdistills(torchdistill, batch):
    """`RKDLoss` with 25 and 50, the mean; of a batch of one it divides 0 by 0, and here it is 0."""
    torch, module = torchdistill
    pair = vectors(batch, sizes=(5, 7))
    if batch > 1:
        loss = module.RKDLoss("m", "m", 25.0, 50.0, reduction="mean")
        compare("rkd", ours("rkd", *pair), theirs(torch, loss, *pair))
    else:
        assert ours("rkd", *pair)[0] == 0 and not np.any(ours("rkd", *pair)[1])


@pytest.mark.parametrize("batch", BATCHES)
def test_probabilistic_transfer_is_torchdistills(torchdistill, batch):
    """`PKTLoss`. Its values are about 1e-4, the differences of logarithms of numbers near 1 / B."""
    torch, module = torchdistill
    pair = vectors(batch, sizes=(5, 7))
    (value, gradient), (expected, its) = ours("pkt", *pair), theirs(torch, module.PKTLoss(*IO), *pair)
    np.testing.assert_allclose(value, expected, atol=2e-7 / batch)
    same(gradient, its)


@pytest.mark.parametrize("batch", BATCHES)
def test_hierarchical_context_is_torchdistills(torchdistill, batch):
    """`HierarchicalContextLoss` on maps of 6 pixels: levels 6, 4, 2 and 1."""
    torch, module = torchdistill
    pair = maps(batch)
    loss = module.HierarchicalContextLoss(*IO)
    as_fused = lambda s, t: loss({"m": {"output": (s["m"]["output"], None)}}, t)  # noqa: E731
    compare("review", ours("review", *pair), theirs(torch, as_fused, *pair))


def test_variational_distillation_is_torchdistills(torchdistill):
    """`VIDLoss` of a predicted mean and variance, with gradients for both; the regressor as
    `Regressor4VID`."""
    torch, module = torchdistill
    student, teacher = maps(8, other=(6, 6, 4))
    params = connectors.init_connector("gaussian", jax.random.key(0), *shapes([student], [teacher]))

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        return jnp.mean(features.vid(*connectors.connect("gaussian", params, [student], [teacher])))

    value, gradient = loss(params)
    leaves = {name: torch.tensor(np.float64(leaf), requires_grad=True) for name, leaf in flat(params).items()}
    x = torch.tensor(np.float64(student))
    for j in range(3):
        x = x @ leaves[f"conv_0_{j}/kernel"]
        x = torch.relu(x) if j < 2 else x
    variance = torch.log(1 + torch.exp(leaves["variance_0"])) + 1e-5
    np.testing.assert_allclose(variance.detach().numpy(), 5, rtol=1e-6)
    layers = {"io": "output", "path": "m"}
    theirs_ = module.VIDLoss({"one": {"student": layers, "teacher": layers}})
    predicted = {"m": {"output": (x.permute(0, 3, 1, 2), variance.view(1, -1, 1, 1))}}
    expected = theirs_(predicted, {"m": {"output": torch.tensor(np.float64(teacher)).permute(0, 3, 1, 2)}})
    expected.backward()
    same(value, expected.item())
    for name, leaf in flat(gradient).items():
        same(leaf, leaves[name].grad.numpy())


@pytest.mark.parametrize("batch", [8, pytest.param(64, marks=slow)])
def test_contrastive_distillation_is_torchdistills(torchdistill, batch):
    """`CRDLoss` with given negatives, on two batches: the value, gradients for both embeddings, the
    normalisers, which the first batch sets, and the memory."""
    torch, module = torchdistill

    class Loss(module.CRDLoss):  # whose alias table, which draws the negatives, cannot be made
        def init_prob_alias(self, probs):
            self.probs = torch.zeros(1)

    num, size, negatives, random = 80, 6, 7, np.random.RandomState(batch)
    memory = contrastive.init_memory(jax.random.key(1), num, size)
    loss = Loss("s", "e", "t", size, num, negatives, num).double()
    loss.probs = torch.zeros(1)
    loss.memory_v1, loss.memory_v2 = (
        torch.tensor(np.float64(rows)) for rows in (memory.student, memory.teacher)
    )
    run = jax.jit(lambda pair, *rest: jax.value_and_grad(total, has_aux=True)(pair, *rest))

    def total(pair, memory, index, others):
        entries, memory = contrastive.contrast(*pair, memory, index, others)
        return jnp.mean(entries), memory

    for _ in range(2):
        pair = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in vectors(batch, 3, (size, size))]
        index = random.permutation(num)[:batch].astype(np.int32)
        others = random.randint(num, size=(batch, negatives)).astype(np.int32)
        (value, memory), gradient = run(pair, memory, index, others)
        leaves = [torch.tensor(np.float64(x), requires_grad=True) for x in pair]
        places = torch.tensor(np.concatenate([index[:, None], others], axis=1), dtype=torch.int64)
        about = {"pos_idx": torch.tensor(index, dtype=torch.int64), "contrast_idx": places}
        expected = loss({"s": {"output": leaves[0]}, "e": {"input": about}}, {"t": {"output": leaves[1]}})
        expected.backward()
        same(value, expected.item())
        for one, leaf in zip(gradient, leaves, strict=True):
            same(one, leaf.grad.numpy(), 0.1)
        np.testing.assert_allclose(memory.z, loss.params[2:4].detach().numpy(), rtol=1e-5)
        same(memory.student, loss.memory_v1.numpy())
        same(memory.teacher, loss.memory_v2.numpy())


def test_negatives_are_seen_examples_of_other_classes():
    """Each example of a seen other class is drawn, about equally often; none of an omitted or the own class.
    With one class seen, they are of that one."""
    labels = np.array([2, 0, 1, 3, 0, 2, 2, 1, 3, 2, 0, 2], np.int32)
    by_class, sizes = np.argsort(labels, kind="stable").astype(np.int32), np.bincount(labels).astype(np.int32)
    known = {"by_class": jnp.asarray(by_class), "sizes": jnp.asarray(sizes)}
    draw = partial(contrastive.draw_negatives, **known, num=4000)
    seen = jnp.array([1, 0, 1, 1], bool)
    found = draw(jax.random.key(0), jnp.asarray([0, 2], jnp.int32), class_mask=seen)
    for own, row in zip((0, 2), np.asarray(found), strict=True):
        allowed = np.flatnonzero((labels != own) & (labels != 1))
        counts, expected = np.bincount(row, minlength=len(labels)), 4000 / len(allowed)
        assert set(np.flatnonzero(counts)) == set(allowed)
        assert np.all(np.abs(counts[allowed] - expected) < 5 * np.sqrt(expected))
    alone = draw(jax.random.key(0), jnp.asarray([0, 0], jnp.int32), class_mask=jnp.array([1, 0, 0, 0], bool))
    assert set(labels[np.asarray(alone).ravel()]) == {0}


def flat(params):
    return {
        "/".join(entry.key for entry in path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def shapes(*sides):
    return [[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in side] for side in sides]


def normalized(x, scale, bias):
    """Over all axes but the last, eps 1e-5."""
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5) * scale + bias


def test_the_regressor_of_fitnet_is_a_projection():
    """Romero et al. 2015, equation 3 with the mean: |relu(norm(W v)) - u|^2; the teacher's map is averaged
    to the student's size."""
    student, teacher = maps(4, shape=(3, 3, 3), other=(6, 6, 4))
    params = connectors.init_connector("projection", jax.random.key(0), *shapes([student], [teacher]))
    value = features.fitnet(*connectors.connect("projection", params, [student], [teacher]))
    own = {name: np.float64(leaf) for name, leaf in flat(params).items()}
    x = normalized(np.float64(student) @ own["conv_0/kernel"], own["norm_0/scale"], own["norm_0/bias"])
    target = np.float64(teacher).reshape(4, 3, 2, 3, 2, 4).mean(axis=(2, 4))
    same(value, np.mean((np.maximum(x, 0) - target) ** 2, axis=(1, 2, 3)))


def test_the_fusion_of_review_is_the_papers():
    """Chen et al. 2021, figure 3: the deep layer through 1x1 and 3x3 convolutions; the shallow one mixed
    with the upsampled deep one by two attention maps first."""
    deep, deep_teacher = maps(2, 1, (2, 2, 5), (2, 2, 3))
    shallow, shallow_teacher = maps(2, 2, (4, 4, 3), (4, 4, 2))
    sides = [shallow, deep], [shallow_teacher, deep_teacher]
    params = connectors.init_connector("fusion", jax.random.key(0), *shapes(*sides))
    found, _ = connectors.connect("fusion", params, *sides)
    own = {name: np.float64(leaf) for name, leaf in flat(params).items()}
    reduced = [
        normalized(np.float64(x) @ own[f"conv_{i}/kernel"], own[f"norm_{i}/scale"], own[f"norm_{i}/bias"])
        for i, x in enumerate(sides[0])
    ]
    up = reduced[1].repeat(2, axis=1).repeat(2, axis=2)
    z = np.concatenate([reduced[0], up], axis=-1) @ own["attention_0/kernel"] + own["attention_0/bias"]
    z = 1 / (1 + np.exp(-z))
    mixed = [reduced[0] * z[..., :1] + up * z[..., 1:], reduced[1]]
    for i, x in enumerate(mixed):
        kernel, h = own[f"out_{i}/kernel"], x.shape[1]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        y = sum(padded[:, a : a + h, b : b + h] @ kernel[a, b] for a in range(3) for b in range(3))
        same(found[i], normalized(y, own[f"out_norm_{i}/scale"], own[f"out_norm_{i}/bias"]))


SIDES = {
    "fitnet": maps(6), "at": maps(6), "sp": maps(6), "rkd": vectors(6), "pkt": vectors(6), "review": maps(6),
}  # fmt: skip


@pytest.mark.parametrize("name", SIDES)
def test_features_of_zero_equal_and_huge_ones_are_finite(name):
    """A dead layer, duplicates, and numbers of 1e4; the teacher's layer by itself is at rest but for pkt's
    eps."""
    student, teacher = SIDES[name]
    for s, t in ((0 * student, teacher), (student, 0 * teacher), (student[:1].repeat(6, 0), teacher),
                 (1e4 * student, 1e4 * teacher), (student, student)):  # fmt: skip
        value, gradient = ours(name, s, t)
        assert np.isfinite(value) and np.all(np.isfinite(gradient)), name
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("name", SIDES)
def test_only_relations_of_a_batch_depend_on_other_examples(name):
    student, teacher = SIDES[name]
    function = FEATURE_LOSSES[name].function
    entries = function([jnp.asarray(student)], [jnp.asarray(teacher)])
    other = np.concatenate([student[:1], student[1:][::-1] ** 2])
    changed = function([jnp.asarray(other)], [jnp.asarray(teacher)])
    assert entries.shape == (6,)
    assert np.allclose(entries[0], changed[0], rtol=1e-5) != FEATURE_LOSSES[name].relates_batch


def test_every_method_has_its_connector():
    assert {m.connector for m in FEATURE_LOSSES.values()} - {None} == set(connectors.CONNECTORS)
