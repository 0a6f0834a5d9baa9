/* block.c: see block.h. The order here: building, views as memory, then each instruction's forward and
 * reverse, then single elements. */
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

/* Which numbers of a view: its data, or its gradients, which are added up in what is returned; it is NULL
 * if nobody wants them. */
typedef enum numbers { DATA, GRADIENTS } numbers;

/* Whether nobody wants a view's gradients: it is constant, or all of it is frozen leaves. */
static int is_unwanted(const fg_tape *t, fg_record *r, const fg_view *view)
{
    if (view->flags & FG_VIEW_CONSTANT)
        return 1;
    for (fg_id i = 0; i < view->rows && view->cols > 0; i++) {
        if (fg_tape_op(t, fg_record_slot(r, view, i, 0)) != FG_FROZEN) /* mostly at once */
            return 0;
        const fg_id dense = !is_listed(view) && view->col_step == 1;
        const uint8_t *const op = t->op + (dense ? fg_record_slot(r, view, i, 0) : 0);
        int other = 0;
        for (fg_id j = 0; dense && j < view->cols; j++)
            other |= (op[j] & ~FG_HOOK) != FG_FROZEN;
        for (fg_id j = 0; !dense && j < view->cols; j++)
            other |= fg_tape_op(t, fg_record_slot(r, view, i, j)) != FG_FROZEN;
        if (other)
            return 0;
    }
    return 1;
}

/* A view as it lies on the tape, or, if `copy`, in dense scratch memory: gradients then begin with 0, and
 * add_copied() adds them to the tape's at the end. */
static matrix lay_out(const fg_tape *t, fg_record *r, fg_id v, numbers what, int copy, double **scratch)
{
    const fg_view *view = fg_record_view(r, v);
    if (what == GRADIENTS && is_unwanted(t, r, view))
        return (matrix){NULL, 0, 0, 0};
    if (!copy)
        return (matrix){(what == DATA ? t->data : t->grad) + view->base, view->row_step,
                        view->cols > 1 ? view->col_step : 1, 0};
    const matrix m = {take(scratch, size_of(view)), view->cols, 1, 1};
    for (fg_id i = 0; i < view->rows; i++)
        for (fg_id j = 0; j < view->cols; j++)
            m.p[(size_t)i * view->cols + j] = what == DATA ? t->data[fg_record_slot(r, view, i, j)] : 0.0;
    return m;
}

static matrix read_view(const fg_tape *t, fg_record *r, fg_id v, int side, double **scratch)
{
    return lay_out(t, r, v, DATA, must_copy(fg_record_view(r, v), side), scratch);
}

static matrix gradient_of(const fg_tape *t, fg_record *r, fg_id v, int side, double **scratch)
{
    return lay_out(t, r, v, GRADIENTS, must_copy(fg_record_view(r, v), side), scratch);
}

static void add_copied(const fg_tape *t, fg_record *r, fg_id v, matrix m)
{
    const fg_view *view = fg_record_view(r, v);
    if (m.copied)
        for (fg_id i = 0; i < view->rows; i++)
            for (fg_id j = 0; j < view->cols; j++)
                t->grad[fg_record_slot(r, view, i, j)] += m.p[(size_t)i * view->cols + j];
}

static size_t larger(size_t x, size_t y)
{
    return x > y ? x : y;
}

/* ---- FG_LAYER ---- */

/* Which loop a layer takes. */
typedef enum layer_shape { ONE_ROW, ONE_COLUMN, BLOCKED } layer_shape;

static layer_shape shape_of(fg_record *r)
{
    const fg_view *x = fg_record_view(r, 0), *w = fg_record_view(r, 1);
    if (r->rows == 1 && !(w->col_step != 1 && w->cols > 1 && !is_listed(w)))
        return ONE_ROW;
    if (r->cols == 1 && !(x->col_step != 1 && x->cols > 1 && !is_listed(x)))
        return ONE_COLUMN;
    return BLOCKED;
}

