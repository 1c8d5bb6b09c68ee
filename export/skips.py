"""Where the skip memory keeps the codes that later gates need."""

from export.config import ConfigError, NetworkConfig


def place_skips(network: NetworkConfig, columns: int, units: int) -> tuple[list[dict], int]:
    """Fields of each layer's program that concern the skip memory, and the memory's words.

    A word is one unit of channels of one pixel, in the order in which the epilogue writes
    them, which is the order in which a gate needs them. So a region may be written over from
    the start while its last reader goes through it, unless that one starts over.

    Raises
    ------
    ConfigError
        If a skip would be needed both pooled and not, or its repeated channels do not fill columns.
    """
    fields: list[dict] = [{} for _ in network.layers]
    regions = []  # of a source: base, size, the layer that it lives until
    depth = 0
    for source, layer in enumerate(network.layers):
        readers = [k for k, other in enumerate(network.layers) if other.skip == layer.name]
        if not readers:
            continue
        pooled = {network.skip_pooled(k) for k in readers}
        if len(pooled) > 1 or (layer.pool and True in pooled):
            raise ConfigError(f"{layer.name}: as a skip it must be pooled for all gates or "
                              f"for none, and not be pooled already")
        repeated = [k for k in readers if network.layers[k].channels != layer.channels]
        if repeated and layer.channels % columns:
            raise ConfigError(f"{network.layers[repeated[0]].name}: to be repeated, the skip's "
                              f"channels must fill the array's {columns} columns, "
                              f"not {layer.channels}")
        out = network.shapes[readers[0]]
        size = -(-layer.channels // columns) * units * out.pixels
        base = 0
        for start, length, until in sorted(regions):
            if until > source and base < start + length and start < base + size:
                base = start + length
        # A last reader that goes through it once frees it word by word.
        last = max(readers)
        regions.append((base, size, last + (last in repeated)))
        depth = max(depth, base + size)
        fields[source] |= {"keep": True, "keep_pooled": True in pooled, "keep_base": base}
        for k in readers:
            fields[k] |= {"skip_base": base, "skip_size": size,
                          "rescale": network.layers[k].code_bits - layer.code_bits}
    return fields, depth
