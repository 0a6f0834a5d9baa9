/* simplify.c: see simplify.h. Every number of the graph is a value, told by the id of its node, or by an id above all of
 * these if it is new. The order here: memory, values, what is shared, instructions, sums, groups, layers, shapes,
 * writing. */
#include "simplify.h"

#include <string.h>

/* ---- memory ---- */

typedef struct ids {
    fg_id *p;
    size_t n, room;
} ids;

/* A matrix of values. */
typedef struct view {
    fg_id rows, cols;
    fg_id at; /* where in work.ids they are listed; of a whole view the first one */
    int32_t row_step, col_step; /* of a whole view */
    uint8_t whole;    /* they are operands, and lie in these steps */
    uint8_t constant; /* nobody wants its gradient: it is FG_VIEW_CONSTANT */
    uint8_t detached; /* and yet it has values that are no constants */
    uint64_t hash;    /* of a layer's views */
} view;

typedef struct ins {
    uint8_t op;
    uint8_t gone;       /* it is part of another */
    fg_id param, k;     /* as in fg_record */
    fg_id rows, cols;   /* of the results */
    fg_id results;      /* where in work.ids their values are */
    fg_id views, v;     /* how many, and where in work.views they begin */
    fg_id extra, n_extra; /* where in work.ids that is */
    fg_id level;
    fg_id next;         /* in a group; 0: the last */
} ins;

typedef struct value {
    fg_id same;  /* the value that stands for it */
    fg_id uses;  /* how many operands it is */
    fg_id level; /* of the instruction that computes it */
    fg_id made;  /* its node in the new tape; 0: none yet */
} value;

typedef struct work {
    const fg_tape *from;
    fg_mem mem;
    fg_id area, first; /* values from `first` on are no operands */
    fg_id n;           /* values */
    size_t room;       /* of the arrays by value */
    value *value;      /* [n] */
    uint8_t *needed;   /* [n] */
    uint8_t *constant; /* [n] */
    ids ids;
    view *views;
    size_t n_views, views_room;
    ins *list;
    size_t count, list_room;
    double *numbers;   /* [most] 0.0, for results that nobody has computed */
    fg_id most;        /* results of an instruction */
    int steps;
} work;

/* Resize an array. */
static int resize(work *w, void *array, size_t from, size_t to, size_t size)
{
    return fg_mem_resize(&w->mem, (void **)array, from, to, size);
}

/* Room for `count` more ids; where they go, or NULL. */
static fg_id *more(work *w, ids *list, size_t count)
{
    if (list->n + count > list->room || !list->p) {
        const size_t room = (list->n + count) * 2 + 64;
        if (room > FG_MAX_ID || resize(w, &list->p, list->room, room, sizeof *list->p) < 0)
            return NULL;
        list->room = room;
    }
    list->n += count;
    return list->p + (list->n - count);
}

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9E3779B97F4A7C15u;
    return h ^ (h >> 32);
}

/* An array of zeros, of a power of two that holds `count` twice. */
static int table(work *w, void *array, size_t count, size_t size, size_t *room)
{
    *room = 64;
    while (*room < 2 * count)
        *room *= 2;
    const int status = resize(w, array, 0, *room, size);
    if (status == FG_OK)
        memset(*(void **)array, 0, *room * size);
    return status;
}

/* ---- values ---- */

static int is_operand(const work *w, fg_id i)
{
    return i < w->first;
}

static fg_id same(const work *w, fg_id i)
{
    return w->value[i].same;
}

/* A new value. 0 if memory is short. */
static fg_id new_values(work *w, fg_id count)
{
    if (w->n + (size_t)count > w->room) {
        const size_t room = (w->room + count) * 2;
        if (room > FG_MAX_ID || resize(w, &w->value, w->room, room, sizeof *w->value) < 0)
            return 0;
        if (resize(w, &w->needed, w->room, room, 1) < 0) {
            (void)resize(w, &w->value, room, w->room, sizeof *w->value);
            return 0;
        }
        if (resize(w, &w->constant, w->room, room, 1) < 0) {
            (void)resize(w, &w->value, room, w->room, sizeof *w->value);
            (void)resize(w, &w->needed, room, w->room, 1);
            return 0;
        }
        w->room = room;
    }
    const fg_id first = w->n;
    for (fg_id k = 0; k < count; k++) {
        const fg_id i = w->n++;
        w->value[i] = (value){.same = i};
        w->needed[i] = 1;
        w->constant[i] = 0;
    }
    return first;
}

/* ---- what is shared ---- */

static int is_row(int op)
{
    return fg_op_is_scalar(op) && op != FG_LEAF;
}

/* The bits that a unary row keeps beside its operand. */
static fg_id immediate(const fg_tape *t, fg_id i)
{
    return fg_op_table[fg_tape_op(t, i)].arity == 1 ? t->args[i].b : 0;
}

static int same_node(const work *w, fg_id i, fg_id j)
{
    const fg_tape *const t = w->from;
    const int op = fg_tape_op(t, i);
    if (op != fg_tape_op(t, j))
        return 0;
    if (op == FG_LEAF)
        return memcmp(t->data + i, t->data + j, sizeof *t->data) == 0;
    fg_id count, n;
    const fg_id *const a = fg_tape_operands(t, i, &count), *const b = fg_tape_operands(t, j, &n);
    assert(count == n); /* an operation of a program has as many as its row says */
    if (immediate(t, i) != immediate(t, j))
        return 0;
    for (fg_id k = 0; k < count; k++)
        if (same(w, a[k]) != same(w, b[k]))
            return 0;
    return 1;
}

static uint64_t hash_node(const work *w, fg_id i)
{
    const fg_tape *const t = w->from;
    const int op = fg_tape_op(t, i);
    uint64_t h = mix(immediate(t, i), (uint64_t)op);
    if (op == FG_LEAF) {
        memcpy(&h, t->data + i, sizeof h);
        return mix(h, 1);
    }
    fg_id count;
    const fg_id *const a = fg_tape_operands(t, i, &count);
    for (fg_id k = 0; k < count; k++)
        h = mix(h, same(w, a[k]));
    return h;
}

static int is_number(const work *w, fg_id i, double x)
{
    return w->constant[i] && memcmp(w->from->data + i, &x, sizeof x) == 0;
}

