/* kernels_lanes.h: one row of numbers: sum, max, dot, axpy. */
#ifndef FG_KERNELS_LANES_H
#define FG_KERNELS_LANES_H

#include "simd.h"

static size_t smaller(size_t x, size_t y)
{
    return x < y ? x : y;
}

static real sum(size_t n, const real *x)
{
    vd a = v_set1(0.0), b = a, c = a, d = a;
    size_t i = 0;
    if (n < FG_W) { /* these numbers were often just stored one by one: a vector load would wait for the stores */
        real total = 0;
        for (; i < n; i++)
            total += x[i];
        return total;
    }
    for (; n - i >= 4 * FG_W; i += 4 * FG_W) {
        a = v_add(a, v_load(x + i));
        b = v_add(b, v_load(x + i + FG_W));
        c = v_add(c, v_load(x + i + 2 * FG_W));
        d = v_add(d, v_load(x + i + 3 * FG_W));
    }
    for (; n - i >= FG_W; i += FG_W)
        a = v_add(a, v_load(x + i));
    if (i < n)
        b = v_add(b, v_load_part(x + i, n - i));
    return v_sum(v_add(v_add(a, b), v_add(c, d)));
}



static real max(size_t n, const real *x)
{
    vd most = v_set1(x[0]);
    vm nan = v_isnan(most);
    size_t i = 0;
    for (; n - i >= FG_W; i += FG_W) {
        const vd v = v_load(x + i);
        most = v_max(most, v);
        nan = vm_or(nan, v_isnan(v));
    }
    real lane[FG_W];
    v_store(lane, most);
    real result = lane[0];
    for (size_t j = 1; j < FG_W; j++)
        result = lane[j] > result ? lane[j] : result;
    for (; i < n; i++) {
        nan = vm_or(nan, v_isnan(v_set1(x[i])));
        result = x[i] > result ? x[i] : result;
    }
    if (vm_any(nan))
        return (real)NAN;
    if (result == 0.0) /* 0.0 and -0.0 are equal: return the first, so that all levels agree */
        for (i = 0; x[i] != 0.0; i++)
            continue;
    return result == 0.0 ? x[i] : result;
}

static real dot(size_t n, const real *x, const real *y)
{
    vd a = v_set1(0.0), b = a, c = a, d = a;
    size_t i = 0;
    for (; n - i >= 4 * FG_W; i += 4 * FG_W) {
        a = v_fma(v_load(x + i), v_load(y + i), a);
        b = v_fma(v_load(x + i + FG_W), v_load(y + i + FG_W), b);
        c = v_fma(v_load(x + i + 2 * FG_W), v_load(y + i + 2 * FG_W), c);
        d = v_fma(v_load(x + i + 3 * FG_W), v_load(y + i + 3 * FG_W), d);
    }
    for (; n - i >= FG_W; i += FG_W)
        a = v_fma(v_load(x + i), v_load(y + i), a);
    if (i < n)
        b = v_fma(v_load_part(x + i, n - i), v_load_part(y + i, n - i), b);
    return v_sum(v_add(v_add(a, b), v_add(c, d)));
}

static void axpy(size_t n, real a, const real *x, real *y)
{
    const vd scale = v_set1(a);
    size_t i = 0;
    for (; n - i >= FG_W; i += FG_W)
        v_store(y + i, v_fma(scale, v_load(x + i), v_load(y + i)));
    if (i < n)
        v_store_part(y + i, n - i, v_fma(scale, v_load_part(x + i, n - i), v_load_part(y + i, n - i)));
}

#endif
