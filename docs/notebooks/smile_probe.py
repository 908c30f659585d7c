# %% [markdown]
# # A smile detector of your own
#
# A linear probe on frozen embeddings, from labelled photos to a figure that can be trusted. The photos are those of
# Labeled Faces in the Wild (LFW) that carry a label for smiling: 3,780 of 2,292 people, half of them smiling.
#
# Two rules make the figure worth something:
#
# - **Nobody is on both sides.** A person's other photo is an easy test: whoever is in the training photos is in no test
#   photo. Here the folder of a photo tells people apart; any number of a person, or of a recording, does.
# - **The test is used once.** What has to be chosen, here the strength of the penalty, is chosen on training photos.

# %% tags=["data"]
import csv
import os
import zipfile
from pathlib import Path

import numpy as np
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

import fevertools as ft
from fevertools.sklearn import LinearProbe

lfw = Path(os.environ.get("FEVERTOOLS_DATA", "../shared/data")) / "lfw"
with (lfw / "lfw_expression_labels.csv").open(newline="", encoding="utf-8") as file:
    rows = [row for row in csv.DictReader(file) if row["smile"]]
folders = [row["file"].split("/")[0] for row in rows]
people = np.unique(folders, return_inverse=True)[1]  # a number for each person
smile = np.array([int(row["smile"]) for row in rows])
print(len(rows), "photos;", people.max() + 1, "people;", f"{smile.mean():.1%} smile")

# %% [markdown]
# ## Embed once
#
# The largest face of each photo, straight from the archive. Faces are large here, so looking for small ones is a waste:
# `min_face_size=60`. The probabilities of the package's own labels come along, to compare with later.

# %% tags=["data"]
archive = zipfile.ZipFile(lfw / "lfw_deepfunneled.zip")
photos = (archive.read(f"lfw-deepfunneled/{row['file']}") for row in rows)
with ft.Analyzer(largest=True, min_face_size=60) as analyzer:
    faces = [next(iter(image.faces), None) for image in analyzer.stream(photos)]

found = np.array([face is not None for face in faces])
vectors = np.stack([face.embedding for face in faces if face])
probabilities = [face.expression.probabilities for face in faces if face]
happy = np.array([row["happiness"] for row in probabilities])
smile, people = smile[found], people[found]
print(vectors.shape, "embeddings;", (~found).sum(), "photos without a face")

# %% [markdown]
# ## Fit, and test once
#
# A fifth of the people is set aside. `C` is chosen by cross-validation among the others, again with nobody on both
# sides. The measure is **balanced accuracy**, the mean of the recalls of both labels, for which guessing gives 50 %
# whatever the share of the labels.

# %% tags=["data"]
fifths = StratifiedGroupKFold(5, shuffle=True, random_state=0)
train, test = next(fifths.split(vectors, smile, people))
assert not set(people[train]) & set(people[test])

folds = StratifiedGroupKFold(4, shuffle=True, random_state=0)
choices = {"C": [0.001, 0.01, 0.1, 1.0]}
search = GridSearchCV(LinearProbe(), choices, scoring="balanced_accuracy", cv=folds)
search.fit(vectors[train], smile[train], groups=people[train])

probability = search.predict_proba(vectors[test])[:, 1]
right = (probability > 0.5) == smile[test]

# How far the figure would move with other people: these are drawn again and again.
generator = np.random.default_rng(0)
tested, number = np.unique(people[test], return_inverse=True)
draws = []
for _ in range(1000):
    drawn = generator.integers(len(tested), size=len(tested))
    weight = np.bincount(drawn, minlength=len(tested))[number]  # times that each face came
    recalls = [
        np.average(right[smile[test] == label], weights=weight[smile[test] == label])
        for label in (0, 1)
    ]
    draws.append(np.mean(recalls))

figures = {
    "faces": len(vectors),
    "people": len(set(people)),
    "training faces": len(train),
    "test faces": len(test),
    "test people": len(tested),
    "C": str(search.best_params_["C"]),
    "balanced accuracy": balanced_accuracy_score(smile[test], probability > 0.5),
    "lower end, 95 %": np.quantile(draws, 0.025),
    "upper end, 95 %": np.quantile(draws, 0.975),
    "area under the curve": roc_auc_score(smile[test], probability),
    "happiness above one half": balanced_accuracy_score(smile[test], happy[test] > 0.5),
    "larger label": max(smile[test].mean(), 1 - smile[test].mean()),
}

# %% [markdown]
# ## How many faces does it take?
#
# The same test people, and probes on random draws of the training faces, ten draws of each size.

# %% tags=["data"]
sizes, means, spreads = [10, 20, 50, 100, 200, 500, 1000], [], []
for size in sizes:
    scores = []
    for _ in range(10):
        both = [generator.permutation(train[smile[train] == label]) for label in (0, 1)]
        drawn = np.concatenate([faces[: size // 2] for faces in both])
        probe = LinearProbe(**search.best_params_).fit(vectors[drawn], smile[drawn])
        predicted = probe.predict(vectors[test])
        scores.append(balanced_accuracy_score(smile[test], predicted))
    means.append(float(np.mean(scores)))
    spreads.append(float(np.std(scores)))
figures |= {"sizes": sizes, "means": means, "spreads": spreads}
figures["probabilities"] = [
    np.histogram(probability[smile[test] == label], 20, (0, 1))[0].tolist()
    for label in (0, 1)
]

# %% [markdown]
# ## What came out

# %%
lines = {
    "balanced accuracy of the probe": "balanced accuracy",
    "  lower end of 95 % of the draws": "lower end, 95 %",
    "  upper end": "upper end, 95 %",
    "the package's happiness above one half": "happiness above one half",
    "share of the larger label in the test": "larger label",
    "area under the curve of the probe": "area under the curve",
}
for words, name in lines.items():
    print(f"{words:40} {figures[name]:6.1%}")
print(f"{'chance':40} {0.5:6.1%}")
print(figures["test faces"], "test faces of", figures["test people"], "people,", end=" ")
print("none of whom is in the training photos")

# %% alt="Balanced accuracy over the number of training faces; test faces over the probability of a smile"
import matplotlib.pyplot as plt
import numpy as np

figure, (curve, bars) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
means, spreads = 100 * np.array(figures["means"]), 100 * np.array(figures["spreads"])
curve.errorbar(figures["sizes"], means, spreads, marker="o")
everything = 100 * figures["balanced accuracy"]
curve.axhline(everything, color="tab:gray", linestyle="--", label="all training faces")
curve.axhline(50, color="tab:red", linestyle=":", label="chance")
curve.set(xscale="log", ylim=(45, 100))
curve.set(xlabel="training faces", ylabel="balanced accuracy, %")
curve.legend(loc="lower right")

places = np.arange(20) / 20 + 0.025
for label, counts in zip(("no smile", "smile"), figures["probabilities"], strict=True):
    bars.bar(places, counts, width=0.05, alpha=0.6, label=label)
bars.set(yscale="log", xlabel="probability of a smile by the probe", ylabel="test faces")
bars.legend()
plt.show()

# %% [markdown]
# Read it with care:
#
# - A smile is an easy expression, and the default weights were trained on happiness, so that their own label does
#   nearly as well without any probe: a difference smaller than the interval above is none. Expressions that they were
#   not trained on may be harder: measure yours.
# - The people of LFW are public figures in press photos of some twenty years ago. What holds for them may not hold for
#   those whom your pictures show.
# - A probe tells what its labels say. Whether the taggers saw a smile or a showing of teeth, nobody knows.
#
# The same in two commands, for folders of photos: [`fevertools probe`](../probes.md).
