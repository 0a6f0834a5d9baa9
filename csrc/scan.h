/* scan.h: a program that is computed for one step after the other, each with what the step before has computed: one
 * FG_CALL for all of them.
 *
 *   step   takes    carry (n_carry numbers), x (n_x numbers), and what is the same at each step
 *          returns  the next carry, and outputs
 *   scan   takes    the first carry, the x of all steps, and what is the same at each step
 *          returns  the last carry, and the outputs of all steps
 *
 * It promises results and gradients of the steps as nodes of a tape, bit for bit but where a node of a step is twice in
 * the next carry; and that only results that are reached take part, step by step. The gradients are those at the
 * present data of the operands.
 *
 * The steps are divided into stretches. The carries that stretches begin with are kept, and of one stretch the numbers
 * of all nodes: a reverse step computes each of the other stretches once more.
 */
#ifndef FG_SCAN_H
#define FG_SCAN_H

#include "program.h"

enum { FG_SCAN_PLANS = 4 };

/* A sweep over a step from some of its results, in advance: the next step is mostly swept from the same. */
typedef struct fg_plan {
    uint8_t *wanted;  /* [results of the step] the results */
    uint64_t *seen;   /* [FG_MARKS_WORDS(nodes of the step)] the nodes that it visits or adds to */
    fg_id *nodes;     /* [nodes of the step] those that it visits, the highest first */
    fg_id count;
    int made;
    int exact;        /* it is for the numbers of one step, by which an FG_TAKE decides what it visits */
    struct fg_plan *before; /* the plan of the step before, if that begins with the same outputs; NULL: not known */
} fg_plan;

typedef struct fg_scan {
    fg_callee callee;       /* first. Its segments: of the carry, of x, and the others; from place 1 on */
    fg_mem mem;
    fg_program *step;       /* held. Its nodes 1 to n_carry are the carry, and the next n_x are x */
    fg_id length;           /* steps */
    fg_id n_carry, n_x, n_outputs; /* numbers of each step */
    fg_id carries, xs;      /* segments */
    fg_id parts;            /* outputs of the caller's, of `sizes` numbers */
    int backwards;          /* the first step has the last x, and the last output */
    fg_id checkpoint;       /* as it was asked for */

    fg_id area;             /* operands; their places are 1 to area */
    double *data, *grad;    /* [area + 1] of the last call that ran; of the last that was reversed */
    uint8_t *op;            /* [area + 1] FG_LEAF or FG_FROZEN */
    uint64_t *used;         /* [FG_MARKS_WORDS(area + 1)] which of them gradients flow to */
    uint64_t *reached;      /* [the same] likewise, of some results: scratch */

    fg_id *sizes;           /* [parts] */
    fg_id *base, *jump;     /* [n_outputs] among the results: of the output at place 0; from one place to the next */
    fg_id *twin;            /* [n_outputs] the number of the carry, from 1 on, that is the same node; or 0 */

    fg_id every;            /* steps in a stretch */
    fg_id stretches;
    fg_id width;            /* numbers kept of a step: the carry, and the nodes that are computed, ... */
    fg_stretch *ranges;     /* [n_ranges] ... where these are */
    fg_id n_ranges;
    double *starts;         /* [stretches * n_carry + 1] the carry at the beginning of each */
    double *rows;           /* [every * width + 1] of one stretch */
    fg_id kept;             /* which one; `stretches`: none */
    int ready;              /* all that follows from the operands' data */
    fg_id at;               /* the step that failed */

    double *next;           /* [n_carry] scratch: the carry of the next step, ... */
    double *dnext;          /* [n_carry] ... and its gradients */
    uint8_t *wanted;        /* [n_carry + n_outputs] scratch */
    int long_steps;         /* so to ask after each whether to stop; ... */
    fg_id steps_left;       /* ... else after so many more */
    fg_plan plans[FG_SCAN_PLANS];
    fg_id turn;             /* the plan to be replaced next */
    fg_id *taking;          /* [n_taking] the FG_TAKEs of a step, whose records have the positions */
    fg_id n_taking;
} fg_scan;

/* Make one of a program, whose first segments are those of carry and x, and whose results are the next carry and then
 * `parts` outputs of so many numbers each. checkpoint: steps in a stretch; 0: as it fits into memory that is fast.
 * Nobody holds it. FG_OK; FG_E_MEMORY, FG_E_FULL; or FG_SCAN_FORM if the program is none of that form. */
int fg_scan_make(fg_program *step, fg_mem *mem, fg_id length, fg_id carries, fg_id xs, const fg_id *sizes, fg_id parts,
                 int backwards, fg_id checkpoint, fg_scan **made);

enum { FG_SCAN_FORM = 1 };

void fg_scan_free(fg_scan *s);

extern const fg_callee_steps fg_scan_steps;

#endif
