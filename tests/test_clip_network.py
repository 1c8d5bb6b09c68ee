"""Encoders that read clips: torch in evaluation mode is the golden model, frame by frame."""

from importlib import import_module

import numpy as np
import pytest

from export.config import TrainConfig, parse_config
from export.network import CellConfig, NetworkConfig, walk
from sim.golden import Stream
from sim.runner import missing
from sim.samples import random_images
from tests.clips import check_clips
from tests.designs import conv, total
from tests.designs import network as network_of
from tests.test_cell import cell, codes

torch = pytest.importorskip("torch")
model = import_module("model.network")
convert = import_module("model.convert")
QuantCell = import_module("model.cell").QuantCell

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
    # Pixels in bands, and two maps in rings, on two clocks.
    "bands": network_of([], height=12, width=4, channels=2, pad=77, operations=[
        conv("a", 8, 3, 3, bands=3), conv("b", 8, 2, 2, frames=3),
        conv("c", 8, 1, 2, kernel=1, bands=2, inputs=["a"]),
        conv("d", 8, 2, 2, kernel=3, bands=2, every=2, inputs=["b"]),
        conv("e", 8, 2, 2, inputs=["b"], frames=3, every=2, pool=True),
        conv("f", 16, 2, 2, inputs=["c", "d"], kernel=1, skip="d", gate="or"),
        total("s", 8, 2, "codes", code_bits=1, inputs=["e"]),
        total("t", 8, 2, "codes", code_bits=1, inputs=["f"]),
        total("end", 4, 3, inputs=["s", "t"])]),
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


@pytest.mark.slow
@pytest.mark.parametrize("name, array", [("clocks", (4, 8, 2)), ("cells", (3, 4, 1)),
                                         ("bands", (4, 8, 2)), ("values", (2, 2, 1))])
def test_verilog_is_golden_at_every_layer_and_frame(tmp_path, name, array):
    """The same networks, so that a clip through torch is one through the Verilog."""
    if reason := missing("verilator"):
        pytest.skip(reason)
    config = parse_config({"name": name, "network": NETWORKS[name].model_dump(mode="json"),
                           "array": dict(zip(("rows", "columns", "words"), array, strict=True))})
    check_clips(config, 1, tmp_path, [1, 2, 3, 16, 40], "verilator")


@pytest.mark.parametrize("name", ["clocks", "cells"])
def test_statistics_are_those_of_all_ticks(name):
    config = NETWORKS[name]
    encoder = encoder_of(config)
    with torch.no_grad():
        maps = walk(config, encoder.folded(torch.tensor(clips_of(config, 24, 8, 9)).float()),
                    encoder.apply_operation)
        for each in config.operations:
            part = encoder.parts[each.name]
            if not each.makes_codes:
                continue
            acc = part.accumulate(encoder.seen(each, [maps[other] for other in each.inputs]))
            if each.kind == "cell":  # whose sums depend on them
                mean, square = part.moments(acc)
                torch.testing.assert_close(part.square, square, rtol=0.05, atol=0)
                torch.testing.assert_close(part.mean, mean, rtol=0, atol=0.2 * square.max().sqrt())
            else:
                torch.testing.assert_close(part.mean, acc.mean((0, 2, 3)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("form", ["full", "coupled"])
def test_what_a_cell_rounds_is_near_to_what_it_does_not(form):
    """Same sums: a gate that is decided, values far from the ends, give the same but for a code."""
    layer = CellConfig(name="a", channels=4, weight_bits=2, code_bits=3, form=form, state_bits=6)
    made = QuantCell(layer, TrainConfig())
    y = {"i": 3.0, "f": -3.0, "g": 9.3, "o": 3.0}
    y = torch.tensor([y[gate] for gate in layer.gates]).repeat_interleave(4)[None]
    found = {}
    for made.round_codes in (True, False):
        h, c = made.step(y, torch.zeros(1, 4))
        found[made.round_codes] = h, made.step(y * torch.where(y > 8, 0, -1), c)[1]
    assert found[True][0].tolist() == [[5.0] * 4]  # 9 >> 3, and 4
    assert found[True][1].tolist() == [[9.0] * 4]  # it is kept, and nothing added
    for one, other in zip(found[True], found[False], strict=True):
        assert 0 < (one - other).abs().max() < 1


def test_gradients_pass_a_cell_from_the_last_tick_to_the_first():
    torch.manual_seed(1)
    cell = QuantCell(CellConfig(name="a", channels=16, weight_bits=2, code_bits=2, state_bits=6),
                     TrainConfig())
    x = torch.randint(0, 4, (8, 12, 16, 1, 1)).float()
    cell.train()
    for _ in range(30):
        cell(x)
    for rounded in (True, False):
        cell.round_codes = cell.round_weights = rounded
        seen = x.clone().requires_grad_()
        cell(seen)[:, -1].sum().backward()
        size = seen.grad.abs().amax((0, 2, 3, 4))
        assert (size > 0).all() and torch.isfinite(size).all()
        assert size[0] < size[-1]  # it forgets
