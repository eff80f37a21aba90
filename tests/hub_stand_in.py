"""A server that speaks as much of the Hub's HTTP interface as creating a repository and committing to it takes."""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


@dataclass
class StoredRepository:
    """One repository: whether it is private, what was committed, its tags, and which files it now holds."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    branches: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def write_to(self, folder: Path) -> None:
        folder.mkdir()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


class HubStandIn:
    """Listens on a free local port inside a `with` block.

    Args:
        refused_owner: whose repositories may not be touched: answered with 403.
    """

    def __init__(self, refused_owner: str = ""):
        self.refused_owner = refused_owner
        self.repositories: dict[str, StoredRepository] = {}
        self.large_files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.tokens: set[str] = set()

    def __enter__(self):
        hub = self

        class Handler(HubRequestHandler):
            stand_in = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class HubRequestHandler(BaseHTTPRequestHandler):
    """One connection of the stand-in."""

    stand_in: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing on stderr."""

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, content: dict | None = None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        if status == 403:
            self.send_header("X-Error-Message", content["error"])
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_request(self) -> None:
        hub, body, path = self.stand_in, self.read_body(), urlsplit(self.path).path
        if "Authorization" in self.headers:
            hub.tokens.add(self.headers["Authorization"])
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            return self.create(path, json.loads(body))
        if path == "/api/validate-yaml":
            hub.requests.append(f"{self.command} {path}")
            return self.answer(200, {"errors": [], "warnings": []})
        if parts[0] == "storage":
            assert hashlib.sha256(body).hexdigest() == parts[1]
            hub.large_files[parts[1]] = body
            hub.requests.append("PUT storage")
            return self.answer(200)
        name, rest = self.repository_of(parts)
        if name not in hub.repositories:
            return self.answer(404, {"error": f"{path} not found"})
        action = next((word for word in ("preupload", "commit", "batch", "branch", "tag") if word in rest), "read")
        hub.requests.append(f"{self.command} {action}")
        return getattr(self, action)(name, rest, body)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request  # noqa: N815

    @staticmethod
    def repository_of(parts: list[str]) -> tuple[str, list[str]]:
        if parts[:2] == ["api", "models"]:
            return "/".join(parts[2:4]), parts[4:]
        return "/".join(parts[:2]).removesuffix(".git"), parts[2:]

    def create(self, path: str, request: dict) -> None:
        name = "/".join(filter(None, (request.get("organization"), request["name"])))
        self.stand_in.requests.append(f"POST {path}")
        if request.get("organization") == self.stand_in.refused_owner:
            return self.answer(403, {"error": f"You may not create a model of {self.stand_in.refused_owner}"})
        status = 409 if name in self.stand_in.repositories else 200
        private = bool(request.get("private")) or request.get("visibility") == "private"
        self.stand_in.repositories.setdefault(name, StoredRepository(private))
        self.answer(status, {"url": f"{self.stand_in.url}/{name}", "name": name, "id": name})

    def read(self, name: str, rest: list[str], body: bytes) -> None:
        repository = self.stand_in.repositories[name]
        if rest[:1] == ["resolve"]:  # a file
            if rest[-1] not in repository.files:
                return self.answer(404, {"error": "Entry not found"})
            return self.answer(200, {})
        siblings = [{"rfilename": file} for file in repository.files]
        sha = hashlib.sha1(str(len(repository.commits)).encode()).hexdigest()
        return self.answer(
            200, {"id": name, "sha": sha, "private": repository.private, "siblings": siblings, "tags": []}
        )

    def branch(self, name: str, rest: list[str], body: bytes) -> None:
        self.stand_in.repositories[name].branches.append(rest[-1])
        self.answer(200, {})

    def tag(self, name: str, rest: list[str], body: bytes) -> None:
        tags, tag = self.stand_in.repositories[name].tags, json.loads(body)["tag"]
        if tag in tags:
            return self.answer(409, {"error": f"Tag {tag} exists"})
        tags[tag] = rest[-1]
        self.answer(200, {})

    def preupload(self, name: str, rest: list[str], body: bytes) -> None:
        """Which files are large enough to be stored apart."""
        files = [
            {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
             "shouldIgnore": False, "oid": None}
            for file in json.loads(body)["files"]
        ]  # fmt: skip
        self.answer(200, {"files": files})

    def batch(self, name: str, rest: list[str], body: bytes) -> None:
        """Git LFS: where the large files go."""
        objects = [
            {**entry, "actions": {"upload": {"href": f"{self.stand_in.url}/storage/{entry['oid']}"}}}
            for entry in json.loads(body)["objects"]
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def commit(self, name: str, rest: list[str], body: bytes) -> None:
        repository = self.stand_in.repositories[name]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                repository.commits.append(value["summary"])
            elif line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del repository.files[value["path"]]
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.stand_in.large_files[value["oid"]]
        commit = hashlib.sha1(str(len(repository.commits)).encode()).hexdigest()
        self.answer(
            200,
            {"commitUrl": f"{self.stand_in.url}/{name}/commit/{commit}", "commitOid": commit, "hookOutput": ""},
        )
