/* lanes_code.c: see lanes_code.h. The order here: values of a step, products that become part of a sum, which gradients
 * are wanted, places, forward code, reverse code, making one. */
#include "lanes_code.h"

#include <string.h>

enum { MOST_VALUES = 1 << 15 };

/* Beside those of kernels. */
enum { OPERAND = 64, NUMBER, GONE };

struct fg_code_value {
    uint8_t kind;    /* FG_LANE_..., or one of the above; GONE: its only user computes it */
    uint8_t row;
    uint8_t count;   /* operands */
    uint8_t moving;  /* it depends on the carry or on x */
    uint8_t wanted;  /* a wanted gradient depends on its own */
    uint8_t kept;    /* a reverse step reads its number */
    uint8_t one;     /* it is one number for all lanes */
    int32_t k;
    uint32_t x[FG_MAX_ARITY];
    uint32_t uses, last; /* how many values and results need it; the last of these values, or FG_NOWHERE */
    fg_place data;
    fg_place slope;      /* of FG_LANE_SIN and FG_LANE_COS */
    uint32_t grad;       /* a fixed slot, or FG_NOWHERE; of moving values while a way back is made */
    double number;
};

static int is_computed(const fg_code_value *v)
{
    return v->kind < OPERAND;
}

/* ---- values ---- */

static int allocate(fg_code *c, void *array, size_t count, size_t size)
{
    return fg_mem_resize(c->mem, array, 0, count, size);
}

/* Add one; returns its number, FG_E_MEMORY, or FG_E_FULL. */
static int64_t add_value(fg_code *c, fg_code_value v)
{
    if (c->n_values == MOST_VALUES)
        return FG_E_FULL;
    if (c->n_values == c->room) {
        const uint32_t room = c->room < 64 ? 64 : 2 * c->room;
        void *values = c->values;
        if (fg_mem_resize(c->mem, &values, c->room, room, sizeof *c->values) < 0)
            return FG_E_MEMORY;
        c->values = values;
        c->room = room;
    }
    v.grad = FG_NOWHERE;
    v.last = FG_NOWHERE;
    c->values[c->n_values] = v;
    return c->n_values++;
}

static int kind_of(int row)
{
    switch (row) {
    case FG_COPY:
        return FG_LANE_COPY;
    case FG_NEG:
        return FG_LANE_NEG;
    case FG_ADD:
        return FG_LANE_ADD;
    case FG_SUB:
        return FG_LANE_SUB;
    case FG_MUL:
        return FG_LANE_MUL;
    case FG_SIN:
        return FG_LANE_SIN;
    case FG_COS:
        return FG_LANE_COS;
    default:
        return FG_LANE_ROW;
    }
}

static int64_t add_row(fg_code *c, int row, int32_t k, uint32_t count, const uint32_t *x)
{
    fg_code_value v = {.kind = (uint8_t)kind_of(row), .row = (uint8_t)row, .count = (uint8_t)count, .k = k};
    memcpy(v.x, x, count * sizeof *x);
    return add_value(c, v);
}

static int64_t add_two(fg_code *c, int row, int64_t x, int64_t y)
{
    const uint32_t both[2] = {(uint32_t)x, (uint32_t)y};
    return x < 0 ? x : y < 0 ? y : add_row(c, row, 0, 2, both);
}

static uint32_t value_at(const fg_code *c, const fg_record *r, const fg_view *v, fg_id row, fg_id col)
{
    return c->of_node[fg_record_slot(r, v, row, col)];
}

static int64_t add_map(fg_code *c, fg_record *r, fg_id at)
{
    uint32_t x[FG_MAX_ARITY];
    const fg_id row = at / r->cols, col = at % r->cols;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        x[v] = value_at(c, r, view, view->rows > 1 ? row : 0, view->cols > 1 ? col : 0);
    }
    return add_row(c, (int)r->param, (int32_t)r->k, r->views, x);
}

/* The bias, if there is one, and then one product after the other. */
static int64_t add_layer(fg_code *c, fg_record *r, fg_id at)
{
    const fg_view *const x = fg_record_view(r, 0), *const w = fg_record_view(r, 1);
    const fg_id row = at / r->cols, col = at % r->cols;
    int64_t sum = r->views > 2 ? (int64_t)value_at(c, r, fg_record_view(r, 2), 0, col) : -1;
    for (fg_id k = 0; k < x->cols; k++) {
        const int64_t product = add_two(c, FG_MUL, value_at(c, r, x, row, k), value_at(c, r, w, col, k));
        if (product < 0)
            return product;
        sum = k == 0 && r->views < 3 ? product : add_two(c, FG_ADD, sum, product);
        if (sum < 0)
            return sum;
    }
    if (r->param == FG_LEAF)
        return sum;
    const uint32_t result = (uint32_t)sum;
    return add_row(c, (int)r->param, 0, 1, &result);
}

