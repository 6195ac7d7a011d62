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
