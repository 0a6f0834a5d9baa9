/* lanes.h: a program of one sample as an FG_CALL of many: what it runs once for each sample, in lanes.
 *
 * A segment of the program that differs from sample to sample has a row for each in the view of a call; a segment that
 * is the same for all has what the program's has. It promises the results and gradients of a call for each sample, but
 * for the rounding of sums and of transcendental functions, and sums over samples in an order that depends on nothing
 * but their number. Samples whose results are not reached take no part.
 *
 * Results come in groups, some of the program's in a row: of each group a row for each sample, or one row with the sums
 * over all samples, and then the next group.
 */
#ifndef FG_LANES_H
#define FG_LANES_H

#include "lanes_batch.h"

typedef struct fg_lanes fg_lanes;

/* Some results of the program. */
typedef struct fg_group {
    fg_id first, count;
    int summed; /* over all samples */
} fg_group;

/* varies: [n_segments of the program]; groups: [n_groups], which are all results in order. most_lanes: how many samples
 * at once, 0 for what is best. single: in floats, not in doubles. The program is copied. Nobody holds what is made;
 * t is the tape that will call it. FG_OK, FG_E_MEMORY, or FG_E_FULL. */
int fg_lanes_make(fg_tape *t, const fg_program *p, const uint8_t *varies, fg_id n_samples, const fg_group *groups,
                  fg_id n_groups, fg_id most_lanes, int single, fg_lanes **made);

/* The same of a program that is its own from now on, also if that fails. *fail_after: as in fg_mem. */
int fg_lanes_make_of(fg_program *own, const uint8_t *varies, fg_id n_samples, const fg_group *groups, fg_id n_groups,
                     fg_id most_lanes, int single, int64_t *fail_after, fg_lanes **made);

/* For evaluate.c, without a call, of a program of one result. The numbers of operands that are the same for all are in
 * the body of fg_lanes_program(), and fg_lanes_changed() was called when they changed. Then *sum is that of the results
 * of `count` samples, added up in their order, and the body has the gradients of those operands for a gradient `seed`
 * of each sample's result. `from`: for each segment that varies, a row for each sample; `to`: the gradients, likewise,
 * or NULL. FG_OK, FG_E_INTERRUPTED, or the status of a row. */
void fg_lanes_changed(fg_lanes *l);
int fg_lanes_sum(fg_lanes *l, const double *const *from, double *const *to, size_t count, double seed, double *sum);

/* Free what nobody holds. */
void fg_lanes_free(fg_lanes *l);

/* Whether it is of this kind; then what it was made from. */
int fg_lanes_is(const fg_callee *c);
fg_program *fg_lanes_program(const fg_lanes *l);
const uint8_t *fg_lanes_varies(const fg_lanes *l);
fg_id fg_lanes_samples(const fg_lanes *l);
const fg_group *fg_lanes_groups(const fg_lanes *l, fg_id *count);

/* An operand of the last call: as the segments count them, from 1 on. */
double fg_lanes_number(const fg_lanes *l, fg_id place);

/* Whether it computes in floats. */
int fg_lanes_is_single(const fg_lanes *l);

/* Whether it computes a node of its program for each sample. */
int fg_lanes_is_varying(const fg_lanes *l, fg_id node);

/* Once more what a call does, for a measurement; as fg_program_rehearse(). */
int fg_lanes_rehearse(fg_lanes *l, int step);

/* How many samples it computes at once. */
size_t fg_lanes_width(const fg_lanes *l);

#endif
