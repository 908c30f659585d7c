import dataclasses

import numpy as np

from fevertools.train.recipe import AugmentOptions
from fevertools.train.transforms import augment, plain, square

STILL = AugmentOptions(**{f.name: 0.0 for f in dataclasses.fields(AugmentOptions)})


def frame() -> np.ndarray:
    y, x = np.mgrid[:48, :48]
    return (128 + 60 * np.sin(x / 5) + 40 * np.cos(y / 7)).astype(np.uint8)


def test_no_strength_is_the_plain_upsampling_that_serving_does() -> None:
    torch = __import__("torch")
    from fevertools.train.models.student import resize_matrix

    a = resize_matrix(48, 96)
    served = (a @ torch.from_numpy(frame()).float() @ a.T).numpy()
    trained = augment(frame(), 96, STILL, np.random.default_rng(0)).astype(np.float32)
    # Inside the border; uint8 rounding and OpenCV's fixed-point coefficients cost up to two levels.
    assert np.abs(served - trained)[4:-4, 4:-4].max() <= 2


def test_flip_mirrors() -> None:
    flipped = augment(frame(), 48, dataclasses.replace(STILL, flip=1.0), np.random.default_rng(0))
    # OpenCV's fixed-point coefficients cost a level.
    assert np.abs(flipped.astype(int) - frame()[:, ::-1]).max() <= 1


def test_same_generator_same_result_and_input_untouched() -> None:
    source = frame()
    a, b, c = (augment(source, 96, AugmentOptions(), np.random.default_rng((7, i))) for i in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a.astype(int) - c).mean() > 5
    np.testing.assert_array_equal(source, frame())
    assert (a.shape, a.dtype) == ((96, 96), np.uint8)


def test_shift_moves_the_centre_within_its_bound() -> None:
    dot = np.zeros((48, 48), np.uint8)
    dot[23:25, 23:25] = 255
    options = dataclasses.replace(STILL, shift=0.1)
    centres = []
    for seed in range(200):
        moved = augment(dot, 96, options, np.random.default_rng(seed)).astype(float)
        y, x = np.mgrid[:96, :96]
        centres.append([(moved * x).sum() / moved.sum() - 47.5, (moved * y).sum() / moved.sum() - 47.5])
    extent = np.abs(centres).max()
    assert 8 < extent < 0.1 * 96 + 0.6


def test_erasing_and_tone_change_what_they_should() -> None:
    erased = augment(frame(), 48, dataclasses.replace(STILL, erase=1.0), np.random.default_rng(3))
    changed = (erased != frame()).mean()
    assert 0.01 < changed < 0.25
    dark_or_bright = [
        int(
            augment(
                np.full((48, 48), 128, np.uint8),
                48,
                dataclasses.replace(STILL, brightness=0.2),
                np.random.default_rng(s),
            )[0, 0]
        )
        for s in range(100)
    ]
    assert min(dark_or_bright) >= 128 - 52
    assert max(dark_or_bright) <= 128 + 52
    assert max(dark_or_bright) - min(dark_or_bright) > 80


def test_gray_in_three_channels_is_changed_as_gray_in_one() -> None:
    """Same bytes, whatever is drawn: an RGB network sees a gray face as a gray network does."""
    options = AugmentOptions(downscale=0.5, blur=0.5, noise=0.5, erase=0.5)
    for seed in range(30):
        one, three = (augment(f, 70, options, np.random.default_rng(seed)) for f in (frame(), stacked(frame())))
        np.testing.assert_array_equal(three, stacked(one))


def stacked(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[:, :, None], 3, axis=2)


def test_colours_stay_apart() -> None:
    colour = np.stack([frame(), 255 - frame(), np.full((48, 48), 40, np.uint8)], axis=2)
    moved = augment(colour, 64, dataclasses.replace(STILL, rotation=20.0, shift=0.1), np.random.default_rng(1))
    assert (moved[:, :, 2] == 40).all()
    alone = augment(frame(), 64, dataclasses.replace(STILL, rotation=20.0, shift=0.1), np.random.default_rng(1))
    np.testing.assert_array_equal(moved[:, :, 0], alone)


def test_square_shrinks_and_never_enlarges() -> None:
    assert square(frame(), 140).shape == (48, 48)
    assert square(stacked(frame()), 24).shape == (24, 24, 3)
    assert square(frame()[:30], 140).shape == (48, 48)
    checkers = np.indices((96, 96)).sum(axis=0) % 2 * 200
    assert (square(checkers.astype(np.uint8), 48) == 100).all()  # averaged; a bare warp would pick one colour


def test_plain_is_augmentation_without_change() -> None:
    for size in (48, 96, 140):
        expected = augment(frame(), size, STILL, np.random.default_rng(0)).astype(int)
        assert np.abs(plain(frame(), size) - expected)[3:-3, 3:-3].max() <= 2
