/* simd32.h: the second half of simd.h for floats, of which a vector has twice as many as of doubles. Only simd.h
 * includes it.
 *
 * A `vw` has the lanes of a vector as doubles, in two vectors, for steps in which floats would lose digits. */
#ifndef FG_SIMD32_H
#define FG_SIMD32_H

/* 1.5 * 2**23: the sum of this number and a number below 2**22 has the nearest integer in its low bits. */
#define FG_ROUND32 12582912.0f

#if defined(FG_ISA_AVX512)

enum { FG_W = 16 };
typedef __m512 vd;
typedef __mmask16 vm;
typedef __m512d v_half;

FG_INLINE vd v_set1(float x) { return _mm512_set1_ps(x); }
FG_INLINE vd v_load(const float *p) { return _mm512_loadu_ps(p); }
FG_INLINE void v_store(float *p, vd x) { _mm512_storeu_ps(p, x); }
FG_INLINE vm v_first(size_t count) { return (vm)((1u << count) - 1u); }
FG_INLINE vd v_load_part(const float *p, size_t count) { return _mm512_maskz_loadu_ps(v_first(count), p); }
FG_INLINE void v_store_part(float *p, size_t count, vd x) { _mm512_mask_storeu_ps(p, v_first(count), x); }
FG_INLINE vd v_part(vd x, size_t count) { return _mm512_maskz_mov_ps(v_first(count), x); }
FG_INLINE vd v_add(vd x, vd y) { return _mm512_add_ps(x, y); }
FG_INLINE vd v_sub(vd x, vd y) { return _mm512_sub_ps(x, y); }
FG_INLINE vd v_mul(vd x, vd y) { return _mm512_mul_ps(x, y); }
FG_INLINE vd v_div(vd x, vd y) { return _mm512_div_ps(x, y); }
FG_INLINE vd v_sqrt(vd x) { return _mm512_sqrt_ps(x); }
FG_INLINE vd v_fma(vd x, vd y, vd z) { return _mm512_fmadd_ps(x, y, z); }
FG_INLINE vd v_fnma(vd x, vd y, vd z) { return _mm512_fnmadd_ps(x, y, z); }
FG_INLINE vd v_min(vd x, vd y) { return _mm512_min_ps(x, y); }
FG_INLINE vd v_max(vd x, vd y) { return _mm512_max_ps(x, y); }
FG_INLINE vd v_abs(vd x) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), x); }
FG_INLINE vd v_sign_of(vd x) { return _mm512_and_ps(_mm512_set1_ps(-0.0f), x); }
FG_INLINE vd v_or(vd x, vd y) { return _mm512_or_ps(x, y); }
FG_INLINE vm v_lt(vd x, vd y) { return _mm512_cmp_ps_mask(x, y, _CMP_LT_OQ); }
FG_INLINE vm v_ge(vd x, vd y) { return _mm512_cmp_ps_mask(x, y, _CMP_GE_OQ); }
FG_INLINE vm v_eq(vd x, vd y) { return _mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ); }
FG_INLINE vm v_isnan(vd x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q); }
FG_INLINE vm vm_or(vm x, vm y) { return (vm)(x | y); }
FG_INLINE int vm_any(vm x) { return x != 0; }
FG_INLINE vd v_select(vm yes, vd x, vd y) { return _mm512_mask_blend_ps(yes, y, x); }

FG_INLINE vd v_scale(vd x, vd n)
{
    return _mm512_scalef_ps(x, n);
}

FG_INLINE vd v_split(vd x, vd *exponent)
{
    *exponent = _mm512_getexp_ps(x);
    return _mm512_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero);
}

FG_INLINE void v_transpose(vd *x)
{
    vd a[16], b[16];
    FG_UNROLL(16)
    for (int i = 0; i < 8; i++) {
        a[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
    }
    FG_UNROLL(16)
    for (int i = 0; i < 4; i++) { /* b[4 i + j] has column j of each quarter, of rows 4 i to 4 i + 3 */
        FG_UNROLL(2)
        for (int j = 0; j < 2; j++) {
            const __m512d lo = _mm512_castps_pd(a[4 * i + j]), hi = _mm512_castps_pd(a[4 * i + j + 2]);
            b[4 * i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(lo, hi));
            b[4 * i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(lo, hi));
        }
    }
    FG_UNROLL(16)
    for (int j = 0; j < 4; j++) {
        const vd even01 = _mm512_shuffle_f32x4(b[j], b[4 + j], 0x88), odd01 = _mm512_shuffle_f32x4(b[j], b[4 + j], 0xDD);
        const vd even23 = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0x88);
        const vd odd23 = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0xDD);
        x[j] = _mm512_shuffle_f32x4(even01, even23, 0x88);
        x[j + 8] = _mm512_shuffle_f32x4(even01, even23, 0xDD);
        x[j + 4] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
        x[j + 12] = _mm512_shuffle_f32x4(odd01, odd23, 0xDD);
    }
}

