"""Small variants of the encoders, to be compared by :mod:`model.ablate`.

Most have six to nine 3x3 layers in three stages, about half as wide as those of
`configs/megabit.toml`, or dense blocks in their place, or are `configs/mognet.toml` at half its
width; they have the recipe of `configs/megabit.toml`, shortened to `RECIPE`. Those of boxes and
clips have the recipes of their own designs.
"""

from pathlib import Path

from export.config import Config, load_config, parse_config

CONFIGS = Path(__file__).parent.parent / "configs"
RECIPE = {**load_config(CONFIGS / "megabit.toml").train.model_dump(),
          "teacher_epochs": 3, "epochs": 7, "code_epochs": 1, "full_epochs": 2,
          "learning_rate": 0.004, "validate_every": 5}
WIDTHS = 24, 48, 96  # of the stages
ORDER = 3, 2, 1  # bits of the stages in a progressively decreasing network


def design(widths=WIDTHS, weights=ORDER, codes=ORDER, depth=2, gate=None, **recipe) -> Config:
    """`depth` layers in each stage, pooled behind the first and the second stage.

    With a `gate`, a stage's last layer merges what comes out of its first one.
    """
    layers = []
    for stage in range(3):
        for k in range(depth):
            last = k == depth - 1
            layers.append({"name": f"conv{len(layers) + 1}", "channels": widths[stage],
                           "weight_bits": weights[stage], "code_bits": codes[stage],
                           "pool": last and stage < 2})
            if last and gate:
                layers[-1] |= {"gate": gate, "skip": layers[-depth]["name"]}
    return of_layers(layers, **recipe)


def of_layers(layers: list[dict], key: str = "layers", **recipe) -> Config:
    classes = {"classes": 10} if key == "layers" else {}
    return parse_config({
        "name": "ablation",
        "network": {"height": 32, "width": 32, "channels": 3, "pad": 128, key: layers, **classes},
        "array": {"rows": 16, "columns": 8, "words": 4},
        "train": {**RECIPE, **recipe}})


def deep(**more) -> Config:
    """Three layers in a stage, the last two of them a block that a residual leads around."""
    return design((20, 40, 80), codes=(3, 3, 3), depth=3, **more)


def wide(**recipe) -> Config:
    """Eight layers, with as many weight bits as :func:`dense`."""
    widths = 20, 20, 40, 40, 40, 76, 76, 76
    return of_layers([{"name": f"conv{k + 1}", "channels": channels, "weight_bits": 2,
                       "code_bits": 3, "pool": k in (1, 4)}
                      for k, channels in enumerate(widths)], **recipe)


def dense(**recipe) -> Config:
    """Blocks whose narrow layers read all maps before them in the block, as in DenseNet (Huang et
    al. 2017); what joins two blocks is pointwise and pooled."""
    bits = {"weight_bits": 2, "code_bits": 3}
    layers, seen = [{"name": "stem", "channels": 16, **bits}], ["stem"]
    for stage, (count, channels, joined) in enumerate(((4, 8, 32), (5, 16, 64), (5, 22, None)), 1):
        for k in range(1, count + 1):
            layers.append({"name": f"conv{stage}_{k}", "channels": channels, "inputs": [*seen],
                           **bits})
            seen.append(layers[-1]["name"])
        if joined:
            layers.append({"name": f"join{stage}", "channels": joined, "inputs": seen,
                           "kernel": 1, "pool": True, **bits})
            seen = [layers[-1]["name"]]
    layers.append({"kind": "sum", "name": "classifier", "channels": 10, "weight_bits": 3,
                   "inputs": seen})
    return of_layers(layers, "operations", **recipe)


