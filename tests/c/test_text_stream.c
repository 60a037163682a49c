/* test_text_stream.c - the text stream against every way to split a text: stop strings, whole characters. Exit code 0
 * when all is well; one line per failure otherwise. */
#include <string.h>

#include "sample_harness.h"

static edgellm_text text_of(const char *s) { return (edgellm_text){s, strlen(s)}; }

static el_text_stream *stream_of(const edgellm_text *stops, size_t n)
{
    el_text_stream *s;

    if (el_text_stream_new(&s, stops, n) != EDGELLM_OK) {
        printf("el_text_stream_new: %s\n", el_error_text());
        exit(1);
    }
    return s;
}

/* Takes all that is ready in bites of cap bytes; every bite is whole code points. Returns the new length. */
static size_t take_all(el_text_stream *s, char *out, size_t n, size_t cap)
{
    char bite[64];
    size_t got;

    while ((got = el_text_stream_take(s, bite, cap)) > 0) {
        CHECK(got <= cap && (bite[0] & 0xC0) != 0x80, "bite of %zu", got);
        memcpy(out + n, bite, got);
        n += got;
    }
    return n;
}

/* The rule itself: the text up to the first place where a stop string begins. */
static size_t slow_stop(const char *text, size_t n, const edgellm_text *stops, size_t n_stops)
{
    for (size_t at = 0; at < n; at++)
        for (size_t i = 0; i < n_stops; i++)
            if (stops[i].n_bytes <= n - at && memcmp(text + at, stops[i].data, stops[i].n_bytes) == 0)
                return at;
    return n;
}

/* Pushes text[0 .. n) cut at a and b, and compares with what is expected. */
static void check_split(const char *text, size_t n, size_t a, size_t b, const edgellm_text *stops, size_t n_stops,
                        const char *expected, size_t n_expected)
{
    el_text_stream *s = stream_of(stops, n_stops);
    char out[512];
    size_t length = 0;
    bool stopped = false;

    CHECK(el_text_stream_push(s, text, a, &stopped) == EDGELLM_OK, "push");
    length = take_all(s, out, length, 4);
    CHECK(el_text_stream_push(s, text + a, b - a, &stopped) == EDGELLM_OK, "push");
    length = take_all(s, out, length, 64);
    CHECK(el_text_stream_push(s, text + b, n - b, &stopped) == EDGELLM_OK, "push");
    length = take_all(s, out, length, 5);
    CHECK(length <= n_expected, "gave %zu bytes, only %zu are text", length, n_expected);
    CHECK(el_text_stream_finish(s) == EDGELLM_OK, "finish");
    length = take_all(s, out, length, 7);
    CHECK(length == n_expected && memcmp(out, expected, length) == 0, "'%.*s' cut at %zu, %zu gives '%.*s'", (int)n,
          text, a, b, (int)length, out);
    el_text_stream_free(s);
}

static void check_all_splits(const char *text, size_t n, const edgellm_text *stops, size_t n_stops,
                             const char *expected, size_t n_expected)
{
    for (size_t a = 0; a <= n; a++)
        for (size_t b = a; b <= n; b++)
            check_split(text, n, a, b, stops, n_stops, expected, n_expected);
}

static void test_stop_strings(void)
{
    static const struct {
        const char *text, *stops[3], *expected;
    } cases[] = {
        {"one\n\nUser: two", {"\n\nUser:", "###"}, "one"},
        {"one\n\nUse two", {"\n\nUser:", "###"}, "one\n\nUse two"},
        {"a##b###c", {"###"}, "a##b"},
        {"a##b####", {"###"}, "a##b"},
        {"xabcd", {"bc", "abcd"}, "x"},
        {"xabce", {"bc", "abcd"}, "xa"},
        {"xabc", {"bc", "abcd"}, "xa"},
        {"xababac", {"abac", "bab"}, "xa"},
        {"STOP", {"STOP"}, ""},
        {"Zeit läuft – ende", {"–", "ß"}, "Zeit läuft "},
        {"naïve 😀 stop 😀😁", {"😀😁"}, "naïve 😀 stop "},
        {"ends with STO", {"STOP"}, "ends with STO"},
    };

    for (size_t i = 0; i < EL_COUNT(cases); i++) {
        edgellm_text stops[3];
        size_t n = 0;

        while (n < 3 && cases[i].stops[n]) {
            stops[n] = text_of(cases[i].stops[n]);
            n++;
        }
        check_all_splits(cases[i].text, strlen(cases[i].text), stops, n, cases[i].expected, strlen(cases[i].expected));
    }
}

