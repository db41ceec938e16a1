"""Distances, mining and losses against plain loops, in each precision, and at their edges."""

import math
import time
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speechbrain.dataio.encoder import CategoricalEncoder
from torch.nn import functional

from ser_plugins.corpora import cremad, ravdess
from ser_plugins.errors import InputError
from ser_plugins.metric import (
    ContrastiveLoss,
    EmotionConstrainedTripletLoss,
    GradedTripletLoss,
    SmoothedCrossEntropy,
    TripletLoss,
    pairwise_distances,
    semi_hard,
)
from ser_plugins.metric.wheel import COORDINATES, WHEEL

LABELS = ["neutral", "calm", "happy", "sad", "angry"]
POLARITY = [WHEEL[label] for label in LABELS]


def loop_distances(embeddings, squared=False):
    unit = functional.normalize(embeddings, dim=-1)
    rows = [[(a - b).square().sum() for b in unit] for a in unit]
    return [[float(d) if squared else math.sqrt(d) for d in row] for row in rows]


def loop_hinge(distances, labels, is_near, is_far, margin):
    """Mean hinge and number of triplets, by the definition; ``margin`` is that of the anchor's and the far label."""
    terms = []
    everyone = range(len(labels))
    for a in everyone:
        for near in (i for i in everyone if i != a and is_near(labels[a], labels[i])):
            far = [(distances[a][i], margin(labels[a], labels[i])) for i in everyone if is_far(labels[a], labels[i])]
            if far:
                beyond = [pair for pair in far if pair[0] > distances[a][near]]
                distance, width = min(beyond) if beyond else max(far)
                terms.append(max(0.0, distances[a][near] + width - distance))
    return sum(terms) / max(len(terms), 1), len(terms)


def alpha(a, b):
    return 0.1


def beta(a, b):
    return 0.15


def same(a, b):
    return a == b


def other(a, b):
    return a != b


def related(a, b):
    return a != b and POLARITY[a] == POLARITY[b]


def negative(a, b):
    return POLARITY[a] != POLARITY[b]


def beyond_same(a, b):
    return other(a, b) if POLARITY[a] == "neutral" else related(a, b)


def loop_triplet(embeddings, labels, squared=False):
    return loop_hinge(loop_distances(embeddings, squared), labels, same, other, alpha)[0]


def loop_graded(embeddings, labels, squared=False, names=LABELS):
    places = [COORDINATES[name] for name in names]
    largest = max(math.dist(one, two) for one in places for two in places)

    def margin(a, b):
        return 0.25 * math.dist(places[a], places[b]) / largest

    return loop_hinge(loop_distances(embeddings, squared), labels, same, other, margin)[0]


def loop_emotion(embeddings, labels, squared=False):
    distances = loop_distances(embeddings, squared)
    first, _ = loop_hinge(distances, labels, same, beyond_same, alpha)
    second, _ = loop_hinge(distances, labels, related, negative, beta)
    return first + second


def loop_contrastive(embeddings, labels):
    distances, terms = loop_distances(embeddings), []
    for a in range(len(labels)):
        different = [i for i in range(len(labels)) if labels[i] != labels[a]]
        for p in (i for i in range(len(labels)) if i != a and labels[i] == labels[a]):
            beyond = [i for i in different if distances[a][i] > distances[a][p]]
            chosen = min(beyond or different, key=lambda i: distances[a][i] * (1 if beyond else -1), default=None)
            if chosen is not None:
                terms.append(distances[a][p] ** 2 + max(0.0, 1.0 - distances[a][chosen]) ** 2)
    return sum(terms) / max(len(terms), 1)


TRIPLET_LOSSES = [
    pytest.param(TripletLoss, loop_triplet, id="triplet"),
    pytest.param(partial(EmotionConstrainedTripletLoss, LABELS), loop_emotion, id="emotion"),
    pytest.param(partial(GradedTripletLoss, LABELS), loop_graded, id="graded"),
]
LOSSES = [*TRIPLET_LOSSES, pytest.param(ContrastiveLoss, loop_contrastive, id="contrastive")]
labels_of_a_batch = st.lists(st.integers(0, len(LABELS) - 1), min_size=1, max_size=14)


