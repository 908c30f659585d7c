"""Training-time augmentation of one face frame, gray or RGB. Every random draw comes from the generator passed in."""

import cv2
import numpy as np

from fevertools.train.recipe import AugmentOptions
from fevertools.types import Float32, UInt8Image


def augment(frame: UInt8Image, size: int, options: AugmentOptions, rng: np.random.Generator) -> UInt8Image:
    """Randomly change one frame and bring it to the size at which the backbone works, in a single warp.

    Args:
        frame: uint8 (H, W) luminance or (H, W, 3) RGB, square, framed as `data.ferplus` frames are.
        size: height and width of the result, pixels.
        options: strength of each change.
        rng: the only source of randomness.

    Returns:
        uint8 (size, size), or (size, size, 3): all channels change alike, so that gray stays gray. The same generator
        at another size gives the same view of the face at that size, except for the pixels of the noise.
    """
    if rng.random() < options.downscale:
        frame = _downscale(frame, rng)
    matrix = _affine(frame.shape[0], size, options, rng)
    warped: UInt8Image = np.asarray(
        cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )
    if rng.random() < options.blur:
        warped = np.asarray(cv2.GaussianBlur(warped, (0, 0), float(rng.uniform(0.5, 2.0)) * size / 96), np.uint8)
    warped = np.asarray(cv2.LUT(warped, _tone_curve(options, rng)), np.uint8)
    if rng.random() < options.noise:
        # A generator of its own: whatever the size, the draws after it stay the same.
        noise = np.random.default_rng(rng.integers(2**32)).normal(0, rng.uniform(2, 12), warped.shape[:2])
        noise = noise.reshape(size, size, *(1,) * (warped.ndim - 2))
        warped = np.asarray(np.clip(warped + noise, 0, 255), np.uint8)
    if rng.random() < options.erase:
        _erase(warped, rng)
    return warped


def square(frame: UInt8Image, size: int) -> UInt8Image:
    """Make a frame square and at most `size` high, by area averaging: what a single warp would alias.

    Args:
        frame: uint8 (H, W) or (H, W, 3). One that is not square is stretched, as face boxes are by common croppers.
        size: the most pixels that are worth keeping.
    """
    side = min(size, max(frame.shape[:2]))
    if frame.shape[:2] == (side, side):
        return frame
    return np.asarray(cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def plain(frame: UInt8Image, size: int) -> UInt8Image:
    """A frame at `size` as `augment` brings it there without any change: uint8 (size, size) or (size, size, 3)."""
    return np.asarray(cv2.resize(square(frame, size), (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)


def _affine(source: int, size: int, options: AugmentOptions, rng: np.random.Generator) -> Float32:
    """Matrix (2, 3) from indices of the frame to indices of the result."""
    angle = np.deg2rad(rng.uniform(-options.rotation, options.rotation))
    zoom = (1 + options.zoom) * (size / source) * (1 + rng.uniform(-options.scale, options.scale))
    stretch = 1 + rng.uniform(-options.stretch, options.stretch)
    shear = rng.uniform(-options.shear, options.shear)
    mirror = -1.0 if rng.random() < options.flip else 1.0
    # Drawn only where it is asked for: the other draws stay what they were before there was this one.
    turn = -1.0 if options.flip_vertical > 0 and rng.random() < options.flip_vertical else 1.0
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = zoom * rotation @ np.array([[stretch * mirror, shear * turn], [0.0, turn / stretch]])
    # Pixel centres lie half a pixel inside the frame, hence (size - 1) / 2.
    shift = rng.uniform(-options.shift, options.shift, 2) * size
    offset = (size - 1) / 2 + shift - linear @ np.full(2, (source - 1) / 2)
    return np.column_stack([linear, offset]).astype(np.float32)


def _tone_curve(options: AugmentOptions, rng: np.random.Generator) -> UInt8Image:
    """Gamma, contrast around mid-gray and brightness as one table of 256 values."""
    x = np.arange(256) / 255.0
    x = x ** np.exp(rng.uniform(-options.gamma, options.gamma))
    x = (x - 0.5) * (1 + rng.uniform(-options.contrast, options.contrast)) + 0.5
    x += rng.uniform(-options.brightness, options.brightness)
    return np.asarray(np.clip(x * 255, 0, 255), np.uint8)


def _downscale(frame: UInt8Image, rng: np.random.Generator) -> UInt8Image:
    source = frame.shape[0]
    small = int(source * rng.uniform(0.4, 0.9))
    reduced = cv2.resize(frame, (small, small), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(reduced, (source, source), interpolation=cv2.INTER_CUBIC), np.uint8)


def _erase(image: UInt8Image, rng: np.random.Generator) -> None:
    """Random erasing (Zhong et al. 2020) with a constant gray, 2-20% of the area, in place."""
    size = image.shape[0]
    area, ratio = rng.uniform(0.02, 0.2) * size * size, np.exp(rng.uniform(-1.0, 1.0))
    height, width = min(size, int(np.sqrt(area * ratio))), min(size, int(np.sqrt(area / ratio)))
    top, left = int(rng.uniform(0, size - height + 1)), int(rng.uniform(0, size - width + 1))
    image[top : top + height, left : left + width] = int(rng.integers(0, 256))
