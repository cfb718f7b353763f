"""gen_data.py in this process, as the command line calls it, and what it has written."""

import hashlib
import json
import sys
from pathlib import Path
from unittest import mock

import gen_data


def generate(out, *flags):
    """Run the command; raises UserError where it would print that and end."""
    with mock.patch.object(sys, "argv", ["gen_data.py", "--out_dir", str(out), *map(str, flags)]):
        gen_data.main()


def rows(out, name):
    """The rows of one of its files."""
    with open(Path(out, f"{name}.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def manifest(out):
    """What its manifest says."""
    return json.loads(Path(out, "manifest.json").read_text(encoding="utf-8"))


def digest(out):
    """{relative path: hash} of all files of a folder."""
    files = [path for path in Path(out).rglob("*") if path.is_file()]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
