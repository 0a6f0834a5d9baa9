/* kernels_gemm.h: a matrix times a matrix.
 *
 * As in BLIS (Van Zee and van de Geijn, 2015): a tile of C stays in registers during the sum over a block of k. What
 * the tiles of a block share stays in the caches near the processor: either the rows of A in the first level and the
 * columns of B in the second, or, where A must be packed, a panel of B in the first and the rows of A in the second.
 * A tile takes the terms of its sums in order, at most K_BLOCK at a time: no sum depends on the tile's shape. */
#ifndef FG_KERNELS_GEMM_H
#define FG_KERNELS_GEMM_H

#include "kernels_matvec.h"

enum {
    /* the accumulators of a tile, a row of B and a number of A together fill the registers */
    TILE_ROWS = FG_REGISTERS == 32 ? 8 : 6,
    TILE_VECS = FG_REGISTERS == 32 ? 3 : 2,
    TILE_COLS = TILE_VECS * FG_W,
    WIDE = TILE_COLS > 16,        /* whether a panel of B is too large for the first-level cache */
    K_BLOCK = 256,
    N_BLOCK = WIDE ? 240 : 96,    /* columns of B that each tile of rows reads in turn */
    N_PACKED = 1024,              /* the same if A is packed */
    PACKED_TILES = 5,             /* tiles of rows that are packed at a time, */
    PACKED_STEPS = 16,            /* and how many terms of each */
    ALIGN = 64 / sizeof(real),    /* numbers in a cache line */
    TINY = 64,                    /* up to so many multiplications, plain loops are faster */
    FEW = 1 << 14,                /* up to so many numbers can be read again for each of a few rows or columns */
    DIRECT_SPAN = 10240,          /* what lies within so many numbers is not packed */
    DIRECT_TILES = 8,             /* nor is B for so few tiles of rows, */
    DIRECT_COLS = 2 * TILE_COLS,  /* nor A for so few columns, or, if its rows are in one piece, for so many: */
    DIRECT_ROW_COLS = WIDE ? 1 << 30 : 400,
    PACKING = 5,                  /* to pack or to turn a vector takes as long as so many multiply-adds */
    FAR = 64                      /* for so many terms it is worth while to ask for C early */
};

/* acc += A B for one tile of `rows` rows and `vecs` vectors; b has its vectors side by side. If `part` is not
 * 0, the last vector of B has only `part` numbers. */