/* What a node is the same as without being computed: a copy, x * 1, x / 1 and x - 0. */
static fg_id plain(const work *w, fg_id i)
{
    const int op = fg_tape_op(w->from, i);
    if (op != FG_COPY && op != FG_MUL && op != FG_DIV && op != FG_SUB)
        return i;
    const fg_id a = same(w, w->from->args[i].a), b = op == FG_COPY ? 0 : same(w, w->from->args[i].b);
    if (op == FG_COPY || is_number(w, b, op == FG_SUB ? 0.0 : 1.0))
        return a;
    return op == FG_MUL && is_number(w, a, 1.0) ? b : i;
}

/* Of an FG_MAP that copies: what its results are the same as. */
static void share_copies(work *w, fg_id block)
{
    const fg_tape *const t = w->from;
    fg_record *const r = fg_tape_record(t, block);
    const fg_view *const v = fg_record_view(r, 0);
    const fg_id count = r->rows * r->cols, first = block - t->args[block].b;
    for (fg_id k = 0; k < count; k++)
        w->value[first + k].same =
            same(w, fg_record_slot(r, v, v->rows > 1 ? k / r->cols : 0, v->cols > 1 ? k % r->cols : 0));
}

static int is_copy(const work *w, fg_id block)
{
    if (fg_tape_op(w->from, block) != FG_MAP || !(w->steps & FG_SIMPLIFY_SHARED))
        return 0;
    fg_record *const r = fg_tape_record(w->from, block);
    return r->param == FG_COPY && !(fg_record_view(r, 0)->flags & FG_VIEW_CONSTANT);
}

/* Which values are constants, and which are the same. */
static int find_shared(work *w)
{
    const fg_tape *const t = w->from;
    const int all = (w->steps & FG_SIMPLIFY_SHARED) != 0;
    fg_id *seen = NULL;
    size_t room = 0;
    if (all && table(w, &seen, t->n, sizeof *seen, &room) < 0)
        return FG_E_MEMORY;
    for (fg_id i = w->first; i < t->n; i++) {
        const int op = fg_tape_op(t, i);
        w->constant[i] = op == FG_LEAF;
        if (fg_op_is_block(op) && is_copy(w, i))
            share_copies(w, i);
        if (!all || !fg_op_is_scalar(op))
            continue;
        w->value[i].same = op == FG_LEAF ? i : plain(w, i);
        if (w->value[i].same != i)
            continue;
        for (size_t at = (size_t)hash_node(w, i);; at++) {
            fg_id *const slot = seen + (at & (room - 1));
            if (*slot == 0)
                *slot = i;
            if (*slot == i || same_node(w, *slot, i)) {
                w->value[i].same = *slot;
                break;
            }
        }
    }
    if (seen)
        (void)resize(w, &seen, room, 0, sizeof *seen);
    return FG_OK;
}

static void need(work *w, fg_id i)
{
    const fg_id x = same(w, i);
    w->needed[x] = 1;
    w->value[x].uses++;
}

/* Which values are needed, from the results down, and as how many operands. How many instructions that is. */
static fg_id find_needed(work *w, const fg_id *results, fg_id n_results)
{
    const fg_tape *const t = w->from;
    fg_id instructions = 0;
    for (fg_id k = 0; k < n_results; k++) {
        need(w, results[k]);
        need(w, results[k]); /* it has to be there itself */
    }
    for (fg_id i = t->n; i-- > w->first;) {
        const int op = fg_tape_op(t, i);
        if (is_row(op)) {
            if (!w->needed[i])
                continue;
            fg_id count;
            const fg_id *const a = fg_tape_operands(t, i, &count);
            for (fg_id k = 0; k < count; k++)
                need(w, a[k]);
            instructions++;
        } else if (fg_op_is_block(op)) {
            const fg_id first = i - t->args[i].b;
            int any = w->needed[i];
            for (fg_id k = first; k < i; k++)
                any |= w->needed[k];
            if (!any)
                continue;
            fg_operands o;
            fg_tape_views(t, i, &o);
            for (fg_id v = 0; v < o.count; v++)
                for (fg_id row = 0; row < o.view[v].rows; row++)
                    for (fg_id col = 0; col < o.view[v].cols; col++)
                        need(w, fg_view_slot(o.words, o.view + v, row, col));
            w->needed[i] = 1;
            instructions++;
        }
    }
    return instructions;
}

/* ---- instructions ---- */

static view *view_of(const work *w, const ins *s, fg_id v)
{
    return w->views + s->v + v;
}

static ins *new_ins(work *w, int op, fg_id views, fg_id rows, fg_id cols)
{
    if (w->count == w->list_room) {
        const size_t room = w->list_room * 2 + 256;
        if (resize(w, &w->list, w->list_room, room, sizeof *w->list) < 0)
            return NULL;
        w->list_room = room;
    }
    if (w->n_views + views > w->views_room) {
        const size_t room = (w->n_views + views) * 2 + 256;
        if (room > FG_MAX_ID || resize(w, &w->views, w->views_room, room, sizeof *w->views) < 0)
            return NULL;
        w->views_room = room;
    }
    ins *const s = w->list + w->count++;
    *s = (ins){.op = (uint8_t)op, .rows = rows, .cols = cols, .views = views, .v = (fg_id)w->n_views};
    w->n_views += views;
    return s;
}

static fg_id size_of(const view *v)
{
    return v->rows * v->cols;
}

static fg_id value_at(const work *w, const view *v, fg_id k)
{
    if (!v->whole)
        return w->ids.p[v->at + k];
    return (fg_id)((int64_t)v->at + (int64_t)(k / v->cols) * v->row_step + (int64_t)(k % v->cols) * v->col_step);
}

static void hash_view(const work *w, view *v)
{
    uint64_t h = mix(mix(v->rows, v->cols), v->detached);
    if (v->whole) {
        h = mix(mix(mix(h, v->at), (uint32_t)v->row_step), (uint32_t)v->col_step);
    } else {
        for (fg_id k = 0; k < size_of(v); k++)
            h = mix(h, w->ids.p[v->at + k]);
    }
    v->hash = h;
}

