/* test_gguf.c - csrc/gguf on files built here: values of every type, conversions and their refusals, lookups, splits,
 * files that change while open, names chosen to collide, and memory that runs out at every call.
 * What can be wrong with a file is tested in tests/unit/test_damaged.py. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "filemap.h"
#include "gguf.h"

static int failures;
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #condition, el_error_text());          \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

/* ---- a file being built --------------------------------------------------------------- */

typedef struct builder {
    uint8_t *bytes;
    size_t n, cap;
    uint64_t n_kv, n_tensors;
} builder;

static void put(builder *b, const void *data, size_t n)
{
    if (b->n + n > b->cap) {
        b->cap = 2 * (b->n + n);
        b->bytes = realloc(b->bytes, b->cap);
        if (!b->bytes)
            exit(2);
    }
    memcpy(b->bytes + b->n, data, n);
    b->n += n;
}

static void put_int(builder *b, uint64_t v, int n_bytes)
{
    uint8_t bytes[8];

    for (int i = 0; i < n_bytes; i++)
        bytes[i] = (uint8_t)(v >> (8 * i));
    put(b, bytes, (size_t)n_bytes);
}

static void put_str(builder *b, const char *s)
{
    put_int(b, strlen(s), 8);
    put(b, s, strlen(s));
}

static void begin(builder *b)
{
    memset(b, 0, sizeof *b);
    put(b, "GGUF\3\0\0\0", 8);
    put_int(b, 0, 8); /* the counts are written by finish() */
    put_int(b, 0, 8);
}

static void add_key(builder *b, const char *key, el_gguf_type type)
{
    put_str(b, key);
    put_int(b, type, 4);
    b->n_kv++;
}

static void add_int(builder *b, const char *key, el_gguf_type type, uint64_t v, int n_bytes)
{
    add_key(b, key, type);
    put_int(b, v, n_bytes);
}

static void add_f64(builder *b, const char *key, double v)
{
    uint64_t bits;

    memcpy(&bits, &v, sizeof bits);
    add_int(b, key, EL_GGUF_F64, bits, 8);
}

static void add_f32(builder *b, const char *key, float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof bits);
    add_int(b, key, EL_GGUF_F32, bits, 4);
}

static void add_array(builder *b, const char *key, el_gguf_type type, uint64_t n)
{
    add_key(b, key, EL_GGUF_ARR);
    put_int(b, type, 4);
    put_int(b, n, 8);
}

/* A row of n F32 values at an offset of the data section. */
static void add_tensor(builder *b, const char *name, uint64_t n, uint64_t offset)
{
    put_str(b, name);
    put_int(b, 1, 4);
    put_int(b, n, 8);
    put_int(b, 0, 4);
    put_int(b, offset, 8);
    b->n_tensors++;
}

static void finish(builder *b, size_t n_data)
{
    size_t n = b->n;

    b->n = 8;
    put_int(b, b->n_tensors, 8);
    put_int(b, b->n_kv, 8);
    b->n = n;
    while (b->n % 32)
        put_int(b, 0, 1);
    for (size_t i = 0; i < n_data; i++)
        put_int(b, i & 255, 1);
}

static el_gguf *open_built(builder *b)
{
    el_gguf *file = NULL;

    el_gguf_open_memory(&file, b->bytes, b->n, 0);
    return file;
}

/* ---- values ---------------------------------------------------------------------------- */

static void build_values(builder *b)
{
    begin(b);
    add_int(b, "u8", EL_GGUF_U8, 200, 1);
    add_int(b, "i8", EL_GGUF_I8, (uint64_t)-100, 1);
    add_int(b, "u16", EL_GGUF_U16, 60000, 2);
    add_int(b, "i16", EL_GGUF_I16, (uint64_t)-30000, 2);
    add_int(b, "u32", EL_GGUF_U32, 4000000000u, 4);
    add_int(b, "i32", EL_GGUF_I32, (uint64_t)-2000000000, 4);
    add_int(b, "u64", EL_GGUF_U64, UINT64_MAX, 8);
    add_int(b, "i64", EL_GGUF_I64, (uint64_t)INT64_MIN, 8);
    add_f32(b, "f32", 1.5f);
    add_f32(b, "tenth", 0.1f);
    add_f64(b, "f64", -0.25);
    add_f64(b, "large", 1e300);
    add_f64(b, "inf", INFINITY);
    add_int(b, "yes", EL_GGUF_BOOL, 1, 1);
    add_int(b, "no", EL_GGUF_BOOL, 0, 1);
    add_key(b, "text", EL_GGUF_STR);
    put_str(b, "say \"hi\"\\\n\xFF");
    add_array(b, "words", EL_GGUF_STR, 3);
    put_str(b, "one");
    put_str(b, "");
    put_str(b, "three");
    add_array(b, "ints", EL_GGUF_I16, 3);
    put_int(b, 1, 2);
    put_int(b, (uint64_t)-2, 2);
    put_int(b, 3, 2);
    add_array(b, "empty", EL_GGUF_F32, 0);
    add_tensor(b, "a", 8, 0);
    add_tensor(b, "b", 4, 64);
    finish(b, 80);
}

