"""From an entry of the weights manifest to verified local files.

Files come from the package itself (`bundled`), else from the local cache of the Hugging Face Hub, else from the Hub at
a full revision. Size and SHA-256 are checked at the first use in each process. Nothing is ever unpickled.
"""

import hashlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError
from typing import Final, Unpack

import numpy as np

from fevertools.errors import UnknownWeightsError, WeightsIntegrityError, WeightsUnavailableError
from fevertools.hub import CacheOptions, download, open_repository, parse_reference
from fevertools.manifest import Hub, Manifest, WeightsEntry, WeightsFile, load_manifest
from fevertools.types import Float32

__all__ = ["Manifest", "WeightsEntry", "WeightsFile", "find", "load_head", "load_manifest", "locate", "resolve"]


def resolve(
    weights: str | WeightsEntry,
    *,
    roles: Iterable[str] | None = None,
    **options: Unpack[CacheOptions],
) -> dict[str, Path]:
    """Local, verified files of one entry.

    Args:
        weights: an entry, or the name of one in the package's own manifest.
        roles: the files wanted, by role; None is all that inference reads.
        options: `cache_dir`, `local_files_only` and `force_download`, see `hub.CacheOptions`.

    Returns:
        role -> path of a file whose size and SHA-256 are those of the manifest.

    Raises:
        UnknownWeightsError: no entry has this name, or it has no file of that role.
        WeightsUnavailableError: a file is neither bundled nor cached and could not be fetched.
        WeightsIntegrityError: a file is not the one the manifest describes.
    """
    entry = load_manifest().named(weights) if isinstance(weights, str) else weights
    paths = {}
    for role in entry.served if roles is None else roles:
        if role not in entry.files:
            raise UnknownWeightsError(f"{entry.name} has no {role!r} file; it has: {', '.join(entry.files)}")
        file = entry.files[role]
        bundled = entry.folder / file.path
        if entry.bundled and bundled.is_file():
            paths[role] = _verify(bundled, file, "reinstall fevertools, or export the weights again")
        elif entry.hub is not None:
            path = download(entry.hub.repo_id, entry.hub.revision, file.path, **options)
            paths[role] = _verify(path, file, _again(entry, entry.hub, options.get("cache_dir")))
        else:
            raise WeightsUnavailableError(
                f"{bundled} is missing and {entry.name} is published nowhere else; reinstall fevertools"
            )
    return paths


# What NumPy raises for a file that is no array: the header is parsed as a literal of Python.
_NO_ARRAY: Final = (ValueError, TypeError, OverflowError, MemoryError, RecursionError, SyntaxError, TokenError)


def load_head(entry: WeightsEntry, **options: Unpack[CacheOptions]) -> Float32:
    """The triplet head of an encoder: the linear map from its embeddings to what the triplet loss compared.

    Args:
        entry: an encoder's.
        options: as for `resolve`.

    Returns:
        float32 (E, D + 1), finite, with E = `entry.outputs["triplet"]` and D = `entry.dimension`; the last column is
        the bias. It comes from a .npy file of exactly this array.

    Raises:
        UnknownWeightsError: the entry has no triplet head.
        WeightsUnavailableError: as for `resolve`.
        WeightsIntegrityError: as for `resolve`, or the file holds something else.
    """
    path = resolve(entry, roles=("triplet",), **options)["triplet"]
    shape = (entry.outputs["triplet"], entry.dimension + 1)
    mend = "export the weights again"
    try:
        with path.open("rb") as stream:
            head = np.lib.format.read_array(stream, allow_pickle=False)
            rest = stream.read(1)
    except _NO_ARRAY as error:
        reason = f"{type(error).__name__}: {str(error).rstrip('.'):.200}"
        raise WeightsIntegrityError(f"{path} is not a .npy file of numbers: {reason}; {mend}") from error
    if rest:
        raise WeightsIntegrityError(f"{path} holds more than one array; {mend}")
    if head.dtype != np.float32 or head.shape != shape:
        raise WeightsIntegrityError(f"{path} must hold float32 {shape}, got {head.dtype} {head.shape}; {mend}")
    if not np.isfinite(head).all():
        raise WeightsIntegrityError(f"{path} holds numbers that are not finite; {mend}")
    return np.asarray(head, np.float32)


def find(weights: str | Path, kind: str | None = None, **options: Unpack[CacheOptions]) -> WeightsEntry:
    """The entry that someone asks for.

    Args:
        weights: a name in the package's own manifest; the path of a manifest file (it ends in ".json"), for its default
            encoder; or "organisation/name@revision:entry" of a repository on the Hub that carries a manifest, where the
            default encoder of that manifest is taken if the entry is left out.
        kind: the kind that it must be of, a key of `manifest.ROLES`; None is any.
        options: as for `resolve`, for the manifest of a repository.

    Raises:
        UnknownWeightsError: no entry has this name.
        ManifestError: the manifest is not valid.
        WeightsUnavailableError: the repository's manifest is not cached and could not be fetched.
        WeightsIntegrityError: the Hub gave another revision than the one that was asked for.
    """
    manifest, name = locate(weights, **options)
    return manifest.named(name) if kind is None and name is not None else manifest.entry(name, kind or "encoder")


def locate(weights: str | Path, **options: Unpack[CacheOptions]) -> tuple[Manifest, str | None]:
    """The manifest in which `find` looks, and the name that it looks for, None for a default."""
    if str(weights).endswith(".json"):
        return load_manifest(weights), None
    if not isinstance(weights, str) or "/" not in weights:
        return load_manifest(), str(weights)
    if os.path.exists(weights):
        raise UnknownWeightsError(f'{weights} is a file or folder here; give the path of a manifest, in ".json"')
    reference = parse_reference(weights)
    return open_repository(reference, **options), reference.name


def _again(entry: WeightsEntry, hub: Hub, cache_dir: Path | str | None) -> str:
    """What to do about a file from the Hub that is not what the manifest says."""
    place = "" if cache_dir is None else f' --cache-dir "{cache_dir}"'
    return f"fetch it again: fevertools weights pull --force {hub.repo_id}@{hub.revision}:{entry.name}{place}"


_verified: dict[tuple[str | int, ...], str] = {}  # path and status, see `_fingerprint` -> SHA-256
_verified_lock = threading.Lock()


def _verify(path: Path, file: WeightsFile, mend: str) -> Path:
    try:
        size, digest = _fingerprint(path, file.size)
    except OSError as error:
        raise WeightsUnavailableError(f"cannot read {path}: {error.strerror}; {mend}") from error
    if size != file.size:
        raise WeightsIntegrityError(f"{path} has {size} bytes, the manifest says {file.size}; {mend}")
    if digest != file.sha256:
        raise WeightsIntegrityError(f"{path} has the SHA-256 {digest}, the manifest says {file.sha256}; {mend}")
    return path


def _fingerprint(path: Path, expected_size: int) -> tuple[int, str]:
    """Size and SHA-256; the latter is empty where the size differs from the expected one."""
    status = path.stat()
    if status.st_size != expected_size:
        return status.st_size, ""
    # Not only the time of the last change: anyone may set it, and a clock may go back.
    key = (os.fspath(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    with _verified_lock:
        digest = _verified.get(key)
    if digest is None:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        with _verified_lock:
            _verified[key] = digest
    return status.st_size, digest
