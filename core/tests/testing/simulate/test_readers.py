"""Readers of traces: what each format says, what they forgive, and what they say of what they cannot read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from backendai.model.errors import Failure
from backendai.testing.simulate.lines import read_lines, write_lines
from backendai.testing.simulate.nodes import nodes_from, read_file
from backendai.testing.simulate.openb import NEVER, each_pod, read_nodes, read_pods
from backendai.testing.simulate.philly import read_philly
from backendai.testing.simulate.read import find_format, read_trace
from backendai.testing.simulate.swf import read_swf
from backendai.testing.simulate.trace import Tally

GIB = 1 << 30
PHILLY = """timestamp,duration,num_gpus,gpu_time,cluster
2017-10-09 07:01:55,66.0,1,66.0,11cb48
2017-10-09 07:00:00,100.0,16,1600.0,6214e9
2017-10-09 07:00:10,5.0,0,0,6214e9
"""
PODS = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
p0,12000,1024,1,1000,,LS,Running,0,100,10
p1,6000,2048,1,460,V100M32|P100,BE,Running,5,50,5
p2,0,1024,0,0,,BE,Pending,7,80,
p3,1000,1024,2,500,,BE,Running,8,9,8
"""
NODES = "sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,2,P100\nn1,96000,393216,0,\n"
SWF = """; Version: 2.2
; MaxNodes: 4
; MaxProcs: 8 (and two for logging in)
; UnixStartTime: 0
  1   10  3 100  4 -1 -1  4 200 1024  1  7  2 -1 1 -1 -1 -1
  2   12 -1   0 -1 -1 -1  2  -1   -1  1  8 -1 -1 1 -1 -1 -1
  3   13 -1  -1  4 -1 -1  4  60   -1  5  8 -1 -1 1 -1 -1 -1
  4   14 -1  30  2 -1 -1 -1  60   -1  1 -1 -1 -1 1 -1 -1 -1
"""
LINES = """{"id": "a", "user": "kim", "submitted_at": 5, "duration_s": 60, "slots": {"cpu": 0.5, "cuda.device": 2}, "kernels": 3}
{"id": "b", "owner": "lee", "created_at": "1970-01-01T00:00:01Z", "started_at": 3, "ended_at": 10, "slots": {"mem": "1g"}}
{"id": "c", "owner": "lee", "created_at": 2, "started_at": null, "ended_at": 9, "slots": {"cpu": 1}}
"""


def test_philly_is_read_in_the_order_of_submission() -> None:
    trace = read_philly("t.csv", PHILLY)
    assert [(job.user, job.duration_s, job.kernels) for job in trace.jobs] == [
        ("6214e9", 100.0, ({"cuda.device": 16000},)), ("11cb48", 66.0, ({"cuda.device": 1000},))]
    assert trace.jobs[1].submitted_at - trace.jobs[0].submitted_at == 115
    assert trace.notes == ("1 job has no accelerators or a negative duration, and was left out.",)


def test_philly_takes_seconds_and_does_without_clusters() -> None:
    trace = read_philly("t.csv", "num_gpus,duration,timestamp\n2,0,17\n")
    assert [(job.submitted_at, job.duration_s, job.user) for job in trace.jobs] == [(17.0, 0.0, "all")]


def test_openb_s_shares_are_parts_of_one_device_or_whole_ones() -> None:
    trace = read_pods("t.csv", PODS)
    assert [(job.id, job.duration_s, job.kernels[0]) for job in trace.jobs] == [
        ("p0", 90.0, {"cpu": 12000, "mem": GIB, "cuda.shares": 1000}), ("p1", 45.0, {"cpu": 6000, "mem": 2 * GIB, "cuda.shares": 460}),
        ("p3", 1.0, {"cpu": 1000, "mem": GIB, "cuda.shares": 2000})]
    assert trace.jobs[1].models == ("P100", "V100M32")
    assert len(trace.notes) == 2 and "1 job never ran" in trace.notes[0] and "gets whole ones" in trace.notes[1]


def test_a_pod_that_never_ran_is_kept_where_packing_alone_matters() -> None:
    assert [pod.duration_s for pod in each_pod("t.csv", PODS, Tally())] == [90.0, 45.0, NEVER, 1.0]


