/* Products of a few float32 rows with a quantized matrix. */

#define NARROW 0
#include "vectors.h"
#include "products.h"
#include "team.h"

struct job {
  struct matrix matrix;
  const float *x; /* (count, columns) */
  float *ready;   /* ready_size numbers for each of them */
  float *y;       /* (count, rows) */
  int64_t count, threads;
};

int64_t ready_size(const struct matrix *m) { return prepared(m->kind, m->columns); }

static void run(void *job, struct team *team, int64_t thread, int64_t threads) {
  const struct job *j = job;
  const struct matrix *m = &j->matrix;
  const int64_t size = ready_size(m);
  int64_t first, last, i = 0;
  share(m->rows, ROWS, thread, threads, &first, &last);
  float *y = j->y + first;
  for (; i + 4 <= j->count; i += 4) products(m, 4, j->ready + i * size, first, last, y + i * m->rows, m->rows);
  for (; i < j->count; i++) products(m, 1, j->ready + i * size, first, last, y + i * m->rows, m->rows);
}

void multiply(struct job *j) {
  for (int64_t i = 0; i < j->count; i++) prepare(j->matrix.kind, j->x + i * j->matrix.columns, j->matrix.columns, j->ready + i * ready_size(&j->matrix));
  together(run, j, j->threads);
}
