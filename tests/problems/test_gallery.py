"""report.html: all families and levels, the manifest's counts, nothing from the data that a browser would run."""

import html
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from problems import gallery
from problems.pairs import LEVELS, VERSIONS
from tests.problems.command import generate, manifest, rows

FAMILIES = ["triangle_angle_sum", "rectangle", "cuboid", "line_through_points"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    generate(out, "--families", ",".join(FAMILIES), "--per_category", 40, "--bench_per_family", 2, "--seed", 7)
    return out


class Page(HTMLParser):
    """What a browser would see: tags, the pictures' addresses, the cells of each table row."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.pictures, self.rows = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.pictures.append(dict(attributes)["src"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, text):
        if self.tags and self.tags[-1] in ("td", "th") and self.rows[-1]:
            self.rows[-1][-1] += text.strip()


def report(out):
    return Path(out, "report.html").read_text(encoding="utf-8")


def sections(text):
    """{family: its part of the gallery}"""
    parts = re.split(r'<h3 id="([^"]*)">', text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_family_and_level_is_shown_with_pictures_that_exist(data):
    shown = sections(report(data))
    assert set(shown) == set(FAMILIES)
    for part in shown.values():
        held_out, training = part.split("Training problems")
        assert set(re.findall(r"class=level>([^<]+)", held_out)) == set(VERSIONS)
        assert set(re.findall(r"class=level>([^<]+)", training)) == set(LEVELS)
        assert "<b>Answer</b>" in held_out and "<pre>" in held_out
    pictures = Page(report(data)).pictures
    assert len(pictures) >= 5 * len(FAMILIES)
    assert all(os.path.isfile(os.path.join(data, source)) for source in pictures)
    assert "http" not in report(data) and "//" not in report(data)  # nothing from outside


def test_the_counts_are_the_manifests(data):
    told, shown = manifest(data), Page(report(data)).rows
    expected = [[f"{name}.jsonl", entry["rows"]] for name, entry in told["files"].items()]
    expected += map(list, told["dropped"].items())
    columns = ["stage1", "stage2", "stage3", "captions", *(f"stage2: {level}" for level in LEVELS), "bench"]
    tallies = {name: [tally.get(column, 0) for column in columns] for name, tally in told["families"].items()}
    expected += [[name, *tally] for name, tally in tallies.items()]
    expected.append(["plane_geometry", *map(sum, zip(*(tallies[name] for name in FAMILIES[:2]), strict=True))])
    for name, *numbers in expected:
        assert [name, *(f"{number:,}" for number in numbers)] in shown


def test_the_answers_are_those_of_stage_1(data):
    found = gallery.collect(data)
    for name in FAMILIES:
        mine = [row for row in rows(data, "stage1") if row["family"] == name]
        assert found[name].problems == sum(found[name].answers.values()) == len(mine)
        assert sum(found[name].letters.values()) == sum("\nA: " in row["instruction"] for row in mine)
        assert not any(answer in "ABCD" for answer in found[name].answers)  # the choice's text, not its letter
    assert sum(sum(family.letters.values()) for family in found.values()) > 5


def test_what_is_kept_does_not_grow_with_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "MOST_ANSWERS", 5)
    for name in ("stage1", "stage3", "bench"):
        lines = [json.dumps({"family": "cube", "level": "text-only", "instruction": "", "answer": str(number),
                             "problem_id": f"bench-{number}"}) for number in range(100)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    found = gallery.collect(str(tmp_path))["cube"]
    assert found.problems == 100 and len(found.answers) == 5
    assert len(found.training["text-only"]) == gallery.PER_LEVEL and len(found.held_out) == 1


def test_nothing_in_the_data_becomes_markup(tmp_path):
    evil = '<script>alert("1")</script>&\'"'
    row = {"id": evil, "family": evil, "level": "text-only", "instruction": evil, "output": evil, "answer": evil,
           "image_url": f'x" onerror="alert(1)/{evil}.png', "problem_id": evil, "version": "text-only",
           "question": evil, "choices": [evil] * 4}
    for name in ("stage1", "stage2", "stage3", "captions", "bench"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    plan = {"seed": 0, "per_category": 1, "picture_size": 400, "families": {evil: [evil]}}
    manifest = {"version": 1, "plan": plan, "files": {evil: {"rows": 1}}, "dropped": {evil: 1}, "families": {},
                "explanations": {"model": evil}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    gallery.write(str(tmp_path))
    text = report(tmp_path)
    ours = "html meta title style h1 h2 h3 h4 p table tr th td nav a div article b small img pre br"
    assert set(Page(text).tags) <= set(ours.split())
    assert "onerror=" not in text.replace(html.escape('onerror="'), "") and html.escape(evil) in text
