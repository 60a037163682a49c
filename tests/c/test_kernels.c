/* test_kernels.c - every kernel variant this CPU can run against `ref`, bit by bit, and `ref` against sums in double.
 * Weights end where readable memory ends, so one byte read too far ends the test.
 *   test_kernels [ISA...]    default: all there are */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "kernels/kernels.h"

#include "mem.h"

static int failures;
static const char *isa;
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            if (failures++ < 40)                                                                                       \
                fprintf(stderr, "%s:%d: [%s] %s\n", __FILE__, __LINE__, isa, #condition);                              \
        }                                                                                                              \
    } while (0)

/* ---- material ------------------------------------------------------------------------- */

static uint64_t seed = 1;
static uint32_t random_bits(void) /* Knuth's linear generator, upper half */
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

static float random_float(float size) { return ((float)(random_bits() >> 8) / 0x800000 - 1.0f) * size; }

/* n bytes that end at the end of readable memory. */
typedef struct guarded {
    uint8_t *base, *data;
    size_t n_mapped;
} guarded;

static void no_memory(void)
{
    fprintf(stderr, "no memory that ends at a page\n");
    exit(1);
}

#ifdef _WIN32

static guarded guarded_new(size_t n)
{
    const size_t page = 4096, body = (n + page - 1) / page * page; /* on every processor that Windows runs on */
    DWORD before;
    guarded g = {0};

    g.n_mapped = body + page;
    g.base = VirtualAlloc(NULL, g.n_mapped, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (!g.base || !VirtualProtect(g.base + body, page, PAGE_NOACCESS, &before))
        no_memory();
    g.data = g.base + body - n;
    return g;
}

static void guarded_free(guarded *g) { VirtualFree(g->base, 0, MEM_RELEASE); }

/* All that is freed below comes from aligned(). */
static int posix_memalign(void **out, size_t alignment, size_t n)
{
    *out = _aligned_malloc(n, alignment);
    return *out == NULL;
}
#define free _aligned_free

#else

static guarded guarded_new(size_t n)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (n + page - 1) / page * page;
    guarded g = {0};

    g.n_mapped = body + page;
    g.base = mmap(NULL, g.n_mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.base == MAP_FAILED || mprotect(g.base + body, page, PROT_NONE) != 0)
        no_memory();
    g.data = g.base + body - n;
    return g;
}

static void guarded_free(guarded *g) { munmap(g->base, g->n_mapped); }

#endif

static void *aligned(size_t n)
{
    void *p = NULL;

    if (posix_memalign(&p, 64, n ? n : 64) != 0)
        exit(1);
    memset(p, 0x5a, n);
    return p;
}

/* Equal bits, or both NaN. */
static bool same(float a, float b) { return memcmp(&a, &b, 4) == 0 || (a != a && b != b); }

static bool same_rows(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!same(a[i], b[i])) {
            if (failures < 40)
                fprintf(stderr, "    at %lld of %lld: %.9g (%a), expected %.9g (%a)\n", (long long)i, (long long)n,
                        (double)a[i], (double)a[i], (double)b[i], (double)b[i]);
            return false;
        }
    return true;
}

/* ---- weights -------------------------------------------------------------------------- */

static const struct {
    int type;
    const char *name;
    int scales[3]; /* places of f16 scales in a block, -1: none */
} types[] = {
    {2, "q4_0", {0, -1}},    {3, "q4_1", {0, 2, -1}},  {6, "q5_0", {0, -1}},     {7, "q5_1", {0, 2, -1}},
    {8, "q8_0", {0, -1}},    {20, "iq4_nl", {0, -1}},  {39, "mxfp4", {-1}},      {10, "q2_k", {80, 82, -1}},
    {11, "q3_k", {108, -1}}, {12, "q4_k", {0, 2, -1}}, {13, "q5_k", {0, 2, -1}}, {14, "q6_k", {208, -1}},
    {23, "iq4_xs", {0, -1}}, {0, "f32", {-1}},         {1, "f16", {0, -1}},      {30, "bf16", {-1}},
};

enum { PLAIN, LARGEST, SMALLEST, ALL_ONES, ALL_ZEROS, SIGN_BITS, ANY_BITS, TIES, N_KINDS };

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static uint32_t scale_bits(int kind)
{
    static const uint16_t largest[] = {0x7bff, 0xfbff, 0x7bfe}, smallest[] = {0x0001, 0x8001, 0x03ff, 0x0000, 0x8000};

    if (kind == LARGEST)
        return largest[random_bits() % 3];
    if (kind == SMALLEST)
        return smallest[random_bits() % 5];
    if (kind == ANY_BITS)
        return random_bits() & 0xffff;
    return 0x2000 + random_bits() % 0x800 + (random_bits() & 0x8000); /* 2^-7 to 2^-5 */
}

