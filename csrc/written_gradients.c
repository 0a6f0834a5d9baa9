/* written_gradients.c: see written.h, of which this has matrices of nodes, and the gradients that nodes were given.
 * The order here: matrices, sets of slots, gradients of whole matrices, giving.
 *
 * Mostly all slots of an instruction's results, or of a parameter, get their gradient at once. So that no such step
 * takes time for each slot, the gradient is then kept as one term (fg_write_matrix), which may be one number or one
 * row, and taken apart only when some slots of it are asked for, or given more, by themselves. */
#include "written.h"

#include <string.h>

/* ---- matrices of nodes ---- */

static int is_list(const fg_term *x)
{
    return (x->view.flags & FG_VIEW_LIST) != 0;
}

static size_t size_of(const fg_term *x)
{
    return (size_t)x->view.rows * x->view.cols;
}

/* Whether all elements follow each other, row by row. */
static int is_dense(const fg_view *v)
{
    return !(v->flags & FG_VIEW_LIST) && (v->cols == 1 || v->col_step == 1)
           && (v->rows == 1 || v->row_step == (int32_t)v->cols);
}

static uint64_t distance(int64_t step)
{
    return (uint64_t)(step < 0 ? -step : step);
}

fg_term fg_term_of_ids(const fg_id *ids, fg_id rows, fg_id cols)
{
    const fg_term list = {{FG_VIEW_LIST, 0, rows, cols, 0, 0}, ids};
    const int64_t across = cols > 1 ? (int64_t)ids[1] - ids[0] : 1;
    const int64_t down = rows > 1 ? (int64_t)ids[cols] - ids[0] : 1;
    if (across <= INT32_MIN || across >= INT32_MAX || down <= INT32_MIN || down >= INT32_MAX)
        return list;
    if (rows > 1 && cols > 1 && across != 0 && down != 0 && distance(down) < cols * distance(across)
        && distance(across) < rows * distance(down))
        return list; /* a slot may be in it twice */
    for (fg_id i = 0; i < rows; i++)
        for (fg_id j = 0; j < cols; j++)
            if ((int64_t)ids[(size_t)i * cols + j] != ids[0] + i * down + j * across)
                return list;
    return (fg_term){{0, ids[0], down == 0 ? 1 : rows, across == 0 ? 1 : cols, (int32_t)down, (int32_t)across}, NULL};
}

fg_term fg_term_turned(fg_writing *w, fg_term x)
{
    const fg_id rows = x.view.rows, cols = x.view.cols, flags = x.view.flags;
    if (!is_list(&x))
        return (fg_term){{flags, x.view.base, cols, rows, x.view.col_step, x.view.row_step}, NULL};
    if (rows == 1 || cols == 1)
        return (fg_term){{flags, 0, cols, rows, 0, 0}, x.ids};
    fg_id *const ids = fg_write_ids(w, size_of(&x));
    if (!ids)
        return fg_term_of(0);
    for (fg_id i = 0; i < rows; i++)
        for (fg_id j = 0; j < cols; j++)
            ids[(size_t)j * rows + i] = x.ids[(size_t)i * cols + j];
    return (fg_term){{flags, 0, cols, rows, 0, 0}, ids};
}

fg_term fg_term_of_view(fg_writing *w, const fg_record *r, const fg_view *view)
{
    const size_t count = (size_t)view->rows * view->cols;
    const fg_id flags = view->flags & (FG_VIEW_LIST | FG_VIEW_CONSTANT);
    if (!(flags & FG_VIEW_LIST))
        return (fg_term){{flags, view->base, view->rows, view->cols, view->row_step, view->col_step}, NULL};
    fg_id *const ids = fg_write_ids(w, count);
    if (!ids)
        return fg_term_of(0);
    memcpy(ids, (const fg_id *)(const void *)r + view->base, count * sizeof *ids);
    if (count == 1)
        return (fg_term){{flags & FG_VIEW_CONSTANT, ids[0], 1, 1, 1, 1}, NULL};
    return (fg_term){{flags, 0, view->rows, view->cols, 0, 0}, ids};
}

