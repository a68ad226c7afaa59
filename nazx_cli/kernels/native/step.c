/* All layers of a decoder, and its head, for one further position or a few in a row, whose keys and
   values are added to the cache.

   Weights are read once for four positions. What is computed for a position, and in which order, does
   not depend on how many there are: each comes out as if alone, bit for bit.
   Threads share the rows of every matrix, and in attention the query heads; each keeps the running
   states for itself. Everything is float32 but weights and cache. */

#include "vectors.h"
#include "products.h"
#include "team.h"

#define GROUP 4 /* query heads that share one reading of keys and values */
#define NEAR 32 /* rows of a matrix, a multiple of ROWS, that stay near for the next few positions */

enum activation { SILU, GELU, GELU_TANH, RELU };

struct norm { const void *weight, *bias; int64_t wide; }; /* no weight: no norm; no bias: RMSNorm */

struct layer {
  struct norm norm1, q_norm, k_norm, norm1_after, norm2, norm2_after;
  struct matrix qkv, out, up, down;
  int64_t sight; /* which of a position's */
};

/* What a layer's query sees: rows first..stop-1 of the cache, turned by ``phases`` (half cosines,
   then as many sines), and the first ``sinks`` rows, turned by ``capped``. */
struct sight { const float *phases, *capped; int64_t half, sinks, first, stop; };

struct model {
  const struct layer *layers;
  struct norm final_norm;
  struct matrix head;
  int64_t count, kinds, hidden, heads, kv_heads, dim, inner, gated, activation, parallel;
  float eps, residual_scale, attention_scale, attention_cap; /* cap 0: none */
};

struct step {
  const struct model *model;
  const struct sight *sights; /* (positions, kinds) */
  uint8_t *keys, *values; /* (layers, kv_heads, capacity, dim) */
  int64_t positions;
  int64_t capacity, at;   /* at: the row of the first of the positions */
  int64_t seen;           /* rows that a query sees, at most */
  float *states;          /* (positions, hidden): their embeddings, and at the end their final states */
  float *logits;          /* (positions, rows of the head) */
  float *scratch;         /* scratch_size numbers */
  int64_t threads;
};

/* Each has room for every position, but for scores. */
struct buffers {
  float *q, *capped, *mixed, *inner, *attended, *fed; /* from one thread to the others */
  float *h, *a, *ready, *wide, *scores;               /* each thread's own */
};

