/* sweep.c: see sweep.h. The marked nodes are the ones still to visit: a node marks its operands,
 * whose ids are smaller, so taking the highest mark first is a topological order. */
#include "sweep.h"

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
static inline void apply(fg_tape *t, fg_id i)
{
    const double *const data = t->data;
    double *const grad = t->grad;
    const fg_args args = t->args[i];
    const double dz = grad[i], z = data[i];

    switch (fg_tape_op(t, i)) {
#define FG_UNARY(ID, name, public, symbol, forward, dx_, ...) \
    case FG_##ID: {                                           \
        const double x = data[args.a];                        \
        const int32_t k = (int32_t)args.b;                    \
        (void)x, (void)z, (void)k;                            \
        grad[args.a] += (dx_);                                \
        break;                                                \
    }
#define FG_BINARY(ID, name, public, symbol, parents, forward, dx_, dy_, ...) \
    case FG_##ID: {                                                          \
        const double x = data[args.a], y = data[args.b];                     \
        (void)x, (void)y, (void)z;                                           \
        grad[args.a] += (dx_);                                               \
        grad[args.b] += (dy_);                                               \
        break;                                                               \
    }
#define FG_TERNARY(ID, name, operands, public, symbol, forward, dx_, dy_, dw_, ...) \
    case FG_##ID: {                                                                 \
        const fg_id *const o = t->pool + args.a;                                    \
        const double x = data[o[0]], y = data[o[1]], w = data[o[2]];                \
        (void)x, (void)y, (void)w, (void)z;                                         \
        grad[o[0]] += (dx_);                                                        \
        grad[o[1]] += (dy_);                                                        \
        grad[o[2]] += (dw_);                                                        \
        break;                                                                      \
    }
#include "ops.def"
    case FG_LOCAL:
        for (fg_id k = 0; k < args.b; k++)
            grad[t->pool[args.a + k]] += pool_partial(t, args, k) * dz;
        break;
    default: /* FG_LEAF, FG_FROZEN and FG_CUSTOM */
        break;
    }
}

/* The marks of word w's nodes from `first` to before `end`, as a mask. */
static uint64_t mask_of(fg_id w, fg_id first, fg_id end)
{
    const uint64_t from = first >> 6 == w ? ~(uint64_t)0 << (first & 63u) : ~(uint64_t)0;
    const uint64_t to = end >> 6 == w ? ((uint64_t)1 << (end & 63u)) - 1u : ~(uint64_t)0;
    return from & to;
}

/* The slow half of all_leaves(): frozen ones among them. */
static int all_frozen_or_leaves(const uint8_t *op, const uint8_t *last)
{
    int other = !fg_op_is_leaf(*op); /* mostly the results of another layer */
    while (!other && op < last) {
        const uint8_t *const some = last - op > 4096 ? op + 4096 : last;
        for (; op < some; op++)
            other |= (*op != FG_LEAF) & (*op != FG_FROZEN);
    }
    return !other;
}

/* Whether the nodes from `first` to before `end` are all leaves without a hook, which no sweep has to
 * visit: in a layer, all of the weights. */
static int all_leaves(const fg_tape *t, fg_id first, fg_id end)
{
    const uint8_t *op = t->op + first, *const last = t->op + end;
    uint64_t any = 0, eight;
    for (; last - op >= 8; op += 8) {
        memcpy(&eight, op, sizeof eight);
        any |= eight;
    }
    while (op < last)
        any |= *op++;
    return any == FG_LEAF || all_frozen_or_leaves(t->op + first, last);
}

/* Mark the nodes from `first` to before `end`; if they are all leaves, only with `leaves`. */
static void mark_nodes(fg_tape *t, fg_id first, fg_id end, int leaves)
{
    if (!leaves && all_leaves(t, first, end))
        return;
    for (fg_id w = first >> 6; w <= (end - 1) >> 6; w++) {
        t->marks.word[w] |= mask_of(w, first, end);
        t->marks.summary[w >> 6] |= (uint64_t)1 << (w & 63u);
    }
    if (first >> 12 < t->marks.lowest)
        t->marks.lowest = first >> 12;
}

/* Mark the operands of block node i, all of them and nothing between; without `leaves` those that a
 * sweep has to visit are enough. */
static void mark_operands(fg_tape *t, fg_id i, int leaves)
{
    fg_record *const r = fg_tape_record(t, i);
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *view = fg_record_view(r, v);
        fg_id lowest, highest;
        if (view->rows == 0 || view->cols == 0)
            continue;
        if (!(view->flags & FG_VIEW_LIST)) {
            fg_view_extent(view, &lowest, &highest);
            if (!leaves && all_leaves(t, lowest, highest + 1))
                continue;
            if (view->col_step == 1) {
                const fg_id dense = view->rows == 1 || (fg_id)view->row_step == view->cols;
                for (fg_id row = 0; row < (dense ? 1 : view->rows); row++) {
                    const fg_id first = fg_record_slot(r, view, row, 0);
                    mark_nodes(t, first, dense ? highest + 1 : first + view->cols, leaves);
                }
                continue;
            }
        }
        for (fg_id row = 0; row < view->rows; row++)
            for (fg_id col = 0; col < view->cols; col++)
                fg_marks_add(&t->marks, fg_record_slot(r, view, row, col));
    }
}

