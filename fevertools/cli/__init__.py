"""The command line. Thin: parse, call the pipeline, write. Networks are loaded only by a command that needs them."""

import importlib
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from fevertools.cli._parser import CLOSED, EXIT_CODES, FAILED, INTERRUPTED, UNUSABLE, make_parser
from fevertools.errors import DegenerateFaceError, FevertoolsError, ImageError

__all__ = ["main", "EXIT_CODES"]

_MODULES: Final = {
    "detect": "_commands",
    "embed": "_commands",
    "classify": "_commands",
    "similarity": "_commands",
    "video": "_video",
    "probe": "_probe",
    "report": "_report",
    "weights": "_weights",
    "serve": "_serve",
    "completion": "_completion",
    "doctor": "_doctor",
}
"""Command -> the module of this package that holds a function of the same name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after `fevertools`; None takes those of the process.

    Returns:
        The exit code, one of `EXIT_CODES`. Errors that the package raises on purpose become one line on stderr.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _take_closed_descriptors()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that the terminal's encoding lacks must not end a long run.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(arguments)
        # Here, so that a closed pipe is noticed before the interpreter's own last flush.
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _forget_unwritable()
        return CLOSED
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except (ImageError, DegenerateFaceError) as error:
        return _complain(f"error: {error}", FAILED)
    except FevertoolsError as error:
        return _complain(f"error: {error}", UNUSABLE)
    except OSError as error:
        _forget_unwritable()
        return _complain(f"error: {error}", UNUSABLE)


def _run(arguments: Sequence[str] | None) -> int:
    parser = make_parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:  # --help and usage errors, which argparse has already told
        return int(stop.code or 0)
    if options.command is None:
        parser.print_help(sys.stderr)
        return UNUSABLE
    module = importlib.import_module(f"fevertools.cli.{_MODULES[options.command]}")
    return int(getattr(module, options.command)(options))


def _complain(text: str, code: int) -> int:
    print(f"fevertools: {text}", file=sys.stderr)
    return code


def _forget_unwritable() -> None:
    """Where a reader has gone (`| head`), or there is no room, what is still buffered goes nowhere.

    It would fail once more when the interpreter ends.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            with suppress(OSError, ValueError):  # one without a file descriptor
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _take_closed_descriptors() -> None:
    """Let no file of ours have the number of a closed stdin, stdout or stderr: C libraries write messages there."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stderr is None:
        # `print(file=None)` would write to stdout.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process
