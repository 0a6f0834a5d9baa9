/* program.h: a tape that has stopped growing. What leads from some nodes down to others is cut out of a tape, once, and
 * then computed again and again: the calls are nodes of a tape like any other, FG_CALL.
 *
 * It promises that a call computes what the nodes did that it was cut from, and that its gradients are theirs, bit for
 * bit unless it has been simplified. It leaves to its caller what the operands are: which of them are inputs, and how
 * they are found at each call.
 *
 * The nodes of the body:
 *
 *   | 0 | operands, with holes between | the FG_RUN that keeps them, if there are any | constants and instructions |
 *   |   |<--------- area ------------->|
 *
 * A hole is a leaf that nobody reads: it keeps the rows of a view as far apart as they were. The operands between two
 * holes, or of one input, are a segment, and a call has a view for each segment. The body's data are those of the last
 * call that ran, and its gradients those of the last that was reversed.
 *
 * Operands are copied into the area at each call. But a segment that instructions of the body read by views alone,
 * each of them within it, needs no copy where it lies in a row on a tape that counts what is assigned to: the views
 * then lead to the numbers on the tape (fg_outside), and gradients are added to there. So many weights cost a call
 * nothing. The segment's slots in the area mean nothing then.
 */
#ifndef FG_PROGRAM_H
#define FG_PROGRAM_H

#include "simplify.h"
#include "sweep.h"

typedef struct fg_program {
    fg_callee callee;      /* first: the tape knows a program by it. Its segments are of the area, its results: */
    fg_tape body;
    fg_id area;            /* nodes 1 to area are operands and holes */
    fg_id *results;        /* [n_results] nodes of the body, any but the FG_RUN */
    int steps;             /* of fg_program_simplify(), which were taken */
    int ready;             /* the body's data follow from the data of its operands */
    uint64_t writes;       /* the tape's count then, if the last run was a call's; else 0 */

    fg_outside *outside;   /* [n_outside] where a call has the numbers of a segment that is not copied; found with the
                              first call */
    fg_id n_outside;       /* n_segments, or 0 before, or if no segment may be used in place */
    fg_id *base;           /* [n_outside] of the last run: the segment's first slot on the tape; 0: it was copied */
    int looked;            /* whether there are any has been seen */
    int is_long;           /* its reverse step takes so long that it has to be interrupted */

    uint64_t *used;        /* [FG_MARKS_WORDS(area + 1)] which operands gradients flow to */
    uint64_t *reached;     /* [the same] likewise, of some results: scratch */
    fg_id *outputs;        /* [n_results] scratch: nodes that a sweep over the body begins with, ... */
    const double **seeds;  /* [n_results] ... and where their gradients are */
    fg_id *words;          /* [FG_MARKS_WORDS(body.n)] scratch for fg_sweep_reach() */
    uint64_t *masks;       /* [the same] */

    fg_id *order;          /* [n_order] what a sweep from all results visits, in its order; found with the first */
    fg_id n_order;         /* 0 before, and FG_MAX_ID, without an array, if there is no such order */

    struct fg_program *rule; /* whose results are the operands' gradients, or NULL; see fg_program_set_rule() */
    fg_id *gives;            /* [n_segments + 1] with a rule: the first of its results for a segment, counted from 1, or
                                0; else NULL */
    int is_deep;             /* it stands for one whose rule has not been made */

    int status;            /* of the last run that failed, and the node where, and */
    fg_id at, element;     /* for FG_MAP the result, counted row by row */
} fg_program;

enum { FG_PROGRAM_RULE = 1, FG_PROGRAM_SHARED = 2 /* it calls something that cannot be copied */ };

/* Cut out what leads from the outputs, nodes of t, down to the inputs and to nodes below `floor`, which are captured.
 * Leaves from the floor on that are no inputs are constants, and so is what is computed from constants alone. Segments
 * are the inputs, in order, and then what is captured, of which (*captured)[] says where on t each segment begins; the
 * caller gives that memory back with fg_program_forget(). Nobody holds the new program.
 *
 * Inputs are leaves, none of them twice, and have no hooks. FG_OK; FG_E_MEMORY, FG_E_FULL; or FG_PROGRAM_RULE if *at is
 * computed from an operand by a rule that is not ours. */
int fg_program_cut(fg_tape *t, fg_id floor, const fg_stretch *inputs, fg_id n_inputs, const fg_id *outputs,
                   fg_id n_outputs, fg_program **made, fg_id **captured, fg_id *at);

void fg_program_forget(fg_program *p, fg_id *captured);

/* From now on the body is what fg_simplify() makes of it, and results and gradients are those that there were but for
 * rounding. Of t only the allocations that fail on purpose are asked for. FG_OK; or FG_E_MEMORY or FG_E_FULL, and
 * nothing has changed. */
int fg_program_simplify(fg_tape *t, fg_program *p, int steps, fg_simplified *report);

/* Segments of a program whose only input is all of the area of another: those of that one. FG_OK or FG_E_MEMORY. The
 * caller has checked that they lie in the area. */
