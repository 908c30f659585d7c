"""Arrays and options of every kind: what is documented works, and all else is refused by an error of ours."""

import numpy as np
import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("onnx")

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fevertools
from fevertools.align import crop_face, estimate_similarity
from fevertools.errors import DegenerateFaceError, FevertoolsError, ImageError, OptionError
from fevertools.labels import EMOTIONS
from fevertools.options import MOST_THREADS
from fevertools.pipeline import Analyzer
from fevertools.preprocess import fit_crop, to_luminance
from fevertools.session import available_devices
from fevertools.similarity import similarity
from fevertools.types import FaceGeometry
from tests._tiny import DIMENSION, LANDMARKS

# The same examples every time: what CI finds, anyone can find again.
settings.register_profile(
    "reliability",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("reliability")

GEOMETRY = FaceGeometry(48, 48, tuple(map(tuple, LANDMARKS)))


@pytest.fixture(scope="module")
def analyzer(tiny_weights):
    with Analyzer(tiny_weights, device="cpu", threads=1, max_pixels=100_000) as analyzer:
        yield analyzer


# -------------------------------------------------------------------------------------------------------------- arrays


def laid_out(array, layout):
    """The same values in another layout of memory, where the array has the axes for it."""
    turned = {
        "plain": lambda: array,
        "fortran": lambda: np.asfortranarray(array),
        "backwards": lambda: np.ascontiguousarray(array[::-1])[::-1],
        "strided": lambda: np.repeat(array, 3, axis=0)[::3],
        "turned": lambda: np.ascontiguousarray(array.swapaxes(0, 1)).swapaxes(0, 1) if array.ndim > 1 else array,
    }
    array = turned[layout]() if array.ndim else array
    array.flags.writeable = False
    return array


LAYOUTS = st.sampled_from(("plain", "fortran", "backwards", "strided", "turned"))
DTYPES = st.one_of(
    hnp.scalar_dtypes(), hnp.byte_string_dtypes(max_len=3), hnp.unicode_string_dtypes(max_len=3), st.just(np.dtype("O"))
)
PICTURES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)))
GRAYS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)))
ANY_ARRAY = st.one_of(
    hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)),
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)),
)
HUGE = st.builds(
    # Nothing but its shape is large: all its values lie in one byte.
    lambda shape, dtype: np.lib.stride_tricks.as_strided(np.zeros(1, dtype), shape, (0,) * len(shape)),
    st.sampled_from([(10**9,), (10**9, 10**9), (1, 10**9, 3), (10**9, 1), (10**6, 10**6, 3), (10**5,) * 3, (9,) * 9]),
    st.sampled_from([np.uint8, np.float32]),
)


def is_image(array):
    return array.dtype == np.uint8 and array.ndim in (2, 3) and array.shape[2:] in ((), (3,)) and array.size > 0


@given(st.one_of(PICTURES, GRAYS, ANY_ARRAY), LAYOUTS, st.sampled_from(("rgb", "bgr")))
def test_an_array_is_an_image_or_refused(analyzer, array, layout, color):
    array = laid_out(array, layout)
    if not is_image(array):
        for call in (analyzer.detect, analyzer.embed, analyzer.classify):
            with pytest.raises(ImageError):
                call(array, color=color)
        return
    plain = np.array(array[:, :, ::-1] if array.ndim == 3 and color == "bgr" else array, order="C")
    vectors = analyzer.embed(array, cropped=True, color=color)
    assert (vectors.shape, vectors.dtype) == ((1, DIMENSION), np.float32)
    np.testing.assert_array_equal(vectors, analyzer.embed(plain, cropped=True))
    (expression,) = analyzer.classify(array, cropped=True, color=color)
    assert list(expression.probabilities) == list(EMOTIONS)
    assert sum(expression.probabilities.values()) == pytest.approx(1)
    faces = analyzer.detect(array, color=color)
    assert [face.score for face in faces] == [face.score for face in analyzer.detect(plain)]
    assert analyzer.embed(array, color=color).shape == (len(faces), DIMENSION)


