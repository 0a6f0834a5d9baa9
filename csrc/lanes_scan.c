/* lanes_scan.c: see lanes_scan.h. The order here: forward, reverse, making one. */
#include "lanes_scan.h"

#include <math.h>
#include <string.h>

#include "lanes_code.h"

enum {
    NEAR = 256 << 10,    /* numbers of rows that stay in a near cache */
    MOST_ROWS = 1 << 19, /* and in one that costs less than computing them twice */
    LINE = 8,            /* numbers of a cache line */
    STOP_AFTER = 1 << 18 /* numbers computed between two questions whether to stop */
};

struct fg_lanes_scan {
    fg_mem *mem;
    const fg_scan *scan;
    fg_code *code;
    size_t lanes;
    fg_spot *operands; /* [area + 1] */
    fg_id every, stretches;
    double *memory;    /* [n_numbers] in which the following are, each vector within a cache line */
    size_t n_numbers;
    double *fixed;     /* [code->fixed * lanes] */
    double *pairs;     /* [2 * code->pairs * lanes] the carry that no row has, of a step and of the next, in turns */
    double *rows;      /* [(every + 1) * code->width * lanes] of one stretch, and what the next begins with */
    double *starts;    /* [stretches * n_carry * lanes] the carry at the beginning of each */
    uint8_t *wanted;   /* [n_carry + n_outputs] scratch */
    uint8_t *touched;  /* [code->n_values] scratch */
    fg_id kept;        /* the stretch that the rows are of; `stretches`: none */
    int ready;
    size_t work;       /* since the last question whether to stop */
};

static int wants_stop(fg_lanes_scan *s, int (*stop)(void), size_t more)
{
    s->work += more * s->lanes;
    if (FG_LIKELY(s->work < STOP_AFTER))
        return 0;
    s->work = 0;
    return stop && stop();
}

/* How many of the steps of a list go in one go. */
static size_t steps_at_once(const fg_lanes_scan *s, size_t steps, size_t count)
{
    const size_t most = STOP_AFTER / (count * s->lanes + 1) + 1;
    return s->scan->n_x + s->scan->n_outputs > 0 ? 1 : steps < most ? steps : most;
}

static fg_id place_of(const fg_scan *scan, fg_id step)
{
    return scan->backwards ? scan->length - 1 - step : step;
}

/* ---- forward ---- */

/* The places of a step whose carry is in the first half of the pairs. */
typedef struct places {
    double *base[FG_LANE_BASES];
} places;

static places places_at(const fg_lanes_scan *s, fg_id row)
{
    const size_t pairs = s->code->pairs * s->lanes, width = s->code->width * s->lanes;
    double *const at = s->rows + row * width;
    return (places){{s->fixed, at, at + width, s->pairs, s->pairs + pairs, NULL}};
}

static double *number_at(const fg_lanes_scan *s, const places *p, fg_place place)
{
    return p->base[place.base] + place.slot * s->lanes;
}

/* A list that is for no step. */
static int run_once(const fg_lanes_scan *s, const fg_lane_code *code, size_t count, int lenient)
{
    static const ptrdiff_t advance[FG_LANE_BASES];
    places p = places_at(s, 0);
    return s->scan->step->body.kernels->run_code(code, count, p.base, advance, 1, s->lanes, lenient) == 1 ? FG_OK
                                                                                                         : FG_E_DOMAIN;
}

static void take(const fg_lanes_scan *s, const fg_spot *from, double *to)
{
    if (from->step)
        memcpy(to, from->data, s->lanes * sizeof *to);
    else
        for (size_t lane = 0; lane < s->lanes; lane++)
            to[lane] = from->data[0];
}

static void take_x(const fg_lanes_scan *s, const places *p, fg_id step)
{
    const fg_scan *const scan = s->scan;
    const fg_callee *const of_step = &scan->step->callee;
    for (fg_id k = scan->carries; k < scan->carries + scan->xs; k++) {
        const fg_stretch x = of_step->segments[k];
        const size_t at = scan->callee.segments[k].first + (size_t)place_of(scan, step) * x.count;
        const fg_spot *const from = s->operands + at;
        for (fg_id e = 0; e < x.count; e++)
            take(s, from + e, number_at(s, p, fg_code_operand(s->code, x.first + e)));
    }
}

