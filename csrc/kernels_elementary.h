/* kernels_elementary.h: elementary functions of a vector, and what activations and losses make of them, within 2 units
 * in the last place. All lanes take the same path, but those out of a function's range: libm computes them
 * one by one, whatever their neighbours are.
 *
 * The coefficients are near-minimax: interpolation in Chebyshev nodes, rounded to double. */
#ifndef FG_KERNELS_ELEMENTARY_H
#define FG_KERNELS_ELEMENTARY_H

#include "ops.h"
#include "simd.h"

FG_INLINE vd v_neg(vd x)
{
    return v_sub(v_set1(-0.0), x);
}

/* z, with f(x) in the lanes that are not 0 in `which`. */
FG_RARE vd by_lane(vd which, vd x, vd z, double (*f)(double))
{
    double marks[FG_W], operands[FG_W], results[FG_W];
    v_store(marks, which);
    v_store(operands, x);
    v_store(results, z);
    for (size_t i = 0; i < FG_W; i++)
        if (marks[i] != 0.0)
            results[i] = f(operands[i]);
    return v_load(results);
}

FG_INLINE vd v_by_lane(vm which, vd x, vd z, double (*f)(double))
{
    return vm_any(which) ? by_lane(v_select(which, v_set1(1.0), v_set1(0.0)), x, z, f) : z;
}

/* ---- a number as the sum of two doubles: high + low, where low is about a rounding error of high ---- */

typedef struct v_pair {
    vd high, low;
} v_pair;

/* x + y, exactly, where |x| >= |y| or y is a multiple of x's last place. */
FG_INLINE v_pair v_fast_sum(vd x, vd y)
{
    const vd sum = v_add(x, y);
    return (v_pair){sum, v_sub(y, v_sub(sum, x))};
}

FG_INLINE v_pair v_exact_sum(vd x, vd y)
{
    const vd sum = v_add(x, y), of_y = v_sub(sum, x);
    return (v_pair){sum, v_add(v_sub(x, v_sub(sum, of_y)), v_sub(y, of_y))};
}

/* x * y, exactly, unless the product is below 2**-960 or, for x and y too, above 2**990. */
FG_INLINE v_pair v_product(vd x, vd y)
{
    const vd product = v_mul(x, y);
#if FG_FUSED
    return (v_pair){product, v_fms(x, y, product)};
#else /* Dekker: the halves have 26 bits, so their products are exact */
    const vd split = v_set1(134217729.0), big_x = v_mul(split, x), big_y = v_mul(split, y);
    const vd x0 = v_sub(big_x, v_sub(big_x, x)), x1 = v_sub(x, x0);
    const vd y0 = v_sub(big_y, v_sub(big_y, y)), y1 = v_sub(y, y0);
    const vd inner = v_add(v_add(v_sub(v_mul(x0, y0), product), v_mul(x0, y1)), v_mul(x1, y0));
    return (v_pair){product, v_add(inner, v_mul(x1, y1))};
#endif
}

/* x times a pair whose size is from 0 to 2. p.low is left out where it may be wrong, or the sign of a sum with it that
 * of 0. */
FG_INLINE vd v_times_pair(vd x, v_pair y)
{
    const v_pair p = v_product(x, y.high);
    const vd size = v_select(v_lt(v_abs(x), v_set1(1e290)), v_abs(p.high), v_set1(0.0));
    return v_select(v_lt(size, v_set1(1e-290)), v_mul(x, v_add(y.high, y.low)), v_add(p.high, v_fma(x, y.low, p.low)));
}

/* z - x * y, rounded once, where z is that close to x * y that the difference of z and the rounded product is exact. */
FG_INLINE vd v_remainder(vd x, vd y, vd z)
{
#if FG_FUSED
    return v_fnma(x, y, z);
#else
    const v_pair p = v_product(x, y);
    return v_sub(v_sub(z, p.high), p.low);
#endif
}

/* The sum of c[i] * x**i: every second term in `top`, from the last on, and the others in `rest`, so that
 * two short chains of multiplications run side by side. */
