"""Commands and options. Imports nothing heavy, so that --help answers at once."""

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from fevertools.cli import _serve_options, _video_options

FINE: Final = 0
FAILED: Final = 1
UNUSABLE: Final = 2
INTERRUPTED: Final = 130
CLOSED: Final = 141

EXIT_CODES: Final[Mapping[int, str]] = MappingProxyType(
    {
        FINE: "all fine (images without a face are fine)",
        FAILED: "an input failed and was skipped, or stopped the run under --on-error raise; "
        "a picture to compare has no face; a check failed",
        UNUSABLE: "the run could not be made: bad options, no input found, output exists or cannot be written, "
        "unknown or broken weights, device not available",
        INTERRUPTED: "interrupted; with -o, --resume goes on",
        CLOSED: "the reader of stdout or stderr went away, as in `| head -1`",
    }
)
"""Every exit code and its meaning."""

SUFFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".csv": "csv",
        ".jsonl": "jsonl",
        ".ndjson": "jsonl",
        ".npz": "npz",
        ".parquet": "parquet",
        ".pq": "parquet",
    }
)
"""Suffix of the output file -> its format."""

FORMATS: Final = tuple(dict.fromkeys(SUFFIXES.values()))

METRICS: Final = ("triplet", "cosine")
"""Those of `similarity.METRICS`, which are not imported for the sake of NumPy."""

PRECISIONS: Final = ("float32", "int8")
"""Those of `manifest.PRECISIONS`, which is not imported for the sake of NumPy."""

PRESETS: Final = ("exact", "fast")
"""Those of `detector.PRESETS`, which are not imported for the sake of NumPy."""

SHELLS: Final = ("bash", "zsh", "fish")

_INPUTS: Final = """\
inputs:
  Files, folders (searched recursively for images, in sorted order, hidden files left out), patterns (quoted ones
  and ** too), and - for a list of paths on stdin, one a line. What is named twice is taken once.
"""

_OUTPUTS: Final = """\
outputs:
  One row a face, to stdout as CSV (or --format jsonl), or with -o to a file whose suffix chooses the format: .csv,
  .jsonl, .npz, .parquet (needs the extra `parquet`). With -o every finished image goes first to FILE.partial; FILE
  appears at the end, whole. After a kill or Ctrl-C give the same command again with --resume.
"""

_WEIGHTS: Final = (
    "a name, see `fevertools weights list`; the path of a manifest (.json); or ORGANISATION/NAME@REVISION:ENTRY of a "
    "repository on the Hugging Face Hub"
)
_WHAT: Final[Mapping[str, str]] = MappingProxyType(
    {"names": _WEIGHTS, "source": "the path of a manifest (.json), or ORGANISATION/NAME@REVISION of a repository"}
)

_DRAWINGS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "detect": {"--draw": "annotated pictures"},
        "classify": {
            "--draw": "pictures with label and probabilities of each face",
            "--explain": "pictures with the class activation map of each face's label, if the weights have maps",
        },
    }
)
"""Command -> option -> the pictures that it writes."""

_EXAMPLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "detect": """\
examples:
  fevertools detect photo.jpg --draw annotated.jpg
  fevertools detect photos/ -o faces.csv
  fevertools detect "photos/**/*.png" --draw annotated/ --format jsonl | jq .box
""",
        "embed": """\
examples:
  fevertools embed photos/ -o embeddings.npz
  fevertools embed photos/ -o embeddings.parquet --resume
  find photos -name "*.jpg" | fevertools embed - --largest -o embeddings.jsonl
""",
        "classify": """\
examples:
  fevertools classify photo.jpg
  fevertools classify photos/ --largest -o expressions.csv
  fevertools classify photo.jpg --draw annotated.png --explain looked.png
  fevertools classify crops/ --cropped --format jsonl | jq .label
""",
        "video": _video_options.EXAMPLES,
        "similarity": """\
examples:
  fevertools similarity smile.jpg frown.jpg
  fevertools similarity --cropped crop1.png crop2.png
  fevertools similarity --metric cosine smile.jpg frown.jpg
""",
        "probe": """\
examples:
  fevertools probe fit faces/ -o smiles.skops            # faces/smile/*.jpg, faces/no-smile/*.jpg
  fevertools probe fit labels.csv -o smiles.skops        # columns path and label
  fevertools probe predict smiles.skops photos/ -o out.csv
""",
        "report": """\
examples:
  fevertools report photos/ -o report.html
  fevertools report crops/ --cropped --limit 500 -o report.html
  fevertools report faces.parquet -o report.html         # of Analyzer.to_frame, tables.write_parquet
""",
        "weights": """\
examples:
  fevertools weights list
  fevertools weights verify
  fevertools weights path mtcnn
  fevertools weights list ORGANISATION/NAME
  fevertools weights pull ORGANISATION/NAME@COMMIT:ENTRY
""",
        "serve": _serve_options.EXAMPLES,
        "completion": """\
examples:
  fevertools completion bash > ~/.local/share/bash-completion/completions/fevertools
  fevertools completion zsh > ~/.zfunc/_fevertools       # a folder of $fpath
  fevertools completion fish > ~/.config/fish/completions/fevertools.fish
""",
        "doctor": """\
examples:
  fevertools doctor
  fevertools doctor --json
""",
    }
)


