/* lanes.c: see lanes.h. The order here: views, numbers in and out, forward, which results count, reverse, operands,
 * faults, making one. */
#include "calls.h"
#include "lanes.h"

#include <string.h>

struct fg_lanes {
    fg_callee callee;      /* first: the tape knows it by that */
    fg_mem mem;
    fg_program *program;   /* a copy: its body has the uniform nodes, and is not run as a whole */
    const fg_batch_steps *steps; /* of what the batch consists of: doubles or floats */
    fg_batch *batch;
    uint8_t *varies;       /* [n_segments] */
    size_t *place;         /* [n_segments] where a varying one's numbers begin in `taken` and `given` */
    fg_group *groups;      /* [n_groups] */
    fg_id n_groups, n_samples;
    fg_stretch *results;   /* [n_results of the program] the first of the call's that is of it, and the distance from
                              one sample's to the next; 0 for a sum over all */
    fg_stretch *uniform;   /* [n_uniform] nodes of the body that are computed once */
    fg_id n_uniform;
    int shared;            /* whether uniform nodes may have a gradient: there are some, or operands that do not vary */
    size_t numbers;        /* of all varying operands */
    double *taken, *given; /* [numbers] their data in the last call, and gradients of this one */
    double *row;           /* [lanes] scratch */
    double *total;         /* [body.n] gradients of uniform nodes, of all blocks so far; of others anything */
    uint64_t *live;        /* [FG_MARKS_WORDS(body.n)] nodes that gradients of the results which count flow to */
    uint64_t *any_live;    /* [the same] in one of the groups of samples */
    uint64_t *of_all;      /* [the same] if all results count */
    fg_id *samples;        /* [n_samples] those that count alike */
    uint8_t *done;         /* [n_samples] */
    int by_ones;           /* gradients are those for 1 by each sample's only result, times its gradient */
    int of_uniform;        /* and uniform operands have some, for which all of these have to be equal */
    int at_once;           /* these are computed with the results, which is cheaper than to go there again, ... */
    int awaited;           /* ... and nobody has asked for them yet */
    int unit_ready;        /* they follow from the operands' data */
    double *units;         /* [numbers] they, of varying operands */
    double *unit_total;    /* [body.n] and of uniform nodes, as in total */
    int partial;           /* the batch goes by l->live, not by l->of_all */
    int ready;             /* the uniform nodes are up to date */
    int filled;            /* and all lanes are, of all samples, which are one block */
    int in_lanes;          /* the last fault was in one of them */
};

static fg_lanes *lanes_of(fg_callee *c)
{
    return (fg_lanes *)(void *)c; /* its first member */
}

static const fg_lanes *const_lanes_of(const fg_callee *c)
{
    return (const fg_lanes *)(const void *)c;
}

/* ---- views of a call ---- */

/* The operands' data. */
static void take_data(fg_lanes *l, const fg_slots *t, fg_record *r)
{
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        if (l->varies[v]) {
            if (fg_call_take_view(t, r, view, l->taken + l->place[v]))
                l->filled = l->unit_ready = 0;
        } else if (fg_call_take_view(t, r, view, l->program->body.data + l->program->callee.segments[v].first)) {
            l->ready = l->filled = l->unit_ready = 0;
        }
    }
}

/* ---- lanes ---- */

/* The numbers of `used` samples into the lanes; those behind have the last one's. */
static void fill_lanes(fg_lanes *l, const fg_id *samples, size_t used)
{
    for (fg_id v = 0; v < l->callee.n_segments; v++) {
        const fg_stretch s = l->program->callee.segments[v];
        if (l->varies[v])
            l->steps->put(l->batch, s.first, s.count, l->taken + l->place[v], samples, used);
    }
}

/* Add the gradients of the lanes to those of the samples, [numbers]. */
static void empty_lanes(fg_lanes *l, const fg_id *samples, size_t used, double *given)
{
    for (fg_id v = 0; v < l->callee.n_segments; v++) {
        const fg_stretch s = l->program->callee.segments[v];
        if (l->varies[v])
            l->steps->give(l->batch, s.first, s.count, given + l->place[v], samples, used);
    }
}

/* The same from and to an array of rows for each segment that varies, the first row being that of sample `first`. */
static void fill_rows(fg_lanes *l, const double *const *from, size_t first, size_t used)
{
    for (fg_id v = 0; v < l->callee.n_segments; v++) {
        const fg_stretch s = l->program->callee.segments[v];
        if (l->varies[v])
            l->steps->put(l->batch, s.first, s.count, from[v] + first * s.count, NULL, used);
    }
}

static void empty_rows(fg_lanes *l, double *const *to, size_t first, size_t used)
{
    for (fg_id v = 0; v < l->callee.n_segments; v++) {
        const fg_stretch s = l->program->callee.segments[v];
        if (!l->varies[v] || !to[v])
            continue;
        memset(to[v] + first * s.count, 0, used * s.count * sizeof *to[v]);
        l->steps->give(l->batch, s.first, s.count, to[v] + first * s.count, NULL, used);
    }
}

