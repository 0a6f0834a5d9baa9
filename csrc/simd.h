/* simd.h: the vector instructions of kernels.c and its parts. The build chooses the level with FG_ISA_AVX512
 * or FG_ISA_AVX2. Without these, the level is the target's basic one: SSE2, NEON, or plain C. No other file
 * includes simd.h.
 *
 * A `vd` holds FG_W doubles, or, with FG_SINGLE, floats (simd32.h), and a `vm` a yes or no for each of them. There are
 * FG_REGISTERS vector registers.
 * A "part" of a vector is its first `count` lanes, 0 < count < FG_W: memory past the part is not touched, and
 * loaded lanes past the part are 0. v_fma(x, y, z) is x * y + z, v_fms is x * y - z and v_fnma is z - x * y, rounded
 * once where the level has such an instruction, which FG_FUSED says. If x is nan, v_min(c, x) and v_max(c, x) are nan.
 * Lane i of v_sums is the sum of the lanes of x[i]. */
#ifndef FG_SIMD_H
#define FG_SIMD_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "real.h"

#if defined(FG_UNINLINED) /* for counts of branches: once for each function, and not for each place that calls it */
#define FG_INLINE static inline __attribute__((unused))
#elif defined(__GNUC__) || defined(__clang__)
#define FG_INLINE static inline __attribute__((always_inline))
#endif
#if defined(__GNUC__) || defined(__clang__)
#define FG_APART static __attribute__((noinline))
#define FG_RARE static __attribute__((noinline, cold))
#define FG_PRAGMA(text) _Pragma(#text)
#define FG_UNROLL(count) FG_PRAGMA(GCC unroll count)
#define FG_PREFETCH(p) __builtin_prefetch(p)
#elif defined(_MSC_VER)
#define FG_INLINE static __forceinline
#define FG_APART static __declspec(noinline)
#define FG_RARE static __declspec(noinline)
#define FG_UNROLL(count)
#define FG_PREFETCH(p) ((void)(p))
#else
#define FG_INLINE static inline
#define FG_APART static
#define FG_RARE static
#define FG_UNROLL(count)
#define FG_PREFETCH(p) ((void)(p))
#endif

/* FG_APART is no part of its callers. FG_PREFETCH asks for the cache line of p, which may be any address. After
 * FG_IN_REGISTER(x), x is in a register: compilers load a vector again for each use if that saves an instruction. */
#if defined(__GNUC__) && defined(FG_ISA_AVX512)
#define FG_IN_REGISTER(x) __asm__("" : "+v"(x))
#elif defined(__GNUC__) && defined(FG_ISA_AVX2)
#define FG_IN_REGISTER(x) __asm__("" : "+x"(x))
#else
#define FG_IN_REGISTER(x) ((void)0)
#endif

#if defined(FG_ISA_AVX512)
#include <immintrin.h>
#define FG_ISA "avx512"
#define FG_FUSED 1
#define FG_KERNELS fg_kernels_avx512
#define FG_KERNELS32 fg_kernels32_avx512
#define FG_REGISTERS 32

#elif defined(FG_ISA_AVX2)
#include <immintrin.h>
#define FG_ISA "avx2"
#define FG_FUSED 1
#define FG_KERNELS fg_kernels_avx2
#define FG_KERNELS32 fg_kernels32_avx2
#define FG_REGISTERS 16

#elif defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#define FG_ISA_SSE2
#define FG_ISA "baseline"
#define FG_FUSED 0
#define FG_KERNELS fg_kernels_baseline
#define FG_KERNELS32 fg_kernels32_baseline
#define FG_REGISTERS 16

#elif defined(__aarch64__)
#include <arm_neon.h>
#define FG_ISA_NEON
#define FG_ISA "neon"
#define FG_FUSED 1
#define FG_KERNELS fg_kernels_neon
#define FG_KERNELS32 fg_kernels32_neon
#define FG_REGISTERS 32

#else
#define FG_ISA "baseline"
#define FG_FUSED 0
#define FG_KERNELS fg_kernels_baseline
#define FG_KERNELS32 fg_kernels32_baseline
#define FG_REGISTERS 16
#endif

