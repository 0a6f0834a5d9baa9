/* kernels_elementwise.h: rows of ops.def for many lanes, forward and reverse.
 *
 * Each row becomes functions of its own, whatever its arity (rows.def). Those of kernels_rows.h are vectors; the inner
 * loops of the others are inlined with constant steps, so that they vectorise, and statuses are asked for when all
 * results are there, in a loop without an exit. That of x**k is FG_OK for every finite result, and asking for that is
 * simpler. */
#ifndef FG_KERNELS_ELEMENTWISE_H
#define FG_KERNELS_ELEMENTWISE_H

#include "kernels.h"
#include "kernels_lanes.h"
#include "kernels_rows.h"

enum { CHUNK = 128 };

/* The reverse rule of operand `which`, in vectors. */
FG_INLINE void grad_vectors(int op, int arity, int which, size_t n, const double *const xs[3], const size_t step[3],
                            int32_t k, const double *z, const double *dz, double *dx)
{
    double part[CHUNK], total = 0.0;
    for (size_t i = 0; i < n; i += CHUNK) {
        const size_t count = smaller(n - i, CHUNK);
        rule_vectors(op, arity, which, i, count, xs, step, k, z, dz, part);
        if (!step[which])
            total += sum(count, part);
        else
            for (size_t j = 0; j < count; j++)
                dx[i + j] += part[j];
    }
    if (!step[which])
        dx[0] += total;
}

/* Of each row: results_, its forward rule for all lanes, and whether a status may not be FG_OK; map_, the kernel; rule_,
 * its reverse rule by operand `which`, added to `out` or written there; grad_, the same with constant steps; and
 * map_grad_, the kernel. x, y and w are of n lanes, sx apart; those that the row has not are as x. */
#define FG_ROW(ID, arity, forward, dx_, dy_, dw_, status)                                                           \
    RESULTS(HAS_VECTORS(ID), ID, arity, forward, status)                                                            \
    static size_t map_##ID(size_t n, const double *const xs[3], const size_t step[3], int32_t k,                    \
                           double *restrict out)                                                                    \
    {                                                                                                               \
        const size_t sx = step[0], sy = arity > 1 ? step[1] : sx, sw = arity > 2 ? step[2] : sy;                    \
        const size_t lanes = sx | sy | sw ? n : (n != 0);                                                           \
        const int bad = results_##ID(lanes, xs, step, k, out);                                                      \
        LANES(arity);                                                                                               \
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
        GRAD_OF_##arity(ID)                                                                                         \
    }

#define RESULTS(vectors, ID, arity, forward, status) RESULTS_OF(vectors, ID, arity, forward, status)
#define RESULTS_OF(vectors, ID, arity, forward, status) RESULTS_##vectors(ID, arity, forward, status)

