"""Write what the experiments found, from their stored results, into docs/lecture.md.

::

    results/NAME.json ──▶ picture, table, sentence ──▶ docs/lecture.md, between "generated: NAME" and the end mark

Run from the repository's root:

    python -m benchmarks.study.findings
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vqcodec.files.atomic import write_atomic

__all__ = ["FINDINGS", "LECTURE", "RESULTS", "TIMES", "main", "times", "updated"]

RESULTS = Path("benchmarks", "study", "results")
LECTURE = Path("docs", "lecture.md")
END = "<!-- end of what is generated -->"
BLOCK = re.compile(rf"<!-- generated: (\w+) -->\n.*?{END}", re.DOTALL)


TIMES = "times"  # the block that is about all results


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def models(result: dict[str, Any]) -> str:
    rows = [["autoencoder", "–", "–", f"{result['autoencoder']['psnr']:.2f}"]]
    rows += [[f"VAE, β = {p['beta']:g}", f"{p['bits']:.0f}", "–", f"{p['psnr']:.2f}"] for p in result["vae"]]
    rows += [
        [f"VQ-VAE, K = {p['codebook_size']}", f"{p['real']:.0f}", f"{p['uniform']:.0f}", f"{p['psnr']:.2f}"]
        for p in result["vqvae"]
    ]
    gains = " and ".join(f"{100 * p['prior_gain']:.0f} % (K = {p['codebook_size']})" for p in result["vqvae"])
    over = " and ".join(f"{p['real'] - p['cross_entropy']:.0f}" for p in result["vqvae"])
    monotone = "gave" if result["beta_is_monotone"] else "did not always give"
    spaces = [
        [name, f"{space['gap']:.3f}", f"{100 * space['linear_accuracy']:.1f} %"]
        for name, space in result["latent_space"].items()
    ]
    return "\n".join(
        [
            _table(["model", "bits an image", "log₂ K bound", "PSNR, dB"], rows),
            "",
            "The VAE's bits are its KL divergence. The VQ-VAE's are real bytes, one bitstream an image, read back:",
            f"{gains} below log₂ K, which is what the prior is worth, and {over} bits above −log₂ p,",
            "since a bitstream ends with whole bytes.",
            f"A larger β {monotone} fewer bits and a lower PSNR.",
            "",
            _table(["latent space", "gap", "a linear classifier tells the class of"], spaces),
            "",
            "The gap is how far points halfway between two images are from the nearest image, in distances",
            "of neighbours from each other.",
        ]
    )


def codebooks(result: dict[str, Any]) -> str:
    rows: list[list[str]] = []
    for name, rule in result["rules"].items():
        at_rest = max((i for i, step in enumerate(rule["steps"]) if step <= result["steps"][0]), default=0)
        figures = rule["mean_distance"][at_rest], rule["mean_distance"][-1], rule["largest_distance"][-1]
        cells = [f"{100 * figure:.2f} %" if figure >= 5e-5 else "< 0.01 %" for figure in figures]
        rows.append([name, *cells, str(rule["live_codewords"][-1])])
    head = ["rule", "mean distance when the encoder stops", "at the end", "farthest codeword", "live codewords"]
    return _table(head, rows) + "\n\nDistances are in mean radii of a cluster."


def levels(result: dict[str, Any]) -> str:
    gains = result["decibels_above_one_level_at_equal_rate"]
    rows = [
        [name, *(f"{p['cross_entropy']:.0f} / {p['psnr']:.2f}" for p in points)]
        for name, points in result["curves"].items()
    ]
    qualities = [f"quality {p['quality']}" for p in next(iter(result["curves"].values()))]
    words = [f"{name} {'have no rate in common' if g is None else f'{g:+.2f} dB'}" for name, g in gains.items()]
    return f"Against one level at equal rate: {', '.join(words)}. Bits an image / PSNR in dB:\n\n" + _table(
        ["model", *qualities], rows
    )


def gradients(result: dict[str, Any]) -> str:
    seeds = len({run["seed"] for run in result["runs"]})
    rows = [
        [name, f"{m['psnr']:.2f}", f"{m['perplexity']:.1f}", f"{100 * m['usage']:.0f} %"]
        for name, m in result["mean"].items()
    ]
    return (
        _table(["estimator", "PSNR, dB", "perplexity", "codes that occur"], rows)
        + f"\n\nMeans of {seeds} seeds after {result['steps'][0]} steps."
    )


def generation(result: dict[str, Any]) -> str:
    rows = [
        [kind, f"{100 * mean:.1f} %", f"{100 * result['standard_deviation'][kind]:.1f}"]
        for kind, mean in result["mean"].items()
    ]
    return (
        _table(["trained on", "accuracy on real images", "standard deviation"], rows)
        + f"\n\n{len(result['runs'])} seeds, each with a VQ-VAE, a prior and classifiers of its own; "
        + f"{result['pairs']:,} pairs of each kind."
    )


def factors(result: dict[str, Any]) -> str:
    mean, names = result["mean"], result["factors"]
    rows = [
        [
            f"β = {beta}",
            f"{value:.3f}",
            f"{mean['sample_efficiency'][beta]:.3f}",
            f"{mean['bits'][beta]:.1f}",
            f"{mean['psnr'][beta]:.2f}",
        ]
        for beta, value in mean["metric"].items()
    ]
    many = max(result["models"][0]["accuracy"], key=int)
    models = {beta: [m for m in result["models"] if f"{m['beta']:g}" == beta] for beta in mean["metric"]}
    seeds = len(next(iter(models.values())))
    head = ["model", "BetaVAE metric", "accuracy with 100 labels ÷ with 10,000", "bits", "PSNR, dB"]

    def percent(values: list[list[float]]) -> list[str]:
        return [f"{100 * sum(of) / len(of):.0f} %" for of in zip(*values, strict=True)]

    told = [
        [f"β = {beta}: shared factor told", *percent([m["told_factors"] for m in of])] for beta, of in models.items()
    ]
    read = [
        [f"β = {beta}: third of its range read", *percent([m["accuracy"][many] for m in of])]
        for beta, of in models.items()
    ]
    channels = [
        [f"β = {beta}", f"seed {m['seed']}", *(f"{bits:.1f}" for bits in m["channel_bits"])]
        for beta, of in models.items()
        for m in of
    ]
    by_seed = {beta: [m["metric"] for m in of] for beta, of in models.items()}
    spread = max(max(values) - min(values) for values in by_seed.values())
    first, *_, last = mean["metric"]
    gain = mean["metric"][last] - mean["metric"][first]
    return "\n\n".join(
        [
            _table(head, rows),
            f"Means of {seeds} seeds; the metric of chance is {result['chance']:.3f}. That of β = {last} is "
            f"{abs(gain):.3f} {'above' if gain > 0 else 'below'} that of β = {first}; seeds of one β differ by up to "
            f"{spread:.3f}.",
            _table(["", *names], told + read),
            "Chance is 17 % for the shared factor, and 33 % for the third that a linear classifier of m reads with "
            f"{int(many):,} labels.",
            _table(["bits of the channels", "", *(str(i) for i in range(len(channels[0]) - 2))], channels),
        ]
    )


def symbols(result: dict[str, Any]) -> str:
    accuracy, numbers = result["linear_accuracy"], result["numbers_an_image"]

    def cells(found: dict[str, Any]) -> list[str]:
        overlaps = [f"{found[key]:.2f}" for key in ("within", "between")]
        overlaps.append(f"{found['between'] / found['within']:.2f}")
        shares = [found[key] for key in ("untouched", "before", "at_equal_accuracy", "after", "second_task")]
        return [*overlaps, *(f"{100 * share:.1f} %" for share in shares)]

    head = ["φ", "overlap inside a class", "between tasks", "ratio", "weights untouched", "first task, learned"]
    head += [f"when the second reaches {100 * result['second_task_reaches']:.0f} %", "at the end", "second task"]
    return "\n\n".join(
        [
            f"A linear classifier reads the class from {numbers['histograms']} code counts in "
            f"{100 * accuracy['histograms']:.1f} % of the images, from {numbers['pixels']:,} pixels in "
            f"{100 * accuracy['pixels']:.1f} %.",
            _table(head, [[name, *cells(found)] for name, found in result["forgetting"].items()]),
        ]
    )


FINDINGS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "models": ("Rate against distortion, reconstructions, and latent spaces", models),
    "codebooks": ("Distance of codewords from their clusters' means over training", codebooks),
    "levels": ("PSNR against bits for one, two and three levels", levels),
    "gradients": ("PSNR and perplexity for the three estimators", gradients),
    "generation": ("Drawn images by class, and the accuracy of three classifiers", generation),
    "factors": ("Traversals of VAE and β-VAE, and both scores", factors),
    "symbols": ("t-SNE of code histograms, and accuracy on the first task while the second is learned", symbols),
}
"""The description of each experiment's picture, and what puts its result into words."""


