/* lanes_batch.c: see lanes_batch.h. The graph becomes a list of steps, each with a function that goes forward and one
 * that goes back, and with the addresses of its numbers. The order here: operands, elementwise steps, layers, rows,
 * what is done sample by sample, making a batch, running it.
 *
 * Compiled twice: here for numbers that are doubles, and by lanes_batch32.c for floats. `real` is the type of what lies
 * in lanes; a double stays a double where the body, or the caller, has it. */
#include "lanes_batch.h"

#include <string.h>

#include "lanes_scan.h"

enum { STOP_AFTER = 1 << 18 }; /* numbers computed between two questions whether to stop */

/* One element of an operand: a number for each lane, or, with step 0, the same for all. */
#ifdef FG_SINGLE
typedef struct spot {
    real *data, *grad; /* grad is NULL if nobody wants it */
    size_t step;
} spot;
#else
typedef fg_spot spot;
#endif

/* A matrix of elements. */
typedef struct operand {
    fg_id rows, cols;
    real *data, *grad;  /* of element (0, 0), where elements lie in order */
    ptrdiff_t row, col;   /* numbers from one row to the next, and one column to the next */
    size_t step;          /* 1 if an element has a number for each lane, also if only some do */
    int wanted;           /* whether anybody wants a gradient */
    spot *list;           /* where they do not, row by row; else NULL */
} operand;

typedef struct step step;

struct step {
    int (*forward)(fg_batch *b, const step *s); /* FG_OK, or a status with b->lane at fault */
    int (*reverse)(fg_batch *b, const step *s); /* FG_OK, or FG_E_INTERRUPTED */
    fg_id node;
    int op;           /* of elementwise steps the row; of others the instruction */
    int row;          /* of a layer the activation, FG_LEAF if none */
    int32_t k;        /* the immediate of a unary row */
    int together;     /* elementwise: the elements follow each other in all operands, so all lanes are one loop */
    int sums;         /* and then whether one of them is uniform, and its gradient wanted */
    int spread;       /* elementwise: they do so once operands that do not are copied, with all lanes of each element */
    int live, whole;  /* whether gradients of the results that count flow to one of these, or to all */
    size_t work;      /* about how many numbers it computes */
    fg_id rows, cols; /* of the results, which lie in order */
    real *z, *dz;
    fg_id operands;
    operand x[3];
    const fg_id *labels;
    fg_record *record; /* of instructions */
    fg_id *slots;      /* of what is done sample by sample the varying slots among its operands, each once */
    fg_id n_slots;
    fg_lanes_scan *scan; /* of an FG_CALL what computes it in lanes, or NULL */
};

struct fg_batch {
    fg_program *program;
    fg_tape *body; /* the program's */
    const fg_real_kernels *kernels;
    fg_mem *mem;
    size_t lanes, used;  /* and how many of them have a sample of their own */
    int lenient;
    uint32_t *place;     /* [body->n] the slot of a varying node; UNIFORM */
    size_t slots;
    real *data, *grad; /* [slots * lanes] */
    real *uniform;       /* [body->n] numbers of uniform nodes: those of the body, or these as floats */
    real *sums;          /* [body->n] gradients of uniform nodes, */
    double *each;        /* [body->n] and those of what is done sample by sample, if that is not the same */
    const uint64_t *live; /* nodes that gradients of the results that count flow to */
    real *scratch;
    size_t scratch_size;
    step *steps;
    size_t count;
    spot *spots;         /* the lists of all operands */
    size_t n_spots;
    fg_id *ids;          /* the slots of all steps that are done sample by sample */
    size_t n_ids;
    fg_lanes_scan **scans; /* [n_calls] of each varying FG_CALL what computes it in lanes, or NULL */
    size_t n_calls;
    const step *at;      /* the step at fault, */
    size_t lane;         /* in that lane, */
    fg_id element;       /* and of FG_MAP its result, counted row by row */
    int status;
};

#define UNIFORM UINT32_MAX

int fg_batch_is_varying(const fg_batch *b, fg_id i)
{
    return b->place[i] != UNIFORM;
}

real *fg_batch_data(const fg_batch *b, fg_id i)
{
    return b->place[i] == UNIFORM ? b->uniform + i : b->data + b->place[i] * b->lanes;
}

real *fg_batch_grad(const fg_batch *b, fg_id i)
{
    return b->place[i] == UNIFORM ? b->sums + i : b->grad + b->place[i] * b->lanes;
}

size_t fg_batch_lanes(const fg_batch *b)
{
    return b->lanes;
}

int fg_batch_has_scans(const fg_batch *b)
{
    int any = 0;
    for (size_t k = 0; k < b->n_calls; k++)
        any |= b->scans[k] != NULL;
    return any;
}

void fg_batch_put(fg_batch *b, fg_id i, fg_id count, const double *from, const fg_id *samples, size_t used)
{
    real *to = fg_batch_data(b, i);
    if (b->lanes == 1) {
        for (size_t e = 0; e < count; e++)
            to[e] = (real)from[(samples ? samples[0] : 0) * (size_t)count + e];
        return;
    }
    for (fg_id e = 0; e < count; e++, to += b->lanes) {
        for (size_t lane = 0; lane < used; lane++)
            to[lane] = (real)from[(samples ? samples[lane] : lane) * count + e];
        for (size_t lane = used; lane < b->lanes; lane++)
            to[lane] = to[used - 1];
    }
}

void fg_batch_get(const fg_batch *b, fg_id i, double *to, size_t apart, size_t used)
{
    const size_t varies = (size_t)fg_batch_is_varying(b, i);
    const real *const from = fg_batch_data(b, i);
    for (size_t lane = 0; lane < used; lane++)
        to[lane * apart] = (double)from[lane * varies];
}

void fg_batch_seed(fg_batch *b, fg_id i, const double *from, size_t apart, const fg_id *samples, size_t used)
{
    const size_t varies = (size_t)fg_batch_is_varying(b, i);
    real *const to = fg_batch_grad(b, i);
    for (size_t lane = 0; lane < used; lane++)
        to[lane * varies] += from ? (real)from[(samples ? samples[lane] : lane) * apart] : (real)1;
}

void fg_batch_give(const fg_batch *b, fg_id i, fg_id count, double *to, const fg_id *samples, size_t used)
{
    const real *from = fg_batch_grad(b, i);
    if (b->lanes == 1) {
        for (size_t e = 0; e < count; e++)
            to[(samples ? samples[0] : 0) * (size_t)count + e] += (double)from[e];
        return;
    }
    for (fg_id e = 0; e < count; e++, from += b->lanes)
        for (size_t lane = 0; lane < used; lane++)
            to[(samples ? samples[lane] : lane) * count + e] += (double)from[lane];
}

void fg_batch_refresh(fg_batch *b)
{
#ifdef FG_SINGLE
    for (fg_id i = 0; i < b->body->n; i++)
        b->uniform[i] = (real)b->body->data[i];
#else
    (void)b;
#endif
}

/* ---- operands ---- */

static size_t size_of(const operand *x)
{
    return (size_t)x->rows * x->cols;
}

static inline spot spot_at(const operand *x, fg_id row, fg_id col)
{
    if (x->list)
        return x->list[(size_t)row * x->cols + col];
    const ptrdiff_t at = (ptrdiff_t)row * x->row + (ptrdiff_t)col * x->col;
    return (spot){x->data + at, x->wanted ? x->grad + at : NULL, x->step};
}

static real *take(real **scratch, size_t count)
{
    real *const p = *scratch;
    *scratch += count;
    return p;
}

/* The numbers of an operand as a matrix: in place, or, of a list, copied, and of a list that varies every element with
 * all lanes. varying: all lanes are wanted in any case. */
typedef struct matrix {
    real *p;
    ptrdiff_t row, col;
} matrix;

