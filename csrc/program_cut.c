/* program_cut.c: see program.h, of which this has how a program is made. As in a collection, what is needed is marked
 * from the top, and then copied with new ids; but what is below the floor, or an input, is an operand. The order here:
 * sets of slots, what depends on an operand, what is needed, numbers, the copy, simplification, what is used
 * in place, programs that have been saved. */
#include "program.h"

#include <string.h>

typedef struct cut {
    fg_tape *t;
    fg_program *p;
    fg_mem *mem;
    fg_id floor, top;       /* slots from the floor to before the top may be copied */
    fg_id low, high;        /* inputs are among the slots from low to before high */
    fg_id *place;           /* [high - low] the body's node for an input; 0: it is none */
    uint64_t *depends;      /* [words] slots whose number depends on an operand */
    uint64_t *need;         /* [words] slots that are to be computed, or are operands */
    uint64_t *kept;         /* [words] those, without the inputs, and with holes */
    fg_id *rank;            /* [words] kept slots in the words before */
    size_t words;
    fg_id below;            /* kept slots below the floor */
    fg_id inputs;           /* numbers */
    fg_id first;            /* the body's first node that is no operand */
    uint64_t pool;          /* entries that the copy needs */
    fg_id at;               /* see fg_program_cut() */
} cut;

/* ---- sets of slots ---- */

static fg_id input_place(const cut *c, fg_id i)
{
    return i >= c->low && i < c->high ? c->place[i - c->low] : 0;
}

/* Where a slot goes. Precondition: it is kept, or an input. */
static fg_id mapped(const cut *c, fg_id i)
{
    const fg_id place = input_place(c, i);
    if (place)
        return place;
    const uint64_t before = ((uint64_t)1 << (i & 63u)) - 1u;
    const fg_id rank = c->rank[i >> 6] + fg_bits_count(c->kept[i >> 6] & before);
    return i < c->floor ? c->inputs + 1 + rank : c->first + (rank - c->below);
}

/* Whether the slots from first to last keep their distances: they are inputs in a row; or none of them is one, and they
 * are all below the floor, or all not. */
static int moves_as_one(const cut *c, fg_id first, fg_id last)
{
    const fg_id place = input_place(c, first);
    const fg_id from = first > c->low ? first : c->low, to = last < c->high ? last : c->high - 1;
    if (!place && (first < c->floor) != (last < c->floor))
        return 0;
    if (place && last >= c->high)
        return 0;
    for (fg_id i = from; i <= to && c->high > 0; i++)
        if (c->place[i - c->low] != (place ? place + (i - first) : 0))
            return 0;
    return 1;
}

/* The slots of a view, if it is no list and they keep their distances. */
static int view_moves(const cut *c, const fg_view *view, fg_id *lowest, fg_id *highest)
{
    if (view->flags & FG_VIEW_LIST || view->rows == 0 || view->cols == 0)
        return 0;
    fg_view_extent(view, lowest, highest);
    return moves_as_one(c, *lowest, *highest);
}

/* ---- what depends on an operand ---- */

static int slot_depends(const cut *c, fg_id i)
{
    return i < c->floor || fg_bits_has(c->depends, i);
}

static int view_depends(const cut *c, const fg_record *r, const fg_view *view)
{
    for (fg_id row = 0; row < view->rows; row++)
        for (fg_id col = 0; col < view->cols; col++)
            if (slot_depends(c, fg_record_slot(r, view, row, col)))
                return 1;
    return 0;
}

static int block_depends(const cut *c, fg_id block)
{
    fg_record *const r = fg_tape_record(c->t, block);
    for (fg_id v = 0; v < r->views; v++)
        if (view_depends(c, r, fg_record_view(r, v)))
            return 1;
    return 0;
}

static void find_dependent(cut *c)
{
    const fg_tape *const t = c->t;
    for (fg_id i = c->floor; i < c->top;) {
        const int op = fg_tape_op(t, i);
        if (op == FG_PART || fg_op_is_block(op)) { /* all of its results and itself */
            const fg_id block = op == FG_PART ? i + t->args[i].a : i;
            const int depends = block_depends(c, block);
            for (; i <= block; i++)
                if (depends)
                    fg_bits_put(c->depends, i);
            continue;
        }
        if (input_place(c, i)) {
            fg_bits_put(c->depends, i);
        } else if (fg_op_is_scalar(op)) {
            fg_id count;
            const fg_id *const ids = fg_tape_operands(t, i, &count);
            for (fg_id k = 0; k < count; k++)
                if (slot_depends(c, ids[k])) {
                    fg_bits_put(c->depends, i);
                    break;
                }
        }
        i++;
    }
}

