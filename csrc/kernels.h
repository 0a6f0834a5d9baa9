/* kernels.h: the loops over many numbers at once, one table of them for each instruction-set level.
 *
 * The loops know nothing of tapes, only pointers, counts and strides. An elementwise loop takes the number
 * of lanes as `n`. On the live tape the lanes are the elements of a tensor; in a replayed program they will
 * be the samples of a batch. Levels may round sums differently (order, fused multiply-add), and
 * transcendental functions by a few units in the last place. All other results have the same bits on each
 * level.
 *
 * Arrays that a kernel writes do not overlap arrays that it reads, except where the kernel's comment says so.
 */
#ifndef FG_KERNELS_H
#define FG_KERNELS_H

#include "ops.h"

/* The rules of optimizers. */
enum { FG_NO_RULE, FG_SGD, FG_ADAM, FG_RMSPROP, FG_ADAGRAD, FG_ADADELTA, FG_RULES_END };

/* What they take, by PyTorch's names, each what it needs. */
typedef struct fg_rule {
    double lr; /* of this step: Adagrad's has decayed */
    double weight_decay, eps;
    int maximize;                     /* the gradient has its sign turned */
    double momentum, dampening;
    int nesterov, first;              /* first: the momentum buffer holds nothing yet */
    double beta1, beta2;
    double correction1, correction2;  /* 1 - beta**step, of each beta */
    int decoupled;                    /* weight decay shrinks p and does not enter the gradient */
    double alpha;                     /* Adadelta's rho as well */
} fg_rule;

/* One operation on all lanes of its operands, which are z, x, y, w, and for FG_LANE_RULE the row's result and its
 * gradient: operand j at code.at[j] from base[code.base[j]]. What is written may be one of the operands, but by
 * FG_LANE_ROW, FG_LANE_RULE, FG_LANE_SIN and FG_LANE_COS. */
enum {
    FG_LANE_CLEAR, FG_LANE_COPY, FG_LANE_NEG, FG_LANE_ADD, FG_LANE_SUB, FG_LANE_MUL,
    FG_LANE_NEG_MUL, /* -(x * y) */
    FG_LANE_ADD_MUL, /* x + y * w, */
    FG_LANE_SUB_MUL, /* x - y * w and */
    FG_LANE_MUL_SUB, /* y * w - x, rounded twice */
    FG_LANE_MUL_ONE, FG_LANE_ADD_MUL_ONE, FG_LANE_SUB_MUL_ONE, /* x * y, x + w * y, x - w * y: one y for all lanes */
    FG_LANE_PAIR,    /* z is x * w, and operand 4, which is written too, is x * y, as k says */
    FG_LANE_SIN,     /* and into y, which is written too, the derivative; so */
    FG_LANE_COS,
    FG_LANE_ROW,     /* the row of ops.def */
    FG_LANE_RULE     /* adds to z what the row's reverse rule does for operand `which` */
};

/* What k of FG_LANE_PAIR says: the first, or the second, is added to what is there; both are negative. */
enum { FG_LANE_ADDS_FIRST = 1, FG_LANE_ADDS_SECOND = 2, FG_LANE_NEGATIVE = 4 };

enum { FG_LANE_BASES = 6, FG_LANE_OPERANDS = 6, FG_LANE_SWAPPED = 3 };

typedef struct fg_lane_code {
    uint8_t kind, row, which;
    uint8_t base[FG_LANE_OPERANDS];
    int32_t k;
    int32_t at[FG_LANE_OPERANDS]; /* in bytes; 0, of any base, for those that there are not */
} fg_lane_code;

typedef struct fg_kernels32 fg_kernels32;