FG_INLINE float v_sum(vd x)
{
    const __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    const __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    const __m128 w = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(w, _mm_shuffle_ps(w, w, 1)));
}

FG_INLINE v_half h_set1(double x) { return _mm512_set1_pd(x); }
FG_INLINE v_half h_add(v_half x, v_half y) { return _mm512_add_pd(x, y); }
FG_INLINE v_half h_sub(v_half x, v_half y) { return _mm512_sub_pd(x, y); }
FG_INLINE v_half h_mul(v_half x, v_half y) { return _mm512_mul_pd(x, y); }
FG_INLINE v_half h_div(v_half x, v_half y) { return _mm512_div_pd(x, y); }
FG_INLINE v_half h_min(v_half x, v_half y) { return _mm512_min_pd(x, y); }
FG_INLINE v_half h_max(v_half x, v_half y) { return _mm512_max_pd(x, y); }
FG_INLINE v_half h_fma(v_half x, v_half y, v_half z) { return _mm512_fmadd_pd(x, y, z); }
FG_INLINE v_half h_low(vd x) { return _mm512_cvtps_pd(_mm512_castps512_ps256(x)); }
FG_INLINE v_half h_high(vd x) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)); }
FG_INLINE vd h_join(v_half low, v_half high)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high), 1);
}
FG_INLINE v_half h_pow2(v_half n)
{
    return _mm512_scalef_pd(_mm512_set1_pd(1.0), n);
}

#elif defined(FG_ISA_AVX2)

enum { FG_W = 8 };
typedef __m256 vd;
typedef __m256 vm;
typedef __m256d v_half;

FG_INLINE vd v_set1(float x) { return _mm256_set1_ps(x); }
FG_INLINE vd v_load(const float *p) { return _mm256_loadu_ps(p); }
FG_INLINE void v_store(float *p, vd x) { _mm256_storeu_ps(p, x); }
FG_INLINE __m256i v_first(size_t count)
{
    static const int32_t ones[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    return _mm256_loadu_si256((const __m256i *)(const void *)(ones + 8 - count));
}
FG_INLINE vd v_load_part(const float *p, size_t count) { return _mm256_maskload_ps(p, v_first(count)); }
FG_INLINE void v_store_part(float *p, size_t count, vd x) { _mm256_maskstore_ps(p, v_first(count), x); }
FG_INLINE vd v_part(vd x, size_t count) { return _mm256_and_ps(_mm256_castsi256_ps(v_first(count)), x); }
FG_INLINE vd v_add(vd x, vd y) { return _mm256_add_ps(x, y); }
FG_INLINE vd v_sub(vd x, vd y) { return _mm256_sub_ps(x, y); }
FG_INLINE vd v_mul(vd x, vd y) { return _mm256_mul_ps(x, y); }
FG_INLINE vd v_div(vd x, vd y) { return _mm256_div_ps(x, y); }
FG_INLINE vd v_sqrt(vd x) { return _mm256_sqrt_ps(x); }
FG_INLINE vd v_fma(vd x, vd y, vd z) { return _mm256_fmadd_ps(x, y, z); }
FG_INLINE vd v_fnma(vd x, vd y, vd z) { return _mm256_fnmadd_ps(x, y, z); }
FG_INLINE vd v_min(vd x, vd y) { return _mm256_min_ps(x, y); }
FG_INLINE vd v_max(vd x, vd y) { return _mm256_max_ps(x, y); }
FG_INLINE vd v_abs(vd x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
FG_INLINE vd v_sign_of(vd x) { return _mm256_and_ps(_mm256_set1_ps(-0.0f), x); }
FG_INLINE vd v_or(vd x, vd y) { return _mm256_or_ps(x, y); }
FG_INLINE vm v_lt(vd x, vd y) { return _mm256_cmp_ps(x, y, _CMP_LT_OQ); }
FG_INLINE vm v_ge(vd x, vd y) { return _mm256_cmp_ps(x, y, _CMP_GE_OQ); }
FG_INLINE vm v_eq(vd x, vd y) { return _mm256_cmp_ps(x, y, _CMP_EQ_OQ); }
FG_INLINE vm v_isnan(vd x) { return _mm256_cmp_ps(x, x, _CMP_UNORD_Q); }
FG_INLINE vm vm_or(vm x, vm y) { return _mm256_or_ps(x, y); }
FG_INLINE int vm_any(vm x) { return _mm256_movemask_ps(x) != 0; }
FG_INLINE vd v_select(vm yes, vd x, vd y) { return _mm256_blendv_ps(y, x, yes); }

FG_INLINE vd v_pow2(vd n)
{
    const vd low_bits = _mm256_add_ps(n, _mm256_set1_ps(FG_ROUND32 + 127.0f));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(low_bits), 23));
}

