/* kernels_optimizers.h: the update rules of optimizers, with the order of operations in PyTorch's formulas. */
#ifndef FG_KERNELS_OPTIMIZERS_H
#define FG_KERNELS_OPTIMIZERS_H

#include "kernels.h"
#include "simd.h"

FG_INLINE void sgd_loop(int decay, int momentum, int nesterov, size_t n, double *restrict p,
                        const double *restrict g, double *restrict m, const fg_rule *h)
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

/* state: the momentum buffer, or NULL. */
static void sgd(size_t n, double *p, const double *g, double *const state[3], const fg_rule *h)
{
    double *m = state[0];
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

/* x + (to - x) * weight, computed from the nearer end, as in PyTorch: a weight of 1 gives exactly `to`, and
 * infinities give PyTorch's results. `low` is weight < 0.5. */
FG_INLINE double lerp(int low, double x, double to, double weight)
{
    return low ? x + (to - x) * weight : to - (to - x) * (1.0 - weight);
}

FG_INLINE void adam_loop(int decay, int decoupled, int amsgrad, int low, size_t n, double *restrict p,
                         const double *restrict g, double *restrict m, double *restrict v,
                         double *restrict v_max, const fg_rule *h)
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

/* state: the averages of gradients and of their squares; with amsgrad the largest of the latter, or NULL. */
static void adam(size_t n, double *p, const double *g, double *const state[3], const fg_rule *h)
{
    double *m = state[0], *v = state[1], *v_max = state[2];
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
                            const fg_rule *h)
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
            /* The variance is not below 0, except by rounding. If the square is inf, a * a does not reduce it. */
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

/* state: the average of squares; centered, that of gradients, or NULL; the momentum buffer, or NULL. */
static void rmsprop(size_t n, double *p, const double *g, double *const state[3], const fg_rule *h)
{
    double *v = state[0], *mean = state[1], *m = state[2];
    if (mean && m)
        rmsprop_loop(1, 1, n, p, g, v, mean, m, h);
    else if (mean)
        rmsprop_loop(1, 0, n, p, g, v, mean, m, h);
    else if (m)
        rmsprop_loop(0, 1, n, p, g, v, mean, m, h);
    else
        rmsprop_loop(0, 0, n, p, g, v, mean, m, h);
}

/* state: the sum of squares. */
static void adagrad(size_t n, double *restrict p, const double *restrict g, double *const state[3], const fg_rule *h)
{
    double *restrict total = state[0];
    const double lr = h->lr, eps = h->eps, wd = h->weight_decay, sign = h->maximize ? -1.0 : 1.0;
    const int decay = wd != 0.0;
    for (size_t i = 0; i < n; i++) {
        const double d = decay ? sign * g[i] + wd * p[i] : sign * g[i];
        const double square = total[i] + d * d;
        total[i] = square;
        p[i] -= lr * d / (sqrt(square) + eps);
    }
}

/* state: the averages of squares of gradients and of updates. */
static void adadelta(size_t n, double *restrict p, const double *restrict g, double *const state[3], const fg_rule *h)
{
    double *restrict v = state[0], *restrict u = state[1];
    const double lr = h->lr, rho = h->alpha, keep = 1.0 - h->alpha, eps = h->eps, wd = h->weight_decay;
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

#endif
