"""Draws a trained network: accuracy and loss by epoch, and the share of each weight level."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from export.artifact import ALPHABET, Network
from export.config import ConfigError

plt.rcParams.update({"svg.hashsalt": "hexlane", "svg.fonttype": "none", "figure.dpi": 100,
                     "axes.spines.top": False, "axes.spines.right": False})


def curve(record: dict) -> plt.Figure:
    """Validation accuracy and training loss; a line where the quantized epochs begin."""
    try:
        training = record["training"]
        loss, accuracy = np.array(training["curve"], float).T
        accuracy[-1] = float(training["validation"])  # with the exported statistics
        first = float(training["config"]["train"].get("teacher_epochs", 0))
        if not np.isfinite([*loss, accuracy[-1], first]).all():
            raise ValueError("its numbers must be finite")
    except KeyError as error:
        raise ConfigError(f"the artifact's record has no {error}: convert a finished "
                          f"training") from error
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ConfigError(f"the artifact's record is of no training: {error}") from error
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


def draw(network: Network, name: str, folder: Path) -> list[Path]:
    """Writes `NAME-curve.svg` and `NAME-levels.svg`, and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind, figure in {"curve": curve(network.record), "levels": levels(network)}.items():
        paths.append(folder / f"{name}-{kind}.svg")
        figure.savefig(paths[-1], metadata={"Date": None})
    return paths
