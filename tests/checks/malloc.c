/* malloc.c: the C library's malloc, calloc and realloc, of which the calls by some libraries can be made to fail.
 *
 * Loaded before all other libraries (LD_PRELOAD). malloc.py compiles it, says which parts of memory hold the code whose
 * calls count, and when. It needs glibc, which has its own functions under a second name. Freeing never fails. */
#include <errno.h>
#include <execinfo.h>
#include <stddef.h>
#include <stdint.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);

void faults_of(uintptr_t from, uintptr_t to);
void faults_through(uintptr_t from, uintptr_t to);
void faults_begin(long first, long stop);
long faults_end(void);

enum { MOST = 64, DEEPEST = 7 };
static uintptr_t ranges[MOST][2];   /* code whose calls count */
static int n_ranges;
static uintptr_t python[MOST][2];   /* Python's code: of its calls those count that the code above has caused */
static int n_python;
static int is_on;
static long calls, failed;          /* since the last faults_begin() */
static long from, to;               /* the calls that fail; to < 0: all from `from` on */

/* Calls by code at from <= address < to count from now on. */
void faults_of(uintptr_t from_, uintptr_t to_)
{
    if (n_ranges < MOST) {
        ranges[n_ranges][0] = from_;
        ranges[n_ranges++][1] = to_;
    }
}

/* Likewise for Python's own code. */
void faults_through(uintptr_t from_, uintptr_t to_)
{
    void *warm[1];
    backtrace(warm, 1);   /* which allocates, the first time */
    if (n_python < MOST) {
        python[n_python][0] = from_;
        python[n_python++][1] = to_;
    }
}

/* Calls number first to stop - 1 fail, or with a stop of 0 all from `first` on. */
void faults_begin(long first, long stop)
{
    calls = failed = 0;
    from = first;
    to = stop ? stop : -1;
    __atomic_store_n(&is_on, 1, __ATOMIC_SEQ_CST);
}

/* No call fails any more. How many have. */
long faults_end(void)
{
    __atomic_store_n(&is_on, 0, __ATOMIC_SEQ_CST);
    return failed;
}

static int is_in(uintptr_t places[][2], int count, void *address)
{
    for (int k = 0; k < count; k++)
        if ((uintptr_t)address >= places[k][0] && (uintptr_t)address < places[k][1])
            return 1;
    return 0;
}

/* Whether a function of Python's asks, which one of ours has called: no Python code runs between. */
__attribute__((noinline)) static int is_for_us(void)
{
    static __thread int is_busy;
    void *frames[DEEPEST + 3];
    if (is_busy)
        return 0;
    is_busy = 1;
    int n = backtrace(frames, DEEPEST + 3), k = 3;   /* after this, fails() and malloc() */
    is_busy = 0;
    while (k < n && is_in(python, n_python, frames[k]))
        k++;
    return k < n && is_in(ranges, n_ranges, frames[k]);
}

__attribute__((noinline)) static int fails(void *caller)
{
    if (!__atomic_load_n(&is_on, __ATOMIC_RELAXED))
        return 0;
    if (n_python ? !(is_in(python, n_python, caller) && is_for_us()) : !is_in(ranges, n_ranges, caller))
        return 0;
    long call = __atomic_fetch_add(&calls, 1, __ATOMIC_SEQ_CST);
    if (call < from || (to >= 0 && call >= to))
        return 0;
    __atomic_fetch_add(&failed, 1, __ATOMIC_SEQ_CST);
    errno = ENOMEM;
    return 1;
}

/* Not inlined: is_for_us() counts frames. */
__attribute__((noinline)) void *malloc(size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}
