"""From frames to followed faces, with networks and without."""

import gc
import weakref

import numpy as np
import pytest

from fevertools import EMOTIONS, Analyzer
from fevertools.errors import OptionError, VideoError
from fevertools.video import TrackedFace, VideoFrame, track
from fevertools.video.sources import open_source
from fevertools.video.tracking import EarlierFace, FaceTracker, follow
from tests.video.conftest import found, picture


@pytest.fixture
def analyzer(tiny_weights):
    with Analyzer(tiny_weights, device="cpu", threads=1) as made:
        yield made


def crossing(count):
    """Two faces that cross, in frames of varying distance, with made-up probabilities and embeddings."""
    rng = np.random.default_rng(5)
    times = np.cumsum(rng.uniform(0.02, 0.1, count))
    for time in times:
        pair = [
            found(place, 0, 40, rng.dirichlet(np.ones(8)), rng.normal(size=4))
            for place in (100 * time, 200 - 100 * time)
        ]
        yield time, pair if rng.random() < 0.8 else pair[:1]


def values(faces):
    return [(f.track, *f.expression.probabilities.values(), *f.embedding.tolist()) for f in faces]


def test_what_comes_out_is_smoothed_and_what_went_in_is_kept():
    tracker = FaceTracker(smoothing=0.5)
    first, second = (found(0, 0, 40, np.eye(8)[label], np.full(4, label)) for label in (1, 4))
    (one,) = tracker.update(0.0, [first])
    assert isinstance(one, TrackedFace)
    assert (one.expression.label, one.expression.probabilities["happiness"]) == ("happiness", 1.0)
    (two,) = tracker.update(0.2, [second])
    share = 1 - np.exp(-0.4)
    assert two.track == 1
    assert two.expression.label == "happiness"  # anger has less than half yet
    assert two.expression.probabilities["anger"] == pytest.approx(share, abs=1e-6)
    np.testing.assert_allclose(two.embedding, 1 + 3 * share, rtol=1e-6)
    assert two.raw is second
    assert two.face is second.face
    (three,) = tracker.update(0.8, [second])
    assert three.expression.label == "anger"


@pytest.mark.parametrize("smoothing", [-1, float("nan"), float("inf"), "1", True, None])
def test_smoothing_is_seconds(smoothing):
    with pytest.raises(OptionError, match="smoothing"):
        FaceTracker(smoothing)


@pytest.mark.parametrize("stop", [1, 7, 20, 39])
@pytest.mark.parametrize("embeddings", [True, False])
def test_a_run_goes_on_as_if_it_had_not_stopped(stop, embeddings):
    frames = list(crossing(40))
    whole, second = FaceTracker(0.4), FaceTracker(0.4)
    expected = [whole.update(time, faces) for time, faces in frames]
    for (time, _), faces in zip(frames[:stop], expected, strict=False):
        kept = [EarlierFace(f.track, f.face, f.expression, f.embedding if embeddings else None) for f in faces]
        second.restore(time, kept)
    for (time, faces), wanted in zip(frames[stop:], expected[stop:], strict=True):
        got = second.update(time, faces)
        if embeddings:
            assert values(got) == values(wanted)
        else:
            assert [(f.track, f.expression) for f in got] == [(f.track, f.expression) for f in wanted]


def test_another_earlier_run_is_refused():
    tracker = FaceTracker()
    face = found(0, 0)
    with pytest.raises(VideoError, match="another way"):
        tracker.restore(0.0, [EarlierFace(3, face.face, face.expression, None)])
    shots = [(0.0, picture(0)), (1.0, picture(1))]
    with open_source(shots) as opened, pytest.raises(VideoError, match="further"):
        list(follow(opened, lambda shown: [], FaceTracker(), earlier=iter([(), (), ()])))


def test_frames_of_an_earlier_run_are_not_analyzed_again():
    analyzed = []
    shots = open_source([(time, picture(time)) for time in range(5)])
    earlier = iter([(), ()])
    given = list(follow(shots, lambda shown: analyzed.append(shown) or [], FaceTracker(), every=2, earlier=earlier))
    assert [None if frame is None else frame.index for frame in given] == [None, None, 4]
    assert len(analyzed) == 1
    np.testing.assert_array_equal(analyzed[0], picture(4))


# ------------------------------------------------------------------------------------------------- with the networks