/* Visit part i alone: 1 if it has a hook. */
static int visit_part(fg_tape *t, fg_id i)
{
    fg_id *const ids = (fg_id *)(void *)t->scratch;
    const fg_id count = fg_block_operands(t, i, 0.0, ids, NULL);
    for (fg_id k = 0; k < count; k++)
        fg_marks_add(&t->marks, ids[k]);
    if (t->op[i] & FG_HOOK) {
        t->hook = i;
        return 1;
    }
    fg_block_reverse_part(t, i);
    return 0;
}

/* Visit the parts that are marked of the instruction of part i, the highest of them: all users of its
 * results have been visited. 1 if it stopped at a hook. */
static int visit_parts(fg_tape *t, fg_id i)
{
    const fg_id block = i + t->args[i].a, first = block - t->args[block].b;
    uint64_t *const word = t->marks.word;
    if (t->op[block] & FG_HOOK) /* now one, and the others at their turn */
        return visit_part(t, i);

    fg_id others = i + 1 == block ? i - first : 0; /* that have to be marked for all to be */
    for (fg_id w = i >> 6; others > 0 && w + 1 > first >> 6; w--) {
        const fg_id marked = fg_bits_count(word[w] & mask_of(w, first, i));
        others -= marked;
        if (w == 0)
            break;
    }
    const int all = i + 1 == block && others == 0;
    if (all) {
        mark_operands(t, block, 0);
        fg_block_reverse(t, block);
    } else if (visit_part(t, i)) {
        return 1;
    }
    for (fg_id w = i >> 6;; w--) {
        const uint64_t mask = mask_of(w, first, i);
        uint64_t marked = all ? 0 : word[w] & mask;
        word[w] &= ~mask;
        while (marked) {
            const unsigned bit = fg_bits_top(marked);
            marked ^= (uint64_t)1 << bit;
            (void)visit_part(t, (w << 6) + bit); /* no hook: the instruction would be marked */
        }
        if (w == first >> 6)
            break;
    }
    return 0;
}

/* Visit node i, whatever it is: mark its operands and add to their gradients. 1 if it has a hook, and
 * the second is left to that. */
static NOINLINE int visit(fg_tape *t, fg_id i)
{
    const int op = t->op[i];
    if (FG_LIKELY(op < FG_BINARY_END)) { /* so no hook, and no leaf: those come here with one */
        const fg_args args = t->args[i];
        fg_marks_add(&t->marks, args.a);
        if (op >= FG_UNARY_END)
            fg_marks_add(&t->marks, args.b);
        apply(t, i);
        return 0;
    }
    const int plain = op & ~FG_HOOK;
    if (plain == FG_PART)
        return visit_parts(t, i);
    if (fg_op_is_block(plain)) {
        mark_operands(t, i, 0);
    } else {
        fg_id pair[2];
        const fg_id *operands;
        const fg_id count = fg_tape_operands(t, i, pair, &operands);
        for (fg_id k = 0; k < count; k++)
            fg_marks_add(&t->marks, operands[k]);
    }
    if (op & FG_HOOK) {
        t->hook = i;
        return 1;
    }
    fg_sweep_apply(t, i);
    return 0;
}

void fg_sweep_apply(fg_tape *t, fg_id i)
{
    const int op = fg_tape_op(t, i);
    if (fg_op_is_block(op))
        fg_block_reverse(t, i);
    else if (op == FG_PART)
        fg_block_reverse_part(t, i);
    else
        apply(t, i);
}

/* Rows whose rule is expanded inside the loop below as well; nothing that calls a function, for
 * that would push the loop's pointers out of registers. */
#define IS_HOT(op) ((op) == FG_ADD || (op) == FG_MUL || (op) == FG_SUB || (op) == FG_RELU)

/* Visit the marked nodes of word w, the highest first, with those that they mark in the same word. 1 if
 * it stopped at a hook, with what is left marked in the word.
 *
 * Three things halve the time that a chain takes, where each node waits for the one before. The
 * word's marks are in a register. Whether the node below comes next, as it mostly does, is asked
 * before counting bits: a branch is predicted, where a count would wait for this node's operands.
 * And the gradient just written is still in a register when its node comes next: reading it back
 * would wait for the store. */