/* 1.5 * 2**52: the sum of this number and a number below 2**51 has the nearest integer in its low bits. */
#define FG_ROUND 6755399441055744.0

#ifdef FG_SINGLE
#include "simd32.h"
#else

#if defined(FG_ISA_AVX512)

enum { FG_W = 8 };
typedef __m512d vd;
typedef __mmask8 vm;

FG_INLINE vd v_set1(double x) { return _mm512_set1_pd(x); }
FG_INLINE vd v_load(const double *p) { return _mm512_loadu_pd(p); }
FG_INLINE void v_store(double *p, vd x) { _mm512_storeu_pd(p, x); }
FG_INLINE vm v_first(size_t count) { return (vm)((1u << count) - 1u); }
FG_INLINE vd v_load_part(const double *p, size_t count) { return _mm512_maskz_loadu_pd(v_first(count), p); }
FG_INLINE void v_store_part(double *p, size_t count, vd x) { _mm512_mask_storeu_pd(p, v_first(count), x); }
FG_INLINE vd v_part(vd x, size_t count) { return _mm512_maskz_mov_pd(v_first(count), x); }
FG_INLINE vd v_add(vd x, vd y) { return _mm512_add_pd(x, y); }
FG_INLINE vd v_sub(vd x, vd y) { return _mm512_sub_pd(x, y); }
FG_INLINE vd v_mul(vd x, vd y) { return _mm512_mul_pd(x, y); }
FG_INLINE vd v_div(vd x, vd y) { return _mm512_div_pd(x, y); }
FG_INLINE vd v_fma(vd x, vd y, vd z) { return _mm512_fmadd_pd(x, y, z); }
FG_INLINE vd v_fms(vd x, vd y, vd z) { return _mm512_fmsub_pd(x, y, z); }
FG_INLINE vd v_fnma(vd x, vd y, vd z) { return _mm512_fnmadd_pd(x, y, z); }
FG_INLINE vd v_min(vd x, vd y) { return _mm512_min_pd(x, y); }
FG_INLINE vd v_max(vd x, vd y) { return _mm512_max_pd(x, y); }
FG_INLINE vd v_abs(vd x) { return _mm512_andnot_pd(_mm512_set1_pd(-0.0), x); }
FG_INLINE vd v_sign_of(vd x) { return _mm512_and_pd(_mm512_set1_pd(-0.0), x); }
FG_INLINE vd v_or(vd x, vd y) { return _mm512_or_pd(x, y); }
FG_INLINE vd v_xor(vd x, vd y) { return _mm512_xor_pd(x, y); }
FG_INLINE vm v_lt(vd x, vd y) { return _mm512_cmp_pd_mask(x, y, _CMP_LT_OQ); }
FG_INLINE vm v_ge(vd x, vd y) { return _mm512_cmp_pd_mask(x, y, _CMP_GE_OQ); }
FG_INLINE vm v_eq(vd x, vd y) { return _mm512_cmp_pd_mask(x, y, _CMP_EQ_OQ); }
FG_INLINE vm v_isnan(vd x) { return _mm512_cmp_pd_mask(x, x, _CMP_UNORD_Q); }
FG_INLINE vm vm_or(vm x, vm y) { return (vm)(x | y); }
FG_INLINE int vm_any(vm x) { return x != 0; }
FG_INLINE vd v_select(vm yes, vd x, vd y) { return _mm512_mask_blend_pd(yes, y, x); }
FG_INLINE vd v_negated_where(vm yes, vd x) { return _mm512_mask_xor_pd(x, yes, x, _mm512_set1_pd(-0.0)); }

FG_INLINE vd v_scale(vd x, vd n)
{
    return _mm512_scalef_pd(x, n);
}

FG_INLINE vd v_split(vd x, vd *exponent)
{
    *exponent = _mm512_getexp_pd(x);
    return _mm512_getmant_pd(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero);
}

/* The first and third 128-bit lanes of x, then of y; and the second and fourth lanes. */
#define FG_EVEN(x, y) _mm512_shuffle_f64x2(x, y, 0x88)
#define FG_ODD(x, y) _mm512_shuffle_f64x2(x, y, 0xDD)

FG_INLINE vd v_pair_sums(vd x, vd y)
{
    return _mm512_add_pd(_mm512_unpacklo_pd(x, y), _mm512_unpackhi_pd(x, y));
}