/* What is the same for all steps. */
static int take_same(fg_lanes_scan *s, int lenient)
{
    const fg_scan *const scan = s->scan;
    const places p = places_at(s, 0);
    fg_code_put_numbers(s->code, s->fixed);
    for (fg_id k = scan->carries + scan->xs; k < scan->callee.n_segments; k++) {
        const fg_stretch same = scan->step->callee.segments[k];
        for (fg_id e = 0; e < same.count; e++)
            take(s, s->operands + scan->callee.segments[k].first + e,
                 number_at(s, &p, fg_code_operand(s->code, same.first + e)));
    }
    return run_once(s, s->code->before, s->code->n_before, lenient);
}

static void give_outputs(const fg_lanes_scan *s, const places *p, fg_id step, double *z)
{
    const fg_scan *const scan = s->scan;
    for (fg_id j = 0; j < scan->n_outputs; j++)
        memcpy(z + (scan->base[j] + (size_t)place_of(scan, step) * scan->jump[j]) * s->lanes,
               number_at(s, p, fg_code_result(s->code, scan->n_carry + j)), s->lanes * sizeof *z);
}

/* Where the carry of the step after the last of a stretch is, or of the first. */
static const double *carry_at(const fg_lanes_scan *s, const places *p, fg_id k)
{
    return number_at(s, p, s->code->carry[k]);
}

/* Compute the steps of stretch k from the carry that it begins with, and the carry that it ends with: *end says where
 * that is. Outputs to z, if not NULL. */
static int run_stretch(fg_lanes_scan *s, fg_id k, int lenient, int (*stop)(void), double *z, places *end)
{
    const fg_scan *const scan = s->scan;
    const fg_code *const code = s->code;
    const fg_kernels *const kernels = scan->step->body.kernels;
    const fg_id begin = k * s->every, count = scan->length - begin < s->every ? scan->length - begin : s->every;
    const ptrdiff_t width = (ptrdiff_t)(code->width * s->lanes), advance[FG_LANE_BASES] = {0, width, width, 0, 0, 0};
    const double *const start = s->starts + (size_t)k * scan->n_carry * s->lanes;
    *end = places_at(s, 0);
    s->kept = s->stretches;
    for (fg_id c = 0; c < scan->n_carry; c++)
        memcpy(number_at(s, end, code->carry[c]), start + c * s->lanes, s->lanes * sizeof *start);
    for (fg_id i = 0; i < count;) {
        const fg_id steps = (fg_id)steps_at_once(s, count - i, code->n_forward);
        const places p = *end;
        take_x(s, end, begin + i);
        if (kernels->run_code(code->forward, code->n_forward, end->base, advance, steps, s->lanes, lenient) < steps)
            return FG_E_DOMAIN;
        if (z)
            give_outputs(s, &p, begin + i, z);
        i += steps;
        if (wants_stop(s, stop, code->n_forward * steps))
            return FG_E_INTERRUPTED;
    }
    s->kept = k;
    return FG_OK;
}

int fg_lanes_scan_forward(fg_lanes_scan *s, int lenient, int (*stop)(void), double *z)
{
    const fg_scan *const scan = s->scan;
    const size_t lanes = s->lanes, size = scan->n_carry * lanes;
    int status = take_same(s, lenient);
    places end;
    s->ready = 0;
    for (fg_id c = 0; c < scan->n_carry; c++)
        take(s, s->operands + 1 + c, s->starts + c * lanes);
    for (fg_id k = 0; k < s->stretches && status == FG_OK; k++) {
        status = run_stretch(s, k, lenient, stop, z, &end);
        double *const to = k + 1 < s->stretches ? s->starts + (k + 1) * size : z;
        for (fg_id c = 0; c < scan->n_carry && status == FG_OK; c++)
            memcpy(to + c * lanes, carry_at(s, &end, c), lanes * sizeof *to);
    }
    s->ready = status == FG_OK;
    return status;
}

int fg_lanes_scan_is_ready(const fg_lanes_scan *s)
{
    return s->ready;
}

/* ---- reverse ---- */

static int is_reached(const uint64_t *reached, fg_id i)
{
    return !reached || reached[i >> 6] >> (i & 63u) & 1u;
}

static double *slot_at(const fg_lanes_scan *s, uint32_t slot)
{
    return s->fixed + slot * s->lanes;
}

static void give(const fg_lanes_scan *s, size_t used, uint32_t slot, const fg_spot *to)
{
    const fg_kernels *const kernels = s->scan->step->body.kernels;
    if (to->grad && to->step)
        kernels->axpy(s->lanes, 1.0, slot_at(s, slot), to->grad);
    else if (to->grad)
        to->grad[0] += kernels->sum(used, slot_at(s, slot));
}