FG_INLINE vd v_polynomial(vd x, const double *c, int terms)
{
    const vd square = v_mul(x, x);
    vd top = v_set1(c[terms - 1]), rest = v_set1(c[terms - 2]);
    FG_UNROLL(16)
    for (int i = terms - 3; i > 0; i -= 2) {
        top = v_fma(top, square, v_set1(c[i]));
        rest = v_fma(rest, square, v_set1(c[i - 1]));
    }
    if (terms % 2 == 0) /* the powers in `top` are odd */
        return v_fma(top, x, rest);
    return v_fma(rest, x, v_fma(top, square, v_set1(c[0])));
}

/* ---- exp and expm1 ---- */

#define LN2_HIGH 0.6931471803691238 /* 32 bits: times an exponent it is exact */
#define LN2_LOW 1.9082149292705877e-10

/* exp(r) = 1 + r + r**2 * P(r), |r| <= log(2) / 2. */
static const double EXP[] = {
    0.5000000000000001,     0.16666666666666669,    0.04166666666662399,    0.008333333333330051,
    0.0013888888917281794,  0.00019841269863105968, 2.480152119021773e-05,  2.7557268378684192e-06,
    2.7620138719733994e-07, 2.5100424157005067e-08,
};

/* The nearest integer to x / log(2), for |x| < 2**50. */
FG_INLINE vd v_exp_scale(vd x)
{
    const vd round = v_set1(FG_ROUND);
    return v_sub(v_fma(x, v_set1(1.4426950408889634), round), round);
}

/* exp(x) = 2**n * exp(r). */
FG_INLINE vd v_exp(vd x)
{
    x = v_max(v_set1(-800.0), v_min(v_set1(800.0), x)); /* where it is 0 and inf; nan stays */
    const vd n = v_exp_scale(x);
    const vd r = v_fnma(n, v_set1(LN2_LOW), v_fnma(n, v_set1(LN2_HIGH), x));
    const vd p = v_polynomial(r, EXP, 10);
    return v_scale(v_add(v_set1(1.0), v_fma(v_mul(r, r), p, r)), n);
}

/* exp(x.high + x.low) = 2**n times the pair, within 2**-56; x.high from -800 to 800. */
FG_INLINE v_pair v_exp_pair(v_pair x, vd *n)
{
    *n = v_exp_scale(x.high);
    const vd rest = v_fnma(*n, v_set1(LN2_LOW), x.low);
    const v_pair r = v_fast_sum(v_fnma(*n, v_set1(LN2_HIGH), x.high), rest);
    const v_pair sum = v_fast_sum(v_set1(1.0), r.high);
    const vd p = v_fma(v_mul(r.high, r.high), v_polynomial(r.high, EXP, 10), r.low);
    return v_fast_sum(sum.high, v_add(sum.low, p));
}

/* exp(x) - 1 = 2**n * ((exp(r) - 1) + (1 - 2**-n)) for x from -50 to 800: 2**n times the pair. */
FG_INLINE v_pair v_expm1_pair(vd x, vd *n)
{
    const vd one = v_set1(1.0);
    *n = v_exp_scale(x);
    const vd rest = v_mul(*n, v_set1(LN2_LOW)), first = v_fnma(*n, v_set1(LN2_HIGH), x);
    const vd r = v_sub(first, rest), low = v_sub(v_sub(first, r), rest);
    const vd p = v_fma(v_mul(r, r), v_polynomial(r, EXP, 10), low);
    const v_pair sum = v_exact_sum(v_sub(one, v_scale(one, v_max(v_set1(-100.0), v_neg(*n)))), r);
    return v_fast_sum(sum.high, v_add(sum.low, p));
}

/* Below it x is what expm1, sin and their like give, -0.0 too. */
#define TINIEST 1e-300

FG_INLINE vd v_expm1(vd x)
{
    vd n;
    const vd inside = v_max(v_set1(-50.0), v_min(v_set1(800.0), x)); /* where it is -1 and inf; nan stays */
    const vd high = v_expm1_pair(inside, &n).high, z = v_scale(high, n);
    return v_select(v_lt(v_abs(x), v_set1(TINIEST)), x, z);
}

/* With e = exp(|x|) - 1 it is (e + e / (e + 1)) / 2; by half of e, which does not overflow before it does. */
FG_INLINE vd v_sinh(vd x)
{
    const vd one = v_set1(1.0), a = v_abs(x);
    vd n;
    const v_pair e = v_expm1_pair(v_min(v_set1(720.0), a), &n); /* beyond it is inf, and e.low not yet */
    const vd m = v_sub(n, one), high = v_scale(e.high, m), low = v_scale(e.low, m);
    const vd ratio = v_div(v_min(v_set1(1e300), high), v_add(one, v_add(high, high)));
    const vd z = v_add(high, v_add(ratio, low));
    return v_or(v_select(v_lt(a, v_set1(TINIEST)), a, z), v_sign_of(x));
}

