/* block.c: see block.h. The order here: building, views as memory, which results are reached, then each
 * instruction's forward and reverse, marking operands, single elements. */
#include "block.h"

#include <string.h>

/* ---- building ---- */

fg_record *fg_block_begin(fg_tape *t, fg_id param, fg_id views, fg_id extra)
{
    fg_record *r = (fg_record *)(void *)(t->pool + t->npool);
    assert(fg_block_words(views, extra) <= t->pool_capacity - t->npool && views <= FG_MAX_VIEWS);
    *r = (fg_record){.param = param, .views = views, .extra = extra};
    r->size = fg_block_words(views, extra);
    return r;
}

void fg_block_view(fg_record *r, fg_id v, fg_view view)
{
    *fg_record_view(r, v) = view;
}

fg_id *fg_block_ids(fg_record *r)
{
    return (fg_id *)(void *)r + r->size;
}

void fg_block_list(fg_record *r, fg_id v, fg_id rows, fg_id cols)
{
    const fg_id *ids = fg_block_ids(r);
    /* Columns side by side, and rows in order, without overlap, for sums are added in place, and with
     * little between them, for that stays alive with them. */
    const int64_t step = rows > 1 && cols > 0 ? (int64_t)ids[cols] - ids[0] : cols;
    int in_order = step >= cols && step <= 2 * (int64_t)cols + 8;
    for (fg_id row = 0; in_order && row < rows; row++)
        for (fg_id col = 0; col < cols; col++)
            if ((int64_t)ids[row * cols + col] != ids[0] + row * step + col) {
                in_order = 0;
                break;
            }
    fg_view view = {0, 0, rows, cols, (int32_t)step, 1};
    if (in_order) {
        view.base = rows > 0 && cols > 0 ? ids[0] : 0;
    } else {
        view.flags = FG_VIEW_LIST;
        view.base = r->size;
        r->size += rows * cols;
    }
    fg_block_view(r, v, view);
}

/* ---- views as memory ---- */

/* A matrix of numbers: element (i, j) at p[i * row + j * col]. */
typedef struct matrix {
    double *p;
    ptrdiff_t row, col;
    int copied; /* p is scratch */
} matrix;

/* A rectangle of the results of an instruction, or of the elements of a view. */
typedef struct area {
    fg_id row, col, rows, cols;
} area;

/* One forward or reverse step over some of an instruction's results. */
typedef struct step {
    fg_tape *t;
    fg_record *r;
    int op;
    area at;      /* the results */
    double *scratch; /* what is still free of it */
    double **aside;  /* NULL, or for each view where its gradients go instead of to the tape's, dense: those of
                        constants, too */
    size_t done;     /* FG_LAYER: blocks of the reverse step that are done, if it was interrupted */
} step;

static size_t size_of(const fg_view *v)
{
    return (size_t)v->rows * v->cols;
}

static int is_listed(const fg_view *v)
{
    return (v->flags & FG_VIEW_LIST) != 0;
}

/* Whether the loops cannot take the view as it lies. `side`: columns have to be side by side. */
static int must_copy(const fg_view *v, int side)
{
    return is_listed(v) || (side && v->col_step != 1 && v->cols > 1);
}

static double *take(double **scratch, size_t doubles)
{
    double *p = *scratch;
    *scratch += doubles;
    return p;
}

static int is_single(const fg_record *r)
{
    return r->rows == 1 && r->cols == 1;
}

/* The elements of view v that these results are computed from. */
static inline area area_of(int op, fg_record *r, fg_id v, area results)
{
    const fg_view *view = fg_record_view(r, v);
    switch (op) {
    case FG_LAYER:
        if (v == 2)
            return (area){0, results.col, 1, results.cols};
        return v == 0 ? (area){results.row, 0, results.rows, view->cols}
                      : (area){results.col, 0, results.cols, view->cols};
    case FG_MAP:
        return (area){view->rows > 1 ? results.row : 0, view->cols > 1 ? results.col : 0,
                         view->rows > 1 ? results.rows : 1, view->cols > 1 ? results.cols : 1};
    case FG_SOFTMAX:
    case FG_LOG_SOFTMAX:
        return (area){results.row, 0, results.rows, view->cols};
    default:
        if (is_single(r))
            return (area){0, 0, view->rows, view->cols};
        return (area){results.row * r->cols + results.col, 0, results.rows * results.cols, view->cols};
    }
}

/* Which numbers of a view: its data, or its gradients, which are added up in what is returned; it is NULL
 * if nobody wants them. */
typedef enum numbers { DATA, GRADIENTS } numbers;

enum { BYTES = 8 };

/* Eight opcodes from `op` on, and a word with `op` in each byte. */
static inline uint64_t eight_ops(const uint8_t *op)
{
    uint64_t word;
    memcpy(&word, op, sizeof word);
    return word;
}

static inline uint64_t each_byte(unsigned op)
{
    return (uint64_t)op * 0x0101010101010101u;
}

/* Whether these n nodes, with or without a hook, are frozen leaves. */
static int all_frozen(const uint8_t *op, fg_id n)
{
    uint64_t other = 0;
    fg_id j = 0;
    for (; j + BYTES <= n; j += BYTES)
        other |= (eight_ops(op + j) & ~each_byte(FG_HOOK)) ^ each_byte(FG_FROZEN);
    for (; j < n; j++)
        other |= (op[j] & ~FG_HOOK) != FG_FROZEN;
    return !other;
}

/* Whether nobody wants the gradients of an area of a view: it is constant, or all of it is frozen leaves. */
static inline int is_unwanted(const fg_tape *t, fg_record *r, const fg_view *view, area a)
{
    if (view->flags & FG_VIEW_CONSTANT)
        return 1;
    const int dense = !is_listed(view) && view->col_step == 1;
    for (fg_id i = a.row; i < a.row + a.rows && a.cols > 0; i++) {
        if (fg_tape_op(t, fg_record_slot(r, view, i, a.col)) != FG_FROZEN) /* mostly at once */
            return 0;
        if (dense && !all_frozen(t->op + fg_record_slot(r, view, i, a.col), a.cols))
            return 0;
        for (fg_id j = 0; !dense && j < a.cols; j++)
            if (fg_tape_op(t, fg_record_slot(r, view, i, a.col + j)) != FG_FROZEN)
                return 0;
    }
    return 1;
}

/* An area of a view as it lies on the tape, or, if `copy`, in dense scratch memory: gradients then begin
 * with 0, and add_copied() adds them to the tape's at the end. picks: the rows, if they are not those of the
 * area; they are copied. */
static matrix lay_out(step *s, fg_id v, numbers what, area a, const fg_id *picks, int copy)
{
    const fg_tape *const t = s->t;
    const fg_view *view = fg_record_view(s->r, v);
    if (what == GRADIENTS && s->aside) {
        memset(s->aside[v], 0, (size_t)a.rows * a.cols * sizeof(double));
        return (matrix){s->aside[v], (ptrdiff_t)a.cols, 1, 0};
    }
    if (what == GRADIENTS && !picks && is_unwanted(t, s->r, view, a))
        return (matrix){NULL, 0, 0, 0};
    if (what == GRADIENTS && (view->flags & FG_VIEW_CONSTANT))
        return (matrix){NULL, 0, 0, 0};
    if (!copy && !picks)
        return (matrix){(what == DATA ? t->data : t->grad) + fg_record_slot(s->r, view, a.row, a.col),
                        view->row_step, view->cols > 1 ? view->col_step : 1, 0};
    const matrix m = {take(&s->scratch, (size_t)a.rows * a.cols), (ptrdiff_t)a.cols, 1, 1};
    double *p = m.p;
    if (what == GRADIENTS) {
        memset(p, 0, (size_t)a.rows * a.cols * sizeof *p);
        return m;
    }
    for (fg_id i = 0; i < a.rows; i++) {
        const fg_id row = picks ? picks[i] : a.row + i;
        for (fg_id j = 0; j < a.cols; j++)
            *p++ = t->data[fg_record_slot(s->r, view, row, a.col + j)];
    }
    return m;
}

