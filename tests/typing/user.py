"""A program of a user that calls everything public, for type checkers: mypy --strict and pyright in strict mode.

`assert_type` says what each call gives, and a comment that allows a wrong call is an error where the call is right. All
but the wrong calls are also run, by test_user.py.
"""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import fevertools as ft
from fevertools import drawing, errors, weights
from fevertools.image import ImageInput, load
from fevertools.labels import EMOTIONS, LANDMARKS
from fevertools.manifest import Hub, WeightsEntry
from fevertools.session import available_devices
from fevertools.types import Explanation, FaceGeometry

Vectors = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]


def functions(photo: Path) -> None:
    """The four words."""
    faces = assert_type(ft.detect(photo, min_face_size=40, max_faces=2), list[ft.Face])
    assert_type(faces[0].box, Vectors)
    assert_type(faces[0].score, float)
    assert_type(faces[0].landmarks, Vectors)
    vectors = assert_type(ft.embed(photo.read_bytes()), Vectors)
    expressions = assert_type(ft.classify(str(photo), device="cpu"), list[ft.Expression])
    assert_type(expressions[0].label, str)
    assert_type(expressions[0].probabilities, Mapping[str, float])
    assert_type(expressions[0].entropy, float)
    assert_type(ft.similarity(vectors[0], vectors[0], metric="cosine"), float | Vectors)
    ft.embed(np.zeros((8, 8, 3), np.uint8), color="bgr")


def sessions(photos: list[ImageInput]) -> None:
    """Analyzer and its results."""
    with ft.Analyzer(threads=1, batch_size=8, flip=True, largest=True, local_files_only=True) as analyzer:
        assert_type(analyzer.detect(photos[0]), list[ft.Face])
        assert_type(analyzer.embed(photos[0]), Vectors)
        assert_type(analyzer.classify(photos[0]), list[ft.Expression])
        assert_type(analyzer.entry, WeightsEntry)
        stream = assert_type(analyzer.stream(photos, on_error="raise"), Generator[ft.ImageResult, None, None])
        for image in stream:
            assert_type(image.source, object)
            assert_type(image.error, ft.FevertoolsError | None)
            for found in assert_type(image.faces, tuple[ft.FaceResult, ...]):
                assert_type(found.face, ft.Face)
                assert_type(found.embedding, Vectors)
                assert_type(found.expression, ft.Expression)
                assert_type(found.to_dict(), dict[str, Any])
        result = assert_type(analyzer.analyze(photos[0]), ft.ImageResult)
        assert_type(result.to_dict(), dict[str, Any])
        similarities = assert_type(analyzer.similarity(analyzer.embed(photos[0]), np.ones(256)), float | Vectors)
        assert np.shape(similarities) == (1,)
        try:
            maps = assert_type(analyzer.explain(photos[0]), list[Explanation])
            assert_type(maps[0].heat("happiness"), Vectors)
        except errors.OptionError as error:  # these weights have no maps
            assert_type(error, errors.OptionError)


def pictures(photo: Path) -> None:
    """Images read and drawn on."""
    analyzer = ft.Analyzer("deepfever-s", device="cpu")
    picture = assert_type(load(photo, max_pixels=10**7), Picture)
    assert_type(drawing.draw_faces(picture, analyzer.detect(picture)), Picture)
    assert_type(drawing.draw_expressions(picture, analyzer.analyze(picture).faces), Picture)


def kept(folder: Path) -> None:
    """Weights, devices and labels."""
    entry = assert_type(weights.find("deepfever-s", "encoder"), WeightsEntry)
    assert_type(weights.resolve(entry, local_files_only=True, cache_dir=folder), dict[str, Path])
    assert_type(entry.geometry, FaceGeometry)
    assert_type(entry.geometry.template(), Vectors)
    assert_type(entry.hub, Hub | None)
    assert_type(entry.metrics, Mapping[str, Any])
    assert_type(available_devices(), tuple[str, ...])
    assert len(EMOTIONS) == len(ft.EMOTIONS) == 8
    assert len(LANDMARKS) == 5
    assert_type(ft.__version__, str)


def probes(photos: list[ImageInput], folder: Path) -> None:
    """scikit-learn."""
    from fevertools.sklearn import ExpressionEmbedder, LinearProbe, load_probe, save_probe

    embedder = assert_type(ExpressionEmbedder(device="cpu", missing="drop").fit(photos), ExpressionEmbedder)
    assert_type(embedder.transform(photos), Vectors)
    vectors, found = embedder.embed(photos)
    assert_type(vectors, Vectors)
    assert_type(found, npt.NDArray[np.bool_])
    assert_type(embedder.get_feature_names_out(), npt.NDArray[np.object_])
    assert_type(embedder.get_params(), dict[str, Any])
    vectors = np.concatenate([vectors, -vectors])
    probe = assert_type(LinearProbe(C=1.0, balanced=True).fit(vectors, np.arange(len(vectors))), LinearProbe)
    assert_type(probe.predict_proba(vectors), npt.NDArray[np.float64])
    assert_type(probe.predict(vectors), npt.NDArray[Any])
    assert_type(probe.classes_, npt.NDArray[Any])
    assert_type(probe.n_iter_, int)
    assert_type(probe.score(vectors, np.arange(len(vectors))), float)
    entry = ft.Analyzer().entry
    save_probe(probe, folder / "own.skops", entry)
    assert_type(load_probe(folder / "own.skops", entry), LinearProbe)


def doors(photos: list[ImageInput], folder: Path) -> None:
    """Videos, reports, a server."""
    from fevertools.report import Written, write_report
    from fevertools.serve import Settings
    from fevertools.video import TrackedFace, VideoFrame, track

    for frame in assert_type(track(photos, every=1, rate=10.0), Generator[VideoFrame, None, None]):
        assert_type(frame.time, float)
        for face in assert_type(frame.faces, tuple[TrackedFace, ...]):
            assert_type(face.track, int)
            assert_type(face.raw, ft.FaceResult)
    assert_type(write_report(photos, folder / "report.html", limit=10), Written)
    assert_type(Settings(max_faces=4).max_faces, int)


def wrong(photo: Path) -> None:
    """What a checker has to refuse; never run."""
    ft.detect(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ft.embed(photo, colour="bgr")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ft.embed(photo, color="gbr")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ft.Analyzer().stream([photo], on_error="stop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ft.classify(photo)[0].label = "joy"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