FG_INLINE vd v_lane_sums(vd x, vd y)
{
    return _mm512_add_pd(FG_EVEN(x, y), FG_ODD(x, y));
}

FG_INLINE vd v_sums(const vd *x)
{
    return v_lane_sums(v_lane_sums(v_pair_sums(x[0], x[1]), v_pair_sums(x[2], x[3])),
                       v_lane_sums(v_pair_sums(x[4], x[5]), v_pair_sums(x[6], x[7])));
}

FG_INLINE void v_transpose_lanes(vd x0, vd x1, vd x2, vd x3, vd *to)
{
    const vd e01 = FG_EVEN(x0, x1), e23 = FG_EVEN(x2, x3), o01 = FG_ODD(x0, x1), o23 = FG_ODD(x2, x3);
    to[0] = FG_EVEN(e01, e23);
    to[2] = FG_EVEN(o01, o23);
    to[4] = FG_ODD(e01, e23);
    to[6] = FG_ODD(o01, o23);
}

FG_INLINE void v_transpose(vd *x)
{
    vd lo[4], hi[4];
    FG_UNROLL(4)
    for (int i = 0; i < 4; i++) {
        lo[i] = _mm512_unpacklo_pd(x[2 * i], x[2 * i + 1]);
        hi[i] = _mm512_unpackhi_pd(x[2 * i], x[2 * i + 1]);
    }
    v_transpose_lanes(lo[0], lo[1], lo[2], lo[3], x);
    v_transpose_lanes(hi[0], hi[1], hi[2], hi[3], x + 1);
}

FG_INLINE double v_sum(vd x)
{
    const __m256d y = _mm256_add_pd(_mm512_castpd512_pd256(x), _mm512_extractf64x4_pd(x, 1));
    const __m128d z = _mm_add_pd(_mm256_castpd256_pd128(y), _mm256_extractf128_pd(y, 1));
    return _mm_cvtsd_f64(_mm_add_sd(z, _mm_unpackhi_pd(z, z)));
}

#elif defined(FG_ISA_AVX2)

enum { FG_W = 4 };
typedef __m256d vd;
typedef __m256d vm;

FG_INLINE vd v_set1(double x) { return _mm256_set1_pd(x); }
FG_INLINE vd v_load(const double *p) { return _mm256_loadu_pd(p); }
FG_INLINE void v_store(double *p, vd x) { _mm256_storeu_pd(p, x); }
FG_INLINE __m256i v_first(size_t count)
{
    static const int64_t ones[8] = {-1, -1, -1, -1, 0, 0, 0, 0};
    return _mm256_loadu_si256((const __m256i *)(const void *)(ones + 4 - count));
}
FG_INLINE vd v_load_part(const double *p, size_t count) { return _mm256_maskload_pd(p, v_first(count)); }
FG_INLINE void v_store_part(double *p, size_t count, vd x) { _mm256_maskstore_pd(p, v_first(count), x); }
FG_INLINE vd v_part(vd x, size_t count) { return _mm256_and_pd(_mm256_castsi256_pd(v_first(count)), x); }
FG_INLINE vd v_add(vd x, vd y) { return _mm256_add_pd(x, y); }
FG_INLINE vd v_sub(vd x, vd y) { return _mm256_sub_pd(x, y); }
FG_INLINE vd v_mul(vd x, vd y) { return _mm256_mul_pd(x, y); }
FG_INLINE vd v_div(vd x, vd y) { return _mm256_div_pd(x, y); }
FG_INLINE vd v_fma(vd x, vd y, vd z) { return _mm256_fmadd_pd(x, y, z); }
FG_INLINE vd v_fms(vd x, vd y, vd z) { return _mm256_fmsub_pd(x, y, z); }
FG_INLINE vd v_fnma(vd x, vd y, vd z) { return _mm256_fnmadd_pd(x, y, z); }
FG_INLINE vd v_min(vd x, vd y) { return _mm256_min_pd(x, y); }
FG_INLINE vd v_max(vd x, vd y) { return _mm256_max_pd(x, y); }
FG_INLINE vd v_abs(vd x) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), x); }
FG_INLINE vd v_sign_of(vd x) { return _mm256_and_pd(_mm256_set1_pd(-0.0), x); }
FG_INLINE vd v_or(vd x, vd y) { return _mm256_or_pd(x, y); }
FG_INLINE vd v_xor(vd x, vd y) { return _mm256_xor_pd(x, y); }
FG_INLINE vm v_lt(vd x, vd y) { return _mm256_cmp_pd(x, y, _CMP_LT_OQ); }
FG_INLINE vm v_ge(vd x, vd y) { return _mm256_cmp_pd(x, y, _CMP_GE_OQ); }
FG_INLINE vm v_eq(vd x, vd y) { return _mm256_cmp_pd(x, y, _CMP_EQ_OQ); }
FG_INLINE vm v_isnan(vd x) { return _mm256_cmp_pd(x, x, _CMP_UNORD_Q); }
FG_INLINE vm vm_or(vm x, vm y) { return _mm256_or_pd(x, y); }
FG_INLINE int vm_any(vm x) { return _mm256_movemask_pd(x) != 0; }
FG_INLINE vd v_select(vm yes, vd x, vd y) { return _mm256_blendv_pd(y, x, yes); }
FG_INLINE vd v_negated_where(vm yes, vd x) { return _mm256_xor_pd(x, _mm256_and_pd(yes, _mm256_set1_pd(-0.0))); }