static void fill_block(uint8_t *block, size_t which, int n_bytes, int kind)
{
    for (int i = 0; i < n_bytes; i++)
        block[i] = (uint8_t)(kind == ALL_ONES    ? 0xff
                             : kind == ALL_ZEROS ? 0
                             : kind == SIGN_BITS ? 0x80
                                                 : random_bits() >> 7);
    if (types[which].type == 0) {
        const float v = random_float(2.0f);
        memcpy(block, &v, 4);
    } else if (types[which].type == 30) {
        put16(block, 0x3d00 + random_bits() % 0x200 + (random_bits() & 0x8000));
    } else if (types[which].type == 39) {
        block[0] = (uint8_t)(kind == SMALLEST ? random_bits() % 3 : kind == LARGEST ? 200 : 118 + random_bits() % 6);
    }
    for (int i = 0; types[which].scales[i] >= 0; i++)
        put16(block + types[which].scales[i], scale_bits(kind));
}

static void fill_activations(float *x, int64_t n, int kind)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = random_float(3.0f);
    if (kind == ALL_ONES)
        for (int64_t i = 0; i < n; i++)
            x[i] = 127.0f;
    if (kind == ALL_ZEROS)
        memset(x, 0, (size_t)n * sizeof *x);
    if (kind == SIGN_BITS)
        for (int64_t i = 0; i < n; i++)
            x[i] = -127.0f;
    if (kind == LARGEST)
        for (int64_t i = 0; i < n; i++)
            x[i] *= 1e30f;
    if (kind == SMALLEST)
        for (int64_t i = 0; i < n; i++)
            x[i] *= i / 32 % 2 ? 1e-36f : 1e-40f;
    if (kind == TIES) /* of the rounding */
        for (int64_t i = 0; i < n; i++)
            x[i] = i % 32 ? (float)(i % 32 - 16) + 0.5f : 127.0f;
}

/* ---- matmul --------------------------------------------------------------------------- */

enum { MAX_ROWS = 49, MAX_X = 66 };

typedef struct product {
    int which, kind;
    int64_t k;
    size_t row_bytes, x_stride;
    guarded w;
    float *x;      /* MAX_X rows of k */
    uint8_t *acts; /* MAX_X rows of x_stride */
    float *y;      /* ref: [MAX_X][MAX_ROWS] */
} product;

static product product_new(const el_kernels *ref, size_t which, int kind, int64_t k, size_t gap)
{
    product p = {.which = (int)which, .kind = kind, .k = k};
    int elements = 0, bytes = 0;
    el_act_kind act;

    CHECK(el_kernels_block(types[which].type, &elements, &bytes));
    act = (el_act_kind)el_kernels_act_kind(types[which].type);
    p.row_bytes = (size_t)(k / elements) * (size_t)bytes + gap;
    p.x_stride = el_act_row_bytes(act, k);
    CHECK(p.x_stride % 64 == 0);
    p.w = guarded_new(MAX_ROWS * p.row_bytes - gap);
    for (size_t r = 0; r < MAX_ROWS; r++)
        for (int64_t b = 0; b < k / elements; b++)
            fill_block(p.w.data + r * p.row_bytes + (size_t)b * (size_t)bytes, which, bytes, kind);
    p.x = aligned(MAX_X * (size_t)k * sizeof(float));
    p.acts = aligned(MAX_X * p.x_stride);
    p.y = aligned(MAX_X * MAX_ROWS * sizeof(float));
    for (size_t j = 0; j < MAX_X; j++) {
        fill_activations(p.x + j * (size_t)k, k, j % 5 == 4 ? PLAIN : kind);
        ref->act_quantize(act, p.acts + j * p.x_stride, p.x + j * (size_t)k, k);
    }
    ref->matmul[types[which].type](p.y, MAX_ROWS, p.w.data, p.row_bytes, MAX_ROWS, p.acts, p.x_stride, MAX_X, k, NULL);
    return p;
}

static void product_free(product *p)
{
    guarded_free(&p->w);
    free(p->x);
    free(p->acts);
    free(p->y);
}

/* Any part of the product has the bits it has in the whole. */
static void check_part(const el_kernels *t, const product *p, int64_t row0, int64_t n_rows, int64_t j0, int64_t n_x)
{
    const int64_t ldy = n_rows + 3;
    float *y = aligned((size_t)(n_x * ldy) * sizeof(float));
    void *scratch = aligned(el_matmul_scratch(types[p->which].type, p->k));

    t->matmul[types[p->which].type](y, ldy, p->w.data + (size_t)row0 * p->row_bytes, p->row_bytes, n_rows,
                                    p->acts + (size_t)j0 * p->x_stride, p->x_stride, n_x, p->k, scratch);
    for (int64_t j = 0; j < n_x; j++) {
        static const uint8_t untouched[4] = {0x5a, 0x5a, 0x5a, 0x5a};
        const bool ok = same_rows(y + j * ldy, p->y + (j0 + j) * MAX_ROWS + row0, n_rows);
        if (!ok && failures < 40)
            fprintf(stderr, "    %s kind %d k %lld rows %lld+%lld x %lld+%lld\n", types[p->which].name, p->kind,
                    (long long)p->k, (long long)row0, (long long)n_rows, (long long)j0, (long long)n_x);
        CHECK(ok);
        for (int64_t i = n_rows; i < ldy; i++)
            CHECK(memcmp(&y[j * ldy + i], untouched, 4) == 0);
    }
    free(y);
    free(scratch);
}

