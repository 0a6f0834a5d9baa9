/* scan.c: see scan.h. The order here: forward, plans, reverse, which operands results depend on, making one. */
#include "scan.h"

#include <math.h>
#include <string.h>

#include "calls.h"

enum {
    ALL_ROWS = 1 << 19,      /* numbers: if all steps need no more than that, they are one stretch */
    STRETCH_ROWS = 1 << 15,  /* numbers of a stretch otherwise, or as many as keep memory least */
    NODES = 1 << 16          /* computed between two questions whether to stop */
};

static fg_scan *scan_of(fg_callee *c)
{
    return (fg_scan *)(void *)c; /* its first member */
}

/* The first node of a step that is no operand. */
static fg_id first_of(const fg_program *p)
{
    return p->area + (p->area > 0) + 1;
}

static fg_id place_of(const fg_scan *s, fg_id step)
{
    return s->backwards ? s->length - 1 - step : step;
}

/* Asked after each step: now and then it is time to ask whether to stop. */
static int wants_stop(fg_scan *s)
{
    int (*const stop)(void) = s->step->body.stop;
    if (s->steps_left-- > 0)
        return 0;
    s->steps_left = s->long_steps ? 0 : NODES / s->step->body.n;
    return stop && stop();
}

/* ---- numbers of a step ---- */

/* Those of nodes that are computed, to a row or back. */
static void move_computed(const fg_scan *s, double *data, double *row, int back)
{
    for (fg_id k = 0; k < s->n_ranges; k++) {
        const fg_stretch range = s->ranges[k];
        memcpy(back ? data + range.first : row, back ? row : data + range.first, range.count * sizeof *row);
        row += range.count;
    }
}

static void take_x(fg_scan *s, fg_id step, double *to, const double *from)
{
    fg_program *const p = s->step;
    const fg_id at = place_of(s, step);
    for (fg_id k = s->carries; k < s->carries + s->xs; k++) {
        const fg_stretch x = p->callee.segments[k];
        const double *const xs = from + s->callee.segments[k].first + (size_t)at * x.count;
        for (fg_id j = 0; j < x.count; j++)
            to[x.first + j] = xs[j];
    }
}

static void give_x(fg_scan *s, fg_id step)
{
    fg_program *const p = s->step;
    const fg_id at = place_of(s, step);
    for (fg_id k = s->carries; k < s->carries + s->xs; k++) {
        const fg_stretch x = p->callee.segments[k];
        double *const xs = s->grad + s->callee.segments[k].first + (size_t)at * x.count;
        for (fg_id j = 0; j < x.count; j++)
            xs[j] = p->body.grad[x.first + j];
    }
}

static void take_x_ops(fg_scan *s, fg_id step)
{
    fg_program *const p = s->step;
    const fg_id at = place_of(s, step);
    for (fg_id k = s->carries; k < s->carries + s->xs; k++) {
        const fg_stretch x = p->callee.segments[k];
        memcpy(p->body.op + x.first, s->op + s->callee.segments[k].first + (size_t)at * x.count, x.count);
    }
}

/* Numbers that are the same at each step, from the scan's places to the step's, or back. */
static void move_same(fg_scan *s, double *scan, double *step, int back)
{
    for (fg_id k = s->carries + s->xs; k < s->callee.n_segments; k++) {
        double *const of_scan = scan + s->callee.segments[k].first;
        double *const of_step = step + s->step->callee.segments[k].first;
        memcpy(back ? of_scan : of_step, back ? of_step : of_scan, s->callee.segments[k].count * sizeof *scan);
    }
}

/* ---- forward ---- */

/* Compute the steps of stretch k from the carry that it begins with, and leave the carry that it ends with in the
 * step's body; outputs to z, if not NULL. */
