/* lanes_scan.h: a scan within a batch: all its steps for many samples at once, one in each lane.
 *
 * It promises what the scan computes for each sample, but for the rounding of sums and of transcendental functions; of
 * results that are not reached nothing flows, step by step. Stretches and their beginnings are as scan.h says, with a
 * row of lanes in place of each number; their length suits the lanes. It leaves to its caller what happens if a number
 * is outside of an operation's domain.
 */
#ifndef FG_LANES_SCAN_H
#define FG_LANES_SCAN_H

#include "scan.h"

/* One element of an operand: a number for each lane, or, with step 0, the same for all. */
typedef struct fg_spot {
    double *data, *grad; /* grad is NULL if nobody wants it */
    size_t step;
} fg_spot;

typedef struct fg_lanes_scan fg_lanes_scan;

/* wanted, varies: for each operand of the scan, from element 1 on, whether its gradient is wanted, and whether it is
 * another number in each lane. FG_OK, and *made is NULL if
 * the step has instructions that cannot be done in lanes; or FG_E_MEMORY. */
int fg_lanes_scan_make(fg_lanes_scan **made, const fg_scan *scan, fg_mem *mem, const uint8_t *wanted,
                       const uint8_t *varies);
void fg_lanes_scan_free(fg_lanes_scan *s);

/* How many lanes are best. */
size_t fg_lanes_scan_best(const fg_lanes_scan *s);

/* Once, before what follows: a multiple of 8. FG_OK or FG_E_MEMORY. */
int fg_lanes_scan_set_lanes(fg_lanes_scan *s, size_t lanes);

/* Operands of the scan, from element 1 on: the caller fills them in. */
fg_spot *fg_lanes_scan_operands(fg_lanes_scan *s);

/* z: each result, lanes apart. stop: asked now and then, or NULL. FG_OK; FG_E_INTERRUPTED; or, unless lenient,
 * FG_E_DOMAIN if it may be that a number in a lane is outside of an operation's domain. */
int fg_lanes_scan_forward(fg_lanes_scan *s, int lenient, int (*stop)(void), double *z);

/* Whether that has been done, with FG_OK. */
int fg_lanes_scan_is_ready(const fg_lanes_scan *s);

/* And back, after that: add to the gradients of the operands by those in dz, which lie as z does, of all results or of
 * those that have a bit in `reached`, result 0 at `first`. `used` lanes have a sample. FG_OK or FG_E_INTERRUPTED. */
int fg_lanes_scan_reverse(fg_lanes_scan *s, size_t used, int (*stop)(void), const double *dz, const uint64_t *reached,
                          fg_id first);

#endif
