"""Faces in videos: followed from frame to frame, their expressions and embeddings smoothed over time.

>>> import fevertools.video
>>> for frame in fevertools.video.track("clip.mp4"):
...     print(frame.time, [(face.track, face.expression.label) for face in frame.faces])

Video files need the extra `video`; cameras and iterables of pictures do not.
"""

from fevertools.video.results import TrackedFace, VideoFrame
from fevertools.video.tracking import track

__all__ = ["track", "VideoFrame", "TrackedFace"]