/* ---- what is needed ---- */

/* Whether node i, not below the floor, is computed anew at each run. */
static int is_computed(const cut *c, fg_id i)
{
    assert(i >= c->floor);
    return fg_bits_has(c->need, i) && fg_bits_has(c->depends, i) && !input_place(c, i);
}

static void need_record(cut *c, fg_id block)
{
    fg_record *const r = fg_tape_record(c->t, block);
    c->pool += r->size;
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        fg_id lowest, highest;
        for (fg_id row = 0; row < view->rows; row++)
            for (fg_id col = 0; col < view->cols; col++)
                fg_bits_put(c->need, fg_record_slot(r, view, row, col));
        if (view_moves(c, view, &lowest, &highest)) {
            if (!input_place(c, lowest))
                for (fg_id i = lowest; i <= highest; i++)
                    fg_bits_put(c->kept, i);
        } else if (!(view->flags & FG_VIEW_LIST)) { /* it becomes one */
            c->pool += (uint64_t)view->rows * view->cols;
        }
    }
}

/* FG_OK, or FG_PROGRAM_RULE. From the top: users first. */
static int find_needed(cut *c)
{
    const fg_tape *const t = c->t;
    for (fg_id i = c->top; i-- > c->floor;) {
        if (!is_computed(c, i))
            continue;
        const int op = fg_tape_op(t, i);
        const fg_id block = op == FG_PART ? i + t->args[i].a : i;
        if (t->op[block] & FG_HOOK || op == FG_CUSTOM || op == FG_LOCAL) {
            c->at = i;
            return FG_PROGRAM_RULE;
        }
        if (fg_op_is_scalar(op)) {
            fg_id count;
            const fg_id *const ids = fg_tape_operands(t, i, &count);
            for (fg_id k = 0; k < count; k++)
                fg_bits_put(c->need, ids[k]);
            c->pool += fg_op_is_pooled(op) ? fg_op_pool_size(op, count) : 0;
        } else if (op != FG_PART || !fg_bits_has(c->need, block)) { /* with one of its results the others */
            for (fg_id k = block - t->args[block].b; k <= block; k++)
                fg_bits_put(c->need, k);
            need_record(c, block);
        }
    }
    for (size_t w = 0; w < c->words; w++)
        c->kept[w] |= c->need[w];
    for (fg_id i = c->low; i < c->high; i++)
        if (c->place[i - c->low])
            c->kept[i >> 6] &= ~((uint64_t)1 << (i & 63u));
    return FG_OK;
}

/* ---- numbers ---- */

/* What is captured, in stretches: how many, and, where not NULL, where each begins on t and in the body. */
static fg_id list_captured(const cut *c, fg_id *captured, fg_stretch *segments)
{
    fg_id count = 0, last = 0; /* the slot before, if it is captured */
    for (fg_id w = 0; w < c->words && w << 6 < c->floor; w++) {
        for (uint64_t bits = c->need[w]; bits; bits &= bits - 1u) {
            const fg_id i = (w << 6) + fg_bits_low(bits);
            if (i >= c->floor || input_place(c, i))
                continue;
            if (last == 0 || i != last + 1) {
                if (captured) {
                    captured[count] = i;
                    segments[count] = (fg_stretch){mapped(c, i), 0};
                }
                count++;
            }
            if (captured)
                segments[count - 1].count++;
            last = i;
        }
    }
    return count;
}

/* ---- the copy ---- */

