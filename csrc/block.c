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

/* What a view that may lead outside of the slots has there, or NULL. */
static const fg_outside *outside_of(const fg_slots *slots, const fg_view *view)
{
    return slots->outside ? slots->outside + ((view->flags >> FG_VIEW_OUTSIDE) - 1) : NULL;
}

double *fg_outside_number(const fg_slots *slots, const fg_view *view, fg_id i, int gradient)
{
    const fg_outside *const o = outside_of(slots, view);
    double *const there = !o ? NULL : gradient ? o->grad : o->data;
    return there ? there + (i - o->first) : (gradient ? slots->grad : slots->data) + i;
}

int fg_outside_is_constant(const fg_slots *slots, const fg_view *view)
{
    const fg_outside *const o = outside_of(slots, view);
    return o && o->grad && o->constant;
}

static const uint8_t *op_of(const fg_slots *slots, const fg_view *view, fg_id i)
{
    const fg_outside *const o = may_be_outside(view) ? outside_of(slots, view) : NULL;
    return o && o->grad ? o->op + (i - o->first) : slots->op + i;
}

/* Whether nobody wants the gradients of an area of a view: it is constant, or all of it is frozen leaves. */
static int is_unwanted(const fg_slots *slots, fg_record *r, const fg_view *view, area a)
{
    if (is_constant(slots, view))
        return 1;
    const int listed = is_listed(view), dense = !listed && view->col_step == 1;
    for (fg_id i = a.row; i < a.row + a.rows && a.cols > 0; i++) {
        const fg_id first = fg_record_slot(r, view, i, a.col);
        const uint8_t *const op = op_of(slots, view, first);
        if (*op != FG_FROZEN && !all_frozen(op, 1)) /* mostly at once */
            return 0;
        if (dense && !all_frozen(op, a.cols))
            return 0;
        for (fg_id j = 1; listed && j < a.cols; j++)
            if (!all_frozen(slots->op + fg_record_slot(r, view, i, a.col + j), 1))
                return 0;
        for (fg_id j = 1; !listed && !dense && j < a.cols; j++)
            if (!all_frozen(op + (ptrdiff_t)j * view->col_step, 1))
                return 0;
    }
    return 1;
}

/* Where element (row, col) of a view is, and from there on, col_step apart, the others of its row; NULL for a list. */
static double *row_of(const fg_slots *slots, const fg_record *r, const fg_view *view, fg_id row, fg_id col,
                             numbers what)
{
    return is_listed(view) ? NULL : number_of(slots, view, fg_record_slot(r, view, row, col), what);
}

matrix fg_lay_out_otherwise(step *s, fg_id v, numbers what, area a, const fg_id *picks, int copy)
{
    const fg_slots *const slots = s->slots;
    const fg_view *view = fg_record_view(s->r, v);
    if (what == GRADIENTS && s->aside) {
        memset(s->aside[v], 0, (size_t)a.rows * a.cols * sizeof(double));
        return (matrix){s->aside[v], (ptrdiff_t)a.cols, 1, 0};
    }
    if (what == GRADIENTS && !picks && is_unwanted(slots, s->r, view, a))
        return (matrix){NULL, 0, 0, 0};
    if (what == GRADIENTS && is_constant(slots, view))
        return (matrix){NULL, 0, 0, 0};
    if (!copy && !picks)
        return (matrix){number_of(slots, view, fg_record_slot(s->r, view, a.row, a.col), what), view->row_step,
                        view->cols > 1 ? view->col_step : 1, 0};
    const matrix m = {take(&s->scratch, (size_t)a.rows * a.cols), (ptrdiff_t)a.cols, 1, 1};
    double *p = m.p;
    if (what == GRADIENTS) {
        memset(p, 0, (size_t)a.rows * a.cols * sizeof *p);
        return m;
    }
    for (fg_id i = 0; i < a.rows; i++) {
        const fg_id row = picks ? picks[i] : a.row + i;
        const double *const from = row_of(slots, s->r, view, row, a.col, DATA);
        for (fg_id j = 0; !from && j < a.cols; j++)
            *p++ = slots->data[fg_record_slot(s->r, view, row, a.col + j)];
        for (fg_id j = 0; from && j < a.cols; j++)
            *p++ = from[(ptrdiff_t)j * view->col_step];
    }
    return m;
}

void fg_add_copied(const step *s, fg_id v, area a, const fg_id *picks, matrix m)
{
    const fg_view *view = fg_record_view(s->r, v);
    const double *p = m.p;
    assert(m.copied);
    for (fg_id i = 0; i < a.rows; i++) {
        const fg_id row = picks ? picks[i] : a.row + i;
        double *const to = row_of(s->slots, s->r, view, row, a.col, GRADIENTS);
        for (fg_id j = 0; !to && j < a.cols; j++)
            s->slots->grad[fg_record_slot(s->r, view, row, a.col + j)] += *p++;
        for (fg_id j = 0; to && j < a.cols; j++)
            to[(ptrdiff_t)j * view->col_step] += *p++;
    }
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
    assert((size_t)(s.scratch - slots->scratch) <= slots->room);
    *fault = (fg_id)s.done;
    return status;
}

int fg_block_reverse(const fg_slots *slots, int op, fg_record *r, fg_id first, const uint64_t *reached, size_t *done,
                     size_t *wanted)
{
    step s = {slots, r, op, {first, reached}, {0, 0, r->rows, r->cols}, slots->scratch, NULL, *done, *wanted};
    const steps *const of = steps_of(op);
    const int status = (reached ? of->reverse_reached : of->reverse)(&s, slots->data + first, slots->grad + first);
    assert((size_t)(s.scratch - slots->scratch) <= slots->room);
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

/* See fg_block_push(); lenient: as in fg_slots. */
static int push(fg_tape *t, int op, fg_id n_rows, fg_id n_cols, int parts, const double *results, int lenient,
                fg_id *node)
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
        fg_slots slots = fg_slots_of(t);
        slots.lenient = lenient;
        status = fg_block_forward(&slots, op, r, t->n, node);
        if (status < 0)
            return status;
    }
    *node = fg_tape_push_block(t, op, parts ? count : 0);
    return FG_OK;
}

int fg_block_push(fg_tape *t, int op, fg_id n_rows, fg_id n_cols, int parts, const double *results, fg_id *node)
{
    return push(t, op, n_rows, n_cols, parts, results, 0, node);
}

int fg_block_push_anyway(fg_tape *t, int op, fg_id n_rows, fg_id n_cols, int parts, fg_id *node)
{
    return push(t, op, n_rows, n_cols, parts, NULL, 1, node);
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
