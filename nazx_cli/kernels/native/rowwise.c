/* One float32 vector for each head, multiplied with that head's bfloat16 matrix. */

#include <stdint.h>
#include <string.h>

#define LANES 16
#define BLOCK 4 /* rows of a matrix at a time */

typedef float vec __attribute__((vector_size(64), aligned(4)));
typedef uint16_t few __attribute__((vector_size(32), aligned(2)));
typedef int32_t ivec __attribute__((vector_size(64)));

static inline vec load(const uint16_t *p) { return (vec)(__builtin_convertvector(*(const few *)p, ivec) << 16); }

static inline float one(uint16_t x) {
  const uint32_t bits = (uint32_t)x << 16;
  float out;
  memcpy(&out, &bits, 4);
  return out;
}

static inline float total(vec x) {
  float sum = 0.f;
  for (int i = 0; i < LANES; i++) sum += x[i];
  return sum;
}

/* y (H, C) = x (H, D) w, w (H, D, C). */
void from_left(const float *x, const uint16_t *w, float *y, int64_t heads, int64_t dim, int64_t width) {
  memset(y, 0, heads * width * sizeof(float));
  for (int64_t h = 0; h < heads; h++, x += dim, w += dim * width, y += width) {
    for (int64_t d = 0; d < dim; d += BLOCK) {
      const uint16_t *rows[BLOCK]; /* past the last row: some row, times 0 */
      float by[BLOCK];
      for (int k = 0; k < BLOCK; k++) {
        rows[k] = w + (d + k < dim ? d + k : d) * width;
        by[k] = d + k < dim ? x[d + k] : 0.f;
      }
      int64_t c = 0;
      for (; c + LANES <= width; c += LANES) {
        vec sum = *(vec *)(y + c);
        for (int k = 0; k < BLOCK; k++) sum += by[k] * load(rows[k] + c);
        *(vec *)(y + c) = sum;
      }
      for (; c < width; c++) for (int k = 0; k < BLOCK; k++) y[c] += by[k] * one(rows[k][c]);
    }
  }
}

/* y (H, D) = w x (H, C), w (H, D, C). */
void from_right(const float *x, const uint16_t *w, float *y, int64_t heads, int64_t dim, int64_t width) {
  for (int64_t h = 0; h < heads; h++, x += width, w += dim * width, y += dim) {
    for (int64_t d = 0; d < dim; d += BLOCK) {
      const int n = dim - d < BLOCK ? (int)(dim - d) : BLOCK;
      const uint16_t *rows[BLOCK];
      vec sums[BLOCK] = {};
      float rest[BLOCK] = {0};
      for (int k = 0; k < BLOCK; k++) rows[k] = w + (d + (k < n ? k : 0)) * width;
      int64_t c = 0;
      for (; c + LANES <= width; c += LANES) {
        const vec a = *(const vec *)(x + c);
        for (int k = 0; k < BLOCK; k++) sums[k] += a * load(rows[k] + c);
      }
      for (; c < width; c++) for (int k = 0; k < n; k++) rest[k] += x[c] * one(rows[k][c]);
      for (int k = 0; k < n; k++) y[d + k] = total(sums[k]) + rest[k];
    }
  }
}
