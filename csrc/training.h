/* training.h: the steps of a training loop, many of them at once: a batch, a program, its gradients, an update.
 *
 * It promises the numbers that the same steps have when each of them is taken by itself: bit for bit, but for what the
 * program itself rounds in another way. It leaves to its caller where the numbers come from before the first step and
 * go to after the last one; the live tape is not touched.
 *
 * While a loop runs, its numbers are in the area of a program's body, where kernels work on them in place. There are
 * one or two programs, which differ in the size of their batch alone. The store keeps what no program reads, and hands
 * numbers over from one program to the other:
 *
 *   | numbers of learner 0 | those of learner 1 | ... | numbers that nobody updates |
 */
#ifndef FG_TRAINING_H
#define FG_TRAINING_H

#include "draws.h"
#include "program.h"

/* Parameters that are updated by one rule. */
typedef struct fg_learner {
    size_t at, count;  /* its numbers in the store */
    int rule;
    fg_rule how;       /* but for `lr` and corrections, which are those of a step */
    double lr, lr_decay; /* lr: unless fg_loop.rates has those of each step */
    uint64_t steps;    /* there were so many */
    double *state[3];  /* [count] each, or NULL; the caller's */
} fg_learner;

/* Numbers in a row, both in the store and in the area of a program. */
typedef struct fg_kept {
    size_t at;
    fg_id slot;        /* 0: the program does not read them, and they stay in the store */
    fg_id count;
    fg_id learner;     /* FG_MAX_ID: nobody updates them, and their gradients add up over the steps */
    int frozen;
} fg_kept;

/* A program for batches of one size. The caller's arrays. */
typedef struct fg_lesson {
    fg_program *program;  /* result 0 is the loss, and the others are what fg_loop.kept gets */
    fg_id rows;           /* samples in a batch */
    fg_kept *kept;        /* [n_kept] all of the store */
    size_t n_kept;
    fg_id *slots;         /* [n_columns] where in the area each column's rows are */
    fg_id *labels;        /* [rows] in the body's pool; or NULL */
    const fg_draw *draws; /* [n_draws] what each step draws at random; the caller's */
    size_t n_draws;
    fg_id drawn;          /* where in the area these numbers go */
    fg_id *order;         /* of a sweep from the loss, or NULL; fg_loop_free() releases it */
    fg_id n_order;
    fg_jobs plan;         /* of that order; likewise */
    int planned;          /* it holds: 0 once `kept` is another */
} fg_lesson;

/* Something that samples have: `width` numbers each. */
typedef struct fg_column {
    const double *from;   /* [n_samples][width] */
    size_t width;
} fg_column;

/* How gradients are clipped before an update: scaled if their norm is above the bound, or each by itself. */
typedef enum { FG_CLIP_NOT, FG_CLIP_NORM, FG_CLIP_VALUE } fg_clip;

typedef struct fg_loop {
    fg_lesson lessons[2]; /* of the larger batches, and of the last one of an epoch if that is smaller */
    int n_lessons;
    fg_learner *learners; /* [n_learners] */
    fg_id n_learners;
    double *data, *grad;  /* [count] the store */
    size_t count;
    fg_column *columns;   /* [n_columns] */
    fg_id n_columns;
    const int64_t *label; /* [n_samples], or NULL */
    const int64_t *order; /* [epochs of this run][n_samples] which sample comes where; NULL: as they are */
    size_t n_samples;
    fg_clip clip;
    double bound;         /* of that, above 0 and finite */
    size_t *rows;         /* how many numbers lie in a row on the tape, of what is updated; in the order of the store,
                           * and no row has those of two learners. A norm is the sum of theirs. Or NULL */
    int picky;            /* stop at a loss that is not finite, before its step */

    int at;               /* the lesson whose program has the numbers; -1: the store has them */
    int filled;           /* that program has the batch, which is always the same */
    int ready;            /* that program has the random numbers of the next step, which has been interrupted */
    size_t begin;         /* in the epoch: samples before the next batch */
    size_t epoch;         /* of this run */
    size_t done;          /* steps of this run */
    const double *rates;  /* [steps of this run][n_learners] their learning rates; NULL: those that learners have */
    double *losses;       /* [steps of this run] */
    double *kept;         /* [n_samples][width] the other results, in the order of batches; or NULL */
    size_t kept_width;
} fg_loop;

enum { FG_LOOP_DIVERGED = 1 };

/* Take steps until l->done is `steps`. FG_OK; FG_LOOP_DIVERGED; or, before a step has changed anything but the gradients
 * of parameters, FG_E_INTERRUPTED or the status of a row, with *at the lesson whose program knows more. It can be called
 * again in any case. No Python: it may run without the GIL, if nobody else has the programs. */
int fg_loop_run(fg_loop *l, size_t steps, int *at);

/* All numbers into the store. */
void fg_loop_settle(fg_loop *l);

/* Find the orders of sweeps. To be called once the lessons are there. */
void fg_loop_prepare(fg_loop *l);
void fg_loop_free(fg_loop *l);

/* Where the labels of the only FG_CROSS_ENTROPY of a program are, of which there are `rows`, from 0 to below *classes;
 * NULL if there is no such instruction, or there are several. */
fg_id *fg_loop_labels(fg_program *p, fg_id rows, size_t *classes);

/* updates.def as text. */
typedef struct fg_update_text {
    const char *name, *parameters, *comment, *body; /* its columns */
} fg_update_text;

extern const fg_update_text fg_update_texts[]; /* in their order; one without a name ends them */

#endif