static int run_stretch(fg_scan *s, fg_id k, int lenient, double *z)
{
    fg_program *const p = s->step;
    double *const data = p->body.data, *row = s->rows;
    const fg_id n_carry = s->n_carry;
    const fg_id begin = k * s->every;
    const fg_id end = s->length - begin < s->every ? s->length : begin + s->every;
    const fg_id *const results = p->results;
    s->kept = s->stretches;
    memcpy(data + 1, s->starts + (size_t)k * n_carry, n_carry * sizeof *data);
    for (fg_id step = begin; step < end; step++, row += s->width) {
        take_x(s, step, data, s->data);
        const int status = fg_program_run(p, lenient);
        if (status != FG_OK) {
            s->at = step;
            return status;
        }
        for (fg_id c = 0; c < n_carry; c++) {
            row[c] = data[1 + c];
            s->next[c] = data[results[c]];
        }
        move_computed(s, data, row + n_carry, 0);
        for (fg_id c = 0; c < n_carry; c++)
            data[1 + c] = s->next[c];
        if (z)
            for (fg_id j = 0; j < s->n_outputs; j++) {
                const fg_id i = results[n_carry + j]; /* a carry has changed */
                z[s->base[j] + (size_t)place_of(s, step) * s->jump[j]] = i - 1 < n_carry ? row[i - 1] : data[i];
            }
        if (wants_stop(s))
            return FG_E_INTERRUPTED;
    }
    s->kept = k;
    return FG_OK;
}

/* Compute all steps, from the data of the operands; results to z, if not NULL. */
static int run(fg_scan *s, int lenient, double *z)
{
    fg_program *const p = s->step;
    double *const data = p->body.data;
    s->ready = 0;
    move_same(s, s->data, data, 0);
    for (fg_id c = 0; c < s->n_carry; c++)
        data[1 + c] = s->data[1 + c];
    for (fg_id k = 0; k < s->stretches; k++) {
        memcpy(s->starts + (size_t)k * s->n_carry, data + 1, s->n_carry * sizeof *data);
        const int status = run_stretch(s, k, lenient, z);
        p->ready = 0; /* it has other operands */
        if (status != FG_OK)
            return status;
    }
    for (fg_id c = 0; z && c < s->n_carry; c++)
        z[c] = data[1 + c];
    s->ready = 1;
    return FG_OK;
}

/* z (1, n_results), from as many views as there are segments. The record may still be on its way to the tape. */
static int forward(fg_callee *c, const fg_slots *t, fg_record *r, double *z)
{
    fg_scan *const s = scan_of(c);
    assert(r->views == c->n_segments && r->rows * r->cols == c->n_results);
    (void)fg_call_take_data(c, t, r, s->data);
    const int status = run(s, t->lenient, z);
    if (status == FG_OK)
        fg_call_find_twice(t, r);
    return status;
}

/* ---- plans ---- */

/* Enter block instruction `block`, of whose results those below `end` may be marked, into the plan. */
static void plan_block(fg_tape *t, fg_marks *marks, fg_plan *plan, fg_id block, fg_id end)
{
    const fg_id count = t->args[block].b, first = block - count;
    const int may = fg_tape_op(t, block) == FG_TAKE && !plan->exact;
    const fg_which which = may ? FG_FLOWN_TO : FG_VISITED;
    uint64_t *const aside = t->marks.word;
    fg_id found = 0;
    if (count == 0) {
        fg_bits_put(plan->seen, block);
        plan->nodes[plan->count++] = block;
        fg_block_mark_operands(t, block, marks, which);
        return;
    }
    for (fg_id w = first >> 6; w <= (end - 1) >> 6; w++) {
        const uint64_t marked = marks->word[w] & fg_marks_mask(w, first, end);
        plan->seen[w] |= marked;
        marks->word[w] &= ~marked;
        aside[w] = marked;
        found += fg_bits_count(marked);
    }
    plan->nodes[plan->count++] = found == count ? block : end - 1;
    if (found == count || may)
        fg_block_mark_operands(t, block, marks, which);
    else
        fg_block_mark_reached(t, block, marks);
    for (fg_id w = first >> 6; w <= (end - 1) >> 6; w++)
        aside[w] = 0;
}

/* Fill in the plan for s->wanted; an exact one for the numbers in the body. For its time the operands are no leaves, so
 * that they are marked as the results of the step before are on a tape. */
