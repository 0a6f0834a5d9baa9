/* ops.h: opcodes, what there is to know about each, and their forward rules. All of it is read off
 * ops.def; the reverse rules are in sweep.c and in the kernels. */
#ifndef FG_OPS_H
#define FG_OPS_H

#include <float.h>
#include <math.h>

#include "base.h"

/* Ordered by how the operands are kept: none, one or two inline, a list in the operand pool, a record
 * in the pool, and not at all. */
typedef enum fg_op {
    FG_LEAF = 0, /* no operands: a parameter, an input or a constant */
#define FG_UNARY(ID, ...) FG_##ID,
#include "ops.def"
    FG_UNARY_END, /* a boundary and the first opcode after it are the same number */
    FG_UNARY_LAST = FG_UNARY_END - 1,
#define FG_BINARY(ID, ...) FG_##ID,
#include "ops.def"
    FG_BINARY_END,
    FG_BINARY_LAST = FG_BINARY_END - 1,
#define FG_TERNARY(ID, ...) FG_##ID,
#include "ops.def"
    FG_CUSTOM, /* any number of operands, and no rule of ours */
    FG_LOCAL,  /* any number of operands, each with its partial derivative, which is kept in the pool */
#define FG_BLOCK(ID, ...) FG_##ID,
#include "ops.def"
    FG_BLOCK_END,
    FG_RUN = FG_BLOCK_END, /* keeps the leaves of a tensor together: those just below it */
    FG_PART,               /* one result of the block instruction whose node is above it */
    FG_FROZEN,             /* a leaf that takes no gradient: see tape.h */
    FG_OPS                 /* how many opcodes there are */
} fg_op;

static_assert(FG_LEAF == 0, "memory that is all 0 is leaves");
static_assert((int)FG_LEAF < (int)FG_UNARY_END && (int)FG_UNARY_END < (int)FG_BINARY_END
                  && (int)FG_BINARY_END < (int)FG_CUSTOM && (int)FG_CUSTOM < (int)FG_LOCAL
                  && (int)FG_LOCAL < (int)FG_BLOCK_END && (int)FG_BLOCK_END <= (int)FG_RUN
                  && (int)FG_RUN < (int)FG_PART && (int)FG_PART < (int)FG_FROZEN,
              "the questions below go by that order");

/* The column `kind` of ops.def. */
typedef enum fg_kind { FG_NO_ROW, FG_OPERATOR, FG_FUNCTION, FG_ACTIVATION, FG_LOSS } fg_kind;

typedef struct fg_op_info {
    const char *id;       /* the row's ID */
    const char *name;     /* Python name */
    const char *operands; /* their names, as in a signature */
    const char *symbol;   /* Value._op */
    const char *domain;   /* what the operands have to be; "" if anything goes */
    const char *formula;  /* one line of documentation */
    const char *edge;     /* values at kinks and domain edges; "" if there are none */
    int arity;            /* operands; -1: as many as its pool record has */
    int parents;          /* leading operands that _prev shows; -1: all */
    fg_kind kind;         /* FG_NO_ROW: no row, or of many operands */
    int fused;            /* 1: a layer may do it within its instruction; so of FG_LEAF, which does nothing */
    double second;        /* the second operand if it is left out; nan: it has to be given */
    const char *ufuncs;   /* NumPy's names, with spaces between */
} fg_op_info;

extern const fg_op_info fg_op_table[FG_OPS];
extern const uint8_t fg_op_rows[]; /* the opcodes of unary, binary and ternary rows as they stand there; 0 ends them */

/* A function of the package. */
static inline int fg_op_is_public(int op)
{
    return fg_op_table[op].kind == FG_FUNCTION || fg_op_table[op].kind == FG_ACTIVATION;
}

enum { FG_MAX_ARITY = 3 }; /* of rows of ops.def with a rule */

static inline int fg_op_is_leaf(int op)
{
    return op == FG_LEAF || op == FG_FROZEN;
}

/* A leaf that takes gradients, or a node with its operands inline or as a list. */
static inline int fg_op_is_scalar(int op)
{
    return op <= FG_LOCAL;
}

/* Its operands are inline, none of a leaf. Of an opcode with FG_HOOK added the answer is no. */
static inline int fg_op_is_inline(int op)
{
    return op < FG_BINARY_END;
}

/* An opcode's operands are a list in the pool (from a, b of them). */
static inline int fg_op_is_pooled(int op)
{
    return op >= FG_BINARY_END && op <= FG_LOCAL;
}

/* An opcode's operands are in the pool as an fg_record. */
static inline int fg_op_is_block(int op)
{
    return op > FG_LOCAL && op < FG_BLOCK_END;
}

