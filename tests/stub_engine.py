"""A stand-in for the engine, of few cycles and with all of its ports; :func:`result_words` says
what leaves it."""

from amaranth import Array, Cat, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

PIXELS = 6, 9  # of a frame, by program
WORK = 7  # cycles of a frame
STORED = 4  # words that can be loaded: keys of the two programs, 0 if there is none, and two more
WINDOW = 3  # bits of a load address


class StubEngine(wiring.Component):
    """Sums the pixels of a frame and adds the key of its program.

    The result is a class and its score (`words` is 0) or so many words.
    """

    def __init__(self, words: int = 0, ram: bool = True):
        self.words, self.ram = words, ram
        result = data.StructLayout({"data": 32, "last": 1} if words else
                                   {"class": range(5), "score": signed(20)})
        members = {
            "pixels": In(stream.Signature(data.StructLayout({"data": 24, "last": 1}))),
            "result": Out(stream.Signature(result)),
            "probe": Out(8), "busy": Out(1), "layer": Out(1), "frame_error": Out(2),
        }
        if ram:
            members |= {
                "slot": In(1), "unloaded": Out(1), "load_error": Out(1),
                "load": In(stream.Signature(data.StructLayout({"address": WINDOW, "data": 32}))),
            }
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        pixels, result = self.pixels, self.result
        program = Signal()
        stored = Array(Signal(32, name=f"stored_{k}", reset_less=True) for k in range(STORED))
        key = stored[program] if self.ram else 0
        if self.ram:
            self._load(m, stored)
            m.d.comb += self.unloaded.eq(stored[self.slot] == 0)

        count, total, step = Signal(range(max(PIXELS))), Signal(32), Signal(range(16))
        chosen, final = Signal(), Signal()
        m.d.comb += [chosen.eq(program), final.eq(count == Array(PIXELS)[chosen] - 1)]
        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += pixels.ready.eq(1)
                if self.ram:
                    with m.If(count == 0):
                        m.d.comb += [pixels.ready.eq(~self.unloaded), chosen.eq(self.slot)]
                with m.If(pixels.valid & pixels.ready):
                    m.d.sync += [program.eq(chosen), count.eq(count + 1),
                                 total.eq(total + pixels.p.data)]
                    with m.If(final | pixels.p.last):
                        m.d.sync += count.eq(0)
                        m.next = "WORK"
                    with m.If(final != pixels.p.last):
                        m.d.sync += total.eq(0)
                        m.d.comb += self.frame_error.eq(Cat(pixels.p.last, final))
                        m.next = "TAKE"
                        with m.If(~pixels.p.last):
                            m.next = "SWALLOW"
            with m.State("SWALLOW"):
                m.d.comb += pixels.ready.eq(1)
                with m.If(pixels.valid & pixels.p.last):
                    m.next = "TAKE"
            with m.State("WORK"):
                m.d.comb += self.busy.eq(1)
                m.d.sync += step.eq(step + 1)
                with m.If(step == WORK - 1):
                    m.d.sync += step.eq(0)
                    m.next = "RESULT"
            with m.State("RESULT"):
                m.d.comb += result.valid.eq(1)
                if self.words:
                    m.d.comb += [result.valid.eq(step[0]),  # a pause before each word
                                 result.p.data.eq(total + key + (step >> 1)),
                                 result.p.last.eq(step == 2 * self.words - 1)]
                    with m.If(result.ready | ~result.valid):
                        m.d.sync += step.eq(step + 1)
                else:
                    m.d.comb += [result.p["class"].eq(total[:2]), result.p.score.eq(total + key)]
                with m.If(result.valid & result.ready & (result.p.last if self.words else 1)):
                    m.d.sync += [total.eq(0), step.eq(0)]
                    m.next = "TAKE"
        return m

    def _load(self, m: Module, stored: Array):
        """A word every third cycle."""
        wait, wrong, load = Signal(2), Signal(), self.load
        m.d.comb += load.ready.eq(wait == 2)
        m.d.sync += [wrong.eq(0), self.load_error.eq(wrong)]
        with m.If(load.valid):
            m.d.sync += wait.eq(wait + 1)
        with m.If(load.valid & load.ready):
            m.d.sync += wait.eq(0)
            with m.If(load.p.address < STORED):
                m.d.sync += stored[load.p.address].eq(load.p.data)
            with m.Else():
                m.d.sync += wrong.eq(1)


def result_words(pixels: list[int], key: int, words: int) -> list[int]:
    """What leaves for a frame, the score sign-extended."""
    total = sum(pixels)
    if words:
        return [(total + key + k) % 2**32 for k in range(words)]
    score = (total + key) % 2**20
    return [total % 4, (score - (score >> 19 << 20)) % 2**32]