def mognet(generator: dict | None, **recipe) -> Config:
    """Half as wide as `configs/mognet.toml`; its generated layers by `generator`, or stored."""
    full, layers = load_config(CONFIGS / "mognet.toml"), []
    for layer in full.network.convs:
        values = layer.model_dump() | {"channels": layer.channels // 2}
        if values.pop("select"):
            values["select_bits"] = full.network.by_name[layer.select].weight_bits
        if layer.generator:
            values["generator"] = generator
            values["weight_bits"] = 1 if generator and generator["mapping"] == "binary" else 2
        layers.append(values)
    return of_layers(layers, centred_muxes=full.train.centred_muxes, **recipe)


def boxes(widths=(12, 48, 60), weights=ORDER, **recipe) -> Config:
    """`configs/bccd.toml` at these widths: of its first layer, of the next ones, of the last two.

    Weights have these bits in the first three layers, the next three, and the last two; codes have
    three. Trained for an eighth of its steps.
    """
    full = load_config(CONFIGS / "bccd.toml")
    values = full.model_dump(mode="json")
    for k, layer in enumerate(values["network"]["operations"][:-1]):
        layer |= {"channels": widths[0 if k == 0 else 1 if k < 6 else 2],
                  "weight_bits": weights[k // 3]}
    eighth = {name: values["detect"][name] // 8 for name in ("steps", "float_steps", "code_steps")}
    values["detect"] |= eighth | {"validate_every": eighth["steps"]} | recipe
    return parse_config(values | {"name": "ablation"})


def clips(gate: str | None = "mux_or", form: str | None = "full", bits: int = 1, frames: int = 3,
          **recipe) -> Config:
    """`configs/billnet_small.toml` at half its width, and at a quarter of its steps.

    With weights of so many bits where it has one, convolutions over so many frames, no gate and no
    cell if it is None; without a cell, the scores of all ticks are added.
    """
    values = load_config(CONFIGS / "billnet_small.toml").model_dump(mode="json")
    kept = []
    for each in values["network"]["operations"]:
        if each.get("output") == "select" and gate != "mux_or":
            continue
        if each["kind"] == "cell":
            if form is None:
                continue
            each["form"] = form
        if each["inputs"] == ["cell"] and form is None:
            each["inputs"] = ["vector"]
        if each["weight_bits"] == 1 and each["kind"] == "conv":
            each["weight_bits"] = bits
        if each.get("output") != "class":
            each["channels"] //= 2
        if each["kind"] == "conv":
            each["groups"] = max(each["groups"] // 2, 1)
            each["frames"] = min(each["frames"], frames)
            if each["gate"] and gate != "mux_or":
                each |= {"gate": gate, "select": None} if gate else {
                    "gate": None, "skip": None, "select": None}
        kept.append(each)
    values["network"]["operations"] = kept
    quarter = {name: values["clips"][name] // 4
               for name in ("steps", "float_steps", "code_steps", "weight_steps", "easy_steps")}
    values["clips"] |= quarter | {"validate_every": quarter["steps"], "validation": 1300} | recipe
    return parse_config(values | {"name": "ablation"})


def real(steps: int = 5000, **recipe) -> Config:
    """`configs/billnet.toml`, in which nothing is ever rounded: what that costs."""
    full = load_config(CONFIGS / "billnet.toml")
    values = {"tick_power": 2.0, "label_smoothing": 0.1, "validation": 1300, **recipe,
              "steps": steps, "validate_every": steps, "float_steps": steps, "code_steps": 0,
              "weight_steps": 0, "trunk": None}
    # A copy is not validated: a recipe must round in the end, for it is to be exported.
    return full.model_copy(update={"name": "ablation",
                                   "clips": full.clips.model_copy(update=values)})


GENERATORS = (30, "half"), (30, "quarter"), (30, "binary"), (105, "half"), (90, "half")

# Widths of homogeneous networks with as many weight bits as the progressive one.
VARIANTS = {
    "321": lambda **more: design(**more),
    "111": lambda **more: design((26, 52, 110), (1, 1, 1), (1, 1, 1), **more),
    "222": lambda **more: design((19, 38, 76), (2, 2, 2), (2, 2, 2), **more),
    "333": lambda **more: design((16, 31, 62), (3, 3, 3), (3, 3, 3), **more),
    "123": lambda **more: design((16, 33, 65), (1, 2, 3), (1, 2, 3), **more),
    "222-wide": lambda **more: design(WIDTHS, (2, 2, 2), (2, 2, 2), **more),
    "333-wide": lambda **more: design(WIDTHS, (3, 3, 3), (3, 3, 3), **more),
    "123-wide": lambda **more: design(WIDTHS, (1, 2, 3), (1, 2, 3), **more),
    "222-mean": lambda **more: design(WIDTHS, (2, 2, 2), (2, 2, 2), steps="mean", **more),
    "222-equalized": lambda **more: design(WIDTHS, (2, 2, 2), (2, 2, 2), steps="equalized", **more),
    "222-codes1": lambda **more: design(WIDTHS, (2, 2, 2), (1, 1, 1), **more),
    "222-codes3": lambda **more: design(WIDTHS, (2, 2, 2), (3, 3, 3), **more),
    "321-batch": lambda **more: design(normalization="batch", **more),
    "deep": deep,
    "deep-or": lambda **more: deep(gate="or", **more),
    "deep-mux": lambda **more: deep(gate="mux", **more),
    "deep-mux-or": lambda **more: deep(gate="mux_or", **more),
    "deep-add": lambda **more: deep(gate="or", residuals="add", **more),
    "wide": wide,
    "dense": dense,
    "mognet-stored": lambda **more: mognet(None, **more),
    **{f"mognet-{mapping}{rule}":
       lambda rule=rule, mapping=mapping, **more: mognet({"rule": rule, "mapping": mapping}, **more)
       for rule, mapping in GENERATORS},
    "boxes-321": boxes,
    **{f"boxes-{'{}{}{}'.format(*bits)}": lambda bits=bits, **more: boxes(weights=bits, **more)
       for bits in ((2, 2, 2), (3, 3, 3), (1, 2, 3))},
    **{f"boxes-{'{}{}{}'.format(*bits)}-bits":
       lambda bits=bits, widths=widths, **more: boxes(widths, bits, **more)
       for bits, widths in (((2, 2, 2), (12, 46, 55)), ((3, 3, 3), (9, 37, 47)),
                            ((1, 2, 3), (11, 44, 53)))},
    "clips": clips,
    "clips-coupled": lambda **more: clips(form="coupled", **more),
    "clips-mean": lambda **more: clips(form=None, **more),
    "clips-or": lambda **more: clips("or", **more),
    "clips-plain": lambda **more: clips(None, **more),
    "clips-ternary": lambda **more: clips(bits=2, **more),
    "clips-2d": lambda **more: clips(frames=1, **more),
    "clips-2d-mean": lambda **more: clips(frames=1, form=None, **more),
    "billnet-real": real,
}
