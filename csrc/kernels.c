/* kernels.c: see kernels.h. Written once over the vector instructions of simd.h, and compiled by
 * setup.py once for each level; every object exports one table, at the end. In order: exp and its
 * kin, elementwise rows, sums and dots, one-sample products, gemm, softmax and its kin, optimizers.
 *
 * Loops that need no vector instruction by name are plain C, which compilers vectorise. What no lane
 * may depend on is its neighbours: the last, partial vector runs the same code as the others. */
#include "kernels.h"
#include "simd.h"

#if defined(_MSC_VER) && !defined(__clang__)
#pragma fp_contract(off) /* as -ffp-contract=off: only v_fma fuses */
#endif

static size_t smaller(size_t x, size_t y)
{
    return x < y ? x : y;
}

/* ---- exp, log, tanh, sigmoid: within 2 units in the last place, all lanes by the same path ----
 *
 * The coefficients are near-minimax: interpolation in Chebyshev nodes, rounded to double. */

/* The sum of c[i] * x**i: every second term in `top`, from the last on, and the others in `rest`, so that
 * two short chains of multiplications run side by side. */
FG_INLINE vd v_polynomial(vd x, const double *c, int terms)
{
    const vd square = v_mul(x, x);
    vd top = v_set1(c[terms - 1]), rest = v_set1(c[terms - 2]);
    FG_UNROLL(8)
    for (int i = terms - 3; i > 0; i -= 2) {
        top = v_fma(top, square, v_set1(c[i]));
        rest = v_fma(rest, square, v_set1(c[i - 1]));
    }
    if (terms % 2 == 0) /* the powers in `top` are odd */
        return v_fma(top, x, rest);
    return v_fma(rest, x, v_fma(top, square, v_set1(c[0])));
}

#define LN2_HIGH 0.6931471803691238 /* 32 bits: times an exponent it is exact */
#define LN2_LOW 1.9082149292705877e-10

/* exp(x) = 2**n * exp(r) with |r| <= log(2) / 2, and exp(r) = 1 + r + r**2 * P(r). */
FG_INLINE vd v_exp(vd x)
{
    static const double c[] = {
        0.5000000000000001,     0.16666666666666669,    0.04166666666662399,    0.008333333333330051,
        0.0013888888917281794,  0.00019841269863105968, 2.480152119021773e-05,  2.7557268378684192e-06,
        2.7620138719733994e-07, 2.5100424157005067e-08,
    };
    const vd round = v_set1(FG_ROUND);
    x = v_max(v_set1(-800.0), v_min(v_set1(800.0), x)); /* where it is 0 and inf; nan stays */
    const vd n = v_sub(v_fma(x, v_set1(1.4426950408889634), round), round);
    const vd r = v_fnma(n, v_set1(LN2_LOW), v_fnma(n, v_set1(LN2_HIGH), x));
    const vd p = v_polynomial(r, c, 10);
    return v_scale(v_add(v_set1(1.0), v_fma(v_mul(r, r), p, r)), n);
}

/* log(2**n * m) = n * log(2) + log(1 + f), sqrt(1/2) < m = 1 + f < sqrt(2). With s = f / (2 + f),
 * log(1 + f) = 2 s + s**3 * P(s**2) = f - s * (f - s**2 * P(s**2)). */
FG_INLINE vd v_log(vd x)
{
    static const double c[] = {
        0.666666666666667,   0.3999999999989889,  0.28571428626253836, 0.22222211089379493,
        0.18182892432537032, 0.15331611722050653, 0.14617807153462828,
    };
    const vd zero = v_set1(0.0), one = v_set1(1.0), inf = v_set1(INFINITY);
    vd n;
    vd m = v_split(x, &n);
    const vm large = v_lt(v_set1(1.4142135623730951), m);
    m = v_select(large, v_mul(m, v_set1(0.5)), m);
    n = v_select(large, v_add(n, one), n);
    const vd f = v_sub(m, one), half_square = v_mul(v_mul(v_set1(0.5), f), f);
    const vd s = v_div(f, v_add(f, v_set1(2.0)));
    const vd z = v_mul(s, s), q = v_mul(z, v_polynomial(z, c, 7));
    /* 2 s = f - s f, and s f = half_square - s * half_square: what is subtracted from f is small */
    const vd low = v_fma(n, v_set1(LN2_LOW), v_mul(s, v_add(half_square, q)));
    const vd result = v_fma(n, v_set1(LN2_HIGH), v_sub(f, v_sub(half_square, low)));
    const vd edge = v_select(v_eq(x, zero), v_set1(-INFINITY), v_set1(NAN));
    return v_select(v_eq(x, inf), inf, v_select(v_lt(zero, x), result, edge));
}

/* By exp(-|x|), which does not overflow. */
FG_INLINE vd v_sigmoid(vd x)
{
    const vd one = v_set1(1.0);
    const vd e = v_exp(v_or(v_abs(x), v_set1(-0.0)));
    return v_div(v_select(v_ge(x, v_set1(0.0)), one, e), v_add(one, e));
}

/* Of a = |x|: where a < 0.6, a + a * a**2 P(a**2) / Q(a**2), else 1 - 2 / (exp(2 a) + 1); one division
 * does for both. */
