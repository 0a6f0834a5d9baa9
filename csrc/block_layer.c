/* block_layer.c: FG_LAYER: z (m, n) = activation(x (m, k) w (n, k)^T + b (1, n)), also without b, or without an
 * activation. The order here: long products in blocks, forward, reverse, reverse of what is reached, both as jobs.
 *
 * It promises that a long product asks between its blocks whether to stop, and can then go on from there; and that what
 * it costs to reverse some results is at most about what all cost. It leaves to the kernels how products are made. */
#include "block_reached.h"
#include "block_steps.h"

/* Whether numbers in order follow each other, so that they need no list. */
static int is_range(const fg_id *ids, fg_id count)
{
    return ids[count - 1] - ids[0] + 1 == count;
}

static size_t larger(size_t x, size_t y)
{
    return x > y ? x : y;
}

/* Which loop a layer takes. */
typedef enum layer_shape { ONE_ROW, ONE_COLUMN, BLOCKED } layer_shape;

static layer_shape shape_of(fg_record *r, fg_id m, fg_id n)
{
    const fg_view *x = fg_record_view(r, 0), *w = fg_record_view(r, 1);
    if (m == 1 && !is_apart(w))
        return ONE_ROW;
    if (n == 1 && !is_apart(x))
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

size_t fg_layer_scratch(const fg_kernels *kernels, fg_record *r)
{
    const size_t m = r->rows, n = r->cols, k = fg_record_view(r, 0)->cols;
    size_t need = views_scratch(FG_LAYER, r) + m * n + 2 * n + 2 * k + reached_need(r);
    if (shape_of(r, r->rows, r->cols) == BLOCKED)
        need += larger(gemm_work(kernels, m, n, k), kernels->layer_work(m, n, k));
    return need;
}

/* A long product is made in blocks of about so many multiply-adds, and between them the caller is asked whether
 * to stop: some 10 ms. */
#define BLOCK_WORK 200000000.0

/* What a block takes of each sum, if not all of it, is a multiple of this: the kernels take as much at a time. */
enum { DEPTH = 256 };

/* How many of `all` to take at a time: about `fit`, but not fewer than `least`, and each time as many. */
static size_t part_of(size_t all, double fit, size_t least)
{
    if (fit >= (double)all)
        return all;
    const size_t most = fit > (double)least ? (size_t)fit : least;
    const size_t times = (all + most - 1) / most;
    return (all + times - 1) / times;
}

/* The next block of the product: rows and columns of the result, and terms of its sums. As large as BLOCK_WORK allows,
 * and first of all with fewer terms, for that costs nothing. */
typedef struct block_shape {
    size_t rows, cols, terms;
} block_shape;

static block_shape block_size(size_t m, size_t n, size_t k)
{
    block_shape size = {m, n, k};
    const double fit = BLOCK_WORK / ((double)m * (double)n);
    if (fit >= (double)k)
        return size;
    size.terms = fit >= 2.0 * (double)DEPTH ? (size_t)fit / DEPTH * DEPTH : k < DEPTH ? k : DEPTH;
    size.rows = part_of(m, BLOCK_WORK / ((double)n * (double)size.terms), 96); /* fewer would not be worth packing B */
    size.cols = part_of(n, BLOCK_WORK / ((double)size.rows * (double)size.terms), 240);
    return size;
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
static size_t multiply_add(const fg_slots *slots, size_t m, size_t n, size_t k, operand a, operand b, matrix c,
                           double *work, size_t *skip)
{
    const fg_kernels *const kernels = slots->kernels;
    const block_shape size = block_size(m, n, k);
    size_t done = 0;
    for (size_t p = 0; p < k; p += size.terms)
        for (size_t i = 0; i < m; i += size.rows)
            for (size_t j = 0; j < n; j += size.cols) {
                const size_t mi = m - i < size.rows ? m - i : size.rows, nj = n - j < size.cols ? n - j : size.cols;
                const size_t kp = k - p < size.terms ? k - p : size.terms;
                const double *const ai = a.p + (ptrdiff_t)i * a.row + (ptrdiff_t)p * a.col;
                const double *const bj = b.p + (ptrdiff_t)p * b.row + (ptrdiff_t)j * b.col;
                double *const cij = c.p + (ptrdiff_t)i * c.row + (ptrdiff_t)j * c.col;
                done++;
                if (*skip > 0) {
                    --*skip;
                    continue;
                }
                if (c.col == 1)
                    kernels->gemm(mi, nj, kp, ai, a.row, a.col, bj, b.row, b.col, cij, c.row, work);
                else /* the same, transposed */
                    kernels->gemm(nj, mi, kp, bj, b.col, b.row, ai, a.col, a.row, cij, c.col, work);
                const int last = p + size.terms >= k && i + size.rows >= m && j + size.cols >= n;
                if (!last && slots->stop && slots->stop())
                    return done;
            }
    return 0;
}

/* How many blocks that product has. */
static size_t blocks_of(size_t m, size_t n, size_t k)
{
    const block_shape size = block_size(m, n, k);
    return ((m + size.rows - 1) / size.rows) * ((n + size.cols - 1) / size.cols) * ((k + size.terms - 1) / size.terms);
}

/* z (m, n) = activation(sums), sums (m, n) = x (m, k) w (n, k)^T + b (1, n). */
int fg_layer_forward(step *s, double *z)
{
    const fg_kernels *const kernels = s->slots->kernels;
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
    } else if (kernels->layer_work(m, n, k)) {
        const int relu = r->param == FG_RELU;
        kernels->layer(relu ? FG_RELU : FG_LEAF, m, n, k, x.p, x.row, x.col, w.p, w.row, w.col, b.p, b.col,
                       relu ? z : sums, s->scratch);
        if (relu)
            return FG_OK;
    } else {
        for (size_t j = 0; j < n; j++)
            sums[j] = b.p ? b.p[(ptrdiff_t)j * b.col] : 0.0;
        for (size_t i = 1; i < m; i++)
            memcpy(sums + i * n, sums, n * sizeof *sums);
        if (multiply_add(s->slots, m, n, k, read_only(x), (operand){w.p, w.col, w.row},
                         (matrix){sums, (ptrdiff_t)n, 1, 0}, s->scratch, &skip))
            return FG_E_INTERRUPTED;
    }
    if (r->param != FG_LEAF)
        kernels->map((int)r->param, m * n, (const double *const[3]){sums}, (const size_t[3]){1}, 0, z);
    return FG_OK;
}

/* dsums (m, n), dense: the gradient before the activation of the results at s->at; of the rows and columns in these
 * lists, if they are given, which begin and end where s->at does. masked: 0 where a result is not reached. z and dz are
 * those of result (0, 0), of which the only one at hand, with s->aside, is the one at s->at. */
static double *layer_dsums(step *s, const fg_id *rows, const fg_id *cols, const double *z, const double *dz,
                           int masked)
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
            s->slots->kernels->map_grad((int)r->param, 0, count, (const double *const[3]){z + at},
                                    (const size_t[3]){1}, 0, z + at, dz + at, d);
        }
        if (masked)
            clear_unreached(&s->of, row * r->cols + col, (fg_id)count, d);
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