static int copy_block(const cut *c, fg_id block, fg_id *node)
{
    const fg_tape *const t = c->t;
    fg_tape *const body = &c->p->body;
    fg_record *const r = fg_tape_record(t, block);
    const fg_id parts = t->args[block].b;
    const int op = fg_tape_op(t, block);
    int64_t place = 0;
    if (op == FG_CALL) {
        place = fg_tape_hold_program(body, fg_tape_callee(t, r));
        if (place < 0)
            return (int)place;
    }
    fg_record *const copy = fg_block_begin(body, op == FG_CALL ? (fg_id)place : r->param, r->views, r->extra);
    copy->k = r->k;
    memcpy(fg_record_extra(copy), fg_record_extra(r), r->extra * sizeof(fg_id));
    for (fg_id v = 0; v < r->views; v++) {
        fg_view view = *fg_record_view(r, v);
        fg_id lowest, highest;
        if (!view_depends(c, r, &view))
            view.flags |= FG_VIEW_CONSTANT; /* nobody asks for the gradients of constants */
        if (view.rows == 0 || view.cols == 0 || view_moves(c, &view, &lowest, &highest)) {
            if (view.rows > 0 && view.cols > 0)
                view.base = mapped(c, view.base);
            fg_block_view(copy, v, view);
            continue;
        }
        fg_id *ids = fg_block_ids(copy);
        for (fg_id row = 0; row < view.rows; row++)
            for (fg_id col = 0; col < view.cols; col++)
                *ids++ = mapped(c, fg_record_slot(r, &view, row, col));
        fg_block_list(copy, v, view.rows, view.cols);
        fg_record_view(copy, v)->flags |= view.flags & FG_VIEW_CONSTANT;
    }
    const int status = fg_block_push(body, op, r->rows, r->cols, parts > 0, t->data + (block - parts), node);
    if (op == FG_CALL)
        fg_tape_release_program(body, (fg_id)place); /* the node holds it */
    return status;
}

static int copy_nodes(cut *c)
{
    const fg_tape *const t = c->t;
    fg_tape *const body = &c->p->body;
    const fg_id area = c->p->area;
    if (area > 0) {
        fg_tape_push_leaves(body, area);
        memset(body->data + 1, 0, area * sizeof *body->data);
        fg_tape_push_run(body, area);
    }
    for (fg_id i = c->floor; i < c->top; i++) {
        if (!fg_bits_has(c->kept, i))
            continue;
        fg_id node;
        assert(body->n == mapped(c, i));
        const int op = fg_tape_op(t, i);
        if (!is_computed(c, i)) {
            fg_tape_push_leaf(body, fg_bits_has(c->need, i) ? t->data[i] : 0.0);
        } else if (op == FG_PART || fg_op_is_block(op)) {
            i = op == FG_PART ? i + t->args[i].a : i;
            const int status = copy_block(c, i, &node);
            if (status < 0)
                return status;
        } else {
            fg_id count, moved[3];
            const fg_id *const ids = fg_tape_operands(t, i, &count);
            for (fg_id k = 0; k < count; k++)
                moved[k] = mapped(c, ids[k]);
            if (fg_op_is_pooled(op))
                fg_tape_push_pooled(body, op, moved, count, NULL, t->data[i]);
            else
                fg_tape_push(body, op, moved[0], count > 1 ? moved[1] : t->args[i].b, t->data[i]);
        }
    }
    return FG_OK;
}

static int allocate(fg_mem *mem, void *array, size_t count, size_t size)
{
    void **const where = array;
    const int status = fg_mem_resize(mem, where, 0, count, size);
    if (status == FG_OK && count > 0)
        memset(*where, 0, count * size);
    return status;
}

static void release(fg_mem *mem, void *array, size_t count, size_t size)
{
    void **const where = array;
    if (*where)
        (void)fg_mem_resize(mem, where, count, 0, size);
}

/* Scratch for fg_sweep_reach() over a body, and the sweep that it always has. */
static int allocate_sweep(fg_tape *body, fg_id **words, uint64_t **masks)
{
    const size_t all = FG_MARKS_WORDS(body->n);
    if (allocate(&body->mem, words, all, sizeof **words) < 0 || allocate(&body->mem, masks, all, sizeof **masks) < 0)
        return FG_E_MEMORY;
    fg_sweep *const s = fg_tape_sweep_begin(body, body->n);
    if (!s)
        return FG_E_MEMORY;
    fg_tape_sweep_end(body, s);
    return FG_OK;
}