/* How much scratch memory the forward step, the reverse step and a part's reverse step need. */
static size_t scratch_need(const fg_tape *t, int op, fg_record *r)
{
    size_t need = 0, operands = 0;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *view = fg_record_view(r, v);
        if (op == FG_LOGSUMEXP || op == FG_CROSS_ENTROPY)
            need += size_of(view); /* one row; all of it, if that is reduced to one number */
        /* Lanes go down a column if there is one only, so FG_MAP may copy other views than these. */
        if (op == FG_MAP || must_copy(view, 1) || (op >= FG_SUM && view->rows > 1))
            need += 2 * size_of(view);
        operands += view->cols;
    }
    if (op == FG_LAYER) {
        const size_t m = r->rows, n = r->cols, k = fg_record_view(r, 0)->cols;
        const fg_kernels *const kernels = t->kernels;
        need += m * n + n;
        if (shape_of(r) == BLOCKED) {
            const size_t forward = kernels->gemm_work(m, n, k);
            const size_t dx = larger(kernels->gemm_work(m, k, n), kernels->gemm_work(k, m, n));
            const size_t dw = larger(kernels->gemm_work(n, k, m), kernels->gemm_work(k, n, m));
            need += larger(forward, larger(dx, dw));
        }
    }
    return larger(need, op == FG_MAP ? 2 * FG_MAX_VIEWS : 2 * operands + 2);
}

static void layer_forward(const fg_tape *t, fg_record *r, double *z)
{
    const fg_kernels *const kernels = t->kernels;
    const size_t m = r->rows, n = r->cols, k = fg_record_view(r, 0)->cols;
    const layer_shape shape = shape_of(r);
    double *scratch = t->scratch;
    double *const sums = r->param == FG_LEAF ? z : take(&scratch, m * n);
    const matrix x = read_view(t, r, 0, shape != BLOCKED, &scratch);
    const matrix w = read_view(t, r, 1, shape != BLOCKED, &scratch);
    matrix b = {NULL, 0, 0, 0};
    if (r->views > 2)
        b = read_view(t, r, 2, 0, &scratch);

    if (shape == ONE_ROW) {
        kernels->gemv(n, k, w.p, w.row, x.p, b.p, b.col, sums);
    } else if (shape == ONE_COLUMN) {
        kernels->gemv(m, k, x.p, x.row, w.p, b.p, 0, sums);
    } else {
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < n; j++)
                sums[i * n + j] = b.p ? b.p[(ptrdiff_t)j * b.col] : 0.0;
        kernels->gemm(m, n, k, x.p, x.row, x.col, w.p, w.col, w.row, sums, (ptrdiff_t)n, scratch);
    }
    if (r->param != FG_LEAF)
        kernels->map((int)r->param, m * n, (const double *const[3]){sums}, (const size_t[3]){1}, 0, z);
}

/* C += A B, where the columns of C may lie apart if its rows lie side by side. */
static void multiply_add(const fg_kernels *kernels, size_t m, size_t n, size_t k, matrix a, matrix b,
                         matrix c, double *work)
{
    if (c.col == 1)
        kernels->gemm(m, n, k, a.p, a.row, a.col, b.p, b.row, b.col, c.p, c.row, work);
    else /* the same, transposed */
        kernels->gemm(n, m, k, b.p, b.col, b.row, a.p, a.col, a.row, c.p, c.col, work);
}