FG_INLINE vd v_pow2(vd n)
{
    const vd low_bits = _mm256_add_pd(n, _mm256_set1_pd(FG_ROUND + 1023.0));
    return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(low_bits), 52));
}

FG_INLINE vd v_exponent(vd x)
{
    const __m256i e = _mm256_srli_epi64(_mm256_castpd_si256(x), 52);
    const vd two52 = _mm256_set1_pd(4503599627370496.0);
    return _mm256_sub_pd(_mm256_or_pd(_mm256_castsi256_pd(e), two52), two52);
}

FG_INLINE vd v_mantissa(vd x)
{
    const vd mask = _mm256_castsi256_pd(_mm256_set1_epi64x(0x000FFFFFFFFFFFFF));
    return _mm256_or_pd(_mm256_and_pd(x, mask), _mm256_set1_pd(1.0));
}

FG_INLINE vd v_sums(const vd *x)
{
    const vd x01 = _mm256_hadd_pd(x[0], x[1]), x23 = _mm256_hadd_pd(x[2], x[3]);
    return _mm256_add_pd(_mm256_permute2f128_pd(x01, x23, 0x20), _mm256_permute2f128_pd(x01, x23, 0x31));
}

FG_INLINE void v_transpose(vd *x)
{
    const vd lo01 = _mm256_unpacklo_pd(x[0], x[1]), hi01 = _mm256_unpackhi_pd(x[0], x[1]);
    const vd lo23 = _mm256_unpacklo_pd(x[2], x[3]), hi23 = _mm256_unpackhi_pd(x[2], x[3]);
    x[0] = _mm256_permute2f128_pd(lo01, lo23, 0x20);
    x[1] = _mm256_permute2f128_pd(hi01, hi23, 0x20);
    x[2] = _mm256_permute2f128_pd(lo01, lo23, 0x31);
    x[3] = _mm256_permute2f128_pd(hi01, hi23, 0x31);
}

FG_INLINE double v_sum(vd x)
{
    const __m128d y = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
    return _mm_cvtsd_f64(_mm_add_sd(y, _mm_unpackhi_pd(y, y)));
}

#elif defined(FG_ISA_SSE2)

enum { FG_W = 2 };
typedef __m128d vd;
typedef __m128d vm;

