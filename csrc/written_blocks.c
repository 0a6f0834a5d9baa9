/* written_blocks.c: see written.h, of which this has the rules of instructions of many operands, as nodes. The order
 * here: what is reached, elementwise operations, layers, sums, the largest, softmax and its kin, what is taken.
 *
 * A gradient that is one number, or the same along the rows or columns, stays one (fg_term): so the derivative of a sum
 * has no nodes, and a layer's that comes from a sum is a sum of weights. */
#include "written.h"

#include <string.h>

static fg_term operand(fg_writing *w, fg_id block, fg_id v)
{
    fg_record *const r = fg_tape_record(w->t, block);
    return fg_term_of_view(w, r, fg_record_view(r, v));
}

static fg_term results(const fg_writing *w, fg_id block)
{
    const fg_record *const r = fg_tape_record(w->t, block);
    const fg_id count = w->t->args[block].b;
    return (fg_term){{0, block - count, r->rows, r->cols, (int32_t)r->cols, 1}, NULL};
}

/* Whether somebody wants the gradients of an operand. */
static int is_wanted(const fg_writing *w, const fg_term *x)
{
    return !(x->view.flags & FG_VIEW_CONSTANT) && fg_write_wants_any(w, x);
}

static fg_term multiplied(fg_writing *w, fg_term x, fg_term y)
{
    return fg_write_binary(w, FG_MUL, x, y);
}

/* x where the mask is 1, else 0, and not 0 times x, which may be inf. */
static fg_term chosen(fg_writing *w, fg_term mask, fg_term x)
{
    return fg_write_ternary(w, FG_WHERE, mask, x, fg_write_number(w, 0.0));
}

/* 1 where x is y, or both are nan, else 0. */
static fg_term equal(fg_writing *w, fg_term x, fg_term y)
{
    fg_term mask = fg_write_binary(w, FG_EQUAL, x, y);
    mask.view.flags |= FG_VIEW_CONSTANT;
    return mask;
}

/* The sum of each column of x, (1, n), where x is repeated along columns to `rows` of them. */
static fg_term column_sums(fg_writing *w, fg_term x, fg_id rows)
{
    return fg_write_summed(w, x, rows, x.view.cols, 1, x.view.cols);
}

/* ---- which results have a gradient ---- */

/* The rows and the columns of the results with at least one gradient, in order; NULL: all. */
typedef struct reached {
    const fg_id *rows, *cols;
    fg_id n_rows, n_cols;
    uint64_t count; /* of the results that have one, ... */
    int whole;      /* ... which may be all of these rows and columns */
} reached;

/* Which of a row's columns, or of a column's rows, are in a set: their numbers, or NULL if all are. */
static const fg_id *lines_of(fg_writing *w, const uint8_t *in, fg_id count, fg_id found)
{
    if (found == count)
        return NULL;
    fg_id *const lines = fg_write_ids(w, found), *line = lines;
    for (fg_id k = 0; k < count && lines; k++)
        if (in[k])
            *line++ = k;
    return lines;
}

static reached find_reached(fg_writing *w, const fg_term *z)
{
    const fg_id rows = z->view.rows, cols = z->view.cols;
    reached found = {NULL, NULL, 0, 0, 0, 0};
    uint8_t *const in = (uint8_t *)fg_write_ids(w, ((size_t)rows + cols) / sizeof(fg_id) + 1);
    if (!in)
        return found;
    memset(in, 0, (size_t)rows + cols);
    for (fg_id i = 0; i < rows; i++)
        for (fg_id j = 0; j < cols; j++)
            if (fg_write_has(w, fg_term_slot(z, i, j))) {
                in[i] = in[rows + j] = 1;
                found.count++;
            }
    for (fg_id i = 0; i < rows; i++)
        found.n_rows += in[i];
    for (fg_id j = 0; j < cols; j++)
        found.n_cols += in[rows + j];
    found.rows = lines_of(w, in, rows, found.n_rows);
    found.cols = lines_of(w, in + rows, cols, found.n_cols);
    found.whole = found.count == (uint64_t)found.n_rows * found.n_cols;
    return found;
}