FG_INLINE vd v_tanh(vd x)
{
    const vd a = v_abs(x), z = v_mul(a, a), e = v_exp(v_add(a, a));
    const vm small = v_lt(a, v_set1(0.6));
    const vd p = v_fma(v_fma(v_set1(-0.9643772634063547), z, v_set1(-99.23182241408416)), z,
                       v_set1(-1613.5334517003944));
    const vd q = v_fma(v_fma(v_add(z, v_set1(112.75112753490883)), z, v_set1(2233.9356092827147)), z,
                       v_set1(4840.600355101183));
    const vd ratio = v_div(v_select(small, v_mul(z, p), v_set1(-2.0)),
                           v_select(small, q, v_add(e, v_set1(1.0))));
    return v_or(v_select(small, v_fma(a, ratio, a), v_add(v_set1(1.0), ratio)), v_sign_of(x));
}

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

/* ---- rows of ops.def ----
 *
 * Each row becomes functions of its own. Inner loops are inlined with constant steps, so that they
 * vectorise; statuses are asked for when all results are there, in a loop without an exit. That of x**k
 * is FG_OK for every finite result, and asking for that is simpler. */

#define FG_UNARY(ID, name, public, symbol, forward, dx_, status, ...)                             \
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

#define FG_BINARY(ID, name, public, symbol, parents, forward, dx_, dy_, status, ...)              \
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

#define FG_TERNARY(ID, name, operands, public, symbol, forward, dx_, dy_, dw_, status, ...)       \
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

static double sum(size_t n, const double *x)
{
    vd a = v_set1(0.0), b = a, c = a, d = a;
    size_t i = 0;
    if (n < FG_W) { /* often just written, one by one: a vector would wait for the stores */
        double total = 0.0;
        for (; i < n; i++)
            total += x[i];
        return total;
    }
    for (; n - i >= 4 * FG_W; i += 4 * FG_W) {
        a = v_add(a, v_load(x + i));
        b = v_add(b, v_load(x + i + FG_W));
        c = v_add(c, v_load(x + i + 2 * FG_W));
        d = v_add(d, v_load(x + i + 3 * FG_W));
    }
    for (; n - i >= FG_W; i += FG_W)
        a = v_add(a, v_load(x + i));
    if (i < n)
        b = v_add(b, v_load_part(x + i, n - i));
    return v_sum(v_add(v_add(a, b), v_add(c, d)));
}

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

/* ---- one row of numbers ---- */

static double max(size_t n, const double *x)
{
    vd most = v_set1(x[0]);
    vm nan = v_isnan(most);
    size_t i = 0;
    for (; n - i >= FG_W; i += FG_W) {
        const vd v = v_load(x + i);
        most = v_max(most, v);
        nan = vm_or(nan, v_isnan(v));
    }
    double lane[FG_W];
    v_store(lane, most);
    double result = lane[0];
    for (size_t j = 1; j < FG_W; j++)
        result = lane[j] > result ? lane[j] : result;
    for (; i < n; i++) {
        nan = vm_or(nan, v_isnan(v_set1(x[i])));
        result = x[i] > result ? x[i] : result;
    }
    if (vm_any(nan))
        return (double)NAN;
    if (result == 0.0) /* zeros of both signs are equal: the first, however wide the lanes */
        for (i = 0; x[i] != 0.0; i++)
            continue;
    return result == 0.0 ? x[i] : result;
}

static double dot(size_t n, const double *x, const double *y)
{
    vd a = v_set1(0.0), b = a, c = a, d = a;
    size_t i = 0;
    for (; n - i >= 4 * FG_W; i += 4 * FG_W) {
        a = v_fma(v_load(x + i), v_load(y + i), a);
        b = v_fma(v_load(x + i + FG_W), v_load(y + i + FG_W), b);
        c = v_fma(v_load(x + i + 2 * FG_W), v_load(y + i + 2 * FG_W), c);
        d = v_fma(v_load(x + i + 3 * FG_W), v_load(y + i + 3 * FG_W), d);
    }
    for (; n - i >= FG_W; i += FG_W)
        a = v_fma(v_load(x + i), v_load(y + i), a);
    if (i < n)
        b = v_fma(v_load_part(x + i, n - i), v_load_part(y + i, n - i), b);
    return v_sum(v_add(v_add(a, b), v_add(c, d)));
}

static void axpy(size_t n, double a, const double *x, double *y)
{
    const vd scale = v_set1(a);
    size_t i = 0;
    for (; n - i >= FG_W; i += FG_W)
        v_store(y + i, v_fma(scale, v_load(x + i), v_load(y + i)));
    if (i < n)
        v_store_part(y + i, n - i, v_fma(scale, v_load_part(x + i, n - i), v_load_part(y + i, n - i)));
}

/* ---- a matrix times a vector ---- */

enum { ROWS = 8 }; /* that are multiplied at a time, to have as many sums in flight */

/* sums = (dot product of x with each of `count` <= ROWS rows of w). Rows that are not there are played
 * by the last. */
