/* callback.c: see callback.h. */
#include "callback.h"

static const fg_callee_steps callback_steps;

static fg_callback *callback_of(fg_callee *c)
{
    return (fg_callback *)(void *)c; /* its first member */
}

static size_t words_of(fg_id n_results)
{
    return ((size_t)n_results + 63u) / 64u;
}

/* ---- the steps of FG_CALL ---- */

/* Its results are always given. */
static int forward(fg_callee *c, const fg_slots *slots, fg_record *r, double *z)
{
    (void)c, (void)slots, (void)r, (void)z;
    return FG_OK;
}

/* The caller does it: a sweep stops before. */
static int reverse(fg_callee *c, const fg_slots *slots, fg_record *r, fg_id first, const uint64_t *reached)
{
    (void)c, (void)slots, (void)r, (void)first, (void)reached;
    return FG_OK;
}

/* Any result may depend on any operand. */
static void mark(fg_callee *c, const fg_tape *t, fg_record *r, fg_id first, int all, fg_marks *marks, int leaves)
{
    (void)c, (void)first, (void)all;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        const fg_id count = view->rows * view->cols;
        if (view->flags & FG_VIEW_CONSTANT || (!leaves && fg_call_has_leaves_alone(t, view)))
            continue;
        if (fg_call_is_dense(view)) {
            fg_marks_add_range(marks, view->base, view->base + count);
            continue;
        }
        for (fg_id e = 0; e < count; e++)
            fg_marks_add(marks, fg_call_slot(r, view, e));
    }
}

static fg_id operands(fg_callee *c, const fg_tape *t, fg_record *r, fg_id k, fg_id *ids, double *partials)
{
    fg_id count = 0;
    (void)c, (void)t, (void)k;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        for (fg_id e = 0; e < view->rows * view->cols; e++, count++) {
            if (ids)
                ids[count] = fg_call_slot(r, view, e);
            if (partials)
                partials[count] = 0.0; /* not known here */
        }
    }
    return count;
}

static int wants(const fg_callee *c, fg_id k)
{
    (void)c, (void)k;
    return 1;
}

static int fault(const fg_callee *c, double x[3], int32_t *k, int *status)
{
    (void)c, (void)x, (void)k;
    *status = FG_OK;
    return FG_COPY;
}

static size_t bytes(const fg_callee *c)
{
    return ((const fg_callback *)(const void *)c)->mem.bytes;
}

static void free_callee(fg_callee *c)
{
    fg_callback_free(callback_of(c));
}

static const fg_callee_steps callback_steps = {forward, reverse, mark, operands, wants, fault, bytes, free_callee, NULL};

/* ---- making one ---- */

int fg_callback_make(fg_mem *mem, const fg_id *counts, fg_id n, fg_id n_results, fg_callback **made)
{
    void *place = NULL;
    const size_t words = words_of(n_results);
    const size_t size = sizeof(fg_callback) + words * sizeof(uint64_t) + n * sizeof(fg_stretch);
    const int status = fg_mem_resize(mem, &place, 0, size, 1);
    if (status < 0)
        return status;
    mem->bytes -= size;
    fg_callback *const c = place;
    memset(c, 0, size);
    c->mem = (fg_mem){size, -1};
    c->callee = (fg_callee){.steps = &callback_steps, .n_segments = n, .n_results = n_results,
                            .segments = (fg_stretch *)(void *)(c->reached + words)};
    fg_id next = 1;
    for (fg_id k = 0; k < n; k++) {
        c->callee.segments[k] = (fg_stretch){next, counts[k]};
        next += counts[k];
    }
    *made = c;
    return FG_OK;
}

void fg_callback_free(fg_callback *c)
{
    fg_mem last = c->mem;
    void *place = c;
    (void)fg_mem_resize(&last, &place, last.bytes, 0, 1);
}

int fg_callback_is(const fg_callee *c)
{
    return c->steps == &callback_steps;
}

fg_callback *fg_callback_at(const fg_tape *t, fg_id i)
{
    if (fg_tape_op(t, i) != FG_CALL)
        return NULL;
    fg_callee *const c = fg_tape_callee(t, fg_tape_record(t, i));
    return fg_callback_is(c) ? callback_of(c) : NULL;
}

/* ---- which results gradients come from ---- */

void fg_callback_reach(fg_tape *t, fg_id i, uint64_t *word)
{
    fg_callback *const c = fg_callback_at(t, i);
    const fg_id first = i - t->args[i].b;
    memset(c->reached, 0, words_of(c->callee.n_results) * sizeof *c->reached);
    for (fg_id w = first >> 6; w <= (i - 1) >> 6; w++) {
        uint64_t bits = word[w] & fg_marks_mask(w, first, i);
        word[w] ^= bits;
        for (; bits; bits &= bits - 1u) {
            const fg_id k = (w << 6) + fg_bits_low(bits) - first;
            c->reached[k >> 6] |= (uint64_t)1 << (k & 63u);
        }
    }
}

void fg_callback_reach_one(fg_callback *c, fg_id k)
{
    memset(c->reached, 0, words_of(c->callee.n_results) * sizeof *c->reached);
    c->reached[k >> 6] = (uint64_t)1 << (k & 63u);
}
