"""Accuracy of an integer network, on images or clips, or the precision of its boxes, by the golden
model.
"""

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
from export.clips import clip_scores
from export.config import Config
from export.detect import decode, decoding_of
from model.data import load_images
from sim.golden import Stream, predict, run

BATCH = 100  # images between two steps of the progress bar
CLIPS = 13  # ... and clips


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


def clip_accuracy(config: Config, network: Network, split: str, limit: int | None = None) -> dict:
    """Share of right classes of the golden model over whole clips, and of pairs; this needs torch.

    Raises
    ------
    ConfigError
        If the design has no table [clips], or the clips do not fit the network.
    """
    from model.clip_train import source_of
    source = source_of(config.network, config.clips, split, limit)
    count = min(limit or len(source), len(source))
    return {**measure_clips(network, source, range(count)), "images": count, "split": split}


def measure_clips(network: Network, source, chosen: range) -> dict:
    """The shares of :func:`clip_accuracy` in the clips with the numbers `chosen` of `source`, one
    of those of :mod:`model.clip_train`."""
    from model.clip_train import measure
    return measure(*scores_of_clips(network, source, chosen), source.pairs)


def scores_of_clips(network: Network, source, chosen: range) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n, classes] of these clips, and their classes [n]."""

    def scores(numbers: range):
        clips, labels = source.part(numbers)
        stream = Stream(network)
        found = [stream.step(frames).get(network.config.operations[-1].name)
                 for frames in clips.permute(1, 0, 3, 4, 2).numpy()]
        ticks = np.stack([each for each in found if each is not None], 1)
        return clip_scores(network.config, ticks), labels.numpy()

    parts = [chosen[k:k + CLIPS] for k in range(0, len(chosen), CLIPS)]
    found, labels = zip(*_spread(scores, parts), strict=True)
    return np.concatenate(found), np.concatenate(labels)


def _spread(function, items: list) -> list:
    """Results of all items, on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(tqdm(pool.map(function, items), total=len(items)))


def shown(result: dict) -> str:
    """What one of the functions above found, in words."""
    if "accuracy" in result:
        pairs = f", pairs told apart {result['pairs']:.2%}" if "pairs" in result else ""
        return f"accuracy {result['accuracy']:.2%}{pairs}"
    from model import precision
    return precision.shown(result)
