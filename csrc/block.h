/* block.h: the instructions of many operands and results: a layer over a batch, an operation on every
 * element, reductions, softmax. Their operands and results are matrices of slots, run through the
 * kernels in place where the slots lie in order.
 *
 * It promises what tape.h does: a failed call leaves the tape as it was.
 *
 *   instruction                views                                    results
 *   FG_LAYER                   x (m, k), w (n, k), and b (1, n) or      (m, n): param(x w^T + b)
 *                              none
 *   FG_MAP                     as many as the row has operands, each    (m, n): param(x, y, w), element by element
 *                              (m, n), (1, n), (m, 1) or (1, 1)
 *   FG_SUM, FG_MEAN, FG_MAX,   x (m, n)                                 (1, m) or (m, 1): of each row;
 *   FG_LOGSUMEXP                                                        (1, 1): of all of x
 *   FG_SOFTMAX,                x (m, n)                                 (m, n): of each row
 *   FG_LOG_SOFTMAX
 *   FG_CROSS_ENTROPY           x (m, n); extra: m labels                (1, 1): the mean of -log_softmax(row)[label]
 *   FG_CALL                    as many as the program has segments,     (1, n): what the program computes
 *                              each with as many numbers
 *
 *   FG_TAKE                    x (m, n), p (1, k); extra: k numbers     (k, n): row p[i] of x;
 *                              x (m, n), p (1, m); extra: m numbers     (1, m): x[i][p[i]]
 *
 * It leaves to its caller, and does not check but with assertions on:
 * - the shapes above; at least one number in each row of a reduction, softmax and their like;
 * And never:
 * - that labels are below n, and so are positions with which an FG_TAKE begins, or below m;
 * - that param is FG_LEAF or the opcode of a unary row whose derivative follows from its result (FG_LAYER), or of any
 *   row (FG_MAP);
 * - that every slot of a view is below the tape's end, and no slot is in a view twice but in a list;
 * - that rows * cols fits an fg_id.
 */
#ifndef FG_BLOCK_H
#define FG_BLOCK_H

#include "tape.h"

/* What the steps of an instruction work on: the tape's nodes, or other slots that records name alike. */
typedef struct fg_slots {
    double *data, *grad; /* of each slot; a forward step reads no grad */
    const uint8_t *op;   /* of each slot, read by reverse steps: no gradients are computed for FG_FROZEN */
    double *scratch;     /* [room] */
    size_t room;
    const fg_kernels *kernels;
    int (*stop)(void);   /* asked between the blocks of a long step; NULL: never to stop */
    int lenient;         /* FG_MAP: numbers outside of a row's domain are no fault; their results are C's. FG_TAKE: nor
                          * are positions that are none; their results are nan */
    const fg_called *programs; /* which FG_CALL's param counts */
    uint64_t *marks;     /* a bit for each slot, clear but for results that are reached: scratch for sets of operands */
    const fg_outside *outside; /* where views with a number for that have their slots; NULL: here, all */
    uint64_t writes;     /* see fg_tape */
} fg_slots;

/* The nodes of a tape. Valid until the tape changes. */
static inline fg_slots fg_slots_of(const fg_tape *t)
{
    return (fg_slots){t->data, t->grad, t->op, t->scratch, t->scratch_capacity, t->kernels, t->stop, 0, t->programs,
                      t->marks.word, t->outside, t->writes};
}

/* The forward step or the reverse step of an instruction, with the addresses of its numbers: for slots that stay where
 * they are, and for all results. */
typedef struct fg_job fg_job;
struct fg_job {
    int (*run)(const fg_job *j); /* FG_OK; or, forward, another number if fg_block_forward() has an error to tell; NULL:
                                    the caller takes the step by fg_block_forward() or fg_block_reverse() */
    const fg_kernels *kernels;
    fg_id node;
    int row, shape;
    int32_t immediate;
    size_t m, n, k;
    const double *x[3];
    ptrdiff_t down[3], across[3]; /* from one row of an operand to the next, and from one column */
    size_t steps[3];
    double *z, *dz, *dx[3];       /* NULL in dx: nobody wants that gradient */
    double *scratch, *work;
};

/* What k of an FG_TAKE says: which of the two it is. */
enum { FG_TAKE_ROWS = 0, FG_TAKE_EACH = 1 };

/* Whether the operands have the shapes above, but for param, labels and positions. */
int fg_block_fits(int op, fg_record *r);

/* Find how much scratch memory the steps need, r->scratch. FG_OK, or FG_E_MEMORY if that is too much. */
int fg_block_measure(const fg_kernels *kernels, int op, fg_record *r);

