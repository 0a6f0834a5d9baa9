/* kernels_rows32.h: rows of ops.def for many lanes of floats, forward and reverse.
 *
 * The rows that programs have often are vectors here. They say what ops.def says, but a product with a factor of 0 may
 * have another sign. All other rows are computed by the kernels for doubles, a few lanes at a time, and rounded. */
#ifndef FG_KERNELS_ROWS32_H
#define FG_KERNELS_ROWS32_H

#include "kernels32.h"
#include "kernels_elementary32.h"
#include "kernels_lanes.h"

enum { CHUNK = 128 };

/* The rows that vector_row has, and how many operands each takes. */
#define VECTOR_ROWS(ROW)                                                                                          \
    ROW(COPY, 1) ROW(NEG, 1) ROW(POWI, 1) ROW(EXP, 1) ROW(LOG, 1) ROW(LOG1P, 1) ROW(EXPM1, 1) ROW(SQRT, 1)        \
    ROW(SIN, 1) ROW(COS, 1) ROW(ABS, 1) ROW(RELU, 1) ROW(LEAKY_RELU, 2) ROW(ELU, 2) ROW(GELU, 1)                  \
    ROW(GELU_TANH, 1) ROW(SILU, 1) ROW(SOFTPLUS, 1) ROW(TANH, 1) ROW(SIGMOID, 1) ROW(ADD, 2) ROW(SUB, 2)          \
    ROW(MUL, 2) ROW(DIV, 2) ROW(POW, 2) ROW(POWC, 2) ROW(MAXIMUM, 2) ROW(MINIMUM, 2) ROW(SQUARED_ERROR, 2)        \
    ROW(HINGE, 2) ROW(ABSOLUTE_ERROR, 2) ROW(BCE_WITH_LOGITS, 2) ROW(WHERE, 3) ROW(SIGN, 1) ROW(LOGARITHM, 1)     \
    ROW(GELU_SLOPE, 1) ROW(GELU_TANH_SLOPE, 1) ROW(SILU_SLOPE, 1) ROW(QUOTIENT, 2) ROW(GATE, 2) ROW(LESS, 2)      \
    ROW(LESS_EQUAL, 2) ROW(EQUAL, 2) ROW(TANH_SLOPE, 2) ROW(SIGMOID_SLOPE, 2) ROW(SHARE, 3)

FG_INLINE vd v_maximum(vd x, vd y)
{
    const vd nan = v_add(x, y);
    return v_select(v_ge(x, y), x, v_select(v_lt(x, y), y, nan));
}

FG_INLINE vd v_sign(vd x)
{
    const vd zero = v_set1(0.0f), one = v_set1(1.0f);
    return v_select(v_lt(zero, x), one, v_select(v_lt(x, zero), v_set1(-1.0f), zero));
}

/* fg_dmaximum */
FG_INLINE vd v_share(vd x, vd y, vd dz)
{
    return v_select(v_lt(x, y), v_set1(0.0f), v_select(v_eq(x, y), v_mul(v_set1(0.5f), dz), dz));
}