FG_INLINE void tile_sums(int rows, int vecs, size_t k, const real *a, ptrdiff_t a_row, ptrdiff_t a_col,
                         const real *b, ptrdiff_t b_row, size_t part, vd acc[TILE_ROWS][TILE_VECS])
{
    for (; k > 0; k--) {
        vd bs[TILE_VECS];
        FG_UNROLL(4)
        for (int v = 0; v < vecs; v++)
            bs[v] = part && v == vecs - 1 ? v_load_part(b + v * FG_W, part) : v_load(b + v * FG_W);
        if (rows == 2 || rows == 3) {
            FG_UNROLL(4)
            for (int v = 0; v < vecs; v++)
                FG_IN_REGISTER(bs[v]); /* else it is loaded again for each row */
        }
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
}

/* to[i] += x[i] for the first `count` lanes. */
FG_INLINE void add_lanes(real *to, vd x, size_t count)
{
    if (count < FG_W)
        v_store_part(to, count, v_add(v_load_part(to, count), x));
    else
        v_store(to, v_add(v_load(to), x));
}

/* How many of `left` to take at once: at most `most`, and no very small rest for the last time. */
static size_t share(size_t left, size_t most)
{
    return left <= most ? left : left < 2 * most ? (left + 1) / 2 : most;
}

static size_t vectors(size_t n)
{
    return (n + FG_W - 1) / FG_W;
}

/* What the tiles of a block have in common. */
typedef struct common {
    size_t k;
    ptrdiff_t a_row, a_col, c_row;
    int turned; /* the transposed of C is meant, though c_row is that of C */
    const real *start; /* kernels_layer.h: C is not added to, but becomes the sums plus these, one for each column, */
    int relu;            /* and 0 where they are below */
} common;

/* C += the transposed of these sums of a tile. */
FG_APART void add_turned(int rows, int vecs, real sums[TILE_VECS][TILE_ROWS][FG_W], real *c,
                         ptrdiff_t c_row, size_t part)
{
    for (int v = 0; v < vecs; v++) {
        const size_t lanes = part && v == vecs - 1 ? part : FG_W;
        for (int r = 0; r < rows; r += FG_W) {
            const size_t count = smaller((size_t)(rows - r), FG_W);
            real *to = c + v * FG_W * c_row + r;
            if (count <= FG_W / 4) {
                for (size_t i = 0; i < lanes; i++, to += c_row)
                    for (size_t j = 0; j < count; j++)
                        to[j] += sums[v][(size_t)r + j][i];
                continue;
            }
            vd block[FG_W];
            FG_UNROLL(16)
            for (int i = 0; i < FG_W; i++)
                block[i] = r + i < rows ? v_load(sums[v][r + i]) : v_set1(0.0);
            v_transpose(block);
            FG_UNROLL(16)
            for (size_t i = 0; i < FG_W; i++, to += c_row)
                if (i < lanes)
                    add_lanes(to, block[i], count);
        }
    }
}

/* C += A B for one tile. */
FG_INLINE void tile(int rows, int vecs, const common *of, const real *a, const real *b, ptrdiff_t b_row, real *c,
                    size_t part)
{
    vd acc[TILE_ROWS][TILE_VECS];
    const ptrdiff_t c_row = of->c_row;
    if (of->k >= FAR && !of->turned && !of->start) {
        FG_UNROLL(8)
        for (int r = 0; r < rows; r++) {
            FG_UNROLL(4)
            for (int v = 0; v < vecs; v++)
                FG_PREFETCH(c + r * c_row + v * FG_W);
        }
    }
    FG_UNROLL(8)
    for (int r = 0; r < rows; r++) {
        FG_UNROLL(4)
        for (int v = 0; v < vecs; v++)
            acc[r][v] = v_set1(0.0);
    }
    if (part)
        tile_sums(rows, vecs, of->k, a, of->a_row, of->a_col, b, b_row, part, acc);
    else
        tile_sums(rows, vecs, of->k, a, of->a_row, of->a_col, b, b_row, 0, acc);
    if (of->start) {
        FG_UNROLL(4)
        for (int v = 0; v < vecs; v++) {
            const vd start = v_load(of->start + v * FG_W), zero = v_set1(0.0);
            FG_UNROLL(8)
            for (int r = 0; r < rows; r++) {
                const vd total = v_add(start, acc[r][v]);
                const vd z = of->relu ? v_select(v_lt(total, zero), zero, total) : total;
                if (part && v == vecs - 1)
                    v_store_part(c + r * c_row + v * FG_W, part, z);
                else
                    v_store(c + r * c_row + v * FG_W, z);
            }
        }
        return;
    }
    if (!of->turned) {
        FG_UNROLL(8)
        for (int r = 0; r < rows; r++) {
            FG_UNROLL(4)
            for (int v = 0; v < vecs; v++)
                add_lanes(c + r * c_row + v * FG_W, acc[r][v], part && v == vecs - 1 ? part : FG_W);
        }
        return;
    }
    real sums[TILE_VECS][TILE_ROWS][FG_W];
    FG_UNROLL(4)
    for (int v = 0; v < vecs; v++) {
        FG_UNROLL(8)
        for (int r = 0; r < rows; r++)
            v_store(sums[v][r], acc[r][v]);
    }
    add_turned(rows, vecs, sums, c, c_row, part);
}

typedef void (*tile_function)(const common *of, const real *a, const real *b, ptrdiff_t b_row, real *c,
                              size_t part);

#define TILE(rows, vecs)                                                                                     \
    static void tile_##rows##_##vecs(const common *of, const real *a, const real *b, ptrdiff_t b_row,        \
                                     real *c, size_t part)                                                   \
    {                                                                                                        \
        tile(rows, vecs, of, a, b, b_row, c, part);                                                          \
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

/* C += A B for n columns of up to TILE_ROWS rows. The columns of B lie side by side in rows that begin b_row apart,
 * or, if b_row is 0, in packed panels. */
FG_INLINE void stripe(const common *of, size_t rows, size_t n, const real *a, const real *b, ptrdiff_t b_row,
                      real *c)
{
    const tile_function *const function = tiles[rows - 1];
    const size_t b_col = b_row ? 1 : of->k;
    const ptrdiff_t c_col = of->turned ? of->c_row : 1;
    for (size_t j = 0, vecs; j < n; j += vecs * FG_W) {
        vecs = share(vectors(n - j), TILE_VECS);
        function[vecs - 1](of, a, b + j * b_col, b_row ? b_row : (ptrdiff_t)(vecs * FG_W), c + (ptrdiff_t)j * c_col,
                           vecs * FG_W <= n - j ? 0 : n % FG_W);
    }
}

/* Copy k rows of `width` numbers to rows that begin `to_row` apart. After the last of them, up to FG_W - 1 numbers
 * more may be written. */
static void pack(size_t k, size_t width, const real *from, ptrdiff_t row, ptrdiff_t col, real *to, size_t to_row)
{
    const size_t whole = width - width % FG_W;
    if (col == 1) {
        for (; k > 0; k--, from += row, to += to_row) {
            for (size_t at = 0; at < whole; at += FG_W)
                v_store(to + at, v_load(from + at));
            if (whole < width)
                v_store(to + whole, v_load_part(from + whole, width - whole));
        }
        return;
    }
    for (size_t at = (vectors(width) - 1) * FG_W;; at -= FG_W) { /* a partial vector first: it spoils the next row */
        const real *const b = from + (ptrdiff_t)at * col;
        const size_t count = smaller(width - at, FG_W);
        real *out = to + at;
        size_t p = 0;
        if (row == 1) {
            for (; k - p >= FG_W; p += FG_W) {
                vd block[FG_W];
                FG_UNROLL(16)
                for (size_t c = 0; c < FG_W; c++)
                    block[c] = c < count ? v_load(b + (ptrdiff_t)c * col + p) : v_set1(0.0);
                v_transpose(block);
                FG_UNROLL(16)
                for (size_t c = 0; c < FG_W; c++, out += to_row)
                    v_store(out, block[c]);
            }
        }
        for (; p < k; p++, out += to_row)
            for (size_t c = 0; c < count; c++)
                out[c] = b[(ptrdiff_t)p * row + (ptrdiff_t)c * col];
        if (at == 0)
            return;
    }
}

static size_t gemm_work(size_t m, size_t n, size_t k)
{
    const size_t depth = smaller(k, K_BLOCK);
    const size_t longer = m > n ? m : n; /* for A and B may change places */
    const size_t packed_a = PACKED_TILES * (TILE_ROWS * depth + FG_W);
    const size_t packed_b = vectors(smaller(longer, N_PACKED)) * FG_W * depth;
    return packed_a + packed_b + ALIGN + m + n + k; /* m, n and k are for gemm_column */
}

/* y += A x for one contiguous vector x; y has any stride, and `spare` has room for m numbers. */
static void gemm_column(size_t m, size_t k, const real *a, ptrdiff_t a_row, ptrdiff_t a_col,
                        const real *x, real *y, ptrdiff_t y_step, real *spare)
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
            real total = 0;
            for (size_t p = 0; p < k; p++)
                total += a[(ptrdiff_t)i * a_row + (ptrdiff_t)p * a_col] * x[p];
            spare[i] = total;
        }
    }
    for (size_t i = 0; i < m; i++)
        y[(ptrdiff_t)i * y_step] += spare[i];
}