/* Whether anybody wants the gradient of a bias. */
static int wants_bias(const step *s)
{
    return s->r->views > 2 && (s->aside || !is_constant(s->slots, fg_record_view(s->r, 2)));
}

/* db (1, n) += these sums of dsums over rows. */
static void add_bias(const step *s, const fg_id *cols, const double *sums)
{
    fg_record *const r = s->r;
    const fg_view *const vb = fg_record_view(r, 2);
    const fg_id n = s->at.cols, col = s->at.col;
    if (s->aside)
        memcpy(s->aside[2], sums, n * sizeof *sums);
    else if (!cols && !is_listed(vb) && vb->col_step == 1)
        s->slots->kernels->axpy(n, 1.0, sums, number_of(s->slots, vb, vb->base + col, GRADIENTS));
    else
        for (fg_id j = 0; j < n; j++)
            *number_of(s->slots, vb, fg_record_slot(r, vb, 0, cols ? cols[j] : col + j), GRADIENTS) += sums[j];
}

/* db (1, n) += the sum of dsums (m, n) over rows. */
static void bias_reverse(step *s, const fg_id *cols, const double *dsums)
{
    const fg_id m = s->at.rows, n = s->at.cols;
    double *const added = take(&s->scratch, n);
    if (m > 1)
        s->slots->kernels->layer_sums(FG_LEAF, m, n, dsums, dsums, NULL, added);
    add_bias(s, cols, m > 1 ? added : dsums);
}

/* dx (m, k) += dsums (m, n) w (n, k), dw (n, k) += dsums^T x (m, k), and with `bias` db, for
 * the rows and columns of the results at s->at, or in these lists.
 * FG_OK; FG_E_INTERRUPTED with s->done blocks done, and the next call goes on from there; with `masked`, FG_E_DOMAIN
 * and nothing done unless x and w are finite: 0 times what is not would come where nothing was reached. */
