"""Add the questions of benchmark files to benchmarks.txt, as hashes. Which benchmark a file is, its keys say.

    python -m augment.benchmarks testmini.json test.jsonl
"""

import argparse
from pathlib import Path

import benchmarks
from augment.containers import rows
from common.files import write_atomically
from errors import UserError, run_main
from sources import BENCHMARK_KEYS, BadRow

FILE = Path(benchmarks.__file__).with_name("benchmarks.txt")
KEYS = (*BENCHMARK_KEYS, ("MATH-Vision", {"question", "options", "level", "subject"}))


def add(known: dict[int, str], row: dict | BadRow) -> None:
    """Add a row's question to the hashes that are known. Raises BadRow for a row of no benchmark."""
    if isinstance(row, BadRow):
        raise row
    name = next((name for name, keys in KEYS if keys <= row.keys()), None)
    if name is None or not isinstance(row.get("question"), str):
        raise BadRow("not a benchmark", "its keys are not those of a benchmark", f"one of {[name for name, _ in KEYS]}")
    if (hashed := benchmarks.question_hash(row["question"])) is not None:
        known.setdefault(hashed, name)


def main() -> None:
    """Read the files, add what is new, say how many questions of each benchmark are known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE", help="question files as their makers publish them")
    known = dict(benchmarks.known()) if FILE.is_file() else {}
    for path in parser.parse_args().files:
        for number, row in rows(path):
            try:
                add(known, row)
            except BadRow as bad:
                raise UserError(f"{path}:{number}: {bad.detail}; {bad.remedy}") from None
    lines = []
    for name in sorted(set(known.values())):
        hashes = sorted(hashed for hashed, owner in known.items() if owner == name)
        lines += [f"# {name}: {len(hashes)} questions", *(f"{hashed:016x}" for hashed in hashes)]
        print(lines[-len(hashes) - 1][2:])
    write_atomically(FILE, "\n".join([*lines, ""]))


if __name__ == "__main__":
    run_main(main, resumes=False)
