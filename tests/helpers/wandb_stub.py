"""As much of the API of Weights & Biases as saving views and uploading runs take, on the loopback."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "a" * 40  # the shape of a key is all that the client looks at


class Stub(ThreadingHTTPServer):
    """What it was told is kept: views by key, runs by id, lines of their files, names of uploaded files."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.views: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.streamed: dict[str, list[str]] = {}  # file -> lines
        self.uploaded: set[str] = set()
        self.unknown: list[str] = []
        self.knows_the_key = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, operation: str, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """The `data` of a GraphQL answer."""
        entity = {"id": "1", "name": "me", "entity": "me", "username": "me", "email": "", "flags": "{}", "admin": False}
        project = {"id": "2", "name": "generative-benchmark", "entity": {"id": "1", "name": "me"}}
        if operation == "Viewer":
            return {"viewer": {**entity, "teams": {"edges": []}} if self.knows_the_key else None}
        if operation == "UpsertView2":
            self.views[given["name"]] = given
            return {"upsertView": {"view": {"id": f"id-{given['name']}", "name": given["name"]}, "inserted": True}}
        if operation == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if operation == "RunResumeStatus":
            return {"model": {"id": "2", "name": "p", "entity": {"id": "1", "name": "me"}, "bucket": None}}
        if operation == "UpsertBucket":
            self.runs.setdefault(given["name"], {}).update({k: v for k, v in given.items() if v is not None})
            bucket = {key: given.get(key) for key in ("name", "displayName", "config")}
            bucket |= {"id": given["name"], "project": project, "description": "", "sweepName": None}
            bucket |= {"historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        if operation == "OrganizationCoreWeaveOrganizationID":
            return {"entity": None}
        self.unknown.append(operation or query)
        return {}


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        answer: dict[str, Any] = {}
        if self.path.endswith("/graphql"):
            asked = json.loads(body)
            operation = asked.get("operationName") or asked["query"].split("(")[0].split()[-1]
            answer = {"data": self.server.answer(operation, asked["query"], asked.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            for name, chunk in (json.loads(body).get("files") or {}).items():
                self.server.streamed.setdefault(name, []).extend(chunk["content"])
        self._say(answer)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.uploaded.add(self.path.removeprefix("/upload/"))
        self._say({})

    do_GET = do_POST  # noqa: N815

    def _say(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running() -> Iterator[Stub]:
    """A stub that answers while the block runs."""
    stub = Stub()
    thread = threading.Thread(target=stub.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.shutdown()
        stub.server_close()
        thread.join()
