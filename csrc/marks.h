/* marks.h: a set of node ids, as a bitmap of two levels. A summary bit says whether a word of 64 marks
 * has any mark. So the time of a walk from the top depends on the number of marks, and not on the number
 * of living nodes. The tape owns and grows both arrays. */
#ifndef FG_MARKS_H
#define FG_MARKS_H

#include "base.h"

typedef struct fg_marks {
    uint64_t *word;    /* [FG_MARKS_WORDS(capacity)] bit i % 64 of word[i / 64]: node i is marked */
    uint64_t *summary; /* [FG_MARKS_WORDS(words)] bit w % 64 of summary[w / 64]: word[w] has marks */
    fg_id lowest;      /* no summary word below this one has a bit, ... */
    fg_id highest;     /* ... and none above this one; code that walks the marks maintains `highest` */
} fg_marks;

#define FG_MARKS_WORDS(n) (((size_t)(n) + 63u) / 64u)

static inline int fg_marks_has(const fg_marks *m, fg_id i)
{
    return (int)(m->word[i >> 6] >> (i & 63u) & 1u);
}

static inline void fg_marks_add(fg_marks *m, fg_id i)
{
    const fg_id w = i >> 6;
    const uint64_t bit = (uint64_t)1 << (i & 63u), marked = m->word[w];
    if (marked & bit) /* most often a parameter, which many nodes use: only this read is needed */
        return;
    if (!marked) {
        m->summary[w >> 6] |= (uint64_t)1 << (w & 63u);
        if (w >> 6 < m->lowest)
            m->lowest = w >> 6;
    }
    m->word[w] = marked | bit;
}

/* Mark the ids of the set bits in word w. Precondition: `bits` has at least one set bit. */
static inline void fg_marks_add_word(fg_marks *m, fg_id w, uint64_t bits)
{
    m->word[w] |= bits;
    m->summary[w >> 6] |= (uint64_t)1 << (w & 63u);
    if (w >> 6 < m->lowest)
        m->lowest = w >> 6;
}

/* Mark the ids of the set bits; the lowest bit is id i. Precondition: the lowest bit is set. */
static inline void fg_marks_add_bits(fg_marks *m, fg_id i, uint64_t bits)
{
    const uint64_t next = i & 63u ? bits >> (64u - (i & 63u)) : 0;
    fg_marks_add_word(m, i >> 6, bits << (i & 63u));
    if (next)
        fg_marks_add_word(m, (i >> 6) + 1, next);
}

/* The bits of word w for the ids from `first` to before `end`. Precondition: at least one of these ids is in word w. */
static inline uint64_t fg_marks_mask(fg_id w, fg_id first, fg_id end)
{
    const uint64_t from = first >> 6 == w ? ~(uint64_t)0 << (first & 63u) : ~(uint64_t)0;
    const uint64_t to = end >> 6 == w ? ((uint64_t)1 << (end & 63u)) - 1u : ~(uint64_t)0;
    return from & to;
}

/* Mark the ids from `first` to before `end`. Precondition: first < end. */
static inline void fg_marks_add_range(fg_marks *m, fg_id first, fg_id end)
{
    for (fg_id w = first >> 6; w <= (end - 1) >> 6; w++) {
        m->word[w] |= fg_marks_mask(w, first, end);
        m->summary[w >> 6] |= (uint64_t)1 << (w & 63u);
    }
    if (first >> 12 < m->lowest)
        m->lowest = first >> 12;
}

#endif