FG_INLINE vd vector_row(int op, vd x, vd y, vd w, int32_t k)
{
    const vd zero = v_set1(0.0f), one = v_set1(1.0f);
    switch (op) {
    case FG_COPY:
        return x;
    case FG_NEG:
        return v_neg(x);
    case FG_POWI:
        return v_powi(x, k);
    case FG_EXP:
        return v_exp(x);
    case FG_LOG:
        return v_log(x);
    case FG_LOG1P:
        return v_log1p(x);
    case FG_EXPM1:
        return v_expm1(x);
    case FG_SQRT:
        return v_sqrt(x);
    case FG_SIN:
        return v_sin(x);
    case FG_COS:
        return v_cos(x);
    case FG_ABS:
        return v_abs(x);
    case FG_RELU:
        return v_select(v_lt(x, zero), zero, x);
    case FG_LEAKY_RELU:
        return v_select(v_lt(zero, x), x, v_mul(y, x));
    case FG_ELU:
        return v_select(v_lt(zero, x), x, v_mul(y, v_expm1(x)));
    case FG_GELU:
        return v_gelu(x);
    case FG_GELU_TANH:
        return v_gelu_tanh(x);
    case FG_SILU:
        return v_silu(x);
    case FG_SOFTPLUS:
        return v_softplus(x);
    case FG_TANH:
        return v_tanh(x);
    case FG_SIGMOID:
        return v_sigmoid(x);
    case FG_ADD:
        return v_add(x, y);
    case FG_SUB:
        return v_sub(x, y);
    case FG_MUL:
        return v_mul(x, y);
    case FG_DIV:
        return v_div(x, y);
    case FG_POW:
    case FG_POWC:
        return v_power(x, y);
    case FG_MAXIMUM:
        return v_maximum(x, y);
    case FG_MINIMUM:
        return v_select(v_ge(y, x), x, v_select(v_lt(y, x), y, v_add(x, y)));
    case FG_SQUARED_ERROR: {
        const vd d = v_sub(x, y);
        return v_mul(d, d);
    }
    case FG_HINGE: {
        const vd d = v_sub(one, v_mul(x, y));
        return v_select(v_lt(d, zero), zero, d);
    }
    case FG_ABSOLUTE_ERROR:
        return v_abs(v_sub(x, y));
    case FG_BCE_WITH_LOGITS:
        return v_add(v_mul(v_select(v_lt(zero, x), v_sub(one, y), v_neg(y)), x), v_log1p_exp(x));
    case FG_SIGN:
        return v_sign(x);
    case FG_LOGARITHM:
        return v_log(x);
    case FG_GELU_SLOPE:
        return v_gelu_slope(x);
    case FG_GELU_TANH_SLOPE:
        return v_gelu_tanh_slope(x);
    case FG_SILU_SLOPE:
        return v_silu_slope(x);
    case FG_QUOTIENT:
        return v_div(x, y);
    case FG_GATE:
        return v_mul(v_select(v_lt(zero, x), one, zero), y);
    case FG_LESS:
        return v_select(v_lt(x, y), one, zero);
    case FG_LESS_EQUAL:
        return v_select(v_ge(y, x), one, zero);
    case FG_EQUAL:
        return v_select(v_eq(x, y), one, v_select(v_isnan(x), v_select(v_isnan(y), one, zero), zero));
    case FG_TANH_SLOPE:
        return v_mul(v_fnma(x, x, one), y);
    case FG_SIGMOID_SLOPE:
        return v_mul(v_mul(x, v_sub(one, x)), y);
    case FG_SHARE:
        return v_share(x, y, w);
    default: /* FG_WHERE */
        return v_select(v_eq(x, zero), w, y);
    }
}

/* fg_dpow_dx */
FG_INLINE vd v_power_slope(vd x, vd y)
{
    const vd one = v_set1(1.0f), zero = v_set1(0.0f);
    return v_select(v_eq(y, zero), zero, v_mul(y, v_power(x, v_sub(y, one))));
}