FG_INLINE vd v_set1(double x) { return _mm_set1_pd(x); }
FG_INLINE vd v_load(const double *p) { return _mm_loadu_pd(p); }
FG_INLINE void v_store(double *p, vd x) { _mm_storeu_pd(p, x); }
FG_INLINE vd v_load_part(const double *p, size_t count) { return (void)count, _mm_load_sd(p); }
FG_INLINE void v_store_part(double *p, size_t count, vd x) { (void)count, _mm_store_sd(p, x); }
FG_INLINE vd v_part(vd x, size_t count) { return (void)count, _mm_move_sd(_mm_setzero_pd(), x); }
FG_INLINE vd v_add(vd x, vd y) { return _mm_add_pd(x, y); }
FG_INLINE vd v_sub(vd x, vd y) { return _mm_sub_pd(x, y); }
FG_INLINE vd v_mul(vd x, vd y) { return _mm_mul_pd(x, y); }
FG_INLINE vd v_div(vd x, vd y) { return _mm_div_pd(x, y); }
FG_INLINE vd v_fma(vd x, vd y, vd z) { return _mm_add_pd(_mm_mul_pd(x, y), z); }
FG_INLINE vd v_fms(vd x, vd y, vd z) { return _mm_sub_pd(_mm_mul_pd(x, y), z); }
FG_INLINE vd v_fnma(vd x, vd y, vd z) { return _mm_sub_pd(z, _mm_mul_pd(x, y)); }
FG_INLINE vd v_min(vd x, vd y) { return _mm_min_pd(x, y); }
FG_INLINE vd v_max(vd x, vd y) { return _mm_max_pd(x, y); }
FG_INLINE vd v_abs(vd x) { return _mm_andnot_pd(_mm_set1_pd(-0.0), x); }
FG_INLINE vd v_sign_of(vd x) { return _mm_and_pd(_mm_set1_pd(-0.0), x); }
FG_INLINE vd v_or(vd x, vd y) { return _mm_or_pd(x, y); }
FG_INLINE vd v_xor(vd x, vd y) { return _mm_xor_pd(x, y); }
FG_INLINE vm v_lt(vd x, vd y) { return _mm_cmplt_pd(x, y); }
FG_INLINE vm v_ge(vd x, vd y) { return _mm_cmpge_pd(x, y); }
FG_INLINE vm v_eq(vd x, vd y) { return _mm_cmpeq_pd(x, y); }
FG_INLINE vm v_isnan(vd x) { return _mm_cmpunord_pd(x, x); }
FG_INLINE vm vm_or(vm x, vm y) { return _mm_or_pd(x, y); }
FG_INLINE int vm_any(vm x) { return _mm_movemask_pd(x) != 0; }
FG_INLINE vd v_select(vm yes, vd x, vd y) { return _mm_or_pd(_mm_and_pd(yes, x), _mm_andnot_pd(yes, y)); }
FG_INLINE vd v_negated_where(vm yes, vd x) { return _mm_xor_pd(x, _mm_and_pd(yes, _mm_set1_pd(-0.0))); }

FG_INLINE vd v_pow2(vd n)
{
    const vd low_bits = _mm_add_pd(n, _mm_set1_pd(FG_ROUND + 1023.0));
    return _mm_castsi128_pd(_mm_slli_epi64(_mm_castpd_si128(low_bits), 52));
}

FG_INLINE vd v_exponent(vd x)
{
    const __m128i e = _mm_srli_epi64(_mm_castpd_si128(x), 52);
    const vd two52 = _mm_set1_pd(4503599627370496.0);
    return _mm_sub_pd(_mm_or_pd(_mm_castsi128_pd(e), two52), two52);
}

FG_INLINE vd v_mantissa(vd x)
{
    const vd mask = _mm_castsi128_pd(_mm_set1_epi64x(0x000FFFFFFFFFFFFF));
    return _mm_or_pd(_mm_and_pd(x, mask), _mm_set1_pd(1.0));
}

FG_INLINE vd v_sums(const vd *x)
{
    return _mm_add_pd(_mm_unpacklo_pd(x[0], x[1]), _mm_unpackhi_pd(x[0], x[1]));
}

FG_INLINE void v_transpose(vd *x)
{
    const vd x0 = x[0];
    x[0] = _mm_unpacklo_pd(x0, x[1]);
    x[1] = _mm_unpackhi_pd(x0, x[1]);
}

FG_INLINE double v_sum(vd x)
{
    return _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x)));
}

#elif defined(FG_ISA_NEON)

enum { FG_W = 2 };
typedef float64x2_t vd;
typedef uint64x2_t vm;

