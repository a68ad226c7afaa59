/* Threads that run one function together, each with its own number, and wait for one another.

   They are started and ended within one call, so that nothing of it can be left behind: an
   interrupted program sees it whole or not at all. */

#include <stdatomic.h>
#ifndef _WIN32
#include <pthread.h>
#include <sched.h>
#endif

#define MOST_THREADS 256
#define PATIENCE 500 /* looks before the processor is lent to others */

struct team { atomic_long size, waiting, round; };
struct member { struct team *team; void (*work)(void *, struct team *, int64_t, int64_t); void *job; int64_t number; };

static inline void look_again(int *looks) {
  if (++*looks < PATIENCE) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
    return;
  }
#ifndef _WIN32
  sched_yield();
#endif
}

/* Wait for all. What each wrote before is then seen by the others. */
static void meet(struct team *team) {
  const long size = atomic_load(&team->size), round = atomic_load(&team->round);
  if (size == 1) return;
  if (atomic_fetch_add(&team->waiting, 1) + 1 == size) {
    atomic_store(&team->waiting, 0);
    atomic_store(&team->round, round + 1);
    return;
  }
  for (int looks = 0; atomic_load(&team->round) == round;) look_again(&looks);
}

static void *member_runs(void *arg) {
  struct member *self = arg;
  for (int looks = 0; !atomic_load(&self->team->size);) look_again(&looks);
  self->work(self->job, self->team, self->number, atomic_load(&self->team->size));
  return NULL;
}

/* ``work`` on up to ``threads`` threads, this one included: fewer where the system gives no more. */
static void together(void (*work)(void *, struct team *, int64_t, int64_t), void *job, int64_t threads) {
  struct team team = {};
  struct member members[MOST_THREADS];
  int64_t size = 1;
#ifndef _WIN32
  pthread_t ids[MOST_THREADS];
  for (; size < threads && size < MOST_THREADS; size++) {
    members[size] = (struct member){&team, work, job, size};
    if (pthread_create(&ids[size], NULL, member_runs, &members[size])) break;
  }
#endif
  atomic_store(&team.size, size);
  work(job, &team, 0, size);
#ifndef _WIN32
  for (int64_t i = 1; i < size; i++) pthread_join(ids[i], NULL);
#endif
}

/* The part first..last-1 of ``total`` that is a thread's, in whole ``unit``s. */
static void share(int64_t total, int64_t unit, int64_t thread, int64_t threads, int64_t *first, int64_t *last) {
  const int64_t units = (total + unit - 1) / unit;
  *first = units * thread / threads * unit;
  *last = units * (thread + 1) / threads * unit;
  if (*first > total) *first = total;
  if (*last > total) *last = total;
}