/* What the rule adds to the gradient of operand `which`. */
FG_INLINE vd vector_rule(int op, int which, vd x, vd y, int32_t k, vd z, vd dz)
{
    const vd zero = v_set1(0.0f), one = v_set1(1.0f);
    switch (op) {
    case FG_COPY:
    case FG_ADD:
        return dz;
    case FG_NEG:
        return v_neg(dz);
    case FG_POWI:
        if (k == 0)
            return v_mul(zero, dz);
        if (k == INT32_MIN)
            return v_mul(v_power_slope(x, v_set1((float)k)), dz);
        return v_mul(v_mul(v_set1((float)k), v_powi(x, k - 1)), dz);
    case FG_EXP:
        return v_mul(z, dz);
    case FG_LOG:
    case FG_LOGARITHM:
        return v_div(dz, x);
    case FG_LOG1P:
        return v_div(dz, v_add(one, x));
    case FG_EXPM1:
        return v_mul(v_add(z, one), dz);
    case FG_SQRT:
        return v_div(dz, v_add(z, z));
    case FG_SIN:
        return v_mul(v_cos(x), dz);
    case FG_COS:
        return v_mul(v_neg(v_sin(x)), dz);
    case FG_ABS:
        return v_mul(v_sign(x), dz);
    case FG_RELU:
        return v_mul(v_select(v_lt(zero, z), one, zero), dz);
    case FG_LEAKY_RELU:
        if (which == 0)
            return v_mul(v_select(v_lt(zero, x), one, y), dz);
        return v_mul(v_select(v_lt(zero, x), zero, x), dz);
    case FG_ELU:
        if (which == 0)
            return v_mul(v_select(v_lt(zero, x), one, v_mul(y, v_exp(x))), dz);
        return v_mul(v_select(v_lt(zero, x), zero, v_expm1(x)), dz);
    case FG_GELU:
        return v_mul(v_gelu_slope(x), dz);
    case FG_GELU_TANH:
        return v_mul(v_gelu_tanh_slope(x), dz);
    case FG_SILU:
        return v_mul(v_silu_slope(x), dz);
    case FG_SOFTPLUS:
        return v_mul(v_sigmoid(x), dz);
    case FG_TANH:
        return v_mul(v_fnma(z, z, one), dz);
    case FG_SIGMOID:
        return v_mul(v_mul(z, v_sub(one, z)), dz);
    case FG_SUB:
        return which == 0 ? dz : v_neg(dz);
    case FG_MUL:
        return v_mul(which == 0 ? y : x, dz);
    case FG_DIV:
    case FG_QUOTIENT:
        return which == 0 ? v_div(dz, y) : v_neg(v_mul(v_div(v_div(x, y), y), dz));
    case FG_POW:
    case FG_POWC:
        return v_mul(v_power_slope(x, y), dz);
    case FG_MAXIMUM:
        return which == 0 ? v_share(x, y, dz) : v_share(y, x, dz);
    case FG_MINIMUM:
        return which == 0 ? v_share(y, x, dz) : v_share(x, y, dz);
    case FG_SQUARED_ERROR: {
        const vd d = v_sub(x, y), twice = v_add(d, d);
        return v_mul(which == 0 ? twice : v_neg(twice), dz);
    }
    case FG_HINGE:
        return v_mul(v_mul(v_select(v_lt(zero, z), one, zero), dz), v_neg(which == 0 ? y : x));
    case FG_ABSOLUTE_ERROR: {
        const vd s = v_sign(v_sub(x, y));
        return v_mul(which == 0 ? s : v_neg(s), dz);
    }
    case FG_BCE_WITH_LOGITS: {
        if (which == 1)
            return v_mul(v_neg(x), dz);
        const vd s = v_sigmoid(v_or(v_abs(x), v_set1(-0.0f)));
        return v_mul(v_select(v_lt(zero, x), v_sub(v_sub(one, y), s), v_sub(s, y)), dz);
    }
    case FG_SIGN:
    case FG_LESS:
    case FG_LESS_EQUAL:
    case FG_EQUAL:
        return zero;
    case FG_GATE:
        return which == 0 ? zero : v_mul(v_select(v_lt(zero, x), one, zero), dz);
    case FG_TANH_SLOPE:
        return v_mul(which == 0 ? v_mul(v_mul(v_set1(-2.0f), x), y) : v_fnma(x, x, one), dz);
    case FG_SIGMOID_SLOPE:
        return v_mul(which == 0 ? v_mul(v_sub(one, v_add(x, x)), y) : v_mul(x, v_sub(one, x)), dz);
    case FG_SHARE:
        return which == 2 ? v_share(x, y, dz) : zero;
    default: /* FG_WHERE */
        if (which == 0)
            return zero;
        return which == 1 ? v_select(v_eq(x, zero), zero, dz) : v_select(v_eq(x, zero), dz, zero);
    }
}

/* Whether vector_rule has the rule, of a row that vector_row has. */
FG_INLINE int has_rule(int op, int which)
{
    const int power = (op == FG_POW || op == FG_POWC) && which == 1;
    return !power && op != FG_GELU_SLOPE && op != FG_GELU_TANH_SLOPE && op != FG_SILU_SLOPE;
}

