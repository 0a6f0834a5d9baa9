/* simplify.h: the same graph in fewer and larger instructions.
 *
 * It promises the same results and gradients but for rounding, and faults that name the same operations and numbers.
 * It leaves to its caller whether that is wanted.
 */
#ifndef FG_SIMPLIFY_H
#define FG_SIMPLIFY_H

#include "block.h"

/* Which steps are taken. */
enum {
    FG_SIMPLIFY_SHARED = 1,    /* equal nodes are one, and copies are what they copy */
    FG_SIMPLIFY_DOTS = 2,      /* sums of products are dot products, other sums are sums */
    FG_SIMPLIFY_LAYERS = 4,    /* dot products with operands in common are layers */
    FG_SIMPLIFY_TOGETHER = 8,  /* equal operations that do not wait for each other are one instruction */
    FG_SIMPLIFY_ALL = 15,
    FG_SIMPLIFY_STEPS = 4      /* how many there are */
};

/* How many instructions there are: before, and after each step. A step that is not taken changes nothing. In the end those
 * that are small are written in single operations, which are not counted here. */
typedef struct fg_simplified {
    fg_id before, after[FG_SIMPLIFY_STEPS];
} fg_simplified;

/* Make `to` a closed tape, whose memory is counted from 0 and may fail as *mem says, with what leads from the results,
 * nodes of `from`, to its operands: nodes 1 to `area`, and node area + 1, an FG_RUN, if area is not 0. They keep their
 * ids, and nodes that are not needed are left out. The data of operands and results are not to be read: only those of
 * constants are in place. made[k]: the node of results[k].
 *
 * Nodes have no hooks, and none is FG_CUSTOM or FG_LOCAL. FG_OK; or FG_E_MEMORY or FG_E_FULL, and there is no tape. */
int fg_simplify(const fg_tape *from, fg_id area, const fg_id *results, fg_id n_results, int steps, fg_mem *mem,
                fg_tape *to, fg_id *made, fg_simplified *report);

#endif
