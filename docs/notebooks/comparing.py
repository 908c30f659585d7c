# %% [markdown]
# # Comparing embeddings
#
# What moves an embedding and what does not, and what many of them look like from above.
#
# ## What moves it
#
# One face, changed in ways that leave the expression alone, and in two that do not: with the mouth, or the eyes,
# covered. The [similarity](../similarity.md) to the embedding of the untouched photo tells how far each goes.

# %%
import io

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from skimage import data

import fevertools as ft

photo = Image.fromarray(data.astronaut())
analyzer = ft.Analyzer(device="cpu", largest=True)
face = analyzer.detect(photo)[0]
eyes, mouth = face.landmarks[:2], face.landmarks[3:]


def jpeg(image, quality):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def covered(image, points):
    """A gray bar over two points, half as high as they are far apart."""
    (left, top), (right, bottom) = points
    reach = (right - left) / 2
    bar = left - reach / 2, top - reach, right + reach / 2, bottom + reach
    changed = image.copy()
    changed.paste((128, 128, 128), tuple(map(round, bar)))
    return changed


changes = {
    "JPEG, quality 20": jpeg(photo, 20),
    "half as bright": ImageEnhance.Brightness(photo).enhance(0.5),
    "half the contrast": ImageEnhance.Contrast(photo).enhance(0.5),
    "without colour": ImageOps.grayscale(photo),
    "half the size": photo.resize((photo.width // 2, photo.height // 2)),
    "turned by 15 degrees": photo.rotate(15, Image.Resampling.BICUBIC),
    "mirror image": ImageOps.mirror(photo),
    "blurred, radius 3 pixels": photo.filter(ImageFilter.GaussianBlur(3)),
    "eyes covered": covered(photo, eyes),
    "mouth covered": covered(photo, mouth),
}
original = analyzer.embed(photo)[0]
likeness, happiness = {}, {}
for name, changed in changes.items():
    for found in analyzer.analyze(changed).faces:
        likeness[name] = analyzer.similarity(original, found.embedding)
        happiness[name] = found.expression.probabilities["happiness"]

# %% alt="Bars: similarity to the untouched photo for each change of the photo"
figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
axes.barh(list(likeness), list(likeness.values()), color="tab:blue")
for place, name in enumerate(likeness):
    axes.text(1.02, place, f"{100 * happiness[name]:.0f} %", va="center")
axes.invert_yaxis()
axes.set(xlim=(min(-0.1, *likeness.values()), 1))
axes.set(xlabel="similarity to the untouched photo (right: probability of happiness)")
plt.show()
print("no face found:", ", ".join(sorted(changes.keys() - likeness.keys())) or "none")

# %% [markdown]
# What a photo is like hardly matters, and a turned head is turned back by its landmarks. The mouth carries this
# expression, as these weights see it: without it the embedding is unrelated to the one before, though the label stays.
#
# ## A map of faces
#
# 1,000 faces of the validation part of FER-2013 (PublicTest), which the weights were not trained on. They come framed,
# so `cropped=True`. t-SNE lays them out on a plane so that near neighbours stay near; distances and empty spaces on
# such a map mean nothing. Colours are the label that most of the ten FER+ taggers chose.

# %% tags=["data"]
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

from fevertools.train.datasets.ferplus import default_data_root, read_ferplus, select

source = read_ferplus(default_data_root())
chosen = select(source, "ferplus8", "validation")
drawn = np.sort(np.random.default_rng(0).permutation(len(chosen.rows))[:1000])
crops, label = source.images[chosen.rows[drawn]], chosen.target[drawn].argmax(axis=1)
results = analyzer.stream(crops, cropped=True)
vectors = np.stack([image.faces[0].embedding for image in results])

unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
search = NearestNeighbors(n_neighbors=11, metric="cosine").fit(unit)
neighbours = search.kneighbors(unit, return_distance=False)[:, 1:]  # without itself
plane = TSNE(metric="cosine", init="pca", random_state=0).fit_transform(unit)
shares = np.bincount(label, minlength=8) / len(label)
figures = {
    "faces": len(vectors),
    "neighbours of one label": float((label[neighbours] == label[:, None]).mean()),
    "by chance": float((shares**2).sum()),
    "map": plane.astype(float).round(1).tolist(),
    "labels": label.tolist(),
}
means = np.stack([unit[label == number].mean(axis=0) for number in range(len(ft.EMOTIONS))])
cosines = np.asarray(ft.similarity(means, means, metric="cosine"), float)
figures["means"] = cosines.round(3).tolist()

# %% alt="A map of faces, coloured by label: points of one label lie together"
place, label = np.array(figures["map"]), np.array(figures["labels"])
figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
for number, name in enumerate(ft.EMOTIONS):
    mine = label == number
    axes.scatter(*place[mine].T, s=6, color=f"C{number}", label=f"{name} ({mine.sum()})")
axes.set(xticks=[], yticks=[], aspect="equal")
axes.legend(markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
alike = figures["neighbours of one label"]
print(f"of the ten nearest faces, {alike:.0%} have the same label;")
print(f"by chance it would be {figures['by chance']:.0%}")

# %% [markdown]
# How alike the labels are on average: the cosine between the mean embeddings of two labels.

# %% alt="Table of cosines between the mean embeddings of the eight labels"
figure, axes = plt.subplots(figsize=(6.4, 5), layout="constrained")
shown = axes.imshow(figures["means"], cmap="coolwarm", vmin=-1, vmax=1)
axes.set_xticks(range(8), ft.EMOTIONS, rotation=45, ha="right")
axes.set_yticks(range(8), ft.EMOTIONS)
for row, values in enumerate(figures["means"]):
    for column, value in enumerate(values):
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8)
figure.colorbar(shown)
plt.show()