static void check_parts(const el_kernels *t, const product *p)
{
    static const int64_t rows[] = {1, 2, 5, 8, 9, 16, 23, 33, 49};
    static const int64_t xs[] = {1, 2, 3, 4, 6, 8, 9, 12, 14, 16, 17, 33, 66};

    for (size_t i = 0; i < EL_COUNT(rows); i++)
        for (size_t j = 0; j < EL_COUNT(xs); j++)
            check_part(t, p, (int64_t)(random_bits() % (uint32_t)(MAX_ROWS - rows[i] + 1)), rows[i],
                       (int64_t)(random_bits() % (uint32_t)(MAX_X - xs[j] + 1)), xs[j]);
    check_part(t, p, MAX_ROWS - 1, 1, 0, 1); /* the last row ends at the guard */
}

/* More activation rows than a pass over the weights takes: the same ones again and again. */
static void check_many_x(const el_kernels *t, const product *p)
{
    enum { MANY = 520 };
    uint8_t *acts = aligned(MANY * p->x_stride);
    float *y = aligned((size_t)MANY * MAX_ROWS * sizeof(float));
    void *scratch = aligned(el_matmul_scratch(types[p->which].type, p->k));

    for (size_t j = 0; j < MANY; j++)
        memcpy(acts + j * p->x_stride, p->acts + j % MAX_X * p->x_stride, p->x_stride);
    t->matmul[types[p->which].type](y, MAX_ROWS, p->w.data, p->row_bytes, MAX_ROWS, acts, p->x_stride, MANY, p->k,
                                    scratch);
    for (size_t j = 0; j < MANY; j++)
        CHECK(same_rows(y + j * MAX_ROWS, p->y + j % MAX_X * MAX_ROWS, MAX_ROWS));
    free(acts);
    free(y);
    free(scratch);
}

static void check_activations(const el_kernels *t, const product *p)
{
    const el_act_kind act = (el_act_kind)el_kernels_act_kind(types[p->which].type);
    uint8_t *row = aligned(p->x_stride);

    for (size_t j = 0; j < 6; j++) {
        memcpy(row, p->acts + j * p->x_stride, p->x_stride); /* padding counts as equal */
        t->act_quantize(act, row, p->x + j * (size_t)p->k, p->k);
        CHECK(memcmp(row, p->acts + j * p->x_stride, p->x_stride) == 0);
    }
    free(row);
}

/* ref against double: exactly what the quantized values say, but for the rounding of the float steps; and close to
 * the product with the activations as they were. */
static void check_against_double(const product *p)
{
    const el_act_kind act = (el_act_kind)el_kernels_act_kind(types[p->which].type);
    const int group = act == EL_ACT_Q8_32 ? 32 : 256;
    float *w = aligned((size_t)p->k * sizeof(float));
    double error = 0, power = 0;

    for (int r = 0; r < MAX_ROWS; r++) {
        el_dequantize_row(types[p->which].type, w, p->w.data + (size_t)r * p->row_bytes, p->k);
        for (int j = 0; j < MAX_X; j++) {
            const float *x = p->x + j * p->k;
            const double y = p->y[j * MAX_ROWS + r];
            double exact = 0, rounded = 0, size = 0;
            for (int64_t b = 0; b < (p->k + group - 1) / group; b++) {
                double amax = 0;
                for (int64_t i = b * group; i < EL_MIN(p->k, (b + 1) * group); i++)
                    amax = EL_MAX(amax, fabs((double)x[i]));
                for (int64_t i = b * group; i < EL_MIN(p->k, (b + 1) * group); i++) {
                    const float inverse = 127.0f / (float)amax;
                    const double q =
                        act == EL_ACT_F32 || amax == 0 ? (double)x[i] : rint((double)(x[i] * inverse)) * amax / 127;
                    exact += (double)w[i] * (double)x[i];
                    rounded += (double)w[i] * q;
                    size += fabs((double)w[i] * q) * (types[p->which].type == 3 ? 4 : 1) + fabs(q) * 4;
                }
            }
            CHECK(fabs(y - rounded) <= 2e-6 * size + 1e-30);
            error += (y - exact) * (y - exact);
            power += exact * exact;
        }
    }
    if (!(error <= 5e-5 * power))
        fprintf(stderr, "    %s: NMSE %g\n", types[p->which].name, error / power);
    CHECK(error <= 5e-5 * power);
    free(w);
}