static void add_copied(const step *s, fg_id v, area a, const fg_id *picks, matrix m)
{
    const fg_view *view = fg_record_view(s->r, v);
    const double *p = m.p;
    if (!m.copied)
        return;
    for (fg_id i = 0; i < a.rows; i++) {
        const fg_id row = picks ? picks[i] : a.row + i;
        for (fg_id j = 0; j < a.cols; j++)
            s->t->grad[fg_record_slot(s->r, view, row, a.col + j)] += *p++;
    }
}

static area operand_area(const step *s, fg_id v)
{
    return area_of(s->op, s->r, v, s->at);
}

/* ---- which results a sweep has reached: those marked in the tape's own marks ---- */

/* The first of the results from k to before `end` that is reached, or with 0 not reached; `end` if there is none.
 * first: the slot of result 0. */
static fg_id next_result(const fg_tape *t, fg_id first, fg_id k, fg_id end, unsigned reached)
{
    const uint64_t flip = reached ? 0 : ~(uint64_t)0;
    while (k < end) {
        const fg_id i = first + k;
        const uint64_t rest = (t->marks.word[i >> 6] ^ flip) >> (i & 63u);
        if (rest) {
            k += fg_bits_low(rest);
            return k < end ? k : end;
        }
        k += 64u - (i & 63u);
    }
    return end;
}

/* Which of the n results from k on are reached, up to 64 of them: the lowest bit is result k. */
static uint64_t reached_bits(const fg_tape *t, fg_id first, fg_id k, size_t n)
{
    const fg_id i = first + k;
    const unsigned shift = i & 63u;
    uint64_t bits = t->marks.word[i >> 6] >> shift;
    if (shift && n > 64u - shift)
        bits |= t->marks.word[(i >> 6) + 1] << (64u - shift);
    return n < 64 ? bits & (((uint64_t)1 << n) - 1u) : bits;
}

/* How many of the results from k to before `end` are reached, and in how many stretches. */
static fg_id count_reached(const fg_tape *t, fg_id first, fg_id k, fg_id end, fg_id *stretches)
{
    fg_id count = 0;
    uint64_t last = 0; /* whether the result before was */
    *stretches = 0;
    for (; k < end; k += 64) {
        const uint64_t bits = reached_bits(t, first, k, end - k);
        count += fg_bits_count(bits);
        *stretches += fg_bits_count(bits & ~(bits << 1 | last));
        last = bits >> 63;
    }
    return count;
}

/* Numbers of a row whose result is not reached become 0. */
static void clear_unreached(const fg_tape *t, fg_id first, fg_id k, fg_id n, double *row)
{
    for (fg_id j = 0; j < n; j += 64) {
        const fg_id m = n - j < 64 ? n - j : 64;
        uint64_t bits = reached_bits(t, first, k + j, m) ^ ~(uint64_t)0 >> (64 - m);
        for (; bits; bits &= bits - 1u)
            row[j + fg_bits_low(bits)] = 0.0;
    }
}

/* The results' rows and columns that have one that is reached, in order. `all`: how many results those rows and
 * columns have in common; `count`: how many of these are reached. */
typedef struct reached {
    fg_id *rows, *cols; /* in scratch memory */
    fg_id n_rows, n_cols;
    uint64_t all, count;
} reached;

/* Scratch memory for it, in doubles. */
static size_t reached_need(const fg_record *r)
{
    return ((size_t)r->rows + 2u * (size_t)r->cols) / 2u + 2u;
}

static reached find_reached(const fg_tape *t, const fg_record *r, fg_id first, double **scratch)
{
    reached found = {(fg_id *)(void *)take(scratch, reached_need(r)), NULL, 0, 0, 0, 0};
    found.cols = found.rows + r->rows;
    uint8_t *const seen = (uint8_t *)(void *)(found.cols + r->cols);
    memset(seen, 0, r->cols);
    for (fg_id row = 0; row < r->rows; row++) {
        fg_id count = 0;
        for (fg_id j = 0; j < r->cols; j += 64) {
            const fg_id m = r->cols - j < 64 ? r->cols - j : 64;
            uint64_t bits = reached_bits(t, first, row * r->cols + j, m);
            count += fg_bits_count(bits);
            if (bits == ~(uint64_t)0 >> (64 - m))
                memset(seen + j, 1, m);
            else
                for (; bits; bits &= bits - 1u)
                    seen[j + fg_bits_low(bits)] = 1;
        }
        if (count > 0)
            found.rows[found.n_rows++] = row;
        found.count += count;
    }
    for (fg_id col = 0; col < r->cols; col++)
        if (seen[col])
            found.cols[found.n_cols++] = col;
    found.all = (uint64_t)found.n_rows * found.n_cols;
    return found;
}

/* Whether numbers in order follow each other, so that they need no list. */
static int is_range(const fg_id *ids, fg_id count)
{
    return ids[count - 1] - ids[0] + 1 == count;
}

static size_t larger(size_t x, size_t y)
{
    return x > y ? x : y;
}

/* ---- FG_LAYER: z (m, n) = activation(x (m, k) w (n, k)^T + b (1, n)) ---- */

/* Which loop a layer takes. */
typedef enum layer_shape { ONE_ROW, ONE_COLUMN, BLOCKED } layer_shape;

static layer_shape shape_of(fg_record *r, fg_id m, fg_id n)
{
    const fg_view *x = fg_record_view(r, 0), *w = fg_record_view(r, 1);
    if (m == 1 && !(w->col_step != 1 && w->cols > 1 && !is_listed(w)))
        return ONE_ROW;
    if (n == 1 && !(x->col_step != 1 && x->cols > 1 && !is_listed(x)))
        return ONE_COLUMN;
    return BLOCKED;
}

static size_t gemm_work(const fg_kernels *kernels, size_t m, size_t n, size_t k)
{
    const size_t forward = kernels->gemm_work(m, n, k);
    const size_t dx = larger(kernels->gemm_work(m, k, n), kernels->gemm_work(k, m, n));
    const size_t dw = larger(kernels->gemm_work(n, k, m), kernels->gemm_work(k, n, m));
    return larger(forward, larger(dx, dw));
}

/* How much scratch memory the forward step and the reverse step need, whole or in part. */
static size_t scratch_need(const fg_tape *t, int op, fg_record *r)
{
    size_t need = 0;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *view = fg_record_view(r, v);
        if (op == FG_LOGSUMEXP && is_single(r))
            need += size_of(view);
        else if (op >= FG_LOGSUMEXP)
            need += view->cols; /* one row */
        /* Lanes go down a column if there is one only, so FG_MAP may copy other views than these. */
        if (op == FG_MAP || must_copy(view, 1) || (op >= FG_SUM && view->rows > 1))
            need += 2 * size_of(view);
    }
    if (op == FG_LAYER) {
        const size_t m = r->rows, n = r->cols, k = fg_record_view(r, 0)->cols;
        need += m * n + 2 * n + 2 * k + reached_need(r);
        if (shape_of(r, r->rows, r->cols) == BLOCKED)
            need += gemm_work(t->kernels, m, n, k);
    }
    return need + FG_MAX_VIEWS + 1;
}

/* A long product is made in blocks of about so many multiply-adds, and between them the caller is asked whether
 * to stop: some 10 ms. */
#define BLOCK_WORK 100000000.0

