/* block_map.c: FG_MAP: z (m, n) = row(x, y, w), each of them (m, n), (1, n), (m, 1) or (1, 1). The order here: how
 * loops go over the elements, forward, reverse, both as jobs.
 *
 * It promises to tell the first element at fault. It leaves to the kernels what a row computes. */
#include "block_reached.h"
#include "block_steps.h"

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
        const int dense = view->rows == r->rows && view->cols == r->cols && (is_listed(view) || is_dense(view));
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

/* z (m, n) = row(x, y, w). */
int fg_map_forward(step *s, double *z)
{
    const fg_record *const r = s->r;
    const loops l = loops_of(s->r, s->at);
    lane_view views[FG_MAX_ARITY];
    const double *x[FG_MAX_ARITY] = {NULL, NULL, NULL};
    size_t per_lane[FG_MAX_ARITY] = {0, 0, 0};
    map_operands(s, &l, views, per_lane);
    for (size_t i = 0; i < l.outer; i++) {
        map_round(r, views, i, x);
        const size_t lane =
            s->slots->kernels->map((int)r->param, l.lanes, x, per_lane, (int32_t)r->k, z + i * l.lanes);
        if (lane < l.lanes && !s->slots->lenient) {
            s->done = i * l.lanes + lane;
            return FG_E_DOMAIN;
        }
    }
    return FG_OK;
}

/* map_grad for those lanes alone that are reached, of which the first has result k: a long stretch of them by
 * itself, and short ones with what lies between, which is put back. */
static void map_grad_reached(const step *s, fg_id which, size_t lanes, const double *const *x,
                             const size_t *per_lane, const double *z, const double *dz, double *dx, fg_id k)
{
    enum { CHUNK = 256, LONG_STRETCH = 64 };
    const fg_record *const r = s->r;
    const fg_id after = k + (fg_id)lanes;
    double kept[CHUNK], same[CHUNK];
    for (fg_id n, at = next_result(&s->of, k, after, 1); at < after;
         at = next_result(&s->of, at + n, after, 1)) {
        const fg_id stretch = next_result(&s->of, at, after, 0) - at;
        const int alone = stretch >= LONG_STRETCH || stretch == after - at;
        const size_t from = at - k;
        double *const dxs = dx + from * per_lane[which];
        const double *xs[FG_MAX_ARITY] = {NULL, NULL, NULL};
        size_t steps[FG_MAX_ARITY] = {0, 0, 0};
        n = alone ? stretch : after - at < CHUNK ? after - at : CHUNK;
        for (fg_id v = 0; v < r->views; v++) {
            xs[v] = x[v] + from * per_lane[v];
            steps[v] = per_lane[v];
        }
        if (alone) {
            s->slots->kernels->map_grad((int)r->param, (int)which, n, xs, steps, (int32_t)r->k, z + from, dz + from,
                                    dxs);
        } else if (per_lane[which]) {
            const fg_id hole = next_result(&s->of, at, at + n, 0);
            memcpy(kept, dxs, n * sizeof *kept);
            s->slots->kernels->map_grad((int)r->param, (int)which, n, xs, steps, (int32_t)r->k, z + from, dz + from,
                                    dxs);
            for (fg_id j = hole; j < at + n;) {
                const fg_id end = next_result(&s->of, j, at + n, 1);
                for (; j < end; j++)
                    dxs[j - at] = kept[j - at];
                j = next_result(&s->of, j, at + n, 0);
            }
        } else { /* one number for all lanes: each lane's share by itself, and of them the sum */
            for (fg_id j = 0; j < n; j++)
                same[j] = *xs[which];
            xs[which] = same;
            steps[which] = 1;
            memset(kept, 0, n * sizeof *kept);
            s->slots->kernels->map_grad((int)r->param, (int)which, n, xs, steps, (int32_t)r->k, z + from, dz + from,
                                    kept);
            for (fg_id j = 0; j < n; j += 64)
                for (uint64_t bits = reached_bits(&s->of, at + j, n - j < 64 ? n - j : 64); bits;
                     bits &= bits - 1u)
                    *dxs += kept[j + fg_bits_low(bits)];
        }
    }
}

/* dx += dz * the row's derivative by x, summed over the rows or columns that x is repeated in; y and w likewise. z and
 * dz: of the first result at s->at. some: only those count that are reached. */