def batch(labels, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(labels), 6, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("make", "loop"), TRIPLET_LOSSES)
@pytest.mark.parametrize("squared", [False, True])
@settings(deadline=None, max_examples=40)
@given(labels=labels_of_a_batch, seed=st.integers(0, 1000))
def test_loss_is_the_loops(make, loop, squared, labels, seed):
    embeddings = batch(labels, seed)
    expected = loop(embeddings, labels, squared)
    value = make(squared=squared)(embeddings, torch.tensor(labels))
    assert value.dtype == torch.float64 and value.shape == ()
    assert value.item() == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(labels=labels_of_a_batch, seed=st.integers(0, 1000))
def test_contrastive_loss_is_the_loops(labels, seed):
    embeddings = batch(labels, seed)
    found = ContrastiveLoss()(embeddings, torch.tensor(labels))
    assert found.item() == pytest.approx(loop_contrastive(embeddings, labels), abs=1e-12)


@pytest.mark.parametrize("names", [ravdess.EMOTIONS, tuple(cremad.CODES.values())], ids=["ravdess", "cremad"])
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_graded_loss_is_the_loops_on_both_corpora(names, data):
    labels = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=2, max_size=16))
    embeddings = batch(labels, data.draw(st.integers(0, 1000)))
    value = GradedTripletLoss(names)(embeddings, torch.tensor(labels))
    assert value.item() == pytest.approx(loop_graded(embeddings, labels, names=names), abs=1e-12)


@pytest.mark.parametrize(("make", "loop"), LOSSES)
def test_order_of_the_batch_does_not_matter(make, loop):
    labels = torch.arange(15) % 5
    embeddings = batch(labels)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    shuffled = make()(embeddings[order], labels[order])
    assert shuffled.item() == pytest.approx(make()(embeddings, labels).item(), abs=1e-12)


@pytest.mark.parametrize("loss", [EmotionConstrainedTripletLoss, GradedTripletLoss])
def test_order_of_the_classes_does_not_matter(loss):
    labels = torch.arange(15) % 5
    embeddings = batch(labels)
    assert torch.equal(loss(LABELS[::-1])(embeddings, 4 - labels), loss(LABELS)(embeddings, labels))


@pytest.mark.parametrize(("make", "loop"), LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_float32(make, loop, dtype):
    labels = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 1, 2, 3, 4]
    embeddings = batch(labels, dtype=dtype)
    value = make()(embeddings, torch.tensor(labels))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loop(embeddings.double(), labels), abs=1e-5)
    assert value.item() == pytest.approx(loop(batch(labels), labels), abs=1e-5 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize(("make", "loop"), LOSSES)
def test_autocast_changes_nothing(make, loop):
    labels = torch.arange(15) % 5
    embeddings = batch(labels, dtype=torch.float32).requires_grad_()
    plain = make()(embeddings, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = make()(embeddings, labels)
    assert cast.dtype == torch.float32
    assert torch.equal(plain, cast)
    cast.backward()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize(("make", "loop"), LOSSES)
def test_gradient_is_that_of_the_loss(make, loop):
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    assert torch.autograd.gradcheck(lambda x: make()(x, labels), (batch(labels).requires_grad_(),))


@pytest.mark.parametrize(("make", "loop"), LOSSES)
@pytest.mark.parametrize("labels", [[1], [1, 1, 1], [0, 1, 3], [0]])
def test_batch_without_triplets_gives_a_differentiable_zero(make, loop, labels):
    embeddings = batch(labels).requires_grad_()
    loss = make()
    value = loss(embeddings, torch.tensor(labels))
    value.backward()
    assert value.item() == 0
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))
    assert all(count == 0 for name, count in loss.statistics.items() if name.endswith("triplets"))


@pytest.mark.parametrize(("make", "loop"), LOSSES)
def test_equal_and_zero_embeddings_have_finite_gradients(make, loop):
    embeddings = torch.ones(6, 4)
    embeddings[5] = 0
    embeddings.requires_grad_()
    value = make()(embeddings, torch.tensor([1, 1, 2, 2, 3, 3]))
    value.backward()
    assert value > 0
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize(("make", "loop"), LOSSES)
@pytest.mark.parametrize("where", range(4))
def test_nan_reaches_the_loss(make, loop, where):
    embeddings = batch(range(4))
    embeddings[where, 0] = torch.nan
    assert make()(embeddings, torch.tensor([0, 0, 1, 3])).isnan()


@pytest.mark.parametrize(("make", "loop"), LOSSES)
@pytest.mark.parametrize("labels", [[1], [1, 1, 1]])
def test_nan_does_not_hide_in_a_batch_without_triplets(make, loop, labels):
    embeddings = batch(labels)
    embeddings[0, 0] = torch.nan
    assert make()(embeddings, torch.tensor(labels)).isnan()


