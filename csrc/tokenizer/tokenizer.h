/* tokenizer.h - text to token ids and back, for the families of tokenizers that GGUF files name.
 * Given arrays, not files: the strings point into the caller's memory (a mapped file), which outlives the tokenizer.
 * One file per family: bpe.c (byte-level BPE), spm.c (SentencePiece-style BPE), unigram.c, wordpiece.c, rwkv.c,
 * plamo2.c, none.c (the "test" tokenizer).
 * Immutable after el_tokenizer_new; any number of threads may use it at once. */
#ifndef EL_TOKENIZER_H
#define EL_TOKENIZER_H

#include "error.h"
#include "mem.h"

enum { /* tokenizer.ggml.token_type */
       EL_TOKEN_UNDEFINED = 0,
       EL_TOKEN_NORMAL = 1,
       EL_TOKEN_UNKNOWN = 2,
       EL_TOKEN_CONTROL = 3,
       EL_TOKEN_USER_DEFINED = 4,
       EL_TOKEN_UNUSED = 5,
       EL_TOKEN_BYTE = 6
};

typedef struct el_vocab_data {
    el_str model;         /* tokenizer.ggml.model: "gpt2", "llama", "bert" ... (el_family.model) */
    el_str pre;           /* tokenizer.ggml.pre, may be empty */
    el_str name;          /* general.name, may be empty: some families' rules hang on nothing else */
    el_str arch;          /* general.architecture, likewise */
    const el_str *tokens; /* n_tokens pieces */
    size_t n_tokens;
    const uint8_t *scores; /* n_tokens little-endian floats at any alignment, or NULL */
    const uint8_t *types;  /* n_tokens little-endian int32 at any alignment, or NULL: all normal */
    const el_str *merges;  /* n_merges "left right", or NULL */
    size_t n_merges;
    const uint8_t *charsmap; /* n_charsmap bytes: el_charsmap_open */
    size_t n_charsmap;
    int32_t special[16];              /* by role as the file says; -1: the file does not say (el_special_key) */
    int32_t cls;                      /* BERT's name for what begins a text; -1 likewise */
    int8_t add_bos, add_eos, add_sep; /* 1, 0 or -1: the file does not say (the family's default applies) */
    int8_t add_space_prefix;          /* likewise */
    int8_t remove_extra_whitespaces;  /* likewise */
    int8_t ignore_merges;             /* likewise; by default the pre-tokenizer decides */
    int8_t lowercase, strip_accents;  /* likewise; of BERT's normalizer */
} el_vocab_data;

/* Which token_id key of tokenizer.ggml holds a role: "bos_token_id" for EDGELLM_TOKEN_BOS. Beyond edgellm_special, the
 * roles 11 to 13 are padding, repository and file of fill-in-the-middle. NULL: no such role. */
const char *el_special_key(int role);

typedef struct el_tokenizer el_tokenizer;

/* Errors: EFORMAT (with the index and the reason), EUNSUPPORTED (names the tokenizer and those we have), ENOMEM.
 * *data may go after the call; the strings it points to must stay. */
edgellm_status el_tokenizer_new(el_tokenizer **out, const el_vocab_data *data);
void el_tokenizer_free(el_tokenizer *t); /* NULL is fine */

size_t el_tokenizer_n_tokens(const el_tokenizer *t);
el_str el_tokenizer_piece(const el_tokenizer *t, int32_t id);  /* as the file spells it */
int el_tokenizer_type(const el_tokenizer *t, int32_t id);      /* EL_TOKEN_* */
int32_t el_tokenizer_special(const el_tokenizer *t, int role); /* edgellm_special, -1 if none */
bool el_tokenizer_is_eog(const el_tokenizer *t, int32_t id);   /* EOS, EOT, EOM and all that families use as such */
bool el_tokenizer_adds(const el_tokenizer *t, int role);       /* BOS, EOS, SEP around a text */
bool el_tokenizer_has_text(const el_tokenizer *t);             /* false for "test" */

/* As edgellm_tokenize: *n is the full count, at most cap ids are written. Time is O(n log n) in the text's length
 * whatever the text; memory O(n). */
edgellm_status el_tokenize(const el_tokenizer *t, const char *text, size_t n_bytes, uint32_t flags, int32_t *ids,
                           size_t cap, size_t *n);
/* As edgellm_detokenize. */
edgellm_status el_detokenize(const el_tokenizer *t, const int32_t *ids, size_t n_ids, uint32_t flags, char *buf,
                             size_t cap, size_t *n_bytes);
/* The bytes one token adds in the middle of a text (a leading-space mark becomes a space). Writes at most cap,
 * returns the full length. Control tokens give nothing without EDGELLM_KEEP_SPECIAL. id must be in range. */
size_t el_token_bytes(const el_tokenizer *t, int32_t id, uint32_t flags, char *buf, size_t cap);

#endif
