"""Evaluate a checkpoint, a served model or answers made elsewhere: MathVerse, MathVista, We-Math or a generated bench.

    python eval.py --bench generated --data out/demo/data/bench.jsonl --model out/demo/stage3 --blind
    torchrun --nproc_per_node 8 eval.py --bench mathverse --data testmini.json --image_root images --model out/stage3
    python eval.py --bench mathvista --data testmini.json --image_root . --api http://localhost:8000/v1 --api_model NAME
    python eval.py --bench wemath --data testmini.json --image_root . --predictions answers.jsonl
    python eval.py --bench mathverse --data testmini.json --steps judge,report --judge URL --judge_model NAME

Four steps, each of which can be run again alone (--steps): generate → extract → judge → report. Each leaves its file in
--out_dir (predictions.jsonl, extractions.jsonl, verdicts.jsonl, report.json with report.md, chart.png, browse.html); an
interrupted run goes on where it stopped. Extraction and verdicts are by rules, offline, unless --judge names a server.
"""

import functools
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from PIL import Image
from tqdm import tqdm

import runtime
from common.llm import KEY_VARIABLE, Client, user_message
from errors import UserError, run_main
from evaluation import BENCHMARKS, generated, llm_judge, score, store
from evaluation.answers import is_marked
from evaluation.question import Question
from evaluation.report import compared, counts, in_order, methods, notes, told, unfinished, write_report

STEPS = ("generate", "extract", "judge", "report")
PROTOCOLS = ("official", "puma")
JUDGE_KEY_VARIABLE = "JUDGE_API_KEY"
LONGEST_CALL = 600.0  # seconds: a reasoning model's reply comes at its end


@dataclass
class Config:
    """What is asked, who answers and who judges: one flag per field."""

    # what
    bench: str = ""  # mathverse, mathvista, wemath or generated
    data: str = ""  # its question file
    image_root: str = ""  # where picture paths start; the generated bench's own folder by default
    out_dir: str = "out/eval"
    steps: str = "generate,extract,judge,report"
    protocol: str = "official"  # official, or puma: the paper's released prompts and their quirks
    limit: int = 0  # only the first rows; 0: all
    allow_missing_images: bool = False  # show a white picture where one is not at hand; the report counts them
    blind: bool = False  # also ask with every picture white: what is scored without seeing
    fresh: bool = False  # throw away the earlier answers in --out_dir
    # who answers: one of the three
    model: str = ""  # a checkpoint folder
    api: str = ""  # an OpenAI-compatible server ...
    api_model: str = ""  # ... and the model it serves
    predictions: str = ""  # JSONL rows with id and response; a row with extraction skips that step
    # how
    batch_size: int = 32
    max_new_tokens: int = 768
    temperature: float = 0.0  # 0: greedy
    concurrency: int = 16  # calls at a time
    # who judges
    judge: str = ""  # an OpenAI-compatible server; "": by rules, offline
    judge_model: str = ""
    judge_max_tokens: int = 4096  # of one reply, a judge's thinking included
    judge_temperature: float = 0.0
    # report
    name: str = ""  # of the model in the report
    compare: str = ""  # other --out_dir folders, for the table and the chart: a,b
    samples: int = 1000  # bootstrap


# ----------------------------------------------------------------------------------------------------------------------
# The story


def main() -> None:
    """Run the steps that were asked for."""
    config = runtime.parse_config(Config)
    steps = check(config)
    bench, out = BENCHMARKS[config.bench], Path(config.out_dir)
    everything = bench.load(config.data, config.image_root, config.protocol)
    questions = everything[: config.limit or None]
    generating = "generate" in steps and not config.predictions
    missing = missing_pictures(config, questions, asking=generating)

    process = runtime.setup(seed=0, device="auto" if generating else "cpu", timeout_minutes=24 * 60)
    runtime.run_on_first_rank(process, lambda: runtime.lock_out_dir(out, process, work="evaluating", flag="--out_dir"))
    try:
        if generating:
            generate(config, questions, missing, out, process)
        runtime.leave_group(process)  # when every rank is done
        if process.is_first:  # judging may take hours, and needs no GPU
            finish(config, bench, everything, questions, missing, out, steps)
    finally:
        process.unlock()


