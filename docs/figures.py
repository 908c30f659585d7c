"""Draws docs/images/output.png: what comes out of one photo. Run: `python docs/figures.py` (needs the extra `dev`)."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from skimage import data

import fevertools as ft
from fevertools.labels import LANDMARKS


def main() -> None:
    photo = data.astronaut()
    (face,) = ft.Analyzer(device="cpu").analyze(photo).faces
    figure, (place, bars, vector) = plt.subplots(1, 3, figsize=(11, 3.6), width_ratios=(1, 1.25, 1.05))

    x1, y1, x2, y2 = face.face.box
    place.add_patch(plt.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="tab:blue", linewidth=2))
    for (x, y), name in zip(face.face.landmarks, LANDMARKS, strict=True):
        place.plot(x, y, "o", color="tab:orange", markersize=5)
        side = "right" if name.startswith("left") else "left"
        place.annotate(
            name, (x, y), xytext=(-6 if side == "right" else 6, 4), textcoords="offset points", ha=side, fontsize=7
        )
    margin = 0.6 * (x2 - x1)
    place.set(xlim=(x1 - margin, x2 + margin), ylim=(y2 + margin, y1 - margin), aspect="equal", xlabel="pixels")
    place.set_title(f"detect: score {face.face.score:.3f}")

    probabilities = face.expression.probabilities
    bars.barh(list(probabilities), list(probabilities.values()), color="tab:blue")
    bars.invert_yaxis()
    bars.set(xlim=(0, 1), xlabel="probability")
    bars.set_title(f"classify: {face.expression.label}, entropy {face.expression.entropy:.2f} nats")

    size = int(np.sqrt(face.embedding.size))
    extent = float(np.abs(face.embedding).max())
    shown = vector.imshow(face.embedding.reshape(size, size), cmap="coolwarm", vmin=-extent, vmax=extent)
    vector.set(xticks=[], yticks=[])
    vector.set_title(f"embed: {face.embedding.size} numbers")
    figure.colorbar(shown, ax=vector, shrink=0.8)

    output = Path(__file__).parent / "images" / "output.png"
    output.parent.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(output, dpi=110)


if __name__ == "__main__":
    main()
