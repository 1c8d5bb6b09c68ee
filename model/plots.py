"""Draws a trained network: `python -m model.plots configs/megabit.toml`.

Writes `docs/img/NAME-curve.svg` (validation accuracy and loss by epoch, from the record that the
artifact keeps) and `docs/img/NAME-levels.svg` (share of each weight level in each layer).
"""

from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import typer

from export.artifact import ALPHABET, Network
from export.cli import one_line_errors
from export.config import ConfigError, load_config
from export.file import load_network

plt.rcParams.update({"svg.hashsalt": "hexlane", "svg.fonttype": "none", "figure.dpi": 100,
                     "axes.spines.top": False, "axes.spines.right": False})


def curve(record: dict) -> plt.Figure:
    """Validation accuracy and training loss; a line where the quantized epochs begin."""
    try:
        training = record["training"]
        loss, accuracy = np.array(training["curve"], float).T
        accuracy[-1] = training["validation"]  # with the exported statistics
        first = training["config"]["train"].get("teacher_epochs", 0)
    except KeyError as error:
        raise ConfigError(f"the artifact's record has no {error}: convert a finished "
                          f"training") from error
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    epochs = np.arange(1, len(loss) + 1)
    validated = ~np.isnan(accuracy)
    accuracy = accuracy[validated]
    axes.plot(epochs[validated], 100 * accuracy, color="tab:blue")
    axes.set(xlabel="epoch", ylabel="validation accuracy, %",
             ylim=(max(0, 100 * np.quantile(accuracy, 0.05) - 5), 100 * accuracy.max() + 1))
    axes.yaxis.label.set_color("tab:blue")
    axes.grid(alpha=0.3)
    if first:
        axes.axvline(first + 0.5, color="gray", linestyle=":")
    right = axes.twinx()
    right.plot(epochs, loss, color="tab:orange", linewidth=1)
    right.set_ylabel("training loss", color="tab:orange")
    return figure


def levels(network: Network) -> plt.Figure:
    """Share of each level; a dotted line where all would be filled equally."""
    named = [(layer.config.name, layer.config.weight_bits, layer.weight)
             for layer in network.layers]
    columns = min(5, len(named))
    rows = -(-len(named) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(1.6 * columns, 1.6 * rows), sharey=True,
                                squeeze=False, layout="constrained")
    for axes in grid.flat[len(named):]:
        axes.remove()
    for axes, (name, bits, weight) in zip(grid.flat, named, strict=False):
        alphabet = ALPHABET[bits]
        shares = [np.mean(weight == level) for level in alphabet]
        axes.bar([f"{level:+d}" if level else "0" for level in alphabet], shares)
        axes.axhline(1 / len(alphabet), color="black", linestyle=":", linewidth=1)
        axes.set_title(name, fontsize="small")
        axes.tick_params(labelsize="x-small")
    return figure


@one_line_errors
def main(
    config: Annotated[Path, typer.Argument(help="design, a TOML file")],
    weights: Annotated[Path | None, typer.Option(help="default: weights/NAME.npz")] = None,
    output: Annotated[Path, typer.Option("-o", help="folder")] = Path("docs/img"),
):
    """Draws the training curve and the weights' levels of a trained network."""
    name = load_config(config).name
    network = load_network(weights or Path("weights") / f"{name}.npz")
    figures = {"curve": curve(network.record), "levels": levels(network)}
    output.mkdir(parents=True, exist_ok=True)
    for kind, figure in figures.items():
        path = output / f"{name}-{kind}.svg"
        figure.savefig(path, metadata={"Date": None})
        typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
