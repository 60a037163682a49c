/* charsmap.c - see the header. */
#include "charsmap.h"

#include <string.h>

static uint32_t load(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

edgellm_status el_charsmap_open(el_charsmap *map, const uint8_t *data, size_t n)
{
    size_t n_bytes;

    *map = (el_charsmap){0};
    if (n == 0)
        return EDGELLM_OK;
    n_bytes = n >= 4 ? load(data) : 0;
    if (n < 5 || n_bytes >= n - 4)
        return el_fail(EDGELLM_EFORMAT,
                       "tokenizer.ggml.precompiled_charsmap has %zu bytes, too few for its table of %zu", n, n_bytes);
    map->units = data + 4;
    map->n_units = n_bytes / 4;
    map->replacements = (const char *)data + 4 + n_bytes;
    map->n_replacements = n - 4 - n_bytes;
    return EDGELLM_OK;
}

/* A unit: bits 0-7 the byte that leads here, 8 has a value, 10-30 where the children are, in units of 1 or, with
 * bit 9, of 256. Bit 31 marks a value, which is the other bits. A unit outside matches no byte. */
static uint32_t unit_at(const el_charsmap *map, uint32_t i)
{
    return i < map->n_units ? load(map->units + 4 * (size_t)i) : 1u << 31;
}

static uint32_t offset_of(uint32_t unit) { return unit >> 10 << ((unit & 1u << 9) >> 6); }

enum { MAX_REPLACEMENT = 256 }; /* NFKC's longest, of U+FDFA, has 33 bytes; a text must not grow without bound */

size_t el_charsmap_match(const el_charsmap *map, const char *text, size_t n, el_str *out)
{
    size_t longest = 0;
    uint32_t at, value = 0;

    if (map->n_units == 0)
        return 0;
    at = offset_of(unit_at(map, 0));
    for (size_t i = 0; i < n && text[i]; i++) {
        uint8_t byte = (uint8_t)text[i];
        uint32_t unit;

        at ^= byte;
        unit = unit_at(map, at);
        if ((unit & (1u << 31 | 0xFF)) != byte)
            break;
        at ^= offset_of(unit);
        if (unit >> 8 & 1) {
            longest = i + 1;
            value = unit_at(map, at) & ~(1u << 31);
        }
    }
    if (longest) {
        const char *end = NULL;

        if (value < map->n_replacements)
            end = memchr(map->replacements + value, 0, map->n_replacements - value);
        if (!end || end - (map->replacements + value) > MAX_REPLACEMENT)
            return 0;
        *out = (el_str){map->replacements + value, (size_t)(end - (map->replacements + value))};
    }
    return longest;
}