static void layer_reverse(const fg_tape *t, fg_record *r, const double *z, double *dz)
{
    const fg_kernels *const kernels = t->kernels;
    const size_t m = r->rows, n = r->cols, k = fg_record_view(r, 0)->cols;
    const layer_shape shape = shape_of(r);
    double *scratch = t->scratch;
    matrix dsums = {dz, (ptrdiff_t)n, 1, 0}; /* the gradient before the activation */
    if (r->param != FG_LEAF) {
        dsums.p = take(&scratch, m * n);
        memset(dsums.p, 0, m * n * sizeof *dsums.p);
        /* The activations of a layer are those whose derivative follows from z, so z stands for x. */
        kernels->map_grad((int)r->param, 0, m * n, (const double *const[3]){z}, (const size_t[3]){1}, 0,
                          z, dz, dsums.p);
    }
    if (r->views > 2) {
        const fg_view *b = fg_record_view(r, 2);
        double *const db = take(&scratch, n);
        if (m > 1) {
            memset(db, 0, n * sizeof *db);
            for (size_t i = 0; i < m; i++)
                kernels->axpy(n, 1.0, dsums.p + i * n, db);
        }
        for (size_t j = 0; j < n && !(b->flags & FG_VIEW_CONSTANT); j++)
            t->grad[fg_record_slot(r, b, 0, (fg_id)j)] += m > 1 ? db[j] : dsums.p[j];
    }

    const int side = shape != BLOCKED;
    const matrix x = read_view(t, r, 0, side, &scratch), w = read_view(t, r, 1, side, &scratch);
    /* Blocked: a copy unless rows or columns are side by side. */
    const fg_view *vx = fg_record_view(r, 0), *vw = fg_record_view(r, 1);
    const matrix dx = gradient_of(t, r, 0, side || (vx->row_step != 1 && vx->rows > 1), &scratch);
    const matrix dw = gradient_of(t, r, 1, side || (vw->row_step != 1 && vw->rows > 1), &scratch);
    if (shape == ONE_ROW) {
        kernels->gemv_grad(n, k, w.p, w.row, x.p, dsums.p, dw.p, dx.p);
    } else if (shape == ONE_COLUMN) {
        kernels->gemv_grad(m, k, x.p, x.row, w.p, dsums.p, dx.p, dw.p);
    } else {
        if (dx.p)
            multiply_add(kernels, m, k, n, dsums, w, dx, scratch);
        if (dw.p)
            multiply_add(kernels, n, k, m, (matrix){dsums.p, 1, (ptrdiff_t)n, 0}, x, dw, scratch);
    }
    add_copied(t, r, 0, dx);
    add_copied(t, r, 1, dw);
}

/* ---- FG_MAP ---- */

/* How the loops go over the elements: `outer` times `lanes` of them. A column goes down, all else across;
 * if every operand lies dense, or is one number, it is all one loop. */
typedef struct loops {
    size_t outer, lanes;
    int down;
} loops;

static loops loops_of(fg_record *r)
{
    const int down = r->cols == 1;
    loops l = {down ? r->cols : r->rows, down ? r->rows : r->cols, down};
    int one = l.outer > 1;
    for (fg_id v = 0; v < r->views && one; v++) {
        const fg_view *view = fg_record_view(r, v);
        const int single = view->rows == 1 && view->cols == 1;
        const int dense = view->rows == r->rows && view->cols == r->cols
                          && (is_listed(view) || (view->col_step == 1 && (fg_id)view->row_step == view->cols));
        one = single || dense;
    }
    if (one)
        l = (loops){1, l.outer * l.lanes, 0};
    return l;
}

/* A view as operand of those loops: where it begins, and how far it is from one outer round to the next
 * and from lane to lane, which is 0 or 1. */
typedef struct lane_view {
    matrix m;
    ptrdiff_t outer_step;
    size_t step;
} lane_view;

static lane_view lanes_of(const fg_tape *t, fg_record *r, fg_id v, numbers what, const loops *l,
                          double **scratch)
{
    const fg_view *view = fg_record_view(r, v);
    const int32_t across = l->down ? view->row_step : view->col_step;
    const fg_id length = l->down ? view->rows : view->cols;
    const matrix m = lay_out(t, r, v, what, is_listed(view) || (length > 1 && across != 1), scratch);
    const ptrdiff_t row = view->rows > 1 ? m.row : 0, col = view->cols > 1 ? m.col : 0;
    const int one_loop = l->outer == 1 && size_of(view) > 1 && l->lanes > 1;
    return (lane_view){m, l->down ? col : row, (size_t)(length > 1 || one_loop)};
}

/* The operands of those loops, in the first round; `step` is of the lanes. */
static void map_operands(const fg_tape *t, fg_record *r, const loops *l, lane_view *views, size_t *step,
                         double **scratch)
{
    for (fg_id v = 0; v < r->views; v++) {
        views[v] = lanes_of(t, r, v, DATA, l, scratch);
        step[v] = views[v].step;
    }
}