/* Few letters make many overlaps. One byte at a time, against the rule. */
static void test_random_stops(void)
{
    for (int round = 0; round < 20000; round++) {
        char text[40], words[3][8], out[64];
        edgellm_text stops[3];
        const size_t n = (size_t)below(40), n_stops = 1 + (size_t)below(3);
        size_t length = 0;
        bool stopped = false;

        for (size_t i = 0; i < n; i++)
            text[i] = (char)('a' + below(2));
        for (size_t i = 0; i < n_stops; i++) {
            stops[i] = (edgellm_text){words[i], 1 + (size_t)below(8)};
            for (size_t k = 0; k < stops[i].n_bytes; k++)
                words[i][k] = (char)('a' + below(2));
        }
        el_text_stream *s = stream_of(stops, n_stops);
        const size_t expected = slow_stop(text, n, stops, n_stops);
        for (size_t i = 0; i < n; i++) {
            CHECK(el_text_stream_push(s, &text[i], 1, &stopped) == EDGELLM_OK, "push");
            length = take_all(s, out, length, 64);
            CHECK(length <= expected && (stopped || length + 8 > i), "at most 7 bytes wait");
        }
        CHECK(!stopped || expected < n, "stopped without a stop string");
        CHECK(el_text_stream_finish(s) == EDGELLM_OK, "finish");
        length = take_all(s, out, length, 64);
        CHECK(length == expected && memcmp(out, text, length) == 0, "round %d: %zu bytes, expected %zu", round, length,
              expected);
        el_text_stream_free(s);
    }
}

static void test_stopped(void)
{
    const edgellm_text stop = text_of("END");
    el_text_stream *s = stream_of(&stop, 1);
    char out[64];
    bool stopped = true;

    CHECK(el_text_stream_push(s, "text EN", 7, &stopped) == EDGELLM_OK && !stopped, "not yet");
    CHECK(take_all(s, out, 0, 64) == 5, "EN waits");
    CHECK(el_text_stream_push(s, "D more", 6, &stopped) == EDGELLM_OK && stopped, "found");
    CHECK(el_text_stream_push(s, "more", 4, &stopped) == EDGELLM_OK && stopped, "still stopped");
    CHECK(el_text_stream_finish(s) == EDGELLM_OK && take_all(s, out, 0, 64) == 0, "nothing after it");
    el_text_stream_free(s);
}

static void test_bad_stops(void)
{
    static char long_text[5000];
    const edgellm_text bad[] = {{"", 0}, {NULL, 3}, {"\xC3", 1}, {"a\xFFz", 3}, {long_text, sizeof long_text}};
    el_text_stream *s;

    memset(long_text, 'a', sizeof long_text);
    for (size_t i = 0; i < EL_COUNT(bad); i++) {
        CHECK(el_text_stream_new(&s, &bad[i], 1) == EDGELLM_EINVAL && !s, "case %zu", i);
        CHECK(strstr(el_error_text(), "stop string 0"), "%s", el_error_text());
    }
    CHECK(el_text_stream_new(&s, NULL, 2) == EDGELLM_EINVAL && !s, "NULL");
    CHECK(el_text_stream_new(&s, bad, 257) == EDGELLM_EINVAL && !s, "too many");
}

#define BAD "\xEF\xBF\xBD"

/* Expected: b"...".decode("utf-8", "replace") in Python. */
static void test_utf8(void)
{
    static const char *cases[][2] = {
        {"aé\xE2\x82\xAC😀z", "aé€😀z"},
        {"\xE2\x82"
         "A",
         BAD "A"},
        {"\xF0\x80\x80", BAD BAD BAD},
        {"\xED\xA0\x80", BAD BAD BAD},
        {"\xC0\xAF", BAD BAD},
        {"\xF0\x9F\x98", BAD},
        {"\xF0\x9F\x98\xE2\x82\xAC", BAD "€"},
        {"\xF4\x90\x80\x80", BAD BAD BAD BAD},
        {"x\x80\xBFy", "x" BAD BAD "y"},
        {"\xE2\xE2\x82", BAD BAD},
        {"\xFF\xFE", BAD BAD},
    };
    const edgellm_text stop = text_of("€uro");

    for (size_t i = 0; i < EL_COUNT(cases); i++)
        for (size_t n_stops = 0; n_stops < 2; n_stops++)
            check_all_splits(cases[i][0], strlen(cases[i][0]), &stop, n_stops, cases[i][1], strlen(cases[i][1]));
    check_all_splits("ab\xE2\x82€uro", 11, &stop, 1, "ab" BAD, 5);
    check_all_splits("a\0b", 3, &stop, 1, "a\0b", 3);
}

/* The cost of a byte stays bounded when almost everything is held back: a quadratic version would not end. */
static void test_long_holdback(void)
{
    static char stop_text[4096], piece[1024];
    edgellm_text stops[16];
    char out[4096];
    size_t n = 0;
    bool stopped;

    memset(stop_text, 'a', sizeof stop_text);
    stop_text[4095] = 'b';
    memset(piece, 'a', sizeof piece);
    for (int i = 0; i < 16; i++)
        stops[i] = (edgellm_text){stop_text, sizeof stop_text};
    el_text_stream *s = stream_of(stops, 16);
    for (int i = 0; i < 100000; i++) {
        CHECK(el_text_stream_push(s, piece, i % 10 ? 1 : 30, &stopped) == EDGELLM_OK && !stopped, "push");
        n += el_text_stream_take(s, out, sizeof out);
    }
    CHECK(n == 390000 - 4095, "%zu bytes", n);
    el_text_stream_free(s);
}

int main(void)
{
    test_stop_strings();
    test_random_stops();
    test_stopped();
    test_bad_stops();
    test_utf8();
    test_long_holdback();
    return report("test_text_stream");
}