/* ---- forward ---- */

/* Bring the uniform nodes up to date. */
static int run_uniform(fg_lanes *l, int lenient)
{
    fg_slots slots = fg_slots_of(&l->program->body);
    slots.lenient = lenient;
    for (fg_id k = 0; k < l->n_uniform && !l->ready; k++) {
        const fg_stretch s = l->uniform[k];
        fg_id next;
        const int status = fg_program_run_nodes(l->program, &slots, s.first, s.first + s.count, &next);
        if (status != FG_OK) {
            l->in_lanes = 0;
            return status;
        }
        if (slots.stop && slots.stop())
            return FG_E_INTERRUPTED;
    }
    if (!l->ready)
        l->steps->refresh(l->batch);
    l->ready = 1;
    return FG_OK;
}

static int run_lanes(fg_lanes *l, const fg_id *samples, size_t used, int lenient)
{
    fill_lanes(l, samples, used);
    const int status = l->steps->forward(l->batch, used, lenient);
    if (status != FG_OK)
        l->in_lanes = 1;
    l->filled = status == FG_OK && used == l->n_samples;
    return status;
}

static size_t smaller(size_t x, size_t y)
{
    return x < y ? x : y;
}

/* ---- gradients by results that are 1 ---- */

static void clear_units(fg_lanes *l)
{
    l->unit_ready = 0;
    memset(l->units, 0, l->numbers * sizeof *l->units);
    memset(l->unit_total, 0, l->program->body.n * sizeof *l->unit_total);
    assert(!l->partial); /* there is one result */
}

/* Of samples that are in the lanes, and have been computed. */
static int add_units(fg_lanes *l, const fg_id *samples, size_t used)
{
    l->steps->clear(l->batch);
    l->steps->seed(l->batch, l->program->results[0], NULL, 0, NULL, used);
    const int status = l->steps->reverse(l->batch);
    if (status != FG_OK)
        return status;
    empty_lanes(l, samples, used, l->units);
    l->steps->add_sums(l->batch, l->unit_total);
    return FG_OK;
}

/* Add the numbers of a node in the lanes to *sum, in their order. */
static void add_sum(fg_lanes *l, fg_id node, size_t used, double *sum)
{
    l->steps->get(l->batch, node, l->row, 1, used);
    for (size_t lane = 0; lane < used; lane++)
        *sum += l->row[lane];
}

static void all_samples(fg_lanes *l)
{
    for (fg_id i = 0; i < l->n_samples; i++)
        l->samples[i] = i;
}

static int forward(fg_callee *c, const fg_slots *t, fg_record *r, double *z)
{
    fg_lanes *const l = lanes_of(c);
    const size_t lanes = l->steps->lanes(l->batch);
    assert(r->views == c->n_segments && r->rows * r->cols == c->n_results);
    take_data(l, t, r);
    int status = run_uniform(l, t->lenient);
    all_samples(l);
    if (l->awaited) /* nobody has asked for the last ones */
        l->at_once = 0;
    const int with_units = l->by_ones && l->at_once && status == FG_OK;
    l->awaited = 0;
    if (with_units)
        clear_units(l);
    for (fg_id j = 0; j < l->program->callee.n_results; j++)
        if (l->results[j].count == 0)
            z[l->results[j].first] = 0.0;
    for (size_t i = 0; i < l->n_samples && status == FG_OK; i += lanes) {
        const size_t used = smaller(lanes, l->n_samples - i);
        if (!l->filled)
            status = run_lanes(l, l->samples + i, used, t->lenient);
        for (fg_id j = 0; j < l->program->callee.n_results && status == FG_OK; j++) {
            const fg_stretch at = l->results[j];
            if (at.count > 0)
                l->steps->get(l->batch, l->program->results[j], z + at.first + i * at.count, at.count, used);
            else
                add_sum(l, l->program->results[j], used, z + at.first);
        }
        if (status == FG_OK && with_units)
            status = add_units(l, l->samples + i, used);
    }
    if (status == FG_OK && with_units)
        l->unit_ready = l->awaited = 1;
    return status;
}

/* ---- which results count ---- */

/* The results whose gradients are asked for: all, those that have a bit in `reached`, or one alone. */
typedef struct asked {
    const double *grad; /* of slots; NULL: 1 */
    fg_id first;        /* the slot of result 0 */
    const uint64_t *reached;
    int single;
    fg_id only;
} asked;

static fg_id place_of(const fg_lanes *l, fg_id sample, fg_id result)
{
    return l->results[result].first + sample * l->results[result].count;
}

static int counts(const fg_lanes *l, const asked *a, fg_id sample, fg_id result)
{
    const fg_id at = place_of(l, sample, result);
    return a->single ? at == a->only : !a->reached || fg_bits_has(a->reached, a->first + at);
}

/* The next samples of which the same results count: into l->samples, and how many; 0: there are none any more. The
 * results' nodes are in the program's outputs then, *n_outputs. l->done is all 0 at first. */
