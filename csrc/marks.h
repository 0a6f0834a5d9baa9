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

#endif