def finish(config: Config, bench: ModuleType, everything: list[Question], questions: list[Question], missing: set[str],
           out: Path, steps: list[str]) -> None:
    """The steps after generate, in one process."""
    for stem in ["predictions"] + ["predictions_blind"] * config.blind:
        answers = read_answers(config, out, stem)
        suffix = stem.removeprefix("predictions")
        known = {question.id for question in everything}
        store.check_ids(answers, questions, known, config.predictions or f"{out}/{stem}*.jsonl")
        if "extract" in steps:
            store.write_rows(out / f"extractions{suffix}.jsonl", extract(config, bench, questions, answers))
        if "judge" in steps:
            extractions = read_step(out / f"extractions{suffix}.jsonl", questions, "extract", answers)
            store.write_rows(out / f"verdicts{suffix}.jsonl", judge(config, bench, questions, extractions))
    if "report" in steps:
        report(config, bench, questions, missing, out)


def check(config: Config) -> list[str]:
    """The steps; UserError for flags that do not go together."""
    steps = [step.strip() for step in config.steps.split(",")]
    if config.bench not in BENCHMARKS:
        raise UserError(f"--bench {config.bench or '(none)'}: choose {', '.join(BENCHMARKS)}")
    if not config.data:
        raise UserError("--data is missing: the benchmark's question file")
    if unknown := [step for step in steps if step not in STEPS]:
        raise UserError(f"--steps {unknown[0]}: the steps are {', '.join(STEPS)}")
    if config.protocol not in PROTOCOLS:
        raise UserError(f"--protocol {config.protocol}: choose {' or '.join(PROTOCOLS)}")
    for flag, least in {"limit": 0, "samples": 0, "temperature": 0, "batch_size": 1, "max_new_tokens": 1,
                        "concurrency": 1, "judge_max_tokens": 1, "judge_temperature": 0}.items():
        if getattr(config, flag) < least:
            raise UserError(f"--{flag} {getattr(config, flag)}: at least {least}")
    answering = [flag for flag in ("model", "api", "predictions") if getattr(config, flag)]
    if len(answering) > 1 or ("generate" in steps and not answering):
        raise UserError("who answers? give one of --model FOLDER, --api URL with --api_model, --predictions FILE")
    for flag in ("api", "judge"):
        if bool(getattr(config, flag)) != bool(getattr(config, f"{flag}_model")):
            raise UserError(f"--{flag} and --{flag}_model go together: the server and the model it serves")
    if config.model and not (Path(config.model) / "config.json").is_file():
        raise UserError(f"{config.model}: no config.json; --model wants a folder that a stage or transformers wrote")
    if config.predictions and config.blind:
        raise UserError("--blind asks the model again without pictures; it cannot go with --predictions")
    return steps


def missing_pictures(config: Config, questions: list[Question], asking: bool) -> set[str]:
    """Ids of rows whose picture is not at hand; UserError where a model is to be asked and that is not allowed."""
    missing = [question for question in questions if question.image and not os.path.isfile(question.image)]
    if missing and asking and not config.allow_missing_images:
        raise UserError(f"{len(missing)} of {len(questions)} pictures are not at hand, the first {missing[0].image} "
                        f"(row {missing[0].id}); set --image_root, or pass --allow_missing_images to show white ones "
                        "instead")
    return {question.id for question in missing}


# ----------------------------------------------------------------------------------------------------------------------
# generate


def generate(config: Config, questions: list[Question], missing: set[str], out: Path, process: runtime.Process) -> None:
    """Ask about each row that has no answer yet, this rank's share."""
    runtime.run_on_first_rank(process, lambda: prepare(config, out))
    suffix = f"-{process.rank:04d}" if process.world_size > 1 else ""
    for blind in (False, True)[: 1 + config.blind]:
        stem = "predictions_blind" if blind else "predictions"
        mine = questions[process.rank :: process.world_size]  # by position: the shares never depend on what is done
        done = {key: row for key, row in store.read_parts(out, stem).items() if "error" not in row}
        fingerprints = {question.id: fingerprint(question) for question in mine}
        changed = [key for key, asked in fingerprints.items() if key in done and done[key].get("asked") != asked]
        if changed:  # the data file is another now
            raise UserError(f"{out}: holds answers to other questions under {len(changed)} of the same ids, the first "
                            f"{changed[0]}; choose another --out_dir, or pass --fresh to throw them away")
        todo = [question for question in mine if question.id not in done]
        runtime.print0(f"{stem}: {len(mine) - len(todo)} of this rank's {len(mine)} rows are done")
        if todo:
            check_servers(config)
        answers = ask_server(config, todo, missing, blind) if config.api else ask_model(config, todo, missing, blind)
        with store.appender(out / f"{stem}{suffix}.jsonl") as file:
            for row in tqdm(answers, total=len(todo), desc=stem, disable=process.rank != 0):
                store.write_row(file, {**row, "asked": fingerprints[row["id"]]})
        refuse_only_errors(config.api, store.read_parts(out, stem))


