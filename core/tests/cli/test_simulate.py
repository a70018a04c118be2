"""``bai simulate``: on traces of its own, on the platform's history, and as its page says."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = (DOCS / "simulate.md").read_text()
BAI = str(Path(sys.executable).with_name("bai"))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with the trace of the page, and stand in it."""
    found = re.search(r"Save this as `small.jsonl`:\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    (tmp_path / "small.jsonl").write_text(found[1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", re.findall(r"^\$ bai (simulate .*)$", PAGE, re.MULTILINE))
def test_what_the_page_says_runs(bai: Any, small: Path, line: str) -> None:
    said = bai(*shlex.split(line))
    assert "small.jsonl: 4 jobs on 2 nodes with 4 cuda.device" in said.out
    assert re.search(r"jobs that ended +4", said.out)


def test_the_page_s_example_starts_when_it_says(bai: Any, small: Path) -> None:
    runs = bai("simulate", "-t", "small.jsonl", "-n", "2x2", "-c", "fifo,fifo:overtake=true", "--json").json["runs"]
    assert [run["makespan_s"] for run in runs] == [40, 37]
    assert [run["classes"]["size"]["4 to 7"]["mean_s"] for run in runs] == [9, 26]
    assert [run["scheduler"] for run in runs] == ["fifo", "fifo:overtake=true"]


def test_two_runs_of_one_seed_are_the_same(bai: Any, small: Path) -> None:
    def run() -> dict[str, Any]:
        found = bai("simulate", "-t", "small.jsonl", "-n", "2x2", "--sample", "0.8", "--seed", "5", "--json").json["runs"][0]
        return {name: value for name, value in found.items() if not name.startswith("decision")}

    assert run() == run()


def test_notes_go_to_standard_error_and_into_json(bai: Any, small: Path) -> None:
    said = bai("simulate", "-t", "small.jsonl", "-n", "1x2", "--json")
    note = "1 job asked for more than the nodes could ever hold, and was left out."
    assert said.err.strip() == note
    assert said.json["notes"] == [note]


def test_the_page_with_plots_is_written(bai: Any, small: Path) -> None:
    bai("simulate", "-t", "small.jsonl", "-n", "2x2", "--html", "out.html")
    assert Path("out.html").read_text().count("<svg") == 4


def test_a_saved_trace_runs_the_same(bai: Any, small: Path) -> None:
    first = bai("simulate", "-t", "small.jsonl", "-n", "2x2", "--save", "again.jsonl", "--json").json["runs"][0]
    second = bai("simulate", "-t", "again.jsonl", "-n", "2x2", "--json").json["runs"][0]
    assert first["waiting"] == second["waiting"] and first["lines"] == second["lines"]


@pytest.mark.parametrize(("words", "said"), [
    ((), "does not say on which nodes its jobs are to run; add --nodes 75x8"),
    (("-n", "2x2", "--first", "0"), "--first must be at least 1"),
    (("-n", "2x2", "--sample", "2"), "A sample is a share above 0"),
    (("-n", "2x2", "-o", "depth=4"), "write scheduler.NAME=VALUE"),
    (("-n", "2x2", "-s", "fifo", "-c", "fifo"), "not both"),
    (("-n", "2x2", "--limit", "often"), "--limit often: write"),
    (("-n", "2x1"), "No job of the trace could run on these nodes")])
def test_what_it_cannot_do_it_says(bai: Any, small: Path, words: tuple[str, ...], said: str) -> None:
    answer = bai("simulate", "-t", "small.jsonl", *words, code=2)
    assert said in answer.err and answer.out == ""


def test_a_plugin_that_is_not_there(bai: Any, small: Path) -> None:
    assert "scheduler_v10.ghost is not installed" in bai("simulate", "-t", "small.jsonl", "-n", "2x2", "-s", "ghost", code=66).err


def test_a_trace_that_is_not_there(bai: Any, small: Path) -> None:
    assert "gone.csv cannot be used: No such file or directory" in bai("simulate", "-t", "gone.csv", "-n", "2x2", code=2).err


def test_ctrl_c_prints_what_there_is(small: Path) -> None:
    jobs = [{"id": str(i), "submitted_at": i, "duration_s": 40, "slots": {"cpu": 1}} for i in range(20_000)]
    Path("long.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    words = [BAI, "simulate", "-t", "long.jsonl", "-n", "1x30", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        try:
            assert run.stderr is not None
            assert b"of 20,000 jobs have ended" in run.stderr.readline()  # it is at work, and will be for long
            run.send_signal(signal.SIGINT)
            out, err = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 130, err
    found = json.loads(out)["runs"][0]
    assert found["stopped"] and 0 < found["ended"] < 20_000
    assert b"Interrupted: " in err


def test_the_platform_s_own_history(here: Any, small: Path) -> None:
    here("run", "--name", "past", "-r", "cpu=0.01,mem=1m", "--", "true", code=None)
    said = here("simulate", "-t", "live", "--json")
    assert said.json["format"] == "live" and said.json["runs"][0]["ended"] >= 1
    here("rm", "past")
