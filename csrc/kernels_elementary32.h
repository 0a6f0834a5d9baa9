/* kernels_elementary32.h: elementary functions of a vector of floats, and what activations and losses make of them, within
 * 2 units in the last place of a float. Where a float would lose digits on the way, the lanes are doubles there (vw), for
 * which short polynomials do. All lanes take the same path, but those out of a function's range: libm computes them.
 *
 * The coefficients are near-minimax: interpolation in Chebyshev nodes. */
#ifndef FG_KERNELS_ELEMENTARY32_H
#define FG_KERNELS_ELEMENTARY32_H

#include "ops.h"
#include "simd.h"

FG_INLINE vd v_neg(vd x)
{
    return v_sub(v_set1(-0.0f), x);
}

/* z, with f(x, y) in the lanes that are not 0 in `which`. */
FG_RARE vd by_lane(vd which, vd x, vd y, vd z, double (*f)(double, double))
{
    float marks[FG_W], first[FG_W], second[FG_W], results[FG_W];
    v_store(marks, which);
    v_store(first, x);
    v_store(second, y);
    v_store(results, z);
    for (size_t i = 0; i < FG_W; i++)
        if (marks[i] != 0.0f)
            results[i] = (float)f((double)first[i], (double)second[i]);
    return v_load(results);
}

FG_INLINE vd v_by_lane(vm which, vd x, vd y, vd z, double (*f)(double, double))
{
    return vm_any(which) ? by_lane(v_select(which, v_set1(1.0f), v_set1(0.0f)), x, y, z, f) : z;
}

/* The sum of c[i] * x**i. */
FG_INLINE vd v_polynomial(vd x, const float *c, int terms)
{
    vd sum = v_set1(c[terms - 1]);
    FG_UNROLL(16)
    for (int i = terms - 2; i >= 0; i--)
        sum = v_fma(sum, x, v_set1(c[i]));
    return sum;
}

/* In two short chains of multiplications that run side by side. */
FG_INLINE vw w_polynomial(vw x, const double *c, int terms)
{
    const vw square = w_mul(x, x);
    vw top = w_set1(c[terms - 1]), rest = w_set1(c[terms - 2]);
    FG_UNROLL(16)
    for (int i = terms - 3; i > 0; i -= 2) {
        top = w_fma(top, square, w_set1(c[i]));
        rest = w_fma(rest, square, w_set1(c[i - 1]));
    }
    if (terms % 2 == 0) /* the powers in `top` are odd */
        return w_fma(top, x, rest);
    return w_fma(rest, x, w_fma(top, square, w_set1(c[0])));
}

/* ---- exp, log ---- */

#define LN2_HIGH32 0.693145752f /* 16 bits: times an exponent it is exact */
#define LN2_LOW32 1.42860677e-06f

/* exp(x) = 2**n * (1 + r + r**2 * P(r)), |r| <= log(2) / 2. */
FG_INLINE vd v_exp(vd x)
{
    static const float P[] = {0.5f, 0.166665733f, 0.0416665487f, 0.00836377405f, 0.00139269268f};
    const vd round = v_set1(FG_ROUND32);
    x = v_max(v_set1(-110.0f), v_min(v_set1(90.0f), x)); /* where it is 0 and inf; nan stays */
    const vd n = v_sub(v_fma(x, v_set1(1.44269504f), round), round);
    const vd r = v_fnma(n, v_set1(LN2_LOW32), v_fnma(n, v_set1(LN2_HIGH32), x));
    return v_scale(v_add(v_set1(1.0f), v_fma(v_mul(r, r), v_polynomial(r, P, 5), r)), n);
}

/* A finite x > 0 as 2**n * m with sqrt(1/2) < m <= sqrt(2). */
FG_INLINE vd v_split_evenly(vd x, vd *n)
{
    const vd m = v_split(x, n);
    const vm large = v_lt(v_set1(1.41421356f), m);
    *n = v_select(large, v_add(*n, v_set1(1.0f)), *n);
    return v_select(large, v_mul(m, v_set1(0.5f)), m);
}

