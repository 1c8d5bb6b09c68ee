"""Operations: short forms, defaults, shapes, the walk, and the line that each mistake gets."""

import copy

import pytest

from export.checked import parse
from export.config import ConfigError
from export.network import (
    MAX_CHANNELS,
    MAX_OPERATIONS,
    MAX_WEIGHTS,
    PIXELS,
    ConvConfig,
    NetworkConfig,
    Shape,
    SumConfig,
    walk,
    weight_count,
)
from tests.designs import conv, network, total


def operations(*each: dict, **more) -> NetworkConfig:
    return network([], operations=list(each), **more)


# ---- short forms

def test_layers_are_written_out():
    short = network([conv("a", 4, 3, 2, pool=True), conv("b", 6, 1, 1, kernel=1, groups=2)],
                    height=9, width=7, classes=2)
    assert short == operations(
        {"kind": "conv", "name": "a", "inputs": ["pixels"], "channels": 4, "weight_bits": 3,
         "code_bits": 2, "kernel": 3, "groups": 1, "pool": True},
        {"kind": "conv", "name": "b", "inputs": ["a"], "channels": 6, "weight_bits": 1,
         "code_bits": 1, "kernel": 1, "groups": 2},
        {"kind": "sum", "name": "classifier", "inputs": ["b"], "channels": 2, "weight_bits": 3,
         "output": "class"}, height=9, width=7)
    assert (short.pad, short.classes) == (0, 2)
    assert network([conv("a", 4, 3, 2)], classifier_bits=1).operations[-1].weight_bits == 1


def test_sums_are_passed_over_by_what_reads_the_one_before():
    found = operations(conv("a", 4, 1, 1), total("s", 4, 1, "select"),
                       conv("b", 4, 1, 1, skip="a", gate="mux", select="s"), total("last", 3, 1))
    assert [each.inputs for each in found.operations] == [("pixels",), ("a",), ("a",), ("b",)]
    assert found.by_name["b"].reads == ("a", "a", "s")
    assert found.by_name["last"].reads == ("b",)


def test_a_mux_without_a_select_gets_one_behind_its_skip():
    found = network([conv("a", 4, 1, 1), conv("b", 4, 1, 1), conv("c", 8, 1, 1),
                     conv("d", 8, 1, 1, skip="a", gate="mux"),
                     conv("e", 8, 1, 1, skip="a", gate="mux_or", select_bits=3),
                     conv("f", 8, 1, 1, skip="c", gate="or")])
    assert [each.name for each in found.operations] == [
        "a", "d_select", "e_select", "b", "c", "d", "e", "f", "classifier"]
    assert found.by_name["d_select"] == SumConfig(
        name="d_select", inputs=("a",), channels=8, weight_bits=2, output="select")
    assert found.by_name["e_select"].weight_bits == 3
    assert [found.by_name[name].select for name in "def"] == ["d_select", "e_select", None]
    assert found.by_name["b"].inputs == ("a",)  # not the sum before it


def test_a_select_that_is_named_is_kept():
    found = network([conv("a", 4, 1, 1), total("s", 4, 3, "select"),
                     conv("b", 4, 1, 1, skip="a", gate="mux", select="s")])
    assert [each.name for each in found.operations] == ["a", "s", "b", "classifier"]


def test_what_is_written_out_is_left_alone():
    """The values that were given do not change, and those of a network give it again."""
    layers = [conv("a", 4, 1, 1), conv("b", 4, 1, 1, skip="a", gate="mux", select_bits=1)]
    before = copy.deepcopy(layers)
    found = network(layers)
    assert layers == before
    assert parse(found.model_dump(mode="json"), "again", NetworkConfig) == found
    assert parse(found.model_dump(), "again", NetworkConfig) == found


# ---- shapes and the walk

JOINED = operations(
    conv("a", 4, 3, 2, pool=True), conv("b", 3, 1, 3, inputs=["a"]),
    conv("c", 5, 2, 1, inputs=["b", "a"], pool=True), total("s", 6, 2, "select", inputs=["b", "a"]),
    conv("d", 6, 1, 1, skip="b", gate="mux", select="s", inputs=["a", "b"], pool=True),
    total("end", 7, 1, inputs=["d", "c"]), height=9, width=7)