FG_INLINE vd v_set1(double x) { return vdupq_n_f64(x); }
FG_INLINE vd v_load(const double *p) { return vld1q_f64(p); }
FG_INLINE void v_store(double *p, vd x) { vst1q_f64(p, x); }
FG_INLINE vd v_load_part(const double *p, size_t count)
{
    return (void)count, vsetq_lane_f64(*p, vdupq_n_f64(0.0), 0);
}
FG_INLINE void v_store_part(double *p, size_t count, vd x) { (void)count, *p = vgetq_lane_f64(x, 0); }
FG_INLINE vd v_part(vd x, size_t count) { return (void)count, vsetq_lane_f64(0.0, x, 1); }
FG_INLINE vd v_add(vd x, vd y) { return vaddq_f64(x, y); }
FG_INLINE vd v_sub(vd x, vd y) { return vsubq_f64(x, y); }
FG_INLINE vd v_mul(vd x, vd y) { return vmulq_f64(x, y); }
FG_INLINE vd v_div(vd x, vd y) { return vdivq_f64(x, y); }
FG_INLINE vd v_fma(vd x, vd y, vd z) { return vfmaq_f64(z, x, y); }
FG_INLINE vd v_fms(vd x, vd y, vd z) { return vnegq_f64(vfmsq_f64(z, x, y)); }
FG_INLINE vd v_fnma(vd x, vd y, vd z) { return vfmsq_f64(z, x, y); }
FG_INLINE vd v_min(vd x, vd y) { return vminq_f64(x, y); }
FG_INLINE vd v_max(vd x, vd y) { return vmaxq_f64(x, y); }
FG_INLINE vd v_abs(vd x) { return vabsq_f64(x); }
FG_INLINE vd v_or(vd x, vd y)
{
    return vreinterpretq_f64_u64(vorrq_u64(vreinterpretq_u64_f64(x), vreinterpretq_u64_f64(y)));
}
FG_INLINE vd v_xor(vd x, vd y)
{
    return vreinterpretq_f64_u64(veorq_u64(vreinterpretq_u64_f64(x), vreinterpretq_u64_f64(y)));
}
FG_INLINE vd v_sign_of(vd x)
{
    return vreinterpretq_f64_u64(
        vandq_u64(vreinterpretq_u64_f64(x), vdupq_n_u64(UINT64_C(0x8000000000000000))));
}
FG_INLINE vm v_lt(vd x, vd y) { return vcltq_f64(x, y); }
FG_INLINE vm v_ge(vd x, vd y) { return vcgeq_f64(x, y); }
FG_INLINE vm v_eq(vd x, vd y) { return vceqq_f64(x, y); }
FG_INLINE vm v_isnan(vd x) { return veorq_u64(vceqq_f64(x, x), vdupq_n_u64(~UINT64_C(0))); }
FG_INLINE vm vm_or(vm x, vm y) { return vorrq_u64(x, y); }
FG_INLINE int vm_any(vm x) { return (vgetq_lane_u64(x, 0) | vgetq_lane_u64(x, 1)) != 0; }
FG_INLINE vd v_select(vm yes, vd x, vd y) { return vbslq_f64(yes, x, y); }
FG_INLINE vd v_negated_where(vm yes, vd x) { return vbslq_f64(yes, vnegq_f64(x), x); }

FG_INLINE vd v_pow2(vd n)
{
    const vd low_bits = vaddq_f64(n, vdupq_n_f64(FG_ROUND + 1023.0));
    return vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(low_bits), 52));
}

FG_INLINE vd v_exponent(vd x)
{
    return vcvtq_f64_u64(vshrq_n_u64(vreinterpretq_u64_f64(x), 52));
}

FG_INLINE vd v_mantissa(vd x)
{
    const uint64x2_t fraction =
        vandq_u64(vreinterpretq_u64_f64(x), vdupq_n_u64(UINT64_C(0x000FFFFFFFFFFFFF)));
    return vreinterpretq_f64_u64(vorrq_u64(fraction, vdupq_n_u64(UINT64_C(0x3FF0000000000000))));
}

FG_INLINE vd v_sums(const vd *x) { return vpaddq_f64(x[0], x[1]); }

FG_INLINE void v_transpose(vd *x)
{
    const vd x0 = x[0];
    x[0] = vzip1q_f64(x0, x[1]);
    x[1] = vzip2q_f64(x0, x[1]);
}