static int64_t add_sum(fg_code *c, int op, fg_record *r, fg_id at)
{
    const fg_view *const x = fg_record_view(r, 0);
    const int all = r->rows * r->cols == 1;
    const fg_id begin = all ? 0 : at, end = all ? x->rows : at + 1;
    int64_t sum = -1;
    for (fg_id i = begin; i < end; i++)
        for (fg_id j = 0; j < x->cols; j++) {
            const uint32_t more = value_at(c, r, x, i, j);
            sum = i == begin && j == 0 ? add_row(c, FG_COPY, 0, 1, &more) : add_two(c, FG_ADD, sum, more);
            if (sum < 0)
                return sum;
        }
    if (op == FG_SUM)
        return sum;
    const double length = (double)(end - begin) * x->cols;
    return add_two(c, FG_DIV, sum, add_value(c, (fg_code_value){.kind = NUMBER, .number = length, .one = 1}));
}

/* The values of instruction i, of each result. FG_OK, FG_CODE_NONE, or an error. */
static int add_block(fg_code *c, fg_tape *t, fg_id i)
{
    const int op = fg_tape_op(t, i);
    fg_record *const r = fg_tape_record(t, i);
    const fg_id first = i - t->args[i].b;
    if (op == FG_LAYER ? fg_record_view(r, 0)->cols == 0 : op != FG_MAP && op != FG_SUM && op != FG_MEAN)
        return FG_CODE_NONE;
    for (fg_id k = 0; k < r->rows * r->cols; k++) {
        const int64_t value = op == FG_MAP     ? add_map(c, r, k)
                              : op == FG_LAYER ? add_layer(c, r, k)
                                               : add_sum(c, op, r, k);
        if (value < 0)
            return (int)value;
        c->of_node[first + k] = (uint32_t)value;
    }
    return FG_OK;
}

static int add_values(fg_code *c)
{
    fg_program *const p = c->scan->step;
    fg_tape *const t = &p->body;
    for (fg_id i = 1; i < t->n; i++) {
        const int op = fg_tape_op(t, i);
        int64_t value = FG_OK;
        if (op == FG_RUN || op == FG_PART)
            continue;
        if (i <= p->area) {
            value = add_value(c, (fg_code_value){.kind = OPERAND, .moving = i <= c->scan->n_carry + c->scan->n_x});
        } else if (fg_op_is_leaf(op)) {
            value = add_value(c, (fg_code_value){.kind = NUMBER, .number = t->data[i], .one = 1});
        } else if (fg_op_is_block(op)) {
            const int status = add_block(c, t, i);
            if (status != FG_OK)
                return status;
            continue;
        } else if (op == FG_CUSTOM || op == FG_LOCAL) {
            return FG_CODE_NONE;
        } else {
            fg_id count;
            uint32_t x[FG_MAX_ARITY];
            const fg_id *const ids = fg_tape_operands(t, i, &count);
            for (fg_id k = 0; k < count; k++)
                x[k] = c->of_node[ids[k]];
            value = add_row(c, op, count == 1 ? (int32_t)t->args[i].b : 0, count, x);
        }
        if (value < 0)
            return (int)value;
        c->of_node[i] = (uint32_t)value;
    }
    return FG_OK;
}

static uint32_t result(const fg_code *c, fg_id k)
{
    return c->of_node[c->scan->step->results[k]];
}

static fg_id n_results(const fg_code *c)
{
    return c->scan->n_carry + c->scan->n_outputs;
}

/* ---- products that become part of a sum ---- */

static void count_uses(fg_code *c)
{
    fg_code_value *const values = c->values;
    for (uint32_t i = 0; i < c->n_values; i++)
        for (uint32_t k = 0; k < values[i].count; k++) {
            values[i].moving |= values[values[i].x[k]].moving;
            values[values[i].x[k]].uses++;
        }
    for (fg_id k = 0; k < n_results(c); k++)
        values[result(c, k)].uses++;
}

static int is_part(const fg_code *c, const fg_code_value *sum, uint32_t k)
{
    const fg_code_value *const x = c->values + sum->x[k];
    return x->kind == FG_LANE_MUL && x->uses == 1 && x->moving == sum->moving;
}