static int layer_reverse(step *s, const fg_id *rows, const fg_id *cols, const double *dsums, int masked, int bias)
{
    const fg_slots *const slots = s->slots;
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
    if (bias && s->done == 0)
        bias_reverse(s, cols, dsums);
    /* Blocked: a copy unless rows or columns are side by side. */
    const matrix dx = lay_out(s, 0, GRADIENTS, ax, rows, must_copy(vx, side || (vx->row_step != 1 && m > 1)));
    const matrix dw = lay_out(s, 1, GRADIENTS, aw, cols, must_copy(vw, side || (vw->row_step != 1 && n > 1)));
    if (shape == ONE_ROW) {
        slots->kernels->gemv_grad(n, k, w.p, w.row, x.p, dsums, dw.p, dx.p);
    } else if (shape == ONE_COLUMN) {
        slots->kernels->gemv_grad(m, k, x.p, x.row, w.p, dsums, dx.p, dw.p);
    } else {
        const operand d = {dsums, (ptrdiff_t)n, 1}, turned = {dsums, 1, (ptrdiff_t)n};
        if (dx.p)
            stopped = multiply_add(slots, m, k, n, d, read_only(w), dx, s->scratch, &skip);
        if (dw.p && !stopped) {
            stopped = multiply_add(slots, n, k, m, turned, read_only(x), dw, s->scratch, &skip);
            if (stopped && dx.p)
                stopped += blocks_of(m, k, n);
        }
    }
    s->done = stopped;
    add_copied(s, 0, ax, rows, dx);
    add_copied(s, 1, aw, cols, dw);
    return stopped ? FG_E_INTERRUPTED : FG_OK;
}

/* All results, or, with s->aside, the one at s->at. */
int fg_layer_reverse(step *s, const double *z, const double *dz)
{
    const fg_record *const r = s->r;
    const size_t m = r->rows, n = r->cols;
    if (s->aside)
        return layer_reverse(s, NULL, NULL, layer_dsums(s, NULL, NULL, z, dz, 0), 0, wants_bias(s));
    double *const dsums = r->param == FG_LEAF ? NULL : take(&s->scratch, m * n);
    const int bias = wants_bias(s) && s->done == 0;
    double *const db = bias && m > 1 ? take(&s->scratch, n) : NULL;
    if (dsums || db)
        s->slots->kernels->layer_sums((int)r->param, m, n, z, dz, dsums, db);
    if (bias)
        add_bias(s, NULL, db ? db : dsums ? dsums : dz);
    return layer_reverse(s, NULL, NULL, dsums ? dsums : dz, 0, 0);
}

/* The reached results alone. Rows and columns that have none are left out of the products; what others have that
 * is not reached takes part as 0. Where that would be most of it, 0 would meet a number that is not finite, or
 * there is no memory for the copies, each stretch of reached results in a row is reversed by itself. */
int fg_layer_reverse_reached(step *s, const double *z, const double *dz)
{
    const fg_slots *const slots = s->slots;
    fg_record *const r = s->r;
    const reached found = find_reached(&s->of, r, &s->scratch);
    const int masked = found.count < found.all;
    if (8 * found.count >= found.all) {
        const fg_id *const rows = is_range(found.rows, found.n_rows) ? NULL : found.rows;
        const fg_id *const cols = is_range(found.cols, found.n_cols) ? NULL : found.cols;
        const size_t k = fg_record_view(r, 0)->cols;
        const size_t copies = 2 * k * ((rows ? found.n_rows : 0) + (cols ? found.n_cols : 0));
        const size_t need = fg_layer_scratch(slots->kernels, r) + copies;
        if (need > slots->room && s->wanted < need) {
            s->wanted = need;
            return FG_E_MEMORY;
        }
        if (need > slots->room) {
            if (s->done > 0)
                return FG_E_INTERRUPTED; /* part of it is done, so there was memory, and may be again */
        } else {
            s->at = (area){found.rows[0], found.cols[0], found.n_rows, found.n_cols};
            const double *const dsums = layer_dsums(s, rows, cols, z, dz, masked);
            const int status = layer_reverse(s, rows, cols, dsums, masked, wants_bias(s));
            if (status != FG_E_DOMAIN)
                return status;
        }
    }
    const fg_id count = r->rows * r->cols;
    for (fg_id k = next_result(&s->of, 0, count, 1); k < count;) {
        const fg_id row_end = (k / r->cols + 1) * r->cols;
        const fg_id end = next_result(&s->of, k, row_end, 0);
        s->scratch = slots->scratch;
        s->at = (area){k / r->cols, k % r->cols, 1, end - k};
        (void)layer_reverse(s, NULL, NULL, layer_dsums(s, NULL, NULL, z, dz, 0), 0, wants_bias(s));
        k = next_result(&s->of, end, count, 1);
    }
    return FG_OK;
}

