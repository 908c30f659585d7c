"""The Hugging Face Hub: what a reference to weights there means, and files fetched from it with patience.

Anyone's repository will do that has a `weights_manifest.json` at its top and the files of its entries beside it.
"""

import errno
import hashlib
import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypedDict, Unpack

from fevertools.errors import ManifestError, UnknownWeightsError, WeightsIntegrityError, WeightsUnavailableError
from fevertools.manifest import MANIFEST_NAME, MAX_MANIFEST_SIZE, Hub, Manifest, load_manifest

WAITS: Final = (1.0, 2.0, 4.0)
"""Seconds before the second, third and fourth attempt at a download that failed for a passing reason."""

PATIENCE: Final = 20.0
"""Seconds after which no further attempt is begun. What huggingface_hub spends on its own attempts counts."""

PASSING: Final = (408, 425, 429, 500, 502, 503, 504)
"""HTTP status codes that another attempt may not meet again."""

_LOGIN = "`hf auth login`, or HF_TOKEN in the environment"
_MENDS: Final[Mapping[int | None, str]] = MappingProxyType(
    {
        401: f"If it is private, log in with an account that may read it ({_LOGIN}); else check its name",
        403: f"Ask for access on the page of the repository, and log in with the account that has it ({_LOGIN})",
        404: f"Check the names and the revision; if it is private, log in ({_LOGIN})",
        429: f"Wait some minutes; those who are logged in may ask more often ({_LOGIN})",
        None: "Connect once (without HF_HUB_OFFLINE), or give a cache that holds it (cache_dir=, --cache-dir)",
    }
)
"""HTTP status -> what to do. None is for every other failure."""

