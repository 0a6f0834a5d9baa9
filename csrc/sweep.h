/* sweep.h: the reverse pass over the live tape. From one output it visits each node it depends on
 * once, users before operands, and adds to the operands' gradients by the rules of ops.def.
 *
 * It promises to touch only those nodes, in time that grows with their number, and never to clear
 * or overwrite a gradient but the output's. It does not recurse, sort or allocate.
 */
#ifndef FG_SWEEP_H
#define FG_SWEEP_H

#include "tape.h"

/* Start a sweep: the output's gradient becomes 1. Precondition: none is under way. Until the sweep
 * has ended or been cancelled, nodes may be appended but none is popped or renumbered. */
void fg_sweep_begin(fg_tape *t, fg_id output);

/* Visit the marked nodes of up to `words` words of 64 ids. 1: there is more to do, call again;
 * 0: the sweep has ended. */
int fg_sweep_run(fg_tape *t, fg_id words);

/* End a sweep early; the gradients added so far stay. */
void fg_sweep_cancel(fg_tape *t);

#endif
