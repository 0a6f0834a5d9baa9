/* mem.c: see mem.h. */
#include "mem.h"

#include <stdlib.h>

void fg_mem_init(fg_mem *m)
{
    m->bytes = 0;
    m->fail_after = -1;
}

int fg_mem_resize(fg_mem *m, void **array, size_t from, size_t to, size_t size)
{
    assert(size > 0);
    if (to == 0) {
        free(*array);
        *array = NULL;
        m->bytes -= from * size;
        return FG_OK;
    }
    if (to > from) {
        if (to > SIZE_MAX / size)
            return FG_E_MEMORY;
        if (m->fail_after == 0)
            return FG_E_MEMORY;
        if (m->fail_after > 0)
            m->fail_after--;
    }
    void *moved = realloc(*array, to * size);
    if (moved)
        *array = moved;
    else if (to > from)
        return FG_E_MEMORY;
    m->bytes += to * size;
    m->bytes -= from * size;
    return FG_OK;
}