static const real *side_by_side(size_t n, const real *x, ptrdiff_t step, real *spare)
{
    if (step == 1)
        return x;
    for (size_t i = 0; i < n; i++)
        spare[i] = x[(ptrdiff_t)i * step];
    return spare;
}

static void gemm_tiny(size_t m, size_t n, size_t k, const real *a, ptrdiff_t a_row, ptrdiff_t a_col,
                      const real *b, ptrdiff_t b_row, ptrdiff_t b_col, real *c, ptrdiff_t c_row)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            const real *pa = a + (ptrdiff_t)i * a_row, *pb = b + (ptrdiff_t)j * b_col;
            real total = 0;
            for (size_t p = 0; p < k; p++, pa += a_col, pb += b_row)
                total += *pa * *pb;
            c[(ptrdiff_t)i * c_row + (ptrdiff_t)j] += total;
        }
}

/* C += A B, or, if `turned`, the transposed of C, for k <= K_BLOCK. Rows of A and panels of B can be read in place,
 * without packing. B is packed all the same if it is read often and its rows lie far apart. */
static void gemm_block(common *of, size_t m, size_t n, const real *a, const real *b, ptrdiff_t b_row,
                       ptrdiff_t b_col, real *c, int pack_a, real *packed_b)
{
    const size_t k = of->k, span = k * (size_t)(b_row < 0 ? -b_row : b_row);
    const ptrdiff_t a_row = of->a_row, a_col = of->a_col, down = of->turned ? 1 : of->c_row;
    if (b_col != 1 || b_row == 0 || (m > DIRECT_TILES * TILE_ROWS && span > DIRECT_SPAN)) {
        for (size_t j = 0, vecs; j < n; j += vecs * FG_W) {
            vecs = share(vectors(n - j), TILE_VECS);
            pack(k, smaller(vecs * FG_W, n - j), b + (ptrdiff_t)j * b_col, b_row, b_col, packed_b + j * k, vecs * FG_W);
        }
        b = packed_b;
        b_row = 0;
    }
    if (!pack_a) {
        for (size_t i = 0, rows; i < m; i += rows, a += (ptrdiff_t)rows * a_row, c += (ptrdiff_t)rows * down) {
            rows = share(m - i, TILE_ROWS);
            stripe(of, rows, n, a, b, b_row, c);
        }
        return;
    }
    real *const packed_a = packed_b + vectors(n) * FG_W * k;
    const size_t apart = TILE_ROWS * k + FG_W;
    const ptrdiff_t across = of->turned ? of->c_row : 1;
    of->a_row = 1;
    of->a_col = TILE_ROWS;
    for (size_t i0 = 0, block; i0 < m; i0 += block, a += (ptrdiff_t)block * a_row, c += (ptrdiff_t)block * down) {
        block = share(m - i0, PACKED_TILES * TILE_ROWS);
        for (size_t p = 0; p < k; p += PACKED_STEPS) {
            real *to = packed_a + p * TILE_ROWS;
            for (size_t i = 0, rows; i < block; i += rows, to += apart) {
                rows = share(block - i, TILE_ROWS);
                pack(smaller(k - p, PACKED_STEPS), rows, a + (ptrdiff_t)i * a_row + (ptrdiff_t)p * a_col, a_col, a_row,
                     to, TILE_ROWS);
            }
        }
        for (size_t j = 0, width; j < n; j += width) {
            const real *from = packed_a, *const panel = b + (b_row ? j : j * k);
            width = smaller(share(vectors(n - j), TILE_VECS) * FG_W, n - j);
            for (size_t i = 0, rows; i < block; i += rows, from += apart) {
                rows = share(block - i, TILE_ROWS);
                stripe(of, rows, width, from, panel, b_row, c + (ptrdiff_t)i * down + (ptrdiff_t)j * across);
            }
        }
    }
}