fg_term fg_term_full(fg_writing *w, fg_term x, fg_id rows, fg_id cols)
{
    if (x.view.rows == rows && x.view.cols == cols)
        return x;
    fg_id *const ids = fg_write_ids(w, (size_t)rows * cols);
    if (!ids)
        return fg_term_of(0);
    for (fg_id i = 0; i < rows; i++)
        for (fg_id j = 0; j < cols; j++)
            ids[(size_t)i * cols + j] = fg_term_slot(&x, x.view.rows == 1 ? 0 : i, x.view.cols == 1 ? 0 : j);
    return (fg_term){{FG_VIEW_LIST | x.view.flags, 0, rows, cols, 0, 0}, ids};
}

fg_term fg_term_lines(fg_writing *w, fg_term x, const fg_id *lines, fg_id count)
{
    const fg_id cols = x.view.cols, step = count > 1 ? lines[1] - lines[0] : 1;
    fg_id k = 0;
    while (k < count && lines[k] == lines[0] + k * step)
        k++;
    if (!is_list(&x) && k == count && (int64_t)x.view.row_step * step < INT32_MAX
        && (int64_t)x.view.row_step * step > INT32_MIN) {
        x.view.base = fg_term_slot(&x, lines[0], 0);
        x.view.rows = count;
        x.view.row_step *= (int32_t)step;
        return x;
    }
    fg_id *const ids = fg_write_ids(w, (size_t)count * cols);
    for (fg_id i = 0; i < count && ids; i++)
        for (fg_id j = 0; j < cols; j++)
            ids[(size_t)i * cols + j] = fg_term_slot(&x, lines[i], j);
    if (!ids || (count == 1 && cols == 1))
        return (fg_term){{x.view.flags & FG_VIEW_CONSTANT, ids ? ids[0] : 0, 1, 1, 1, 1}, NULL};
    return (fg_term){{FG_VIEW_LIST | x.view.flags, 0, count, cols, 0, 0}, ids};
}

fg_term fg_term_shaped(fg_writing *w, fg_term x, fg_id rows, fg_id cols)
{
    const fg_id flags = x.view.flags;
    assert(w->status != FG_OK || size_of(&x) == (uint64_t)rows * cols);
    if (is_list(&x))
        return (fg_term){{flags, 0, rows, cols, 0, 0}, x.ids};
    if (is_dense(&x.view))
        return (fg_term){{flags, x.view.base, rows, cols, (int32_t)cols, 1}, NULL};
    fg_id *const ids = fg_write_ids(w, size_of(&x)), *id = ids;
    for (fg_id i = 0; i < x.view.rows && ids; i++)
        for (fg_id j = 0; j < x.view.cols; j++)
            *id++ = fg_term_slot(&x, i, j);
    return ids ? (fg_term){{FG_VIEW_LIST | flags, 0, rows, cols, 0, 0}, ids} : fg_term_of(0);
}

/* ---- sets of slots ---- */

/* How many slots of x are in a set. */
static uint64_t count_in(const uint64_t *bits, const fg_term *x)
{
    uint64_t count = 0;
    const int dense = is_dense(&x->view), side = dense || (!is_list(x) && x->view.col_step == 1);
    const fg_id rows = dense ? 1 : x->view.rows, cols = dense ? x->view.rows * x->view.cols : x->view.cols;
    for (fg_id i = 0; i < rows; i++) {
        const fg_id first = fg_term_slot(x, i, 0);
        for (fg_id k = first >> 6; side && k <= (first + cols - 1) >> 6; k++)
            count += fg_bits_count(bits[k] & fg_marks_mask(k, first, first + cols));
        for (fg_id j = 0; !side && j < cols; j++)
            count += (uint64_t)fg_bits_has(bits, fg_term_slot(x, i, j));
    }
    return count;
}

int fg_write_wants_any(const fg_writing *w, const fg_term *x)
{
    return size_of(x) > 0 && count_in(w->depends, x) > 0;
}

/* ---- gradients of whole matrices ---- */

/* Rows before columns, as matrices are kept; whether x and g have been turned for that. */
static int turn(fg_writing *w, fg_term *x, fg_term *g)
{
    if (is_list(x) || x->view.rows == 1 || x->view.cols == 1
        || distance(x->view.row_step) >= distance(x->view.col_step))
        return 0;
    *x = fg_term_turned(w, *x);
    if (g)
        *g = fg_term_turned(w, *g);
    return 1;
}

