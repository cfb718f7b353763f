"""Rows of measurements as Markdown and CSV, and the name of the machine they come from."""

import csv
import platform
from pathlib import Path


def markdown_table(rows: list[dict[str, object]]) -> str:
    """Rows with equal keys as a Markdown table, keys as its head; underscores in keys become spaces."""
    head = list(rows[0])
    lines = ["| " + " | ".join(name.replace("_", " ") for name in head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(row[name]) for name in head) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    """Rows with equal keys as a CSV file, keys as its head."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_table(path: Path, title: str, command: str, facts: dict[str, object], rows: list[dict[str, object]]) -> None:
    """Write rows as path.csv, each beside the facts it was measured under, and as path.md below facts and command."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path.with_suffix(".csv"), [facts | row for row in rows])
    described = "; ".join(f"{name} {value}" for name, value in facts.items())
    path.with_suffix(".md").write_text(f"# {title}\n\n{described}\n\nCommand: `{command}`\n\n{markdown_table(rows)}")


def file_slug(device_name: str) -> str:
    """A device's name as part of a file's: "NVIDIA H100 80GB HBM3" -> "nvidia-h100-80gb-hbm3"."""
    return device_name.lower().replace(" ", "-")


def cpu_name() -> str:
    """The processor's name as Linux gives it, or what Python knows of it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
