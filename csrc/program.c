/* program.c: see program.h, of which this has the steps of FG_CALL. The order here: forward, reverse, which operands
 * results depend on, faults. How a program is made is in program_cut.c. */
#include "calls.h"
#include "program.h"

#include <string.h>

enum { CHUNK = 1 << 16 }; /* nodes, or words of the body's sweep, between two questions whether to stop */

static fg_program *program_of(fg_callee *c)
{
    return (fg_program *)(void *)c; /* its first member */
}

static int wants_stop(const fg_tape *t)
{
    return t->stop && t->stop();
}

/* ---- forward ---- */

int fg_program_run_nodes(fg_program *p, const fg_slots *slots, fg_id i, fg_id end, fg_id *next)
{
    fg_tape *const t = &p->body;
    const uint8_t *const ops = t->op;
    const fg_args *const all_args = t->args;
    double *const data = t->data;
    int status = FG_OK;
    for (; i < end; i++) {
        const fg_args args = all_args[i];
        double z;
        switch (ops[i]) {
#define FG_ROW(ID, arity, forward, dx, dy, dw, status_)              \
    case FG_##ID: {                                                  \
        const fg_id *const o = t->pool + args.a;                     \
        const double x = data[arity > 2 ? o[0] : args.a];            \
        const double y = arity > 1 ? data[arity > 2 ? o[1] : args.b] : 0.0; \
        const double w = arity > 2 ? data[o[2]] : 0.0;               \
        const int32_t k = (int32_t)args.b;                           \
        (void)o, (void)x, (void)y, (void)w, (void)k;                 \
        z = (forward);                                               \
        data[i] = z;                                                 \
        status = (status_);                                          \
        break;                                                       \
    }
#include "rows.def"
        case FG_PART:
            i += args.a - 1; /* on to the instruction, which has the others as well */
            continue;
        case FG_LEAF:
        case FG_FROZEN:
            continue;
        default:
            status = fg_block_forward(slots, ops[i], fg_tape_record(t, i), i - args.b, &p->element);
            if (status == FG_E_INTERRUPTED)
                return status;
        }
        if (FG_UNLIKELY(status != FG_OK) && !slots->lenient) {
            p->status = status;
            p->at = i;
            return status;
        }
    }
    *next = i;
    return FG_OK;
}

int fg_program_run(fg_program *p, int lenient)
{
    const fg_id n = p->body.n;
    fg_slots slots = fg_slots_of(&p->body);
    slots.lenient = lenient;
    p->ready = 0;
    p->writes = 0;
    for (fg_id i = p->area + (p->area > 0) + 1; i < n;) {
        const fg_id end = n - i < CHUNK ? n : i + CHUNK;
        const int status = fg_program_run_nodes(p, &slots, i, end, &i);
        if (status != FG_OK)
            return status;
        if (i < n && wants_stop(&p->body))
            return FG_E_INTERRUPTED;
    }
    p->ready = 1;
    return FG_OK;
}

/* Whether segment v is used in place by a call with that view. */
static int is_in_place(const fg_program *p, const fg_slots *t, const fg_view *view, fg_id v)
{
    return v < p->n_outside && p->outside[v].first > 0 && t->writes > 0 && fg_call_is_dense(view);
}

/* The operands' data, to the area or in place. Returns whether the body is to be computed: always for the forward step
 * of a call with operands in place, whose slots may have been those of another one that is gone. For a reverse step the
 * operands have been there since the forward step, and so the tape's count says whether anything has changed. */
static int take_data(fg_program *p, const fg_slots *t, fg_record *r, int is_forward)
{
    int other = !p->ready;
    if (!p->looked)
        fg_program_find_outside(p);
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        double *const area = p->body.data + p->callee.segments[v].first;
        const int in_place = is_in_place(p, t, view, v);
        if (v < p->n_outside) {
            const fg_id base = in_place ? view->base : 0;
            other |= p->base[v] != base || (in_place && (is_forward || p->writes != t->writes));
            p->base[v] = base;
            p->outside[v].data = in_place ? t->data + base : NULL;
            p->outside[v].grad = NULL;
        }
        if (!in_place)
            other |= fg_call_take_view(t, r, view, area);
#ifndef NDEBUG
        else if (fg_call_take_view(t, r, view, area)) /* nobody assigns without counting */
            assert(other);
#endif
    }
    return other;
}

/* Compute the body, whose operands have been taken. FG_OK, FG_E_INTERRUPTED, or the status of a row, and then the
 * operands are in the area, where the fault finds them. */
