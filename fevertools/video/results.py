"""Results over time. Frozen, as those of `fevertools.types`."""

from dataclasses import dataclass
from typing import Any

from fevertools.types import Expression, Face, FaceResult, Float32


@dataclass(frozen=True, slots=True, eq=False)
class TrackedFace:
    """One face of one frame, and what is known of it from the frames before."""

    track: int  # from 1, the same for the face of one person as long as it is followed
    face: Face  # of this frame alone
    embedding: Float32  # (D,) smoothed over the track
    expression: Expression  # smoothed over the track
    raw: FaceResult  # of this frame alone


@dataclass(frozen=True, slots=True, eq=False)
class VideoFrame:
    """What `track` yields for one analysed frame."""

    index: int  # of the frame in its source, from 0
    time: float  # seconds since the start of the source
    faces: tuple[TrackedFace, ...]  # largest first

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON: each face as `FaceResult.to_dict`, smoothed, and its track."""
        faces = [
            {"track": found.track, **FaceResult(found.face, found.embedding, found.expression).to_dict()}
            for found in self.faces
        ]
        return {"index": self.index, "time": self.time, "faces": faces}