FG_INLINE vd v_exponent(vd x)
{
    return _mm256_cvtepi32_ps(_mm256_srli_epi32(_mm256_castps_si256(x), 23));
}

FG_INLINE vd v_mantissa(vd x)
{
    const vd mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x007FFFFF));
    return _mm256_or_ps(_mm256_and_ps(x, mask), _mm256_set1_ps(1.0f));
}

FG_INLINE void v_transpose(vd *x)
{
    vd a[8], b[8];
    FG_UNROLL(8)
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]);
    }
    FG_UNROLL(8)
    for (int i = 0; i < 2; i++) { /* b[4 i + j] has column j of each half, of rows 4 i to 4 i + 3 */
        FG_UNROLL(2)
        for (int j = 0; j < 2; j++) {
            const __m256d lo = _mm256_castps_pd(a[4 * i + j]), hi = _mm256_castps_pd(a[4 * i + j + 2]);
            b[4 * i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(lo, hi));
            b[4 * i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(lo, hi));
        }
    }
    FG_UNROLL(8)
    for (int j = 0; j < 4; j++) {
        x[j] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x20);
        x[j + 4] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x31);
    }
}

FG_INLINE float v_sum(vd x)
{
    const __m128 z = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 w = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(w, _mm_shuffle_ps(w, w, 1)));
}

FG_INLINE v_half h_set1(double x) { return _mm256_set1_pd(x); }
FG_INLINE v_half h_add(v_half x, v_half y) { return _mm256_add_pd(x, y); }
FG_INLINE v_half h_sub(v_half x, v_half y) { return _mm256_sub_pd(x, y); }
FG_INLINE v_half h_mul(v_half x, v_half y) { return _mm256_mul_pd(x, y); }
FG_INLINE v_half h_div(v_half x, v_half y) { return _mm256_div_pd(x, y); }
FG_INLINE v_half h_min(v_half x, v_half y) { return _mm256_min_pd(x, y); }
FG_INLINE v_half h_max(v_half x, v_half y) { return _mm256_max_pd(x, y); }
FG_INLINE v_half h_fma(v_half x, v_half y, v_half z) { return _mm256_fmadd_pd(x, y, z); }
FG_INLINE v_half h_low(vd x) { return _mm256_cvtps_pd(_mm256_castps256_ps128(x)); }
FG_INLINE v_half h_high(vd x) { return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)); }
FG_INLINE vd h_join(v_half low, v_half high)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(low)), _mm256_cvtpd_ps(high), 1);
}
FG_INLINE v_half h_pow2(v_half n)
{
    const v_half low_bits = _mm256_add_pd(n, _mm256_set1_pd(FG_ROUND + 1023.0));
    return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(low_bits), 52));
}

#elif defined(FG_ISA_SSE2)

enum { FG_W = 4 };
typedef __m128 vd;
typedef __m128 vm;
typedef __m128d v_half;