def test_shapes():
    found = {name: (shape.channels, *shape.size) for name, shape in JOINED.shapes.items()}
    assert found == {"pixels": (3, 9, 7), "a": (4, 4, 3), "b": (3, 4, 3), "c": (5, 2, 1),
                     "s": (6, 1, 1), "d": (6, 2, 1), "end": (7, 1, 1)}
    assert list(found) == [PIXELS, *(each.name for each in JOINED.operations)]
    assert JOINED.source(JOINED.by_name["c"]) == Shape(channels=7, height=4, width=3)
    assert JOINED.source(JOINED.by_name["end"]) == Shape(channels=11, height=2, width=1)
    assert JOINED.shapes["a"].pixels == 12
    assert JOINED.classes == 7


def test_peaks_and_pads():
    config = JOINED.model_copy(update={"pad": 9})
    assert [config.peak(each) for each in config.operations] == [255, 3, 7, 7, 7, 1]
    assert [config.pad_of(each) for each in config.operations] == [9, 0, 0, 0, 0, 0]


def test_readers():
    assert [each.name for each in JOINED.readers("a")] == ["b", "c", "s", "d"]
    assert [each.name for each in JOINED.readers("d")] == ["end"]
    assert JOINED.readers("s") == []
    assert [each.name for each in JOINED.convs] == ["a", "b", "c", "d"]


def test_walk_hands_over_results_in_order():
    seen = []

    def apply(operation, inputs, skip, select):
        seen.append((operation.name, inputs, skip, select))
        return operation.name.upper()

    results = walk(JOINED, "PIXELS", apply)
    assert seen == [("a", ["PIXELS"], None, None), ("b", ["A"], None, None),
                    ("c", ["B", "A"], None, None), ("s", ["B", "A"], None, None),
                    ("d", ["A", "B"], "B", "S"), ("end", ["D", "C"], None, None)]
    assert list(results.items()) == [("pixels", "PIXELS"), *((name, name.upper()) for name in (
        "a", "b", "c", "s", "d", "end"))]


A, B, END = conv("a", 4, 3, 2), conv("b", 6, 2, 2), total("end", 3, 3)
SELECT = total("s", 6, 2, "select", inputs=["a"])
MUX = {"skip": "a", "gate": "mux", "select": "s"}
VALUES = {"kind": "map", "name": "v", "channels": 5, "weight_bits": 2}
ENDS = "a class or a map of values ends the network, so no operation must come behind it"
MADE = {"kernel": 1, "generator": {"outputs": 4, "inputs": 4}}


def test_what_leaves_follows_from_the_last_operation():
    assert operations(A).output == "codes"
    assert network([A, B]).output == "class"
    found = operations(A, B, VALUES)
    assert (found.output, found.by_name["v"].out_bits) == ("map", 8)
    assert found.by_name["v"].inputs == ("b",)
    assert found.shapes["v"] == Shape(channels=5, height=6, width=5)


def test_folded_pixels_are_fewer_positions_of_more_channels():
    found = operations(A, height=8, width=12, channels=3, fold=4)
    assert found.shapes["pixels"] == Shape(channels=48, height=2, width=3)
    assert found.shapes["a"] == Shape(channels=4, height=2, width=3)


# ---- refusals