/* The part of an operand that goes with those results, where it is not repeated. */
static fg_term rows_of(fg_writing *w, fg_term x, const reached *at)
{
    return at->rows && x.view.rows > 1 ? fg_term_lines(w, x, at->rows, at->n_rows) : x;
}

static fg_term cols_of(fg_writing *w, fg_term x, const reached *at)
{
    if (!at->cols || x.view.cols <= 1)
        return x;
    return fg_term_turned(w, fg_term_lines(w, fg_term_turned(w, x), at->cols, at->n_cols));
}

/* ---- elementwise ---- */

/* The operands of all results that have a gradient, one after the other. */
static fg_term scattered(fg_writing *w, const fg_term *z, fg_term x, fg_id count)
{
    const fg_id rows = z->view.rows, cols = z->view.cols;
    if (fg_term_is_single(&x))
        return x;
    fg_id *const ids = fg_write_ids(w, count), *id = ids;
    if (!ids)
        return fg_term_of(0);
    for (fg_id i = 0; i < rows; i++)
        for (fg_id j = 0; j < cols; j++)
            if (fg_write_has(w, fg_term_slot(z, i, j)))
                *id++ = fg_term_slot(&x, x.view.rows == 1 ? 0 : i, x.view.cols == 1 ? 0 : j);
    fg_term picked = fg_term_of_ids(ids, 1, count);
    if (picked.view.cols != count) /* a slot again and again */
        picked = (fg_term){{FG_VIEW_LIST, 0, 1, count, 0, 0}, ids};
    picked.view.flags |= x.view.flags & FG_VIEW_CONSTANT;
    return picked;
}

static void write_map(fg_writing *w, fg_id block)
{
    const fg_record *const r = fg_tape_record(w->t, block);
    const fg_id views = r->views;
    const int op = (int)r->param;
    const int32_t k = (int32_t)r->k;
    fg_term z = results(w, block), g, x[FG_MAX_ARITY], d[FG_MAX_ARITY];
    int wanted[FG_MAX_ARITY] = {0, 0, 0}, whole = fg_write_whole(w, &z, &g);
    for (fg_id v = 0; v < views; v++)
        x[v] = operand(w, block, v);
    if (!whole) {
        const reached at = find_reached(w, &z);
        const fg_id count = (fg_id)at.count;
        for (fg_id v = 0; v < views && w->status == FG_OK; v++)
            x[v] = at.whole ? cols_of(w, rows_of(w, x[v], &at), &at) : scattered(w, &z, x[v], count);
        if (w->status != FG_OK)
            return;
        z = at.whole ? cols_of(w, rows_of(w, z, &at), &at) : scattered(w, &z, z, count);
        if (w->status != FG_OK)
            return;
        g = fg_term_of_gradients(w, &z);
    }
    const fg_id rows = z.view.rows, cols = z.view.cols;
    for (fg_id v = 0; v < views && w->status == FG_OK; v++) {
        wanted[v] = is_wanted(w, &x[v]);
        d[v] = (fg_term){{0, 0, 1, 1, 1, 1}, NULL};
    }
    if (w->status != FG_OK)
        return;
    fg_write_rule(w, op, k, x, z, g, wanted, d);
    for (fg_id v = 0; v < views && w->status == FG_OK; v++)
        if (wanted[v] && (d[v].view.flags & FG_VIEW_LIST || d[v].view.base))
            fg_write_give(w, &x[v], fg_write_summed(w, d[v], rows, cols, x[v].view.rows, x[v].view.cols));
}

/* ---- layers ---- */