static void test_matmul(const el_kernels *ref, const el_kernels *t)
{
    static const int64_t by_32[] = {32, 64, 96, 288, 576, 1056}, by_256[] = {256, 512, 1280};
    static const int64_t floats[] = {1, 3, 15, 16, 17, 31, 33, 64, 100, 257};

    for (size_t which = 0; which < EL_COUNT(types); which++) {
        const int act = el_kernels_act_kind(types[which].type);
        const int64_t *ks = act == EL_ACT_F32 ? floats : act == EL_ACT_Q8_32 ? by_32 : by_256;
        const size_t n_ks = act == EL_ACT_F32     ? EL_COUNT(floats)
                            : act == EL_ACT_Q8_32 ? EL_COUNT(by_32)
                                                  : EL_COUNT(by_256);
        for (size_t i = 0; i < n_ks; i++)
            for (int kind = 0; kind < N_KINDS; kind++) {
                product p = product_new(ref, which, kind, ks[i], kind == ANY_BITS ? 6 : 0);
                if (t == ref && kind == PLAIN)
                    check_against_double(&p);
                check_activations(t, &p);
                check_parts(t, &p);
                if (kind == PLAIN)
                    check_many_x(t, &p);
                product_free(&p);
            }
    }
}

static void test_quantize_faults(const el_kernels *ref, const el_kernels *t)
{
    static const float faults[] = {INFINITY, -INFINITY, NAN, 1e-38f, 1e-45f, 3e38f, -0.0f};
    const size_t n = el_act_row_bytes(EL_ACT_Q8_32, 256);
    uint8_t *a = aligned(n), *b = aligned(n);
    float x[256];

    for (size_t i = 0; i < EL_COUNT(faults); i++)
        for (int kind = EL_ACT_Q8_32; kind <= EL_ACT_Q8_256; kind++) {
            for (int e = 0; e < 256; e++)
                x[e] = e < 64 ? random_float(1.0f) : e < 128 ? faults[i] : 0.0f;
            ref->act_quantize((el_act_kind)kind, a, x, 256);
            t->act_quantize((el_act_kind)kind, b, x, 256);
            CHECK(memcmp(a, b, n) == 0);
        }
    free(a);
    free(b);
}

/* ---- rows ----------------------------------------------------------------------------- */

static const int64_t lengths[] = {1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 33, 64, 100, 576, 1000};
enum { LONGEST = 1024 };
static float in_a[LONGEST], in_b[LONGEST], in_c[LONGEST], want[LONGEST], got[LONGEST];

static void fill_rows(float size)
{
    for (int i = 0; i < LONGEST; i++) {
        in_a[i] = random_float(size);
        in_b[i] = random_float(2.0f);
        in_c[i] = random_float(1.0f);
        want[i] = got[i] = -7.0f;
    }
}

/* Runs the call for ref into want and for t into got, also one float past an aligned place. */
#define BOTH(CALL)                                                                                                     \
    do {                                                                                                               \
        const el_kernels *k = ref;                                                                                     \
        float *y = want;                                                                                               \
        CALL;                                                                                                          \
        k = t;                                                                                                         \
        y = got;                                                                                                       \
        CALL;                                                                                                          \
        CHECK(same_rows(got, want, LONGEST));                                                                          \
    } while (0)

static void test_rows(const el_kernels *ref, const el_kernels *t)
{
    static const float sizes[] = {1.0f, 30.0f, 200.0f, 1e-20f, 1e20f}, params[] = {0.7f, 1.3f, 0.5f, -1e-6f};

    for (size_t s = 0; s < EL_COUNT(sizes); s++)
        for (size_t l = 0; l < EL_COUNT(lengths); l++) {
            const int64_t n = lengths[l], rot = n / 4 * 4;
            fill_rows(sizes[s]);
            if (s == 2 && n > 4) {
                in_a[0] = INFINITY;
                in_a[1] = -INFINITY;
                in_a[2] = NAN;
                in_a[3] = -0.0f;
            }
            BOTH(k->rms_norm(y, in_a + 1, in_b, n, 1e-6f));
            BOTH(k->rms_norm(y, in_a, NULL, n, 1e-6f));
            BOTH(k->layer_norm(y, in_a, in_b, in_c + 1, n, 1e-5f));
            BOTH(k->layer_norm(y, in_a, NULL, NULL, n, 1e-5f));
            BOTH(k->add(y + 1, in_a, in_b, n));
            BOTH(k->mul(y, in_a + 1, in_b, n));
            BOTH(k->scale(y, in_a, 0.3f, n));
            BOTH(k->axpy(y, 0.3f, in_a, n));
            BOTH(k->silu_mul(y, in_a, in_b, n));
            BOTH(k->silu_mul(y, in_a, NULL, n));
            BOTH(k->gelu_mul(y, in_a, in_b, n));
            BOTH(k->gelu_mul(y, in_a, NULL, n));
            for (el_map which = 0; which < EL_N_MAPS; which++)
                BOTH(k->map(which, y + 1, in_a, in_b, n, params));
            BOTH(k->softcap(y, in_a, 30.0f, n));
            BOTH(k->softmax(y, in_a, n));
            BOTH(y[0] = k->dot(in_a, in_b, n));
            BOTH(k->rope_adjacent(y, in_a, in_b, in_c, rot, n));
            BOTH(k->rope_halves(y, in_a, in_b, in_c, rot, n));
            BOTH(k->rope_halves(y, in_a, in_b, in_c, rot / 2, n));
            BOTH(k->f32_to_f16((uint16_t *)y, in_a, n));
            BOTH(k->f16_to_f32(y, (const uint16_t *)in_a, n));
            BOTH(k->f32_to_q8_0(y, in_a, n / 32 * 32));
            BOTH(y[0] = (float)k->argmax(in_a, n));
        }
}

