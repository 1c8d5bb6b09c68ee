"""Encoders that read clips: torch in evaluation mode is the golden model, frame by frame."""

from importlib import import_module

import numpy as np
import pytest

from export.network import NetworkConfig, walk
from sim.golden import Stream
from sim.samples import random_images
from tests.designs import conv, total
from tests.designs import network as network_of
from tests.test_cell import cell, codes

torch = pytest.importorskip("torch")
model = import_module("model.network")
convert = import_module("model.convert")

NETWORKS = {
    # Kernels of three frames that read pixels, and codes on each clock; gates, pools, groups.
    "clocks": network_of([], height=6, width=9, channels=2, pad=77, operations=[
        conv("a", 8, 3, 3, frames=3), conv("b", 8, 2, 2, frames=3, groups=4, skip="a", gate="or"),
        total("c", 16, 2, "select", every=2),
        conv("d", 8, 1, 1, inputs=["b"], frames=3, every=2, groups=2, pool=True),
        conv("e", 16, 1, 1, kernel=1, frames=3), conv("f", 16, 2, 2, inputs=["d", "e"],
                                                      skip="d", gate="mux", select="c"),
        conv("g", 16, 2, 2, inputs=["f"], skip="d", gate="mux_or", select="c", pool=True),
        total("end", 4, 3, every=2)]),
    "cells": network_of([], height=8, width=8, channels=3, fold=2, pad=9, operations=[
        conv("a", 8, 3, 3), codes("s", 24, 2, 2), cell("b", 24, 2, 2, state_bits=6),
        conv("c", 20, 1, 1, kernel=1), codes("d", 18, 1, 3, every=2),
        cell("e", 18, 1, 1, form="coupled", value_bits=5, state_bits=4),
        total("end", 4, 3, inputs=["d", "e"])]),
    "values": network_of([], height=6, width=6, channels=3, operations=[
        conv("a", 8, 3, 3, pool=True), codes("s", 16, 2, 2), cell("b", 16, 2, 3, state_bits=6),
        {"kind": "map", "name": "end", "channels": 5, "weight_bits": 2}]),
}


def clips_of(config: NetworkConfig, count: int, frames: int, seed: int) -> np.ndarray:
    """Uint8 (count, frames, channels, h, w)."""
    images = random_images(config, count * frames, seed)
    return images.reshape(count, frames, *images.shape[1:]).transpose(0, 1, 4, 2, 3)


def encoder_of(config: NetworkConfig):
    """Untrained, but with statistics from a few batches, calibrated."""
    torch.manual_seed(1)
    encoder = model.Encoder(config)
    with torch.no_grad():
        for name, part in encoder.parts.items():
            if config.by_name[name].kind == "cell":  # so that units differ, and saturate
                part.beta += torch.randn(part.beta.shape)
                g = config.by_name[name].gates.index("g") * part.layer.channels
                part.beta[g:g + part.layer.channels] *= 2.0 ** (part.layer.state_bits - 3)
            elif config.by_name[name].makes_codes:
                part.beta.uniform_(0, 2**part.layer.code_bits)
        encoder.train()
        for batch in range(20):
            encoder(torch.tensor(clips_of(config, 4, 8, 100 + batch)).float())
    clips = torch.tensor(clips_of(config, 24, 8, 9))
    model.calibrate(encoder, clips, batch=10)
    if config.output == "class":
        with torch.no_grad():
            encoder.head.bias -= encoder(clips.float()).mean((0, 1)) / encoder.head.scale
    return encoder.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_golden_is_torch_at_every_layer_and_frame(name):
    config = NETWORKS[name]
    encoder = encoder_of(config)
    network = convert.convert(encoder)
    seen = {each.name: [] for each in config.operations}
    for frames in (1, 2, 3, 16, 40):
        clips = clips_of(config, 3, frames, frames)
        stream, found = Stream(network), {each: [] for each in seen}
        for frame in clips.swapaxes(0, 1):
            for each, result in stream.step(frame.transpose(0, 2, 3, 1)).items():
                found[each].append(result)
        with torch.no_grad():
            maps = walk(config, encoder.folded(torch.tensor(clips).float()),
                        encoder.apply_operation)
            results = encoder(torch.tensor(clips).float())
        assert torch.equal(results, maps[config.operations[-1].name])
        for each, ticks in found.items():
            assert maps[each].shape[:2] == (3, frames // config.periods[each])
            if ticks:
                wanted = np.stack(ticks, 1)
                if getattr(config.by_name[each], "output", "") == "select":
                    wanted = wanted >= 0
                np.testing.assert_array_equal(maps[each].numpy(), wanted, f"{each}, {frames}")
                seen[each].append(wanted)
    for each in config.operations:
        levels = len(np.unique(np.concatenate([x.ravel() for x in seen[each.name]])))
        assert levels == 2**each.code_bits if each.makes_codes else levels > 1, each.name
