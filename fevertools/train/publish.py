"""`publish`: one encoder, its manifest and its model card into a repository of the Hugging Face Hub, as one commit."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from huggingface_hub import CommitOperationAdd, HfApi

from fevertools.errors import PublishError, WeightsUnavailableError
from fevertools.hub import client_errors, reason, status
from fevertools.manifest import (
    MANIFEST_NAME,
    MANIFEST_VERSION,
    WeightsEntry,
    load_manifest,
    manifest_path,
    parse_manifest,
)
from fevertools.train.card import model_card
from fevertools.train.export import describe_file, read_manifest, update_manifest
from fevertools.weights import resolve

CARD_NAME: Final = "README.md"

_LOGIN = "log in with a token that may write (`hf auth login`, or HF_TOKEN in the environment)"
_MENDS: Final[Mapping[int | None, str]] = MappingProxyType(
    {
        401: f"to publish, {_LOGIN}",
        403: f"this account may not write there; choose another --repo-id, or {_LOGIN}",
        404: f"there is no such organisation, or it is not yours; choose another --repo-id, or {_LOGIN}",
        None: "give the same command again; what has arrived is not sent twice",
    }
)
"""HTTP status -> what to do. None is for every other failure."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What one commit puts into a repository."""

    repo_id: str
    message: str
    files: Mapping[str, Path | bytes]  # by the path in the repository
    entry: Mapping[str, Any]  # as the local manifest will hold it, but for `hub`
    manifest: Path  # the local manifest

    @property
    def card(self) -> str:
        """The model card."""
        return self._bytes(CARD_NAME).decode("utf-8")

    def listing(self) -> list[str]:
        """Path, size and SHA-256 of every file, one a line."""
        width = max(map(len, self.files))
        contents = {path: self._bytes(path) for path in self.files}
        return [
            f"{path:<{width}}  {len(data):>11,} bytes  sha256 {hashlib.sha256(data).hexdigest()}"
            for path, data in contents.items()
        ]

    def _bytes(self, path: str) -> bytes:
        content = self.files[path]
        return content if isinstance(content, bytes) else content.read_bytes()


def publish(
    name: str,
    repo_id: str,
    *,
    manifest: Path | None = None,
    safetensors: Path | None = None,
    private: bool = False,
    dry_run: bool = False,
) -> str | None:
    """Publish an encoder, print what was done, and write repository and commit into the local manifest.

    Args:
        name: of the encoder in the manifest.
        repo_id: "organisation/name", made if it does not exist.
        manifest: the local manifest, beside which bundled files lie; None is the package's own.
        safetensors: weights to train on from, which join the entry.
        private: make the repository private, and refuse one that is not.
        dry_run: print what would be uploaded, and the card; touch nothing, the network neither.

    Returns:
        the full commit; None for a dry run.

    Raises:
        UnknownWeightsError: the manifest has no encoder of this name.
        ManifestError: a name of the repository, of a file or anything else that a manifest may not hold.
        WeightsIntegrityError: a file is not the one the manifest describes.
        WeightsUnavailableError: a file is missing.
        PublishError: the Hub refused, or could not be reached; nothing was written to the local manifest.
    """
    upload = prepare(name, repo_id, manifest or manifest_path(), safetensors)
    words = "would upload" if dry_run else "uploading"
    print(f"{words} to {'the private ' if private else ''}{repo_id}, as the commit {upload.message!r}:")
    print("\n".join(f"  {line}" for line in upload.listing()))
    if dry_run:
        print(f"would write repo_id and revision to {upload.manifest}\n\n{CARD_NAME}:\n\n{upload.card}", end="")
        return None
    commit = send(upload, private)
    entry = {**upload.entry, "hub": {"repo_id": repo_id, "revision": commit}}
    _check(name, entry, upload.manifest)
    update_manifest(upload.manifest, name, entry)
    print(f"published {repo_id}@{commit}:{name}; {upload.manifest} says so")
    return commit


def prepare(name: str, repo_id: str, manifest: Path, safetensors: Path | None = None) -> Upload:
    """Everything that is to be uploaded, its bytes verified. Arguments and errors are those of `publish`."""
    own = manifest.resolve() == manifest_path().resolve()
    local = load_manifest(None if own else manifest).entry(name, "encoder")
    entry = read_manifest(manifest)["weights"][name]
    roles = [role for role in local.files if role != "safetensors" or safetensors is None]
    paths = resolve(local, roles=roles, local_files_only=True).values()
    files: dict[str, Path | bytes] = {path.name: path for path in paths}
    if safetensors is not None:
        if not safetensors.is_file():
            raise WeightsUnavailableError(f"no file {safetensors}; export --safetensors writes one")
        entry["files"]["safetensors"] = describe_file(safetensors)
        files[safetensors.name] = safetensors
    _check(name, {**entry, "hub": {"repo_id": repo_id, "revision": "0" * 40}}, manifest)
    # Beside the files that it describes, wherever somebody puts a copy of the repository.
    beside = {**entry, "bundled": True, "hub": None}
    value = {"manifest_version": MANIFEST_VERSION, "default": {"encoder": name}, "weights": {name: beside}}
    files[MANIFEST_NAME] = (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
    files[CARD_NAME] = model_card(_check(name, beside, manifest), repo_id).encode("utf-8")
    return Upload(repo_id, f"{name}, version {local.version}", MappingProxyType(files), entry, manifest)


def send(upload: Upload, private: bool) -> str:
    """Make the repository if there is none, and commit to it; the full hash of the commit.

    Raises:
        PublishError: the Hub refused, or could not be reached.
    """
    api = HfApi()
    operations = [CommitOperationAdd(path, content) for path, content in upload.files.items()]
    try:
        api.create_repo(upload.repo_id, private=private or None, exist_ok=True)
        if private and not api.model_info(upload.repo_id).private:
            raise PublishError(
                f"{upload.repo_id} exists and is public; make it private in its settings, or leave --private out"
            )
        return str(api.create_commit(upload.repo_id, operations, commit_message=upload.message).oid)
    except client_errors() as error:
        mend = _MENDS.get(status(error), _MENDS[None])
        raise PublishError(f"{upload.repo_id} could not be written: {reason(error)}; {mend}") from error


def _check(name: str, entry: Mapping[str, Any], manifest: Path) -> WeightsEntry:
    value = {"manifest_version": MANIFEST_VERSION, "default": {}, "weights": {name: dict(entry)}}
    return parse_manifest(value, manifest.parent).named(name)
