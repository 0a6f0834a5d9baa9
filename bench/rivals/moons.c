/* moons.c: training of an MLP 2-16-16-1 with relu on 100 samples: hinge loss, L2, SGD.
 *
 * A lane is a sample. The whole training stays in the first-level cache: 100 samples are 13 vectors of 8, and a matrix
 * of 16 x 13 of them has 13 KB. Samples past the last one have a label of 0, so their gradients are 0. */
#include <string.h>

#include "lanes.h"

enum { SAMPLES = 100, WIDTH = 16, VECTORS = (SAMPLES + LANES - 1) / LANES, PARAMETERS = 337 };
enum { ROWS = MANY_REGISTERS ? 4 : 2 };    /* of a product, which has ROWS x 4 or 5 sums in registers */
enum { FIVES = VECTORS % 4 };              /* the vectors come in blocks of five, then of four */
enum { PADDED = (PARAMETERS + LANES - 1) / LANES * LANES };

_Static_assert(5 * FIVES <= VECTORS && (VECTORS - 5 * FIVES) % 4 == 0 && WIDTH % LANES == 0, "blocks fit");

/* In the order of the argument `parameters`. */
typedef union {
    struct {
        double w1[WIDTH][2], b1[WIDTH], w2[WIDTH][WIDTH], b2[WIDTH], w3[WIDTH], b3;
    };
    double flat[PADDED];
} weights;

typedef struct {
    weights w, d;                     /* the parameters and their gradients */
    double w2_columns[WIDTH][WIDTH];  /* w2 transposed */
    vd x[2][VECTORS], y[VECTORS], used[VECTORS]; /* used: 1 for a sample, 0 past the last one */
    vd h1[WIDTH][VECTORS], h2[WIDTH][VECTORS], dh1[WIDTH][VECTORS], dh2[WIDTH][VECTORS], dscore[VECTORS];
} state;

/* out[j] = start[j] + the sum over i of w[j][i] * in[i], for `count` vectors from `at` on; then relu, or, if there is a
 * `gate`, 0 where the gate is not above 0. */
INLINE void product_block(int count, int at, const double (*w)[WIDTH], const double *start, const vd (*in)[VECTORS],
                          const vd (*gate)[VECTORS], vd (*out)[VECTORS])
{
    for (int j = 0; j < WIDTH; j += ROWS) {
        vd sum[ROWS][5];
        UNROLL
        for (int r = 0; r < ROWS; r++)
            UNROLL
            for (int b = 0; b < count; b++)
                sum[r][b] = all(start ? start[j + r] : 0.0);
        for (int i = 0; i < WIDTH; i++)
            UNROLL
            for (int r = 0; r < ROWS; r++)
                UNROLL
                for (int b = 0; b < count; b++)
                    sum[r][b] += w[j + r][i] * in[i][at + b];
        UNROLL
        for (int r = 0; r < ROWS; r++)
            UNROLL
            for (int b = 0; b < count; b++)
                out[j + r][at + b] = where((gate ? gate[j + r][at + b] : sum[r][b]) > 0.0, sum[r][b]);
    }
}

INLINE void product(const double (*w)[WIDTH], const double *start, const vd (*in)[VECTORS], const vd (*gate)[VECTORS],
                    vd (*out)[VECTORS])
{
    for (int at = 0; at < 5 * FIVES; at += 5)
        product_block(5, at, w, start, in, gate, out);
    for (int at = 5 * FIVES; at < VECTORS; at += 4)
        product_block(4, at, w, start, in, gate, out);
}

