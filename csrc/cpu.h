/* cpu.h: which kernels this processor can run. */
#ifndef FG_CPU_H
#define FG_CPU_H

#include "kernels.h"

/* The kernels of the level of that name, or, with NULL, of the best level. NULL if there is no such
 * level in this build or this processor (or its operating system) lacks what it needs. */
const fg_kernels *fg_cpu_kernels(const char *isa);

/* The name of level i that works here, from the plainest up; NULL past the last. */
const char *fg_cpu_level(size_t i);

#endif
