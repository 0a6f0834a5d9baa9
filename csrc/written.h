/* written.h: the reverse sweep that writes its result as nodes, so that it can be differentiated again, compiled and
 * drawn. Where the sweep of sweep.h adds numbers, this one appends for each node that outputs reach and that depends on
 * an input, the highest first, the nodes that compute its operands' gradients.
 *
 * Ids have to stay while it writes (t->busy > 0). What it appends nobody holds: whoever fails lets it be popped.
 *
 *   fg_write_begin, fg_write_seed for every output, then fg_write_run until FG_WRITE_DONE, fg_write_gradient of the
 *   inputs, fg_write_end
 */
#ifndef FG_WRITTEN_H
#define FG_WRITTEN_H

#include "block.h"

/* A matrix of nodes: an operand, a result or a gradient. Of one element it is a scalar. Shapes are as for FG_MAP: where
 * one of them is (m, n), others may be (1, n), (m, 1) or (1, 1). */
typedef struct fg_term {
    fg_view view;     /* flags: FG_VIEW_LIST; FG_VIEW_CONSTANT, which goes on to instructions that are written */
    const fg_id *ids; /* of a list, which has two elements at least; they stay as long as the writing */
} fg_term;

typedef struct fg_write_chunk fg_write_chunk;

/* Terms of the gradient of weights that were used again and again, such as a network's on one sample after the other:
 * g^T x. They are summed in one product over the rows of all. */
typedef struct fg_write_product_term {
    fg_term g, x;  /* (m, n), (m, k) */
    fg_id before;  /* the one before it for the same weights; 0: it is the first */
} fg_write_product_term;

/* The gradient of the slots of a view, which is no list. */
typedef struct fg_write_matrix {
    fg_view view;
    fg_term g;
    int has_g;
    fg_id products; /* besides g, the last of the terms above; 0: there are none */
} fg_write_matrix;

typedef struct fg_writing {
    fg_tape *t;
    fg_id end;           /* what is differentiated is below it */
    fg_id *gradients;    /* [end] the node that has the node's gradient, ... */
    uint64_t *given;     /* ... of those in this set; each set has FG_MARKS_WORDS(end) words */
    uint64_t *kept;      /* of these the number in gradients[] is that of a matrix that the node is in */
    fg_write_matrix *matrices; /* [n_matrices], room for most_matrices */
    fg_id n_matrices, most_matrices;
    fg_write_product_term *products; /* [n_products + 1] from 1 on, room for most_products */
    fg_id n_products, most_products;
    uint64_t *depends;   /* the nodes that depend on an input, or are one */
    uint64_t *seen;      /* scratch, all clear */
    uint64_t *masks;     /* [n_words] the nodes that outputs reach, as fg_sweep_reach() has them */
    fg_id *words;
    fg_id n_words, at;   /* at: the word where the sweep is */
    fg_id block;         /* the instruction that was visited last */
    fg_write_chunk *chunks;
    double numbers[16];  /* the constants that there are ... */
    fg_id constants[16]; /* ... and their nodes */
    int n_constants;
    fg_id one;           /* that of 1, 0 if there is none */
    fg_id positions, n_positions; /* the constants 0, 1, 2, ... */
    int status;          /* FG_OK, or the first error, after which terms are not valid */
    fg_id node;          /* where it stopped, for the caller to go on */
} fg_writing;

enum {
    FG_WRITE_DONE = 0,
    FG_WRITE_CALL, /* at w->node, an FG_CALL whose operands' gradients the caller gives */
    FG_WRITE_HOOK, /* at w->node, which has a hook, ... */
    FG_WRITE_LOCAL /* ... or partial derivatives of a user's: no rule to write */
};

/* FG_OK, or FG_E_MEMORY with nothing to end. outputs and inputs: slots. */
int fg_write_begin(fg_writing *w, fg_tape *t, const fg_id *outputs, size_t n_outputs, const fg_id *inputs,
                   size_t n_inputs);

/* Before it runs: the gradient of slot i is node g, or 1 with 0, besides what it is already. */
void fg_write_seed(fg_writing *w, fg_id i, fg_id g);

/* One of the above, or an error. After a stop the caller has given gradients to the operands of w->node, and calls
 * again. */
int fg_write_run(fg_writing *w);

/* A copy that no gradient flows back from: for a constant view of nodes that another instruction may depend on, where its
 * flag would be lost. */
fg_term fg_write_constant(fg_writing *w, fg_term x);

/* The gradients of the slots of x, which is no list, as the results of an instruction that nobody else has, 0 where
 * there is none; what is in order already is not copied. Its base is 0 if there is no gradient at all. */
fg_term fg_write_copied(fg_writing *w, fg_view x);

void fg_write_end(fg_writing *w);

/* ---- terms ---- */

static inline fg_term fg_term_of(fg_id i)
{
    return (fg_term){{0, i, 1, 1, 1, 1}, NULL};
}

static inline int fg_term_is_single(const fg_term *x)
{
    return x->view.rows == 1 && x->view.cols == 1;
}