static int same_view(const work *w, const view *a, const view *b)
{
    if (a->hash != b->hash || a->rows != b->rows || a->cols != b->cols || a->whole != b->whole
        || a->detached != b->detached)
        return 0;
    if (a->whole)
        return a->at == b->at && a->row_step == b->row_step && a->col_step == b->col_step;
    return memcmp(w->ids.p + a->at, w->ids.p + b->at, size_of(a) * sizeof *w->ids.p) == 0;
}

/* A list of values as a view. */
static int list_values(work *w, view *v, const fg_id *values, fg_id rows, fg_id cols)
{
    fg_id *const to = more(w, &w->ids, (size_t)rows * cols);
    if (!to)
        return FG_E_MEMORY;
    *v = (view){.rows = rows, .cols = cols, .at = (fg_id)(to - w->ids.p), .constant = 1};
    for (fg_id k = 0; k < rows * cols; k++) {
        to[k] = values[k];
        v->constant &= w->constant[values[k]];
    }
    return FG_OK;
}

/* The level of an instruction: two above those of its operands, for others to come between. */
static void set_level(const work *w, ins *s)
{
    fg_id level = 0;
    for (fg_id v = 0; v < s->views; v++) {
        const view *const from = view_of(w, s, v);
        for (fg_id k = 0; !from->whole && k < size_of(from); k++) {
            const fg_id at = w->value[w->ids.p[from->at + k]].level;
            level = at > level ? at : level;
        }
    }
    s->level = level + 2;
    for (fg_id k = 0; k < s->rows * s->cols; k++)
        w->value[w->ids.p[s->results + k]].level = s->level;
}

/* The results are `count` values from `first` on. */
static int set_results(work *w, ins *s, fg_id first, fg_id count)
{
    fg_id *const to = more(w, &w->ids, count);
    if (!to)
        return FG_E_MEMORY;
    s->results = (fg_id)(to - w->ids.p);
    for (fg_id k = 0; k < count; k++)
        to[k] = first + k;
    set_level(w, s);
    return FG_OK;
}

/* A view of an instruction of the old tape. */
static int copy_view(work *w, const fg_record *r, const fg_view *from, view *v)
{
    *v = (view){.rows = from->rows, .cols = from->cols, .constant = 1};
    fg_id lowest = 0, highest = 0;
    if (!(from->flags & FG_VIEW_LIST) && size_of(v) > 0) {
        fg_view_extent(from, &lowest, &highest);
        if (highest <= w->area) {
            v->whole = 1;
            v->at = from->base;
            v->row_step = v->rows > 1 ? from->row_step : 0;
            v->col_step = v->cols > 1 ? from->col_step : 0;
            v->constant = v->detached = (from->flags & FG_VIEW_CONSTANT) != 0;
            return FG_OK;
        }
    }
    fg_id *to = more(w, &w->ids, size_of(v));
    if (!to)
        return FG_E_MEMORY;
    v->at = (fg_id)(to - w->ids.p);
    for (fg_id row = 0; row < v->rows; row++)
        for (fg_id col = 0; col < v->cols; col++) {
            *to = same(w, fg_record_slot(r, from, row, col));
            v->constant &= w->constant[*to++];
        }
    if (from->flags & FG_VIEW_CONSTANT) {
        v->detached = !v->constant;
        v->constant = 1;
    }
    return FG_OK;
}

static int copy_block(work *w, fg_id i)
{
    const fg_tape *const t = w->from;
    fg_record *const r = fg_tape_record(t, i);
    const fg_id count = r->rows * r->cols, first = i - t->args[i].b;
    ins *const s = new_ins(w, fg_tape_op(t, i), r->views, r->rows, r->cols);
    if (!s)
        return FG_E_MEMORY;
    s->param = r->param;
    s->k = r->k;
    for (fg_id v = 0; v < r->views; v++)
        if (copy_view(w, r, fg_record_view(r, v), view_of(w, s, v)) < 0)
            return FG_E_MEMORY;
    fg_id *const extra = more(w, &w->ids, r->extra);
    if (!extra)
        return FG_E_MEMORY;
    s->extra = (fg_id)(extra - w->ids.p);
    s->n_extra = r->extra;
    memcpy(extra, fg_record_extra(r), r->extra * sizeof *extra);
    return set_results(w, s, first, count);
}

/* A single node: an FG_MAP of one element, for the time being. */
static int copy_node(work *w, fg_id i)
{
    const int op = fg_tape_op(w->from, i);
    fg_id count;
    const fg_id *const a = fg_tape_operands(w->from, i, &count);
    ins *const s = new_ins(w, FG_MAP, count, 1, 1);
    if (!s)
        return FG_E_MEMORY;
    s->param = (fg_id)op;
    s->k = immediate(w->from, i);
    for (fg_id v = 0; v < count; v++) {
        const fg_id x = same(w, a[v]);
        if (list_values(w, view_of(w, s, v), &x, 1, 1) < 0)
            return FG_E_MEMORY;
    }
    return set_results(w, s, i, 1);
}

/* ---- sums ---- */

typedef struct terms {
    ids x, y, rest, stack; /* the factors of each product, and what else is added */
} terms;

static int is_inner(const work *w, fg_id i, int op)
{
    assert(i < w->from->n && same(w, i) == i); /* the operands of the old tape's nodes, each by the one that stands for it */
    return i >= w->first && w->value[i].uses == 1 && fg_tape_op(w->from, i) == op;
}

/* The terms of the sum whose last addition is node i, from left to right. */
static int find_terms(work *w, fg_id i, terms *s)
{
    s->x.n = s->y.n = s->rest.n = s->stack.n = 0;
    fg_id *to = more(w, &s->stack, 1);
    if (!to)
        return FG_E_MEMORY;
    *to = i;
    while (s->stack.n > 0) {
        const fg_id x = s->stack.p[--s->stack.n];
        const fg_args args = w->from->args[x];
        if (x == i || is_inner(w, x, FG_ADD)) {
            if (!(to = more(w, &s->stack, 2)))
                return FG_E_MEMORY;
            to[0] = same(w, args.b);
            to[1] = same(w, args.a);
        } else if (is_inner(w, x, FG_MUL)) {
            fg_id *const a = more(w, &s->x, 1), *const b = more(w, &s->y, 1);
            if (!a || !b)
                return FG_E_MEMORY;
            *a = same(w, args.a);
            *b = same(w, args.b);
        } else if (!is_number(w, x, 0.0)) {
            if (!(to = more(w, &s->rest, 1)))
                return FG_E_MEMORY;
            *to = x;
        }
    }
    return FG_OK;
}