@pytest.mark.parametrize(("make", "loop"), LOSSES)
def test_speechbrain_shapes(make, loop):
    labels = torch.arange(10) % 5
    embeddings = batch(labels)
    assert torch.equal(make()(embeddings[:, None], labels[:, None]), make()(embeddings, labels))
    assert torch.equal(make()(embeddings, labels.int()), make()(embeddings, labels))


@pytest.mark.parametrize(
    ("embeddings", "labels"),
    [
        (torch.zeros(4, 3), torch.zeros(3, dtype=torch.long)),
        (torch.zeros(4, 2, 3), torch.zeros(4, dtype=torch.long)),
        (torch.zeros(4), torch.zeros(4, dtype=torch.long)),
        (torch.zeros(4, 3), torch.zeros(4, 2, dtype=torch.long)),
        (torch.zeros(4, 3), torch.zeros(4)),
    ],
)
def test_other_shapes_are_refused(embeddings, labels):
    with pytest.raises(InputError, match=r"give (\[B, E\]|class indices)"):
        TripletLoss()(embeddings, labels)


@pytest.mark.parametrize(
    ("make", "label", "says"),
    [
        (TripletLoss, -1, "label -1 is no class: class indices are 0 or more"),
        (partial(EmotionConstrainedTripletLoss, LABELS), -1, "label -1 is no class: class indices are 0 to 4"),
        (partial(EmotionConstrainedTripletLoss, LABELS), 5, "label 5 is no class"),
        (partial(GradedTripletLoss, LABELS), -1, "label -1 is no class"),
        (partial(GradedTripletLoss, LABELS), 7, "label 7 is no class"),
        (SmoothedCrossEntropy, -100, "label -100 is no class"),
        (SmoothedCrossEntropy, 6, "label 6 is no class: class indices are 0 to 5"),
    ],
)
def test_labels_that_are_no_class_are_refused(make, label, says):
    with pytest.raises(InputError, match=says):
        make()(batch([0, 0, 1]), torch.tensor([0, label, 1]))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (partial(TripletLoss, -0.1), "margin is -0.1; give a margin of 0 or more"),
        (partial(TripletLoss, math.nan), "margin is nan"),
        (partial(ContrastiveLoss, -1), "margin is -1"),
        (partial(EmotionConstrainedTripletLoss, LABELS, alpha=-1), "alpha is -1"),
        (partial(EmotionConstrainedTripletLoss, LABELS, beta=-0.5), "beta is -0.5"),
        (partial(GradedTripletLoss, LABELS, margin=-1), "margin is -1"),
        (partial(EmotionConstrainedTripletLoss, ["sad", "happy", "sad"]), "'sad' stands twice"),
        (partial(GradedTripletLoss, ["sad", "happy", "sad"]), "'sad' stands twice"),
    ],
)
def test_negative_margins_and_labels_that_stand_twice_are_refused(make, says):
    with pytest.raises(InputError, match=says):
        make()


@pytest.mark.parametrize("make", [param.values[0] for param in LOSSES])
def test_loss_trains(make):
    labels = torch.arange(25) % 5
    embeddings = batch(labels, dtype=torch.float32).requires_grad_()
    optimizer = torch.optim.Adam([embeddings], lr=0.05)
    loss = make()
    first = loss(embeddings, labels).item()
    for _ in range(150):
        optimizer.zero_grad()
        last = loss(embeddings, labels)
        last.backward()
        optimizer.step()
    assert last.item() < 0.2 * first


def test_statistics_count_the_triplets():
    labels = [0, 0, 0, 1, 1, 2, 3]
    embeddings = 3 * functional.normalize(batch(labels), dim=-1)
    loss = EmotionConstrainedTripletLoss(LABELS)
    loss(embeddings.requires_grad_(), torch.tensor(labels))
    distances = loop_distances(embeddings.detach())
    assert loss.statistics["emotion_triplets"] == loop_hinge(distances, labels, same, beyond_same, alpha)[1] == 8
    assert loss.statistics["polarity_triplets"] == loop_hinge(distances, labels, related, negative, beta)[1] == 4
    assert loss.statistics["norm"].item() == pytest.approx(3)
    assert 0 <= loss.statistics["emotion_active"] <= 1
    assert not any(value.requires_grad for value in loss.statistics.values() if isinstance(value, torch.Tensor))


