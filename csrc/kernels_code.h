/* kernels_code.h: a list of short operations on lanes, run in one go. */
#ifndef FG_KERNELS_CODE_H
#define FG_KERNELS_CODE_H

#include "kernels.h"
#include "kernels_elementary.h"
#include "kernels_elementwise.h"

#define FG_EACH(result)                           \
    for (size_t i = 0; i < lanes; i += FG_W)      \
        v_store(z + i, (result));                 \
    break

/* One of the two functions and its derivative, of which `turned` says the sign. Returns whether a lane is infinite. */
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

static size_t run_code(const fg_lane_code *code, size_t count, double *const base[FG_LANE_BASES], size_t lanes,
                       int lenient)
{
    static const size_t all[3] = {1, 1, 1};
    for (size_t k = 0; k < count; k++) {
        const fg_lane_code *const c = code + k;
        double *const z = base[c->base[0]] + c->at[0];
        const double *const x = base[c->base[1]] + c->at[1];
        const double *const y = base[c->base[2]] + c->at[2];
        const double *const w = base[c->base[3]] + c->at[3];
        switch (c->kind) {
        case FG_LANE_CLEAR:
            FG_EACH(v_set1(0.0));
        case FG_LANE_COPY:
            FG_EACH(v_load(x + i));
        case FG_LANE_NEG:
            FG_EACH(v_neg(v_load(x + i)));
        case FG_LANE_ADD:
            FG_EACH(v_add(v_load(x + i), v_load(y + i)));
        case FG_LANE_SUB:
            FG_EACH(v_sub(v_load(x + i), v_load(y + i)));
        case FG_LANE_MUL:
            FG_EACH(v_mul(v_load(x + i), v_load(y + i)));
        case FG_LANE_NEG_MUL:
            FG_EACH(v_neg(v_mul(v_load(x + i), v_load(y + i))));
        case FG_LANE_ADD_MUL:
            FG_EACH(v_add(v_load(x + i), v_mul(v_load(y + i), v_load(w + i))));
        case FG_LANE_SUB_MUL:
            FG_EACH(v_sub(v_load(x + i), v_mul(v_load(y + i), v_load(w + i))));
        case FG_LANE_MUL_SUB:
            FG_EACH(v_sub(v_mul(v_load(y + i), v_load(w + i)), v_load(x + i)));
        case FG_LANE_SIN:
        case FG_LANE_COS: {
            double *const slope = base[c->base[2]] + c->at[2];
            const int infinite = c->kind == FG_LANE_COS ? sin_or_cos(1, lanes, x, z, slope)
                                                        : sin_or_cos(0, lanes, x, z, slope);
            if (infinite && !lenient)
                return k;
            break;
        }
        case FG_LANE_ROW: {
            const double *const xs[3] = {x, y, w};
            if (map(c->row, lanes, xs, all, c->k, z) < lanes && !lenient)
                return k;
            break;
        }
        default: { /* FG_LANE_RULE */
            const double *const xs[3] = {x, y, w};
            map_grad(c->row, c->which, lanes, xs, all, c->k, base[c->base[4]] + c->at[4], base[c->base[5]] + c->at[5],
                     z);
        }
        }
    }
    return count;
}

#undef FG_EACH

#endif