/* exp(|x|) / 2 and half of its reciprocal. */
FG_INLINE vd v_cosh(vd x)
{
    vd n;
    const v_pair a = {v_min(v_set1(800.0), v_abs(x)), v_set1(0.0)};
    const vd m = v_exp_pair(a, &n).high, half = v_scale(m, v_sub(n, v_set1(1.0)));
    return v_add(half, v_div(v_set1(0.25), half));
}

/* ---- log and log1p ---- */

/* log(1 + f) = 2 s + s**3 * P(s**2) = f - s * (f - s**2 * P(s**2)) for sqrt(1/2) < 1 + f < sqrt(2), s = f / (2 + f). */
static const double LOG[] = {
    0.666666666666667,   0.3999999999989889,  0.28571428626253836, 0.22222211089379493,
    0.18182892432537032, 0.15331611722050653, 0.14617807153462828,
};

/* n * log(2) + more + log(1 + f), where s is f / (2 + f). */
FG_INLINE vd v_log_of(vd n, vd more, vd f, vd s)
{
    const vd half_square = v_mul(v_mul(v_set1(0.5), f), f);
    const vd z = v_mul(s, s), q = v_mul(z, v_polynomial(z, LOG, 7));
    /* 2 s = f - s f, and s f = half_square - s * half_square: what is subtracted from f is small */
    const vd low = v_fma(n, v_set1(LN2_LOW), v_fma(s, v_add(half_square, q), more));
    return v_fma(n, v_set1(LN2_HIGH), v_sub(f, v_sub(half_square, low)));
}

/* A finite x > 0 as 2**n * m with sqrt(1/2) < m <= sqrt(2). */
FG_INLINE vd v_split_evenly(vd x, vd *n)
{
    const vd m = v_split(x, n);
    const vm large = v_lt(v_set1(1.4142135623730951), m);
    *n = v_select(large, v_add(*n, v_set1(1.0)), *n);
    return v_select(large, v_mul(m, v_set1(0.5)), m);
}

FG_INLINE vd v_log(vd x)
{
    const vd zero = v_set1(0.0), inf = v_set1(INFINITY);
    vd n;
    const vd f = v_sub(v_split_evenly(x, &n), v_set1(1.0));
    const vd result = v_log_of(n, zero, f, v_div(f, v_add(f, v_set1(2.0))));
    const vd edge = v_select(v_eq(x, zero), v_set1(-INFINITY), v_set1(NAN));
    return v_select(v_eq(x, inf), inf, v_select(v_lt(zero, x), result, edge));
}

FG_INLINE vd v_log1p(vd x)
{
    const vd zero = v_set1(0.0), one = v_set1(1.0), inf = v_set1(INFINITY);
    const v_pair u = v_exact_sum(one, x);
    vd n;
    const vd f = v_sub(v_split_evenly(u.high, &n), one);
    const vd result = v_log_of(n, v_div(u.low, u.high), f, v_div(f, v_add(f, v_set1(2.0))));
    const vd edge = v_select(v_eq(u.high, zero), v_set1(-INFINITY), v_set1(NAN));
    const vd inside = v_select(v_eq(x, inf), inf, v_select(v_lt(zero, u.high), result, edge));
    return v_select(v_lt(v_abs(x), v_set1(1e-17)), x, inside); /* -0.0 too */
}

/* log(1 + x) for 0 <= x <= 1: with f = x, or with f = (x - 1) / 2 and one more log(2). */
FG_INLINE vd v_log1p_unit(vd x)
{
    const vd zero = v_set1(0.0), one = v_set1(1.0);
    const vm large = v_lt(v_set1(0.41421356237309503), x);
    const vd f = v_select(large, v_mul(v_sub(x, one), v_set1(0.5)), x);
    return v_log_of(v_select(large, one, zero), zero, f, v_div(f, v_add(f, v_set1(2.0))));
}

/* ---- tanh, sigmoid and their like ---- */

