"""What gen_data.py and augment_data.py share: one result from any number of processes, going on, what is refused."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from unittest import mock

import pytest

import augment_data
import gen_data
from common import files
from common import shards
from errors import UserError
from llm_server import Server, completion
from tests.problems.command import digest

PROGRAMS = {gen_data: "shards", augment_data: "parts"}  # the folder of each one's shards
both = pytest.mark.parametrize("program", PROGRAMS, ids=["gen_data", "augment_data"])


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """{program: flags of a run of several shards, in a second or two}"""
    data = tmp_path_factory.mktemp("public") / "text.jsonl"
    with open(data, "w", encoding="utf-8") as file:
        for n in range(2000):
            row = {"query": f"A box holds {n + 3} pens and 4 pencils. How many things are in it?",
                   "response": f"One box holds {n + 3} + 4 = {n + 7} things when we count.\nThe answer is: {n + 7}"}
            file.write(json.dumps(row) + "\n")
    return {gen_data: ["--families", "rectangle,cuboid,line_through_points", "--per_category", 80, "--bench_per_family",
                       3, "--seed", 5, "--picture_size", 96],
            augment_data: ["--stage", 1, "--data", data, "--expand", 4]}


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    """{program: a folder that one process has made}"""
    folders = {program: tmp_path_factory.mktemp(program.__name__) for program in PROGRAMS}
    for program, out in folders.items():
        run(program, flags, out, "--workers", 1)
    return folders


def command(program, flags, out, *more):
    return [f"{program.__name__}.py", "--out_dir", str(out), *map(str, [*flags[program], *more])]


def run(program, flags, out, *more):
    """The program in this process; raises UserError where it would print that and end."""
    with mock.patch.object(sys, "argv", command(program, flags, out, *more)):
        program.main()


def started(program, flags, out, *more, start_new_session=False, **environment):
    """The program as a process of its own."""
    return subprocess.Popen([sys.executable, *command(program, flags, out, *more)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
                            start_new_session=start_new_session)


def wait_until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)


def published(out):
    """The bytes that a user reads: plans and manifests of augment_data.py name their own folder."""
    return {name: found for name, found in digest(out).items() if not name.endswith((".json", ".html"))}


@both
def test_any_number_of_workers_and_machines_gives_the_same_bytes(program, flags, whole, tmp_path):
    run(program, flags, tmp_path / "workers", "--workers", 3)
    assert published(tmp_path / "workers") == published(whole[program])
    ranks = [started(program, flags, tmp_path / "ranks", "--workers", 1, RANK=rank, WORLD_SIZE="2") for rank in "10"]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    assert published(tmp_path / "ranks") == published(whole[program])


@both
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_goes_on_where_it_was(program, how, flags, whole, tmp_path):
    """Its workers end with it; finished shards are kept; the same command ends with the bytes of one never stopped."""
    process = started(program, flags, tmp_path, "--workers", 1)
    wait_until(lambda: list((tmp_path / PROGRAMS[program]).glob("*0.jsonl")))
    process.send_signal(how)
    _, told = process.communicate(timeout=30)  # returns when the last worker has closed its stderr
    assert process.returncode == (-9 if how == signal.SIGKILL else 130)
    assert how == signal.SIGKILL or told.strip().endswith("the same command goes on from what was saved")
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / PROGRAMS[program]).glob("*.jsonl")}
    assert finished and not list(tmp_path.glob("stage*.jsonl"))
    run(program, flags, tmp_path)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in finished.items())
    assert published(tmp_path) == published(whole[program])


@both
def test_ctrl_c_in_a_terminal_reaches_the_workers_too_and_says_one_line(program, flags, tmp_path):
    process = started(program, flags, tmp_path, "--workers", 2, start_new_session=True)
    wait_until(lambda: list((tmp_path / PROGRAMS[program]).glob("*0.jsonl")))
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in told
    assert told.strip().endswith("the same command goes on from what was saved")


def server_flags(url):
    return {augment_data: ["--stage", 1, "--explain", url, "--explain_model", "m", "--workers", 1, "--data"]}


def write_answer_only(path):
    rows = [{"query": f"A box holds {n} pens and 4 pencils. How many things are in it?", "response": f"{n + 4}"}
            for n in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_ctrl_c_does_not_wait_for_a_server_that_hangs(tmp_path):
    data = write_answer_only(tmp_path / "data.jsonl")
    server = Server([("reply", completion("OK"))] + [("sleep", 60)] * 99)
    process = started(augment_data, server_flags(server.url), tmp_path / "out", data)
    wait_until(lambda: len(server.requests) > 1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=shards.GRACE + 15)
    server.http.shutdown()
    assert process.returncode == 130 and told.strip().endswith("the same command goes on from what was saved")


def test_a_job_goes_on_with_its_server_elsewhere_but_not_with_another_model(tmp_path):
    data, out = write_answer_only(tmp_path / "data.jsonl"), tmp_path / "out"
    servers = [Server(answer=lambda body: completion("OK")) for _ in range(2)]
    for server in servers:
        run(augment_data, server_flags(server.url), out, data)
    with pytest.raises(UserError, match="holds data made with other settings"):
        run(augment_data, server_flags(servers[0].url), out, data, "--explain_model", "another")
    for server in servers:
        server.http.shutdown()


@both
@pytest.mark.parametrize(("mistake", "message"), [
    ("a file", r"--out_dir {out}: Not a directory; name a folder that can be written to"),
    ("no plan", r"{out}/{folder}/plan.json: no plan of this program; delete {out} or choose another --out_dir"),
    ("other plan", r"{out}: holds data made with other settings; delete it or choose another --out_dir"),
    ("full disk", r"{out}/{folder}/[^:]*: No space left on device; fix it and run the same command again"),
    ("killed worker", r"a worker process was killed, .*run the same command again \(finished shards are kept\)"),
])
def test_the_same_mistake_is_the_same_line(program, mistake, message, flags, tmp_path, monkeypatch):
    folder, out = PROGRAMS[program], tmp_path / "out"
    (out / folder).mkdir(parents=True)
    if mistake == "a file":
        out = tmp_path / "out.txt"
        out.touch()
    elif mistake.endswith("plan"):
        text = {"no plan": "{", "other plan": '{"fingerprint": "another"}'}[mistake]
        (out / folder / "plan.json").write_text(text)
    elif mistake == "full disk":
        monkeypatch.setattr(shards, "write_atomically", mock.Mock(side_effect=full_disk))
    else:
        monkeypatch.setattr(shards, "go_on", lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError, match=message.format(out=out, folder=folder)) as error:
        run(program, flags, out)
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert not list(out.rglob("*.tmp"))


def full_disk(path, *_):
    raise OSError(28, "No space left on device", path)


def test_what_cannot_be_joined_leaves_the_files_of_before(tmp_path):
    (tmp_path / "a.jsonl").write_text("before")
    with pytest.raises(OSError), shards.joined(str(tmp_path), "a.jsonl", "b.jsonl") as (a, _):
        a.write(b"half")
        full_disk("b.jsonl")
    assert os.listdir(tmp_path) == ["a.jsonl"] and (tmp_path / "a.jsonl").read_text() == "before"


def test_two_machines_with_equal_process_numbers_do_not_write_into_one_another(tmp_path, monkeypatch):
    """The second writes while the first is about to publish; locks may not reach from one machine to the other."""
    monkeypatch.setattr(files.fcntl, "flock", mock.Mock(side_effect=OSError(37, "No locks available")))
    monkeypatch.setattr(threading, "get_native_id", lambda: 4711)
    path, sync = tmp_path / "reply.json", os.fsync

    def second_machine(descriptor):
        monkeypatch.setattr(files.os, "fsync", sync)
        files.write_atomically(path, "short")
        assert path.read_text() == "short"

    monkeypatch.setattr(files.os, "fsync", second_machine)
    files.write_atomically(path, "a longer text")
    assert path.read_text() == "a longer text" and os.listdir(tmp_path) == ["reply.json"]


def test_a_full_disk_leaves_no_truncated_file(tmp_path, monkeypatch):
    full = mock.MagicMock()
    full.__enter__.return_value.write.side_effect = OSError(28, "No space left on device")
    held = files._held

    def half_written(path):
        held(path).write(b"x")
        return full

    monkeypatch.setattr(files, "_held", half_written)
    with pytest.raises(OSError, match="No space") as error:
        files.write_atomically(str(tmp_path / "picture.png"), b"x" * 1000)
    assert os.listdir(tmp_path) == [] and error.value.filename == str(tmp_path / "picture.png")


def test_what_a_killed_writer_left_is_removed_and_nothing_else(flags, whole, tmp_path):
    out = tmp_path / "data"
    shutil.copytree(whole[gen_data], out)
    folder = out / "pictures" / "bench" / "00000"
    code = "import os, sys; from common import files; files.os.replace = lambda *_: os.kill(os.getpid(), 9)"
    code += "; [files.write_atomically(sys.argv[1], b'x', durable=False)]"
    for path in (folder / "000001-x.png", out / "shards" / "bench-00000.jsonl", out / "manifest.json"):
        assert subprocess.run([sys.executable, "-c", code, path]).returncode == -9
    assert len(list(out.rglob("*.tmp"))) == 3
    own = [folder / "mine.tmp", folder / "a.png.tmp", out / "notes.txt.12.tmp", out / "mine" / "a.png.12.tmp"]
    (out / "mine").mkdir()
    for path in own:
        path.touch()
    held = folder / "000002-x.png.77.tmp"
    with files._held(str(held)):  # its writer lives
        run(gen_data, flags, out)
        assert set(out.rglob("*.tmp")) == {*own, held}
    files.remove_leftovers(str(out), "shards")
    assert set(out.rglob("*.tmp")) == set(own)


def test_a_writer_whose_file_was_swept_before_it_was_held_writes_it_again(tmp_path, monkeypatch):
    path, flock = tmp_path / "a.png", fcntl.flock

    def swept(file, how):
        monkeypatch.undo()
        os.remove(f"{path}.{os.getpid()}.tmp")
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", swept)
    files.write_atomically(str(path), b"x")
    assert path.read_bytes() == b"x" and os.listdir(tmp_path) == ["a.png"]