/* ---- as jobs: what fg_layer_forward() and fg_layer_reverse() do, where nothing is copied or made in blocks ---- */

static int run_forward(const fg_job *j)
{
    const fg_kernels *const kernels = j->kernels;
    const int fused = j->row == FG_LEAF || (j->shape == BLOCKED && j->row == FG_RELU);
    double *const sums = fused ? j->z : j->scratch;
    if (j->shape == ONE_ROW)
        kernels->gemv(j->n, j->k, j->x[1], j->down[1], j->x[0], j->x[2], j->across[2], sums);
    else if (j->shape == ONE_COLUMN)
        kernels->gemv(j->m, j->k, j->x[0], j->down[0], j->x[1], j->x[2], 0, sums);
    else
        kernels->layer(fused ? j->row : FG_LEAF, j->m, j->n, j->k, j->x[0], j->down[0], 1, j->x[1], j->down[1], 1,
                       j->x[2], j->across[2], sums, j->work);
    if (!fused)
        kernels->map(j->row, j->m * j->n, (const double *const[3]){sums}, (const size_t[3]){1}, 0, j->z);
    return FG_OK;
}

static int run_reverse(const fg_job *j)
{
    const fg_kernels *const kernels = j->kernels;
    const size_t m = j->m, n = j->n, k = j->k;
    const double *const dsums = j->row == FG_LEAF ? j->dz : j->scratch;
    double *const db = j->dx[2] && m > 1 ? j->scratch + m * n : NULL;
    if (db || j->row != FG_LEAF)
        kernels->layer_sums(j->row, m, n, j->z, j->dz, j->scratch, db);
    if (j->dx[2]) {
        const double *const more = db ? db : dsums;
        for (size_t i = 0; i < n; i++)
            j->dx[2][(ptrdiff_t)i * j->across[2]] += more[i];
    }
    if (j->shape == ONE_ROW) {
        kernels->gemv_grad(n, k, j->x[1], j->down[1], j->x[0], dsums, j->dx[1], j->dx[0]);
    } else if (j->shape == ONE_COLUMN) {
        kernels->gemv_grad(m, k, j->x[0], j->down[0], j->x[1], dsums, j->dx[0], j->dx[1]);
    } else {
        if (j->dx[0])
            kernels->gemm(m, k, n, dsums, (ptrdiff_t)n, 1, j->x[1], j->down[1], 1, j->dx[0], j->down[0], j->work);
        if (j->dx[1])
            kernels->gemm(n, k, m, dsums, 1, (ptrdiff_t)n, j->x[0], j->down[0], 1, j->dx[1], j->down[1], j->work);
    }
    return FG_OK;
}

void fg_layer_prepare(step *s, fg_job *forward, fg_job *reverse)
{
    fg_record *const r = s->r;
    const size_t m = r->rows, n = r->cols, k = fg_record_view(r, 0)->cols;
    const layer_shape shape = shape_of(r, r->rows, r->cols);
    if ((shape == BLOCKED && !s->slots->kernels->layer_work(m, n, k))
        || (double)m * (double)n * (double)k > BLOCK_WORK)
        return;
    forward->row = reverse->row = (int)r->param;
    forward->shape = reverse->shape = (int)shape;
    forward->m = m, forward->n = n, forward->k = k;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        const area a = operand_area(s, v);
        if (is_listed(view) || (v < 2 && is_apart(view)))
            return;
        const matrix x = lay_out(s, v, DATA, a, NULL, 0);
        const int wanted = v < 2 ? lay_out(s, v, GRADIENTS, a, NULL, 0).p != NULL : wants_bias(s);
        forward->x[v] = x.p;
        forward->down[v] = x.row;
        forward->across[v] = x.col;
        reverse->dx[v] = wanted ? s->slots->grad + view->base : NULL;
    }
    for (int v = 0; v < 3; v++)
        reverse->x[v] = forward->x[v], reverse->down[v] = forward->down[v], reverse->across[v] = forward->across[v];
    reverse->m = m, reverse->n = n, reverse->k = k;
    forward->scratch = reverse->scratch = s->scratch;
    forward->work = reverse->work = s->scratch + m * n + n;
    forward->run = run_forward;
    reverse->run = run_reverse;
}

int fg_layer_fits(int op, fg_record *r)
{
    const fg_view *const x = fg_record_view(r, 0), *const w = x + 1, *const b = x + 2;
    (void)op;
    return r->extra == 0 && (r->views == 2 || (r->views == 3 && b->rows == 1 && b->cols == r->cols))
        && x->rows == r->rows && w->rows == r->cols && w->cols == x->cols;
}
