/* Products with float32 states, vector by vector. */

#define BLOCK 4  /* rows, and heads, that share loads in scores */
#define CHUNK 64 /* lists whose states stay in the cache from their scores to their mixing */
#define CACHED 24576 /* numbers in them */
#define NEAR 384 /* features whose v stay in the nearest cache */
#define WIDE (HEADS <= 12 ? 2 : 1) /* vectors of features that are mixed at a time */

int prepare(void) { return 1; }

static void shrink_mixed(struct job *j, int head, float by) {
  for (int64_t i = 0; i < j->width; i++) j->mixed[head * j->width + i] *= by;
}

typedef float quad __attribute__((vector_size(16), aligned(4)));

/* The sums of 16 vectors, as one. */
static inline vec totals(const vec *x) {
  vec part[4];
  UNROLL for (int i = 0; i < 4; i++) {
    const vec *y = x + 4 * i;
    vec a = SHUFFLE(y[0], y[1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
            SHUFFLE(y[0], y[1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    vec b = SHUFFLE(y[2], y[3], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
            SHUFFLE(y[2], y[3], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    part[i] = SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
              SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  }
  vec a = SHUFFLE(part[0], part[1], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
          SHUFFLE(part[0], part[1], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  vec b = SHUFFLE(part[2], part[3], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
          SHUFFLE(part[2], part[3], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  return SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
         SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}

/* s = x . v + constant for n rows x (n, C). */
static void score_rows(struct job *j, const float *x, int n, float *s) {
  const int64_t C = j->width;
  for (int i = 0; i < n; i++) memcpy(s + i * COLUMNS, j->constants, HEADS * sizeof(float));
  for (int64_t start = 0; start < C; start += NEAR) {
    const int64_t stop = start + NEAR < C ? start + NEAR : C;
    for (int i = 0; i < n; i += BLOCK) {
      const float *rows[BLOCK]; /* past the last row: that row again */
      for (int m = 0; m < BLOCK; m++) rows[m] = x + (i + m < n ? i + m : n - 1) * C;
      for (int h = 0; h < HEADS; h += BLOCK) {
        vec sums[BLOCK * BLOCK] = {};
        const float *v[BLOCK]; /* past the last head likewise */
        for (int k = 0; k < BLOCK; k++) v[k] = j->v + (h + k < HEADS ? h + k : HEADS - 1) * C;
        for (int64_t c = start; c < stop; c += LANES) {
          if (h == 0) fetch(j, 1);
          vec b[BLOCK];
          UNROLL for (int k = 0; k < BLOCK; k++) b[k] = *(const vec *)(v[k] + c);
          UNROLL for (int m = 0; m < BLOCK; m++) {
            vec a = *(const vec *)(rows[m] + c);
            UNROLL for (int k = 0; k < BLOCK; k++) sums[m * BLOCK + k] += a * b[k];
          }
        }
        float found[LANES];
        *(vec *)found = totals(sums);
        UNROLL for (int m = 0; m < BLOCK; m++) *(quad *)(s + (i + m) * COLUMNS + h) += *(quad *)(found + m * BLOCK);
      }
    }
  }
}

/* mixed += w^T x for n rows. */
static void mix_rows(struct job *j, const float *x, int n, const float *weights) {
  const int64_t C = j->width;
  for (int64_t c = 0; c < C; c += WIDE * LANES) {
    const int more = WIDE > 1 && c + LANES < C ? LANES : 0; /* 0: the same features again */
    vec sums[WIDE][HEADS] = {};
    for (int i = 0; i < n; i++) {
      const float *row = x + i * C + c, *w = weights + i * COLUMNS;
      if (WIDE == 2 || i % 2) fetch(j, 1);
      vec a[2] = {*(const vec *)row, *(const vec *)(row + more)};
      UNROLL for (int h = 0; h < HEADS; h++) UNROLL for (int k = 0; k < WIDE; k++) sums[k][h] += w[h] * a[k];
    }
    for (int h = 0; h < HEADS; h++) {
      *(vec *)(j->mixed + h * C + c) += sums[0][h];
      if (more) *(vec *)(j->mixed + h * C + c + more) += sums[WIDE - 1][h];
    }
  }
}

/* Scores ask for a quarter of the next chunk, weights for another, and mixing for half. */
static void pass(struct job *j) {
  float s[CHUNK * COLUMNS], w[CHUNK * COLUMNS];
  const int64_t fitting = CACHED / j->width / BLOCK * BLOCK;
  const int64_t chunk = fitting > CHUNK ? CHUNK : fitting < BLOCK ? BLOCK : fitting;
  for (int64_t u = j->first; u < j->last; u += chunk) {
    const int n = j->last - u < chunk ? (int)(j->last - u) : (int)chunk;
    const float *x = j->states + u * j->width;
    const struct rows rows = {s, w, u, u + n, COLUMNS, COLUMNS};
    j->ahead = (const char *)(x + chunk * j->width);
    score_rows(j, x, n, s);
    weigh_lists(j, &rows, j->width / LANES / 4);
    if (j->mode != FIND_TOP) mix_rows(j, x, n, w);
  }
}

/* mixed: (H, C), C a multiple of 16. */
void attend(struct job *j) { settle(j, pass, HEADS * j->width); }

static inline float mixed_at(const struct job *j, int head, int64_t c) { return j->mixed[head * j->width + c]; }
