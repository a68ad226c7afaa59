/* Attention of one query to positions whose initial states see WINDOW tokens, for which see
   context/grams.py; heads are vector lanes.

   With P_(d, t) = (a, b) what the row of token t at distance d gives to the key's rotary pair f, s_(d, t)
   what it gives to the score of the other dimensions, and (ra, rb) of the rotated query, per head:
       qa = ra cos(theta_f n) + rb sin(theta_f n)      qb = rb cos(theta_f n) - ra sin(theta_f n)
       score(n) = scale_n sum_d [ s_(d, t) + sum_f a qa + b qb ] + constant + sum_f fixed . (qa, qb)
   with t = t_(n - d), as far as there are tokens before. ``score`` gives those of positions first..last-1, times log2(e), and their
   largest; ``sum`` adds up scale_n 2^(score(n) - top) for each token and distance.

   Compiled with -DHEADS=H (at most 16) -DHALF=F -DWINDOW=w -DBF16 (0 or 1: the type of rows). */

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif
#define LANES 16 /* of what is handed over */
/* WIDE: lanes of a vector. Without AVX-512 one that is stored in part and loaded whole waits for the store, so heads are taken in
   groups that fill vectors, one group after another, where they can be. */
#ifdef __AVX512F__
#define WIDE 16
#elif HEADS % 8 == 0 || (HEADS > 4 && HEADS < 8)
#define WIDE 8
#elif HEADS % 4 == 0 || HEADS < 4
#define WIDE 4
#else
#define WIDE 16
#endif
#define HELD (HEADS < WIDE ? HEADS : WIDE) /* of them in use */
#define AHEAD 8 /* positions ahead that rows are fetched */
#define UNROLL _Pragma("GCC unroll 64")
typedef float vec __attribute__((vector_size(WIDE * 4), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(WIDE * 4), aligned(4)));
#if BF16
typedef uint16_t number;
#else
typedef float number;
#endif
static inline vec all(float x) { return x - (vec){}; }
static inline vec spread(const float *row) {
#ifdef __AVX512F__
  return (vec)_mm512_maskz_loadu_ps((1 << HEADS) - 1, row);
#else
  if (HELD == WIDE) return *(const vec *)row;
  vec x = {}; memcpy(&x, row, HELD * 4); return x;
#endif
}
static inline void load_pair(const number *row, int f, vec *a, vec *b) {
#if BF16
  vec both = spread((const float *)(row + 2 * f * HEADS));
  *a = (vec)((ivec)both << 16); *b = (vec)((ivec)both & (int32_t)0xffff0000);
#else
  *a = spread(row + 2 * f * HEADS); *b = spread(row + (2 * f + 1) * HEADS);
#endif
}
static inline vec larger(vec x, vec y) { ivec is = x > y; return (vec)(((ivec)x & is) | ((ivec)y & ~is)); }
static inline vec exp2_of(vec x) {
  vec y = larger(x, all(-126.f));
  vec t = y + 12582912.f, r = y - (t - 12582912.f);
  vec p = all(0.0013276472f);
  p = p * r + 0.0096755410f; p = p * r + 0.055507131f; p = p * r + 0.24022120f; p = p * r + 0.69314694f; p = p * r + 1.00000012f;
  return (vec)((ivec)p + ((ivec)t << 23));
}
struct job {
  const number *rows;            /* (U, w, F, H, 2) in bfloat16, (U, w, F, 2, H) in float32 */
  const float *s;                /* (U, w, H) */
  const int32_t *slots;          /* (N,), and before it WINDOW - 1 more; -1: there is no token */
  const float *scale;            /* (N,) */
  const float *outer, *inner;    /* phases of multiples of 1024, and of 0..1023: (., 2F) */
  const float *turned, *fixed;   /* (2F, LANES): ra, rb; (2F + 1, LANES): those of a, of b, and constant */
  float *scores, *sums;          /* (N, H); (U, w, LANES) */
  int64_t first, last;
  float top[LANES], mass[LANES]; /* what comes of it */
};
static void score_group(struct job *j, int base) { /* heads base..base + HELD - 1 */
  const float *turned = j->turned + base, *fixed = j->fixed + base;
  vec ra[HALF], rb[HALF];
  for (int f = 0; f < HALF; f++) { ra[f] = *(vec *)(turned + f * LANES); rb[f] = *(vec *)(turned + (HALF + f) * LANES); }
  vec top = all(-1e30f);
  for (int64_t n = j->first; n < j->last; n++) {
    const float *o = j->outer + (n >> 10) * 2 * HALF, *r = j->inner + (n & 1023) * 2 * HALF;
    int here = n < WINDOW - 1 ? 1 : WINDOW;
    while (here < WINDOW && j->slots[n - here] >= 0) here++;
    const number *row[WINDOW]; vec x = all(0.f);
    __builtin_prefetch(j->s + (int64_t)j->slots[n + AHEAD < j->last ? n + AHEAD : n] * WINDOW * HEADS);
    const char *next = (const char *)(j->rows + (int64_t)j->slots[n + AHEAD < j->last ? n + AHEAD : n] * WINDOW * 2 * HALF * HEADS);
    for (int i = 0; i < WINDOW * 2 * HALF * HEADS * (int)sizeof(number); i += 64) __builtin_prefetch(next + i);
    for (int d = 0; d < here; d++) {
      const int64_t at = (int64_t)j->slots[n - d] * WINDOW + d;
      row[d] = j->rows + at * 2 * HALF * HEADS + base * (BF16 ? 2 : 1); x += spread(j->s + at * HEADS + base);
    }
    vec y = all(0.f), z = *(vec *)(fixed + 2 * HALF * LANES), v = all(0.f);
    UNROLL for (int f = 0; f < HALF; f++) {
      const float c = o[f] * r[f] - o[HALF + f] * r[HALF + f], s = o[HALF + f] * r[f] + o[f] * r[HALF + f];
      const vec qa = ra[f] * c + rb[f] * s, qb = rb[f] * c - ra[f] * s;
      vec a, b, e, g;
      load_pair(row[0], f, &a, &b);
      if (here == WINDOW) { UNROLL for (int d = 1; d < WINDOW; d++) { load_pair(row[d], f, &e, &g); a += e; b += g; } }
      else for (int d = 1; d < here; d++) { load_pair(row[d], f, &e, &g); a += e; b += g; }
      x += a * qa; y += b * qb;
      z += *(vec *)(fixed + f * LANES) * qa; v += *(vec *)(fixed + (HALF + f) * LANES) * qb;
    }
    x = (x + y) * j->scale[n] + (z + v);
    top = larger(x, top);
    memcpy(j->scores + n * HEADS + base, &x, HELD * 4);
  }
  memcpy(j->top + base, &top, sizeof top);
}
static void sum_group(struct job *j, int base) {
  vec top, mass = all(0.f); memcpy(&top, j->top + base, sizeof top);
  for (int64_t n = j->first; n < j->last; n++) {
    vec w = exp2_of(spread(j->scores + n * HEADS + base) - top);
    mass += w; w *= j->scale[n];
    __builtin_prefetch(j->sums + (int64_t)j->slots[n + AHEAD < j->last ? n + AHEAD : n] * WINDOW * LANES, 1);
    for (int d = 0; d < WINDOW && j->slots[n - d] >= 0; d++) *(vec *)(j->sums + ((int64_t)j->slots[n - d] * WINDOW + d) * LANES + base) += w;
  }
  memcpy(j->mass + base, &mass, sizeof mass);
}
void score(struct job *j) { for (int base = 0; base < HEADS; base += WIDE) score_group(j, base); }
void sum(struct job *j) { for (int base = 0; base < HEADS; base += WIDE) sum_group(j, base); }
