/* Products with bfloat16 states on a CPU with matrix units (Intel AMX).

   A tile of states is 16 lists by 32 features as they lie in memory. As the left factor of a tile
   product it is summed over features: scores. As the right factor it is summed over its rows and
   over each pair of neighbouring features, so weights go in twice, beside zeros in place of the
   odd or of the even features, and each gives a sum of its own. Every state is fetched from memory
   once for both. */

#include <sys/syscall.h>
#include <unistd.h>

#define CHUNK 64          /* lists at a time */
#define WIDE 1024         /* with more features half as many, so that the cache holds them and the next */
#define TALL 16           /* lists in a tile */
#define BROAD 32          /* features in a tile */
#define DUAL (HEADS <= 8) /* whether one left factor holds the weights for even and odd features */
#define LEFTS (DUAL ? 1 : 2)

/* Ask the kernel for the use of tiles; 0 where it refuses. */
int prepare(void) {
  const long request = 0x1023, tile_data = 18; /* ARCH_REQ_XCOMP_PERM */
  return syscall(SYS_arch_prctl, request, tile_data) == 0;
}

struct tile_config { uint8_t palette, start, reserved[14]; uint16_t width[16]; uint8_t rows[16]; };

static void configure(void) {
  struct tile_config config = {.palette = 1};
  for (int i = 0; i < 8; i++) config.width[i] = 64, config.rows[i] = 16;
  _tile_loadconfig(&config);
}

static inline uint32_t rounded(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* v as right factors, one for each 32 features. */
static void lay_out_probes(const struct job *j, uint32_t *out) {
  memset(out, 0, j->width / BROAD * 1024);
  for (int64_t c = 0; c < j->width; c++) for (int h = 0; h < HEADS; h++)
    out[c / 2 * 16 + h] |= rounded(j->v[h * j->width + c]) << 16 * (c & 1);
}

/* s (chunk, 16) = x . v + constant. */
static inline void score_tiles(struct job *j, const number *x, const uint32_t *probes, const float *constants, int chunk, int lines, float *s) {
  const int64_t stride = j->width * 2, down = TALL * j->width;
  for (int i = 0; i < chunk; i += 2 * TALL, x += 2 * down) {
    _tile_loadd(0, constants, 0);
    _tile_loadd(1, constants, 0);
    for (int64_t c = 0; c < j->width; c += BROAD) {
      fetch(j, lines);
      _tile_loadd(2, probes + c * 8, 64);
      _tile_loadd(3, x + c, stride);
      _tile_loadd(4, x + down + c, stride);
      _tile_dpbf16ps(0, 3, 2);
      _tile_dpbf16ps(1, 4, 2);
    }
    _tile_stored(0, s + i * 16, 64);
    _tile_stored(1, s + (i + TALL) * 16, 64);
  }
}

/* The transpose of 16 rows of 16. */
static inline void transpose(const __m512i *rows, uint32_t *out) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; i += 4) {
    __m512i p = _mm512_unpacklo_epi32(rows[i], rows[i + 1]), q = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    __m512i r = _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]), t = _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]);
    a[i] = _mm512_unpacklo_epi64(p, r), a[i + 1] = _mm512_unpackhi_epi64(p, r);
    a[i + 2] = _mm512_unpacklo_epi64(q, t), a[i + 3] = _mm512_unpackhi_epi64(q, t);
  } /* a[i + k]: columns k, 4 + k, 8 + k, 12 + k of rows i..i+3 */
  for (int k = 0; k < 4; k++) {
    __m512i p = _mm512_shuffle_i32x4(a[k], a[4 + k], 0x88), q = _mm512_shuffle_i32x4(a[8 + k], a[12 + k], 0x88);
    __m512i r = _mm512_shuffle_i32x4(a[k], a[4 + k], 0xdd), t = _mm512_shuffle_i32x4(a[8 + k], a[12 + k], 0xdd);
    b[k] = _mm512_shuffle_i32x4(p, q, 0x88), b[8 + k] = _mm512_shuffle_i32x4(p, q, 0xdd);
    b[4 + k] = _mm512_shuffle_i32x4(r, t, 0x88), b[12 + k] = _mm512_shuffle_i32x4(r, t, 0xdd);
  }
  for (int i = 0; i < 16; i++) _mm512_storeu_si512(out + 16 * i, b[i]);
}