static int64_t padded(int64_t n) { return (n + 127) / 128 * 128; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* A thread's buffers; returns where they end in scratch. */
static int64_t lay_out(const struct step *s, int64_t thread, struct buffers *b) {
  const struct model *m = s->model;
  const int64_t q = m->heads * padded(m->dim), c = padded(m->hidden), inner = padded(m->inner);
  const int64_t ready = most(most(inner, c), q), wide = 2 * most(inner, padded(m->dim)), scores = padded(s->seen), n = s->positions;
  float *at = s->scratch;
  b->q = at, b->capped = at += n * q, b->mixed = at += n * q, b->inner = at += n * q;
  b->attended = at += n * inner, b->fed = at += n * c, at += n * c;
  at += thread * (n * (2 * c + ready + wide) + GROUP * scores);
  b->h = at, b->a = at += n * c, b->ready = at += n * c, b->wide = at += n * ready, b->scores = at += n * wide;
  return at + GROUP * scores - s->scratch;
}

int64_t scratch_size(const struct step *s) {
  struct buffers b;
  return lay_out(s, s->threads - 1, &b);
}

static float sum_of_squares(const float *x, int64_t n, float mean) {
  vec sums = {};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) { const vec d = load(x + i) - mean; sums += d * d; }
  float sum = total(sums);
  for (; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
  return sum;
}

/* out may be x */
static void normalize(const struct norm *norm, float eps, const float *x, int64_t n, float *out) {
  float mean = 0.f;
  if (norm->bias) {
    for (int64_t i = 0; i < n; i++) mean += x[i];
    mean /= n;
  }
  const float scale = 1.f / sqrtf(sum_of_squares(x, n, mean) / n + eps);
  for (int64_t i = 0; i < n; i++) out[i] = (x[i] - mean) * scale * number(norm->wide, norm->weight, i);
  if (norm->bias) for (int64_t i = 0; i < n; i++) out[i] += number(norm->wide, norm->bias, i);
}

/* The states (positions, from) made ready for the matrix: after the norm, if there is one. */
static void into(const struct step *s, const struct matrix *matrix, const struct norm *norm, const float *x, int64_t from, struct buffers *b) {
  const int64_t to = prepared(matrix->kind, matrix->columns);
  for (int64_t i = 0; i < s->positions; i++, x += from) {
    if (norm->weight) normalize(norm, s->model->eps, x, matrix->columns, b->a);
    prepare(matrix->kind, norm->weight ? b->a : x, matrix->columns, b->ready + i * to);
  }
}

/* Add what a layer's part gives, ``x``, to the states. */
static void add(const struct step *s, const struct norm *norm, const float *x, struct buffers *b) {
  const struct model *m = s->model;
  const int64_t c = padded(m->hidden);
  for (int64_t i = 0; i < s->positions; i++) {
    const float *from = x + i * c;
    if (norm->weight) normalize(norm, m->eps, from, m->hidden, b->a), from = b->a;
    for (int64_t k = 0; k < m->hidden; k++) b->h[i * c + k] += m->residual_scale * from[k];
  }
}

/* y[i * stride + r - first] = what is ready for position i . row r + bias, first <= r < last. */
static void product(const struct step *s, const struct matrix *m, const float *ready, int64_t first, int64_t last, float *y, int64_t stride) {
  const int64_t step = prepared(m->kind, m->columns);
  for (int64_t r = first; r < last; r += NEAR) {
    const int64_t end = r + NEAR < last ? r + NEAR : last;
    for (int64_t i = 0; i < s->positions; i += FEW) {
      const float *x = ready + i * step;
      float *out = y + i * stride + r - first;
      switch (s->positions - i) {
        case 1: products(m, 1, x, r, end, out, stride); break;
        case 2: products(m, 2, x, r, end, out, stride); break;
        case 3: products(m, 3, x, r, end, out, stride); break;
        default: products(m, FEW, x, r, end, out, stride);
      }
    }
  }
  if (!m->bias) return;
  for (int64_t i = 0; i < s->positions; i++)
    for (int64_t r = first; r < last; r++) y[i * stride + r - first] += number(!NARROW, m->bias, r);
}

static void turn(const float *x, const float *phases, int64_t half, int64_t dim, float *out) {
  for (int64_t f = 0; f < half; f++) {
    const float a = x[f], b = x[f + half], c = phases[f], s = phases[half + f];
    out[f] = a * c - b * s;
    out[f + half] = b * c + a * s;
  }
  for (int64_t f = 2 * half; f < dim; f++) out[f] = x[f];
}

static void keep(const float *x, int64_t n, uint8_t *out) {
  if (!NARROW) { memcpy(out, x, n * 4); return; }
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits;
    memcpy(&bits, x + i, 4);
    ((uint16_t *)out)[i] = bits + 0x7fff + (bits >> 16 & 1) >> 16;
  }
}

/* Row ``row`` of a key or value head in one layer's part of the cache. */
static uint8_t *row_of(const struct step *s, uint8_t *cache, int64_t layer, int64_t head, int64_t row) {
  const struct model *m = s->model;
  return cache + row_bytes(DENSE, m->dim) * ((layer * m->kv_heads + head) * s->capacity + row);
}

static const struct sight *sight_of(const struct step *s, int64_t layer, int64_t position) {
  return s->sights + position * s->model->kinds + s->model->layers[layer].sight;
}

/* A head's projection ``x`` at one position: rotated for attention, or put into the cache. */
static void place_head(const struct step *s, int64_t layer, int64_t head, int64_t position, float *x, float *turned, struct buffers *b) {
  const struct model *m = s->model;
  const struct layer *l = m->layers + layer;
  const struct sight *sight = sight_of(s, layer, position);
  const int64_t dim = m->dim, kv = head - m->heads, row = s->at + position;
  const int64_t to = (position * m->heads + head) * prepared(DENSE, dim);
  if (kv >= m->kv_heads) {
    keep(x, dim, row_of(s, s->values, layer, kv - m->kv_heads, row));
    return;
  }
  const struct norm *norm = kv < 0 ? &l->q_norm : &l->k_norm;
  if (norm->weight) normalize(norm, m->eps, x, dim, x);
  turn(x, sight->phases, sight->half, dim, turned);
  if (kv >= 0) keep(turned, dim, row_of(s, s->keys, layer, kv, row));
  else prepare(DENSE, turned, dim, b->q + to);
  if (kv >= 0 || !sight->sinks) return;
  turn(x, sight->capped, sight->half, dim, turned);
  prepare(DENSE, turned, dim, b->capped + to);
}