/* Rows and columns of the next block of the result, as large as that allows. */
static void block_size(size_t m, size_t n, size_t k, size_t *rows, size_t *cols)
{
    *rows = m;
    *cols = n;
    if ((double)m * (double)n * (double)k <= BLOCK_WORK)
        return;
    const double fit = BLOCK_WORK / ((double)n * (double)k);
    *rows = fit >= 96.0 ? (size_t)fit : m < 96 ? m : 96; /* fewer would leave the product's own blocks empty */
    const double across = BLOCK_WORK / ((double)*rows * (double)k);
    if (across < (double)n)
        *cols = across >= 240.0 ? (size_t)across : n < 240 ? n : 240;
}

static int wants_stop(const fg_tape *t)
{
    return t->stop && t->stop();
}

/* A matrix that is only read. */
typedef struct operand {
    const double *p;
    ptrdiff_t row, col;
} operand;

static operand read_only(matrix m)
{
    return (operand){m.p, m.row, m.col};
}

/* C (m, n) += A (m, k) B (k, n), where the columns of C may lie apart if its rows lie side by side. The first
 * *skip blocks are left out and subtracted from it; 0, or how many blocks were done when the caller wanted to
 * stop. */
static size_t multiply_add(const fg_tape *t, size_t m, size_t n, size_t k, operand a, operand b, matrix c,
                           double *work, size_t *skip)
{
    const fg_kernels *const kernels = t->kernels;
    size_t rows, cols, done = 0;
    block_size(m, n, k, &rows, &cols);
    for (size_t i = 0; i < m; i += rows)
        for (size_t j = 0; j < n; j += cols) {
            const size_t mi = m - i < rows ? m - i : rows, nj = n - j < cols ? n - j : cols;
            const double *const ai = a.p + (ptrdiff_t)i * a.row, *const bj = b.p + (ptrdiff_t)j * b.col;
            double *const cij = c.p + (ptrdiff_t)i * c.row + (ptrdiff_t)j * c.col;
            done++;
            if (*skip > 0) {
                --*skip;
                continue;
            }
            if (c.col == 1)
                kernels->gemm(mi, nj, k, ai, a.row, a.col, bj, b.row, b.col, cij, c.row, work);
            else /* the same, transposed */
                kernels->gemm(nj, mi, k, bj, b.col, b.row, ai, a.col, a.row, cij, c.col, work);
            if ((i + rows < m || j + cols < n) && wants_stop(t))
                return done;
        }
    return 0;
}

/* How many blocks that product has. */
static size_t blocks_of(size_t m, size_t n, size_t k)
{
    size_t rows, cols;
    block_size(m, n, k, &rows, &cols);
    return ((m + rows - 1) / rows) * ((n + cols - 1) / cols);
}

static int layer_forward(step *s, double *z)
{
    const fg_kernels *const kernels = s->t->kernels;
    fg_record *const r = s->r;
    const size_t m = r->rows, n = r->cols, k = fg_record_view(r, 0)->cols;
    const layer_shape shape = shape_of(r, r->rows, r->cols);
    const int side = shape != BLOCKED;
    size_t skip = 0;
    double *const sums = r->param == FG_LEAF ? z : take(&s->scratch, m * n);
    const matrix x = lay_out(s, 0, DATA, operand_area(s, 0), NULL, must_copy(fg_record_view(r, 0), side));
    const matrix w = lay_out(s, 1, DATA, operand_area(s, 1), NULL, must_copy(fg_record_view(r, 1), side));
    matrix b = {NULL, 0, 0, 0};
    if (r->views > 2)
        b = lay_out(s, 2, DATA, operand_area(s, 2), NULL, is_listed(fg_record_view(r, 2)));

    if (shape == ONE_ROW) {
        kernels->gemv(n, k, w.p, w.row, x.p, b.p, b.col, sums);
    } else if (shape == ONE_COLUMN) {
        kernels->gemv(m, k, x.p, x.row, w.p, b.p, 0, sums);
    } else {
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < n; j++)
                sums[i * n + j] = b.p ? b.p[(ptrdiff_t)j * b.col] : 0.0;
        if (multiply_add(s->t, m, n, k, read_only(x), (operand){w.p, w.col, w.row},
                         (matrix){sums, (ptrdiff_t)n, 1, 0}, s->scratch, &skip))
            return FG_E_INTERRUPTED;
    }
    if (r->param != FG_LEAF)
        kernels->map((int)r->param, m * n, (const double *const[3]){sums}, (const size_t[3]){1}, 0, z);
    return FG_OK;
}

/* The gradient before the activation of the results at s->at, dense; of the rows and columns in these lists, if
 * they are given, which begin and end where s->at does. masked: 0 where a result is not reached. z and dz are
 * those of result (0, 0), of which the only one at hand, with s->aside, is the one at s->at. */
static double *layer_dsums(step *s, const fg_id *rows, const fg_id *cols, const double *z, const double *dz,
                           int masked, fg_id first)
{
    const fg_record *const r = s->r;
    const fg_id m = s->at.rows, n = s->at.cols;
    const fg_id width = cols ? r->cols : n, col = cols || s->aside ? 0 : s->at.col;
    const size_t wide_row = r->cols;
    double *const dsums = take(&s->scratch, (size_t)m * n);
    double *const wide = take(&s->scratch, wide_row);
    const int together = !rows && !cols && (m == 1 || n == r->cols); /* all rows in one piece */
    for (fg_id i = 0; i < (together ? 1 : m); i++) {
        const fg_id row = rows ? rows[i] : s->at.row + i;
        const size_t at = s->aside ? 0 : row * wide_row + col, count = together ? (size_t)m * n : width;
        double *const di = dsums + (size_t)i * n, *const d = cols ? wide : di;
        if (r->param == FG_LEAF) {
            memcpy(d, dz + at, count * sizeof *d);
        } else { /* The activations of a layer are those whose derivative follows from z, so z stands for x. */
            memset(d, 0, count * sizeof *d);
            s->t->kernels->map_grad((int)r->param, 0, count, (const double *const[3]){z + at},
                                    (const size_t[3]){1}, 0, z + at, dz + at, d);
        }
        if (masked)
            clear_unreached(s->t, first, row * r->cols + col, (fg_id)count, d);
        for (fg_id j = 0; j < n && cols; j++)
            di[j] = wide[cols[j]];
    }
    return dsums;
}

/* Whether all numbers are finite. */
static int all_finite(matrix x, fg_id m, fg_id n)
{
    const uint64_t exponent = (uint64_t)0x7FF << 52;
    uint64_t infinite = 0, bits;
    for (fg_id i = 0; i < m; i++)
        for (fg_id j = 0; j < n; j++) {
            memcpy(&bits, x.p + (ptrdiff_t)i * x.row + (ptrdiff_t)j * x.col, sizeof bits);
            infinite |= (bits & exponent) == exponent;
        }
    return !infinite;
}

static void bias_reverse(step *s, const fg_id *cols, const double *dsums)
{
    fg_record *const r = s->r;
    const fg_view *const vb = fg_record_view(r, 2);
    const fg_id m = s->at.rows, n = s->at.cols, col = s->at.col;
    const double *sums = dsums;
    if ((vb->flags & FG_VIEW_CONSTANT) && !s->aside)
        return;
    if (m > 1) {
        double *const added = take(&s->scratch, n);
        memset(added, 0, n * sizeof *added);
        for (fg_id i = 0; i < m; i++)
            s->t->kernels->axpy(n, 1.0, dsums + (size_t)i * n, added);
        sums = added;
    }
    if (s->aside)
        memcpy(s->aside[2], sums, n * sizeof *sums);
    else if (!cols && !is_listed(vb) && vb->col_step == 1)
        s->t->kernels->axpy(n, 1.0, sums, s->t->grad + vb->base + col);
    else
        for (fg_id j = 0; j < n; j++)
            s->t->grad[fg_record_slot(r, vb, 0, cols ? cols[j] : col + j)] += sums[j];
}

