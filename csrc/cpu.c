/* cpu.c: see cpu.h. Each call asks the processor anew: calls are rare, and so no state is kept. */
#include "cpu.h"

#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#define X86

static void cpuid(uint32_t leaf, uint32_t r[4])
{
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(0));
}

static uint32_t enabled_states(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

#elif defined(_M_X64) || defined(_M_IX86)
#define X86
#include <intrin.h>

static void cpuid(uint32_t leaf, uint32_t r[4])
{
    int found[4];
    __cpuidex(found, (int)leaf, 0);
    for (int i = 0; i < 4; i++)
        r[i] = (uint32_t)found[i];
}

static uint32_t enabled_states(void)
{
    return (uint32_t)_xgetbv(0);
}
#endif

/* The needs of a level, as bits. PLAIN needs nothing beyond the target's basic instructions. */
enum { PLAIN = 0, AVX2 = 1, AVX512 = 2 };

/* The bits of the needs that the processor and the operating system fulfil. The operating system has to
 * save the wide registers when it switches processes. */
static unsigned features(void)
{
    unsigned has = PLAIN;
#ifdef X86
    enum { FMA = 1 << 12, OSXSAVE = 1 << 27, AVX = 1 << 28 };                         /* leaf 1, ecx */
    enum { AVX2_BIT = 1 << 5, F = 1 << 16, DQ = 1 << 17, BW = 1 << 30 };              /* leaf 7, ebx */
    enum { YMM = 0x06, ZMM = 0xE6 };
    const uint32_t VL = UINT32_C(1) << 31, wide = AVX2_BIT, wider = F | DQ | BW | VL;
    const uint32_t first = FMA | OSXSAVE | AVX;
    uint32_t r[4];
    cpuid(0, r);
    if (r[0] < 7)
        return has;
    cpuid(1, r);
    if ((r[2] & first) != first)
        return has;
    const uint32_t states = enabled_states();
    cpuid(7, r);
    if ((states & YMM) == YMM && (r[1] & wide) == wide) {
        has |= AVX2;
        if ((states & ZMM) == ZMM && (r[1] & wider) == wider)
            has |= AVX512;
    }
#endif
    return has;
}

typedef struct level {
    const fg_kernels *kernels;
    unsigned needs;
} level;

/* From the plainest to the best; the build defines which levels beyond the plainest it has. */
static const level levels[] = {
#if defined(__aarch64__)
    {&fg_kernels_neon, PLAIN},
#else
    {&fg_kernels_baseline, PLAIN},
#endif
#ifdef FG_HAVE_AVX2
    {&fg_kernels_avx2, AVX2},
#endif
#ifdef FG_HAVE_AVX512
    {&fg_kernels_avx512, AVX512},
#endif
};

enum { LEVELS = sizeof levels / sizeof levels[0] };

const fg_kernels *fg_cpu_kernels(const char *isa)
{
    const unsigned has = features();
    const fg_kernels *best = NULL;
    for (size_t i = 0; i < LEVELS; i++)
        if ((levels[i].needs & has) == levels[i].needs &&
            (!isa || strcmp(isa, levels[i].kernels->isa) == 0))
            best = levels[i].kernels;
    return best;
}

const char *fg_cpu_level(size_t i)
{
    const unsigned has = features();
    for (size_t at = 0; at < LEVELS; at++)
        if ((levels[at].needs & has) == levels[at].needs && i-- == 0)
            return levels[at].kernels->isa;
    return NULL;
}