FG_INLINE vd v_set1(float x) { return _mm_set1_ps(x); }
FG_INLINE vd v_load(const float *p) { return _mm_loadu_ps(p); }
FG_INLINE void v_store(float *p, vd x) { _mm_storeu_ps(p, x); }
FG_INLINE vd v_load_part(const float *p, size_t count)
{
    float all[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (size_t i = 0; i < count; i++)
        all[i] = p[i];
    return _mm_loadu_ps(all);
}
FG_INLINE void v_store_part(float *p, size_t count, vd x)
{
    float all[4];
    _mm_storeu_ps(all, x);
    for (size_t i = 0; i < count; i++)
        p[i] = all[i];
}
FG_INLINE vd v_part(vd x, size_t count)
{
    static const int32_t ones[8] = {-1, -1, -1, -1, 0, 0, 0, 0};
    const __m128i first = _mm_loadu_si128((const __m128i *)(const void *)(ones + 4 - count));
    return _mm_and_ps(_mm_castsi128_ps(first), x);
}
FG_INLINE vd v_add(vd x, vd y) { return _mm_add_ps(x, y); }
FG_INLINE vd v_sub(vd x, vd y) { return _mm_sub_ps(x, y); }
FG_INLINE vd v_mul(vd x, vd y) { return _mm_mul_ps(x, y); }
FG_INLINE vd v_div(vd x, vd y) { return _mm_div_ps(x, y); }
FG_INLINE vd v_sqrt(vd x) { return _mm_sqrt_ps(x); }
FG_INLINE vd v_fma(vd x, vd y, vd z) { return _mm_add_ps(_mm_mul_ps(x, y), z); }
FG_INLINE vd v_fnma(vd x, vd y, vd z) { return _mm_sub_ps(z, _mm_mul_ps(x, y)); }
FG_INLINE vd v_min(vd x, vd y) { return _mm_min_ps(x, y); }
FG_INLINE vd v_max(vd x, vd y) { return _mm_max_ps(x, y); }
FG_INLINE vd v_abs(vd x) { return _mm_andnot_ps(_mm_set1_ps(-0.0f), x); }
FG_INLINE vd v_sign_of(vd x) { return _mm_and_ps(_mm_set1_ps(-0.0f), x); }
FG_INLINE vd v_or(vd x, vd y) { return _mm_or_ps(x, y); }
FG_INLINE vm v_lt(vd x, vd y) { return _mm_cmplt_ps(x, y); }
FG_INLINE vm v_ge(vd x, vd y) { return _mm_cmpge_ps(x, y); }
FG_INLINE vm v_eq(vd x, vd y) { return _mm_cmpeq_ps(x, y); }
FG_INLINE vm v_isnan(vd x) { return _mm_cmpunord_ps(x, x); }
FG_INLINE vm vm_or(vm x, vm y) { return _mm_or_ps(x, y); }
FG_INLINE int vm_any(vm x) { return _mm_movemask_ps(x) != 0; }
FG_INLINE vd v_select(vm yes, vd x, vd y) { return _mm_or_ps(_mm_and_ps(yes, x), _mm_andnot_ps(yes, y)); }

FG_INLINE vd v_pow2(vd n)
{
    const vd low_bits = _mm_add_ps(n, _mm_set1_ps(FG_ROUND32 + 127.0f));
    return _mm_castsi128_ps(_mm_slli_epi32(_mm_castps_si128(low_bits), 23));
}

FG_INLINE vd v_exponent(vd x)
{
    return _mm_cvtepi32_ps(_mm_srli_epi32(_mm_castps_si128(x), 23));
}

FG_INLINE vd v_mantissa(vd x)
{
    const vd mask = _mm_castsi128_ps(_mm_set1_epi32(0x007FFFFF));
    return _mm_or_ps(_mm_and_ps(x, mask), _mm_set1_ps(1.0f));
}

FG_INLINE void v_transpose(vd *x)
{
    _MM_TRANSPOSE4_PS(x[0], x[1], x[2], x[3]);
}

FG_INLINE float v_sum(vd x)
{
    const __m128 w = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(w, _mm_shuffle_ps(w, w, 1)));
}

