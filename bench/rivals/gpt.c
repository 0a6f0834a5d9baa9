/* gpt.c: training of the GPT of examples/scalar_gpt.py, on batches of 16 documents of nine positions, by Adam.
 *
 * A lane is a document, so all the products are of a number of the model and a vector of documents. The model: 16-wide
 * embeddings of 27 tokens and 16 positions, RMSNorm without parameters, 4 heads of causal attention, and an MLP of 64
 * with relu. The gradient of a name of the forward pass has a d before it. */
#include <string.h>

#include "lanes.h"

enum { BATCH = 16, GROUPS = BATCH / LANES, POSITIONS = 9, CONTEXT = 16, PLACES = GROUPS * POSITIONS };
enum { TOKENS = 27, WIDTH = 16, HEADS = 4, HEAD = WIDTH / HEADS, HIDDEN = 64 };

/* In the order of `parameters`; the query, key and value of a position are one product of 48 rows. */
enum {
    TOKEN = 0,
    POSITION = TOKEN + TOKENS * WIDTH,
    QKV = POSITION + CONTEXT * WIDTH,
    MIX = QKV + 3 * WIDTH * WIDTH,
    UP = MIX + WIDTH * WIDTH,
    DOWN = UP + HIDDEN * WIDTH,
    OUT = DOWN + WIDTH * HIDDEN,
    PARAMETERS = OUT + TOKENS * WIDTH,
    HELD = (PARAMETERS + LANES - 1) / LANES * LANES
};

_Static_assert(PLACES % 3 == 0 && TOKENS % 9 == 0 && WIDTH % LANES == 0, "blocks fit");

typedef struct {
    double p[HELD], dp[HELD], m[HELD], v[HELD]; /* parameters, gradients, and Adam's two means */
    /* For each place, a position of a group of documents. */
    int32_t token[PLACES][LANES], target[PLACES][LANES];
    vd x[PLACES][WIDTH], x_scale[PLACES], normed[PLACES][WIDTH], normed_scale[PLACES]; /* twice normalised */
    vd qkv[PLACES][3 * WIDTH], weight[GROUPS][HEADS][POSITIONS][POSITIONS], heads[PLACES][WIDTH];
    vd mixed[PLACES][WIDTH], in[PLACES][WIDTH], in_scale[PLACES];
    vd hidden[PLACES][HIDDEN], end[PLACES][WIDTH], logits[PLACES][TOKENS];
    vd dlogits[PLACES][TOKENS], dend[PLACES][WIDTH], dhidden[PLACES][HIDDEN], din[PLACES][WIDTH];
    vd dmixed[PLACES][WIDTH], dheads[PLACES][WIDTH], dqkv[PLACES][3 * WIDTH], dnormed[PLACES][WIDTH];
} state;

/* out[place][r] = the sum over c of w[r * row_step + c * column_step] * in[place][c], for all places. `block` rows and
 * three places at a time. */
INLINE void product_block(int block, const double *w, int row_step, int column_step, int rows, int columns,
                          const vd *in, vd *out)
{
    for (int place = 0; place < PLACES; place += 3)
        for (int r = 0; r < rows; r += block) {
            const vd *x = in + place * columns;
            const double *row = w + r * row_step;
            vd sum[9][3];
            UNROLL
            for (int i = 0; i < block; i++)
                sum[i][0] = sum[i][1] = sum[i][2] = all(0.0);
            for (int c = 0; c < columns; c++) {
                const vd x0 = x[c], x1 = x[columns + c], x2 = x[2 * columns + c];
                UNROLL
                for (int i = 0; i < block; i++) {
                    const double number = row[i * row_step + c * column_step];
                    sum[i][0] += number * x0;
                    sum[i][1] += number * x1;
                    sum[i][2] += number * x2;
                }
            }
            UNROLL
            for (int i = 0; i < block; i++)
                UNROLL
                for (int k = 0; k < 3; k++)
                    out[(place + k) * rows + r + i] = sum[i][k];
        }
}

/* For multiples of 8 rows, and for those of 9. */
static void product(const double *w, int row_step, int column_step, int rows, int columns, const vd *in, vd *out)
{
    product_block(MANY_REGISTERS ? 8 : 4, w, row_step, column_step, rows, columns, in, out);
}

static void product_of_nines(const double *w, int row_step, int column_step, int rows, int columns, const vd *in,
                             vd *out)
{
    product_block(MANY_REGISTERS ? 9 : 3, w, row_step, column_step, rows, columns, in, out);
}

