"""Accuracy of an integer network on CIFAR-10: `python -m sim.evaluate configs/megabit.toml`.

Runs the golden model, prints the result and writes it to `build/NAME/accuracy.json`.
"""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

# Images are spread over the cores here. Threads of the matrix products would spin for each
# other besides, which on a busy machine took thirty times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import typer
from tqdm import tqdm

from export.cli import one_line_errors
from export.config import ConfigError, load_config
from export.cost import Cost
from export.file import load_network, save_network, save_record
from model.data import HOLDOUT, load_cifar10
from sim.golden import predict

BATCH = 100  # images between two steps of the progress bar


@one_line_errors
def main(
    config: Annotated[Path, typer.Argument(help="design, a TOML file")],
    weights: Annotated[Path | None, typer.Option(help="default: weights/NAME.npz")] = None,
    split: Annotated[Literal["test", "validation"], typer.Option(help="images to use")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="only so many images")] = None,
    record: Annotated[bool, typer.Option("--record", help="keep the result in the file of "
                                         "weights; reports take it from there")] = False,
):
    """Measures the accuracy of a design's integer network with the golden model."""
    design = load_config(config)
    path = weights or Path("weights") / f"{design.name}.npz"
    network = load_network(path)
    if network.config != design.network:
        raise ConfigError(f"{path}: is of another network than {config}")
    cost = Cost.of(design)
    if split == "test":
        images, labels = load_cifar10("test")
    else:
        images, labels = (part[-HOLDOUT:] for part in load_cifar10("train"))
    images, labels = images[:limit], labels[:limit]
    start = time.perf_counter()
    batches = [images[k:k + BATCH] for k in range(0, len(images), BATCH)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        classes = list(tqdm(pool.map(partial(predict, network), batches), total=len(batches)))
    accuracy = float(np.mean(np.concatenate(classes) == labels))
    seconds = time.perf_counter() - start
    typer.echo(f"{split}: {len(images)} images, accuracy {accuracy:.2%}, "
               f"{cost.total_bits:,} bits stored, {seconds:.1f} s")
    result = {"accuracy": accuracy, "images": len(images), "split": split}
    output = Path("build") / design.name / "accuracy.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result | {"digest": network.digest}, indent=1) + "\n")
    if record:
        network = replace(network, record=network.record | {"measured": result})
        save_network(network, path)
        save_record(network, path)


if __name__ == "__main__":
    typer.run(main)
