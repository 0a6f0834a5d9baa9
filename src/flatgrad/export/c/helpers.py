"""The C functions for instructions of many operands, which the functions of bodies call.

In each text `real` stands for the type of numbers, and numbers and functions of libm are those of doubles.
"""
from __future__ import annotations

import re

from flatgrad.export.c import elementary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["HELPERS", "helper_definitions"]

# By name: the names of others that it calls, and its text. A matrix is a pointer and the steps down and across.
HELPERS: dict[str, tuple[tuple[Any, ...], str]] = {}


def helper(name: str, text: str, *calls: Any) -> None:
    HELPERS[name] = calls, text.strip("\n")


helper("fg_dot", """
/* The sum of x[i] * y[i], in eight sums side by side. */
static inline real fg_dot(int n, const real *restrict x, const real *restrict y)
{
    real s[8] = {0.0};
    const int whole = n - n % 8;
    for (int i = 0; i < whole; i += 8)
        for (int j = 0; j < 8; j++)
            s[j] += x[i + j] * y[i + j];
    for (int i = whole; i < n; i++)
        s[i - whole] += x[i] * y[i];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}
""")

helper("fg_dot_apart", """
/* The sum of x[i * dx] * y[i * dy]. */
static inline real fg_dot_apart(int n, const real *x, int dx, const real *y, int dy)
{
    real sum = 0.0;
    for (int i = 0; i < n; i++)
        sum += x[i * dx] * y[i * dy];
    return sum;
}
""")

helper("fg_rows_dot", """
/* out[j] = b[j * db] + the sum of w[j][p] * x[p] over k of them; rows of w are `down` apart. No b if it is 0. */
static inline void fg_rows_dot(int n, int k, const real *restrict w, int down, const real *restrict x,
                               const real *restrict b, int db, real *restrict out)
{
    for (int j = 0; j < n; j++)
        out[j] = (b ? b[j * db] : 0.0) + fg_dot(k, w + j * down, x);
}
""", "fg_dot")

helper("fg_columns_sum", """
/* out[j] = b[j * db] + the sum of w[p][j] * x[p * dx] over k of them; rows of w are `down` apart. No b if it is 0. */
static inline void fg_columns_sum(int n, int k, const real *restrict w, int down, const real *restrict x, int dx,
                                  const real *restrict b, int db, real *restrict out)
{
    const int whole = k - k % 4;
    for (int j = 0; j < n; j++)
        out[j] = b ? b[j * db] : 0.0;
    for (int p = 0; p < whole; p += 4) {
        const real *restrict v = w + p * down;
        const real x0 = x[p * dx], x1 = x[(p + 1) * dx], x2 = x[(p + 2) * dx], x3 = x[(p + 3) * dx];
        for (int j = 0; j < n; j++)
            out[j] += (x0 * v[j] + x1 * v[down + j]) + (x2 * v[2 * down + j] + x3 * v[3 * down + j]);
    }
    for (int p = whole; p < k; p++)
        for (int j = 0; j < n; j++)
            out[j] += x[p * dx] * w[p * down + j];
}
""")

helper("fg_turned", """
/* out (n, m) = x (m, n) turned; rows of x are `down` apart. */
static inline void fg_turned(int m, int n, const real *restrict x, int down, real *restrict out)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++)
            out[j * m + i] = x[i * down + j];
}
""")