static size_t next_samples(fg_lanes *l, const asked *a, fg_id *n_outputs)
{
    const fg_id n = l->program->callee.n_results;
    fg_id count = 0, model = 0;
    *n_outputs = 0;
    for (; model < l->n_samples; model++) {
        for (fg_id j = 0; j < n && !l->done[model]; j++)
            if (counts(l, a, model, j))
                l->program->outputs[(*n_outputs)++] = l->program->results[j];
        if (*n_outputs > 0)
            break;
    }
    for (fg_id i = model; i < l->n_samples; i++) {
        int same = !l->done[i];
        for (fg_id j = 0; j < n && same && (a->reached || a->single); j++)
            same = counts(l, a, i, j) == counts(l, a, model, j);
        if (same) {
            l->samples[count++] = i;
            l->done[i] = 1;
        }
    }
    return count;
}

/* Which nodes gradients of the program's outputs may flow to: into l->live. */
static void find_operands(fg_lanes *l, fg_id n_outputs)
{
    fg_program *const p = l->program;
    int hooked;
    const fg_id found = fg_sweep_reach(&p->body, p->outputs, n_outputs, FG_FLOWN_TO, p->words, p->masks, &hooked);
    memset(l->live, 0, FG_MARKS_WORDS(p->body.n) * sizeof *l->live);
    for (fg_id k = 0; k < found; k++)
        l->live[p->words[k]] = p->masks[k];
}

/* Visit node i, and the others of its instruction, as a sweep would: into `live`, and the operands into the marks. */
static void visit(fg_tape *t, fg_sweep *s, fg_id i, uint64_t *live)
{
    const int op = fg_tape_op(t, i);
    const fg_id block = op == FG_PART ? i + t->args[i].a : i, first = block - (op == FG_PART ? t->args[block].b : 0);
    fg_id count, reached = 0;
    if (fg_op_is_scalar(op)) {
        const fg_id *const ids = fg_tape_operands(t, i, &count);
        for (fg_id k = 0; k < count; k++)
            fg_marks_add(&s->marks, ids[k]);
    }
    for (fg_id w = first >> 6; w <= i >> 6; w++) {
        const uint64_t marked = s->marks.word[w] & fg_marks_mask(w, first, i + 1);
        live[w] |= marked;
        s->marks.word[w] &= ~marked;
        t->marks.word[w] = marked;
        reached += fg_bits_count(marked);
    }
    if (fg_op_is_block(fg_tape_op(t, block))) {
        if (op != FG_PART || reached == t->args[block].b || fg_tape_op(t, block) == FG_TAKE)
            fg_block_mark_operands(t, block, &s->marks, FG_FLOWN_TO);
        else
            fg_block_mark_reached(t, block, &s->marks);
    }
    for (fg_id w = first >> 6; w <= i >> 6; w++)
        t->marks.word[w] = 0;
}

/* Which nodes but leaves a sweep from the program's outputs visits, whatever the numbers: into `live`. */
static void find_live(fg_lanes *l, fg_id n_outputs, uint64_t *live)
{
    fg_tape *const t = &l->program->body;
    fg_sweep *const s = fg_tape_sweep_begin(t, t->n);
    assert(s != NULL); /* there is always the one that was made with the program */
    memset(live, 0, FG_MARKS_WORDS(t->n) * sizeof *live);
    s->marks.lowest = s->marks.highest = (t->n - 1) >> 12;
    for (fg_id k = 0; k < n_outputs; k++)
        fg_marks_add(&s->marks, l->program->outputs[k]);
    for (size_t w = FG_MARKS_WORDS(t->n); w-- > 0;)
        while (s->marks.word[w])
            visit(t, s, ((fg_id)w << 6) + fg_bits_top(s->marks.word[w]), live);
    memset(s->marks.summary, 0, FG_MARKS_WORDS(FG_MARKS_WORDS(t->n)) * sizeof *s->marks.summary);
    fg_tape_sweep_end(t, s);
}

/* ---- reverse ---- */

/* The gradients of the results that count of `used` samples, into the lanes. */
static void seed_lanes(fg_lanes *l, const asked *a, const fg_id *samples, size_t used)
{
    for (fg_id j = 0; j < l->program->callee.n_results; j++) {
        const fg_stretch at = l->results[j];
        if (counts(l, a, samples[0], j))
            l->steps->seed(l->batch, l->program->results[j], a->grad ? a->grad + a->first + at.first : NULL, at.count,
                           samples, used);
    }
}

/* Of the samples in l->samples, to l->given and l->total. */
static int reverse_samples(fg_lanes *l, const asked *a, size_t count)
{
    const size_t lanes = l->steps->lanes(l->batch);
    for (size_t i = 0; i < count; i += lanes) {
        const fg_id *const samples = l->samples + i;
        const size_t used = smaller(lanes, count - i);
        int status = l->filled && used == l->n_samples ? FG_OK : run_lanes(l, samples, used, 1);
        if (status != FG_OK)
            return status;
        l->steps->clear(l->batch);
        seed_lanes(l, a, samples, used);
        status = l->steps->reverse(l->batch);
        if (status != FG_OK)
            return status;
        empty_lanes(l, samples, used, l->given);
        if (l->shared)
            l->steps->add_sums(l->batch, l->total);
    }
    return FG_OK;
}