@given(HUGE)
def test_a_huge_array_is_refused(analyzer, array):
    for call in (analyzer.detect, analyzer.embed, analyzer.classify, fevertools.detect):
        with pytest.raises(ImageError):
            call(array)


@given(st.one_of(PICTURES, GRAYS, ANY_ARRAY), LAYOUTS)
def test_crops_of_an_array_or_a_refusal(array, layout):
    array = laid_out(array, layout)
    for make in (
        lambda: fit_crop(array, GEOMETRY),
        lambda: to_luminance(fit_crop(array, GEOMETRY)),
        lambda: crop_face(array, GEOMETRY.template(), GEOMETRY),
    ):
        if is_image(array):
            assert make().shape[:2] == (48, 48)
        else:
            with pytest.raises(ImageError):
                make()


# ------------------------------------------------------------------------------------------------------------- numbers

FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@given(hnp.arrays(np.float64, (5, 2), elements=FLOATS))
def test_any_landmarks_give_a_crop_or_a_refusal(landmarks):
    picture = np.full((30, 40, 3), 77, np.uint8)
    try:
        crop = crop_face(picture, landmarks, GEOMETRY)
    except DegenerateFaceError:
        return
    # Wherever the face is said to be, only pixels of the picture are shown.
    assert np.isfinite(landmarks).all()
    assert crop.shape == (48, 48, 3)
    assert (crop == 77).all()


@given(st.one_of(ANY_ARRAY, HUGE))
def test_landmarks_of_another_shape(landmarks):
    assume(landmarks.shape != (5, 2))
    with pytest.raises(OptionError):
        crop_face(np.zeros((30, 40), np.uint8), landmarks, GEOMETRY)


@given(hnp.arrays(DTYPES, (5, 2)))
def test_landmarks_of_another_dtype(landmarks):
    real = np.can_cast(landmarks.dtype, np.float64, "same_kind")
    with pytest.raises(DegenerateFaceError if real else OptionError):
        crop_face(np.zeros((30, 40), np.uint8), np.repeat(landmarks[:1], 5, axis=0), GEOMETRY)  # they coincide


@given(hnp.arrays(np.float64, (4, 2), elements=FLOATS), hnp.arrays(np.float64, (4, 2), elements=FLOATS))
def test_a_fit_is_finite_or_refused(source, target):
    try:
        matrix = estimate_similarity(source, target)
    except DegenerateFaceError:
        return
    assert np.isfinite(matrix).all()


VECTORS = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64, np.longdouble]),
    hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=4),
)


def usable(array):
    return (
        np.issubdtype(array.dtype, np.floating)
        and array.ndim in (1, 2)
        and array.shape[-1] > 0
        and bool(np.isfinite(array).all() and (np.abs(array) <= np.finfo(np.float64).max).all())
    )


def cosine(a, b):
    """Of two vectors of finite numbers, each first divided by its largest, which leaves the angle."""
    a, b = (vector.astype(np.longdouble) / (np.abs(vector).max() or 1) for vector in (a, b))
    lengths = np.sqrt((a**2).sum()) * np.sqrt((b**2).sum())
    return float((a * b).sum() / lengths) if lengths else 0.0


@given(VECTORS, VECTORS)
def test_embeddings_are_compared_or_refused(a, b):
    if not (usable(a) and usable(b) and a.shape[-1] == b.shape[-1]):
        with pytest.raises(OptionError):
            similarity(a, b)
        return
    found = np.asarray(similarity(a, b))
    assert found.shape == (*a.shape[:-1], *b.shape[:-1])
    assert (np.abs(found) <= 1).all()
    expected = [[cosine(x, y) for y in np.atleast_2d(b)] for x in np.atleast_2d(a)]
    np.testing.assert_allclose(found, np.reshape(expected, found.shape), atol=1e-6)