/* Lanes of an operand from i on, `count` of them; all are the first where `step` is 0. Lanes past a part are 1, which
 * no function leaves to libm. */
FG_INLINE vd lanes_from(const float *p, size_t step, size_t i, size_t count)
{
    if (!step)
        return v_set1(*p);
    if (count >= FG_W)
        return v_load(p + i);
    const vd one = v_set1(1.0f);
    return v_or(v_load_part(p + i, count), v_sub(one, v_part(one, count)));
}

/* Returns whether there is a lane whose status may not be FG_OK: then its result is not finite. */
FG_INLINE int map_vectors(int op, int arity, size_t n, const float *const xs[3], const size_t step[3], int32_t k,
                          float *z)
{
    const int of_y = arity > 1 ? 1 : 0, of_w = arity > 2 ? 2 : 0;
    const vd inf = v_set1(INFINITY), one = v_set1(1.0f), zero = v_set1(0.0f);
    vd doubts = zero;
    for (size_t i = 0; i < n; i += FG_W) {
        const size_t count = n - i;
        const vd x = lanes_from(xs[0], step[0], i, count);
        const vd y = arity > 1 ? lanes_from(xs[of_y], step[of_y], i, count) : x;
        const vd w = arity > 2 ? lanes_from(xs[of_w], step[of_w], i, count) : y;
        const vd results = vector_row(op, x, y, w, k);
        const vd doubt = v_select(v_lt(v_abs(results), inf), zero, one);
        if (count >= FG_W) {
            v_store(z + i, results);
            doubts = v_add(doubts, doubt);
        } else {
            v_store_part(z + i, count, results);
            doubts = v_add(doubts, v_part(doubt, count));
        }
    }
    return v_sum(doubts) != 0.0f;
}

/* dx grows by what the rule adds in each lane; with step 0, dx[0] by the sum of all. */
FG_INLINE void grad_vectors(int op, int arity, int which, size_t n, const float *const xs[3], const size_t step[3],
                            int32_t k, const float *zs, const float *dzs, float *dx)
{
    const int of_y = arity > 1 ? 1 : 0;
    vd total = v_set1(0.0f);
    for (size_t i = 0; i < n; i += FG_W) {
        const size_t count = n - i;
        const vd x = lanes_from(xs[0], step[0], i, count);
        const vd y = arity > 1 ? lanes_from(xs[of_y], step[of_y], i, count) : x;
        const vd more = vector_rule(op, which, x, y, k, lanes_from(zs, 1, i, count), lanes_from(dzs, 1, i, count));
        if (!step[which])
            total = v_add(total, count >= FG_W ? more : v_part(more, count));
        else if (count >= FG_W)
            v_store(dx + i, v_add(v_load(dx + i), more));
        else
            v_store_part(dx + i, count, v_add(v_load_part(dx + i, count), more));
    }
    if (!step[which])
        dx[0] += v_sum(total);
}

