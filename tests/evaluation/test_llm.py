"""common/llm.py against a server that misbehaves in every way servers do."""

import json
import struct
import time
import zlib

import pytest

from common.llm import Client, picture_url, user_message
from errors import UserError
from llm_server import completion


def client_of(server, **options):
    return Client(server.url, "m", **{"backoff": 0.001, "timeout": 5, **options})


QUESTION = [user_message("What is 2 + 3?")]


def test_a_reply_with_its_tokens(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "the key")
    server = serve(answer=lambda body: completion("5"))
    client = client_of(server)
    reply = client.chat(QUESTION, max_tokens=9)
    assert (reply.text, reply.error, reply.prompt_tokens, reply.completion_tokens) == ("5", None, 7, 3)
    path, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m", "max_tokens": 9, "temperature": 0.0,
        "messages": [{"role": "user", "content": "What is 2 + 3?"}]
    }
    assert server.headers[0]["Authorization"] == "Bearer the key"
    assert client.summary() == "m: 1 calls, 0 from the cache, 0 failed, 0 retries, 7 + 3 tokens"


@pytest.mark.parametrize("given, path",
                         [
                             ("", "/v1/chat/completions"),
                             ("/v1", "/v1/chat/completions"),
                             ("/v1/", "/v1/chat/completions"),
                             ("/api/v3/chat/completions", "/api/v3/chat/completions"),
                         ])
def test_the_address_may_be_short_or_full(serve, given, path):
    server = serve()
    Client(server.url.removesuffix("/v1") + given, "m").chat(QUESTION)
    assert server.requests[0][0] == path