/* g w (m, k), or less of it where g is less than (m, n). */
static fg_term input_gradient(fg_writing *w, fg_term g, fg_term weights)
{
    const fg_id n = weights.view.rows;
    if (n == 1)
        return multiplied(w, g, weights);
    if (g.view.cols == 1) {
        const fg_term sums = column_sums(w, weights, n);
        return multiplied(w, g, sums);
    }
    return fg_write_product(w, g, fg_term_turned(w, weights));
}

/* g^T x (n, k), likewise. */
static void give_weights(fg_writing *w, const fg_term *weights, fg_term g, fg_term x)
{
    const fg_id n = weights->view.rows, m = x.view.rows;
    if (g.view.rows == m && g.view.cols == n) {
        fg_write_give_product(w, weights, g, x);
        return;
    }
    g = fg_term_turned(w, g);
    if (g.view.cols == 1) {
        const fg_term sums = column_sums(w, x, m);
        fg_write_give(w, weights, multiplied(w, g, sums));
    } else {
        fg_write_give(w, weights, fg_write_product(w, g, fg_term_turned(w, x)));
    }
}

/* z = activation(x w^T + b), with as many views. */
typedef struct layer {
    fg_term z, x, weights, b;
    fg_id views;
    int activation;
} layer;

/* Gradients of x are g w, of w are g^T x, of b the sums of g's columns. */
static void write_layer_of(fg_writing *w, const layer *l, fg_term g)
{
    const int wanted[] = {is_wanted(w, &l->x), is_wanted(w, &l->weights), l->views > 2 && is_wanted(w, &l->b)};
    if (l->activation != FG_LEAF) {
        const int always = 1;
        fg_write_rule(w, l->activation, 0, &l->z, l->z, g, &always, &g);
    }
    if (wanted[2])
        fg_write_give(w, &l->b, fg_write_summed(w, g, l->z.view.rows, l->z.view.cols, 1, l->z.view.cols));
    if (wanted[0])
        fg_write_give(w, &l->x, input_gradient(w, g, l->weights));
    if (wanted[1])
        give_weights(w, &l->weights, g, l->x);
}

/* Of some rows and columns, of which results without a gradient have 0. */
static void write_layer_at(fg_writing *w, layer l, const reached *at)
{
    l.z = cols_of(w, rows_of(w, l.z, at), at);
    l.x = rows_of(w, l.x, at);
    l.weights = rows_of(w, l.weights, &(reached){at->cols, NULL, at->n_cols, 1, at->n_cols, 1});
    l.b = l.views > 2 ? cols_of(w, l.b, at) : l.b;
    const fg_term g = fg_term_of_gradients(w, &l.z);
    if (w->status == FG_OK)
        write_layer_of(w, &l, g);
}

static int is_finite(const fg_writing *w, const fg_term *x)
{
    for (fg_id i = 0; i < x->view.rows; i++)
        for (fg_id j = 0; j < x->view.cols; j++)
            if (!isfinite(w->t->data[fg_term_slot(x, i, j)]))
                return 0;
    return 1;
}

static void write_layer(fg_writing *w, fg_id block)
{
    const fg_record *const r = fg_tape_record(w->t, block);
    layer l = {.z = results(w, block), .views = r->views, .activation = (int)r->param};
    fg_term g;
    l.x = operand(w, block, 0);
    l.weights = operand(w, block, 1);
    l.b = l.views > 2 ? operand(w, block, 2) : l.x;
    if (w->status != FG_OK)
        return;
    if (fg_write_whole(w, &l.z, &g)) {
        write_layer_of(w, &l, g);
        return;
    }
    const reached at = find_reached(w, &l.z);
    if (at.whole || (4 * at.count >= (uint64_t)at.n_rows * at.n_cols && is_finite(w, &l.z) && is_finite(w, &l.x)
                     && is_finite(w, &l.weights))) {
        write_layer_at(w, l, &at);
        return;
    }
    for (fg_id i = 0; i < at.n_rows && w->status == FG_OK; i++) { /* few, or 0 times inf: each row by itself */
        const fg_id row = at.rows ? at.rows[i] : i;
        layer one = l;
        one.z = fg_term_lines(w, l.z, &row, 1);
        one.x = fg_term_lines(w, l.x, &row, 1);
        const reached in_row = find_reached(w, &one.z);
        if (w->status == FG_OK)
            write_layer_at(w, one, &in_row);
    }
}

