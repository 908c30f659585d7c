"""From an entry of the weights manifest to verified local files.

Files come from the package itself (`bundled`), else from the local cache of the Hugging Face Hub, else from the Hub at
a full revision. Size and SHA-256 are checked at the first use in each process. Nothing is ever unpickled.
"""

import hashlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from fevertools.errors import UnknownWeightsError, WeightsIntegrityError, WeightsUnavailableError
from fevertools.manifest import ROLES, Hub, Manifest, WeightsEntry, WeightsFile, load_manifest

__all__ = ["Manifest", "WeightsEntry", "WeightsFile", "load_manifest", "resolve"]


def resolve(
    weights: str | WeightsEntry,
    *,
    roles: Iterable[str] | None = None,
    cache_dir: Path | str | None = None,
    local_files_only: bool = False,
) -> dict[str, Path]:
    """Local, verified files of one entry.

    Args:
        weights: an entry, or the name of one in the package's own manifest.
        roles: the files wanted, by role; None is all that the entry's kind requires.
        cache_dir: folder of the Hub cache; None is the library's own (`HF_HOME`, `HF_HUB_CACHE`).
        local_files_only: never use the network. `HF_HUB_OFFLINE=1` in the environment does the same.

    Returns:
        role -> path of a file whose size and SHA-256 are those of the manifest.

    Raises:
        UnknownWeightsError: no entry has this name, or it has no file of that role.
        WeightsUnavailableError: a file is neither bundled nor cached and could not be fetched.
        WeightsIntegrityError: a file is not the one the manifest describes.
    """
    entry = load_manifest().named(weights) if isinstance(weights, str) else weights
    paths = {}
    for role in ROLES[entry.kind][0] if roles is None else roles:
        if role not in entry.files:
            raise UnknownWeightsError(f"{entry.name} has no {role!r} file; it has: {', '.join(entry.files)}")
        file = entry.files[role]
        bundled = entry.folder / file.path
        if entry.bundled and bundled.is_file():
            paths[role] = _verify(bundled, file, "reinstall fevertools, or export the weights again")
        elif entry.hub is not None:
            paths[role] = _fetch(entry.hub, file, cache_dir, local_files_only)
        else:
            raise WeightsUnavailableError(
                f"{bundled} is missing and {entry.name} is published nowhere else; reinstall fevertools"
            )
    return paths


def _fetch(hub: Hub, file: WeightsFile, cache_dir: Path | str | None, local_files_only: bool) -> Path:
    """From the Hub's local cache, else from the Hub."""
    # Only here is the library needed; importing fevertools must not pay for it.
    import huggingface_hub
    from huggingface_hub import errors

    # Releases before 1.0 raise requests' errors (OSErrors), later ones those of httpx, under the same name here.
    http_error: type[Exception] = getattr(errors, "HTTPError", OSError)
    try:
        path = huggingface_hub.hf_hub_download(
            hub.repo_id, file.path, revision=hub.revision, cache_dir=cache_dir, local_files_only=local_files_only
        )
    except (OSError, ValueError, RuntimeError, http_error) as error:
        reason = f"{type(error).__name__}: {str(error).rstrip('.')}"
        raise WeightsUnavailableError(
            f"{file.path} is not in the local cache and could not be fetched from {hub.repo_id} at {hub.revision}: "
            f"{reason}. Connect once (without HF_HUB_OFFLINE), or give cache_dir= a cache that holds it"
        ) from error
    return _verify(Path(path), file, f"delete {path} and its blob so that it is fetched again")


_verified: dict[tuple[str, int, int], str] = {}  # (path, size, mtime in ns) -> SHA-256
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
    key = (os.fspath(path.resolve()), status.st_size, status.st_mtime_ns)
    with _verified_lock:
        digest = _verified.get(key)
    if digest is None:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        with _verified_lock:
            _verified[key] = digest
    return status.st_size, digest
