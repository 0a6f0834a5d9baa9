/* pendulum.c: a damped pendulum that is driven by a constant torque, x'' = -k sin(x) - c x' + t, by Euler's method and
 * by the classical method of Runge and Kutta, and the gradient of a loss of its end by k, c and t.
 *
 * A lane is a trajectory. Two vectors of them go side by side, because a single one would wait for its own results. The
 * forward pass keeps what the reverse pass needs: the speeds, and the sine and cosine of each angle. */
#include "lanes.h"

enum { MOST_STEPS = 1000, SIDE = 2, BLOCK = SIDE * LANES };

/* Of one step: of Euler's method, or of one of the four stages of the other. */
typedef struct {
    vd speed, sine, cosine;
} stage;

typedef struct {
    vd x[SIDE], v[SIDE], k[SIDE], c[SIDE], t[SIDE];      /* the state and the three constants */
    vd dx[SIDE], dv[SIDE], dk[SIDE], dc[SIDE], dt[SIDE]; /* the gradients by these */
} block;

INLINE vd acceleration(const block *p, int i, vd x, vd v, stage *s)
{
    sin_cos(x, &s->sine, &s->cosine);
    s->speed = v;
    return (p->t[i] - p->c[i] * v) - p->k[i] * s->sine;
}

/* Adds the gradients by the constants, for the gradient `da` by the acceleration. Returns the gradient by x; the
 * gradient by v is -c * da. */
INLINE vd acceleration_reverse(block *p, int i, vd da, const stage *s)
{
    p->dk[i] -= da * s->sine;
    p->dc[i] -= da * s->speed;
    p->dt[i] += da;
    return -(p->k[i] * da) * s->cosine;
}

INLINE void euler(block *p, int i, double h, stage *s)
{
    const vd v = p->v[i], a = acceleration(p, i, p->x[i], v, s);
    p->x[i] += h * v;
    p->v[i] += h * a;
}

INLINE void euler_reverse(block *p, int i, double h, const stage *s)
{
    const vd da = h * p->dv[i], by_x = acceleration_reverse(p, i, da, s);
    p->dv[i] += h * p->dx[i] - p->c[i] * da;
    p->dx[i] += by_x;
}

INLINE void runge_kutta(block *p, int i, double h, stage *s)
{
    const vd x = p->x[i], v1 = p->v[i], a1 = acceleration(p, i, x, v1, s);
    const vd v2 = v1 + 0.5 * h * a1, a2 = acceleration(p, i, x + 0.5 * h * v1, v2, s + 1);
    const vd v3 = v1 + 0.5 * h * a2, a3 = acceleration(p, i, x + 0.5 * h * v2, v3, s + 2);
    const vd v4 = v1 + h * a3, a4 = acceleration(p, i, x + h * v3, v4, s + 3);
    p->x[i] += h / 6.0 * ((v1 + v4) + 2.0 * (v2 + v3));
    p->v[i] += h / 6.0 * ((a1 + a4) + 2.0 * (a2 + a3));
}

INLINE void runge_kutta_reverse(block *p, int i, double h, const stage *s)
{
    const vd dx_end = h / 6.0 * p->dx[i], dv_end = h / 6.0 * p->dv[i];
    vd dx = p->dx[i], dv = p->dv[i];
    /* The stages backwards: first by the stage's acceleration, then by its speed. */
    vd da = dv_end, by_x = acceleration_reverse(p, i, da, s + 3), dspeed = dx_end - p->c[i] * da;
    dx += by_x;
    dv += dspeed;
    da = 2.0 * dv_end + h * dspeed;
    dspeed = (2.0 * dx_end + h * by_x) - p->c[i] * da;
    by_x = acceleration_reverse(p, i, da, s + 2);
    dx += by_x;
    dv += dspeed;
    da = 2.0 * dv_end + 0.5 * h * dspeed;
    dspeed = (2.0 * dx_end + 0.5 * h * by_x) - p->c[i] * da;
    by_x = acceleration_reverse(p, i, da, s + 1);
    dx += by_x;
    dv += dspeed;
    da = dv_end + 0.5 * h * dspeed;
    dspeed = (dx_end + 0.5 * h * by_x) - p->c[i] * da;
    by_x = acceleration_reverse(p, i, da, s);
    p->dx[i] = dx + by_x;
    p->dv[i] = dv + dspeed;
}

/* The loss of a trajectory is (x - 0.3)**2 + v**2 at its end. `numbers` has the rows x, v, k, c, t, each with `count`
 * trajectories, and `results` the rows loss, dk, dc, dt. Returns 1 and does nothing unless there are at least
 * 2 * LANES trajectories and at most 1,000 steps. */
INLINE int solve(int order, const double *numbers, ptrdiff_t count, ptrdiff_t steps, double h, double *results)
{
    static stage stages[MOST_STEPS * 4 * SIDE];
    const int per_step = order == 4 ? 4 : 1;
    if (count < BLOCK || steps > MOST_STEPS)
        return 1;
    for (ptrdiff_t start = 0; start < count; start += BLOCK) {
        const ptrdiff_t at = start + BLOCK <= count ? start : count - BLOCK; /* the last block may overlap another */
        block p;
        UNROLL
        for (int i = 0; i < SIDE; i++) {
            const double *from = numbers + at + i * LANES;
            p.x[i] = load(from);
            p.v[i] = load(from + count);
            p.k[i] = load(from + 2 * count);
            p.c[i] = load(from + 3 * count);
            p.t[i] = load(from + 4 * count);
        }
        stage *s = stages;
        for (ptrdiff_t step = 0; step < steps; step++)
            UNROLL
            for (int i = 0; i < SIDE; i++, s += per_step) {
                if (order == 4)
                    runge_kutta(&p, i, h, s);
                else
                    euler(&p, i, h, s);
            }
        UNROLL
        for (int i = 0; i < SIDE; i++) {
            const vd off = p.x[i] - 0.3;
            store(results + at + i * LANES, off * off + p.v[i] * p.v[i]);
            p.dx[i] = 2.0 * off;
            p.dv[i] = 2.0 * p.v[i];
            p.dk[i] = p.dc[i] = p.dt[i] = all(0.0);
        }
        for (ptrdiff_t step = 0; step < steps; step++)
            UNROLL
            for (int i = SIDE - 1; i >= 0; i--) {
                s -= per_step;
                if (order == 4)
                    runge_kutta_reverse(&p, i, h, s);
                else
                    euler_reverse(&p, i, h, s);
            }
        UNROLL
        for (int i = 0; i < SIDE; i++) {
            double *to = results + at + i * LANES;
            store(to + count, p.dk[i]);
            store(to + 2 * count, p.dc[i]);
            store(to + 3 * count, p.dt[i]);
        }
    }
    return 0;
}

int pendulum_euler(const double *numbers, ptrdiff_t count, ptrdiff_t steps, double h, double *results)
{
    return solve(1, numbers, count, steps, h, results);
}

int pendulum_rk4(const double *numbers, ptrdiff_t count, ptrdiff_t steps, double h, double *results)
{
    return solve(4, numbers, count, steps, h, results);
}