/* ---- along rows ---- */

/* What an instruction along rows goes by: x, of which each row has one result, or with `single` all of it. */
typedef struct along {
    fg_term x, z, g; /* z and g: (m, 1); of softmax and its logarithm (m, n) */
    int single;
} along;

/* With its gradient; where only some rows have one, of these rows. */
static along with_gradient(fg_writing *w, along a)
{
    if (!fg_write_whole(w, &a.z, &a.g)) {
        const reached at = find_reached(w, &a.z);
        a.x = rows_of(w, a.x, &at);
        a.z = rows_of(w, a.z, &at);
        a.g = fg_term_of_gradients(w, &a.z);
    }
    return a;
}

/* Of a result for each row. */
static along reduced_of(fg_writing *w, fg_id block)
{
    const fg_record *const r = fg_tape_record(w->t, block);
    along a = {operand(w, block, 0), results(w, block), {{0, 0, 1, 1, 1, 1}, NULL}, r->rows == 1 && r->cols == 1};
    if (r->rows == 1)
        a.z = fg_term_turned(w, a.z);
    return with_gradient(w, a);
}

static along softmax_of(fg_writing *w, fg_id block)
{
    const along a = {operand(w, block, 0), results(w, block), {{0, 0, 1, 1, 1, 1}, NULL}, 0};
    return with_gradient(w, a);
}

static void write_sum(fg_writing *w, fg_id block)
{
    along a = reduced_of(w, block);
    if (fg_tape_op(w->t, block) == FG_MEAN) {
        const double n = a.single ? (double)a.x.view.rows * a.x.view.cols : (double)a.x.view.cols;
        a.g = fg_write_binary(w, FG_DIV, a.g, fg_write_number(w, n));
    }
    fg_write_give(w, &a.x, a.g);
}

/* Each of the largest gets its share: g / how many there are. */
static void write_max(fg_writing *w, fg_id block)
{
    const along a = reduced_of(w, block);
    const fg_term mask = equal(w, a.x, a.z), ties = fg_write_reduced(w, FG_SUM, mask, a.single, 0);
    const fg_term share = fg_write_binary(w, FG_DIV, a.g, ties);
    fg_write_give(w, &a.x, chosen(w, mask, share));
}

/* g softmax(x); not g exp(x - z), for z is rounded, and may be large; but so where z is not finite, as the numeric rule
 * has it: rows that are alike in this go together. */
static void write_logsumexp_of(fg_writing *w, fg_term x, fg_term z, fg_term g, int finite)
{
    fg_term d;
    if (finite) {
        const int flat = fg_term_is_single(&z) && x.view.rows > 1;
        const fg_term rows = flat ? fg_term_shaped(w, x, 1, x.view.rows * x.view.cols) : x;
        d = fg_write_softmax(w, FG_SOFTMAX, rows);
        if (flat)
            d = fg_term_shaped(w, d, x.view.rows, x.view.cols);
    } else {
        d = fg_write_binary(w, FG_SUB, x, z);
        d = fg_write_unary(w, FG_EXP, d);
    }
    fg_write_give(w, &x, multiplied(w, g, d));
}

