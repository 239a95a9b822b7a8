r"""What do the symbols know of the classes, and are they forgotten when another task is learned?

::

    codes [8, 8] ──▶ how often each code occurs ──▶ t-SNE, linear classifier        against a linear one on pixels
    codes [8, 8] ──▶ rows of a table of values, one for each symbol ──Σ──▶ logits   against weights on pixels

The lecture says (slides 83 to 88): symbols are a representation that a linear classifier can read, and a symbol is
embedded on its own: training on images without it leaves its embedding untouched (slide 87), so a second task does not
overwrite the first one where it uses other symbols. The second experiment trains a classifier on the first half of the
classes, then on the others only, by plain gradient descent; the VQ-VAE is frozen.

All classifiers are linear, logits = W·φ(x), and start at W = 0. A step on an image x' of the second task moves the
logits of an image x of the first one by −η·⟨φ(x), φ(x')⟩·(p(x') − y'), and by nothing else. So how much is forgotten
depends on the overlap ⟨φ(x), φ(x')⟩ between tasks, against the overlap inside a class, which learning goes by. Four φ
are compared, with the same η·‖φ‖² in the mean: pixels, code counts, codes at their positions, and pairs of neighbours
at theirs. Their overlaps differ, and what is forgotten should follow.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks.study import lab
from benchmarks.study.data import Labelled
from benchmarks.study.output import COLOURS, Settings, command, scatter, sketch, store
from vqcodec.config import LevelConfig

__all__ = ["Forgetting", "forget", "histograms", "main", "overlap", "rows", "run", "table"]

LEVEL = LevelConfig(stride=4, groups=1, dim=8, codebook_size=128, stages=1)
STEPS = 300
KNOWN, TESTED, PLOTTED = 4000, 2000, 600  # images for classifiers and their test, in the plot
TASK_STEPS, EVERY, BATCH = 600, 10, 64
RATE = 0.5  # η·‖φ‖² in the mean


def histograms(codes: Tensor) -> Tensor:
    """How often each code occurs in each image, ``[N, K]``, of ``codes [N, 1, h, w]``, as roots of shares."""
    return F.one_hot(codes.flatten(1), LEVEL.codebook_size).float().mean(1).sqrt()


def rows(codes: Tensor, symbols: str) -> Tensor:
    """Numbers ``[N, n]`` of the table's rows that images with ``codes [N, 1, h, w]`` use.

    ``symbols`` says what has a row: each code ("counts"), each code at each position ("codes"), or each code and its
    right neighbour at each position ("pairs").
    """
    grids, size = codes[:, 0], LEVEL.codebook_size
    if symbols == "pairs":
        grids, size = grids[:, :, :-1] * size + grids[:, :, 1:], size * size
    flat = grids.flatten(1)
    return flat if symbols == "counts" else flat + torch.arange(flat.shape[1]) * size


def table(numbers: Tensor, classes: int) -> nn.EmbeddingBag:
    """Logits ``[B, C]`` of rows ``[B, n]``: their sum. Rows that do not occur get no gradient, not even zeros."""
    values = nn.EmbeddingBag(int(numbers.max()) + 1, classes, mode="sum", sparse=True)
    nn.init.zeros_(values.weight)
    return values


def overlap(features: Tensor, labels: Tensor, half: int) -> tuple[float, float]:
    """Mean ⟨φ(x), φ(x')⟩ ÷ mean ‖φ‖² of x and x' of one class, and of x of a class below ``half`` and x' of another.

    ``features [N, D]`` may be sparse.
    """
    members = F.one_hot(labels).float()
    means = torch.sparse.mm(features.T, members).T if features.is_sparse else members.T @ features  # [C, D], sums
    means = means / members.sum(0)[:, None]
    products = means @ means.T / features.square().sum() * len(features)
    return float(products.diagonal().mean()), float(products[:half, half:].mean())


@dataclass
class Forgetting:
    """Accuracy on both tasks, all classes allowed, while a classifier learns the first and then the second.

    Attributes:
        steps: of both tasks together, ``[n]``.
        first, second: accuracy after these steps.
        untouched: share of the first task's weights that the second left as they were, to the bit.
        within, between: overlap inside a class, and between tasks.
    """

    within: float
    between: float
    untouched: float = 0.0
    steps: list[int] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)

    def left_at(self, second: float) -> float:
        """Accuracy on the first task as soon as the second has an accuracy of ``second``."""
        return next(a for a, b in zip(self.first, self.second, strict=True) if b >= second)


def descend(model: nn.Module, x: Tensor, labels: Tensor, rate: float, steps: int, after: Callable[[int], None]) -> None:
    """Plain gradient descent: what has no gradient does not move."""
    for step in range(1, steps + 1):
        which = torch.randint(len(labels), (BATCH,))
        model.zero_grad()
        F.cross_entropy(model(x[which]), labels[which]).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.add_(parameter.grad, alpha=-rate)
        if step % EVERY == 0 or step == steps:
            after(step)


def forget(
    model: nn.Linear | nn.EmbeddingBag,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    features: Tensor,
    steps: int,
) -> Forgetting:
    """Train ``model``, whose weights are zero, on the first half of the classes, then on the second half alone.

    ``features [N, D]`` is φ of the training images.
    """
    half = (int(train[1].max()) + 1) // 2
    found = Forgetting(*overlap(features, train[1], half))
    rate = RATE * len(features) / float(features.square().sum())

    def note(step: int) -> None:
        found.steps.append(step)
        for curve, of in ((found.first, test[1] < half), (found.second, test[1] >= half)):
            curve.append(lab.accuracy(model, test[0][of], test[1][of]))

    first, second = train[1] < half, train[1] >= half
    descend(model, train[0][first], train[1][first], rate, steps, note)
    weight = model.weight.detach().clone()
    descend(model, train[0][second], train[1][second], rate, steps, lambda step: note(steps + step))
    learned = weight != 0
    found.untouched = float((model.weight == weight)[learned].float().mean())
    return found


def classify(codes: list[Tensor], pixels: list[Tensor], labels: list[Tensor], steps: int) -> dict[str, Forgetting]:
    """What each φ forgets; the lists have training and test images."""
    classes = int(labels[0].max()) + 1
    weights = nn.Linear(pixels[0].shape[1], classes, bias=False)
    nn.init.zeros_(weights.weight)
    found = {"pixels": forget(weights, (pixels[0], labels[0]), (pixels[1], labels[1]), pixels[0], steps)}
    for symbols in ("counts", "codes", "pairs"):
        known, tested = (rows(grids, symbols) for grids in codes)
        values = table(torch.cat([known, tested]), classes)
        places = torch.stack([torch.arange(len(known)).repeat_interleave(known.shape[1]), known.flatten()])
        ones, shape = torch.ones(places.shape[1]), (len(known), values.num_embeddings)
        features = torch.sparse_coo_tensor(places, ones, shape, check_invariants=True).coalesce()
        found[symbols] = forget(values, (known, labels[0]), (tested, labels[1]), features, steps)
    return found


def run(settings: Settings) -> None:
    """One VQ-VAE, then classifiers of its codes and of pixels."""
    training = lab.Training(settings.minutes, shares=1)
    model = lab.network([LEVEL])
    steps = min(TASK_STEPS, 2 * lab.train_vqvae(training, model, settings.train, STEPS))
    sets = settings.train.take(slice(0, KNOWN)), settings.test.take(slice(0, TESTED))
    codes = [lab.code_grids(model, data)[0] for data in sets]
    pixels = [data.x(slice(None))[:, :1].flatten(1) for data in sets]
    labels = [data.labels for data in sets]
    counted = [histograms(grids) for grids in codes]
    linear = {
        name: lab.linear_accuracy((vectors[0], labels[0]), (vectors[1], labels[1]))
        for name, vectors in (("histograms", counted), ("pixels", pixels))
    }
    curves = classify(codes, pixels, labels, steps)
    level = min(max(found.second) for found in curves.values())  # an accuracy that all reach
    result = {
        "steps": training.steps,
        "task_steps": steps,
        "linear_accuracy": linear,
        "numbers_an_image": {"histograms": LEVEL.codebook_size, "pixels": pixels[0].shape[1]},
        "second_task_reaches": level,
        "forgetting": {
            name: {
                "before": found.first[len(found.first) // 2 - 1],
                "after": found.first[-1],
                "second_task": found.second[-1],
                "at_equal_accuracy": found.left_at(level),
                **vars(found),
            }
            for name, found in curves.items()
        },
    }
    places = lab.neighbours(counted[1][:PLOTTED], settings.seed)
    store(settings, "symbols", result, _picture(curves, places, sets[1]))


def _picture(curves: dict[str, Forgetting], places: Tensor, data: Labelled) -> Figure:
    figure, panels = sketch(2, height=3.2)
    scatter(panels[0], places, data.labels[: len(places)], data.names)
    panels[0].set_title("t-SNE of code histograms", fontsize=8)
    panels[0].legend(frameon=False, markerscale=3, fontsize=6, loc="center left", bbox_to_anchor=(0.98, 0.5))
    axes = panels[1]
    for colour, (name, found) in zip(COLOURS, curves.items(), strict=False):
        half = len(found.first) // 2 - 1
        axes.plot(found.second[half:], found.first[half:], "o-", color=colour, markersize=2, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="accuracy on the second task, while it is learned")
    axes.set_ylabel("accuracy on the first task")
    axes.legend(frameon=False, fontsize=7, loc="lower left")
    return figure


main = command(run, __doc__)

if __name__ == "__main__":
    main()
