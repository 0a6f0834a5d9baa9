"""A drawing of a graph in text: one line a node, children indented, in an order that does not vary."""


def rank(v):
    return v.label, v._op, v.data


def draw(v, depth=0, drawn=None):
    drawn = set() if drawn is None else drawn
    again = ' ...' if v in drawn and v._prev else ''
    print(f"{'  ' * depth}{v.label or '.'} [{v._op}] {v.data:.6f} ({v.grad:.6f}){again}")
    if not again:
        drawn.add(v)
        for child in sorted(v._prev, key=rank):
            draw(child, depth + 1, drawn)


def count(root):
    nodes, edges = set(), set()

    def build(v):
        if v not in nodes:
            nodes.add(v)
            for child in v._prev:
                edges.add((child, v))
                build(child)
    build(root)
    return len(nodes), len(edges)