static int is_worthwhile(const terms *s)
{
    return s->x.n >= 2 || s->rest.n + s->x.n >= 3;
}

/* The only user of value i, of which `user` has those that a layer can do within its own instruction; else i. */
static fg_id activated(const work *w, fg_id i, const fg_id *user)
{
    const fg_id u = user[i];
    return w->value[i].uses == 1 && u != 0 ? u : i;
}

/* The product of the only two factors, as a term like the others. */
static int move_product(work *w, terms *s)
{
    const fg_id product = new_values(w, 1);
    ins *const m = product ? new_ins(w, FG_MAP, 2, 1, 1) : NULL;
    fg_id *const to = more(w, &s->rest, 1);
    if (!m || !to)
        return FG_E_MEMORY;
    m->param = FG_MUL;
    *to = product;
    s->x.n = 0;
    if (list_values(w, view_of(w, m, 0), s->x.p, 1, 1) < 0 || list_values(w, view_of(w, m, 1), s->y.p, 1, 1) < 0)
        return FG_E_MEMORY;
    return set_results(w, m, product, 1);
}

/* The instructions for the sum that ends with node i. */
static int copy_sum(work *w, fg_id i, terms *s, const fg_id *user, uint8_t *inside)
{
    if (find_terms(w, i, s) < 0 || (s->x.n == 1 && move_product(w, s) < 0))
        return FG_E_MEMORY;
    const fg_id products = (fg_id)s->x.n;
    fg_id bias = s->rest.n ? s->rest.p[0] : 0;
    if (s->rest.n > 1) {
        ins *const sum = new_ins(w, FG_SUM, 1, 1, 1);
        bias = products ? new_values(w, 1) : i;
        if (!sum || !bias || list_values(w, view_of(w, sum, 0), s->rest.p, 1, (fg_id)s->rest.n) < 0
            || set_results(w, sum, bias, 1) < 0)
            return FG_E_MEMORY;
        if (!products)
            return FG_OK;
    }
    ins *const dot = new_ins(w, FG_LAYER, bias ? 3 : 2, 1, 1);
    const fg_id result = activated(w, i, user);
    if (!dot || list_values(w, view_of(w, dot, 0), s->x.p, 1, products) < 0
        || list_values(w, view_of(w, dot, 1), s->y.p, 1, products) < 0
        || (bias && list_values(w, view_of(w, dot, 2), &bias, 1, 1) < 0))
        return FG_E_MEMORY;
    dot->param = result != i ? (fg_id)fg_tape_op(w->from, result) : FG_LEAF;
    if (result != i)
        inside[result] = 1;
    return set_results(w, dot, result, 1);
}

enum { OUTSIDE, INSIDE, LAST, PLAIN }; /* of a node: not known; part of a larger one; the end of a sum; no sum */

/* Which additions and products are part of a larger sum, and which the last of one. */
static int find_sums(work *w, terms *s, uint8_t *inside)
{
    const fg_tape *const t = w->from;
    for (fg_id i = t->n; i-- > w->first;) {
        if (fg_tape_op(t, i) != FG_ADD || !w->needed[i]) /* what is needed stands for itself */
            continue;
        if (inside[i] == OUTSIDE) {
            if (find_terms(w, i, s) < 0)
                return FG_E_MEMORY;
            inside[i] = is_worthwhile(s) ? LAST : PLAIN;
        }
        const fg_id pair[2] = {same(w, t->args[i].a), same(w, t->args[i].b)};
        for (int k = 0; k < 2 && inside[i] != PLAIN; k++)
            if (is_inner(w, pair[k], FG_ADD) || is_inner(w, pair[k], FG_MUL))
                inside[pair[k]] = INSIDE;
    }
    return FG_OK;
}

/* All that is needed as instructions, in order. */
static int list_instructions(work *w, terms *s, fg_id *user, uint8_t *inside)
{
    const fg_tape *const t = w->from;
    int status = FG_OK;
    for (fg_id i = w->first; i < t->n; i++) {
        const int op = fg_tape_op(t, i);
        if (is_row(op) && fg_op_table[op].fused && w->needed[i])
            user[same(w, t->args[i].a)] = i;
    }
    if (w->steps & FG_SIMPLIFY_DOTS)
        status = find_sums(w, s, inside);
    for (fg_id i = w->first; i < t->n && status == FG_OK; i++) {
        const int op = fg_tape_op(t, i);
        if (!w->needed[i] || inside[i] == INSIDE)
            continue;
        if (fg_op_is_block(op)) {
            assert(!is_copy(w, i)); /* others stand for its results */
            status = copy_block(w, i);
        } else if (is_row(op)) {
            assert(same(w, i) == i);
            status = inside[i] == LAST ? copy_sum(w, i, s, user, inside) : copy_node(w, i);
        }
    }
    return status;
}

static void release(work *w, ids *list)
{
    if (list->p)
        (void)resize(w, &list->p, list->room, 0, sizeof *list->p);
}

static int find_instructions(work *w)
{
    const size_t n = w->from->n;
    terms s = {{0}, {0}, {0}, {0}};
    fg_id *user = NULL;
    uint8_t *inside = NULL;
    int status = resize(w, &user, 0, n, sizeof *user);
    if (status == FG_OK && (status = resize(w, &inside, 0, n, 1)) == FG_OK) {
        memset(user, 0, n * sizeof *user);
        memset(inside, OUTSIDE, n);
        status = list_instructions(w, &s, user, inside);
        (void)resize(w, &inside, n, 0, 1);
    }
    if (user)
        (void)resize(w, &user, n, 0, sizeof *user);
    release(w, &s.x);
    release(w, &s.y);
    release(w, &s.rest);
    release(w, &s.stack);
    return status;
}

/* ---- groups ---- */

/* By what instructions are put together: layers of the same x, those of the same weights, dot products without either,
 * and all others. */
typedef enum joint { BY_X, BY_W, BY_ROW, BY_OPERATION } joint;

enum { LARGE = 256 }; /* a FG_MAP of so many numbers gains nothing by others */

static int is_layer(const ins *s)
{
    return s->op == FG_LAYER && s->rows == 1;
}

static int is_dot(const ins *s)
{
    return is_layer(s) && s->cols == 1;
}