int fg_program_divide(fg_program *p, const fg_stretch *segments, fg_id n_segments);

/* From now on gradients go by a rule: a program whose segments are those of p, and one more that has the gradients of
 * p's results; its results from gives[k] on, counted from 1, are the gradients of segment k, which has none if that is
 * 0. The rule is held. Without one (NULL) no gradients flow, and p is `deep`. FG_OK or FG_E_MEMORY. Precondition: p has
 * been simplified, if at all, and has no rule. */
int fg_program_set_rule(fg_program *p, fg_program *rule, const fg_id *gives);

/* Append the nodes of the body to a tape, from node 1 on. Returns the id of node 0, were it there, or FG_E_MEMORY.
 * Precondition: room for body.n - 1 nodes and body.npool operands. */
int64_t fg_program_expand(const fg_program *p, fg_tape *t);

/* Compute the body. lenient: numbers outside of an operation's domain are no fault. FG_OK, FG_E_INTERRUPTED, or the
 * status of a row, and then p->at is the node at fault. */
int fg_program_run(fg_program *p, int lenient);
/* The same program once more, with a body of its own; nobody holds it. *fail_after: as in fg_mem. FG_OK or FG_E_MEMORY. */
int fg_program_copy(const fg_program *p, int64_t *fail_after, fg_program **made);

/* That, and what it calls is copied as well: it shares nothing that is written to with any other, so that a thread may
 * compute it while others compute theirs. All of it asks `stop`. FG_OK; FG_E_MEMORY; or FG_PROGRAM_SHARED. */
int fg_program_copy_alone(const fg_program *p, int (*stop)(void), int64_t *fail_after, fg_program **made);

/* Compute the nodes of the body from i to before `end`; *next: the one after the last. What fg_callee_steps.forward
 * returns. Precondition: neither is among the results of an instruction. */
int fg_program_run_nodes(fg_program *p, const fg_slots *slots, fg_id i, fg_id end, fg_id *next);

/* For training.c, where the operands are in the body already: from one result, whose gradient begins at 1, the gradients
 * of operands, which are added to those that they have. order: of a sweep from there, or NULL. FG_OK or
 * FG_E_INTERRUPTED. Precondition: the result is no operand. */
int fg_program_sweep(fg_program *p, fg_id result, const fg_id *order, fg_id n_order);

/* The steps of a program with the addresses of its numbers: its nodes in order, and what a sweep from one result visits.
 * A job without `run` stands for nodes up to `node`, or for that one. */
typedef struct fg_jobs {
    fg_job *forward, *reverse; /* [n_forward], [n_reverse] */
    fg_id n_forward, n_reverse;
} fg_jobs;

/* Make the plan of a program, whose area has the opcodes that it will have; *plan is empty, or that of the same program
 * and order, and is made anew. order: of a sweep from one result. FG_OK; or FG_E_MEMORY, and it is empty. */
int fg_program_plan(fg_program *p, const fg_id *order, fg_id n_order, fg_jobs *plan);
void fg_program_release_plan(fg_program *p, fg_jobs *plan);

/* fg_program_run() and fg_program_sweep() by a plan, of which the result is that of its order. */
int fg_program_run_plan(fg_program *p, const fg_jobs *plan);
int fg_program_sweep_plan(fg_program *p, fg_id result, const fg_jobs *plan);

/* Once more what the last call has done, for a measurement. FG_OK or FG_E_INTERRUPTED. Forward every second time has
 * other numbers in their last bits, for calls within are not computed for the same numbers again; so that takes an even
 * number of times. FG_REHEARSE_TURN is that change alone; backward begins at all results. */
enum { FG_REHEARSE_FORWARD, FG_REHEARSE_BACKWARD, FG_REHEARSE_TURN };

int fg_program_rehearse(fg_program *p, int step);

/* Likewise the forward steps of some nodes: of each stretch from its first one on. None ends among the results of an
 * instruction. */
int fg_program_rehearse_nodes(fg_program *p, const fg_stretch *stretches, fg_id count);

/* The order of a sweep from so many nodes in p->outputs, in a new array, as fg_sweep_order() says; *order stays NULL
 * and the result is FG_MAX_ID if there is none, or no memory. */
fg_id fg_program_order(fg_program *p, fg_id count, fg_id **order);
void fg_program_release_order(fg_program *p, fg_id *order, fg_id n_order);

/* The number of operand `place` in the last call: right after it. */
double fg_program_number(const fg_program *p, fg_id place);

/* Find which segments may be used in place, and say so in the body's views. Without memory there are none. */
void fg_program_find_outside(fg_program *p);
void fg_program_release_outside(fg_program *p);

/* Free a program that nobody holds. */
void fg_program_free(fg_program *p);

/* For program_cut.c: the steps of a call; and fill in p->used. */
extern const fg_callee_steps fg_program_steps;
void fg_program_find_used(fg_program *p);

#endif
