"""One client for any server that speaks OpenAI's chat API: explanations, rephrasing, judging.

    client = Client("http://localhost:8000/v1", "Qwen/Qwen2.5-7B-Instruct", cache="out/llm_cache")
    reply = client.chat([user_message("What is 2 + 3?", pictures=["figure.png"])])
    for reply in client.chat_many(list_of_messages):      # many at a time, replies in the order of the questions
        reply.text if reply.error is None else reply.error
    print(client.summary())

A failed call is a Reply with `error` set and no text: never an exception for one bad row, never an empty answer that
could be mistaken for a wrong one. Replies are kept on disk under the sha256 of the request, so an interrupted run asks
nothing twice. The server's key comes from the environment (OPENAI_API_KEY) and is written nowhere. Whatever a server
sends, broken or hostile, is at worst a failed call.
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
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice

from common.files import read_json, write_atomically
from errors import UserError

KEY_VARIABLE = "OPENAI_API_KEY"
LONGEST_WAIT = 60.0  # seconds between two attempts, whatever a server asks for
LARGEST_REPLY = 16 << 20  # bytes; a reply of 100,000 tokens has one MB
RETRIED_STATUSES = {408, 409, 425, 429, 500, 502, 503, 504, 529}
# OpenAI's reasoning models refuse max_tokens and any temperature but 1: parameter → (how they say so, its name instead;
# "" leaves it out).
_REFUSALS = {
    "max_tokens": (re.compile("(?:unsupported|not supported).*max_completion_tokens", re.I), "max_completion_tokens"),
    "temperature": (re.compile("(?:unsupported|not supported|deprecated).{0,40}temperature"
                               "|temperature.{0,40}(?:not support|deprecated|only the default)", re.I), ""),
}
_TOO_MANY = re.compile("max_tokens|max_completion_tokens|context (?:length|size|window)")
_SECRET = re.compile("key|token|secret|sig|pass|auth|credential", re.I)
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
    """An attempt without a reply. again: whether another may bring one; wait: the seconds that the server asks for;
    status: HTTP's, None where the server said nothing.
    """

    def __init__(self, message: str, again: bool = True, wait: float = 0.0, status: int | None = None) -> None:
        super().__init__(message)
        self.again, self.wait, self.status = again, wait, status


# Without urllib's handler of redirects, which would hand question and key to whatever host is named, and without the
# one that makes an exception of every other status.
_opener = urllib.request.OpenerDirector()
for _handler in (urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()):
    _opener.add_handler(_handler)


@dataclass
class Client:
    """A server, a model and what was asked of them so far.

    url           the server: "http://host:port", ".../v1" or the full ".../chat/completions"
    cache         a folder for the replies; None asks anew each time. The server's address is not part of a reply's key
                  (it changes from job to job): two servers that call different models by one name need two folders
    timeout       seconds for one attempt, connection to last byte
    retries       further attempts after the first, with exponential backoff; a server's Retry-After is obeyed
    keep_cut      for a model under test: a text that max_tokens cut off, an empty one and thinking without an answer
                  (given behind "<think>") are replies; otherwise each is an error
    give_up_after raise UserError once this many calls in a row have failed; None never does
    key_variable  the environment variable that holds the server's key
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
    key_variable: str = KEY_VARIABLE
    num_asked: int = 0
    num_cached: int = 0
    num_failed: int = 0
    num_retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    last_error: str = ""
    _failed_in_a_row: int = 0
    _renamed: dict[str, str] = field(default_factory=dict, init=False, repr=False)  # from _REFUSALS
    _key: str = field(default="", init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        expected = "expected something like http://localhost:8000/v1"
        try:
            parts = urllib.parse.urlsplit(self.url)
            named = [name for name, _ in urllib.parse.parse_qsl(parts.query, keep_blank_values=True)]
            if "@" in self.url.rpartition("://")[2].partition("/")[0] or any(map(_SECRET.search, named)):
                raise UserError("a server's address is written into plans and messages, and this one holds a key; "
                                f"leave it out, and set the environment variable {self.key_variable}")
            if parts.scheme not in ("http", "https") or not parts.hostname or not re.fullmatch("[!-~]+", self.url):
                raise UserError(f"{self.url!r} is not a server's address; {expected}")
            parts.hostname.encode("idna"), parts.port  # ValueError where no connection can be made to them
        except ValueError as error:
            raise UserError(f"{self.url!r} is not a server's address ({error}); {expected}") from error
        path = parts.path.rstrip("/")
        if not path.endswith("/chat/completions"):
            path = (path or "/v1") + "/chat/completions"
        self.url = urllib.parse.urlunsplit(parts._replace(path=path))
        if self.concurrency < 1 or self.retries < 0 or self.timeout <= 0:
            raise UserError("an LLM client needs concurrency >= 1, retries >= 0 and timeout > 0")
        self._key = os.environ.get(self.key_variable, "").strip()
        if not re.fullmatch("[ -~]*", self._key):
            raise UserError(f"the environment variable {self.key_variable} holds no key: keys are of printable ASCII")

    def chat(self, messages: list[dict] | Callable[[], list[dict]], *, max_tokens: int = 2048,
             temperature: float = 0.0, sample: int = 0) -> Reply:
        """Ask once, or answer from the cache. sample tells apart several answers to one question, there too.

        messages: or what makes them, so that chat_many's threads and not its caller read the pictures.
        """
        messages = messages() if callable(messages) else messages
        body = {"model": self.model, "messages": messages, "max_tokens": max_tokens, "temperature": temperature}
        path = self._cache_path(body, sample)
        reply = _read_cache(path)
        if reply is None:
            try:
                reply = self._ask(body)
            except _Failed as error:
                reply = Reply(None, str(error))
            if path and reply.text and not reply.cut:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                kept = {name: getattr(reply, name) for name in ("text", "prompt_tokens", "completion_tokens")}
                write_atomically(path, json.dumps(kept, ensure_ascii=False), durable=False)
        with self._lock:
            self.num_cached += reply.cached
            if not reply.cached:
                self.num_asked += 1
                self.num_failed += reply.error is not None
                self._failed_in_a_row = self._failed_in_a_row + 1 if reply.error else 0
                self.last_error = reply.error or self.last_error
                self.prompt_tokens += reply.prompt_tokens
                self.completion_tokens += reply.completion_tokens
        return reply

    def chat_many(self, questions: Iterable, **options: object) -> Iterator[Reply]:
        """Ask `concurrency` at a time; yield the replies in the order of the questions, holding a window of them."""
        return (reply for _, reply in self.chat_as_they_come(questions, in_order=True, **options))

    def chat_as_they_come(self, questions: Iterable, *, in_order: bool = False,
                          **options: object) -> Iterator[tuple[int, Reply]]:
        """Ask `concurrency` at a time; yield each reply with the position of its question, before the next question is
        asked: a caller that writes it down loses nothing to a kill.
        """
        numbered, asked = enumerate(questions), {}
        window = 2 * self.concurrency if in_order else self.concurrency
        with ThreadPoolExecutor(self.concurrency) as pool:
            try:
                while True:
                    for position, messages in islice(numbered, window - len(asked)):
                        asked[pool.submit(self.chat, messages, **options)] = position
                    if not asked:
                        return
                    awaited: Iterable[Future] = [next(iter(asked))] if in_order else asked
                    for future in wait(awaited, return_when=FIRST_COMPLETED).done:
                        yield asked.pop(future), future.result()
                    if self.give_up_after is not None and self._failed_in_a_row >= self.give_up_after:
                        raise UserError(f"{self.url}: {self._failed_in_a_row} calls in a row failed, the last with: "
                                        f"{self.last_error}; fix the server and start again, what was answered is kept")
            finally:
                for future in asked:
                    future.cancel()

    def is_kept(self, messages: list[dict], *, sample: int = 0, **options: object) -> bool:
        """Whether the cache holds the reply to this question, with all of chat's options."""
        return _read_cache(self._cache_path({"model": self.model, "messages": messages, **options}, sample)) is not None

    def check(self, **options: object) -> None:
        """Ask one short question; raise UserError in plain words when the server, the model or the key is wrong.

        options: max_tokens and temperature, which the server is to accept too.
        """
        try:
            self._ask({"model": self.model, "messages": [user_message("Say OK.")], **options}, patient=False)
        except _Failed as error:
            if error.status in (401, 403):
                remedy = f"set the environment variable {self.key_variable} to a key of this server"
            elif "max_tokens" in options and _TOO_MANY.search(str(error)):
                remedy = f"ask for fewer max_tokens than {options['max_tokens']}"
            else:
                remedy = f"check the address{' and the name of the model' if error.status else ''}"
            raise UserError(f"{self.url} does not answer for model {self.model!r}: {error}; {remedy}") from error

    def summary(self) -> str:
        """One line: calls, cached, failed, tokens."""
        tokens = self.prompt_tokens + self.completion_tokens
        line = (f"{self.model}: {self.num_asked + self.num_cached} calls, {self.num_cached} from the cache, "
                f"{self.num_failed} failed, {self.num_retries} retries, "
                + (f"{self.prompt_tokens} + {self.completion_tokens} tokens" if tokens else "tokens not told"))
        line += "; at the server's own temperature" if self._renamed.get("temperature") == "" else ""
        return line + (f"; last error: {self.last_error}" if self.num_failed else "")

    def _cache_path(self, body: dict, sample: int) -> str | None:
        if self.cache is None:
            return None
        canonical = json.dumps([body, sample], sort_keys=True, separators=(",", ":"))
        name = hashlib.sha256(canonical.encode()).hexdigest()
        return os.path.join(self.cache, name[:2], name + ".json")

    def _ask(self, body: dict, patient: bool = True) -> Reply:
        """The reply to a request; _Failed after the last attempt. patient: try again also where nobody listens."""
        attempt = 0
        while True:
            sent = {self._renamed.get(name, name): value for name, value in body.items()}
            sent.pop("", None)
            try:
                return self._send(json.dumps(sent).encode())
            except _Failed as error:
                refused = [name for name in _REFUSALS if name in sent and _REFUSALS[name][0].search(str(error))]
                if refused and error.status in (400, 422):
                    self._renamed[refused[0]] = _REFUSALS[refused[0]][1]  # for this and all later requests
                    continue
                if not error.again or not (patient or error.status in RETRIED_STATUSES):
                    raise
                attempt += 1
                if attempt > self.retries:
                    raise _Failed(f"{error} (after {attempt} attempts)", status=error.status) from error
                asked_to_wait = error.wait
            with self._lock:
                self.num_retries += 1
            spread = random.Random(json.dumps([body, attempt])).uniform(0.5, 1.5)  # else many threads try again at once
            time.sleep(min(LONGEST_WAIT, max(self.backoff * 2 ** (attempt - 1) * spread, asked_to_wait)))

    def _send(self, body: bytes) -> Reply:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.url, data=body, headers=headers, method="POST")
        deadline = time.monotonic() + self.timeout
        try:
            with _opener.open(request, timeout=self.timeout) as response:
                data = _read_all(response, deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a proxy's address
            reason = getattr(error, "reason", None) or error  # of a URLError: what it wraps
            if isinstance(reason, TimeoutError):
                raise _Failed(f"no reply within {self.timeout:g} s") from error
            if isinstance(reason, http.client.HTTPException):
                raise _Failed(f"the reply broke off ({type(reason).__name__})") from error
            raise _Failed(f"no connection: {self._shown(str(reason))}") from error
        status, shown = response.status, self._shown(data[:4000].decode("utf-8", "replace"))
        if 300 <= status < 400:
            elsewhere = self._shown(str(response.headers.get("Location")).partition("?")[0])  # behind "?" may be a key
            raise _Failed(f"HTTP {status}: moved to {elsewhere}; give that address", again=False, status=status)
        if status == 400 and "model output limit was reached" in shown:  # as OpenAI says that thinking was cut off
            data, status = b'{"choices": [{"message": {}, "finish_reason": "length"}]}', 200
        if not 200 <= status < 300:
            raise _Failed(f"HTTP {status} {shown}".strip(), status in RETRIED_STATUSES, _seconds(response), status)
        if len(data) > LARGEST_REPLY:
            raise _Failed(f"a reply of more than {LARGEST_REPLY >> 20} MB", again=False, status=status)
        try:
            return _reply(json.loads(data), self.keep_cut)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise _Failed(f"not a chat completion: {shown[:100]}", status=status) from error

    def _shown(self, text: str) -> str:
        """The beginning of what a server sent, in one line and without the key, which it may have repeated."""
        text = text.replace(self._key, "(the key)") if self._key else text
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


def _read_all(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The body, up to a little over LARGEST_REPLY. The deadline is checked here, since the socket's own timeout never
    fires while a server drips bytes.
    """
    data = bytearray()
    while len(data) <= LARGEST_REPLY and (chunk := response.read1(65536)):
        data += chunk
        if time.monotonic() > deadline:
            raise TimeoutError
    return bytes(data)


def _reply(answer: dict, keep_cut: bool) -> Reply:
    """The Reply to a chat completion, by Client.keep_cut; KeyError, TypeError, … where `answer` is something else."""
    choice = answer["choices"][0]
    message, usage, reason = choice["message"], answer.get("usage"), choice.get("finish_reason")
    text, thinking = _text(message.get("content")), _text(message.get("reasoning_content") or message.get("reasoning"))
    tokens = _tokens(usage, "prompt_tokens"), _tokens(usage, "completion_tokens")
    cut, said, error = reason == "length", bool(text.strip()), None
    if keep_cut and (said or cut or reason == "stop"):
        text = text if said or not thinking else f"<think>\n{thinking}"
    elif cut:
        error = "the reply was cut off at max_tokens"
    elif not said:
        error = f"the reply holds no text (finish_reason {str(reason)[:40]!r})"
    return Reply(None if error else text, error, False, cut, *tokens)


def _text(content: object) -> str:
    """The text of a content, which may come in parts. A lone surrogate, which no file takes, becomes '?'."""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") in ("text", "output_text") else part
             for part in parts]
    return "".join(text for text in texts if isinstance(text, str)).encode("utf-8", "replace").decode()


def _tokens(usage: object, name: str) -> int:
    """A number of tokens; 0 where the server tells none, or an impossible one."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return int(count) if isinstance(count, int | float) and 0 <= count < 1e9 else 0


def _seconds(response: http.client.HTTPResponse) -> float:
    """What a server asks to wait; 0 where it says nothing, or a date."""
    try:
        return float(response.headers.get("Retry-After", ""))
    except ValueError:
        return 0.0


def _read_cache(path: str | None) -> Reply | None:
    """A kept reply; None where there is none, or where it was damaged from outside: asked again, written again."""
    if path is None:
        return None
    try:
        kept = read_json(path)
        if isinstance(kept["text"], str):
            return Reply(kept["text"], None, True, False, int(kept["prompt_tokens"]), int(kept["completion_tokens"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return None
