/* Products of a few float32 rows with a matrix, as its weights lie in memory.

   A matrix is read a vector at a time. Each 32-bit lane of such a block holds 1, 2, 4 or 8
   weights, which become as many vectors of float32 numbers, its slices. What is multiplied is
   brought into the order of slices once (prepare), so that no weight is moved to its place. */

enum kind { FLOAT32, BFLOAT16, INT8, NF4 };

#define DENSE (NARROW ? BFLOAT16 : FLOAT32) /* of all that is not quantized */

#define ROWS 4     /* rows of a matrix at a time */
#define FEW 4      /* x at a time */
#define AHEAD 2048 /* bytes from what is read to what is fetched, at least */

struct matrix {
  const uint8_t *data; /* rows one after another */
  const float *scale;  /* INT8: for each row; NF4: for each 64 weights */
  const void *bias;    /* DENSE: for each row, or none */
  int64_t rows, columns, kind;
};

static const float NF4_VALUES[16] = {
  -1.f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
  -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.f,
  0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
  0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.f};

INLINE int slices(int kind) { return 1 << kind; }
INLINE int64_t row_bytes(int kind, int64_t columns) { return columns * 4 >> kind; }
INLINE int64_t blocks(int kind, int64_t columns) { return (columns + LANES * slices(kind) - 1) / (LANES * slices(kind)); }
INLINE int64_t prepared(int kind, int64_t columns) { return blocks(kind, columns) * LANES * slices(kind); }

/* Slice k of the BYTES bytes at ``from``. */
INLINE vec slice(int kind, const uint8_t *from, int k, table values) {
  const uvec block = *(const uloose *)from;
  if (kind == FLOAT32) return (vec)block;
  if (kind == BFLOAT16) return (vec)(k ? block & 0xffff0000u : block << 16);
  if (kind == INT8) return signed_bytes(from, k);
  return look_up(values, block, k);
}

/* A number of a vector that is float32 (wide) or bfloat16. */
INLINE float number(int wide, const void *p, int64_t i) {
  if (wide) return ((const float *)p)[i];
  const uint32_t bits = (uint32_t)((const uint16_t *)p)[i] << 16;
  float out;
  memcpy(&out, &bits, 4);
  return out;
}

/* Where the number of slice k, lane i stands in its block. */
INLINE int place(int kind, int k, int i) {
  return kind == NF4 ? code_at(k, i) : kind == INT8 ? byte_at(k, i) : slices(kind) * i + k;
}

/* BYTES bytes of which the first ``bytes`` stand at ``at``: there, or where there are fewer, in
   ``room`` with zeros behind them. */
INLINE const uint8_t *whole(const uint8_t *at, int64_t bytes, uint8_t *room) {
  if (__builtin_expect(bytes >= BYTES, 1)) return at;
  copy_some(room, at, bytes > 0 ? bytes : 0);
  return room;
}

/* out (prepared) from x (columns), zeros behind it. */
static void prepare(int kind, const float *x, int64_t columns, float *out) {
  const int width = LANES * slices(kind);
  for (int64_t c = 0; c < columns; c += width)
    for (int k = 0; k < slices(kind); k++)
      for (int i = 0; i < LANES; i++) {
        const int64_t at = c + place(kind, k, i);
        *out++ = at < columns ? x[at] : 0.f;
      }
}

/* NF4's scales, each of 32 bytes, of a block whose first ``bytes`` count. */
INLINE vec scale_of(const float *scale, int64_t bytes) {
#if LANES == 16
  return twice(scale, bytes > 32);
#else
  return scale[0] - (vec){};
#endif
}

/* Add the products of ``count`` prepared x with a block of row r, whose ``left`` bytes from w on
   are the rest of the row. */