def prepare(config: Config, out: Path) -> None:
    """Throw away earlier answers, and what was made of them, where that is asked for; refuse to mix answers of
    different models or prompts.
    """
    if config.fresh:
        (out / "settings.json").unlink(missing_ok=True)
        for stem in ("predictions", "extractions", "verdicts"):
            for path in out.glob(f"{stem}*.jsonl"):
                path.unlink()
    store.check_settings(out / "settings.json", {
        "bench": config.bench, "protocol": config.protocol, "model": config.model or config.api_model,
        "weights": store.model_fingerprint(config.model) if config.model else "",
        "max_new_tokens": config.max_new_tokens, "temperature": config.temperature,
    })


def fingerprint(question: Question) -> str:
    """A short hash of what a model is shown: the prompt, and the picture's name and size in bytes."""
    size = os.path.getsize(question.image) if os.path.isfile(question.image) else ""
    shown = f"{question.prompt}\n{os.path.basename(question.image)}\n{size}"
    return hashlib.sha256(shown.encode()).hexdigest()[:12]


def ask_model(config: Config, questions: list[Question], missing: set[str], blind: bool) -> Iterator[dict]:
    """Rows {"id", "response", "finish_reason"} from a checkpoint, batch by batch."""
    if not questions:
        return
    from evaluation.generate import message_of, stream

    model, processor = checkpoint(config.model)
    messages = [message_of(question, blind=blind, missing=question.id in missing) for question in questions]
    for position, text, cut in stream(model, processor, messages, batch_size=config.batch_size,
                                      max_new_tokens=config.max_new_tokens, temperature=config.temperature):
        yield {"id": questions[position].id, "response": text, "finish_reason": "length" if cut else "stop"}


@functools.cache
def checkpoint(folder: str) -> tuple:
    """The model and its processor, opened once."""
    from evaluation.generate import load_model  # transformers takes seconds to import

    return load_model(folder)


def check_servers(config: Config) -> None:
    """Ask the servers of this run one short question each: better now than after hours."""
    bench, steps, servers = BENCHMARKS[config.bench], config.steps, []
    if config.api:
        servers.append(api_client(config))
    if config.judge and (("extract" in steps and bench.LLM_EXTRACTION) or ("judge" in steps and bench.LLM_VERDICT)):
        servers.append(judge_client(config))
    for client, options in servers:
        client.check(**options)


def refuse_only_errors(server: str, rows: dict[str, dict]) -> None:
    """UserError with the reason where not one row was answered."""
    errors = [row["error"] for row in rows.values() if "error" in row]
    if errors and len(errors) == len(rows):
        raise UserError(f"{server}: all {len(rows)} rows failed, the last with: {errors[-1]}; fix that, then the same "
                        "command asks again")


def api_client(config: Config) -> tuple[Client, dict]:
    """The client of the model under test, which may think for minutes, and how it is asked."""
    client = Client(config.api, config.api_model, concurrency=config.concurrency, timeout=LONGEST_CALL, keep_cut=True)
    return client, {"max_tokens": config.max_new_tokens, "temperature": config.temperature}


