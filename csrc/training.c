/* training.c: see training.h. */
#include "training.h"

#include <math.h>
#include <string.h>

/* ---- between the store and a program ---- */

void fg_loop_settle(fg_loop *l)
{
    if (l->at < 0)
        return;
    const fg_lesson *const s = &l->lessons[l->at];
    for (size_t k = 0; k < s->n_kept; k++) {
        const fg_kept *const e = &s->kept[k];
        if (e->slot == 0)
            continue;
        memcpy(l->data + e->at, s->program->body.data + e->slot, e->count * sizeof(double));
        memcpy(l->grad + e->at, s->program->body.grad + e->slot, e->count * sizeof(double));
    }
    l->at = -1;
    l->filled = 0;
}

/* All numbers into the area of a lesson's program. */
static void enter(fg_loop *l, int which)
{
    fg_lesson *const s = &l->lessons[which];
    fg_tape *const body = &s->program->body;
    fg_loop_settle(l);
    memset(body->op + 1, FG_FROZEN, s->program->area); /* of the columns */
    for (size_t k = 0; k < s->n_kept; k++) {
        const fg_kept *const e = &s->kept[k];
        if (e->slot == 0)
            continue;
        memcpy(body->data + e->slot, l->data + e->at, e->count * sizeof(double));
        memcpy(body->grad + e->slot, l->grad + e->at, e->count * sizeof(double));
        memset(body->op + e->slot, e->frozen ? FG_FROZEN : FG_LEAF, e->count);
    }
    if (!s->planned && s->order)
        s->planned = fg_program_plan(s->program, s->order, s->n_order, &s->plan) == FG_OK;
    l->at = which;
}

/* ---- one step ---- */

/* The samples of a batch into the area. */
static void fill(fg_loop *l, const fg_lesson *s)
{
    double *const data = s->program->body.data;
    const int64_t *const order = l->order ? l->order + l->epoch * l->n_samples + l->begin : NULL;
    for (fg_id c = 0; c < l->n_columns; c++) {
        const size_t width = l->columns[c].width;
        const double *const from = l->columns[c].from;
        double *const to = data + s->slots[c];
        if (!order) {
            memcpy(to, from + l->begin * width, s->rows * width * sizeof *to);
            continue;
        }
        for (fg_id i = 0; i < s->rows; i++)
            memcpy(to + i * width, from + (size_t)order[i] * width, width * sizeof *to);
    }
    for (fg_id i = 0; s->labels && i < s->rows; i++)
        s->labels[i] = (fg_id)l->label[order ? (size_t)order[i] : l->begin + i];
}

/* The gradients of what is updated begin at 0, whether the program reads it or not; those of others go into the store,
 * in case of an interruption. */
static void clear(fg_loop *l, const fg_lesson *s)
{
    double *const grad = s->program->body.grad;
    for (size_t k = 0; k < s->n_kept; k++) {
        const fg_kept *const e = &s->kept[k];
        assert(e->slot > 0 || e->learner != FG_MAX_ID); /* else nobody has to do with it */
        if (e->learner != FG_MAX_ID)
            memset(e->slot ? grad + e->slot : l->grad + e->at, 0, e->count * sizeof *grad);
        else
            memcpy(l->grad + e->at, grad + e->slot, e->count * sizeof *grad);
    }
}

/* After an interruption: the gradients of others as they were before. */
static void restore(fg_loop *l, const fg_lesson *s)
{
    for (size_t k = 0; k < s->n_kept; k++) {
        const fg_kept *const e = &s->kept[k];
        if (e->learner == FG_MAX_ID)
            memcpy(s->program->body.grad + e->slot, l->grad + e->at, e->count * sizeof(double));
    }
}

/* The sum of |gradient / divisor|**power over a learner's rows, the first of which is *row; the largest for INFINITY. */
static double power_sum(const fg_loop *l, const fg_kernels *kernels, const fg_learner *e, const size_t *row, double power,
                        double divisor)
{
    double total = 0.0;
    for (size_t at = e->at; at < e->at + e->count; at += *row++) {
        const double part = kernels->power_sum(*row, l->grad + at, power, divisor);
        if (!isinf(power))
            total += part;
        else if (part > total || isnan(part))
            total = part;
    }
    return total;
}

