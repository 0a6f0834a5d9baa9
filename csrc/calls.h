/* calls.h: what the callees of FG_CALL share: the numbers and the gradients of a call's operands, copied out of the
 * tape and back. A callee keeps them in an array of its own, each segment's where callee.segments says. */
#ifndef FG_CALLS_H
#define FG_CALLS_H

#include <math.h>
#include <string.h>

#include "block.h"

/* Whether the elements of a view follow each other, row by row. */
static inline int fg_call_is_dense(const fg_view *v)
{
    return !(v->flags & FG_VIEW_LIST) && (v->col_step == 1 || v->cols == 1)
           && (v->rows == 1 || v->row_step == (int32_t)v->cols);
}

/* An element of a view, counted row by row, of a view that is not dense. */
static inline fg_id fg_call_slot(const fg_record *r, const fg_view *v, fg_id e)
{
    return fg_record_slot(r, v, e / v->cols, e % v->cols);
}

/* Copy the operands' data to `data`; returns whether any of them was another there. */
static inline int fg_call_take_data(const fg_callee *c, const fg_slots *t, fg_record *r, double *data)
{
    int other = 0;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        const fg_id count = c->segments[v].count;
        double *const to = data + c->segments[v].first;
        if (fg_call_is_dense(view)) {
            const double *const from = t->data + view->base;
            if (memcmp(to, from, count * sizeof *to) != 0) {
                memcpy(to, from, count * sizeof *to);
                other = 1;
            }
            continue;
        }
        for (fg_id e = 0; e < count; e++) {
            const double *const from = t->data + fg_call_slot(r, view, e);
            other |= memcmp(to + e, from, sizeof *to) != 0;
            to[e] = *from;
        }
    }
    return other;
}

/* For a measurement: other numbers, in their last bit, and at the next time the same again. Ints stay. */
static inline void fg_call_turn(double *x, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        uint64_t bits;
        double even;
        memcpy(&bits, x + k, sizeof bits);
        bits &= ~(uint64_t)1;
        memcpy(&even, &bits, sizeof even);
        if (!(fabs(even) < 0x1p52) || even == floor(even))
            continue;
        memcpy(&bits, x + k, sizeof bits);
        bits ^= 1;
        memcpy(x + k, &bits, sizeof bits);
    }
}

/* Mark the slots of the operands in t->marks, or clear them; returns whether one was marked before. */
static inline int fg_call_mark_slots(const fg_slots *t, fg_record *r, int on)
{
    uint64_t *const word = t->marks;
    int twice = 0;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        const fg_id count = view->rows * view->cols;
        if (fg_call_is_dense(view)) {
            for (fg_id w = view->base >> 6; w <= (view->base + count - 1) >> 6; w++) {
                const uint64_t mask = fg_marks_mask(w, view->base, view->base + count);
                twice |= (word[w] & mask) != 0;
                word[w] = on ? word[w] | mask : word[w] & ~mask;
            }
            continue;
        }
        for (fg_id e = 0; e < count; e++) {
            const fg_id i = fg_call_slot(r, view, e);
            const uint64_t mask = (uint64_t)1 << (i & 63u);
            twice |= (word[i >> 6] & mask) != 0;
            word[i >> 6] = on ? word[i >> 6] | mask : word[i >> 6] & ~mask;
        }
    }
    return twice;
}

/* Enter into the record whether a slot is an operand twice: a forward step does so. */
static inline void fg_call_find_twice(const fg_slots *t, fg_record *r)
{
    r->k = (fg_id)fg_call_mark_slots(t, r, 1);
    (void)fg_call_mark_slots(t, r, 0);
}

static inline int fg_call_is_frozen(const fg_slots *t, fg_id i)
{
    return (t->op[i] & ~FG_HOOK) == FG_FROZEN;
}

static inline int fg_call_is_marked(const fg_slots *t, fg_id i)
{
    return (int)(t->marks[i >> 6] >> (i & 63u) & 1u);
}

/* The operands' gradients to `grad`, for the callee to add to, so that they are rounded as if its nodes were on the
 * tape; `op`: FG_FROZEN for constants and frozen leaves, whose gradients are not wanted, FG_LEAF for the others. A slot
 * that is an operand twice has its gradient in the first place, and in the others -0.0, to which anything can be added.
 * `none`: nothing has a gradient yet. */
static inline void fg_call_take_gradients(const fg_callee *c, const fg_slots *t, fg_record *r, double *grad,
                                          uint8_t *op, int none)
{
    uint64_t *const word = t->marks;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        const fg_stretch s = c->segments[v];
        double *const to = grad + s.first;
        uint8_t *const ops = op + s.first;
        const int dense = fg_call_is_dense(view);
        if (none || view->flags & FG_VIEW_CONSTANT) {
            memset(to, 0, s.count * sizeof *to);
            memset(ops, none ? FG_LEAF : FG_FROZEN, s.count);
            continue;
        }
        for (fg_id e = 0; e < s.count; e++)
            ops[e] = (uint8_t)(fg_call_is_frozen(t, dense ? view->base + e : fg_call_slot(r, view, e)) ? FG_FROZEN
                                                                                                     : FG_LEAF);
        if (dense && !r->k) {
            memcpy(to, t->grad + view->base, s.count * sizeof *to);
            continue;
        }
        for (fg_id e = 0; e < s.count; e++) {
            const fg_id i = fg_call_slot(r, view, e);
            to[e] = r->k && fg_call_is_marked(t, i) ? -0.0 : t->grad[i];
            if (r->k)
                word[i >> 6] |= (uint64_t)1 << (i & 63u);
        }
    }
    if (r->k && !none)
        (void)fg_call_mark_slots(t, r, 0);
}

/* The way back. */
static inline void fg_call_give_gradients(const fg_callee *c, const fg_slots *t, fg_record *r, const double *grad)
{
    uint64_t *const word = t->marks;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        const fg_stretch s = c->segments[v];
        const double *const from = grad + s.first;
        if (view->flags & FG_VIEW_CONSTANT)
            continue;
        if (fg_call_is_dense(view) && !r->k) {
            memcpy(t->grad + view->base, from, s.count * sizeof *from);
            continue;
        }
        for (fg_id e = 0; e < s.count; e++) {
            const fg_id i = fg_call_slot(r, view, e);
            t->grad[i] = r->k && fg_call_is_marked(t, i) ? t->grad[i] + from[e] : from[e];
            if (r->k)
                word[i >> 6] |= (uint64_t)1 << (i & 63u);
        }
    }
    if (r->k)
        (void)fg_call_mark_slots(t, r, 0);
}

#endif
