/* As many float32 numbers at a time as the processor's own vectors hold: AVX-512, AVX2 with FMA, or
   NEON. What is written in ``vec`` alone is the same for all; what they do in ways of their own
   stands here. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(_WIN32) && !defined(__clang__) /* GCC lays them on the stack there as if it were aligned */
#define LANES 4
#define PLAIN 1
#elif defined(__AVX512F__) && defined(__AVX512BW__)
#include <immintrin.h>
#define LANES 16
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define LANES 8
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
#define LANES 4
#else /* none of them: correct, and slow */
#define LANES 4
#define PLAIN 1
#endif

#define BYTES (4 * LANES)
#define REGISTERS (LANES == 8 ? 16 : 32) /* of vectors */
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec __attribute__((vector_size(BYTES)));
typedef float loose __attribute__((vector_size(BYTES), aligned(4))); /* anywhere in memory */
typedef int32_t ivec __attribute__((vector_size(BYTES)));
typedef uint32_t uvec __attribute__((vector_size(BYTES)));
typedef uint32_t uloose __attribute__((vector_size(BYTES), aligned(1)));

/* Whether the processor has such vectors itself: otherwise PyTorch's own code is quicker. */
int has_vectors(void) {
#ifdef PLAIN
  return 0;
#else
  return 1;
#endif
}

INLINE vec load(const float *p) { return *(const loose *)p; }
INLINE void store(float *p, vec x) { *(loose *)p = x; }

/* a + b * c, rounded once. Said outright where sums must come out alike, bit for bit, from code for
   one position and for several: a compiler takes two roundings where it finds that quicker. */
INLINE vec fused(vec a, vec b, vec c) {
#if LANES == 16
  return (vec)_mm512_fmadd_ps((__m512)b, (__m512)c, (__m512)a);
#elif LANES == 8
  return (vec)_mm256_fmadd_ps((__m256)b, (__m256)c, (__m256)a);
#elif !defined(PLAIN)
  return (vec)vfmaq_f32((float32x4_t)a, (float32x4_t)b, (float32x4_t)c);
#else
  return a + b * c;
#endif
}

/* Fewer than BYTES bytes, and zeros behind them. */
INLINE void copy_some(uint8_t *to, const uint8_t *from, int64_t bytes) {
#if LANES == 16
  _mm512_storeu_si512(to, _mm512_maskz_loadu_epi8((1ull << bytes) - 1, from));
#else
  memset(to, 0, BYTES);
  memcpy(to, from, bytes);
#endif
}

/* The totals of four, one after another at out. */
INLINE void totals(const vec *x, float *out) {
#if LANES == 16
  const __m512 a = (__m512)x[0], b = (__m512)x[1], c = (__m512)x[2], d = (__m512)x[3];
  const __m512d ab = (__m512d)_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512d cd = (__m512d)_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512 all = _mm512_add_ps((__m512)_mm512_unpacklo_pd(ab, cd), (__m512)_mm512_unpackhi_pd(ab, cd));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), (__m256)_mm512_extractf64x4_pd((__m512d)all, 1));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#elif LANES == 8
  const __m256 ab = _mm256_hadd_ps((__m256)x[0], (__m256)x[1]), cd = _mm256_hadd_ps((__m256)x[2], (__m256)x[3]);
  const __m256 all = _mm256_hadd_ps(ab, cd);
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
#elif !defined(PLAIN)
  const float32x4_t ab = vpaddq_f32((float32x4_t)x[0], (float32x4_t)x[1]), cd = vpaddq_f32((float32x4_t)x[2], (float32x4_t)x[3]);
  vst1q_f32(out, vpaddq_f32(ab, cd));
#else
  for (int i = 0; i < 4; i++) out[i] = (x[i][0] + x[i][1]) + (x[i][2] + x[i][3]);
#endif
}

#if LANES == 16
/* The first of two numbers eight times, and, where ``both`` are there, the second, or else zeros. */
INLINE vec twice(const float *two, int both) {
  const __m512i which = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
  return (vec)_mm512_permutexvar_ps(which, _mm512_maskz_loadu_ps(both ? 3 : 1, two));
}
#endif

