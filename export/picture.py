"""A compressed picture (`NAME.hxl`): the codes of its patches, as many bits for each.

Little-endian: magic, version, side of the patches in pixels, channels of codes, height and width of
the picture, the first bytes of the encoder's digest; then the codes, and a CRC-32 of all before it.
Patches follow each other in raster order, of each one its channels, most important first, of each
of these its rows; the last byte is filled up with zeros. Whatever is not exactly so is refused, and
nothing is reserved before a file is known to be as long as it says.
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.checked import ConfigError
from export.codec import STEP, Patches
from export.file import read_whole, write_whole
from export.network import MAX_CHANNELS, MAX_SIDE

MAGIC, VERSION = b"HXLP", 1
HEAD = struct.Struct("<4sHHHHH8s")
CRC = struct.Struct("<I")
SIDE_LIMIT, PIXEL_LIMIT = 2**15, 2**25
FILE_LIMIT = 2**24  # bytes; eight times as many codes


@dataclass(frozen=True, eq=False)
class Picture:
    """Codes uint8 [N, channels, grid, grid], 0 or 1, of a picture's patches in raster order.

    `encoder` is the digest of the network that made them; a file keeps the first 16 digits.
    """

    height: int
    width: int
    patches: Patches  # with the channels that are kept
    encoder: str
    codes: np.ndarray

    def __post_init__(self):
        rows, columns = self.patches.count(self.height, self.width)
        shape = (rows * columns, self.patches.channels, self.patches.grid, self.patches.grid)
        if self.codes.dtype != np.uint8 or self.codes.shape != shape or self.codes.max() > 1:
            raise ConfigError(f"codes must be uint8 {list(shape)} of 0 and 1, "
                              f"not {self.codes.dtype} {list(self.codes.shape)}")

    def kept(self, channels: int) -> "Picture":
        """The same picture in its first `channels` alone."""
        if not 1 <= channels <= self.patches.channels:
            raise ConfigError(f"channels must be 1 to {self.patches.channels}, not {channels}")
        return Picture(self.height, self.width, Patches(self.patches.side, channels),
                       self.encoder, self.codes[:, :channels])

    @property
    def map(self) -> np.ndarray:
        """The codes of all patches, side by side: uint8 [channels, rows, columns]."""
        return self.patches.join(self.codes, self.height, self.width)

    def to_bytes(self) -> bytes:
        """What the file holds."""
        head = HEAD.pack(MAGIC, VERSION, self.patches.side, self.patches.channels, self.height,
                         self.width, bytes.fromhex(self.encoder[:16]))
        content = head + np.packbits(self.codes).tobytes()
        return content + CRC.pack(zlib.crc32(content))

    def save(self, path: Path):
        """Writes the file, whole or not at all."""
        write_whole(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> "Picture":
        """Reads a file; ConfigError, one line, if it is damaged or none of these."""
        try:
            return cls.from_bytes(read_whole(path, FILE_LIMIT))
        except ConfigError as error:
            said = str(error).removeprefix(f"{path}: ")
            raise ConfigError(f"{path}: {said}") from error

    @classmethod
    def from_bytes(cls, content: bytes) -> "Picture":
        """What a file holds; ConfigError if it is damaged or none of these."""
        if len(content) < HEAD.size + CRC.size or content[:4] != MAGIC:
            raise ConfigError("is no compressed picture")
        _, version, side, channels, height, width, encoder = HEAD.unpack_from(content)
        if version != VERSION:
            raise ConfigError(f"version must be {VERSION}, not {version}")
        check_size(height, width)
        if not side or side % STEP or side > MAX_SIDE or not 1 <= channels <= MAX_CHANNELS:
            raise ConfigError(f"patches must have a side that is a multiple of {STEP}, and "
                              f"channels, not {side} and {channels}")
        patches = Patches(side, channels)
        rows, columns = patches.count(height, width)
        bits = rows * columns * patches.bits
        size = HEAD.size + -(-bits // 8) + CRC.size
        if len(content) != size:
            raise ConfigError(f"must have {size} bytes, not {len(content)}: it is cut off, or "
                              f"more was added")
        if zlib.crc32(content[:-CRC.size]) != CRC.unpack(content[-CRC.size:])[0]:
            raise ConfigError("is damaged: its CRC does not fit")
        packed = np.frombuffer(content, np.uint8)[HEAD.size:-CRC.size]
        if np.unpackbits(packed)[bits:].any():
            raise ConfigError("is damaged: the bits that fill its last byte must be 0")
        codes = np.unpackbits(packed, count=bits)
        return cls(height, width, patches, encoder.hex(),
                   codes.reshape(-1, channels, patches.grid, patches.grid))


def check_size(height: int, width: int):
    """ConfigError for a picture that is too large, or empty."""
    if not (1 <= height <= SIDE_LIMIT and 1 <= width <= SIDE_LIMIT
            and height * width <= PIXEL_LIMIT):
        raise ConfigError(f"pictures must have sides of 1 to {SIDE_LIMIT} pixels, and at most "
                          f"{PIXEL_LIMIT} of them, not {width}x{height}")