static matrix numbers(const fg_batch *b, const operand *x, int varying, real **scratch)
{
    const size_t lanes = varying || x->step ? b->lanes : 1;
    if (!x->list && (x->step || !varying))
        return (matrix){x->data, x->row, x->col};
    real *const p = take(scratch, size_of(x) * lanes);
    real *to = p;
    for (fg_id i = 0; i < x->rows; i++)
        for (fg_id j = 0; j < x->cols; j++, to += lanes) {
            const spot from = spot_at(x, i, j);
            if (from.step)
                memcpy(to, from.data, lanes * sizeof *to);
            else
                for (size_t lane = 0; lane < lanes; lane++)
                    to[lane] = from.data[0];
        }
    return (matrix){p, (ptrdiff_t)(x->cols * lanes), (ptrdiff_t)lanes};
}

/* Where gradients of that matrix are added up: in place, or in scratch that begins with 0. p is NULL if nobody wants
 * them. */
static matrix gradients(const fg_batch *b, const operand *x, int varying, real **scratch)
{
    const size_t lanes = varying || x->step ? b->lanes : 1;
    if (!x->wanted)
        return (matrix){NULL, 0, 0};
    if (!x->list && (x->step || !varying))
        return (matrix){x->grad, x->row, x->col};
    real *const p = take(scratch, size_of(x) * lanes);
    memset(p, 0, size_of(x) * lanes * sizeof *p);
    return (matrix){p, (ptrdiff_t)(x->cols * lanes), (ptrdiff_t)lanes};
}

/* And then to where they belong, if they were in scratch. */
static void add_gradients(const fg_batch *b, const operand *x, int varying, matrix m)
{
    const size_t lanes = varying || x->step ? b->lanes : 1;
    if (!m.p || (!x->list && (x->step || !varying)))
        return;
    const real *from = m.p;
    for (fg_id i = 0; i < x->rows; i++)
        for (fg_id j = 0; j < x->cols; j++, from += lanes) {
            const spot to = spot_at(x, i, j);
            if (to.grad && to.step)
                b->kernels->axpy(lanes, 1.0, from, to.grad);
            else if (to.grad)
                to.grad[0] += lanes == 1 ? *from : b->kernels->sum(b->used, from);
        }
}

/* ---- elementwise steps ---- */

static int is_live(const fg_batch *b, fg_id i)
{
    return (int)(b->live[i >> 6] >> (i & 63u) & 1u);
}

/* The operands of result (row, col). */
static void operands_at(const step *s, fg_id row, fg_id col, const real **x, size_t *steps, real **dx)
{
    for (fg_id v = 0; v < s->operands; v++) {
        const spot at = spot_at(s->x + v, s->x[v].rows > 1 ? row : 0, s->x[v].cols > 1 ? col : 0);
        x[v] = at.data;
        steps[v] = at.step;
        dx[v] = at.grad;
    }
}

static int is_single(const operand *x)
{
    return x->rows == 1 && x->cols == 1;
}

/* The operands with all lanes of all elements in a row, copied where they do not lie so; returns the scratch behind. */
static real *lay_in_rows(const fg_batch *b, const step *s, const real *x[], size_t steps[])
{
    real *scratch = b->scratch;
    for (fg_id v = 0; v < s->operands; v++) {
        steps[v] = !is_single(s->x + v);
        x[v] = steps[v] ? numbers(b, s->x + v, 1, &scratch).p : s->x[v].data;
    }
    return scratch;
}

/* All lanes of all elements in one loop, with operands copied. */
static int spread_forward(fg_batch *b, const step *s)
{
    const real *x[FG_MAX_ARITY] = {NULL, NULL, NULL};
    size_t steps[FG_MAX_ARITY] = {0, 0, 0};
    const size_t n = (size_t)s->rows * s->cols * b->lanes;
    (void)lay_in_rows(b, s, x, steps);
    const size_t at = b->kernels->map(s->op, n, x, steps, s->k, s->z);
    if (at == n || b->lenient)
        return FG_OK;
    b->element = (fg_id)(at / b->lanes);
    b->lane = at % b->lanes;
    return FG_E_DOMAIN;
}

static int spread_reverse(fg_batch *b, const step *s)
{
    const real *x[FG_MAX_ARITY] = {NULL, NULL, NULL};
    size_t steps[FG_MAX_ARITY] = {0, 0, 0};
    const size_t n = (size_t)s->rows * s->cols * b->lanes;
    real *const scratch = lay_in_rows(b, s, x, steps);
    for (fg_id v = 0; v < s->operands; v++) {
        real *rest = scratch;
        const matrix dx = gradients(b, s->x + v, 1, &rest);
        if (!dx.p)
            continue;
        b->kernels->map_grad(s->op, (int)v, n, x, steps, s->k, s->z, s->dz, dx.p);
        add_gradients(b, s->x + v, 1, dx);
    }
    return FG_OK;
}

static int map_forward(fg_batch *b, const step *s)
{
    if (s->spread)
        return spread_forward(b, s);
    const real *x[FG_MAX_ARITY] = {NULL, NULL, NULL};
    real *dx[FG_MAX_ARITY];
    size_t steps[FG_MAX_ARITY] = {0, 0, 0};
    const size_t lanes = b->lanes, rounds = s->together ? 1 : (size_t)s->rows * s->cols;
    const size_t n = s->together ? (size_t)s->rows * s->cols * lanes : lanes;
    for (size_t k = 0; k < rounds; k++) {
        operands_at(s, (fg_id)(k / s->cols), (fg_id)(k % s->cols), x, steps, dx);
        const size_t at = b->kernels->map(s->op, n, x, steps, s->k, s->z + k * lanes);
        if (at < n && !b->lenient) {
            b->element = (fg_id)(k + at / lanes);
            b->lane = at % lanes;
            return FG_E_DOMAIN;
        }
    }
    return FG_OK;
}

static int map_reverse(fg_batch *b, const step *s)
{
    const real *x[FG_MAX_ARITY] = {NULL, NULL, NULL};
    real *dx[FG_MAX_ARITY];
    size_t steps[FG_MAX_ARITY] = {0, 0, 0};
    if (s->spread && s->whole)
        return spread_reverse(b, s);
    const int together = s->together && !s->sums && s->whole;
    const fg_id first = s->node - (s->record ? b->body->args[s->node].b : 0);
    const size_t lanes = b->lanes, rounds = together ? 1 : (size_t)s->rows * s->cols;
    const size_t n = together ? (size_t)s->rows * s->cols * lanes : lanes;
    for (size_t k = 0; k < rounds; k++) {
        if (!s->whole && !is_live(b, first + (fg_id)k)) /* its gradient is 0, and its derivative may be inf */
            continue;
        operands_at(s, (fg_id)(k / s->cols), (fg_id)(k % s->cols), x, steps, dx);
        for (fg_id v = 0; v < s->operands; v++)
            if (dx[v])
                b->kernels->map_grad(s->op, (int)v, steps[v] ? n : b->used, x, steps, s->k, s->z + k * lanes,
                                     s->dz + k * lanes, dx[v]);
    }
    return FG_OK;
}

/* ---- layers: z (m, n) = activation(x (m, k) w (n, k)^T + b (1, n)), each element with its lanes ---- */

/* Of one lane the three products are products of whole matrices. The columns of what is added to lie side by side, or
 * its rows do, and then the transposed is added. */
static void multiply(const fg_batch *b, size_t m, size_t n, size_t k, matrix x, matrix y, matrix z, real *work)
{
    if (z.col == 1 || n == 1)
        b->kernels->gemm(m, n, k, x.p, x.row, x.col, y.p, y.row, y.col, z.p, z.row, work);
    else
        b->kernels->gemm(n, m, k, y.p, y.col, y.row, x.p, x.col, x.row, z.p, z.col, work);
}

static matrix transposed(matrix x)
{
    return (matrix){x.p, x.col, x.row};
}

