/* kernels_elementwise.h: rows of ops.def for many lanes, forward and reverse.
 *
 * Each row becomes functions of its own. Inner loops are inlined with constant steps, so that they
 * vectorise; statuses are asked for when all results are there, in a loop without an exit. That of x**k
 * is FG_OK for every finite result, and asking for that is simpler. */
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

#define FG_UNARY(ID, name, kind, fused, symbol, ufuncs, forward, dx_, status, ...)                \
    FG_INLINE void lanes_##ID(size_t n, const double *px, int32_t k, double *restrict out)        \
    {                                                                                             \
        (void)k;                                                                                  \
        for (size_t i = 0; i < n; i++) {                                                          \
            const double x = px[i];                                                               \
            out[i] = (forward);                                                                   \
        }                                                                                         \
    }                                                                                             \
    static size_t map_##ID(size_t n, const double *const xs[3], const size_t step[3], int32_t k,  \
                           double *restrict out)                                                  \
    {                                                                                             \
        const double *const px = xs[0];                                                           \
        const size_t lanes = step[0] ? n : (n != 0);                                              \
        uint64_t bad = 0;                                                                         \
        (void)k;                                                                                  \
        if (has_vector(FG_##ID)) {                                                                \
            bad = map_vectors(FG_##ID, lanes, px, out);                                           \
        } else {                                                                                  \
            lanes_##ID(lanes, px, k, out);                                                        \
            for (size_t i = 0; i < lanes; i++) {                                                  \
                const double x = px[i], z = out[i];                                               \
                (void)x, (void)z;                                                                 \
                bad |= (uint64_t)(FG_##ID == FG_POWI ? !isfinite(z) : (status) != FG_OK);         \
            }                                                                                     \
        }                                                                                         \
        for (size_t i = lanes; i < n; i++)                                                        \
            out[i] = out[0];                                                                      \
        for (size_t i = 0; bad && i < lanes; i++) {                                               \
            const double x = px[i], z = out[i];                                                   \
            (void)x, (void)z;                                                                     \
            if ((status) != FG_OK)                                                                \
                return i;                                                                         \
        }                                                                                         \
        return n;                                                                                 \
    }                                                                                             \
    FG_INLINE void rule_##ID(int add, size_t n, const double *px, size_t sx, int32_t k,           \
                             const double *pz, const double *pdz, double *restrict out)           \
    {                                                                                             \
        (void)k;                                                                                  \
        for (size_t i = 0; i < n; i++) {                                                          \
            const double x = px[i * sx], z = pz[i], dz = pdz[i];                                  \
            (void)x, (void)z, (void)dz;                                                           \
            out[i] = add ? out[i] + (dx_) : (dx_);                                                \
        }                                                                                         \
    }                                                                                             \
    static void grad_##ID(int which, size_t n, const double *const xs[3], const size_t step[3],   \
                          int32_t k, const double *z, const double *dz, double *dx)               \
    {                                                                                             \
        (void)which;                                                                              \
        if (step[0])                                                                              \
            rule_##ID(1, n, xs[0], 1, k, z, dz, dx);                                              \
        else                                                                                      \
            SUM_OF(rule_##ID(0, count, xs[0], 0, k, z + i, dz + i, part))                         \
    }

#define FG_BINARY(ID, name, operands, kind, second, symbol, ufuncs, parents,                      \
                  forward, dx_, dy_, status, ...)                                                 \
    FG_INLINE size_t lanes_##ID(size_t n, const double *px, size_t sx, const double *py,          \
                                size_t sy, double *restrict out)                                  \
    {                                                                                             \
        uint64_t bad = 0;                                                                         \
        for (size_t i = 0; i < n; i++) {                                                          \
            const double x = px[i * sx], y = py[i * sy];                                          \
            out[i] = (forward);                                                                   \
        }                                                                                         \
        for (size_t i = 0; i < n; i++) {                                                          \
            const double x = px[i * sx], y = py[i * sy], z = out[i];                              \
            (void)x, (void)y, (void)z;                                                            \
            bad |= (status) != FG_OK;                                                             \
        }                                                                                         \
        for (size_t i = 0; bad && i < n; i++) {                                                   \
            const double x = px[i * sx], y = py[i * sy], z = out[i];                              \
            (void)x, (void)y, (void)z;                                                            \
            if ((status) != FG_OK)                                                                \
                return i;                                                                         \
        }                                                                                         \
        return n;                                                                                 \
    }                                                                                             \
    static size_t map_##ID(size_t n, const double *const xs[3], const size_t step[3],             \
                           double *restrict out)                                                  \
    {                                                                                             \
        if (step[0])                                                                              \
            return step[1] ? lanes_##ID(n, xs[0], 1, xs[1], 1, out)                               \
                           : lanes_##ID(n, xs[0], 1, xs[1], 0, out);                              \
        if (step[1])                                                                              \
            return lanes_##ID(n, xs[0], 0, xs[1], 1, out);                                        \
        const size_t lanes = n != 0;                                                              \
        if (lanes_##ID(lanes, xs[0], 0, xs[1], 0, out) < lanes)                                   \
            return 0;                                                                             \
        for (size_t i = 1; i < n; i++)                                                            \
            out[i] = out[0];                                                                      \
        return n;                                                                                 \
    }                                                                                             \
    FG_INLINE void rule_##ID(int which, int add, size_t n, const double *px, size_t sx,           \
                             const double *py, size_t sy, const double *pz, const double *pdz,    \
                             double *restrict out)                                                \
    {                                                                                             \
        for (size_t i = 0; i < n; i++) {                                                          \
            const double x = px[i * sx], y = py[i * sy], z = pz[i], dz = pdz[i];                  \
            (void)x, (void)y, (void)z, (void)dz;                                                  \
            if (which == 0)                                                                       \
                out[i] = add ? out[i] + (dx_) : (dx_);                                            \
            else                                                                                  \
                out[i] = add ? out[i] + (dy_) : (dy_);                                            \
        }                                                                                         \
    }                                                                                             \
    static void grad_##ID(int which, size_t n, const double *const xs[3], const size_t step[3],   \
                          int32_t k, const double *z, const double *dz, double *dx)               \
    {                                                                                             \
        const double *const x = xs[0], *const y = xs[1];                                          \
        (void)k;                                                                                  \
        if (step[0] && step[1]) {                                                                 \
            if (which == 0)                                                                       \
                rule_##ID(0, 1, n, x, 1, y, 1, z, dz, dx);                                        \
            else                                                                                  \
                rule_##ID(1, 1, n, x, 1, y, 1, z, dz, dx);                                        \
        } else if (step[0]) {                                                                     \
            if (which == 0)                                                                       \
                rule_##ID(0, 1, n, x, 1, y, 0, z, dz, dx);                                        \
            else                                                                                  \
                SUM_OF(rule_##ID(1, 0, count, x + i, 1, y, 0, z + i, dz + i, part))               \
        } else if (step[1]) {                                                                     \
            if (which == 0)                                                                       \
                SUM_OF(rule_##ID(0, 0, count, x, 0, y + i, 1, z + i, dz + i, part))               \
            else                                                                                  \
                rule_##ID(1, 1, n, x, 0, y, 1, z, dz, dx);                                        \
        } else if (which == 0) {                                                                  \
            SUM_OF(rule_##ID(0, 0, count, x, 0, y, 0, z + i, dz + i, part))                       \
        } else {                                                                                  \
            SUM_OF(rule_##ID(1, 0, count, x, 0, y, 0, z + i, dz + i, part))                       \
        }                                                                                         \
    }

#define FG_TERNARY(ID, name, operands, kind, symbol, forward, dx_, dy_, dw_, status, ...)         \
    FG_INLINE size_t lanes_##ID(size_t n, const double *px, size_t sx, const double *py,          \
                                size_t sy, const double *pw, size_t sw, double *restrict out)     \
    {                                                                                             \
        uint64_t bad = 0;                                                                         \
        for (size_t i = 0; i < n; i++) {                                                          \
            const double x = px[i * sx], y = py[i * sy], w = pw[i * sw];                          \
            out[i] = (forward);                                                                   \
        }                                                                                         \
        for (size_t i = 0; i < n; i++) {                                                          \
            const double x = px[i * sx], y = py[i * sy], w = pw[i * sw], z = out[i];              \
            (void)x, (void)y, (void)w, (void)z;                                                   \
            bad |= (status) != FG_OK;                                                             \
        }                                                                                         \
        for (size_t i = 0; bad && i < n; i++) {                                                   \
            const double x = px[i * sx], y = py[i * sy], w = pw[i * sw], z = out[i];              \
            (void)x, (void)y, (void)w, (void)z;                                                   \
            if ((status) != FG_OK)                                                                \
                return i;                                                                         \
        }                                                                                         \
        return n;                                                                                 \
    }                                                                                             \
    static size_t map_##ID(size_t n, const double *const xs[3], const size_t step[3],             \
                           double *restrict out)                                                  \
    {                                                                                             \
        if (step[0] && step[1] && step[2])                                                        \
            return lanes_##ID(n, xs[0], 1, xs[1], 1, xs[2], 1, out);                              \
        if (step[0] && !step[1] && !step[2])                                                      \
            return lanes_##ID(n, xs[0], 1, xs[1], 0, xs[2], 0, out);                              \
        return lanes_##ID(n, xs[0], step[0], xs[1], step[1], xs[2], step[2], out);                \
    }                                                                                             \
    FG_INLINE void rule_##ID(int which, size_t n, const double *px, size_t sx, const double *py,  \
                             size_t sy, const double *pw, size_t sw, const double *pz,            \
                             const double *pdz, double *restrict out)                             \
    {                                                                                             \
        for (size_t i = 0; i < n; i++) {                                                          \
            const double x = px[i * sx], y = py[i * sy], w = pw[i * sw];                          \
            const double z = pz[i], dz = pdz[i];                                                  \
            (void)x, (void)y, (void)w, (void)z, (void)dz;                                         \
            out[i] = which == 0 ? (dx_) : which == 1 ? (dy_) : (dw_);                             \
        }                                                                                         \
    }                                                                                             \
    static void grad_##ID(int which, size_t n, const double *const xs[3], const size_t step[3],   \
                          int32_t k, const double *z, const double *dz, double *dx)               \
    {                                                                                             \
        const double *const x = xs[0], *const y = xs[1], *const w = xs[2];                        \
        const size_t sx = step[0], sy = step[1], sw = step[2];                                    \
        double part[CHUNK], total = 0.0;                                                          \
        (void)k;                                                                                  \
        for (size_t i = 0; i < n; i += CHUNK) {                                                   \
            const size_t count = smaller(n - i, CHUNK);                                           \
            if (which == 0 && sx && sy && sw)                                                     \
                rule_##ID(0, count, x + i, 1, y + i, 1, w + i, 1, z + i, dz + i, part);           \
            else if (which == 1 && sx && sy && sw)                                                \
                rule_##ID(1, count, x + i, 1, y + i, 1, w + i, 1, z + i, dz + i, part);           \
            else if (which == 2 && sx && sy && sw)                                                \
                rule_##ID(2, count, x + i, 1, y + i, 1, w + i, 1, z + i, dz + i, part);           \
            else if (which == 0 && sx && !sy && !sw)                                              \
                rule_##ID(0, count, x + i, 1, y, 0, w, 0, z + i, dz + i, part);                   \
            else                                                                                  \
                rule_##ID(which, count, x + i * sx, sx, y + i * sy, sy, w + i * sw, sw, z + i,    \
                          dz + i, part);                                                          \
            if (!step[which])                                                                     \
                total += sum(count, part);                                                        \
            else                                                                                  \
                for (size_t j = 0; j < count; j++)                                                \
                    dx[i + j] += part[j];                                                         \
        }                                                                                         \
        if (!step[which])                                                                         \
            dx[0] += total;                                                                       \
    }

