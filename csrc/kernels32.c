/* kernels32.c: see kernels32.h. As kernels.c it is compiled once for each level. The loops that have nothing to do with
 * the type of a number are those of kernels.c; simd.h gives them vectors of floats. */
#define FG_SINGLE
#include "kernels32.h"
#include "simd.h"

#include "kernels_elementary32.h"
#include "kernels_rows32.h"
#include "kernels_lanes.h"
#include "kernels_matvec.h"
#include "kernels_gemm.h"
#include "kernels_softmax.h"
#include "kernels_batch.h"

const fg_kernels32 FG_KERNELS32 = {
    .map = map,
    .map_grad = map_grad,
    .sum = sum,
    .max = max,
    .dot = dot,
    .axpy = axpy,
    .gemm = gemm,
    .gemm_work = gemm_work,
    .logsumexp = logsumexp,
    .softmax = softmax,
    .log_softmax = log_softmax,
    .lane_dot = lane_dot,
    .lane_outer = lane_outer,
    .lane_softmax = lane_softmax,
    .lane_logsumexp = lane_logsumexp,
    .lane_log_softmax = lane_log_softmax,
};
