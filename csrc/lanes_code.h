/* lanes_code.h: a step of a scan as code for lanes: lists of kernels' operations, forward and back.
 *
 * Whatever the step depends on is in lanes, also what is the same for all samples. Numbers that a reverse step reads
 * are in a row, of which each step has one; all others are in slots that each step uses again. What depends neither on
 * the carry nor on x is computed once, before the first step.
 *
 * It promises the operations of the step in their order, rounded as they are there; gradients are added up in another
 * order. It leaves to lanes_scan.c where rows are, and how steps follow each other.
 */
#ifndef FG_LANES_CODE_H
#define FG_LANES_CODE_H

#include "scan.h"

/* What places are counted from, in slots of as many doubles as there are lanes. */
enum {
    FG_CODE_FIXED, /* numbers that every step finds or puts in the same place, and gradients */
    FG_CODE_ROW,   /* this step's row */
    FG_CODE_AFTER, /* the row of the next */
    FG_CODE_CARRY, /* the carry of this step, as far as no row has it */
    FG_CODE_NEXT   /* and of the next */
};

typedef struct fg_place {
    uint32_t base, slot;
} fg_place;

#define FG_NOWHERE UINT32_MAX

typedef struct fg_code_value fg_code_value;

/* What goes back over a step, from some of its results. */
typedef struct fg_code_back {
    uint8_t *wanted;  /* [n_carry + n_outputs] the results */
    uint8_t *flows;   /* [n_carry] whether a gradient flows to the carry */
    uint8_t *touched; /* [n_values] and to values that are the same for all steps */
    uint32_t *x;      /* [n_x] the slot with the gradient of x; FG_NOWHERE */
    fg_lane_code *code;
    size_t count;
    int made;
} fg_code_back;

enum { FG_CODE_BACKS = 3 };

typedef struct fg_code {
    fg_mem *mem;
    const fg_scan *scan;
    fg_code_value *values; /* [room] the operands of the step, and then in order what it computes */
    uint32_t n_values, room;
    uint32_t *of_node;     /* [n_nodes] the value of a node of the step */
    size_t n_nodes;
    size_t lanes;          /* 0 before fg_code_set_lanes() */
    uint32_t width;        /* slots of a row */
    uint32_t pairs;        /* slots of the carry that are in no row, of a step */
    uint32_t fixed;        /* fixed slots */
    uint32_t first_sum, n_sums; /* fixed slots where gradients are added up over all steps */
    uint32_t dnext;        /* the first of n_carry fixed slots: gradients of the next carry, and then of the carry */
    uint32_t dout;         /* of n_outputs: of the outputs */
    uint32_t temporary;    /* and the first of those that the reverse steps share */
    fg_place *carry;       /* [n_carry] where a step finds it */
    fg_place *next;        /* [n_carry] and where it leaves the next */
    fg_lane_code *before, *forward; /* [n_before], [n_forward] */
    size_t n_before, n_forward, most_back;
    fg_code_back back[FG_CODE_BACKS];
    uint32_t turn;         /* which of them is replaced next */
    fg_lane_code *after;   /* [n_before * 6 + 1] the way back over what is computed before the first step */
    uint32_t *spare;       /* [2 * n_values + 1] temporary slots that nobody uses */
    uint32_t n_spare;
    uint8_t *dnext_taken;  /* [n_carry] scratch */
} fg_code;

/* wanted, varies: for each operand of the scan, from element 1 on, whether its gradient is wanted, and whether it is
 * another number in each lane. FG_OK; FG_E_MEMORY; or
 * FG_CODE_NONE for a step with instructions that there is no code for. In any case *made is to be freed, unless it is
 * NULL. */
int fg_code_make(fg_code **made, const fg_scan *scan, fg_mem *mem, const uint8_t *wanted, const uint8_t *varies);

enum { FG_CODE_NONE = 1 };

/* Once, before what follows. FG_OK or FG_E_MEMORY. */
int fg_code_set_lanes(fg_code *c, size_t lanes);

void fg_code_free(fg_code *c);

/* Where a step leaves result k, carry first; a carry also where c->next says. */
fg_place fg_code_result(const fg_code *c, fg_id k);

/* Where an operand of the step has its number; and the slot of its gradient, or FG_NOWHERE, of operands that are the
 * same at each step. */
fg_place fg_code_operand(const fg_code *c, fg_id node);
uint32_t fg_code_sum(const fg_code *c, fg_id node);

/* Write the numbers of constants. */
void fg_code_put_numbers(const fg_code *c, double *fixed);

/* The way back from these results; those that are wanted, carry first. Valid until the next call but one. */
fg_code_back *fg_code_find_back(fg_code *c, const uint8_t *wanted);

/* Of what is computed before the first step and has a gradient, by `touched`, [n_values], to what it is computed from:
 * into c->after; returns how many. */
size_t fg_code_find_after(fg_code *c, uint8_t *touched);

/* Whether an operand of the step has been touched. */
int fg_code_is_touched(const fg_code *c, const uint8_t *touched, fg_id node);

#endif