static int layer_forward(fg_batch *b, const step *s)
{
    const fg_real_kernels *const kernels = b->kernels;
    const size_t lanes = b->lanes, m = s->rows, n = s->cols, k = s->x[0].cols;
    real *scratch = b->scratch;
    const matrix w = numbers(b, s->x + 1, 0, &scratch), x = numbers(b, s->x, 1, &scratch);
    real *const sums = s->row == FG_LEAF ? s->z : take(&scratch, m * n * lanes);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            real *const sum = sums + (i * n + j) * lanes;
            const spot bias = s->operands > 2 ? spot_at(s->x + 2, 0, (fg_id)j) : (spot){NULL, NULL, 0};
            for (size_t l = 0; l < lanes; l++)
                sum[l] = bias.data ? bias.data[bias.step * l] : (real)0;
        }
    if (lanes == 1)
        multiply(b, m, n, k, x, transposed(w), (matrix){sums, (ptrdiff_t)n, 1}, scratch);
    for (size_t i = 0; i < m && lanes > 1; i++) {
        const real *const xi = x.p + (ptrdiff_t)i * x.row;
        real *const row = sums + i * n * lanes;
        if (!s->x[1].step)
            kernels->gemm(n, lanes, k, w.p, w.row, w.col, xi, x.col, 1, row, (ptrdiff_t)lanes, scratch);
        else
            for (size_t j = 0; j < n; j++)
                kernels->lane_dot(lanes, k, xi, x.col, w.p + (ptrdiff_t)j * w.row, w.col, row + j * lanes);
    }
    if (s->row != FG_LEAF)
        kernels->map(s->row, m * n * lanes, (const real *const[3]){sums}, (const size_t[3]){1}, 0, s->z);
    return FG_OK;
}

static int layer_reverse(fg_batch *b, const step *s)
{
    const fg_real_kernels *const kernels = b->kernels;
    const size_t lanes = b->lanes, m = s->rows, n = s->cols, k = s->x[0].cols;
    real *scratch = b->scratch;
    const real *d = s->dz;
    if (s->row != FG_LEAF) { /* the derivative of these activations follows from z, so z stands for the sums */
        real *const dsums = take(&scratch, m * n * lanes);
        memset(dsums, 0, m * n * lanes * sizeof *dsums);
        kernels->map_grad(s->row, 0, m * n * lanes, (const real *const[3]){s->z}, (const size_t[3]){1}, 0, s->z,
                          s->dz, dsums);
        d = dsums;
    }
    const matrix w = numbers(b, s->x + 1, 0, &scratch), x = numbers(b, s->x, 1, &scratch);
    const matrix dw = gradients(b, s->x + 1, 0, &scratch), dx = gradients(b, s->x, 1, &scratch);
    for (size_t i = 0; i < m; i++) {
        const real *const xi = x.p + (ptrdiff_t)i * x.row, *const di = d + i * n * lanes;
        real *const dxi = dx.p ? dx.p + (ptrdiff_t)i * dx.row : NULL;
        for (size_t j = 0; j < n && s->operands > 2; j++) {
            const spot bias = spot_at(s->x + 2, 0, (fg_id)j);
            if (bias.grad && lanes == 1)
                bias.grad[0] += di[j];
            else if (bias.grad && bias.step)
                kernels->axpy(lanes, 1.0, di + j * lanes, bias.grad);
            else if (bias.grad)
                bias.grad[0] += kernels->sum(b->used, di + j * lanes);
        }
        if (lanes == 1)
            continue;
        if (!s->x[1].step) {
            if (dxi)
                kernels->gemm(k, lanes, n, w.p, w.col, w.row, di, (ptrdiff_t)lanes, 1, dxi, dx.col, scratch);
            if (dw.p && dw.col == 1)
                kernels->gemm(n, k, b->used, di, (ptrdiff_t)lanes, 1, xi, 1, x.col, dw.p, dw.row, scratch);
            else if (dw.p) /* the same, transposed */
                kernels->gemm(k, n, b->used, xi, x.col, 1, di, 1, (ptrdiff_t)lanes, dw.p, dw.col, scratch);
            continue;
        }
        for (size_t p = 0; p < k && dxi; p++)
            kernels->lane_dot(lanes, n, di, (ptrdiff_t)lanes, w.p + (ptrdiff_t)p * w.col, w.row,
                              dxi + (ptrdiff_t)p * dx.col);
        if (dw.p)
            kernels->lane_outer(lanes, n, k, di, (ptrdiff_t)lanes, xi, x.col, dw.p, dw.row, dw.col);
    }
    if (lanes == 1) {
        const matrix all = {(real *)d, (ptrdiff_t)n, 1};
        if (dx.p)
            multiply(b, m, k, n, all, w, dx, scratch);
        if (dw.p)
            multiply(b, n, k, m, transposed(all), x, dw, scratch);
    }
    add_gradients(b, s->x + 1, 0, dw);
    add_gradients(b, s->x, 1, dx);
    return FG_OK;
}

/* ---- reductions, softmax, cross entropy of x (m, n): along its rows, or over all of it ---- */

/* How many rows there are to reduce, and of how many numbers; of any but FG_CROSS_ENTROPY. */
static void shape_of_rows(const step *s, size_t *count, size_t *length)
{
    const int all = !fg_op_is_softmax(s->op) && s->rows * s->cols == 1;
    *count = all ? 1 : s->x[0].rows;
    *length = all ? size_of(s->x) : s->x[0].cols;
}

static spot in_row(const step *s, size_t row, size_t j)
{
    const size_t cols = s->x[0].cols, at = j / cols;
    return spot_at(s->x, (fg_id)(row + at), (fg_id)(j - at * cols));
}

static int sum_forward(fg_batch *b, const step *s)
{
    const size_t lanes = b->lanes;
    size_t count, length;
    shape_of_rows(s, &count, &length);
    for (size_t i = 0; i < count; i++) {
        real *const z = s->z + i * lanes;
        real same = 0;
        memset(z, 0, lanes * sizeof *z);
        for (size_t j = 0; j < length; j++) {
            const spot x = in_row(s, i, j);
            if (lanes == 1)
                same += x.data[0];
            else if (x.step)
                b->kernels->axpy(lanes, 1.0, x.data, z);
            else
                same += x.data[0];
        }
        for (size_t l = 0; l < lanes; l++)
            z[l] = s->op == FG_MEAN ? (z[l] + same) / (real)length : z[l] + same;
    }
    return FG_OK;
}

static int sum_reverse(fg_batch *b, const step *s)
{
    size_t count, length;
    shape_of_rows(s, &count, &length);
    const real scale = s->op == FG_MEAN ? (real)1 / (real)length : (real)1;
    for (size_t i = 0; i < count; i++) {
        const real *const dz = s->dz + i * b->lanes;
        const real total = b->kernels->sum(b->used, dz) * scale;
        for (size_t j = 0; j < length; j++) {
            const spot x = in_row(s, i, j);
            if (x.grad && x.step && b->lanes > 1)
                b->kernels->axpy(b->lanes, scale, dz, x.grad);
            else if (x.grad)
                x.grad[0] += total;
        }
    }
    return FG_OK;
}

static int max_forward(fg_batch *b, const step *s)
{
    const size_t lanes = b->lanes;
    real *const so_far = b->scratch;
    size_t count, length;
    shape_of_rows(s, &count, &length);
    for (size_t i = 0; i < count; i++) {
        real *const z = s->z + i * lanes;
        const spot first = in_row(s, i, 0);
        for (size_t l = 0; l < lanes; l++)
            z[l] = first.data[first.step * l];
        for (size_t j = 1; j < length; j++) {
            const spot x = in_row(s, i, j);
            memcpy(so_far, z, lanes * sizeof *z);
            b->kernels->map(FG_MAXIMUM, lanes, (const real *const[3]){so_far, x.data},
                            (const size_t[3]){1, x.step}, 0, z);
        }
    }
    return FG_OK;
}

/* With a nan the largest is nan. */
static int is_largest(real x, real largest)
{
    return x == largest || isnan(x);
}