static int same_view(const fg_view *a, const fg_view *b)
{
    return a->base == b->base && a->rows == b->rows && a->cols == b->cols
           && (a->rows == 1 || a->row_step == b->row_step) && (a->cols == 1 || a->col_step == b->col_step);
}

/* FG_VIEW_CONSTANT if the x of all products are constant, else 0: those that are, are copied. No gradient is. */
static fg_id constant_factors(fg_writing *w, fg_id last)
{
    fg_write_product_term *const p = w->products;
    fg_id all = FG_VIEW_CONSTANT, any = 0;
    for (fg_id i = last; i; i = p[i].before) {
        assert(!(p[i].g.view.flags & FG_VIEW_CONSTANT));
        all &= p[i].x.view.flags;
        any |= p[i].x.view.flags & FG_VIEW_CONSTANT;
    }
    for (fg_id i = last; i && any && !all; i = p[i].before)
        if (p[i].x.view.flags & FG_VIEW_CONSTANT)
            p[i].x = fg_write_constant(w, p[i].x);
    return all;
}

/* The sum of a matrix's products, of which the last is given. */
static fg_term product_sum(fg_writing *w, fg_id last)
{
    const fg_write_product_term *const p = w->products;
    const fg_id n = p[last].g.view.cols, k = p[last].x.view.cols;
    size_t rows = 0;
    for (fg_id i = last; i; i = p[i].before)
        rows += p[i].g.view.rows;
    if (rows == 1)
        return fg_write_binary(w, FG_MUL, fg_term_turned(w, p[last].g), p[last].x);
    if (!p[last].before) {
        const fg_term turned = fg_term_turned(w, p[last].g);
        return fg_write_product(w, turned, fg_term_turned(w, p[last].x));
    }
    const fg_id x_flags = constant_factors(w, last);
    fg_id *const ids = w->status == FG_OK ? fg_write_ids(w, rows * (n + k)) : NULL;
    const fg_term g = {{FG_VIEW_LIST, 0, n, (fg_id)rows, 0, 0}, ids};
    const fg_term x = {{FG_VIEW_LIST | x_flags, 0, k, (fg_id)rows, 0, 0}, ids ? ids + n * rows : NULL};
    size_t row = rows;
    for (fg_id i = last; i && ids; i = p[i].before)
        for (fg_id r = p[i].g.view.rows; r-- > 0;) {
            row--;
            for (fg_id j = 0; j < n; j++)
                ids[j * rows + row] = fg_term_slot(&p[i].g, r, j);
            for (fg_id j = 0; j < k; j++)
                ids[(n + j) * rows + row] = fg_term_slot(&p[i].x, r, j);
        }
    return ids ? fg_write_product(w, g, x) : fg_term_of(0);
}

/* Its products are part of its gradient. */
static void settle(fg_writing *w, fg_write_matrix *m)
{
    if (!m->products)
        return;
    fg_term sum = product_sum(w, m->products);
    if (sum.view.flags & FG_VIEW_CONSTANT) /* times 1 */
        sum = fg_write_constant(w, sum);
    m->g = m->has_g ? fg_write_binary(w, FG_ADD, m->g, sum) : sum;
    m->has_g = 1;
    m->products = 0;
}

/* The matrix of just these slots, in this shape, or NULL. */
static fg_write_matrix *matrix_of(fg_writing *w, const fg_term *x)
{
    if (is_list(x) || !fg_bits_has(w->kept, x->view.base))
        return NULL;
    fg_write_matrix *const m = w->matrices + w->gradients[x->view.base];
    const uint64_t count = (uint64_t)m->view.rows * m->view.cols;
    if (same_view(&m->view, &x->view))
        return m;
    if (m->view.base != x->view.base || count != size_of(x) || !is_dense(&m->view) || !is_dense(&x->view))
        return NULL;
    settle(w, m);
    if (fg_term_is_single(&m->g) || size_of(&m->g) == count) {
        if (size_of(&m->g) == count)
            m->g = fg_term_shaped(w, m->g, x->view.rows, x->view.cols);
        m->view = x->view;
        return m;
    }
    return NULL;
}