#define ROW(ID, arity)                                                                                             \
    static int map_##ID(size_t n, const float *const xs[3], const size_t step[3], int32_t k, float *z)             \
    {                                                                                                              \
        return map_vectors(FG_##ID, arity, n, xs, step, k, z);                                                     \
    }                                                                                                              \
    static void map_grad_##ID(int which, size_t n, const float *const xs[3], const size_t step[3], int32_t k,      \
                              const float *z, const float *dz, float *dx)                                          \
    {                                                                                                              \
        if (arity == 1 || which == 0)                                                                              \
            grad_vectors(FG_##ID, arity, 0, n, xs, step, k, z, dz, dx);                                            \
        else if (arity == 2 || which == 1)                                                                         \
            grad_vectors(FG_##ID, arity, arity > 1 ? 1 : 0, n, xs, step, k, z, dz, dx);                            \
        else                                                                                                       \
            grad_vectors(FG_##ID, arity, arity > 2 ? 2 : 0, n, xs, step, k, z, dz, dx);                            \
    }
VECTOR_ROWS(ROW)
#undef ROW

/* ---- all other rows ---- */

/* `count` lanes of the operands from i on, as doubles: in `wide`, and where in `to`. */
static void widen(int arity, size_t i, size_t count, const float *const xs[3], const size_t step[3],
                  double wide[3][CHUNK], const double *to[3])
{
    for (int v = 0; v < arity; v++) {
        for (size_t j = 0; j < (step[v] ? count : 1); j++)
            wide[v][j] = (double)xs[v][step[v] ? i + j : 0];
        to[v] = wide[v];
    }
}

static int map_widely(int op, size_t n, const float *const xs[3], const size_t step[3], int32_t k, float *z)
{
    const int arity = fg_op_table[op].arity;
    double wide[3][CHUNK], results[CHUNK];
    const double *to[3] = {wide[0], wide[1], wide[2]};
    int doubt = 0;
    for (size_t i = 0; i < n; i += CHUNK) {
        const size_t count = smaller(n - i, CHUNK);
        widen(arity, i, count, xs, step, wide, to);
        doubt |= FG_KERNELS.map(op, count, to, step, k, results) < count;
        for (size_t j = 0; j < count; j++) {
            z[i + j] = (float)results[j];
            doubt |= !isfinite(z[i + j]);
        }
    }
    return doubt;
}

static void grad_widely(int op, int which, size_t n, const float *const xs[3], const size_t step[3], int32_t k,
                        const float *z, const float *dz, float *dx)
{
    const int arity = fg_op_table[op].arity;
    double wide[3][CHUNK], zs[CHUNK], dzs[CHUNK], part[CHUNK];
    const double *to[3] = {wide[0], wide[1], wide[2]};
    for (size_t i = 0; i < n; i += CHUNK) {
        const size_t count = smaller(n - i, CHUNK);
        widen(arity, i, count, xs, step, wide, to);
        for (size_t j = 0; j < count; j++) {
            zs[j] = (double)z[i + j];
            dzs[j] = (double)dz[i + j];
            part[j] = 0.0;
        }
        FG_KERNELS.map_grad(op, which, count, to, step, k, zs, dzs, part);
        for (size_t j = 0; j < (step[which] ? count : 1); j++)
            dx[step[which] ? i + j : 0] += (float)part[j];
    }
}

/* The status of a row whose operands and result are floats. */
static int status_of(int op, double x, double y, double w, int32_t k, double z)
{
    (void)x, (void)y, (void)w, (void)k, (void)z;
    switch (op) {
#define FG_ROW(ID, arity, forward, dx, dy, dw, status) \
    case FG_##ID:                                      \
        return (status);
#include "rows.def"
    default:
        return FG_OK;
    }
}

static size_t map(int op, size_t n, const float *const x[3], const size_t step[3], int32_t k, float *z)
{
    const int arity = fg_op_table[op].arity;
    int doubt;
    switch (op) {
#define ROW(ID, arity)                            \
    case FG_##ID:                                 \
        doubt = map_##ID(n, x, step, k, z);       \
        break;
        VECTOR_ROWS(ROW)
#undef ROW
    default:
        doubt = map_widely(op, n, x, step, k, z);
    }
    for (size_t i = 0; doubt && i < n; i++) {
        double at[3] = {0.0, 0.0, 0.0};
        for (int v = 0; v < arity; v++)
            at[v] = (double)x[v][i * step[v]];
        if (status_of(op, at[0], at[1], at[2], k, (double)z[i]) != FG_OK)
            return i;
    }
    return n;
}

static void map_grad(int op, int which, size_t n, const float *const x[3], const size_t step[3], int32_t k,
                     const float *z, const float *dz, float *dx)
{
    if (!has_rule(op, which)) {
        grad_widely(op, which, n, x, step, k, z, dz, dx);
        return;
    }
    switch (op) {
#define ROW(ID, arity)                                  \
    case FG_##ID:                                       \
        map_grad_##ID(which, n, x, step, k, z, dz, dx); \
        break;
        VECTOR_ROWS(ROW)
#undef ROW
    default:
        grad_widely(op, which, n, x, step, k, z, dz, dx);
    }
}

#endif
