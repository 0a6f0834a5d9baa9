/* tape.c: see tape.h. The order here: growth, appending, popping, collection, checking. */
#include "tape.h"

#include <string.h>
#include <time.h>

enum {
    MIN_CAPACITY = 4096,    /* nodes; also where the tape starts */
    COLLECT_FLOOR = 131072, /* nodes, 4 MB: with fewer than this nothing is ever collected */
    DOUBLE_UNTIL = 1 << 20, /* nodes; beyond, grow by a quarter: at most 25 % of slack */
    KEPT_CAPACITY = 131072, /* nodes; what never goes back */
    MOST_PEAKS = 4,         /* after which memory goes back at once, within a second */
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
        {(void **)&t->origin, from, to, sizeof *t->origin}, /* the last: only if there is one */
    };
    const size_t N = sizeof arrays / sizeof arrays[0] - (t->origin == NULL);

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
    if (t->origin && to > from)
        memset(t->origin + from, 0, (to - from) * sizeof *t->origin);
    t->capacity = to;
    return FG_OK;
}

static void set_room(fg_tape *t)
{
    /* Where ids are held there is no collection, so only the arrays limit it. */
    t->room = min_id(t->limit, t->busy ? t->capacity : min_id(t->capacity, t->collect_at));
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

int fg_tape_init(fg_tape *t, const fg_kernels *kernels)
{
    memset(t, 0, sizeof *t);
    fg_mem_init(&t->mem);
    t->kernels = kernels;
    t->limit = FG_MAX_ID;
    t->collect_floor = COLLECT_FLOOR;
    t->peaks = MOST_PEAKS;
    t->refilled = time(NULL);
    const int status = resize_nodes(t, MIN_CAPACITY);
    if (status < 0)
        return status;
    set_collect_at(t);
    fg_tape_push_leaf(t, 0.0);
    t->owner[0] = &t->sentinel;
    t->writes = 1;
    return FG_OK;
}

/* Give back the memory of the sweeps that are over. */
static void free_spare(fg_tape *t)
{
    while (t->spare) {
        fg_sweep *s = t->spare;
        void *array = s;
        t->spare = s->next;
        (void)fg_mem_resize(&t->mem, (void **)&s->marks.word, s->words, 0, sizeof *s->marks.word);
        (void)fg_mem_resize(&t->mem, (void **)&s->marks.summary, FG_MARKS_WORDS(s->words), 0,
                            sizeof *s->marks.summary);
        (void)fg_mem_resize(&t->mem, &array, 1, 0, sizeof *s);
    }
}

int fg_tape_init_closed(fg_tape *t, const fg_kernels *kernels, const fg_mem *mem, fg_id nodes, fg_id operands)
{
    memset(t, 0, sizeof *t);
    t->mem = *mem;
    t->kernels = kernels;
    t->limit = FG_MAX_ID;
    t->busy = 1;
    int status = resize_nodes(t, nodes + 1);
    if (status == FG_OK && operands > 0)
        status = fg_mem_resize(&t->mem, (void **)&t->pool, 0, operands, sizeof *t->pool);
    if (status < 0) {
        fg_tape_free(t);
        return status;
    }
    t->pool_capacity = operands;
    set_room(t);
    fg_tape_push_leaf(t, 0.0);
    t->owner[0] = &t->sentinel;
    return FG_OK;
}

void fg_tape_free(fg_tape *t)
{
    for (fg_id k = t->n_programs; k-- > 0;)
        if (k < t->n_programs && t->programs[k].callee) {
            t->programs[k].count = 1;
            fg_tape_release_program(t, k);
        }
    free_spare(t);
    (void)fg_mem_resize(&t->mem, (void **)&t->pool, t->pool_capacity, 0, sizeof *t->pool);
    (void)fg_mem_resize(&t->mem, (void **)&t->scratch, t->scratch_capacity, 0, sizeof *t->scratch);
    (void)resize_nodes(t, 0);
}

int fg_tape_trace(fg_tape *t, int on)
{
    const fg_id count = t->capacity;
    if (on == (t->origin != NULL))
        return FG_OK;
    const int status = fg_mem_resize(&t->mem, (void **)&t->origin, on ? 0 : count, on ? count : 0, sizeof *t->origin);
    if (status == FG_OK && on)
        memset(t->origin, 0, count * sizeof *t->origin);
    return status;
}

int fg_tape_scratch(fg_tape *t, size_t doubles)
{
    if (doubles <= t->scratch_capacity)
        return FG_OK;
    const int status = fg_mem_resize(&t->mem, (void **)&t->scratch, t->scratch_capacity, doubles,
                                     sizeof *t->scratch);
    if (status == FG_OK)
        t->scratch_capacity = doubles;
    return status;
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

/* ---- programs that are called ---- */

int64_t fg_tape_hold_program(fg_tape *t, fg_callee *c)
{
    fg_id place = t->free_program;
    for (fg_id k = 0; c->holders > 0 && k < t->n_programs; k++)
        if (t->programs[k].callee == c) {
            t->programs[k].count++;
            return k;
        }
    while (place < t->n_programs && t->programs[place].callee)
        place++;
    t->free_program = place;
    if (place == t->n_programs) {
        const int status = fg_mem_resize(&t->mem, (void **)&t->programs, place, (size_t)place + 1, sizeof *t->programs);
        if (status < 0)
            return status;
        t->n_programs++;
    }
    t->programs[place] = (fg_called){c, 1};
    c->holders++;
    return place;
}

void fg_tape_release_program(fg_tape *t, fg_id place)
{
    fg_callee *const c = t->programs[place].callee;
    if (--t->programs[place].count > 0)
        return;
    t->programs[place].callee = NULL;
    t->free_program = place < t->free_program ? place : t->free_program;
    fg_id n = t->n_programs;
    while (n > 0 && !t->programs[n - 1].callee)
        n--;
    if (n < t->n_programs)
        (void)fg_mem_resize(&t->mem, (void **)&t->programs, t->n_programs, n, sizeof *t->programs);
    t->n_programs = n;
    if (--c->holders == 0)
        c->steps->free(c);
}

/* Node i, an FG_CALL, goes. */
static void release_call(fg_tape *t, fg_id i)
{
    fg_tape_release_program(t, fg_tape_record(t, i)->param);
}

/* ---- appending ---- */

fg_id fg_tape_push_leaves(fg_tape *t, fg_id count)
{
    const fg_id i = t->n;
    assert(count <= t->room - i);
    memset(t->op + i, FG_LEAF, count * sizeof *t->op);
    memset(t->args + i, 0, count * sizeof *t->args);
    memset(t->grad + i, 0, count * sizeof *t->grad);
    memset(t->owner + i, 0, count * sizeof *t->owner); /* a null pointer is all zeros wherever we run */
    t->n = i + count;
    return i;
}

fg_id fg_tape_push_run(fg_tape *t, fg_id count)
{
    assert(count < t->n);
    return fg_tape_push(t, FG_RUN, 0, count, 0.0);
}

fg_id fg_tape_push_block(fg_tape *t, int op, fg_id count)
{
    const fg_id record = t->npool, i = t->n;
    const fg_id size = ((const fg_record *)(const void *)(t->pool + record))->size;
    assert(fg_op_is_block(op) && size <= t->pool_capacity - record && count < t->room - i);
    if (FG_UNLIKELY(op == FG_CALL))
        t->programs[((const fg_record *)(const void *)(t->pool + record))->param].count++;
    t->npool = record + size;
    if (count == 0)
        return fg_tape_push(t, op, record, 0, t->data[i]);
    memset(t->op + i, FG_PART, count * sizeof *t->op);
    memset(t->grad + i, 0, count * sizeof *t->grad);
    memset(t->owner + i, 0, count * sizeof *t->owner);
    for (fg_id k = 0; k < count; k++)
        t->args[i + k] = (fg_args){count - k, 0};
    t->n = i + count;
    return fg_tape_push(t, op, record, count, 0.0);
}

fg_id fg_tape_forget(fg_tape *t, fg_id n, fg_id npool)
{
    const fg_id i = t->n - 1;
    const fg_id parts = fg_op_is_block(fg_tape_op(t, i)) ? t->args[i].b : 0;
    assert(n <= i - parts && npool <= t->npool);
    if (FG_UNLIKELY(fg_tape_op(t, i) == FG_CALL))
        release_call(t, i);
    memmove(t->data + n, t->data + (i - parts), (parts ? parts : 1) * sizeof *t->data);
    t->n = n;
    t->npool = npool;
    if (parts == 0)
        return fg_tape_push_leaf(t, t->data[n]);
    fg_tape_push_leaves(t, parts);
    return fg_tape_push_run(t, parts);
}

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

void fg_tape_views(const fg_tape *t, fg_id i, fg_operands *o)
{
    if (fg_op_is_block(fg_tape_op(t, i))) {
        fg_record *const r = fg_tape_record(t, i);
        o->count = r->views;
        o->view = fg_record_view(r, 0);
        o->words = (fg_id *)(void *)r;
    } else {
        fg_id n;
        o->words = fg_tape_operands(t, i, &n);
        o->view = &o->list;
        o->list = (fg_view){FG_VIEW_LIST, 0, 1, n, (int32_t)n, 1};
        o->count = n > 0;
    }
}

void fg_tape_freeze(fg_tape *t, fg_id i, int on)
{
    static_assert(sizeof(fg_args) == sizeof(double), "a frozen leaf's gradient is in its fg_args");
    const int op = fg_tape_op(t, i), hook = t->op[i] & FG_HOOK;
    assert(fg_op_is_leaf(op));
    if (on && op == FG_LEAF) {
        memcpy(t->args + i, t->grad + i, sizeof(double));
        t->op[i] = (uint8_t)(FG_FROZEN | hook);
    } else if (!on && op == FG_FROZEN) {
        memcpy(t->grad + i, t->args + i, sizeof(double));
        memset(t->args + i, 0, sizeof *t->args);
        t->op[i] = (uint8_t)(FG_LEAF | hook);
    }
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

/* What the instructions on the tape may need. */
static size_t scratch_needed(const fg_tape *t)
{
    size_t most = 0;
    for (fg_id i = 1; i < t->n && t->npool > 0; i++)
        if (fg_op_is_block(fg_tape_op(t, i))) {
            const size_t need = (size_t)fg_tape_record(t, i)->scratch * FG_SCRATCH_UNIT;
            most = need > most ? need : most;
        }
    return most;
}

void fg_tape_shrink(fg_tape *t)
{
    const fg_id nodes = max_id(KEPT_CAPACITY, 2 * min_id(t->n, FG_MAX_ID / 2));
    const fg_id pool = max_id(KEPT_CAPACITY, 2 * min_id(t->npool, FG_MAX_ID / 2));
    if (nodes < t->capacity)
        (void)resize_nodes(t, nodes);
    if (pool < t->pool_capacity
        && fg_mem_resize(&t->mem, (void **)&t->pool, t->pool_capacity, pool, sizeof *t->pool) == FG_OK)
        t->pool_capacity = pool;
    free_spare(t);
    const size_t scratch = scratch_needed(t);
    if (scratch < t->scratch_capacity / 2) {
        (void)fg_mem_resize(&t->mem, (void **)&t->scratch, t->scratch_capacity, scratch, sizeof *t->scratch);
        t->scratch_capacity = scratch;
    }
    const fg_id nodes_at = t->collect_at, pool_at = t->pool_collect_at;
    set_collect_at(t); /* and not later than before, for what is there now may be dead */
    t->collect_at = min_id(t->collect_at, nodes_at);
    t->pool_collect_at = min_id(t->pool_collect_at, pool_at);
    set_room(t);
    t->idle = t->pass_at = 0;
}

/* Called when the tape has come down, from `before` nodes, to less than an eighth of its capacity. A training loop
 * does that in every step, and to give memory back and fetch it again each time would make a large step half as long
 * again. So that happens at most once a second, but for a few times that have been saved up; or after many
 * times that the tape has not come near its capacity. */
static void relax(fg_tape *t, fg_id before)
{
    if (before <= t->capacity / 4) {
        if (++t->idle >= IDLE_POPS)
            fg_tape_shrink(t);
        return;
    }
    const time_t now = time(NULL);
    t->idle = 0;
    if (now != t->refilled) {
        const time_t seconds = now - t->refilled;
        t->peaks = seconds < 0 || seconds > MOST_PEAKS - t->peaks ? MOST_PEAKS : t->peaks + (int)seconds;
        t->refilled = now;
    }
    if (t->peaks > 0) {
        t->peaks--;
        fg_tape_shrink(t);
    }
}

/* Whether somebody holds one of the parts of block node i. */
static int parts_are_held(const fg_tape *t, fg_id i)
{
    const fg_id count = t->args[i].b;
    if (count > 0 && fg_tape_holder(t, i - 1)) /* asked again and again while they go, first to last... */
        return 1;
    for (fg_id end, first = i - count; first < i; first = end) { /* ... or last to first */
        end = min_id(i, first + 64);
        uintptr_t any = 0; /* mostly there is none, and a loop without a way out takes several at a time */
        for (fg_id k = first; k < end; k++)
            any |= (uintptr_t)t->owner[k];
        if (any)
            for (fg_id k = first; k < end; k++)
                if (t->owner[k] && fg_tape_holder(t, k))
                    return 1;
    }
    return 0;
}

/* Drop node i, on top and held by nobody, with its parts; returns the new top, or i if a part is held. */
static fg_id drop(fg_tape *t, fg_id i)
{
    const int op = fg_tape_op(t, i);
    fg_id parts = 0;
    if (fg_op_is_block(op)) {
        if (parts_are_held(t, i))
            return i;
        parts = t->args[i].b;
        if (FG_UNLIKELY(op == FG_CALL))
            release_call(t, i);
    }
    if (fg_op_is_in_pool(op))
        t->npool = t->args[i].a; /* what is in the pool is in node order */
    if (t->boxes > 0)
        for (fg_id k = 0; k <= parts; k++)
            bury_box(t, i - k);
    return i - parts - 1;
}

/* Where popping stops because of a sweep under way. */
static fg_id needed_below(const fg_tape *t)
{
    fg_id above = 0;
    for (const fg_sweep *s = t->sweeps; s; s = s->next)
        above = max_id(above, s->above);
    return above;
}

/* Whether the eight nodes up to i can go without another look: nobody holds one, and none has anything but its slot.
 * Precondition: i >= 7. */
static inline int eight_are_free(const fg_tape *t, fg_id i)
{
    fg_id *const *const owner = t->owner + (i - 7);
    uintptr_t any = 0;
    uint64_t ops;
    for (int k = 0; k < 8; k++)
        any |= (uintptr_t)owner[k];
    memcpy(&ops, t->op + (i - 7), sizeof ops);
    return any == 0 && fg_ops_are_inline(ops);
}

/* The top once the nodes that nobody holds are dropped; those below `needed` stay. */
static inline fg_id pop_to(fg_tape *t, fg_id needed)
{
    fg_id i = t->n - 1;
    if (needed == 0) {
        int few = 0; /* mostly they are all */
        for (; few < 4 && !t->owner[i] && fg_op_is_inline(t->op[i]); few++)
            i--;
        if (few == 4)
            while (i >= 8 && eight_are_free(t, i))
                i -= 8;
    }
    for (;;) { /* stops at 0, which is always held */
        if (needed > 0 && i < needed)
            return i;
        if (FG_LIKELY(!t->owner[i] && fg_op_is_inline(t->op[i]))) {
            i--;
            continue;
        }
        if (fg_tape_holder(t, i))
            return i;
        const fg_id next = drop(t, i);
        if (next == i)
            return i;
        i = next;
    }
}

void fg_tape_pop(fg_tape *t)
{
    if (t->busy)
        return;
    const fg_id before = t->n;
    t->n = 1 + (FG_LIKELY(!t->sweeps) ? pop_to(t, 0) : pop_to(t, needed_below(t)));
    if (FG_UNLIKELY(t->n < t->capacity / 8 && t->capacity > KEPT_CAPACITY))
        relax(t, before);
}

/* ---- sweeps under way ---- */

fg_sweep *fg_tape_sweep_begin(fg_tape *t, fg_id end)
{
    const size_t words = FG_MARKS_WORDS(end);
    fg_sweep *s = t->spare;
    if (!s) {
        void *made = NULL;
        if (fg_mem_resize(&t->mem, &made, 0, 1, sizeof *s) < 0)
            return NULL;
        s = made;
        *s = (fg_sweep){.next = NULL};
        t->spare = s;
    }
    if (s->words < words) { /* as many as the tape has, so that it does not happen at each sweep of a growing graph */
        const size_t to = FG_MARKS_WORDS(t->capacity), from = s->words;
        const size_t sums = FG_MARKS_WORDS(from), to_sums = FG_MARKS_WORDS(to);
        if (fg_mem_resize(&t->mem, (void **)&s->marks.summary, sums, to_sums, sizeof *s->marks.summary) < 0)
            return NULL;
        if (fg_mem_resize(&t->mem, (void **)&s->marks.word, from, to, sizeof *s->marks.word) < 0) {
            (void)fg_mem_resize(&t->mem, (void **)&s->marks.summary, to_sums, sums, sizeof *s->marks.summary);
            return NULL;
        }
        memset(s->marks.word + from, 0, (to - from) * sizeof *s->marks.word);
        memset(s->marks.summary + sums, 0, (to_sums - sums) * sizeof *s->marks.summary);
        s->words = to;
    }
    t->spare = s->next;
    s->next = t->sweeps;
    s->above = end;
    s->done = 0;
    t->sweeps = s;
    return s;
}

void fg_tape_sweep_pause(const fg_tape *t, fg_sweep *s)
{
    const fg_marks *const m = &s->marks;
    s->above = 0;
    for (fg_id k = m->highest + 1; k-- > m->lowest;)
        if (m->summary[k]) {
            fg_id w = (k << 6) + fg_bits_top(m->summary[k]);
            while (!m->word[w] && w > m->lowest << 6) /* a summary may lag behind its words */
                w--;
            if (!m->word[w])
                return;
            const fg_id i = (w << 6) + fg_bits_top(m->word[w]);
            /* with a result of an instruction goes the instruction, which is above it */
            s->above = 1 + (fg_tape_op(t, i) == FG_PART ? i + t->args[i].a : i);
            return;
        }
}

void fg_tape_sweep_end(fg_tape *t, fg_sweep *s)
{
    fg_sweep **link = &t->sweeps;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    s->next = t->spare;
    t->spare = s;
    fg_tape_pop(t);
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

/* Set the marks of the nodes from `first` to before `end` in the words, and not in the summary. */
static void mark_words(uint64_t *word, fg_id first, fg_id end)
{
    for (fg_id w = first >> 6; first < end && w <= (end - 1) >> 6; w++)
        word[w] |= fg_marks_mask(w, first, end);
}

/* How many nodes right below node i go with it: the leaves of a run, or an instruction's parts. */
static fg_id parts_of(const fg_tape *t, fg_id i)
{
    const int op = fg_tape_op(t, i);
    return op == FG_RUN || fg_op_is_block(op) ? t->args[i].b : 0;
}

/* Mark what node i keeps: its parts, and its operands with what lies between the slots of a view, so that their
 * distances stay. */
static void mark_kept(fg_tape *t, fg_id i)
{
    uint64_t *const word = t->marks.word;
    fg_operands o;
    fg_tape_views(t, i, &o);
    mark_words(word, i - parts_of(t, i), i);
    for (fg_id v = 0; v < o.count; v++) {
        fg_id count, lowest, highest, *const ids = fg_view_ids(o.words, o.view + v, &count);
        if (o.view[v].flags & FG_VIEW_LIST) {
            for (fg_id k = 0; k < count; k++)
                word[ids[k] >> 6] |= (uint64_t)1 << (ids[k] & 63u);
        } else if (count > 0) {
            fg_view_extent(o.view + v, &lowest, &highest);
            mark_words(word, lowest, highest + 1);
        }
    }
}

/* Ids being topological, one scan from the top settles it, but for a part, whose instruction is above it
 * and is marked with it. Writes marks.word only; the summary stays clear. */
void fg_tape_mark_living(fg_tape *t)
{
    const uint8_t *const ops = t->op;
    const fg_args *const args = t->args;
    uint64_t *const word = t->marks.word;

    for (const fg_sweep *s = t->sweeps; s; s = s->next)
        for (size_t w = 0; w < FG_MARKS_WORDS(s->above); w++)
            word[w] |= s->marks.word[w];
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
            if (FG_UNLIKELY(!fg_op_is_scalar(op))) {
                const fg_id block = op == FG_PART ? i + args[i].a : i;
                const uint64_t below = ((uint64_t)1 << bit) - 1u;
                word[w] = marked | done;
                if (op != FG_PART || !fg_marks_has(&t->marks, block)) {
                    word[block >> 6] |= (uint64_t)1 << (block & 63u);
                    mark_kept(t, block);
                }
                done |= word[w] & ~below; /* parts and instruction: their operands are marked */
                marked = word[w] & below;
            } else if (FG_UNLIKELY(fg_op_is_pooled(op))) {
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

/* How many pool entries a node has, by its opcode and what it keeps. */
static fg_id pool_size(const fg_tape *t, int op, fg_args args)
{
    if (fg_op_is_block(op))
        return ((const fg_record *)(const void *)(t->pool + args.a))->size;
    return fg_op_is_pooled(op) ? fg_op_pool_size(op, args.b) : 0;
}

/* Renumber the operands that a node has in the pool, and move them down to `to`; returns where they end. */
static fg_id slide_pooled(fg_tape *t, const run *r, int op, fg_args args, fg_id to)
{
    fg_id *const words = t->pool + args.a, size = pool_size(t, op, args);
    fg_record *const record = (fg_record *)(void *)words;
    const fg_id views = fg_op_is_block(op) ? record->views : 1;
    for (fg_id v = 0; v < views; v++) {
        fg_id *ids = words, count = args.b;
        if (fg_op_is_block(op))
            ids = fg_view_ids(words, fg_record_view(record, v), &count);
        for (fg_id k = 0; k < count; k++)
            ids[k] = renumber(t, r, ids[k]);
    }
    memmove(t->pool + to, words, size * sizeof *words);
    return to + size;
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
        if (FG_UNLIKELY(!fg_op_is_inline(op))) {
            if (fg_op_is_in_pool(op)) {
                const fg_id end = slide_pooled(t, r, op, args, *npool);
                args.a = *npool;
                *npool = end;
            }
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

/* Where the pool entries of node i end; 0 if it has none. */
static fg_id pool_end(const fg_tape *t, fg_id i)
{
    const fg_id size = pool_size(t, fg_tape_op(t, i), t->args[i]);
    return size > 0 ? t->args[i].a + size : 0;
}

/* Give the marks of a sweep under way to the ids that the nodes will have. Those are no larger, so that no mark
 * is moved that has been moved before. */
static void renumber_marks(const fg_tape *t, fg_sweep *s)
{
    fg_marks *const m = &s->marks;
    const run all = {0, FG_MAX_ID, 0};
    for (fg_id w = m->lowest << 6; w < FG_MARKS_WORDS(s->above); w++) {
        uint64_t marked = m->word[w];
        m->word[w] = 0;
        m->summary[w >> 6] &= ~((uint64_t)1 << (w & 63u));
        while (marked) {
            const unsigned bit = fg_bits_low(marked);
            marked &= marked - 1u;
            fg_marks_add(m, renumber(t, &all, (w << 6) + bit));
        }
    }
}

/* Move the callers' numbers for the marked nodes down, as their nodes have been. */
static void slide_origins(fg_tape *t, fg_id n)
{
    fg_id to = 0;
    for (fg_id i = next_with_mark(t->marks.word, 0, n, 1); i < n; i = next_with_mark(t->marks.word, i + 1, n, 1))
        t->origin[to++] = t->origin[i];
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
        for (fg_sweep *s = t->sweeps; s; s = s->next)
            renumber_marks(t, s);
        for (fg_id i = first; i-- > 0 && npool == 0;) /* what is in the pool for those below stays, too */
            npool = pool_end(t, i);
        if (t->boxes > 0)
            for (fg_id i = first; i < n; i = next_with_mark(word, i + 1, n, 0))
                bury_box(t, i);
        if (t->n_programs > 0)
            for (fg_id i = first; i < n; i = next_with_mark(word, i + 1, n, 0))
                if (fg_tape_op(t, i) == FG_CALL)
                    release_call(t, i);
        for (fg_id i = next_with_mark(word, first, n, 1); i < n;) {
            const fg_id end = next_with_mark(word, i, n, 0);
            const run r = {first, i, i - to};
            slide(t, &r, end - i, &npool);
            to += end - i;
            i = next_with_mark(word, end, n, 1);
        }
        assert(to == living);
        if (t->origin)
            slide_origins(t, n);
        t->n = living;
        t->npool = npool;
        for (fg_sweep *s = t->sweeps; s; s = s->next)
            fg_tape_sweep_pause(t, s);
    }
    memset(word, 0, words * sizeof *word);
    t->collections++;
    t->writes += t->writes > 0;
    set_collect_at(t);
    return n - living;
}

/* Whether node i has an operand from `first` to before `end`, or a view whose slots lie on both sides. */
static int uses(const fg_tape *t, fg_id i, fg_id first, fg_id end)
{
    fg_operands o;
    fg_tape_views(t, i, &o);
    for (fg_id v = 0; v < o.count; v++) {
        fg_id count, lowest, highest, *const ids = fg_view_ids(o.words, o.view + v, &count);
        for (fg_id k = 0; k < count; k++) {
            lowest = highest = ids[k];
            if (!(o.view[v].flags & FG_VIEW_LIST))
                fg_view_extent(o.view + v, &lowest, &highest);
            if (lowest < end && highest >= first)
                return 1;
        }
    }
    return 0;
}

void fg_tape_pass(fg_tape *t, fg_id i)
{
    if (t->busy || t->n < COLLECT_FLOOR || t->n < t->pass_at || t->n - i > t->n / 8)
        return;
    for (fg_id k = i + 1; k < t->n; k++)
        if (uses(t, k, i - t->args[i].b, i + 1))
            return;
    const fg_id before = t->n;
    const int useful = fg_tape_collect(t) > before / 8;
    t->pass_at = useful ? 0 : grown(t->n, t->n);
    if (t->n < t->capacity / 4)
        fg_tape_shrink(t);
}

/* ---- checking ---- */

/* Of a block instruction: its parts are where they should be. Of a part: there is an instruction that it is of. */
static int block_check(const fg_tape *t, fg_id i)
{
    if (fg_tape_op(t, i) == FG_PART) {
        const fg_id above = t->args[i].a, block = i + above;
        return block < t->n && fg_op_is_block(fg_tape_op(t, block)) && above <= t->args[block].b;
    }
    fg_record *const r = fg_tape_record(t, i);
    const fg_id parts = t->args[i].b, first = i - parts;
    if (parts >= i || (uint64_t)r->rows * r->cols != (parts ? parts : 1))
        return 0;
    for (fg_id k = first; k < i; k++)
        if (fg_tape_op(t, k) != FG_PART || k + t->args[k].a != i)
            return 0;
    if (fg_tape_op(t, i) == FG_CALL
        && (parts == 0 || r->param >= t->n_programs || !t->programs[r->param].callee))
        return 0;
    return 1;
}

int fg_tape_check(const fg_tape *t)
{
    if (t->n < 1 || t->n > t->capacity || t->room > t->capacity || t->npool > t->pool_capacity)
        return 0;
    if (t->op[0] != FG_LEAF || t->owner[0] != &t->sentinel || t->sentinel != 0)
        return 0;
    fg_id npool = 0;
    for (fg_id i = 0; i < t->n; i++) {
        const int op = fg_tape_op(t, i);
        if (op == FG_RUN ? t->args[i].b >= i : !fg_op_is_scalar(op) && op != FG_FROZEN && !block_check(t, i))
            return 0;
        fg_operands o;
        fg_tape_views(t, i, &o);
        if (uses(t, i, i - parts_of(t, i), FG_MAX_ID))
            return 0;
        for (fg_id k = 0; o.count > 0 && o.view == &o.list && k < o.list.cols; k++)
            if (t->op[o.words[k]] == FG_RUN)
                return 0;
        if (pool_end(t, i)) {
            if (t->args[i].a != npool)
                return 0;
            npool = pool_end(t, i);
        }
        if (fg_tape_holder(t, i) && *fg_tape_holder(t, i) != i)
            return 0;
    }
    if (npool != t->npool)
        return 0;
    for (size_t w = 0; w < FG_MARKS_WORDS(t->capacity); w++)
        if (t->marks.word[w] || t->marks.summary[w >> 6])
            return 0;
    for (const fg_sweep *s = t->spare; s; s = s->next)
        for (size_t w = 0; w < s->words; w++)
            if (s->marks.word[w] || s->marks.summary[w >> 6])
                return 0;
    return 1;
}