FG_INLINE v_half h_set1(double x) { return _mm_set1_pd(x); }
FG_INLINE v_half h_add(v_half x, v_half y) { return _mm_add_pd(x, y); }
FG_INLINE v_half h_sub(v_half x, v_half y) { return _mm_sub_pd(x, y); }
FG_INLINE v_half h_mul(v_half x, v_half y) { return _mm_mul_pd(x, y); }
FG_INLINE v_half h_div(v_half x, v_half y) { return _mm_div_pd(x, y); }
FG_INLINE v_half h_min(v_half x, v_half y) { return _mm_min_pd(x, y); }
FG_INLINE v_half h_max(v_half x, v_half y) { return _mm_max_pd(x, y); }
FG_INLINE v_half h_fma(v_half x, v_half y, v_half z) { return _mm_add_pd(_mm_mul_pd(x, y), z); }
FG_INLINE v_half h_low(vd x) { return _mm_cvtps_pd(x); }
FG_INLINE v_half h_high(vd x) { return _mm_cvtps_pd(_mm_movehl_ps(x, x)); }
FG_INLINE vd h_join(v_half low, v_half high) { return _mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high)); }
FG_INLINE v_half h_pow2(v_half n)
{
    const v_half low_bits = _mm_add_pd(n, _mm_set1_pd(FG_ROUND + 1023.0));
    return _mm_castsi128_pd(_mm_slli_epi64(_mm_castpd_si128(low_bits), 52));
}

#elif defined(FG_ISA_NEON)

enum { FG_W = 4 };
typedef float32x4_t vd;
typedef uint32x4_t vm;
typedef float64x2_t v_half;

FG_INLINE vd v_set1(float x) { return vdupq_n_f32(x); }
FG_INLINE vd v_load(const float *p) { return vld1q_f32(p); }
FG_INLINE void v_store(float *p, vd x) { vst1q_f32(p, x); }
FG_INLINE vd v_load_part(const float *p, size_t count)
{
    float all[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (size_t i = 0; i < count; i++)
        all[i] = p[i];
    return vld1q_f32(all);
}
FG_INLINE void v_store_part(float *p, size_t count, vd x)
{
    float all[4];
    vst1q_f32(all, x);
    for (size_t i = 0; i < count; i++)
        p[i] = all[i];
}
FG_INLINE vd v_part(vd x, size_t count)
{
    static const uint32_t ones[8] = {~0u, ~0u, ~0u, ~0u, 0u, 0u, 0u, 0u};
    return vreinterpretq_f32_u32(vandq_u32(vld1q_u32(ones + 4 - count), vreinterpretq_u32_f32(x)));
}
FG_INLINE vd v_add(vd x, vd y) { return vaddq_f32(x, y); }
FG_INLINE vd v_sub(vd x, vd y) { return vsubq_f32(x, y); }
FG_INLINE vd v_mul(vd x, vd y) { return vmulq_f32(x, y); }
FG_INLINE vd v_div(vd x, vd y) { return vdivq_f32(x, y); }
FG_INLINE vd v_sqrt(vd x) { return vsqrtq_f32(x); }
FG_INLINE vd v_fma(vd x, vd y, vd z) { return vfmaq_f32(z, x, y); }
FG_INLINE vd v_fnma(vd x, vd y, vd z) { return vfmsq_f32(z, x, y); }
FG_INLINE vd v_min(vd x, vd y) { return vminq_f32(x, y); }
FG_INLINE vd v_max(vd x, vd y) { return vmaxq_f32(x, y); }
FG_INLINE vd v_abs(vd x) { return vabsq_f32(x); }
FG_INLINE vd v_or(vd x, vd y)
{
    return vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(x), vreinterpretq_u32_f32(y)));
}
FG_INLINE vd v_sign_of(vd x)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x80000000u)));
}
FG_INLINE vm v_lt(vd x, vd y) { return vcltq_f32(x, y); }
FG_INLINE vm v_ge(vd x, vd y) { return vcgeq_f32(x, y); }
FG_INLINE vm v_eq(vd x, vd y) { return vceqq_f32(x, y); }
FG_INLINE vm v_isnan(vd x) { return vmvnq_u32(vceqq_f32(x, x)); }
FG_INLINE vm vm_or(vm x, vm y) { return vorrq_u32(x, y); }
FG_INLINE int vm_any(vm x) { return vmaxvq_u32(x) != 0; }
FG_INLINE vd v_select(vm yes, vd x, vd y) { return vbslq_f32(yes, x, y); }

FG_INLINE vd v_pow2(vd n)
{
    const vd low_bits = vaddq_f32(n, vdupq_n_f32(FG_ROUND32 + 127.0f));
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(low_bits), 23));
}

FG_INLINE vd v_exponent(vd x)
{
    return vcvtq_f32_u32(vshrq_n_u32(vreinterpretq_u32_f32(x), 23));
}

