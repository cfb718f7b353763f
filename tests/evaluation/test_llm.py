"""common/llm.py against a server that misbehaves in every way servers do."""

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from common import llm
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
    messages = [{"role": "user", "content": "What is 2 + 3?"}]
    body = {"model": "m", "max_tokens": 9, "temperature": 0.0, "messages": messages}
    assert server.requests == [("/v1/chat/completions", body)]
    assert server.headers[0]["Authorization"] == "Bearer the key"
    assert client.summary() == "m: 1 calls, 0 from the cache, 0 failed, 0 retries, 7 + 3 tokens"


def test_the_address_may_be_short_or_full():
    for given, path in (("", "/v1"), ("/v1", "/v1"), ("/v1/", "/v1"), ("/api/v3/chat/completions", "/api/v3")):
        assert Client(f"http://host:8000{given}", "m").url == f"http://host:8000{path}/chat/completions"


@pytest.mark.parametrize("behaviour", [
    ("status", 500), ("status", 429), ("status", 503), ("garbage",), ("cut",), ("hang up",),
    ("reply", b'{"choices": []}'), ("reply", b"[1]"), ("reply", b'{"choices": [{"message": null}]}'),
])
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


def test_a_redirect_that_a_proxy_brings_is_an_error_too(serve):
    elsewhere = serve()
    proxy = serve([("status", 302, {"Location": elsewhere.url})])
    code = ("from common.llm import Client, user_message\n"
            "print(Client('http://far.invalid/v1', 'm', retries=0).chat([user_message('Say 5.')]).error)")
    told = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2], text=True,
                          env={**os.environ, "OPENAI_API_KEY": "the key", "http_proxy": proxy.url, "no_proxy": ""},
                          stdout=subprocess.PIPE, check=True).stdout
    assert told == f"HTTP 302: moved to {elsewhere.url}; give that address\n"
    assert len(proxy.requests) == 1 and not elsewhere.requests


@pytest.mark.parametrize("url", [
    "localhost:8000", "http://[::1", "http://host:99999/v1", "http://host:port/v1", "http://my host/v1", "http://",
    "http://host/v1\n", "ftp://host/v1", "http://höst/v1", f"http://{'a' * 64}.org/v1", "",
])
def test_a_bad_address_is_one_line(url):
    with pytest.raises(UserError, match=r"not a server's address.*http://localhost:8000/v1") as refusal:
        Client(url, "m")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("url", [
    "https://user:s3cret@host/v1", "http://s3cret@host:8000", "user:s3cret@host:8000/v1", "https://host/v1?api_key=s3cret",
    "https://host/v1/chat/completions?version=2&Token=s3cret", "host/v1?key=s3cret",
])
def test_an_address_with_a_key_is_refused_and_not_repeated(url):
    with pytest.raises(UserError, match="holds a key; leave it out, and set .* OPENAI_API_KEY") as refusal:
        Client(url, "m")
    assert "s3cret" not in str(refusal.value)
    Client("https://host/@models/v1?api-version=2024-06-01", "m")


def test_a_key_of_its_own_variable_is_the_only_one_sent(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "the other's")
    monkeypatch.setenv("MY_KEY", " mine \n")  # as `export MY_KEY="$(cat file) "` leaves it
    server = serve()
    client_of(server, key_variable="MY_KEY").chat(QUESTION)
    monkeypatch.delenv("MY_KEY")
    client_of(server, key_variable="MY_KEY").chat(QUESTION)
    assert [headers.get("Authorization") for headers in server.headers] == ["Bearer mine", None]
    monkeypatch.setenv("MY_KEY", "mi\nne")
    with pytest.raises(UserError, match="MY_KEY holds no key") as refusal:
        client_of(server, key_variable="MY_KEY")
    assert "mi" not in str(refusal.value).replace("MY_KEY", "")


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


@pytest.mark.parametrize("behaviour, words, requests", [
    (("status", 401), "HTTP 401", 1), (("status", 400), "busy", 1),
    (("reply", completion("half", "length")), "max_tokens", 1),
    (("reply", completion(None, "length")), "max_tokens", 1),
    (("reply", completion(None)), "no text", 1), (("reply", completion("  ")), "no text", 1),
    (("status", 500), 'HTTP 500 {"error": "busy"} (after 3 attempts)', 3),
])
def test_what_does_not_pass_is_an_error(serve, tmp_path, behaviour, words, requests):
    server = serve([behaviour] * requests)
    client = client_of(server, cache=str(tmp_path), retries=2)
    reply = client.chat(QUESTION)
    assert reply.text is None and words in reply.error
    assert len(server.requests) == requests and client.num_failed == 1
    assert client.chat(QUESTION).text == "fine", "a failure must not be cached"


