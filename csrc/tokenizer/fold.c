/* fold.c - lookups in the tables of unicode_fold.c. */
#include "unicode_fold.h"

static const el_fold *find(const el_fold *folds, size_t n, uint32_t cp)
{
    size_t low = 0, high = n;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (folds[middle].last < cp)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && folds[low].first <= cp ? &folds[low] : NULL;
}

static uint32_t map(const el_fold *folds, size_t n, uint32_t cp)
{
    const el_fold *fold = find(folds, n, cp);

    if (!fold)
        return cp;
    if (fold->step == 0)
        return fold->to;
    return (cp - fold->first) % fold->step == 0 ? fold->to + (cp - fold->first) : cp;
}

uint32_t el_lower_of(uint32_t cp)
{
    if (cp < 128)
        return cp >= 'A' && cp <= 'Z' ? cp | 0x20 : cp;
    return map(el_unicode_lower, el_unicode_n_lower, cp);
}

uint32_t el_unaccented(uint32_t cp) { return cp < 0xC0 ? cp : map(el_unicode_base, el_unicode_n_base, cp); }

bool el_is_control_cp(uint32_t cp)
{
    if (cp < 128)
        return cp < 32 || cp == 127;
    return find(el_unicode_controls, el_unicode_n_controls, cp) != NULL;
}