static void make_plan(fg_scan *s, fg_plan *plan, int exact)
{
    fg_program *const p = s->step;
    fg_tape *const t = &p->body;
    const fg_id n_results = s->n_carry + s->n_outputs;
    fg_sweep *const sweep = fg_tape_sweep_begin(t, t->n);
    fg_marks *const marks = &sweep->marks;
    assert(sweep != NULL); /* there is always the one that was made with the program */
    memcpy(plan->wanted, s->wanted, n_results);
    memset(plan->seen, 0, FG_MARKS_WORDS(t->n) * sizeof *plan->seen);
    plan->count = 0;
    plan->made = 1;
    plan->exact = exact;
    memset(t->op + 1, FG_CUSTOM, p->area);
    marks->lowest = marks->highest = t->n >> 12;
    for (fg_id k = 0; k < n_results; k++)
        if (s->wanted[k])
            fg_marks_add(marks, p->results[k]);
    for (fg_id i = t->n; i-- > p->area + 1;) {
        const int op = t->op[i];
        if (!fg_marks_has(marks, i))
            continue;
        if (op == FG_PART || fg_op_is_block(op)) {
            const fg_id block = op == FG_PART ? i + t->args[i].a : i;
            plan_block(t, marks, plan, block, i + 1);
            continue;
        }
        fg_bits_put(plan->seen, i);
        if (fg_op_is_leaf(op))
            continue;
        fg_id count;
        const fg_id *const ids = fg_tape_operands(t, i, &count);
        for (fg_id k = 0; k < count; k++)
            fg_marks_add(marks, ids[k]);
        plan->nodes[plan->count++] = i;
    }
    for (fg_id i = 1; i <= p->area; i++)
        if (fg_marks_has(marks, i))
            fg_bits_put(plan->seen, i);
    memset(t->op + 1, FG_LEAF, p->area);
    memset(marks->word, 0, FG_MARKS_WORDS(t->n) * sizeof *marks->word);
    memset(marks->summary, 0, FG_MARKS_WORDS(FG_MARKS_WORDS(t->n)) * sizeof *marks->summary);
    fg_tape_sweep_end(t, sweep);
}

/* The results of a call that a sweep begins with: all; those with a bit in `reached`, the first of which is in slot
 * `first`; or a single one. */
typedef struct asked {
    const uint64_t *reached; /* or NULL */
    fg_id first;
    fg_id single;            /* its number; n_results: it is none */
    const double *dz;        /* [n_results] gradients; of a single one it is 1 */
} asked;

static int is_reached(const asked *of, fg_id i)
{
    return of->reached ? fg_bits_has(of->reached, of->first + i) : of->dz != NULL || i == of->single;
}

static double seed_of(const asked *of, fg_id i, fg_id n_results)
{
    return of->single < n_results ? 1.0 : of->dz[i];
}

/* Whether those outputs are reached at one step that a plan begins with. */
static int is_alike(const fg_scan *s, const asked *of, fg_id at, const fg_plan *plan)
{
    for (fg_id j = 0; j < s->n_outputs; j++)
        if (plan->wanted[s->n_carry + j] != is_reached(of, s->base[j] + at * s->jump[j]))
            return 0;
    return 1;
}

/* The plan of a step, with the plan of the step after; NULL: it is the last. */
static fg_plan *find_plan(fg_scan *s, const asked *of, fg_id step, const fg_plan *after, int exact)
{
    const fg_id n_results = s->n_carry + s->n_outputs, at = place_of(s, step);
    for (fg_id c = 0; c < s->n_carry; c++)
        s->wanted[c] = (uint8_t)(after ? fg_bits_has(after->seen, 1 + c) : is_reached(of, c));
    for (fg_id j = 0; j < s->n_outputs; j++) {
        const int reached = is_reached(of, s->base[j] + at * s->jump[j]);
        s->wanted[s->n_carry + j] = (uint8_t)reached;
        if (reached && s->twin[j])
            s->wanted[s->twin[j] - 1] = 1;
    }
    for (fg_id k = 0; k < FG_SCAN_PLANS; k++)
        if (!exact && s->plans[k].made && !s->plans[k].exact && memcmp(s->plans[k].wanted, s->wanted, n_results) == 0)
            return &s->plans[k];
    if (&s->plans[s->turn] == after)
        s->turn = (s->turn + 1) % FG_SCAN_PLANS;
    fg_plan *const plan = &s->plans[s->turn];
    s->turn = (s->turn + 1) % FG_SCAN_PLANS;
    for (fg_id k = 0; k < FG_SCAN_PLANS; k++)
        s->plans[k].before = NULL;
    make_plan(s, plan, exact);
    return plan;
}