/* As Parameters.grad_norm has it, of the order 2. */
static double norm(const fg_loop *l, const fg_kernels *kernels, const fg_learner *e, const size_t *row)
{
    const double total = power_sum(l, kernels, e, row, 2.0, 1.0);
    if (isnan(total))
        return total;
    if (1e-280 < total && total < 1e280)
        return sqrt(total);
    const double largest = power_sum(l, kernels, e, row, INFINITY, 1.0);
    if (!(0.0 < largest && largest < INFINITY))
        return largest;
    return largest * pow(power_sum(l, kernels, e, row, 2.0, largest), 0.5);
}

/* The norm of all gradients, as norm_of() has it in src/flatgrad/optim/clip.py. */
static double whole_norm(const fg_loop *l, const fg_kernels *kernels)
{
    double largest = 0.0, total = 0.0;
    for (int pass = 0; pass < 2; pass++) { /* no room for the norms is needed, as one learner is the rule */
        const size_t *row = l->rows;
        for (fg_id k = 0; k < l->n_learners; k++) {
            const fg_learner *const e = &l->learners[k];
            const double part = norm(l, kernels, e, row);
            if (isnan(part) || l->n_learners == 1)
                return part;
            if (pass == 0)
                largest = part > largest ? part : largest;
            else
                total += pow(part / largest, 2.0);
            for (size_t at = 0; at < e->count; at += *row++) {
            }
        }
        if (!(0.0 < largest && largest < INFINITY))
            return largest;
    }
    return largest * pow(total, 0.5);
}

static void clip(fg_loop *l, const fg_lesson *s)
{
    const fg_kernels *const kernels = s->program->body.kernels;
    double *const grad = s->program->body.grad;
    double factor = 1.0;
    if (l->clip == FG_CLIP_NORM) { /* in the store the gradients lie as the optimizer has them */
        for (size_t k = 0; k < s->n_kept; k++) {
            const fg_kept *const e = &s->kept[k];
            if (e->learner == FG_MAX_ID || e->slot == 0)
                continue;
            if (e->frozen) /* whatever the sweep of a whole layer has added there */
                memset(l->grad + e->at, 0, e->count * sizeof *grad);
            else
                memcpy(l->grad + e->at, grad + e->slot, e->count * sizeof *grad);
        }
        factor = l->bound / (whole_norm(l, kernels) + 1e-6);
        if (factor >= 1.0)
            return;
    }
    for (size_t k = 0; k < s->n_kept; k++) {
        const fg_kept *const e = &s->kept[k];
        double *const of = e->slot ? grad + e->slot : l->grad + e->at;
        if (e->learner == FG_MAX_ID)
            continue;
        if (l->clip == FG_CLIP_NORM)
            kernels->scale(e->count, factor, of);
        else
            kernels->clip(e->count, l->bound, of);
    }
}

/* As Parameters.step has it, in src/flatgrad/border/parameters.pxi. */
static void update(fg_loop *l, const fg_lesson *s)
{
    const fg_tape *const body = &s->program->body;
    for (fg_id k = 0; k < l->n_learners; k++) {
        fg_learner *const e = &l->learners[k];
        const double t = (double)(e->steps + 1), lr = l->rates ? l->rates[l->done * l->n_learners + k] : e->lr;
        e->how.lr = lr / (1.0 + (double)e->steps * e->lr_decay);
        if (e->rule == FG_ADAM) {
            e->how.correction1 = 1.0 - pow(e->how.beta1, t);
            e->how.correction2 = 1.0 - pow(e->how.beta2, t);
        }
    }
    for (size_t k = 0; k < s->n_kept; k++) {
        const fg_kept *const e = &s->kept[k];
        if (e->learner == FG_MAX_ID || e->frozen)
            continue;
        fg_learner *const of = &l->learners[e->learner];
        double *state[3];
        for (int j = 0; j < 3; j++)
            state[j] = of->state[j] ? of->state[j] + (e->at - of->at) : NULL;
        if (of->rule != FG_NO_RULE)
            body->kernels->update[of->rule](e->count, e->slot ? body->data + e->slot : l->data + e->at,
                                            e->slot ? body->grad + e->slot : l->grad + e->at, state, &of->how);
    }
    for (fg_id k = 0; k < l->n_learners; k++) {
        l->learners[k].how.first = 0;
        l->learners[k].steps++;
    }
}

