# _core.pxd: the C core as Cython sees it. The only place where csrc/ is declared.
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "tape.h" nogil:
    ctypedef uint32_t fg_id
    bint FG_LIKELY(bint condition)
    bint FG_UNLIKELY(bint condition)

    enum:
        FG_MAX_ID
        FG_E_MEMORY
        FG_E_FULL
        FG_E_ZERO_DIVISION
        FG_E_OVERFLOW
        FG_E_DOMAIN
        FG_E_INTERRUPTED
        FG_E_INDEX

        FG_LEAF
        FG_COPY
        FG_LAYER
        FG_MAP
        FG_SUM
        FG_MEAN
        FG_MAX
        FG_LOGSUMEXP
        FG_SOFTMAX
        FG_LOG_SOFTMAX
        FG_CROSS_ENTROPY
        FG_TAKE
        FG_CALL
        FG_RUN
        FG_PART
        FG_FROZEN
        FG_VIEW_LIST
        FG_VIEW_CONSTANT
        FG_MAX_ARITY
        FG_NEG
        FG_POWI
        FG_RELU
        FG_ABS
        FG_ADD
        FG_SUB
        FG_MUL
        FG_DIV
        FG_POW
        FG_POWC
        FG_CUSTOM
        FG_LOCAL
        FG_OPS
        FG_HOOK
        FG_ACTIVATION
        FG_LOSS

    ctypedef struct fg_op_info:
        const char *id
        const char *name
        const char *operands
        const char *symbol
        const char *domain
        const char *formula
        const char *edge
        int arity
        int parents
        int kind
        int fused
        double second
        const char *ufuncs
        const char *forward

    const fg_op_info fg_op_table[]
    const uint8_t fg_op_rows[]

    ctypedef struct fg_formula:
        const char *name
        const char *parameters
        const char *comment
        const char *body
        const char *condition

    const fg_formula fg_formulas[]

    bint fg_op_is_public(int op)
    bint fg_op_is_leaf(int op)
    bint fg_op_is_pooled(int op)
    bint fg_op_is_block(int op)
    fg_id fg_op_pool_size(int op, fg_id count)
    int fg_op_unary(int op, double x, int32_t k, double *out)
    int fg_op_unary_known(int op, double x, int32_t k, double *out)
    int fg_op_binary(int op, double x, double y, double *out)
    int fg_op_binary_known(int op, double x, double y, double *out)
    int fg_op_ternary(int op, double x, double y, double w, double *out)

    ctypedef struct fg_args:
        fg_id a
        fg_id b

    ctypedef struct fg_view:
        fg_id flags
        fg_id base
        fg_id rows
        fg_id cols
        int32_t row_step
        int32_t col_step

    ctypedef struct fg_record:
        fg_id size
        fg_id param
        fg_id rows
        fg_id cols
        fg_id k
        fg_id extra
        fg_id views

    fg_view *fg_record_view(fg_record *r, fg_id v)
    fg_id *fg_record_extra(fg_record *r)
    fg_id fg_view_slot(const fg_id *words, const fg_view *v, fg_id row, fg_id col)
    fg_id fg_record_slot(const fg_record *r, const fg_view *v, fg_id row, fg_id col)

    enum:
        FG_NO_RULE
        FG_SGD
        FG_ADAM
        FG_RMSPROP
        FG_ADAGRAD
        FG_ADADELTA

    ctypedef struct fg_rule:
        double lr
        double weight_decay
        double eps
        int maximize
        double momentum
        double dampening
        int nesterov
        int first
        double beta1
        double beta2
        double correction1
        double correction2
        int decoupled
        double alpha

    ctypedef struct fg_kernels:
        const char *isa
        double (*dot)(size_t n, const double *x, const double *y)
        void (*axpy)(size_t n, double a, const double *x, double *y)
        void (**update)(size_t n, double *p, const double *g, double *const *state, const fg_rule *h)
        double (*power_sum)(size_t n, const double *x, double power, double divisor)
        void (*scale)(size_t n, double a, double *x)
        void (*clip)(size_t n, double bound, double *x)

    ctypedef struct fg_mem:
        size_t bytes
        int64_t fail_after

    ctypedef struct fg_marks:
        uint64_t *word
        uint64_t *summary
        fg_id lowest
        fg_id highest

    unsigned fg_bits_low(uint64_t w)

    void fg_marks_add_range(fg_marks *m, fg_id first, fg_id end)

    ctypedef struct fg_box:
        fg_id *holder
        void *extra
        fg_box *next

    ctypedef struct fg_sweep:
        fg_marks marks
        fg_id hook

    ctypedef struct fg_stretch:
        fg_id first
        fg_id count

    ctypedef struct fg_callee:
        const fg_callee_steps *steps
        fg_id holders
        void *owner
        fg_stretch *segments
        fg_id n_segments
        fg_id n_results

    ctypedef struct fg_callee_steps:
        bint (*wants)(const fg_callee *c, fg_id k) noexcept
        int (*fault)(const fg_callee *c, double *x, int32_t *k, int *status) noexcept
        size_t (*bytes)(const fg_callee *c) noexcept

    ctypedef struct fg_called:
        fg_callee *callee

    ctypedef struct fg_tape:
        fg_id n
        fg_id room
        fg_id capacity
        fg_id limit
        fg_id npool
        fg_id *pool
        fg_id pool_capacity
        uint8_t *op
        fg_args *args
        double *data
        double *grad
        fg_id **owner
        fg_id collect_at
        fg_id pool_collect_at
        fg_id collect_floor
        int busy
        int (*stop)() noexcept
        fg_id boxes
        fg_box *dead
        fg_called *programs
        fg_id n_programs
        uint64_t collections
        uint64_t writes
        uint32_t *origin
        fg_id sentinel
        fg_marks marks
        fg_sweep *spare
        fg_mem mem
        double *scratch
        const fg_kernels *kernels

    int fg_tape_init(fg_tape *t, const fg_kernels *kernels)
    int fg_tape_trace(fg_tape *t, int on)
    int64_t fg_tape_hold_program(fg_tape *t, fg_callee *c)
    void fg_tape_release_program(fg_tape *t, fg_id place)
    fg_callee *fg_tape_callee(const fg_tape *t, const fg_record *r)
    fg_id fg_tape_push_leaves(fg_tape *t, fg_id count)
    fg_id fg_tape_push_run(fg_tape *t, fg_id count)
    fg_id fg_tape_forget(fg_tape *t, fg_id n, fg_id npool)
    fg_record *fg_tape_record(const fg_tape *t, fg_id i)
    int fg_tape_reserve(fg_tape *t, fg_id nodes, fg_id operands)
    fg_id fg_tape_push(fg_tape *t, int op, fg_id a, fg_id b, double data)
    fg_id fg_tape_push_leaf(fg_tape *t, double data)
    fg_id fg_tape_push_pooled(fg_tape *t, int op, const fg_id *operands, fg_id count,
                              const double *partials, double data)
    int fg_tape_op(const fg_tape *t, fg_id i)
    double *fg_tape_gradient(const fg_tape *t, fg_id i)
    void fg_tape_freeze(fg_tape *t, fg_id i, bint on)

    ctypedef struct fg_operands:
        fg_id count
        fg_view *view
        fg_id *words

    void fg_tape_views(const fg_tape *t, fg_id i, fg_operands *o)
    fg_id *fg_tape_operands(const fg_tape *t, fg_id i, fg_id *count)
    void fg_tape_set_hook(fg_tape *t, fg_id i, bint on)
    void fg_tape_mark_living(fg_tape *t)
    void fg_tape_clear_marks(fg_tape *t)
    bint fg_tape_is_marked(const fg_tape *t, fg_id i)
    bint fg_owner_is_box(const fg_id *owner)
    fg_box *fg_owner_box(const fg_id *owner)
    fg_id *fg_tape_holder(const fg_tape *t, fg_id i)
    void fg_tape_hold(fg_tape *t, fg_id i, fg_id *holder)
    fg_box *fg_tape_box(fg_tape *t, fg_id i)
    void fg_tape_box_free(fg_tape *t, fg_box *box)
    void fg_tape_pop(fg_tape *t)
    void fg_tape_shrink(fg_tape *t)
    void fg_tape_pass(fg_tape *t, fg_id i)
    fg_sweep *fg_tape_sweep_begin(fg_tape *t, fg_id end)
    void fg_tape_sweep_pause(const fg_tape *t, fg_sweep *s)
    fg_id fg_tape_collect(fg_tape *t)
    bint fg_tape_check(const fg_tape *t)
    unsigned fg_bits_top(uint64_t w)


