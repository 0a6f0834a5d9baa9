/* sweep.c: see sweep.h. The marked nodes are the ones still to visit: a node marks its operands,
 * whose ids are smaller, so taking the highest mark first is a topological order. */
#include "sweep.h"

#include "callback.h"

#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define NOINLINE __attribute__((noinline))
#elif defined(_MSC_VER)
#define NOINLINE __declspec(noinline)
#else
#define NOINLINE
#endif

static double pool_partial(const fg_tape *t, fg_args args, fg_id k)
{
    double partial;
    memcpy(&partial, t->pool + args.a + args.b + 2 * k, sizeof partial);
    return partial;
}

/* The rule of node i's operation. */
static FG_ALWAYS void apply(fg_tape *t, fg_id i)
{
    const double *const data = t->data;
    double *const grad = t->grad;
    const fg_args args = t->args[i];
    const double dz = grad[i], z = data[i];

    switch (fg_tape_op(t, i)) {
#define FG_ROW(ID, arity, forward, dx_, dy_, dw_, status)                            \
    case FG_##ID: {                                                                  \
        const fg_id *const o = t->pool + args.a;                                     \
        const fg_id a = arity > 2 ? o[0] : args.a, b = arity > 2 ? o[1] : args.b;    \
        const double x = data[a], y = arity > 1 ? data[b] : 0.0;                     \
        const double w = arity > 2 ? data[o[2]] : 0.0;                               \
        const int32_t k = (int32_t)args.b;                                           \
        (void)o, (void)b, (void)x, (void)y, (void)w, (void)z, (void)k;               \
        grad[a] += (dx_);                                                            \
        if (arity > 1)                                                               \
            grad[b] += (dy_);                                                        \
        if (arity > 2)                                                               \
            grad[o[2]] += (dw_);                                                     \
        break;                                                                       \
    }
#include "rows.def"
    case FG_LOCAL:
        for (fg_id k = 0; k < args.b; k++)
            grad[t->pool[args.a + k]] += pool_partial(t, args, k) * dz;
        break;
    default: /* FG_LEAF, FG_FROZEN and FG_CUSTOM */
        break;
    }
}

/* Which parts of word w, of those in `marked`, have a hook. */
static uint64_t hooked_parts(const fg_tape *t, fg_id w, uint64_t marked)
{
    uint64_t hooked = 0;
    for (; marked; marked &= marked - 1u) {
        const unsigned bit = fg_bits_low(marked);
        hooked |= (uint64_t)(t->op[(w << 6) + bit] >> 7) << bit;
    }
    return hooked;
}

/* The results that are marked of a call that the caller computes: it has its turn for all of them. */
static int visit_callback(fg_tape *t, fg_sweep *s, fg_id block)
{
    fg_callback_reach(t, block, s->marks.word);
    fg_block_mark_operands(t, block, &s->marks, FG_VISITED);
    s->hook = block;
    return FG_SWEEP_HOOK;
}

/* Visit the parts that are marked of the instruction of part i, the highest of them: all users of its results have
 * been visited. A part with a hook goes alone, and the others all at once. What visit() returns. */
static int visit_parts(fg_tape *t, fg_sweep *s, fg_id i)
{
    const fg_id block = i + t->args[i].a, count = t->args[block].b, first = block - count;
    uint64_t *const word = s->marks.word;
    fg_id reached = 0;
    if (t->op[i] & FG_HOOK) {
        t->marks.word[i >> 6] = (uint64_t)1 << (i & 63u);
        fg_block_mark_reached(t, block, &s->marks);
        t->marks.word[i >> 6] = 0;
        s->hook = i;
        return FG_SWEEP_HOOK;
    }
    word[i >> 6] |= (uint64_t)1 << (i & 63u); /* it had been taken out */
    if (FG_UNLIKELY(fg_callback_at(t, block) != NULL))
        return visit_callback(t, s, block);
    for (fg_id w = first >> 6; w <= i >> 6; w++) {
        uint64_t marked = word[w] & fg_marks_mask(w, first, i + 1);
        if (FG_UNLIKELY(t->op[block] & FG_HOOK))
            marked &= ~hooked_parts(t, w, marked);
        t->marks.word[w] = marked;
        reached += fg_bits_count(marked);
    }
    if (reached == count)
        fg_block_mark_operands(t, block, &s->marks, FG_VISITED);
    else
        fg_block_mark_reached(t, block, &s->marks);
    const int status = fg_block_apply(t, block, reached < count, &s->done);
    for (fg_id w = first >> 6; w <= i >> 6; w++) {
        if (status == FG_OK)
            word[w] &= ~t->marks.word[w];
        t->marks.word[w] = 0;
    }
    return status == FG_OK ? FG_SWEEP_DONE : FG_SWEEP_MORE;
}