/* Compute the results into the data of the slots from `first` on. No slot of an operand is among them. FG_OK;
 * FG_E_INTERRUPTED if slots->stop wanted that; FG_E_DOMAIN for FG_MAP, and *fault is the first element at fault,
 * counted row by row: the caller asks the row which status it has; FG_E_INDEX for FG_TAKE, and *fault is which of the
 * positions is none; or for FG_CALL what the callee returns. */
int fg_block_forward(const fg_slots *slots, int op, fg_record *r, fg_id first, fg_id *fault);

/* Add to the gradients of the operands by those of the results, which are in the slots from `first` on; of all, or of
 * those slots alone that have a bit in `reached` (bit i % 64 of reached[i / 64]), at least one. FG_OK; FG_E_INTERRUPTED
 * with *done not 0, as in fg_block_apply(); or FG_E_MEMORY, and nothing is done yet: call again with room for *wanted
 * doubles, or, if there are none, with what there is. *wanted is 0 at first. */
int fg_block_reverse(const fg_slots *slots, int op, fg_record *r, fg_id first, const uint64_t *reached, size_t *done,
                     size_t *wanted);

/* The two steps of an instruction as jobs, as far as that is faster: what they compute is the same bit for bit. Which
 * gradients nobody wants is asked now. */
void fg_block_prepare(const fg_slots *slots, int op, fg_record *r, fg_id first, fg_job *forward, fg_job *reverse);

/* An instruction is built in the free part of the pool: begin, set every view, push.
 *
 * Preconditions: fg_tape_reserve() has made room for fg_block_words(views, extra) words and one more
 * for every element of a list, and for the results; nothing else touches the pool until the push.
 * Leaves may be pushed in between, for constants. */
fg_record *fg_block_begin(fg_tape *t, fg_id param, fg_id views, fg_id extra);

static inline fg_id fg_block_words(fg_id views, fg_id extra)
{
    return FG_WORDS(fg_record) + views * FG_WORDS(fg_view) + extra;
}

/* View v is these slots. */
void fg_block_view(fg_record *r, fg_id v, fg_view view);

/* Where the caller writes the rows * cols ids of a list, row by row, and how it then says that they are
 * view v; ids that lie in order become a view without a list. */
fg_id *fg_block_ids(fg_record *r);
void fg_block_list(fg_record *r, fg_id v, fg_id rows, fg_id cols);

/* Append the instruction with n_rows * n_cols results, computed or, if not NULL, taken from `results`.
 * `parts`: give it a node of its own above them; without, there is one result and it is the node. *node:
 * the instruction's id.
 *
 * FG_OK, FG_E_MEMORY; or what fg_block_forward() returns, and then *node is the element at fault. */
int fg_block_push(fg_tape *t, int op, fg_id n_rows, fg_id n_cols, int parts,
                  const double *results, fg_id *node);

/* The same for computed results, with no number outside of a row's domain: the results are C's. */
int fg_block_push_anyway(fg_tape *t, int op, fg_id n_rows, fg_id n_cols, int parts, fg_id *node);

/* Add to the gradients of the operands by those of all results, or, if `some`, of those alone that are marked in
 * t->marks, in the words, not the summary: at least one, and the others have nothing to do with the sweep. That costs
 * at most about as much as all would. FG_OK; or FG_E_INTERRUPTED if t->stop wanted that in a long one, with *done not
 * 0: call again, after whatever happened, to have the rest done. *done is 0 at first. */
int fg_block_apply(fg_tape *t, fg_id i, int some, size_t *done);

/* The same by the results that have a bit in `reached`, or by all if that is NULL; without going on. */
int fg_block_apply_reached(fg_tape *t, fg_id i, const uint64_t *reached);

/* Which operands: those that a sweep has to visit, which leaves out leaves and constants; those that gradients
 * can flow to, which leaves out constants, and has all of the table of an FG_TAKE, for its positions are data; or all. */
typedef enum fg_which { FG_VISITED, FG_FLOWN_TO, FG_ALL } fg_which;

/* Whether the nodes from `first` to before `end` are all leaves without a hook, which no sweep has to visit. */
int fg_block_are_leaves(const fg_tape *t, fg_id first, fg_id end);

/* Mark the operands of block node i and nothing between. Of an FG_CALL, constants are left out in any case. */
void fg_block_mark_operands(const fg_tape *t, fg_id i, fg_marks *marks, fg_which which);

/* Those of the results that fg_block_apply() with `some` goes by, as far as a sweep has to visit them. */
void fg_block_mark_reached(fg_tape *t, fg_id i, fg_marks *marks);

/* The operands of any node, a part among them: how many, and, where not NULL, their ids in order and the partial
 * derivative by each. */
fg_id fg_block_operands(fg_tape *t, fg_id i, fg_id *ids, double *partials);

#endif
