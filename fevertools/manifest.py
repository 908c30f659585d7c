"""The weights manifest: what each entry says about its weights. Read strictly, so that nothing is ever guessed."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

from fevertools.errors import ManifestError, UnknownWeightsError
from fevertools.labels import EMOTIONS, LANDMARKS
from fevertools.types import FaceGeometry, Point

MANIFEST_NAME: Final = "weights_manifest.json"
MANIFEST_VERSION: Final = 1
MAX_FILE_SIZE: Final = 4 * 1024**3
"""Bytes. A manifest that announces more is taken for broken."""

MAX_MANIFEST_SIZE: Final = 4 * 1024**2
"""Bytes. A longer manifest is not read."""

MAX_DEPTH: Final = 16
"""Levels of objects inside `metrics`."""

ROLES: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = MappingProxyType(
    {
        "encoder": (("onnx",), ("int8", "triplet", "safetensors")),
        "detector": (("pnet", "rnet", "onet"), ()),
    }
)
"""Kind of entry -> the roles of its files that must exist, and those that may."""

PRECISIONS: Final[Mapping[str, str]] = MappingProxyType({"float32": "onnx", "int8": "int8"})
"""Precision of an encoder's arithmetic -> role of its graph. The embeddings of one entry are alike, near enough to be
compared with each other."""

FOR_TRAINING: Final = ("safetensors",)
"""Roles of files that inference does not read."""


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One file of an entry."""

    path: str  # a plain file name
    size: int  # bytes
    sha256: str  # 64 lower-case hex digits


@dataclass(frozen=True, slots=True)
class Hub:
    """Where an entry is published."""

    repo_id: str  # "organisation/name"
    revision: str  # full commit, 40 hex digits: a branch could change under us


@dataclass(frozen=True, slots=True)
class EncoderInput:
    """What an encoder reads: uint8 (N, height, width, 1) luminance. Mean and std are applied inside the graph."""

    name: str
    geometry: FaceGeometry
    mean: float  # of the training pixels, on the scale that `normalisation` describes
    std: float
    normalisation: str  # in words; no code depends on it


@dataclass(frozen=True, slots=True)
class WeightsEntry:
    """Everything needed to use one set of weights rightly. The last five fields before `folder` are for people."""

    name: str
    kind: str  # a key of ROLES
    title: str
    version: str
    files: Mapping[str, WeightsFile]  # by role
    bundled: bool
    hub: Hub | None
    input: EncoderInput | None  # None for a detector
    outputs: Mapping[str, int]  # name -> width of the (N, width) array; see below; detector: empty
    dimension: int  # of the embedding; 0 for a detector
    labels: tuple[str, ...]  # order of the logits; empty for a detector
    licence: str
    data: tuple[Mapping[str, str], ...]  # what it was trained on, and under which terms
    start: str  # the weights its training began from
    recipe: str | None
    metrics: Mapping[str, Any]  # nested; numbers and strings
    folder: Path  # where bundled files lie on this machine; not part of the manifest

    # The output "triplet" has a file of its own; "maps", which not all weights have, is (N, width, rows, columns).

    @property
    def served(self) -> tuple[str, ...]:
        """The roles of the files that inference reads."""
        return tuple(role for role in self.files if role not in FOR_TRAINING)

    @property
    def geometry(self) -> FaceGeometry:
        """The framing of the crops an encoder reads."""
        if self.input is None:
            raise ManifestError(f"weights.{self.name} is a {self.kind} and reads no face crops; name an encoder")
        return self.input.geometry


@dataclass(frozen=True, slots=True)
class Manifest:
    """All entries by name, and the default of each kind."""

    default: Mapping[str, str]  # kind -> name
    weights: Mapping[str, WeightsEntry]

    def entry(self, name: str | None, kind: str) -> WeightsEntry:
        """The entry of this name, or the default of its kind for None.

        Raises:
            UnknownWeightsError: there is none, or it is of another kind.
        """
        known = ", ".join(sorted(n for n, e in self.weights.items() if e.kind == kind)) or "none"
        if name is None and kind not in self.default:
            raise UnknownWeightsError(f"the manifest has no default {kind}; name one of: {known}")
        name = self.default[kind] if name is None else name
        if name not in self.weights or self.weights[name].kind != kind:
            raise UnknownWeightsError(f"no {kind} weights named {name!r}; known: {known}")
        return self.weights[name]

    def named(self, name: str) -> WeightsEntry:
        """The entry of this name, of whatever kind.

        Raises:
            UnknownWeightsError: there is none.
        """
        if name not in self.weights:
            raise UnknownWeightsError(f"no weights named {name!r}; known: {', '.join(sorted(self.weights)) or 'none'}")
        return self.weights[name]