/* Room for one more in an array; 0 if memory is short. */
static int has_room(fg_writing *w, void **array, fg_id n, fg_id *most, size_t size)
{
    const size_t wanted = *most ? 2 * (size_t)*most : 16;
    if (n < *most)
        return 1;
    if (wanted > FG_MAX_ID || fg_mem_resize(&w->t->mem, array, *most, wanted, size) != FG_OK) {
        w->status = FG_E_MEMORY;
        return 0;
    }
    *most = (fg_id)wanted;
    return 1;
}

/* From now on the slots of x, of which none is kept, have a matrix, with this gradient unless it is NULL. It is NULL if
 * memory is short. */
static fg_write_matrix *keep(fg_writing *w, const fg_term *x, const fg_term *g)
{
    const int dense = is_dense(&x->view), side = dense || x->view.col_step == 1;
    const fg_id rows = dense ? 1 : x->view.rows, cols = dense ? x->view.rows * x->view.cols : x->view.cols;
    const fg_id number = w->n_matrices;
    if (!has_room(w, (void **)&w->matrices, number, &w->most_matrices, sizeof *w->matrices))
        return NULL;
    w->matrices[w->n_matrices++] = (fg_write_matrix){x->view, g ? *g : fg_term_of(0), g != NULL, 0};
    for (fg_id i = 0; i < rows; i++) {
        const fg_id first = fg_term_slot(x, i, 0);
        for (fg_id k = first >> 6; side && k <= (first + cols - 1) >> 6; k++) {
            w->given[k] |= fg_marks_mask(k, first, first + cols);
            w->kept[k] |= fg_marks_mask(k, first, first + cols);
        }
        for (fg_id j = 0; side && j < cols; j++)
            w->gradients[first + j] = number;
        for (fg_id j = 0; !side && j < cols; j++) {
            const fg_id slot = fg_term_slot(x, i, j);
            fg_bits_put(w->given, slot);
            fg_bits_put(w->kept, slot);
            w->gradients[slot] = number;
        }
    }
    return w->matrices + number;
}

void fg_write_take_apart(fg_writing *w, fg_id slot)
{
    fg_write_matrix *const m = w->matrices + w->gradients[slot];
    settle(w, m);
    const int down = m->g.view.rows > 1, along = m->g.view.cols > 1;
    for (fg_id i = 0; i < m->view.rows; i++)
        for (fg_id j = 0; j < m->view.cols; j++) {
            const fg_id k = fg_view_slot(NULL, &m->view, i, j);
            w->kept[k >> 6] &= ~((uint64_t)1 << (k & 63u));
            w->gradients[k] = fg_term_slot(&m->g, down ? i : 0, along ? j : 0);
        }
}

/* Take apart the matrices that slots of x are in. */
static void take_apart_all(fg_writing *w, const fg_term *x)
{
    if (count_in(w->kept, x) == 0)
        return;
    for (fg_id i = 0; i < x->view.rows; i++)
        for (fg_id j = 0; j < x->view.cols; j++)
            if (fg_bits_has(w->kept, fg_term_slot(x, i, j)))
                fg_write_take_apart(w, fg_term_slot(x, i, j));
}

fg_term fg_term_of_gradients(fg_writing *w, const fg_term *of)
{
    fg_term x = *of;
    const int turned = turn(w, &x, NULL);
    const fg_id rows = x.view.rows, cols = x.view.cols;
    fg_write_matrix *const m = matrix_of(w, &x);
    if (m) {
        settle(w, m);
        return turned ? fg_term_turned(w, m->g) : m->g;
    }
    take_apart_all(w, &x);
    const fg_term zero = count_in(w->given, &x) < size_of(&x) ? fg_write_number(w, 0.0) : fg_term_of(0);
    fg_id *const ids = fg_write_ids(w, (size_t)rows * cols);
    if (!ids || w->status != FG_OK)
        return fg_term_of(0);
    for (fg_id i = 0; i < rows; i++)
        for (fg_id j = 0; j < cols; j++) {
            const fg_id slot = fg_term_slot(&x, i, j);
            ids[(size_t)i * cols + j] = fg_write_has(w, slot) ? w->gradients[slot] : zero.view.base;
        }
    const fg_term g = fg_term_of_ids(ids, rows, cols);
    return turned ? fg_term_turned(w, g) : g;
}