@pytest.mark.parametrize("given, text, cut", [
    (completion([{"type": "text", "text": "It is "}, {"type": "output_text", "text": "5"}]), "It is 5", False),
    (completion([{"type": "thinking", "thinking": [{"text": "4?"}]}, {"type": "text", "text": "5"}]), "5", False),
    (completion("5", reasoning_content="2 and 3"), "5", False), (completion("half of", "length"), "half of", True),
    (completion(None, reasoning_content="2 and 3"), "<think>\n2 and 3", False),
    (completion("", "length", reasoning="2 and"), "<think>\n2 and", True),
    (completion(None, "length"), "", True), (completion("", "stop"), "", False),
    (("status", 400, {}, b'{"error": {"message": "Could not finish the message because max_tokens or model output '
                         b'limit was reached. Please try again with higher max_tokens."}}'), "", True),
])
def test_what_a_model_under_test_said_is_its_reply(serve, tmp_path, given, text, cut):
    server = serve([given if isinstance(given, tuple) else ("reply", given)] * 2)
    reply = client_of(server, keep_cut=True, cache=str(tmp_path)).chat(QUESTION)
    assert (reply.text, reply.error, reply.cut) == (text, None, cut)
    assert len([*tmp_path.rglob("*.json")]) == (text != "" and not cut)
    if not text or "<think>" in text or cut:
        assert client_of(server).chat(QUESTION).text is None, "who asks for an explanation has none"


WRONG_NAME = (b'{"error": {"message": "Unsupported parameter: \'max_tokens\' is not supported with this model. Use '
              b'\'max_completion_tokens\' instead.", "param": "max_tokens"}}')
WRONG_VALUE = (b'{"error": {"message": "Unsupported value: \'temperature\' does not support 0.0 with this model. Only '
               b'the default (1) value is supported.", "param": "temperature"}}')


def test_refused_parameters_are_learned_once_and_leave_the_cache_key_alone(serve, tmp_path):
    server = serve([("status", 400, {}, WRONG_NAME), ("status", 400, {}, WRONG_VALUE)])
    client = client_of(server, cache=str(tmp_path))
    assert client.chat(QUESTION, max_tokens=9).text == client.chat([user_message("other")], max_tokens=9).text == "fine"
    asked = [{name: body[name] for name in body.keys() - {"model", "messages"}} for _, body in server.requests]
    assert asked == [{"max_tokens": 9, "temperature": 0.0}, {"max_completion_tokens": 9, "temperature": 0.0},
                      {"max_completion_tokens": 9}, {"max_completion_tokens": 9}]
    assert client.num_retries == client.num_failed == 0 and "server's own temperature" in client.summary()
    assert client_of(serve(), cache=str(tmp_path)).chat(QUESTION, max_tokens=9).cached
    stubborn = serve([("status", 400, {}, WRONG_NAME)] * 9)
    assert "HTTP 400" in client_of(stubborn).chat(QUESTION).error and len(stubborn.requests) == 2


ODD_USAGE = completion("fine").replace(b"7", b"%s").replace(b"3", b"-3")
ODD_NUMBERS = (b"NaN", b"1e999", b"1" * 4000, b'"7"', b"[]", b"null", b"{}")


