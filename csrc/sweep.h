/* sweep.h: the reverse pass over the live tape. From one output it visits each node it depends on
 * once, users before operands, and adds to the operands' gradients by the rules of ops.def.
 *
 * A sweep touches only those nodes, in time that grows with their number. Of all gradients it overwrites
 * only the output's, and clears none. It does not recurse or sort.
 *
 * While a sweep pauses, the caller may do anything with the tape, even another sweep. The tape keeps the nodes that
 * are still to be visited, and renumbers their marks with them.
 */
#ifndef FG_SWEEP_H
#define FG_SWEEP_H

#include "block.h"

/* Start a sweep: the output's gradient becomes 1. NULL if memory is short, and then nothing has changed. The next
 * thing done with the tape is fg_sweep_run, until it says that the sweep is done, or fg_sweep_cancel. */
fg_sweep *fg_sweep_begin(fg_tape *t, fg_id output);

/* The same from several outputs, at least one, whose gradients the caller sets; then any may be there twice, or depend
 * on another. */
fg_sweep *fg_sweep_begin_from(fg_tape *t, const fg_id *outputs, size_t count);

enum { FG_SWEEP_DONE = 0, FG_SWEEP_MORE = 1, FG_SWEEP_HOOK = 2 };

/* Visit the marked nodes of up to `words` words of 64 ids. FG_SWEEP_DONE: the sweep is over.
 * FG_SWEEP_MORE: call again. FG_SWEEP_HOOK: node s->hook has its turn, and its rule is the caller's
 * to run, or it is a call that the caller computes (callback.h); then call again. */
int fg_sweep_run(fg_tape *t, fg_sweep *s, fg_id words);

/* Add to the gradients of node i's operands by its own rule, hook or no hook; a leaf and FG_CUSTOM
 * have none. At any time, also between two calls of fg_sweep_run. Returns what fg_block_apply does. */
int fg_sweep_apply(fg_tape *t, fg_id i, size_t *done);

/* Add to the gradients of the operands of these nodes, one after the other, by their own rules: of an instruction by
 * those of all results, or, where it is a part that is given, of the results that have a bit in `seen`. Nothing is
 * marked. FG_OK; or FG_E_INTERRUPTED, and there is no going on. */
int fg_sweep_replay(fg_tape *t, const fg_id *nodes, fg_id count, const uint64_t *seen);

/* End a sweep early; the gradients added so far stay. */
void fg_sweep_cancel(fg_tape *t, fg_sweep *s);

/* The nodes that sweeps from these outputs can visit or add to, leaves too, changing nothing: in words of
 * 64 ids, the highest first, which nodes of the word. Returns how many words; both arrays have room for
 * FG_MARKS_WORDS(n). which: FG_FLOWN_TO, or FG_ALL with what constants are computed from. If one result of an
 * instruction is reached, all its operands count as reached.
 * *hooked: whether one of the nodes has a hook, whose rule may do anything to any gradient. */
fg_id fg_sweep_reach(fg_tape *t, const fg_id *outputs, size_t count, fg_which which, fg_id *words, uint64_t *masks,
                     int *hooked);

/* The nodes that a sweep from these outputs visits, in its order, instructions in place of their parts; leaves are left
 * out. Returns how many; there is room for n. FG_MAX_ID: one of them has a hook, an instruction is reached by some of
 * its parts alone, or an FG_TAKE visits what numbers say, and there is no such order. Else it is that of every later
 * sweep until the tape changes. */
fg_id fg_sweep_order(fg_tape *t, const fg_id *outputs, size_t count, fg_id *nodes);

/* What a sweep does with the nodes that fg_sweep_order() has found, once the outputs' gradients are set and those
 * of all other nodes are 0, leaves' apart. FG_OK; or FG_E_INTERRUPTED, and then nothing can go on from there. */
int fg_sweep_ordered(fg_tape *t, const fg_id *nodes, fg_id count, size_t *done);

#endif