static int run_call(fg_program *p, const fg_slots *t, fg_record *r, int lenient)
{
    p->body.outside = p->outside;
    const int status = fg_program_run(p, lenient);
    p->body.outside = NULL;
    if (status == FG_OK)
        p->writes = t->writes;
    else if (status != FG_E_INTERRUPTED)
        (void)fg_call_take_data(&p->callee, t, r, p->body.data);
    return status;
}

double fg_program_number(const fg_program *p, fg_id place)
{
    for (fg_id v = 0; v < p->n_outside; v++) {
        const fg_stretch s = p->callee.segments[v];
        if (place >= s.first && place < s.first + s.count && p->outside[v].data)
            return p->outside[v].data[place - s.first];
    }
    return p->body.data[place];
}

/* z (1, n_results), from as many views as there are segments. The record may still be on its way to the tape. */
static int forward(fg_callee *c, const fg_slots *t, fg_record *r, double *z)
{
    fg_program *const p = program_of(c);
    assert(r->views == p->callee.n_segments && r->rows * r->cols == p->callee.n_results);
    if (take_data(p, t, r, 1)) {
        const int status = run_call(p, t, r, t->lenient);
        if (status != FG_OK)
            return status;
    }
    for (fg_id k = 0; k < p->callee.n_results; k++)
        z[k] = p->body.data[p->results[k]];
    fg_call_find_twice(t, r);
    return FG_OK;
}

/* ---- reverse ---- */

fg_id fg_program_order(fg_program *p, fg_id count, fg_id **order)
{
    void *nodes = NULL;
    *order = NULL;
    if (fg_mem_resize(&p->body.mem, &nodes, 0, p->body.n, sizeof **order) < 0)
        return FG_MAX_ID;
    assert(count > 0);
    const fg_id found = fg_sweep_order(&p->body, p->outputs, count, nodes);
    const fg_id kept = found == FG_MAX_ID ? 0 : found; /* to get smaller never fails */
    (void)fg_mem_resize(&p->body.mem, &nodes, p->body.n, kept, sizeof **order);
    *order = nodes;
    return kept > 0 ? kept : FG_MAX_ID;
}

void fg_program_release_order(fg_program *p, fg_id *order, fg_id n_order)
{
    void *nodes = order;
    if (order)
        (void)fg_mem_resize(&p->body.mem, &nodes, n_order, 0, sizeof *order);
}

/* Visit the nodes of an order. FG_OK, or FG_E_INTERRUPTED. */
static int sweep_ordered(fg_program *p, const fg_id *order, fg_id n_order)
{
    for (fg_id k = 0; k < n_order; k += CHUNK) {
        size_t done = 0;
        if (k > 0 && wants_stop(&p->body))
            return FG_E_INTERRUPTED;
        if (fg_sweep_ordered(&p->body, order + k, n_order - k < CHUNK ? n_order - k : CHUNK, &done) != FG_OK)
            return FG_E_INTERRUPTED;
    }
    return FG_OK;
}

/* The order of a sweep from all results, if these are what p->outputs has, and if there is one. */
static const fg_id *order_of(fg_program *p, fg_id count)
{
    if (count < p->callee.n_results)
        return NULL;
    if (p->n_order == 0)
        p->n_order = fg_program_order(p, count, &p->order);
    return p->order;
}

/* A sweep over the body from the nodes in p->outputs, whose gradients are `seeds`. FG_OK, or FG_E_INTERRUPTED. */
static int sweep(fg_program *p, fg_id count, const double *const *seeds)
{
    fg_tape *const t = &p->body;
    const fg_id first = p->area + 1;
    fg_id highest = 0;
    memset(t->grad + first, 0, (t->n - first) * sizeof *t->grad);
    const fg_id *const order = order_of(p, count);
    if (order) {
        for (fg_id k = 0; k < count; k++)
            if (p->outputs[k] > p->area)
                t->grad[p->outputs[k]] = -0.0; /* plus any seed, that seed */
        for (fg_id k = 0; k < count; k++)
            t->grad[p->outputs[k]] += *seeds[k];
        return sweep_ordered(p, order, p->n_order);
    }
    for (fg_id k = 0; k < count; k++)
        highest = p->outputs[k] > highest ? p->outputs[k] : highest;
    fg_sweep *const s = fg_tape_sweep_begin(t, highest + 1);
    assert(s != NULL); /* there is always the one that was made with the program */
    s->marks.lowest = s->marks.highest = highest >> 12;
    for (fg_id k = 0; k < count; k++) {
        const fg_id i = p->outputs[k];
        t->grad[i] = i > p->area && !fg_marks_has(&s->marks, i) ? *seeds[k] : t->grad[i] + *seeds[k];
        fg_marks_add(&s->marks, i);
    }
    while (fg_sweep_run(t, s, CHUNK) != FG_SWEEP_DONE)
        if (wants_stop(t)) {
            fg_sweep_cancel(t, s);
            return FG_E_INTERRUPTED;
        }
    return FG_OK;
}

