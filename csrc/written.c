/* written.c: see written.h. The order here: memory, nodes that compute, the sweep. */
#include "written.h"

#include <string.h>

#include "sweep.h"

/* ---- memory that stays until the end ---- */

struct fg_write_chunk {
    fg_write_chunk *next;
    size_t size, room; /* in ids: all, and what is left */
    fg_id ids[];
};

fg_id *fg_write_ids(fg_writing *w, size_t count)
{
    enum { CHUNK = 1000 };
    if (!w->chunks || w->chunks->room < count) {
        const size_t room = count > CHUNK ? count : CHUNK;
        fg_write_chunk *made = NULL;
        if (fg_mem_resize(&w->t->mem, (void **)&made, 0, sizeof *made + room * sizeof(fg_id), 1) != FG_OK) {
            w->status = FG_E_MEMORY;
            return NULL;
        }
        *made = (fg_write_chunk){w->chunks, room, room};
        w->chunks = made;
    }
    w->chunks->room -= count;
    return w->chunks->ids + w->chunks->room;
}

static const fg_term NO_TERM = {{0, 0, 1, 1, 1, 1}, NULL};

static fg_term failed(fg_writing *w, int status)
{
    assert(w->status == FG_OK); /* else there was no room for it */
    w->status = status;
    return NO_TERM;
}

/* Room for nodes and for words of the pool; 0 if there is none. */
static int has_room(fg_writing *w, uint64_t nodes, uint64_t words)
{
    if (w->status != FG_OK)
        return 0;
    if (nodes > FG_MAX_ID || words > FG_MAX_ID)
        w->status = FG_E_FULL;
    else if (w->t->n + nodes > w->t->room || words > 0)
        w->status = fg_tape_reserve(w->t, (fg_id)nodes, (fg_id)words);
    return w->status == FG_OK;
}

/* ---- nodes that compute ---- */

fg_id fg_write_known(const fg_writing *w, double number)
{
    for (int k = 0; k < w->n_constants; k++)
        if (memcmp(&w->numbers[k], &number, sizeof number) == 0)
            return w->constants[k];
    return 0;
}

fg_term fg_write_number(fg_writing *w, double number)
{
    enum { MOST = sizeof w->numbers / sizeof *w->numbers };
    const fg_id known = fg_write_known(w, number);
    if (known)
        return fg_term_of(known);
    if (!has_room(w, 1, 0))
        return NO_TERM;
    const fg_id i = fg_tape_push_leaf(w->t, number);
    if (number == 1.0)
        w->one = i;
    if (w->n_constants < MOST) {
        w->numbers[w->n_constants] = number;
        w->constants[w->n_constants++] = i;
    }
    return fg_term_of(i);
}

fg_term fg_write_positions(fg_writing *w, fg_id count)
{
    if (count > w->n_positions) {
        if (!has_room(w, count, 0))
            return NO_TERM;
        w->n_positions = count;
        w->positions = fg_tape_push_leaves(w->t, count);
        for (fg_id k = 0; k < count; k++)
            w->t->data[w->positions + k] = (double)k;
    }
    return (fg_term){{FG_VIEW_CONSTANT, w->positions, 1, count, (int32_t)count, 1}, NULL};
}

/* Which of the constants a term is, or -1. */
static int constant_of(const fg_writing *w, const fg_term *x)
{
    for (int k = 0; k < w->n_constants && fg_term_is_single(x) && !(x->view.flags & FG_VIEW_LIST); k++)
        if (w->constants[k] == x->view.base)
            return k;
    return -1;
}