/* A state of three rows, with and without what is erased: the same bits as ref, and ref near exact sums. */
static void test_state_step(const el_kernels *ref, const el_kernels *t)
{
    enum { ROWS = 3 };
    static float before[ROWS * LONGEST], state[2][ROWS * LONGEST], y[2][ROWS];

    for (size_t l = 0; l < EL_COUNT(lengths); l++)
        for (int mode = 0; mode < 3; mode++) {
            const int64_t n = lengths[l];
            el_state_step s = {
                .n_key = n, .n_value = ROWS, .decay = in_a, .key = in_b, .query = in_c, .value = in_b + 1};
            fill_rows(1.0f);
            for (int64_t i = 0; i < ROWS * n; i++)
                before[i] = random_float(1.0f);
            s.probe = mode > 0 ? in_c + 1 : NULL;
            s.erase = mode > 1 ? in_a + 1 : NULL;
            for (int k = 0; k < 2; k++) {
                memcpy(state[k], before, sizeof before);
                (k ? t : ref)->state_step(y[k], state[k], &s);
            }
            CHECK(same_rows(state[1], state[0], ROWS * n) && same_rows(y[1], y[0], ROWS));
            for (int64_t j = 0; j < ROWS; j++) {
                double held = 0, sum = 0, size = 0;
                for (int64_t i = 0; i < n && s.probe; i++)
                    held += (double)before[j * n + i] * (double)s.probe[i];
                for (int64_t i = 0; i < n; i++) {
                    const double erased = s.erase ? held * (double)s.erase[i] : 0;
                    const double now =
                        (double)before[j * n + i] * (double)s.decay[i] + (double)s.value[j] * (double)s.key[i] + erased;
                    CHECK(fabs(now - (double)state[0][j * n + i]) < 1e-4 * (1 + fabs(erased)));
                    sum += now * (double)s.query[i];
                    size += fabs(now);
                }
                CHECK(fabs((mode == 1 ? held : sum) - (double)y[0][j]) < 1e-5 * (1 + size));
            }
        }
}

static void test_top_k(const el_kernels *ref, const el_kernels *t)
{
    static const int64_t ks[] = {0, 1, 2, 5, 40, 300};

    for (size_t l = 0; l < EL_COUNT(lengths); l++)
        for (size_t i = 0; i < EL_COUNT(ks); i++) {
            const int64_t n = lengths[l], k = ks[i];
            int32_t ids[2][300];
            float values[2][300];
            int64_t found;
            for (int64_t e = 0; e < n; e++)
                in_a[e] = (float)(random_bits() % 50); /* many ties */
            if (n > 8)
                in_a[5] = NAN;
            found = ref->top_k(ids[0], values[0], k, in_a, n);
            CHECK(found == EL_MIN(k, n));
            CHECK(t->top_k(ids[1], values[1], k, in_a, n) == found);
            CHECK(memcmp(ids[0], ids[1], (size_t)found * sizeof(int32_t)) == 0);
            CHECK(same_rows(values[1], values[0], found));
            for (int64_t e = 1; e < found; e++)
                CHECK(values[0][e - 1] > values[0][e] ||
                      (values[0][e - 1] == values[0][e] && ids[0][e - 1] < ids[0][e]));
            if (k == 1)
                CHECK(ref->argmax(in_a, n) == ids[0][0]);
        }
}

/* Every f16 there is and every border between two of them. */
static void test_f16(const el_kernels *ref, const el_kernels *t)
{
    for (uint32_t h = 0; h < 0x10000; h += 8) {
        uint16_t from[8], to[8], to_ref[8];
        float a[8], b[8];
        for (uint32_t i = 0; i < 8; i++)
            from[i] = (uint16_t)(h + i);
        ref->f16_to_f32(a, from, 8);
        t->f16_to_f32(b, from, 8);
        CHECK(memcmp(a, b, sizeof a) == 0);
        for (int nudge = -1; nudge <= 1; nudge++) {
            for (int i = 0; i < 8; i++) {
                uint32_t bits;
                memcpy(&bits, &a[i], 4);
                bits += 0x1000 + (uint32_t)nudge; /* half of f16's last place, for normal values */
                memcpy(&b[i], &bits, 4);
            }
            ref->f32_to_f16(to_ref, b, 8);
            t->f32_to_f16(to, b, 8);
            CHECK(memcmp(to, to_ref, sizeof to) == 0);
        }
        ref->f32_to_f16(to_ref, a, 8);
        for (int i = 0; i < 8; i++)
            CHECK(to_ref[i] == from[i] || a[i] != a[i]);
    }
}