static void give_x(const fg_lanes_scan *s, size_t used, const fg_code_back *back, fg_id step)
{
    const fg_scan *const scan = s->scan;
    fg_id at = 0;
    for (fg_id k = scan->carries; k < scan->carries + scan->xs; k++) {
        const fg_stretch x = scan->step->callee.segments[k];
        const fg_spot *const to = s->operands + scan->callee.segments[k].first + (size_t)place_of(scan, step) * x.count;
        for (fg_id e = 0; e < x.count; e++, at++)
            if (back->x[at] != FG_NOWHERE)
                give(s, used, back->x[at], to + e);
    }
}

/* Which outputs are reached, and their gradients to where the step finds them. Returns whether others are than before,
 * `wanted`. */
static int take_outputs(const fg_lanes_scan *s, fg_id step, const double *dz, const uint64_t *reached, fg_id first,
                        uint8_t *wanted)
{
    const fg_scan *const scan = s->scan;
    int others = 0;
    for (fg_id j = 0; j < scan->n_outputs; j++) {
        const fg_id at = scan->base[j] + place_of(scan, step) * scan->jump[j];
        const uint8_t now = (uint8_t)is_reached(reached, first + at);
        others |= wanted[j] != now;
        wanted[j] = now;
        if (now)
            memcpy(slot_at(s, s->code->dout + j), dz + (size_t)at * s->lanes, s->lanes * sizeof *dz);
    }
    return others;
}

/* What is the same for all steps: on to the operands. */
static void give_same(fg_lanes_scan *s, size_t used)
{
    const fg_scan *const scan = s->scan;
    const size_t count = fg_code_find_after(s->code, s->touched);
    (void)run_once(s, s->code->after, count, 1);
    for (fg_id k = scan->carries + scan->xs; k < scan->callee.n_segments; k++) {
        const fg_stretch same = scan->step->callee.segments[k];
        for (fg_id e = 0; e < same.count; e++)
            if (fg_code_is_touched(s->code, s->touched, same.first + e))
                give(s, used, fg_code_sum(s->code, same.first + e), s->operands + scan->callee.segments[k].first + e);
    }
}

int fg_lanes_scan_reverse(fg_lanes_scan *s, size_t used, int (*stop)(void), const double *dz, const uint64_t *reached,
                          fg_id first)
{
    const fg_scan *const scan = s->scan;
    const fg_code *const code = s->code;
    const fg_kernels *const kernels = scan->step->body.kernels;
    const size_t lanes = s->lanes;
    const ptrdiff_t width = (ptrdiff_t)(code->width * lanes), advance[FG_LANE_BASES] = {0, -width, -width, 0, 0, 0};
    fg_code_back *back = NULL;
    memset(s->touched, 0, code->n_values);
    memset(slot_at(s, code->first_sum), 0, code->n_sums * lanes * sizeof *s->fixed);
    for (fg_id c = 0; c < scan->n_carry; c++) {
        s->wanted[c] = (uint8_t)is_reached(reached, first + c);
        if (s->wanted[c])
            memcpy(slot_at(s, code->dnext + c), dz + c * lanes, lanes * sizeof *dz);
    }
    for (fg_id step = scan->length, steps; step > 0; step -= steps) {
        const fg_id last = step - 1, row = last % s->every;
        if (s->kept != last / s->every) {
            places end;
            const int status = run_stretch(s, last / s->every, 1, stop, NULL, &end);
            if (status != FG_OK)
                return status;
        }
        int others = take_outputs(s, last, dz, reached, first, s->wanted + scan->n_carry);
        if (back) {
            others |= memcmp(s->wanted, back->flows, scan->n_carry) != 0;
            memcpy(s->wanted, back->flows, scan->n_carry);
        }
        if (others || !back) {
            back = fg_code_find_back(s->code, s->wanted);
            for (uint32_t i = 0; i < code->n_values; i++)
                s->touched[i] |= back->touched[i];
        }
        const int steady = memcmp(back->flows, s->wanted, scan->n_carry) == 0; /* the step before goes alike */
        places p = places_at(s, row); /* pairs are not read */
        steps = steady ? (fg_id)steps_at_once(s, row + 1u, back->count) : 1;
        (void)kernels->run_code(back->code, back->count, p.base, advance, steps, lanes, 1);
        if (scan->n_x > 0)
            give_x(s, used, back, last);
        if (wants_stop(s, stop, back->count * steps))
            return FG_E_INTERRUPTED;
    }
    for (fg_id c = 0; c < scan->n_carry; c++)
        if (back->flows[c])
            give(s, used, code->dnext + c, s->operands + 1 + c);
    give_same(s, used);
    return FG_OK;
}

