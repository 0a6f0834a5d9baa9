/* kernels_gemm.h: a matrix times a matrix.
 *
 * As in BLIS (Van Zee and van de Geijn, 2015): a tile of C stays in registers during the sum over a block
 * of k. The packed panel of B stays in the first-level cache for all tiles of a column, and the block of A
 * stays in the second-level cache. */
#ifndef FG_KERNELS_GEMM_H
#define FG_KERNELS_GEMM_H

#include "kernels_matvec.h"

enum {
    /* the accumulators of a tile, a row of B and a number of A together fill the registers */
    TILE_ROWS = FG_REGISTERS == 32 ? 8 : 6,
    TILE_VECS = FG_REGISTERS == 32 ? 3 : 2,
    K_BLOCK = 256,
    N_BLOCK = 240, /* the packed B of a block has half a megabyte */
    M_BLOCK = 96,
    ALIGN = 8,          /* doubles in a cache line */
    TINY = 64,          /* up to so many multiplications, plain loops are faster */
    FEW = 1 << 14,      /* up to so many numbers can be read again for each of a few rows or columns */
    DIRECT_SPAN = 8192, /* B is not packed if its rows lie within so many numbers */
    MANY = 256          /* for so many rows, packing is always faster */
};

/* C += A B for one tile of `rows` rows and `vecs` vectors; b has its vectors side by side. If `part` is not
 * 0, the last vector of C has only `part` numbers. */
FG_INLINE void tile(int rows, int vecs, size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col,
                    const double *b, ptrdiff_t b_row, double *c, ptrdiff_t c_row, size_t part)
{
    vd acc[TILE_ROWS][TILE_VECS];
    FG_UNROLL(8)
    for (int r = 0; r < rows; r++) {
        FG_UNROLL(4)
        for (int v = 0; v < vecs; v++)
            acc[r][v] = v_set1(0.0);
    }
    for (; k > 0; k--) {
        vd bs[TILE_VECS];
        FG_UNROLL(4)
        for (int v = 0; v < vecs; v++)
            bs[v] = v_load(b + v * FG_W);
        FG_UNROLL(8)
        for (int r = 0; r < rows; r++) {
            const vd as = v_set1(a[r * a_row]);
            FG_UNROLL(4)
            for (int v = 0; v < vecs; v++)
                acc[r][v] = v_fma(as, bs[v], acc[r][v]);
        }
        a += a_col;
        b += b_row;
    }
    FG_UNROLL(8)
    for (int r = 0; r < rows; r++) {
        FG_UNROLL(4)
        for (int v = 0; v < vecs; v++) {
            double *const to = c + r * c_row + v * FG_W;
            if (part && v == vecs - 1)
                v_store_part(to, part, v_add(v_load_part(to, part), acc[r][v]));
            else
                v_store(to, v_add(v_load(to), acc[r][v]));
        }
    }
}

typedef void (*tile_function)(size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col, const double *b,
                              ptrdiff_t b_row, double *c, ptrdiff_t c_row, size_t part);

#define TILE(rows, vecs)                                                                             \
    static void tile_##rows##_##vecs(size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col,    \
                                     const double *b, ptrdiff_t b_row, double *c, ptrdiff_t c_row,   \
                                     size_t part)                                                    \
    {                                                                                                \
        tile(rows, vecs, k, a, a_row, a_col, b, b_row, c, c_row, part);                              \
    }
#if FG_REGISTERS == 32
#define TILES(rows) TILE(rows, 1) TILE(rows, 2) TILE(rows, 3)
#define TILES_OF(rows) {tile_##rows##_1, tile_##rows##_2, tile_##rows##_3}
TILES(7)
TILES(8)
#else
#define TILES(rows) TILE(rows, 1) TILE(rows, 2)
#define TILES_OF(rows) {tile_##rows##_1, tile_##rows##_2}
#endif
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)

static const tile_function tiles[TILE_ROWS][TILE_VECS] = {
    TILES_OF(1), TILES_OF(2), TILES_OF(3), TILES_OF(4), TILES_OF(5), TILES_OF(6),
#if FG_REGISTERS == 32
    TILES_OF(7), TILES_OF(8),
#endif
};

/* How many of `left` to take at once: at most `most`, and no very small rest for the last time. */
static size_t share(size_t left, size_t most)
{
    return left <= most ? left : left < 2 * most ? (left + 1) / 2 : most;
}

static size_t vectors(size_t n)
{
    return (n + FG_W - 1) / FG_W;
}

