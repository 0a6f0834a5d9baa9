/* lanes.h: vectors of doubles for the contenders by hand, and exp, log, tanh, sin and cos of them.
 *
 * GNU C's vector types have the operators + - * / and comparisons, so the code is the same for all processors. A file
 * may define LANES before it includes lanes.h; by default a `vd` fills a register. Masks are vectors of int64_t:
 * -1 for yes and 0 for no, to be joined by & and |.
 *
 * The functions are fast for what these programs give them, and promise nothing else: no nan, no inf, no overflow.
 * Their errors are a few units in the last place of the larger of the result and 1. */
#ifndef RIVALS_LANES_H
#define RIVALS_LANES_H

#include <stddef.h>
#include <stdint.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if !defined(LANES)
#if defined(__AVX512F__)
#define LANES 8
#elif defined(__AVX__)
#define LANES 4
#else
#define LANES 2
#endif
#endif

/* How many vectors fit into the registers beside what a loop needs for itself. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define MANY_REGISTERS 1
#else
#define MANY_REGISTERS 0
#endif

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

typedef double vd __attribute__((vector_size(8 * LANES)));
typedef int64_t vi __attribute__((vector_size(8 * LANES)));

INLINE vd all(double x)
{
    return x - (vd){0};
}

INLINE vd load(const double *p)
{
    vd x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
}

INLINE void store(double *p, vd x)
{
    __builtin_memcpy(p, &x, sizeof x);
}

/* x where the mask says yes, else 0. */
INLINE vd where(vi yes, vd x)
{
    return (vd)((vi)x & yes);
}

INLINE vd sqrt_of(vd x)
{
#if LANES == 8 && defined(__AVX512F__)
    return _mm512_sqrt_pd(x);
#elif LANES == 4 && defined(__AVX__)
    return _mm256_sqrt_pd(x);
#elif LANES == 2 && defined(__SSE2__)
    return _mm_sqrt_pd(x);
#else
    for (int l = 0; l < LANES; l++)
        x[l] = __builtin_sqrt(x[l]);
    return x;
#endif
}

/* Lane i of the result is the sum of the lanes of x[i]. */
INLINE vd sums(const vd *x)
{
#if LANES == 8 && defined(__AVX512F__)
    vd pairs[4], fours[2];
    UNROLL
    for (int i = 0; i < 4; i++) /* pairs[i] has, lane by lane: x[2i] x[2i+1] x[2i] x[2i+1] ... */
        pairs[i] = _mm512_unpacklo_pd(x[2 * i], x[2 * i + 1]) + _mm512_unpackhi_pd(x[2 * i], x[2 * i + 1]);
    UNROLL
    for (int i = 0; i < 2; i++)
        fours[i] = _mm512_shuffle_f64x2(pairs[2 * i], pairs[2 * i + 1], 0x88) +
                   _mm512_shuffle_f64x2(pairs[2 * i], pairs[2 * i + 1], 0xDD);
    return (vd)_mm512_shuffle_f64x2(fours[0], fours[1], 0x88) + (vd)_mm512_shuffle_f64x2(fours[0], fours[1], 0xDD);
#elif LANES == 4 && defined(__AVX__)
    const vd lo = _mm256_hadd_pd(x[0], x[1]), hi = _mm256_hadd_pd(x[2], x[3]);
    return (vd)_mm256_permute2f128_pd(lo, hi, 0x20) + (vd)_mm256_permute2f128_pd(lo, hi, 0x31);
#else
    vd result;
    for (int i = 0; i < LANES; i++) {
        double sum = 0.0;
        for (int l = 0; l < LANES; l++)
            sum += x[i][l];
        result[i] = sum;
    }
    return result;
#endif
}

INLINE double sum_of(vd x)
{
    double sum = 0.0;
    for (int l = 0; l < LANES; l++)
        sum += x[l];
    return sum;
}