/* ---- making one ---- */

static int allocate(fg_lanes_scan *s, void *array, size_t count, size_t size)
{
    return fg_mem_resize(s->mem, array, 0, count + 1, size);
}

static void release(fg_lanes_scan *s, void *array, size_t count, size_t size)
{
    void **const where = array;
    if (*where)
        (void)fg_mem_resize(s->mem, where, count + 1, 0, size);
}

int fg_lanes_scan_make(fg_lanes_scan **made, const fg_scan *scan, fg_mem *mem, const uint8_t *wanted,
                       const uint8_t *varies)
{
    void *place = NULL;
    *made = NULL;
    if (fg_mem_resize(mem, &place, 0, 1, sizeof **made) < 0)
        return FG_E_MEMORY;
    fg_lanes_scan *const s = place;
    *s = (fg_lanes_scan){.mem = mem, .scan = scan};
    int status = fg_code_make(&s->code, scan, mem, wanted, varies);
    if (status == FG_OK && allocate(s, &s->operands, scan->area, sizeof *s->operands) < 0)
        status = FG_E_MEMORY;
    if (status != FG_OK)
        fg_lanes_scan_free(s);
    else
        *made = s;
    return status == FG_CODE_NONE ? FG_OK : status;
}

size_t fg_lanes_scan_best(const fg_lanes_scan *s)
{
    const size_t numbers = ((size_t)s->scan->length + 1) * s->code->width;
    size_t lanes = 64;
    while (lanes > 32 && numbers * lanes > NEAR)
        lanes /= 2;
    return lanes;
}

/* How the steps are divided. */
static void divide(fg_lanes_scan *s)
{
    const fg_scan *const scan = s->scan;
    const double width = (double)s->code->width * (double)s->lanes + 1.0;
    double every = scan->checkpoint;
    if (scan->checkpoint == 0) {
        const double least = sqrt((double)scan->length * scan->n_carry / (s->code->width + 1.0));
        const double near = (double)NEAR / width;
        every = scan->length * width <= (double)MOST_ROWS ? scan->length : least > near ? least : near;
    }
    s->every = every < 1.0 ? 1 : every > scan->length ? scan->length : (fg_id)every;
    s->stretches = (scan->length + s->every - 1) / s->every;
    s->kept = s->stretches;
}

int fg_lanes_scan_set_lanes(fg_lanes_scan *s, size_t lanes)
{
    const fg_code *const code = s->code;
    const fg_scan *const scan = s->scan;
    if (fg_code_set_lanes(s->code, lanes) < 0)
        return FG_E_MEMORY;
    s->lanes = lanes;
    divide(s);
    const size_t n_fixed = code->fixed * lanes, n_pairs = 2 * code->pairs * lanes,
                 n_rows = ((size_t)s->every + 1) * code->width * lanes,
                 n_starts = (size_t)s->stretches * scan->n_carry * lanes;
    s->n_numbers = n_fixed + n_pairs + n_rows + n_starts + LINE;
    if (allocate(s, &s->memory, s->n_numbers, sizeof *s->memory) < 0
        || allocate(s, &s->wanted, (size_t)scan->n_carry + scan->n_outputs, 1) < 0
        || allocate(s, &s->touched, code->n_values, 1) < 0)
        return FG_E_MEMORY;
    s->fixed = s->memory + (LINE - (uintptr_t)s->memory / sizeof *s->memory % LINE) % LINE;
    s->pairs = s->fixed + n_fixed;
    s->rows = s->pairs + n_pairs;
    s->starts = s->rows + n_rows;
    return FG_OK;
}

fg_spot *fg_lanes_scan_operands(fg_lanes_scan *s)
{
    return s->operands;
}

void fg_lanes_scan_free(fg_lanes_scan *s)
{
    const fg_code *const code = s->code;
    fg_mem *const mem = s->mem;
    void *place = s;
    if (code) {
        release(s, &s->operands, s->scan->area, sizeof *s->operands);
        release(s, &s->memory, s->n_numbers, sizeof *s->memory);
        release(s, &s->wanted, (size_t)s->scan->n_carry + s->scan->n_outputs, 1);
        release(s, &s->touched, code->n_values, 1);
        fg_code_free(s->code);
    }
    (void)fg_mem_resize(mem, &place, 1, 0, sizeof *s);
}