/* dx (m, k) += dsums (m, n) w (n, k), dw (n, k) += dsums^T x (m, k), db (1, n) += the sum of dsums over rows, for
 * the rows and columns of the results at s->at, or in these lists.
 * FG_OK; FG_E_INTERRUPTED with s->done blocks done, and the next call goes on from there; with `masked`, FG_E_DOMAIN
 * and nothing done unless x and w are finite: 0 times what is not would come where nothing was reached. */
static int layer_reverse(step *s, const fg_id *rows, const fg_id *cols, const double *dsums, int masked)
{
    const fg_tape *const t = s->t;
    fg_record *const r = s->r;
    const fg_view *const vx = fg_record_view(r, 0), *const vw = fg_record_view(r, 1);
    const fg_id m = s->at.rows, n = s->at.cols, k = vx->cols;
    const layer_shape shape = shape_of(r, m, n);
    const area ax = operand_area(s, 0), aw = operand_area(s, 1);
    const int side = shape != BLOCKED;
    size_t skip = s->done, stopped = 0;

    const matrix x = lay_out(s, 0, DATA, ax, rows, must_copy(vx, side));
    const matrix w = lay_out(s, 1, DATA, aw, cols, must_copy(vw, side));
    if (masked && s->done == 0 && !(all_finite(x, m, k) && all_finite(w, n, k)))
        return FG_E_DOMAIN;
    if (r->views > 2 && s->done == 0)
        bias_reverse(s, cols, dsums);
    /* Blocked: a copy unless rows or columns are side by side. */
    const matrix dx = lay_out(s, 0, GRADIENTS, ax, rows, must_copy(vx, side || (vx->row_step != 1 && m > 1)));
    const matrix dw = lay_out(s, 1, GRADIENTS, aw, cols, must_copy(vw, side || (vw->row_step != 1 && n > 1)));
    if (shape == ONE_ROW) {
        t->kernels->gemv_grad(n, k, w.p, w.row, x.p, dsums, dw.p, dx.p);
    } else if (shape == ONE_COLUMN) {
        t->kernels->gemv_grad(m, k, x.p, x.row, w.p, dsums, dx.p, dw.p);
    } else {
        const operand d = {dsums, (ptrdiff_t)n, 1}, turned = {dsums, 1, (ptrdiff_t)n};
        if (dx.p)
            stopped = multiply_add(t, m, k, n, d, read_only(w), dx, s->scratch, &skip);
        if (dw.p && !stopped) {
            stopped = multiply_add(t, n, k, m, turned, read_only(x), dw, s->scratch, &skip);
            if (stopped && dx.p)
                stopped += blocks_of(m, k, n);
        }
    }
    s->done = stopped;
    add_copied(s, 0, ax, rows, dx);
    add_copied(s, 1, aw, cols, dw);
    return stopped ? FG_E_INTERRUPTED : FG_OK;
}

static int layer_reverse_all(step *s, const double *z, const double *dz)
{
    const double *const dsums =
        s->r->param == FG_LEAF && !s->aside ? dz : layer_dsums(s, NULL, NULL, z, dz, 0, 0);
    return layer_reverse(s, NULL, NULL, dsums, 0);
}

/* The reached results alone. Rows and columns that have none are left out of the products; what others have that
 * is not reached takes part as 0. Where that would be most of it, 0 would meet a number that is not finite, or
 * there is no memory for the copies, each stretch of reached results in a row is reversed by itself. */
static int layer_reverse_reached(step *s, const double *z, const double *dz, fg_id first)
{
    fg_tape *const t = s->t;
    fg_record *const r = s->r;
    const reached found = find_reached(t, r, first, &s->scratch);
    const int masked = found.count < found.all;
    if (8 * found.count >= found.all) {
        const int pick_rows = !is_range(found.rows, found.n_rows), pick_cols = !is_range(found.cols, found.n_cols);
        const size_t k = fg_record_view(r, 0)->cols, used = (size_t)(s->scratch - t->scratch);
        const size_t copies = 2 * k * ((pick_rows ? found.n_rows : 0) + (pick_cols ? found.n_cols : 0));
        if (fg_tape_scratch(t, scratch_need(t, FG_LAYER, r) + copies) < 0) {
            if (s->done > 0)
                return FG_E_INTERRUPTED; /* part of it is done, so there was memory, and may be again */
        } else {
            const fg_id *const rows = (const fg_id *)(const void *)t->scratch, *const cols = rows + r->rows;
            const fg_id *const picked_rows = pick_rows ? rows : NULL, *const picked_cols = pick_cols ? cols : NULL;
            s->scratch = t->scratch + used; /* it may have moved, and the lists with it */
            s->at = (area){rows[0], cols[0], found.n_rows, found.n_cols};
            const double *const dsums = layer_dsums(s, picked_rows, picked_cols, z, dz, masked, first);
            const int status = layer_reverse(s, picked_rows, picked_cols, dsums, masked);
            if (status != FG_E_DOMAIN)
                return status;
        }
    }
    const fg_id count = r->rows * r->cols;
    for (fg_id k = next_result(t, first, 0, count, 1); k < count;) {
        const fg_id row_end = (k / r->cols + 1) * r->cols;
        const fg_id end = next_result(t, first, k, row_end, 0);
        s->scratch = t->scratch;
        s->at = (area){k / r->cols, k % r->cols, 1, end - k};
        (void)layer_reverse(s, NULL, NULL, layer_dsums(s, NULL, NULL, z, dz, 0, first), 0);
        k = next_result(t, first, end, count, 1);
    }
    return FG_OK;
}

/* ---- FG_MAP: z (m, n) = row(x0, x1, x2), each (m, n), (1, n), (m, 1) or (1, 1) ---- */

/* How the loops go over the elements: `outer` times `lanes` of them, whose results are `apart` from one round to
 * the next. A column goes down, all else across; if every operand lies dense, or is one number, it is all one
 * loop. */
typedef struct loops {
    size_t outer, lanes, apart;
    int down;
} loops;

static loops loops_of(fg_record *r, area at)
{
    const int down = r->cols == 1;
    loops l = {down ? at.cols : at.rows, down ? at.rows : at.cols, r->cols, down};
    int one = l.outer > 1 && at.cols == r->cols;
    for (fg_id v = 0; v < r->views && one; v++) {
        const fg_view *view = fg_record_view(r, v);
        const int single = view->rows == 1 && view->cols == 1;
        const int dense = view->rows == r->rows && view->cols == r->cols
                          && (is_listed(view) || (view->col_step == 1 && (fg_id)view->row_step == view->cols));
        one = single || dense;
    }
    if (one)
        l = (loops){1, l.outer * l.lanes, 0, 0};
    return l;
}

/* A view as operand of those loops: where it begins, and how far it is from one outer round to the next
 * and from lane to lane, which is 0 or 1. */
typedef struct lane_view {
    matrix m;
    ptrdiff_t outer_step;
    size_t step;
} lane_view;

static lane_view lanes_of(step *s, fg_id v, numbers what, const loops *l)
{
    const fg_view *view = fg_record_view(s->r, v);
    const area a = operand_area(s, v);
    const int32_t across = l->down ? view->row_step : view->col_step;
    const fg_id length = l->down ? view->rows : view->cols;
    const matrix m = lay_out(s, v, what, a, NULL, is_listed(view) || (length > 1 && across != 1));
    const ptrdiff_t row = view->rows > 1 ? m.row : 0, col = view->cols > 1 ? m.col : 0;
    return (lane_view){m, l->down ? col : row, (size_t)(length > 1)};
}

/* The operands of those loops, in the first round; `per_lane` is their step. */
static void map_operands(step *s, const loops *l, lane_view *views, size_t *per_lane)
{
    for (fg_id v = 0; v < s->r->views; v++) {
        views[v] = lanes_of(s, v, DATA, l);
        per_lane[v] = views[v].step;
    }
}

