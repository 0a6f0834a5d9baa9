/* block_rows.c: reductions, softmax and cross entropy of x (m, n): along its rows, or over all of it. The order here:
 * rows in memory, forward, reverse, reverse of what is reached, cross entropy.
 *
 * z is (1, m) or (m, 1) for FG_SUM and its like, a number for each row, or (1, 1), one for all; (m, n) for FG_SOFTMAX
 * and FG_LOG_SOFTMAX; (1, 1) for FG_CROSS_ENTROPY. It leaves to the kernels what is done with a row. */
#include "block_reached.h"
#include "block_steps.h"

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
    return must_copy(v, 1) || (is_single(r) && !is_dense(v));
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

/* The largest share the gradient, or, if there is a nan, that and its like: then the largest is nan. By the present data,
 * as for FG_MAXIMUM: it may have been assigned to since. */
static int is_largest(double x, double largest)
{
    return x == largest || isnan(x);
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

/* z: a number for each row, or softmax and log_softmax, a row for each. */
int fg_rows_forward(step *s, double *z)
{
    const fg_kernels *const kernels = s->slots->kernels;
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
    return FG_OK;
}

/* Of FG_SUM and FG_MEAN, in place, however the operands lie. */
static void sum_reverse(const step *s, const double *dz)
{
    const fg_view *const view = fg_record_view(s->r, 0);
    const area a = operand_area(s, 0);
    const int single = is_single(s->r);
    const double n = single ? (double)a.rows * a.cols : (double)a.cols;
    if (is_constant(s->slots, view))
        return;
    for (fg_id i = 0; i < a.rows; i++) {
        const double di = dz[single ? 0 : i], d = s->op == FG_SUM ? di : di / n;
        const fg_id first = is_listed(view) ? 0 : fg_record_slot(s->r, view, a.row + i, 0);
        double *const row = number_of(s->slots, view, first, GRADIENTS);
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

/* For each row, with n numbers x, its result z and the gradient dz of that:
 *
 *   FG_SUM          dx += dz                  FG_MAX          dx += dz / ties, where x is the largest
 *   FG_MEAN         dx += dz / n              FG_SOFTMAX      dx += z (dz - dot(z, dz))
 *   FG_LOGSUMEXP    dx += dz softmax(x)       FG_LOG_SOFTMAX  dx += dz - exp(z) sum(dz)
 *
 * z and dz: of the first result at s->at. */
int fg_rows_reverse(step *s, const double *z, const double *dz)
{
    const fg_kernels *const kernels = s->slots->kernels;
    const int op = s->op;
    if ((op == FG_SUM || op == FG_MEAN) && !s->aside) {
        sum_reverse(s, dz);
        return FG_OK;
    }
    const rows dx = lay_out_rows(s, GRADIENTS);
    if (!dx.m.p)
        return FG_OK;
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
    return FG_OK;
}

/* The reached results alone: rows of which all is reached together, and each of the others with zeros for what is
 * not. These change nothing even where a result is nan, for then all results of its row are. */
int fg_rows_reverse_reached(step *s, const double *z, const double *dz)
{
    const fg_record *const r = s->r;
    const fg_id all = r->rows * r->cols, wide = fg_op_is_softmax(s->op) ? r->cols : 1;
    for (fg_id k = next_result(&s->of, 0, all, 1); k < all;) {
        const fg_id row = k / wide;
        fg_id end = next_result(&s->of, row * wide, all, 0) / wide; /* rows before this one are reached whole */
        const int whole = end > row;
        const double *d = dz + row * wide;
        s->scratch = s->slots->scratch;
        if (!whole) {
            double *const masked = take(&s->scratch, wide);
            memcpy(masked, d, wide * sizeof *masked);
            clear_unreached(&s->of, row * wide, wide, masked);
            d = masked;
            end = row + 1;
        }
        if (fg_op_is_softmax(s->op))
            s->at = (area){row, 0, end - row, wide};
        else
            s->at = r->cols > 1 ? (area){0, row, 1, end - row} : (area){row, 0, end - row, 1};
        (void)fg_rows_reverse(s, z + row * wide, d);
        k = next_result(&s->of, end * wide, all, 1);
    }
    return FG_OK;
}

/* ---- FG_SUM and FG_MEAN as jobs, of numbers that lie in one piece and have one result ---- */

static int run_forward(const fg_job *j)
{
    *j->z = reduced(j->kernels, j->row, j->n, j->x[0]);
    return FG_OK;
}

static int run_reverse(const fg_job *j)
{
    const double d = j->row == FG_SUM ? *j->dz : *j->dz / (double)j->n;
    double *const dx = j->dx[0];
    for (size_t k = 0; k < j->n && dx; k++)
        dx[k] += d;
    return FG_OK;
}

void fg_rows_prepare(step *s, fg_job *forward, fg_job *reverse)
{
    const fg_view *const view = fg_record_view(s->r, 0);
    if (!is_single(s->r) || !is_dense(view))
        return;
    forward->x[0] = s->slots->data + view->base;
    reverse->dx[0] = view->flags & FG_VIEW_CONSTANT ? NULL : s->slots->grad + view->base;
    forward->row = reverse->row = s->op;
    forward->n = reverse->n = size_of(view);
    forward->run = run_forward;
    reverse->run = run_reverse;
}

int fg_rows_fits(int op, fg_record *r)
{
    const fg_view *const x = fg_record_view(r, 0);
    if (r->views != 1 || r->extra != 0)
        return 0;
    if (fg_op_is_softmax(op))
        return x->rows == r->rows && x->cols == r->cols;
    if (x->rows == 0 || x->cols == 0 || (r->rows > 1 && r->cols > 1))
        return 0;
    return is_single(r) || r->rows * r->cols == x->rows;
}

/* z (1, 1) = the mean over the rows of x (m, n) of -log_softmax(row)[label]; extra is a label for each. */
int fg_cross_entropy_forward(step *s, double *z)
{
    const area a = operand_area(s, 0);
    const fg_id *const label = fg_record_extra(s->r);
    const matrix x = lay_out(s, 0, DATA, a, NULL, must_copy(fg_record_view(s->r, 0), 1));
    double total = 0.0;
    for (fg_id i = 0; i < a.rows; i++) {
        s->slots->kernels->log_softmax(a.cols, x.p + (ptrdiff_t)i * x.row, s->scratch);
        total -= s->scratch[label[i]];
    }
    z[0] = total / a.rows;
    return FG_OK;
}

/* dx (m, n) += dz / m * (softmax(row) - 1 where the label is). */
int fg_cross_entropy_reverse(step *s, const double *z, const double *dz)
{
    const area a = operand_area(s, 0);
    const fg_id *const label = fg_record_extra(s->r);
    const int copy = must_copy(fg_record_view(s->r, 0), 1);
    const matrix x = lay_out(s, 0, DATA, a, NULL, copy), dx = lay_out(s, 0, GRADIENTS, a, NULL, copy);
    const double d = dz[0] / a.rows;
    (void)z;
    for (fg_id i = 0; i < a.rows && dx.p; i++) {
        double *const row = dx.p + (ptrdiff_t)i * dx.row;
        s->slots->kernels->softmax(a.cols, x.p + (ptrdiff_t)i * x.row, s->scratch);
        s->slots->kernels->axpy(a.cols, d, s->scratch, row);
        row[label[i]] -= d;
    }
    add_copied(s, 0, a, NULL, dx);
    return FG_OK;
}

/* It has one result. */
int fg_cross_entropy_reverse_reached(step *s, const double *z, const double *dz)
{
    return fg_cross_entropy_reverse(s, z, dz);
}

int fg_cross_entropy_fits(int op, fg_record *r)
{
    const fg_view *const x = fg_record_view(r, 0);
    (void)op;
    return r->views == 1 && is_single(r) && x->rows > 0 && x->rows == r->extra;
}
