/* block.c: see block.h, of which this has what runs the steps of an instruction, whichever it is. Each kind has its own
 * in block_layer.c, block_map.c or block_rows.c. */
#include "block.h"

#include <string.h>

#include "block_steps.h"

typedef struct steps {
    int (*fits)(int op, fg_record *r);
    int (*forward)(step *s, double *z);
    int (*reverse)(step *s, const double *z, const double *dz);
    int (*reverse_reached)(step *s, const double *z, const double *dz);
} steps;

static const steps *steps_of(int op)
{
    static const steps of[] = {
#define FG_BLOCK(ID, name, kind, ...) \
    [FG_##ID - FG_LOCAL - 1] = {fg_##kind##_fits, fg_##kind##_forward, fg_##kind##_reverse, \
                                fg_##kind##_reverse_reached},
#include "ops.def"
    };
    assert(fg_op_is_block(op));
    return &of[op - FG_LOCAL - 1];
}

int fg_block_fits(int op, fg_record *r)
{
    return steps_of(op)->fits(op, r);
}

int fg_block_measure(const fg_kernels *kernels, int op, fg_record *r)
{
    const size_t need = op == FG_CALL ? 0 : op == FG_LAYER ? fg_layer_scratch(kernels, r) : views_scratch(op, r);
    if (need / FG_SCRATCH_UNIT >= FG_MAX_ID)
        return FG_E_MEMORY;
    r->scratch = (fg_id)(need / FG_SCRATCH_UNIT + 1);
    return FG_OK;
}

int fg_block_forward(const fg_slots *slots, int op, fg_record *r, fg_id first, fg_id *fault)
{
    step s = {slots, r, op, {first, NULL}, {0, 0, r->rows, r->cols}, slots->scratch, NULL, 0, 0};
    assert(slots->room >= (size_t)r->scratch * FG_SCRATCH_UNIT);
    const int status = steps_of(op)->forward(&s, slots->data + first);
    *fault = (fg_id)s.done;
    return status;
}

int fg_block_reverse(const fg_slots *slots, int op, fg_record *r, fg_id first, const uint64_t *reached, size_t *done,
                     size_t *wanted)
{
    step s = {slots, r, op, {first, reached}, {0, 0, r->rows, r->cols}, slots->scratch, NULL, *done, *wanted};
    const steps *const of = steps_of(op);
    const int status = (reached ? of->reverse_reached : of->reverse)(&s, slots->data + first, slots->grad + first);
    *done = s.done;
    *wanted = s.wanted;
    return status;
}

void fg_block_prepare(const fg_slots *slots, int op, fg_record *r, fg_id first, fg_job *forward, fg_job *reverse)
{
    step s = {slots, r, op, {first, NULL}, {0, 0, r->rows, r->cols}, slots->scratch, NULL, 0, 0};
    *forward = (fg_job){.kernels = slots->kernels, .z = slots->data + first, .dz = slots->grad + first};
    *reverse = *forward;
    if (op == FG_LAYER)
        fg_layer_prepare(&s, forward, reverse);
    else if (op == FG_MAP)
        fg_map_prepare(&s, forward, reverse);
    else if (op == FG_SUM || op == FG_MEAN)
        fg_rows_prepare(&s, forward, reverse);
}

int fg_block_push(fg_tape *t, int op, fg_id n_rows, fg_id n_cols, int parts,
                  const double *results, fg_id *node)
{
    fg_record *const r = (fg_record *)(void *)(t->pool + t->npool);
    const fg_id count = n_rows * n_cols;
    r->rows = n_rows;
    r->cols = n_cols;
    assert(count >= 1 && (parts || count == 1) && r->size <= t->pool_capacity - t->npool && fg_block_fits(op, r));
    int status = fg_block_measure(t->kernels, op, r);
    if (status == FG_OK)
        status = fg_tape_scratch(t, (size_t)r->scratch * FG_SCRATCH_UNIT);
    if (status < 0)
        return status;
    if (results) {
        memcpy(t->data + t->n, results, count * sizeof *results);
        t->writes += op == FG_CALL && t->writes > 0; /* its program has not seen these operands */
    } else { /* there is room at the end, and nothing lives there yet */
        const fg_slots slots = fg_slots_of(t);
        status = fg_block_forward(&slots, op, r, t->n, node);
        if (status < 0)
            return status;
    }
    *node = fg_tape_push_block(t, op, parts ? count : 0);
    return FG_OK;
}

static inline int apply(fg_tape *t, fg_id i, const uint64_t *reached, size_t *done)
{
    fg_record *const r = fg_tape_record(t, i);
    const fg_id first = i - t->args[i].b;
    size_t wanted = 0;
    fg_slots slots = fg_slots_of(t);
    int status = fg_block_reverse(&slots, fg_tape_op(t, i), r, first, reached, done, &wanted);
    if (status == FG_E_MEMORY) {
        (void)fg_tape_scratch(t, wanted); /* without, it does what it can */
        slots = fg_slots_of(t);
        status = fg_block_reverse(&slots, fg_tape_op(t, i), r, first, reached, done, &wanted);
    }
    return status;
}

int fg_block_apply(fg_tape *t, fg_id i, int some, size_t *done)
{
    return apply(t, i, some ? t->marks.word : NULL, done);
}

int fg_block_apply_reached(fg_tape *t, fg_id i, const uint64_t *reached)
{
    size_t done = 0;
    return apply(t, i, reached, &done);
}
