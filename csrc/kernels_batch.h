/* kernels_batch.h: one sample in each lane: products, sums and softmax of numbers that are vectors of lanes.
 *
 * Element j of an operand has its lanes at x + j * step. The number of lanes is a multiple of FG_W. A step of 0 lanes
 * does not occur: numbers that are the same in all lanes are the matter of kernels->gemm and kernels->axpy. */
#ifndef FG_KERNELS_BATCH_H
#define FG_KERNELS_BATCH_H

#ifdef FG_SINGLE
#include "kernels_elementary32.h"
#else
#include "kernels_elementary.h"
#endif

static void lane_dot(size_t lanes, size_t k, const real *x, ptrdiff_t x_step, const real *y, ptrdiff_t y_step,
                     real *z)
{
    size_t i = 0;
    for (; lanes - i >= 2 * FG_W; i += 2 * FG_W) {
        const real *xi = x + i, *yi = y + i;
        vd a = v_load(z + i), b = v_load(z + i + FG_W);
        for (size_t j = 0; j < k; j++, xi += x_step, yi += y_step) {
            a = v_fma(v_load(xi), v_load(yi), a);
            b = v_fma(v_load(xi + FG_W), v_load(yi + FG_W), b);
        }
        v_store(z + i, a);
        v_store(z + i + FG_W, b);
    }
    for (; i < lanes; i += FG_W) {
        const real *xi = x + i, *yi = y + i;
        vd a = v_load(z + i);
        for (size_t j = 0; j < k; j++, xi += x_step, yi += y_step)
            a = v_fma(v_load(xi), v_load(yi), a);
        v_store(z + i, a);
    }
}

static void lane_outer(size_t lanes, size_t n, size_t k, const real *x, ptrdiff_t x_step, const real *y,
                       ptrdiff_t y_step, real *z, ptrdiff_t z_row, ptrdiff_t z_col)
{
    for (size_t i = 0; i < lanes; i += FG_W)
        for (size_t p = 0; p < k; p++) {
            const vd yp = v_load(y + (ptrdiff_t)p * y_step + i);
            real *to = z + (ptrdiff_t)p * z_col + i;
            for (size_t j = 0; j < n; j++, to += z_row)
                v_store(to, v_fma(v_load(x + (ptrdiff_t)j * x_step + i), yp, v_load(to)));
        }
}

/* The largest of n numbers in each lane, and the sum of exp(x - largest); both are nan or what they should be if a
 * number is not finite. z: those exponentials, if it is not NULL. */
FG_INLINE vd lane_exp_sum(size_t n, const real *x, ptrdiff_t x_step, vd *largest, real *z, ptrdiff_t z_step)
{
    vd most = v_load(x), total = v_set1(0.0);
    for (size_t j = 1; j < n; j++)
        most = v_max(most, v_load(x + (ptrdiff_t)j * x_step));
    for (size_t j = 0; j < n; j++) {
        const vd e = v_exp(v_sub(v_load(x + (ptrdiff_t)j * x_step), most));
        if (z)
            v_store(z + (ptrdiff_t)j * z_step, e);
        total = v_add(total, e);
    }
    *largest = most;
    return total;
}

static void lane_softmax(size_t lanes, size_t n, const real *x, ptrdiff_t x_step, real *z)
{
    for (size_t i = 0; i < lanes; i += FG_W) {
        vd most;
        const vd total = lane_exp_sum(n, x + i, x_step, &most, z + i, (ptrdiff_t)lanes);
        for (size_t j = 0; j < n; j++)
            v_store(z + j * lanes + i, v_div(v_load(z + j * lanes + i), total));
    }
}

static void lane_logsumexp(size_t lanes, size_t n, const real *x, ptrdiff_t x_step, real *z)
{
    const vd limit = v_set1(INFINITY);
    for (size_t i = 0; i < lanes; i += FG_W) {
        vd most;
        const vd total = lane_exp_sum(n, x + i, x_step, &most, NULL, 0);
        const vd sum = v_add(most, v_log(total));
        vm nan = v_isnan(v_load(x + i)); /* of which v_max may have lost sight */
        for (size_t j = 1; j < n; j++)
            nan = vm_or(nan, v_isnan(v_load(x + (ptrdiff_t)j * x_step + i)));
        const vd infinite = v_select(nan, v_set1((real)NAN), most);
        v_store(z + i, v_select(vm_or(nan, v_eq(v_abs(most), limit)), infinite, sum));
    }
}

static void lane_log_softmax(size_t lanes, size_t n, const real *x, ptrdiff_t x_step, real *z)
{
    for (size_t i = 0; i < lanes; i += FG_W) {
        vd most;
        const vd rest = v_log(lane_exp_sum(n, x + i, x_step, &most, NULL, 0));
        for (size_t j = 0; j < n; j++)
            v_store(z + j * lanes + i, v_sub(v_sub(v_load(x + (ptrdiff_t)j * x_step + i), most), rest));
    }
}

#endif
