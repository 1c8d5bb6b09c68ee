"""Hashes of what is generated for the shipped designs; `python -m tests.product` records them.

They change when the product does: the commit that records them anew says why.
"""

import hashlib
import json
import tempfile
from pathlib import Path

from export.config import load_config
from export.file import load_network
from hw.generate import generate

HERE = Path(__file__).parent
RECORD = HERE / "product.json"
DESIGNS = ("tiny", "megabit", "cifar10", "heq_residual", "mognet", "billnet", "billnet_small",
           "patch", "patch_small")


def hashes(name: str, folder: Path) -> dict[str, str]:
    """SHA-256 (hex) of the Verilog and of each memory file of a shipped design."""
    root = HERE.parent
    generate(load_config(root / f"configs/{name}.toml"), load_network(root / f"weights/{name}.npz"),
             folder)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.iterdir()) if path.suffix in (".v", ".mem")}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        found = {name: hashes(name, Path(scratch) / name) for name in DESIGNS}
    RECORD.write_text(json.dumps(found, indent=1) + "\n")
