"""A server that speaks OpenAI's chat API on this machine, and misbehaves in every way servers do."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


def completion(text: object, finish_reason: str = "stop", tokens: tuple[int, int] = (7, 3), **message: object) -> bytes:
    """The body of a reply that says `text`. message: what else stands beside its content."""
    choice = {"message": {"content": text, **message}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


class Server:
    """Plays a list of behaviours, one per request, then `answer` forever.

    answer: a request's body → the reply's body, None for HTTP 400. requests, headers: what came, in its order.
    """

    def __init__(self, behaviours=(), answer: Callable[[dict], bytes | None] = lambda body: completion("fine")) -> None:
        self.behaviours, self.answer = list(behaviours), answer
        self.requests: list[tuple[str, dict]] = []
        self.headers: list[dict] = []
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.requests.append((self.path, body))
                    outer.headers.append(dict(self.headers))
                    behaviour = outer.behaviours.pop(0) if outer.behaviours else None
                try:
                    outer.play(self, behaviour, body)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client hung up first, as the timeout tests want

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def play(self, handler: BaseHTTPRequestHandler, behaviour: tuple | None, body: dict) -> None:
        kind, *arguments = behaviour or ("answer",)
        if kind == "status":
            status, headers, data = (*arguments, *({}, b'{"error": "busy"}')[len(arguments) - 1 :])
            return self.send(handler, status, data, headers)
        if kind == "garbage":
            return self.send(handler, 200, b"<html>gateway</html>")
        if kind == "reply":
            return self.send(handler, 200, arguments[0])
        if kind == "cut":
            data = completion("a long answer")
            return self.send(handler, 200, data[: len(data) // 2], {"Content-Length": str(len(data))})
        if kind == "hang up":
            return handler.connection.close()
        if kind == "sleep":
            time.sleep(arguments[0])
        if kind == "drip":
            handler.send_response(200)
            handler.end_headers()
            for _ in range(arguments[0]):
                handler.wfile.write(arguments[1] if arguments[1:] else b" ")
                handler.wfile.flush()
                time.sleep(0.0 if arguments[1:] else 0.05)
            return None
        data = self.answer(body)
        return self.send(handler, 400 if data is None else 200, data or b"")

    def send(self, handler: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict | None = None) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers (the arguments are Server's) that end with the test."""
    servers: list[Server] = []

    def start(*arguments: object, **options: object) -> Server:
        servers.append(Server(*arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
