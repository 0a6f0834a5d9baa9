/* kernels_elementwise.h: rows of ops.def for many lanes, forward and reverse.
 *
 * Each row becomes functions of its own, whatever its arity (rows.def). Inner loops are inlined with constant
 * steps, so that they vectorise; statuses are asked for when all results are there, in a loop without an exit. That
 * of x**k is FG_OK for every finite result, and asking for that is simpler. */
#ifndef FG_KERNELS_ELEMENTWISE_H
#define FG_KERNELS_ELEMENTWISE_H

#include "kernels.h"
#include "kernels_elementary.h"
#include "kernels_lanes.h"

/* Rows of ops.def that have such a function. */
FG_INLINE int has_vector(int op)
{
    return op == FG_EXP || op == FG_LOG || op == FG_TANH || op == FG_SIGMOID;
}

FG_INLINE vd vector_row(int op, vd x)
{
    return op == FG_EXP ? v_exp(x) : op == FG_LOG ? v_log(x) : op == FG_TANH ? v_tanh(x) : v_sigmoid(x);
}

/* 1 in each lane whose status may not be FG_OK, 0 in the others. */
FG_INLINE vd vector_doubt(int op, vd x, vd z)
{
    const vm doubt = op == FG_EXP ? v_eq(z, v_set1(INFINITY)) : v_ge(v_set1(0.0), x);
    return op == FG_EXP || op == FG_LOG ? v_select(doubt, v_set1(1.0), v_set1(0.0)) : v_set1(0.0);
}

/* Whether there is a lane whose status may not be FG_OK. Asked here, for reading z back right away would
 * wait for the stores. */
FG_INLINE uint64_t map_vectors(int op, size_t n, const double *x, double *z)
{
    vd doubts = v_set1(0.0);
    size_t i = 0;
    for (; n - i >= FG_W; i += FG_W) {
        const vd xs = v_load(x + i), zs = vector_row(op, xs);
        v_store(z + i, zs);
        doubts = v_add(doubts, vector_doubt(op, xs, zs));
    }
    if (i < n) {
        const vd xs = v_load_part(x + i, n - i), zs = vector_row(op, xs);
        v_store_part(z + i, n - i, zs);
        doubts = v_add(doubts, v_part(vector_doubt(op, xs, zs), n - i));
    }
    return v_sum(doubts) != 0.0;
}

enum { CHUNK = 128 };

/* Of each row: lanes_, its forward rule for all lanes, and whether a status may not be FG_OK; map_, the kernel; rule_,
 * its reverse rule by operand `which`, added to `out` or written there; grad_, the same with constant steps; and
 * map_grad_, the kernel. x, y and w are of n lanes, sx apart; those that the row has not are as x. */
