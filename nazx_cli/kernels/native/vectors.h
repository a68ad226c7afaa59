/* Sixteen float32 numbers at a time, whatever the processor's own vectors are. */

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define LANES 16

typedef float vec __attribute__((vector_size(64)));
typedef float loose __attribute__((vector_size(64), aligned(4))); /* anywhere in memory */
typedef int32_t ivec __attribute__((vector_size(64)));
typedef uint32_t uvec __attribute__((vector_size(64)));
typedef uint32_t uloose __attribute__((vector_size(64), aligned(1)));

/* Whether the processor has such vectors itself: otherwise PyTorch's own code is quicker. */
int has_vectors(void) {
#ifdef __AVX512F__
  return 1;
#else
  return 0;
#endif
}

static inline vec load(const float *p) { return *(const loose *)p; }
static inline void store(float *p, vec x) { *(loose *)p = x; }

static inline float total(vec x) {
#ifdef __AVX512F__
  return _mm512_reduce_add_ps((__m512)x);
#else
  float sum = 0.f;
  for (int i = 0; i < LANES; i++) sum += x[i];
  return sum;
#endif
}

/* The totals of four, one after another at out. */
static inline void totals(const vec *x, float *out) {
#ifdef __AVX512F__
  const __m512 a = (__m512)x[0], b = (__m512)x[1], c = (__m512)x[2], d = (__m512)x[3];
  const __m512d ab = (__m512d)_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512d cd = (__m512d)_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512 all = _mm512_add_ps((__m512)_mm512_unpacklo_pd(ab, cd), (__m512)_mm512_unpackhi_pd(ab, cd));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), (__m256)_mm512_extractf64x4_pd((__m512d)all, 1));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#else
  for (int i = 0; i < 4; i++) out[i] = total(x[i]);
#endif
}

static inline vec greater(vec a, vec b) {
  const ivec is = a > b;
  return (vec)((ivec)a & is | (ivec)b & ~is);
}

/* The table's number for the low four bits of each lane. */
static inline vec look_up(vec table, uvec at) {
#ifdef __AVX512F__
  return (vec)_mm512_permutexvar_ps((__m512i)at, (__m512)table);
#else
  vec out;
  for (int i = 0; i < LANES; i++) out[i] = table[at[i] & 15];
  return out;
#endif
}

/* e^x within 2e-7 of it, relatively; x is taken to lie between -87 and 88. */
static inline vec exponential(vec x) {
  const vec zero = {};
  x = greater(x, zero - 87.f);
  x = -greater(-x, zero - 88.f);
  const vec n = (x * 1.44269504f + 12582912.f) - 12582912.f; /* rounded to a whole number */
  const vec r = x - n * 0.693359375f + n * 2.12194440e-4f;   /* ln 2 in two parts */
  vec p = r * (1.f / 5040) + 1.f / 720;
  p = p * r + 1.f / 120;
  p = p * r + 1.f / 24;
  p = p * r + 1.f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.f;
  return p * (vec)((__builtin_convertvector(n, ivec) + 127) << 23);
}