int fg_program_sweep(fg_program *p, fg_id result, const fg_id *order, fg_id n_order)
{
    static const double one = 1.0;
    const double *const seed = &one;
    fg_tape *const t = &p->body;
    p->outputs[0] = p->results[result];
    if (!order)
        return sweep(p, 1, &seed);
    memset(t->grad + p->area + 1, 0, (t->n - p->area - 1) * sizeof *t->grad);
    t->grad[p->outputs[0]] = 1.0;
    return sweep_ordered(p, order, n_order);
}

/* ---- plans ---- */

void fg_program_release_plan(fg_program *p, fg_jobs *plan)
{
    fg_job **const jobs[2] = {&plan->forward, &plan->reverse};
    const fg_id counts[2] = {plan->n_forward, plan->n_reverse};
    for (int k = 0; k < 2; k++) {
        void *place = *jobs[k];
        if (place)
            (void)fg_mem_resize(&p->body.mem, &place, counts[k], 0, sizeof **jobs[k]);
    }
    *plan = (fg_jobs){NULL, NULL, 0, 0};
}

/* The forward jobs into `jobs`, unless that is NULL; how many there are. */
static fg_id plan_forward(fg_program *p, const fg_slots *slots, fg_job *jobs)
{
    const fg_tape *const t = &p->body;
    fg_id count = 0;
    int open = 0; /* the last job has no `run`, and takes what follows */
    fg_job job, reverse;
    for (fg_id i = p->area + (p->area > 0) + 1; i < t->n; i++) {
        const int op = fg_tape_op(t, i);
        job = (fg_job){.run = NULL};
        if (op == FG_PART || fg_op_is_leaf(op))
            continue;
        if (fg_op_is_block(op))
            fg_block_prepare(slots, op, fg_tape_record(t, i), i - t->args[i].b, &job, &reverse);
        if (!open || job.run)
            count++;
        job.node = i;
        if (jobs)
            jobs[count - 1] = job;
        open = !job.run;
    }
    return count;
}

int fg_program_plan(fg_program *p, const fg_id *order, fg_id n_order, fg_jobs *plan)
{
    fg_tape *const t = &p->body;
    const fg_slots slots = fg_slots_of(t);
    const fg_id n_forward = plan_forward(p, &slots, NULL);
    if (!plan->forward) {
        void *forward = NULL, *reverse = NULL;
        if (fg_mem_resize(&t->mem, &forward, 0, n_forward, sizeof *plan->forward) < 0)
            return FG_E_MEMORY;
        if (fg_mem_resize(&t->mem, &reverse, 0, n_order, sizeof *plan->reverse) < 0) {
            (void)fg_mem_resize(&t->mem, &forward, n_forward, 0, sizeof *plan->forward);
            return FG_E_MEMORY;
        }
        *plan = (fg_jobs){forward, reverse, n_forward, n_order};
    }
    (void)plan_forward(p, &slots, plan->forward);
    for (fg_id k = 0; k < n_order; k++) {
        const fg_id i = order[k];
        fg_job job, *const to = &plan->reverse[k];
        *to = (fg_job){.run = NULL};
        if (fg_op_is_block(fg_tape_op(t, i)))
            fg_block_prepare(&slots, fg_tape_op(t, i), fg_tape_record(t, i), i - t->args[i].b, &job, to);
        to->node = i;
    }
    return FG_OK;
}

int fg_program_run_plan(fg_program *p, const fg_jobs *plan)
{
    fg_slots slots = fg_slots_of(&p->body);
    fg_id next = p->area + (p->area > 0) + 1;
    p->ready = 0;
    for (fg_id k = 0; k < plan->n_forward; k++) {
        const fg_job *const j = &plan->forward[k];
        if (!j->run || j->run(j) != FG_OK) {
            fg_id i = j->run ? j->node : next;
            while (i <= j->node) {
                const fg_id end = j->node + 1 - i < CHUNK ? j->node + 1 : i + CHUNK;
                const int status = fg_program_run_nodes(p, &slots, i, end, &i);
                if (status != FG_OK)
                    return status;
                if (i <= j->node && wants_stop(&p->body))
                    return FG_E_INTERRUPTED;
            }
        }
        next = j->node + 1;
    }
    p->ready = 1;
    return FG_OK;
}