static int max_reverse(fg_batch *b, const step *s)
{
    const size_t lanes = b->lanes;
    real *const ties = b->scratch;
    size_t count, length;
    shape_of_rows(s, &count, &length);
    for (size_t i = 0; i < count; i++) {
        const real *const z = s->z + i * lanes, *const dz = s->dz + i * lanes;
        memset(ties, 0, lanes * sizeof *ties);
        for (size_t j = 0; j < length; j++) {
            const spot x = in_row(s, i, j);
            for (size_t l = 0; l < lanes; l++)
                ties[l] += (real)is_largest(x.data[x.step * l], z[l]);
        }
        for (size_t j = 0; j < length; j++) {
            const spot x = in_row(s, i, j);
            for (size_t l = 0; l < lanes && x.grad; l++)
                if (is_largest(x.data[x.step * l], z[l]) && (x.step || l < b->used))
                    x.grad[x.step * l] += dz[l] / ties[l];
        }
    }
    return FG_OK;
}

/* The rows of x as matrices of lanes, in one piece each: a whole view that is one row is copied if they lie apart. */
static matrix rows_of(fg_batch *b, const step *s, size_t length, real **scratch)
{
    const operand *const x = s->x;
    const matrix m = numbers(b, x, 1, scratch);
    if ((length == x->cols || m.row == (ptrdiff_t)x->cols * m.col) && (b->lanes > 1 || m.col == 1))
        return m;
    real *const p = take(scratch, size_of(x) * b->lanes);
    for (fg_id i = 0; i < x->rows; i++)
        for (fg_id j = 0; j < x->cols; j++)
            memcpy(p + ((size_t)i * x->cols + j) * b->lanes, m.p + (ptrdiff_t)i * m.row + (ptrdiff_t)j * m.col,
                   b->lanes * sizeof *p);
    return (matrix){p, (ptrdiff_t)(x->cols * b->lanes), (ptrdiff_t)b->lanes};
}

/* One row: in lanes, or, of one lane, side by side. */
static void softmax_of_row(const fg_batch *b, int op, size_t length, const real *x, ptrdiff_t x_step, real *z)
{
    const fg_real_kernels *const kernels = b->kernels;
    if (op == FG_LOGSUMEXP && b->lanes == 1)
        z[0] = kernels->logsumexp(length, x);
    else if (op == FG_LOGSUMEXP)
        kernels->lane_logsumexp(b->lanes, length, x, x_step, z);
    else if (b->lanes == 1)
        (op == FG_SOFTMAX ? kernels->softmax : kernels->log_softmax)(length, x, z);
    else
        (op == FG_SOFTMAX ? kernels->lane_softmax : kernels->lane_log_softmax)(b->lanes, length, x, x_step, z);
}

static int softmax_forward(fg_batch *b, const step *s)
{
    real *scratch = b->scratch;
    size_t count, length;
    shape_of_rows(s, &count, &length);
    const matrix x = rows_of(b, s, length, &scratch);
    for (size_t i = 0; i < count; i++) {
        const size_t results = s->op == FG_LOGSUMEXP ? 1 : length;
        softmax_of_row(b, s->op, length, x.p + (ptrdiff_t)i * x.row, x.col, s->z + i * results * b->lanes);
    }
    return FG_OK;
}

/* FG_LOGSUMEXP dx += dz softmax(x); FG_SOFTMAX dx += z (dz - dot(z, dz)); FG_LOG_SOFTMAX dx += dz - exp(z) sum(dz) */
static int softmax_reverse(fg_batch *b, const step *s)
{
    const fg_real_kernels *const kernels = b->kernels;
    const size_t lanes = b->lanes;
    real *scratch = b->scratch;
    size_t count, length;
    shape_of_rows(s, &count, &length);
    real *const p = take(&scratch, length * lanes), *const total = take(&scratch, lanes);
    const matrix x = s->op == FG_LOGSUMEXP ? rows_of(b, s, length, &scratch) : (matrix){NULL, 0, 0};
    for (size_t i = 0; i < count; i++) {
        const size_t at = s->op == FG_LOGSUMEXP ? i * lanes : i * length * lanes;
        const real *const z = s->z + at, *const dz = s->dz + at;
        memset(total, 0, lanes * sizeof *total);
        if (s->op == FG_LOGSUMEXP) {
            softmax_of_row(b, FG_SOFTMAX, length, x.p + (ptrdiff_t)i * x.row, x.col, p);
            for (size_t l = 0; l < lanes; l++)
                if (!isfinite(z[l])) /* exp(x - z) then */
                    for (size_t j = 0; j < length; j++)
                        p[j * lanes + l] =
                            (real)exp(x.p[(ptrdiff_t)i * x.row + (ptrdiff_t)j * x.col + (ptrdiff_t)l] - z[l]);
        } else if (s->op == FG_SOFTMAX && lanes == 1) {
            total[0] = kernels->dot(length, z, dz);
        } else if (s->op == FG_SOFTMAX) {
            kernels->lane_dot(lanes, length, z, (ptrdiff_t)lanes, dz, (ptrdiff_t)lanes, total);
        } else {
            kernels->map(FG_EXP, length * lanes, (const real *const[3]){z}, (const size_t[3]){1}, 0, p);
            for (size_t j = 0; j < length; j++)
                kernels->axpy(lanes, 1.0, dz + j * lanes, total);
        }
        for (size_t j = 0; j < length; j++) {
            const spot to = in_row(s, i, j);
            real *const pj = p + j * lanes;
            if (!to.grad)
                continue;
            for (size_t l = 0; l < lanes; l++)
                pj[l] = s->op == FG_LOGSUMEXP ? dz[l] * pj[l]
                        : s->op == FG_SOFTMAX ? z[j * lanes + l] * (dz[j * lanes + l] - total[l])
                                              : dz[j * lanes + l] - pj[l] * total[l];
            if (to.step)
                kernels->axpy(lanes, 1.0, pj, to.grad);
            else
                to.grad[0] += kernels->sum(b->used, pj);
        }
    }
    return FG_OK;
}

static int cross_entropy_forward(fg_batch *b, const step *s)
{
    const size_t lanes = b->lanes, length = s->x[0].cols, count = s->x[0].rows;
    real *scratch = b->scratch;
    const matrix x = rows_of(b, s, length, &scratch);
    real *const p = take(&scratch, length * lanes);
    memset(s->z, 0, lanes * sizeof *s->z);
    for (size_t i = 0; i < count; i++) {
        softmax_of_row(b, FG_LOG_SOFTMAX, length, x.p + (ptrdiff_t)i * x.row, x.col, p);
        b->kernels->axpy(lanes, -1.0, p + s->labels[i] * lanes, s->z);
    }
    for (size_t l = 0; l < lanes; l++)
        s->z[l] /= (real)count;
    return FG_OK;
}

/* dx += dz / m * (softmax(row) - 1 where the label is) */
static int cross_entropy_reverse(fg_batch *b, const step *s)
{
    const size_t lanes = b->lanes, length = s->x[0].cols, count = s->x[0].rows;
    real *scratch = b->scratch;
    const matrix x = rows_of(b, s, length, &scratch);
    real *const p = take(&scratch, length * lanes), *const d = take(&scratch, lanes);
    for (size_t l = 0; l < lanes; l++)
        d[l] = s->dz[l] / (real)count;
    for (size_t i = 0; i < count; i++) {
        softmax_of_row(b, FG_SOFTMAX, length, x.p + (ptrdiff_t)i * x.row, x.col, p);
        for (size_t j = 0; j < length; j++) {
            const spot to = in_row(s, i, j);
            real *const pj = p + j * lanes;
            const real hit = j == s->labels[i] ? (real)1 : (real)0;
            if (!to.grad)
                continue;
            for (size_t l = 0; l < lanes; l++)
                pj[l] = d[l] * (pj[l] - hit);
            if (to.step)
                b->kernels->axpy(lanes, 1.0, pj, to.grad);
            else
                to.grad[0] += b->kernels->sum(b->used, pj);
        }
    }
    return FG_OK;
}

/* ---- what is done sample by sample, in the body's own slots ---- */

/* The numbers of one lane, into the body. */
static void put_operands(fg_batch *b, const step *s, size_t lane)
{
    for (fg_id k = 0; k < s->n_slots; k++)
        b->body->data[s->slots[k]] = (double)fg_batch_data(b, s->slots[k])[lane];
}