static double exact_map(el_map which, double x, double u, const double f[4])
{
    const double phi = erfc(-x / sqrt(2)) / 2, quick = 1 / (1 + exp(-1.702 * x)), relu = fmax(x, 0);
    const double gelu = x / 2 * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))), silu = x / (1 + exp(-x));
    const double hard = fmin(1, fmax(0, (x + 3) / 6)), g = fmin(x, f[1]), v = fmax(-f[1], fmin(f[1], u));

    switch (which) {
    case EL_MAP_ADD:
        return x + u;
    case EL_MAP_SUB:
        return x - u;
    case EL_MAP_MUL:
        return x * u;
    case EL_MAP_DIV:
        return x / u;
    case EL_MAP_SCALE:
        return x * f[0] + f[1];
    case EL_MAP_CLAMP:
        return fmin(f[1], fmax(f[0], x));
    case EL_MAP_NEG:
        return -x;
    case EL_MAP_ABS:
        return fabs(x);
    case EL_MAP_SIGN:
        return (x > 0) - (x < 0);
    case EL_MAP_STEP:
        return x > 0;
    case EL_MAP_SQR:
        return x * x;
    case EL_MAP_SQRT:
        return sqrt(x);
    case EL_MAP_EXP:
        return exp(x);
    case EL_MAP_EXPM1:
        return expm1(x);
    case EL_MAP_TANH:
        return tanh(x);
    case EL_MAP_SIGMOID:
        return 1 / (1 + exp(-x));
    case EL_MAP_SOFTPLUS:
        return log1p(exp(x));
    case EL_MAP_HARD_SIGMOID:
        return hard;
    case EL_MAP_HARD_SWISH:
        return x * hard;
    case EL_MAP_ELU:
        return x > 0 ? x : expm1(x);
    case EL_MAP_RELU:
        return relu;
    case EL_MAP_RELU_SQR:
        return relu * relu;
    case EL_MAP_SILU:
        return silu;
    case EL_MAP_GELU:
        return gelu;
    case EL_MAP_GELU_ERF:
        return x * phi;
    case EL_MAP_GELU_QUICK:
        return x * quick;
    case EL_MAP_XIELU:
        return x > 0 ? f[1] * x * x + f[2] * x : (expm1(fmin(x, f[3])) - x) * f[0] + f[2] * x;
    case EL_MAP_REGLU:
        return relu * u;
    case EL_MAP_GEGLU:
        return gelu * u;
    case EL_MAP_SWIGLU:
        return silu * u;
    case EL_MAP_SWIGLU_OAI:
        return g / (1 + exp(-f[0] * g)) * (v + 1);
    case EL_MAP_GEGLU_ERF:
        return x * phi * u;
    case EL_MAP_GEGLU_QUICK:
        return x * quick * u;
    default:
        return NAN;
    }
}

static void test_maps(const el_kernels *ref)
{
    static const float f[4] = {0.7f, 1.3f, 0.5f, -1e-6f};
    const double exact_f[4] = {(double)f[0], (double)f[1], (double)f[2], (double)f[3]};

    for (el_map which = 0; which < EL_N_MAPS; which++) {
        double worst = 0;
        for (float x = -30; x < 30; x += 0.00137f) {
            const float u = x / 7 + 0.1f;
            const double exact = exact_map(which, (double)x, (double)u, exact_f);
            float y;
            ref->map(which, &y, &x, &u, 1, f);
            if (exact == exact)
                worst = EL_MAX(worst, fabs((double)y - exact) / (fabs(exact) + fabs((double)x) + 1e-2));
        }
        if (!(worst <= 1e-6))
            fprintf(stderr, "    map %d: %g\n", (int)which, worst);
        CHECK(worst <= 1e-6);
    }
}

/* ref's functions against libm's in double, over all they are used for. */
static void test_functions(const el_kernels *ref)
{
    double worst[3] = {0};

    for (float x = -30; x < 30; x += 0.00137f) {
        const double u = 0.7978845608028654 * ((double)x + 0.044715 * (double)x * (double)x * (double)x);
        const double exact[3] = {(double)x / (1 + exp(-(double)x)), (double)x / 2 * (1 + tanh(u)),
                                 30 * tanh((double)x / 30)};
        float y[3];
        ref->silu_mul(&y[0], &x, NULL, 1);
        ref->gelu_mul(&y[1], &x, NULL, 1);
        ref->softcap(&y[2], &x, 30.0f, 1);
        for (int i = 0; i < 3; i++)
            worst[i] = EL_MAX(worst[i], fabs((double)y[i] - exact[i]) / (fabs((double)x) + (i == 2 ? 30 : 1e-3)));
    }
    for (int i = 0; i < 3; i++) {
        if (worst[i] > 3e-7)
            fprintf(stderr, "    function %d: %g\n", i, worst[i]);
        CHECK(worst[i] <= 3e-7);
    }
}

/* ---- attention ------------------------------------------------------------------------ */

enum { N_POSITIONS = 700, N_QUERIES = 11, N_SLOTS = (N_POSITIONS / 32 + 4) * 32 };

