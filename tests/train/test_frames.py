"""The order of an epoch, the endless background loop, and views that are the same face at every size."""

import cv2
import numpy as np
import torch

from fevertools.train.methods.frames import Batches, Frames, endless, epoch_order
from fevertools.train.recipe import AugmentOptions


def smooth_faces(count: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (count, 6, 6)).astype(np.uint8)
    return np.stack([cv2.resize(n, (48, 48), interpolation=cv2.INTER_CUBIC) for n in noise])


def test_an_epoch_shows_every_image_once_and_drops_the_ragged_end() -> None:
    order = epoch_order(103, 10, seed=3, epoch=2)
    assert order.shape == (10, 10)
    assert len(np.unique(order)) == 100
    np.testing.assert_array_equal(order, epoch_order(103, 10, seed=3, epoch=2))
    assert not np.array_equal(order, epoch_order(103, 10, seed=3, epoch=3))
    assert list(Batches(order, view=5, start=9)) == [[(5, int(i)) for i in order[9]]]


def test_endless_rounds_are_permutations_and_continue_where_they_stopped() -> None:
    whole = endless(7, 0, 21, seed=1)
    for part in np.split(whole, 3):
        assert sorted(part) == list(range(7))
    assert not np.array_equal(whole[:7], whole[7:14])
    np.testing.assert_array_equal(np.concatenate([endless(7, 0, 5, seed=1), endless(7, 5, 16, seed=1)]), whole)


def test_a_view_is_the_same_face_at_every_size() -> None:
    """What teachers at one size say of a view must hold for the student at another."""
    images, options = smooth_faces(40), AugmentOptions(noise=1.0, erase=1.0, blur=0.5)
    small, large = (Frames(images, size, options, seed=4) for size in (48, 96))
    gaps = []
    for index in range(len(images)):
        a, b = small[3, index][0][:, :, 0].numpy(), large[3, index][0][:, :, 0].numpy()
        reduced = cv2.resize(b, (48, 48), interpolation=cv2.INTER_AREA).astype(float)
        gaps.append(np.abs(reduced - a).mean())
    assert max(gaps) < 14  # noise of up to 12 levels and the edges of the erased rectangle
    other = small[4, 0][0][:, :, 0].numpy().astype(float)
    assert np.abs(other - small[3, 0][0][:, :, 0].numpy()).mean() > 20


def test_rows_follow_their_image() -> None:
    images = smooth_faces(5)
    per_view = torch.arange(15).reshape(3, 5)
    frames = Frames(images, 48, AugmentOptions(), seed=0, rows=(torch.arange(5) * 10,), view_rows=(per_view,))
    frame, row, viewed = frames[2, 4]
    assert frame.shape == (48, 48, 1)
    assert (int(row), int(viewed)) == (40, 14)


def test_a_batch_is_its_samples_and_workers_change_nothing() -> None:
    images = smooth_faces(9)
    frames = Frames(
        images, 48, AugmentOptions(), seed=5, rows=(torch.arange(9),), view_rows=(torch.arange(18).view(2, 9),)
    )
    keys = [[(0, 3), (1, 8), (0, 0)], [(1, 1), (0, 2), (1, 5)]]
    for workers in (0, 2):
        for batch, wanted in zip(frames.loader(keys, workers), keys, strict=True):
            for column, samples in zip(batch, zip(*(frames[key] for key in wanted), strict=True), strict=True):
                assert torch.equal(column, torch.stack(samples))
