# SPDX-License-Identifier: BSD-3-Clause
"""The charts that a scenario asks for (its CHARTS), drawn from its result.

A chart is a dict: kind, title, measure; where: labels that a figure must have; and for
  lines        x: a label with numbers; series: label or labels of a line each
  bars         by: label or labels of a bar each; ours: how the first of them begins where it is Fanwire's, which comes first; groups: label of a group each
  stacked      x: label of a bar each; stack: label of its parts, from the bottom up
  percentiles  series: label or labels of a line each; of the distributions of that name
"""
import math

from . import results, svg

WIDTH = 720
LEFT, RIGHT, TOP = 64, 20, 34


def _names(labels):
    return (labels,) if isinstance(labels, str) else tuple(labels or ())


def _series_name(labels, names):
    """fan-out 3, users 1 M; a label that says what it is by itself stands alone."""
    values = [(name, labels[name]) for name in names if name in labels]
    return ", ".join(f"{results.word(name)} {svg.compact(value)}" if isinstance(value, (int, float)) else results.word(str(value))
                     for name, value in values)


def _where(result, chart, kind="measures"):
    wanted = chart.get("where", {})
    return [one for one in result.get(kind, []) if one["name"] == chart["measure"]
            and all(one["labels"].get(name) in (value if isinstance(value, (list, tuple)) else (value,)) for name, value in wanted.items())]


def _frame(title, names, height):
    """Title and legend; (elements, where the plot begins)."""
    parts = [svg.text(0, 18, title, "title")]
    if not names:
        return parts, TOP + 6
    keys, room = svg.legend(names, 0, TOP + 8, WIDTH)
    return parts + keys, TOP + room + 6