cdef extern from "callback.h" nogil:
    ctypedef struct fg_callback:
        fg_callee callee
        uint64_t *reached

    int fg_callback_make(fg_mem *mem, const fg_id *counts, fg_id n, fg_id n_results, fg_callback **made)
    void fg_callback_free(fg_callback *c)
    fg_callback *fg_callback_at(const fg_tape *t, fg_id i)
    bint fg_callback_is(const fg_callee *c)
    void fg_callback_reach_one(fg_callback *c, fg_id k)


cdef extern from "sweep.h" nogil:
    fg_sweep *fg_sweep_begin(fg_tape *t, fg_id output)
    fg_sweep *fg_sweep_begin_from(fg_tape *t, const fg_id *outputs, size_t count)
    enum:
        FG_SWEEP_DONE
        FG_SWEEP_HOOK

    int fg_sweep_run(fg_tape *t, fg_sweep *s, fg_id words)
    int fg_sweep_apply(fg_tape *t, fg_id i, size_t *done)
    void fg_sweep_cancel(fg_tape *t, fg_sweep *s)
    ctypedef enum fg_which:
        FG_FLOWN_TO
        FG_ALL

    fg_id fg_sweep_reach(fg_tape *t, const fg_id *outputs, size_t count, fg_which which, fg_id *words, uint64_t *masks,
                         int *hooked)