/* A scalar node; of constants, a constant. */
static fg_term write_scalar(fg_writing *w, int op, int32_t k, const fg_term *x)
{
    fg_tape *const t = w->t;
    const int arity = fg_op_table[op].arity;
    double numbers[FG_MAX_ARITY], z = 0.0;
    int constants = 0;
    if (!has_room(w, 1, arity > 2 ? 3 : 0))
        return NO_TERM;
    const fg_id ids[FG_MAX_ARITY] = {x[0].view.base, arity > 1 ? x[1].view.base : 0, arity > 2 ? x[2].view.base : 0};
    for (int v = 0; v < arity; v++) {
        constants += ids[v] >= w->end && constant_of(w, &x[v]) >= 0;
        numbers[v] = t->data[ids[v]];
    }
    (void)fg_op_compute(op, numbers, k, &z);
    if (constants == arity)
        return fg_write_number(w, z);
    if (arity > 2)
        return fg_term_of(fg_tape_push_pooled(t, op, ids, 3, NULL, z));
    return fg_term_of(fg_tape_push(t, op, ids[0], arity == 1 ? (fg_id)k : ids[1], z));
}

/* Append the instruction of these views, with results (rows, cols); parts: as in fg_block_push(). */
static fg_term write_block(fg_writing *w, int op, fg_id param, int32_t k, const fg_term *x, fg_id views, fg_id rows,
                           fg_id cols, int parts)
{
    fg_tape *const t = w->t;
    fg_id node = 0;
    uint64_t words = fg_block_words(views, 0);
    for (fg_id v = 0; v < views; v++)
        if (x[v].view.flags & FG_VIEW_LIST)
            words += (uint64_t)x[v].view.rows * x[v].view.cols;
    if (!has_room(w, (uint64_t)rows * cols + 1, words))
        return NO_TERM;
    fg_record *const r = fg_block_begin(t, param, views, 0);
    r->k = (fg_id)k;
    for (fg_id v = 0; v < views; v++) {
        if (x[v].view.flags & FG_VIEW_LIST) {
            const size_t count = (size_t)x[v].view.rows * x[v].view.cols;
            memcpy(fg_block_ids(r), x[v].ids, count * sizeof(fg_id));
            fg_block_list(r, v, x[v].view.rows, x[v].view.cols);
            fg_record_view(r, v)->flags |= x[v].view.flags & FG_VIEW_CONSTANT;
        } else {
            fg_block_view(r, v, x[v].view);
            if (constant_of(w, &x[v]) >= 0)
                fg_record_view(r, v)->flags |= FG_VIEW_CONSTANT;
        }
    }
    const int status = fg_block_push_anyway(t, op, rows, cols, parts, &node);
    if (status != FG_OK)
        return failed(w, status);
    return (fg_term){{0, parts ? node - rows * cols : node, rows, cols, (int32_t)cols, 1}, NULL};
}

fg_term fg_write_row(fg_writing *w, int op, int32_t k, const fg_term *x)
{
    const int arity = fg_op_table[op].arity;
    fg_id rows = 1, cols = 1;
    for (int v = 0; v < arity; v++) {
        rows = x[v].view.rows > rows ? x[v].view.rows : rows;
        cols = x[v].view.cols > cols ? x[v].view.cols : cols;
    }
    if (op == FG_MUL && w->one)
        for (int v = 0; v < 2; v++)
            if (x[v].view.base == w->one && fg_term_is_single(&x[v])) /* so the other has all rows and columns */
                return x[1 - v];
    fg_id flags = 0;
    for (int v = 0; v < arity; v++)
        flags |= x[v].view.flags;
    if (rows == 1 && cols == 1 && !(flags & FG_VIEW_CONSTANT)) /* scalar nodes have no constant operands */
        return write_scalar(w, op, k, x);
    return write_block(w, FG_MAP, (fg_id)op, k, x, (fg_id)arity, rows, cols, rows > 1 || cols > 1);
}

fg_term fg_write_constant(fg_writing *w, fg_term x)
{
    return write_block(w, FG_MAP, FG_COPY, 0, &x, 1, x.view.rows, x.view.cols, !fg_term_is_single(&x));
}

fg_term fg_write_unary(fg_writing *w, int op, fg_term x)
{
    return fg_write_row(w, op, 0, &x);
}

