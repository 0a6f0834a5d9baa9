/* kernels_rows.h: the rows of ops.def whose results, or whose reverse rules, need functions of kernels_elementary.h and
 * kernels_powers.h, for a vector of lanes. They say what ops.def says; the other rows are plain C. */
#ifndef FG_KERNELS_ROWS_H
#define FG_KERNELS_ROWS_H

#include "kernels_elementary.h"
#include "kernels_powers.h"

/* The rows that vector_row has on every level, for any k. Of these, HAS_VECTORS(ID) is 1, and of all others 0, also for
 * the preprocessor: what follows the comma comes before the 0. */
#define VECTORS_EXP , 1
#define VECTORS_EXPM1 , 1
#define VECTORS_LOG , 1
#define VECTORS_SIN , 1
#define VECTORS_COS , 1
#define VECTORS_TAN , 1
#define VECTORS_SINH , 1
#define VECTORS_COSH , 1
#define VECTORS_TANH , 1
#define VECTORS_SIGMOID , 1
#define VECTORS_SOFTPLUS , 1
#define VECTORS_BINARY_CROSS_ENTROPY , 1
#define VECTORS_BCE_WITH_LOGITS , 1
#define VECTORS_WEIGHTED_BCE_WITH_LOGITS , 1
#define VECTORS_KL_DIV_LOG , 1
#define VECTORS_LOGARITHM , 1
#define VECTORS_LOGISTIC_DENSITY , 1
#define VECTORS_GELU_TANH_SLOPE , 1
#define HAS_VECTORS(ID) SECOND_OF(VECTORS_##ID, 0, 0)
#define SECOND_OF(...) SAME(SECOND(__VA_ARGS__))
#define SECOND(x, y, ...) y
#define SAME(x) x /* for compilers that take __VA_ARGS__ for one argument */

/* Whether vector_row has one of the others. x**2 and 1 / x are single instructions, which compilers find; where products
 * are not fused with sums, some are left to libm, which is as fast. */
FG_INLINE int has_vector(int op, int32_t k)
{
    switch (op) {
    case FG_POWI:
        return k != 2 && k != -1;
    case FG_LOGIT:
    case FG_GELU_SLOPE:
    case FG_SILU_SLOPE:
    case FG_BCE_SLOPE:
    case FG_WEIGHTED_BCE_SLOPE:
    case FG_ELU_SLOPE:
    case FG_POWER_SLOPE:
    case FG_POWER_LOG:
    case FG_LOG1P:
    case FG_ERF:
    case FG_GELU:
    case FG_GELU_TANH:
    case FG_SILU:
    case FG_ELU:
    case FG_POW:
    case FG_POWC:
    case FG_KL_DIV:
        return FG_FUSED;
    default:
        return 0;
    }
}

/* fg_dpow_dx */
FG_INLINE vd v_power_slope(vd x, vd y)
{
    const vd one = v_set1(1.0), two = v_set1(2.0), three = v_set1(3.0);
    const vd other = v_mul(y, v_power(x, v_sub(y, one)));
    const vd cube = v_select(v_eq(y, three), v_mul(three, v_mul(x, x)), other);
    return v_select(v_eq(y, v_set1(0.0)), v_set1(0.0), v_select(v_eq(y, two), v_mul(two, x), cube));
}

/* fg_dpow_dy */
FG_INLINE vd v_power_slope_by_exponent(vd x, vd y, vd z)
{
    const vd zero = v_set1(0.0), slope = v_mul(z, v_log(x));
    return v_select(v_eq(x, zero), v_select(v_ge(y, zero), zero, slope), slope);
}

/* The derivative of the activations that are x times a distribution function: by that and by its density. */
FG_INLINE vd v_gelu_slope(vd x)
{
    const vd density = v_mul(v_mul(x, v_set1(FG_DENSITY)), v_exp(v_mul(v_mul(v_set1(-0.5), x), x)));
    return v_add(v_mul(v_set1(0.5), v_erfc(v_mul(v_set1(-FG_SQRT_HALF), x))), density);
}

FG_INLINE vd v_gelu_tanh_slope(vd x)
{
    const vd one = v_set1(1.0), s = v_sigmoid(v_gelu_logit(x));
    const vd inner = v_add(one, v_mul(v_mul(v_set1(3.0 * 0.044715), x), x));
    const vd bell = v_mul(v_mul(v_mul(v_add(x, x), s), v_sub(one, s)), v_mul(v_set1(FG_SQRT_2_PI), inner));
    return v_add(s, bell);
}