FG_INLINE vd v_mantissa(vd x)
{
    const uint32x4_t fraction = vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x007FFFFFu));
    return vreinterpretq_f32_u32(vorrq_u32(fraction, vdupq_n_u32(0x3F800000u)));
}

FG_INLINE void v_transpose(vd *x)
{
    const float32x4x2_t a = vtrnq_f32(x[0], x[1]), b = vtrnq_f32(x[2], x[3]);
    x[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    x[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    x[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    x[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

FG_INLINE float v_sum(vd x) { return vaddvq_f32(x); }

FG_INLINE v_half h_set1(double x) { return vdupq_n_f64(x); }
FG_INLINE v_half h_add(v_half x, v_half y) { return vaddq_f64(x, y); }
FG_INLINE v_half h_sub(v_half x, v_half y) { return vsubq_f64(x, y); }
FG_INLINE v_half h_mul(v_half x, v_half y) { return vmulq_f64(x, y); }
FG_INLINE v_half h_div(v_half x, v_half y) { return vdivq_f64(x, y); }
FG_INLINE v_half h_min(v_half x, v_half y) { return vminq_f64(x, y); }
FG_INLINE v_half h_max(v_half x, v_half y) { return vmaxq_f64(x, y); }
FG_INLINE v_half h_fma(v_half x, v_half y, v_half z) { return vfmaq_f64(z, x, y); }
FG_INLINE v_half h_low(vd x) { return vcvt_f64_f32(vget_low_f32(x)); }
FG_INLINE v_half h_high(vd x) { return vcvt_high_f64_f32(x); }
FG_INLINE vd h_join(v_half low, v_half high) { return vcvt_high_f32_f64(vcvt_f32_f64(low), high); }
FG_INLINE v_half h_pow2(v_half n)
{
    const v_half low_bits = vaddq_f64(n, vdupq_n_f64(FG_ROUND + 1023.0));
    return vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(low_bits), 52));
}

#else

enum { FG_W = 1 };
typedef float vd;
typedef int vm;
typedef double v_half;

FG_INLINE vd v_set1(float x) { return x; }
FG_INLINE vd v_load(const float *p) { return *p; }
FG_INLINE void v_store(float *p, vd x) { *p = x; }
FG_INLINE vd v_load_part(const float *p, size_t count) { return (void)count, *p; }
FG_INLINE void v_store_part(float *p, size_t count, vd x) { (void)count, *p = x; }
FG_INLINE vd v_part(vd x, size_t count) { return (void)count, x; }
FG_INLINE vd v_add(vd x, vd y) { return x + y; }
FG_INLINE vd v_sub(vd x, vd y) { return x - y; }
FG_INLINE vd v_mul(vd x, vd y) { return x * y; }
FG_INLINE vd v_div(vd x, vd y) { return x / y; }
FG_INLINE vd v_sqrt(vd x) { return sqrtf(x); }
FG_INLINE vd v_fma(vd x, vd y, vd z) { return x * y + z; }
FG_INLINE vd v_fnma(vd x, vd y, vd z) { return z - x * y; }
FG_INLINE vd v_min(vd x, vd y) { return x < y ? x : y; }
FG_INLINE vd v_max(vd x, vd y) { return x > y ? x : y; }
FG_INLINE vd v_abs(vd x) { return fabsf(x); }
FG_INLINE vd v_sign_of(vd x) { return copysignf(0.0f, x); }
FG_INLINE vd v_or(vd x, vd y) { return signbit(y) ? -fabsf(x) : x; } /* only used to set a sign */
FG_INLINE vm v_lt(vd x, vd y) { return x < y; }
FG_INLINE vm v_ge(vd x, vd y) { return x >= y; }
FG_INLINE vm v_eq(vd x, vd y) { return x == y; }
FG_INLINE vm v_isnan(vd x) { return x != x; }
FG_INLINE vm vm_or(vm x, vm y) { return x | y; }
FG_INLINE int vm_any(vm x) { return x; }
FG_INLINE vd v_select(vm yes, vd x, vd y) { return yes ? x : y; }

FG_INLINE uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

FG_INLINE float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

FG_INLINE vd v_pow2(vd n) { return float_of(bits_of(n + (FG_ROUND32 + 127.0f)) << 23); }
FG_INLINE vd v_exponent(vd x) { return (float)(bits_of(x) >> 23); }
FG_INLINE vd v_mantissa(vd x) { return float_of((bits_of(x) & 0x007FFFFFu) | 0x3F800000u); }
FG_INLINE void v_transpose(vd *x) { (void)x; }
FG_INLINE float v_sum(vd x) { return x; }

FG_INLINE v_half h_set1(double x) { return x; }
FG_INLINE v_half h_add(v_half x, v_half y) { return x + y; }
FG_INLINE v_half h_sub(v_half x, v_half y) { return x - y; }
FG_INLINE v_half h_mul(v_half x, v_half y) { return x * y; }
FG_INLINE v_half h_div(v_half x, v_half y) { return x / y; }
FG_INLINE v_half h_min(v_half x, v_half y) { return x < y ? x : y; }
FG_INLINE v_half h_max(v_half x, v_half y) { return x > y ? x : y; }
FG_INLINE v_half h_fma(v_half x, v_half y, v_half z) { return x * y + z; }
FG_INLINE v_half h_low(vd x) { return x; }
FG_INLINE v_half h_high(vd x) { return x; }
FG_INLINE vd h_join(v_half low, v_half high) { return (void)high, (float)low; }
FG_INLINE v_half h_pow2(v_half n) { return ldexp(1.0, (int)n); }

#endif

FG_INLINE vd v_sums(const vd *x)
{
    vd y[FG_W];
    FG_UNROLL(16)
    for (int i = 0; i < FG_W; i++)
        y[i] = x[i];
    v_transpose(y);
    FG_UNROLL(16)
    for (int width = FG_W / 2; width > 0; width /= 2) {
        FG_UNROLL(16)
        for (int i = 0; i < width; i++)
            y[i] = v_add(y[i], y[i + width]);
    }
    return y[0];
}

#if !defined(FG_ISA_AVX512)

/* x * 2**n for an integer n below 250, rounded once more if the result is subnormal. */
FG_INLINE vd v_scale(vd x, vd n)
{
    const vd round = v_set1(FG_ROUND32);
    const vd half = v_sub(v_add(v_mul(n, v_set1(0.5f)), round), round);
    return v_mul(v_mul(x, v_pow2(half)), v_pow2(v_sub(n, half)));
}

/* The parts m and e of a finite x = m * 2**e > 0 with 1 <= m < 2. */
FG_INLINE vd v_split(vd x, vd *exponent)
{
    const vm subnormal = v_lt(x, v_set1(1.17549435e-38f));
    x = v_select(subnormal, v_mul(x, v_set1(33554432.0f)), x); /* 2**25 */
    *exponent = v_sub(v_exponent(x), v_select(subnormal, v_set1(127.0f + 25.0f), v_set1(127.0f)));
    return v_mantissa(x);
}

#endif

/* ---- lanes as doubles ---- */

typedef struct vw {
    v_half low, high;
} vw;

FG_INLINE vw w_of(vd x) { return (vw){h_low(x), h_high(x)}; }
FG_INLINE vd w_round(vw x) { return h_join(x.low, x.high); }
FG_INLINE vw w_set1(double x) { return (vw){h_set1(x), h_set1(x)}; }
FG_INLINE vw w_add(vw x, vw y) { return (vw){h_add(x.low, y.low), h_add(x.high, y.high)}; }
FG_INLINE vw w_sub(vw x, vw y) { return (vw){h_sub(x.low, y.low), h_sub(x.high, y.high)}; }
FG_INLINE vw w_mul(vw x, vw y) { return (vw){h_mul(x.low, y.low), h_mul(x.high, y.high)}; }
FG_INLINE vw w_div(vw x, vw y) { return (vw){h_div(x.low, y.low), h_div(x.high, y.high)}; }
FG_INLINE vw w_min(vw x, vw y) { return (vw){h_min(x.low, y.low), h_min(x.high, y.high)}; }
FG_INLINE vw w_max(vw x, vw y) { return (vw){h_max(x.low, y.low), h_max(x.high, y.high)}; }
FG_INLINE vw w_fma(vw x, vw y, vw z) { return (vw){h_fma(x.low, y.low, z.low), h_fma(x.high, y.high, z.high)}; }
FG_INLINE vw w_pow2(vw n) { return (vw){h_pow2(n.low), h_pow2(n.high)}; }

#endif
