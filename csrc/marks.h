/* marks.h: a set of node ids as a bitmap of two levels, so that walking it from the top costs what
 * is in it and not what is alive: one summary bit says whether a word of 64 marks is empty.
 * It promises nothing about memory: the tape owns and grows both arrays. */
#ifndef FG_MARKS_H
#define FG_MARKS_H

#include "base.h"

typedef struct fg_marks {
    uint64_t *word;    /* [FG_MARKS_WORDS(capacity)] bit i % 64 of word[i / 64]: node i is marked */
    uint64_t *summary; /* [FG_MARKS_WORDS(words)] bit w % 64 of summary[w / 64]: word[w] has marks */
    fg_id lowest;      /* no summary word below this one has a bit, ... */
    fg_id highest;     /* ... and none above this one: whoever walks the marks keeps it */
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
    if (marked & bit) /* a parameter, most often: many nodes use it, and a read is all it takes */
        return;
    if (!marked) {
        m->summary[w >> 6] |= (uint64_t)1 << (w & 63u);
        if (w >> 6 < m->lowest)
            m->lowest = w >> 6;
    }
    m->word[w] = marked | bit;
}

/* Mark ids of word w, at least one. */
static inline void fg_marks_add_word(fg_marks *m, fg_id w, uint64_t bits)
{
    m->word[w] |= bits;
    m->summary[w >> 6] |= (uint64_t)1 << (w & 63u);
    if (w >> 6 < m->lowest)
        m->lowest = w >> 6;
}

/* Mark the ids that a word of bits stands for, of which the lowest is id i. Precondition: that bit is set. */
static inline void fg_marks_add_bits(fg_marks *m, fg_id i, uint64_t bits)
{
    const uint64_t next = i & 63u ? bits >> (64u - (i & 63u)) : 0;
    fg_marks_add_word(m, i >> 6, bits << (i & 63u));
    if (next)
        fg_marks_add_word(m, (i >> 6) + 1, next);
}

/* The marks of word w that are of the ids from `first` to before `end`, which has one in that word. */
static inline uint64_t fg_marks_mask(fg_id w, fg_id first, fg_id end)
{
    const uint64_t from = first >> 6 == w ? ~(uint64_t)0 << (first & 63u) : ~(uint64_t)0;
    const uint64_t to = end >> 6 == w ? ((uint64_t)1 << (end & 63u)) - 1u : ~(uint64_t)0;
    return from & to;
}

/* Mark the ids from `first` to before `end`, at least one. */
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