static double seed_of(const fg_lanes *l, const asked *a, fg_id sample)
{
    return a->grad ? a->grad[a->first + place_of(l, sample, 0)] : 1.0;
}

/* The same by gradients for 1, of the samples in l->samples. */
static int reverse_by_ones(fg_lanes *l, size_t count)
{
    const size_t lanes = l->steps->lanes(l->batch);
    clear_units(l);
    for (size_t i = 0; i < count; i += lanes) {
        const size_t used = smaller(lanes, count - i);
        int status = run_lanes(l, l->samples + i, used, 1);
        if (status == FG_OK)
            status = add_units(l, l->samples + i, used);
        if (status != FG_OK)
            return status;
    }
    l->unit_ready = count == l->n_samples;
    return FG_OK;
}

/* All samples that count do so alike, in l->samples. Returns whether that way is open. */
static int may_go_by_ones(const fg_lanes *l, const asked *a, size_t count)
{
    const double seed = seed_of(l, a, l->samples[0]);
    for (size_t i = 0; l->of_uniform && i < count; i++)
        if (!(seed_of(l, a, l->samples[i]) == seed)) /* nan is like nothing */
            return 0;
    return l->by_ones && (!l->of_uniform || count == l->n_samples);
}

static void give_units(fg_lanes *l, const asked *a, size_t count)
{
    for (fg_id v = 0; v < l->callee.n_segments; v++) {
        const size_t size = l->program->callee.segments[v].count;
        for (size_t i = 0; i < count && l->varies[v]; i++) {
            const double seed = seed_of(l, a, l->samples[i]);
            const size_t at = l->place[v] + l->samples[i] * size;
            for (size_t e = at; e < at + size; e++)
                l->given[e] = seed * l->units[e];
        }
    }
    if (l->of_uniform)
        l->program->body.kernels->axpy(l->program->body.n, seed_of(l, a, l->samples[0]), l->unit_total, l->total);
}

/* On from the uniform nodes that have a gradient now to the operands. */
static int sweep_uniform(fg_lanes *l)
{
    fg_tape *const t = &l->program->body;
    fg_sweep *const s = fg_tape_sweep_begin(t, t->n);
    assert(s != NULL); /* there is always the one that was made with the program */
    s->marks.lowest = s->marks.highest = (t->n - 1) >> 12;
    memcpy(t->grad, l->total, t->n * sizeof *t->grad);
    for (fg_id k = 0; k < l->n_uniform; k++)
        for (fg_id i = l->uniform[k].first; i < l->uniform[k].first + l->uniform[k].count; i++)
            if (fg_bits_has(l->any_live, i))
                fg_marks_add(&s->marks, i);
    while (fg_sweep_run(t, s, 1 << 16) != FG_SWEEP_DONE)
        if (t->stop && t->stop()) {
            fg_sweep_cancel(t, s);
            return FG_E_INTERRUPTED;
        }
    return FG_OK;
}

/* Gradients by those of the results that count, to l->given and to the body's operands. */
static int reverse_all(fg_lanes *l, const asked *a)
{
    const size_t words = FG_MARKS_WORDS(l->program->body.n);
    fg_id n_outputs;
    memset(l->done, 0, l->n_samples);
    memset(l->any_live, 0, words * sizeof *l->any_live);
    if (l->shared)
        memset(l->total, 0, l->program->body.n * sizeof *l->total);
    if (l->numbers > 0)
        memset(l->given, 0, l->numbers * sizeof *l->given);
    for (;;) {
        const size_t count = next_samples(l, a, &n_outputs);
        if (count == 0)
            break;
        if (may_go_by_ones(l, a, count)) { /* there is one result, so all that count are these */
            const int status = l->unit_ready ? FG_OK : reverse_by_ones(l, count);
            if (status != FG_OK)
                return status;
            l->at_once = 1;
            l->awaited = 0;
            memcpy(l->any_live, l->of_all, words * sizeof *l->any_live);
            give_units(l, a, count);
            break;
        }
        const int partial = n_outputs < l->program->callee.n_results;
        const uint64_t *const live = partial ? l->live : l->of_all;
        if (partial)
            find_live(l, n_outputs, l->live);
        if (partial || l->partial)
            l->steps->go_by(l->batch, live);
        l->partial = partial;
        for (size_t w = 0; w < words; w++)
            l->any_live[w] |= live[w];
        const int status = reverse_samples(l, a, count);
        if (status != FG_OK)
            return status;
    }
    return l->shared ? sweep_uniform(l) : FG_OK;
}

