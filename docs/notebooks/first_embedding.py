# %% [markdown]
# # A first embedding
#
# One photo, from pixels to numbers. The photo is the astronaut that comes with scikit-image; any path, bytes, PIL image
# or array will do in its place. Everything here runs offline, on the weights inside the package.

# %%
from skimage import data

import fevertools as ft
from fevertools.labels import LANDMARKS

photo = data.astronaut()
print(photo.shape, photo.dtype)

# %% [markdown]
# ## Detect
#
# A box, a score and five landmarks for each face, the largest first. Coordinates are pixels of the upright image.

# %%
(face,) = ft.detect(photo)
print("box", face.box.round(1), "score", round(face.score, 4))
for name, (x, y) in zip(LANDMARKS, face.landmarks, strict=True):
    print(f"{name:20} {x:6.1f} {y:6.1f}")

# %% [markdown]
# ## Embed
#
# The landmarks turn, scale and move the face into the frame that the network was trained on. What comes out is a row of
# 256 numbers for each face: no face would give an array of shape (0, 256), and no error.

# %%
vectors = ft.embed(photo)
print(vectors.shape, vectors.dtype)

# %% alt="Bars: the 256 numbers of the embedding of the astronaut's face"
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(8, 2.2), layout="constrained")
axes.bar(range(vectors.shape[1]), vectors[0], width=1.0, color="tab:blue")
axes.set(xlabel="coordinate", ylabel="value", xlim=(-1, vectors.shape[1]))
plt.show()

# %% [markdown]
# A single coordinate means nothing by itself. Embeddings are to be compared with each other, or given to a
# [classifier of your own](../probes.md).
#
# ## Classify
#
# Calibrated probabilities of eight labels, and the entropy, which says how open the question is: 0 is certain, 2.08
# (ln 8) is no idea.

# %% alt="Bars: the probability of each of the eight labels for the astronaut's face"
(expression,) = ft.classify(photo)
print(expression.label, "entropy", round(expression.entropy, 2))

figure, axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
axes.barh(list(expression.probabilities), list(expression.probabilities.values()))
axes.invert_yaxis()
axes.set(xlim=(0, 1), xlabel="probability that most people would choose the label")
plt.show()

# %% [markdown]
# It tells how the face looks to people, [not what the person feels](../responsible-use.md).
#
# ## All at once, for many images
#
# An `Analyzer` keeps its networks, and `stream` takes any number of images in flat memory. A file that cannot be read
# is a result with an `error`, and the rest goes on.

# %%
with ft.Analyzer(device="cpu") as analyzer:
    for image in analyzer.stream([photo, b"no picture", photo[:100, :100]]):
        print([result.expression.label for result in image.faces], image.error)