static fg_slots slots_of(fg_batch *b)
{
    fg_slots slots = fg_slots_of(b->body);
    slots.grad = b->each;
    slots.lenient = b->lenient;
    return slots;
}

static int each_forward(fg_batch *b, const step *s)
{
    const fg_slots slots = slots_of(b);
    const fg_id count = s->rows * s->cols, first = s->node - b->body->args[s->node].b;
    for (size_t lane = 0; lane < b->used; lane++) {
        put_operands(b, s, lane);
        const int status = fg_block_forward(&slots, s->op, s->record, first, &b->element);
        if (status != FG_OK && (status == FG_E_INTERRUPTED || !b->lenient)) {
            b->lane = lane;
            return status;
        }
        for (fg_id k = 0; k < count; k++)
            s->z[k * b->lanes + lane] = (real)slots.data[first + k];
    }
    for (fg_id k = 0; k < count; k++)
        for (size_t lane = b->used; lane < b->lanes; lane++)
            s->z[k * b->lanes + lane] = (real)slots.data[first + k];
    return FG_OK;
}

static int each_reverse(fg_batch *b, const step *s)
{
    const fg_slots slots = slots_of(b);
    const fg_id count = s->rows * s->cols, first = s->node - b->body->args[s->node].b;
    for (size_t lane = 0; lane < b->used; lane++) {
        size_t done = 0, wanted = 0;
        put_operands(b, s, lane);
        for (fg_id k = 0; k < s->n_slots; k++)
            slots.grad[s->slots[k]] = 0.0;
        if (s->op == FG_TAKE) /* its record has the positions of the last sample */
            (void)fg_block_forward(&slots, s->op, s->record, first, &b->element);
        for (fg_id k = 0; k < count; k++) {
            slots.data[first + k] = (double)s->z[k * b->lanes + lane];
            slots.grad[first + k] = (double)s->dz[k * b->lanes + lane];
        }
        const int status = fg_block_reverse(&slots, s->op, s->record, first, s->whole ? NULL : b->live, &done, &wanted);
        if (status != FG_OK)
            return status;
        for (fg_id k = 0; k < s->n_slots; k++)
            fg_batch_grad(b, s->slots[k])[lane] += (real)slots.grad[s->slots[k]];
    }
    return FG_OK;
}

/* ---- scans: in lanes of doubles; floats have them sample by sample ---- */

#ifndef FG_SINGLE
/* Where a lane may be at fault, sample by sample: that finds the first, and what it has computed. */
static int scan_forward(fg_batch *b, const step *s)
{
    const int status = fg_lanes_scan_forward(s->scan, b->lenient, b->body->stop, s->z);
    return status == FG_E_DOMAIN ? each_forward(b, s) : status;
}

static int scan_reverse(fg_batch *b, const step *s)
{
    if (!fg_lanes_scan_is_ready(s->scan))
        return each_reverse(b, s);
    return fg_lanes_scan_reverse(s->scan, b->used, b->body->stop, s->dz, s->whole ? NULL : b->live,
                                 s->node - b->body->args[s->node].b);
}
#endif

/* ---- elements at positions: each lane has its own ---- */

enum { TAKEN = 64 }; /* lanes at a time */

/* Position k in so many lanes from `lane` on: which rows, or columns. Whether all of them are some. */
static int find_positions(const step *s, fg_id k, size_t lane, size_t count, fg_id *at)
{
    const spot p = spot_at(s->x + 1, 0, k);
    const fg_id length = s->record->k == FG_TAKE_EACH ? s->x[0].cols : s->x[0].rows;
    for (size_t l = 0; l < count; l++) {
        const double number = p.data[p.step * (lane + l)];
        if (!(number >= -(double)length && number < (double)length) || number != floor(number))
            return 0;
        at[l] = (fg_id)(number < 0.0 ? number + (double)length : number);
    }
    return 1;
}

static int take_forward(fg_batch *b, const step *s)
{
    const int each = s->record->k == FG_TAKE_EACH;
    const fg_id width = each ? 1 : s->cols;
    fg_id at[TAKEN];
    for (size_t lane = 0, count; lane < b->lanes; lane += count) {
        count = b->lanes - lane < TAKEN ? b->lanes - lane : TAKEN;
        for (fg_id k = 0; k < s->x[1].cols; k++) {
            if (!find_positions(s, k, lane, count, at))
                return each_forward(b, s); /* that says which */
            for (fg_id j = 0; j < width; j++) {
                real *const z = s->z + ((size_t)k * width + j) * b->lanes + lane;
                for (size_t l = 0; l < count; l++) {
                    const spot from = each ? spot_at(s->x, k, at[l]) : spot_at(s->x, at[l], j);
                    z[l] = from.data[from.step * (lane + l)];
                }
            }
        }
    }
    return FG_OK;
}

static int take_reverse(fg_batch *b, const step *s)
{
    const int each = s->record->k == FG_TAKE_EACH;
    const fg_id width = each ? 1 : s->cols;
    fg_id at[TAKEN];
    if (!s->whole)
        return each_reverse(b, s);
    for (size_t lane = 0, count; lane < b->used; lane += count) { /* first of all, for nothing is undone */
        count = b->used - lane < TAKEN ? b->used - lane : TAKEN;
        for (fg_id k = 0; k < s->x[1].cols; k++)
            if (!find_positions(s, k, lane, count, at))
                return each_reverse(b, s);
    }
    for (size_t lane = 0, count; lane < b->used && s->x[0].wanted; lane += count) {
        count = b->used - lane < TAKEN ? b->used - lane : TAKEN;
        for (fg_id k = 0; k < s->x[1].cols; k++) {
            (void)find_positions(s, k, lane, count, at);
            for (fg_id j = 0; j < width; j++) {
                const real *const dz = s->dz + ((size_t)k * width + j) * b->lanes + lane;
                for (size_t l = 0; l < count; l++) {
                    const spot to = each ? spot_at(s->x, k, at[l]) : spot_at(s->x, at[l], j);
                    if (to.grad)
                        to.grad[to.step * (lane + l)] += dz[l];
                }
            }
        }
    }
    return FG_OK;
}

/* ---- making a batch ---- */

/* What is known while one is made. */
typedef struct plan {
    fg_batch *b;
    const uint8_t *needed; /* [n] whether a wanted gradient depends on that of this node */
    spot *spot;            /* the next free one; NULL while they are counted */
    fg_id *id;             /* likewise */
    size_t most;           /* scratch of the steps so far */
    size_t calls;          /* likewise FG_CALLs */
} plan;

static spot spot_of(const plan *p, fg_id i)
{
    const fg_batch *const b = p->b;
    return (spot){fg_batch_data(b, i), p->needed[i] ? fg_batch_grad(b, i) : NULL, b->place[i] != UNIFORM};
}

/* Whether a product of matrices can be added to it: no two elements lie at one place, and, of what is the same for all
 * samples, those of a row or of a column lie side by side. */
static int lie_apart(const fg_view *v, ptrdiff_t row, ptrdiff_t col, int varies)
{
    const ptrdiff_t down = row < 0 ? -row : row, across = col < 0 ? -col : col;
    const int rows_apart = v->rows == 1 || down > (ptrdiff_t)(v->cols - 1) * across;
    const int cols_apart = v->cols == 1 || across > (ptrdiff_t)(v->rows - 1) * down;
    if (!varies && v->rows > 1 && v->cols > 1 && row != 1 && col != 1)
        return 0;
    return (rows_apart && (v->cols == 1 || across > 0)) || (cols_apart && (v->rows == 1 || down > 0));
}