/* Where the operands' lanes begin in outer round i. */
static void map_round(const fg_record *r, const lane_view *views, size_t i, const double **x)
{
    for (fg_id v = 0; v < r->views; v++)
        x[v] = views[v].m.p + (ptrdiff_t)i * views[v].outer_step;
}

static size_t map_forward(const fg_tape *t, fg_record *r, double *z)
{
    const loops l = loops_of(r);
    double *scratch = t->scratch;
    lane_view views[FG_MAX_VIEWS];
    const double *x[FG_MAX_VIEWS] = {NULL, NULL, NULL};
    size_t step[FG_MAX_VIEWS] = {0, 0, 0};
    map_operands(t, r, &l, views, step, &scratch);
    for (size_t i = 0; i < l.outer; i++) {
        map_round(r, views, i, x);
        const size_t lane = t->kernels->map((int)r->param, l.lanes, x, step, (int32_t)r->k, z + i * l.lanes);
        if (lane < l.lanes)
            return i * l.lanes + lane;
    }
    return l.outer * l.lanes;
}

static void map_reverse(const fg_tape *t, fg_record *r, const double *z, const double *dz)
{
    const loops l = loops_of(r);
    double *scratch = t->scratch;
    lane_view views[FG_MAX_VIEWS];
    const double *x[FG_MAX_VIEWS] = {NULL, NULL, NULL};
    size_t step[FG_MAX_VIEWS] = {0, 0, 0};
    map_operands(t, r, &l, views, step, &scratch);
    for (fg_id which = 0; which < r->views; which++) {
        const lane_view d = lanes_of(t, r, which, GRADIENTS, &l, &scratch);
        for (size_t i = 0; i < l.outer && d.m.p; i++) {
            map_round(r, views, i, x);
            t->kernels->map_grad((int)r->param, (int)which, l.lanes, x, step, (int32_t)r->k, z + i * l.lanes,
                                 dz + i * l.lanes, d.m.p + (ptrdiff_t)i * d.outer_step);
        }
        add_copied(t, r, which, d.m);
    }
}

/* ---- reductions and softmax: along the rows of view 0, or over all of it ---- */

typedef struct rows {
    size_t count, length;
    matrix m;
} rows;

/* The rows to reduce: with one result, the whole view is one. */
static rows rows_of(fg_record *r, matrix m)
{
    const fg_view *v = fg_record_view(r, 0);
    rows s = {v->rows, v->cols, m};
    if (r->rows == 1 && r->cols == 1 && v->rows > 1)
        s = (rows){1, size_of(v), m};
    return s;
}

/* Whether view 0 has to be copied so that each of rows_of() is in one piece. */
static int in_pieces(fg_record *r)
{
    const fg_view *v = fg_record_view(r, 0);
    return (v->col_step != 1 && v->cols > 1)
           || (r->rows == 1 && r->cols == 1 && v->rows > 1 && (fg_id)v->row_step != v->cols);
}

