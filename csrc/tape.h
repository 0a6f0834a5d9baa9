/* tape.h: the live graph as flat arrays of nodes, and how nodes come and go.
 *
 * It promises: append order is topological; an error changes nothing; a node lives while a holder
 * or a living node needs it. It leaves gradients to sweep.h and everything about Python to its
 * caller, who holds nodes through an address that the tape keeps up to date.
 */
#ifndef FG_TAPE_H
#define FG_TAPE_H

#include <time.h>

#include "base.h"
#include "kernels.h"
#include "marks.h"
#include "mem.h"
#include "record.h"

/* What a node keeps beside its numbers. Operands' ids are smaller than the node's own.
 *
 *                a                            b
 *   FG_LEAF      0                            0
 *   unary        operand                      FG_POWI: the exponent's bits; else 0
 *   binary       first operand                second operand
 *   pooled       where in the pool the list   how many operands; FG_LOCAL: behind their ids are as many partial
 *                of operands begins           derivatives, doubles of two entries each
 *   block        where in the pool the        how many FG_PART nodes right below hold the results; 0: there is
 *                record begins                one result, and the node itself holds it
 *   FG_PART      how far above the            0
 *                instruction's node is
 *   FG_RUN       0                            how many nodes right below it keeps
 *   FG_FROZEN    both are the gradient, a double; grad[] is scratch, where sweeps add to
 */
typedef struct fg_args {
    fg_id a, b;
} fg_args;

/* What the caller keeps for a node beyond its numbers. A node without one costs nothing. */
typedef struct fg_box {
    fg_id *holder;       /* the holder's copy of the id, or NULL */
    void *extra;         /* the caller's, who gets it back through fg_tape.dead */
    struct fg_box *next; /* among the dead */
} fg_box;

enum { FG_HOOK = 0x80 };
static_assert((int)FG_OPS <= (int)FG_HOOK, "no opcode has that bit");

/* A sweep that is under way or, in fg_tape.spare, over (sweep.h). The tape keeps the nodes that it has still to
 * visit, and renumbers its marks as it does holders. */
typedef struct fg_sweep {
    fg_marks marks;        /* the nodes to visit; all clear when it is over */
    size_t words;          /* elements in marks.word */
    fg_id above;           /* it needs no node from this one on */
    fg_id hook;            /* the node at which fg_sweep_run asked its caller to act */
    size_t done;           /* of a long instruction that was interrupted: how far it is reversed */
    struct fg_sweep *next; /* in the list */
} fg_sweep;

typedef struct fg_tape fg_tape;
typedef struct fg_callee fg_callee;
struct fg_slots; /* in block.h */

/* What an FG_CALL runs: a program. These are the steps of the instruction, which program.c has; there is one view for
 * each of its segments, and `first` is the slot of result 0. */
typedef struct fg_callee_steps {
    /* Compute z. FG_OK, FG_E_INTERRUPTED, or the status of a row, of which the callee knows more. */
    int (*forward)(fg_callee *c, const struct fg_slots *slots, fg_record *r, double *z);
    /* Add to the gradients of the operands by those of the results: all, or those that have a bit in `reached`. FG_OK;
     * or FG_E_INTERRUPTED, and then nothing has changed. */
    int (*reverse)(fg_callee *c, const struct fg_slots *slots, fg_record *r, fg_id first, const uint64_t *reached);
    /* Mark the operands that gradients of all results, or of those that are marked in t->marks, flow to; without
     * `leaves` those that a sweep has to visit are enough. */
    void (*mark)(fg_callee *c, const fg_tape *t, fg_record *r, fg_id first, int all, fg_marks *marks, int leaves);
    /* The operands that result k depends on: how many, and, where not NULL, their ids and the partial derivatives. */
    fg_id (*operands)(fg_callee *c, const fg_tape *t, fg_record *r, fg_id k, fg_id *ids, double *partials);
    /* Whether gradients flow to segment k. */
    int (*wants)(const fg_callee *c, fg_id k);
    /* Of a forward step that has failed: the opcode of the row, its operands' data in x, its immediate, its status. Of
     * FG_TAKE the position in x[0], and as immediate how many there are. */
    int (*fault)(const fg_callee *c, double x[3], int32_t *k, int *status);
    /* All that it takes, in bytes. */
    size_t (*bytes)(const fg_callee *c);
    void (*free)(fg_callee *c);
    /* The same once more, which shares nothing that is written to, nor does what it calls; they ask `stop`. Nobody
     * holds it. *fail_after: as in fg_mem. FG_OK, or what else fg_program_copy_alone() returns. NULL: there is none. */
    int (*copy)(const fg_callee *c, int (*stop)(void), int64_t *fail_after, fg_callee **made);
} fg_callee_steps;