FG_INLINE vd v_silu_slope(vd x)
{
    const vd one = v_set1(1.0), s = v_sigmoid(x);
    return v_mul(s, v_add(one, v_mul(x, v_sub(one, s))));
}

/* (weighted_)bce_slope: by sigmoid(-|x|), of which nothing is rounded away. */
FG_INLINE vd v_bce_slope(vd x, vd y)
{
    const vd one = v_set1(1.0), s = v_sigmoid(v_or(v_abs(x), v_set1(-0.0)));
    return v_select(v_lt(v_set1(0.0), x), v_sub(v_sub(one, y), s), v_sub(s, y));
}

FG_INLINE vd v_weighted_bce_slope(vd x, vd y, vd w)
{
    const vd one = v_set1(1.0), s = v_sigmoid(v_or(v_abs(x), v_set1(-0.0)));
    const vd share = v_mul(v_add(one, v_mul(v_sub(w, one), y)), s);
    return v_select(v_lt(v_set1(0.0), x), v_sub(v_sub(one, y), share), v_sub(share, v_mul(w, y)));
}

FG_INLINE vd v_logistic_density(vd x)
{
    return v_mul(v_sigmoid(x), v_sigmoid(v_neg(x)));
}

/* fg_d2gelu, fg_d2gelu_tanh and fg_d2silu */
FG_INLINE vd v_gelu_bend(vd x)
{
    const vd p = v_mul(v_set1(FG_DENSITY), v_exp(v_mul(v_mul(v_set1(-0.5), x), x)));
    return v_sub(v_add(p, p), v_mul(x, v_mul(x, p)));
}

FG_INLINE vd v_gelu_tanh_bend(vd x)
{
    const vd square = v_mul(x, x), cube = v_set1(FG_GELU_CUBE);
    const vd du = v_add(v_set1(2.0 * FG_SQRT_2_PI), v_mul(v_set1(6.0 * FG_SQRT_2_PI * FG_GELU_CUBE), square));
    const vd u = v_mul(v_set1(2.0 * FG_SQRT_2_PI), v_mul(x, v_add(v_set1(1.0), v_mul(cube, square))));
    const vd bend = v_add(v_set1(4.0 * FG_SQRT_2_PI), v_mul(v_set1(24.0 * FG_SQRT_2_PI * FG_GELU_CUBE), square));
    const vd across = v_mul(x, v_tanh(v_mul(v_set1(0.5), u)));
    return v_mul(v_logistic_density(u), v_sub(bend, v_mul(across, v_mul(du, du))));
}

FG_INLINE vd v_silu_bend(vd x)
{
    const vd across = v_mul(x, v_tanh(v_mul(v_set1(0.5), x)));
    return v_mul(v_logistic_density(x), v_sub(v_set1(2.0), across));
}

/* fg_power_slope */
FG_INLINE vd v_power_of_order(vd x, vd y, vd order)
{
    const vd zero = v_set1(0.0), one = v_set1(1.0), less = v_sub(y, order);
    vd z = v_select(v_eq(less, v_set1(2.0)), v_mul(x, x), v_power(x, less)), some = one;
    for (double i = 0.0; i < 1024.0 && vm_any(v_lt(v_set1(i), order)); i++) {
        const vm has = v_lt(v_set1(i), order);
        const vd factor = v_sub(y, v_set1(i));
        z = v_select(has, v_mul(z, factor), z);
        some = v_select(has, v_select(v_eq(factor, zero), zero, some), some);
    }
    z = v_select(v_eq(some, zero), zero, z);
    return v_select(v_lt(v_set1(1024.0), order), v_set1(NAN), z);
}

/* fg_power_log */
FG_INLINE vd v_power_log(vd x, vd y, vd order)
{
    const vd zero = v_set1(0.0), one = v_set1(1.0), log = v_log(x);
    const vd others = v_select(v_eq(order, one), zero, one);
    const vd logs = vm_any(v_eq(others, one)) ? v_by_lane2(v_eq(others, one), log, order, log, pow) : log;
    const vd slope = v_mul(v_power(x, y), logs);
    return v_select(v_eq(x, zero), v_select(v_ge(y, zero), zero, slope), slope);
}

