/* block_matrix.h: the operands and results of an instruction as memory: which elements of a view these results are
 * computed from, and those as a matrix of numbers or of gradients, on the tape where it lies so, else copied.
 *
 * It leaves to the instructions which results, and what is done with the numbers. No check here: see block.h. Only the
 * files block*.c include this and block_*.h; what is not linked has names without a prefix.
 */
#ifndef FG_BLOCK_MATRIX_H
#define FG_BLOCK_MATRIX_H

#include <string.h>

#include "block.h"
#include "block_leaves.h"

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

/* Where the results of an instruction are, and which of them are reached. */
typedef struct outputs {
    fg_id first;             /* the slot of result (0, 0) */
    const uint64_t *reached; /* bit i % 64 of reached[i / 64]: the result in slot i is; NULL: all are */
} outputs;

/* One forward or reverse step over some of an instruction's results. */
typedef struct step {
    const fg_slots *slots;
    fg_record *r;
    int op;
    outputs of;
    area at;         /* the results */
    double *scratch; /* what is still free of it */
    double **aside;  /* NULL, or for each view where its gradients go instead of to the slots', dense: those of
                        constants, too */
    size_t done;     /* FG_LAYER: blocks of the reverse step that are done, if it was interrupted; FG_MAP: the first
                        element at fault */
    size_t wanted;   /* FG_LAYER: how much scratch memory the reverse step has asked for */
} step;

static inline size_t size_of(const fg_view *v)
{
    return (size_t)v->rows * v->cols;
}

static inline int is_listed(const fg_view *v)
{
    return (v->flags & FG_VIEW_LIST) != 0;
}

/* Whether the columns of a view lie apart; it is no list. */
static inline int is_apart(const fg_view *v)
{
    return !is_listed(v) && v->col_step != 1 && v->cols > 1;
}

/* Whether all elements of a view follow each other, row by row. */
static inline int is_dense(const fg_view *v)
{
    return !is_listed(v) && !is_apart(v) && (v->rows == 1 || (fg_id)v->row_step == v->cols);
}

/* Whether the loops cannot take the view as it lies. `side`: columns have to be side by side. */
static inline int must_copy(const fg_view *v, int side)
{
    return is_listed(v) || (side && is_apart(v));
}

static inline double *take(double **scratch, size_t doubles)
{
    double *p = *scratch;
    *scratch += doubles;
    return p;
}

static inline int is_single(const fg_record *r)
{
    return r->rows == 1 && r->cols == 1;
}

/* The elements of view v that these results are computed from. */
static inline area area_of(int op, fg_record *r, fg_id v, area at)
{
    const fg_view *view = fg_record_view(r, v);
    switch (op) {
    case FG_LAYER:
        if (v == 2)
            return (area){0, at.col, 1, at.cols};
        return v == 0 ? (area){at.row, 0, at.rows, view->cols}
                      : (area){at.col, 0, at.cols, view->cols};
    case FG_MAP:
        return (area){view->rows > 1 ? at.row : 0, view->cols > 1 ? at.col : 0,
                         view->rows > 1 ? at.rows : 1, view->cols > 1 ? at.cols : 1};
    case FG_SOFTMAX:
    case FG_LOG_SOFTMAX:
        return (area){at.row, 0, at.rows, view->cols};
    default:
        if (is_single(r))
            return (area){0, 0, view->rows, view->cols};
        return (area){at.row * r->cols + at.col, 0, at.rows * at.cols, view->cols};
    }
}

/* Which numbers of a view. */
typedef enum numbers { DATA, GRADIENTS } numbers;

/* For views that may lead outside of the slots (fg_outside), in block.c: where slot i has that number; and whether none
 * of the gradients is wanted. */
double *fg_outside_number(const fg_slots *slots, const fg_view *view, fg_id i, int gradient);
int fg_outside_is_constant(const fg_slots *slots, const fg_view *view);

static inline int may_be_outside(const fg_view *view)
{
    return FG_UNLIKELY(view->flags >> FG_VIEW_OUTSIDE) != 0;
}

/* The number of slot i of a view. */
static inline double *number_of(const fg_slots *slots, const fg_view *view, fg_id i, numbers what)
{
    if (may_be_outside(view))
        return fg_outside_number(slots, view, i, what == GRADIENTS);
    return (what == DATA ? slots->data : slots->grad) + i;
}

/* Whether no gradient of a view is wanted, whatever its slots are. */
static inline int is_constant(const fg_slots *slots, const fg_view *view)
{
    return view->flags & FG_VIEW_CONSTANT || (may_be_outside(view) && fg_outside_is_constant(slots, view));
}

/* An area of a view as it lies in the slots, or, if `copy`, in dense scratch memory: gradients then begin with 0, and
 * add_copied() adds them to the slots' at the end. Gradients that nobody wants are NULL. picks: the rows, if they are
 * not those of the area; they are copied. */
matrix fg_lay_out_otherwise(step *s, fg_id v, numbers what, area a, const fg_id *picks, int copy);

static inline matrix lay_out(step *s, fg_id v, numbers what, area a, const fg_id *picks, int copy)
{
    const fg_view *const view = fg_record_view(s->r, v);
    if (copy || picks || s->aside || view->flags >> FG_VIEW_OUTSIDE)
        return fg_lay_out_otherwise(s, v, what, a, picks, copy);
    const fg_id first = fg_record_slot(s->r, view, a.row, a.col);
    if (what == GRADIENTS && (view->flags & FG_VIEW_CONSTANT || a.rows == 0 || a.cols == 0
                              || all_frozen(s->slots->op + first, 1))) /* there may be others that are not */
        return fg_lay_out_otherwise(s, v, what, a, picks, copy);
    return (matrix){(what == DATA ? s->slots->data : s->slots->grad) + first, view->row_step,
                    view->cols > 1 ? view->col_step : 1, 0};
}

void fg_add_copied(const step *s, fg_id v, area a, const fg_id *picks, matrix m);

static inline void add_copied(const step *s, fg_id v, area a, const fg_id *picks, matrix m)
{
    if (m.copied)
        fg_add_copied(s, v, a, picks, m);
}

static inline area operand_area(const step *s, fg_id v)
{
    return area_of(s->op, s->r, v, s->at);
}

/* How much scratch memory the views need for the forward step and the reverse step, whole or in part. */
static inline size_t views_scratch(int op, fg_record *r)
{
    size_t need = 0;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *view = fg_record_view(r, v);
        if (op == FG_LOGSUMEXP && is_single(r))
            need += size_of(view);
        else if (op == FG_LOGSUMEXP || fg_op_is_softmax(op) || op == FG_CROSS_ENTROPY)
            need += view->cols; /* one row */
        /* Lanes go down a column if there is one only, so FG_MAP may copy other views than these. */
        if (op == FG_MAP || must_copy(view, 1) || (fg_op_is_along_rows(op) && view->rows > 1))
            need += 2 * size_of(view);
    }
    return need + FG_MAX_ARITY + 1;
}

#endif