static matrix dense_view(const fg_tape *t, fg_record *r, numbers what, double **scratch)
{
    return lay_out(t, r, 0, what, is_listed(fg_record_view(r, 0)) || in_pieces(r), scratch);
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

static void rows_forward(const fg_tape *t, int op, fg_record *r, double *z)
{
    const fg_kernels *const kernels = t->kernels;
    double *scratch = t->scratch;
    const rows x = rows_of(r, dense_view(t, r, DATA, &scratch));
    for (size_t i = 0; i < x.count; i++) {
        const double *const row = x.m.p + (ptrdiff_t)i * x.m.row;
        if (op == FG_SOFTMAX)
            kernels->softmax(x.length, row, z + i * x.length);
        else if (op == FG_LOG_SOFTMAX)
            kernels->log_softmax(x.length, row, z + i * x.length);
        else
            z[i] = reduced(kernels, op, x.length, row);
    }
}

static void rows_reverse(const fg_tape *t, int op, fg_record *r, const double *z, const double *dz)
{
    const fg_kernels *const kernels = t->kernels;
    double *scratch = t->scratch;
    const rows dx = rows_of(r, dense_view(t, r, GRADIENTS, &scratch));
    if (!dx.m.p)
        return;
    rows x = {0, 0, {NULL, 0, 0, 0}};
    if (op == FG_MAX || op == FG_LOGSUMEXP)
        x = rows_of(r, dense_view(t, r, DATA, &scratch));
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
                kernels->softmax(n, x.m.p + (ptrdiff_t)i * x.m.row, scratch);
                kernels->axpy(n, dz[i], scratch, row);
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
    add_copied(t, r, 0, dx.m);
}

/* ---- FG_CROSS_ENTROPY: the mean over rows of -log_softmax(row)[label]; extra is a label for each ---- */

static double cross_entropy_forward(const fg_tape *t, fg_record *r)
{
    double *scratch = t->scratch;
    const fg_view *v = fg_record_view(r, 0);
    const fg_id *const label = fg_record_extra(r);
    const matrix x = read_view(t, r, 0, 1, &scratch);
    double total = 0.0;
    for (fg_id i = 0; i < v->rows; i++) {
        t->kernels->log_softmax(v->cols, x.p + (ptrdiff_t)i * x.row, scratch);
        total -= scratch[label[i]];
    }
    return total / v->rows;
}

static void cross_entropy_reverse(const fg_tape *t, fg_record *r, double dz)
{
    double *scratch = t->scratch;
    const fg_view *v = fg_record_view(r, 0);
    const fg_id *const label = fg_record_extra(r);
    const matrix x = read_view(t, r, 0, 1, &scratch), dx = gradient_of(t, r, 0, 1, &scratch);
    const double d = dz / v->rows;
    for (fg_id i = 0; i < v->rows && dx.p; i++) {
        double *const row = dx.p + (ptrdiff_t)i * dx.row;
        t->kernels->softmax(v->cols, x.p + (ptrdiff_t)i * x.row, scratch);
        t->kernels->axpy(v->cols, d, scratch, row);
        row[label[i]] -= d;
    }
    add_copied(t, r, 0, dx);
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
    const int status = fg_tape_scratch(t, scratch_need(t, op, r));
    if (status < 0)
        return status;
    double *const z = t->data + t->n; /* there is room, and nothing lives there yet */
    if (results)
        memcpy(z, results, count * sizeof *z);
    else switch (op) {
    case FG_LAYER:
        layer_forward(t, r, z);
        break;
    case FG_MAP: {
        const size_t at = map_forward(t, r, z);
        if (at < count) {
            *node = (fg_id)at;
            return FG_E_DOMAIN; /* the caller asks the row which one it is */
        }
        break;
    }
    case FG_CROSS_ENTROPY:
        z[0] = cross_entropy_forward(t, r);
        break;
    default:
        rows_forward(t, op, r, z);
    }
    *node = fg_tape_push_block(t, op, parts ? count : 0);
    return FG_OK;
}

void fg_block_reverse(fg_tape *t, fg_id i)
{
    fg_record *const r = fg_tape_record(t, i);
    const fg_id first = i - t->args[i].b;
    const double *const z = t->data + first;
    double *const dz = t->grad + first;
    const int op = fg_tape_op(t, i);
    switch (op) {
    case FG_LAYER:
        layer_reverse(t, r, z, dz);
        break;
    case FG_MAP:
        map_reverse(t, r, z, dz);
        break;
    case FG_CROSS_ENTROPY:
        cross_entropy_reverse(t, r, dz[0]);
        break;
    default:
        rows_reverse(t, op, r, z, dz);
    }
}

/* ---- single elements ---- */

/* Where the operands of one element go, and what their gradients get; nothing is kept where the arrays are
 * NULL. */
typedef struct listing {
    double dz;
    fg_id count;
    fg_id *ids;
    double *contributions;
    int reverse; /* for a reverse step: a constant gets 0 */
} listing;

/* List a slot of this view; NULL: of a node without views. */
static void list(listing *to, const fg_view *view, fg_id id, double contribution)
{
    if (to->reverse && view && (view->flags & FG_VIEW_CONSTANT))
        contribution = 0.0;
    if (to->ids)
        to->ids[to->count] = id;
    if (to->contributions)
        to->contributions[to->count] = contribution;
    to->count++;
}

/* In micrograd's order: the bias, then each weight with its input. */
static void list_layer(const fg_tape *t, fg_record *r, fg_id row, fg_id col, double z, listing *to)
{
    const fg_view *x = fg_record_view(r, 0), *w = fg_record_view(r, 1);
    const double d = r->param == FG_LEAF ? to->dz : fg_op_unary_dx((int)r->param, z, 0, z, to->dz);
    if (r->views > 2) {
        const fg_view *b = fg_record_view(r, 2);
        list(to, b, fg_record_slot(r, b, 0, col), d);
    }
    for (fg_id k = 0; k < x->cols; k++) {
        const fg_id xi = fg_record_slot(r, x, row, k), wi = fg_record_slot(r, w, col, k);
        list(to, w, wi, d * t->data[xi]);
        list(to, x, xi, d * t->data[wi]);
    }
}

static void list_map(const fg_tape *t, fg_record *r, fg_id row, fg_id col, double z, listing *to)
{
    fg_id slot[3] = {0, 0, 0};
    double x[3] = {0.0, 0.0, 0.0};
    const int op = (int)r->param;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *view = fg_record_view(r, v);
        slot[v] = fg_record_slot(r, view, view->rows > 1 ? row : 0, view->cols > 1 ? col : 0);
        x[v] = t->data[slot[v]];
    }
    for (fg_id v = 0; v < (fg_id)fg_op_table[op].parents; v++) /* FG_POWC: not the exponent */
        list(to, fg_record_view(r, v), slot[v],
             r->views == 1   ? fg_op_unary_dx(op, x[0], (int32_t)r->k, z, to->dz)
             : r->views == 2 ? fg_op_binary_dx(op, (int)v, x[0], x[1], z, to->dz)
                             : fg_op_ternary_dx(op, (int)v, x[0], x[1], x[2], z, to->dz));
}

