"""Small designs for tests, in the short forms that a TOML file has."""

import math
import random
from collections.abc import Iterator

from export.checked import ConfigError, parse
from export.config import Config, MachineConfig, parse_config
from export.hardware import Hardware
from export.network import NetworkConfig
from export.program import Program

ARRAYS = [(1, 1), (1, 4), (2, 3), (3, 4), (4, 4), (5, 2), (7, 1), (2, 8)]  # rows, columns


def conv(name: str, channels: int, weight_bits: int, code_bits: int, **more) -> dict:
    return {"name": name, "channels": channels, "weight_bits": weight_bits,
            "code_bits": code_bits, **more}


def total(name: str, channels: int, weight_bits: int, output: str = "class", **more) -> dict:
    """A sum over all pixels."""
    return {"kind": "sum", "name": name, "channels": channels, "weight_bits": weight_bits,
            "output": output, **more}


def network(layers: list[dict], *, height=6, width=5, channels=3, **more) -> NetworkConfig:
    """`layers` and three classes, or else `classes`, or `operations` if `layers` is empty."""
    return parse(_network(layers, height, width, channels, more), "network", NetworkConfig)


def design(layers: list[dict], array: tuple, *, height=6, width=5, channels=3,
           **more) -> Config:
    """As :func:`network`; `array` is rows, columns, words, and maybe precisions and dense."""
    names = ("rows", "columns", "words", "precisions", "dense")
    return parse_config({
        "name": "test", "network": _network(layers, height, width, channels, more),
        "array": dict(zip(names, array, strict=False))})


def buffered(config: Config) -> Config:
    """The same design on a machine with two buffers of pixels."""
    return config.model_copy(update={"machine": MachineConfig(pixel_buffers=2)})


def machine(config: Config) -> tuple[Program, Hardware]:
    """The program of a design, and the smallest machine for it."""
    program = Program(config)
    return program, Hardware.of([program])


