/* bpe.c - byte-pair encoding by merge ranks: "gpt2" over GPT-2's byte alphabet, "gemma4" over plain UTF-8 with U+2581
 * for blanks, "whitespace" over plain UTF-8 whose white space only divides. The merges stay as the file spells them:
 * "left right" is hashed whole, and a pair is looked up by writing it the same way, so that loading splits and joins
 * nothing. */
#include "tokenizer_impl.h"

#include <string.h>

#include "unicode_fold.h"
#include "utf8.h"

#define BIT(c) (1u << (c))
#define SPACES (BIT(EL_CC_SPACE) | BIT(EL_CC_BLANK) | BIT(EL_CC_TAB) | BIT(EL_CC_LF) | BIT(EL_CC_CR))

/* GPT-2's alphabet: printable Latin-1 bytes are themselves, the other 68 follow from U+0100 in order. */
int el_byte_letter(uint8_t byte, char out[2])
{
    unsigned cp;

    if ((byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD))
        cp = byte;
    else
        cp = 0x100u + (byte <= 0x20 ? byte : byte <= 0xA0 ? byte - 0x7Fu + 33 : 67);
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    out[0] = (char)(0xC0 | cp >> 6);
    out[1] = (char)(0x80 | (cp & 0x3F));
    return 2;
}

int el_letter_byte(uint32_t cp)
{
    if ((cp >= 0x21 && cp <= 0x7E) || (cp >= 0xA1 && cp <= 0xFF && cp != 0xAD))
        return (int)cp;
    if (cp < 0x100 || cp > 0x143)
        return -1;
    cp -= 0x100;
    return (int)(cp <= 0x20 ? cp : cp < 67 ? cp - 33 + 0x7F : 0xAD);
}

enum { MAX_MERGE = 4096 }; /* bytes of "left right": the longest real ones, runs of blanks, have about 600 */

static uint32_t pair_rank(const void *context, const char *text, size_t n_left, size_t n_right, int32_t *made)
{
    const el_tokenizer *t = context;
    char spelled[MAX_MERGE];
    size_t n = n_left + 1 + n_right;
    int32_t rank;

    *made = -1;
    if (n > t->merge_ranks.longest) /* at most MAX_MERGE */
        return EL_NO_PAIR;
    memcpy(spelled, text, n_left);
    spelled[n_left] = ' ';
    memcpy(spelled + n_left + 1, text + n_left, n_right);
    rank = el_piece_table_find(&t->merge_ranks, t->merges, spelled, n);
    if (rank < 0)
        return EL_NO_PAIR;
    *made = el_piece_table_find(&t->pieces, t->tokens, text, n_left + n_right);
    return (uint32_t)rank;
}

static edgellm_status index_merges(el_tokenizer *t, const el_vocab_data *data)
{
    edgellm_status status;

    if (data->n_merges == 0 || !data->merges)
        return el_fail(EDGELLM_EFORMAT, "tokenizer.ggml.merges is missing or empty; a '%s' vocabulary needs it",
                       t->family->model);
    t->merges = el_alloc(data->n_merges, sizeof *t->merges);
    if (!t->merges)
        return el_no_memory(data->n_merges * sizeof *t->merges);
    memcpy(t->merges, data->merges, data->n_merges * sizeof *t->merges);
    status = el_piece_table_new(&t->merge_ranks, data->n_merges);
    if (status == EDGELLM_OK)
        status = el_piece_table_fill(&t->merge_ranks, t->merges, data->n_merges, MAX_MERGE, NULL, 0, "merge");
    return status;
}

static edgellm_status setup(el_tokenizer *t, const el_vocab_data *data, el_str pre)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_pretok_find(&t->pre, pre));
    el_pretok_prepare(&t->plan, t->pre);
    t->pair = pair_rank;
    t->drops_bytes = true; /* as the reference implementations do; Falcon, for one, has no token for 0x0B */
    t->adds_bos = t->pre->flags & (EL_PRE_BOS | EL_PRE_BOS_ALWAYS);
    t->adds_sep = t->pre->flags & EL_PRE_SEP;
    t->clean_spaces = t->pre->flags & EL_PRE_CLEAN;
    t->marked_spaces = t->pre->flags & EL_PRE_RAW;
    t->plain_pieces = t->pre->flags & EL_PRE_PLAIN;
    t->whole_words = data->ignore_merges >= 0 ? data->ignore_merges : (t->pre->flags & EL_PRE_WHOLE_WORDS) != 0;
    EL_TRY(index_merges(t, data));
    EL_TRY(el_index_text(t, data));
    for (int byte = 0; byte < 256; byte++) {
        char letter[2];
        size_t n = (size_t)el_byte_letter((uint8_t)byte, letter);

        t->byte_ids[byte] = el_piece_table_find(&t->pieces, t->tokens, letter, n);
    }
    if (t->marked_spaces || t->plain_pieces) {
        el_index_bytes(t);
        el_find_crossings(t, t->merges, data->n_merges);
    }
done:
    return status;
}

static edgellm_status setup_gpt2(el_tokenizer *t, const el_vocab_data *data) { return setup(t, data, data->pre); }

static edgellm_status setup_gemma4(el_tokenizer *t, const el_vocab_data *data)
{
    return setup(t, data, (el_str){"gemma4", 6});
}