/* Copy k rows of `width` numbers of B to rows of whole vectors, with zeros at the end. */
static void pack_panel(size_t k, size_t width, const double *b, ptrdiff_t b_row, ptrdiff_t b_col, double *to)
{
    const size_t row = vectors(width) * FG_W;
    for (size_t at = 0; at < width; at += FG_W) {
        const double *const from = b + (ptrdiff_t)at * b_col;
        const size_t count = smaller(width - at, FG_W);
        double *out = to + at;
        size_t p = 0;
        if (b_col == 1) {
            if (count == FG_W)
                for (; p < k; p++, out += row)
                    v_store(out, v_load(from + (ptrdiff_t)p * b_row));
            else
                for (; p < k; p++, out += row)
                    v_store(out, v_load_part(from + (ptrdiff_t)p * b_row, count));
            continue;
        }
        if (b_row == 1) {
            for (; k - p >= FG_W; p += FG_W) {
                vd block[FG_W];
                FG_UNROLL(8)
                for (size_t c = 0; c < FG_W; c++)
                    block[c] = c < count ? v_load(from + (ptrdiff_t)c * b_col + p) : v_set1(0.0);
                v_transpose(block);
                FG_UNROLL(8)
                for (size_t c = 0; c < FG_W; c++, out += row)
                    v_store(out, block[c]);
            }
        }
        for (; p < k; p++, out += row)
            for (size_t c = 0; c < FG_W; c++)
                out[c] = c < count ? from[(ptrdiff_t)p * b_row + (ptrdiff_t)c * b_col] : 0.0;
    }
}

/* Copy `rows` rows of A, column after column. */
static void pack_rows(size_t rows, size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col, double *to)
{
    for (size_t p = 0; p < k; p++)
        for (size_t r = 0; r < rows; r++)
            *to++ = a[(ptrdiff_t)r * a_row + (ptrdiff_t)p * a_col];
}

static size_t gemm_work(size_t m, size_t n, size_t k)
{
    const size_t depth = smaller(k, K_BLOCK);
    const size_t packed_a = smaller(m, M_BLOCK) * depth;
    const size_t packed_b = vectors(smaller(n, N_BLOCK)) * FG_W * depth;
    return packed_a + packed_b + ALIGN + m + n + k; /* m, n and k are for gemm_column */
}

/* y += A x for one contiguous vector x; y has any stride, and `spare` has room for m numbers. */
static void gemm_column(size_t m, size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col,
                        const double *x, double *y, ptrdiff_t y_step, double *spare)
{
    if (a_col == 1) {
        if (y_step == 1) {
            gemv(m, k, a, a_row, x, y, 1, y);
            return;
        }
        gemv(m, k, a, a_row, x, NULL, 0, spare);
    } else if (a_row == 1) {
        if (y_step == 1) {
            gemv_grad(k, m, a, a_col, NULL, x, NULL, y);
            return;
        }
        for (size_t i = 0; i < m; i++)
            spare[i] = 0.0;
        gemv_grad(k, m, a, a_col, NULL, x, NULL, spare);
    } else {
        for (size_t i = 0; i < m; i++) {
            double total = 0.0;
            for (size_t p = 0; p < k; p++)
                total += a[(ptrdiff_t)i * a_row + (ptrdiff_t)p * a_col] * x[p];
            spare[i] = total;
        }
    }
    for (size_t i = 0; i < m; i++)
        y[(ptrdiff_t)i * y_step] += spare[i];
}

static const double *side_by_side(size_t n, const double *x, ptrdiff_t step, double *spare)
{
    if (step == 1)
        return x;
    for (size_t i = 0; i < n; i++)
        spare[i] = x[(ptrdiff_t)i * step];
    return spare;
}

static void gemm_tiny(size_t m, size_t n, size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col,
                      const double *b, ptrdiff_t b_row, ptrdiff_t b_col, double *c, ptrdiff_t c_row)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            const double *pa = a + (ptrdiff_t)i * a_row, *pb = b + (ptrdiff_t)j * b_col;
            double total = 0.0;
            for (size_t p = 0; p < k; p++, pa += a_col, pb += b_row)
                total += *pa * *pb;
            c[(ptrdiff_t)i * c_row + (ptrdiff_t)j] += total;
        }
}

/* C += A B for n <= N_BLOCK and k <= K_BLOCK. Rows of A, and panels of B without a partial vector, can be read
 * in place, without packing. A panel of B is packed all the same if it is read often and its rows lie far
 * apart, or if its rows fall on the same cache lines and evict each other. */