/* Where the operands' lanes begin in outer round i. */
static void map_round(const fg_record *r, const lane_view *views, size_t i, const double **x)
{
    for (fg_id v = 0; v < r->views; v++)
        x[v] = views[v].m.p + (ptrdiff_t)i * views[v].outer_step;
}

static size_t map_forward(step *s, double *z)
{
    const fg_record *const r = s->r;
    const loops l = loops_of(s->r, s->at);
    lane_view views[FG_MAX_VIEWS];
    const double *x[FG_MAX_VIEWS] = {NULL, NULL, NULL};
    size_t per_lane[FG_MAX_VIEWS] = {0, 0, 0};
    map_operands(s, &l, views, per_lane);
    for (size_t i = 0; i < l.outer; i++) {
        map_round(r, views, i, x);
        const size_t lane =
            s->t->kernels->map((int)r->param, l.lanes, x, per_lane, (int32_t)r->k, z + i * l.lanes);
        if (lane < l.lanes)
            return i * l.lanes + lane;
    }
    return l.outer * l.lanes;
}

/* map_grad for those lanes alone that are reached, of which the first has result k: a long stretch of them by
 * itself, and short ones with what lies between, which is put back. */
static void map_grad_reached(const step *s, fg_id which, size_t lanes, const double *const *x,
                             const size_t *per_lane, const double *z, const double *dz, double *dx, fg_id first,
                             fg_id k)
{
    enum { CHUNK = 256, LONG_STRETCH = 64 };
    const fg_record *const r = s->r;
    const fg_id after = k + (fg_id)lanes;
    double kept[CHUNK], same[CHUNK];
    for (fg_id n, at = next_result(s->t, first, k, after, 1); at < after;
         at = next_result(s->t, first, at + n, after, 1)) {
        const fg_id stretch = next_result(s->t, first, at, after, 0) - at;
        const int alone = stretch >= LONG_STRETCH || stretch == after - at;
        const size_t from = at - k;
        double *const dxs = dx + from * per_lane[which];
        const double *xs[FG_MAX_VIEWS] = {NULL, NULL, NULL};
        size_t steps[FG_MAX_VIEWS] = {0, 0, 0};
        n = alone ? stretch : after - at < CHUNK ? after - at : CHUNK;
        for (fg_id v = 0; v < r->views; v++) {
            xs[v] = x[v] + from * per_lane[v];
            steps[v] = per_lane[v];
        }
        if (alone) {
            s->t->kernels->map_grad((int)r->param, (int)which, n, xs, steps, (int32_t)r->k, z + from, dz + from,
                                    dxs);
        } else if (per_lane[which]) {
            const fg_id hole = next_result(s->t, first, at, at + n, 0);
            memcpy(kept, dxs, n * sizeof *kept);
            s->t->kernels->map_grad((int)r->param, (int)which, n, xs, steps, (int32_t)r->k, z + from, dz + from,
                                    dxs);
            for (fg_id j = hole; j < at + n;) {
                const fg_id end = next_result(s->t, first, j, at + n, 1);
                for (; j < end; j++)
                    dxs[j - at] = kept[j - at];
                j = next_result(s->t, first, j, at + n, 0);
            }
        } else { /* one number for all lanes: each lane's share by itself, and of them the sum */
            for (fg_id j = 0; j < n; j++)
                same[j] = *xs[which];
            xs[which] = same;
            steps[which] = 1;
            memset(kept, 0, n * sizeof *kept);
            s->t->kernels->map_grad((int)r->param, (int)which, n, xs, steps, (int32_t)r->k, z + from, dz + from,
                                    kept);
            for (fg_id j = 0; j < n; j += 64)
                for (uint64_t bits = reached_bits(s->t, first, at + j, n - j < 64 ? n - j : 64); bits; bits &= bits - 1u)
                    *dxs += kept[j + fg_bits_low(bits)];
        }
    }
}

/* z and dz: of the first result at s->at. some: only those count that are reached. */
static void map_reverse(step *s, const double *z, const double *dz, int some, fg_id first)
{
    const fg_record *const r = s->r;
    const loops l = loops_of(s->r, s->at);
    const fg_id k = s->at.row * r->cols + s->at.col;
    lane_view views[FG_MAX_VIEWS];
    const double *x[FG_MAX_VIEWS] = {NULL, NULL, NULL};
    size_t per_lane[FG_MAX_VIEWS] = {0, 0, 0};
    map_operands(s, &l, views, per_lane);
    for (fg_id which = 0; which < r->views; which++) {
        const lane_view d = lanes_of(s, which, GRADIENTS, &l);
        for (size_t i = 0; i < l.outer && d.m.p; i++) {
            const double *const zi = z + i * l.apart, *const dzi = dz + i * l.apart;
            double *const dx = d.m.p + (ptrdiff_t)i * d.outer_step;
            map_round(r, views, i, x);
            if (some)
                map_grad_reached(s, which, l.lanes, x, per_lane, zi, dzi, dx, first, k + (fg_id)(i * l.apart));
            else
                s->t->kernels->map_grad((int)r->param, (int)which, l.lanes, x, per_lane, (int32_t)r->k, zi, dzi,
                                        dx);
        }
        add_copied(s, which, operand_area(s, which), NULL, d.m);
    }
}

/* The reached results alone: where they are few, one stretch in a row after the other; else all of the rows from
 * the first to the last, of which only they count. */
static void map_reverse_reached(step *s, const double *z, const double *dz, fg_id first)
{
    const fg_tape *const t = s->t;
    const fg_record *const r = s->r;
    const fg_id all = r->rows * r->cols, low = next_result(t, first, 0, all, 1);
    fg_id high = all, stretches;
    while (!(t->marks.word[(first + high - 1) >> 6] >> ((first + high - 1) & 63u) & 1u))
        high--;
    const fg_id count = count_reached(t, first, low, high, &stretches);
    if (count < (high - low) / 8 || stretches == 1) {
        for (fg_id k = low; k < all;) {
            const fg_id row = k / r->cols, col = k % r->cols;
            fg_id end = next_result(t, first, k, all, 0), rows = 1;
            if (end > (row + 1) * r->cols) {
                rows = col == 0 ? (end - k) / r->cols : 1;
                end = (row + rows) * r->cols;
            }
            s->scratch = t->scratch;
            s->at = (area){row, col, rows, rows > 1 ? r->cols : end - k};
            map_reverse(s, z + k, dz + k, 0, first);
            k = next_result(t, first, end, all, 1);
        }
        return;
    }
    s->at = r->rows == 1 ? (area){0, low, 1, high - low}
                         : (area){low / r->cols, 0, (high - 1) / r->cols - low / r->cols + 1, r->cols};
    map_reverse(s, z + s->at.row * r->cols + s->at.col, dz + s->at.row * r->cols + s->at.col, 1, first);
}

/* ---- reductions and softmax: along the rows of view 0, or over all of it ----
 *
 * x is (m, n). FG_SUM and its like: z is (1, m), or (m, 1), a number for each row, or (1, 1), one for all. FG_SOFTMAX
 * and FG_LOG_SOFTMAX: z is (m, n). */

typedef struct rows {
    size_t count, length;
    matrix m;
} rows;

/* The rows to reduce: with one result, the whole view is one. */
static rows rows_of(fg_record *r, area a, matrix m)
{
    rows s = {a.rows, a.cols, m};
    if (is_single(r) && a.rows > 1)
        s = (rows){1, (size_t)a.rows * a.cols, m};
    return s;
}

/* Whether view 0 has to be copied so that each of rows_of() is in one piece. */
static int in_pieces(fg_record *r)
{
    const fg_view *v = fg_record_view(r, 0);
    return is_listed(v) || (v->col_step != 1 && v->cols > 1)
           || (is_single(r) && v->rows > 1 && (fg_id)v->row_step != v->cols);
}

