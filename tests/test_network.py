"""Operations: short forms, defaults, and the one line that each mistake gets."""

import pytest

from export.config import ConfigError, parse_config
from export.network import NetworkConfig, walk
from tests.designs import conv
from tests.designs import network as network_of

SIZES = {"height": 6, "width": 5, "channels": 3}


def test_short_forms_are_written_out():
    short = network_of([conv("a", 4, 3, 3), conv("b", 4, 2, 2),
                        conv("c", 8, 1, 1, skip="a", gate="mux", select_bits=1),
                        conv("d", 4, 2, 2, skip="a", gate="mux_or")],
                       height=6, width=5, classes=7, classifier_bits=1)
    long = parse_config(SIZES | {"operations": [
        conv("a", 4, 3, 3),
        {"kind": "sum", "name": "c_select", "channels": 8, "weight_bits": 1, "output": "select"},
        {"kind": "sum", "name": "d_select", "channels": 4, "weight_bits": 2, "output": "select"},
        conv("b", 4, 2, 2, inputs=["a"]),
        conv("c", 8, 1, 1, skip="a", gate="mux", select="c_select"),
        conv("d", 4, 2, 2, skip="a", gate="mux_or", select="d_select"),
        {"kind": "sum", "name": "classifier", "channels": 7, "weight_bits": 1}]},
        "network", NetworkConfig)
    assert short == long
    assert parse_config(short.model_dump(), "network", NetworkConfig) == short
    assert [each.inputs for each in short.operations] == [
        ("pixels",), ("a",), ("a",), ("a",), ("b",), ("c",), ("d",)]


def test_concatenated_shapes():
    network = network_of([conv("a", 4, 3, 3), conv("b", 6, 2, 2),
                          conv("c", 5, 2, 1, inputs=["b", "a"], groups=5)], height=6, width=5)
    last = network.by_name["c"]
    assert network.source(last).channels == 10 and network.peak(last) == 7
    assert [each.name for each in network.readers("a")] == ["b", "c"]


def test_a_walk_that_keeps_nothing_lets_results_go():
    network = network_of([conv("a", 4, 3, 3), conv("b", 4, 2, 2),
                          conv("c", 4, 2, 1, inputs=["a", "b"])], height=6, width=5)
    seen = []

    def apply(operation, inputs, skip, select):
        seen.append((operation.name, inputs))
        return operation.name

    assert walk(network, "x", apply, keep=False) == {"classifier": "classifier"}
    assert seen == [("a", ["x"]), ("b", ["a"]), ("c", ["a", "b"]), ("classifier", ["c"])]
    assert list(walk(network, "x", apply)) == ["pixels", "a", "b", "c", "classifier"]


def select(name="s", channels=4, **more):
    return {"kind": "sum", "name": name, "channels": channels, "weight_bits": 2,
            "output": "select", **more}


@pytest.mark.parametrize("layers, message", [
    ([conv("a", 4, 3, 3), conv("b", 4, 2, 2, inputs=["x"])],
     "b: must read maps of operations before it, not 'x'"),
    ([conv("a", 4, 3, 3), conv("b", 4, 2, 2, inputs=["b"])],
     "b: must read maps of operations before it, not 'b'"),
    ([conv("a", 4, 3, 3), conv("b", 4, 2, 2, inputs=["a", "a"])],
     "b: inputs must differ, not ['a', 'a']"),
    ([conv("a", 4, 3, 3, pool=True), conv("b", 4, 2, 2, pool=True),
      conv("c", 4, 2, 2, inputs=["a", "b"])],
     "c: inputs must have one size, not 3x2 and 1x1 of b"),
    ([conv("a", 4, 3, 3), conv("b", 4, 2, 2, inputs=["pixels"])],
     "only the first operation may read the pixels"),
    ([conv("a", 4, 3, 3), conv("b", 4, 2, 2), conv("c", 4, 2, 2, inputs=["a"])],
     "b: no operation reads it"),
    ([conv("a", 4, 3, 3), select(inputs=["a"]), conv("b", 4, 2, 2, inputs=["s"])],
     "b: must read maps of operations before it, not 's'"),
    ([conv("a", 4, 3, 3), select(channels=5, inputs=["a"]),
      conv("b", 4, 2, 2, inputs=["a"], skip="a", gate="mux", select="s")],
     "b: select must be a sum of 4 channels with output \"select\", not 's'"),
    ([conv("a", 4, 3, 3), select(output="class", inputs=["a"]),
      conv("b", 4, 2, 2, inputs=["a"], skip="a", gate="mux", select="s")],
     "the last operation, and no other, must be a sum whose output is a class, "
     "not ['s', 'classifier']"),
    ([conv("a", 4, 3, 3), *(conv(f"b{k}", 4000, 2, 2) for k in range(2)),
      conv("c", 4, 2, 2, inputs=["a", "b0", "b1"])],
     "c: inputs must have at most 4096 channels together, not 8004"),
])
def test_operations_that_do_not_fit_are_refused(layers, message):
    with pytest.raises(ConfigError) as error:
        parse_config(SIZES | {"layers": layers, "classes": 3}, "network", NetworkConfig)
    assert str(error.value) == f"network: {message}"


def test_a_map_of_too_many_positions_is_refused():
    with pytest.raises(ConfigError, match=r"height x width must be at most 1048576, not 4096x300"):
        parse_config({"height": 4096, "width": 300, "channels": 1, "classes": 2,
                      "layers": [conv("a", 4, 3, 3)]}, "network", NetworkConfig)