/* Whether every operand has an element for each result. */
static int is_flat(const work *w, const ins *s)
{
    if (s->op != FG_MAP || s->rows * s->cols >= LARGE)
        return 0;
    for (fg_id v = 0; v < s->views; v++)
        if (size_of(view_of(w, s, v)) != s->rows * s->cols)
            return 0;
    return 1;
}

/* How long the rows of a reduction are. */
static fg_id row_length(const work *w, const ins *s)
{
    const view *const x = view_of(w, s, 0);
    return !fg_op_is_softmax(s->op) && s->rows * s->cols == 1 ? size_of(x) : x->cols;
}

static int takes_part(const work *w, const ins *s, joint by)
{
    if (s->gone)
        return 0;
    switch (by) {
    case BY_X:
        return is_dot(s);
    case BY_W:
        return is_layer(s);
    case BY_ROW:
        return is_dot(s) && s->views == 2 && s->param == FG_LEAF;
    default:
        return is_flat(w, s) || (fg_op_is_along_rows(s->op) && s->n_extra == 0);
    }
}

static uint64_t key_of(const work *w, const ins *s, joint by)
{
    const uint64_t h = mix(mix(mix(s->op, s->param), s->level), s->views);
    switch (by) {
    case BY_X:
        return mix(h, view_of(w, s, 0)->hash);
    case BY_W:
        return mix(mix(h, view_of(w, s, 1)->hash), s->views > 2 ? view_of(w, s, 2)->hash : 0);
    case BY_ROW:
        return mix(h, view_of(w, s, 0)->cols);
    default:
        return mix(h, s->op == FG_MAP ? s->k : row_length(w, s));
    }
}

static int fit(const work *w, const ins *a, const ins *b, joint by)
{
    if (a->op != b->op || a->param != b->param || a->level != b->level || a->views != b->views)
        return 0;
    for (fg_id v = 0; v < a->views; v++)
        if (view_of(w, a, v)->detached != view_of(w, b, v)->detached)
            return 0;
    switch (by) {
    case BY_X:
        return same_view(w, view_of(w, a, 0), view_of(w, b, 0));
    case BY_W:
        return a->cols == b->cols && same_view(w, view_of(w, a, 1), view_of(w, b, 1))
               && (a->views < 3 || same_view(w, view_of(w, a, 2), view_of(w, b, 2)));
    case BY_ROW:
        return view_of(w, a, 0)->cols == view_of(w, b, 0)->cols;
    default:
        return a->op == FG_MAP ? a->k == b->k : row_length(w, a) == row_length(w, b);
    }
}

/* View v of the group's first instruction becomes what is in that view of all of them, one after the other. */
static int join_views(work *w, fg_id head, fg_id v, fg_id cols)
{
    size_t size = 0;
    for (fg_id i = head; i; i = w->list[i - 1].next)
        size += size_of(view_of(w, w->list + (i - 1), v));
    fg_id *p = more(w, &w->ids, size);
    if (!p)
        return FG_E_MEMORY;
    view *const to = view_of(w, w->list + (head - 1), v);
    view made = {.rows = (fg_id)(size / cols), .cols = cols, .at = (fg_id)(p - w->ids.p), .constant = 1,
                 .detached = to->detached};
    for (fg_id i = head; i; i = w->list[i - 1].next) {
        const view *const from = view_of(w, w->list + (i - 1), v);
        made.constant &= from->constant;
        for (fg_id k = 0; k < size_of(from); k++)
            *p++ = value_at(w, from, k);
    }
    *to = made;
    hash_view(w, to);
    return FG_OK;
}

static int join_results(work *w, fg_id head, fg_id *count)
{
    size_t size = 0;
    for (fg_id i = head; i; i = w->list[i - 1].next)
        size += (size_t)w->list[i - 1].rows * w->list[i - 1].cols;
    fg_id *p = more(w, &w->ids, size);
    if (!p)
        return FG_E_MEMORY;
    const fg_id at = (fg_id)(p - w->ids.p);
    for (fg_id i = head; i; i = w->list[i - 1].next) {
        const ins *const s = w->list + (i - 1);
        memcpy(p, w->ids.p + s->results, (size_t)s->rows * s->cols * sizeof *p);
        p += (size_t)s->rows * s->cols;
    }
    w->list[head - 1].results = at;
    *count = (fg_id)size;
    return FG_OK;
}

/* Dot products of `count` pairs: one instruction for the products, and one for their sums. */
static int join_dots(work *w, fg_id head, fg_id last, fg_id count)
{
    ins *const product = w->list + (head - 1), *const sum = w->list + (last - 1);
    const fg_id k = view_of(w, product, 0)->cols;
    const fg_id first = new_values(w, count * k);
    if (!first || join_views(w, head, 0, k) < 0 || join_views(w, head, 1, k) < 0)
        return FG_E_MEMORY;
    *sum = (ins){.op = FG_SUM, .rows = 1, .cols = count, .results = product->results, .views = 1, .v = sum->v,
                 .level = product->level + 1};
    product->op = FG_MAP;
    product->param = FG_MUL;
    product->rows = count;
    product->cols = k;
    const fg_id level = product->level;
    if (set_results(w, product, first, count * k) < 0)
        return FG_E_MEMORY;
    product->level = level; /* not lower than that of any of them */
    view *const x = view_of(w, sum, 0);
    *x = (view){.rows = count, .cols = k, .at = product->results};
    return FG_OK;
}

/* Put a group, which begins with instruction head - 1, in the place of its first one. */
static int join(work *w, fg_id head, joint by)
{
    ins *const s = w->list + (head - 1);
    fg_id count, last = head;
    int status = join_results(w, head, &count);
    if (status < 0)
        return status;
    for (fg_id i = s->next; i; i = w->list[i - 1].next) {
        w->list[i - 1].gone = 1;
        last = i;
    }
    switch (by) {
    case BY_X:
        status = join_views(w, head, 1, view_of(w, s, 0)->cols);
        if (status == FG_OK && s->views > 2)
            status = join_views(w, head, 2, count);
        s->cols = count;
        break;
    case BY_W:
        status = join_views(w, head, 0, view_of(w, s, 0)->cols);
        s->rows = count / s->cols;
        break;
    case BY_ROW:
        status = join_dots(w, head, last, count);
        break;
    default:
        if (s->op == FG_MAP) {
            for (fg_id v = 0; v < s->views && status == FG_OK; v++)
                status = join_views(w, head, v, count);
            s->rows = 1;
            s->cols = count;
        } else {
            const fg_id length = row_length(w, s), softmax = (fg_id)fg_op_is_softmax(s->op);
            status = join_views(w, head, 0, length);
            s->rows = softmax ? count / length : 1;
            s->cols = softmax ? length : count;
        }
    }
    s->next = 0;
    return status;
}