cdef extern from "block.h" nogil:
    enum:
        FG_TAKE_ROWS
        FG_TAKE_EACH

    bint fg_block_fits(int op, fg_record *r)
    fg_record *fg_block_begin(fg_tape *t, fg_id param, fg_id views, fg_id extra)
    fg_id fg_block_words(fg_id views, fg_id extra)
    void fg_block_view(fg_record *r, fg_id v, fg_view view)
    fg_id *fg_block_ids(fg_record *r)
    void fg_block_list(fg_record *r, fg_id v, fg_id rows, fg_id cols)
    int fg_block_push(fg_tape *t, int op, fg_id rows, fg_id cols, int parts, const double *results,
                      fg_id *node)
    int fg_block_push_anyway(fg_tape *t, int op, fg_id rows, fg_id cols, int parts, fg_id *node)
    fg_id fg_block_operands(fg_tape *t, fg_id i, fg_id *ids, double *partials)


cdef extern from "written.h" nogil:
    ctypedef struct fg_term:
        fg_view view
        const fg_id *ids
    ctypedef struct fg_writing:
        fg_id end
        int status
        fg_id node
    enum:
        FG_WRITE_DONE
        FG_WRITE_CALL
        FG_WRITE_HOOK
        FG_WRITE_LOCAL
    int fg_write_begin(fg_writing *w, fg_tape *t, const fg_id *outputs, size_t n_outputs, const fg_id *inputs,
                       size_t n_inputs)
    void fg_write_seed(fg_writing *w, fg_id i, fg_id g)
    fg_id fg_write_gradient(fg_writing *w, fg_id i)
    int fg_write_run(fg_writing *w)
    void fg_write_end(fg_writing *w)
    fg_term fg_write_copied(fg_writing *w, fg_view x)
    fg_term fg_term_of_view(fg_writing *w, const fg_record *r, const fg_view *view)
    fg_term fg_term_of_gradients(fg_writing *w, const fg_term *x)
    bint fg_write_has(const fg_writing *w, fg_id i)
    bint fg_write_has_any(const fg_writing *w, const fg_term *x)
    fg_term fg_term_full(fg_writing *w, fg_term x, fg_id rows, fg_id cols)
    fg_term fg_write_number(fg_writing *w, double number)
    bint fg_write_wants_any(const fg_writing *w, const fg_term *x)
    void fg_write_give(fg_writing *w, const fg_term *x, fg_term g)


