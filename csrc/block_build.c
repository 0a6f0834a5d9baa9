/* block_build.c: see block.h, of which this has how the record of an instruction is built. */
#include "block.h"

fg_record *fg_block_begin(fg_tape *t, fg_id param, fg_id views, fg_id extra)
{
    fg_record *r = (fg_record *)(void *)(t->pool + t->npool);
    assert(fg_block_words(views, extra) <= t->pool_capacity - t->npool);
    *r = (fg_record){.param = param, .views = views, .extra = extra};
    r->size = fg_block_words(views, extra);
    return r;
}

void fg_block_view(fg_record *r, fg_id v, fg_view view)
{
    *fg_record_view(r, v) = view;
}

fg_id *fg_block_ids(fg_record *r)
{
    return (fg_id *)(void *)r + r->size;
}

void fg_block_list(fg_record *r, fg_id v, fg_id rows, fg_id cols)
{
    const fg_id *ids = fg_block_ids(r);
    /* Columns side by side, and rows in order, without overlap, for sums are added in place, and with
     * little between them, for that stays alive with them. */
    const int64_t step = rows > 1 && cols > 0 ? (int64_t)ids[cols] - ids[0] : cols;
    int in_order = step >= cols && step <= 2 * (int64_t)cols + 8;
    for (fg_id row = 0; in_order && row < rows; row++)
        for (fg_id col = 0; col < cols; col++)
            if ((int64_t)ids[row * cols + col] != ids[0] + row * step + col) {
                in_order = 0;
                break;
            }
    fg_view view = {0, 0, rows, cols, (int32_t)step, 1};
    if (in_order) {
        view.base = rows > 0 && cols > 0 ? ids[0] : 0;
    } else {
        view.flags = FG_VIEW_LIST;
        view.base = r->size;
        r->size += rows * cols;
    }
    fg_block_view(r, v, view);
}