/* The same, and mostly known by the plan after. exact: for the step's numbers, which are in the body. */
static fg_plan *plan_of(fg_scan *s, const asked *of, fg_id step, fg_plan *after, int exact)
{
    const int alike = !exact && after && is_alike(s, of, place_of(s, step), after);
    if (FG_LIKELY(alike && after->before))
        return after->before;
    fg_plan *const plan = find_plan(s, of, step, after, exact);
    if (alike)
        after->before = plan;
    return plan;
}

/* ---- reverse ---- */

/* Outputs that are also the next carry: their gradients come first into the carry's, as those of users that are higher
 * on a tape do, the last output before the others. */
static void add_twins(const fg_scan *s, const asked *of, fg_id step, double *dcarry)
{
    const fg_id at = place_of(s, step);
    for (fg_id j = s->n_outputs; j-- > 0;) {
        const fg_id i = s->base[j] + at * s->jump[j];
        if (s->twin[j] && is_reached(of, i))
            dcarry[s->twin[j] - 1] += seed_of(of, i, s->callee.n_results);
    }
}

/* The numbers of a step of the stretch that is kept, back into the body. */
static void restore(fg_scan *s, fg_id step)
{
    double *const data = s->step->body.data;
    double *const row = s->rows + (size_t)(step % s->every) * s->width;
    for (fg_id c = 0; c < s->n_carry; c++)
        data[1 + c] = row[c];
    take_x(s, step, data, s->data);
    move_computed(s, data, row + s->n_carry, 1);
    if (s->n_taking > 0) {
        fg_tape *const t = &s->step->body;
        fg_slots slots = fg_slots_of(t);
        slots.lenient = 1;
        for (fg_id k = 0, at; k < s->n_taking; k++) { /* for the positions */
            const fg_id i = s->taking[k];
            (void)fg_block_forward(&slots, FG_TAKE, fg_tape_record(t, i), i - t->args[i].b, &at);
        }
    }
}

/* Of one step, whose numbers are in the body: s->dnext has the gradients of the next carry, and then those of its own. */
static int reverse_step(fg_scan *s, const asked *of, fg_id step, const fg_plan *plan)
{
    fg_program *const p = s->step;
    fg_tape *const t = &p->body;
    double *const grad = t->grad, *const dcarry = grad + 1;
    const fg_id n_carry = s->n_carry;
    for (fg_id c = 0; c < n_carry; c++)
        dcarry[c] = step > 0 ? 0.0 : s->grad[1 + c];
    if (step > 0)
        add_twins(s, of, step - 1, dcarry);
    else
        memcpy(t->op + 1, s->op + 1, n_carry);
    take_x(s, step, grad, s->grad);
    take_x_ops(s, step);
    for (fg_id k = 0; k < s->n_ranges; k++) /* constants' gradients may be anything */
        memset(grad + s->ranges[k].first, 0, s->ranges[k].count * sizeof *grad);
    for (fg_id j = s->n_outputs; j-- > 0;)
        if (plan->wanted[n_carry + j] && !s->twin[j])
            grad[p->results[n_carry + j]] += seed_of(of, s->base[j] + place_of(s, step) * s->jump[j],
                                                     s->callee.n_results);
    for (fg_id c = 0; c < n_carry; c++)
        if (plan->wanted[c])
            grad[p->results[c]] += s->dnext[c];
    const int status = fg_sweep_replay(t, plan->nodes, plan->count, plan->seen);
    give_x(s, step);
    for (fg_id c = 0; c < n_carry; c++)
        s->dnext[c] = dcarry[c];
    return status;
}

