/* calls.h: what the callees of FG_CALL share: the numbers and the gradients of a call's operands, copied out of the
 * tape and back, and which operands are marked. A callee keeps both in arrays of its own, each segment's where
 * callee.segments says. */
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

/* Copy the data of a view to `to`; returns whether any number was another there. */
static inline int fg_call_take_view(const fg_slots *t, const fg_record *r, const fg_view *view, double *to)
{
    const fg_id count = view->rows * view->cols;
    int other = 0;
    if (fg_call_is_dense(view)) {
        const double *const from = t->data + view->base;
        other = memcmp(to, from, count * sizeof *to) != 0;
        if (other)
            memcpy(to, from, count * sizeof *to);
        return other;
    }
    for (fg_id e = 0; e < count; e++) {
        const double *const from = t->data + fg_call_slot(r, view, e);
        other |= memcmp(to + e, from, sizeof *to) != 0;
        to[e] = *from;
    }
    return other;
}

/* Copy the operands' data to `data`; returns whether any of them was another there. */
static inline int fg_call_take_data(const fg_callee *c, const fg_slots *t, fg_record *r, double *data)
{
    int other = 0;
    for (fg_id v = 0; v < r->views; v++)
        other |= fg_call_take_view(t, r, fg_record_view(r, v), data + c->segments[v].first);
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

/* Whether the views are few and each of them lies in a row, apart from all others. */
static inline int fg_call_is_plain(fg_record *r)
{
    enum { FEW = 12 };
    for (fg_id v = 0; v < r->views && r->views <= FEW; v++) {
        const fg_view *const view = fg_record_view(r, v);
        if (!fg_call_is_dense(view))
            return 0;
        for (fg_id u = 0; u < v; u++) {
            const fg_view *const other = fg_record_view(r, u);
            if (view->base < other->base + other->rows * other->cols
                && other->base < view->base + view->rows * view->cols)
                return 0;
        }
    }
    return r->views <= FEW;
}

/* Enter into the record whether a slot is an operand twice: a forward step does so. */
static inline void fg_call_find_twice(const fg_slots *t, fg_record *r)
{
    r->k = 0;
    if (fg_call_is_plain(r)) /* mostly, and then most often they have many slots */
        return;
    r->k = (fg_id)fg_call_mark_slots(t, r, 1);
    (void)fg_call_mark_slots(t, r, 0);
}

static inline int fg_call_is_frozen(const fg_slots *t, fg_id i)
{
    return (t->op[i] & ~FG_HOOK) == FG_FROZEN;
}

static inline int fg_call_is_marked(const fg_slots *t, fg_id i)
{
    return fg_bits_has(t->marks, i);
}

/* Whether the gradients of segment v are added to where they are. `outside`: of each segment, or NULL. */
static inline int fg_call_adds_in_place(const fg_outside *outside, fg_id v)
{
    return outside && outside[v].grad;
}

/* The operands' gradients to `grad`, for the callee to add to, so that they are rounded as if its nodes were on the
 * tape; `op`: FG_FROZEN for constants and frozen leaves, whose gradients are not wanted, FG_LEAF for the others. A slot
 * that is an operand twice has its gradient in the first place, and in the others -0.0, to which anything can be added.
 * `none`: nothing has a gradient yet. Segments that are added to in place are left out; then no slot is an operand
 * twice. */
static inline void fg_call_take_gradients(const fg_callee *c, const fg_slots *t, fg_record *r, double *grad,
                                          uint8_t *op, int none, const fg_outside *outside)
{
    uint64_t *const word = t->marks;
    for (fg_id v = 0; v < r->views; v++) {
        if (fg_call_adds_in_place(outside, v))
            continue;
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
static inline void fg_call_give_gradients(const fg_callee *c, const fg_slots *t, fg_record *r, const double *grad,
                                          const fg_outside *outside)
{
    uint64_t *const word = t->marks;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        const fg_stretch s = c->segments[v];
        const double *const from = grad + s.first;
        if (view->flags & FG_VIEW_CONSTANT || fg_call_adds_in_place(outside, v))
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

/* ---- which operands gradients flow to ---- */

/* Whether a sweep has nothing to visit among the slots of a view: mostly they are weights. */
static inline int fg_call_has_leaves_alone(const fg_tape *t, const fg_view *view)
{
    return view->flags & FG_VIEW_CONSTANT
           || (fg_call_is_dense(view) && fg_block_are_leaves(t, view->base, view->base + view->rows * view->cols));
}

/* Mark `count` elements of a view from element `from` on: those that have a bit in `bits`, which are counted from
 * `first` on; without `leaves` as far as a sweep has to visit them. */
static inline void fg_call_mark_view(const fg_tape *t, const fg_record *r, const fg_view *view, fg_id from, fg_id count,
                                     const uint64_t *bits, fg_id first, fg_marks *marks, int leaves)
{
    const int dense = fg_call_is_dense(view);
    for (fg_id e = 0; e < count; e++) {
        const fg_id i = dense ? view->base + from + e : fg_call_slot(r, view, from + e);
        if (fg_bits_has(bits, first + e) && (leaves || !fg_op_is_leaf(t->op[i])))
            fg_marks_add(marks, i);
    }
}

/* Mark the operands that have a bit in `bits`, in which they are counted as the segments say: fg_callee_steps.mark. */
static inline void fg_call_mark(const fg_callee *c, const fg_tape *t, const uint64_t *bits, fg_record *r,
                                fg_marks *marks, int leaves)
{
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        if (leaves || !fg_call_has_leaves_alone(t, view))
            fg_call_mark_view(t, r, view, 0, c->segments[v].count, bits, c->segments[v].first, marks, leaves);
    }
}

/* Whether gradients flow to segment k, of those that have a bit in `used`. */
static inline int fg_call_wants(const fg_callee *c, const uint64_t *used, fg_id k)
{
    const fg_stretch s = c->segments[k];
    for (fg_id i = s.first; i < s.first + s.count; i++)
        if (fg_bits_has(used, i))
            return 1;
    return 0;
}

#endif