FG_INLINE void dots(size_t count, size_t k, const double *w, ptrdiff_t w_row, const double *x, vd *sums)
{
    vd acc[ROWS];
    const double *row[ROWS];
    size_t i = 0;
    FG_UNROLL(8)
    for (size_t r = 0; r < ROWS; r++) {
        acc[r] = v_set1(0.0);
        row[r] = w + (ptrdiff_t)(r < count ? r : count - 1) * w_row;
    }
    for (; k - i >= FG_W; i += FG_W) {
        const vd xs = v_load(x + i);
        FG_UNROLL(8)
        for (size_t r = 0; r < ROWS; r++)
            acc[r] = v_fma(v_load(row[r] + i), xs, acc[r]);
    }
    if (i < k) {
        const vd xs = v_load_part(x + i, k - i);
        FG_UNROLL(8)
        for (size_t r = 0; r < ROWS; r++)
            acc[r] = v_fma(v_load_part(row[r] + i, k - i), xs, acc[r]);
    }
    FG_UNROLL(8)
    for (size_t r = 0; r < ROWS / FG_W; r++)
        sums[r] = v_sums(acc + r * FG_W);
}

/* b may be z. */
static void gemv(size_t n, size_t k, const double *w, ptrdiff_t w_row, const double *x, const double *b,
                 ptrdiff_t b_step, double *z)
{
    size_t j = 0;
    for (; n - j > 2; j += smaller(n - j, ROWS)) {
        const size_t count = smaller(n - j, ROWS);
        const double *const bias = b ? b + (ptrdiff_t)j * b_step : NULL;
        vd sums[ROWS / FG_W];
        dots(count, k, w + (ptrdiff_t)j * w_row, w_row, x, sums);
        if (count == ROWS && (!b || b_step == 1 || b_step == 0)) {
            FG_UNROLL(8)
            for (size_t r = 0; r < ROWS / FG_W; r++) {
                if (b)
                    sums[r] = v_add(sums[r], b_step ? v_load(bias + r * FG_W) : v_set1(*bias));
                v_store(z + j + r * FG_W, sums[r]);
            }
        } else {
            double one[ROWS];
            for (size_t r = 0; r < ROWS / FG_W; r++)
                v_store(one + r * FG_W, sums[r]);
            for (size_t r = 0; r < count; r++)
                z[j + r] = b ? bias[(ptrdiff_t)r * b_step] + one[r] : one[r];
        }
    }
    for (; j < n; j++) {
        const double one = dot(k, w + (ptrdiff_t)j * w_row, x);
        z[j] = b ? b[(ptrdiff_t)j * b_step] + one : one;
    }
}

/* The part of gemv_grad for `vecs` vectors side by side, the last of which has only `part` numbers
 * if that is not 0. */
FG_INLINE void strip(int vecs, size_t part, int has_dw, int has_dx, size_t n, const double *w,
                     ptrdiff_t w_row, const double *x, const double *dz, double *dw, double *dx)
{
    vd xs[4], sums[2][4];
    FG_UNROLL(4)
    for (int v = 0; v < vecs; v++) {
        const int cut = part && v == vecs - 1;
        const size_t at = (size_t)v * FG_W;
        if (has_dw)
            xs[v] = cut ? v_load_part(x + at, part) : v_load(x + at);
        sums[0][v] = sums[1][v] = v_set1(0.0);
    }
    for (size_t j = 0; j < n; j += 2) {
        FG_UNROLL(2)
        for (size_t odd = 0; odd < 2; odd++) {
            if (j + odd >= n)
                break;
            const vd d = v_set1(dz[j + odd]);
            const ptrdiff_t row = (ptrdiff_t)(j + odd) * w_row;
            FG_UNROLL(4)
            for (int v = 0; v < vecs; v++) {
                const int cut = part && v == vecs - 1;
                const ptrdiff_t at = row + (ptrdiff_t)v * FG_W;
                if (has_dx) {
                    const vd ws = cut ? v_load_part(w + at, part) : v_load(w + at);
                    sums[odd][v] = v_fma(d, ws, sums[odd][v]);
                }
                if (has_dw && cut)
                    v_store_part(dw + at, part, v_fma(d, xs[v], v_load_part(dw + at, part)));
                else if (has_dw)
                    v_store(dw + at, v_fma(d, xs[v], v_load(dw + at)));
            }
        }
    }
    if (!has_dx)
        return;
    FG_UNROLL(4)
    for (int v = 0; v < vecs; v++) {
        double *const to = dx + (size_t)v * FG_W;
        const vd add = v_add(sums[0][v], sums[1][v]);
        if (part && v == vecs - 1)
            v_store_part(to, part, v_add(add, v_load_part(to, part)));
        else
            v_store(to, v_add(add, v_load(to)));
    }
}

