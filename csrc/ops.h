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
    const char *forward;  /* the result, as C */
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

/* Whether that is so of all eight opcodes in the word. */
static inline int fg_ops_are_inline(uint64_t ops)
{
    static_assert((int)FG_BINARY_END <= 0x80, "a byte of an inline opcode has no top bit");
    const uint64_t tops = UINT64_C(0x8080808080808080), each = UINT64_C(0x0101010101010101);
    /* a byte keeps its top bit, or gets one if it is too large */
    ops |= (ops & ~tops) + (uint64_t)(0x80 - (int)FG_BINARY_END) * each;
    return (ops & tops) == 0;
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
    assert(fg_op_is_block(op));
    return op != FG_LAYER && op != FG_MAP && op != FG_TAKE && op != FG_CALL;
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

#define FG_FORMULA(name, parameters, comment, ...) \
    static inline double name parameters           \
    {                                              \
        __VA_ARGS__                                \
    }
#include "formulas.def"

/* formulas.def as text. */
typedef struct fg_formula {
    const char *name;
    const char *parameters; /* with their parentheses; "": it is a constant, and `body` its value */
    const char *comment;
    const char *body;
    const char *condition; /* of the preprocessor, where it is otherwise than the next of that name; or "" */
} fg_formula;

extern const fg_formula fg_formulas[]; /* in their order; one without a name ends them */

static inline int fg_overflow_status(double x, double z)
{
    return isinf(z) && isfinite(x) ? FG_E_OVERFLOW : FG_OK;
}

/* Python's rules for float ** float, told from operands and result, which is no nan of operands that are not finite, but
 * for those that are nan. */
static inline int fg_pow_status(double x, double y, double z)
{
    if (isfinite(z) || !isfinite(x) || !isfinite(y))
        return FG_OK;
    if (isnan(z))
        return FG_E_DOMAIN; /* a negative base with a fractional exponent: complex in Python */
    return x == 0.0 ? FG_E_ZERO_DIVISION : FG_E_OVERFLOW;
}

/* ---- forward: *out and the row's status. With a constant op those that are `known` fold to the one expression ---- */

static FG_ALWAYS int fg_op_unary_known(int op, double x, int32_t k, double *out)
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

static inline int fg_op_unary(int op, double x, int32_t k, double *out)
{
    return fg_op_unary_known(op, x, k, out);
}

static FG_ALWAYS int fg_op_binary_known(int op, double x, double y, double *out)
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

static inline int fg_op_binary(int op, double x, double y, double *out)
{
    return fg_op_binary_known(op, x, y, out);
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

/* The same for a row of any arity, of which `x` has the operands. */
int fg_op_compute(int op, const double *x, int32_t k, double *out);

#endif
