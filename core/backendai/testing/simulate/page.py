"""The results as one page of HTML that needs nothing else: figures, plots, and waiting by class."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from backendai.testing.simulate.measure import Result
from backendai.testing.simulate.plots import Axis, Series, bars, legend, lines
from backendai.testing.simulate.table import classes, count, figures, name_of, percent, seconds

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #667; --grid: #dde; --paper: #fff;
  --c0: #1f6feb; --c1: #d1570a; --c2: #1a7f37; --c3: #8250df; --c4: #bf3989; --c5: #6e7781; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa4af; --grid: #30363d; --paper: #0d1117;
  --c0: #58a6ff; --c1: #f0883e; --c2: #3fb950; --c3: #bc8cff; --c4: #f778ba; --c5: #8b949e; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
td, th { padding: .2rem .8rem .2rem 0; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; font-weight: normal; }
td:first-child, th:first-child { text-align: left; } th, figcaption, .note { color: var(--soft); }
figure { margin: 1.5rem 0 0; } svg { width: 100%; height: auto; }
.grid { stroke: var(--grid); } .tick, .name { fill: var(--soft); font-size: 11px; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.line.s0 { stroke: var(--c0); } .line.s1 { stroke: var(--c1); } .line.s2 { stroke: var(--c2); }
.line.s3 { stroke: var(--c3); } .line.s4 { stroke: var(--c4); } .line.s5 { stroke: var(--c5); }
.bar.s0 { fill: var(--c0); } .bar.s1 { fill: var(--c1); } .bar.s2 { fill: var(--c2); }
.bar.s3 { fill: var(--c3); } .bar.s4 { fill: var(--c4); } .bar.s5 { fill: var(--c5); }
.legend span { margin-right: 1.2rem; } .legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .4rem;
  border-radius: 2px; }
i.s0 { background: var(--c0); } i.s1 { background: var(--c1); } i.s2 { background: var(--c2); }
i.s3 { background: var(--c3); } i.s4 { background: var(--c4); } i.s5 { background: var(--c5); }
"""
LEAST_WAIT_S = 1.0  # where an axis of powers of ten begins


def page(title: str, results: Sequence[Result], notes: Sequence[str]) -> str:
    """Return the whole page."""
    names = [name_of(result) for result in results]
    parts = [f"<h1>{escape(title)}</h1>", *(f'<p class="note">{escape(note)}</p>' for note in notes), legend(names),
             _over_time(results), _curve(results), _by_class(results, "size"), "<h2>Figures</h2>", _table(*figures(results))]
    for what in ("size", "user", "priority"):
        parts += [f"<h2>Waiting by {what}</h2>", _table(*classes(results, what))]
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>{''.join(parts)}</body></html>\n")


def _over_time(results: Sequence[Result]) -> str:
    """Draw what is in use and how many wait, by days or hours."""
    most = max((at for result in results for at in result.lines["utilisation"].at), default=1.0)
    unit, step = ("days", 24.0) if most > 72 else ("hours", 1.0)
    along = Axis(f"{unit} since the first job", 0, max(most / step, 1e-9), lambda value: f"{value:g}")
    drawn = {what: [Series(name_of(r), [at / step for at in r.lines[what].at], r.lines[what].values) for r in results]
             for what in ("utilisation", "waiting")}
    longest = max((value for one in drawn["waiting"] for value in one.y), default=1.0)
    return (lines(f"In use of {results[0].unit}", drawn["utilisation"], along, Axis("in use", 0, 1, lambda value: f"{value * 100:.0f} %"))
            + lines("Jobs that wait", drawn["waiting"], along, Axis("jobs", 0, max(longest, 1.0), count)))


def _curve(results: Sequence[Result]) -> str:
    """Draw which share of the jobs waited no longer than so long."""
    most = max((at * 3600 for result in results for at in result.curve.at), default=1.0)
    along = Axis("waiting", LEAST_WAIT_S, max(most, 10 * LEAST_WAIT_S), seconds, log=True)
    series = [Series(name_of(r), [at * 3600 for at in r.curve.at], r.curve.values, steps=False) for r in results]
    return lines("Jobs that waited no longer", series, along, Axis("share of jobs", 0, 1, percent))


def _by_class(results: Sequence[Result], what: str) -> str:
    """Draw the mean waiting of each class."""
    names = list(dict.fromkeys(name for result in results for name in result.classes[what]))
    series = [Series(name_of(r), [], [r.classes[what][n].mean_s if n in r.classes[what] else float("nan") for n in names]) for r in results]
    most = max((value for one in series for value in one.y if value == value), default=1.0)
    hours = Axis("hours", 0, max(most / 3600, 1e-3), lambda value: f"{value:g}")
    scaled = [Series(one.name, [], [value / 3600 for value in one.y]) for one in series]
    return bars(f"Mean waiting in hours by {what}, in {results[0].unit}", names, scaled, hours)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
