/* block_operands.c: see block.h, of which this has what asks for operands. */
#include "block.h"
#include "block_reached.h"
#include "block_steps.h"

/* ---- marking operands, for sweeps ---- */

int fg_block_are_leaves(const fg_tape *t, fg_id first, fg_id end)
{
    return all_leaves(t, first, end);
}

/* Mark an area of a view; without `leaves` the nodes that a sweep has to visit are enough. */
static void mark_area(const fg_tape *t, fg_marks *marks, const fg_id *words, const fg_view *view, area a,
                      int leaves)
{
    fg_id lowest, highest;
    fg_view part = *view;
    if (a.rows == 0 || a.cols == 0)
        return;
    if (!is_listed(view)) {
        part.base = fg_view_slot(words, view, a.row, a.col);
        part.rows = a.rows;
        part.cols = a.cols;
        if (view->row_step == 1 && a.cols > 1) { /* a transpose, of which columns are in a row */
            part = (fg_view){0, part.base, a.cols, a.rows, view->col_step, 1};
            view = &part;
            a = (area){0, 0, a.cols, a.rows};
        }
        fg_view_extent(&part, &lowest, &highest);
        if (!leaves && all_leaves(t, lowest, highest + 1))
            return;
        if (is_dense(&part)) {
            fg_marks_add_range(marks, lowest, highest + 1);
            return;
        }
        if (view->col_step == 1) {
            for (fg_id row = 0; row < a.rows; row++) {
                const fg_id first = fg_view_slot(words, view, a.row + row, a.col);
                if (leaves || !all_leaves(t, first, first + a.cols))
                    fg_marks_add_range(marks, first, first + a.cols);
            }
            return;
        }
    }
    for (fg_id row = 0; row < a.rows; row++) {
        fg_id word = 0;
        uint64_t bits = 0; /* of that word, and not in the marks yet: neighbours are often in one */
        for (fg_id col = 0; col < a.cols; col++) {
            const fg_id i = fg_view_slot(words, view, a.row + row, a.col + col);
            if (i >> 6 != word && bits) {
                fg_marks_add_word(marks, word, bits);
                bits = 0;
            }
            word = i >> 6;
            bits |= (uint64_t)1 << (i & 63u);
        }
        fg_marks_add_word(marks, word, bits);
    }
}

/* What the results of an FG_TAKE, or those that are reached, were copied from. */
static void mark_sources(const fg_tape *t, fg_record *r, const outputs *of, fg_marks *marks, int leaves)
{
    const fg_id all = r->rows * r->cols;
    if (fg_record_view(r, 0)->flags & FG_VIEW_CONSTANT)
        return;
    for (fg_id k = 0; k < all; k++) {
        k = of ? next_result(of, k, all, 1) : k;
        if (k < all && (leaves || !all_leaves(t, fg_take_source(r, k), fg_take_source(r, k) + 1)))
            fg_marks_add(marks, fg_take_source(r, k));
    }
}

void fg_block_mark_operands(const fg_tape *t, fg_id i, fg_marks *marks, fg_which which)
{
    if (FG_UNLIKELY(fg_tape_op(t, i) == FG_CALL)) {
        fg_record *const r = fg_tape_record(t, i);
        fg_tape_callee(t, r)->steps->mark(fg_tape_callee(t, r), t, r, i - t->args[i].b, 1, marks,
                                               which != FG_VISITED);
        return;
    }
    fg_operands o;
    fg_tape_views(t, i, &o);
    if (which != FG_ALL && fg_tape_op(t, i) == FG_TAKE) {
        if (which == FG_VISITED) {
            mark_sources(t, fg_tape_record(t, i), NULL, marks, 0);
            return;
        }
        o.count = 1; /* without the positions */
    }
    for (fg_id v = 0; v < o.count; v++)
        if (which == FG_ALL || !(o.view[v].flags & FG_VIEW_CONSTANT))
            mark_area(t, marks, o.words, o.view + v, (area){0, 0, o.view[v].rows, o.view[v].cols},
                      which != FG_VISITED);
}

/* The operands in view v of every rectangle of reached results. */
static void mark_stretches(const fg_tape *t, int op, fg_record *r, fg_id v, const outputs *of, fg_marks *marks)
{
    const fg_id all = r->rows * r->cols;
    for (fg_id end, k = next_result(of, 0, all, 1); k < all; k = next_result(of, end, all, 1)) {
        const area at = reached_area(of, r, k, &end);
        mark_area(t, marks, (const fg_id *)(const void *)r, fg_record_view(r, v), area_of(op, r, v, at), 0);
    }
}