_CACHE_TROUBLE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
_REFERENCE = re.compile(
    r"(?P<repo_id>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w./-]*))?(?::(?P<name>[a-z0-9][a-z0-9._-]*))?", re.ASCII
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_log = logging.getLogger(__name__)


class CacheOptions(TypedDict, total=False):
    """How to come by files of the Hub. The cache is the one that the Hub's own tools share."""

    cache_dir: Path | str | None  # folder of the cache; None is the library's own (`HF_HOME`, `HF_HUB_CACHE`)
    local_files_only: bool  # never use the network; `HF_HUB_OFFLINE=1` in the environment does the same
    force_download: bool  # fetch what is cached again, and replace it, which mends a broken cache


@dataclass(frozen=True, slots=True)
class Reference:
    """Weights in a repository of the Hub."""

    repo_id: str  # "organisation/name"
    revision: str  # full commit, or a branch or tag that is still to be resolved
    name: str | None  # entry of the repository's manifest; None for its default encoder


def parse_reference(text: str) -> Reference:
    """Read "organisation/name@revision:entry". Without a revision it is the branch main.

    Raises:
        UnknownWeightsError: it is not such a reference.
    """
    found = _REFERENCE.fullmatch(text)
    if found is None or ".." in text:
        raise UnknownWeightsError(
            f"{text!r} is neither a name nor a reference to the Hub, organisation/name@revision:entry; the path of a "
            'manifest ends in ".json"'
        )
    return Reference(found["repo_id"], found["revision"] or "main", found["name"])


def open_repository(reference: Reference, **options: Unpack[CacheOptions]) -> Manifest:
    """The manifest of a repository, all of whose entries take their files from that repository at one full commit.

    A branch or tag is resolved to the commit it is at, which the log says (a warning) and `entry.hub.revision` keeps:
    should it move, the files still are those of the manifest that was read.

    Raises:
        WeightsUnavailableError: there is no such repository, revision or manifest, or it cannot be reached.
        WeightsIntegrityError: the Hub gave another commit than the one that was asked for.
        ManifestError: the manifest is not valid.
    """
    path = download(reference.repo_id, reference.revision, MANIFEST_NAME, **options)
    commit = path.parent.name  # of .../snapshots/<commit>/weights_manifest.json, the cache's documented layout
    asked = f"{reference.repo_id}@{reference.revision}"
    if not _COMMIT.fullmatch(commit) or (_COMMIT.fullmatch(reference.revision) and commit != reference.revision):
        raise WeightsIntegrityError(
            f"{asked}: the server answered with the commit {commit!r}; check HF_ENDPOINT and the revision"
        )
    if not (_is_whole(path) or _is_offline(options)):
        options["force_download"] = True
        path = download(reference.repo_id, commit, MANIFEST_NAME, **options)
    if commit != reference.revision:
        _log.warning("%s is at the commit %s; name that in place of it to pin it", asked, commit)
    try:
        manifest = load_manifest(path)
    except ManifestError as error:
        raise ManifestError(
            f"{asked}: {error}. Its author has to mend it, unless the copy here is broken: fetch it again with "
            f"fevertools weights pull --force {reference.repo_id}@{commit}"
        ) from error
    hub = Hub(reference.repo_id, commit)
    entries = {name: replace(entry, bundled=False, hub=hub) for name, entry in manifest.weights.items()}
    return replace(manifest, weights=MappingProxyType(entries))


def _is_whole(path: Path) -> bool:
    """False where the link to a manifest in the cache leads to bytes that are not those of the blob it names.

    Blobs are named by git's SHA-1 or by SHA-256. The other bytes may be damage, or those of a younger commit: a branch
    can move between the two requests of the library, of which the first asks for the commit and the second for bytes.
    """
    if not path.is_symlink() or path.stat().st_size > MAX_MANIFEST_SIZE:
        return True  # it cannot be told, or will be refused for its size
    data, name = path.read_bytes(), path.readlink().name
    if len(name) == hashlib.sha256().digest_size * 2:
        return name == hashlib.sha256(data).hexdigest()
    return name == hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _is_offline(options: CacheOptions) -> bool:
    import huggingface_hub

    return options.get("local_files_only", False) or bool(huggingface_hub.constants.HF_HUB_OFFLINE)


def download(repo_id: str, revision: str, filename: str, **options: Unpack[CacheOptions]) -> Path:
    """One file of a repository, from the local cache, else from the Hub. Its bytes are not verified.

    huggingface_hub itself goes on with a download that breaks off or stalls (HF_HUB_DOWNLOAD_TIMEOUT, 10 seconds by
    default). Other passing failures, such as a reset connection or a server's error, are tried again here, after WAITS.

    Args:
        repo_id: "organisation/name".
        revision: full commit, branch or tag.
        filename: path inside the repository.
        options: of the cache.

    Raises:
        WeightsUnavailableError: it is not cached and could not be fetched; the message says why and what to do.
    """
    # Only here is the library needed; importing fevertools must not pay for it.
    import huggingface_hub

    def fetch(**options: Unpack[CacheOptions]) -> Path:
        return Path(huggingface_hub.hf_hub_download(repo_id, filename, revision=revision, **options))

    calm: CacheOptions = {**options, "force_download": False}
    http_errors = client_errors()
    waits, start = iter(WAITS), time.monotonic()
    while True:
        try:
            path = fetch(**options)
            if options.get("force_download") and not path.is_symlink():
                # Where the cache holds copies in place of links, the library leaves an old copy as it is.
                path.unlink()
                path = fetch(**calm)
            return path
        except http_errors as error:
            wait = next(waits, None)
            late = time.monotonic() - start > PATIENCE
            if wait is None or late or _is_offline(options) or not _passes(error):
                cached = "" if options.get("force_download") else "is not in the local cache and "
                raise WeightsUnavailableError(
                    f"{filename} {cached}could not be fetched from {repo_id} at {revision}: "
                    f"{reason(error)}. {_mend(error)}"
                ) from error
            time.sleep(wait)


def client_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises when it cannot do what it was asked for."""
    return (OSError, ValueError, RuntimeError, _http_root())


def _http_root() -> type[Exception]:
    """The root of the errors of its HTTP library: requests before 1.0 and httpx, under several names, since then."""
    from huggingface_hub import errors

    return [kind for kind in errors.HfHubHTTPError.__mro__ if kind.__module__ != "builtins"][-1]


def status(error: BaseException) -> int | None:
    """The HTTP status that a server gave, if that is what an error of huggingface_hub came from."""
    codes = (getattr(getattr(link, "response", None), "status_code", None) for link in _links(error))
    return next((code for code in codes if code is not None), None)


def reason(error: BaseException) -> str:
    """One line on what an error of huggingface_hub came from."""
    *_, last = _links(error)
    code = status(error)
    return f"HTTP {code}" if code is not None else f"{type(last).__name__}: {' '.join(str(last).split()).rstrip('.')}"


def _mend(error: BaseException) -> str:
    *_, last = _links(error)
    if isinstance(last, OSError) and last.errno in _CACHE_TROUBLE:
        return "Make room in the cache, or the right to write to it, or give another (HF_HOME, cache_dir=, --cache-dir)"
    return _MENDS.get(status(error), _MENDS[None])


def _passes(error: BaseException) -> bool:
    """Whether another attempt may fare better."""
    code = status(error)
    if code is not None:
        return code in PASSING
    return any(isinstance(link, ConnectionError | TimeoutError | _http_root()) for link in _links(error))


def _links(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__