/* The rule's contributions for lanes i to i + count, added up in *dx. */
#define SUM_OF(rule)                                  \
    {                                                 \
        double part[CHUNK], total = 0.0;              \
        for (size_t i = 0; i < n; i += CHUNK) {       \
            const size_t count = smaller(n - i, CHUNK); \
            rule;                                     \
            total += sum(count, part);                \
        }                                             \
        dx[0] += total;                               \
    }

enum { CHUNK = 128 };

#include "ops.def"

static size_t map(int op, size_t n, const double *const x[3], const size_t step[3], int32_t k, double *z)
{
    switch (op) {
#define FG_UNARY(ID, ...) \
    case FG_##ID:         \
        return map_##ID(n, x, step, k, z);
#define FG_BINARY(ID, ...) \
    case FG_##ID:          \
        return map_##ID(n, x, step, z);
#define FG_TERNARY(ID, ...) \
    case FG_##ID:           \
        return map_##ID(n, x, step, z);
#include "ops.def"
    default:
        assert(0 && "map: not an elementwise opcode");
        return 0;
    }
}

static void map_grad(int op, int which, size_t n, const double *const x[3], const size_t step[3], int32_t k,
                     const double *z, const double *dz, double *dx)
{
    switch (op) {
#define FG_UNARY(ID, ...)                            \
    case FG_##ID:                                    \
        grad_##ID(which, n, x, step, k, z, dz, dx); \
        break;
#define FG_BINARY(ID, ...) FG_UNARY(ID, )
#define FG_TERNARY(ID, ...) FG_UNARY(ID, )
#include "ops.def"
    default:
        assert(0 && "map_grad: not an elementwise opcode");
    }
}

#endif