INLINE void block_dot(int kind, int r, int count, const uint8_t *w, int64_t left, const float *scale, table values, const float *x, int64_t step, vec sums[][ROWS]) {
  uint8_t room[BYTES];
  const uint8_t *from = whole(w, left, room);
  vec part[FEW];
  UNROLL for (int i = 0; i < count; i++) part[i] = kind == NF4 ? (vec){} : sums[i][r];
  UNROLL for (int k = 0; k < slices(kind); k++) {
    const vec weights = slice(kind, from, k, values);
    UNROLL for (int i = 0; i < count; i++) part[i] = fused(part[i], weights, load(x + i * step + k * LANES));
  }
  const vec factor = kind == NF4 ? scale_of(scale, left) : (vec){};
  UNROLL for (int i = 0; i < count; i++) sums[i][r] = kind == NF4 ? fused(sums[i][r], part[i], factor) : part[i];
}

/* Whether a matrix is read quickest in order, row after row, which the processor foresees: where
   memory is the limit. Else rows take turns, which share what is loaded of x, and of which none
   has to wait for its own last addition. */
INLINE int in_order(int kind, int count) { return count == 1 && (kind == DENSE || kind == INT8 && LANES != 8); }

/* y[i * stride + r] for ``count`` prepared x and ``rows`` rows of the matrix from w on; in either
   order the same is added up. */
INLINE void rows_dot(int kind, int rows, int count, const uint8_t *w, const float *scale, const float *x, int64_t columns, float *y, int64_t stride) {
  const int64_t bytes = row_bytes(kind, columns), step = prepared(kind, columns), ahead = rows * bytes > AHEAD ? rows * bytes : AHEAD;
  const int64_t scales = bytes / 32, wide = LANES * slices(kind);
  const table values = table_of(NF4_VALUES);
  vec sums[FEW][ROWS] = {};
  if (in_order(kind, count)) {
    UNROLL for (int r = 0; r < rows; r++)
      for (int64_t at = 0, c = 0; at < bytes; at += BYTES, c += wide)
        block_dot(kind, r, count, w + r * bytes + at, bytes - at, NULL, values, x + c, step, sums);
  } else {
    for (int64_t at = 0, c = 0; at < bytes; at += BYTES, c += wide)
      UNROLL for (int r = 0; r < rows; r++) {
        __builtin_prefetch(w + r * bytes + at + ahead);
        block_dot(kind, r, count, w + r * bytes + at, bytes - at, scale + r * scales + at / 32, values, x + c, step, sums);
      }
  }
  UNROLL for (int i = 0; i < count; i++) {
    float found[ROWS];
    totals(sums[i], found);
    for (int r = 0; r < rows; r++) y[i * stride + r] = kind == INT8 ? found[r] * scale[r] : found[r];
  }
}

/* With many x, as many rows as there are registers for their sums. */
INLINE void span_dot(int kind, int count, const uint8_t *w, const float *scale, const float *x, int64_t rows, int64_t columns, float *y, int64_t stride) {
  const int64_t bytes = row_bytes(kind, columns), scales = kind == NF4 ? columns / 64 : kind == INT8;
  const int most = count * ROWS > REGISTERS / 2 ? ROWS / 2 : ROWS;
  int64_t r = 0;
  for (; r + most <= rows; r += most) rows_dot(kind, most, count, w + r * bytes, scale + r * scales, x, columns, y + r, stride);
  for (; r < rows; r++) rows_dot(kind, 1, count, w + r * bytes, scale + r * scales, x, columns, y + r, stride);
}

/* y[i * stride + r - first] = x i . row r, first <= r < last, for ``count`` x prepared in
   the matrix's own kind. */
INLINE void products(const struct matrix *m, int count, const float *x, int64_t first, int64_t last, float *y, int64_t stride) {
  const uint8_t *w = m->data + first * row_bytes(m->kind, m->columns);
  const float *scale = m->scale + (m->kind == NF4 ? first * (m->columns / 64) : m->kind == INT8 ? first : 0);
  const int64_t rows = last - first;
  switch (m->kind) {
    case INT8: span_dot(INT8, count, w, scale, x, rows, m->columns, y, stride); break;
    case NF4: span_dot(NF4, count, w, scale, x, rows, m->columns, y, stride); break;
    default: span_dot(DENSE, count, w, scale, x, rows, m->columns, y, stride);
  }
}