/* What the rules of some rows' elements have in common. */
typedef struct row_facts {
    double largest, ties; /* nan if there is any */
    double exponentials;  /* the sum of exp(x - largest) */
} row_facts;

static row_facts facts_of(const fg_tape *t, fg_record *r, fg_id first, fg_id end)
{
    const fg_view *x = fg_record_view(r, 0);
    row_facts facts = {-INFINITY, 0.0, 0.0};
    for (fg_id i = first; i < end; i++)
        for (fg_id j = 0; j < x->cols; j++)
            facts.largest = fg_maximum(facts.largest, t->data[fg_record_slot(r, x, i, j)]);
    for (fg_id i = first; i < end; i++)
        for (fg_id j = 0; j < x->cols; j++) {
            const double xi = t->data[fg_record_slot(r, x, i, j)];
            facts.ties += is_largest(xi, facts.largest);
            facts.exponentials += exp(xi - facts.largest);
        }
    return facts;
}

/* Of rows first to before end, all that element `at` of the results is made of. */
static void list_rows(const fg_tape *t, int op, fg_record *r, fg_id first, fg_id end, fg_id at,
                      const double *z, listing *to)
{
    const fg_view *x = fg_record_view(r, 0);
    const double n = (double)(end - first) * x->cols, dz = to->dz;
    const row_facts facts = facts_of(t, r, first, end);
    for (fg_id i = first; i < end; i++)
        for (fg_id j = 0; j < x->cols; j++) {
            const fg_id slot = fg_record_slot(r, x, i, j);
            const double xi = t->data[slot];
            const double same = at == i * x->cols + j ? 1.0 : 0.0; /* of softmax: the element's own */
            double d = dz;
            if (op == FG_MEAN)
                d = dz / n;
            else if (op == FG_MAX)
                d = is_largest(xi, facts.largest) ? dz / facts.ties : 0.0;
            else if (op == FG_LOGSUMEXP)
                d = (isfinite(z[at]) ? exp(xi - facts.largest) / facts.exponentials : exp(xi - z[at])) * dz;
            else if (op == FG_SOFTMAX)
                d = z[at] * (same - z[i * x->cols + j]) * dz;
            else if (op == FG_LOG_SOFTMAX)
                d = (same - exp(z[i * x->cols + j])) * dz;
            list(to, x, slot, d);
        }
}

