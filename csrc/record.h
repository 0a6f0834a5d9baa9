/* record.h: the form of a block instruction's operands in the tape's pool. An operand is a matrix of slots.
 * Most operands have constant steps between rows and columns: the weights of a layer, the rows of a batch
 * and the results of another instruction lie on the tape in order, and are read in place. Any other operand
 * is a list of ids.
 *
 * A record has no pointers, and needs only the alignment of an id, so the tape may move the record.
 */
#ifndef FG_RECORD_H
#define FG_RECORD_H

#include "ops.h"

enum { FG_SCRATCH_UNIT = 16 };

/* Bits of a view's flags; from FG_VIEW_OUTSIDE on there is a number, see fg_outside in tape.h. */
enum { FG_VIEW_LIST = 1, FG_VIEW_CONSTANT = 2, FG_VIEW_OUTSIDE = 8 };

/* A matrix of slots. */
typedef struct fg_view {
    fg_id flags; /* FG_VIEW_LIST: the slots are listed; FG_VIEW_CONSTANT: no gradient is needed; and, not of a list,
                    flags >> FG_VIEW_OUTSIDE: 0, or one more than the place in the tape's `outside` with its slots */
    fg_id base;  /* slot of element (0, 0); for a list: the place in the record where its ids begin, row by row */
    fg_id rows, cols;
    int32_t row_step, col_step; /* slots from one row to the next and one column to the next */
} fg_view;

/* All in words of an fg_id:
 *
 *   | fg_record | view 0 | ... | last view | extra: the instruction's own | ids of lists, one list after the other |
 *   |<------------------------------------------- size ------------------------------------------->|
 */
typedef struct fg_record {
    fg_id size;       /* of the whole record, in words */
    fg_id param;      /* FG_LAYER: the activation's opcode, FG_LEAF if none; FG_MAP: the row's opcode; FG_CALL: which of
                         the tape's programs */
    fg_id rows, cols; /* of the result */
    fg_id k;          /* FG_MAP: the immediate of a unary row; FG_TAKE: FG_TAKE_ROWS or FG_TAKE_EACH; FG_CALL: whether a
                         slot is an operand twice */
    fg_id extra;      /* FG_CROSS_ENTROPY: the number of labels, one for each row of the view; FG_TAKE: the number of
                         positions, one for each element of view 1 */
    fg_id views;
    fg_id scratch;    /* the scratch memory that its steps need, in units of FG_SCRATCH_UNIT doubles */
} fg_record;

#define FG_WORDS(type) ((fg_id)(sizeof(type) / sizeof(fg_id)))

static inline fg_view *fg_record_view(fg_record *r, fg_id v)
{
    return (fg_view *)(void *)((fg_id *)(void *)(r + 1) + v * FG_WORDS(fg_view));
}

static inline fg_id *fg_record_extra(fg_record *r)
{
    return (fg_id *)(void *)fg_record_view(r, r->views);
}

/* The ids that a view keeps: of a list all, else its base; how many in *count, and none if the view is empty. `words`:
 * where the ids of lists are counted from; mostly the view's record, but see fg_operands in tape.h. */
static inline fg_id *fg_view_ids(fg_id *words, fg_view *v, fg_id *count)
{
    const int listed = (v->flags & FG_VIEW_LIST) != 0;
    *count = listed || v->rows == 0 ? v->rows * v->cols : v->cols > 0;
    return listed ? words + v->base : &v->base;
}

/* The slot of element (row, col) of a view. */
static inline fg_id fg_view_slot(const fg_id *words, const fg_view *v, fg_id row, fg_id col)
{
    if (v->flags & FG_VIEW_LIST)
        return words[v->base + row * v->cols + col];
    return (fg_id)((int64_t)v->base + (int64_t)row * v->row_step + (int64_t)col * v->col_step);
}

static inline fg_id fg_record_slot(const fg_record *r, const fg_view *v, fg_id row, fg_id col)
{
    return fg_view_slot((const fg_id *)(const void *)r, v, row, col);
}

/* The lowest and the highest slot of a view that is no list and not empty. */
static inline void fg_view_extent(const fg_view *v, fg_id *lowest, fg_id *highest)
{
    int64_t low = v->base, high = v->base;
    const int64_t down = (int64_t)(v->rows - 1) * v->row_step;
    const int64_t across = (int64_t)(v->cols - 1) * v->col_step;
    *(down < 0 ? &low : &high) += down;
    *(across < 0 ? &low : &high) += across;
    *lowest = (fg_id)low;
    *highest = (fg_id)high;
}

#endif
