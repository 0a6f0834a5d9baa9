/* mem.h: growth of the core's arrays, with checks for overflow and a count of bytes. Tests can make the
 * n-th allocation fail, and so try every failure. A failed call changes nothing. */
#ifndef FG_MEM_H
#define FG_MEM_H

#include "base.h"

typedef struct fg_mem {
    size_t bytes;        /* current bytes of all arrays and boxes */
    int64_t fail_after;  /* number of allocations before one fails; negative: none fails on purpose */
} fg_mem;

void fg_mem_init(fg_mem *m);

/* Resize *array from `from` to `to` elements of `size` bytes; new elements are not initialised.
 * FG_OK, or FG_E_MEMORY with *array unchanged. Shrinking never fails: if the allocator refuses, the
 * array stays larger than its counted size. Shrinking to 0 frees the array and sets *array to NULL. */
int fg_mem_resize(fg_mem *m, void **array, size_t from, size_t to, size_t size);

#endif