static rows lay_out_rows(step *s, numbers what)
{
    const area a = operand_area(s, 0);
    return rows_of(s->r, a, lay_out(s, 0, what, a, NULL, in_pieces(s->r)));
}

static double reduced(const fg_kernels *kernels, int op, size_t n, const double *x)
{
    switch (op) {
    case FG_SUM:
        return kernels->sum(n, x);
    case FG_MEAN:
        return kernels->sum(n, x) / (double)n;
    case FG_MAX:
        return kernels->max(n, x);
    default:
        assert(op == FG_LOGSUMEXP);
        return kernels->logsumexp(n, x);
    }
}

/* The largest share the gradient, or, if there is a nan, that and its like. By the present data, as for
 * FG_MAXIMUM: it may have been assigned to since. */
static int is_largest(double x, double largest)
{
    return x == largest || (isnan(x) && isnan(largest));
}

static void max_reverse(size_t n, const double *x, double largest, double dz, double *dx)
{
    size_t ties = 0;
    for (size_t j = 0; j < n; j++)
        ties += (size_t)is_largest(x[j], largest);
    for (size_t j = 0; j < n; j++)
        if (is_largest(x[j], largest))
            dx[j] += dz / (double)ties;
}

static int is_softmax(int op)
{
    return op == FG_SOFTMAX || op == FG_LOG_SOFTMAX;
}

static void rows_forward(step *s, double *z)
{
    const fg_kernels *const kernels = s->t->kernels;
    const rows x = lay_out_rows(s, DATA);
    for (size_t i = 0; i < x.count; i++) {
        const double *const row = x.m.p + (ptrdiff_t)i * x.m.row;
        if (s->op == FG_SOFTMAX)
            kernels->softmax(x.length, row, z + i * x.length);
        else if (s->op == FG_LOG_SOFTMAX)
            kernels->log_softmax(x.length, row, z + i * x.length);
        else
            z[i] = reduced(kernels, s->op, x.length, row);
    }
}

/* Of FG_SUM and FG_MEAN, in place, however the operands lie. */
static void sum_reverse(const step *s, const double *dz)
{
    const fg_view *const view = fg_record_view(s->r, 0);
    const area a = operand_area(s, 0);
    const int single = is_single(s->r);
    const double n = single ? (double)a.rows * a.cols : (double)a.cols;
    if (view->flags & FG_VIEW_CONSTANT)
        return;
    for (fg_id i = 0; i < a.rows; i++) {
        const double di = dz[single ? 0 : i], d = s->op == FG_SUM ? di : di / n;
        double *const row = s->t->grad + (is_listed(view) ? 0 : fg_record_slot(s->r, view, a.row + i, 0));
        if (is_listed(view))
            for (fg_id j = 0; j < a.cols; j++)
                row[fg_record_slot(s->r, view, a.row + i, j)] += d;
        else if (view->col_step == 1)
            for (fg_id j = 0; j < a.cols; j++)
                row[j] += d;
        else
            for (fg_id j = 0; j < a.cols; j++)
                row[(ptrdiff_t)j * view->col_step] += d;
    }
}

/* z and dz: of the first result at s->at. */
static void rows_reverse(step *s, const double *z, const double *dz)
{
    const fg_kernels *const kernels = s->t->kernels;
    const int op = s->op;
    if ((op == FG_SUM || op == FG_MEAN) && !s->aside) {
        sum_reverse(s, dz);
        return;
    }
    const rows dx = lay_out_rows(s, GRADIENTS);
    if (!dx.m.p)
        return;
    rows x = {0, 0, {NULL, 0, 0, 0}};
    if (op == FG_MAX || op == FG_LOGSUMEXP)
        x = lay_out_rows(s, DATA);
    for (size_t i = 0; i < dx.count; i++) {
        const size_t n = dx.length;
        double *const row = dx.m.p + (ptrdiff_t)i * dx.m.row;
        switch (op) {
        case FG_SUM:
        case FG_MEAN: {
            const double d = op == FG_SUM ? dz[i] : dz[i] / (double)n;
            for (size_t j = 0; j < n; j++)
                row[j] += d;
            break;
        }
        case FG_MAX: {
            const double *const xi = x.m.p + (ptrdiff_t)i * x.m.row;
            max_reverse(n, xi, kernels->max(n, xi), dz[i], row);
            break;
        }
        case FG_LOGSUMEXP:
            if (isfinite(z[i])) { /* not exp(x - z): z is rounded, and may be large */
                kernels->softmax(n, x.m.p + (ptrdiff_t)i * x.m.row, s->scratch);
                kernels->axpy(n, dz[i], s->scratch, row);
            } else {
                kernels->exp_axpy(n, dz[i], x.m.p + (ptrdiff_t)i * x.m.row, z[i], row);
            }
            break;
        case FG_SOFTMAX:
            kernels->softmax_grad(n, z + i * n, dz + i * n, row);
            break;
        default:
            assert(op == FG_LOG_SOFTMAX);
            kernels->log_softmax_grad(n, z + i * n, dz + i * n, row);
        }
    }
    add_copied(s, 0, operand_area(s, 0), NULL, dx.m);
}

/* The reached results alone: rows of which all is reached together, and each of the others with zeros for what is
 * not. These change nothing even where a result is nan, for then all results of its row are. */
static void rows_reverse_reached(step *s, const double *z, const double *dz, fg_id first)
{
    const fg_tape *const t = s->t;
    const fg_record *const r = s->r;
    const fg_id all = r->rows * r->cols, wide = is_softmax(s->op) ? r->cols : 1;
    for (fg_id k = next_result(t, first, 0, all, 1); k < all;) {
        const fg_id row = k / wide;
        fg_id end = next_result(t, first, row * wide, all, 0) / wide; /* rows before this one are reached whole */
        const int whole = end > row;
        const double *d = dz + row * wide;
        s->scratch = t->scratch;
        if (!whole) {
            double *const masked = take(&s->scratch, wide);
            memcpy(masked, d, wide * sizeof *masked);
            clear_unreached(t, first, row * wide, wide, masked);
            d = masked;
            end = row + 1;
        }
        if (is_softmax(s->op))
            s->at = (area){row, 0, end - row, wide};
        else
            s->at = r->cols > 1 ? (area){0, row, 1, end - row} : (area){row, 0, end - row, 1};
        rows_reverse(s, z + row * wide, d);
        k = next_result(t, first, end * wide, all, 1);
    }
}

/* ---- FG_CROSS_ENTROPY: z (1, 1) = the mean over the rows of x (m, n) of -log_softmax(row)[label]; extra is a
 * label for each ---- */

static double cross_entropy_forward(step *s)
{
    const area a = operand_area(s, 0);
    const fg_id *const label = fg_record_extra(s->r);
    const matrix x = lay_out(s, 0, DATA, a, NULL, must_copy(fg_record_view(s->r, 0), 1));
    double total = 0.0;
    for (fg_id i = 0; i < a.rows; i++) {
        s->t->kernels->log_softmax(a.cols, x.p + (ptrdiff_t)i * x.row, s->scratch);
        total -= s->scratch[label[i]];
    }
    return total / a.rows;
}

static void cross_entropy_reverse(step *s, double dz)
{
    const area a = operand_area(s, 0);
    const fg_id *const label = fg_record_extra(s->r);
    const int copy = must_copy(fg_record_view(s->r, 0), 1);
    const matrix x = lay_out(s, 0, DATA, a, NULL, copy), dx = lay_out(s, 0, GRADIENTS, a, NULL, copy);
    const double d = dz / a.rows;
    for (fg_id i = 0; i < a.rows && dx.p; i++) {
        double *const row = dx.p + (ptrdiff_t)i * dx.row;
        s->t->kernels->softmax(a.cols, x.p + (ptrdiff_t)i * x.row, s->scratch);
        s->t->kernels->axpy(a.cols, d, s->scratch, row);
        row[label[i]] -= d;
    }
    add_copied(s, 0, a, NULL, dx);
}