static void give_view(const fg_slots *t, const fg_record *r, const fg_view *view, const double *from)
{
    const fg_id count = view->rows * view->cols;
    const int dense = fg_call_is_dense(view);
    for (fg_id e = 0; e < count; e++) {
        const fg_id i = dense ? view->base + e : fg_call_slot(r, view, e);
        if (!fg_call_is_frozen(t, i))
            t->grad[i] += from[e];
    }
}

static int reverse(fg_callee *c, const fg_slots *t, fg_record *r, fg_id first, const uint64_t *reached)
{
    fg_lanes *const l = lanes_of(c);
    take_data(l, t, r);
    const asked a = {t->grad, first, reached, 0, 0};
    int status = run_uniform(l, 1);
    if (status == FG_OK)
        status = reverse_all(l, &a);
    for (fg_id v = 0; v < r->views && status == FG_OK; v++) {
        const fg_view *const view = fg_record_view(r, v);
        if (!(view->flags & FG_VIEW_CONSTANT))
            give_view(t, r, view, l->varies[v] ? l->given + l->place[v]
                                               : l->program->body.grad + l->program->callee.segments[v].first);
    }
    return status;
}

/* ---- off the tape ---- */

void fg_lanes_changed(fg_lanes *l)
{
    l->ready = l->filled = 0;
}

int fg_lanes_sum(fg_lanes *l, const double *const *from, double *const *to, size_t count, double seed, double *sum)
{
    const fg_id node = l->program->results[0];
    const size_t lanes = smaller(l->steps->lanes(l->batch), l->n_samples); /* some may never have a sample */
    int status = run_uniform(l, 0);
    assert(l->program->callee.n_results == 1 && !l->partial);
    memset(l->total, 0, l->program->body.n * sizeof *l->total);
    memcpy(l->any_live, l->of_all, FG_MARKS_WORDS(l->program->body.n) * sizeof *l->any_live);
    l->filled = 0;
    *sum = 0.0;
    for (size_t i = 0; i < count && status == FG_OK; i += lanes) {
        const size_t used = smaller(lanes, count - i);
        fill_rows(l, from, i, used);
        status = l->steps->forward(l->batch, used, 0);
        l->in_lanes = status != FG_OK;
        if (status != FG_OK)
            return status;
        add_sum(l, node, used, sum);
        l->steps->clear(l->batch);
        l->steps->seed(l->batch, node, &seed, 0, NULL, used);
        status = l->steps->reverse(l->batch);
        if (status == FG_OK) {
            empty_rows(l, to, i, used);
            l->steps->add_sums(l->batch, l->total);
        }
    }
    return status == FG_OK ? sweep_uniform(l) : status;
}

/* ---- which operands gradients flow to ---- */

static int wants(const fg_callee *c, fg_id k)
{
    const fg_program *const p = const_lanes_of(c)->program;
    return fg_call_wants(&p->callee, p->used, k);
}

/* Of `count` samples, those in l->samples, the operands that have a bit in `flown_to`. */
static void mark_samples(const fg_lanes *l, const fg_tape *t, fg_record *r, size_t count, const uint64_t *flown_to,
                         fg_marks *marks, int leaves)
{
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        const fg_stretch s = l->program->callee.segments[v];
        if (!leaves && fg_call_has_leaves_alone(t, view))
            continue;
        for (size_t n = 0; n < (l->varies[v] ? count : 1); n++)
            fg_call_mark_view(t, r, view, l->varies[v] ? l->samples[n] * s.count : 0, s.count, flown_to, s.first, marks,
                              leaves);
    }
}

static void mark(fg_callee *c, const fg_tape *t, fg_record *r, fg_id first, int all, fg_marks *marks, int leaves)
{
    fg_lanes *const l = lanes_of(c);
    const asked a = {NULL, first, t->marks.word, 0, 0};
    fg_id n_outputs;
    if (all) {
        all_samples(l);
        mark_samples(l, t, r, l->n_samples, l->program->used, marks, leaves);
        return;
    }
    memset(l->done, 0, l->n_samples);
    for (;;) {
        const size_t count = next_samples(l, &a, &n_outputs);
        if (count == 0)
            break;
        find_operands(l, n_outputs);
        mark_samples(l, t, r, count, l->live, marks, leaves);
    }
}

/* Which samples result k of a call is of, one or all; *result: and which of the program's. */
static fg_stretch samples_of(const fg_lanes *l, fg_id k, fg_id *result)
{
    for (fg_id j = 0;; j++) {
        const fg_stretch s = l->results[j];
        *result = j;
        if (s.count == 0 && k == s.first)
            return (fg_stretch){0, l->n_samples};
        assert(k >= s.first); /* the results of the program come in order */
        if (s.count > 0 && (k - s.first) % s.count == 0 && (k - s.first) / s.count < l->n_samples)
            return (fg_stretch){(k - s.first) / s.count, 1};
    }
}

