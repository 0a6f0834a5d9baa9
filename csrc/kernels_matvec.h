/* kernels_matvec.h: a matrix times a vector, and its reverse. */
#ifndef FG_KERNELS_MATVEC_H
#define FG_KERNELS_MATVEC_H

#include "kernels_lanes.h"

enum { ROWS = FG_W > 8 ? FG_W : 8 }; /* rows that are multiplied at a time: eight independent sums or more */

/* sums = (dot product of x with each of `count` <= ROWS rows of w). If count < ROWS, the last row takes the
 * place of the missing rows. */
FG_INLINE void dots(size_t count, size_t k, const real *w, ptrdiff_t w_row, const real *x, vd *sums)
{
    vd acc[ROWS];
    const real *row[ROWS];
    size_t i = 0;
    FG_UNROLL(16)
    for (size_t r = 0; r < ROWS; r++) {
        acc[r] = v_set1(0.0);
        row[r] = w + (ptrdiff_t)(r < count ? r : count - 1) * w_row;
    }
    for (; k - i >= FG_W; i += FG_W) {
        const vd xs = v_load(x + i);
        FG_UNROLL(16)
        for (size_t r = 0; r < ROWS; r++)
            acc[r] = v_fma(v_load(row[r] + i), xs, acc[r]);
    }
    if (i < k) {
        const vd xs = v_load_part(x + i, k - i);
        FG_UNROLL(16)
        for (size_t r = 0; r < ROWS; r++)
            acc[r] = v_fma(v_load_part(row[r] + i, k - i), xs, acc[r]);
    }
    FG_UNROLL(16)
    for (size_t r = 0; r < ROWS / FG_W; r++)
        sums[r] = v_sums(acc + r * FG_W);
}

/* b may be z. */
static void gemv(size_t n, size_t k, const real *w, ptrdiff_t w_row, const real *x, const real *b,
                 ptrdiff_t b_step, real *z)
{
    size_t j = 0;
    for (; n - j > 2; j += smaller(n - j, ROWS)) {
        const size_t count = smaller(n - j, ROWS);
        const real *const bias = b ? b + (ptrdiff_t)j * b_step : NULL;
        vd sums[ROWS / FG_W];
        dots(count, k, w + (ptrdiff_t)j * w_row, w_row, x, sums);
        if (count == ROWS && (!b || b_step == 1 || b_step == 0)) {
            FG_UNROLL(16)
            for (size_t r = 0; r < ROWS / FG_W; r++) {
                if (b)
                    sums[r] = v_add(sums[r], b_step ? v_load(bias + r * FG_W) : v_set1(*bias));
                v_store(z + j + r * FG_W, sums[r]);
            }
        } else {
            real one[ROWS];
            for (size_t r = 0; r < ROWS / FG_W; r++)
                v_store(one + r * FG_W, sums[r]);
            for (size_t r = 0; r < count; r++)
                z[j + r] = b ? bias[(ptrdiff_t)r * b_step] + one[r] : one[r];
        }
    }
    for (; j < n; j++) {
        const real one = dot(k, w + (ptrdiff_t)j * w_row, x);
        z[j] = b ? b[(ptrdiff_t)j * b_step] + one : one;
    }
}

/* The part of gemv_grad for `vecs` vectors side by side. If `part` is not 0, there is one, with only `part` numbers. */
FG_INLINE void strip(int vecs, size_t part, int has_dw, int has_dx, size_t n, const real *w,
                     ptrdiff_t w_row, const real *x, const real *dz, real *dw, real *dx)
{
    vd xs[4], sums[2][4];
    assert(!part || vecs == 1);
    FG_UNROLL(4)
    for (int v = 0; v < vecs; v++) {
        const int cut = part != 0;
        const size_t at = (size_t)v * FG_W;
        if (has_dw)
            xs[v] = cut ? v_load_part(x + at, part) : v_load(x + at);
        sums[0][v] = sums[1][v] = v_set1(0.0);
    }
    for (size_t j = 0; j < n; j += 2) {
        FG_UNROLL(2)
        for (size_t odd = 0; odd < 2; odd++) {
            if (j + odd >= n)
                break;
            const vd d = v_set1(dz[j + odd]);
            const ptrdiff_t row = (ptrdiff_t)(j + odd) * w_row;
            FG_UNROLL(4)
            for (int v = 0; v < vecs; v++) {
                const int cut = part != 0;
                const ptrdiff_t at = row + (ptrdiff_t)v * FG_W;
                if (has_dx) {
                    const vd ws = cut ? v_load_part(w + at, part) : v_load(w + at);
                    sums[odd][v] = v_fma(d, ws, sums[odd][v]);
                }
                if (has_dw && cut)
                    v_store_part(dw + at, part, v_fma(d, xs[v], v_load_part(dw + at, part)));
                else if (has_dw)
                    v_store(dw + at, v_fma(d, xs[v], v_load(dw + at)));
            }
        }
    }
    if (!has_dx)
        return;
    FG_UNROLL(4)
    for (int v = 0; v < vecs; v++) {
        real *const to = dx + (size_t)v * FG_W;
        const vd add = v_add(sums[0][v], sums[1][v]);
        if (part)
            v_store_part(to, part, v_add(add, v_load_part(to, part)));
        else
            v_store(to, v_add(add, v_load(to)));
    }
}

FG_INLINE void strips(int has_dw, int has_dx, size_t n, size_t k, const real *w, ptrdiff_t w_row,
                      const real *x, const real *dz, real *dw, real *dx)
{
    size_t i = 0;
#define STRIP(vecs, part)                                                                          \
    strip(vecs, part, has_dw, has_dx, n, has_dx ? w + i : w, w_row, has_dw ? x + i : x, dz,        \
          has_dw ? dw + i : dw, has_dx ? dx + i : dx) /* dw and dx may be NULL if they are not wanted */
    for (; k - i >= 4 * FG_W; i += 4 * FG_W)
        STRIP(4, 0);
    for (; k - i >= 2 * FG_W; i += 2 * FG_W)
        STRIP(2, 0);
    if (k - i >= FG_W) {
        STRIP(1, 0);
        i += FG_W;
    }
    if (i < k)
        STRIP(1, k - i);
#undef STRIP
}

/* For rows that are too short for vectors. */
static void short_rows(size_t n, size_t k, const real *w, ptrdiff_t w_row, const real *x,
                       const real *dz, real *dw, real *dx)
{
    for (size_t i = 0; i < k; i++) {
        real even = 0, odd = 0;
        for (size_t j = 0; j < n; j++) {
            const ptrdiff_t at = (ptrdiff_t)j * w_row + (ptrdiff_t)i;
            if (dw)
                dw[at] += dz[j] * x[i];
            if (dx && j % 2)
                odd += dz[j] * w[at];
            else if (dx)
                even += dz[j] * w[at];
        }
        if (dx)
            dx[i] += even + odd;
    }
}

static void gemv_grad(size_t n, size_t k, const real *w, ptrdiff_t w_row, const real *x,
                      const real *dz, real *dw, real *dx)
{
    if (k < 4) {
        short_rows(n, k, w, w_row, x, dz, dw, dx);
    } else if (dw && dx && k <= 4 * FG_W) {
        strips(1, 1, n, k, w, w_row, x, dz, dw, dx);
    } else { /* with long rows, two matrices at a time would compete for the cache */
        if (dw)
            strips(1, 0, n, k, w, w_row, x, dz, dw, dx);
        if (dx)
            strips(0, 1, n, k, w, w_row, x, dz, dw, dx);
    }
}

#endif
