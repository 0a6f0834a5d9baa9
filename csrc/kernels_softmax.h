/* kernels_softmax.h: softmax, log_softmax and logsumexp of one row, and their reverse. */
#ifndef FG_KERNELS_SOFTMAX_H
#define FG_KERNELS_SOFTMAX_H

#ifdef FG_SINGLE
#include "kernels_elementary32.h"
#else
#include "kernels_elementary.h"
#endif
#include "kernels_lanes.h"

/* The sum of exp(x - shift) over the row; z gets the terms of the sum, if z is not NULL. */
FG_INLINE real sum_exp(size_t n, const real *x, real shift, real *z)
{
    const vd by = v_set1(shift);
    vd total = v_set1(0.0);
    size_t i = 0;
    for (; n - i >= FG_W; i += FG_W) {
        const vd e = v_exp(v_sub(v_load(x + i), by));
        total = v_add(total, e);
        if (z)
            v_store(z + i, e);
    }
    if (i < n) {
        const vd e = v_part(v_exp(v_sub(v_load_part(x + i, n - i), by)), n - i);
        total = v_add(total, e);
        if (z)
            v_store_part(z + i, n - i, e);
    }
    return v_sum(total);
}

static real logsumexp(size_t n, const real *x)
{
    const real largest = max(n, x);
    if (!isfinite(largest)) /* inf has to stay inf: inf - inf would be nan */
        return largest;
    return largest + (real)log(sum_exp(n, x, largest, NULL));
}

static void softmax(size_t n, const real *x, real *z)
{
    const real total = sum_exp(n, x, max(n, x), z);
    for (size_t i = 0; i < n; i++)
        z[i] /= total;
}

static void log_softmax(size_t n, const real *x, real *restrict z)
{
    const real largest = max(n, x), rest = (real)log(sum_exp(n, x, largest, NULL));
    for (size_t i = 0; i < n; i++)
        z[i] = x[i] - largest - rest;
}

#ifndef FG_SINGLE
static void softmax_grad(size_t n, const real *z, const real *dz, real *restrict dx)
{
    const real mean = dot(n, z, dz);
    for (size_t i = 0; i < n; i++)
        dx[i] += z[i] * (dz[i] - mean);
}

static void exp_axpy(size_t n, real a, const real *x, real shift, real *dx)
{
    const vd scale = v_set1(a), by = v_set1(shift);
    size_t i = 0;
    for (; n - i >= FG_W; i += FG_W)
        v_store(dx + i, v_fma(scale, v_exp(v_sub(v_load(x + i), by)), v_load(dx + i)));
    if (i < n) {
        const vd e = v_exp(v_sub(v_load_part(x + i, n - i), by));
        v_store_part(dx + i, n - i, v_fma(scale, e, v_load_part(dx + i, n - i)));
    }
}

static void log_softmax_grad(size_t n, const real *z, const real *dz, real *restrict dx)
{
    const real total = sum(n, dz);
    for (size_t i = 0; i < n; i++)
        dx[i] += dz[i];
    exp_axpy(n, -total, z, 0, dx);
}
#endif

#endif