/* Add to the gradients in s->grad. FG_OK or FG_E_INTERRUPTED. */
static int sweep(fg_scan *s, const asked *of)
{
    fg_program *const p = s->step;
    fg_plan *plan = NULL;
    int status = FG_OK;
    p->ready = 0;
    move_same(s, s->data, p->body.data, 0);
    move_same(s, s->grad, p->body.grad, 0);
    memset(p->body.op + 1, FG_LEAF, p->area);
    for (fg_id c = 0; c < s->n_carry; c++)
        s->dnext[c] = is_reached(of, c) ? seed_of(of, c, s->callee.n_results) : 0.0;
    add_twins(s, of, s->length - 1, s->dnext);
    for (fg_id step = s->length; step-- > 0 && status == FG_OK;) {
        if (s->kept != step / s->every) {
            status = run_stretch(s, step / s->every, 1, NULL);
            p->ready = 0;
        }
        if (status != FG_OK)
            break;
        fg_plan *const after = plan;
        restore(s, step);
        plan = plan_of(s, of, step, after, s->n_taking > 0);
        if (plan != after) /* a plan that has just been made leaves leaves */
            for (fg_id k = s->carries + s->xs; k < s->callee.n_segments; k++)
                memcpy(p->body.op + p->callee.segments[k].first, s->op + s->callee.segments[k].first,
                       s->callee.segments[k].count);
        status = reverse_step(s, of, step, plan);
        status = status == FG_OK && wants_stop(s) ? FG_E_INTERRUPTED : status;
    }
    memset(p->body.op + 1, FG_LEAF, p->area);
    if (status != FG_OK)
        return status;
    move_same(s, s->grad, p->body.grad, 1);
    for (fg_id c = 0; c < s->n_carry; c++)
        s->grad[1 + c] = s->dnext[c];
    return FG_OK;
}

/* What is kept follows from the operands' present data. FG_OK or FG_E_INTERRUPTED. */
static int get_ready(fg_scan *s, const fg_slots *t, fg_record *r)
{
    const int other = fg_call_take_data(&s->callee, t, r, s->data);
    return other || !s->ready ? run(s, 1, NULL) : FG_OK;
}

static int reverse(fg_callee *c, const fg_slots *t, fg_record *r, fg_id first, const uint64_t *reached)
{
    fg_scan *const s = scan_of(c);
    const asked of = {reached, first, c->n_results, t->grad + first};
    int status = get_ready(s, t, r);
    if (status != FG_OK)
        return status;
    fg_call_take_gradients(c, t, r, s->grad, s->op, 0, NULL);
    status = sweep(s, &of);
    if (status == FG_OK)
        fg_call_give_gradients(c, t, r, s->grad, NULL);
    return status;
}

/* ---- which operands gradients flow to ---- */

/* Enter the operands that gradients of some results flow to into `bits`; x only if `with_x`. */
static void find_reached(fg_scan *s, const asked *of, int with_x, uint64_t *bits)
{
    const fg_program *const p = s->step;
    fg_plan *plan = NULL;
    memset(bits, 0, FG_MARKS_WORDS((size_t)s->area + 1) * sizeof *bits);
    for (fg_id step = s->length; step-- > 0;) {
        fg_plan *const after = plan;
        plan = plan_of(s, of, step, after, 0);
        if (plan == after && !with_x && !of->reached && of->dz)
            break; /* all results: the steps before are alike */
        if (plan != after)
            for (fg_id k = s->carries + s->xs; k < s->callee.n_segments; k++)
                for (fg_id e = 0; e < s->callee.segments[k].count; e++)
                    if (fg_bits_has(plan->seen, p->callee.segments[k].first + e))
                        fg_bits_put(bits, s->callee.segments[k].first + e);
        for (fg_id k = s->carries; with_x && k < s->carries + s->xs; k++)
            for (fg_id e = 0; e < p->callee.segments[k].count; e++)
                if (fg_bits_has(plan->seen, p->callee.segments[k].first + e))
                    fg_bits_put(bits, s->callee.segments[k].first + place_of(s, step) * p->callee.segments[k].count
                                          + e);
    }
    assert(plan); /* there is a step */
    for (fg_id c = 0; c < s->n_carry; c++)
        if (fg_bits_has(plan->seen, 1 + c))
            fg_bits_put(bits, 1 + c);
}

static int wants(const fg_callee *c, fg_id k)
{
    return fg_call_wants(c, ((const fg_scan *)(const void *)c)->used, k);
}

