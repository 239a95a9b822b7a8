r"""What do the symbols know of the classes, and are they forgotten when another task is learned?

::

    codes [8, 8] ──▶ how often each code occurs ──▶ t-SNE, linear classifier        against a linear one on pixels
    codes [8, 8] ──▶ a row of values for each code at each position ──Σ──▶ logits   against weights on pixels

The lecture says (slides 83 to 88): symbols are a representation that a linear classifier can read, and a symbol is
embedded on its own: training on images without it leaves its embedding untouched (slide 87), so a second task does not
overwrite the first one where it uses other symbols. The second experiment trains a classifier on the first half of the
classes, then on the others only, by plain gradient descent; the VQ-VAE is frozen. A linear classifier on pixels has
the same number of steps.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks.study import lab
from benchmarks.study.data import Labelled
from benchmarks.study.output import COLOURS, Settings, command, scatter, sketch, store
from vqcodec.config import LevelConfig

__all__ = ["Values", "histograms", "main", "run"]

LEVEL = LevelConfig(stride=4, groups=1, dim=8, codebook_size=128, stages=1)
STEPS = 300
KNOWN, TESTED, PLOTTED = 4000, 2000, 600  # images for classifiers and their test, in the plot
TASK_STEPS, EVERY, BATCH = 300, 30, 64
RATES = {"symbols": 2.0, "pixels": 0.1}  # of gradient descent


def histograms(codes: Tensor) -> Tensor:
    """How often each code occurs in each image, ``[N, K]``, of ``codes [N, 1, h, w]``, as roots of shares."""
    return F.one_hot(codes.flatten(1), LEVEL.codebook_size).float().mean(1).sqrt()


class Values(nn.Module):
    """Logits ``[B, C]`` of codes ``[B, 1, h, w]``: the mean over positions of a row for each code at each position."""

    def __init__(self, positions: int, classes: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(positions * LEVEL.codebook_size, classes))

    def rows(self, codes: Tensor) -> Tensor:
        """Numbers ``[B, h·w]`` of the rows that codes use."""
        return codes.flatten(1) + torch.arange(codes[0].numel()) * LEVEL.codebook_size

    def forward(self, codes: Tensor) -> Tensor:
        logits: Tensor = self.table[self.rows(codes)].mean(1)
        return logits


def descend(model: nn.Module, x: Tensor, labels: Tensor, rate: float, steps: int, after: Callable[[int], None]) -> None:
    """Plain gradient descent: what has no gradient does not move."""
    for step in range(1, steps + 1):
        which = torch.randint(len(labels), (BATCH,))
        model.zero_grad()
        F.cross_entropy(model(x[which]), labels[which]).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.sub_(rate * parameter.grad)
        if step % EVERY == 0 or step == steps:
            after(step)


def forget(
    model: nn.Module, rate: float, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], steps: int
) -> tuple[dict[str, list[float]], nn.Module]:
    """Accuracy on both tasks while ``model`` learns the first half of the classes, then the second half alone.

    Also the model as it was between the tasks.
    """
    half = (int(train[1].max()) + 1) // 2
    curves: dict[str, list[float]] = {"steps": [], "first": [], "second": []}
    between = model
    for task, part in enumerate((train[1] < half, train[1] >= half)):

        def note(step: int, done: int = task * steps) -> None:
            curves["steps"].append(done + step)
            for name, of in (("first", test[1] < half), ("second", test[1] >= half)):
                curves[name].append(lab.accuracy(model, test[0][of], test[1][of]))

        descend(model, train[0][part], train[1][part], rate, steps, note)
        between = copy.deepcopy(model) if task == 0 else between
    return curves, between


def run(settings: Settings) -> None:
    """One VQ-VAE, then classifiers of its codes and of pixels."""
    training = lab.Training(settings.minutes, shares=1)
    model = lab.network([LEVEL])
    steps = min(TASK_STEPS, lab.train_vqvae(training, model, settings.train, STEPS))
    sets = settings.train.take(slice(0, KNOWN)), settings.test.take(slice(0, TESTED))
    codes, tested_codes = ((lab.code_grids(model, data)[0].clone(), data.labels) for data in sets)
    pixels, tested_pixels = ((data.x(slice(None))[:, :1].flatten(1), data.labels) for data in sets)
    counted, tested_counted = ((histograms(grids), labels) for grids, labels in (codes, tested_codes))
    linear = {
        "histograms": lab.linear_accuracy(counted, tested_counted),
        "pixels": lab.linear_accuracy(pixels, tested_pixels),
    }

    classes = len(settings.train.names)
    values, weights = Values(codes[0][0].numel(), classes), nn.Linear(pixels[0].shape[1], classes)
    by_symbols, between = forget(values, RATES["symbols"], codes, tested_codes, steps)
    by_pixels, _ = forget(weights, RATES["pixels"], pixels, tested_pixels, steps)
    assert isinstance(between, Values)
    same = (values.table == between.table).all(1)
    used = values.rows(codes[0][codes[1] < classes // 2]).flatten()
    curves = {"symbols": by_symbols, "pixels": by_pixels}
    result = {
        "steps": training.steps,
        "linear_accuracy": linear,
        "numbers_an_image": {"histograms": LEVEL.codebook_size, "pixels": pixels[0].shape[1]},
        # Of the first task's rows, how many the second task left as they were, to the bit; and how often they occur.
        "untouched": {"rows": float(same[torch.unique(used)].float().mean()), "uses": float(same[used].float().mean())},
        "first_task": {
            name: {"before": curve["first"][len(curve["first"]) // 2 - 1], "after": curve["first"][-1]}
            for name, curve in curves.items()
        },
        "second_task": {name: curve["second"][-1] for name, curve in curves.items()},
        "curves": curves,
    }
    places = lab.neighbours(tested_counted[0][:PLOTTED], settings.seed)
    store(settings, "symbols", result, _picture(curves, places, sets[1], steps))


def _picture(curves: dict[str, dict[str, list[float]]], places: Tensor, data: Labelled, steps: int) -> Figure:
    figure, panels = sketch(2, height=3.2)
    scatter(panels[0], places, data.labels[: len(places)], data.names)
    panels[0].set_title("t-SNE of code histograms", fontsize=8)
    panels[0].legend(frameon=False, markerscale=3, fontsize=6, loc="center left", bbox_to_anchor=(0.98, 0.5))
    axes = panels[1]
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        axes.plot(curve["steps"], curve["first"], "o-", color=colour, markersize=3, label=f"{name}: first task")
        axes.plot(curve["steps"], curve["second"], ":", color=colour, label=f"{name}: second task")
    axes.axvline(steps, color="#59636e", linewidth=1)
    axes.set(ylim=(0, 1), xlabel="steps; the second task begins at the line", ylabel="accuracy, all classes allowed")
    axes.legend(frameon=False, fontsize=7)
    return figure


main = command(run, __doc__)

if __name__ == "__main__":
    main()