def ask_server(config: Config, questions: list[Question], missing: set[str], blind: bool) -> Iterator[dict]:
    """Rows {"id", "response", "finish_reason"}, or {"id", "error"} for a call that failed, as an OpenAI-compatible
    server answers.
    """
    client, options = api_client(config)

    def message(question: Question) -> list[dict]:
        picture = white_picture() if blind or question.id in missing else question.image
        return [user_message(question.prompt, [picture] if question.image else [])]

    calls = (functools.partial(message, question) for question in questions)
    for position, reply in client.chat_as_they_come(calls, **options):
        said = {"response": reply.text, "finish_reason": "length" if reply.cut else "stop"}
        yield {"id": questions[position].id, **(said if reply.error is None else {"error": reply.error})}
    print(client.summary())


def white_picture() -> bytes:
    """An encoded white picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (384, 384), "white").save(buffer, "PNG")
    return buffer.getvalue()


# ----------------------------------------------------------------------------------------------------------------------
# extract, judge


def judge_client(config: Config) -> tuple[Client, dict]:
    """The judge's client and how it is asked; its replies are kept, so that judging again asks nothing twice.

    Its key is JUDGE_API_KEY. OPENAI_API_KEY belongs to --api, also to that of an earlier command: a judge gets it only
    where no other server answered.
    """
    checkpoint_answered = config.model or store.read_settings(Path(config.out_dir) / "settings.json").get("weights")
    same_address = config.api.split("/")[:3] == config.judge.split("/")[:3]  # scheme, host and port
    shared = config.predictions or checkpoint_answered or same_address
    variable = KEY_VARIABLE if shared and not os.environ.get(JUDGE_KEY_VARIABLE) else JUDGE_KEY_VARIABLE
    client = Client(config.judge, config.judge_model, cache=str(Path(config.out_dir) / "judge_cache"),
                    concurrency=config.concurrency, timeout=LONGEST_CALL, keep_cut=True, key_variable=variable)
    return client, {"max_tokens": config.judge_max_tokens, "temperature": config.judge_temperature}


def by_judge(config: Config, work: str, ask: Callable[..., dict[str, dict]], *arguments: object) -> dict[str, dict]:
    """ask's rows, with what they cost; UserError where each is an error row."""
    client, options = judge_client(config)
    rows = ask(client, *arguments, **options)
    print(f"{work}: {client.summary()}")
    refuse_only_errors(config.judge, rows)
    return {key: {**row, "by": "llm"} for key, row in rows.items()}


def extract(config: Config, bench: ModuleType, questions: list[Question], answers: dict[str, dict]) -> list[dict]:
    """A row {"id", "extraction", "by"} per question, or its error row; a given extraction is taken as it is."""
    found, ask = {}, []
    for question in questions:
        row = answers[question.id]
        if "error" in row:
            found[question.id] = {"error": row["error"]}
        elif isinstance(row.get("extraction"), str):
            found[question.id] = {"extraction": row["extraction"], "by": "given"}
        else:
            ask.append(question)
    responses = {question.id: answers[question.id]["response"] for question in ask}
    if config.judge and bench.LLM_EXTRACTION:
        found |= by_judge(config, "extraction", llm_judge.extract, bench, ask, responses)
    else:
        for question in ask:
            response = responses[question.id]
            # where an answer was cut off, its last sentence is a step, not a conclusion
            cut = bench.LLM_EXTRACTION and answers[question.id].get("finish_reason") == "length"
            unread = cut and not is_marked(response, question.choices)
            extraction = None if unread else bench.extract(question, response, config.protocol)
            found[question.id] = {"extraction": extraction, "by": "rules"}
    return [{"id": question.id, **found[question.id], "of": stamp(question, answers[question.id])}
            for question in questions]


def judge(config: Config, bench: ModuleType, questions: list[Question], extractions: dict[str, dict]) -> list[dict]:
    """A row {"id", "correct", "extraction", "by"} per question; error rows are passed on and never count as wrong."""
    sound = [question for question in questions if "error" not in extractions[question.id]]
    texts = {question.id: extractions[question.id]["extraction"] for question in sound}
    if config.judge and bench.LLM_VERDICT:
        rows = by_judge(config, "verdicts", llm_judge.judge, sound, texts)
    else:
        rows = {question.id: {"correct": bench.judge(question, texts[question.id], config.protocol), "by": "rules"}
                for question in sound}
    return [{**row, "extracted_by": row.get("by"), **rows.get(row["id"], {})}
            for row in (extractions[question.id] for question in questions)]