def make_parser() -> argparse.ArgumentParser:
    """The parser of every command. Its result has `command`, None where no command was given."""
    parser = argparse.ArgumentParser(
        prog="fevertools",
        description="Expression embeddings of faces: detect, embed, classify, compare. Offline, on a plain CPU.",
        epilog=f"{_exit_codes()}\nfevertools COMMAND --help has the options of a command, and examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, text in (
        ("detect", "find faces: box, score and five landmarks of each"),
        ("embed", "one expression embedding per face"),
        ("classify", "label, probabilities of eight emotions and entropy of each face"),
    ):
        _add_table(_add(commands, name, text, _INPUTS, _OUTPUTS), name)
    _add_video(_add(commands, "video", "follow the faces of a video: how each looks over time", _video_options.NOTES))
    _add_similarity(_add(commands, "similarity", "how alike the expressions of two pictures look, -1 to 1"))
    _add_probe(_add(commands, "probe", "fit a classifier of your own to labelled faces, and use it"))
    _add_report(_add(commands, "report", "one HTML page about the faces of many images, to look at offline", _INPUTS))
    _add_weights(_add(commands, "weights", "list, verify, fetch or find model weights"))
    serve = _add(commands, "serve", "answer over HTTP, on this machine")
    serve.add_argument("--weights", metavar="NAME", help=f"encoder weights: {_WEIGHTS}")
    _add_precision(serve)
    _serve_options.add_options(serve)
    _add_offline(serve)
    _add_cache_dir(serve)
    completion = _add(commands, "completion", "print a script with which a shell completes commands and options")
    completion.add_argument("shell", choices=SHELLS, help="needs the extra `completion`")
    doctor = _add(commands, "doctor", "check the installation: versions, devices, weights, a self-test")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