fg_id fg_write_sum(fg_writing *w, fg_id i, fg_id j)
{
    return has_room(w, 1, 0) ? fg_tape_push(w->t, FG_ADD, i, j, w->t->data[i] + w->t->data[j]) : 0;
}

fg_term fg_write_binary(fg_writing *w, int op, fg_term x, fg_term y)
{
    const fg_term operands[] = {x, y};
    return fg_write_row(w, op, 0, operands);
}

fg_term fg_write_ternary(fg_writing *w, int op, fg_term x, fg_term y, fg_term z)
{
    const fg_term operands[] = {x, y, z};
    return fg_write_row(w, op, 0, operands);
}

fg_term fg_write_reduced(fg_writing *w, int op, fg_term x, int single, int across)
{
    const fg_id rows = single ? 1 : x.view.rows;
    return write_block(w, op, 0, 0, &x, 1, across ? 1 : rows, across ? rows : 1, rows > 1);
}

fg_term fg_write_softmax(fg_writing *w, int op, fg_term x)
{
    return write_block(w, op, 0, 0, &x, 1, x.view.rows, x.view.cols,
                       !fg_term_is_single(&x));
}

fg_term fg_write_product(fg_writing *w, fg_term x, fg_term weights)
{
    const fg_term operands[] = {x, weights};
    return write_block(w, FG_LAYER, FG_LEAF, 0, operands, 2, x.view.rows, weights.view.rows,
                       x.view.rows > 1 || weights.view.rows > 1);
}

fg_term fg_write_summed(fg_writing *w, fg_term x, fg_id rows, fg_id cols, fg_id to_rows, fg_id to_cols)
{
    double times = 1.0; /* of what x does not repeat itself */
    const int down = to_rows < rows && x.view.rows > 1, along = to_cols < cols && x.view.cols > 1;
    if (to_rows < rows && x.view.rows == 1)
        times *= (double)rows;
    if (to_cols < cols && x.view.cols == 1)
        times *= (double)cols;
    if (down && along)
        x = fg_write_reduced(w, FG_SUM, x, 1, 0);
    else if (down)
        x = fg_write_reduced(w, FG_SUM, fg_term_turned(w, x), 0, 1);
    else if (along)
        x = fg_write_reduced(w, FG_SUM, x, 0, 0);
    return times == 1.0 ? x : fg_write_binary(w, FG_MUL, x, fg_write_number(w, times));
}

fg_term fg_write_copied(fg_writing *w, fg_view view)
{
    const fg_tape *const t = w->t;
    const fg_id rows = view.rows, cols = view.cols;
    const fg_term x = {view, NULL};
    if (!fg_write_has_any(w, &x))
        return (fg_term){{0, 0, rows, cols, 0, 0}, NULL};
    fg_term g = fg_term_of_gradients(w, &x);
    if (w->status != FG_OK)
        return g;
    if (!(g.view.flags & FG_VIEW_LIST) && g.view.base >= w->end && fg_tape_op(t, g.view.base) == FG_PART) {
        const fg_id block = g.view.base + t->args[g.view.base].a, count = t->args[block].b;
        if (g.view.base == block - count && count == rows * cols && g.view.rows == rows && g.view.cols == cols
            && (rows == 1 || g.view.row_step == (int32_t)cols) && (cols == 1 || g.view.col_step == 1)
            && !t->owner[block])
            return g;
    }
    return write_block(w, FG_MAP, FG_COPY, 0, &g, 1, rows, cols, 1);
}

/* ---- the sweep ---- */

