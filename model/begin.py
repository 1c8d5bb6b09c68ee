"""Lets a training begin with the integers of a network that was trained before.

Integers do not say which real numbers they were rounded from. Here these are drawn so that each
layer has a normal distribution, as weights have that are standardized, and every one of them is
rounded to its integer again. The first loss is therefore that of the network as it was exported.
"""

from pathlib import Path

import torch
from torch import Tensor

from export.artifact import Network
from export.checked import ConfigError
from export.file import load_network
from model.network import Encoder, calibrate
from model.parts import QuantConv
from model.quant import QuantWeight, scale_weight, standardize

TRIES, ROUNDS = 8, 300  # of other random numbers; each
MOVE = 0.02  # at first, in standard deviations; less and less, or it would swing
OTHER = "a training can begin with a network of its own design only, and this one is of another"


def first_network(path: Path, folder: Path, began: str | None, fresh: bool) -> Network | None:
    """What a `fresh` training in `folder` begins with; nothing if it goes on.

    Raises
    ------
    ConfigError
        If it is no network, or the training did not begin with it, but with that of digest `began`.
    """
    network = load_network(path)
    if fresh:
        return network
    if began != network.digest:
        raise ConfigError(f"{folder}: has a training that did not begin with {path}; move it away, "
                          f"or go on with it without --begin")
    return None


@torch.no_grad()
def begin_with(encoder: Encoder, network: Network, images: Tensor):
    """Sets all that is learned; in evaluation mode the encoder computes what `network` does then.

    The statistics are those of `images`, uint8 (n, c, h, w), or of clips. How sure its logits are
    is not in a network, so training has to find that again.

    Raises
    ------
    ConfigError
        If the network is another one; or if it comes from another trainer, and no weights are
        rounded to its own: where `steps` is "equalized", for instance, levels have to be about
        equally full, and a channel's weights have to have a mean near zero.
    """
    if network.config != encoder.network:
        raise ConfigError(OTHER)
    biases = {}
    for layer in network.layers:
        part, name = encoder.parts[layer.config.name], layer.config.name
        integers, bias = (torch.from_numpy(values.copy()).to(images.device, torch.float32)
                          for values in (layer.weight, layer.bias))
        if isinstance(part, QuantConv) and layer.seed is not None:
            part.seed.copy_(torch.from_numpy(layer.seed.copy()))
            part.weight.copy_(integers)
        elif wrong := _unround(part, integers.flatten(1)):
            raise ConfigError(f"{name}: {wrong} of {integers.numel()} weights cannot be rounded "
                              f"to what they are in steps that are \"{part.steps}\"")
        if hasattr(part, "shift"):
            part.shift.fill_(layer.shift)
        biases[name] = bias
    calibrate(encoder, images, biases=biases)


def freeze(encoder: Encoder):
    """Makes of what is learned a place for the integers of a network of convolutions."""
    encoder.requires_grad_(False).eval()
    for part in encoder.parts.values():
        weight = part.weight.detach()
        del part.weight
        part.register_buffer("weight", weight)


@torch.no_grad()
def set_integers(encoder: Encoder, network: Network):
    """Sets all numbers of an encoder that is frozen.

    Raises
    ------
    ConfigError
        If the network is another one.
    """
    if network.config != encoder.network:
        raise ConfigError(OTHER)
    for layer in network.layers:
        part = encoder.parts[layer.config.name]
        part.weight.copy_(torch.from_numpy(layer.weight.copy()).flatten(1))
        part.shift.fill_(layer.shift)
        part.mean.zero_()
        part.set_bias(torch.from_numpy(layer.bias.copy()))


def _unround(part: QuantWeight, integers: Tensor) -> int:
    """Real weights that are rounded to these integers; returns how many are not, of the last try.
    """
    for _ in range(TRIES):
        if not (wrong := _try_to_unround(part, integers)):
            break
    return wrong


def _try_to_unround(part: QuantWeight, integers: Tensor) -> int:
    """Once, from some random numbers."""
    count = integers.numel()
    order = (integers + 0.9 * torch.rand_like(integers)).flatten().argsort()
    normal = torch.special.ndtri((torch.arange(count, device=order.device) + 0.5) / count)
    weight = torch.empty_like(normal).index_put_((order,), normal).view(integers.shape)
    if part.log_step is not None:
        part.log_step.copy_(_learned_step(integers, normal.abs().sort().values).log())
    wanted = integers / 2 if part.bits == 1 else integers  # the middle of each level
    for k in range(ROUNDS):
        part.weight.copy_(standardize(weight, part.centred))
        wrong = part.levels().flatten(1) != integers
        if not wrong.any():
            break
        step = part.log_step.exp() if part.log_step is not None else None
        off = wanted - scale_weight(part.weight, part.bits, step)
        weight = torch.where(wrong, part.weight + MOVE * (1 - k / ROUNDS) * off.sign(), part.weight)
    return int(wrong.sum())


def _learned_step(integers: Tensor, sizes: Tensor) -> Tensor:
    """Of levels that are as full as these integers', `sizes` being the weights', sorted."""
    below = [(integers.abs() <= level).sum().item() for level in range(2)]
    edges = [sizes[min(count, len(sizes) - 1)] / (level + 0.5)
             for level, count in enumerate(below) if 0 < count < len(sizes)]
    return sum(edges) / len(edges) if edges else sizes[-1] / 0.5