def test_cropped_frames_are_one_track(analyzer):
    pictures = [picture(i, 48, 48) for i in range(6)]
    frames = list(track(pictures, analyzer, cropped=True, smoothing=0, rate=10))
    assert all(isinstance(frame, VideoFrame) for frame in frames)
    assert [(frame.index, round(frame.time, 6)) for frame in frames] == [(i, i / 10) for i in range(6)]
    for frame, shown in zip(frames, pictures, strict=True):
        (face,) = frame.faces
        (expected,) = analyzer.analyze(shown, cropped=True).faces
        assert face.track == 1
        np.testing.assert_array_equal(face.embedding, expected.embedding)
        np.testing.assert_allclose(
            list(face.expression.probabilities.values()), list(expected.expression.probabilities.values()), atol=1e-7
        )
        assert face.raw.expression == expected.expression
    known = frames[2].to_dict()
    assert (known["index"], known["time"], known["faces"][0]["track"]) == (2, 0.2, 1)
    assert list(known["faces"][0]["probabilities"]) == list(EMOTIONS)


def test_every_third_frame_of_a_file(analyzer, clip):
    path = clip(np.cumsum([0.0, *[0.05, 0.2] * 4]))
    frames = list(track(path, analyzer, every=3, cropped=True))
    assert [frame.index for frame in frames] == [0, 3, 6]
    np.testing.assert_allclose([frame.time for frame in frames], [0, 0.3, 0.75], atol=1e-4)
    for every in (0, 1.5, True):
        with pytest.raises(OptionError, match="every"):
            next(track(path, analyzer, every=every))


def test_pictures_are_not_kept(analyzer):
    alive = []

    def pictures():
        for index in range(40):
            shown = picture(index, 48, 48)
            alive.append(weakref.ref(shown))
            yield shown
            del shown

    most = 0
    for _ in track(pictures(), analyzer, cropped=True):
        gc.collect()
        most = max(most, sum(known() is not None for known in alive))
    assert most <= 3


def test_closing_the_generator_leaves_a_whole_video(analyzer, tmp_path):
    pytest.importorskip("av")
    frames = track([picture(i, 48, 48) for i in range(9)], analyzer, cropped=True, annotate=tmp_path / "a.mp4")
    for _ in range(4):
        next(frames)
    frames.close()
    with open_source(tmp_path / "a.mp4") as shots:
        assert len(list(shots)) == 4


def heads(count):
    """The astronaut, large, and turned over and small: a head for each of two people."""
    data = pytest.importorskip("skimage.data")
    from benchmarks._clip import head

    photo = data.astronaut()
    with Analyzer(device="cpu", threads=1) as detector:
        face = detector.detect(photo)[0]
    cut = head(photo, face, 120)
    return [cut, np.ascontiguousarray(cut[:, ::-1])][:count]


def test_two_people_who_cross_keep_their_tracks(tiny_weights):
    from benchmarks._clip import Actor, judge, line, play

    one, two = heads(2)
    actors = [Actor(two, line((360, 30), (-240, 0))), Actor(one, line((0, 20), (240, 0)))]
    moments = list(play(actors, np.full((160, 480, 3), (90, 110, 70), np.uint8), np.arange(0, 1.5, 1 / 15)))
    assert min(moment.visible.min() for moment in moments) < 0.3  # one was hidden
    with Analyzer(tiny_weights, device="cpu", threads=1, min_face_size=40) as analyzer:
        frames = list(track(((moment.time, moment.picture) for moment in moments), analyzer))
    boxes = [[(face.track, face.face.box) for face in frame.faces] for frame in frames]
    result = judge(moments, boxes, reach=40)
    assert result["faces"] >= 30
    assert result["followed"] >= 0.95
    assert result["switches"] == 0
    assert result["tracks"] == 2


@pytest.mark.data
def test_the_people_of_a_photo_keep_their_tracks(data_root, tiny_weights):
    """A camera that pans over a photo of several people: everyone moves alike, none is lost."""
    from fevertools.image import load

    photo = load(data_root / "photos" / "azure_detection4.jpg")
    views = ((time / 10, photo[100:520, 8 * time : 8 * time + 880]) for time in range(14))
    with Analyzer(tiny_weights, device="cpu", threads=1, min_face_size=60) as analyzer:
        frames = list(track(views, analyzer, smoothing=0))
    assert {tuple(sorted(face.track for face in frame.faces)) for frame in frames} == {(1, 2, 3)}
    for number in (1, 2, 3):
        lefts = [next(f.face.box[0] for f in frame.faces if f.track == number) for frame in frames]
        assert lefts[-1] - lefts[0] == pytest.approx(-8 * 13, abs=25)  # boxes of 80 to 280 px jitter