static void join_products(fg_code *c)
{
    for (uint32_t i = 0; i < c->n_values; i++) {
        fg_code_value *const v = c->values + i;
        if (v->kind != FG_LANE_ADD && v->kind != FG_LANE_SUB)
            continue;
        const uint32_t which = is_part(c, v, 1) ? 1 : 0;
        if (!is_part(c, v, which))
            continue;
        fg_code_value *const product = c->values + v->x[which];
        v->kind = v->kind == FG_LANE_ADD ? FG_LANE_ADD_MUL : which ? FG_LANE_SUB_MUL : FG_LANE_MUL_SUB;
        v->x[0] = v->x[1 - which];
        v->x[1] = product->x[0];
        v->x[2] = product->x[1];
        v->count = 3;
        product->kind = GONE;
    }
}

/* ---- which gradients are wanted, and what they need ---- */

/* By those of the scan's operands. */
static void want_operands(fg_code *c, const uint8_t *wanted, const uint8_t *varies)
{
    const fg_scan *const s = c->scan;
    const fg_callee *const step = &s->step->callee;
    for (fg_id k = 0; k < step->n_segments; k++)
        for (fg_id e = 0; e < s->callee.segments[k].count; e++)
            c->values[c->of_node[step->segments[k].first + e % step->segments[k].count]].wanted |=
                wanted[s->callee.segments[k].first + e];
    for (fg_id k = s->carries + s->xs; k < step->n_segments; k++)
        for (fg_id e = 0; e < step->segments[k].count; e++)
            c->values[c->of_node[step->segments[k].first + e]].one = !varies[s->callee.segments[k].first + e];
    for (uint32_t i = 0; i < c->n_values; i++) {
        fg_code_value *const v = c->values + i;
        if (is_computed(v))
            v->one = !v->moving;
        for (uint32_t k = 0; k < v->count && is_computed(v); k++)
            v->one &= c->values[v->x[k]].one;
    }
}

static void spread_wanted(fg_code *c)
{
    for (int more = 1; more;) {
        more = 0;
        for (uint32_t i = 0; i < c->n_values; i++)
            for (uint32_t k = 0; k < c->values[i].count && is_computed(c->values + i); k++)
                c->values[i].wanted |= c->values[c->values[i].x[k]].wanted;
        for (fg_id k = 0; k < c->scan->n_carry; k++) {
            fg_code_value *const carry = c->values + c->of_node[1 + k];
            more |= !carry->wanted && c->values[result(c, k)].wanted;
            carry->wanted |= c->values[result(c, k)].wanted;
        }
    }
}

static void keep_operands(fg_code *c)
{
    fg_code_value *const values = c->values;
    for (uint32_t i = 0; i < c->n_values; i++) {
        fg_code_value *const v = values + i;
        if (!is_computed(v) || !v->wanted)
            continue;
        const uint32_t first = v->count == 3 ? 1 : 0; /* of a product */
        switch (v->kind) {
        case FG_LANE_MUL:
        case FG_LANE_ADD_MUL:
        case FG_LANE_SUB_MUL:
        case FG_LANE_MUL_SUB:
            values[v->x[first]].kept |= values[v->x[first + 1]].wanted;
            values[v->x[first + 1]].kept |= values[v->x[first]].wanted;
            break;
        case FG_LANE_ROW:
            v->kept = 1;
            for (uint32_t k = 0; k < v->count; k++)
                values[v->x[k]].kept = 1;
            break;
        default:
            break;
        }
    }
}

/* ---- places ---- */

static void find_last_uses(fg_code *c)
{
    fg_code_value *const values = c->values;
    for (uint32_t i = 0; i < c->n_values; i++)
        for (uint32_t k = 0; k < values[i].count && values[i].kind != GONE; k++)
            values[values[i].x[k]].last = i;
    for (fg_id k = 0; k < n_results(c); k++)
        values[result(c, k)].last = FG_NOWHERE;
}

static int is_nowhere(fg_place place)
{
    return place.slot == FG_NOWHERE;
}

/* Of the carry, and of values that are the next carry. */
static void place_carry(fg_code *c)
{
    for (uint32_t i = 0; i < c->n_values; i++)
        c->values[i].data = c->values[i].slope = (fg_place){FG_CODE_FIXED, FG_NOWHERE};
    for (fg_id k = 0; k < c->scan->n_carry; k++) {
        fg_code_value *const before = c->values + c->of_node[1 + k], *const after = c->values + result(c, k);
        const int own = is_computed(after) && after->moving && is_nowhere(after->data);
        const int in_row = before->kept || (own && after->kept);
        const uint32_t slot = in_row ? c->width++ : c->pairs++;
        c->carry[k] = before->data = (fg_place){in_row ? FG_CODE_ROW : FG_CODE_CARRY, slot};
        c->next[k] = (fg_place){in_row ? FG_CODE_AFTER : FG_CODE_NEXT, slot};
        if (own)
            after->data = c->next[k];
    }
}