/* dw[r][c] = the sum over places and lanes of dout[place][r] * in[place][c]. */
INLINE void outer_block(int block, double *dw, int rows, int columns, const vd *dout, const vd *in)
{
    for (int r = 0; r < rows; r += block)
        for (int c = 0; c < columns; c += LANES) {
            vd sum[3][LANES];
            UNROLL
            for (int i = 0; i < block; i++)
                UNROLL
                for (int k = 0; k < LANES; k++)
                    sum[i][k] = all(0.0);
            for (int place = 0; place < PLACES; place++)
                UNROLL
                for (int k = 0; k < LANES; k++) {
                    const vd x = in[place * columns + c + k];
                    UNROLL
                    for (int i = 0; i < block; i++)
                        sum[i][k] += dout[place * rows + r + i] * x;
                }
            UNROLL
            for (int i = 0; i < block; i++)
                store(dw + (r + i) * columns + c, sums(sum[i]));
        }
}

static void outer(double *dw, int rows, int columns, const vd *dout, const vd *in)
{
    outer_block(2, dw, rows, columns, dout, in);
}

static void outer_of_threes(double *dw, int rows, int columns, const vd *dout, const vd *in)
{
    outer_block(3, dw, rows, columns, dout, in);
}

/* y = x * scale, where scale is (mean of squares + 1e-5) ** -0.5, which it returns. */
INLINE vd rmsnorm(const vd *x, vd *y)
{
    vd squares[2] = {x[0] * x[0], x[1] * x[1]};
    UNROLL
    for (int d = 2; d < WIDTH; d++)
        squares[d % 2] += x[d] * x[d];
    const vd scale = 1.0 / sqrt_of((squares[0] + squares[1]) * (1.0 / WIDTH) + 1e-5);
    for (int d = 0; d < WIDTH; d++)
        y[d] = x[d] * scale;
    return scale;
}

/* Adds the gradient by x to dx. */
INLINE void rmsnorm_reverse(const vd *dy, const vd *y, vd scale, vd *dx)
{
    vd sum[2] = {dy[0] * y[0], dy[1] * y[1]};
    UNROLL
    for (int d = 2; d < WIDTH; d++)
        sum[d % 2] += dy[d] * y[d];
    const vd mean = (sum[0] + sum[1]) * (1.0 / WIDTH);
    for (int d = 0; d < WIDTH; d++)
        dx[d] += (dy[d] - y[d] * mean) * scale;
}

INLINE vd dot(const vd *x, const vd *y)
{
    return (x[0] * y[0] + x[1] * y[1]) + (x[2] * y[2] + x[3] * y[3]);
}

_Static_assert(HEAD == 4, "dot is of four");

static void attention(state *s)
{
    for (int g = 0; g < GROUPS; g++)
        for (int head = 0; head < HEADS; head++)
            for (int t = 0; t < POSITIONS; t++) {
                const int at = g * POSITIONS;
                const vd *query = s->qkv[at + t] + head * HEAD;
                vd *weight = s->weight[g][head][t], total = all(0.0), out[HEAD] = {all(0.0)};
                for (int u = 0; u <= t; u++) {
                    weight[u] = exp_of(dot(query, s->qkv[at + u] + WIDTH + head * HEAD) * 0.5);
                    total += weight[u];
                }
                total = 1.0 / total;
                for (int u = 0; u <= t; u++) {
                    const vd *value = s->qkv[at + u] + 2 * WIDTH + head * HEAD;
                    weight[u] *= total;
                    for (int k = 0; k < HEAD; k++)
                        out[k] += weight[u] * value[k];
                }
                memcpy(s->heads[at + t] + head * HEAD, out, sizeof out);
            }
}

