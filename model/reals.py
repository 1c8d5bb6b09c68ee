"""The format of the real numbers that a training computes with."""

import torch


def reals(device: str = "cpu") -> torch.dtype:
    """bfloat16 on a GPU and on a CPU with AVX-512; float32 on others: what has AVX2 only emulates
    bfloat16, several times slower. Pixels, weights and codes are exact in either."""
    slow = device == "cpu" and not torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.float32 if slow else torch.bfloat16


def autocast(device: str = "cpu") -> torch.autocast:
    """Convolutions and products of matrices in :func:`reals`; nothing changes for float32."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=reals(device) is torch.bfloat16)