INLINE float total(vec x) {
  const vec four[4] = {x, x, x, x};
  float out[4];
  totals(four, out);
  return out[0];
}

INLINE vec greater(vec a, vec b) {
  const ivec is = a > b;
  return (vec)((ivec)a & is | (ivec)b & ~is);
}

/* Slice k of a block of signed bytes: in lane i the one at ``byte_at``. */
#if LANES == 4
INLINE vec signed_bytes(const uint8_t *p, int k) { return __builtin_convertvector((ivec)(*(const uloose *)p << (24 - 8 * k)) >> 24, vec); }
INLINE int byte_at(int k, int i) { return 4 * i + k; }
#else
INLINE vec signed_bytes(const uint8_t *p, int k) {
#if LANES == 16
  return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p + 16 * k))));
#else
  return (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8 * k))));
#endif
}
INLINE int byte_at(int k, int i) { return LANES * k + i; }
#endif

/* Sixteen numbers, and those of them that the codes of a block name: two codes to a byte. In slice
   k, lane i stands the number of the code at ``code_at``: of the low half of a byte where odd. */
#if LANES == 16 /* one look: slice k has the k-th half byte of every lane */
typedef vec table;
INLINE table table_of(const float *numbers) { return load(numbers); }
INLINE vec look_up(table t, uvec block, int k) { return (vec)_mm512_permutexvar_ps((__m512i)(block >> 4 * k), (__m512)t); }
INLINE int code_at(int k, int i) { return 8 * i + (k ^ 1); }

#elif defined(PLAIN)
typedef const float *table;
INLINE table table_of(const float *numbers) { return numbers; }
INLINE vec look_up(table t, uvec block, int k) {
  vec out;
  for (int i = 0; i < LANES; i++) out[i] = t[block[i] >> 4 * k & 15];
  return out;
}
INLINE int code_at(int k, int i) { return 8 * i + (k ^ 1); }

#else /* a look for each of the number's four bytes, which are then put together, 16 bytes by 16 */
#if LANES == 8
typedef __m256i bytes;
#define LOOK(numbers, at) _mm256_shuffle_epi8(numbers, at)
#define MERGE(a, b, high) ((high) ? _mm256_unpackhi_epi8(a, b) : _mm256_unpacklo_epi8(a, b))
#define MERGE_TWOS(a, b, high) ((high) ? _mm256_unpackhi_epi16(a, b) : _mm256_unpacklo_epi16(a, b))
#else
typedef uint8x16_t bytes;
#define LOOK(numbers, at) vqtbl1q_u8(numbers, at)
#define MERGE(a, b, high) ((high) ? vzip2q_u8(a, b) : vzip1q_u8(a, b))
#define TWOS(a) vreinterpretq_u16_u8(a)
#define MERGE_TWOS(a, b, high) ((high) ? vzip2q_u16(TWOS(a), TWOS(b)) : vzip1q_u16(TWOS(a), TWOS(b)))
#endif
typedef struct { bytes byte[4]; } table;

INLINE table table_of(const float *numbers) {
  table t;
  for (int b = 0; b < 4; b++) {
    uint8_t of[BYTES];
    for (int i = 0; i < BYTES; i++) of[i] = ((const uint8_t *)(numbers + i % 16))[b];
    memcpy(&t.byte[b], of, BYTES);
  }
  return t;
}

INLINE vec look_up(table t, uvec block, int k) {
  const bytes codes = (bytes)((k < 4 ? block : block >> 4) & 0x0f0f0f0fu);
  const bytes low = MERGE(LOOK(t.byte[0], codes), LOOK(t.byte[1], codes), k & 2);
  const bytes high = MERGE(LOOK(t.byte[2], codes), LOOK(t.byte[3], codes), k & 2);
  return (vec)MERGE_TWOS(low, high, k & 1);
}

INLINE int code_at(int k, int i) { return 2 * (i / 4 * 16 + k % 4 * 4 + i % 4) + (k < 4); }
#endif

/* e^x within 2e-7 of it, relatively; x is taken to lie between -87 and 88. */
INLINE vec exponential(vec x) {
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