static void list_cross_entropy(const fg_tape *t, fg_record *r, listing *to)
{
    const fg_view *x = fg_record_view(r, 0);
    const fg_id *const label = fg_record_extra(r);
    for (fg_id i = 0; i < x->rows; i++) {
        const row_facts facts = facts_of(t, r, i, i + 1);
        for (fg_id j = 0; j < x->cols; j++) {
            const fg_id slot = fg_record_slot(r, x, i, j);
            const double p = exp(t->data[slot] - facts.largest) / facts.exponentials;
            list(to, x, slot, (p - (j == label[i])) / x->rows * to->dz);
        }
    }
}

/* The rule of an inline or pooled node. */
static void list_node(const fg_tape *t, fg_id i, listing *to)
{
    fg_id pair[2];
    const fg_id *operands;
    const fg_id count = fg_tape_operands(t, i, pair, &operands);
    const int op = fg_tape_op(t, i);
    const double z = t->data[i];
    for (fg_id k = 0; k < count; k++) {
        double d = 0.0; /* FG_CUSTOM has no rule */
        if (op == FG_LOCAL)
            memcpy(&d, operands + count + 2 * (size_t)k, sizeof d), d *= to->dz;
        else if (op < FG_UNARY_END)
            d = fg_op_unary_dx(op, t->data[operands[0]], (int32_t)t->args[i].b, z, to->dz);
        else if (op < FG_BINARY_END)
            d = fg_op_binary_dx(op, (int)k, t->data[operands[0]], t->data[operands[1]], z, to->dz);
        else if (op < FG_CUSTOM)
            d = fg_op_ternary_dx(op, (int)k, t->data[operands[0]], t->data[operands[1]],
                                 t->data[operands[2]], z, to->dz);
        list(to, NULL, operands[k], d);
    }
}

static fg_id list_operands(const fg_tape *t, fg_id i, listing to)
{
    const fg_id block = fg_tape_op(t, i) == FG_PART ? i + t->args[i].a : i;
    const int op = fg_tape_op(t, block);
    if (!fg_op_is_block(op)) {
        if (op <= FG_LOCAL)
            list_node(t, i, &to);
        return to.count;
    }
    fg_record *const r = fg_tape_record(t, block);
    const fg_id first = block - t->args[block].b, at = i - first;
    const fg_id row = at / r->cols, col = at % r->cols;
    const double *const z = t->data + first;
    if (op == FG_LAYER)
        list_layer(t, r, row, col, z[at], &to);
    else if (op == FG_MAP)
        list_map(t, r, row, col, z[at], &to);
    else if (op == FG_CROSS_ENTROPY)
        list_cross_entropy(t, r, &to);
    else if (r->rows == 1 && r->cols == 1) /* over all of it */
        list_rows(t, op, r, 0, fg_record_view(r, 0)->rows, at, z, &to);
    else if (op == FG_SOFTMAX || op == FG_LOG_SOFTMAX)
        list_rows(t, op, r, row, row + 1, at, z, &to);
    else
        list_rows(t, op, r, at, at + 1, at, z, &to);
    return to.count;
}

fg_id fg_block_operands(const fg_tape *t, fg_id i, double dz, fg_id *ids, double *contributions)
{
    return list_operands(t, i, (listing){dz, 0, ids, contributions, 0});
}

void fg_block_reverse_part(fg_tape *t, fg_id i)
{
    const double dz = t->grad[i];
    double *const contributions = t->scratch;
    fg_id count = fg_block_operands(t, i, dz, NULL, NULL);
    fg_id *const ids = (fg_id *)(void *)(t->scratch + count);
    count = list_operands(t, i, (listing){dz, 0, ids, contributions, 1});
    for (fg_id k = 0; k < count; k++)
        t->grad[ids[k]] += contributions[k];
}