def times(results: dict[str, dict[str, Any]]) -> str:
    """Processor time of each experiment and of all."""
    minutes = {name: result["processor_seconds"] / 60 for name, result in results.items()}
    missing = [name for name in FINDINGS if name not in results]
    rows = [[name, f"{one:.1f}"] for name, one in minutes.items()]
    rows.append([f"all but {', '.join(missing)}" if missing else "all", f"{sum(minutes.values()):.1f}"])
    return _table(["experiment", "minutes of processor time"], rows)


def updated(text: str, folder: Path) -> str:
    """``text`` with every block as the results in ``folder`` have it."""
    paths = {name: folder / f"{name}.json" for name in FINDINGS}
    results = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}

    def block(match: re.Match[str]) -> str:
        name = match[1]
        content = f"No result is stored. `python -m benchmarks.study.{name}` makes it."
        if name == TIMES:
            content = times(results)
        elif name in results:
            description, words = FINDINGS[name]
            picture = (RESULTS / f"{name}.png").as_posix()
            content = f"![{description}](../{picture})\n\n{words(results[name])}"
        return f"<!-- generated: {name} -->\n\n{content}\n\n{END}"

    return BLOCK.sub(block, text)


@click.command(help=(__doc__ or "").splitlines()[0])
def main() -> None:
    text = updated(LECTURE.read_text(encoding="utf-8"), RESULTS)
    write_atomic(LECTURE, text.encode())


if __name__ == "__main__":
    main()