def _y_axis(scale, values, unit, left=LEFT):
    parts = []
    for value in values:
        y = scale(value)
        parts.append(svg.tag("line", x1=left, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(svg.text(left - 8, y + 4, svg.compact(value), "soft", "end"))
    parts.append(svg.text(0, scale.end - 14, unit, "soft"))
    return parts


def lines(result, chart):
    figures = _where(result, chart)
    names = _names(chart.get("series"))
    groups = {}
    for figure in figures:
        groups.setdefault(_series_name(figure["labels"], names), []).append(figure)
    if not any(len(group) > 1 for group in groups.values()):
        return None
    parts, top = _frame(chart["title"], list(groups) if names else [], 340)
    top, bottom = top + 24, top + 284
    xs = sorted({figure["labels"][chart["x"]] for figure in figures})
    x = svg.Scale(xs[0], xs[-1], LEFT + 16, WIDTH - RIGHT - 16, log=xs[0] > 0)
    most, step = svg.nice_top(max(figure["most"] for figure in figures))
    y = svg.Scale(0, most, bottom, top)
    parts += _y_axis(y, svg.ticks(most, step), figures[0]["unit"])
    for value, shown in zip(xs, svg.apart([x(value) for value in xs], 44)):
        parts.append(svg.tag("line", x1=x(value), x2=x(value), y1=bottom, y2=bottom + 4, class_="axis"))
        if shown:
            parts.append(svg.text(x(value), bottom + 18, svg.compact(value), "soft", "middle"))
    parts.append(svg.text((LEFT + WIDTH) / 2, bottom + 36, chart.get("x_title", results.word(chart["x"])), "soft", "middle"))
    for idx, group in enumerate(groups.values()):
        parts += _line(group, chart["x"], x, y, idx % svg.SERIES)
    return svg_parts(parts, bottom + 46, chart)


def _line(group, label, x, y, idx):
    group = sorted(group, key=lambda figure: figure["labels"][label])
    points = [(x(figure["labels"][label]), y(figure["median"])) for figure in group]
    parts = [svg.tag("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in points), class_=f"line stroke s{idx}")]
    for figure, (left, top) in zip(group, points):
        parts.append(svg.tag("line", x1=left, x2=left, y1=y(figure["least"]), y2=y(figure["most"]), class_=f"span stroke s{idx}"))
        parts.append(svg.tag("circle", svg.tag("title", _told(figure)), cx=left, cy=top, r=3.5, class_=f"fill s{idx}"))
    return parts


def _told(figure):
    return svg.html.escape(results.line(figure))


def bars(result, chart):
    """Horizontal bars; a group's bars stand together below its name."""
    figures = _where(result, chart)
    if not figures:
        return None
    by, group_label = _names(chart["by"]), chart.get("groups")
    groups = {}
    for figure in figures:
        groups.setdefault(figure["labels"].get(group_label), []).append(figure)
    parts, top = _frame(chart["title"], [], 0)
    right = WIDTH - 16 - svg.CHAR * max(len(results.amount(figure["median"], figure["unit"])) for figure in figures)
    left = min(30 + svg.CHAR * max(len(_series_name(figure["labels"], by)) for figure in figures), 300)
    log = chart.get("log", False)
    least = min((figure["median"] for figure in figures if figure["median"] > 0), default=0)
    log = log and least > 0
    x = svg.Scale(least / 3 if log else 0, max(figure["most"] for figure in figures), left, right, log=log)
    kinds = []
    for group, members in groups.items():
        if group_label and group is not None:
            parts.append(svg.text(0, top + 14, _series_name({group_label: group}, [group_label]), "soft"))
            top += 22
        for figure in sorted(members, key=lambda figure: not _is_ours(figure, chart, by)):
            name = _series_name(figure["labels"], by)
            if name not in kinds:
                kinds.append(name)
            parts += _bar(figure, name, x, top, _colour(figure, chart, by, kinds.index(name)))
            top += 26
        top += 8
    return svg_parts(parts, top + 2, chart)


def _is_ours(figure, chart, by):
    return "ours" in chart and str(figure["labels"].get(by[0])).startswith(chart["ours"])


def _colour(figure, chart, by, idx):
    if "ours" not in chart:
        return f"s{idx % svg.SERIES}"
    return "s0" if _is_ours(figure, chart, by) else "peer"


def _bar(figure, name, x, top, colour):
    middle = top + 10
    parts = [
        svg.text(x.start - 10, middle + 4, name, "label", "end"),
        svg.tag("rect", svg.tag("title", _told(figure)), x=x.start, y=top, width=max(x(figure["median"]) - x.start, 1.0), height=20,
                rx=3, class_=f"fill {colour}"),
        svg.text(max(x(figure["most"]), x(figure["median"])) + 8, middle + 4, results.amount(figure["median"], figure["unit"]), "value"),
    ]
    if figure["most"] > figure["least"]:
        parts.append(svg.tag("line", x1=max(x(figure["least"]), x.start), x2=x(figure["most"]), y1=middle, y2=middle, class_="axis"))
    return parts


def stacked(result, chart):
    figures = _where(result, chart)
    if not figures:
        return None
    stages, columns = [], {}
    for figure in figures:
        stage, column = figure["labels"][chart["stack"]], figure["labels"][chart["x"]]
        if stage not in stages:
            stages.append(stage)
        columns.setdefault(column, {})[stage] = figure
    parts, top = _frame(chart["title"], list(map(str, stages)), 0)
    top, bottom = top + 24, top + 284
    most, step = svg.nice_top(max(sum(one["median"] for one in column.values()) for column in columns.values()))
    y = svg.Scale(0, most, bottom, top)
    parts += _y_axis(y, svg.ticks(most, step), figures[0]["unit"])
    room = (WIDTH - LEFT - RIGHT) / len(columns)
    for number, (name, column) in enumerate(sorted(columns.items())):
        left, at = LEFT + room * number + room / 2 - min(room * 0.3, 45), 0.0
        width = min(room * 0.6, 90)
        for stage in (stage for stage in stages if stage in column):
            figure = column[stage]
            upper, lower = y(at + figure["median"]), y(at)
            parts.append(svg.tag("rect", svg.tag("title", _told(figure)), x=left, y=upper, width=width, height=max(lower - upper, 0.0),
                                 class_=f"fill s{stages.index(stage) % svg.SERIES}"))
            at += figure["median"]
        parts.append(svg.text(left + width / 2, y(at) - 6, svg.compact(at), "value", "middle"))
        parts.append(svg.text(left + width / 2, bottom + 18, svg.compact(name) if isinstance(name, (int, float)) else name, "soft", "middle"))
    parts.append(svg.text((LEFT + WIDTH) / 2, bottom + 36, chart.get("x_title", results.word(chart["x"])), "soft", "middle"))
    return svg_parts(parts, bottom + 46, chart)


PERCENTILES = (0, 50, 90, 99, 99.9, 99.99, 99.999)


def percentile_points(buckets):
    """[[value, count], ...] -> [(share of 1 that does not exceed it, value), ...]."""
    total, seen, points = sum(count for _, count in buckets), 0, []
    for value, count in buckets:
        seen += count
        points.append((seen / total, value))
    return points


def percentiles(result, chart):
    """Values over percentiles, the axis in nines: each step to the right is a tenth of what is left."""
    found = _where(result, chart, "distributions")
    names = _names(chart.get("series"))
    if not found:
        return None
    curves = [(_series_name(one["labels"], names), percentile_points(one["buckets"]), sum(count for _, count in one["buckets"]))
              for one in found]
    parts, top = _frame(chart["title"], [name for name, _, _ in curves], 0)
    top, bottom = top + 24, top + 304
    nines = min(max(math.log10(max(total for _, _, total in curves)), 2), 5)
    x = svg.Scale(0, nines, LEFT, WIDTH - RIGHT - 16)
    values = [value for _, points, _ in curves for _, value in points if value > 0]
    y = svg.Scale(min(values), max(values), bottom, top, log=True)
    parts += _y_axis(y, svg.decades(min(values), max(values)), found[0]["unit"])
    for percent in PERCENTILES:
        place = -math.log10(max(1 - percent / 100, 1e-9))
        if place <= nines + 0.01:
            parts.append(svg.tag("line", x1=x(place), x2=x(place), y1=top, y2=bottom, class_="grid"))
            parts.append(svg.text(x(place), bottom + 18, f"p{percent:g}" if percent else "least", "soft", "middle"))
    for idx, (_, points, total) in enumerate(curves):
        places = [(x(min(-math.log10(max(1 - share, 0.5 / total)), nines)), y(max(value, min(values)))) for share, value in points]
        parts.append(svg.tag("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in _thinned(places)),
                             class_=f"line stroke s{idx % svg.SERIES}"))
    return svg_parts(parts, bottom + 30, chart)


def _thinned(points, gap=0.7):
    """Without points that stand on one another."""
    kept = points[:1]
    for point in points[1:]:
        if abs(point[0] - kept[-1][0]) + abs(point[1] - kept[-1][1]) >= gap:
            kept.append(point)
    return kept


def svg_parts(parts, height, chart):
    return {"parts": parts, "height": math.ceil(height), "title": chart["title"]}


KINDS = {"lines": lines, "bars": bars, "stacked": stacked, "percentiles": percentiles}


def draw(result, chart, alone=False):
    """A chart as SVG; None where the result has no figures for it."""
    made = KINDS[chart["kind"]](result, chart)
    return svg.drawing(WIDTH, made["height"], made["parts"], alone, made["title"]) if made else None