/* Whether an operand of node i, which is no part, depends on an input. */
static int operands_depend(const fg_writing *w, fg_id i)
{
    const fg_tape *const t = w->t;
    const int op = fg_tape_op(t, i);
    fg_operands o;
    if (fg_op_is_inline(op) || fg_op_is_pooled(op)) {
        fg_id count;
        const fg_id *const ids = fg_tape_operands(t, i, &count);
        for (fg_id k = 0; k < count; k++)
            if (fg_bits_has(w->depends, ids[k]))
                return 1;
        return 0;
    }
    fg_tape_views(t, i, &o);
    if (op == FG_TAKE)
        o.count = 1; /* no gradient flows to the positions */
    for (fg_id v = 0; v < o.count; v++)
        if (!(o.view[v].flags & FG_VIEW_CONSTANT) && fg_write_wants_any(w, &(fg_term){o.view[v], o.words}))
            return 1;
    return 0;
}

/* Find the nodes that depend on an input. Those that do by an operand stay in w->masks: what the sweep visits. */
static void find_dependents(fg_writing *w)
{
    const fg_tape *const t = w->t;
    fg_id last = 0;
    int found = 0; /* whether instruction `last` depends */
    for (fg_id k = w->n_words; k-- > 0;) {
        const fg_id base = w->words[k] << 6;
        uint64_t depend = 0;
        for (uint64_t left = w->masks[k], taken; left; left ^= taken) {
            const fg_id i = base + fg_bits_low(left);
            const int part = fg_tape_op(t, i) == FG_PART;
            const fg_id node = part ? i + t->args[i].a : i;
            taken = left & (part ? fg_marks_mask(w->words[k], node - t->args[node].b, node) : left & (~left + 1u));
            if (t->op[i] == FG_LEAF && fg_block_are_leaves(t, i, base + fg_bits_top(left) + 1))
                break;
            if (node != last)
                found = !fg_op_is_leaf(fg_tape_op(t, node)) && operands_depend(w, node);
            last = node;
            if (found) {
                depend |= taken;
                w->depends[w->words[k]] |= taken;
            }
        }
        w->masks[k] = depend;
    }
}

/* The arrays of a writing, in one piece. */
static size_t writing_size(fg_id end)
{
    return FG_MARKS_WORDS(end) * (5 * sizeof(uint64_t) + sizeof(fg_id)) + (size_t)end * sizeof(fg_id);
}

int fg_write_begin(fg_writing *w, fg_tape *t, const fg_id *outputs, size_t n_outputs, const fg_id *inputs,
                   size_t n_inputs)
{
    const size_t words = FG_MARKS_WORDS(t->n);
    int hooked;
    assert(t->busy > 0 && n_outputs > 0);
    *w = (fg_writing){.t = t, .end = t->n};
    if (fg_mem_resize(&t->mem, (void **)&w->given, 0, writing_size(w->end), 1) != FG_OK)
        return FG_E_MEMORY;
    w->kept = w->given + words;
    w->depends = w->kept + words;
    w->seen = w->depends + words;
    w->masks = w->seen + words;
    w->words = (fg_id *)(void *)(w->masks + words);
    w->gradients = w->words + words;
    memset(w->given, 0, 4 * words * sizeof *w->given);
    w->n_words = fg_sweep_reach(t, outputs, n_outputs, FG_FLOWN_TO, w->words, w->masks, &hooked);
    for (size_t k = 0; k < n_inputs; k++)
        fg_bits_put(w->depends, inputs[k]);
    find_dependents(w);
    return FG_OK;
}

void fg_write_end(fg_writing *w)
{
    while (w->chunks) {
        fg_write_chunk *chunk = w->chunks;
        w->chunks = chunk->next;
        fg_mem_resize(&w->t->mem, (void **)&chunk, sizeof *chunk + chunk->size * sizeof(fg_id), 0, 1);
    }
    fg_mem_resize(&w->t->mem, (void **)&w->matrices, w->most_matrices, 0, sizeof *w->matrices);
    fg_mem_resize(&w->t->mem, (void **)&w->products, w->most_products, 0, sizeof *w->products);
    fg_mem_resize(&w->t->mem, (void **)&w->given, writing_size(w->end), 0, 1);
}