@pytest.mark.parametrize("each, message", [
    ([A, B | {"skip": "a"}, END], "operations.1: b: skip and gate come together, not alone"),
    ([A, B | {"gate": "or"}, END], "operations.1: b: skip and gate come together, not alone"),
    ([A, B | {"skip": "a", "gate": "mux"}, END],
     "operations.1: b: select must name a sum if the gate has a mux, and only then, not None"),
    ([A, SELECT, B | MUX | {"gate": "or"}, END],
     "operations.2: b: select must name a sum if the gate has a mux, and only then, not 's'"),
    ([A, SELECT, B | {"select": "s"}, END],
     "operations.2: b: select must name a sum if the gate has a mux, and only then, not 's'"),
    ([A, B | MADE | {"kernel": 3}, END],
     "operations.1: b: generated weights must have kernel 1, groups 1 and 2 bits, not 3, 1 and 2"),
    ([A, B | MADE | {"groups": 2}, END],
     "operations.1: b: generated weights must have kernel 1, groups 1 and 2 bits, not 1, 2 and 2"),
    ([A, B, A, END], "names must differ from each other and from 'pixels', not 'a'"),
    ([A, B | {"name": "pixels"}, END],
     "names must differ from each other and from 'pixels', not 'pixels'"),
    ([A, B, END | {"name": "b"}], "names must differ from each other and from 'pixels', not 'b'"),
    ([A | {"inputs": ["b"]}, B, END], "a: must read maps of operations before it, not 'b'"),
    ([A, B | {"inputs": ["b"]}, END], "b: must read maps of operations before it, not 'b'"),
    ([A, B | {"inputs": ["x"]}, END], "b: must read maps of operations before it, not 'x'"),
    ([A, SELECT, B | {"inputs": ["s"]}, END], "b: must read maps of operations before it, not 's'"),
    ([A, SELECT, B | MUX | {"skip": "s"}, END],
     "b: must read maps of operations before it, not 's'"),
    ([A, SELECT, B | MUX | {"inputs": ["s"]}, END],
     "b: must read maps of operations before it, not 's'"),
    ([A, SELECT, B | MUX | {"skip": "b"}, END],
     "b: must read maps of operations before it, not 'b'"),
    ([A, SELECT, B | MUX | {"select": "x"}, END],
     "b: must read sums of operations before it, not 'x'"),
    ([A, B | MUX, SELECT, END], "b: must read sums of operations before it, not 's'"),
    ([END | {"inputs": ["pixels"]}, A],
     "end: the first operation must be a convolution of the pixels with stored weights"),
    ([total("s", 4, 1, "select"), conv("a", 4, 1, 1, inputs=["pixels"]), END],
     "s: the first operation must be a convolution of the pixels with stored weights"),
    ([A | MADE | {"weight_bits": 2}, END],
     "a: the first operation must be a convolution of the pixels with stored weights"),
    ([A, B | {"inputs": ["pixels"]}, END], "only the first operation may read the pixels"),
    ([A, B | {"inputs": ["pixels", "a"]}, END], "only the first operation may read the pixels"),
    ([A, B, END | {"inputs": ["pixels"]}], "only the first operation may read the pixels"),
    ([A, B | {"skip": "pixels", "gate": "or"}, END],
     "only the first operation may read the pixels"),
    ([A, B | {"inputs": ["a"]}, END | {"inputs": ["a"]}], "b: no operation reads it"),
    ([A, SELECT, B, END], "s: no operation reads it"),
    ([A, END | {"output": "select"}],
     "end: the last operation must be a sum whose output is a class, a map of values or a "
     "convolution, not a select"),
    ([A, total("s", 6, 2, inputs=["a"]), B | MUX, END], "s: " + ENDS),
    ([A, VALUES, B | {"inputs": ["a"]}, END], "v: no operation reads it"),
    ([A, B, END | {"inputs": ["v"]}, VALUES],
     "end: must read maps of operations before it, not 'v'"),
    ([A, VALUES | {"inputs": ["pixels"]}], "only the first operation may read the pixels"),
    ([VALUES | {"inputs": ["pixels"]}],
     "v: the first operation must be a convolution of the pixels with stored weights"),
    ([A, END | {"channels": 1}], "end: classes must be at least 2, not 1"),
    ([A, B | {"inputs": ["a", "a"]}, END], "b: inputs must differ, not ['a', 'a']"),
    ([A, B, END | {"inputs": ["b", "b"]}], "end: inputs must differ, not ['b', 'b']"),
    ([A, B | {"pool": True}, conv("c", 1, 1, 1, inputs=["a", "b"]), END],
     "c: inputs must have one size, not 6x5 and 3x2 of b"),
    ([A, B | {"pool": True}, END | {"inputs": ["b", "a"]}],
     "end: inputs must have one size, not 3x2 and 6x5 of a"),
    ([A, B | {"channels": MAX_CHANNELS - 3}, END | {"inputs": ["a", "b"]}],
     "end: inputs must have at most 4096 channels together, not 4097"),
    ([A, B | {"groups": 3}, END], "b: groups must divide 4 input and 6 output channels, not 3"),
    ([A, B | {"groups": 4}, END], "b: groups must divide 4 input and 6 output channels, not 4"),
    ([A, B, conv("c", 8, 1, 1, inputs=["a", "b"], groups=4), END],
     "c: groups must divide 10 input and 8 output channels, not 4"),
    ([A | {"pool": True}, B | {"pool": True}, conv("c", 1, 1, 1, pool=True), END],
     "c: pooling needs at least 2x2 pixels, not 1x1"),
    ([A | {"pool": True}, B | {"pool": True}, conv("c", 4, 1, 1), conv("d", 4, 1, 1, pool=True),
      END], "d: pooling needs at least 2x2 pixels, not 1x1"),
    ([A, B | {"pool": True}, conv("c", 4, 1, 1, pool=True),
      conv("d", 4, 1, 1, skip="a", gate="or"), END],
     "d: skip must have 1x1 pixels, or twice as many rows and columns, not 6x5"),
    ([A | {"pool": True}, conv("c", 4, 1, 1, pool=True),
      conv("d", 4, 1, 1, inputs=["a"], skip="c", gate="or"), END],
     "d: skip must have 3x2 pixels, or twice as many rows and columns, not 1x1"),
    ([A, B | {"skip": "a", "gate": "or"}, END],
     "b: its 6 channels must be a multiple of the skip's, not 4"),
    ([A, SELECT, B | MUX | {"channels": 8}, END],
     "b: select must be a sum of 8 channels, not of 6"),
    ([A, END | {"name": "s"}, B | MUX | {"channels": 4}, END], "s: " + ENDS),
])
def test_operations_that_do_not_fit_are_refused(each, message):
    with pytest.raises(ConfigError) as caught:
        operations(*each)
    assert str(caught.value) == f"network: {message}"