int fg_write_whole(fg_writing *w, const fg_term *x, fg_term *g)
{
    if (count_in(w->given, x) < size_of(x))
        return 0;
    *g = fg_term_of_gradients(w, x);
    return 1;
}

int fg_write_has_any(const fg_writing *w, const fg_term *x)
{
    return count_in(w->given, x) > 0;
}

/* ---- giving ---- */

static void set_gradient(fg_writing *w, fg_id i, fg_id g)
{
    fg_bits_put(w->given, i);
    w->gradients[i] = g;
}

void fg_write_give_one(fg_writing *w, fg_id i, fg_id g)
{
    const fg_id there = fg_write_gradient(w, i);
    if (there)
        g = fg_write_sum(w, there, g);
    set_gradient(w, i, g);
}

/* What slots have been given one by one, the gradient that was there before first: a list for each slot, from the last.
 * While they are made, a slot's number in gradients[] is that of its last. */
typedef struct gifts {
    fg_id *slots;  /* [n_slots] which have at least one */
    fg_id *g;      /* of each gift the node, ... */
    fg_id *before; /* ... the gift before it for the same slot, 0 if it is the first, ... */
    fg_id *depth;  /* ... and how many there are up to it */
    fg_id n_slots, n, most;
} gifts;

static void put_gift(gifts *o, fg_id g, fg_id before)
{
    const fg_id k = ++o->n;
    o->g[k] = g;
    o->before[k] = before;
    o->depth[k] = before ? o->depth[before] + 1 : 1;
    o->most = o->depth[k] > o->most ? o->depth[k] : o->most;
}

static void collect_gifts(fg_writing *w, const fg_term *x, const fg_term *g, gifts *o)
{
    const fg_id rows = x->view.rows, cols = x->view.cols, zero = fg_write_known(w, 0.0);
    const int down = g->view.rows > 1, along = g->view.cols > 1;
    for (fg_id i = 0; i < rows; i++)
        for (fg_id j = 0; j < cols; j++) {
            const fg_id slot = fg_term_slot(x, i, j), gij = fg_term_slot(g, down ? i : 0, along ? j : 0);
            if (gij == zero || !fg_write_wants(w, slot))
                continue;
            if (!fg_bits_has(w->seen, slot)) {
                fg_bits_put(w->seen, slot);
                o->slots[o->n_slots++] = slot;
                if (fg_write_has(w, slot))
                    put_gift(o, w->gradients[slot], 0);
                put_gift(o, gij, fg_write_has(w, slot) ? o->n : 0);
            } else {
                put_gift(o, gij, w->gradients[slot]);
            }
            set_gradient(w, slot, o->n);
        }
    for (fg_id k = 0; k < o->n_slots; k++)
        w->seen[o->slots[k] >> 6] = 0;
}

/* The sums of the gifts of slots with `depth` of them each. */
static void add_gifts(fg_writing *w, const gifts *o, const fg_id *slots, fg_id count, fg_id depth)
{
    fg_id *const ids = fg_write_ids(w, (size_t)count * depth);
    fg_term sums;
    if (!ids || w->status != FG_OK)
        return;
    for (fg_id k = 0; k < count; k++) {
        fg_id gift = w->gradients[slots[k]];
        for (fg_id d = depth; d-- > 0; gift = o->before[gift]) /* of two a row each, of more a row for each slot */
            ids[depth == 2 ? (size_t)d * count + k : (size_t)k * depth + d] = o->g[gift];
    }
    if (depth == 1)
        sums = fg_term_of_ids(ids, 1, count);
    else if (depth == 2)
        sums = fg_write_binary(w, FG_ADD, fg_term_of_ids(ids, 1, count), fg_term_of_ids(ids + count, 1, count));
    else
        sums = fg_term_turned(w, fg_write_summed(w, fg_term_of_ids(ids, count, depth), count, depth, count, 1));
    for (fg_id k = 0; k < count && w->status == FG_OK; k++)
        w->gradients[slots[k]] = fg_term_slot(&sums, 0, sums.view.cols > 1 ? k : 0);
}

/* Slot by slot, of which there may be the same several times, or some with and some without a gradient: those with as
 * many terms together in one instruction. */