static uint32_t spare_slot(fg_code *c)
{
    return c->n_spare > 0 ? c->spare[--c->n_spare] : c->fixed++;
}

static void place_values(fg_code *c)
{
    for (uint32_t i = 0; i < c->n_values; i++) /* those that keep their slot, before slots are used again */
        if (!c->values[i].moving || c->values[i].kind == OPERAND) {
            fg_code_value *const v = c->values + i;
            if (is_nowhere(v->data))
                v->data = v->moving && v->kept ? (fg_place){FG_CODE_ROW, c->width++}
                                               : (fg_place){FG_CODE_FIXED, c->fixed++};
            if (is_computed(v))
                v->slope = (fg_place){FG_CODE_FIXED, c->fixed++};
        }
    for (uint32_t i = 0; i < c->n_values; i++) {
        fg_code_value *const v = c->values + i;
        if (!v->moving || !is_computed(v))
            continue;
        const int temporary = is_nowhere(v->data) && !v->kept;
        if (is_nowhere(v->data))
            v->data = v->kept ? (fg_place){FG_CODE_ROW, c->width++} : (fg_place){FG_CODE_FIXED, spare_slot(c)};
        if (v->kind == FG_LANE_SIN || v->kind == FG_LANE_COS)
            v->slope = v->wanted ? (fg_place){FG_CODE_ROW, c->width++} : (fg_place){FG_CODE_FIXED, spare_slot(c)};
        for (uint32_t k = 0; k < v->count; k++) {
            fg_code_value *const x = c->values + v->x[k];
            if (x->last == i && x->moving && is_computed(x) && !x->kept) {
                assert(x->data.base == FG_CODE_FIXED); /* no result, whose last use is nowhere */
                x->last = FG_NOWHERE; /* it may be an operand twice */
                c->spare[c->n_spare++] = x->data.slot;
            }
        }
        if (temporary && v->uses == 0)
            c->spare[c->n_spare++] = v->data.slot;
        if (!is_nowhere(v->slope) && v->slope.base == FG_CODE_FIXED)
            c->spare[c->n_spare++] = v->slope.slot;
    }
}

static void place_gradients(fg_code *c)
{
    c->first_sum = c->fixed;
    for (uint32_t i = 0; i < c->n_values; i++)
        if (!c->values[i].moving && c->values[i].wanted)
            c->values[i].grad = c->fixed++;
    c->n_sums = c->fixed - c->first_sum;
    c->dnext = c->fixed;
    c->dout = c->dnext + c->scan->n_carry;
    c->temporary = c->dout + c->scan->n_outputs;
    c->fixed = c->temporary + c->scan->n_carry + c->scan->n_x;
    for (uint32_t i = 0; i < c->n_values; i++)
        c->fixed += c->values[i].moving && c->values[i].wanted;
}

/* ---- code ---- */

static void put(const fg_code *c, fg_lane_code *code, int operand, fg_place place)
{
    code->base[operand] = (uint8_t)place.base;
    code->at[operand] = (int32_t)(place.slot * c->lanes * sizeof(double));
}

static fg_place fixed(uint32_t slot)
{
    return (fg_place){FG_CODE_FIXED, slot};
}

static fg_lane_code copy(const fg_code *c, fg_place to, fg_place from)
{
    fg_lane_code code = {.kind = FG_LANE_COPY};
    put(c, &code, 0, to);
    put(c, &code, 1, from);
    return code;
}

/* A product with one number for all lanes, if one of the last two operands is that. */
static void find_one(fg_lane_code *code, int one_y, int one_w)
{
    const int y = code->kind == FG_LANE_MUL ? 1 : 2, w = y + 1;
    if (!one_y && !one_w)
        return;
    if (code->kind == FG_LANE_MUL)
        code->kind = FG_LANE_MUL_ONE;
    else if (code->kind == FG_LANE_ADD_MUL)
        code->kind = FG_LANE_ADD_MUL_ONE;
    else if (code->kind == FG_LANE_SUB_MUL)
        code->kind = FG_LANE_SUB_MUL_ONE;
    else
        return;
    if (code->kind == FG_LANE_MUL_ONE ? one_w : one_y)
        return;
    const uint8_t base = code->base[y];
    const int32_t at = code->at[y];
    code->base[y] = code->base[w];
    code->at[y] = code->at[w];
    code->base[w] = base;
    code->at[w] = at;
}