/* Of a view whose slots follow each other as the results do: the marks of the results, moved. */
static void mark_alike(const fg_tape *t, fg_id first, fg_id count, fg_id base, fg_marks *marks)
{
    for (fg_id w = first >> 6; w <= (first + count - 1) >> 6; w++) {
        uint64_t bits = t->marks.word[w];
        if (bits) {
            const unsigned low = fg_bits_low(bits);
            bits >>= low;
            fg_marks_add_bits(marks, base + (fg_id)(((uint64_t)w << 6) + low - first), bits);
        }
    }
}

void fg_block_mark_reached(fg_tape *t, fg_id i, fg_marks *marks)
{
    fg_record *const r = fg_tape_record(t, i);
    const int op = fg_tape_op(t, i);
    const fg_id count = t->args[i].b, first = i - count;
    const outputs of = {first, t->marks.word};
    double *scratch = t->scratch;
    reached found = {NULL, NULL, 0, 0, 0, 0};
    if (op == FG_TAKE) {
        mark_sources(t, r, &of, marks, 0);
        return;
    }
    if (FG_UNLIKELY(op == FG_CALL)) {
        fg_tape_callee(t, r)->steps->mark(fg_tape_callee(t, r), t, r, first, 0, marks, 0);
        return;
    }
    if (op == FG_LAYER)
        found = find_reached(&of, r, &scratch);
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *view = fg_record_view(r, v);
        if (view->rows == 0 || view->cols == 0 || view->flags & FG_VIEW_CONSTANT)
            continue;
        if (!is_listed(view)) {
            fg_id lowest, highest;
            fg_view_extent(view, &lowest, &highest);
            if (all_leaves(t, lowest, highest + 1))
                continue;
        }
        if (op == FG_LAYER) {
            const fg_id *const lines = v == 0 ? found.rows : found.cols;
            const fg_id n = v == 0 ? found.n_rows : found.n_cols;
            for (fg_id k = 0, end; k < n; k = end) { /* those that follow each other at once */
                for (end = k + 1; end < n && lines[end] == lines[k] + (end - k); end++)
                    ;
                const area at = v == 0 ? (area){lines[k], 0, end - k, 1}
                                          : (area){0, lines[k], 1, end - k};
                mark_area(t, marks, (const fg_id *)(const void *)r, view, area_of(op, r, v, at), 0);
            }
        } else if (op == FG_MAP && size_of(view) == count && is_dense(view)) {
            mark_alike(t, first, count, view->base, marks);
        } else {
            mark_stretches(t, op, r, v, &of, marks);
        }
    }
}

/* ---- single elements ---- */

/* How many operands a single result of an instruction has. */
static fg_id operands_of(int op, fg_record *r)
{
    const fg_view *x = fg_record_view(r, 0);
    if (op == FG_LAYER)
        return 2 * x->cols + (r->views > 2);
    if (op == FG_MAP)
        return (fg_id)fg_op_table[r->param].parents; /* FG_POWC: not the exponent */
    if (op == FG_TAKE)
        return 2;
    return is_single(r) && !fg_op_is_softmax(op) ? x->rows * x->cols : x->cols;
}

/* The slots of the operands of the result at `at`. */
static void list_ids(int op, fg_record *r, area at, fg_id *ids)
{
    const fg_view *x = fg_record_view(r, 0);
    if (op == FG_TAKE) {
        *ids++ = fg_take_source(r, at.row * r->cols + at.col);
        *ids = fg_record_slot(r, fg_record_view(r, 1), 0, r->k == FG_TAKE_EACH ? at.col : at.row);
        return;
    }
    if (op == FG_LAYER) { /* in micrograd's order: the bias, then each weight with its input */
        if (r->views > 2)
            *ids++ = fg_record_slot(r, fg_record_view(r, 2), 0, at.col);
        for (fg_id k = 0; k < x->cols; k++) {
            *ids++ = fg_record_slot(r, fg_record_view(r, 1), at.col, k);
            *ids++ = fg_record_slot(r, x, at.row, k);
        }
        return;
    }
    for (fg_id v = 0; v < (op == FG_MAP ? (fg_id)fg_op_table[r->param].parents : 1); v++) {
        const area a = area_of(op, r, v, at);
        for (fg_id row = 0; row < a.rows; row++)
            for (fg_id col = 0; col < a.cols; col++)
                *ids++ = fg_record_slot(r, fg_record_view(r, v), a.row + row, a.col + col);
    }
}

