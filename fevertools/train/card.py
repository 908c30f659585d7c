"""The model card of an encoder, written from its manifest entry: the README of its repository, and docs/cards."""

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from fevertools.errors import ManifestError
from fevertools.labels import LANDMARKS
from fevertools.manifest import EncoderInput, WeightsEntry

TAGS: Final = ("facial-expression-recognition", "emotion-recognition", "face", "embeddings", "onnx")

GLOSSARY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "PublicTest": "the validation split of FER-2013. Everything was chosen on it, the temperature too.",
        "PrivateTest": "the test split of FER-2013, read once for the network that ships.",
        "LFW": "Labeled Faces in the Wild. No label of it was trained on; the table of data below tells whether its "
        "faces were, without labels.",
        "single": "the network as it is.",
        "flip": "the mean of the logits of an image and of its mirror image, `Analyzer(flip=True)`.",
        "ferplus8": "FER+ images whose top vote is one of the eight emotions; votes of 1 are dropped.",
        "ferplus8-majority": "of those, those whose top vote has more than half of the votes: the FER+ authors' rule.",
        "ferplus7": "ferplus8 without contempt.",
        "fer2013": "the seven labels of FER-2013 itself.",
        "all": "every row.",
        "without earlier twins": "without the rows whose very pixels occur in an earlier split.",
        "n": "number of rows.",
        "accuracy": "percent of the rows that are right: the most probable label is the one with the most votes; of "
        "triplets, the closest pair is the one that votes find alike.",
        "mean_recall": "mean over the classes of their recall, percent.",
        "mean_f1": "mean over the classes of their F1, percent.",
        "recall": "percent of the rows of each class that are found.",
        "f1": "F1 of each class, percent.",
        "int8": "the same weights in 8-bit arithmetic; all other figures are of float32.",
        "fidelity": "int8 against float32, the same faces.",
        "cosine_mean": "of the two embeddings of a face, mean over the faces.",
        "cosine_percentile_1": "the cosine that 99 % of the faces exceed.",
        "cosine_min": "the cosine of the face whose embeddings differ most.",
        "same_label": "percent of the faces whose most probable label is the same.",
        "ece": "expected calibration error, 0 to 1, 15 bins (Guo et al. 2017).",
        "cross_entropy": "against the distribution of the votes, nats.",
        "kl": "divergence from the distribution of the votes, nats.",
        "temperature": "what the logits are divided by, inside of the graph.",
        "probe": "a logistic regression that was fitted to the embeddings of the training split.",
        "triplets": "triplets of faces of which votes find two alike and the third different; a third is chance.",
        "transfer": "the emotions of faces of LFW, with the class head as it is (zero-shot) and with a probe.",
        "leakage": "how well the cosine of two embeddings tells whether they show the same person.",
        "auc": "area under the ROC curve; 0.5 is chance.",
    }
)
"""What a name in `metrics` means."""

LICENCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        name: name.lower()
        for name in ("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0",
                     "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0")
    }
)  # fmt: skip
"""SPDX name -> the Hub's name. Any other licence is the Hub's "other"."""

LIMITS: Final = """\
- It tells how a face looks to people, **not what the person feels**. An expression is no proof of a feeling, of an
  intention or of the truth of what is said.
- People disagree about faces, and so do the labels: read all probabilities and the `entropy`, not the top label only.
- The faces it learned from were posed or collected from the web, most of them small; expressions of daily life are
  fainter. Occlusion, profile views, strong blur and drawings are outside of what was measured.
- How well it does for people of different **age, gender, skin tone or culture has not been measured**: the data names
  no such groups. Expect it to be worse for those whom the data seldom shows.
- Labels that are rare in the data are found less often.
- It is no face recognition and must not be used to tell who somebody is."""

MISUSES: Final = """\
- Decisions about people: hiring, promotion, grading, credit, insurance, access to services, border control, policing,
  courts.
- Watching the emotions of people at work or in education. In the European Union this is prohibited, except for medical
  or safety reasons (Regulation (EU) 2024/1689, the AI Act, Article 5(1)(f)); there, other emotion recognition counts
  as high-risk (Annex III), and the people concerned must be told (Article 50(3)).
- Diagnosis or treatment of any condition, lie detection, the detection of intent or of danger.
- Watching, profiling or advertising to people who have not agreed to it."""


