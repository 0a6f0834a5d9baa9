/* kernels_optimizers.h: the update rules of optimizers, those of updates.def. */
#ifndef FG_KERNELS_OPTIMIZERS_H
#define FG_KERNELS_OPTIMIZERS_H

#include "kernels.h"
#include "simd.h"

#define FG_UPDATE(type, name, parameters, comment, ...) \
    FG_INLINE type name parameters                      \
    {                                                   \
        __VA_ARGS__                                     \
    }
#include "updates.def"

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
static void adagrad(size_t n, double *p, const double *g, double *const state[3], const fg_rule *h)
{
    adagrad_loop(n, p, g, state[0], h);
}

/* state: the averages of squares of gradients and of updates. */
static void adadelta(size_t n, double *p, const double *g, double *const state[3], const fg_rule *h)
{
    adadelta_loop(n, p, g, state[0], state[1], h);
}

#endif