/* Weights (chunk, 16) as left factors: for each 16 lists those for even features, then for odd. */
static inline void turn_weights(const float *w, uint32_t *out, int chunk) {
  for (int tile = 0; tile < chunk / TALL; tile++) {
    __m512i rows[16];
    for (int i = 0; i < 16; i++) {
      const __m512i bits = _mm512_loadu_si512(w + (tile * 16 + i) * 16);
      const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
      rows[i] = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
      if (DUAL) rows[i] = _mm512_mask_slli_epi32(rows[i], 0xff00, _mm512_shuffle_i64x2(rows[i], rows[i], 0x44), 16);
    }
    transpose(rows, out + tile * LEFTS * 256);
    if (DUAL) continue;
    for (int i = 0; i < 16; i++) rows[i] = _mm512_slli_epi32(rows[i], 16);
    transpose(rows, out + tile * LEFTS * 256 + 256);
  }
}

/* mixed += w^T x. */
static inline void mix_tiles(struct job *j, const number *x, const uint32_t *left, int chunk, int lines) {
  const int64_t stride = j->width * 2, down = TALL * j->width;
  float *mixed = j->mixed;
  for (int64_t c = 0; c < j->width; c += BROAD, mixed += LEFTS * 256) {
    fetch(j, lines);
    _tile_loadd(0, mixed, 64);
    if (!DUAL) _tile_loadd(1, mixed + 256, 64);
    for (int i = 0; i < chunk / TALL; i++) {
      _tile_loadd(2, x + i * down + c, stride);
      _tile_loadd(3, left + i * LEFTS * 256, 64);
      _tile_dpbf16ps(0, 3, 2);
      if (DUAL) continue;
      _tile_loadd(4, left + i * LEFTS * 256 + 256, 64);
      _tile_dpbf16ps(1, 4, 2);
    }
    _tile_stored(0, mixed, 64);
    if (!DUAL) _tile_stored(1, mixed + 256, 64);
  }
}

static void shrink_mixed(struct job *j, int head, float by) {
  for (int64_t t = 0; t < j->width / BROAD * LEFTS; t++) for (int i = 0; i < 16; i++) {
    j->mixed[t * 256 + head * 16 + i] *= by;
    if (DUAL) j->mixed[t * 256 + (8 + head) * 16 + i] *= by;
  }
}

static inline float mixed_at(const struct job *j, int head, int64_t c) {
  const int64_t odd = c & 1, row = DUAL ? odd * 8 + head : odd * 16 + head;
  return j->mixed[c / BROAD * LEFTS * 256 + row * 16 + c % BROAD / 2];
}

static void pass(struct job *j) {
  _Alignas(64) float constants[16] = {0};
  _Alignas(64) uint32_t left[CHUNK / TALL * LEFTS * 256];
  _Alignas(64) float s[CHUNK * 16], w[CHUNK * 16];
  const int is_wide = j->width > WIDE, chunk = is_wide ? CHUNK / 2 : CHUNK;
  /* Lines of the next chunk to ask for with each 32 features scored or mixed, and with each list. */
  const int for_score = is_wide ? 0 : 8, for_mix = is_wide ? 4 : 8, for_list = 8;
  number *rest = j->scratch; /* the last lists, if they do not fill a chunk */
  uint32_t *probes = (uint32_t *)(rest + CHUNK * j->width);
  memcpy(constants, j->constants, HEADS * sizeof(float));
  lay_out_probes(j, probes);
  configure();
  for (int64_t u = j->first; u < j->last; u += chunk) {
    const int n = j->last - u < chunk ? (int)(j->last - u) : chunk;
    const number *x = j->states + u * j->width;
    const struct rows rows = {s, w, u, u + n, 16, 16};
    j->ahead = (const char *)(x + chunk * j->width);
    if (n < chunk) {
      memcpy(rest, x, n * j->width * sizeof(number));
      memset(rest + n * j->width, 0, (chunk - n) * j->width * sizeof(number));
      x = rest;
    }
    score_tiles(j, x, probes, constants, chunk, for_score, s);
    weigh_lists(j, &rows, for_list);
    if (j->mode == FIND_TOP) continue;
    memset(w + n * 16, 0, (chunk - n) * 16 * sizeof(float));
    turn_weights(w, left, chunk);
    mix_tiles(j, x, left, chunk, for_mix);
  }
  _tile_release();
}

/* mixed: (C / 32, LEFTS, 16, 16), C a multiple of 32; scratch: (96, C) numbers. */
void attend(struct job *j) { settle(j, pass, j->width / BROAD * LEFTS * 256); }
