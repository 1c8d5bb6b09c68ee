"""The quantized encoder in PyTorch, built from the same configuration as the hardware.

Every tensor between layers holds integers (codes, pixels), and so do the weights inside the
convolutions; in float32 a forward pass in evaluation mode therefore computes exactly what the
golden model and the hardware compute.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.config import TrainConfig
from export.network import PIXELS, NetworkConfig, Operation, walk
from model.cell import QuantCell
from model.gates import Floor, gate, max_pool
from model.parts import SPREAD, Coded, Head, MapHead, QuantConv, QuantVector, Select, fold
from model.quant import MOMENTUM, STICKY, QuantWeight, Shifted

__all__ = ["MOMENTUM", "SPREAD", "STICKY", "Encoder", "Head", "MapHead", "QuantConv", "QuantWeight",
           "Select", "calibrate", "fold"]

CELL_ROUNDS = 3  # in which a cell's statistics settle
DEFAULT_RECIPE = TrainConfig()


class Encoder(nn.Module):
    """The network of a configuration: pixels (n, channels, h, w), 0 ... 255, to what it gives.

    That is a score for each class, in evaluation mode an integer, the sum over the last map; or a
    map of codes; or of values, see :class:`MapHead`. `parts` are its operations by name.

    If the network reads clips, pixels are (n, frames, channels, h, w), and the second dimension of
    each result counts the ticks at which it is computed.
    """

    def __init__(self, network: NetworkConfig, recipe: TrainConfig = DEFAULT_RECIPE):
        super().__init__()
        self.network, self.adds = network, recipe.residuals == "add"
        self.parts = nn.ModuleDict({each.name: self._part(each, recipe)
                                    for each in network.operations
                                    if not self.adds or not _selects(each)})
        if network.output == "codes":
            # The first filters have to say how bright the pixels are. If all batches had the same
            # mean, nobody could.
            self.parts[network.operations[0].name].centred = False
            for conv in self.convs:
                conv.steady = True
        self.quantize(weights=True, codes=True)

    def _part(self, operation: Operation, recipe: TrainConfig) -> QuantWeight:
        network, source = self.network, self.network.source(operation)
        if operation.kind == "conv":
            return QuantConv(operation, source.channels, network.pad_of(operation), recipe)
        if _selects(operation):
            return Select(operation, source.channels, recipe)
        if operation.kind == "cell":
            return QuantCell(operation, recipe)
        if operation.makes_codes:
            return QuantVector(operation, source.channels, recipe)
        if operation.kind == "map":
            return MapHead(operation, source.channels, recipe)
        spread = max(SPREAD[network.by_name[name].code_bits] for name in operation.inputs)
        return Head(operation, source.channels, source.pixels, spread, recipe)

    @property
    def convs(self) -> list[QuantConv]:
        return [part for part in self.parts.values() if isinstance(part, QuantConv)]

    @property
    def head(self) -> Head | QuantConv | MapHead:
        """What gives the result."""
        return self.parts[self.network.operations[-1].name]

    def quantize(self, *, weights: bool, codes: bool, cells: bool = True):
        """Whether weights and codes are rounded to their levels, and in `cells` too; all are,
        unless told.

        Codes that leave always are: who reads them would soon live on what rounding takes away.
        """
        for part in self.parts.values():
            part.round_weights = weights
            if isinstance(part, Select):
                part.round_selects = codes
            elif isinstance(part, QuantCell):
                part.round_weights, part.round_codes = weights and cells, codes and cells
            elif isinstance(part, Coded):
                part.round_codes = (codes or part is self.head) and not self.adds
        self.round_reads = codes and self.adds

    def read(self, operation: Operation, inputs: list[Tensor]) -> Tensor:
        """What an operation sees; where residuals are added, maps are real, y - 1/2."""
        x = inputs[0] if len(inputs) == 1 else torch.cat(inputs, -3)
        if operation.bands > 1:  # rows are those of all bands: band, then row
            x = x.unflatten(-2, (operation.bands, -1)).transpose(-4, -3).flatten(-4, -3)
        return Floor.apply(x + 0.5) if self.round_reads else x

    def seen(self, operation: Operation, inputs: list[Tensor]) -> Tensor:
        """What the operation's part takes: of clips each of its ticks, (n t, channels, h, w).

        A cell takes (n, t, channels, 1, 1), a convolution of three frames (n, channels, t, h, w)
        from the frame on that lies two before the first tick's.
        """
        network = self.network
        if not network.timed:
            return self.read(operation, inputs)
        if operation.frames > 1:
            edge = (0, 0, 0, 0, operation.frames - 1, 0)
            x = self.read(operation, inputs).transpose(1, 2)
            x = F.pad(x, edge, value=network.pad_of(operation))
            return x[:, :, operation.every - 1:]
        steps = [network.periods[operation.name] // network.periods[name]
                 for name in operation.inputs]
        x = self.read(operation, [x[:, step - 1::step]
                                  for x, step in zip(inputs, steps, strict=True)])
        return x if operation.kind == "cell" else x.flatten(0, 1)

    def apply_operation(self, operation: Operation, inputs: list[Tensor], skip: Tensor | None,
                        passed: Tensor | None) -> Tensor | None:
        """One operation's result; none of a sum whose mux is an adder, for comparison."""
        if operation.name not in self.parts:
            return None
        if not self.network.timed:
            return self._result(operation, inputs, skip, passed)
        periods = self.network.periods
        clips, ticks = inputs[0].shape[:2]
        ticks //= periods[operation.name] // periods[operation.inputs[0]]
        if not ticks:  # the clip is too short
            shape = self.network.shapes[operation.name]
            scores = operation.kind == "sum" and not operation.makes_codes
            return inputs[0].new_zeros(
                (clips, 0, shape.channels, *(() if scores else shape.size)))
        skip, passed = (None if x is None else x.flatten(0, 1) for x in (skip, passed))
        x = self._result(operation, inputs, skip, passed)
        return x if operation.kind == "cell" else x.unflatten(0, (clips, ticks))

    def _result(self, operation: Operation, inputs: list[Tensor], skip: Tensor | None,
                passed: Tensor | None) -> Tensor:
        part = self.parts[operation.name]
        x = part(self.seen(operation, inputs))
        if operation.kind != "conv" or not operation.gate:
            return x
        skip_bits = self.network.by_name[operation.skip].code_bits
        x = gate(operation, x, skip, skip_bits, passed, part.round_codes, self.adds)
        return max_pool(x) if operation.pool else x

    def folded(self, x: Tensor) -> Tensor:
        """Pixels as the first operation reads them."""
        if not self.network.timed:
            return fold(x, self.network.fold)
        frames = fold(x.flatten(0, 1), self.network.fold)
        return frames.contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])

    def forward(self, x: Tensor, start: str = PIXELS, stop: str | None = None) -> Tensor:
        """Of the pixels, or of what the operation `start` gives: the result, or that of `stop`."""
        given = self.folded(x) if start == PIXELS else x
        results = walk(self.network, given, self.apply_operation, keep=False, start=start,
                       stop=stop)
        return results[stop or self.head.layer.name]