def test_openb_s_nodes() -> None:
    first, second = read_nodes("n.csv", NODES)
    assert (first.name, first.model, first.slots, first.devices) == (
        "n0", "P100", {"cpu": 64000, "mem": 256 * GIB, "cuda.shares": 2000}, {"cuda.shares": 2})
    assert (second.slots, second.devices) == ({"cpu": 96000, "mem": 384 * GIB}, {})


def test_swf_knows_minus_one_and_its_head_names_the_machine() -> None:
    trace = read_swf("t.swf", SWF)
    assert [(job.id, job.user, job.project, job.duration_s, job.limit_s, job.kernels) for job in trace.jobs] == [
        ("job-1", "user-7", "group-2", 100.0, 200.0, ({"cpu": 4000, "mem": 4 << 20},)),
        ("job-2", "user-8", "", 0.0, None, ({"cpu": 2000},)),
        ("job-4", "unknown", "", 30.0, 60.0, ({"cpu": 2000},))]
    assert [(kind.count, kind.slots) for kind in trace.nodes] == [(4, {"cpu": 2000})]
    assert trace.notes == ("1 job never ran, or had no processors, and was left out.",)


def test_swf_with_few_columns_and_no_number_of_nodes() -> None:
    trace = read_swf("t.swf", "; MaxProcs: 8\n1 0 -1 5 2\n")
    assert trace.jobs[0].kernels == ({"cpu": 2000},)
    assert [(kind.count, kind.slots) for kind in trace.nodes] == [(1, {"cpu": 8000})]
    assert "taken as one node" in trace.notes[0]


def test_swf_s_nodes_of_one_processor_are_one_machine() -> None:
    trace = read_swf("t.swf", "; MaxProcs: 8\n; MaxNodes: 8\n1 0 -1 5 2\n")
    assert [(kind.count, kind.slots) for kind in trace.nodes] == [(1, {"cpu": 8000})]


def test_lines_take_jobs_and_sessions() -> None:
    trace = read_lines("t.jsonl", LINES)
    assert [(job.id, job.user, job.submitted_at, job.duration_s, job.kernels) for job in trace.jobs] == [
        ("b", "lee", 1.0, 7.0, ({"mem": GIB},)), ("a", "kim", 5.0, 60.0, ({"cpu": 500, "cuda.device": 2000},) * 3)]
    assert trace.unit == "cuda.device"
    assert trace.notes == ("1 job never ran, or has not ended, and was left out.",)


def test_what_bai_ps_prints_is_a_trace() -> None:
    printed = json.dumps({"items": [json.loads(line) for line in LINES.splitlines()], "next": None}, indent=2)
    assert read_lines("t.json", printed) == read_lines("t.jsonl", LINES)


def test_a_cluster_s_containers_count_each_with_its_own_slots() -> None:
    kernels = [{"name": "main1", "slots": {"cpu": 1}}, {"name": "worker1", "slots": {"cpu": 2}}]
    trace = read_lines("t", json.dumps({"submitted_at": 0, "duration_s": 1, "slots": {"cpu": 1}, "kernels": kernels}))
    assert trace.jobs[0].kernels == ({"cpu": 1000}, {"cpu": 2000})


def test_what_is_written_reads_the_same() -> None:
    for trace in (read_lines("t", LINES), read_pods("t", PODS), read_swf("t", SWF), read_philly("t", PHILLY)):
        assert read_lines("t", write_lines(trace)).jobs == trace.jobs


@pytest.mark.parametrize(("text", "format"), [(PHILLY, "philly"), (PODS, "openb"), (SWF, "swf"), (LINES, "jsonl"),
                                              ('{"items": []}', "jsonl"), ("\ufeff" + PHILLY, "philly")])
def test_the_format_is_told_by_the_content(text: str, format: str) -> None:
    assert find_format("t", text) == format


def test_a_packed_trace_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "t.swf.gz"
    path.write_bytes(gzip.compress(SWF.encode()))
    assert len(read_trace(path).jobs) == 3
    path.write_bytes(b"no such thing")
    with pytest.raises(Failure, match=r"no file that gzip wrote"):
        read_trace(path)