/* Either: its operands are in the pool. */
static inline int fg_op_is_in_pool(int op)
{
    return op >= FG_BINARY_END && op < FG_BLOCK_END;
}

/* Softmax or its logarithm: along the rows, as many results as operands. */
static inline int fg_op_is_softmax(int op)
{
    return op == FG_SOFTMAX || op == FG_LOG_SOFTMAX;
}

/* The instruction works along the rows of its only view. */
static inline int fg_op_is_along_rows(int op)
{
    return fg_op_is_block(op) && op != FG_LAYER && op != FG_MAP && op != FG_TAKE && op != FG_CALL;
}

/* How many pool entries a pooled opcode has for `count` operands: their ids, and for FG_LOCAL then as
 * many doubles, each in two entries. */
static inline fg_id fg_op_pool_size(int op, fg_id count)
{
    return op == FG_LOCAL ? 3 * count : count;
}

/* Inline operands, 0 to 2. Precondition: they are inline. */
static inline int fg_op_inline_arity(int op)
{
    return op >= FG_UNARY_END ? 2 : op != FG_LEAF;
}

/* ---- the functions that rows of ops.def call ---- */

static inline double fg_sigmoid(double x)
{
    if (x >= 0.0)
        return 1.0 / (1.0 + exp(-x));
    const double e = exp(x); /* <= 1, so neither side overflows */
    return e / (1.0 + e);
}

/* M_SQRT1_2 and the like are not C11's. */
#define FG_SQRT_HALF 0.70710678118654752440
#define FG_SQRT_2_PI 0.79788456080286535588 /* sqrt(2 / pi) */
#define FG_SQRT_1_PI 0.56418958354775628695 /* 1 / sqrt(pi) */
#define FG_DENSITY 0.39894228040143267794   /* sqrt(1 / (2 pi)), the normal density at 0 */

static inline double fg_dgelu(double x)
{
    return 0.5 * erfc(-FG_SQRT_HALF * x) + x * FG_DENSITY * exp(-0.5 * x * x);
}

/* Whose sigmoid is (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2, to the last digit where that is near 0. */
static inline double fg_gelu_logit(double x)
{
    return 2.0 * (FG_SQRT_2_PI * (x + 0.044715 * x * x * x));
}

static inline double fg_dgelu_tanh(double x)
{
    const double s = fg_sigmoid(fg_gelu_logit(x));
    return s + 2.0 * x * s * (1.0 - s) * (FG_SQRT_2_PI * (1.0 + 3.0 * 0.044715 * x * x));
}

static inline double fg_dsilu(double x)
{
    const double s = fg_sigmoid(x);
    return s * (1.0 + x * (1.0 - s));
}

static inline double fg_relu(double x)
{
#if defined(__clang__) && defined(__aarch64__)
    /* The same: clang makes an fmax of a comparison with 0 there, and fmax(-0.0, 0.0) is 0.0. */
    return x <= -DBL_TRUE_MIN ? 0.0 : x;
#else
    return x < 0.0 ? 0.0 : x;
#endif
}

static inline double fg_softplus(double x)
{
    return (x > 0.0 ? x : 0.0) + (isnan(x) ? x : log1p(exp(-fabs(x))));
}

static inline double fg_sign(double x)
{
    return x > 0.0 ? 1.0 : x < 0.0 ? -1.0 : 0.0;
}

static inline double fg_powi(double x, int32_t k)
{
    return k == 2 ? x * x : k == -1 ? 1.0 / x : pow(x, (double)k);
}

static inline double fg_dpow_dx(double x, double y)
{
    return y == 0.0 ? 0.0 : y == 2.0 ? 2.0 * x : y == 3.0 ? 3.0 * (x * x) : y * pow(x, y - 1.0);
}

static inline double fg_dpow_dy(double x, double y, double z)
{
    return x == 0.0 && y >= 0.0 ? 0.0 : z * log(x);
}

static inline double fg_maximum(double x, double y)
{
    return x >= y ? x : x < y ? y : x + y; /* the last: either is nan */
}

static inline double fg_minimum(double x, double y)
{
    return x <= y ? x : x > y ? y : x + y;
}

/* The gradient that flows to x from z = max(x, y). nan on either side: all of it, as in PyTorch. */
static inline double fg_dmaximum(double x, double y, double dz)
{
    return x < y ? 0.0 : x == y ? 0.5 * dz : dz;
}

/* x / (x**2 + y**2), without the squares, which may be too large or too small; 0 at (0, 0). */
static inline double fg_datan2(double x, double y)
{
    const double h = hypot(x, y);
    return h == 0.0 ? 0.0 : x / h / h;
}