/* The first and the last of those that are joined; 0: none. */
typedef struct group {
    fg_id head, last;
} group;

static int join_all(work *w, joint by)
{
    group *groups = NULL;
    size_t room;
    if (table(w, &groups, w->count, sizeof *groups, &room) < 0)
        return FG_E_MEMORY;
    for (size_t i = 0; i < w->count; i++) {
        ins *const s = w->list + i;
        s->next = 0;
        if (!takes_part(w, s, by))
            continue;
        for (size_t at = (size_t)key_of(w, s, by);; at++) {
            group *const g = groups + (at & (room - 1));
            if (g->head == 0) {
                g->head = g->last = (fg_id)i + 1;
                break;
            }
            if (fit(w, w->list + (g->head - 1), s, by)) {
                w->list[g->last - 1].next = (fg_id)i + 1;
                g->last = (fg_id)i + 1;
                break;
            }
        }
    }
    int status = FG_OK;
    for (size_t k = 0; k < room && status == FG_OK; k++)
        if (groups[k].head && w->list[groups[k].head - 1].next)
            status = join(w, groups[k].head, by);
    (void)resize(w, &groups, room, 0, sizeof *groups);
    return status;
}

/* ---- layers ---- */

/* A list of factors, as far as dot products have it. */
typedef struct factors {
    fg_id owner; /* the view that has it, and 1 more */
    fg_id level; /* of its instruction */
    fg_id bias;  /* of the first dot product that has it; 0: none */
    fg_id other; /* another has another bias */
    fg_id count;
} factors;

static factors *find_factors(const work *w, factors *all, size_t room, const ins *s, fg_id v)
{
    const view *const x = view_of(w, s, v);
    for (size_t at = (size_t)mix(x->hash, s->level);; at++) {
        factors *const f = all + (at & (room - 1));
        if (!f->owner)
            *f = (factors){.owner = s->v + v + 1, .level = s->level};
        if (f->level == s->level && same_view(w, w->views + (f->owner - 1), x))
            return f;
    }
}

/* Whether the first of the two lists are the weights: they are those that always come with the same bias; or are
 * operands of the program; or come with more others. */
static int first_is_weights(const work *w, const ins *s, const factors *x, const factors *y)
{
    const int leaf[2] = {is_operand(w, value_at(w, view_of(w, s, 0), 0)),
                         is_operand(w, value_at(w, view_of(w, s, 1), 0))};
    if (s->views > 2 && x->other != y->other)
        return !x->other;
    if (leaf[0] != leaf[1])
        return leaf[0];
    return x->count > y->count;
}

/* Put the weights of each dot product second. */
static int turn_dots(work *w)
{
    factors *all = NULL;
    size_t room, dots = 0;
    for (size_t i = 0; i < w->count; i++) {
        ins *const s = w->list + i;
        dots += (size_t)is_dot(s);
        for (fg_id v = 0; is_layer(s) && v < s->views; v++)
            hash_view(w, view_of(w, s, v));
    }
    if (dots == 0)
        return FG_OK;
    if (table(w, &all, 2 * dots, sizeof *all, &room) < 0)
        return FG_E_MEMORY;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < w->count; i++) {
            ins *const s = w->list + i;
            if (!is_dot(s))
                continue;
            factors *const f[2] = {find_factors(w, all, room, s, 0), find_factors(w, all, room, s, 1)};
            const fg_id bias = s->views > 2 ? value_at(w, view_of(w, s, 2), 0) : 0;
            for (int k = 0; k < 2 && pass == 0; k++) {
                if (f[k]->count++ == 0)
                    f[k]->bias = bias;
                f[k]->other |= f[k]->bias != bias;
            }
            s->next = (fg_id)(pass == 1 && first_is_weights(w, s, f[0], f[1]));
        }
    for (size_t i = 0; i < w->count; i++) { /* now that nobody looks at the table any more */
        ins *const s = w->list + i;
        if (is_dot(s) && s->next) {
            view *const x = view_of(w, s, 0), first = x[0];
            x[0] = x[1];
            x[1] = first;
        }
    }
    (void)resize(w, &all, room, 0, sizeof *all);
    return FG_OK;
}

/* ---- shapes ---- */

/* How many numbers a program runs faster in single operations, of which none has to look its operands up: an operation of
 * the processor on each, a function, products, terms of a sum. */
enum { FEW_PLAIN = 16, FEW_FUNCTIONS = 6, FEW_PRODUCTS = 5, FEW_TERMS = 8 };

/* Whether an instruction is written in single operations: it is small, and all that a gradient may flow to is wanted. */
static int is_small(const work *w, const ins *s)
{
    const fg_id count = s->rows * s->cols;
    fg_id size = 0, most = 0;
    if (s->op == FG_MAP) {
        const fg_op_info *const row = fg_op_table + s->param;
        size = count;
        most = row->kind == FG_OPERATOR && row->domain[0] == '\0' ? FEW_PLAIN : FEW_FUNCTIONS;
    } else if (s->op == FG_LAYER) {
        size = count * view_of(w, s, 0)->cols;
        most = FEW_PRODUCTS;
    } else if (s->op == FG_SUM && count == 1) {
        size = size_of(view_of(w, s, 0));
        most = FEW_TERMS;
    }
    if (size == 0 || size > most)
        return 0;
    for (fg_id v = 0; v < s->views; v++)
        if (view_of(w, s, v)->detached)
            return 0;
    return 1;
}

/* Whether its results are nodes below its own. */
static int has_parts(const ins *s)
{
    return s->rows * s->cols > 1 || s->op == FG_CALL;
}

