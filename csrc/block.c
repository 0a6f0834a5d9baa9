/* block.c: see block.h, of which this has what pushes and reverses an instruction, whichever it is. Each has its own
 * steps in block_layer.c, block_map.c or block_rows.c. */
#include "block.h"

#include <string.h>

#include "block_steps.h"

static size_t scratch_need(const fg_tape *t, int op, fg_record *r)
{
    return op == FG_CALL ? 0 : op == FG_LAYER ? fg_layer_scratch(t, r) : views_scratch(op, r);
}

/* All results at once. FG_OK, or as fg_block_push(), with *at for FG_MAP the element at fault. */
static int forward(step *s, double *z, fg_id *at)
{
    const fg_id count = s->r->rows * s->r->cols;
    switch (s->op) {
    case FG_LAYER:
        return fg_layer_forward(s, z);
    case FG_MAP:
        *at = (fg_id)fg_map_forward(s, z);
        return *at < count ? FG_E_DOMAIN : FG_OK; /* the caller asks the row which one it is */
    case FG_CROSS_ENTROPY:
        z[0] = fg_cross_entropy_forward(s);
        return FG_OK;
    case FG_CALL:
        return fg_tape_callee(s->t, s->r)->steps->forward(fg_tape_callee(s->t, s->r), s->t, s->r, z);
    default:
        assert(fg_op_is_along_rows(s->op));
        fg_rows_forward(s, z);
        return FG_OK;
    }
}

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
    step s = {t, r, op, {0, 0, n_rows, n_cols}, t->scratch, NULL, 0, 0};
    if (results)
        memcpy(z, results, count * sizeof *z);
    else
        status = forward(&s, z, node);
    if (status == FG_OK)
        *node = fg_tape_push_block(t, op, parts ? count : 0);
    return status;
}

int fg_block_forward(fg_tape *t, fg_id i, int lenient, fg_id *at)
{
    fg_record *const r = fg_tape_record(t, i);
    step s = {t, r, fg_tape_op(t, i), {0, 0, r->rows, r->cols}, t->scratch, NULL, 0, lenient};
    return forward(&s, t->data + (i - t->args[i].b), at);
}

/* By the gradients of all results, or of those that are reached. */
static int reverse(fg_tape *t, fg_id i, size_t *done, int all)
{
    fg_record *const r = fg_tape_record(t, i);
    const fg_id first = i - t->args[i].b;
    const double *const z = t->data + first, *const dz = t->grad + first;
    step s = {t, r, fg_tape_op(t, i), {0, 0, r->rows, r->cols}, t->scratch, NULL, *done, 0};
    int status = FG_OK;
    switch (s.op) {
    case FG_LAYER:
        status = all ? fg_layer_reverse_all(&s, z, dz) : fg_layer_reverse_reached(&s, z, dz, first);
        break;
    case FG_MAP:
        if (all)
            fg_map_reverse(&s, z, dz, 0, 0);
        else
            fg_map_reverse_reached(&s, z, dz, first);
        break;
    case FG_CALL:
        return fg_tape_callee(t, r)->steps->reverse(fg_tape_callee(t, r), t, r, first, all);
    case FG_CROSS_ENTROPY: /* it has one result */
        fg_cross_entropy_reverse(&s, dz[0]);
        break;
    default:
        assert(fg_op_is_along_rows(s.op));
        if (all)
            fg_rows_reverse(&s, z, dz);
        else
            fg_rows_reverse_reached(&s, z, dz, first);
    }
    *done = s.done;
    return status;
}

int fg_block_reverse(fg_tape *t, fg_id i, size_t *done)
{
    return reverse(t, i, done, 1);
}

int fg_block_reverse_reached(fg_tape *t, fg_id i, size_t *done)
{
    return reverse(t, i, done, 0);
}