int fg_program_sweep_plan(fg_program *p, fg_id result, const fg_jobs *plan)
{
    fg_tape *const t = &p->body;
    memset(t->grad + p->area + 1, 0, (t->n - p->area - 1) * sizeof *t->grad);
    t->grad[p->results[result]] = 1.0;
    for (fg_id k = 0; k < plan->n_reverse; k++) {
        const fg_job *const j = &plan->reverse[k];
        size_t done = 0;
        if (j->run)
            (void)j->run(j);
        else if (fg_sweep_ordered(t, &j->node, 1, &done) != FG_OK)
            return FG_E_INTERRUPTED;
        if (k % CHUNK == CHUNK - 1 && wants_stop(t))
            return FG_E_INTERRUPTED;
    }
    return FG_OK;
}

/* The nodes of the results that have a bit in `reached`, or of all, into p->outputs, and where their gradients are; how
 * many. `first`: the slot of result 0. */
static fg_id find_outputs(fg_program *p, double *grad, fg_id first, const uint64_t *reached)
{
    fg_id count = 0;
    for (fg_id k = 0; k < p->callee.n_results; k++) {
        const fg_id i = first + k;
        if (!reached || fg_bits_has(reached, i)) {
            p->outputs[count] = p->results[k];
            p->seeds[count++] = grad + i;
        }
    }
    return count;
}

/* The body's data are those of the operands' present data. FG_OK or FG_E_INTERRUPTED. */
static int get_ready(fg_program *p, const fg_slots *t, fg_record *r)
{
    return take_data(p, t, r, 0) ? run_call(p, t, r, 1) : FG_OK;
}

/* From now on the gradients of segments that are used in place are those on the tape. Not those of a slot that is an
 * operand twice, which are rounded as if they were added up one after the other; and not in a long sweep, for there is
 * no going back if it is interrupted. Returns whether there are any. */
static int add_in_place(fg_program *p, const fg_slots *t, fg_record *r)
{
    int any = 0;
    for (fg_id v = 0; v < p->n_outside && !r->k && !p->is_long; v++) {
        fg_outside *const o = &p->outside[v];
        if (!o->data)
            continue;
        o->grad = t->grad + p->base[v];
        o->op = t->op + p->base[v];
        o->constant = (fg_record_view(r, v)->flags & FG_VIEW_CONSTANT) != 0;
        any = 1;
    }
    return any;
}

/* A sweep over the body, with what is in place. Without `may_stop` it ends in any case. */
static int sweep_call(fg_program *p, fg_id count, int may_stop)
{
    int (*const stop)(void) = p->body.stop;
    p->body.outside = p->outside;
    if (!may_stop)
        p->body.stop = NULL;
    const int status = sweep(p, count, p->seeds);
    p->body.stop = stop;
    p->body.outside = NULL;
    return status;
}

/* The gradient of an element of segment v. */
static double rule_result(const fg_program *p, fg_id v, fg_id e)
{
    return p->rule->body.data[p->rule->results[p->gives[v] - 1 + e]];
}

/* The results of the rule for a call whose results have gradients: those in `grad` from `first` on, or of those alone
 * that have a bit in `reached`; or, without `grad`, 1 for result k. FG_OK or FG_E_INTERRUPTED. */
static int run_rule(fg_program *p, const fg_slots *t, fg_record *r, const double *grad, fg_id first,
                    const uint64_t *reached, fg_id k)
{
    fg_program *const rule = p->rule;
    double *const data = rule->body.data, *const seeds = data + rule->callee.segments[r->views].first;
    for (fg_id v = 0; v < rule->n_outside; v++) {
        rule->base[v] = 0;
        rule->outside[v].data = rule->outside[v].grad = NULL;
    }
    for (fg_id v = 0; v < r->views; v++)
        (void)fg_call_take_view(t, r, fg_record_view(r, v), data + rule->callee.segments[v].first);
    for (fg_id j = 0; j < p->callee.n_results; j++)
        seeds[j] = !grad ? (double)(j == k) : !reached || fg_bits_has(reached, first + j) ? grad[first + j] : 0.0;
    rule->body.outside = rule->outside;
    const int status = fg_program_run(rule, 1);
    rule->body.outside = NULL;
    rule->ready = 0; /* nobody else knows these operands */
    return status;
}