static void attention_reverse(state *s)
{
    memset(s->dqkv, 0, sizeof s->dqkv);
    for (int g = 0; g < GROUPS; g++)
        for (int head = 0; head < HEADS; head++)
            for (int t = 0; t < POSITIONS; t++) {
                const int at = g * POSITIONS;
                const vd *weight = s->weight[g][head][t], *query = s->qkv[at + t] + head * HEAD;
                const vd *dout = s->dheads[at + t] + head * HEAD;
                vd dweight[POSITIONS], mean = all(0.0), dquery[HEAD] = {all(0.0)};
                for (int u = 0; u <= t; u++) {
                    vd *dvalue = s->dqkv[at + u] + 2 * WIDTH + head * HEAD;
                    dweight[u] = dot(dout, s->qkv[at + u] + 2 * WIDTH + head * HEAD);
                    mean += dweight[u] * weight[u];
                    for (int k = 0; k < HEAD; k++)
                        dvalue[k] += weight[u] * dout[k];
                }
                for (int u = 0; u <= t; u++) {
                    const vd dfit = weight[u] * (dweight[u] - mean) * 0.5;
                    const vd *key = s->qkv[at + u] + WIDTH + head * HEAD;
                    vd *dkey = s->dqkv[at + u] + WIDTH + head * HEAD;
                    for (int k = 0; k < HEAD; k++) {
                        dquery[k] += dfit * key[k];
                        dkey[k] += dfit * query[k];
                    }
                }
                memcpy(s->dqkv[at + t] + head * HEAD, dquery, sizeof dquery);
            }
}

/* The mean of -log(p) over the batch; the gradients by the logits are left in `dlogits`. */
static double forward(state *s)
{
    const double *p = s->p;
    for (int place = 0; place < PLACES; place++) {
        vd x[WIDTH];
        for (int d = 0; d < WIDTH; d++) {
            double embedding[LANES];
            for (int l = 0; l < LANES; l++)
                embedding[l] = p[TOKEN + s->token[place][l] * WIDTH + d];
            x[d] = load(embedding) + p[POSITION + place % POSITIONS * WIDTH + d];
        }
        s->x_scale[place] = rmsnorm(x, s->x[place]);
        s->normed_scale[place] = rmsnorm(s->x[place], s->normed[place]);
    }
    product(p + QKV, WIDTH, 1, 3 * WIDTH, WIDTH, s->normed[0], s->qkv[0]);
    attention(s);
    product(p + MIX, WIDTH, 1, WIDTH, WIDTH, s->heads[0], s->mixed[0]);
    for (int place = 0; place < PLACES; place++) {
        for (int d = 0; d < WIDTH; d++)
            s->mixed[place][d] += s->x[place][d];
        s->in_scale[place] = rmsnorm(s->mixed[place], s->in[place]);
    }
    product(p + UP, WIDTH, 1, HIDDEN, WIDTH, s->in[0], s->hidden[0]);
    for (int place = 0; place < PLACES; place++)
        for (int d = 0; d < HIDDEN; d++)
            s->hidden[place][d] = where(s->hidden[place][d] > 0.0, s->hidden[place][d]);
    product(p + DOWN, HIDDEN, 1, WIDTH, HIDDEN, s->hidden[0], s->end[0]);
    for (int place = 0; place < PLACES; place++)
        for (int d = 0; d < WIDTH; d++)
            s->end[place][d] += s->mixed[place][d];
    product_of_nines(p + OUT, WIDTH, 1, TOKENS, WIDTH, s->end[0], s->logits[0]);

    vd loss = all(0.0);
    for (int place = 0; place < PLACES; place++) {
        vd *softmax = s->dlogits[place], total = all(0.0), likely = all(0.0);
        for (int k = 0; k < TOKENS; k++) {
            softmax[k] = exp_of(s->logits[place][k]);
            total += softmax[k];
        }
        total = 1.0 / total;
        for (int l = 0; l < LANES; l++)
            likely[l] = softmax[s->target[place][l]][l];
        loss -= log_of(likely * total);
        total *= 1.0 / (BATCH * POSITIONS);
        for (int k = 0; k < TOKENS; k++)
            softmax[k] *= total;
        for (int l = 0; l < LANES; l++)
            softmax[s->target[place][l]][l] -= 1.0 / (BATCH * POSITIONS);
    }
    return sum_of(loss) / (BATCH * POSITIONS);
}