static void write_logsumexp(fg_writing *w, fg_id block)
{
    const along a = reduced_of(w, block);
    const fg_id rows = a.z.view.rows;
    fg_id infinite = 0;
    if (w->status != FG_OK)
        return;
    for (fg_id i = 0; i < rows; i++)
        infinite += isfinite(w->t->data[fg_term_slot(&a.z, i, 0)]) ? 0 : 1;
    if (infinite == 0 || infinite == rows) {
        write_logsumexp_of(w, a.x, a.z, a.g, infinite == 0);
        return;
    }
    for (int finite = 0; finite < 2; finite++) {
        const fg_id count = finite ? rows - infinite : infinite;
        fg_id *const lines = fg_write_ids(w, count), *line = lines;
        for (fg_id i = 0; i < rows && lines; i++)
            if ((isfinite(w->t->data[fg_term_slot(&a.z, i, 0)]) != 0) == finite)
                *line++ = i;
        if (!lines)
            return;
        const reached at = {lines, NULL, count, 1, count, 1};
        const fg_term x = rows_of(w, a.x, &at), z = rows_of(w, a.z, &at), g = rows_of(w, a.g, &at);
        write_logsumexp_of(w, x, z, g, finite);
    }
}

/* z (g - the sum of z g over the row) */
static void write_softmax(fg_writing *w, fg_id block)
{
    const along a = softmax_of(w, block);
    const fg_id rows = a.z.view.rows, cols = a.z.view.cols;
    fg_term mean;
    if (rows == 1 && a.g.view.cols == cols)
        mean = fg_write_product(w, a.z, a.g);
    else
        mean = fg_write_summed(w, multiplied(w, a.z, a.g), rows, cols, rows, 1);
    const fg_term d = fg_write_binary(w, FG_SUB, a.g, mean);
    fg_write_give(w, &a.x, multiplied(w, a.z, d));
}

/* g - exp(z) the sum of g over the row */
static void write_log_softmax(fg_writing *w, fg_id block)
{
    const along a = softmax_of(w, block);
    const fg_id rows = a.z.view.rows, cols = a.z.view.cols;
    const fg_term total = fg_write_summed(w, a.g, rows, cols, rows, 1);
    const fg_term e = fg_write_unary(w, FG_EXP, a.z);
    const fg_term d = multiplied(w, e, total);
    fg_write_give(w, &a.x, fg_write_binary(w, FG_SUB, a.g, d));
}

/* g / m * softmax(x), less g / m where the label is. */
static void write_cross_entropy(fg_writing *w, fg_id block)
{
    const fg_term x = operand(w, block, 0), z = results(w, block);
    const fg_id rows = x.view.rows, cols = x.view.cols;
    const fg_term zero = fg_write_number(w, 0.0), m = fg_write_number(w, (double)rows);
    const fg_term d = fg_write_binary(w, FG_DIV, fg_term_of_gradients(w, &z), m);
    const fg_term scaled = multiplied(w, d, fg_write_softmax(w, FG_SOFTMAX, x));
    fg_id *const ids = fg_write_ids(w, (size_t)rows * cols);
    if (!ids || w->status != FG_OK)
        return;
    const fg_id *const label = fg_record_extra(fg_tape_record(w->t, block));
    for (fg_id i = 0; i < rows; i++)
        for (fg_id j = 0; j < cols; j++)
            ids[(size_t)i * cols + j] = j == label[i] ? d.view.base : zero.view.base;
    const fg_term label_term = fg_term_of_ids(ids, rows, cols);
    fg_write_give(w, &x, fg_write_binary(w, FG_SUB, scaled, label_term));
}

/* ---- taken ---- */

/* Whether no position will ever be another number: they are constants that were made for the instruction, just below
 * its first result. */
static int has_fixed_positions(const fg_writing *w, fg_id block)
{
    const fg_tape *const t = w->t;
    fg_record *const r = fg_tape_record(t, block);
    const fg_view *const p = fg_record_view(r, 1);
    if (p->flags & FG_VIEW_LIST || (p->cols > 1 && p->col_step != 1) || p->base + p->cols != block - t->args[block].b)
        return 0;
    for (fg_id k = 0; k < p->cols; k++)
        if (t->op[p->base + k] != FG_LEAF || t->owner[p->base + k])
            return 0;
    return 1;
}

