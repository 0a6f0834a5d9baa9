/* base.h: the parts that the whole core shares: the type of ids, the status codes, and portable
 * functions for the bits of a word. */
#ifndef FG_BASE_H
#define FG_BASE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/* A node's position on the tape. A collection renumbers nodes, so no id is kept across a call that
 * may collect. Id 0 is the tape's sentinel and never a user's node. */
typedef uint32_t fg_id;

#define FG_MAX_ID ((fg_id)0xFFFFFFF0u)

/* Every function that can fail returns one of these codes; success is >= 0. */
typedef enum fg_status {
    FG_OK = 0,
    FG_E_MEMORY = -1,        /* an allocation failed */
    FG_E_FULL = -2,          /* more nodes or operands than 32-bit ids can count */
    FG_E_ZERO_DIVISION = -3, /* Python's ZeroDivisionError */
    FG_E_OVERFLOW = -4,      /* Python's OverflowError: finite operands, infinite result */
    FG_E_DOMAIN = -5,        /* Python's ValueError: outside the operation's real domain */
    FG_E_INTERRUPTED = -6,   /* the caller has asked for a stop, and may call again */
    FG_E_INDEX = -7          /* Python's IndexError: a position that is none */
} fg_status;

#if defined(__GNUC__) || defined(__clang__)
#define FG_LIKELY(c) __builtin_expect(!!(c), 1)
#define FG_UNLIKELY(c) __builtin_expect(!!(c), 0)
#else
#define FG_LIKELY(c) (c)
#define FG_UNLIKELY(c) (c)
#endif

/* Inline, whatever the compiler thinks: what is folded where an operation is known, and what is in registers. (Not for
 * counts of branches: these are once for each function, and not for each place that calls it.) */
#if (defined(__GNUC__) || defined(__clang__)) && !defined(FG_UNINLINED)
#define FG_ALWAYS inline __attribute__((always_inline))
#else
#define FG_ALWAYS inline
#endif

/* The wheels run with every glibc since 2.17. Newer ones have these functions twice: the newer version leaves out a
 * wrapper that sets errno, and both compute by the same code, so that results equal those of Python's math, bit for bit
 * but for the sign of a nan. The older version is in every glibc. `dev.py wheels` finds what is missing here. */
#if defined(__GLIBC__) && defined(__LP64__) && (defined(__x86_64__) || defined(__aarch64__))
#ifdef __x86_64__
#define FG_OLDEST(name) __asm__(".symver " name ", " name "@GLIBC_2.2.5")
#else
#define FG_OLDEST(name) __asm__(".symver " name ", " name "@GLIBC_2.17")
#endif
FG_OLDEST("exp");
FG_OLDEST("hypot");
FG_OLDEST("log");
FG_OLDEST("pow");
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#pragma fp_contract(off) /* as -ffp-contract=off: x * y + z is rounded twice; only v_fma of simd.h fuses */
#endif

/* Position (0..63) of the highest set bit of w. Precondition: w != 0. */
static inline unsigned fg_bits_top(uint64_t w)
{
#if defined(__GNUC__) || defined(__clang__)
    return 63u - (unsigned)__builtin_clzll(w);
#elif defined(_MSC_VER) && (defined(_M_X64) || defined(_M_ARM64))
    unsigned long top;
    _BitScanReverse64(&top, w);
    return (unsigned)top;
#else
    unsigned top = 0;
    for (unsigned step = 32; step; step >>= 1)
        if (w >> step) {
            w >>= step;
            top += step;
        }
    return top;
#endif
}

/* Position (0..63) of the lowest set bit of w. Precondition: w != 0. */
static inline unsigned fg_bits_low(uint64_t w)
{
    return fg_bits_top(w & (~w + 1u));
}

/* Number of set bits of w. On x86-64 without POPCNT the compiler's builtin is a library call. This
 * branch-free sum by halves is faster, and compilers replace it by POPCNT where they may use POPCNT. */
static inline unsigned fg_bits_count(uint64_t w)
{
    w -= (w >> 1) & 0x5555555555555555u;
    w = (w & 0x3333333333333333u) + ((w >> 2) & 0x3333333333333333u);
    w = (w + (w >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
    return (unsigned)((w * 0x0101010101010101u) >> 56);
}

/* Whether number i is in a set, bit i % 64 of bits[i / 64]; and enter it. */
static inline int fg_bits_has(const uint64_t *bits, fg_id i)
{
    return (int)(bits[i >> 6] >> (i & 63u) & 1u);
}

static inline void fg_bits_put(uint64_t *bits, fg_id i)
{
    bits[i >> 6] |= (uint64_t)1 << (i & 63u);
}

#endif