def test_neutral_takes_one_plain_triplet():
    """Alone in its polarity, it has no related emotion: D(a, p) + α < D(a, n) replaces both constraints."""
    labels = torch.tensor([0, 0, 1, 3])
    embeddings = batch(labels)
    loss = EmotionConstrainedTripletLoss(LABELS)
    value = loss(embeddings, labels)
    plain = TripletLoss()
    assert torch.equal(value, plain(embeddings, labels))
    assert loss.statistics["emotion_triplets"] == plain.statistics["triplet_triplets"] == 2
    assert loss.statistics["polarity_triplets"] == 0


def test_related_emotion_absent_from_the_batch_is_no_plain_triplet():
    """Calm and sad have related emotions in the label set: what a batch holds does not change their constraint."""
    labels = torch.tensor([1, 1, 3, 3])
    loss = EmotionConstrainedTripletLoss(LABELS)
    assert loss(batch(labels), labels) == 0
    assert loss.statistics["emotion_triplets"] == 0


def test_given_polarity_counts():
    labels = torch.tensor([1, 1, 3, 3])
    loss = EmotionConstrainedTripletLoss(LABELS, dict.fromkeys(LABELS, "any"))
    loss(batch(labels), labels)
    assert loss.statistics["emotion_triplets"] == 4
    assert loss.statistics["polarity_triplets"] == 0


def test_satisfied_constraints_cost_nothing():
    """Same emotion at one point, related ones 10° off, the other polarity opposite."""
    angles = torch.tensor([0, 0, 10, 10, 180, 180, 190, 190], dtype=torch.float64).deg2rad()
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels = torch.tensor([1, 1, 2, 2, 3, 3, 4, 4])
    assert EmotionConstrainedTripletLoss(LABELS)(embeddings, labels) == 0
    swapped = torch.tensor([1, 1, 3, 3, 2, 2, 4, 4])
    assert EmotionConstrainedTripletLoss(LABELS)(embeddings, swapped) > 0.1


def test_graded_margin_of_equal_steps_is_the_plain_loss():
    """Three emotions at the corners of an equilateral triangle: one distance, one margin."""
    corners = {"calm": (0, 0), "happy": (1, 0), "sad": (0.5, math.sqrt(0.75))}
    labels = torch.arange(12) % 3
    embeddings = batch(labels)
    graded = GradedTripletLoss(list(corners), corners, margin=0.1)(embeddings, labels)
    assert graded.item() == pytest.approx(TripletLoss(0.1)(embeddings, labels).item(), abs=1e-12)


def test_semi_hard_prefers_the_next_beyond():
    distances = torch.tensor([[0.0, 0.3, 0.3, 0.2, 0.5, 0.4]]).expand(6, 6)
    near = torch.zeros(6, 6, dtype=torch.bool)
    near[0, 1] = True
    far = torch.zeros(6, 6, dtype=torch.bool)
    far[0, 2:] = True
    assert [int(index) for index in semi_hard(distances, near, far)] == [0, 1, 5]  # 0.3 itself is not farther
    far[0, 4:] = False
    assert [int(index) for index in semi_hard(distances, near, far)] == [0, 1, 2]  # none farther: the farthest
    far[0] = False
    assert semi_hard(distances, near, far)[0].numel() == 0


def test_distances_have_exact_zeros_and_bounds():
    embeddings = torch.cat([batch(range(5)), 7 * batch(range(5)), -batch(range(5))]).float()
    distances = pairwise_distances(embeddings)
    assert torch.equal(distances.diagonal(), torch.zeros(15))
    assert distances[0, 5] < 1e-6
    assert distances[0, 10] == pytest.approx(2)
    assert torch.allclose(pairwise_distances(embeddings, squared=True), distances**2)