/* Slots or numbers in a row. */
typedef struct fg_stretch {
    fg_id first, count;
} fg_stretch;

struct fg_callee {
    const fg_callee_steps *steps;
    fg_id holders; /* entries in the programs of tapes that have it; it is freed with the last */
    void *owner;   /* the caller's own object for it, or NULL */
    fg_stretch *segments; /* [n_segments] of its operands, a view of a call for each */
    fg_id n_segments;
    fg_id n_results;
};

/* Slots of a body whose numbers are another tape's, during a call: of the view that names this place slot i has its
 * number at data[i - first], where data is not NULL, and its gradient and opcode likewise where grad is not NULL. */
typedef struct fg_outside {
    fg_id first;
    int constant; /* nobody wants the gradients */
    double *data, *grad;
    const uint8_t *op;
} fg_outside;

/* One of the programs that a tape calls. */
typedef struct fg_called {
    fg_callee *callee; /* NULL: the place is free */
    fg_id count;       /* how many FG_CALL nodes and others hold it; it is let go with the last */
} fg_called;

struct fg_tape {
    fg_id n;        /* slots in use: 0 (the sentinel) to n - 1 */
    fg_id room;     /* fg_tape_push may take n up to this: min(capacity, collect_at, limit) */
    fg_id capacity; /* elements in each of the arrays that follow */
    fg_id limit;    /* neither n nor npool passes this: FG_MAX_ID, or less in a test */
    fg_id npool;    /* operand ids in use in the pool */

    uint8_t *op;    /* [capacity] fg_op, with FG_HOOK added where the caller runs the backward rule */
    fg_args *args;  /* [capacity] */
    double *data;   /* [capacity] */
    double *grad;   /* [capacity] */
    fg_id **owner;  /* [capacity] NULL: nobody holds the node. Else where its holder keeps the id
                       (renumbering writes there), or an fg_box with the lowest bit set */
    fg_marks marks; /* for collection, and whoever needs a set of nodes within one call; else all clear */
    fg_id *rank;    /* [FG_MARKS_WORDS(capacity)] collection: marks in all the words before */
    fg_id *pool;    /* [pool_capacity] operand ids of pooled nodes and records of block nodes, in node
                       order */
    fg_id pool_capacity;
    double *scratch;  /* [scratch_capacity] for one forward or reverse step of a block instruction */
    size_t scratch_capacity; /* enough for every instruction on the tape */
    const fg_kernels *kernels;

    fg_id collect_at;      /* collect when n or ... */
    fg_id pool_collect_at; /* ... npool would pass this: twice what the last collection left, and some */
    fg_id collect_floor;   /* never with fewer nodes than this; 0: at every chance, for tests */
    fg_id pass_at;         /* with fewer nodes fg_tape_pass does nothing, for it has found little to collect */
    fg_id idle;            /* pops in a row that found the tape far too large */
    int peaks;             /* after so many more, within this second, memory goes back at once */
    time_t refilled;       /* when that grew, by one each second */
    int busy;              /* how many callers hold ids: no popping, no collection, ids stay */
    fg_sweep *sweeps;      /* those under way, one within another's rule, or of several threads */
    fg_sweep *spare;       /* those that are over, for the next */
    int (*stop)(void);     /* asked between the blocks of a long instruction; NULL: never to stop */
    fg_id boxes;           /* how many nodes have one */
    fg_box *dead;          /* boxes of nodes that are gone, for the caller to dispose of */
    uint64_t collections;  /* how many there have been */
    fg_id sentinel;        /* what owner[0] points to: id 0 is always held, so popping stops there */
    fg_called *programs;   /* [n_programs] */
    fg_id n_programs;      /* 0 while there are none, and nobody has to look for their calls */
    fg_id free_program;    /* no place below is free */
    uint64_t writes;       /* at least how often data of nodes that there were have been assigned to, which its owner
                              counts, or nodes have got other ids; 0: nobody counts, as in the body of a program */
    uint32_t *origin;      /* [capacity] the caller's own number for each node, which moves with the node; NULL: none is
                              kept. That of a new node is whatever was there until the caller writes it. */
    const fg_outside *outside; /* of the body of a program during a call, what is not its own; else NULL */
    fg_mem mem;
};

