"""Where the nodes of a graph go in a picture: in layers from left to right, operands before what is computed of them.

After Sugiyama, Tagawa and Toda (1981): ranks, an order within each rank with few crossings, and then heights that are
close to those of the neighbours. An edge over several ranks goes through a bend in each; all such edges of one node
share their bends. Pure Python, for graphs of some thousand nodes.
"""
from __future__ import annotations

import bisect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Layout"]

SWEEPS = 12        # over all ranks, for the order in each
RELAXED = 10       # likewise for the heights
BEND = 10          # the height of a bend
TALLEST = 24       # nodes above each other; of more leaves than that, several columns are made


class Layout:
    """The places of nodes, as middle points; and a path for each edge.

    Parameters
    ----------
    operands : list of sequences of int
        Of each node those that it is computed from, all of which come before it.
    sizes : list of (width, height)
    across, between : float
        The room between two ranks, and between two nodes of one rank.
    """

    operands: Sequence[Sequence[int]]
    sizes: Sequence[tuple[float, float]]
    between: float
    ranks: list[int]
    heights: list[float]
    bends: list[dict[int, int]]
    before: list[list[int]]
    after: list[list[int]]
    columns: list[list[int]]
    places: dict[int, int]
    folds: list[int]
    x: list[float]
    y: list[float]
    width: float
    height: float
    edges_of_column: list[tuple[float, float]]

    def __init__(self, operands: Sequence[Sequence[int]], sizes: Sequence[tuple[float, float]], across: float = 56.0,
                 between: float = 18.0) -> None:
        self.operands, self.sizes, self.between = operands, sizes, between
        self.ranks = ranks_of(operands)
        self.heights = [height for _, height in sizes]   # bends come after the nodes
        self.find_bends()
        self.order()
        self.place_up()
        self.place_across(across)

    def find_bends(self) -> None:
        """The bends, and the pairs of nodes and bends that are next to each other."""
        count = len(self.operands)
        rank = list(self.ranks)
        farthest = [max((rank[user] for user in users), default=r)
                    for r, users in zip(rank, users_of(self.operands))]
        self.bends = [{} for _ in range(count)]   # of each node: rank -> bend
        for node in range(count):
            for r in range(rank[node] + 1, farthest[node]):
                self.bends[node][r] = len(rank)
                rank.append(r)
                self.heights.append(BEND)
        self.before = [[] for _ in rank]
        for node in range(count):
            chain = [node, *self.bends[node].values()]
            for left, right in zip(chain, chain[1:]):
                self.before[right].append(left)
        for node, found in enumerate(self.operands):
            for operand in dict.fromkeys(found):
                self.before[node].append(self.bends[operand].get(rank[node] - 1, operand))
        self.after = users_of(self.before)
        self.columns = [[] for _ in range(max(rank, default=-1) + 1)]
        for node, r in enumerate(rank):
            self.columns[r].append(node)

    def order(self) -> None:
        """The order within each column: the best of some sweeps that sort by the middle of the neighbours."""
        best, fewest = [list(column) for column in self.columns], self.crossings()
        for sweep in range(SWEEPS):
            if fewest == 0:
                break
            forward = sweep % 2 == 0
            others = self.before if forward else self.after
            for column in self.columns if forward else reversed(self.columns):
                middles = {node: middle([self.places[other] for other in others[node]], self.places[node])
                           for node in column}
                column.sort(key=middles.__getitem__)
                self.places.update((node, k) for k, node in enumerate(column))
            found = self.crossings()
            if found < fewest:
                best, fewest = [list(column) for column in self.columns], found
        self.columns = best

    def crossings(self) -> int:
        """How many pairs of edges between two neighbouring columns cross."""
        self.places = {node: k for column in self.columns for k, node in enumerate(column)}
        count = 0
        for column in self.columns:
            seen = []   # the places of the left ends, sorted
            for node in column:
                ends = sorted(self.places[other] for other in self.before[node])
                count += sum(len(seen) - bisect.bisect_right(seen, end) for end in ends)
                for end in ends:
                    bisect.insort(seen, end)
        return count

    def place_up(self) -> None:
        """The heights: near the mean of the neighbours', as far as the others in the column leave room."""
        self.folds = [1 + (sum(node < len(self.sizes) for node in column) - 1) // TALLEST for column in self.columns]
        y = self.y = [0.0] * len(self.before)
        rooms = []
        for column, folds in zip(self.columns, self.folds):
            rooms.append([((self.heights[a] + self.heights[b]) / 2 + self.between) / folds
                          for a, b in zip(column, column[1:])])
            at = -sum(rooms[-1]) / 2
            for node, room in zip(column, [*rooms[-1], 0.0]):
                y[node] = at
                at += room
        last = len(self.columns) - 1
        for step in range(RELAXED):
            forward = step % 2 == 1
            for c in range(last + 1) if forward else range(last, -1, -1):
                column = self.columns[c]
                wanted = []
                for node in column:
                    near = (self.before[node] if forward else self.after[node]) or self.before[node] + self.after[node]
                    if step == RELAXED - 1:
                        near = self.before[node] + self.after[node]
                    wanted.append(sum(y[other] for other in near) / len(near) if near else y[node])
                for node, place in zip(column, apart(wanted, rooms[c])):
                    y[node] = place
        low = min((y[node] - self.heights[node] / 2 for node in range(len(y))), default=0.0)
        for node in range(len(y)):
            y[node] -= low
        self.height = max((y[node] + self.heights[node] / 2 for node in range(len(y))), default=0.0)

    def place_across(self, across: float) -> None:
        """The places from left to right; wider where many edges turn."""
        self.x = [0.0] * len(self.y)
        at = 0.0
        self.edges_of_column = []
        for column, folds in zip(self.columns, self.folds):
            edges = sum(len(self.before[node]) for node in column)
            at += (across + min(1.5 * across, 1.2 * edges)) if at else 0.0
            width = max((self.sizes[node][0] for node in column if node < len(self.sizes)), default=0.0)
            for k, node in enumerate(column):
                self.x[node] = at + width / 2 + (k % folds) * (width + across / 3)
            self.edges_of_column.append((at, at + folds * width + (folds - 1) * across / 3))
            at = self.edges_of_column[-1][1]
        self.width = at

    def place(self, node: int) -> tuple[float, float]:
        """The middle of a node."""
        return self.x[node], self.y[node]

    def path(self, operand: int, node: int) -> str:
        """The edge from an operand to a node, as the path of an SVG: from the right side to the left side."""
        ends = [(self.x[operand] + self.sizes[operand][0] / 2, self.y[operand])]
        for r in range(self.ranks[operand] + 1, self.ranks[node]):
            bend = self.bends[operand][r]
            left, right = self.edges_of_column[r]
            ends += [(left, self.y[bend]), (right, self.y[bend])]
        ends.append((self.x[node] - self.sizes[node][0] / 2, self.y[node]))
        words = [f"M{ends[0][0]:.1f} {ends[0][1]:.1f}"]
        for k, ((x0, y0), (x1, y1)) in enumerate(zip(ends, ends[1:])):
            if k % 2:   # past a column
                words.append(f"L{x1:.1f} {y1:.1f}")
            else:
                half = (x0 + x1) / 2
                words.append(f"C{half:.1f} {y0:.1f} {half:.1f} {y1:.1f} {x1:.1f} {y1:.1f}")
        return "".join(words)


def ranks_of(operands: Sequence[Sequence[int]]) -> list[int]:
    """The column of each node: right of all its operands; a leaf is just left of the first of its users."""
    ranks = []
    for found in operands:
        ranks.append(1 + max((ranks[k] for k in found), default=-1))
    for node, users in enumerate(users_of(operands)):
        if not operands[node] and users:
            ranks[node] = min(ranks[user] for user in users) - 1
    return ranks


def users_of(operands: Sequence[Sequence[int]]) -> list[list[int]]:
    users = [[] for _ in operands]
    for node, found in enumerate(operands):
        for operand in dict.fromkeys(found):
            users[operand].append(node)
    return users


def middle(places: list[int], own: float) -> float:
    """The mean of some places; a node without neighbours stays."""
    return sum(places) / len(places) if places else own


def apart(wanted: list[float], rooms: list[float]) -> list[float]:
    """Numbers that are at least `rooms` apart and, in the sum of squares, nearest to those that are wanted."""
    offsets = [0.0]
    for room in rooms:
        offsets.append(offsets[-1] + room)
    pools = []   # [sum of what is wanted, how many], where the means must rise: pooled where they would not
    for number, offset in zip(wanted, offsets):
        pools.append([number - offset, 1])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]:
            total, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += count
    means = [total / count for total, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets)]