/* The program's own arrays, once area, n_segments and n_results are known. */
static int allocate_program(fg_program *p)
{
    fg_mem *const mem = &p->body.mem;
    const size_t words = FG_MARKS_WORDS((size_t)p->area + 1);
    if (allocate(mem, &p->used, words, sizeof *p->used) < 0 || allocate(mem, &p->reached, words, sizeof *p->reached) < 0
        || allocate(mem, &p->outputs, p->callee.n_results, sizeof *p->outputs) < 0
        || allocate(mem, &p->seeds, p->callee.n_results, sizeof *p->seeds) < 0)
        return FG_E_MEMORY;
    return allocate_sweep(&p->body, &p->words, &p->masks);
}

/* Which slots the inputs are, and their places. */
static int enter_inputs(cut *c, const fg_stretch *inputs, fg_id n_inputs)
{
    c->low = n_inputs > 0 ? FG_MAX_ID : 0;
    for (fg_id k = 0; k < n_inputs; k++) {
        c->low = inputs[k].first < c->low ? inputs[k].first : c->low;
        c->high = inputs[k].first + inputs[k].count > c->high ? inputs[k].first + inputs[k].count : c->high;
    }
    if (c->high > c->low && allocate(c->mem, &c->place, c->high - c->low, sizeof *c->place) < 0)
        return FG_E_MEMORY;
    for (fg_id k = 0; k < n_inputs; k++)
        for (fg_id j = 0; j < inputs[k].count; j++)
            c->place[inputs[k].first + j - c->low] = ++c->inputs;
    return FG_OK;
}

/* What is kept in all; and below the floor, c->below. */
static fg_id count_kept(cut *c)
{
    fg_id n = 0;
    for (fg_id w = 0; w < c->words; w++) {
        const uint64_t end = (uint64_t)(w + 1) << 6;
        uint64_t below = c->kept[w];
        c->rank[w] = n;
        n += fg_bits_count(c->kept[w]);
        if (end > c->floor)
            below &= w == c->floor >> 6 ? ((uint64_t)1 << (c->floor & 63u)) - 1u : 0;
        c->below += fg_bits_count(below);
    }
    return n;
}

/* What is to be copied, and where to. */
static int prepare(cut *c, const fg_stretch *inputs, fg_id n_inputs, const fg_id *outputs, fg_id n_outputs)
{
    if (enter_inputs(c, inputs, n_inputs) < 0 || allocate(c->mem, &c->depends, c->words, sizeof *c->depends) < 0
        || allocate(c->mem, &c->need, c->words, sizeof *c->need) < 0
        || allocate(c->mem, &c->kept, c->words, sizeof *c->kept) < 0
        || allocate(c->mem, &c->rank, c->words, sizeof *c->rank) < 0)
        return FG_E_MEMORY;
    find_dependent(c);
    for (fg_id k = 0; k < n_outputs; k++)
        fg_bits_put(c->need, outputs[k]);
    return find_needed(c);
}

/* Fill in the program, whose body is all 0 but for what its `mem` has counted. */
static int make(cut *c, const fg_stretch *inputs, fg_id n_inputs, const fg_id *outputs, fg_id n_outputs,
                fg_id **captured)
{
    fg_program *const p = c->p;
    const fg_mem mem = p->body.mem;
    const fg_id kept = count_kept(c);
    p->area = c->inputs + c->below;
    c->first = p->area + (p->area > 0) + 1;
    const uint64_t nodes = (uint64_t)c->first - 1 + (kept - c->below);
    if (nodes >= c->t->limit || c->pool > c->t->limit)
        return FG_E_FULL;
    if (fg_tape_init_closed(&p->body, c->t->kernels, &mem, (fg_id)nodes, (fg_id)c->pool) < 0)
        return FG_E_MEMORY;
    p->body.stop = c->t->stop;
    const fg_id n_segments = n_inputs + list_captured(c, NULL, NULL);
    if (allocate(&p->body.mem, &p->callee.segments, n_segments, sizeof *p->callee.segments) < 0)
        return FG_E_MEMORY;
    p->callee.n_segments = n_segments;
    if (allocate(&p->body.mem, captured, n_segments, sizeof **captured) < 0
        || allocate(&p->body.mem, &p->results, n_outputs, sizeof *p->results) < 0)
        return FG_E_MEMORY;
    p->callee.n_results = n_outputs;
    for (fg_id k = 0, next = 1; k < n_inputs; next += inputs[k++].count)
        p->callee.segments[k] = (fg_stretch){next, inputs[k].count};
    list_captured(c, *captured + n_inputs, p->callee.segments + n_inputs);
    for (fg_id k = 0; k < n_outputs; k++)
        p->results[k] = mapped(c, outputs[k]);
    const int status = copy_nodes(c);
    if (status < 0)
        return status;
    assert(p->body.n == nodes + 1 && p->body.npool <= c->pool);
    return allocate_program(p);
}