/* By e = exp(-|x|), which does not overflow. The rounding error of 1 + e is taken off the quotient. */
FG_INLINE vd v_sigmoid(vd x)
{
    const vd one = v_set1(1.0), e = v_exp(v_or(v_abs(x), v_set1(-0.0)));
    const vm positive = v_ge(x, v_set1(0.0));
    const v_pair bottom = v_fast_sum(one, e);
    const vd ratio = v_div(v_select(positive, one, e), bottom.high);
    const vd of_bottom = v_select(positive, ratio, v_sub(one, ratio)); /* 1 / bottom */
    return v_fnma(v_mul(ratio, bottom.low), of_bottom, ratio);
}

/* The same, with nothing lost but by e, for what multiplies it. */
FG_INLINE v_pair v_sigmoid_pair(vd x)
{
    const vd one = v_set1(1.0);
    const v_pair away = {v_max(v_set1(-800.0), v_or(v_abs(x), v_set1(-0.0))), v_set1(0.0)};
    vd n;
    const vd m = v_exp_pair(away, &n).high, e = v_scale(m, n);
    const v_pair bottom = v_fast_sum(one, e);
    const vm positive = v_ge(x, v_set1(0.0));
    const vd top = v_select(positive, one, e), ratio = v_div(top, bottom.high);
    const vd of_bottom = v_select(positive, ratio, v_sub(one, ratio));
    return (v_pair){ratio, v_mul(v_fnma(ratio, bottom.low, v_remainder(ratio, bottom.high, top)), of_bottom)};
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

/* log(1 + exp(-|x|)) */
FG_INLINE vd v_log1p_exp(vd x)
{
    return v_log1p_unit(v_exp(v_or(v_abs(x), v_set1(-0.0))));
}

FG_INLINE vd v_softplus(vd x)
{
    return v_add(v_max(v_set1(0.0), x), v_log1p_exp(x));
}

/* ---- sin and cos ---- */

/* pi / 2 in parts: those of 33 bits times an n below 2**20 are exact. */
#define HALF_PI_1 1.5707963267341256
#define HALF_PI_2 6.077100506303966e-11
#define HALF_PI_3 2.0222662487111665e-21
#define HALF_PI_4 8.4784276603689e-32
/* And what follows the first in two numbers of 53 bits. */
#define HALF_PI_REST_1 6.077100506506192e-11
#define HALF_PI_REST_2 3.5215598651832e-27
#define TRIG_RANGE 1e6

/* |x| = n * pi / 2 + r with |r| <= pi / 4: sine and cosine of r, and `turn`, which is n less a multiple of 4: -2 to 2.
 * r is a pair, for x may be as near to a multiple of pi / 2 as 2**-60. */
typedef struct v_angle {
    v_pair sine, cosine;
    vd turn;
} v_angle;

/* x less n times what is left of pi / 2 after its first part. */
FG_INLINE v_pair v_less_half_pis(vd x, vd n)
{
    if (FG_FUSED) {
        const vd more = v_set1(HALF_PI_REST_1), p = v_mul(n, more), p_low = v_fms(n, more, p), r = v_sub(x, p);
        return (v_pair){r, v_fnma(n, v_set1(HALF_PI_REST_2), v_sub(v_sub(v_sub(x, r), p), p_low))};
    }
    const v_pair r2 = v_fast_sum(x, v_mul(n, v_set1(-HALF_PI_2)));
    const v_pair r3 = v_fast_sum(r2.high, v_mul(n, v_set1(-HALF_PI_3)));
    return v_fast_sum(r3.high, v_fnma(n, v_set1(HALF_PI_4), v_add(r2.low, r3.low)));
}

FG_INLINE v_angle v_reduced(vd x)
{
    static const double S[] = {
        -0.16666666666666666,    0.008333333333333331,   -0.00019841269841265017, 2.755731921930192e-06,
        -2.5052106219521895e-08, 1.6058529572267877e-10, -7.586576588171073e-13,
    };
    static const double C[] = {
        0.041666666666666664,    -0.0013888888888887382, 2.480158729874307e-05,
        -2.7557317260008837e-07, 2.0876143827993133e-09, -1.1382456778061306e-11,
    };
    const vd one = v_set1(1.0), round = v_set1(FG_ROUND), a = v_abs(x);
    const vd n = v_sub(v_fma(a, v_set1(0.6366197723675814), round), round);
    const v_pair r = v_less_half_pis(v_fnma(n, v_set1(HALF_PI_1), a), n);
    const vd z = v_mul(r.high, r.high), half = v_mul(v_set1(0.5), z);
    /* sin(r) = r.high + r.low * (1 - z / 2) + r.high * z * S(z), cos(r) = 1 - z / 2 - r.high * r.low + z**2 * C(z) */
    const vd s_low = v_fma(v_mul(r.high, z), v_polynomial(z, S, 7), v_fnma(half, r.low, r.low));
    const v_pair top = v_fast_sum(one, v_neg(half));
    const vd c_low = v_add(top.low, v_fms(v_mul(z, z), v_polynomial(z, C, 6), v_mul(r.high, r.low)));
    const vd quarter = v_sub(v_fma(n, v_set1(0.25), round), round);
    return (v_angle){{r.high, s_low}, {top.high, c_low}, v_fnma(v_set1(4.0), quarter, n)};
}

/* sin(|x|) is sin(r), cos(r), -sin(r), -cos(r) for a turn of 0, 1, 2, 3; cos(|x|) is that for one turn more. */
FG_INLINE void v_sin_cos(vd x, vd *sine, vd *cosine)
{
    const vd zero = v_set1(0.0), one = v_set1(1.0), two = v_set1(2.0);
    const v_angle r = v_reduced(x);
    const vd s = v_add(r.sine.high, r.sine.low), c = v_add(r.cosine.high, r.cosine.low);
    const vm odd = v_eq(v_abs(r.turn), one);
    const vd of_sine = v_negated_where(vm_or(v_lt(r.turn, zero), v_eq(r.turn, two)), v_select(odd, c, s));
    *sine = v_xor(of_sine, v_sign_of(x)); /* of -0.0 too */
    *cosine = v_negated_where(vm_or(v_lt(one, v_abs(r.turn)), v_eq(r.turn, one)), v_select(odd, s, c));
}

FG_INLINE vm v_outside(vd x, double range)
{
    return v_lt(v_set1(range), v_abs(x));
}

FG_INLINE vd v_sin(vd x)
{
    vd s, c;
    v_sin_cos(x, &s, &c);
    return v_by_lane(v_outside(x, TRIG_RANGE), x, s, sin);
}

FG_INLINE vd v_cos(vd x)
{
    vd s, c;
    v_sin_cos(x, &s, &c);
    return v_by_lane(v_outside(x, TRIG_RANGE), x, c, cos);
}

FG_INLINE vd v_tan(vd x)
{
    const v_angle r = v_reduced(x);
    const vm odd = v_eq(v_abs(r.turn), v_set1(1.0));
    const v_pair s = v_fast_sum(r.sine.high, r.sine.low), c = v_fast_sum(r.cosine.high, r.cosine.low);
    const vd top = v_select(odd, v_neg(c.high), s.high), top_low = v_select(odd, v_neg(c.low), s.low);
    const vd bottom = v_select(odd, s.high, c.high), bottom_low = v_select(odd, s.low, c.low);
    const vd of_bottom = v_div(v_set1(1.0), bottom), ratio = v_mul(top, of_bottom);
    const vd rest = v_add(v_remainder(ratio, bottom, top), v_fnma(ratio, bottom_low, top_low));
    const vd of_size = v_fma(rest, of_bottom, ratio), z = v_negated_where(v_lt(x, v_set1(0.0)), of_size);
    return v_by_lane(v_outside(x, TRIG_RANGE), x, v_select(v_lt(v_abs(x), v_set1(TINIEST)), x, z), tan);
}

/* ---- erfc, gelu and silu ---- */

/* erfc(a) = exp(-a**2) * P(q) / (1 + 2 a) for a >= 0, where q = (a - 4) / (a + 4). The exponential, P and the
 * division are in pairs, and what is lost in q counts by P's derivative D. */
FG_INLINE v_pair v_erfc_pair(vd x)
{
    static const double P[] = {
        -0.13962111684056253,   0.015379652102619558,   0.06809705425469323,     -0.10103906603629459,
        0.09373283499833023,    -0.0663303658124095,    0.03716751553777026,     -0.01619773405599449,
        0.005031969975753176,   -0.0007577732973669146, -0.00019925668432389153, 0.00015062169704678355,
        -2.439924428312988e-05, -1.1222046316669005e-05, 5.709784760966506e-06,  2.9377854943443786e-07,
        -8.254699744871162e-07, 7.471952780500971e-08,  1.1005996198640057e-07,  -1.799947545903142e-08,
        -1.4091982822555755e-08, 1.868487385473519e-09, 1.263782858042137e-09,
    };
    static const double D[] = {-0.1236, 0.1285, -0.1059, -0.8566, 1.2009};
    const double P_HIGH = 1.2329951186255526, P_LOW = -4.497011797204883e-17;
    const vd one = v_set1(1.0), two = v_set1(2.0), four = v_set1(4.0);
    const vd a = v_min(v_set1(28.0), v_abs(x)); /* where it is 0; nan stays */
    const v_pair above = v_exact_sum(a, v_neg(four)), below = v_fast_sum(v_max(four, a), v_min(four, a));
    const vd of_below = v_div(one, below.high), q = v_mul(above.high, of_below);
    const vd q_low = v_mul(v_add(v_remainder(q, below.high, above.high), v_fnma(q, below.low, above.low)), of_below);
    const vd w = v_fma(q, v_polynomial(q, P, 23), v_mul(q_low, v_polynomial(q, D, 5)));
    v_pair p = v_fast_sum(v_set1(P_HIGH), w);
    p.low = v_add(p.low, v_set1(P_LOW));

    const v_pair square = v_product(a, a);
    vd n;
    const v_pair e = v_exp_pair((v_pair){v_neg(square.high), v_neg(square.low)}, &n);
    const v_pair top = v_product(e.high, p.high);
    const vd top_low = v_add(top.low, v_fma(e.high, p.low, v_mul(e.low, p.high)));
    const v_pair bottom = v_exact_sum(one, v_add(a, a));
    const vd of_bottom = v_div(one, bottom.high), ratio = v_mul(top.high, of_bottom);
    const vd rest = v_add(v_remainder(ratio, bottom.high, top.high), v_fnma(ratio, bottom.low, top_low));
    const v_pair result = {v_scale(ratio, n), v_scale(v_mul(rest, of_bottom), n)};
    const v_pair other = v_fast_sum(two, v_neg(result.high)); /* erfc(-a) = 2 - erfc(a) */
    const vm negative = v_lt(x, v_set1(0.0));
    return (v_pair){v_select(negative, other.high, result.high),
                    v_select(negative, v_sub(other.low, result.low), result.low)};
}

FG_INLINE vd v_erfc(vd x)
{
    const v_pair e = v_erfc_pair(x);
    return v_add(e.high, e.low);
}

/* Of a = |x|: where a < 0.65, a + a * E(a**2), else 1 - erfc(a). */
FG_INLINE vd v_erf(vd x)
{
    static const double E[] = {
        0.1283791670955126,    -0.3761263890318375,    0.11283791670954858,    -0.02686617064503548,
        0.0052239776236797245, -0.0008548326834063042, 0.00012055320278174762, -1.492510199267582e-05,
        1.6446854105532698e-06, -1.6100263946388349e-07, 1.214881898912895e-08,
    };
    const vd a = v_abs(x), near = v_fma(a, v_polynomial(v_mul(a, a), E, 11), a);
    const v_pair rest = v_erfc_pair(a), far = v_fast_sum(v_set1(1.0), v_neg(rest.high));
    const vd z = v_select(v_lt(a, v_set1(0.65)), near, v_add(far.high, v_sub(far.low, rest.low)));
    return v_or(z, v_sign_of(x));
}

FG_INLINE vd v_gelu(vd x)
{
    return v_times_pair(v_mul(v_set1(0.5), x), v_erfc_pair(v_mul(v_set1(-FG_SQRT_HALF), x)));
}

FG_INLINE vd v_silu(vd x)
{
    return v_times_pair(x, v_sigmoid_pair(x));
}

/* fg_gelu_logit, rounded as it is. */
FG_INLINE vd v_gelu_logit(vd x)
{
    const vd cube = v_mul(v_mul(v_mul(v_set1(0.044715), x), x), x);
    const vd half = v_mul(v_set1(FG_SQRT_2_PI), v_add(x, cube));
    return v_add(half, half);
}

FG_INLINE vd v_gelu_tanh(vd x)
{
    return v_times_pair(x, v_sigmoid_pair(v_gelu_logit(x)));
}

#endif