/* The elements of a view: as they lie if they lie in order and apart, all varying or none, else listed. */
static operand operand_of(plan *p, const fg_record *r, const fg_view *v)
{
    const fg_batch *const b = p->b;
    operand x = {.rows = v->rows, .cols = v->cols};
    const fg_id first = fg_record_slot(r, v, 0, 0);
    const ptrdiff_t row = v->rows > 1 ? fg_batch_data(b, fg_record_slot(r, v, 1, 0)) - fg_batch_data(b, first) : 0;
    const ptrdiff_t col = v->cols > 1 ? fg_batch_data(b, fg_record_slot(r, v, 0, 1)) - fg_batch_data(b, first) : 0;
    int in_order = 1, some = 0;
    for (fg_id i = 0; i < v->rows; i++)
        for (fg_id j = 0; j < v->cols; j++) {
            const fg_id at = fg_record_slot(r, v, i, j);
            const int varies = b->place[at] != UNIFORM;
            some |= varies;
            x.wanted |= p->needed[at] && !(v->flags & FG_VIEW_CONSTANT);
            in_order = in_order && varies == (b->place[first] != UNIFORM)
                       && fg_batch_data(b, at) - fg_batch_data(b, first) == (ptrdiff_t)i * row + (ptrdiff_t)j * col;
        }
    x.step = (size_t)some;
    if (in_order && (!x.wanted || lie_apart(v, row, col, some && b->lanes > 1))) {
        x.data = fg_batch_data(b, first);
        x.grad = fg_batch_grad(b, first);
        x.row = row;
        x.col = v->cols > 1 ? col : some ? (ptrdiff_t)b->lanes : 1;
        return x;
    }
    p->b->n_spots += size_of(&x);
    if (p->spot) {
        x.list = p->spot;
        for (fg_id i = 0; i < v->rows; i++)
            for (fg_id j = 0; j < v->cols; j++) {
                *p->spot = spot_of(p, fg_record_slot(r, v, i, j));
                if (v->flags & FG_VIEW_CONSTANT)
                    p->spot->grad = NULL;
                p->spot++;
            }
    }
    return x;
}

static operand single(plan *p, fg_id i)
{
    const spot s = spot_of(p, i);
    return (operand){.rows = 1, .cols = 1, .data = s.data, .grad = s.grad, .step = s.step, .wanted = s.grad != NULL};
}

/* Whether the elements of every operand follow each other as the results do, or are one for all. */
static int lie_together(const fg_batch *b, const step *s)
{
    for (fg_id v = 0; v < s->operands; v++) {
        const operand *const x = s->x + v;
        const int one = x->rows == 1 && x->cols == 1;
        const int dense = x->rows == s->rows && x->cols == s->cols && !x->list && x->step
                          && (x->cols == 1 || x->col == (ptrdiff_t)b->lanes)
                          && (x->rows == 1 || x->row == (ptrdiff_t)(x->cols * b->lanes));
        if (!dense && !(one && !x->step) && !(one && s->rows * s->cols == 1))
            return 0;
    }
    return 1;
}

/* Whether they do so once some are copied. A number that is one for all is read as it is, if it takes no gradient. */
static int lie_spread(const fg_batch *b, const step *s)
{
    for (fg_id v = 0; v < s->operands; v++) {
        const operand *const x = s->x + v;
        const int in_row = (x->cols == 1 || x->col == (ptrdiff_t)b->lanes)
                           && (x->rows == 1 || x->row == (ptrdiff_t)(x->cols * b->lanes));
        const int copied = x->list || !x->step;
        if (is_single(x) ? x->step || x->wanted : x->rows != s->rows || x->cols != s->cols || (!copied && !in_row))
            return 0;
    }
    return !is_single(&(operand){.rows = s->rows, .cols = s->cols}) && b->lanes > 1;
}

static size_t larger(size_t x, size_t y)
{
    return x > y ? x : y;
}

/* The varying operands of what is done sample by sample. The body's marks are all clear, before and after. */
static void set_each(plan *p, step *s, fg_record *r)
{
    fg_batch *const b = p->b;
    uint64_t *const word = b->body->marks.word;
    s->forward = each_forward;
    s->reverse = each_reverse;
    s->slots = p->id;
    for (int clear = 0; clear < 2; clear++)
        for (fg_id v = 0; v < r->views; v++) {
            const fg_view *const view = fg_record_view(r, v);
            for (fg_id row = 0; row < view->rows; row++)
                for (fg_id col = 0; col < view->cols; col++) {
                    const fg_id i = fg_record_slot(r, view, row, col);
                    const uint64_t bit = (uint64_t)1 << (i & 63u);
                    if (!clear && b->place[i] != UNIFORM && !(word[i >> 6] & bit)) {
                        if (p->id)
                            *p->id++ = i;
                        s->n_slots++;
                        b->n_ids++;
                        word[i >> 6] |= bit;
                    } else if (clear) {
                        word[i >> 6] &= ~bit;
                    }
                }
        }
}

#ifndef FG_SINGLE
static const fg_scan *scan_called(const fg_tape *t, const fg_record *r)
{
    const fg_callee *const c = fg_tape_callee(t, r);
    return c->steps == &fg_scan_steps ? (const fg_scan *)(const void *)c : NULL; /* its first member */
}

/* A scan in lanes, and where its operands are. */
static void set_scan(plan *p, step *s, fg_record *r)
{
    fg_spot *const operands = fg_lanes_scan_operands(s->scan);
    const fg_callee *const c = fg_tape_callee(p->b->body, r);
    for (fg_id v = 0; v < r->views; v++) {
        const fg_view *const view = fg_record_view(r, v);
        for (fg_id e = 0; e < c->segments[v].count; e++) {
            fg_spot *const at = operands + c->segments[v].first + e;
            *at = spot_of(p, fg_record_slot(r, view, e / view->cols, e % view->cols));
            if (view->flags & FG_VIEW_CONSTANT)
                at->grad = NULL;
        }
    }
    s->forward = scan_forward;
    s->reverse = scan_reverse;
}
#endif

static void set_block(plan *p, step *s, fg_id i)
{
    fg_tape *const t = p->b->body;
    fg_record *const r = fg_tape_record(t, i);
    const size_t lanes = p->b->lanes;
    size_t need = lanes;
    s->record = r;
    s->rows = r->rows;
    s->cols = r->cols;
    s->work = (size_t)r->rows * r->cols * lanes;
    if (s->op == FG_CALL || s->op == FG_TAKE) {
        set_each(p, s, r);
#ifndef FG_SINGLE
        if (s->op == FG_CALL && (s->scan = p->b->scans[p->calls++]) != NULL)
            set_scan(p, s, r);
#endif
        for (fg_id v = 0; v < r->views && s->op == FG_TAKE; v++) {
            s->x[v] = operand_of(p, r, fg_record_view(r, v));
            s->forward = take_forward;
            s->reverse = take_reverse;
        }
        return;
    }
    s->operands = r->views;
    for (fg_id v = 0; v < r->views; v++) {
        s->x[v] = operand_of(p, r, fg_record_view(r, v));
        need += 2 * size_of(s->x + v) * lanes;
    }
    switch (s->op) {
    case FG_MAP:
        s->op = (int)r->param;
        s->k = (int32_t)r->k;
        s->forward = map_forward;
        s->reverse = map_reverse;
        s->together = lie_together(p->b, s);
        for (fg_id v = 0; v < r->views; v++)
            s->sums |= !s->x[v].step && s->x[v].wanted;
        s->spread = !s->together && lie_spread(p->b, s);
        if (s->together)
            need = 0;
        break;
    case FG_LAYER: {
        const size_t m = s->rows, n = s->cols, k = s->x[0].cols;
        const fg_real_kernels *const kernels = p->b->kernels;
        s->row = (int)r->param;
        s->work *= k;
        s->forward = layer_forward;
        s->reverse = layer_reverse;
        need += m * n * lanes;
        need += larger(larger(kernels->gemm_work(n, lanes, k), kernels->gemm_work(k, lanes, n)),
                       larger(kernels->gemm_work(n, k, lanes), kernels->gemm_work(k, n, lanes)));
        if (lanes == 1)
            need += larger(larger(kernels->gemm_work(m, n, k), kernels->gemm_work(m, k, n)),
                           kernels->gemm_work(n, k, m)); /* which is symmetric in rows and columns */
        break;
    }
    case FG_SUM:
    case FG_MEAN:
        s->forward = sum_forward;
        s->reverse = sum_reverse;
        break;
    case FG_MAX:
        s->forward = max_forward;
        s->reverse = max_reverse;
        break;
    case FG_CROSS_ENTROPY:
        s->labels = fg_record_extra(r);
        s->forward = cross_entropy_forward;
        s->reverse = cross_entropy_reverse;
        need += (s->x[0].cols + 1) * lanes;
        break;
    default:
        assert(fg_op_is_along_rows(s->op));
        s->forward = softmax_forward;
        s->reverse = softmax_reverse;
        need += (size_of(s->x) + 1) * lanes;
    }
    p->most = larger(p->most, need);
}

