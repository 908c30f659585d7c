"""The options of `fevertools serve`. Imports nothing heavy, so that --help answers at once."""

import argparse
from typing import Final

EXAMPLES: Final = """\
examples:
  fevertools serve
  fevertools serve --port 9000 --threads 2 --max-faces 16 --timeout 10
  curl --data-binary @photo.jpg -H "Content-Type: image/jpeg" http://127.0.0.1:8000/v1/classify
"""

_OPTIONS: Final = (
    ("--host", str, "ADDRESS", "address to listen on (default: 127.0.0.1, which only this machine reaches)"),
    ("--port", int, "N", "0 takes a free one (default: 8000)"),
    ("--device", str, "NAME", "auto, cpu, cuda or another, see `fevertools doctor` (default: auto)"),
    ("--threads", int, "N", "CPU threads of one run of a network (default: all cores)"),
    ("--preset", str, "NAME", "of the detector: exact, or fast, which loses small faces (default: exact)"),
    ("--min-face-size", int, "PIXELS", "smallest face to look for (default: 20, and 40 under --preset fast)"),
    ("--max-bytes", int, "N", "largest body (default: 10485760)"),
    ("--max-pixels", int, "N", "largest picture (default: 25000000)"),
    ("--max-faces", int, "N", "only the N largest faces of a picture (default: 64)"),
    ("--timeout", float, "SECONDS", "from a whole body to its answer (default: 30)"),
    ("--body-timeout", float, "SECONDS", "from the head of a request to the end of its body (default: 10)"),
    ("--queue", int, "N", "requests at once; more are told to come later (default: 64)"),
    ("--batch", int, "N", "faces of several requests in one run of the encoder; 1 shares none (default: 32)"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is not given is not set, for the defaults have their home in `serve.Settings` and `serve.run`."""
    for name, kind, word, text in _OPTIONS:
        parser.add_argument(name, type=kind, metavar=word, help=text, default=argparse.SUPPRESS)
