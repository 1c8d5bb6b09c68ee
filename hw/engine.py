"""The engine: pixels in, results out, any program that fits the machine in between."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from export.hardware import Hardware
from export.pack import Images
from hw.array import SystolicArray
from hw.epilogue import Epilogue, probe_layout
from hw.feeder import Feeder
from hw.frame import Frame, pixel_shape
from hw.loader import Loader, word_layout
from hw.memory import ActivationMemory
from hw.output import Output, result_layout
from hw.pixels import PixelInput
from hw.records import Records
from hw.rings import Rings
from hw.sequencer import Sequencer
from hw.weights import WeightFeeder


class Engine(wiring.Component):
    """Runs programs on a systolic array, frame after frame, without reset in between.

    A frame takes :attr:`export.cost.Cost.frame_cycles` cycles from `busy` to its result, which is
    held until it is taken; the next frame's pixels are accepted once the first operation has read
    this one's or, with two buffers, has begun, and it is in work until it comes to its last
    operation while a result waits.

    With `framed`, pixels are marked where a frame ends, and a frame of another length is dropped.

    Members
    -------
    pixels : In(stream of pixel_shape)          raster order, channel 0 (red) lowest
    result : Out(stream of result_layout)       class and its score, or words
    slot : In(range(programs))      the program of the next frame, from its first pixel on; if
                            there are several
    clip : In(1)            the next frame begins a clip, from its first pixel on; if maps lie in
                            rings
    load : In(stream of word_layout)            words of program images; of RAM only
    load_error : Out(1)     ... one was refused, for a cycle
    unloaded : Out(1)       the selected program is none; of RAM only
    frame_error : Out(2)    a frame was dropped: too short, too long, for a cycle; of framed pixels
    probe : Out(probe_layout)                   every code that is written; may be left open
    busy : Out(1)           a frame is in work; low for a cycle between two
    layer : Out(range(layers))      ... and this operation of its program; of one bit at least
    """

    pixels: stream.Interface
    result: stream.Interface

    def __init__(self, hardware: Hardware, images: Images, framed: bool = False):
        self.hardware, self.images, self.framed = hardware, images, framed
        ram = hardware.memory == "ram"
        super().__init__({
            "pixels": In(stream.Signature(pixel_shape(hardware, framed))),
            "result": Out(stream.Signature(result_layout(hardware))),
            **({"slot": In(range(hardware.programs))} if hardware.programs > 1 else {}),
            **({"load": In(stream.Signature(word_layout(hardware))), "load_error": Out(1),
                "unloaded": Out(1)} if ram else {}),
            **({"frame_error": Out(2)} if framed else {}),
            **({"clip": In(1)} if hardware.clocks else {}),
            "probe": Out(probe_layout(hardware)),
            "busy": Out(1),
            "layer": Out(range(max(2, hardware.layers))),  # a port needs a bit
        })

    def elaborate(self, platform):
        m = Module()
        hardware, images = self.hardware, self.images
        m.submodules.sequencer = sequencer = Sequencer(hardware, images.tiles, images.layers)
        m.submodules.records = records = Records(hardware, images.records)
        m.submodules.pixels = pixels = PixelInput(hardware)
        m.submodules.memory = memory = ActivationMemory(hardware)
        m.submodules.feeder = feeder = Feeder(hardware)
        m.submodules.weights = weights = WeightFeeder(hardware, images.weights, images.seeds)
        m.submodules.array = array = SystolicArray(hardware)
        m.submodules.epilogue = epilogue = Epilogue(hardware, images.biases)
        m.submodules.output = output = Output(hardware)
        layer = sequencer.layer
        # What is far from the sequencer has the descriptor, and word of it, from registers nearby.
        late_layer = Signal.like(layer, reset_less=True)
        late_fetch = Signal()
        late_restart = Signal()
        m.d.sync += [late_layer.eq(layer), late_fetch.eq(sequencer.fetch),
                     late_restart.eq(sequencer.restart)]

        granted = ~epilogue.write.valid
        if hardware.folds:  # what folds pixels makes the way longer, so it begins at a register
            granted = Signal(init=1)
            m.d.sync += granted.eq(~epilogue.writes)
        self._take_pixels(m, records, pixels, records.accept & pixels.granted)
        if hardware.clocks:
            self._count_frames(m, records, sequencer, pixels, epilogue)
        if hardware.memory == "ram":
            self._load(m, records, sequencer, [records, sequencer, weights, epilogue])
        read = sequencer.pixels_read
        if hardware.pixel_buffers > 1:
            # The other buffer is free. The epilogue is the last to look at the frame's record, a
            # cycle later: that is the last one in which it is there, see `Records`.
            read = late_restart
            m.d.comb += pixels.buffer.eq(~sequencer.buffer)
        wiring.connect(m, output.result, wiring.flipped(self.result))
        m.d.comb += [
            # The epilogue never waits; pixels use the cycles that it leaves.
            memory.write.eq(Mux(epilogue.write.valid, epilogue.write, pixels.write)),
            pixels.granted.eq(granted),
            pixels.record.eq(records.record),
            sequencer.pixels_ready.eq(pixels.ready),
            pixels.read.eq(read),
            sequencer.record.eq(records.record), sequencer.number.eq(records.number),

            feeder.layer.eq(layer), feeder.step.eq(sequencer.step),
            memory.address.eq(feeder.address), feeder.data.eq(memory.data),
            weights.layer.eq(late_layer), weights.step.eq(sequencer.step),
            weights.restart.eq(late_restart), weights.record.eq(records.record),
            weights.fetch.eq(late_fetch),

            array.tail.eq(layer.tail),
            array.acts.eq(feeder.acts), array.control.eq(feeder.control),
            array.rows.eq(weights.rows), array.weight_control.eq(weights.control),

            epilogue.restart.eq(late_restart), epilogue.record.eq(records.record),
            epilogue.fetch.eq(late_fetch),
            epilogue.layer.eq(late_layer), epilogue.index.eq(sequencer.index),
            epilogue.start.eq(array.start), epilogue.sums.eq(array.sums),
            sequencer.done.eq(epilogue.done),

            output.fetch.eq(sequencer.fetch), output.layer.eq(layer),
            output.walk.eq(epilogue.leaving.walk), output.emit.eq(epilogue.leaving.valid),
            output.values.eq(epilogue.leaving["values"]), output.best.eq(epilogue.best),
            output.finished.eq(sequencer.finished), sequencer.output_free.eq(output.free),

            self.probe.eq(epilogue.probe),
            self.busy.eq(sequencer.busy), self.layer.eq(sequencer.index),
        ]
        for k, precision in enumerate(hardware.array.precisions):
            m.d.comb += array.mode[k].eq(layer.mode == precision)
        return m

    def _take_pixels(self, m: Module, records: Records, pixels: PixelInput, accept):
        """Through the frame check, where there is something to check or to fold."""
        if hasattr(self, "slot"):
            m.d.comb += records.program.eq(self.slot)
        if not self.framed and all(each.fold == 1 for each in self.hardware.pixels):
            m.d.comb += [
                pixels.pixels.valid.eq(self.pixels.valid & accept),
                self.pixels.ready.eq(pixels.pixels.ready & accept),
                pixels.pixels.payload.eq(self.pixels.payload),
                records.taken.eq(self.pixels.valid & self.pixels.ready),
                records.free.eq(pixels.read),
            ]
            return
        m.submodules.frame = frame = Frame(self.hardware, self.framed)
        wiring.connect(m, wiring.flipped(self.pixels), frame.pixels)
        wiring.connect(m, frame.positions, pixels.pixels)
        m.d.comb += [
            frame.record.eq(records.record), frame.accept.eq(accept),
            frame.read.eq(pixels.read), pixels.drop.eq(frame.dropped),
            records.taken.eq(frame.taken), records.free.eq(pixels.read | frame.dropped),
        ]
        if self.framed:
            m.d.comb += self.frame_error.eq(frame.short | frame.long << 1)

    def _count_frames(self, m: Module, records: Records, sequencer: Sequencer, pixels: PixelInput,
                      epilogue: Epilogue):
        m.submodules.rings = rings = Rings(self.hardware)
        m.d.comb += [
            rings.clip.eq(self.clip), rings.taken.eq(records.taken), rings.free.eq(records.free),
            rings.number.eq(records.number), rings.begin.eq(sequencer.restart),
            sequencer.rings.eq(rings.now),
        ]
        if self.hardware.cells:
            m.d.comb += epilogue.first.eq(sequencer.first)
        if self.hardware.pixel_frames > 1:
            m.d.comb += pixels.copy.eq(rings.next_copy)

    def _load(self, m: Module, records: Records, sequencer: Sequencer, units: list):
        m.submodules.loader = loader = Loader(self.hardware)
        wiring.connect(m, wiring.flipped(self.load), loader.words)
        m.d.comb += [unit.fill.eq(loader.fill) for unit in units]
        pending, busy = loader.users[0], loader.users[1]
        m.d.comb += [
            self.load_error.eq(loader.refused), self.unloaded.eq(records.unloaded),
            pending.valid.eq(records.pending), pending.number.eq(records.number),
            pending.record.eq(records.record),
            busy.valid.eq(sequencer.busy), busy.number.eq(sequencer.runs),
            busy.record.eq(sequencer.running),
        ]
