"""What a program takes, without any weight: cycles, exactly, and bits."""

from dataclasses import dataclass
from functools import cached_property

from export.config import Config
from export.descriptor import layer_fields, tile_fields
from export.hardware import (
    BUFFER_CYCLES,
    CLUSTER,
    DRAIN_CYCLES,
    EPILOGUE_CYCLES,
    FEEDER_CYCLES,
    LOOK_CYCLES,
    PE_CYCLES,
    TOTALS_CYCLES,
    VECTOR_CYCLES,
    WRITE_CYCLES,
    Hardware,
    generator_format,
)
from export.network import PIXELS
from export.program import LayerProgram, Program
from export.words import operands


@dataclass(frozen=True)
class Cost:
    """Cycles and bits of `program` on `hardware`."""

    program: Program
    hardware: Hardware

    @classmethod
    def of(cls, config: Config) -> "Cost":
        """On the smallest machine that runs the configured network."""
        program = Program(config)
        return cls(program, Hardware.of([program]))

    # ---- cycles

    def tile_cycles(self, layer: LayerProgram) -> int:
        """Cycles from tile to tile."""
        return max(layer.steps * layer.digits, self.hardware.array.min_period)

    def layer_cycles(self, layer: LayerProgram) -> int:
        """Cycles from the start of an operation to the start of the next one, exactly."""
        array = self.hardware.array
        fill = array.rows  # border flags of the first tile
        skew = DRAIN_CYCLES - (-array.columns // CLUSTER)  # columns begin cluster by cluster
        drain = array.rows * array.units
        end = EPILOGUE_CYCLES + WRITE_CYCLES
        if layer.summed:
            end = TOTALS_CYCLES + array.columns + layer.operation.makes_codes * VECTOR_CYCLES
        tiles = layer.pixel_tiles * layer.channel_tiles
        # Nobody waits behind the last tile, whose sums are on the drain in the cycle of `start`.
        return (self.hardware.sequencer_cycles + fill + (tiles - 1) * self.tile_cycles(layer)
                + layer.steps * layer.digits + FEEDER_CYCLES + PE_CYCLES + skew + drain + end - 1)

    def computed(self, frame: int) -> tuple[LayerProgram, ...]:
        """The operations that are computed at a frame of a clip, its first one 0."""
        return tuple(each for each in self.program.layers if (frame + 1) % 2**each.clock == 0)

    def cycles_at(self, frame: int) -> int:
        """Cycles of a frame of a clip; of one without a result, two to find that out."""
        layers = self.computed(frame)
        return (sum(map(self.layer_cycles, layers))
                + (LOOK_CYCLES if len(layers) < len(self.program.layers) else 0))

    @cached_property
    def frame_cycles(self) -> int:
        """Cycles of one frame, if its pixels are there and the result before it has left.

        Of a clip, that of a frame with a result: the longest.
        """
        return sum(map(self.layer_cycles, self.program.layers))

    @cached_property
    def output_cycles(self) -> int:
        """Cycles in which a result leaves if it is always taken at once."""
        network, last = self.program.config.network, self.program.layers[-1]
        if network.output == "class":
            return 2 if self.hardware.result_words else 1
        shape = network.shapes[last.name]
        size = 8 if network.output == "map" else last.operation.code_bits
        values = shape.pixels * shape.channels
        unit = self.hardware.array.unit
        units = -(-shape.channels // unit)
        reads = units + 2 if unit > 1 else 3 * units  # two cycles behind a new address
        takes = values if network.output == "map" else values * size
        return shape.pixels * reads + takes + -values * size % 32 + 1

    @property
    def output_wait(self) -> int:
        """Cycles in which the last operation waits until the frame before has left."""
        ahead = self.frame_cycles - self.layer_cycles(self.program.layers[-1])
        return max(0, self.output_cycles - 2 - ahead)

    @cached_property
    def input_cycles(self) -> int:
        """Cycles in which a frame's pixels come in, if they always do; see `written_units` too.

        A position takes its words and one more; the first of a row whose words have neighbours
        one, but then the pixel outside takes as many at the row's end. Of folded pixels, all rows
        of a block but its last take a cycle per pixel, the first of them while positions before
        are written.
        """
        first, fold = self.program.layers[0], self.program.config.network.fold
        height, width = self.program.config.network.shapes[PIXELS].size
        ahead = (fold - 1) * fold * width + fold  # pixels up to the first position of a row
        takes = first.digits * first.input_words + 1  # at least 4, so no less than `fold` pixels
        if first.taps_per_word == 1:  # from a row's first position to its last, and behind it
            row, end = (width - 1) * takes, takes
        elif width == 1:
            row, end = 0, 1 + takes
        else:
            row, end = fold + (width - 2) * takes, 2 * takes
        return ahead - 1 + height * row + (height - 1) * max(ahead, end) + end

    @property
    def written_units(self) -> int:
        """Cycles in which the next frame's pixels stand still, as codes are written instead.

        Those come in behind the first operation or, into a buffer of their own, beside it. What
        the last one makes is not written.
        """
        return self._written_units(self.program.layers)

    def _written_units(self, layers: tuple[LayerProgram, ...]) -> int:
        shapes, beside = self.program.config.network.shapes, self.hardware.pixel_buffers > 1
        return sum(shapes[layer.name].pixels * layer.map_tiles * self.hardware.array.units
                   for layer in (layers if beside else layers[1:])
                   if layer.operation.makes_codes and not layer.last)

    def period_at(self, frame: int) -> int:
        """Cycles from the start of a frame of a clip to that of the next one."""
        layers = self.computed(frame)
        first = self.layer_cycles(layers[0]) if layers else LOOK_CYCLES
        if self.hardware.pixel_buffers > 1:
            first = BUFFER_CYCLES
        wait = self.output_wait if layers and layers[-1].last else 0
        return 1 + max(self.cycles_at(frame) + wait,
                       first + self.input_cycles + self._written_units(layers))

    @cached_property
    def result_period(self) -> int:
        """Cycles from result to result: for each frame one to start it, and maybe a wait.

        Exactly, where frames are the bottleneck or their pixels, if these always come.
        """
        return sum(map(self.period_at, range(self.program.config.network.period)))

    @property
    def frame_period(self) -> int:
        """... and from frame to frame: of a clip on average, rounded up."""
        return -(-self.result_period // self.program.config.network.period)

    def array_use(self, layer: LayerProgram) -> float:
        """Multiply-accumulates done, per those that the array could do in the layer's cycles.

        At its word precision; a layer of pixels is charged for every digit.
        """
        array = self.hardware.array
        peak = (array.rows * array.columns * operands(layer.mode, array.words)
                * self.layer_cycles(layer))
        return layer.macs * layer.digits / peak

    @property
    def hidden_use(self) -> float:
        """Array use of the layers between the first and the sums, by their cycles."""
        hidden = [layer for layer in self.program.layers
                  if layer.digits == 1 and layer.operation.kind == "conv"]
        cycles = [self.layer_cycles(layer) for layer in hidden]
        used = sum(n * self.array_use(layer) for n, layer in zip(cycles, hidden, strict=True))
        return used / max(1, sum(cycles))

    @property
    def frame_use(self) -> float:
        """Share of what the array could do in a frame's period: input, drains, all operations.

        A product of a pixel counts once, as one of a code does.
        """
        period = self.program.config.network.period
        done = sum(self.array_use(layer) * self.layer_cycles(layer) / layer.digits
                   for frame in range(period) for layer in self.computed(frame))
        return done / self.result_period

    # ---- bits

    def weight_bits(self, layer: LayerProgram) -> int:
        """Bits of an operation's weights as the memory holds them."""
        return layer.weight_steps * self.hardware.array.columns * layer.stored_bits

    @cached_property
    def stored_bits(self) -> dict[str, int]:
        """Bits that the encoder must store, by the rule for "1 Mb"."""
        layers, hardware = self.program.layers, self.hardware
        tiles = sum(layer.channel_tiles for layer in layers)
        return {
            "weights": sum(map(self.weight_bits, layers)),
            "biases": tiles * hardware.array.columns * hardware.score_bits,
            "program": (tiles * sum(tile_fields(hardware).values())
                        + len(layers) * sum(layer_fields(hardware).values())),
            "seeds": sum(generator_format(layer).cells(hardware.array) for layer in layers
                         if layer.operation.generator),
        }

    @property
    def total_bits(self) -> int:
        return sum(self.stored_bits.values())

    @property
    def memory_bits(self) -> dict[str, int]:
        """Bits of the memories that are written while it runs."""
        hardware, array = self.hardware, self.hardware.array
        return {"activations": array.rows * hardware.activation_words * 6 * array.words,
                "skips": hardware.skip_words * 3 * array.unit,
                **({"states": hardware.state_words * hardware.state_bits * array.unit}
                   if hardware.cells else {}),
                "results": hardware.output_words * hardware.value_bits * array.unit}