static edgellm_status setup_whitespace(el_tokenizer *t, const el_vocab_data *data)
{
    t->drops_spaces = true;
    t->lowers = data->lowercase == 1;
    return setup(t, data, (el_str){"whitespace", 10});
}

/* A piece that is a token as it stands, where the pre-tokenizer says so. */
static bool emit_whole(el_encoding *run, size_t n, bool wanted)
{
    int32_t id = wanted ? el_piece_table_find(&run->t->pieces, run->t->tokens, run->word, n) : -1;

    if (id >= 0)
        el_emit(run, id);
    return id >= 0;
}

/* One piece over the byte alphabet: symbol i is byte i. */
static edgellm_status encode_bytes(el_encoding *run, const char *text, size_t n)
{
    const el_tokenizer *t = run->t;
    el_merger *m = &run->merger;
    edgellm_status status = EDGELLM_OK;
    size_t used = 0;

    if (n == 1)
        return el_emit_byte(run, (uint8_t)text[0]);
    EL_TRY(el_encoding_word(run, 2 * n));
    EL_TRY(el_merger_reserve(m, n));
    for (size_t i = 0; i < n; i++) {
        m->offset[i] = (uint32_t)used;
        m->id[i] = t->byte_ids[(uint8_t)text[i]];
        used += (size_t)el_byte_letter((uint8_t)text[i], run->word + used);
    }
    m->offset[n] = (uint32_t)used;
    m->text = run->word;
    if (emit_whole(run, used, t->whole_words))
        return EDGELLM_OK;
    el_merger_run(m, n);
    for (size_t i = 0; i < n; i = m->next[i]) {
        if (m->id[i] >= 0)
            el_emit(run, m->id[i]);
        else /* joined, but not into a token */
            for (size_t k = i; k < m->next[i]; k++)
                EL_TRY(el_emit_byte(run, (uint8_t)text[k]));
    }
done:
    return status;
}

/* At most 3 bytes for 2. */
static size_t lower(char *out, const char *text, size_t n)
{
    size_t used = 0;

    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int length = el_utf8_next(text + i, n - i, &cp);

        if (length > 0)
            used += (size_t)el_utf8_put(out + used, el_lower_of(cp));
        else
            out[used++] = text[i];
        i += (size_t)EL_MAX(length, 1);
    }
    return used;
}

/* One piece of plain UTF-8. */
static edgellm_status encode_plain(el_encoding *run, const char *text, size_t n)
{
    const el_tokenizer *t = run->t;
    edgellm_status status = EDGELLM_OK;
    bool newlines = text[0] == '\n' && t->pre->flags & EL_PRE_NEWLINES;
    size_t used, count;

    EL_TRY(el_encoding_word(run, 3 * n));
    if (t->marked_spaces)
        used = el_mark_spaces(run->word, text, n);
    else if (t->lowers)
        used = lower(run->word, text, n);
    else
        memcpy(run->word, text, used = n);
    if (emit_whole(run, used, t->whole_words || newlines))
        return EDGELLM_OK;
    EL_TRY(el_symbols_of(run, used, &count));
    el_merger_run(&run->merger, count);
    EL_TRY(el_emit_symbols(run, count));
done:
    return status;
}

/* ---- a text --------------------------------------------------------------------------- */

/* A piece of plain text in parts between which no merge reaches (el_next_blank). */
static edgellm_status encode_parts(el_encoding *run, const char *text, size_t n, size_t left)
{
    edgellm_status status = EDGELLM_OK;

    for (size_t at = 0, end; at < n && status == EDGELLM_OK; at = end) {
        el_known_word key;

        end = run->t->whole_words ? n : el_next_blank(run->t, text, at, n);
        if (el_known_word_emit(run, text + at, end - at, left - at, &key))
            continue;
        status = encode_plain(run, text + at, end - at);
        el_known_word_keep(run, &key);
    }
    return status;
}

static edgellm_status encode_piece(el_encoding *run, const char *text, size_t n, size_t left)
{
    edgellm_status status;
    el_known_word key;

    if (el_known_word_emit(run, text, n, left, &key))
        return EDGELLM_OK;
    status = encode_bytes(run, text, n);
    el_known_word_keep(run, &key);
    return status;
}

static edgellm_status encode(el_encoding *run, const char *text, size_t n)
{
    edgellm_status status = EDGELLM_OK;
    bool plain = run->t->marked_spaces || run->t->plain_pieces;

    EL_TRY(el_known_words(run, n));
    if (n > run->classes_room) {
        el_free(run->classes);
        run->classes = el_alloc(n, 1);
        run->classes_room = run->classes ? n : 0;
        if (!run->classes)
            return el_no_memory(n);
    }
    el_classify(text, n, run->classes);
    el_pretok_cut(&run->t->plan, text, n, run->classes);
    for (size_t at = 0, end; at < n && status == EDGELLM_OK; at = end) {
        end = el_piece_end(run->classes, at, n);
        if (run->t->drops_spaces && SPACES >> (run->classes[at] & EL_CC_MASK) & 1)
            continue;
        status = (plain ? encode_parts : encode_piece)(run, text + at, end - at, n - at);
    }
done:
    return status;
}

const el_family el_family_bpe = {"gpt2", setup_gpt2, encode};
const el_family el_family_whitespace = {"whitespace", setup_whitespace, encode};
const el_family el_family_gemma4 = {"gemma4", setup_gemma4, encode};
