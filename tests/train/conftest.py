"""A small made-up data set in the layout of FER-2013 with FER+: four patterns with noise, one an emotion."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra `train`")

PATTERN_EMOTIONS = (0, 1, 2, 4)  # columns of the votes


def made_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (count, 48, 48) and the pattern of each: stripes across, stripes down, a bright disc, a dark disc."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :48]
    disc = ((x - 24) ** 2 + (y - 24) ** 2 < 200).astype(float)
    patterns = np.stack([np.sin(y / 2), np.sin(x / 2), 2 * disc - 1, 1 - 2 * disc])
    kind = np.arange(count) % 4
    images = 128 + 70 * patterns[kind] + rng.normal(0, 12, (count, 48, 48))
    return np.clip(images, 0, 255).astype(np.uint8), kind


def made_arrays() -> dict[str, np.ndarray]:
    images, kind = made_images(240, seed=0)
    usage = np.repeat([0, 1, 2], [160, 40, 40]).astype(np.uint8)
    votes = np.zeros((240, 10), np.uint8)
    emotions = np.array(PATTERN_EMOTIONS)[kind]
    votes[np.arange(240), emotions] = 8
    votes[:, 3] += 1  # a single vote, which every protocol drops
    images[200] = images[3]  # a test row with a twin in the training split
    images[170] = images[161]  # twins inside the validation split
    votes[5] = [0, 0, 0, 0, 0, 0, 0, 0, 9, 0]  # top vote "unknown": in no protocol
    votes[6] = [4, 3, 3, 0, 0, 0, 0, 0, 0, 0]  # no majority
    votes[7] = [0, 0, 0, 0, 0, 0, 0, 9, 0, 0]  # contempt
    return {"images": images, "usage": usage, "label": (kind % 7).astype(np.uint8), "ferplus_votes": votes}


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with fer2013.npz."""
    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "fer2013.npz", **made_arrays())
    return folder


def fit_by_command(recipe: str, data: Path, output: Path, options: dict[str, str], *extra: str) -> Path:
    """Run `fit` as a user would, with overrides; the folder of the run."""
    from fevertools.train.__main__ import main

    settings = [part for key, value in options.items() for part in ("--set", f"{key}={value}")]
    common = ["--data", str(data), "--output", str(output), "--workers", "0", "--log-every", "4"]
    assert main(["fit", recipe, *common, *settings, *extra]) == 0
    return output