/* The larger of x and -100, as binary cross entropy has it. */
FG_INLINE vd v_bounded(vd x)
{
    return v_max(v_set1(-100.0), x);
}

FG_INLINE vd vector_row(int op, vd x, vd y, vd w, int32_t k)
{
    const vd zero = v_set1(0.0), one = v_set1(1.0);
    const vm positive = v_lt(zero, x);
    switch (op) {
    case FG_POWI:
        return v_powi(x, k);
    case FG_EXP:
        return v_exp(x);
    case FG_EXPM1:
        return v_expm1(x);
    case FG_LOG:
        return v_log(x);
    case FG_LOG1P:
        return v_log1p(x);
    case FG_SIN:
        return v_sin(x);
    case FG_COS:
        return v_cos(x);
    case FG_TAN:
        return v_tan(x);
    case FG_SINH:
        return v_sinh(x);
    case FG_COSH:
        return v_cosh(x);
    case FG_TANH:
        return v_tanh(x);
    case FG_SIGMOID:
        return v_sigmoid(x);
    case FG_ERF:
        return v_erf(x);
    case FG_GELU:
        return v_gelu(x);
    case FG_GELU_TANH:
        return v_gelu_tanh(x);
    case FG_SILU:
        return v_silu(x);
    case FG_SOFTPLUS:
        return v_softplus(x);
    case FG_POW:
    case FG_POWC:
        return v_power(x, y);
    case FG_ELU:
        return v_select(positive, x, v_mul(y, v_expm1(x)));
    case FG_BINARY_CROSS_ENTROPY:
        return v_sub(v_mul(v_sub(y, one), v_bounded(v_log1p(v_neg(x)))), v_mul(y, v_bounded(v_log(x))));
    case FG_BCE_WITH_LOGITS:
        return v_add(v_mul(v_select(positive, v_sub(one, y), v_neg(y)), x), v_log1p_exp(x));
    case FG_WEIGHTED_BCE_WITH_LOGITS: {
        const vd share = v_add(one, v_mul(v_sub(w, one), y));
        const vd linear = v_mul(v_select(positive, v_sub(one, y), v_neg(v_mul(w, y))), x);
        return v_add(linear, v_mul(share, v_log1p_exp(x)));
    }
    case FG_KL_DIV:
        return v_sub(v_select(v_eq(y, zero), zero, v_mul(y, v_log(y))), v_mul(y, x));
    case FG_LOGARITHM:
        return v_log(x);
    case FG_LOGIT:
        return v_sub(v_log(x), v_log1p(v_neg(x)));
    case FG_LOGISTIC_DENSITY:
        return v_logistic_density(x);
    case FG_GELU_SLOPE:
        return v_gelu_slope(x);
    case FG_GELU_TANH_SLOPE:
        return v_gelu_tanh_slope(x);
    case FG_SILU_SLOPE:
        return v_silu_slope(x);
    case FG_BCE_SLOPE:
        return v_bce_slope(x, y);
    case FG_WEIGHTED_BCE_SLOPE:
        return v_weighted_bce_slope(x, y, w);
    case FG_ELU_SLOPE:
        return v_select(positive, w, v_mul(y, v_exp(x)));
    case FG_POWER_SLOPE:
        return v_power_of_order(x, y, w);
    case FG_POWER_LOG:
        return v_power_log(x, y, w);
    default: /* FG_KL_DIV_LOG */
        return v_mul(v_exp(y), v_sub(y, x));
    }
}

/* 1 in each lane whose status may not be FG_OK, 0 in the others; for nan either. */
FG_INLINE vd vector_doubt(int op, vd x, vd y, vd z)
{
    const vd zero = v_set1(0.0), one = v_set1(1.0), inf = v_set1(INFINITY);
    switch (op) {
    case FG_POWI:
    case FG_POW:
    case FG_POWC:
        return v_select(v_lt(v_abs(z), inf), zero, one);
    case FG_EXP:
    case FG_EXPM1:
    case FG_SINH:
    case FG_COSH:
        return v_select(v_eq(v_abs(z), inf), one, zero);
    case FG_LOG:
        return v_select(v_ge(zero, x), one, zero);
    case FG_LOG1P:
        return v_select(v_ge(v_set1(-1.0), x), one, zero);
    case FG_SIN:
    case FG_COS:
    case FG_TAN:
        return v_select(v_eq(v_abs(x), inf), one, zero);
    case FG_BINARY_CROSS_ENTROPY:
        return v_select(vm_or(vm_or(v_lt(x, zero), v_lt(one, x)), vm_or(v_lt(y, zero), v_lt(one, y))), one, zero);
    case FG_KL_DIV:
        return v_select(v_lt(y, zero), one, zero);
    case FG_KL_DIV_LOG:
        return v_select(v_lt(v_set1(709.0), y), one, zero);
    default:
        return zero;
    }
}