FG_INLINE void strips(int has_dw, int has_dx, size_t n, size_t k, const double *w, ptrdiff_t w_row,
                      const double *x, const double *dz, double *dw, double *dx)
{
    size_t i = 0;
#define STRIP(vecs, part)                                                                          \
    strip(vecs, part, has_dw, has_dx, n, has_dx ? w + i : w, w_row, has_dw ? x + i : x, dz,        \
          has_dw ? dw + i : dw, has_dx ? dx + i : dx) /* those not asked for may be NULL */
    for (; k - i >= 4 * FG_W; i += 4 * FG_W)
        STRIP(4, 0);
    for (; k - i >= 2 * FG_W; i += 2 * FG_W)
        STRIP(2, 0);
    if (k - i >= FG_W) {
        STRIP(1, 0);
        i += FG_W;
    }
    if (i < k)
        STRIP(1, k - i);
#undef STRIP
}

/* For rows that are shorter than any vector is worth. */
static void short_rows(size_t n, size_t k, const double *w, ptrdiff_t w_row, const double *x,
                       const double *dz, double *dw, double *dx)
{
    for (size_t i = 0; i < k; i++) {
        double even = 0.0, odd = 0.0;
        for (size_t j = 0; j < n; j++) {
            const ptrdiff_t at = (ptrdiff_t)j * w_row + (ptrdiff_t)i;
            if (dw)
                dw[at] += dz[j] * x[i];
            if (dx && j % 2)
                odd += dz[j] * w[at];
            else if (dx)
                even += dz[j] * w[at];
        }
        if (dx)
            dx[i] += even + odd;
    }
}

static void gemv_grad(size_t n, size_t k, const double *w, ptrdiff_t w_row, const double *x,
                      const double *dz, double *dw, double *dx)
{
    if (k < 4) {
        short_rows(n, k, w, w_row, x, dz, dw, dx);
    } else if (dw && dx && k <= 4 * FG_W) {
        strips(1, 1, n, k, w, w_row, x, dz, dw, dx);
    } else { /* of long rows, two matrices at a time would compete for the cache */
        if (dw)
            strips(1, 0, n, k, w, w_row, x, dz, dw, dx);
        if (dx)
            strips(0, 1, n, k, w, w_row, x, dz, dw, dx);
    }
}

/* ---- gemm ----
 *
 * As in BLIS (Van Zee and van de Geijn, 2015): a tile of C stays in registers while it sums over a
 * block of k; the panel of B that it reads, packed, stays in the first-level cache for all tiles of a
 * column, and the block of A in the second. */

enum {
    /* accumulators: those, a row of B and a number of A fill the registers */
    TILE_ROWS = FG_REGISTERS == 32 ? 8 : 6,
    TILE_VECS = FG_REGISTERS == 32 ? 3 : 2,
    K_BLOCK = 256,
    N_BLOCK = 240, /* packed B of one block: half a megabyte */
    M_BLOCK = 96,
    ALIGN = 8,          /* doubles, a cache line */
    TINY = 64,          /* multiplications, which plain loops do sooner */
    FEW = 1 << 14,      /* numbers, that can be read once for each of a few rows or columns */
    DIRECT_SPAN = 8192, /* numbers, over which B may be spread and yet not be packed */
    MANY = 256          /* rows, for which it is always worth packing */
};

/* C += A B for one tile of `rows` rows and `vecs` vectors; b has its vectors side by side. The last
 * vector of C has only `part` numbers if that is not 0. */
FG_INLINE void tile(int rows, int vecs, size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col,
                    const double *b, ptrdiff_t b_row, double *c, ptrdiff_t c_row, size_t part)
{
    vd acc[TILE_ROWS][TILE_VECS];
    FG_UNROLL(8)
    for (int r = 0; r < rows; r++) {
        FG_UNROLL(4)
        for (int v = 0; v < vecs; v++)
            acc[r][v] = v_set1(0.0);
    }
    for (; k > 0; k--) {
        vd bs[TILE_VECS];
        FG_UNROLL(4)
        for (int v = 0; v < vecs; v++)
            bs[v] = v_load(b + v * FG_W);
        FG_UNROLL(8)
        for (int r = 0; r < rows; r++) {
            const vd as = v_set1(a[r * a_row]);
            FG_UNROLL(4)
            for (int v = 0; v < vecs; v++)
                acc[r][v] = v_fma(as, bs[v], acc[r][v]);
        }
        a += a_col;
        b += b_row;
    }
    FG_UNROLL(8)
    for (int r = 0; r < rows; r++) {
        FG_UNROLL(4)
        for (int v = 0; v < vecs; v++) {
            double *const to = c + r * c_row + v * FG_W;
            if (part && v == vecs - 1)
                v_store_part(to, part, v_add(v_load_part(to, part), acc[r][v]));
            else
                v_store(to, v_add(v_load(to), acc[r][v]));
        }
    }
}

typedef void (*tile_function)(size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col, const double *b,
                              ptrdiff_t b_row, double *c, ptrdiff_t c_row, size_t part);

#define TILE(rows, vecs)                                                                             \
    static void tile_##rows##_##vecs(size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col,    \
                                     const double *b, ptrdiff_t b_row, double *c, ptrdiff_t c_row,   \
                                     size_t part)                                                    \
    {                                                                                                \
        tile(rows, vecs, k, a, a_row, a_col, b, b_row, c, c_row, part);                              \
    }