static int is_one(const fg_code *c, uint32_t i)
{
    return c->values[i].one;
}

static fg_lane_code computed(const fg_code *c, const fg_code_value *v)
{
    fg_lane_code code = {.kind = v->kind, .row = v->row, .k = v->k};
    put(c, &code, 0, v->data);
    for (uint32_t k = 0; k < v->count; k++)
        put(c, &code, 1 + (int)k, c->values[v->x[k]].data);
    if (v->count > 1)
        find_one(&code, is_one(c, v->x[v->count - 2]), is_one(c, v->x[v->count - 1]));
    if (v->kind == FG_LANE_SIN || v->kind == FG_LANE_COS)
        put(c, &code, 2, v->slope);
    return code;
}

static int is_own(const fg_code *c, fg_id k)
{
    const fg_place place = c->values[result(c, k)].data;
    return place.base == c->next[k].base && place.slot == c->next[k].slot;
}

static void write_forward(fg_code *c)
{
    c->n_before = c->n_forward = 0;
    for (uint32_t i = 0; i < c->n_values; i++) {
        const fg_code_value *const v = c->values + i;
        if (is_computed(v))
            *(v->moving ? &c->forward[c->n_forward++] : &c->before[c->n_before++]) = computed(c, v);
    }
    for (fg_id k = 0; k < c->scan->n_carry; k++)
        if (!is_own(c, k))
            c->forward[c->n_forward++] = copy(c, c->next[k], c->values[result(c, k)].data);
}

/* ---- reverse code ---- */

/* While it is written. A slot belongs to one value, or to none. */
typedef struct writer {
    fg_code *c;
    fg_lane_code *code;
    size_t count;
    uint32_t next;    /* the next temporary slot that nobody has had */
    uint8_t *touched;
} writer;

static void give_slot(writer *w, uint32_t slot)
{
    fg_code *const c = w->c;
    if (slot >= c->temporary)
        c->spare[c->n_spare++] = slot;
    else if (slot >= c->dnext && slot < c->dout)
        c->dnext_taken[slot - c->dnext] = 0;
}

static uint32_t temporary_slot(writer *w)
{
    fg_code *const c = w->c;
    return c->n_spare > 0 ? c->spare[--c->n_spare] : w->next++;
}

/* A slot for the gradient of value i: of the carry, if it is free, that where it has to be in the end. */
static uint32_t take_slot(writer *w, uint32_t i)
{
    fg_code *const c = w->c;
    if (i < c->scan->n_carry && !c->dnext_taken[i]) { /* the first values are the carry */
        c->dnext_taken[i] = 1;
        return c->dnext + i;
    }
    return temporary_slot(w);
}

/* More gradient for value i: the numbers at x, or their products with those at y, or negative ones. one_y: that is one
 * number for all lanes. */
static void add_products(writer *w, uint32_t i, int negative, fg_place x, const fg_place *y, int one_y)
{
    fg_code *const c = w->c;
    fg_code_value *const v = c->values + i;
    if (!v->wanted)
        return;
    const int first = v->moving && v->grad == FG_NOWHERE;
    fg_lane_code code = {0};
    if (first)
        v->grad = take_slot(w, i);
    if (!v->moving)
        w->touched[i] = 1;
    put(c, &code, 0, fixed(v->grad));
    if (first) {
        code.kind = y ? (negative ? FG_LANE_NEG_MUL : FG_LANE_MUL) : negative ? FG_LANE_NEG : FG_LANE_COPY;
        put(c, &code, 1, x);
        if (y)
            put(c, &code, 2, *y);
    } else {
        code.kind = y ? (negative ? FG_LANE_SUB_MUL : FG_LANE_ADD_MUL) : negative ? FG_LANE_SUB : FG_LANE_ADD;
        put(c, &code, 1, fixed(v->grad));
        put(c, &code, 2, x);
        if (y)
            put(c, &code, 3, *y);
    }
    if (one_y)
        find_one(&code, 0, 1);
    w->code[w->count++] = code;
}

static void add_gradient(writer *w, uint32_t i, int negative, fg_place x, const fg_place *y)
{
    add_products(w, i, negative, x, y, 0);
}

