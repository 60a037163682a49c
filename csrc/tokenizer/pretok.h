/* pretok.h - cuts a text into the pieces within which byte-level BPE may join bytes.
 * Each pre-tokenizer is a list of passes, each pass one regular expression written as a table (pretok_table.c); a pass
 * cuts the pieces of the one before into matches and the gaps between them. pretok.c walks the tables. */
#ifndef EL_PRETOK_H
#define EL_PRETOK_H

#include "char_class.h"
#include "error.h"
#include "mem.h"

typedef struct el_ranges {
    const uint32_t (*pairs)[2]; /* ascending, first and last code point */
    int n;
} el_ranges;

typedef enum el_atom_kind {
    EL_ATOM_END = 0,       /* of the expression */
    EL_ATOM_OR,            /* the alternatives are tried in order, the first that matches counts */
    EL_ATOM_SET,           /* min to max code points of a set, as many as possible */
    EL_ATOM_CONTRACTION,   /* 's 't 'm 'd 're 've 'll in either case, min to max = 1 times */
    EL_ATOM_CONTRACTION_L, /* in lower case only */
    EL_ATOM_NOT_BEFORE,    /* the next code point is not in the set (the end of the piece never is) */
    EL_ATOM_SPACED         /* letters with their marks, single blanks between letters: see pretok.c */
} el_atom_kind;

enum { EL_MANY = 0xFFFF, EL_MAX_ATOMS = 5 };

typedef struct el_atom {
    uint8_t kind;
    uint8_t except; /* the ranges are taken out of the classes, not added */
    uint16_t min, max;
    uint32_t classes; /* bit el_char_class */
    const el_ranges *ranges;
} el_atom;

typedef enum el_pass_kind {
    EL_PASS_REGEX,
    EL_PASS_DIGIT_GROUPS,  /* numbers in threes from the right; what stands before joins the first group */
    EL_PASS_DIGIT_TRIPLES, /* a cut before every place with a multiple of three ASCII digits to go */
    EL_PASS_END_SPACE      /* \s+$ */
} el_pass_kind;

typedef struct el_pass {
    el_pass_kind kind;
    const el_atom *atoms; /* of EL_PASS_REGEX */
} el_pass;

enum {                          /* el_pretok.flags: what else comes with the name */
       EL_PRE_WHOLE_WORDS = 1,  /* a piece that is a token is that token, whatever the merges say */
       EL_PRE_BOS = 2,          /* BOS is added unless the file says otherwise */
       EL_PRE_CLEAN = 4,        /* whole texts are cleaned of blanks before punctuation on the way back */
       EL_PRE_RAW = 8,          /* pieces are UTF-8 with U+2581 for blanks, not the byte alphabet of GPT-2 */
       EL_PRE_NEWLINES = 16,    /* with EL_PRE_RAW: a run of newlines that is a token is that token */
       EL_PRE_BOS_ALWAYS = 32,  /* BOS is added even if the file says no */
       EL_PRE_MASK_LSTRIP = 64, /* white space before the mask token belongs to it */
       EL_PRE_PLAIN = 256,      /* pieces are plain UTF-8 */
       EL_PRE_SEP = 128         /* SEP counts as asked for unless the file says otherwise */
};

typedef struct el_pretok {
    const el_pass *const *passes; /* ends with NULL */
    unsigned flags;
} el_pretok;

/* By the name in tokenizer.ggml.pre; "" is "default". Errors: EUNSUPPORTED, naming the nearest known one. */
edgellm_status el_pretok_find(const el_pretok **out, el_str name);

enum { EL_MAX_PASSES = 6, EL_MAX_ALTERNATIVES = 16 };

/* A pre-tokenizer ready for use: for each pass, which alternatives can begin with a class. */
typedef struct el_pretok_plan {
    int n_passes;
    struct el_pass_plan {
        const el_pass *pass;
        const el_atom *alternatives[EL_MAX_ALTERNATIVES];
        uint16_t starts[32]; /* by class: bit i, alternative i can match here */
    } passes[EL_MAX_PASSES];
} el_pretok_plan;

void el_pretok_prepare(el_pretok_plan *plan, const el_pretok *pre);

/* classes: from el_classify, n > 0; gets EL_PIECE_START on the first byte of every piece. Time is linear. */
void el_pretok_cut(const el_pretok_plan *plan, const char *text, size_t n, uint8_t *classes);

/* End of the piece that starts at `start`. */
static inline size_t el_piece_end(const uint8_t *classes, size_t start, size_t n)
{
    size_t end = start + 1;
    while (end < n && !(classes[end] & EL_PIECE_START))
        end++;
    return end;
}

#endif
