"""Golden vectors: what each bundled encoder says about drawn faces, kept as small JSON.

`python -m tests.golden` writes a JSON file for each of its graphs into tests/golden anew; do so only with new weights.
"""

import json
from pathlib import Path

import numpy as np

from fevertools.encoder import Encoder
from fevertools.manifest import PRECISIONS
from fevertools.weights import WeightsEntry, load_head, load_manifest, resolve

FOLDER = Path(__file__).parent / "golden"
MOUTHS = (-1.0, 0.0, 1.0)  # curvature: corners down, straight, up


def drawn_crops() -> np.ndarray:
    """uint8 (3, 48, 48, 1): an ellipse with eyes, nose and a mouth, from plain arithmetic, the same on any machine."""
    y, x = np.mgrid[:48, :48] / 47.0
    crops = []
    for curvature in MOUTHS:
        image = 60 + 120 * (((x - 0.5) / 0.45) ** 2 + ((y - 0.5) / 0.55) ** 2 < 1)
        for eye in (0.319, 0.693):
            image = np.where((x - eye) ** 2 + (y - 0.395) ** 2 < 0.0035, 30, image)
        image = np.where((abs(x - 0.504) < 0.02) & (abs(y - 0.55) < 0.06), 110, image)
        mouth = 0.78 - curvature * 1.6 * ((x - 0.504) ** 2 - 0.012)
        image = np.where((abs(x - 0.504) < 0.17) & (abs(y - mouth) < 0.025), 40, image)
        crops.append(image.astype(np.uint8)[:, :, None])
    return np.stack(crops)


def path_of(entry: WeightsEntry, precision: str) -> Path:
    """Where the golden vectors of a graph are kept."""
    return FOLDER / f"{Path(entry.files[PRECISIONS[precision]].path).stem}.json"


def vectors(entry: WeightsEntry, precision: str = "float32") -> dict[str, np.ndarray]:
    """Embeddings and logits of the drawn crops, and where the entry has a triplet head, what that makes of them."""
    encoding = Encoder(entry, resolve(entry), precision=precision, device="cpu").encode(drawn_crops())
    found = {"embeddings": encoding.embeddings, "logits": encoding.logits}
    if "triplet" in entry.files:
        head = load_head(entry)
        found["triplet"] = encoding.embeddings @ head[:, :-1].T + head[:, -1]
    return found


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for entry in load_manifest().weights.values():
        if entry.kind != "encoder" or not entry.bundled:
            continue
        for precision in (name for name, role in PRECISIONS.items() if role in entry.files):
            found = vectors(entry, precision)
            golden = {name: np.round(array.astype(float), 5).tolist() for name, array in found.items()}
            golden = {"sha256": entry.files[PRECISIONS[precision]].sha256, **golden}
            path_of(entry, precision).write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
