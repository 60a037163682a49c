/* tokenizer_impl.h - what the files of this folder share: the tokenizer's insides and one run over a text. */
#ifndef EL_TOKENIZER_IMPL_H
#define EL_TOKENIZER_IMPL_H

#include "tokenizer.h"

#include "pair_merge.h"
#include "charsmap.h"
#include "piece_table.h"
#include "prefix_trie.h"
#include "pretok.h"
#include "special.h"

enum { /* el_tokenizer.traits, above the type of the token */
       EL_TRAIT_TYPE = 7,
       EL_TRAIT_EOG = 8,
       EL_TRAIT_RSTRIP = 16, /* white space after it belongs to it */
       EL_TRAIT_LSTRIP = 32,
       EL_TRAIT_NO_TEXT = 64 /* text cannot become it: not in el_tokenizer.pieces */
};

/* tokenizer.ggml.model with the other roles that only decide about the end of a generation */
enum { EL_ROLE_FIM_PAD = 11, EL_ROLE_FIM_REPO = 12, EL_ROLE_FIM_FILE = 13, EL_N_ROLES = 16 };

struct el_encoding;

typedef struct el_family {
    const char *model;                                                             /* tokenizer.ggml.model */
    edgellm_status (*setup)(el_tokenizer *t, const el_vocab_data *data);           /* tokens and types are in place */
    edgellm_status (*encode)(struct el_encoding *run, const char *text, size_t n); /* NULL: has no text */
} el_family;

extern const el_family el_family_bpe, el_family_gemma4, el_family_whitespace, el_family_spm, el_family_unigram,
    el_family_wordpiece, el_family_rwkv, el_family_plamo2, el_family_test, el_family_none;

struct el_tokenizer {
    const el_family *family;
    el_str *tokens;
    size_t n_tokens;
    uint8_t *traits;       /* a token */
    el_piece_table pieces; /* those that text may become: all but control, unknown and byte tokens */
    el_specials specials;  /* control, unknown and user-defined */
    int32_t byte_ids[256]; /* -1: the vocabulary has none */
    int32_t stand_in;      /* for a byte without a token, -1: none */
    bool drops_bytes;      /* such a byte is left out when there is no stand-in */
    int32_t special[EL_N_ROLES];
    bool adds_bos, adds_eos, adds_sep;
    bool frames_always; /* BOS and SEP stand around a text whatever the file says */
    bool frames_never;  /* nothing stands around a text, likewise */
    bool space_prefix;  /* a blank goes before text that begins a fragment */
    bool marked_spaces; /* U+2581 in a piece is a blank */
    bool plain_pieces;  /* pieces are text as they stand */
    bool clean_spaces;  /* el_detokenize drops blanks before punctuation */
    bool has_strip;     /* some token has EL_TRAIT_RSTRIP or EL_TRAIT_LSTRIP */
    el_pair_fn *pair;
    /* byte-level BPE */
    const el_pretok *pre;
    el_pretok_plan plan; /* of pre */
    bool whole_words;
    el_str *merges;
    el_piece_table merge_ranks; /* of "left right" to its rank */
    bool drops_spaces;          /* white space only divides */
    /* WordPiece */
    bool lowers, strips_accents;
    /* families that look for the pieces that begin at a place */
    el_prefix_trie trie;
    float *scores; /* a token */
    float unknown_score;
    bool merges_spaces; /* a run of blanks is one, at the ends none */
    el_charsmap charsmap;
    el_str *texts;    /* a token: its bytes, where the file spells them otherwise; NULL: it does not */
    char *text_bytes; /* of texts */
    /* SentencePiece */
    uint32_t *keys;          /* a token; lower is better */
    int32_t ascii_ids[128];  /* pieces of one ASCII character, -1: none */
    bool crosses_blank[256]; /* some piece has a blank right after a character that ends with this byte */
};

typedef struct el_cell { /* of the best cut of a text, at a place of it */
    double score;
    uint32_t length; /* of the piece that ends, or that begins, here */
    int32_t id;      /* -1: a character without a piece */
} el_cell;

typedef struct el_known_word { /* what a short piece of text became */
    uint64_t low, high; /* the piece, up to 15 bytes, and its length on top: never 0, so empty entries match nothing */
    int32_t n, ids[3];
} el_known_word;