/* FG_OK, or FG_E_MEMORY with the tape freed. */
int fg_tape_init(fg_tape *t, const fg_kernels *kernels);
void fg_tape_free(fg_tape *t);

/* A tape with room for so many nodes, the sentinel apart, and operands, that will not grow, pop or collect: the body of
 * a program. It goes on counting where *mem is. FG_OK, or FG_E_MEMORY with the tape freed. */
int fg_tape_init_closed(fg_tape *t, const fg_kernels *kernels, const fg_mem *mem, fg_id nodes, fg_id operands);

/* Hold a callee: its place in t->programs, for FG_CALL's param, or FG_E_MEMORY. Places stay. */
int64_t fg_tape_hold_program(fg_tape *t, fg_callee *c);

/* One that holds it does so no more. */
void fg_tape_release_program(fg_tape *t, fg_id place);

/* Make room for `nodes` more nodes and `operands` more pool entries, by collecting or growing.
 * Ids may change, so read them afterwards. On an error nothing has changed but ids. */
int fg_tape_reserve(fg_tape *t, fg_id nodes, fg_id operands);

/* Append a node; returns its id. Preconditions: room, operand ids < n. */
static inline fg_id fg_tape_push(fg_tape *t, int op, fg_id a, fg_id b, double data)
{
    const fg_id i = t->n;
    assert(i < t->room);
    t->op[i] = (uint8_t)op;
    t->args[i].a = a;
    t->args[i].b = b;
    t->data[i] = data;
    t->grad[i] = 0.0;
    t->owner[i] = NULL;
    t->n = i + 1;
    return i;
}

static inline fg_id fg_tape_push_leaf(fg_tape *t, double data)
{
    return fg_tape_push(t, FG_LEAF, 0, 0, data);
}

/* Append `count` leaves, whose data the caller writes; returns the first one's id. Precondition: room. */
fg_id fg_tape_push_leaves(fg_tape *t, fg_id count);

/* Append the node that keeps the `count` leaves on top together; returns its id. Precondition: room. */
fg_id fg_tape_push_run(fg_tape *t, fg_id count);

/* Append `count` results and the node of the block instruction that they are of, or, with 0, that node
 * alone. The record is where the pool ends, complete; the results' data is in place. Returns the
 * instruction's id. Precondition: room. */
fg_id fg_tape_push_block(fg_tape *t, int op, fg_id count);

/* Turn the results of the node on top into leaves that begin at n, and drop whatever else is there from
 * n on; the pool ends at npool again. Returns the leaf, or of several results the run above them.
 * Precondition: nobody holds any node from n on. */
fg_id fg_tape_forget(fg_tape *t, fg_id n, fg_id npool);

/* Keep a number for each node in t->origin, 0 at first, or no longer. FG_OK or FG_E_MEMORY. */
int fg_tape_trace(fg_tape *t, int on);

/* Make the scratch memory at least so large. FG_OK or FG_E_MEMORY. */
int fg_tape_scratch(fg_tape *t, size_t doubles);

/* Append a pooled node with `count` operands; `partials` is read for FG_LOCAL alone.
 * Preconditions: room for it and for fg_op_pool_size() entries in the pool, operand ids < n. */
fg_id fg_tape_push_pooled(fg_tape *t, int op, const fg_id *operands, fg_id count,
                          const double *partials, double data);

/* A node's opcode. */
static inline int fg_tape_op(const fg_tape *t, fg_id i)
{
    return t->op[i] & ~FG_HOOK;
}

/* From now on a sweep stops at node i for its caller to run the backward rule, or no longer does. A
 * block instruction of several results keeps the mark if any of them ever had a hook. */
static inline void fg_tape_set_hook(fg_tape *t, fg_id i, int on)
{
    t->op[i] = (uint8_t)(fg_tape_op(t, i) | (on ? FG_HOOK : 0));
    if (on && fg_tape_op(t, i) == FG_PART)
        t->op[i + t->args[i].a] |= FG_HOOK;
}

/* Where leaf i's gradient is, and of frozen leaves in a row those of the others follow. */
static inline double *fg_tape_gradient(const fg_tape *t, fg_id i)
{
    return fg_tape_op(t, i) == FG_FROZEN ? (double *)(void *)(t->args + i) : t->grad + i;
}

/* From now on leaf i takes no gradient from sweeps (or again does) and keeps the one that it has. */
void fg_tape_freeze(fg_tape *t, fg_id i, int on);

/* The record of block node i. Valid until the tape changes. */
static inline fg_record *fg_tape_record(const fg_tape *t, fg_id i)
{
    assert(fg_op_is_block(fg_tape_op(t, i)));
    return (fg_record *)(void *)(t->pool + t->args[i].a);
}