/* n * log(2) + log(1 + f) for sqrt(1/2) < 1 + f < sqrt(2): with s = f / (2 + f) it is f - s * (f - s**2 * P(s**2)). */
FG_INLINE vd v_log_of(vd n, vd f)
{
    static const float P[] = {0.666666687f, 0.400001228f, 0.285505861f, 0.233368114f};
    const vd half_square = v_mul(v_mul(v_set1(0.5f), f), f), s = v_div(f, v_add(f, v_set1(2.0f))), z = v_mul(s, s);
    const vd low = v_fma(n, v_set1(LN2_LOW32), v_mul(s, v_add(half_square, v_mul(z, v_polynomial(z, P, 4)))));
    return v_fma(n, v_set1(LN2_HIGH32), v_sub(f, v_sub(half_square, low)));
}

/* z, but the logarithm of 0 is -inf, of inf inf, and of nan and what is below 0 nan. */
FG_INLINE vd v_log_edges(vd x, vd z)
{
    const vd zero = v_set1(0.0f), inf = v_set1(INFINITY);
    const vd edge = v_select(v_eq(x, zero), v_set1(-INFINITY), v_set1(NAN));
    return v_select(v_eq(x, inf), inf, v_select(v_lt(zero, x), z, edge));
}

FG_INLINE vd v_log(vd x)
{
    vd n;
    const vd f = v_sub(v_split_evenly(x, &n), v_set1(1.0f));
    return v_log_edges(x, v_log_of(n, f));
}

/* ---- the same in doubles, to 2**-32 ---- */

/* exp(x) = 2**n + 2**n * r * P(r) for x of at most 600 either way. */
FG_INLINE vw w_expm1_parts(vw x, vw *scale)
{
    static const double P[] = {
        0.9999999999951366,   0.4999999999995128,    0.16666666793675072,    0.04166666679368692,
        0.008333281514711592, 0.0013888837080471947, 0.00019908904004399482, 2.486920659445728e-05,
    };
    const vw round = w_set1(FG_ROUND), n = w_sub(w_fma(x, w_set1(1.4426950408889634), round), round);
    const vw r = w_fma(n, w_set1(-0.6931471805599453), x);
    *scale = w_pow2(n);
    return w_mul(w_mul(*scale, r), w_polynomial(r, P, 8));
}

FG_INLINE vw w_within(vw x, double bound)
{
    return w_max(w_set1(-bound), w_min(w_set1(bound), x)); /* nan stays */
}

FG_INLINE vw w_exp(vw x)
{
    vw scale;
    const vw rest = w_expm1_parts(w_within(x, 600.0), &scale);
    return w_add(scale, rest);
}

FG_INLINE vd v_expm1(vd x)
{
    vw scale;
    const vw rest = w_expm1_parts(w_within(w_of(x), 600.0), &scale);
    const vd z = w_round(w_add(w_sub(scale, w_set1(1.0)), rest));
    return v_or(v_select(v_lt(v_abs(x), v_set1(1e-10f)), x, z), v_sign_of(x)); /* -0.0 too */
}

/* log(x) of a finite x > 0. */
FG_INLINE vw w_log(vd x)
{
    static const double P[] = {
        0.6666666666666194, 0.40000000011527215, 0.2857142403771146,
        0.2222287315653376, 0.18139720491399725, 0.16628942990088816,
    };
    vd n;
    const vw m = w_of(v_split_evenly(x, &n)), f = w_sub(m, w_set1(1.0));
    const vw s = w_div(f, w_add(f, w_set1(2.0))), z = w_mul(s, s);
    const vw log = w_fma(w_mul(s, z), w_polynomial(z, P, 6), w_add(s, s));
    return w_fma(w_of(n), w_set1(0.6931471805599453), log);
}

