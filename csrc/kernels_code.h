/* kernels_code.h: a list of short operations on lanes, run in one go. */
#ifndef FG_KERNELS_CODE_H
#define FG_KERNELS_CODE_H

#include "kernels.h"
#include "kernels_elementary.h"
#include "kernels_elementwise.h"

/* z is `result` at each j, and that is all. */
#define FG_EACH(result)                                       \
    for (size_t i = 0; i < lanes; i += side * FG_W) {         \
        vd found[4];                                          \
        FG_UNROLL(4)                                          \
        for (size_t n = 0, j = i; n < side; n++, j += FG_W)   \
            found[n] = ((void)j, result);                     \
        FG_UNROLL(4)                                          \
        for (size_t n = 0, j = i; n < side; n++, j += FG_W)   \
            v_store(z + j, found[n]);                         \
    }                                                         \
    break

/* One of the two functions and its derivative. Returns whether a lane is infinite. */
FG_INLINE int sin_or_cos(int cosine, size_t lanes, const double *x, double *z, double *slope)
{
    vm outside = v_lt(v_set1(0.0), v_set1(0.0)), infinite = outside;
    for (size_t i = 0; i < lanes; i += FG_W) {
        const vd xi = v_load(x + i);
        vd s, c;
        v_sin_cos(xi, &s, &c);
        v_store(z + i, cosine ? c : s);
        v_store(slope + i, cosine ? v_neg(s) : c);
        outside = vm_or(outside, v_outside(xi, TRIG_RANGE));
        infinite = vm_or(infinite, v_eq(v_abs(xi), v_set1(INFINITY)));
    }
    for (size_t i = 0; vm_any(outside) && i < lanes; i++)
        if (fabs(x[i]) > TRIG_RANGE) {
            const double s = sin(x[i]), c = cos(x[i]);
            z[i] = cosine ? c : s;
            slope[i] = cosine ? -s : c;
        }
    return vm_any(infinite);
}

FG_INLINE vd more(int add, int negative, const double *z, vd product)
{
    return !add ? (negative ? v_neg(product) : product) : negative ? v_sub(v_load(z), product) : v_add(v_load(z), product);
}

/* first and second grow by x times w and x times y, or are these. */
FG_INLINE void pair(size_t lanes, size_t side, int add_first, int add_second, int negative, double *first,
                    double *second, const double *x, const double *y, const double *w)
{
    for (size_t i = 0; i < lanes; i += side * FG_W) {
        vd a[4], b[4];
        FG_UNROLL(4)
        for (size_t n = 0, j = i; n < side; n++, j += FG_W) {
            const vd xj = v_load(x + j);
            a[n] = more(add_first, negative, first + j, v_mul(xj, v_load(w + j)));
            b[n] = more(add_second, negative, second + j, v_mul(xj, v_load(y + j)));
        }
        FG_UNROLL(4)
        for (size_t n = 0, j = i; n < side; n++, j += FG_W) {
            v_store(first + j, a[n]);
            v_store(second + j, b[n]);
        }
    }
}

#define FG_AT(operand) ((double *)(void *)((char *)base[c->base[operand]] + c->at[operand]))