static void test_integers(const el_gguf *file)
{
    uint32_t u32 = 7;
    int32_t i32 = 7;
    uint64_t u64 = 7;

    CHECK(el_gguf_get_u32(file, "u8", &u32) == EDGELLM_OK && u32 == 200);
    CHECK(el_gguf_get_u32(file, "u32", &u32) == EDGELLM_OK && u32 == 4000000000u);
    CHECK(el_gguf_get_i32(file, "i8", &i32) == EDGELLM_OK && i32 == -100);
    CHECK(el_gguf_get_i32(file, "i16", &i32) == EDGELLM_OK && i32 == -30000);
    CHECK(el_gguf_get_i32(file, "u16", &i32) == EDGELLM_OK && i32 == 60000);
    CHECK(el_gguf_get_i32(file, "i32", &i32) == EDGELLM_OK && i32 == -2000000000);
    CHECK(el_gguf_get_u64(file, "u64", &u64) == EDGELLM_OK && u64 == UINT64_MAX);
    u32 = 7;
    CHECK(el_gguf_get_u32(file, "absent", &u32) == EDGELLM_OK && u32 == 7);
    CHECK(el_gguf_get_u32(file, "i8", &u32) == EDGELLM_EFORMAT && u32 == 7);
    CHECK(strstr(el_error_text(), "'i8' has the value -100, it must be from 0 to 4294967295"));
    CHECK(el_gguf_get_i32(file, "u32", &i32) == EDGELLM_EFORMAT);
    CHECK(el_gguf_get_i32(file, "u64", &i32) == EDGELLM_EFORMAT);
    CHECK(el_gguf_get_i32(file, "i64", &i32) == EDGELLM_EFORMAT);
    CHECK(el_gguf_get_u64(file, "i64", &u64) == EDGELLM_EFORMAT);
    CHECK(el_gguf_get_u32(file, "f32", &u32) == EDGELLM_EFORMAT);
    CHECK(strstr(el_error_text(), "'f32' is of type f32, it must be an integer"));
    CHECK(el_gguf_get_u32(file, "yes", &u32) == EDGELLM_EFORMAT);
    CHECK(el_gguf_get_u32(file, "ints", &u32) == EDGELLM_EFORMAT);
    CHECK(strstr(el_error_text(), "an array of i16"));
}

static void test_other_scalars(const el_gguf *file)
{
    float f32 = 7;
    bool flag = false;
    el_str s = {"", 0};

    CHECK(el_gguf_get_f32(file, "f32", &f32) == EDGELLM_OK && f32 == 1.5f);
    CHECK(el_gguf_get_f32(file, "f64", &f32) == EDGELLM_OK && f32 == -0.25f);
    CHECK(el_gguf_get_f32(file, "inf", &f32) == EDGELLM_OK && isinf(f32));
    CHECK(el_gguf_get_f32(file, "absent", &f32) == EDGELLM_OK && isinf(f32));
    CHECK(el_gguf_get_f32(file, "large", &f32) == EDGELLM_EFORMAT);
    CHECK(el_gguf_get_f32(file, "u8", &f32) == EDGELLM_EFORMAT);
    CHECK(el_gguf_get_bool(file, "yes", &flag) == EDGELLM_OK && flag);
    CHECK(el_gguf_get_bool(file, "absent", &flag) == EDGELLM_OK && flag);
    CHECK(el_gguf_get_bool(file, "no", &flag) == EDGELLM_OK && !flag);
    CHECK(el_gguf_get_bool(file, "u8", &flag) == EDGELLM_EFORMAT);
    CHECK(el_gguf_get_str(file, "text", &s) == EDGELLM_OK && el_str_eq(s, "say \"hi\"\\\n\xFF"));
    CHECK(el_gguf_get_str(file, "absent", &s) == EDGELLM_OK && s.n > 0);
    CHECK(el_gguf_get_str(file, "words", &s) == EDGELLM_EFORMAT);
    CHECK(strstr(el_error_text(), "an array of string, it must be a string"));
}

