"""Keeps memory that a training frees for its next step, instead of giving it back to the system.

The tensors of a step are megabytes each, which the C library would otherwise take page by page anew
every time: a fifth to a quarter of a step on a CPU.
"""

import ctypes

# Of glibc's mallopt: no mappings of their own, and nothing goes back until there are two gigabytes.
OPTIONS = {-4: 0, -1: 2**31 - 1, -2: 2**28}


def keep_freed() -> bool:
    """Whether the C library could be told so."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    told = [library.mallopt(option, value) for option, value in OPTIONS.items()]
    return all(told)