int fg_program_cut(fg_tape *t, fg_id floor, const fg_stretch *inputs, fg_id n_inputs, const fg_id *outputs,
                   fg_id n_outputs, fg_program **made, fg_id **captured, fg_id *at)
{
    fg_mem mem;
    void *place = NULL;
    fg_mem_init(&mem);
    mem.fail_after = t->mem.fail_after;
    *captured = NULL;
    cut c = {.t = t, .mem = &mem, .floor = floor, .top = floor, .words = FG_MARKS_WORDS(t->n)};
    for (fg_id k = 0; k < n_outputs; k++)
        c.top = outputs[k] >= c.top ? outputs[k] + 1 : c.top;
    for (fg_id i = c.floor; i < c.top; i++) /* an instruction is above its results */
        if (fg_tape_op(t, i) == FG_PART && i + t->args[i].a >= c.top)
            c.top = i + t->args[i].a + 1;
    int status = prepare(&c, inputs, n_inputs, outputs, n_outputs);
    if (status == FG_OK)
        status = fg_mem_resize(&mem, &place, 0, 1, sizeof *c.p);
    if (status == FG_OK) {
        c.p = place;
        *c.p = (fg_program){.callee = {.steps = &fg_program_steps}};
        fg_mem_init(&c.p->body.mem);
        c.p->body.mem.bytes = sizeof *c.p;
        c.p->body.mem.fail_after = mem.fail_after;
        status = make(&c, inputs, n_inputs, outputs, n_outputs, captured);
        mem.fail_after = c.p->body.mem.fail_after;
        c.p->body.mem.fail_after = -1;
        if (status < 0) {
            fg_program_forget(c.p, *captured);
            fg_program_free(c.p);
            *captured = NULL;
        } else {
            fg_program_find_used(c.p);
            *made = c.p;
        }
    }
    *at = c.at;
    t->mem.fail_after = mem.fail_after;
    release(&mem, &c.place, c.high - c.low, sizeof *c.place);
    release(&mem, &c.depends, c.words, sizeof *c.depends);
    release(&mem, &c.need, c.words, sizeof *c.need);
    release(&mem, &c.kept, c.words, sizeof *c.kept);
    release(&mem, &c.rank, c.words, sizeof *c.rank);
    return status;
}

/* ---- the same in fewer instructions ---- */

int fg_program_simplify(fg_tape *t, fg_program *p, int steps, fg_simplified *report)
{
    fg_mem mem;
    fg_tape body = {0};
    fg_id *results = NULL, *words = NULL;
    uint64_t *masks = NULL;
    const fg_id count = p->callee.n_results;
    const size_t all = FG_MARKS_WORDS(p->body.n);
    fg_mem_init(&mem);
    mem.fail_after = t->mem.fail_after;
    int status = allocate(&mem, &results, count, sizeof *results);
    if (status == FG_OK)
        status = fg_simplify(&p->body, p->area, p->results, count, steps, &mem, &body, results, report);
    if (status == FG_OK) {
        body.mem.fail_after = mem.fail_after;
        status = allocate_sweep(&body, &words, &masks);
        mem.fail_after = body.mem.fail_after;
        body.mem.fail_after = -1;
        if (status < 0) {
            release(&body.mem, &words, FG_MARKS_WORDS(body.n), sizeof *words);
            release(&body.mem, &masks, FG_MARKS_WORDS(body.n), sizeof *masks);
            fg_tape_free(&body);
        }
    }
    if (status == FG_OK) {
        memcpy(p->results, results, count * sizeof *results);
        body.stop = p->body.stop;
        release(&p->body.mem, &p->words, all, sizeof *p->words);
        release(&p->body.mem, &p->masks, all, sizeof *p->masks);
        fg_tape_free(&p->body);
        body.mem.bytes += p->body.mem.bytes; /* what the program has besides */
        p->body = body;
        p->body.owner[0] = &p->body.sentinel;
        p->words = words;
        p->masks = masks;
        p->steps = steps;
        p->ready = 0;
        fg_program_find_used(p);
    }
    t->mem.fail_after = mem.fail_after;
    release(&mem, &results, count, sizeof *results);
    return status;
}