def stamp(question: Question, answer: dict) -> str:
    """A short hash of a question, its gold and an answer to it: what an extraction and a verdict belong to."""
    given = [answer.get(key) for key in ("response", "extraction", "error", "finish_reason")]
    whole = json.dumps([question.text, question.choices, question.answer, given])
    return hashlib.sha256(whole.encode()).hexdigest()[:12]


def read_step(path: Path, questions: list[Question], step: str, answers: dict[str, dict]) -> dict[str, dict]:
    """The rows that an earlier step left; UserError where it has not run for these questions and answers."""
    if not path.exists():
        raise UserError(f"{path}: not there yet; run --steps {step} first")
    rows = {row["id"]: row for row in store.read_lines(path)}
    store.check_ids(rows, questions, set(rows), str(path))
    others = [question.id for question in questions
              if rows[question.id].get("of") != stamp(question, answers[question.id])]
    if others:
        raise UserError(f"{path}: made from other answers or questions in {len(others)} of {len(questions)} rows, the "
                        f"first {others[0]}; run --steps extract,judge,report again")
    return {question.id: rows[question.id] for question in questions}


# ----------------------------------------------------------------------------------------------------------------------
# report


def report(config: Config, bench: ModuleType, questions: list[Question], missing: set[str], out: Path) -> None:
    """Write report.json, report.md, chart.png and browse.html; print the main scores. Where too many rows have failed
    for a score, these are written first, then UserError is raised.
    """
    answers = read_answers(config, out, "predictions")
    verdicts = read_step(out / "verdicts.jsonl", questions, "judge", answers)
    judged, trouble = right(verdicts), unfinished(verdicts, answers, config.predictions)
    if config.blind:
        blind_answers = read_answers(config, out, "predictions_blind")
        rows = read_step(out / "verdicts_blind.jsonl", questions, "judge", blind_answers)
        blind_judged, blind_trouble = right(rows), unfinished(rows, blind_answers, "")
        trouble = trouble or (blind_trouble and f"asked without pictures, {blind_trouble}")
    metrics, intervals, blind, most_frequent = {}, {}, None, None
    if not trouble:
        metrics, intervals = score(bench, questions, judged, config.samples)
        blind = in_order(bench.NAME, score(bench, questions, blind_judged, 0)[0]) if config.blind else None
        if config.bench == "generated":
            most_frequent = generated.most_frequent_answer([row for row in questions if row.id in judged])
    errors = [question.id for question in questions if question.id not in judged]
    settings = {} if config.predictions else store.read_settings(out / "settings.json")
    summary = {
        "bench": config.bench, "protocol": config.protocol, "n": len(judged), "unfinished": trouble,
        "metrics": in_order(bench.NAME, metrics), "intervals": intervals, "title": bench.TITLE,
        "model": config.name or config.model or config.api_model or Path(config.predictions or str(out)).name,
        "asked": len(questions), "errors": len(errors), "error_ids": errors[:100], **counts(verdicts, answers),
        "max_new_tokens": settings.get("max_new_tokens"), "missing_images": 0 if config.predictions else len(missing),
        "extracted_by": methods(verdicts, "extracted_by"),
        "judged_by": methods({key: verdicts[key] for key in judged}, "by"), "judge_model": config.judge_model,
        "blind": blind, "most_frequent": most_frequent, "samples": config.samples,
        "compared": [compared(path, config.bench) for path in config.compare.split(",") if path],
        "notes": notes(config.bench, config.protocol, bool(config.judge), questions, judged),
    }
    rows = {key: {**answers.get(key, {}), **row} for key, row in verdicts.items()}
    write_report(out, summary, questions, rows, missing)
    if trouble:
        raise UserError(f"{out}: no score: {trouble}")
    print(f"{told(summary)}\nreport: {out}/report.md")


def right(verdicts: dict[str, dict]) -> dict[str, bool]:
    """{id: whether the answer is right} of the rows that have a verdict."""
    return {key: row["correct"] for key, row in verdicts.items() if "correct" in row}


def read_answers(config: Config, out: Path, stem: str) -> dict[str, dict]:
    """The model's answers: those made elsewhere, or those that the generate step has left so far."""
    return store.read_given(config.predictions) if config.predictions else store.read_parts(out, stem)


if __name__ == "__main__":
    run_main(main)