/* Whether vector_slope has the rule of operand `which`. */
FG_INLINE int has_vector_rule(int op, int which, int32_t k)
{
    switch (op) {
    case FG_POWI:
        return (k < 0 || k > 3) && k > INT32_MIN;
    case FG_SIN:
    case FG_COS:
    case FG_SINH:
    case FG_COSH:
    case FG_ERF:
    case FG_GELU_TANH:
    case FG_SOFTPLUS:
    case FG_KL_DIV_LOG:
    case FG_LOGISTIC_DENSITY:
    case FG_GELU_SLOPE:
    case FG_GELU_TANH_SLOPE:
    case FG_SILU_SLOPE:
        return 1;
    case FG_GELU:
    case FG_SILU:
    case FG_ELU:
    case FG_POW:
    case FG_WEIGHTED_BCE_WITH_LOGITS:
    case FG_WEIGHTED_BCE_SLOPE:
        return FG_FUSED;
    case FG_POWC:
    case FG_BCE_WITH_LOGITS:
    case FG_BCE_SLOPE:
    case FG_POWER_SLOPE:
        return which == 0 && FG_FUSED;
    case FG_BINARY_CROSS_ENTROPY:
    case FG_KL_DIV:
    case FG_POWER_LOG:
        return which == 1 && FG_FUSED;
    case FG_ELU_SLOPE:
        return which < 2 && FG_FUSED;
    default:
        return 0;
    }
}

/* log(sigmoid(x)) */
FG_INLINE vd v_log_sigmoid(vd x)
{
    const vd zero = v_set1(0.0);
    return v_sub(v_select(v_lt(x, zero), x, zero), v_log1p_exp(x));
}

/* What the rule adds to the gradient of operand `which`, without the factor dz. */
FG_INLINE vd vector_slope(int op, int which, vd x, vd y, vd w, int32_t k, vd z)
{
    const vd zero = v_set1(0.0), one = v_set1(1.0);
    const vm positive = v_lt(zero, x);
    switch (op) {
    case FG_POWI:
        return v_mul(v_set1((double)k), v_powi(x, k - 1));
    case FG_SIN:
        return v_cos(x);
    case FG_COS:
        return v_neg(v_sin(x));
    case FG_SINH:
        return v_cosh(x);
    case FG_COSH:
        return v_sinh(x);
    case FG_ERF:
        return v_mul(v_set1(2.0 * FG_SQRT_1_PI), v_exp(v_mul(v_neg(x), x)));
    case FG_GELU:
        return v_gelu_slope(x);
    case FG_GELU_TANH:
        return v_gelu_tanh_slope(x);
    case FG_SILU:
        return v_silu_slope(x);
    case FG_SOFTPLUS:
        return v_sigmoid(x);
    case FG_POW:
    case FG_POWC:
        if (which == 0)
            return v_power_slope(x, y);
        return v_power_slope_by_exponent(x, y, z);
    case FG_ELU:
        if (which == 0)
            return v_select(positive, one, v_mul(y, v_exp(x)));
        return v_select(positive, zero, v_expm1(x));
    case FG_BINARY_CROSS_ENTROPY:
        return v_sub(v_log1p(v_neg(x)), v_log(x));
    case FG_BCE_WITH_LOGITS:
        return v_bce_slope(x, y);
    case FG_WEIGHTED_BCE_WITH_LOGITS:
        if (which == 1)
            return v_sub(v_neg(x), v_mul(v_sub(w, one), v_log_sigmoid(x)));
        if (which == 2)
            return v_mul(v_neg(y), v_log_sigmoid(x));
        return v_weighted_bce_slope(x, y, w);
    case FG_KL_DIV:
        return v_sub(v_add(v_log(y), v_div(y, y)), x);
    case FG_LOGISTIC_DENSITY:
        return v_mul(v_neg(v_tanh(v_mul(v_set1(0.5), x))), v_logistic_density(x));
    case FG_GELU_SLOPE:
        return v_gelu_bend(x);
    case FG_GELU_TANH_SLOPE:
        return v_gelu_tanh_bend(x);
    case FG_SILU_SLOPE:
        return v_silu_bend(x);
    case FG_BCE_SLOPE:
        return v_logistic_density(x);
    case FG_WEIGHTED_BCE_SLOPE:
        if (which == 0)
            return v_mul(v_add(one, v_mul(v_sub(w, one), y)), v_logistic_density(x));
        if (which == 1)
            return v_neg(v_add(v_sigmoid(x), v_mul(w, v_sigmoid(v_neg(x)))));
        return v_mul(v_neg(y), v_sigmoid(v_neg(x)));
    case FG_ELU_SLOPE:
        return v_select(positive, zero, which == 0 ? v_mul(y, v_exp(x)) : v_exp(x));
    case FG_POWER_SLOPE:
        return v_power_of_order(x, y, v_add(w, one));
    case FG_POWER_LOG:
        return v_power_log(x, y, v_add(w, one));
    default: /* FG_KL_DIV_LOG */
        return which == 0 ? v_neg(v_exp(y)) : v_add(z, v_exp(y));
    }
}

