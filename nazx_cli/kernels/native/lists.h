/* Weights of posting lists for one query; see attention.c for the formulas.

   A vector holds heads as lanes. Up to 8 heads leave room for two positions side by side
   (SPLIT = 2): lane 2 h + e is head h at position e of a pair. */

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define LANES 16
#define SPLIT (HEADS <= 8 ? 2 : 1)
#define COLUMNS (LANES / SPLIT) /* of a row of scores or weights: heads, and unused ones */
#define BATCH 16                /* positions whose phases are made at a time */
#define AHEAD 4                 /* lists ahead that pairs are fetched */
#define PIECE (HALF <= 8 ? 8 : 16) /* phases that are made at a time */
#define ROOM ((HALF + PIECE - 1) / PIECE * PIECE)
#define UNROLL _Pragma("GCC unroll 128")

typedef float vec __attribute__((vector_size(64), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(64), aligned(4)));
typedef uint64_t lvec __attribute__((vector_size(64), aligned(4)));
typedef float piece __attribute__((vector_size(PIECE * 4), aligned(4)));
typedef uint64_t two_floats __attribute__((aligned(4), may_alias));

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define SHUFFLE_PIECE SHUFFLE
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
typedef int32_t ipiece __attribute__((vector_size(32)));
#define SHUFFLE_PIECE(a, b, ...) __builtin_shuffle(a, b, (ipiece){__VA_ARGS__})
#endif

#if BF16
typedef uint16_t number;
#else
typedef float number;
#endif

struct job {
  const number *pairs;                   /* (U, F, H, 2) in bfloat16, (U, F, 2, H) in float32 */
  const float *longest;                  /* (F, LANES): largest a^2 + b^2 of any list */
  const int64_t *offsets;                /* (U + 1,) */
  const int32_t *positions;              /* (N,) */
  const float *outer, *inner;            /* phases of multiples of 1024, and of 0..1023: (., 2F) */
  const float *query, *phases;           /* (H, D) un-rotated; (2F,) of its position */
  const float *s;                        /* for ``weigh``: (U, H) */
  float *w;                              /* for ``weigh``: (U, H) */
  const number *states;                  /* for ``attend``: (U, C) */
  const float *v, *constants;            /* for ``attend``: (H, C), (H,) */
  float *mixed;                          /* for ``attend``: see rows.h and tiles.h */
  void *scratch;
  int64_t first, last, width, dim;       /* lists to take in; C; D */
  float top[LANES], mass[LANES];         /* from here on: what comes of it */
  int64_t mode;
  const float *turned;                   /* (2 F + 1, LANES): see ``turn_query`` */
  const char *ahead;                     /* what is fetched next */
};

enum { BOUND_TOP, FIND_TOP, KEEP_TOP };

#define LOG2_E 1.44269504f
#define LOWEST -1e30f
#define LEAST_MASS 1e-24f /* below: the bound was so far off that weights begin to vanish */

static inline vec all(float x) { return x - (vec){}; }

static inline vec larger(vec x, vec y) {
#ifdef __AVX512F__
  return (vec)_mm512_max_ps((__m512)x, (__m512)y);
#else
  ivec x_is = x > y;
  return (vec)(((ivec)x & x_is) | ((ivec)y & ~x_is));
#endif
}

static inline vec exp2_of(vec x) {
  vec y = larger(x, all(-126.f));
  vec t = y + 12582912.f; /* 1.5 * 2^23: the rounded y ends up in the low bits */
  vec r = y - (t - 12582912.f);
#if BF16 /* within 3e-6 */
  vec p = all(0.0095701022f);
  p = p * r + 0.055917859f;
  p = p * r + 0.24024745f;
  p = p * r + 0.69312179f;
  p = p * r + 0.99999928f;
#else /* within 1e-7 */
  vec p = all(0.0013276472f);
  p = p * r + 0.0096755410f;
  p = p * r + 0.055507131f;
  p = p * r + 0.24022120f;
  p = p * r + 0.69314694f;
  p = p * r + 1.00000012f;
#endif
  return (vec)((ivec)p + ((ivec)t << 23));
}