static fg_id operands(fg_callee *c, const fg_tape *t, fg_record *r, fg_id k, fg_id *ids, double *partials)
{
    fg_lanes *const l = lanes_of(c);
    fg_program *const p = l->program;
    const asked a = {NULL, 0, NULL, 1, k};
    fg_id count = 0, result = 0;
    const fg_stretch samples = samples_of(l, k, &result);
    if (partials) {
        const fg_slots slots = fg_slots_of(t);
        int (*const stop)(void) = p->body.stop;
        p->body.stop = NULL; /* nobody could begin again */
        take_data(l, &slots, r);
        (void)run_uniform(l, 1);
        (void)reverse_all(l, &a);
        p->body.stop = stop;
    }
    p->outputs[0] = p->results[result];
    find_operands(l, 1);
    for (fg_id v = 0; v < r->views; v++) {
        const fg_stretch s = p->callee.segments[v];
        const fg_id from = l->varies[v] ? samples.first * s.count : 0;
        for (fg_id e = 0; e < s.count * (l->varies[v] ? samples.count : 1); e++)
            if (fg_bits_has(l->live, s.first + e % s.count)) {
                if (ids)
                    ids[count] = fg_call_slot(r, fg_record_view(r, v), from + e);
                if (partials)
                    partials[count] = l->varies[v] ? l->given[l->place[v] + from + e] : p->body.grad[s.first + e];
                count++;
            }
    }
    return count;
}

/* ---- faults ---- */

static int fault(const fg_callee *c, double x[3], int32_t *k, int *status)
{
    const fg_lanes *const l = const_lanes_of(c);
    return l->in_lanes ? l->steps->fault(l->batch, x, k, status)
                       : l->program->callee.steps->fault(&l->program->callee, x, k, status);
}

/* ---- making one ---- */

static size_t bytes(const fg_callee *c)
{
    const fg_lanes *const l = const_lanes_of(c);
    return l->mem.bytes + l->program->callee.steps->bytes(&l->program->callee);
}

static void free_callee(fg_callee *c)
{
    fg_lanes_free(lanes_of(c));
}

static int copy(const fg_callee *c, int (*stop)(void), int64_t *fail_after, fg_callee **made)
{
    const fg_lanes *const l = const_lanes_of(c);
    fg_program *own = NULL;
    fg_lanes *other = NULL;
    int status = fg_program_copy_alone(l->program, stop, fail_after, &own);
    if (status == FG_OK)
        status = fg_lanes_make_of(own, l->varies, l->n_samples, l->groups, l->n_groups,
                                  (fg_id)l->steps->lanes(l->batch), fg_lanes_is_single(l), fail_after, &other);
    if (status == FG_OK)
        *made = &other->callee;
    return status;
}

static const fg_callee_steps lanes_steps = {forward, reverse, mark, operands, wants, fault, bytes, free_callee, copy};

/* Whether gradients for 1 by the results are worth it: where a backward pass would have to compute all blocks once
 * more, with loops in them. */
static int may_have_units(fg_lanes *l)
{
    for (fg_id k = 0; k < l->callee.n_segments; k++)
        l->of_uniform |= !l->varies[k] && wants(&l->callee, k);
    return l->program->callee.n_results == 1 && l->steps->is_varying(l->batch, l->program->results[0])
           && l->steps->lanes(l->batch) < l->n_samples && l->steps->has_scans(l->batch);
}

static int allocate(fg_lanes *l, void *array, size_t count, size_t size)
{
    return fg_mem_resize(&l->mem, array, 0, count, size);
}

static void release(fg_lanes *l, void *array, size_t count, size_t size)
{
    void **const where = array;
    if (*where)
        (void)fg_mem_resize(&l->mem, where, count, 0, size);
}

void fg_lanes_free(fg_lanes *l)
{
    const fg_id n_segments = l->callee.n_segments;
    void *place = l;
    if (l->batch) {
        release(l, &l->row, l->steps->lanes(l->batch), sizeof *l->row);
        l->steps->free(l->batch);
    }
    const size_t n = l->program->body.n, words = FG_MARKS_WORDS(n);
    release(l, &l->results, l->program->callee.n_results, sizeof *l->results);
    release(l, &l->total, n, sizeof *l->total);
    release(l, &l->unit_total, n, sizeof *l->unit_total);
    release(l, &l->live, words, sizeof *l->live);
    release(l, &l->any_live, words, sizeof *l->any_live);
    release(l, &l->of_all, words, sizeof *l->of_all);
    if (--l->program->callee.holders == 0)
        fg_program_free(l->program);
    release(l, &l->callee.segments, n_segments, sizeof *l->callee.segments);
    release(l, &l->varies, n_segments, sizeof *l->varies);
    release(l, &l->place, n_segments, sizeof *l->place);
    release(l, &l->groups, l->n_groups, sizeof *l->groups);
    release(l, &l->uniform, l->n_uniform, sizeof *l->uniform);
    release(l, &l->taken, l->numbers, sizeof *l->taken);
    release(l, &l->given, l->numbers, sizeof *l->given);
    release(l, &l->units, l->numbers, sizeof *l->units);
    release(l, &l->samples, l->n_samples, sizeof *l->samples);
    release(l, &l->done, l->n_samples, sizeof *l->done);
    fg_mem last = l->mem;
    (void)fg_mem_resize(&last, &place, 1, 0, sizeof *l);
}