/* 1 + x is u and what a float loses; log(1 + c) is c for so small a number. */
FG_INLINE vd v_log1p(vd x)
{
    const vw exact = w_add(w_of(x), w_set1(1.0));
    const vd u = w_round(exact);
    const vw lost = w_div(w_sub(exact, w_of(u)), w_of(u));
    const vd z = v_log_edges(u, w_round(w_add(w_log(u), lost)));
    const vw wide = w_of(x), third = w_fma(wide, w_set1(1.0 / 3.0), w_set1(-0.5));
    const vd near = w_round(w_mul(wide, w_fma(wide, third, w_set1(1.0)))); /* 1 + x has lost digits of x */
    return v_select(v_lt(v_abs(x), v_set1(1e-4f)), near, z); /* -0.0 too */
}

/* x**y: what is not a positive base with a finite exponent is libm's. */
FG_INLINE vd v_power(vd x, vd y)
{
    const vd inf = v_set1(INFINITY), one = v_set1(1.0f), zero = v_set1(0.0f);
    const vw z = w_exp(w_mul(w_of(y), w_log(x)));
    /* 1 in the lanes that are libm's: written so that nan is among them */
    vd rare = v_select(v_lt(zero, x), zero, one);
    rare = v_select(v_lt(x, inf), rare, one);
    rare = v_select(v_lt(v_abs(y), inf), rare, one);
    return v_by_lane(v_eq(rare, one), x, y, w_round(z), pow);
}

enum { POWI_MOST = 64 };

/* x**k; in doubles nothing is lost on the way. */
FG_INLINE vd v_powi(vd x, int32_t k)
{
    if (k == 0)
        return v_set1(1.0f);
    if (k == 1)
        return x;
    if (k == 2)
        return v_mul(x, x);
    if (k == -1)
        return v_div(v_set1(1.0f), x);
    if (k < -POWI_MOST || k > POWI_MOST) {
        const vd z = v_power(v_abs(x), v_set1((float)k));
        return k & 1 ? v_or(z, v_sign_of(x)) : z;
    }
    const unsigned times = (unsigned)(k < 0 ? -k : k);
    const vw base = w_of(x);
    vw z = base;
    for (unsigned bit = 1u << fg_bits_top(times) >> 1; bit; bit >>= 1) {
        z = w_mul(z, z);
        if (times & bit)
            z = w_mul(z, base);
    }
    return w_round(k < 0 ? w_div(w_set1(1.0), z) : z);
}

/* ---- tanh, sigmoid and their like ---- */

/* By e = exp(-|x|), which does not overflow. The rounding error of 1 + e is taken off the quotient. */
FG_INLINE vd v_sigmoid(vd x)
{
    const vd one = v_set1(1.0f), e = v_exp(v_or(v_abs(x), v_set1(-0.0f)));
    const vm positive = v_ge(x, v_set1(0.0f));
    const vd bottom = v_add(one, e), lost = v_sub(e, v_sub(bottom, one));
    const vd ratio = v_div(v_select(positive, one, e), bottom);
    const vd of_bottom = v_select(positive, ratio, v_sub(one, ratio)); /* 1 / bottom */
    return v_fnma(v_mul(ratio, lost), of_bottom, ratio);
}

/* For a = |x|: a + a * a**2 * P(a**2) where a < 0.62, else 1 - 2 / (exp(2 a) + 1). */
FG_INLINE vd v_tanh(vd x)
{
    static const float P[] = {
        -0.333333343f, 0.133332998f, -0.0539584607f, 0.0217625033f, -0.00832318701f, 0.0022695018f,
    };
    const vd a = v_abs(x), z = v_mul(a, a), e = v_exp(v_add(a, a)), one = v_set1(1.0f);
    const vd near = v_fma(a, v_mul(z, v_polynomial(z, P, 6)), a);
    const vd far = v_sub(one, v_div(v_set1(2.0f), v_add(e, one)));
    return v_or(v_select(v_lt(a, v_set1(0.62f)), near, far), v_sign_of(x));
}

