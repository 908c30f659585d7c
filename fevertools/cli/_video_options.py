"""The options of `fevertools video`. Imports nothing heavy, so that --help answers at once."""

import argparse
import math
from typing import Final

EXAMPLES: Final = """\
examples:
  fevertools video clip.mp4 -o clip.parquet
  fevertools video clip.mp4 -o clip.csv --annotate annotated.mp4 --every 3 --smooth 1
  fevertools video clip.mp4 -o clip.parquet --resume       # after Ctrl-C, or a kill
  fevertools video 0 --format jsonl | jq .label            # the first camera, until Ctrl-C
"""

NOTES: Final = """\
outputs:
  One row a face of each analysed frame: frame, time in seconds, track, box, landmarks, smoothed label, probabilities
  and entropy. To stdout as CSV (or --format jsonl), or with -o to a file whose suffix chooses the format: .csv, .jsonl,
  .npz, .parquet (needs the extra `parquet`). Video files need the extra `video`; cameras do not.

stopping and going on:
  Ctrl-C ends a run well: FILE has every row and OUT every frame up to then, both whole. FILE.partial stays with them.
  The same command with --resume goes on there, also after a kill: frames in FILE.partial are not analysed again,
  tracks keep their numbers and go on, smoothing goes on from its last values, and OUT is drawn again from its
  beginning, so that FILE and OUT become what an undisturbed run would have written. Of a camera, Ctrl-C is the end.
"""


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be seconds, 0 for none, got {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text}")
    return value


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those that only videos have."""
    parser.add_argument(
        "input", metavar="INPUT", help="a video file; or a camera: its number, or the path of its device"
    )
    parser.add_argument(
        "--annotate", metavar="OUT", help="also write a video (.mp4, .mkv, .webm) with boxes, labels and a time line"
    )
    parser.add_argument(
        "--every", type=_count, default=1, metavar="N", help="analyse each N-th frame only (default: 1)"
    )
    parser.add_argument(
        "--smooth",
        type=_seconds,
        default=0.5,
        metavar="SECONDS",
        help="of the exponential mean over each track; 0 for none (default: 0.5)",
    )
    parser.add_argument("--embeddings", action="store_true", help="a column with the smoothed embedding of each face")