/* Mark the operands of node i, which is no part; which: of an instruction. */
static FG_ALWAYS void mark_operands(const fg_tape *t, fg_id i, fg_marks *marks, fg_which which)
{
    fg_id count;
    const fg_id *const ids = fg_tape_operands(t, i, &count);
    for (fg_id k = 0; k < count; k++)
        fg_marks_add(marks, ids[k]);
    if (fg_op_is_block(fg_tape_op(t, i)))
        fg_block_mark_operands(t, i, marks, which);
}

/* Visit node i, whatever it is: mark its operands and add to their gradients. FG_SWEEP_HOOK if it has a hook, and
 * the second is left to that; FG_SWEEP_MORE if it is a long instruction that is not done, and is still marked. */
static NOINLINE int visit(fg_tape *t, fg_sweep *s, fg_id i)
{
    const int op = t->op[i];
    if (FG_LIKELY(fg_op_is_inline(op))) { /* so no hook, and no leaf: those come here with one */
        const fg_args args = t->args[i];
        fg_marks_add(&s->marks, args.a);
        if (fg_op_inline_arity(op) == 2)
            fg_marks_add(&s->marks, args.b);
        apply(t, i);
        return FG_SWEEP_DONE;
    }
    if (fg_tape_op(t, i) == FG_PART)
        return visit_parts(t, s, i);
    mark_operands(t, i, &s->marks, FG_VISITED);
    if (op & FG_HOOK) {
        s->hook = i;
        return FG_SWEEP_HOOK;
    }
    if (fg_sweep_apply(t, i, &s->done) == FG_OK)
        return FG_SWEEP_DONE;
    s->marks.word[i >> 6] |= (uint64_t)1 << (i & 63u);
    return FG_SWEEP_MORE;
}

int fg_sweep_apply(fg_tape *t, fg_id i, size_t *done)
{
    const int op = fg_tape_op(t, i);
    int status = FG_OK;
    if (fg_op_is_block(op)) {
        status = fg_block_apply(t, i, 0, done);
    } else if (op == FG_PART) {
        t->marks.word[i >> 6] = (uint64_t)1 << (i & 63u);
        status = fg_block_apply(t, i + t->args[i].a, 1, done);
        t->marks.word[i >> 6] = 0;
    } else {
        apply(t, i);
    }
    return status;
}

int fg_sweep_replay(fg_tape *t, const fg_id *nodes, fg_id count, const uint64_t *seen)
{
    for (fg_id k = 0; k < count; k++) {
        const fg_id i = nodes[k];
        const int op = t->op[i];
        if (FG_LIKELY(fg_op_is_scalar(op))) {
            apply(t, i);
            continue;
        }
        const fg_id block = op == FG_PART ? i + t->args[i].a : i;
        const int status = fg_block_apply_reached(t, block, op == FG_PART ? seen : NULL);
        if (status != FG_OK)
            return status;
    }
    return FG_OK;
}

/* Rows whose rule is expanded inside the loop below as well; nothing that calls a function, for
 * that would push the loop's pointers out of registers. */
#define IS_HOT(op) ((op) == FG_ADD || (op) == FG_MUL || (op) == FG_SUB || (op) == FG_RELU)

/* Visit the marked nodes of word `at`, the highest first, with those that they mark in the same word. If it is not
 * FG_SWEEP_DONE that visit() returned, it stops, with what is left marked in the word.
 *
 * Three things halve the time that a chain takes, where each node waits for the one before. The
 * word's marks are in a register. Whether the node below comes next, as it mostly does, is asked
 * before counting bits: a branch is predicted, where a count would wait for this node's operands.
 * And the gradient just written is still in a register when its node comes next: reading it back
 * would wait for the store. */