static int reverse_by_rule(fg_program *p, const fg_slots *t, fg_record *r, fg_id first, const uint64_t *reached)
{
    const int status = p->rule ? run_rule(p, t, r, t->grad, first, reached, 0) : FG_OK;
    for (fg_id v = 0; p->rule && status == FG_OK && v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        const int dense = fg_call_is_dense(view);
        if (p->gives[v] == 0 || view->flags & FG_VIEW_CONSTANT)
            continue;
        for (fg_id e = 0; e < p->callee.segments[v].count; e++) {
            const fg_id i = dense ? view->base + e : fg_call_slot(r, view, e);
            if (!fg_call_is_frozen(t, i))
                t->grad[i] += rule_result(p, v, e);
        }
    }
    return status;
}

static int reverse(fg_callee *c, const fg_slots *t, fg_record *r, fg_id first, const uint64_t *reached)
{
    fg_program *const p = program_of(c);
    if (p->gives)
        return reverse_by_rule(p, t, r, first, reached);
    int status = get_ready(p, t, r);
    if (status != FG_OK)
        return status;
    const int in_place = add_in_place(p, t, r);
    fg_call_take_gradients(&p->callee, t, r, p->body.grad, p->body.op, 0, p->outside);
    status = sweep_call(p, find_outputs(p, t->grad, first, reached), !in_place);
    if (status == FG_OK)
        fg_call_give_gradients(&p->callee, t, r, p->body.grad, p->outside);
    return status;
}

/* ---- measurements ---- */

int fg_program_rehearse(fg_program *p, int step)
{
    static const double one = 1.0;
    if (step != FG_REHEARSE_BACKWARD) {
        fg_call_turn(p->body.data + 1, p->area);
        p->ready = 0;
        return step == FG_REHEARSE_FORWARD ? fg_program_run(p, 1) : FG_OK;
    }
    const fg_id count = p->callee.n_results;
    for (fg_id k = 0; k < count; k++) {
        p->outputs[k] = p->results[k];
        p->seeds[k] = &one;
    }
    return sweep(p, count, p->seeds);
}

int fg_program_rehearse_nodes(fg_program *p, const fg_stretch *stretches, fg_id count)
{
    fg_slots slots = fg_slots_of(&p->body);
    slots.lenient = 1;
    int status = FG_OK;
    for (fg_id k = 0; k < count && status == FG_OK; k++) {
        fg_id next;
        status = fg_program_run_nodes(p, &slots, stretches[k].first, stretches[k].first + stretches[k].count, &next);
    }
    return status;
}

/* ---- which operands gradients flow to ---- */

/* Enter the operands that gradients of the `count` nodes in p->outputs flow to into `bits`. */
static void find_reached(fg_program *p, fg_id count, uint64_t *bits)
{
    int hooked;
    const fg_id last = p->area >> 6, found = fg_sweep_reach(&p->body, p->outputs, count, FG_FLOWN_TO, p->words,
                                                             p->masks, &hooked);
    memset(bits, 0, FG_MARKS_WORDS((size_t)p->area + 1) * sizeof *bits);
    for (fg_id k = 0; k < found; k++)
        if (p->words[k] <= last)
            bits[p->words[k]] = p->masks[k];
}

void fg_program_find_used(fg_program *p)
{
    memcpy(p->outputs, p->results, p->callee.n_results * sizeof *p->outputs);
    find_reached(p, p->callee.n_results, p->used);
    if (!p->gives)
        return;
    memset(p->used, 0, FG_MARKS_WORDS((size_t)p->area + 1) * sizeof *p->used);
    for (fg_id k = 0; k < p->callee.n_segments; k++) {
        const fg_stretch s = p->callee.segments[k];
        if (p->gives[k] > 0 || (p->rule && fg_call_wants(&p->rule->callee, p->rule->used, k)))
            for (fg_id i = s.first; i < s.first + s.count; i++) /* those that its derivative depends on as well */
                fg_bits_put(p->used, i);
    }
}

static int wants(const fg_callee *c, fg_id k)
{
    return fg_call_wants(c, ((const fg_program *)(const void *)c)->used, k);
}

