/* kernels_norms.h: norms of gradients, and clipping of gradients. */
#ifndef FG_KERNELS_NORMS_H
#define FG_KERNELS_NORMS_H

#include "kernels_lanes.h"

static double power_sum(size_t n, const double *x, double power, double divisor)
{
    double total = 0.0;
    if (power == 2.0 && divisor == 1.0)
        return dot(n, x, x);
    for (size_t i = 0; i < n; i++) {
        const double size = fabs(x[i] / divisor);
        if (isinf(power))
            total = size > total || isnan(size) ? size : total; /* a nan stays */
        else if (power == 2.0)
            total += size * size;
        else
            total += power == 1.0 ? size : pow(size, power);
    }
    return total;
}

static void scale(size_t n, double a, double *x)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= a;
}

static void clip(size_t n, double bound, double *x)
{
    for (size_t i = 0; i < n; i++) {
        const double most = x[i] > bound ? bound : x[i];
        x[i] = most < -bound ? -bound : most;
    }
}

#endif
