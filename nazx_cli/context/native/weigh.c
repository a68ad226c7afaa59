/* Exact InAttention of one query over posting lists (design section 2); heads are vector lanes.

   For list u with un-rotated key components (a, b) of rotary pair f, and (ra, rb) of the rotated
   query, per head:
       A = ra a + rb b        B = rb a - ra b
       score(n) = s_u + sum_f [ A_f cos(theta_f n) + B_f sin(theta_f n) ]
       w_u      = sum over n in list u of exp(score(n) - top)
   ``top`` only ever grows, to a bound of the scores: s_u + sum_f sqrt(A_f^2 + B_f^2). Where that is
   so far above the scores that all weights vanish, the caller asks for the true maxima first
   (FIND_TOP), and then for weights relative to those (KEEP_TOP).

   Two entries: ``weigh`` takes s and gives w; ``attend`` makes s from states, s_u = x_u . v + const,
   and mixes the states by their weights, sum_u w_u x_u, while they are in the cache.

   Compiled with -DHEADS=H (at most 16) -DHALF=F -DBF16 (0 or 1: the type of the pairs).
   64 bytes after the end of pairs, s and w may be read or written. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES (HEADS <= 4 ? 4 : HEADS <= 8 ? 8 : 16)
#define BATCH 16 /* positions whose phases are made at a time */
#define AHEAD 4  /* lists ahead that rows are fetched */
#define CHUNK 64 /* lists whose states stay in the cache from their scores to their mixing */
#define BLOCK 4  /* rows, and heads, that share loads in the products with states */
#define UNROLL _Pragma("GCC unroll 128")

typedef float vec __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4), aligned(4)));
typedef float wide __attribute__((vector_size(64), aligned(4)));
#if BF16
typedef uint16_t number;
typedef uint16_t nvec __attribute__((vector_size(LANES * 2), aligned(2)));
#define LOAD(p) ((vec)(__builtin_convertvector(*(const nvec *)(p), ivec) << 16))
#else
typedef float number;
#define LOAD(p) (*(const vec *)(p))
#endif

struct job {
  const number *pairs;            /* (U, 2F, H) */
  float *s, *w;                   /* (U, H) each; for ``attend`` (CHUNK, H), scratch */
  const float *ra, *rb;           /* (F, LANES) each */
  const int64_t *offsets;         /* (U + 1,) */
  const int32_t *positions;       /* (N,) */
  const float *outer, *inner;     /* phases of multiples of 1024, and of 0..1023: (., 2F) */
  float *top, *mass;              /* (LANES,) each */
  const float *states;            /* (U, C) */
  const float *v, *constants;     /* (HB, C), HB: H rounded up to BLOCK; (H,) */
  float *mixed;                   /* (HB, C) */
  int64_t first, last, mode, width; /* lists to take in; C, a multiple of 16 */
};

enum { BOUND_TOP, FIND_TOP, KEEP_TOP };

static inline vec all(float x) { return x - (vec){}; }

static inline vec exponential(vec x) {
  vec y = x * 1.44269504f;
  ivec low = y < all(-126.f);
  y = (vec)(((ivec)y & ~low) | ((ivec)all(-126.f) & low));
  vec t = y + 12582912.f; /* 1.5 * 2^23: the rounded y ends up in the low bits */
  vec r = y - (t - 12582912.f);
  vec p = all(0.000154035304f);
  p = p * r + 0.00133335581f;
  p = p * r + 0.00961812911f;
  p = p * r + 0.0555041087f;
  p = p * r + 0.240226507f;
  p = p * r + 0.693147181f;
  p = p * r + 1.f;
  return (vec)((ivec)p + ((ivec)t << 23));
}

/* Raise tops to ``bound`` and a little more; what was gathered before comes to the new scale:
   weights of lists first..list-1, row 0 being that of ``base``, and the mixed states. */
