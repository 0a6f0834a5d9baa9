/* tape.c: see tape.h. The order here: growth, appending, popping, collection, checking. */
#include "tape.h"

#include <string.h>

enum {
    MIN_CAPACITY = 4096,    /* nodes; also where the tape starts */
    COLLECT_FLOOR = 131072, /* nodes, 4 MB: with fewer than this nothing is ever collected */
    DOUBLE_UNTIL = 1 << 20, /* nodes; beyond, grow by a quarter: at most 25 % of slack */
    IDLE_POPS = 1024        /* pops that must find the tape 8 times too large before it shrinks */
};

static fg_id min_id(fg_id x, fg_id y)
{
    return x < y ? x : y;
}

static fg_id max_id(fg_id x, fg_id y)
{
    return x > y ? x : y;
}

/* ---- growth ---- */

/* Resize every per-node array, or none. */
static int resize_nodes(fg_tape *t, fg_id to)
{
    const fg_id from = t->capacity;
    const size_t words = FG_MARKS_WORDS(from), to_words = FG_MARKS_WORDS(to);
    const size_t sums = FG_MARKS_WORDS(words), to_sums = FG_MARKS_WORDS(to_words);
    struct {
        void **array;
        size_t from, to, size;
    } const arrays[] = {
        {(void **)&t->op, from, to, sizeof *t->op},
        {(void **)&t->args, from, to, sizeof *t->args},
        {(void **)&t->data, from, to, sizeof *t->data},
        {(void **)&t->grad, from, to, sizeof *t->grad},
        {(void **)&t->owner, from, to, sizeof *t->owner},
        {(void **)&t->marks.word, words, to_words, sizeof *t->marks.word},
        {(void **)&t->marks.summary, sums, to_sums, sizeof *t->marks.summary},
        {(void **)&t->rank, words, to_words, sizeof *t->rank},
    };
    enum { N = sizeof arrays / sizeof arrays[0] };

    for (size_t k = 0; k < N; k++) {
        const int status =
            fg_mem_resize(&t->mem, arrays[k].array, arrays[k].from, arrays[k].to, arrays[k].size);
        if (status < 0) {
            while (k-- > 0) /* we were growing, and going back down cannot fail */
                (void)fg_mem_resize(&t->mem, arrays[k].array, arrays[k].to, arrays[k].from,
                                    arrays[k].size);
            return status;
        }
    }
    if (to_words > words)
        memset(t->marks.word + words, 0, (to_words - words) * sizeof *t->marks.word);
    if (to_sums > sums)
        memset(t->marks.summary + sums, 0, (to_sums - sums) * sizeof *t->marks.summary);
    t->capacity = to;
    return FG_OK;
}

static void set_room(fg_tape *t)
{
    /* A sweep that is under way forbids collection, so only the arrays limit it. */
    t->room = t->busy ? t->capacity : min_id(t->capacity, t->collect_at);
}

/* Collect when the tape has doubled, and has grown by the floor besides: a training loop keeps the
 * graph of the last step alive while it builds the next, and collecting in every step is dear. */
static void set_collect_at(fg_tape *t)
{
    const uint64_t n = 2 * (uint64_t)t->n + t->collect_floor;
    const uint64_t npool = 2 * (uint64_t)t->npool + 4 * (uint64_t)COLLECT_FLOOR;
    t->collect_at = t->collect_floor == 0 ? t->n : n > FG_MAX_ID ? FG_MAX_ID : (fg_id)n;
    t->pool_collect_at = npool > FG_MAX_ID ? FG_MAX_ID : (fg_id)npool;
    set_room(t);
}

/* The next capacity from `capacity` that holds `needed`. */
static fg_id grown(fg_id capacity, fg_id needed)
{
    const uint64_t next = capacity < DOUBLE_UNTIL ? 2 * (uint64_t)capacity
                                                  : capacity + (uint64_t)capacity / 4;
    return max_id(needed, next > FG_MAX_ID ? FG_MAX_ID : (fg_id)next);
}

int fg_tape_init(fg_tape *t)
{
    memset(t, 0, sizeof *t);
    fg_mem_init(&t->mem);
    t->limit = FG_MAX_ID;
    t->collect_floor = COLLECT_FLOOR;
    const int status = resize_nodes(t, MIN_CAPACITY);
    if (status < 0)
        return status;
    set_collect_at(t);
    fg_tape_push_leaf(t, 0.0);
    t->owner[0] = &t->sentinel;
    return FG_OK;
}

