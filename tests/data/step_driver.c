/* ``step.c`` as a program: a model and its positions from stdin, logits and cache to stdout. Each
   part of the input is preceded by its bytes, an int64; none: there is no such part. */

#include "step.c"
#include <stdio.h>
#include <stdlib.h>

static void *next(void) {
  int64_t bytes;
  if (fread(&bytes, 8, 1, stdin) != 1) exit(1);
  void *part = bytes ? malloc(bytes) : NULL;
  if (bytes && fread(part, bytes, 1, stdin) != 1) exit(1);
  return part;
}

static struct norm norm(void) { return (struct norm){next(), NULL, 1}; }

static struct matrix matrix(int64_t rows, int64_t columns, int64_t kind) {
  const void *data = next();
  return (struct matrix){data, next(), NULL, rows, columns, kind};
}

int main(void) {
  const int64_t *sizes = next();
  const int64_t kind = sizes[0], count = sizes[1], hidden = sizes[2], heads = sizes[3], kv_heads = sizes[4];
  const int64_t dim = sizes[5], inner = sizes[6], words = sizes[7], positions = sizes[8], capacity = sizes[9];
  struct layer *layers = calloc(count, sizeof *layers);
  for (struct layer *l = layers; l < layers + count; l++) {
    l->norm1 = norm(), l->norm2 = norm();
    l->qkv = matrix((heads + 2 * kv_heads) * dim, hidden, kind), l->out = matrix(hidden, heads * dim, kind);
    l->up = matrix(2 * inner, hidden, kind), l->down = matrix(hidden, inner, kind);
  }
  const struct norm last = norm();
  const struct model model = {
    layers, last, matrix(words, hidden, DENSE), count, 1, hidden, heads, kv_heads, dim, inner, 1, SILU, 0,
    1e-5f, 1.f, 1.f / sqrtf(dim), 0.f};
  const size_t cache = count * kv_heads * capacity * row_bytes(DENSE, dim);
  uint8_t *keys = next(), *values = next();
  float *states = next(), *logits = calloc(positions * words, sizeof(float));
  const float *phases = next();
  struct sight *sights = calloc(positions, sizeof *sights);
  const int64_t at = capacity - positions;
  for (int64_t i = 0; i < positions; i++)
    sights[i] = (struct sight){phases + i * dim, phases + (i + 1) * dim, dim / 2, 2, 3, at + i + 1};
  struct step step = {&model, sights, keys, values, positions, capacity, at, capacity, states, logits, NULL, 1};
  step.scratch = calloc(scratch_size(&step), sizeof(float));
  run_step(&step);
  fwrite(logits, sizeof(float), positions * words, stdout);
  fwrite(keys, 1, cache, stdout);
  fwrite(values, 1, cache, stdout);
  return !has_vectors();
}