static void map_reverse(step *s, const double *z, const double *dz, int some)
{
    const fg_record *const r = s->r;
    const loops l = loops_of(s->r, s->at);
    const fg_id k = s->at.row * r->cols + s->at.col;
    lane_view views[FG_MAX_ARITY];
    const double *x[FG_MAX_ARITY] = {NULL, NULL, NULL};
    size_t per_lane[FG_MAX_ARITY] = {0, 0, 0};
    map_operands(s, &l, views, per_lane);
    for (fg_id which = 0; which < r->views; which++) {
        const lane_view d = lanes_of(s, which, GRADIENTS, &l);
        for (size_t i = 0; i < l.outer && d.m.p; i++) {
            const double *const zi = z + i * l.apart, *const dzi = dz + i * l.apart;
            double *const dx = d.m.p + (ptrdiff_t)i * d.outer_step;
            map_round(r, views, i, x);
            if (some)
                map_grad_reached(s, which, l.lanes, x, per_lane, zi, dzi, dx, k + (fg_id)(i * l.apart));
            else
                s->slots->kernels->map_grad((int)r->param, (int)which, l.lanes, x, per_lane, (int32_t)r->k, zi, dzi,
                                        dx);
        }
        add_copied(s, which, operand_area(s, which), NULL, d.m);
    }
}

int fg_map_reverse(step *s, const double *z, const double *dz)
{
    map_reverse(s, z, dz, 0);
    return FG_OK;
}

/* The reached results alone: where they are few, one stretch in a row after the other; else all of the rows from
 * the first to the last, of which only they count. */
int fg_map_reverse_reached(step *s, const double *z, const double *dz)
{
    const fg_record *const r = s->r;
    const fg_id all = r->rows * r->cols, low = next_result(&s->of, 0, all, 1);
    fg_id high = all, stretches;
    while (!(s->of.reached[(s->of.first + high - 1) >> 6] >> ((s->of.first + high - 1) & 63u) & 1u))
        high--;
    const fg_id count = count_reached(&s->of, low, high, &stretches);
    if (count < (high - low) / 8 || stretches == 1) {
        for (fg_id end, k = low; k < all; k = next_result(&s->of, end, all, 1)) {
            s->scratch = s->slots->scratch;
            s->at = reached_area(&s->of, r, k, &end);
            map_reverse(s, z + k, dz + k, 0);
        }
        return FG_OK;
    }
    s->at = r->rows == 1 ? (area){0, low, 1, high - low}
                         : (area){low / r->cols, 0, (high - 1) / r->cols - low / r->cols + 1, r->cols};
    map_reverse(s, z + s->at.row * r->cols + s->at.col, dz + s->at.row * r->cols + s->at.col, 1);
    return FG_OK;
}

/* ---- as jobs, where all is one loop and nothing is copied ---- */

static int run_forward(const fg_job *j)
{
    return j->kernels->map(j->row, j->n, j->x, j->steps, j->immediate, j->z) < j->n;
}

static int run_reverse(const fg_job *j)
{
    for (int v = 0; v < FG_MAX_ARITY; v++)
        if (j->dx[v])
            j->kernels->map_grad(j->row, v, j->n, j->x, j->steps, j->immediate, j->z, j->dz, j->dx[v]);
    return FG_OK;
}

void fg_map_prepare(step *s, fg_job *forward, fg_job *reverse)
{
    const fg_record *const r = s->r;
    const loops l = loops_of(s->r, s->at);
    if (l.outer != 1)
        return;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(s->r, v);
        const int32_t across = l.down ? view->row_step : view->col_step;
        if (is_listed(view) || ((l.down ? view->rows : view->cols) > 1 && across != 1))
            return;
        const lane_view x = lanes_of(s, v, DATA, &l), dx = lanes_of(s, v, GRADIENTS, &l);
        forward->x[v] = reverse->x[v] = x.m.p;
        forward->steps[v] = reverse->steps[v] = x.step;
        reverse->dx[v] = dx.m.p;
    }
    forward->row = reverse->row = (int)r->param;
    forward->immediate = reverse->immediate = (int32_t)r->k;
    forward->n = reverse->n = l.lanes;
    forward->run = run_forward;
    reverse->run = run_reverse;
}

int fg_map_fits(int op, fg_record *r)
{
    (void)op;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const x = fg_record_view(r, v);
        if ((x->rows != 1 && x->rows != r->rows) || (x->cols != 1 && x->cols != r->cols))
            return 0;
    }
    return r->extra == 0 && r->views > 0 && (int)r->views == fg_op_table[r->param].arity;
}
