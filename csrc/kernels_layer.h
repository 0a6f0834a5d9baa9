/* kernels_layer.h: layers that are narrow: their weights stay in the caches near the processor, and each result is
 * written once, by the tile of kernels_gemm.h that has its sum; and the way back from the results to these sums. */
#ifndef FG_KERNELS_LAYER_H
#define FG_KERNELS_LAYER_H

#include "kernels_elementwise.h"
#include "kernels_gemm.h"

enum { NARROW = 64 }; /* so many terms and results in a row are few */

static size_t layer_work(size_t m, size_t n, size_t k)
{
    if (m < 2 || n < 2 || n > NARROW || k > NARROW)
        return 0;
    return vectors(n) * FG_W + (k + 1) * TILE_COLS + ALIGN;
}

static void layer(int row, size_t m, size_t n, size_t k, const double *x, ptrdiff_t x_row, ptrdiff_t x_col,
                 const double *w, ptrdiff_t w_row, ptrdiff_t w_col, const double *b, ptrdiff_t b_step, double *z,
                 double *work)
{
    double *const start = work, *const packed = work + vectors(n) * FG_W;
    common of = {k, x_row, x_col, (ptrdiff_t)n, 0, NULL, row == FG_RELU};
    for (size_t j = 0; j < vectors(n) * FG_W; j++)
        start[j] = b && j < n ? b[(ptrdiff_t)j * b_step] : 0.0;
    for (size_t j = 0, vecs, width; j < n; j += vecs * FG_W) {
        const double *from = x;
        double *to = z + j;
        vecs = share(vectors(n - j), TILE_VECS);
        width = smaller(vecs * FG_W, n - j);
        pack(k, width, w + (ptrdiff_t)j * w_row, w_col, w_row, packed, vecs * FG_W);
        of.start = start + j;
        for (size_t i = 0, rows; i < m; i += rows, from += (ptrdiff_t)rows * x_row, to += rows * n) {
            rows = share(m - i, TILE_ROWS);
            tiles[rows - 1][vecs - 1](&of, from, packed, (ptrdiff_t)(vecs * FG_W), to, width % FG_W);
        }
    }
}

/* What comes before the activation, from what comes after it. */
FG_INLINE vd before(int row, vd z, vd dz)
{
    const vd zero = v_set1(0.0), one = v_set1(1.0);
    if (row == FG_RELU)
        return v_add(zero, v_mul(v_select(v_lt(zero, z), one, zero), dz));
    if (row == FG_TANH)
        return v_add(zero, v_mul(v_sub(one, v_mul(z, z)), dz));
    if (row == FG_SIGMOID)
        return v_add(zero, v_mul(v_mul(z, v_sub(one, z)), dz));
    return dz;
}

FG_INLINE void sums_strip(int row, int vecs, size_t part, size_t m, size_t n, const double *z, const double *dz,
                          double *dsums, double *db)
{
    vd total[4];
    assert(!part || vecs == 1);
    FG_UNROLL(4)
    for (int v = 0; v < vecs; v++)
        total[v] = v_set1(0.0);
    for (size_t i = 0; i < m; i++) {
        FG_UNROLL(4)
        for (int v = 0; v < vecs; v++) {
            const size_t at = i * n + (size_t)v * FG_W;
            const int cut = part != 0;
            const vd d = cut ? v_load_part(dz + at, part) : v_load(dz + at);
            const vd zs = row == FG_LEAF ? d : cut ? v_load_part(z + at, part) : v_load(z + at);
            const vd s = before(row, zs, d);
            total[v] = v_add(total[v], s);
            if (row != FG_LEAF && cut)
                v_store_part(dsums + at, part, s);
            else if (row != FG_LEAF)
                v_store(dsums + at, s);
        }
    }
    if (!db)
        return;
    FG_UNROLL(4)
    for (int v = 0; v < vecs; v++) {
        if (part)
            v_store_part(db + (size_t)v * FG_W, part, total[v]);
        else
            v_store(db + (size_t)v * FG_W, total[v]);
    }
}

FG_INLINE void sums_strips(int row, size_t m, size_t n, const double *z, const double *dz, double *dsums, double *db)
{
    size_t j = 0;
#define STRIP(vecs, part) \
    sums_strip(row, vecs, part, m, n, z + j, dz + j, row == FG_LEAF ? dsums : dsums + j, db ? db + j : NULL)
    for (; n - j >= 4 * FG_W; j += 4 * FG_W)
        STRIP(4, 0);
    if (n - j >= 2 * FG_W) {
        STRIP(2, 0);
        j += 2 * FG_W;
    }
    if (n - j >= FG_W) {
        STRIP(1, 0);
        j += FG_W;
    }
    if (j < n)
        STRIP(1, n - j);
#undef STRIP
}

static void layer_sums(int row, size_t m, size_t n, const double *z, const double *dz, double *dsums, double *db)
{
    assert(row == FG_LEAF || row == FG_RELU || row == FG_TANH || row == FG_SIGMOID); /* those that ops.def has fused */
    const int together = !db || n == 1; /* all rows in one piece */
    const size_t rows = together ? 1 : m, cols = together ? m * n : n;
    double *const totals = together ? NULL : db;
    if (row == FG_RELU)
        sums_strips(FG_RELU, rows, cols, z, dz, dsums, totals);
    else if (row == FG_TANH)
        sums_strips(FG_TANH, rows, cols, z, dz, dsums, totals);
    else if (row == FG_SIGMOID)
        sums_strips(FG_SIGMOID, rows, cols, z, dz, dsums, totals);
    else if (totals)
        sums_strips(FG_LEAF, rows, cols, dz, dz, dsums, totals);
    if (db && together)
        *db = sum(m, row == FG_LEAF ? dz : dsums);
}

#endif
