"""One client for any server that speaks OpenAI's chat API: explanations, rephrasing, judging.

    client = Client("http://localhost:8000/v1", "Qwen/Qwen2.5-7B-Instruct", cache="out/llm_cache")
    reply = client.chat([user_message("What is 2 + 3?", pictures=["figure.png"])])
    for reply in client.chat_many(list_of_messages):      # many at a time, replies in the order of the questions
        reply.text if reply.error is None else reply.error
    print(client.summary())

A failed call is a Reply with `error` set and no text: never an exception for one bad row, never an empty answer that
could be mistaken for a wrong one. Replies are kept on disk under the sha256 of the request, so an interrupted run asks
nothing twice. The key of the server comes from the environment (OPENAI_API_KEY) and is written nowhere.
"""

import base64
import hashlib
import http.client
import json
import os
import random
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from common.files import read_json, write_atomically
from errors import UserError

KEY_VARIABLE = "OPENAI_API_KEY"
LONGEST_WAIT = 60.0  # seconds between two attempts, whatever a server asks for
RETRIED_STATUSES = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_SECRET = re.compile("key|token|secret|sig|pass|auth|credential", re.IGNORECASE)
MEDIA_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp"}


def picture_url(picture: str | os.PathLike | bytes) -> str:
    """The data URL of a picture, from its path or its encoded bytes (PNG, JPEG, GIF or WebP)."""
    name, data = "these bytes", picture
    if not isinstance(picture, bytes):
        try:
            with open(picture, "rb") as file:
                name, data = picture, file.read()
        except OSError as error:
            raise UserError(f"{picture}: cannot read this picture: {error.strerror}") from error
    for magic, media_type in MEDIA_TYPES.items():
        if data.startswith(magic):
            return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
    raise UserError(f"{name}: not a PNG, JPEG, GIF or WebP picture; convert it first")


def user_message(text: str, pictures: Iterable[str | os.PathLike | bytes] = ()) -> dict:
    """A user's turn: the pictures first, then the text."""
    parts = [{"type": "image_url", "image_url": {"url": picture_url(picture)}} for picture in pictures]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}] if parts else text}


@dataclass(frozen=True)
class Reply:
    """What came of one call: `text`, or `error` in words and no text. cut: max_tokens ended the text."""

    text: str | None
    error: str | None = None
    cached: bool = False
    cut: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Failed(Exception):
    """An attempt without a reply. again: whether another may bring one; wait: the seconds that the server asks for."""

    def __init__(self, message: str, again: bool = True, wait: float = 0.0) -> None:
        super().__init__(message)
        self.again, self.wait = again, wait


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """urllib would follow with a GET, without the question, and hand the key to whatever host is named."""

    def redirect_request(self, *args: object) -> None:
        return None  # so a redirect is an HTTPError


_opener = urllib.request.build_opener(_NoRedirects)


