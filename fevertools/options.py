"""What a parameter may be: each check gives the value back as a plain Python type, or raises an error that names it."""

from collections.abc import Iterable
from itertools import islice
from typing import Final

import numpy as np

from fevertools.errors import OptionError

MOST_THREADS: Final = 1024
"""Threads are made when a session is, so that a number without bound could end the process."""


def whole(value: int, name: str, least: int = 1, most: int | None = None) -> int:
    """A whole number of Python or NumPy from `least` to `most`.

    Raises:
        OptionError: another type (bool is one), or outside of the range.
    """
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not number or value < least or (most is not None and value > most):
        reach = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise OptionError(f"{name} is {_shown(value)}; use a whole number {reach}")
    return int(value)


def fraction(value: float, name: str, most: float = 1) -> float:
    """A number above 0 and below 1, and not above `most`.

    Raises:
        OptionError: another type, not finite, or outside of the range.
    """
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    # Also as a float: some numbers of higher precision are rounded to 0 or 1.
    if not number or not 0 < value < 1 or not 0 < float(value) < 1 or value > most:
        reach = "between 0 and 1" if most >= 1 else f"above 0 and not above {most}"
        raise OptionError(f"{name} is {_shown(value)}; use a number {reach}")
    return float(value)


def fractions(values: Iterable[float], name: str, count: int) -> tuple[float, ...]:
    """So many numbers, each between 0 and 1.

    Raises:
        OptionError: not an iterable of just `count` such numbers.
    """
    try:
        found = tuple(islice(values, count + 1))  # one more tells that there are too many, also of endless ones
    except TypeError:
        found = ()
    if len(found) != count:
        raise OptionError(f"{name} is {_shown(values)}; use {count} numbers between 0 and 1")
    return tuple(fraction(value, f"{name}[{i}]") for i, value in enumerate(found))


def flag(value: bool, name: str) -> bool:
    """True or False, of Python or NumPy: what an array or a word such as "no" means would be a guess.

    Raises:
        OptionError: anything else.
    """
    if not isinstance(value, bool | np.bool_):
        raise OptionError(f"{name} is {_shown(value)}; use True or False")
    return bool(value)


def choice(value: str, name: str, known: Iterable[str]) -> str:
    """One of some words.

    Raises:
        OptionError: anything else.
    """
    words = tuple(known)
    if not isinstance(value, str) or value not in words:
        raise OptionError(f"no {name} named {_shown(value)}; known: {', '.join(words)}")
    return value


def _shown(value: object) -> str:
    try:
        return f"{value!r:.60}"
    except ValueError:  # a whole number of more digits than Python writes
        return f"a number of type {type(value).__name__}, too long to show"
