"""Trains the encoder of a network that gives codes, and its decoder with it.

The codes that leave are rounded from the start, with straight-through gradients. The rest of the
encoder begins with real numbers; then its codes are rounded, then its weights. The loss is the
logarithm of the squared error and 1 - MS-SSIM (Wang et al. 2003), in the shares of the recipe.
Some crops are decoded from their first channels of codes alone, so that these learn what matters
most. Writes under `build/NAME/train/`, see :mod:`model.steps`.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_msssim import ms_ssim
from torch import Tensor, nn

from export.artifact import Network
from export.checked import ConfigError
from export.codec import Patches, patches_of
from export.config import Config, parse_config
from export.decoder_file import Header
from export.network import ConvConfig
from model import decoder as decoders
from model.begin import freeze, set_integers
from model.convert import load_state
from model.decoder import Decoder, decode, only
from model.network import DEFAULT_RECIPE, MOMENTUM, Encoder, QuantConv
from model.pictures import crops, cut, join, load_pictures, random_patches
from model.quant import Fused
from model.reals import autocast, reals
from model.steps import StepRun, Validation
from model.train import learning_rate, optimizers_of, resuming
from model.transforms import fit_tables

SLOWEST = 0.002  # momentum of the statistics, at the end
DECODER = ".decoder.npz"  # in place of a network's suffix
LEARNED = 30000  # patches that tables are fitted to
FIRST = 16  # crops for the statistics of a training that begins with a network
LEAST = 161  # pixels each way, that MS-SSIM has its five scales


def framed(each: Tensor, patches: Patches) -> Tensor:
    """Patches (n, 3, side, side) as an encoder reads them, see :meth:`Patches.frames`."""
    if patches.together == 1:
        return each
    more = each[-1:].expand(-len(each) % patches.together, -1, -1, -1)
    across, block = patches.side // patches.block, patches.block
    blocks = torch.cat([each, more]).view(-1, patches.together, 3, across, block, across, block)
    return blocks.permute(0, 2, 3, 5, 4, 1, 6).reshape(
        -1, 3, block * across**2, block * patches.together)


def codes_map(encoder: nn.Module, pictures: Tensor, patches: Patches) -> Tensor:
    """Codes (n, channels, h / 8, w / 8) of pictures (n, 3, h, w), multiples of a patch."""
    n, _, height, width = pictures.shape
    x = framed(cut(pictures, patches.side), patches)
    codes = encoder(x.contiguous(memory_format=torch.channels_last))
    if patches.together > 1:
        codes = codes[:, :, 0].transpose(1, 2).reshape(-1, patches.channels, patches.grid,
                                                       patches.grid)
    count = height * width * n // patches.side**2
    return join(codes[:count], n, width // patches.side)


class Linear(nn.Module):
    """In place of an encoder, for comparison: one-bit compressed sensing, learned measurements.

    Bits are the signs of linear functions, in real numbers, of all pixels of a patch.
    """

    def __init__(self, patches: Patches):
        super().__init__()
        layer = ConvConfig(name="codes", channels=patches.bits, kernel=1, weight_bits=3,
                           code_bits=1)
        part = QuantConv(layer, 3 * patches.side**2, 0, DEFAULT_RECIPE)
        part.steady, part.centred, part.round_weights = True, False, False
        self.patches, self.convs = patches, nn.ModuleList([part])

    def quantize(self, **_):
        """Weights stay real numbers; codes are rounded."""

    def forward(self, x: Tensor) -> Tensor:
        codes = self.convs[0](F.pixel_unshuffle(x, self.patches.side))
        grid = self.patches.grid
        return codes.reshape(-1, self.patches.channels, grid, grid)


def patches_for(config: Config) -> Patches:
    """The patches of a design, one in a frame if what is in place of its network reads them."""
    patches = patches_of(config.network, config.name)
    return replace(patches, together=1, block=0) if config.codec.encoder == "linear" else patches


def models(config: Config, patches: Patches) -> tuple[Encoder | Linear, Decoder]:
    """An encoder and a decoder, untrained."""
    kind = config.codec.encoder
    encoder = Linear(patches) if kind == "linear" else Encoder(config.network)
    if kind == "transforms":
        freeze(encoder)
    return encoder, Decoder(patches, config.codec.decoder)


def load_trained(path: Path) -> tuple[str, Patches, Callable[[np.ndarray], np.ndarray]]:
    """Of a `final.pt`: its design's name, patches, and what pictures uint8 [H, W, 3] become by it.

    Raises
    ------
    ConfigError
        If it is none.
    """
    state = load_state(path)
    with resuming(path):
        config = parse_config(state["record"]["config"], str(path))
        patches = patches_for(config)
        encoder, decoder = models(config, patches)
        encoder.load_state_dict(state["encoder"])
        decoder.load_state_dict(state["decoder"])
    encoder.eval()

    def run(picture: np.ndarray) -> np.ndarray:
        codes = encode(encoder, torch.from_numpy(picture.transpose(2, 0, 1).copy()), patches)
        return decode(decoder, codes, *picture.shape[:2], patches.channels).permute(1, 2, 0).numpy()

    return config.name, patches, run


class Run(StepRun):
    """One training run: models, optimizers, position; everything that a resume needs."""

    def __init__(self, config: Config, folder: Path):
        recipe = config.codec
        self.patches = patches_for(config)
        if recipe.crop % self.patches.side or recipe.crop < LEAST:
            raise ConfigError(f"codec.crop must be a multiple of {self.patches.side}, and "
                              f"{LEAST} at least, not {recipe.crop}")
        super().__init__(recipe, folder)
        self.encoder, self.decoder = (each.to(memory_format=torch.channels_last)
                                      for each in models(config, self.patches))
        self.frozen = recipe.encoder == "transforms"
        if not self.frozen:
            self.optimizers = optimizers_of(self.encoder.parameters(), recipe.weight_decay)
        # The decoder's weights have a scale, which Muon would lose.
        self.optimizers.append(torch.optim.AdamW(self.decoder.parameters(), weight_decay=0.0))

    @property
    def models(self) -> dict:
        return super().models | {"decoder": self.decoder}

    def sample(self, pictures: list[Tensor]) -> Tensor:
        """The patches that statistics are made of at first."""
        generator = torch.Generator().manual_seed(self.recipe.seed)
        return cut(crops(pictures, FIRST, self.recipe.crop, generator), self.patches.side)

    def begin(self, network: Network, path: Path, data: list[Tensor]):
        """Begins with the decoder that lies beside the network, too; where none lies beside one of
        transforms, with what its bits mean."""
        beside = path.with_suffix(DECODER)
        if self.frozen:
            set_integers(self.encoder, network)
            self.began = network.digest
            if not beside.exists():
                self.fit(network)
                return
        else:
            super().begin(network, path, data)
        header, decoder = decoders.load(beside)
        if (header.encoder, header.decoder) != (self.began, self.recipe.decoder):
            raise ConfigError(f"{beside}: is of other sizes than the recipe's, or not of {path}")
        self.decoder.load_state_dict(decoder.state_dict())

    @torch.no_grad()
    def fit(self, network: Network):
        """Fits the decoder's tables to what the bits of some patches mean."""
        sample, _ = random_patches(LEARNED, self.patches.side)
        pixels = torch.from_numpy(sample).permute(0, 3, 1, 2).float()
        codes = codes_map(self.encoder, pixels, self.patches)
        fit_tables(self.decoder.tables, network, sample, codes.flatten(1))

    def rate(self) -> float:
        """The learning rate at this step, in shares of its peak."""
        return learning_rate(self.step / self.recipe.steps, 1.0)

    def kept(self, generator: torch.Generator) -> Tensor:
        """For each crop of a batch, how many channels the decoder sees."""
        n, channels = self.recipe.batch, self.patches.channels
        cut_off = torch.rand(n, generator=generator) < self.recipe.truncation
        fewer = torch.randint(channels // 2, channels, (n,), generator=generator)
        return torch.where(cut_off, fewer, channels)

    def loss(self, pixels: Tensor, channels: Tensor) -> Tensor:
        """`pixels` uint8 (n, 3, h, w); `channels` (n,) as of :meth:`kept`."""
        if self.frozen:
            with torch.no_grad():  # exact, as the engine's are
                codes = codes_map(self.encoder, pixels.float(), self.patches)
        else:
            with autocast():
                codes = codes_map(self.encoder, pixels.to(reals()), self.patches)
        with autocast():
            codes = only(codes, channels).contiguous(memory_format=torch.channels_last)
            decoded = self.decoder(codes)
        wanted = pixels.float() / 255
        error = (decoded.float() - wanted).square().mean((1, 2, 3))
        loss = (1 - self.recipe.ms_ssim) * error.clamp_min(1e-6).log().mean()
        if self.recipe.ms_ssim:
            likeness = ms_ssim(decoded.clamp(0, 1), wanted, data_range=1.0)
            loss = loss + self.recipe.ms_ssim * 10 * (1 - likeness)
        return loss

    def train_step(self, pictures: list[Tensor]) -> float:
        """One batch; what it is depends on seed and step only."""
        recipe = self.recipe
        generator = torch.Generator().manual_seed(recipe.seed * 10**9 + self.step)
        pixels = crops(pictures, recipe.batch, recipe.crop, generator)
        peaks = [recipe.decoder_learning_rate]
        if not self.frozen:
            self.encoder.quantize(codes=self.step >= recipe.float_steps,
                                  weights=self.step >= recipe.float_steps + recipe.code_steps)
            self.encoder.train()
            for conv in self.encoder.convs:  # statistics are as quick as what they are of
                conv.momentum = (max(MOMENTUM * self.rate(), SLOWEST)
                                 if self.step or self.began else 1)
            peaks = [recipe.learning_rate] * 2 + peaks
        loss = self.loss(pixels, self.kept(generator))
        return self.learn(loss, [peak * self.rate() for peak in peaks], self.decoder.parameters())

    def validate(self, encoder: Encoder, pictures: list[Tensor]) -> dict:
        """What :func:`measure` finds with all channels of codes, and with half of them."""
        channels = self.patches.channels
        return {name: measure(encoder, self.decoder, pictures, self.patches, n) for name, n in
                (("all channels", channels), ("half of them", max(channels // 2, 1)))}

    def exact(self) -> Encoder:
        """The encoder as it is exported; the statistics are those that it was trained with."""
        return copy.deepcopy(self.encoder).eval()


@torch.no_grad()
def encode(encoder: Encoder, picture: Tensor, patches: Patches) -> Tensor:
    """Codes (1, channels, h / 8, w / 8), 0 or 1, of a picture uint8 (3, h, w); exact float32.

    The picture is continued to whole patches with the pixels at its edges.
    """
    height, width = picture.shape[1:]
    more = (0, -width % patches.side, 0, -height % patches.side)
    x = F.pad(picture[None].float(), more, mode="replicate")
    return codes_map(encoder, x, patches)


def measure(encoder: Encoder, decoder: Decoder, pictures: list[Tensor], patches: Patches,
            channels: int) -> dict:
    """Means over the pictures: PSNR in dB, of RGB, and MS-SSIM; and the bits' mean entropy."""
    encoder.eval()
    psnr, likeness, ones, places = [], [], 0.0, 0
    for picture in pictures:
        codes = encode(encoder, picture, patches)
        ones, places = ones + codes.sum((0, 2, 3)), places + codes[0, 0].numel()
        decoded = decode(decoder, codes, *picture.shape[1:], channels)[None].float()
        each = quality(decoded, picture[None].float())
        psnr.append(each[0])
        likeness.append(each[1])
    return {"psnr": sum(psnr) / len(psnr), "ms_ssim": sum(likeness) / len(likeness),
            "entropy": entropy(ones[:channels] / places).mean().item()}


def quality(found: Tensor, wanted: Tensor) -> tuple[float, float]:
    """PSNR in dB and MS-SSIM of one picture (1, 3, h, w), 0 ... 255."""
    error = (found - wanted).square().mean().item()
    return 10 * math.log10(255**2 / max(error, 1e-9)), ms_ssim(found, wanted, data_range=255).item()


def quality_of(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """The same of pictures uint8 [H, W, 3]."""
    return quality(*(torch.from_numpy(each.transpose(2, 0, 1).astype(np.float32))[None]
                     for each in (found, wanted)))


def entropy(share: Tensor) -> Tensor:
    """Of bits, `share` of which are ones."""
    share = share.double().clamp(1e-9, 1 - 1e-9)
    return -(share * share.log2() + (1 - share) * (1 - share).log2())


def train(config: Config, folder: Path, *, compiled: bool = True,
          limit: int | None = None, begin: Path | None = None) -> dict:
    """Trains to the end (or from where a killed run was) and returns the record.

    `limit` takes only that many training pictures, for trying a recipe out. A new run begins with
    the network in `begin`, if there is one, and the decoder beside it.

    Raises
    ------
    ConfigError
        If the network does not compress, there are no pictures, a checkpoint cannot be resumed, or
        the loss is no number.
    """
    recipe = config.codec
    Fused.enabled = compiled
    run = Run(config, folder)
    if run.frozen and not begin and not (folder / "checkpoint.pt").exists():
        raise ConfigError("an encoder of transforms must be given, by --begin with what `hexlane "
                          "transforms` makes, as only its decoder is trained")
    pictures = load_pictures("train", recipe.crop)[:limit]
    held = load_pictures("validation", LEAST)

    def validate() -> Validation:
        encoder = run.exact()
        found = run.validate(encoder, held)
        full, half = found["all channels"], found["half of them"]
        return Validation({"encoder": encoder, "decoder": run.decoder}, full,
                          {"validation": found}, f"{shown(full)}; half {shown(half)}")

    counts = {"train_images": len(pictures), "validation_images": len(held)}
    return run.train(config, pictures, counts, validate, begin)


def shown(found: dict) -> str:
    """What :func:`measure` found, in words."""
    return (f"{found['psnr']:.2f} dB, MS-SSIM {found['ms_ssim']:.4f}, "
            f"{found['entropy']:.3f} bits per bit")


def convert_decoder(config: Config, checkpoint: Path, network: Network) -> tuple[Decoder, Header]:
    """The decoder of a checkpoint, whose encoder's artifact is `network`.

    Raises
    ------
    ConfigError
        If there is none, or it has numbers that float16 does not have.
    """
    state = load_state(checkpoint)
    patches = patches_of(config.network, config.name)
    header = Header(side=patches.side, channels=patches.channels,
                    decoder=config.codec.decoder, encoder=network.digest, record=network.record)
    decoder = decoders.build(header)
    with resuming(checkpoint):
        decoder.load_state_dict(state["decoder"], assign=True)
    for name, values in decoder.named_parameters():
        if not values.half().isfinite().all():
            raise ConfigError(f"{checkpoint}: {name} must have numbers from -65504 to 65504")
    return decoder, header