/* How many nodes an instruction takes. */
static uint64_t nodes_of(const work *w, const ins *s)
{
    const uint64_t count = (uint64_t)s->rows * s->cols;
    if (!is_small(w, s))
        return count + (uint64_t)has_parts(s);
    if (s->op == FG_MAP)
        return count;
    if (s->op == FG_SUM)
        return size_of(view_of(w, s, 0)) - 1;
    return count * (2 * (uint64_t)view_of(w, s, 0)->cols - 1 + (s->views > 2) + (s->param != FG_LEAF));
}

/* At most how many entries in the pool. */
static uint64_t words_of(const work *w, const ins *s)
{
    if (is_small(w, s))
        return s->op == FG_MAP && s->views > 2 ? (uint64_t)s->views * s->rows * s->cols : 0;
    uint64_t words = fg_block_words(s->views, s->n_extra);
    for (fg_id v = 0; v < s->views; v++)
        words += view_of(w, s, v)->whole ? 0 : size_of(view_of(w, s, v));
    return words;
}

/* ---- writing ---- */

static fg_id node_at(const work *w, const view *v, fg_id k)
{
    const fg_id node = w->value[value_at(w, v, k)].made;
    assert(node);
    return node;
}

static void write_view(const work *w, fg_record *r, fg_id v, const view *from)
{
    if (from->whole) {
        fg_block_view(r, v, (fg_view){0, from->at, from->rows, from->cols, from->row_step, from->col_step});
    } else {
        fg_id *const to = fg_block_ids(r);
        for (fg_id k = 0; k < size_of(from); k++)
            to[k] = node_at(w, from, k);
        fg_block_list(r, v, from->rows, from->cols);
    }
    fg_record_view(r, v)->flags |= from->constant ? FG_VIEW_CONSTANT : 0;
}

/* The node of a view's element that belongs to result k: what has one row or column has the same one for all. */
static fg_id operand_of(const work *w, const ins *s, const view *v, fg_id k)
{
    const fg_id row = v->rows > 1 ? k / s->cols : 0, col = v->cols > 1 ? k % s->cols : 0;
    return node_at(w, v, row * v->cols + col);
}

/* Result k in single operations. */
static fg_id write_single(const work *w, const ins *s, fg_id k, fg_tape *to)
{
    const view *const x = view_of(w, s, 0);
    fg_id at;
    if (s->op == FG_MAP) {
        fg_id a[FG_MAX_ARITY] = {0, 0, 0};
        for (fg_id v = 0; v < s->views; v++)
            a[v] = operand_of(w, s, x + v, k);
        if (s->views == 1)
            a[1] = s->k;
        return s->views > 2 ? fg_tape_push_pooled(to, (int)s->param, a, s->views, NULL, 0.0)
                            : fg_tape_push(to, (int)s->param, a[0], a[1], 0.0);
    }
    if (s->op == FG_SUM) {
        at = node_at(w, x, 0);
        for (fg_id j = 1; j < size_of(x); j++)
            at = fg_tape_push(to, FG_ADD, at, node_at(w, x, j), 0.0);
        return at;
    }
    const fg_id row = k / s->cols * x->cols, col = k % s->cols * x->cols;
    at = s->views > 2 ? node_at(w, x + 2, k % s->cols) : 0;
    for (fg_id j = 0; j < x->cols; j++) {
        const fg_id product = fg_tape_push(to, FG_MUL, node_at(w, x, row + j), node_at(w, x + 1, col + j), 0.0);
        at = at ? fg_tape_push(to, FG_ADD, at, product, 0.0) : product;
    }
    return s->param == FG_LEAF ? at : fg_tape_push(to, (int)s->param, at, 0, 0.0);
}

static int write_ins(work *w, const ins *s, fg_tape *to)
{
    const fg_id count = s->rows * s->cols;
    int64_t place = -1;
    if (is_small(w, s)) {
        for (fg_id k = 0; k < count; k++)
            w->value[w->ids.p[s->results + k]].made = write_single(w, s, k, to);
        return FG_OK;
    }
    if (s->op == FG_CALL) {
        place = fg_tape_hold_program(to, w->from->programs[s->param].callee);
        if (place < 0)
            return (int)place;
    }
    fg_record *const r = fg_block_begin(to, place < 0 ? s->param : (fg_id)place, s->views, s->n_extra);
    r->k = s->k;
    if (s->n_extra)
        memcpy(fg_record_extra(r), w->ids.p + s->extra, s->n_extra * sizeof(fg_id));
    for (fg_id v = 0; v < s->views; v++)
        write_view(w, r, v, view_of(w, s, v));
    fg_id node;
    const int parts = has_parts(s), status = fg_block_push(to, s->op, s->rows, s->cols, parts, w->numbers, &node);
    if (place >= 0)
        fg_tape_release_program(to, (fg_id)place); /* the node holds it */
    for (fg_id k = 0; k < count && status == FG_OK; k++)
        w->value[w->ids.p[s->results + k]].made = parts ? node - count + k : node;
    return status;
}

/* Which constants are operands of an instruction, or results. */
static void find_constants(work *w, const fg_id *results, fg_id n_results)
{
    memset(w->needed, 0, w->from->n);
    for (fg_id k = 0; k < n_results; k++)
        w->needed[same(w, results[k])] = 1;
    for (size_t i = 0; i < w->count; i++) {
        const ins *const s = w->list + i;
        for (fg_id v = 0; v < s->views && !s->gone; v++) {
            const view *const x = view_of(w, s, v);
            for (fg_id k = 0; !x->whole && k < size_of(x); k++)
                w->needed[w->ids.p[x->at + k]] = 1;
        }
    }
}

/* How many nodes and entries of the pool the new tape has at most; also fills in w->most. FG_OK or FG_E_FULL. */
static int measure(work *w, fg_id *nodes, fg_id *words)
{
    uint64_t n = (uint64_t)w->area + (w->area > 0), pool = 0;
    for (fg_id i = w->first; i < w->from->n; i++)
        n += w->constant[i] && w->needed[i];
    for (size_t i = 0; i < w->count; i++) {
        const ins *const s = w->list + i;
        if (s->gone)
            continue;
        n += nodes_of(w, s);
        pool += words_of(w, s);
        w->most = s->rows * s->cols > w->most ? s->rows * s->cols : w->most;
    }
    if (n >= FG_MAX_ID || pool >= FG_MAX_ID)
        return FG_E_FULL;
    *nodes = (fg_id)n;
    *words = (fg_id)pool;
    return FG_OK;
}