#if FG_REGISTERS == 32
#define TILES(rows) TILE(rows, 1) TILE(rows, 2) TILE(rows, 3)
#define TILES_OF(rows) {tile_##rows##_1, tile_##rows##_2, tile_##rows##_3}
TILES(7)
TILES(8)
#else
#define TILES(rows) TILE(rows, 1) TILE(rows, 2)
#define TILES_OF(rows) {tile_##rows##_1, tile_##rows##_2}
#endif
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)

static const tile_function tiles[TILE_ROWS][TILE_VECS] = {
    TILES_OF(1), TILES_OF(2), TILES_OF(3), TILES_OF(4), TILES_OF(5), TILES_OF(6),
#if FG_REGISTERS == 32
    TILES_OF(7), TILES_OF(8),
#endif
};

/* How many of `left` to take at once, `most` at most: not leaving a sliver for the last. */
static size_t share(size_t left, size_t most)
{
    return left <= most ? left : left < 2 * most ? (left + 1) / 2 : most;
}

static size_t vectors(size_t n)
{
    return (n + FG_W - 1) / FG_W;
}

/* k rows of `width` numbers of B into rows of whole vectors, with zeros at the end. */
static void pack_panel(size_t k, size_t width, const double *b, ptrdiff_t b_row, ptrdiff_t b_col, double *to)
{
    const size_t row = vectors(width) * FG_W;
    for (size_t at = 0; at < width; at += FG_W) {
        const double *const from = b + (ptrdiff_t)at * b_col;
        const size_t count = smaller(width - at, FG_W);
        double *out = to + at;
        size_t p = 0;
        if (b_col == 1) {
            if (count == FG_W)
                for (; p < k; p++, out += row)
                    v_store(out, v_load(from + (ptrdiff_t)p * b_row));
            else
                for (; p < k; p++, out += row)
                    v_store(out, v_load_part(from + (ptrdiff_t)p * b_row, count));
            continue;
        }
        if (b_row == 1) {
            for (; k - p >= FG_W; p += FG_W) {
                vd block[FG_W];
                FG_UNROLL(8)
                for (size_t c = 0; c < FG_W; c++)
                    block[c] = c < count ? v_load(from + (ptrdiff_t)c * b_col + p) : v_set1(0.0);
                v_transpose(block);
                FG_UNROLL(8)
                for (size_t c = 0; c < FG_W; c++, out += row)
                    v_store(out, block[c]);
            }
        }
        for (; p < k; p++, out += row)
            for (size_t c = 0; c < FG_W; c++)
                out[c] = c < count ? from[(ptrdiff_t)p * b_row + (ptrdiff_t)c * b_col] : 0.0;
    }
}

/* `rows` rows of A, column after column. */
static void pack_rows(size_t rows, size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col, double *to)
{
    for (size_t p = 0; p < k; p++)
        for (size_t r = 0; r < rows; r++)
            *to++ = a[(ptrdiff_t)r * a_row + (ptrdiff_t)p * a_col];
}

static size_t gemm_work(size_t m, size_t n, size_t k)
{
    const size_t depth = smaller(k, K_BLOCK);
    const size_t packed_a = smaller(m, M_BLOCK) * depth;
    const size_t packed_b = vectors(smaller(n, N_BLOCK)) * FG_W * depth;
    return packed_a + packed_b + ALIGN + m + n + k; /* of the last three, gemm_column's */
}

/* y += A x for one vector x side by side; y has any stride, spare has room for m. */
static void gemm_column(size_t m, size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col,
                        const double *x, double *y, ptrdiff_t y_step, double *spare)
{
    if (a_col == 1) {
        if (y_step == 1) {
            gemv(m, k, a, a_row, x, y, 1, y);
            return;
        }
        gemv(m, k, a, a_row, x, NULL, 0, spare);
    } else if (a_row == 1) {
        if (y_step == 1) {
            gemv_grad(k, m, a, a_col, NULL, x, NULL, y);
            return;
        }
        for (size_t i = 0; i < m; i++)
            spare[i] = 0.0;
        gemv_grad(k, m, a, a_col, NULL, x, NULL, spare);
    } else {
        for (size_t i = 0; i < m; i++) {
            double total = 0.0;
            for (size_t p = 0; p < k; p++)
                total += a[(ptrdiff_t)i * a_row + (ptrdiff_t)p * a_col] * x[p];
            spare[i] = total;
        }
    }
    for (size_t i = 0; i < m; i++)
        y[(ptrdiff_t)i * y_step] += spare[i];
}

static const double *side_by_side(size_t n, const double *x, ptrdiff_t step, double *spare)
{
    if (step == 1)
        return x;
    for (size_t i = 0; i < n; i++)
        spare[i] = x[(ptrdiff_t)i * step];
    return spare;
}

static void gemm_tiny(size_t m, size_t n, size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col,
                      const double *b, ptrdiff_t b_row, ptrdiff_t b_col, double *c, ptrdiff_t c_row)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            const double *pa = a + (ptrdiff_t)i * a_row, *pb = b + (ptrdiff_t)j * b_col;
            double total = 0.0;
            for (size_t p = 0; p < k; p++, pa += a_col, pb += b_row)
                total += *pa * *pb;
            c[(ptrdiff_t)i * c_row + (ptrdiff_t)j] += total;
        }
}

