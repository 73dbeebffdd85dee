"""Real servers that can be away for a while, and one in between that answers 500 in their place."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from runtime.provenance import ROOT
from tests.service.conftest import free_port, service_environment


class Server:
    """A server that can be killed and started again, on the same port, with the same database."""

    def __init__(self, home: Path, kind: str) -> None:
        self._environment, port = service_environment(home), free_port()
        self.url = f"http://127.0.0.1:{port}"
        at = ["--host", "127.0.0.1", "--port", str(port)]
        if kind == "mlflow":
            database = f"sqlite:///{home / 'mlflow.db'}"
            where = ["--backend-store-uri", database, "--artifacts-destination", str(home / "mlflow-artifacts")]
            self._command, self._alive = ["mlflow", "server", *at, *where, "--workers", "1"], "/health"
        else:
            self._command, self._alive = ["prefect", "server", "start", *at], "/api/health"
            self._environment["PREFECT_HOME"] = str(home / "prefect")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        self._process = subprocess.Popen(
            [sys.executable, "-m", *self._command],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self._process.poll() is None, f"{self._command} has ended"
            assert time.monotonic() < deadline
            time.sleep(0.2)
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(self.url + self._alive, timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def is_away(self, seconds: float) -> None:
        """Kill it, and start it again after a while."""
        self.__exit__()
        time.sleep(seconds)
        self.__enter__()


class _Handler(BaseHTTPRequestHandler):
    """Passes a request on, or answers 500."""

    def _answer(self) -> None:
        assert isinstance(self.server, Between)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.broken:
            status, headers, answer = 500, [], b"{}"
            self.server.refused += 1
        else:
            connection = http.client.HTTPConnection(self.server.behind, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            status, headers, answer = response.status, response.getheaders(), response.read()
            connection.close()
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - the library's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Between(ThreadingHTTPServer):
    """Stands between a retrain and a server, and answers 500 in its place while it is `broken`."""

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.broken, self.refused = url.removeprefix("http://"), False, 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Its own address."""
        return f"http://127.0.0.1:{self.server_port}"