static void test_arrays(const el_gguf *file)
{
    const el_gguf_kv *ints = el_gguf_find(file, "ints");
    const el_gguf_kv *words = el_gguf_find(file, "words");
    int64_t i64 = 0;
    double f64 = 0;
    el_str *strings = NULL;

    CHECK(ints && ints->type == EL_GGUF_ARR && ints->item_type == EL_GGUF_I16 && ints->n == 3 && ints->n_bytes == 6);
    CHECK(el_gguf_item_i64(ints, 1, &i64) == EDGELLM_OK && i64 == -2);
    CHECK(el_gguf_item_i64(ints, 3, &i64) == EDGELLM_EINVAL);
    CHECK(el_gguf_item_f64(ints, 1, &f64) == EDGELLM_EFORMAT);
    CHECK(el_gguf_item_i64(el_gguf_find(file, "yes"), 0, &i64) == EDGELLM_OK && i64 == 1);
    CHECK(el_gguf_item_i64(el_gguf_find(file, "u64"), 0, &i64) == EDGELLM_EFORMAT);
    CHECK(el_gguf_item_i64(el_gguf_find(file, "i64"), 0, &i64) == EDGELLM_OK && i64 == INT64_MIN);
    CHECK(el_gguf_item_f64(el_gguf_find(file, "large"), 0, &f64) == EDGELLM_OK && f64 == 1e300);
    CHECK(el_gguf_item_f64(el_gguf_find(file, "empty"), 0, &f64) == EDGELLM_EINVAL);
    CHECK(el_gguf_item_i64(words, 0, &i64) == EDGELLM_EFORMAT);
    CHECK(el_gguf_strings(words, &strings) == EDGELLM_OK);
    CHECK(strings && el_str_eq(strings[0], "one") && strings[1].n == 0 && el_str_eq(strings[2], "three"));
    el_free(strings);
    CHECK(el_gguf_strings(ints, &strings) == EDGELLM_EFORMAT && !strings);
}

static void test_tensors(const el_gguf *file, const builder *b)
{
    const el_gguf_tensor *t = el_gguf_find_tensor(file, "b");

    CHECK(el_gguf_n_tensors(file) == 2 && t == el_gguf_tensor_at(file, 1));
    CHECK(t && t->n_dims == 1 && t->ne[0] == 4 && t->ne[1] == 1 && t->ne[3] == 1 && t->n_bytes == 16 && t->part == 0);
    CHECK(t && t->offset == b->n - 16 && t->data == b->bytes + t->offset && *(const uint8_t *)t->data == 64);
    CHECK(!el_gguf_find_tensor(file, "c") && !el_gguf_tensor_at(file, 2));
}

static void test_json(const el_gguf *file)
{
    char *json = NULL;
    size_t n = 0;

    CHECK(el_gguf_json(file, 2, &json, &n) == EDGELLM_OK && json && strlen(json) == n);
    CHECK(json && strstr(json, "\"words\": {\"items\": [\"one\", \"\"], \"count\": 3}"));
    CHECK(json && strstr(json, "\"text\": \"say \\\"hi\\\"\\\\\\u000a\xEF\xBF\xBD\""));
    CHECK(json && strstr(json, "\"tenth\": 0.1,") && strstr(json, "\"large\": 1e+300"));
    CHECK(json && strstr(json, "\"inf\": \"inf\"") && strstr(json, "\"f32\": 1.5,"));
    CHECK(json && strstr(json, "\"u64\": 18446744073709551615") && strstr(json, "\"i64\": -9223372036854775808"));
    CHECK(json && strstr(json, "\"yes\": true, \"no\": false") && strstr(json, "\"empty\": []"));
    el_free(json);
    CHECK(el_gguf_json(file, 3, &json, &n) == EDGELLM_OK);
    CHECK(json && strstr(json, "\"ints\": [1, -2, 3]"));
    el_free(json);
    CHECK(el_gguf_json(file, -1, &json, &n) == EDGELLM_EINVAL && !json && n == 0);
}

static void test_values(void)
{
    builder b;
    el_gguf *file;

    build_values(&b);
    file = open_built(&b);
    CHECK(file);
    if (file) {
        CHECK(el_gguf_version(file) == 3 && el_gguf_alignment(file) == 32 && el_gguf_n_kv(file) == b.n_kv);
        CHECK(!el_gguf_kv_at(file, b.n_kv) && el_str_eq(el_gguf_kv_at(file, 0)->key, "u8"));
        test_integers(file);
        test_other_scalars(file);
        test_arrays(file);
        test_tensors(file, &b);
        test_json(file);
        CHECK(el_gguf_check_unchanged(file) == EDGELLM_OK);
    }
    el_gguf_close(file);
    free(b.bytes);
}