/* The slots that the results, or those with a gradient, were taken from. */
static void write_take_fixed(fg_writing *w, fg_id block, const fg_term *x)
{
    const fg_term z = results(w, block);
    const fg_record *const r = fg_tape_record(w->t, block);
    const fg_id *const at = fg_record_extra(fg_tape_record(w->t, block));
    const fg_id rows = z.view.rows, cols = z.view.cols, kind = r->k;
    fg_id *const ids = fg_write_ids(w, (size_t)rows * cols);
    if (!ids)
        return;
    for (fg_id i = 0; i < rows; i++)
        for (fg_id j = 0; j < cols; j++)
            ids[(size_t)i * cols + j] =
                kind == FG_TAKE_EACH ? fg_term_slot(x, j, at[j]) : fg_term_slot(x, at[i], j);
    const fg_term g = fg_term_of_gradients(w, &z);
    const fg_term to = rows * cols == 1 ? fg_term_of(ids[0]) : (fg_term){{FG_VIEW_LIST, 0, rows, cols, 0, 0}, ids};
    if (w->status == FG_OK)
        fg_write_give(w, &to, g);
}

/* x[p] or x[i][p[i]]: where a column, or row, of x is the position, is the gradient. The positions are numbers of the
 * graph, and may be others when a program is called. */
static void write_take(fg_writing *w, fg_id block)
{
    const fg_term x = operand(w, block, 0);
    fg_term p = operand(w, block, 1), z = results(w, block), g;
    const int each = fg_tape_record(w->t, block)->k == FG_TAKE_EACH;
    const fg_id length = each ? x.view.cols : x.view.rows;
    if (w->status != FG_OK)
        return;
    if (has_fixed_positions(w, block)) {
        write_take_fixed(w, block, &x);
        return;
    }
    g = fg_term_of_gradients(w, &z);
    /* From -length to -1 they count from the end. */
    const fg_term zero = fg_write_number(w, 0.0), size = fg_write_number(w, (double)length);
    const fg_term added = multiplied(w, fg_write_binary(w, FG_LESS, p, zero), size);
    p = fg_write_binary(w, FG_ADD, p, added);
    const fg_term numbers = fg_write_positions(w, length);
    const fg_term mask = equal(w, fg_term_turned(w, p), numbers); /* (k, length) */
    if (each) {
        fg_write_give(w, &x, chosen(w, mask, fg_term_turned(w, g)));
        return;
    }
    g = fg_term_full(w, g, z.view.rows, z.view.cols);
    if (w->status != FG_OK)
        return;
    if (z.view.rows > 1 && is_finite(w, &g)) {
        fg_write_give(w, &x, fg_write_product(w, fg_term_turned(w, mask), fg_term_turned(w, g)));
        return;
    }
    for (fg_id i = 0; i < z.view.rows; i++) { /* without 0 times inf */
        const fg_term row = fg_term_lines(w, g, &i, 1);
        fg_write_give(w, &x, chosen(w, fg_term_turned(w, fg_term_lines(w, mask, &i, 1)), row));
    }
}

void fg_write_block(fg_writing *w, fg_id block)
{
    switch (fg_tape_op(w->t, block)) {
    case FG_MAP:
        write_map(w, block);
        break;
    case FG_LAYER:
        write_layer(w, block);
        break;
    case FG_SUM:
    case FG_MEAN:
        write_sum(w, block);
        break;
    case FG_MAX:
        write_max(w, block);
        break;
    case FG_LOGSUMEXP:
        write_logsumexp(w, block);
        break;
    case FG_SOFTMAX:
        write_softmax(w, block);
        break;
    case FG_LOG_SOFTMAX:
        write_log_softmax(w, block);
        break;
    case FG_CROSS_ENTROPY:
        write_cross_entropy(w, block);
        break;
    default:
        assert(fg_tape_op(w->t, block) == FG_TAKE); /* FG_CALL is the caller's */
        write_take(w, block);
    }
}
