/* block.h: the instructions of many operands and results: a layer over a batch, an operation on every
 * element, reductions, softmax. Their operands and results are matrices of slots, run through the
 * kernels in place where the slots lie in order.
 *
 * It promises what tape.h does: a failed call leaves the tape as it was. It leaves to its caller that
 * shapes fit: they are asserted here.
 */
#ifndef FG_BLOCK_H
#define FG_BLOCK_H

#include "tape.h"

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
 * FG_OK, FG_E_MEMORY, or for FG_MAP a status of its row, and then *node is the element at fault, counted
 * row by row. */
int fg_block_push(fg_tape *t, int op, fg_id n_rows, fg_id n_cols, int parts,
                  const double *results, fg_id *node);

/* Add to the gradients of the operands by those of all results. */
void fg_block_reverse(fg_tape *t, fg_id i);

/* The operands of any node, a part among them: how many, and, where not NULL, their ids in order and what
 * each one's gradient gets if that of the node is dz; with 1, the partial derivatives. */
fg_id fg_block_operands(const fg_tape *t, fg_id i, double dz, fg_id *ids, double *contributions);

/* Add to the gradients of a part's operands by its own gradient alone: the other results of its
 * instruction have nothing to do with the sweep. */
void fg_block_reverse_part(fg_tape *t, fg_id i);

#endif