/* More gradient for both factors of a product, with the gradient dz. */
static void add_pair(writer *w, uint32_t i, uint32_t j, int negative, fg_place dz)
{
    fg_code *const c = w->c;
    fg_code_value *const x = c->values + i, *const y = c->values + j;
    if (i == j || !x->wanted || !y->wanted) {
        add_products(w, i, negative, dz, &y->data, y->one);
        add_products(w, j, negative, dz, &x->data, x->one);
        return;
    }
    fg_lane_code code = {.kind = FG_LANE_PAIR, .k = negative ? FG_LANE_NEGATIVE : 0};
    for (int second = 0; second < 2; second++) {
        fg_code_value *const v = second ? y : x;
        if (!v->moving || v->grad != FG_NOWHERE)
            code.k |= second ? FG_LANE_ADDS_SECOND : FG_LANE_ADDS_FIRST;
        else
            v->grad = take_slot(w, second ? j : i);
        if (!v->moving)
            w->touched[second ? j : i] = 1;
    }
    put(c, &code, 0, fixed(x->grad));
    put(c, &code, 1, dz);
    put(c, &code, 2, x->data);
    put(c, &code, 3, y->data);
    put(c, &code, 4, fixed(y->grad));
    w->code[w->count++] = code;
}

/* The gradient in that slot is all of value i's, if it has none yet, and else more of it. Returns whether the slot is
 * its own now. */
static int hand_over(writer *w, uint32_t i, uint32_t slot)
{
    fg_code_value *const v = w->c->values + i;
    if (v->wanted && v->moving && v->grad == FG_NOWHERE) {
        v->grad = slot;
        return 1;
    }
    if (v->wanted && v->moving && slot == w->c->dnext + i) { /* where it has to be in the end */
        const uint32_t other = v->grad;
        add_gradient(w, i, 0, fixed(slot), NULL);
        put(w->c, w->code + w->count - 1, 0, fixed(slot));
        v->grad = slot;
        give_slot(w, other);
        return 1;
    }
    add_gradient(w, i, 0, fixed(slot), NULL);
    return 0;
}

/* By the row's own rule. */
static void apply_rule(writer *w, const fg_code_value *v, fg_place dz)
{
    fg_code *const c = w->c;
    for (uint32_t k = 0; k < v->count; k++) {
        fg_code_value *const x = c->values + v->x[k];
        if (!x->wanted)
            continue;
        fg_lane_code code = {.kind = FG_LANE_CLEAR};
        if (x->moving && x->grad == FG_NOWHERE) {
            x->grad = take_slot(w, v->x[k]);
            put(c, &code, 0, fixed(x->grad));
            w->code[w->count++] = code;
        }
        if (!x->moving)
            w->touched[v->x[k]] = 1;
        code = (fg_lane_code){.kind = FG_LANE_RULE, .row = v->row, .which = (uint8_t)k, .k = v->k};
        put(c, &code, 0, fixed(x->grad));
        for (uint32_t j = 0; j < v->count; j++)
            put(c, &code, 1 + (int)j, c->values[v->x[j]].data);
        put(c, &code, 4, v->data);
        put(c, &code, 5, dz);
        w->code[w->count++] = code;
    }
}

/* From value i, which has a gradient, to its operands. A slot that is handed over is read no more. */
static void reverse_value(writer *w, uint32_t i)
{
    fg_code *const c = w->c;
    fg_code_value *const v = c->values + i;
    const fg_place dz = fixed(v->grad);
    const uint32_t *const x = v->x;
    int handed = 0;
    switch (v->kind) {
    case FG_LANE_COPY:
        handed = hand_over(w, x[0], v->grad);
        break;
    case FG_LANE_NEG:
        add_gradient(w, x[0], 1, dz, NULL);
        break;
    case FG_LANE_ADD:
    case FG_LANE_SUB:
        if (x[0] != x[1]) {
            add_gradient(w, x[1], v->kind == FG_LANE_SUB, dz, NULL);
            handed = hand_over(w, x[0], v->grad);
        } else {
            add_gradient(w, x[0], 0, dz, NULL);
            add_gradient(w, x[0], v->kind == FG_LANE_SUB, dz, NULL);
        }
        break;
    case FG_LANE_MUL:
        add_pair(w, x[0], x[1], 0, dz);
        break;
    case FG_LANE_ADD_MUL:
    case FG_LANE_SUB_MUL:
        add_pair(w, x[1], x[2], v->kind == FG_LANE_SUB_MUL, dz);
        handed = hand_over(w, x[0], v->grad);
        break;
    case FG_LANE_MUL_SUB:
        add_pair(w, x[1], x[2], 0, dz);
        add_gradient(w, x[0], 1, dz, NULL);
        break;
    case FG_LANE_SIN:
    case FG_LANE_COS:
        add_gradient(w, x[0], 0, dz, &v->slope);
        break;
    default:
        apply_rule(w, v, dz);
    }
    if (v->moving) {
        if (!handed)
            give_slot(w, v->grad);
        v->grad = FG_NOWHERE;
    }
}

