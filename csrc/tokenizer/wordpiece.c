/* wordpiece.c - BERT's tokenizer ("bert"): the text is cleaned, cut at blanks and around punctuation and Chinese
 * characters, and each word becomes the longest pieces from left to right, or the unknown token as a whole. In files a
 * piece that begins a word has U+2581 before it; the others stand without their ##.
 * Source: BasicTokenizer and WordpieceTokenizer of Devlin et al. 2018 (tokenization.py). As in GGUF files' recorded
 * tokens only the first code point of a decomposition stays: a Hangul syllable leaves its first consonant. */
#include "tokenizer_impl.h"

#include <string.h>

#include "unicode_fold.h"
#include "utf8.h"

#define BIT(c) (1u << (c))
#define SPACES (BIT(EL_CC_SPACE) | BIT(EL_CC_BLANK) | BIT(EL_CC_TAB) | BIT(EL_CC_LF) | BIT(EL_CC_CR))
#define ALONE                                                                                                          \
    (BIT(EL_CC_PUNCTUATION) | BIT(EL_CC_QUOTE) | BIT(EL_CC_SLASH) | BIT(EL_CC_ASCII_PUNCTUATION) |                     \
     BIT(EL_CC_ASCII_SYMBOL) | BIT(EL_CC_BACKTICK)) /* becomes a word of its own */

static edgellm_status setup(el_tokenizer *t, const el_vocab_data *data)
{
    static const int32_t usual[] = {101, -1, -1, 100, 102, 0, 103}; /* [CLS] [UNK] [SEP] [PAD] [MASK] of BERT */

    t->adds_bos = t->adds_sep = t->frames_always = true;
    t->marked_spaces = true;
    t->clean_spaces = true;
    t->lowers = data->lowercase != 0;
    t->strips_accents = data->strip_accents >= 0 ? data->strip_accents : t->lowers;
    if (t->special[EDGELLM_TOKEN_BOS] < 0 && data->cls >= 0)
        t->special[EDGELLM_TOKEN_BOS] = data->cls;
    el_usual_roles(t, usual, EL_COUNT(usual));
    t->stand_in = t->special[EDGELLM_TOKEN_UNK];
    t->drops_bytes = true;
    return el_index_trie(
        t, data, BIT(EL_TOKEN_UNDEFINED) | BIT(EL_TOKEN_NORMAL) | BIT(EL_TOKEN_USER_DEFINED) | BIT(EL_TOKEN_UNUSED));
}

/* As the published code has it, but for one block (U+2B820) that the common implementation misspells. */
static bool is_chinese(uint32_t cp)
{
    return (cp >= 0x4E00 && cp <= 0x9FFF) || (cp >= 0x3400 && cp <= 0x4DBF) || (cp >= 0x20000 && cp <= 0x2A6DF) ||
           (cp >= 0x2A700 && cp <= 0x2B81F) || (cp >= 0x2B920 && cp <= 0x2CEAF) || (cp >= 0xF900 && cp <= 0xFAFF) ||
           (cp >= 0x2F800 && cp <= 0x2FA1F);
}

/* run->word[0 .. n), which begins with U+2581. */
static void emit_word(el_encoding *run, size_t n)
{
    const el_tokenizer *t = run->t;
    size_t before = run->n;

    for (size_t at = 0, length; at < n; at += length) {
        int32_t id;

        length = el_prefix_longest(&t->trie, run->word + at, n - at, &id);
        if (length == 0) {
            run->n = before;
            if (t->stand_in >= 0)
                el_emit(run, t->stand_in);
            return;
        }
        el_emit(run, id);
    }
}

enum { MARK_LENGTH = 3 };

static void end_word(el_encoding *run, size_t *used)
{
    if (*used > MARK_LENGTH)
        emit_word(run, *used);
    *used = MARK_LENGTH;
}

static void add_code_point(el_encoding *run, uint32_t cp, size_t *used)
{
    const el_tokenizer *t = run->t;
    uint8_t kind;
    bool alone;

    if (t->strips_accents)
        cp = el_unaccented(cp);
    kind = el_class_of(cp);
    if (SPACES >> kind & 1) {
        end_word(run, used);
        return;
    }
    if (cp == 0xFFFD || el_is_control_cp(cp) || (t->strips_accents && kind == EL_CC_MARK))
        return;
    alone = ALONE >> kind & 1 || is_chinese(cp);
    if (alone)
        end_word(run, used);
    *used += (size_t)el_utf8_put(run->word + *used, t->lowers ? el_lower_of(cp) : cp);
    if (alone)
        end_word(run, used);
}

static edgellm_status encode(el_encoding *run, const char *text, size_t n)
{
    edgellm_status status = el_encoding_word(run, MARK_LENGTH + 4 * n);
    size_t used = MARK_LENGTH;

    if (status != EDGELLM_OK)
        return status;
    memcpy(run->word, "\xE2\x96\x81", MARK_LENGTH);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int length = el_utf8_next(text + i, n - i, &cp);

        if (length > 0) /* other bytes count as U+FFFD, which goes */
            add_code_point(run, cp, &used);
        i += (size_t)EL_MAX(length, 1);
    }
    end_word(run, &used);
    return EDGELLM_OK;
}

const el_family el_family_wordpiece = {"bert", setup, encode};