/* Queries, keys and values of a thread's heads. */
static void project(const struct step *s, int64_t layer, struct buffers *b, int64_t thread, int64_t threads) {
  const struct model *m = s->model;
  const int64_t dim = m->dim, wide = padded(dim);
  int64_t first, last;
  share(m->heads + 2 * m->kv_heads, 1, thread, threads, &first, &last);
  float *turned = b->wide + s->positions * wide;
  for (int64_t head = first; head < last; head++) {
    product(s, &m->layers[layer].qkv, b->ready, head * dim, (head + 1) * dim, b->wide, wide);
    for (int64_t i = 0; i < s->positions; i++) place_head(s, layer, head, i, b->wide + i * wide, turned, b);
  }
}

/* Scores to weights, in place; returns one over their sum. */
static float weigh(float *scores, int64_t n, float scale, float cap) {
  const vec zero = {};
  vec top = zero - INFINITY, sum = zero;
  for (int64_t i = n; i < padded(n); i++) scores[i] = -INFINITY;
  for (int64_t i = 0; i < n; i += LANES) {
    vec x = load(scores + i) * scale;
    if (cap) for (int k = 0; k < LANES; k++) x[k] = i + k < n ? cap * tanhf(x[k] / cap) : -INFINITY;
    store(scores + i, x);
    top = greater(top, x);
  }
  float highest = top[0];
  for (int k = 1; k < LANES; k++) highest = top[k] > highest ? top[k] : highest;
  for (int64_t i = 0; i < n; i += LANES) {
    vec x = exponential(load(scores + i) - highest);
    if (i + LANES > n) for (int k = n - i; k < LANES; k++) x[k] = 0.f;
    store(scores + i, x);
    sum += x;
  }
  return 1.f / total(sum);
}

#define BESIDE 2 /* blocks of a row of values at a time */

/* sums[i][k] += weight of a row times its slice, over ``rows`` rows of values from v on. */
INLINE void mix(int count, const uint8_t *v, int64_t bytes, int64_t at, int64_t rows, const float *weights, int64_t room, vec sums[][BESIDE * 2]) {
  for (int64_t r = 0; r < rows; r++, v += bytes) {
    __builtin_prefetch(v + at + AHEAD);
    UNROLL for (int b = 0; b < BESIDE; b++) {
      uint8_t spare[BYTES];
      const uint8_t *from = whole(v + at + b * BYTES, bytes - at - b * BYTES, spare);
      UNROLL for (int k = 0; k < slices(DENSE); k++) {
        const vec x = slice(DENSE, from, k, (table){0});
        UNROLL for (int i = 0; i < count; i++) sums[i][b * slices(DENSE) + k] += weights[i * room + r] * x;
      }
    }
  }
}

/* Attention of a position's ``count`` query heads from ``head`` on, which share keys and values. */
INLINE void attend(int count, const struct step *s, int64_t layer, int64_t head, int64_t position, struct buffers *b) {
  const struct model *m = s->model;
  const struct sight *sight = sight_of(s, layer, position);
  const int64_t dim = m->dim, bytes = row_bytes(DENSE, dim), step = prepared(DENSE, dim), kv = head / (m->heads / m->kv_heads);
  const int64_t sinks = sight->sinks, rows = sight->stop - sight->first, room = padded(s->seen);
  const uint8_t *k = row_of(s, s->keys, layer, kv, 0), *v = row_of(s, s->values, layer, kv, 0);
  const int64_t skip = sight->first * bytes, from = (position * m->heads + head) * step;
  span_dot(DENSE, count, k, NULL, b->capped + from, sinks, dim, b->scores, room);
  span_dot(DENSE, count, k + skip, NULL, b->q + from, rows, dim, b->scores + sinks, room);
  float scale[GROUP];
  for (int i = 0; i < count; i++) scale[i] = weigh(b->scores + i * room, sinks + rows, m->attention_scale, m->attention_cap);
  for (int64_t at = 0; at < bytes; at += BESIDE * BYTES) {
    vec sums[GROUP][BESIDE * 2] = {};
    mix(count, v, bytes, at, sinks, b->scores, room, sums);
    mix(count, v + skip, bytes, at, rows, b->scores + sinks, room, sums);
    float found[GROUP][BESIDE * 2 * LANES];
    UNROLL for (int i = 0; i < count; i++) UNROLL for (int n = 0; n < BESIDE * slices(DENSE); n++) store(found[i] + n * LANES, sums[i][n] * scale[i]);
    for (int i = 0; i < count; i++) for (int n = 0; n < BESIDE * slices(DENSE); n++) for (int lane = 0; lane < LANES; lane++) {
      const int64_t before = at * slices(DENSE) / 4 + n / slices(DENSE) * LANES * slices(DENSE);
      const int64_t d = before + place(DENSE, n % slices(DENSE), lane);
      if (d < dim) b->mixed[position * m->heads * dim + (head + i) * dim + d] = found[i][n * LANES + lane];
    }
  }
}

