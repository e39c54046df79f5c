"""Fronts of two costs, both of which are good when they are low: plain functions of points."""

from collections.abc import Iterable

Point = tuple[float, float]


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """The points that no other one beats, each once, the first cost rising, the second falling.

    None, of pairs of costs in any order, is as low as one of these in both costs and lower in one.
    """
    front: list[Point] = []
    for one in sorted(set(points)):
        if not front or one[1] < front[-1][1]:
            front.append(one)
    return front


def hypervolume(points: Iterable[Point], reference: Point) -> float:
    """The area between a front and a reference point, which is the worst that counts (Zitzler and Thiele 1999).

    Args:
        points: pairs of costs; those that are not below the reference in both add nothing.
        reference: in the same units.

    Returns:
        An area, 0 if there is no such point, high is good.
    """
    area, above = 0.0, reference[1]
    for first, second in pareto_front(one for one in points if one[0] < reference[0] and one[1] < reference[1]):
        area += (reference[0] - first) * (above - second)
        above = second
    return area


def least_within(points: Iterable[Point], bound: float) -> float | None:
    """The lowest second cost of the points whose first is at most ``bound``; ``None`` if there is none."""
    return min((second for first, second in points if first <= bound), default=None)
