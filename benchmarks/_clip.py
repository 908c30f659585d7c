"""Clips whose truth is known: heads cut out of photos, moving over a background."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from fevertools.types import Face, Float32, UInt8Image

TICK = Fraction(1, 60_000)
MARGIN = 0.55
"""Of the box, around it: a head has hair and a chin."""


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """One head, and the way that it takes."""

    picture: UInt8Image  # (H, W, 3), the head in an ellipse that fills it
    way: Callable[[float], tuple[float, float]]  # seconds -> x, y of the left upper corner, pixels


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """One frame of a clip, and where each head is in it."""

    time: float  # seconds
    picture: UInt8Image  # (H, W, 3)
    centres: Float32  # (actors, 2) x, y of the middle of each face
    visible: Float32  # (actors,) share of each head that is in the picture and not behind another, 0-1


def head(photo: UInt8Image, face: Face, side: int) -> UInt8Image:
    """The head of a face, cut out of its photo and scaled: uint8 (side, side, 3)."""
    x1, y1, x2, y2 = (float(value) for value in face.box)
    half = max(x2 - x1, y2 - y1) * (0.5 + MARGIN / 2)
    middle = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    low, high = np.rint(middle - half).astype(int), np.rint(middle + half).astype(int)
    pad = int(max(0, -low.min(), high[0] - photo.shape[1], high[1] - photo.shape[0]))
    padded = np.pad(photo, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    part = padded[low[1] + pad : high[1] + pad, low[0] + pad : high[0] + pad]
    return np.asarray(cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def line(start: tuple[float, float], speed: tuple[float, float]) -> Callable[[float], tuple[float, float]]:
    """The way of a head that moves evenly: pixels, pixels a second."""
    return lambda time: (start[0] + speed[0] * time, start[1] + speed[1] * time)


def play(actors: Sequence[Actor], background: UInt8Image, times: Iterable[float]) -> Iterator[Moment]:
    """The clip at these times. Later actors pass in front of earlier ones; the background does not move."""
    covers = [_ellipse(*actor.picture.shape[:2]) for actor in actors]
    for time in times:
        picture = background.astype(np.float32)
        owner = np.full(picture.shape[:2], -1)
        centres, seen = np.empty((len(actors), 2), np.float32), np.zeros(len(actors), np.float32)
        for number, (actor, cover) in enumerate(zip(actors, covers, strict=True)):
            x, y = (round(value) for value in actor.way(time))
            height, width = actor.picture.shape[:2]
            centres[number] = x + width / 2, y + height / 2
            rows = slice(max(y, 0), max(min(y + height, picture.shape[0]), 0))
            columns = slice(max(x, 0), max(min(x + width, picture.shape[1]), 0))
            inside = slice(rows.start - y, rows.stop - y), slice(columns.start - x, columns.stop - x)
            part, weight = picture[rows, columns], cover[inside][..., None]
            part[:] = part * (1 - weight) + actor.picture[inside] * weight
            owner[rows, columns][cover[inside] > 0.5] = number
        for number, cover in enumerate(covers):
            seen[number] = (owner == number).sum() / (cover > 0.5).sum()
        yield Moment(time, np.rint(picture).astype(np.uint8), centres, seen)


def _ellipse(height: int, width: int) -> Float32:
    """1 inside, 0 outside, with a soft edge: float32 (height, width)."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.clip((1 - np.hypot(x / 0.8, y)) * 8, 0, 1).astype(np.float32)


def write(path: Path, moments: Iterable[Moment], codec: str = "libx264") -> None:
    """A video file of the clip, each frame at its time."""
    import av

    with av.open(str(path), "w") as container:
        stream = None
        for moment in moments:
            if stream is None:
                stream = container.add_stream(codec, rate=30, options={"crf": "18", "preset": "veryfast"})
                stream.height, stream.width = moment.picture.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = TICK
            frame = av.VideoFrame.from_ndarray(moment.picture, format="rgb24")
            frame.pts, frame.time_base = round(moment.time / TICK), TICK
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))


def judge(moments: Sequence[Moment], found: Sequence[Sequence[tuple[int, Float32]]], reach: float) -> dict[str, float]:
    """How well tracks tell the actors.

    Args:
        moments: the truth of each analysed frame.
        found: the tracks of that frame, each with its box, (4,) x1, y1, x2, y2.
        reach: pixels from the middle of a face at which a box is still its own.

    Returns:
        faces: of the actors, that a detector can see (three quarters of the head); followed: share of them that have
        a track; switches: times at which an actor has another track than before; tracks: how many there are;
        strays: those of no actor.
    """
    last: dict[int, int] = {}
    faces = followed = switches = 0
    numbers, own = set(), set()
    for moment, tracks in zip(moments, found, strict=True):
        middles = {track: ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for track, box in tracks}
        numbers |= middles.keys()
        for actor in np.argsort(-moment.visible):  # one box has one actor: the one in front
            distance = {track: float(np.hypot(*(moment.centres[actor] - middle))) for track, middle in middles.items()}
            track = min(distance, key=distance.__getitem__, default=None)
            seen = moment.visible[actor] >= 0.75
            faces += bool(seen)
            if track is None or distance[track] > reach or moment.visible[actor] < 0.3:
                continue
            del middles[track]
            own.add(track)
            followed += bool(seen)
            switches += last.get(actor, track) != track
            last[actor] = track
    share = followed / max(faces, 1)
    return {
        "faces": faces, "followed": round(share, 4), "switches": switches, "tracks": len(numbers),
        "strays": len(numbers - own),
    }  # fmt: skip