static void mark(fg_callee *c, const fg_tape *t, fg_record *r, fg_id first, int all, fg_marks *marks, int leaves)
{
    fg_program *const p = program_of(c);
    const uint64_t *bits = p->used;
    if (!all && !p->gives) {
        find_reached(p, find_outputs(p, t->grad, first, t->marks.word), p->reached);
        bits = p->reached;
    }
    fg_call_mark(c, t, bits, r, marks, leaves);
}

static fg_id operands(fg_callee *c, const fg_tape *t, fg_record *r, fg_id k, fg_id *ids, double *partials)
{
    static const double one = 1.0;
    fg_program *const p = program_of(c);
    fg_id count = 0;
    p->outputs[0] = p->results[k];
    if (p->gives)
        memcpy(p->reached, p->used, FG_MARKS_WORDS((size_t)p->area + 1) * sizeof *p->used);
    else
        find_reached(p, 1, p->reached);
    if (partials && p->rule) {
        int (*const stop)(void) = p->rule->body.stop;
        p->rule->body.stop = NULL; /* nobody could begin again */
        const fg_slots slots = fg_slots_of(t);
        (void)run_rule(p, &slots, r, NULL, 0, NULL, k);
        p->rule->body.stop = stop;
    } else if (partials) {
        int (*const stop)(void) = p->body.stop;
        p->body.stop = NULL; /* nobody could begin again */
        const fg_slots slots = fg_slots_of(t);
        (void)get_ready(p, &slots, r);
        fg_call_take_gradients(&p->callee, &slots, r, p->body.grad, p->body.op, 1, NULL); /* none is in place */
        p->seeds[0] = &one;
        (void)sweep_call(p, 1, 0);
        p->body.stop = stop;
    }
    for (fg_id v = 0; v < r->views; v++) {
        const fg_stretch s = p->callee.segments[v];
        for (fg_id e = 0; e < s.count && !(p->gives && p->gives[v] == 0); e++)
            if (fg_bits_has(p->reached, s.first + e)) {
                if (ids)
                    ids[count] = fg_call_slot(r, fg_record_view(r, v), e);
                if (partials)
                    partials[count] = p->rule ? rule_result(p, v, e) : p->body.grad[s.first + e];
                count++;
            }
    }
    return count;
}

/* ---- faults ---- */

static int fault(const fg_callee *c, double x[3], int32_t *k, int *status)
{
    const fg_program *const p = (const fg_program *)(const void *)c;
    const fg_tape *const t = &p->body;
    const int op = fg_tape_op(t, p->at);
    *status = p->status;
    if (op == FG_CALL) { /* it is in what this one calls */
        const fg_callee *const called = fg_tape_callee(t, fg_tape_record(t, p->at));
        return called->steps->fault(called, x, k, status);
    }
    if (op != FG_MAP && op != FG_TAKE) {
        fg_id count;
        const fg_id *const ids = fg_tape_operands(t, p->at, &count);
        for (fg_id j = 0; j < count; j++)
            x[j] = t->data[ids[j]];
        *k = (int32_t)t->args[p->at].b;
        return op;
    }
    fg_record *const r = fg_tape_record(t, p->at);
    if (op == FG_TAKE) {
        x[0] = t->data[fg_record_slot(r, fg_record_view(r, 1), 0, p->element)];
        *k = (int32_t)(r->k == FG_TAKE_EACH ? fg_record_view(r, 0)->cols : fg_record_view(r, 0)->rows);
        return op;
    }
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        const fg_id row = p->element / r->cols, col = p->element % r->cols;
        x[v] = t->data[fg_record_slot(r, view, view->rows > 1 ? row : 0, view->cols > 1 ? col : 0)];
    }
    *k = (int32_t)r->k;
    double z;
    *status = fg_op_compute((int)r->param, x, *k, &z);
    return (int)r->param;
}

static size_t bytes(const fg_callee *c)
{
    const fg_program *const p = (const fg_program *)(const void *)c;
    return p->body.mem.bytes + (p->rule ? p->rule->body.mem.bytes : 0);
}

static void free_callee(fg_callee *c)
{
    fg_program_free(program_of(c));
}

static int copy(const fg_callee *c, int (*stop)(void), int64_t *fail_after, fg_callee **made)
{
    fg_program *q = NULL;
    const int status = fg_program_copy_alone((const fg_program *)(const void *)c, stop, fail_after, &q);
    if (status == FG_OK)
        *made = &q->callee;
    return status;
}

const fg_callee_steps fg_program_steps = {forward, reverse, mark, operands, wants, fault, bytes, free_callee, copy};