/* The step of varying instruction i. */
static void set_step(plan *p, step *s, fg_id i)
{
    fg_tape *const t = p->b->body;
    const int op = fg_tape_op(t, i);
    const fg_id first = i - (fg_op_is_block(op) ? t->args[i].b : 0);
    *s = (step){.node = i, .op = op, .rows = 1, .cols = 1, .work = p->b->lanes,
                .z = fg_batch_data(p->b, first), .dz = fg_batch_grad(p->b, first)};
    if (fg_op_is_block(op)) {
        set_block(p, s, i);
        return;
    }
    const fg_id *const operands = fg_tape_operands(t, i, &s->operands);
    for (fg_id v = 0; v < s->operands; v++) {
        s->x[v] = single(p, operands[v]);
        s->sums |= !s->x[v].step && s->x[v].wanted;
    }
    s->k = s->operands == 1 ? (int32_t)t->args[i].b : 0;
    s->together = 1;
    s->forward = map_forward;
    s->reverse = map_reverse;
}

static int is_step(const fg_tape *t, fg_id i)
{
    const int op = fg_tape_op(t, i);
    return !fg_op_is_leaf(op) && op != FG_PART && op != FG_RUN;
}

/* Whether a flag is up for one of the operands; without `constants`, of those that gradients flow to. */
static int any_operand(const fg_tape *t, fg_id i, const uint8_t *flags, int constants)
{
    fg_operands o;
    fg_tape_views(t, i, &o);
    for (fg_id v = 0; v < o.count; v++) {
        const fg_view *const view = o.view + v;
        for (fg_id row = 0; row < view->rows && (constants || !(view->flags & FG_VIEW_CONSTANT)); row++)
            for (fg_id col = 0; col < view->cols; col++)
                if (flags[fg_view_slot(o.words, view, row, col)])
                    return 1;
    }
    return 0;
}

static void spread(const fg_tape *t, fg_id operands, uint8_t *flags, int constants)
{
    for (fg_id i = operands + 1; i < t->n; i++)
        if (is_step(t, i)) {
            flags[i] = (uint8_t)any_operand(t, i, flags, constants);
            if (fg_op_is_block(fg_tape_op(t, i)))
                memset(flags + (i - t->args[i].b), flags[i], t->args[i].b);
        }
}

static int allocate(fg_mem *mem, void *array, size_t count, size_t size)
{
    return fg_mem_resize(mem, array, 0, count, size);
}

static void release(fg_mem *mem, void *array, size_t count, size_t size)
{
    void **const where = array;
    if (*where)
        (void)fg_mem_resize(mem, where, count, 0, size);
}

/* How many lanes: so many that the numbers stay near, and that as few as possible have no sample. best: at
 * most so many, unless it is 0. One sample of floats has one lane: then vectors go along rows. */
static size_t choose_lanes(size_t slots, size_t samples, size_t most, size_t best)
{
    enum { NEAR = (1 << 20) / sizeof(real), LEAST = 64 / sizeof(real), MOST = 1024 }; /* and as many gradients */
#ifdef FG_SINGLE
    if (samples == 1)
        return 1;
#endif
    if (most == 0) {
        most = NEAR / (slots + 1);
        most = most < LEAST ? LEAST : most > MOST ? MOST : most;
        most = best > 0 && best < most ? best : most;
    }
    const size_t blocks = (samples + most - 1) / most, lanes = (samples + blocks - 1) / blocks;
    return (lanes + LEAST - 1) / LEAST * LEAST;
}

/* Where each varying node's numbers are, and how many steps there are. */
static int place_nodes(fg_batch *b, const uint8_t *varying)
{
    const fg_tape *const t = b->body;
    if (allocate(b->mem, &b->place, t->n, sizeof *b->place) < 0)
        return FG_E_MEMORY;
    for (fg_id i = 0; i < t->n; i++) {
        const int op = fg_tape_op(t, i);
        const int number = op != FG_RUN && !(fg_op_is_block(op) && t->args[i].b > 0);
        b->place[i] = varying[i] && number ? (uint32_t)b->slots++ : UNIFORM;
        b->count += varying[i] && is_step(t, i);
    }
    return FG_OK;
}

/* All steps: first they are counted, and then there is memory for their lists. */
static int set_steps(fg_batch *b, const uint8_t *varying, const uint8_t *needed)
{
    const fg_tape *const t = b->body;
    for (int counted = 0;; counted++) {
        plan p = {b, needed, b->spots, b->ids, 0, 0};
        step *s = b->steps;
        b->n_spots = b->n_ids = 0;
        for (fg_id i = 1; i < t->n; i++)
            if (varying[i] && is_step(t, i))
                set_step(&p, s++, i);
        if (counted)
            return FG_OK;
        if (allocate(b->mem, &b->spots, b->n_spots, sizeof *b->spots) < 0
            || allocate(b->mem, &b->ids, b->n_ids, sizeof *b->ids) < 0
            || allocate(b->mem, &b->scratch, p.most, sizeof *b->scratch) < 0)
            return FG_E_MEMORY;
        b->scratch_size = p.most;
    }
}

#ifndef FG_SINGLE
/* What computes scans in lanes; *best: how many lanes they would have, if that is fewer. */
static int make_scans(fg_batch *b, const uint8_t *varying, const uint8_t *needed, size_t *best)
{
    fg_tape *const t = b->body;
    size_t calls = 0;
    for (fg_id i = 1; i < t->n; i++)
        calls += varying[i] && fg_tape_op(t, i) == FG_CALL;
    if (allocate(b->mem, &b->scans, calls, sizeof *b->scans) < 0)
        return FG_E_MEMORY;
    for (; b->n_calls < calls; b->n_calls++)
        b->scans[b->n_calls] = NULL;
    calls = 0;
    for (fg_id i = 1; i < t->n; i++) {
        if (!varying[i] || fg_tape_op(t, i) != FG_CALL)
            continue;
        fg_record *const r = fg_tape_record(t, i);
        const fg_scan *const scan = scan_called(t, r);
        fg_lanes_scan **const made = b->scans + calls++;
        uint8_t *flags = NULL; /* wanted, and then varies */
        if (!scan)
            continue;
        const size_t area = (size_t)scan->area + 1;
        if (allocate(b->mem, &flags, 2 * area, 1) < 0)
            return FG_E_MEMORY;
        memset(flags, 0, 2 * area);
        for (fg_id v = 0; v < r->views; v++) {
            const fg_view *const view = fg_record_view(r, v);
            for (fg_id e = 0; e < scan->callee.segments[v].count; e++) {
                const fg_id slot = fg_record_slot(r, view, e / view->cols, e % view->cols);
                flags[scan->callee.segments[v].first + e] = !(view->flags & FG_VIEW_CONSTANT) && needed[slot];
                flags[area + scan->callee.segments[v].first + e] = varying[slot];
            }
        }
        const int status = fg_lanes_scan_make(made, scan, b->mem, flags, flags + area);
        release(b->mem, &flags, 2 * area, 1);
        if (status < 0)
            return status;
        if (*made && (*best == 0 || fg_lanes_scan_best(*made) < *best))
            *best = fg_lanes_scan_best(*made);
    }
    return FG_OK;
}
#endif