/* In vectors. */
#define RESULTS_1(ID, arity, forward, status)                                                                       \
    FG_INLINE int results_##ID(size_t n, const double *const xs[3], const size_t step[3], int32_t k, double *out)   \
    {                                                                                                               \
        return map_vectors(FG_##ID, arity, n, xs, step, k, out);                                                    \
    }

/* In loops with constant steps, but where there are vectors for this k on this level. */
#define RESULTS_0(ID, arity, forward, status)                                                                       \
    FG_INLINE int lanes_##ID(size_t n, const double *const xs[3], size_t sx, size_t sy, size_t sw, int32_t k,       \
                             double *restrict out)                                                                  \
    {                                                                                                               \
        uint64_t bad = 0;                                                                                           \
        LANES(arity);                                                                                               \
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
    FG_INLINE int results_##ID(size_t n, const double *const xs[3], const size_t step[3], int32_t k,                \
                               double *restrict out)                                                                \
    {                                                                                                               \
        if (has_vector(FG_##ID, k))                                                                                 \
            return map_vectors(FG_##ID, arity, n, xs, step, k, out);                                                \
        LANES_OF_##arity(ID)                                                                                        \
    }

/* Of one lane any step will do. */
#define LANES_OF_1(ID) return lanes_##ID(n, xs, 1, 1, 1, k, out);
#define LANES_OF_2(ID)                                                                                              \
    if (step[0] == step[1])                                                                                         \
        return lanes_##ID(n, xs, 1, 1, 1, k, out);                                                                  \
    return step[0] ? lanes_##ID(n, xs, 1, 0, 0, k, out) : lanes_##ID(n, xs, 0, 1, 1, k, out);
#define LANES_OF_3(ID)                                                                                              \
    if (step[0] == step[1] && step[1] == step[2])                                                                   \
        return lanes_##ID(n, xs, 1, 1, 1, k, out);                                                                  \
    if (step[0] > step[1] && step[1] == step[2])                                                                    \
        return lanes_##ID(n, xs, 1, 0, 0, k, out);                                                                  \
    return lanes_##ID(n, xs, step[0], step[1], step[2], k, out);

/* By operand `which` of a row of so many. */
#define GRAD_OF_1(ID)                                                                                               \
    (void)which;                                                                                                    \
    if (has_vector_rule(FG_##ID, 0, k))                                                                             \
        grad_vectors(FG_##ID, 1, 0, n, xs, step, k, z, dz, dx);                                                     \
    else if (step[0])                                                                                               \
        grad_##ID(0, n, xs, 1, 1, 1, k, z, dz, dx);                                                                 \
    else                                                                                                            \
        grad_##ID(0, n, xs, 0, 0, 0, k, z, dz, dx);
#define GRAD_OF_2(ID)                                                                                               \
    if (which == 0) {                                                                                               \
        GRAD_OF_PAIR(ID, 0)                                                                                         \
    } else {                                                                                                        \
        GRAD_OF_PAIR(ID, 1)                                                                                         \
    }
#define GRAD_OF_PAIR(ID, which)                                                                                     \
    if (has_vector_rule(FG_##ID, which, k))                                                                         \
        grad_vectors(FG_##ID, 2, which, n, xs, step, k, z, dz, dx);                                                 \
    else if (step[0] && step[1])                                                                                    \
        grad_##ID(which, n, xs, 1, 1, 1, k, z, dz, dx);                                                             \
    else if (step[0])                                                                                               \
        grad_##ID(which, n, xs, 1, 0, 0, k, z, dz, dx);                                                             \
    else if (step[1])                                                                                               \
        grad_##ID(which, n, xs, 0, 1, 1, k, z, dz, dx);                                                             \
    else                                                                                                            \
        grad_##ID(which, n, xs, 0, 0, 0, k, z, dz, dx);
#define GRAD_OF_3(ID)                                                                                               \
    if (which == 0 && has_vector_rule(FG_##ID, 0, k))                                                               \
        grad_vectors(FG_##ID, 3, 0, n, xs, step, k, z, dz, dx);                                                     \
    else if (which == 1 && has_vector_rule(FG_##ID, 1, k))                                                          \
        grad_vectors(FG_##ID, 3, 1, n, xs, step, k, z, dz, dx);                                                     \
    else if (which == 2 && has_vector_rule(FG_##ID, 2, k))                                                          \
        grad_vectors(FG_##ID, 3, 2, n, xs, step, k, z, dz, dx);                                                     \
    else if (which == 0 && step[0] > step[1] && step[1] == step[2])                                                 \
        grad_##ID(0, n, xs, 1, 0, 0, k, z, dz, dx);                                                                 \
    else if (!(step[0] && step[1] && step[2]))                                                                      \
        grad_##ID(which, n, xs, step[0], step[1], step[2], k, z, dz, dx);                                           \
    else if (which == 0)                                                                                            \
        grad_##ID(0, n, xs, 1, 1, 1, k, z, dz, dx);                                                                 \
    else if (which == 1)                                                                                            \
        grad_##ID(1, n, xs, 1, 1, 1, k, z, dz, dx);                                                                 \
    else                                                                                                            \
        grad_##ID(2, n, xs, 1, 1, 1, k, z, dz, dx);

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