@pytest.mark.parametrize(("text", "format", "said"), [
    ("a,b\n1,2\n", "philly", r"t:1: there is no column timestamp, duration, num_gpus; .* at least timestamp,duration,num_gpus"),
    (PHILLY.replace("66.0,1,", "66.0,x,"), "philly", r"t:2: num_gpus is 'x'; write a number"),
    (PHILLY.replace("66.0,1,", "66.0,,"), "philly", r"t:2: num_gpus is empty; write a number"),
    (PHILLY.replace("66.0,1,", "66.0,1.5,"), "philly", r"t:2: num_gpus is '1.5'"),
    (PHILLY.replace("07:01:55", "seven"), "philly", r"t:2: timestamp is '2017-10-09 seven'; write 2017-10-09 07:01:55 or seconds"),
    (PODS.replace("6000,2048", "6000,nan"), "openb", r"t:3: memory_mib is 'nan'"),
    ("1 0 -1\n", "swf", r"t:1: it has 3 columns; write 18 of them, -1 for what is not known"),
    (SWF.replace("  12 -1", "  12 ??"), "swf", r"t:6: wait time is '\?\?'; write a number"),
    ("{}\n{", "jsonl", r"t:1: submitted_at is missing; write seconds, as in \{"),
    ('{"submitted_at": 0}', "jsonl", r"t:1: duration_s is missing"),
    (LINES + "{", "jsonl", r"t:4: it is no JSON"),
    (LINES + "7\n", "jsonl", r"t:4: it is no object"),
    ('{"submitted_at": "noon", "duration_s": 1}', "jsonl", r"t:1: submitted_at is 'noon'; write seconds or"),
    ('{"submitted_at": 0, "duration_s": "x"}', "jsonl", r"t:1: duration_s is 'x'; write a number"),
    ('{"submitted_at": 0, "duration_s": 1, "slots": {"cpu": "two"}}', "jsonl", r"t:1: cpu=two is not an amount"),
    ('{"submitted_at": 0, "duration_s": 1, "slots": 4}', "jsonl", r"t:1: slots must be an object"),
    ("nothing\n", "", r"t:1: this is none of the formats jsonl, openb, philly, swf"),
])
def test_errors_say_where_and_what_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, format: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t").write_text(text)
    with pytest.raises(Failure, match=said):
        read_trace(Path("t"), format)


def test_a_trace_without_jobs_is_none(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("timestamp,duration,num_gpus\n0,1,0\n")
    with pytest.raises(Failure, match=r"holds no job that could be run\. 1 job has no accelerators"):
        read_trace(tmp_path / "t.csv")


def test_nodes_are_written_in_a_word_or_read_from_a_file(tmp_path: Path) -> None:
    assert [(kind.count, kind.slots) for kind in nodes_from("75x8+2xcpu=4,mem=1g", "cuda.device")] == [
        (75, {"cuda.device": 8000}), (2, {"cpu": 4000, "mem": GIB})]
    assert nodes_from("3x2", "cuda.shares")[0].devices == {"cuda.shares": 2}
    (tmp_path / "nodes.csv").write_text(NODES)
    assert len(nodes_from(str(tmp_path / "nodes.csv"), "cpu")) == 2
    agents = {"items": [{"name": "n1", "capacity": {"cpu": 4, "mem": GIB}}, {"name": "n2", "capacity": {"cpu": 2}}]}
    assert [(kind.name, kind.slots["cpu"]) for kind in read_file("f", json.dumps(agents))] == [("n1", 4000), ("n2", 2000)]


@pytest.mark.parametrize(("text", "said"), [
    ("nowhere.csv", "no such file; name one, or write COUNTxSIZE such as 75x8"), ("0x8", "write COUNTxSIZE"), ("4x", "no such file"),
    ("4x8+x", "write COUNTxSIZE"), ("4xcpu=few", "cpu=few is not an amount")])
def test_nodes_that_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(Failure, match=said):
        nodes_from(text, "cuda.device")


@pytest.mark.parametrize(("text", "said"), [("a,b\n", "f:1: these are no nodes"), ('{"count": 3}', "f:1: slots is missing"),
                                            ('{"count": "x", "slots": {"cpu": 1}}', "f:1: count is 'x'")])
def test_files_of_nodes_that_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(Failure, match=said):
        read_file("f", text)
