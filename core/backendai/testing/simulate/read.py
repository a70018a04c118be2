"""Reading a trace whatever its format is, which its content tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from backendai.model.errors import Failure
from backendai.testing.simulate.columns import head_of
from backendai.testing.simulate.lines import is_json, read_lines
from backendai.testing.simulate.openb import is_pods, read_pods
from backendai.testing.simulate.philly import is_philly, read_philly
from backendai.testing.simulate.swf import is_swf, read_swf
from backendai.testing.simulate.trace import Trace, at

READERS: Mapping[str, Callable[[str, str], Trace]] = {"jsonl": read_lines, "openb": read_pods, "philly": read_philly, "swf": read_swf}


def read_trace(path: Path, format: str = "") -> Trace:
    """Read a file. format: a key of ``READERS``; found out when empty. Raise ``Failure('invalid-request')`` where it cannot be read."""
    text = read_text(path)
    trace = READERS[format or find_format(str(path), text)](str(path), text)
    if not trace.jobs:
        why = f" {' '.join(trace.notes)}" if trace.notes else ""
        raise Failure("invalid-request", f"{path} holds no job that could be run.{why}")
    return trace


def read_text(path: Path) -> str:
    """Return the text of a file, which may be compressed by gzip, as archives keep traces."""
    if path.suffix == ".gz":
        import gzip

        try:
            return gzip.decompress(path.read_bytes()).decode(errors="replace")
        except (gzip.BadGzipFile, EOFError):
            raise Failure("invalid-request", f"{path} is no file that gzip wrote; unpack it, or name it without .gz.") from None
    return path.read_text(errors="replace")


def find_format(name: str, text: str) -> str:
    """Return the format by the content, or raise ``Failure('invalid-request')`` that lists what is known."""
    head = head_of(text)
    for found, format in ((is_json(text), "jsonl"), (is_philly(head), "philly"), (is_pods(head), "openb"), (is_swf(text), "swf")):
        if found:
            return format
    raise at(name, 1, f"this is none of the formats {', '.join(READERS)}. A CSV begins with a line that names its columns "
                      "(timestamp,duration,num_gpus or cpu_milli,memory_mib,num_gpu), a line of SWF has 18 numbers, and one of "
                      "JSON is an object; --format says which it is.")