@given(st.one_of(ANY_ARRAY, HUGE, VECTORS), LAYOUTS, st.sampled_from(["cosine", "triplet", None]))
def test_similarity_refuses_what_is_no_embedding(analyzer, value, layout, metric):
    if value.size < 10**6:
        value = laid_out(value, layout)
    if usable(value) if value.size < 10**6 else value.dtype == np.float32 and value.ndim <= 2:
        return
    with pytest.raises(OptionError):
        similarity(value, value, metric=metric)
    with pytest.raises(OptionError):
        analyzer.similarity(value, value, metric=metric)


# ------------------------------------------------------------------------------------------------------------- options

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.sampled_from([2**63, 10**400, np.int64(1), np.float32(0.5), np.True_, b"cpu", object, {}, ...]),
    FLOATS,
    st.text(max_size=4),
    st.sampled_from(["cpu", "auto", "cuda", "no\0where", "\ud800", "\ud800.json", "a\0.json", "/", "a/b@c:d", ".json"]),
    st.lists(FLOATS, max_size=4),
    st.lists(st.text(max_size=3), max_size=2),
    hnp.arrays(np.float64, hnp.array_shapes(max_dims=2, max_side=3)),
)
OPTIONS = (
    "weights", "device", "providers", "threads", "batch_size", "flip", "min_face_size", "thresholds", "max_faces",
    "largest", "max_pixels",
)  # fmt: skip
PICTURE = np.full((48, 48), 120, np.uint8)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(OPTIONS), JUNK, min_size=1, max_size=2))
def test_options_of_an_analyzer(tiny_weights, options):
    try:
        with Analyzer(**{"weights": tiny_weights, "local_files_only": True, "device": "cpu", **options}) as made:
            assert made.detect(PICTURE) == []
            assert len(made.embed(PICTURE, cropped=True)) == 1
    except FevertoolsError:
        return
    assert fine(options)


def fine(options):
    """What may be taken, judged without the package's own checks."""

    def number(value, least, most=None):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        return whole and least <= value and (most is None or value <= most)

    rules = {
        "device": lambda value: options.get("providers") is not None or value in ("auto", *available_devices()),
        "providers": lambda value: value is None or (isinstance(value, list) and len(value) > 0),
        "threads": lambda value: value is None or number(value, 1, MOST_THREADS),
        "batch_size": lambda value: number(value, 1),
        "flip": lambda value: isinstance(value, bool | np.bool_),
        "min_face_size": lambda value: value is None or number(value, 4),
        "thresholds": lambda value: value is None or (len(value) == 3 and all(0 < item < 1 for item in value)),
        "max_faces": lambda value: value is None or number(value, 1),
        "largest": lambda value: isinstance(value, bool | np.bool_),
        "max_pixels": lambda value: number(value, PICTURE.size),
        "weights": lambda value: value is None,
    }
    return all(rules[name](value) for name, value in options.items())


@given(st.sampled_from(["color", "cropped", "metric", "on_error", "images"]), JUNK)
def test_arguments_of_the_methods(analyzer, name, value):
    vector = np.ones(DIMENSION)
    calls = {
        "color": lambda: analyzer.detect(PICTURE, color=value),
        "cropped": lambda: analyzer.embed(PICTURE, cropped=value),
        "metric": lambda: analyzer.similarity(vector, vector, metric=value),
        "on_error": lambda: analyzer.stream([PICTURE], on_error=value),
        "images": lambda: [result.faces for result in analyzer.stream(value)],
    }
    taken = {
        "color": ["rgb", "bgr"],
        "cropped": [True, False],
        "metric": [None, "cosine"],
        "on_error": ["skip", "raise"],
    }
    try:
        found = calls[name]()
    except FevertoolsError:
        return
    # Of junk, a stream takes the iterables, and refuses each item of theirs by itself.
    assert value in taken[name] if name != "images" else not any(found)


@given(st.sampled_from(["min_face_size", "thresholds", "max_faces", "largest", "color"]), JUNK)
def test_arguments_of_detect(name, value):
    try:
        fevertools.detect(PICTURE, **{name: value})
    except FevertoolsError:
        return
    assert value in ("rgb", "bgr") if name == "color" else fine({name: value})