static int drain_word(fg_tape *t, fg_sweep *s, fg_id at)
{
    const uint8_t *const ops = t->op;
    const fg_args *const all_args = t->args;
    const double *const data = t->data;
    double *const grad = t->grad;
    uint64_t *const word = s->marks.word;
    uint64_t marked = word[at];
    unsigned bit = fg_bits_top(marked);
    fg_id last = 0; /* a node whose gradient is d_last, 0 if there is none */
    double d_last = 0.0;

#define MARK(operand)                                        \
    do {                                                     \
        if ((operand) >> 6 == at)                             \
            marked |= (uint64_t)1 << ((operand)&63u);        \
        else                                                 \
            fg_marks_add(&s->marks, (operand));              \
    } while (0)

    for (;;) {
        const fg_id i = (at << 6) + bit;
        const int op = ops[i];
        const double dz = i == last ? d_last : grad[i];
        marked ^= (uint64_t)1 << bit;

#define FG_ROW(ID, arity, forward, dx_, dy_, dw_, status)                            \
    if (IS_HOT(FG_##ID) && op == FG_##ID) {                                          \
        const fg_id a = all_args[i].a, b = arity > 1 ? all_args[i].b : 0;            \
        const double x = data[a], y = arity > 1 ? data[b] : 0.0, z = data[i], w = 0; \
        const int32_t k = 0;                                                         \
        (void)b, (void)x, (void)y, (void)w, (void)z, (void)k;                        \
        grad[a] = d_last = grad[a] + (dx_);                                          \
        if (arity > 1)                                                               \
            grad[b] += (dy_); /* a == b adds twice, as it should */                  \
        last = arity > 1 && a == b ? 0 : a;                                          \
        MARK(a);                                                                     \
        if (arity > 1)                                                               \
            MARK(b);                                                                 \
    } else
#include "rows.def"
        {
            if (op != FG_LEAF) {
                word[at] = marked;
                const int stopped = visit(t, s, i);
                if (FG_UNLIKELY(stopped != FG_SWEEP_DONE))
                    return stopped;
                marked = word[at];
                last = 0;
            }
        }

        /* At bit 0 nothing is left, so the shift by 63 finds nothing either. */
        if (FG_LIKELY(marked >> ((bit - 1u) & 63u) & 1u))
            bit--;
        else if (marked)
            bit = fg_bits_top(marked);
        else
            break;
    }
#undef MARK
    word[at] = 0;
    return FG_SWEEP_DONE;
}

fg_sweep *fg_sweep_begin(fg_tape *t, fg_id output)
{
    fg_sweep *const s = fg_tape_sweep_begin(t, output + 1);
    if (!s)
        return NULL;
    t->grad[output] = 1.0;
    s->marks.lowest = s->marks.highest = output >> 12;
    fg_marks_add(&s->marks, output);
    return s;
}

fg_sweep *fg_sweep_begin_from(fg_tape *t, const fg_id *outputs, size_t count)
{
    fg_id highest = 0;
    for (size_t k = 0; k < count; k++)
        highest = outputs[k] > highest ? outputs[k] : highest;
    fg_sweep *const s = fg_tape_sweep_begin(t, highest + 1);
    if (!s)
        return NULL;
    s->marks.lowest = s->marks.highest = highest >> 12;
    for (size_t k = 0; k < count; k++)
        fg_marks_add(&s->marks, outputs[k]);
    return s;
}

int fg_sweep_run(fg_tape *t, fg_sweep *s, fg_id words)
{
    fg_marks *const marks = &s->marks;
    /* Visiting only ever marks lower ids, so the walk goes down. */
    for (fg_id k = marks->highest;; k--) {
        marks->highest = k;
        while (marks->summary[k]) {
            int stopped = FG_SWEEP_MORE;
            if (words-- > 0) {
                const unsigned top = fg_bits_top(marks->summary[k]);
                const fg_id w = (k << 6) + top;
                /* Empty if its marks were those of parts, which have gone with a higher one. */
                stopped = marks->word[w] ? drain_word(t, s, w) : FG_SWEEP_DONE;
                if (!marks->word[w])
                    marks->summary[k] &= ~((uint64_t)1 << top);
            }
            if (FG_UNLIKELY(stopped != FG_SWEEP_DONE)) {
                fg_tape_sweep_pause(t, s);
                return stopped;
            }
        }
        if (k == marks->lowest)
            break;
    }
    fg_tape_sweep_end(t, s);
    return FG_SWEEP_DONE;
}

void fg_sweep_cancel(fg_tape *t, fg_sweep *s)
{
    fg_marks *const marks = &s->marks;
    for (fg_id k = marks->lowest; k <= marks->highest; k++)
        while (marks->summary[k]) {
            const unsigned top = fg_bits_top(marks->summary[k]);
            marks->word[(k << 6) + top] = 0;
            marks->summary[k] &= ~((uint64_t)1 << top);
        }
    fg_tape_sweep_end(t, s);
}

fg_id fg_sweep_reach(fg_tape *t, const fg_id *outputs, size_t count, fg_which which, fg_id *words, uint64_t *masks,
                     int *hooked)
{
    fg_id found = 0, highest = 0, last = 0; /* last: the node whose operands have been marked */
    *hooked = 0;
    for (size_t k = 0; k < count; k++)
        highest = outputs[k] > highest ? outputs[k] : highest;
    t->marks.lowest = t->marks.highest = highest >> 12;
    for (size_t k = 0; k < count; k++)
        fg_marks_add(&t->marks, outputs[k]);
    for (fg_id s = highest >> 12; count > 0; s--) {
        while (t->marks.summary[s]) {
            const unsigned top = fg_bits_top(t->marks.summary[s]);
            const fg_id w = (s << 6) + top;
            uint64_t seen = 0;
            while (t->marks.word[w]) { /* operands in the same word are lower bits of it */
                const unsigned bit = fg_bits_top(t->marks.word[w]);
                const fg_id i = (w << 6) + bit;
                const int op = fg_tape_op(t, i);
                const fg_id node = op == FG_PART ? i + t->args[i].a : i;
                uint64_t here = (uint64_t)1 << bit;
                if (op == FG_PART && !(t->op[node] & FG_HOOK)) /* so no part has one: all in the word at once */
                    here = t->marks.word[w] & fg_marks_mask(w, node - t->args[node].b, i + 1);
                else if (t->op[i] == FG_LEAF && fg_block_are_leaves(t, w << 6, i)) /* and so is all that is left */
                    here = t->marks.word[w];
                t->marks.word[w] &= ~here;
                seen |= here;
                *hooked |= (t->op[i] & FG_HOOK) != 0 && !fg_callback_at(t, i); /* which adds to operands alone */
                if (node != last) /* the parts of one instruction follow each other, and it */
                    mark_operands(t, node, &t->marks, which);
                last = node;
            }
            t->marks.summary[s] &= ~((uint64_t)1 << top);
            words[found] = w;
            masks[found++] = seen;
        }
        if (s == t->marks.lowest)
            break;
    }
    return found;
}

/* Take the marks of all parts of instruction `block` away; returns whether all were there. */
static int take_parts(fg_tape *t, fg_id block)
{
    const fg_id first = block - t->args[block].b;
    int all = 1;
    for (fg_id w = first >> 6; w <= (block - 1) >> 6; w++) {
        const uint64_t mask = fg_marks_mask(w, first, block);
        all = all && (t->marks.word[w] & mask) == mask;
        t->marks.word[w] &= ~mask;
    }
    return all;
}

fg_id fg_sweep_order(fg_tape *t, const fg_id *outputs, size_t count, fg_id *nodes)
{
    fg_id found = 0, highest = 0;
    int whole = 1;
    for (size_t k = 0; k < count; k++)
        highest = outputs[k] > highest ? outputs[k] : highest;
    t->marks.lowest = t->marks.highest = highest >> 12;
    for (size_t k = 0; k < count; k++)
        fg_marks_add(&t->marks, outputs[k]);
    for (fg_id s = highest >> 12;; s--) {
        while (t->marks.summary[s]) {
            const unsigned top = fg_bits_top(t->marks.summary[s]);
            const fg_id w = (s << 6) + top;
            while (t->marks.word[w]) {
                const unsigned bit = fg_bits_top(t->marks.word[w]);
                fg_id i = (w << 6) + bit;
                t->marks.word[w] ^= (uint64_t)1 << bit;
                if (fg_tape_op(t, i) == FG_PART) {
                    t->marks.word[w] |= (uint64_t)1 << bit;
                    i += t->args[i].a;
                    whole = take_parts(t, i) && whole;
                }
                whole = whole && !(t->op[i] & FG_HOOK) && fg_tape_op(t, i) != FG_TAKE;
                if (!whole || fg_op_is_leaf(fg_tape_op(t, i)))
                    continue; /* and if it is not, on to clear the marks that are left */
                mark_operands(t, i, &t->marks, FG_VISITED);
                nodes[found++] = i;
            }
            t->marks.summary[s] &= ~((uint64_t)1 << top);
        }
        if (s == t->marks.lowest)
            break;
    }
    return whole ? found : FG_MAX_ID;
}

int fg_sweep_ordered(fg_tape *t, const fg_id *nodes, fg_id count, size_t *done)
{
    for (fg_id k = 0; k < count; k++) {
        const fg_id i = nodes[k];
        if (FG_UNLIKELY(fg_op_is_block(t->op[i]))) {
            const int status = fg_block_apply(t, i, 0, done);
            if (status != FG_OK)
                return status;
            continue;
        }
        apply(t, i);
    }
    return FG_OK;
}