@pytest.mark.parametrize(
    "behaviour",
    [
        ("status", 500), ("status", 429), ("status", 503), ("garbage",), ("cut",), ("hang up",),
        ("reply", b'{"choices": []}'), ("reply", b"[1]"), ("reply", b'{"choices": [{"message": null}]}'),
    ],
)
def test_what_passes_is_tried_again(serve, behaviour):
    server = serve([behaviour, behaviour])
    client = client_of(server)
    reply = client.chat(QUESTION)
    assert (reply.text, reply.error) == ("fine", None)
    assert len(server.requests) == 3 and client.num_retries == 2 and client.num_failed == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_and_gets_neither_question_nor_key(serve, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", "the key")
    elsewhere = serve()
    server = serve([("status", status, {"Location": elsewhere.url})])
    assert client_of(server).chat(QUESTION).error == f"HTTP {status}: moved to {elsewhere.url}; give that address"
    assert len(server.requests) == 1 and not elsewhere.requests


@pytest.mark.parametrize("url", [
    "https://user:s3cret@host/v1", "http://s3cret@host:8000", "user:s3cret@host:8000/v1", "https://host/v1?api_key=s3cret",
    "https://host/v1/chat/completions?version=2&Token=s3cret", "host/v1?key=s3cret",
])
def test_an_address_with_a_key_is_refused_and_not_repeated(url):
    with pytest.raises(UserError, match="holds a key; leave it out, and set .* OPENAI_API_KEY") as refusal:
        Client(url, "m")
    assert "s3cret" not in str(refusal.value)
    Client("https://host/@models/v1?api-version=2024-06-01", "m")


def test_a_key_that_a_server_repeats_is_not_repeated(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "busy")  # which is what this server says
    assert client_of(serve([("status", 401)])).chat(QUESTION).error == 'HTTP 401 {"error": "(the key)"}'


def test_retry_after_is_obeyed(serve):
    server = serve([("status", 429, {"Retry-After": "0.3"})])
    start = time.monotonic()
    assert client_of(server).chat(QUESTION).text == "fine"
    assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize("slow", [("sleep", 1.0), ("drip", 40)])
def test_a_slow_server_times_out(serve, slow):
    server = serve([slow])
    start = time.monotonic()
    assert client_of(server, timeout=0.25).chat(QUESTION).text == "fine"
    assert time.monotonic() - start < 0.9


@pytest.mark.parametrize("behaviour, words",
                         [
                             (("status", 401), "HTTP 401"),
                             (("status", 400), "busy"),
                             (("reply", completion("half", "length")), "max_tokens"),
                             (("reply", completion(None)), "no text"),
                             (("reply", completion("  ")), "no text"),
                         ])
def test_what_cannot_pass_is_an_error_at_once(serve, tmp_path, behaviour, words):
    server = serve([behaviour])
    client = client_of(server, cache=str(tmp_path))
    reply = client.chat(QUESTION)
    assert reply.text is None and words in reply.error
    assert len(server.requests) == 1 and client.num_failed == 1
    assert client.chat(QUESTION).text == "fine", "a failure must not be cached"


def test_a_cut_text_is_a_reply_where_that_is_asked_for_but_never_kept(serve, tmp_path):
    server = serve(answer=lambda body: completion("half of", "length"))
    reply = client_of(server, cache=str(tmp_path), keep_cut=True).chat(QUESTION)
    assert (reply.text, reply.error, reply.cut) == ("half of", None, True)
    assert "max_tokens" in client_of(server, cache=str(tmp_path)).chat(QUESTION).error
    server.answer = lambda body: completion(None, "length")
    assert "max_tokens" in client_of(server, keep_cut=True).chat(QUESTION).error


def test_when_every_attempt_fails_the_reply_says_so(serve):
    server = serve([("status", 500)] * 3)
    reply = client_of(server, retries=2).chat(QUESTION)
    assert reply.text is None and "HTTP 500" in reply.error and "3 attempts" in reply.error


def test_nobody_listening_is_an_error_reply_and_check_a_clear_line(serve):
    client = Client("http://127.0.0.1:9", "m", retries=0)
    assert "no connection" in client.chat(QUESTION).error
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        client.check()
    client_of(serve()).check()
    with pytest.raises(UserError, match="server's address"):
        Client("localhost:8000", "m")


def test_the_cache_answers_the_same_request_only(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "the-secret-key")
    server = serve(answer=lambda body: completion(body["messages"][-1]["content"] + "!"))
    first = client_of(server, cache=str(tmp_path)).chat(QUESTION)
    again = client_of(server, cache=str(tmp_path))
    reply = again.chat(QUESTION)
    assert (reply.text, reply.cached, first.cached) == (first.text, True, False) and len(server.requests) == 1
    assert "1 from the cache" in again.summary()
    for options in ({"temperature": 0.5}, {"max_tokens": 5}, {"sample": 1}):
        assert not again.chat(QUESTION, **options).cached
    assert again.chat([user_message("other")]).text == "other!"
    assert len(server.requests) == 5
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 5 and all(path.suffix == ".json" for path in files)
    assert not any("secret" in path.read_text() for path in files)


@pytest.mark.parametrize("damage", ['{"text": "fi', "[]", '{"text": null, "prompt_tokens": 1, "completion_tokens": 1}'])
def test_a_damaged_cache_file_is_asked_again(serve, tmp_path, damage):
    server = serve()
    client = client_of(server, cache=str(tmp_path))
    client.chat(QUESTION)
    (path,) = tmp_path.rglob("*.json")
    path.write_text(damage)
    assert client.chat(QUESTION).text == "fine" and len(server.requests) == 2
    assert json.loads(path.read_text())["text"] == "fine"


def test_many_questions_come_back_in_order_with_failures_in_their_place(serve, tmp_path):
    working, most = [], []  # counted while an answer is thought up: the client cannot know of it before it is sent

    def answer(body):
        working.append(body)
        most.append(len(working))
        number = int(body["messages"][0]["content"])
        time.sleep(0.02 if number % 3 else 0.0)
        working.pop()
        return completion(str(number)) if number % 7 else completion("", "content_filter")

    server = serve(answer=answer)
    client = client_of(server, cache=str(tmp_path), concurrency=8)
    drawn = []

    def questions():
        for number in range(40):
            drawn.append(number)
            yield [user_message(str(number))]

    replies = client.chat_many(questions())
    first = next(replies)
    assert first.error and len(drawn) <= 16, "a window of questions, not all of them"
    texts = [first.text, *(reply.text for reply in replies)]
    assert texts == [None if number % 7 == 0 else str(number) for number in range(40)]
    assert 2 <= max(most) <= 8
    assert client.num_failed == 6 and client.num_asked == 40


def test_an_interrupted_run_asks_only_for_the_rest(serve, tmp_path):
    server = serve(answer=lambda body: completion("ok"))
    questions = [[user_message(str(number))] for number in range(20)]
    replies = client_of(server, cache=str(tmp_path), concurrency=2).chat_many(questions)
    for _ in range(5):
        next(replies)
    replies.close()
    asked = len(server.requests)
    assert asked <= 9
    assert all(reply.text == "ok" for reply in client_of(server, cache=str(tmp_path)).chat_many(questions))
    assert len(server.requests) == 20


def test_a_dead_server_ends_a_long_run_in_one_line(serve):
    server = serve([("status", 500)] * 1000)
    client = client_of(server, retries=0, concurrency=2, give_up_after=10)
    with pytest.raises(UserError, match="calls in a row failed.*HTTP 500"):
        list(client.chat_many([[user_message(str(number))] for number in range(500)]))
    assert len(server.requests) < 40


def test_pictures_travel_as_data_urls(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    png = (b"\x89PNG\r\n\x1a\n"
           + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
           + chunk(b"IDAT", zlib.compress(b"\0\0"))
           + chunk(b"IEND", b""))
    path = tmp_path / "dot.png"
    path.write_bytes(png)
    message = user_message("What is this?", [path, png])
    assert [part["type"] for part in message["content"]] == ["image_url", "image_url", "text"]
    assert message["content"][0] == message["content"][1]
    assert message["content"][0]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    with pytest.raises(UserError, match="no.png"):
        picture_url(tmp_path / "no.png")
    with pytest.raises(UserError, match="not a PNG"):
        picture_url(b"BM....")