static void mark(fg_callee *c, const fg_tape *t, fg_record *r, fg_id first, int all, fg_marks *marks, int leaves)
{
    fg_scan *const s = scan_of(c);
    const uint64_t *bits = s->used;
    if (!all) {
        const asked of = {t->marks.word, first, c->n_results, t->grad + first};
        int with_x = 0;
        for (fg_id v = s->carries; v < s->carries + s->xs; v++)
            with_x |= leaves ? !(fg_record_view(r, v)->flags & FG_VIEW_CONSTANT)
                             : !fg_call_has_leaves_alone(t, fg_record_view(r, v));
        find_reached(s, &of, with_x, s->reached);
        bits = s->reached;
    }
    fg_call_mark(c, t, bits, r, marks, leaves);
}

static fg_id operands(fg_callee *c, const fg_tape *t, fg_record *r, fg_id k, fg_id *ids, double *partials)
{
    fg_scan *const s = scan_of(c);
    const asked of = {NULL, 0, k, NULL};
    fg_id count = 0;
    if (partials) {
        int (*const stop)(void) = s->step->body.stop;
        s->step->body.stop = NULL; /* nobody could begin again */
        const fg_slots slots = fg_slots_of(t);
        (void)get_ready(s, &slots, r);
        fg_call_take_gradients(c, &slots, r, s->grad, s->op, 1, NULL);
        (void)sweep(s, &of);
        s->step->body.stop = stop;
    }
    find_reached(s, &of, 1, s->reached);
    for (fg_id v = 0; v < r->views; v++) {
        const fg_stretch place = c->segments[v];
        for (fg_id e = 0; e < place.count; e++)
            if (fg_bits_has(s->reached, place.first + e)) {
                if (ids)
                    ids[count] = fg_call_slot(r, fg_record_view(r, v), e);
                if (partials)
                    partials[count] = s->grad[place.first + e];
                count++;
            }
    }
    return count;
}

static int fault(const fg_callee *c, double x[3], int32_t *k, int *status)
{
    const fg_callee *const step = &((const fg_scan *)(const void *)c)->step->callee;
    return step->steps->fault(step, x, k, status);
}

static size_t bytes(const fg_callee *c)
{
    const fg_scan *const s = (const fg_scan *)(const void *)c;
    return s->mem.bytes + s->step->body.mem.bytes;
}

static void free_callee(fg_callee *c)
{
    fg_scan_free(scan_of(c));
}

static int copy(const fg_callee *c, int (*stop)(void), int64_t *fail_after, fg_callee **made)
{
    const fg_scan *const s = (const fg_scan *)(const void *)c;
    fg_program *step = NULL;
    fg_scan *own = NULL;
    fg_mem mem;
    int status = fg_program_copy_alone(s->step, stop, fail_after, &step);
    if (status != FG_OK)
        return status;
    fg_mem_init(&mem);
    mem.fail_after = *fail_after;
    step->callee.holders = 1;
    status = fg_scan_make(step, &mem, s->length, s->carries, s->xs, s->sizes, s->parts, s->backwards, s->checkpoint,
                          &own);
    *fail_after = mem.fail_after;
    if (--step->callee.holders == 0)
        fg_program_free(step);
    else
        *made = &own->callee;
    return status;
}

const fg_callee_steps fg_scan_steps = {forward, reverse, mark, operands, wants, fault, bytes, free_callee, copy};

/* ---- making one ---- */

/* Allocate or, for `on` 0, free an array whose length does not change. on > 1: not cleared. */
static int resize(fg_scan *s, void *array, size_t count, size_t size, int on)
{
    void **const where = array;
    if (!on && !*where)
        return FG_OK;
    const int status = fg_mem_resize(&s->mem, where, on ? 0 : count, on ? count : 0, size);
    if (on == 1 && status == FG_OK && count > 0)
        memset(*where, 0, count * size);
    return status;
}