cdef extern from "simplify.h" nogil:
    int FG_SIMPLIFY_SHARED, FG_SIMPLIFY_DOTS, FG_SIMPLIFY_LAYERS, FG_SIMPLIFY_TOGETHER
    ctypedef struct fg_simplified:
        fg_id before
        fg_id *after


cdef extern from "program.h" nogil:
    ctypedef struct fg_program:
        fg_callee callee
        fg_tape body
        fg_id area
        fg_id *results
        int steps
        uint64_t *used
        fg_program *rule
        fg_id *gives
        bint is_deep

    enum:
        FG_PROGRAM_RULE
        FG_PROGRAM_SHARED

    int fg_program_cut(fg_tape *t, fg_id floor, const fg_stretch *inputs, fg_id n_inputs, const fg_id *outputs,
                       fg_id n_outputs, fg_program **made, fg_id **captured, fg_id *at)
    void fg_program_forget(fg_program *p, fg_id *captured)
    int fg_program_simplify(fg_tape *t, fg_program *p, int steps, fg_simplified *report)
    int fg_program_divide(fg_program *p, const fg_stretch *segments, fg_id n_segments)
    int fg_program_set_rule(fg_program *p, fg_program *rule, const fg_id *gives)
    int64_t fg_program_expand(const fg_program *p, fg_tape *t)
    int fg_program_copy_alone(const fg_program *p, int (*stop)() noexcept nogil, int64_t *fail_after, fg_program **made)
    double fg_program_number(const fg_program *p, fg_id place)
    void fg_program_free(fg_program *p)
    enum:
        FG_REHEARSE_FORWARD
        FG_REHEARSE_BACKWARD
        FG_REHEARSE_TURN

    int fg_program_rehearse(fg_program *p, int step)
    int fg_program_rehearse_nodes(fg_program *p, const fg_stretch *stretches, fg_id count)


cdef extern from "scan.h" nogil:
    ctypedef struct fg_scan:
        fg_callee callee
        fg_program *step
        fg_id length
        fg_id n_carry
        fg_id n_x
        fg_id carries
        fg_id xs
        fg_id parts
        fg_id *sizes
        bint backwards
        fg_id checkpoint
        fg_id area
        double *data
        fg_id every
        fg_id at

    enum:
        FG_SCAN_FORM

    const fg_callee_steps fg_scan_steps
    int fg_scan_make(fg_program *step, fg_mem *mem, fg_id length, fg_id carries, fg_id xs, const fg_id *sizes,
                     fg_id parts, int backwards, fg_id checkpoint, fg_scan **made)
    void fg_scan_free(fg_scan *s)


