/* block_take.c: FG_TAKE: rows of a table x (m, n), or an element of each of its rows, at positions that are numbers of
 * the graph as well:
 *
 *   k is FG_TAKE_ROWS   positions p (1, k)    z (k, n): z[i] = x[p[i]]
 *   k is FG_TAKE_EACH   positions p (1, m)    z (1, m): z[i] = x[i][p[i]]
 *
 * It promises that a position is a whole number from -length to length - 1, where a negative one counts from the end,
 * or an error; and that a reverse step goes by the positions that the forward step found, which are in the record's extra:
 * the numbers may have been assigned to since. Positions get no gradient. */
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

/* FG_OK, or FG_E_INDEX if position s->done is none. */
int fg_take_forward(step *s, double *z)
{
    fg_record *const r = s->r;
    const fg_view *const x = fg_record_view(r, 0), *const p = fg_record_view(r, 1);
    const fg_id length = r->k == FG_TAKE_EACH ? x->cols : x->rows, count = r->rows * r->cols;
    fg_id *const at = fg_record_extra(r);
    for (fg_id k = 0; k < p->cols; k++) {
        const double number = *number_of(s->slots, p, fg_record_slot(r, p, 0, k), DATA);
        s->done = k;
        if (!(number >= -(double)length && number < (double)length) || number != floor(number))
            return FG_E_INDEX;
        at[k] = (fg_id)(number < 0.0 ? number + (double)length : number);
    }
    for (fg_id k = 0; k < count; k++)
        z[k] = *number_of(s->slots, x, source(r, k), DATA);
    return FG_OK;
}

int fg_take_reverse(step *s, const double *z, const double *dz)
{
    const fg_record *const r = s->r;
    const fg_id first = s->at.row * r->cols + s->at.col;
    (void)z;
    if (s->aside) { /* one result, by itself and by its position */
        s->aside[0][0] = dz[0];
        s->aside[0][1] = 0.0;
        return FG_OK;
    }
    const fg_view *const x = fg_record_view(s->r, 0);
    if (is_constant(s->slots, x))
        return FG_OK;
    for (fg_id k = 0; k < s->at.rows * s->at.cols; k++)
        *number_of(s->slots, x, source(r, first + k), GRADIENTS) += dz[k];
    return FG_OK;
}

int fg_take_reverse_reached(step *s, const double *z, const double *dz)
{
    const fg_record *const r = s->r;
    const fg_id all = r->rows * r->cols;
    (void)z;
    const fg_view *const x = fg_record_view(s->r, 0);
    if (is_constant(s->slots, x))
        return FG_OK;
    for (fg_id k = next_result(&s->of, 0, all, 1); k < all; k = next_result(&s->of, k + 1, all, 1))
        *number_of(s->slots, x, source(r, k), GRADIENTS) += dz[k];
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
