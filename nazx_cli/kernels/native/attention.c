/* Exact InAttention of one query over posting lists (design section 2); heads are vector lanes.

   For list u with un-rotated key components (a, b) of rotary pair f, and (ra, rb) of the rotated
   query, per head:
       A = ra a + rb b        B = rb a - ra b
       score(n) = s_u + sum_f [ A_f cos(theta_f n) + B_f sin(theta_f n) ]
       w_u      = sum over n in list u of 2^(score(n) - top)
   All scores are times log2(e). ``top`` only ever grows, to a bound of the scores: s_u + sum_f
   |(ra, rb)_f| max_u |(a, b)_f|. Where that is so far above the scores that weights vanish, lists
   are gone through again for the true maxima (FIND_TOP), and then for weights relative to those
   (KEEP_TOP).

   Entries: ``weigh`` takes s and gives w; ``attend`` makes s from states, s_u = x_u . v + const,
   and mixes the states by their weights, sum_u w_u x_u, while they are in the cache; each for a
   stretch of lists. ``combine`` makes one result of the stretches. ``prepare`` tells whether there
   is an ``attend``, and has to be called before it. ``measure`` bounds new pairs.

   Compiled with -DHEADS=H (at most 16) -DHALF=F -DBF16 (0 or 1: the type of pairs and states).
   64 bytes after the end of outer and inner may be read. */

#include "lists.h"
#if !BF16
#include "rows.h"
#elif defined(__AMX_BF16__) && defined(__linux__)
#include "tiles.h"
#else
int prepare(void) { return 0; }
void attend(struct job *j) {}
static void shrink_mixed(struct job *j, int head, float by) {}
static inline float mixed_at(const struct job *j, int head, int64_t c) { return 0.f; }
#endif

static void weigh_all(struct job *j) {
  const struct rows rows = {j->s + j->first * HEADS, j->w + j->first * HEADS, j->first, j->last, HEADS, HEADS};
  weigh_lists(j, &rows, 0);
}

void weigh(struct job *j) { settle(j, weigh_all, 0); }

/* Scale what came of ``count`` stretches so that all weights add up to 1: their w in place, or
   their mixed states into ``out`` (H, C). ``lse`` (H,) are the logarithms of the sums of the
   exponentials of all scores. */
void combine(struct job *jobs, int64_t count, float *out, float *lse) {
  for (int h = 0; h < HEADS; h++) {
    float top = LOWEST, mass = 0.f;
    for (int64_t i = 0; i < count; i++) top = jobs[i].top[h * SPLIT] > top ? jobs[i].top[h * SPLIT] : top;
    for (int64_t i = 0; i < count; i++) mass += mass_of(jobs + i, h) * exp2f(jobs[i].top[h * SPLIT] - top);
    lse[h] = (top + log2f(mass)) / LOG2_E;
    for (int64_t i = 0; i < count; i++) {
      const struct job *j = jobs + i;
      const float factor = exp2f(j->top[h * SPLIT] - top) / mass;
      if (j->w) for (int64_t u = j->first; u < j->last; u++) j->w[u * HEADS + h] *= factor;
      if (!j->mixed) continue;
      for (int64_t c = 0; c < j->width; c++) out[h * j->width + c] = (i ? out[h * j->width + c] : 0.f) + mixed_at(j, h, c) * factor;
    }
  }
}