static int drain_word(fg_tape *t, fg_id w)
{
    const uint8_t *const ops = t->op;
    const fg_args *const all_args = t->args;
    const double *const data = t->data;
    double *const grad = t->grad;
    uint64_t *const word = t->marks.word;
    uint64_t marked = word[w];
    unsigned bit = fg_bits_top(marked);
    fg_id last = 0; /* a node whose gradient is d_last, 0 if there is none */
    double d_last = 0.0;

#define MARK(operand)                                        \
    do {                                                     \
        if ((operand) >> 6 == w)                             \
            marked |= (uint64_t)1 << ((operand)&63u);        \
        else                                                 \
            fg_marks_add(&t->marks, (operand));              \
    } while (0)

    for (;;) {
        const fg_id i = (w << 6) + bit;
        const int op = ops[i];
        const double dz = i == last ? d_last : grad[i];
        marked ^= (uint64_t)1 << bit;

#define FG_UNARY(ID, name, public, symbol, forward, dx_, ...)                 \
    if (IS_HOT(FG_##ID) && op == FG_##ID) {                                   \
        const fg_id a = all_args[i].a;                                        \
        const double x = data[a], z = data[i];           \
        const int32_t k = 0;                                                  \
        (void)x, (void)z, (void)k;                                            \
        grad[a] = d_last = grad[a] + (dx_);                                   \
        last = a;                                                             \
        MARK(a);                                                              \
    } else
#define FG_BINARY(ID, name, public, symbol, parents, forward, dx_, dy_, ...)  \
    if (IS_HOT(FG_##ID) && op == FG_##ID) {                                   \
        const fg_id a = all_args[i].a, b = all_args[i].b;                     \
        const double x = data[a], y = data[b], z = data[i];           \
        (void)x, (void)y, (void)z;                                            \
        grad[a] = d_last = grad[a] + (dx_);                                   \
        grad[b] += (dy_); /* a == b adds twice, as it should */               \
        last = a != b ? a : 0;                                                \
        MARK(a);                                                              \
        MARK(b);                                                              \
    } else
#include "ops.def"
        {
            if (op != FG_LEAF) {
                word[w] = marked;
                if (FG_UNLIKELY(visit(t, i)))
                    return 1;
                marked = word[w];
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
    word[w] = 0;
    return 0;
}

static void end(fg_tape *t)
{
    t->busy--;
    t->room = t->capacity < t->collect_at ? t->capacity : t->collect_at;
    fg_tape_pop(t);
}

void fg_sweep_begin(fg_tape *t, fg_id output)
{
    t->busy++;
    t->room = t->capacity; /* no collection now */
    t->grad[output] = 1.0;
    t->marks.lowest = t->marks.highest = output >> 12;
    fg_marks_add(&t->marks, output);
}

int fg_sweep_run(fg_tape *t, fg_id words)
{
    /* Visiting only ever marks lower ids, so the walk goes down. */
    for (fg_id s = t->marks.highest;; s--) {
        t->marks.highest = s;
        while (t->marks.summary[s]) {
            if (words-- == 0)
                return FG_SWEEP_MORE;
            const unsigned top = fg_bits_top(t->marks.summary[s]);
            const fg_id w = (s << 6) + top;
            /* Empty if its marks were those of parts, which have gone with a higher one. */
            const int stopped = t->marks.word[w] && drain_word(t, w);
            if (!t->marks.word[w])
                t->marks.summary[s] &= ~((uint64_t)1 << top);
            if (FG_UNLIKELY(stopped))
                return FG_SWEEP_HOOK;
        }
        if (s == t->marks.lowest)
            break;
    }
    end(t);
    return FG_SWEEP_DONE;
}

void fg_sweep_cancel(fg_tape *t)
{
    for (fg_id s = t->marks.lowest; s <= t->marks.highest; s++)
        while (t->marks.summary[s]) {
            const unsigned top = fg_bits_top(t->marks.summary[s]);
            t->marks.word[(s << 6) + top] = 0;
            t->marks.summary[s] &= ~((uint64_t)1 << top);
        }
    end(t);
}

fg_id fg_sweep_reach(fg_tape *t, const fg_id *outputs, size_t count, fg_id *words, uint64_t *masks,
                     int *hooked)
{
    fg_id found = 0, highest = 0, last = 0; /* last: the instruction whose operands have been marked */
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
                t->marks.word[w] ^= (uint64_t)1 << bit;
                seen |= (uint64_t)1 << bit;
                *hooked |= (t->op[i] & FG_HOOK) != 0;
                if (op == FG_PART || fg_op_is_block(op)) {
                    const fg_id block = op == FG_PART ? i + t->args[i].a : i;
                    if (block != last) /* the parts of one instruction follow each other */
                        mark_operands(t, block, 1);
                    last = block;
                } else if (op <= FG_LOCAL) {
                    fg_id pair[2];
                    const fg_id *operands;
                    const fg_id n = fg_tape_operands(t, i, pair, &operands);
                    for (fg_id k = 0; k < n; k++)
                        fg_marks_add(&t->marks, operands[k]);
                }
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
