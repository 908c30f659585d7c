"""Test-time augmentation: the mean answer over randomly changed views of every face (EmoXNet, section III)."""

from typing import Final

import numpy as np

from fevertools.train.evaluate.networks import Outputs, Predict, mean_log_probabilities
from fevertools.train.recipe import AugmentOptions
from fevertools.train.transforms import augment
from fevertools.types import UInt8Image

VIEWS: Final = AugmentOptions(
    rotation=10.0, scale=0.1, stretch=0.0, shear=0.05, shift=0.05, brightness=0.0, contrast=0.0, gamma=0.0, blur=0.0,
    downscale=0.0, noise=0.0, erase=0.0,
)  # fmt: skip
"""Mirror image, and small rotations, zooms, shears and shifts: what the paper trains with, less what hides the face.

It leaves its own strengths open; a face upside down, which it also trains with, is none that is asked about.
"""


def with_tta(predict: Predict, steps: int, seed: int = 0) -> Predict:
    """The same network with test-time augmentation.

    Args:
        predict: the network.
        steps: views of every face, the face as it is among them; the paper has 10.
        seed: of the views.

    Returns:
        mean probabilities as logits, mean embedding, mean triplet output.
    """

    def averaged(crops: UInt8Image) -> Outputs:
        views = [crops, *(_view(crops, seed, step) for step in range(1, steps))]
        outputs = [predict(view) for view in views]
        triplets = [o.triplet for o in outputs if o.triplet is not None]
        return Outputs(
            np.mean([o.embedding for o in outputs], axis=0),
            mean_log_probabilities([o.logits for o in outputs]),
            mean_log_probabilities([o.fer2013 for o in outputs]),
            np.mean(triplets, axis=0) if triplets else None,
        )

    return averaged


def _view(crops: UInt8Image, seed: int, step: int) -> UInt8Image:
    """One random view of every crop: uint8 (N, S, S, 1)."""
    size = crops.shape[1]
    views = [augment(c[..., 0], size, VIEWS, np.random.default_rng((seed, step, i))) for i, c in enumerate(crops)]
    return np.stack(views)[..., None]