void fg_program_forget(fg_program *p, fg_id *captured)
{
    release(&p->body.mem, &captured, p->callee.n_segments, sizeof *captured);
}

void fg_program_free(fg_program *p)
{
    const size_t words = FG_MARKS_WORDS((size_t)p->area + 1), all = FG_MARKS_WORDS(p->body.n);
    void *place = p;
    fg_mem *const mem = &p->body.mem;
    release(mem, &p->callee.segments, p->callee.n_segments, sizeof *p->callee.segments);
    release(mem, &p->results, p->callee.n_results, sizeof *p->results);
    release(mem, &p->used, words, sizeof *p->used);
    release(mem, &p->reached, words, sizeof *p->reached);
    release(mem, &p->outputs, p->callee.n_results, sizeof *p->outputs);
    release(mem, &p->seeds, p->callee.n_results, sizeof *p->seeds);
    fg_program_release_order(p, p->order, p->n_order);
    fg_program_release_outside(p);
    release(mem, &p->words, all, sizeof *p->words);
    release(mem, &p->masks, all, sizeof *p->masks);
    release(mem, &p->gives, p->callee.n_segments + 1, sizeof *p->gives);
    if (p->rule && --p->rule->callee.holders == 0)
        fg_program_free(p->rule);
    if (p->body.capacity > 0)
        fg_tape_free(&p->body);
    fg_mem last = p->body.mem;
    (void)fg_mem_resize(&last, &place, 1, 0, sizeof *p);
}

/* ---- what is used in place ---- */