def manifest_path() -> Path:
    """The manifest that ships with the package; in a source checkout, the one beside the package folder."""
    package = Path(__file__).resolve().parent
    shipped = package / MANIFEST_NAME
    return shipped if shipped.is_file() else package.parent / MANIFEST_NAME


def load_manifest(path: Path | str | None = None) -> Manifest:
    """Read and check a manifest.

    Args:
        path: a manifest file whose bundled files lie beside it, such as the export command writes. None is the
            package's own, whose files lie in `fevertools/bundled`.

    Raises:
        ManifestError: it cannot be read, or holds something that this version does not know; the message says where.
    """
    file = manifest_path() if path is None else Path(path)
    try:
        folder = Path(__file__).resolve().parent / "bundled" if path is None else file.resolve().parent
        if (size := file.stat().st_size) > MAX_MANIFEST_SIZE:
            raise ManifestError(f"{file} has {size} bytes, more than any manifest needs ({MAX_MANIFEST_SIZE})")
        value = json.loads(file.read_text("utf-8"), object_pairs_hook=_unique, parse_constant=_not_json)
    except ManifestError:  # a ValueError itself
        raise
    except OSError as error:
        mend = "reinstall fevertools" if path is None else "check the path"
        raise ManifestError(f"cannot read the weights manifest {file}: {error.strerror}; {mend}") from error
    except (ValueError, RuntimeError) as error:  # a name that no file can have, a loop of links, nested too deeply
        raise ManifestError(f"{file} is not JSON: {error}") from error
    return parse_manifest(value, folder)


def parse_manifest(value: object, folder: Path) -> Manifest:
    """Check the parsed JSON of a manifest. `folder` is where its bundled files lie.

    Raises:
        ManifestError: the message starts with the place, such as `weights.foo.files.onnx.sha256`.
    """
    top = _object(value, "manifest", ("manifest_version", "default", "weights"))
    if top["manifest_version"] != MANIFEST_VERSION or isinstance(top["manifest_version"], bool):
        raise ManifestError(
            f"manifest_version: {top['manifest_version']!r} is not {MANIFEST_VERSION}, the one this version reads; "
            "upgrade fevertools"
        )
    weights = {}
    for name, entry in _object(top["weights"], "weights").items():
        weights[_match(name, f"weights.{name}", _NAME, "a name of a-z, 0-9, '.', '_' and '-'")] = _entry(
            name, entry, folder
        )
    default = _object(top["default"], "default", (), tuple(ROLES))
    for kind, name in default.items():
        if not isinstance(name, str) or name not in weights:
            raise ManifestError(f"default.{kind}: {name!r} is not an entry; known: {', '.join(sorted(weights))}")
        if weights[name].kind != kind:
            raise ManifestError(f"default.{kind}: {name!r} is of kind {weights[name].kind}")
    return Manifest(MappingProxyType(default), MappingProxyType(weights))