static void attend_all(const struct step *s, int64_t layer, struct buffers *b, int64_t thread, int64_t threads) {
  const struct model *m = s->model;
  const int64_t group = m->heads / m->kv_heads;
  int64_t head, last;
  share(m->heads, 1, thread, threads, &head, &last);
  while (head < last) {
    int64_t count = group - head % group;
    if (count > last - head) count = last - head;
    if (count > GROUP) count = GROUP;
    for (int64_t i = 0; i < s->positions; i++)
      switch (count) {
        case 1: attend(1, s, layer, head, i, b); break;
        case 2: attend(2, s, layer, head, i, b); break;
        case 3: attend(3, s, layer, head, i, b); break;
        default: attend(GROUP, s, layer, head, i, b);
      }
    head += count;
  }
}

static inline vec activated(int activation, vec x) {
  const vec one = (vec){} + 1.f;
  switch (activation) {
    case SILU: return x / (one + exponential(-x));
    case GELU_TANH: return x / (one + exponential(-1.5957691216f * (x + 0.044715f * x * x * x)));
    case RELU: return greater(x, one - 1.f);
    default: for (int i = 0; i < LANES; i++) x[i] *= 0.5f * (1.f + erff(x[i] * 0.70710678f));
  }
  return x;
}

/* A thread's part of the inner states of the feed-forward. */
static void widen(const struct step *s, const struct layer *l, struct buffers *b, int64_t thread, int64_t threads) {
  const struct model *m = s->model;
  int64_t first, last;
  share(m->inner, LANES, thread, threads, &first, &last);
  if (first == last) return;
  const int64_t wide = padded(last - first);
  float *gates = b->wide, *ups = b->wide + s->positions * wide;
  product(s, &l->up, b->ready, first, last, gates, wide);
  if (m->gated) product(s, &l->up, b->ready, m->inner + first, m->inner + last, ups, wide);
  for (int64_t n = 0; n < s->positions; n++) {
    const float *gate = gates + n * wide, *up = ups + n * wide;
    float *out = b->inner + n * padded(m->inner) + first;
    for (int64_t i = 0; i < last - first; i += LANES) {
      vec x = activated(m->activation, load(gate + i));
      if (m->gated) x *= load(up + i);
      store(out + i, x);
    }
  }
}

/* A thread's part of what the ready states give. */
static void narrow(const struct step *s, const struct matrix *matrix, struct buffers *b, float *out, int64_t stride, int64_t thread, int64_t threads) {
  int64_t first, last;
  share(matrix->rows, ROWS, thread, threads, &first, &last);
  product(s, matrix, b->ready, first, last, out + first, stride);
}

static void run(void *job, struct team *team, int64_t thread, int64_t threads) {
  static const struct norm none = {};
  const struct step *s = job;
  const struct model *m = s->model;
  const int64_t c = padded(m->hidden);
  struct buffers buffers, *b = &buffers;
  lay_out(s, thread, b);
  for (int64_t i = 0; i < s->positions; i++) memcpy(b->h + i * c, s->states + i * m->hidden, m->hidden * sizeof(float));
  for (int64_t layer = 0; layer < m->count; layer++) {
    const struct layer *l = m->layers + layer;
    into(s, &l->qkv, &l->norm1, b->h, c, b);
    project(s, layer, b, thread, threads);
    meet(team);
    attend_all(s, layer, b, thread, threads);
    meet(team);
    into(s, &l->out, &none, b->mixed, m->heads * m->dim, b);
    narrow(s, &l->out, b, b->attended, c, thread, threads);
    meet(team);
    if (!m->parallel) add(s, &l->norm1_after, b->attended, b);
    into(s, &l->up, &l->norm2, b->h, c, b);
    widen(s, l, b, thread, threads);
    meet(team);
    into(s, &l->down, &none, b->inner, padded(m->inner), b);
    narrow(s, &l->down, b, b->fed, c, thread, threads);
    meet(team);
    if (m->parallel) add(s, &l->norm1_after, b->attended, b);
    add(s, &l->norm2_after, b->fed, b);
  }
  for (int64_t i = thread; i < s->positions; i += threads) memcpy(s->states + i * m->hidden, b->h + i * c, m->hidden * sizeof(float));
  into(s, &m->head, &m->final_norm, b->h, c, b);
  narrow(s, &m->head, b, s->logits, m->head.rows, thread, threads);
}

void run_step(struct step *s) { together(run, s, s->threads); }