/* The segment that has that operand, or the next one; they are in order. */
static fg_id segment_of(const fg_program *p, fg_id i)
{
    fg_id low = 0, high = p->callee.n_segments;
    while (low < high) {
        const fg_id middle = low + (high - low) / 2;
        if (p->callee.segments[middle].first + p->callee.segments[middle].count <= i)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Segments with any of these operands are copied. */
static void copy_segments(fg_program *p, fg_id lowest, fg_id highest)
{
    for (fg_id k = segment_of(p, lowest); k < p->n_outside && p->callee.segments[k].first <= highest; k++)
        p->outside[k].first = 0;
}

/* Whether all slots of a view that is not empty are in one segment, *segment, and it is no list. */
static int is_of_segment(const fg_program *p, const fg_view *view, fg_id *segment)
{
    fg_id lowest, highest;
    if (view->flags & FG_VIEW_LIST)
        return 0;
    fg_view_extent(view, &lowest, &highest);
    *segment = segment_of(p, lowest);
    if (*segment >= p->callee.n_segments)
        return 0;
    const fg_stretch s = p->callee.segments[*segment];
    return lowest >= s.first && highest < s.first + s.count;
}

/* What is read otherwise than by views of one segment each is copied. FG_CALL reads slots. */
static void copy_operands(fg_program *p, fg_id i)
{
    fg_operands o;
    fg_tape_views(&p->body, i, &o);
    for (fg_id v = 0; v < o.count; v++) {
        fg_id segment, lowest, highest;
        const fg_view *const view = o.view + v;
        if (view->rows == 0 || view->cols == 0)
            continue;
        if (fg_op_is_block(fg_tape_op(&p->body, i)) && fg_tape_op(&p->body, i) != FG_CALL
            && is_of_segment(p, view, &segment))
            continue;
        if (!(view->flags & FG_VIEW_LIST)) {
            fg_view_extent(view, &lowest, &highest);
            copy_segments(p, lowest, highest);
            continue;
        }
        for (fg_id row = 0; row < view->rows; row++)
            for (fg_id col = 0; col < view->cols; col++) {
                const fg_id slot = fg_view_slot(o.words, view, row, col);
                copy_segments(p, slot, slot);
            }
    }
}

/* Say in the views of block instruction i where their slots are; returns how many multiply-adds its steps take. */
static double enter_outside(fg_program *p, fg_id i)
{
    fg_record *const r = fg_tape_record(&p->body, i);
    for (fg_id v = 0; v < r->views; v++) {
        fg_view *const view = fg_record_view(r, v);
        fg_id segment;
        if (view->rows > 0 && view->cols > 0 && is_of_segment(p, view, &segment) && p->outside[segment].first > 0)
            view->flags |= (segment + 1) << FG_VIEW_OUTSIDE;
    }
    return (double)r->rows * r->cols * (fg_tape_op(&p->body, i) == FG_LAYER ? fg_record_view(r, 0)->cols : 1);
}

/* A sweep over so many multiply-adds may take so long that it has to be interrupted: 20 ms, or 100 on a slow processor.
 */
#define LONG_SWEEP 200000000.0

void fg_program_find_outside(fg_program *p)
{
    fg_tape *const t = &p->body;
    const fg_id n = p->callee.n_segments, most = (fg_id)1 << (31 - FG_VIEW_OUTSIDE);
    double work = t->n;
    p->looked = 1;
    if (n == 0 || n >= most || allocate(&t->mem, &p->outside, n, sizeof *p->outside) < 0)
        return;
    p->n_outside = n;
    if (allocate(&t->mem, &p->base, n, sizeof *p->base) < 0) {
        fg_program_release_outside(p);
        return;
    }
    for (fg_id k = 0; k < n; k++)
        p->outside[k].first = p->callee.segments[k].first;
    for (fg_id k = 0; k < p->callee.n_results; k++)
        if (p->results[k] <= p->area)
            copy_segments(p, p->results[k], p->results[k]);
    for (fg_id i = p->area + 1; i < t->n; i++)
        copy_operands(p, i);
    for (fg_id i = p->area + 1; i < t->n; i++)
        if (fg_op_is_block(fg_tape_op(t, i)))
            work += enter_outside(p, i);
    p->is_long = work > LONG_SWEEP;
}

void fg_program_release_outside(fg_program *p)
{
    release(&p->body.mem, &p->outside, p->n_outside, sizeof *p->outside);
    release(&p->body.mem, &p->base, p->n_outside, sizeof *p->base);
    p->n_outside = 0;
}

/* ---- of programs that have been saved ---- */

int fg_program_divide(fg_program *p, const fg_stretch *segments, fg_id n_segments)
{
    const int status = fg_mem_resize(&p->body.mem, (void **)&p->callee.segments, p->callee.n_segments, n_segments,
                                     sizeof *segments);
    if (status < 0)
        return status;
    if (n_segments > 0)
        memcpy(p->callee.segments, segments, n_segments * sizeof *segments);
    p->callee.n_segments = n_segments;
    return FG_OK;
}

int64_t fg_program_expand(const fg_program *p, fg_tape *t)
{
    const fg_tape *const body = &p->body;
    const fg_id base = t->n - 1;
    for (fg_id i = 1; i < body->n; i++) {
        const int op = fg_tape_op(body, i);
        const fg_args args = body->args[i];
        if (op == FG_PART)
            continue; /* with its instruction */
        if (fg_op_is_leaf(op)) {
            fg_tape_push_leaf(t, body->data[i]);
        } else if (op == FG_RUN) {
            fg_tape_push_run(t, args.b);
        } else if (fg_op_is_block(op)) {
            const fg_record *const r = fg_tape_record(body, i);
            fg_record *const copy = (fg_record *)(void *)(t->pool + t->npool);
            int64_t place = 0;
            if (op == FG_CALL && (place = fg_tape_hold_program(t, fg_tape_callee(body, r))) < 0)
                return place;
            memcpy(copy, r, r->size * sizeof *t->pool);
            if (op == FG_CALL)
                copy->param = (fg_id)place;
            for (fg_id v = 0; v < r->views; v++) {
                fg_record_view(copy, v)->flags &= FG_VIEW_LIST | FG_VIEW_CONSTANT;
                fg_id count, *const ids = fg_view_ids((fg_id *)(void *)copy, fg_record_view(copy, v), &count);
                for (fg_id k = 0; k < count; k++)
                    ids[k] += base;
            }
            fg_id node;
            const int status = fg_block_push(t, op, r->rows, r->cols, args.b > 0, body->data + (i - args.b), &node);
            if (op == FG_CALL)
                fg_tape_release_program(t, (fg_id)place);
            if (status < 0)
                return status;
        } else {
            fg_id count, moved[3];
            const fg_id *const ids = fg_tape_operands(body, i, &count);
            for (fg_id k = 0; k < count; k++)
                moved[k] = ids[k] + base;
            if (fg_op_is_pooled(op))
                fg_tape_push_pooled(t, op, moved, count, NULL, body->data[i]);
            else
                fg_tape_push(t, op, moved[0], count > 1 ? moved[1] : args.b, body->data[i]);
        }
    }
    return base;
}

/* ---- rules ---- */

int fg_program_set_rule(fg_program *p, fg_program *rule, const fg_id *gives)
{
    const fg_id n = p->callee.n_segments;
    if (allocate(&p->body.mem, &p->gives, n + 1, sizeof *p->gives) < 0)
        return FG_E_MEMORY;
    p->rule = rule;
    p->is_deep = !rule;
    if (rule) {
        rule->callee.holders++;
        memcpy(p->gives, gives, n * sizeof *gives);
    }
    fg_program_find_used(p);
    return FG_OK;
}

/* ---- copies ---- */

int fg_program_copy(const fg_program *p, int64_t *fail_after, fg_program **made)
{
    const fg_id n_segments = p->callee.n_segments, n_results = p->callee.n_results;
    fg_mem mem;
    void *place = NULL;
    fg_mem_init(&mem);
    mem.fail_after = *fail_after;
    int status = fg_mem_resize(&mem, &place, 0, 1, sizeof **made);
    if (status == FG_OK) {
        fg_program *const q = place;
        *q = (fg_program){.callee = {.steps = &fg_program_steps}, .area = p->area};
        status = fg_tape_init_closed(&q->body, p->body.kernels, &mem, p->body.n - 1, p->body.npool);
        if (status == FG_OK)
            status = allocate(&q->body.mem, &q->callee.segments, n_segments, sizeof *q->callee.segments);
        q->callee.n_segments = status == FG_OK ? n_segments : 0;
        if (status == FG_OK)
            status = allocate(&q->body.mem, &q->results, n_results, sizeof *q->results);
        q->callee.n_results = status == FG_OK ? n_results : 0;
        if (status == FG_OK) {
            q->body.stop = p->body.stop;
            q->steps = p->steps;
            memcpy(q->results, p->results, n_results * sizeof *q->results);
            if (n_segments > 0)
                memcpy(q->callee.segments, p->callee.segments, n_segments * sizeof *q->callee.segments);
            status = fg_program_expand(p, &q->body) < 0 ? FG_E_MEMORY : allocate_program(q);
        }
        if (status == FG_OK && p->gives)
            status = fg_program_set_rule(q, p->rule, p->gives);
        mem.fail_after = q->body.mem.fail_after;
        q->body.mem.fail_after = -1;
        if (status < 0) {
            fg_program_free(q);
        } else {
            fg_program_find_used(q);
            *made = q;
        }
    }
    *fail_after = mem.fail_after;
    return status;
}

int fg_program_copy_alone(const fg_program *p, int (*stop)(void), int64_t *fail_after, fg_program **made)
{
    fg_program *q = NULL, *rule = NULL;
    int status = fg_program_copy(p, fail_after, &q);
    if (status < 0)
        return status;
    q->body.stop = stop;
    if (q->rule)
        status = fg_program_copy_alone(q->rule, stop, fail_after, &rule);
    if (rule) {
        rule->callee.holders = 1;
        q->rule->callee.holders--; /* p has it still */
        q->rule = rule;
    }
    for (fg_id k = 0; k < q->body.n_programs && status == FG_OK; k++) {
        fg_called *const e = &q->body.programs[k];
        fg_callee *own = NULL;
        if (!e->callee)
            continue;
        status = e->callee->steps->copy ? e->callee->steps->copy(e->callee, stop, fail_after, &own) : FG_PROGRAM_SHARED;
        if (status == FG_OK) {
            own->holders = 1;
            e->callee->holders--; /* p has it still */
            e->callee = own;
        }
    }
    if (status != FG_OK)
        fg_program_free(q);
    else
        *made = q;
    return status;
}