static inline fg_id fg_term_slot(const fg_term *x, fg_id row, fg_id col)
{
    return fg_view_slot(x->ids, &x->view, row, col);
}

/* The transpose. */
fg_term fg_term_turned(fg_writing *w, fg_term x);

/* View v of a record, as it is now. */
fg_term fg_term_of_view(fg_writing *w, const fg_record *r, const fg_view *view);

/* The matrix of these ids, which stay: in place where they lie in order, one number or a line where they repeat. */
fg_term fg_term_of_ids(const fg_id *ids, fg_id rows, fg_id cols);

/* Rows of it, in order. */
fg_term fg_term_lines(fg_writing *w, fg_term x, const fg_id *lines, fg_id count);

/* As many elements in another shape, row by row. */
fg_term fg_term_shaped(fg_writing *w, fg_term x, fg_id rows, fg_id cols);

/* The same matrix with all its elements: repeated where it is less than (rows, cols). */
fg_term fg_term_full(fg_writing *w, fg_term x, fg_id rows, fg_id cols);

/* ---- nodes that compute ---- */

/* Room for ids that stay as long as the writing; NULL if memory is short. */
fg_id *fg_write_ids(fg_writing *w, size_t count);

/* A constant; and the node of one that there is already, or 0. */
fg_term fg_write_number(fg_writing *w, double number);
fg_id fg_write_known(const fg_writing *w, double number);

/* The constants 0, 1, 2, ..., (1, count). */
fg_term fg_write_positions(fg_writing *w, fg_id count);

/* Row `op` of ops.def for every element: a scalar node, or an FG_MAP. Numbers outside of the row's domain are no fault.
 * A factor of 1 is left out. */
fg_term fg_write_row(fg_writing *w, int op, int32_t k, const fg_term *x);
fg_term fg_write_unary(fg_writing *w, int op, fg_term x);
fg_id fg_write_sum(fg_writing *w, fg_id i, fg_id j); /* of two scalars */
fg_term fg_write_binary(fg_writing *w, int op, fg_term x, fg_term y);
fg_term fg_write_ternary(fg_writing *w, int op, fg_term x, fg_term y, fg_term z);

/* FG_SUM, FG_MAX or their like of each row of x, (m, 1) or, where `across`, (1, m); of all of it with `single`. */
fg_term fg_write_reduced(fg_writing *w, int op, fg_term x, int single, int across);

/* FG_SOFTMAX or FG_LOG_SOFTMAX of each row. */
fg_term fg_write_softmax(fg_writing *w, int op, fg_term x);

/* x w^T, without bias. */
fg_term fg_write_product(fg_writing *w, fg_term x, fg_term weights);

/* x, broadcast to (rows, cols), summed to (to_rows, to_cols), each the same or 1. */
fg_term fg_write_summed(fg_writing *w, fg_term x, fg_id rows, fg_id cols, fg_id to_rows, fg_id to_cols);

/* ---- gradients ---- */

/* Whether slot i has a gradient. */
static inline int fg_write_has(const fg_writing *w, fg_id i)
{
    return fg_bits_has(w->given, i);
}

/* Slots of the matrix that slot i is in get their own gradients. */
void fg_write_take_apart(fg_writing *w, fg_id i);

/* The node that has the gradient of slot i; 0: there is none. */
static inline fg_id fg_write_gradient(fg_writing *w, fg_id i)
{
    if (!fg_write_has(w, i))
        return 0;
    if (fg_bits_has(w->kept, i))
        fg_write_take_apart(w, i);
    return w->gradients[i];
}

/* The gradients of the slots of x, where there is none 0; it may be less than x, as terms are. */
fg_term fg_term_of_gradients(fg_writing *w, const fg_term *x);

/* Whether a slot of x has a gradient; and whether all have, which is then *g. */
int fg_write_has_any(const fg_writing *w, const fg_term *x);
int fg_write_whole(fg_writing *w, const fg_term *x, fg_term *g);

/* Whether slot i, or one of these slots, depends on an input. */
static inline int fg_write_wants(const fg_writing *w, fg_id i)
{
    return fg_bits_has(w->depends, i);
}
int fg_write_wants_any(const fg_writing *w, const fg_term *x);

/* g is added to the gradients of the slots of x; it has its shape or less. */
void fg_write_give(fg_writing *w, const fg_term *x, fg_term g);
void fg_write_give_one(fg_writing *w, fg_id i, fg_id g);

/* g^T x is added to the gradients of weights (n, k); g (m, n), x (m, k). */
void fg_write_give_product(fg_writing *w, const fg_term *weights, fg_term g, fg_term x);

/* ---- rules, in written_rows.c and written_blocks.c ---- */

/* For each operand v with wanted[v]: d[v], its gradient, as g is that of the result z. */
void fg_write_rule(fg_writing *w, int op, int32_t k, const fg_term *x, fg_term z, fg_term g, const int *wanted,
                   fg_term *d);

/* Of the instruction `block`, of whose results at least one has a gradient. */
void fg_write_block(fg_writing *w, fg_id block);

#endif
