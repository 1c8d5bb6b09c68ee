"""Weights that nobody stores: the states of a cellular automaton, from a seed.

MOGNET (Nguyen et al. 2022) generates the weights of a pointwise layer online with a cellular
automaton; its rule, seed and mapping are not known to us. Here a ring of cells steps once per block
of `outputs` x `inputs` weights, blocks running along the inputs first, so hardware that takes
one block per cycle needs one automaton and no memory. A binary weight is one cell (1 means -1), a
ternary one two or, with few zeros, three: it is not zero if the first, or one of the first two, is
set, and negative if the last is.
"""

import numpy as np

from export.network import ConvConfig

CELLS = {"binary": 1, "half": 2, "quarter": 3}  # per weight, by mapping; named for the zeros' share


def step(state: np.ndarray, rule: int) -> np.ndarray:
    """The next state uint8 [cells] of a ring; bit 4 a + 2 b + c of `rule` follows cells a b c."""
    left, right = np.roll(state, 1), np.roll(state, -1)
    return (rule >> (4 * left + 2 * state + right) & 1).astype(np.uint8)


def weights(seed: np.ndarray, rule: int, mapping: str, channels: int, inputs: int,
            block: tuple[int, int]) -> np.ndarray:
    """Weights int8 [channels, inputs]; `seed` uint8 [block outputs * block inputs * CELLS]."""
    outputs, width = block
    tiles, words = -(-channels // outputs), -(-inputs // width)
    found = np.zeros((tiles, words, outputs, width), np.int8)
    state = seed
    for tile in range(tiles):
        for word in range(words):
            cells = state.reshape(outputs, width, CELLS[mapping])
            some = 1 if mapping == "binary" else cells[..., :-1].any(-1)
            found[tile, word] = some * (1 - 2 * cells[..., -1].astype(np.int8))
            state = step(state, rule)
    rows = found.transpose(0, 2, 1, 3).reshape(tiles * outputs, words * width)
    return rows[:channels, :inputs]


def cells(layer: ConvConfig) -> int:
    """Cells of the automaton of a layer with a generator, and so bits of its seed."""
    generator = layer.generator
    return generator.outputs * generator.inputs * CELLS[generator.mapping]


def generated(layer: ConvConfig, seed: np.ndarray, inputs: int) -> np.ndarray:
    """The layer's weights int8 [channels, inputs]."""
    generator = layer.generator
    return weights(seed, generator.rule, generator.mapping, layer.channels, inputs,
                   (generator.outputs, generator.inputs))


def likeness(rows: np.ndarray) -> float:
    """Root mean square of the cosines between different rows."""
    length = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    cosines = (rows / length) @ (rows / length).T
    return float(np.sqrt(np.square(cosines - np.diag(np.diag(cosines))).mean()))


def survey(size: int, rules: list[int]) -> list[list]:
    """Rows of mapping, rule, zeros, positive, likeness of rows and rank: mean of three seeds.

    Of SIZE x SIZE weights in blocks of 8 x 8; rule None stands for independent cells.
    """
    rows = []
    for mapping, count in CELLS.items():
        for rule in [None, *rules]:
            found = []
            for number in range(3):
                rng = np.random.default_rng(number)
                if rule is None:
                    state = rng.integers(0, 2, size * size * count).astype(np.uint8)
                    made = weights(state, 0, mapping, size, size, (size, size))
                else:
                    state = rng.integers(0, 2, 64 * count).astype(np.uint8)
                    made = weights(state, rule, mapping, size, size, (8, 8))
                found.append([(made == 0).mean(), (made > 0).mean(), likeness(made),
                              np.linalg.matrix_rank(made)])
            rows.append([mapping, rule, *np.mean(found, 0)])
    return rows