def _selects(operation: Operation) -> bool:
    return operation.kind == "sum" and operation.output == "select"


@torch.no_grad()
def calibrate(encoder: Encoder, images: Tensor, batch: int = 250,
              biases: dict[str, Tensor] | None = None, start: str = PIXELS,
              stop: str | None = None):
    """Replaces the running statistics by those of `images`, in exact float32, layer by layer.

    In place of images may be what the operation `start` gives, for those behind it; `stop` may be
    the last one.
    Shifts stay, and what is learned does, unless the hardware's `biases` are given, which then do.
    Cells are run several times, as their sums depend on them. The statistics of training come from
    bf16 sums and a moving network; these are the ones that are exported. (Codes themselves are
    exact in bfloat16.)
    """
    encoder.eval()

    def apply(operation: Operation, inputs, skips, selects) -> list[Tensor] | None:
        """As the encoder's, for lists of batches."""
        part = encoder.parts[operation.name] if operation.name in encoder.parts else None
        if part is not None and biases:
            part.set_bias(biases[operation.name])
        if part is None or isinstance(part, Head):
            return None
        batches = list(zip(*inputs, strict=True))
        for _ in range(CELL_ROUNDS if operation.kind == "cell" else 1):
            _set_statistics(part, (
                part.accumulate(encoder.seen(operation, [x.float() for x in each]))
                for each in batches))
            if biases:
                part.set_bias(biases[operation.name])
        out = []
        for k, each in enumerate(batches):
            skip, passed = (None if of is None else of[k] for of in (skips, selects))
            codes = encoder.apply_operation(operation, [x.float() for x in each],
                                            None if skip is None else skip.float(), passed)
            out.append(codes if encoder.adds or _selects(operation) else codes.to(torch.bfloat16))
        return out

    given = encoder.folded(images) if start == PIXELS else images
    walk(encoder.network, list(given.split(batch)), apply, keep=False, start=start,
         stop=stop)


def _set_statistics(part: Shifted | Select, batches):
    """Mean of each channel, and the variance around it over all channels."""
    if isinstance(part, QuantCell):
        mean, square = part.moments(torch.cat([acc.flatten(0, 1) for acc in batches]).double())
        part.mean.copy_(mean)
        part.square.copy_(square)
        return
    if isinstance(part, Select):
        sums = torch.cat(list(batches)).double()
        part.mean.copy_(sums.mean(0))
        part.square.copy_((sums - sums.mean(0)).square().mean())
        return
    total, square, count = 0.0, 0.0, 0
    for acc in batches:
        acc = acc.double()
        total, square = total + acc.sum((0, 2, 3)), square + acc.square().sum((0, 2, 3))
        count += acc.numel() // acc.shape[1]
    part.mean.copy_(total / count)
    part.square.copy_((square / count - (total / count).square()).mean())