/* One call of el_tokenize. */
typedef struct el_encoding {
    const el_tokenizer *t;
    int32_t *ids;
    size_t cap, n;
    bool after_special; /* the fragment follows a special token or begins the text */
    el_merger merger;
    char *word; /* pieces as the vocabulary spells them */
    size_t word_room;
    uint8_t *classes;
    size_t classes_room;
    el_cell *cells;
    size_t cells_room;
    el_known_word *words; /* direct-mapped, NULL for short texts */
    size_t words_mask;
} el_encoding;

static inline void el_emit(el_encoding *run, int32_t id)
{
    if (run->n < run->cap)
        run->ids[run->n] = id;
    run->n++;
}

static inline int el_type_of(const el_tokenizer *t, int32_t id) { return t->traits[id] & EL_TRAIT_TYPE; }

/* The byte's token or what stands for it. Errors: EUNSUPPORTED when the vocabulary has neither. */
edgellm_status el_emit_byte(el_encoding *run, uint8_t byte);

void el_encoding_free(el_encoding *run);

/* Room for n bytes in run->word, contents lost. Errors: ENOMEM. */
edgellm_status el_encoding_word(el_encoding *run, size_t n);
edgellm_status el_encoding_grow(el_encoding *run, size_t n); /* the same; contents stay */
/* Room for n cells in run->cells, contents lost. Errors: ENOMEM. */
edgellm_status el_encoding_cells(el_encoding *run, size_t n);

/* Copies text with U+2581 for each blank to out (at least 3 * n bytes); returns the length. */
size_t el_mark_spaces(char *out, const char *text, size_t n);

/* Splits run->word[0 .. n) into code points as symbols of the merger; their ids come from the pieces. Sets *count.
 * Errors: ENOMEM. */
edgellm_status el_symbols_of(el_encoding *run, size_t n, size_t *count);

/* Ids of the merged symbols; those without one go out as bytes. */
edgellm_status el_emit_symbols(el_encoding *run, size_t count);

/* The byte of a token spelled <0xNN>, or -1. */
int el_byte_of(el_str piece);

/* The piece with these bytes among all tokens, also control ones, or -1. */
int32_t el_find_any(const el_tokenizer *t, const char *data, size_t n);

/* Fills pieces and specials and finds the well-known tokens; setup calls it. Errors: EFORMAT, ENOMEM. */
edgellm_status el_index_text(el_tokenizer *t, const el_vocab_data *data);

/* el_index_text, then a trie of the tokens whose type is among `types` (bits) and that text may become. */
edgellm_status el_index_trie(el_tokenizer *t, const el_vocab_data *data, unsigned types);

/* Roles that the file does not name get the family's usual ids (-1: none) where the vocabulary has them. */
void el_usual_roles(el_tokenizer *t, const int32_t *usual, size_t n);

/* Which characters may have a blank right after them inside one of the pieces (tokens, or merges "left right")?
 * Elsewhere a text can be cut before a blank without changing the result, and short words keep the work near. */
void el_find_crossings(el_tokenizer *t, const el_str *pieces, size_t n);
/* The next place after `at` where a text can be cut, or n: before U+2581, or before a blank. */
size_t el_next_mark(const el_tokenizer *t, const char *text, size_t at, size_t n);
size_t el_next_blank(const el_tokenizer *t, const char *text, size_t at, size_t n);

/* A table of words for a text of n bytes, if that is long enough to gain. Errors: ENOMEM. */
edgellm_status el_known_words(el_encoding *run, size_t n);
/* Emits what the n bytes at text became before, of `left` that can be read; else false, and the key for _keep is set,
 * which takes what was emitted since. */
bool el_known_word_emit(el_encoding *run, const char *text, size_t n, size_t left, el_known_word *key);
void el_known_word_keep(el_encoding *run, el_known_word *key);

/* Fills byte_ids from tokens spelled <0xNN> or else as the byte itself, and ascii_ids. */
void el_index_bytes(el_tokenizer *t);

/* Roles and ends of generation by well-known spelling; tokens that must not come from text become control tokens. */
edgellm_status el_known_tokens(el_tokenizer *t, const el_vocab_data *data);

/* GPT-2's alphabet: each byte as a visible character. out has room for 2; returns 1 or 2. */
int el_byte_letter(uint8_t byte, char out[2]);
int el_letter_byte(uint32_t cp); /* -1: not of the alphabet */

#endif
