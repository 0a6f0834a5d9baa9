"""Tables and curves as HTML, which notebooks show for Tensors, Modules, histories and Trainers."""
from __future__ import annotations

import html
import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flatgrad._core import Tensor

__all__ = ["curve", "table", "tensor_html"]

ROWS, COLUMNS = 10, 8   # of a Tensor; of more than that, the first and the last half are shown
# Blue, vermilion, green, orange: for people with and without colour blindness (Okabe and Ito, 2008).
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#E69F00"]
WIDTH, HEIGHT, LEFT = 420, 130, 58   # of a curve in pixels, and of its numbers
POINTS = 400     # of a curve; of more epochs every second one is left out, and so on


def table(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "", *, texts: int = 1) -> str:
    """A table: a row of headings, or none, and rows of cells. The first columns have texts, the others numbers."""
    def row(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(
            f'<{tag} style="text-align: {"left" if k < texts else "right"}; padding: 1px 8px">{html.escape(str(cell))}'
            f"</{tag}>" for k, cell in enumerate(cells)) + "</tr>"

    parts = ["<table>"]
    if caption:
        parts.append(f'<caption style="text-align: left; caption-side: top; white-space: nowrap">{html.escape(caption)}</caption>')
    if head:
        parts.append(f"<thead>{row(head, 'th')}</thead>")
    return "\n".join([*parts, "<tbody>", *(row(cells, "td") for cells in rows), "</tbody></table>"])


def number(x: float) -> str:
    """A number in a cell, with four digits."""
    return f"{x:.4g}"


# ---- Tensors ----

def tensor_html(tensor: Tensor) -> str:
    """What notebooks show of a Tensor: its shape and its numbers, of a large one the first and the last of them."""
    caption = f"Tensor {tensor.shape}" + ("" if tensor.requires_grad else ", requires_grad=False")
    if tensor._op:
        caption += f", {tensor._op}"
    is_matrix = tensor.ndim == 2
    matrix = tensor.data.reshape(-1, tensor.shape[-1])
    across = shown(matrix.shape[1], COLUMNS)
    rows = []
    for k in shown(matrix.shape[0], ROWS):
        cells = ["\u22ee" if k is None else "\u2026" if i is None else number(matrix[k, i]) for i in across]
        rows.append([*(["\u22ee" if k is None else k] if is_matrix else []), *cells])
    head = [*([""] if is_matrix else []), *("\u2026" if i is None else i for i in across)]
    return table(head, rows, caption, texts=int(is_matrix))


def shown(count: int, most: int) -> list[int | None]:
    """The places of which numbers are shown; None stands for those in between."""
    if count <= most:
        return list(range(count))
    return [*range(most // 2), None, *range(count - most // 2, count)]


# ---- curves ----

def curve(steps: Sequence[float], series: Mapping[str, Sequence[float]]) -> str:
    """Lines over steps as SVG, or '' if there is nothing to draw.

    Names that begin with 'val_' have dashes, and the colour of what they belong to. If all numbers are above 0 and span
    more than two decades, the scale is logarithmic. nan and inf leave a gap.
    """
    finite = [x for numbers in series.values() for x in numbers if math.isfinite(x)]
    if len(steps) < 2 or not finite:
        return ""
    low, high = min(finite), max(finite)
    scale = math.log10 if low > 0 and high > 100 * low else float
    bottom, top = scale(low), scale(high)
    if not math.isfinite(top - bottom):
        return ""
    if top <= bottom:
        bottom, top = bottom - 1.0, top + 1.0
    stride = 1 + (len(steps) - 1) // POINTS
    kept = sorted({*range(0, len(steps), stride), len(steps) - 1})
    bases = list(dict.fromkeys(name.removeprefix("val_") for name in series))
    parts = [f'<rect x="{LEFT}" y="6" width="{WIDTH - LEFT - 6}" height="{HEIGHT - 30}" fill="none" '
             'stroke="currentColor" stroke-opacity="0.25"/>']
    for name, numbers in series.items():
        colour = COLOURS[bases.index(name.removeprefix("val_")) % len(COLOURS)]
        path, pen = "", False
        for k in kept:
            if math.isfinite(numbers[k]):
                x = LEFT + (WIDTH - LEFT - 6) * (steps[k] - steps[0]) / ((steps[-1] - steps[0]) or 1.0)
                y = 10 + (HEIGHT - 38) * (top - scale(numbers[k])) / (top - bottom)
                path += f"{'L' if pen else 'M'}{x:.1f} {y:.1f}{'' if pen else 'h.01'}"
            pen = math.isfinite(numbers[k])
        dashes = ' stroke-dasharray="5 3"' if name.startswith("val_") else ""
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dashes}>'
                     f"<title>{html.escape(name)}</title></path>")
    for text, x, y, anchor in ((number(high), LEFT - 6, 15, "end"), (number(low), LEFT - 6, HEIGHT - 26, "end"),
                               (f"{steps[0]:g}", LEFT, HEIGHT - 8, "start"),
                               (f"{steps[-1]:g}", WIDTH - 6, HEIGHT - 8, "end"),
                               (", ".join(series).replace("_", " "), (LEFT + WIDTH) / 2, HEIGHT - 8, "middle")):
        parts.append(f'<text x="{x:g}" y="{y:g}" fill="currentColor" text-anchor="{anchor}">{html.escape(text)}</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            'style="max-width: 100%; height: auto; display: block" font-size="11" font-family="sans-serif">'
            + "".join(parts) + "</svg>")