/* Allocate or free all of them. */
static int resize_all(fg_scan *s, int on)
{
    const size_t area = (size_t)s->area + 1, n_results = (size_t)s->n_carry + s->n_outputs, n = s->step->body.n;
    struct {
        void *array;
        size_t count, size;
    } const arrays[] = {
        {&s->callee.segments, s->callee.n_segments, sizeof *s->callee.segments},
        {&s->data, area, sizeof *s->data},
        {&s->grad, area, sizeof *s->grad},
        {&s->op, area, sizeof *s->op},
        {&s->used, FG_MARKS_WORDS(area), sizeof *s->used},
        {&s->reached, FG_MARKS_WORDS(area), sizeof *s->reached},
        {&s->sizes, s->parts, sizeof *s->sizes},
        {&s->base, s->n_outputs, sizeof *s->base},
        {&s->jump, s->n_outputs, sizeof *s->jump},
        {&s->twin, s->n_outputs, sizeof *s->twin},
        {&s->ranges, s->n_ranges, sizeof *s->ranges},
        {&s->taking, s->n_taking, sizeof *s->taking},
        {&s->next, s->n_carry, sizeof *s->next},
        {&s->dnext, s->n_carry, sizeof *s->dnext},
        {&s->wanted, n_results, sizeof *s->wanted},
    };
    for (size_t k = 0; k < sizeof arrays / sizeof arrays[0]; k++)
        if (resize(s, arrays[k].array, arrays[k].count, arrays[k].size, on) < 0)
            return FG_E_MEMORY;
    if (resize(s, &s->starts, (size_t)s->stretches * s->n_carry + 1, sizeof *s->starts, 2 * on) < 0
        || resize(s, &s->rows, (size_t)s->every * s->width + 1, sizeof *s->rows, 2 * on) < 0)
        return FG_E_MEMORY;
    for (fg_id k = 0; k < FG_SCAN_PLANS; k++) {
        fg_plan *const plan = &s->plans[k];
        if (resize(s, &plan->wanted, n_results, sizeof *plan->wanted, on) < 0
            || resize(s, &plan->seen, FG_MARKS_WORDS(n), sizeof *plan->seen, on) < 0
            || resize(s, &plan->nodes, n, sizeof *plan->nodes, on) < 0)
            return FG_E_MEMORY;
    }
    return FG_OK;
}

/* How many numbers carry and x have, and how many operands there are; 0 if the program is not of that form, or there
 * would be too many. */
static int count_operands(fg_scan *s)
{
    const fg_callee *const step = &s->step->callee;
    uint64_t area = 0, next = 1;
    if ((uint64_t)s->carries + s->xs > step->n_segments)
        return FG_SCAN_FORM;
    for (fg_id k = 0; k < step->n_segments; k++) {
        const fg_stretch of = step->segments[k];
        if (k < s->carries + s->xs) {
            if (of.first != next)
                return FG_SCAN_FORM;
            next += of.count;
            *(k < s->carries ? &s->n_carry : &s->n_x) += of.count;
        }
        area += (uint64_t)of.count * (k >= s->carries && k < s->carries + s->xs ? s->length : 1);
    }
    s->area = (fg_id)area;
    return area < FG_MAX_ID ? FG_OK : FG_E_FULL;
}

/* Likewise of results. */
static int count_results(fg_scan *s, const fg_id *sizes)
{
    uint64_t count = 0;
    for (fg_id k = 0; k < s->parts; k++)
        count += sizes[k];
    if (s->n_carry + count != s->step->callee.n_results)
        return FG_SCAN_FORM;
    s->n_outputs = (fg_id)count;
    count = s->n_carry + count * s->length;
    s->callee.n_results = (fg_id)count;
    return count < FG_MAX_ID ? FG_OK : FG_E_FULL;
}

/* The nodes that are computed, in stretches to `ranges`, if not NULL; how many nodes. */
static fg_id list_computed(fg_scan *s, fg_stretch *ranges)
{
    const fg_tape *const t = &s->step->body;
    fg_id count = 0;
    int before = 0;
    s->n_ranges = 0;
    for (fg_id i = first_of(s->step); i < t->n; i++) {
        const int computed = !fg_op_is_leaf(t->op[i]);
        if (computed && !before)
            s->n_ranges++;
        if (computed && ranges)
            ranges[s->n_ranges - 1] = (fg_stretch){before ? ranges[s->n_ranges - 1].first : i,
                                                   before ? ranges[s->n_ranges - 1].count + 1 : 1};
        count += (fg_id)computed;
        before = computed;
    }
    return count;
}