static void reverse(state *s)
{
    const double *p = s->p;
    double *dp = s->dp;
    outer_of_threes(dp + OUT, TOKENS, WIDTH, s->dlogits[0], s->end[0]);
    product(p + OUT, 1, WIDTH, WIDTH, TOKENS, s->dlogits[0], s->dend[0]);
    outer(dp + DOWN, WIDTH, HIDDEN, s->dend[0], s->hidden[0]);
    product(p + DOWN, 1, HIDDEN, HIDDEN, WIDTH, s->dend[0], s->dhidden[0]);
    for (int place = 0; place < PLACES; place++)
        for (int d = 0; d < HIDDEN; d++)
            s->dhidden[place][d] = where(s->hidden[place][d] > 0.0, s->dhidden[place][d]);
    outer(dp + UP, HIDDEN, WIDTH, s->dhidden[0], s->in[0]);
    product(p + UP, 1, WIDTH, WIDTH, HIDDEN, s->dhidden[0], s->din[0]);
    for (int place = 0; place < PLACES; place++) {
        memcpy(s->dmixed[place], s->dend[place], sizeof s->dmixed[place]);
        rmsnorm_reverse(s->din[place], s->in[place], s->in_scale[place], s->dmixed[place]);
    }
    outer(dp + MIX, WIDTH, WIDTH, s->dmixed[0], s->heads[0]);
    product(p + MIX, 1, WIDTH, WIDTH, WIDTH, s->dmixed[0], s->dheads[0]);
    attention_reverse(s);
    outer(dp + QKV, 3 * WIDTH, WIDTH, s->dqkv[0], s->normed[0]);
    product(p + QKV, 1, WIDTH, WIDTH, 3 * WIDTH, s->dqkv[0], s->dnormed[0]);

    memset(dp, 0, QKV * sizeof *dp); /* the tables, to which the places add */
    for (int place = 0; place < PLACES; place++) {
        vd dx[WIDTH], demb[WIDTH] = {all(0.0)};
        memcpy(dx, s->dmixed[place], sizeof dx);
        rmsnorm_reverse(s->dnormed[place], s->normed[place], s->normed_scale[place], dx);
        rmsnorm_reverse(dx, s->x[place], s->x_scale[place], demb);
        double rows[LANES][WIDTH];
        for (int d = 0; d < WIDTH; d++)
            for (int l = 0; l < LANES; l++)
                rows[l][d] = demb[d][l];
        for (int l = 0; l < LANES; l++) {
            double *dtoken = dp + TOKEN + s->token[place][l] * WIDTH;
            double *dposition = dp + POSITION + place % POSITIONS * WIDTH;
            for (int d = 0; d < WIDTH; d += LANES) {
                store(dtoken + d, load(dtoken + d) + load(rows[l] + d));
                store(dposition + d, load(dposition + d) + load(rows[l] + d));
            }
        }
    }
}

/* Adam: the corrections of the means are `m_factor` and `v_factor`. */
static void update(state *s, double rate, double m_factor, double v_factor)
{
    for (int k = 0; k < HELD; k += LANES) {
        const vd g = load(s->dp + k);
        const vd m = 0.85 * load(s->m + k) + (1.0 - 0.85) * g;
        const vd v = 0.99 * load(s->v + k) + (1.0 - 0.99) * (g * g);
        store(s->m + k, m);
        store(s->v + k, v);
        store(s->p + k, load(s->p + k) - (rate * m_factor) * m / (sqrt_of(v * v_factor) + 1e-8));
    }
}

/* Trains `parameters` (4,192: token, position, query, key, value, mix, up, down, out, row by row) for as many steps as
 * there are rates, and gives the loss of each step before its update. A document is a row of ten tokens. Step k takes
 * 16 of them from 16 * k on, and the first ones again after the last; so `count` is a multiple of 16. */
void gpt_train(double *parameters, const int32_t *documents, ptrdiff_t count, const double *rates, ptrdiff_t steps,
               double *losses)
{
    static state s;
    double power[2] = {1.0, 1.0}; /* of Adam's betas */
    memset(&s, 0, sizeof s);
    memcpy(s.p, parameters, PARAMETERS * sizeof(double));
    for (ptrdiff_t step = 0; step < steps; step++) {
        for (int k = 0; k < BATCH; k++) {
            const int32_t *document = documents + (step * BATCH + k) % count * (POSITIONS + 1);
            for (int t = 0; t < POSITIONS; t++) {
                s.token[k / LANES * POSITIONS + t][k % LANES] = document[t];
                s.target[k / LANES * POSITIONS + t][k % LANES] = document[t + 1];
            }
        }
        losses[step] = forward(&s);
        reverse(&s);
        power[0] *= 0.85;
        power[1] *= 0.99;
        update(&s, rates[step], 1.0 / (1.0 - power[0]), 1.0 / (1.0 - power[1]));
    }
    memcpy(parameters, s.p, PARAMETERS * sizeof(double));
}