/* Segments, and where their numbers are. */
static int set_segments(fg_lanes *l, const fg_program *p, const uint8_t *varies)
{
    const fg_id count = p->callee.n_segments;
    uint64_t first = 1;
    if (allocate(l, &l->callee.segments, count, sizeof *l->callee.segments) < 0)
        return FG_E_MEMORY;
    l->callee.n_segments = count;
    if (allocate(l, &l->varies, count, sizeof *l->varies) < 0 || allocate(l, &l->place, count, sizeof *l->place) < 0)
        return FG_E_MEMORY;
    for (fg_id k = 0; k < count; k++) {
        const uint64_t numbers = (uint64_t)p->callee.segments[k].count * (varies[k] ? l->n_samples : 1);
        if (first + numbers > FG_MAX_ID)
            return FG_E_FULL;
        l->callee.segments[k] = (fg_stretch){(fg_id)first, (fg_id)numbers};
        l->varies[k] = varies[k];
        l->place[k] = l->numbers;
        l->numbers += varies[k] ? (size_t)numbers : 0;
        first += numbers;
    }
    const size_t numbers = l->numbers;
    l->numbers = 0;
    if (allocate(l, &l->taken, numbers, sizeof *l->taken) < 0)
        return FG_E_MEMORY;
    l->numbers = numbers;
    if (numbers > 0)
        memset(l->taken, 0, numbers * sizeof *l->taken);
    return allocate(l, &l->given, numbers, sizeof *l->given);
}

static int set_results(fg_lanes *l, const fg_group *groups, fg_id n_groups)
{
    const fg_id n = l->program->callee.n_results;
    uint64_t first = 0;
    if (allocate(l, &l->groups, n_groups, sizeof *l->groups) < 0)
        return FG_E_MEMORY;
    l->n_groups = n_groups;
    memcpy(l->groups, groups, n_groups * sizeof *groups);
    if (allocate(l, &l->results, n, sizeof *l->results) < 0)
        return FG_E_MEMORY;
    for (fg_id g = 0; g < n_groups; g++) {
        for (fg_id j = 0; j < groups[g].count; j++)
            l->results[groups[g].first + j] = (fg_stretch){(fg_id)first + j, groups[g].summed ? 0 : groups[g].count};
        first += (uint64_t)groups[g].count * (groups[g].summed ? 1 : l->n_samples);
        if (first > FG_MAX_ID)
            return FG_E_FULL;
    }
    l->callee.n_results = (fg_id)first;
    return FG_OK;
}

/* How many stretches of nodes there are that are computed once, and, where not NULL, which. */
static fg_id list_uniform(const fg_lanes *l, fg_stretch *stretches)
{
    const fg_program *const p = l->program;
    const fg_tape *const t = &p->body;
    fg_id count = 0, last = 0; /* the node before the next of the stretch */
    for (fg_id i = p->area + (p->area > 0) + 1; i < t->n; i++) {
        const fg_id first = i, end = fg_tape_op(t, i) == FG_PART ? i + t->args[i].a : i;
        i = end; /* an instruction and its results */
        if (fg_op_is_leaf(fg_tape_op(t, i)) || l->steps->is_varying(l->batch, first))
            continue;
        if (last == 0 || first != last + 1) {
            if (stretches)
                stretches[count] = (fg_stretch){first, 0};
            count++;
        }
        if (stretches)
            stretches[count - 1].count += end + 1 - first;
        last = end;
    }
    return count;
}

static int fill(fg_lanes *l, fg_program *p, const uint8_t *varies, const fg_group *groups, fg_id n_groups,
                fg_id most_lanes)
{
    const size_t n = p->body.n, words = FG_MARKS_WORDS(n);
    uint8_t *operand = NULL;
    l->program = p;
    l->program->callee.holders = 1;
    int status = set_segments(l, p, varies);
    if (status < 0)
        return status;
    status = set_results(l, groups, n_groups);
    if (status < 0)
        return status;
    if (allocate(l, &l->total, n, sizeof *l->total) < 0 || allocate(l, &l->live, words, sizeof *l->live) < 0
        || allocate(l, &l->any_live, words, sizeof *l->any_live) < 0
        || allocate(l, &l->of_all, words, sizeof *l->of_all) < 0
        || allocate(l, &l->samples, l->n_samples, sizeof *l->samples) < 0
        || allocate(l, &l->done, l->n_samples, sizeof *l->done) < 0
        || allocate(l, &operand, (size_t)p->area + 1, sizeof *operand) < 0)
        return FG_E_MEMORY;
    memset(operand, 0, (size_t)p->area + 1);
    for (fg_id k = 0; k < p->callee.n_segments; k++)
        memset(operand + p->callee.segments[k].first, varies[k], p->callee.segments[k].count);
    status = l->steps->make(&l->batch, l->program, &l->mem, operand, l->n_samples, most_lanes);
    release(l, &operand, (size_t)p->area + 1, sizeof *operand);
    if (status < 0)
        return status;
    if (allocate(l, &l->row, l->steps->lanes(l->batch), sizeof *l->row) < 0)
        return FG_E_MEMORY;
    const fg_id n_uniform = list_uniform(l, NULL);
    if (allocate(l, &l->uniform, n_uniform, sizeof *l->uniform) < 0)
        return FG_E_MEMORY;
    l->n_uniform = n_uniform;
    l->shared = n_uniform > 0;
    for (fg_id k = 0; k < p->callee.n_segments; k++)
        l->shared |= !varies[k];
    (void)list_uniform(l, l->uniform);
    memcpy(l->program->outputs, l->program->results, l->program->callee.n_results * sizeof *l->program->outputs);
    find_live(l, l->program->callee.n_results, l->of_all);
    l->steps->go_by(l->batch, l->of_all);
    if (may_have_units(l)) {
        if (allocate(l, &l->units, l->numbers, sizeof *l->units) < 0
            || allocate(l, &l->unit_total, n, sizeof *l->unit_total) < 0)
            return FG_E_MEMORY;
        l->by_ones = l->at_once = 1;
    }
    return FG_OK;
}

