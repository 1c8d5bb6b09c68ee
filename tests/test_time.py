"""Networks that read clips: clocks, the golden model's memory, and the engine's rings."""

import numpy as np
import pytest

from export.artifact import Layer
from export.checked import ConfigError
from export.config import ArrayConfig, Config
from export.file import load_network, save_network
from export.program import Program
from sim import golden
from sim.samples import random_clips, random_images, random_network
from tests.designs import conv, network, total

# Three clocks; grouped kernels of three frames; gates and several inputs on a slow clock.
CLIPS = network([], height=5, width=6, channels=2, pad=77, operations=[
    conv("a", 6, 3, 3, frames=3),
    conv("b", 4, 2, 2, inputs=["a"], frames=3, every=2, groups=2, pool=True),
    conv("c", 4, 1, 3, inputs=["b"], frames=3, kernel=1),
    conv("d", 4, 3, 2, inputs=["b", "c"], frames=3, skip="b", gate="or"),
    total("end", 3, 3, inputs=["d"], every=2)])


def test_clocks():
    assert CLIPS.periods == {"pixels": 1, "a": 1, "b": 2, "c": 2, "d": 2, "end": 4}
    assert (CLIPS.timed, CLIPS.period) == (True, 4)
    assert not network([conv("a", 4, 3, 3)]).timed


@pytest.mark.parametrize("operations, said", [
    ([conv("a", 4, 3, 3), conv("b", 4, 3, 3, inputs=["a"], every=2),
      conv("c", 4, 3, 3, inputs=["b", "a"], frames=3)], "c: inputs of 3 frames must be on one"),
    ([conv("a", 4, 3, 3), conv("b", 4, 3, 3, inputs=["a"], every=2, skip="a", gate="or")],
     "b: a, which its gate reads, must be on its clock, every 2 frames, not every 1"),
    ([conv("a", 4, 3, 3), conv("b", 4, 3, 3, inputs=["a"], every=2),
      conv("c", 4, 3, 3, inputs=["a"]), conv("d", 4, 3, 3, inputs=["b", "c"])],
     "c: operations must come in the order of their clocks"),
    ([conv(f"c{k}", 4, 3, 3, every=2) for k in range(7)], "c6: must be computed every 64 frames"),
    ([conv("a", 4, 3, 3, frames=2)], "frames"), ([conv("a", 4, 3, 3, every=3)], "every"),
    ([conv("a", 4, 3, 3), conv("b", 4, 2, 3, kernel=1, frames=3, generator={})],
     "b: generated weights must have frames = 1, not 3")])
def test_what_does_not_fit_is_refused(operations, said):
    with pytest.raises(ConfigError, match=said) as caught:
        network([], operations=[*operations, total("end", 3, 3, inputs=[operations[-1]["name"]])])
    assert len(str(caught.value)) <= 300


def test_a_file_holds_kernels_of_three_frames(tmp_path):
    made = random_network(CLIPS, 1)
    assert made.by_name["b"].weight.shape == (4, 3, 3, 3, 3)
    save_network(made, tmp_path / "net.npz")
    assert load_network(tmp_path / "net.npz").digest == made.digest
    with pytest.raises(ConfigError, match=r"b: weight must be int8 4x.x3x3x3, not int8 4x3x3x3"):
        Layer(made.by_name["b"].config, made.by_name["b"].weight[:, :, 0],
              made.by_name["b"].bias, 0)


# ---- the golden model against one convolution of whole clips in three dimensions

def conv3d(layer, clip, pad):
    """Sums float64 [T, O, H, W] at every tick of maps [T, I, H, W], tap by tap."""
    weight, groups = layer.weight.astype(np.float64), layer.config.groups
    if weight.ndim == 4:
        weight = weight[:, :, None]
    outputs, inputs, frames, kernel, _ = weight.shape
    edge, (count, _, height, width) = kernel // 2, clip.shape
    wide = np.pad(clip.astype(np.float64), ((frames - 1, 0), (0, 0), (edge,) * 2, (edge,) * 2),
                  constant_values=pad)
    acc = np.zeros((count, outputs, height, width))
    for o in range(outputs):
        first = o // (outputs // groups) * inputs
        for k, dy, dx in np.ndindex(frames, kernel, kernel):
            part = wide[k:k + count, first:first + inputs, dy:dy + height, dx:dx + width]
            acc[:, o] += (weight[o, :, k, dy, dx, None, None] * part).sum(1)
    return acc


def whole_clip(made, clip):
    """Every operation's results at its ticks, over a whole clip at once."""
    config, found = made.config, {"pixels": golden.fold(clip, made.config.fold)}
    for each in config.operations:
        layer, period = made.by_name[each.name], config.periods[each.name]
        maps = [found[name] for name in each.inputs]
        steps = [period // config.periods[name] for name in each.inputs]
        if each.frames == 1:
            maps = [x[step - 1::step] for x, step in zip(maps, steps, strict=True)]
        x = np.concatenate(maps, 1)
        if each.kind == "sum":
            found[each.name] = x.sum((2, 3)) @ layer.weight[:, :, 0, 0].T.astype(int) + layer.bias
            continue
        acc = conv3d(layer, x, config.pad_of(each))
        acc = acc[steps[0] - 1::steps[0]] if each.frames > 1 else acc
        codes = np.floor((acc + layer.bias[:, None, None]) / 2**layer.shift)
        codes = codes.clip(0, 2**each.code_bits - 1).astype(np.uint8)
        if each.gate:
            codes |= found[each.skip]
        found[each.name] = golden.pool(codes) if each.pool else codes
    return found


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 9, 16])
def test_a_stream_is_a_convolution_of_the_whole_clip(length):
    made = random_network(CLIPS, 1)
    clip = random_images(CLIPS, length, 2)
    stream = golden.Stream(made)
    stream.step(clip[:1] if length else random_images(CLIPS, 1, 3))  # of a clip before
    stream.restart()
    found = [stream.step(frame[None]) for frame in clip]
    wanted = whole_clip(made, clip)
    for name, period in CLIPS.periods.items():
        if name == "pixels":
            continue
        ticks = [t for t, each in enumerate(found) if name in each]
        assert ticks == list(range(period - 1, length, period))
        for t, want in zip(ticks, wanted[name], strict=True):
            np.testing.assert_array_equal(found[t][name][0], want, f"{name}, frame {t}")
    if length > 8:  # nothing is all zeros
        assert all(len(np.unique(each)) > 1 for each in wanted.values())


def test_clips_one_behind_the_other_do_not_see_each_other():
    made, clips = random_network(CLIPS, 1), random_clips(CLIPS, [5, 4, 8], 3)
    trace = golden.run_clips(made, clips)
    each = [golden.run_clips(made, [clip]) for clip in clips]
    assert [len(one.scores) for one in each] == [1, 1, 2]
    np.testing.assert_array_equal(trace.scores, np.concatenate([one.scores for one in each]))
    np.testing.assert_array_equal(trace.codes["b"],
                                  np.concatenate([one.codes["b"] for one in each]))


def test_images_are_no_clips():
    with pytest.raises(ConfigError, match="must be run frame after frame, not on images"):
        golden.run(random_network(CLIPS, 1), random_images(CLIPS, 2, 1))


def test_the_engine_takes_no_clips_yet():
    with pytest.raises(ConfigError, match="engine must have frames = 1 and every = 1"):
        Program(Config(name="clips", network=CLIPS, array=ArrayConfig(rows=2, columns=2, words=1)))
