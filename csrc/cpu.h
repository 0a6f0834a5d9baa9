/* cpu.h: the kernels that this processor can run. */
#ifndef FG_CPU_H
#define FG_CPU_H

#include "kernels.h"

/* The kernels of the level named `isa`; with NULL, of the best level. NULL if this build has no such
 * level, or if the processor or the operating system does not fulfil the level's needs. */
const fg_kernels *fg_cpu_kernels(const char *isa);

/* The name of the i-th level that this processor can run, from the plainest to the best; NULL past the last. */
const char *fg_cpu_level(size_t i);

#endif