/* ---- all of them ---- */

int fg_block_push(fg_tape *t, int op, fg_id n_rows, fg_id n_cols, int parts,
                  const double *results, fg_id *node)
{
    fg_record *const r = (fg_record *)(void *)(t->pool + t->npool);
    const fg_id count = n_rows * n_cols;
    assert(count >= 1 && (parts || count == 1) && r->size <= t->pool_capacity - t->npool);
    r->rows = n_rows;
    r->cols = n_cols;
    const size_t need = scratch_need(t, op, r) / FG_SCRATCH_UNIT + 1;
    int status = need > FG_MAX_ID ? FG_E_MEMORY : fg_tape_scratch(t, need * FG_SCRATCH_UNIT);
    if (status < 0)
        return status;
    r->scratch = (fg_id)need;
    double *const z = t->data + t->n; /* there is room, and nothing lives there yet */
    step s = {t, r, op, {0, 0, n_rows, n_cols}, t->scratch, NULL, 0};
    if (results)
        memcpy(z, results, count * sizeof *z);
    else switch (op) {
    case FG_LAYER:
        status = layer_forward(&s, z);
        if (status < 0)
            return status;
        break;
    case FG_MAP: {
        const size_t at = map_forward(&s, z);
        if (at < count) {
            *node = (fg_id)at;
            return FG_E_DOMAIN; /* the caller asks the row which one it is */
        }
        break;
    }
    case FG_CROSS_ENTROPY:
        z[0] = cross_entropy_forward(&s);
        break;
    default:
        rows_forward(&s, z);
    }
    *node = fg_tape_push_block(t, op, parts ? count : 0);
    return FG_OK;
}

int fg_block_reverse(fg_tape *t, fg_id i, size_t *done)
{
    fg_record *const r = fg_tape_record(t, i);
    const fg_id first = i - t->args[i].b;
    const double *const z = t->data + first, *const dz = t->grad + first;
    step s = {t, r, fg_tape_op(t, i), {0, 0, r->rows, r->cols}, t->scratch, NULL, *done};
    int status = FG_OK;
    switch (s.op) {
    case FG_LAYER:
        status = layer_reverse_all(&s, z, dz);
        break;
    case FG_MAP:
        map_reverse(&s, z, dz, 0, 0);
        break;
    case FG_CROSS_ENTROPY:
        cross_entropy_reverse(&s, dz[0]);
        break;
    default:
        rows_reverse(&s, z, dz);
    }
    *done = s.done;
    return status;
}

int fg_block_reverse_reached(fg_tape *t, fg_id i, size_t *done)
{
    fg_record *const r = fg_tape_record(t, i);
    const fg_id first = i - t->args[i].b;
    const double *const z = t->data + first, *const dz = t->grad + first;
    step s = {t, r, fg_tape_op(t, i), {0, 0, r->rows, r->cols}, t->scratch, NULL, *done};
    int status = FG_OK;
    if (s.op == FG_LAYER)
        status = layer_reverse_reached(&s, z, dz, first);
    else if (s.op == FG_MAP)
        map_reverse_reached(&s, z, dz, first);
    else if (s.op == FG_CROSS_ENTROPY)
        cross_entropy_reverse(&s, dz[0]); /* it has one result */
    else
        rows_reverse_reached(&s, z, dz, first);
    *done = s.done;
    return status;
}

/* ---- marking operands, for sweeps ---- */

/* The slow half of all_leaves(): frozen ones among them. A byte is 0 or FG_FROZEN if it is FG_FROZEN times any one of
 * that opcode's bits. */
static int all_frozen_or_leaves(const uint8_t *op, fg_id n)
{
    static_assert(FG_LEAF == 0 && (int)FG_FROZEN < (int)FG_HOOK, "the trick needs that");
    const unsigned bit = fg_bits_low(FG_FROZEN);
    uint64_t other = !fg_op_is_leaf(*op); /* mostly the results of another layer */
    fg_id j = 0;
    for (; !other && j + BYTES <= n; j += BYTES) {
        const uint64_t word = eight_ops(op + j);
        other = word ^ (word >> bit & each_byte(1)) * FG_FROZEN;
    }
    for (; j < n; j++)
        other |= !fg_op_is_leaf(op[j]);
    return !other;
}

/* Whether the nodes from `first` to before `end` are all leaves without a hook, which no sweep has to
 * visit: in a layer, all of the weights. */
static int all_leaves(const fg_tape *t, fg_id first, fg_id end)
{
    const uint8_t *op = t->op + first, *const last = t->op + end;
    uint64_t any = 0;
    for (; last - op >= BYTES; op += BYTES)
        any |= eight_ops(op);
    while (op < last)
        any |= *op++;
    return any == FG_LEAF || all_frozen_or_leaves(t->op + first, end - first);
}

static int is_dense(const fg_view *v)
{
    return !is_listed(v) && (v->cols == 1 || v->col_step == 1)
           && (v->rows == 1 || (fg_id)v->row_step == v->cols);
}

/* Mark an area of a view; without `leaves` the nodes that a sweep has to visit are enough. */
static void mark_area(const fg_tape *t, fg_marks *marks, fg_record *r, const fg_view *view, area a, int leaves)
{
    fg_id lowest, highest;
    if (a.rows == 0 || a.cols == 0)
        return;
    if (!is_listed(view)) {
        fg_view part = *view;
        part.base = fg_record_slot(r, view, a.row, a.col);
        part.rows = a.rows;
        part.cols = a.cols;
        fg_view_extent(&part, &lowest, &highest);
        if (!leaves && all_leaves(t, lowest, highest + 1))
            return;
        if (is_dense(&part)) {
            fg_marks_add_range(marks, lowest, highest + 1);
            return;
        }
        if (view->col_step == 1) {
            for (fg_id row = 0; row < a.rows; row++) {
                const fg_id first = fg_record_slot(r, view, a.row + row, a.col);
                if (leaves || !all_leaves(t, first, first + a.cols))
                    fg_marks_add_range(marks, first, first + a.cols);
            }
            return;
        }
    }
    for (fg_id row = 0; row < a.rows; row++) {
        fg_id word = 0;
        uint64_t bits = 0; /* of that word, and not in the marks yet: neighbours are often in one */
        for (fg_id col = 0; col < a.cols; col++) {
            const fg_id i = fg_record_slot(r, view, a.row + row, a.col + col);
            if (i >> 6 != word && bits) {
                fg_marks_add_word(marks, word, bits);
                bits = 0;
            }
            word = i >> 6;
            bits |= (uint64_t)1 << (i & 63u);
        }
        fg_marks_add_word(marks, word, bits);
    }
}

void fg_block_mark_operands(const fg_tape *t, fg_id i, fg_marks *marks, int leaves)
{
    fg_record *const r = fg_tape_record(t, i);
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *view = fg_record_view(r, v);
        mark_area(t, marks, r, view, (area){0, 0, view->rows, view->cols}, leaves);
    }
}

/* The operands in view v of every stretch of reached results. */
static void mark_stretches(const fg_tape *t, int op, fg_record *r, fg_id v, fg_id first, fg_marks *marks)
{
    const fg_id all = r->rows * r->cols;
    for (fg_id k = next_result(t, first, 0, all, 1); k < all;) {
        const fg_id row = k / r->cols, col = k % r->cols;
        fg_id end = next_result(t, first, k, all, 0);
        area at = {row, col, 1, end - k};
        if (end > (row + 1) * r->cols) { /* whole rows, or the rest of one */
            at.rows = col == 0 ? (end - k) / r->cols : 1;
            at.cols = r->cols - col;
            end = k - col + at.rows * r->cols;
        }
        mark_area(t, marks, r, fg_record_view(r, v), area_of(op, r, v, at), 0);
        k = next_result(t, first, end, all, 1);
    }
}