static __attribute__((noinline)) void raise_top(struct job *j, int64_t base, int64_t first, int64_t list, const float *bound) {
  for (int h = 0; h < HEADS; h++) {
    if (bound[h] <= j->top[h]) continue;
    float up = bound[h] + 2.f, shrink = j->mass[h] == 0.f ? 0.f : expf(j->top[h] - up);
    for (int64_t u = first; u < list; u++) j->w[(u - base) * HEADS + h] *= shrink;
    if (j->mixed) for (int64_t i = 0; i < j->width; i++) j->mixed[h * j->width + i] *= shrink;
    j->mass[h] *= shrink;
    j->top[h] = up;
  }
}

static inline void raise_to(float *top, vec x) {
  for (int h = 0; h < HEADS; h++) top[h] = x[h] > top[h] ? x[h] : top[h];
}

/* cos and sin of theta_f n, by angle addition: n = 1024 o + r. */
static inline void make_phases(const struct job *j, int64_t at, int n, float *phases) {
  for (int i = 0; i < n; i++) {
    int32_t p = j->positions[at + i];
    const float *o = j->outer + (int64_t)(p >> 10) * 2 * HALF, *r = j->inner + (p & 1023) * 2 * HALF;
    float *restrict out = phases + i * 2 * HALF;
    UNROLL for (int f = 0; f < HALF; f++) {
      out[f] = o[f] * r[f] - o[HALF + f] * r[HALF + f];
      out[HALF + f] = o[HALF + f] * r[f] + o[f] * r[HALF + f];
    }
  }
}

/* Lists first..last-1; row 0 of s and w is that of list ``base``. */
static void weigh_lists(struct job *j, int64_t base, int64_t first, int64_t last) {
  vec ra[HALF], rb[HALF], c[2 * HALF];
  memcpy(ra, j->ra, sizeof ra);
  memcpy(rb, j->rb, sizeof rb);
  float phases[BATCH * 2 * HALF];
  const int find = j->mode == FIND_TOP;
  for (int64_t u = first; u < last; u++) {
    const number *row = j->pairs + u * 2 * HALF * HEADS;
    for (int i = 0; i < 2 * HALF * HEADS * (int)sizeof(number); i += 64)
      __builtin_prefetch((const char *)(row + AHEAD * 2 * HALF * HEADS) + i);
    vec s = all(0.f);
    memcpy(&s, j->s + (u - base) * HEADS, HEADS * sizeof(float));
    vec cheap = s; /* |A| + |B| is a bound as well, and needs no root */
    UNROLL for (int f = 0; f < HALF; f++) {
      vec a = LOAD(row + f * HEADS), b = LOAD(row + (HALF + f) * HEADS);
      c[f] = ra[f] * a + rb[f] * b;
      c[HALF + f] = rb[f] * a - ra[f] * b;
      cheap += (vec)((ivec)c[f] & 0x7fffffff) + (vec)((ivec)c[HALF + f] & 0x7fffffff);
    }
    if (j->mode == BOUND_TOP) {
      ivec over = cheap > *(vec *)j->top;
      int any = 0;
      for (int h = 0; h < HEADS; h++) any |= over[h];
      if (__builtin_expect(any, 0)) {
        float bound[LANES];
        for (int h = 0; h < LANES; h++) {
          bound[h] = s[h];
          for (int f = 0; f < HALF; f++) bound[h] += sqrtf(c[f][h] * c[f][h] + c[HALF + f][h] * c[HALF + f][h]);
        }
        raise_top(j, base, first, u, bound);
      }
    }
    if (!find) s -= *(vec *)j->top;
    vec sum = all(0.f);
    for (int64_t at = j->offsets[u], end = j->offsets[u + 1]; at < end; at += BATCH) {
      int n = end - at < BATCH ? (int)(end - at) : BATCH, i = 0;
      make_phases(j, at, n, phases);
      for (; i + 3 < n && !find; i += 4) { /* four positions share each load of a coefficient */
        const float *p = phases + i * 2 * HALF, *q = p + 2 * HALF, *r = q + 2 * HALF, *t = r + 2 * HALF;
        vec x = s, y = s, z = s, v = s;
        UNROLL for (int f = 0; f < 2 * HALF; f++) {
          x += p[f] * c[f];
          y += q[f] * c[f];
          z += r[f] * c[f];
          v += t[f] * c[f];
        }
        sum += (exponential(x) + exponential(y)) + (exponential(z) + exponential(v));
      }
      for (; i < n; i++) {
        const float *p = phases + i * 2 * HALF;
        vec x = s, y = all(0.f);
        UNROLL for (int f = 0; f < HALF; f++) {
          x += p[f] * c[f];
          y += p[HALF + f] * c[HALF + f];
        }
        if (find) raise_to(j->top, x + y);
        else sum += exponential(x + y);
      }
    }
    if (find) continue;
    *(vec *)j->mass += sum;
    memcpy(j->w + (u - base) * HEADS, &sum, HEADS * sizeof(float));
  }
}