/* The loss, and its gradient in s->d. */
static double loss_and_gradient(state *s, double decay)
{
    const weights *w = &s->w;
    weights *d = &s->d;
    for (int j = 0; j < WIDTH; j++)
        for (int b = 0; b < VECTORS; b++) {
            const vd z = w->w1[j][0] * s->x[0][b] + (w->w1[j][1] * s->x[1][b] + w->b1[j]);
            s->h1[j][b] = where(z > 0.0, z);
        }
    product(w->w2, w->b2, s->h1, NULL, s->h2);
    vd score[VECTORS], loss = all(0.0), db3 = all(0.0);
    for (int b = 0; b < VECTORS; b++)
        score[b] = all(w->b3);
    for (int j = 0; j < WIDTH; j++)
        for (int b = 0; b < VECTORS; b++)
            score[b] += w->w3[j] * s->h2[j][b];
    for (int b = 0; b < VECTORS; b++) {
        const vd margin = 1.0 - s->y[b] * score[b];
        loss += where(margin > 0.0, margin) * s->used[b];
        s->dscore[b] = where(margin > 0.0, s->y[b] * (-1.0 / SAMPLES));
        db3 += s->dscore[b];
    }

    d->b3 = sum_of(db3);
    for (int j = 0; j < WIDTH; j += LANES) {
        vd dw3[LANES], db2[LANES];
        for (int r = 0; r < LANES; r++) {
            dw3[r] = db2[r] = all(0.0);
            for (int b = 0; b < VECTORS; b++) {
                const vd h = s->h2[j + r][b], dz = where(h > 0.0, s->dscore[b] * w->w3[j + r]);
                dw3[r] += s->dscore[b] * h;
                db2[r] += dz;
                s->dh2[j + r][b] = dz;
            }
        }
        store(d->w3 + j, sums(dw3));
        store(d->b2 + j, sums(db2));
    }
    for (int j = 0; j < WIDTH; j += 2)
        for (int i = 0; i < WIDTH; i += LANES) {
            vd sum[2][LANES];
            UNROLL
            for (int k = 0; k < LANES; k++)
                sum[0][k] = sum[1][k] = all(0.0);
            for (int b = 0; b < VECTORS; b++) {
                const vd dz0 = s->dh2[j][b], dz1 = s->dh2[j + 1][b];
                UNROLL
                for (int k = 0; k < LANES; k++) {
                    sum[0][k] += dz0 * s->h1[i + k][b];
                    sum[1][k] += dz1 * s->h1[i + k][b];
                }
            }
            store(&d->w2[j][i], sums(sum[0]));
            store(&d->w2[j + 1][i], sums(sum[1]));
        }
    product(s->w2_columns, NULL, s->dh2, s->h1, s->dh1);
    for (int j = 0; j < WIDTH; j += LANES) {
        vd dw[2][LANES], db[LANES];
        for (int r = 0; r < LANES; r++) {
            dw[0][r] = dw[1][r] = db[r] = all(0.0);
            for (int b = 0; b < VECTORS; b++) {
                const vd dz = s->dh1[j + r][b];
                dw[0][r] += dz * s->x[0][b];
                dw[1][r] += dz * s->x[1][b];
                db[r] += dz;
            }
        }
        store(d->b1 + j, sums(db));
        const vd d0 = sums(dw[0]), d1 = sums(dw[1]);
        for (int r = 0; r < LANES; r++) {
            d->w1[j + r][0] = d0[r];
            d->w1[j + r][1] = d1[r];
        }
    }

    vd squares = all(0.0);
    for (int k = 0; k < PADDED; k += LANES) {
        const vd p = load(w->flat + k);
        squares += p * p;
        store(d->flat + k, load(d->flat + k) + 2.0 * decay * p);
    }
    return sum_of(loss) / SAMPLES + decay * sum_of(squares);
}

/* Trains `parameters` (337: w1, b1, w2, b2, w3, b3, row by row) for as many steps as there are rates, and gives the
 * loss of each step before its update. x has 100 rows of two, y 100 labels of -1 or 1. */
void moons_train(double *parameters, const double *x, const double *y, double decay, const double *rates,
                 ptrdiff_t steps, double *losses)
{
    static state s;
    memset(&s, 0, sizeof s);
    memcpy(s.w.flat, parameters, PARAMETERS * sizeof(double));
    for (int k = 0; k < SAMPLES; k++) {
        s.x[0][k / LANES][k % LANES] = x[2 * k];
        s.x[1][k / LANES][k % LANES] = x[2 * k + 1];
        s.y[k / LANES][k % LANES] = y[k];
        s.used[k / LANES][k % LANES] = 1.0;
    }
    for (ptrdiff_t step = 0; step < steps; step++) {
        for (int i = 0; i < WIDTH; i++)
            for (int j = 0; j < WIDTH; j++)
                s.w2_columns[i][j] = s.w.w2[j][i];
        losses[step] = loss_and_gradient(&s, decay);
        for (int k = 0; k < PADDED; k += LANES)
            store(s.w.flat + k, load(s.w.flat + k) - rates[step] * load(s.d.flat + k));
    }
    memcpy(parameters, s.w.flat, PARAMETERS * sizeof(double));
}
