"""Bytes and JSON values -> slightly wrong ones. All of it from the given random numbers alone."""

import copy
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

Mutation = Callable[[bytearray, random.Random], None]

_EDGES: Final = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
_NUMBERS: Final = (0, 1, 2, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_FORMS: Final = ("<H", ">H", "<I", ">I")
_HEADER: Final = 64  # bytes at the front, where most of what a decoder believes is written
_PNG: Final = b"\x89PNG\r\n\x1a\n"


def _place(data: bytearray, rng: random.Random) -> int:
    """Somewhere; every other time in the header."""
    return rng.randrange(min(len(data), _HEADER) if rng.random() < 0.5 else len(data))


def _set(data: bytearray, rng: random.Random) -> None:
    data[_place(data, rng)] = rng.choice((*_EDGES, rng.randrange(256)))


def _flip(data: bytearray, rng: random.Random) -> None:
    data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _number(data: bytearray, rng: random.Random) -> None:
    form, place = rng.choice(_FORMS), _place(data, rng)
    size = struct.calcsize(form)
    data[place : place + size] = struct.pack(form, rng.choice(_NUMBERS) & (1 << 8 * size) - 1)


def _cut(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    del data[place : place + rng.choice((1, 2, 4, 16, 256))]


def _end(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _repeat(data: bytearray, rng: random.Random) -> None:
    place, length = _place(data, rng), rng.choice((1, 4, 16, 64))
    data[place:place] = data[place : place + length] * rng.choice((1, 1, 2, 50))


def _insert(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    data[place:place] = rng.randbytes(rng.choice((1, 2, 4, 16)))


def _move(data: bytearray, rng: random.Random) -> None:
    place, length = _place(data, rng), rng.choice((4, 12, 64))
    part = data[place : place + length]
    del data[place : place + length]
    to = rng.randrange(len(data) + 1)
    data[to:to] = part


_BYTE_MUTATIONS: Final[Sequence[tuple[Mutation, int]]] = (
    (_set, 6), (_flip, 4), (_number, 4), (_cut, 2), (_end, 1), (_repeat, 2), (_insert, 2), (_move, 1),
)  # fmt: skip
"""Mutation and weight."""


def mutate_bytes(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """One to eight mutations, sometimes after a splice with one of the others. The check sums of a PNG are mended."""
    result = bytearray(data)
    if rng.random() < 0.1:
        other = rng.choice(others)
        result[rng.randrange(len(result) + 1) :] = other[rng.randrange(len(other) + 1) :]
    mutations, weights = zip(*_BYTE_MUTATIONS, strict=True)
    for mutation in rng.choices(mutations, weights, k=rng.choice((1, 1, 2, 3, 8))):
        if result:
            mutation(result, rng)
    # Wrong sums would stop a decoder before it looks at anything else.
    if result.startswith(_PNG) and rng.random() < 0.7:
        _mend_png(result)
    return bytes(result)


def _mend_png(data: bytearray) -> None:
    place = len(_PNG)
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4


HOSTILE_VALUES: Final[Sequence[Any]] = (
    None, True, False, 0, 1, -1, 2, 0.5, -0.0, 5e-324, 1e300, 1e308, float("inf"), float("-inf"), float("nan"),
    2**31, 2**63, -(2**63), 10**400, "", " ", "\0", "\ud800", "\udc80", "a\nb", "\x1b[2J", "..", "../x", "/etc/passwd",
    "x" * 5000, "a/b", "con.onnx", "x.onnx", "0" * 64, "0" * 40, [], {}, [[]], [None], {"": None}, {"a": {}},
    [0.5, 0.5], ["neutral"], "encoder", "detector", "tiny", "mtcnn",
)  # fmt: skip
"""JSON values that a reader must refuse, or take for what they are."""

_DEEP: Final = "!deep!"


def mutate_json(value: Any, rng: random.Random) -> tuple[Any, str]:
    """One to three values put elsewhere, removed, renamed or replaced; a word that `deepen` turns into a deep value.

    Args:
        value: of JSON; changed in place.
        rng: where all choices come from.

    Returns:
        The value, and the word, "" where no deep value was put in.
    """
    word = ""
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_containers(value))
        if not places:
            break
        container = rng.choice(places)
        key = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
        action = rng.random()
        if action < 0.15:
            del container[key]
        elif action < 0.25 and isinstance(container, dict):
            container[rng.choice(("", "kind", "a\n", "\ud800", "triplet", "__proto__", "extra"))] = container[key]
        elif action < 0.35:
            other = rng.choice(places)
            container[key] = copy.deepcopy(rng.choice(list(other.values()) if isinstance(other, dict) else other))
        elif action < 0.4:
            container[key] = word = _DEEP
        else:
            container[key] = copy.deepcopy(rng.choice(HOSTILE_VALUES))
    return value, word


def deepen(text: str, word: str, rng: random.Random) -> str:
    """The text of JSON with each deep value in it spelled out: lists or objects in each other."""
    if not word:
        return text
    depth = rng.choice((5, 20, 300, 900, 990, 5000))
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    return text.replace(f'"{word}"', f"{opening * depth}1{closing * depth}")


def _containers(value: Any, depth: int = 0) -> list[Any]:
    """Every list and object in the value that is not empty."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    below = [found for item in items for found in _containers(item, depth + 1)] if depth < 20 else []
    return [value, *below] if items else below
