/* draws.c: see draws.h. */
#include "draws.h"

#include <math.h>

/* ---- the normal distribution ---- */

/* A polynomial of degree 7 in r, from the highest coefficient to the lowest. */
static double polynomial(const double *coefficients, double r)
{
    double x = coefficients[0];
    for (int k = 1; k < 8; k++)
        x = x * r + coefficients[k];
    return x;
}

/* M. J. Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37 (1988).
 * Its three ranges, each with a numerator and a denominator; relative errors are about 1e-16. */
static const double CENTRE[2][8] = {
    {2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
     1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0},
    {5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
     5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0}};
static const double NEAR[2][8] = {
    {7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
     3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0},
    {1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0}};
static const double FAR[2][8] = {
    {2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
     2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0},
    {2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0}};

/* The number below which a standard normal one is with the probability p. Precondition: 0 < p < 1. */
static double quantile(double p)
{
    const double q = p - 0.5;
    if (fabs(q) <= 0.425) {
        const double r = 0.180625 - q * q;
        return polynomial(CENTRE[0], r) * q / polynomial(CENTRE[1], r);
    }
    const double r = sqrt(-log(q < 0.0 ? p : 1.0 - p));
    const double x = r <= 5.0 ? polynomial(NEAR[0], r - 1.6) / polynomial(NEAR[1], r - 1.6)
                              : polynomial(FAR[0], r - 5.0) / polynomial(FAR[1], r - 5.0);
    return q < 0.0 ? -x : x;
}

/* ---- drawing ---- */

static void take_one(const fg_draw *d, double *to)
{
    switch (d->kind) {
    case FG_DRAW_UNIFORM:
        for (size_t k = 0; k < d->count; k++)
            to[k] = d->a + d->b * d->uniform(d->state);
        break;
    case FG_DRAW_NORMAL: /* from the middles of 2^52 equal parts of (0, 1) */
        for (size_t k = 0; k < d->count; k++)
            to[k] = d->a + d->b * quantile(((double)(d->bits(d->state) >> 12) + 0.5) * 0x1p-52);
        break;
    default:
        for (size_t k = 0; k < d->count; k++)
            to[k] = d->uniform(d->state) < d->a ? d->b : d->c;
    }
}

/* The draws for the row'th time. */
static void take_row(const fg_draw *draws, size_t n, size_t row, double *to)
{
    for (size_t k = 0; k < n; k++) {
        const fg_draw *const d = &draws[k];
        if (d->kind != FG_DRAW_TIMES) {
            take_one(d, to + d->at + row * d->count);
            continue;
        }
        for (size_t i = 0; i < d->times; i++)
            take_row(d + 1, d->members, row * d->times + (d->backwards ? d->times - 1 - i : i), to);
        k += d->members;
    }
}

void fg_draws_take(const fg_draw *draws, size_t n, double *to)
{
    take_row(draws, n, 0, to);
}