typedef struct fg_kernels {
    const char *isa; /* the level's name: "baseline", "avx2", "avx512", "neon" */
    const fg_kernels32 *single; /* of the same level: see kernels32.h */

    /* A row of ops.def for n lanes: z[i] from operand j at x[j][i * step[j]], where step is 0 or 1; k
     * is the immediate of a unary row. Returns n, or the first lane whose status is not FG_OK. x[0] and
     * x[1] may be the same. Rows that ops.def makes of libm's functions are made of vectors (kernels_rows.h says which
     * on what level): these are within 2 units in the last place, and no result depends on a lane's place. */
    size_t (*map)(int op, size_t n, const double *const x[3], const size_t step[3], int32_t k,
                  double *z);

    /* The row's reverse rule for operand `which`, by the same functions: with step 1, dx[i] grows by its
     * contribution; with step 0, dx[0] by the sum of all. */
    void (*map_grad)(int op, int which, size_t n, const double *const x[3], const size_t step[3],
                     int32_t k, const double *z, const double *dz, double *dx);

    double (*sum)(size_t n, const double *x);
    double (*max)(size_t n, const double *x); /* n >= 1; nan if any is nan */
    double (*dot)(size_t n, const double *x, const double *y);
    void (*axpy)(size_t n, double a, const double *x, double *y); /* y += a * x */

    /* z[j] = b[j * b_step] + dot(w + j * w_row, x), for j < n, with k terms each; b may be NULL, and
     * b may be z. */
    void (*gemv)(size_t n, size_t k, const double *w, ptrdiff_t w_row, const double *x,
                 const double *b, ptrdiff_t b_step, double *z);

    /* dw[j * w_row + i] += dz[j] * x[i] if dw is not NULL, then dx[i] += sum over j of dz[j] *
     * w[j * w_row + i] if dx is not NULL: the reverse of gemv, without the bias. If dw is NULL, x is not
     * read; if dx is NULL, w is not read. */
    void (*gemv_grad)(size_t n, size_t k, const double *w, ptrdiff_t w_row, const double *x,
                      const double *dz, double *dw, double *dx);

    /* C += A B with A of (m, k), B of (k, n) and any strides, C of (m, n) with columns side by side.
     * work: gemm_work(m, n, k) doubles. C may be the gradients of slots whose data is in A or B. */
    void (*gemm)(size_t m, size_t n, size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col,
                 const double *b, ptrdiff_t b_row, ptrdiff_t b_col, double *c, ptrdiff_t c_row,
                 double *work);
    size_t (*gemm_work)(size_t m, size_t n, size_t k);

    /* A layer: z (m, n), dense, = row(x w^T + b) with x of (m, k), w of (n, k), and b, n numbers b_step apart, or NULL;
     * row: FG_LEAF for none, or FG_RELU. work: layer_work(m, n, k) doubles, of which 0 says that gemm is better. */
    void (*layer)(int row, size_t m, size_t n, size_t k, const double *x, ptrdiff_t x_row, ptrdiff_t x_col,
                  const double *w, ptrdiff_t w_row, ptrdiff_t w_col, const double *b, ptrdiff_t b_step, double *z,
                  double *work);
    size_t (*layer_work)(size_t m, size_t n, size_t k);

    /* dsums (m, n): the gradient before a layer's activation, from its results z and their gradients dz, all dense; of
     * FG_LEAF it is not written, as it is dz. db: their sums over the rows, or NULL. */
    void (*layer_sums)(int row, size_t m, size_t n, const double *z, const double *dz, double *dsums, double *db);

    /* For one row of n >= 1 numbers. The largest number is subtracted first, so nothing overflows. A row with
     * nan gives nan. logsumexp of a row of only -inf is -inf, and of a row with inf is inf. */
    double (*logsumexp)(size_t n, const double *x);
    void (*softmax)(size_t n, const double *x, double *z);
    void (*log_softmax)(size_t n, const double *x, double *z);
    void (*softmax_grad)(size_t n, const double *z, const double *dz, double *dx);
    void (*log_softmax_grad)(size_t n, const double *z, const double *dz, double *dx);
    /* dx[i] += a * exp(x[i] - shift): the reverse of logsumexp, whose value is `shift`. */
    void (*exp_axpy)(size_t n, double a, const double *x, double shift, double *dx);

    /* One sample in each of `lanes` lanes, a multiple of 8; element j of an operand is at x + j * step, of the results
     * lanes apart, but for z_row and z_col. z += the dot product of k elements; z (n, k) += all products of n elements of
     * x and k of y; softmax and its like of n elements. */
    void (*lane_dot)(size_t lanes, size_t k, const double *x, ptrdiff_t x_step, const double *y, ptrdiff_t y_step,
                     double *z);
    void (*lane_outer)(size_t lanes, size_t n, size_t k, const double *x, ptrdiff_t x_step, const double *y,
                       ptrdiff_t y_step, double *z, ptrdiff_t z_row, ptrdiff_t z_col);
    void (*lane_softmax)(size_t lanes, size_t n, const double *x, ptrdiff_t x_step, double *z);
    void (*lane_logsumexp)(size_t lanes, size_t n, const double *x, ptrdiff_t x_step, double *z);
    void (*lane_log_softmax)(size_t lanes, size_t n, const double *x, ptrdiff_t x_step, double *z);

    /* These operations, one after the other, and that so many steps: after each, `advance` is added to the bases, and
     * those at FG_LANE_SWAPPED and behind change places. Returns steps, or, unless `lenient`, the first with a lane
     * whose status is not FG_OK, or may not be. */
    size_t (*run_code)(const fg_lane_code *code, size_t count, double *base[FG_LANE_BASES],
                       const ptrdiff_t advance[FG_LANE_BASES], size_t steps, size_t lanes, int lenient);

    /* One update of n parameters p from their gradients g, by PyTorch's rules. `state` are the rule's arrays, NULL
     * for one that it goes without: SGD's and RMSprop's momentum, Adam's largest v, RMSprop's mean. Without weight
     * decay p is not added to g, not even times 0. */
    void (*update[FG_RULES_END])(size_t n, double *p, const double *g, double *const state[3], const fg_rule *h);

    /* The sum of |x[i] / divisor|**power; for a power of inf the largest |x[i] / divisor|, nan if one is nan. */
    double (*power_sum)(size_t n, const double *x, double power, double divisor);
    void (*scale)(size_t n, double a, double *x);     /* x *= a */
    void (*clip)(size_t n, double bound, double *x);  /* to the range from -bound to bound; nan stays */
} fg_kernels;

/* The tables of all levels. A build has some of them; fg_cpu_kernels knows which of these can run. */
extern const fg_kernels fg_kernels_baseline, fg_kernels_neon, fg_kernels_avx2, fg_kernels_avx512;

#endif
