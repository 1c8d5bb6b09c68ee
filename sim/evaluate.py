"""Accuracy of an integer network, or the precision of its boxes, by the golden model."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

# Images are spread over the cores here. Threads of the matrix products would spin for each
# other besides, which on a busy machine took thirty times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from tqdm import tqdm

from export.artifact import Network
from export.checked import ConfigError
from export.detect import decode, decoding_of
from model.data import load_images
from sim.golden import predict, run

BATCH = 100  # images between two steps of the progress bar


def accuracy(network: Network, split: str, limit: int | None = None) -> dict:
    """Share of right classes of the golden model, over `limit` or all images of a split.

    Raises
    ------
    ConfigError
        If the network does not classify, or there is no data that it takes.
    """
    if network.config.output != "class":
        raise ConfigError(f"accuracy is that of a network that classifies, not of one whose output "
                          f"is {network.config.output}")
    images, labels = (part[:limit] for part in load_images(network.config, split))
    batches = [images[k:k + BATCH] for k in range(0, len(images), BATCH)]
    classes = _spread(partial(predict, network), batches)
    return {"accuracy": float(np.mean(np.concatenate(classes) == labels)),
            "images": len(images), "split": split}


def average_precision(network: Network, split: str, limit: int | None = None) -> dict:
    """What :func:`model.precision.measure` finds of the golden model's boxes; this needs torch.

    Raises
    ------
    ConfigError
        If the network does not find boxes, or the images of HEXLANE_BOXES do not fit.
    """
    from model.boxes import load_samples, whole
    from model.precision import measure
    config = network.config
    decoding, cell = decoding_of(network.record, config, "evaluate")
    samples = [whole(each, (config.height, config.width))
               for each in load_samples(config, decoding.classes, split, limit)]

    def boxes(sample):
        pixels = sample.image.permute(1, 2, 0).numpy()[None]
        return decode(run(network, pixels).values[0], decoding, cell)

    found = measure(_spread(boxes, samples), [(each.corners, each.classes) for each in samples],
                    decoding.classes)
    return {**found, "images": len(samples), "split": split}


def _spread(function, items: list) -> list:
    """Results of all items, on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(tqdm(pool.map(function, items), total=len(items)))


def shown(result: dict) -> str:
    """What :func:`accuracy` or :func:`average_precision` found, in words."""
    if "accuracy" in result:
        return f"accuracy {result['accuracy']:.2%}"
    from model import precision
    return precision.shown(result)