/* ---- damage that is easier to do here than in Python ------------------------------------ */

/* Every cut of a sound file is refused, or is the file itself; under a sanitizer no byte past the cut is read. */
static void test_every_cut(void)
{
    builder b;

    build_values(&b);
    for (size_t n = 0; n < b.n; n++) {
        uint8_t *cut = malloc(n ? n : 1);
        el_gguf *file = NULL;

        if (!cut)
            break;
        memcpy(cut, b.bytes, n);
        CHECK(el_gguf_open_memory(&file, cut, n, 0) != EDGELLM_OK && !file);
        el_gguf_close(file);
        free(cut);
    }
    free(b.bytes);
}

/* The hash of gguf_index.c, so that names can be chosen against it. */
static uint64_t index_hash(const char *s)
{
    uint64_t h = UINT64_C(14695981039346656037);

    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * UINT64_C(1099511628211);
    h = (h ^ h >> 32) * UINT64_C(0x9E3779B97F4A7C15);
    return h ^ h >> 29;
}

static void test_names_that_collide(void)
{
    builder b;
    el_gguf *file = NULL;
    char name[24];

    begin(&b);
    for (unsigned i = 0; b.n_kv < 1000; i++) { /* 1,000 names make a table of 2,048 slots */
        snprintf(name, sizeof name, "k%u", i);
        if (index_hash(name) % 2048 == 5)
            add_int(&b, name, EL_GGUF_U8, 0, 1);
    }
    finish(&b, 0);
    CHECK(el_gguf_open_memory(&file, b.bytes, b.n, 0) == EDGELLM_EFORMAT);
    CHECK(strstr(el_error_text(), "chosen to collide"));
    el_gguf_close(file);
    free(b.bytes);
}

/* The n-th allocation fails, for every n: a clean ENOMEM each time (idea: SQLite's malloc tests). */
static void test_memory_runs_out(void)
{
    builder b;
    bool done = false;

    build_values(&b);
    for (int n = 1; !done && n < 1000; n++) {
        el_gguf *file = NULL;
        char *json = NULL;
        size_t n_bytes;
        edgellm_status status;

        el_test_fail_after(n);
        status = el_gguf_open_memory(&file, b.bytes, b.n, 0);
        if (status == EDGELLM_OK)
            status = el_gguf_json(file, 100, &json, &n_bytes);
        el_test_fail_after(-1);
        CHECK(status == EDGELLM_OK || status == EDGELLM_ENOMEM);
        done = status == EDGELLM_OK;
        el_free(json);
        el_gguf_close(file);
    }
    CHECK(done);
    free(b.bytes);
}

static void test_types(void)
{
    uint32_t elements = 0, bytes = 0;
    const char *name = "";

    CHECK(el_gguf_type_size(12, &elements, &bytes, &name) && elements == 256 && bytes == 144 && !strcmp(name, "Q4_K"));
    CHECK(el_gguf_type_size(42, &elements, &bytes, &name) && elements == 64 && bytes == 18 && !strcmp(name, "Q2_0"));
    CHECK(!el_gguf_type_size(4, &elements, &bytes, &name) && !el_gguf_type_size(43, &elements, &bytes, &name));
    CHECK(!el_gguf_type_size(UINT32_MAX, &elements, &bytes, &name));
}

/* ---- files ------------------------------------------------------------------------------ */

static char folder[] = "/tmp/edgellm_gguf_XXXXXX";

static void write_file(const char *path, const builder *b, size_t n)
{
    FILE *f = fopen(path, "wb");

    CHECK(f && fwrite(b->bytes, 1, n, f) == n);
    if (f)
        fclose(f);
}

static void test_header_only(const char *path, const builder *b)
{
    el_gguf *file = NULL;
    const el_gguf_tensor *t;

    write_file(path, b, b->n - 80); /* without its tensor data */
    CHECK(el_gguf_open(&file, path, 0) == EDGELLM_EFORMAT && !file);
    CHECK(el_gguf_open(&file, path, EL_GGUF_HEADER_ONLY) == EDGELLM_OK);
    t = file ? el_gguf_find_tensor(file, "a") : NULL;
    CHECK(t && !t->data && t->n_bytes == 32 && t->offset == b->n - 80);
    el_gguf_close(file);
}

