/* kernels_elementary.h: exp, log, tanh and sigmoid of a vector, within 2 units in the last place, all lanes by
 * the same path.
 *
 * The coefficients are near-minimax: interpolation in Chebyshev nodes, rounded to double. */
#ifndef FG_KERNELS_ELEMENTARY_H
#define FG_KERNELS_ELEMENTARY_H

#include "simd.h"

/* The sum of c[i] * x**i. `top` has every second term, from the last one on, and `rest` the other terms, so
 * that two short chains of multiplications run in parallel. */
FG_INLINE vd v_polynomial(vd x, const double *c, int terms)
{
    const vd square = v_mul(x, x);
    vd top = v_set1(c[terms - 1]), rest = v_set1(c[terms - 2]);
    FG_UNROLL(8)
    for (int i = terms - 3; i > 0; i -= 2) {
        top = v_fma(top, square, v_set1(c[i]));
        rest = v_fma(rest, square, v_set1(c[i - 1]));
    }
    if (terms % 2 == 0) /* the powers in `top` are odd */
        return v_fma(top, x, rest);
    return v_fma(rest, x, v_fma(top, square, v_set1(c[0])));
}

#define LN2_HIGH 0.6931471803691238 /* 32 bits, so its product with an exponent is exact */
#define LN2_LOW 1.9082149292705877e-10

/* exp(x) = 2**n * exp(r) with |r| <= log(2) / 2, and exp(r) = 1 + r + r**2 * P(r). */
FG_INLINE vd v_exp(vd x)
{
    static const double c[] = {
        0.5000000000000001,     0.16666666666666669,    0.04166666666662399,    0.008333333333330051,
        0.0013888888917281794,  0.00019841269863105968, 2.480152119021773e-05,  2.7557268378684192e-06,
        2.7620138719733994e-07, 2.5100424157005067e-08,
    };
    const vd round = v_set1(FG_ROUND);
    x = v_max(v_set1(-800.0), v_min(v_set1(800.0), x)); /* exp is 0 and inf there; nan stays */
    const vd n = v_sub(v_fma(x, v_set1(1.4426950408889634), round), round);
    const vd r = v_fnma(n, v_set1(LN2_LOW), v_fnma(n, v_set1(LN2_HIGH), x));
    const vd p = v_polynomial(r, c, 10);
    return v_scale(v_add(v_set1(1.0), v_fma(v_mul(r, r), p, r)), n);
}

/* log(2**n * m) = n * log(2) + log(1 + f), sqrt(1/2) < m = 1 + f < sqrt(2). With s = f / (2 + f),
 * log(1 + f) = 2 s + s**3 * P(s**2) = f - s * (f - s**2 * P(s**2)). */
FG_INLINE vd v_log(vd x)
{
    static const double c[] = {
        0.666666666666667,   0.3999999999989889,  0.28571428626253836, 0.22222211089379493,
        0.18182892432537032, 0.15331611722050653, 0.14617807153462828,
    };
    const vd zero = v_set1(0.0), one = v_set1(1.0), inf = v_set1(INFINITY);
    vd n;
    vd m = v_split(x, &n);
    const vm large = v_lt(v_set1(1.4142135623730951), m);
    m = v_select(large, v_mul(m, v_set1(0.5)), m);
    n = v_select(large, v_add(n, one), n);
    const vd f = v_sub(m, one), half_square = v_mul(v_mul(v_set1(0.5), f), f);
    const vd s = v_div(f, v_add(f, v_set1(2.0)));
    const vd z = v_mul(s, s), q = v_mul(z, v_polynomial(z, c, 7));
    /* 2 s = f - s f, and s f = half_square - s * half_square, so only a small number is subtracted from f */
    const vd low = v_fma(n, v_set1(LN2_LOW), v_mul(s, v_add(half_square, q)));
    const vd result = v_fma(n, v_set1(LN2_HIGH), v_sub(f, v_sub(half_square, low)));
    const vd edge = v_select(v_eq(x, zero), v_set1(-INFINITY), v_set1(NAN));
    return v_select(v_eq(x, inf), inf, v_select(v_lt(zero, x), result, edge));
}

/* Computed from exp(-|x|), which does not overflow. */
FG_INLINE vd v_sigmoid(vd x)
{
    const vd one = v_set1(1.0);
    const vd e = v_exp(v_or(v_abs(x), v_set1(-0.0)));
    return v_div(v_select(v_ge(x, v_set1(0.0)), one, e), v_add(one, e));
}

/* For a = |x|: a + a * a**2 P(a**2) / Q(a**2) where a < 0.6, else 1 - 2 / (exp(2 a) + 1). Both need only one
 * division. */
FG_INLINE vd v_tanh(vd x)
{
    const vd a = v_abs(x), z = v_mul(a, a), e = v_exp(v_add(a, a));
    const vm small = v_lt(a, v_set1(0.6));
    const vd p = v_fma(v_fma(v_set1(-0.9643772634063547), z, v_set1(-99.23182241408416)), z,
                       v_set1(-1613.5334517003944));
    const vd q = v_fma(v_fma(v_add(z, v_set1(112.75112753490883)), z, v_set1(2233.9356092827147)), z,
                       v_set1(4840.600355101183));
    const vd ratio = v_div(v_select(small, v_mul(z, p), v_set1(-2.0)),
                           v_select(small, q, v_add(e, v_set1(1.0))));
    return v_or(v_select(small, v_fma(a, ratio, a), v_add(v_set1(1.0), ratio)), v_sign_of(x));
}

#endif