static void write_leaves(work *w, fg_tape *to)
{
    if (w->area > 0) {
        fg_tape_push_leaves(to, w->area);
        memset(to->data + 1, 0, w->area * sizeof *to->data);
        fg_tape_push_run(to, w->area);
    }
    for (fg_id i = 0; i < w->first; i++)
        w->value[i].made = i;
    for (fg_id i = w->first; i < w->from->n; i++)
        if (w->constant[i] && w->needed[i])
            w->value[i].made = fg_tape_push_leaf(to, w->from->data[i]);
}

/* The instructions, sorted by level. */
static int write_instructions(work *w, fg_tape *to)
{
    size_t levels = 0, *begin = NULL;
    fg_id *order = NULL;
    for (size_t i = 0; i < w->count; i++)
        levels = w->list[i].level > levels ? w->list[i].level : levels;
    levels += 2;
    int status = resize(w, &begin, 0, levels, sizeof *begin);
    if (status == FG_OK && (status = resize(w, &order, 0, w->count + 1, sizeof *order)) == FG_OK) {
        memset(begin, 0, levels * sizeof *begin);
        for (size_t i = 0; i < w->count; i++)
            begin[w->list[i].level + 1]++;
        for (size_t k = 0; k + 1 < levels; k++)
            begin[k + 1] += begin[k];
        for (size_t i = 0; i < w->count; i++)
            order[begin[w->list[i].level]++] = (fg_id)i;
        for (size_t k = 0; k < w->count && status == FG_OK; k++)
            if (!w->list[order[k]].gone)
                status = write_ins(w, w->list + order[k], to);
        (void)resize(w, &order, w->count + 1, 0, sizeof *order);
    }
    if (begin)
        (void)resize(w, &begin, levels, 0, sizeof *begin);
    return status;
}

static int write_all(work *w, const fg_id *results, fg_id n_results, fg_tape *to)
{
    fg_id nodes, words;
    find_constants(w, results, n_results);
    int status = measure(w, &nodes, &words);
    if (status == FG_OK)
        status = resize(w, &w->numbers, 0, (size_t)w->most + 1, sizeof *w->numbers);
    if (status < 0)
        return status;
    memset(w->numbers, 0, ((size_t)w->most + 1) * sizeof *w->numbers);
    fg_mem mem;
    fg_mem_init(&mem);
    mem.fail_after = w->mem.fail_after;
    status = fg_tape_init_closed(to, w->from->kernels, &mem, nodes, words);
    if (status == FG_OK) {
        write_leaves(w, to);
        status = write_instructions(w, to);
        assert(status < 0 || (to->n == nodes + 1 && to->npool <= words));
        if (status < 0) {
            fg_tape_free(to);
        } else {
            (void)fg_mem_resize(&to->mem, (void **)&to->pool, to->pool_capacity, to->npool, sizeof *to->pool);
            to->pool_capacity = to->npool;
        }
    }
    w->mem.fail_after = to->mem.fail_after;
    to->mem.fail_after = -1;
    return status;
}

/* ---- all steps ---- */

static fg_id count_left(const work *w)
{
    fg_id count = 0;
    for (size_t i = 0; i < w->count; i++)
        count += !w->list[i].gone;
    return count;
}

static fg_id count_nodes(const fg_tape *t, fg_id first)
{
    fg_id count = 0;
    for (fg_id i = first; i < t->n; i++) {
        const int op = fg_tape_op(t, i);
        count += is_row(op) || fg_op_is_block(op);
    }
    return count;
}

static int take_steps(work *w, const fg_id *results, fg_id n_results, fg_simplified *report)
{
    int status = find_shared(w);
    if (status < 0)
        return status;
    report->after[0] = find_needed(w, results, n_results);
    status = find_instructions(w);
    report->after[1] = (fg_id)w->count;
    if (status == FG_OK && w->steps & FG_SIMPLIFY_LAYERS) {
        status = turn_dots(w);
        for (int by = BY_X; by <= BY_ROW && status == FG_OK; by++)
            status = join_all(w, (joint)by);
    }
    report->after[2] = count_left(w);
    if (status == FG_OK && w->steps & FG_SIMPLIFY_TOGETHER)
        status = join_all(w, BY_OPERATION);
    report->after[3] = count_left(w);
    return status;
}

int fg_simplify(const fg_tape *from, fg_id area, const fg_id *results, fg_id n_results, int steps, fg_mem *mem,
                fg_tape *to, fg_id *made, fg_simplified *report)
{
    work w = {.from = from, .area = area, .first = area + (area > 0) + 1, .n = from->n, .room = (size_t)from->n + 64,
              .steps = steps};
    fg_mem_init(&w.mem);
    w.mem.fail_after = mem->fail_after;
    report->before = count_nodes(from, w.first);
    int status = resize(&w, &w.value, 0, w.room, sizeof *w.value);
    if (status == FG_OK)
        status = resize(&w, &w.needed, 0, w.room, 1);
    if (status == FG_OK)
        status = resize(&w, &w.constant, 0, w.room, 1);
    if (status == FG_OK) {
        memset(w.needed, 0, w.n);
        memset(w.constant, 0, w.n);
        for (fg_id i = 0; i < w.n; i++)
            w.value[i] = (value){.same = i};
        status = take_steps(&w, results, n_results, report);
    }
    if (status == FG_OK)
        status = write_all(&w, results, n_results, to);
    for (fg_id k = 0; k < n_results && status == FG_OK; k++)
        made[k] = w.value[same(&w, results[k])].made;
    mem->fail_after = w.mem.fail_after;
    if (w.value)
        (void)resize(&w, &w.value, w.room, 0, sizeof *w.value);
    if (w.needed)
        (void)resize(&w, &w.needed, w.room, 0, 1);
    if (w.constant)
        (void)resize(&w, &w.constant, w.room, 0, 1);
    release(&w, &w.ids);
    if (w.views)
        (void)resize(&w, &w.views, w.views_room, 0, sizeof *w.views);
    if (w.list)
        (void)resize(&w, &w.list, w.list_room, 0, sizeof *w.list);
    if (w.numbers)
        (void)resize(&w, &w.numbers, (size_t)w.most + 1, 0, sizeof *w.numbers);
    assert(w.mem.bytes == 0);
    return status;
}