void fg_tape_free(fg_tape *t)
{
    (void)fg_mem_resize(&t->mem, (void **)&t->pool, t->pool_capacity, 0, sizeof *t->pool);
    (void)resize_nodes(t, 0);
}

int fg_tape_reserve(fg_tape *t, fg_id nodes, fg_id operands)
{
    const uint64_t n = (uint64_t)t->n + nodes, npool = (uint64_t)t->npool + operands;
    if (!t->busy && (n > t->collect_at || npool > t->pool_collect_at))
        fg_tape_collect(t);

    const uint64_t need = (uint64_t)t->n + nodes, need_pool = (uint64_t)t->npool + operands;
    if (need > t->limit || need_pool > t->limit)
        return FG_E_FULL;
    if (need_pool > t->pool_capacity) {
        const fg_id to = grown(max_id(t->pool_capacity, MIN_CAPACITY / 2), (fg_id)need_pool);
        const int status = fg_mem_resize(&t->mem, (void **)&t->pool, t->pool_capacity, to,
                                         sizeof *t->pool);
        if (status < 0)
            return status;
        t->pool_capacity = to;
    }
    if (need > t->capacity) {
        const int status = resize_nodes(t, grown(t->capacity, (fg_id)need));
        if (status < 0)
            return status;
    }
    t->collect_at = max_id(t->collect_at, (fg_id)need);
    t->pool_collect_at = max_id(t->pool_collect_at, (fg_id)need_pool);
    set_room(t);
    return FG_OK;
}

/* ---- appending ---- */

fg_id fg_tape_push_pooled(fg_tape *t, int op, const fg_id *operands, fg_id count,
                          const double *partials, double data)
{
    assert(fg_op_is_pooled(op) && fg_op_pool_size(op, count) <= t->pool_capacity - t->npool);
    const fg_id offset = t->npool;
    for (fg_id k = 0; k < count; k++) {
        assert(operands[k] < t->n);
        t->pool[offset + k] = operands[k];
    }
    if (op == FG_LOCAL && count > 0)
        memcpy(t->pool + offset + count, partials, count * sizeof *partials);
    t->npool = offset + fg_op_pool_size(op, count);
    return fg_tape_push(t, op, offset, count, data);
}

fg_id fg_tape_operands(const fg_tape *t, fg_id i, fg_id inline_pair[2], const fg_id **operands)
{
    const fg_args args = t->args[i];
    const int op = fg_tape_op(t, i);
    if (fg_op_is_pooled(op)) {
        *operands = t->pool + args.a;
        return args.b;
    }
    inline_pair[0] = args.a;
    inline_pair[1] = args.b;
    *operands = inline_pair;
    return (fg_id)fg_op_inline_arity(op);
}

/* ---- boxes ---- */

fg_box *fg_tape_box(fg_tape *t, fg_id i)
{
    if (fg_owner_is_box(t->owner[i]))
        return fg_owner_box(t->owner[i]);
    void *box = NULL;
    if (fg_mem_resize(&t->mem, &box, 0, 1, sizeof(fg_box)) < 0)
        return NULL;
    *(fg_box *)box = (fg_box){.holder = t->owner[i]};
    t->owner[i] = (fg_id *)((uintptr_t)box + 1u);
    t->boxes++;
    return box;
}

void fg_tape_box_free(fg_tape *t, fg_box *box)
{
    void *array = box;
    (void)fg_mem_resize(&t->mem, &array, 1, 0, sizeof *box);
}

/* The node is going; its box, if it has one, joins the dead. */
static void bury_box(fg_tape *t, fg_id i)
{
    fg_id *owner = t->owner[i];
    if (FG_UNLIKELY(fg_owner_is_box(owner))) {
        fg_box *box = fg_owner_box(owner);
        box->next = t->dead;
        t->dead = box;
        t->boxes--;
    }
}

/* ---- popping ---- */

/* Called when a pop, from `before` nodes, left the tape at less than an eighth of its capacity.
 * A training loop does that every step, so memory goes back only if many pops in a row find that
 * the tape has not come near its capacity again. */
static void relax(fg_tape *t, fg_id before)
{
    if (before > t->capacity / 4)
        t->idle = 0;
    else if (++t->idle >= IDLE_POPS) {
        t->idle = 0;
        (void)resize_nodes(t, max_id(MIN_CAPACITY, t->capacity / 4));
        const fg_id pool = max_id(t->npool, t->pool_capacity / 4);
        if (pool > 0 && fg_mem_resize(&t->mem, (void **)&t->pool, t->pool_capacity, pool,
                                      sizeof *t->pool) == FG_OK)
            t->pool_capacity = pool;
        set_collect_at(t);
    }
}