int fg_batch_make(fg_batch **made, fg_program *program, fg_mem *mem, const uint8_t *varies, size_t samples,
                  size_t most_lanes)
{
    fg_tape *const body = &program->body;
    const fg_id n = body->n, area = program->area;
    uint8_t *varying = NULL, *needed = NULL;
    if (allocate(mem, made, 1, sizeof **made) < 0)
        return FG_E_MEMORY;
    fg_batch *const b = *made;
#ifdef FG_SINGLE
    *b = (fg_batch){.program = program, .body = body, .kernels = body->kernels->single, .mem = mem};
#else
    *b = (fg_batch){.program = program, .body = body, .kernels = body->kernels, .mem = mem, .uniform = body->data};
#endif
    int status = allocate(mem, &varying, n, 1);
    if (status == FG_OK)
        status = allocate(mem, &needed, n, 1);
    if (status == FG_OK) {
        memset(varying, 0, n);
        memset(needed, 0, n);
        for (fg_id i = 1; i <= area; i++) {
            varying[i] = varies[i];
            needed[i] = (uint8_t)(program->used[i >> 6] >> (i & 63u) & 1u);
        }
        spread(body, area, varying, 1);
        spread(body, area, needed, 0);
        status = place_nodes(b, varying);
    }
    size_t best = 0;
#ifndef FG_SINGLE
    if (status == FG_OK)
        status = make_scans(b, varying, needed, &best);
#endif
    if (status == FG_OK) {
        const size_t lanes = b->lanes = choose_lanes(b->slots, samples, most_lanes, best);
        if (allocate(mem, &b->data, b->slots * lanes, sizeof *b->data) < 0
            || allocate(mem, &b->grad, b->slots * lanes, sizeof *b->grad) < 0
            || allocate(mem, &b->sums, n, sizeof *b->sums) < 0
#ifdef FG_SINGLE
            || allocate(mem, &b->uniform, n, sizeof *b->uniform) < 0
            || allocate(mem, &b->each, n, sizeof *b->each) < 0
#endif
            || allocate(mem, &b->steps, b->count, sizeof *b->steps) < 0)
            status = FG_E_MEMORY;
        for (size_t k = 0; k < b->n_calls && status == FG_OK; k++)
            if (b->scans[k])
                status = fg_lanes_scan_set_lanes(b->scans[k], lanes);
    }
#ifndef FG_SINGLE
    b->each = b->sums;
#endif
    if (status == FG_OK)
        status = set_steps(b, varying, needed);
    (void)fg_mem_resize(mem, (void **)&varying, varying ? n : 0, 0, 1);
    (void)fg_mem_resize(mem, (void **)&needed, needed ? n : 0, 0, 1);
    return status;
}

void fg_batch_free(fg_batch *b)
{
    fg_mem *const mem = b->mem;
    for (size_t k = 0; k < b->n_calls; k++)
        if (b->scans[k])
            fg_lanes_scan_free(b->scans[k]);
    release(mem, &b->scans, b->n_calls, sizeof *b->scans);
    release(mem, &b->place, b->body->n, sizeof *b->place);
    release(mem, &b->data, b->slots * b->lanes, sizeof *b->data);
    release(mem, &b->grad, b->slots * b->lanes, sizeof *b->grad);
    release(mem, &b->sums, b->body->n, sizeof *b->sums);
#ifdef FG_SINGLE
    release(mem, &b->uniform, b->body->n, sizeof *b->uniform);
    release(mem, &b->each, b->body->n, sizeof *b->each);
#endif
    release(mem, &b->steps, b->count, sizeof *b->steps);
    release(mem, &b->spots, b->n_spots, sizeof *b->spots);
    release(mem, &b->ids, b->n_ids, sizeof *b->ids);
    release(mem, &b->scratch, b->scratch_size, sizeof *b->scratch);
    release(mem, &b, 1, sizeof *b);
}

/* ---- running it ---- */

static int wants_stop(const fg_batch *b, size_t *work, size_t more)
{
    *work += more;
    if (*work < STOP_AFTER)
        return 0;
    *work = 0;
    return b->body->stop && b->body->stop();
}

int fg_batch_forward(fg_batch *b, size_t used, int lenient)
{
    size_t work = 0;
    b->used = used;
    b->lenient = lenient;
    for (size_t k = 0; k < b->count; k++) {
        const step *const s = b->steps + k;
        const int status = s->forward(b, s);
        if (status != FG_OK) {
            b->at = s;
            b->status = status;
            return status;
        }
        if (wants_stop(b, &work, s->work))
            return FG_E_INTERRUPTED;
    }
    return FG_OK;
}

void fg_batch_go_by(fg_batch *b, const uint64_t *live)
{
    b->live = live;
    for (size_t k = 0; k < b->count; k++) {
        step *const s = b->steps + k;
        const fg_id i = s->node, first = i - (fg_op_is_block(fg_tape_op(b->body, i)) ? b->body->args[i].b : 0);
        s->live = 0;
        s->whole = 1;
        for (fg_id j = first; j < first + s->rows * s->cols; j++) {
            s->live |= is_live(b, j);
            s->whole &= is_live(b, j);
        }
    }
}

void fg_batch_clear(fg_batch *b)
{
    if (b->slots > 0)
        memset(b->grad, 0, b->slots * b->lanes * sizeof *b->grad);
    memset(b->sums, 0, b->body->n * sizeof *b->sums);
#ifdef FG_SINGLE
    if (b->n_ids > 0) /* else nothing is done sample by sample */
        memset(b->each, 0, b->body->n * sizeof *b->each);
#endif
}

int fg_batch_reverse(fg_batch *b)
{
    size_t work = 0;
    b->lenient = 1;
    for (size_t k = b->count; k-- > 0;) {
        const step *const s = b->steps + k;
        if (!s->live)
            continue;
        const int status = s->reverse(b, s);
        if (status != FG_OK)
            return status;
        if (wants_stop(b, &work, s->work))
            return FG_E_INTERRUPTED;
    }
    return FG_OK;
}

void fg_batch_add_sums(const fg_batch *b, double *total)
{
#ifdef FG_SINGLE
    for (fg_id i = 0; i < b->body->n; i++)
        total[i] += (double)b->sums[i];
    if (b->n_ids > 0)
        b->body->kernels->axpy(b->body->n, 1.0, b->each, total);
#else
    b->kernels->axpy(b->body->n, 1.0, b->sums, total);
#endif
}

/* ---- faults ---- */

int fg_batch_fault(const fg_batch *b, double x[3], int32_t *k, int *status)
{
    const step *const s = b->at;
    *status = b->status;
    if (s->op == FG_CALL) {
        const fg_callee *const called = fg_tape_callee(b->body, s->record);
        return called->steps->fault(called, x, k, status);
    }
    if (s->op == FG_TAKE) { /* the body still has that sample */
        fg_record *const r = s->record;
        x[0] = b->body->data[fg_record_slot(r, fg_record_view(r, 1), 0, b->element)];
        *k = (int32_t)(r->k == FG_TAKE_EACH ? fg_record_view(r, 0)->cols : fg_record_view(r, 0)->rows);
        return s->op;
    }
    assert(!fg_op_is_block(s->op));
    double z;
    for (fg_id v = 0; v < s->operands; v++) {
        const spot at = spot_at(s->x + v, s->x[v].rows > 1 ? b->element / s->cols : 0,
                                s->x[v].cols > 1 ? b->element % s->cols : 0);
        x[v] = (double)at.data[at.step * b->lane];
    }
    *k = s->k;
    *status = fg_op_compute(s->op, x, *k, &z);
    if (*status == FG_OK) /* a float is out of its range sooner than a double */
        *status = FG_E_OVERFLOW;
    return s->op;
}

#ifndef FG_SINGLE
#define FG_BATCH_STEPS fg_batch_of_doubles
#endif

const fg_batch_steps FG_BATCH_STEPS = {
    fg_batch_make,    fg_batch_free,  fg_batch_lanes, fg_batch_is_varying, fg_batch_put,      fg_batch_get,
    fg_batch_refresh, fg_batch_forward, fg_batch_go_by, fg_batch_clear,      fg_batch_seed,     fg_batch_reverse,
    fg_batch_give,    fg_batch_add_sums, fg_batch_fault, fg_batch_has_scans,
};