static void test_file_changes(const char *path, const builder *b)
{
    el_gguf *file = NULL;
    char other[64];

    write_file(path, b, b->n);
    CHECK(el_gguf_open(&file, path, 0) == EDGELLM_OK);
    if (!file)
        return;
    CHECK(el_gguf_check_unchanged(file) == EDGELLM_OK);
    snprintf(other, sizeof other, "%s/other", folder);
    write_file(other, b, 10);
    CHECK(rename(other, path) == 0); /* replaced by rename: ours is still whole */
    CHECK(el_gguf_check_unchanged(file) == EDGELLM_OK);
    el_gguf_close(file);
    write_file(path, b, b->n);
    CHECK(el_gguf_open(&file, path, 0) == EDGELLM_OK);
    CHECK(truncate(path, (off_t)b->n / 2) == 0);
    CHECK(file && el_gguf_check_unchanged(file) == EDGELLM_EIO && strstr(el_error_text(), "was cut from"));
    CHECK(truncate(path, (off_t)b->n + 5) == 0);
    CHECK(file && el_gguf_check_unchanged(file) == EDGELLM_EIO && strstr(el_error_text(), "was written to"));
    el_gguf_close(file);
    remove(path);
}

static void write_part(int number, char *path, size_t cap)
{
    builder b;
    char name[8];

    begin(&b);
    add_int(&b, "split.no", EL_GGUF_U16, (uint64_t)number, 2);
    add_int(&b, "split.count", EL_GGUF_U16, 3, 2);
    add_int(&b, "split.tensors.count", EL_GGUF_I32, 3, 4);
    add_int(&b, "part", EL_GGUF_I32, (uint64_t)number, 4);
    snprintf(name, sizeof name, "t%d", number);
    add_tensor(&b, name, 8, 32 * (uint64_t)number);
    finish(&b, 96);
    snprintf(path, cap, "%s/m-%05d-of-00003.gguf", folder, number + 1);
    write_file(path, &b, b.n);
    free(b.bytes);
}

static void test_split(void)
{
    char paths[3][128];
    el_gguf *file = NULL;
    const el_gguf_tensor *t;
    uint32_t part = 9;

    for (int i = 0; i < 3; i++)
        write_part(i, paths[i], sizeof paths[i]);
    CHECK(el_gguf_open(&file, paths[0], 0) == EDGELLM_OK);
    t = file ? el_gguf_find_tensor(file, "t2") : NULL;
    CHECK(t && t->part == 2 && *(const uint8_t *)t->data == 64 && el_gguf_n_tensors(file) == 3);
    CHECK(file && el_gguf_get_u32(file, "part", &part) == EDGELLM_OK && part == 0);
    CHECK(file && el_gguf_check_unchanged(file) == EDGELLM_OK);
    CHECK(truncate(paths[2], 40) == 0);
    CHECK(file && el_gguf_check_unchanged(file) == EDGELLM_EIO && strstr(el_error_text(), "m-00003-of-00003.gguf"));
    el_gguf_close(file);
    CHECK(el_gguf_open(&file, paths[0], EL_GGUF_HEADER_ONLY) == EDGELLM_OK);
    CHECK(file && el_gguf_n_tensors(file) == 1); /* the other parts are not looked at */
    el_gguf_close(file);
    CHECK(el_gguf_open(&file, paths[1], 0) == EDGELLM_EINVAL && strstr(el_error_text(), "m-00001-of-00003.gguf"));
    for (int i = 0; i < 3; i++)
        remove(paths[i]);
}

static void test_no_memory_for_parts(void)
{
    char paths[3][128];
    bool done = false;

    for (int i = 0; i < 3; i++)
        write_part(i, paths[i], sizeof paths[i]);
    for (int n = 1; !done && n < 1000; n++) {
        el_gguf *file = NULL;
        edgellm_status status;

        el_test_fail_after(n);
        status = el_gguf_open(&file, paths[0], 0);
        el_test_fail_after(-1);
        CHECK(status == EDGELLM_OK || status == EDGELLM_ENOMEM);
        done = status == EDGELLM_OK;
        el_gguf_close(file);
    }
    CHECK(done);
    for (int i = 0; i < 3; i++)
        remove(paths[i]);
}

static void test_files(void)
{
    builder b;
    char path[64];

    CHECK(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    build_values(&b);
    test_header_only(path, &b);
    test_file_changes(path, &b);
    test_split();
    test_no_memory_for_parts();
    free(b.bytes);
    CHECK(rmdir(folder) == 0);
    CHECK(!strcmp(el_file_name("/a/b.gguf"), "b.gguf") && !strcmp(el_file_name("b"), "b"));
    CHECK(!strcmp(el_file_name("/a/b/"), "b/"));
}

int main(void)
{
    test_values();
    test_every_cut();
    test_names_that_collide();
    test_memory_runs_out();
    test_types();
    test_files();
    return failures != 0;
}