def random_maps(seed: int) -> Config:
    """Maps of few sizes, read in any order, one behind the other, merged, pooled, summed."""
    rng = random.Random(seed)
    rows, columns = rng.choice(ARRAYS)
    height, width = rng.randint(2, 9), rng.randint(2, 9)
    step = rng.choice([columns, columns, 3, 4, 5])
    first = conv("c0", step * rng.choice([1, 2]), 3, rng.randint(1, 3), kernel=3)
    found, sizes, channels = [first], {"c0": (height, width)}, {"c0": first["channels"]}
    follows, behind = {}, set()
    for k in range(1, rng.randint(3, 9)):
        size = sizes[rng.choice(list(sizes)[-3:])]
        fits = [name for name in sizes if sizes[name] == size]
        inputs = [rng.choice(fits)]
        for name in rng.sample(fits, rng.randint(0, len(fits))):  # mostly what can be placed
            before = inputs[-1]
            if name not in inputs and (follows.get(before) == name or rng.random() < 0.05 or (
                    before not in follows and name not in behind)):
                follows[before] = name
                behind.add(name)
                inputs.append(name)
        wanted = step * rng.choice([1, 1, 2, 3])
        layer = conv(f"c{k}", wanted, rng.randint(1, 3), rng.randint(1, 3), inputs=inputs,
                     kernel=rng.choice([1, 3]), pool=min(size) > 1 and rng.random() < 0.2)
        near = [name for name, at in sizes.items() if wanted % channels[name] == 0
                and (at == size or (at[0] // 2, at[1] // 2) == size)]
        if near and rng.random() < 0.6:
            layer |= {"skip": rng.choice(near), "gate": rng.choice(["or", "mux", "mux_or"])}
            if layer["gate"] != "or":
                found.append(total(f"s{k}", wanted, 2, "select", inputs=[rng.choice(near)]))
                layer["select"] = f"s{k}"
        found.append(layer)
        sizes[f"c{k}"] = (size[0] // 2, size[1] // 2) if layer["pool"] else size
        channels[f"c{k}"] = wanted
    last = found[-1]["name"]
    found.append(total("end", rng.randint(2, 5), 1, inputs=[last]))
    while True:  # without what nobody reads
        read = {name for each in found for name in (
            *each.get("inputs", ()), each.get("skip"), each.get("select"), "end")}
        kept = [each for each in found if each["name"] in read]
        if len(kept) == len(found):
            return design([], (rows, columns, rng.randint(1, 3)), height=height, width=width,
                          channels=rng.randint(1, 3), operations=found)
        found = kept


def random_bands(seed: int) -> Config:
    """Maps whose rows are read as bands, from pixels on, with gates, pooling and all outputs."""
    rng = random.Random(f"bands {seed}")
    rows, columns = rng.choice(ARRAYS)
    first, second = rng.choice([1, 2, 3, 4]), rng.choice([2, 2, 3])
    width, fold = rng.randint(1, 6), rng.choice([1, 1, 2])
    last = rows // math.gcd(rows, width)  # rows of the map behind both, times `double`
    double, pool = rng.choice([1, 2]), width > 1 and rng.random() < 0.3
    height = first * second * double * last
    found = [conv("a", rng.choice([columns, 3, 5, 7]), rng.randint(1, 3), rng.randint(1, 3),
                  kernel=rng.choice([1, 3]), bands=first),
             conv("b", columns, rng.randint(1, 3), 2, kernel=rng.choice([1, 3]), bands=second),
             conv("c", columns * rng.choice([1, 2]), rng.randint(1, 3), rng.randint(1, 3),
                  skip="b", gate=rng.choice(["or", "mux", "mux_or"]),
                  pool=pool and double * last > 1)]
    if found[2]["gate"] != "or":
        found.insert(2, total("s", found[2]["channels"], 2, "select", inputs=["b"]))
        found[-1]["select"] = "s"
    ends = [[], [{"kind": "map", "name": "end", "channels": 4, "weight_bits": 3}],
            [total("end", 4, 2, inputs=["c"])]]
    return design([], (rows, columns, rng.randint(1, 3)), height=fold * height, width=fold * width,
                  channels=rng.randint(1, 3), fold=fold, pad=rng.randint(0, 255),
                  operations=[*found, *rng.choice(ends)])


def _network(layers, height, width, channels, more) -> dict:
    short = {"layers": layers, "classes": 3} if layers else {}
    return {"height": height, "width": width, "channels": channels, **short, **more}


GENERATED = {"kernel": 1, "generator": {"outputs": 4, "inputs": 4}}
SMALL = [  # classes with and without gates, codes, values; formats of all kinds, bands
    design([conv("a", 8, 3, 3, pool=True), conv("b", 9, 1, 3), conv("c", 8, 2, 3, **GENERATED)],
           (3, 4, 2), height=6, width=6),
    design([conv("a", 4, 2, 2), conv("b", 4, 3, 3, skip="a", gate="mux"),
            conv("c", 8, 2, 2, inputs=["a", "b"], skip="b", gate="or")], (3, 4, 2),
           height=7, width=5, channels=2, pad=7, classes=5),
    design([], (3, 4, 2), height=12, width=12, fold=2, operations=[
        conv("a", 6, 3, 3, bands=2), conv("b", 7, 2, 2, pool=True)]),
    design([], (3, 4, 2), height=8, width=8, channels=1, fold=4, pad=200, operations=[
        conv("a", 5, 2, 3), {"kind": "map", "name": "b", "channels": 6, "weight_bits": 3}])]


def random_clip_design(seed: int) -> Config:
    """A network that reads clips: kernels of three frames, several clocks, gates, groups, folded
    pixels, cells, all outputs, dense weights.
    """
    rng = random.Random(f"clips {seed}")
    rows, columns = rng.choice(ARRAYS)
    fold, dense = rng.choice([1, 1, 1, 2]), rng.random() < 0.2
    step = rng.choice([columns, columns, 3, 4])
    found = [conv("c0", step * rng.choice([1, 2]), rng.randint(1, 3), rng.randint(1, 3),
                  frames=rng.choice([1, 1, 3]), every=rng.choice([1, 1, 1, 2]))]
    pool = rng.random() < 0.5
    found[0]["pool"] = pool
    fast, slow = [found[0]], []
    for k in range(1, rng.randint(2, 6)):
        maps = slow or fast
        slower = rng.random() < 0.3 and not slow
        source = rng.choice(maps)
        layer = conv(f"c{k}", step * rng.choice([1, 1, 2]), rng.randint(1, 3), rng.randint(1, 3),
                     inputs=[source["name"]], kernel=rng.choice([1, 3]),
                     frames=rng.choice([1, 3, 3]), every=1 + slower)
        others = [each for each in maps if each is not source]
        if others and not slower and rng.random() < 0.3:
            layer["inputs"].append(rng.choice(others)["name"])
        elif source["channels"] % 2 == layer["channels"] % 2 == 0 and rng.random() < 0.3:
            layer["groups"] = 2
        near = [each for each in maps if layer["channels"] % each["channels"] == 0]
        if near and not slower and rng.random() < 0.5:
            layer |= {"skip": rng.choice(near)["name"], "gate": rng.choice(["or", "mux", "mux_or"])}
            if layer["gate"] != "or":
                found.append(total(f"s{k}", layer["channels"], rng.randint(1, 3), "select",
                                   inputs=[rng.choice(near)["name"]]))
                layer["select"] = f"s{k}"
        found.append(layer)
        if slower:
            slow = [layer]
        else:
            maps.append(layer)
    before = found[-1]["name"]
    if rng.random() < 0.6:
        units = rng.randint(1, 2 * columns)
        found.append(total("x", units, rng.randint(1, 3), "codes", code_bits=rng.randint(1, 3),
                           inputs=[before], every=rng.choice([1, 1, 2])))
        before = "x"
        for k in range(rng.randint(1, 2)):
            found.append({"kind": "cell", "form": rng.choice(["full", "coupled"]),
                          "state_bits": rng.choice([8, 8, 5, 2]), "value_bits": rng.choice([8, 4]),
                          **conv(f"h{k}", units, rng.randint(1, 3), rng.randint(1, 3),
                                 inputs=[before], every=rng.choice([1, 1, 2]))})
            before = f"h{k}"
    ends = [before, *["x"] * (before == "h0" and rng.random() < 0.3)]
    last = {"inputs": ends, "every": rng.choice([1, 2])}
    match rng.choice(["class", "class", "codes", "map"]):
        case "class":
            found.append(total("end", rng.randint(2, 5), rng.randint(1, 3), **last))
        case "codes":
            found.append(conv("end", rng.randint(2, 5), rng.randint(1, 3), rng.randint(1, 3),
                              kernel=1, **last))
        case "map":
            found.append({"kind": "map", "name": "end", "channels": rng.randint(2, 5),
                          "weight_bits": rng.randint(1, 3), **last})
    while True:  # without what nobody reads
        read = {name for each in found
                for name in (*each.get("inputs", ()), each.get("skip"), each.get("select"))
                if name}
        if not (unread := [each for each in found[:-1] if each["name"] not in read]):
            break
        found.remove(unread[0])
    return design([], (rows, columns, rng.choice([1, 2, 4]), [1, 2, 3], dense), operations=found,
                  height=fold * rng.randint(2, 5), width=fold * rng.randint(2, 5), fold=fold,
                  channels=rng.choice([1, 3]), pad=rng.choice([0, 99]))


def clip_designs(seeds, longest: int = 8) -> Iterator[tuple[int, Config]]:
    """Those of :func:`random_clip_design` that are legal, can be placed, and read clips, with a
    result every `longest` frames or oftener."""
    for seed in seeds:
        try:
            config = random_clip_design(seed)
            Program(config)
        except ConfigError:
            continue
        if config.network.timed and config.network.period <= longest:
            yield seed, config


def codes_of_clips(remembers: bool = True) -> Config:
    """A little network for the gestures that are drawn, with a cell or without."""
    cells = [conv("h", 6, 2, 2, kind="cell")] if remembers else []
    values = {"name": "gestures", "array": {"rows": 4, "columns": 4, "words": 2}, "network": {
        "height": 96, "width": 128, "channels": 3, "fold": 4, "pad": 128, "operations": [
            conv("a", 4, 3, 1, pool=True, kernel=1), conv("b", 4, 1, 1, frames=3, every=2),
            total("x", 6, 1, "codes", code_bits=2), *cells, total("end", 13, 2)]},
        "clips": {"steps": 20, "float_steps": 5, "code_steps": 5, "weight_steps": 5}}
    return parse_config(values)