static void gemm_block(size_t m, size_t n, size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col,
                       const double *b, ptrdiff_t b_row, ptrdiff_t b_col, double *c, ptrdiff_t c_row,
                       double *packed_b)
{
    double *const packed_a = packed_b + vectors(n) * FG_W * k;
    const size_t spread = k * (size_t)(b_row < 0 ? -b_row : b_row);
    const int pack_a = a_col != 1 && n > 2 * TILE_VECS * FG_W;
    const int keep_b = b_col == 1 && (m <= 3 * TILE_ROWS || spread <= DIRECT_SPAN || (m < MANY && b_row % 64 != 0));

    for (size_t i0 = 0; i0 < m; i0 += M_BLOCK) {
        const size_t i_end = smaller(i0 + M_BLOCK, m);
        double *panel = packed_b;
        for (size_t j = 0, width; j < n; j += width) {
            const size_t vecs = share(vectors(n - j), TILE_VECS);
            width = smaller(vecs * FG_W, n - j);
            const size_t part = width % FG_W;
            const double *tile_b = b + (ptrdiff_t)j * b_col;
            ptrdiff_t tile_b_row = b_row;
            if (!keep_b || part) {
                if (i0 == 0)
                    pack_panel(k, width, tile_b, b_row, b_col, panel);
                tile_b = panel;
                tile_b_row = (ptrdiff_t)(vecs * FG_W);
            }
            panel += vecs * FG_W * k;

            double *block = packed_a;
            for (size_t i = i0, rows; i < i_end; i += rows) {
                rows = share(i_end - i, TILE_ROWS);
                const double *const tile_a = a + (ptrdiff_t)i * a_row;
                double *const tile_c = c + (ptrdiff_t)i * c_row + (ptrdiff_t)j;
                const tile_function function = tiles[rows - 1][vecs - 1];
                if (!pack_a) {
                    function(k, tile_a, a_row, a_col, tile_b, tile_b_row, tile_c, c_row, part);
                    continue;
                }
                if (j == 0)
                    pack_rows(rows, k, tile_a, a_row, a_col, block);
                function(k, block, 1, (ptrdiff_t)rows, tile_b, tile_b_row, tile_c, c_row, part);
                block += rows * k;
            }
        }
    }
}

static void gemm(size_t m, size_t n, size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col,
                 const double *b, ptrdiff_t b_row, ptrdiff_t b_col, double *c, ptrdiff_t c_row, double *work)
{
    if (m == 0 || n == 0 || k == 0)
        return;
    if (n == 1) {
        gemm_column(m, k, a, a_row, a_col, side_by_side(k, b, b_row, work), c, c_row, work + k);
        return;
    }
    if (m == 1) { /* the case n == 1, transposed */
        gemm_column(n, k, b, b_col, b_row, side_by_side(k, a, a_col, work), c, 1, work + k);
        return;
    }
    if (m * n * k <= TINY) {
        gemm_tiny(m, n, k, a, a_row, a_col, b, b_row, b_col, c, c_row);
        return;
    }
    if (n <= FG_W / 2 && m * k <= FEW && (a_row == 1 || a_col == 1)) { /* most of a tile would be empty */
        for (size_t j = 0; j < n; j++)
            gemm_column(m, k, a, a_row, a_col, side_by_side(k, b + (ptrdiff_t)j * b_col, b_row, work), c + j,
                        c_row, work + k);
        return;
    }
    if (m <= FG_W / 2 && n * k <= FEW && b_row == 1) { /* packing B would take longer */
        for (size_t i = 0; i < m; i++)
            gemm_column(n, k, b, b_col, b_row, side_by_side(k, a + (ptrdiff_t)i * a_row, a_col, work),
                        c + (ptrdiff_t)i * c_row, 1, work + k);
        return;
    }
    double *const packed_b = work + (ALIGN - (uintptr_t)work / sizeof *work % ALIGN) % ALIGN;
    for (size_t j = 0; j < n; j += N_BLOCK)
        for (size_t p = 0; p < k; p += K_BLOCK)
            gemm_block(m, smaller(n - j, N_BLOCK), smaller(k - p, K_BLOCK), a + (ptrdiff_t)p * a_col, a_row,
                       a_col, b + (ptrdiff_t)p * b_row + (ptrdiff_t)j * b_col, b_row, b_col, c + j, c_row,
                       packed_b);
}

#endif