helper("fg_tile", """
/* Four rows and sixteen columns of fg_product, whose sums stay in registers; `start`: what they begin with. */
#if defined(__clang__) && defined(__AVX512F__)
__attribute__((noinline))
#endif
static void fg_tile(int k, const real *restrict x, int down, int across, const real *restrict w, int apart,
                    const real *restrict start, real *restrict out, int wide)
{
    real s0[16], s1[16], s2[16], s3[16];
    for (int j = 0; j < 16; j++)
        s0[j] = s1[j] = s2[j] = s3[j] = start[j];
    for (int p = 0; p < k; p++) {
        const real *restrict v = x + p * across, *restrict y = w + p * apart;
        const real x0 = v[0], x1 = v[down], x2 = v[2 * down], x3 = v[3 * down];
#if defined(__clang__) && defined(__AVX512F__) /* keeps sums of a loop each; gcc those of one loop */
        for (int j = 0; j < 16; j++)
            s0[j] += x0 * y[j];
        for (int j = 0; j < 16; j++)
            s1[j] += x1 * y[j];
        for (int j = 0; j < 16; j++)
            s2[j] += x2 * y[j];
        for (int j = 0; j < 16; j++)
            s3[j] += x3 * y[j];
#else
        for (int j = 0; j < 16; j++) {
            s0[j] += x0 * y[j];
            s1[j] += x1 * y[j];
            s2[j] += x2 * y[j];
            s3[j] += x3 * y[j];
        }
#endif
    }
    for (int j = 0; j < 16; j++) {
        out[j] = s0[j];
        out[wide + j] = s1[j];
        out[2 * wide + j] = s2[j];
        out[3 * wide + j] = s3[j];
    }
}
""")

helper("fg_product", """
/* out (m, n) = b + x (m, k) times w (k, n), at least four rows and sixteen columns. Steps of x are `down` and `across`,
 * rows of w are `apart`. Tiles at the edges overlap others, and compute the same once more. */
static inline void fg_product(int m, int n, int k, const real *restrict x, int down, int across,
                              const real *restrict w, int apart, const real *restrict b, int db, real *restrict out)
{
    for (int j = 0; j < n; j += 16) {
        const int col = j < n - 16 ? j : n - 16;
        real start[16];
        for (int l = 0; l < 16; l++)
            start[l] = b ? b[(col + l) * db] : 0.0;
        for (int i = 0; i < m; i += 4) {
            const int row = i < m - 4 ? i : m - 4;
            fg_tile(k, x + row * down, down, across, w + col, apart, start, out + row * n + col, n);
        }
    }
}
""", "fg_tile")

helper("fg_layer", """
/* out (m, n) = b + x (m, k) times w (n, k) turned, with the steps of x and w down and across. No b if it is 0. */
static inline void fg_layer(int m, int n, int k, const real *restrict x, int x_down, int x_across,
                            const real *restrict w, int w_down, int w_across, const real *restrict b, int db,
                            real *restrict out)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            real sum = b ? b[j * db] : 0.0;
            for (int p = 0; p < k; p++)
                sum += x[i * x_down + p * x_across] * w[j * w_down + p * w_across];
            out[i * n + j] = sum;
        }
}
""")

helper("fg_sum", """
/* The sum of x, in eight sums side by side. */
static inline real fg_sum(int n, const real *restrict x)
{
    real s[8] = {0.0};
    const int whole = n - n % 8;
    for (int i = 0; i < whole; i += 8)
        for (int j = 0; j < 8; j++)
            s[j] += x[i + j];
    for (int i = whole; i < n; i++)
        s[i - whole] += x[i];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}
""")

helper("fg_sum_columns", """
/* out[j] = the sum of x[p][j] over k of them; rows of x are `down` apart. */
static inline void fg_sum_columns(int n, int k, const real *restrict x, int down, real *restrict out)
{
    for (int j = 0; j < n; j++)
        out[j] = x[j];
    for (int p = 1; p < k; p++)
        for (int j = 0; j < n; j++)
            out[j] += x[p * down + j];
}
""")

helper("fg_largest", """
/* The largest of x; nan if any is. */
static inline real fg_largest(int n, const real *x)
{
    real most = x[0];
    for (int i = 1; i < n; i++)
        most = x[i] > most || isnan(x[i]) ? x[i] : most;
    return most;
}
""")
# A nan stays: nothing is larger.

helper("fg_logistic", """
/* sigmoid(x), without branches. */
static inline real fg_logistic(real x)
{
    const real e = exp(-fabs(x));
    return (x < 0.0 ? e : 1.0) / (1.0 + e);
}
""", "exp")

