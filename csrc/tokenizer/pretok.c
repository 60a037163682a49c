/* pretok.c - a small matcher for the regular expressions of pre-tokenizers.
 * An alternative is at most EL_MAX_ATOMS repeated sets in a row. Each takes all it can and gives back one code point
 * at a time when the rest fails. Linear in all: in every table, what a failing alternative reads is taken by a later
 * alternative of the same expression (where that does not hold, like \s+$, the pass is a function below). */
#include "pretok.h"

#include "utf8.h"

#define BIT(c) (1u << (c))
#define NUMBERS (BIT(EL_CC_NUMBER) | BIT(EL_CC_DIGIT))
#define LETTERS (BIT(EL_CC_LETTER) | BIT(EL_CC_LOWER) | BIT(EL_CC_UPPER))
#define SPACES (BIT(EL_CC_SPACE) | BIT(EL_CC_BLANK) | BIT(EL_CC_TAB) | BIT(EL_CC_LF) | BIT(EL_CC_CR))

typedef struct input { /* one piece; nothing outside is looked at */
    const char *text;
    uint8_t *classes;
    size_t end;
} input;

static unsigned class_at(const input *in, size_t at) { return in->classes[at] & EL_CC_MASK; }

static size_t after(const input *in, size_t at)
{
    do
        at++;
    while (at < in->end && class_at(in, at) == EL_CC_INNER);
    return at;
}

static size_t before(const input *in, size_t at)
{
    do
        at--;
    while (class_at(in, at) == EL_CC_INNER);
    return at;
}

/* White space beyond ASCII counts only as white space, also where a range covers it: vocabularies were measured
 * that way (llama.cpp folds it into U+000B before it applies such an expression). */
static bool in_ranges(const input *in, size_t at, const el_ranges *ranges)
{
    uint32_t cp;

    if (class_at(in, at) == EL_CC_SPACE)
        return false;
    if (el_utf8_next(in->text + at, in->end - at, &cp) <= 0)
        cp = 0xFFFD;
    for (int i = 0; i < ranges->n && cp >= ranges->pairs[i][0]; i++)
        if (cp <= ranges->pairs[i][1])
            return true;
    return false;
}

static bool in_set(const input *in, size_t at, const el_atom *atom)
{
    bool by_class = atom->classes >> class_at(in, at) & 1;

    if (!atom->ranges)
        return by_class;
    if (atom->except)
        return by_class && !in_ranges(in, at, atom->ranges);
    return by_class || in_ranges(in, at, atom->ranges);
}

/* A contraction at `at`: its end, or `at`. */
static size_t contraction(const input *in, size_t at, bool any_case)
{
    char a, b;

    if (class_at(in, at) != EL_CC_QUOTE || in->end - at < 2)
        return at;
    a = in->text[at + 1];
    if (any_case && class_at(in, at + 1) == EL_CC_UPPER)
        a = (char)(a | 0x20);
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return at + 2;
    if (in->end - at < 3)
        return at;
    b = in->text[at + 2];
    if (any_case && class_at(in, at + 2) == EL_CC_UPPER)
        b = (char)(b | 0x20);
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? at + 3 : at;
}

/* (?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+ : starts with a letter; a blank is part of it between a letter or mark and a
 * letter. */
static size_t spaced_letters(const input *in, size_t at)
{
    if (!(LETTERS >> class_at(in, at) & 1))
        return at;
    while (at < in->end) {
        if ((LETTERS | BIT(EL_CC_MARK)) >> class_at(in, at) & 1)
            at = after(in, at);
        else if (class_at(in, at) == EL_CC_BLANK && at + 1 < in->end && LETTERS >> class_at(in, at + 1) & 1)
            at++;
        else
            break;
    }
    return at;
}

/* What one atom takes from `at`: sets *low to the least and *high to the most it can end with. */
static bool take(const input *in, const el_atom *atom, size_t at, size_t *low, size_t *high)
{
    size_t end = at;

    *low = *high = at;
    switch ((el_atom_kind)atom->kind) {
    case EL_ATOM_NOT_BEFORE:
        return at == in->end || !in_set(in, at, atom);
    case EL_ATOM_CONTRACTION:
    case EL_ATOM_CONTRACTION_L:
        if (at < in->end)
            end = contraction(in, at, atom->kind == EL_ATOM_CONTRACTION);
        break;
    case EL_ATOM_SPACED:
        if (at < in->end)
            end = spaced_letters(in, at);
        *low = *high = end;
        return end > at;
    case EL_ATOM_SET:
        if (atom->max == EL_MANY && !atom->ranges) { /* the common case, without counting */
            while (end < in->end && (atom->classes | BIT(EL_CC_INNER)) >> class_at(in, end) & 1)
                end++;
            *high = end;
            *low = atom->min && end > at ? after(in, at) : at;
            return end > at || atom->min == 0;
        }
        for (size_t n = 0; (n < atom->max || atom->max == EL_MANY) && end < in->end && in_set(in, end, atom);) {
            end = after(in, end);
            if (++n == atom->min)
                *low = end;
        }
        *high = end;
        return *low > at || atom->min == 0;
    case EL_ATOM_END:
    case EL_ATOM_OR:
        break;
    }
    *high = end;
    if (atom->min)
        *low = end;
    return end > at || atom->min == 0;
}

