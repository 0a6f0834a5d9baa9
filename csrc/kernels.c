/* kernels.c: see kernels.h. The code is written once, with the vector instructions of simd.h. setup.py
 * compiles it once for each level, and every object exports one table, which is in this file. The loops are
 * in the files kernels_*.h, which no other file includes.
 *
 * Loops that need no vector instruction by name are plain C, which compilers vectorise. No lane's result
 * depends on its neighbours: the last, partial vector runs the same code as the others. */
#include "kernels32.h"
#include "simd.h"

#include "kernels_elementary.h"
#include "kernels_powers.h"
#include "kernels_rows.h"
#include "kernels_lanes.h"
#include "kernels_elementwise.h"
#include "kernels_matvec.h"
#include "kernels_gemm.h"
#include "kernels_layer.h"
#include "kernels_softmax.h"
#include "kernels_optimizers.h"
#include "kernels_norms.h"
#include "kernels_batch.h"
#include "kernels_code.h"

const fg_kernels FG_KERNELS = {
    .isa = FG_ISA,
    .single = &FG_KERNELS32,
    .map = map,
    .map_grad = map_grad,
    .sum = sum,
    .max = max,
    .dot = dot,
    .axpy = axpy,
    .gemv = gemv,
    .gemv_grad = gemv_grad,
    .gemm = gemm,
    .gemm_work = gemm_work,
    .layer = layer,
    .layer_work = layer_work,
    .layer_sums = layer_sums,
    .logsumexp = logsumexp,
    .softmax = softmax,
    .log_softmax = log_softmax,
    .softmax_grad = softmax_grad,
    .log_softmax_grad = log_softmax_grad,
    .exp_axpy = exp_axpy,
    .update = {NULL, sgd, adam, rmsprop, adagrad, adadelta},
    .power_sum = power_sum,
    .scale = scale,
    .clip = clip,
    .lane_dot = lane_dot,
    .lane_outer = lane_outer,
    .lane_softmax = lane_softmax,
    .lane_logsumexp = lane_logsumexp,
    .lane_log_softmax = lane_log_softmax,
    .run_code = run_code,
};