/* A node with operands inline or as a list. */
static void visit_scalar(fg_writing *w, fg_id i)
{
    const fg_tape *const t = w->t;
    const int op = fg_tape_op(t, i), arity = fg_op_table[op].arity;
    fg_id count;
    const fg_id *const operands = fg_tape_operands(t, i, &count);
    fg_term x[FG_MAX_ARITY] = {NO_TERM, NO_TERM, NO_TERM}, d[FG_MAX_ARITY] = {NO_TERM, NO_TERM, NO_TERM};
    fg_id ids[FG_MAX_ARITY] = {0, 0, 0};
    int wanted[FG_MAX_ARITY] = {0, 0, 0};
    for (int v = 0; v < arity; v++) {
        ids[v] = operands[v];
        x[v] = fg_term_of(ids[v]);
        wanted[v] = fg_write_wants(w, ids[v]);
        d[v].view.base = 0;
    }
    fg_write_rule(w, op, (int32_t)t->args[i].b, x, fg_term_of(i), fg_term_of(fg_write_gradient(w, i)), wanted, d);
    for (int v = 0; v < arity && w->status == FG_OK; v++)
        if (wanted[v] && d[v].view.base)
            fg_write_give_one(w, ids[v], d[v].view.base);
}

/* Node i, which depends on an input and may have a gradient. */
static int visit(fg_writing *w, fg_id i)
{
    const fg_tape *const t = w->t;
    const int op = fg_tape_op(t, i);
    if (op == FG_PART || fg_op_is_block(op)) {
        const fg_id block = op == FG_PART ? i + t->args[i].a : i;
        const fg_record *const r = fg_tape_record(t, block);
        const fg_id first = op == FG_PART ? block - t->args[block].b : block;
        const fg_term z = {{0, first, r->rows, r->cols, (int32_t)r->cols, 1}, NULL};
        if (block == w->block)
            return FG_WRITE_DONE;
        w->block = block;
        for (fg_id k = first; t->op[block] & FG_HOOK && k <= block; k++)
            if (t->op[k] & FG_HOOK && (k < block || op != FG_PART) && fg_write_has(w, k)) {
                w->node = k;
                return FG_WRITE_HOOK;
            }
        if (fg_tape_op(t, block) == FG_CALL) {
            w->node = block;
            return fg_write_has_any(w, &z) ? FG_WRITE_CALL : FG_WRITE_DONE;
        }
        if (fg_write_has_any(w, &z))
            fg_write_block(w, block);
        return FG_WRITE_DONE;
    }
    if (!fg_write_has(w, i))
        return FG_WRITE_DONE;
    w->node = i;
    if (t->op[i] & FG_HOOK)
        return FG_WRITE_HOOK;
    if (op == FG_LOCAL)
        return FG_WRITE_LOCAL;
    if (op != FG_CUSTOM)
        visit_scalar(w, i);
    return FG_WRITE_DONE;
}

int fg_write_run(fg_writing *w)
{
    const fg_tape *const t = w->t;
    for (; w->at < w->n_words && w->status == FG_OK; w->at++) {
        uint64_t *const left = w->masks + w->at;
        while (*left && w->status == FG_OK) {
            const fg_id i = (w->words[w->at] << 6) + fg_bits_top(*left);
            const fg_id block = fg_tape_op(t, i) == FG_PART ? i + t->args[i].a : 0;
            *left &= ~(block ? fg_marks_mask(i >> 6, block - t->args[block].b, block) : (uint64_t)1 << (i & 63u));
            const fg_id n = t->n;
            const int stopped = visit(w, i); /* the instruction, with all of its results */
            for (fg_id k = n; t->origin && k < t->n; k++)
                t->origin[k] = t->origin[i];
            assert(stopped == FG_WRITE_DONE || w->status == FG_OK); /* it stops before it writes */
            if (stopped != FG_WRITE_DONE)
                return stopped;
        }
    }
    return w->status;
}