/* C += A B for n <= N_BLOCK and k <= K_BLOCK. What can be read in place is not packed: rows of A, and
 * panels of B without a partial vector, unless they are read often and far apart, or so that the lines
 * of a panel push each other out of the cache. */
static void gemm_block(size_t m, size_t n, size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col,
                       const double *b, ptrdiff_t b_row, ptrdiff_t b_col, double *c, ptrdiff_t c_row,
                       double *packed_b)
{
    double *const packed_a = packed_b + vectors(n) * FG_W * k;
    const size_t spread = k * (size_t)(b_row < 0 ? -b_row : b_row);
    const int pack_a = a_col != 1 && n > 2 * TILE_VECS * FG_W;
    const int keep_b = b_col == 1 && (m <= 3 * TILE_ROWS || spread <= DIRECT_SPAN || (m < MANY && b_row % 64 != 0));

    for (size_t i0 = 0; i0 < m; i0 += M_BLOCK) {
        const size_t i_end = smaller(i0 + M_BLOCK, m);
        double *panel = packed_b;
        for (size_t j = 0, width; j < n; j += width) {
            const size_t vecs = share(vectors(n - j), TILE_VECS);
            width = smaller(vecs * FG_W, n - j);
            const size_t part = width % FG_W;
            const double *tile_b = b + (ptrdiff_t)j * b_col;
            ptrdiff_t tile_b_row = b_row;
            if (!keep_b || part) {
                if (i0 == 0)
                    pack_panel(k, width, tile_b, b_row, b_col, panel);
                tile_b = panel;
                tile_b_row = (ptrdiff_t)(vecs * FG_W);
            }
            panel += vecs * FG_W * k;

            double *block = packed_a;
            for (size_t i = i0, rows; i < i_end; i += rows) {
                rows = share(i_end - i, TILE_ROWS);
                const double *const tile_a = a + (ptrdiff_t)i * a_row;
                double *const tile_c = c + (ptrdiff_t)i * c_row + (ptrdiff_t)j;
                const tile_function function = tiles[rows - 1][vecs - 1];
                if (!pack_a) {
                    function(k, tile_a, a_row, a_col, tile_b, tile_b_row, tile_c, c_row, part);
                    continue;
                }
                if (j == 0)
                    pack_rows(rows, k, tile_a, a_row, a_col, block);
                function(k, block, 1, (ptrdiff_t)rows, tile_b, tile_b_row, tile_c, c_row, part);
                block += rows * k;
            }
        }
    }
}

static void gemm(size_t m, size_t n, size_t k, const double *a, ptrdiff_t a_row, ptrdiff_t a_col,
                 const double *b, ptrdiff_t b_row, ptrdiff_t b_col, double *c, ptrdiff_t c_row, double *work)
{
    if (m == 0 || n == 0 || k == 0)
        return;
    if (n == 1) {
        gemm_column(m, k, a, a_row, a_col, side_by_side(k, b, b_row, work), c, c_row, work + k);
        return;
    }
    if (m == 1) { /* transposed, that is the same */
        gemm_column(n, k, b, b_col, b_row, side_by_side(k, a, a_col, work), c, 1, work + k);
        return;
    }
    if (m * n * k <= TINY) {
        gemm_tiny(m, n, k, a, a_row, a_col, b, b_row, b_col, c, c_row);
        return;
    }
    if (n <= FG_W / 2 && m * k <= FEW && (a_row == 1 || a_col == 1)) { /* most of a tile would be empty */
        for (size_t j = 0; j < n; j++)
            gemm_column(m, k, a, a_row, a_col, side_by_side(k, b + (ptrdiff_t)j * b_col, b_row, work), c + j,
                        c_row, work + k);
        return;
    }
    if (m <= FG_W / 2 && n * k <= FEW && b_row == 1) { /* packing B would take longer */
        for (size_t i = 0; i < m; i++)
            gemm_column(n, k, b, b_col, b_row, side_by_side(k, a + (ptrdiff_t)i * a_row, a_col, work),
                        c + (ptrdiff_t)i * c_row, 1, work + k);
        return;
    }
    double *const packed_b = work + (ALIGN - (uintptr_t)work / sizeof *work % ALIGN) % ALIGN;
    for (size_t j = 0; j < n; j += N_BLOCK)
        for (size_t p = 0; p < k; p += K_BLOCK)
            gemm_block(m, smaller(n - j, N_BLOCK), smaller(k - p, K_BLOCK), a + (ptrdiff_t)p * a_col, a_row,
                       a_col, b + (ptrdiff_t)p * b_row + (ptrdiff_t)j * b_col, b_row, b_col, c + j, c_row,
                       packed_b);
}

/* ---- softmax and its kin ---- */

/* The sum of exp(x - shift), and those numbers themselves in z if it is not NULL. */
FG_INLINE double sum_exp(size_t n, const double *x, double shift, double *z)
{
    const vd by = v_set1(shift);
    vd total = v_set1(0.0);
    size_t i = 0;
    for (; n - i >= FG_W; i += FG_W) {
        const vd e = v_exp(v_sub(v_load(x + i), by));
        total = v_add(total, e);
        if (z)
            v_store(z + i, e);
    }
    if (i < n) {
        const vd e = v_part(v_exp(v_sub(v_load_part(x + i, n - i), by)), n - i);
        total = v_add(total, e);
        if (z)
            v_store_part(z + i, n - i, e);
    }
    return v_sum(total);
}

