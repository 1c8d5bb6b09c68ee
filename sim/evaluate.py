"""Accuracy of an integer network, by the golden model."""

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
from model.data import load_images
from sim.golden import predict

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
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        classes = list(tqdm(pool.map(partial(predict, network), batches), total=len(batches)))
    return {"accuracy": float(np.mean(np.concatenate(classes) == labels)),
            "images": len(images), "split": split}