void fg_tape_pop(fg_tape *t)
{
    if (t->busy)
        return;
    const fg_id before = t->n;
    fg_id i = before - 1;
    while (!fg_tape_holder(t, i)) { /* stops at 0, which is always held */
        bury_box(t, i);
        if (FG_UNLIKELY(t->op[i] >= FG_BINARY_END) && fg_op_is_pooled(fg_tape_op(t, i)))
            t->npool = t->args[i].a; /* pool records are in node order */
        i--;
    }
    t->n = i + 1;
    if (FG_UNLIKELY(t->n < t->capacity / 8 && t->capacity > COLLECT_FLOOR))
        relax(t, before);
}

/* ---- collection ---- */

/* Which nodes of word w somebody holds, as a word of marks. */
static uint64_t held_in_word(const fg_tape *t, fg_id w, fg_id count)
{
    fg_id *const *const owner = t->owner + ((size_t)w << 6);
    uint64_t held = 0;
    uintptr_t any = 0;
    for (fg_id k = 0; k < count; k++) /* most words of a large graph have no holder at all */
        any |= (uintptr_t)owner[k];
    if (any)
        for (fg_id k = 0; k < count; k++)
            held |= (uint64_t)(owner[k] != NULL) << k;
    if (FG_UNLIKELY(any & 1u)) /* a box whose holder is gone holds nothing */
        for (fg_id k = 0; k < count; k++)
            if (fg_owner_is_box(owner[k]) && !fg_owner_box(owner[k])->holder)
                held &= ~((uint64_t)1 << k);
    return held;
}

/* Ids being topological, one scan from the top settles it. Writes marks.word only; the summary stays
 * clear. */
void fg_tape_mark_living(fg_tape *t)
{
    const uint8_t *const ops = t->op;
    const fg_args *const args = t->args;
    uint64_t *const word = t->marks.word;

    for (fg_id w = (fg_id)FG_MARKS_WORDS(t->n); w-- > 0;) {
        const fg_id base = w << 6, count = min_id(64, t->n - base);
        /* Marks in this word are kept in registers: to visit, and visited. */
        uint64_t marked = held_in_word(t, w, count) | word[w], done = 0;

#define MARK(operand)                                         \
    do {                                                      \
        const uint64_t mark = (uint64_t)1 << ((operand)&63u); \
        if ((operand) >> 6 == w)                              \
            marked |= mark;                                   \
        else                                                  \
            word[(operand) >> 6] |= mark;                     \
    } while (0)

        while (marked) {
            const unsigned bit = fg_bits_top(marked);
            const fg_id i = base + bit;
            const int op = ops[i] & ~FG_HOOK;
            marked ^= (uint64_t)1 << bit;
            done |= (uint64_t)1 << bit;
            if (FG_UNLIKELY(fg_op_is_pooled(op))) {
                for (fg_id k = 0; k < args[i].b; k++)
                    MARK(t->pool[args[i].a + k]);
            } else if (op != FG_LEAF) {
                MARK(args[i].a);
                if (fg_op_inline_arity(op) == 2)
                    MARK(args[i].b);
            }
        }
#undef MARK

        word[w] = done;
    }
}

void fg_tape_clear_marks(fg_tape *t)
{
    memset(t->marks.word, 0, FG_MARKS_WORDS(t->n) * sizeof *t->marks.word);
}

/* The first node from i on, before n, whose mark is `mark` (0 or 1); n if there is none. */
static fg_id next_with_mark(const uint64_t *word, fg_id i, fg_id n, unsigned mark)
{
    const uint64_t flip = mark ? 0 : ~(uint64_t)0;
    while (i < n) {
        const uint64_t rest = (word[i >> 6] ^ flip) >> (i & 63u);
        if (rest)
            return min_id(n, i + fg_bits_low(rest));
        i = (i | 63u) + 1u;
    }
    return n;
}

/* A run of living nodes, moving down together. */
typedef struct run {
    fg_id first; /* nothing on the tape below this id moves */
    fg_id start; /* the run's first id */
    fg_id shift; /* how far it moves down */
} run;

/* Where the operand of a node of this run goes: the number of living nodes before it. Mostly it is
 * in the same run, or below everything that moves. */
