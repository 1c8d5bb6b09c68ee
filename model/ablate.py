"""Trains the variants of :mod:`model.variants` and compares them.

Results are kept in `build/ablation/`: a run that was stopped goes on, one that is finished is not
repeated; :func:`keep` adds them to those in `weights/ablations.json`. Tables are Markdown.
"""

import json
from pathlib import Path
from statistics import mean, stdev

from torch import nn

from export.automaton import cells
from export.config import Config, ConfigError
from export.file import write_whole
from model import clip_train, detect
from model.network import Encoder, QuantWeight
from model.train import train_alone_or_together
from model.variants import CONFIGS, GENERATORS, VARIANTS
from model.views import TABLE

KEPT = CONFIGS.parent / "weights" / "ablations.json"
TABLES = {
    "Precision by stage": {
        "321": "3, 2, 1 bits by stage", "111": "1 bit, wider", "222": "2 bits, narrower",
        "333": "3 bits, narrower", "123": "1, 2, 3 bits by stage, narrower",
        "222-wide": "2 bits, same width as 3, 2, 1", "333-wide": "3 bits, same width",
        "123-wide": "1, 2, 3 bits, same width"},
    "Thresholds of ternary weights, 2-bit codes": {
        "222-equalized": "histogram-equalized", "222-mean": "fixed, 0.7 of the mean magnitude",
        "222-wide": "learned step"},
    "Bits of the codes, ternary weights": {
        "222-codes1": "1", "222-wide": "2 (HWMSB)", "222-codes3": "3"},
    "Normalization, 3, 2, 1 bits": {
        "321": "one shift per layer", "321-batch": "float batch norm per channel"},
    "Residuals, nine layers, 3, 2, 1 bits, 3-bit codes": {
        "deep": "none", "deep-or": "OR", "deep-mux": "MUX",
        "deep-mux-or": "MUX-OR", "deep-add": "real numbers, added"},
    "Concatenation, ternary weights, 3-bit codes": {
        "wide": "none: eight layers of 20 to 76 channels",
        "dense": "dense blocks: fifteen layers of 8 to 22 new channels"},
    "Weights of the second pointwise layers": {
        "mognet-stored": "stored, ternary",
        **{f"mognet-{mapping}{rule}": f"generated, rule {rule}, {mapping}"
           for rule, mapping in GENERATORS}},
    "Boxes: bits of the weights from the first layers to the last": {
        "boxes-321": "3, 2, 1", "boxes-222-bits": "2, equal bits", "boxes-333-bits":
        "3, equal bits", "boxes-123-bits": "1, 2, 3, equal bits", "boxes-222": "2, equal widths",
        "boxes-333": "3, equal widths", "boxes-123": "1, 2, 3, equal widths"},
    "Clips: cell": {"clips": "full", "clips-coupled": "coupled", "clips-mean":
                    "none, mean over time"},
    "Clips: residuals": {"clips": "MUX-OR", "clips-or": "OR", "clips-plain": "none"},
    "Clips: weights of the convolutions": {"clips": "binary", "clips-ternary": "ternary"},
    "Clips: where time is seen": {
        "clips": "convolutions over three frames, and cell", "clips-2d": "cell alone",
        "clips-mean": "convolutions alone", "clips-2d-mean": "nowhere"},
    "Clips: `billnet`": {"billnet-real": "real numbers"},
}


def weight_bits(config: Config) -> int:
    """Of all layers and the classifier, each weight in the bits of its alphabet; or the seed."""
    encoder = Encoder(config.network)
    generated = sum(cells(layer) for layer in config.network.convs if layer.generator)
    matrices = [part for part in encoder.modules() if isinstance(part, QuantWeight)]
    return generated + sum(part.weight.numel() * part.bits for part in matrices
                           if isinstance(part.weight, nn.Parameter))


def finished(folder: Path) -> dict[tuple[str, int], dict]:
    """Records of runs by variant and seed: those that are kept, and those in the folder.

    Raises
    ------
    ConfigError
        If one of them is none, or of another recipe or network than its variant has now.
    """
    found = {}
    for path in [KEPT, *sorted(folder.glob("*/record.json"))]:
        name, _, seed = path.parent.name.rpartition("-seed")
        try:
            if path == KEPT:
                runs = json.loads(path.read_text())
            elif name in VARIANTS:
                runs = [brief(name, int(seed), json.loads(path.read_text()))]
            else:
                continue
            for each in runs:
                name, seed = each["variant"], each["seed"]
                if not agrees(each["config"], VARIANTS[name](seed=seed).model_dump(mode="json")):
                    raise ValueError(f"{name}, seed {seed}, is of another recipe or network than "
                                     f"it has now")
                found[name, seed] = each
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{path}: is no record of such a training: {error}") from error
    return found


def agrees(then, now) -> bool:
    """Whether all that a configuration said is so now; what it did not know may have come."""
    if isinstance(then, dict) and isinstance(now, dict):
        return all(key in now and agrees(value, now[key]) for key, value in then.items())
    if isinstance(then, list) and isinstance(now, list):
        return len(then) == len(now) and all(map(agrees, then, now))
    return then == now


def brief(name: str, seed: int, record: dict) -> dict:
    """What is kept of a record."""
    validation = record["validation"]
    if isinstance(validation, dict):  # of boxes, of clips
        validation = validation.get("map50", validation.get("accuracy"))
    return {"variant": name, "seed": seed, "validation": float(validation),
            "seconds": record["seconds"], "torch": record["torch"], "curve": record["curve"],
            "config": record["config"]}


def keep(folder: Path):
    """Adds the finished runs in the folder to those that are kept."""
    runs = [each for _, each in sorted(finished(folder).items())]
    write_whole(KEPT, ("[\n" + ",\n".join(map(json.dumps, runs)) + "\n]\n").encode())


def tables(runs: dict[tuple[str, int], dict]) -> str:
    """Markdown; a variant without a finished run has no row, a table needs one."""
    lines, found = [], {name: [] for name in VARIANTS}
    for (name, _), each in runs.items():
        found[name].append(each["validation"])
    for title, rows in TABLES.items():
        if not any(found[name] for name in rows):
            continue
        lines += [f"| {title} | weight bits | validation | n |", "|---|---|---|---|"]
        for name, text in rows.items():
            if values := found[name]:
                spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
                lines.append(f"| {text} | {weight_bits(VARIANTS[name]()):,} | "
                             f"{100 * mean(values):.2f}{spread} % | {len(values)} |")
        lines.append("")
    return "\n".join(lines)


def run(names: list[str], seeds: int, folder: Path, device: str, table: Path = TABLE):
    """Trains what is not trained yet; ConfigError for an unknown variant."""
    if unknown := sorted(set(names) - set(VARIANTS)):
        raise ConfigError(f"{unknown[0]}: no such variant; wanted some of {', '.join(VARIANTS)}")
    done = finished(folder)
    for seed in range(1, seeds + 1):
        for name in names:
            if (name, seed) not in done:
                print(f"{name}, seed {seed}", flush=True)
                config, place = VARIANTS[name](seed=seed), folder / f"{name}-seed{seed}"
                if config.detect or config.clips:
                    (detect if config.detect else clip_train).train(config, place)
                else:
                    train_alone_or_together(config, place, device=device, table=table)
