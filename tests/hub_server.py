"""A small Hub on the loopback interface: the part of its protocol that downloads and commits use, and faults to order.

Small files are served by the Hub itself, weights by redirection to storage on another port, as the real one does.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

READ, WRITE = "hf_test_read", "hf_test_write"
LFS = (".onnx", ".safetensors", ".npy")


@dataclass
class Repo:
    """Commits by their hash, and where the branches are."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add or replace files on a branch; the hash of the new commit."""
        parent = self.branches.get(branch, "")
        content = {**self.commits.get(parent, {}), **files}
        digest = hashlib.sha1(parent.encode())
        for name, data in sorted(content.items()):
            digest.update(name.encode() + data)
        sha = digest.hexdigest()
        self.commits[sha], self.branches[branch] = content, sha
        return sha


Action = Callable[["Handler"], bool]
"""Takes over the answer to a request. False leaves it to the usual one after all."""


@dataclass
class Fault:
    method: str
    path: re.Pattern[str]
    action: Action
    times: int


class Hub:
    """Repositories, ordered faults and a log of requests, served while the `with` block runs."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.storage: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []  # "METHOD /path"
        self.posted: list[tuple[str, object]] = []  # path and parsed body
        self.moved: dict[str, str] = {}  # old repository -> new one
        self.closing = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> "Hub":
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
        for server in self._servers:
            server.hub = self  # type: ignore[attr-defined]
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.url, self.storage_url = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def repo(self, name: str, files: dict[str, bytes], **options: bool) -> str:
        """Make a repository with one commit; its hash."""
        self.repos[name] = Repo(**options)
        return self.repos[name].commit(files)

    def order(self, action: Action, path: str, method: str = "GET", times: int = 1) -> None:
        """The next `times` requests of this method whose path holds the pattern meet `action`."""
        self.faults.append(Fault(method, re.compile(path), action, times))

    def fault(self, method: str, path: str) -> Action | None:
        with self._lock:
            for fault in self.faults:
                if fault.times and fault.method == method and fault.path.search(path):
                    fault.times -= 1
                    return fault.action
        return None

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, request)) for request in self.requests)


# ------------------------------------------------------------------------------------------------------------- faults


def answer(code: int, error: str = "", **headers: str) -> Action:
    """This status, with the Hub's header for the kind of error."""

    def act(handler: "Handler") -> bool:
        extra = {"X-Error-Code": error} if error else {}
        handler.reply(code, b"", **extra, **{name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return act


def stall(handler: "Handler") -> bool:
    """Half of the file, then silence with the connection open."""
    data = handler.start_file()
    handler.wfile.write(data[: len(data) // 2])
    handler.hub.closing.wait(20)
    handler.close_connection = True
    return True


def break_off(handler: "Handler") -> bool:
    """Half of the file, then an orderly end of the connection."""
    data = handler.start_file()
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True
    return True


def reset(handler: "Handler") -> bool:
    """Half of the file, then a reset of the connection."""
    data = handler.start_file()
    handler.wfile.write(data[: len(data) // 2])
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(handler.connection.detach())
    handler.close_connection = True
    return True


def short(handler: "Handler") -> bool:
    """Half of the file, passed off as the whole."""
    data = handler.file()
    handler.reply(200, data[: len(data) // 2])
    return True


def flip(handler: "Handler") -> bool:
    """As many bytes, one of them another."""
    data = bytearray(handler.file())
    data[len(data) // 2] ^= 1
    handler.reply(200, bytes(data))
    return True


def after(event: Callable[[], object]) -> Action:
    """The usual answer, once something has happened."""

    def act(handler: "Handler") -> bool:
        event()
        return False

    return act


# -------------------------------------------------------------------------------------------------------------- server


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        self.dispatch()

    def do_GET(self) -> None:
        self.dispatch()

    def do_POST(self) -> None:
        self.dispatch()

    def do_PUT(self) -> None:
        self.dispatch()

    def dispatch(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.url = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {self.url}")
        action = self.hub.fault(self.command, self.url)
        # A client that gives up closes its end.
        with contextlib.suppress(ConnectionError):
            if action is not None and action(self):
                return
            for method, pattern, act in ROUTES:
                found = re.fullmatch(pattern, self.url)
                if found and self.command in method.split():
                    act(self, **found.groupdict())
                    return
            self.reply(404, b"no such address")

    def reply(self, code: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        # No connection outlives its server.
        for name, value in {"Content-Length": str(len(data)), "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def json(self, value: object, code: int = 200) -> None:
        self.reply(code, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    # -------------------------------------------------------------------------------------------------------- reading

    def find_repo(self, name: str) -> Repo | None:
        """The repository, or None after an answer that says why not, in the Hub's way."""
        repo, token = self.hub.repos.get(name), self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", READ, WRITE):
            self.reply(401, **{"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repo is None or (repo.private and not token):
            # Who may not read it is not told that it exists.
            self.reply(404 if token else 401, **{"X-Error-Code": "RepoNotFound"})
        elif repo.gated and token != WRITE:
            self.reply(403, **{"X-Error-Code": "GatedRepo"})
        else:
            return repo
        return None

    def find_commit(self, name: str, revision: str) -> tuple[Repo, str] | None:
        repo = self.find_repo(name)
        if repo is None:
            return None
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            self.reply(404, **{"X-Error-Code": "RevisionNotFound"})
            return None
        return repo, commit

    def resolve(self, name: str, revision: str, path: str) -> None:
        if name in self.hub.moved:
            self.reply(307, Location=f"/{self.hub.moved[name]}/resolve/{revision}/{path}")
            return
        found = self.find_commit(name, revision)
        if found is None:
            return
        repo, commit = found
        data = repo.commits[commit].get(path)
        if data is None:
            self.reply(404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        elif path.endswith(LFS):
            oid = hashlib.sha256(data).hexdigest()
            self.hub.storage[oid] = data
            self.reply(
                302,
                **{
                    "Location": f"{self.hub.storage_url}/storage/{oid}",
                    "X-Repo-Commit": commit,
                    "X-Linked-Etag": f'"{oid}"',
                    "X-Linked-Size": str(len(data)),
                },
            )
        else:
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            self.reply(200, data, **{"ETag": f'"{blob}"', "X-Repo-Commit": commit})

    def file(self) -> bytes:
        """What a request to the storage asks for."""
        return self.hub.storage[self.url.rpartition("/")[2]]

    def start_file(self) -> bytes:
        """The headers of the whole file; its bytes are left to the caller."""
        data = self.file()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        return data

    def stored(self, oid: str) -> None:
        data, asked = self.hub.storage[oid], self.headers.get("Range")
        if self.headers.get("Authorization"):
            self.reply(400, b"the token has left the Hub")
        elif asked is None:
            self.reply(200, data)
        else:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.reply(206, data[start:], **{"Content-Range": span})

    def info(self, name: str, revision: str = "main") -> None:
        found = self.find_commit(name, revision)
        if found is not None:
            repo, commit = found
            files = [{"rfilename": path} for path in repo.commits[commit]]
            self.json({"id": name, "sha": commit, "private": repo.private, "siblings": files})

    # -------------------------------------------------------------------------------------------------------- writing

    def posted(self) -> dict:
        value = json.loads(self.body)
        self.hub.posted.append((self.url, value))
        return value

    def may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {WRITE}":
            return True
        code = 403 if self.headers.get("Authorization") else 401
        self.reply(code, **{"X-Error-Message": "no token that may write"})
        return False

    def create(self) -> None:
        if not self.may_write():
            return
        value = self.posted()
        name = f"{value['organization']}/{value['name']}"
        if name in self.hub.repos:
            self.json({"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409)
            return
        private = value.get("private", False) or value.get("visibility") == "private"
        self.hub.repo(name, {".gitattributes": b""}, private=private)
        self.json({"url": f"{self.hub.url}/{name}", "name": name})

    def validate_yaml(self) -> None:
        self.posted()
        self.json({"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        if self.may_write() and self.find_commit(name, revision):
            modes = {True: "lfs", False: "regular"}
            paths = [file["path"] for file in self.posted()["files"]]
            files = [{"path": p, "uploadMode": modes[p.endswith(LFS)], "shouldIgnore": False} for p in paths]
            self.json({"files": files})

    def lfs_batch(self, name: str) -> None:
        objects = []
        for item in self.posted()["objects"]:
            upload = {"href": f"{self.hub.storage_url}/upload/{item['oid']}", "header": {}}
            here = item["oid"] in self.hub.storage
            objects.append(item if here else {**item, "actions": {"upload": upload}})
        self.json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        whole = hashlib.sha256(self.body).hexdigest() == oid
        if whole:
            self.hub.storage[oid] = self.body
        self.reply(200 if whole else 400)

    def commit(self, name: str, revision: str) -> None:
        if not (self.may_write() and self.find_commit(name, revision)):
            return
        lines = [json.loads(line) for line in self.body.splitlines()]
        self.hub.posted.append((self.url, lines))
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.storage[value["oid"]]
        sha = self.hub.repos[name].commit(files, revision)
        self.json({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha, "pullRequestUrl": None})


_REPO = r"(?P<name>[\w.-]+/[\w.-]+)"
ROUTES = [
    ("HEAD GET", rf"/{_REPO}/resolve/(?P<revision>.+?)/(?P<path>[^/]+)", Handler.resolve),
    ("GET", r"/storage/(?P<oid>\w+)", Handler.stored),
    ("GET", rf"/api/models/{_REPO}", Handler.info),
    ("GET", rf"/api/models/{_REPO}/revision/(?P<revision>.+)", Handler.info),
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.validate_yaml),
    ("POST", rf"/api/models/{_REPO}/preupload/(?P<revision>.+)", Handler.preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/upload/(?P<oid>\w+)", Handler.upload),
    ("POST", rf"/api/models/{_REPO}/commit/(?P<revision>.+)", Handler.commit),
]


# -------------------------------------------------------------------------------------------------------------- client


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """For a process whose huggingface_hub talks to this Hub, without a token."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return {
        **known,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


def point_client(monkeypatch: Any, hub: Hub, home: Path) -> None:
    """The same for this process, whose huggingface_hub read the environment when it was imported."""
    from huggingface_hub import constants, file_download

    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING")):
            monkeypatch.delenv(name)
    values = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DOWNLOAD_TIMEOUT": 1,
        "HF_HUB_ETAG_TIMEOUT": 5,
    }
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    # Releases before 1.0 keep a second one.
    template = values["HUGGINGFACE_CO_URL_TEMPLATE"]
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