static inline fg_id renumber(const fg_tape *t, const run *r, fg_id operand)
{
    if (operand >= r->start)
        return operand - r->shift;
    if (operand < r->first)
        return operand;
    const uint64_t before = ((uint64_t)1 << (operand & 63u)) - 1u;
    return t->rank[operand >> 6] + fg_bits_count(t->marks.word[operand >> 6] & before);
}

/* Move a run's `count` nodes down, and their operands' ids with them; *npool: where the pool ends. */
static void slide(fg_tape *t, const run *r, fg_id count, fg_id *npool)
{
    const fg_id from = r->start, to = from - r->shift;
    memmove(t->op + to, t->op + from, count * sizeof *t->op);
    memmove(t->data + to, t->data + from, count * sizeof *t->data);
    memmove(t->grad + to, t->grad + from, count * sizeof *t->grad);
    memmove(t->owner + to, t->owner + from, count * sizeof *t->owner);
    for (fg_id i = to; i < to + count; i++) {
        const int op = fg_tape_op(t, i);
        fg_args args = t->args[i + r->shift];
        if (FG_UNLIKELY(fg_op_is_pooled(op))) {
            for (fg_id k = 0; k < args.b; k++)
                t->pool[*npool + k] = renumber(t, r, t->pool[args.a + k]);
            const fg_id size = fg_op_pool_size(op, args.b);
            memmove(t->pool + *npool + args.b, t->pool + args.a + args.b,
                    (size - args.b) * sizeof *t->pool);
            args.a = *npool;
            *npool += size;
        } else if (op != FG_LEAF) {
            args.a = renumber(t, r, args.a);
            if (fg_op_inline_arity(op) == 2)
                args.b = renumber(t, r, args.b);
        }
        t->args[i] = args;
        if (t->owner[i]) {
            fg_id *holder = fg_tape_holder(t, i);
            if (holder)
                *holder = i;
        }
    }
}

fg_id fg_tape_collect(fg_tape *t)
{
    if (t->busy)
        return 0;
    const fg_id n = t->n, words = (fg_id)FG_MARKS_WORDS(n);
    uint64_t *const word = t->marks.word;
    fg_tape_mark_living(t);

    fg_id living = 0;
    for (fg_id w = 0; w < words; w++) {
        t->rank[w] = living;
        living += fg_bits_count(word[w]);
    }
    if (living < n) {
        const fg_id first = next_with_mark(word, 0, n, 0);
        fg_id npool = 0, to = first;
        for (fg_id i = first; i-- > 0;) /* the pool records of what does not move stay, too */
            if (fg_op_is_pooled(fg_tape_op(t, i))) {
                npool = t->args[i].a + fg_op_pool_size(fg_tape_op(t, i), t->args[i].b);
                break;
            }
        if (t->boxes > 0)
            for (fg_id i = first; i < n; i = next_with_mark(word, i + 1, n, 0))
                bury_box(t, i);
        for (fg_id i = next_with_mark(word, first, n, 1); i < n;) {
            const fg_id end = next_with_mark(word, i, n, 0);
            const run r = {first, i, i - to};
            slide(t, &r, end - i, &npool);
            to += end - i;
            i = next_with_mark(word, end, n, 1);
        }
        assert(to == living);
        t->n = living;
        t->npool = npool;
    }
    memset(word, 0, words * sizeof *word);
    t->collections++;
    set_collect_at(t);
    return n - living;
}

/* ---- checking ---- */

int fg_tape_check(const fg_tape *t)
{
    if (t->n < 1 || t->n > t->capacity || t->room > t->capacity || t->npool > t->pool_capacity)
        return 0;
    if (t->op[0] != FG_LEAF || t->owner[0] != &t->sentinel || t->sentinel != 0)
        return 0;
    fg_id npool = 0;
    for (fg_id i = 0; i < t->n; i++) {
        fg_id pair[2];
        const fg_id *operands;
        const fg_id count = fg_tape_operands(t, i, pair, &operands);
        for (fg_id k = 0; k < count; k++)
            if (operands[k] >= i)
                return 0;
        if (fg_op_is_pooled(fg_tape_op(t, i))) {
            if (t->args[i].a != npool)
                return 0;
            npool += fg_op_pool_size(fg_tape_op(t, i), count);
        }
        if (fg_tape_holder(t, i) && *fg_tape_holder(t, i) != i)
            return 0;
    }
    if (npool != t->npool)
        return 0;
    for (size_t w = 0; !t->busy && w < FG_MARKS_WORDS(t->capacity); w++)
        if (t->marks.word[w] || t->marks.summary[w >> 6])
            return 0;
    return 1;
}
