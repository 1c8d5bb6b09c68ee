"""A trained decoder on disk: one `.npz` file, without pickles, as networks are.

Its member `header` is JSON: format, version, sizes, the digest of the encoder that it belongs to,
a free-form record. The others are its parameters, float16. Their shapes are known from the sizes
before an array is read.
"""

import io
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from export.checked import ConfigError, Frozen, count, parse
from export.codec import STEP, DecoderConfig, Patches
from export.file import member, opened, read_member, write_whole

VERSION = 1
PARAMETERS = 2**24  # at most

Shapes = dict[str, tuple[int, ...]]


class Header(Frozen):
    """What a decoder's file says of itself."""

    format: Literal["hexlane decoder"] = "hexlane decoder"
    version: Literal[1] = VERSION
    side: count(1024)  # of the patches, in pixels
    channels: count(1024)  # of their codes
    decoder: DecoderConfig
    encoder: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # digest of the network
    record: dict[str, Any]

    @model_validator(mode="after")
    def _fits(self):
        if self.side % STEP:
            raise ValueError(f"side must be a multiple of {STEP}, not {self.side}")
        transforms = self.decoder.transforms
        if transforms and transforms.bits != self.patches.bits:
            raise ValueError(f"transforms must have the {self.patches.bits} bits of a patch, "
                             f"not {transforms.bits}")
        return self

    @property
    def patches(self) -> Patches:
        return Patches(self.side, self.channels)


def save_decoder(header: Header, arrays: dict[str, np.ndarray], path: Path):
    """Writes one file, whole or not at all; equal decoders give equal bytes."""
    text = json.dumps(header.model_dump(), sort_keys=True, indent=1, allow_nan=False)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(*member("header", np.frombuffer(text.encode(), np.uint8)))
        for name, values in arrays.items():
            archive.writestr(*member(name, values.astype(np.float16)))
    write_whole(path, file.getvalue())


def load_decoder(path: Path, shapes_of: Callable[[Header], Shapes]
                 ) -> tuple[Header, dict[str, np.ndarray]]:
    """Reads and checks one file; `shapes_of` says what a decoder of these sizes is made of.

    Raises
    ------
    ConfigError
        One line that names the file, what was wanted and what came.
    """
    with opened(path, "a decoder's file") as (archive, header):
        return _assemble(archive, parse(json.loads(header.tobytes()), "header", Header), shapes_of)


def _assemble(archive: zipfile.ZipFile, header: Header, shapes_of
              ) -> tuple[Header, dict[str, np.ndarray]]:
    shapes = shapes_of(header)
    if (total := sum(map(math.prod, shapes.values()))) > PARAMETERS:
        raise ConfigError(f"must have at most {PARAMETERS} parameters, not {total}")
    came = sorted(name.removesuffix(".npy") for name in archive.namelist())
    if came != sorted([*shapes, "header"]):
        strange = sorted(set(came) ^ {*shapes, "header"}) or came
        raise ConfigError(f"must have each array of the decoder once, and no others: {strange[0]}")
    arrays = {}
    for name, shape in shapes.items():
        values = read_member(archive, name, 2 * math.prod(shape))
        if values.dtype != np.float16 or values.shape != shape or not np.isfinite(values).all():
            raise ConfigError(f"{name} must be finite float16 {list(shape)}, "
                              f"not {values.dtype} {list(values.shape)}")
        arrays[name] = values
    return header, arrays