static int step(fg_loop *l, int which)
{
    const fg_lesson *const s = &l->lessons[which];
    fg_program *const p = s->program;
    if (l->at != which)
        enter(l, which);
    if (!l->filled)
        fill(l, s);
    l->filled = l->n_samples == s->rows && !l->order;
    if (!l->ready)
        fg_draws_take(s->draws, s->n_draws, p->body.data + s->drawn);
    l->ready = 1;
    int status = s->planned ? fg_program_run_plan(p, &s->plan) : fg_program_run(p, 0);
    if (status != FG_OK)
        return status;
    const double loss = p->body.data[p->results[0]];
    if (l->picky && !isfinite(loss))
        return FG_LOOP_DIVERGED;
    clear(l, s);
    status = s->planned ? fg_program_sweep_plan(p, 0, &s->plan)
                        : fg_program_sweep(p, 0, s->order, s->n_order);
    if (status != FG_OK) {
        restore(l, s);
        return status;
    }
    if (l->clip != FG_CLIP_NOT)
        clip(l, s);
    update(l, s);
    p->ready = l->ready = 0;
    l->losses[l->done++] = loss;
    if (l->kept) {
        double *const to = l->kept + l->begin * l->kept_width;
        for (size_t k = 0; k < s->rows * l->kept_width; k++)
            to[k] = p->body.data[p->results[1 + k]];
    }
    l->begin += s->rows;
    if (l->begin >= l->n_samples) {
        l->begin = 0;
        l->epoch++;
    }
    return FG_OK;
}

int fg_loop_run(fg_loop *l, size_t steps, int *at)
{
    while (l->done < steps) {
        const size_t rest = l->n_samples - l->begin;
        *at = rest < l->lessons[0].rows;
        const int status = step(l, *at);
        if (status != FG_OK)
            return status;
    }
    return FG_OK;
}

/* ---- before and after ---- */

void fg_loop_prepare(fg_loop *l)
{
    for (int k = 0; k < l->n_lessons; k++) {
        fg_program *const p = l->lessons[k].program;
        p->outputs[0] = p->results[0];
        l->lessons[k].n_order = fg_program_order(p, 1, &l->lessons[k].order);
    }
}

void fg_loop_free(fg_loop *l)
{
    for (int k = 0; k < l->n_lessons; k++) { /* none until all have a program */
        fg_program_release_order(l->lessons[k].program, l->lessons[k].order, l->lessons[k].n_order);
        fg_program_release_plan(l->lessons[k].program, &l->lessons[k].plan);
    }
}

fg_id *fg_loop_labels(fg_program *p, fg_id rows, size_t *classes)
{
    fg_id *labels = NULL;
    for (fg_id i = p->area + 1; i < p->body.n; i++) {
        if (fg_tape_op(&p->body, i) != FG_CROSS_ENTROPY)
            continue;
        fg_record *const r = fg_tape_record(&p->body, i);
        if (labels || r->extra != rows)
            return NULL;
        labels = fg_record_extra(r);
        *classes = fg_record_view(r, 0)->cols;
    }
    return labels;
}

const fg_update_text fg_update_texts[] = {
#define FG_UPDATE(type, name, parameters, comment, ...) {#name, #parameters, comment, #__VA_ARGS__},
#include "updates.def"
    {NULL, NULL, NULL, NULL},
};