@dataclass
class Client:
    """A server, a model and what was asked of them so far.

    url         the server: "http://host:port", ".../v1" or the full ".../chat/completions"
    cache       a folder for the replies; None asks anew each time. The server's address is not part of a reply's key
                (it changes from job to job): two servers that call different models by one name need two folders
    timeout     seconds for one attempt, connection to last byte
    retries     further attempts after the first, with exponential backoff; a server's Retry-After is obeyed
    keep_cut    a text that max_tokens cut off is a reply (a model under test said no more); else it is an error
    give_up_after  chat_many raises UserError after so many calls in a row have failed; None never does
    """

    url: str
    model: str
    cache: str | None = None
    concurrency: int = 16
    timeout: float = 120.0
    retries: int = 6
    backoff: float = 0.5
    keep_cut: bool = False
    give_up_after: int | None = 50
    num_asked: int = 0
    num_cached: int = 0
    num_failed: int = 0
    num_retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    last_error: str = ""
    _failed_in_a_row: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        named = [name for name, _ in urllib.parse.parse_qsl(parts.query, keep_blank_values=True)]
        if "@" in self.url.rpartition("://")[2].partition("/")[0] or any(map(_SECRET.search, named)):
            raise UserError("a server's address is written into plans and messages, and this one holds a key; leave it "
                            f"out, and set the environment variable {KEY_VARIABLE}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"{self.url!r} is not a server's address; expected something like http://localhost:8000/v1")
        path = parts.path.rstrip("/")
        if not path.endswith("/chat/completions"):
            path = (path or "/v1") + "/chat/completions"
        self.url = urllib.parse.urlunsplit(parts._replace(path=path))
        if self.concurrency < 1 or self.retries < 0 or self.timeout <= 0:
            raise UserError("an LLM client needs concurrency >= 1, retries >= 0 and timeout > 0")

    def chat(self, messages: list[dict], *, max_tokens: int = 2048, temperature: float = 0.0, sample: int = 0) -> Reply:
        """Ask once, or answer from the cache. sample tells apart several answers to one question, there too."""
        body = {"model": self.model, "messages": messages, "max_tokens": max_tokens, "temperature": temperature}
        path = None
        if self.cache is not None:
            canonical = json.dumps([body, sample], sort_keys=True, separators=(",", ":"))
            name = hashlib.sha256(canonical.encode()).hexdigest()
            path = os.path.join(self.cache, name[:2], name + ".json")
        reply = _read_cache(path) or self._ask(json.dumps(body).encode())
        if path and not (reply.cached or reply.error or reply.cut):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            kept = {name: getattr(reply, name) for name in ("text", "prompt_tokens", "completion_tokens")}
            write_atomically(path, json.dumps(kept, ensure_ascii=False), durable=False)
        self._count(reply)
        return reply

    def chat_many(self, questions: Iterable[list[dict]], **options: object) -> Iterator[Reply]:
        """Ask `concurrency` at a time; yield the replies in the order of the questions, holding a window of them."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            window: deque = deque()
            try:
                for messages in questions:
                    window.append(pool.submit(self.chat, messages, **options))
                    if len(window) >= 2 * self.concurrency:
                        yield window.popleft().result()
                    self._give_up_if_hopeless()
                while window:
                    yield window.popleft().result()
                    self._give_up_if_hopeless()
            finally:
                for future in window:
                    future.cancel()

    def check(self) -> None:
        """Ask one short question; raise UserError in plain words when the server, the model or the key is wrong."""
        try:
            self._send(json.dumps({"model": self.model, "messages": [user_message("Say OK.")]}).encode())
        except _Failed as error:
            raise UserError(f"{self.url} does not answer for model {self.model!r}: {error}; check the address, "
                            f"the model's name and the environment variable {KEY_VARIABLE}") from error

    def summary(self) -> str:
        """One line: calls, cached, failed, tokens."""
        line = (f"{self.model}: {self.num_asked + self.num_cached} calls, {self.num_cached} from the cache, "
                f"{self.num_failed} failed, {self.num_retries} retries, "
                f"{self.prompt_tokens} + {self.completion_tokens} tokens")
        return line + (f"; last error: {self.last_error}" if self.num_failed else "")

    def _count(self, reply: Reply) -> None:
        with self._lock:
            self.num_cached += reply.cached
            if reply.cached:
                return
            self.num_asked += 1
            self.prompt_tokens += reply.prompt_tokens
            self.completion_tokens += reply.completion_tokens
            self.num_failed += reply.error is not None
            self._failed_in_a_row = self._failed_in_a_row + 1 if reply.error else 0
            self.last_error = reply.error or self.last_error

    def _give_up_if_hopeless(self) -> None:
        if self.give_up_after is not None and self._failed_in_a_row >= self.give_up_after:
            raise UserError(f"{self.url}: {self._failed_in_a_row} calls in a row failed, the last with: "
                            f"{self.last_error}; fix the server and start again (what was answered is kept)")

    def _ask(self, body: bytes) -> Reply:
        random_wait = random.Random(hashlib.sha256(body).digest())  # spreads the retries of many threads
        for attempt in range(self.retries + 1):
            try:
                return self._send(body)
            except _Failed as error:
                message, wait = str(error), error.wait
                if not error.again:
                    return Reply(None, message)
            if attempt < self.retries:
                with self._lock:
                    self.num_retries += 1
                backoff = self.backoff * 2**attempt * random_wait.uniform(0.5, 1.5)
                time.sleep(min(LONGEST_WAIT, max(backoff, wait)))
        return Reply(None, f"{message} (after {self.retries + 1} attempts)")

    def _send(self, body: bytes) -> Reply:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {os.environ[KEY_VARIABLE]}"
        request = urllib.request.Request(self.url, data=body, headers=headers, method="POST")
        deadline = time.monotonic() + self.timeout
        try:
            with _opener.open(request, timeout=self.timeout) as response:
                return _parse(_read_all(response, deadline), self.keep_cut)
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error  # of a URLError: what it wraps
            if isinstance(reason, TimeoutError):
                raise _Failed(f"no reply within {self.timeout:g} s") from error
            if isinstance(reason, http.client.HTTPException):
                raise _Failed(f"the reply broke off ({type(reason).__name__})") from error
            raise _Failed(f"no connection: {reason}") from error


def _read_all(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The whole body, by the deadline: a server that drips bytes keeps the socket's own timeout from ever firing."""
    chunks = []
    while chunk := response.read1(65536):
        chunks.append(chunk)
        if time.monotonic() > deadline:
            raise TimeoutError
    data, expected = b"".join(chunks), response.headers.get("Content-Length", "")
    if expected.isdigit() and len(data) < int(expected):
        raise http.client.IncompleteRead(data, int(expected) - len(data))
    return data


def _parse(data: bytes, keep_cut: bool) -> Reply:
    try:
        answer = json.loads(data)
        choice = answer["choices"][0]
        text = choice["message"]["content"]
        usage = answer.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _Failed(f"not a chat completion: {data[:80]!r}") from error
    reason = choice.get("finish_reason")
    cut, said = reason == "length", isinstance(text, str) and bool(text.strip())
    if cut and not (keep_cut and said):
        return Reply(None, "the reply was cut off at max_tokens", False, True, *tokens)
    if not said:
        return Reply(None, f"the reply holds no text (finish_reason {reason!r})", False, False, *tokens)
    return Reply(text, None, False, cut, *tokens)


def _refusal(error: urllib.error.HTTPError) -> _Failed:
    if error.code in (301, 302, 303, 307, 308):
        elsewhere = str(error.headers.get("Location")).partition("?")[0]  # what follows may be a key
        return _Failed(f"HTTP {error.code}: moved to {elsewhere}; give that address", again=False)
    try:
        detail = error.read(300).decode("utf-8", "replace").strip()
        if os.environ.get(KEY_VARIABLE):
            detail = detail.replace(os.environ[KEY_VARIABLE], "(the key)")
    except (OSError, http.client.HTTPException):
        detail = ""
    try:
        wait = float(error.headers.get("Retry-After", ""))
    except ValueError:  # absent, or a date
        wait = 0.0
    return _Failed(f"HTTP {error.code} {detail}".strip(), error.code in RETRIED_STATUSES, wait)


def _read_cache(path: str | None) -> Reply | None:
    """A kept reply; None where there is none, or where it was damaged from outside: asked again, written again."""
    if path is None:
        return None
    try:
        kept = read_json(path)
        if isinstance(kept["text"], str):
            return Reply(kept["text"], None, True, False, int(kept["prompt_tokens"]), int(kept["completion_tokens"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return None
