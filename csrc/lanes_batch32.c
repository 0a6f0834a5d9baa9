/* lanes_batch32.c: lanes_batch.c for numbers that are floats. Its functions have names of their own, for the linker; other
 * sources reach them by fg_batch_of_floats. */
#define FG_SINGLE
#define FG_BATCH_STEPS fg_batch_of_floats
#define fg_batch_make fg_batch32_make
#define fg_batch_free fg_batch32_free
#define fg_batch_lanes fg_batch32_lanes
#define fg_batch_is_varying fg_batch32_is_varying
#define fg_batch_data fg_batch32_data
#define fg_batch_grad fg_batch32_grad
#define fg_batch_put fg_batch32_put
#define fg_batch_get fg_batch32_get
#define fg_batch_refresh fg_batch32_refresh
#define fg_batch_forward fg_batch32_forward
#define fg_batch_go_by fg_batch32_go_by
#define fg_batch_clear fg_batch32_clear
#define fg_batch_seed fg_batch32_seed
#define fg_batch_reverse fg_batch32_reverse
#define fg_batch_give fg_batch32_give
#define fg_batch_add_sums fg_batch32_add_sums
#define fg_batch_fault fg_batch32_fault
#include "lanes_batch.c"