@pytest.mark.parametrize("changes, message", [
    ({"height": 0}, "height: must be greater than or equal to 1, not 0"),
    ({"height": 4097}, "height: must be less than or equal to 4096, not 4097"),
    ({"width": 4097}, "width: must be less than or equal to 4096, not 4097"),
    ({"width": "wide"}, "width: must be an integer, not 'wide'"),
    ({"height": 1024, "width": 1025}, "height x width must be at most 1048576, not 1024x1025"),
    ({"channels": 65}, "channels: must be less than or equal to 64, not 65"),
    ({"pad": 256}, "pad: must be less than or equal to 255, not 256"),
    ({"pad": -1}, "pad: must be greater than or equal to 0, not -1"),
    ({"classes": 1}, "classifier: classes must be at least 2, not 1"),
    ({"classes": 4097},
     "operations.2.channels: must be less than or equal to 4096, not 4097"),
    ({"classifier_bits": 4}, "operations.2.weight_bits: must be 1, 2 or 3, not 4"),
    ({"stride": 1}, "stride: is not known"),
    ({"classes": None, "classifier_bits": 2}, "classifier_bits must stand beside classes"),
    ({"layers": [A | {"select_bits": 2}]}, "operations.0.select_bits: is not known"),
    ({"layers": [A, conv("b", 4096, 1, 1, kernel=1), conv("c", 4096, 2, 1, kernel=1, generator={
        "outputs": 1, "inputs": 3})]}, "generated weights must be at most 65536 blocks in all, "
      "not 5595136"),
    ({"layers": 7}, "layers must be a list of tables, not 7"),
    ({"layers": [7]}, "layers must be a list of tables, not [7]"),
    ({"layers": {"a": 1}}, "layers must be a list of tables, not {'a': 1}"),
    ({"layers": [A], "operations": [A, END]},
     "layers is short for operations: give one of them, not both"),
    ({"layers": [{}] * (MAX_OPERATIONS + 1)}, "layers must be at most 256, not 257"),
    ({"fold": 3}, "fold: must be 1, 2 or 4, not 3"),
    ({"fold": 2}, "height and width must be multiples of fold = 2, not 6x5"),
    ({"fold": 4, "height": 8, "width": 8, "channels": 5},
     "channels x fold x fold must be at most 64, not 80"),
    ({"layers": [A, *(conv(f"c{k}", 4096, 1, 1) for k in range(253))]},
     "weights must be at most 33554432 in all, not 38"),
])
def test_bad_values_of_a_network_are_refused(changes, message):
    values = {"height": 6, "width": 5, "channels": 3, "layers": [A, B], "classes": 3} | changes
    with pytest.raises(ConfigError) as caught:
        parse(values, "network", NetworkConfig)
    assert str(caught.value).startswith(f"network: {message}")