typedef struct cache {
    guarded k, v;
    size_t k_stride, v_stride;
    int32_t blocks[N_SLOTS / 32];
    int32_t first[N_QUERIES], last[N_QUERIES];
    float *q;
} cache;

enum { LARGEST_HEAD = 576 };

static size_t kv_bytes(el_kv_type type, int32_t n)
{
    return type == EL_KV_F32 ? (size_t)n * 4 : type == EL_KV_F16 ? (size_t)n * 2 : (size_t)n / 32 * 34;
}

static guarded kv_new(const el_kernels *ref, el_kv_type type, int32_t n, size_t *stride)
{
    guarded g;
    float row[LARGEST_HEAD];

    *stride = kv_bytes(type, n) + (type == EL_KV_F32 ? 8 : 6); /* another head lies between */
    g = guarded_new(N_SLOTS * *stride - (*stride - kv_bytes(type, n)));
    for (size_t slot = 0; slot < N_SLOTS; slot++) {
        for (int32_t i = 0; i < n; i++)
            row[i] = random_float(1.0f);
        if (type == EL_KV_F32)
            memcpy(g.data + slot * *stride, row, kv_bytes(type, n));
        else if (type == EL_KV_F16) {
            uint16_t half[LARGEST_HEAD];
            ref->f32_to_f16(half, row, n);
            memcpy(g.data + slot * *stride, half, kv_bytes(type, n));
        } else
            ref->f32_to_q8_0(g.data + slot * *stride, row, n);
    }
    return g;
}

static double value_at(const guarded *g, size_t stride, el_kv_type type, int32_t slot, int32_t i)
{
    const uint8_t *row = g->data + (size_t)slot * stride;
    const el_kernels *ref = el_kernels_named("ref");
    uint16_t half;
    float f;

    if (type == EL_KV_F32) {
        memcpy(&f, row + 4 * i, 4);
        return (double)f;
    }
    memcpy(&half, type == EL_KV_F16 ? row + 2 * i : row + i / 32 * 34, 2);
    ref->f16_to_f32(&f, &half, 1);
    return type == EL_KV_F16 ? (double)f : (double)f * (int8_t)row[i / 32 * 34 + 2 + i % 32];
}

static void attend(const el_kernels *t, const el_attn *a, float *y, float sink)
{
    const size_t one = el_attn_partial_floats(a->head_v);
    const int32_t n = (N_POSITIONS + EL_ATTN_SEGMENT - 1) / EL_ATTN_SEGMENT;
    float *partials = aligned((size_t)n * (size_t)a->n_q * one * sizeof(float));
    void *scratch = aligned(el_attn_scratch(a->n_q, a->head_k, a->head_v));

    for (int32_t s = 0; s < n; s++)
        t->attn_segment(a, s, partials + (size_t)(s * a->n_q) * one, scratch);
    for (int32_t i = 0; i < a->n_q; i++)
        t->attn_combine(y + i * a->head_v, partials + (size_t)i * one, (size_t)a->n_q * one, n, sink, a->head_v);
    free(partials);
    free(scratch);
}

static void attend_in_double(const el_attn *a, const cache *c, float sink, const float *y)
{
    static double scores[N_POSITIONS], exact[LARGEST_HEAD];

    for (int32_t i = 0; i < a->n_q; i++) {
        double max = (double)sink, total = 0;
        for (int32_t p = c->first[i]; p < c->last[i]; p++) {
            const int32_t slot = c->blocks[p / 32] * 32 + p % 32;
            double s = 0;
            for (int32_t d = 0; d < a->head_k; d++)
                s += (double)a->q[(size_t)i * a->q_stride + (size_t)d] *
                     value_at(&c->k, c->k_stride, a->k_type, slot, d);
            s *= (double)a->scale;
            scores[p] = a->softcap != 0 ? (double)a->softcap * tanh(s / (double)a->softcap) : s;
            if (a->slopes)
                scores[p] -= (double)a->slopes[i] * abs(a->positions[i] - p);
            max = EL_MAX(max, scores[p]);
        }
        total = exp((double)sink - max);
        memset(exact, 0, sizeof exact);
        for (int32_t p = c->first[i]; p < c->last[i]; p++) {
            const double e = exp(scores[p] - max);
            total += e;
            for (int32_t d = 0; d < a->head_v; d++)
                exact[d] += e * value_at(&c->v, c->v_stride, a->v_type, c->blocks[p / 32] * 32 + p % 32, d);
        }
        for (int32_t d = 0; d < a->head_v; d++)
            CHECK(fabs((double)y[i * a->head_v + d] - exact[d] / total) < 2e-6);
    }
}