/* Whether any head's x is above y. */
static inline int exceeds(vec x, vec y) {
#ifdef __AVX512F__
  return _mm512_cmp_ps_mask((__m512)x, (__m512)y, _CMP_GT_OQ) & ((1 << HEADS * SPLIT) - 1);
#else
  ivec over = x > y;
  int any = 0;
  for (int i = 0; i < HEADS * SPLIT; i++) any |= over[i];
  return any;
#endif
}

/* A number for each head as lanes. */
static inline vec spread(const float *row) {
#ifdef __AVX512F__
  vec x = (vec)_mm512_maskz_loadu_ps((1 << HEADS) - 1, row);
#else
  vec x = {};
  memcpy(&x, row, HEADS * sizeof(float));
#endif
  return HEADS <= 8 ? SHUFFLE(x, x, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7) : x;
}

/* Lanes summed to a number for each head, at the beginning. */
static inline vec gathered(vec x) {
#if HEADS <= 8
  x += SHUFFLE(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
  x = SHUFFLE(x, x, 0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14);
#endif
  return x;
}

/* Key components a and b of rotary pair f. */
static inline void load_pair(const number *row, int f, vec *a, vec *b) {
#if BF16
  vec both = spread((const float *)(row + 2 * f * HEADS));
  *a = (vec)((ivec)both << 16);
  *b = (vec)((ivec)both & (int32_t)0xffff0000);
#else
  *a = spread(row + 2 * f * HEADS);
  *b = spread(row + (2 * f + 1) * HEADS);
#endif
}

/* A phase, or those of two positions, for every head. */
static inline vec phase(const float *phases, int f) {
#if HEADS <= 8
  return (vec)(*(const two_floats *)(phases + 2 * f) - (lvec){});
#else
  return all(phases[f]);
#endif
}

/* Lists first..last-1, the scores of their other dimensions, and where their weights go. */
struct rows {
  const float *s;
  float *w;
  int64_t first, last, s_stride, w_stride;
};

/* Have the next ``lines`` lines of what comes next fetched to the second-level cache. */
static inline void fetch(struct job *j, int lines) {
  for (int i = 0; i < lines; i++) __builtin_prefetch(j->ahead + 64 * i, 0, 2);
  j->ahead += 64 * lines;
}

static void shrink_mixed(struct job *j, int head, float by);

/* Raise tops to whole numbers above ``bound``, so that scales are powers of two; what was gathered
   before comes to the new one: weights of lists before ``list`` and the mixed states. */
static __attribute__((noinline)) void raise_top(struct job *j, const struct rows *r, int64_t list, vec bound) {
  for (int i = 0; i < HEADS * SPLIT; i += SPLIT) {
    if (bound[i] <= j->top[i]) continue;
    const int h = i / SPLIT;
    const float up = ceilf(bound[i]) + 3.f, shrink = j->mass[i] == 0.f ? 0.f : exp2f(j->top[i] - up);
    for (int64_t u = r->first; u < list; u++) r->w[(u - r->first) * r->w_stride + h] *= shrink;
    if (j->mixed) shrink_mixed(j, h, shrink);
    for (int e = 0; e < SPLIT; e++) j->mass[i + e] *= shrink, j->top[i + e] = up;
  }
}

/* Raise tops to the scores x of the first ``count`` positions in the lanes. */
static void raise_to(float *top, vec x, int count) {
  for (int i = 0; i < HEADS * SPLIT; i++) {
    float *own = top + i / SPLIT * SPLIT;
    if (i % SPLIT < count && x[i] > *own) for (int e = 0; e < SPLIT; e++) own[e] = x[i];
  }
}

/* Two vectors of phases, one after the other (SPLIT = 1: only the first counts) or number by number. */
static inline void put_phases(float *out, piece x, piece y) {
#if HEADS > 8
  *(piece *)out = x;
#elif HALF <= 8
  *(piece *)out = SHUFFLE_PIECE(x, y, 0, 8, 1, 9, 2, 10, 3, 11);
  *(piece *)(out + PIECE) = SHUFFLE_PIECE(x, y, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  *(piece *)out = SHUFFLE(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  *(piece *)(out + PIECE) = SHUFFLE(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#endif
}

/* cos and sin of theta_f n, by angle addition: n = 1024 o + r. For each position, or pair of them,
   cosines and then sines, ROOM each. */
static inline void make_phases(const struct job *j, int64_t at, int n, float *phases) {
  for (int i = 0; i < n; i += SPLIT, phases += 2 * ROOM * SPLIT) {
    const float *o[SPLIT], *r[SPLIT];
    for (int e = 0; e < SPLIT; e++) {
      const int32_t p = j->positions[at + (i + e < n ? i + e : i)];
      o[e] = j->outer + (int64_t)(p >> 10) * 2 * HALF, r[e] = j->inner + (p & 1023) * 2 * HALF;
    }
    UNROLL for (int f = 0; f < ROOM; f += PIECE) {
      piece cosines[2], sines[2];
      UNROLL for (int e = 0; e < SPLIT; e++) {
        const piece oc = *(const piece *)(o[e] + f), os = *(const piece *)(o[e] + HALF + f);
        const piece rc = *(const piece *)(r[e] + f), rs = *(const piece *)(r[e] + HALF + f);
        cosines[e] = oc * rc - os * rs;
        sines[e] = os * rc + oc * rs;
      }
      put_phases(phases + f * SPLIT, cosines[0], cosines[SPLIT - 1]);
      put_phases(phases + (ROOM + f) * SPLIT, sines[0], sines[SPLIT - 1]);
    }
  }
}

/* Weigh lists. For each of them ``lines`` lines of what comes next are fetched. */
static __attribute__((noinline)) void weigh_lists(struct job *j, const struct rows *r, int lines) {
  vec ra[HALF], rb[HALF], c[2 * HALF], reach;
  memcpy(ra, j->turned, sizeof ra);
  memcpy(rb, j->turned + HALF * LANES, sizeof rb);
  memcpy(&reach, j->turned + 2 * HALF * LANES, sizeof reach);
  float phases[BATCH * 2 * ROOM];
  const int find = j->mode == FIND_TOP, bounded = j->mode == BOUND_TOP;
  vec limit = *(vec *)j->top - reach;
  const int run = 2 * ROOM * SPLIT; /* numbers from one vector's phases to the next one's */
  for (int64_t u = r->first; u < r->last; u++) {
    const number *row = j->pairs + u * 2 * HALF * HEADS;
    for (int i = 0; i < 2 * HALF * HEADS * (int)sizeof(number); i += 64)
      __builtin_prefetch((const char *)(row + AHEAD * 2 * HALF * HEADS) + i);
    fetch(j, lines);
    vec s = spread(r->s + (u - r->first) * r->s_stride) * LOG2_E;
    UNROLL for (int f = 0; f < HALF; f++) {
      vec a, b;
      load_pair(row, f, &a, &b);
      c[f] = ra[f] * a + rb[f] * b;
      c[HALF + f] = rb[f] * a - ra[f] * b;
    }
    if (bounded && exceeds(s, limit)) {
      raise_top(j, r, u, s + reach);
      limit = *(vec *)j->top - reach;
    }
    if (!find) s -= *(vec *)j->top;
    vec sum = all(0.f);
    for (int64_t at = j->offsets[u], end = j->offsets[u + 1]; at < end; at += BATCH) {
      const int n = end - at < BATCH ? (int)(end - at) : BATCH;
      make_phases(j, at, n, phases);
      int i = 0;
      for (; i + 4 * SPLIT <= n && !find; i += 4 * SPLIT) { /* four vectors share each load of a coefficient */
        const float *p = phases + i * 2 * ROOM;
        vec x = s, y = s, z = s, v = s;
        UNROLL for (int g = 0; g < 2 * HALF; g++) {
          const int f = g < HALF ? g : ROOM + g - HALF;
          x += phase(p, f) * c[g];
          y += phase(p + run, f) * c[g];
          z += phase(p + 2 * run, f) * c[g];
          v += phase(p + 3 * run, f) * c[g];
        }
        sum += (exp2_of(x) + exp2_of(y)) + (exp2_of(z) + exp2_of(v));
      }
      for (; i < n; i += SPLIT) {
        const float *p = phases + i * 2 * ROOM;
        vec x = s, y = all(0.f), z = all(0.f), v = all(0.f);
        UNROLL for (int f = 0; f < HALF; f += 2) {
          x += phase(p, f) * c[f];
          y += phase(p, ROOM + f) * c[HALF + f];
          if (f + 1 < HALF) z += phase(p, f + 1) * c[f + 1];
          if (f + 1 < HALF) v += phase(p, ROOM + f + 1) * c[HALF + f + 1];
        }
        x += y + (z + v);
        if (find) raise_to(j->top, x, n - i);
        else {
          x = exp2_of(x);
#if HEADS <= 8
          if (n - i < SPLIT) x = (vec)((ivec)x & (ivec){-1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0});
#endif
          sum += x;
        }
      }
    }
    if (find) continue;
    *(vec *)j->mass += sum;
    sum = gathered(sum);
    memcpy(r->w + (u - r->first) * r->w_stride, &sum, HEADS * sizeof(float));
  }
}

/* The query's pairs at its own position, scale included: ra (F, LANES), rb (F, LANES); and how far
   a score can be above its s: (LANES,). */
static void turn_query(const struct job *j, float *out) {
  const float scale = LOG2_E / sqrtf(j->dim);
  float *reach = out + 2 * HALF * LANES;
  for (int i = 0; i < LANES; i++) reach[i] = 0.f;
  for (int f = 0; f < HALF; f++) for (int i = 0; i < LANES; i++) {
    const int h = i / SPLIT;
    const float a = h < HEADS ? j->query[h * j->dim + f] * scale : 0.f;
    const float b = h < HEADS ? j->query[h * j->dim + HALF + f] * scale : 0.f;
    out[f * LANES + i] = a * j->phases[f] - b * j->phases[HALF + f];
    out[(HALF + f) * LANES + i] = b * j->phases[f] + a * j->phases[HALF + f];
    const float ra = out[f * LANES + i], rb = out[(HALF + f) * LANES + i];
    reach[i] += sqrtf((ra * ra + rb * rb) * j->longest[f * LANES + i]);
  }
}

static inline float mass_of(const struct job *j, int head) {
  return j->mass[head * SPLIT] + (SPLIT > 1 ? j->mass[head * SPLIT + SPLIT - 1] : 0.f);
}

/* Take in all lists, by exact maxima where the bound is too far from the scores. */
static void settle(struct job *j, void (*pass)(struct job *), int64_t mixed) {
  float turned[(2 * HALF + 1) * LANES];
  turn_query(j, turned);
  j->turned = turned;
  int lost = 0;
  for (int mode = BOUND_TOP; mode <= (lost ? KEEP_TOP : BOUND_TOP); mode++) {
    for (int i = 0; i < LANES && mode != KEEP_TOP; i++) j->top[i] = LOWEST;
    memset(j->mass, 0, sizeof j->mass);
    memset(j->mixed, 0, mixed * sizeof(float));
    j->mode = mode;
    pass(j);
    if (mode == BOUND_TOP) for (int h = 0; h < HEADS; h++) lost |= !(mass_of(j, h) >= LEAST_MASS);
  }
  j->turned = 0;
}

/* Raise ``longest`` (F, LANES), in scratch, to what lists first..last-1 have. */
void measure(struct job *j) {
  vec *longest = j->scratch;
  for (int64_t u = j->first; u < j->last; u++) {
    const number *row = j->pairs + u * 2 * HALF * HEADS;
    for (int f = 0; f < HALF; f++) {
      vec a, b;
      load_pair(row, f, &a, &b);
      longest[f] = larger(a * a + b * b, longest[f]);
    }
  }
}
