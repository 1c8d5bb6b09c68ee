"""The engine: pixels in, classes out, any program that fits the machine in between."""

from amaranth import Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import Hardware
from export.pack import Images
from hw.array import SystolicArray
from hw.epilogue import Epilogue, probe_layout
from hw.feeder import Feeder
from hw.head import result_layout
from hw.memory import ActivationMemory
from hw.pixels import PixelInput
from hw.sequencer import Sequencer
from hw.weights import WeightFeeder


class Engine(wiring.Component):
    """Runs one network on a systolic array, frame after frame, without reset in between.

    A frame takes :attr:`export.cost.Cost.frame_cycles` cycles from `busy` to its result, which is
    held until it is taken; the next frame's pixels are accepted once the first operation has read
    this one's.

    Members
    -------
    pixels : In(stream of 8 * channels bits)    raster order, channel 0 (red) lowest
    result : Out(stream of result_layout)       class and its score
    probe : Out(probe_layout)                   every code that is written; may be left open
    busy : Out(1)                               a frame is in work; low for a cycle between two
    layer : Out(range(layers))                  ... and this is its layer
    """

    pixels: stream.Interface
    result: stream.Interface

    def __init__(self, hardware: Hardware, images: Images):
        self.hardware, self.images = hardware, images
        super().__init__({
            "pixels": In(stream.Signature(8 * hardware.pixels.channels)),
            "result": Out(stream.Signature(result_layout(hardware))),
            "probe": Out(probe_layout(hardware)),
            "busy": Out(1),
            "layer": Out(range(hardware.operations)),
        })

    def elaborate(self, platform):
        m = Module()
        hardware, images = self.hardware, self.images
        m.submodules.sequencer = sequencer = Sequencer(hardware, images.tiles, images.layers)
        m.submodules.pixels = pixels = PixelInput(hardware)
        m.submodules.memory = memory = ActivationMemory(hardware)
        m.submodules.feeder = feeder = Feeder(hardware)
        m.submodules.weights = weights = WeightFeeder(hardware, images.weights, images.seeds)
        m.submodules.array = array = SystolicArray(hardware)
        m.submodules.epilogue = epilogue = Epilogue(hardware, images.biases)
        layer = sequencer.layer

        wiring.connect(m, wiring.flipped(self.pixels), pixels.pixels)
        m.d.comb += [
            # The epilogue never waits; pixels use the cycles that it leaves.
            memory.write.eq(Mux(epilogue.write.valid, epilogue.write, pixels.write)),
            pixels.granted.eq(~epilogue.write.valid),
            sequencer.pixels_ready.eq(pixels.ready),
            pixels.read.eq(sequencer.pixels_read),

            feeder.layer.eq(layer), feeder.step.eq(sequencer.step),
            memory.address.eq(feeder.address), feeder.data.eq(memory.data),
            weights.layer.eq(layer), weights.step.eq(sequencer.step),
            weights.restart.eq(sequencer.restart), weights.fetch.eq(sequencer.fetch),

            array.tail.eq(layer.tail),
            array.acts.eq(feeder.acts), array.control.eq(feeder.control),
            array.rows.eq(weights.rows), array.weight_control.eq(weights.control),

            epilogue.restart.eq(sequencer.restart), epilogue.fetch.eq(sequencer.fetch),
            epilogue.layer.eq(layer), epilogue.index.eq(sequencer.index),
            epilogue.start.eq(array.start), epilogue.sums.eq(array.sums),
            sequencer.done.eq(epilogue.done),

            self.result.valid.eq(sequencer.result_valid),
            sequencer.result_ready.eq(self.result.ready),
            self.result.payload.eq(epilogue.result),
            self.probe.eq(epilogue.probe),
            self.busy.eq(sequencer.busy), self.layer.eq(sequencer.index),
        ]
        for k, precision in enumerate(hardware.array.precisions):
            m.d.comb += array.mode[k].eq(layer.mode == precision)
        return m
