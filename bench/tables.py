"""What the programs here share: their command line, the facts a measurement belongs to, and the table they write.

Free of torch until `facts` is asked.
"""

import argparse
import csv
import datetime
import importlib.metadata
import io
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from common.files import num_cores, write_atomically


def argument_parser(description: str | None, out_dir: bool = True) -> argparse.ArgumentParser:
    """The parser of the program that runs, with --out_dir."""
    parser = argparse.ArgumentParser(f"python -m bench.{Path(sys.argv[0]).stem}", description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    if out_dir:
        parser.add_argument("--out_dir", type=Path, default=Path("bench"), help="folder of the CSV file and the table")
    return parser


def command() -> str:
    """The command line that this program was started with."""
    threads = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} " if "OMP_NUM_THREADS" in os.environ else ""
    return threads + shlex.join(["python", "-m", f"bench.{Path(sys.argv[0]).stem}", *sys.argv[1:]])


def facts(device: str, *packages: str) -> dict[str, object]:
    """What a measurement belongs to: the device ("cuda" or "cpu"), versions of torch and of packages, commit, date."""
    import torch

    from runtime import git_commit

    if device == "cuda":
        hardware = {"device": torch.cuda.get_device_name(), "driver": driver_version()}
    else:
        hardware = {"device": f"{num_cores()} core(s) of {cpu_name()}", "threads": torch.get_num_threads()}
    versions = {package: package_version(package) for package in ("torch", *packages)}
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    return {**hardware, "python": platform.python_version(), **versions, "commit": git_commit(), "date": date}


def package_version(package: str) -> str:
    """Version of an installed package, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def cpu_name() -> str:
    """The processor's name as Linux gives it, or what Python knows of it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def driver_version() -> str:
    """Version of the NVIDIA driver, from nvidia-smi; "unknown" where that cannot be run."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError):
        return "unknown (no nvidia-smi)"


def file_slug(device_name: str) -> str:
    """A device's name as part of a file's: "NVIDIA H100 80GB HBM3" -> "nvidia-h100-80gb-hbm3"."""
    return device_name.lower().replace(" ", "-")


def markdown_table(rows: list[dict[str, object]]) -> str:
    """Rows with equal keys as a Markdown table, keys as its head; underscores in keys become spaces."""
    head = list(rows[0])
    lines = ["| " + " | ".join(name.replace("_", " ") for name in head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(row[name]) for name in head) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write_table(path: Path, title: str, facts: dict[str, object], rows: list[dict[str, object]], note: str = "") -> str:
    """Write rows (equal keys) as PATH.csv, each behind the facts it was measured under, and as PATH.md below the facts
    and the command, above the note. Returns the text of PATH.md."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, fieldnames=list(facts | rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(facts | row for row in rows)
    write_atomically(f"{path}.csv", file.getvalue())
    described = "; ".join(f"{name} {value}" for name, value in facts.items())
    text = f"# {title}\n\n{described}\n\nCommand: `{command()}`\n\n{markdown_table(rows)}"
    text += f"\n{note}\n" if note else ""
    write_atomically(f"{path}.md", text)
    return text