#define FG_ROW(ID, arity, forward, dx_, dy_, dw_, status)                                                           \
    FG_INLINE int lanes_##ID(size_t n, const double *const xs[3], size_t sx, size_t sy, size_t sw, int32_t k,       \
                             double *restrict out)                                                                  \
    {                                                                                                               \
        uint64_t bad = 0;                                                                                           \
        LANES(arity);                                                                                               \
        if (has_vector(FG_##ID))                                                                                    \
            return map_vectors(FG_##ID, n, xs[0], out) != 0;                                                        \
        for (size_t i = 0; i < n; i++) {                                                                            \
            OPERANDS(i);                                                                                            \
            out[i] = (forward);                                                                                     \
        }                                                                                                           \
        for (size_t i = 0; i < n; i++) {                                                                            \
            OPERANDS(i);                                                                                            \
            const double z = out[i];                                                                                \
            (void)z;                                                                                                \
            bad |= (uint64_t)(FG_##ID == FG_POWI ? !isfinite(z) : (status) != FG_OK);                               \
        }                                                                                                           \
        return bad != 0;                                                                                            \
    }                                                                                                               \
    static size_t map_##ID(size_t n, const double *const xs[3], const size_t step[3], int32_t k,                    \
                           double *restrict out)                                                                    \
    {                                                                                                               \
        const size_t sx = step[0], sy = arity > 1 ? step[1] : sx, sw = arity > 2 ? step[2] : sy;                    \
        const size_t lanes = sx | sy | sw ? n : (n != 0);                                                           \
        int bad;                                                                                                    \
        LANES(arity);                                                                                               \
        if (arity == 1 || (sx && sy && sw) || !(sx | sy | sw)) /* of one lane any step will do */                   \
            bad = lanes_##ID(lanes, xs, 1, 1, 1, k, out);                                                           \
        else if (sx && !sy && !sw)                                                                                  \
            bad = lanes_##ID(lanes, xs, 1, 0, 0, k, out);                                                           \
        else if (arity == 2)                                                                                        \
            bad = lanes_##ID(lanes, xs, 0, 1, 1, k, out);                                                           \
        else                                                                                                        \
            bad = lanes_##ID(lanes, xs, sx, sy, sw, k, out);                                                        \
        for (size_t i = lanes; i < n; i++)                                                                          \
            out[i] = out[0];                                                                                        \
        for (size_t i = 0; bad && i < lanes; i++) {                                                                 \
            OPERANDS(i);                                                                                            \
            const double z = out[i];                                                                                \
            (void)z;                                                                                                \
            if ((status) != FG_OK)                                                                                  \
                return i;                                                                                           \
        }                                                                                                           \
        return n;                                                                                                   \
    }                                                                                                               \
    FG_INLINE void rule_##ID(int which, int add, size_t from, size_t n, const double *const xs[3], size_t sx,       \
                             size_t sy, size_t sw, int32_t k, const double *pz, const double *pdz,                  \
                             double *restrict out)                                                                  \
    {                                                                                                               \
        LANES(arity);                                                                                               \
        for (size_t i = 0; i < n; i++) {                                                                            \
            OPERANDS(from + i);                                                                                     \
            const double z = pz[from + i], dz = pdz[from + i];                                                      \
            (void)z, (void)dz;                                                                                      \
            if (which == 0)                                                                                         \
                out[i] = add ? out[i] + (dx_) : (dx_);                                                              \
            else if (which == 1)                                                                                    \
                out[i] = add ? out[i] + (dy_) : (dy_);                                                              \
            else                                                                                                    \
                out[i] = add ? out[i] + (dw_) : (dw_);                                                              \
        }                                                                                                           \
    }                                                                                                               \
    FG_INLINE void grad_##ID(int which, size_t n, const double *const xs[3], size_t sx, size_t sy, size_t sw,       \
                             int32_t k, const double *z, const double *dz, double *dx)                              \
    {                                                                                                               \
        double part[CHUNK], total = 0.0;                                                                            \
        if (which == 0 ? sx : which == 1 ? sy : sw) {                                                               \
            rule_##ID(which, 1, 0, n, xs, sx, sy, sw, k, z, dz, dx);                                                \
            return;                                                                                                 \
        }                                                                                                           \
        for (size_t i = 0; i < n; i += CHUNK) {                                                                     \
            const size_t count = smaller(n - i, CHUNK);                                                             \
            rule_##ID(which, 0, i, count, xs, sx, sy, sw, k, z, dz, part);                                          \
            total += sum(count, part);                                                                              \
        }                                                                                                           \
        dx[0] += total;                                                                                             \
    }                                                                                                               \
    static void map_grad_##ID(int which, size_t n, const double *const xs[3], const size_t step[3], int32_t k,      \
                              const double *z, const double *dz, double *dx)                                        \
    {                                                                                                               \
        const size_t sx = step[0], sy = arity > 1 ? step[1] : sx, sw = arity > 2 ? step[2] : sy;                    \
        if (sx && sy && sw) {                                                                                       \
            if (arity == 1 || which == 0)                                                                           \
                grad_##ID(0, n, xs, 1, 1, 1, k, z, dz, dx);                                                         \
            else if (arity == 2 || which == 1)                                                                      \
                grad_##ID(1, n, xs, 1, 1, 1, k, z, dz, dx);                                                         \
            else                                                                                                    \
                grad_##ID(2, n, xs, 1, 1, 1, k, z, dz, dx);                                                         \
        } else if (sx && !sy && !sw && which == 0) {                                                                \
            grad_##ID(0, n, xs, 1, 0, 0, k, z, dz, dx);                                                             \
        } else if (arity == 3) {                                                                                    \
            grad_##ID(which, n, xs, sx, sy, sw, k, z, dz, dx);                                                      \
        } else if (sx) {                                                                                            \
            grad_##ID(1, n, xs, 1, 0, 0, k, z, dz, dx);                                                             \
        } else if (sy) {                                                                                            \
            if (which == 0)                                                                                         \
                grad_##ID(0, n, xs, 0, 1, 1, k, z, dz, dx);                                                         \
            else                                                                                                    \
                grad_##ID(1, n, xs, 0, 1, 1, k, z, dz, dx);                                                         \
        } else if (arity == 1 || which == 0) {                                                                      \
            grad_##ID(0, n, xs, 0, 0, 0, k, z, dz, dx);                                                             \
        } else {                                                                                                    \
            grad_##ID(1, n, xs, 0, 0, 0, k, z, dz, dx);                                                             \
        }                                                                                                           \
    }

/* Where the operands' lanes begin, and x, y and w of lane i. */
#define LANES(arity) \
    const double *const px = xs[0], *const py = xs[arity > 1 ? 1 : 0], *const pw = xs[arity > 2 ? 2 : 0]
#define OPERANDS(i)                                                                 \
    const double x = px[(i) * sx], y = py[(i) * sy], w = pw[(i) * sw];              \
    (void)x, (void)y, (void)w, (void)k, (void)sx, (void)sy, (void)sw

#include "rows.def"
#undef LANES
#undef OPERANDS

static size_t map(int op, size_t n, const double *const x[3], const size_t step[3], int32_t k, double *z)
{
    switch (op) {
#define FG_ROW(ID, ...) \
    case FG_##ID:       \
        return map_##ID(n, x, step, k, z);
#include "rows.def"
    default:
        assert(0 && "map: not an elementwise opcode");
        return 0;
    }
}

static void map_grad(int op, int which, size_t n, const double *const x[3], const size_t step[3], int32_t k,
                     const double *z, const double *dz, double *dx)
{
    switch (op) {
#define FG_ROW(ID, ...)                                 \
    case FG_##ID:                                       \
        map_grad_##ID(which, n, x, step, k, z, dz, dx); \
        break;
#include "rows.def"
    default:
        assert(0 && "map_grad: not an elementwise opcode");
    }
}

#endif
