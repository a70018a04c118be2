"""Plots as SVG, drawn by hand: lines over time and bars by class. Colours are variables of the page, so that it can be light or dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 42  # margins for the axes' numbers
TICKS = 5
Shown = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Series:
    """One line. steps: each value holds until the next."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    steps: bool = True


@dataclass(frozen=True, slots=True)
class Axis:
    """From *low* to *high*. log: by powers of ten. shown: how a number is written."""

    title: str
    low: float
    high: float
    shown: Shown
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, 0 to 1."""
        if self.log:
            value, low, high = (math.log10(max(v, self.low)) for v in (value, self.low, self.high))
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.0

    def ticks(self) -> list[float]:
        """Return round numbers along it."""
        if self.log:
            return [10.0**power for power in range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)]
        step = _round((self.high - self.low) / TICKS)
        first = math.ceil(self.low / step)
        return [step * i for i in range(first, int(self.high / step + 1e-9) + 1)]


def _round(step: float) -> float:
    """Return the next of 1, 2, 5, 10, ... that is not below *step*."""
    if step <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1 - 1e-9))


def lines(title: str, series: Sequence[Series], x: Axis, y: Axis) -> str:
    """Draw lines."""
    body = [_frame(x, y)]
    for number, one in enumerate(series):
        points = [(_x(x, a), _y(y, b)) for a, b in zip(one.x, one.y, strict=True)]
        body.append(f'<path class="line s{number % 6}" d="{_path(points, one.steps)}"><title>{escape(one.name)}</title></path>')
    return _svg(title, "".join(body), HEIGHT)


def bars(title: str, groups: Sequence[str], series: Sequence[Series], y: Axis) -> str:
    """Draw a group of bars for each class, one bar for each run; heights are ``Series.y`` by group, NaN for none."""
    body = [_frame(None, y)]
    room = (WIDTH - LEFT - RIGHT) / max(1, len(groups))
    thick = room * 0.8 / max(1, len(series))
    for i, group in enumerate(groups):
        begin = LEFT + room * i + room * 0.1
        body.append(f'<text class="tick" text-anchor="middle" x="{begin + room * 0.4:.1f}" y="{HEIGHT - BOTTOM + 16}">'
                    f"{escape(group)}</text>")
        for number, one in enumerate(series):
            value = one.y[i]
            if not math.isnan(value):
                top = _y(y, value)
                body.append(f'<rect class="bar s{number % 6}" x="{begin + thick * number:.1f}" y="{top:.1f}" width="{thick:.1f}" '
                            f'height="{HEIGHT - BOTTOM - top:.1f}"><title>{escape(one.name)}, {escape(group)}: {escape(y.shown(value))}'
                            "</title></rect>")
    return _svg(title, "".join(body), HEIGHT)


def legend(names: Sequence[str]) -> str:
    """Return the colours and what they stand for, as HTML."""
    return '<p class="legend">' + " ".join(f'<span><i class="s{i % 6}"></i>{escape(name)}</span>' for i, name in enumerate(names)) + "</p>"


def _svg(title: str, body: str, height: int) -> str:
    return (f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {height}" role="img" '
            f'aria-label="{escape(title)}">{body}</svg></figure>')


def _frame(x: Axis | None, y: Axis) -> str:
    """Return the grid, the numbers and the titles of the axes."""
    parts = []
    for tick in y.ticks():
        at = _y(y, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
                     f'<text class="tick" text-anchor="end" x="{LEFT - 6}" y="{at + 4:.1f}">{escape(y.shown(tick))}</text>')
    for tick in x.ticks() if x is not None else ():
        across = _x(x, tick) if x is not None else 0.0
        parts.append(f'<text class="tick" text-anchor="middle" x="{across:.1f}" y="{HEIGHT - BOTTOM + 16}">'
                     f"{escape(x.shown(tick)) if x is not None else ''}</text>")
    title = x.title if x is not None else ""
    parts.append(f'<text class="name" text-anchor="middle" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}">{escape(title)}</text>'
                 f'<text class="name" text-anchor="middle" transform="translate(12 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">'
                 f"{escape(y.title)}</text>")
    return "".join(parts)


def _path(points: Sequence[tuple[float, float]], steps: bool) -> str:
    out, before = [], 0.0
    for number, (across, down) in enumerate(points):
        if number and steps:
            out.append(f"L{across:.1f} {before:.1f}")
        out.append(f"{'L' if number else 'M'}{across:.1f} {down:.1f}")
        before = down
    return "".join(out)


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)