/* The partial derivatives of the result at `at` by its operands, in that order: the reverse step with a gradient
 * of 1 for that result, put aside. */
static void list_partials(fg_tape *t, fg_id block, int op, fg_record *r, area at, double *partials)
{
    const double one = 1.0, *const z = t->data + (block - t->args[block].b), *const zi = z + at.row * r->cols + at.col;
    const fg_id k = fg_record_view(r, 0)->cols;
    double *aside[FG_MAX_ARITY] = {partials, NULL, NULL};
    const fg_slots slots = fg_slots_of(t);
    step s = {&slots, r, op, {block - t->args[block].b, NULL}, at, t->scratch, aside, 0, 0};
    if (op == FG_LAYER) {
        aside[0] = take(&s.scratch, k);
        aside[1] = take(&s.scratch, k);
        aside[2] = r->views > 2 ? partials++ : NULL;
        (void)fg_layer_reverse(&s, zi, &one);
        for (fg_id j = 0; j < k; j++) {
            partials[2 * j] = aside[1][j];
            partials[2 * j + 1] = aside[0][j];
        }
    } else if (op == FG_MAP) {
        double each[FG_MAX_ARITY];
        for (fg_id v = 0; v < FG_MAX_ARITY; v++)
            aside[v] = each + v;
        (void)fg_map_reverse(&s, zi, &one);
        memcpy(partials, each, (size_t)fg_op_table[r->param].parents * sizeof *each);
    } else if (op == FG_TAKE) {
        (void)fg_take_reverse(&s, zi, &one);
    } else if (op == FG_CROSS_ENTROPY) {
        (void)fg_cross_entropy_reverse(&s, zi, &one);
    } else if (fg_op_is_softmax(op)) {
        double *const dz = take(&s.scratch, r->cols);
        memset(dz, 0, r->cols * sizeof *dz);
        dz[at.col] = 1.0;
        s.at = (area){at.row, 0, 1, r->cols};
        (void)fg_rows_reverse(&s, z + (size_t)at.row * r->cols, dz);
    } else {
        (void)fg_rows_reverse(&s, zi, &one);
    }
}

/* Those of an inline or pooled node. */
static fg_id list_node(const fg_tape *t, fg_id i, fg_id *ids, double *partials)
{
    fg_id count;
    const fg_id *const operands = fg_tape_operands(t, i, &count);
    const int op = fg_tape_op(t, i), arity = fg_op_table[op].arity;
    const size_t each[3] = {1, 1, 1};
    const double one = 1.0, *x[3] = {NULL, NULL, NULL};
    for (fg_id k = 0; ids && k < count; k++)
        ids[k] = operands[k];
    if (!partials)
        return count;
    for (int k = 0; k < arity; k++)
        x[k] = t->data + operands[k];
    for (fg_id k = 0; k < count; k++) {
        partials[k] = arity > 0 ? -0.0 : 0.0; /* -0.0 plus a number is that number; FG_CUSTOM has no rule */
        if (op == FG_LOCAL)
            memcpy(partials + k, operands + count + 2 * (size_t)k, sizeof *partials);
        else if (arity > 0)
            t->kernels->map_grad(op, (int)k, 1, x, each, (int32_t)t->args[i].b, t->data + i, &one, partials + k);
    }
    return count;
}

fg_id fg_block_operands(fg_tape *t, fg_id i, fg_id *ids, double *partials)
{
    const fg_id block = fg_tape_op(t, i) == FG_PART ? i + t->args[i].a : i;
    const int op = fg_tape_op(t, block);
    if (!fg_op_is_block(op))
        return fg_op_is_scalar(op) ? list_node(t, i, ids, partials) : 0;
    fg_record *const r = fg_tape_record(t, block);
    const fg_id k = block == i && t->args[block].b == 0 ? 0 : i - (block - t->args[block].b);
    const area at = {k / r->cols, k % r->cols, 1, 1};
    if (op == FG_CALL)
        return fg_tape_callee(t, r)->steps->operands(fg_tape_callee(t, r), t, r, k, ids, partials);
    if (ids)
        list_ids(op, r, at, ids);
    if (partials)
        list_partials(t, block, op, r, at, partials);
    return operands_of(op, r);
}
