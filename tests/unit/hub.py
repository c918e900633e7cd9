"""A Hugging Face Hub on this machine, over HTTP, as far as huggingface_hub asks for it."""

import base64
import hashlib
import json
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_planted0secret"
Files = dict[str, bytes]


@dataclass
class Repo:
    """A repository: its commits, oldest first, and its branches."""

    private: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: Files, branch: str = "main", message: str = "") -> str:
        """Make these the files of a branch. Returns the commit."""
        name = hashlib.sha1(f"{branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        self.messages.append(message)
        return name

    def at(self, revision: str) -> str | None:
        """The commit of a branch or of itself."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Hub:
    """What the Hub holds, and how it answers."""

    address: str = ""
    everywhere: bytes | None = None
    """model.safetensors of any model that isn't held."""
    repos: dict[str, Repo] = field(default_factory=dict)
    large: Files = field(default_factory=dict)
    """Large files that were uploaded, by SHA-256."""
    requests: list[str] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    readers: set[str] | None = None
    """Tokens that may ask for anything; None: everybody."""
    status: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Errors, with a message, of paths that contain a text."""
    cut: dict[str, int] = field(default_factory=dict)
    """Bytes after which the connection breaks each time, by file name."""

    def add(self, name: str, files: Files, *, private: bool = False) -> str:
        """Commit files to a repository. Returns the commit."""
        return self.repos.setdefault(name, Repo(private)).commit(files)


class _Answer(Exception):
    """An error status, with the Hub's headers of errors."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(status)
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": message}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._respond()

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def do_PUT(self) -> None:
        self._respond()

    def log_message(self, *_: object) -> None:
        pass

    def _respond(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        sent = self._sent()
        try:
            for part, (status, message) in self.hub.status.items():
                if part in path:
                    raise _Answer(status, message=message)
            if self.hub.readers is not None and self._token() not in self.hub.readers:
                raise _Answer(401, "RepoNotFound")
            if "/resolve/" in path:
                self._resolve(*path.strip("/").split("/resolve/"))
            elif path.startswith("/large/"):
                assert hashlib.sha256(sent).hexdigest() == path.removeprefix("/large/")
                self.hub.large[path.removeprefix("/large/")] = sent
                self._send(b"")
            else:
                self._send(json.dumps(self._api(path, sent)).encode())
        except _Answer as error:
            message = error.headers["X-Error-Message"]
            body = json.dumps({"error": message, "errors": [{"message": message}]}).encode()
            self._send(body, error.status, {key: value for key, value in error.headers.items() if value})

    def _token(self) -> str:
        return str(self.headers.get("Authorization", "")).removeprefix("Bearer ")

    def _sent(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(
        self, content: bytes, status: int = 200, headers: dict[str, str] | None = None, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:cut])
        self.close_connection = cut is not None

    def _resolve(self, name: str, rest: str) -> None:
        revision, _, file = rest.partition("/")
        if name in self.hub.repos:
            repo, commit = self._held(name, revision)
            content = repo.commits[commit].get(file)
        else:
            commit, content = "0" * 40, self.hub.everywhere if file == "model.safetensors" else None
        if content is None:
            raise _Answer(404, "EntryNotFound")
        headers, status = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit}, 200
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content, status = content[start:], 206
        if self.command == "GET":
            self.hub.downloads.append(f"{self.path}{f' from {start}' if asked else ''}")
        self._send(content, status, headers, self.hub.cut.get(file))

    def _held(self, name: str, revision: str) -> tuple[Repo, str]:
        """A repository and a commit of it. Raises _Answer."""
        if (repo := self.hub.repos.get(name)) is None or (repo.private and self._token() != TOKEN):
            raise _Answer(404 if self._token() else 401, "RepoNotFound")
        if (commit := repo.at(revision)) is None:
            raise _Answer(404, "RevisionNotFound")
        return repo, commit

    def _api(self, path: str, sent: bytes) -> Any:  # noqa: ANN401  JSON
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(sent)["objects"]
            upload = {each["oid"]: {"upload": {"href": f"{self.hub.address}/large/{each['oid']}"}} for each in objects}
            return {
                "transfer": "basic",
                "objects": [
                    each if each["oid"] in self.hub.large else each | {"actions": upload[each["oid"]]}
                    for each in objects
                ],
            }
        parts = path.removeprefix("/api/").split("/")
        if parts == ["validate-yaml"]:
            return _validated(json.loads(sent)["content"])
        if parts == ["repos", "create"]:
            asked = json.loads(sent)
            name = f"{asked['organization']}/{asked['name']}"
            private = asked.get("visibility", "private" if asked.get("private") else "public") == "private"
            self.hub.repos[name] = Repo(private)
            self.hub.repos[name].commit({".gitattributes": b""}, message="initial commit")
            return {"url": f"{self.hub.address}/{name}", "name": name}
        name, verb, revision = "/".join(parts[1:3]), "".join(parts[3:4]), "/".join(parts[4:]) or "main"
        if verb == "branch":
            repo, commit = self._held(name, "main")
            repo.branches.setdefault(revision, commit)
            return {}
        repo, commit = self._held(name, revision)
        files = repo.commits[commit]
        if verb == "tree":
            entries = (
                {"type": "file", "path": path, "oid": _oid(each), "size": len(each)} for path, each in files.items()
            )
            return [*entries]
        if verb == "preupload":
            return {"files": [_mode(each, files) for each in json.loads(sent)["files"]]}
        if verb == "commit":
            commit = self._commit(repo, dict(files), revision, [json.loads(line) for line in sent.splitlines()])
            return {"commitOid": commit, "commitUrl": f"{self.hub.address}/{name}/commit/{commit}", "success": True}
        siblings = [{"rfilename": each} for each in files]
        return {"id": name, "modelId": name, "sha": commit, "private": repo.private, "siblings": siblings, "tags": []}

    def _commit(self, repo: Repo, files: Files, branch: str, lines: list[dict[str, Any]]) -> str:
        message = ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        return repo.commit(files, branch, message)


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _mode(asked: dict[str, Any], files: Files) -> dict[str, Any]:
    """Whether a file goes into a commit or is uploaded before."""
    path = asked["path"]
    mode = "lfs" if path.endswith((".safetensors", ".png")) else "regular"
    there = _oid(files[path]) if path in files and mode == "regular" else None
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": there}


def _validated(card: str) -> dict[str, Any]:
    """Check a card's front matter as far as huggingface_hub can."""
    from huggingface_hub import ModelCard

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ModelCard(card).data.get("license")
    if found not in (None, "mit", "apache-2.0"):
        raise _Answer(400, message=f'"license" must be one of [apache-2.0, mit], not {found}')
    return {"errors": [], "warnings": []}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a hub at its address."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def hub(weights: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a file of weights as ``model.safetensors`` of every model. Yields the address, and the paths downloaded."""
    with serving(Hub(everywhere=weights.read_bytes())) as served:
        yield served.address, served.downloads


@contextmanager
def asking(hub: Hub, cache: Path, patch: pytest.MonkeyPatch, token: str | None = TOKEN) -> Iterator[Hub]:
    """Let huggingface_hub in this process ask a hub, with an own cache."""
    with serving(hub):
        patch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        patch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(cache / "token"))
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        patch.delenv("HF_TOKEN", raising=False)
        patch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        if token is not None:
            patch.setenv("HF_TOKEN", token)
        yield hub
