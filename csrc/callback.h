/* callback.h: calls that are computed by the caller of the tape, both ways: an FG_CALL whose results are given, and at
 * which a sweep stops.
 *
 * Its node has FG_HOOK from when it is made, so a sweep that reaches one of its results stops once at the node, when all
 * that depends on the results has been visited; the caller adds to the gradients of the operands, and goes on. Each call
 * has a callee of its own.
 */
#ifndef FG_CALLBACK_H
#define FG_CALLBACK_H

#include "calls.h"

typedef struct fg_callback {
    fg_callee callee;  /* first. Its segments follow each other, from place 1 on */
    fg_mem mem;
    uint64_t reached[]; /* (n_results + 63) / 64 words, and the segments: a bit for each result from which gradients
                           come; the caller reads it when a sweep has stopped */
} fg_callback;

/* Make one with n operands of so many numbers each. Nobody holds it. FG_OK or FG_E_MEMORY. */
int fg_callback_make(fg_mem *mem, const fg_id *counts, fg_id n, fg_id n_results, fg_callback **made);
void fg_callback_free(fg_callback *c);

/* The callee of node i if that is such a call, else NULL. */
fg_callback *fg_callback_at(const fg_tape *t, fg_id i);
int fg_callback_is(const fg_callee *c);

/* From now on the gradients come from those results alone that have a mark, which is taken away, of a call at node i. */
void fg_callback_reach(fg_tape *t, fg_id i, uint64_t *word);

/* Or from result k alone. */
void fg_callback_reach_one(fg_callback *c, fg_id k);

#endif