/* Of a view whose slots follow each other as the results do: the marks of the results, moved. */
static void mark_alike(const fg_tape *t, fg_id first, fg_id count, fg_id base, fg_marks *marks)
{
    for (fg_id w = first >> 6; w <= (first + count - 1) >> 6; w++) {
        uint64_t bits = t->marks.word[w];
        if (bits) {
            const unsigned low = fg_bits_low(bits);
            bits >>= low;
            fg_marks_add_bits(marks, base + (fg_id)(((uint64_t)w << 6) + low - first), bits);
        }
    }
}

void fg_block_mark_reached(fg_tape *t, fg_id i, fg_marks *marks)
{
    fg_record *const r = fg_tape_record(t, i);
    const int op = fg_tape_op(t, i);
    const fg_id count = t->args[i].b, first = i - count;
    double *scratch = t->scratch;
    reached found = {NULL, NULL, 0, 0, 0, 0};
    if (op == FG_LAYER)
        found = find_reached(t, r, first, &scratch);
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *view = fg_record_view(r, v);
        if (view->rows == 0 || view->cols == 0)
            continue;
        if (!is_listed(view)) {
            fg_id lowest, highest;
            fg_view_extent(view, &lowest, &highest);
            if (all_leaves(t, lowest, highest + 1))
                continue;
        }
        if (op == FG_LAYER) {
            const fg_id *const lines = v == 0 ? found.rows : found.cols;
            const fg_id n = v == 0 ? found.n_rows : found.n_cols;
            for (fg_id k = 0, end; k < n; k = end) { /* those that follow each other at once */
                for (end = k + 1; end < n && lines[end] == lines[k] + (end - k); end++)
                    ;
                const area at = v == 0 ? (area){lines[k], 0, end - k, 1}
                                          : (area){0, lines[k], 1, end - k};
                mark_area(t, marks, r, view, area_of(op, r, v, at), 0);
            }
        } else if (op == FG_MAP && size_of(view) == count && is_dense(view)) {
            mark_alike(t, first, count, view->base, marks);
        } else {
            mark_stretches(t, op, r, v, first, marks);
        }
    }
}

/* ---- single elements ---- */

/* How many operands a single result of an instruction has. */
static fg_id operands_of(int op, fg_record *r)
{
    const fg_view *x = fg_record_view(r, 0);
    if (op == FG_LAYER)
        return 2 * x->cols + (r->views > 2);
    if (op == FG_MAP)
        return (fg_id)fg_op_table[r->param].parents; /* FG_POWC: not the exponent */
    return is_single(r) && !is_softmax(op) ? x->rows * x->cols : x->cols;
}

/* The slots of the operands of the result at `at`. */
static void list_ids(int op, fg_record *r, area at, fg_id *ids)
{
    const fg_view *x = fg_record_view(r, 0);
    if (op == FG_LAYER) { /* in micrograd's order: the bias, then each weight with its input */
        if (r->views > 2)
            *ids++ = fg_record_slot(r, fg_record_view(r, 2), 0, at.col);
        for (fg_id k = 0; k < x->cols; k++) {
            *ids++ = fg_record_slot(r, fg_record_view(r, 1), at.col, k);
            *ids++ = fg_record_slot(r, x, at.row, k);
        }
        return;
    }
    for (fg_id v = 0; v < (op == FG_MAP ? (fg_id)fg_op_table[r->param].parents : 1); v++) {
        const area a = area_of(op, r, v, at);
        for (fg_id row = 0; row < a.rows; row++)
            for (fg_id col = 0; col < a.cols; col++)
                *ids++ = fg_record_slot(r, fg_record_view(r, v), a.row + row, a.col + col);
    }
}

/* The partial derivatives of the result at `at` by its operands, in that order: the reverse step with a gradient
 * of 1 for that result, put aside. */
static void list_partials(fg_tape *t, fg_id block, int op, fg_record *r, area at, double *partials)
{
    const double one = 1.0, *const z = t->data + (block - t->args[block].b), *const zi = z + at.row * r->cols + at.col;
    const fg_id k = fg_record_view(r, 0)->cols;
    double *aside[FG_MAX_VIEWS] = {partials, NULL, NULL};
    step s = {t, r, op, at, t->scratch, aside, 0};
    if (op == FG_LAYER) {
        aside[0] = take(&s.scratch, k);
        aside[1] = take(&s.scratch, k);
        aside[2] = r->views > 2 ? partials++ : NULL;
        (void)layer_reverse_all(&s, zi, &one);
        for (fg_id j = 0; j < k; j++) {
            partials[2 * j] = aside[1][j];
            partials[2 * j + 1] = aside[0][j];
        }
    } else if (op == FG_MAP) {
        double each[FG_MAX_VIEWS];
        for (fg_id v = 0; v < FG_MAX_VIEWS; v++)
            aside[v] = each + v;
        map_reverse(&s, zi, &one, 0, 0);
        memcpy(partials, each, (size_t)fg_op_table[r->param].parents * sizeof *each);
    } else if (op == FG_CROSS_ENTROPY) {
        cross_entropy_reverse(&s, 1.0);
    } else if (is_softmax(op)) {
        double *const dz = take(&s.scratch, r->cols);
        memset(dz, 0, r->cols * sizeof *dz);
        dz[at.col] = 1.0;
        s.at = (area){at.row, 0, 1, r->cols};
        rows_reverse(&s, z + (size_t)at.row * r->cols, dz);
    } else {
        rows_reverse(&s, zi, &one);
    }
}

/* Those of an inline or pooled node. */
static fg_id list_node(const fg_tape *t, fg_id i, fg_id *ids, double *partials)
{
    fg_id pair[2];
    const fg_id *operands;
    const fg_id count = fg_tape_operands(t, i, pair, &operands);
    const int op = fg_tape_op(t, i);
    const double z = t->data[i];
    for (fg_id k = 0; k < count; k++) {
        double d = 0.0; /* FG_CUSTOM has no rule */
        if (op == FG_LOCAL)
            memcpy(&d, operands + count + 2 * (size_t)k, sizeof d);
        else if (op < FG_UNARY_END)
            d = fg_op_unary_dx(op, t->data[operands[0]], (int32_t)t->args[i].b, z, 1.0);
        else if (op < FG_BINARY_END)
            d = fg_op_binary_dx(op, (int)k, t->data[operands[0]], t->data[operands[1]], z, 1.0);
        else if (op < FG_CUSTOM)
            d = fg_op_ternary_dx(op, (int)k, t->data[operands[0]], t->data[operands[1]],
                                 t->data[operands[2]], z, 1.0);
        if (ids)
            ids[k] = operands[k];
        if (partials)
            partials[k] = d;
    }
    return count;
}

fg_id fg_block_operands(fg_tape *t, fg_id i, fg_id *ids, double *partials)
{
    const fg_id block = fg_tape_op(t, i) == FG_PART ? i + t->args[i].a : i;
    const int op = fg_tape_op(t, block);
    if (!fg_op_is_block(op))
        return op <= FG_LOCAL ? list_node(t, i, ids, partials) : 0;
    fg_record *const r = fg_tape_record(t, block);
    const fg_id k = block == i && t->args[block].b == 0 ? 0 : i - (block - t->args[block].b);
    const area at = {k / r->cols, k % r->cols, 1, 1};
    if (ids)
        list_ids(op, r, at, ids);
    if (partials)
        list_partials(t, block, op, r, at, partials);
    return operands_of(op, r);
}
