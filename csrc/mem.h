/* mem.h: overflow-checked growth of the core's arrays, counted, with a hook that makes the n-th
 * allocation fail so that tests can walk through every failure. It promises that a failed call
 * changes nothing. */
#ifndef FG_MEM_H
#define FG_MEM_H

#include "base.h"

typedef struct fg_mem {
    size_t bytes;        /* bytes in all arrays and boxes now */
    int64_t fail_after;  /* allocations that still succeed; negative: no failure is injected */
} fg_mem;

void fg_mem_init(fg_mem *m);

/* Resize *array from `from` to `to` elements of `size` bytes; new elements are not initialised.
 * FG_OK, or FG_E_MEMORY with *array as it was. Shrinking never fails: if the allocator refuses, the
 * array stays larger than it is counted. Shrinking to 0 frees and sets *array to NULL. */
int fg_mem_resize(fg_mem *m, void **array, size_t from, size_t to, size_t size);

#endif
