"""Designs for tests, from few words."""

from export.config import Config, parse_config
from export.cost import Cost
from export.network import NetworkConfig


def conv(name: str, channels: int, weight_bits: int, code_bits: int, **more) -> dict:
    """A layer as a file has it."""
    return {"name": name, "channels": channels, "weight_bits": weight_bits,
            "code_bits": code_bits, **more}


def network(layers: list[dict], *, height: int, width: int, channels: int = 3, classes: int = 2,
            **more) -> NetworkConfig:
    return NetworkConfig(height=height, width=width, channels=channels, classes=classes,
                         layers=layers, **more)


def design(layers: list[dict], rows: int, columns: int, words: int, *, precisions=(1, 2, 3),
           dense: bool = False, height: int = 6, width: int = 5, channels: int = 3,
           classes: int = 3, **more) -> Config:
    return parse_config({
        "name": "test",
        "network": {"height": height, "width": width, "channels": channels, "classes": classes,
                    "layers": layers, **more},
        "array": {"rows": rows, "columns": columns, "words": words,
                  "precisions": list(precisions), "dense": dense}})


def cost(*layers_and_array, **more) -> Cost:
    """A design's program on the smallest machine that runs it."""
    return Cost.of(design(*layers_and_array, **more))
