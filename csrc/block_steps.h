/* block_steps.h: the forward and the reverse step of each instruction, which block.c and block_operands.c call.
 *
 * z and dz are the results and their gradients, those of the first result at s->at unless it is said otherwise. A
 * reverse step adds to the gradients of the operands; of the results that are reached, only by theirs.
 */
#ifndef FG_BLOCK_STEPS_H
#define FG_BLOCK_STEPS_H

#include "block_matrix.h"

/* How much scratch memory a layer's steps need, whole or in part. */
size_t fg_layer_scratch(const fg_tape *t, fg_record *r);

/* FG_OK or FG_E_INTERRUPTED. */
int fg_layer_forward(step *s, double *z);

/* FG_OK or FG_E_INTERRUPTED, with s->done blocks done; the next call goes on from there. With s->aside z and dz are
 * those of the only result at s->at, else of result (0, 0). */
int fg_layer_reverse_all(step *s, const double *z, const double *dz);
int fg_layer_reverse_reached(step *s, const double *z, const double *dz, fg_id first);

/* Returns how many results there are, or the first at fault. */
size_t fg_map_forward(step *s, double *z);
/* some: only those results count that are reached. */
void fg_map_reverse(step *s, const double *z, const double *dz, int some, fg_id first);
void fg_map_reverse_reached(step *s, const double *z, const double *dz, fg_id first);

/* Of reductions and softmax. */
void fg_rows_forward(step *s, double *z);
void fg_rows_reverse(step *s, const double *z, const double *dz);
void fg_rows_reverse_reached(step *s, const double *z, const double *dz, fg_id first);

double fg_cross_entropy_forward(step *s);
void fg_cross_entropy_reverse(step *s, double dz);

#endif