static void give_each(fg_writing *w, const fg_term *x, const fg_term *g)
{
    const size_t all = size_of(x), most = 2 * all + 1;
    gifts o = {0};
    fg_id *const room = fg_write_ids(w, 2 * all + 3 * most);
    if (!room)
        return;
    o.slots = room;
    fg_id *const sorted = room + all;
    o.g = sorted + all;
    o.before = o.g + most;
    o.depth = o.before + most;
    collect_gifts(w, x, g, &o);
    fg_id *const starts = fg_write_ids(w, (size_t)o.most + 2);
    if (!starts)
        return;
    memset(starts, 0, ((size_t)o.most + 2) * sizeof *starts);
    for (fg_id k = 0; k < o.n_slots; k++)
        starts[o.depth[w->gradients[o.slots[k]]] + 1]++;
    for (fg_id d = 1; d <= o.most; d++)
        starts[d + 1] += starts[d];
    for (fg_id k = 0; k < o.n_slots; k++)
        sorted[starts[o.depth[w->gradients[o.slots[k]]]]++] = o.slots[k];
    for (fg_id d = 1, first = 0; d <= o.most; first = starts[d++]) /* each start is by now the next one's */
        if (starts[d] > first)
            add_gifts(w, &o, sorted + first, starts[d] - first, d);
}

void fg_write_give(fg_writing *w, const fg_term *to, fg_term g)
{
    fg_term x = *to;
    if (w->status != FG_OK || (fg_term_is_single(&g) && g.view.base == fg_write_known(w, 0.0)))
        return;
    if (g.view.flags & FG_VIEW_CONSTANT)
        g = fg_write_constant(w, g);
    if (fg_term_is_single(&x)) {
        if (fg_write_wants(w, fg_term_slot(&x, 0, 0)))
            fg_write_give_one(w, fg_term_slot(&x, 0, 0), fg_term_slot(&g, 0, 0));
        return;
    }
    if (!is_list(&x)) {
        turn(w, &x, &g);
        fg_write_matrix *const m = matrix_of(w, &x);
        if (m) {
            m->g = m->has_g ? fg_write_binary(w, FG_ADD, m->g, g) : g;
            m->has_g = 1;
            return;
        }
        const uint64_t there = count_in(w->given, &x);
        if (there == size_of(&x)) {
            const fg_term old = fg_term_of_gradients(w, &x);
            g = fg_write_binary(w, FG_ADD, old, g);
        }
        if ((there == 0 || there == size_of(&x)) && w->status == FG_OK) {
            (void)keep(w, &x, &g);
            return;
        }
    }
    take_apart_all(w, &x);
    if (w->status == FG_OK)
        give_each(w, &x, &g);
}

void fg_write_give_product(fg_writing *w, const fg_term *weights, fg_term g, fg_term x)
{
    fg_term of = *weights;
    const uint64_t listed = (uint64_t)g.view.rows * (g.view.cols + x.view.cols);
    const int turned = turn(w, &of, NULL);
    fg_write_matrix *m = NULL;
    if (w->status != FG_OK)
        return;
    if (size_of(&of) > 1 && !is_list(&of) && listed <= 8 * size_of(&of)) { /* lists of ids are small beside a sum */
        m = matrix_of(w, &of);
        if (!m && count_in(w->given, &of) == 0)
            m = keep(w, &of, NULL);
    }
    if (!m) {
        const fg_term left = fg_term_turned(w, g);
        const fg_term all = g.view.rows == 1 ? fg_write_binary(w, FG_MUL, left, x)
                                             : fg_write_product(w, left, fg_term_turned(w, x));
        fg_write_give(w, weights, all);
        return;
    }
    if (!has_room(w, (void **)&w->products, w->n_products + 1, &w->most_products, sizeof *w->products))
        return;
    w->products[++w->n_products] = turned ? (fg_write_product_term){x, g, m->products}
                                          : (fg_write_product_term){g, x, m->products};
    m->products = w->n_products;
}

void fg_write_seed(fg_writing *w, fg_id i, fg_id g)
{
    if (w->status == FG_OK)
        fg_write_give_one(w, i, g ? g : fg_write_number(w, 1.0).view.base);
}