def model_card(entry: WeightsEntry, repo_id: str | None = None) -> str:
    """The card of an encoder, Markdown with the Hub's block of metadata in front.

    Args:
        entry: the manifest entry, from which all figures are.
        repo_id: the repository that the card goes into; None is the documentation of the package.

    Raises:
        ManifestError: the entry is not an encoder's.
    """
    if entry.input is None:
        raise ManifestError(f"weights.{entry.name} is a {entry.kind}; only encoders have cards")
    sections = {
        f"# {entry.name}": _introduction(entry),
        "## Use": _use(entry, repo_id),
        "## Input and output": _geometry(entry, entry.input),
        "## Figures": _figures(entry.metrics),
        "## How the figures were measured": _measured(entry),
        "## Training": _training(entry),
        "## Limits": LIMITS,
        "## Uses to avoid": MISUSES,
        "## Files": _files(entry),
    }
    body = "\n\n".join(f"{title}\n\n{text}" for title, text in sections.items())
    return f"---\n{_metadata(entry)}\n---\n\n{body}\n"


def _metadata(entry: WeightsEntry) -> str:
    known = LICENCES.get(entry.licence)
    # A JSON string is a YAML one.
    licence = [f"license: {known}"] if known else ["license: other", f"license_name: {json.dumps(entry.licence)}"]
    rest = [
        "library_name: fevertools",
        "pipeline_tag: image-feature-extraction",
        "tags:",
        *(f"- {tag}" for tag in TAGS),
    ]
    return "\n".join((*licence, *rest))


def _introduction(entry: WeightsEntry) -> str:
    return (
        f"{_plain(entry.title)} Version {_plain(entry.version)}, licence {_plain(entry.licence)}.\n\n"
        f"From the picture of one face to an embedding of {entry.dimension} numbers, which says how its expression "
        f"looks, and to calibrated probabilities of {len(entry.labels)} labels: {', '.join(entry.labels)}. It runs in "
        "ONNX Runtime through the Python package fevertools, which finds and frames the faces."
    )


def _use(entry: WeightsEntry, repo_id: str | None) -> str:
    published = None if entry.hub is None else f"{entry.hub.repo_id}@{entry.hub.revision}"
    if repo_id is not None:
        # The commit that the card is part of cannot be named in it.
        published = f"{repo_id}@COMMIT"
    sources = [] if repo_id is not None else [(entry.name, "a name that the package knows")]
    if published is not None:
        sources.append((f"{published}:{entry.name}", "from the Hub, at a full commit"))
    calls = "\n".join(f'analyzer = ft.Analyzer("{name}")  # {words}' for name, words in sources)
    return (
        f"```python\nimport fevertools as ft\n\n{calls}\n"
        'for face in analyzer.analyze("photo.jpg").faces:\n'
        f"    face.embedding  # float32 ({entry.dimension},)\n"
        "    face.expression  # label, probabilities of all labels, entropy\n```"
    ) + _precisions(entry)


def _precisions(entry: WeightsEntry) -> str:
    if "int8" not in entry.files:
        return ""
    return (
        f'\n\n`ft.Analyzer("{entry.name}", precision="int8")` computes with 8-bit integers, calibrated on PublicTest '
        "faces. The embeddings of both precisions can be compared with each other. It is faster on CPUs with "
        "instructions for 8-bit products (AVX-512 VNNI, AVX-VNNI, AMX, dot products of ARM), which `fevertools doctor` "
        "looks for, and hardly on others."
    )


def _geometry(entry: WeightsEntry, read: EncoderInput) -> str:
    shape = read.geometry
    points = [
        (name, f"{x:g}", f"{y:g}", f"{x * shape.width:.1f}", f"{y * shape.height:.1f}")
        for name, (x, y) in zip(LANDMARKS, shape.landmarks, strict=True)
    ]
    places = {"maps": ", rows, columns"}
    outputs = "; ".join(f"`{n}` float32 (N, {width}{places.get(n, '')})" for n, width in entry.outputs.items())
    return (
        f"Input `{read.name}`: uint8 (N, {shape.height}, {shape.width}, 1), luminance. Training pixels have the mean "
        f"{read.mean:g} and the deviation {read.std:g}; normalisation: {_plain(read.normalisation)}. The similarity "
        "transform that frames a face moves its landmarks, as nearly as it can, to fractions of width and height:\n\n"
        + _table(("landmark", "x", "y", "x, pixels", "y, pixels"), points)
        + f"\n\nLeft and right are those of the picture. Outputs: {outputs}."
    )