helper("fg_sum_of_exp", """
/* The sum of exp(x[i] - shift), in eight sums side by side. */
static inline real fg_sum_of_exp(int n, const real *x, real shift)
{
    real s[8] = {0.0};
    const int whole = n - n % 8;
    for (int i = 0; i < whole; i += 8)
        for (int j = 0; j < 8; j++)
            s[j] += exp(x[i + j] - shift);
    for (int i = whole; i < n; i++)
        s[i - whole] += exp(x[i] - shift);
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}
""", "exp")

helper("fg_logsumexp", """
/* The logarithm of the sum of exp(x[i]). */
static inline real fg_logsumexp(int n, const real *x)
{
    const real most = fg_largest(n, x);
    return isfinite(most) ? most + log(fg_sum_of_exp(n, x, most)) : most;
}
""", "fg_largest", "fg_sum_of_exp")

helper("fg_softmax", """
/* z (m, n) = softmax of each row of x, which are `down` apart. */
static inline void fg_softmax(int m, int n, const real *restrict x, int down, real *restrict z)
{
    for (int i = 0; i < m; i++) {
        const real most = fg_largest(n, x + i * down);
        for (int j = 0; j < n; j++)
            z[i * n + j] = exp(x[i * down + j] - most);
        const real sum = fg_sum(n, z + i * n);
        for (int j = 0; j < n; j++)
            z[i * n + j] /= sum;
    }
}
""", "fg_largest", "fg_sum", "exp")

helper("fg_log_softmax", """
/* z (m, n) = log of the softmax of each row of x, which are `down` apart. */
static inline void fg_log_softmax(int m, int n, const real *restrict x, int down, real *restrict z)
{
    for (int i = 0; i < m; i++) {
        const real most = fg_largest(n, x + i * down), rest = log(fg_sum_of_exp(n, x + i * down, most));
        for (int j = 0; j < n; j++)
            z[i * n + j] = x[i * down + j] - most - rest;
    }
}
""", "fg_largest", "fg_sum_of_exp")

helper("fg_cross_entropy", """
/* The mean over the rows of x (m, n) of -log(softmax(row)[label]). */
static inline real fg_cross_entropy(int m, int n, const real *x, int down, const int *labels)
{
    real total = 0.0;
    for (int i = 0; i < m; i++) {
        const real most = fg_largest(n, x + i * down);
        total -= x[i * down + labels[i]] - most - log(fg_sum_of_exp(n, x + i * down, most));
    }
    return total / (real)m;
}
""", "fg_largest", "fg_sum_of_exp")

helper("fg_position", """
/* A position from -n to n - 1, counted from the end if it is negative; -1: it is none. */
static inline int fg_position(real x, int n)
{
    if (!(x >= -(real)n && x < (real)n) || x != (real)(int)x)
        return -1;
    return x < 0.0 ? (int)x + n : (int)x;
}
""")


def helper_definitions(names: Any, dtype: Any) -> Any:
    """The C functions that bodies call, with others that these call, in order of dependence.

    Parameters
    ----------
    names : iterable of str
        Helpers of BodyTexts.
    dtype : {"float64", "float32"}

    Returns
    -------
    str
    """
    found, single = {}, dtype == "float32"

    def find(name):
        if name in elementary.TEXTS:
            return
        calls, text = HELPERS[name]
        for call in calls:
            if call != "exp":
                find(call)
            elif not single:
                text = re.sub(r"\bexp\(", "fg_exp(", text)
        found[name] = text
    for name in sorted(names):
        find(name)
    texts = "\n\n".join(typed(text, dtype) for text in found.values()) + "\n" * bool(found)
    own = elementary.definitions(texts + "".join(f" {name}(" for name in names))
    return f"#include <stdint.h>\n#include <string.h>\n\n{own}\n{texts}" if own else texts


def typed(text: Any, dtype: Any) -> Any:
    if dtype == "float32":
        text = re.sub(r"\b(\d+\.\d+)\b", r"\1f", re.sub(r"\b(exp|log|fabs)\(", r"\1f(", text))
    return re.sub(r"\breal\b", "float" if dtype == "float32" else "double", text)