/* log(1 + exp(-|x|)): with e = exp(-|x|), f = e, or f = (e - 1) / 2 and one more log(2). */
FG_INLINE vd v_log1p_exp(vd x)
{
    const vd zero = v_set1(0.0f), one = v_set1(1.0f), e = v_exp(v_or(v_abs(x), v_set1(-0.0f)));
    const vm large = v_lt(v_set1(0.414213562f), e);
    return v_log_of(v_select(large, one, zero), v_select(large, v_mul(v_sub(e, one), v_set1(0.5f)), e));
}

FG_INLINE vd v_softplus(vd x)
{
    return v_add(v_max(v_set1(0.0f), x), v_log1p_exp(x));
}

FG_INLINE vw w_sigmoid(vw x)
{
    const vw one = w_set1(1.0);
    return w_div(one, w_add(one, w_exp(w_sub(w_set1(-0.0), x))));
}

/* z, but nan for an x of -inf: that times 0, which factors here only come near to; or of either inf. */
FG_INLINE vd v_but_at_minus_inf(vd x, vd z)
{
    return v_select(v_eq(x, v_set1(-INFINITY)), v_set1(NAN), z);
}

FG_INLINE vd v_but_at_inf(vd x, vd z)
{
    return v_select(v_eq(v_abs(x), v_set1(INFINITY)), v_set1(NAN), z);
}

FG_INLINE vd v_silu(vd x)
{
    const vw wide = w_of(x);
    return v_but_at_minus_inf(x, w_round(w_mul(wide, w_sigmoid(wide))));
}

FG_INLINE vd v_silu_slope(vd x)
{
    const vw wide = w_of(x), one = w_set1(1.0), s = w_sigmoid(wide);
    return v_but_at_inf(x, w_round(w_mul(s, w_fma(wide, w_sub(one, s), one))));
}

/* fg_gelu_logit */
FG_INLINE vw w_gelu_logit(vw x)
{
    const vw cube = w_mul(w_mul(w_mul(w_set1(0.044715), x), x), x);
    return w_mul(w_set1(2.0 * FG_SQRT_2_PI), w_add(x, cube));
}

FG_INLINE vd v_gelu_tanh(vd x)
{
    const vw wide = w_of(x);
    return v_but_at_minus_inf(x, w_round(w_mul(wide, w_sigmoid(w_gelu_logit(wide)))));
}

FG_INLINE vd v_gelu_tanh_slope(vd x)
{
    const vw wide = w_of(x), one = w_set1(1.0), s = w_sigmoid(w_gelu_logit(wide));
    const vw inner = w_fma(w_mul(w_set1(3.0 * 0.044715), wide), wide, one);
    const vw bell = w_mul(w_mul(w_mul(w_add(wide, wide), s), w_sub(one, s)), w_mul(w_set1(FG_SQRT_2_PI), inner));
    return v_but_at_inf(x, w_round(w_add(s, bell)));
}

/* erfc(a) = exp(-a**2) * P(q) / (1 + 2 a) for a = by * |x|, where q = (a - 4) / (a + 4). */
FG_INLINE vw w_erfc(vd x, double by)
{
    static const double P[] = {
        1.232995118791077,    -0.1396211173163666,    0.015379622201314593,   0.06809707505355758,   -0.1010381775710164,
        0.09373301427141513,  -0.06633988384101464,   0.03715919524364582,    -0.016156469705037025, 0.005093942208127887,
        -0.0008071551727843985, -0.00033916778601443114, 8.988720525911996e-05,
    };
    const vw one = w_set1(1.0), four = w_set1(4.0), a = w_min(w_set1(24.0), w_mul(w_of(v_abs(x)), w_set1(by)));
    const vw bottom = w_mul(w_add(a, four), w_fma(w_set1(2.0), a, one)); /* one division for both quotients */
    const vw inverse = w_div(one, bottom);
    const vw q = w_mul(w_mul(w_sub(a, four), w_fma(w_set1(2.0), a, one)), inverse);
    return w_mul(w_mul(w_exp(w_mul(w_sub(w_set1(-0.0), a), a)), w_polynomial(q, P, 13)),
                 w_mul(w_add(a, four), inverse));
}

