/* block_steps.h: the steps of each kind of instruction, which block.c and block_operands.c call. A kind is a word in
 * the column `steps` of ops.def, and has all of them, or the build fails.
 *
 *   fits              whether the operands of the record have the shapes in block.h
 *   forward           compute all results, to z. FG_OK; FG_E_INTERRUPTED; or FG_E_DOMAIN, and s->done is at fault
 *   reverse           add to the gradients of the operands by those of the results at s->at, which are all of them, or
 *                     with s->aside one: z and dz are of the first. FG_OK; or FG_E_INTERRUPTED, with s->done blocks
 *                     done, and the next call goes on from there
 *   reverse_reached   the same by those of all results that are reached. Also FG_E_MEMORY, with nothing done: if there
 *                     is no scratch memory of s->wanted doubles for the next call, that will do without
 */
#ifndef FG_BLOCK_STEPS_H
#define FG_BLOCK_STEPS_H

#include "block_matrix.h"

#define FG_STEPS(kind)                                                          \
    int fg_##kind##_fits(int op, fg_record *r);                                 \
    int fg_##kind##_forward(step *s, double *z);                                \
    int fg_##kind##_reverse(step *s, const double *z, const double *dz);        \
    int fg_##kind##_reverse_reached(step *s, const double *z, const double *dz)

FG_STEPS(layer);
FG_STEPS(map);
FG_STEPS(rows); /* reductions and softmax */
FG_STEPS(cross_entropy);
FG_STEPS(take);
FG_STEPS(call);
#undef FG_STEPS

/* For fg_block_prepare(), which has filled in what all jobs have. */
void fg_layer_prepare(step *s, fg_job *forward, fg_job *reverse);
void fg_map_prepare(step *s, fg_job *forward, fg_job *reverse);
void fg_rows_prepare(step *s, fg_job *forward, fg_job *reverse); /* of FG_SUM and FG_MEAN */

/* How much scratch memory a layer's steps need, whole or in part. */
size_t fg_layer_scratch(const fg_kernels *kernels, fg_record *r);

/* The slot that result k of an FG_TAKE, counted row by row, was copied from. */
fg_id fg_take_source(const fg_record *r, fg_id k);

#endif