/* So many lanes that `side` vectors go side by side. */
FG_INLINE size_t run_list(const fg_lane_code *code, size_t count, double *const *base, size_t lanes, size_t side,
                          int lenient)
{
    static const size_t all[3] = {1, 1, 1};
    for (const fg_lane_code *c = code; c < code + count; c++) {
        switch (c->kind) {
        case FG_LANE_CLEAR: {
            double *const z = FG_AT(0);
            FG_EACH(v_set1(0.0));
        }
        case FG_LANE_COPY: {
            double *const z = FG_AT(0);
            const double *const x = FG_AT(1);
            FG_EACH(v_load(x + j));
        }
        case FG_LANE_NEG: {
            double *const z = FG_AT(0);
            const double *const x = FG_AT(1);
            FG_EACH(v_neg(v_load(x + j)));
        }
        case FG_LANE_ADD: {
            double *const z = FG_AT(0);
            const double *const x = FG_AT(1), *const y = FG_AT(2);
            FG_EACH(v_add(v_load(x + j), v_load(y + j)));
        }
        case FG_LANE_SUB: {
            double *const z = FG_AT(0);
            const double *const x = FG_AT(1), *const y = FG_AT(2);
            FG_EACH(v_sub(v_load(x + j), v_load(y + j)));
        }
        case FG_LANE_MUL: {
            double *const z = FG_AT(0);
            const double *const x = FG_AT(1), *const y = FG_AT(2);
            FG_EACH(v_mul(v_load(x + j), v_load(y + j)));
        }
        case FG_LANE_NEG_MUL: {
            double *const z = FG_AT(0);
            const double *const x = FG_AT(1), *const y = FG_AT(2);
            FG_EACH(v_neg(v_mul(v_load(x + j), v_load(y + j))));
        }
        case FG_LANE_ADD_MUL: {
            double *const z = FG_AT(0);
            const double *const x = FG_AT(1), *const y = FG_AT(2), *const w = FG_AT(3);
            FG_EACH(v_add(v_load(x + j), v_mul(v_load(y + j), v_load(w + j))));
        }
        case FG_LANE_SUB_MUL: {
            double *const z = FG_AT(0);
            const double *const x = FG_AT(1), *const y = FG_AT(2), *const w = FG_AT(3);
            FG_EACH(v_sub(v_load(x + j), v_mul(v_load(y + j), v_load(w + j))));
        }
        case FG_LANE_MUL_SUB: {
            double *const z = FG_AT(0);
            const double *const x = FG_AT(1), *const y = FG_AT(2), *const w = FG_AT(3);
            FG_EACH(v_sub(v_mul(v_load(y + j), v_load(w + j)), v_load(x + j)));
        }
        case FG_LANE_MUL_ONE: {
            double *const z = FG_AT(0);
            const double *const x = FG_AT(1);
            const vd y = v_set1(*FG_AT(2));
            FG_EACH(v_mul(v_load(x + j), y));
        }
        case FG_LANE_ADD_MUL_ONE: {
            double *const z = FG_AT(0);
            const double *const x = FG_AT(1), *const w = FG_AT(3);
            const vd y = v_set1(*FG_AT(2));
            FG_EACH(v_add(v_load(x + j), v_mul(v_load(w + j), y)));
        }
        case FG_LANE_SUB_MUL_ONE: {
            double *const z = FG_AT(0);
            const double *const x = FG_AT(1), *const w = FG_AT(3);
            const vd y = v_set1(*FG_AT(2));
            FG_EACH(v_sub(v_load(x + j), v_mul(v_load(w + j), y)));
        }
        case FG_LANE_PAIR:
            switch (c->k) {
            case 0:
                pair(lanes, side, 0, 0, 0, FG_AT(0), FG_AT(4), FG_AT(1), FG_AT(2), FG_AT(3));
                break;
            case 1:
                pair(lanes, side, 1, 0, 0, FG_AT(0), FG_AT(4), FG_AT(1), FG_AT(2), FG_AT(3));
                break;
            case 2:
                pair(lanes, side, 0, 1, 0, FG_AT(0), FG_AT(4), FG_AT(1), FG_AT(2), FG_AT(3));
                break;
            case 3:
                pair(lanes, side, 1, 1, 0, FG_AT(0), FG_AT(4), FG_AT(1), FG_AT(2), FG_AT(3));
                break;
            case 4:
                pair(lanes, side, 0, 0, 1, FG_AT(0), FG_AT(4), FG_AT(1), FG_AT(2), FG_AT(3));
                break;
            case 5:
                pair(lanes, side, 1, 0, 1, FG_AT(0), FG_AT(4), FG_AT(1), FG_AT(2), FG_AT(3));
                break;
            case 6:
                pair(lanes, side, 0, 1, 1, FG_AT(0), FG_AT(4), FG_AT(1), FG_AT(2), FG_AT(3));
                break;
            default:
                pair(lanes, side, 1, 1, 1, FG_AT(0), FG_AT(4), FG_AT(1), FG_AT(2), FG_AT(3));
            }
            break;
        case FG_LANE_SIN:
            if (sin_or_cos(0, lanes, FG_AT(1), FG_AT(0), FG_AT(2)) && !lenient)
                return (size_t)(c - code);
            break;
        case FG_LANE_COS:
            if (sin_or_cos(1, lanes, FG_AT(1), FG_AT(0), FG_AT(2)) && !lenient)
                return (size_t)(c - code);
            break;
        case FG_LANE_ROW: {
            const double *const xs[3] = {FG_AT(1), FG_AT(2), FG_AT(3)};
            if (map(c->row, lanes, xs, all, c->k, FG_AT(0)) < lanes && !lenient)
                return (size_t)(c - code);
            break;
        }
        default: { /* FG_LANE_RULE */
            const double *const xs[3] = {FG_AT(1), FG_AT(2), FG_AT(3)};
            map_grad(c->row, c->which, lanes, xs, all, c->k, FG_AT(4), FG_AT(5), FG_AT(0));
        }
        }
    }
    return count;
}

static size_t run_code(const fg_lane_code *code, size_t count, double *base[FG_LANE_BASES],
                       const ptrdiff_t advance[FG_LANE_BASES], size_t steps, size_t lanes, int lenient)
{
    for (size_t step = 0; step < steps; step++) {
        const size_t done = lanes % (4 * FG_W) == 0 ? run_list(code, count, base, lanes, 4, lenient)
                                                    : run_list(code, count, base, lanes, 1, lenient);
        if (done < count)
            return step;
        for (size_t k = 0; k < FG_LANE_BASES; k++)
            base[k] += advance[k];
        double *const swapped = base[FG_LANE_SWAPPED];
        base[FG_LANE_SWAPPED] = base[FG_LANE_SWAPPED + 1];
        base[FG_LANE_SWAPPED + 1] = swapped;
    }
    return steps;
}

#undef FG_AT
#undef FG_EACH

#endif
