/* lanes_batch.h: the body of a program for many samples at once, one in each lane.
 *
 * Of the body's nodes those that depend on an operand that differs from sample to sample are varying, and have a number
 * for each lane; all others are uniform, and keep their one number in the body. Gradients of uniform nodes are sums
 * over the lanes that have a sample; the others compute what the last one does, and nobody looks.
 *
 * It promises the results of the body evaluated sample by sample, but for the rounding of sums and of transcendental
 * functions. It leaves to its caller the uniform nodes themselves, and the numbers that go in.
 *
 * There are batches of doubles and, for programs with dtype='float32', of floats: lanes_batch.c is compiled for both.
 * Their callers go by a table of steps, or, for doubles, by the functions themselves. What goes in and out are doubles.
 * A batch of floats keeps the uniform nodes' numbers as floats as well, and what is done sample by sample, takes and
 * calls, is done in doubles.
 */
#ifndef FG_LANES_BATCH_H
#define FG_LANES_BATCH_H

#include "kernels32.h"
#include "program.h"

typedef struct fg_batch fg_batch;

/* varies: for each operand of the program, from element 1 on, whether it differs from sample to sample. The body keeps
 * its nodes where they are as long as the batch is used. `samples` are expected; most_lanes: 0 for what is best. FG_OK,
 * or FG_E_MEMORY, and then too *made is to be freed, unless it is NULL. */
int fg_batch_make(fg_batch **made, fg_program *program, fg_mem *mem, const uint8_t *varies, size_t samples,
                  size_t most_lanes);
void fg_batch_free(fg_batch *b);

size_t fg_batch_lanes(const fg_batch *b);

/* Whether a node is varying; and where it has its numbers and its gradients, one for each lane; of a uniform node one
 * number, and the sum of its gradients. */
int fg_batch_is_varying(const fg_batch *b, fg_id i);
real *fg_batch_data(const fg_batch *b, fg_id i);
real *fg_batch_grad(const fg_batch *b, fg_id i);

/* The numbers of a varying node into the lanes: of `used` samples, whose numbers are so far apart; the lanes behind have
 * the last one's. And out of the lanes those of any node, one sample after the other. */
void fg_batch_put(fg_batch *b, fg_id i, const double *from, size_t apart, const fg_id *samples, size_t used);
void fg_batch_get(const fg_batch *b, fg_id i, double *to, size_t apart, size_t used);

/* The uniform nodes have other numbers in the body than before. */
void fg_batch_refresh(fg_batch *b);

/* Compute the varying nodes from the numbers of the operands: of all lanes, but with samples in the first `used` alone.
 * FG_OK, FG_E_INTERRUPTED, or the status of a row. */
int fg_batch_forward(fg_batch *b, size_t used, int lenient);

/* From now on only results that have a bit in `live` are reversed, which stays where it is. Before any of that. */
void fg_batch_go_by(fg_batch *b, const uint64_t *live);

/* Set all gradients to 0; then the caller adds to those of results; from NULL: 1; ... */
void fg_batch_clear(fg_batch *b);
void fg_batch_seed(fg_batch *b, fg_id i, const double *from, size_t apart, const fg_id *samples, size_t used);

/* ... and this adds to the gradients of the operands and of uniform nodes. After fg_batch_forward(). FG_OK or
 * FG_E_INTERRUPTED. */
int fg_batch_reverse(fg_batch *b);

/* Add the gradients of a varying node in the lanes to those of the samples. */
void fg_batch_give(const fg_batch *b, fg_id i, double *to, size_t apart, const fg_id *samples, size_t used);

/* Add the gradients of uniform nodes to those in `total`, [body.n]; what it adds for varying nodes means nothing. */
void fg_batch_add_sums(const fg_batch *b, double *total);

/* Of a forward step that has failed: see fg_callee_steps. */
int fg_batch_fault(const fg_batch *b, double x[3], int32_t *k, int *status);

/* All of that for one type of numbers. */
typedef struct fg_batch_steps {
    int (*make)(fg_batch **made, fg_program *program, fg_mem *mem, const uint8_t *varies, size_t samples,
                size_t most_lanes);
    void (*free)(fg_batch *b);
    size_t (*lanes)(const fg_batch *b);
    int (*is_varying)(const fg_batch *b, fg_id i);
    void (*put)(fg_batch *b, fg_id i, const double *from, size_t apart, const fg_id *samples, size_t used);
    void (*get)(const fg_batch *b, fg_id i, double *to, size_t apart, size_t used);
    void (*refresh)(fg_batch *b);
    int (*forward)(fg_batch *b, size_t used, int lenient);
    void (*go_by)(fg_batch *b, const uint64_t *live);
    void (*clear)(fg_batch *b);
    void (*seed)(fg_batch *b, fg_id i, const double *from, size_t apart, const fg_id *samples, size_t used);
    int (*reverse)(fg_batch *b);
    void (*give)(const fg_batch *b, fg_id i, double *to, size_t apart, const fg_id *samples, size_t used);
    void (*add_sums)(const fg_batch *b, double *total);
    int (*fault)(const fg_batch *b, double x[3], int32_t *k, int *status);
} fg_batch_steps;

extern const fg_batch_steps fg_batch_of_doubles, fg_batch_of_floats;

#endif