@pytest.mark.parametrize("data, text, words", [
    (completion("a \ud800 b \0"), "a ? b \0", None),
    *((ODD_USAGE.replace(b"%s", number), "fine", None) for number in ODD_NUMBERS),
    (b'{"choices": [{"message": {"content": "fine"}}], "usage": "seven"}', "fine", None),
    (b"1" * 5000, None, "not a chat completion: 111"), (b"[" * 100_000, None, "not a chat completion: [[["),
    (b"<html>\n<title>Sign in</title>", None, "not a chat completion: <html> <title>Sign in</title>"),
    *((data, None, "not a chat completion") for data in (
        b'{"choices":' * 100_000, gzip.compress(completion("fine")), b"\xff\xfe\x00", b"", b'{"choices": "fine"}')),
    (b'{"choices": [{"message": {"content": 5}}]}', None, "holds no text"),
    (b'{"choices": [{"message": {"content": [5, null, {"text": []}]}}]}', None, "holds no text"),
    (completion(None, ["long"] * 1000), None, "holds no text"), (completion({"text": "fine"}), None, "holds no text"),
])
def test_whatever_a_server_sends_is_at_worst_an_error(serve, tmp_path, data, text, words):
    server = serve(answer=lambda body: data)
    client = client_of(server, retries=0, cache=str(tmp_path))
    reply = client.chat(QUESTION)
    assert reply.text == text and (words is None or words in reply.error)
    shown = (reply.error or "") + client.summary()
    assert len(shown) < 800 and shown.isprintable() and shown.encode()
    assert reply.prompt_tokens in (0, 7) and reply.completion_tokens in (0, 3)
    assert client.chat(QUESTION).text == text


def test_a_reply_has_a_largest_size(serve, monkeypatch):
    monkeypatch.setattr(llm, "LARGEST_REPLY", 1 << 20)
    endless, large = ("drip", 10**6, b"[" * 65536), ("reply", completion("5" * 2_000_000))
    client = client_of(serve([endless, large, ("reply", completion("5" * 9999))]), concurrency=1)
    assert [reply.error for reply in client.chat_many([QUESTION] * 3)] == ["a reply of more than 1 MB"] * 2 + [None]


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_the_umask_decides_who_may_read_the_cache(serve, tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        client_of(serve(), cache=str(tmp_path)).chat(QUESTION)
    finally:
        os.umask(before)
    (path,) = tmp_path.rglob("*.json")
    assert path.stat().st_mode & 0o777 == mode and path.parent.stat().st_mode & 0o777 == 0o777 & ~umask


def test_no_server_is_an_error_reply_and_one_clear_line_of_check(serve):
    client = Client("http://127.0.0.1:9", "m", retries=0)
    assert "no connection" in client.chat(QUESTION).error
    with pytest.raises(UserError, match="no connection.*; check the address$"):
        client.check()


@pytest.mark.parametrize("behaviour, remedy", [
    (("status", 401), "set the environment variable OPENAI_API_KEY to a key of this server"),
    (("status", 404), "check the address and the name of the model"),
    (("status", 301, {"Location": "http://new"}), "moved to http://new; give that address; check the address"),
    (("garbage",), "not a chat completion: <html>gateway</html>; check the address and the name of the model"),
    (("status", 400, {}, b"'max_tokens' or 'max_completion_tokens' is too large: 99. This model's maximum context "
                         b"length is 64 tokens"), "ask for fewer max_tokens than 99"),
    (("sleep", 1), "no reply within 0.3 s; check the address"),
])
def test_check_says_what_is_wrong(serve, behaviour, remedy):
    server = serve([behaviour])
    with pytest.raises(UserError) as refusal:
        client_of(server, timeout=0.3).check(max_tokens=99, temperature=0.0)
    assert str(refusal.value).endswith(remedy) or remedy in str(refusal.value) and "\n" not in str(refusal.value)
    assert len(server.requests) == 1


def test_a_server_that_is_busy_or_thinking_passes_the_check(serve):
    for server in (serve([("status", 503)]), serve([("reply", completion(None, "length"))]), serve()):
        client = client_of(server)
        client.check(max_tokens=9, temperature=0.5)
        body = server.requests[-1][1]
        assert (body["max_tokens"], body["temperature"], client.num_asked) == (9, 0.5, 0)


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
    again.chat(QUESTION, max_tokens=9, temperature=0.5, sample=2)
    name = "e6a910745f0acb3747f7b2beae9fc6fe84cf43db63c30592a99d858b4bedae36"
    (tmp_path / name[:2] / f"{name}.json").unlink()  # where earlier runs have left their replies
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
    path = tmp_path / "dot.png"
    Image.new("L", (1, 1)).save(path)
    message = user_message("What is this?", [path, path.read_bytes()])
    assert [part["type"] for part in message["content"]] == ["image_url", "image_url", "text"]
    assert message["content"][0] == message["content"][1]
    assert message["content"][0]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    with pytest.raises(UserError, match="no.png"):
        picture_url(tmp_path / "no.png")
    with pytest.raises(UserError, match="not a PNG"):
        picture_url(b"BM....")