/* What an FG_CALL with that record runs. */
static inline fg_callee *fg_tape_callee(const fg_tape *t, const fg_record *r)
{
    return t->programs[r->param].callee;
}

/* Where a node without a record keeps the ids of its operands, and how many; none if it has none of its own. Valid
 * until the tape changes. */
static inline fg_id *fg_tape_operands(const fg_tape *t, fg_id i, fg_id *count)
{
    static_assert(sizeof(fg_args) == 2 * sizeof(fg_id), "inline operands are a list of ids");
    fg_args *const args = t->args + i;
    const int op = fg_tape_op(t, i);
    if (fg_op_is_pooled(op)) {
        *count = args->b;
        return t->pool + args->a;
    }
    *count = fg_op_is_inline(op) ? (fg_id)fg_op_inline_arity(op) : 0;
    return (fg_id *)(void *)args;
}

/* The operands of a node as views, however it keeps them. Valid until the tape changes, and not to be copied. */
typedef struct fg_operands {
    fg_id count;   /* views */
    fg_view *view; /* [count] those of the record; else `list` */
    fg_id *words;  /* where the ids of lists are counted from: the record; else what fg_tape_operands() returns */
    fg_view list;  /* of a node without a record */
} fg_operands;

/* None of a leaf, of a run, and of a part, whose instruction has them. */
void fg_tape_views(const fg_tape *t, fg_id i, fg_operands *o);

static inline int fg_owner_is_box(const fg_id *owner)
{
    return (int)((uintptr_t)owner & 1u);
}

static inline fg_box *fg_owner_box(const fg_id *owner)
{
    return (fg_box *)((uintptr_t)owner - 1u);
}

/* The address where the node's holder keeps the id, or NULL. */
static inline fg_id *fg_tape_holder(const fg_tape *t, fg_id i)
{
    fg_id *owner = t->owner[i];
    return fg_owner_is_box(owner) ? fg_owner_box(owner)->holder : owner;
}

/* From now on `holder` (NULL: nobody) holds node i. */
static inline void fg_tape_hold(fg_tape *t, fg_id i, fg_id *holder)
{
    if (FG_UNLIKELY(fg_owner_is_box(t->owner[i])))
        fg_owner_box(t->owner[i])->holder = holder;
    else
        t->owner[i] = holder;
}

/* The node's box, made if it has none; NULL if memory is short, and then nothing has changed. */
fg_box *fg_tape_box(fg_tape *t, fg_id i);

/* Free a box taken from t->dead, whose `extra` the caller has disposed of. */
void fg_tape_box_free(fg_tape *t, fg_box *box);

/* Drop the nodes at the top that nobody holds, down to where a sweep under way needs them. */
void fg_tape_pop(fg_tape *t);

/* Give memory back that the nodes on the tape have no need of, as far as that is much. Ids stay. */
void fg_tape_shrink(fg_tape *t);

/* Node i, a run's or a block instruction's that is not on top, is held no more. Collects if a large graph is below it
 * and little above, none of which has use for it: it would otherwise stay until the tape has doubled. */
void fg_tape_pass(fg_tape *t, fg_id i);

/* Begin to keep the nodes that a new sweep over ids below `end` marks; NULL if memory is short. */
fg_sweep *fg_tape_sweep_begin(fg_tape *t, fg_id end);

/* Before anything else is done with the tape while a sweep under way pauses: its marks have changed. */
void fg_tape_sweep_pause(const fg_tape *t, fg_sweep *s);

/* It is over, and its marks are all clear. */
void fg_tape_sweep_end(fg_tape *t, fg_sweep *s);

/* Drop every node that neither a holder nor a living node needs, slide the rest down, tell the
 * holders and the sweeps under way. Returns how many went. Cannot fail. Does nothing while ids are held. */
fg_id fg_tape_collect(fg_tape *t);

/* For callers that have to know what a collection would keep: mark the nodes that are held, that a sweep under way
 * has to visit, or that one of these needs (fg_tape_is_marked tells), and clear the marks again. Nothing may come between but
 * reading, and changing who holds what. */
void fg_tape_mark_living(fg_tape *t);
void fg_tape_clear_marks(fg_tape *t);

static inline int fg_tape_is_marked(const fg_tape *t, fg_id i)
{
    return fg_marks_has(&t->marks, i);
}

/* Whether every invariant of the structure holds; for tests and assertions. */
int fg_tape_check(const fg_tape *t);

#endif