/* The distribution function of the standard normal distribution. */
FG_INLINE vw w_normal(vd x)
{
    const vw half = w_mul(w_set1(0.5), w_erfc(x, FG_SQRT_HALF));
    const vw positive = w_of(v_select(v_lt(v_set1(0.0f), x), v_set1(1.0f), v_set1(0.0f)));
    return w_fma(half, w_sub(w_set1(1.0), w_add(positive, positive)), positive); /* half, or 1 - half */
}

FG_INLINE vd v_gelu(vd x)
{
    return v_but_at_minus_inf(x, w_round(w_mul(w_of(x), w_normal(x))));
}

FG_INLINE vd v_gelu_slope(vd x)
{
    const vw wide = w_of(x), bell = w_exp(w_mul(w_mul(w_set1(-0.5), wide), wide));
    return v_but_at_inf(x, w_round(w_fma(w_mul(wide, w_set1(FG_DENSITY)), bell, w_normal(x))));
}

/* ---- sin and cos ---- */

#define TRIG_RANGE32 1e6f

static double sin_of(double x, double y)
{
    return (void)y, sin(x);
}

static double cos_of(double x, double y)
{
    return (void)y, cos(x);
}

/* |x| = n * pi / 2 + r with |r| <= pi / 4, found in doubles, so that r has all its digits; then sine and cosine of r, one
 * of which is that of x, with the sign of the quarter. cosine: one quarter more. */
FG_INLINE vd v_trig(vd x, int cosine)
{
    static const float S[] = {-0.166666642f, 0.00833274238f, -0.000195866058f};
    static const float C[] = {0.0416666642f, -0.00138882967f, 2.45466545e-05f};
    const vd one = v_set1(1.0f), two = v_set1(2.0f), zero = v_set1(0.0f), a = v_abs(x);
    const vw wide = w_of(a), round = w_set1(FG_ROUND);
    const vw n = w_sub(w_fma(wide, w_set1(0.6366197723675814), round), round);
    /* pi / 2 in two parts, of which the first has 33 bits */
    const vw rest = w_fma(n, w_set1(-6.077100506506192e-11), w_fma(n, w_set1(-1.5707963267341256), wide));
    const vw quarter = w_sub(w_fma(n, w_set1(0.25), round), round);
    const vd turn = w_round(w_fma(w_set1(-4.0), quarter, n)), r = w_round(rest), z = v_mul(r, r); /* turn: -2 to 2 */
    const vd s = v_fma(v_mul(r, z), v_polynomial(z, S, 3), r);
    const vd c = v_add(v_fnma(v_set1(0.5f), z, one), v_mul(v_mul(z, z), v_polynomial(z, C, 3)));
    const vm odd = v_eq(v_abs(turn), one);
    if (cosine) {
        const vm minus = vm_or(v_lt(one, v_abs(turn)), v_eq(turn, one));
        const vd size = v_select(odd, s, c);
        return v_select(minus, v_neg(size), size);
    }
    const vm minus = vm_or(v_lt(turn, zero), v_eq(turn, two));
    const vd size = v_select(odd, c, s), of_a = v_select(minus, v_neg(size), size);
    const vd signed_size = v_select(v_lt(x, zero), v_neg(of_a), of_a);
    return v_select(v_lt(a, v_set1(1e-10f)), x, signed_size); /* -0.0 too */
}

FG_INLINE vm v_outside(vd x)
{
    return v_lt(v_set1(TRIG_RANGE32), v_abs(x));
}

FG_INLINE vd v_sin(vd x)
{
    return v_by_lane(v_outside(x), x, x, v_trig(x, 0), sin_of);
}

FG_INLINE vd v_cos(vd x)
{
    return v_by_lane(v_outside(x), x, x, v_trig(x, 1), cos_of);
}

#endif
