/* kernels_powers.h: powers of a vector, within 2 units in the last place: by an integer in multiplications, by
 * others as exp(y * log(x)), both in pairs. Zeros, negative bases, infinities, nan, and what may overflow are
 * libm's, lane by lane. */
#ifndef FG_KERNELS_POWERS_H
#define FG_KERNELS_POWERS_H

#include "kernels_elementary.h"

/* z, with f(x, y) in the lanes that are not 0 in `which`. */
FG_RARE vd by_lane2(vd which, vd x, vd y, vd z, double (*f)(double, double))
{
    double marks[FG_W], first[FG_W], second[FG_W], results[FG_W];
    v_store(marks, which);
    v_store(first, x);
    v_store(second, y);
    v_store(results, z);
    for (size_t i = 0; i < FG_W; i++)
        if (marks[i] != 0.0)
            results[i] = f(first[i], second[i]);
    return v_load(results);
}

FG_INLINE vd v_by_lane2(vm which, vd x, vd y, vd z, double (*f)(double, double))
{
    return vm_any(which) ? by_lane2(v_select(which, v_set1(1.0), v_set1(0.0)), x, y, z, f) : z;
}

/* log(x) within 2**-65 of itself, for a finite x > 0. With s as in v_log, log(1 + f) is
 * 2 s + 2 s**3 (1/3 + s**2 Q(s**2)), where all but Q is in pairs. */
FG_INLINE v_pair v_log_pair(vd x)
{
    static const double Q[] = {
        0.2,                 0.14285714285714282, 0.11111111111114215,  0.09090909089828463,  0.07692307880585086,
        0.06666648267216471, 0.058834065605171064, 0.05228163634742257, 0.053812122097824,
    };
    const vd one = v_set1(1.0), third = v_set1(0.3333333333333333);
    vd n;
    const vd m = v_split_evenly(x, &n), f = v_sub(m, one), bottom = v_add(m, one);
    const vd bottom_low = v_sub(m, v_sub(bottom, one)), of_bottom = v_div(one, bottom);
    const vd s = v_mul(f, of_bottom);
    const vd s_low = v_mul(v_fnma(s, bottom_low, v_remainder(s, bottom, f)), of_bottom);

    v_pair square = v_product(s, s);
    square.low = v_fma(v_add(s, s), s_low, square.low);
    v_pair t = v_fast_sum(third, v_mul(square.high, v_polynomial(square.high, Q, 9)));
    t.low = v_add(t.low, v_set1(1.850371707708594e-17));
    v_pair u = v_product(square.high, t.high);
    u.low = v_add(u.low, v_fma(square.high, t.low, v_mul(square.low, t.high)));
    v_pair su = v_product(s, u.high);
    su.low = v_add(su.low, v_fma(s, u.low, v_mul(s_low, u.high)));

    const v_pair half = v_fast_sum(s, su.high);
    const vd half_low = v_add(half.low, v_add(s_low, su.low));
    const v_pair sum = v_fast_sum(v_mul(n, v_set1(LN2_HIGH)), v_add(half.high, half.high));
    return v_fast_sum(sum.high, v_add(sum.low, v_fma(n, v_set1(LN2_LOW), v_add(half_low, half_low))));
}

FG_INLINE vd v_power(vd x, vd y)
{
    const vd inf = v_set1(INFINITY), one = v_set1(1.0), most = v_set1(800.0), huge = v_set1(1e18);
    const vm plain = v_lt(v_set1(0.0), x);
    const v_pair log = v_log_pair(x);
    v_pair power = v_product(y, log.high);
    power.low = v_fma(y, log.low, power.low);
    power.low = v_select(v_lt(most, v_abs(power.high)), v_set1(0.0), power.low);
    power.high = v_max(v_neg(most), v_min(most, power.high));
    vd n;
    const vd e = v_exp_pair(power, &n).high, z = v_scale(e, n);
    /* 1 in the lanes that are libm's: written so that nan is among them */
    vd rare = v_select(plain, v_set1(0.0), one);
    rare = v_select(v_lt(x, inf), rare, one);
    rare = v_select(v_lt(v_abs(y), huge), rare, one);
    rare = v_select(v_lt(z, v_set1(1.797693134862315e308)), rare, one);
    return v_by_lane2(v_eq(rare, one), x, y, z, pow);
}

enum { POWI_MOST = 64 };

/* x**k, where that is no single instruction. */
FG_INLINE vd v_powi(vd x, int32_t k)
{
    assert(k != 2 && k != -1);
    if (k == 0)
        return v_set1(1.0);
    if (k == 1)
        return x;
    if (k < -POWI_MOST || k > POWI_MOST) {
        const vd z = v_power(v_abs(x), v_set1((double)k));
        return k & 1 ? v_or(z, v_sign_of(x)) : z;
    }
    const unsigned times = (unsigned)(k < 0 ? -k : k);
    const vd one = v_set1(1.0);
    v_pair z = {x, v_set1(0.0)};
    for (unsigned bit = 1u << fg_bits_top(times) >> 1; bit; bit >>= 1) {
        v_pair square = v_product(z.high, z.high);
        square.low = v_fma(v_add(z.high, z.high), z.low, square.low);
        z = square;
        if (times & bit) {
            v_pair more = v_product(z.high, x);
            more.low = v_fma(z.low, x, more.low);
            z = more;
        }
    }
    const vm zero = v_eq(x, v_set1(0.0));
    const vd size = k > 0 ? v_select(zero, one, v_abs(z.high)) : v_abs(z.high);
    const vm rare = vm_or(v_lt(size, v_set1(1e-270)), v_lt(v_set1(1e297), size));
    vd result;
    if (k > 0) {
        result = v_select(zero, z.high, v_add(z.high, z.low)); /* -0.0 stays */
    } else {
        const vd ratio = v_div(one, z.high);
        const vd rest = v_fnma(ratio, z.low, v_remainder(ratio, z.high, one));
        result = v_fma(ratio, rest, ratio);
    }
    return v_by_lane2(rare, x, v_set1((double)k), result, pow);
}

#endif