static void gemm(size_t m, size_t n, size_t k, const real *a, ptrdiff_t a_row, ptrdiff_t a_col,
                 const real *b, ptrdiff_t b_row, ptrdiff_t b_col, real *c, ptrdiff_t c_row, real *work)
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
    if (n <= FG_W / 2 && m * k <= FEW && a_col == 1) { /* most of a tile would be empty */
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
    /* What a step of the sums costs, with vectors of columns and with vectors of rows. */
    const size_t across = vectors(n), down = vectors(m);
    const size_t plain = (m + (b_col == 1 ? 0 : PACKING)) * across, other = (n + (a_row == 1 ? 0 : PACKING)) * down;
    const int turned = other < plain
                    && (double)(plain - other) * (double)k > (double)PACKING * (double)m * (double)across;
    if (turned) {
        const real *const left = b;
        const ptrdiff_t row = b_col, col = b_row;
        const size_t rows = n;
        b = a, b_row = a_col, b_col = a_row;
        a = left, a_row = row, a_col = col;
        n = m, m = rows;
    }
    const ptrdiff_t c_col = turned ? c_row : 1;
    size_t rest = n % FG_W; /* columns for which a vector would be almost empty */
    if (rest <= FG_W / 4 && n > FG_W && m * k <= FEW && (a_row == 1 || a_col == 1))
        for (; rest > 0; rest--) {
            n--;
            gemm_column(m, k, a, a_row, a_col, side_by_side(k, b + (ptrdiff_t)n * b_col, b_row, work),
                        c + (ptrdiff_t)n * c_col, turned ? 1 : c_row, work + k);
        }
    real *const packed_b = work + (ALIGN - (uintptr_t)work / sizeof *work % ALIGN) % ALIGN;
    const size_t span = smaller(k, K_BLOCK) * (size_t)(a_col < 0 ? -a_col : a_col);
    const int pack_a = a_col == 1 ? n > DIRECT_ROW_COLS : n > DIRECT_COLS && span > DIRECT_SPAN;
    for (size_t j = 0, width; j < n; j += width) {
        width = smaller(share(vectors(n - j), (pack_a ? N_PACKED : N_BLOCK) / FG_W) * FG_W, n - j);
        for (size_t p = 0, depth; p < k; p += depth) {
            depth = share(k - p, K_BLOCK);
            common of = {depth, a_row, a_col, c_row, turned, NULL, 0};
            gemm_block(&of, m, width, a + (ptrdiff_t)p * a_col, b + (ptrdiff_t)p * b_row + (ptrdiff_t)j * b_col, b_row,
                       b_col, c + (ptrdiff_t)j * c_col, pack_a, packed_b);
        }
    }
}

#endif