static void test_attention_of(const el_kernels *ref, const el_kernels *t, el_kv_type k_type, el_kv_type v_type,
                              int32_t head_k, int32_t head_v, float softcap, float sink, bool leaning)
{
    static const int32_t bounds[N_QUERIES][2] = {{0, 700},   {0, 1},   {3, 256}, {256, 257}, {250, 600}, {0, 333},
                                                 {699, 700}, {0, 698}, {0, 698}, {5, 699},   {90, 700}};
    float slopes[N_QUERIES];
    int32_t positions[N_QUERIES];
    cache c;
    el_attn a = {.n_q = N_QUERIES,
                 .head_k = head_k,
                 .head_v = head_v,
                 .k_type = k_type,
                 .v_type = v_type,
                 .q_stride = (size_t)head_k + 5,
                 .scale = 0.3f,
                 .softcap = softcap};
    float *mine = aligned((size_t)(N_QUERIES * head_v) * sizeof(float));
    float *theirs = aligned((size_t)(N_QUERIES * head_v) * sizeof(float));

    c.k = kv_new(ref, k_type, head_k, &c.k_stride);
    c.v = kv_new(ref, v_type, head_v, &c.v_stride);
    c.q = aligned(N_QUERIES * a.q_stride * sizeof(float));
    for (size_t i = 0; i < N_QUERIES * a.q_stride; i++)
        c.q[i] = random_float(2.0f);
    for (int32_t b = 0; b < N_SLOTS / 32; b++) /* a permutation: 7 is coprime to the count or the test finds twins */
        c.blocks[b] = N_SLOTS / 32 - 1 - b;
    for (int i = 0; i < N_QUERIES; i++) {
        c.first[i] = bounds[i][0];
        c.last[i] = bounds[i][1];
        slopes[i] = 1.0f / (float)(4 << i % 6);
        positions[i] = i % 2 ? bounds[i][1] - 1 : bounds[i][0]; /* the last it sees, or one that sees ahead */
    }
    a.slopes = leaning ? slopes : NULL;
    a.positions = positions;
    a.q = c.q;
    a.first = c.first;
    a.last = c.last;
    a.k = c.k.data;
    a.v = c.v.data;
    a.k_stride = c.k_stride;
    a.v_stride = c.v_stride;
    a.blocks = c.blocks;
    attend(ref, &a, theirs, sink);
    if (t == ref)
        attend_in_double(&a, &c, sink, theirs);
    attend(t, &a, mine, sink);
    CHECK(same_rows(mine, theirs, N_QUERIES * head_v));
    for (int32_t i = 0; i < N_QUERIES; i++) { /* alone, a query has the same bits */
        el_attn one = a;
        one.n_q = 1;
        one.q += (size_t)i * a.q_stride;
        one.first += i;
        one.last += i;
        one.slopes = leaning ? slopes + i : NULL;
        one.positions += i;
        attend(t, &one, mine, sink);
        CHECK(same_rows(mine, theirs + i * head_v, head_v));
    }
    guarded_free(&c.k);
    guarded_free(&c.v);
    free(c.q);
    free(mine);
    free(theirs);
}

static void test_attention(const el_kernels *ref, const el_kernels *t)
{
    static const int32_t heads[][2] = {{64, 64}, {128, 128}, {256, 256}, {96, 32}, {192, 128}, {576, 512}};

    for (int type = EL_KV_F32; type <= EL_KV_Q8_0; type++)
        for (size_t i = 0; i < EL_COUNT(heads); i++)
            test_attention_of(ref, t, (el_kv_type)type, (el_kv_type)type, heads[i][0], heads[i][1],
                              i % 2 ? 20.0f : 0.0f, i % 3 ? -INFINITY : 1.5f, i % 2 == 0);
    test_attention_of(ref, t, EL_KV_F16, EL_KV_F16, 80, 80, 0, -INFINITY, true);
    test_attention_of(ref, t, EL_KV_F32, EL_KV_F32, 72, 40, 0, 0.5f, true);
    test_attention_of(ref, t, EL_KV_F32, EL_KV_F16, 20, 17, 0, -INFINITY, false);
    test_attention_of(ref, t, EL_KV_F16, EL_KV_F32, 1, 1, 0, -INFINITY, false);
    test_attention_of(ref, t, EL_KV_Q8_0, EL_KV_F16, 64, 80, 0, -INFINITY, false);
}

/* ---- all ------------------------------------------------------------------------------ */

static void test_isa(const char *name)
{
    const el_kernels *ref = el_kernels_named("ref"), *t = el_kernels_named(name);

    if (!t) {
        printf("%s: not on this CPU\n", name);
        return;
    }
    isa = t->isa;
    seed = 7;
    test_matmul(ref, t);
    test_quantize_faults(ref, t);
    test_rows(ref, t);
    test_state_step(ref, t);
    test_top_k(ref, t);
    test_f16(ref, t);
    test_functions(t);
    test_maps(t);
    test_attention(ref, t);
    printf("%s: %s\n", name, failures ? "FAILED" : "same bits as ref");
}

int main(int argc, char **argv)
{
    static const char *const all[] = {"ref", "avx2", "avxvnni", "avxvnni_evex", "avx512", "neon", "dotprod", "i8mm"};

    for (int i = 1; i < argc; i++)
        test_isa(argv[i]);
    for (size_t i = 0; argc < 2 && i < EL_COUNT(all); i++)
        test_isa(all[i]);
    CHECK(el_kernels_named("unknown") == NULL);
    CHECK(el_kernels_get() != NULL);
    return failures != 0;
}