static double logsumexp(size_t n, const double *x)
{
    const double largest = max(n, x);
    if (!isfinite(largest)) /* inf - inf would be nan; nan stays */
        return largest;
    return largest + log(sum_exp(n, x, largest, NULL));
}

static void softmax(size_t n, const double *x, double *z)
{
    const double total = sum_exp(n, x, max(n, x), z);
    for (size_t i = 0; i < n; i++)
        z[i] /= total;
}

static void log_softmax(size_t n, const double *x, double *restrict z)
{
    const double largest = max(n, x), rest = log(sum_exp(n, x, largest, NULL));
    for (size_t i = 0; i < n; i++)
        z[i] = x[i] - largest - rest;
}

static void softmax_grad(size_t n, const double *z, const double *dz, double *restrict dx)
{
    const double mean = dot(n, z, dz);
    for (size_t i = 0; i < n; i++)
        dx[i] += z[i] * (dz[i] - mean);
}

static void exp_axpy(size_t n, double a, const double *x, double shift, double *dx)
{
    const vd scale = v_set1(a), by = v_set1(shift);
    size_t i = 0;
    for (; n - i >= FG_W; i += FG_W)
        v_store(dx + i, v_fma(scale, v_exp(v_sub(v_load(x + i), by)), v_load(dx + i)));
    if (i < n) {
        const vd e = v_exp(v_sub(v_load_part(x + i, n - i), by));
        v_store_part(dx + i, n - i, v_fma(scale, e, v_load_part(dx + i, n - i)));
    }
}

static void log_softmax_grad(size_t n, const double *z, const double *dz, double *restrict dx)
{
    const double total = sum(n, dz);
    for (size_t i = 0; i < n; i++)
        dx[i] += dz[i];
    exp_axpy(n, -total, z, 0.0, dx);
}

/* ---- optimizers, to the bit as PyTorch's formulas read ---- */

FG_INLINE void sgd_loop(int decay, int momentum, int nesterov, size_t n, double *restrict p,
                        const double *restrict g, double *restrict m, const fg_sgd *h)
{
    const double lr = h->lr, mu = h->momentum, keep = 1.0 - h->dampening, wd = h->weight_decay;
    const double sign = h->maximize ? -1.0 : 1.0;
    const int first = h->first;
    for (size_t i = 0; i < n; i++) {
        double d = decay ? sign * g[i] + wd * p[i] : sign * g[i];
        if (momentum) {
            const double v = first ? d : mu * m[i] + keep * d;
            m[i] = v;
            d = nesterov ? d + mu * v : v;
        }
        p[i] -= lr * d;
    }
}

static void sgd(size_t n, double *p, const double *g, double *m, const fg_sgd *h)
{
    const int decay = h->weight_decay != 0.0;
    if (!m && !decay)
        sgd_loop(0, 0, 0, n, p, g, m, h);
    else if (!m)
        sgd_loop(1, 0, 0, n, p, g, m, h);
    else if (h->nesterov)
        sgd_loop(decay, 1, 1, n, p, g, m, h);
    else
        sgd_loop(decay, 1, 0, n, p, g, m, h);
}

/* x + (to - x) * weight, from the nearer end as PyTorch does: with a weight of 1 it is `to` to the bit, and
 * infinities give the same. `low` is weight < 0.5. */
FG_INLINE double lerp(int low, double x, double to, double weight)
{
    return low ? x + (to - x) * weight : to - (to - x) * (1.0 - weight);
}

FG_INLINE void adam_loop(int decay, int decoupled, int amsgrad, int low, size_t n, double *restrict p,
                         const double *restrict g, double *restrict m, double *restrict v,
                         double *restrict v_max, const fg_adam *h)
{
    const double keep1 = 1.0 - h->beta1, beta2 = h->beta2, keep2 = 1.0 - h->beta2, eps = h->eps;
    const double step = h->lr / h->correction1, root = sqrt(h->correction2), wd = h->weight_decay;
    const double sign = h->maximize ? -1.0 : 1.0, shrink = 1.0 - h->lr * wd;
    for (size_t i = 0; i < n; i++) {
        const double x = decoupled ? shrink * p[i] : p[i];
        const double d = decay ? sign * g[i] + wd * x : sign * g[i];
        const double mi = lerp(low, m[i], d, keep1);
        double vi = v[i] * beta2 + keep2 * d * d;
        m[i] = mi;
        v[i] = vi;
        if (amsgrad) {
            vi = v_max[i] >= vi ? v_max[i] : vi;
            v_max[i] = vi;
        }
        p[i] = x - step * mi / (sqrt(vi) / root + eps);
    }
}