def _figures(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return "Nothing has been measured yet."
    single = {name: value for name, value in metrics.items() if not isinstance(value, Mapping)}
    parts = [_table(("figure", "value"), [(_plain(name), _number(value)) for name, value in single.items()])]
    for name, part in metrics.items():
        if isinstance(part, Mapping):
            parts += [f"### {_plain(name)}", *_tables(part)]
    return "\n\n".join(part for part in parts if part)


def _tables(part: Mapping[str, Any]) -> list[str]:
    """Every object that holds figures is a row; those with the same names, or fewer, share a table."""
    leaves = [(", ".join(place), figures) for place, figures in _leaves(part)]
    tables: list[list[tuple[str, dict[str, Any]]]] = []
    # Those with most names first, so that the others find the table that has them all.
    for leaf in sorted(leaves, key=lambda leaf: -len(leaf[1])):
        fitting = [rows for rows in tables if leaf[1].keys() <= rows[0][1].keys()]
        if fitting:
            fitting[0].append(leaf)
        else:
            tables.append([leaf])
    written = {}
    for columns, rows in ((list(rows[0][1]), sorted(rows, key=leaves.index)) for rows in tables):
        cells = [(_plain(name), *(_number(figures.get(column, "")) for column in columns)) for name, figures in rows]
        written[leaves.index(rows[0])] = _table(("", *(_plain(column).replace("_", " ") for column in columns)), cells)
    return [written[place] for place in sorted(written)]


def _leaves(value: Mapping[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every object that holds numbers or texts itself: the names on the way to it, and those."""
    own = {name: item for name, item in value.items() if not isinstance(item, Mapping)}
    if own:
        yield place, own
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _leaves(item, (*place, name))


def _measured(entry: WeightsEntry) -> str:
    used = set(_names(entry.metrics))
    lines = [f"- **{name.replace('_', ' ')}**: {meaning}" for name, meaning in GLOSSARY.items() if name in used]
    command = f"`python -m fevertools.train evaluate {entry.name} --split test --manifest weights_manifest.json`"
    if "int8" in entry.metrics:
        command += "; what stands under int8, by the same with `--precision int8`"
    return "\n".join((f"With the very file that ships, on a CPU, by {command}.", *([""] if lines else []), *lines))


def _names(metrics: Mapping[str, Any]) -> Iterator[str]:
    for name, value in metrics.items():
        yield name
        if isinstance(value, Mapping):
            yield from _names(value)


def _training(entry: WeightsEntry) -> str:
    sources = [(_link(source), _plain(source["terms"]), _plain(source.get("use", "training"))) for source in entry.data]
    recipe = f"`{entry.recipe}`" if entry.recipe is not None else "none is kept"
    return (
        f"Started from: {_plain(entry.start)}. Recipe: {recipe}.\n\n"
        + _table(("data", "terms", "used for"), sources)
        + "\n\nThe licence above is that of the weights. Whether the terms of the data allow what you want to do with "
        "them is for you to find out."
    )


def _link(source: Mapping[str, str]) -> str:
    name = _plain(source["name"])
    return f"[{name}]({source['url']})" if "url" in source else name


def _files(entry: WeightsEntry) -> str:
    rows = [(role, f"`{file.path}`", f"{file.size:,}", f"`{file.sha256}`") for role, file in entry.files.items()]
    return _table(("role", "file", "bytes", "SHA-256"), rows)


def _table(names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; nothing without rows. A first column in which nothing stands is left out."""
    if not rows:
        return ""
    if not any(row[0] for row in rows):
        names, rows = names[1:], [row[1:] for row in rows]
    lines = [" | ".join(row) for row in (names, *rows)]
    return "\n".join((f"| {lines[0]} |", "|---" * len(names) + "|", *(f"| {line} |" for line in lines[1:])))


def _number(value: object) -> str:
    if isinstance(value, str):
        return _plain(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