/* log(sigmoid(x)). The logarithm is of 1 to 2, so nothing overflows and no small result is lost. */
static inline double fg_log_sigmoid(double x)
{
    return (x < 0.0 ? x : 0.0) - log1p(exp(-fabs(x)));
}

/* As PyTorch computes it, whose 1e-12 is a float of 32 bits. */
static inline double fg_dbinary_cross_entropy(double x, double y)
{
    return (x - y) / fg_maximum((1.0 - x) * x, (double)1e-12f);
}

/* (1 - y) * x - log_sigmoid(x); x is not subtracted from itself where it is negative. */
static inline double fg_bce_with_logits(double x, double y)
{
    return (x > 0.0 ? (1.0 - y) * x : -y * x) + log1p(exp(-fabs(x)));
}

/* (1 - y) * x - (1 + (w - 1) * y) * log_sigmoid(x), likewise. */
static inline double fg_weighted_bce_with_logits(double x, double y, double w)
{
    return (x > 0.0 ? (1.0 - y) * x : -(w * y) * x) + (1.0 + (w - 1.0) * y) * log1p(exp(-fabs(x)));
}

/* sigmoid(x) - y; by sigmoid(-x) where sigmoid(x) is rounded to 1. */
static inline double fg_dbce_with_logits(double x, double y)
{
    return x > 0.0 ? (1.0 - y) - fg_sigmoid(-x) : fg_sigmoid(x) - y;
}

/* (w * y + 1 - y) * sigmoid(x) - w * y, likewise. */
static inline double fg_dweighted_bce_with_logits(double x, double y, double w)
{
    return x > 0.0 ? (1.0 - y) - (1.0 + (w - 1.0) * y) * fg_sigmoid(-x)
                   : (1.0 + (w - 1.0) * y) * fg_sigmoid(x) - w * y;
}

/* Of the difference d; the two branches meet at |d| = delta. */
static inline double fg_huber(double d, double delta)
{
    return fabs(d) <= delta ? 0.5 * d * d : delta * (fabs(d) - 0.5 * delta);
}

static inline double fg_dhuber(double d, double delta)
{
    return d > delta ? delta : d < -delta ? -delta : d;
}

static inline int fg_overflow_status(double x, double z)
{
    return isinf(z) && isfinite(x) ? FG_E_OVERFLOW : FG_OK;
}

/* Python's rules for float ** float, told from operands and result. */
static inline int fg_pow_status(double x, double y, double z)
{
    if (isfinite(z) || !isfinite(x) || !isfinite(y))
        return isnan(z) && !isnan(x) && !isnan(y) ? FG_E_DOMAIN : FG_OK;
    if (isnan(z))
        return FG_E_DOMAIN; /* a negative base with a fractional exponent: complex in Python */
    return x == 0.0 ? FG_E_ZERO_DIVISION : FG_E_OVERFLOW;
}

/* ---- forward: *z and the row's status. With a constant op these fold to the one expression ---- */

static inline int fg_op_unary(int op, double x, int32_t k, double *out)
{
    double z;
    (void)k;
    switch (op) {
#define FG_UNARY(ID, name, kind, fused, symbol, ufuncs, forward, dx, status, ...) \
    case FG_##ID:                                                                 \
        z = (forward);                                                            \
        *out = z;                                                                 \
        return (status);
#include "ops.def"
    default:
        assert(0 && "fg_op_unary: not a unary opcode");
        return FG_E_DOMAIN;
    }
}

static inline int fg_op_binary(int op, double x, double y, double *out)
{
    double z;
    switch (op) {
#define FG_BINARY(ID, name, operands, kind, second, symbol, ufuncs, parents,       \
                  forward, dx, dy, status, ...)                                    \
    case FG_##ID:                                                                  \
        z = (forward);                                                             \
        *out = z;                                                                  \
        return (status);
#include "ops.def"
    default:
        assert(0 && "fg_op_binary: not a binary opcode");
        return FG_E_DOMAIN;
    }
}

static inline int fg_op_ternary(int op, double x, double y, double w, double *out)
{
    double z;
    switch (op) {
#define FG_TERNARY(ID, name, operands, kind, symbol, forward, dx, dy, dw, status, ...) \
    case FG_##ID:                                                              \
        z = (forward);                                                         \
        *out = z;                                                              \
        return (status);
#include "ops.def"
    default:
        assert(0 && "fg_op_ternary: not a ternary opcode");
        return FG_E_DOMAIN;
    }
}

#endif