/* How the steps are divided. Stretches all of whose numbers, and of whose beginnings, need least memory would be as
 * long as the root says; longer ones cost nothing while they fit into a near cache. */
static void divide(fg_scan *s)
{
    s->width = s->n_carry + list_computed(s, NULL);
    const double width = s->width > 0 ? s->width : 1.0;
    double every = s->checkpoint;
    if (s->checkpoint == 0) {
        const double least = sqrt((double)s->length * s->n_carry / width), near = (double)STRETCH_ROWS / width;
        every = s->length * width <= (double)ALL_ROWS ? s->length : least > near ? least : near;
    }
    s->every = every < 1.0 ? 1 : every > s->length ? s->length : (fg_id)every;
    s->stretches = (s->length + s->every - 1) / s->every;
    s->kept = s->stretches;
}

/* Fill in what has been allocated. */
static void fill(fg_scan *s, const fg_id *sizes)
{
    const fg_program *const p = s->step;
    const fg_tape *const t = &p->body;
    const asked all = {NULL, 0, s->callee.n_results, s->data};
    fg_id next = 1, j = 0, base = s->n_carry, taken = 0;
    for (fg_id k = 0; k < s->callee.n_segments; k++) {
        const fg_id times = k >= s->carries && k < s->carries + s->xs ? s->length : 1;
        s->callee.segments[k] = (fg_stretch){next, p->callee.segments[k].count * times};
        next += s->callee.segments[k].count;
    }
    for (fg_id k = 0; k < s->parts; base += sizes[k++] * s->length) {
        s->sizes[k] = sizes[k];
        for (fg_id e = 0; e < sizes[k]; e++, j++) {
            s->base[j] = base + e;
            s->jump[j] = sizes[k];
            for (fg_id c = s->n_carry; c-- > 0;)
                if (p->results[c] == p->results[s->n_carry + j])
                    s->twin[j] = c + 1;
        }
    }
    for (fg_id i = first_of(p); i < t->n; i++) {
        s->long_steps |= fg_op_is_block(t->op[i]);
        if (fg_tape_op(t, i) == FG_TAKE)
            s->taking[taken++] = i;
    }
    (void)list_computed(s, s->ranges);
    find_reached(s, &all, s->xs > 0, s->used);
}

int fg_scan_make(fg_program *step, fg_mem *mem, fg_id length, fg_id carries, fg_id xs, const fg_id *sizes, fg_id parts,
                 int backwards, fg_id checkpoint, fg_scan **made)
{
    void *place = NULL;
    assert(length > 0);
    int status = fg_mem_resize(mem, &place, 0, 1, sizeof **made);
    if (status < 0)
        return status;
    fg_scan *const s = place;
    memset(s, 0, sizeof *s);
    mem->bytes -= sizeof *s;
    s->mem.bytes = sizeof *s;
    s->mem.fail_after = mem->fail_after;
    s->callee.steps = &fg_scan_steps;
    s->callee.n_segments = step->callee.n_segments;
    s->step = step;
    s->length = length;
    s->carries = carries;
    s->xs = xs;
    s->parts = parts;
    s->backwards = backwards;
    s->checkpoint = checkpoint;
    step->callee.holders++;
    for (fg_id i = first_of(step); i < step->body.n; i++)
        s->n_taking += fg_tape_op(&step->body, i) == FG_TAKE;
    status = count_operands(s);
    if (status == FG_OK)
        status = count_results(s, sizes);
    if (status == FG_OK) {
        divide(s);
        status = resize_all(s, 1);
    }
    mem->fail_after = s->mem.fail_after;
    s->mem.fail_after = -1;
    if (status != FG_OK) {
        fg_scan_free(s);
        return status;
    }
    fill(s, sizes);
    *made = s;
    return FG_OK;
}

void fg_scan_free(fg_scan *s)
{
    fg_callee *const step = &s->step->callee;
    (void)resize_all(s, 0);
    if (--step->holders == 0)
        step->steps->free(step);
    fg_mem last = s->mem;
    void *place = s;
    (void)fg_mem_resize(&last, &place, 1, 0, sizeof *s);
}
