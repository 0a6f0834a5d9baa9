/* kernels32.h: the kernels for floats, which programs with dtype='float32' use: of those of kernels.h the ones that
 * work on lanes, or on rows and matrices, each with the same meaning. A vector has twice as many numbers of 32 bits.
 *
 * The status of a lane is that of its floats: a finite operand with a result that float does not hold is FG_E_OVERFLOW.
 */
#ifndef FG_KERNELS32_H
#define FG_KERNELS32_H

#include "kernels.h"
#include "real.h"

struct fg_kernels32 {
    size_t (*map)(int op, size_t n, const float *const x[3], const size_t step[3], int32_t k, float *z);
    void (*map_grad)(int op, int which, size_t n, const float *const x[3], const size_t step[3], int32_t k,
                     const float *z, const float *dz, float *dx);
    float (*sum)(size_t n, const float *x);
    float (*max)(size_t n, const float *x);
    float (*dot)(size_t n, const float *x, const float *y);
    void (*axpy)(size_t n, float a, const float *x, float *y);
    void (*gemm)(size_t m, size_t n, size_t k, const float *a, ptrdiff_t a_row, ptrdiff_t a_col, const float *b,
                 ptrdiff_t b_row, ptrdiff_t b_col, float *c, ptrdiff_t c_row, float *work);
    size_t (*gemm_work)(size_t m, size_t n, size_t k);
    float (*logsumexp)(size_t n, const float *x);
    void (*softmax)(size_t n, const float *x, float *z);
    void (*log_softmax)(size_t n, const float *x, float *z);

    /* lanes: a multiple of 16 */
    void (*lane_dot)(size_t lanes, size_t k, const float *x, ptrdiff_t x_step, const float *y, ptrdiff_t y_step,
                     float *z);
    void (*lane_outer)(size_t lanes, size_t n, size_t k, const float *x, ptrdiff_t x_step, const float *y,
                       ptrdiff_t y_step, float *z, ptrdiff_t z_row, ptrdiff_t z_col);
    void (*lane_softmax)(size_t lanes, size_t n, const float *x, ptrdiff_t x_step, float *z);
    void (*lane_logsumexp)(size_t lanes, size_t n, const float *x, ptrdiff_t x_step, float *z);
    void (*lane_log_softmax)(size_t lanes, size_t n, const float *x, ptrdiff_t x_step, float *z);
};

#ifdef FG_SINGLE
typedef fg_kernels32 fg_real_kernels;
#else
typedef fg_kernels fg_real_kernels;
#endif

/* The tables of all levels; each is the `single` of the table of doubles. */
extern const fg_kernels32 fg_kernels32_baseline, fg_kernels32_neon, fg_kernels32_avx2, fg_kernels32_avx512;

#endif
