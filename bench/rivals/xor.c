/* xor.c: training of a 2-4-1 network of tanh on exclusive or: mean squared error, SGD.
 *
 * A lane is one of the four samples, and a unit is a vector, on all processors. An epoch is one chain of operations,
 * two tanh and two sums over lanes long: its time is their latency. So nothing else may stand in the chain, and the
 * sums leave their result in all lanes. */
#define LANES 4
#include "lanes.h"

enum { UNITS = 4 };

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLED(x, a, b, c, d) __builtin_shufflevector(x, x, a, b, c, d)
#else
#define SHUFFLED(x, a, b, c, d) __builtin_shuffle(x, (vi){a, b, c, d})
#endif

/* The sum of the lanes in each lane. */
INLINE vd sum_everywhere(vd x)
{
    const vd pairs = x + SHUFFLED(x, 1, 0, 3, 2);
    return pairs + SHUFFLED(pairs, 2, 3, 0, 1);
}

/* Trains `parameters` (17: w1 of 4 x 2, b1, w2, b2) for as many epochs as there are rates, and gives the loss of each
 * epoch before its update. x has 4 rows of two, y 4 targets. */
void xor_train(double *parameters, const double *x, const double *y, const double *rates, ptrdiff_t epochs,
               double *losses)
{
    const vd x0 = {x[0], x[2], x[4], x[6]}, x1 = {x[1], x[3], x[5], x[7]}, target = load(y);
    vd w0[UNITS], w1[UNITS], b1[UNITS], w2[UNITS], b2 = all(parameters[16]);
    for (int u = 0; u < UNITS; u++) {
        w0[u] = all(parameters[2 * u]);
        w1[u] = all(parameters[2 * u + 1]);
        b1[u] = all(parameters[8 + u]);
        w2[u] = all(parameters[12 + u]);
    }
    for (ptrdiff_t epoch = 0; epoch < epochs; epoch++) {
        const vd rate = all(-rates[epoch]);
        vd h[UNITS];
        UNROLL
        for (int u = 0; u < UNITS; u++)
            h[u] = tanh_of(w0[u] * x0 + (w1[u] * x1 + b1[u]));
        const vd out = tanh_of((w2[0] * h[0] + w2[1] * h[1]) + (w2[2] * h[2] + (w2[3] * h[3] + b2)));
        const vd error = out - target, dz = 0.5 * error * (1.0 - out * out);
        losses[epoch] = 0.25 * sum_everywhere(error * error)[0];
        UNROLL
        for (int u = 0; u < UNITS; u++) {
            const vd dh = dz * w2[u] * (1.0 - h[u] * h[u]);
            w2[u] += rate * sum_everywhere(dz * h[u]);
            w0[u] += rate * sum_everywhere(dh * x0);
            w1[u] += rate * sum_everywhere(dh * x1);
            b1[u] += rate * sum_everywhere(dh);
        }
        b2 += rate * sum_everywhere(dz);
    }
    for (int u = 0; u < UNITS; u++) {
        parameters[2 * u] = w0[u][0];
        parameters[2 * u + 1] = w1[u][0];
        parameters[8 + u] = b1[u][0];
        parameters[12 + u] = w2[u][0];
    }
    parameters[16] = b2[0];
}