/* The gradients of the carry, to where the next step back finds them. */
static void settle_carry(writer *w, fg_code_back *back)
{
    fg_code *const c = w->c;
    const fg_id n_carry = c->scan->n_carry;
    for (uint32_t k = 0; k < c->scan->n_x; k++) { /* of x, where they are in nobody's way */
        const uint32_t slot = c->values[n_carry + k].grad;
        const int in_way = slot >= c->dnext && slot < c->dout;
        back->x[k] = in_way ? w->next++ : slot;
        if (in_way)
            w->code[w->count++] = copy(c, fixed(back->x[k]), fixed(slot));
    }
    for (int last = 0; last < 2; last++)
        for (uint32_t k = 0; k < n_carry; k++) {
            fg_code_value *const v = c->values + k;
            const int in_way = v->grad >= c->dnext && v->grad < c->dout && v->grad != c->dnext + k;
            if (v->grad == FG_NOWHERE || v->grad == c->dnext + k || (!last && !in_way))
                continue;
            const uint32_t to = last ? c->dnext + k : w->next++;
            w->code[w->count++] = copy(c, fixed(to), fixed(v->grad));
            v->grad = to;
        }
    for (uint32_t k = 0; k < n_carry; k++) {
        back->flows[k] = c->values[k].grad != FG_NOWHERE;
        c->values[k].grad = FG_NOWHERE;
    }
    for (uint32_t k = 0; k < c->scan->n_x; k++)
        c->values[n_carry + k].grad = FG_NOWHERE;
}

static void write_back(fg_code *c, fg_code_back *back)
{
    const fg_id n_carry = c->scan->n_carry;
    writer w = {c, back->code, 0, c->temporary, back->touched};
    c->n_spare = 0;
    memset(back->touched, 0, c->n_values);
    for (fg_id k = 0; k < n_carry; k++)
        c->dnext_taken[k] = back->wanted[k];
    for (fg_id k = 0; k < n_results(c); k++)
        if (back->wanted[k]) {
            const uint32_t slot = k < n_carry ? c->dnext + k : c->dout + (k - n_carry);
            if (!hand_over(&w, result(c, k), slot))
                give_slot(&w, slot);
        }
    for (uint32_t i = c->n_values; i-- > 0;)
        if (is_computed(c->values + i) && c->values[i].moving && c->values[i].grad != FG_NOWHERE)
            reverse_value(&w, i);
    settle_carry(&w, back);
    back->count = w.count;
    back->made = 1;
    assert(w.count <= c->most_back && w.next <= c->fixed);
}

fg_code_back *fg_code_find_back(fg_code *c, const uint8_t *wanted)
{
    for (uint32_t k = 0; k < FG_CODE_BACKS; k++)
        if (c->back[k].made && memcmp(c->back[k].wanted, wanted, n_results(c)) == 0)
            return c->back + k;
    fg_code_back *const back = c->back + c->turn;
    c->turn = (c->turn + 1) % FG_CODE_BACKS;
    memcpy(back->wanted, wanted, n_results(c));
    write_back(c, back);
    return back;
}

size_t fg_code_find_after(fg_code *c, uint8_t *touched)
{
    writer w = {c, c->after, 0, c->temporary, touched};
    for (uint32_t i = c->n_values; i-- > 0;)
        if (is_computed(c->values + i) && !c->values[i].moving && touched[i])
            reverse_value(&w, i);
    return w.count;
}

/* ---- operands ---- */

fg_place fg_code_result(const fg_code *c, fg_id k)
{
    return c->values[result(c, k)].data;
}

fg_place fg_code_operand(const fg_code *c, fg_id node)
{
    return c->values[c->of_node[node]].data;
}

uint32_t fg_code_sum(const fg_code *c, fg_id node)
{
    return c->values[c->of_node[node]].grad;
}

int fg_code_is_touched(const fg_code *c, const uint8_t *touched, fg_id node)
{
    return touched[c->of_node[node]];
}

void fg_code_put_numbers(const fg_code *c, double *fixed_slots)
{
    for (uint32_t i = 0; i < c->n_values; i++)
        for (size_t lane = 0; lane < c->lanes && c->values[i].kind == NUMBER; lane++)
            fixed_slots[c->values[i].data.slot * c->lanes + lane] = c->values[i].number;
}

/* ---- making one ---- */

