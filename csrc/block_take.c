/* block_take.c: FG_TAKE: rows of a table x (m, n), or an element of each of its rows, at positions that are numbers of
 * the graph as well:
 *
 *   k is FG_TAKE_ROWS   positions p (1, k)    z (k, n): z[i] = x[p[i]]
 *   k is FG_TAKE_EACH   positions p (1, m)    z (1, m): z[i] = x[i][p[i]]
 *
 * It promises that a position is a whole number from -length to length - 1, where a negative one counts from the end,
 * or an error; and that a reverse step goes by the positions that the forward step found, which are in the record's extra:
 * the numbers may have been assigned to since. Where faults are none (slots->lenient), what is at such a position is nan,
 * and so is the gradient of the first element then. Positions get no gradient. */
#include "block_reached.h"
#include "block_steps.h"

/* The slot of what result k, counted row by row, is copied from. */
static fg_id source(const fg_record *r, fg_id k)
{
    fg_record *const record = (fg_record *)(uintptr_t)r;
    const fg_view *const x = fg_record_view(record, 0);
    const fg_id *const at = fg_record_extra(record);
    if (r->k == FG_TAKE_EACH)
        return fg_record_slot(r, x, k, at[k]);
    return fg_record_slot(r, x, at[k / r->cols], k % r->cols);
}

fg_id fg_take_source(const fg_record *r, fg_id k)
{
    return source(r, k);
}

/* Position k, and whether it is one; else 0. */
static int find_position(const step *s, fg_id k, fg_id *at)
{
    const fg_record *const r = s->r;
    const fg_view *const x = fg_record_view(s->r, 0), *const p = fg_record_view(s->r, 1);
    const fg_id length = r->k == FG_TAKE_EACH ? x->cols : x->rows;
    const double number = *number_of(s->slots, p, fg_record_slot(r, p, 0, k), DATA);
    const int is_one = number >= -(double)length && number < (double)length && number == floor(number);
    *at = is_one ? (fg_id)(number < 0.0 ? number + (double)length : number) : 0;
    return is_one;
}

/* FG_OK, or FG_E_INDEX if position s->done is none. */
int fg_take_forward(step *s, double *z)
{
    fg_record *const r = s->r;
    const fg_view *const x = fg_record_view(r, 0);
    const fg_id width = r->k == FG_TAKE_EACH ? 1 : r->cols, count = fg_record_view(r, 1)->cols;
    fg_id *const at = fg_record_extra(r);
    int faults = 0;
    for (fg_id k = 0; k < count; k++) {
        s->done = k;
        if (!find_position(s, k, at + k)) {
            if (!s->slots->lenient)
                return FG_E_INDEX;
            faults = 1;
        }
    }
    for (fg_id k = 0; k < count * width; k++)
        z[k] = *number_of(s->slots, x, source(r, k), DATA);
    for (fg_id k = 0, none; k < count && faults; k++)
        for (fg_id j = 0; j < width && !find_position(s, k, &none); j++)
            z[k * width + j] = (double)NAN;
    return FG_OK;
}

/* The gradient that result k hands on; of a nan, for which alone this looks again, maybe nan. */
static double gradient(const step *s, fg_id k, double z, double dz)
{
    fg_id none;
    if (FG_UNLIKELY(z != z) && !find_position(s, s->r->k == FG_TAKE_EACH ? k : k / s->r->cols, &none))
        return (double)NAN;
    return dz;
}

int fg_take_reverse(step *s, const double *z, const double *dz)
{
    const fg_record *const r = s->r;
    const fg_id first = s->at.row * r->cols + s->at.col;
    if (s->aside) { /* one result, by itself and by its position */
        s->aside[0][0] = dz[0];
        s->aside[0][1] = 0.0;
        return FG_OK;
    }
    const fg_view *const x = fg_record_view(s->r, 0);
    if (is_constant(s->slots, x))
        return FG_OK;
    for (fg_id k = 0; k < s->at.rows * s->at.cols; k++)
        *number_of(s->slots, x, source(r, first + k), GRADIENTS) += gradient(s, first + k, z[k], dz[k]);
    return FG_OK;
}

int fg_take_reverse_reached(step *s, const double *z, const double *dz)
{
    const fg_record *const r = s->r;
    const fg_id all = r->rows * r->cols;
    const fg_view *const x = fg_record_view(s->r, 0);
    if (is_constant(s->slots, x))
        return FG_OK;
    for (fg_id k = next_result(&s->of, 0, all, 1); k < all; k = next_result(&s->of, k + 1, all, 1))
        *number_of(s->slots, x, source(r, k), GRADIENTS) += gradient(s, k, z[k], dz[k]);
    return FG_OK;
}

int fg_take_fits(int op, fg_record *r)
{
    const fg_view *const x = fg_record_view(r, 0), *const p = fg_record_view(r, 1);
    (void)op;
    if (r->views != 2 || p->rows != 1 || p->cols != r->extra || x->rows == 0 || x->cols == 0)
        return 0;
    if (r->k == FG_TAKE_EACH)
        return r->rows == 1 && r->cols == x->rows && p->cols == x->rows;
    return r->k == FG_TAKE_ROWS && r->rows == p->cols && r->cols == x->cols;
}