FG_INLINE double v_sum(vd x) { return vaddvq_f64(x); }

#else

enum { FG_W = 1 };
typedef double vd;
typedef int vm;

FG_INLINE vd v_set1(double x) { return x; }
FG_INLINE vd v_load(const double *p) { return *p; }
FG_INLINE void v_store(double *p, vd x) { *p = x; }
FG_INLINE vd v_load_part(const double *p, size_t count) { return (void)count, *p; }
FG_INLINE void v_store_part(double *p, size_t count, vd x) { (void)count, *p = x; }
FG_INLINE vd v_part(vd x, size_t count) { return (void)count, x; }
FG_INLINE vd v_add(vd x, vd y) { return x + y; }
FG_INLINE vd v_sub(vd x, vd y) { return x - y; }
FG_INLINE vd v_mul(vd x, vd y) { return x * y; }
FG_INLINE vd v_div(vd x, vd y) { return x / y; }
FG_INLINE vd v_fma(vd x, vd y, vd z) { return x * y + z; }
FG_INLINE vd v_fms(vd x, vd y, vd z) { return x * y - z; }
FG_INLINE vd v_fnma(vd x, vd y, vd z) { return z - x * y; }
FG_INLINE vd v_min(vd x, vd y) { return x < y ? x : y; }
FG_INLINE vd v_max(vd x, vd y) { return x > y ? x : y; }
FG_INLINE vd v_abs(vd x) { return fabs(x); }
FG_INLINE vd v_sign_of(vd x) { return copysign(0.0, x); }
FG_INLINE vd v_or(vd x, vd y) { return signbit(y) ? -fabs(x) : x; } /* only used to set a sign */
FG_INLINE vd v_xor(vd x, vd y) { return signbit(y) ? -x : x; }       /* and to turn one */
FG_INLINE vm v_lt(vd x, vd y) { return x < y; }
FG_INLINE vm v_ge(vd x, vd y) { return x >= y; }
FG_INLINE vm v_eq(vd x, vd y) { return x == y; }
FG_INLINE vm v_isnan(vd x) { return x != x; }
FG_INLINE vm vm_or(vm x, vm y) { return x | y; }
FG_INLINE int vm_any(vm x) { return x; }
FG_INLINE vd v_select(vm yes, vd x, vd y) { return yes ? x : y; }
FG_INLINE vd v_negated_where(vm yes, vd x) { return yes ? -x : x; }

FG_INLINE uint64_t bits_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

FG_INLINE double double_of(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

FG_INLINE vd v_pow2(vd n) { return double_of(bits_of(n + (FG_ROUND + 1023.0)) << 52); }
FG_INLINE vd v_exponent(vd x) { return (double)(bits_of(x) >> 52); }
FG_INLINE vd v_mantissa(vd x)
{
    return double_of((bits_of(x) & UINT64_C(0x000FFFFFFFFFFFFF)) | UINT64_C(0x3FF0000000000000));
}
FG_INLINE vd v_sums(const vd *x) { return x[0]; }
FG_INLINE void v_transpose(vd *x) { (void)x; }
FG_INLINE double v_sum(vd x) { return x; }

#endif

#if !defined(FG_ISA_AVX512)

/* x * 2**n for an integer n below 2000, rounded once more if the result is subnormal. In two steps, because
 * 2**n itself may be out of range. */
FG_INLINE vd v_scale(vd x, vd n)
{
    const vd round = v_set1(FG_ROUND);
    const vd half = v_sub(v_add(v_mul(n, v_set1(0.5)), round), round);
    return v_mul(v_mul(x, v_pow2(half)), v_pow2(v_sub(n, half)));
}

/* The parts m and e of a finite x = m * 2**e > 0 with 1 <= m < 2. */
FG_INLINE vd v_split(vd x, vd *exponent)
{
    const vm subnormal = v_lt(x, v_set1(2.2250738585072014e-308));
    x = v_select(subnormal, v_mul(x, v_set1(18014398509481984.0)), x); /* 2**54 */
    *exponent = v_sub(v_exponent(x), v_select(subnormal, v_set1(1023.0 + 54.0), v_set1(1023.0)));
    return v_mantissa(x);
}

#endif
#endif
#endif