int fg_code_make(fg_code **made, const fg_scan *scan, fg_mem *mem, const uint8_t *wanted, const uint8_t *varies)
{
    void *place = NULL;
    *made = NULL;
    if (fg_mem_resize(mem, &place, 0, 1, sizeof **made) < 0)
        return FG_E_MEMORY;
    fg_code *const c = *made = place;
    *c = (fg_code){.mem = mem, .scan = scan};
    if (allocate(c, &c->of_node, scan->step->body.n, sizeof *c->of_node) < 0)
        return FG_E_MEMORY;
    c->n_nodes = scan->step->body.n;
    const int status = add_values(c);
    if (status != FG_OK)
        return status == FG_E_FULL ? FG_CODE_NONE : status;
    if (allocate(c, &c->carry, scan->n_carry + 1u, sizeof *c->carry) < 0
        || allocate(c, &c->next, scan->n_carry + 1u, sizeof *c->next) < 0
        || allocate(c, &c->spare, 2u * c->n_values + 1, sizeof *c->spare) < 0)
        return FG_E_MEMORY;
    count_uses(c);
    join_products(c);
    want_operands(c, wanted, varies);
    spread_wanted(c);
    keep_operands(c);
    find_last_uses(c);
    place_carry(c);
    place_values(c);
    place_gradients(c);
    return FG_OK;
}

static uint32_t count_computed(const fg_code *c, int moving)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->n_values; i++)
        count += is_computed(c->values + i) && c->values[i].moving == moving;
    return count;
}

int fg_code_set_lanes(fg_code *c, size_t lanes)
{
    const fg_id n_carry = c->scan->n_carry;
    const uint32_t n_before = count_computed(c, 0), n_moving = count_computed(c, 1);
    c->lanes = lanes;
    if (allocate(c, &c->before, n_before + 1u, sizeof *c->before) < 0)
        return FG_E_MEMORY;
    c->n_before = n_before;
    if (allocate(c, &c->forward, n_moving + n_carry + 1u, sizeof *c->forward) < 0)
        return FG_E_MEMORY;
    c->n_forward = n_moving + n_carry;
    if (allocate(c, &c->after, 6u * n_before + 1, sizeof *c->after) < 0
        || allocate(c, &c->dnext_taken, n_carry + 1u, 1) < 0)
        return FG_E_MEMORY;
    c->most_back = 6u * n_moving + n_results(c) + 2u * n_carry + c->scan->n_x + 1u;
    for (uint32_t k = 0; k < FG_CODE_BACKS; k++) {
        fg_code_back *const back = c->back + k;
        if (allocate(c, &back->wanted, n_results(c) + 1u, 1) < 0 || allocate(c, &back->flows, n_carry + 1u, 1) < 0
            || allocate(c, &back->touched, c->n_values + 1u, 1) < 0
            || allocate(c, &back->x, c->scan->n_x + 1u, sizeof *back->x) < 0
            || allocate(c, &back->code, c->most_back, sizeof *back->code) < 0)
            return FG_E_MEMORY;
    }
    write_forward(c);
    return FG_OK;
}

static void release(fg_code *c, void *array, size_t count, size_t size)
{
    void **const where = array;
    if (*where)
        (void)fg_mem_resize(c->mem, where, count, 0, size);
}

void fg_code_free(fg_code *c)
{
    const fg_id n_carry = c->scan->n_carry;
    const uint32_t n_before = count_computed(c, 0), n_moving = count_computed(c, 1);
    for (uint32_t k = 0; k < FG_CODE_BACKS; k++) {
        fg_code_back *const back = c->back + k;
        release(c, &back->wanted, n_results(c) + 1u, 1);
        release(c, &back->flows, n_carry + 1u, 1);
        release(c, &back->touched, c->n_values + 1u, 1);
        release(c, &back->x, c->scan->n_x + 1u, sizeof *back->x);
        release(c, &back->code, c->most_back, sizeof *back->code);
    }
    release(c, &c->before, n_before + 1u, sizeof *c->before);
    release(c, &c->forward, n_moving + n_carry + 1u, sizeof *c->forward);
    release(c, &c->after, 6u * n_before + 1, sizeof *c->after);
    release(c, &c->dnext_taken, n_carry + 1u, 1);
    release(c, &c->carry, n_carry + 1u, sizeof *c->carry);
    release(c, &c->next, n_carry + 1u, sizeof *c->next);
    release(c, &c->spare, 2u * c->n_values + 1, sizeof *c->spare);
    release(c, &c->of_node, c->n_nodes, sizeof *c->of_node);
    release(c, &c->values, c->room, sizeof *c->values);
    fg_mem *const mem = c->mem;
    void *place = c;
    (void)fg_mem_resize(mem, &place, 1, 0, sizeof *c);
}