# The checks below take a value and its place, and return the value or name the place.

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
# No format that is made to hold pickles, and no name that is a device on Windows.
_FILE = re.compile(
    r"(?!(?:con|prn|aux|nul|com\d|lpt\d)\.)[a-z0-9][a-z0-9._-]{0,119}\.(?:onnx|safetensors|npy)",
    re.IGNORECASE | re.ASCII,
)
# The Hub's own rules: 96 characters in all, no "--", no ".git", and a letter or digit at both ends of both parts.
_REPO = re.compile(r"(?!.*--)(?!.*\.git$)(?=.{3,96}$)[A-Za-z0-9](?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REVISION = re.compile(r"[0-9a-f]{40}")

_COMMON = ("kind", "title", "version", "files", "bundled", "hub", "licence", "data", "start")
_ENCODER = ("input", "outputs", "dimension", "labels", "recipe")


def _entry(name: str, value: object, folder: Path) -> WeightsEntry:
    where = f"weights.{name}"
    kind = value.get("kind") if isinstance(value, dict) else None
    _choice(kind, f"{where}.kind", tuple(ROLES))
    encoder = kind == "encoder"
    required, optional = (_COMMON + _ENCODER, ("metrics",)) if encoder else (_COMMON, ("recipe", "metrics"))
    fields = _object(value, where, required, optional)
    fields.setdefault("recipe", None)
    bundled, hub = _typed(fields["bundled"], f"{where}.bundled", bool, "true or false"), _hub(fields["hub"], where)
    if not bundled and hub is None:
        raise ManifestError(f"{where}: neither bundled nor on a hub, so that nobody could load it")
    files = {
        role: _file(file, f"{where}.files.{role}")
        for role, file in _object(fields["files"], f"{where}.files", *ROLES[str(kind)]).items()
    }
    # Letter case too: some file systems do not tell it.
    if len({file.path.lower() for file in files.values()}) < len(files):
        raise ManifestError(f"{where}.files: two roles name the same file; each needs its own")
    return WeightsEntry(
        name=name,
        kind=str(kind),
        title=_text(fields["title"], f"{where}.title"),
        version=_text(fields["version"], f"{where}.version"),
        files=MappingProxyType(files),
        bundled=bundled,
        hub=hub,
        input=_input(fields["input"], f"{where}.input") if encoder else None,
        licence=_text(fields["licence"], f"{where}.licence"),
        data=tuple(_terms(item, f"{where}.data[{i}]") for i, item in enumerate(_list(fields["data"], f"{where}.data"))),
        start=_text(fields["start"], f"{where}.start"),
        recipe=None if fields["recipe"] is None else _text(fields["recipe"], f"{where}.recipe"),
        metrics=_metrics(fields.get("metrics", {}), f"{where}.metrics"),
        folder=folder,
        **(_outputs(fields, where) if encoder else {"outputs": MappingProxyType({}), "dimension": 0, "labels": ()}),
    )


def _outputs(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    labels = tuple(_list(fields["labels"], f"{where}.labels"))
    if labels != EMOTIONS:
        raise ManifestError(f"{where}.labels: the order must be {', '.join(EMOTIONS)}; got {labels}")
    dimension = _integer(fields["dimension"], f"{where}.dimension", 1, 65536)
    given = _object(fields["outputs"], f"{where}.outputs", ("embedding", "logits"), ("triplet", "maps"))
    outputs = {name: _integer(width, f"{where}.outputs.{name}", 1, 65536) for name, width in given.items()}
    for name, width in (("embedding", dimension), ("logits", len(labels)), ("maps", len(labels))):
        if outputs.get(name, width) != width:
            raise ManifestError(f"{where}.outputs.{name}: must be {width}, got {outputs[name]}")
    for here, there in (("outputs", "files"), ("files", "outputs")):
        if "triplet" in fields[here] and "triplet" not in fields[there]:
            raise ManifestError(f"{where}.{there}: triplet missing, which {where}.{here} has")
    return {"outputs": MappingProxyType(outputs), "dimension": dimension, "labels": labels}


def _file(value: object, where: str) -> WeightsFile:
    fields = _object(value, where, ("path", "size", "sha256"))
    return WeightsFile(
        path=_match(
            fields["path"], f"{where}.path", _FILE, "a plain file name without folders, .onnx, .safetensors or .npy"
        ),
        size=_integer(fields["size"], f"{where}.size", 1, MAX_FILE_SIZE),
        sha256=_match(fields["sha256"], f"{where}.sha256", _SHA256, "64 lower-case hex digits"),
    )


def _hub(value: object, where: str) -> Hub | None:
    if value is None:
        return None
    fields = _object(value, f"{where}.hub", ("repo_id", "revision"))
    return Hub(
        repo_id=_match(fields["repo_id"], f"{where}.hub.repo_id", _REPO, "'organisation/name'"),
        revision=_match(fields["revision"], f"{where}.hub.revision", _REVISION, "a full commit, 40 hex digits"),
    )


def _input(value: object, where: str) -> EncoderInput:
    names = ("name", "height", "width", "channels", "layout", "dtype", "landmarks", "mean", "std", "normalisation")
    fields = _object(value, where, names)
    for key, known in (("channels", "luminance"), ("layout", "NHWC"), ("dtype", "uint8")):
        _choice(fields[key], f"{where}.{key}", (known,))
    points = _list(fields["landmarks"], f"{where}.landmarks")
    if len(points) != len(LANDMARKS):
        raise ManifestError(f"{where}.landmarks: {len(LANDMARKS)} points are needed, got {len(points)}")
    left_eye, right_eye, nose, left_mouth, right_mouth = (
        _point(point, f"{where}.landmarks[{i}]") for i, point in enumerate(points)
    )
    if left_eye[0] >= right_eye[0]:
        raise ManifestError(f"{where}.landmarks: the left eye must lie left of the right eye (left of the picture)")
    std = _number(fields["std"], f"{where}.std")
    if std <= 0:
        raise ManifestError(f"{where}.std: must be above 0, got {std}")
    return EncoderInput(
        name=_text(fields["name"], f"{where}.name"),
        geometry=FaceGeometry(
            height=_integer(fields["height"], f"{where}.height", 8, 2048),
            width=_integer(fields["width"], f"{where}.width", 8, 2048),
            landmarks=(left_eye, right_eye, nose, left_mouth, right_mouth),
        ),
        mean=_number(fields["mean"], f"{where}.mean"),
        std=std,
        normalisation=_text(fields["normalisation"], f"{where}.normalisation"),
    )


def _point(value: object, where: str) -> Point:
    numbers = [_number(number, where) for number in _list(value, where)]
    if len(numbers) != 2 or not all(0 <= number <= 1 for number in numbers):
        raise ManifestError(f"{where}: must be [x, y] in fractions of the frame, 0 to 1; got {value!r}")
    return numbers[0], numbers[1]


def _terms(value: object, where: str) -> Mapping[str, str]:
    fields = _object(value, where, ("name", "terms"), ("url", "use"))
    if not str(fields.get("url", "https://")).startswith("https://"):
        raise ManifestError(f"{where}.url: must start with https://, got {fields['url']!r:.60}")
    return MappingProxyType({key: _text(text, f"{where}.{key}") for key, text in fields.items()})


def _metrics(value: object, where: str, depth: int = MAX_DEPTH) -> Mapping[str, Any]:
    if depth == 0:
        raise ManifestError(f"{where:.60}...: more than {MAX_DEPTH} levels")

    def leaf(item: object, place: str) -> object:
        if isinstance(item, dict):
            return _metrics(item, place, depth - 1)
        return _text(item, place) if isinstance(item, str) else _number(item, place)

    fields = {_text(key, where): item for key, item in _object(value, where).items()}
    return MappingProxyType({key: leaf(item, f"{where}.{key}") for key, item in fields.items()})


def _object(
    value: object, where: str, required: tuple[str, ...] | None = None, optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A copy of a JSON object; with `required`, one of exactly these keys and perhaps the optional ones."""
    fields = dict(_typed(value, where, dict, "an object"))
    if required is not None:
        if missing := [key for key in required if key not in fields]:
            raise ManifestError(f"{where}: {', '.join(missing)} missing")
        if unknown := [key for key in fields if key not in (*required, *optional)]:
            raise ManifestError(f"{where}.{unknown[0]}: unknown key; known: {', '.join((*required, *optional))}")
    return fields


def _typed(value: object, where: str, kind: type, words: str) -> Any:
    if not isinstance(value, kind):
        raise ManifestError(f"{where}: must be {words}, got {value!r:.60}")
    return value


def _list(value: object, where: str) -> list[Any]:
    return list(_typed(value, where, list, "a list"))


def _text(value: object, where: str) -> str:
    # Manifests of strangers are shown in terminals, where control characters would do more than show.
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ManifestError(f"{where}: must be text, one line and not empty, got {value!r:.60}")
    return value


def _match(value: object, where: str, pattern: re.Pattern[str], words: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value) or ".." in value:
        raise ManifestError(f"{where}: must be {words}, got {value!r:.90}")
    return value


def _choice(value: object, where: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ManifestError(f"{where}: must be {' or '.join(map(repr, known))}, got {value!r:.60}")


def _number(value: object, where: str) -> float:
    # bool is an int in Python, not in a manifest.
    # The bounds also refuse NaN, infinity and whole numbers that no float can hold.
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e300 <= value <= 1e300:
        raise ManifestError(f"{where}: must be a number, got {value!r:.60}")
    return value


def _integer(value: object, where: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ManifestError(f"{where}: must be a whole number from {least} to {most}, got {value!r:.60}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if hidden := [name for name in fields if not name.isprintable()]:
        raise ManifestError(f"manifest: the key {hidden[0]!r:.60} has control characters")
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        raise ManifestError(f"manifest: the key {max(names, key=names.count)!r} stands twice in one object")
    return fields


def _not_json(name: str) -> NoReturn:
    raise ManifestError(f"manifest: {name} is not a JSON number")