class _Version(argparse.Action):
    """Like argparse's own, except that the version is looked up only when asked for."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, values: object, option_string: object = None
    ) -> None:
        from fevertools import __version__

        print(f"fevertools {__version__}")
        parser.exit()


def _exit_codes() -> str:
    lines = (
        textwrap.fill(meaning, 112, initial_indent=f"  {code:<4} ", subsequent_indent=" " * 7)
        for code, meaning in EXIT_CODES.items()
    )
    return "\n".join(("exit codes:", *lines, ""))


def _add(commands: Any, name: str, text: str, *notes: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog="\n".join((*notes, _EXAMPLES[name], _exit_codes())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text}")
    return value


def _add_table(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="file, folder, pattern, or - for a list on stdin")
    for option, what in _DRAWINGS.get(name, {}).items():
        parser.add_argument(
            option, metavar="OUT", help=f"write {what}: to a file for one input file, else to files in a folder"
        )
    _add_output(parser)
    _add_network(parser, encoder=name != "detect")
    if name != "probe":
        _add_draft(parser)
    _add_face_choice(parser)


def _add_draft(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--draft",
        action="store_true",
        help="decode JPEGs at a fraction of their size where a --min-face-size of 96 or more allows: sooner, and "
        "nearly the same faces",
    )


def _add_face_choice(parser: argparse.ArgumentParser) -> None:
    faces = parser.add_mutually_exclusive_group()
    faces.add_argument("--max-faces", type=_count, metavar="N", help="only the N largest faces of an image")
    faces.add_argument("--largest", action="store_true", help="only the largest face of an image")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", help="write to a file instead of stdout")
    parser.add_argument("--format", choices=FORMATS, help="default: by the suffix of FILE; csv on stdout")
    parser.add_argument(
        "--on-error", choices=("skip", "raise"), default="skip", help="for inputs that cannot be read (default: skip)"
    )
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run of this command stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    parser.add_argument("--no-progress", action="store_true", help="no progress line (there is none off a terminal)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress line and no summary, only errors")


def _add_network(parser: argparse.ArgumentParser, *, encoder: bool) -> None:
    if encoder:
        parser.add_argument("--weights", metavar="NAME", help=f"encoder weights: {_WEIGHTS}")
        _add_precision(parser)
        parser.add_argument("--batch-size", type=_count, default=64, metavar="N", help="faces in one run (default: 64)")
        parser.add_argument("--flip", action="store_true", help="average with the mirror image; twice the work")
        parser.add_argument("--cropped", action="store_true", help="every image is one framed face; detect nothing")
    _add_offline(parser)
    _add_cache_dir(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or another, see `fevertools doctor`")
    parser.add_argument("--threads", type=_count, metavar="N", help="CPU threads of one run (default: all cores)")
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="exact",
        help="of the detector; fast takes well under half of the time, loses faces below 40 pixels and one or two in a "
        "hundred of the others (default: exact)",
    )
    parser.add_argument(
        "--min-face-size",
        type=_count,
        metavar="PIXELS",
        help="smallest face to look for (default: 20, and 40 under --preset fast)",
    )


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of the encoder; int8 is faster where the CPU has the instructions, see `fevertools doctor` "
        "(default: float32)",
    )


def _add_offline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--offline", action="store_true", dest="local_files_only", help="use no network, only what is here already"
    )


def _add_cache_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache-dir", metavar="DIR", help="cache of the Hugging Face Hub (default: the Hub's own)")


def _add_video(parser: argparse.ArgumentParser) -> None:
    _video_options.add_options(parser)
    _add_output(parser)
    _add_network(parser, encoder=True)
    _add_face_choice(parser)


def _add_similarity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a picture; its largest face is taken")
    parser.add_argument("b", metavar="B", help="another")
    parser.add_argument(
        "--metric",
        choices=METRICS,
        help="triplet: on the head trained on triplets of faces; cosine: of the embeddings themselves "
        "(default: triplet where the weights have that head, else cosine)",
    )
    _add_network(parser, encoder=True)


def _add_probe(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    text = "linear probe (logistic regression) on the embeddings of the largest face of each picture"
    fit = actions.add_parser("fit", help=text, description=f"{text[0].upper()}{text[1:]}. Needs the extra `sklearn`.")
    fit.add_argument("labelled", metavar="DIR_OR_CSV", help="a subfolder for each label, or columns path and label")
    fit.add_argument("-o", "--output", required=True, metavar="FILE", help="the probe, usually ending in .skops")
    fit.add_argument("--overwrite", action="store_true", help="replace an existing probe")
    fit.add_argument("-C", type=float, default=10_000.0, help="inverse strength of the penalty (default: 10000)")
    fit.add_argument("--balanced", action="store_true", help="labels weigh the same whatever their number of faces")
    fit.add_argument("--calibration", choices=("sigmoid", "isotonic"), help="calibrate the probabilities")
    fit.add_argument("--no-progress", action="store_true", help="no progress line (there is none off a terminal)")
    fit.add_argument("-q", "--quiet", action="store_true", help="no progress line")
    _add_network(fit, encoder=True)
    predict = actions.add_parser("predict", help="one row a face", description="Label and probabilities of each face.")
    predict.add_argument("probe", metavar="PROBE", help="what `probe fit` wrote")
    _add_table(predict, "probe")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="file, folder, pattern, or - for a list on stdin; or Parquet tables of faces with label and embedding",
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the page, usually ending in .html")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing page")
    parser.add_argument("--title", default="Facial expressions", help="heading of the page")
    parser.add_argument(
        "--limit", type=_count, default=2000, metavar="N", help="most faces on the page, to 5000 (default: 2000)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the map, and of the draw beyond --limit")
    parser.add_argument("--no-progress", action="store_true", help="no progress line (there is none off a terminal)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress line and no summary, only errors")
    _add_network(parser, encoder=True)
    _add_face_choice(parser)


def _add_weights(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    named: Sequence[tuple[str, str, str, str]] = (
        ("list", "source", "?", "every entry of a manifest (default: that of the package)"),
        ("verify", "names", "*", "size and SHA-256 of the files on this machine (default: all entries)"),
        ("pull", "names", "+", "fetch what is not here yet, and verify it"),
        ("path", "names", "+", "where the files are, one a line; fetches nothing"),
    )
    for name, what, many, text in named:
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.add_argument(what, nargs=many, metavar=what.upper().rstrip("S"), help=_WHAT[what])
        _add_cache_dir(action)
    _add_offline(actions.choices["list"])
    actions.choices["pull"].add_argument(
        "--force", action="store_true", help="fetch again what is here, which mends a broken cache"
    )