int fg_lanes_make_of(fg_program *own, const uint8_t *varies, fg_id n_samples, const fg_group *groups, fg_id n_groups,
                     fg_id most_lanes, int single, int64_t *fail_after, fg_lanes **made)
{
    fg_mem mem;
    void *place = NULL;
    fg_mem_init(&mem);
    mem.fail_after = *fail_after;
    int status = fg_mem_resize(&mem, &place, 0, 1, sizeof **made);
    if (status == FG_OK) {
        fg_lanes *const l = place;
        *l = (fg_lanes){.callee = {.steps = &lanes_steps}, .mem = mem, .n_samples = n_samples,
                        .steps = single ? &fg_batch_of_floats : &fg_batch_of_doubles};
        status = fill(l, own, varies, groups, n_groups, most_lanes);
        mem.fail_after = l->mem.fail_after;
        l->mem.fail_after = -1;
        if (status < 0)
            fg_lanes_free(l);
        else
            *made = l;
    } else {
        fg_program_free(own);
    }
    *fail_after = mem.fail_after;
    return status;
}

int fg_lanes_make(fg_tape *t, const fg_program *p, const uint8_t *varies, fg_id n_samples, const fg_group *groups,
                  fg_id n_groups, fg_id most_lanes, int single, fg_lanes **made)
{
    fg_program *own = NULL;
    const int status = fg_program_copy(p, &t->mem.fail_after, &own);
    return status < 0 ? status
                      : fg_lanes_make_of(own, varies, n_samples, groups, n_groups, most_lanes, single,
                                         &t->mem.fail_after, made);
}

int fg_lanes_is(const fg_callee *c)
{
    return c->steps == &lanes_steps;
}

fg_program *fg_lanes_program(const fg_lanes *l)
{
    return l->program;
}

const uint8_t *fg_lanes_varies(const fg_lanes *l)
{
    return l->varies;
}

fg_id fg_lanes_samples(const fg_lanes *l)
{
    return l->n_samples;
}

double fg_lanes_number(const fg_lanes *l, fg_id place)
{
    fg_id v = 0;
    while (place >= l->callee.segments[v].first + l->callee.segments[v].count)
        v++;
    place -= l->callee.segments[v].first;
    return l->varies[v] ? l->taken[l->place[v] + place]
                        : l->program->body.data[l->program->callee.segments[v].first + place];
}

const fg_group *fg_lanes_groups(const fg_lanes *l, fg_id *count)
{
    *count = l->n_groups;
    return l->groups;
}

int fg_lanes_is_single(const fg_lanes *l)
{
    return l->steps == &fg_batch_of_floats;
}

size_t fg_lanes_width(const fg_lanes *l)
{
    return l->steps->lanes(l->batch);
}

int fg_lanes_is_varying(const fg_lanes *l, fg_id node)
{
    return fg_batch_is_varying(l->batch, node);
}

int fg_lanes_rehearse(fg_lanes *l, int step)
{
    const size_t lanes = fg_batch_lanes(l->batch);
    const asked all = {NULL, 0, NULL, 0, 0};
    if (step != FG_REHEARSE_BACKWARD) {
        fg_call_turn(l->taken, l->numbers);
        fg_call_turn(l->program->body.data + 1, l->program->area);
        l->ready = l->filled = 0;
    }
    if (step == FG_REHEARSE_TURN)
        return FG_OK;
    int status = run_uniform(l, 1);
    if (step == FG_REHEARSE_BACKWARD)
        return status == FG_OK ? reverse_all(l, &all) : status;
    all_samples(l);
    for (size_t i = 0; i < l->n_samples && status == FG_OK; i += lanes)
        status = run_lanes(l, l->samples + i, smaller(lanes, l->n_samples - i), 1);
    return status;
}