static void adam(size_t n, double *p, const double *g, double *m, double *v, double *v_max, const fg_adam *h)
{
    const int any = h->weight_decay != 0.0, decoupled = any && h->decoupled, decay = any && !h->decoupled;
    const int low = 1.0 - h->beta1 < 0.5;
    if (v_max)
        adam_loop(decay, decoupled, 1, low, n, p, g, m, v, v_max, h);
    else if (!low)
        adam_loop(decay, decoupled, 0, 0, n, p, g, m, v, v_max, h);
    else if (decoupled)
        adam_loop(0, 1, 0, 1, n, p, g, m, v, v_max, h);
    else if (decay)
        adam_loop(1, 0, 0, 1, n, p, g, m, v, v_max, h);
    else
        adam_loop(0, 0, 0, 1, n, p, g, m, v, v_max, h);
}

FG_INLINE void rmsprop_loop(int centered, int momentum, size_t n, double *restrict p, const double *restrict g,
                            double *restrict v, double *restrict mean, double *restrict m,
                            const fg_rmsprop *h)
{
    const double lr = h->lr, alpha = h->alpha, keep = 1.0 - h->alpha, eps = h->eps, mu = h->momentum;
    const double sign = h->maximize ? -1.0 : 1.0, wd = h->weight_decay;
    const int decay = wd != 0.0, low = keep < 0.5;
    for (size_t i = 0; i < n; i++) {
        const double d = decay ? sign * g[i] + wd * p[i] : sign * g[i];
        double square = v[i] * alpha + keep * d * d;
        v[i] = square;
        if (centered) {
            const double a = lerp(low, mean[i], d, keep);
            mean[i] = a;
            /* A variance: not below 0, but for rounding; and if it is out of range, a * a makes it no less. */
            square = isinf(square) && isfinite(a) ? square : square - a * a;
            square = square < 0.0 ? 0.0 : square;
        }
        const double size = sqrt(square) + eps;
        if (momentum) {
            m[i] = m[i] * mu + d / size;
            p[i] -= lr * m[i];
        } else {
            p[i] -= lr * d / size;
        }
    }
}

static void rmsprop(size_t n, double *p, const double *g, double *v, double *mean, double *m,
                    const fg_rmsprop *h)
{
    if (mean && m)
        rmsprop_loop(1, 1, n, p, g, v, mean, m, h);
    else if (mean)
        rmsprop_loop(1, 0, n, p, g, v, mean, m, h);
    else if (m)
        rmsprop_loop(0, 1, n, p, g, v, mean, m, h);
    else
        rmsprop_loop(0, 0, n, p, g, v, mean, m, h);
}

static void adagrad(size_t n, double *restrict p, const double *restrict g, double *restrict total,
                    const fg_adagrad *h)
{
    const double lr = h->lr, eps = h->eps, wd = h->weight_decay, sign = h->maximize ? -1.0 : 1.0;
    const int decay = wd != 0.0;
    for (size_t i = 0; i < n; i++) {
        const double d = decay ? sign * g[i] + wd * p[i] : sign * g[i];
        const double square = total[i] + d * d;
        total[i] = square;
        p[i] -= lr * d / (sqrt(square) + eps);
    }
}

static void adadelta(size_t n, double *restrict p, const double *restrict g, double *restrict v,
                     double *restrict u, const fg_adadelta *h)
{
    const double lr = h->lr, rho = h->rho, keep = 1.0 - h->rho, eps = h->eps, wd = h->weight_decay;
    const double sign = h->maximize ? -1.0 : 1.0;
    const int decay = wd != 0.0;
    for (size_t i = 0; i < n; i++) {
        const double d = decay ? sign * g[i] + wd * p[i] : sign * g[i];
        const double square = v[i] * rho + keep * d * d;
        const double delta = sqrt(u[i] + eps) / sqrt(square + eps) * d;
        v[i] = square;
        u[i] = u[i] * rho + keep * delta * delta;
        p[i] -= lr * delta;
    }
}

/* ---- norms of gradients, and what clips them ---- */

static double power_sum(size_t n, const double *x, double power, double divisor)
{
    double total = 0.0;
    if (power == 2.0 && divisor == 1.0)
        return dot(n, x, x);
    for (size_t i = 0; i < n; i++) {
        const double size = fabs(x[i] / divisor);
        if (isinf(power))
            total = size > total || isnan(size) ? size : total; /* nothing is larger than nan */
        else if (power == 2.0)
            total += size * size;
        else
            total += power == 1.0 ? size : pow(size, power);
    }
    return total;
}

static void scale(size_t n, double a, double *x)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= a;
}

static void clip(size_t n, double bound, double *x)
{
    for (size_t i = 0; i < n; i++) {
        const double most = x[i] > bound ? bound : x[i];
        x[i] = most < -bound ? -bound : most;
    }
}

const fg_kernels FG_KERNELS = {
    .isa = FG_ISA,
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
    .logsumexp = logsumexp,
    .softmax = softmax,
    .log_softmax = log_softmax,
    .softmax_grad = softmax_grad,
    .log_softmax_grad = log_softmax_grad,
    .exp_axpy = exp_axpy,
    .sgd = sgd,
    .adam = adam,
    .rmsprop = rmsprop,
    .adagrad = adagrad,
    .adadelta = adadelta,
    .power_sum = power_sum,
    .scale = scale,
    .clip = clip,
};
