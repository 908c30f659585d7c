"""Label orders. Their only home: nothing else in the tree spells an order out."""

from typing import Final

EMOTIONS: Final = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
"""The eight emotion labels in the order of every `logits` output (FER+ and AffectNet-8)."""

EMOTIONS_7: Final = EMOTIONS[:7]
"""Without contempt: the label set of the `ferplus7` protocol."""

FER2013: Final = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The seven labels of FER-2013, in the order of its CSV."""

FERPLUS_VOTES: Final = (*EMOTIONS, "unknown", "not-a-face")
"""The ten columns of the FER+ vote table."""

LANDMARKS: Final = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
"""Order of the rows of every (5, 2) landmark array. Left and right are those of the picture, not of the person."""