@pytest.mark.parametrize("changes, message", [
    ({"name": "Conv 1"}, "name: must match ^[a-z][a-z0-9_]*$, not 'Conv 1'"),
    ({"name": "a\n"}, "name: must match ^[a-z][a-z0-9_]*$, not 'a\\n'"),
    ({"name": "a/b"}, "name: must match ^[a-z][a-z0-9_]*$, not 'a/b'"),
    ({"name": "a" * 41}, "name: must have at most 40 characters, not 'aaaa"),
    ({"channels": 0}, "channels: must be greater than or equal to 1, not 0"),
    ({"channels": 4097}, "channels: must be less than or equal to 4096, not 4097"),
    ({"groups": 0}, "groups: must be greater than or equal to 1, not 0"),
    ({"weight_bits": 4}, "weight_bits: must be 1, 2 or 3, not 4"),
    ({"code_bits": 0}, "code_bits: must be 1, 2 or 3, not 0"),
    ({"kernel": 5}, "kernel: must be 1 or 3, not 5"),
    ({"pool": 1}, "pool: must be true or false, not 1"),
    ({"stride": 2}, "stride: is not known"),
    ({"output": "select"}, "output: is not known"),
    ({"gate": "and"}, "gate: must be 'or', 'mux' or 'mux_or', not 'and'"),
    ({"inputs": ["a"] * 65}, "inputs: must have at most 64 items, not"),
    ({"inputs": "a"}, "inputs: must be a list, not 'a'"),
    ({"generator": {"rule": 256}},
     "generator.rule: must be less than or equal to 255, not 256"),
    ({"generator": {"outputs": 257}},
     "generator.outputs: must be less than or equal to 256, not 257"),
])
def test_bad_values_of_an_operation_are_refused(changes, message):
    with pytest.raises(ConfigError) as caught:
        operations(A, B | changes, END)
    assert str(caught.value).startswith(f"network: operations.1.{message}")


@pytest.mark.parametrize("each, message", [
    ([A, B | {"kind": "add"}, END],
     "operations: kind must be one of conv, sum, map, cell, not 'add'"),
    ([A, 7, END], "operations: must be tables, not 7"),
    (7, "operations: must be a list, not 7"),
    ([], "operations: must have at least 1 items"),
    ([A, *(conv(f"c{k}", 4, 3, 2) for k in range(MAX_OPERATIONS - 1)), END],
     "operations: must have at most 256 items"),
])
def test_what_is_no_list_of_operations_is_refused(each, message):
    with pytest.raises(ConfigError) as caught:
        network([], operations=each)
    assert str(caught.value).startswith(f"network: {message}")


def test_bounds_that_are_reached_are_allowed():
    many = [conv(f"c{k}", 4, 3, 2) for k in range(MAX_OPERATIONS - 1)]
    found = operations(*many, END, height=256, width=4096, channels=64)
    assert len(found.operations) == MAX_OPERATIONS
    parts = [conv(f"c{k}", 64, 1, 1) for k in range(64)]
    wide = operations(*parts, total("end", 2, 1, inputs=[part["name"] for part in parts]))
    assert wide.source(wide.operations[-1]).channels == MAX_CHANNELS
    first, second = conv("a", 4096, 1, 1, kernel=1), conv("b", 4096, 1, 1, kernel=1)
    large = operations(first, second, total("end", 4093, 1))  # 3 + 4096 + 4093 = 8192
    assert sum(weight_count(each, large.source(each).channels)
               for each in large.operations) == MAX_WEIGHTS
    with pytest.raises(ConfigError, match="weights must be at most 33554432 in all, not 33558528"):
        operations(first, second, total("end", 4094, 1))


def test_defaults_of_an_operation():
    found = ConvConfig(name="a", inputs=("pixels",), channels=4, weight_bits=3, code_bits=2)
    assert (found.kernel, found.groups, found.pool, found.gate) == (3, 1, False, None)
    assert (SumConfig(name="s", channels=2, weight_bits=1).output, SumConfig.kernel) == ("class", 1)
