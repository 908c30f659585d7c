"""`fevertools probe`: a classifier of one's own from a folder of labelled faces, in two commands."""

import argparse
import csv
import hashlib
import os
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from fevertools.cli._commands import analyses, analyzer_of, metadata_of, run
from fevertools.cli._inputs import expand
from fevertools.cli._output import open_sink
from fevertools.cli._parser import FAILED, FINE
from fevertools.cli._rows import Column, columns, printable
from fevertools.errors import DataError
from fevertools.pipeline import fills_window
from fevertools.sklearn import LinearProbe, load_probe, save_probe
from fevertools.types import FaceResult

FOLDS = 5


def probe(options: argparse.Namespace) -> int:
    """`fevertools probe fit` and `fevertools probe predict`."""
    return fit(options) if options.action == "fit" else predict(options)


def fit(options: argparse.Namespace) -> int:
    """Embed the largest face of every picture, fit a linear probe, and say how it does on pictures it has not seen."""
    output = Path(options.output)
    if output.exists() and not options.overwrite:
        raise DataError(f"{output} exists; pass --overwrite to replace it")
    paths, names = labelled(Path(options.labelled))
    kept, vectors, failed = [], [], 0
    with analyzer_of(options, largest=not options.cropped) as analyzer:
        shown = not (options.no_progress or options.quiet)
        with closing(analyzer.stream(paths, cropped=options.cropped, progress=shown)) as results:
            for result, name in zip(results, names, strict=True):
                if result.faces:
                    vectors.append(result.faces[0].embedding)
                    kept.append(name)
                    continue
                failed += result.error is not None
                why = "no face" if result.error is None else str(result.error)
                print(f"fevertools: {printable(str(result.source))}: {why}; left out", file=sys.stderr)
        counts = Counter(kept)
        if len(counts) < 2:
            raise DataError(f"faces of {len(counts)} labels were found; a classifier needs two labels or more")
        features, label = np.stack(vectors), np.array(kept)
        made = LinearProbe(options.C, balanced=options.balanced, calibration=options.calibration)
        estimate = cross_validated(made, features, label)
        output.parent.mkdir(parents=True, exist_ok=True)
        save_probe(made.fit(features, label), output, analyzer.entry)
    faces = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    print(f"{output}: {len(kept)} faces ({faces}); {estimate}")
    return FAILED if failed else FINE


def labelled(source: Path) -> tuple[list[str], list[str]]:
    """Paths and labels: of a folder with a subfolder for each label, or of a CSV file with columns `path` and `label`.

    Raises:
        DataError: neither, or no picture in it.
    """
    if source.is_dir():
        below = sorted(entry.name for entry in os.scandir(source) if entry.is_dir() and not entry.name.startswith("."))
        found = [(image.path, name) for name in below for image in expand([str(source / name)], _complain)]
    else:
        try:
            with source.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            found = [(str(source.parent / row["path"]), row["label"]) for row in rows]
        except (OSError, KeyError, TypeError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(
                f"{source} is neither a folder with a subfolder for each label nor a CSV file with the columns path "
                f"and label: {error!r}"
            ) from error
    if not found:
        raise DataError(f"no pictures in {source}; put those of each label into a subfolder named as the label")
    paths, names = zip(*found, strict=True)
    return list(paths), list(names)


def _complain(problem: str) -> None:
    print(f"fevertools: {problem}", file=sys.stderr)


def cross_validated(made: LinearProbe, features: Any, label: Any) -> str:
    """Accuracy on faces that were not fitted on, in words."""
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    folds = min(FOLDS, min(Counter(label.tolist()).values()))
    if folds < 2:
        return "too few faces of a label to estimate its accuracy"
    split = StratifiedKFold(folds, shuffle=True, random_state=0)
    accuracy = cross_val_score(clone(made), features, label, cv=split).mean()
    return f"accuracy on faces left out, {folds} folds: {100 * accuracy:.1f} %"


def predict(options: argparse.Namespace) -> int:
    """One row a face: label and probabilities by the probe."""
    with analyzer_of(options) as analyzer:
        made = load_probe(options.probe, analyzer.entry)
        classes = [str(name) for name in made.classes_]
        metadata = metadata_of("probe predict", analyzer.entry, options, "precision", "flip", "cropped") | {
            "labels": classes,
            "probe": hashlib.sha256(Path(options.probe).read_bytes()).hexdigest(),
        }
        names = tuple(f"p_{name}" for name in classes)
        of_probe = (Column("label", "str"), Column("probabilities", "float32", (len(classes),), names, tuple(classes)))

        def extra(face: FaceResult) -> dict[str, Any]:
            probabilities = made.predict_proba(face.embedding[None])[0]
            return {
                "label": classes[int(probabilities.argmax())],
                "probabilities": [float(np.float32(p)) for p in probabilities],
            }

        def is_group(images: int, faces: int) -> bool:
            return fills_window(images, faces, options.batch_size)

        with open_sink(options, (*columns("detect"), *of_probe), metadata, is_group) as sink:
            return run(options, sink, lambda images: analyses(options, analyzer, images, extra))
