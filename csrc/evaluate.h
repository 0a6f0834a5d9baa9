/* evaluate.h: values and gradients of a program as plain numbers, off the tape.
 *
 * It works on a copy by fg_program_copy_alone(), which shares nothing that is written to with any other program. So
 * threads may evaluate at the same time, each with a copy of its own, and need no lock: what all of them read is code,
 * tables of kernels and of operations, and what the caller gives. Memory is counted in the copy, and a step of an
 * instruction that wants more scratch memory takes it there. No Python.
 *
 * It leaves to its caller the numbers of the operands, which are in the body where the segments say.
 */
#ifndef FG_EVALUATE_H
#define FG_EVALUATE_H

#include "lanes.h"

/* Gradients are computed for operands of these segments alone, [n_segments]. Once, before the first of those that
 * follow, and before it is a program of lanes. */
void fg_evaluate_for(fg_program *p, const uint8_t *wanted);

/* Compute the results, and the gradients of operands by result k into the body. lenient: as for fg_program_run(). FG_OK,
 * FG_E_INTERRUPTED, or the status of a row. Whatever comes back, it can be called again. */
int fg_evaluate(fg_program *p, fg_id k, int lenient, double *value);

/* Compute the results alone. */
int fg_evaluate_values(fg_program *p, int lenient, double *values);

/* Compute the results, and the gradients of operands by each of them from result `first` on: `table` gets a row for each
 * of these, with the numbers of the segments that are wanted. `rows`: how many have been done, 0 at first; after
 * FG_E_INTERRUPTED it may be called again to go on. */
int fg_evaluate_all(fg_program *p, const uint8_t *wanted, fg_id first, int lenient, double *values, double *table,
                    fg_id *rows);

#endif
