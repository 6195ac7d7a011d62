# SPDX-License-Identifier: BSD-3-Clause
"""Whether a series is flat: a straight line through it, judged against its noise."""
import math


def line(points):
    """(slope, standard error of the slope) of the least-squares line through (x, y) points."""
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if n < 3 or spread == 0:
        return 0.0, 0.0
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return slope, math.sqrt(rest / (n - 2) / spread)


def growth_of(points):
    """(what it grew by on its line, how much of that may be noise: three standard errors)."""
    slope, error = line(points)
    span = points[-1][0] - points[0][0]
    return slope * span, 3 * error * span


def rest_of(points):
    """What a line through the points leaves of each y."""
    slope, _ = line(points)
    mean_x, mean_y = sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)
    return [y - mean_y - slope * (x - mean_x) for x, y in points]


def growth_beside(points, cause):
    """growth_of(points) in time alone, with a disturbance of the same moments accounted for: the line through what the
    disturbance leaves unexplained of both (Frisch and Waugh 1933). Where the disturbance itself grew with time the two cannot be
    told apart, and the noise says so."""
    times, values = rest_of([(c, x) for c, (x, _) in zip(cause, points)]), rest_of([(c, y) for c, (_, y) in zip(cause, points)])
    slope, error = line(list(zip(times, values)))
    span = points[-1][0] - points[0][0]
    return slope * span, 3 * error * span
