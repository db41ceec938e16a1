"""A small Hugging Face Hub on this machine, for the unmodified client: `python loopback.py` serves one."""

import base64
import hashlib
import json
import re
import socket
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

TOKEN, USER = "hf_right", "user"
LARGE = (".ckpt", ".safetensors")


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def oid(path: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if path.endswith(LARGE) else blob_id(content)


@dataclass
class Repo:
    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, changes: dict[str, bytes]) -> str:
        files = {**self.commits.get(self.branches.get(branch, ""), {}), **changes}
        sha = hashlib.sha1(f"{len(self.commits)} {branch} {sorted(files)}".encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        return sha


class Hub:
    """Repositories by kind and id, uploaded objects, what was asked for, and what is to fail."""

    def __init__(self, port: int = 0) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.drop = ""  # the route on which the connection breaks off in the middle
        self.status: dict[str, int] = {}  # the answer of a route
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def files(self, repo_id: str, kind: str = "model", branch: str = "main") -> dict[str, bytes]:
        repo = self.repos[kind, repo_id]
        return repo.commits[repo.branches[branch]]

    @contextmanager
    def running(self):
        thread = Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield self
        self.server.shutdown()
        self.server.server_close()


REPO = r"/api/(?P<kind>model|space)s/(?P<id>[^/]+/[^/]+)"
ROUTES = {
    "whoami": r"GET /api/whoami-v2",
    "create": r"POST /api/repos/create",
    "validate": r"POST /api/validate-yaml",
    "preupload": rf"POST {REPO}/preupload/(?P<rev>[^/]+)",
    "commit": rf"POST {REPO}/commit/(?P<rev>[^/]+)",
    "branch": rf"POST {REPO}/branch/(?P<rev>[^/]+)",
    "info": rf"GET {REPO}(/revision/(?P<rev>[^/]+))?",
    "tree": rf"GET {REPO}/tree/(?P<rev>[^/]+)",
    "batch": r"POST /((?P<kind>space)s/)?(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch",
    "upload": r"PUT /objects/(?P<oid>\w{64})",
    "resolve": r"(GET|HEAD) /((?P<kind>space)s/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<file>.+)",
}
OPEN = {"validate", "info", "tree", "resolve", "upload"}  # without a token; an upload's address is a secret itself


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def handle_one(self) -> None:
        asked = f"{self.command} {urlsplit(self.path).path}"
        found = {name: match for name, pattern in ROUTES.items() if (match := re.fullmatch(pattern, asked))}
        if not found:
            self.read_body()
            return self.fail(404, f"no route {asked}")
        [(name, match)] = found.items()
        self.hub.asked[name] += 1
        if self.hub.drop == name:
            self.rfile.read(int(self.headers.get("content-length", 0)) // 2)
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        body = self.read_body()
        given = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
        known = self.headers.get("authorization") == f"Bearer {TOKEN}"
        if name in self.hub.status:
            return self.fail(self.hub.status[name], "told to fail")
        if not known and name not in OPEN:
            return self.fail(401, "Invalid credentials in Authorization header")
        repo = self.hub.repos.get((given.get("kind", "model"), given.get("id", "")))
        if "id" in given and (repo is None or (repo.private and not known)):
            return self.fail(404 if known else 401, "Repository not found", "RepoNotFound")
        return getattr(self, name)(body, repo, **{k: v for k, v in given.items() if k not in {"kind", "id"}})

    do_GET = do_POST = do_PUT = do_HEAD = handle_one  # noqa: N815

    def read_body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self, content, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def fail(self, status: int, message: str, code: str = "") -> None:
        headers = {"X_Error_Message": message, **({"X_Error_Code": code} if code else {})}
        self.answer({"error": message}, status, **headers)

    def sha(self, repo: Repo, rev: str) -> str | None:
        found = repo.branches.get(rev, rev)
        if found in repo.commits:
            return found
        return self.fail(404, f"Invalid rev id: {rev}", "RevisionNotFound")

    def whoami(self, body, _):
        self.answer({"name": USER, "type": "user"})

    def create(self, body, _):
        asked = json.loads(body)
        key = asked.get("type", "model"), f"{asked['organization'] or USER}/{asked['name']}"
        if not key[1].startswith(f"{USER}/"):
            return self.fail(403, "You don't have the rights to create a model under this namespace")
        there = key in self.hub.repos
        if not there:
            self.hub.repos[key] = Repo(asked.get("visibility") == "private")
            self.hub.repos[key].commit("main", {".gitattributes": b""})
        prefix = "spaces/" if key[0] == "space" else ""
        self.answer({"url": f"{self.hub.url}/{prefix}{key[1]}"}, 409 if there else 200)

    def validate(self, body, _):
        self.answer({"errors": [], "warnings": []})

    def preupload(self, body, repo, rev):
        if (sha := self.sha(repo, rev)) is None:
            return
        files = []
        for one in json.loads(body)["files"]:
            path = one["path"]
            mode = "lfs" if path.endswith(LARGE) else "regular"
            there = repo.commits[sha].get(path)
            known = None if there is None else oid(path, there)
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known})
        self.answer({"files": files})

    def batch(self, body, repo):
        objects = json.loads(body)["objects"]
        for one in objects:
            if one["oid"] not in self.hub.objects:
                one["actions"] = {"upload": {"href": f"{self.hub.url}/objects/{one['oid']}"}}
        self.answer({"transfer": "basic", "objects": objects})

    def upload(self, body, _, oid):
        if hashlib.sha256(body).hexdigest() != oid:
            return self.fail(400, "not the object that was announced")
        self.hub.objects[oid] = body
        self.answer({})

    def commit(self, body, repo, rev):
        if rev not in repo.branches:
            return self.fail(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        changes = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return self.fail(400, f"{value['path']} was not uploaded")
                changes[value["path"]] = self.hub.objects[value["oid"]]
        sha = repo.commit(rev, changes)
        self.answer({"commitOid": sha, "commitUrl": f"{self.hub.url}/{USER}/x/commit/{sha}", "success": True})

    def branch(self, body, repo, rev):
        if rev in repo.branches:
            return self.fail(409, "Reference already exists")
        repo.branches[rev] = repo.branches["main"]
        self.answer({})

    def info(self, body, repo, rev="main"):
        if (sha := self.sha(repo, rev)) is not None:
            siblings = [{"rfilename": path} for path in repo.commits[sha]]
            self.answer({"id": "user/name", "sha": sha, "private": repo.private, "siblings": siblings})

    def tree(self, body, repo, rev):
        if (sha := self.sha(repo, rev)) is None:
            return
        files = []
        for path, content in repo.commits[sha].items():
            one = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
            if path.endswith(LARGE):
                one["lfs"] = {"oid": oid(path, content), "size": len(content), "pointerSize": 130}
            files.append(one)
        self.answer(files)

    def resolve(self, body, repo, rev, file):
        if (sha := self.sha(repo, rev)) is None:
            return None
        if (content := repo.commits[sha].get(file)) is None:
            return self.fail(404, "Entry not found", "EntryNotFound")
        return self.answer(content, ETag=f'"{oid(file, content)}"', X_Repo_Commit=sha)


if __name__ == "__main__":
    hub = Hub()
    print(hub.url, flush=True)
    hub.server.serve_forever()