/* End of the match of one alternative at `at`, or `at` when there is none. */
static size_t match(const input *in, const el_atom *atoms, size_t at)
{
    size_t low[EL_MAX_ATOMS], high[EL_MAX_ATOMS];
    int i = 0;

    for (;;) {
        size_t from = i ? high[i - 1] : at;

        if (atoms[i].kind <= EL_ATOM_OR)
            return from;
        if (take(in, &atoms[i], from, &low[i], &high[i])) {
            i++;
            continue;
        }
        do { /* let the nearest atom that can spare one give it back */
            if (--i < 0)
                return at;
        } while (high[i] == low[i]);
        high[i] = atoms[i].kind == EL_ATOM_SET ? before(in, high[i]) : low[i];
        i++;
    }
}

static void cut(const input *in, size_t at)
{
    if (at < in->end)
        in->classes[at] |= EL_PIECE_START;
}

static size_t match_any(const input *in, const struct el_pass_plan *plan, size_t at)
{
    unsigned starts = plan->starts[class_at(in, at)];

    for (int i = 0; starts; i++, starts >>= 1)
        if (starts & 1) {
            size_t end = match(in, plan->alternatives[i], at);

            if (end > at)
                return end;
        }
    return at;
}

static void cut_regex(const input *in, size_t at, const struct el_pass_plan *plan)
{
    while (at < in->end) {
        size_t end = match_any(in, plan, at);

        if (end > at) {
            cut(in, at);
            cut(in, end);
            at = end;
        } else {
            at = after(in, at);
        }
    }
}

static size_t run_of(const input *in, size_t at, uint32_t classes, size_t *count)
{
    *count = 0;
    while (at < in->end && classes >> class_at(in, at) & 1) {
        at = after(in, at);
        ++*count;
    }
    return at;
}

static size_t skip(const input *in, size_t at, size_t n)
{
    while (n-- > 0)
        at = after(in, at);
    return at;
}

/* llama.cpp starts no piece at the first digit of a run (unicode.cpp, afmoe): its text goes on from before. */
static void cut_digit_groups(const input *in, size_t at)
{
    while (at < in->end) {
        size_t n, end = run_of(in, at, NUMBERS, &n);

        if (n == 0) {
            at = after(in, at);
            continue;
        }
        at = skip(in, at, n % 3 ? n % 3 : 3);
        for (; at < end; at = skip(in, at, 3))
            cut(in, at);
        cut(in, end);
    }
}

static void cut_digit_triples(const input *in, size_t at)
{
    while (at < in->end) {
        size_t n, end = run_of(in, at, BIT(EL_CC_DIGIT), &n);

        if (n == 0) {
            at = after(in, at);
            continue;
        }
        for (at += n % 3; at < end; at += 3)
            cut(in, at);
    }
}

static void cut_end_space(const input *in, size_t start)
{
    size_t at = in->end;

    while (at > start) {
        size_t last = before(in, at);

        if (!(SPACES >> class_at(in, last) & 1))
            break;
        at = last;
    }
    cut(in, at);
}

/* The classes an atom can begin with. */
static uint32_t first_classes(const el_atom *atom)
{
    switch ((el_atom_kind)atom->kind) {
    case EL_ATOM_SET:
        return atom->ranges && !atom->except ? ~0u : atom->classes;
    case EL_ATOM_CONTRACTION:
    case EL_ATOM_CONTRACTION_L:
        return BIT(EL_CC_QUOTE);
    case EL_ATOM_SPACED:
        return LETTERS;
    default:
        return ~0u;
    }
}

static void prepare_regex(struct el_pass_plan *plan)
{
    const el_atom *atom = plan->pass->atoms;

    for (int i = 0; i < EL_MAX_ALTERNATIVES; i++, atom++) {
        uint32_t classes = 0;
        bool open = true; /* nothing that must take something has come yet */

        plan->alternatives[i] = atom;
        for (; atom->kind > EL_ATOM_OR; atom++) {
            if (open)
                classes |= first_classes(atom);
            open = open && atom->min == 0;
        }
        for (int c = 0; c < 32; c++)
            if (classes >> c & 1)
                plan->starts[c] |= (uint16_t)(1u << i);
        if (atom->kind == EL_ATOM_END)
            break;
    }
}

void el_pretok_prepare(el_pretok_plan *plan, const el_pretok *pre)
{
    *plan = (el_pretok_plan){0};
    for (const el_pass *const *pass = pre->passes; *pass; pass++) {
        struct el_pass_plan *next = &plan->passes[plan->n_passes++];

        next->pass = *pass;
        if ((*pass)->kind == EL_PASS_REGEX)
            prepare_regex(next);
    }
}

static void cut_piece(const input *in, size_t start, const struct el_pass_plan *plan)
{
    switch (plan->pass->kind) {
    case EL_PASS_REGEX:
        cut_regex(in, start, plan);
        break;
    case EL_PASS_DIGIT_GROUPS:
        cut_digit_groups(in, start);
        break;
    case EL_PASS_DIGIT_TRIPLES:
        cut_digit_triples(in, start);
        break;
    case EL_PASS_END_SPACE:
        cut_end_space(in, start);
        break;
    }
}

void el_pretok_cut(const el_pretok_plan *plan, const char *text, size_t n, uint8_t *classes)
{
    classes[0] |= EL_PIECE_START;
    for (int i = 0; i < plan->n_passes; i++)
        for (size_t start = 0, end; start < n; start = end) {
            input in = {text, classes, 0};

            in.end = end = el_piece_end(classes, start, n);
            cut_piece(&in, start, &plan->passes[i]);
        }
}