cdef extern from "lanes.h" nogil:
    ctypedef struct fg_lanes:
        pass

    ctypedef struct fg_group:
        fg_id first
        fg_id count
        bint summed

    int fg_lanes_make(fg_tape *t, const fg_program *p, const uint8_t *varies, fg_id n_samples, const fg_group *groups,
                      fg_id n_groups, fg_id most_lanes, bint single, fg_lanes **made)
    void fg_lanes_free(fg_lanes *l)
    bint fg_lanes_is(const fg_callee *c)
    fg_program *fg_lanes_program(const fg_lanes *l)
    const uint8_t *fg_lanes_varies(const fg_lanes *l)
    fg_id fg_lanes_samples(const fg_lanes *l)
    const fg_group *fg_lanes_groups(const fg_lanes *l, fg_id *count)
    double fg_lanes_number(const fg_lanes *l, fg_id place)
    bint fg_lanes_is_single(const fg_lanes *l)
    size_t fg_lanes_width(const fg_lanes *l)
    bint fg_lanes_is_varying(const fg_lanes *l, fg_id node)
    int fg_lanes_rehearse(fg_lanes *l, int step)
    int fg_lanes_make_of(fg_program *own, const uint8_t *varies, fg_id n_samples, const fg_group *groups,
                         fg_id n_groups, fg_id most_lanes, bint single, int64_t *fail_after, fg_lanes **made)
    void fg_lanes_changed(fg_lanes *l)
    int fg_lanes_sum(fg_lanes *l, const double **source, double **to, size_t count, double seed, double *sum)


cdef extern from "evaluate.h" nogil:
    void fg_evaluate_for(fg_program *p, const uint8_t *wanted)
    int fg_evaluate(fg_program *p, fg_id k, int lenient, double *value)
    int fg_evaluate_values(fg_program *p, int lenient, double *values)
    int fg_evaluate_all(fg_program *p, const uint8_t *wanted, fg_id first, int lenient, double *values, double *table,
                        fg_id *rows)


cdef extern from "draws.h" nogil:
    ctypedef struct fg_draw:
        int kind, backwards
        size_t at, count, times, members
        double a, b, c
        void *state
        double (*uniform)(void *state) noexcept nogil
        uint64_t (*bits)(void *state) noexcept nogil

    enum:
        FG_DRAW_UNIFORM
        FG_DRAW_NORMAL
        FG_DRAW_THRESHOLD
        FG_DRAW_TIMES

    void fg_draws_take(const fg_draw *draws, size_t n, double *to)


cdef extern from "training.h" nogil:
    ctypedef struct fg_learner:
        size_t at, count
        int rule
        fg_rule how
        double lr, lr_decay
        uint64_t steps
        double *state[3]

    ctypedef struct fg_kept:
        size_t at
        fg_id slot, count, learner
        int frozen

    ctypedef struct fg_lesson:
        fg_program *program
        fg_id rows
        fg_kept *kept
        size_t n_kept
        fg_id *slots
        fg_id *labels
        const fg_draw *draws
        size_t n_draws
        fg_id drawn
        int planned

    ctypedef struct fg_column:
        const double *from_ "from"
        size_t width

    ctypedef enum fg_clip:
        FG_CLIP_NORM, FG_CLIP_VALUE

    ctypedef struct fg_loop:
        fg_lesson lessons[2]
        int n_lessons
        fg_learner *learners
        fg_id n_learners
        double *data
        double *grad
        size_t count
        fg_column *columns
        fg_id n_columns
        const int64_t *label
        const int64_t *order
        size_t n_samples
        fg_clip clip
        double bound
        size_t *rows
        int picky
        int at, filled, ready
        size_t begin, epoch, done
        const double *rates
        double *losses
        double *kept
        size_t kept_width

    enum:
        FG_LOOP_DIVERGED

    int fg_loop_run(fg_loop *l, size_t steps, int *at)
    void fg_loop_settle(fg_loop *l)
    void fg_loop_prepare(fg_loop *l)
    void fg_loop_free(fg_loop *l)
    fg_id *fg_loop_labels(fg_program *p, fg_id rows, size_t *classes)

    ctypedef struct fg_update_text:
        const char *name
        const char *parameters
        const char *comment
        const char *body

    const fg_update_text fg_update_texts[]


cdef extern from "cpu.h" nogil:
    const fg_kernels *fg_cpu_kernels(const char *isa)
    const char *fg_cpu_level(size_t i)


cdef class Value:
    cdef fg_id id                # where the node is; the tape renumbers it through owner[]
    cdef object __weakref__
