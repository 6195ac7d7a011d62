# SPDX-License-Identifier: BSD-3-Clause
"""Drawing: scales, axes and text as SVG. Colours are CSS variables of style.css, so that charts follow the page's mode."""
import html
import math
import pathlib

STYLE = pathlib.Path(__file__).with_name("style.css")
SERIES = 10  # colours in style.css; --s0 is ours
CHAR = 7.2  # mean width of a character of a label, in units of the drawing


def text(x, y, words, kind="label", anchor="start", **more):
    return tag("text", html.escape(str(words)), x=x, y=y, class_=kind, text_anchor=anchor, **more)


def tag(name, inner=None, **attributes):
    """One element; class_ is class, text_anchor is text-anchor."""
    words = "".join(f' {key.rstrip("_").replace("_", "-")}="{_short(value)}"' for key, value in attributes.items() if value is not None)
    return f"<{name}{words}/>" if inner is None else f"<{name}{words}>{inner}</{name}>"


def _short(value):
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else html.escape(str(value))


def compact(value):
    """1200000: 1.2 M; for ticks and legends."""
    if abs(value) >= 1000 and (abs(value) < 10000 or float(value).is_integer() and abs(value) < 1e6):
        return f"{value:,.0f}"
    for scale, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= scale:
            return f"{value / scale:.4g}{prefix}"
    return f"{value:.3g}"


class Scale:
    """Values onto a stretch of the drawing, linear or logarithmic."""

    def __init__(self, least, most, start, end, log=False):
        if log and least <= 0:
            raise ValueError("a logarithmic scale begins above 0")
        self.log, self.start, self.end = log, start, end
        self._least, self._most = (math.log(least), math.log(most)) if log else (least, most)
        if self._least == self._most:
            self._least, self._most = self._least - 0.5, self._most + 0.5

    def __call__(self, value):
        value = math.log(max(value, 1e-300)) if self.log else value
        return self.start + (value - self._least) / (self._most - self._least) * (self.end - self.start)


def nice_top(most):
    """The next round number, and the step between ticks."""
    if most <= 0:
        return 1.0, 0.25
    power = 10 ** math.floor(math.log10(most))
    step = next(power * part for part in (0.1, 0.2, 0.25, 0.5, 1, 2) if most / (power * part) <= 5)
    return step * math.ceil(most / step - 1e-9), step


def ticks(top, step):
    return [step * number for number in range(int(round(top / step)) + 1)]


def decades(least, most):
    """Ticks of a logarithmic axis: 1, 2, 5 of each decade where that is few, else the decades."""
    exponents = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    fine = [part * 10.0 ** exponent for exponent in exponents for part in (1, 2, 5)]
    inside = [value for value in fine if least * 0.999 <= value <= most * 1.001]
    return inside if len(inside) <= 8 else [10.0 ** exponent for exponent in exponents if least * 0.999 <= 10.0 ** exponent <= most * 1.001]


def apart(places, gap):
    """Which of rising or falling places may carry a label without touching the one before."""
    kept, last = [], None
    for place in places:
        kept.append(last is None or abs(place - last) >= gap)
        if kept[-1]:
            last = place
    return kept


def legend(names, x, y, width):
    """Swatches with names, in rows; (elements, height)."""
    parts, left, row = [], x, 0
    for idx, name in enumerate(names):
        room = 22 + CHAR * len(name) + 14
        if left > x and left + room > x + width:
            left, row = x, row + 1
        top = y + row * 18
        parts.append(tag("rect", x=left, y=top - 9, width=12, height=10, rx=2, class_=f"fill s{idx % SERIES}"))
        parts.append(text(left + 18, top, name))
        left += room
    return parts, 18 * (row + 1)


def drawing(width, height, parts, alone=False, label=""):
    """The element <svg>; alone: a file of its own, with its style in it."""
    style = f"<style>{STYLE.read_text()}</style>" if alone else ""
    ground = tag("rect", width=width, height=height, class_="ground") if alone else ""
    return tag("svg", style + ground + "".join(parts), xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {height}",
               role="img", aria_label=label, class_="chart", width=width if alone else None, height=height if alone else None)