@pytest.mark.parametrize("size", [6, 512])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 3e-7), (torch.float64, 1e-11)])
@pytest.mark.parametrize("apart", [1.0, 1e-2, 1e-4, 1e-6])
def test_distances_are_the_loops_however_close(size, dtype, atol, apart):
    generator = torch.Generator().manual_seed(0)
    centre = functional.normalize(torch.randn(size, generator=generator, dtype=torch.float64), dim=0)
    steps = functional.normalize(torch.randn(20, size, generator=generator, dtype=torch.float64), dim=1)
    embeddings = (centre + apart * steps).to(dtype)
    distances = pairwise_distances(embeddings)
    expected = torch.tensor(loop_distances(embeddings.double()), dtype=torch.float64)
    assert distances.dtype == dtype
    atol = max(atol, 4e-15 / apart)  # the squares are sums of products: some times 2^-52 off
    torch.testing.assert_close(distances.double(), expected, atol=atol, rtol=0 if dtype == torch.float64 else 1e-6)
    unit = functional.normalize(embeddings, dim=-1)
    differences = torch.cdist(unit, unit, compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(distances, differences, atol=atol, rtol=1e-6)


@pytest.mark.parametrize("squared", [False, True])
def test_gradient_of_distances(squared):
    embeddings = batch(range(5)).requires_grad_()
    off = ~torch.eye(5, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda x: pairwise_distances(x, squared)[off], embeddings)


def test_gradient_of_close_distances_is_that_of_differences():
    embeddings = (batch(range(5))[:1] + 1e-4 * batch(range(5), seed=1)).float().requires_grad_()
    weights = torch.arange(25.0).reshape(5, 5)
    (found,) = torch.autograd.grad((weights * pairwise_distances(embeddings)).sum(), embeddings)
    wide = embeddings.detach().double().requires_grad_()
    unit = functional.normalize(wide, dim=-1)
    loops = sum(weights[a, b] * (unit[a] - unit[b]).norm() for a in range(5) for b in range(5) if a != b)
    (expected,) = torch.autograd.grad(loops, wide)
    torch.testing.assert_close(found.double(), expected, atol=2e-3 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("squared", [False, True])
def test_gradient_at_distance_zero_is_zero(squared):
    embeddings = batch([0]).expand(4, 6).float().clone().requires_grad_()
    distances = pairwise_distances(embeddings, squared)
    distances.sum().backward()
    assert torch.equal(distances, torch.zeros(4, 4))
    assert torch.equal(embeddings.grad, torch.zeros(4, 6))


def test_large_batches_need_no_cubic_memory():
    """All triplets of 2048 embeddings are 8.6 · 10⁹: 34 GB of float32. Here it takes seconds."""
    labels = torch.arange(2048) % 5
    embeddings = torch.randn(2048, 32, requires_grad=True)
    start = time.perf_counter()
    EmotionConstrainedTripletLoss(LABELS)(embeddings, labels).backward()
    assert time.perf_counter() - start < 30


NAMES = ["neutral", "calm", "sad", "happy"]  # in an order of a recipe's own


@pytest.mark.parametrize("kind", ["encoder", "path", "str"])
@pytest.mark.parametrize("loss", [EmotionConstrainedTripletLoss, GradedTripletLoss])
def test_labels_are_read_from_an_encoder_that_a_recipe_fills_later(loss, kind, tmp_path):
    encoder, path = CategoricalEncoder(), tmp_path / "label_encoder.txt"
    made = loss({"encoder": encoder, "path": path, "str": str(path)}[kind])
    encoder.update_from_iterable(NAMES, sequence_input=False)
    encoder.save(path)
    labels = torch.arange(12) % 4
    assert torch.equal(made(batch(labels), labels), loss(NAMES)(batch(labels), labels))
    assert made(batch(labels), labels) != loss(LABELS[:4])(batch(labels), labels)


def test_an_encoder_of_other_labels_is_refused(tmp_path):
    encoder, labels = CategoricalEncoder(), torch.tensor([0, 0, 1, 1])
    encoder.update_from_iterable(["ang", "hap"], sequence_input=False)
    polarity = {"ang": "negative", "hap": "positive"}
    EmotionConstrainedTripletLoss(encoder, polarity)(batch(labels), labels)
    with pytest.raises(InputError, match="'ang' has no polarity"):
        EmotionConstrainedTripletLoss(encoder)(batch(labels), labels)
    with pytest.raises(InputError, match="polarity: places 'sad', which is not a label"):
        EmotionConstrainedTripletLoss(encoder, {**polarity, "sad": "negative"})(batch(labels), labels)
    with pytest.raises(InputError, match="label 2 is no class"):
        EmotionConstrainedTripletLoss(encoder, polarity)(batch(labels), torch.tensor([0, 0, 1, 2]))
    for text, says in ((None, "cannot read"), ("ang", "'happy' => 0"), ("'ang' => 0\n'hap' => 2\n", r"\[0, 2\]")):
        path = tmp_path / "label_encoder.txt"
        if text is not None:
            path.write_text(text)
        with pytest.raises(InputError, match=says):
            EmotionConstrainedTripletLoss(path, polarity)(batch(labels), labels)
