"""A picture of embeddings: t-SNE, one panel for each network, one colour for each label."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

from fevertools.train.figures import pyplot, save
from fevertools.types import Float32

COUNT, SEED = 2000, 2019


def project(embedding: Float32) -> Float32:
    """t-SNE to two dimensions (van der Maaten & Hinton 2008), standardised features, fixed seed: (N, 2)."""
    features = StandardScaler().fit_transform(embedding.astype(np.float64))
    perplexity = min(30.0, (len(embedding) - 1) / 3)
    return np.asarray(TSNE(perplexity=perplexity, init="pca", random_state=SEED).fit_transform(features), np.float32)


def draw(
    panels: dict[str, Float32], label: npt.NDArray[np.integer], classes: tuple[str, ...], output: Path
) -> dict[str, Float32]:
    """Draw the same faces as each network lays them out.

    Args:
        panels: title -> embeddings (N, D).
        label: (N,) index into `classes`; at most `COUNT` of the rows are drawn, evenly spaced.
        classes: names for the legend.
        output: picture file; its suffix says of what kind.

    Returns:
        title -> what was drawn: (M, 2).
    """
    plt = pyplot()
    rows = np.arange(0, len(label), max(1, -(-len(label) // COUNT)))
    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 4.6), squeeze=False, layout="constrained")
    points = {title: project(embedding[rows]) for title, embedding in panels.items()}
    for axis, (title, place) in zip(axes[0], points.items(), strict=True):
        for k, name in enumerate(classes):
            own = label[rows] == k
            axis.scatter(*place[own].T, s=5, color=plt.get_cmap("tab10")(k), label=name, linewidths=0)
        axis.set(title=title, xticks=[], yticks=[])
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(classes), markerscale=3
    )
    save(figure, output)
    return points