/* Lanes of an operand from i on, `count` of them; all are the first where `step` is 0. Lanes past a part are 1, which
 * no function leaves to libm. */
FG_INLINE vd lanes_from(const double *p, size_t step, size_t i, size_t count)
{
    if (!step)
        return v_set1(*p);
    if (count >= FG_W)
        return v_load(p + i);
    const vd one = v_set1(1.0);
    return v_or(v_load_part(p + i, count), v_sub(one, v_part(one, count)));
}

/* The row, of `arity` operands, for n lanes. Returns whether there is a lane whose status may not be FG_OK. Asked here,
 * for reading z back right away would wait for the stores. */
FG_INLINE int map_vectors(int op, int arity, size_t n, const double *const xs[3], const size_t step[3], int32_t k,
                          double *z)
{
    const int of_y = arity > 1 ? 1 : 0, of_w = arity > 2 ? 2 : 0;
    vd doubts = v_set1(0.0);
    size_t i = 0;
    if (arity == 1) /* without questions in the loop: some of these functions are short */
        for (; n - i >= FG_W; i += FG_W) {
            const vd x = v_load(xs[0] + i), results = vector_row(op, x, x, x, k);
            v_store(z + i, results);
            doubts = v_add(doubts, vector_doubt(op, x, x, results));
        }
    for (; i < n; i += FG_W) {
        const size_t count = n - i;
        const vd x = lanes_from(xs[0], step[0], i, count), y = lanes_from(xs[of_y], step[of_y], i, count);
        const vd results = vector_row(op, x, y, lanes_from(xs[of_w], step[of_w], i, count), k);
        const vd doubt = vector_doubt(op, x, y, results);
        if (count >= FG_W) {
            v_store(z + i, results);
            doubts = v_add(doubts, doubt);
        } else {
            v_store_part(z + i, count, results);
            doubts = v_add(doubts, v_part(doubt, count));
        }
    }
    return v_sum(doubts) != 0.0;
}

/* out[i - from] = what the row adds to the gradient of operand `which` in lane i, for n lanes from `from` on. */
FG_INLINE void rule_vectors(int op, int arity, int which, size_t from, size_t n, const double *const xs[3],
                            const size_t step[3], int32_t k, const double *z, const double *dz, double *out)
{
    const int of_y = arity > 1 ? 1 : 0, of_w = arity > 2 ? 2 : 0;
    for (size_t i = from; i < from + n; i += FG_W) {
        const size_t count = from + n - i;
        const vd x = lanes_from(xs[0], step[0], i, count), y = lanes_from(xs[of_y], step[of_y], i, count);
        const vd w = lanes_from(xs[of_w], step[of_w], i, count), zs = lanes_from(z, 1, i, count);
        const vd more = v_mul(vector_slope(op, which, x, y, w, k, zs), lanes_from(dz, 1, i, count));
        if (count >= FG_W)
            v_store(out + (i - from), more);
        else
            v_store_part(out + (i - from), count, more);
    }
}

#endif