void weigh(struct job *j) { weigh_lists(j, 0, j->first, j->last); }

static inline float total(wide x) {
  float parts[16], sum = 0.f;
  memcpy(parts, &x, sizeof parts);
  for (int i = 0; i < 16; i++) sum += parts[i];
  return sum;
}

/* s = x . v + constant for n rows x (n, C). */
static void score_rows(const struct job *j, const float *x, int n) {
  const int64_t C = j->width;
  for (int i = 0; i < n; i += BLOCK) {
    const int few = n - i < BLOCK ? n - i : BLOCK;
    for (int h = 0; h < HEADS; h += BLOCK) {
      wide sums[BLOCK][BLOCK] = {};
      const float *rows = x + i * C, *v = j->v + h * C;
      if (few == BLOCK) {
        for (int64_t c = 0; c < C; c += 16) {
          if (h == 0) for (int m = 0; m < BLOCK; m++) __builtin_prefetch(rows + (2 * BLOCK + m) * C + c);
          wide b[BLOCK];
          UNROLL for (int k = 0; k < BLOCK; k++) b[k] = *(const wide *)(v + k * C + c);
          UNROLL for (int m = 0; m < BLOCK; m++) {
            wide a = *(const wide *)(rows + m * C + c);
            UNROLL for (int k = 0; k < BLOCK; k++) sums[m][k] += a * b[k];
          }
        }
      } else {
        for (int m = 0; m < few; m++) for (int64_t c = 0; c < C; c += 16) for (int k = 0; k < BLOCK; k++)
          sums[m][k] += *(const wide *)(rows + m * C + c) * *(const wide *)(v + k * C + c);
      }
      for (int m = 0; m < few; m++) for (int k = 0; k < BLOCK && h + k < HEADS; k++)
        j->s[(i + m) * HEADS + h + k] = total(sums[m][k]) + j->constants[h + k];
    }
  }
}

/* mixed += w^T x for n rows. */
static void mix_rows(struct job *j, const float *x, int n) {
  const int64_t C = j->width;
  for (int i = 0; i < n; i += BLOCK) {
    for (int h = 0; h < HEADS; h += BLOCK) {
      float w[BLOCK][BLOCK] = {};
      for (int m = 0; m < BLOCK && i + m < n; m++) for (int k = 0; k < BLOCK && h + k < HEADS; k++)
        w[m][k] = j->w[(i + m) * HEADS + h + k];
      const float *r0 = x + i * C, *r1 = i + 1 < n ? r0 + C : r0, *r2 = i + 2 < n ? r0 + 2 * C : r0, *r3 = i + 3 < n ? r0 + 3 * C : r0;
      float *out = j->mixed + h * C;
      for (int64_t c = 0; c < C; c += 16) {
        wide a = *(const wide *)(r0 + c), b = *(const wide *)(r1 + c), d = *(const wide *)(r2 + c), e = *(const wide *)(r3 + c);
        UNROLL for (int k = 0; k < BLOCK; k++) {
          wide *m = (wide *)(out + k * C + c);
          wide t = *m;
          t += w[0][k] * a;
          t += w[1][k] * b;
          t += w[2][k] * d;
          t += w[3][k] * e;
          *m = t;
        }
      }
    }
  }
}

void attend(struct job *j) {
  for (int64_t u = j->first; u < j->last; u += CHUNK) {
    int n = j->last - u < CHUNK ? (int)(j->last - u) : CHUNK;
    const float *x = j->states + u * j->width;
    score_rows(j, x, n);
    weigh_lists(j, u, u, u + n);
    if (j->mode != FIND_TOP) mix_rows(j, x, n);
  }
}