/* 1.5 * 2**52: a number of moderate size plus this one has its nearest integer in the low bits. */
#define ROUND 6755399441055744.0

/* exp(x) = 2**n * exp(r) for |x| < 700. exp(r) = 1 + r + r**2 * P(r), and P is near-minimax for |r| <= log(2) / 2. */
INLINE vd exp_of(vd x)
{
    const vd biased = x * 1.4426950408889634 + ROUND, n = biased - ROUND;
    const vd r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10, r2 = r * r, r4 = r2 * r2;
    const vd p0 = r * 0.16666666666666669 + 0.5000000000000001;
    const vd p2 = r * 0.008333333333329793 + 0.04166666666662064;
    const vd p4 = r * 0.00019841269864380513 + 0.0013888888918939168;
    const vd p6 = r * 2.75572664186123e-06 + 2.4801518641395993e-05;
    const vd p8 = r * 2.510134692835034e-08 + 2.7621338669142925e-07;
    const vd p = (p8 * r4 + (p6 * r2 + p4)) * r4 + (p2 * r2 + p0);
    const vd m = p * r2 + (r + 1.0);
    return (vd)((vi)m + ((vi)biased << 52));
}

/* log(x) for a normal x > 0: x = 2**n * m with m near 1. With s = (m - 1) / (m + 1), log(m) is 2 s + s**3 * P(s**2). */
INLINE vd log_of(vd x)
{
    const vi half_up = (vi)x - 0x3FE6A09E667F3BCD; /* the bits of sqrt(1/2): m is from there to sqrt(2) */
    const vd n = (vd)((half_up >> 52) + 0x4338000000000000) - ROUND;
    const vd m = (vd)((half_up & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD);
    const vd s = (m - 1.0) / (m + 1.0), z = s * s, z2 = z * z;
    const vd p0 = z * 0.40000000011211234 + 0.6666666666666208;
    const vd p2 = z * 0.2222286244350675 + 0.28571424136822743, p4 = z * 0.16621925070760005 + 0.18140186659988092;
    const vd p = (p4 * z2 + p2) * z2 + p0;
    return n * 0.6931471803691238 + (s * 2.0 + (s * z * p + n * 1.9082149292705877e-10));
}

/* For |x| < 350. */
INLINE vd tanh_of(vd x)
{
    return 1.0 - 2.0 / (exp_of(x + x) + 1.0);
}

/* Of |x| < 10,000: x = n * pi / 2 + r, and near-minimax polynomials in r**2 for |r| <= pi / 4. */
INLINE void sin_cos(vd x, vd *sine, vd *cosine)
{
    const vd biased = x * 0.6366197723675814 + ROUND, n = biased - ROUND;
    const vd r = (x - n * 1.5707963267341256) - n * 6.077100506506192e-11, z = r * r, z2 = z * z;
    const vd p0 = z * 0.0083333333333307 - 0.16666666666666666;
    const vd p2 = z * 2.755731591191116e-06 - 0.00019841269836387345;
    const vd p4 = z * 1.5915323212271172e-10 - 2.505109250706138e-08, p = (p4 * z2 + p2) * z2 + p0;
    const vd q0 = z * -0.0013888888888887241 + 0.041666666666666664;
    const vd q2 = z * -2.755731715246704e-07 + 2.4801587298533456e-05;
    const vd q4 = z * -1.1380876948169573e-11 + 2.0876121658871157e-09, q = (q4 * z2 + q2) * z2 + q0;
    const vi s = (vi)(r * z * p + r), c = (vi)(z2 * q + (1.0 - z * 0.5));
    const vi turn = (vi)biased, odd = -(turn & 1); /* by n modulo 4, sine and cosine change places and signs */
    *sine = (vd)(((c & odd) | (s & ~odd)) ^ ((turn & 2) << 62));
    *cosine = (vd)(((s & odd) | (c & ~odd)) ^ (((turn + 1) & 2) << 62));
}

#endif
